"""The paper's ablation on the free benchmark, and the choice of the rates. `make ablation` and `make rates` run it.

Every run is a call of boa.py whose results stay in experiments/<what>/seed-<n>/<row>; runs that are complete are not
made again, so that an interrupted table goes on where it stopped. Ablation: the test stream, rendered from three
seeds. Rates: the validation stream alone, so that nothing is chosen on what is reported.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).parents[1]

PAPER = ["--lr", "3e-6", "--metalr", "8e-6"]
# what each row of the ablation changes
ABLATION = {
    "frozen": ["--method", "frozen"],
    "BOA, the paper's rates": PAPER,
    "BOA": [],
    "first order": ["--first_order"],
    "no motion": ["--motionloss_weight", "0"],
    "no teacher": ["--consistentloss_weight", "0"],
    "no labelled source": ["--labelloss_weight", "0"],
    "no probe (single level)": ["--metalr", "0"],
}
# the probe's rate keeps the paper's proportion to Adam's
RATES = {
    "frozen": ["--method", "frozen"],
    "3e-6, 8e-6 (the paper's)": PAPER,
    "1e-5, 2.7e-5": ["--lr", "1e-5", "--metalr", "2.7e-5"],
    "3e-5, 8e-5": ["--lr", "3e-5", "--metalr", "8e-5"],
    "1e-4, 2.7e-4": ["--lr", "1e-4", "--metalr", "2.7e-4"],
    "3e-4, 8e-4": ["--lr", "3e-4", "--metalr", "8e-4"],
}
TABLES = {"ablation": (ABLATION, "synthetic", (0, 1, 2)), "rates": (RATES, "synthetic-validation", (0,))}
MEASURES = {"mpjpe_mm": "MPJPE", "pampjpe_mm": "PA-MPJPE", "pve_mm": "PVE", "accel_mm": "accel."}


def command(*arguments: str, env: dict[str, str]) -> int:
    """Run one of the project's commands -> its exit code."""
    return subprocess.run([sys.executable, *arguments], cwd=PROJECT, env={**os.environ, **env}).returncode


def stream_env(seed: int) -> dict[str, str]:
    """What points the commands at the stream of a seed, rendered where it is not there; the first is `make demo`'s."""
    if seed == 0:
        root = Path(os.environ.get("SYNTHETIC_ROOT", PROJECT / "data" / "demo" / "synthetic"))
    else:
        root = PROJECT / "data" / "demo" / f"synthetic-{seed}"
    env = {"SYNTHETIC_ROOT": str(root)}
    if not (root / "complete").exists():
        code = command("process_data.py", "--dataset", "synthetic", "--seed", str(seed), env=env)
        if code:
            sys.exit(code)
    return env


def run_row(folder: Path, name: str, flags: list[str], stream: str, env: dict[str, str]) -> dict:
    """The summary of one row on one stream, run where it is not complete; a run whose loss explodes stays short."""
    row = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)
    summary = folder / row / "summary.json"
    if not summary.exists() or not json.loads(summary.read_text())["complete"]:
        print(f"{folder.name}: {name}", flush=True)
        where = ["--name", row, "--expdir", str(folder), "--dataset_name", stream, "--overwrite"]
        code = command("boa.py", *where, *flags, env=env)
        if code and not summary.exists():
            sys.exit(code)
    return json.loads(summary.read_text())


def table(results: dict[str, list[dict]]) -> str:
    """Mean over the seeds, with the standard deviation where there are several, and the change against frozen."""
    seeds = len(results["frozen"])
    lines = ["| | " + " | ".join(f"{title} [mm]" for title in MEASURES.values()) + " | MPJPE | PA-MPJPE |"]
    lines.append("|---" * (len(MEASURES) + 3) + "|")
    for name, summaries in results.items():
        short = [summary["frames"] for summary in summaries if not summary["complete"]]
        if short:
            lines.append(f"| {name} | not finite after {min(short)} frames" + " |" * (len(MEASURES) + 2))
            continue
        numbers = {measure: np.array([summary[measure] for summary in summaries]) for measure in MEASURES}
        cells = [f"{n.mean():.1f}" + (f" ± {n.std(ddof=1):.1f}" if seeds > 1 else "") for n in numbers.values()]
        for measure in ("mpjpe_mm", "pampjpe_mm"):
            frozen = np.mean([summary[measure] for summary in results["frozen"]])
            cells.append("" if name == "frozen" else f"{100 * (numbers[measure].mean() / frozen - 1):+.0f} %")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what lacks, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=TABLES)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the stream; default: 0 1 2, for the rates 0")
    options = parser.parse_args()
    rows, stream, seeds = TABLES[options.what]
    output = PROJECT / "experiments" / options.what
    tasks = []
    for seed in options.seeds or seeds:
        env = stream_env(seed)
        tasks += [(name, (output / f"seed-{seed}", name, flags, stream, env)) for name, flags in rows.items()]
    with ThreadPoolExecutor(options.jobs) as pool:
        summaries = list(pool.map(lambda task: run_row(*task[1]), tasks))
    results: dict[str, list[dict]] = {name: [] for name in rows}
    for (name, _), summary in zip(tasks, summaries, strict=True):
        results[name].append(summary)
    text = table(results)
    (output / "table.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
