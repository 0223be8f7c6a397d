"""What all converters share: several processes, what is there already, joining, a dry run, previews, flags."""

import functools
import logging
import os
import re
import shutil

import cv2
import numpy as np
import pytest
import toys
from conftest import SEQUENCES_3DPW
from damage import arrays, cut, emptied, gone
from PIL import Image

import process_data
from utils.data_preprocess import conversion, mpi_inf_3dhp, pw3d
from utils.data_preprocess.conversion import Settings
from utils.errors import UserError
from utils.image import image_size, read_rgb
from utils.joints import SPIN24


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


def test_an_image_in_a_contact_sheet_that_is_missing_is_named(tmp_path):
    columns = {"imgname": np.array(["a.jpg"]), "center": np.zeros((1, 2)), "scale": np.ones(1)}
    with pytest.raises(UserError, match=r"a\.jpg is missing"):
        conversion.contact_sheet(tmp_path / "x.png", tmp_path, {**columns, "part": np.zeros((1, 24, 3))})


def test_read_rgb_and_the_size_agree(raw):
    file = raw / "MPI_INF_3DHP/mpi_inf_3dhp_test_set/TS2/imageSequence/img_000003.jpg"
    height, width = read_rgb(file).shape[:2]
    assert image_size(file) == (width, height) == toys.SIZE
