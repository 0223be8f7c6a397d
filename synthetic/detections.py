"""Samples for a regressor that is given 2D joints: bodies before cameras, and what a detector makes of them.

No picture is rendered, so that a core makes thousands of samples a second. Lengths in metres, angles in radians; the
camera's axes are x right, y down, z forward. B is the size of a batch.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from utils.geometry import axis_angle_to_rotmat
from utils.joints import (
    CONFIDENT,
    DETECTED23,
    FACE5,
    HIPS,
    JOINTS49,
    LIMBS,
    SIDES,
    SMPL24,
    SPIN,
    SPIN24,
    flip_permutation,
    rows,
)

# rotations (B,24,3,3), betas (B,10), stretch (B,24) of the bones -> joints (B,49,3), the bones' rotations (B,24,3,3)
Skeleton = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
BETAS_DEVIATION, MOST_BETAS = 1.1, 2.5
STRETCH = 0.03  # deviation of the length of a bone beside what the shape explains
MIX_SHARE = 0.12  # of the arms and legs come from another pose
POSE_NOISE, LARGE_NOISE, LARGE_SHARE = 0.08, 0.2, 0.2
NEAR, FAR = 1.8, 15.0  # m, of the camera
ASIDE = math.radians(5)  # deviation of the person from the camera's axis
LYING_SHARE, HIGH_SHARE, ROLLED_SHARE = 0.06, 0.1, 0.25
_SMALL_TOES, _BIG_TOES = (rows([f"OP {s}{toe}" for s in "RL"], DETECTED23) for toe in ("SmallToe", "BigToe"))
ARMS = [rows([f"{side}_{part}" for part in ("collar", "shoulder", "elbow", "wrist")], SMPL24) for side in SIDES]
LEGS = [rows([f"{side}_{part}" for part in ("hip", "knee", "ankle")], SMPL24) for side in SIDES]
BENT = [joint for joint, name in enumerate(SMPL24) if joint and not name.endswith(("foot", "hand"))]
SEEN_ROWS = rows(DETECTED23, JOINTS49)

# what is seen of an arm or a leg is as of somebody whose limb and trunk lie alike
_LIMBS = rows(LIMBS, SPIN24)
_COMPARED = 3000  # people, drawn at random, of whom the most similar one is taken
# each part's rows in DETECTED23, and what is compared: rows in LIMBS
_TRUNK = [f"{side} {part}" for side in ("Right", "Left") for part in ("Hip", "Shoulder")]
_ARM, _LEG = ("Elbow", "Wrist"), ("Knee", "Ankle", "Heel", "BigToe", "SmallToe")
PARTS = [
    (
        rows([f"OP {side[0]}{part}" for part in parts], DETECTED23),
        rows([*_TRUNK, *(f"{side} {part}" for part in parts[:2])], LIMBS),
    )
    for side in ("Right", "Left")
    for parts in (_ARM, _LEG)
]
PARTS.append(([row for row, name in enumerate(DETECTED23) if not name.endswith((*_ARM, *_LEG))], rows(_TRUNK, LIMBS)))
_SEVERITY = 0.2  # deviation of the logarithm of the errors' size
_OFFSET = 0.012  # m, deviation of where another detector, or another person, has a joint
_JITTER = 0.006  # m
_ASTRAY, _FARTHEST = 0.12, 1.0  # m, median error of a person who is not used, largest error of a joint
# which joints a detector lacks, and how often it is this one: MediaPipe, OpenPose, COCO's
_MEDIAPIPE_SHARE = 0.55
_OTHERS = ((0.3, ()), (0.15, ("SmallToe", "BigToe", "Heel")))
_LEAST_CONFIDENCE = (0.02, 0.5)  # from which, lowest to highest, the others say that they found a joint
CUT_SHARE = 0.06  # of the pictures end at a part of the person, of which nothing is guessed
LOST_SHARE = 0.02  # of each arm, leg and face
# people of whom the detector leaves out what their head hides of their face, and every now and then some joint
HIDDEN_SHARE = 0.35
_EDGE = 0.3  # deviation of the cosine at which a part of the face is hidden, and how far below 0 that is
MISSED_SHARE = 0.04
# what is taken for that of the other side, and how often: everything, legs, arms, face
EXCHANGED = (
    (0.005, ("",)),
    (0.005, ("Hip", "Knee", "Ankle", "Heel", "Toe")),
    (0.005, ("Shoulder", "Elbow", "Wrist")),
    (0.005, ("Eye", "Ear")),
)
_EARS = rows([f"OP {s}Ear" for s in "RL"], DETECTED23)
# what disappears together
GROUPS = (
    *(tuple(f"OP {s}{part}" for part in ("Elbow", "Wrist")) for s in "RL"),
    *(tuple(f"OP {s}{part}" for part in ("Knee", "Ankle", "Heel", "BigToe", "SmallToe")) for s in "RL"),
    FACE5,
)
LEAST_FOUND = 4  # joints, of which fewer make nobody
NOBODY_SHARE = 0.15  # of the pictures in which the detector finds nobody
BOX_ENLARGE = 1.2
TURNED = flip_permutation(DETECTED23)


class Draw:
    """Random numbers of a seeded generator, on the default device."""

    def __init__(self, *seeds: int) -> None:
        self.generator = torch.Generator(torch.get_default_device())
        self.generator.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def happens(self, share: float | Tensor, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator) < share

    def among(self, count: int, size: int) -> Tensor:
        return torch.randint(count, (size,), generator=self.generator)


class Views(NamedTuple):
    """People before cameras.

    rotmat (B,24,3,3), the root in the axes of a camera that looks straight at the person; betas (B,10); joints
    (B,49,3) in those axes; in_camera (B,49,3), from the camera, which looks past the person; bones (B,24,3,3), the
    rotations of the bones there.
    """

    rotmat: Tensor
    betas: Tensor
    joints: Tensor
    in_camera: Tensor
    bones: Tensor


def pose_people(draw: Draw, poses: Tensor, size: int) -> Tensor:
    """Poses (B,24,3) out of `poses` (N,24,3): limbs exchanged, joints shaken."""
    chosen = poses[draw.among(len(poses), size)].clone()
    for limb in (*ARMS, *LEGS):
        other = poses[draw.among(len(poses), size)][:, limb]
        chosen[:, limb] = torch.where(draw.happens(MIX_SHARE, size, 1, 1), other, chosen[:, limb])
    shaken = torch.where(draw.happens(LARGE_SHARE, size, 1, 1), LARGE_NOISE, POSE_NOISE)
    chosen[:, BENT] += shaken * draw.normal(size, len(BENT), 3)
    chosen[:, 0] += POSE_NOISE * draw.normal(size, 3)
    return chosen


def view_people(draw: Draw, skeleton: Skeleton, poses: Tensor) -> Views:
    """Give poses (B,24,3) bodies, and cameras around them, near and far, high and low, tilted."""
    size = len(poses)
    rotmat = axis_angle_to_rotmat(poses.reshape(-1, 3)).view(size, 24, 3, 3)
    rotmat = torch.cat([(_orientation(draw, size) @ rotmat[:, 0])[:, None], rotmat[:, 1:]], dim=1)
    betas = (BETAS_DEVIATION * draw.normal(size, 10)).clamp(-MOST_BETAS, MOST_BETAS)
    joints, bones = skeleton(rotmat, betas, _stretch(draw, size))
    pelvis = joints[:, [JOINTS49.index("OP MidHip")]]
    distance = torch.exp(draw.uniform(size, low=math.log(NEAR), high=math.log(FAR)))
    zero = torch.zeros(size)
    away = torch.stack([zero, zero, distance], dim=-1)[:, None]
    aside = axis_angle_to_rotmat(torch.cat([ASIDE * draw.normal(size, 2), zero[:, None]], dim=1))
    in_camera = (joints - pelvis + away) @ aside.mT
    return Views(rotmat, betas, joints, in_camera, aside[:, None] @ bones)


def _orientation(draw: Draw, size: int) -> Tensor:
    """Rotations (B,3,3) from the body's axes, y up, to those of a camera that looks at it from anywhere."""
    turn = draw.uniform(size, high=2 * math.pi)
    elevation = torch.deg2rad(8 + 13 * draw.normal(size)).clamp(math.radians(-20), math.radians(70))
    high = draw.uniform(size, high=math.radians(75))
    elevation = torch.where(draw.happens(HIGH_SHARE, size), high, elevation)
    roll = torch.deg2rad(torch.where(draw.happens(ROLLED_SHARE, size), 20.0, 4.0) * draw.normal(size))
    lying = torch.where(draw.happens(LYING_SHARE, size), draw.uniform(size, low=-math.pi, high=math.pi), 0.0)
    about, zero = draw.uniform(size, high=2 * math.pi), torch.zeros(size)
    parts = (
        torch.stack([zero, zero, roll], dim=-1),
        torch.stack([elevation, zero, zero], dim=-1),
        torch.stack([zero, turn, zero], dim=-1),
        torch.stack([lying * about.cos(), zero, lying * about.sin()], dim=-1),
    )
    roll, elevation, turn, lying = (axis_angle_to_rotmat(part) for part in parts)
    return torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ roll @ elevation @ turn @ lying


def _stretch(draw: Draw, size: int) -> Tensor:
    """Lengths of the bones over those of the body (B,24), the same on both sides."""
    stretch = STRETCH * draw.normal(size, 24)
    return 1 + (stretch + stretch[:, flip_permutation(SMPL24)]) / math.sqrt(2)


class Mistakes(NamedTuple):
    """What a detector made of people whose joints are known.

    limbs (M,12,3) m, those of LIMBS about the hips, in the camera's axes; away (M,23,2) m in the picture, how far from
    the body's joint it saw each of DETECTED23; confidence (M,23), 0 where it has no such joint
    """

    limbs: Tensor
    away: Tensor
    confidence: Tensor

    @classmethod
    def measured(cls, keypoints_2d: Tensor, exact_2d: Tensor, joints_3d: Tensor) -> "Mistakes":
        """From what was found in N pictures, (N,49,3) in them, where it is, (N,49,3), and joints (N,24,4) m.

        People of whom more than half is elsewhere are left out: in a video the detector would not have got there.
        """
        found = keypoints_2d[:, SEEN_ROWS]
        metre = metre_of(joints_3d, exact_2d[:, SPIN])[:, None, None]
        has = found[..., 2] > 0
        away = (has[..., None] * (found[..., :2] - exact_2d[:, SEEN_ROWS, :2]) / metre).clamp(-_FARTHEST, _FARTHEST)
        distance = torch.where(found[..., 2] > CONFIDENT, away.norm(dim=-1), math.nan)
        seen = distance.nanmedian(1).values < _ASTRAY
        return cls(limbs_of(joints_3d[..., :3])[seen], away[seen], found[seen, :, 2])

    def mirrored(self) -> "Mistakes":
        """Of the same people in a mirror."""
        flip = torch.tensor([-1.0, 1.0, 1.0])
        turned = flip_permutation(list(LIMBS))
        return Mistakes(self.limbs[:, turned] * flip, self.away[:, TURNED] * flip[:2], self.confidence[:, TURNED])


class Detector:
    """A detector that errs, on each arm and leg, as one did on the most similar of the people it was tried on.

    What is hard for it, a hidden arm, a back, a foot that points at the camera, is so in the samples too; the joints of
    a limb go wrong together; and its confidence says as much about its errors.

    Args:
        mistakes: of MediaPipe
        device: of the people that are looked at
    """

    def __init__(self, mistakes: Mistakes, device: torch.device | str = "cpu") -> None:
        both = zip(mistakes, mistakes.mirrored(), strict=True)
        self.mistakes = Mistakes(*(torch.cat(pair).to(device) for pair in both))

    def __call__(self, draw: Draw, views: Views) -> Tensor:
        """x, y in units of the image plane at 1 m, and the confidence: (B,23,3)."""
        places, depth = views.in_camera[:, SEEN_ROWS].split([2, 1], dim=-1)
        found = self._find(draw, views.in_camera[:, SPIN], places / depth, 1 / depth)
        hidden = _hidden(draw, views.in_camera[:, SEEN_ROWS]) | draw.happens(MISSED_SHARE, len(found), 23)
        found[..., 2] *= ~(draw.happens(HIDDEN_SHARE, len(found), 1) & hidden)
        found[..., 2][(found[..., 2] > 0).sum(1) < LEAST_FOUND] = 1
        return found

    def in_picture(self, draw: Draw, keypoints_2d: Tensor, joints_3d: Tensor) -> Tensor:
        """What is found of people of whom x, y and visibility over the crop, (B,49,3), and joints (B,24,4) m are known.

        Now and then nobody is found at all, so that a network that sees the picture learns to do without.

        Returns:
            keypoints (B,49,3)
        """
        metre = metre_of(joints_3d, keypoints_2d[:, SPIN])[:, None, None]
        found = self._find(draw, joints_3d[..., :3], keypoints_2d[:, SEEN_ROWS, :2], metre)
        found[..., 2] *= (keypoints_2d[:, SEEN_ROWS, 2] > 0) & ~draw.happens(NOBODY_SHARE, len(found), 1)
        return in_rows(found)

    def _find(self, draw: Draw, joints: Tensor, places: Tensor, metre: Tensor) -> Tensor:
        """Those of joints (B,24,3) m that are seen at places (B,23,2), with all mistakes: (B,23,3).

        A metre is `metre` (B,23 or 1,1) long there.
        """
        size, limbs = len(places), limbs_of(joints)
        away, confidence = torch.zeros(size, 23, 2), torch.zeros(size, 23)
        for seen, compared in PARTS:
            among = draw.among(len(self.mistakes.limbs), _COMPARED)
            known = self.mistakes.limbs[among][:, compared].flatten(1)
            similar = among[torch.cdist(limbs[:, compared].flatten(1), known).argmin(1)]
            away[:, seen] = self.mistakes.away[similar][:, seen]
            confidence[:, seen] = self.mistakes.confidence[similar][:, seen]
        away, confidence = self._another(draw, away, confidence)
        severity = torch.exp(_SEVERITY * draw.normal(size, 1, 1))
        places = places + metre * (severity * away + _JITTER * draw.normal(size, 23, 2))
        confidence = confidence * ~(_lost(draw, size) | _cut(draw, places))
        return _exchanged(draw, torch.cat([places, confidence[..., None]], dim=-1))

    def _another(self, draw: Draw, away: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """Errors (B,23,2) and confidence (B,23) of MediaPipe, or of detectors that have other joints."""
        size, chosen = len(away), draw.uniform(len(away), 1) - _MEDIAPIPE_SHARE
        is_other = chosen >= 0
        toes = _copied_toes(away), _copied_toes(confidence)
        offset = _OFFSET * draw.normal(size, 23, 2)
        away = torch.where(is_other[..., None], toes[0] + offset, away + 0.5 * offset)
        least = draw.uniform(size, 1, low=_LEAST_CONFIDENCE[0], high=_LEAST_CONFIDENCE[1])
        theirs = toes[1] * (toes[1] > least) * draw.uniform(size, 1, low=0.6, high=1.0)
        confidence = torch.where(is_other, theirs, confidence)
        for share, without in _OTHERS:
            is_this = (chosen >= 0) & (chosen < share)
            confidence = confidence * ~(is_this & _named(without))
            chosen = chosen - share
        return away, confidence


def limbs_of(joints: Tensor) -> Tensor:
    """The limbs (B,12,3) m of SPIN's joints (B,24,3), the middle of the hips at 0."""
    limbs, hips = joints[:, _LIMBS], joints[:, HIPS]
    return limbs - hips.mean(1, keepdim=True)


def metre_of(joints_3d: Tensor, keypoints_2d: Tensor) -> Tensor:
    """How long (B,) a metre is in the picture, of joints (B,24,3 or more) m and where they are there."""
    flat, seen = (points[..., :2] - points[..., :2].mean(1, keepdim=True) for points in (joints_3d, keypoints_2d))
    return (flat * seen).sum((1, 2)) / (flat**2).sum((1, 2)).clamp(min=1e-6)


def _copied_toes(values: Tensor) -> Tensor:
    """Values (B,23,...), the small toes' being those of the big ones."""
    values = values.clone()
    values[:, _SMALL_TOES] = values[:, _BIG_TOES]
    return values


def _named(endings: Sequence[str]) -> Tensor:
    """Which of DETECTED23 end in one of these, (23,) bool."""
    return torch.tensor([name.endswith(tuple(endings)) for name in DETECTED23])


def _lost(draw: Draw, size: int) -> Tensor:
    """Arms, legs and faces that are behind things, (B,23) bool."""
    lost = torch.zeros(size, 23, dtype=torch.bool)
    for group in GROUPS:
        lost |= draw.happens(LOST_SHARE, size, 1) & torch.tensor([name in group for name in DETECTED23])
    return lost


def _hidden(draw: Draw, joints: Tensor) -> Tensor:
    """Parts of the face that are behind the head, (B,23) bool, of joints (B,23,3) m before the camera."""
    middle = joints[:, _EARS].mean(1, keepdim=True)
    out, towards = joints - middle, -middle
    facing = (out * towards).sum(-1) / (out.norm(dim=-1) * towards.norm(dim=-1)).clamp(min=1e-6)
    return _named(FACE5) & (facing < _EDGE * (draw.normal(len(joints), 1) - 1))


def _cut(draw: Draw, places: Tensor) -> Tensor:
    """Joints beyond an edge of the picture, mostly the lower one, (B,23) bool, of places (B,23,2)."""
    size = len(places)
    side = draw.uniform(size)
    x, y = places.unbind(-1)
    across = torch.where((side < 0.6)[:, None], y, torch.where((side < 0.8)[:, None], x, -x))
    low, high = across.amin(1, keepdim=True), across.amax(1, keepdim=True)
    edge = low + (high - low) * draw.uniform(size, 1, low=0.35, high=0.95)
    return draw.happens(CUT_SHARE, size, 1) & (across > edge)


def _exchanged(draw: Draw, found: Tensor) -> Tensor:
    """Left and right exchanged here and there in x, y, found (B,23,3)."""
    for share, endings in EXCHANGED:
        which = draw.happens(share, len(found), 1) & _named(endings)
        found = torch.where(which[..., None], found[:, TURNED], found)
    return found


def crops(draw: Draw, found: Tensor) -> tuple[Tensor, Tensor]:
    """Center (B,1,2) and half a side (B,1,1) of the boxes around what was found, (B,23,3)."""
    size = len(found)
    seen = found[..., 2:] > 0
    low = torch.where(seen, found[..., :2], math.inf).amin(1)
    high = torch.where(seen, found[..., :2], -math.inf).amax(1)
    half = (high - low).amax(1, keepdim=True) / 2 * BOX_ENLARGE * draw.uniform(size, 1, low=0.9, high=1.25)
    center = (low + high) / 2 + 0.08 * half * draw.normal(size, 2)
    return center[:, None], half[:, None]


def in_rows(found: Tensor) -> Tensor:
    """The 23 joints (B,23,3) in their rows of the 49, (B,49,3); all others, and what was not found, are 0."""
    keypoints = torch.zeros(len(found), len(JOINTS49), 3)
    keypoints[:, SEEN_ROWS] = found * (found[..., 2:] > 0)
    return keypoints


class Detections(Dataset):
    """An endless, seeded row of batches: the same index is the same batch, on the same kind of device.

    Args:
        skeleton: models.skeleton's, of the body whose joints these are
        poses: (N,24,3) axis-angle, what people do, in the body's axes, y up
        detector: that looks at them
        seed, size: of the batches
        device: where they are made, and skeleton and detector are
    """

    def __init__(
        self,
        skeleton: Skeleton,
        poses: np.ndarray,
        detector: Detector,
        seed: int,
        size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.skeleton, self.poses = skeleton, torch.as_tensor(poses, dtype=torch.float32, device=device)
        self.detector, self.seed, self.size, self.device = detector, seed, size, torch.device(device)

    @torch.no_grad()
    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A batch.

        keypoints_2d (B,49,3) in [-1,1] over the crop and confidence, as of a detector, without the rows that repeat a
        joint; exact_2d (B,49,2), where the body's joints are; joints (B,49,3) m; rotmat (B,24,3,3); betas (B,10)
        """
        with self.device:
            draw = Draw(self.seed, index)
            views = view_people(draw, self.skeleton, pose_people(draw, self.poses, self.size))
            found = self.detector(draw, views)
            center, half = crops(draw, found)
            keypoints = in_rows(torch.cat([(found[..., :2] - center) / half, found[..., 2:]], dim=-1))
            exact = (views.in_camera[..., :2] / views.in_camera[..., 2:] - center) / half
        return {
            "keypoints_2d": keypoints,
            "exact_2d": exact,
            "joints": views.joints,
            "rotmat": views.rotmat,
            "betas": views.betas,
        }
