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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.learner import Learner, Past, StepOptions, make_learner, weights_kept
from models.prediction import predict
from parts import is_divided, run_divided
from runs import RunOptions, learning_rates, list_people, modes, open_run, other_defaults
from utils import losses
from utils.errors import run_command
from utils.files import check_space
from utils.geometry import axis_angle_to_rotmat, rotmat_to_axis_angle
from utils.loop import to_device, to_numbers
from utils.options import parse
from utils.results import Results, recorded
from utils.resume import Checkpoints
from utils.structures import Frame, Prediction
from verify import verify


@dataclass(frozen=True)
class Options(StepOptions, RunOptions):
    """Every flag of the command line: those of the run, and those of the step."""


def frame_terms(predicted: Prediction, keypoints_2d: Tensor, learner: Learner) -> dict[str, Tensor]:
    """What a frame says of its own prediction: distance from its 2D joints (B,49,3), pose and shape priors."""
    body_pose = rotmat_to_axis_angle(predicted.rotmat[:, 1:].flatten(0, 1)).view(-1, 69)
    return {
        "kp2d": losses.kp2d(predicted.keypoints_2d, keypoints_2d, learner.joints),
        "pose_prior": learner.prior(body_pose).mean(),
        "shape_prior": losses.shape_prior(predicted.betas),
    }


def labelled_terms(predicted: Prediction, source: Frame) -> dict[str, Tensor]:
    """Distance from the labels of the source sample, with its parts."""
    rotmat = axis_angle_to_rotmat(source["pose"].view(-1, 3)).view(-1, 24, 3, 3)
    parts = losses.labelled(predicted, source["keypoints_2d"], source["joints_3d"], rotmat, source.get("betas"))
    return _with_parts("labelled", parts, losses.LABELLED_WEIGHTS)


def teacher_terms(predicted: Prediction, frame: Frame, learner: Learner) -> dict[str, Tensor]:
    """Distance from the mean teacher's prediction of the same frame, with its parts."""
    with torch.no_grad():
        taught = predict(learner.teacher, learner.joints_body, frame)
    return _with_parts("teacher", losses.teacher(predicted, taught), learner.weights.teacher)


def _with_parts(name: str, parts: dict[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    return {name: losses.weighted(parts, weights), **{f"{name}/{part}": value for part, value in parts.items()}}


def lower_terms(probe: nn.Module, frame: Frame, source: Frame | None, learner: Learner) -> dict[str, Tensor]:
    """The lower objective at the probe, from one forward of frame and source: `total` and its terms.

    The joints of the frame, as they are before the update, are left to learner.guard.
    """
    size, samples = len(frame["keypoints_2d"]), [] if source is None else [source]
    predicted = predict(probe, learner.joints_body, frame, *samples)
    learner.guard.before = predicted.joints[:size].detach()
    terms = frame_terms(predicted.rows(slice(size)), frame["keypoints_2d"], learner)
    if source is not None:
        terms |= labelled_terms(predicted.rows(slice(size, None)), source)
    return {**terms, "total": losses.weighted(terms, learner.weights.lower)}


def upper_terms(
    probe: nn.Module, frame: Frame, past: Past | None, source: Frame | None, learner: Learner
) -> dict[str, Tensor]:
    """The upper objective at the probe: the same and the temporal terms, from one forward of frame, history, source."""
    size, target = len(frame["keypoints_2d"]), frame["keypoints_2d"]
    others = [batch for batch in (past and past.frames, source) if batch is not None]
    predicted = predict(probe, learner.joints_body, frame, *others)
    now = predicted.rows(slice(size))
    terms = frame_terms(now, target, learner)
    if source is not None:
        terms |= labelled_terms(predicted.rows(slice(-len(source["keypoints_2d"]), None)), source)
    if learner.weights.upper["teacher"]:
        terms |= teacher_terms(now, frame, learner)
    if past is not None:
        rows, before = past.rows, predicted.keypoints_2d[size : size + len(past.rows)]
        given = past.frames["keypoints_2d"]
        terms["motion"] = losses.motion(now.keypoints_2d[rows], before, target[rows], given, learner.joints)
    return {**terms, "total": losses.weighted(terms, learner.weights.upper)}


def probe_step(probe: nn.Module, loss: Tensor) -> None:
    """w' = w - a * dL_low(w)/dw, by learn2learn."""
    from learn2learn.algorithms import maml_update

    # as MAML.adapt does, which would print an error of autograd, a GPU out of memory too, and stumble over it
    second_order = not probe.first_order
    gradients = torch.autograd.grad(loss, list(probe.module.parameters()), create_graph=second_order, allow_unused=True)
    probe.module = maml_update(probe.module, probe.lr, gradients)


@torch.no_grad()
def update_teacher(teacher: nn.Module, model: nn.Module, decay: float) -> None:
    """m = decay * m + (1 - decay) * w, in place; parameters only."""
    torch._foreach_lerp_(list(teacher.parameters()), list(model.parameters()), 1 - decay)


def adapt(frame: Frame, source: Frame | None, learner: Learner) -> dict[str, Tensor]:
    """One step of the algorithm; changes model, teacher and optimizer, returns the terms of both levels, unweighted.

    Args:
        frame: `image` (B,3,224,224), `keypoints_2d` (B,49,3); its place in the stream by `sequence`, `person`, `index`
        source: as frame, with `joints_3d` (B,24,4), `pose` (B,72), `betas` (B,10); without it no labelled term
    """
    past = learner.history.recall(frame) if learner.weights.upper["motion"] else None

    # lower level: the weight probe
    probe = learner.probe.clone()
    lower = lower_terms(probe, frame, source, learner)
    probe_step(probe, lower["total"])

    # upper level: the weight update, with the gradient through the probe
    upper = upper_terms(probe, frame, past, source, learner)
    learner.optimizer.zero_grad()
    upper["total"].backward()
    learner.optimizer.step()

    # the teacher follows
    if learner.weights.upper["teacher"]:
        update_teacher(learner.teacher, learner.model, learner.decay)
    levels = {"lower": lower, "upper": upper}
    return {f"{level}/{name}": term.detach() for level, terms in levels.items() for name, term in terms.items()}


def run_stream(
    frames: Iterator[Frame],
    source: Iterator[Frame] | None,
    learner: Learner,
    score: Callable[[Prediction, Frame], list[dict[str, float]]],
    results: Results,
    passed: Callable[[int], None] = lambda frames: None,
    done: int = 0,
) -> None:
    """The loop: fetch, adapt, predict, score; `passed` is told how many frames more are done than the first `done`.

    Raises NotFiniteError when a loss is not finite, and UserError at the end when no frame had a joint to adapt to.
    """
    coverage, device = learner.coverage, learner.body.v_template.device
    line = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
    with tqdm(total=results.frames, initial=done, unit=" frames", bar_format=line, dynamic_ncols=True) as bar:
        for batch in frames:
            if "image" not in batch:  # footage in which the person is not there
                results.add(batch, None)
                bar.update()
                passed(1)
                continue
            frame, terms = to_device(batch, device), {}
            adapted = [False] * len(frame["image"])
            if learner.adapts and any(adapted := coverage.count(batch)):
                learner.guard.remember(learner)
                terms = adapt(frame, to_device(next(source), device) if source else None, learner)
            prediction, jumps = learner.guard.predict(learner, frame, is_updated=any(adapted))
            numbers = to_numbers(terms, prediction, frame)
            results.add({**frame, "jump": jumps}, prediction, score(prediction, frame), numbers, adapted)
            bar.update(len(frame["image"]))
            bar.set_postfix(results.running(), refresh=False)
            passed(len(frame["image"]))
    coverage.check()


def read_options(argv: Sequence[str] | None = None) -> Options:
    """The flags of the command line; a stream may have defaults of its own."""
    return parse(Options, __doc__, argv, learning_rates, other_defaults(), modes)


def main(argv: Sequence[str] | None = None) -> None:
    """Load, adapt frame by frame, save; what was scored before an error is saved too."""
    options = read_options(argv)
    torch.manual_seed(options.seed)
    if options.verify:
        print(verify(Path(options.verify)))
        return
    if options.list_people:
        print(list_people(options))
        return
    adapts = options.method == "boa"
    with_source = adapts and options.labelloss_weight > 0
    if is_divided(options):
        print((run_divided(options, with_source).folder / "performance.txt").read_text(), end="")
        return
    run = open_run(options, with_source)
    compat = options.paper_compat
    learner = make_learner(run.model, run.body, run.prior, options, run.joints, run.step, compat, adapts)
    record, parts = run.results.run, run.parts()
    checkpoints = Checkpoints(record.folder, options.checkpoint_every, parts and {"learner": learner, **parts})
    if not record.is_complete:
        checkpoints.load()
        check_space(record.folder, checkpoints.bytes_needed() + run.results.bytes_needed(), "the run")
        kept = record.folder / "model.pt" if options.save_model else None
        with recorded(run.results), weights_kept(learner.model, kept), checkpoints.stoppable():
            done = len(record.rows)
            run_stream(run.frames, run.source, learner, run.score, run.results, checkpoints.passed, done)
    print((record.folder / "performance.txt").read_text(), end="")


if __name__ == "__main__":
    run_command(main)
