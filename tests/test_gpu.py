"""The step on a GPU: without one by tensors that have shape and device but no numbers, with one by its numbers."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

import boa
from models.hmr import HMR, load_mean_params
from models.learner import Learner
from models.prior import PosePrior
from streams import DEMO_ASSETS
from utils import losses
from utils.device import set_up_gpus
from utils.joints import SPIN
from utils.structures import Frame

SHAPES = {"image": (3, 224, 224), "keypoints_2d": (49, 3), "joints_3d": (24, 4), "pose": (72,), "betas": (10,)}


@pytest.fixture
def parts(free_body):
    """A network as small as HMR can be, the free body and its prior."""
    torch.manual_seed(0)
    model = HMR(load_mean_params(DEMO_ASSETS.mean_params), depth=18).eval()
    return model, copy.deepcopy(free_body), PosePrior(DEMO_ASSETS.gmm)


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
    for body in (learner.body, learner.joints_body):
        body.parents = body.parents.numpy()  # the tree is read on the host; a GPU is given it as it is
    with FakeTensorMode():
        for module in (learner.model, learner.teacher, learner.body, learner.joints_body, learner.prior):
            forget_numbers(module)
        before, frame, source = (
            {name: torch.empty(size, *shape, device="cuda") for name, shape in SHAPES.items()} for size in (2, 2, 3)
        )
        source = source if with_source else None
        learner.history.recall(before)
        past, probe = learner.history.recall(frame), learner.probe.clone()
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


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (lambda betas: betas.sum() * betas.max().item(), DataDependentOutputException),
        (lambda betas: betas.sum() if betas.sum() > 0 else betas.mean(), DataDependentOutputException),
        (lambda betas: betas[betas > 0].mean(), DynamicOutputShapeException),
        (lambda betas: (betas - torch.zeros(10)).mean(), RuntimeError),
    ],
    ids=["item", "if", "mask", "host"],
)
def test_what_waits_for_the_gpu_or_lies_on_the_host_is_seen(parts, monkeypatch, fault, error):
    monkeypatch.setattr(losses, "shape_prior", fault)
    with pytest.raises(error):
        both_levels(boa.make_learner(*parts, boa.Options(prev_n=1)))


def one_step(parts, device: str) -> tuple[dict[str, torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """The terms of a step with a frame before it, the gradients, and the joints that are predicted after it."""
    model, body, prior = (copy.deepcopy(part).to(device) for part in parts)
    learner = boa.make_learner(model, body, prior, boa.Options(prev_n=1, metalr=1e-4, lr=1e-4))
    generator = torch.Generator().manual_seed(0)
    batches: list[Frame] = []
    for size in (2, 2, 3):
        batch = {name: 0.3 * torch.randn(size, *shape, generator=generator) for name, shape in SHAPES.items()}
        batches.append({name: value.to(device) for name, value in batch.items()})
    before, frame, source = batches
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
