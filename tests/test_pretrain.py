"""The trainer of base models, on toys, and the augmentation it uses."""

import csv

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import pretrain
import streams
from models.hmr import load_hmr
from utils.augmentation import augment
from utils.joints import JOINTS49


@pytest.fixture
def arguments(world, monkeypatch, tmp_path) -> list[str]:
    monkeypatch.setitem(streams.STREAMS, "3dpw", world.stream)
    monkeypatch.setattr(streams, "H36M", world.stream.source)
    small = ["--size", "64", "--batch_size", "4", "--validate_every", "4", "--workers", "0"]
    return ["--name", "base", "--expdir", str(tmp_path), "--source", "h36m", *small]


def read_log(folder) -> list[dict[str, str]]:
    with (folder / "base" / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_training_leaves_a_base_model_and_goes_on_where_it_stopped(world, arguments, tmp_path):
    pretrain.main([*arguments, "--images", "4"])
    assert [row["images"] for row in read_log(tmp_path)] == ["0", "4"]
    pretrain.main([*arguments, "--images", "8"])
    rows = read_log(tmp_path)
    assert [row["images"] for row in rows] == ["0", "4", "8"]
    assert all(float(row["target_mpjpe_mm"]) > 0 for row in rows)
    assert (tmp_path / "base" / "curve.png").stat().st_size > 0
    load_hmr(world.stream.assets.mean_params, tmp_path / "base" / "basemodel.pt")


def labelled_sample() -> dict[str, np.ndarray]:
    """A picture whose only bright spot is the left wrist, with labels of a body seen from far away."""
    rng = np.random.default_rng(0)
    keypoints = np.pad(rng.uniform(-0.5, 0.5, (49, 2)), ((0, 0), (0, 1)), constant_values=1).astype(np.float32)
    joints = np.concatenate([keypoints[25:, :2], rng.normal(0, 0.3, (24, 1)), np.ones((24, 1))], axis=1)
    image = np.zeros((224, 224, 3), np.uint8)
    x, y = np.rint((keypoints[JOINTS49.index("Left Wrist"), :2] + 1) * 112 - 0.5).astype(int)
    image[y - 3 : y + 4, x - 3 : x + 4] = 200
    pose = rng.normal(0, 0.3, 72).astype(np.float32)
    return {"image": image, "keypoints_2d": keypoints, "joints_3d": joints.astype(np.float32), "pose": pose}


def test_augmentation_moves_picture_and_labels_alike():
    checked = 0
    for seed in range(40):
        sample = augment(labelled_sample(), np.random.default_rng(seed))
        bright = sample["image"].sum(2) * (sample["image"].max(2) > 120)
        mirrored = not np.allclose(sample["pose"][3:], labelled_sample()["pose"][3:])
        wrist = sample["keypoints_2d"][JOINTS49.index("Right Wrist" if mirrored else "Left Wrist"), :2]
        y, x = np.nonzero(bright)
        spread = max(np.ptp(x), np.ptp(y)) if len(x) else np.inf
        if spread < 12:  # else a patch hides the spot or is bright itself
            seen = (np.array([x.mean(), y.mean()]) + 0.5) / 112 - 1
            np.testing.assert_allclose(seen, wrist, atol=0.02)
            checked += 1
    assert checked > 15


def test_augmentation_turns_3d_joints_and_orientation_as_the_picture():
    for seed in range(10):
        before, after = labelled_sample(), augment(labelled_sample(), np.random.default_rng(seed))
        # on both sides, joints and keypoints differ by one scale and shift only
        away = [s["keypoints_2d"][25:, :2] - s["keypoints_2d"][25, :2] for s in (before, after)]
        deep = [s["joints_3d"][:, :2] - s["joints_3d"][0, :2] for s in (before, after)]
        scale = np.linalg.norm(away[1]) / np.linalg.norm(deep[1])
        np.testing.assert_allclose(away[1], scale * deep[1], atol=1e-5)
        np.testing.assert_allclose(np.sort(before["joints_3d"][:, 2]), np.sort(after["joints_3d"][:, 2]), atol=1e-6)
        if np.allclose(before["pose"][3:], after["pose"][3:]):
            turn = Rotation.from_rotvec(after["pose"][:3]) * Rotation.from_rotvec(before["pose"][:3]).inv()
            np.testing.assert_allclose(turn.apply(before["joints_3d"][:, :3]), after["joints_3d"][:, :3], atol=1e-5)
