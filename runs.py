"""What a run goes through, how it is scored, where it is written: the one place where data sets and videos differ."""

import copy
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import config
import streams
from datasets.base import CroppedFrames, batches
from datasets.noise import with_noise
from datasets.retrieval import Retrieval, differences, open_bank, write_bank
from models.learner import ADAPTS, BENCHMARK, DYNAMIC, StepOptions
from models.prediction import predict
from models.prior import PosePrior
from models.smpl import GENDERS, SMPL, load_bodies
from synthetic import version
from utils.device import be_deterministic, choose_device
from utils.errors import UserError
from utils.evaluation import FootageScorer, Scorer
from utils.files import load_npy
from utils.joints import H36M17, SPIN
from utils.options import option
from utils.results import BenchmarkResults, Results, RunFolder, create_folder, run_folder
from utils.structures import Frame, Prediction, Source

log = logging.getLogger("boa")

# the modes in which some flags do something
FOOTAGE, RETRIEVAL = "--video", "--retrieval"

# flags of DynaBOA's command line that stand for others here, and all of its paper's script and of its script for videos
_DYNABOA = {"beta2": 0.9, "motionloss_weight": 0.8, "first_order": True, "dynamic_boa": True, "retrieval": True}
_NO_TEACHER, _NO_MOTION = {"consistentloss_weight": 0.0}, {"motionloss_weight": 0.0}
SHORTHANDS = {
    "preset": {"dynaboa": _DYNABOA, "dynaboa-internet": {**_DYNABOA, "shapeloss_weight": 2e-4}},
    "use_boa": {"0": {"metalr": 0.0, **_NO_TEACHER, **_NO_MOTION, "dynamic_boa": False}, "1": {}},
    "use_meanteacher": {"0": _NO_TEACHER, "1": {}},
    "use_motion": {"0": _NO_MOTION, "1": {}},
    "inner_step": {"1": {}},
}


@dataclass(frozen=True)
class RunOptions:
    """The flags of a run."""

    name: str = option("", "name of the run, a folder in --expdir", aliases=("expname",))
    expdir: str = option("experiments", "where results go")
    overwrite: bool = option(False, "replace an earlier run of the same name")
    seed: int = option(22, "of every random number", least=0)
    device: str = option("", "cpu, cuda, cuda:1, ...; default: a GPU where there is one")
    model_file: str = option("", "the base model; default: data/basemodel.pt")
    method: str = option("boa", "boa, or frozen: score the base model without adapting", choices=("boa", "frozen"))
    stride: int = option(1, "take every n-th frame", least=1)
    max_frames: int = option(0, "stop after so many frames; 0: all", least=0)
    passes: int = option(1, "go through what is recorded so often; the last time counts", least=1, only=ADAPTS)
    # the labelled source
    retrieval: bool = option(False, "draw labelled samples that look like the frame, for each level anew", only=ADAPTS)
    sample_num: int = option(1, "labelled samples for each frame of a batch", least=1, only=RETRIEVAL)
    bank: str = option("", "which of them look alike; default: the file beside the source", only=RETRIEVAL)
    # a data set
    dataset_name: str = option("3dpw", "the video stream", choices=tuple(streams.STREAMS), only=BENCHMARK)
    batch_size: int = option(1, "frames per step", least=1, only=BENCHMARK)
    save_predictions: bool = option(
        False,
        "write every frame's rotmat, betas, cam and 3D joints to predictions.npz",
        only=BENCHMARK,
        aliases=("save_res",),
    )
    paper_compat: bool = option(
        False, "repeat the bugs of the published code, to compare numbers with it", only=BENCHMARK
    )
    keypoint_noise: float = option(
        0.0,
        "make the 2D joints as wrong as a detector's: deviation, fraction of the box; some are missing or exchanged",
        least=0,
        only=BENCHMARK,
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


@dataclass(frozen=True)
class Options(StepOptions, RunOptions):
    """Every flag of the command line: those of the run, and those of the step."""


def modes(options: Options) -> set[str]:
    """The modes that the options choose, in which some flags do something."""
    found = {FOOTAGE if options.video else BENCHMARK, *({ADAPTS} if options.method == "boa" else set())}
    return found | ({DYNAMIC} if options.dynamic_boa else set()) | ({RETRIEVAL} if options.retrieval else set())


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
        frames: to go through; again: gives them from the start once more
        source: the labelled samples or, again and again, what draws them; None without
        model, body, prior: the base model, the neutral body, the pose prior
        joints: those of the 49 that the 2D losses see
        step: by which the indices of consecutive frames differ
        score: prediction, frame -> the scores of each frame of the batch
        results: what they are written by
    """

    frames: Iterator[Frame]
    again: Callable[[], Iterator[Frame]]
    source: Iterator[Source] | None
    model: nn.Module
    body: SMPL
    prior: PosePrior
    joints: slice
    step: int
    score: Callable[[Prediction, Frame], list[dict[str, float]]]
    results: Results


def open_run(options: Options, with_source: bool) -> Run:
    """Open all that the options name; the labelled source only where it is wanted.

    Raises UserError when a file is missing or damaged, with the command that helps.
    """
    if options.retrieval and not with_source:
        raise UserError("--retrieval draws from the labelled source, and the flags leave that out; add --retrieval 0")
    return (_open_footage if options.video else _open_benchmark)(options, with_source)


def _open_benchmark(options: Options, with_source: bool) -> Run:
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
    source = samples and labelled_source(options, stream.source, samples, model)
    frames, missing = stream.open()
    missing = [*missing, *(samples.missing if samples else [])]
    annotation = {"annotation": frames.annotation} if frames.annotation else {}
    if options.keypoint_noise:
        frames = with_noise(frames, options.keypoint_noise, options.seed)
    frames = frames.part(options.stride, options.max_frames)
    score = functools.partial(stream.score, bodies=bodies, regressor=regressor)
    facts = {"protocol": stream.protocol, "device": str(device), "missing_sequences": missing, **annotation}
    facts |= _of_dynamic_steps(options)
    folder = create_folder(options.expdir, options.name, options.overwrite)
    return Run(
        frames=batches(frames, options.batch_size),
        again=functools.partial(batches, frames, options.batch_size),
        source=source,
        model=model,
        body=bodies["neutral"],
        prior=prior,
        joints=SPIN,
        step=options.stride,
        score=Scorer(score, frames.step, options.paper_compat),
        results=BenchmarkResults(RunFolder(folder, options, facts), len(frames), options.save_predictions),
    )


def _of_dynamic_steps(options: Options) -> dict[str, float]:
    """What summary.json says of dynamic steps: the threshold that is in use."""
    return {"cos_sim_threshold": options.threshold} if options.dynamic_boa else {}


def check_rendered(*recordings: streams.Recording) -> None:
    """Raise UserError when one was rendered by another renderer or with another body, with the command that helps."""
    for recording in recordings:
        if recording.rendered:
            version.check_current(recording.images, config.DEMO, recording.made_by)


def _open_footage(options: Options, with_source: bool) -> Run:
    """One's own video, scored by its 2D joints against the model as it is now."""
    # drawing, decoding and detecting, which only footage needs, take long to load
    from footage.overlay import OverlayVideo
    from footage.poses import PosesFile
    from footage.results import FootageResults
    from footage.window import open_window

    assets, device = streams.footage_assets(options.model_file), choose_device(options.device)
    footage = _footage(options)
    if options.passes > 1 and footage.video.is_camera:
        raise UserError("--passes is for what is recorded, and a camera shows each moment once; leave it out")
    body = _bodies(assets, ("neutral",), device)["neutral"]
    model = _base_model(options, assets, device)
    prior = PosePrior(assets.gmm).to(device)
    recording = footage_recording(assets)
    source = labelled_source(options, recording, open_footage_source(assets), model) if with_source else None
    frozen = functools.partial(predict, copy.deepcopy(model).requires_grad_(False), body.joints_only())
    folder = create_folder(options.expdir, options.name, options.overwrite)
    facts = {"protocol": "footage (2D joints)", "device": str(device), **_of_dynamic_steps(options)}
    run = RunFolder(folder, options, facts)
    window = open_window(footage.name) if footage.video.is_camera else None
    overlay = OverlayVideo(folder / "overlay.mp4", footage.rate, body.faces, window)
    poses = PosesFile(folder, body, options.smooth, options.export)
    return Run(
        frames=iter(footage),
        again=lambda: iter(_footage(options)),
        source=source,
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


def labelled_source(
    options: RunOptions, recording: streams.Recording, samples: CroppedFrames, model: nn.Module
) -> Iterator[Source]:
    """The samples one after the other, or what draws them by the features of a frame.

    Args:
        samples: of the recording
        model: as it was trained
    """
    if not options.retrieval:
        return batches(samples, options.batch_size, endless=True)
    of_model = f" --model_file {options.model_file}" if options.model_file else ""
    remedy = f"run `python process_data.py --dataset bank{of_model} --overwrite`"
    if recording.rendered:
        remedy = f"leave out --bank, or delete {recording.bank}: it is then made again"
    file = Path(options.bank or recording.bank)
    if recording.rendered and not options.bank and (not file.exists() or differences(file, model, samples, remedy)):
        log.info("sorting the labelled samples into %s", file)
        write_bank(file, model, samples)
    bank = open_bank(file, model, samples, remedy)
    return itertools.repeat(Retrieval(samples, bank, options.sample_num, options.seed))


def footage_recording(assets: streams.Assets) -> streams.Recording:
    """The labelled source of footage: Human3.6M for SMPL where it is converted, else the rendered one."""
    has_own = assets == streams.ASSETS and streams.H36M.annotations.exists()
    return streams.H36M if has_own else streams.WILD


def open_footage_source(assets: streams.Assets) -> CroppedFrames:
    """The samples of `footage_recording`, which are rendered where they lack.

    With SMPL the rendered one, which shows the free body, has no betas: they mean another shape there.
    """
    source = footage_recording(assets)
    if source == streams.H36M:
        return streams.open_source(source)
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
