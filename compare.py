"""Runs of boa.py on the same stream, side by side: a table, the errors over time, and a video.

    python compare.py experiments/demo-frozen experiments/demo --video      # what `make demo` shows

The first run is what the others are measured against. Table and plot are written into the folder of the last run,
comparison.md and comparison.png, and with --video, which takes two runs with predictions, comparison.mp4: input, first
run, last run, last run from the side.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib
import numpy as np
import torch
from tqdm import tqdm

import streams
from models.smpl import SMPL, load_bodies
from utils.errors import UserError, run_command
from utils.files import existing, load_npz, save_text, write_atomically
from utils.renderer import overlay, side_view, write_video


class Measure(NamedTuple):
    """How a score of the summary is shown: its title, and what it is multiplied by."""

    title: str
    factor: float = 1.0


_MEASURES = {
    "mpjpe_mm": Measure("MPJPE [mm]"),
    "pampjpe_mm": Measure("PA-MPJPE [mm]"),
    "pve_mm": Measure("PVE [mm]"),
    "adapted_share_of_box": Measure("2D error [% of the box]", 100.0),
    "accel_mm": Measure("accel. [mm/frame²]"),
}
_CURVES = (("mpjpe_mm", "pampjpe_mm"), ("adapted_share_of_box", "accel_mm"))  # of data sets, of footage
_RATE = 12.0  # frames/s of the video: slower than life, so that an eye can compare
_SIDE = 320  # px, of each of the four pictures
_SMOOTH = 9  # frames, of the running mean in the plot
_KEYS = ("imgname", "rotmat", "betas", "cam")


class Run(NamedTuple):
    """What boa.py left in a folder: the summary, and the row of each frame."""

    folder: Path
    summary: dict[str, Any]
    rows: list[dict[str, str]]


def read_run(folder: Path) -> Run:
    """Read a finished run; UserError when the folder holds none."""
    remedy = "it is written by `python boa.py`; name folders of finished runs"
    try:
        summary = json.loads(existing(folder / "summary.json", remedy).read_text())
        with existing(folder / "scores.csv", remedy).open(newline="") as file:
            return Run(folder, summary, list(csv.DictReader(file)))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be read ({error}); {remedy}") from error


def table(runs: Sequence[Run]) -> str:
    """A line for each run, with what it changed against the first one; "-" for what a run does not have."""
    measures = [name for name in _MEASURES if any(run.summary.get(name) is not None for run in runs)]
    lines = ["| run | " + " | ".join([*(_MEASURES[name].title for name in measures), "frames/s |"])]
    lines.append("|---" * (len(measures) + 2) + "|")
    for run in runs:
        base = None if run is runs[0] else runs[0].summary
        cells = [_cell(run.summary.get(name), base and base.get(name), _MEASURES[name].factor) for name in measures]
        lines.append(f"| {run.folder.name} | {' | '.join(cells)} | {run.summary['frames_per_second']:.1f} |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None, base: float | None, factor: float) -> str:
    if value is None:
        return "-"
    change = f" ({100 * (value / base - 1):+.0f} %)" if base else ""
    return f"{factor * value:.1f}{change}"


def draw(runs: Sequence[Run], path: Path) -> None:
    """Plot two scores of every frame, faint, and their running means within a sequence."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained")
    sequences = [(row.get("sequence", ""), row["person"]) for row in runs[0].rows]
    starts = [i for i, name in enumerate(sequences) if i == 0 or name != sequences[i - 1]]
    curves = next(curves for curves in _CURVES if curves[0] in runs[0].rows[0])
    for axis, score in zip(axes, curves, strict=True):
        measure = _MEASURES[score]
        for number, run in enumerate(runs):
            # a frame without the score, as the first two have no acceleration, leaves a hole
            values = measure.factor * np.array([float(row[score] or "nan") for row in run.rows])
            mean = _cell(run.summary.get(score), None, measure.factor)
            axis.plot(values, color=f"C{number}", alpha=0.3, linewidth=0.8)
            for start, end in zip(starts, [*starts[1:], len(values)], strict=True):
                label = f"{run.folder.name}: mean {mean}" if start == 0 else None
                axis.plot(range(start, end), _running_mean(values[start:end]), color=f"C{number}", label=label)
        for start in starts[1:]:
            axis.axvline(start - 0.5, color="0.7", linewidth=0.8)
        axis.set(ylabel=measure.title, ylim=(0, None), xlim=(0, max(1, len(sequences) - 1)))
        axis.grid(alpha=0.3)
        axis.legend(loc="upper right")
    for start in starts:
        axes[0].text(start, 1.01, sequences[start][0], transform=axes[0].get_xaxis_transform(), fontsize=8)
    axes[1].set_xlabel("frame of the stream")
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))
    pyplot.close(figure)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean around each value, of those that are there; nan where none is."""
    ones, known = np.ones(min(_SMOOTH, len(values))), np.isfinite(values)
    counts = np.convolve(known, ones, "same")
    return np.divide(
        np.convolve(np.where(known, values, 0), ones, "same"), counts, where=counts > 0, out=counts * np.nan
    )


def film(first: Run, last: Run) -> Iterator[np.ndarray]:
    """Frames (H,4H,3) uint8 RGB: the crop, the body of either run over it, that of the last run from the side."""
    options = last.summary["options"]
    stream = streams.STREAMS[options["dataset_name"]]
    # a summary of before these flags went through all frames
    frames = stream.open()[0].part(options.get("stride", 1), options.get("max_frames", 0))
    assets = stream.assets
    body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ["neutral"])["neutral"]
    remedy = "run boa.py with --save_predictions"
    found = [load_npz(run.folder / "predictions.npz", _KEYS, remedy) for run in (first, last)]
    for index, rows in enumerate(tqdm(zip(first.rows, last.rows, strict=True), total=len(last.rows), unit=" frames")):
        crop = cv2.resize(np.uint8(frames.crop(index)["image"]), (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
        pictures, vertices = [crop], np.zeros(0)
        for predictions in found:
            vertices = _vertices(body, predictions, index)
            pictures.append(overlay(crop, vertices, body.faces, predictions["cam"][index]))
        pictures.append(side_view(vertices, body.faces, found[1]["cam"][index], _SIDE))
        errors = [
            f"{run.folder.name}: {float(row['mpjpe_mm']):.0f} mm" for run, row in zip((first, last), rows, strict=True)
        ]
        for picture, caption in zip(pictures, [rows[0]["sequence"], *errors, "from the side"], strict=True):
            _write(picture, caption)
        yield np.hstack(pictures)


def _vertices(body: SMPL, predictions: Mapping[str, np.ndarray], index: int) -> np.ndarray:
    rotmat, betas = (torch.as_tensor(predictions[name][index : index + 1]) for name in ("rotmat", "betas"))
    with torch.no_grad():
        return body.from_rotmat(rotmat, betas).vertices[0].numpy()


def _write(picture: np.ndarray, caption: str) -> None:
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, caption, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, width, cv2.LINE_AA)


def _frame_of(row: Mapping[str, str]) -> tuple[str | None, ...]:
    """What tells a frame from others in scores.csv."""
    return tuple(row.get(name) for name in ("index", "sequence", "person", "image"))


def main(argv: Sequence[str] | None = None) -> None:
    """Read the runs, print the table, write table, plot and video."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs of boa.py on the same frames")
    parser.add_argument("--video", action="store_true", help="write comparison.mp4 of the first and the last run")
    options = parser.parse_args(argv)
    runs = [read_run(folder) for folder in options.runs]
    first, last = runs[0], runs[-1]
    for run in runs[1:]:
        if [_frame_of(row) for row in run.rows] != [_frame_of(row) for row in first.rows]:
            raise UserError(f"{run.folder} and {first.folder} are not about the same frames; run both on one stream")
    text = table(runs)
    print(text, end="")
    save_text(last.folder / "comparison.md", text)
    draw(runs, last.folder / "comparison.png")
    if options.video:
        if first.summary["options"].get("video"):
            raise UserError("--video is for runs on a data set; a run on footage has its overlay.mp4")
        write_video(last.folder / "comparison.mp4", film(first, last), _RATE)


if __name__ == "__main__":
    run_command(main)
