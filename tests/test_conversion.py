"""Converters on damaged, missing and repaired files, in parallel, resumed and looked at; MPI-INF-3DHP and #PH."""

import copy
import csv
import functools
import logging
import os
import pickle
import re
import shutil
from pathlib import Path

import conftest
import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import torch
import toys
from PIL import Image

import boa
import process_data
import streams
from datasets import mpi_inf_3dhp as stream_3dhp
from datasets import pw3d as stream_3dpw
from models.smpl import load_bodies
from utils.data_preprocess import conversion, mpi_inf_3dhp, pw3d
from utils.data_preprocess.conversion import Settings
from utils.errors import UserError
from utils.evaluation import score_3dhp, score_3dpw, score_3dpw_ph
from utils.image import image_size, read_rgb
from utils.joints import COMMON17, H36M17, HP3D17, HP3D28, SPIN24, rows

SEQUENCES_3DPW = {"downtown_bar_00": "mf", "downtown_bus_00": "f", "flat_guitar_01": "m"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Raw data sets that a test may damage if it repairs them."""
    folder = tmp_path_factory.mktemp("raw")
    toys.write_3dpw(folder / "3DPW", SEQUENCES_3DPW)
    toys.write_3dhp(folder / "MPI_INF_3DHP")
    toys.write_3dhp_train(folder / "MPI_INF_3DHP", ("S1/Seq1", "S1/Seq2", "S2/Seq1"), frames=11)
    return folder


@pytest.fixture
def converters(raw, bodies, tmp_path):
    """Data set -> what converts it, how many sequences it has, and the file or folder that it makes."""
    hp3d = raw / "MPI_INF_3DHP"
    return {
        "3dpw": (lambda: pw3d.convert(raw / "3DPW", tmp_path / "3dpw", bodies), 3, tmp_path / "3dpw"),
        "test": (lambda: mpi_inf_3dhp.convert_test(hp3d, tmp_path / "test.npz"), 6, tmp_path / "test.npz"),
        "train": (lambda: mpi_inf_3dhp.convert_train(hp3d, tmp_path / "train.npz"), 3, tmp_path / "train.npz"),
    }


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change_h5(name, change):
    def damage(file: Path) -> None:
        with h5py.File(file, "a") as content:
            array = change(content[name][()])
            del content[name]
            if array is not None:
                content[name] = array

    return damage


def change_mat(name, change):
    def damage(file: Path) -> None:
        content = {key: value for key, value in scipy.io.loadmat(file).items() if not key.startswith("_")}
        cameras = content.pop(name)
        if change:
            cameras[2, 0] = change(cameras[2, 0])
            content[name] = cameras
        scipy.io.savemat(file, content)

    return damage


def change_pickle(name, change):
    def damage(file: Path) -> None:
        content = pickle.loads(file.read_bytes())
        value = content.pop(name)
        if change:
            content[name] = [change(array) for array in value]
        file.write_bytes(pickle.dumps(content, protocol=2))

    return damage


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[0] = np.nan
    return array


def gone(file: Path) -> None:
    file.unlink()


def emptied(file: Path) -> None:
    file.write_bytes(b"")


PICKLE, TEST_MAT, TRAIN_MAT = (
    "3DPW/sequenceFiles/test/downtown_bus_00.pkl",
    "MPI_INF_3DHP/mpi_inf_3dhp_test_set/TS2/annot_data.mat",
    "MPI_INF_3DHP/S1/Seq2/annot.mat",
)
IMAGE = "MPI_INF_3DHP/mpi_inf_3dhp_test_set/TS2/imageSequence/img_000003.jpg"
VIDEO = "MPI_INF_3DHP/S1/Seq2/imageSequence/video_4.avi"
DAMAGES = {
    "3dpw pickle truncated": ("3dpw", PICKLE, cut, "bus_00.pkl cannot be read safely"),
    "3dpw pickle empty": ("3dpw", PICKLE, emptied, "bus_00.pkl cannot be read safely"),
    "3dpw without a variable": ("3dpw", PICKLE, change_pickle("trans", None), "bus_00.pkl lacks trans"),
    "3dpw of another shape": (
        *("3dpw", PICKLE, change_pickle("poses", lambda a: a[:, :69])),
        "poses has shape (5, 69) where (5, 72) is needed",
    ),
    "3dpw with other joints": (
        *("3dpw", PICKLE, change_pickle("poses2d", lambda a: a[:, :, :17])),
        "poses2d has shape (5, 3, 17) where (5, 3, 18) is needed",
    ),
    "3dpw with nan": (
        "3dpw",
        PICKLE,
        change_pickle("poses", with_nan),
        "is not finite in 1 frames, the first is image_00000",
    ),
    "3dpw image missing": (
        "3dpw",
        "3DPW/imageFiles/downtown_bus_00/image_00002.jpg",
        gone,
        "image_00002.jpg is missing",
    ),
    "3dhp file missing": ("test", TEST_MAT, gone, "annot_data.mat is missing"),
    "3dhp file truncated": ("test", TEST_MAT, cut, "annot_data.mat cannot be read"),
    "3dhp file empty": ("test", TEST_MAT, emptied, "annot_data.mat cannot be read"),
    "3dhp without a variable": ("test", TEST_MAT, change_h5("annot2", lambda a: None), "annot_data.mat cannot be read"),
    "3dhp of another shape": (
        *("test", TEST_MAT, change_h5("annot3", lambda a: a[..., :2])),
        "annot3 has shape (4, 1, 17, 2) where (4, 1, 17, 3) is needed",
    ),
    "3dhp with other joints": (
        *("test", TEST_MAT, change_h5("annot2", lambda a: a[:, :, :16])),
        "annot2 has shape (4, 1, 16, 2) where (4, 1, 17, 2) is needed",
    ),
    "3dhp with fewer marks": (
        *("test", TEST_MAT, change_h5("valid_frame", lambda a: a[:3])),
        "valid_frame has 3 values for 4 frames",
    ),
    "3dhp with nan": ("test", TEST_MAT, change_h5("annot3", with_nan), "annot_data.mat: S is not finite in 1 frames"),
    "3dhp with nan in 2D": ("test", TEST_MAT, change_h5("annot2", with_nan), "center is not finite in 1 frames"),
    "3dhp activity unknown": (
        *("test", TEST_MAT, change_h5("activity_annotation", lambda a: a + 100)),
        "activity_annotation has values other than 1 to 7",
    ),
    "3dhp image missing": ("test", IMAGE, gone, "img_000003.jpg is missing"),
    "3dhp image truncated": ("test", IMAGE, cut, "img_000003.jpg is no readable image"),
    "3dhp image empty": ("test", IMAGE, emptied, "img_000003.jpg is no readable image"),
    "3dhp train file missing": ("train", TRAIN_MAT, gone, "annot.mat is missing"),
    "3dhp train file truncated": ("train", TRAIN_MAT, cut, "annot.mat cannot be read"),
    "3dhp train file empty": ("train", TRAIN_MAT, emptied, "annot.mat cannot be read"),
    "3dhp train without a variable": (
        "train",
        TRAIN_MAT,
        change_mat("annot3", None),
        "annot.mat cannot be read ('annot3')",
    ),
    "3dhp train of another shape": (
        *("train", TRAIN_MAT, change_mat("annot2", lambda a: a[:-1])),
        "annot.mat cannot be read",
    ),
    "3dhp train with nan": (
        "train",
        TRAIN_MAT,
        change_mat("annot3", with_nan),
        "annot.mat: S is not finite in 1 frames",
    ),
    "3dhp video missing": ("train", VIDEO, gone, "video_4.avi is missing"),
    "3dhp video truncated": ("train", VIDEO, cut, "video_4.avi "),
    "3dhp video empty": ("train", VIDEO, emptied, "video_4.avi cannot be decoded"),
    "3dhp video too short": (
        *("train", VIDEO, lambda file: toys.write_video(file, 9)),
        "video_4.avi ends after 9 of 11 annotated frames",
    ),
}


def all_cameras(change):
    """Change the joints of every camera of a training annotation."""

    def damage(file: Path) -> None:
        content = {key: value for key, value in scipy.io.loadmat(file).items() if not key.startswith("_")}
        for camera in range(14):
            content["annot2"][camera, 0] = change(content["annot2"][camera, 0])
        scipy.io.savemat(file, content)

    return damage


DAMAGES["3dhp train with other joints"] = (
    *("train", TRAIN_MAT, all_cameras(lambda a: a[:, :54])),
    "annot2 has (11, 54) per camera where (11, 56) is needed",
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_the_others_are_converted_and_after_repair_only_what_was_missing(
    raw, converters, damage, caplog
):
    kind, name, spoil, message = DAMAGES[damage]
    convert, count, output = converters[kind]
    for images in raw.rglob("imageFrames"):
        shutil.rmtree(images)
    file = raw / name
    whole = file.read_bytes()
    spoil(file)
    try:
        with pytest.raises(UserError, match=f"1 of {count} sequences could not be converted"):
            convert()
    finally:
        file.write_bytes(whole)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == 1
    assert message in lines[0]
    assert re.search("download .* again|check the folder", lines[0])
    assert "\n" not in lines[0]
    parts = output if kind == "3dpw" else output.parent / "parts" / output.stem
    before = {part: part.stat().st_mtime_ns for part in parts.glob("*.npz")}
    assert len(before) == count - 1
    assert not output.is_file()
    convert()
    after = {part: part.stat().st_mtime_ns for part in parts.glob("*.npz")}
    assert len(after) == count
    assert before.items() < after.items()
    assert not list(parts.glob(".*"))


def test_the_exit_code_after_a_failure_is_2_and_the_command_can_be_given_again(tmp_path):
    toys.write_3dhp(tmp_path / "MPI_INF_3DHP")
    image = tmp_path / "MPI_INF_3DHP/mpi_inf_3dhp_test_set/TS5/imageSequence/img_000001.jpg"
    image.rename(tmp_path / "away.jpg")
    command = ("process_data.py", "--dataset", "3dhp", "--workers", "2")
    result = conftest.run(*command, env=toys.environment(tmp_path))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "TS5: " in result.stderr
    assert "img_000001.jpg is missing" in result.stderr
    assert "5 of 6 sequences converted, 0 of them before" in result.stderr
    (tmp_path / "away.jpg").rename(image)
    result = conftest.run(*command, env=toys.environment(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "6 of 6 sequences converted, 5 of them before" in result.stderr
    result = conftest.run(*command, env=toys.environment(tmp_path))
    assert "mpi_inf_3dhp_test.npz is complete: 12 frames; --overwrite makes it again" in result.stderr


def arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as npz:
        return {name: npz[name] for name in npz.files}


def test_several_processes_make_the_same_file(raw, tmp_path):
    root = raw / "MPI_INF_3DHP"
    mpi_inf_3dhp.convert_test(root, tmp_path / "one.npz")
    mpi_inf_3dhp.convert_test(root, tmp_path / "two.npz", Settings(workers=2))
    one, two = arrays(tmp_path / "one.npz"), arrays(tmp_path / "two.npz")
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


def test_3dpw_is_converted_by_several_processes_too(raw, bodies, tmp_path):
    joints = {gender: bodies[gender].joints_only() for gender in ("male", "female")}
    for workers in (1, 2):
        pw3d.convert(raw / "3DPW", tmp_path / str(workers), joints, settings=Settings(workers))
    for name in SEQUENCES_3DPW:
        one, two = (arrays(tmp_path / str(workers) / f"{name}.npz") for workers in (1, 2))
        assert (one["imgname"] == two["imgname"]).all()
        np.testing.assert_allclose(one["smpl_j2d"], two["smpl_j2d"], rtol=1e-6)


def test_a_process_that_is_killed_is_said_in_one_line(tmp_path):
    task = conversion.Task("a", tmp_path / "a.npz", functools.partial(os._exit, 1), list)
    with pytest.raises(UserError, match=r"a process was killed, .* try again with fewer --workers"):
        conversion.run([task], "toys", Settings(workers=2))


def test_a_preview_of_no_frame_is_black(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(mpi_inf_3dhp, "_inside", lambda joints, sizes: np.zeros(len(joints), bool))
    mpi_inf_3dhp.convert_test(raw / "MPI_INF_3DHP", tmp_path / "test.npz", Settings(preview=True))
    assert not cv2.imread(str(tmp_path / "test.png")).any()


def test_what_another_setting_left_is_converted_again(raw, bodies, tmp_path):
    file = tmp_path / "downtown_bus_00.npz"
    for paper_compat in (True, False, True):
        pw3d.convert(raw / "3DPW", tmp_path, bodies, paper_compat)
        np.testing.assert_allclose(
            arrays(file)["smpl_j3d"][0, 8, 1] > 0.05, paper_compat
        )  # is 0.1 m of translation in?


def test_overwrite_converts_again(raw, tmp_path):
    root, part = raw / "MPI_INF_3DHP", tmp_path / "parts/test/TS1.npz"
    mpi_inf_3dhp.convert_test(root, tmp_path / "test.npz")
    first = part.stat().st_mtime_ns
    mpi_inf_3dhp.convert_test(root, tmp_path / "test.npz")
    assert part.stat().st_mtime_ns == first
    mpi_inf_3dhp.convert_test(root, tmp_path / "test.npz", Settings(overwrite=True))
    assert part.stat().st_mtime_ns != first


def test_a_damaged_part_is_made_again(raw, tmp_path):
    mpi_inf_3dhp.convert_test(raw / "MPI_INF_3DHP", tmp_path / "test.npz")
    whole = arrays(tmp_path / "test.npz")
    cut(tmp_path / "parts/test/TS4.npz")
    cut(tmp_path / "test.npz")
    mpi_inf_3dhp.convert_test(raw / "MPI_INF_3DHP", tmp_path / "test.npz")
    assert all((array == whole[name]).all() for name, array in arrays(tmp_path / "test.npz").items())


def test_a_joined_file_is_its_parts_one_after_the_other(tmp_path):
    rng = np.random.default_rng(0)
    parts = []
    for number, count in enumerate((3, 0, 5)):
        names = np.array([f"{'x' * (5 * number)}{row}" for row in range(count)], dtype=str)
        parts.append({"imgname": names, "S": rng.normal(size=(count, 24, 4)), "activity": np.arange(count)})
        np.savez(tmp_path / f"{number}.npz", **parts[-1])
    conversion.join([tmp_path / f"{number}.npz" for number in range(3)], tmp_path / "all.npz", {})
    joined = arrays(tmp_path / "all.npz")
    for name in joined:
        np.testing.assert_array_equal(joined[name], np.concatenate([part[name] for part in parts]))


def test_a_dry_run_lists_what_is_missing_and_writes_nothing(raw, bodies, tmp_path, caplog):
    shutil.copytree(raw / "MPI_INF_3DHP", tmp_path / "3dhp")
    gone(tmp_path / "3dhp/mpi_inf_3dhp_test_set/TS2/imageSequence/img_000004.jpg")
    cut(tmp_path / "3dhp/mpi_inf_3dhp_test_set/TS3/annot_data.mat")
    gone(tmp_path / "3dhp/S1/Seq2/imageSequence/video_8.avi")
    emptied(tmp_path / "3dhp/S2/Seq1/annot.mat")
    dry = Settings(dry_run=True)
    caplog.set_level(logging.INFO)
    with pytest.raises(UserError, match="2 things are missing or wrong in 6 sequences"):
        mpi_inf_3dhp.convert_test(tmp_path / "3dhp", tmp_path / "out/test.npz", dry)
    with pytest.raises(UserError, match="2 things are missing or wrong in 3 sequences"):
        mpi_inf_3dhp.convert_train(tmp_path / "3dhp", tmp_path / "out/train.npz", settings=dry)
    for line in ("TS2: .*img_000004.jpg is missing", "TS3: .*annot_data.mat cannot be read"):
        assert [message for message in caplog.messages if re.search(line, message)], line
    assert any("video_8.avi is missing" in message for message in caplog.messages)
    assert any("annot.mat is empty" in message for message in caplog.messages)
    pw3d.convert(raw / "3DPW", tmp_path / "out", bodies, settings=dry)
    assert "3DPW #PS: nothing is missing in 3 sequences" in caplog.messages
    assert not (tmp_path / "out").exists()


def test_a_preview_shows_boxes_and_joints_where_they_are(raw, bodies, tmp_path):
    mpi_inf_3dhp.convert_test(raw / "MPI_INF_3DHP", tmp_path / "test.npz", Settings(preview=True))
    sheet = cv2.imread(str(tmp_path / "test.png"))
    assert sheet.shape == (1080, 1440, 3)
    with np.load(tmp_path / "test.npz") as npz:
        x, y = (npz["part"][0, list(SPIN24).index("Right Wrist"), :2] * 360 / 320).astype(int)
    assert sheet[y, x, 2] > 200  # red
    assert sheet[y, x, 0] < 100
    pw3d.convert(raw / "3DPW", tmp_path / "3dpw", bodies, settings=Settings(preview=True))
    assert cv2.imread(str(tmp_path / "3dpw/preview.png")).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--dataset smpl --workers 2", "--workers is not for --dataset smpl"),
        ("--dataset 3dpw --split train", "--split is not for --dataset 3dpw"),
        ("--dataset 3dhp --protocol ph", "--protocol is not for --dataset 3dhp"),
        ("--dataset synthetic --paper_compat", "--paper_compat is not for --dataset synthetic"),
        ("--dataset 3dpw --protocol ph --paper_compat", "--paper_compat is not for --protocol ph"),
        ("--dataset 3dhp --workers 0", "must be at least 1"),
    ],
)
def test_a_flag_that_does_nothing_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        process_data.main(arguments.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_data_sets_are_named_with_the_remedy(tmp_path, bodies):
    with pytest.raises(UserError, match=r"holds no S1/Seq1.*set MPI_INF_3DHP_ROOT in config\.py"):
        mpi_inf_3dhp.convert_train(tmp_path, tmp_path / "train.npz")
    with pytest.raises(UserError, match="6 of 6 sequences could not be converted"):
        mpi_inf_3dhp.convert_test(tmp_path, tmp_path / "test.npz")
    with pytest.raises(UserError, match=r"sequenceFiles/test is missing; .*set PW3D_ROOT in config\.py"):
        pw3d.convert(tmp_path, tmp_path / "out", bodies)


def test_the_size_of_an_image_is_read_without_decoding_it(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    files = [tmp_path / "a.jpg", tmp_path / "b.png"]
    for file in files:
        cv2.imwrite(str(file), pixels)
    png_named_jpg = tmp_path / "c.jpg"
    png_named_jpg.write_bytes(files[1].read_bytes())
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert [image_size(file) for file in (*files, png_named_jpg)] == [(50, 30)] * 3
    monkeypatch.undo()
    with_tail = tmp_path / "d.jpg"
    with_tail.write_bytes(files[0].read_bytes() + b"\0" * 500)
    assert image_size(with_tail) == (50, 30)
    cut(files[0])
    with pytest.raises(UserError, match=r"a\.jpg is no readable image"):
        image_size(files[0])


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


def change_sequences(root: Path, **changes) -> None:
    """Change arrays of every person of every raw sequence of 3DPW."""
    for file in (root / "sequenceFiles/test").glob("*.pkl"):
        raw = pickle.loads(file.read_bytes())
        for name, change in changes.items():
            raw[name] = [change(array) for array in raw[name]]
        file.write_bytes(pickle.dumps(raw, protocol=2))


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


def test_an_image_in_a_contact_sheet_that_is_missing_is_named(tmp_path):
    columns = {"imgname": np.array(["a.jpg"]), "center": np.zeros((1, 2)), "scale": np.ones(1)}
    with pytest.raises(UserError, match=r"a\.jpg is missing"):
        conversion.contact_sheet(tmp_path / "x.png", tmp_path, {**columns, "part": np.zeros((1, 24, 3))})


def test_read_rgb_and_the_size_agree(raw):
    file = raw / IMAGE
    height, width = read_rgb(file).shape[:2]
    assert image_size(file) == (width, height) == toys.SIZE


def test_bodies_with_only_the_vertices_of_joints_can_be_fitted_beforehand(world, raw, tmp_path):
    bodies = load_bodies(world.stream.assets.smpl_model_dir, world.stream.assets.regressor_extra)
    fits = pw3d.neutral_fits(bodies)
    small = {gender: bodies[gender].joints_only() for gender in ("male", "female")}
    pw3d.convert(raw / "3DPW", tmp_path, small, fits=fits)
    out = arrays(tmp_path / "downtown_bar_00.npz")
    for person, gender in enumerate(("male", "female")):
        row = out["person"].tolist().index(person)
        np.testing.assert_allclose(out["shape_neutral"][row], fits[gender](out["shape"][row]))
