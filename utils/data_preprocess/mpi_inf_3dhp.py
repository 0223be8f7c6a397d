"""MPI-INF-3DHP as distributed -> npz of SPIN's format (Kolotouros et al., ICCV 2019).

The test set (Mehta et al., 3DV 2017) has images; the training set has videos, out of which the frames that are kept are
written as images. Frames whose joints are not all inside the image are left out.
"""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from utils.data_preprocess.conversion import (
    Converted,
    Settings,
    Task,
    check_finite,
    convert_all,
    missing_files,
    spin_joints,
    video_frames,
    write_image,
)
from utils.data_preprocess.raw_files import hdf5_array, read_cells
from utils.errors import UserError, WriteError, reason_for
from utils.files import existing
from utils.hp3d import ACTIVITIES, TEST_SEQUENCES
from utils.image import box_around, image_size
from utils.joints import H36M17, HP3D17, HP3D28, rows

log = logging.getLogger("boa")

TRAIN_SEQUENCES = tuple(f"S{subject}/Seq{number}" for subject in range(1, 9) for number in (1, 2))
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)  # of 14: those at the height of the chest, as in SPIN
_TRAIN_SIZE = (2048, 2048)  # px, of every training video
_EVERY = 10  # training frames
_ENLARGE = 1.2  # of the box around the joints
_REMEDY = "download MPI-INF-3DHP again and set MPI_INF_3DHP_ROOT in config.py (docs/datasets.md, MPI-INF-3DHP)"
_OUTSIDE = "joints outside of the image"


def convert_test(root: Path, output: Path, settings: Settings = Settings()) -> list[str]:
    """Write the valid frames of the test set into `output`, mpi_inf_3dhp_test.npz -> names of what could not be.

    Beside SPIN's columns there is `activity` (N,), the number of the group of activities, 0 where it is not given.

    Args:
        root: MPI_INF_3DHP_ROOT, with mpi_inf_3dhp_test_set/TS1/annot_data.mat, .../imageSequence, ...

    The 3D joints are those of annot3, people in their true sizes.

    Raises UserError when no sequence can be converted, or, if strict, one cannot.
    """
    tasks = [
        Task(
            name,
            _part(output, name),
            functools.partial(_convert_test_sequence, root, name),
            functools.partial(_check_test_sequence, root, name),
        )
        for name in TEST_SEQUENCES
    ]
    return convert_all(tasks, "MPI-INF-3DHP test", root, settings, output)


def convert_train(root: Path, output: Path, paper_compat: bool = False, settings: Settings = Settings()) -> list[str]:
    """Write frames of the training set as images beside its videos, and their labels into `output`.

    Every 10th frame of a video is taken. Sequences whose folder is not there are left out, with a warning; a video that
    cannot be read is left out of its sequence. Returns the names of what could not be converted.

    Args:
        root: MPI_INF_3DHP_ROOT, with S1/Seq1/annot.mat, S1/Seq1/imageSequence/video_0.avi, ...
        output: file of the labels, mpi_inf_3dhp_train.npz
        paper_compat: take every 10th of those frames that have all joints inside, counted on from camera to camera and
            from sequence to sequence, as SPIN

    Raises UserError when there is no sequence that can be converted, or, if strict, anything that cannot.
    """
    there = [name for name in TRAIN_SEQUENCES if (root / name).exists()]
    if not there:
        raise UserError(f"{root} holds no S1/Seq1, ...; {_REMEDY}")
    absent = [name for name in TRAIN_SEQUENCES if name not in there]
    if absent:
        log.warning("%d of 16 sequences are not in %s: %s", len(absent), root, ", ".join(absent))
    tasks = []
    for place, name in enumerate(there):
        before = tuple(there[:place]) if paper_compat else None
        convert = functools.partial(_convert_train_sequence, root, name, before, settings.overwrite)
        check = functools.partial(missing_files, root / name / "annot.mat", *(_video(root, name, k) for k in CAMERAS))
        tasks.append(Task(name, _part(output, name), convert, check))
    settings = settings._replace(recorded={"paper_compat": paper_compat})
    return convert_all(tasks, "MPI-INF-3DHP train", root, settings, output)


def _part(output: Path, name: str) -> Path:
    return output.parent / "parts" / output.stem / f"{name.replace('/', '_')}.npz"


def _convert_test_sequence(root: Path, name: str) -> Converted:
    file = root / "mpi_inf_3dhp_test_set" / name / "annot_data.mat"
    joints_2d, joints_3d, is_valid, activity = read_test(file)
    frames = np.flatnonzero(is_valid)
    names = _test_images(name, frames)
    sizes = np.array([image_size(root / image) for image in names]).reshape(-1, 2)
    inside = _inside(joints_2d[frames], sizes)
    kept = frames[inside]
    columns = {
        **_columns(joints_2d[kept], joints_3d[kept], [names[row] for row in np.flatnonzero(inside)]),
        "activity": activity[kept],
    }
    check_finite(columns, file, _REMEDY)
    dropped = {"marked as not valid": int((~is_valid).sum()), _OUTSIDE: int((~inside).sum())}
    return Converted(columns, dropped, notes=_size_notes(inside, sizes))


def _size_notes(inside: np.ndarray, sizes: np.ndarray) -> list[str]:
    """A line where most frames (N,) have joints outside of their images (N,2) px, as if these were made smaller."""
    if len(inside) < 2 * inside.sum() or not len(inside):
        return []
    size = " x ".join(map(str, np.unique(sizes, axis=0)[0]))
    return [
        f"joints of {(~inside).sum()} of {len(inside)} frames are outside of the images ({size} px); "
        "the annotation is for images of the size in which the data set comes"
    ]


def _check_test_sequence(root: Path, name: str) -> list[str]:
    file = root / "mpi_inf_3dhp_test_set" / name / "annot_data.mat"
    try:
        is_valid = read_test(file)[2]
    except UserError as error:
        return [str(error)]
    return missing_files(*(root / image for image in _test_images(name, np.flatnonzero(is_valid))))


def _test_images(name: str, frames: np.ndarray) -> list[str]:
    return [f"mpi_inf_3dhp_test_set/{name}/imageSequence/img_{frame + 1:06d}.jpg" for frame in frames]


def read_test(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """2D joints (F,17,2) px, 3D joints (F,17,3) mm, is valid (F,) and activity (F,) of a test sequence.

    Raises UserError when the file is missing, damaged or laid out otherwise.
    """
    existing(file, _REMEDY)
    try:
        with h5py.File(file) as content:
            joints_2d, joints_3d, valid = (hdf5_array(content, key) for key in ("annot2", "annot3", "valid_frame"))
            has_activity = "activity_annotation" in content
            activity = hdf5_array(content, "activity_annotation") if has_activity else np.zeros(len(joints_2d))
    except Exception as error:  # h5py lets through whatever a damaged file causes
        raise UserError(f"{file} cannot be read ({reason_for(error)}); {_REMEDY}") from error
    count = len(joints_2d) if joints_2d.ndim else 0
    joints = len(HP3D17)
    wanted = {"annot2": (joints_2d, (count, 1, joints, 2)), "annot3": (joints_3d, (count, 1, joints, 3))}
    for key, (array, shape) in wanted.items():
        if array.shape != shape:
            raise UserError(f"{file}: {key} has shape {array.shape} where {shape} is needed; {_REMEDY}")
    for key, array in (("valid_frame", valid), ("activity_annotation", activity)):
        if array.size != count:
            raise UserError(f"{file}: {key} has {array.size} values for {count} frames; {_REMEDY}")
    activity = activity.ravel()
    if not np.isin(activity, range(len(ACTIVITIES))).all():
        raise UserError(f"{file}: activity_annotation has values other than 1 to {len(ACTIVITIES) - 1}; {_REMEDY}")
    return joints_2d[:, 0], joints_3d[:, 0], valid.ravel() != 0, activity.astype(np.int64)


def _convert_train_sequence(root: Path, name: str, before: tuple[str, ...] | None, overwrite: bool) -> Converted:
    """Labels and images of a sequence; `before` are the sequences that SPIN's count includes, None to not count so.

    Raises UserError when the annotation, or every video, is missing or damaged.
    """
    joints_2d, joints_3d = read_train(root / name / "annot.mat")  # (C,F,28,2) and (C,F,28,3)
    inside = np.stack([_inside(joints, np.array([_TRAIN_SIZE])) for joints in joints_2d])
    if before is None:
        candidates = np.zeros_like(inside)
        candidates[:, ::_EVERY] = True
    else:
        position = sum(_count_inside(root, other) for other in before) + np.cumsum(inside).reshape(inside.shape) - 1
        candidates = ~inside | (position % _EVERY == 0)
    taken = candidates & inside
    parts: list[dict[str, np.ndarray]] = []
    failures: dict[str, str] = {}
    notes: list[str] = []
    for camera, video_2d, video_3d, is_taken in zip(CAMERAS, joints_2d, joints_3d, taken, strict=True):
        frames = np.flatnonzero(is_taken)
        names = [f"{name}/imageFrames/video_{camera}/frame_{frame + 1:06d}.jpg" for frame in frames]
        columns = _columns(video_2d[frames], video_3d[frames], names, HP3D28)
        check_finite(columns, root / name / "annot.mat", _REMEDY)
        wanted = {
            frame: root / image
            for frame, image in zip(frames.tolist(), names, strict=True)
            if overwrite or not (root / image).exists()
        }
        try:
            notes += _extract(_video(root, name, camera), wanted, len(video_2d))
        except WriteError:
            raise
        except UserError as error:
            failures[f"{name.replace('/', '_')}_video_{camera}"] = str(error)
        else:
            parts.append(columns)
    if not parts:
        raise UserError(next(iter(failures.values())))
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    outside = int((candidates & ~inside).sum())
    kept = len(columns["scale"])
    dropped = {
        "between those that are taken": int((~candidates).sum()),
        _OUTSIDE: outside,
        "of videos that cannot be read": int(taken.sum()) - kept,
    }
    return Converted(columns, dropped, failures, notes)


def _extract(video: Path, wanted: Mapping[int, Path], count: int) -> list[str]:
    """Write frames of a video of so many frames as images -> a line where these have another size than annotated.

    Raises UserError when the video is missing or damaged.
    """
    sizes = set()
    if wanted:
        for frame, image in video_frames(video, wanted, count, _REMEDY):
            write_image(wanted[frame], image)
            sizes.add(image.shape[1::-1])
    return [
        f"{video.name} is {width} x {height} px, its joints are for {_TRAIN_SIZE[0]} x {_TRAIN_SIZE[1]}"
        for width, height in sizes - {_TRAIN_SIZE}
    ]


def _video(root: Path, name: str, camera: int) -> Path:
    return root / name / "imageSequence" / f"video_{camera}.avi"


@functools.cache
def _count_inside(root: Path, name: str) -> int:
    """How many frames of a training sequence, over its cameras, have all joints inside."""
    joints_2d = read_train(root / name / "annot.mat")[0]
    return sum(int(_inside(joints, np.array([_TRAIN_SIZE])).sum()) for joints in joints_2d)


def read_train(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """2D joints (C,F,28,2) px and 3D joints (C,F,28,3) mm of a training sequence, for each of CAMERAS.

    Raises UserError when the file is missing, damaged or laid out otherwise.
    """
    existing(file, _REMEDY)
    keys = ("annot2", "annot3")
    try:
        content = read_cells(file, keys)
        joints = [np.stack([content[key][camera] for camera in CAMERAS]) for key in keys]
    except Exception as error:  # a damaged file can cause nearly anything
        raise UserError(f"{file} cannot be read ({reason_for(error)}); {_REMEDY}") from error
    count = joints[0].shape[1]
    for key, array, dimensions in zip(keys, joints, (2, 3), strict=True):
        shape = (len(CAMERAS), count, len(HP3D28) * dimensions)
        if array.shape != shape:
            raise UserError(f"{file}: {key} has {array.shape[1:]} per camera where {shape[1:]} is needed; {_REMEDY}")
    return joints[0].reshape(len(CAMERAS), count, -1, 2), joints[1].reshape(len(CAMERAS), count, -1, 3)


def _columns(
    joints_2d: np.ndarray, joints_3d: np.ndarray, names: list[str], skeleton: list[str] = HP3D17
) -> dict[str, np.ndarray]:
    """SPIN's columns of frames with joints (N,J,2) px and (N,J,3) mm of a skeleton."""
    boxes = [box_around(points, _ENLARGE) for points in joints_2d[:, rows(H36M17, skeleton)]]
    pelvis = skeleton.index("Pelvis (MPII)")
    return {
        "imgname": np.array(names, dtype=str),
        "center": np.array([center for center, _ in boxes]).reshape(-1, 2),
        "scale": np.array([scale for _, scale in boxes]),
        "part": spin_joints(joints_2d, skeleton),
        "S": spin_joints((joints_3d - joints_3d[:, pelvis, None]) / 1000, skeleton),
    }


def _inside(joints_2d: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which frames have all of the 17 joints, out of (N,17 or 28,2) px, inside of images of the sizes (N or 1,2)."""
    skeleton = HP3D17 if joints_2d.shape[1] == len(HP3D17) else HP3D28
    points = joints_2d[:, rows(H36M17, skeleton)]
    # a joint that is not a number is damage, not outside, and must not be dropped in silence
    outside = (points < 0) | (points >= sizes[:, None])
    return ~outside.any((1, 2))
