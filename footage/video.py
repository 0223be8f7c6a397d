"""A clip, a folder of pictures or a camera as a stream, with the one person in it who is followed.

Nothing is kept but the frames of the opening, in which it is decided whom to follow, and those of a gap.
"""

import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image

from datasets.base import ahead
from footage.keypoints import MIN_JOINTS, KeypointFiles, MediaPipe, is_person, open_keypoints
from footage.tracking import SteadyBox, Tracker, box_of, prominence
from utils.device import has_screen
from utils.errors import UserError
from utils.files import existing, write_atomically
from utils.image import BOX_UNIT, Crop, normalise, read_rgb
from utils.joints import JOINTS49, joint_names

log = logging.getLogger("boa")

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
PICTURE_RATE = 25.0  # frames/s that a folder of pictures is taken to have, and a camera that does not say
TRUNCATED = 0.95  # share of its announced frames with which a clip passes for whole
OPENING = 10  # frames in which it is decided whom to follow
LONGEST_GAP = 10  # frames without the person that are bridged

Detector = KeypointFiles | MediaPipe


class Picture(NamedTuple):
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

    def __iter__(self) -> Iterator[Picture]:
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

    def _wanted(self) -> Iterator[Picture]:
        since_start = 0
        for index, (seconds, name, read) in enumerate(self.reader):
            if seconds >= self.stop:
                return
            if seconds >= self.start:
                if since_start % self.stride == 0:
                    yield Picture(index, seconds, name, read())
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


class Footage:
    """The frames of a video, ready to be adapted to, one after the other and the next one prepared by a thread.

    Args:
        video: the pictures
        keypoints: `mediapipe`, or the file or folder of OpenPose or AlphaPose
        person: the number of whom to follow, as `list_people` shows it; 0: the largest and most central at the start

    Attributes:
        frames: how many there will be, None if unknown; rate: frames/s; name: of the video

    Raises:
        UserError: see `open_keypoints`
    """

    def __init__(self, video: Video, keypoints: str, person: int = 0) -> None:
        self.video, self.person = video, person
        self.detector = open_keypoints(keypoints, video.numbered)
        self.keypoints = keypoints
        self.frames, self.rate, self.name = video.frames, video.rate, video.name

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches of one frame.

        `image` (1,3,224,224) normalised, `keypoints_2d` (1,49,3) in [-1,1] with confidence, `center` (1,2) px and
        `scale` (1,) of the crop, `keypoints_px` (1,49,3), `bridged` (1,) bool: the person is not seen, only where he
        was before and after. Where he is not there these are absent, and there are only `rgb` (1,H,W,3) uint8, `index`
        (1,), `time` (1,) s, `imgname`, `sequence` and `person` (1,).

        Raises UserError for a damaged video or file, and when nobody was followed to the end.
        """
        return ahead(self.prepared())

    def prepared(self) -> Iterator[dict[str, Any]]:
        """The same, each one prepared when it is asked for."""
        steady, followed, seen = SteadyBox(), False, np.zeros(len(JOINTS49))
        for picture, person, box, is_bridged in bridge(follow(self.video, self.detector, self.person, seen)):
            frame = {
                "rgb": picture.rgb,
                "index": picture.index,
                "time": picture.time,
                "imgname": picture.name,
                "sequence": self.name,
                "person": self.person,
            }
            if person is None:
                steady = SteadyBox()  # whoever comes back need not be where he was
            else:
                followed = True
                frame |= _cropped(picture.rgb, person, steady(box), is_bridged)
            # not default_collate, which copies the picture
            yield {key: [value] if isinstance(value, str) else _batch_of_one(value) for key, value in frame.items()}
        if not followed:
            raise UserError(self.nobody(seen))

    def nobody(self, seen: np.ndarray) -> str:
        """Why there is nobody to follow, where `seen` (49,) are the highest confidences of anybody's joints."""
        if self.person and seen.any():
            return f"{self.video.source}: there is no person {self.person}; --list_people shows who is there"
        return (
            f"{self.video.source}: nobody can be followed by --keypoints {self.keypoints}, as no frame has a person "
            f"with {MIN_JOINTS} confident joints of trunk and limbs; joints that were there: {joint_names(seen)}"
        )


def _batch_of_one(value: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(value)[None])


def _cropped(rgb: np.ndarray, person: np.ndarray, box: np.ndarray, is_bridged: bool) -> dict[str, Any]:
    crop = Crop(box[:2], box[2] / BOX_UNIT)
    low, high = crop.corners
    return {
        "image": normalise(crop.image(rgb)),
        "keypoints_2d": crop.exact_points(person),
        # of what was cut, which begins at whole pixels; from the edge of the image
        "center": (low + high) / 2,
        "scale": (high - low).mean() / BOX_UNIT,
        "keypoints_px": person.astype(np.float32),
        "bridged": is_bridged,
    }


def follow(
    video: Iterable[Picture], detector: Detector, number: int, seen: np.ndarray
) -> Iterator[tuple[Picture, np.ndarray | None]]:
    """Each picture with the followed person (49,3) px, None where he is not seen.

    Args:
        number: of the person; 0 chooses the most prominent one of the opening, or else the first to appear
        seen: (49,), gets the highest confidence of each joint of anybody
    """
    tracker, pictures = Tracker(), iter(video)
    opening, fame = [], defaultdict(float)
    for picture in islice(pictures, OPENING):
        people = _people(detector.everyone(*_known(picture)), picture, seen)
        numbers = tracker.update(people)
        for someone, person in zip(numbers, people, strict=True):
            fame[someone] += prominence(person, picture.rgb.shape[:2])
        opening.append((picture, dict(zip(numbers, people, strict=True))))
    number = number or max(fame, key=fame.__getitem__, default=0)
    while opening:
        picture, people = opening.pop(0)
        yield picture, people.get(number)
        del picture

    for picture in pictures:
        track = tracker.tracks.get(number)
        looks = detector.looks(*_known(picture), track.box) if track else [detector.everyone(*_known(picture))]
        for look in looks:
            people = _people(look, picture, seen)
            if number in tracker.match(people):
                break
        numbers = tracker.update(people)
        number = number or next(iter(numbers), 0)
        yield picture, dict(zip(numbers, people, strict=True)).get(number)


def _known(picture: Picture) -> tuple[int, str, np.ndarray]:
    return picture.index, picture.name, picture.rgb


def _people(found: np.ndarray, picture: Picture, seen: np.ndarray) -> np.ndarray:
    """Those of the found (N,49,3) who can be followed, the most prominent first."""
    seen[:] = np.maximum(seen, found[..., 2].max(axis=0, initial=0))
    people = [person for person in found if is_person(person)]
    people.sort(key=lambda person: -prominence(person, picture.rgb.shape[:2]))
    return np.array(people).reshape(-1, len(JOINTS49), 3)


def bridge(
    followed: Iterable[tuple[Picture, np.ndarray | None]],
) -> Iterator[tuple[Picture, np.ndarray | None, np.ndarray | None, bool]]:
    """Fill short gaps: picture, person (49,3), box (3,), and whether they are only interpolated.

    Interpolated joints have confidence 0, so that nothing is adapted to them. A long gap, and one before the person
    comes or after he has gone, stays: person and box are None.
    """
    before, gap = None, []
    for picture, person in followed:
        if person is None:
            gap.append(picture)
            if before is None or len(gap) > LONGEST_GAP:
                before = None
                yield from ((missed, None, None, False) for missed in gap)
                gap = []
            continue
        after = (person, box_of(person))
        for step, missed in enumerate(gap, start=1):
            share = step / (len(gap) + 1)
            between = [(1 - share) * old + share * new for old, new in zip(before, after, strict=True)]
            between[0][:, 2] = 0
            yield missed, *between, True
        gap, before = [], after
        yield picture, *after, False
    yield from ((missed, None, None, False) for missed in gap)


def list_people(footage: Footage, file: Path) -> str:
    """Write, and show, a picture of the opening with a number on each person -> what to tell the user.

    Raises UserError when nobody is there or the file cannot be written.
    """
    tracker, seen, best = Tracker(), np.zeros(len(JOINTS49)), None
    for picture in islice(footage.video, OPENING):
        people = _people(footage.detector.everyone(*_known(picture)), picture, seen)
        numbered = dict(zip(tracker.update(people), people, strict=True))
        if best is None or len(numbered) > len(best[1]):
            best = (picture, numbered)
    picture, numbered = best
    if not numbered:
        raise UserError(footage.nobody(seen))
    canvas = picture.rgb.copy()
    for number, person in numbered.items():
        x, y, side = box_of(person)
        corners = [(round(x + sign * side / 2), round(y + sign * side / 2)) for sign in (-1, 1)]
        cv2.rectangle(canvas, *corners, (255, 60, 60), 2)
        place = (max(corners[0][0], 0) + 6, max(corners[0][1], 0) + 34)
        cv2.putText(canvas, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 60, 60), 3)
    encoded = cv2.imencode(".png", canvas[..., ::-1])[1].tobytes()
    write_atomically(file, lambda temporary: temporary.write_bytes(encoded))
    if has_screen():
        Image.fromarray(canvas).show()
    people = ", ".join(map(str, sorted(numbered)))
    return f"{file} shows who is there at {picture.time:.1f} s: person {people}; choose one by --person"
