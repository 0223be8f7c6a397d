"""Scores against their definitions."""

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from utils import metrics
from utils.evaluation import Scorer


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 14, 3))


def test_alignment_undoes_a_similarity(points):
    moved = 1.7 * points @ Rotation.from_rotvec([0.3, 2.0, -1.0]).as_matrix().T + [3.0, -2.0, 1.0]
    np.testing.assert_allclose(metrics.procrustes_align(points, moved), moved, atol=1e-12)


def test_alignment_never_mirrors(points):
    mirrored = points * [1, 1, -1]
    assert metrics.point_error(metrics.procrustes_align(points, mirrored), mirrored).mean() > 100


def test_alignment_is_as_good_as_scipys(points):
    noisy = points + np.random.default_rng(1).normal(0, 0.1, points.shape)
    ours = ((metrics.procrustes_align(noisy, points) - points) ** 2).sum((1, 2))
    spread = ((points - points.mean(1, keepdims=True)) ** 2).sum((1, 2))
    scipys = [procrustes(a, b)[2] for a, b in zip(points, noisy, strict=True)]
    np.testing.assert_allclose(ours / spread, scipys, rtol=1e-9)


def test_errors_are_millimetres():
    assert metrics.point_error(np.zeros((1, 2, 3)), np.array([[[0.003, 0.004, 0], [0, 0, 0]]])).tolist() == [[5.0, 0.0]]


def test_pck_counts_points_within_150_mm_and_auc_is_its_mean_over_thresholds():
    error = np.array([[0.0, 100.0, 149.9, 150.0, 300.0]])
    assert metrics.pck(error)[0] == pytest.approx(3 / 5)
    expected = np.mean([(error < threshold).mean() for threshold in range(0, 151, 5)])
    assert metrics.auc(error)[0] == pytest.approx(expected)


def test_acceleration_error_of_a_parabola_beside_a_line():
    t = np.arange(3.0)[:, None, None] * np.ones((3, 14, 3)) * [1, 0, 0]
    assert metrics.acceleration_error(0.01 * t**2, 0.5 * t) == pytest.approx(20.0)  # 2 * 10 mm


def scored(batch: int, last_pck_counts: bool) -> list[dict[str, float]]:
    joints = np.zeros((batch, 14, 3))
    scorer = Scorer(lambda *_: (joints, joints, {"pck": np.arange(batch) / 10.0}), 1, last_pck_counts)
    zeros = torch.zeros(batch, dtype=torch.long)
    return scorer(None, {"sequence": ["a"] * batch, "person": zeros, "number": torch.arange(batch)})


def test_every_sample_of_a_batch_has_its_own_pck():
    assert [row["pck"] for row in scored(3, last_pck_counts=False)] == pytest.approx([0.0, 0.1, 0.2])


def test_the_last_pck_of_a_batch_counts_for_all_with_paper_compat():
    assert [row["pck"] for row in scored(3, last_pck_counts=True)] == pytest.approx([0.2, 0.2, 0.2])


def test_acceleration_needs_three_frames_of_one_person():
    joints = np.zeros((1, 14, 3))
    scorer = Scorer(lambda *_: (joints, joints, {}))
    stream = [("a", 0)] * 3 + [("a", 1)] * 3 + [("b", 1)] * 2
    known = []
    for number, (sequence, person) in enumerate(stream):
        place = {"sequence": [sequence], "person": torch.tensor([person]), "number": torch.tensor([number])}
        known.append(not np.isnan(scorer(None, place)[0]["accel"]))
    assert known == [False, False, True, False, False, True, False, False]


@pytest.mark.parametrize("step", [1, 5])
def test_acceleration_starts_afresh_where_frames_were_dropped(step):
    joints = np.zeros((1, 14, 3))
    scorer = Scorer(lambda *_: (joints, joints, {}), step)
    known = []
    for number in (0, 1, 2, 3, 5, 7, 9, 10, 11):  # 5, 7, 9 are evenly spaced, but not consecutive
        place = {"sequence": ["a"], "person": torch.tensor([0]), "number": torch.tensor([step * number])}
        known.append(not np.isnan(scorer(None, place)[0]["accel"]))
    assert known == [False, False, True, True, False, False, False, False, True]
