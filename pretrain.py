"""Train the base model that the adaptation starts from, on a labelled source.

The loss is that of SPIN's regression branch (Kolotouros et al., ICCV 2019): 2D and 3D joints, pose and shape. The same
command again goes on where an interrupted training stopped.

    python pretrain.py --name base                                  # the synthetic source, rendered on the fly
    python pretrain.py --name footage --source wild                 # everything the renderer can vary, for footage
    python pretrain.py --name h36m --source h36m --depth 50         # Human3.6M, converted
"""

import csv
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import config
import streams
from datasets.base import CroppedFrames
from models.hmr import HMR, load_hmr, load_mean_params
from models.prediction import predict
from models.smpl import SMPL, load_bodies
from runs import check_rendered
from synthetic.lab import Lab
from synthetic.samples import Rendered
from synthetic.wild import Wild
from utils import losses
from utils.augmentation import augment
from utils.device import choose_device
from utils.errors import UserError, run_command
from utils.evaluation import GENDERS, score_3dpw
from utils.files import write_atomically
from utils.geometry import CROP_SIZE, axis_angle_to_rotmat
from utils.image import normalise
from utils.joints import SPIN
from utils.options import option, parse
from utils.results import run_folder, save_settings

_COLUMNS = ("images", "loss", "source_mpjpe_mm", "source_pampjpe_mm", "target_mpjpe_mm", "target_pampjpe_mm")
_WARM_UP = 0.03  # share of the training in which the rate rises
_VALIDATION_FRAMES = 120  # of each of the two domains
_RENDERED = {"synthetic": Lab, "wild": Wild}
_TARGETS = {"synthetic": "synthetic-validation", "wild": "wild", "h36m": "3dpw"}
_LABELS = ("keypoints_2d", "joints_3d", "pose", "betas")


@dataclass(frozen=True)
class Options:
    """Every flag of the command line."""

    name: str = option("", "name of the training, a folder in --expdir")
    expdir: str = option("experiments", "where checkpoints and logs go")
    seed: int = option(22, "of every random number")
    device: str = option("", "cpu, cuda, ...; default: a GPU where there is one")
    source: str = option("synthetic", "the labelled source", choices=("synthetic", "wild", "h36m"))
    target: str = option("", "a stream of boa.py to validate on; default: the one of the source's kind")
    depth: int = option(18, "of the ResNet: 18, 34 or 50")
    norm: str = option("group", "normalisation of the ResNet", choices=("group", "batch"))
    size: int = option(CROP_SIZE, "side of the images in px; a smaller one is faster", least=64)
    model_file: str = option("", "weights to start from; default: random ones")
    images: int = option(200_000, "how many images to train on", least=1)
    batch_size: int = option(32, "images per step", least=1)
    lr: float = option(3e-4, "highest rate of AdamW; it rises, then falls along a cosine")
    auxiliary_weight: float = option(5.0, "of the heads that help the network to find joints while it trains")
    bf16: bool = option(False, "compute in bfloat16, on hardware that has it")
    validate_every: int = option(10_000, "images between two validations", least=1)
    workers: int = option(1, "processes that prepare images", least=0)


class Samples(Dataset):
    """An endless, seeded row of augmented samples: the same index is the same sample.

    Args:
        source: the labelled frames, or what renders them
        seed, size: as in the options
    """

    def __init__(self, source: CroppedFrames | Rendered, seed: int, size: int) -> None:
        self.source, self.seed, self.size = source, seed, size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        if isinstance(self.source, Rendered):
            sample = self.source.sample(rng, self.size)
        else:
            sample = self.source.crop(rng.integers(len(self.source)))
        sample = augment({name: sample[name] for name in ("image", *_LABELS)}, rng)
        labels = {name: np.float32(sample[name]) for name in _LABELS}
        return {**labels, "image": normalise(sample["image"])}


class Auxiliary(nn.Module):
    """Heads for the training only: 2D joints from heat maps of the third stage, 3D joints from the features.

    They make the trunk find joints long before the iterative head could tell it to.
    """

    def __init__(self, hmr: HMR) -> None:
        super().__init__()
        features = hmr.fc1.in_features - 157
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


def training_loss(model: HMR, auxiliary: Auxiliary, body: SMPL, batch: dict[str, Tensor], weight: float) -> Tensor:
    """SPIN's loss on a labelled batch, the auxiliary one, and what keeps the camera's scale positive."""
    predicted = predict(model, body, batch)
    rotmat = axis_angle_to_rotmat(batch["pose"].view(-1, 3)).view(-1, 24, 3, 3)
    parts = losses.labelled(predicted, batch["keypoints_2d"], batch["joints_3d"], rotmat, batch["betas"])
    behind = torch.exp(-10 * predicted.cam[:, 0]).square().mean()
    return losses.weighted(parts, losses.LABELLED_WEIGHTS) + behind + weight * auxiliary.loss(batch)


def rate_at(step: int, steps: int) -> float:
    """Share of the highest rate: up along a line, down along a cosine."""
    rise = max(1, int(_WARM_UP * steps))
    return min(1.0, (step + 1) / rise) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def validation_frames(source: str, target: CroppedFrames) -> dict[str, list[dict[str, Any]]]:
    """Frames of a rendered source, with people and cameras of its own, and, evenly spread, of the target."""
    step = max(1, len(target) // _VALIDATION_FRAMES)
    frames = {"target": [target[index] for index in range(0, len(target), step)]}
    if source in _RENDERED:
        domain = _RENDERED[source](config.DEMO, "validation")
        samples = [domain.sample(np.random.default_rng([7, index])) for index in range(_VALIDATION_FRAMES)]
        neutral = GENDERS.index("neutral")
        frames["source"] = [{**s, "image": normalise(s["image"]), "gender": neutral} for s in samples]
    return frames


@torch.no_grad()
def validate(
    model: HMR, frames: dict[str, list[dict[str, Any]]], bodies: dict[str, SMPL], regressor: Tensor, size: int
) -> dict[str, float]:
    """MPJPE and PA-MPJPE in mm on each domain's frames."""
    model.eval()
    scores = {}
    for domain, all_frames in frames.items():
        found: dict[str, list[np.ndarray]] = {"mpjpe": [], "pampjpe": []}
        for start in range(0, len(all_frames), 20):
            batch = default_collate(all_frames[start : start + 20])
            batch = {
                name: value.to(regressor.device) if isinstance(value, Tensor) else value
                for name, value in batch.items()
            }
            image = F.interpolate(batch["image"], (size, size), mode="area")
            scored = score_3dpw(predict(model, bodies["neutral"], {"image": image}), batch, bodies, regressor)[2]
            for name, values in found.items():
                values.append(scored[name])
        scores |= {f"{domain}_{name}_mm": float(np.concatenate(values).mean()) for name, values in found.items()}
    model.train()
    return scores


class Training:
    """The state of a training on disk: checkpoint.pt to go on from, basemodel.pt for boa.py, log.csv and curve.png."""

    def __init__(self, folder: Path, parts: dict[str, Any]) -> None:
        self.folder, self.parts = folder, parts
        self.rows: list[dict[str, float]] = []
        self.step = 0

    def restore(self, device: torch.device) -> None:
        """Go on from the checkpoint, where there is one; UserError when it cannot be read."""
        file = self.folder / "checkpoint.pt"
        if not file.exists():
            return
        try:
            state = torch.load(file, map_location=device, weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except (RuntimeError, KeyError, ValueError, EOFError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{file} does not fit ({reason}); use the same options, or another --name") from error
        self.step, self.rows = state["step"], state["rows"]

    def save(self, model: HMR) -> None:
        """Write all files, each whole or not at all."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"step": self.step, "rows": self.rows}
        write_atomically(self.folder / "checkpoint.pt", lambda path: torch.save(state, path))
        half = {name: value.half().contiguous() for name, value in model.state_dict().items()}
        write_atomically(self.folder / "basemodel.pt", lambda path: torch.save({"model": half}, path))
        write_atomically(self.folder / "log.csv", self._write_log)
        if len(self.rows) > 1:
            write_atomically(self.folder / "curve.png", self._draw)

    def _write_log(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: round(value, 5) for name, value in row.items()} for row in self.rows)

    def _draw(self, path: Path) -> None:
        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        for domain, colour in (("source", "tab:blue"), ("target", "tab:red")):
            for score, style in (("mpjpe", "-"), ("pampjpe", "--")):
                known = [row for row in self.rows if f"{domain}_{score}_mm" in row]
                errors = [row[f"{domain}_{score}_mm"] for row in known]
                label = f"{domain}, {'MPJPE' if score == 'mpjpe' else 'PA-MPJPE'}"
                axes.plot([row["images"] for row in known], errors, style, color=colour, label=label)
        axes.set(xlabel="images seen", ylabel="error [mm]", title="Base model on held-out frames", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=110)
        pyplot.close(figure)


def train(
    training: Training, model: HMR, auxiliary: Auxiliary, body: SMPL, batches: Iterator, options: Options, check: Any
) -> None:
    """The loop: fetch, step, now and then validate and save."""
    optimizer = training.parts["optimizer"]
    device = body.v_template.device
    steps = math.ceil(options.images / options.batch_size)
    every = max(1, options.validate_every // options.batch_size)
    writer = SummaryWriter(str(training.folder))
    running = None
    with tqdm(total=steps * options.batch_size, initial=training.step * options.batch_size, unit=" images") as bar:
        for batch in batches:
            batch = {name: value.to(device) for name, value in batch.items()}
            batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = options.lr * rate_at(training.step, steps)
            with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                loss = training_loss(model, auxiliary, body, batch, options.auxiliary_weight)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            training.step += 1
            bar.update(options.batch_size)
            if training.step % 20 == 0 or training.step == steps:
                value = loss.item()
                if not math.isfinite(value):
                    raise UserError(f"the loss is not finite after {training.step} steps; use a smaller --lr")
                running = value if running is None else 0.9 * running + 0.1 * value
                bar.set_postfix(loss=f"{running:.3f}", refresh=False)
                writer.add_scalar("loss", value, training.step * options.batch_size)
            if training.step % every == 0 or training.step == steps:
                scores = check(model)
                row = {"images": training.step * options.batch_size, "loss": running or loss.item(), **scores}
                training.rows.append(row)
                for name, value in scores.items():
                    writer.add_scalar(name, value, row["images"])
                bar.write(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
                training.save(model)
    writer.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Load, train, save."""
    options = parse(Options, __doc__, argv)
    device = choose_device(options.device)
    torch.manual_seed(options.seed)
    target = options.target or _TARGETS[options.source]
    assets = streams.STREAMS[target].assets
    bodies = {
        name: body.to(device) for name, body in load_bodies(assets.smpl_model_dir, assets.regressor_extra).items()
    }
    regressor = torch.as_tensor(np.load(assets.regressor_h36m), dtype=torch.float32, device=device)
    if options.model_file:
        model = load_hmr(assets.mean_params, Path(options.model_file))
    else:
        model = HMR(load_mean_params(assets.mean_params), options.depth, options.norm)
    model = model.to(device, memory_format=torch.channels_last).train()
    auxiliary = Auxiliary(model).to(device)
    parameters = [*model.parameters(), *auxiliary.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, fused=True)
    source = (
        _RENDERED[options.source](config.DEMO) if options.source in _RENDERED else streams.open_source(streams.H36M)
    )
    check_rendered(streams.STREAMS[target].target)
    frames = validation_frames(options.source, streams.STREAMS[target].open()[0])

    folder = run_folder(options.expdir, options.name)
    save_settings(folder, options)
    training = Training(folder, {"model": model, "auxiliary": auxiliary, "optimizer": optimizer})
    training.restore(device)
    check = functools.partial(validate, frames=frames, bodies=bodies, regressor=regressor, size=options.size)
    if training.step == 0 and not options.model_file:
        training.rows.append({"images": 0, **check(model)})  # the mean pose, which any use must beat
    batches = DataLoader(
        Samples(source, options.seed, options.size),
        batch_size=options.batch_size,
        sampler=range(
            training.step * options.batch_size, math.ceil(options.images / options.batch_size) * options.batch_size
        ),
        num_workers=options.workers,
    )
    train(training, model, auxiliary, bodies["neutral"].joints_only(), batches, options, check)


if __name__ == "__main__":
    run_command(main)
