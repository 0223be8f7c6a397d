"""What detectors write: OpenPose's file of a frame, AlphaPose's list and its other forms, and the joints in them."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from footage.detector import MIN_JOINTS, stack, to_joints49
from utils.errors import UserError
from utils.files import save_text
from utils.joints import COCO17, CONFIDENT, HALPE26, OPENPOSE15, OPENPOSE18, OPENPOSE25, OPENPOSE25B

# number of joints -> what they are called, and their names; those of hands and face come after these and are not read
_TABLES = {
    17: ("COCO", COCO17),
    26: ("Halpe", HALPE26),
    133: ("COCO-WholeBody", COCO17),
    136: ("full Halpe", HALPE26),
    15: ("OpenPose's MPI", OPENPOSE15),
    18: ("OpenPose's COCO", OPENPOSE18),
    25: ("BODY_25", OPENPOSE25),
    135: ("BODY_135", OPENPOSE25B),
}
_READ = "OpenPose's 25 (BODY_25, BODY_25B), 18 (COCO), 15 (MPI) or 135, AlphaPose's 17, 26, 133 or 136"
# where a file has its people, and a person their joints: OpenPose, OpenPose 1.2, AlphaPose's --format cmu
_PEOPLE = ("people", "bodies")
_JOINTS = ("pose_keypoints_2d", "pose_keypoints", "joints", "keypoints")
_NOT_PIXELS = 1.5  # px, within which nobody is; OpenPose's --keypoint_scale 3 and 4 give fractions
_OFF_THE_MIDDLE = 0.04  # of a person's size

RawPeople = list[np.ndarray]  # (R,3) each: x, y, confidence


def read_json(file: Path) -> object:
    """The content of a JSON file; UserError when it is damaged."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); let the detector write it again") from error


def save_frame(file: Path, people: np.ndarray) -> None:
    """Write people (N,49,3) as OpenPose writes those of a frame, its BODY_25."""
    joints = people[:, : len(OPENPOSE25)].reshape(len(people), -1).tolist()
    save_text(file, json.dumps({"people": [{"pose_keypoints_2d": person} for person in joints]}))


def is_frame(content: object) -> bool:
    """Whether it is a file of one frame, as OpenPose's."""
    return isinstance(content, dict) and any(isinstance(content.get(key), list) for key in _PEOPLE)


def is_list(content: object) -> bool:
    """Whether it is a list of many frames, as AlphaPose's, or a dictionary of such, as its --format open and cmu."""
    if isinstance(content, dict):
        return bool(content) and all(is_frame(frame) for frame in content.values())
    return isinstance(content, list)


def people_of_frame(content: object, file: Path) -> RawPeople:
    """The people in a file of one frame; UserError when it is none."""
    if not is_frame(content):
        raise UserError(f"{file} is neither OpenPose's nor AlphaPose's: it has no list of people")
    people = next(content[key] for key in _PEOPLE if isinstance(content.get(key), list))
    return [_joints(person, file) for person in people]


def people_of_list(content: object, file: Path) -> dict[str, RawPeople]:
    """The people in a list of many frames, by the name of the image; UserError when it is none."""
    if not content:
        raise UserError(f"{file} holds no person; check the clip that AlphaPose was given")
    if isinstance(content, dict):
        return {image: people_of_frame(frame, file) for image, frame in content.items()}
    by_image = defaultdict[str, RawPeople](list)
    for detection in content:
        if not isinstance(detection, dict) or not isinstance(detection.get("image_id"), str | int):
            raise UserError(f"{file} is not AlphaPose's: an entry has no image_id")
        by_image[str(detection["image_id"])].append(_joints(detection, file))
    return dict(by_image)


def _joints(person: object, file: Path) -> np.ndarray:
    """x, y, confidence (R,3) of one person as they stand in a file."""
    if not isinstance(person, dict):
        raise UserError(f"{file} is neither OpenPose's nor AlphaPose's: its people are no dictionaries")
    key = next((key for key in _JOINTS if key in person), None)
    if key is None:
        has = ", ".join(map(repr, list(person)[:5])) or "nothing"
        raise UserError(f"{file}: a person has no {' or '.join(_JOINTS[:2])}, only {has}; it has another format")
    try:
        joints = np.asarray(person[key], float).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{file} holds keypoints that are not x, y, confidence ({error}); let it be written again"
        ) from error
    if len(joints) not in _TABLES:
        raise UserError(f"{file} holds {len(joints)} joints a person; what can be read are {_READ}")
    return joints


class Skeleton:
    """Which joints a detector's rows are, and that they are pixels.

    Args:
        people: some of the files', to tell BODY_25 and BODY_25B apart by, which both have 25
        origin: of the files

    Raises:
        UserError: the coordinates are no pixels
    """

    def __init__(self, people: RawPeople, origin: Path) -> None:
        confident = [person[person[:, 2] > CONFIDENT, :2] for person in people]
        points = np.concatenate([np.zeros((0, 2)), *(points for points in confident if len(points) >= MIN_JOINTS)])
        if len(points) and np.abs(points).max() <= _NOT_PIXELS:
            raise UserError(
                f"{origin}: its coordinates, up to {points.max():.2g}, are fractions of the image and no pixels; "
                "let OpenPose write these by --keypoint_scale 0"
            )
        self.is_25b = is_body_25b([person for person in people if len(person) == len(OPENPOSE25)])
        self.counts = sorted({len(person) for person in people})

    @property
    def name(self) -> str:
        """How the joints are called."""
        return "BODY_25B" if self.is_25b else ", ".join(_TABLES[count][0] for count in self.counts)

    def people(self, raw: RawPeople) -> np.ndarray:
        """People as they stand in a file -> (N,49,3)."""
        return stack([self._person(joints) for joints in raw])

    def _person(self, joints: np.ndarray) -> np.ndarray:
        table = OPENPOSE25B if self.is_25b and len(joints) == len(OPENPOSE25) else _TABLES[len(joints)][1]
        return to_joints49(joints[None, : len(table)], table)[0]


def is_body_25b(people: Sequence[np.ndarray]) -> bool:
    """Whether people (25,3) are OpenPose's BODY_25B and not its BODY_25.

    In BODY_25 joint 1, the neck, is the middle of the shoulders 2 and 5, and joint 8 that of the hips 9 and 12; in
    BODY_25B these are a left eye and a right elbow.
    """
    distances = []
    for person in people:
        seen, points = person[:, 2] > CONFIDENT, person[:, :2]
        for middle, one, other in ((1, 2, 5), (8, 9, 12)):
            if seen[[middle, one, other]].all():
                away = np.linalg.norm(points[middle] - (points[one] + points[other]) / 2)
                distances.append(away / max(np.ptp(points[seen], axis=0).max(), 1e-9))
    return bool(distances) and float(np.median(distances)) > _OFF_THE_MIDDLE
