"""What a whole frame costs in each mode: reading, both levels, prediction, scores. `make benchmark` runs it.

    python benchmarks/frame.py                     # ResNet-50, images of 1920x1080 as those of 3DPW

The modes take turns, frame by frame, on a GPU one after the other, beside the published step written out plainly, which
reads, adapts and scores one after the other. Then where the time of each mode goes, part by part: of what runs in the
loop's own thread, as images are read in another one meanwhile. Images and labels are made on the spot; the network has
random weights.
"""

import argparse
import functools
import itertools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

import boa  # noqa: E402
import streams  # noqa: E402
from benchmarks import step  # noqa: E402
from benchmarks.plain import Plain  # noqa: E402
from datasets.base import CroppedFrames, batches  # noqa: E402
from models.smpl import GENDERS, load_bodies  # noqa: E402
from utils.device import set_up_gpus  # noqa: E402
from utils.evaluation import Scorer, score_3dpw  # noqa: E402
from utils.files import load_npy  # noqa: E402
from utils.joints import H36M17  # noqa: E402
from utils.loop import to_device, to_numbers  # noqa: E402

_SIZES = {"target": (1920, 1080), "source": (1000, 1002)}  # px, of 3DPW and Human3.6M
_WARM_UP = {"cpu": 2, "cuda": 8}  # frames before those that count; on a GPU some are before the recording


def write_frames(folder: Path, count: int, size: tuple[int, int]) -> CroppedFrames:
    """Images with a person each, and all labels: smooth colours with noise, as a camera's."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(count):
        smooth = cv2.resize(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8), size)
        picture = np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), picture)
    ones = np.ones((count, 49, 1))
    middle = np.array(size) / 2
    columns = {
        "imgname": np.array([f"{index:05d}.jpg" for index in range(count)]),
        "center": np.tile(middle, (count, 1)),
        "scale": np.full(count, 0.8 * min(size) / 200),
        "keypoints_2d": np.concatenate([middle + rng.normal(0, 80, (count, 49, 2)), ones], axis=2),
        "joints_3d": np.concatenate([rng.normal(0, 0.3, (count, 24, 3)), ones[:, :24]], axis=2),
        "pose": rng.normal(0, 0.2, (count, 72)),
        "betas": rng.normal(0, 1, (count, 10)),
        "gender": np.arange(count) % 2,
        "sequence": np.full(count, "benchmark"),
        "person": np.zeros(count, int),
    }
    return CroppedFrames(folder, columns, folder)


class Clock:
    """Adds up how long parts take, by name."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, defaultdict(float)

    def timed(self, name: str, function: Callable) -> Callable:
        """The function, on the clock."""

        @functools.wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            step.synchronise(self.device)
            self.seconds[name] += time.perf_counter() - start
            return result

        return call


def frames_of(learner: boa.Learner, scorer: Scorer, stream: Iterator, source: Iterator, clock: Clock) -> Iterator[None]:
    """What boa.run_stream does with each frame, less the files, a frame at a time."""
    device = clock.device
    # what is played from a recording has no parts
    adapt = clock.timed("both levels, recorded", boa.adapt) if learner.graphs else boa.adapt
    fetch, move = clock.timed("wait for the image", next), clock.timed("to the device", to_device)
    predict, score = clock.timed("predict", learner.predict), clock.timed("score", scorer)
    collect = clock.timed("fetch the terms", to_numbers)
    while True:
        frame = move(fetch(stream), device)
        terms = adapt(frame, move(fetch(source), device), learner)
        prediction = predict(frame)
        collect(terms, prediction, frame)
        score(prediction, frame)
        yield


def plain_frames_of(
    learner: boa.Learner, scorer: Scorer, target: CroppedFrames, source: CroppedFrames
) -> Iterator[None]:
    """The same one thing after the other, by the plain step."""
    plain, past, device = Plain(learner), None, learner.body.v_template.device
    for index in range(len(target)):
        frame, sample = (to_device(default_collate([frames[index]]), device) for frames in (target, source))
        plain.step(frame, past, sample)
        scorer(plain.predict(frame), frame)
        past = frame
        yield


def measure(depth: int, rounds: int, device: torch.device) -> tuple[dict[str, float], dict[str, Clock]]:
    """Median seconds a frame of the plain step and of each mode, and the clocks of the modes."""
    assets, warm_up = streams.DEMO_ASSETS, _WARM_UP[device.type]
    count = rounds + warm_up
    bodies = load_bodies(assets.smpl_model_dir, assets.regressor_extra, GENDERS)
    bodies = {gender: body.to(device) for gender, body in bodies.items()}
    regressor = load_npy(assets.regressor_h36m, (len(H36M17), len(bodies["neutral"].v_template)), "")
    regressor = torch.as_tensor(regressor, dtype=torch.float32, device=device)
    with tempfile.TemporaryDirectory() as folder:
        target, source = (write_frames(Path(folder) / name, count, size) for name, size in _SIZES.items())
        clocks, ways = {}, {}
        for mode, options in {step.PLAIN: {}, **step.modes_on(device)}.items():
            learner = step.make(depth, device, **options)
            scorer = Scorer(functools.partial(score_3dpw, bodies=bodies, regressor=regressor))
            if mode == step.PLAIN:
                ways[mode] = plain_frames_of(learner, scorer, target, source)
                continue
            clocks[mode] = Clock(device)
            stream = (batches(target, 1), batches(source, 1, endless=True))
            ways[mode] = frames_of(learner, scorer, *stream, clocks[mode])
        seconds = {mode: [] for mode in ways}
        turns = itertools.product(range(count), ways)
        if device.type == "cuda":
            # one mode after the other, as images would be read during the others' frames, which are short
            turns = ((number, mode) for mode, number in itertools.product(ways, range(count)))
        for _, mode in turns:
            set_up_gpus("--tf32" in mode)
            seconds[mode].append(on_the_clock(ways[mode], clocks.get(mode), "--cuda_graph" in mode))
    return {mode: float(np.median(values[warm_up:])) for mode, values in seconds.items()}, clocks


def on_the_clock(way: Iterator[None], clock: Clock | None, is_recorded: bool) -> float:
    """Seconds of the next frame; the parts of boa.py, where it is run part by part, go to the clock."""
    parts = {"lower_terms": "lower level", "probe_step": "weight probe", "upper_terms": "upper level"}
    parts |= {"update_weights": "backward, Adam, teacher"}
    own = {name: getattr(boa, name) for name in parts}
    if clock and not is_recorded:
        for name, part in parts.items():
            setattr(boa, name, clock.timed(part, own[name]))
    try:
        start = time.perf_counter()
        next(way)
        return time.perf_counter() - start
    finally:
        for name, function in own.items():
            setattr(boa, name, function)


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=50, choices=(50, 34, 18), help="of the ResNet (default: 50)")
    parser.add_argument("--rounds", type=int, default=8, help="frames that count (default: 8)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)
    seconds, clocks = measure(options.depth, options.rounds, torch.device(options.device))
    print(f"| ResNet-{options.depth}, whole frame | s | times as fast |\n|---|---|---|")
    for mode, value in seconds.items():
        print(f"| {mode} | {value:.3f} | {seconds[step.PLAIN] / value:.2f} |")
    names = list(dict.fromkeys(name for clock in clocks.values() for name in clock.seconds))
    print(f"\n| mean ms | {' | '.join(clocks)} |\n|---|{'---|' * len(clocks)}")
    count = options.rounds + _WARM_UP[torch.device(options.device).type]
    for name in names:
        print(f"| {name} | {' | '.join(f'{1000 * clock.seconds[name] / count:.1f}' for clock in clocks.values())} |")


if __name__ == "__main__":
    main()
