"""Scores of frames: how they are called, rows of them, their means and tables."""

import csv
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, overload

import numpy as np

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
