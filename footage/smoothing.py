"""Smoothing of a recorded clip over time, by what lies before and after each frame: a Gaussian in time."""

import numpy as np
import torch

from models.smpl import SMPL

DEVIATION = 0.07  # s; of the smallest error of the 3D joints on rendered footage (docs/footage.md)
_FARTHEST = 3.0  # deviations, beyond which a frame has no say


def smooth(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Weighted means of values (N,...) at times (N,), s, over their neighbours in time; over gaps there are none."""
    total, weights = values.astype(np.float64), np.ones(len(values))
    for lag in range(1, len(values)):
        apart = times[lag:] - times[:-lag]
        if apart.min() > _FARTHEST * DEVIATION:
            break
        weight = np.exp(-((apart / DEVIATION) ** 2) / 2)
        shares = weight.reshape(-1, *[1] * (values.ndim - 1))
        total[lag:] += shares * values[:-lag]
        total[:-lag] += shares * values[lag:]
        weights[lag:] += weight
        weights[:-lag] += weight
    return total / weights.reshape(-1, *[1] * (values.ndim - 1))


def smooth_rotations(rotmat: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The same for rotations (N,...,3,3): those nearest to the means (Hartley et al., IJCV 2013, section 5.3)."""
    u, _, vt = np.linalg.svd(smooth(rotmat, times))
    u[..., -1] *= np.linalg.det(u @ vt)[..., None]
    return u @ vt


def smooth_joints(rotmat: np.ndarray, betas: np.ndarray, times: np.ndarray, body: SMPL) -> np.ndarray:
    """Joints (N,49,3) m of a clip as it is saved: smoothed rotations (N,24,3,3), and one shape of betas (N,10)."""
    smoothed = torch.as_tensor(smooth_rotations(rotmat, times), dtype=torch.float32)
    shape = torch.as_tensor(betas, dtype=torch.float32).mean(0, keepdim=True)
    return body.from_rotmat(smoothed, shape.expand(len(smoothed), -1)).joints.numpy()
