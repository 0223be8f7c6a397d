"""What the network says about images, with everything that follows from it."""

from collections.abc import Callable

import torch

from models.smpl import SMPL
from utils.errors import UserError
from utils.geometry import project
from utils.structures import Features, Frame, Prediction, SmplParams, Source

Regressor = Callable[..., SmplParams]


def regress(regressor: Regressor, *frames: Frame) -> SmplParams:
    """Run the network once on all the frames, which its answer joins in this order.

    Args:
        regressor: is given those entries of the frames that its attribute `inputs` names, or `image` if it has none
    """
    return SmplParams(*regressor(*(torch.cat([frame[name] for frame in frames]) for name in inputs_of(regressor))))


def inputs_of(regressor: Regressor) -> tuple[str, ...]:
    """The entries of a frame that a network is given."""
    return getattr(regressor, "inputs", ("image",))


def features_of(regressor: Regressor, frame: Frame) -> Features:
    """The features of a network, by which dynamic steps and retrieval go; UserError when it has none."""
    features = regress(regressor, frame).features
    if features is None:
        name = type(regressor).__name__
        raise UserError(f"{name} gives no features; leave out --dynamic_boa and --retrieval, or let it give some")
    return features


def predict(regressor: Regressor, body: SMPL, *frames: Frame) -> Prediction:
    """Run the network once on all the frames and pose the body.

    Args:
        regressor: as of `regress`
        body: all of it, or those vertices that joints touch
        frames: batches, which the prediction joins in this order
    """
    rotmat, betas, cam, features = regress(regressor, *frames)
    joints, vertices = body.from_rotmat(rotmat, betas)
    return Prediction(rotmat, betas, cam, joints, vertices, project(joints, cam), features)


def predict_apart(
    regressor: Regressor, body: SMPL, frame: Frame, past: Frame | None, source: Source | None
) -> tuple[Prediction, Prediction | None, tuple[Prediction, Frame] | None]:
    """Predict a frame, the frames before it and labelled samples -> each apart, the samples with their labels.

    One forward of all three, but for samples that are drawn by the features of the frame: these have one of their own.
    """
    retrieves = callable(source)
    batches = [batch for batch in (frame, past, None if retrieves else source) if batch is not None]
    now, *others = predict(regressor, body, *batches).parts([len(batch["keypoints_2d"]) for batch in batches])
    before = others.pop(0) if past is not None else None
    if retrieves:
        source = source(now.features.pooled.detach())
        others = [predict(regressor, body, source)]
    return now, before, (others[0], source) if others else None
