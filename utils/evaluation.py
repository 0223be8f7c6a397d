"""A prediction and a frame's truth -> the scores that are reported, in mm."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.joints import H36M17, LSP14, PELVIS, rows
from utils.metrics import acceleration_error, auc, pck, point_error, procrustes_align

GENDERS = ("male", "female", "neutral")  # 0 and 1 as in SPIN's files

# regressed joints, both (B,J,3) metres around the pelvis, and the finished scores, (B,) each
Scored = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]


def score_3dpw(prediction: Any, frame: Mapping[str, Tensor], bodies: Mapping[str, Any], regressor: Tensor) -> Scored:
    """Scores of 3DPW (section 4 of the paper): 14 joints, posed and unposed mesh.

    Args:
        prediction: `vertices` (B,V,3), `betas` (B,10)
        frame: `pose` (B,72), `betas` (B,10), `gender` (B,), a row of GENDERS
        bodies: the body model of each gender and the neutral one
        regressor: (17,V), J_regressor_h36m.npy
    """
    posed, unposed = _annotated_meshes(frame, bodies)
    predicted, given = (_evaluation_joints(mesh, regressor, LSP14) for mesh in (prediction.vertices, posed))
    predicted_rest = bodies["neutral"].unposed(prediction.betas)
    scores = _joint_scores(predicted, given)
    scores["pve"] = _mesh_error(prediction.vertices, posed)
    scores["ume"] = _mesh_error(predicted_rest, unposed)
    return predicted, given, scores


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
        """Score a batch -> one {score: number} per frame, mm but for pck and auc; accel is nan without two before."""
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
