"""What a run goes through, how it is scored, where it is written: the one place where data sets and videos differ."""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import config
import streams
from datasets.base import CroppedFrames, batches
from models.learner import ADAPTS
from models.prediction import predict
from models.prior import PosePrior
from models.smpl import GENDERS, SMPL, load_bodies
from synthetic import version
from utils.device import be_deterministic, choose_device
from utils.evaluation import FootageScorer, Scorer
from utils.files import load_npy
from utils.joints import H36M17
from utils.options import option
from utils.results import BenchmarkResults, Results, RunFolder, create_folder, run_folder
from utils.structures import Frame, Prediction

# the modes in which some flags do something
BENCHMARK, FOOTAGE = "--dataset_name", "--video"


@dataclass(frozen=True)
class RunOptions:
    """The flags of a run."""

    name: str = option("", "name of the run, a folder in --expdir")
    expdir: str = option("experiments", "where results go")
    overwrite: bool = option(False, "replace an earlier run of the same name")
    seed: int = option(22, "of every random number", least=0)
    device: str = option("", "cpu, cuda, cuda:1, ...; default: a GPU where there is one")
    model_file: str = option("", "the base model; default: data/basemodel.pt")
    method: str = option("boa", "boa, or frozen: score the base model without adapting", choices=("boa", "frozen"))
    stride: int = option(1, "take every n-th frame", least=1)
    max_frames: int = option(0, "stop after so many frames; 0: all", least=0)
    # a data set
    dataset_name: str = option("3dpw", "the video stream", choices=tuple(streams.STREAMS), only=BENCHMARK)
    batch_size: int = option(1, "frames per step", least=1, only=BENCHMARK)
    save_predictions: bool = option(
        False, "write every frame's rotmat, betas, cam and 3D joints to predictions.npz", only=BENCHMARK
    )
    paper_compat: bool = option(
        False, "repeat the bugs of the published code, to compare numbers with it", only=BENCHMARK
    )
    # one's own footage
    video: str = option("", "a video file, a folder of images or the number of a camera, instead of a data set")
    keypoints: str = option(
        "mediapipe", "its 2D joints: mediapipe, or the file or folder of OpenPose or AlphaPose", only=FOOTAGE
    )
    first_frame: int = option(
        -1, "the frame, counted from 0, that the first entry of --keypoints is of; -1: find it", least=-1, only=FOOTAGE
    )
    person: int = option(
        0,
        "whom to follow, as --list_people shows; 0: the largest, most central at the start",
        least=0,
        only=FOOTAGE,
    )
    list_people: bool = option(False, "only write an image of who is there, with numbers", only=FOOTAGE)
    start: float = option(0.0, "seconds of the video at which to begin", least=0, only=FOOTAGE)
    stop: float = option(0.0, "seconds of the video at which to stop; 0: its end", least=0, only=FOOTAGE)
    smooth: bool = option(False, "smooth the output over time; what was predicted is saved too", only=FOOTAGE)
    export: str = option(
        "none", "an animated file beside the video", choices=("none", "glb", "bvh", "both"), only=FOOTAGE
    )


def modes(options: RunOptions) -> set[str]:
    """The modes that the options choose, in which some flags do something."""
    return {FOOTAGE if options.video else BENCHMARK, *({ADAPTS} if options.method == "boa" else set())}


def learning_rates(options: RunOptions) -> Mapping[str, float]:
    """The default learning rates of what the options choose, where they are not the paper's; none when frozen."""
    if options.video:
        return streams.FOOTAGE_LEARNING_RATES
    return streams.STREAMS[options.dataset_name].learning_rates


def other_defaults() -> dict[str, Mapping[str, float]]:
    """Where defaults are not the paper's -> these."""
    others = {name: stream.learning_rates for name, stream in streams.STREAMS.items() if stream.learning_rates}
    return {**others, FOOTAGE: streams.FOOTAGE_LEARNING_RATES}


class Run(NamedTuple):
    """What the loop needs.

    Attributes:
        frames: to go through; source: the labelled samples, None without
        model, body, prior: the base model, the neutral body, the pose prior
        joints: those of the 49 that the 2D losses see
        step: by which the indices of consecutive frames differ
        score: prediction, frame -> the scores of each frame of the batch
        results: what they are written by
    """

    frames: Iterator[Frame]
    source: Iterator[Frame] | None
    model: nn.Module
    body: SMPL
    prior: PosePrior
    joints: slice
    step: int
    score: Callable[[Prediction, Frame], list[dict[str, float]]]
    results: Results


def open_run(options: RunOptions, with_source: bool) -> Run:
    """Open all that the options name; the labelled source only where it is wanted.

    Raises UserError when a file is missing or damaged, with the command that helps.
    """
    return (_open_footage if options.video else _open_benchmark)(options, with_source)


def _open_benchmark(options: RunOptions, with_source: bool) -> Run:
    """A data set, scored against its ground truth."""
    stream, device = streams.STREAMS[options.dataset_name], choose_device(options.device)
    bodies = _bodies(stream.assets, GENDERS, device)
    model = _base_model(options, stream.assets, device)
    prior = PosePrior(stream.assets.gmm).to(device)
    shape = (len(H36M17), len(bodies["neutral"].v_template))
    regressor = load_npy(stream.assets.regressor_h36m, shape, "get it with SPIN's data (data/README.md)")
    regressor = torch.as_tensor(regressor, dtype=torch.float32, device=device)
    check_rendered(stream.target, *([stream.source] if with_source else []))
    samples = streams.open_source(stream.source) if with_source else None
    frames, missing = stream.open()
    missing = [*missing, *(samples.missing if samples else [])]
    annotation = {"annotation": frames.annotation} if frames.annotation else {}
    frames = frames.part(options.stride, options.max_frames)
    score = functools.partial(stream.score, bodies=bodies, regressor=regressor)
    facts = {"protocol": stream.protocol, "device": str(device), "missing_sequences": missing, **annotation}
    folder = create_folder(options.expdir, options.name, options.overwrite)
    return Run(
        frames=batches(frames, options.batch_size),
        source=samples and batches(samples, options.batch_size, endless=True),
        model=model,
        body=bodies["neutral"],
        prior=prior,
        joints=stream.joints,
        step=options.stride,
        score=Scorer(score, frames.step, options.paper_compat),
        results=BenchmarkResults(RunFolder(folder, options, facts), len(frames), options.save_predictions),
    )


def check_rendered(*recordings: streams.Recording) -> None:
    """Raise UserError when one was rendered by another renderer or with another body, with the command that helps."""
    for recording in recordings:
        if recording.rendered:
            version.check_current(recording.images, config.DEMO, recording.made_by)


def _open_footage(options: RunOptions, with_source: bool) -> Run:
    """One's own video, scored by its 2D joints against the model as it is now."""
    # drawing, decoding and detecting, which only footage needs, take long to load
    from footage.overlay import OverlayVideo
    from footage.poses import PosesFile
    from footage.results import FootageResults
    from footage.window import open_window

    assets, device = streams.footage_assets(options.model_file), choose_device(options.device)
    footage = _footage(options)
    body = _bodies(assets, ("neutral",), device)["neutral"]
    model = _base_model(options, assets, device)
    prior = PosePrior(assets.gmm).to(device)
    samples = open_footage_source(assets) if with_source else None
    frozen = functools.partial(predict, copy.deepcopy(model).requires_grad_(False), body.joints_only())
    folder = create_folder(options.expdir, options.name, options.overwrite)
    run = RunFolder(folder, options, {"protocol": "footage (2D joints)", "device": str(device)})
    window = open_window(footage.name) if footage.video.is_camera else None
    overlay = OverlayVideo(folder / "overlay.mp4", footage.rate, body.faces, window)
    poses = PosesFile(folder, body, options.smooth, options.export)
    return Run(
        frames=iter(footage),
        source=samples and batches(samples, 1, endless=True),
        model=model,
        body=body,
        prior=prior,
        joints=slice(None),
        step=options.stride,
        score=FootageScorer(frozen, options.stride),
        results=FootageResults(run, footage, overlay, poses),
    )


def _footage(options: RunOptions) -> "Footage":  # noqa: F821, loaded below
    """`--video` with its 2D joints."""
    from footage.people import Footage
    from footage.video import Video

    video = Video(options.video, options.start, options.stop, options.stride, options.max_frames)
    return Footage(video, options.keypoints, options.person, options.first_frame)


def open_footage_source(assets: streams.Assets) -> CroppedFrames:
    """The labelled source of footage: Human3.6M for SMPL where it is converted, else the rendered one.

    With SMPL the rendered one, which shows the free body, has no betas: they mean another shape there.
    """
    if assets == streams.ASSETS and streams.H36M.annotations.exists():
        return streams.open_source(streams.H36M)
    source = streams.WILD
    if not version.is_current(source.images, config.DEMO):
        from synthetic import stream  # the renderer takes half a second to load, and is needed once

        stream.build_source(source.images, config.DEMO)
    samples = streams.open_source(source)
    return samples.without("betas") if assets == streams.ASSETS else samples


def list_people(options: RunOptions) -> str:
    """Write an image of who is in `--video`, with numbers -> what to tell the user."""
    from footage import people

    image = run_folder(options.expdir, options.name).with_name(f"{options.name}_people.png")
    return people.list_people(_footage(options), image)


def _bodies(assets: streams.Assets, genders: tuple[str, ...], device: torch.device) -> dict[str, SMPL]:
    bodies = load_bodies(assets.smpl_model_dir, assets.regressor_extra, genders)
    return {gender: body.to(device) for gender, body in bodies.items()}


def _base_model(options: RunOptions, assets: streams.Assets, device: torch.device) -> nn.Module:
    """The network of `--model_file`, or the assets' own, ready to be adapted."""
    from models.hmr import load_hmr  # torchvision takes more than a second to load

    be_deterministic()
    # group norm has no running statistics, so that eval() only turns dropout off; SPIN's batch norm keeps its own
    return load_hmr(assets.mean_params, Path(options.model_file or assets.base_model)).eval().to(device)
