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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d, median_filter
from scipy.spatial.transform import Rotation

from utils.data_preprocess.conversion import Converted, Settings, Task, check_finite, convert_all, reason_for
from utils.errors import UserError
from utils.files import existing
from utils.geometry import CROP_SIZE
from utils.image import BOX_UNIT, box_around
from utils.joints import COCO18, JOINTS49, SPIN24, rows
from utils.restricted_pickle import load_pickle

_REMEDY = "download 3DPW again and set PW3D_ROOT in config.py (docs/datasets.md, 3DPW)"
_KEYS = ("poses", "betas", "trans", "poses2d", "cam_poses", "cam_intrinsics", "genders", "campose_valid", "sequence")
_LIMBS = list(SPIN24)[:12]  # those of SPIN's joints that the detections of 3DPW have
_SEEN = 0.3  # confidence of a detection from which it counts
_ENLARGE = 1.2  # of the box around the joints
_CHUNK = 512  # frames that go through the body at once
_BETAS = 10
_GENDERS = {"m": "male", "f": "female"}
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
    bodies: Mapping[str, Any],
    paper_compat: bool = False,
    fits: Mapping[str, "NeutralFit"] | None = None,
    settings: Settings = Settings(),
) -> None:
    """Write <output>/<sequence>.npz for every sequence of the test split.

    Args:
        root: PW3D_ROOT, with sequenceFiles/test/*.pkl
        output: folder of the files
        bodies: `male` and `female` body models with the 49 joints
        paper_compat: with the published code's slips: women projected with the male body, `smpl_j3d` in the world
        fits: for #PH, the neutral shape for each gender's shape; without it, #PS
        settings: workers and so on

    Raises:
        UserError: no sequence, or a damaged or hostile one
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
    convert_all(tasks, f"3DPW #{protocol.upper()}", root, settings, keypoints="smpl_j2d")


def convert_sequence(
    root: Path,
    file: Path,
    bodies: Mapping[str, Any],
    paper_compat: bool = False,
    fits: Mapping[str, "NeutralFit"] | None = None,
) -> Converted:
    """One sequence in the processed format, person after person; frames without a camera are left out."""
    raw = _read(file)
    missing = _missing_images(root, raw)
    if missing:
        raise UserError(missing)
    try:
        persons = [_convert_person(raw, person, bodies, paper_compat, fits) for person in range(len(raw["poses"]))]
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
        missing = _missing_images(root, _read(file))
    except UserError as error:
        return [str(error)]
    return [missing] if missing else []


def _missing_images(root: Path, raw: Mapping[str, Any]) -> str:
    """A line on images of frames with a camera that are not in the sequence's folder, "" where all are."""
    folder = root / "imageFiles" / str(raw["sequence"])
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    frames = np.flatnonzero(np.any(raw["campose_valid"], axis=0))
    missing = [name for name in map(_image_name, frames) if name not in there]
    return f"{folder / missing[0]} is missing, as are {len(missing) - 1} more of it; {_REMEDY}" if missing else ""


def _image_name(frame: int) -> str:
    return f"image_{frame:05d}.jpg"


def _read(file: Path) -> dict[str, Any]:
    """Read a sequence; UserError when it is missing, damaged, hostile or not laid out as 3DPW is."""
    raw = load_pickle(file, _KEYS, _REMEDY)
    try:
        people, frames = len(raw["poses"]), len(raw["cam_poses"])
        shapes = {
            "poses": (frames, 72),
            "trans": (frames, 3),
            "poses2d": (frames, 3, len(COCO18)),
            "campose_valid": (frames,),
        }
        found = [
            (name, np.shape(raw[name][person]), shape) for person in range(people) for name, shape in shapes.items()
        ]
        found += [("betas", np.shape(raw["betas"][person][:_BETAS]), (_BETAS,)) for person in range(people)]
        found.append(("cam_poses", np.shape(raw["cam_poses"]), (frames, 4, 4)))
        found.append(("cam_intrinsics", np.shape(raw["cam_intrinsics"]), (3, 3)))
        genders = [raw["genders"][person] in _GENDERS for person in range(people)]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not laid out as 3DPW is ({reason_for(error)}); {_REMEDY}") from error
    for name, shape, wanted in found:
        if shape != wanted:
            raise UserError(f"{file}: {name} has shape {shape} where {wanted} is needed; {_REMEDY}")
    for person, valid in enumerate(raw["campose_valid"]):
        frames = np.flatnonzero(valid)
        given = {name: np.asarray(raw[name][person])[frames] for name in ("poses", "trans", "poses2d")}
        given |= {
            "cam_poses": np.asarray(raw["cam_poses"])[frames],
            "imgname": [_image_name(frame) for frame in frames],
        }
        check_finite(given, file, _REMEDY)
    if not people or not all(genders):
        raise UserError(f"{file}: genders are {raw['genders']} where m or f of {people} people is needed; {_REMEDY}")
    return raw


def _convert_person(
    raw: Mapping[str, Any],
    person: int,
    bodies: Mapping[str, Any],
    paper_compat: bool,
    fits: Mapping[str, "NeutralFit"] | None,
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    has_camera = np.asarray(raw["campose_valid"][person]) != 0
    detections = np.asarray(raw["poses2d"][person])
    dropped = {"without a valid camera": int((~has_camera).sum())}
    is_kept = has_camera
    if fits is not None:
        is_kept = has_camera & (_count_visible(detections) > _MIN_VISIBLE)
        dropped[f"{_MIN_VISIBLE} visible joints or fewer"] = int((has_camera & ~is_kept).sum())
    frames = np.flatnonzero(is_kept)
    pose = np.array(raw["poses"][person], np.float64)[frames]
    own_betas = np.array(raw["betas"][person], np.float64)[:_BETAS]
    betas = np.tile(own_betas, (len(frames), 1))
    translation = np.array(raw["trans"][person])[frames]
    cameras = np.array(raw["cam_poses"])[frames]
    gender = raw["genders"][person]

    joints = _joints(bodies["male" if paper_compat else _GENDERS[gender]], pose, betas)
    in_world = joints + translation[:, None].astype(np.float32)
    in_camera = in_world @ cameras[:, :3, :3].swapaxes(1, 2) + cameras[:, None, :3, 3]
    pixels = in_camera @ np.asarray(raw["cam_intrinsics"]).T
    pixels = pixels / pixels[..., 2:]  # leaves a one behind, which is the confidence
    if fits is None:
        found = [box_around(points[:, :2], _ENLARGE) for points in pixels]
        boxes = np.array([(*center, scale) for center, scale in found]).reshape(-1, 3)
    else:
        boxes = _boxes_over_time(detections)[frames]

    root = Rotation.from_matrix(cameras[:, :3, :3]) * Rotation.from_rotvec(pose[:, :3])
    columns = {
        "imgname": np.array([f"imageFiles/{raw['sequence']}/{_image_name(frame)}" for frame in frames], dtype=str),
        "center": boxes[:, :2],
        "scale": boxes[:, 2],
        "pose": np.concatenate([root.as_rotvec(), pose[:, 3:]], axis=1),
        "shape": betas,
        "part": _detections(detections[frames]),
        "gender": np.full(len(frames), gender),
        "smpl_j3d": in_world if paper_compat else joints,
        "smpl_j2d": pixels,
        "person": np.full(len(frames), person),
    }
    if fits is not None:
        columns["shape_neutral"] = np.tile(fits[_GENDERS[gender]](own_betas), (len(frames), 1))
    return columns, dropped


class NeutralFit(NamedTuple):
    """The neutral shape that is nearest to a gendered one, betas_neutral = slope betas + intercept."""

    slope: np.ndarray  # (10,10)
    intercept: np.ndarray  # (10,)

    def __call__(self, betas: np.ndarray) -> np.ndarray:
        return self.slope @ betas + self.intercept


def neutral_fits(bodies: Mapping[str, Any]) -> dict[str, NeutralFit]:
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
def _joints(body: Any, pose: np.ndarray, betas: np.ndarray) -> np.ndarray:
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
