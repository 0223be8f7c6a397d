"""Sequences and clips that do not depend on each other, side by side."""

import csv
import os
from collections import Counter
from pathlib import Path

import pytest
import toys
from places import PROJECT, TESTS
from tiny import assert_same, write_clip

import boa
import parts
import streams
from flags import several_clips
from utils.errors import UserError

SEQUENCES = ("flat_packBags_00", "downtown_cafe_00")


class InThisProcess:
    """Runs the commands of parts without new processes; those that are named fail so many times."""

    def __init__(self, failures: dict[str, int]) -> None:
        self.failures, self.begun = Counter(failures), Counter()

    def run(self, line: list[str], output: Path) -> int:
        arguments = line[len(parts.PROGRAM) :]
        name = arguments[arguments.index("--name") + 1]
        self.begun[name] += 1
        if self.failures[name]:
            self.failures[name] -= 1
            output.write_text("a line\nthe node is gone\n")
            return 1
        boa.main(arguments)
        return 0

    def stop(self) -> None:
        """Nothing goes on."""


@pytest.fixture
def launcher(monkeypatch) -> InThisProcess:
    launcher = InThisProcess({})
    monkeypatch.setattr(parts, "_launcher", lambda options, parent: launcher)
    return launcher


def test_every_sequence_begins_with_the_base_model(command, launcher):
    together = command("x", "--per_sequence", "--save_predictions")
    summary = toys.read_summary(together)
    assert summary["complete"] and summary["frames"] == 12
    assert [*summary["by_sequence"]] == [*SEQUENCES]
    rows = list(csv.DictReader((together / "scores.csv").open()))
    for sequence in SEQUENCES:
        alone = command(f"only-{sequence}", "--sequence", sequence, "--save_predictions")
        own = list(csv.DictReader((alone / "scores.csv").open()))
        assert own == [row for row in rows if row["sequence"] == sequence]
    online = list(csv.DictReader((command("online") / "scores.csv").open()))
    assert [row["mpjpe_mm"] for row in online[:8]] == [row["mpjpe_mm"] for row in rows[:8]]
    assert online[8]["mpjpe_mm"] != rows[8]["mpjpe_mm"]


def test_every_sequence_is_gone_through_so_often(command, launcher):
    twice = command("x", "--per_sequence", "--passes", "2")
    rows = list(csv.DictReader((twice / "scores.csv").open()))
    alone = list(csv.DictReader((command("only", "--sequence", SEQUENCES[1], "--passes", "2") / "scores.csv").open()))
    once = list(csv.DictReader((command("once", "--sequence", SEQUENCES[1]) / "scores.csv").open()))
    assert rows[8:] == alone != once


def test_a_reset_where_every_sequence_begins_anew_is_refused(command, launcher):
    with pytest.raises(UserError, match="--per_sequence begins every sequence with the base model"):
        command("x", "--per_sequence", "--soft_reset", "0.5")


def test_a_part_that_fails_is_run_once_more(command, launcher):
    launcher.failures["downtown_cafe_00"] = 1
    assert toys.read_summary(command("x", "--per_sequence"))["complete"]
    assert launcher.begun == {"flat_packBags_00": 1, "downtown_cafe_00": 2}


def test_what_fails_twice_is_reported_the_others_are_kept_and_the_same_command_runs_what_lacks(command, launcher):
    whole = command("whole", "--per_sequence", "--save_predictions")
    launcher.failures["flat_packBags_00"] = 2
    launcher.begun.clear()
    with pytest.raises(UserError, match="1 of 2 parts failed, flat_packBags_00: the node is gone"):
        command("x", "--per_sequence", "--save_predictions")
    folder = command.folder / "out" / "x"
    summary = toys.read_summary(folder)
    assert (summary["frames"], summary["complete"]) == (4, False)
    assert "flat_packBags_00" in summary["stopped"]
    assert_same(whole, command("x", "--per_sequence", "--save_predictions"))
    assert launcher.begun == {"flat_packBags_00": 3, "downtown_cafe_00": 1}


def test_an_unfinished_set_of_other_options_is_not_mixed_with_these(command, launcher):
    launcher.failures["flat_packBags_00"] = 2
    with pytest.raises(UserError, match="failed"):
        command("x", "--per_sequence")
    with pytest.raises(UserError, match="was begun with --lr 3e-06, not 1e-05"):
        command("x", "--per_sequence", "--lr", "1e-5")
    command("x", "--per_sequence", "--lr", "1e-5", "--overwrite")


def test_a_sequence_that_is_not_there(command):
    with pytest.raises(UserError, match="no sequence x; there are: flat_packBags_00, downtown_cafe_00"):
        command("x", "--sequence", "x")


def test_several_clips_are_a_run_each_with_one_table(command, launcher, tmp_path):
    (tmp_path / "clips").mkdir()
    _, video, _, keypoints, *_ = write_clip(tmp_path, 12)
    for name in ("one", "two"):
        (tmp_path / "clips" / f"{name}.mp4").write_bytes(Path(video).read_bytes())
        (tmp_path / "keypoints").mkdir(exist_ok=True)
        (tmp_path / "keypoints" / name).symlink_to(keypoints)
    (tmp_path / "list.txt").write_text("clips/two.mp4\n\nclips/two.mp4\n")
    flags = ["--keypoints", str(tmp_path / "keypoints"), "--method", "frozen"]
    folder = command("folder", "--video", str(tmp_path / "clips"), *flags)
    rows = list(csv.DictReader((folder / "scores.csv").open()))
    assert [row["clip"] for row in rows] == ["one", "two"]
    single = toys.read_summary(folder / "parts" / "two")
    assert float(rows[1]["adapted_share_of_box"]) == pytest.approx(single["adapted_share_of_box"], abs=1e-5)
    assert (folder / "parts" / "one" / "overlay.mp4").exists()
    assert not list(folder.glob(".*"))
    listed = command("listed", "--video", str(tmp_path / "list.txt"), *flags)
    assert [*toys.read_summary(listed)["by_clip"]] == ["two", "two_1"]


def test_a_folder_of_images_is_one_clip(tmp_path):
    for name in ("1.png", "2.png", "making-of.mp4"):
        (tmp_path / name).write_bytes(b"")
    assert several_clips(str(tmp_path)) == []
    assert several_clips("0") == several_clips("") == []


def test_a_clip_of_a_list_that_is_missing(tmp_path):
    (tmp_path / "list.txt").write_text("nowhere.mp4\n")
    with pytest.raises(UserError, match=r"nowhere.mp4 is missing; correct the list .*list.txt"):
        several_clips(str(tmp_path / "list.txt"))


def test_workers_without_parts_are_refused(command):
    with pytest.raises(SystemExit):
        command("x", "--workers", "2")


@pytest.mark.slow
def test_serial_workers_and_jobs_leave_the_same_files(own_world, monkeypatch, tmp_path):
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream)
    monkeypatch.setattr(parts, "PROGRAM", [parts.PROGRAM[0], str(TESTS / "scripts" / "tiny_boa.py")])
    paths = [str(PROJECT), str(TESTS), os.environ.get("PYTHONPATH", "")]
    for name, value in {**own_world.env, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    ways = {"serial": [], "workers": ["--workers", "2"], "jobs": ["--workers", "2", "--cluster", "local"]}
    for name, flags in ways.items():
        boa.main(["--name", name, "--expdir", str(tmp_path / "out"), "--per_sequence", "--save_predictions", *flags])
    for name in ("workers", "jobs"):
        assert_same(tmp_path / "out" / "serial", tmp_path / "out" / name)


def test_without_submitit_the_command_says_so(command, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    with pytest.raises(UserError, match="--cluster slurm needs submitit"):
        command("x", "--per_sequence", "--cluster", "slurm")
