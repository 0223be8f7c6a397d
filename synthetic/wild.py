"""A labelled source for base models that are to work on real footage: everything the renderer can vary.

Cameras near and far, high, low and tilted; people in any clothes that do every kind of motion, whole or cut off by the
edge of the image; other people; courts, walls, fences, stands, streets and mere clutter behind; rackets and bags;
blur, noise, compression and colour casts. Training and validation share no person, no clip and no camera.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from synthetic.camera import FRAME_SIZE, Camera, look_at
from synthetic.figure import FRAME_RATE, wander
from synthetic.motions import KINDS, source_poses
from synthetic.person import FEET, Person, draw_person
from synthetic.props import Props
from synthetic.samples import BOX_ENLARGE, SPLITS, Rendered, in_camera, labelled, with_confidence
from synthetic.scene import Scene
from utils.geometry import CROP_SIZE
from utils.image import BOX_UNIT, box_around
from utils.joints import JOINTS49, rows

CLIPS = 30
WILD_PEOPLE = 400
VIEWS = 4000  # of a camera
FLAT_FRACTION = 0.3  # of the images have mere clutter behind the person
CUT_FRACTION = 0.3  # of the images show a part of the person
HELD_FRACTION = 0.3
PICTURE_SIZES = (200, 560)  # px, of pictures that a detector is tried on
EDGE_FRACTION = 0.12  # of the images end, black, before the crop does
# what a crop may show: joints that stay in the image
PARTS = [
    [name for name in JOINTS49 if not any(part in name for part in hidden)]
    for hidden in (
        ("Ankle", "Heel", "Toe"),
        ("Ankle", "Heel", "Toe", "Knee"),
        ("Ankle", "Heel", "Toe", "Knee", "Wrist", "RElbow", "LElbow"),
        ("LAnkle", "LKnee", "LHip", "LWrist", "LElbow", "LHeel", "LBigToe", "LSmallToe", "Left"),
        ("RAnkle", "RKnee", "RHip", "RWrist", "RElbow", "RHeel", "RBigToe", "RSmallToe", "Right"),
    )
]


class Wild(Rendered):
    """The source, rendered on the fly.

    Args:
        body_dir: folder with the free body, as data/demo
        split: train or validation, which share no person, no clip and no camera
        clips: of each kind of motion
    """

    def __init__(self, body_dir: Path, split: str = "train", clips: int = CLIPS):
        rng = np.random.default_rng([3, SPLITS.index(split)])
        poses = source_poses(rng, clips, kinds=KINDS)
        super().__init__(body_dir, poses, np.clip(rng.normal(0, 1.1, (WILD_PEOPLE, 10)), -2.5, 2.5))
        self._props = Props(rng, body_dir)
        # distance m, elevation, roll, and how far off its axis the person is, radians
        self.views = np.stack(
            [
                np.exp(rng.uniform(np.log(2.0), np.log(14.0), VIEWS)),
                np.radians(np.clip(rng.normal(6, 13, VIEWS), -18, 60)),
                np.radians(rng.normal(0, np.where(rng.random(VIEWS) < 0.2, 15, 3))),
                *np.radians(rng.normal(0, 4, (2, VIEWS))),
            ],
            axis=1,
        )

    def sample(
        self, rng: np.random.Generator, size: int = CROP_SIZE, enlarge: float = BOX_ENLARGE
    ) -> dict[str, np.ndarray]:
        """As described in Rendered; the confidence of a joint outside of the image is 0."""
        betas, rotmat = self._someone(rng)
        person = Person(self._body, betas, *self._wardrobe.wild_outfit(rng))
        vertices, skeleton = self._body(rotmat, person.shaped)
        joints = self._body.joints49(vertices, skeleton)
        in_the_air = rng.uniform(0, 0.35) if rng.random() < 0.1 else 0.0
        place = np.array([0, in_the_air - vertices[:, 1].min(), 0]) - skeleton[0] * [1, 0, 1]
        azimuth = rng.uniform(0, 2 * np.pi)
        whole, distance = self._camera(rng, azimuth, place + skeleton[0])

        seen = joints = whole.to_camera(joints + place)
        if rng.random() < CUT_FRACTION:
            seen = joints[rows(PARTS[rng.integers(len(PARTS))], JOINTS49)]
        centre, scale = box_around(whole.project(seen), enlarge)
        side = scale * BOX_UNIT * rng.uniform(0.88, 1.2)
        camera = whole.cropped(centre + rng.normal(0, 0.035, 2) * side, side, size)
        keypoints = with_confidence(camera.project(joints) / size * 2 - 1)
        keypoints[:, 2] = (np.abs(keypoints[:, :2]) <= 1).all(axis=1)

        scene = self._props.scene(rng, azimuth, distance, FLAT_FRACTION)
        held = [self._props.held(rng, skeleton + place)] if rng.random() < HELD_FRACTION else []
        feet = place + skeleton[np.concatenate(FEET)].mean(axis=0)
        image = draw_person(rng, person, vertices + place, feet, camera, scene, held)
        if rng.random() < EDGE_FRACTION:
            _end(rng, image, keypoints)
        return labelled(image, keypoints, joints, in_camera(rotmat, camera), betas)

    def _camera(self, rng: np.random.Generator, azimuth: float, target: np.ndarray) -> tuple[Camera, float]:
        """A camera of a unit image that looks past `target` (3,), and its distance."""
        distance, elevation, roll, *aside = self.views[rng.integers(VIEWS)]
        away = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
        position = target + away * distance
        position[1] = max(position[1], 0.15)
        aim = target + distance * np.array([np.cos(azimuth) * aside[0], aside[1], -np.sin(azimuth) * aside[0]])
        return Camera(look_at(position, aim, roll), position, 1.0, (0, 0)), distance


def people_of(body_dir: Path, poses: np.ndarray, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Render `count` people in `poses` (N,24,3), large and small in pictures (S,S,3), with the labels of `sample`."""
    source = Wild(body_dir)
    source.poses = poses
    for index in range(count):
        rng = np.random.default_rng([11, index])
        size = int(np.exp(rng.uniform(*np.log(PICTURE_SIZES))))
        yield source.sample(rng, size, rng.uniform(1.2, 1.8))


def _end(rng: np.random.Generator, image: np.ndarray, keypoints: np.ndarray) -> None:
    """Let the image end in black on one side, as where a box reaches beyond the frame; in place."""
    size = len(image)
    axis, far = rng.integers(2, size=2)
    width = int(rng.uniform(0.03, 0.25) * size)
    strip = slice(size - width, None) if far else slice(width)
    image[(strip, slice(None)) if axis == 0 else (slice(None), strip)] = 0
    place = (keypoints[:, 1 - axis] + 1) / 2 * size
    keypoints[(place > size - width) if far else (place < width), 2] = 0


def turning_camera(rng: np.random.Generator, places: np.ndarray) -> tuple[list[Camera], float]:
    """A camera on a stand or in a hand, near or far, that turns after a person at `places` (T,3)."""
    time = np.arange(len(places)) / FRAME_RATE
    first, shake = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1)
    azimuth = first + shake * (rng.uniform(-0.3, 0.3) * time + wander(rng, time, 0.02, 1.5))
    distance = np.exp(rng.uniform(np.log(2.6), np.log(9))) + shake * wander(rng, time, 0.1, 3)
    height = rng.uniform(0.4, 2.0) + rng.uniform(0, 0.3) * distance.mean() + shake * wander(rng, time, 0.05, 2)
    roll = rng.normal(0, 0.06) + shake * wander(rng, time, 0.02, 2)
    focal = rng.uniform(0.7, 1.1) * FRAME_SIZE[0] * distance.mean() / 2.6
    aims = np.array([0, 0.95, 0]) + rng.uniform(0.6, 1) * places * [1, 0, 1]
    aims += shake * np.stack([wander(rng, time, 0.04, 2) for _ in range(3)], axis=1)
    cameras = []
    for frame, aim in enumerate(aims):
        direction = np.array([np.sin(azimuth[frame]), 0, np.cos(azimuth[frame])])
        position = direction * distance[frame] + [0, height[frame], 0]
        cameras.append(Camera(look_at(position, aim, roll[frame]), position, focal, FRAME_SIZE))
    return cameras, first


def wild_scenes(body_dir: Path) -> Callable[[np.random.Generator, float], Scene]:
    """What makes the scenes of the stream, of a generator and the camera's azimuth: none is mere clutter."""
    props = Props(np.random.default_rng([3, SPLITS.index("wild")]), body_dir)
    return lambda rng, azimuth: props.scene(rng, azimuth, distance=5.0, flat_fraction=0)
