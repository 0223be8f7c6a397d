"""The trainer of base models, on toys, and the augmentation it uses."""

import csv

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import config
import pretrain
import streams
from models.hmr import load_hmr
from synthetic import poses
from synthetic.poses import training_poses
from utils.augmentation import augment
from utils.errors import UserError
from utils.joints import JOINTS49, SPIN


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


@pytest.fixture
def few_poses(monkeypatch, tmp_path):
    """Few procedural motions, no motion capture and no rendered footage; a detector that was tried on nine people."""
    monkeypatch.setattr(poses, "_CLIPS", 1)
    rng = np.random.default_rng(1)
    joints = np.pad(rng.normal(0, 0.4, (9, 49, 3)), ((0, 0), (0, 0), (0, 1)), constant_values=1)
    exact = np.concatenate([0.3 * joints[..., :2], joints[..., 3:]], axis=-1)
    found = exact * [1, 1, 0.8] + [0.01, 0, 0]
    monkeypatch.setattr(config, "DETECTOR", tmp_path / "detector.npz")
    np.savez(config.DETECTOR, keypoints_2d=found, exact_2d=exact, joints_3d=joints[:, SPIN])
    monkeypatch.setattr(pretrain, "_VALIDATION_BATCHES", 1)
    monkeypatch.setattr(config, "MOCAP_POSES", tmp_path / "mocap.npz")
    monkeypatch.setattr(config, "DETECTIONS", tmp_path / "detections")
    return tmp_path


def joints_command(folder, *more: str) -> list[str]:
    sizes = ["--batch_size", "16", "--validate_every", "32"]
    return ["--name", "base", "--expdir", str(folder), "--source", "joints", *sizes, *more]


def test_joints_alone_are_trained_without_pictures_and_go_on_where_they_stopped(few_poses):
    pretrain.main(joints_command(few_poses, "--images", "32"))
    pretrain.main(joints_command(few_poses, "--images", "64"))
    rows = read_log(few_poses)
    assert [row["images"] for row in rows] == ["0", "32", "64"]
    assert all(float(row["source_mpjpe_mm"]) > 0 and row["target_mpjpe_mm"] == "" for row in rows)
    network = load_hmr(streams.DEMO_ASSETS.mean_params, few_poses / "base" / "basemodel.pt")
    assert network.inputs == ("keypoints_2d",)


def test_an_interrupted_training_on_joints_ends_with_the_same_weights(few_poses):
    pretrain.main(joints_command(few_poses / "whole", "--images", "64"))
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "joint_loss", interrupted_after(3, pretrain.joint_loss))
        pretrain.main(joints_command(few_poses / "halved", "--images", "64"))
    pretrain.main(joints_command(few_poses / "halved", "--images", "64"))
    weights = [
        torch.load(few_poses / name / "base" / "basemodel.pt", weights_only=True)["model"]
        for name in ("whole", "halved")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], msg=name)


def interrupted_after(count: int, function):
    calls = iter(range(count))

    def call(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return function(*arguments)

    return call


def test_motion_capture_is_trained_on_where_it_is_and_some_of_its_clips_are_kept_for_validation(few_poses):
    made, _ = training_poses(0, config.MOCAP_POSES)
    clips = np.repeat([f"clip{number:02d}" for number in range(16)], 10)
    recorded = np.repeat(np.arange(16), 10)[:, None, None] * 0.05 + np.zeros((160, 24, 3))
    np.savez(config.MOCAP_POSES, poses=recorded.astype(np.float16), clip=clips)
    trained_on, held_out = training_poses(0, config.MOCAP_POSES)
    assert len(held_out) == 20 and np.unique(held_out.round(2)).tolist() == pytest.approx([0, 0.4])
    trained = set(np.unique(np.abs(trained_on[:280]).round(2)).tolist())
    assert not trained & {0.4} and len(trained) == 14
    assert len(trained_on) == 280 + min(140, len(made))


def test_joints_are_validated_on_rendered_footage_where_it_is(few_poses):
    folder = few_poses / "detections"
    folder.mkdir()
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-0.5, 0.5, (5, 49, 3)).astype(np.float32)
    keypoints[..., 2] = 1
    np.savez(folder / "1.npz", keypoints_2d=keypoints, joints=rng.normal(0, 0.3, (5, 49, 3)))
    pretrain.main(joints_command(few_poses, "--images", "16"))
    assert all(float(row["target_mpjpe_mm"]) > 0 for row in read_log(few_poses))


def test_flags_of_pictures_are_refused_for_joints(few_poses):
    with pytest.raises(UserError, match=r"--depth is not for --source joints, which has no pictures"):
        pretrain.main(joints_command(few_poses, "--depth", "50"))


def test_image_and_joints_are_trained_together_from_both_weights(few_poses, world, arguments):
    pretrain.main([*arguments, "--images", "4"])
    base = few_poses / "base"
    image = base.rename(few_poses / "image") / "basemodel.pt"
    pretrain.main(joints_command(few_poses, "--images", "16"))
    joints = base.rename(few_poses / "joints") / "basemodel.pt"
    pretrain.main([*arguments, "--images", "4", "--model_file", str(image), "--joints_file", str(joints)])
    network = load_hmr(world.stream.assets.mean_params, base / "basemodel.pt")
    assert network.inputs == ("image", "keypoints_2d")
    assert [row["images"] for row in read_log(few_poses)] == ["4"]
    with pytest.raises(UserError, match=r"--joints_file .*basemodel\.pt is given image and keypoints_2d"):
        pretrain.main([*arguments, "--name", "other", "--joints_file", str(base / "basemodel.pt")])
