"""Whether a detector's joints fit the images that they are said to be of."""

from pathlib import Path

import numpy as np

from utils.joints import CONFIDENT

_FARTHEST = 10.0  # larger sides of the image, from its middle, at which a joint can be
_MANY = 0.1  # fraction of the confident joints outside of the image, from which it is odd
_ENOUGH = 10  # frames with people, after which it is said
_QUARTER = 0.5  # of width and height, in which all joints of a smaller copy lie


class Fit:
    """Counts joints outside of the images, and takes out those that cannot be meant.

    Args:
        origin: of the joints, for messages
    """

    def __init__(self, origin: Path) -> None:
        self.origin, self.frames, self.impossible = origin, 0, 0
        self.confident = self.outside = self.outside_turned = 0
        self.reach, self.size = np.zeros(2), np.zeros(2)  # px, width and height

    def check(self, people: np.ndarray, rgb: np.ndarray) -> np.ndarray:
        """People (N,49,3) in an image (H,W,3) -> the same without joints that are impossibly far away."""
        self.size = np.array(rgb.shape[1::-1])
        away = np.abs(people[..., :2] - self.size / 2).max(axis=-1)
        impossible = (people[..., 2] > 0) & (away > _FARTHEST * self.size.max())
        self.impossible += int(impossible.sum())
        people = np.where(impossible[..., None], 0.0, people)
        points = people[people[..., 2] > CONFIDENT, :2]
        if len(points):
            self.frames += 1
            self.confident += len(points)
            self.outside += _outside(points, self.size)
            self.outside_turned += _outside(points, self.size[::-1])
            self.reach = np.maximum(self.reach, points.max(axis=0))
        return people

    @property
    def is_odd(self) -> bool:
        """Whether many of the confident joints lie outside of the images."""
        return self.outside > _MANY * self.confident

    @property
    def is_known(self) -> bool:
        """Whether enough was seen to say so before the end."""
        return self.frames >= _ENOUGH

    def describe(self) -> str:
        """What is odd, and why that is likely."""
        width, height = self.size
        if self.outside_turned <= self.outside / 2 and width != height:
            why = "they fit it when it is turned by 90 degrees: the detector saw the clip as it is stored, lying"
        else:
            reach = "x".join(f"{value:.0f}" for value in self.reach)
            why = f"they reach to {reach} px: the detector saw a larger copy, or wrote other units (--keypoint_scale)"
        percent = 100 * self.outside / self.confident
        return f"{self.origin}: {percent:.0f} % of the joints lie outside of the image of {width}x{height} px; {why}"

    def facts(self) -> dict[str, object]:
        """Fractions and counts up to now, for summary.json."""
        outside = self.outside / self.confident if self.confident else 0.0
        return {"keypoints_outside": round(outside, 4), "keypoints_impossible": self.impossible}

    def warnings(self) -> list[str]:
        """What is to be said at the end."""
        lines = []
        if self.is_odd:
            lines.append(self.describe())
        elif self.frames > 1 and (self.reach < _QUARTER * self.size).all():
            lines.append(
                f"{self.origin}: all joints lie in the upper left quarter of the image; if the people do not, "
                "the detector saw a smaller copy, or wrote other units (--keypoint_scale)"
            )
        if self.impossible:
            lines.append(
                f"{self.origin}: joints that are impossibly far from the image and left out: {self.impossible}"
            )
        return lines


def _outside(points: np.ndarray, size: np.ndarray) -> int:
    """How many points (N,2) lie outside of an image of a width and height."""
    return int(((points < -1) | (points > size)).any(axis=1).sum())
