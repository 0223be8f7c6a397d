"""Several passes over a stream, weights that go back at a cut, and joints as wrong as a detector's."""

import copy

import numpy as np
import pytest
import torch
import toys
from test_adaptation import sample

import boa
import streams
from datasets.noise import EXCHANGED_SHARE, MISSING_SHARE, with_noise
from models.learner import SoftReset, make_learner
from models.prior import PosePrior
from utils.errors import UserError
from utils.joints import JOINTS49, mirror


@pytest.fixture
def main(own_world, monkeypatch, tmp_path):
    """Run boa.py in this process on toys and a tiny network -> its weights and the folder of the run."""
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream)
    made = []

    def tiny(*_):
        torch.manual_seed(0)
        made.append(toys.TinyRegressor().eval())
        return made[-1]

    monkeypatch.setattr("runs._base_model", tiny)

    def run(*flags: str, name: str = "x"):
        boa.main(["--name", name, "--expdir", str(tmp_path / "out"), "--labelloss_weight", "0", "--lr", "1e-3", *flags])
        return made[-1].layer.weight.detach(), tmp_path / "out" / name

    return run


def test_the_last_of_two_passes_counts_and_starts_where_the_first_one_ended(main, monkeypatch):
    seen = []
    adapt = boa.adapt
    monkeypatch.setattr(boa, "adapt", lambda frame, *rest: (seen.append(frame["imgname"][0]), adapt(frame, *rest))[1])
    once, first = main("--max_frames", "4", name="once")
    twice, second = main("--max_frames", "4", "--passes", "2", "--save_predictions", name="twice")
    assert seen == seen[:4] * 3
    assert not torch.equal(once, twice)
    summaries = [toys.read_summary(folder) for folder in (first, second)]
    assert [summary["frames"] for summary in summaries] == [4, 4] and all(s["complete"] for s in summaries)
    assert summaries[0]["reprojection_share_of_box"] > summaries[1]["reprojection_share_of_box"]
    with np.load(second / "predictions.npz") as predictions:
        assert len(predictions["rotmat"]) == 4


@pytest.mark.slow
def test_all_of_it_works_on_a_video_whose_bank_is_made_at_first_use(tmp_path, monkeypatch):
    toys.write_video(tmp_path / "clip.mp4", 3, size=toys.SIZE)
    toys.write_openpose(tmp_path / "openpose", 3)
    toys.write_source(tmp_path / "wild", tmp_path / "wild" / "h36m_train.npz", frames=6)
    wild = streams.WILD._replace(images=tmp_path / "wild", annotations=tmp_path / "wild" / "h36m_train.npz")
    monkeypatch.setattr(streams, "WILD", wild)
    monkeypatch.setattr(streams, "missing_for_footage", lambda model_file: [tmp_path / "SMPL"])
    monkeypatch.setattr("synthetic.version.is_current", lambda *_: True)
    flags = ["--keypoints", str(tmp_path / "openpose"), "--passes", "2", "--preset", "dynaboa-internet"]
    images = ["--model_file", str(streams.WILD_ASSETS.base_model)]  # which has features
    more = ["--cos_sim_threshold", "-1", "--optim_steps", "1", "--sample_num", "2"]
    boa.main(["--name", "x", "--expdir", str(tmp_path), "--video", str(tmp_path / "clip.mp4"), *flags, *images, *more])
    summary = toys.read_summary(tmp_path / "x")
    assert summary["complete"] and summary["frames"] == 3 and summary["extra_steps"] == 1
    assert "extra steps: 1.00 a frame" in (tmp_path / "x" / "performance.txt").read_text()
    assert wild.bank.exists()


def test_one_pass_is_what_there_is_without_the_flag(main):
    plain, _ = main("--max_frames", "3", name="plain")
    assert torch.equal(plain, main("--max_frames", "3", "--passes", "1", "--soft_reset", "1")[0])


def test_a_camera_has_no_second_pass(monkeypatch, tmp_path):
    class Camera:
        is_camera = True

    class Footage:
        video = Camera()

    monkeypatch.setattr("runs.open_footage", lambda options: Footage())
    with pytest.raises(UserError, match=r"--passes is for what is recorded"):
        boa.main(["--name", "x", "--expdir", str(tmp_path), "--video", "0", "--method", "boa", "--passes", "2"])


# weights that go back at a cut


def at(batch: dict, *places: tuple[str, int]) -> dict:
    names, persons = zip(*places, strict=True)
    return {**batch, "sequence": list(names), "person": torch.tensor(persons)}


def test_a_cut_is_where_another_sequence_or_person_begins_not_where_frames_lack():
    reset = SoftReset(torch.nn.Linear(1, 1), 0.5)
    stream = [[("a", 0)], [("a", 0)], [("a", 1)], [("b", 1)], [("b", 1), ("b", 1)], [("b", 1), ("c", 1)], [("c", 1)]]
    found = [reset.is_due(at({}, *places)) for places in stream]
    assert found == [False, False, True, True, False, True, False]
    assert not reset.is_due({"image": torch.zeros(1)})


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_the_weights_keep_a_fraction_of_their_change_at_a_cut_and_so_does_the_teacher(world, bodies, keep):
    torch.manual_seed(3)
    model, prior = toys.TinyRegressor().double().eval(), PosePrior(world.stream.assets.gmm).double()
    base, body = copy.deepcopy(model), copy.deepcopy(bodies["neutral"]).double()
    options = boa.Options(soft_reset=keep, lr=0.0, metalr=0.0, labelloss_weight=0.0)
    learner = make_learner(model, body, prior, options)
    boa.adapt(at(sample(1), ("a", 0)), None, learner)
    for network in (learner.model, learner.teacher):
        for weight in network.parameters():
            weight.data.add_(0.25)
    boa.adapt(at(sample(2), ("a", 0)), None, learner)  # no cut
    torch.testing.assert_close(model.layer.bias, base.layer.bias + 0.25)
    boa.adapt(at(sample(3), ("b", 0)), None, learner)
    for weight, old in zip(model.parameters(), base.parameters(), strict=True):
        torch.testing.assert_close(weight, (1 - keep) * old + keep * (old + 0.25))
    torch.testing.assert_close(learner.teacher.layer.bias, model.layer.bias)


def test_a_reset_is_refused_where_there_are_no_cuts_to_know(capsys):
    for flags, mode in (
        (["--video", "a.mp4", "--method", "boa"], "--dataset_name"),
        (["--method", "frozen"], "--method boa"),
    ):
        with pytest.raises(SystemExit):
            boa.read_options(["--name", "x", "--soft_reset", "0.5", *flags])
        assert f"--soft_reset does nothing here: it is for {mode}" in capsys.readouterr().err


# joints as wrong as a detector's


@pytest.fixture
def many(frames):
    """The toy stream, so often that shares can be counted, with joints that say which they are."""
    rows = np.arange(3000) % len(frames)
    columns = {name: column[rows] for name, column in frames.columns.items()}
    columns["keypoints_2d"] = np.zeros((3000, 49, 3))
    columns["keypoints_2d"][..., 0] = 1e6 * np.arange(49)
    columns["keypoints_2d"][..., 2] = 0.8
    columns["scale"] = np.full(3000, 1.5)
    return type(frames)(frames.images, columns, frames.origin)


def test_noise_has_its_deviation_and_some_joints_are_missing_or_exchanged(many):
    noisy = with_noise(many, 0.02, seed=1).columns["keypoints_2d"]
    which = np.round(noisy[..., 0] / 1e6).astype(int)
    left = JOINTS49.index("OP LWrist")
    exchanged = which[:, left] != left
    assert exchanged.mean() == pytest.approx(EXCHANGED_SHARE, abs=0.012)
    assert set(which[exchanged, left]) == {JOINTS49.index(mirror("OP LWrist"))}
    away = noisy[..., :2] - np.stack([1e6 * which, 0 * which], axis=2)
    assert away.std() == pytest.approx(0.02 * 1.5 * 200, rel=0.01)
    assert (noisy[..., 2] == 0).mean() == pytest.approx(MISSING_SHARE, abs=0.003)
    assert set(np.unique(noisy[..., 2])) == {0, 0.8}


def test_noise_is_seeded_and_a_frames_own(many):
    state = np.random.get_state()[1].tolist()
    first, again, other = (with_noise(many, 0.02, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.columns["keypoints_2d"], again.columns["keypoints_2d"])
    assert not np.array_equal(first.columns["keypoints_2d"], other.columns["keypoints_2d"])
    part = first.part(3, 5)
    assert np.array_equal(part.columns["keypoints_2d"], first.columns["keypoints_2d"][:15:3])
    assert np.random.get_state()[1].tolist() == state and many.columns["keypoints_2d"][0, 0, 1] == 0


def test_a_run_on_noisy_joints_has_the_same_truth(main):
    _, exact = main("--max_frames", "3")
    _, noisy = main("--max_frames", "3", "--keypoint_noise", "0.05", name="noisy")
    exact, noisy = toys.read_summary(exact), toys.read_summary(noisy)
    assert exact["mpjpe_mm"] != noisy["mpjpe_mm"]
    assert exact["mpjpe_mm"] == pytest.approx(noisy["mpjpe_mm"], rel=0.5)
