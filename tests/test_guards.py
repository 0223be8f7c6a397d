"""What watches over a run says when something is wrong, and changes nothing when nothing is."""

import shutil
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import toys

from utils.errors import UserError


def scores(folder) -> list[str]:
    """The numbers of scores.csv, without what is marked."""
    return [",".join(line.split(",")[4:]) for line in (folder / "scores.csv").read_text().splitlines()]


def test_a_guard_changes_no_number_of_a_run_in_which_nothing_is_wrong(command):
    without, watched = command("without", "--jump_limit", "0"), command("watched", "--revert_jumps")
    assert scores(without) == scores(watched)
    assert "guards" not in (watched / "performance.txt").read_text()
    assert not any(toys.read_summary(watched)["guards"].values())
    assert np.array_equal(np.load(without / "mpjpe.npy"), np.load(watched / "mpjpe.npy"))


def test_updates_that_go_too_far_are_marked_and_counted(command):
    usual, marked = command("usual"), command("marked", "--jump_limit", "1e-4")
    assert scores(usual) == scores(marked)
    assert toys.read_summary(marked)["guards"]["updates_too_far"] == 12
    assert "updates that moved the prediction too far: 12" in (marked / "performance.txt").read_text()
    assert (marked / "scores.csv").read_text().count(",yes,") == 12


def test_updates_that_are_undone_leave_the_base_model(command):
    frozen = command("frozen", "--method", "frozen", "--save_predictions")
    undone = command("undone", "--jump_limit", "1e-4", "--revert_jumps", "--save_predictions", "--save_model")
    with np.load(frozen / "predictions.npz") as one, np.load(undone / "predictions.npz") as other:
        assert np.array_equal(one["rotmat"], other["rotmat"])
    guards = toys.read_summary(undone)["guards"]
    assert guards["updates_too_far"] == guards["updates_undone"] == 12
    assert (undone / "scores.csv").read_text().count(",undone,") == 12


def test_an_image_of_another_size_than_its_sequence_is_an_error(command):
    file = command.world.stream.target.images / "imageFiles/flat_packBags_00/image_00003.jpg"
    cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (160, 120)))
    with pytest.raises(UserError, match=r"image_00003.jpg is 160x120 px where its sequence is 320x240"):
        command("x", "--method", "frozen")


@contextmanager
def changed_annotations(command) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of a converted sequence, which are written back at the end."""
    file = command.world.stream.target.annotations / "downtown_cafe_00.npz"
    with np.load(file) as old:
        arrays = {name: old[name] for name in old.files}
    yield arrays
    np.savez(file, **arrays)


@pytest.mark.parametrize("name", ["pose", "shape", "smpl_j2d", "scale"])
def test_an_annotation_that_is_not_finite_is_an_error(command, name):
    with changed_annotations(command) as arrays:
        arrays[name].flat[-1] = np.nan
    with pytest.raises(UserError, match=r" of imageFiles/downtown_cafe_00/image_\d+.jpg is not finite"):
        command("x", "--method", "frozen")


def test_boxes_outside_of_their_image_are_counted(command):
    with changed_annotations(command) as arrays:
        arrays["center"][1] = [-900, 100]
    folder = command("x", "--method", "frozen")
    assert toys.read_summary(folder)["guards"]["crops_outside"] == 1
    assert "frames whose box is outside of the image: 1" in (folder / "performance.txt").read_text()


def test_a_disk_without_room_for_the_run_is_told_before_it_begins(command, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"the run needs about .* MB and 0 MB are free; free some space"):
        command("x")
