"""Bilevel Online Adaptation for Out-of-Domain Human Mesh Reconstruction (Guan et al., CVPR 2021).

A network that was trained on one domain meets a video of another. Its weights w follow the video frame by frame:

1. weight probe (lower level): one MAML step on what the frame itself says, w' = w - a * dL_low(w)/dw;
2. weight update (upper level): L_up(w') adds the temporal constraints, motion over n frames and a mean teacher m;
   its gradient is taken through the probe back to w, where Adam makes one step;
3. the teacher follows: m = decay * m + (1 - decay) * w;
4. the frame is predicted, and scored, with the new w.

    python boa.py --name boa-1                          # adapt to 3DPW
    python boa.py --name base --method frozen           # the base model as it is, for comparison
"""

import copy
import dataclasses
import functools
import io
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, redirect_stderr
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import config
from datasets import open_source, open_stream
from datasets.base import batches
from models.hmr import load_hmr
from models.prediction import Prediction, predict
from models.prior import PosePrior
from models.smpl import SMPL, load_bodies
from utils import losses
from utils.device import choose_device
from utils.errors import UserError, run_command
from utils.evaluation import SCORES, Scorer
from utils.files import load_npy
from utils.geometry import axis_angle_to_rotmat, rotmat_to_axis_angle
from utils.joints import H36M17
from utils.options import option, parse
from utils.results import Results, create_folder

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """Every flag of the command line, in the order of the algorithm."""

    name: str = option("", "name of the run, a folder in --expdir")
    expdir: str = option("experiments", "where results go")
    overwrite: bool = option(False, "replace an earlier run of the same name")
    save_predictions: bool = option(False, "write every frame's rotmat, betas, cam and 3D joints to predictions.npz")
    seed: int = option(22, "of every random number")
    device: str = option("", "cpu, cuda, cuda:1, ...; default: a GPU where there is one")
    dataset_name: str = option("3dpw", "the video stream", choices=tuple(config.STREAMS))
    model_file: str = option("", "the base model; default: data/basemodel.pt")
    batch_size: int = option(1, "frames per step", least=1)
    method: str = option("boa", "boa, or frozen: score the base model without adapting", choices=("boa", "frozen"))
    paper_compat: bool = option(False, "repeat the slips of the published code, to compare numbers with it")
    # lower level and what both levels share
    metalr: float = option(8e-6, "rate a of the weight probe")
    first_order: bool = option(False, "do not differentiate through the weight probe (faster)")
    s2dloss_weight: float = option(10.0, "2D joints")
    shapeloss_weight: float = option(2e-6, "shape prior")
    gmmpriorloss_weight: float = option(1e-4, "pose prior")
    labelloss_weight: float = option(0.1, "labelled source; 0: no source is needed")
    # upper level
    lr: float = option(3e-6, "rate of Adam")
    beta1: float = option(0.5, "of Adam")
    beta2: float = option(0.999, "of Adam")
    prev_n: int = option(5, "frames between the two of the motion loss", least=1)
    motionloss_weight: float = option(0.1, "motion between two frames")
    consistentloss_weight: float = option(0.1, "mean teacher")
    consistent_s3d_weight: float = option(5.0, "mean teacher's 3D joints")
    consistent_s2d_weight: float = option(5.0, "mean teacher's 2D joints")
    consistent_pose_weight: float = option(1.0, "mean teacher's rotations")
    consistent_beta_weight: float = option(0.001, "mean teacher's shape")
    ema_decay: float = option(0.1, "share of its old weights that the teacher keeps")

    @property
    def lower_weights(self) -> dict[str, float]:
        return {
            "kp2d": self.s2dloss_weight,
            "pose_prior": self.gmmpriorloss_weight,
            "shape_prior": self.shapeloss_weight,
            "labelled": self.labelloss_weight,
        }

    @property
    def upper_weights(self) -> dict[str, float]:
        temporal = {"teacher": self.consistentloss_weight, "motion": self.motionloss_weight}
        return {**self.lower_weights, **temporal}

    @property
    def teacher_weights(self) -> dict[str, float]:
        return {
            "kp3d": self.consistent_s3d_weight,
            "kp2d": self.consistent_s2d_weight,
            "pose": self.consistent_pose_weight,
            "betas": self.consistent_beta_weight,
        }


class Learner(NamedTuple):
    """What is carried from frame to frame, and what the losses need; `body` has only the vertices that joints touch."""

    model: nn.Module  # learn2learn's MAML around the network
    teacher: nn.Module
    optimizer: torch.optim.Optimizer
    body: SMPL
    prior: PosePrior


class Past(NamedTuple):
    """Those `rows` of a batch whose frame n before is remembered, with its image and keypoints."""

    rows: list[int]
    image: Tensor  # (K,3,224,224)
    keypoints_2d: Tensor  # (K,49,3)


class History:
    """The last n frames of the person at hand, no more.

    Args:
        n: distance of the two frames of the motion loss
        paper_compat: as the published code, go on across cuts and do without the very first frame
    """

    def __init__(self, n: int, paper_compat: bool = False) -> None:
        self.paper_compat = paper_compat
        self.frames: deque[tuple[int, Tensor, Tensor]] = deque(maxlen=n)
        self.person: tuple[str, int] | None = None

    def recall(self, batch: Batch) -> Past | None:
        """The frames n before those of the batch, which is then remembered itself; None if there is none."""
        found = []
        persons = list(zip(batch["sequence"], batch["person"].tolist(), strict=True))
        for row, (person, index) in enumerate(zip(persons, batch["index"].tolist(), strict=True)):
            if person != self.person and not self.paper_compat:
                self.frames.clear()
            self.person = person
            if len(self.frames) == self.frames.maxlen:
                before, image, keypoints = self.frames[0]
                if before > 0 or not self.paper_compat:
                    found.append((row, image, keypoints))
            self.frames.append((index, batch["image"][row], batch["keypoints_2d"][row]))
        if not found:
            return None
        rows, images, keypoints = zip(*found, strict=True)
        return Past(list(rows), torch.stack(images), torch.stack(keypoints))


def frame_terms(predicted: Prediction, keypoints_2d: Tensor, prior: PosePrior) -> dict[str, Tensor]:
    """What a frame says of its own prediction: distance from its 2D joints (B,49,3), pose and shape priors."""
    body_pose = rotmat_to_axis_angle(predicted.rotmat[:, 1:].flatten(0, 1)).view(-1, 69)
    return {
        "kp2d": losses.kp2d(predicted.keypoints_2d, keypoints_2d),
        "pose_prior": prior(body_pose).mean(),
        "shape_prior": losses.shape_prior(predicted.betas),
    }


def labelled_terms(predicted: Prediction, source: Batch) -> dict[str, Tensor]:
    """Distance from the labels of the source sample, with its parts."""
    rotmat = axis_angle_to_rotmat(source["pose"].view(-1, 3)).view(-1, 24, 3, 3)
    parts = losses.labelled(predicted, source["keypoints_2d"], source["joints_3d"], rotmat, source["betas"])
    return _with_parts("labelled", parts, losses.LABELLED_WEIGHTS)


def teacher_terms(predicted: Prediction, taught: Prediction, weights: dict[str, float]) -> dict[str, Tensor]:
    """Distance from the mean teacher's prediction of the same frame, with its parts."""
    return _with_parts("teacher", losses.teacher(predicted, taught), weights)


def _with_parts(name: str, parts: dict[str, Tensor], weights: dict[str, float]) -> dict[str, Tensor]:
    return {name: losses.weighted(parts, weights), **{f"{name}/{part}": value for part, value in parts.items()}}


@torch.no_grad()
def update_teacher(teacher: nn.Module, model: nn.Module, decay: float) -> None:
    """m = decay * m + (1 - decay) * w, in place; parameters only."""
    for mean, weight in zip(teacher.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)


def adapt(
    frame: Batch, past: Past | None, source: Batch | None, learner: Learner, options: Options
) -> dict[str, Tensor]:
    """One step of the algorithm; changes model, teacher and optimizer, returns the terms of both levels, unweighted.

    Args:
        frame: `image` (B,3,224,224), `keypoints_2d` (B,49,3)
        past: the frames n before; without them there is no motion term
        source: as frame, with `joints_3d` (B,24,4), `pose` (B,72), `betas` (B,10); without it no labelled term
    """
    model, teacher, optimizer, body, prior = learner
    size = len(frame["image"])
    source_images = [] if source is None else [source["image"]]

    # lower level: the probe w' = w - a dL_low/dw, from one forward of frame and source
    # (one with rate 0 stays at w, so that there is nothing to differentiate through)
    probe = model.clone(first_order=options.first_order or options.metalr == 0)
    predicted = predict(probe, body, torch.cat([frame["image"], *source_images]))
    lower = frame_terms(predicted.rows(slice(size)), frame["keypoints_2d"], prior)
    if source is not None:
        lower |= labelled_terms(predicted.rows(slice(size, None)), source)
    lower["total"] = losses.weighted(lower, options.lower_weights)
    probe.adapt(lower["total"])

    # upper level at w': the same terms and the temporal ones, from one forward of frame, history and source
    past_images = [] if past is None else [past.image]
    predicted = predict(probe, body, torch.cat([frame["image"], *past_images, *source_images]))
    now = predicted.rows(slice(size))
    upper = frame_terms(now, frame["keypoints_2d"], prior)
    if source is not None:
        upper |= labelled_terms(predicted.rows(slice(-len(source["image"]), None)), source)
    if options.consistentloss_weight:
        with torch.no_grad():
            taught = predict(teacher, body, frame["image"])
        upper |= teacher_terms(now, taught, options.teacher_weights)
    if past is not None:
        before = predicted.keypoints_2d[size : size + len(past.rows)]
        given = frame["keypoints_2d"][past.rows]
        upper["motion"] = losses.motion(now.keypoints_2d[past.rows], before, given, past.keypoints_2d)
    upper["total"] = losses.weighted(upper, options.upper_weights)

    # updates: Adam at w with the gradient through the probe, then the teacher
    optimizer.zero_grad()
    upper["total"].backward()
    optimizer.step()
    update_teacher(teacher, model, options.ema_decay)
    levels = {"lower": lower, "upper": upper}
    return {f"{level}/{name}": term.detach() for level, terms in levels.items() for name, term in terms.items()}


def run_stream(
    stream: Iterator[Batch],
    source: Iterator[Batch] | None,
    learner: Learner | None,
    model: nn.Module,
    body: SMPL,
    score: Scorer,
    results: Results,
    options: Options,
) -> None:
    """The loop: fetch, remember, adapt, predict, score. Without a learner the model stays as it is.

    Raises UserError when a loss is not finite.
    """
    history = History(options.prev_n, options.paper_compat)
    device = body.v_template.device
    rate = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
    with tqdm(total=results.frames, unit=" frames", bar_format=rate, dynamic_ncols=True) as bar:
        for batch in stream:
            frame = _to_device(batch, device)
            terms = {}
            if learner:
                past = history.recall(frame) if options.motionloss_weight else None
                sample = _to_device(next(source), device) if source else None
                terms = adapt(frame, past, sample, learner, options)
            with torch.no_grad():
                prediction = predict(model, body, frame["image"])
            numbers = _numbers(terms, prediction, frame)
            results.add(frame, prediction, score(prediction, frame), numbers)
            bar.update(len(frame["image"]))
            bar.set_postfix(results.running(), refresh=False)


def _to_device(batch: Batch, device: torch.device) -> dict[str, Any]:
    # what only the host reads, as the person's number, stays there: fetching it back would wait for the device
    moved = ("image", "keypoints_2d", "joints_3d", "pose", "betas", "betas_neutral")
    return {name: value.to(device) if name in moved else value for name, value in batch.items()}


def _numbers(terms: Mapping[str, Tensor], prediction: Prediction, frame: Batch) -> dict[str, float]:
    """The terms as numbers; UserError when one of them, or the prediction, is not finite."""
    checked = {**terms, "prediction": prediction.joints.abs().mean()}
    values = dict(zip(checked, torch.stack(list(checked.values())).tolist(), strict=True))
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        where = ", ".join(frame["imgname"])
        raise UserError(
            f"{', '.join(bad)} not finite at {where}; use a smaller --lr or --metalr, or check its 2D joints"
        )
    return {name: values[name] for name in terms}


def make_learner(model: nn.Module, body: SMPL, prior: PosePrior, options: Options) -> Learner:
    """Set up the model's probe, teacher and optimizer; the model itself is what gets adapted."""
    # not at the top: it takes seconds, and gym, which it imports, announces on the screen that it is not kept up
    with redirect_stderr(io.StringIO()):
        from learn2learn.algorithms import MAML

    teacher = copy.deepcopy(model).requires_grad_(False)
    betas = (options.beta1, options.beta2)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, betas=betas, fused=True)
    return Learner(MAML(model, lr=options.metalr), teacher, optimizer, body.joints_only(), prior)


def main(argv: Sequence[str] | None = None) -> None:
    """Load, adapt frame by frame, save; what was scored before an error is saved too."""
    options = parse(Options, __doc__, argv, lambda given: config.STREAMS[given.dataset_name].defaults)
    device = choose_device(options.device)
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)

    registered = config.STREAMS[options.dataset_name]
    assets = registered.assets
    bodies = {
        name: body.to(device) for name, body in load_bodies(assets.smpl_model_dir, assets.regressor_extra).items()
    }
    shape = (len(H36M17), len(bodies["neutral"].v_template))
    regressor = load_npy(assets.regressor_h36m, shape, "get it with SPIN's data (data/README.md)")
    regressor = torch.as_tensor(regressor, dtype=torch.float32, device=device)
    # group norm has no running statistics, so that eval() only turns dropout off; SPIN's batch norm keeps its own
    model = load_hmr(assets.mean_params, options.model_file or assets.base_model).eval().to(device)
    stream, missing = open_stream(options.dataset_name)
    learner = source = None
    if options.method == "boa":
        prior = PosePrior(assets.gmm).to(device)
        learner = make_learner(model, bodies["neutral"], prior, options)
        source = open_source(options.dataset_name) if options.labelloss_weight else None

    folder = create_folder(options.expdir, options.name, options.overwrite)
    facts = {
        "protocol": registered.protocol,
        "missing_sequences": missing,
        "device": str(device),
    }
    score = functools.partial(SCORES[registered.scores], bodies=bodies, regressor=regressor)
    results = Results(folder, dataclasses.asdict(options), facts, len(stream), options.save_predictions)
    with closing(results):
        frames = batches(stream, options.batch_size)
        samples = batches(source, options.batch_size, endless=True) if source else None
        scorer = Scorer(score, last_pck_counts=options.paper_compat)
        run_stream(frames, samples, learner, model, bodies["neutral"], scorer, results, options)
    print((folder / "performance.txt").read_text(), end="")


if __name__ == "__main__":
    run_command(main)
