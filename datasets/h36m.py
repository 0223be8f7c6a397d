"""Human3.6M (Ionescu et al., PAMI 2014): the labelled source, and the subjects that are scored."""

from pathlib import Path

import numpy as np

from datasets.base import CroppedFrames
from utils.errors import UserError
from utils.files import load_npz
from utils.joints import BODY25

_KEYS = ("imgname", "center", "scale", "part", "S")
_MESH = ("pose", "shape")


def open_source(images: Path, annotations: Path, remedy: str) -> CroppedFrames:
    """Read the labelled frames of a file of SPIN's format.

    Raises UserError when it is missing, damaged or empty, or was made without the mesh annotation.
    """
    raw = load_npz(annotations, _KEYS, remedy, optional=_MESH)
    lacking = [key for key in _MESH if key not in raw]
    if lacking:
        raise UserError(
            f"{annotations} lacks {' and '.join(lacking)}, for it was made without the mesh annotation; "
            f"set H36M_MOSH_ROOT in config.py, then {remedy}"
        )
    return CroppedFrames(images, {**_columns(raw), "pose": raw["pose"], "betas": raw["shape"]}, annotations)


def open_stream(images: Path, annotations: Path, remedy: str) -> tuple[CroppedFrames, list[str]]:
    """Read the frames of a protocol, which are scored by their 3D joints; UserError as of `open_source`."""
    raw = load_npz(annotations, _KEYS, remedy)
    sequences = np.array([Path(str(name)).stem.rsplit("_", 1)[0] for name in raw["imgname"]], dtype=str)
    columns = {**_columns(raw), "sequence": sequences, "person": np.zeros(len(sequences), np.int64)}
    return CroppedFrames(images, columns, annotations), []


def _columns(raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    # the annotation has no OpenPose joints; zeros say that they are not seen
    keypoints = np.concatenate([np.zeros((len(raw["part"]), len(BODY25), 3)), raw["part"]], axis=1)
    return {
        "imgname": raw["imgname"],
        "center": raw["center"],
        "scale": raw["scale"],
        "keypoints_2d": keypoints,
        "joints_3d": raw["S"],
    }
