"""2D keypoints in files that a detector left, OpenPose's or AlphaPose's: which of them belong to which frame."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np

from footage.detector import stack
from footage.fit import Fit
from footage.formats import RawPeople, Skeleton, is_list, people_of_frame, people_of_list, read_json
from footage.sources import IMAGES, VideoFrame
from footage.video import Video
from utils.errors import UserError
from utils.files import existing, safe_name

log = logging.getLogger("boa")

_REMEDY = "name the detector's file or folder by --keypoints"
_SUFFIX = "_keypoints"  # of OpenPose's names
_SAMPLE = 10  # entries with people, by which joints and units are judged


class Entry(NamedTuple):
    """What a detector wrote for one frame.

    Attributes:
        name: of the file without its ending, or of the image
        people: as they stand in the file, or the file, which is read when it is needed
    """

    name: str
    people: RawPeople | Path

    def __str__(self) -> str:
        return safe_name(self.name)

    def read(self) -> RawPeople:
        """The people; UserError when the file is damaged."""
        return people_of_frame(read_json(self.people), self.people) if isinstance(self.people, Path) else self.people

    @property
    def image(self) -> str:
        """The name of the image without its folder."""
        return PureWindowsPath(self.name).name  # AlphaPose gives whole paths, perhaps those of Windows

    @property
    def stem(self) -> str:
        """The same without its ending."""
        return _stem(self.image).removesuffix(_SUFFIX)

    @property
    def number(self) -> int | None:
        """The last number in the stem."""
        numbers = re.findall("[0-9]+", self.stem)
        return int(numbers[-1]) if numbers else None

    @property
    def series(self) -> tuple[str, str]:
        """Folder and stem without the last number: the same for all frames of a clip."""
        return str(PureWindowsPath(self.name).parent), re.sub("[0-9]+(?=[^0-9]*$)", "#", self.stem)

    @property
    def is_bare(self) -> bool:
        """Whether the name is a number alone, as AlphaPose calls the frames of a clip; it counts from 0."""
        return self.stem.isdecimal() and _SUFFIX not in self.name


def _stem(image: str) -> str:
    """An image's name without its ending."""
    suffix = PureWindowsPath(image).suffix
    return image.removesuffix(suffix) if suffix.lower() in IMAGES else image


class KeypointFiles:
    """The files of a detector that looked at the video before (footage.detector.Detector).

    Frames of a clip are found by the last number in the file's or image's name, counted from 0, or from 1 where only
    that fits the clip; images of a folder by their name.

    Args:
        path: a file, or a folder of them
        video: which they are of
        first_frame: number of the frame, from 0, that the first entry is of; -1: find it as above

    Raises:
        UserError: a file is missing or damaged or of another format, or it is not clear which frame it is of
    """

    def __init__(self, path: Path, video: Video, first_frame: int = -1) -> None:
        self.path, self.video = existing(path, _REMEDY), video
        if video.is_camera:
            raise UserError(f"--keypoints {path}: no file knows what a camera will see; take --keypoints mediapipe")
        entries = _read_entries(path, video.name)
        if not path.is_dir() and isinstance(entries[0].people, Path) and video.source_frames == 1:
            self.frames = {0: entries[0]}  # the only frame, whatever its name
        elif video.names is not None and first_frame < 0:
            self.frames = _by_name(entries, video.names, path)
        else:
            self.frames = _by_number(entries, video, first_frame, path)
        self.unused = len(entries) - len(self.frames)
        self.first = self._say_first(first_frame)
        self.skeleton, self.fit = Skeleton(self._sample(), path), Fit(path)
        if self.skeleton.is_25b:
            log.info("%s: the joints are those of BODY_25B", path)
        self.missing = 0  # frames without an entry
        self.is_told = False  # that joints lie outside

    def detect_all(self, frame: VideoFrame) -> np.ndarray:
        """People (N,49,3) of a frame; none where the files do not have it. Raises UserError for a damaged file."""
        if frame.index not in self.frames:
            self.missing += 1
            return stack([])
        people = self.fit.check(self.skeleton.people(self.frames[frame.index].read()), frame.rgb)
        if self.fit.is_known and self.fit.is_odd and not self.is_told:
            log.warning(self.fit.describe())
            self.is_told = True
        return people

    def detect_near(self, frame: VideoFrame, box: np.ndarray) -> Iterator[np.ndarray]:
        """The same: the detector looked at the whole frame."""
        yield self.detect_all(frame)

    def _say_first(self, first_frame: int) -> str:
        """Tell which frame the first entry is taken for."""
        index = min(self.frames)
        entry, names = self.frames[index], self.video.names
        image = f" ({safe_name(names[index])})" if names and index < len(names) else ""
        first = f"{entry} is taken for frame {index}{image}"
        is_doubtful = first_frame < 0 and names is None and index == 1 and not entry.is_bare
        level = logging.WARNING if is_doubtful else logging.INFO
        log.log(level, "%s: the first entry %s, counted from 0; if that is wrong, give --first_frame", self.path, first)
        return first

    def _sample(self) -> RawPeople:
        """The people of the first frames that have any."""
        people: RawPeople = []
        found = 0
        for index in sorted(self.frames):
            try:
                here = self.frames[index].read()
            except UserError:  # what is damaged is told when it is its turn
                continue
            people += here
            found += bool(here)
            if found == _SAMPLE:
                break
        return people

    def _beyond(self) -> list[int]:
        """The frames after the end of the video that have an entry, once the end is known."""
        end = self.video.source_frames if self.video.is_whole else None
        return [index for index in self.frames if end is not None and index >= end]

    def facts(self) -> dict[str, object]:
        """Which entries found no frame and which frames no entry, up to now."""
        return {
            "keypoints_first": self.first,
            "keypoints_joints": self.skeleton.name,
            "keypoints_beyond_end": len(self._beyond()),
            "keypoints_unused": self.unused,
            "frames_without_keypoints": self.missing,
            **self.fit.facts(),
        }

    def warnings(self) -> list[str]:
        """The same in words."""
        lines, beyond, frames = [], self._beyond(), self.video.source_frames
        if beyond:
            lines.append(
                f"{self.path}: entries of no frame: {len(beyond)}; the last is of frame {max(beyond)}, counted from 0, "
                f"the video has {frames}; if the detector saw other frames, joints are not where they belong"
            )
        if self.unused:
            lines.append(f"{self.path}: entries of other clips or images: {self.unused}")
        if self.missing and any(isinstance(entry.people, Path) for entry in self.frames.values()):
            lines.append(f"{self.path}: frames without an entry: {self.missing}")
        return lines + self.fit.warnings()


def _read_entries(path: Path, clip: str) -> list[Entry]:
    """All that is in a file or a folder; of several lists in a folder, that with the clip's name."""
    if not path.is_dir():
        content = read_json(path)
        return _of_list(content, path) if is_list(content) else _of_frames([path])
    # what begins with a dot are notes of a Mac
    files = sorted(file for file in path.glob("*.json") if not file.name.startswith("."))
    if not files:
        raise UserError(f"{path} holds no .json file; {_REMEDY}")
    by_series = defaultdict[tuple[str, str], list[Path]](list)
    for file in files:
        by_series[Entry(file.stem, []).series].append(file)
    lists, frames = [], []
    for members in by_series.values():
        (lists if is_list(read_json(members[0])) else frames).extend(members)
    if not lists:
        return _of_frames(files)
    own = [file for file in lists if safe_name(file.stem) == clip]
    if len(own) != 1 and len(lists) + len(frames) > 1:
        names = ", ".join(safe_name(file.name) for file in [*lists, *frames][:3])
        raise UserError(f"{path} holds several files that may be of this video: {names}; name one by --keypoints")
    chosen = (own or lists)[0]
    return _of_list(read_json(chosen), chosen)


def _of_list(content: object, file: Path) -> list[Entry]:
    return [Entry(image, people) for image, people in people_of_list(content, file).items()]


def _of_frames(files: Sequence[Path]) -> list[Entry]:
    people_of_frame(read_json(files[0]), files[0])  # whether it is of this format at all
    return [Entry(file.stem, file) for file in files]


def _by_name(entries: Sequence[Entry], names: Sequence[str], path: Path) -> dict[int, Entry]:
    """Entries by the number of the image that is called like them."""
    by_image, by_stem = defaultdict[str, list[Entry]](list), defaultdict[str, list[Entry]](list)
    for entry in entries:
        by_image[entry.image].append(entry)
        by_stem[entry.stem].append(entry)
    frames, taken = {}, dict[str, str]()
    for index, name in enumerate(names):
        found = by_image.get(name) or by_stem.get(_stem(name)) or []
        if len(found) > 1:
            raise UserError(f"{path}: {found[0]} and {found[1]} are both of {safe_name(name)}; leave one")
        for entry in found:
            if entry.name in taken:
                raise UserError(
                    f"{path}: {entry} is of {safe_name(taken[entry.name])} and of {safe_name(name)}; leave one image"
                )
            taken[entry.name], frames[index] = name, entry
    if not frames:
        raise UserError(
            f"{path}: nothing is called like an image of the video: the images are {safe_name(names[0])}, ..., "
            f"the entries {entries[0]}, ...; --first_frame 0 goes by numbers, the first entry for the first image"
        )
    return frames


def _by_number(entries: Sequence[Entry], video: Video, first_frame: int, path: Path) -> dict[int, Entry]:
    """Entries by the number of the frame that their names say."""
    numbers: dict[int, Entry] = {}
    for entry in _own_series(entries, video.name, path):
        if entry.number is None:
            raise UserError(f"{path}: {entry} has no number that says which frame of the clip it is")
        if entry.number in numbers:
            raise UserError(f"{path}: {numbers[entry.number]} and {entry} are both of one frame; leave one")
        numbers[entry.number] = entry
    shift = _shift(numbers, video.source_frames, first_frame, path)
    frames = {number - shift: numbers[number] for number in sorted(numbers)}
    if video.source_frames is not None and min(frames) >= video.source_frames:
        raise UserError(
            f"{path}: the entries are of frames {min(frames)} to {max(frames)}, the video has {video.source_frames}; "
            "say of which frame, counted from 0, the first is by --first_frame"
        )
    return frames


def _shift(numbers: dict[int, Entry], count: int | None, first_frame: int, path: Path) -> int:
    """What is to be taken from the numbers to get those of frames: 0 or 1, or as the user says."""
    first, last = min(numbers), max(numbers)
    if first_frame >= 0:
        return first - first_frame
    if first == 1:
        return int(last == count)  # a frame of this number is not in the clip
    if first and not numbers[first].is_bare:
        raise UserError(
            f"{path}: the first entry is {numbers[first]}; say by --first_frame which frame of the video it is, "
            f"counted from 0: {first} if the detector counted so, 0 if it saw nothing before"
        )
    return 0


def _own_series(entries: Sequence[Entry], clip: str, path: Path) -> Sequence[Entry]:
    """The entries of one clip, of several by its name."""
    by_series = defaultdict[tuple[str, str], list[Entry]](list)
    for entry in entries:
        by_series[entry.series].append(entry)
    if len(by_series) == 1:
        return entries
    own = [members for (_, name), members in by_series.items() if safe_name(name.split("#")[0].rstrip("_-. ")) == clip]
    if len(own) != 1:
        names = ", ".join(str(members[0]) for members in list(by_series.values())[:3])
        raise UserError(
            f"{path} holds entries of several clips: {names}; none or more than one is called {clip}, leave one clip's"
        )
    return own[0]
