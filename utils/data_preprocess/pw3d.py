"""3DPW as distributed -> one npz per test sequence, by the #PS protocol (SPIN's; Kolotouros et al., ICCV 2019)."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from utils.errors import UserError
from utils.files import existing, save_npz
from utils.image import box_around
from utils.joints import COCO18, SPIN24, rows
from utils.restricted_pickle import load_pickle

log = logging.getLogger("boa")

_REMEDY = "download 3DPW again and set PW3D_ROOT in config.py (README, 3DPW)"
_KEYS = ("poses", "betas", "trans", "poses2d", "cam_poses", "cam_intrinsics", "genders", "campose_valid", "sequence")
_LIMBS = list(SPIN24)[:12]  # those of SPIN's joints that the detections of 3DPW have
_SEEN = 0.3  # confidence of a detection from which it counts
_ENLARGE = 1.2  # of the box around the joints
_CHUNK = 512  # frames that go through the body at once


def convert(root: Path, output: Path, bodies: Mapping[str, Any], paper_compat: bool = False) -> None:
    """Write <output>/<sequence>.npz for every sequence of the test split.

    Args:
        root: PW3D_ROOT, with sequenceFiles/test/*.pkl
        output: folder of the files
        bodies: `male` and `female` body models with the 49 joints
        paper_compat: with the published code's slips: women projected with the male body, `smpl_j3d` in the world

    Raises:
        UserError: no sequence, or a damaged or hostile one
    """
    folder = existing(root / "sequenceFiles" / "test", _REMEDY)
    files = sorted(folder.glob("*.pkl"))
    if not files:
        raise UserError(f"{folder} holds no .pkl file; {_REMEDY}")
    frames = 0
    for file in (bar := tqdm(files, unit=" sequences")):
        bar.set_postfix_str(file.stem)
        arrays = convert_sequence(file, bodies, paper_compat)
        save_npz(output / f"{file.stem}.npz", **arrays)
        frames += len(arrays["imgname"])
    log.info("3DPW: %d frames of %d sequences are in %s", frames, len(files), output)


def convert_sequence(file: Path, bodies: Mapping[str, Any], paper_compat: bool) -> dict[str, np.ndarray]:
    """One sequence's arrays in the processed format, person after person; frames without a camera are left out."""
    raw = load_pickle(file, _KEYS, _REMEDY)
    try:
        persons = [_convert_person(raw, person, bodies, paper_compat) for person in range(len(raw["poses"]))]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not laid out as 3DPW is ({error}); {_REMEDY}") from error
    return {name: np.concatenate([person[name] for person in persons]) for name in persons[0]}


def _convert_person(
    raw: Mapping[str, Any], person: int, bodies: Mapping[str, Any], paper_compat: bool
) -> dict[str, np.ndarray]:
    valid = np.flatnonzero(np.asarray(raw["campose_valid"][person]))
    pose = np.array(raw["poses"][person], np.float64)[valid]
    betas = np.tile(np.array(raw["betas"][person], np.float64)[:10], (len(valid), 1))
    translation = np.array(raw["trans"][person])[valid]
    cameras = np.array(raw["cam_poses"])[valid]
    gender = raw["genders"][person]

    is_woman = gender == "f" and not paper_compat
    joints = _joints(bodies["female" if is_woman else "male"], pose, betas)
    in_world = joints + translation[:, None].astype(np.float32)
    in_camera = in_world @ cameras[:, :3, :3].swapaxes(1, 2) + cameras[:, None, :3, 3]
    pixels = in_camera @ np.asarray(raw["cam_intrinsics"]).T
    pixels = pixels / pixels[..., 2:]  # leaves a one behind, which is the confidence
    boxes = [box_around(points[:, :2], _ENLARGE) for points in pixels]

    root = Rotation.from_matrix(cameras[:, :3, :3]) * Rotation.from_rotvec(pose[:, :3])
    return {
        "imgname": np.array([f"imageFiles/{raw['sequence']}/image_{frame:05d}.jpg" for frame in valid], dtype=str),
        "center": np.array([center for center, _ in boxes]).reshape(-1, 2),
        "scale": np.array([scale for _, scale in boxes]),
        "pose": np.concatenate([root.as_rotvec(), pose[:, 3:]], axis=1),
        "shape": betas,
        "part": _detections(np.asarray(raw["poses2d"][person])[valid]),
        "gender": np.full(len(valid), gender),
        "smpl_j3d": in_world if paper_compat else joints,
        "smpl_j2d": pixels,
        "person": np.full(len(valid), person),
    }


@torch.no_grad()
def _joints(body: Any, pose: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """The 49 joints (F,49,3), metres, of poses (F,72) and betas (F,10)."""
    chunks = [torch.as_tensor(array, dtype=torch.float32).split(_CHUNK) for array in (pose, betas)]
    return torch.cat([body.from_axis_angle(*chunk).joints for chunk in zip(*chunks, strict=True)]).numpy()


def _detections(poses2d: np.ndarray) -> np.ndarray:
    """Detected COCO joints (F,3,18) -> SPIN joints (F,24,3): px, and 1 where the detector was sure enough."""
    part = np.zeros((len(poses2d), len(SPIN24), 3))
    limbs = poses2d[:, :, rows(_LIMBS, COCO18)].swapaxes(1, 2)
    part[:, rows(_LIMBS, SPIN24)] = np.concatenate([limbs[..., :2], limbs[..., 2:] > _SEEN], axis=2)
    return part
