"""A free benchmark with a domain shift: a labelled source, the lab, and a video stream from another domain, the street.

Everything is drawn from seeds and rendered on the CPU with the free body. The lab has four fixed cameras near eye
level, few people in plain clothes and walls of smooth colour. The street has a moving, tilted camera, other bodies,
other clothes, textured ground and houses, sunlight, things in the way, and motions that the lab does not have.
Training, validation and test share no person, no motion clip and no camera.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from synthetic.body import Body
from synthetic.clothes import Wardrobe
from synthetic.figure import FRAME_RATE, wander
from synthetic.motions import TEST_KINDS, VALIDATION_KINDS, motion, source_poses
from synthetic.street import Camera, Scene, Street, Thing, blend, grain, look_at
from utils import renderer
from utils.files import save_npz, save_text, write_atomically
from utils.geometry import CROP_SIZE
from utils.image import BOX_UNIT, box_around
from utils.joints import SMPL24, SPIN, SPIN24, rows

BOX_ENLARGE = 1.2  # as 3DPW's box around the projected joints
PELVIS = list(SPIN24).index("Pelvis (MPII)")
SIDES = ("left", "right")
FEET = [rows([f"{side}_ankle", f"{side}_foot"], SMPL24) for side in SIDES]
ARMS = [rows([f"{side}_{part}" for part in ("collar", "shoulder", "elbow", "wrist")], SMPL24) for side in SIDES]
STEP = 1e-3  # m, by which a foot must be lower than the standing one to take over
LIMBS = [joint for joint, name in enumerate(SMPL24) if joint and not name.endswith(("foot", "hand"))]
SPLITS = ("train", "validation", "test", "wild")
JPEG_QUALITY = 93

# the lab
PEOPLE = 8
OUTFITS = 12
CAMERA_AZIMUTHS = np.radians([35.0, 145.0, 215.0, 325.0])
WALL_DISTANCE = 2.5  # m behind the person
PLAIN_SHARE = 0.3  # of the pictures have an even wall and one of the few outfits
MIX_SHARE = 0.15  # of the poses take an arm from another one
POSE_NOISE = 0.04  # rad
MAX_PANELS = 5  # on the walls of a picture
MAX_SPECKLES = 30  # grey levels, standard deviation
FILE_SIZE = 288  # px, side of a picture of the labelled set

# the street
FRAME_SIZE = (384, 512)
KINDS = {"validation": VALIDATION_KINDS, "test": TEST_KINDS}
SEQUENCES = 6
FRAMES = 40  # of a sequence


def build(output: Path, body_dir: Path, seed: int = 0, labelled: int = 600) -> None:
    """Render the whole benchmark: the labelled source, the validation stream and the test stream.

    Args:
        output: gets source/{h36m_train.npz, images/} and, for validation and test, <split>/3dpw_vid/<sequence>.npz and
            <split>/imageFiles/<sequence>/image_00000.jpg; at last a file `complete`
        body_dir: folder with the free body, as data/demo
        seed: of the streams; the source is the same for every seed
        labelled: pictures of the source

    Raises:
        UserError: the body is missing, or the output cannot be written
    """
    (Path(output) / "complete").unlink(missing_ok=True)
    write_source(Path(output) / "source", body_dir, labelled)
    for split in KINDS:
        write_stream(Path(output) / split, body_dir, split, seed)
    save_text(Path(output) / "complete", f"seed {seed}\n")


class Rendered:
    """Labelled pictures of single people, rendered on the fly.

    Args:
        body_dir: folder with the free body, as data/demo
        poses: (N,24,3) what people do
        people: (P,10) betas
    """

    def __init__(self, body_dir: Path, poses: np.ndarray, people: np.ndarray):
        self._body = Body(body_dir, "neutral")
        self._wardrobe = Wardrobe(self._body)
        self._poses, self._people = poses, people

    def sample(self, rng: np.random.Generator, size: int = CROP_SIZE, enlarge: float = BOX_ENLARGE) -> dict[str, Any]:
        """One picture of a person with all labels; the same generator state gives the same picture.

        Args:
            size: side of the picture, px
            enlarge: side of the picture over that of the box around the joints, before a random change

        Returns:
            image (size,size,3) uint8 RGB, keypoints_2d (49,3) in [-1,1] with confidence, joints_3d (24,4) the SPIN
            joints, m, pelvis at 0, axes of the camera, confidence 1, pose (72,) axis-angle, betas (10,); all float32
        """
        raise NotImplementedError

    def _someone(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Betas (10,) and rotations (24,3,3) in world axes of somebody."""
        betas = self._people[rng.integers(len(self._people))] + rng.normal(0, 0.3, 10)
        return betas, Rotation.from_rotvec(self._pose(rng)).as_matrix()

    def _pose(self, rng: np.random.Generator) -> np.ndarray:
        """A pose (24,3) of the clips, facing any direction."""
        pose = self._poses[rng.integers(len(self._poses))].copy()
        if rng.random() < MIX_SHARE:
            arm = ARMS[rng.integers(2)]
            pose[arm] = self._poses[rng.integers(len(self._poses)), arm]
        pose[LIMBS] += rng.normal(0, POSE_NOISE, (len(LIMBS), 3))
        heading = Rotation.from_rotvec([0, rng.uniform(0, 2 * np.pi), 0])
        pose[0] = (heading * Rotation.from_rotvec(pose[0])).as_rotvec()
        return pose


class Lab(Rendered):
    """The source domain.

    Args:
        body_dir: folder with the free body, as data/demo
        split: train or validation, which share no person, no clip, no outfit and no camera
    """

    def __init__(self, body_dir: Path, split: str = "train"):
        rng = np.random.default_rng([1, SPLITS.index(split)])
        poses = source_poses(rng, clips=60)
        super().__init__(body_dir, poses, np.clip(rng.normal(0, 0.9, (PEOPLE, 10)), -2, 2))
        self._outfits = [self._wardrobe.lab_outfit(rng) for _ in range(OUTFITS)]
        self._azimuths = CAMERA_AZIMUTHS + (0 if split == "train" else np.pi / 7)
        # wall and floor as each camera sees them
        self._rooms = rng.uniform(90, 200, (len(self._azimuths), 2, 1)) + rng.normal(0, 10, (len(self._azimuths), 2, 3))

    def sample(self, rng: np.random.Generator, size: int = CROP_SIZE, enlarge: float = BOX_ENLARGE) -> dict[str, Any]:
        """As described in Rendered; every confidence is 1."""
        betas, rotmat = self._someone(rng)
        room = rng.integers(len(self._azimuths))
        camera = self._camera(rng, self._azimuths[room])
        vertices, skeleton = self._body(rotmat, self._body.shaped(betas))
        place = np.array([*rng.uniform(-1, 1, 2), 0])[[0, 2, 1]] - [0, vertices[:, 1].min(), 0]
        joints = camera.to_camera(self._body.joints49(vertices, skeleton) + place)
        vertices = camera.to_camera(vertices + place)

        seen = camera.project(joints)
        centre, scale = box_around(seen, enlarge)
        side = scale * BOX_UNIT * rng.uniform(0.94, 1.08)
        centre = centre + rng.normal(0, 0.025, 2) * side

        def to_picture(points: np.ndarray) -> np.ndarray:
            return ((camera.project(points) - centre) / side + 0.5) * size

        feet = np.array([place[0], 0, place[2]])
        away = (feet - camera.position) * [1, 0, 1]
        corner = feet + away / np.linalg.norm(away) * WALL_DISTANCE
        floor_row = to_picture(camera.to_camera(corner[None]))[0, 1]
        plain = rng.random() < PLAIN_SHARE
        image = lab_walls(rng, self._rooms[room], floor_row, size, plain)
        self._draw_person(rng, image, vertices, to_picture(vertices), plain)
        image += grain(rng, image.shape, rng.uniform(1, 5))
        keypoints = with_confidence(to_picture(joints) / size * 2 - 1)
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


def labelled(
    image: np.ndarray, keypoints: np.ndarray, joints: np.ndarray, pose: np.ndarray, betas: np.ndarray
) -> dict[str, Any]:
    """A sample as Rendered.sample returns it; image (S,S,3) 0-255, keypoints (49,3), joints (49,3) m in the camera."""
    return {
        "image": np.clip(image, 0, 255).astype(np.uint8),
        "keypoints_2d": keypoints,
        "joints_3d": with_confidence(joints[SPIN] - joints[SPIN][PELVIS]),
        "pose": pose.astype(np.float32),
        "betas": betas.astype(np.float32),
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


def write_source(output: Path, body_dir: Path, count: int, domain: type[Rendered] = Lab) -> None:
    """Render `count` pictures of a domain into output/images and their labels into output/h36m_train.npz.

    The file has the keys of the Human3.6M training file: imgname, center, scale, part, S, pose, shape.
    Raises UserError when the body is missing or the output cannot be written.
    """
    source, rng = domain(body_dir), np.random.default_rng(2)
    prefix = domain.__name__.lower()
    columns: dict[str, list] = {key: [] for key in ("imgname", "center", "scale", "part", "S", "pose", "shape")}
    for index in tqdm(range(count), desc="source", unit="image"):
        sample = source.sample(rng, FILE_SIZE, enlarge=1.5)
        name = f"images/{prefix}_{index:05d}.jpg"
        _write_jpeg(output / name, sample["image"])
        part = sample["keypoints_2d"][SPIN].astype(float)
        part[:, :2] = _to_pixels((part[:, :2] + 1) / 2 * FILE_SIZE)
        centre, scale = box_around(part[part[:, 2] > 0, :2], BOX_ENLARGE)
        row = (name, centre, scale, part, sample["joints_3d"], sample["pose"], sample["betas"])
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    save_npz(output / "h36m_train.npz", **{key: np.array(values) for key, values in columns.items()})


class World(NamedTuple):
    """What makes a stream: the kinds of motion of its sequences, and what is drawn from a generator for each of them.

    Attributes:
        kinds: names from motions.KINDS, one after the other
        outfit: wardrobe, generator -> colours (V,3) and thickness (V,) or a number, m, of the clothes
        cameras: generator, places (T,3) of the person -> a camera for each frame, and an azimuth of the first
        scene: generator, that azimuth -> what is around
    """

    kinds: Sequence[str]
    outfit: Callable[[Wardrobe, np.random.Generator], tuple[np.ndarray, Any]]
    cameras: Callable[[np.random.Generator, np.ndarray], tuple[list[Camera], float]]
    scene: Callable[[np.random.Generator, float], Scene]


def write_stream(
    output: Path, body_dir: Path, split: str, seed: int = 0, frames: int = FRAMES, world: World | None = None
) -> None:
    """Render the sequences of a split of a world as video frames, labelled in 3DPW's processed format.

    Args:
        output: gets 3dpw_vid/<sequence>.npz and imageFiles/<sequence>/image_00000.jpg
        body_dir: folder with the free body, as data/demo
        split: validation or test, of the street; any of SPLITS for another world
        seed: the same seed gives the same stream
        frames: of each of the SEQUENCES sequences
        world: by default the street

    Raises:
        UserError: the body is missing, or the output cannot be written
    """
    world = world or street_world(split)
    bodies = {gender: Body(body_dir, gender) for gender in ("male", "female")}
    wardrobes = {gender: Wardrobe(body) for gender, body in bodies.items()}
    with tqdm(total=SEQUENCES * frames, desc=split, unit="image") as bar:
        for index in range(SEQUENCES):
            kind = world.kinds[index % len(world.kinds)]
            # person, motion, camera and scene have generators of their own, so that none depends on another's draws
            seeds = np.random.SeedSequence([seed, SPLITS.index(split), index]).spawn(4)
            who, how, where, what = (np.random.default_rng(child) for child in seeds)
            gender = ("male", "female")[who.integers(2)]
            body = bodies[gender]
            betas = np.clip(who.normal(0, 1, 10), -2.2, 2.2)
            person = Person(body, betas, *world.outfit(wardrobes[gender], who))
            rotmats, places = perform(person, kind, how, frames)
            cameras, azimuth = world.cameras(where, places)
            scene = world.scene(what, azimuth)
            name = f"{split}_{index:02d}_{kind}"
            columns: dict[str, list] = {}
            for frame, (rotmat, place, camera) in enumerate(zip(rotmats, places, cameras, strict=True)):
                image, labels = _video_frame(what, person, rotmat, place, camera, scene)
                labels["imgname"] = f"imageFiles/{name}/image_{frame:05d}.jpg"
                _write_jpeg(output / labels["imgname"], image)
                for key, value in labels.items():
                    columns.setdefault(key, []).append(value)
                bar.update()
            columns["gender"] = ["mf"[gender == "female"]] * frames
            save_npz(output / f"3dpw_vid/{name}.npz", **{key: np.array(values) for key, values in columns.items()})


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


def follow(rng: np.random.Generator, places: np.ndarray) -> tuple[list[Camera], float]:
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


def street_world(split: str) -> World:
    """The target domain, with the motions of one of its splits."""
    return World(KINDS[split], lambda wardrobe, rng: (wardrobe.street_outfit(rng), 0.0), follow, Street)


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


def _video_frame(
    rng: np.random.Generator, person: Person, rotmat: np.ndarray, place: np.ndarray, camera: Camera, scene: Scene
) -> tuple[np.ndarray, dict[str, Any]]:
    """Render one frame (H,W,3) uint8 and its labels, a row of 3DPW's processed file."""
    vertices, skeleton = person.body(rotmat, person.shaped)
    joints = camera.to_camera(person.body.joints49(vertices, skeleton) + place)
    feet = place + skeleton[np.concatenate(FEET)].mean(axis=0)
    image = draw_person(rng, person, vertices + place, feet, camera, scene)

    seen = _to_pixels(camera.project(joints))
    centre, scale = box_around(seen, BOX_ENLARGE)
    spin = with_confidence(seen)[SPIN]
    # the body model's own joints in these axes: its pelvis stays where the zero pose has it
    origin = skeleton[0] - camera.to_camera(skeleton[:1] + place)[0]
    labels = {
        "center": centre,
        "scale": scale,
        "pose": in_camera(rotmat, camera),
        "shape": person.betas,
        "part": spin,
        "smpl_j3d": (joints + origin).astype(np.float32),
        "smpl_j2d": with_confidence(seen),
    }
    return np.clip(image, 0, 255).astype(np.uint8), labels


def in_camera(rotmat: np.ndarray, camera: Camera) -> np.ndarray:
    """Axis-angle pose (72,) of rotations (24,3,3) in world axes, the global orientation turned into the camera."""
    turned = np.concatenate([camera.rotation @ rotmat[:1], rotmat[1:]])
    return Rotation.from_matrix(turned).as_rotvec().ravel()


def with_confidence(points: np.ndarray) -> np.ndarray:
    """Append a column of ones, (N,C) -> (N,C+1) float32."""
    return np.pad(points, ((0, 0), (0, 1)), constant_values=1).astype(np.float32)


def _to_pixels(points: np.ndarray) -> np.ndarray:
    """From the renderer's frame, first pixel centred at 0.5, to that of the data sets, where it is centred at 0."""
    return points - 0.5


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write an image (H,W,3) uint8 RGB, whole or not at all."""
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    write_atomically(path, lambda temporary: temporary.write_bytes(encoded.tobytes()))
