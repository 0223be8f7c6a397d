"""MPI-INF-3DHP: what the converter writes, the test set as a stream, its scores."""

import csv
import logging
import shutil

import cv2
import numpy as np
import pytest
import torch
import toys
from damage import arrays, gone

import boa
import streams
from datasets import mpi_inf_3dhp as stream_3dhp
from utils.data_preprocess import mpi_inf_3dhp
from utils.data_preprocess.conversion import Settings
from utils.errors import UserError
from utils.evaluation import score_3dhp
from utils.joints import COMMON17, H36M17, HP3D17, HP3D28, SPIN24, rows


@pytest.fixture(scope="module")
def test_set(raw, tmp_path_factory):
    file = tmp_path_factory.mktemp("converted") / "mpi_inf_3dhp_test.npz"
    mpi_inf_3dhp.convert_test(raw / "MPI_INF_3DHP", file)
    return file


def test_frames_of_3dhp_that_are_not_valid_or_reach_outside_are_left_out(test_set, raw, caplog):
    out = arrays(test_set)
    assert out["imgname"].tolist() == [
        f"mpi_inf_3dhp_test_set/TS{number}/imageSequence/img_{frame:06d}.jpg"
        for number in range(1, 7)
        for frame in (1, 4)
    ]
    caplog.set_level(logging.INFO)
    mpi_inf_3dhp.convert_test(raw / "MPI_INF_3DHP", test_set.with_name("again.npz"))
    assert "        6 frames dropped: marked as not valid" in caplog.messages
    assert "        6 frames dropped: joints outside of the image" in caplog.messages
    assert "       12 frames kept" in caplog.messages


@pytest.mark.parametrize("skeleton", [HP3D17, HP3D28])
def test_joints_of_3dhp_land_where_spin_has_them(raw, test_set, tmp_path, skeleton):
    # the rows in the data set's own order, as its documentation lists them: the left leg is on the left
    order = (
        "14 11 12 13 8 9 10 15 1 16 0 5 6 7 2 3 4"
        if skeleton is HP3D17
        else "4 18 19 20 23 24 25 3 5 6 7 9 10 11 14 15 16"
    )
    raw_rows = [int(row) for row in order.split()]
    slots = [14, 3, 4, 5, 2, 1, 0, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6]
    if skeleton is HP3D17:
        out = arrays(test_set)
        first = np.stack([60 + 8 * np.arange(17), 200 - 4 * np.arange(17)], axis=1)
    else:
        mpi_inf_3dhp.convert_train(raw / "MPI_INF_3DHP", tmp_path / "train.npz")
        out = arrays(tmp_path / "train.npz")
        first = np.stack([900 + 10 * np.arange(28), np.full(28, 1000)], axis=1)
    away = np.array(raw_rows) - raw_rows[0]  # the pelvis is first; joints are 10, -20 and 5 mm apart
    np.testing.assert_allclose(out["S"][0, slots, :3], away[:, None] * [0.010, -0.020, 0.005], atol=1e-12)
    np.testing.assert_allclose(out["part"][0, slots, :2], first[raw_rows])
    unknown = [row for row in range(24) if row not in slots]
    for column in ("part", "S"):
        assert (out[column][:, slots, -1] == 1).all()
        assert not out[column][:, unknown].any()
    low, high = first[raw_rows].min(0), first[raw_rows].max(0)
    np.testing.assert_allclose(out["center"][0], (low + high) / 2)
    np.testing.assert_allclose(out["scale"][0], 1.2 * (high - low).max() / 200)


def test_every_tenth_training_frame_is_taken_and_its_image_is_that_of_its_number(tmp_path):
    toys.write_3dhp_train(tmp_path, frames=21)
    mpi_inf_3dhp.convert_train(tmp_path, tmp_path / "train.npz")
    names = arrays(tmp_path / "train.npz")["imgname"].tolist()
    expected = [(camera, frame) for camera in (0, 1, 2, 4, 5, 6, 7, 8) for frame in (1, 11, 21)]
    expected.remove((1, 1))  # a joint is outside
    assert names == [f"S1/Seq1/imageFrames/video_{camera}/frame_{frame:06d}.jpg" for camera, frame in expected]
    brightness = [cv2.imread(str(tmp_path / name)).mean() for name in names[:3]]
    np.testing.assert_allclose(brightness, [0, 100, 200], atol=4)
    assert len(list((tmp_path / "S1/Seq1/imageFrames").rglob("*.jpg"))) == len(names)


def test_spins_count_of_training_frames_runs_on_from_camera_to_camera_and_sequence_to_sequence(tmp_path):
    toys.write_3dhp_train(tmp_path, ("S1/Seq1", "S2/Seq2"), frames=4)
    mpi_inf_3dhp.convert_train(tmp_path, tmp_path / "train.npz", paper_compat=True)
    inside = [
        f"{name}/imageFrames/video_{camera}/frame_{frame:06d}.jpg"
        for name in ("S1/Seq1", "S2/Seq2")
        for camera in (0, 1, 2, 4, 5, 6, 7, 8)
        for frame in range(1, 5)
        if (camera, frame) != (1, 1)
    ]
    assert arrays(tmp_path / "train.npz")["imgname"].tolist() == inside[::10]


def test_images_that_are_there_are_not_extracted_again(tmp_path):
    toys.write_3dhp_train(tmp_path, frames=11)
    mpi_inf_3dhp.convert_train(tmp_path, tmp_path / "train.npz")
    shutil.rmtree(tmp_path / "parts")
    gone(tmp_path / "train.npz")
    for video in (tmp_path / "S1/Seq1/imageSequence").iterdir():
        gone(video)
    mpi_inf_3dhp.convert_train(tmp_path, tmp_path / "train.npz")
    with pytest.raises(UserError):
        mpi_inf_3dhp.convert_train(tmp_path, tmp_path / "train.npz", settings=Settings(overwrite=True))


def test_a_training_sequence_that_is_downloaded_later_is_added(tmp_path, caplog):
    toys.write_3dhp_train(tmp_path, ("S3/Seq1",), frames=1)
    mpi_inf_3dhp.convert_train(tmp_path, tmp_path / "train.npz")
    assert "15 of 16 sequences are not in" in caplog.text
    toys.write_3dhp_train(tmp_path, ("S1/Seq1",), frames=1)
    mpi_inf_3dhp.convert_train(tmp_path, tmp_path / "train.npz")
    subjects = [name.split("/")[0] for name in arrays(tmp_path / "train.npz")["imgname"]]
    assert subjects == ["S1"] * 7 + ["S3"] * 7


def test_the_stream_of_3dhp_is_cut_between_sequences_and_its_target_is_the_annotation(test_set, raw):
    stream, missing = stream_3dhp.open_stream(raw / "MPI_INF_3DHP", test_set, "-")
    assert missing == []
    assert list(dict.fromkeys(stream.columns["sequence"])) == ["TS1", "TS2", "TS3", "TS4", "TS5", "TS6"]
    frame = stream[3]
    assert frame["activity"] == "Exercise"
    assert (frame["keypoints_2d"][:25] == 0)[:, 2].all()
    assert frame["keypoints_2d"][25:, 2].sum() == 17
    np.testing.assert_allclose(frame["joints_3d"], arrays(test_set)["S"][3], atol=1e-6)


def test_a_file_of_the_published_code_is_a_stream_too(test_set, raw, tmp_path, caplog):
    old = arrays(test_set)
    columns = {name: old[name][:4] for name in ("imgname", "center", "scale", "part", "S")}
    np.savez(tmp_path / "old.npz", **columns)
    stream, missing = stream_3dhp.open_stream(raw / "MPI_INF_3DHP", tmp_path / "old.npz", "-")
    assert missing == ["TS3", "TS4", "TS5", "TS6"]
    assert "4 of 6 sequences are not in" in caplog.text
    assert "activity" not in stream[0]


def test_the_seventeen_joints_of_3dhp_are_scored_around_the_pelvis(world, bodies):
    body = bodies["neutral"]
    regressor = torch.as_tensor(np.load(world.stream.assets.regressor_h36m), dtype=torch.float32)
    vertices = body.from_axis_angle(0.2 * torch.randn(2, 72), torch.randn(2, 10)).vertices
    joints = (regressor @ vertices).double().numpy()
    annotated = np.zeros((2, 24, 4))
    annotated[:, rows(H36M17, SPIN24), :3] = joints + [1.0, 2.0, 3.0]  # moved as a whole: no error
    annotated[0, list(SPIN24).index("Left Knee"), 0] += 0.17

    class Predicted:
        keypoints_2d = torch.zeros(2, 49, 2)

    Predicted.vertices = vertices
    frame = {"joints_3d": torch.as_tensor(annotated), "keypoints_2d": torch.tensor([0.3, 0.4, 1.0]).repeat(2, 49, 1)}
    predicted, given, scores = score_3dhp(Predicted, frame, {}, regressor)
    np.testing.assert_allclose(scores["reprojection"], 0.25, rtol=1e-6)  # 0.5 of half a crop
    assert predicted.shape == given.shape == (2, 17, 3)
    np.testing.assert_allclose(scores["mpjpe"], [170 / 17, 0], atol=1e-3)
    assert set(scores) == {"mpjpe", "pampjpe", "pck", "auc", "reprojection"}
    assert COMMON17.index("Left Knee") == abs(predicted - given).sum(2)[0].argmax()


def test_adapting_to_3dhp_reports_each_sequence_and_each_activity(raw, test_set, world, monkeypatch, tmp_path):
    target = streams.HP3D._replace(images=raw / "MPI_INF_3DHP", annotations=test_set)
    stream = streams.STREAMS["mpi-inf-3dhp"]._replace(
        target=target, source=world.stream.source, assets=world.stream.assets
    )
    monkeypatch.setitem(streams.STREAMS, "mpi-inf-3dhp", stream)
    boa.main(["--name", "x", "--expdir", str(tmp_path), "--dataset_name", "mpi-inf-3dhp"])
    summary = toys.read_summary(tmp_path / "x")
    assert summary["protocol"] == "MPI-INF-3DHP test (17 joints)"
    assert summary["frames"] == 12
    rows = list(csv.DictReader((tmp_path / "x/scores.csv").open()))
    assert rows[2]["sequence"] == "TS2"
    assert rows[2]["activity"] == "Exercise"
    for group, name in (("sequence", "TS2"), ("activity", "Exercise")):
        numbers = summary[f"by_{group}"][name]
        assert numbers["frames"] == 2
        for score in ("mpjpe_mm", "pampjpe_mm", "pck", "auc"):
            mean = np.mean([float(row[score]) for row in rows if row[group] == name])
            assert numbers[score] == pytest.approx(mean, abs=1e-3)
    text = (tmp_path / "x/performance.txt").read_text()
    for line in ("TS6 ", "Standing/Walking ", "Sports ", "PCK@150 [share]: "):
        assert line in text
    assert "PVE" not in text
