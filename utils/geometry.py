"""Rotations and the crop's camera. Lengths in metres, angles in radians, B and N any batch and number of points."""

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_LENGTH = 5000.0  # px, of the crop's camera, as in SPIN
CROP_SIZE = 224  # px


def rot6d_to_rotmat(rot6d: Tensor) -> Tensor:
    """6D rotations (..., 6) -> matrices (N,3,3) (Zhou et al., CVPR 2019).

    The six numbers are read row by row as a 3x2 matrix whose columns are the two vectors, as SPIN's weights expect.
    """
    first, second = rot6d.reshape(-1, 3, 2).unbind(-1)
    x = F.normalize(first, dim=-1)
    y = F.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def axis_angle_to_rotmat(axis_angle: Tensor) -> Tensor:
    """Axis-angle vectors (N,3) -> rotation matrices (N,3,3) (Rodrigues' formula, exact and smooth at zero)."""
    angle = torch.sqrt((axis_angle**2).sum(-1, keepdim=True) + 1e-16)[..., None]
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    # 2 sin^2(a/2) instead of 1 - cos(a), which has no digits left for small angles
    return identity + torch.sin(angle) / angle * cross + 2 * (torch.sin(angle / 2) / angle) ** 2 * cross @ cross


def rotmat_to_axis_angle(rotmat: Tensor) -> Tensor:
    """Rotation matrices (N,3,3) -> axis-angle vectors (N,3) with angles up to pi, by way of quaternions.

    The gradient is finite everywhere, at the identity too.
    """
    r = rotmat
    trace = r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2]
    # four times the squares of w, x, y, z; the quaternion is recovered from one that is far from zero
    squares = torch.stack([1 + trace, *(1 + 2 * r[:, i, i] - trace for i in range(3))], dim=-1)
    wx, wy, wz = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    xy, xz, yz = r[:, 0, 1] + r[:, 1, 0], r[:, 2, 0] + r[:, 0, 2], r[:, 1, 2] + r[:, 2, 1]
    w2, x2, y2, z2 = squares.unbind(-1)
    table = torch.stack(
        [
            torch.stack([w2, wx, wy, wz], dim=-1),
            torch.stack([wx, x2, xy, xz], dim=-1),
            torch.stack([wy, xy, y2, yz], dim=-1),
            torch.stack([wz, xz, yz, z2], dim=-1),
        ],
        dim=1,
    )  # (N,4,4), row i = 4 q_i q
    # the choice of SPIN's converter, because the gradient off the rotations depends on it
    upper = torch.where(r[:, 0, 0] > r[:, 1, 1], 1, 2)
    lower = torch.where(r[:, 0, 0] < -r[:, 1, 1], 3, 0)
    choice = torch.where(r[:, 2, 2] < 1e-6, upper, lower)
    row = torch.take_along_dim(table, choice[:, None, None], dim=1)[:, 0]
    square = torch.take_along_dim(squares, choice[:, None], dim=1)
    return _quaternion_to_axis_angle(0.5 * row / torch.sqrt(square))


def _quaternion_to_axis_angle(quaternion: Tensor) -> Tensor:
    """Unit quaternions (N,4), real part first -> axis-angle vectors (N,3)."""
    real, imaginary = quaternion[:, :1], quaternion[:, 1:]
    squared = (imaginary**2).sum(-1, keepdim=True)
    is_turn = squared > 0
    # the root has no gradient at zero, so that neither of the two branches may see a zero there
    sine = torch.sqrt(torch.where(is_turn, squared, 1))
    sign = torch.where(real < 0, -1.0, 1.0)
    half_angle = torch.atan2(sign * sine, sign * real)
    return imaginary * torch.where(is_turn, 2 * half_angle / sine, 2)


def camera_translation(cam: Tensor) -> Tensor:
    """Weak perspective (B,3) = s, tx, ty over the crop -> translation (B,3) in metres of the crop's pinhole camera."""
    s, tx, ty = cam.unbind(-1)
    return torch.stack([tx, ty, 2 * FOCAL_LENGTH / (CROP_SIZE * s + 1e-9)], dim=-1)


def towards(direction: Tensor) -> Tensor:
    """Directions (B,3) before a camera, of any length -> the smallest rotations (B,3,3) from its axis z to them.

    A crop shows a person as a camera would that looks straight at them, so that this turns what is seen in it into the
    axes of the whole image's camera (CLIFF, Li et al., ECCV 2022, section 3.1).
    """
    x, y, z = F.normalize(direction, dim=-1).unbind(-1)
    rows = [1 - x * x / (1 + z), -x * y / (1 + z), x, -x * y / (1 + z), 1 - y * y / (1 + z), y, -x, -y, z]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def perspective(points: Tensor, focal_length: Tensor | float, center: Tensor | float) -> Tensor:
    """Project points (B,N,3) in camera coordinates, metres -> (B,N,2) px; focal length and center in px."""
    return points[..., :2] / points[..., 2:] * focal_length + center


def project(points: Tensor, cam: Tensor) -> Tensor:
    """Project points (B,N,3), metres, with the weak perspective cam (B,3) onto the crop -> (B,N,2) in [-1,1]."""
    in_camera = points + camera_translation(cam)[:, None]
    return perspective(in_camera, FOCAL_LENGTH, 0.0) / (CROP_SIZE / 2)
