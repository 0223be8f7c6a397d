"""What the network says about an image, with everything that follows from it."""

from collections.abc import Callable

import torch

from models.smpl import SMPL
from utils.geometry import project
from utils.structures import Frame, Prediction, SmplParams


def predict(regressor: Callable[..., SmplParams], body: SMPL, *frames: Frame) -> Prediction:
    """Run the network once on all the frames and pose the body.

    Args:
        regressor: is given those entries of the frames that its attribute `inputs` names, or `image` if it has none
        body: all of it, or those vertices that joints touch
        frames: batches, which the prediction joins in this order
    """
    names = getattr(regressor, "inputs", ("image",))
    rotmat, betas, cam = regressor(*(torch.cat([frame[name] for frame in frames]) for name in names))
    joints, vertices = body.from_rotmat(rotmat, betas)
    return Prediction(rotmat, betas, cam, joints, vertices, project(joints, cam))
