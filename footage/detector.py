"""What a detector of 2D joints is, whether it looks at the frames itself or reads what another program found.

People are (N,49,3): x and y in px of the image, the centre of the first pixel at 0, and confidence; the rows are those
of utils.joints.JOINTS49. A joint that the detector does not have, or did not find, is 0, 0, 0.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from footage.sources import VideoFrame
from utils.joints import CONFIDENT, JOINTS49, same_joint_rows

MIN_JOINTS = 4  # confident ones among TRUNK_AND_LIMBS, that a person must have to be followed
TRUNK_AND_LIMBS = slice(0, 15)  # of OpenPose's rows, without eyes, ears and feet


class Detector(Protocol):
    """Finds people in the frames of a video, which come in order, not necessarily all of them."""

    def detect_all(self, frame: VideoFrame) -> np.ndarray:
        """Everybody in a frame, people (N,49,3). Raises UserError for a damaged file."""

    def detect_near(self, frame: VideoFrame, box: np.ndarray) -> Iterator[np.ndarray]:
        """People (N,49,3) around a box (center x, y, side; px), then from ever farther, for who looks for somebody."""

    def facts(self) -> dict[str, object]:
        """What was not as it should be up to now, for summary.json."""

    def warnings(self) -> list[str]:
        """The same in words, for who started the run."""


def to_joints49(points: np.ndarray, table: Sequence[str]) -> np.ndarray:
    """Joints (N,R,3) of a detector, in the order of its table -> people (N,49,3); the same joint fills all its rows.

    What has no confidence, or lies at 0, 0, was not found.
    """
    people = np.zeros((len(points), len(JOINTS49), 3))
    for row, name in enumerate(table):
        if name:
            people[:, same_joint_rows(name)] = points[:, row, None]
    is_found = np.isfinite(people).all(axis=2) & (people[..., 2] > 0) & people[..., :2].any(axis=2)
    people[~is_found] = 0
    return people


def is_person(person: np.ndarray) -> bool:
    """Whether enough joints of a person (49,3) are confident to be followed."""
    return int((person[TRUNK_AND_LIMBS, 2] > CONFIDENT).sum()) >= MIN_JOINTS


def stack(people: Sequence[np.ndarray]) -> np.ndarray:
    """People (49,3) one by one -> (N,49,3)."""
    return np.stack(people) if len(people) else np.zeros((0, len(JOINTS49), 3))
