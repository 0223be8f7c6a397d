"""The frames of a video file, a folder of pictures or a camera, decoded one at a time."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from utils.errors import UserError
from utils.files import existing
from utils.image import read_rgb

log = logging.getLogger("boa")

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
PICTURE_RATE = 25.0  # frames/s that a folder of pictures is taken to have, and a camera that does not say
TRUNCATED = 0.95  # share of its announced frames with which a clip passes for whole


class VideoFrame(NamedTuple):
    """A frame: its number and seconds from the start of the clip, its name, (H,W,3) uint8 RGB."""

    index: int
    time: float
    name: str
    rgb: np.ndarray


# what a reader gives for each frame: time, name, and how to get the picture, for those that are wanted
Undecoded = tuple[float, str, Callable[[], np.ndarray]]


class Video:
    """The wanted frames of a source, decoded one at a time.

    Args:
        source: a video file, a folder of pictures, or the number of a camera
        start, stop: seconds; stop 0: to the end
        stride: take every n-th frame
        max_frames: 0: all

    Attributes:
        name: of the source; rate: frames/s that are taken; frames: how many there will be, None if unknown
        is_camera: the frames come from a camera; numbered: they are known by number, not by name

    Raises:
        UserError: the source is missing or holds no video
    """

    def __init__(
        self, source: str, start: float = 0.0, stop: float = 0.0, stride: int = 1, max_frames: int = 0
    ) -> None:
        self.source, self.start, self.stop, self.stride = source, start, stop or np.inf, stride
        path = Path(source)
        self.is_camera = source.isdigit() and not path.exists()
        self.numbered = not path.is_dir()
        self.name = f"camera{source}" if self.is_camera else path.stem
        kind = _Camera if self.is_camera else _Pictures if path.is_dir() else _File
        self.reader = kind(source)
        self.rate = self.reader.rate / stride
        self.max_frames = max_frames or None
        self.frames = self.max_frames
        if self.reader.frames is not None:
            # as many as there are if all are shown for the same time
            first, end = (int(np.ceil(seconds * self.reader.rate - 1e-6)) for seconds in (start, min(self.stop, 1e9)))
            count = len(range(first, min(end, self.reader.frames), stride))
            self.frames = min(count, self.max_frames or count)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Raises UserError where the source is damaged, changes its size, or has no frame in the wanted range."""
        size = None
        for picture in islice(self._wanted(), self.max_frames):
            size = size or picture.rgb.shape
            if picture.rgb.shape != size:
                sizes = [f"{shape[1]}x{shape[0]}" for shape in (picture.rgb.shape, size)]
                raise UserError(
                    f"{self.source}: {picture.name} is {sizes[0]} px where the frames before are {sizes[1]}"
                )
            yield picture
        if size is None:
            raise UserError(f"{self.source} has no frame from --start {self.start:g} to --stop {self.stop:g} s")

    def _wanted(self) -> Iterator[VideoFrame]:
        since_start = 0
        for index, (seconds, name, read) in enumerate(self.reader):
            if seconds >= self.stop:
                return
            if seconds >= self.start:
                if since_start % self.stride == 0:
                    yield VideoFrame(index, seconds, name, read())
                since_start += 1


class _File:
    """Frames of a video file, upright, with the times at which they are shown."""

    def __init__(self, source: str) -> None:
        import av  # loads the video libraries, which only those who read video need

        self.path, self.error = existing(Path(source), "name a video, a folder of pictures or a camera by --video"), av
        try:
            self.container = av.open(str(self.path))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"{self.path} is no readable video ({error}); it may be empty or cut off") from error
        # the cover of a piece of music is a video stream, too
        streams = [
            stream
            for stream in self.container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            raise UserError(f"{self.path} holds no video, only {_kinds(self.container)}")
        self.stream = streams[0]
        self.stream.thread_type = "AUTO"
        self.rate = float(self.stream.average_rate or self.stream.guessed_rate or PICTURE_RATE)
        announced = self.stream.frames or (self.container.duration or 0) / 1e6 * self.rate
        self.frames = round(announced) or None

    def __iter__(self) -> Iterator[Undecoded]:
        count, seconds, first = 0, 0.0, None
        try:
            for frame in self.container.decode(self.stream):
                shown = count / self.rate if frame.time is None else frame.time
                first = shown if first is None else first
                seconds = shown - first
                yield seconds, f"{self.path.stem}_{count:06d}", partial(_upright, frame)
                count += 1
        except self.error.FFmpegError as error:
            raise UserError(
                f"{self.path} is damaged after frame {count}, {seconds:.1f} s ({error.strerror})"
            ) from error
        if count == 0:
            raise UserError(f"{self.path} holds no frame; it may be cut off")
        if self.stream.frames and count < TRUNCATED * self.stream.frames:
            raise UserError(f"{self.path} is cut off: it ends after {count} of {self.stream.frames} frames")


def _kinds(container: Any) -> str:
    return " and ".join(sorted({stream.type for stream in container.streams} - {"video"})) or "pictures"


def _upright(frame: Any) -> np.ndarray:
    """Decode a frame of PyAV and turn it as its metadata say -> (H,W,3) uint8 RGB."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


class _Pictures:
    """The pictures of a folder in the order of their names, numbers by value."""

    rate = PICTURE_RATE

    def __init__(self, source: str) -> None:
        files = [file for file in Path(source).iterdir() if file.suffix.lower() in PICTURES]
        if not files:
            raise UserError(f"{source} holds no picture ({', '.join(sorted(PICTURES))})")
        self.files = sorted(files, key=lambda file: _natural(file.name))
        self.frames: int | None = len(files)

    def __iter__(self) -> Iterator[Undecoded]:
        for index, file in enumerate(self.files):
            yield index / self.rate, file.name, partial(read_rgb, file)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


class _Camera:
    """A camera's picture of now, whenever one is asked for."""

    frames = None

    def __init__(self, source: str) -> None:
        self.source, self.capture = source, cv2.VideoCapture(int(source))
        if not self.capture.isOpened():
            raise UserError(f"camera {source} cannot be opened; is it there, and does no other program use it?")
        self.capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # not what it saw while the last frame was adapted to
        self.rate = self.capture.get(cv2.CAP_PROP_FPS) or PICTURE_RATE

    def __iter__(self) -> Iterator[Undecoded]:
        started, index = time.monotonic(), 0
        try:
            while (answer := self.capture.read())[0]:
                picture = partial(cv2.cvtColor, answer[1], cv2.COLOR_BGR2RGB)
                yield time.monotonic() - started, f"camera{self.source}_{index:06d}", picture
                index += 1
        finally:
            self.capture.release()
        log.warning("camera %s gives no more pictures", self.source)
