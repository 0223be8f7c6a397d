"""A person as a set of angles over time, and the signals that motions are made of.

Angles in radians; time in seconds; body frame y up, facing +z, left = +x.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from utils.joints import SIDES, SMPL24

FRAME_RATE = 30.0
COLLAR_FRACTION = 0.25  # of what an arm is lifted above the shoulder's free range
SPINE = [SMPL24.index(name) for name in ("spine1", "spine2", "spine3")]


class Limb:
    """Angles of one arm or leg, each a signal (T,); a number that is set holds for the whole time."""

    def __init__(self, frames: int, **angles: float) -> None:
        object.__setattr__(self, "frames", frames)
        for name, angle in angles.items():
            setattr(self, name, angle)

    def __setattr__(self, name: str, angle: ArrayLike) -> None:
        object.__setattr__(self, name, np.array(np.broadcast_to(angle, self.frames), float))


class Arm(Limb):
    """One arm: `lift` 0 hanging to pi overhead, `forward` 0 sideways to pi/2 in front, `twist`, `elbow`.

    `swing` turns the whole arm forwards about the left-right axis, as in walking.
    """

    lift: np.ndarray
    forward: np.ndarray
    twist: np.ndarray
    elbow: np.ndarray
    swing: np.ndarray

    def __init__(self, frames: int) -> None:
        super().__init__(frames, lift=0.25, forward=0.2, twist=0.0, elbow=0.25, swing=0.0)

    def rotations(self) -> dict[str, Rotation]:
        """Of the joints of a left arm."""
        angles = np.stack([-self.forward, self.lift - np.pi / 2, self.twist], axis=1)
        shoulder = _about("x", -self.swing) * Rotation.from_euler("YZX", angles)
        collar = _about("z", COLLAR_FRACTION * np.clip(self.lift - 1, 0, None))
        elbow = _about("y", -np.clip(self.elbow, 0.05, 2.5))
        return {"collar": collar, "shoulder": collar.inv() * shoulder, "elbow": elbow}


class Leg(Limb):
    """One leg: hip `flex`, `apart` (sideways), `turn` (outwards), `knee`, `lift_toe` off a level foot."""

    flex: np.ndarray
    apart: np.ndarray
    turn: np.ndarray
    knee: np.ndarray
    lift_toe: np.ndarray

    def __init__(self, frames: int) -> None:
        super().__init__(frames, flex=0.03, apart=0.05, turn=0.0, knee=0.06, lift_toe=0.0)

    def rotations(self, bend: np.ndarray) -> dict[str, Rotation]:
        """Of the joints of a left leg whose body bends forwards by `bend` (T,)."""
        knee = np.clip(self.knee, 0.03, 2.5)
        hip = Rotation.from_euler("ZXY", np.stack([self.apart, -self.flex, self.turn], axis=1))
        # the foot stays level but for what the motion adds, within what an ankle can do
        level = np.clip(self.flex - knee - bend, -0.7, 0.6)
        return {"hip": hip, "knee": _about("x", knee), "ankle": _about("x", level - self.lift_toe)}


@dataclass
class Figure:
    """A person standing with hanging arms, whose angles a motion sets.

    time (T,) s; root, spine, head (T,3): bend forwards, turn to the left, lean to the right.
    """

    time: np.ndarray
    root: np.ndarray = field(init=False)
    spine: np.ndarray = field(init=False)
    head: np.ndarray = field(init=False)
    arms: dict[str, Arm] = field(init=False)
    legs: dict[str, Leg] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.time)
        self.root, self.spine, self.head = np.zeros((3, count, 3))
        self.arms = {side: Arm(count) for side in SIDES}
        self.legs = {side: Leg(count) for side in SIDES}

    def poses(self) -> np.ndarray:
        """Axis-angle rotations (T,24,3) of the SMPL joints."""
        poses = np.zeros((len(self.time), len(SMPL24), 3))
        poses[:, 0] = Rotation.from_euler("YXZ", self.root[:, [1, 0, 2]]).as_rotvec()
        poses[:, SPINE] = (self.spine / len(SPINE))[:, None]
        poses[:, [SMPL24.index("neck"), SMPL24.index("head")]] = (self.head / 2)[:, None]
        for side in SIDES:
            limbs = self.arms[side].rotations() | self.legs[side].rotations(self.root[:, 0])
            for name, rotation in limbs.items():
                rotvec = rotation.as_rotvec()
                # a limb is made as a left one; the mirror image of a rotation turns the other way about y and z
                poses[:, SMPL24.index(f"{side}_{name}")] = rotvec if side == "left" else rotvec * [1, -1, -1]
        return poses


def _about(axis: str, angles: np.ndarray) -> Rotation:
    """Rotations about one axis by angles (T,)."""
    return Rotation.from_euler(axis, angles[:, None])


def wander(rng: np.random.Generator, time: np.ndarray, amplitude: float, period: float) -> np.ndarray:
    """A smooth random signal (T,): three sinusoids of random phase."""
    waves = [
        np.sin(2 * np.pi * k * time / (period * rng.uniform(0.8, 1.3)) + rng.uniform(0, 2 * np.pi)) / k
        for k in (1, 2, 3)
    ]
    return amplitude * sum(waves)


def beat(rng: np.random.Generator, time: np.ndarray, low: float, high: float) -> np.ndarray:
    """Phase (T,) of a steady rhythm of between `low` and `high` turns per second."""
    return 2 * np.pi * rng.uniform(low, high) * time + rng.uniform(0, 2 * np.pi)


def pulse(phase: np.ndarray) -> np.ndarray:
    """0 to 1 and back, once in a turn of the phase."""
    return 0.5 - 0.5 * np.cos(phase)


def through(phase: np.ndarray, *values: float) -> np.ndarray:
    """A smooth signal (T,) that passes through the values at equal parts of a turn of the phase, and repeats."""
    knots = np.linspace(0, 2 * np.pi, len(values) + 1)
    return CubicSpline(knots, [*values, values[0]], bc_type="periodic")(phase)
