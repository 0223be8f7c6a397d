"""Errors between points in metres -> millimetres. N samples, J points; pure numpy."""

import numpy as np

MM = 1000.0
PCK_THRESHOLD = 150.0  # mm
_AUC_THRESHOLDS = np.linspace(0, PCK_THRESHOLD, 31)  # mm


def point_error(predicted: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Distance of each point (N,J,3) metres -> (N,J) mm."""
    return MM * np.linalg.norm(predicted - given, axis=-1)


def procrustes_align(predicted: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Move predicted (N,J,3) onto given (N,J,3) by the best rotation, scale and translation (never a reflection)."""
    centre, target = predicted.mean(1, keepdims=True), given.mean(1, keepdims=True)
    away, wanted = predicted - centre, given - target
    u, singular, vt = np.linalg.svd(np.swapaxes(away, 1, 2) @ wanted)
    signs = np.ones_like(singular)
    signs[:, -1] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * signs[:, None]) @ vt
    scale = (singular * signs).sum(1) / (away**2).sum((1, 2))
    return scale[:, None, None] * away @ rotation + target


def pck(error: np.ndarray) -> np.ndarray:
    """Share of points within 150 mm, of errors (N,J) mm -> (N,)."""
    return (error < PCK_THRESHOLD).mean(1)


def auc(error: np.ndarray) -> np.ndarray:
    """Mean over 31 thresholds from 0 to 150 mm of the share of points within, of errors (N,J) mm -> (N,)."""
    return (error[:, None] < _AUC_THRESHOLDS[:, None]).mean((1, 2))


def acceleration_error(predicted: np.ndarray, given: np.ndarray) -> float:
    """Mean distance of the accelerations of three consecutive frames (3,J,3) metres -> mm per frame squared."""
    first, second, third = predicted - given
    return float(MM * np.linalg.norm(first - 2 * second + third, axis=-1).mean())
