"""Human3.6M (Ionescu et al., PAMI 2014) as the labelled source."""

from pathlib import Path

import numpy as np

from datasets.base import CroppedFrames
from utils.files import load_npz
from utils.joints import BODY25

_KEYS = ("imgname", "center", "scale", "part", "S", "pose", "shape")


def open_source(images: Path, annotations: Path, remedy: str) -> CroppedFrames:
    """Read the labelled frames of a file of SPIN's format; UserError when it is missing, damaged or empty."""
    raw = load_npz(annotations, _KEYS, remedy)
    # the source has no OpenPose joints; zeros say that they are not seen
    keypoints = np.concatenate([np.zeros((len(raw["part"]), len(BODY25), 3)), raw["part"]], axis=1)
    columns = {
        "imgname": raw["imgname"],
        "center": raw["center"],
        "scale": raw["scale"],
        "keypoints_2d": keypoints,
        "joints_3d": raw["S"],
        "pose": raw["pose"],
        "betas": raw["shape"],
    }
    return CroppedFrames(images, columns, annotations)
