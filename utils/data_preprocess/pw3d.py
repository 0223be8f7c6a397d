"""3DPW as distributed -> one npz per test sequence, by one of two protocols.

#PS is SPIN's (Kolotouros et al., ICCV 2019): every frame with a valid camera, the box around the projected joints.

#PH is HMMR's (Kanazawa et al., CVPR 2019): of those frames the ones with more than 6 visible joints; boxes around the
detected joints, smoothed over time; and a neutral shape fitted to each person's own, with which meshes are compared.
Joints count as visible from a confidence of 0.1. HMMR decides by its first 14 joints, of which the detections of 3DPW
have 11: all but ankles and the top of the head. It also takes frames without a valid camera; they are left out here,
because the 2D joints that the adaptation follows are projected through that camera.
"""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, median_filter
from scipy.spatial.transform import Rotation
from torch import Tensor

from utils.data_preprocess.conversion import Converted, Settings, Task, check_finite, convert_all
from utils.errors import UserError, reason_for
from utils.files import existing
from utils.geometry import CROP_SIZE
from utils.image import BOX_UNIT, box_around, image_size
from utils.joints import COCO18, JOINTS49, SPIN24, rows
from utils.restricted_pickle import load_pickle, numbers
from utils.structures import Body

_REMEDY = "download 3DPW again and set PW3D_ROOT in config.py (docs/datasets.md, 3DPW)"
_KEYS = ("poses", "betas", "trans", "poses2d", "cam_poses", "cam_intrinsics", "genders", "campose_valid", "sequence")
_LIMBS = list(SPIN24)[:12]  # those of SPIN's joints that the detections of 3DPW have
_SEEN = 0.3  # confidence of a detection from which it counts
_ENLARGE = 1.2  # of the box around the joints
_CHUNK = 512  # frames that go through the body at once
_BETAS = 10
_GENDERS = {"m": "male", "f": "female"}
_OFF_CENTRE = 0.25  # share of an image's side by which the camera's centre may lie beside the image's
# of #PH
_VISIBLE = 0.1  # confidence
_DECISIVE = [name for name in list(SPIN24)[:13] if "Ankle" not in name]  # limbs and neck
_MIN_VISIBLE = 6  # of them, and more are needed
_PERSON = 150.0  # px of the crop
_SMALLEST = 0.5  # px, diagonal of a box
_MEDIAN, _SIGMA = 11, 3  # frames


def convert(
    root: Path,
    output: Path,
    bodies: Mapping[str, Body],
    paper_compat: bool = False,
    fits: Mapping[str, "NeutralFit"] | None = None,
    settings: Settings = Settings(),
) -> list[str]:
    """Write <output>/<sequence>.npz for every sequence of the test split -> names of those that could not be converted.

    Args:
        root: PW3D_ROOT, with sequenceFiles/test/*.pkl
        output: folder of the files
        bodies: `male` and `female` body models with the 49 joints
        paper_compat: with the published code's slips: women projected with the male body, `smpl_j3d` in the world
        fits: for #PH, the neutral shape for each gender's shape; without it, #PS
        settings: workers and so on

    Raises:
        UserError: no sequence at all, or none that can be converted, or, if strict, one that cannot
    """
    folder = existing(root / "sequenceFiles" / "test", _REMEDY)
    files = sorted(folder.glob("*.pkl"))
    if not files:
        raise UserError(f"{folder} holds no .pkl file; {_REMEDY}")
    tasks = [
        Task(
            file.stem,
            output / f"{file.stem}.npz",
            functools.partial(convert_sequence, root, file, bodies, paper_compat, fits),
            functools.partial(_check_sequence, root, file),
        )
        for file in files
    ]
    protocol = "ps" if fits is None else "ph"
    settings = settings._replace(recorded={"paper_compat": paper_compat, "protocol": protocol})
    return convert_all(tasks, f"3DPW #{protocol.upper()}", root, settings, keypoints="smpl_j2d")


def convert_sequence(
    root: Path,
    file: Path,
    bodies: Mapping[str, Body],
    paper_compat: bool = False,
    fits: Mapping[str, "NeutralFit"] | None = None,
) -> Converted:
    """One sequence in the processed format, person after person; frames without a camera are left out."""
    raw = read_sequence(file)
    for problem in _problems(root, raw):
        raise UserError(problem)
    try:
        with np.errstate(all="ignore"):  # what is not finite in the end is named below
            persons = [_convert_person(raw, person, bodies, paper_compat, fits) for person in range(len(raw.poses))]
    except ValueError as error:
        raise UserError(f"{file} holds what is no rotation ({reason_for(error)}); {_REMEDY}") from error
    columns = {name: np.concatenate([person[name] for person, _ in persons]) for name in persons[0][0]}
    check_finite(columns, file, _REMEDY)
    dropped: Counter[str] = Counter()
    for _, reasons in persons:
        dropped.update(reasons)
    return Converted(columns, dict(dropped))


def _check_sequence(root: Path, file: Path) -> list[str]:
    try:
        return list(_problems(root, read_sequence(file)))
    except UserError as error:
        return [str(error)]


class RawSequence(NamedTuple):
    """A sequence of F frames with P people, as distributed.

    Attributes:
        name: of the sequence and of its folder of images
        genders: male or female, of each person
        poses: (F,72) axis-angle of each person
        betas: (10,) of each person
        translations: (F,3) m of each person
        detections: (F,3,18) of each person: x, y in px and confidence of the joints COCO18
        has_camera: (F,) of each person
        cameras: (F,4,4), world to camera
        intrinsics: (3,3) px
    """

    name: str
    genders: list[str]
    poses: list[np.ndarray]
    betas: list[np.ndarray]
    translations: list[np.ndarray]
    detections: list[np.ndarray]
    has_camera: list[np.ndarray]
    cameras: np.ndarray
    intrinsics: np.ndarray


def read_sequence(file: Path) -> RawSequence:
    """Read a sequence; UserError when it is missing, damaged, hostile or not laid out as 3DPW is."""
    raw = load_pickle(file, _KEYS, _REMEDY)
    try:
        sequence = _as_sequence(raw)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not laid out as 3DPW is: {reason_for(error)}; {_REMEDY}") from error
    for person, has_camera in enumerate(sequence.has_camera):
        frames = np.flatnonzero(has_camera)
        given = {
            "imgname": np.array([_image_name(frame) for frame in frames], dtype=str),
            "poses": sequence.poses[person][frames],
            "trans": sequence.translations[person][frames],
            "poses2d": sequence.detections[person][frames],
            "cam_poses": sequence.cameras[frames],
        }
        check_finite(given, file, _REMEDY)
    return sequence


def _as_sequence(raw: Mapping[str, Any]) -> RawSequence:
    """The same with types and shapes checked; ValueError and the like where they are others."""
    people, frames = range(len(raw["poses"])), len(raw["cam_poses"])
    genders = [_text(raw["genders"][person]) for person in people]
    name = _text(raw["sequence"])
    if not people or any(gender not in _GENDERS for gender in genders):
        raise ValueError(f"genders are {genders} where m or f of {len(people)} people is needed")
    if Path(name).name != name:
        raise ValueError(f"sequence is {name!r}, which is no name of a folder")

    def of_person(key: str, *shape: int | None) -> list[np.ndarray]:
        return [_numbers(raw[key][person], shape, key) for person in people]

    betas = [betas[:_BETAS] for betas in of_person("betas", None)]
    return RawSequence(
        name,
        [_GENDERS[gender] for gender in genders],
        of_person("poses", frames, 72),
        [_numbers(own, (_BETAS,), "betas") for own in betas],
        of_person("trans", frames, 3),
        of_person("poses2d", frames, 3, len(COCO18)),
        [valid != 0 for valid in of_person("campose_valid", frames)],
        _numbers(raw["cam_poses"], (frames, 4, 4), "cam_poses"),
        _numbers(raw["cam_intrinsics"], (3, 3), "cam_intrinsics"),
    )


def _numbers(value: Any, shape: tuple[int | None, ...], name: str) -> np.ndarray:
    try:
        return numbers(value, shape)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} {error}") from error


def _text(value: Any) -> str:
    # byte strings, as Python 2 has them
    return value.decode() if isinstance(value, bytes) else str(value)


def _problems(root: Path, raw: RawSequence) -> Iterator[str]:
    """A line on images of frames with a camera that are not there, or are of another size than the camera's."""
    folder = root / "imageFiles" / raw.name
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    names = [_image_name(frame) for frame in np.flatnonzero(np.any(raw.has_camera, axis=0))]
    missing = [name for name in names if name not in there]
    if missing:
        yield f"{folder / missing[0]} is missing, as are {len(missing) - 1} more of it; {_REMEDY}"
    elif names:
        size = np.array(image_size(folder / names[0]))
        centre = raw.intrinsics[:2, 2]
        if not (abs(centre - size / 2) <= _OFF_CENTRE * size).all():
            expected = " x ".join(f"{2 * side:.0f}" for side in centre)
            yield f"{folder / names[0]} is {size[0]} x {size[1]} px, its camera's image about {expected}; {_REMEDY}"


def _image_name(frame: int) -> str:
    return f"image_{frame:05d}.jpg"


def _convert_person(
    raw: RawSequence,
    person: int,
    bodies: Mapping[str, Body],
    paper_compat: bool,
    fits: Mapping[str, "NeutralFit"] | None,
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    has_camera, detections = raw.has_camera[person], raw.detections[person]
    dropped = {"without a valid camera": int((~has_camera).sum())}
    is_kept = has_camera
    if fits is not None:
        is_kept = has_camera & (_count_visible(detections) > _MIN_VISIBLE)
        dropped[f"{_MIN_VISIBLE} visible joints or fewer"] = int((has_camera & ~is_kept).sum())
    frames = np.flatnonzero(is_kept)
    pose = raw.poses[person][frames]
    own_betas = raw.betas[person]
    betas = np.tile(own_betas, (len(frames), 1))
    translation = raw.translations[person][frames]
    cameras = raw.cameras[frames]
    gender = raw.genders[person]

    joints = _joints(bodies["male" if paper_compat else gender], pose, betas)
    in_world = joints + translation[:, None].astype(np.float32)
    in_camera = in_world @ cameras[:, :3, :3].swapaxes(1, 2) + cameras[:, None, :3, 3]
    pixels = in_camera @ raw.intrinsics.T
    pixels = pixels / pixels[..., 2:]  # leaves a one behind, which is the confidence
    if fits is None:
        found = [box_around(points[:, :2], _ENLARGE) for points in pixels]
        boxes = np.array([(*center, scale) for center, scale in found]).reshape(-1, 3)
    else:
        boxes = _boxes_over_time(detections)[frames]

    root = Rotation.from_matrix(cameras[:, :3, :3]) * Rotation.from_rotvec(pose[:, :3])
    columns = {
        "imgname": np.array([f"imageFiles/{raw.name}/{_image_name(frame)}" for frame in frames], dtype=str),
        "center": boxes[:, :2],
        "scale": boxes[:, 2],
        "pose": np.concatenate([root.as_rotvec(), pose[:, 3:]], axis=1),
        "shape": betas,
        "part": _detections(detections[frames]),
        "gender": np.full(len(frames), gender[0]),
        "smpl_j3d": in_world if paper_compat else joints,
        "smpl_j2d": pixels,
        "person": np.full(len(frames), person),
    }
    if fits is not None:
        columns["shape_neutral"] = np.tile(fits[gender](own_betas), (len(frames), 1))
    return columns, dropped


class NeutralFit(NamedTuple):
    """The neutral shape that is nearest to a gendered one, betas_neutral = slope betas + intercept."""

    slope: np.ndarray  # (10,10)
    intercept: np.ndarray  # (10,)

    def __call__(self, betas: np.ndarray) -> np.ndarray:
        return self.slope @ betas + self.intercept


class ShapedBody(Body, Protocol):
    """A body model of which the shapes are known as arrays, too."""

    v_template: Tensor  # (V,3) m
    shapedirs: Tensor  # (V,3,10) m


def neutral_fits(bodies: Mapping[str, ShapedBody]) -> dict[str, NeutralFit]:
    """Fit the neutral body to the male and the female one, as whole meshes: least squares over the vertices in T-pose.

    The meshes are compared where they stand, without alignment or scaling. HMMR finds the least mean distance by
    gradient descent; the least mean squared distance, which has a closed form, differs from it by millimetres.
    """
    neutral = bodies["neutral"]
    directions = neutral.shapedirs.double().flatten(0, 1).numpy()  # (3V,10)
    fits = {}
    for gender in ("male", "female"):
        own = bodies[gender]
        apart = (own.v_template - neutral.v_template).double().flatten().numpy()
        targets = np.concatenate([own.shapedirs.double().flatten(0, 1).numpy(), apart[:, None]], axis=1)
        solution = np.linalg.lstsq(directions, targets, rcond=None)[0]
        fits[gender] = NeutralFit(solution[:, :-1], solution[:, -1])
    return fits


def _count_visible(poses2d: np.ndarray) -> np.ndarray:
    """How many of the joints by which HMMR decides are detected, (F,3,18) -> (F,)."""
    return (poses2d[:, 2][:, rows(_DECISIVE, COCO18)] > _VISIBLE).sum(1)


def _boxes_over_time(poses2d: np.ndarray) -> np.ndarray:
    """HMMR's boxes of a person from the detections (F,3,18) -> (F,3): center x, y in px, scale; nan where unknown.

    The diagonal of the box around the visible joints becomes 150 px of a crop of 224. Between frames without joints
    the boxes are interpolated; then they are smoothed by a median of 11 frames and a Gaussian of 3.
    """
    xy, is_seen = poses2d[:, :2], poses2d[:, 2:] > _VISIBLE
    low, high = np.where(is_seen, xy, np.inf).min(2), np.where(is_seen, xy, -np.inf).max(2)
    boxes = np.full((len(poses2d), 3), np.nan)
    known = np.flatnonzero(is_seen.any((1, 2)))
    diagonal = np.linalg.norm(high[known] - low[known], axis=1)
    known, diagonal = known[diagonal >= _SMALLEST], diagonal[diagonal >= _SMALLEST]
    if len(known) == 0:
        return boxes
    # HMMR smooths the factor by which the image is scaled, not the size of the box
    track = np.column_stack([(low[known] + high[known]) / 2, _PERSON / diagonal])
    frames = np.arange(known[0], known[-1] + 1)
    track = np.column_stack([np.interp(frames, known, values) for values in track.T])
    # the filter pads with zeros, which would win in a short track
    track = median_filter(track, (min(_MEDIAN, 2 * len(frames) - 1), 1), mode="constant")
    track = gaussian_filter1d(track, _SIGMA, axis=0)
    boxes[frames] = np.column_stack([track[:, :2], CROP_SIZE / track[:, 2] / BOX_UNIT])
    return boxes


@torch.no_grad()
def _joints(body: Body, pose: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """The 49 joints (F,49,3), metres, of poses (F,72) and betas (F,10)."""
    if len(pose) == 0:  # smplx cannot pose no body
        return np.zeros((0, len(JOINTS49), 3), np.float32)
    chunks = [torch.as_tensor(array, dtype=torch.float32).split(_CHUNK) for array in (pose, betas)]
    return torch.cat([body.from_axis_angle(*chunk).joints for chunk in zip(*chunks, strict=True)]).numpy()


def _detections(poses2d: np.ndarray) -> np.ndarray:
    """Detected COCO joints (F,3,18) -> SPIN joints (F,24,3): px, and 1 where the detector was sure enough."""
    part = np.zeros((len(poses2d), len(SPIN24), 3))
    limbs = poses2d[:, :, rows(_LIMBS, COCO18)].swapaxes(1, 2)
    part[:, rows(_LIMBS, SPIN24)] = np.concatenate([limbs[..., :2], limbs[..., 2:] > _SEEN], axis=2)
    return part
