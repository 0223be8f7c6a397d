"""A prediction and a frame's truth -> the scores that are reported, in mm."""

import functools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.image import BOX_UNIT
from utils.joints import COMMON17, CONFIDENT, H36M17, HIPS, LSP14, PELVIS, SPIN, SPIN24, rows
from utils.metrics import acceleration_error, auc, pck, point_error, procrustes_align

GENDERS = ("male", "female", "neutral")  # 0 and 1 as in SPIN's files

# regressed joints, both (B,J,3) metres around the pelvis, and the finished scores, (B,) each
Scored = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]


def score_3dpw(prediction: Any, frame: Mapping[str, Tensor], bodies: Mapping[str, Any], regressor: Tensor) -> Scored:
    """Scores of 3DPW (section 4 of the paper): 14 joints, posed and unposed mesh.

    Args:
        prediction: `vertices` (B,V,3), `betas` (B,10), `keypoints_2d` (B,49,2)
        frame: `pose` (B,72), `betas` (B,10), `gender` (B,), a row of GENDERS, `keypoints_2d` (B,49,3)
        bodies: the body model of each gender and the neutral one
        regressor: (17,V), J_regressor_h36m.npy
    """
    posed, unposed = _annotated_meshes(frame, bodies)
    predicted, given = (_evaluation_joints(mesh, regressor, LSP14) for mesh in (prediction.vertices, posed))
    scores = _joint_scores(predicted, given) | _mesh_scores(prediction, posed, unposed, bodies["neutral"])
    return predicted, given, scores | _image_scores(prediction, frame)


def score_3dpw_ph(prediction: Any, frame: Mapping[str, Tensor], bodies: Mapping[str, Any], regressor: Tensor) -> Scored:
    """Scores of 3DPW by the #PH protocol: joints as `score_3dpw`, meshes of the neutral body.

    Args:
        frame: as for `score_3dpw`, and `betas_neutral` (B,10), the neutral shape nearest to the person's own
    """
    neutral, betas = bodies["neutral"], frame["betas_neutral"]
    own, _ = _annotated_meshes(frame, bodies)
    predicted, given = (_evaluation_joints(mesh, regressor, LSP14) for mesh in (prediction.vertices, own))
    posed = neutral.from_axis_angle(frame["pose"], betas).vertices
    scores = _joint_scores(predicted, given) | _mesh_scores(prediction, posed, neutral.unposed(betas), neutral)
    return predicted, given, scores | _image_scores(prediction, frame)


def score_joints(
    prediction: Any, frame: Mapping[str, Tensor], bodies: Mapping[str, Any], regressor: Tensor, names: list[str]
) -> Scored:
    """Scores against annotated 3D joints; there is no mesh to compare with.

    Args:
        prediction: `vertices` (B,V,3), `keypoints_2d` (B,49,2)
        frame: `joints_3d` (B,24,4) metres, `keypoints_2d` (B,49,3)
        bodies: not needed
        regressor: (17,V), J_regressor_h36m.npy
        names: of the joints that count
    """
    predicted = _evaluation_joints(prediction.vertices, regressor, names)
    annotated = frame["joints_3d"][..., :3].cpu().numpy().astype(np.float64)
    given = annotated[:, rows(names, SPIN24)] - annotated[:, rows(["Pelvis (MPII)"], SPIN24)]
    return predicted, given, _joint_scores(predicted, given) | _image_scores(prediction, frame)


score_3dhp = functools.partial(score_joints, names=COMMON17)
score_h36m = functools.partial(score_joints, names=[name for name in LSP14 if name in H36M17])
SCORES = {"3dpw": score_3dpw, "3dpw-ph": score_3dpw_ph, "3dhp": score_3dhp, "h36m": score_h36m}


def _annotated_meshes(frame: Mapping[str, Tensor], bodies: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Each person's own gendered body, posed and in the zero pose, (B,V,3) both."""
    posed, unposed = [], []
    for pose, betas, gender in zip(frame["pose"], frame["betas"], frame["gender"].tolist(), strict=True):
        body = bodies[GENDERS[gender]]
        posed.append(body.from_axis_angle(pose[None], betas[None]).vertices)
        unposed.append(body.unposed(betas[None]))
    return torch.cat(posed), torch.cat(unposed)


def _evaluation_joints(vertices: Tensor, regressor: Tensor, names: list[str]) -> np.ndarray:
    """Regress joints from a mesh (B,V,3) -> (B,J,3) metres around the pelvis."""
    joints = (regressor @ vertices).cpu().numpy().astype(np.float64)
    return joints[:, rows(names, H36M17)] - joints[:, PELVIS, None]


def _joint_scores(predicted: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    aligned_error = point_error(procrustes_align(predicted, given), given)
    return {
        "mpjpe": point_error(predicted, given).mean(1),
        "pampjpe": aligned_error.mean(1),
        "pck": pck(aligned_error),
        "auc": auc(aligned_error),
    }


def _mesh_scores(prediction: Any, posed: Tensor, unposed: Tensor, neutral: Any) -> dict[str, np.ndarray]:
    return {
        "pve": _mesh_error(prediction.vertices, posed),
        "ume": _mesh_error(neutral.unposed(prediction.betas), unposed),
    }


def _image_scores(prediction: Any, frame: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {"reprojection": reprojection_error(prediction.keypoints_2d, frame["keypoints_2d"]).cpu().numpy()}


def _mesh_error(predicted: Tensor, given: Tensor) -> np.ndarray:
    return point_error(predicted.cpu().numpy(), given.cpu().numpy()).mean(1)


class Scorer:
    """Scores frame by frame; remembers the last two frames of a person for the acceleration error.

    Args:
        score: one of the `score_*` functions, with bodies and regressor filled in
        last_pck_counts: give a whole batch the PCK of its last sample, as the code published with the paper
    """

    def __init__(self, score: Callable[..., Scored], last_pck_counts: bool = False) -> None:
        self.score, self.last_pck_counts = score, last_pck_counts
        self.recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=3)
        self.person: tuple[str, int] | None = None

    def __call__(self, prediction: Any, frame: Mapping[str, Any]) -> list[dict[str, float]]:
        """Score a batch -> one {score: number} per frame, mm or shares; accel is nan without two before."""
        predicted, given, scores = self.score(prediction, frame)
        if self.last_pck_counts:
            scores["pck"] = np.full_like(scores["pck"], scores["pck"][-1])
        persons = zip(frame["sequence"], frame["person"].tolist(), strict=True)
        scores["accel"] = np.array([self._acceleration(*row) for row in zip(persons, predicted, given, strict=True)])
        return [{name: float(values[i]) for name, values in scores.items()} for i in range(len(predicted))]

    def _acceleration(self, person: tuple[str, int], predicted: np.ndarray, given: np.ndarray) -> float:
        if person != self.person:
            self.recent.clear()
            self.person = person
        self.recent.append((predicted, given))
        if len(self.recent) < 3:
            return float("nan")
        return acceleration_error(*(np.stack(joints) for joints in zip(*self.recent, strict=True)))


class FootageScorer:
    """What there is to measure without ground truth: distance from the 2D joints before and after, and acceleration.

    Args:
        frozen: the base model, image (B,3,224,224) -> prediction; None: the scored one is the base model itself
    """

    def __init__(self, frozen: Callable[[Tensor], Any] | None) -> None:
        self.frozen = frozen
        self.recent: deque[tuple[int, np.ndarray]] = deque(maxlen=3)

    @torch.no_grad()
    def __call__(self, prediction: Any, frame: Mapping[str, Any]) -> list[dict[str, float]]:
        """Score a batch of one frame.

        Returns `frozen_px`, `adapted_px`: mean distance of the projected joints from the given ones of confidence over
        0.3, weighted by it, px of the image; `frozen_share`, `adapted_share`: the same over the side of the box;
        `accel`: mean second difference of the 3D joints around the hips, mm/frame^2. What cannot be told is nan.
        """
        base = self.frozen(frame["image"]) if self.frozen else prediction
        side = BOX_UNIT * frame["scale"].item()
        scores = {}
        for name, predicted in (("frozen", base), ("adapted", prediction)):
            share = reprojection_error(predicted.keypoints_2d, frame["keypoints_2d"]).item()
            scores |= {f"{name}_px": share * side, f"{name}_share": share}
        return [{**scores, "accel": self._acceleration(frame["index"].item(), prediction.joints)}]

    def _acceleration(self, index: int, joints: Tensor) -> float:
        joints = joints[0, SPIN].cpu().numpy().astype(np.float64)
        self.recent.append((index, joints - joints[HIPS].mean(axis=0)))
        indices = [index for index, _ in self.recent]
        if len(indices) < 3 or len(set(np.diff(indices))) > 1:  # a frame is missing between them
            return float("nan")
        ways = np.stack([joints for _, joints in self.recent])
        return acceleration_error(ways, np.zeros_like(ways))


def reprojection_error(predicted: Tensor, given: Tensor) -> Tensor:
    """Mean distance of projected joints (B,49,2) from given ones (B,49,3) of confidence over 0.3, weighted by it.

    Returns (B,), shares of the crop's side; nan where no joint is confident.
    """
    weight = torch.where(given[..., 2] > CONFIDENT, given[..., 2], 0)
    distance = (predicted - given[..., :2]).norm(dim=-1) / 2
    return (weight * distance).sum(dim=-1) / weight.sum(dim=-1)
