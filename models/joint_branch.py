"""The regressor that is given the 2D joints.

What a detector sees has no domain gap: a network trained on nothing but projected bodies works on real people (as
STRAPS does with silhouettes and joint maps, Sengupta et al., BMVC 2020). Left to itself it is hundreds of times faster
than a network that looks at the image.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from utils.geometry import rot6d_to_rotmat
from utils.joints import DETECTED23, FACE5, JOINTS49, SMPL24, SPIN_TWINS, flip_permutation, rows
from utils.structures import SmplParams

JOINT_FEATURES = 1024
_BLOCKS = 3
_SIZES = {"pose": 144, "shape": 10, "cam": 3}
_USUAL_SCALE = 1.8  # of a standing body whose joints have a deviation of 1
# what a mirror makes of things: M R M, with M = diag(-1, 1, 1), read as rot6d_to_rotmat does
_MIRRORED = {"joint": (-1.0, 1.0, 1.0), "rot6d": (1.0, -1.0, -1.0, 1.0, -1.0, 1.0), "cam": (1.0, -1.0, 1.0)}
_OTHER = {"joint": flip_permutation(JOINTS49), "rot6d": flip_permutation(SMPL24)}
_LEAST_SPREAD = 0.02  # of the crop; fewer than two joints have none


class JointBranch(nn.Module):
    """Joints (x, y, confidence) through a residual network to pose, shape and camera.

    Position and size of the person in the crop say nothing about the body, so that they are taken out before and put
    into the camera afterwards.

    Args:
        mean_params: `pose` (144,), `shape` (10,), to which the network adds
    """

    inputs = ("keypoints_2d",)

    def __init__(self, mean_params: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.lift = nn.Linear(4 * len(DETECTED23), JOINT_FEATURES)
        self.blocks = nn.ModuleList(_Block(JOINT_FEATURES) for _ in range(_BLOCKS))
        self.norm = nn.LayerNorm(JOINT_FEATURES)
        self.out = nn.Linear(JOINT_FEATURES, sum(_SIZES.values()))
        nn.init.xavier_uniform_(self.out.weight, gain=0.01)
        nn.init.zeros_(self.out.bias)
        for name in ("pose", "shape"):
            self.register_buffer(f"init_{name}", torch.as_tensor(mean_params[name], dtype=torch.float32)[None])
        # buffers, as a list would be copied to a GPU, which waits, whenever it is an index
        indices = {"picks": [rows(DETECTED23, JOINTS49), SPIN_TWINS]}
        indices["is_face"] = [[name in FACE5] for name in DETECTED23]
        indices |= {f"other_{name}": index for name, index in _OTHER.items()}
        indices |= {f"mirrored_{name}": signs for name, signs in _MIRRORED.items()}
        for name, numbers in indices.items():
            self.register_buffer(name, torch.tensor(numbers), persistent=False)

    def forward(self, keypoints_2d: Tensor) -> SmplParams:
        """Regress joints (B,49,3), x and y in [-1,1] over the crop and confidence."""
        pose, shape, cam = self.estimate(keypoints_2d)[1:]
        if not self.training:
            # whatever is seen in a mirror is as likely, so that both ways have their say
            mirrored = keypoints_2d[:, self.other_joint] * self.mirrored_joint
            other_pose, other_shape, other_cam = self.estimate(mirrored)[1:]
            other_pose = (other_pose.view(-1, 24, 6)[:, self.other_rot6d] * self.mirrored_rot6d).flatten(1)
            pose, shape = (pose + other_pose) / 2, (shape + other_shape) / 2
            cam = (cam + other_cam * self.mirrored_cam) / 2
        return SmplParams(rot6d_to_rotmat(pose).view(-1, 24, 3, 3), shape, cam)

    def estimate(self, keypoints_2d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (B,1024), pose (B,144), shape (B,10) and cam (B,3) from joints (B,49,3)."""
        given, center, spread = self._centred(keypoints_2d)
        hidden = self.lift(given.flatten(1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        features = torch.relu(self.norm(hidden))
        pose, shape, cam = self.out(features).to(keypoints_2d).split(list(_SIZES.values()), dim=1)
        scale = _USUAL_SCALE * torch.exp(cam[:, :1])
        place = cam[:, 1:] + center / (scale * spread)
        return features, self.init_pose + pose, self.init_shape + shape, torch.cat([scale * spread, place], dim=1)

    def _centred(self, keypoints_2d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, y, confidence, found (B,23,4) about the joints' mean (B,2) in units of their deviation (B,1); those two.

        Both are weighted by the confidence. A joint that is hardly trusted is given all the same: what a detector
        guesses of a hidden wrist is nearer to it than nothing. A face of which a part was not found is left out: the
        detector that is trained with guesses what is hidden of a face, and half of one is taken for another view.
        """
        own, twin = keypoints_2d[:, self.picks[0]], keypoints_2d[:, self.picks[1]]
        joints = torch.where(own[..., 2:] >= twin[..., 2:], own, twin)
        places, confidence = joints[..., :2], joints[..., 2:].clamp(max=1)
        lacks_face = ((confidence == 0) & self.is_face).any(1, keepdim=True)
        confidence = confidence * ~(lacks_face & self.is_face)
        found = (confidence > 0).to(joints)
        total = confidence.sum(1).clamp(min=1e-6)
        center = (confidence * places).sum(1) / total
        away = found * (places - center[:, None])
        squared = (confidence * away**2).sum((1, 2))[:, None] / total
        spread = torch.sqrt(squared.clamp(min=_LEAST_SPREAD**2))
        return torch.cat([away / spread[:, None], confidence, found], dim=-1), center, spread


class _Block(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
