"""From the crop's camera to one of the whole image."""

import math

import numpy as np
import torch

from utils.geometry import towards


def focal_length(image_size: tuple[int, int]) -> float:
    """The focal length in px that `translation` is given for: the image's diagonal, as for an unknown camera."""
    return math.hypot(*image_size)


def turns(translation: np.ndarray) -> np.ndarray:
    """By how much bodies at translations (N,3) are turned about their origins before a camera, (N,3,3).

    A crop shows a body as a camera would that looks straight at it.
    """
    return towards(torch.from_numpy(np.asarray(translation, np.float64))).numpy()


def full_camera(cam: np.ndarray, center: np.ndarray, side: float, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The crop's camera in the whole image.

    Args:
        cam: (3,) weak perspective s, tx, ty over the crop
        center: (2,) px and side, px, of the crop
        image_size: height and width, px

    Returns:
        cam_full: (3,) = k, u, v: a point (x,y,z) m of the body is at (k x + u, k y + v) px
        translation: (3,) m, to be added to the body in front of a pinhole camera with `focal_length` and its centre in
            the middle of the image; puts the body's origin at the same pixel. The body is turned by `turns` before
    """
    s, *offset = cam
    k = s * side / 2
    middle = center + k * np.array(offset)
    focal, height, width = focal_length(image_size), *image_size
    depth = focal / k
    x, y = (middle - np.array([width, height]) / 2) * depth / focal
    return {"cam_full": np.array([k, *middle]), "translation": np.array([x, y, depth])}
