"""The free body in data/demo, and what several tests hold its renderings against."""

import functools

import numpy as np
import torch
from places import DEMO

from models.smpl import SMPL, load_bodies


@functools.cache
def bodies() -> dict[str, SMPL]:
    """The free bodies as the network's side of the program has them."""
    return load_bodies(DEMO / "smpl", DEMO / "spin_data/J_regressor_extra.npy")


def joints_of(gender: str, pose: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """The 49 joints (49,3) of a body in a pose (24,3) or (72,)."""
    pose, betas = (torch.tensor(np.asarray(values, np.float32).reshape(1, -1)) for values in (pose, betas))
    return bodies()[gender].from_axis_angle(pose, betas).joints[0].numpy()


def perspective_residual(joints: np.ndarray, keypoints: np.ndarray) -> float:
    """Largest distance of 2D keypoints (N,2) from the pinhole image of joints (N,3) under the best camera position.

    u = a (x + tx) / (z + tz) + bx is linear in a, tz, bx and a tx + bx tz once it is multiplied out; v likewise.
    """
    (x, y, z), (u, v) = joints.astype(float).T, keypoints.astype(float).T
    one, zero = np.ones_like(z), np.zeros_like(z)
    rows = np.concatenate([np.stack([x, -u, z, one, zero, zero], 1), np.stack([y, -v, zero, zero, z, one], 1)])
    a, tz, bx, cx, by, cy = np.linalg.lstsq(rows, np.concatenate([u * z, v * z]), rcond=None)[0]
    seen = np.stack([a * x + bx * z + cx, a * y + by * z + cy], axis=1) / (z + tz)[:, None]
    return float(np.linalg.norm(seen - keypoints, axis=1).max())
