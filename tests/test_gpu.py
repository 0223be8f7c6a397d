"""The step on a GPU: without one by tensors that have shape and device but no numbers, with one by its numbers."""

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import boa
import runs
from models import cuda_graph
from models.hmr import HMR, load_mean_params
from models.joint_branch import JointBranch
from models.learner import Learner
from models.prior import PosePrior
from streams import DEMO_ASSETS
from utils import losses
from utils.device import set_up_gpus
from utils.errors import UserError
from utils.joints import SPIN
from utils.structures import Frame

SHAPES = {"image": (3, 224, 224), "keypoints_2d": (49, 3), "joints_3d": (24, 4), "pose": (72,), "betas": (10,)}


@pytest.fixture(params=["image", "joints"])
def parts(request, free_body):
    """A network as small as HMR can be, or that of joints; the free body and its prior."""
    torch.manual_seed(0)
    mean_params = load_mean_params(DEMO_ASSETS.mean_params)
    model = HMR(mean_params, depth=18) if request.param == "image" else JointBranch(mean_params)
    return model.eval(), copy.deepcopy(free_body), PosePrior(DEMO_ASSETS.gmm)


class NoTraffic(TorchDispatchMode):
    """Raises where numbers go from the host to the GPU or back: either waits, and a recording can have none of it.

    A list of Python's as an index is such numbers, too. A single number is not: it comes along with what is launched.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, results)) if isinstance(value, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim()}
        if len(devices) > 1:
            raise RuntimeError(f"{function} is of {devices}")
        return results


def forget_numbers(module: nn.Module) -> None:
    """Replace parameters and buffers by those of a GPU; inside of a FakeTensorMode, it need not be there."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            fake = torch.empty(weight.shape, dtype=weight.dtype, device="cuda")
            setattr(part, name, nn.Parameter(fake, requires_grad=weight.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda"))


def both_levels(learner: Learner, with_source: bool = True) -> dict[str, torch.Tensor]:
    """The terms of both levels on a GPU that is not there; what would need a number or mixes devices raises.

    Gradients cannot be had so, and the upper level is taken where the lower one is.
    """
    with FakeTensorMode():
        for module in (learner.model, learner.teacher, learner.body, learner.joints_body, learner.prior):
            forget_numbers(module)
        before, frame, source = (
            {name: torch.empty(size, *shape, device="cuda") for name, shape in SHAPES.items()} for size in (2, 2, 3)
        )
        source = source if with_source else None
        learner.history.recall(before)
        past, probe = learner.history.recall(frame), learner.probe.clone()
        with NoTraffic():
            lower = boa.lower_terms(probe, frame, source, learner)
            upper = boa.upper_terms(probe, frame, past, source, learner)
            learner.predict(frame)
    return {**{f"lower/{name}": term for name, term in lower.items()}, **upper}


# SPIN's joints of a data set, all of a detector's
@pytest.mark.parametrize("joints", [SPIN, slice(None)])
@pytest.mark.parametrize("with_source", [True, False])
def test_both_levels_stay_on_the_gpu_and_never_wait_for_it(parts, joints, with_source):
    learner = boa.make_learner(*parts, boa.Options(prev_n=1), joints)
    terms = both_levels(learner, with_source)
    assert {"lower/total", "kp2d", "motion", "teacher", "total"} <= set(terms)
    assert ("labelled" in terms) == with_source
    assert {(term.device.type, term.shape) for term in terms.values()} == {("cuda", ())}


IS_SEEN = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU PyTorch copies it where nobody sees it")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(lambda betas: betas.sum() * betas.max().item(), DataDependentOutputException, id="item"),
        pytest.param(
            lambda betas: betas.sum() if betas.sum() > 0 else betas.mean(), DataDependentOutputException, id="if"
        ),
        pytest.param(lambda betas: betas[betas > 0].mean(), DynamicOutputShapeException, id="mask"),
        pytest.param(lambda betas: (betas - torch.zeros(10)).mean(), RuntimeError, id="host"),
        pytest.param(lambda betas: betas[:, [0, 1]].mean(), RuntimeError, id="list", marks=IS_SEEN),
        pytest.param(
            lambda betas: (betas * betas.new_tensor([1.0] * 10)).mean(), RuntimeError, id="numbers", marks=IS_SEEN
        ),
    ],
)
def test_what_waits_for_the_gpu_or_lies_on_the_host_is_seen(parts, monkeypatch, fault, error):
    monkeypatch.setattr(losses, "shape_prior", fault)
    with pytest.raises(error):
        both_levels(boa.make_learner(*parts, boa.Options(prev_n=1)))


def made_up(sizes: Sequence[int], device: str, seed: int = 0) -> list[Frame]:
    """Batches with all that the losses need."""
    generator = torch.Generator().manual_seed(seed)
    batches = [
        {name: 0.3 * torch.randn(size, *shape, generator=generator) for name, shape in SHAPES.items()} for size in sizes
    ]
    return [{name: value.to(device) for name, value in batch.items()} for batch in batches]


def one_step(parts, device: str) -> tuple[dict[str, torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """The terms of a step with a frame before it, the gradients, and the joints that are predicted after it."""
    model, body, prior = (copy.deepcopy(part).to(device) for part in parts)
    learner = boa.make_learner(model, body, prior, boa.Options(prev_n=1, metalr=1e-4, lr=1e-4))
    before, frame, source = made_up((2, 2, 3), device)
    learner.history.recall(before)
    terms = boa.adapt(frame, source, learner)
    return terms, [weight.grad for weight in model.parameters()], learner.predict(frame).joints


@pytest.mark.parametrize("tf32", [False, True])
def test_a_gpu_rounds_to_tf32_where_that_is_wanted_only(tf32):
    set_up_gpus(tf32)
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == tf32
    set_up_gpus(tf32=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_step_on_the_gpu_is_that_on_the_cpu(parts):
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):  # TF32 has 10 bits of mantissa
        terms, gradients, joints = one_step(parts, "cuda")
    expected = one_step(parts, "cpu")
    for name, term in expected[0].items():
        torch.testing.assert_close(terms[name].cpu(), term, rtol=1e-3, atol=1e-6)
    for gradient, on_cpu in zip(gradients, expected[1], strict=True):
        torch.testing.assert_close(gradient.cpu(), on_cpu, rtol=0, atol=1e-3 * on_cpu.abs().max().item())
    torch.testing.assert_close(joints.cpu(), expected[2], rtol=0, atol=1e-3)


def learner_of(parts, device: str, **flags: object) -> Learner:
    """One with copies of the parts."""
    model, body, prior = (copy.deepcopy(part).to(device) for part in parts)
    return boa.make_learner(model, body, prior, boa.Options(prev_n=1, metalr=1e-4, lr=1e-4, jump_limit=1, **flags))


def several_steps(learner: Learner) -> tuple[list[float], torch.Tensor, list[str]]:
    """All terms of ten frames, of which two begin a sequence, the joints that are predicted last, and the jumps."""
    device, numbers, jumps = learner.body.v_template.device.type, [], []
    frames, sources = made_up([2] * 10, device), made_up([3] * 10, device, seed=1)
    for index, (frame, source) in enumerate(zip(frames, sources, strict=True)):
        place = {"sequence": ["ab"[index // 7]] * 2, "person": torch.zeros(2, dtype=torch.long)}
        frame |= {**place, "index": torch.tensor([2 * index, 2 * index + 1])}
        numbers += [term.item() for term in boa.adapt(frame, source, learner).values()]
        prediction, jumped = learner.guard.predict(learner, frame, is_updated=True)
        jumps += jumped
    return numbers, prediction.joints.cpu(), jumps


def tape(learner: Learner, played: list[int]) -> Callable:
    """Stands in for a GPU's recording: plays a function again, on the same inputs, into the same terms."""

    def record(run: Callable[[], dict[str, torch.Tensor]]) -> tuple[Callable[[], None], dict[str, torch.Tensor]]:
        changed = (learner.model, learner.teacher, learner.optimizer)
        kept = [copy.deepcopy(part.state_dict()) for part in changed]
        terms = run()
        seen = learner.guard.before
        for part, state in zip(changed, kept, strict=True):
            part.load_state_dict(state)

        def play() -> None:
            played.append(1)
            learner.guard.before = None
            for name, term in run().items():
                terms[name].copy_(term)
            seen.copy_(learner.guard.before)

        return play, terms

    return record


def test_what_is_recorded_is_played_with_the_inputs_of_each_frame(parts, monkeypatch):
    expected = several_steps(learner_of(parts, "cpu", first_order=True))
    learner, played = learner_of(parts, "cpu", first_order=True, cuda_graph=True), []
    monkeypatch.setattr(cuda_graph, "record", tape(learner, played))
    numbers, joints, jumps = several_steps(learner)
    # the first of a sequence have half of a past, or none; three more are met before
    assert len(played) == 10 - 2 - 3
    assert numbers == pytest.approx(expected[0], rel=1e-6) and jumps == expected[2]
    torch.testing.assert_close(joints, expected[1])


@pytest.mark.parametrize(
    ("device", "flags", "words"),
    [
        ("cpu", [], "needs an NVIDIA GPU"),
        ("cuda", ["--second_order", "fd"], "--second_order fd"),
        ("cuda", ["--retrieval"], "--retrieval"),
        ("cuda", ["--revert_jumps"], "--revert_jumps"),
    ],
)
def test_what_cannot_be_recorded_is_refused_at_the_door(monkeypatch, tmp_path, device, flags, words):
    monkeypatch.setattr(runs, "choose_device", lambda wanted: torch.device(device))
    options = boa.read_options(["--name", "x", "--expdir", str(tmp_path), "--cuda_graph", *flags])
    with pytest.raises(UserError, match=words):
        runs.open_run(options, with_source=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("flags", [{"first_order": True}, {}, {"first_order": True, "precision": "bf16"}])
def test_a_recorded_step_has_the_same_numbers(parts, flags):
    set_up_gpus(tf32=False)
    parts[0].in_bf16 = flags.get("precision") == "bf16"
    expected = several_steps(learner_of(parts, "cuda", **flags))
    learner = learner_of(parts, "cuda", **flags, cuda_graph=True)
    numbers, joints, jumps = several_steps(learner)
    assert len(learner.graphs.recordings) == 1
    assert numbers == pytest.approx(expected[0], rel=1e-5) and jumps == expected[2]
    torch.testing.assert_close(joints, expected[1], rtol=0, atol=1e-5)
