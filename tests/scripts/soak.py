"""A long run of a tiny network: memory, open files and speed after every tenth of it.

python soak.py <stream or footage> <frames> [folder of toys]

The limits, for 20,000 frames, are those of tests/test_soak.py.
"""

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import conftest
import numpy as np
import torch
import toys

import boa
import footage.people
import models.hmr
import runs
import streams
from flags import Options
from footage.people import Footage
from footage.sources import VideoFrame
from utils.joints import JOINTS49
from utils.resume import Checkpoints


class Sample(NamedTuple):
    """What there is after so many frames: MB of memory, open files, seconds of computing up to then."""

    frames: int
    memory: float
    files: int
    seconds: float

    @classmethod
    def now(cls, frames: int) -> "Sample":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            frames,
            pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            len(list(Path("/proc/self/fd").iterdir())),
            time.process_time(),
        )


class Looped:
    """A clip of twenty frames, over and over."""

    def __init__(self, source: str, start: float, stop: float, stride: int, max_frames: int) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 255, (20, 96, 128, 3), dtype=np.uint8)
        self.source, self.frames = source, max_frames
        self.name, self.rate, self.is_camera, self.names = "loop", 25.0, False, None

    def __iter__(self) -> Iterator[VideoFrame]:
        for index, image in enumerate(itertools.islice(itertools.cycle(self.images), self.frames)):
            yield VideoFrame(index, index / self.rate, f"loop_{index:06d}", image)

    def facts(self) -> dict[str, object]:
        return {}

    def warnings(self) -> list[str]:
        return []


class Somebody:
    """A detector that sees one person, who sways."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        joints = [rng.uniform(40, 80, len(JOINTS49)), rng.uniform(15, 80, len(JOINTS49)), np.ones(len(JOINTS49))]
        self.person = np.stack(joints, axis=1)

    def detect_all(self, frame: VideoFrame) -> np.ndarray:
        return (self.person + [3 * np.sin(frame.index / 10), 0, 0])[None]

    def detect_near(self, frame: VideoFrame, box: np.ndarray) -> Iterator[np.ndarray]:
        yield self.detect_all(frame)

    def facts(self) -> dict[str, object]:
        return {}

    def warnings(self) -> list[str]:
        return []


def open_loop(options: Options) -> Footage:
    footage.people.open_detector = lambda *arguments: Somebody()
    return Footage(Looped("loop", 0.0, 0.0, 1, options.max_frames), "-")


def repeat(stream: streams.Stream, count: int) -> streams.Stream:
    """The stream, over and over, in crops that need not be enlarged, which is faster."""

    def read(*arguments: object) -> tuple[object, list[str]]:
        frames, missing = stream.reader(*arguments)
        rows = np.arange(count) % len(frames)
        columns = {name: column[rows] for name, column in frames.columns.items()}
        columns["scale"] = np.full(count, 1.2)
        return type(frames)(frames.images, columns, frames.origin), missing

    return stream._replace(reader=read)


def soak(kind: str, count: int, folder: Path) -> list[Sample]:
    world = conftest.make_world(folder)
    torch.manual_seed(0)
    models.hmr.load_hmr = lambda *files: toys.TinyRegressor()
    streams.STREAMS["3dpw"] = repeat(world.stream, count)
    streams.ASSETS, runs.open_footage = world.stream.assets, open_loop
    samples, done, passed = [], 0, Checkpoints.passed

    def sample(checkpoints: Checkpoints, frames: int) -> None:
        nonlocal done
        done += frames
        passed(checkpoints, frames)
        if done % (count // 20) == 0:
            samples.append(Sample.now(done))

    Checkpoints.passed = sample
    flags = ["--save_predictions", "--first_order", "--labelloss_weight", "0"]
    if kind == "footage":
        flags = ["--video", str(folder / "3DPW"), "--method", "frozen", "--max_frames", str(count)]
    boa.main(["--name", kind, "--expdir", str(folder / "out"), *flags])
    return samples


def main() -> None:
    kind, count = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        samples = soak(kind, count, Path(folder))
    for sample, before in zip(samples[1:], samples, strict=False):
        speed = (sample.frames - before.frames) / (sample.seconds - before.seconds)
        print(f"sample: {sample.frames} {sample.memory:.1f} {sample.files} {speed:.2f}")


if __name__ == "__main__":
    main()
