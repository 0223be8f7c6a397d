"""The folder of a run: settings, scores per frame, per sequence and in all, predictions, TensorBoard events."""

import csv
import dataclasses
import errno
import io
import json
import math
import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from utils.errors import NotFiniteError, UserError
from utils.files import save_npy, save_npz, save_text
from utils.metrics import MM
from utils.structures import Frame, Prediction

# a frame's labels and scores
Row = dict[str, str | int | float]


class Score(NamedTuple):
    """How a score is called in tables and in programs."""

    column: str
    title: str


SCORES = {
    "mpjpe": Score("mpjpe_mm", "MPJPE [mm]"),
    "pampjpe": Score("pampjpe_mm", "PA-MPJPE [mm]"),
    "pve": Score("pve_mm", "PVE [mm]"),
    "ume": Score("ume_mm", "unposed mesh [mm]"),
    "accel": Score("accel_mm", "acceleration [mm/frame^2]"),
    "pck": Score("pck", "PCK@150 [share]"),
    "auc": Score("auc", "AUC [share]"),
    "reprojection": Score("reprojection_share_of_box", "2D error [share of the box]"),
    "extra_steps": Score("extra_steps", "extra steps"),
    "feature_change": Score("feature_change_ppm", "feature change [1e-6]"),
}
DYNAMIC_SCORES = ("extra_steps", "feature_change")
# file names of the published code, whose numbers are metres
_METRE_FILES = {"mpjpe": "mpjpe.npy", "pampjpe": "pampjpe.npy", "pve": "pme.npy", "ume": "ume.npy"}
_LABELS = ("sequence", "person", "image", "activity")
_GROUPS = ("sequence", "activity")  # what frames are also scored by
_SETTINGS = "setting.txt"
_OUTPUTS = (
    *(_SETTINGS, "*.npy", "scores.csv", "performance.txt", "summary.json", "predictions.npz", "events.*"),
    *("overlay.mp4", "reprojection.png", "animation.*", "comparison.*"),
)


def run_folder(parent: str, name: str) -> Path:
    """The folder of `--name` in `--expdir`; UserError when the name is none of a folder."""
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", name):
        raise UserError(
            f"--name {name!r} is no name of a folder; take letters, digits, '.', '-' and '_', and the place by --expdir"
        )
    return Path(parent) / name


def create_folder(parent: str, name: str, overwrite: bool) -> Path:
    """Make an empty folder for a run.

    Raises UserError when it holds an earlier one that may not be overwritten, or anything else.
    """
    folder = run_folder(parent, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error}); choose another --expdir") from error
    if not is_empty:
        if not (folder / _SETTINGS).exists():
            raise UserError(f"{folder} holds files that are not of a run; choose another --name")
        if not overwrite:
            raise UserError(f"{folder} holds an earlier run; choose another --name, or replace it by --overwrite")
        for pattern in _OUTPUTS:
            for file in folder.glob(pattern):
                file.unlink()
    return folder


def save_settings(folder: Path, options: object) -> None:
    """Write every option of a run, a dataclass, into its setting.txt."""
    settings = dataclasses.asdict(options)
    save_text(folder / _SETTINGS, "".join(f"{name}: {value}\n" for name, value in settings.items()))


def of_dynamic_steps(terms: Mapping[str, float]) -> dict[str, float]:
    """Scores of the frames of a step: how many further ones there were, and how far the last one moved the features."""
    if "dynamic/steps" not in terms:
        return {}
    return dict(zip(DYNAMIC_SCORES, (terms["dynamic/steps"], 1e6 * terms["dynamic/change"]), strict=True))


class RunFolder:
    """What every run leaves: setting.txt, TensorBoard's events, and at the end scores.csv and summary.json.

    Args:
        folder: of the run
        options: a dataclass with every option, for setting.txt and summary.json
        facts: what else summary.json shall say
    """

    def __init__(self, folder: Path, options: object, facts: Mapping[str, object]) -> None:
        self.folder, self.options, self.facts = folder, options, dict(facts)
        self.rows: list[Row] = []
        self.adapted = 0  # rows that were adapted to
        self.stopped: str | None = None  # what ended the run before its last frame
        save_settings(folder, options)
        self.writer = SummaryWriter(str(folder))
        self.started = time.monotonic()

    def add_terms(self, terms: Mapping[str, float]) -> None:
        """Take the loss terms of a step, before the rows of its frames."""
        for name, value in terms.items():
            self.writer.add_scalar(f"loss/{name}", value, len(self.rows))

    def add(self, labels: Row, scores: Mapping[str, float], adapted: bool) -> None:
        """Take a frame's labels and scores, and whether it was adapted to."""
        for name, value in scores.items():
            if not math.isnan(value):
                self.writer.add_scalar(f"score/{name}", value, len(self.rows))
        self.rows.append({**labels, **scores})
        self.adapted += adapted

    def stop(self, error: BaseException | None) -> None:
        """Remember what ended the run, None: its last frame."""
        if isinstance(error, NotFiniteError):
            self.stopped = "not finite"
        elif error is not None:
            self.stopped = str(error) or "interrupted"

    def frames_per_second(self) -> float:
        """Frames up to now over the time since the start."""
        return len(self.rows) / (time.monotonic() - self.started)

    def save(self, scores: str, frames: int | None, numbers: Mapping[str, object], report: str) -> None:
        """Write scores.csv, summary.json and performance.txt.

        Args:
            scores: of each frame, as text
            frames: how many there should be, None if unknown
            numbers: what summary.json says of the scores
            report: performance.txt
        """
        save_text(self.folder / "scores.csv", scores)
        complete = self.stopped is None and (frames is None or len(self.rows) == frames)
        summary = {
            "frames": len(self.rows),
            "complete": complete,
            "stopped": self.stopped,
            **numbers,
            **self.facts,
            "options": dataclasses.asdict(self.options),
        }
        save_text(self.folder / "summary.json", json.dumps(summary, indent=2, default=str) + "\n")
        save_text(self.folder / "performance.txt", report)


class Results(Protocol):
    """What collects a run frame by frame and writes it."""

    run: RunFolder
    frames: int | None  # how many there will be at most

    def add(
        self,
        frame: Frame,
        prediction: Prediction | None,
        scores: Sequence[Mapping[str, float]] = (),
        terms: Mapping[str, float] = {},
        adapted: Sequence[bool] = (),
    ) -> None:
        """Take a batch of frames.

        Args:
            frame: as the stream gives it
            prediction: None for a frame of footage in which the person is not
            scores: and
            adapted: whether it was adapted to: one of each frame
            terms: of the step
        """

    def running(self) -> dict[str, str]:
        """Means up to now, for a progress bar."""

    def close(self) -> None:
        """Write every file, whatever happens to the others."""


class Rehearsal:
    """Takes an earlier pass over a stream, of which only what the weights have learnt is kept.

    Args:
        results: of the last pass
        number: of this pass, for the progress bar
    """

    def __init__(self, results: Results, number: str) -> None:
        self.run, self.frames, self.number = results.run, results.frames, number

    def add(self, *_: object) -> None:
        """Keep nothing."""

    def running(self) -> dict[str, str]:
        """Which pass this is."""
        return {"pass": self.number}

    def close(self) -> None:
        """Write nothing."""


@contextmanager
def recorded(results: Results) -> Iterator[None]:
    """Close the results at the end of a `with`, and let them know what ended it."""
    try:
        yield
    except BaseException as error:
        results.run.stop(error)
        raise
    finally:
        results.close()


class BenchmarkResults:
    """Collects what a run on a data set yields; after `close`, also of a run that stopped early, the files are whole.

    Args:
        run: its folder
        frames: how many there will be at most
        save_predictions: keep every frame's body for predictions.npz (on disk, not in memory)
    """

    def __init__(self, run: RunFolder, frames: int, save_predictions: bool) -> None:
        self.run, self.frames = run, frames
        self.sums: dict[str, float] = defaultdict(float)
        # beside these, predictions.npz has imgname (N,); joints_3d are metres
        shapes = {"rotmat": (24, 3, 3), "betas": (10,), "cam": (3,), "joints_3d": (49, 3)}
        self.predictions = ArrayFile(run.folder / "predictions.npz", shapes) if save_predictions else None

    def add(
        self,
        frame: Frame,
        prediction: Prediction,
        scores: Sequence[Mapping[str, float]],
        terms: Mapping[str, float],
        adapted: Sequence[bool],
    ) -> None:
        """Take a batch of frames; scores in mm."""
        self.run.add_terms(terms)
        labels = {"sequence": frame["sequence"], "person": frame["person"].tolist(), "image": frame["imgname"]}
        if "activity" in frame:
            labels["activity"] = frame["activity"]
        for *values, row, is_adapted in zip(*labels.values(), scores, adapted, strict=True):
            self.run.add(dict(zip(labels, values, strict=True)), {**row, **of_dynamic_steps(terms)}, is_adapted)
            self.sums["mpjpe"] += row["mpjpe"]
            self.sums["pampjpe"] += row["pampjpe"]
        if self.predictions:
            fields = (prediction.rotmat, prediction.betas, prediction.cam, prediction.joints)
            for arrays in zip(*(field.cpu().numpy() for field in fields), strict=True):
                self.predictions.add(dict(zip(self.predictions.shapes, arrays, strict=True)))

    def running(self) -> dict[str, str]:
        """MPJPE and PA-MPJPE up to now, for a progress bar."""
        count = len(self.run.rows)
        return {"MPJPE": f"{self.sums['mpjpe'] / count:.1f}", "PA-MPJPE": f"{self.sums['pampjpe'] / count:.1f} mm"}

    def close(self) -> None:
        """Write every file, whatever happens to the others."""
        rate = self.run.frames_per_second()
        with ExitStack() as steps:  # done from the last to the first
            steps.callback(self._save, rate)
            if self.predictions:
                names = np.array([row["image"] for row in self.run.rows], dtype=str)
                steps.callback(self.predictions.close, imgname=names)
            steps.callback(self.run.writer.close)

    def _save(self, rate: float) -> None:
        rows, adapted = self.run.rows, self.run.adapted
        scores = [score for score in SCORES if any(score in row for row in rows)]
        means = means_of(rows, scores)
        for score, file in _METRE_FILES.items():
            if score in scores:
                save_npy(self.run.folder / file, np.array([[row[score] / MM] for row in rows]))
        numbers = {
            **_named(means),
            "frames_per_second": rate,
            "frames_not_adapted": len(rows) - adapted,
            **{f"by_{group}": _summed_up(members, scores) for group, members in self._groups()},
        }
        labels = [label for label in _LABELS if any(label in row for row in rows)]
        text = f"{len(rows)} of {self.frames} frames, {rate:.2f} frames/s\n\n" + self._report(scores, means)
        columns = {score: SCORES[score].column for score in scores}
        self.run.save(table_of(rows, labels, columns, digits=4), self.frames, numbers, text)

    def _report(self, scores: Sequence[str], means: Mapping[str, float | None]) -> str:
        """All numbers with their units, then a line for each sequence, and for each activity where it is known."""
        titles = [SCORES[score].title for score in scores]
        lines = [f"{title}: {_number(score, means[score])}" for score, title in zip(scores, titles, strict=True)]
        for group, by_name in self._groups():
            width = max(len(name) for name in (group, *by_name))
            lines += ["", "  ".join([f"{group:{width}}", "frames", *titles])]
            for name, rows in by_name.items():
                cells = means_of(rows, scores)
                numbers = [
                    f"{_number(score, cells[score]):>{len(title)}}" for score, title in zip(scores, titles, strict=True)
                ]
                lines.append("  ".join([f"{name:{width}}", f"{len(rows):6d}", *numbers]))
        return "\n".join(lines) + "\n"

    def _groups(self) -> list[tuple[str, dict[str, list[Row]]]]:
        """The rows of each sequence, in order of appearance, and of each activity where the stream knows it."""
        groups = []
        for group in _GROUPS:
            by_name = defaultdict(list)
            for row in self.run.rows:
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


def means_of(rows: Sequence[Row], scores: Iterable[str]) -> dict[str, float | None]:
    """Mean of each score over the frames that have it, None where none has."""
    means = {}
    for score in scores:
        values = [row[score] for row in rows if not math.isnan(row.get(score, math.nan))]
        means[score] = float(np.mean(values)) if values else None
    return means


def table_of(rows: Iterable[Row], labels: Sequence[str], columns: Mapping[str, str], digits: int) -> str:
    """Rows as CSV: labels, and scores by their columns' names, to so many digits; empty where a row lacks one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*labels, *columns.values()])
    for row in rows:
        numbers = [row.get(score, math.nan) for score in columns]
        cells = ["" if math.isnan(number) else f"{number:.{digits}f}" for number in numbers]
        writer.writerow([*(row.get(label, "") for label in labels), *cells])
    return text.getvalue()


def _named(means: Mapping[str, float | None]) -> dict[str, float | None]:
    return {SCORES[score].column: value for score, value in means.items()}


def _summed_up(by_name: Mapping[str, Sequence[Row]], scores: Sequence[str]) -> dict[str, dict[str, float | None]]:
    return {name: {"frames": len(rows), **_named(means_of(rows, scores))} for name, rows in by_name.items()}


def _number(score: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if SCORES[score].column.endswith("_mm") else f"{value:.3f}"
