"""Milliseconds per frame of all that footage needs beside the network: decoding, detection, cropping, drawing.

    python benchmarks/video.py clip.mp4        # MediaPipe finds the joints

`make benchmark-video CLIP=clip.mp4` installs MediaPipe first. The body that is drawn is the free one, in the zero pose.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

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

Item = TypeVar("Item")


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


def main() -> None:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--max_frames", type=int, default=100)
    options = parser.parse_args()
    body = Body(config.DEMO, "neutral")
    vertices = body.template @ np.diag([1.0, -1.0, -1.0])

    decoding: list[float] = []
    for _ in timed(Video(options.clip, max_frames=options.max_frames), decoding):
        pass
    preparing: list[float] = []
    drawing: list[float] = []
    footage = Footage(Video(options.clip, max_frames=options.max_frames), "mediapipe")
    for frame in timed(footage.prepared(), preparing):
        if "image" not in frame:
            continue
        start = time.perf_counter()
        rgb, center = frame["rgb"][0].numpy(), frame["center"][0].numpy()
        draw_in_image(rgb, vertices, body.faces, CAM, center, BOX_UNIT * frame["scale"].item())
        side_view(vertices, body.faces, CAM, PANEL, supersampling=VIDEO_SAMPLING)
        drawing.append(time.perf_counter() - start)
    parts = {"decoding": decoding, "decoding, detection, tracking, crop": preparing, "drawing and side view": drawing}
    medians = {name: 1000 * float(np.median(seconds[_WARM_UP:])) for name, seconds in parts.items()}
    for name, value in medians.items():
        print(f"{name}: {value:.1f} ms per frame")
    together = sum(medians.values()) - medians["decoding"]  # which is in the preparation, too
    print(f"together: {together:.1f} ms per frame")


if __name__ == "__main__":
    run_command(main)
