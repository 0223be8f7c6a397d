"""The pose prior of SMPLify (Bogo et al., ECCV 2016): a mixture of Gaussians over body poses."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from utils.errors import UserError, reason_for
from utils.restricted_pickle import load_pickle, numbers

_SIZE = 69  # angles
_REMEDY = "get it with SPIN's data (data/README.md)"


class PosePrior(nn.Module):
    """Negative logarithm of the most likely Gaussian of the mixture (section 3.3 of the paper).

    Raises UserError when the file is missing, damaged or of other shapes: means (K,69), covars (K,69,69), weights (K,).
    """

    def __init__(self, gmm_file: Path) -> None:
        super().__init__()
        means, covariances, weights = _read_mixture(gmm_file)
        # only ratios of the determinants, which are too small for float32, enter
        log_roots = np.linalg.slogdet(covariances)[1] / 2
        offsets = np.log(weights) - _SIZE / 2 * np.log(2 * np.pi) - (log_roots - log_roots.min())
        self.register_buffer("means", torch.as_tensor(means, dtype=torch.float32))
        self.register_buffer("precisions", torch.as_tensor(np.linalg.inv(covariances), dtype=torch.float32))
        self.register_buffer("offsets", torch.as_tensor(offsets, dtype=torch.float32))

    def components(self, body_pose: Tensor) -> Tensor:
        """Energy (B,K) of body poses (B,69), axis-angle, under every Gaussian."""
        away = body_pose[:, None] - self.means
        return 0.5 * torch.einsum("bki,kij,bkj->bk", away, self.precisions, away) - self.offsets

    def forward(self, body_pose: Tensor) -> Tensor:
        """Energy (B,) of body poses (B,69), axis-angle."""
        return self.components(body_pose).min(dim=1).values


def _read_mixture(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    gmm = load_pickle(file, ("means", "covars", "weights"), _REMEDY)
    try:
        weights = numbers(gmm["weights"], (None,))
        means = numbers(gmm["means"], (len(weights), _SIZE))
        covariances = numbers(gmm["covars"], (len(weights), _SIZE, _SIZE))
        if not len(weights) or not all(np.isfinite(array).all() for array in (weights, means, covariances)):
            raise ValueError("it holds what is no finite number")
        if (weights <= 0).any():
            raise ValueError("weights are not above zero")
        np.linalg.cholesky(covariances)  # an error where one is no covariance
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} is no mixture over {_SIZE} angles ({reason_for(error)}); {_REMEDY}") from error
    return means, covariances, weights
