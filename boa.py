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

import utils.threads  # isort: skip  # noqa: F401, before torch

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from flags import SHORTHANDS, Options, defaults, modes, other_defaults
from models.learner import Learner, Past, feature_change, make_learner, weights_kept
from models.prediction import predict, predict_apart
from parts import run_divided
from runs import Run, list_people, open_run
from utils import losses
from utils.errors import run_command
from utils.files import check_space
from utils.geometry import axis_angle_to_rotmat, rotmat_to_axis_angle
from utils.loop import next_source, to_device, to_numbers
from utils.options import parse
from utils.results import Rehearsal, Results, recorded
from utils.resume import Checkpoints
from utils.structures import Frame, Prediction, Source
from verify import verify


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
    return {"labelled": losses.weighted(parts, losses.LABELLED_WEIGHTS), **losses.named("labelled", parts)}


def teacher_terms(predicted: Prediction, frame: Frame, learner: Learner) -> dict[str, Tensor]:
    """Distance from the mean teacher's prediction of the same frame, with its parts."""
    with torch.no_grad():
        taught = predict(learner.teacher, learner.joints_body, frame)
    parts = losses.teacher(predicted, taught, learner.as_dynaboa)
    return {"teacher": losses.weighted(parts, learner.weights.teacher), **losses.named("teacher", parts)}


def lower_terms(probe: nn.Module, frame: Frame, source: Source | None, learner: Learner) -> dict[str, Tensor]:
    """The lower objective at the probe, from one forward of frame and source, with its `total`; the guard looks."""
    source = source if learner.weights.lower["labelled"] else None
    now, _, sample = predict_apart(probe, learner.joints_body, frame, None, source)
    learner.guard.see(now.joints)
    terms = frame_terms(now, frame["keypoints_2d"], learner)
    if sample is not None:
        terms |= labelled_terms(*sample)
    return {**terms, "total": losses.weighted(terms, learner.weights.lower)}


def upper_terms(
    probe: nn.Module, frame: Frame, past: Past | None, source: Source | None, learner: Learner
) -> dict[str, Tensor]:
    """The upper objective at the probe: the same and the temporal terms, from one forward of frame, history, source."""
    source, target = source if learner.weights.upper["labelled"] else None, frame["keypoints_2d"]
    now, before, sample = predict_apart(probe, learner.joints_body, frame, past and past.frames, source)
    terms = frame_terms(now, target, learner)
    if sample is not None:
        terms |= labelled_terms(*sample)
    if learner.weights.upper["teacher"]:
        terms |= teacher_terms(now, frame, learner)
    if past is not None:
        rows, given = past.rows, past.frames["keypoints_2d"]
        terms["motion"] = losses.motion(
            now.keypoints_2d[rows], before.keypoints_2d, target[rows], given, learner.joints, learner.as_dynaboa
        )
    return {**terms, "total": losses.weighted(terms, learner.weights.upper)}


def probe_step(probe: nn.Module, loss: Tensor) -> Sequence[Tensor | None]:
    """w' = w - a * dL_low(w)/dw, by learn2learn; returns dL_low(w)/dw."""
    from learn2learn.algorithms import maml_update

    # as MAML.adapt does, which would print an error of autograd, a GPU out of memory too, and stumble over it
    second_order = not probe.first_order
    gradients = torch.autograd.grad(loss, list(probe.module.parameters()), create_graph=second_order, allow_unused=True)
    probe.module = maml_update(probe.module, probe.lr, gradients)
    return gradients


@torch.no_grad()
def update_teacher(teacher: nn.Module, model: nn.Module, decay: float) -> None:
    """m = decay * m + (1 - decay) * w, in place; parameters only."""
    torch._foreach_lerp_(list(teacher.parameters()), list(model.parameters()), 1 - decay)


def update_weights(loss: Tensor, learner: Learner, complete: Callable[[], None] | None = None) -> None:
    """A step of Adam on w, with gradients that something may complete; then the teacher follows."""
    learner.optimizer.zero_grad()
    loss.backward()
    if complete:
        complete()
    learner.optimizer.step()
    if learner.weights.upper["teacher"]:
        update_teacher(learner.teacher, learner.model, learner.decay)


def dynamic_steps(
    frame: Frame, past: Past | None, source: Source | None, learner: Learner, before: Tensor
) -> dict[str, Tensor]:
    """DynaBOA (Guan et al., TPAMI 2022): more steps on the upper objective, at w itself, while its features still move.

    `before` (B,H) are these before the weight update. Returns the last step's terms, how many `steps`, last `change`.
    """
    terms, steps, after = {}, 0, learner.hidden(frame)
    while (change := feature_change(before, after)) > learner.dynamic.threshold and steps < learner.dynamic.most:
        terms = upper_terms(learner.model, frame, past, source, learner)
        update_weights(terms["total"], learner)
        before, after, steps = after, learner.hidden(frame), steps + 1
    return {**terms, "steps": change.new_tensor(steps), "change": change}


def both_levels(frame: Frame, past: Past | None, source: Source | None, learner: Learner) -> dict[str, Tensor]:
    """Both levels of `adapt`."""
    # lower level: the weight probe
    probe = learner.probe.clone()
    with learner.watch_lower():
        lower = lower_terms(probe, frame, source, learner)
    gradients = probe_step(probe, lower["total"])
    complete = learner.difference and partial(
        learner.difference, gradients, lambda: lower_terms(learner.model, frame, source, learner)["total"]
    )

    # upper level: the weight update, with the gradient through the probe; the teacher follows
    upper = upper_terms(probe, frame, past, source, learner)
    update_weights(upper["total"], learner, complete)
    return losses.named("lower", lower) | losses.named("upper", upper)


def adapt(frame: Frame, source: Source | None, learner: Learner) -> dict[str, Tensor]:
    """One step of the algorithm; changes model, teacher and optimizer, returns the terms of both levels, unweighted.

    Args:
        frame: `image` (B,3,224,224), `keypoints_2d` (B,49,3); its place in the stream by `sequence`, `person`, `index`
        source: as frame, with `joints_3d` (B,24,4), `pose` (B,72), `betas` (B,10), or what draws such samples for the
            features (B,D) of the frame; without it no labelled term
    """
    if learner.soft_reset and learner.soft_reset.is_due(frame):
        for network in (learner.model, learner.teacher):
            learner.soft_reset(network)
    learner.guard.remember(learner)
    past = learner.history.recall(frame) if learner.weights.upper["motion"] else None
    hidden = learner.hidden(frame) if learner.dynamic else None
    levels = partial(learner.graphs, both_levels) if learner.graphs else both_levels
    terms = levels(frame, past, source, learner)
    further = dynamic_steps(frame, past, source, learner, hidden) if learner.dynamic else {}
    return terms | losses.named("dynamic", further)


def run_stream(
    frames: Iterator[Frame],
    source: Iterator[Source] | None,
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
            if "keypoints_2d" not in batch:  # footage in which the person is not there
                results.add(batch, None)
                bar.update()
                passed(1)
                continue
            frame, terms = to_device(batch, device), {}
            adapted = [False] * len(frame["keypoints_2d"])
            if learner.adapts and any(adapted := coverage.count(batch)):
                terms = adapt(frame, next_source(source, device), learner)
            prediction, jumps = learner.guard.predict(learner, frame, is_updated=any(adapted))
            numbers = to_numbers(terms, prediction, frame)
            results.add({**frame, "jump": jumps}, prediction, score(prediction, frame), numbers, adapted)
            bar.update(len(adapted))
            bar.set_postfix(results.running(), refresh=False)
            passed(len(adapted))
    coverage.check()


def go_through(run: Run, learner: Learner, options: Options, checkpoints: Checkpoints) -> None:
    """All passes that are not done yet; the last one counts."""
    for number in range(run.frames.passes + 1, options.passes + 1):
        results, score = run.results, run.score
        if number < options.passes:
            results, score = Rehearsal(results, f"{number} of {options.passes}"), lambda *_: []
        done = run.frames.taken * options.batch_size
        run_stream(run.frames, run.source, learner, score, results, checkpoints.passed, done)


def read_options(argv: Sequence[str] | None = None) -> Options:
    """The flags of the command line; a stream may have defaults of its own."""
    return parse(Options, __doc__, argv, defaults, other_defaults(), modes, SHORTHANDS)


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
    with_source = adapts and options.has_source
    if options.is_divided:
        print((run_divided(options, with_source).folder / "performance.txt").read_text(), end="")
        return
    run = open_run(options, with_source)
    compat, as_dynaboa = options.paper_compat, options.as_dynaboa
    learner = make_learner(run.model, run.body, run.prior, options, run.joints, run.step, compat, adapts, as_dynaboa)
    record, parts = run.results.run, run.parts()
    checkpoints = Checkpoints(record.folder, options.checkpoint_every, parts and {"learner": learner, **parts})
    if not record.is_complete:
        checkpoints.load()
        check_space(record.folder, checkpoints.bytes_needed() + run.results.bytes_needed(), "the run")
        kept = record.folder / "model.pt" if options.save_model else None
        with recorded(run.results), weights_kept(learner.model, kept), checkpoints.stoppable():
            go_through(run, learner, options, checkpoints)
    print((record.folder / "performance.txt").read_text(), end="")


if __name__ == "__main__":
    run_command(main)
