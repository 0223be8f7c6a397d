"""What all converters share: sequences converted one by one or in parallel, resumed, summed up, joined and looked at.

A sequence becomes a part file, an npz of its columns. How it was made is recorded in the comment of the zip archive
that an npz is, so that its arrays are those of the format and no others. A part that is there, and was made with the
same settings, is not made again; after a failure, an interruption or a later download the same command does only what
is missing.

Data sets have files that are bad at their source. What lacks for such a file is a gap: it is named, in the log and in
the array `missing` of the joined file, and the rest is joined without it.
"""

import json
import logging
import multiprocessing
import signal
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from utils.errors import UserError, WriteError
from utils.files import existing, read_record, write_atomically
from utils.image import BOX_UNIT, read_rgb
from utils.joints import H36M17, SPIN, SPIN24, rows

log = logging.getLogger("boa")

_TILES = (4, 3)  # columns and rows of a contact sheet
_TILE = 360  # px
_BONES = (
    *(("Right Ankle", "Right Knee"), ("Right Knee", "Right Hip"), ("Right Hip", "Pelvis (MPII)")),
    *(("Left Ankle", "Left Knee"), ("Left Knee", "Left Hip"), ("Left Hip", "Pelvis (MPII)")),
    *(("Right Wrist", "Right Elbow"), ("Right Elbow", "Right Shoulder"), ("Right Shoulder", "Neck (LSP)")),
    *(("Left Wrist", "Left Elbow"), ("Left Elbow", "Left Shoulder"), ("Left Shoulder", "Neck (LSP)")),
    *(("Pelvis (MPII)", "Spine (H36M)"), ("Spine (H36M)", "Neck (LSP)"), ("Neck (LSP)", "Head (H36M)")),
)


# what is recorded of a part or a joined file, as JSON has it
Record = Mapping[str, bool | int | str | list[str] | Mapping[str, int] | Mapping[str, str]]


class Converted(NamedTuple):
    """What a sequence became.

    Attributes:
        columns: N rows each, `imgname` among them
        dropped: reason -> number of frames left out
        missing: name of a part of the sequence that could not be converted -> why
        notes: what the user should know of it, one line each
    """

    columns: dict[str, np.ndarray]
    dropped: dict[str, int]
    missing: Mapping[str, str] = {}
    notes: Sequence[str] = ()


class Task(NamedTuple):
    """One sequence to convert.

    Attributes:
        name: of the sequence, for the progress bar and messages
        part: the npz that it becomes
        convert: does it; picklable, as functools.partial of a module's function; UserError when a file is damaged
        check: says cheaply, without converting, what is missing or wrong, one line each
    """

    name: str
    part: Path
    convert: Callable[[], Converted]
    check: Callable[[], list[str]]


class Settings(NamedTuple):
    """How to convert.

    Attributes:
        workers: number of processes
        overwrite: make parts again that are there
        recorded: what the result depends on; kept in the files, and parts with another record are made again
        dry_run: only say what is missing
        preview: write a contact sheet too
        strict: end with an error where anything cannot be converted, instead of going on without it
    """

    workers: int = 1
    overwrite: bool = False
    recorded: Mapping[str, bool | str] = {}
    dry_run: bool = False
    preview: bool = False
    strict: bool = False


def convert_all(
    tasks: Sequence[Task],
    title: str,
    images: Path,
    settings: Settings,
    output: Path | None = None,
    keypoints: str = "part",
    absent: Sequence[str] = (),
) -> list[str]:
    """Do with the tasks what the settings ask for -> the names of what could not be converted, or is absent.

    Args:
        tasks: the sequences in the order of the protocol
        title: name of the data set in messages
        images: the folder in which the image names start, for the contact sheet
        settings: see Settings
        output: the file that the parts are joined into; without it they stay single files of one folder
        keypoints: column of joints (N,24 or 49,3) px that the contact sheet shows
        absent: names of what belongs to the protocol and has no task, because it is not there at all

    Raises UserError when nothing can be converted, a file cannot be written, or, if strict, anything is missing.
    """
    if settings.dry_run:
        dry_run(tasks, title)
        return []
    if absent and settings.strict:
        raise UserError(f"{title}: {', '.join(absent)} is not there; do without --strict, or download it")
    if output:
        missing = run_and_join(tasks, title, output, settings, absent)
        files, sheet = [output], output.with_suffix(".png")
    else:
        missing = [*run(tasks, title, settings), *absent]
        files, sheet = [task.part for task in tasks if task.part.exists()], tasks[0].part.parent / "preview.png"
    if settings.preview:
        contact_sheet(sheet, images, sampled(files, keypoints))
    return missing


def run(tasks: Sequence[Task], title: str, settings: Settings) -> list[str]:
    """Make every part that is not there yet, and log what was kept, dropped and could not be converted -> the latter.

    A sequence that fails is named at once while the others go on, and what it became before is taken away. One with
    gaps is converted again when the command is given again.

    Raises UserError at the end when all failed, or, if strict, any; at once when a process was killed or a file cannot
    be written.
    """
    records = {} if settings.overwrite else {task.name: _record(task.part, settings.recorded) for task in tasks}
    records = {name: record for name, record in records.items() if record and not record.get("missing")}
    to_do = [task for task in tasks if task.name not in records]
    there = len(records)
    missing = []
    with logging_redirect_tqdm(), tqdm(total=len(tasks), initial=there, desc=title, unit=" sequences") as bar:
        for task, result in _results(to_do, settings, bar):
            bar.update()
            try:
                record = records[task.name] = result()
                for name, reason in record["missing"].items():
                    log.error("%s: %s", name, reason)
                    missing.append(name)
                for note in record["notes"]:
                    log.warning("%s: %s", task.name, note)
            except WriteError:
                raise
            except UserError as error:
                log.error("%s: %s", task.name, error)
                missing.append(task.part.stem)
                if read_record(task.part):  # made before, of other files or with other settings
                    task.part.unlink()
            except BrokenProcessPool as error:
                raise UserError(
                    f"{title}: a process was killed, for lack of memory perhaps; try again with fewer --workers"
                ) from error
    _log_summary(title, records.values(), len(tasks), there)
    return _missing(missing, len(tasks) - len(records), len(tasks), title, settings)


def _missing(missing: list[str], failed: int, count: int, title: str, settings: Settings) -> list[str]:
    """The names of what is missing, after a line about them; UserError when it is all of the tasks, or if strict."""
    again = "the same command converts only these again"
    if missing and (settings.strict or failed == count):
        which = f"{failed} of {count} sequences" if failed else ", ".join(sorted(missing))
        raise UserError(f"{title}: {which} could not be converted (see above); {again}")
    if missing:
        log.warning("%s: done without %s (see above); %s", title, ", ".join(sorted(missing)), again)
    return sorted(missing)


def run_and_join(
    tasks: Sequence[Task], title: str, output: Path, settings: Settings, absent: Sequence[str] = ()
) -> list[str]:
    """`run`, then `join` into one file, which says of itself whether it is complete -> what lacks; UserError as `run`.

    Args:
        absent: names of what belongs to the protocol and has no task
    """
    recorded = {**settings.recorded, "sequences": [task.name for task in tasks]}
    record = None if settings.overwrite else _record(output, recorded)
    if record and not record.get("missing"):
        log.info("%s is complete: %d frames; --overwrite makes it again", output, record["frames"])
        return []
    missing = [*run(tasks, title, settings), *absent]
    join([task.part for task in tasks if task.part.exists()], output, recorded, missing)
    log.info("%s is in %s", title, output)
    return missing


def dry_run(tasks: Sequence[Task], title: str) -> None:
    """Log what each sequence lacks, without converting; UserError when any lacks something."""
    lines = [f"{task.name}: {line}" for task in tqdm(tasks, desc=title, unit=" sequences") for line in task.check()]
    for line in lines:
        log.error(line)
    if lines:
        raise UserError(f"{title}: {len(lines)} things are missing or wrong in {len(tasks)} sequences (see above)")
    log.info("%s: nothing is missing in %d sequences", title, len(tasks))


def missing_files(*files: Path) -> list[str]:
    """A line for each file that is not there or empty, and one for all beyond the tenth: the usual check of a task."""
    lines = [f"{file} is missing" for file in files if not file.exists()]
    lines += [f"{file} is empty" for file in files if file.is_file() and file.stat().st_size == 0]
    return lines if len(lines) <= 10 else [*lines[:10], f"and {len(lines) - 10} more files are missing or empty"]


def join(parts: Sequence[Path], output: Path, recorded: Record, missing: Sequence[str] = ()) -> None:
    """Join parts into one npz in the given order, column by column and part by part, so that memory stays flat.

    Args:
        parts: npz files of the same columns
        output: the joined file
        recorded: how it was made
        missing: names of what should be in it and is not; where there are any, its array `missing` holds them
    """
    columns: dict[str, list[np.ndarray]] = {}  # an empty array of each part: dtype and shape of a row
    frames = 0
    for part in parts:
        with np.load(part) as npz:
            for name in npz.files:
                columns.setdefault(name, []).append(npz[name][:0])
            frames += len(npz["imgname"])

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, rows_of_parts in columns.items():
                dtype = np.result_type(*rows_of_parts)
                header = {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (frames, *rows_of_parts[0].shape[1:]),
                }
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array_header_2_0(entry, header)
                    for part in parts:
                        with np.load(part) as npz:
                            entry.write(npz[name].astype(dtype).tobytes())
            if missing:
                with archive.open("missing.npy", "w") as entry:
                    np.lib.format.write_array(entry, np.array(missing, dtype=str), allow_pickle=False)
            archive.comment = json.dumps({**recorded, "frames": frames, "missing": list(missing)}).encode()

    write_atomically(output, write)


def spin_joints(joints: np.ndarray, skeleton: Sequence[str]) -> np.ndarray:
    """Joints (F,J,D) of a data set's skeleton -> SPIN's 24 with a confidence (F,24,D+1), 1 for the 17 it has."""
    slots = rows(H36M17, SPIN24)
    result = np.zeros((len(joints), len(SPIN24), joints.shape[2] + 1))
    result[:, slots, :-1] = joints[:, rows(H36M17, skeleton)]
    result[:, slots, -1] = 1
    return result


def check_finite(columns: Mapping[str, np.ndarray], file: Path, remedy: str) -> None:
    """Raise a UserError that names the first frame with a number that is not finite in any of the columns (N,...)."""
    for name, column in columns.items():
        if name != "imgname" and column.dtype.kind == "f":
            bad = np.flatnonzero(~np.isfinite(column).all(tuple(range(1, column.ndim))))
            if len(bad):
                where = f"{len(bad)} frames, the first is {columns['imgname'][bad[0]]}"
                raise UserError(f"{file}: {name} is not finite in {where}; {remedy}")


def video_frames(video: Path, wanted: Collection[int], count: int, remedy: str) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of a video with their numbers from 0, (H,W,3) BGR; all of it is gone through once.

    Args:
        video: the file
        wanted: numbers of the frames to yield
        count: how many frames the video must have at least
        remedy: what the user can do about a bad file

    Raises UserError when the video is missing, cannot be decoded or has fewer frames.
    """
    capture = cv2.VideoCapture(str(existing(video, remedy)))
    try:
        for number in range(count):
            if not capture.grab():
                how = f"ends after {number} of {count} annotated frames" if number else "cannot be decoded"
                raise UserError(f"{video} {how}; {remedy}")
            if number in wanted:
                is_decoded, image = capture.retrieve()
                if not is_decoded:
                    raise UserError(f"{video}: frame {number} cannot be decoded; {remedy}")
                yield number, image
    finally:
        capture.release()


def video_length(video: Path, remedy: str) -> int:
    """How many frames a video says that it has; UserError when it is missing or says nothing."""
    capture = cv2.VideoCapture(str(existing(video, remedy)))
    length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    if length < 1:
        raise UserError(f"{video} cannot be decoded; {remedy}")
    return length


def write_image(path: Path, bgr: np.ndarray) -> None:
    """Write an image (H,W,3) BGR whole or not at all; UserError when it cannot be written."""

    def write(temporary: Path) -> None:
        if not cv2.imwrite(str(temporary), bgr):
            raise OSError("the image could not be written")

    write_atomically(path, write)


def sampled(files: Sequence[Path], keypoints: str) -> dict[str, np.ndarray]:
    """The columns of a contact sheet, of up to 12 frames evenly spread over npz files; one file in memory at a time."""
    counts = []
    for file in files:
        with np.load(file) as npz:
            counts.append(len(npz["scale"]))
    ends = np.cumsum(counts)
    picked = np.unique(np.linspace(0, ends[-1] - 1, min(ends[-1], _TILES[0] * _TILES[1])).astype(int))
    samples = []
    for file, end, count in zip(files, ends, counts, strict=True):
        frames = picked[(picked >= end - count) & (picked < end)] - (end - count)
        with np.load(file) as npz:
            sample = {name: npz[name][frames] for name in ("imgname", "center", "scale")}
            joints = npz[keypoints][frames]
        samples.append({**sample, "part": joints[:, SPIN] if joints.shape[1] > len(SPIN24) else joints})
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}


def contact_sheet(file: Path, images: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Draw boxes and joints on up to 12 frames, evenly spread, into one picture: right is red, left is blue.

    Args:
        file: the picture, PNG
        images: the folder in which the image names start
        columns: `imgname` (N,), `center` (N,2) px, `scale` (N,), `part` (N,24,3) px and confidence

    Raises UserError when an image is missing or unreadable.
    """
    across, down = _TILES
    count = len(columns["imgname"])
    picked = np.unique(np.linspace(0, count - 1, min(count, across * down)).astype(int)) if count else []
    sheet = np.zeros((down * _TILE, across * _TILE, 3), np.uint8)
    for place, row in enumerate(picked):
        tile = _drawn(
            read_rgb(images / str(columns["imgname"][row])), *(columns[key][row] for key in ("center", "scale", "part"))
        )
        name = str(columns["imgname"][row])[-48:]
        cv2.putText(tile, name, (4, _TILE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)
        top, left = (place // across) * _TILE, (place % across) * _TILE
        sheet[top : top + _TILE, left : left + _TILE] = tile
    write_image(file, sheet[..., ::-1])
    log.info("%s shows %d frames", file, len(picked))


def _drawn(rgb: np.ndarray, center: np.ndarray, scale: float, joints: np.ndarray) -> np.ndarray:
    """A tile (360,360,3) with the image, shrunk or enlarged, its box in yellow and its joints (24,3) px."""
    zoom = _TILE / max(rgb.shape[:2])
    tile = np.zeros((_TILE, _TILE, 3), np.uint8)
    small = cv2.resize(rgb, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)[:_TILE, :_TILE]
    tile[: small.shape[0], : small.shape[1]] = small
    corners = [_pixel((center + sign * scale * BOX_UNIT / 2) * zoom) for sign in (-1, 1)]
    cv2.rectangle(tile, *corners, (255, 220, 0), 1)
    colours = [
        (255, 60, 60) if "Right" in name else (70, 130, 255) if "Left" in name else (90, 255, 90) for name in SPIN24
    ]
    for bone in _BONES:
        first, second = rows(bone, SPIN24)
        if min(joints[first, 2], joints[second, 2]) > 0:
            ends = (_pixel(joints[end, :2] * zoom) for end in (first, second))
            cv2.line(tile, *ends, colours[first], 1, cv2.LINE_AA)
    for (x, y, confidence), colour in zip(joints, colours, strict=True):
        if confidence > 0:
            cv2.circle(tile, _pixel(np.array([x, y]) * zoom), 3, colour, -1, cv2.LINE_AA)
    return tile


def _pixel(point: np.ndarray) -> tuple[int, int]:
    # OpenCV takes no numbers beyond 16 bits here
    x, y = np.clip(np.nan_to_num(point), -10000, 10000).astype(int)
    return int(x), int(y)


def _results(tasks: Sequence[Task], settings: Settings, bar: tqdm) -> Iterator[tuple[Task, Callable[[], Record]]]:
    """Convert in this process, or in several -> each task, when it is done, with what returns or raises its result."""
    if settings.workers == 1:
        for task in tasks:
            bar.set_postfix_str(task.name)
            yield task, lambda task=task: _make_part(task, settings.recorded)
        return
    # spawn, because a forked copy of a process with threads may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(settings.workers, context, initializer=_start_worker) as pool:
        futures: dict[Future, Task] = {pool.submit(_make_part, task, settings.recorded): task for task in tasks}
        try:
            for future in as_completed(futures):
                bar.set_postfix_str(futures[future].name)
                yield futures[future], future.result
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    # one thread each, or the processes fight for the cores; Ctrl-C ends them without a word
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _make_part(task: Task, recorded: Record) -> Record:
    """Convert a sequence into its part file -> the record of it."""
    columns, dropped, missing, notes = task.convert()
    record = {**recorded, "frames": len(columns["imgname"]), "dropped": dropped}
    record |= {"missing": dict(missing), "notes": list(notes)}

    def write(path: Path) -> None:
        np.savez(path, **columns)
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = json.dumps(record).encode()

    write_atomically(task.part, write)
    return record


def _record(file: Path, recorded: Record) -> Record | None:
    """How a part or a joined file was made, None where it is not there, damaged or made with other settings."""
    record = read_record(file)
    return record if record and all(record.get(name) == value for name, value in recorded.items()) else None


def _log_summary(title: str, records: Collection[Record], count: int, there: int) -> None:
    dropped: Counter[str] = Counter()
    for record in records:
        dropped.update(record["dropped"])
    log.info("%s: %d of %d sequences converted, %d of them before", title, len(records), count, there)
    log.info("%9d frames kept", sum(record["frames"] for record in records))
    for reason, frames in (+dropped).items():  # without reasons that no frame was dropped for
        log.info("%9d frames dropped: %s", frames, reason)
