"""What one's own video costs: milliseconds of the parts, frames per second of the whole program, and a camera's delay.

    python benchmarks/video.py clip.mp4        # MediaPipe finds the joints

`make benchmark-video CLIP=clip.mp4` installs MediaPipe first. The parts are those beside the network; the body that is
drawn for them is the free one, in the zero pose. The program runs on the clip frozen, and adapting with --first_order;
then the clip is played in its own time in the place of a camera.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import utils.threads  # isort: skip  # noqa: F401, before torch

import cv2
import numpy as np

import boa
import config
from footage.overlay import PANEL
from footage.people import Footage
from footage.video import Video
from synthetic.body import Body
from utils.errors import run_command
from utils.image import BOX_UNIT
from utils.renderer import VIDEO_SAMPLING, draw_in_image, side_view

_WARM_UP = 10
CAM = np.array([0.9, 0.0, 0.25])
PROGRAMS = {"frozen": ("--method", "frozen"), "adapting, first order": ("--method", "boa", "--first_order")}

Item = TypeVar("Item")


class Player:
    """A clip in the place of a camera (cv2.VideoCapture), to and fro without end, whoever takes its frames."""

    def __init__(self, clip: str, max_frames: int, number: int) -> None:
        video = Video(clip, max_frames=max_frames)
        self.rate, self.frames = video.rate, [np.ascontiguousarray(frame.rgb[..., ::-1]) for frame in video]
        self.started, self.given = None, 0

    def isOpened(self) -> bool:
        """It is."""
        return True

    def get(self, what: int) -> float:
        """Frames/s, the only thing that is asked for."""
        return self.rate

    def read(self) -> tuple[bool, np.ndarray]:
        """The next frame, when it is there."""
        self.started = self.started or time.monotonic()
        last = len(self.frames) - 1
        place = self.given % max(1, 2 * last)
        self.given += 1
        time.sleep(max(0.0, self.started + self.given / self.rate - time.monotonic()))
        return True, self.frames[min(place, 2 * last - place)]

    def release(self) -> None:
        """Give it back."""


def timed(items: Iterable[Item], seconds: list[float]) -> Iterator[Item]:
    """The same items; the time that each one took goes to `seconds`."""
    iterator = iter(items)
    while True:
        start = time.perf_counter()
        item = next(iterator, None)
        if item is None:
            return
        seconds.append(time.perf_counter() - start)
        yield item


def parts(clip: str, max_frames: int) -> dict[str, float]:
    """Milliseconds a frame of each part, as if it were alone."""
    body = Body(config.DEMO, "neutral")
    vertices = body.template @ np.diag([1.0, -1.0, -1.0])
    decoding: list[float] = []
    for _ in timed(Video(clip, max_frames=max_frames), decoding):
        pass
    preparing: list[float] = []
    drawing: list[float] = []
    footage = Footage(Video(clip, max_frames=max_frames), "mediapipe")
    for frame in timed(footage.prepared(), preparing):
        if "keypoints_2d" not in frame:
            continue
        start = time.perf_counter()
        rgb, center = frame["rgb"][0].numpy(), frame["center"][0].numpy()
        draw_in_image(rgb, vertices, body.faces, CAM, center, BOX_UNIT * frame["scale"].item())
        side_view(vertices, body.faces, CAM, PANEL, supersampling=VIDEO_SAMPLING)
        drawing.append(time.perf_counter() - start)
    costs = {"decoding": decoding, "decoding, detection, tracking, crop": preparing, "drawing and side view": drawing}
    return {name: 1000 * float(np.median(seconds[_WARM_UP:])) for name, seconds in costs.items()}


def program(source: str, flags: Iterable[str], max_frames: int) -> dict[str, object]:
    """What summary.json says of a run of the whole program."""
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        command = ["--name", "run", "--expdir", folder, "--video", source, "--max_frames", str(max_frames), *flags]
        with contextlib.redirect_stdout(nowhere):
            boa.main(command)
        return json.loads((Path(folder) / "run" / "summary.json").read_text())


def main() -> None:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--max_frames", type=int, default=100)
    options = parser.parse_args()
    given = options.clip, options.max_frames

    costs = parts(*given)
    for name, value in costs.items():
        print(f"{name}: {value:.1f} ms per frame")
    together = sum(costs.values()) - costs["decoding"]  # which is in the preparation, too
    print(f"together: {together:.1f} ms per frame")
    program(options.clip, PROGRAMS["frozen"], 1)  # what is loaded once is no matter of frames
    for name, flags in PROGRAMS.items():
        found = program(options.clip, flags, options.max_frames)
        print(f"the whole program, {name}: {found['frames_per_second']:.1f} frames per second")
    for name, flags in PROGRAMS.items():
        with mock.patch.object(cv2, "VideoCapture", partial(Player, *given)):
            found = program("0", flags, options.max_frames)
        print(
            f"as a camera, {name}: {found['frames_per_second']:.1f} frames per second, "
            f"{found['frames_dropped']} of {found['frames'] + found['frames_dropped']} frames left out; "
            f"a frame is shown {found['age_median_s']:.2f} s after it was taken, {found['age_largest_s']:.2f} s at most"
        )


if __name__ == "__main__":
    run_command(main)
