"""MPI-INF-3DHP (Mehta et al., 3DV 2017) as a stream: the six sequences of the test set."""

import logging
from pathlib import Path

import numpy as np

from datasets.base import CroppedFrames
from utils.errors import UserError
from utils.files import load_npz
from utils.joints import BODY25

log = logging.getLogger("boa")

TEST_SEQUENCES = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6")
# the groups of the test set's activity annotation, from 1; 0 is none
ACTIVITIES = (
    *("", "Standing/Walking", "Exercise", "Sitting", "Crouch/Reach"),
    *("On the floor", "Sports", "Miscellaneous"),
)
_KEYS = ("imgname", "center", "scale", "part", "S")


def open_stream(images: Path, annotations: Path, remedy: str) -> tuple[CroppedFrames, list[str]]:
    """Open the converted test set -> its frames, and the sequences of it that have none there.

    The 2D joints are the annotated ones. Raises UserError when the file is missing, damaged or empty.
    """
    raw = load_npz(annotations, _KEYS, remedy, optional=("activity",))
    # the annotation has no OpenPose joints; zeros say that they are not seen
    keypoints = np.concatenate([np.zeros((len(raw["part"]), len(BODY25), 3)), raw["part"]], axis=1)
    sequences = np.array([_sequence(str(name), annotations, remedy) for name in raw["imgname"]], dtype=str)
    columns = {
        "imgname": raw["imgname"],
        "center": raw["center"],
        "scale": raw["scale"],
        "keypoints_2d": keypoints,
        "joints_3d": raw["S"],
        "sequence": sequences,
        "person": np.zeros(len(sequences), np.int64),
    }
    # files of the published code do not say what people do
    if raw.get("activity", np.zeros(1)).any():
        columns["activity"] = np.array(ACTIVITIES)[raw["activity"]]
    missing = [name for name in TEST_SEQUENCES if name not in sequences]
    if missing:
        log.warning("%d of 6 sequences are not in %s: %s", len(missing), annotations, ", ".join(missing))
    return CroppedFrames(images, columns, annotations), missing


def _sequence(name: str, annotations: Path, remedy: str) -> str:
    """TS1 of mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg."""
    parts = Path(name).parts
    if len(parts) < 3:
        raise UserError(f"{annotations}: {name} is no image of MPI-INF-3DHP's test set; {remedy}")
    return parts[-3]
