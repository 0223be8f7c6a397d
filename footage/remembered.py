"""What a detector found, kept on disk, so that a run that goes on need not look again."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from footage.mediapipe import MediaPipe
from footage.sources import VideoFrame
from utils.joints import JOINTS49

RENEWED = 500  # frames after which the detector starts afresh, whether the run is stopped or not
_HEADER = 2 * 8  # bytes: which frame, how many people


class RememberedDetector:
    """A detector that can go on, although what it has in mind of the frames before cannot be saved.

    Every so many frames it starts afresh. A run that goes on reads what was found up to the last such frame, and looks
    again at those that follow.

    Args:
        detector: what looks
        file: what was found, appended to as it comes
        goes_on: whether the file is that of the same run
    """

    def __init__(self, detector: MediaPipe, file: Path, goes_on: bool) -> None:
        self.detector = detector
        self.frame, self.index = -1, None  # which one is at hand, and its number in the video
        self.known, size = _reliable(file) if goes_on and file.exists() else (0, 0)  # frames that are read
        self.log = file.open("r+b" if size else "w+b", buffering=0)
        self.log.truncate(size)

    def detect_all(self, frame: VideoFrame) -> np.ndarray:
        """Everybody in a frame, people (N,49,3)."""
        self._begin(frame.index)
        return self._remembered(lambda: self.detector.detect_all(frame))

    def detect_near(self, frame: VideoFrame, box: np.ndarray) -> Iterator[np.ndarray]:
        """People (N,49,3) around a box (center x, y, side; px), then from ever farther, for who looks for somebody."""
        self._begin(frame.index)
        looks = self.detector.detect_near(frame, box)
        while (found := self._remembered(lambda: next(looks, None))) is not None:
            yield found

    def facts(self) -> dict[str, object]:
        """Those of what looks."""
        return self.detector.facts()

    def warnings(self) -> list[str]:
        """Those of what looks."""
        return self.detector.warnings()

    def _begin(self, index: int) -> None:
        if index == self.index:
            return
        self.index = index
        self.frame += 1
        if self.frame % RENEWED == 0 and self.frame > self.known:
            self.detector.renew()

    def _remembered(self, look: Callable[[], np.ndarray | None]) -> np.ndarray | None:
        """What was found, or what is found now; None where there is no farther look."""
        if self.frame < self.known:
            header = self.log.read(_HEADER)
            frame, count = np.frombuffer(header, np.int64) if header else (-1, 0)
            if frame != self.frame:
                self.log.seek(-len(header), 1)
                return None
            return _people(self.log.read(_size(count)))
        found = look()
        if found is not None:
            self.log.write(np.array([self.frame, len(found)]).tobytes() + found.astype(np.float64).tobytes())
        return found


def _people(content: bytes) -> np.ndarray:
    return np.frombuffer(content).reshape(-1, len(JOINTS49), 3).copy()


def _size(people: int) -> int:
    """Bytes of so many people."""
    return int(people) * len(JOINTS49) * 3 * 8


def _reliable(file: Path) -> tuple[int, int]:
    """Up to which frame what was found can be read, and the bytes of that; a detector starts afresh there."""
    frames = size = position = 0
    with file.open("rb") as log:
        while len(header := log.read(_HEADER)) == _HEADER:
            frame, people = np.frombuffer(header, np.int64)
            if frame % RENEWED == 0 and frame > frames:
                frames, size = int(frame), position
            position = log.seek(_size(people), 1)
    return frames, size
