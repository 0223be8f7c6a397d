"""The folder of a run: settings, scores per frame, per sequence and in all, predictions, TensorBoard events."""

import csv
import errno
import io
import json
import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from utils.errors import UserError
from utils.files import save_npy, save_npz, save_text
from utils.metrics import MM

# score -> its name in tables and programs; pck, auc and the 2D error are shares
COLUMNS = {
    "mpjpe": "mpjpe_mm",
    "pampjpe": "pampjpe_mm",
    "pve": "pve_mm",
    "ume": "ume_mm",
    "accel": "accel_mm",
    "pck": "pck",
    "auc": "auc",
    "reprojection": "reprojection_share_of_box",
}
_TITLES = {
    "mpjpe": "MPJPE [mm]",
    "pampjpe": "PA-MPJPE [mm]",
    "pve": "PVE [mm]",
    "ume": "unposed mesh [mm]",
    "accel": "acceleration [mm/frame^2]",
    "pck": "PCK@150 [share]",
    "auc": "AUC [share]",
    "reprojection": "2D error [share of the box]",
}
# file names of the published code, whose numbers are metres
_METRE_FILES = {"mpjpe": "mpjpe.npy", "pampjpe": "pampjpe.npy", "pve": "pme.npy", "ume": "ume.npy"}
_NAMES = ("sequence", "person", "image", "activity")
_GROUPS = ("sequence", "activity")  # what frames are also scored by
_OUTPUTS = (
    *("setting.txt", "*.npy", "scores.csv", "performance.txt", "summary.json", "predictions.npz", "events.*"),
    *("overlay.mp4", "reprojection.png", "animation.*", "comparison.*"),
)


def create_folder(parent: Path, name: str, overwrite: bool) -> Path:
    """Make an empty folder for a run; UserError when it holds an earlier one that may not be overwritten."""
    if Path(name).name != name:
        raise UserError(f"--name {name} is no name of a folder; choose one without slashes, and the place by --expdir")
    folder = Path(parent) / name
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise UserError(f"{folder} holds an earlier run; choose another --name, or replace it by --overwrite")
        for pattern in _OUTPUTS:
            for file in folder.glob(pattern):
                file.unlink()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error}); choose another --expdir") from error
    return folder


def save_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write every option of a run into its setting.txt."""
    save_text(folder / "setting.txt", "".join(f"{name}: {value}\n" for name, value in settings.items()))


class Results:
    """Collects what a run yields and writes it; after `close`, also of a run that stopped early, the files are whole.

    Args:
        folder: of the run
        settings: every option, for setting.txt and summary.json
        facts: what else summary.json shall say
        frames: how many there will be at most
        save_predictions: keep every frame's body for predictions.npz (on disk, not in memory)
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], facts: Mapping[str, Any], frames: int, save_predictions: bool
    ) -> None:
        self.folder, self.settings, self.facts, self.frames = folder, settings, facts, frames
        self.rows: list[dict[str, Any]] = []
        self.sums: dict[str, float] = defaultdict(float)
        save_settings(folder, settings)
        self.writer = SummaryWriter(str(folder))
        # beside these, predictions.npz has imgname (N,); joints_3d are metres
        shapes = {"rotmat": (24, 3, 3), "betas": (10,), "cam": (3,), "joints_3d": (49, 3)}
        self.predictions = ArrayFile(folder / "predictions.npz", shapes) if save_predictions else None
        self.started = time.monotonic()

    def add(
        self,
        frame: Mapping[str, Any],
        prediction: Any,
        scores: list[dict[str, float]],
        losses: Mapping[str, float],
    ) -> None:
        """Take a batch of frames: their scores (one dictionary each, mm), and the losses of the step."""
        step = len(self.rows)
        for name, value in losses.items():
            self.writer.add_scalar(f"loss/{name}", value, step)
        names = {"sequence": frame["sequence"], "person": frame["person"].tolist(), "image": frame["imgname"]}
        if "activity" in frame:
            names["activity"] = frame["activity"]
        for *labels, row in zip(*names.values(), scores, strict=True):
            for score, value in row.items():
                if not math.isnan(value):
                    self.writer.add_scalar(f"score/{score}", value, len(self.rows))
            self.rows.append({**dict(zip(names, labels, strict=True)), **row})
            self.sums["mpjpe"] += row["mpjpe"]
            self.sums["pampjpe"] += row["pampjpe"]
        if self.predictions:
            fields = (prediction.rotmat, prediction.betas, prediction.cam, prediction.joints)
            for arrays in zip(*(field.cpu().numpy() for field in fields), strict=True):
                self.predictions.add(dict(zip(self.predictions.shapes, arrays, strict=True)))

    def running(self) -> dict[str, str]:
        """MPJPE and PA-MPJPE up to now, for a progress bar."""
        count = len(self.rows)
        return {"MPJPE": f"{self.sums['mpjpe'] / count:.1f}", "PA-MPJPE": f"{self.sums['pampjpe'] / count:.1f} mm"}

    def close(self) -> None:
        """Write every file; a run without a single frame leaves its settings only."""
        rate = len(self.rows) / (time.monotonic() - self.started)
        self.writer.close()
        if self.rows:
            self._write(rate)
        if self.predictions:
            self.predictions.close(imgname=np.array([row["image"] for row in self.rows], dtype=str))

    def _write(self, rate: float) -> None:
        scores = [score for score in COLUMNS if score in self.rows[0]]
        means = means_of(self.rows, scores)
        complete = len(self.rows) == self.frames
        for score, file in _METRE_FILES.items():
            if score in scores:
                save_npy(self.folder / file, np.array([[row[score] / MM] for row in self.rows]))
        save_text(self.folder / "scores.csv", _table(self.rows, scores))
        summary = {
            "frames": len(self.rows),
            "complete": complete,
            **_named(means),
            "frames_per_second": rate,
            **{f"by_{group}": _summed_up(rows, scores) for group, rows in self._groups()},
            **self.facts,
            "options": dict(self.settings),
        }
        save_text(self.folder / "summary.json", json.dumps(summary, indent=2, default=str) + "\n")
        text = f"{len(self.rows)} of {self.frames} frames, {rate:.2f} frames/s\n\n" + self._report(scores, means)
        save_text(self.folder / "performance.txt", text)

    def _report(self, scores: list[str], means: Mapping[str, float | None]) -> str:
        """All numbers with their units, then a line for each sequence, and for each activity where it is known."""
        lines = [f"{_TITLES[score]}: {_number(score, means[score])}" for score in scores]
        for group, by_name in self._groups():
            width = max(len(name) for name in (group, *by_name))
            lines += ["", "  ".join([f"{group:{width}}", "frames", *(_TITLES[score] for score in scores)])]
            for name, rows in by_name.items():
                cells = means_of(rows, scores)
                numbers = [f"{_number(score, cells[score]):>{len(_TITLES[score])}}" for score in scores]
                lines.append("  ".join([f"{name:{width}}", f"{len(rows):6d}", *numbers]))
        return "\n".join(lines) + "\n"

    def _groups(self) -> list[tuple[str, dict[str, list[dict[str, Any]]]]]:
        """The rows of each sequence, in order of appearance, and of each activity where the stream knows it."""
        groups = []
        for group in _GROUPS:
            by_name = defaultdict(list)
            for row in self.rows:
                if row.get(group):
                    by_name[row[group]].append(row)
            if by_name:
                groups.append((group, by_name))
        return groups


class ArrayFile:
    """An npz that is filled frame by frame on disk, so that memory does not grow with the video.

    Args:
        file: the npz
        shapes: of each array in one frame; all are float32
    """

    def __init__(self, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.file, self.shapes, self.count = file, shapes, 0
        self.folder = file.parent / f".{file.stem}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.parts = {name: (self.folder / name).open("wb", buffering=0) for name in shapes}

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append the arrays of one frame; UserError when the disk is full."""
        try:
            for name, part in self.parts.items():
                numbers = np.asarray(arrays[name], np.float32).tobytes()
                if part.write(numbers) < len(numbers):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise UserError(
                f"{self.file} cannot be written ({error}); free some space or choose another folder"
            ) from error
        self.count += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was added, (N, ...) each, read from the disk as it is needed."""
        return {
            name: np.memmap(self.folder / name, np.float32, "r", shape=(self.count, *shape))
            for name, shape in self.shapes.items()
        }

    def close(self, **more: np.ndarray) -> None:
        """Write the npz, with further arrays, if there was a frame."""
        try:
            if self.count:
                save_npz(self.file, **self.arrays(), **more)
        finally:
            self.discard()

    def discard(self) -> None:
        """Take away what was not written into the npz; the arrays must not be used any more."""
        for part in self.parts.values():
            if not part.closed:
                part.truncate(0)  # a file that somebody still maps would keep its room on a full disk
                part.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def means_of(rows: list[dict[str, Any]], scores: list[str]) -> dict[str, float | None]:
    """Mean of each score over the frames that have it, None where none has."""
    means = {}
    for score in scores:
        values = [row[score] for row in rows if not math.isnan(row.get(score, math.nan))]
        means[score] = float(np.mean(values)) if values else None
    return means


def _named(means: Mapping[str, float | None]) -> dict[str, float | None]:
    return {COLUMNS[score]: value for score, value in means.items()}


def _summed_up(by_name: Mapping[str, list[dict[str, Any]]], scores: list[str]) -> dict[str, dict[str, float | None]]:
    return {name: {"frames": len(rows), **_named(means_of(rows, scores))} for name, rows in by_name.items()}


def _number(score: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if COLUMNS[score].endswith("_mm") else f"{value:.3f}"


def _table(rows: list[dict[str, Any]], scores: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [name for name in _NAMES if name in rows[0]]
    writer.writerow([*names, *(COLUMNS[score] for score in scores)])
    for row in rows:
        numbers = ["" if math.isnan(row[score]) else f"{row[score]:.4f}" for score in scores]
        writer.writerow([*(row[name] for name in names), *numbers])
    return text.getvalue()
