"""Parts of a run that do not depend on each other, sequences, clips or people: side by side, here or on a cluster.

Each part is a run of its own by the same program, in a folder of its own. One that fails goes on once more; those that
are complete are not run again.
"""

import dataclasses
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

import config
import streams
from flags import Options, modes, several_clips
from models.smpl import load_bodies
from runs import open_footage, open_frames, open_samples, open_video
from utils.device import choose_device
from utils.errors import UserError
from utils.files import load_npz, save_text
from utils.options import arguments_of
from utils.provenance import provenance
from utils.renderer import write_video
from utils.results import BenchmarkResults, read_rows, recorded
from utils.resume import ending_on_sigterm, free_space, remove_all
from utils.run_folder import PARTS, RunFolder, open_folder, run_folder
from utils.scores import means_of, table_of

if TYPE_CHECKING:
    from submitit import Job

    from footage.people import Footage

log = logging.getLogger("boa")

PROGRAM = [sys.executable, str(config.PROJECT / "boa.py")]
_TIMEOUT = 24 * 60  # minutes of a job, which otherwise has submitit's 5
SHORTEST = 0.5  # s for which people must be seen to be followed, or of a shorter clip the share
_LAST_WORDS = 1000  # characters of a log, in which the reason of a failure is looked for
_FOOTAGE_SCORES = ("frozen_share_of_box", "adapted_share_of_box", "accel_mm")
_FOOTAGE_COLUMNS = {name: name for name in ("frames", "frames_missing", *_FOOTAGE_SCORES)}


class Part(NamedTuple):
    """A run that others do not depend on: the options that make it what it is, and its folder."""

    options: Options
    folder: Path

    @property
    def name(self) -> str:
        """Of sequence or clip."""
        return self.folder.name

    def summary(self) -> dict[str, Any] | None:
        """Its summary.json, None where it is not complete."""
        try:
            summary = json.loads((self.folder / "summary.json").read_text())
        except (OSError, ValueError):
            return None
        return summary if summary["complete"] else None


class Launcher(Protocol):
    """Runs commands, from several threads."""

    def run(self, command: list[str], output: Path) -> int:
        """Run a command, append what it prints to a file -> its exit status."""

    def stop(self) -> None:
        """End all that is running, as by SIGTERM."""


class Processes:
    """Runs commands on this machine."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen] = set()

    def run(self, command: list[str], output: Path) -> int:
        """Run a command, append what it prints to a file -> its exit status."""
        with output.open("ab") as file:
            # in a process group of its own, so that Ctrl-C arrives by `stop` alone
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        self.running.add(process)
        try:
            return process.wait()
        finally:
            self.running.discard(process)

    def stop(self) -> None:
        """End all that is running."""
        for process in list(self.running):
            process.terminate()


class Jobs:
    """Runs commands as jobs of a cluster, by submitit.

    Args:
        folder: for submitit's files
        cluster: slurm or local
        options: of submitit, as `slurm_partition=gpu,timeout_min=600`

    Raises UserError when submitit is not installed, or does not know an option.
    """

    def __init__(self, folder: Path, cluster: str, options: str) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UserError(f"--cluster {cluster} needs submitit ({error}); run `pip install submitit`") from error

        class Command(submitit.helpers.CommandFunction):
            """A command that goes on in another job when the cluster takes this one away; the command says --resume."""

            def checkpoint(self) -> submitit.helpers.DelayedSubmission:
                return submitit.helpers.DelayedSubmission(self)

        self.errors = (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError)
        self.command, self.submitting = Command, threading.Lock()
        self.running: set[Job] = set()
        try:
            self.executor = submitit.AutoExecutor(folder, cluster=cluster)
            self.executor.update_parameters(**{"timeout_min": _TIMEOUT, **_parameters(options)})
        except (NameError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"--cluster {cluster} --cluster_options {options!r}: {error}") from error

    def run(self, command: list[str], output: Path) -> int:
        """Run a command, append what it prints to a file -> its exit status."""
        with self.submitting:
            job = self.executor.submit(self.command(command, verbose=False))
        self.running.add(job)
        try:
            job.result()
        except self.errors as error:
            with output.open("a") as file:
                file.write(f"{error}\n")
            return 1
        finally:
            self.running.discard(job)
        return 0

    def stop(self) -> None:
        """End all that is running."""
        for job in list(self.running):
            job.cancel()


def _parameters(options: str) -> dict[str, str | int]:
    pairs = [pair.partition("=") for pair in options.split(",") if pair]
    return {name.strip(): int(value) if value.isdecimal() else value for name, _, value in pairs}


def run_parts(parts: Sequence[Part], workers: int, launcher: Launcher) -> dict[str, str]:
    """Run those parts that are not complete, so many at a time -> the names of those that failed twice, and why."""
    failed, waiting = {}, [part for part in parts if part.summary() is None]
    stopping = threading.Event()
    with ending_on_sigterm(), ThreadPoolExecutor(workers) as pool:
        attempts = {pool.submit(_attempt, part, launcher, stopping): part for part in waiting}
        try:
            for attempt in tqdm(as_completed(attempts), total=len(attempts), unit=" parts"):
                if reason := attempt.result():
                    failed[attempts[attempt].name] = reason
                    log.warning("%s failed twice: %s", attempts[attempt].name, reason)
        except BaseException:
            stopping.set()
            launcher.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _attempt(part: Part, launcher: Launcher, stopping: threading.Event) -> str:
    """Run a part, once more if it fails -> why it failed again, or nothing."""
    output = part.folder.with_name(f"{part.name}.log")
    command = [*PROGRAM, *arguments_of(part.options, modes(part.options))]
    for _ in range(2):
        if stopping.is_set() or (launcher.run(command, output) == 0 and part.summary()):
            return ""
    lines = output.read_text(errors="replace")[-_LAST_WORDS:].strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


def _part(options: Options, parent: Path, name: str, **more: str | int) -> Part:
    alone = {"per_sequence": False, "overwrite": False, "resume": True}
    alone |= {"workers": 1, "cluster": "none", "cluster_options": ""}
    options = dataclasses.replace(options, name=name, expdir=str(parent), **alone, **more)
    return Part(options, run_folder(options.expdir, name))


def run_divided(options: Options, with_source: bool) -> RunFolder:
    """Run all parts that are not complete, and put together what they left.

    Raises UserError at the end when a part failed; the same command runs what lacks.
    """
    if options.per_sequence and options.soft_reset < 1:
        raise UserError("--per_sequence begins every sequence with the base model; leave out --soft_reset")
    folder = run_folder(options.expdir, options.name)
    if not options.overwrite and (folder / PARTS).exists():
        options = dataclasses.replace(options, resume=True)
    if several_clips(options.video):
        return _run_clips(options, with_source)
    return (_run_people if options.video else _run_sequences)(options, with_source)


def _launcher(options: Options, parent: Path) -> Launcher:
    if options.cluster == "none":
        return Processes()
    return Jobs(parent / "submitit", options.cluster, options.cluster_options)


def _run_all(options: Options, run: RunFolder, parts: Sequence[Part]) -> dict[str, str]:
    parent = run.folder / PARTS
    parent.mkdir(exist_ok=True)
    failed = run_parts(parts, options.workers, _launcher(options, parent))
    if failed:
        run.stopped = f"failed: {', '.join(failed)}"
    return failed


def _check(failed: dict[str, str], parts: Sequence[Part], parent: Path) -> None:
    if failed:
        name, reason = next(iter(failed.items()))
        raise UserError(
            f"{len(failed)} of {len(parts)} parts failed, {name}: {reason} (all in {parent}/*.log); "
            "the same command runs them again"
        )


def _run_sequences(options: Options, with_source: bool) -> RunFolder:
    samples = open_samples(streams.STREAMS[options.dataset_name], with_source)
    frames, facts = open_frames(options, choose_device(options.device), samples)
    run = open_folder(options, facts)
    if run.is_complete:
        return run
    parent = run.folder / PARTS
    names = dict.fromkeys(frames.columns["sequence"].tolist())
    parts = [_part(options, parent, name, sequence=name) for name in names]
    results = BenchmarkResults(run, len(frames), options.save_predictions)
    failed: dict[str, str] = {}
    with recorded(results):
        try:
            failed |= _run_all(options, run, parts)
        finally:
            _put_together(results, parts)
        _check(failed, parts, parent)
    return run


def _put_together(results: BenchmarkResults, parts: Sequence[Part]) -> None:
    """Take what the parts left, in their order."""
    seconds = 0.0
    for part in parts:
        if (summary := part.summary()) is None:
            continue
        results.run.rows.extend(read_rows(part.folder))
        results.run.adapted += summary["frames"] - summary["frames_not_adapted"]
        seconds += summary["frames"] / summary["frames_per_second"]
        if results.predictions:
            file = part.folder / "predictions.npz"
            arrays = load_npz(file, results.predictions.shapes, "run it again by --overwrite")
            for row in range(summary["frames"]):
                results.predictions.add({name: array[row] for name, array in arrays.items()})
    results.run.started = time.monotonic() - seconds  # of one worker


def _run_clips(options: Options, with_source: bool) -> RunFolder:
    clips = several_clips(options.video)
    run = _open_footage_folder(options, {}, clips)
    if run.is_complete:
        return run
    names = _names(clips)
    parts = [
        _part(options, run.folder / PARTS, name, video=str(clip), **_keypoints(options.keypoints, clip))
        for name, clip in zip(names, clips, strict=True)
    ]
    failed = _run_all(options, run, parts)
    _save_table(run, parts, "clip", {"clips": len(parts), "failed": failed})
    _check(failed, parts, run.folder / PARTS)
    remove_all(run.folder)
    return run


def _run_people(options: Options, with_source: bool) -> RunFolder:
    """Everybody in a clip: they are told apart, then each is followed by a run, then all are shown."""
    footage = open_footage(options)
    if footage.video.is_camera:
        raise UserError("--person all goes through a clip once more for each person; a camera shows it once: name one")
    detects = options.keypoints == "mediapipe"
    given = {} if detects else {"keypoints": Path(options.keypoints)}
    run = _open_footage_folder(options, {"video": Path(options.video), **given}, [])
    if run.is_complete:
        return run
    parent = run.folder / PARTS
    kept = parent / "keypoints" if detects else None  # one detector tells all apart, and where each is
    there = _who_is_there(parent, footage, kept)
    enough = SHORTEST * min(footage.rate, there["frames"])
    numbers = [number for number, frames in there["seen"].items() if frames >= enough]
    left_out = len(there["seen"]) - len(numbers)
    log.info("people who are followed: %s; seen for too few frames, and left out: %d", ", ".join(numbers), left_out)
    joints = {"keypoints": str(kept), "first_frame": there["first"]} if kept else {}
    parts = [_part(options, parent, f"person-{number}", person=number, **joints) for number in numbers]
    failed = _run_all(options, run, parts)
    if not failed:
        _show_all(options, run.folder, parts)
    facts = {"frames": there["frames"], "people": len(parts), "left_out": left_out, **there["facts"]}
    _save_table(run, parts, "person", {**facts, "failed": failed})
    _check(failed, parts, parent)
    remove_all(run.folder)
    return run


def _who_is_there(parent: Path, footage: "Footage", kept: Path | None) -> dict[str, Any]:
    """What find_people finds, how many `frames` a clip has, and `facts` of it; looked for once in the life of a run."""
    from footage.people import find_people  # takes long to load

    file = parent / "people.json"
    if not file.exists():
        parent.mkdir(exist_ok=True)
        found = find_people(footage, kept)
        for warning in footage.warnings():
            log.warning(warning)
        there = {**found._asdict(), "frames": footage.frames, "facts": footage.facts()}
        save_text(file, json.dumps(there) + "\n")
    return json.loads(file.read_text())


def _show_all(options: Options, folder: Path, parts: Sequence[Part]) -> None:
    """overlay.mp4 and animation.glb of all people."""
    from footage.everybody import draw_all, export_all

    assets = streams.footage_assets(options.model_file)
    body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ("neutral",))["neutral"]
    people = {part.name: part.folder for part in parts}
    video = open_video(options)
    frames = tqdm(video, total=video.frames, unit=" frames", desc="everybody")
    write_video(folder / "overlay.mp4", draw_all(frames, people, body), video.rate)
    if options.export in ("glb", "both"):
        export_all(folder / "animation.glb", people, body)


def _open_footage_folder(options: Options, inputs: dict[str, Path], clips: Sequence[Path]) -> RunFolder:
    """The folder of a run whose parts are on footage."""
    device = choose_device(options.device)
    base = Path(options.model_file or streams.footage_assets(options.model_file).base_model)
    origin = provenance(device, {"base_model": base, **inputs}, clips)
    return open_folder(options, {"protocol": "footage (2D joints)", "device": str(device), "provenance": origin})


def _save_table(run: RunFolder, parts: Sequence[Part], label: str, numbers: dict[str, object]) -> None:
    """Save a row for each part, and beside these numbers the means of the parts' scores."""
    free_space(run.folder)
    rows = [{label: part.name, **(part.summary() or {})} for part in parts]
    rows = [{name: np.nan if value is None else value for name, value in row.items()} for row in rows]
    table = table_of(rows, [label], _FOOTAGE_COLUMNS, digits=5)
    by_part = {row[label]: {name: row.get(name) for name in _FOOTAGE_COLUMNS} for row in rows if len(row) > 1}
    means = means_of(rows, _FOOTAGE_SCORES)
    run.save(table, None, {**numbers, **means, f"by_{label}": by_part}, table)


def _names(clips: Sequence[Path]) -> list[str]:
    """A name for each clip, that of its file, with a number where it is taken."""
    names: list[str] = []
    for clip in clips:
        stem = (
            "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in clip.stem).strip(".") or "clip"
        )
        names.append(stem if stem not in names else f"{stem}_{len(names)}")
    return names


def _keypoints(keypoints: str, clip: Path) -> dict[str, str]:
    """The detector's file or folder of a clip, which has its name."""
    if keypoints == "mediapipe":
        return {}
    found = [path for path in (Path(keypoints) / clip.stem, Path(keypoints) / f"{clip.stem}.json") if path.exists()]
    if not found:
        raise UserError(f"{keypoints} has neither a folder {clip.stem} nor {clip.stem}.json for the clip {clip}")
    return {"keypoints": str(found[0])}
