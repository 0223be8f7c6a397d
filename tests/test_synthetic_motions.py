"""The figure and the library of motions."""

import numpy as np
import pytest
from free import joints_of
from scipy.spatial.transform import Rotation

from synthetic.figure import Arm, Figure, Leg, pulse, through
from synthetic.motions import KINDS, SOURCE_KINDS, TEST_KINDS, VALIDATION_KINDS, WILD_KINDS, mirrored, motion
from utils.joints import JOINTS49, SIDES, SMPL24


def test_a_number_holds_for_the_whole_time_and_a_signal_is_kept_apart_from_its_giver():
    arm, lift = Arm(4), np.arange(4.0)
    arm.lift, arm.elbow = lift, 1.5
    arm.lift += 1
    np.testing.assert_array_equal(arm.elbow, [1.5] * 4)
    np.testing.assert_array_equal(arm.lift, [1, 2, 3, 4])
    np.testing.assert_array_equal(lift, [0, 1, 2, 3])


def test_a_signal_of_another_length_is_refused():
    with pytest.raises(ValueError, match="broadcast"):
        Leg(4).knee = np.zeros(3)


def test_a_figure_stands_upright_with_hanging_arms_and_both_sides_alike():
    pose = Figure(np.zeros(1)).poses()[0]
    joints = joints_of("neutral", pose, np.zeros(10))
    wrist, hip = JOINTS49.index("Left Wrist"), JOINTS49.index("Left Hip")
    assert abs(joints[wrist, 1] - joints[hip, 1]) < 0.2 and 0.2 < joints[wrist, 0] < 0.5
    np.testing.assert_allclose(mirrored(pose), pose, atol=1e-12)


@pytest.mark.parametrize("angle", [0.4, 0.9, 1.3])
def test_the_foot_stays_level_whatever_knee_and_hip_do(angle):
    figure = Figure(np.zeros(1))
    figure.legs["left"].flex, figure.legs["left"].knee = angle, angle + 0.2
    joints = joints_of("neutral", figure.poses()[0], np.zeros(10))
    rest = joints_of("neutral", Figure(np.zeros(1)).poses()[0], np.zeros(10))
    toe, heel = JOINTS49.index("OP LBigToe"), JOINTS49.index("OP LHeel")
    assert (joints[toe] - joints[heel])[1] == pytest.approx((rest[toe] - rest[heel])[1], abs=0.01)


def test_a_signal_goes_through_its_values_and_repeats():
    phase = 2 * np.pi * np.arange(5) / 4
    np.testing.assert_allclose(through(phase, 3, 1, 4, 1), [3, 1, 4, 1, 3], atol=1e-12)
    np.testing.assert_allclose(pulse(phase), [0, 0.5, 1, 0.5, 0], atol=1e-12)


def test_the_kinds_of_motion_of_the_splits_are_disjoint_and_all_there_are():
    splits = [set(kinds) for kinds in (SOURCE_KINDS, VALIDATION_KINDS, TEST_KINDS, WILD_KINDS)]
    assert sum(map(len, splits)) == len(set.union(*splits)) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_motions_are_smooth_and_keep_within_what_joints_can_do(kind):
    poses = motion(kind, np.random.default_rng(0), 90)
    assert poses.shape == (90, len(SMPL24), 3) and np.isfinite(poses).all()
    assert poses.std(axis=0).max() > 0.02  # something moves
    turns = Rotation.from_rotvec(poses.reshape(-1, 3))
    steps = (turns[: -len(SMPL24)].inv() * turns[len(SMPL24) :]).magnitude()
    assert steps.max() < 0.6  # rad in a thirtieth of a second
    for side in SIDES:
        knee, elbow = poses[:, SMPL24.index(f"{side}_knee")], poses[:, SMPL24.index(f"{side}_elbow")]
        assert (knee[:, 0] > 0).all() and (elbow[:, 1] * (-1 if side == "left" else 1) > 0).all()


@pytest.mark.parametrize("kind", ["throw", "kick", "lunge", "serve", "swing"])
def test_either_side_may_act(kind):
    """Over the seeds, each side's arm or leg is the one that moves more."""
    more = set()
    for seed in range(8):
        poses = motion(kind, np.random.default_rng(seed), 45)
        spread = {side: poses[:, [SMPL24.index(f"{side}_{part}") for part in ("knee", "elbow")]] for side in SIDES}
        more.add(max(spread, key=lambda side: np.ptp(spread[side], axis=0).sum()))
    assert more == set(SIDES)


def test_the_mirror_image_of_a_pose_mirrors_its_joints():
    pose = motion("throw", np.random.default_rng(0), 1)[0]
    joints, other = (joints_of("neutral", each, np.zeros(10)) for each in (pose, mirrored(pose)))
    left, right = JOINTS49.index("Left Wrist"), JOINTS49.index("Right Wrist")
    np.testing.assert_allclose(other[right], joints[left] * [-1, 1, 1], atol=1e-3)
