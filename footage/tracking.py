"""Who is who from frame to frame, and the box around them.

People are (49,3): x, y px and confidence, rows of utils.joints.JOINTS49. A box is (3,): center x, y and side, px.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from utils.image import BOX_UNIT, box_around
from utils.joints import CONFIDENT

BOX_ENLARGE = 1.2
REACH = 0.35  # of the box's side, that joints may lie from where they are expected
REACH_GROWTH = 0.03  # for each frame that a track was lost
WIDEST_REACH = 1.5
SIZE_RATIO = 1.6  # between two frames of a person
MOVES_ON = 5  # frames for which a lost person is expected to keep their velocity
FORGET = 300  # frames after which a lost track ends
COMMON_JOINTS = 4  # that two frames must share for their joints to be compared; else their boxes are


def box_of(person: np.ndarray) -> np.ndarray:
    """Box (3,) around the confident joints of a person (49,3), enlarged."""
    center, scale = box_around(person[person[:, 2] > CONFIDENT, :2], BOX_ENLARGE)
    return np.array([*center, scale * BOX_UNIT])


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes (3,)."""
    low = np.maximum(one[:2] - one[2] / 2, other[:2] - other[2] / 2)
    high = np.minimum(one[:2] + one[2] / 2, other[:2] + other[2] / 2)
    common = np.prod(np.maximum(high - low, 0))
    return float(common / (one[2] ** 2 + other[2] ** 2 - common))


def prominence(person: np.ndarray, size: tuple[int, int]) -> float:
    """How large and central a person (49,3) is in an image of given height and width."""
    box, (height, width) = box_of(person), size
    away = np.linalg.norm(box[:2] - [width / 2, height / 2])
    return float(box[2] * max(1 - away / np.hypot(height, width), 0))


class Track:
    """One person through the frames: where they were last, how they moved, for how many frames they are lost."""

    def __init__(self, number: int, person: np.ndarray) -> None:
        self.number, self.person, self.box = number, person, box_of(person)
        self.velocity, self.lost = np.zeros(2), 0

    def distance(self, person: np.ndarray) -> float:
        """How far a person (49,3) is from the one expected, in sides of the box; infinite if it cannot be them."""
        shift = self.velocity * min(self.lost + 1, MOVES_ON)
        box, expected_box = box_of(person), self.box + [*shift, 0]
        both = (self.person[:, 2] > CONFIDENT) & (person[:, 2] > CONFIDENT)
        reach = min(REACH + REACH_GROWTH * self.lost, WIDEST_REACH)
        if both.sum() < COMMON_JOINTS:
            away, sizes = np.linalg.norm(box[:2] - expected_box[:2]), (box[2], self.box[2])
        else:
            now, before = person[both, :2], self.person[both, :2]
            away = np.linalg.norm(now - before - shift, axis=1).mean()
            # not the boxes' sizes, which jump when the legs go behind something
            sizes = [np.linalg.norm(points - points.mean(0)) for points in (now, before)]
        away /= self.box[2]
        if away > reach or max(sizes) > SIZE_RATIO * min(sizes):
            return np.inf
        return float(away + (1 - overlap(box, expected_box)) / 2)

    def follow(self, person: np.ndarray) -> None:
        """Take the person's place (49,3) in the frame at hand."""
        both = (self.person[:, 2] > CONFIDENT) & (person[:, 2] > CONFIDENT)
        if both.any():
            step = np.median(person[both, :2] - self.person[both, :2], axis=0) / (self.lost + 1)
            self.velocity = (self.velocity + step) / 2
        self.person, self.box, self.lost = person, box_of(person), 0


class Tracker:
    """Gives people numbers, from 1, that they keep through crossings and losses."""

    def __init__(self) -> None:
        self.tracks: dict[int, Track] = {}
        self.count = 0

    def match(self, people: np.ndarray) -> list[int]:
        """Number of each of the people (N,49,3) by what is known so far, 0 for somebody new; changes nothing."""
        tracks, numbers = list(self.tracks.values()), [0] * len(people)
        if tracks and len(people):
            costs = np.array([[track.distance(person) for person in people] for track in tracks])
            # the assignment must exist, so that the impossible has a price, and is then left out
            for row, column in zip(*linear_sum_assignment(np.minimum(costs, 1e3)), strict=True):
                if np.isfinite(costs[row, column]):
                    numbers[column] = tracks[row].number
        return numbers

    def miss(self, frames: int) -> None:
        """Let so many frames pass in which nobody looked."""
        for track in self.tracks.values():
            track.lost += frames

    def update(self, people: np.ndarray) -> list[int]:
        """Take the people (N,49,3) of the next frame -> their numbers; new people are counted on in their order."""
        numbers = self.match(people)
        for track in self.tracks.values():
            track.lost += track.number not in numbers
        for row, person in enumerate(people):
            if numbers[row]:
                self.tracks[numbers[row]].follow(person)
            else:
                self.count += 1
                numbers[row] = self.count
                self.tracks[self.count] = Track(self.count, person)
        self.tracks = {number: track for number, track in self.tracks.items() if track.lost <= FORGET}
        return numbers


class SteadyBox:
    """Smooths boxes over time: the center follows with little lag, the size slowly, no joint is cut off."""

    CENTER, SIDE = 0.6, 0.25  # weight of the new in the smoothed value

    def __init__(self) -> None:
        self.box: np.ndarray | None = None

    def __call__(self, box: np.ndarray) -> np.ndarray:
        """The next box (3,) -> the smoothed one."""
        if self.box is None:
            self.box = box
        weight = np.array([self.CENTER, self.CENTER, self.SIDE])
        smoothed = weight * box + (1 - weight) * self.box
        needed = box[2] / BOX_ENLARGE + 2 * np.abs(box[:2] - smoothed[:2]).max()
        self.box = np.array([*smoothed[:2], max(smoothed[2], needed)])
        return self.box
