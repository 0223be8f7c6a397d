"""What a video is read from: the frames of a folder of images or a camera; those of a file are in footage.container."""

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from utils.errors import UserError
from utils.files import safe_name
from utils.image import read_rgb

log = logging.getLogger("boa")

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
# others that people take for readable, and that would be missed
_UNREAD_IMAGES = {".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"}
USUAL_RATE = 25.0  # frames/s, of what does not say
_PATIENCE = 10.0  # s, after which a camera that gives no image is given up


class VideoFrame(NamedTuple):
    """A frame: its number and seconds from the start of the clip, a name to be written, (H,W,3) uint8 RGB.

    dropped: how many wanted ones before it a camera gave, which nobody took
    """

    index: int
    time: float
    name: str
    rgb: np.ndarray
    dropped: int = 0


class Undecoded(NamedTuple):
    """A frame whose image is decoded where it is wanted; UserError when it cannot be."""

    index: int
    time: float
    name: str
    decode: Callable[[], np.ndarray]


class Source(Protocol):
    """Where frames come from.

    Attributes:
        rate: frames/s; frames: how many there are, None if unknown
        names: of the frames' files, where they are known by name and not by number
    """

    rate: float
    frames: int | None
    names: list[str] | None

    def __iter__(self) -> Iterator[Undecoded]:
        """The frames in order; UserError for what is damaged."""

    def facts(self) -> dict[str, object]:
        """What was not as it should be up to now, for summary.json."""

    def warnings(self) -> list[str]:
        """The same in words, for who started the run."""


class ImageFolder:
    """The images of a folder in the order of their names, numbers by value. Files that begin with a dot are none."""

    rate = USUAL_RATE

    def __init__(self, path: Path) -> None:
        files = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
        self.files = sorted(
            (file for file in files if file.suffix.lower() in IMAGES), key=lambda file: _natural(file.name)
        )
        self.unread = Counter(file.suffix.lower() for file in files if file.suffix.lower() not in IMAGES)
        if not self.files:
            raise UserError(
                f"{path} holds no image ({', '.join(sorted(IMAGES))}); it holds: {self._unread() or 'nothing'}"
            )
        self.frames: int | None = len(self.files)
        self.names = [file.name for file in self.files]
        if _UNREAD_IMAGES & set(self.unread):
            log.warning("%s: files that are not read: %s; save them as PNG or JPEG", path, self._unread())

    def _unread(self) -> str:
        return ", ".join(f"{count} {suffix or 'without an ending'}" for suffix, count in sorted(self.unread.items()))

    def __iter__(self) -> Iterator[Undecoded]:
        for index, file in enumerate(self.files):
            yield Undecoded(index, index / self.rate, safe_name(file.name), partial(read_rgb, file))

    def facts(self) -> dict[str, object]:
        """How many files of which endings are not read."""
        return {"files_not_read": dict(self.unread)}

    def warnings(self) -> list[str]:
        """Nothing: what there is to say was said at the start."""
        return []


def _natural(name: str) -> list[tuple[bool, int, str]]:
    parts = re.split(r"([0-9]+)", name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


class Camera:
    """A camera, whose newest image is taken; those that came meanwhile are left out, and keep their numbers.

    Images are read by a thread from the start, so that none waits in the camera's own buffer. Number and time of a
    frame are those of when it came, counted from when the first one is asked for.

    Args:
        number: of the camera
        clock: seconds
    """

    frames = names = None

    def __init__(self, number: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.number, self.clock, self.capture = number, clock, cv2.VideoCapture(number)
        if not self.capture.isOpened():
            raise UserError(f"camera {number} cannot be opened; is it there, and does no other program use it?")
        self.rate = self.capture.get(cv2.CAP_PROP_FPS) or USUAL_RATE
        self.news = threading.Condition()
        self.newest: Undecoded | None = None
        self.started, self.count, self.is_over = clock(), 0, False
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def __iter__(self) -> Iterator[Undecoded]:
        with self.news:
            self.newest, self.started, self.count = None, self.clock(), 0
        return self._images()

    def _images(self) -> Iterator[Undecoded]:
        try:
            while frame := self._take():
                yield frame
        finally:
            self.is_over = True
            self.watcher.join(1)
        log.warning("camera %s gives no more images", self.number)

    def age(self, seconds: float) -> float:
        """For how long the frame of that time is taken, s."""
        return self.clock() - self.started - seconds

    def _take(self) -> Undecoded | None:
        """The newest frame that was not taken yet, which is waited for; None when there is none any more."""
        with self.news:
            self.news.wait_for(lambda: self.newest or self.is_over, _PATIENCE)
            frame, self.newest = self.newest, None
        return frame

    def _watch(self) -> None:
        try:
            while not self.is_over and (answer := self.capture.read())[0]:
                with self.news:
                    name = f"camera{self.number}_{self.count:06d}"
                    image = partial(cv2.cvtColor, answer[1], cv2.COLOR_BGR2RGB)
                    self.newest = Undecoded(self.count, self.clock() - self.started, name, image)
                    self.count += 1
                    self.news.notify()
        finally:
            with self.news:
                self.is_over = True
                self.news.notify()
            self.capture.release()

    def facts(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def warnings(self) -> list[str]:
        """Nothing."""
        return []
