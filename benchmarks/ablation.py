"""The paper's ablation on the free benchmark, and the choice of the learning rates: the tables of benchmarks/tables.py.

    python benchmarks/ablation.py ablation              # or make ablation, make rates, ...

Every run is a call of boa.py whose results stay in experiments/<table>/seed-<n>/<row>. A run is made once: it is used
again, so that an interrupted table goes on where it stopped, as long as it is complete and its options, its streams and
the code that made it are what they would be now. A row whose loss explodes is short for good, and says so.
"""

import argparse
import ast
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import boa
import config
from benchmarks.tables import MEASURES, TABLES, Table
from synthetic import stream, version
from utils.errors import UserError, run_command
from utils.files import save_text

PROJECT = Path(__file__).parents[1]
# what a run goes through
CODE = ("boa.py", "flags.py", "runs.py", "streams.py", "datasets/*.py", "footage/*.py", "models/*.py", "utils/*.py")
ASSETS = ("*.pt", "smpl/*", "spin_data/*")
# options that say where results go, not what they are
PLACES = {"name", "expdir", "overwrite"}

Summary = Mapping[str, Any]  # summary.json


class Run(NamedTuple):
    """One row on one stream, or on one clip of it.

    Attributes:
        row: its name in the table
        folder: of its results
        flags: of boa.py
        root: of the streams, SYNTHETIC_ROOT
        made_with: streams, assets and code that it would be made with now
    """

    row: str
    folder: Path
    flags: list[str]
    root: Path
    made_with: dict[str, str]

    @property
    def arguments(self) -> list[str]:
        """What boa.py is given."""
        return ["--name", self.folder.name, "--expdir", str(self.folder.parent), "--overwrite", *self.flags]

    @property
    def summary(self) -> Summary | None:
        """What summary.json says; None where there is none that can be read."""
        return _read_json(self.folder / "summary.json")

    @property
    def note(self) -> Path:
        """Beside the results: what they were made with."""
        return self.folder.with_name(f"{self.folder.name}.json")


def code_version(project: Path = PROJECT) -> str:
    """A hash of the program, whatever its comments, docstrings and layout."""
    digest = hashlib.sha256()
    for pattern in CODE:
        for file in sorted(project.glob(pattern)):
            tree = ast.parse(file.read_text())
            for node in ast.walk(tree):
                # a docstring, or another expression that is only text
                if isinstance(getattr(node, "body", None), list):
                    node.body = [part for part in node.body if not _is_text(part)]
            digest.update(f"{file.relative_to(project)} {ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:16]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def assets_version(folder: Path) -> str:
    """A hash of the body model, the base models and what else comes with them."""
    digest = hashlib.sha256()
    for pattern in ASSETS:
        for file in sorted(folder.glob(pattern)):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def lacking(run: Run) -> str | None:
    """Why a run must be made, in words; None where there is one that can be used."""
    summary = run.summary
    if summary is None:
        return "not run yet"
    if summary.get("stopped") != "not finite" and not summary.get("complete"):
        return f"stopped before ({summary.get('stopped') or 'not complete'})"
    wanted, options = options_of(run.arguments), _comparable(summary.get("options", {}))
    other = sorted(name for name in wanted.keys() | options.keys() if wanted.get(name) != options.get(name))
    if other:
        return f"run with another {', '.join(other)}"
    note = _read_json(run.note) or {}
    other = [name for name, value in _note(run).items() if note.get(name) != value]
    return f"run with another {', '.join(other)}" if other else None


def _read_json(file: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is none that can be read."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def options_of(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of a call of boa.py, as summary.json has them, but for those that say where results go."""
    return _comparable(json.loads(json.dumps(dataclasses.asdict(boa.read_options(arguments)), default=str)))


def _comparable(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in PLACES}


def _note(run: Run) -> dict[str, str]:
    """What `run.note` should say; it names the summary, lest a later run in the same folder pass for this one."""
    return {"summary": hashlib.sha256((run.folder / "summary.json").read_bytes()).hexdigest()[:16], **run.made_with}


def call_boa(run: Run) -> int:
    """Run boa.py -> its exit code."""
    env = {**os.environ, "SYNTHETIC_ROOT": str(run.root)}
    return subprocess.run([sys.executable, "boa.py", *run.arguments], cwd=PROJECT, env=env).returncode


def made(run: Run, call: Callable[[Run], int] = call_boa) -> Summary:
    """The summary of a run, which is made where it lacks.

    Raises UserError when it stops, unless a loss or a prediction is not finite, which is a result.
    """
    why = lacking(run)
    if why is None:
        return run.summary
    print(f"{run.folder}: {why}", flush=True)
    for old in (run.note, run.folder / "summary.json"):
        old.unlink(missing_ok=True)
    code, summary = call(run), run.summary
    if summary is None:
        raise UserError(f"{run.folder} has no summary: boa.py ended with code {code}, and said above why")
    if summary.get("stopped") != "not finite" and (code or not summary["complete"]):
        why = summary.get("stopped") or f"boa.py ended with code {code}"
        raise UserError(f"{run.folder} stopped after {summary['frames']} frames: {why}; mend that, and run this again")
    save_text(run.note, json.dumps(_note(run), indent=2) + "\n")
    return summary


def runs_of(name: str, table: Table, seeds: Sequence[int]) -> list[Run]:
    """All runs of a table; their streams are rendered where they lack."""
    runs, code = [], {"code": code_version(), "assets": assets_version(config.DEMO)}
    for seed in seeds:
        root = config.SYNTHETIC_ROOT.with_name(f"{config.SYNTHETIC_ROOT.name}-{seed}")
        stream.build(root, config.DEMO, table.dataset, seed)
        made_with = {**code, **version.made_of(config.DEMO, seed)}
        images = root / table.stream / "imageFiles"
        inputs = {clip: ["--video", str(images / clip)] for clip in table.clips}
        for part, given in (inputs or {"": ["--dataset_name", table.stream]}).items():
            folder = PROJECT / "experiments" / name / f"seed-{seed}" / part
            for row, flags in table.rows.items():
                runs.append(Run(row, folder / file_name(row), [*given, *table.more, *flags], root, made_with))
    return runs


def file_name(row: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in row)


def make_all(runs: Sequence[Run], jobs: int, call: Callable[[Run], int] = call_boa) -> dict[str, list[Summary]]:
    """The summaries of each row; `jobs` runs are made at the same time, and after an error no other one is begun."""
    failed = threading.Event()

    def begin(run: Run) -> Summary:
        if failed.is_set():
            raise CancelledError
        try:
            return made(run, call)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(begin, run) for run in runs]
        try:
            summaries = [future.result() for future in futures]
        except BaseException:  # Ctrl-C, too
            failed.set()
            raise
    results: dict[str, list[Summary]] = {run.row: [] for run in runs}
    for run, summary in zip(runs, summaries, strict=True):
        results[run.row].append(summary)
    return results


def markdown(results: Mapping[str, Sequence[Summary]], measures: Sequence[str]) -> str:
    """Mean over the runs of a row, with the standard deviation of several; the first two measures against frozen."""
    titles = [MEASURES[measure].title for measure in measures]
    header = ["", *titles, *(title.split(" [")[0] for title in titles[:2])]
    lines = [header, ["---"] * len(header)]
    frozen = _numbers(results["frozen"], measures)
    for row, summaries in results.items():
        short = [summary["frames"] for summary in summaries if not summary["complete"]]
        if short:
            lines.append([row, f"not finite after {min(short)} frames", *[""] * (len(header) - 2)])
            continue
        numbers = _numbers(summaries, measures)
        cells = [f"{n.mean():.1f}" + (f" ± {n.std(ddof=1):.1f}" if len(n) > 1 else "") for n in numbers]
        changes = [n.mean() / before.mean() - 1 for n, before in zip(numbers[:2], frozen, strict=False)]
        lines.append([row, *cells, *("" if row == "frozen" else f"{change:+.0%}" for change in changes)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _numbers(summaries: Sequence[Summary], measures: Sequence[str]) -> list[np.ndarray]:
    """Each measure in every run, in the unit of its title."""
    return [MEASURES[measure].factor * np.array([summary[measure] for summary in summaries]) for measure in measures]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what lacks, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=TABLES)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the streams; default: those of the table")
    options = parser.parse_args(argv)
    table = TABLES[options.what]
    runs = runs_of(options.what, table, options.seeds or table.seeds)
    text = markdown(make_all(runs, options.jobs), table.measures)
    save_text(PROJECT / "experiments" / options.what / "table.md", text)
    print(text, end="")


if __name__ == "__main__":
    run_command(main)
