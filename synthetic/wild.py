"""A labelled source for base models that are to work on real footage: everything the renderer can vary.

Cameras near and far, high, low and tilted; people in any clothes that do every kind of motion, whole or cut off by the
edge of the picture; other people; courts, walls, fences, stands, streets and mere clutter behind; rackets and bags;
blur, noise, compression and colour casts. Training and validation share no person, no clip and no camera.
"""

import string
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from synthetic import stream as synthetic
from synthetic import street
from synthetic.body import Body
from synthetic.clothes import Wardrobe
from synthetic.figure import FRAME_RATE, wander
from synthetic.motions import KINDS, source_poses
from synthetic.stream import FRAME_SIZE, SPLITS, Person, Rendered, World, draw_person
from synthetic.street import Board, Camera, Patch, Scene, Thing, look_at
from utils import renderer
from utils.files import save_text
from utils.geometry import CROP_SIZE
from utils.image import BOX_UNIT, box_around
from utils.joints import JOINTS49, SMPL24, rows

LABELLED = 300  # pictures of the written source
STREAM_KINDS = ("serve", "run", "talk", "swing", "dance", "side_step")
CLIPS = 30  # of each kind of motion
PEOPLE = 400
CAMERAS = 4000
TEXTURES = 8  # of each family
EXTRAS = 40  # bodies to stand in the background
FLAT_SHARE = 0.3  # of the pictures have a mere pattern behind the person
CUT_SHARE = 0.3  # of the pictures show a part of the person
HELD_SHARE = 0.3
OCCLUDED_SHARE = 0.25
EDGE_SHARE = 0.12  # of the pictures end, black, before the crop does
BYSTANDERS = (0.55, 0.22, 0.14, 0.09)  # probability of 0, 1, ...
COURT = 14.0  # m, side of the square that the texture of a court covers
LINE_WIDTH = 2  # px of that texture
SIDES = ("left", "right")
# what a crop may show: joints that stay in the picture
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


def build(output: Path, body_dir: Path, seed: int = 0, labelled: int = LABELLED, frames: int = 50) -> None:
    """Render a labelled source of all this and a validation stream of people, clips and cameras of its own.

    Args:
        output: gets wild-source/{h36m_train.npz, images/} and wild/{3dpw_vid/<sequence>.npz, imageFiles/<sequence>/},
            at last a file wild/complete
        body_dir: folder with the free body, as data/demo
        seed: of the stream; the source is the same for every seed
        labelled: pictures of the source
        frames: of each sequence of the stream

    Raises:
        UserError: the body is missing, or the output cannot be written
    """
    stream = Path(output) / "wild"
    (stream / "complete").unlink(missing_ok=True)
    build_source(Path(output) / "wild-source", body_dir, labelled)
    synthetic.write_stream(stream, body_dir, "wild", seed, frames, world(body_dir))
    save_text(stream / "complete", f"seed {seed}\n")


def build_source(output: Path, body_dir: Path, labelled: int = LABELLED) -> None:
    """The labelled source alone: h36m_train.npz and images/ in `output`; see `build`."""
    synthetic.write_source(Path(output), body_dir, labelled, Wild)


def world(body_dir: Path) -> World:
    """What the stream is made of: no pattern behind the person, and a hand-held camera."""
    props = Props(np.random.default_rng([3, SPLITS.index("wild")]), body_dir)
    return World(
        STREAM_KINDS, Wardrobe.wild_outfit, _follow, lambda rng, azimuth: props.scene(rng, azimuth, 5.0, flat_share=0)
    )


class Wild(Rendered):
    """The source, rendered on the fly.

    Args:
        body_dir: folder with the free body, as data/demo
        split: train or validation, which share no person, no clip and no camera
    """

    def __init__(self, body_dir: Path, split: str = "train"):
        rng = np.random.default_rng([3, SPLITS.index(split)])
        poses = source_poses(rng, CLIPS, kinds=KINDS)
        super().__init__(body_dir, poses, np.clip(rng.normal(0, 1.1, (PEOPLE, 10)), -2.5, 2.5))
        self._props = Props(rng, body_dir)
        # distance m, elevation, roll, and how far off its axis the person is, radians
        self._cameras = np.stack(
            [
                np.exp(rng.uniform(np.log(2.0), np.log(14.0), CAMERAS)),
                np.radians(np.clip(rng.normal(6, 13, CAMERAS), -18, 60)),
                np.radians(rng.normal(0, np.where(rng.random(CAMERAS) < 0.2, 15, 3))),
                *np.radians(rng.normal(0, 4, (2, CAMERAS))),
            ],
            axis=1,
        )

    def sample(
        self, rng: np.random.Generator, size: int = CROP_SIZE, enlarge: float = synthetic.BOX_ENLARGE
    ) -> dict[str, Any]:
        """As described in Rendered; the confidence of a joint outside of the picture is 0."""
        betas, rotmat = self._someone(rng)
        person = Person(self._body, betas, *self._wardrobe.wild_outfit(rng))
        vertices, skeleton = self._body(rotmat, person.shaped)
        joints = self._body.joints49(vertices, skeleton)
        in_the_air = rng.uniform(0, 0.35) if rng.random() < 0.1 else 0.0
        place = np.array([0, in_the_air - vertices[:, 1].min(), 0]) - skeleton[0] * [1, 0, 1]
        azimuth = rng.uniform(0, 2 * np.pi)
        whole, distance = self._camera(rng, azimuth, place + skeleton[0])

        seen = joints = whole.to_camera(joints + place)
        if rng.random() < CUT_SHARE:
            seen = joints[rows(PARTS[rng.integers(len(PARTS))], JOINTS49)]
        centre, scale = box_around(whole.project(seen), enlarge)
        side = scale * BOX_UNIT * rng.uniform(0.88, 1.2)
        camera = whole.cropped(centre + rng.normal(0, 0.035, 2) * side, side, size)
        keypoints = synthetic.with_confidence(camera.project(joints) / size * 2 - 1)
        keypoints[:, 2] = (np.abs(keypoints[:, :2]) <= 1).all(axis=1)

        scene = self._props.scene(rng, azimuth, distance, FLAT_SHARE)
        held = [self._props.held(rng, skeleton + place)] if rng.random() < HELD_SHARE else []
        feet = place + skeleton[np.concatenate(synthetic.FEET)].mean(axis=0)
        image = draw_person(rng, person, vertices + place, feet, camera, scene, held)
        if rng.random() < EDGE_SHARE:
            _end(rng, image, keypoints)
        return synthetic.labelled(image, keypoints, joints, synthetic.in_camera(rotmat, camera), betas)

    def _camera(self, rng: np.random.Generator, azimuth: float, target: np.ndarray) -> tuple[Camera, float]:
        """A camera of a unit image that looks past `target` (3,), and its distance."""
        distance, elevation, roll, *aside = self._cameras[rng.integers(CAMERAS)]
        away = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
        position = target + away * distance
        position[1] = max(position[1], 0.15)
        aim = target + distance * np.array([np.cos(azimuth) * aside[0], aside[1], -np.sin(azimuth) * aside[0]])
        return Camera(look_at(position, aim, roll), position, 1.0, (0, 0)), distance


def _end(rng: np.random.Generator, image: np.ndarray, keypoints: np.ndarray) -> None:
    """Let the picture end in black on one side, as where a box reaches beyond the footage; in place."""
    size = len(image)
    axis, far = rng.integers(2, size=2)
    width = int(rng.uniform(0.03, 0.25) * size)
    strip = slice(size - width, None) if far else slice(width)
    image[(strip, slice(None)) if axis == 0 else (slice(None), strip)] = 0
    place = (keypoints[:, 1 - axis] + 1) / 2 * size
    keypoints[(place > size - width) if far else (place < width), 2] = 0


def _follow(rng: np.random.Generator, places: np.ndarray) -> tuple[list[Camera], float]:
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
        """The person as the camera sees him, or None when he is out of sight or too close."""
        vertices = camera.to_camera(self.vertices)
        view = street.window(camera, vertices)
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
    """A scene with a lens and a sensor of its own, and, where `pattern` is a seed, a mere pattern behind all."""

    lens: "Lens"
    pattern: int | None

    def background(self, camera: Camera, feet: np.ndarray) -> np.ndarray:
        """Sky and ground, or the pattern, as an image (H,W,3)."""
        if self.pattern is None:
            return super().background(camera, feet)
        return _pattern(np.random.default_rng(self.pattern), camera.size[0])

    def develop(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """What lens, sensor and compression make of an image (H,W,3) float32 0-255."""
        return self.lens(rng, image)


class Lens:
    """Blur, resolution, colours, noise and compression of a recording, drawn once."""

    def __init__(self, rng: np.random.Generator):
        self.resolution = rng.uniform(0.3, 0.8) if rng.random() < 0.25 else 1.0
        self.sigma = rng.uniform(0.3, 0.7) if rng.random() < 0.7 else rng.uniform(0.7, 1.8)
        self.streak = _streak(rng) if rng.random() < 0.15 else None
        self.tint = (rng.uniform(0.75, 1.2) * rng.uniform(0.87, 1.13, 3)).astype(np.float32)
        self.contrast, self.saturation = rng.uniform(0.65, 1.25), rng.uniform(0.3, 1.15)
        if rng.random() < 0.04:
            self.saturation = 0.0
        self.noise = rng.exponential(4)
        self.quality = int(rng.uniform(25, 95)) if rng.random() < 0.5 else None

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Image (H,W,3) float32 0-255 -> the same as it is recorded."""
        height, width = image.shape[:2]
        image = cv2.GaussianBlur(image, (0, 0), self.sigma)
        if self.streak is not None:
            image = cv2.filter2D(image, -1, self.streak)
        if self.resolution < 1:
            small = (int(width * self.resolution), int(height * self.resolution))
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        # contrast about the middle, saturation about the grey of each pixel
        mix = np.full((3, 3), (1 - self.saturation) / 3) + self.saturation * np.eye(3)
        mix = np.diag(self.tint) @ mix * self.contrast
        shift = np.full((3, 1), 120 * (1 - self.contrast))
        image = cv2.transform(image, np.hstack([mix, shift]).astype(np.float32))
        image += street.grain(rng, image.shape, self.noise)
        if self.quality is not None:
            coded = cv2.imencode(
                ".jpg", np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, self.quality]
            )[1]
            image = cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(np.float32)
        if self.resolution < 1:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return image


def _streak(rng: np.random.Generator) -> np.ndarray:
    """Kernel of a camera that moves along a line while it exposes."""
    length = 2 * int(rng.integers(1, 6)) + 1
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * (length // 2)
    start, end = (tuple(np.rint(length // 2 + sign * reach).astype(int).tolist()) for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0)
    return kernel / kernel.sum()


def _pattern(rng: np.random.Generator, size: int) -> np.ndarray:
    """Clouds, panels, bars and discs of any colour over each other (size,size,3) float32."""
    colours = rng.uniform(20, 235, (2, 1)) + rng.normal(0, 30, (2, 3))
    image = synthetic.lab_walls(rng, colours, rng.uniform(0.2, 1.2) * size, size, plain=False)
    for _ in range(rng.integers(8)):
        colour = rng.uniform(5, 250, 3).tolist()
        start, end = rng.integers(-size // 4, size * 5 // 4, (2, 2)).tolist()
        if rng.random() < 0.6:
            cv2.line(image, start, end, colour, int(rng.integers(1, 9)), cv2.LINE_AA)
        else:
            axes = rng.integers(3, max(4, size // 5), 2).tolist()
            cv2.ellipse(image, start, axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    return image


class Props:
    """Textures and bodies to compose scenes from, drawn once.

    Args:
        rng: what they are drawn from
        body_dir: folder with the free body, as data/demo
    """

    def __init__(self, rng: np.random.Generator, body_dir: Path):
        families = (street.house, street.tree, street.plain, _banner, _stands, _fence, _junk, _stripes)
        self.textures = {make.__name__.strip("_"): [make(rng) for _ in range(TEXTURES)] for make in families}
        self.grounds = [(street.ground_texture(rng), street.TILE) for _ in range(TEXTURES)]
        self.grounds += [(_court(rng), COURT) for _ in range(TEXTURES)]
        self.bodies = []
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

    def scene(self, rng: np.random.Generator, azimuth: float, distance: float, flat_share: float) -> WildScene:
        """A scene around a person at the origin, seen from a camera in direction `azimuth` at a distance in m."""
        light = rng.normal(0, 1, 3) * [1, 0.3, 1] + [0, 0.8, 0]
        ambient = rng.uniform(0.35, 0.8)
        texture, tile = self.grounds[rng.integers(len(self.grounds))]
        sky, ground = rng.uniform(40, 245) + rng.normal(0, 18, 3), rng.uniform(40, 190) + rng.normal(0, 28, 3)
        pattern = int(rng.integers(2**31)) if rng.random() < flat_share else None
        things = [] if pattern is not None else self._backdrop(rng, azimuth)
        for _ in range(rng.choice(len(BYSTANDERS), p=BYSTANDERS)):
            things.append(self._bystander(rng, azimuth, light, ambient))
        if rng.random() < OCCLUDED_SHARE and distance > 2.5:
            things.append(street.near_board(rng, azimuth + rng.uniform(-0.35, 0.35)))
        return WildScene(
            light, ambient, np.ones(3), sky, np.clip(ground, 5, 250), texture, tile, things, Lens(rng), pattern
        )

    def _any(self, rng: np.random.Generator, *families: str) -> np.ndarray:
        family = self.textures[families[rng.integers(len(families))]]
        return family[rng.integers(len(family))]

    def _backdrop(self, rng: np.random.Generator, azimuth: float) -> list[Thing]:
        """Up to six boards behind the person: a wall with what is above it, houses, trees, things left around."""
        behind = azimuth + np.pi
        things: list[Thing] = []
        if rng.random() < 0.6:
            distance, height = rng.uniform(2, 12), rng.uniform(0.6, 4)
            families = ("banner", "fence", "plain", "stripes", "house")
            wall = street.board(rng, behind, distance, rng.uniform(6, 25), height, self._any(rng, *families))
            things.append(wall)
            if rng.random() < 0.6:
                above = street.board(rng, behind, distance + 1, 25, rng.uniform(2, 8), self._any(rng, "stands"))
                things.append(Board(above.corners + [0, height * rng.uniform(0.6, 1), 0], above.texture))
        for _ in range(rng.integers(5)):
            width, height = rng.uniform(0.4, 4, 2)
            where = behind + rng.uniform(-1, 1)
            texture = self._any(rng, *self.textures)
            things.append(street.board(rng, where, rng.uniform(1.2, 12), width, height, texture))
        return things

    def _bystander(self, rng: np.random.Generator, azimuth: float, light: np.ndarray, ambient: float) -> Bystander:
        """Somebody behind the person or beside him."""
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
        texture = (_racket, _stick, _bag)[kind](rng.integers(TEXTURES))
        length, width = ((0.68, 0.27), (rng.uniform(0.3, 1.2), 0.05), (rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.4)))[
            kind
        ]
        start, end, half = hand - 0.05 * along, hand + length * along, across * width / 2
        return Board(np.array([start - half, start + half, end + half, end - half]), texture)


def _any_colour(rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.uniform(15, 240) + rng.normal(0, 40, 3), 5, 250)


def _opaque(surface: np.ndarray) -> np.ndarray:
    """(S,S,3) -> (S,S,4)."""
    return np.dstack([np.clip(surface, 0, 255), np.ones(surface.shape[:2])]).astype(np.float32)


def _banner(rng: np.random.Generator) -> np.ndarray:
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


def _stands(rng: np.random.Generator) -> np.ndarray:
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


def _fence(rng: np.random.Generator) -> np.ndarray:
    """Posts and wires that one can see through (S,S,4)."""
    y, x = np.mgrid[:256, :512]
    pitch = rng.integers(6, 24)
    slanted = rng.random() < 0.5
    wires = ((x + y) % pitch < 2) | ((x - y) % pitch < 2) if slanted else (x % pitch < 2) | (y % (3 * pitch) < 3)
    posts = x % 128 < 6
    colour = np.broadcast_to(_any_colour(rng), (256, 512, 3))
    return np.dstack([colour, np.where(posts, 1, 0.7 * wires)]).astype(np.float32)


def _junk(rng: np.random.Generator) -> np.ndarray:
    """Things of any outline: chairs, boxes, bags (S,S,4)."""
    image = np.zeros((128, 128, 4), np.float32)
    for _ in range(rng.integers(2, 7)):
        corners = rng.integers(0, 128, (rng.integers(3, 6), 2)).astype(np.int32)
        cv2.fillPoly(image, [corners], [*_any_colour(rng).tolist(), 1.0], cv2.LINE_AA)
    for _ in range(rng.integers(4)):
        start, end = rng.integers(0, 128, (2, 2)).tolist()
        cv2.line(image, start, end, [*_any_colour(rng).tolist(), 1.0], int(rng.integers(2, 8)))
    return image


def _stripes(rng: np.random.Generator) -> np.ndarray:
    """Bars, bricks or a gradient (S,S,4)."""
    y, x = np.mgrid[:128, :128] / 128
    kind = rng.integers(3)
    one, other = _any_colour(rng), _any_colour(rng)
    count = rng.integers(2, 14)
    if kind == 0:
        share = np.sin(2 * np.pi * count * (x if rng.random() < 0.5 else y)) > rng.uniform(-0.7, 0.7)
    elif kind == 1:
        rows_of = np.floor(y * count)
        share = ((y * count) % 1 < 0.12) | ((x * count / 2 + 0.5 * (rows_of % 2)) % 1 < 0.06)
    else:
        share = np.clip(rng.uniform(-1, 1) * x + rng.uniform(-1, 1) * y + rng.uniform(0, 1), 0, 1)
    surface = one + (other - one) * np.asarray(share, float)[..., None]
    return _opaque(surface * (1 + 0.06 * street.value_noise(rng, 128, (8, 32, 64)))[..., None])


def _court(rng: np.random.Generator) -> np.ndarray:
    """Marked ground, factors of brightness on a square of COURT m (512,512)."""
    ground = (1 + rng.uniform(0.01, 0.08) * street.value_noise(rng, 512, (8, 32, 128), wrap=True)).astype(np.float32)
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
def _racket(seed: int) -> np.ndarray:
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
def _stick(seed: int) -> np.ndarray:
    """An even colour (S,S,4)."""
    return np.full((8, 8, 4), [*_any_colour(np.random.default_rng(seed)), 1], np.float32)


@lru_cache
def _bag(seed: int) -> np.ndarray:
    """A rounded shape under a handle (S,S,4), handle first."""
    image = np.zeros((64, 64, 4), np.float32)
    colour = [*_any_colour(np.random.default_rng(seed)).tolist(), 1.0]
    cv2.ellipse(image, (32, 20), (14, 20), 0, 180, 360, colour, 3)
    cv2.ellipse(image, (32, 42), (30, 21), 0, 0, 360, colour, -1)
    return image
