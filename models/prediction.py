"""What the network says about an image, with everything that follows from it."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from models.hmr import SmplParams
from models.smpl import SMPL
from utils.geometry import project


class Prediction(NamedTuple):
    """A posed body in front of the crop's camera.

    Attributes:
        rotmat: (B,24,3,3), betas: (B,10), cam: (B,3) weak perspective s, tx, ty
        joints: (B,49,3) and vertices: (B,V,3) in metres
        keypoints_2d: (B,49,2) in [-1,1] over the crop
    """

    rotmat: Tensor
    betas: Tensor
    cam: Tensor
    joints: Tensor
    vertices: Tensor
    keypoints_2d: Tensor

    def rows(self, which: slice) -> "Prediction":
        """The prediction of a part of the batch."""
        return Prediction(*(field[which] for field in self))


def predict(regressor: Callable[[Tensor], SmplParams], body: SMPL, image: Tensor) -> Prediction:
    """Run the network and pose the body; image (B,3,224,224), normalised."""
    rotmat, betas, cam = regressor(image)
    joints, vertices = body.from_rotmat(rotmat, betas)
    return Prediction(rotmat, betas, cam, joints, vertices, project(joints, cam))
