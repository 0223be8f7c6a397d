"""Updates that go astray: how far each one moves the prediction of its frame, and the way back."""

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch

from utils.joints import HIPS, SPIN
from utils.metrics import MM
from utils.structures import Frame, Prediction

if TYPE_CHECKING:
    from models.learner import Learner

JUMPED, REVERTED = "yes", "undone"


class Guarded(NamedTuple):
    """A prediction, and of each frame what there is to say of its update: JUMPED, REVERTED or nothing."""

    prediction: Prediction
    jumps: list[str]


class JumpGuard:
    """Watches how far an update moves the prediction of its frame: the mean over the joints, around the hips.

    Args:
        limit: mm, from which on it is a jump; 0: it does not matter
        revert: undo the update then
    """

    def __init__(self, limit: float, revert: bool) -> None:
        self.limit, self.revert = limit, revert and limit > 0
        self.before: torch.Tensor | None = None  # (B,49,3) m, the joints as the lower level saw them
        self.copy: list[dict] = []

    def remember(self, learner: "Learner") -> None:
        """An update follows: take a copy of what it changes, if it may be undone."""
        self.before = None
        if self.revert:
            self.copy = [copy.deepcopy(part.state_dict()) for part in self._parts(learner)]

    def see(self, joints: torch.Tensor) -> None:
        """Joints (B,49,3) m of the frame; the first ones are those before its update."""
        if self.before is None:
            self.before = joints.detach()

    def predict(self, learner: "Learner", frame: Frame, is_updated: bool) -> Guarded:
        """Predict a frame after its update, or after that was undone."""
        prediction = learner.predict(frame)
        jumps = [""] * len(prediction.joints)
        if not (self.limit and is_updated):
            return Guarded(prediction, jumps)
        moved = MM * (_around_hips(prediction.joints) - _around_hips(self.before)).norm(dim=-1).mean(dim=1)
        jumps = [JUMPED if distance > self.limit else "" for distance in moved.tolist()]
        if self.revert and any(jumps):
            for part, state in zip(self._parts(learner), self.copy, strict=True):
                part.load_state_dict(state)
            return Guarded(learner.predict(frame), [REVERTED] * len(jumps))
        return Guarded(prediction, jumps)

    def _parts(self, learner: "Learner") -> tuple[torch.nn.Module, torch.nn.Module, torch.optim.Optimizer]:
        return learner.model, learner.teacher, learner.optimizer


def _around_hips(joints: torch.Tensor) -> torch.Tensor:
    """Joints (B,49,3) m -> those of the data sets, around the middle of the hips."""
    joints = joints[:, SPIN]
    return joints - joints[:, HIPS].mean(dim=1, keepdim=True)
