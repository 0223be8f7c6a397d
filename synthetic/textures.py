"""Textures of walls, grounds and things, each drawn from a generator.

Colours are 0-255, alpha 0-1, float32; the textures of grounds are factors of brightness. S, T: sides in px.
"""

import string
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

TEXTURE = 256  # px, side of a texture
TILE = 2.0  # m of ground that `uneven_ground` covers
COURT = 14.0  # m, side of the square that `court` covers
LINE_WIDTH = 2  # px of the texture of a court
MAX_PANELS = 5  # on a wall
MAX_SPECKLES = 30  # grey levels, standard deviation


def uneven_ground(rng: np.random.Generator) -> np.ndarray:
    """Uneven ground on a square of TILE m (TEXTURE,TEXTURE)."""
    return 1 + 0.18 * value_noise(rng, TEXTURE, octaves=(8, 16, 32, 64), wrap=True)


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


def banner(rng: np.random.Generator) -> np.ndarray:
    """A wall with lettering and panels (S,S,4), made for a wide board."""
    image = np.full((128, 512, 3), _any_colour(rng), np.float32)
    for left in np.arange(0, 512, rng.integers(64, 200)):
        if rng.random() < 0.5:
            cv2.rectangle(image, (int(left), 0), (int(left) + 90, 128), _any_colour(rng).tolist(), -1)
        letters = "".join(rng.choice(list(string.ascii_uppercase), rng.integers(3, 9)))
        size, place = rng.uniform(0.4, 1.6), (int(left), int(rng.integers(30, 120)))
        cv2.putText(image, letters, place, cv2.FONT_HERSHEY_SIMPLEX, size, _any_colour(rng).tolist(), 2, cv2.LINE_AA)
    cv2.line(image, (0, 2), (512, 2), _any_colour(rng).tolist(), 4)
    return _opaque(image)


def stands(rng: np.random.Generator) -> np.ndarray:
    """Rows of seats with spectators, as blobs of a head over a trunk (S,S,4)."""
    image = np.full((192, 512, 3), _any_colour(rng), np.float32)
    step, fill = int(rng.integers(10, 22)), rng.uniform(0.3, 1)
    for y in range(0, 200, step):
        cv2.line(image, (0, y), (512, y), _any_colour(rng).tolist(), 2)
        for x in range(0, 512, step):
            if rng.random() < fill:
                at = (x + int(rng.integers(-3, 4)), y + int(rng.integers(-2, 3)))
                cv2.ellipse(image, at, (step // 3, step // 2), 0, 0, 360, _any_colour(rng).tolist(), -1)
                head = (at[0], at[1] - step // 2)
                cv2.circle(image, head, max(2, step // 5), rng.uniform(0.5, 1) * np.array([225, 180, 150]), -1)
    return _opaque(image)


def fence(rng: np.random.Generator) -> np.ndarray:
    """Posts and wires that one can see through (S,S,4)."""
    y, x = np.mgrid[:256, :512]
    pitch = rng.integers(6, 24)
    slanted = rng.random() < 0.5
    wires = ((x + y) % pitch < 2) | ((x - y) % pitch < 2) if slanted else (x % pitch < 2) | (y % (3 * pitch) < 3)
    posts = x % 128 < 6
    colour = np.broadcast_to(_any_colour(rng), (256, 512, 3))
    return np.dstack([colour, np.where(posts, 1, 0.7 * wires)]).astype(np.float32)


def junk(rng: np.random.Generator) -> np.ndarray:
    """Things of any outline: chairs, boxes, bags (S,S,4)."""
    image = np.zeros((128, 128, 4), np.float32)
    for _ in range(rng.integers(2, 7)):
        corners = rng.integers(0, 128, (rng.integers(3, 6), 2)).astype(np.int32)
        cv2.fillPoly(image, [corners], [*_any_colour(rng).tolist(), 1.0], cv2.LINE_AA)
    for _ in range(rng.integers(4)):
        start, end = rng.integers(0, 128, (2, 2)).tolist()
        cv2.line(image, start, end, [*_any_colour(rng).tolist(), 1.0], int(rng.integers(2, 8)))
    return image


def stripes(rng: np.random.Generator) -> np.ndarray:
    """Bars, bricks or a gradient (S,S,4)."""
    y, x = np.mgrid[:128, :128] / 128
    kind = rng.integers(3)
    one, other = _any_colour(rng), _any_colour(rng)
    count = rng.integers(2, 14)
    if kind == 0:
        amount = np.sin(2 * np.pi * count * (x if rng.random() < 0.5 else y)) > rng.uniform(-0.7, 0.7)
    elif kind == 1:
        rows_of = np.floor(y * count)
        amount = ((y * count) % 1 < 0.12) | ((x * count / 2 + 0.5 * (rows_of % 2)) % 1 < 0.06)
    else:
        amount = np.clip(rng.uniform(-1, 1) * x + rng.uniform(-1, 1) * y + rng.uniform(0, 1), 0, 1)
    surface = one + (other - one) * np.asarray(amount, float)[..., None]
    return _opaque(surface * (1 + 0.06 * value_noise(rng, 128, (8, 32, 64)))[..., None])


def court(rng: np.random.Generator) -> np.ndarray:
    """Marked ground, factors of brightness on a square of COURT m (512,512)."""
    ground = (1 + rng.uniform(0.01, 0.08) * value_noise(rng, 512, (8, 32, 128), wrap=True)).astype(np.float32)
    if rng.random() < 0.5:  # another colour beyond the lines
        low, high = np.sort(rng.integers(0, 512, (2, 2)), axis=0).tolist()
        cv2.rectangle(ground, low, high, rng.uniform(0.6, 1.6), -1)
    for _ in range(rng.integers(2, 7)):
        at, thick = int(rng.integers(512)), int(LINE_WIDTH * rng.integers(1, 4))
        ends = ((0, at), (511, at)) if rng.random() < 0.5 else ((at, 0), (at, 511))
        cv2.line(ground, *ends, rng.uniform(1.5, 2.4), thick)
    if rng.random() < 0.4:
        cv2.circle(ground, rng.integers(512, size=2).tolist(), int(rng.integers(30, 200)), rng.uniform(1.5, 2.4), 3)
    return ground


@lru_cache
def racket(seed: int) -> np.ndarray:
    """A frame with strings on a handle (S,S,4), handle first."""
    image = np.zeros((192, 72, 4), np.float32)
    colour = [*_any_colour(np.random.default_rng(seed)).tolist(), 1.0]
    image[100:188:7, 6:66] = image[96:190, 8:66:7] = (220, 220, 210, 0.6)
    y, x = np.mgrid[:192, :72]
    image[((x - 36) / 32) ** 2 + ((y - 142) / 46) ** 2 > 1] = 0
    cv2.ellipse(image, (36, 142), (32, 46), 0, 0, 360, colour, 5)
    cv2.rectangle(image, (32, 0), (40, 98), colour, -1)
    return image


@lru_cache
def stick(seed: int) -> np.ndarray:
    """An even colour (S,S,4)."""
    return np.full((8, 8, 4), [*_any_colour(np.random.default_rng(seed)), 1], np.float32)


@lru_cache
def bag(seed: int) -> np.ndarray:
    """A rounded shape under a handle (S,S,4), handle first."""
    image = np.zeros((64, 64, 4), np.float32)
    colour = [*_any_colour(np.random.default_rng(seed)).tolist(), 1.0]
    cv2.ellipse(image, (32, 20), (14, 20), 0, 180, 360, colour, 3)
    cv2.ellipse(image, (32, 42), (30, 21), 0, 0, 360, colour, -1)
    return image


# what may stand behind a person
FAMILIES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "house": house,
    "tree": tree,
    "plain": plain,
    "banner": banner,
    "stands": stands,
    "fence": fence,
    "junk": junk,
    "stripes": stripes,
}


def lab_walls(rng: np.random.Generator, room: np.ndarray, floor_row: float, size: int, plain: bool) -> np.ndarray:
    """Wall above floor in smooth clouds of colour, (size,size,3) float32; room (2,3) are their colours."""
    row = int(np.clip(floor_row, 0, size))
    image = np.empty((size, size, 3), np.float32)
    strength = 5.0 if plain else rng.uniform(5, 40)
    colours = room if plain else room + rng.normal(0, 35, (2, 3))
    image[:row], image[row:] = colours
    for cells in (4, 9):
        clouds = rng.standard_normal((cells, cells, 3), np.float32)
        image += strength / cells * 3 * cv2.resize(clouds, (size, size), interpolation=cv2.INTER_LINEAR)
    if not plain:
        _add_panels(rng, image)
        _add_speckles(rng, image)
    return image


def _add_panels(rng: np.random.Generator, image: np.ndarray) -> None:
    """Up to MAX_PANELS even quadrangles of any colour, for edges that are not the person's; in place."""
    size = len(image)
    for _ in range(rng.integers(MAX_PANELS + 1)):
        middle, sides = rng.uniform(0, size, 2), rng.uniform(0.05, 0.5, (4, 1)) * size
        angles = rng.uniform(0, 2 * np.pi) + np.arange(4) * np.pi / 2
        corners = middle + sides * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(image, [corners.astype(np.int32)], rng.uniform(20, 235, 3).tolist())


def _add_speckles(rng: np.random.Generator, image: np.ndarray) -> None:
    """Noise of a random coarseness and strength, grey, over everything behind the person; in place."""
    cells = int(rng.uniform(0.1, 0.5) * len(image))
    speckles = rng.standard_normal((cells, cells), np.float32) * rng.uniform(0, MAX_SPECKLES)
    image += cv2.resize(speckles, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)[..., None]


def clutter(rng: np.random.Generator, size: int) -> np.ndarray:
    """Clouds, panels, bars and discs of any colour over each other (size,size,3) float32."""
    colours = rng.uniform(20, 235, (2, 1)) + rng.normal(0, 30, (2, 3))
    image = lab_walls(rng, colours, rng.uniform(0.2, 1.2) * size, size, plain=False)
    for _ in range(rng.integers(8)):
        colour = rng.uniform(5, 250, 3).tolist()
        start, end = rng.integers(-size // 4, size * 5 // 4, (2, 2)).tolist()
        if rng.random() < 0.6:
            cv2.line(image, start, end, colour, int(rng.integers(1, 9)), cv2.LINE_AA)
        else:
            axes = rng.integers(3, max(4, size // 5), 2).tolist()
            cv2.ellipse(image, start, axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    return image


def _any_colour(rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.uniform(15, 240) + rng.normal(0, 40, 3), 5, 250)


def _opaque(surface: np.ndarray) -> np.ndarray:
    """(S,S,3) -> (S,S,4)."""
    return np.dstack([np.clip(surface, 0, 255), np.ones(surface.shape[:2])]).astype(np.float32)
