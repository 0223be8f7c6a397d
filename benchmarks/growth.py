"""How the cost of a step grows with frames, batch, image size and depth: `make growth` draws docs/growth.png.

Medians of a few steps on random images; ResNet-18 where the depth is not what changes.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from benchmarks import step  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

_MODES = ("exact (default)", "--first_order")
_WARM_UP = 2


def seconds(mode: str, frames: int, depth: int = 18, size: int = 1, side: int = 224) -> list[float]:
    """Of each step."""
    device, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    way, found = step.steps(step.make(depth, device, **step.MODES[mode])), []
    for index in range(frames + _WARM_UP):
        batch = step.random_frame(generator, index, size, side)
        start = time.perf_counter()
        way(batch, batch)
        found.append(time.perf_counter() - start)
    return found[_WARM_UP:]


def draw(axis: plt.Axes, title: str, values: Sequence[int], measure: Callable[[str, int], float]) -> None:
    """A line for each mode."""
    for mode in _MODES:
        axis.plot(values, [measure(mode, value) for value in values], "o-", label=mode)
    axis.set(title=title, xticks=values, ylim=(0, None))
    axis.grid(alpha=0.3)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and write the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=40, help="of the first picture (default: 40)")
    parser.add_argument("--rounds", type=int, default=4, help="steps of each point of the others (default: 4)")
    options = parser.parse_args(argv)

    def median(mode: str, **what: int) -> float:
        return float(np.median(seconds(mode, options.rounds, **what)))

    figure, (first, *axes) = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for mode in _MODES:
        first.plot(seconds(mode, options.frames), label=mode)
    first.set(title="frame of a stream", ylabel="s a step", ylim=(0, None))
    first.grid(alpha=0.3)
    first.legend()
    draw(axes[0], "frames of a batch", [1, 2, 4, 8], lambda mode, size: median(mode, size=size))
    draw(axes[1], "side of the image [px]", [128, 224, 320], lambda mode, side: median(mode, side=side))
    draw(axes[2], "layers of the ResNet", [18, 34, 50], lambda mode, depth: median(mode, depth=depth))
    figure.savefig(PROJECT / "docs" / "growth.png", dpi=80)


if __name__ == "__main__":
    main()
