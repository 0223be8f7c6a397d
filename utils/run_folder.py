"""The folder of a run: made, found again to go on, and what every run leaves in it."""

import dataclasses
import functools
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

from torch.utils.tensorboard import SummaryWriter

from utils.errors import NotFiniteError, UserError
from utils.files import save_text
from utils.provenance import differences
from utils.resume import (
    FOLDER,
    State,
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
from utils.scores import Row, Rows

log = logging.getLogger("boa")

_SETTINGS = "setting.txt"
ROWS = "rows.jsonl"  # scores as they are
# all that a run may leave
_OUTPUTS = (
    *(_SETTINGS, ROWS, "*.log", "model.pt", "*.npy", "scores.csv", "performance.txt", "summary.json"),
    *("predictions.npz", "events.*", "overlay.mp4", ".overlay.*", "reprojection.png", "animation.*", "comparison.*"),
)
PARTS = "parts"  # the folder of the runs that a run is made of
# options by which the same results are had in another way, which the results do not name
_SAME_RESULTS = {"resume": False, "workers": 1, "cluster": "none", "cluster_options": ""}
# the options that do not say what a run does
FREE_OPTIONS = ("name", "expdir", "overwrite", "resume", "checkpoint_every", "workers", "cluster", "cluster_options")


class RunIdentity(Protocol):
    """What options of a run, a dataclass, have at least."""

    name: str
    expdir: str
    overwrite: bool
    resume: bool


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
        with (open_states(self.folder) / ROWS).open("ab") as file:
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
        with (open_states(self.folder) / ROWS).open("r+b") as file:
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
