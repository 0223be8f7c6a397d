"""A rendered clip of two people who walk past each other, with 2D joints as of a detector, and the truth."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from places import DEMO
from scipy.spatial.transform import Rotation
from videos import Clip

from synthetic.body import Body
from synthetic.camera import Camera, look_at
from synthetic.clothes import Wardrobe
from synthetic.motions import motion
from synthetic.person import Person
from synthetic.street import Street
from utils.joints import JOINTS49, rows
from utils.renderer import interpolate, lit, rasterise, vertex_normals, write_video

SIZE = (288, 512)  # px, height and width
RATE = 15  # frames/s
WAY = 1.5  # m from the middle, from where to where they walk
_POSITION = np.array([0.0, 1.2, -4.5])
CAMERA = Camera(look_at(_POSITION, np.array([0.0, 0.9, 0.0])), _POSITION, 420.0, SIZE)


class Crossing(NamedTuple):
    """The clip.

    Attributes:
        file: of the video
        keypoints: OpenPose's files, in which the two stand in changing order, and joints behind the nearer one lack
        joints: (2,F,49,3) m, along the camera's axes; first the nearer one, tall, who comes from one side
        joints_px: (2,F,49,2)
    """

    file: Path
    keypoints: Path
    joints: np.ndarray
    joints_px: np.ndarray


class Walker:
    """Somebody who walks along x at a depth z, m: forwards (1) or backwards (-1), in so many frames."""

    def __init__(self, gender: str, height: float, z: float, sign: int, frames: int, rng: np.random.Generator) -> None:
        wardrobe = Wardrobe(Body(DEMO, gender))
        self.person = Person(wardrobe.body, np.array([height, *[0.0] * 9]), wardrobe.street_outfit(rng))
        self.poses = Rotation.from_rotvec(motion("walk", rng, 2 * frames)[::2].reshape(-1, 3)).as_matrix()
        self.poses = self.poses.reshape(frames, 24, 3, 3)
        self.poses[:, 0] = Rotation.from_rotvec([0, sign * np.pi / 2, 0]).as_matrix() @ self.poses[:, 0]
        self.places = np.stack([sign * np.linspace(-WAY, WAY, frames), np.zeros(frames), np.full(frames, z)], axis=1)

    def at(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V,3) and joints (49,3) in a frame, m, along the camera's axes."""
        body = self.person.body
        vertices, skeleton = body(self.poses[frame], self.person.shaped)
        place = self.places[frame] - [0, vertices[:, 1].min(), 0]
        return CAMERA.to_camera(vertices + place), CAMERA.to_camera(body.joints49(vertices, skeleton) + place)

    def draw(self, image: np.ndarray, vertices: np.ndarray) -> np.ndarray:
        """Draw them into an image (H,W,3), in place -> where they are, (H,W) bool."""
        body = self.person.body
        shaded = lit(self.person.colours, vertex_normals(vertices, body.faces, body.incidence))
        raster = rasterise(CAMERA.project(vertices), vertices[:, 2], body.faces, SIZE)
        image[raster.mask] = interpolate(raster, body.faces, shaded)
        return raster.mask


def make_crossing(folder: Path, frames: int = 30) -> Crossing:
    """Render such a clip: they meet in its middle."""
    rng = np.random.default_rng(3)
    walkers = [Walker("male", 1.8, -0.6, 1, frames, rng), Walker("female", -1.8, 0.6, -1, frames, rng)]
    scene, images, shown, joints = Street(rng, 0.0), [], [], np.zeros((2, frames, 49, 3))
    for frame in range(frames):
        image = scene.background(CAMERA, np.array([0.0, 0.0, 99.0]))  # without a shadow
        for number in (1, 0):  # the nearer one over the other
            vertices, joints[number, frame] = walkers[number].at(frame)
            covered = walkers[number].draw(image, vertices)
        images.append(np.clip(scene.develop(rng, image), 0, 255).astype(np.uint8))
        found = [_detected(joints[0, frame], np.zeros(SIZE, bool)), _detected(joints[1, frame], covered)]
        shown.append(found if frame % 3 else found[::-1])
    clip = Clip(folder, np.zeros((frames, 49, 3)))
    write_video(clip.file, images, RATE, quality=12)
    joints_px = np.stack([[_pixels(body) for body in person] for person in joints])
    return Crossing(clip.file, clip.openpose(shown), joints, joints_px)


def _pixels(joints: np.ndarray) -> np.ndarray:
    """Where joints (N,3) m are, (N,2) px, the centre of the first pixel at 0."""
    return CAMERA.project(joints) - 0.5


def _detected(joints: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Joints (49,3) as a detector finds them that does not see what is covered (H,W) bool."""
    points = _pixels(joints)
    column, row = np.round(points).astype(int).T
    is_inside = (column >= 0) & (column < SIZE[1]) & (row >= 0) & (row < SIZE[0])
    seen = is_inside & ~covered[row.clip(0, SIZE[0] - 1), column.clip(0, SIZE[1] - 1)]
    seen[rows(["OP Neck", "OP MidHip"], JOINTS49)] = False
    return np.concatenate([points * seen[:, None], 0.9 * seen[:, None]], axis=1)
