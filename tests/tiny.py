"""Runs of boa.py on toys with a network of a few thousand weights, and what they leave."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import boa
import models.hmr
import streams
from utils.renderer import write_video


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every number of TensorBoard's events, with its step."""
    events = EventAccumulator(str(folder), {"scalars": 0})
    events.Reload()
    return {tag: sorted((event.step, event.value) for event in events.Scalars(tag)) for tag in events.Tags()["scalars"]}


def content(folder: Path) -> dict[str, object]:
    """All files of a run but for what must differ between two: the clock, name, command line, the code at hand."""
    own = (file for file in folder.iterdir() if file.is_file() and not file.name.startswith("events."))
    files = {file.name: file.read_bytes() for file in own}
    summary = json.loads(files.pop("summary.json"))
    del summary["frames_per_second"], summary["options"]["name"]
    del summary["provenance"]["command"], summary["provenance"]["commit"]
    files["setting.txt"] = files["setting.txt"].replace(f"name: {folder.name}".encode(), b"")
    return {**files, "summary.json": summary, "events": scalars(folder)}


def assert_same(one: Path, other: Path) -> None:
    expected, found = content(one), content(other)
    assert expected.keys() == found.keys()
    assert [name for name, value in expected.items() if value != found[name]] == []


def write_clip(folder: Path, frames: int) -> list[str]:
    """A clip of noise with somebody in it, and gaps that are bridged and not -> the flags for it."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
    write_video(folder / "clip.mp4", (np.roll(image, 3 * index, axis=1) for index in range(frames)), rate=10)
    joints = np.stack([rng.uniform(40, 80, 25), rng.uniform(15, 80, 25), np.ones(25)], axis=1)
    (folder / "openpose").mkdir()
    for index in range(frames):
        is_there = index not in (*range(8, 11), *range(20, 33))
        person = {"pose_keypoints_2d": (joints + [0.3 * index, 0, 0]).ravel().tolist()}
        file = folder / "openpose" / f"clip_{index:012d}_keypoints.json"
        file.write_text(json.dumps({"people": [person] if is_there else []}))
    return ["--video", str(folder / "clip.mp4"), "--keypoints", str(folder / "openpose")]


@pytest.fixture
def command(own_world, monkeypatch, tmp_path) -> Callable[..., Path]:
    """Run boa.py in this process on toys, with a tiny network -> the folder of the run."""
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream)
    monkeypatch.setattr(streams, "ASSETS", own_world.stream.assets)
    monkeypatch.setattr(streams, "H36M", own_world.stream.source)

    def tiny_hmr(*files: Path) -> torch.nn.Module:
        torch.manual_seed(0)
        return toys.TinyRegressor()

    monkeypatch.setattr(models.hmr, "load_hmr", tiny_hmr)
    monkeypatch.setattr("utils.resume.PATIENCE", 600.0)  # a busy machine is no reason to break a frame off

    def run(name: str, *flags: str) -> Path:
        boa.main(["--name", name, "--expdir", str(tmp_path / "out"), *flags])
        return tmp_path / "out" / name

    run.world, run.folder = own_world, tmp_path
    return run
