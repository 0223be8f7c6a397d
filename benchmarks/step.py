"""What a step costs in each mode, beside the published step written out plainly. `make benchmark` runs it.

    python benchmarks/step.py                      # ResNet-50, and the demo's ResNet-18
    python benchmarks/step.py --depths 50 --rounds 20

The modes take turns, frame by frame, and a row gives medians: seconds of a step with the prediction after it, how many
times as fast as the plain step that is, the length of the gradient's error against double precision, the share of the
convolutions' peak that it reaches, and the peak of the memory of a run of its own, on a GPU of the GPU's. Everything is
made on the spot: random images, half of each one colour, and a network with random weights.
"""

import argparse
import copy
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

import boa  # noqa: E402
import streams  # noqa: E402
from benchmarks.plain import Plain  # noqa: E402
from models.hmr import HMR, load_mean_params  # noqa: E402
from models.learner import Learner  # noqa: E402
from models.prior import PosePrior  # noqa: E402
from models.smpl import load_bodies  # noqa: E402
from utils.device import set_up_gpus  # noqa: E402
from utils.structures import Frame  # noqa: E402

PLAIN = "plain"
MODES: dict[str, dict[str, object]] = {
    "exact (default)": {},
    "--second_order fd": {"second_order": "fd"},
    "--first_order": {"first_order": True},
    "--first_order --precision bf16": {"first_order": True, "precision": "bf16"},
}
MODES_OF_GPUS: dict[str, dict[str, object]] = {
    "--cuda_graph": {"cuda_graph": True},
    "--tf32 --cuda_graph": {"tf32": True, "cuda_graph": True},
    "--first_order --cuda_graph": {"first_order": True, "cuda_graph": True},
    "--first_order --tf32 --cuda_graph": {"first_order": True, "tf32": True, "cuda_graph": True},
    "--first_order --precision bf16 --cuda_graph": {"first_order": True, "precision": "bf16", "cuda_graph": True},
}
_WARM_UP = {"cpu": 2, "cuda": 8}  # steps before those that count; on a GPU some are before the recording
# a forward of one image of 224x224 by the ResNet, multiply and add counted as two
_GFLOP = {50: 8.2, 18: 3.6}
# images through the network, a backward pass counted as two: both levels, the second order, teacher and prediction
_FORWARDS = {PLAIN: 29, "exact (default)": 29, "--second_order fd": 23, "--first_order": 17}


def random_frame(generator: torch.Generator, index: int, size: int = 1, side: int = 224) -> Frame:
    """Images and all labels, as a data set gives them."""
    ones = torch.ones(size, 49, 1)
    image = torch.randn(size, 3, side, side, generator=generator)
    image[:, :, : side // 2] = image[:, :, :1, :1]
    return {
        "image": image,
        "keypoints_2d": torch.cat([0.3 * torch.randn(size, 49, 2, generator=generator), ones], dim=2),
        "joints_3d": torch.cat([0.3 * torch.randn(size, 24, 3, generator=generator), ones[:, :24]], dim=2),
        "pose": 0.2 * torch.randn(size, 72, generator=generator),
        "betas": torch.randn(size, 10, generator=generator),
        "sequence": ["benchmark"] * size,
        "person": torch.zeros(size, dtype=torch.long),
        "index": torch.arange(index * size, (index + 1) * size),
    }


def modes_on(device: torch.device) -> dict[str, dict[str, object]]:
    """The modes that there are on a device, and their options."""
    return {**MODES, **(MODES_OF_GPUS if device.type == "cuda" else {})}


def make(depth: int, device: torch.device, tf32: bool = False, **options: object) -> Learner:
    """A learner with a network of random weights, which are the same each time; TF32 must be set for each step."""
    assets = streams.DEMO_ASSETS
    torch.manual_seed(0)
    body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ["neutral"])["neutral"].to(device)
    model = HMR(load_mean_params(assets.mean_params), depth).eval().to(device)
    model.in_bf16 = options.get("precision") == "bf16"
    return boa.make_learner(model, body, PosePrior(assets.gmm).to(device), boa.Options(prev_n=1, **options))


def moved(batch: Frame, to: torch.device | torch.dtype) -> Frame:
    """The batch on another device, or in another precision."""
    return {
        name: value.to(to) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in batch.items()
    }


def steps(learner: Learner, tf32: bool = False) -> Callable[[Frame, Frame], None]:
    """A step of boa.py, and the prediction."""

    def step(frame: Frame, source: Frame) -> None:
        set_up_gpus(tf32)
        boa.adapt(frame, source, learner)
        learner.predict(frame)

    return step


def plain_steps(learner: Learner) -> Callable[[Frame, Frame], None]:
    """The same by the plain step."""
    plain, before = Plain(learner), []

    def step(frame: Frame, source: Frame) -> None:
        set_up_gpus(tf32=False)
        plain.step(frame, before.pop() if before else None, source)
        before.append(frame)
        plain.predict(frame)

    return step


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def medians(ways: dict[str, Callable], frames: Sequence[Frame], device: torch.device) -> dict[str, float]:
    """Seconds a frame of each way, which take turns."""
    seconds = {name: [] for name in ways}
    for frame, source in zip(frames, reversed(frames), strict=True):
        for name, way in ways.items():
            start = time.perf_counter()
            way(frame, source)
            synchronise(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values[_WARM_UP[device.type] :])) for name, values in seconds.items()}


def gradient(
    learner: Learner, frame: Frame, source: Frame, dtype: torch.dtype = torch.float32, tf32: bool = False
) -> Tensor:
    """That of boa.py's first step, as one vector."""
    set_up_gpus(tf32)
    learner = copy.deepcopy(learner)
    for part in (learner.model, learner.teacher, learner.body, learner.joints_body, learner.prior):
        part.to(dtype)
    boa.adapt(moved(frame, dtype), moved(source, dtype), learner)
    return torch.cat([weight.grad.flatten().double() for weight in learner.model.parameters()])


def plain_gradient(learner: Learner, frame: Frame, source: Frame) -> Tensor:
    """That of the plain step."""
    plain = Plain(learner)
    plain.step(frame, None, source)
    return torch.cat([weight.grad.flatten().double() for weight in plain.model.parameters()])


def peak(device: torch.device) -> float:
    """GFLOP/s that a large batched convolution reaches in fp32, the best of ten."""
    set_up_gpus(tf32=False)
    image, weight = torch.randn(16, 256, 56, 56, device=device), torch.randn(256, 256, 3, 3, device=device)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        F.conv2d(image, weight, padding=1)
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return 2e-9 * image[:, 0].numel() * weight.numel() / min(seconds)


class Row(NamedTuple):
    """What was measured of a mode."""

    seconds: float
    error: float
    memory: float


def memory_of(mode: str, depth: int, device: torch.device) -> float:
    """GB that a few steps of one mode take at most: of a process of their own, or of the GPU's memory."""
    if device.type == "cpu":
        command = [sys.executable, __file__, f"--memory_of={mode}", "--depths", str(depth), "--device", "cpu"]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    run_some(mode, depth, device)
    return (torch.cuda.max_memory_reserved(device) - before) / 1024**3


def run_some(mode: str, depth: int, device: torch.device) -> None:
    """A few steps of one mode, and its recording."""
    generator = torch.Generator().manual_seed(0)
    options = modes_on(device).get(mode, {})
    learner = make(depth, device, **options)
    step = plain_steps(learner) if mode == PLAIN else steps(learner, "tf32" in options)
    for index in range(_WARM_UP[device.type] + 2):
        step(moved(random_frame(generator, index), device), moved(random_frame(generator, index), device))


def print_memory(mode: str, depth: int) -> None:
    """Print the peak of this process's memory, GB; Linux only."""
    run_some(mode, depth, torch.device("cpu"))
    # not resource's ru_maxrss, which begins with that of the process that this one was forked from
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024**2)


def measure(depth: int, rounds: int, device: torch.device) -> dict[str, Row]:
    """All modes, and the plain step first."""
    generator = torch.Generator().manual_seed(0)
    frames = [moved(random_frame(generator, index), device) for index in range(rounds + _WARM_UP[device.type])]
    modes = modes_on(device)
    memory = {name: memory_of(name, depth, device) for name in (PLAIN, *modes)}  # while nothing else is there
    learners = {mode: make(depth, device, **options) for mode, options in modes.items()}
    first = learners["exact (default)"]
    wanted = gradient(first, *frames[:2], torch.float64)
    errors = {
        name: ((found - wanted).norm() / wanted.norm()).item()
        for name, found in {
            PLAIN: plain_gradient(first, *frames[:2]),
            **{mode: gradient(learner, *frames[:2], tf32="tf32" in modes[mode]) for mode, learner in learners.items()},
        }.items()
    }
    ways = {mode: steps(learner, "tf32" in modes[mode]) for mode, learner in learners.items()}
    ways = {PLAIN: plain_steps(first), **ways}
    seconds = medians(ways, frames, device)
    return {name: Row(seconds[name], errors[name], memory[name]) for name in ways}


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each depth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[50, 18], choices=_GFLOP, help="of the ResNet")
    parser.add_argument("--rounds", type=int, default=8, help="frames that count (default: 8)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--memory_of", choices=(PLAIN, *MODES, *MODES_OF_GPUS), help="only print the peak memory of this one, GB"
    )
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    if options.memory_of:
        print_memory(options.memory_of, options.depths[0])
        return
    at_most = peak(device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{where}, {torch.backends.cpu.get_cpu_capability()}, peak of a convolution {at_most:.0f} GFLOP/s\n")
    for depth in options.depths:
        rows = measure(depth, options.rounds, device)
        print(f"| ResNet-{depth} | s | times as fast | error of the gradient | share of the peak | memory [GB] |")
        print("|---|---|---|---|---|---|")
        for name, row in rows.items():
            work = _FORWARDS.get(name.removesuffix(" --cuda_graph"))
            share = f"{work * _GFLOP[depth] / row.seconds / at_most:.0%}" if work else ""
            ratio = rows[PLAIN].seconds / row.seconds
            print(f"| {name} | {row.seconds:.3f} | {ratio:.2f} | {row.error:.0e} | {share} | {row.memory:.1f} |")
        print()


if __name__ == "__main__":
    main()
