"""The one person who is followed through a video, frame by frame, ready to be adapted to.

Nothing is kept but the frames of the start, in which it is decided whom to follow, and those of a gap.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from footage.detector import MIN_JOINTS, Detector, is_person, stack
from footage.formats import save_frame
from footage.keypoints import KeypointFiles
from footage.left_right import Kept, Misfit, SidesKept, as_it_is
from footage.live import Live
from footage.mediapipe import MediaPipe
from footage.remembered import RememberedDetector
from footage.sources import VideoFrame
from footage.tracking import SteadyBox, Tracker, box_of, prominence
from footage.video import Video
from utils.device import has_screen
from utils.errors import UserError
from utils.files import write_atomically
from utils.image import BOX_UNIT, Crop, normalise
from utils.joints import JOINTS49, joint_names
from utils.prefetch import ahead
from utils.structures import Frame

START_FRAMES = 10  # in which it is decided whom to follow
LONGEST_GAP = 10  # frames without the person that are bridged
SMALLEST_BOX = 4.0  # px, side of a person who can be followed
NOBODY = np.zeros((len(JOINTS49), 3))
_LARGEST_PATCH = 4096  # px, side of what is cut out of an image; larger boxes are cut out of a smaller copy


def open_detector(keypoints: str, video: Video, first_frame: int = -1) -> Detector:
    """Open what `--keypoints` names: mediapipe, a file, or a folder; its first entry is of `first_frame` (-1: find it).

    Raises UserError when MediaPipe is not installed, or a file is missing or damaged, of another format, or without
    people, or when it is not clear which frames its entries are of.
    """
    return MediaPipe() if keypoints == "mediapipe" else KeypointFiles(Path(keypoints), video, first_frame)


class Footage:
    """The frames of a video, ready to be adapted to, one after the other and the next one prepared by a thread.

    Args:
        video: its frames
        keypoints: `mediapipe`, or the file or folder of OpenPose or AlphaPose
        person: the number of whom to follow, as `list_people` shows it; 0: the largest and most central at the start
        first_frame: number of the frame, from 0, that the first entry of keypoint files is of; -1: find it
        misfit: what a network says of left and right (footage.left_right); None: none is asked

    Attributes:
        rate: frames/s; name: of the video
        live: what keeps a camera's frames fresh; None for what is recorded
        with_image: whether frames shall have what is shown of them, which not every network looks at

    Raises:
        UserError: see `open_detector`
    """

    def __init__(
        self, video: Video, keypoints: str, person: int = 0, first_frame: int = -1, misfit: Misfit | None = None
    ) -> None:
        self.video, self.person, self.misfit = video, person, misfit
        self.detector = open_detector(keypoints, video, first_frame)
        self.keypoints = keypoints
        self.with_image = True
        self.live = Live(video.reader.age, video.stride) if video.is_camera else None
        self.rate, self.name = video.rate, video.name

    @property
    def frames(self) -> int | None:
        """How many there will be, None if unknown; once all were given, how many there were."""
        return self.video.frames

    def facts(self) -> dict[str, object]:
        """What was not as it should be up to now in video and keypoints, for summary.json."""
        live = self.live.facts() if self.live else {}
        return {**self.video.facts(), **self.detector.facts(), **live}

    def warnings(self) -> list[str]:
        """The same in words, a line each, for who started the run."""
        live = self.live.warnings() if self.live else []
        return [*self.video.warnings(), *self.detector.warnings(), *live]

    def __iter__(self) -> Iterator[Frame]:
        """Batches of one frame.

        `image` (1,3,224,224) normalised, `keypoints_2d` (1,49,3) in [-1,1] with confidence, `center` (1,2) px and
        `scale` (1,) of the crop, `keypoints_px` (1,49,3), `bridged` (1,) bool: the person is not seen, only where they
        were before and after; `exchanged` and `dropped` (1,) say what was made of the joints. Where they are not there
        these are absent, and there are only `rgb` (1,H,W,3) uint8,
        `index` (1,), `time` (1,) s, `imgname`, `sequence` and `person` (1,).

        Raises UserError for a damaged video or file, and when nobody was followed to the end.
        """
        return self.after(0)

    def after(self, count: int) -> Iterator[Frame]:
        """The same without the first `count`, whose people are followed all the same."""
        prepared = self.prepared(count)
        return self.live.frames(prepared) if self.live else ahead(prepared)

    def remember(self, file: Path, goes_on: bool) -> None:
        """Keep what a detector finds in a file; `goes_on`: begin with what it holds."""
        if isinstance(self.detector, MediaPipe):
            self.detector = RememberedDetector(self.detector, file, goes_on)

    def prepared(self, first: int = 0) -> Iterator[Frame]:
        """The same from number `first` on, each one prepared when it is asked for."""
        steady, is_followed, seen = SteadyBox(), False, np.zeros(len(JOINTS49))
        # what is live can wait neither for who else comes nor for who comes back
        start, longest = (1, 0) if self.live else (START_FRAMES, LONGEST_GAP)
        video = self.video if self.live else ahead(iter(self.video))
        people = follow(video, self.detector, self.person, seen, start)
        straighten = partial(SidesKept(self.rate), misfit=self.misfit)
        for number, followed in enumerate(bridge(people, straighten, longest)):
            batch = self._batch(followed.frame)
            if followed.person is None:
                steady = SteadyBox()  # whoever comes back need not be where they were
            else:
                is_followed, box = True, steady(followed.box)
                if number >= first:
                    batch |= _cropped(followed, box, self.with_image)
            if number >= first:
                yield batch
        if not is_followed:
            raise UserError(self.nobody(seen))

    def _batch(self, frame: VideoFrame) -> Frame:
        # not default_collate, which copies the image
        return {
            "rgb": torch.from_numpy(frame.rgb[None]),
            "index": torch.tensor([frame.index]),
            "time": torch.tensor([frame.time], dtype=torch.float64),
            "imgname": [frame.name],
            "sequence": [self.name],
            "person": torch.tensor([self.person]),
        }

    def nobody(self, seen: np.ndarray) -> str:
        """Why there is nobody to follow, where `seen` (49,) are the highest confidences of anybody's joints."""
        if self.person and seen.any():
            return f"{self.video.source}: there is no person {self.person}; --list_people shows who is there"
        return (
            f"{self.video.source}: nobody can be followed by --keypoints {self.keypoints}, as no frame has a person "
            f"with {MIN_JOINTS} confident joints of trunk and limbs; joints that were there: {joint_names(seen)}"
        )


class Followed(NamedTuple):
    """A frame with the person (49,3) px and their box (3,), both None where they are not there.

    `bridged`: they are not seen, only where they were before and after; `exchanged`, `dropped`: as of Kept.
    """

    frame: VideoFrame
    person: np.ndarray | None
    box: np.ndarray | None
    bridged: bool = False
    exchanged: tuple[str, ...] = ()
    dropped: int = 0


def _cropped(followed: Followed, box: np.ndarray, with_image: bool) -> Frame:
    """What is shown of a frame through a box (3,): the image, if it is wanted, its joints, and where it is."""
    crop = Crop(box[:2], box[2] / BOX_UNIT)
    low, high = crop.corners
    image = {"image": torch.from_numpy(normalise(_cut(followed.frame.rgb, box))[None])} if with_image else {}
    return {
        **image,
        "keypoints_2d": torch.from_numpy(crop.exact_points(followed.person)[None]),
        # of what was cut, which begins at whole pixels; from the edge of the image
        "center": torch.from_numpy((low + high)[None] / 2),
        "scale": torch.tensor([(high - low).mean() / BOX_UNIT], dtype=torch.float64),
        "keypoints_px": torch.from_numpy(followed.person.astype(np.float32)[None]),
        "bridged": torch.tensor([followed.bridged]),
        "exchanged": [", ".join(followed.exchanged)],
        "dropped": torch.tensor([followed.dropped]),
    }


def _cut(rgb: np.ndarray, box: np.ndarray) -> np.ndarray:
    """What an image (H,W,3) shows in a box (3,), (224,224,3) in 0-255, whatever its size."""
    zoom = min(1.0, _LARGEST_PATCH / box[2])
    if zoom < 1:
        rgb = cv2.resize(rgb, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    return Crop(box[:2] * zoom, box[2] * zoom / BOX_UNIT).image(rgb)


def follow(
    video: Iterable[VideoFrame], detector: Detector, number: int, seen: np.ndarray, start_frames: int = START_FRAMES
) -> Iterator[tuple[VideoFrame, np.ndarray | None]]:
    """Each frame with the followed person (49,3) px, None where they are not seen.

    Args:
        number: of the person; 0 chooses the most prominent one of the start, or else the first to appear
        seen: (49,), gets the highest confidence of each joint of anybody
        start_frames: in which it is decided whom to follow
    """
    tracker, frames = Tracker(), iter(video)
    start, prominences = [], defaultdict[int, float](float)
    for frame in islice(frames, start_frames):
        people = _to_follow(detector.detect_all(frame), frame, seen)
        by_number = dict(zip(tracker.update(people), people, strict=True))
        for someone, person in by_number.items():
            prominences[someone] += prominence(person, frame.rgb.shape[:2])
        start.append((frame, by_number))
    number = number or max(prominences, key=prominences.__getitem__, default=0)
    while start:
        frame, by_number = start.pop(0)
        yield frame, by_number.get(number)
        del frame  # it would be kept for as long as the next is waited for

    for frame in frames:
        tracker.miss(frame.dropped)
        track = tracker.tracks.get(number)
        attempts = detector.detect_near(frame, track.box) if track else [detector.detect_all(frame)]
        for found in attempts:
            people = _to_follow(found, frame, seen)
            if number in tracker.match(people):
                break
        numbers = tracker.update(people)
        number = number or next(iter(numbers), 0)
        yield frame, dict(zip(numbers, people, strict=True)).get(number)


class Found(NamedTuple):
    """Who is in a clip: the number of its `first` frame, and in how many everybody is `seen`, by their numbers."""

    first: int
    seen: dict[int, int]


def find_people(footage: Footage, kept: Path | None = None) -> Found:
    """Go through a clip and tell everybody in it apart.

    Args:
        footage: the clip; its `person` does not count
        kept: gets what the detector finds in each frame, as files of OpenPose

    Raises UserError for a damaged video or file, and when nobody is there.
    """
    tracker, seen, first, frames = Tracker(), np.zeros(len(JOINTS49)), -1, Counter[int]()
    for frame in tqdm(footage.video, total=footage.frames, unit=" frames", desc="who is there"):
        found = footage.detector.detect_all(frame)
        if kept:
            save_frame(kept / f"frame_{frame.index:012d}_keypoints.json", found)
        first = frame.index if first < 0 else first
        frames.update(tracker.update(_to_follow(found, frame, seen)))
    if not frames:
        raise UserError(footage.nobody(seen))
    return Found(first, dict(sorted(frames.items())))


def _to_follow(found: np.ndarray, frame: VideoFrame, seen: np.ndarray) -> np.ndarray:
    """Those of the found (N,49,3) who can be followed, the most prominent first."""
    seen[:] = np.maximum(seen, found[..., 2].max(axis=0, initial=0))
    people = [person for person in found if is_person(person) and box_of(person)[2] >= SMALLEST_BOX]
    return stack(sorted(people, key=lambda person: -prominence(person, frame.rgb.shape[:2])))


def bridge(
    followed: Iterable[tuple[VideoFrame, np.ndarray | None]],
    straighten: Callable[[np.ndarray], Kept] = as_it_is,
    longest: int = LONGEST_GAP,
) -> Iterator[Followed]:
    """Fill short gaps.

    A long gap, and one before the person comes or after they have gone, stays: person and box are None.

    Args:
        straighten: puts left and right of a person (49,3) straight, all 0 where they are not seen
        longest: frames of a gap that is filled
    """
    before, gap = None, []
    for frame, person in followed:
        for _ in range(frame.dropped):
            straighten(NOBODY)
        kept = straighten(NOBODY if person is None else person)
        if person is None:
            gap.append(frame)
            if before is None or len(gap) > longest:
                before = None
                yield from (Followed(missed, None, None) for missed in gap)
                gap = []
            continue
        after = (kept.joints, box_of(person))
        for step, missed in enumerate(gap, start=1):
            fraction = step / (len(gap) + 1)
            between = [(1 - fraction) * old + fraction * new for old, new in zip(before, after, strict=True)]
            between[0][:, 2] = np.minimum(before[0][:, 2], kept.joints[:, 2])
            yield Followed(missed, *between, bridged=True)
        gap, before = [], after
        yield Followed(frame, *after, exchanged=kept.exchanged, dropped=kept.dropped)
    yield from (Followed(missed, None, None) for missed in gap)


def list_people(footage: Footage, file: Path) -> str:
    """Write, and show, an image of the start with a number on each person -> what to tell the user.

    Raises UserError when nobody is there or the file cannot be written.
    """
    tracker, seen, best = Tracker(), np.zeros(len(JOINTS49)), None
    for frame in islice(footage.video, START_FRAMES):
        people = _to_follow(footage.detector.detect_all(frame), frame, seen)
        by_number = dict(zip(tracker.update(people), people, strict=True))
        if best is None or len(by_number) > len(best[1]):
            best = (frame, by_number)
    frame, by_number = best
    if not by_number:
        raise UserError(footage.nobody(seen))
    canvas = _draw_numbers(frame.rgb, by_number)
    encoded = cv2.imencode(".png", canvas[..., ::-1])[1].tobytes()
    write_atomically(file, lambda temporary: temporary.write_bytes(encoded))
    if has_screen():
        Image.fromarray(canvas).show()
    numbers = ", ".join(map(str, sorted(by_number)))
    return f"{file} shows who is there at {frame.time:.1f} s: person {numbers}; choose one by --person"


def _draw_numbers(rgb: np.ndarray, by_number: dict[int, np.ndarray]) -> np.ndarray:
    """A copy of an image with a box and a number around each person (49,3)."""
    canvas, colour = rgb.copy(), (255, 60, 60)
    for number, person in by_number.items():
        x, y, side = box_of(person)
        low, high = ((round(x + sign * side / 2), round(y + sign * side / 2)) for sign in (-1, 1))
        cv2.rectangle(canvas, low, high, colour, 2)
        place = (max(low[0], 0) + 6, max(low[1], 0) + 34)
        cv2.putText(canvas, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 1.2, colour, 3)
    return canvas
