"""What `--dataset_name` and `--video` choose: frames, scores, labelled source, body and base model."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import config
from datasets import h36m, mpi_inf_3dhp, multiview, pw3d
from datasets.base import CroppedFrames
from utils.evaluation import Scored, score_3dhp, score_3dpw, score_3dpw_ph, score_h36m, score_multiview
from utils.joints import SPIN

log = logging.getLogger("boa")


class Assets(NamedTuple):
    """The files that a run needs beside its images: one body with all that belongs to its mesh, and a base model."""

    smpl_model_dir: Path
    mean_params: Path
    regressor_extra: Path
    regressor_h36m: Path
    gmm: Path
    base_model: Path


class Recording(NamedTuple):
    """One data set on disk.

    Attributes:
        images: the folder in which its image names start
        annotations: the processed file, or the folder of such files
        made_by: the command that makes the annotations
        hint: what else to say to whom they are missing
        rendered: by this program, so that `complete` in `images` says of what (synthetic/version.py)
    """

    images: Path
    annotations: Path
    made_by: str
    hint: str = ""
    rendered: bool = False

    @property
    def bank(self) -> Path:
        """Where the bank of a labelled source is (datasets/retrieval.py)."""
        return self.annotations.with_name(f"{self.annotations.stem}_bank.npz")


class Stream(NamedTuple):
    """A video stream with ground truth.

    Attributes:
        reader: images, annotations, remedy -> the frames, and the sequences of the protocol that are not there
        score: one of utils.evaluation's
        protocol: its name in the results
        target, source: what is adapted to, and the labelled source
        learning_rates: those of boa.py's options that are not the paper's here
        joints: those of the 49 that the 2D losses see; a detector has OpenPose's, too
        detected_at: frames/s, where the 2D joints are a detector's, which may exchange left and right; 0: they are not
    """

    reader: Callable[[Path, Path, str], tuple[CroppedFrames, list[str]]]
    score: Callable[..., Scored]
    protocol: str
    target: Recording
    source: Recording
    assets: Assets
    learning_rates: Mapping[str, float] = {}
    joints: slice = SPIN
    detected_at: float = 0.0

    def open(self) -> tuple[CroppedFrames, list[str]]:
        """Raises UserError when the files are missing, damaged or empty."""
        remedy = f"run `{self.target.made_by}` (README, Benchmarks){self.target.hint}"
        return self.reader(self.target.images, self.target.annotations, remedy)


def open_source(source: Recording) -> CroppedFrames:
    """Open a labelled source; UserError when it is missing, damaged or empty."""
    remedy = f"run `{source.made_by}` (README, Benchmarks), or do without by --labelloss_weight 0"
    return h36m.open_source(source.images, source.annotations, remedy)


ASSETS = Assets(
    config.SMPL_MODEL_DIR,
    config.SMPL_MEAN_PARAMS,
    config.JOINT_REGRESSOR_TRAIN_EXTRA,
    config.JOINT_REGRESSOR_H36M,
    config.GMM_FILE,
    config.DATA / "basemodel.pt",
)
_EXTRAS = config.DATASET_NPZ_PATH
H36M = Recording(config.H36M_ROOT, _EXTRAS / "h36m_train.npz", "python process_data.py --dataset h36m")
H36M_VALID = {
    protocol: Recording(
        config.H36M_ROOT,
        _EXTRAS / f"h36m_valid_protocol{protocol}.npz",
        "python process_data.py --dataset h36m --split valid",
    )
    for protocol in (1, 2)
}
PW3D = Recording(
    config.PW3D_ROOT,
    _EXTRAS / "3dpw_vid",
    "python process_data.py --dataset 3dpw",
    "; without any download, `--dataset_name synthetic` runs now",
)
PW3D_PH = Recording(config.PW3D_ROOT, _EXTRAS / "3dpw_ph", "python process_data.py --dataset 3dpw --protocol ph")
HP3D = Recording(config.MPI_INF_3DHP_ROOT, _EXTRAS / "mpi_inf_3dhp_test.npz", "python process_data.py --dataset 3dhp")
HP3D_TRAIN = HP3D._replace(
    annotations=_EXTRAS / "mpi_inf_3dhp_train.npz", made_by="python process_data.py --dataset 3dhp --split train"
)

MULTIVIEW = Recording(config.MULTIVIEW_ROOT, _EXTRAS / "multiview.npz", "python process_data.py --dataset multiview")

# the free benchmark and footage: body and networks come with the repository, images are rendered from seeds
_SPIN_DATA = config.DEMO / "spin_data"
DEMO_ASSETS = Assets(
    config.DEMO / "smpl",
    _SPIN_DATA / "smpl_mean_params.npz",
    _SPIN_DATA / "J_regressor_extra.npy",
    _SPIN_DATA / "J_regressor_h36m.npy",
    _SPIN_DATA / "gmm_08.pkl",
    config.DEMO / "basemodel.pt",
)
FOOTAGE_ASSETS = DEMO_ASSETS._replace(base_model=config.DEMO / "joints.pt")
WILD_ASSETS = DEMO_ASSETS._replace(base_model=config.DEMO / "footage.pt")  # a network of images


def _rendered(split: str, dataset: str, annotations: str = "3dpw_vid") -> Recording:
    folder = config.SYNTHETIC_ROOT / split
    return Recording(folder, folder / annotations, f"python process_data.py --dataset {dataset}", rendered=True)


LAB = _rendered("source", "synthetic", "h36m_train.npz")
WILD = _rendered("wild-source", "wild", "h36m_train.npz")

# of the smallest acceleration error on the validation stream (`make rates`)
SYNTHETIC_LEARNING_RATES = {"lr": 3e-5, "metalr": 8e-5}
# of the smallest 2D error on rendered footage (`make wild-rates footage-rates`)
WILD_LEARNING_RATES = {"lr": 6e-5, "metalr": 1.6e-4}
# a network that is given the joints keeps the paper's learning rates: larger ones lose the body in long clips, and it
# has no need of a labelled source; for a camera, adapting costs more frames than it brings (docs/footage.md)
FOOTAGE_DEFAULTS = {"labelloss_weight": 0.0}


def _street(split: str) -> Stream:
    return Stream(
        pw3d.open_folder,
        score_3dpw,
        f"synthetic {split} (14 joints)",
        _rendered(split, "synthetic"),
        LAB,
        DEMO_ASSETS,
        SYNTHETIC_LEARNING_RATES,
    )


STREAMS = {
    "3dpw": Stream(pw3d.open_stream, score_3dpw, "3DPW test, #PS (14 joints)", PW3D, H36M, ASSETS),
    "3dpw-ph": Stream(pw3d.open_ph, score_3dpw_ph, "3DPW test, #PH (14 joints)", PW3D_PH, H36M, ASSETS),
    "mpi-inf-3dhp": Stream(mpi_inf_3dhp.open_stream, score_3dhp, "MPI-INF-3DHP test (17 joints)", HP3D, H36M, ASSETS),
    **{
        f"h36m-p{protocol}": Stream(
            h36m.open_stream, score_h36m, f"Human3.6M, protocol {protocol} (14 joints)", recording, H36M, ASSETS
        )
        for protocol, recording in H36M_VALID.items()
    },
    "synthetic": _street("test"),
    "synthetic-validation": _street("validation"),
    "wild": Stream(
        pw3d.open_folder,
        score_3dpw,
        "rendered footage (14 joints)",
        _rendered("wild", "wild"),
        WILD,
        WILD_ASSETS,
        WILD_LEARNING_RATES,
    ),
    "multiview": Stream(
        multiview.open_stream,
        score_multiview,
        "Pose2Sim's demo (12 joints of the limbs)",
        MULTIVIEW,
        WILD,
        FOOTAGE_ASSETS,
        FOOTAGE_DEFAULTS,
        joints=slice(None),
        detected_at=60.0,
    ),
}


def footage_defaults(model_file: str, is_camera: bool = False) -> Mapping[str, object]:
    """Options of boa.py that are not the paper's for `--video`: of the free network of joints, or of one of images."""
    is_free = not model_file and missing_for_footage("")
    if not is_free:
        return WILD_LEARNING_RATES
    return {**FOOTAGE_DEFAULTS, "method": "frozen"} if is_camera else FOOTAGE_DEFAULTS


def missing_for_footage(model_file: str) -> list[Path]:
    """The files of the user's SMPL, and of a base model for it where none is named, that are not there."""
    models = [ASSETS.smpl_model_dir / f"SMPL_NEUTRAL{suffix}" for suffix in (".npz", ".pkl")]
    body = next((model for model in models if model.exists()), models[-1])
    base_model = [] if model_file else [ASSETS.base_model]
    needed = [body, ASSETS.mean_params, ASSETS.regressor_extra, ASSETS.gmm, *base_model]
    return [file for file in needed if not file.exists()]


def footage_assets(model_file: str) -> Assets:
    """The user's body model and network where they are there, else the free ones, which is said."""
    missing = missing_for_footage(model_file)
    if not missing:
        return ASSETS
    log.info("the body is the free one of %s, as %s is missing", config.DEMO, missing[0])
    return FOOTAGE_ASSETS
