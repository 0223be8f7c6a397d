"""The folder of a run: settings, scores per frame, per sequence and in all, predictions, TensorBoard events."""

import csv
import dataclasses
import errno
import functools
import io
import json
import logging
import math
import os
import re
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Protocol, overload

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from utils.errors import NotFiniteError, UserError
from utils.files import save_npy, save_npz, save_text
from utils.metrics import MM
from utils.provenance import differences
from utils.resume import (
    FOLDER,
    State,
    finish,
    free_space,
    has_state,
    has_states,
    is_unfinished,
    lock,
    open_states,
    read_record,
    remove_all,
    reserve_space,
    save_record,
)
from utils.structures import Frame, Prediction

log = logging.getLogger("boa")

# a frame's labels and scores
Row = dict[str, str | int | float]


class RunIdentity(Protocol):
    """What options of a run, a dataclass, have at least."""

    name: str
    expdir: str
    overwrite: bool
    resume: bool


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
_LABELS = ("sequence", "person", "image", "activity", "exchanged", "dropped", "jump")
_GROUPS = ("sequence", "activity")  # what frames are also scored by
_SETTINGS = "setting.txt"
_ROWS = "rows.jsonl"
_OUTPUTS = (
    *(
        _SETTINGS,
        _ROWS,
        "*.log",
        "model.pt",
        "*.npy",
        "scores.csv",
        "performance.txt",
        "summary.json",
        "predictions.npz",
        "events.*",
    ),
    *("overlay.mp4", ".overlay.*", "reprojection.png", "animation.*", "comparison.*"),
)
PARTS = "parts"  # the folder of the runs that a run is made of
# options by which the same results are had in another way, which the results do not name
_SAME_RESULTS = {"resume": False, "workers": 1, "cluster": "none", "cluster_options": ""}
# the options that do not say what a run does
FREE_OPTIONS = ("name", "expdir", "overwrite", "resume", "checkpoint_every", "workers", "cluster", "cluster_options")


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
        is_empty = not [file for file in folder.iterdir() if file.name != FOLDER]  # a run killed at its very start
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error}); choose another --expdir") from error
    if not is_empty:
        if not (folder / _SETTINGS).exists():
            raise UserError(f"{folder} holds files that are not of a run; choose another --name")
        if not overwrite:
            raise UserError(f"{folder} holds an earlier run; choose another --name, or replace it by --overwrite")
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        _clear(folder)
        _remove_unfinished(folder)
    return folder


def open_folder(options: RunIdentity, facts: Mapping[str, object]) -> "RunFolder":
    """The folder of a new run, or, with `--resume`, of one that goes on.

    Args:
        options: of the run, a dataclass
        facts: what else its summary.json shall say; by options and `provenance` it is known again

    Raises UserError as `create_folder`, and when the run that shall go on is another one, or left nothing for that.
    """
    folder = run_folder(options.expdir, options.name)
    if options.resume and options.overwrite:
        raise UserError(f"--resume goes on with the run in {folder}, --overwrite replaces it; give one of them")
    if has_states(folder):
        lock(folder).close()
    record = {"options": dataclasses.asdict(options), "provenance": facts["provenance"]}
    begun = read_record(folder) if options.resume else None
    if begun is None:
        if options.resume and (folder / _SETTINGS).exists():
            raise UserError(f"{folder} holds a run that left nothing to go on from; begin anew by --overwrite")
        create_folder(options.expdir, options.name, options.overwrite)
        save_record(folder, record)
    elif found := differences(begun, record, FREE_OPTIONS):
        raise UserError(
            f"{folder} was begun with {'; '.join(found)}; go on with the same, or begin anew by --overwrite"
        )
    else:
        # what the folder says of the run is that of its beginning
        as_begun = {name: begun["options"][name] for name in FREE_OPTIONS if name in begun["options"]}
        options = dataclasses.replace(options, **as_begun)
        facts = {**facts, "provenance": begun["provenance"]}
        if begun.get("complete") and not is_unfinished(folder):
            _remove_unfinished(folder)
            return RunFolder(folder, options, facts, is_complete=True)
        if begun["provenance"]["commit"] != record["provenance"]["commit"]:
            log.warning("%s was begun with other code, commit %s", folder, begun["provenance"]["commit"])
        if not has_state(folder):
            save_record(folder, begun)
            _clear(folder)
    run = RunFolder(folder, dataclasses.replace(options, **_SAME_RESULTS), facts)
    run.lock = lock(folder)
    reserve_space(folder)
    return run


def _remove_unfinished(folder: Path) -> None:
    """Take away what a run keeps to go on, as one that was killed when it was just complete."""
    shutil.rmtree(folder / ".predictions", ignore_errors=True)
    for file in folder.glob(".overlay.*"):
        file.unlink()
    remove_all(folder)


def _clear(folder: Path) -> None:
    """Take away what a run left, but for what it is known by."""
    for pattern in _OUTPUTS:
        for file in folder.glob(pattern):
            file.unlink()


def save_settings(folder: Path, options: object) -> None:
    """Write every option of a run, a dataclass, into its setting.txt."""
    settings = dataclasses.asdict(options)
    save_text(folder / _SETTINGS, "".join(f"{name}: {value}\n" for name, value in settings.items()))


class Rows(Sequence[Row]):
    """Rows that are kept as tuples under names that they share: a dictionary each would take three times the memory."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.names: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.rows: list[tuple[tuple[str, ...], tuple[str | int | float, ...]]] = []
        self.extend(rows)

    def append(self, row: Row) -> None:
        """Add a row."""
        names = tuple(row)
        values = (sys.intern(value) if isinstance(value, str) else value for value in row.values())
        self.rows.append((self.names.setdefault(names, names), tuple(values)))

    def extend(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [dict(zip(*row, strict=True)) for row in self.rows[index]]
        return dict(zip(*self.rows[index], strict=True))

    @property
    def known(self) -> set[str]:
        """The names that any row has."""
        return set().union(*self.names)


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
        is_complete: it is one whose files are all there
    """

    def __init__(self, folder: Path, options: object, facts: Mapping[str, object], is_complete: bool = False) -> None:
        self.folder, self.options, self.facts, self.is_complete = folder, options, dict(facts), is_complete
        self.rows = Rows()
        self.adapted = 0  # rows that were adapted to
        self.stopped: str | None = None  # what ended the run before its last frame
        self.lock: IO[str] | None = None  # held while the run goes on
        self.kept = (0, 0)  # rows that are in the file for who goes on, and its bytes
        save_settings(folder, options)
        self.started = time.monotonic()

    @functools.cached_property
    def writer(self) -> SummaryWriter:
        """Of TensorBoard's events."""
        return SummaryWriter(str(self.folder))

    def state(self) -> State:
        """How much of rows and events there is; new rows are appended to a file."""
        count, size = self.kept
        with (open_states(self.folder) / _ROWS).open("ab") as file:
            file.truncate(size)
            file.writelines(json.dumps(row).encode() + b"\n" for row in self.rows[count:])
            file.flush()
            os.fsync(file.fileno())
            self.kept = (len(self.rows), file.tell())
        self.writer.flush()
        events = {file.name: file.stat().st_size for file in self._events()}
        return {"rows": self.kept, "events": events, "adapted": self.adapted, "seconds": self._seconds()}

    def load_state(self, state: State) -> None:
        """Take rows and events up to there; what was written later is cut off."""
        self.kept, self.adapted = tuple(state["rows"]), state["adapted"]
        with (open_states(self.folder) / _ROWS).open("r+b") as file:
            file.truncate(self.kept[1])
            self.rows = Rows(map(json.loads, file))
        for file in self._events():
            if file.name in state["events"]:
                os.truncate(file, state["events"][file.name])
            else:
                file.unlink()
        self.started = time.monotonic() - state["seconds"]

    def _events(self) -> list[Path]:
        return sorted(self.folder.glob("events.*"))

    def _seconds(self) -> float:
        return time.monotonic() - self.started

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
        elif isinstance(error, KeyboardInterrupt):
            self.stopped = "interrupted"
        elif error is not None:
            self.stopped = str(error) or type(error).__name__

    def frames_per_second(self) -> float:
        """Frames up to now over the time since the start."""
        return len(self.rows) / self._seconds()

    def save(self, scores: str, frames: int | None, numbers: Mapping[str, object], report: str) -> None:
        """Write scores.csv, summary.json and performance.txt.

        Args:
            scores: of each frame, as text
            frames: how many there should be, None if unknown
            numbers: what summary.json says of the scores
            report: performance.txt
        """
        save_text(self.folder / "scores.csv", scores)
        save_text(self.folder / "performance.txt", report)
        complete = self.stopped is None and (frames is None or len(self.rows) == frames)
        summary = {
            "frames": len(self.rows),
            "complete": complete,
            "stopped": self.stopped,
            **numbers,
            **self.facts,
            "options": dataclasses.asdict(self.options),
        }
        # the last file, which says whether all are there
        save_text(self.folder / "summary.json", json.dumps(summary, indent=2, default=str) + "\n")


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

    def discard(self) -> None:
        """Take away what there is beside these files, to go on."""

    def bytes_needed(self) -> int:
        """Room for what is written frame by frame, as far as it is known before."""

    def state(self) -> State:
        """What there is up to now (utils.resume.Stateful)."""

    def load_state(self, state: State) -> None:
        """Go on from there."""


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
    """Close the results at the end of a `with`, and let them know what ended it.

    What a run that has a state needs to go on stays until it is complete.
    """
    folder = results.run.folder
    try:
        yield
    except BaseException as error:
        results.run.stop(error)
        raise
    finally:
        free_space(folder)
        results.close()
        if results.run.lock:
            results.run.lock.close()
    finish(folder)  # first, since what its state is of is then incomplete
    results.discard()
    remove_all(folder)


class BenchmarkResults:
    """Collects what a run on a data set yields; after `close`, also of a run that stopped early, the files are whole.

    Args:
        run: its folder
        frames: how many there will be at most
        save_predictions: keep every frame's body for predictions.npz (on disk, not in memory)
        keep_rows: leave the scores as they are, too, for who puts them together with others
    """

    def __init__(self, run: RunFolder, frames: int, save_predictions: bool, keep_rows: bool = False) -> None:
        self.run, self.frames, self.keep_rows = run, frames, keep_rows
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
        labels |= {name: frame[name] for name in ("activity", "exchanged", "jump") if name in frame}
        labels |= {name: frame[name].tolist() for name in ("dropped", "outside") if name in frame}
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

    def bytes_needed(self) -> int:
        """Room for what is written frame by frame."""
        return self.predictions.bytes_needed(self.frames) if self.predictions else 0

    def state(self) -> State:
        """Rows, sums, and how many predictions there are."""
        count = self.predictions.count if self.predictions else 0
        return {"run": self.run.state(), "sums": dict(self.sums), "predictions": count}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.run.load_state(state["run"])
        self.sums.update(state["sums"])
        if self.predictions:
            self.predictions.cut(state["predictions"])

    def discard(self) -> None:
        """Take away the predictions that are not in predictions.npz."""
        if self.predictions:
            self.predictions.discard()

    def close(self) -> None:
        """Write every file, whatever happens to the others."""
        rate = self.run.frames_per_second()
        with ExitStack() as steps:  # done from the last to the first
            if not has_state(self.run.folder):
                steps.callback(self.discard)
            steps.callback(self._save, rate)
            if self.predictions:
                names = np.array([row["image"] for row in self.run.rows], dtype=str)
                steps.callback(self.predictions.save, imgname=names)
            steps.callback(self.run.writer.close)

    def _save(self, rate: float) -> None:
        rows, adapted = self.run.rows, self.run.adapted
        if self.keep_rows:
            save_text(self.run.folder / _ROWS, "".join(f"{json.dumps(row)}\n" for row in rows))
        scores = [score for score in SCORES if score in rows.known]
        means = means_of(rows, scores)
        for score, file in _METRE_FILES.items():
            if score in scores:
                save_npy(self.run.folder / file, np.array([[row[score] / MM] for row in rows]))
        numbers = {
            **_named(means),
            "frames_per_second": rate,
            "frames_not_adapted": len(rows) - adapted,
            **{f"by_{group}": _summed_up(members, scores) for group, members in self._groups()},
            "guards": guarded(rows),
        }
        labels = [label for label in _LABELS if label in rows.known]
        text = f"{len(rows)} of {self.frames} frames{guard_lines(rows)}\n\n" + self._report(scores, means)
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


def read_rows(folder: Path) -> list[Row]:
    """The scores that a run left as they are (`keep_rows`)."""
    return [json.loads(line) for line in (folder / _ROWS).read_text().splitlines()]


class ArrayFile:
    """An npz that is filled frame by frame on disk, so that memory does not grow with the video.

    Args:
        file: the npz
        shapes: of each array in one frame; all are float32
    """

    def __init__(self, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.file, self.shapes, self.count = file, shapes, 0
        self.folder = file.parent / f".{file.stem}"
        self.parts: dict[str, io.FileIO] = {}

    def bytes_needed(self, frames: int) -> int:
        """Room for so many frames, and for the npz that is made of them."""
        return 2 * 4 * frames * sum(map(math.prod, self.shapes.values()))

    def cut(self, count: int) -> None:
        """Go on after so many frames, of those that are there from before."""
        self.folder.mkdir(exist_ok=True)
        self.count = count
        self.parts = {name: (self.folder / name).open("ab", buffering=0) for name in self.shapes}
        for name, part in self.parts.items():
            size = 4 * count * math.prod(self.shapes[name])
            if part.tell() < size:
                raise ValueError(f"{self.folder / name} has {part.tell()} bytes where {size} are needed")
            part.truncate(size)

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append the arrays of one frame; UserError when the disk is full."""
        try:
            if not self.parts:
                self.cut(0)
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

    def save(self, **more: np.ndarray) -> None:
        """Write the npz, with further arrays, if there was a frame."""
        if self.count:
            save_npz(self.file, **self.arrays(), **more)

    def discard(self) -> None:
        """Take away what the npz was made of; the arrays must not be used any more."""
        for part in self.parts.values():
            if not part.closed:
                part.truncate(0)  # a file that somebody still maps would keep its room on a full disk
                part.close()
        shutil.rmtree(self.folder, ignore_errors=True)


_GUARDS = {
    "updates_too_far": "updates that moved the prediction too far",
    "updates_undone": "of these undone",
    "crops_outside": "frames whose box is outside of the image",
    "sides_exchanged": "frames with left and right exchanged back",
    "joints_dropped": "joints that jumped",
}


def guarded(rows: Sequence[Row]) -> dict[str, int]:
    """How often the guards of a run had something to say."""
    jumps = [row.get("jump") for row in rows]
    undone, outside = jumps.count("undone"), sum(bool(row.get("outside")) for row in rows)
    return {
        "updates_too_far": jumps.count("yes") + undone,
        "updates_undone": undone,
        "crops_outside": outside,
        "sides_exchanged": sum(bool(row.get("exchanged")) for row in rows),
        "joints_dropped": sum(row.get("dropped", 0) for row in rows),
    }


def guard_lines(rows: Sequence[Row]) -> str:
    """The same as a further line of performance.txt, nothing where nothing was wrong."""
    found = [f"{_GUARDS[name]}: {count}" for name, count in guarded(rows).items() if count]
    return f"\nguards: {', '.join(found)}" if found else ""


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
