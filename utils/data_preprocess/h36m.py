"""Human3.6M, unpacked -> the labelled source in SPIN's format: every 5th frame of the training subjects."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import cdflib
import cv2
import h5py
import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.files import existing, save_npz, write_atomically
from utils.image import BOX_UNIT
from utils.joints import H36M17, H36M32, SPIN24, rows
from utils.restricted_pickle import load_pickle

log = logging.getLogger("boa")

TRAINING_SUBJECTS = ("S1", "S5", "S6", "S7", "S8")
_CAMERAS = {"54138969": 0, "55011271": 1, "58860488": 2, "60457274": 3}
_EVERY = 5  # frames
_ENLARGE = 0.9  # of the mask's box
_REMEDY = "download and unpack Human3.6M again and set H36M_ROOT in config.py (README, Human3.6M)"
_MOSH_REMEDY = "set H36M_MOSH_ROOT in config.py to the mesh annotation (README, Human3.6M)"
# the published code puts jaw and head into each other's neighbours
_SLIPPED = {"Jaw (H36M)": "Head (H36M)", "Head (H36M)": "Top of Head (LSP)"}


def convert(root: Path, mosh_root: Path, output: Path, paper_compat: bool = False) -> None:
    """Write the frames into <root>/images and the labels into `output`, h36m_train.npz.

    Args:
        root: H36M_ROOT, with S1/MyPoseFeatures, S1/MySegmentsMat, S1/Videos, ...
        mosh_root: H36M_MOSH_ROOT, with S1/<action>_cam0_aligned.pkl, ...
        output: file of the labels
        paper_compat: with the published code's slips: jaw and head in other slots, and a sequence without a mesh
            annotation takes that of the one before

    Raises:
        UserError: no sequence, or a missing or damaged file
    """
    sequences = [
        file
        for subject in TRAINING_SUBJECTS
        for file in sorted((root / subject / "MyPoseFeatures" / "D3_Positions_mono").glob("*.cdf"))
        if not file.name.startswith("_ALL")
    ]
    if not sequences:
        raise UserError(f"{root} holds no <subject>/MyPoseFeatures/D3_Positions_mono/*.cdf; {_REMEDY}")
    parts: list[dict[str, np.ndarray]] = []
    mosh: dict[str, np.ndarray] = {}
    for file in (bar := tqdm(sequences, unit=" sequences")):
        subject = file.parents[2].name
        bar.set_postfix_str(f"{subject} {file.stem}")
        mosh = _read_mosh(mosh_root / subject, file.stem, mosh if paper_compat else {})
        parts.append(_convert_sequence(root, subject, file.stem, mosh, paper_compat))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    save_npz(output, **columns)
    log.info("Human3.6M: %d frames of %d sequences are in %s", len(columns["imgname"]), len(sequences), output)


def _convert_sequence(
    root: Path, subject: str, sequence: str, mosh: Mapping[str, np.ndarray], paper_compat: bool
) -> dict[str, np.ndarray]:
    features = root / subject / "MyPoseFeatures"
    joints_3d = read_cdf(features / "D3_Positions_mono" / f"{sequence}.cdf", 3)[::_EVERY] / 1000
    joints_2d = read_cdf(features / "D2_Positions" / f"{sequence}.cdf", 2)[::_EVERY]
    stem = f"{subject}_{sequence.replace(' ', '_')}"
    names = []
    for index, image in _frames(root / subject / "Videos" / f"{sequence}.mp4", len(joints_3d)):
        names.append(f"images/{stem}_{index * _EVERY + 1:06d}.jpg")
        write_atomically(root / names[-1], lambda path, image=image: _write_image(path, image))
    count = len(names)
    masks = root / subject / "MySegmentsMat" / "ground_truth_bb" / f"{sequence}.mat"
    boxes = _boxes(masks, [index * _EVERY for index in range(count)])
    if len(mosh["new_poses"]) < count:
        raise UserError(
            f"{subject} {sequence}: {len(mosh['new_poses'])} mesh annotations for {count} frames; {_MOSH_REMEDY}"
        )
    centred = joints_3d[:count] - joints_3d[:count, H36M32.index("Pelvis (MPII)"), None]
    return {
        "imgname": np.array(names, dtype=str),
        "center": boxes[:, :2],
        "scale": boxes[:, 2],
        "pose": np.asarray(mosh["new_poses"], np.float64)[:count],
        "shape": np.tile(np.asarray(mosh["betas"], np.float64)[:10], (count, 1)),
        "part": _spin_joints(joints_2d[:count], paper_compat),
        "S": _spin_joints(centred, paper_compat),
    }


def read_cdf(file: Path, dimensions: int) -> np.ndarray:
    """Read the variable Pose of a CDF file -> (F,32,dimensions), mm or px; UserError when it cannot be read."""
    existing(file, _REMEDY)
    try:
        return np.asarray(cdflib.CDF(file).varget("Pose")[0], np.float64).reshape(-1, len(H36M32), dimensions)
    except Exception as error:  # cdflib lets whatever a damaged file causes through
        raise UserError(f"{file} cannot be read ({error}); {_REMEDY}") from error


def _spin_joints(joints: np.ndarray, paper_compat: bool) -> np.ndarray:
    """Human3.6M's 32 joints (F,32,D) -> SPIN's 24 with a confidence (F,24,D+1)."""
    slots = rows([_SLIPPED.get(name, name) if paper_compat else name for name in H36M17], SPIN24)
    result = np.zeros((len(joints), len(SPIN24), joints.shape[2] + 1))
    result[:, slots, :-1] = joints[:, rows(H36M17, H36M32)]
    result[:, slots, -1] = 1
    return result


def _frames(video: Path, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Every 5th frame of a video, at most `count`, with its number among them; each frame is decoded once."""
    capture = cv2.VideoCapture(str(existing(video, _REMEDY)))
    try:
        for index in range(count):
            readable, image = capture.read()
            if not readable:
                if index == 0:
                    raise UserError(f"{video} cannot be decoded; {_REMEDY}")
                return
            yield index, image
            for _ in range(_EVERY - 1):
                capture.grab()
    finally:
        capture.release()


def _write_image(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise OSError("the image could not be written")


def _boxes(file: Path, frames: list[int]) -> np.ndarray:
    """Boxes of a sequence's masks -> (F,3): center x, y in px, scale; each mask is read once."""
    existing(file, _REMEDY)
    try:
        with h5py.File(file) as content:
            references = content["Masks"]
            return np.array([_box(np.asarray(content[references[frame, 0]]).T) for frame in frames]).reshape(-1, 3)
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); {_REMEDY}") from error


def _box(mask: np.ndarray) -> tuple[float, float, float]:
    ys, xs = np.nonzero(mask)
    if len(xs) == 0:
        raise ValueError("a mask without a person")
    x0, x1, y0, y1 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
    return (x0 + x1) / 2, (y0 + y1) / 2, _ENLARGE * max(x1 - x0, y1 - y0) / BOX_UNIT


def _read_mosh(folder: Path, sequence: str, previous: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    action, camera = sequence.rsplit(".", 1)
    if camera not in _CAMERAS:
        raise UserError(f"{sequence}: there is no camera {camera} in Human3.6M; {_REMEDY}")
    file = folder / f"{action}_cam{_CAMERAS[camera]}_aligned.pkl"
    if previous and not file.exists():
        log.warning("%s is missing; as in the published code, the sequence takes the annotation before it", file)
        return previous
    return load_pickle(file, ("new_poses", "betas"), _MOSH_REMEDY)
