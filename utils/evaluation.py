"""A prediction and a frame's truth -> the scores that are reported, in mm."""

import functools
import math
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from utils.geometry import towards
from utils.image import BOX_UNIT
from utils.joints import COMMON17, CONFIDENT, H36M17, HIPS, JOINTS49, LIMBS, LSP14, PELVIS, SPIN, SPIN24, rows
from utils.metrics import MM, acceleration_error, auc, pck, point_error, procrustes_align
from utils.resume import State
from utils.structures import Body, Frame, Prediction

GENDERS = ("male", "female", "neutral")  # 0 and 1 as in SPIN's files

# regressed joints, both (B,J,3) metres around the pelvis, and the finished scores, (B,) each
Scored = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]


def score_3dpw(prediction: Prediction, frame: Frame, bodies: Mapping[str, Body], regressor: Tensor) -> Scored:
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


def score_3dpw_ph(prediction: Prediction, frame: Frame, bodies: Mapping[str, Body], regressor: Tensor) -> Scored:
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
    prediction: Prediction, frame: Frame, bodies: Mapping[str, Body], regressor: Tensor, names: list[str]
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
score_h36m = functools.partial(score_joints, names=LSP14)


def score_multiview(prediction: Prediction, frame: Frame, bodies: Mapping[str, Body], regressor: Tensor) -> Scored:
    """Scores against the twelve joints of the limbs, which somebody triangulated, around the middle of the hips.

    Args:
        prediction: `joints` (B,49,3), `keypoints_2d` (B,49,2)
        frame: `joints_3d` (B,24,4) metres in camera axes, `keypoints_2d` (B,49,3), `ray` (B,3)
        bodies, regressor: not needed; the skeleton's own joints are nearer to the detector's than regressed ones
    """
    limbs = prediction.joints[:, rows(LIMBS.values(), JOINTS49)].cpu().double()
    limbs = (limbs @ towards(frame["ray"].cpu().double()).mT).numpy()
    annotated = frame["joints_3d"][:, rows(LIMBS, SPIN24), :3].cpu().numpy().astype(np.float64)
    predicted, given, scores = score_limbs(limbs, annotated)
    return predicted, given, scores | _image_scores(prediction, frame)


def score_limbs(predicted: np.ndarray, given: np.ndarray) -> Scored:
    """Scores of joints (N,12,3) m, those of LIMBS, around the middle of the hips."""
    hips = rows(["Right Hip", "Left Hip"], LIMBS)
    predicted, given = (joints - joints[:, hips].mean(1, keepdims=True) for joints in (predicted, given))
    return predicted, given, _joint_scores(predicted, given)


def _annotated_meshes(frame: Frame, bodies: Mapping[str, Body]) -> tuple[Tensor, Tensor]:
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


def _mesh_scores(prediction: Prediction, posed: Tensor, unposed: Tensor, neutral: Body) -> dict[str, np.ndarray]:
    return {
        "pve": _mesh_error(prediction.vertices, posed),
        "ume": _mesh_error(neutral.unposed(prediction.betas), unposed),
    }


def _image_scores(prediction: Prediction, frame: Frame) -> dict[str, np.ndarray]:
    return {"reprojection": reprojection_error(prediction.keypoints_2d, frame["keypoints_2d"]).cpu().numpy()}


def _mesh_error(predicted: Tensor, given: Tensor) -> np.ndarray:
    """As `point_error`, where the meshes are, of which nothing else is fetched."""
    return (MM * (predicted - given).norm(dim=-1).mean(1)).cpu().numpy()


class Acceleration:
    """The acceleration error of the last three frames, if they are consecutive frames of one person.

    Args:
        step: by which the numbers of consecutive frames differ
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=3)
        self.last: tuple[str, int, int] | None = None  # sequence, person, number of the frame before

    def __call__(self, sequence: str, person: int, number: int, predicted: np.ndarray, given: np.ndarray) -> float:
        """Joints (J,3) m of the next frame -> mm per frame squared, nan without two consecutive frames before."""
        if self.last != (sequence, person, number - self.step):
            self.recent.clear()
        self.last = (sequence, person, number)
        self.recent.append((predicted, given))
        if len(self.recent) < 3:
            return float("nan")
        return acceleration_error(*(np.stack(joints) for joints in zip(*self.recent, strict=True)))

    def state(self) -> State:
        """The last frames (utils.resume.Stateful)."""
        return {"recent": [tuple(map(torch.from_numpy, pair)) for pair in self.recent], "last": self.last}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.recent.extend(tuple(joints.numpy() for joints in pair) for pair in state["recent"])
        self.last = state["last"]


class Scorer:
    """Scores frame by frame.

    Args:
        score: one of the `score_*` functions, with bodies and regressor filled in
        step: by which the numbers of consecutive frames differ
        last_pck_counts: give a whole batch the PCK of its last sample, as the code published with the paper
    """

    def __init__(self, score: Callable[..., Scored], step: int = 1, last_pck_counts: bool = False) -> None:
        self.score, self.last_pck_counts = score, last_pck_counts
        self.acceleration = Acceleration(step)
        self.state, self.load_state = self.acceleration.state, self.acceleration.load_state

    def __call__(self, prediction: Prediction, frame: Frame) -> list[dict[str, float]]:
        """Score a batch -> one {score: number} per frame, mm or fractions; accel is nan where it cannot be told."""
        predicted, given, scores = self.score(prediction, frame)
        if self.last_pck_counts:
            scores["pck"] = np.full_like(scores["pck"], scores["pck"][-1])
        places = (frame["sequence"], frame["person"].tolist(), frame["number"].tolist())
        accelerations = [self.acceleration(*row) for row in zip(*places, predicted, given, strict=True)]
        scores["accel"] = np.array(accelerations)
        return [{name: float(values[i]) for name, values in scores.items()} for i in range(len(predicted))]


class FootageScorer:
    """What there is to measure without ground truth: distance from the 2D joints before and after, and acceleration.

    Args:
        frozen: the base model, a frame -> its prediction; None: the scored one is the base model itself
        step: by which the numbers of consecutive frames differ
    """

    def __init__(self, frozen: Callable[[Frame], Prediction] | None, step: int = 1) -> None:
        self.frozen, self.acceleration = frozen, Acceleration(step)
        self.state, self.load_state = self.acceleration.state, self.acceleration.load_state

    @torch.no_grad()
    def __call__(self, prediction: Prediction, frame: Frame) -> list[dict[str, float]]:
        """Score a batch of one frame.

        Returns `frozen_px`, `adapted_px`: mean distance of the projected joints from the given ones of confidence over
        0.3, weighted by it, px of the image; `frozen_share`, `adapted_share`: the same over the side of the box;
        `accel`: mean second difference of the 3D joints around the hips, mm/frame^2. What cannot be told is nan.
        """
        base = self.frozen(frame) if self.frozen else prediction
        side, is_seen = BOX_UNIT * frame["scale"].item(), not frame.get("bridged", False)
        scores = {}
        for name, predicted in (("frozen", base), ("adapted", prediction)):
            fraction = reprojection_error(predicted.keypoints_2d, frame["keypoints_2d"]).item() if is_seen else math.nan
            scores |= {f"{name}_px": fraction * side, f"{name}_share": fraction}
        joints = prediction.joints[0, SPIN].cpu().numpy().astype(np.float64)
        joints -= joints[HIPS].mean(axis=0)
        place = (frame["sequence"][0], frame["person"].item(), frame["index"].item())
        return [{**scores, "accel": self.acceleration(*place, joints, np.zeros_like(joints))}]


def reprojection_error(predicted: Tensor, given: Tensor) -> Tensor:
    """Mean distance of projected joints (B,49,2) from given ones (B,49,3) of confidence over 0.3, weighted by it.

    Returns (B,), shares of the crop's side; nan where no joint is confident.
    """
    weight = torch.where(given[..., 2] > CONFIDENT, given[..., 2], 0)
    distance = (predicted - given[..., :2]).norm(dim=-1) / 2
    return (weight * distance).sum(dim=-1) / weight.sum(dim=-1)
