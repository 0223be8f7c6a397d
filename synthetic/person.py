"""A dressed body that moves over the ground, and how it is drawn into a scene."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from synthetic.body import Body
from synthetic.camera import Camera
from synthetic.motions import motion
from synthetic.scene import Scene, Thing, blend
from utils import renderer
from utils.joints import SIDES, SMPL24, rows

FEET = [rows([f"{side}_ankle", f"{side}_foot"], SMPL24) for side in SIDES]
STEP = 1e-3  # m, by which a foot must be lower than the standing one to take over


class Person:
    """A body of given betas (10,), vertex colours (V,3) and thickness of the clothes (V,), m."""

    def __init__(self, body: Body, betas: np.ndarray, colours: np.ndarray, thickness: np.ndarray | float = 0.0):
        self.body, self.betas, self.colours = body, betas, colours
        self.thickness = np.float32(thickness)[..., None]
        self.shaped = body.shaped(betas)


def perform(person: Person, kind: str, rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Let a person move over the ground -> rotations (T,24,3,3) in world axes, places (T,3) m to add to the vertices.

    The lowest vertex is on the ground, and the lower foot stays where it is while the body moves over it.
    """
    poses = motion(kind, rng, frames)
    heading = Rotation.from_rotvec([0, rng.uniform(0, 2 * np.pi), 0])
    poses[:, 0] = (heading * Rotation.from_rotvec(poses[:, 0])).as_rotvec()
    rotmats = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(frames, len(SMPL24), 3, 3)
    places, feet_before, standing = np.zeros((frames, 3)), None, 0
    for frame, rotmat in enumerate(rotmats):
        vertices, skeleton = person.body(rotmat, person.shaped)
        feet = np.array([skeleton[foot].mean(axis=0) for foot in FEET])
        # of two feet at the same height rounding would choose, differently on every processor
        if feet[1 - standing, 1] < feet[standing, 1] - STEP:
            standing = 1 - standing
        if feet_before is not None:
            places[frame] = places[frame - 1] + feet_before[standing] - feet[standing]
        places[frame, 1] = -vertices[:, 1].min()
        feet_before = feet
    middle = places.mean(axis=0) + person.shaped.mean(axis=0)
    return rotmats, places - [middle[0], 0, middle[2]]


def draw_person(
    rng: np.random.Generator,
    person: Person,
    posed: np.ndarray,
    feet: np.ndarray,
    camera: Camera,
    scene: Scene,
    held: Sequence[Thing] = (),
) -> np.ndarray:
    """A person, `posed` (V,3) in the world with `feet` (3,) on the ground, in a scene -> (H,W,3) float32, 0-255."""
    vertices = camera.to_camera(posed)
    image, in_front = scene.layers(camera, feet, vertices[:, 2].mean(), held)
    normals = renderer.vertex_normals(vertices, person.body.faces, person.body.incidence)
    shaded = renderer.lit(person.colours, normals, camera.rotation @ scene.light, scene.ambient)
    vertices = vertices + person.thickness * normals
    raster = renderer.rasterise(camera.project(vertices), vertices[:, 2], person.body.faces, camera.size)
    image[raster.mask] = renderer.interpolate(raster, person.body.faces, shaded)
    for patch in in_front:
        blend(image, patch)
    return scene.develop(rng, image)
