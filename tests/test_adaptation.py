"""The algorithm, argued with plain autograd, closed forms and toys."""

import copy
import functools
from itertools import islice

import conftest
import numpy as np
import pytest
import torch
import toys

import boa
from datasets.base import batches
from models.learner import History
from models.prediction import predict
from models.prior import PosePrior
from models.smpl import SMPL
from utils import losses
from utils.evaluation import Scorer, score_3dpw
from utils.geometry import axis_angle_to_rotmat, rotmat_to_axis_angle
from utils.results import BenchmarkResults
from utils.run_folder import RunFolder, create_folder
from utils.structures import Prediction


def make_batch(rows: list[tuple[str, int, int]]) -> dict:
    """A batch of (sequence, person, index); image and keypoints hold the index."""
    index = torch.tensor([row[2] for row in rows])
    return {
        "sequence": [row[0] for row in rows],
        "person": torch.tensor([row[1] for row in rows]),
        "index": index,
        "image": index.float()[:, None],
        "keypoints_2d": index.float()[:, None],
    }


def starts_of_motion(persons: list[tuple[str, int]], paper_compat: bool, n: int = 5) -> list[tuple[int, int]]:
    """(frame, frame before) of every frame that has a motion term."""
    history = History(n, paper_compat=paper_compat)
    pairs = []
    for index, (sequence, person) in enumerate(persons):
        past = history.recall(make_batch([(sequence, person, index)]))
        if past:
            pairs.append((index, int(past.frames["image"][0, 0])))
    return pairs


def test_motion_is_absent_until_frame_n_plus_one():
    pairs = starts_of_motion([("a", 0)] * 8, paper_compat=False)
    assert pairs == [(5, 0), (6, 1), (7, 2)]


def test_motion_starts_one_frame_late_as_published_with_paper_compat():
    assert starts_of_motion([("a", 0)] * 8, paper_compat=True) == [(6, 1), (7, 2)]


def test_history_starts_afresh_at_a_cut_and_at_another_person():
    stream = [("a", 0)] * 4 + [("a", 1)] * 4 + [("b", 1)] * 4
    assert starts_of_motion(stream, paper_compat=False, n=3) == [(3, 0), (7, 4), (11, 8)]


def test_history_runs_on_across_cuts_as_published_with_paper_compat():
    stream = [("a", 0)] * 4 + [("b", 0)] * 4
    assert starts_of_motion(stream, paper_compat=True, n=3) == [(4, 1), (5, 2), (6, 3), (7, 4)]


def test_history_pairs_the_frames_of_a_batch_one_by_one():
    history = History(2)
    assert history.recall(make_batch([("a", 0, 0), ("a", 0, 1)])) is None
    past = history.recall(make_batch([("a", 0, 2), ("b", 0, 3)]))
    assert past.rows == [0]
    assert past.frames["image"].tolist() == [[0.0]]


def test_history_remembers_what_the_network_is_given():
    history, [one, other] = History(1, inputs=("keypoints_2d",)), (make_batch([("a", 0, index)]) for index in range(2))
    del one["image"], other["image"]
    assert history.recall(one) is None
    past = history.recall(other)
    assert list(past.frames) == ["keypoints_2d"] and torch.equal(past.frames["keypoints_2d"], one["keypoints_2d"])


def test_history_keeps_no_more_than_n_frames():
    history = History(5)
    for index in range(50):
        history.recall(make_batch([("a", 0, index)]))
    assert len(history.frames) == 5


@pytest.fixture
def setting(world, bodies):
    torch.manual_seed(3)
    prior = PosePrior(world.stream.assets.gmm)
    model = toys.TinyRegressor().double().eval()
    bodies = {name: copy.deepcopy(body).double() for name, body in bodies.items()}
    return model, bodies["neutral"], prior.double()


def sample(seed: int, size: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    normal = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    confident = torch.ones(size, 49, 1, dtype=torch.float64)
    return {
        "image": normal(size, 3, 224, 224),
        "keypoints_2d": torch.cat([0.5 * normal(size, 49, 2), confident], dim=2),
        "joints_3d": torch.cat([0.3 * normal(size, 24, 3), confident[:, :24]], dim=2),
        "pose": 0.2 * normal(size, 72),
        "betas": normal(size, 10),
    }


def plain_objectives(weights, model, teacher, body: SMPL, prior, frame, past, source, options):
    """Both objectives written out with one forward per image and no learn2learn, as the paper states them.

    `past` are rows of the frame, and the samples n before these.
    """

    def regress(parameters, image) -> Prediction:
        call = functools.partial(torch.func.functional_call, model, dict(zip(names, parameters, strict=True)))
        return predict(lambda given: call(args=(given,)), body, {"image": image})

    def single_frame(parameters):
        here, there = regress(parameters, frame["image"]), regress(parameters, source["image"])
        pose = rotmat_to_axis_angle(here.rotmat[:, 1:].flatten(0, 1)).view(-1, 69)
        rotmat = axis_angle_to_rotmat(source["pose"].view(-1, 3)).view(-1, 24, 3, 3)
        own = 10 * losses.kp2d(here.keypoints_2d, frame["keypoints_2d"]) + 1e-4 * prior(pose).mean()
        own = own + 2e-6 * (here.betas**2).sum(1).mean()
        labelled = 5 * losses.kp3d(there.joints, source["joints_3d"])
        labelled = labelled + 5 * losses.kp2d(there.keypoints_2d, source["keypoints_2d"])
        labelled = (
            labelled + ((there.rotmat - rotmat) ** 2).mean() + 1e-3 * ((there.betas - source["betas"]) ** 2).mean()
        )
        return here, own + 0.1 * labelled

    names = [name for name, _ in model.named_parameters()]
    _, lower = single_frame(weights)
    gradients = torch.autograd.grad(lower, weights, create_graph=not options.first_order)
    probed = [weight - options.metalr * gradient for weight, gradient in zip(weights, gradients, strict=True)]
    here, upper = single_frame(probed)
    rows, earlier = past
    before = regress(probed, earlier["image"])
    with torch.no_grad():
        taught = predict(teacher, body, frame)
    terms = losses.teacher(here, taught)
    upper = upper + 0.1 * (5 * terms["kp3d"] + 5 * terms["kp2d"] + terms["pose"] + 0.001 * terms["betas"])
    moved = here.keypoints_2d[rows] - before.keypoints_2d
    away = moved - (frame["keypoints_2d"][rows] - earlier["keypoints_2d"])[..., :2]
    return lower, upper + 0.1 * (away[:, 25:] ** 2).mean()


def compare_with_plain(setting, options, frame, source, before, past) -> None:
    """A step of boa after a frame `before` has gone by, against the gradient of `plain_objectives` with `past`."""
    model, body, prior = setting
    learner = boa.make_learner(model, body, prior, options)
    for weight in learner.teacher.parameters():
        weight.data.add_(1e-3)
    learner.history.recall(before)
    weights = [weight.detach().clone().requires_grad_() for weight in model.parameters()]
    lower, upper = plain_objectives(
        weights, copy.deepcopy(model), learner.teacher, body, prior, frame, past, source, options
    )
    expected = torch.autograd.grad(upper, weights)

    terms = boa.adapt(frame, source, learner)
    assert terms["lower/total"].item() == pytest.approx(lower.item(), rel=1e-6)
    assert terms["upper/total"].item() == pytest.approx(upper.item(), rel=1e-6)
    for weight, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-5, atol=1e-7 * gradient.abs().max().item())


# a large rate of the probe, so that the second order is not lost beside the first; or none
@pytest.mark.parametrize(("first_order", "metalr"), [(False, 1e-2), (True, 1e-2), (False, 0.0)])
def test_a_step_is_the_gradient_through_the_probe_written_out_by_hand(setting, first_order, metalr):
    options = boa.Options(first_order=first_order, metalr=metalr, lr=1e-3, prev_n=1)
    frame, source, before = sample(1), sample(2), sample(3)
    compare_with_plain(setting, options, frame, source, before, ([0], before))


def place(batch: dict, sequences: list[str], indices: list[int]) -> dict:
    """The batch, with where in a stream it is."""
    return {**batch, "sequence": sequences, "person": torch.zeros(len(indices)), "index": torch.tensor(indices)}


@pytest.mark.parametrize("first_order", [False, True])
def test_a_step_on_a_batch_with_a_cut_in_it_is_the_gradient_written_out_by_hand(setting, first_order):
    """Of three frames the first goes on from the frame before the batch, the second is another sequence's first."""
    options = boa.Options(first_order=first_order, metalr=1e-2, lr=1e-3, prev_n=1, batch_size=3)
    frame, source = place(sample(1, 3), ["a", "b", "b"], [1, 2, 3]), sample(2, 2)
    before = place(sample(3), ["a"], [0])
    earlier = {name: torch.cat([before[name], frame[name][1:2]]) for name in ("image", "keypoints_2d")}
    compare_with_plain(setting, options, frame, source, before, ([0, 2], earlier))


def test_adapting_to_a_frame_brings_its_joints_nearer_and_frame_after_frame_nearer_still(setting):
    model, body, prior = setting
    options = boa.Options(lr=1e-3, motionloss_weight=0.0, labelloss_weight=0.0)
    learner, frame = boa.make_learner(model, body, prior, options), sample(1)
    distances = [losses.kp2d(learner.predict(frame).keypoints_2d, frame["keypoints_2d"]).item()]
    for _ in range(10):
        boa.adapt(frame, None, learner)
        distances.append(losses.kp2d(learner.predict(frame).keypoints_2d, frame["keypoints_2d"]).item())
    assert (np.diff(distances) < 0).all()
    assert distances[-1] < 0.7 * distances[0]


@pytest.mark.parametrize("second_order", ["exact", "fd"])
def test_a_finite_difference_gives_what_differentiating_through_the_probe_gives(setting, second_order):
    """The toy has no kinks; its derivatives by autograd, written out by hand, are those of either way."""
    options = boa.Options(second_order=second_order, metalr=1e-2, lr=1e-3, prev_n=1)
    frame, source, before = sample(1), sample(2), sample(3)
    compare_with_plain(setting, options, frame, source, before, ([0], before))


def test_first_and_second_order_differ(setting):
    model, body, prior = setting
    gradients = []
    for first_order in (False, True):
        options = boa.Options(first_order=first_order, metalr=1e-2)
        own = copy.deepcopy(model)
        boa.adapt(sample(1), sample(2), boa.make_learner(own, body, prior, options))
        gradients.append(own.layer.weight.grad)
    assert (gradients[0] - gradients[1]).norm() > 1e-3 * gradients[0].norm()


@pytest.mark.parametrize(("first_order", "gradient"), [(False, 2 * 0.8**2 * 3.0), (True, 2 * 0.8 * 3.0)])
def test_the_probe_of_a_quadratic_is_the_closed_form(setting, first_order, gradient):
    _, body, prior = setting
    model = torch.nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(3.0)
    probe = boa.make_learner(model, body, prior, boa.Options(metalr=0.1, first_order=first_order)).probe.clone()
    one = torch.ones(1, 1, dtype=torch.float64)
    boa.probe_step(probe, (probe(one) ** 2).sum())  # w' = w - 0.1 * 2w
    assert probe(one).item() == pytest.approx(3.0 * 0.8)
    assert model.weight.item() == 3.0
    (probe(one) ** 2).sum().backward()  # d(0.8 w)^2 / dw; by first order d(w')^2 / dw'
    assert model.weight.grad.item() == pytest.approx(gradient)


def test_teacher_keeps_its_share_of_the_old_weights():
    teacher, model = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.1 * teacher.weight.detach() + 0.9 * model.weight.detach()
    boa.update_teacher(teacher, model, decay=0.1)
    torch.testing.assert_close(teacher.weight, expected)


def test_without_a_labelled_source_the_other_terms_remain(setting):
    model, body, prior = setting
    options = boa.Options(labelloss_weight=0.0)
    terms = boa.adapt(sample(1), None, boa.make_learner(model, body, prior, options))
    assert not [name for name in terms if "labelled" in name]
    assert {"lower/kp2d", "upper/kp2d", "upper/teacher"} <= set(terms)


def adapted_weights(world, frames, bodies, tmp_path, name: str) -> torch.Tensor:
    """Weights after the toy stream, from the program's own loop."""
    torch.manual_seed(0)
    model = toys.TinyRegressor().eval()
    options = boa.Options(name=name, labelloss_weight=0.0, prev_n=2)
    learner = boa.make_learner(model, bodies["neutral"], PosePrior(world.stream.assets.gmm), options)
    regressor = torch.as_tensor(np.load(world.stream.assets.regressor_h36m), dtype=torch.float32)
    scorer = Scorer(functools.partial(score_3dpw, bodies=bodies, regressor=regressor))
    run = RunFolder(create_folder(tmp_path, name, False), options, {})
    results = BenchmarkResults(run, len(frames), False)
    boa.run_stream(batches(frames, 1), None, learner, scorer, results)
    results.close()
    return model.layer.weight.detach()


def test_two_runs_give_the_same_weights_to_the_bit(world, frames, bodies, tmp_path):
    first, second = (adapted_weights(world, frames, bodies, tmp_path, name) for name in "ab")
    assert torch.equal(first, second)


def test_batches_wrap_around_a_source_and_end_a_stream(frames):
    assert [batch["index"].tolist() for batch in batches(frames, 5)] == [
        list(range(5)),
        list(range(5, 10)),
        [10, 11],
    ]
    endless = islice(batches(frames, 5, endless=True), 3)
    assert [batch["index"].tolist() for batch in endless][2] == [10, 11, 0, 1, 2]


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_stream(world, tmp_path):
    peaks = [
        float(conftest.run_script("memory_of_a_stream.py", world.folder, count, tmp_path / str(count)))
        for count in (60, 600)
    ]
    assert peaks[1] - peaks[0] < 20, peaks  # MB
