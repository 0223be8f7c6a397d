"""What the loop over the frames does beside the algorithm: moving, checking, counting."""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from utils import losses
from utils.errors import NotFiniteError, UserError
from utils.joints import JOINTS49, joint_names
from utils.resume import State
from utils.structures import Frame, Prediction, Source

# what the network and the losses need; what only the host reads, as the person's number, stays there, since fetching it
# back would wait for the device
_ON_DEVICE = ("image", "keypoints_2d", "joints_3d", "pose", "betas", "betas_neutral")


def to_device(batch: Frame, device: torch.device) -> Frame:
    """The batch with what is computed with on the device."""
    return {name: value.to(device, non_blocking=True) if name in _ON_DEVICE else value for name, value in batch.items()}


def next_source(source: Iterator[Source] | None, device: torch.device) -> Source | None:
    """The labelled sample of a step, on the device; what draws samples when it is asked is as it is."""
    found = next(source) if source else None
    return found if found is None or callable(found) else to_device(found, device)


def to_numbers(terms: Mapping[str, Tensor], prediction: Prediction, frame: Frame) -> dict[str, float]:
    """The terms as numbers, by one transfer; NotFiniteError when one of them, or the prediction, is not finite."""
    checked = {**terms, "prediction": prediction.joints.abs().mean()}
    values = dict(zip(checked, torch.stack(list(checked.values())).tolist(), strict=True))
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        where = ", ".join(frame["imgname"])
        raise NotFiniteError(
            f"{', '.join(bad)} not finite at {where}; use a smaller --lr or --metalr, or check its 2D joints"
        )
    return {name: values[name] for name in terms}


class Batches:
    """Batches of frames that are counted as they are taken, so that a run can go on after them (utils.resume.Stateful).

    After the last one they begin again, for another pass.

    Args:
        after: how many passes are done, and how many batches of the next one were taken -> the batches that follow
    """

    def __init__(self, after: Callable[[int, int], Iterator[Frame]]) -> None:
        self.after, self.passes, self.taken = after, 0, 0
        self.batches: Iterator[Frame] | None = None

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self.batches is None:
            self.batches = self.after(self.passes, self.taken)
        try:
            batch = next(self.batches)
        except StopIteration:
            self.batches, self.passes, self.taken = None, self.passes + 1, 0
            raise
        self.taken += 1
        return batch

    def state(self) -> State:
        """How many were taken."""
        return {"passes": self.passes, "taken": self.taken}

    def load_state(self, state: State) -> None:
        """Go on after as many."""
        self.passes, self.taken = state["passes"], state["taken"]


class KeypointCoverage:
    """Which 2D joints the frames have, and how many frames have one that a loss uses.

    Args:
        joints: those of the 49 that the losses use
    """

    def __init__(self, joints: slice) -> None:
        self.joints, self.confidence = joints, torch.zeros(len(JOINTS49))
        self.frames_with = self.frames_without = 0

    def count(self, batch: Frame) -> list[bool]:
        """Whether each frame of the batch has anything to adapt to."""
        keypoints = batch["keypoints_2d"]
        self.confidence = torch.maximum(self.confidence, keypoints[..., 2].amax(dim=0))
        visible = losses.visible(keypoints, self.joints)
        visible = (visible & ~batch.get("bridged", torch.zeros_like(visible))).tolist()
        self.frames_with += sum(visible)
        self.frames_without += len(visible) - sum(visible)
        return visible

    def state(self) -> State:
        """What was counted (utils.resume.Stateful)."""
        return {"confidence": self.confidence, "with": self.frames_with, "without": self.frames_without}

    def load_state(self, state: State) -> None:
        """Count on from there."""
        self.confidence = state["confidence"]
        self.frames_with, self.frames_without = state["with"], state["without"]

    def check(self) -> None:
        """Raise UserError when all frames were without."""
        if self.frames_without and not self.frames_with:
            there = joint_names(self.confidence.numpy())
            raise UserError(f"nothing was adapted: no 2D joint that the losses use is in any frame, but only: {there}")
