"""Labelled images of single people, rendered on the fly: what every labelled source has in common."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from synthetic.body import Body
from synthetic.camera import Camera
from synthetic.clothes import Wardrobe
from utils.geometry import CROP_SIZE
from utils.joints import SIDES, SMPL24, SPIN, SPIN24, rows

SPLITS = ("train", "validation", "test", "wild")  # their places are part of the seeds
BOX_ENLARGE = 1.2  # as 3DPW's box around the projected joints
MIX_FRACTION = 0.15  # of the poses take an arm from another one
POSE_NOISE = 0.04  # rad
ARMS = [rows([f"{side}_{part}" for part in ("collar", "shoulder", "elbow", "wrist")], SMPL24) for side in SIDES]
LIMBS = [joint for joint, name in enumerate(SMPL24) if joint and not name.endswith(("foot", "hand"))]
CENTRE = list(SPIN24).index("Pelvis (MPII)")  # of the 3D labels


class Rendered:
    """Labelled images of single people, rendered on the fly.

    Args:
        body_dir: folder with the free body, as data/demo
        poses: (N,24,3) what people do
        people: (P,10) betas
    """

    def __init__(self, body_dir: Path, poses: np.ndarray, people: np.ndarray):
        self._body = Body(body_dir, "neutral")
        self._wardrobe = Wardrobe(self._body)
        self.poses, self.people = poses, people

    def sample(
        self, rng: np.random.Generator, size: int = CROP_SIZE, enlarge: float = BOX_ENLARGE
    ) -> dict[str, np.ndarray]:
        """One image of a person with all labels; the same generator state gives the same image.

        Args:
            size: side of the image, px
            enlarge: side of the image over that of the box around the joints, before a random change

        Returns:
            image (size,size,3) uint8 RGB, keypoints_2d (49,3) in [-1,1] with confidence, joints_3d (24,4) the SPIN
            joints, m, pelvis at 0, axes of the camera, confidence 1, pose (72,) axis-angle, betas (10,); all float32
        """
        raise NotImplementedError

    def _someone(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Betas (10,) and rotations (24,3,3) in world axes of somebody."""
        betas = self.people[rng.integers(len(self.people))] + rng.normal(0, 0.3, 10)
        return betas, Rotation.from_rotvec(self.random_pose(rng)).as_matrix()

    def random_pose(self, rng: np.random.Generator) -> np.ndarray:
        """A pose (24,3) of the clips, facing any direction."""
        pose = self.poses[rng.integers(len(self.poses))].copy()
        if rng.random() < MIX_FRACTION:
            arm = ARMS[rng.integers(2)]
            pose[arm] = self.poses[rng.integers(len(self.poses)), arm]
        pose[LIMBS] += rng.normal(0, POSE_NOISE, (len(LIMBS), 3))
        heading = Rotation.from_rotvec([0, rng.uniform(0, 2 * np.pi), 0])
        pose[0] = (heading * Rotation.from_rotvec(pose[0])).as_rotvec()
        return pose


def labelled(
    image: np.ndarray, keypoints: np.ndarray, joints: np.ndarray, pose: np.ndarray, betas: np.ndarray
) -> dict[str, np.ndarray]:
    """A sample as Rendered.sample returns it; image (S,S,3) 0-255, keypoints (49,3), joints (49,3) m in the camera."""
    return {
        "image": np.clip(image, 0, 255).astype(np.uint8),
        "keypoints_2d": keypoints,
        "joints_3d": with_confidence(joints[SPIN] - joints[SPIN][CENTRE]),
        "pose": pose.astype(np.float32),
        "betas": betas.astype(np.float32),
    }


def in_camera(rotmat: np.ndarray, camera: Camera) -> np.ndarray:
    """Axis-angle pose (72,) of rotations (24,3,3) in world axes, the global orientation turned into the camera."""
    turned = np.concatenate([camera.rotation @ rotmat[:1], rotmat[1:]])
    return Rotation.from_matrix(turned).as_rotvec().ravel()


def with_confidence(points: np.ndarray) -> np.ndarray:
    """Append a column of ones, (N,C) -> (N,C+1) float32."""
    return np.pad(points, ((0, 0), (0, 1)), constant_values=1).astype(np.float32)
