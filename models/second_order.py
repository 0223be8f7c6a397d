"""What differentiating through the weight probe adds to the gradient, by a finite difference.

The gradient of the upper objective at w' = w - a * dL_low(w)/dw, seen from w, is v - a * H v, where v = dL_up(w')/dw'
and H are the second derivatives of L_low at w (Finn et al., ICML 2017, section 5.2). Autograd takes H v from a backward
pass through the backward pass; here it is (dL_low(w + e * v) - dL_low(w)) / e, one forward and backward pass more.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

log = logging.getLogger("boa")

# norm(e * v) / norm(w): a tenth of it drowns in rounding, ten times as much in the third derivative
STEP = 1e-7
TOLERANCE = 1e-3
_RELU, _MAX_POOL = (F.relu, torch.relu, torch.relu_), (F.max_pool2d, torch.max_pool2d)


class _Record(TorchFunctionMode):
    """Keeps what each ReLU lets through, and what each max pool takes; both are kept for their derivatives anyway."""

    def __init__(self) -> None:
        super().__init__()
        self.choices: list[Tensor] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in _MAX_POOL:
            out, taken = F.max_pool2d_with_indices(*args, **(kwargs or {}))
            self.choices.append(taken)
            return out
        out = function(*args, **(kwargs or {}))
        if function in _RELU:
            self.choices.append(out.detach())
        return out


class _Repeat(TorchFunctionMode):
    """Lets each ReLU and max pool choose as it did.

    So does a derivative. A step, as small as it may be, crosses some of their kinks, of max pools on flat areas above
    all, and such a jump of the gradient over a small step is large: 1e-2 of the demo's gradient with the best of steps.
    """

    def __init__(self, choices: Sequence[Tensor]) -> None:
        super().__init__()
        self.left = iter(choices)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in _MAX_POOL:
            taken = next(self.left)
            return args[0].flatten(2).gather(2, taken.flatten(2)).view(taken.shape)
        if function in _RELU:
            return torch.ops.aten.threshold_backward(args[0], next(self.left), 0)  # args[0] where that is above 0
        return function(*args, **(kwargs or {}))


class FiniteDifference:
    """Adds -a * H v to gradients v of the upper objective.

    Args:
        model: whose weights are w
        rate: a, the probe's learning rate
        check_every: steps after which the gradient is compared with the exact one, and a warning given past TOLERANCE
    """

    def __init__(self, model: nn.Module, rate: float, check_every: int = 500) -> None:
        self.model, self.rate, self.check_every = model, rate, check_every
        self.steps, self.worst = 0, 0.0
        self.at_w = _Record()

    def watch(self) -> TorchFunctionMode:
        """In this context L_low(w) is computed, and its choices are remembered."""
        self.at_w = _Record()
        return self.at_w

    @torch.no_grad()
    def __call__(self, gradients: Sequence[Tensor | None], lower: Callable[[], Tensor]) -> None:
        """Complete the gradients that the weights have, which are v; the weights are as before in the end.

        Args:
            gradients: dL_low(w)/dw of each weight, None for one that it does not depend on
            lower: computes L_low with the weights as they are
        """
        parts = [
            (weight, gradient, weight.grad)
            for weight, gradient in zip(self.model.parameters(), gradients, strict=True)
            if gradient is not None and weight.grad is not None
        ]
        weights, at_w, v = map(list, zip(*parts, strict=True))
        exact = self._exact(weights, lower, v) if self.steps % self.check_every == 0 else None
        e = STEP * _norm(weights) / _norm(v).clamp(min=torch.finfo(torch.float32).tiny)
        there = torch._foreach_addcmul(weights, v, [e] * len(v))
        with _moved(weights, there), _Repeat(self.at_w.choices), torch.enable_grad():
            change = torch.autograd.grad(lower(), weights)
        torch._foreach_sub_(change, at_w)
        torch._foreach_addcmul_(v, change, [-self.rate / e] * len(v))
        self.at_w.choices.clear()  # as large as all that the network sees of a frame
        if exact:
            self._check(v, exact)
        self.steps += 1

    @torch.enable_grad()
    def _exact(self, weights: list[Tensor], lower: Callable[[], Tensor], v: list[Tensor]) -> list[Tensor]:
        """v - a * H v by two backward passes."""
        gradients = torch.autograd.grad(lower(), weights, create_graph=True)
        products = torch.autograd.grad(gradients, weights, v, materialize_grads=True)
        return torch._foreach_add(v, products, alpha=-self.rate)

    def _check(self, found: list[Tensor], exact: list[Tensor]) -> None:
        error = (_norm(torch._foreach_sub(found, exact)) / _norm(exact)).item()
        if error > TOLERANCE >= self.worst:
            message = "--second_order fd: the gradient is off by %.1e of its length, over %.0e; better use exact"
            log.warning(message, error, TOLERANCE)
        self.worst = max(self.worst, error)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """The length of all as one vector."""
    return torch.stack(torch._foreach_norm(tensors)).norm()


@contextmanager
def _moved(weights: list[Tensor], there: Sequence[Tensor]) -> Iterator[None]:
    """Weights elsewhere for a while, and then, untouched meanwhile, back."""
    kept = [weight.data for weight in weights]
    try:
        for weight, place in zip(weights, there, strict=True):
            weight.data = place
        yield
    finally:
        for weight, place in zip(weights, kept, strict=True):
            weight.data = place
