"""Human3.6M (Ionescu et al., PAMI 2014) -> npz of SPIN's format (Kolotouros et al., ICCV 2019): every 5th frame.

The training subjects are the labelled source, with the mesh annotation where the user has it; the others are what is
scored. Frames are written as images beside the videos.
"""

import functools
import logging
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from utils.data_preprocess import raw_files
from utils.data_preprocess.conversion import (
    Converted,
    Settings,
    Task,
    check_finite,
    contact_sheet,
    convert_all,
    join,
    missing_files,
    sampled,
    spin_joints,
    video_frames,
    video_length,
    write_image,
)
from utils.errors import UserError, reason_for
from utils.files import existing, load_npz, save_npz, save_text
from utils.image import BOX_UNIT
from utils.joints import H36M17, H36M32, SPIN, SPIN24, rows
from utils.restricted_pickle import load_pickle, numbers
from utils.structures import Body

log = logging.getLogger("boa")

SUBJECTS = {"train": ("S1", "S5", "S6", "S7", "S8"), "valid": ("S9", "S11")}
FRONTAL = "60457274"  # the only camera of protocol 2
_CAMERAS = {"54138969": 0, "55011271": 1, "58860488": 2, FRONTAL: 3}
_EVERY = 5  # frames
_ENLARGE = 0.9  # of the mask's box
_BETAS = 10
_SIZE_TOLERANCE = 0.05  # share of their sides by which videos and masks may differ
_TURN = np.diag([1.0, -1.0, -1.0])  # half a turn about the camera's x axis
_CLEARLY = 0.5  # share of the distance that the turned body must fall below to be taken for upside-down
_REMEDY = "download and unpack Human3.6M again and set H36M_ROOT in config.py (docs/datasets.md, Human3.6M)"
_MOSH_REMEDY = "set H36M_MOSH_ROOT in config.py to the mesh annotation (docs/datasets.md, Human3.6M)"
_MOSH_KEYS = ("new_poses", "betas")
# the published code puts jaw and head into each other's neighbours
_SLIPPED = {"Jaw (H36M)": "Head (H36M)", "Head (H36M)": "Top of Head (LSP)"}


class Sequence36(NamedTuple):
    """One action of one subject as one camera saw it: its files."""

    root: Path
    subject: str
    name: str  # Walking.54138969

    @property
    def title(self) -> str:
        return f"{self.subject} {self.name}"

    @property
    def stem(self) -> str:
        """What its part, its images and its scores are called."""
        return f"{self.subject}_{self.name.replace(' ', '_')}"

    @property
    def camera(self) -> str:
        return self.name.rsplit(".", 1)[-1]

    @property
    def joints_3d(self) -> Path:
        return self.root / self.subject / "MyPoseFeatures" / "D3_Positions_mono" / f"{self.name}.cdf"

    @property
    def joints_2d(self) -> Path:
        return self.root / self.subject / "MyPoseFeatures" / "D2_Positions" / f"{self.name}.cdf"

    @property
    def masks(self) -> Path:
        return self.root / self.subject / "MySegmentsMat" / "ground_truth_bb" / f"{self.name}.mat"

    @property
    def video(self) -> Path:
        return self.root / self.subject / "Videos" / f"{self.name}.mp4"

    def mosh(self, mosh_root: Path) -> Path:
        """The mesh annotation; the one that was turned, where there is one. UserError for an unknown camera."""
        action, camera = self.name.rsplit(".", 1)
        if camera not in _CAMERAS:
            raise UserError(f"{self.title}: there is no camera {camera} in Human3.6M; {_REMEDY}")
        file = mosh_root / self.subject / f"{action}_cam{_CAMERAS[camera]}_aligned.pkl"
        turned = _turned_name(file)
        return turned if turned.exists() else file


def convert(
    root: Path,
    mosh_root: Path,
    output: Path,
    paper_compat: bool = False,
    body: Body | None = None,
    settings: Settings = Settings(),
    rectify: bool = False,
) -> list[str]:
    """Write the frames of the training subjects into <root>/images and the labels into `output`, h36m_train.npz.

    Without any mesh annotation the file has no `pose` and `shape`; a sequence without its own is left out. Returns the
    names of the sequences that could not be converted.

    Args:
        root: H36M_ROOT, with S1/MyPoseFeatures, S1/MySegmentsMat, S1/Videos, ...
        mosh_root: H36M_MOSH_ROOT, with S1/<action>_cam0_aligned.pkl, ...
        output: file of the labels
        paper_compat: with the published code's slips: jaw and head in other slots, and a sequence without a mesh
            annotation takes that of the one before
        body: the neutral body with 49 joints, which the mesh annotation is checked with; None: it is not checked
        rectify: write a turned copy of each annotation that is upside-down

    Raises:
        UserError: no sequence that can be converted, or, if strict, one that cannot
    """
    sequences = find_sequences(root, "train")
    mosh_files: dict[str, Path | None] = dict.fromkeys([sequence.title for sequence in sequences])
    if mosh_root.exists():
        mosh_files = _mosh_files(sequences, mosh_root, paper_compat)
        if body is not None and not paper_compat and not settings.dry_run:
            check_mosh(sequences, mosh_root, body, rectify)
            mosh_files = _mosh_files(sequences, mosh_root, paper_compat)
    else:
        log.warning("%s is missing: joints and boxes are written, pose and shape are not; %s", mosh_root, _MOSH_REMEDY)
    tasks = [_task(sequence, output, mosh_files[sequence.title], paper_compat) for sequence in sequences]
    recorded = {"paper_compat": paper_compat, "mosh": mosh_root.exists()}
    return _convert(tasks, sequences, "Human3.6M train", root, output, settings._replace(recorded=recorded))


def convert_valid(root: Path, protocols: Mapping[int, Path], settings: Settings = Settings()) -> list[str]:
    """Write the frames of S9 and S11: protocol 1 all cameras, protocol 2 the frontal one. Arguments as of `convert`.

    Args:
        protocols: the file of each protocol

    Returns the names of the sequences that could not be converted, and of a subject that is not there.
    """
    sequences = find_sequences(root, "valid")
    subjects = {sequence.subject for sequence in sequences}
    absent = [subject for subject in SUBJECTS["valid"] if subject not in subjects]
    if absent:
        log.warning("%s is not in %s, and will be missing from the scores", ", ".join(absent), root)
    tasks = [_task(sequence, protocols[1], None, False) for sequence in sequences]
    missing = _convert(tasks, sequences, "Human3.6M valid", root, protocols[1], settings, absent)
    frontal = [sequence for sequence in sequences if sequence.camera == FRONTAL]
    parts = [
        task.part for task in tasks if task.name in {sequence.title for sequence in frontal} and task.part.exists()
    ]
    if parts and not settings.dry_run:
        lacking = [name for name in missing if name in {*absent, *(sequence.stem for sequence in frontal)}]
        join(parts, protocols[2], {}, lacking)
        log.info("Human3.6M, protocol 2 is in %s", protocols[2])
    return missing


def find_sequences(root: Path, split: str) -> list[Sequence36]:
    """The sequences of the subjects of a split that are there; UserError when there is none."""
    sequences = [
        Sequence36(root, subject, file.stem)
        for subject in SUBJECTS[split]
        for file in sorted((root / subject / "MyPoseFeatures" / "D3_Positions_mono").glob("*.cdf"))
        if not file.name.startswith("_ALL")
    ]
    if not sequences:
        where = f"{root} holds no <subject>/MyPoseFeatures/D3_Positions_mono/*.cdf of {', '.join(SUBJECTS[split])}"
        raise UserError(f"{where}; {_REMEDY}")
    return sequences


def _mosh_files(sequences: Sequence[Sequence36], mosh_root: Path, paper_compat: bool) -> dict[str, Path | None]:
    """Sequence -> its annotation; as published, a sequence without one takes that of the one before."""
    files: dict[str, Path | None] = {}
    before = None
    for sequence in sequences:
        file = sequence.mosh(mosh_root)
        if paper_compat and before and not file.exists():
            log.warning("%s is missing; as in the published code, the sequence takes the annotation before it", file)
            file = before
        files[sequence.title] = before = file
    return files


def _task(sequence: Sequence36, output: Path, mosh_file: Path | None, paper_compat: bool) -> Task:
    part = output.parent / "parts" / output.stem / f"{sequence.stem}.npz"
    needed = [sequence.joints_3d, sequence.joints_2d, sequence.masks, sequence.video]
    check = functools.partial(missing_files, *needed, *([mosh_file] if mosh_file else []))
    return Task(sequence.title, part, functools.partial(_convert_sequence, sequence, mosh_file, paper_compat), check)


def _convert(
    tasks: list[Task],
    sequences: list[Sequence36],
    title: str,
    root: Path,
    output: Path,
    settings: Settings,
    absent: Sequence[str] = (),
) -> list[str]:
    """`convert_all`, with a contact sheet for each subject."""
    missing = convert_all(tasks, title, root, settings._replace(preview=False), output, absent=absent)
    if settings.preview and not settings.dry_run:
        for subject in dict.fromkeys(sequence.subject for sequence in sequences):
            parts = [task.part for task in tasks if task.part.exists() and task.part.name.startswith(f"{subject}_")]
            contact_sheet(output.with_name(f"{output.stem}_{subject}.png"), root, sampled(parts, "part"))
    return missing


def _convert_sequence(sequence: Sequence36, mosh_file: Path | None, paper_compat: bool) -> Converted:
    joints_3d = read_cdf(sequence.joints_3d, 3)
    joints_2d = read_cdf(sequence.joints_2d, 2)
    total = len(joints_3d)
    if len(joints_2d) != total:
        raise UserError(f"{sequence.joints_2d} has {len(joints_2d)} frames, the 3D joints {total}; {_REMEDY}")
    if paper_compat:  # the published code goes no further than the video
        total = min(total, video_length(sequence.video, _REMEDY))
    frames = np.arange(0, total, _EVERY)
    joints_3d, joints_2d = joints_3d[frames] / 1000, joints_2d[frames]
    names = [f"images/{sequence.stem}_{frame + 1:06d}.jpg" for frame in frames]
    boxes, size = read_boxes(sequence.masks, frames.tolist())
    centred = joints_3d - joints_3d[:, H36M32.index("Pelvis (MPII)"), None]
    columns = {
        "imgname": np.array(names, dtype=str),
        "center": boxes[:, :2],
        "scale": boxes[:, 2],
        "part": _spin_joints(joints_2d, paper_compat),
        "S": _spin_joints(centred, paper_compat),
    }
    if mosh_file:
        poses, betas = read_mosh(mosh_file)
        if len(poses) < len(frames):
            raise UserError(f"{mosh_file}: {len(poses)} mesh annotations for {len(frames)} frames; {_MOSH_REMEDY}")
        columns |= {"pose": poses[: len(frames)], "shape": np.tile(betas, (len(frames), 1))}
    check_finite(columns, sequence.joints_3d, _REMEDY)
    # last, because it is what takes long
    sizes = set()
    for frame, image in video_frames(sequence.video, frames.tolist(), int(frames[-1]) + 1, _REMEDY):
        write_image(sequence.root / names[frame // _EVERY], image)
        sizes.add(image.shape[1::-1])
    for found in sizes:
        _check_size(sequence.video, found, size)
    return Converted(columns, {"between those that are taken": total - len(frames)})


def _check_size(video: Path, size: tuple[int, int], masks: tuple[int, int]) -> None:
    """UserError when frames (width, height) are no masks' size, which may differ by a few px."""
    if any(abs(found - wanted) > _SIZE_TOLERANCE * wanted for found, wanted in zip(size, masks, strict=True)):
        found, wanted = (f"{width} x {height}" for width, height in (size, masks))
        raise UserError(f"{video} is {found} px, its annotation for {wanted}; {_REMEDY}")


def read_cdf(file: Path, dimensions: int) -> np.ndarray:
    """Read the variable Pose of a CDF file -> (F,32,dimensions), mm or px; UserError when it cannot be read."""
    existing(file, _REMEDY)
    try:
        poses = raw_files.read_cdf(file, "Pose")
    except Exception as error:  # cdflib lets whatever a damaged file causes through
        raise UserError(f"{file} cannot be read ({reason_for(error)}); {_REMEDY}") from error
    wanted = len(H36M32) * dimensions
    if poses.ndim != 3 or poses.shape[0] != 1 or poses.shape[2] != wanted or poses.shape[1] == 0:
        raise UserError(f"{file}: Pose has shape {poses.shape} where (1, frames, {wanted}) is needed; {_REMEDY}")
    return poses.reshape(-1, len(H36M32), dimensions)


def _spin_joints(joints: np.ndarray, paper_compat: bool) -> np.ndarray:
    """Human3.6M's 32 joints (F,32,D) -> SPIN's 24 with a confidence (F,24,D+1)."""
    result = spin_joints(joints, H36M32)
    if not paper_compat:
        return result
    slipped = np.zeros_like(result)
    published = rows([_SLIPPED.get(name, name) for name in H36M17], SPIN24)
    slipped[:, published] = result[:, rows(H36M17, SPIN24)]
    return slipped


def read_boxes(file: Path, frames: Sequence[int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Boxes of a sequence's masks -> (F,3): center x, y in px, scale; and width and height of the masks.

    Each mask is read once. Raises UserError when the file is missing or damaged.
    """
    existing(file, _REMEDY)
    try:
        with h5py.File(file) as content:
            references = content["Masks"]
            sizes, boxes = [], []
            for frame in frames:
                mask = raw_files.hdf5_array(content, references[frame, 0])
                sizes.append(mask.shape)
                boxes.append(_box(mask.T))
            if len(set(sizes)) != 1:
                raise ValueError(f"masks of {len(set(sizes))} sizes")
            return np.array(boxes).reshape(-1, 3), sizes[0]
    except Exception as error:  # h5py lets whatever a damaged file causes through
        raise UserError(f"{file} cannot be read ({reason_for(error)}); {_REMEDY}") from error


def _box(mask: np.ndarray) -> tuple[float, float, float]:
    ys, xs = np.nonzero(mask)
    if len(xs) == 0:
        raise ValueError("a mask without a person")
    x0, x1, y0, y1 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
    return (x0 + x1) / 2, (y0 + y1) / 2, _ENLARGE * max(x1 - x0, y1 - y0) / BOX_UNIT


# the mesh annotation


def read_mosh(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Poses (F,72) axis-angle and betas (10,) of an annotation, as it came or turned; UserError when it is damaged."""
    reader = load_npz if file.suffix == ".npz" else load_pickle
    raw = reader(file, _MOSH_KEYS, _MOSH_REMEDY)
    poses, betas = (raw[key] for key in _MOSH_KEYS)
    try:
        poses = numbers(poses, (None, 72))
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: new_poses {reason_for(error)}; {_MOSH_REMEDY}") from error
    try:
        betas = numbers(betas, betas.shape if isinstance(betas, np.ndarray) else (None,)).ravel()
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: betas {reason_for(error)}; {_MOSH_REMEDY}") from error
    if len(betas) < _BETAS:
        raise UserError(f"{file}: betas has shape {betas.shape} where ({_BETAS},) is needed; {_MOSH_REMEDY}")
    return poses, betas[:_BETAS]


def check_mosh(sequences: Sequence[Sequence36], mosh_root: Path, body: Body, rectify: bool) -> None:
    """Compare every mesh annotation with the annotated 2D joints, and log the mean distance in px of each.

    A body that fits far better after half a turn about the camera's x axis is upside-down. With `rectify` a turned copy
    is written beside its annotation, which is taken from then on; without, that is an error at the end.

    Args:
        body: the neutral body with 49 joints

    Raises UserError when an annotation is upside-down and shall not be turned.
    """
    upside_down = []
    for sequence in tqdm(sequences, desc="mesh annotation", unit=" sequences"):
        file = sequence.mosh(mosh_root)
        try:
            poses, betas = read_mosh(file)
            given = spin_joints(read_cdf(sequence.joints_2d, 2)[::_EVERY], H36M32)[: len(poses)]
        except UserError:
            continue  # the conversion names it, and goes on with the others
        joints = _mosh_joints(body, poses[: len(given)], betas)
        as_is, turned = (projected_distance(points, given) for points in (joints, joints @ _TURN))
        log.info("%s: %.1f px between mesh annotation and 2D joints", sequence.title, as_is)
        if turned < _CLEARLY * as_is:
            upside_down.append(sequence.title)
            if rectify:
                turned_poses = poses.copy()
                root = Rotation.from_matrix(_TURN) * Rotation.from_rotvec(poses[:, :3])
                turned_poses[:, :3] = root.as_rotvec()
                save_npz(_turned_name(file), new_poses=turned_poses, betas=betas)
                log.info("%s: upside-down, turned in %s (%.1f px)", sequence.title, _turned_name(file), turned)
    if upside_down and not rectify:
        raise UserError(
            f"{len(upside_down)} mesh annotations are upside-down: {', '.join(upside_down)}; add --rectify to turn them"
        )


def _turned_name(file: Path) -> Path:
    return file.with_name(f"{file.stem}_rectified.npz")


@torch.no_grad()
def _mosh_joints(body: Body, poses: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """SPIN joints (F,24,3) m of an annotation."""
    pose = torch.as_tensor(poses, dtype=torch.float32)
    shape = torch.as_tensor(betas, dtype=torch.float32).expand(len(pose), -1)
    return body.from_axis_angle(pose, shape).joints[:, SPIN].numpy().astype(np.float64)


def projected_distance(joints: np.ndarray, given: np.ndarray) -> float:
    """Mean distance in px of joints (F,24,3), m, from given ones (F,24,3), px and confidence.

    Scale, above zero, and translation in the image are fitted to each frame by least squares: the annotation has no
    place in the world.
    """
    seen = given[0, :, 2] > 0
    points, targets = joints[:, seen, :2], given[:, seen, :2]
    points = points - points.mean(axis=1, keepdims=True)
    targets = targets - targets.mean(axis=1, keepdims=True)
    scale = (points * targets).sum(axis=(1, 2)) / np.maximum((points**2).sum(axis=(1, 2)), 1e-12)
    fitted = np.clip(scale, 0, None)[:, None, None] * points
    return float(np.linalg.norm(fitted - targets, axis=2).mean())


# the archives


def unpack(root: Path) -> None:
    """Unpack the archives of the download, <root>/*.tgz and <root>/archives/*.tgz, into root; skips what is there.

    Raises UserError when there is none, or one is damaged or would write outside of root.
    """
    archives = sorted([*root.glob("*.tgz"), *root.glob("archives/*.tgz")])
    if not archives:
        raise UserError(f"{root} holds no .tgz file; put the archives of Human3.6M there (docs/datasets.md, Human3.6M)")
    for archive in (bar := tqdm(archives, unit=" archives")):
        bar.set_postfix_str(archive.name)
        marker = root / ".unpacked" / archive.name
        if marker.exists():
            continue
        try:
            # as a stream, for which nothing is reserved that the archive only announces
            with tarfile.open(archive, "r|gz") as content:
                for member in content:
                    _unpack_member(content, member, root)
        except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
            raise UserError(f"{archive} cannot be unpacked ({reason_for(error)}); download it again") from error
        save_text(marker, "")
    log.info("Human3.6M: %d archives are unpacked in %s", len(archives), root)


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    """Write a file or folder of an archive, unless it is there; ValueError for anything else.

    The archives of the data set have no links, and a link could lead outside.
    """
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        raise ValueError(f"{member.name} is neither a file nor a folder")
    place = root / member.name
    if not (member.isfile() and place.is_file() and place.stat().st_size == member.size):
        archive.extract(member, root, filter="data")
