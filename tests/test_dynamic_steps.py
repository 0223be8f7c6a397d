"""Further steps on the upper objective while the features move (DynaBOA), argued with plain autograd and scripts."""

import copy
import csv
import gc
import weakref

import numpy as np
import pytest
import torch
import toys
from test_adaptation import place, sample
from torch import nn

import boa
import streams
from models.hmr import HMR
from models.learner import THRESHOLD, THRESHOLD_LR, Learner, feature_change, make_learner
from models.prediction import features_of, predict
from models.prior import PosePrior
from models.smpl import SMPL
from utils import losses
from utils.errors import UserError
from utils.geometry import axis_angle_to_rotmat, rotmat_to_axis_angle
from utils.structures import Features

LARGE = {"metalr": 1e-2, "lr": 1e-3, "prev_n": 1}


class Featured(toys.TinyRegressor):
    """The tiny network with features: a part of the image, and its own output."""

    def forward(self, image):
        params = super().forward(image)
        pooled = nn.functional.avg_pool2d(image, 56).flatten(1)
        return params._replace(features=Features(pooled, torch.cat([params.betas, params.cam], dim=1)))


@pytest.fixture
def parts(world, bodies):
    torch.manual_seed(3)
    body = copy.deepcopy(bodies["neutral"]).double()
    return Featured().double().eval(), body, PosePrior(world.stream.assets.gmm).double()


def learner_of(parts, **options) -> Learner:
    model, body, prior = parts
    return make_learner(copy.deepcopy(model), body, prior, boa.Options(**{**LARGE, **options}))


def stream(count: int) -> list[tuple[dict, dict]]:
    """Frames that follow each other, each with a labelled sample."""
    return [(place(sample(10 + index), ["a"], [index]), sample(50 + index)) for index in range(count)]


def gone_through(learner: Learner, count: int = 4) -> list[dict[str, torch.Tensor]]:
    return [boa.adapt(frame, source, learner) for frame, source in stream(count)]


def steps_of_adam(learner: Learner) -> int:
    return int(next(iter(learner.optimizer.state.values()))["step"])


def same_weights(one: Learner, other: Learner) -> bool:
    pairs = zip(
        [*one.model.parameters(), *one.teacher.parameters()],
        [*other.model.parameters(), *other.teacher.parameters()],
        strict=True,
    )
    return all(torch.equal(*pair) for pair in pairs)


# off


def plain_step(model, teacher, probe, optimizer, body: SMPL, prior, frame, past, source) -> None:
    """A step of BOA written out with one forward for each level, and nothing of dynamic steps or retrieval."""

    def objective(network, upper: bool) -> torch.Tensor:
        batches = [frame, *([past] if upper and past else []), source]
        predicted = predict(network, body, *batches)
        now, there = predicted.rows(slice(1)), predicted.rows(slice(-1, None))
        pose = rotmat_to_axis_angle(now.rotmat[:, 1:].flatten(0, 1)).view(-1, 69)
        rotmat = axis_angle_to_rotmat(source["pose"].view(-1, 3)).view(-1, 24, 3, 3)
        labelled = losses.labelled(there, source["keypoints_2d"], source["joints_3d"], rotmat, source["betas"])
        terms = [
            10.0 * losses.kp2d(now.keypoints_2d, frame["keypoints_2d"]),
            1e-4 * prior(pose).mean(),
            2e-6 * losses.shape_prior(now.betas),
            0.1 * losses.weighted(labelled, losses.LABELLED_WEIGHTS),
        ]
        if upper:
            with torch.no_grad():
                taught = predict(teacher, body, frame)
            weights = {"kp3d": 5.0, "kp2d": 5.0, "pose": 1.0, "betas": 0.001}
            terms.append(0.1 * losses.weighted(losses.teacher(now, taught), weights))
        if upper and past:
            before, given = predicted.keypoints_2d[1:2], past["keypoints_2d"]
            terms.append(0.1 * losses.motion(now.keypoints_2d, before, frame["keypoints_2d"], given))
        return torch.stack(terms).sum()

    clone = probe.clone()
    clone.adapt(objective(clone, upper=False))
    optimizer.zero_grad()
    objective(clone, upper=True).backward()
    optimizer.step()
    with torch.no_grad():
        torch._foreach_lerp_(list(teacher.parameters()), list(model.parameters()), 1 - 0.1)


def test_with_every_flag_at_its_default_nothing_differs_by_a_bit(parts):
    """Weights of model and teacher, prediction and the state of the random numbers."""
    _, _, prior = parts
    torch.manual_seed(5)
    plain = learner_of(parts)
    for index, (frame, source) in enumerate(stream(4)):
        past = {name: stream(4)[index - 1][0][name] for name in ("image", "keypoints_2d")} if index else None
        args = (plain.joints_body, prior, frame, past, source)
        plain_step(plain.model, plain.teacher, plain.probe, plain.optimizer, *args)
    state, expected = torch.get_rng_state(), plain.predict(frame)

    torch.manual_seed(5)
    learner = learner_of(parts)
    gone_through(learner)
    assert same_weights(learner, plain) and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(*pair) for pair in zip(learner.predict(frame)[:6], expected[:6], strict=True))


@pytest.mark.parametrize("options", [{"cos_sim_threshold": 2.0}, {"cos_sim_threshold": -1.0, "optim_steps": 0}])
def test_no_further_step_is_the_same_to_the_bit_as_none_allowed(parts, options):
    off, on = learner_of(parts), learner_of(parts, dynamic_boa=True, **options)
    gone_through(off)
    assert [terms["dynamic/steps"].item() for terms in gone_through(on)] == [0] * 4
    assert same_weights(off, on)


# on


@pytest.mark.parametrize("most", [1, 3])
def test_a_threshold_below_everything_takes_all_steps_each_with_adam_and_teacher(parts, most, monkeypatch):
    taught = []
    update = boa.update_teacher
    monkeypatch.setattr(boa, "update_teacher", lambda *args: taught.append(update(*args)))
    learner = learner_of(parts, dynamic_boa=True, cos_sim_threshold=-1.0, optim_steps=most)
    assert [terms["dynamic/steps"].item() for terms in gone_through(learner, 3)] == [most] * 3
    assert steps_of_adam(learner) == len(taught) == 3 * (1 + most)


def test_a_further_step_is_adam_on_the_plain_upper_objective_written_out_by_hand(parts):
    """Fresh autograd of the plain network with one forward per image, and Adam's formulas."""
    _, body, prior = parts
    frame, source, before = sample(1), sample(2), sample(3)
    options = {"cos_sim_threshold": -1.0, "optim_steps": 1}
    learners = [learner_of(parts, dynamic_boa=on, **options) for on in (False, True)]
    for learner in learners:
        learner.history.recall(before)
        boa.adapt(frame, source, learner)
    first, extended = learners

    network = copy.deepcopy(first.model)
    here, there, earlier = (predict(network, body, batch) for batch in (frame, source, before))
    with torch.no_grad():
        taught = predict(first.teacher, body, frame)
    pose = rotmat_to_axis_angle(here.rotmat[:, 1:].flatten(0, 1)).view(-1, 69)
    rotmat = axis_angle_to_rotmat(source["pose"].view(-1, 3)).view(-1, 24, 3, 3)
    of_source = losses.labelled(there, source["keypoints_2d"], source["joints_3d"], rotmat, source["betas"])
    of_teacher = losses.teacher(here, taught)
    moved = (here.keypoints_2d - earlier.keypoints_2d)[:, 25:]
    target = (frame["keypoints_2d"] - before["keypoints_2d"])[:, 25:, :2]
    loss = 10 * losses.kp2d(here.keypoints_2d, frame["keypoints_2d"]) + 1e-4 * prior(pose).mean()
    loss = loss + 2e-6 * (here.betas**2).sum(1).mean() + 0.1 * ((moved - target) ** 2).mean()
    loss = loss + 0.1 * sum(weight * of_source[name] for name, weight in losses.LABELLED_WEIGHTS.items())
    weights = {"kp3d": 5, "kp2d": 5, "pose": 1, "betas": 0.001}
    loss = loss + 0.1 * sum(weight * of_teacher[name] for name, weight in weights.items())
    gradients = torch.autograd.grad(loss, list(network.parameters()))

    for weight, gradient, (old, state), teacher, new_teacher in zip(
        extended.model.parameters(),
        gradients,
        first.optimizer.state.items(),
        first.teacher.parameters(),
        extended.teacher.parameters(),
        strict=True,
    ):
        mean = 0.5 * state["exp_avg"] + 0.5 * gradient
        square = 0.999 * state["exp_avg_sq"] + 0.001 * gradient**2
        step = 1e-3 * (mean / (1 - 0.5**2)) / ((square / (1 - 0.999**2)).sqrt() + 1e-8)
        torch.testing.assert_close(weight, old - step, rtol=0, atol=1e-6 * old.abs().max().item())
        torch.testing.assert_close(new_teacher, 0.1 * teacher + 0.9 * weight)


def test_the_change_is_one_minus_the_cosine_of_the_row_that_moved_most():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(3, 1024))
    after = before + rng.normal(size=(3, 1024)) * [[0.001], [0.01], [0.0]]
    change = feature_change(torch.from_numpy(before), torch.from_numpy(after)).item()
    rows = [1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(before, after, strict=True)]
    assert change == pytest.approx(rows[1], rel=1e-6) and rows[1] == max(rows)
    assert feature_change(torch.zeros(1, 4), torch.ones(1, 4)).item() == 1  # not nan


def test_hidden_features_are_the_heads_first_layer_in_its_last_pass_and_pooled_ones_the_mean_of_the_last_map():
    torch.manual_seed(0)
    network, seen, maps = HMR(toys.mean_params(), depth=18).eval(), [], []
    network.fc1.register_forward_hook(lambda module, given, out: seen.append(out))
    network.layer4.register_forward_hook(lambda module, given, out: maps.append(out))
    features = features_of(network, {"image": torch.randn(2, 3, 224, 224)})
    assert len(seen) == 3 and features.hidden.shape == (2, 1024) and features.pooled.shape == (2, 512)
    assert torch.equal(features.hidden, seen[2])
    assert not torch.equal(features.hidden, seen[0]) and not torch.equal(features.hidden, seen[1])
    torch.testing.assert_close(features.pooled, maps[0].mean(dim=(2, 3)))


def test_consecutive_states_are_compared_not_the_first_with_the_last(parts, monkeypatch):
    """Features go a, b, b: the step from a to b asks for one more, which moves nothing and is the last."""
    learner = learner_of(parts, dynamic_boa=True, cos_sim_threshold=0.5, optim_steps=7)
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    scripted = iter([a, b, b, b, b, b, b, b, b])
    monkeypatch.setattr(Learner, "hidden", lambda self, frame: next(scripted))
    terms = boa.adapt(sample(1), sample(2), learner)
    assert terms["dynamic/steps"].item() == 1 and terms["dynamic/change"].item() == 0


def test_rows_without_evidence_do_not_count_in_the_change(parts):
    learner = learner_of(parts, dynamic_boa=True, prev_n=5)
    frame = sample(1, 2)
    frame["keypoints_2d"][1, :, 2] = 0
    assert torch.equal(learner.hidden(frame), features_of(learner.model, frame).hidden[:1])


def test_the_first_frames_have_no_motion_in_further_steps_either(parts):
    learner = learner_of(parts, dynamic_boa=True, cos_sim_threshold=-1.0, optim_steps=1, prev_n=2)
    assert ["dynamic/motion" in terms for terms in gone_through(learner)] == [False, False, True, True]


def test_a_frame_is_remembered_once(parts):
    learner = learner_of(parts, dynamic_boa=True, cos_sim_threshold=-1.0, optim_steps=3, prev_n=3)
    gone_through(learner, 3)
    assert [index for index, *_ in learner.history.frames] == [0, 1, 2]


def test_nothing_is_kept_of_a_frame_beyond_the_history(parts):
    learner, kept, tensors = (
        learner_of(parts, dynamic_boa=True, cos_sim_threshold=-1.0, optim_steps=1, prev_n=3),
        [],
        {},
    )
    for index in range(200):
        frame = place(sample(10), ["a"], [index])
        terms = boa.adapt(frame, sample(50), learner)
        kept += [weakref.ref(tensor) for tensor in (frame["image"], terms["upper/total"], terms["dynamic/total"])]
        del frame, terms
        if index in (19, 199):
            gc.collect()
            assert sum(one() is not None for one in kept) <= 3  # the images of the history
            tensors[index] = sum(type(one) is torch.Tensor for one in gc.get_objects())
    assert tensors[19] == tensors[199]


def test_without_dropout_the_teacher_gives_equal_terms_twice(world, bodies):
    torch.manual_seed(0)
    network = HMR(toys.mean_params(), depth=18).eval()
    options = boa.Options(dynamic_boa=True, cos_sim_threshold=-1.0, optim_steps=1, labelloss_weight=0.0)
    frame = {name: value.float() for name, value in sample(1).items()}
    found = []
    for seed in (1, 2):
        prior = PosePrior(world.stream.assets.gmm)
        learner = make_learner(copy.deepcopy(network), bodies["neutral"], prior, options)
        torch.manual_seed(seed)
        found.append(boa.adapt(frame, None, learner)["dynamic/teacher"])
    assert torch.equal(*found)


# as DynaBOA's published code


def test_as_dynaboa_the_teacher_drops_out_and_all_its_joints_count_where_they_are(parts):
    model, body, prior = parts

    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.drop = copy.deepcopy(model), nn.Dropout(0.2)

        def forward(self, image):
            params = self.network(image)
            return params._replace(betas=self.drop(params.betas + 1))

    [(frame, _)] = stream(1)
    for as_dynaboa in (False, True):
        learner = make_learner(Dropping().double().eval(), body, prior, boa.Options(**LARGE), as_dynaboa=as_dynaboa)
        torch.manual_seed(0)
        one, other = (learner_terms(learner, frame)["teacher/betas"] for _ in range(2))
        assert bool(one == other) != as_dynaboa
    here = learner.predict(frame)
    there = here._replace(joints=here.joints + 1, keypoints_2d=here.keypoints_2d.clone())
    there.keypoints_2d[:, 0] += 2  # not one of SPIN's
    near = losses.teacher(here, there), losses.teacher(here, there, as_dynaboa=True)
    found = [[float(terms[name]) for name in ("kp3d", "kp2d")] for terms in near]
    np.testing.assert_allclose(found, [[0, 0], [1, 4 / 49]], atol=1e-12)


def learner_terms(learner: Learner, frame: dict) -> dict[str, torch.Tensor]:
    return boa.teacher_terms(learner.predict(frame), frame, learner)


def test_as_dynaboa_motion_is_of_joints_that_are_fully_confident_in_both_frames():
    now, before = torch.zeros(1, 49, 2), torch.zeros(1, 49, 2)
    given, given_before = torch.ones(1, 49, 3), torch.zeros(1, 49, 3)
    given_before[..., 2] = 1
    given[:, 30:, 2] = 0.9
    plain = losses.motion(now, before, given, given_before)
    own = losses.motion(now, before, given, given_before, as_dynaboa=True)
    np.testing.assert_allclose([float(plain), float(own)], [1, 5 / 24])  # of joints 25 to 48 the first five


@pytest.mark.parametrize("part", ["--dynamic_boa", "--retrieval"])
def test_paper_compat_repeats_dynaboa_with_either_of_its_parts(part):
    assert boa.read_options(["--name", "x", "--paper_compat", part]).as_dynaboa
    assert not boa.read_options(["--name", "x", part]).as_dynaboa
    assert not boa.read_options(["--name", "x", "--paper_compat"]).as_dynaboa


def test_the_threshold_belongs_to_the_learning_rate_unless_it_is_given():
    assert boa.Options(lr=THRESHOLD_LR).threshold == pytest.approx(THRESHOLD)
    assert boa.Options(lr=10 * THRESHOLD_LR).threshold == pytest.approx(10 * THRESHOLD)
    assert boa.Options(lr=1.0, cos_sim_threshold=0.25).threshold == 0.25


def test_a_network_without_features_is_refused_in_a_line(parts):
    model = toys.TinyRegressor().double().eval()
    with pytest.raises(UserError, match=r"TinyRegressor gives no features; leave out --dynamic_boa"):
        boa.adapt(sample(1), None, learner_of((model, *parts[1:]), dynamic_boa=True))


# levels of the labelled source


@pytest.mark.parametrize(("lower", "upper"), [(True, False), (False, True), (False, False)])
def test_the_labelled_source_is_in_those_levels_that_have_it(parts, lower, upper):
    options = {"lower_level_mixtrain": lower, "upper_level_mixtrain": upper, "dynamic_boa": True}
    learner = learner_of(parts, **options, cos_sim_threshold=-1.0, optim_steps=1)
    terms = boa.adapt(sample(1), sample(2), learner)
    there = [f"{level}/labelled" in terms for level in ("lower", "upper", "dynamic")]
    assert there == [lower, upper, upper]


# the program


@pytest.fixture
def main(own_world, monkeypatch, tmp_path):
    """Run boa.py in this process on toys -> the folder of the run."""
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream)

    def run(*flags: str, name: str = "x"):
        boa.main(["--name", name, "--expdir", str(tmp_path / "out"), *flags])
        return tmp_path / "out" / name

    run.world = own_world
    return run


def rows_of(folder) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


SHORT = ("--max_frames", "3", "--first_order", "--labelloss_weight", "0")
ON = ("--dynamic_boa", "1", "--cos_sim_threshold", "-1", "--optim_steps", "2")


def test_steps_are_in_every_file_only_where_they_are_asked_for(main):
    folder = main(*SHORT, *ON)
    assert [float(row["extra_steps"]) for row in rows_of(folder)] == [2, 2, 2]
    assert all(float(row["feature_change_ppm"]) > 0 for row in rows_of(folder))
    summary = toys.read_summary(folder)
    assert summary["cos_sim_threshold"] == -1 and summary["extra_steps"] == 2 and summary["feature_change_ppm"] > 0
    assert "extra steps: 2.000" in (folder / "performance.txt").read_text()
    off = main(*SHORT, name="off")
    assert (
        "extra_steps" not in rows_of(off)[0]
        and not {"extra_steps", "cos_sim_threshold"} & toys.read_summary(off).keys()
    )


def test_frames_without_evidence_take_no_further_steps(main):
    file = main.world.stream.target.annotations / "flat_packBags_00.npz"
    with np.load(file) as old:
        arrays = dict(old)
    arrays["smpl_j2d"][0, :, 2] = 0
    np.savez(file, **arrays)
    rows = rows_of(main(*SHORT, *ON))
    assert [row["extra_steps"] for row in rows] == ["", "2.0000", "2.0000"]


def test_a_further_step_that_is_not_finite_stops_the_run_and_leaves_the_files(main, monkeypatch):
    upper_terms = boa.upper_terms

    def infinite(network, frame, past, source, learner):
        terms = upper_terms(network, frame, past, source, learner)
        further = network is learner.model and len(learner.history.frames) == 2
        return {**terms, "total": terms["total"] * float("inf")} if further else terms

    monkeypatch.setattr(boa, "upper_terms", infinite)
    with pytest.raises(UserError, match="not finite"):
        main(*SHORT, *ON)
    summary = toys.read_summary(main.world.folder / "out" / "x")
    assert (summary["stopped"], summary["frames"]) == ("not finite", 1)


def test_an_interruption_between_further_steps_leaves_the_files_of_the_frames_before(main, monkeypatch):
    upper_terms = boa.upper_terms

    def interrupted(network, frame, past, source, learner):
        if network is learner.model and len(learner.history.frames) == 3:
            raise KeyboardInterrupt
        return upper_terms(network, frame, past, source, learner)

    monkeypatch.setattr(boa, "upper_terms", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(*SHORT, *ON, "--save_predictions")
    folder = main.world.folder / "out" / "x"
    assert toys.read_summary(folder)["frames"] == len(rows_of(folder)) == 2
    with np.load(folder / "predictions.npz") as predictions:
        assert len(predictions["rotmat"]) == 2


def test_the_other_level_of_no_source_needs_none_on_the_disk(main):
    main.world.stream.source.annotations.unlink()
    flags = ("--lower_level_mixtrain", "0", "--upper_level_mixtrain", "0", "--max_frames", "2")
    assert toys.read_summary(main(*flags))["complete"]


# the command line


def read(*flags: str):
    return boa.read_options(["--expname", "x", *flags])


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        *(("fastlr", "metalr"), ("alpha", "ema_decay"), ("teacherloss_weight", "consistentloss_weight")),
        *(("shape_prior_weight", "shapeloss_weight"), ("pose_prior_weight", "gmmpriorloss_weight")),
        ("interval", "prev_n"),
    ],
)
def test_the_names_of_dynaboa_s_flags_are_known(alias, name):
    assert read(f"--{alias}", "1") == read(f"--{name}", "1") != read()


def test_switches_take_0_and_1():
    assert read("--save_res", "1").save_predictions and read("--save_res").save_predictions
    assert not read("--save_res", "0").save_predictions and not read("--first_order", "0").first_order


def test_flags_that_stand_for_others():
    assert read("--use_meanteacher", "0") == read("--consistentloss_weight", "0")
    assert read("--use_motion", "0") == read("--motionloss_weight", "0")
    plain = read("--metalr", "0", "--motionloss_weight", "0", "--consistentloss_weight", "0")
    assert read("--use_boa", "0") == plain
    assert read("--use_boa", "1", "--use_motion", "1", "--use_meanteacher", "1", "--inner_step", "1") == read()


def test_the_preset_is_overruled_by_what_is_given(capsys):
    preset = read("--preset", "dynaboa")
    assert (preset.beta2, preset.motionloss_weight, preset.first_order, preset.dynamic_boa) == (0.9, 0.8, True, True)
    given = read("--preset", "dynaboa", "--beta2", "0.99", "--first_order", "0", "--optim_steps", "3")
    assert (given.beta2, given.first_order, given.optim_steps, given.motionloss_weight) == (0.99, False, 3, 0.8)
    assert read("--preset", "dynaboa-internet").shapeloss_weight == 2e-4
    with pytest.raises(SystemExit):
        read("--help")
    assert "dynaboa: --beta2 0.9 --motionloss_weight 0.8 --first_order 1" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--inner_step 2", "invalid choice: '2'"),
        ("--cos_sim_threshold 1", "--cos_sim_threshold does nothing here: it is for --dynamic_boa"),
        ("--dynamic_boa 0 --optim_steps 3", "--optim_steps does nothing here: it is for --dynamic_boa"),
        ("--method frozen --preset dynaboa", "--preset does nothing here: it is for --method boa"),
        ("--dynamic_boa 2", "invalid choice: 2"),
        ("--dynamic_boa --optim_steps -1", "--optim_steps must be at least 0"),
    ],
)
def test_flags_that_do_nothing_or_are_wrong_are_refused(capsys, flags, message):
    with pytest.raises(SystemExit):
        read(*flags.split())
    assert message in capsys.readouterr().err.splitlines()[-1]
