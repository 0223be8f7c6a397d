"""Frames per second of the loop, and milliseconds per person-frame of the 3DPW converter. `make benchmark` runs it.

Everything is made on the spot: a body with the size of SMPL, a ResNet-50 with random weights, 1,000 person-frames. Set
OMP_WAIT_POLICY=PASSIVE beside other load, or the threads spin while they wait.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

PROJECT = Path(__file__).parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import toys  # noqa: E402

import boa  # noqa: E402
import streams  # noqa: E402
from models.hmr import HMR, load_mean_params  # noqa: E402
from models.prior import PosePrior  # noqa: E402
from models.smpl import load_bodies  # noqa: E402
from utils.data_preprocess import pw3d  # noqa: E402

_FRAMES = 12
_WARM_UP = 3
_PERSON_FRAMES = 1000


def random_frame(generator: torch.Generator, index: int) -> dict:
    """An image and all labels, as a data set gives them."""
    ones = torch.ones(1, 49, 1)
    return {
        "image": torch.randn(1, 3, 224, 224, generator=generator),
        "keypoints_2d": torch.cat([0.3 * torch.randn(1, 49, 2, generator=generator), ones], dim=2),
        "joints_3d": torch.cat([0.3 * torch.randn(1, 24, 3, generator=generator), ones[:, :24]], dim=2),
        "pose": 0.2 * torch.randn(1, 72, generator=generator),
        "betas": torch.randn(1, 10, generator=generator),
        "sequence": ["benchmark"],
        "person": torch.tensor([0]),
        "index": torch.tensor([index]),
    }


def time_loop(depth: int, first_order: bool) -> float:
    """Seconds per frame: history, both levels, updates and the final prediction; without reading and scoring."""
    assets = streams.DEMO_ASSETS
    torch.manual_seed(0)
    body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ["neutral"])["neutral"]
    model = HMR(load_mean_params(assets.mean_params), depth).eval()
    options = boa.Options(first_order=first_order, prev_n=1)
    learner = boa.make_learner(model, body, PosePrior(assets.gmm), options)
    generator = torch.Generator().manual_seed(0)
    seconds = []
    for index in range(_FRAMES):
        frame, source = random_frame(generator, index), random_frame(generator, index)
        start = time.perf_counter()
        boa.adapt(frame, source, learner)
        learner.predict(frame)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[_WARM_UP:]))


def time_converter(folder: Path) -> float:
    """Seconds per person-frame of the 3DPW converter, from the raw pickle to the npz."""
    toys.write_3dpw(folder, {"downtown_bar_00": "mf"}, frames=_PERSON_FRAMES // 2)
    assets = streams.DEMO_ASSETS
    bodies = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ("male", "female"))
    bodies = {gender: body.joints_only() for gender, body in bodies.items()}
    start = time.perf_counter()
    pw3d.convert(folder, folder / "out", bodies)
    return (time.perf_counter() - start) / _PERSON_FRAMES


def main() -> None:
    """Print one line a figure."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"3DPW converter: {1000 * time_converter(Path(folder)):.2f} ms per person-frame")
    for depth in (50, 18):
        for first_order in (False, True):
            seconds = time_loop(depth, first_order)
            order = "first" if first_order else "second"
            print(f"loop, ResNet-{depth}, {order} order: {seconds:.2f} s per frame, {1 / seconds:.2f} frames/s")


if __name__ == "__main__":
    main()
