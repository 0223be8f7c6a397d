"""Exact 2D joints made as wrong as a detector's, to see what adapting to those is worth."""

import numpy as np

from datasets.base import CroppedFrames
from utils.image import BOX_UNIT
from utils.joints import JOINTS49, flip_permutation

MISSING_SHARE = 0.05  # of the joints, whose confidence is then 0
EXCHANGED_SHARE = 0.03  # of the frames have left and right exchanged


def with_noise(frames: CroppedFrames, deviation: float, seed: int) -> CroppedFrames:
    """The same frames with noise on their 2D joints, which is each frame's own, whichever others are gone through.

    Args:
        deviation: of a joint along x and along y, as a fraction of the side of its frame's box
        seed: of the noise, which touches no other random numbers
    """
    keypoints, rng = frames.columns["keypoints_2d"].astype(np.float64), np.random.default_rng([seed, 1])
    exchanged = rng.random(len(keypoints)) < EXCHANGED_SHARE
    noisy = np.where(exchanged[:, None, None], keypoints[:, flip_permutation(JOINTS49)], keypoints)
    sides = BOX_UNIT * np.asarray(frames.columns["scale"], np.float64)
    noisy[..., :2] += deviation * sides[:, None, None] * rng.standard_normal(noisy[..., :2].shape)
    noisy[..., 2] *= rng.random(noisy.shape[:2]) >= MISSING_SHARE
    return frames.replacing("keypoints_2d", noisy.astype(frames.columns["keypoints_2d"].dtype))
