"""What travels between the parts of the program: frames, parameters, predictions. B batch, V vertices."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol, TypedDict

import torch
from torch import Tensor


class Frame(TypedDict, total=False):
    """A batch of frames; which entries there are depends on the stream."""

    image: Tensor  # (B,3,224,224) normalised
    keypoints_2d: Tensor  # (B,49,3) x, y in [-1,1] over the crop, confidence
    index: Tensor  # (B,) row of the stream, number in the clip
    number: Tensor  # (B,) of the frame in its sequence
    sequence: list[str]
    person: Tensor  # (B,) number within the sequence
    imgname: list[str]
    activity: list[str]
    jump: list[str]  # what there is to say of the update (models.guard)
    # labels
    joints_3d: Tensor  # (B,24,4) m, confidence
    pose: Tensor  # (B,72) axis-angle
    betas: Tensor  # (B,10)
    betas_neutral: Tensor  # (B,10) the nearest shape of the neutral body
    ray: Tensor  # (B,3) from the camera through the middle of the crop, along the axes of `joints_3d`
    outside: Tensor  # (B,) bool: the crop shows nothing of the image
    gender: Tensor  # (B,) 0 male, 1 female, 2 neutral
    # what was made of a detector's joints (footage.left_right)
    exchanged: list[str]  # the groups of joints whose left and right were exchanged back
    dropped: Tensor  # (B,) how many joints jumped
    # of footage, B = 1
    rgb: Tensor  # (1,H,W,3) uint8
    time: Tensor  # (1,) s
    center: Tensor  # (1,2) px, of the crop
    scale: Tensor  # (1,) side of the crop / 200 px
    keypoints_px: Tensor  # (1,49,3)
    bridged: Tensor  # (1,) bool: the person is not seen, only interpolated


# a labelled sample, or what draws samples for the features (B,D) of a frame (datasets/retrieval.py)
Source = Frame | Callable[[Tensor], Frame]


class Features(NamedTuple):
    """What a network makes of an image on its way.

    Attributes:
        pooled: (B,D) what the backbone sees, averaged over the image
        hidden: (B,H) the first layer of the head, the last time that it is passed
    """

    pooled: Tensor
    hidden: Tensor


class SmplParams(NamedTuple):
    """Rotations (B,24,3,3), betas (B,10), weak perspective cam (B,3) = s, tx, ty; features where a network has any."""

    rotmat: Tensor
    betas: Tensor
    cam: Tensor
    features: Features | None = None


class BodyOutput(NamedTuple):
    """Joints (B,49,3) and vertices (B,V,3) in metres."""

    joints: Tensor
    vertices: Tensor


class Prediction(NamedTuple):
    """A posed body in front of the crop's camera.

    Attributes:
        rotmat: (B,24,3,3), betas: (B,10), cam: (B,3) weak perspective s, tx, ty
        joints: (B,49,3) and vertices: (B,V,3) in metres
        keypoints_2d: (B,49,2) in [-1,1] over the crop
        features: of the network, where it has any
    """

    rotmat: Tensor
    betas: Tensor
    cam: Tensor
    joints: Tensor
    vertices: Tensor
    keypoints_2d: Tensor
    features: Features | None = None

    def rows(self, which: slice) -> "Prediction":
        """The prediction of a part of the batch."""
        *fields, features = self
        seen = features and Features(*(field[which] for field in features))
        return Prediction(*(field[which] for field in fields), seen)

    def parts(self, sizes: Sequence[int]) -> list["Prediction"]:
        """The batch taken apart into so many rows each."""
        return [self.rows(slice(*ends)) for ends in pairwise([0, *accumulate(sizes)])]

    def on_host(self) -> "Prediction":
        """The same in the host's memory, by one transfer from the device; without the features."""
        fields = self[:-1]
        flat = torch.cat([field.flatten(1) for field in fields], dim=1).cpu()
        parts = flat.split([field[0].numel() for field in fields], dim=1)
        return Prediction(*(part.reshape(field.shape) for part, field in zip(parts, fields, strict=True)))


class Body(Protocol):
    """What scores ask of a body model (models.smpl.SMPL)."""

    def from_axis_angle(self, pose: Tensor, betas: Tensor) -> BodyOutput:
        """Pose (B,72) and betas (B,10) -> joints and vertices."""

    def unposed(self, betas: Tensor) -> Tensor:
        """Vertices (B,V,3) in the zero pose."""
