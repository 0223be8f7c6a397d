"""The source domain: four fixed cameras near eye level, few people in plain clothes, walls of smooth colour."""

from pathlib import Path

import numpy as np

from synthetic.camera import Camera, look_at
from synthetic.motions import source_poses
from synthetic.samples import BOX_ENLARGE, SPLITS, Rendered, in_camera, labelled, with_confidence
from synthetic.scene import grain
from synthetic.textures import lab_walls
from utils import renderer
from utils.geometry import CROP_SIZE
from utils.image import BOX_UNIT, box_around

CLIPS = 60  # of each kind of motion
LAB_PEOPLE = 8
OUTFITS = 12
CAMERA_AZIMUTHS = np.radians([35.0, 145.0, 215.0, 325.0])
WALL_DISTANCE = 2.5  # m behind the person
PLAIN_FRACTION = 0.3  # of the images have an even wall and one of the few outfits


class Lab(Rendered):
    """The source domain.

    Args:
        body_dir: folder with the free body, as data/demo
        split: train or validation, which share no person, no clip, no outfit and no camera
    """

    def __init__(self, body_dir: Path, split: str = "train"):
        rng = np.random.default_rng([1, SPLITS.index(split)])
        poses = source_poses(rng, CLIPS)
        super().__init__(body_dir, poses, np.clip(rng.normal(0, 0.9, (LAB_PEOPLE, 10)), -2, 2))
        self._outfits = [self._wardrobe.lab_outfit(rng) for _ in range(OUTFITS)]
        self.azimuths = CAMERA_AZIMUTHS + (0 if split == "train" else np.pi / 7)
        # wall and floor as each camera sees them
        self._rooms = rng.uniform(90, 200, (len(self.azimuths), 2, 1)) + rng.normal(0, 10, (len(self.azimuths), 2, 3))

    def sample(
        self, rng: np.random.Generator, size: int = CROP_SIZE, enlarge: float = BOX_ENLARGE
    ) -> dict[str, np.ndarray]:
        """As described in Rendered; every confidence is 1."""
        betas, rotmat = self._someone(rng)
        room = rng.integers(len(self.azimuths))
        camera = self._camera(rng, self.azimuths[room])
        vertices, skeleton = self._body(rotmat, self._body.shaped(betas))
        place = np.array([*rng.uniform(-1, 1, 2), 0])[[0, 2, 1]] - [0, vertices[:, 1].min(), 0]
        joints = camera.to_camera(self._body.joints49(vertices, skeleton) + place)
        vertices = camera.to_camera(vertices + place)

        seen = camera.project(joints)
        centre, scale = box_around(seen, enlarge)
        side = scale * BOX_UNIT * rng.uniform(0.94, 1.08)
        centre = centre + rng.normal(0, 0.025, 2) * side

        def in_image(points: np.ndarray) -> np.ndarray:
            return ((camera.project(points) - centre) / side + 0.5) * size

        feet = np.array([place[0], 0, place[2]])
        away = (feet - camera.position) * [1, 0, 1]
        corner = feet + away / np.linalg.norm(away) * WALL_DISTANCE
        floor_row = in_image(camera.to_camera(corner[None]))[0, 1]
        plain = rng.random() < PLAIN_FRACTION
        image = lab_walls(rng, self._rooms[room], floor_row, size, plain)
        self._draw_person(rng, image, vertices, in_image(vertices), plain)
        image += grain(rng, image.shape, rng.uniform(1, 5))
        keypoints = with_confidence(in_image(joints) / size * 2 - 1)
        return labelled(image, keypoints, joints, in_camera(rotmat, camera), betas)

    def _camera(self, rng: np.random.Generator, azimuth: float) -> Camera:
        """One of the fixed cameras, with the play of a tripod. Focal length and size are those of a unit image."""
        distance, height = rng.normal(5, 0.2), rng.normal(1.5, 0.1)
        position = np.array([np.sin(azimuth) * distance, height, np.cos(azimuth) * distance])
        return Camera(look_at(position, np.array([0, rng.normal(0.9, 0.05), 0])), position, 1.0, (0, 0))

    def _draw_person(self, rng, image: np.ndarray, vertices: np.ndarray, points: np.ndarray, plain: bool) -> None:
        colours = self._outfits[rng.integers(OUTFITS)] if plain else self._wardrobe.lab_outfit(rng)
        light = np.array([0.2, -0.9, -0.5]) + rng.normal(0, 0.1 if plain else 0.35, 3)
        brightness = 1.0 if plain else rng.uniform(0.85, 1.2)
        normals = renderer.vertex_normals(vertices, self._body.faces, self._body.incidence)
        shaded = renderer.lit(colours * np.float32(brightness), normals, light, rng.uniform(0.5, 0.7))
        raster = renderer.rasterise(points, vertices[:, 2], self._body.faces, image.shape[:2])
        image[raster.mask] = renderer.interpolate(raster, self._body.faces, shaded)
