"""The wanted frames of a video file, a folder of images or a camera, decoded one at a time."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from footage.container import VideoFile
from footage.sources import Camera, ImageFolder, Source, VideoFrame
from utils.errors import UserError
from utils.files import safe_name


class Video:
    """The wanted frames of a source.

    Args:
        source: a video file, a folder of images, or the number of a camera
        start, stop: seconds; stop 0: to the end
        stride: take every n-th frame
        max_frames: 0: all

    Attributes:
        name: of the source; rate: frames/s that are taken
        frames: how many there will be, None if unknown; once all were taken, how many there were
        source_frames: how many the source has, wanted or not, None if unknown
        is_whole: whether the source was read to its end
        names: of all frames, where they are known by name and not by number
        is_camera: the frames come from a camera

    Raises:
        UserError: the source is missing or holds no video
    """

    def __init__(
        self, source: str, start: float = 0.0, stop: float = 0.0, stride: int = 1, max_frames: int = 0
    ) -> None:
        self.source, self.start, self.stop, self.stride = source, start, stop or np.inf, stride
        path = Path(source)
        self.is_camera = source.isascii() and source.isdecimal() and not path.exists()
        self.name = f"camera{source}" if self.is_camera else safe_name(path.stem)
        self.reader: Source = (
            Camera(int(source)) if self.is_camera else ImageFolder(path) if path.is_dir() else VideoFile(path)
        )
        self.rate, self.names = self.reader.rate / stride, self.reader.names
        self.source_frames, self.is_whole = self.reader.frames, False
        self.max_frames = max_frames or None
        self.frames = self._expected()

    def _expected(self) -> int | None:
        """As many as there are if all are shown for the same time."""
        if self.source_frames is None:
            return self.max_frames
        rate = self.reader.rate
        first, end = (int(np.ceil(seconds * rate - 1e-6)) for seconds in (self.start, min(self.stop, 1e9)))
        count = len(range(first, min(end, self.source_frames), self.stride))
        return min(count, self.max_frames or count)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Raises UserError where the source is damaged, changes its size, or has no frame in the wanted range."""
        size, count = None, 0
        for frame in islice(self._wanted(), self.max_frames):
            size = size or frame.rgb.shape
            if frame.rgb.shape != size:
                sizes = [f"{shape[1]}x{shape[0]}" for shape in (frame.rgb.shape, size)]
                raise UserError(f"{self.source}: {frame.name} is {sizes[0]} px where the frames before are {sizes[1]}")
            count += 1
            yield frame
        self.frames = count
        if size is None:
            raise UserError(f"{self.source} has no frame from --start {self.start:g} to --stop {self.stop:g} s")

    def _wanted(self) -> Iterator[VideoFrame]:
        first = before = None
        index = -1
        for index, seconds, name, decode in self.reader:
            if seconds >= self.stop:
                return
            if seconds >= self.start:
                first = index if first is None else first
                if (index - first) % self.stride == 0:
                    dropped = (index - before) // self.stride - 1 if self.is_camera and before is not None else 0
                    before = index
                    yield VideoFrame(index, seconds, name, decode(), dropped)
        self.source_frames, self.is_whole = self.reader.frames or index + 1, True

    def facts(self) -> dict[str, object]:
        """What was not as it should be up to now, for summary.json."""
        return self.reader.facts()

    def warnings(self) -> list[str]:
        """The same in words."""
        return self.reader.warnings()
