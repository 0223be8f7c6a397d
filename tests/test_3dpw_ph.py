"""Protocol #PH of 3DPW: its frames, boxes and neutral shapes, and what is compared with what."""

import copy
from pathlib import Path

import conftest
import numpy as np
import pytest
import torch
import toys
from damage import arrays, change_sequences

from datasets import pw3d as stream_3dpw
from models.smpl import load_bodies
from utils.data_preprocess import pw3d
from utils.evaluation import score_3dpw, score_3dpw_ph


def convert_ph(root: Path, output: Path, bodies: dict) -> dict[str, np.ndarray]:
    pw3d.convert(root, output, bodies, fits=pw3d.neutral_fits(bodies))
    return arrays(next(output.glob("*.npz")))


def test_ph_takes_frames_with_more_than_six_visible_joints(tmp_path, bodies):
    toys.write_3dpw(tmp_path, {"downtown_cafe_01": "f"}, frames=5)

    def visible(poses2d):
        confidence = np.zeros((len(poses2d), 18))
        confidence[:, [1, 2, 3, 4, 5, 6, 7]] = 0.11  # neck and arms
        confidence[2, 7] = 0.1
        confidence[3, [7, 10, 13]] = 0, 0.9, 0.9  # ankles are not among those that count
        poses2d[:, 2] = confidence
        return poses2d

    change_sequences(tmp_path, poses2d=visible)
    out = convert_ph(tmp_path, tmp_path / "ph", bodies)
    frames = [int(name[-9:-4]) for name in out["imgname"]]
    assert frames == [0, 4, 5]  # frame 1 has no camera


def test_a_person_whom_ph_leaves_out_is_no_obstacle_for_the_other(tmp_path, bodies):
    toys.write_3dpw(tmp_path, {"downtown_bar_00": "mf"}, frames=5)
    confidences = iter((0.0, 0.9))

    def set_confidence(poses2d):
        poses2d[:, 2] = next(confidences)
        return poses2d

    change_sequences(tmp_path, poses2d=set_confidence)
    out = convert_ph(tmp_path, tmp_path / "ph", bodies)
    assert out["person"].tolist() == [1] * 5
    assert out["smpl_j2d"].shape == (5, 49, 3)


def test_phs_boxes_have_a_diagonal_of_150_px_in_the_crop_and_follow_the_detections(tmp_path, bodies):
    frames = 61
    toys.write_3dpw(tmp_path, {"downtown_bar_00": "m"}, frames=frames - 1)
    t = np.arange(frames)

    def moving(poses2d):
        poses2d[:, 2] = 0.0
        poses2d[:, 2, :14] = 0.9
        poses2d[:, 0, :14] = 100 + t[:, None] + np.where(np.arange(14) % 2, 30, 0)
        poses2d[:, 1, :14] = 80 - 0.5 * t[:, None] + np.where(np.arange(14) % 2, 40, 0)
        poses2d[28:32, 2] = 0  # unseen: interpolated, and left out
        poses2d[33, :2, 1] = 500  # one frame gone astray: the median holds
        return poses2d

    change_sequences(tmp_path, poses2d=moving)
    out = convert_ph(tmp_path, tmp_path / "ph", bodies)
    numbers = np.array([int(name[-9:-4]) for name in out["imgname"]])
    assert not {1, 28, 29, 30, 31} & set(numbers.tolist())
    middle = (numbers > 20) & (numbers < 41)
    expected = np.stack([115 + numbers, 100 - 0.5 * numbers], axis=1)
    np.testing.assert_allclose(out["center"][middle], expected[middle], atol=1.5)
    np.testing.assert_allclose(out["scale"][middle] * 200 * 150 / 224, 50, rtol=1e-6)


def test_the_neutral_shape_is_the_nearest_one(bodies):
    fits = pw3d.neutral_fits(bodies)
    neutral = bodies["neutral"]
    for gender in ("male", "female"):
        betas = np.random.default_rng(3).normal(size=10)
        fitted = torch.as_tensor(fits[gender](betas), dtype=torch.float32)[None].requires_grad_()
        own = bodies[gender].unposed(torch.as_tensor(betas, dtype=torch.float32)[None])
        squared = ((neutral.unposed(fitted) - own) ** 2).sum()
        gradient = torch.autograd.grad(squared, fitted)[0]
        assert abs(gradient).max() < 1e-3 * float((neutral.unposed(torch.zeros(1, 10)) - own).norm())
    same = pw3d.neutral_fits({name: neutral for name in ("neutral", "male", "female")})["male"]
    np.testing.assert_allclose(same(np.arange(10)), np.arange(10), atol=1e-4)


def test_ph_compares_joints_with_the_persons_own_body_and_meshes_with_the_neutral_one(world, bodies, tmp_path):
    toys.write_3dpw(tmp_path, {"flat_packBags_00": "f", "downtown_cafe_01": "m", "downtown_bar_00": "m"})
    change_sequences(tmp_path, poses2d=lambda array: array + [[0.0], [0.0], [0.5]])
    # a man whose shape the neutral body does not have
    man = copy.deepcopy(bodies["male"])
    man.v_template += 0.02 * torch.randn(man.v_template.shape, generator=torch.Generator().manual_seed(0))
    bodies = {**bodies, "male": man}
    convert_ph(tmp_path, tmp_path / "ph", bodies)
    stream, missing = stream_3dpw.open_ph(tmp_path, tmp_path / "ph", "-")
    sequences = list(dict.fromkeys(stream.columns["sequence"]))
    assert sequences == ["downtown_bar_00", "downtown_cafe_01", "flat_packBags_00"]
    assert len(missing) == 22
    frame = {
        name: torch.as_tensor(np.asarray(value))[None]
        for name, value in stream[0].items()
        if name in ("pose", "betas", "betas_neutral", "gender", "keypoints_2d")
    }
    regressor = torch.as_tensor(np.load(world.stream.assets.regressor_h36m), dtype=torch.float32)

    class Predicted:
        vertices = bodies["neutral"].from_axis_angle(frame["pose"], frame["betas_neutral"]).vertices
        betas = frame["betas_neutral"]
        keypoints_2d = torch.zeros(1, 49, 2)

    scores = score_3dpw_ph(Predicted, frame, bodies, regressor)[2]
    own = score_3dpw(Predicted, frame, bodies, regressor)[2]
    assert scores["pve"] == pytest.approx(0, abs=1e-3)
    assert scores["ume"] == pytest.approx(0, abs=1e-3)
    assert scores["mpjpe"] == own["mpjpe"] > 0.1
    assert own["pve"] > 0.1


def test_the_commands_of_ph_lead_to_scores(tmp_path):
    toys.write_assets(tmp_path / "data")
    toys.write_3dpw(tmp_path / "3DPW", {"flat_packBags_00": "f"})
    change_sequences(tmp_path / "3DPW", poses2d=lambda array: array + [[0.0], [0.0], [0.5]])
    commands = (
        ("process_data.py", "--dataset", "3dpw", "--protocol", "ph"),
        ("boa.py", "--name", "x", "--expdir", tmp_path, "--dataset_name", "3dpw-ph", "--method", "frozen"),
    )
    for command in commands:
        result = conftest.run(*command, env=toys.environment(tmp_path))
        assert result.returncode == 0, result.stderr
    summary = toys.read_summary(tmp_path / "x")
    assert summary["protocol"] == "3DPW test, #PH (14 joints)"
    assert summary["pve_mm"] > 0


def test_bodies_with_only_the_vertices_of_joints_can_be_fitted_beforehand(world, raw, tmp_path):
    bodies = load_bodies(world.stream.assets.smpl_model_dir, world.stream.assets.regressor_extra)
    fits = pw3d.neutral_fits(bodies)
    small = {gender: bodies[gender].joints_only() for gender in ("male", "female")}
    pw3d.convert(raw / "3DPW", tmp_path, small, fits=fits)
    out = arrays(tmp_path / "downtown_bar_00.npz")
    for person, gender in enumerate(("male", "female")):
        row = out["person"].tolist().index(person)
        np.testing.assert_allclose(out["shape_neutral"][row], fits[gender](out["shape"][row]))
