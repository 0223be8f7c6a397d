"""Losses and scores of detected joints."""

import numpy as np
import pytest
import torch

from models.prediction import Prediction
from utils import losses
from utils.evaluation import FootageScorer
from utils.joints import SPIN

ALL = slice(None)


def random_joints(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 49, 2, generator=generator), torch.rand(1, 49, 3, generator=generator)


def test_detected_joints_count_in_all_rows_and_those_of_data_sets_in_spin_s():
    predicted, given = random_joints(0)
    by_hand = (given[..., 2:] * (predicted - given[..., :2]) ** 2)[0]
    assert losses.kp2d(predicted, given).item() == pytest.approx(by_hand[SPIN].mean().item())
    near = given[..., :2] + 0.01 * predicted / predicted.norm(dim=-1, keepdim=True)
    expected = (given[..., 2] * 0.01**2).mean().item() / 2
    assert losses.kp2d(near, given, ALL).item() == pytest.approx(expected, rel=0.02)
    given[0, SPIN, 2] = 0
    assert losses.visible(given, ALL).tolist() == [True]
    assert losses.visible(given).tolist() == [False]


def test_a_detected_joint_that_lies_elsewhere_pulls_as_far_as_any_other_and_no_more():
    given = torch.cat([torch.zeros(1, 49, 2), torch.ones(1, 49, 1)], dim=-1)
    pulls = []
    for away in (0.02, 0.1, 0.5):
        predicted = torch.full((1, 49, 2), away / 2**0.5, requires_grad=True)
        pulls.append(torch.autograd.grad(losses.kp2d(predicted, given, ALL), predicted)[0].norm(dim=-1).max().item())
    assert pulls[0] < pulls[1] == pytest.approx(pulls[2], rel=0.02)


def test_the_motion_of_detected_joints_counts_where_both_frames_are_confident():
    (now, given), (before, given_before) = random_joints(0), random_joints(1)
    expected = 0.0
    for joint in range(49):
        if min(given[0, joint, 2], given_before[0, joint, 2]) > 0.3:
            way = (now - before)[0, joint] - (given - given_before)[0, joint, :2]
            expected += (way**2).sum().item()
    found = losses.motion(now, before, given, given_before, ALL)
    assert found.item() == pytest.approx(expected / 98, rel=1e-5)


def make_prediction(keypoints: torch.Tensor, joints: torch.Tensor) -> Prediction:
    return Prediction(None, None, None, joints, None, keypoints)


def test_footage_is_scored_in_px_and_as_a_share_of_the_box():
    given = torch.cat([torch.zeros(1, 49, 2), torch.full((1, 49, 1), 0.2)], dim=2)
    given[0, 3, 2], given[0, 4, 2] = 0.9, 0.5
    adapted, frozen = torch.full((1, 49, 2), 7.0), torch.zeros(1, 49, 2)
    adapted[0, 3], adapted[0, 4] = torch.tensor([0.3, 0.4]), torch.tensor([0.0, 0.1])
    frozen[0, 3] = torch.tensor([0.0, 1.0])
    scorer = FootageScorer(lambda image: make_prediction(frozen, None))
    rows = []
    for index, height in ((0, 0.0), (1, 0.001), (2, 0.004), (4, 0.0), (5, 0.0), (6, 0.0)):
        joints = torch.zeros(1, 49, 3)
        joints[0, SPIN][13] = torch.tensor([0, height, 0])
        frame = {"image": None, "keypoints_2d": given, "scale": torch.tensor([2.0]), "index": torch.tensor([index])}
        frame |= {"sequence": ["clip"], "person": torch.tensor([0])}
        rows += scorer(make_prediction(adapted, joints), frame)
    share = (0.9 * 0.5 + 0.5 * 0.1) / 1.4 / 2
    assert rows[0]["adapted_share"] == pytest.approx(share)
    assert rows[0]["adapted_px"] == pytest.approx(400 * share)
    assert rows[0]["frozen_share"] == pytest.approx(0.9 / 1.4 / 2)
    # 4 - 2 * 1 + 0 mm of one joint in 24; nothing is told across a frame that is missing
    assert [row["accel"] for row in rows] == pytest.approx([np.nan, np.nan, 2 / 24, np.nan, np.nan, 0], nan_ok=True)
