"""The paper's ablation on the free benchmark, and the choice of the rates. `make ablation`, `make rates`, ... run it.

Every run is a call of boa.py whose results stay in experiments/<what>/seed-<n>/<row>; runs that are complete are not
made again, so that an interrupted table goes on where it stopped. Ablation: the test stream, rendered from three
seeds. Rates: the validation stream alone, so that nothing is chosen on what is reported. Footage has rates of its own,
chosen on rendered footage: as a stream with ground truth (wild), and clip by clip as `--video` sees it, with the joints
of MediaPipe (footage).
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

PROJECT = Path(__file__).parents[1]

FROZEN = {"frozen": ["--method", "frozen"]}
PAPER = ["--lr", "3e-6", "--metalr", "8e-6"]
# what each row of the ablation changes
ABLATION = {
    **FROZEN,
    "BOA, the paper's rates": PAPER,
    "BOA": [],
    "first order": ["--first_order"],
    "no motion": ["--motionloss_weight", "0"],
    "no teacher": ["--consistentloss_weight", "0"],
    "no labelled source": ["--labelloss_weight", "0"],
    "no probe (single level)": ["--metalr", "0"],
}


def rates(*of_adam: str) -> dict[str, list[str]]:
    """A row for each rate of Adam; the probe's keeps the paper's proportion to it."""
    of_probe = [f"{float(rate) * 8 / 3:.1e}".replace("e-0", "e-").replace(".0e", "e") for rate in of_adam]
    return {f"{one}, {other}": ["--lr", one, "--metalr", other] for one, other in zip(of_adam, of_probe, strict=True)}


class Table(NamedTuple):
    """Rows of flags, run on a stream of boa.py that `process_data.py --dataset` renders, once for each seed.

    Where `clips` of the stream are named, each of them is run as footage instead.
    """

    rows: dict[str, list[str]]
    stream: str
    dataset: str
    seeds: tuple[int, ...]
    measures: tuple[str, ...] = ("mpjpe_mm", "pampjpe_mm", "pve_mm", "accel_mm")
    clips: tuple[str, ...] = ()


TABLES = {
    "ablation": Table(ABLATION, "synthetic", "synthetic", (0, 1, 2)),
    "rates": Table(
        {**FROZEN, "3e-6, 8e-6 (the paper's)": PAPER, **rates("1e-5", "3e-5", "1e-4", "3e-4")},
        *("synthetic-validation", "synthetic", (0,)),
    ),
    "wild-rates": Table(
        {**FROZEN, **rates("3e-5", "6e-5", "1e-4", "2e-4")},
        *("wild", "wild", (0,)),
        ("reprojection_share_of_box", "mpjpe_mm", "pampjpe_mm", "accel_mm"),
    ),
    "footage-rates": Table(
        {**FROZEN, **rates("3e-5", "6e-5", "1e-4", "1.4e-4", "2e-4")},
        *("wild", "wild", (0,)),
        ("adapted_share_of_box", "accel_mm"),
        # in the sixth, wild_05_side_step, MediaPipe sees nobody
        ("wild_00_serve", "wild_01_run", "wild_02_talk", "wild_03_swing", "wild_04_dance"),
    ),
}
# title and factor of a number in summary.json
MEASURES = {
    "reprojection_share_of_box": ("2D error [% of the box]", 100),
    "adapted_share_of_box": ("2D error [% of the box]", 100),
    "mpjpe_mm": ("MPJPE [mm]", 1),
    "pampjpe_mm": ("PA-MPJPE [mm]", 1),
    "pve_mm": ("PVE [mm]", 1),
    "accel_mm": ("accel. [mm]", 1),
}
# what says that a set is wholly rendered
COMPLETE = {"synthetic": "complete", "wild": "wild/complete"}


def command(*arguments: str, env: dict[str, str]) -> int:
    """Run one of the project's commands -> its exit code."""
    return subprocess.run([sys.executable, *arguments], cwd=PROJECT, env={**os.environ, **env}).returncode


def stream_env(seed: int, dataset: str) -> dict[str, str]:
    """What points the commands at the streams of a seed, rendered where they lack; the first is `make demo`'s."""
    if seed == 0:
        root = Path(os.environ.get("SYNTHETIC_ROOT", PROJECT / "data" / "demo" / "synthetic"))
    else:
        root = PROJECT / "data" / "demo" / f"synthetic-{seed}"
    env = {"SYNTHETIC_ROOT": str(root)}
    if not (root / COMPLETE[dataset]).exists():
        code = command("process_data.py", "--dataset", dataset, "--seed", str(seed), env=env)
        if code:
            sys.exit(code)
    return env


def run_row(folder: Path, name: str, flags: list[str], env: dict[str, str]) -> dict:
    """The summary of one row on one stream, run where it is not complete; a run whose loss explodes stays short."""
    row = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
    summary = folder / row / "summary.json"
    if not summary.exists() or not json.loads(summary.read_text())["complete"]:
        print(f"{folder.name}: {name}", flush=True)
        where = ["--name", row, "--expdir", str(folder), "--overwrite"]
        code = command("boa.py", *where, *flags, env=env)
        if code and not summary.exists():
            sys.exit(code)
    return json.loads(summary.read_text())


def table(results: dict[str, list[dict]], measures: tuple[str, ...]) -> str:
    """Mean over the seeds, with the standard deviation where there are several; the first two against frozen."""
    seeds = len(results["frozen"])
    titles = [MEASURES[measure][0] for measure in measures]
    changes = [title.split(" [")[0] for title in titles[:2]]
    lines = ["| | " + " | ".join([*titles, *changes]) + " |", "|---" * (len(measures) + 3) + "|"]
    for name, summaries in results.items():
        short = [summary["frames"] for summary in summaries if not summary["complete"]]
        if short:
            lines.append(f"| {name} | not finite after {min(short)} frames" + " |" * (len(measures) + 2))
            continue
        numbers = {
            measure: MEASURES[measure][1] * np.array([summary[measure] for summary in summaries])
            for measure in measures
        }
        cells = [f"{n.mean():.1f}" + (f" ± {n.std(ddof=1):.1f}" if seeds > 1 else "") for n in numbers.values()]
        for measure in measures[:2]:
            frozen = MEASURES[measure][1] * np.mean([summary[measure] for summary in results["frozen"]])
            cells.append("" if name == "frozen" else f"{100 * (numbers[measure].mean() / frozen - 1):+.0f} %")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what lacks, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=TABLES)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the stream; default: those of the README's table")
    options = parser.parse_args()
    chosen = TABLES[options.what]
    output = PROJECT / "experiments" / options.what
    tasks = []
    for seed in options.seeds or chosen.seeds:
        env = stream_env(seed, chosen.dataset)
        images = Path(env["SYNTHETIC_ROOT"]) / chosen.stream / "imageFiles"
        inputs = {clip: ["--video", str(images / clip)] for clip in chosen.clips}
        for part, given in (inputs or {"": ["--dataset_name", chosen.stream]}).items():
            for name, flags in chosen.rows.items():
                tasks.append((name, (output / f"seed-{seed}" / part, name, [*given, *flags], env)))
    with ThreadPoolExecutor(options.jobs) as pool:
        summaries = list(pool.map(lambda task: run_row(*task[1]), tasks))
    results: dict[str, list[dict]] = {name: [] for name in chosen.rows}
    for (name, _), summary in zip(tasks, summaries, strict=True):
        results[name].append(summary)
    text = table(results, chosen.measures)
    (output / "table.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
