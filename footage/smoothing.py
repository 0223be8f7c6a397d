"""The One-Euro filter (Casiez, Roussel, Vogel, CHI 2012): steady where a signal rests, quick where it moves."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from utils.resume import State

DERIVATIVE_CUTOFF = 1.0  # Hz


class OneEuro:
    """Filter vectors that arrive one by one.

    Args:
        cutoff: Hz, for a signal at rest
        beta: by how many Hz the cutoff rises for each unit of speed
    """

    def __init__(self, cutoff: float, beta: float) -> None:
        self.cutoff, self.beta = cutoff, beta
        self.reset()

    def reset(self) -> None:
        """Forget what was before, as after a gap."""
        self._before: tuple[np.ndarray, np.ndarray, float] | None = None  # raw, filtered, seconds
        self._speed: np.ndarray | float = 0.0

    def state(self) -> State:
        """What was before (utils.resume.Stateful)."""
        if self._before is None:
            return {"before": None}
        raw, filtered, seconds = self._before
        arrays = [torch.from_numpy(np.array(array)) for array in (raw, filtered, self._speed)]
        return {"before": arrays, "seconds": seconds}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.reset()
        if state["before"] is not None:
            raw, filtered, self._speed = (array.numpy() for array in state["before"])
            self._before = (raw, filtered, state["seconds"])

    def __call__(self, value: np.ndarray, seconds: float) -> np.ndarray:
        """The next value (...,D) at a time -> the filtered one; speeds are norms along the last axis."""
        if self._before is None:
            filtered = value
        else:
            raw, filtered, before = self._before
            step = max(seconds - before, 1e-3)
            speed = self._difference(raw, value) / step
            self._speed = self._speed + _weight(DERIVATIVE_CUTOFF, step) * (speed - self._speed)
            cutoff = self.cutoff + self.beta * np.linalg.norm(self._speed, axis=-1, keepdims=True)
            filtered = self._moved(filtered, _weight(cutoff, step) * self._difference(filtered, value))
        self._before = (value, filtered, seconds)
        return filtered

    def _difference(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        return end - start

    def _moved(self, start: np.ndarray, displacement: np.ndarray) -> np.ndarray:
        return start + displacement


class OneEuroRotation(OneEuro):
    """The same for rotation matrices (J,3,3), each filtered along the shortest turn; speeds are radians per second."""

    def _difference(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        return (Rotation.from_matrix(start).inv() * Rotation.from_matrix(end)).as_rotvec()

    def _moved(self, start: np.ndarray, displacement: np.ndarray) -> np.ndarray:
        return (Rotation.from_matrix(start) * Rotation.from_rotvec(displacement)).as_matrix()


def _weight(cutoff: np.ndarray | float, step: float) -> np.ndarray | float:
    """Weight of a new value in a low pass of `cutoff` Hz after `step` seconds."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))
