"""Real people with 3D truth (Pose2Sim's demo) as a stream: the views of its cameras, one after the other."""

from pathlib import Path
from typing import Any

import numpy as np

from datasets.base import CroppedFrames, read_columns
from utils.image import BOX_UNIT, Crop

_KEYS = ("imgname", "center", "scale", "keypoints", "S", "ray")


def open_stream(images: Path, annotations: Path, remedy: str) -> tuple[CroppedFrames, list[str]]:
    """Open the converted recording -> its frames, a sequence for each camera, and what is missing.

    Raises UserError when the file is missing, damaged or empty.
    """
    raw, missing = read_columns(annotations, _KEYS, remedy)
    sequences = np.array([Path(str(name)).parent.name for name in raw["imgname"]], dtype=str)
    columns = {
        "imgname": raw["imgname"],
        "center": raw["center"],
        "scale": raw["scale"],
        "keypoints_2d": raw["keypoints"],
        "joints_3d": raw["S"],
        "ray": raw["ray"],
        "sequence": sequences,
        "person": np.zeros(len(sequences), np.int64),
    }
    return DetectedFrames(images, columns, annotations, missing), missing


class DetectedFrames(CroppedFrames):
    """Frames whose 2D joints are a detector's: as in footage, they are not brought to whole pixels of the crop.

    A frame has, too, `keypoints_px` (49,3) in the image, and `center` (2,) px and `scale` of what was cut out.
    """

    def labels(self, index: int) -> dict[str, Any]:
        """As of CroppedFrames, with what is told above."""
        keypoints, center, scale = (self.columns[name][index] for name in ("keypoints_2d", "center", "scale"))
        crop = Crop(center, scale)
        low, high = crop.corners
        return {
            **super().labels(index),
            "keypoints_2d": crop.exact_points(keypoints),
            "keypoints_px": keypoints.astype(np.float32),
            "center": (low + high) / 2,
            "scale": (high - low).mean() / BOX_UNIT,
        }
