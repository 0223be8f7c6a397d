"""2D keypoints that somebody's detector found: MediaPipe here and now, or files of OpenPose and AlphaPose.

Every reader gives people (N,49,3): x and y in px of the image, the centre of the first pixel at 0, and confidence; the
rows are those of utils.joints.JOINTS49. A joint that the detector does not have, or did not find, is 0, 0, 0.
"""

import contextlib
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import existing
from utils.joints import COCO17, CONFIDENT, HALPE26, JOINTS49, MEDIAPIPE33, OPENPOSE25, same_joint_rows

MIN_JOINTS = 4  # confident ones among TRUNK_AND_LIMBS, that a person must have to be followed
TRUNK_AND_LIMBS = slice(0, 15)  # of OpenPose's rows, without eyes, ears and feet
MOST_PEOPLE = 5  # that MediaPipe is asked for
NEAR, FAR = 1.5, 3.0  # sides of what MediaPipe is shown, over that of the person's box
ALPHAPOSE = {len(COCO17): COCO17, len(HALPE26): HALPE26}
_INSTALL = "run `pip install --no-deps -r requirements-video.txt`, or give --keypoints OpenPose's or AlphaPose's files"


def to_joints49(points: np.ndarray, table: Sequence[str]) -> np.ndarray:
    """Joints (N,R,3) of a detector, in the order of its table -> people (N,49,3); the same joint fills all its rows."""
    people = np.zeros((len(points), len(JOINTS49), 3))
    for row, name in enumerate(table):
        if name:
            people[:, same_joint_rows(name)] = points[:, row, None]
    people[~np.isfinite(people).all(axis=2) | (people[..., 2] <= 0)] = 0
    return people


def is_person(person: np.ndarray) -> bool:
    """Whether enough joints of a person (49,3) are confident to be followed."""
    return int((person[TRUNK_AND_LIMBS, 2] > CONFIDENT).sum()) >= MIN_JOINTS


def open_keypoints(source: str, numbered: bool) -> "KeypointFiles | MediaPipe":
    """Open what `--keypoints` names: mediapipe, a file or a folder.

    Args:
        source: `mediapipe` or a path
        numbered: whether frames are those of a clip, known by number, or pictures, known by name

    Raises:
        UserError: MediaPipe is not installed; a file is missing or damaged, of another format, or without people
    """
    return MediaPipe() if source == "mediapipe" else KeypointFiles(Path(source), numbered)


class KeypointFiles:
    """OpenPose's BODY_25 files, one for each frame, or AlphaPose's one list with 17 (COCO) or 26 (Halpe) joints.

    Frames of a clip are found by the last number in the file's or image's name, counted from 0 as both programs do, or
    from 1 where there is no 0; pictures by their name.
    """

    def __init__(self, path: Path, numbered: bool) -> None:
        existing(path, "name the detector's file or folder by --keypoints")
        self.path, self.numbered = path, numbered
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path} holds no .json file; name the detector's file or folder by --keypoints")
        first = _read_json(files[0])
        # frame -> OpenPose's file, read when it is needed, or AlphaPose's people
        self.frames: dict[int | str, Path | np.ndarray]
        if isinstance(first, list):
            self.frames = self._by_frame(_read_alphapose(files[0], first))
        elif path.is_dir():
            self.frames = self._by_frame({file.name: file for file in files})
        else:  # of the only picture, whatever its name
            self.frames, self.numbered = {0: path}, True

    def _by_frame(self, by_name: dict[str, Any]) -> dict[int | str, Any]:
        stems = {name: Path(name).stem.removesuffix("_keypoints") for name in by_name}
        if not self.numbered:
            return {stems[name]: value for name, value in by_name.items()}
        numbers = {}
        for name, stem in stems.items():
            found = re.findall(r"\d+", stem)
            if not found:
                raise UserError(f"{self.path}: {name} has no number that says which frame of the clip it is")
            numbers[name] = int(found[-1])
        start = 1 if min(numbers.values()) == 1 else 0
        return {numbers[name] - start: value for name, value in by_name.items()}

    def everyone(self, index: int, name: str, rgb: np.ndarray) -> np.ndarray:
        """People (N,49,3) of a frame; none where the files do not have it. Raises UserError for a damaged file."""
        found = self.frames.get(index if self.numbered else Path(name).stem, _stack([]))
        return _read_openpose(found) if isinstance(found, Path) else found

    def looks(self, index: int, name: str, rgb: np.ndarray, box: np.ndarray) -> Iterator[np.ndarray]:
        """The same, as the only look at the frame."""
        yield self.everyone(index, name, rgb)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); let the detector write it again") from error


def _joints(file: Path, numbers: Any, tables: dict[int, list[str]], wanted: str) -> np.ndarray:
    """x, y, confidence of one person as they stand in a file -> (49,3)."""
    try:
        joints = np.asarray(numbers, float).reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file} holds keypoints that are not x, y, confidence ({error}); {wanted}") from error
    if len(joints) not in tables:
        raise UserError(f"{file} holds {len(joints)} joints a person; {wanted}")
    return to_joints49(joints[None], tables[len(joints)])[0]


def _stack(people: list[np.ndarray]) -> np.ndarray:
    return np.stack(people) if people else np.zeros((0, len(JOINTS49), 3))


def _read_openpose(file: Path) -> np.ndarray:
    """One frame of OpenPose -> people (N,49,3)."""
    content = _read_json(file)
    wanted = "25 are needed: let OpenPose write BODY_25 (--model_pose BODY_25 --write_json)"
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise UserError(f"{file} is neither OpenPose's nor AlphaPose's: it has no list of people")
    tables = {len(OPENPOSE25): OPENPOSE25}
    return _stack([_joints(file, person.get("pose_keypoints_2d"), tables, wanted) for person in people])


def _read_alphapose(file: Path, detections: list[Any]) -> dict[str, np.ndarray]:
    """The people of each image of AlphaPose's list."""
    if not detections:
        raise UserError(f"{file} holds no person; check the clip that AlphaPose was given")
    by_image = defaultdict(list)
    wanted = "17 (COCO) or 26 (Halpe) are needed"
    for detection in detections:
        if not isinstance(detection, dict) or "image_id" not in detection:
            raise UserError(f"{file} is not AlphaPose's: an entry has no image_id")
        joints = _joints(file, detection.get("keypoints"), ALPHAPOSE, wanted)
        by_image[str(detection["image_id"])].append(joints)
    return {image: np.stack(people) for image, people in by_image.items()}


class MediaPipe:
    """MediaPipe's pose (BlazePose). It sees one person in a picture, so that it is given the surroundings of one.

    Raises UserError when it is not installed.
    """

    def __init__(self) -> None:
        with _quiet():
            try:
                from mediapipe.python.solutions.pose import Pose
            except ImportError as error:
                raise UserError(f"--keypoints mediapipe: MediaPipe is not there ({error}); {_INSTALL}") from error
            # one that takes each picture by itself, and one that goes on from where the person was, twice as fast; its
            # own smoothing would lag behind, since the surroundings move with the person
            self.still = Pose(model_complexity=1, static_image_mode=True)
            self.moving = Pose(model_complexity=1, smooth_landmarks=False)
            self.new = {self.still, self.moving}  # who has seen nobody yet
            for pose in self.new:
                pose.process(np.zeros((64, 64, 3), np.uint8))
        self.following = False  # whether the last look was at the person's surroundings and was enough

    def everyone(self, index: int, name: str, rgb: np.ndarray) -> np.ndarray:
        """People (N,49,3) of a frame: whoever was found is painted over, to look for the next."""
        canvas, people = rgb.copy(), []
        for _ in range(MOST_PEOPLE):
            found = self._detect(self.still, canvas)
            if not len(found) or not is_person(found[0]):
                break
            people.append(found[0])
            seen = found[0][found[0][:, 2] > 0, :2]
            (x0, y0), (x1, y1) = np.clip([seen.min(0), seen.max(0)], 0, rgb.shape[1::-1]).astype(int)
            canvas[y0 : y1 + 1, x0 : x1 + 1] = 128
        self.following = False
        return _stack(people)

    def looks(self, index: int, name: str, rgb: np.ndarray, box: np.ndarray) -> Iterator[np.ndarray]:
        """Who is around box (center x, y, side; px); and, to whoever asks again, farther around, in the whole image."""
        pose = self.moving if self.following else self.still
        self.following = True
        yield self._around(pose, rgb, box[:2], NEAR * box[2])
        self.following = False
        yield self._around(self.still, rgb, box[:2], FAR * box[2])
        yield self._detect(self.still, rgb)

    def _around(self, pose: Any, rgb: np.ndarray, center: np.ndarray, side: float) -> np.ndarray:
        """Look at a square of the image, black where it leaves it."""
        low = np.round(center - side / 2).astype(int)
        size = max(round(side), 1)
        patch = np.zeros((size, size, 3), np.uint8)
        x0, y0 = np.maximum(low, 0)
        inside = rgb[y0 : max(low[1] + size, 0), x0 : max(low[0] + size, 0)]
        height, width = inside.shape[:2]
        top, left = np.maximum(-low, 0)[::-1]
        patch[top : top + height, left : left + width] = inside
        people = self._detect(pose, patch)
        people[..., :2] += low * (people[..., 2:] > 0)
        return people

    def _detect(self, pose: Any, rgb: np.ndarray) -> np.ndarray:
        with _quiet() if pose in self.new else contextlib.nullcontext():
            landmarks = pose.process(rgb).pose_landmarks
        if landmarks is None:
            return _stack([])
        self.new.discard(pose)
        height, width = rgb.shape[:2]
        joints = np.array([[mark.x * width, mark.y * height, mark.visibility] for mark in landmarks.landmark])
        return to_joints49(joints[None] - [0.5, 0.5, 0], MEDIAPIPE33)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on stderr for a while: MediaPipe's libraries write there from C++, whatever Python's logging says."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
