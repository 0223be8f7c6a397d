"""The finite difference that stands for the second order, on networks whose gradient jumps."""

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from test_adaptation import sample
from torch import nn

import boa
from models import second_order
from models.double_backward import FastDoubleBackward
from models.hmr import HMR, load_mean_params
from models.prior import PosePrior
from streams import DEMO_ASSETS

RATE = 8e-6  # the paper's


def as_float(batch: dict) -> dict:
    return {name: value.float() for name, value in batch.items()}


def flat_frame() -> dict:
    """A frame half of which is one colour, as walls and skies are: there max pools choose among equals."""
    frame = as_float(sample(1))
    frame["image"][:, :, :112] = 0.3 + 1e-4 * frame["image"][:, :, :112]
    return frame


@pytest.fixture(scope="module")
def network() -> HMR:
    torch.manual_seed(0)
    return HMR(load_mean_params(DEMO_ASSETS.mean_params), depth=18).eval()


def gradient(
    network: nn.Module, body: nn.Module, dtype: torch.dtype = torch.float32, **options: object
) -> torch.Tensor:
    """The gradient of one step, as one vector."""
    model, body = copy.deepcopy(network).to(dtype), copy.deepcopy(body).to(dtype)
    options = boa.Options(metalr=RATE, lr=0.0, **options)
    learner = boa.make_learner(model, body, PosePrior(DEMO_ASSETS.gmm).to(dtype), options)
    boa.adapt(
        *({name: value.to(dtype) for name, value in batch.items()} for batch in (flat_frame(), sample(2))), learner
    )
    assert not any(weight.grad.requires_grad for weight in model.parameters())
    return torch.cat([weight.grad.flatten().double() for weight in model.parameters()])


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def test_its_gradient_is_the_exact_one_in_double_precision_to_1e_3(network, free_body, caplog):
    exact = gradient(network, free_body, torch.float64)
    assert error(gradient(network, free_body, second_order="fd"), exact) < 2e-4
    assert error(gradient(network, free_body, first_order=True), exact) > 5e-3  # so there was something to be found
    assert not caplog.records


def test_a_step_too_long_is_warned_of(network, free_body, monkeypatch, caplog):
    monkeypatch.setattr(second_order, "STEP", 1e-3)
    gradient(network, free_body, second_order="fd")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the gradient is off by" in caplog.text


class Kinked(nn.Module):
    """All that a derivative chooses by: ReLUs in place and not, a max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.pool = nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.pool(self.relu(self.conv(image))) - 0.1).square().sum()


def test_kinks_within_the_step_do_not_matter(monkeypatch):
    """With a step as long as the weights themselves, which crosses many; L is quadratic between them."""
    monkeypatch.setattr(second_order, "STEP", 1.0)
    torch.manual_seed(1)
    model, image = Kinked().double(), torch.randn(2, 1, 12, 12, dtype=torch.float64)
    weights = list(model.parameters())
    difference = second_order.FiniteDifference(model, rate=0.1)
    with difference.watch():
        gradients = torch.autograd.grad(model(image), weights, create_graph=True)
    v = [torch.randn_like(weight) for weight in weights]
    products = torch.autograd.grad(gradients, weights, v)
    before = [weight.detach().clone() for weight in weights]
    for weight, one in zip(weights, v, strict=True):
        weight.grad = one.clone()
    difference([gradient.detach() for gradient in gradients], lambda: model(image))
    for weight, old, one, product in zip(weights, before, v, products, strict=True):
        assert torch.equal(weight, old)
        torch.testing.assert_close(weight.grad, one - 0.1 * product, rtol=1e-9, atol=1e-9)


def test_a_low_precision_is_the_networks_alone(network, free_body):
    exact, low = copy.deepcopy(network), copy.deepcopy(network)
    low.in_bf16 = True
    seen, roughly = (model.features(flat_frame()["image"]) for model in (exact, low))
    assert roughly.dtype == torch.float32
    assert 1e-4 < error(roughly, seen) < 3e-2
    found = gradient(low, free_body, first_order=True)
    assert error(found, gradient(exact, free_body, first_order=True)) < 0.2


@pytest.mark.parametrize("how", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2}])
def test_the_fast_convolution_has_the_derivatives_of_the_slow_one(how):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, bias=False, **how).double()
    image = torch.randn(2, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    check_twice(lambda x: conv(x), image, conv.weight)


def test_the_fast_group_norm_has_the_derivatives_of_the_slow_one():
    torch.manual_seed(0)
    norm = nn.GroupNorm(2, 6).double()
    nn.init.normal_(norm.weight)
    check_twice(lambda x: norm(x), torch.randn(3, 6, 4, 5, dtype=torch.float64, requires_grad=True), *norm.parameters())


def check_twice(function: Callable, image: torch.Tensor, *weights: torch.Tensor) -> None:
    """First and second derivatives by finite differences, and that the fast way was gone."""

    def fast(image: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        with FastDoubleBackward():
            return function(image)

    assert type(fast(image).grad_fn) is not type(function(image).grad_fn)
    torch.testing.assert_close(fast(image), function(image))
    assert torch.autograd.gradcheck(fast, (image, *weights))
    assert torch.autograd.gradgradcheck(fast, (image, *weights))


def test_what_is_neither_stays_as_it_is():
    """A convolution with bias, one padded by a word, a group norm of vectors."""
    layers = [nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3, padding="same", bias=False), nn.GroupNorm(1, 2)]
    for layer, given in zip(layers, [torch.randn(1, 2, 5, 5)] * 2 + [torch.randn(4, 2)], strict=True):
        expected = layer(given)
        with FastDoubleBackward():
            assert torch.equal(layer(given), expected)
