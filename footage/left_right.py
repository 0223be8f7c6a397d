"""Left and right over time: detectors exchange them for seconds, and single joints jump. Frame by frame, no look ahead.

Each of three groups of joints, legs, arms and face, is as the detector says, or exchanged. What is believed of these
eight states is carried from frame to frame, as in the forward pass of a hidden Markov model:

1. motion: from one frame to the next the detector goes on as before, or it has changed its mind, whichever moves the
   joints less. Where left and right are near each other, and after a gap, that says little;
2. sight: shoulders, hips and face look about the same way; and a network may tell which of the states its body can
   explain. That decides at the start, after a gap, and whether a change of mind was for the better or for the worse;
3. experience: detectors are mostly right, and do not stay wrong for long.
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from footage.tracking import BOX_ENLARGE
from models.joint_branch import JointBranch
from models.prediction import predict
from models.smpl import SMPL
from utils.image import Crop, box_around
from utils.joints import BODY25, CONFIDENT, JOINTS49, flip_permutation, mirror, rows, same_joint_rows

GROUPS = {
    "legs": ("Hip", "Knee", "Ankle", "Heel", "Toe"),
    "arms": ("Shoulder", "Elbow", "Wrist"),
    "face": ("Eye", "Ear"),
}
RATE = 30.0  # frames/s; fractions of the person's size below hold for it, and for more, where noise is what moves

# experience: how often none, one, two and all of the groups are exchanged; less often where a detector begins
SHARES = (0.90, 0.02, 0.005, 0.025)
SHARES_AT_START = (0.975, 0.005, 0.0015, 0.0055)
CHANGES = 0.5  # probability that a detector makes up its mind anew within a second
# motion: how much the way from right to left changes unforeseen, of what is a jump, and what one pair may say
MOTION_SCALE = 0.25
MOST_OF_A_PAIR, MOST_OF_A_GROUP = 4.8, 12.0  # log-likelihood ratio
KEPT_VELOCITY = 0.8  # fraction with which a joint is expected to go on
VELOCITY_SHARE = 0.5  # of the newest displacement in a joint's velocity
LARGEST_CHANGE = 0.06  # fraction of the size, of a velocity in one frame
FORGET = 1.0  # s after which a joint that is not seen may be anywhere
# sight, per second, because what is wrong in a frame is wrong in the next
SAME_WAY, FULL_WAY = 3.0, 0.012  # log-likelihood ratio, and the product of two ways from right to left that gets it
MISFIT_SCALE, MOST_OF_A_MISFIT, MISFITS = 0.004, 4.0, 2.0
MOST_OF_ALL = 1.0  # what a misfit says of everything being exchanged, which shows somebody who looks the other way
# jumps: fractions of the size from where a joint, and from how its neighbour, is expected to move
JUMPS = {"Wrist": 0.16, "Ankle": 0.20, "Heel": 0.22, "Toe": 0.22, "Elbow": 0.12, "Knee": 0.12}
JUMP = 0.10  # of all others
MOST_JUMPS = 6  # joints at once; more have moved
TOGETHER = 0.6  # fraction of their distance to which a pair comes together in a frame, where a detector cannot decide
LONGEST_JUMP = 0.1  # s; a joint that stays elsewhere is there
COMMON = 6  # joints that are compared with each other to tell who jumped

Misfit = Callable[[np.ndarray], np.ndarray]


def _rows_of(parts: tuple[str, ...], table: list[str]) -> list[int]:
    return [row for row, name in enumerate(table) if any(part in name for part in parts)]


def _orders() -> np.ndarray:
    """For each state the rows (8,49) that put it straight."""
    orders = np.tile(np.arange(len(JOINTS49)), (len(_STATES), 1))
    for group, parts in enumerate(GROUPS.values()):
        members = _rows_of(parts, JOINTS49)
        exchanged = np.array(flip_permutation(JOINTS49))[members]
        orders[:, members] = np.where(_STATES[:, group, None], exchanged, members)
    return orders


_OPENPOSE = list(BODY25)
_STATES = np.array(list(product((False, True), repeat=len(GROUPS))))  # (8,3), which groups are exchanged
_OPPOSITE = np.arange(len(_STATES))[::-1]  # of each state, with all that is exchanged as it is and the rest exchanged
_SIGNS = 1 - 2 * _STATES
_CHANGED = _STATES[:, None] ^ _STATES[None]  # (8,8,3), before and after
_EXPERIENCE, _AT_START = (np.array(shares)[_STATES.sum(1)] for shares in (SHARES, SHARES_AT_START))
_ORDERS = _orders()
_PAIRS = np.array(
    [
        (group, row, _OPENPOSE.index(mirror(_OPENPOSE[row])))
        for group, parts in enumerate(GROUPS.values())
        for row in _rows_of(parts, _OPENPOSE)
        if _OPENPOSE[row].startswith("OP R")
    ]
)
_OF_GROUP, _RIGHT, _LEFT = _PAIRS.T
_LOOKS = np.isin(_RIGHT, rows(["OP RHip", "OP RShoulder", "OP REye", "OP REar"], BODY25))  # pairs across the body
_LIMITS = np.array([next((limit for part, limit in JUMPS.items() if part in name), JUMP) for name in _OPENPOSE])
_INWARDS = {"Elbow": "Shoulder", "Wrist": "Elbow", "Knee": "Hip", "Ankle": "Knee", "Heel": "Ankle"}
_INWARDS |= {"BigToe": "Ankle", "SmallToe": "Ankle"}
# the joint of the same limb that is next to each towards the trunk, or the joint itself
_NEIGHBOUR = np.array([_OPENPOSE.index(name[:4] + _INWARDS.get(name[4:], name[4:])) for name in _OPENPOSE])
_SAME_JOINT = [same_joint_rows(name) for name in _OPENPOSE]


class Kept(NamedTuple):
    """What was made of a frame's joints.

    joints: (49,3) px and confidence, left and right put straight; one that jumped is expected there, confidence 0
    exchanged: the groups that were exchanged back
    dropped: how many joints jumped
    """

    joints: np.ndarray
    exchanged: tuple[str, ...]
    dropped: int


def as_it_is(person: np.ndarray) -> Kept:
    """A person (49,3) as the detector says."""
    return Kept(person, (), 0)


class SidesKept:
    """Puts left and right of one person straight, and drops joints that jump, frame by frame.

    Args:
        rate: frames/s
    """

    def __init__(self, rate: float = RATE) -> None:
        self.rate = rate
        self.reset()

    def reset(self) -> None:
        """Forget the person, as where they were lost."""
        self._belief, self._size = _AT_START, 0.0
        # of OpenPose's joints, under the names that the detector gives them now
        self._place, self._velocity = np.zeros((2, len(BODY25), 2))  # px, px a frame
        self._unseen = np.full(len(BODY25), np.inf)  # frames since each was seen
        self._elsewhere = np.zeros(len(BODY25), int)  # frames for which each has jumped

    def __call__(self, person: np.ndarray, misfit: Misfit | None = None) -> Kept:
        """Take the next frame; changes what is remembered.

        Args:
            person: (49,3) px and confidence, all 0 where they are not seen
            misfit: candidates (K,49,3) px -> (K,) mean distance from what is expected of the person, in sides of a box
                around them
        """
        joints = person[: len(BODY25)]
        seen = joints[:, 2] > CONFIDENT
        if not seen.any():
            self._unseen += 1
            return as_it_is(person)
        self._size = max(np.ptp(joints[seen, :2], axis=0).max(), 0.9 * self._size, 1.0)
        usable = seen & (self._unseen < FORGET * self.rate)
        evidence = self._motion(joints, usable)
        sight = _same_way(joints, seen, self._size) * SAME_WAY / self.rate
        if misfit is not None:
            share = MISFITS / self.rate if usable.any() else 1.0  # the first look is worth more than the next
            sight += share * _explained(misfit(person[_ORDERS]))
        self._rename(self._believe(evidence, sight))
        usable = seen & (self._unseen < FORGET * self.rate)
        jumped = self._jumped(joints, usable)
        expected = self._expected()
        self._follow(joints, seen & ~jumped)
        return self._straightened(person, jumped, expected)

    @property
    def _slowness(self) -> float:
        """How many frames of the usual rate there are to a frame, 1 at least."""
        return max(1.0, RATE / self.rate)

    def _expected(self) -> np.ndarray:
        """Where each joint is expected now, (25,2) px."""
        gap = np.minimum(np.where(np.isfinite(self._unseen), self._unseen, 0) + 1, 3)
        return self._place + KEPT_VELOCITY * self._velocity * gap[:, None]

    def _motion(self, joints: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """How much likelier it is for each group that the detector goes on than that it changes its mind, (3,) log."""
        expected, gap = self._expected(), np.where(usable, self._unseen, 0)
        way, before = joints[_RIGHT, :2] - joints[_LEFT, :2], expected[_RIGHT] - expected[_LEFT]
        scale = MOTION_SCALE * _LIMITS[_RIGHT] * self._slowness * self._size * np.sqrt(1 + gap[_RIGHT] + gap[_LEFT])
        ratio = (np.linalg.norm(way + before, axis=1) - np.linalg.norm(way - before, axis=1)) / scale
        ratio = np.where(usable[_RIGHT] & usable[_LEFT], np.clip(ratio, -MOST_OF_A_PAIR, MOST_OF_A_PAIR), 0)
        return np.clip(np.bincount(_OF_GROUP, ratio, len(GROUPS)), -MOST_OF_A_GROUP, MOST_OF_A_GROUP)

    def _believe(self, evidence: np.ndarray, sight: np.ndarray) -> np.ndarray:
        """Go on to the next frame -> of which groups (3,) the detector has probably changed its mind."""
        anew = 1 - (1 - CHANGES) ** (1 / self.rate)
        carried = self._belief[:, None] * ((1 - anew) * np.eye(len(_STATES)) + anew * _EXPERIENCE)
        carried = carried * np.exp(-(_CHANGED * evidence).sum(2) + np.minimum(evidence, 0).sum())
        belief = carried.sum(0) * np.exp(sight - sight.max())
        self._belief = belief / belief.sum()
        return (carried[..., None] * _CHANGED).sum((0, 1)) > 0.5 * carried.sum()

    def _rename(self, changed: np.ndarray) -> None:
        """Call what is remembered of the groups (3,) as the detector calls it from now on."""
        order = _ORDERS[(changed == _STATES).all(1).argmax(), : len(BODY25)]
        for name in ("_place", "_velocity", "_unseen", "_elsewhere"):
            setattr(self, name, getattr(self, name)[order])

    def _jumped(self, joints: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """Which joints (25,) are too far from where they are expected, and have not been so for long."""
        if usable.sum() < COMMON:
            return np.zeros(len(BODY25), bool)
        expected = self._expected()
        away = np.where(usable[:, None], joints[:, :2] - expected, 0)
        away -= np.median(away[usable], axis=0)  # what all do together is the camera, or a step
        limits = _LIMITS * self._slowness**1.5 * self._size
        inwards = np.where((np.arange(len(BODY25)) != _NEIGHBOUR)[:, None], away[_NEIGHBOUR], 0)
        jumped = usable & (np.linalg.norm(away, axis=1) > limits) & (np.linalg.norm(away - inwards, axis=1) > limits)
        if jumped.sum() > MOST_JUMPS:
            jumped[:] = False
        jumped |= self._undecided(joints, expected, usable)
        jumped &= self._elsewhere < max(1, LONGEST_JUMP * self.rate)
        self._elsewhere = np.where(jumped, self._elsewhere + 1, 0)
        return jumped

    def _undecided(self, joints: np.ndarray, expected: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """Which joints (25,) a detector has put between both sides of an arm or a leg, as it does when it changes."""
        way, before = joints[_RIGHT, :2] - joints[_LEFT, :2], expected[_RIGHT] - expected[_LEFT]
        fallen = usable[_RIGHT] & usable[_LEFT] & (_OF_GROUP < 2)
        fallen &= np.linalg.norm(way, axis=1) < TOGETHER * np.linalg.norm(before, axis=1)
        limits = 2 * _LIMITS[_RIGHT] * self._slowness**1.5 * self._size
        certain = fallen & (np.linalg.norm(way - before, axis=1) > limits)
        fallen &= np.isin(_OF_GROUP, _OF_GROUP[certain])  # one pair tells it of the others, whose way is shorter
        undecided = np.zeros(len(BODY25), bool)
        undecided[_RIGHT[fallen]] = undecided[_LEFT[fallen]] = True
        return undecided

    def _follow(self, joints: np.ndarray, seen: np.ndarray) -> None:
        """Take the places of the joints (25,3) that are `seen` (25,) bool."""
        known = seen & (self._unseen < FORGET * self.rate)
        step = (joints[:, :2] - self._place) / np.where(known, self._unseen + 1, 1)[:, None] - self._velocity
        most = LARGEST_CHANGE * self._slowness**2 * self._size
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= VELOCITY_SHARE * np.minimum(1, most / np.maximum(length, 1e-9))
        self._velocity = np.where(known[:, None], self._velocity + step, KEPT_VELOCITY * self._velocity)
        self._velocity[seen & ~known] = 0
        self._place = np.where(seen[:, None], joints[:, :2], self._place)
        self._unseen = np.where(seen, 0, self._unseen + 1)

    def _straightened(self, person: np.ndarray, jumped: np.ndarray, expected: np.ndarray) -> Kept:
        state = int(self._belief.argmax())
        joints = person.copy()
        for row in np.flatnonzero(jumped):
            joints[_SAME_JOINT[row]] = [*expected[row], 0]
        exchanged = tuple(name for name, is_exchanged in zip(GROUPS, _STATES[state], strict=True) if is_exchanged)
        return Kept(joints[_ORDERS[state]], exchanged, int(jumped.sum()))


def _same_way(joints: np.ndarray, seen: np.ndarray, size: float) -> np.ndarray:
    """How well legs, arms and face agree on where the person looks, in each state, (8,) from -3 to 3."""
    way = np.where((seen[_RIGHT] & seen[_LEFT] & _LOOKS)[:, None], joints[_RIGHT, :2] - joints[_LEFT, :2], 0) / size
    across = np.stack([np.bincount(_OF_GROUP, way[:, axis], len(GROUPS)) for axis in (0, 1)], axis=1)
    agreement = np.clip(across @ across.T / FULL_WAY, -1, 1)
    return sum(agreement[one, two] * _SIGNS[:, one] * _SIGNS[:, two] for one, two in ((0, 1), (0, 2), (1, 2)))


def _explained(misfit: np.ndarray) -> np.ndarray:
    """Log-likelihood of each state by the misfits (8,) of a network's body.

    A body can nearly always explain a state and the opposite one, in which it looks the other way.
    """
    opposite = misfit[_OPPOSITE]
    best = np.minimum(misfit, opposite)
    against_opposite = np.clip((misfit - opposite) / MISFIT_SCALE, -MOST_OF_ALL, MOST_OF_ALL)
    return -np.minimum((best - best.min()) / MISFIT_SCALE, MOST_OF_A_MISFIT) - against_opposite / 2


def sight_of(regressor: nn.Module, body: SMPL) -> Misfit | None:
    """How well a network that is given the joints can explain them; None for one that sees the image alone.

    Args:
        regressor: as it was trained (models.hmr)
        body: those vertices that joints touch
    """
    branch = regressor if isinstance(regressor, JointBranch) else getattr(regressor, "joints", None)
    if branch is None:
        return None

    @torch.no_grad()
    def misfit(candidates: np.ndarray) -> np.ndarray:
        crop = Crop(*box_around(candidates[0][candidates[0][:, 2] > CONFIDENT, :2], BOX_ENLARGE))
        given = torch.as_tensor(np.stack([crop.exact_points(joints) for joints in candidates])).to(body.v_template)
        distance = (predict(branch, body, {"keypoints_2d": given}).keypoints_2d - given[..., :2]).norm(dim=-1) / 2
        seen = given[..., 2] > CONFIDENT
        return ((distance * seen).sum(1) / seen.sum(1)).cpu().numpy()

    return misfit


def straightened(
    keypoints: np.ndarray, sequences: Sequence[Hashable], rate: float, misfit: Misfit | None
) -> list[Kept]:
    """Put joints (N,49,3) px of recorded sequences straight, each from its first frame on.

    Args:
        sequences: to which one each frame belongs
        rate: frames/s
        misfit: as of SidesKept
    """
    kept, sides, before = [], SidesKept(rate), None
    for person, sequence in zip(keypoints, sequences, strict=True):
        if sequence != before:
            sides.reset()
        kept.append(sides(person.astype(np.float64), misfit))
        before = sequence
    return kept
