"""Human3.6M (Ionescu et al., PAMI 2014): the labelled source, and the subjects that are scored."""

import logging
from pathlib import Path

import numpy as np

from datasets.base import CroppedFrames, read_columns, spin_columns
from utils.errors import UserError

log = logging.getLogger("boa")

_KEYS = ("imgname", "center", "scale", "part", "S")
_MESH = ("pose", "shape")


def open_source(images: Path, annotations: Path, remedy: str) -> CroppedFrames:
    """Read the labelled frames of a file of SPIN's format.

    Raises UserError when it is missing, damaged or empty, or was made without the mesh annotation.
    """
    raw, missing = read_columns(annotations, _KEYS, remedy, optional=_MESH)
    lacking = [key for key in _MESH if key not in raw]
    if lacking:
        raise UserError(
            f"{annotations} lacks {' and '.join(lacking)}, as it was made without the mesh annotation; "
            f"set H36M_MOSH_ROOT in config.py, then {remedy}"
        )
    _warn(missing, annotations)
    columns = {**spin_columns(raw), "pose": raw["pose"], "betas": raw["shape"]}
    return CroppedFrames(images, columns, annotations, missing)


def open_stream(images: Path, annotations: Path, remedy: str) -> tuple[CroppedFrames, list[str]]:
    """Read the frames of a protocol, which are scored by their 3D joints -> these, and the sequences that are missing.

    Raises UserError when the file is missing, damaged or empty.
    """
    raw, missing = read_columns(annotations, _KEYS, remedy)
    _warn(missing, annotations)
    sequences = np.array([Path(name).stem.rsplit("_", 1)[0] for name in raw["imgname"].tolist()], dtype=str)
    columns = {**spin_columns(raw), "sequence": sequences, "person": np.zeros(len(sequences), np.int64)}
    return CroppedFrames(images, columns, annotations, missing), missing


def _warn(missing: list[str], annotations: Path) -> None:
    if missing:
        log.warning("%s is without %s, which could not be converted", annotations, ", ".join(missing))
