"""Train the base model that the adaptation starts from, on a labelled source.

The loss on pictures is that of SPIN's regression branch (Kolotouros et al., ICCV 2019): 2D and 3D joints, pose and
shape. The same command again goes on where an interrupted training stopped.

    python pretrain.py --name base                                  # the synthetic source, rendered on the fly
    python pretrain.py --name footage --source wild                 # everything the renderer can vary, for footage
    python pretrain.py --name h36m --source h36m --depth 50         # Human3.6M, converted
    python pretrain.py --name joints --source joints --bf16         # 2D joints alone, no picture: thousands a second
    python pretrain.py --name both --source wild --model_file data/demo/footage.pt --joints_file data/demo/joints.pt
"""

import argparse
import copy
import dataclasses
import functools
import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, default_collate

import config
import streams
from datasets.base import CroppedFrames
from footage.detections import read_detections
from models.hmr import HMR, JointHMR, load_hmr, load_mean_params
from models.joint_branch import JointBranch
from models.prediction import predict
from models.skeleton import Skeleton
from models.smpl import SMPL, load_bodies
from runs import check_rendered
from synthetic.detections import Detections, Detector, Draw, Mistakes
from synthetic.lab import Lab
from synthetic.poses import training_poses
from synthetic.samples import Rendered
from synthetic.wild import Wild
from utils import losses
from utils.augmentation import augment
from utils.device import choose_device
from utils.errors import UserError, run_command
from utils.evaluation import GENDERS, score_3dpw, score_limbs
from utils.files import load_npz
from utils.geometry import CROP_SIZE, axis_angle_to_rotmat, project
from utils.image import normalise
from utils.joints import JOINTS49, LIMBS, SPIN, rows
from utils.options import option, parse
from utils.run_folder import run_folder, save_settings
from utils.structures import Prediction
from utils.training import Course, Plan, Training, judging

log = logging.getLogger("boa")

_VALIDATION_FRAMES = 120  # of each of the two domains
_VALIDATION_BATCHES = 4  # of a training on joints
_RENDERED = {"synthetic": Lab, "wild": Wild}
_TARGETS = {"synthetic": "synthetic-validation", "wild": "wild", "h36m": "3dpw", "joints": "wild"}
_LABELS = ("keypoints_2d", "joints_3d", "pose", "betas")
_JOINTS_DEFAULTS = {"images": 5_000_000, "batch_size": 256, "lr": 7e-4, "validate_every": 250_000}
_PICTURES_ONLY = ("target", "depth", "norm", "size", "auxiliary_weight", "joints_file", "workers")


@dataclass(frozen=True)
class Options:
    """Every flag of the command line."""

    name: str = option("", "name of the training, a folder in --expdir")
    expdir: str = option("experiments", "where checkpoints and logs go")
    seed: int = option(22, "of every random number")
    device: str = option("", "cpu, cuda, ...; default: a GPU where there is one")
    source: str = option("synthetic", "the labelled source", choices=("synthetic", "wild", "h36m", "joints"))
    target: str = option("", "a stream of boa.py to validate on; default: the one of the source's kind")
    depth: int = option(18, "of the ResNet: 18, 34 or 50")
    norm: str = option("group", "normalisation of the ResNet", choices=("group", "batch"))
    size: int = option(CROP_SIZE, "side of the images in px; a smaller one is faster", least=64)
    model_file: str = option("", "weights to start from; default: random ones")
    joints_file: str = option("", "weights of --source joints, for a network that is given image and joints")
    images: int = option(200_000, "how many images to train on; of --source joints: 5 million", least=1)
    batch_size: int = option(32, "images per step; of --source joints: 256", least=1)
    lr: float = option(3e-4, "highest rate of AdamW; it rises, then falls along a cosine; of --source joints: 7e-4")
    auxiliary_weight: float = option(5.0, "of the heads that help the network to find joints while it trains")
    bf16: bool = option(False, "compute in bfloat16, on hardware that has it")
    validate_every: int = option(10_000, "images between two validations; of --source joints: 250,000", least=1)
    workers: int = option(1, "processes that prepare images", least=0)


def read_options(argv: Sequence[str] | None) -> Options:
    """The command line, with the defaults of the source; UserError for a flag that the source has no use for."""

    def defaults(given: argparse.Namespace) -> dict[str, Any]:
        return _JOINTS_DEFAULTS if given.source == "joints" else {}

    options = parse(Options, __doc__, argv, defaults)
    if options.source == "joints":
        for field in dataclasses.fields(Options):
            if field.name in _PICTURES_ONLY and getattr(options, field.name) != field.default:
                raise UserError(f"--{field.name} is not for --source joints, which has no pictures")
    return options


class Samples(Dataset):
    """An endless, seeded row of augmented samples: the same index is the same sample.

    Args:
        source: the labelled frames, or what renders them
        detector: finds joints in them; None for a network that has no use for it
        seed, size: as in the options
    """

    def __init__(self, source: CroppedFrames | Rendered, detector: Detector | None, seed: int, size: int) -> None:
        self.source, self.detector, self.seed, self.size = source, detector, seed, size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        if isinstance(self.source, Rendered):
            sample = self.source.sample(rng, self.size)
        else:
            sample = self.source.crop(rng.integers(len(self.source)))
        sample = augment({name: sample[name] for name in ("image", *_LABELS)}, rng)
        labels = {name: np.float32(sample[name]) for name in _LABELS}
        if self.detector:
            labels["detected_2d"] = detected(
                self.detector, sample["keypoints_2d"], sample["joints_3d"][:, :3], self.seed, index
            )
        return {**labels, "image": normalise(sample["image"])}


def detected(detector: Detector, keypoints_2d: np.ndarray, joints: np.ndarray, *seeds: int) -> np.ndarray:
    """What a detector might find, (49,3), of somebody labelled by (49,3) over the crop and SPIN's joints (24,3) m."""
    keypoints, joints = (torch.as_tensor(np.float32(given[None])) for given in (keypoints_2d, joints))
    return detector.in_picture(Draw(*seeds), keypoints, joints)[0].numpy()


class Auxiliary(nn.Module):
    """Heads for the training only: 2D joints from heat maps of the third stage, 3D joints from the features.

    They make the trunk find joints long before the iterative head could tell it to.
    """

    def __init__(self, hmr: HMR) -> None:
        super().__init__()
        features = hmr.image_features
        self.heat_maps = nn.Conv2d(features // 2, 24, 1)
        self.joints = nn.Linear(features, 72)
        self.seen: dict[str, Tensor] = {}
        hmr.layer3.register_forward_hook(functools.partial(self._keep, "maps"))
        hmr.avgpool.register_forward_hook(functools.partial(self._keep, "features"))

    def _keep(self, name: str, module: nn.Module, given: Any, output: Tensor) -> None:
        self.seen[name] = output.float()

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Squared distance of the heads' joints, for the images that went through the network last."""
        maps = self.heat_maps(self.seen["maps"])
        shares = maps.flatten(2).softmax(-1).view_as(maps)
        middles = [(torch.arange(side, device=maps.device) + 0.5) / side * 2 - 1 for side in maps.shape[2:]]
        found = torch.stack([shares.sum(2) @ middles[1], shares.sum(3) @ middles[0]], dim=-1)  # (B,24,2)
        in_space = self.joints(self.seen["features"].flatten(1)).view(-1, 24, 3)
        given_2d, given_3d = batch["keypoints_2d"][:, SPIN], batch["joints_3d"]
        loss_2d = (given_2d[..., 2:] * (found - given_2d[..., :2]) ** 2).mean()
        return loss_2d + (given_3d[..., 3:] * (in_space - given_3d[..., :3]) ** 2).mean()


def observe(model: HMR, body: SMPL, batch: dict[str, Tensor]) -> Prediction:
    """What the network says of pictures, with the joints that a detector found where it wants them."""
    given = {"keypoints_2d": batch["detected_2d"]} if "keypoints_2d" in model.inputs else {}
    return predict(model, body, {**batch, **given})


def training_loss(model: HMR, auxiliary: Auxiliary, body: SMPL, batch: dict[str, Tensor], weight: float) -> Tensor:
    """SPIN's loss on a labelled batch, the auxiliary one, and what keeps the camera's scale positive."""
    batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    predicted = observe(model, body, batch)
    rotmat = axis_angle_to_rotmat(batch["pose"].view(-1, 3)).view(-1, 24, 3, 3)
    parts = losses.labelled(predicted, batch["keypoints_2d"], batch["joints_3d"], rotmat, batch["betas"])
    behind = torch.exp(-10 * predicted.cam[:, 0]).square().mean()
    return losses.weighted(parts, losses.LABELLED_WEIGHTS) + behind + weight * auxiliary.loss(batch)


def validation_frames(
    source: str, target: CroppedFrames, detector: Detector | None, bodies: dict[str, SMPL]
) -> dict[str, list[dict[str, Any]]]:
    """Frames of a rendered source, with people and cameras of its own, and, evenly spread, of the target."""
    step = max(1, len(target) // _VALIDATION_FRAMES)
    frames = {"target": [target[index] for index in range(0, len(target), step)]}
    if source in _RENDERED:
        domain = _RENDERED[source](config.DEMO, "validation")
        samples = [domain.sample(np.random.default_rng([7, index])) for index in range(_VALIDATION_FRAMES)]
        neutral = GENDERS.index("neutral")
        frames["source"] = [{**s, "image": normalise(s["image"]), "gender": neutral} for s in samples]
    for index, frame in enumerate(itertools.chain(*frames.values()) if detector else ()):
        pose, betas = (torch.as_tensor(frame[name])[None] for name in ("pose", "betas"))
        joints = bodies[GENDERS[frame["gender"]]].from_axis_angle(pose, betas).joints[0, SPIN]
        frame["detected_2d"] = detected(detector, frame["keypoints_2d"], joints.numpy(), 7, index)
    return frames


def validate(
    model: HMR, frames: dict[str, list[dict[str, Any]]], bodies: dict[str, SMPL], regressor: Tensor, size: int
) -> dict[str, float]:
    """MPJPE and PA-MPJPE in mm on each domain's frames."""
    scores = {}
    for domain, all_frames in frames.items():
        found: dict[str, list[np.ndarray]] = {"mpjpe": [], "pampjpe": []}
        for start in range(0, len(all_frames), 20):
            batch = default_collate(all_frames[start : start + 20])
            batch = {
                name: value.to(regressor.device) if isinstance(value, Tensor) else value
                for name, value in batch.items()
            }
            batch["image"] = F.interpolate(batch["image"], (size, size), mode="area")
            with judging(model):
                scored = score_3dpw(observe(model, bodies["neutral"], batch), batch, bodies, regressor)[2]
            for name, values in found.items():
                values.append(scored[name])
        scores |= {f"{domain}_{name}_mm": float(np.concatenate(values).mean()) for name, values in found.items()}
    return scores


def picture_course(options: Options, plan: Plan, device: torch.device) -> Course:
    """HMR, or HMR that is given the joints as well, on labelled pictures."""
    target = options.target or _TARGETS[options.source]
    assets = streams.STREAMS[target].assets
    bodies = {
        name: body.to(device) for name, body in load_bodies(assets.smpl_model_dir, assets.regressor_extra).items()
    }
    regressor = torch.as_tensor(np.load(assets.regressor_h36m), dtype=torch.float32, device=device)
    model = _picture_model(options, assets.mean_params).to(device, memory_format=torch.channels_last).train()
    auxiliary = Auxiliary(model).to(device)
    body = bodies["neutral"].joints_only()
    is_rendered = options.source in _RENDERED
    source = _RENDERED[options.source](config.DEMO) if is_rendered else streams.open_source(streams.H36M)
    check_rendered(streams.STREAMS[target].target)
    detector = read_detector() if "keypoints_2d" in model.inputs else None
    frames = validation_frames(options.source, streams.STREAMS[target].open()[0], detector, bodies)
    samples = Samples(source, detector, options.seed, options.size)

    def batches(step: int) -> Iterable[dict[str, Tensor]]:
        rest = range(step * plan.batch_size, plan.steps * plan.batch_size)
        return DataLoader(samples, plan.batch_size, sampler=rest, num_workers=options.workers)

    return Course(
        model,
        {"auxiliary": auxiliary},
        batches,
        lambda batch: training_loss(model, auxiliary, body, batch, options.auxiliary_weight),
        lambda: validate(model, frames, bodies, regressor, options.size),
    )


def _picture_model(options: Options, mean_params: Path) -> HMR:
    """The network to start from; UserError for files of other networks."""
    if options.model_file:
        model = _load(options.model_file, mean_params, HMR, "--model_file")
    else:
        model = HMR(load_mean_params(mean_params), options.depth, options.norm)
    if not options.joints_file:
        return model
    return JointHMR.of(model, _load(options.joints_file, mean_params, JointBranch, "--joints_file"))


def _load(file: str, mean_params: Path, kind: type[nn.Module], flag: str) -> nn.Module:
    """A network of that kind from a checkpoint; UserError for one of another."""
    network = load_hmr(mean_params, Path(file))
    if not isinstance(network, kind):
        raise UserError(f"{flag} {file} is given {' and '.join(network.inputs)}; name another checkpoint")
    return network


def joint_course(options: Options, plan: Plan, device: torch.device) -> Course:
    """The joint branch on poses before cameras, and what a detector makes of them."""
    assets = streams.STREAMS[_TARGETS["joints"]].assets
    body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ("neutral",))["neutral"]
    skeleton = Skeleton(body.joints_only())
    on_device = copy.deepcopy(skeleton).to(device)
    if options.model_file:
        model = _load(options.model_file, assets.mean_params, JointBranch, "--model_file")
    else:
        model = JointBranch(load_mean_params(assets.mean_params))
    model = model.to(device).train()
    poses, held_out = training_poses(options.seed, config.MOCAP_POSES)
    detections = Detections(on_device, poses, read_detector(device), options.seed, options.batch_size, device)
    validation = Detections(skeleton, held_out, read_detector(), options.seed + 1, 512)
    frames = [validation[index] for index in range(_VALIDATION_BATCHES)]
    domains = {"source": {name: torch.cat([frame[name] for frame in frames]) for name in ("keypoints_2d", "joints")}}
    domains |= {"target": found} if (found := read_detections(config.DETECTIONS)) else {}

    def batches(step: int) -> Iterable[dict[str, Tensor]]:
        return DataLoader(detections, None, sampler=range(step, plan.steps))

    return Course(
        model,
        {},
        batches,
        lambda batch: joint_loss(model, on_device, batch),
        lambda: validate_joints(model, on_device, domains),
    )


def read_detector(device: torch.device | str = "cpu") -> Detector:
    """One that errs as MediaPipe does; UserError when what it made of rendered people is missing or damaged."""
    names = ("keypoints_2d", "exact_2d", "joints_3d")
    tried = load_npz(config.DETECTOR, names, "run process_data.py --dataset detector")
    return Detector(Mistakes.measured(*(torch.from_numpy(tried[name]).float() for name in names)), device)


def joint_loss(model: nn.Module, skeleton: Skeleton, batch: dict[str, Tensor]) -> Tensor:
    """Distance from the labels of 2D joints' samples."""
    rotmat, betas, cam, *_ = model(batch["keypoints_2d"])
    with torch.autocast(rotmat.device.type, enabled=False):
        joints, _ = skeleton(rotmat, betas)
        terms = losses.lifted(joints, project(joints, cam), batch["joints"], batch["exact_2d"])
    terms |= {"pose": F.mse_loss(rotmat, batch["rotmat"]), "betas": F.mse_loss(betas, batch["betas"])}
    return losses.weighted(terms, losses.LIFTED_WEIGHTS)


def validate_joints(model: nn.Module, skeleton: Skeleton, domains: dict[str, dict[str, Tensor]]) -> dict[str, float]:
    """MPJPE and PA-MPJPE in mm of the limbs' 12 joints on each domain's joints."""
    scores = {}
    for domain, given in domains.items():
        with judging(model):
            rotmat, betas, *_ = model(given["keypoints_2d"].to(skeleton.rest.device))
            joints = skeleton(rotmat, betas)[0].cpu()
        limbs = rows(LIMBS.values(), JOINTS49)
        scored = score_limbs(*(some[:, limbs].double().numpy() for some in (joints, given["joints"])))[2]
        scores |= {f"{domain}_{name}_mm": float(scored[name].mean()) for name in ("mpjpe", "pampjpe")}
    return scores


def main(argv: Sequence[str] | None = None) -> None:
    """Load, train, save."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = read_options(argv)
    device = choose_device(options.device)
    torch.manual_seed(options.seed)
    plan = Plan(options.images, options.batch_size, options.validate_every, options.lr, options.bf16)
    course = (joint_course if options.source == "joints" else picture_course)(options, plan, device)
    folder = run_folder(options.expdir, options.name)
    save_settings(folder, options)
    training = Training(folder, course, device)
    training.restore()
    if training.step == 0 and not options.model_file:
        training.rows.append({"images": 0, **course.check()})  # the mean pose, which any use must beat
    training.run(plan)


if __name__ == "__main__":
    run_command(main)
