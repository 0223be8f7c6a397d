"""What a detector sees in rendered pictures and footage, beside the truth: to train on, and to validate on."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from footage.detector import is_person
from footage.mediapipe import MediaPipe
from footage.people import Footage
from footage.video import Video
from utils.errors import UserError
from utils.files import load_npz, save_npz
from utils.joints import CONFIDENT, JOINTS49

log = logging.getLogger("boa")

_TRUTH = {"pose": "pose", "betas": "shape", "gender": "gender", "joints": "smpl_j3d", "exact_px": "smpl_j2d"}
_COLUMNS = ("keypoints_2d", "keypoints_px", "sequence", *_TRUTH)
_REMEDY = "run process_data.py --dataset detections again"
_SOMEBODY_ELSE = 0.3  # of the person's height, from which a detection is another person's


def detect(stream: Path, output: Path) -> int:
    """Run MediaPipe over a rendered stream and write what it found, with the truth, into one file.

    Args:
        stream: as synthetic.stream.write_stream makes it
        output: gets, for N frames, keypoints_2d (N,49,3) of the crop, keypoints_px (N,49,3), sequence (N,), pose
            (N,72), betas (N,10), gender (N,) m or f, joints (N,49,3) m, exact_px (N,49,3)

    Returns:
        the number of frames, which lack those in which the person was not found, or somebody else

    Raises:
        UserError: MediaPipe is not installed, a file is missing, or nobody was found anywhere
    """
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for file in sorted((stream / "3dpw_vid").glob("*.npz")):
        truth = load_npz(file, _TRUTH.values(), _REMEDY)
        footage = Footage(Video(str(stream / "imageFiles" / file.stem)), "mediapipe")
        try:
            for frame in footage.prepared():
                _add(columns, frame, truth)
        except UserError as error:  # nobody can be followed in this clip
            log.warning("%s ends early: %s", file.stem, error)
    if not columns["sequence"]:
        raise UserError(f"nobody was found in {stream}; render it with another --seed")
    save_npz(output, **{name: np.array(values) for name, values in columns.items()})
    return len(columns["sequence"])


def _add(columns: dict[str, list[Any]], frame: dict[str, Any], truth: dict[str, np.ndarray]) -> None:
    """Append a frame to the columns if the person was found in it."""
    if "keypoints_2d" not in frame or frame["bridged"]:
        return
    row = {name: truth[key][int(frame["index"])] for name, key in _TRUTH.items()}
    row |= {name: frame[name][0].numpy() for name in ("keypoints_2d", "keypoints_px")}
    row["sequence"] = frame["sequence"][0]
    seen = row["keypoints_px"][:, 2] > CONFIDENT
    away = np.linalg.norm(row["keypoints_px"][seen, :2] - row["exact_px"][seen, :2], axis=1)
    if np.median(away) < _SOMEBODY_ELSE * np.ptp(row["exact_px"][:, :2], axis=0).max():
        for name, values in columns.items():
            values.append(row[name])


def try_out(people: Iterable[dict[str, np.ndarray]], output: Path) -> int:
    """Run MediaPipe over pictures of single people and write what it made of them into one file.

    Args:
        people: image (S,S,3) uint8 RGB, keypoints_2d (49,3) in [-1,1], joints_3d (24,4) m
        output: gets, for N of them, keypoints_2d (N,49,3) in [-1,1] and confidence, as found, exact_2d (N,49,3) and
            joints_3d (N,24,4)

    Returns:
        the number of people, which lack those who were not found

    Raises:
        UserError: MediaPipe is not installed, or nobody was found
    """
    detector, columns = MediaPipe(), {"keypoints_2d": [], "exact_2d": [], "joints_3d": []}
    for person in people:
        found = detector.detect_alone(person["image"])
        if len(found) and is_person(found[0]):
            found[..., :2] = (found[..., :2] + 0.5) / len(person["image"]) * 2 - 1
            row = (found[0] * (found[0, :, 2:] > 0), person["keypoints_2d"], person["joints_3d"])
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    if not columns["keypoints_2d"]:
        raise UserError("MediaPipe found nobody in the rendered pictures")
    save_npz(output, **{name: np.array(values, np.float16) for name, values in columns.items()})
    return len(columns["keypoints_2d"])


def read_detections(folder: Path) -> dict[str, Tensor]:
    """keypoints_2d (N,49,3) and joints (N,49,3) m of all files of `detect` in a folder; nothing without any file.

    Raises UserError for a damaged file.
    """
    files = sorted(folder.glob("*.npz"))
    shape = (len(JOINTS49), 3)
    arrays = {name: [load_npz(file, [name], _REMEDY)[name] for file in files] for name in ("keypoints_2d", "joints")}
    for parts in arrays.values():
        for file, part in zip(files, parts, strict=True):
            if part.shape[1:] != shape:
                raise UserError(f"{file} holds joints of shape {part.shape[1:]} where {shape} is needed; {_REMEDY}")
    return {name: torch.from_numpy(np.concatenate(parts)).float() for name, parts in arrays.items() if parts}
