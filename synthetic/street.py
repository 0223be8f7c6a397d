"""The target domain: textured ground, houses and trees, sunlight, things in the way, and a hand-held camera."""

import numpy as np

from synthetic.camera import FRAME_SIZE, Camera, look_at
from synthetic.figure import FRAME_RATE, wander
from synthetic.scene import Board, Scene, board, near_board
from synthetic.textures import TILE, house, tree, uneven_ground

FAR_BOARDS = 8
OCCLUDED_FRACTION = 0.5  # of the scenes have something between camera and person
GROUNDS = np.array([[95, 110, 70], [130, 125, 118], [160, 145, 120], [95, 95, 100], [150, 120, 95]], np.float32)
SKIES = np.array([[150, 185, 225], [205, 208, 212], [165, 170, 176], [235, 230, 225]], np.float32)


class Street(Scene):
    """A random street around the origin; the same generator state gives the same one."""

    def __init__(self, rng: np.random.Generator, camera_azimuth: float):
        light = rng.normal(0, 1, 3) * [0.8, 0.2, 0.8] + [0, 1, 0]
        ambient = rng.uniform(0.45, 0.65)
        tint = rng.uniform(0.9, 1.1, 3).astype(np.float32)
        sky, ground = SKIES[rng.integers(len(SKIES))], GROUNDS[rng.integers(len(GROUNDS))]
        texture = uneven_ground(rng)
        around = 2 * np.pi * (np.arange(FAR_BOARDS) + rng.uniform(-0.3, 0.3, FAR_BOARDS)) / FAR_BOARDS
        boards = [_far_board(rng, azimuth) for azimuth in around]
        if rng.random() < OCCLUDED_FRACTION:
            boards.append(near_board(rng, camera_azimuth + rng.uniform(-0.35, 0.35)))
        super().__init__(light, ambient, tint, sky, ground, texture, tile=TILE, things=boards)


def _far_board(rng: np.random.Generator, azimuth: float) -> Board:
    """A house front or a tree, 7 to 14 m away."""
    distance = rng.uniform(7, 14)
    is_house = rng.random() < 0.6
    width, height = rng.uniform(2.5, 7) if is_house else rng.uniform(1.5, 4), rng.uniform(2.5, 6)
    return board(rng, azimuth, distance, width, height, house(rng) if is_house else tree(rng))


def walking_camera(rng: np.random.Generator, places: np.ndarray) -> tuple[list[Camera], float]:
    """A hand-held camera that walks around a person at `places` (T,3) -> a camera for each frame, its first azimuth."""
    time = np.arange(len(places)) / FRAME_RATE
    first = rng.uniform(0, 2 * np.pi)
    azimuth = first + rng.choice([-1, 1]) * rng.uniform(0.1, 0.35) * time + wander(rng, time, 0.02, 1.5)
    distance = rng.uniform(2.8, 4.2) + wander(rng, time, 0.12, 3)
    height = rng.uniform(0.7, 2.4) + wander(rng, time, 0.05, 2)
    roll = rng.normal(0, 0.06) + wander(rng, time, 0.02, 2)
    focal = rng.uniform(0.92, 1.12) * FRAME_SIZE[1] * distance.mean() / 3.8
    aims = np.array([0, 0.95, 0]) + 0.8 * places * [1, 0, 1]
    aims += np.stack([wander(rng, time, 0.03, 2) for _ in range(3)], axis=1)
    cameras = []
    for frame, aim in enumerate(aims):
        direction = np.array([np.sin(azimuth[frame]), 0, np.cos(azimuth[frame])])
        position = aim * [1, 0, 1] + direction * distance[frame] + [0, height[frame], 0]
        cameras.append(Camera(look_at(position, aim, roll[frame]), position, focal, FRAME_SIZE))
    return cameras, first
