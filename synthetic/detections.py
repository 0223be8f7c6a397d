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
from utils.joints import DETECTED23, JOINTS49, SIDES, SMPL24, flip_permutation, rows

# rotations (B,24,3,3), betas (B,10), stretch (B,24) of the bones -> joints (B,49,3), the bones' rotations (B,24,3,3)
Skeleton = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
BETAS_DEVIATION, MOST_BETAS = 1.1, 2.5
STRETCH = 0.03  # deviation of the length of a bone beside what the shape explains
MIX_SHARE = 0.2  # of the arms and legs come from another pose
POSE_NOISE, LARGE_NOISE, LARGE_SHARE = 0.08, 0.25, 0.25
NEAR, FAR = 1.8, 15.0  # m, of the camera
ASIDE = math.radians(5)  # deviation of the person from the camera's axis
LYING_SHARE, HIGH_SHARE, ROLLED_SHARE = 0.06, 0.1, 0.25
ARMS = [rows([f"{side}_{part}" for part in ("collar", "shoulder", "elbow", "wrist")], SMPL24) for side in SIDES]
LEGS = [rows([f"{side}_{part}" for part in ("hip", "knee", "ankle")], SMPL24) for side in SIDES]
LIMBS = [joint for joint, name in enumerate(SMPL24) if joint and not name.endswith(("foot", "hand"))]
SEEN_ROWS = rows(DETECTED23, JOINTS49)

# parts of the body that hide others: from, to, radius
CAPSULES = (
    ("Thorax (MPII)", "Pelvis (MPII)", 0.13),
    ("OP RHip", "OP LHip", 0.11),
    ("OP RShoulder", "OP LShoulder", 0.08),
    ("Jaw (H36M)", "Top of Head (LSP)", 0.09),
    *((f"OP {s}Shoulder", f"OP {s}Elbow", 0.045) for s in "RL"),
    *((f"OP {s}Elbow", f"OP {s}Wrist", 0.04) for s in "RL"),
    *((f"OP {s}Hip", f"OP {s}Knee", 0.075) for s in "RL"),
    *((f"OP {s}Knee", f"OP {s}Ankle", 0.05) for s in "RL"),
)


class Draw:
    """Random numbers of a seeded generator."""

    def __init__(self, *seeds: int) -> None:
        self.generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))

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
    chosen[:, LIMBS] += shaken * draw.normal(size, len(LIMBS), 3)
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


def hidden_joints(in_camera: Tensor) -> Tensor:
    """Which of the detected joints, (B,23) bool, are behind another part of the body, of joints (B,49,3)."""
    points = in_camera[:, SEEN_ROWS, None]  # (B,23,1,3)
    starts, ends = (in_camera[:, rows(names, JOINTS49)][:, None] for names in list(zip(*CAPSULES, strict=True))[:2])
    radius = torch.tensor([radius for *_, radius in CAPSULES])
    # where the ray to the joint comes closest to each part, in the plane through the joint
    flat_points, flat_starts, flat_ends = (x[..., :2] / x[..., 2:] for x in (points, starts, ends))
    along = flat_ends - flat_starts
    share = ((flat_points - flat_starts) * along).sum(-1) / (along**2).sum(-1).clamp(min=1e-8)
    share = share.clamp(0, 1)
    depth = starts[..., 2] + share * (ends - starts)[..., 2]
    beside = (flat_starts + share[..., None] * along - flat_points).norm(dim=-1) * depth
    return ((beside < radius) & (points[..., 2] - depth > 0.6 * radius)).any(-1)


class Part(NamedTuple):
    """How a detector finds a joint.

    bone: of SMPL24, in whose axes `offset` (3,) m leads from a left joint of the body to where detectors see it; noise:
    deviation, m; missed, hidden_missed: share of those that are not found, of the visible and of the hidden ones
    """

    bone: str
    offset: tuple[float, float, float]
    noise: float
    missed: float
    hidden_missed: float


# MediaPipe on rendered people (benchmarks/detector.py)
PARTS = {
    "Nose": Part("head", (0.000, 0.010, -0.039), 0.017, 0.01, 0.05),
    "Eye": Part("head", (-0.005, 0.009, -0.031), 0.016, 0.01, 0.05),
    "Ear": Part("head", (-0.020, 0.014, 0.001), 0.013, 0.01, 0.05),
    "Shoulder": Part("{}_collar", (0.001, 0.008, 0.002), 0.017, 0.01, 0.02),
    "Elbow": Part("{}_shoulder", (0.008, -0.007, 0.019), 0.026, 0.04, 0.6),
    "Wrist": Part("{}_elbow", (0.011, -0.006, 0.005), 0.020, 0.10, 0.6),
    "Hip": Part("pelvis", (-0.003, -0.012, 0.012), 0.018, 0.01, 0.02),
    "Knee": Part("{}_hip", (-0.009, 0.014, -0.002), 0.018, 0.01, 0.2),
    "Ankle": Part("{}_knee", (-0.001, 0.034, 0.005), 0.018, 0.02, 0.35),
    "Heel": Part("{}_ankle", (-0.017, 0.042, 0.008), 0.022, 0.02, 0.3),
    "BigToe": Part("{}_ankle", (0.024, 0.014, -0.032), 0.022, 0.02, 0.15),
    "SmallToe": Part("{}_ankle", (0.000, 0.014, -0.032), 0.022, 0.02, 0.15),
}
OFFSET_DEVIATION = 0.012  # m, of another detector's, or another person's, from those
HIDDEN_NOISE = 2.0  # times that of a visible joint
SEVERITY = 0.45  # deviation of the logarithm of the noise of a picture
GROSS_SHARE, GROSS_NOISE = 0.04, 4.0
# which joints a detector knows, and how often it is this one: MediaPipe, OpenPose, COCO's
SKELETONS = ((0.5, ("SmallToe",)), (0.3, ()), (0.2, ("SmallToe", "BigToe", "Heel")))
CUT_SHARE = 0.15  # of the pictures end at a part of the person
LOST_SHARE = 0.02  # of each arm, leg and face
MISPLACED_SHARE = 0.05  # of each arm and leg, that the detector guesses
MISPLACED_NOISE = 0.2  # m, deviation of its end from where it is; elbow and knee are off by half as much
# what is taken for that of the other side, and how often: everything, legs, arms, face
EXCHANGED = (
    (0.01, ("",)),
    (0.012, ("Hip", "Knee", "Ankle", "Heel", "Toe")),
    (0.012, ("Shoulder", "Elbow", "Wrist")),
    (0.01, ("Eye", "Ear")),
)
# what disappears together
OUTER_LIMBS = (
    *(tuple(f"OP {s}{part}" for part in ("Elbow", "Wrist")) for s in "RL"),
    *(tuple(f"OP {s}{part}" for part in ("Knee", "Ankle", "Heel", "BigToe", "SmallToe")) for s in "RL"),
)
GROUPS = (*OUTER_LIMBS, ("OP Nose", "OP REye", "OP LEye", "OP REar", "OP LEar"))
LEAST_FOUND = 4  # joints, of which fewer make nobody
NOBODY_SHARE = 0.15  # of the pictures in which the detector finds nobody
SPREAD = 0.45  # m, deviation of the joints of a standing person from their middle
BOX_ENLARGE = 1.2
TURNED = flip_permutation(DETECTED23)


def _part(name: str) -> Part:
    """That of one of DETECTED23, its offset on the joint's own side."""
    part = next(part for ending, part in PARTS.items() if name.endswith(ending))
    on_the_right = name[3] == "R"
    bone = part.bone.format("right" if on_the_right else "left")
    x, y, z = part.offset
    return part._replace(bone=bone, offset=(-x if on_the_right else x, y, z))


class Detector:
    """A detector of joints that errs as real ones do."""

    def __init__(self) -> None:
        parts = [_part(name) for name in DETECTED23]
        self.bones = rows([part.bone for part in parts], SMPL24)
        self.offsets, self.noise, self.missed, self.hidden_missed = (
            torch.tensor([getattr(part, key) for part in parts])
            for key in ("offset", "noise", "missed", "hidden_missed")
        )

    def __call__(self, draw: Draw, views: Views) -> Tensor:
        """x, y in units of the image plane at 1 m, and whether it is found: (B,23,3)."""
        size = len(views.joints)
        offsets = self.offsets * draw.uniform(size, 1, 1, high=1.3) + OFFSET_DEVIATION * draw.normal(size, 23, 3)
        points = views.in_camera[:, SEEN_ROWS] + (views.bones[:, self.bones] @ offsets[..., None])[..., 0]
        found = self._find(draw, points[..., :2] / points[..., 2:], 1 / points[..., 2], hidden_joints(views.in_camera))
        found[..., 2][found[..., 2].sum(1) < LEAST_FOUND] = 1
        return found

    def in_picture(self, draw: Draw, keypoints_2d: Tensor) -> Tensor:
        """What is found of people of whom nothing but x, y and visibility over the crop, (B,49,3), is known: (B,49,3).

        Now and then nobody is found at all, so that a network that sees the picture learns to do without.
        """
        size = len(keypoints_2d)
        places, visible = keypoints_2d[:, SEEN_ROWS, :2], keypoints_2d[:, SEEN_ROWS, 2]
        metre = (places - places.mean(1, keepdim=True)).square().sum(-1).mean(1, keepdim=True).sqrt() / SPREAD
        found = self._find(draw, places, metre, torch.zeros(size, 23, dtype=torch.bool))
        found[..., 2] *= (visible > 0) & ~draw.happens(NOBODY_SHARE, size, 1)
        return in_rows(found)

    def _find(self, draw: Draw, places: Tensor, metre: Tensor, hidden: Tensor) -> Tensor:
        """Joints at places (B,23,2), where `metre` (B,23) is the length of a metre, with all mistakes: (B,23,3)."""
        size = len(places)
        noise = self.noise * torch.where(hidden, HIDDEN_NOISE, 1.0) * torch.exp(SEVERITY * draw.normal(size, 1))
        noise = noise * torch.where(draw.happens(GROSS_SHARE, size, 23), GROSS_NOISE, 1.0) * metre
        places = places + noise[..., None] * draw.normal(size, 23, 2) + metre[..., None] * _misplaced(draw, size)
        found = ~draw.happens(torch.where(hidden, self.hidden_missed, self.missed), size, 23)
        found &= self._known(draw, size) & ~_lost(draw, size) & ~_cut(draw, places)
        return _exchanged(draw, torch.cat([places, found[..., None].float()], dim=-1))

    def _known(self, draw: Draw, size: int) -> Tensor:
        """Which joints the detector has at all, (B,23) bool."""
        known, chosen = torch.ones(size, 23, dtype=torch.bool), draw.uniform(size)
        for share, without in SKELETONS:
            is_this = (chosen >= 0) & (chosen < share)
            known &= ~(is_this[:, None] & _named(without))
            chosen = chosen - share
        return known


def _named(endings: Sequence[str]) -> Tensor:
    """Which of DETECTED23 end in one of these, (23,) bool."""
    return torch.tensor([name.endswith(tuple(endings)) for name in DETECTED23])


def _misplaced(draw: Draw, size: int) -> Tensor:
    """How far off, (B,23,2) m, arms and legs are that the detector guesses."""
    off = torch.zeros(size, 23, 2)
    for limb in OUTER_LIMBS:
        shares = torch.tensor([0.5 * (name == limb[0]) + (name in limb[1:]) for name in DETECTED23])
        guess = MISPLACED_NOISE * draw.normal(size, 1, 2)
        off += torch.where(draw.happens(MISPLACED_SHARE, size, 1, 1), guess, 0.0) * shares[:, None]
    return off


def _lost(draw: Draw, size: int) -> Tensor:
    """Arms, legs and faces that are behind things, (B,23) bool."""
    lost = torch.zeros(size, 23, dtype=torch.bool)
    for group in GROUPS:
        lost |= draw.happens(LOST_SHARE, size, 1) & torch.tensor([name in group for name in DETECTED23])
    return lost


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
    keypoints[:, SEEN_ROWS] = found * found[..., 2:]
    return keypoints


class Detections(Dataset):
    """An endless, seeded row of batches: the same index is the same batch.

    Args:
        skeleton: models.skeleton's, of the body whose joints these are
        poses: (N,24,3) axis-angle, what people do, in the body's axes, y up
        seed, size: of the batches
    """

    def __init__(self, skeleton: Skeleton, poses: np.ndarray, seed: int, size: int) -> None:
        self.skeleton, self.poses = skeleton, torch.as_tensor(poses, dtype=torch.float32)
        self.detector, self.seed, self.size = Detector(), seed, size

    @torch.no_grad()
    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A batch.

        keypoints_2d (B,49,3) in [-1,1] over the crop and confidence, as of a detector, without the rows that repeat a
        joint; exact_2d (B,49,2), where the body's joints are; joints (B,49,3) m; rotmat (B,24,3,3); betas (B,10)
        """
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
