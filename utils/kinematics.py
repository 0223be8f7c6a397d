"""Forward kinematics in numpy: where the joints of a skeleton are when each of them turns.

A skeleton is given by `joints` (J,3) m in the zero pose and `parents` (J,), parents first, the first one's being -1.
"""

from collections.abc import Sequence

import numpy as np


def forward_kinematics(rotmat: np.ndarray, joints: np.ndarray, parents: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Turn every joint in the axes of its parent: rotmat (...,J,3,3), joints (J,3) m, parents (J,).

    Returns the rotations (...,J,3,3) in the axes of the whole and the joints (...,J,3) m, both in the type of `joints`.
    """
    turns = np.empty(rotmat.shape, joints.dtype)
    turns[..., 0, :, :] = rotmat[..., 0, :, :]
    for joint, parent in enumerate(parents[1:], start=1):
        turns[..., joint, :, :] = turns[..., parent, :, :] @ rotmat[..., joint, :, :]
    return turns, place_joints(turns, joints, parents)


def place_joints(turns: np.ndarray, joints: np.ndarray, parents: Sequence[int]) -> np.ndarray:
    """Hang joints (J,3) m onto their parents, whose rotations (...,J,3,3) in the axes of the whole are given.

    Returns them as (...,J,3) m in the type of `joints`; the first stays where it is.
    """
    places = np.empty(turns.shape[:-1], joints.dtype)
    places[..., 0, :] = joints[0]
    for joint, parent in enumerate(parents[1:], start=1):
        places[..., joint, :] = places[..., parent, :] + turns[..., parent, :, :] @ (joints[joint] - joints[parent])
    return places
