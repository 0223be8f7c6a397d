"""2D keypoints in files that a detector left: OpenPose's or AlphaPose's."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from footage.detection import stack, to_joints49
from footage.video import VideoFrame
from utils.errors import UserError
from utils.files import existing
from utils.joints import COCO17, HALPE26, OPENPOSE25

ALPHAPOSE = {len(COCO17): COCO17, len(HALPE26): HALPE26}


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

    def detect_all(self, frame: VideoFrame) -> np.ndarray:
        """People (N,49,3) of a frame; none where the files do not have it. Raises UserError for a damaged file."""
        found = self.frames.get(frame.index if self.numbered else Path(frame.name).stem, stack([]))
        return _read_openpose(found) if isinstance(found, Path) else found

    def detect_near(self, frame: VideoFrame, box: np.ndarray) -> Iterator[np.ndarray]:
        """The same: the detector looked at the whole frame."""
        yield self.detect_all(frame)


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


def _read_openpose(file: Path) -> np.ndarray:
    """One frame of OpenPose -> people (N,49,3)."""
    content = _read_json(file)
    wanted = "25 are needed: let OpenPose write BODY_25 (--model_pose BODY_25 --write_json)"
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise UserError(f"{file} is neither OpenPose's nor AlphaPose's: it has no list of people")
    tables = {len(OPENPOSE25): OPENPOSE25}
    return stack([_joints(file, person.get("pose_keypoints_2d"), tables, wanted) for person in people])


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
