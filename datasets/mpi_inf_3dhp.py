"""MPI-INF-3DHP (Mehta et al., 3DV 2017) as a stream: the six sequences of the test set."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datasets.base import CroppedFrames, read_columns, spin_columns
from utils.errors import UserError
from utils.files import read_record
from utils.hp3d import ACTIVITIES, TEST_SEQUENCES
from utils.joints import SPIN24, rows

log = logging.getLogger("boa")

_KEYS = ("imgname", "center", "scale", "part", "S")
# the data set has its 3D joints twice: people in their true sizes, as files of the released BOA and process_data.py's
# have them, and all scaled to one length from knee to neck, as SPIN's file has them; neither says which it holds
_TRUE, _UNIVERSAL = "annot3", "univ_annot3"
_BONES = (("Left Hip", "Left Knee"), ("Pelvis (MPII)", "Spine (H36M)"), ("Spine (H36M)", "Neck (LSP)"))
_SAME, _DIFFERENT = 0.01, 0.05  # spread of sizes, as share of their mean, up to which they are the same; from which not
_ENOUGH = 4  # people, to tell by


def open_stream(images: Path, annotations: Path, remedy: str) -> tuple[CroppedFrames, list[str]]:
    """Open the converted test set -> its frames, and the sequences of it that have none there.

    The 2D joints are the annotated ones; `annotation` of the frames says which of the set's 3D joints the file holds.
    Raises UserError when the file is missing, damaged or empty.
    """
    raw, missing = read_columns(annotations, _KEYS, remedy, optional=("activity",))
    sequences = np.array([_sequence(name, annotations, remedy) for name in raw["imgname"].tolist()], dtype=str)
    columns = {**spin_columns(raw), "sequence": sequences, "person": np.zeros(len(sequences), np.int64)}
    # files of the published code do not say what people do
    if raw.get("activity", np.zeros(1)).any():
        columns["activity"] = _activities(raw["activity"], annotations, remedy)
    missing = sorted({*missing, *TEST_SEQUENCES} - {*sequences.tolist()})
    if missing:
        log.warning("%d of 6 sequences are not in %s: %s", len(missing), annotations, ", ".join(missing))
    annotation = _annotation(annotations, raw, sequences)
    log.info("the 3D joints of %s are %s", annotations, annotation)
    return CroppedFrames(images, columns, annotations, missing, annotation), missing


def _sequence(name: str, annotations: Path, remedy: str) -> str:
    """TS1 of mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg."""
    parts = Path(name).parts
    if len(parts) < 3:
        raise UserError(f"{annotations}: {name} is no image of MPI-INF-3DHP's test set; {remedy}")
    return parts[-3]


def _activities(numbers: np.ndarray, annotations: Path, remedy: str) -> np.ndarray:
    if not np.isin(numbers, range(len(ACTIVITIES))).all():
        raise UserError(f"{annotations}: activity has values other than 0 to {len(ACTIVITIES) - 1}; {remedy}")
    return np.array(ACTIVITIES)[numbers]


def _annotation(file: Path, raw: Mapping[str, np.ndarray], sequences: np.ndarray) -> str:
    """Which 3D joints a file holds, by who wrote it, else by whether people of several sequences differ in size."""
    if "activity" in raw or "sequences" in (read_record(file) or {}):  # only process_data.py writes these
        return _TRUE
    sizes = [_size(raw["S"][sequences == name, :, :3]) for name in dict.fromkeys(sequences.tolist())]
    with np.errstate(all="ignore"):  # numbers that are no sizes are found later
        spread = np.ptp(sizes) / np.mean(sizes)
    if len(sizes) >= _ENOUGH and spread < _SAME:
        return f"{_UNIVERSAL} (everybody has the same size)"
    if len(sizes) >= _ENOUGH and spread > _DIFFERENT:
        return f"{_TRUE} (people differ in size)"
    return f"{_UNIVERSAL} (presumably, as SPIN's file; it was not written by process_data.py)"


def _size(joints: np.ndarray) -> float:
    """Length from knee to neck along the bones, m, the median over the frames of joints (N,24,3) m."""
    first, second = (rows(ends, SPIN24) for ends in zip(*_BONES, strict=True))
    return float(np.median(np.linalg.norm(joints[:, first] - joints[:, second], axis=2).sum(1)))
