"""A run that was stopped goes on to the same files as one that was not, and no other run is taken for it."""

import os
import signal
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import conftest
import numpy as np
import pytest
import torch
import toys
from places import PROJECT, TESTS
from test_dynamic_steps import Featured
from tiny import assert_same, content, write_clip

import boa
import models.hmr
import streams
from datasets.retrieval import write_bank
from footage.remembered import RENEWED, RememberedDetector
from footage.sources import VideoFrame
from utils.errors import Terminated, UserError
from utils.joints import JOINTS49
from utils.renderer import VideoWriter, write_video
from utils.resume import lock

FRAMES = 12  # of the toys


def interrupt(monkeypatch, after: int, number: int = signal.SIGTERM) -> None:
    """Send a signal to this process in the middle of frame number `after`."""
    count, original = 0, boa.to_numbers

    def signalling(*arguments: object) -> dict[str, float]:
        nonlocal count
        count += 1
        if count == after:
            signal.raise_signal(number)
        return original(*arguments)

    monkeypatch.setattr(boa, "to_numbers", signalling)


def stop(command, monkeypatch, name: str, after: int, *flags: str, number: int = signal.SIGTERM) -> Path:
    """Begin a run, and stop it by a signal."""
    with monkeypatch.context() as patch:
        interrupt(patch, after, number)
        with pytest.raises(KeyboardInterrupt):
            command(name, *flags)
    return command.folder / "out" / name


# going on


@pytest.mark.parametrize("flags", [["--batch_size", "5"], ["--method", "frozen"], ["--stride", "2", "--paper_compat"]])
def test_a_run_on_a_data_set_goes_on_to_the_same_files(command, monkeypatch, flags):
    flags += ["--save_predictions"]
    whole = command("whole", *flags)
    stopped = stop(command, monkeypatch, "stopped", 2, *flags)
    assert toys.read_summary(stopped)["stopped"] == "interrupted"
    assert_same(whole, command("stopped", *flags, "--resume"))


def test_footage_goes_on_to_the_same_files(command, monkeypatch):
    flags = [*write_clip(command.folder, 40), "--export", "both", "--first_order"]
    whole = command("whole", *flags)
    for after in (9, 15):  # while a gap is bridged, and in the third second of the overlay
        stop(command, monkeypatch, "stopped", after, *flags, *(["--resume"] if after > 9 else []))
    assert_same(whole, command("stopped", *flags, "--resume"))


def test_a_run_with_every_part_goes_on_to_the_same_files_from_either_pass(command, monkeypatch):
    def featured(*files: Path) -> torch.nn.Module:
        torch.manual_seed(0)
        return Featured()

    monkeypatch.setattr(models.hmr, "load_hmr", featured)
    source = command.world.stream.source
    write_bank(source.bank, featured().eval(), streams.open_source(source))
    flags = ["--passes", "2", "--retrieval", "--sample_num", "2", "--soft_reset", "0.5", "--keypoint_noise", "0.02"]
    flags += ["--dynamic_boa", "--cos_sim_threshold", "-1", "--optim_steps", "1", "--lr", "1e-4", "--save_predictions"]
    whole = command("whole", *flags)
    for after in (8, 13):  # at a cut of the first pass, and in the second one
        stop(command, monkeypatch, "stopped", after, *flags, *(["--resume"] if after == 13 else []))
    stopped = command("stopped", *flags, "--resume")
    assert_same(whole, stopped)
    assert toys.read_summary(stopped)["extra_steps"] == 1


def test_footage_that_is_gone_through_twice_goes_on_to_the_same_files_from_either_pass(command, monkeypatch):
    flags = [*write_clip(command.folder, 24), "--first_order", "--passes", "2", "--labelloss_weight", "0"]
    whole = command("whole", *flags)
    for after in (9, 20):
        stop(command, monkeypatch, "stopped", after, *flags, *(["--resume"] if after == 20 else []))
    assert_same(whole, command("stopped", *flags, "--resume"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data set", "footage"])
def test_a_run_that_is_killed_at_20_random_moments_leaves_the_files_of_a_whole_one(world, tmp_path, kind):
    flags = ["--save_predictions", "--checkpoint_every", "2"] if kind == "data set" else write_clip(tmp_path, 75)
    flags += [] if kind == "data set" else ["--export", "both", "--checkpoint_every", "12"]
    env = {**world.env, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (PROJECT, TESTS)))}
    for name, kills in (("whole", 0), ("killed", 20)):
        own = ["--kills", kills, "--longest", 2.0, "--name", name, "--expdir", tmp_path / "out"]
        result = conftest.run(TESTS / "scripts" / "tiny_boa.py", *own, *flags, env=env)
        assert result.returncode == 0, result.stderr
    killed = sorted((tmp_path / "out").glob("killed-*"))
    assert killed
    for folder in killed:
        assert_same(tmp_path / "out" / "whole", folder)
        assert not list(folder.glob(".*"))


def test_at_most_so_many_frames_are_done_again_after_a_kill(command, monkeypatch):
    class Killed(BaseException):
        """Ends the process here."""

    passed, done = boa.Checkpoints.passed, []

    def die_after_eight(checkpoints, frames: int) -> None:
        done.append(frames)
        passed(checkpoints, frames)
        if len(done) == 8:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(boa.Checkpoints, "passed", die_after_eight)
        patch.setattr(boa, "recorded", lambda results: nullcontext())  # nothing is written at the end
        with pytest.raises(Killed):
            command("killed", "--checkpoint_every", "3")
    again = []
    monkeypatch.setattr(boa.Checkpoints, "passed", lambda checkpoints, frames: again.append(frames))
    command("killed", "--checkpoint_every", "3", "--resume")
    assert len(again) == FRAMES - 6


@pytest.mark.parametrize("step", ["finish", "remove_all"])
def test_a_run_that_is_killed_at_its_very_end_is_complete_all_the_same(command, monkeypatch, step):
    flags = [*write_clip(command.folder, 14), "--checkpoint_every", "4", "--method", "frozen"]
    whole = command("whole", *flags)

    class Killed(BaseException):
        """Ends the process here."""

    def kill(folder: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"utils.results.{step}", kill)
        with pytest.raises(Killed):
            command("killed", *flags)
    again = []
    passed = boa.Checkpoints.passed
    monkeypatch.setattr(boa.Checkpoints, "passed", lambda self, frames: (again.append(frames), passed(self, frames)))
    killed = command("killed", *flags, "--resume")
    assert len(again) == (2 if step == "finish" else 0)
    assert_same(whole, killed)
    assert not list(killed.glob(".*"))


def test_a_second_signal_does_not_wait_for_the_frame(command, monkeypatch):
    def impatient(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr(boa, "to_numbers", impatient)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="--resume goes on"):
        command("x")
    assert signal.getsignal(signal.SIGINT) == before


def test_a_frame_that_takes_long_does_not_keep_a_run_from_ending(command, monkeypatch):
    def endless(*arguments: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        while True:
            pass

    monkeypatch.setattr(boa, "to_numbers", endless)
    monkeypatch.setattr("utils.resume.PATIENCE", 0.2)
    with pytest.raises(Terminated):
        command("x")


def test_a_run_that_left_no_state_begins_anew(command, monkeypatch):
    missing = command.world.stream.target.images / "imageFiles/flat_packBags_00/image_00002.jpg"
    image = missing.read_bytes()
    missing.write_bytes(image[: len(image) // 2])
    with pytest.raises(UserError):
        command("mended")
    missing.write_bytes(image)
    with pytest.raises(UserError, match="another file of images"):
        command("mended", "--resume")


def test_a_complete_run_is_not_run_again(command, capsys):
    folder = command("x")
    before = content(folder)
    capsys.readouterr()
    assert content(command("x", "--resume")) == before
    assert "12 of 12 frames" in capsys.readouterr().out
    assert not list(folder.glob(".*"))


def test_two_processes_do_not_write_into_the_same_folder(command, monkeypatch):
    folder = stop(command, monkeypatch, "x", 3)
    with lock(folder), pytest.raises(UserError, match="another process works in"):
        command("x", "--resume")
    command("x", "--resume")


# what is not the same run


@pytest.mark.parametrize(
    ("flags", "reason"),
    [(["--lr", "1e-5"], "--lr 3e-06, not 1e-05"), (["--stride", "2"], "--stride 1, not 2")],
)
def test_a_run_of_other_options_is_not_gone_on_with(command, monkeypatch, flags, reason):
    stop(command, monkeypatch, "x", 3)
    with pytest.raises(UserError, match=f"was begun with {reason}.*begin anew by --overwrite"):
        command("x", "--resume", *flags)


def test_a_run_of_another_model_or_data_is_not_gone_on_with(command, monkeypatch):
    stop(command, monkeypatch, "x", 3)
    assets = command.world.stream.assets
    file = assets.base_model
    content = file.read_bytes()
    file.write_bytes(content + b"0")
    with pytest.raises(UserError, match=r"another file of base_model: .*basemodel.pt"):
        command("x", "--resume")
    file.write_bytes(content)
    source = command.world.stream.source.annotations
    source.write_bytes(source.read_bytes() + b"0")
    with pytest.raises(UserError, match=r"another file of source: .*h36m_train.npz"):
        command("x", "--resume")


def test_goes_on_and_replaces_are_not_asked_for_together(command, monkeypatch):
    stop(command, monkeypatch, "x", 3)
    with pytest.raises(UserError, match="give one of them"):
        command("x", "--resume", "--overwrite")
    command("x", "--overwrite")


@pytest.mark.parametrize("damage", ["cut off", "hostile"])
def test_a_state_that_cannot_be_read_safely_is_one_line(command, monkeypatch, tmp_path, damage):
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(tmp_path / "marker"), "w"))

    file = stop(command, monkeypatch, "x", 3) / ".resume" / "state.pt"
    if damage == "hostile":
        torch.save({"learner": Hostile()}, file)
    else:
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"state.pt cannot be read \(.*begin anew by --overwrite"):
        command("x", "--resume")
    assert not (tmp_path / "marker").exists()


# the adapted weights


def test_the_adapted_weights_are_kept_and_are_a_base_model(own_world, monkeypatch, tmp_path):
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream)
    flags = ["--expdir", str(tmp_path), "--max_frames", "2", "--first_order"]
    boa.main(["--name", "adapted", "--save_model", *flags])
    boa.main(
        ["--name", "on", "--model_file", str(tmp_path / "adapted" / "model.pt"), "--method", "frozen", *flags[:-1]]
    )
    boa.main(["--name", "base", "--method", "frozen", *flags[:-1]])
    adapted, on, base = (np.load(tmp_path / name / "mpjpe.npy") for name in ("adapted", "on", "base"))
    assert on[1] == adapted[1] != base[1]


# its parts


def test_a_video_that_goes_on_after_whole_segments_is_the_same_to_the_byte(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (50, 48, 64, 3), dtype=np.uint8)
    for name, count in (("whole", 50), ("begun", 37)):
        write_video(tmp_path / f"{name}.mp4", frames[:count], rate=10)
    writer = VideoWriter(tmp_path / "on.mp4", rate=10)
    writer.copy(tmp_path / "begun.mp4", 30)
    for frame in frames[30:]:
        writer.add(frame)
    writer.close()
    assert (tmp_path / "on.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


class Forgetful:
    """A detector whose answers depend on how many frames it has seen since it started afresh."""

    def __init__(self) -> None:
        self.seen = self.looks_taken = 0

    def renew(self) -> None:
        self.seen = 0

    def detect_all(self, frame: VideoFrame) -> np.ndarray:
        self.seen += 1
        self.looks_taken += 1
        return np.full((frame.index % 3, len(JOINTS49), 3), 1000.0 * frame.index + self.seen)

    def detect_near(self, frame: VideoFrame, box: np.ndarray):
        for _ in range(3):
            yield self.detect_all(frame)


def look_at(detector: RememberedDetector, frames: range) -> list[np.ndarray]:
    found = []
    for index in frames:
        frame = VideoFrame(2 * index, 0.0, "", np.empty(0))
        if index % 4:
            found += islice(detector.detect_near(frame, np.empty(3)), index % 4 + (index % 4 == 3))  # more than three
        else:
            found.append(detector.detect_all(frame))
    return found


def test_what_a_detector_found_is_read_and_what_it_would_find_is_the_same(tmp_path):
    whole, stopped = Forgetful(), Forgetful()
    expected = look_at(RememberedDetector(whole, tmp_path / "whole", False), range(3 * RENEWED))
    look_at(RememberedDetector(stopped, tmp_path / "log", False), range(RENEWED + RENEWED // 2))
    with (tmp_path / "log").open("ab") as log:
        log.write(b"half")  # of what it was writing when it was killed
    on = Forgetful()
    found = look_at(RememberedDetector(on, tmp_path / "log", True), range(3 * RENEWED))
    assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
    assert on.looks_taken == pytest.approx(2 / 3 * whole.looks_taken, rel=0.01)
