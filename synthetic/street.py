"""The world of the target domain: sky, textured ground and upright boards, static while a camera moves through it.

World frame: metres, y up, the ground at y = 0. Camera frame: x right, y down, z forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np

TEXTURE = 256  # px, side of a texture
TILE = 2.0  # m of ground that the texture covers
HAZE = 14.0  # m, where the ground has lost most of its texture
SHADOW_WIDTH = 0.35  # m
FAR_BOARDS = 8
OCCLUDED_SHARE = 0.5  # of the scenes have something between camera and person
GROUNDS = np.array([[95, 110, 70], [130, 125, 118], [160, 145, 120], [95, 95, 100], [150, 120, 95]], np.float32)
SKIES = np.array([[150, 185, 225], [205, 208, 212], [165, 170, 176], [235, 230, 225]], np.float32)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: rotation (3,3) from world to camera, position (3,) m, focal length px, height and width px.

    `centre` (2,) px is where its axis meets the image; None: in the middle.
    """

    rotation: np.ndarray
    position: np.ndarray
    focal: float
    size: tuple[int, int]
    centre: np.ndarray | None = None

    @property
    def principal_point(self) -> np.ndarray:
        """(2,) px."""
        return np.array(self.size[::-1]) / 2 if self.centre is None else self.centre

    def cropped(self, middle: np.ndarray, side: float, size: int) -> "Camera":
        """The camera of a square cut out around `middle` (2,), `side` px wide, and brought to `size` px."""
        zoom = size / side
        centre = (self.principal_point - middle) * zoom + size / 2
        return Camera(self.rotation, self.position, self.focal * zoom, (size, size), centre)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (N,3) -> camera coordinates (N,3)."""
        return (points - self.position) @ self.rotation.T

    def project(self, in_camera: np.ndarray) -> np.ndarray:
        """Camera coordinates (N,3) -> (N,2) px, the centre of the first pixel at (0.5, 0.5)."""
        return in_camera[:, :2] / in_camera[:, 2:] * self.focal + self.principal_point

    def rays(self) -> np.ndarray:
        """World directions (3,H,W) float32 through the centres of the pixels, not normalised."""
        height, width = self.size
        middle_x, middle_y = self.principal_point.tolist()
        x = (np.arange(width, dtype=np.float32) + 0.5 - middle_x) / self.focal
        y = (np.arange(height, dtype=np.float32) + 0.5 - middle_y) / self.focal
        right, down, forward = self.rotation.astype(np.float32)[:, :, None, None]
        return right * x[None, None, :] + down * y[None, :, None] + forward


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """Rotation (3,3) from world to a camera at `position` that looks at `target`, rolled by an angle in radians."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    level = np.stack([right, np.cross(forward, right), forward])
    cosine, sine = np.cos(roll), np.sin(roll)
    return np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]]) @ level


class Patch(NamedTuple):
    """Part of a picture: the rows and columns it covers, and its pixels, RGBA float32 with alpha in 0-1."""

    rows: slice
    columns: slice
    rgba: np.ndarray


@dataclass(frozen=True)
class Board:
    """An upright picture in the world: corners (4,3) m from the upper left clockwise, texture (S,T,4) RGBA float32."""

    corners: np.ndarray
    texture: np.ndarray

    def depth(self, camera: Camera) -> float:
        """Mean distance from the camera's plane, m."""
        return camera.to_camera(self.corners)[:, 2].mean()

    def draw(self, camera: Camera) -> Patch | None:
        """The board as the camera sees it, or None when it is out of sight or too close."""
        view = window(camera, camera.to_camera(self.corners))
        if view is None:
            return None
        (down, across), seen = view
        height, width = self.texture.shape[:2]
        picture = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        homography = cv2.getPerspectiveTransform(picture, seen.astype(np.float32))
        size = (across.stop - across.start, down.stop - down.start)
        return Patch(down, across, cv2.warpPerspective(self.texture, homography, size, flags=cv2.INTER_LINEAR))


def window(camera: Camera, in_camera: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """Rows and columns of the image that points (N,3), m in the camera's frame, cover, and the points (N,2) px in it.

    None when they are out of sight or too close.
    """
    if in_camera[:, 2].min() < 0.3:
        return None
    points = camera.project(in_camera)
    limits = camera.size[::-1]
    left, top = np.clip(np.floor(points.min(axis=0)), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(points.max(axis=0)), 0, limits).astype(int)
    if left >= right or top >= bottom:
        return None
    return (slice(top, bottom), slice(left, right)), points - [left, top]


class Thing(Protocol):
    """Whatever stands in a scene."""

    def depth(self, camera: Camera) -> float:
        """Mean distance from the camera's plane, m."""

    def draw(self, camera: Camera) -> Patch | None:
        """What the camera sees of it."""


@dataclass
class Scene:
    """Sky, ground and things around the origin.

    Attributes:
        light: (3,) world direction to the sun
        ambient: share of the light that comes from everywhere
        tint: (3,) factors of the colours
        sky, ground: (3,) RGB 0-255
        texture: (T,T) float32, factors of the ground's brightness on a square of `tile` m, which repeats
        things: what stands there
    """

    light: np.ndarray
    ambient: float
    tint: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    texture: np.ndarray
    tile: float
    things: Sequence[Thing]

    def layers(
        self, camera: Camera, feet: np.ndarray, depth: float, held: Sequence[Thing] = ()
    ) -> tuple[np.ndarray, list[Patch]]:
        """What is behind a person at `depth` m with the shadow under `feet` (3,), and what is in front of him.

        Returns an image (H,W,3) float32 0-255, to be drawn over by the person, and what is to be drawn over both.
        `held` are things that only this picture has.
        """
        image = self.background(camera, feet)
        things = [*self.things, *held]
        distances = [thing.depth(camera) for thing in things]
        in_front = []
        for index in np.argsort(distances)[::-1]:
            patch = things[index].draw(camera)
            if patch is None:
                continue
            if distances[index] < depth:
                in_front.append(patch)
            else:
                blend(image, patch)
        return image, in_front

    def develop(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """What lens and sensor make of an image (H,W,3) float32 0-255."""
        image = cv2.GaussianBlur(image * self.tint, (3, 3), 0.6)
        return image + grain(rng, image.shape, 3)

    def background(self, camera: Camera, feet: np.ndarray) -> np.ndarray:
        """Sky, and ground with a shadow under `feet` (3,), as an image (H,W,3)."""
        right, up, forward = camera.rays()
        below = up < -1e-3
        sky = 1.05 - 0.25 * np.clip(up / np.sqrt(right**2 + up**2 + forward**2), 0, 1)
        ways = np.float32(-camera.position[1]) / np.where(below, up, np.float32(-1))
        x, z = (np.float32(camera.position[axis]) + ray * ways for axis, ray in ((0, right), (2, forward)))
        # OpenCV wraps around, but counts in 16 bits; so far away the haze has won
        scale = np.float32(len(self.texture) / self.tile)
        columns, rows = (np.clip(values * scale, -30000, 30000) for values in (x, z))
        texture = cv2.remap(self.texture, columns, rows, cv2.INTER_LINEAR, None, cv2.BORDER_WRAP)
        fade = np.exp(-((ways / HAZE) ** 2))
        away = (x - np.float32(feet[0])) ** 2 + (z - np.float32(feet[2])) ** 2
        shadow = 0.4 * np.exp(away / (-2 * SHADOW_WIDTH**2))
        ground = (1 + (texture - 1) * fade) * (1 - shadow)
        return np.where(below[..., None], ground[..., None] * self.ground, sky[..., None] * self.sky)


class Street(Scene):
    """A random street around the origin; the same generator state gives the same one."""

    def __init__(self, rng: np.random.Generator, camera_azimuth: float):
        light = rng.normal(0, 1, 3) * [0.8, 0.2, 0.8] + [0, 1, 0]
        ambient = rng.uniform(0.45, 0.65)
        tint = rng.uniform(0.9, 1.1, 3).astype(np.float32)
        sky, ground = SKIES[rng.integers(len(SKIES))], GROUNDS[rng.integers(len(GROUNDS))]
        texture = ground_texture(rng)
        around = 2 * np.pi * (np.arange(FAR_BOARDS) + rng.uniform(-0.3, 0.3, FAR_BOARDS)) / FAR_BOARDS
        boards = [_far_board(rng, azimuth) for azimuth in around]
        if rng.random() < OCCLUDED_SHARE:
            boards.append(near_board(rng, camera_azimuth + rng.uniform(-0.35, 0.35)))
        super().__init__(light, ambient, tint, sky, ground, texture, TILE, boards)


def ground_texture(rng: np.random.Generator) -> np.ndarray:
    """Uneven ground on a square of TILE m (TEXTURE,TEXTURE)."""
    return 1 + 0.18 * value_noise(rng, TEXTURE, octaves=(8, 16, 32, 64), wrap=True)


def grain(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """Camera noise of a given standard deviation; uniform, because bytes are drawn ten times faster than Gaussians."""
    noise = np.frombuffer(rng.bytes(int(np.prod(shape))), np.int8).reshape(shape)
    return noise * np.float32(deviation * np.sqrt(12) / 256)


def value_noise(rng: np.random.Generator, side: int, octaves: tuple[int, ...], wrap: bool = False) -> np.ndarray:
    """Random noise (side,side) float32 of about unit deviation, a sum of ever finer grids; tileable if `wrap`."""
    noise = np.zeros((side, side), np.float32)
    for octave, cells in enumerate(octaves):
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        grid = np.pad(grid, 2, mode="wrap") if wrap else grid
        margin = 2 * side // cells if wrap else 0
        full = cv2.resize(grid, (side + 2 * margin, side + 2 * margin), interpolation=cv2.INTER_CUBIC)
        noise += full[margin : margin + side, margin : margin + side] * 0.75**octave
    return noise / noise.std()


def blend(image: np.ndarray, patch: Patch) -> None:
    """Draw a patch over image (H,W,3) float32, in place."""
    covered = image[patch.rows, patch.columns]
    covered += patch.rgba[..., 3:] * (patch.rgba[..., :3] - covered)


def _far_board(rng: np.random.Generator, azimuth: float) -> Board:
    """A house front or a tree, 7 to 14 m away."""
    distance = rng.uniform(7, 14)
    is_house = rng.random() < 0.6
    width, height = rng.uniform(2.5, 7) if is_house else rng.uniform(1.5, 4), rng.uniform(2.5, 6)
    return board(rng, azimuth, distance, width, height, house(rng) if is_house else tree(rng))


def near_board(rng: np.random.Generator, azimuth: float) -> Board:
    """A post, a box or a bush between the camera and the person."""
    width, height = [(0.12, 1.6), (0.45, 0.6), (0.6, 0.7)][rng.integers(3)]
    return board(rng, azimuth, rng.uniform(0.8, 1.3), width, height * rng.uniform(0.8, 1.2), plain(rng))


def board(
    rng: np.random.Generator, azimuth: float, distance: float, width: float, height: float, texture: np.ndarray
) -> Board:
    """A board that stands on the ground and faces about the origin."""
    centre = distance * np.array([np.sin(azimuth), 0, np.cos(azimuth)])
    facing = azimuth + rng.uniform(-0.4, 0.4)
    along = np.array([np.cos(facing), 0, -np.sin(facing)]) * width / 2
    up = np.array([0, height, 0])
    return Board(np.array([centre - along + up, centre + along + up, centre + along, centre - along]), texture)


def plain(rng: np.random.Generator, contrast: float = 0.1) -> np.ndarray:
    """An opaque, slightly uneven surface of a dull colour (S,S,4)."""
    colour = rng.uniform(60, 190) + rng.normal(0, 14, 3)
    surface = colour * (1 + contrast * value_noise(rng, TEXTURE // 2, (4, 8, 16, 32)))[..., None]
    return np.dstack([np.clip(surface, 0, 255), np.ones(surface.shape[:2])]).astype(np.float32)


def house(rng: np.random.Generator) -> np.ndarray:
    """A wall with rows of darker windows (S,S,4)."""
    wall = plain(rng, 0.04)
    y, x = np.mgrid[: len(wall), : len(wall)] / len(wall)
    columns, floors = rng.integers(2, 6, 2)
    windows = (np.sin(2 * np.pi * columns * x) > 0.2) & (np.sin(2 * np.pi * floors * y) > 0.1)
    wall[windows, :3] *= rng.uniform(0.6, 0.9)
    return wall


def tree(rng: np.random.Generator) -> np.ndarray:
    """A crown with a ragged outline over a trunk (S,S,4)."""
    leaves = np.array([80, 105, 60]) * rng.uniform(0.7, 1.2) + rng.normal(0, 8, 3)
    side = TEXTURE // 2
    noise = value_noise(rng, side, (4, 8, 16, 32))
    y, x = np.mgrid[:side, :side] / side - 0.5
    crown = (x / 0.45) ** 2 + ((y + 0.15) / 0.33) ** 2 < 1 + 0.15 * noise
    trunk = (np.abs(x) < 0.05) & (y > 0)
    surface = np.where(crown[..., None], leaves, (95, 75, 60)) * (1 + 0.12 * noise)[..., None]
    return np.dstack([np.clip(surface, 0, 255), crown | trunk]).astype(np.float32)
