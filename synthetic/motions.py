"""Procedural human motion: sums of sinusoids on the joint angles of a 24-joint SMPL skeleton, one function a kind.

The kinds of the lists are disjoint, so that a model trained on SOURCE_KINDS has not seen the others. A kind sets the
angles of a standing figure; what it draws from the generator, and in which order, decides what every seed renders.
"""

from collections.abc import Iterable

import numpy as np

from synthetic.figure import FRAME_RATE, Figure, beat, pulse, through, wander
from utils.joints import SIDES, SMPL24, flip_permutation

# in steps that alternate, the right side is half a turn of the rhythm behind the left
ALTERNATELY = tuple(zip(SIDES, (0.0, np.pi), strict=True))


def _sides(rng: np.random.Generator) -> tuple[str, str, int]:
    """The side that acts, the other one, and the sign of a turn towards the first."""
    return (*SIDES, 1) if rng.random() < 0.5 else (*SIDES[::-1], -1)


def _stride(figure: Figure, phase: np.ndarray, length: float, lift: float, arms: float) -> None:
    """Step in rhythm: hips swing by `length`, the swinging knee bends by `lift`, the arms swing against the legs."""
    for side, shift in ALTERNATELY:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + length * np.sin(phase + shift) + 0.08
        # the knee bends most half way through the swing
        leg.knee = leg.knee + 0.08 + lift * pulse(phase + shift + np.pi) ** 2
        leg.lift_toe += 0.2 * np.sin(phase + shift - 0.3)
        arm.swing -= arms * np.sin(phase + shift)
        arm.elbow += 0.5 * arms * (1 + np.sin(phase + shift + np.pi))
    figure.spine[:, 1] += 0.12 * np.sin(phase)
    figure.root[:, 1] -= 0.06 * np.sin(phase)


def _walk(figure: Figure, rng: np.random.Generator) -> None:
    """Walk ahead at an easy or a brisk pace."""
    _stride(
        figure, beat(rng, figure.time, 0.75, 1.1), rng.uniform(0.3, 0.5), rng.uniform(0.6, 1), rng.uniform(0.2, 0.6)
    )


def _wave(figure: Figure, rng: np.random.Generator) -> None:
    """Wave with one hand or both, forearm up."""
    sides = (SIDES[:1], SIDES[1:], SIDES)[rng.integers(3)]
    phase = beat(rng, figure.time, 0.8, 1.6)
    for side in sides:
        arm = figure.arms[side]
        arm.lift = rng.uniform(1.2, 2.2) + wander(rng, figure.time, 0.12, 2)
        arm.forward = rng.uniform(0, 0.8) + wander(rng, figure.time, 0.15, 2)
        arm.twist = -rng.uniform(1, 1.6) + 0.3 * np.sin(phase)
        arm.elbow = rng.uniform(0.6, 1.5) + 0.45 * np.sin(phase)


def _reach(figure: Figure, rng: np.random.Generator) -> None:
    """Stretch one arm or both out and draw them in again, at any height."""
    for side in SIDES:
        if rng.random() < 0.7:
            arm, out = figure.arms[side], pulse(beat(rng, figure.time, 0.3, 0.6))
            arm.lift = 0.25 + rng.uniform(1, 2.4) * out
            arm.forward = rng.uniform(0.2, 1.5) + wander(rng, figure.time, 0.1, 2)
            arm.elbow = rng.uniform(0.6, 1.3) * (1 - out) + 0.1
            arm.twist = wander(rng, figure.time, 0.3, 3)
    figure.spine[:, 1] += wander(rng, figure.time, 0.25, 3)


def _bend(figure: Figure, rng: np.random.Generator) -> None:
    """Bend down with the knees more or less bent, and up again."""
    down = pulse(beat(rng, figure.time, 0.25, 0.5))
    depth = rng.uniform(0.5, 1.1)
    figure.root[:, 0] += 0.5 * depth * down
    figure.spine[:, 0] += 0.7 * depth * down
    knee = rng.uniform(0.1, 0.9)
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex += (0.5 * depth + 0.5 * knee) * down
        leg.knee += knee * down
        arm.lift += rng.uniform(0.2, 1.2) * down
        arm.forward = rng.uniform(0.7, 1.5) + wander(rng, figure.time, 0.1, 2)


def _talk(figure: Figure, rng: np.random.Generator) -> None:
    """Stand and move the forearms as in talking."""
    for side in SIDES:
        arm = figure.arms[side]
        arm.lift = rng.uniform(0.2, 0.6) + wander(rng, figure.time, 0.12, 1.6)
        arm.forward = rng.uniform(0.2, 1.2) + wander(rng, figure.time, 0.2, 2)
        arm.elbow = rng.uniform(0.3, 1.9) + wander(rng, figure.time, 0.3, 1.5)
        arm.twist = rng.uniform(-0.4, 0.4) + wander(rng, figure.time, 0.25, 2)
    figure.head[:, 1] += wander(rng, figure.time, 0.3, 3)


def _sit(figure: Figure, rng: np.random.Generator) -> None:
    """Sit, hands before the body; the seat is not drawn."""
    deep = rng.uniform(1.2, 1.65)
    figure.root[:, 0] += rng.uniform(-0.15, 0.25)
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = deep + wander(rng, figure.time, 0.04, 3)
        leg.knee = deep + rng.uniform(-0.2, 0.4) + wander(rng, figure.time, 0.05, 3)
        leg.apart += rng.uniform(0, 0.35)
        arm.lift = rng.uniform(0.2, 0.9) + wander(rng, figure.time, 0.1, 2)
        arm.forward = rng.uniform(0.6, 1.5) + wander(rng, figure.time, 0.1, 2)
        arm.elbow = rng.uniform(0.3, 1.7) + wander(rng, figure.time, 0.2, 2)
    figure.spine[:, 0] += rng.uniform(0, 0.4)


def _stretch(figure: Figure, rng: np.random.Generator) -> None:
    """Take one loose posture after the other: arms anywhere, knees slightly bent."""
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


def _march(figure: Figure, rng: np.random.Generator) -> None:
    """March on with knees lifted high and arms swinging."""
    phase = beat(rng, figure.time, 0.8, 1.1)
    _stride(figure, phase, rng.uniform(0.2, 0.3), 0.3, rng.uniform(0.6, 0.9))
    for side, shift in ALTERNATELY:
        high = np.clip(np.sin(phase + shift), 0, None)
        figure.legs[side].flex += 0.9 * high
        figure.legs[side].knee += 1.2 * high


def _lunge(figure: Figure, rng: np.random.Generator) -> None:
    """Step far forward with one leg, sink and rise; the arms open sideways."""
    down = pulse(beat(rng, figure.time, 0.35, 0.6))
    front, back, _ = _sides(rng)
    figure.legs[front].flex = 0.35 + 0.9 * down
    figure.legs[front].knee = 0.3 + 1.1 * down
    figure.legs[back].flex = -0.25 - 0.15 * down
    figure.legs[back].knee = 0.2 + 0.9 * down
    figure.legs[back].lift_toe = -0.5 - 0.3 * down
    out = rng.uniform(0.6, 1.5)
    for side in SIDES:
        figure.arms[side].lift = 0.3 + out * down
        figure.arms[side].forward = rng.uniform(0, 1.3)


def _throw(figure: Figure, rng: np.random.Generator) -> None:
    """Throw over the shoulder with one arm, the trunk turning along."""
    side, other, turn = _sides(rng)
    phase = beat(rng, figure.time, 0.5, 0.8)
    figure.spine[:, 1] += turn * 0.5 * np.sin(phase)
    figure.spine[:, 0] += 0.2 - 0.2 * np.sin(phase)
    arm = figure.arms[side]
    arm.lift = 1.7 + 0.5 * np.sin(phase + 0.6)
    arm.forward = 0.6 - 0.8 * np.sin(phase)
    arm.twist = -1.2 - 0.4 * np.sin(phase)
    arm.elbow = 0.9 + 0.8 * np.sin(phase + 0.4)
    figure.arms[other].lift = 0.9 - 0.4 * np.sin(phase)
    figure.arms[other].forward = 1.0
    figure.legs[other].flex = 0.4 + 0.15 * np.sin(phase)
    figure.legs[other].knee = 0.3 + 0.2 * pulse(phase)
    figure.legs[side].flex = -0.15


def _dance(figure: Figure, rng: np.random.Generator) -> None:
    """Step from side to side, arms overhead, hips and trunk swaying against each other."""
    phase = beat(rng, figure.time, 0.7, 1)
    figure.root[:, 2] += 0.07 * np.sin(phase)
    figure.root[:, 1] += 0.35 * np.sin(phase / 2)
    figure.spine[:, 2] -= 0.25 * np.sin(phase)
    figure.spine[:, 1] += 0.3 * np.sin(phase + 1)
    for side, shift in ALTERNATELY:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + 0.15 + 0.4 * pulse(phase + shift)
        leg.knee = leg.knee + 0.2 + 0.8 * pulse(phase + shift)
        leg.apart += 0.15
        arm.lift = 1.5 + 0.8 * np.sin(phase + shift)
        arm.forward = 0.5 + 0.4 * np.sin(phase + shift + 1)
        arm.elbow = 0.9 + 0.6 * np.sin(phase + shift + 2)
        arm.twist = -0.7


def _squat(figure: Figure, rng: np.random.Generator) -> None:
    """Squat with feet apart and arms ahead, and rise again."""
    down = pulse(beat(rng, figure.time, 0.4, 0.6))
    figure.root[:, 0] += 0.45 * down
    figure.spine[:, 0] += 0.15 * down
    apart, depth = rng.uniform(0.15, 0.35), rng.uniform(1.3, 1.6)
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex += (depth + 0.3) * down
        leg.knee += (depth + 0.2) * down
        leg.apart += apart
        leg.turn += apart
        arm.lift = 0.3 + 1.3 * down
        arm.forward = 1.3
        arm.elbow = 0.15


def _kick(figure: Figure, rng: np.random.Generator) -> None:
    """Swing one leg high, from behind to the front, and balance with the arms."""
    side, other, turn = _sides(rng)
    phase = beat(rng, figure.time, 0.5, 0.7)
    swing = np.sin(phase)
    figure.root[:, 0] -= 0.15 * np.clip(swing, 0, None)
    leg = figure.legs[side]
    leg.flex = 0.3 + 0.8 * swing
    leg.knee = 0.15 + 1.1 * np.clip(-np.sin(phase - 0.6), 0, None)
    leg.lift_toe = -0.3
    figure.legs[other].knee = 0.3
    figure.legs[other].flex = 0.1
    figure.arms[other].lift = 0.8 + 0.5 * swing
    figure.arms[other].forward = 1.0
    figure.arms[side].lift = 0.8 - 0.2 * swing
    figure.arms[side].forward = 0.2 - 0.6 * swing
    figure.spine[:, 1] += turn * 0.25 * swing


def _jumping_jack(figure: Figure, rng: np.random.Generator) -> None:
    """Arms and legs apart and together, arms up to over the head."""
    out = pulse(beat(rng, figure.time, 0.7, 1))
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.apart += 0.45 * out
        leg.knee += 0.15 * (1 - out)
        leg.flex += 0.08 * (1 - out)
        arm.lift = 0.2 + 2.5 * out
        arm.forward = 0.1
        arm.elbow = 0.25 + 0.2 * out


def _box(figure: Figure, rng: np.random.Generator) -> None:
    """Guard up, knees bent, and punch with one fist after the other."""
    phase = beat(rng, figure.time, 0.8, 1.2)
    figure.spine[:, 0] += 0.2
    figure.spine[:, 1] += 0.4 * np.sin(phase)
    figure.root[:, 1] += 0.3
    for side, shift in ALTERNATELY:
        leg, arm = figure.legs[side], figure.arms[side]
        out = np.clip(np.sin(phase + shift), 0, None) ** 1.5
        arm.lift = 0.5 + 1.0 * out
        arm.forward = 1.1 + 0.3 * out
        arm.elbow = 2.1 - 1.9 * out
        arm.twist = -0.9 + 0.4 * out
        leg.knee = leg.knee + 0.35 + 0.1 * np.sin(2 * phase)
        leg.flex += 0.45 if side == "left" else 0.0
        leg.apart += 0.1


def _turn(figure: Figure, rng: np.random.Generator) -> None:
    """Step round in place, arms out."""
    _stride(figure, beat(rng, figure.time, 0.9, 1.2), 0.3, 0.8, 0.2)
    figure.root[:, 1] += rng.choice([-1, 1]) * rng.uniform(1.8, 2.4) * figure.time
    for side in SIDES:
        arm = figure.arms[side]
        arm.lift = rng.uniform(0.8, 1.5) + wander(rng, figure.time, 0.15, 2)
        arm.forward = 0.2 + wander(rng, figure.time, 0.2, 2)


def _run(figure: Figure, rng: np.random.Generator) -> None:
    """Run, leaning forwards, elbows bent."""
    phase = beat(rng, figure.time, 1.2, 1.5)
    _stride(figure, phase, rng.uniform(0.5, 0.75), rng.uniform(1.2, 1.7), rng.uniform(0.5, 0.9))
    figure.root[:, 0] += rng.uniform(0.05, 0.25)
    for side in SIDES:
        figure.arms[side].elbow += rng.uniform(0.8, 1.3)


def _side_step(figure: Figure, rng: np.random.Generator) -> None:
    """Shift from foot to foot, low, ready to go to either side."""
    phase = beat(rng, figure.time, 0.8, 1.3)
    low = rng.uniform(0.2, 0.7)
    figure.root[:, 0] += 0.3 * low
    for side, shift in ALTERNATELY:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + low + 0.25 * pulse(phase + shift)
        leg.knee = leg.knee + 1.4 * low + 0.4 * pulse(phase + shift)
        leg.apart = leg.apart + rng.uniform(0.1, 0.2) + 0.2 * pulse(phase)
        arm.lift = rng.uniform(0.4, 1.0) + 0.2 * np.sin(phase)
        arm.forward = rng.uniform(0.5, 1.4) + wander(rng, figure.time, 0.15, 2)
        arm.elbow = rng.uniform(0.6, 1.6) + wander(rng, figure.time, 0.2, 2)


def _crouch(figure: Figure, rng: np.random.Generator) -> None:
    """Crouch more or less deep, hands anywhere before the body."""
    deep = rng.uniform(0.4, 1.9) + wander(rng, figure.time, 0.1, 2)
    figure.root[:, 0] += 0.35 * deep + rng.uniform(-0.1, 0.3)
    figure.spine[:, 0] += rng.uniform(0, 0.5)
    figure.head[:, 0] -= rng.uniform(0, 0.5)
    uneven = rng.uniform(-0.25, 0.25)
    for side, sign in zip(SIDES, (1, -1), strict=True):
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + 1.1 * deep + sign * uneven
        leg.knee += 1.2 * deep
        leg.apart += rng.uniform(0.05, 0.4)
        leg.turn += rng.uniform(0, 0.4)
        arm.lift = rng.uniform(0.4, 1.3) + wander(rng, figure.time, 0.15, 2)
        arm.forward = rng.uniform(0.6, 1.5) + wander(rng, figure.time, 0.1, 2)
        arm.elbow = rng.uniform(0.2, 1.8) + wander(rng, figure.time, 0.2, 2)


def _serve(figure: Figure, rng: np.random.Generator) -> None:
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
        leg.knee += knee
        leg.flex = leg.flex + 0.5 * knee + ahead
        leg.apart += rng.uniform(0.05, 0.2)
    figure.legs[side].knee += through(phase, 0, 0, 0, 0, 0.3, 1.0)


def _swing(figure: Figure, rng: np.random.Generator) -> None:
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
        leg.apart += rng.uniform(0.1, 0.35)
        leg.lift_toe -= 0.4 * np.clip(-sign * spread, 0, None)


def _hop(figure: Figure, rng: np.random.Generator) -> None:
    """Hop on the spot, knees bending and arms going up and down."""
    phase = beat(rng, figure.time, 0.5, 0.9)
    down = pulse(phase)
    high = rng.uniform(0.3, 2.6)
    figure.root[:, 0] += 0.3 * down
    for side in SIDES:
        leg, arm = figure.legs[side], figure.arms[side]
        leg.flex = leg.flex + 0.9 * down + rng.uniform(0, 0.4)
        leg.knee = leg.knee + 1.2 * down + rng.uniform(0, 0.6)
        leg.lift_toe -= 0.6 * (1 - down)
        arm.lift = 0.4 + high * (1 - down)
        arm.forward = rng.uniform(0.3, 1.4) - 0.8 * down
        arm.elbow = rng.uniform(0.2, 1.2) + 0.3 * down


def _stand(figure: Figure, rng: np.random.Generator) -> None:
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
    leg.knee += rng.uniform(0, 0.5)
    leg.flex += rng.uniform(-0.1, 0.35)
    for name in SIDES:
        figure.legs[name].apart += rng.uniform(0, 0.2)
        figure.legs[name].turn += rng.uniform(0, 0.4)


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
