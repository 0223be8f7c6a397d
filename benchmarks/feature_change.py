"""How far a step moves the features, by learning rate: what the threshold of dynamic steps is chosen from.

    python process_data.py --dataset synthetic
    python benchmarks/feature_change.py

adapts to the first frames of the validation stream, by the first order and without further steps, and prints 1 - cosine
at each learning rate. `--most 7` lets there be further steps, at the threshold of boa.py, and counts them.
"""

import argparse
import contextlib
import csv
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import boa
from utils.errors import run_command

LEARNING_RATES = (3e-6, 3e-5, 6e-5)
_WARM_UP = 2  # frames: the first step of Adam moves every weight by the whole learning rate
_PPM = 1e-6


def run(lr: float, frames: int, stream: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Change of the features by the last step of each frame after the first ones, and the number of further steps."""
    argv = ["--dataset_name", stream, "--max_frames", str(frames), "--first_order", "--dynamic_boa"]
    argv += ["--lr", str(lr), "--metalr", str(lr * 8 / 3), "--optim_steps", str(most)]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        boa.main(["--name", "run", "--expdir", folder, *argv])
        with (Path(folder) / "run" / "scores.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))[_WARM_UP:]
    changes, steps = (np.array([float(row[name]) for row in rows]) for name in ("feature_change_ppm", "extra_steps"))
    return changes * _PPM, steps


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each learning rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20, help="of the stream, from its start (default: 20)")
    parser.add_argument("--stream", default="synthetic-validation", help="default: synthetic-validation")
    parser.add_argument("--lr", type=float, nargs="+", default=LEARNING_RATES, help="learning rates of Adam")
    parser.add_argument("--most", type=int, default=0, help="further steps of a frame (default: 0)")
    options = parser.parse_args(argv)
    print("| learning rate | lower quartile | median | upper quartile | median / lr | further steps a frame |")
    print("|---|---|---|---|---|---|")
    for lr in options.lr:
        changes, steps = run(lr, options.frames, options.stream, options.most)
        low, median, high = np.quantile(changes, (0.25, 0.5, 0.75))
        print(f"| {lr:g} | {low:.1e} | {median:.1e} | {high:.1e} | {median / lr:.0f} | {steps.mean():.1f} |")


if __name__ == "__main__":
    run_command(main)
