"""A run that goes on where it was stopped: its state, saved whole or not at all, and what it is known by.

The state is tensors, numbers and text, and is read as such, without running code. What grows with the run is
in files that are only appended to; the state says how much of them counts.
"""

import fcntl
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

import torch

from utils.checkpoint import load_checkpoint
from utils.errors import Terminated, UserError, reason_for
from utils.files import save_text, write_atomically

State = dict[str, Any]  # of tensors, numbers, text, None, and lists, tuples and dictionaries of these

FOLDER = ".resume"  # in the folder of a run that is not complete
_RECORD = "run.json"  # what the run of a folder is, as long as it is not finished
PATIENCE = 6.0  # s, for which the frame at hand may go on after SIGINT or SIGTERM
_RESERVE = 2**23  # bytes kept free for the scores, should the disk fill up


class Stateful(Protocol):
    """A part of a run."""

    def state(self) -> State:
        """What it must know to go on."""

    def load_state(self, state: State) -> None:
        """Go on from there."""


def open_states(folder: Path) -> Path:
    """The folder of the state of a run, which is made where it is not there."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    return folder / FOLDER


def has_states(folder: Path) -> bool:
    """Whether a run of the folder is not complete."""
    return (folder / FOLDER).is_dir()


def has_state(folder: Path) -> bool:
    """Whether the run of a folder can go on in its middle."""
    return (folder / FOLDER / "state.pt").exists()


class RandomState:
    """The random numbers of torch, on the host and on every GPU."""

    def state(self) -> State:
        """Of each generator."""
        return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    def load_state(self, state: State) -> None:
        """Let them go on."""
        torch.set_rng_state(state["cpu"])
        torch.cuda.set_rng_state_all(state["cuda"])


class Checkpoints:
    """Saves the state of a run now and then, and when it is asked to stop.

    Args:
        folder: of the run
        every: frames between two saves; 0: only when it is asked to stop
        parts: what the state is of, by name; none for what cannot go on, as a camera
    """

    def __init__(self, folder: Path, every: int, parts: Mapping[str, Stateful]) -> None:
        self.folder, self.every = folder, every
        self.parts = {**parts, "random": RandomState()} if parts else {}
        self.since, self.asked = 0, 0  # frames since the last save; the signal that asks to stop

    @property
    def file(self) -> Path:
        """The state."""
        return self.folder / FOLDER / "state.pt"

    def bytes_needed(self) -> int:
        """Room for the state that is saved and for the one before, which is replaced when it is whole."""
        learned = self.parts["learner"].state() if self.parts else {}
        return 2 * _bytes_of(learned)

    def load(self) -> None:
        """Let all parts go on from the saved state, if there is one; UserError when it cannot be read."""
        if not self.file.exists():
            return
        try:
            state = load_checkpoint(self.file)
            for name, part in self.parts.items():
                part.load_state(state[name])
        except Exception as error:  # torch and pickle let through whatever a damaged file causes
            raise UserError(f"{self.file} cannot be read ({reason_for(error)}); begin anew by --overwrite") from error

    def save(self) -> None:
        """Save the state of all parts, if there are any, in the place of the one before."""
        if not self.parts:
            return
        open_states(self.folder)
        state = {name: part.state() for name, part in self.parts.items()}
        write_atomically(self.file, lambda path: _save_to_disk(state, path))
        self.since = 0

    def passed(self, frames: int) -> None:
        """Take note that so many frames more are done; KeyboardInterrupt once the user has asked to stop."""
        self.since += frames
        if self.asked or (self.every and self.since >= self.every):
            self.save()
        if self.asked:
            raise self._interruption()

    def _interruption(self) -> KeyboardInterrupt:
        hint = "stopped; the same command with --resume goes on" if self.parts else "stopped"
        return (Terminated if self.asked == signal.SIGTERM else KeyboardInterrupt)(hint)

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Within this, SIGINT and SIGTERM let the frame at hand be done with; a second one, or PATIENCE, does not."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
        before = {number: signal.signal(number, self._ask) for number in signals}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise self._interruption()
        self.asked = number
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Within this, SIGTERM raises Terminated, as SIGINT raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated("stopped; the same command goes on")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def lock(folder: Path) -> IO[str]:
    """Hold the folder of a run until what is returned is closed, or the process ends, however it does.

    Raises UserError when another process holds it.
    """
    file = (open_states(folder) / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UserError(f"another process works in {folder}; wait for it, or choose another --name") from error
    return file


def _bytes_of(state: object) -> int:
    """Of the tensors of a state."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(_bytes_of, values))


def _save_to_disk(state: State, path: Path) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def reserve_space(folder: Path) -> None:
    """Take some of the disk, which `free_space` gives back when the scores are written."""
    file = open_states(folder) / "reserve"
    write_atomically(file, lambda path: path.write_bytes(bytes(_RESERVE)))


def free_space(folder: Path) -> None:
    """Give back what was reserved."""
    (folder / FOLDER / "reserve").unlink(missing_ok=True)


def is_unfinished(folder: Path) -> bool:
    """Whether a run was begun in a folder, and not all its files were written."""
    return (folder / FOLDER / _RECORD).exists()


def finish(folder: Path) -> None:
    """Take note that all files of a run are written; its state is not needed any more."""
    for name in (_RECORD, "state.pt"):
        (folder / FOLDER / name).unlink(missing_ok=True)


def remove_all(folder: Path) -> None:
    """Take away all that a run keeps to go on."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


# what a run is known by


def save_record(folder: Path, record: Mapping[str, object]) -> None:
    """Write down what is begun, `options` and `provenance`, before the first frame."""
    save_text(open_states(folder) / _RECORD, json.dumps(record, indent=2) + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """What was begun in a folder, None where nothing was, or where it is not known; also of a complete run."""
    for file in (folder / "summary.json", folder / FOLDER / _RECORD):
        try:
            record = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and {"options", "provenance"} <= set(record):
            return record
    return None
