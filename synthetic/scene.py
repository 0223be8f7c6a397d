"""What is around a person: sky, textured ground and things that stand on it, static while a camera moves through it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from synthetic.camera import Camera, visible_part
from synthetic.textures import plain

HAZE = 14.0  # m, where the ground has lost most of its texture
SHADOW_WIDTH = 0.35  # m


class Patch(NamedTuple):
    """Part of an image: the rows and columns it covers, and its pixels, RGBA float32 with alpha in 0-1."""

    rows: slice
    columns: slice
    rgba: np.ndarray


@dataclass(frozen=True)
class Board:
    """An upright image in the world: corners (4,3) m from the upper left clockwise, texture (S,T,4) RGBA float32."""

    corners: np.ndarray
    texture: np.ndarray

    def depth(self, camera: Camera) -> float:
        """Mean distance from the camera's plane, m."""
        return camera.to_camera(self.corners)[:, 2].mean()

    def draw(self, camera: Camera) -> Patch | None:
        """The board as the camera sees it, or None when it is out of sight or too close."""
        view = visible_part(camera, camera.to_camera(self.corners))
        if view is None:
            return None
        (down, across), seen = view
        height, width = self.texture.shape[:2]
        flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        homography = cv2.getPerspectiveTransform(flat, seen.astype(np.float32))
        size = (across.stop - across.start, down.stop - down.start)
        return Patch(down, across, cv2.warpPerspective(self.texture, homography, size, flags=cv2.INTER_LINEAR))


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
        ambient: fraction of the light that comes from everywhere
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
        """What is behind a person at `depth` m with the shadow under `feet` (3,), and what is in front of them.

        Returns an image (H,W,3) float32 0-255, to be drawn over by the person, and what is to be drawn over both.
        `held` are things that only this image has.
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
        reach = np.float32(-camera.position[1]) / np.where(below, up, np.float32(-1))
        x, z = (np.float32(camera.position[axis]) + ray * reach for axis, ray in ((0, right), (2, forward)))
        # OpenCV wraps around, but counts in 16 bits; so far away the haze has won
        scale = np.float32(len(self.texture) / self.tile)
        columns, rows = (np.clip(values * scale, -30000, 30000) for values in (x, z))
        texture = cv2.remap(self.texture, columns, rows, cv2.INTER_LINEAR, None, cv2.BORDER_WRAP)
        fade = np.exp(-((reach / HAZE) ** 2))
        away = (x - np.float32(feet[0])) ** 2 + (z - np.float32(feet[2])) ** 2
        shadow = 0.4 * np.exp(away / (-2 * SHADOW_WIDTH**2))
        ground = (1 + (texture - 1) * fade) * (1 - shadow)
        return np.where(below[..., None], ground[..., None] * self.ground, sky[..., None] * self.sky)


def blend(image: np.ndarray, patch: Patch) -> None:
    """Draw a patch over image (H,W,3) float32, in place."""
    covered = image[patch.rows, patch.columns]
    covered += patch.rgba[..., 3:] * (patch.rgba[..., :3] - covered)


def grain(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """Camera noise of a given standard deviation; uniform, because bytes are drawn ten times faster than Gaussians."""
    noise = np.frombuffer(rng.bytes(int(np.prod(shape))), np.int8).reshape(shape)
    return noise * np.float32(deviation * np.sqrt(12) / 256)


def board(
    rng: np.random.Generator, azimuth: float, distance: float, width: float, height: float, texture: np.ndarray
) -> Board:
    """A board that stands on the ground and faces about the origin."""
    centre = distance * np.array([np.sin(azimuth), 0, np.cos(azimuth)])
    facing = azimuth + rng.uniform(-0.4, 0.4)
    along = np.array([np.cos(facing), 0, -np.sin(facing)]) * width / 2
    up = np.array([0, height, 0])
    return Board(np.array([centre - along + up, centre + along + up, centre + along, centre - along]), texture)


def near_board(rng: np.random.Generator, azimuth: float) -> Board:
    """A post, a box or a bush between the camera and the person."""
    width, height = [(0.12, 1.6), (0.45, 0.6), (0.6, 0.7)][rng.integers(3)]
    return board(rng, azimuth, rng.uniform(0.8, 1.3), width, height * rng.uniform(0.8, 1.2), plain(rng))
