"""What a run goes through, how it is scored, where it is written: the one place where data sets and videos differ."""

import copy
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import config
import streams
from datasets.base import CroppedFrames, batches
from datasets.noise import with_noise
from datasets.retrieval import Retrieval, differences, open_bank, write_bank
from flags import Options, RunOptions
from models.prediction import inputs_of, predict
from models.prior import PosePrior
from models.smpl import GENDERS, SMPL, load_bodies
from synthetic import version
from utils.device import choose_device, set_up_gpus
from utils.errors import UserError
from utils.evaluation import FootageScorer, Scored, Scorer
from utils.files import load_npy
from utils.joints import H36M17
from utils.loop import Batches
from utils.provenance import provenance
from utils.results import BenchmarkResults, Results
from utils.resume import Stateful, has_state, open_states
from utils.run_folder import open_folder, run_folder
from utils.structures import Frame

log = logging.getLogger("boa")


class Run(NamedTuple):
    """What the loop needs.

    Attributes:
        frames: to go through, once or more
        source: the labelled samples or, again and again, what draws them; None without
        model, body, prior: the base model, the neutral body, the pose prior
        joints: those of the 49 that the 2D losses see
        step: by which the indices of consecutive frames differ
        score: prediction, frame -> the scores of each frame of the batch
        results: what they are written by
        can_go_on: whether it can be resumed, as all but what a camera sees
    """

    frames: Batches
    source: Batches | Retrieval | None
    model: nn.Module
    body: SMPL
    prior: PosePrior
    joints: slice
    step: int
    score: Scorer | FootageScorer
    results: Results
    can_go_on: bool = True

    def parts(self) -> dict[str, Stateful]:
        """What must be known of it to go on."""
        if not self.can_go_on:
            return {}
        parts = {"frames": self.frames, "source": self.source, "score": self.score, "results": self.results}
        return {name: part for name, part in parts.items() if part is not None}


def open_run(options: Options, with_source: bool) -> Run:
    """Open all that the options name; the labelled source only where it is wanted.

    Raises UserError when a file is missing or damaged, with the command that helps.
    """
    if options.retrieval and not with_source:
        raise UserError("--retrieval draws from the labelled source, and the flags leave that out; add --retrieval 0")
    if options.retrieval and options.second_order == "fd":
        raise UserError("--second_order fd needs a labelled sample twice, --retrieval draws anew; use --first_order")
    if options.cuda_graph:
        _check_recordable(options)
    return (_open_footage if options.video else _open_benchmark)(options, with_source)


def _check_recordable(options: Options) -> None:
    """Raise UserError when a step is none of a GPU's, or not the same each time."""
    if choose_device(options.device).type != "cuda":
        raise UserError("--cuda_graph needs an NVIDIA GPU, and the run is on the processor; leave it out")
    others = {
        "--second_order fd": options.is_bilevel and options.second_order == "fd",
        "--retrieval": options.retrieval,
        "--revert_jumps": options.revert_jumps,
    }
    for flag, is_given in others.items():
        if is_given:
            raise UserError(
                f"--cuda_graph plays what is the same each time, which {flag} is not; leave out one of them"
            )


def _open_benchmark(options: Options, with_source: bool) -> Run:
    """A data set, scored against its ground truth."""
    stream, device = streams.STREAMS[options.dataset_name], choose_device(options.device)
    bodies = _bodies(stream.assets, GENDERS, device)
    model = _base_model(options, stream.assets, device)
    prior = PosePrior(stream.assets.gmm).to(device)
    score = _score(stream, bodies, device, options.as_dynaboa)
    samples = open_samples(stream, with_source)
    source = samples and labelled_source(options, stream.source, samples, model)
    frames, facts = open_frames(options, device, samples)
    run = open_folder(options, facts)
    return Run(
        frames=Batches(lambda _, taken: batches(frames, options.batch_size, first=taken)),
        source=source,
        model=model,
        body=bodies["neutral"],
        prior=prior,
        joints=stream.joints,
        step=options.stride,
        score=Scorer(score, frames.step, options.paper_compat),
        results=BenchmarkResults(run, len(frames), options.save_predictions, keep_rows=bool(options.sequence)),
    )


def _of_dynamic_steps(options: Options) -> dict[str, float]:
    """What summary.json says of dynamic steps: the threshold that is in use."""
    return {"cos_sim_threshold": options.threshold} if options.dynamic_boa else {}


def check_rendered(*recordings: streams.Recording) -> None:
    """Raise UserError when one was rendered by another renderer or with another body, with the command that helps."""
    for recording in recordings:
        if recording.rendered:
            version.check_current(recording.images, config.DEMO, recording.made_by)


def _score(
    stream: streams.Stream, bodies: dict[str, SMPL], device: torch.device, as_dynaboa: bool
) -> Callable[..., Scored]:
    """The score of a stream, with what it needs; DynaBOA's code takes everybody's body for the neutral one."""
    bodies = dict.fromkeys(bodies, bodies["neutral"]) if as_dynaboa else bodies
    shape = (len(H36M17), len(bodies["neutral"].v_template))
    regressor = load_npy(stream.assets.regressor_h36m, shape, "get it with SPIN's data (data/README.md)")
    regressor = torch.as_tensor(regressor, dtype=torch.float32, device=device)
    return functools.partial(stream.score, bodies=bodies, regressor=regressor)


def open_scorer(options: Options, frames: CroppedFrames) -> tuple[Scorer, SMPL]:
    """What scores the frames of a data set, on the host, and the body to pose."""
    stream, host = streams.STREAMS[options.dataset_name], torch.device("cpu")
    bodies = _bodies(stream.assets, GENDERS, host)
    score = _score(stream, bodies, host, options.as_dynaboa)
    return Scorer(score, frames.step, options.paper_compat), bodies["neutral"]


def open_samples(stream: streams.Stream, with_source: bool) -> CroppedFrames | None:
    """The labelled source of a stream, if it is wanted; UserError where it, or the stream, was rendered otherwise."""
    check_rendered(stream.target, *([stream.source] if with_source else []))
    return streams.open_source(stream.source) if with_source else None


def chosen_frames(options: RunOptions) -> tuple[CroppedFrames, list[str]]:
    """The frames of a data set that the options choose, and the sequences of its protocol that are not there."""
    stream = streams.STREAMS[options.dataset_name]
    frames, missing = stream.open()
    if options.keypoint_noise:
        frames = with_noise(frames, options.keypoint_noise, options.seed)
    if stream.detected_at:
        frames = _straightened(frames, stream, options)
    frames = frames.part(options.stride, options.max_frames)
    return (frames.only(options.sequence) if options.sequence else frames), missing


def _straightened(frames: CroppedFrames, stream: streams.Stream, options: RunOptions) -> CroppedFrames:
    """The same frames with left and right put straight over time, and what was done to each."""
    from footage.left_right import sight_of, straightened

    body = _bodies(stream.assets, ("neutral",), torch.device("cpu"))["neutral"]
    misfit = sight_of(_base_model(options, stream.assets, torch.device("cpu")), body.joints_only())
    kept = straightened(frames.columns["keypoints_2d"], frames.columns["sequence"].tolist(), stream.detected_at, misfit)
    frames = frames.replacing("keypoints_2d", np.stack([one.joints for one in kept]))
    frames = frames.replacing("exchanged", np.array([", ".join(one.exchanged) for one in kept]))
    return frames.replacing("dropped", np.array([one.dropped for one in kept]))


def open_frames(
    options: Options, device: torch.device, samples: CroppedFrames | None
) -> tuple[CroppedFrames, dict[str, object]]:
    """The same frames, and what is to be said of a run that goes through them, with these labelled samples."""
    stream = streams.STREAMS[options.dataset_name]
    frames, missing = chosen_frames(options)
    source = {"source": samples.origin} if samples else {}
    inputs = _inputs(options, stream.assets, data=frames.origin, **source)
    images = [frames.images / name for name in np.unique(frames.columns["imgname"])]
    return frames, {
        "protocol": stream.protocol,
        "device": str(device),
        "missing_sequences": [*missing, *(samples.missing if samples else [])],
        **({"annotation": frames.annotation} if frames.annotation else {}),
        **_of_dynamic_steps(options),
        "provenance": provenance(device, inputs, images),
    }


def _open_footage(options: Options, with_source: bool) -> Run:
    """One's own video, scored by its 2D joints against the model as it is now."""
    # drawing, decoding and detecting, which only footage needs, take long to load
    from footage.left_right import sight_of
    from footage.overlay import OverlayVideo
    from footage.poses import PosesFile
    from footage.results import FootageResults
    from footage.window import open_window

    assets, device = streams.footage_assets(options.model_file), choose_device(options.device)
    if assets is streams.FOOTAGE_ASSETS and options.method == "frozen":
        log.info("the free network is used as it is: --method boa adapts it, closer to the 2D joints but not in 3D")
    footage = open_footage(options)
    is_camera = footage.video.is_camera
    if is_camera and options.passes > 1:
        raise UserError("--passes is for what is recorded, and a camera shows each moment once; leave it out")
    body = _bodies(assets, ("neutral",), device)["neutral"]
    model = _base_model(options, assets, device)
    prior = PosePrior(assets.gmm).to(device)
    recording = footage_recording(assets)
    samples = open_footage_source(assets) if with_source else None
    source = samples and labelled_source(options, recording, samples, model)
    base, joints_body = copy.deepcopy(model).requires_grad_(False), body.joints_only()
    footage.misfit = sight_of(base, joints_body)
    footage.with_image = "image" in inputs_of(model)
    # without adapting, what is scored is the base model's
    frozen = functools.partial(predict, base, joints_body) if options.method == "boa" else None
    if is_camera and options.resume:
        raise UserError(f"--resume: what camera {options.video} saw is gone; begin another run")
    given = {} if is_camera else {"video": Path(options.video)}
    given |= {} if options.keypoints == "mediapipe" else {"keypoints": Path(options.keypoints)}
    given |= {"source": samples.origin} if samples else {}
    origin = provenance(device, _inputs(options, assets, **given))
    facts = {"protocol": "footage (2D joints)", "device": str(device), **_of_dynamic_steps(options)}
    run = open_folder(options, {**facts, "provenance": origin})
    if footage.live:
        footage.live.window = open_window(footage.name)
    overlay = OverlayVideo(run.folder / "overlay.mp4", footage.rate, body.faces, footage.live)
    poses = PosesFile(run.folder, body, options.smooth, options.export)

    def frames_after(passes: int, taken: int) -> Iterator[Frame]:
        """The results speak of the footage of the last pass."""
        shown = footage if passes == options.passes - 1 else open_footage(options, footage.misfit)
        if not is_camera:
            shown.remember(open_states(run.folder) / "detections", goes_on=passes > 0 or has_state(run.folder))
        again = len(overlay.recent)
        frames = shown.after(taken - again)
        overlay.add_again(batch["rgb"][0].numpy() for batch in frames)
        return frames

    return Run(
        frames=Batches(frames_after),
        source=source,
        model=model,
        body=body,
        prior=prior,
        joints=slice(None),
        step=options.stride,
        score=FootageScorer(frozen, options.stride),
        results=FootageResults(run, footage, overlay, poses),
        can_go_on=not is_camera,
    )


def _inputs(options: RunOptions, assets: streams.Assets, **more: Path) -> dict[str, Path]:
    """The files that a run depends on, by the part they play."""
    bank = {"bank": Path(options.bank)} if options.bank else {}
    return {**assets._asdict(), "base_model": Path(options.model_file or assets.base_model), **bank, **more}


def open_video(options: RunOptions) -> "Video":  # noqa: F821, loaded below
    """The wanted frames of `--video`."""
    from footage.video import Video

    return Video(options.video, options.start, options.stop, options.stride, options.max_frames)


def open_footage(options: RunOptions, misfit: "Misfit | None" = None) -> "Footage":  # noqa: F821, loaded below
    """`--video` with its 2D joints, whose left and right a network has its say in."""
    from footage.people import Footage

    return Footage(open_video(options), options.keypoints, options.person_number, options.first_frame, misfit)


def labelled_source(
    options: RunOptions, recording: streams.Recording, samples: CroppedFrames, model: nn.Module
) -> Batches | Retrieval:
    """The samples one after the other, or what draws them by the features of a frame.

    Args:
        samples: of the recording
        model: as it was trained
    """
    if not options.retrieval:
        return Batches(lambda _, taken: batches(samples, options.batch_size, endless=True, first=taken))
    of_model = f" --model_file {options.model_file}" if options.model_file else ""
    remedy = f"run `python process_data.py --dataset bank{of_model} --overwrite`"
    if recording.rendered:
        remedy = f"leave out --bank, or delete {recording.bank}: it is then made again"
    file = Path(options.bank or recording.bank)
    if recording.rendered and not options.bank and (not file.exists() or differences(file, model, samples, remedy)):
        log.info("sorting the labelled samples into %s", file)
        write_bank(file, model, samples)
    bank = open_bank(file, model, samples, remedy)
    return Retrieval(samples, bank, options.sample_num, options.seed)


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
    return people.list_people(open_footage(options), image)


def _bodies(assets: streams.Assets, genders: tuple[str, ...], device: torch.device) -> dict[str, SMPL]:
    bodies = load_bodies(assets.smpl_model_dir, assets.regressor_extra, genders)
    return {gender: body.to(device) for gender, body in bodies.items()}


def _base_model(options: Options, assets: streams.Assets, device: torch.device) -> nn.Module:
    """The network of `--model_file`, or the assets' own, ready to be adapted."""
    from models.hmr import HMR, load_hmr  # torchvision takes more than a second to load

    set_up_gpus(options.tf32)
    # group norm has no running statistics, so that eval() only turns dropout off; SPIN's batch norm keeps its own
    model = load_hmr(assets.mean_params, Path(options.model_file or assets.base_model)).eval().to(device)
    if options.precision == "bf16":
        if not isinstance(model, HMR):
            raise UserError("--precision bf16 is for networks that look at images, and this one is given joints alone")
        model.in_bf16 = True
    return model
