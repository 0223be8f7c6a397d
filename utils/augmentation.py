"""Random changes of a labelled crop for training: image and labels move together."""

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from utils.joints import JOINTS49, SMPL24, SPIN24, flip_permutation

_KEYPOINTS_FLIP, _POSE_FLIP, _JOINTS_FLIP = (flip_permutation(table) for table in (JOINTS49, SMPL24, SPIN24))
_ROTATION = 15.0  # degrees, standard deviation
_SCALE = (0.8, 1.15)
_SHIFT = 0.06  # of the crop, standard deviation
_COLOUR = 0.2  # channels are multiplied by 1 +- this
_ERASED = (0.1, 0.45)  # of the crop, side of the patch that hides a part


def augment(sample: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mirror, turn, scale, shift, tint and partly hide a sample.

    Args:
        sample: `image` (S,S,3) RGB 0-255, `keypoints_2d` (49,3) in [-1,1], `joints_3d` (24,4), `pose` (72,), `betas`

    Returns the same keys; `image` as float32.
    """
    mirrored = _mirror(sample) if rng.random() < 0.5 else sample
    angle = np.radians(np.clip(rng.normal(0, _ROTATION), -2 * _ROTATION, 2 * _ROTATION))
    turn = Rotation.from_rotvec([0, 0, angle])
    matrix = rng.uniform(*_SCALE) * turn.as_matrix()[:2, :2]
    shift = rng.normal(0, 2 * _SHIFT, 2)  # in [-1,1]
    keypoints, joints, pose = (mirrored[name].copy() for name in ("keypoints_2d", "joints_3d", "pose"))
    keypoints[:, :2] = keypoints[:, :2] @ matrix.T + shift
    joints[:, :3] = joints[:, :3] @ turn.as_matrix().T
    pose[:3] = (turn * Rotation.from_rotvec(pose[:3])).as_rotvec()
    image = _hide(_move(mirrored["image"], matrix, shift) * _tint(rng), rng)
    return {**mirrored, "image": image, "keypoints_2d": keypoints, "joints_3d": joints, "pose": pose}


def _mirror(sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    keypoints, joints = sample["keypoints_2d"][_KEYPOINTS_FLIP], sample["joints_3d"][_JOINTS_FLIP]
    keypoints[:, 0] *= -1
    joints[:, 0] *= -1
    pose = sample["pose"].reshape(24, 3)[_POSE_FLIP] * np.float32([1, -1, -1])
    return {
        **sample,
        "image": sample["image"][:, ::-1],
        "keypoints_2d": keypoints,
        "joints_3d": joints,
        "pose": pose.ravel(),
    }


def _move(image: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Apply x -> matrix x + shift, in [-1,1], to the pixels; what comes in from outside repeats the border."""
    size = len(image)
    half, middle = size / 2, (size - 1) / 2
    offset = middle - matrix @ [middle, middle] + half * shift
    affine = np.concatenate([matrix, offset[:, None]], axis=1)
    return cv2.warpAffine(
        np.ascontiguousarray(image, np.float32), affine, (size, size), borderMode=cv2.BORDER_REPLICATE
    )


def _tint(rng: np.random.Generator) -> np.ndarray:
    return (1 + rng.uniform(-_COLOUR, _COLOUR, 3)).astype(np.float32)


def _hide(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put an even patch over a random place of every third image."""
    if rng.random() < 1 / 3:
        size = len(image)
        height, width = (rng.uniform(*_ERASED, 2) * size).astype(int)
        y, x = rng.integers(0, size - height), rng.integers(0, size - width)
        image[y : y + height, x : x + width] = rng.uniform(0, 255, 3)
    return np.clip(image, 0, 255)
