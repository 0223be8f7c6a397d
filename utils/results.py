"""What collects a run frame by frame, and writes it: scores per frame, per sequence and in all, predictions."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.arrays import ArrayFile
from utils.files import save_npy, save_text
from utils.metrics import MM
from utils.resume import State, finish, free_space, has_state, remove_all
from utils.run_folder import ROWS, RunFolder
from utils.scores import SCORES, Row, guard_lines, guarded, means_of, of_dynamic_steps, table_of
from utils.structures import Frame, Prediction

# file names of the published code, whose numbers are metres
_METRE_FILES = {"mpjpe": "mpjpe.npy", "pampjpe": "pampjpe.npy", "pve": "pme.npy", "ume": "ume.npy"}
_LABELS = ("sequence", "person", "image", "activity", "exchanged", "dropped", "jump")
_GROUPS = ("sequence", "activity")  # what frames are also scored by


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
            save_text(self.run.folder / ROWS, "".join(f"{json.dumps(row)}\n" for row in rows))
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
    return [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]


def _named(means: Mapping[str, float | None]) -> dict[str, float | None]:
    return {SCORES[score].column: value for score, value in means.items()}


def _summed_up(by_name: Mapping[str, Sequence[Row]], scores: Sequence[str]) -> dict[str, dict[str, float | None]]:
    return {name: {"frames": len(rows), **_named(means_of(rows, scores))} for name, rows in by_name.items()}


def _number(score: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if SCORES[score].column.endswith("_mm") else f"{value:.3f}"
