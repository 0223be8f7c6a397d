"""The regressor: image -> SMPL parameters (HMR, Kanazawa et al., CVPR 2018, in SPIN's form)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from models.joint_branch import JOINT_FEATURES, JointBranch
from utils.checkpoint import read_weights
from utils.errors import UserError
from utils.files import load_npz
from utils.geometry import rot6d_to_rotmat
from utils.structures import Features, SmplParams

_LAYERS = {18: (BasicBlock, [2, 2, 2, 2]), 34: (BasicBlock, [3, 4, 6, 3]), 50: (Bottleneck, [3, 4, 6, 3])}
_NORMS = {"group": partial(nn.GroupNorm, 4), "batch": nn.BatchNorm2d}
_ITERATIONS = 3
_WIDTH = 1024
_SIZES = {"pose": 144, "shape": 10, "cam": 3}


class Subsampled(nn.Conv2d):
    """A convolution of 1x1 px with a stride, as one without it on the pixels that it takes.

    The backward pass of the former visits all pixels: a step takes 1 to 2 % less time, and has the same numbers.

    Args:
        conv: whose weights are shared
    """

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "Subsampled":
        """With the same weights, none drawn at random."""
        sampled = nn.utils.skip_init(cls, conv.in_channels, conv.out_channels, 1, bias=False)
        sampled.weight, sampled.every = conv.weight, conv.stride[0]
        return sampled

    def forward(self, image: Tensor) -> Tensor:
        """Of (B,C,H,W)."""
        return super().forward(image[:, :, :: self.every, :: self.every].contiguous())


class HMR(ResNet):
    """A ResNet and a head that corrects an estimate of pose, shape and camera three times, without non-linearity.

    Args:
        mean_params: `pose` (144,), `shape` (10,) and `cam` (3,), from which the estimate starts
        depth: of the ResNet, 18, 34 or 50
        norm: `group` (4 groups, BOA's) or `batch` (SPIN's)
        more_features: how many the head is given beside those of the image
    """

    inputs: tuple[str, ...] = ("image",)

    def __init__(
        self, mean_params: Mapping[str, np.ndarray], depth: int = 50, norm: str = "group", more_features: int = 0
    ) -> None:
        block, layers = _LAYERS[depth]
        super().__init__(block, layers, norm_layer=_NORMS[norm])
        for block in (block for module in self.children() if isinstance(module, nn.Sequential) for block in module):
            if block.downsample:
                block.downsample[0] = Subsampled.of(block.downsample[0])
        self.depth, self.norm = depth, norm
        self.in_bf16 = False  # whether the ResNet computes in bfloat16; its weights stay in fp32
        self.fc = nn.Identity()  # the classifier of the ResNet, which has no place here
        self.image_features = 512 * block.expansion
        self.fc1 = nn.Linear(self.image_features + more_features + sum(_SIZES.values()), _WIDTH)
        self.drop1 = nn.Dropout()
        self.fc2 = nn.Linear(_WIDTH, _WIDTH)
        self.drop2 = nn.Dropout()
        for name, size in _SIZES.items():
            decoder = nn.Linear(_WIDTH, size)
            nn.init.xavier_uniform_(decoder.weight, gain=0.01)
            self.add_module(f"dec{name}", decoder)
            self.register_buffer(f"init_{name}", torch.as_tensor(mean_params[name], dtype=torch.float32)[None])

    def forward(self, image: Tensor) -> SmplParams:
        """Regress normalised images (B,3,224,224)."""
        start = [getattr(self, f"init_{name}").expand(len(image), -1) for name in _SIZES]
        return self.iterate(self.features(image), start)

    def features(self, image: Tensor) -> Tensor:
        """What the ResNet sees in normalised images (B,3,224,224): (B,F), as precise as they are."""
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.in_bf16):
            return super().forward(image).to(image)

    def iterate(self, features: Tensor, start: Sequence[Tensor]) -> SmplParams:
        """Correct an estimate of pose (B,144), shape (B,10) and cam (B,3) by features (B,F)."""
        pose, shape, cam = start
        for _ in range(_ITERATIONS):
            first = self.fc1(torch.cat([features, pose, shape, cam], dim=1))
            hidden = self.drop2(self.fc2(self.drop1(first)))
            pose, shape, cam = self.decpose(hidden) + pose, self.decshape(hidden) + shape, self.deccam(hidden) + cam
        seen = Features(features[:, : self.image_features], first)
        return SmplParams(rot6d_to_rotmat(pose).view(-1, 24, 3, 3), shape, cam, seen)


class JointHMR(HMR):
    """HMR that is given the joints, too: its head starts from what they say, with their features beside the image's.

    Args: as of HMR
    """

    inputs = ("image", "keypoints_2d")

    def __init__(self, mean_params: Mapping[str, np.ndarray], depth: int = 50, norm: str = "group") -> None:
        super().__init__(mean_params, depth, norm, more_features=JOINT_FEATURES)
        self.joints = JointBranch(mean_params)

    @classmethod
    def of(cls, hmr: HMR, joints: JointBranch) -> "JointHMR":
        """The two as one network that says what the joints say: its head has nothing to add yet."""
        both = cls({name: getattr(hmr, f"init_{name}")[0].numpy() for name in _SIZES}, hmr.depth, hmr.norm)
        state = hmr.state_dict()
        image, estimate = state["fc1.weight"].split([hmr.image_features, sum(_SIZES.values())], dim=1)
        unseen = image.new_zeros(len(image), JOINT_FEATURES)
        state["fc1.weight"] = torch.cat([image, unseen, estimate], dim=1)
        state |= {name: torch.zeros_like(value) for name, value in state.items() if name.startswith("dec")}
        state |= {f"joints.{name}": value for name, value in joints.state_dict().items()}
        both.load_state_dict(state)
        return both

    def forward(self, image: Tensor, keypoints_2d: Tensor) -> SmplParams:
        """Regress normalised images (B,3,224,224) with joints (B,49,3) in [-1,1] and confidence."""
        features, *start = self.joints.estimate(keypoints_2d)
        return self.iterate(torch.cat([self.features(image), features], dim=1), start)


def load_mean_params(file: Path) -> dict[str, np.ndarray]:
    """Read smpl_mean_params.npz: `pose` (144,), `shape` (10,), `cam` (3,); UserError when it is missing or damaged."""
    remedy = "get it with SPIN's data (data/README.md)"
    params = load_npz(file, _SIZES, remedy)
    for name, size in _SIZES.items():
        if params[name].shape != (size,) or params[name].dtype.kind != "f" or not np.isfinite(params[name]).all():
            raise UserError(f"{file}: {name} is not {size} finite numbers; {remedy}")
    return params


def load_hmr(mean_params_file: Path, checkpoint_file: Path) -> nn.Module:
    """Build the network that a checkpoint holds: BOA's, SPIN's or one of pretrain.py, told apart by its keys.

    Args:
        mean_params_file: smpl_mean_params.npz
        checkpoint_file: of torch.save; the weights are under 'model' or 'state_dict' or are all of it, with or without
            'module.' or 'model.' before the names; half precision is widened to float32

    Raises:
        UserError: a file is missing or damaged, or the checkpoint is of another architecture (says which keys).
    """
    mean_params = load_mean_params(mean_params_file)
    state = read_weights(checkpoint_file, "get the base model (README, Benchmarks) or name yours by --model_file")
    network, kind = _build(mean_params, state)
    _check_state(checkpoint_file, state, network.state_dict(), kind)
    network.load_state_dict(state, strict=False)
    return network


def _build(mean_params: Mapping[str, np.ndarray], state: Mapping[str, Tensor]) -> tuple[nn.Module, str]:
    """An empty network of the kind that a checkpoint's names tell, and what it is called."""
    if "lift.weight" in state:
        return JointBranch(mean_params), "a joint branch alone"
    # by the last block of the first stage: a third convolution in a block, a third block, or neither
    depth = 50 if "layer1.0.conv3.weight" in state else 34 if "layer1.2.conv1.weight" in state else 18
    norm = "batch" if "bn1.running_mean" in state else "group"
    if "joints.lift.weight" in state:
        return JointHMR(mean_params, depth, norm), f"HMR with ResNet-{depth} and joints"
    return HMR(mean_params, depth, norm), f"HMR with ResNet-{depth}"


def _check_state(file: Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], kind: str) -> None:
    """Compare names and shapes; the mean parameters may be lacking, since they are in a file of their own."""
    missing = [name for name in wanted if name not in state and not name.startswith("init_")]
    unknown = [name for name in state if name not in wanted]
    other = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    problems = [
        f"{what} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for what, names in (("it lacks", missing), ("it has unknown", unknown), ("of another shape are", other))
        if names
    ]
    if problems:
        raise UserError(f"{file} is a checkpoint of another architecture than {kind}: {'; '.join(problems)}")
