"""Bilevel Online Adaptation for Out-of-Domain Human Mesh Reconstruction (Guan et al., CVPR 2021).

A network that was trained on one domain meets a video of another. Its weights w follow the video frame by frame:

1. weight probe (lower level): one MAML step on what the frame itself says, w' = w - a * dL_low(w)/dw;
2. weight update (upper level): L_up(w') adds the temporal constraints, motion over n frames and a mean teacher m;
   its gradient is taken through the probe back to w, where Adam makes one step;
3. the teacher follows: m = decay * m + (1 - decay) * w;
4. the frame is predicted, and scored, with the new w.

    python boa.py --name boa-1                          # adapt to 3DPW
    python boa.py --name base --method frozen           # the base model as it is, for comparison
    python boa.py --name tennis --video clip.mp4        # adapt to one's own video
"""

import copy
import dataclasses
import functools
import io
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import config
from datasets import choose_stream, missing_for_footage, open_source, open_stream
from datasets.base import batches
from footage.keypoints import joint_names
from footage.video import Footage, Video, list_people
from models.hmr import load_hmr
from models.prediction import Prediction, predict
from models.prior import PosePrior
from models.smpl import GENDERS, SMPL, load_bodies
from utils import losses
from utils.device import choose_device
from utils.errors import UserError, run_command
from utils.evaluation import SCORES, FootageScorer, Scorer
from utils.files import load_npy
from utils.geometry import axis_angle_to_rotmat, rotmat_to_axis_angle
from utils.joints import H36M17, JOINTS49
from utils.options import option, parse
from utils.results import Results, create_folder

log = logging.getLogger("boa")

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
    # one's own footage instead of a data set
    video: str = option("", "a video file, a folder of pictures or the number of a camera")
    keypoints: str = option("mediapipe", "its 2D joints: mediapipe, or the file or folder of OpenPose or AlphaPose")
    person: int = option(
        0, "whom to follow, as --list_people shows; 0: the largest, most central at the start", least=0
    )
    list_people: bool = option(False, "only write a picture of who is there, with numbers")
    start: float = option(0.0, "seconds of the video at which to begin", least=0)
    stop: float = option(0.0, "seconds of the video at which to stop; 0: its end", least=0)
    stride: int = option(1, "take every n-th frame", least=1)
    max_frames: int = option(0, "stop after so many frames; 0: all", least=0)
    smooth: bool = option(False, "smooth the output over time; what was predicted is saved too")
    export: str = option("none", "an animated file beside the video", choices=("none", "glb", "bvh", "both"))
    # the step
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
    """What is carried from frame to frame, and what the losses need; `body` has only the vertices that joints touch.

    `detected` 2D joints are those of a detector, whose OpenPose rows count too (utils.losses).
    """

    model: nn.Module  # learn2learn's MAML around the network
    teacher: nn.Module
    optimizer: torch.optim.Optimizer
    body: SMPL
    prior: PosePrior
    detected: bool = False


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


class Evidence:
    """Which 2D joints the frames have; those that have none that a loss uses are counted."""

    def __init__(self, detected: bool) -> None:
        self.detected, self.joints = detected, torch.zeros(len(JOINTS49))
        self.frames_with = self.frames_without = 0

    def is_in(self, batch: Batch) -> bool:
        """Whether there is anything to adapt to in the batch."""
        keypoints = batch["keypoints_2d"]
        self.joints = torch.maximum(self.joints, keypoints[..., 2].amax(dim=0))
        visible = losses.visible(keypoints, self.detected)
        self.frames_with += int(visible.sum())
        self.frames_without += int((~visible).sum())
        return bool(visible.any())

    def check(self) -> None:
        """Raise UserError when all frames were without."""
        if self.frames_without and not self.frames_with:
            there = joint_names(self.joints.numpy())
            raise UserError(f"nothing was adapted: no 2D joint that the losses use is in any frame, but only: {there}")


def frame_terms(
    predicted: Prediction, keypoints_2d: Tensor, prior: PosePrior, detected: bool = False
) -> dict[str, Tensor]:
    """What a frame says of its own prediction: distance from its 2D joints (B,49,3), pose and shape priors."""
    body_pose = rotmat_to_axis_angle(predicted.rotmat[:, 1:].flatten(0, 1)).view(-1, 69)
    return {
        "kp2d": losses.kp2d(predicted.keypoints_2d, keypoints_2d, detected),
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
    model, teacher, optimizer, body, prior, detected = learner
    size = len(frame["image"])
    source_images = [] if source is None else [source["image"]]

    # lower level: the probe w' = w - a dL_low/dw, from one forward of frame and source
    # (one with rate 0 stays at w, so that there is nothing to differentiate through)
    probe = model.clone(first_order=options.first_order or options.metalr == 0)
    predicted = predict(probe, body, torch.cat([frame["image"], *source_images]))
    lower = frame_terms(predicted.rows(slice(size)), frame["keypoints_2d"], prior, detected)
    if source is not None:
        lower |= labelled_terms(predicted.rows(slice(size, None)), source)
    lower["total"] = losses.weighted(lower, options.lower_weights)
    probe.adapt(lower["total"])

    # upper level at w': the same terms and the temporal ones, from one forward of frame, history and source
    past_images = [] if past is None else [past.image]
    predicted = predict(probe, body, torch.cat([frame["image"], *past_images, *source_images]))
    now = predicted.rows(slice(size))
    upper = frame_terms(now, frame["keypoints_2d"], prior, detected)
    if source is not None:
        upper |= labelled_terms(predicted.rows(slice(-len(source["image"]), None)), source)
    if options.consistentloss_weight:
        with torch.no_grad():
            taught = predict(teacher, body, frame["image"])
        upper |= teacher_terms(now, taught, options.teacher_weights)
    if past is not None:
        before = predicted.keypoints_2d[size : size + len(past.rows)]
        given = frame["keypoints_2d"][past.rows]
        upper["motion"] = losses.motion(now.keypoints_2d[past.rows], before, given, past.keypoints_2d, detected)
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
    score: Callable[[Prediction, Batch], list[dict[str, float]]],
    results: Results,
    options: Options,
) -> None:
    """The loop: fetch, remember, adapt, predict, score. Without a learner the model stays as it is.

    Raises UserError when a loss is not finite, and at the end when no frame had a 2D joint to adapt to.
    """
    history, evidence = (
        History(options.prev_n, options.paper_compat),
        Evidence(learner is not None and learner.detected),
    )
    device = body.v_template.device
    rate = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
    with tqdm(total=results.frames, unit=" frames", bar_format=rate, dynamic_ncols=True) as bar:
        for batch in stream:
            if "image" not in batch:  # footage in which the person is not there
                results.add_missing(batch["index"], batch["time"], batch["rgb"])
                bar.update()
                continue
            frame = _to_device(batch, device)
            terms = {}
            if learner and evidence.is_in(batch):
                past = history.recall(frame) if options.motionloss_weight else None
                sample = _to_device(next(source), device) if source else None
                terms = adapt(frame, past, sample, learner, options)
            with torch.no_grad():
                prediction = predict(model, body, frame["image"])
            numbers = _numbers(terms, prediction, frame)
            results.facts["frames_not_adapted"] = evidence.frames_without
            results.add(frame, prediction, score(prediction, frame), numbers)
            bar.update(len(frame["image"]))
            bar.set_postfix(results.running(), refresh=False)
    evidence.check()


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


def make_learner(model: nn.Module, body: SMPL, prior: PosePrior, options: Options, detected: bool = False) -> Learner:
    """Set up the model's probe, teacher and optimizer; the model itself is what gets adapted."""
    # not at the top: it takes seconds, and gym, which it imports, announces on the screen that it is not kept up
    with redirect_stderr(io.StringIO()):
        from learn2learn.algorithms import MAML

    teacher = copy.deepcopy(model).requires_grad_(False)
    betas = (options.beta1, options.beta2)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, betas=betas, fused=True)
    return Learner(MAML(model, lr=options.metalr), teacher, optimizer, body.joints_only(), prior, detected)


class Run(NamedTuple):
    """What the loop goes through, how it is scored, and where it is written."""

    frames: Iterator[Batch]
    score: Callable[..., list[dict[str, float]]]
    results: Any  # utils.results.Results or utils.footage.FootageResults


def benchmark_run(options: Options, stream: config.Stream, bodies: Mapping[str, SMPL], facts: dict[str, Any]) -> Run:
    """A data set, scored against its ground truth."""
    device = bodies["neutral"].v_template.device
    shape = (len(H36M17), len(bodies["neutral"].v_template))
    regressor = load_npy(stream.assets.regressor_h36m, shape, "get it with SPIN's data (data/README.md)")
    regressor = torch.as_tensor(regressor, dtype=torch.float32, device=device)
    frames, facts["missing_sequences"] = open_stream(options.dataset_name)
    scorer = Scorer(functools.partial(SCORES[stream.scores], bodies=bodies, regressor=regressor), options.paper_compat)
    folder = create_folder(options.expdir, options.name, options.overwrite)
    results = Results(folder, dataclasses.asdict(options), facts, len(frames), options.save_predictions)
    return Run(batches(frames, options.batch_size), scorer, results)


def footage_run(options: Options, footage: Footage, model: nn.Module, body: SMPL, facts: dict[str, Any]) -> Run:
    """One's own video, scored by its 2D joints against the model as it is now."""
    from footage.results import FootageResults  # draws, plots and exports, which only footage needs
    from footage.window import open_window

    frozen = copy.deepcopy(model).requires_grad_(False)
    scorer = FootageScorer(functools.partial(predict, frozen, body.joints_only()))
    folder = create_folder(options.expdir, options.name, options.overwrite)
    settings = dataclasses.asdict(options)
    window = open_window(footage.name) if footage.video.is_camera else None
    results = FootageResults(
        *(folder, settings, facts, footage.frames, footage.rate, body, options.smooth, options.export), window
    )
    return Run(iter(footage), scorer, results)


def read_options(argv: Sequence[str] | None = None) -> Options:
    """The flags of the command line; a stream may have defaults of its own."""
    return parse(Options, __doc__, argv, lambda given: _stream(given).defaults)


def main(argv: Sequence[str] | None = None) -> None:
    """Load, adapt frame by frame, save; what was scored before an error is saved too."""
    options = read_options(argv)
    device = choose_device(options.device)
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)

    stream = _stream(options)
    footage = open_footage(options) if options.video else None
    if options.list_people:
        print(list_people(footage, Path(options.expdir) / f"{options.name}_people.png"))
        return
    assets = stream.assets
    genders = ("neutral",) if footage else GENDERS
    bodies = load_bodies(assets.smpl_model_dir, assets.regressor_extra, genders)
    bodies = {gender: body.to(device) for gender, body in bodies.items()}
    # group norm has no running statistics, so that eval() only turns dropout off; SPIN's batch norm keeps its own
    model = load_hmr(assets.mean_params, options.model_file or assets.base_model).eval().to(device)
    learner = source = None
    if options.method == "boa":
        prior = PosePrior(assets.gmm).to(device)
        learner = make_learner(model, bodies["neutral"], prior, options, detected=bool(footage))
        source = open_source(stream.source) if options.labelloss_weight else None

    facts = {"protocol": stream.protocol, "device": str(device)}
    if footage:
        run = footage_run(options, footage, model, bodies["neutral"], facts)
    else:
        run = benchmark_run(options, stream, bodies, facts)
    with closing(run.results):
        samples = batches(source, options.batch_size, endless=True) if source else None
        run_stream(run.frames, samples, learner, model, bodies["neutral"], run.score, run.results, options)
    print((run.results.folder / "performance.txt").read_text(), end="")


def _stream(options: Options) -> config.Stream:
    return choose_stream(options.dataset_name, options.video, options.model_file)


def open_footage(options: Options) -> Footage:
    """Open `--video` and its 2D joints, and say so when the free body stands in for SMPL."""
    if options.batch_size > 1:
        raise UserError("--video is adapted to frame by frame; leave --batch_size at 1")
    missing = missing_for_footage(options.model_file)
    if missing and not options.list_people:
        log.info("the body is the free one of %s, as %s is missing", config.DEMO, missing[0])
    video = Video(options.video, options.start, options.stop, options.stride, options.max_frames)
    return Footage(video, options.keypoints, options.person)


if __name__ == "__main__":
    run_command(main)
