"""The free data: labelled sources and video streams, rendered on the CPU from seeds with the free body, and written.

The free benchmark has a domain shift: its source is the lab, its streams show the street, with other bodies, clothes
and motions. Rendered footage has a source of all that the renderer can vary, and a stream of it with ground truth.
Training, validation and test share no person, no motion clip and no camera.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from synthetic import version
from synthetic.body import Body
from synthetic.camera import Camera
from synthetic.clothes import Wardrobe
from synthetic.lab import Lab
from synthetic.motions import TEST_KINDS, VALIDATION_KINDS
from synthetic.person import FEET, Person, draw_person, perform
from synthetic.samples import BOX_ENLARGE, SPLITS, Rendered, in_camera, with_confidence
from synthetic.scene import Scene
from synthetic.street import Street, walking_camera
from synthetic.wild import Wild, turning_camera, wild_scenes
from utils.files import save_npz, write_atomically
from utils.image import box_around
from utils.joints import SPIN

log = logging.getLogger("boa")

SEQUENCES = 6
JPEG_QUALITY = 93
FILE_SIZE = 288  # px, side of an image of a labelled source


class Source(NamedTuple):
    """A labelled source: what draws its samples from a body's folder, and how many images are written."""

    samples: Callable[[Path], Rendered]
    images: int


class Domain(NamedTuple):
    """What a stream shows, and what is drawn from a generator for each of its sequences.

    Attributes:
        kinds: names from motions.KINDS, one after the other
        frames: of a sequence
        outfit: wardrobe, generator -> colours (V,3) and thickness (V,) or a number, m, of the clothes
        cameras: generator, places (T,3) of the person -> a camera for each frame, and an azimuth of the first
        scenes: folder of the body -> what makes of a generator and that azimuth what is around
    """

    kinds: Sequence[str]
    frames: int
    outfit: Callable[[Wardrobe, np.random.Generator], tuple[np.ndarray, np.ndarray | float]]
    cameras: Callable[[np.random.Generator, np.ndarray], tuple[list[Camera], float]]
    scenes: Callable[[Path], Callable[[np.random.Generator, float], Scene]]


_STREET = Domain(
    kinds=TEST_KINDS,
    frames=40,
    outfit=lambda wardrobe, rng: (wardrobe.street_outfit(rng), 0.0),
    cameras=walking_camera,
    scenes=lambda body_dir: Street,
)
SOURCES = {"source": Source(Lab, 600), "wild-source": Source(Wild, 300)}
DOMAINS = {
    "validation": _STREET._replace(kinds=VALIDATION_KINDS),
    "test": _STREET,
    "wild": Domain(
        kinds=("serve", "run", "talk", "swing", "dance", "side_step"),
        frames=50,
        outfit=Wardrobe.wild_outfit,
        cameras=turning_camera,
        scenes=wild_scenes,
    ),
}
# what process_data.py renders together, by the names of the folders
SETS = {"synthetic": ("source", "validation", "test"), "wild": ("wild-source", "wild")}


def build(root: Path, body_dir: Path, name: str, seed: int = 0) -> None:
    """Render those folders of a set that are missing, or not as they would be rendered now; a log line says which.

    Args:
        root: gets a folder for each of SETS[name], as `write_source` and `write_stream` write them
        body_dir: folder with the free body, as data/demo
        name: synthetic or wild
        seed: of the streams; the sources are the same for every seed

    Raises:
        UserError: the body is missing, or `root` cannot be written
    """
    if not _renew({Path(root) / part: part for part in SETS[name]}, body_dir, seed):
        log.info("%s is as it would be rendered now: %s", root, ", ".join(SETS[name]))


def build_source(folder: Path, body_dir: Path) -> None:
    """Render the labelled source of footage, unless the folder has it as it would be rendered now.

    Raises UserError when the body is missing, or the folder cannot be written.
    """
    _renew({Path(folder): "wild-source"}, body_dir)


def _renew(folders: Mapping[Path, str], body_dir: Path, seed: int = 0) -> bool:
    """Render what folders lack of SOURCES or DOMAINS, each whole or not at all -> whether there was any."""
    made_of = {folder: version.made_of(body_dir, seed if name in DOMAINS else None) for folder, name in folders.items()}
    found = {folder: version.differences(folder, parts) for folder, parts in made_of.items()}
    lacking = {folder: why for folder, why in found.items() if why}
    if lacking:
        again = {folder: f" again ({'; '.join(why)})" if folder.exists() else "" for folder, why in lacking.items()}
        log.info("rendering %s", ", ".join(f"{folder}{words}" for folder, words in again.items()))
    for folder in lacking:
        version.render(folder, made_of[folder], functools.partial(_write, folders[folder], body_dir, seed))
    return bool(lacking)


def _write(name: str, body_dir: Path, seed: int, output: Path) -> None:
    if name in DOMAINS:
        write_stream(output, body_dir, name, seed)
    else:
        write_source(output, SOURCES[name].samples(body_dir), SOURCES[name].images)


def write_source(output: Path, source: Rendered, count: int) -> None:
    """Render `count` samples into output/images and their labels into output/h36m_train.npz.

    The file has the keys of the Human3.6M training file: imgname, center, scale, part, S, pose, shape.
    Raises UserError when the output cannot be written.
    """
    rng, prefix = np.random.default_rng(2), type(source).__name__.lower()
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


def write_stream(output: Path, body_dir: Path, split: str, seed: int = 0, frames: int | None = None) -> None:
    """Render the sequences of one of DOMAINS as video frames, labelled in 3DPW's processed format.

    Args:
        output: gets 3dpw_vid/<sequence>.npz and imageFiles/<sequence>/image_00000.jpg
        body_dir: folder with the free body, as data/demo
        split: which domain
        seed: the same seed gives the same stream
        frames: of each of the SEQUENCES sequences; None: those of the domain

    Raises:
        UserError: the body is missing, or the output cannot be written
    """
    domain, frames = DOMAINS[split], frames or DOMAINS[split].frames
    make_scene = domain.scenes(body_dir)
    wardrobes = [Wardrobe(Body(body_dir, gender)) for gender in ("male", "female")]
    with tqdm(total=SEQUENCES * frames, desc=split, unit="image") as bar:
        for index in range(SEQUENCES):
            kind = domain.kinds[index % len(domain.kinds)]
            # person, motion, camera and scene have generators of their own, so that none depends on another's draws
            seeds = np.random.SeedSequence([seed, SPLITS.index(split), index]).spawn(4)
            who, how, where, what = (np.random.default_rng(child) for child in seeds)
            gender = who.integers(2)
            betas = np.clip(who.normal(0, 1, 10), -2.2, 2.2)
            person = Person(wardrobes[gender].body, betas, *domain.outfit(wardrobes[gender], who))
            rotmats, places = perform(person, kind, how, frames)
            cameras, azimuth = domain.cameras(where, places)
            scene = make_scene(what, azimuth)
            name, columns = f"{split}_{index:02d}_{kind}", {}
            for frame, moment in enumerate(zip(rotmats, places, cameras, strict=True)):
                image, labels = _video_frame(what, person, *moment, scene)
                labels["imgname"] = f"imageFiles/{name}/image_{frame:05d}.jpg"
                _write_jpeg(output / labels["imgname"], image)
                for key, value in labels.items():
                    columns.setdefault(key, []).append(value)
                bar.update()
            columns["gender"] = ["mf"[gender]] * frames
            save_npz(output / f"3dpw_vid/{name}.npz", **{key: np.array(values) for key, values in columns.items()})


def _video_frame(
    rng: np.random.Generator, person: Person, rotmat: np.ndarray, place: np.ndarray, camera: Camera, scene: Scene
) -> tuple[np.ndarray, dict[str, np.ndarray | float | str]]:
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


def _to_pixels(points: np.ndarray) -> np.ndarray:
    """From the renderer's frame, first pixel centred at 0.5, to that of the data sets, where it is centred at 0."""
    return points - 0.5


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write an image (H,W,3) uint8 RGB, whole or not at all."""
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    write_atomically(path, lambda temporary: temporary.write_bytes(encoded.tobytes()))
