"""Forward kinematics against chains of 4x4 matrices."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from utils.kinematics import forward_kinematics, place_joints

PARENTS = [-1, 0, 1, 0, 3]
RNG = np.random.default_rng(0)
JOINTS = RNG.normal(0, 1, (5, 3))


def random_turns(*shape: int) -> np.ndarray:
    return Rotation.from_rotvec(RNG.normal(0, 1, (int(np.prod(shape)), 3))).as_matrix().reshape(*shape, 3, 3)


def by_matrices(rotmat: np.ndarray) -> np.ndarray:
    """World transforms (5,4,4) of one pose."""
    world = []
    for joint, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotmat[joint]
        local[:3, 3] = JOINTS[joint] - (JOINTS[parent] if joint else 0)
        world.append(world[parent] @ local if joint else local)
    return np.array(world)


def test_turns_and_joints_are_those_of_a_chain_of_matrices():
    rotmat = random_turns(5)
    turns, joints = forward_kinematics(rotmat, JOINTS, PARENTS)
    expected = by_matrices(rotmat)
    np.testing.assert_allclose(turns, expected[:, :3, :3], atol=1e-12)
    np.testing.assert_allclose(joints, expected[:, :3, 3], atol=1e-12)
    np.testing.assert_allclose(place_joints(turns, JOINTS, PARENTS), joints, atol=1e-12)


def test_a_clip_is_each_of_its_frames():
    rotmat = random_turns(4, 5)
    clip = forward_kinematics(rotmat, JOINTS, PARENTS)
    for frame in range(4):
        for whole, single in zip(clip, forward_kinematics(rotmat[frame], JOINTS, PARENTS), strict=True):
            np.testing.assert_allclose(whole[frame], single, atol=1e-12)


def test_bones_keep_their_length():
    _, joints = forward_kinematics(random_turns(5), JOINTS, PARENTS)
    for joint, parent in list(enumerate(PARENTS))[1:]:
        expected = np.linalg.norm(JOINTS[joint] - JOINTS[parent])
        assert np.linalg.norm(joints[joint] - joints[parent]) == pytest.approx(expected)
