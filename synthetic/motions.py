"""Procedural human motion: sums of sinusoids on the joint angles of a 24-joint SMPL skeleton.

The kinds of the lists are disjoint, so that a model trained on SOURCE_KINDS has not seen the others.
Angles in radians; time in seconds; body frame y up, facing +z, left = +x.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from utils.joints import SMPL24, flip_permutation

FRAME_RATE = 30.0
SIDES = ("left", "right")
COLLAR_SHARE = 0.25  # of what an arm is lifted above the shoulder's free range
SPINE = [SMPL24.index(name) for name in ("spine1", "spine2", "spine3")]


@dataclass
class Arm:
    """One arm, all (T,): `lift` 0 hanging to pi overhead, `forward` 0 sideways to pi/2 in front, `twist`, `elbow`.

    `swing` turns the whole arm forwards about the left-right axis, as in walking.
    """

    lift: np.ndarray
    forward: np.ndarray
    twist: np.ndarray
    elbow: np.ndarray
    swing: np.ndarray


@dataclass
class Leg:
    """One leg, all (T,): hip `flex`, `apart` (sideways), `turn` (outwards), `knee`, `lift_toe` off a level foot."""

    flex: np.ndarray
    apart: np.ndarray
    turn: np.ndarray
    knee: np.ndarray
    lift_toe: np.ndarray


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

    def __post_init__(self):
        count = len(self.time)
        self.root, self.spine, self.head = np.zeros((3, count, 3))
        at_rest = np.zeros(count)
        self.arms = {side: Arm(at_rest + 0.25, at_rest + 0.2, at_rest, at_rest + 0.25, at_rest) for side in SIDES}
        self.legs = {side: Leg(at_rest + 0.03, at_rest + 0.05, at_rest, at_rest + 0.06, at_rest) for side in SIDES}

    def poses(self) -> np.ndarray:
        """Axis-angle rotations (T,24,3) of the SMPL joints."""
        poses = np.zeros((len(self.time), len(SMPL24), 3))
        poses[:, 0] = Rotation.from_euler("YXZ", self.root[:, [1, 0, 2]]).as_rotvec()
        poses[:, SPINE] = (self.spine / len(SPINE))[:, None]
        poses[:, [SMPL24.index("neck"), SMPL24.index("head")]] = (self.head / 2)[:, None]
        for side in SIDES:
            limbs = self._arm(self.arms[side]) | self._leg(self.legs[side])
            for name, rotation in limbs.items():
                rotvec = rotation.as_rotvec()
                # a limb is made as a left one; the mirror image of a rotation turns the other way about y and z
                poses[:, SMPL24.index(f"{side}_{name}")] = rotvec if side == "left" else rotvec * [1, -1, -1]
        return poses

    def _arm(self, arm: Arm) -> dict[str, Rotation]:
        angles = np.stack([-arm.forward, arm.lift - np.pi / 2, arm.twist], axis=1)
        shoulder = _about("x", -arm.swing) * Rotation.from_euler("YZX", angles)
        collar = _about("z", COLLAR_SHARE * np.clip(arm.lift - 1, 0, None))
        elbow = _about("y", -np.clip(arm.elbow, 0.05, 2.5))
        return {"collar": collar, "shoulder": collar.inv() * shoulder, "elbow": elbow}

    def _leg(self, leg: Leg) -> dict[str, Rotation]:
        knee = np.clip(leg.knee, 0.03, 2.5)
        hip = Rotation.from_euler("ZXY", np.stack([leg.apart, -leg.flex, leg.turn], axis=1))
        # the foot stays level but for what the motion adds, within what an ankle can do
        level = np.clip(leg.flex - knee - self.root[:, 0], -0.7, 0.6)
        ankle = _about("x", level - leg.lift_toe)
        return {"hip": hip, "knee": _about("x", knee), "ankle": ankle}


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


def _stride(figure: Figure, phase: np.ndarray, length: float, lift: float, arms: float) -> None:
    """Step in rhythm: hips swing by `length`, the swinging knee bends by `lift`, the arms swing against the legs."""
    for side, shift in (("left", 0.0), ("right", np.pi)):
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + length * np.sin(phase + shift) + 0.08
        # the knee bends most half way through the swing
        leg.knee = leg.knee + 0.08 + lift * pulse(phase + shift + np.pi) ** 2
        leg.lift_toe = leg.lift_toe + 0.2 * np.sin(phase + shift - 0.3)
        arm.swing = arm.swing - arms * np.sin(phase + shift)
        arm.elbow = arm.elbow + 0.5 * arms * (1 + np.sin(phase + shift + np.pi))
    figure.spine[:, 1] += 0.12 * np.sin(phase)
    figure.root[:, 1] -= 0.06 * np.sin(phase)


def _walk(figure, rng):
    _stride(
        figure, beat(rng, figure.time, 0.75, 1.1), rng.uniform(0.3, 0.5), rng.uniform(0.6, 1), rng.uniform(0.2, 0.6)
    )


def _wave(figure, rng):
    sides = [("left",), ("right",), SIDES][rng.integers(3)]
    phase = beat(rng, figure.time, 0.8, 1.6)
    for side in sides:
        arm = figure.arms[side]
        arm.lift = rng.uniform(1.2, 2.2) + wander(rng, figure.time, 0.12, 2)
        arm.forward = rng.uniform(0, 0.8) + wander(rng, figure.time, 0.15, 2)
        arm.twist = -rng.uniform(1, 1.6) + 0.3 * np.sin(phase)
        arm.elbow = rng.uniform(0.6, 1.5) + 0.45 * np.sin(phase)


def _reach(figure, rng):
    for side in SIDES:
        if rng.random() < 0.7:
            arm, out = figure.arms[side], pulse(beat(rng, figure.time, 0.3, 0.6))
            arm.lift = 0.25 + rng.uniform(1, 2.4) * out
            arm.forward = rng.uniform(0.2, 1.5) + wander(rng, figure.time, 0.1, 2)
            arm.elbow = rng.uniform(0.6, 1.3) * (1 - out) + 0.1
            arm.twist = wander(rng, figure.time, 0.3, 3)
    figure.spine[:, 1] += wander(rng, figure.time, 0.25, 3)


def _bend(figure, rng):
    down = pulse(beat(rng, figure.time, 0.25, 0.5))
    depth = rng.uniform(0.5, 1.1)
    figure.root[:, 0] += 0.5 * depth * down
    figure.spine[:, 0] += 0.7 * depth * down
    knee = rng.uniform(0.1, 0.9)
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + (0.5 * depth + 0.5 * knee) * down
        leg.knee = leg.knee + knee * down
        arm.lift = arm.lift + rng.uniform(0.2, 1.2) * down
        arm.forward = rng.uniform(0.7, 1.5) + wander(rng, figure.time, 0.1, 2)


def _talk(figure, rng):
    for side in SIDES:
        arm = figure.arms[side]
        arm.lift = rng.uniform(0.2, 0.6) + wander(rng, figure.time, 0.12, 1.6)
        arm.forward = rng.uniform(0.2, 1.2) + wander(rng, figure.time, 0.2, 2)
        arm.elbow = rng.uniform(0.3, 1.9) + wander(rng, figure.time, 0.3, 1.5)
        arm.twist = rng.uniform(-0.4, 0.4) + wander(rng, figure.time, 0.25, 2)
    figure.head[:, 1] += wander(rng, figure.time, 0.3, 3)


def _sit(figure, rng):
    deep = rng.uniform(1.2, 1.65)
    figure.root[:, 0] += rng.uniform(-0.15, 0.25)
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = deep + wander(rng, figure.time, 0.04, 3)
        leg.knee = deep + rng.uniform(-0.2, 0.4) + wander(rng, figure.time, 0.05, 3)
        leg.apart = leg.apart + rng.uniform(0, 0.35)
        arm.lift = rng.uniform(0.2, 0.9) + wander(rng, figure.time, 0.1, 2)
        arm.forward = rng.uniform(0.6, 1.5) + wander(rng, figure.time, 0.1, 2)
        arm.elbow = rng.uniform(0.3, 1.7) + wander(rng, figure.time, 0.2, 2)
    figure.spine[:, 0] += rng.uniform(0, 0.4)


def _stretch(figure, rng):
    figure.spine += np.stack([wander(rng, figure.time, amplitude, 3) for amplitude in (0.2, 0.25, 0.2)], axis=1)
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        arm.lift = rng.uniform(0.3, 2.4) + wander(rng, figure.time, 0.3, 2.5)
        arm.forward = rng.uniform(-0.3, 1.4) + wander(rng, figure.time, 0.25, 2.5)
        arm.twist = rng.uniform(-1, 0.4) + wander(rng, figure.time, 0.25, 2.5)
        arm.elbow = rng.uniform(0.1, 1.6) + wander(rng, figure.time, 0.3, 2)
        leg.flex = leg.flex + rng.uniform(0, 0.5) + wander(rng, figure.time, 0.12, 2.5)
        leg.knee = leg.knee + rng.uniform(0, 0.7) + wander(rng, figure.time, 0.15, 2.5)
        leg.apart = leg.apart + rng.uniform(0, 0.25) + wander(rng, figure.time, 0.05, 2.5)


def _march(figure, rng):
    phase = beat(rng, figure.time, 0.8, 1.1)
    _stride(figure, phase, rng.uniform(0.2, 0.3), 0.3, rng.uniform(0.6, 0.9))
    for side, shift in (("left", 0.0), ("right", np.pi)):
        high = np.clip(np.sin(phase + shift), 0, None)
        figure.legs[side].flex = figure.legs[side].flex + 0.9 * high
        figure.legs[side].knee = figure.legs[side].knee + 1.2 * high


def _lunge(figure, rng):
    down = pulse(beat(rng, figure.time, 0.35, 0.6))
    front, back = SIDES if rng.random() < 0.5 else SIDES[::-1]
    figure.legs[front].flex = 0.35 + 0.9 * down
    figure.legs[front].knee = 0.3 + 1.1 * down
    figure.legs[back].flex = -0.25 - 0.15 * down
    figure.legs[back].knee = 0.2 + 0.9 * down
    figure.legs[back].lift_toe = -0.5 - 0.3 * down
    out = rng.uniform(0.6, 1.5)
    for side in SIDES:
        figure.arms[side].lift = 0.3 + out * down
        figure.arms[side].forward = rng.uniform(0, 1.3) + 0 * down


def _throw(figure, rng):
    side, other = SIDES if rng.random() < 0.5 else SIDES[::-1]
    phase = beat(rng, figure.time, 0.5, 0.8)
    turn = 1 if side == "left" else -1
    figure.spine[:, 1] += turn * 0.5 * np.sin(phase)
    figure.spine[:, 0] += 0.2 - 0.2 * np.sin(phase)
    arm = figure.arms[side]
    arm.lift = 1.7 + 0.5 * np.sin(phase + 0.6)
    arm.forward = 0.6 - 0.8 * np.sin(phase)
    arm.twist = -1.2 - 0.4 * np.sin(phase)
    arm.elbow = 0.9 + 0.8 * np.sin(phase + 0.4)
    figure.arms[other].lift = 0.9 - 0.4 * np.sin(phase)
    figure.arms[other].forward = 1.0 + 0 * phase
    figure.legs[other].flex = 0.4 + 0.15 * np.sin(phase)
    figure.legs[other].knee = 0.3 + 0.2 * pulse(phase)
    figure.legs[side].flex = -0.15 + 0 * phase


def _dance(figure, rng):
    phase = beat(rng, figure.time, 0.7, 1)
    figure.root[:, 2] += 0.07 * np.sin(phase)
    figure.root[:, 1] += 0.35 * np.sin(phase / 2)
    figure.spine[:, 2] -= 0.25 * np.sin(phase)
    figure.spine[:, 1] += 0.3 * np.sin(phase + 1)
    for side, shift in (("left", 0.0), ("right", np.pi)):
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + 0.15 + 0.4 * pulse(phase + shift)
        leg.knee = leg.knee + 0.2 + 0.8 * pulse(phase + shift)
        leg.apart = leg.apart + 0.15
        arm.lift = 1.5 + 0.8 * np.sin(phase + shift)
        arm.forward = 0.5 + 0.4 * np.sin(phase + shift + 1)
        arm.elbow = 0.9 + 0.6 * np.sin(phase + shift + 2)
        arm.twist = -0.7 + 0 * phase


def _squat(figure, rng):
    down = pulse(beat(rng, figure.time, 0.4, 0.6))
    figure.root[:, 0] += 0.45 * down
    figure.spine[:, 0] += 0.15 * down
    apart, depth = rng.uniform(0.15, 0.35), rng.uniform(1.3, 1.6)
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + (depth + 0.3) * down
        leg.knee = leg.knee + (depth + 0.2) * down
        leg.apart = leg.apart + apart
        leg.turn = leg.turn + apart
        arm.lift = 0.3 + 1.3 * down
        arm.forward = 1.3 + 0 * down
        arm.elbow = 0.15 + 0 * down


def _kick(figure, rng):
    side, other = SIDES if rng.random() < 0.5 else SIDES[::-1]
    phase = beat(rng, figure.time, 0.5, 0.7)
    swing = np.sin(phase)
    figure.root[:, 0] -= 0.15 * np.clip(swing, 0, None)
    leg = figure.legs[side]
    leg.flex = 0.3 + 0.8 * swing
    leg.knee = 0.15 + 1.1 * np.clip(-np.sin(phase - 0.6), 0, None)
    leg.lift_toe = -0.3 + 0 * phase
    figure.legs[other].knee = 0.3 + 0 * phase
    figure.legs[other].flex = 0.1 + 0 * phase
    figure.arms[other].lift = 0.8 + 0.5 * swing
    figure.arms[other].forward = 1.0 + 0 * phase
    figure.arms[side].lift = 0.8 - 0.2 * swing
    figure.arms[side].forward = 0.2 - 0.6 * swing
    figure.spine[:, 1] += (0.25 if side == "left" else -0.25) * swing


def _jumping_jack(figure, rng):
    out = pulse(beat(rng, figure.time, 0.7, 1))
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.apart = leg.apart + 0.45 * out
        leg.knee = leg.knee + 0.15 * (1 - out)
        leg.flex = leg.flex + 0.08 * (1 - out)
        arm.lift = 0.2 + 2.5 * out
        arm.forward = 0.1 + 0 * out
        arm.elbow = 0.25 + 0.2 * out


def _box(figure, rng):
    phase = beat(rng, figure.time, 0.8, 1.2)
    figure.spine[:, 0] += 0.2
    figure.spine[:, 1] += 0.4 * np.sin(phase)
    figure.root[:, 1] += 0.3
    for side, shift in (("left", 0.0), ("right", np.pi)):
        leg, arm = figure.legs[side], figure.arms[side]
        out = np.clip(np.sin(phase + shift), 0, None) ** 1.5
        arm.lift = 0.5 + 1.0 * out
        arm.forward = 1.1 + 0.3 * out
        arm.elbow = 2.1 - 1.9 * out
        arm.twist = -0.9 + 0.4 * out
        leg.knee = leg.knee + 0.35 + 0.1 * np.sin(2 * phase)
        leg.flex = leg.flex + (0.45 if side == "left" else 0.0)
        leg.apart = leg.apart + 0.1


def _turn(figure, rng):
    _stride(figure, beat(rng, figure.time, 0.9, 1.2), 0.3, 0.8, 0.2)
    figure.root[:, 1] += rng.choice([-1, 1]) * rng.uniform(1.8, 2.4) * figure.time
    for side in SIDES:
        arm = figure.arms[side]
        arm.lift = rng.uniform(0.8, 1.5) + wander(rng, figure.time, 0.15, 2)
        arm.forward = 0.2 + wander(rng, figure.time, 0.2, 2)


def _sides(rng: np.random.Generator) -> tuple[str, str, int]:
    """The side that acts, the other one, and the sign of a turn towards the first."""
    return ("left", "right", 1) if rng.random() < 0.5 else ("right", "left", -1)


def _run(figure, rng):
    phase = beat(rng, figure.time, 1.2, 1.5)
    _stride(figure, phase, rng.uniform(0.5, 0.75), rng.uniform(1.2, 1.7), rng.uniform(0.5, 0.9))
    figure.root[:, 0] += rng.uniform(0.05, 0.25)
    for side in SIDES:
        figure.arms[side].elbow = figure.arms[side].elbow + rng.uniform(0.8, 1.3)


def _side_step(figure, rng):
    phase = beat(rng, figure.time, 0.8, 1.3)
    low = rng.uniform(0.2, 0.7)
    figure.root[:, 0] += 0.3 * low
    for side, shift in (("left", 0.0), ("right", np.pi)):
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + low + 0.25 * pulse(phase + shift)
        leg.knee = leg.knee + 1.4 * low + 0.4 * pulse(phase + shift)
        leg.apart = leg.apart + rng.uniform(0.1, 0.2) + 0.2 * pulse(phase)
        arm.lift = rng.uniform(0.4, 1.0) + 0.2 * np.sin(phase)
        arm.forward = rng.uniform(0.5, 1.4) + wander(rng, figure.time, 0.15, 2)
        arm.elbow = rng.uniform(0.6, 1.6) + wander(rng, figure.time, 0.2, 2)


def _crouch(figure, rng):
    deep = rng.uniform(0.4, 1.9) + wander(rng, figure.time, 0.1, 2)
    figure.root[:, 0] += 0.35 * deep + rng.uniform(-0.1, 0.3)
    figure.spine[:, 0] += rng.uniform(0, 0.5)
    figure.head[:, 0] -= rng.uniform(0, 0.5)
    uneven = rng.uniform(-0.25, 0.25)
    for side, sign in (("left", 1), ("right", -1)):
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + 1.1 * deep + sign * uneven
        leg.knee = leg.knee + 1.2 * deep
        leg.apart = leg.apart + rng.uniform(0.05, 0.4)
        leg.turn = leg.turn + rng.uniform(0, 0.4)
        arm.lift = rng.uniform(0.4, 1.3) + wander(rng, figure.time, 0.15, 2)
        arm.forward = rng.uniform(0.6, 1.5) + wander(rng, figure.time, 0.1, 2)
        arm.elbow = rng.uniform(0.2, 1.8) + wander(rng, figure.time, 0.2, 2)


def _serve(figure, rng):
    """Overhead stroke: both arms up, knees bent, then the stroke and its follow-through."""
    side, other, turn = _sides(rng)
    phase = beat(rng, figure.time, 0.35, 0.5)
    racket, toss = figure.arms[side], figure.arms[other]
    racket.lift = through(phase, 0.5, 0.8, 1.5, 2.0, 2.6, 1.2) + wander(rng, figure.time, 0.1, 3)
    racket.forward = through(phase, 0.8, 0.3, -0.3, -0.1, 0.7, 1.3) + rng.uniform(-0.2, 0.2)
    racket.elbow = through(phase, 0.7, 0.5, 1.6, 1.9, 0.25, 0.5)
    racket.twist = through(phase, 0, -0.3, -1.2, -1.5, -0.8, 0.1)
    toss.lift = through(phase, 0.5, 1.3, 2.6, 2.2, 0.9, 0.5) + wander(rng, figure.time, 0.1, 3)
    toss.forward = through(phase, 0.9, 1.3, 0.8, 1.0, 1.2, 1.0)
    toss.elbow = through(phase, 0.6, 0.2, 0.15, 0.4, 1.2, 1.0)
    figure.spine[:, 0] += through(phase, 0.1, 0.0, -0.3, -0.3, 0.2, 0.6)
    figure.root[:, 0] += through(phase, 0.05, 0.0, -0.1, -0.05, 0.15, 0.35)
    figure.spine[:, 1] += turn * through(phase, 0, 0.2, 0.5, 0.3, -0.3, -0.4)
    figure.spine[:, 2] += turn * through(phase, 0, 0.05, 0.25, 0.3, 0.1, 0)
    figure.head[:, 0] += through(phase, 0.1, -0.2, -0.6, -0.5, -0.2, 0.1)
    knee = through(phase, 0.2, 0.4, 1.1, 0.8, 0.2, 0.4) * rng.uniform(0.5, 1.2)
    for leg, ahead in ((figure.legs[other], 0.15), (figure.legs[side], -0.15)):
        leg.knee = leg.knee + knee
        leg.flex = leg.flex + 0.5 * knee + ahead
        leg.apart = leg.apart + rng.uniform(0.05, 0.2)
    figure.legs[side].knee = figure.legs[side].knee + through(phase, 0, 0, 0, 0, 0.3, 1.0)


def _swing(figure, rng):
    """A stroke at the height of the hips: arm back and to the side, through in front, over the other shoulder."""
    side, other, turn = _sides(rng)
    phase = beat(rng, figure.time, 0.4, 0.7)
    arm, balance = figure.arms[side], figure.arms[other]
    back = rng.choice([-1, 1])  # forehand, or backhand across the body
    arm.lift = through(phase, 0.8, 1.1, 1.0, 1.5) + rng.uniform(-0.3, 0.3)
    arm.forward = 0.6 + back * through(phase, 0.0, -0.9, 0.0, 0.8)
    arm.elbow = through(phase, 0.9, 0.5, 0.3, 1.4) + rng.uniform(0, 0.3)
    arm.twist = through(phase, 0, -0.4, 0, 0.4)
    balance.lift = through(phase, 0.7, 1.2, 1.0, 0.6) + rng.uniform(-0.2, 0.3)
    balance.forward = through(phase, 1.0, 1.2, 0.5, 0.3)
    balance.elbow = rng.uniform(0.3, 1.2) + 0.3 * np.sin(phase)
    figure.spine[:, 1] += turn * back * through(phase, 0, 0.6, 0, -0.6)
    figure.root[:, 1] += turn * back * through(phase, 0, 0.4, 0, -0.4)
    low = rng.uniform(0.1, 0.8)
    figure.root[:, 0] += 0.25 * low + 0.1
    spread = rng.uniform(-0.5, 0.5)
    for sign, name in ((1, side), (-1, other)):
        leg = figure.legs[name]
        leg.knee = leg.knee + 1.2 * low + 0.15 * np.sin(phase)
        leg.flex = leg.flex + 0.7 * low + sign * spread
        leg.apart = leg.apart + rng.uniform(0.1, 0.35)
        leg.lift_toe = leg.lift_toe - 0.4 * np.clip(-sign * spread, 0, None)


def _hop(figure, rng):
    phase = beat(rng, figure.time, 0.5, 0.9)
    down = pulse(phase)
    high = rng.uniform(0.3, 2.6)
    figure.root[:, 0] += 0.3 * down
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + 0.9 * down + rng.uniform(0, 0.4)
        leg.knee = leg.knee + 1.2 * down + rng.uniform(0, 0.6)
        leg.lift_toe = leg.lift_toe - 0.6 * (1 - down)
        arm.lift = 0.4 + high * (1 - down)
        arm.forward = rng.uniform(0.3, 1.4) - 0.8 * down
        arm.elbow = rng.uniform(0.2, 1.2) + 0.3 * down


def _stand(figure, rng):
    """Weight on one leg, hands at the hips, before the belly, behind the back, or hanging."""
    side, _, turn = _sides(rng)
    hold = rng.integers(4)
    for name in SIDES:
        arm = figure.arms[name]
        slow = wander(rng, figure.time, 0.08, 3)
        if hold == 0 or (hold == 3 and name == side):  # at the hips: elbows out
            arm.lift, arm.forward = 0.75 + slow, -0.3 + slow
            arm.twist, arm.elbow = 0.6 + slow, rng.uniform(1.5, 1.9) + slow
        elif hold == 1:  # before the belly
            arm.lift, arm.forward = rng.uniform(0.3, 0.6) + slow, rng.uniform(0.7, 1.2) + slow
            arm.elbow, arm.twist = rng.uniform(1.2, 2.1) + slow, rng.uniform(-0.2, 0.3) + slow
        else:
            arm.lift, arm.forward = rng.uniform(0.1, 0.4) + slow, rng.uniform(-0.4, 0.4) + slow
            arm.elbow = rng.uniform(0.1, 0.5) + slow
    figure.root[:, 2] += turn * rng.uniform(0, 0.08)
    figure.spine[:, 2] -= turn * rng.uniform(0, 0.15)
    figure.head[:, 0] += rng.uniform(-0.2, 0.5)
    figure.head[:, 1] += rng.uniform(-0.8, 0.8)
    leg = figure.legs[side]
    leg.knee = leg.knee + rng.uniform(0, 0.5)
    leg.flex = leg.flex + rng.uniform(-0.1, 0.35)
    for name in SIDES:
        figure.legs[name].apart = figure.legs[name].apart + rng.uniform(0, 0.2)
        figure.legs[name].turn = figure.legs[name].turn + rng.uniform(0, 0.4)


KINDS = {
    "walk": _walk,
    "wave": _wave,
    "reach": _reach,
    "bend": _bend,
    "talk": _talk,
    "sit": _sit,
    "stretch": _stretch,
    "march": _march,
    "lunge": _lunge,
    "throw": _throw,
    "dance": _dance,
    "squat": _squat,
    "kick": _kick,
    "jumping_jack": _jumping_jack,
    "box": _box,
    "turn": _turn,
    "run": _run,
    "side_step": _side_step,
    "crouch": _crouch,
    "serve": _serve,
    "swing": _swing,
    "hop": _hop,
    "stand": _stand,
}
SOURCE_KINDS = ("walk", "wave", "reach", "bend", "talk", "sit", "stretch")
VALIDATION_KINDS = ("march", "lunge", "throw")
TEST_KINDS = ("dance", "squat", "kick", "jumping_jack", "box", "turn")
WILD_KINDS = ("run", "side_step", "crouch", "serve", "swing", "hop", "stand")


def motion(kind: str, rng: np.random.Generator, frames: int) -> np.ndarray:
    """A clip of one of KINDS at FRAME_RATE: axis-angle rotations (frames,24,3), the root facing about +z."""
    figure = Figure(np.arange(frames) / FRAME_RATE)
    figure.spine += np.stack([wander(rng, figure.time, 0.05, 3) for _ in range(3)], axis=1)
    figure.head += np.stack([wander(rng, figure.time, 0.1, 3) for _ in range(3)], axis=1)
    KINDS[kind](figure, rng)
    figure.root[:, 1] += wander(rng, figure.time, 0.06, 4)
    return figure.poses()


def mirrored(poses: np.ndarray) -> np.ndarray:
    """Poses (...,24,3) of the mirror image."""
    return poses[..., flip_permutation(SMPL24), :] * [1, -1, -1]


def source_poses(
    rng: np.random.Generator, clips: int, frames: int = 12, seconds: float = 4.0, kinds: Iterable[str] = SOURCE_KINDS
) -> np.ndarray:
    """Poses (N,24,3) sampled from `clips` clips of each kind and their mirror images."""
    step = int(seconds * FRAME_RATE / frames)
    poses = [motion(kind, rng, frames * step)[::step] for kind in kinds for _ in range(clips)]
    poses = np.concatenate(poses)
    return np.concatenate([poses, mirrored(poses)])
