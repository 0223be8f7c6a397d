"""A labelled source that is asked: samples that look like the frame at hand (Guan et al., TPAMI 2022, DynaBOA).

A bank says which samples look alike: the features that the base model, as it was trained, has of them, in clusters. It
belongs to that model and that source.
"""

import hashlib
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.utils.data import default_collate
from tqdm import tqdm

from datasets.base import CroppedFrames, ahead
from models.prediction import features_of
from utils.errors import UserError
from utils.files import load_npz, save_npz
from utils.loop import to_device
from utils.resume import State
from utils.structures import Frame

LARGEST = 31_176  # samples; of Human3.6M every tenth, as DynaBOA's
_BATCH = 16
_SEED = 0  # of the clusters
_KEYS = ("centers", "labels", "indices", "model", "source")


class Bank(NamedTuple):
    """Samples in clusters.

    Attributes:
        centers: (K,D) of the clusters; labels: (N,) rows of these; indices: (N,) rows of the source
    """

    centers: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def version_of(network: nn.Module, samples: CroppedFrames) -> dict[str, str]:
    """What a bank belongs to: hashes of the network's weights and of the source's crops."""
    model, source = hashlib.sha256(), hashlib.sha256()
    for name, value in network.state_dict().items():
        model.update(name.encode() + value.detach().cpu().numpy().tobytes())
    for column in ("imgname", "center", "scale"):
        source.update(np.ascontiguousarray(samples.columns[column]).tobytes())
    return {"model": model.hexdigest()[:16], "source": source.hexdigest()[:16]}


def write_bank(file: Path, network: nn.Module, samples: CroppedFrames) -> None:
    """Write the bank of a source and of a network, which is as it was trained and in evaluation mode.

    The file has Bank's arrays, the `features` (N,D) float16, and `model` and `source`, which it belongs to. Of large
    sources it has LARGEST samples, evenly spread; of N samples round(sqrt(N)) clusters, by k-means over features of
    length 1. Raises UserError when an image is missing or the file cannot be written.
    """
    indices = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), LARGEST)).round().astype(np.int32))
    features = _features(network, samples, indices)
    centers, labels = _clusters(features)
    version = {name: np.array(value) for name, value in version_of(network, samples).items()}
    save_npz(
        file, features=features.astype(np.float16), centers=centers, labels=labels, indices=indices.copy(), **version
    )


@torch.no_grad()
def _features(network: nn.Module, samples: CroppedFrames, indices: np.ndarray) -> np.ndarray:
    """Pooled features (N,D) of those rows of the source."""
    device, groups = next(network.parameters()).device, np.split(indices, range(_BATCH, len(indices), _BATCH))
    read = ahead(default_collate([samples[index] for index in group]) for group in groups)
    bar = tqdm(read, total=len(groups), desc="bank", unit="batch")
    return np.concatenate([features_of(network, to_device(batch, device)).pooled.cpu().numpy() for batch in bar])


def _clusters(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (K,D) float32 of clusters that have members, and the cluster of each of the features (N,D)."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    count = min(max(1, round(len(unit) ** 0.5)), len(np.unique(unit, axis=0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster, which is left out
        centers, labels = kmeans2(unit.astype(np.float64), count, minit="++", rng=np.random.default_rng(_SEED))
    used, labels = np.unique(labels, return_inverse=True)
    return centers[used].astype(np.float32), labels.astype(np.int32)


def differences(file: Path, network: nn.Module, samples: CroppedFrames, remedy: str) -> list[str]:
    """In what a bank belongs to others, in words; UserError when it is missing or damaged."""
    found = load_npz(file, _KEYS, remedy)
    wanted = version_of(network, samples)
    words = {"model": "another base model", "source": "another labelled source"}
    return [words[name] for name in wanted if str(found[name]) != wanted[name]]


def open_bank(file: Path, network: nn.Module, samples: CroppedFrames, remedy: str) -> Bank:
    """Read a bank of this network, which is as it was trained, and of this source.

    Raises UserError when it is missing or damaged, or belongs to another network or source.
    """
    others = differences(file, network, samples, remedy)
    if others:
        raise UserError(f"{file} belongs to {' and '.join(others)}; {remedy}")
    raw = load_npz(file, _KEYS, remedy)
    bank = Bank(raw["centers"], raw["labels"], raw["indices"])
    size = _features(network, samples, np.zeros(1, np.int32)).shape[1]
    if bank.centers.ndim != 2 or bank.centers.shape[1] != size:
        raise UserError(f"{file} has centres of shape {bank.centers.shape} for {size} features; {remedy}")
    fits = len(bank.labels) == len(bank.indices) and len(np.unique(bank.labels)) == len(bank.centers)
    if not fits or not 0 <= bank.indices.min() <= bank.indices.max() < len(samples):
        raise UserError(f"{file} is damaged: labels, centres and samples do not go together; {remedy}")
    return bank


class Retrieval:
    """Draws labelled samples for the features of frames, from the cluster that is nearest by the cosine.

    As an iterator it gives itself, without end, as other sources do samples.

    Args:
        samples: the source; bank: of it
        count: of samples for each frame; fewer where a cluster has no more
        seed: of the draws, which touch no other random numbers
    """

    def __init__(self, samples: CroppedFrames, bank: Bank, count: int, seed: int) -> None:
        self.samples, self.count, self.seed, self.asked = samples, count, seed, 0
        centers = bank.centers.astype(np.float64)
        self.directions = centers / np.linalg.norm(centers, axis=1, keepdims=True).clip(1e-12)
        self.members = [bank.indices[bank.labels == cluster] for cluster in range(len(centers))]

    def __iter__(self) -> "Retrieval":
        return self

    def __next__(self) -> "Retrieval":
        return self

    def state(self) -> State:
        """How often it was asked, which with the seed says what it draws (utils.resume.Stateful)."""
        return {"asked": self.asked}

    def load_state(self, state: State) -> None:
        """Draw on from there."""
        self.asked = state["asked"]

    def __call__(self, features: Tensor) -> Frame:
        """Samples for each of the features (B,D), on their device: up to B times `count`.

        Raises UserError when the image of one is missing or unreadable.
        """
        rows = [row for frame in enumerate(features.detach().cpu().double().numpy()) for row in self.draw(*frame)]
        self.asked += 1
        return to_device(default_collate([self.samples[row] for row in rows]), features.device)

    def draw(self, place: int, query: np.ndarray) -> np.ndarray:
        """Rows of the source for the query (D,) at a place of the batch, whose draws depend on no other's."""
        members = self.members[np.argmax(self.directions @ query)]
        rng = np.random.default_rng([self.seed, self.asked, place])
        return rng.choice(members, min(self.count, len(members)), replace=False)
