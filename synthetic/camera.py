"""A pinhole camera in the world: metres, y up, the ground at y = 0. Camera frame: x right, y down, z forward."""

from dataclasses import dataclass

import numpy as np

FRAME_SIZE = (384, 512)  # px, height and width of the frames of a stream


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: rotation (3,3) from world to camera, position (3,) m, focal length px, height and width px.

    `centre` (2,) px is where its axis meets the image; None: in the middle.
    """

    rotation: np.ndarray
    position: np.ndarray
    focal: float
    size: tuple[int, int]
    centre: np.ndarray | None = None

    @property
    def principal_point(self) -> np.ndarray:
        """(2,) px."""
        return np.array(self.size[::-1]) / 2 if self.centre is None else self.centre

    def cropped(self, middle: np.ndarray, side: float, size: int) -> "Camera":
        """The camera of a square cut out around `middle` (2,), `side` px wide, and brought to `size` px."""
        zoom = size / side
        centre = (self.principal_point - middle) * zoom + size / 2
        return Camera(self.rotation, self.position, self.focal * zoom, (size, size), centre)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (N,3) -> camera coordinates (N,3)."""
        return (points - self.position) @ self.rotation.T

    def project(self, in_camera: np.ndarray) -> np.ndarray:
        """Camera coordinates (N,3) -> (N,2) px, the centre of the first pixel at (0.5, 0.5)."""
        return in_camera[:, :2] / in_camera[:, 2:] * self.focal + self.principal_point

    def rays(self) -> np.ndarray:
        """World directions (3,H,W) float32 through the centres of the pixels, not normalised."""
        height, width = self.size
        middle_x, middle_y = self.principal_point.tolist()
        x = (np.arange(width, dtype=np.float32) + 0.5 - middle_x) / self.focal
        y = (np.arange(height, dtype=np.float32) + 0.5 - middle_y) / self.focal
        right, down, forward = self.rotation.astype(np.float32)[:, :, None, None]
        return right * x[None, None, :] + down * y[None, :, None] + forward


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """Rotation (3,3) from world to a camera at `position` that looks at `target`, rolled by an angle in radians."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    level = np.stack([right, np.cross(forward, right), forward])
    cosine, sine = np.cos(roll), np.sin(roll)
    return np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]]) @ level


def visible_part(camera: Camera, in_camera: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """Rows and columns of the image that points (N,3), m in the camera's frame, cover, and the points (N,2) px in it.

    None when they are out of sight or too close.
    """
    if in_camera[:, 2].min() < 0.3:
        return None
    points = camera.project(in_camera)
    limits = camera.size[::-1]
    left, top = np.clip(np.floor(points.min(axis=0)), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(points.max(axis=0)), 0, limits).astype(int)
    if left >= right or top >= bottom:
        return None
    return (slice(top, bottom), slice(left, right)), points - [left, top]
