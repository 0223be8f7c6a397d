"""Things and people to compose scenes of any kind from: courts, walls, fences, stands, streets and mere clutter."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from synthetic.body import Body
from synthetic.camera import Camera, visible_part
from synthetic.clothes import Wardrobe
from synthetic.lens import Lens
from synthetic.motions import KINDS, source_poses
from synthetic.scene import Board, Patch, Scene, Thing, board, near_board
from synthetic.textures import COURT, FAMILIES, TILE, bag, clutter, court, racket, stick, uneven_ground
from utils import renderer
from utils.joints import SIDES, SMPL24, rows

TEXTURES = 8  # of each family
EXTRAS = 40  # bodies to stand in the background
OCCLUDED_FRACTION = 0.25  # of the scenes have something between camera and person
BYSTANDERS = (0.55, 0.22, 0.14, 0.09)  # probability of 0, 1, ...


@dataclass(frozen=True)
class Bystander:
    """Another person: vertices (V,3) m in the world, lit colours (V,3), faces (F,3)."""

    vertices: np.ndarray
    colours: np.ndarray
    faces: np.ndarray

    def depth(self, camera: Camera) -> float:
        """Mean distance from the camera's plane, m."""
        return camera.to_camera(self.vertices.mean(axis=0, keepdims=True))[0, 2]

    def draw(self, camera: Camera) -> Patch | None:
        """The person as the camera sees them, or None when they are out of sight or too close."""
        vertices = camera.to_camera(self.vertices)
        view = visible_part(camera, vertices)
        if view is None:
            return None
        (down, across), points = view
        size = (down.stop - down.start, across.stop - across.start)
        raster = renderer.rasterise(points, vertices[:, 2], self.faces, size)
        rgba = np.zeros((*raster.mask.shape, 4), np.float32)
        rgba[raster.mask, :3] = renderer.interpolate(raster, self.faces, self.colours)
        rgba[..., 3] = raster.mask
        return Patch(down, across, rgba)


@dataclass
class WildScene(Scene):
    """A scene with a lens and a sensor of its own, and, where `pattern` is a seed, mere clutter behind all."""

    lens: Lens
    pattern: int | None

    def background(self, camera: Camera, feet: np.ndarray) -> np.ndarray:
        """Sky and ground, or the pattern, as an image (H,W,3)."""
        if self.pattern is None:
            return super().background(camera, feet)
        return clutter(np.random.default_rng(self.pattern), camera.size[0])

    def develop(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """What lens, sensor and compression make of an image (H,W,3) float32 0-255."""
        return self.lens(rng, image)


class Props:
    """Textures and bodies to compose scenes from, drawn once.

    Args:
        rng: what they are drawn from
        body_dir: folder with the free body, as data/demo
    """

    def __init__(self, rng: np.random.Generator, body_dir: Path):
        self.textures = {name: [make(rng) for _ in range(TEXTURES)] for name, make in FAMILIES.items()}
        self.grounds = [(uneven_ground(rng), TILE) for _ in range(TEXTURES)]
        self.grounds += [(court(rng), COURT) for _ in range(TEXTURES)]
        self.bodies: list[tuple[np.ndarray, ...]] = []  # vertices, normals, colours, faces
        poses = source_poses(rng, 2, kinds=KINDS)
        for gender in ("male", "female"):
            body = Body(body_dir, gender)
            wardrobe = Wardrobe(body)
            for _ in range(EXTRAS // 2):
                rotmat = Rotation.from_rotvec(poses[rng.integers(len(poses))]).as_matrix()
                vertices = body(rotmat, body.shaped(rng.normal(0, 1, 10)))[0]
                vertices -= np.float32([*vertices[:, 0:1].mean(0), vertices[:, 1].min(), vertices[:, 2].mean()])
                normals = renderer.vertex_normals(vertices, body.faces, body.incidence)
                colours, thickness = wardrobe.wild_outfit(rng)
                vertices = vertices + np.float32(thickness)[:, None] * normals
                self.bodies.append((vertices, normals, colours, body.faces))

    def scene(self, rng: np.random.Generator, azimuth: float, distance: float, flat_fraction: float) -> WildScene:
        """A scene around a person at the origin, seen from a camera in direction `azimuth` at a distance in m."""
        light = rng.normal(0, 1, 3) * [1, 0.3, 1] + [0, 0.8, 0]
        ambient = rng.uniform(0.35, 0.8)
        texture, tile = self.grounds[rng.integers(len(self.grounds))]
        sky, ground = rng.uniform(40, 245) + rng.normal(0, 18, 3), rng.uniform(40, 190) + rng.normal(0, 28, 3)
        pattern = int(rng.integers(2**31)) if rng.random() < flat_fraction else None
        things = [] if pattern is not None else self.backdrop(rng, azimuth)
        for _ in range(rng.choice(len(BYSTANDERS), p=BYSTANDERS)):
            things.append(self._bystander(rng, azimuth, light, ambient))
        if rng.random() < OCCLUDED_FRACTION and distance > 2.5:
            things.append(near_board(rng, azimuth + rng.uniform(-0.35, 0.35)))
        return WildScene(
            light=light,
            ambient=ambient,
            tint=np.ones(3),
            sky=sky,
            ground=np.clip(ground, 5, 250),
            texture=texture,
            tile=tile,
            things=things,
            lens=Lens(rng),
            pattern=pattern,
        )

    def _any(self, rng: np.random.Generator, *families: str) -> np.ndarray:
        family = self.textures[families[rng.integers(len(families))]]
        return family[rng.integers(len(family))]

    def backdrop(self, rng: np.random.Generator, azimuth: float) -> list[Thing]:
        """Up to six boards behind the person: a wall with what is above it, houses, trees, things left around."""
        behind = azimuth + np.pi
        things: list[Thing] = []
        if rng.random() < 0.6:
            distance, height = rng.uniform(2, 12), rng.uniform(0.6, 4)
            families = ("banner", "fence", "plain", "stripes", "house")
            wall = board(rng, behind, distance, rng.uniform(6, 25), height, self._any(rng, *families))
            things.append(wall)
            if rng.random() < 0.6:
                above = board(rng, behind, distance + 1, 25, rng.uniform(2, 8), self._any(rng, "stands"))
                things.append(Board(above.corners + [0, height * rng.uniform(0.6, 1), 0], above.texture))
        for _ in range(rng.integers(5)):
            width, height = rng.uniform(0.4, 4, 2)
            where = behind + rng.uniform(-1, 1)
            texture = self._any(rng, *self.textures)
            things.append(board(rng, where, rng.uniform(1.2, 12), width, height, texture))
        return things

    def _bystander(self, rng: np.random.Generator, azimuth: float, light: np.ndarray, ambient: float) -> Bystander:
        """Somebody behind the person or beside them."""
        vertices, normals, colours, faces = self.bodies[rng.integers(len(self.bodies))]
        away, aside = rng.uniform(-0.5, 7), rng.choice([-1, 1]) * rng.uniform(0.1, 2.2)
        if away < 0.8:
            aside += np.sign(aside) * 0.45
        sine, cosine = np.sin(azimuth), np.cos(azimuth)
        place = np.array([-sine * away + cosine * aside, 0, -cosine * away - sine * aside])
        turn = Rotation.from_rotvec([0, rng.uniform(0, 2 * np.pi), 0]).as_matrix().astype(np.float32)
        return Bystander(vertices @ turn.T + place, renderer.lit(colours, normals @ turn.T, light, ambient), faces)

    def held(self, rng: np.random.Generator, skeleton: np.ndarray) -> Board:
        """A racket, a stick or a bag in a hand of a person with joints `skeleton` (24,3) in the world."""
        side = SIDES[rng.integers(2)]
        elbow, hand = skeleton[rows([f"{side}_elbow", f"{side}_hand"], SMPL24)]
        kind = rng.integers(3)
        along = (hand - elbow) / np.linalg.norm(hand - elbow) if kind < 2 else np.array([0, -1.0, 0])
        along = along + rng.normal(0, 0.4 if kind < 2 else 0.05, 3)
        along /= np.linalg.norm(along)
        across = np.cross(along, rng.normal(0, 1, 3))
        across /= np.linalg.norm(across)
        texture = (racket, stick, bag)[kind](rng.integers(TEXTURES))
        length, width = ((0.68, 0.27), (rng.uniform(0.3, 1.2), 0.05), (rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.4)))[
            kind
        ]
        start, end, half = hand - 0.05 * along, hand + length * along, across * width / 2
        return Board(np.array([start - half, start + half, end + half, end - half]), texture)
