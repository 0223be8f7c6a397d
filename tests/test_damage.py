"""Damaged and missing files of 3DPW and MPI-INF-3DHP: named in one line, and converted once they are repaired."""

import logging
import pickle
import re
import shutil
from pathlib import Path

import conftest
import cv2
import numpy as np
import pytest
import toys
from damage import all_cameras, arrays, change_h5, change_mat, change_pickle, cut, emptied, gone, with_nan

from utils.data_preprocess import mpi_inf_3dhp, pw3d


@pytest.fixture
def converters(raw, bodies, tmp_path):
    """Data set -> what converts it, how many sequences it has, and the file or folder that it makes."""
    hp3d = raw / "MPI_INF_3DHP"
    return {
        "3dpw": (lambda: pw3d.convert(raw / "3DPW", tmp_path / "3dpw", bodies), 3, tmp_path / "3dpw"),
        "test": (lambda: mpi_inf_3dhp.convert_test(hp3d, tmp_path / "test.npz"), 6, tmp_path / "test.npz"),
        "train": (lambda: mpi_inf_3dhp.convert_train(hp3d, tmp_path / "train.npz"), 3, tmp_path / "train.npz"),
    }


PICKLE, TEST_MAT, TRAIN_MAT = (
    "3DPW/sequenceFiles/test/downtown_bus_00.pkl",
    "MPI_INF_3DHP/mpi_inf_3dhp_test_set/TS2/annot_data.mat",
    "MPI_INF_3DHP/S1/Seq2/annot.mat",
)
IMAGE = "MPI_INF_3DHP/mpi_inf_3dhp_test_set/TS2/imageSequence/img_000003.jpg"
VIDEO = "MPI_INF_3DHP/S1/Seq2/imageSequence/video_4.avi"


def half(file: Path) -> None:
    image = cv2.imread(str(file))
    cv2.imwrite(str(file), image[::2, ::2])


def rename(file: Path, name: str) -> None:
    file.write_bytes(pickle.dumps({**pickle.loads(file.read_bytes()), "sequence": name}))


MISSING = {"3dpw": "downtown_bus_00", "test": "TS2", "train": "S1_Seq2"}
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
    "3dpw with infinity in 2D": (
        *("3dpw", PICKLE, change_pickle("poses2d", lambda a: np.where(a == a[2, 0, 0], np.inf, a))),
        "poses2d is not finite in 1 frames, the first is image_00002",
    ),
    "3dpw with another sequence's name": (
        *("3dpw", PICKLE, lambda file: rename(file, "../downtown_bar_00")),
        "sequence is '../downtown_bar_00', which is no name of a folder",
    ),
    "3dpw with smaller images": (
        *("3dpw", "3DPW/imageFiles/downtown_bus_00/image_00000.jpg", half),
        "image_00000.jpg is 160 x 120 px, its camera's image about 320 x 240",
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
        missing = convert()
    finally:
        file.write_bytes(whole)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == 1
    assert message in lines[0]
    assert re.search("download .* again|check the folder", lines[0])
    assert "\n" not in lines[0]
    parts = output if kind == "3dpw" else output.parent / "parts" / output.stem
    before = {part: part.stat().st_mtime_ns for part in parts.glob("*.npz")}
    # one of eight videos is no reason to do without the other seven
    in_part = file.suffix == ".avi"
    assert missing == ["S1_Seq2_video_4" if in_part else MISSING[kind]]
    assert len(before) == count - (not in_part)
    assert kind == "3dpw" or arrays(output)["missing"].tolist() == missing
    assert convert() == []
    after = {part: part.stat().st_mtime_ns for part in parts.glob("*.npz")}
    assert len(after) == count
    assert sum(after[part] == time for part, time in before.items()) == count - 1
    assert not list(parts.glob(".*"))
    assert kind == "3dpw" or "missing" not in arrays(output)


def test_the_exit_code_after_a_failure_is_3_and_the_command_can_be_given_again(tmp_path):
    toys.write_3dhp(tmp_path / "MPI_INF_3DHP")
    image = tmp_path / "MPI_INF_3DHP/mpi_inf_3dhp_test_set/TS5/imageSequence/img_000001.jpg"
    image.rename(tmp_path / "away.jpg")
    command = ("process_data.py", "--dataset", "3dhp", "--workers", "2")
    result = conftest.run(*command, env=toys.environment(tmp_path))
    assert result.returncode == 3
    assert "Traceback" not in result.stderr
    assert "TS5: " in result.stderr
    assert "img_000001.jpg is missing" in result.stderr
    assert "5 of 6 sequences converted, 0 of them before" in result.stderr
    assert "MPI-INF-3DHP test: done without TS5 (see above)" in result.stderr
    result = conftest.run(*command, "--strict", env=toys.environment(tmp_path))
    assert result.returncode == 2
    assert "1 of 6 sequences could not be converted (see above)" in result.stderr
    (tmp_path / "away.jpg").rename(image)
    result = conftest.run(*command, env=toys.environment(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "6 of 6 sequences converted, 5 of them before" in result.stderr
    result = conftest.run(*command, env=toys.environment(tmp_path))
    assert "mpi_inf_3dhp_test.npz is complete: 12 frames; --overwrite makes it again" in result.stderr


def test_names_that_are_byte_strings_are_read(tmp_path, bodies):
    toys.write_3dpw(tmp_path, {"downtown_bar_00": "mf"})
    pw3d.convert(tmp_path, tmp_path / "text", bodies)
    file = tmp_path / "sequenceFiles/test/downtown_bar_00.pkl"
    raw = pickle.loads(file.read_bytes())
    raw |= {"sequence": raw["sequence"].encode(), "genders": [gender.encode() for gender in raw["genders"]]}
    file.write_bytes(pickle.dumps({key.encode(): value for key, value in raw.items()}, protocol=4))
    pw3d.convert(tmp_path, tmp_path / "bytes", bodies)
    text, read = (arrays(tmp_path / kind / "downtown_bar_00.npz") for kind in ("text", "bytes"))
    assert all((text[name] == read[name]).all() for name in text)


def test_images_smaller_than_the_annotation_s_are_said(tmp_path, caplog):
    toys.write_3dhp(tmp_path, sequences=["TS1"])
    for image in (tmp_path / "mpi_inf_3dhp_test_set/TS1/imageSequence").iterdir():
        cv2.imwrite(str(image), np.zeros((60, 80, 3), np.uint8))
    mpi_inf_3dhp.convert_test(tmp_path, tmp_path / "test.npz")
    assert "TS1: joints of 3 of 3 frames are outside of the images (80 x 60 px)" in caplog.text


def test_a_video_of_another_size_than_the_annotation_s_is_said(tmp_path, caplog):
    toys.write_3dhp_train(tmp_path, frames=1)
    mpi_inf_3dhp.convert_train(tmp_path, tmp_path / "train.npz")
    assert "S1/Seq1: video_0.avi is 64 x 64 px, its joints are for 2048 x 2048" in caplog.text
