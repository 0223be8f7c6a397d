"""The joint tables, which are names, against the published lists of numbers."""

import pytest

from utils.joints import (
    BODY25,
    BODY54,
    COCO18,
    COMMON17,
    H36M17,
    H36M32,
    HP3D17,
    HP3D28,
    JOINTS49,
    LSP14,
    SMPL24,
    SPIN,
    SPIN24,
    flip_permutation,
    mirror,
    rows,
)

# SPIN's constants (Kolotouros et al., ICCV 2019): places of the 49 joints among the body's 54
OPENPOSE_OF_54 = [24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, *range(25, 35)]
SPIN_OF_54 = [8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, *range(47, 54), 24, 26, 25, 28, 27]
# order of the scores, and the places of the 17 among the 24
COMMON_OF_H36M = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10, 0, 7, 9]
COMMON_OF_SPIN = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 18, 14, 16, 17]
H36M_IN_SPIN = [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6]
FLIP_SMPL = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
FLIP_SPIN = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 15, 16, 17, 18, 19, 21, 20, 23, 22]
# rows of the raw skeletons, in the order of the 17
RAW = {
    "MPI-INF-3DHP, test": (HP3D17, [14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]),
    "MPI-INF-3DHP, train": (HP3D28, [4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]),
    "Human3.6M": (H36M32, [11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]),
}
OPENPOSE_OF_3DPW = [10, 9, 8, 11, 12, 13, 4, 3, 2, 5, 6, 7]  # into the first twelve of the 24


def test_the_body_s_joints_are_picked_as_published(bodies):
    picks = OPENPOSE_OF_54 + SPIN_OF_54
    assert rows([*BODY25.values(), *SPIN24.values()], BODY54) == picks
    assert bodies["neutral"].picks.tolist() == picks


def test_scores_are_taken_in_the_published_order():
    assert rows(COMMON17, H36M17) == COMMON_OF_H36M
    assert rows(COMMON17, SPIN24) == COMMON_OF_SPIN
    assert COMMON17[:14] == LSP14


def test_left_and_right_are_exchanged_as_published():
    assert flip_permutation(SMPL24) == FLIP_SMPL
    assert flip_permutation(SPIN24) == FLIP_SPIN
    assert flip_permutation(JOINTS49)[SPIN] == [len(BODY25) + row for row in FLIP_SPIN]


@pytest.mark.parametrize("name", RAW)
def test_raw_skeletons_are_read_as_published(name):
    table, published = RAW[name]
    assert rows(H36M17, table) == published


def test_converted_joints_land_in_the_published_slots():
    assert rows(H36M17, SPIN24) == H36M_IN_SPIN
    assert rows(list(SPIN24)[:12], COCO18) == OPENPOSE_OF_3DPW


def test_names_are_unique_and_mirroring_twice_gives_the_name_back():
    for table in (JOINTS49, SMPL24, BODY54, H36M17):
        assert len(set(table)) == len(table)
        assert [mirror(mirror(name)) for name in table] == list(table)
    assert len(JOINTS49) == 49 and JOINTS49[SPIN] == list(SPIN24)
