"""The labelled source that is asked (DynaBOA): its bank, its draws, and where they come into a step."""

import copy
import random

import numpy as np
import pytest
import scipy.stats
import torch
import toys
from test_adaptation import sample
from test_dynamic_steps import LARGE, Featured

import boa
import process_data
import runs
import streams
from datasets.retrieval import Bank, Retrieval, open_bank, write_bank
from models.hmr import HMR, load_hmr
from models.learner import make_learner
from models.prior import PosePrior
from utils.errors import UserError


class Samples:
    """A source of which each sample says its row."""

    def __getitem__(self, row: int) -> dict:
        return {"betas": np.full(10, row, np.float32), "imgname": str(row)}


# twelve samples in clusters of eight, three and one, in three directions
BANK = Bank(np.eye(3, 5, dtype=np.float32), np.array([0] * 8 + [1] * 3 + [2]), np.arange(100, 112))


def drawn(source: Retrieval, *queries: np.ndarray) -> list[int]:
    return source(torch.tensor(np.array(queries)))["betas"][:, 0].int().tolist()


@pytest.mark.parametrize("cluster", range(3))
def test_a_query_at_a_centre_draws_from_that_cluster_whatever_its_length(cluster):
    found = [
        drawn(Retrieval(Samples(), BANK, 2, seed=0), length * BANK.centers[cluster]) for length in (1.0, 1e-3, 1e4)
    ]
    assert found[0] == found[1] == found[2]
    assert set(found[0]) <= set(BANK.indices[BANK.labels == cluster])


def test_more_samples_than_there_are_gives_all_without_duplicates():
    assert sorted(drawn(Retrieval(Samples(), BANK, 9, seed=0), BANK.centers[1])) == [108, 109, 110]


def test_the_same_seed_gives_the_same_draws_and_another_one_others():
    found = []
    for seed in (1, 1, 2):
        source = Retrieval(Samples(), BANK, 1, seed)
        found.append([drawn(source, BANK.centers[0]) for _ in range(20)])
    assert found[0] == found[1] != found[2]
    assert len({row for [row] in found[0]}) > 1  # each asking draws anew


def test_draws_shift_no_other_random_numbers():
    states = []
    for _ in range(2):
        states.append((torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()))
        drawn(Retrieval(Samples(), BANK, 2, seed=0), BANK.centers[0])
    assert states[0] == states[1]


def test_draws_within_a_cluster_are_uniform():
    source = Retrieval(Samples(), BANK, 1, seed=3)
    rows = [drawn(source, BANK.centers[0])[0] for _ in range(1000)]
    counts = np.bincount(rows, minlength=108)[100:]
    assert counts.sum() == 1000 and scipy.stats.chisquare(counts).pvalue > 0.01


def test_a_row_of_a_batch_does_not_depend_on_what_another_one_draws():
    ones, others = (
        [source(torch.tensor(np.array([BANK.centers[0], other])))["betas"][0, 0].item() for _ in range(5)]
        for other, source in ((BANK.centers[which], Retrieval(Samples(), BANK, 1, seed=0)) for which in (0, 1))
    )
    assert ones == others


# in a step


class Asked:
    """A source that remembers by what it was asked, and gives one sample for each row."""

    def __init__(self) -> None:
        self.queries: list[torch.Tensor] = []

    def __call__(self, features: torch.Tensor) -> dict:
        assert not features.requires_grad
        self.queries.append(features.clone())
        return sample(7, len(features))


class Moving(Featured):
    """Its pooled features are its own weights, so that they say with which ones it was asked."""

    def forward(self, image):
        params = super().forward(image)
        pooled = self.layer.bias[:6].expand(len(image), -1)
        return params._replace(features=params.features._replace(pooled=pooled))


@pytest.fixture
def asked(world, bodies):
    """A step of a network with a further one -> the learner before it, after it, and by what the source was asked."""
    torch.manual_seed(3)
    model, body = Moving().double().eval(), copy.deepcopy(bodies["neutral"]).double()
    options = boa.Options(**LARGE, dynamic_boa=True, cos_sim_threshold=-1.0, optim_steps=1)
    learner = make_learner(copy.deepcopy(model), body, PosePrior(world.stream.assets.gmm).double(), options)
    source = Asked()
    boa.adapt(sample(1, 2), source, learner)
    return model, learner, source.queries


def test_each_level_asks_by_its_own_weights(asked):
    """The lower one by w, the upper one by w', a further step by the new w."""
    model, _, queries = asked
    assert [len(query) for query in queries] == [2, 2, 2]
    before = model.layer.bias[:6].detach()
    assert torch.equal(queries[0][0], before)
    assert not torch.equal(queries[1], queries[0]) and not torch.equal(queries[2], queries[1])
    # Adam's first step is of the learning rate, whatever the gradient
    torch.testing.assert_close((queries[2][0] - before).abs(), torch.full_like(before, 1e-3), rtol=1e-3, atol=0)
    assert (queries[1][0] - before).abs().max() != pytest.approx(1e-3, rel=1e-2)


def test_the_nearest_centre_may_change_between_the_levels(world, bodies):
    """With a probe so large that w' looks elsewhere than w."""
    torch.manual_seed(3)
    model, body = Moving().double().eval(), copy.deepcopy(bodies["neutral"]).double()
    prior = PosePrior(world.stream.assets.gmm).double()
    source = Asked()
    boa.adapt(sample(1), source, make_learner(copy.deepcopy(model), body, prior, boa.Options(**LARGE)))
    centers = torch.cat(source.queries).numpy()
    both = Bank(centers, np.array([0, 1]), np.array([0, 1]))
    rows = [drawn(Retrieval(Samples(), both, 1, seed=0), query.numpy()[0])[0] for query in source.queries]
    assert rows == [0, 1]


def test_a_labelled_term_is_the_mean_over_all_samples_of_all_rows(world, bodies):
    torch.manual_seed(3)
    model, body = Featured().double().eval(), copy.deepcopy(bodies["neutral"]).double()
    learner = make_learner(model, body, PosePrior(world.stream.assets.gmm).double(), boa.Options(**LARGE))
    frame, several = sample(1), sample(2, 4)
    each = [{name: value[row : row + 1] for name, value in several.items()} for row in range(4)]
    whole = boa.lower_terms(model, frame, lambda features: several, learner)["labelled"]
    apart = [boa.lower_terms(model, frame, one, learner)["labelled"] for one in each]
    torch.testing.assert_close(whole, torch.stack(apart).mean())


# the bank


@pytest.fixture
def network():
    torch.manual_seed(0)
    return HMR(toys.mean_params(), depth=18).eval()


@pytest.fixture
def samples(tmp_path):
    toys.write_source(tmp_path / "H36M", tmp_path / "h36m_train.npz", frames=10)
    recording = streams.H36M._replace(images=tmp_path / "H36M", annotations=tmp_path / "h36m_train.npz")
    return streams.open_source(recording)


def test_a_bank_has_the_features_of_the_crops_and_clusters_of_the_nearest(network, samples, tmp_path):
    write_bank(tmp_path / "bank.npz", network, samples)
    with np.load(tmp_path / "bank.npz") as file:
        arrays = dict(file)
    assert arrays["features"].shape == (10, 512) and arrays["features"].dtype == np.float16
    assert arrays["indices"].tolist() == list(range(10)) and 1 <= len(arrays["centers"]) <= 3
    with torch.no_grad():
        seen = network(torch.tensor(samples[4]["image"])[None]).features.pooled[0].numpy()
    np.testing.assert_allclose(arrays["features"][4], seen, rtol=2e-3, atol=1e-4)
    unit = arrays["features"].astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for cluster, centre in enumerate(arrays["centers"]):  # k-means ends where each centre is the mean of its members
        np.testing.assert_allclose(centre, unit[arrays["labels"] == cluster].mean(axis=0), atol=2e-3)
    again = tmp_path / "again.npz"
    write_bank(again, network, samples)
    assert again.read_bytes() == (tmp_path / "bank.npz").read_bytes()


def test_a_bank_of_another_model_another_source_or_another_size_is_refused_in_a_line(network, samples, tmp_path):
    file = tmp_path / "bank.npz"
    write_bank(file, network, samples)
    open_bank(file, network, samples, "make it again")
    other = copy.deepcopy(network)
    other.fc1.bias.data[0] += 1e-6
    with pytest.raises(UserError, match=r"bank\.npz belongs to another base model; make it again"):
        open_bank(file, other, samples, "make it again")
    with pytest.raises(UserError, match="belongs to another labelled source"):
        open_bank(file, network, samples.part(1, 5), "make it again")
    with np.load(file) as old:
        arrays = dict(old)
    for changed, message in (
        ({"centers": arrays["centers"][:, :100]}, r"centres of shape \(\d, 100\) for 512 features"),
        ({"indices": arrays["indices"] + 5}, "is damaged"),
        ({"labels": arrays["labels"][:5]}, "is damaged"),
    ):
        np.savez(file, **{**arrays, **changed})
        with pytest.raises(UserError, match=message):
            open_bank(file, network, samples, "make it again")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        open_bank(file, network, samples, "make it again")


# the program


@pytest.fixture
def main(own_world, monkeypatch, tmp_path):
    """Run boa.py in this process on toys with a bank -> the folder of the run."""
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream)
    monkeypatch.setattr(streams, "H36M", own_world.stream.source)
    monkeypatch.setattr(streams, "ASSETS", own_world.stream.assets)

    def run(*flags: str, name: str = "x"):
        short = ("--max_frames", "2", "--first_order", "--expdir", str(tmp_path / "out"))
        boa.main(["--name", name, "--retrieval", "1", *short, *flags])
        return tmp_path / "out" / name

    run.world = own_world
    return run


def test_a_run_with_retrieval_needs_the_bank_that_the_converter_makes(main, caplog):
    with pytest.raises(UserError, match=r"h36m_train_bank\.npz is missing; run `python process_data.py --dataset bank"):
        main()
    process_data.main(["--dataset", "bank", "--device", "cpu"])
    assert toys.read_summary(main("--sample_num", "2", "--preset", "dynaboa"))["complete"]
    caplog.set_level("INFO")
    process_data.main(["--dataset", "bank"])
    assert "is of this base model and source" in caplog.text


def test_a_missing_image_of_a_sample_ends_the_run_with_its_name(main):
    process_data.main(["--dataset", "bank", "--device", "cpu"])
    for image in (main.world.folder / "H36M" / "images").iterdir():
        image.unlink()
    with pytest.raises(UserError, match=r"source_\d\.jpg"):
        main()


def test_the_bank_of_a_rendered_source_is_made_at_first_use_and_again_for_another_model(own_world, caplog):
    recording = own_world.stream.source._replace(rendered=True)
    network = load_hmr(own_world.stream.assets.mean_params, own_world.stream.assets.base_model).eval()
    samples, options = streams.open_source(recording), boa.Options(retrieval=True)
    caplog.set_level("INFO")
    for _ in range(2):
        assert isinstance(next(runs.labelled_source(options, recording, samples, network)), Retrieval)
    assert caplog.text.count("sorting the labelled samples") == 1
    network.fc1.bias.data += 1e-3
    next(runs.labelled_source(options, recording, samples, network))
    assert caplog.text.count("sorting the labelled samples") == 2


@pytest.mark.parametrize(
    "flags", [["--labelloss_weight", "0"], ["--lower_level_mixtrain", "0", "--upper_level_mixtrain", "0"]]
)
def test_retrieval_without_a_source_is_refused_in_a_line(main, flags):
    with pytest.raises(UserError, match=r"--retrieval draws from the labelled source.* add --retrieval 0"):
        main(*flags)


def test_flags_of_retrieval_do_nothing_without(capsys):
    for flags in (["--sample_num", "2"], ["--bank", "x.npz"]):
        with pytest.raises(SystemExit):
            boa.read_options(["--name", "x", *flags])
        assert "does nothing here: it is for --retrieval" in capsys.readouterr().err
