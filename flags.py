"""The flags of boa.py: those of a run and, from models.learner, those of the step; what they choose, and stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import streams
from models.learner import ADAPTS, BENCHMARK, DYNAMIC, FIRST_ORDER, SECOND_ORDER, StepOptions
from utils.errors import UserError
from utils.files import existing
from utils.options import option

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".mts", ".wmv"}
# the modes in which some flags do something
FOOTAGE, RETRIEVAL, PARTS = "--video", "--retrieval", "--per_sequence, several clips and --person all"
EVERYBODY = "all"  # of --person

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
    resume: bool = option(False, "go on where the run of this name was stopped, or begin it; the results are the same")
    verify: str = option(
        "", "recompute the scores in the folder of a run from its predictions.npz, and compare", without_name=True
    )
    checkpoint_every: int = option(
        500, "frames after which the state is saved for --resume; 0: only when the run is stopped", least=0
    )
    seed: int = option(22, "of every random number", least=0)
    device: str = option("", "cpu, cuda, cuda:1, ...; default: a GPU where there is one")
    tf32: bool = option(False, "let a GPU round the factors of products to 10 bits, which is faster on many")
    model_file: str = option("", "the base model; default: data/basemodel.pt")
    method: str = option("boa", "boa, or frozen: score the base model without adapting", choices=("boa", "frozen"))
    stride: int = option(1, "take every n-th frame", least=1)
    max_frames: int = option(0, "stop after so many frames; 0: all", least=0)
    passes: int = option(1, "go through what is recorded so often; the last time counts", least=1, only=ADAPTS)
    # the labelled source
    retrieval: bool = option(False, "draw labelled samples that look like the frame, for each level anew", only=ADAPTS)
    sample_num: int = option(1, "labelled samples for each frame of a batch", least=1, only=RETRIEVAL)
    bank: str = option("", "which of them look alike; default: the file beside the source", only=RETRIEVAL)
    # parts that do not depend on each other
    workers: int = option(
        1,
        "parts that run side by side: sequences of --per_sequence, clips of --video, people of --person all",
        least=1,
        only=PARTS,
    )
    cluster: str = option(
        "none",
        "let the parts be jobs of SLURM, or of submitit's own stand-in for it",
        choices=("none", "slurm", "local"),
        only=PARTS,
    )
    cluster_options: str = option(
        "", "what submitit asks for each job, as slurm_partition=gpu,gpus_per_node=1,timeout_min=600", only=PARTS
    )
    # a data set
    dataset_name: str = option("3dpw", "the video stream", choices=tuple(streams.STREAMS), only=BENCHMARK)
    batch_size: int = option(1, "frames per step", least=1, only=BENCHMARK)
    per_sequence: bool = option(
        False, "begin every sequence with the base model, so that it does not depend on the others", only=BENCHMARK
    )
    sequence: str = option("", "only this sequence", only=BENCHMARK)
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
    video: str = option(
        "",
        "a video file, a folder of images, the number of a camera, or several clips: a folder or a list (.txt) of them",
    )
    keypoints: str = option(
        "mediapipe", "its 2D joints: mediapipe, or the file or folder of OpenPose or AlphaPose", only=FOOTAGE
    )
    first_frame: int = option(
        -1, "the frame, counted from 0, that the first entry of --keypoints is of; -1: find it", least=-1, only=FOOTAGE
    )
    person: str = option(
        "0",
        "whom to follow, as --list_people shows; 0: the largest, most central at the start; all: everybody",
        only=FOOTAGE,
    )
    list_people: bool = option(False, "only write an image of who is there, with numbers", only=FOOTAGE)
    start: float = option(0.0, "seconds of the video at which to begin", least=0, only=FOOTAGE)
    stop: float = option(0.0, "seconds of the video at which to stop; 0: its end", least=0, only=FOOTAGE)
    smooth: bool = option(
        True, "smooth predictions.npz and animations over time, beside what was predicted", only=FOOTAGE
    )
    export: str = option(
        "none", "an animated file beside the video", choices=("none", "glb", "bvh", "both"), only=FOOTAGE
    )

    @property
    def is_divided(self) -> bool:
        """Whether the run consists of parts that do not depend on each other."""
        return self.per_sequence or self.person == EVERYBODY or bool(several_clips(self.video))

    @property
    def person_number(self) -> int:
        """The number of whom to follow, 0 where nobody is named; UserError when `person` is none."""
        if self.person == EVERYBODY:
            return 0
        if not (self.person.isascii() and self.person.isdecimal()):
            raise UserError(f"--person takes a number, as --list_people shows it, or {EVERYBODY}, not {self.person!r}")
        return int(self.person)


@dataclass(frozen=True)
class Options(StepOptions, RunOptions):
    """Every flag of the command line: those of the run, and those of the step."""

    @property
    def as_dynaboa(self) -> bool:
        """Whether DynaBOA's published code is repeated, beside BOA's."""
        return self.paper_compat and (self.dynamic_boa or self.retrieval)


def modes(options: Options) -> set[str]:
    """The modes that the options choose, in which some flags do something."""
    found = {FOOTAGE if options.video else BENCHMARK}
    if options.method == "boa":
        found |= {ADAPTS, SECOND_ORDER if options.is_bilevel else FIRST_ORDER}
    found |= {PARTS} if options.is_divided else set()
    return found | ({DYNAMIC} if options.dynamic_boa else set()) | ({RETRIEVAL} if options.retrieval else set())


def several_clips(video: str) -> list[Path]:
    """The clips that `--video` names, where it is a folder of videos or a list of them; UserError if one is missing."""
    path = Path(video)
    if video and path.is_dir():
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        has_images = any(file.suffix.lower() in IMAGES for file in files)
        return [] if has_images else [file for file in files if file.suffix.lower() in VIDEOS]
    if path.suffix.lower() != ".txt" or not path.is_file():
        return []
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [existing(path.parent / line, f"correct the list {path}") for line in lines if line]


def defaults(options: RunOptions) -> Mapping[str, float | str]:
    """The defaults of what the options choose to run on, where they are not the paper's."""
    if options.video:
        return streams.footage_defaults(options.model_file)
    return streams.STREAMS[options.dataset_name].defaults


def other_defaults() -> dict[str, Mapping[str, float | str]]:
    """Where defaults are not the paper's -> these."""
    others = {name: stream.defaults for name, stream in streams.STREAMS.items() if stream.defaults}
    return {**others, FOOTAGE: streams.footage_defaults("")}
