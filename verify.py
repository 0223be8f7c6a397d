"""Scores of a run, once more, from its predictions.npz."""

import csv
import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import default_collate

from flags import Options
from runs import chosen_frames, open_footage, open_scorer
from utils.errors import UserError
from utils.evaluation import FootageScorer
from utils.files import existing, load_npz
from utils.geometry import project
from utils.run_folder import PARTS
from utils.scores import SCORES
from utils.structures import Prediction

# what is allowed between numbers that were computed in other batches, and rounded: mm, px, shares
_TOLERANCE = {"mm": 0.01, "px": 0.01, "share": 2e-4}
_FOOTAGE = {"adapted_px": "adapted_px", "adapted_share": "adapted_share_of_box", "accel": "accel_mm"}

# a row's labels, and its scores by their columns
Scored = tuple[str, dict[str, float]]


def verify(folder: Path) -> str:
    """Compare scores.csv and summary.json with what predictions.npz gives -> what to tell the user.

    Raises UserError when they differ, or when a file is missing.
    """
    summary = json.loads(existing(folder / "summary.json", "name the folder of a run by --verify").read_text())
    known = {field.name for field in dataclasses.fields(Options)}
    options = Options(**{name: value for name, value in summary["options"].items() if name in known})
    rows = list(csv.DictReader(existing(folder / "scores.csv", "run it again").open()))
    if options.is_divided and options.video:
        raise UserError(f"{folder} is put together from {folder / PARTS}; name a folder in there by --verify")
    if options.video:
        rows = [row for row in rows if row["seen"] != "no"]
    names = ("imgname", "rotmat", "betas", "cam", "joints_3d")
    predictions = load_npz(folder / "predictions.npz", names, "run it again with --save_predictions")
    if not rows or len(rows) != len(predictions["imgname"]):
        count = len(predictions["imgname"])
        raise UserError(f"{folder} has {len(rows)} frames in scores.csv, {count} in predictions.npz; run it again")
    scored = (_scored_footage if options.video else _scored_frames)(options, predictions)
    largest, sums = {}, {}
    for count, (row, (image, scores)) in enumerate(zip(rows, scored, strict=True)):
        if row["image"] != image:
            raise UserError(f"{folder}: row {count} of scores.csv is {row['image']}, of predictions.npz {image}")
        for column, score in scores.items():
            given = float(row[column] or "nan")
            _compare(folder, f"{column} of {image}", column, given, score)
            if not math.isnan(score):
                largest[column] = max(largest.get(column, 0.0), abs(given - score))
                total, number = sums.get(column, (0.0, 0))
                sums[column] = (total + score, number + 1)
    for column, (total, number) in sums.items():
        _compare(folder, f"the mean of {column}", column, summary[column], total / number)
    worst = max(largest, key=largest.__getitem__)
    return (
        f"{folder}: {len(rows)} frames scored again, {len(largest)} scores agree; "
        f"largest difference {largest[worst]:.1g} ({worst})"
    )


def _compare(folder: Path, what: str, column: str, given: float | None, score: float) -> None:
    unit = "mm" if "_mm" in column else "px" if column.endswith("_px") else "share"
    given = math.nan if given is None else given
    if math.isnan(given) != math.isnan(score) or abs(given - score) > _TOLERANCE[unit]:
        raise UserError(f"{folder}: {what} is {given:.4f}, but {score:.4f} by predictions.npz")


def _scored_frames(options: Options, predictions: Mapping[str, np.ndarray]) -> Iterator[Scored]:
    """The image and the scores of each frame that was predicted."""
    frames, _ = chosen_frames(options)
    score, body = open_scorer(options, frames)
    images = predictions["imgname"].tolist()
    for start in range(0, len(images), options.batch_size):
        rows = range(start, min(start + options.batch_size, len(images)))
        frame = default_collate([frames.labels(row) for row in rows])
        if frame["imgname"] != images[start : rows.stop]:
            raise UserError(f"predictions.npz has {images[start]} where the data set has {frame['imgname'][0]}")
        rotmat, betas, cam = (
            torch.from_numpy(predictions[name][start : rows.stop]) for name in ("rotmat", "betas", "cam")
        )
        joints, vertices = body.from_rotmat(rotmat, betas)
        scores = score(Prediction(rotmat, betas, cam, joints, vertices, project(joints, cam)), frame)
        for image, row in zip(frame["imgname"], scores, strict=True):
            yield image, {SCORES[name].column: value for name, value in row.items()}


def _scored_footage(options: Options, predictions: Mapping[str, np.ndarray]) -> Iterator[Scored]:
    """The same of footage, by the joints that its detector finds again."""
    footage, score, row = open_footage(options), FootageScorer(None, options.stride), 0
    with tempfile.TemporaryDirectory() as folder:
        footage.remember(Path(folder) / "detections", goes_on=False)
        for frame in footage:
            if "image" not in frame:
                continue
            rotmat, betas, cam, joints = (
                torch.from_numpy(predictions[name][row : row + 1]) for name in ("rotmat", "betas", "cam", "joints_3d")
            )
            [scores] = score(Prediction(rotmat, betas, cam, joints, joints, project(joints, cam)), frame)
            yield str(predictions["imgname"][row]), {_FOOTAGE[name]: scores[name] for name in _FOOTAGE}
            row += 1
