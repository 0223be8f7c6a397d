"""MediaPipe's pose (BlazePose) as a detector of people."""

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from footage.detector import is_person, stack, to_joints49
from footage.sources import VideoFrame
from utils.errors import UserError
from utils.joints import MEDIAPIPE33

if TYPE_CHECKING:
    from mediapipe.python.solutions.pose import Pose

MOST_PEOPLE = 5  # that are looked for in a frame
NEAR, FAR = 1.5, 3.0  # sides of what is shown of a frame, over that of the person's box
_INSTALL = "run `pip install --no-deps -r requirements-video.txt`, or give --keypoints OpenPose's or AlphaPose's files"


class MediaPipe:
    """It sees one person in an image, so that it is given the surroundings of one.

    Raises UserError when it is not installed.
    """

    def __init__(self) -> None:
        with _silenced():
            try:
                from mediapipe.python.solutions.pose import Pose
            except ImportError as error:
                raise UserError(f"--keypoints mediapipe: MediaPipe is not there ({error}); {_INSTALL}") from error
            # one that takes each image by itself, and one that goes on from where the person was, twice as fast; its
            # own smoothing would lag behind, since the surroundings move with the person
            self.still = Pose(model_complexity=1, static_image_mode=True)
            _warm_up(self.still)
            self.make_moving = partial(Pose, model_complexity=1, smooth_landmarks=False)
        self.renew()

    def renew(self) -> None:
        """Start afresh: what was seen before does not count any more."""
        with _silenced():
            self.moving = self.make_moving()
            _warm_up(self.moving)
        self.following = False  # whether the person was last seen near the box

    def detect_all(self, frame: VideoFrame) -> np.ndarray:
        """People (N,49,3) of a frame: whoever was found is painted over, to look for the next."""
        canvas, people = frame.rgb.copy(), []
        for _ in range(MOST_PEOPLE):
            found = self._detect(self.still, canvas)
            if not len(found) or not is_person(found[0]):
                break
            people.append(found[0])
            seen = found[0][found[0][:, 2] > 0, :2]
            (x0, y0), (x1, y1) = np.clip([seen.min(0), seen.max(0)], 0, canvas.shape[1::-1]).astype(int)
            canvas[y0 : y1 + 1, x0 : x1 + 1] = 128
        self.following = False
        return stack(people)

    def detect_near(self, frame: VideoFrame, box: np.ndarray) -> Iterator[np.ndarray]:
        """Who is around box (center x, y, side; px); and, to whoever asks again, farther around, in the whole image."""
        pose = self.moving if self.following else self.still
        self.following = True
        yield self._around(pose, frame.rgb, box[:2], NEAR * box[2])
        self.following = False
        yield self._around(self.still, frame.rgb, box[:2], FAR * box[2])
        yield self._detect(self.still, frame.rgb)

    def detect_alone(self, rgb: np.ndarray) -> np.ndarray:
        """Whoever is seen first in an image (H,W,3) that belongs to no video, people (0 or 1,49,3)."""
        return self._detect(self.still, rgb)

    def facts(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def warnings(self) -> list[str]:
        """Nothing."""
        return []

    def _around(self, pose: "Pose", rgb: np.ndarray, center: np.ndarray, side: float) -> np.ndarray:
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

    def _detect(self, pose: "Pose", rgb: np.ndarray) -> np.ndarray:
        landmarks = pose.process(rgb).pose_landmarks
        if landmarks is None:
            return stack([])
        height, width = rgb.shape[:2]
        joints = np.array([[mark.x * width, mark.y * height, mark.visibility] for mark in landmarks.landmark])
        return to_joints49(joints[None] - [0.5, 0.5, 0], MEDIAPIPE33)


def _warm_up(pose: "Pose") -> None:
    """Let it find somebody, and then nobody: its networks announce themselves on the screen at their first use."""
    figure = _draw_figure()
    for image in (figure, np.zeros_like(figure)):
        pose.process(image)


def _draw_figure() -> np.ndarray:
    """Somebody in front view (256,256,3), drawn well enough to be found."""
    image, skin, shirt, trousers, middle = (
        np.full((256, 256, 3), 210, np.uint8),
        (200, 160, 130),
        (60, 80, 160),
        45,
        128,
    )
    cv2.ellipse(image, (middle, 48), (15, 20), 0, 0, 360, skin, -1)
    cv2.ellipse(image, (middle, 36), (16, 12), 0, 0, 360, (50, 35, 25), -1)  # hair
    cv2.ellipse(image, (middle, 60), (5, 2), 0, 0, 360, (150, 70, 70), -1)  # mouth
    cv2.rectangle(image, (middle - 6, 64), (middle + 6, 78), skin, -1)
    trunk = np.array([(-30, 78), (30, 78), (22, 145), (-22, 145)]) + [middle, 0]
    cv2.fillPoly(image, [trunk], shirt)
    limbs = [((27, 84), (36, 118), shirt, 14), ((36, 118), (38, 150), skin, 9)]
    limbs += [((12, 145), (14, 190), trousers, 18), ((14, 190), (14, 232), trousers, 14)]
    for side in (-1, 1):
        cv2.circle(image, (middle + 5 * side, 47), 2, (30, 30, 30), -1)  # eye
        for start, end, colour, width in limbs:
            cv2.line(image, *((middle + side * x, y) for x, y in (start, end)), colour, width)
        cv2.ellipse(image, (middle + 18 * side, 238), (11, 5), 0, 0, 360, (20, 20, 20), -1)  # shoe
    return image


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
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
