"""The terms of both objectives (section 3 of the paper): pure, unweighted, each the mean over every element.

A confidence multiplies the squared error before the mean is taken. B batch; `joints` are those of the 49 that count:
SPIN's 24, or all where the 2D joints are a detector's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.joints import CONFIDENT, HIPS, JOINTS49, LIMBS, SPIN, rows
from utils.structures import Prediction

TOLERANCE = 0.03  # of half a crop
# weights of SPIN's loss on a labelled sample
LABELLED_WEIGHTS = {"kp3d": 5.0, "kp2d": 5.0, "pose": 1.0, "betas": 0.001}


def _centred(joints: Tensor) -> Tensor:
    """SPIN joints (B,24,3) with the middle of the hips at the origin."""
    return joints - joints[:, HIPS].mean(dim=1, keepdim=True)


def visible(target: Tensor, joints: slice = SPIN) -> Tensor:
    """Whether `kp2d` sees anything of each person, (B,) bool, of target joints (B,49,3)."""
    return (target[:, joints, 2] > 0).any(dim=1)


def kp2d(keypoints_2d: Tensor, target: Tensor, joints: slice = SPIN) -> Tensor:
    """Distance of projected joints (B,49,2) from target joints (B,49,3), x, y, confidence.

    Of a detector's joints, some of which are elsewhere, it grows linearly beyond TOLERANCE (Huber).
    """
    keypoints_2d, target = keypoints_2d[:, joints], target[:, joints]
    squared = (keypoints_2d - target[..., :2]) ** 2
    if joints != SPIN:
        distance = torch.sqrt(squared.sum(-1, keepdim=True) + _NEAR_ZERO)
        squared = squared * torch.where(distance < TOLERANCE, 1, TOLERANCE * (2 * distance - TOLERANCE) / distance**2)
    return (target[..., 2:] * squared).mean()


def kp3d(joints: Tensor, target: Tensor) -> Tensor:
    """Distance of joints (B,49,3) from target SPIN joints (B,24,4), metres and confidence, both centred on the hips."""
    away = _centred(joints[:, SPIN]) - _centred(target[..., :3])
    return (target[..., 3:] * away**2).mean()


def shape_prior(betas: Tensor) -> Tensor:
    """Squared length of the shape (B,10)."""
    return (betas**2).sum(dim=1).mean()


def motion(
    keypoints_2d: Tensor,
    before: Tensor,
    target: Tensor,
    target_before: Tensor,
    joints: slice = SPIN,
    as_dynaboa: bool = False,
) -> Tensor:
    """Distance of the projected joints' displacement over n frames (B,49,2) from the target's (B,49,3) (eq. 6).

    Confidence does not count, as published; a detector's joints count where they are confident in both frames, and in
    DynaBOA's code those whose confidences sum to 2.
    """
    predicted_displacement = (keypoints_2d - before)[:, joints]
    target_displacement = (target - target_before)[:, joints, :2]
    if joints == SPIN and not as_dynaboa:
        return F.mse_loss(predicted_displacement, target_displacement)
    both = target[:, joints, 2:], target_before[:, joints, 2:]
    seen = sum(both) == 2 if as_dynaboa else torch.minimum(*both) > CONFIDENT
    return (seen * (predicted_displacement - target_displacement) ** 2).mean()


def teacher(predicted: Prediction, taught: Prediction, as_dynaboa: bool = False) -> dict[str, Tensor]:
    """Distance from the mean teacher's prediction of the same images, part by part (eq. 7).

    In DynaBOA's code all 49 joints count, and where the body is in 3D.
    """
    counted = slice(None) if as_dynaboa else SPIN
    joints, taught_joints = (prediction.joints[:, counted] for prediction in (predicted, taught))
    if not as_dynaboa:
        joints, taught_joints = _centred(joints), _centred(taught_joints)
    return {
        "kp3d": F.mse_loss(joints, taught_joints),
        "kp2d": F.mse_loss(predicted.keypoints_2d[:, counted], taught.keypoints_2d[:, counted]),
        "pose": F.mse_loss(predicted.rotmat, taught.rotmat),
        "betas": F.mse_loss(predicted.betas, taught.betas),
    }


def labelled(
    predicted: Prediction, keypoints_2d: Tensor, joints_3d: Tensor, rotmat: Tensor, betas: Tensor | None
) -> dict[str, Tensor]:
    """Distance from the labels of source samples, part by part; shapes as in `kp2d` and `kp3d`.

    `betas` (B,10) are None where the samples show another body, whose shapes mean something else.
    """
    parts = {
        "kp3d": kp3d(predicted.joints, joints_3d),
        "kp2d": kp2d(predicted.keypoints_2d, keypoints_2d),
        "pose": F.mse_loss(predicted.rotmat, rotmat),
    }
    return parts if betas is None else {**parts, "betas": F.mse_loss(predicted.betas, betas)}


def weighted(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Sum of those terms that have a weight, each times it."""
    return torch.stack([weight * terms[name] for name, weight in weights.items() if name in terms]).sum()


def named(whole: str, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Terms to be looked at, without a gradient, as `whole/part`."""
    return {f"{whole}/{name}": term.detach() for name, term in parts.items()}


# weights of the loss on what is lifted from 2D joints
LIFTED_WEIGHTS = {"kp3d": 1.0, "bones": 1.0, "kp2d": 1.0, "pose": 0.3, "betas": 0.005}
_FACE = ("Eye", "Ear", "Jaw (H36M)", "Head (H36M)", "Top of Head (LSP)", "Nose")
LIFTED_JOINTS = [2.0 if name in LIMBS.values() else 0.5 if name.endswith(_FACE) else 1.0 for name in JOINTS49]
_HIPS = rows(["OP RHip", "OP LHip"], JOINTS49)
BONES = [
    rows(names, JOINTS49)
    for names in (
        *((f"OP {s}Shoulder", f"OP {s}Elbow") for s in "RL"),
        *((f"OP {s}Elbow", f"OP {s}Wrist") for s in "RL"),
        *((f"OP {s}Hip", f"OP {s}Knee") for s in "RL"),
        *((f"OP {s}Knee", f"OP {s}Ankle") for s in "RL"),
        *((f"OP {s}Hip", f"OP {s}Shoulder") for s in "RL"),
        *((f"OP R{part}", f"OP L{part}") for part in ("Hip", "Shoulder")),
        ("Thorax (MPII)", "OP Nose"),
    )
]
_NEAR_ZERO = 1e-6  # m^2, where a distance has no gradient
_FARTHEST = 1.0  # of the crop, beyond which a projected joint is not pulled


def lifted(joints: Tensor, keypoints_2d: Tensor, target: Tensor, target_2d: Tensor) -> dict[str, Tensor]:
    """Distances, not squared, of joints (B,49,3) m and their projections (B,49,2) from the true ones.

    Where depth cannot be told, the mean of what it might be has bones that are too short; a distance is least at one
    that might be true.
    """
    weights = joints.new_tensor(LIFTED_JOINTS)
    in_space = _distance(_about_hips(joints) - _about_hips(target))
    in_picture = _distance(keypoints_2d - target_2d).clamp(max=_FARTHEST)
    start, end = zip(*BONES, strict=True)
    bones = (joints[:, end] - joints[:, start]) - (target[:, end] - target[:, start])
    return {
        "kp3d": (weights * in_space).mean(),
        "kp2d": (weights * in_picture).mean(),
        "bones": _distance(bones).mean(),
    }


def _distance(away: Tensor) -> Tensor:
    return torch.sqrt((away**2).sum(-1) + _NEAR_ZERO)


def _about_hips(joints: Tensor) -> Tensor:
    """Joints (B,49,3) with the middle of the hips at the origin."""
    return joints - joints[:, _HIPS].mean(dim=1, keepdim=True)
