"""Small stand-ins for licensed files: a body of four vertices a joint, regressors, a network, raw data sets."""

import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import cdflib.cdfwrite
import cv2
import h5py
import numpy as np
import scipy.io
import torch
from torch import nn

import streams
from models.hmr import HMR
from utils.data_preprocess.mpi_inf_3dhp import CAMERAS
from utils.geometry import rot6d_to_rotmat
from utils.hp3d import TEST_SEQUENCES
from utils.joints import BODY25, H36M32, SMPL24
from utils.structures import SmplParams

PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
# metres, y up, the left side at +x
REST = np.array(
    [
        *((0, 0, 0), (0.1, -0.1, 0), (-0.1, -0.1, 0), (0, 0.1, 0), (0.1, -0.5, 0), (-0.1, -0.5, 0), (0, 0.2, 0)),
        *((0.1, -0.9, 0), (-0.1, -0.9, 0), (0, 0.3, 0), (0.1, -0.95, 0.1), (-0.1, -0.95, 0.1), (0, 0.5, 0)),
        *((0.05, 0.45, 0), (-0.05, 0.45, 0), (0, 0.6, 0), (0.2, 0.45, 0), (-0.2, 0.45, 0), (0.45, 0.45, 0)),
        *((-0.45, 0.45, 0), (0.7, 0.45, 0), (-0.7, 0.45, 0), (0.8, 0.45, 0), (-0.8, 0.45, 0)),
    ]
)
CORNERS = 0.05 * np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
VERTICES = len(REST) * len(CORNERS)
SIZE = (320, 240)  # px, width and height of the images
# which of SMPL's joints lies where Human3.6M's 17 are
_H36M17_FROM_SMPL = [0, 1, 4, 7, 2, 5, 8, 6, 12, 15, 15, 16, 18, 20, 17, 19, 21]


def smpl_model(size: float = 1.0) -> dict:
    """The arrays of an SMPL file: four vertices around each joint, joint at their mean, the first beta makes larger."""
    rng = np.random.default_rng(0)
    template = size * (REST[:, None] + CORNERS).reshape(-1, 3)
    shapedirs = rng.normal(0, 0.002, (VERTICES, 3, 10))
    shapedirs[..., 0] = 0.05 * template
    joint_of_vertex = np.repeat(np.eye(24), len(CORNERS), axis=1)
    tetrahedron = np.array([(0, 1, 2), (0, 2, 3), (0, 3, 1), (1, 3, 2)])
    return {
        "v_template": template,
        "shapedirs": shapedirs,
        "posedirs": rng.normal(0, 0.001, (VERTICES, 3, 207)),
        "J_regressor": joint_of_vertex / len(CORNERS),
        "J": size * REST,
        "weights": joint_of_vertex.T,
        "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(24)]),
        "f": np.concatenate([tetrahedron + 4 * joint for joint in range(24)]),
        "vertex_ids": np.arange(21) * 4,
    }


def mean_params() -> dict:
    upright = np.diag([1.0, -1.0, -1.0])  # the camera's y points down
    pose = np.concatenate([upright[None], np.tile(np.eye(3), (23, 1, 1))])[:, :, :2].reshape(-1)
    return {"pose": pose, "shape": np.zeros(10), "cam": np.array([0.9, 0.0, 0.0])}


def write_assets(folder: Path) -> streams.Assets:
    """Body models (women smaller), regressors, mean parameters, prior and a ResNet-18 checkpoint."""
    rng = np.random.default_rng(1)
    for path in (folder / "smpl", folder / "spin_data"):
        path.mkdir(parents=True, exist_ok=True)
    for gender, size in (("NEUTRAL", 1.0), ("MALE", 1.1), ("FEMALE", 0.8)):
        np.savez(folder / "smpl" / f"SMPL_{gender}.npz", **smpl_model(size))
    spin = folder / "spin_data"
    rows = np.repeat(np.eye(24), 4, axis=1) / 4
    np.save(spin / "J_regressor_h36m.npy", rows[_H36M17_FROM_SMPL])
    np.save(spin / "J_regressor_extra.npy", rows[[2, 1, 12, 15, 0, 9, 6, 15, 15]])
    np.savez(spin / "smpl_mean_params.npz", **mean_params())
    covariances = np.tile(np.eye(69) * 0.1, (8, 1, 1))
    mixture = {"means": rng.normal(0, 0.1, (8, 69)), "covars": covariances, "weights": np.full(8, 1 / 8)}
    (spin / "gmm_08.pkl").write_bytes(pickle.dumps(mixture, protocol=2))
    torch.manual_seed(0)
    torch.save({"model": HMR(mean_params(), depth=18).state_dict()}, folder / "basemodel.pt")
    return streams.Assets(
        folder / "smpl",
        spin / "smpl_mean_params.npz",
        spin / "J_regressor_extra.npy",
        spin / "J_regressor_h36m.npy",
        spin / "gmm_08.pkl",
        folder / "basemodel.pt",
    )


class TinyRegressor(nn.Module):
    """A network of a few thousand weights with HMR's interface."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 14 * 14, 157)
        nn.init.normal_(self.layer.weight, std=1e-3)
        nn.init.zeros_(self.layer.bias)
        mean = mean_params()
        start = np.concatenate([mean["pose"], mean["shape"], mean["cam"]])
        self.register_buffer("start", torch.as_tensor(start, dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> SmplParams:
        out = self.start + self.layer(nn.functional.avg_pool2d(image, 16).flatten(1))
        pose, shape, cam = out.split([144, 10, 3], dim=1)
        return SmplParams(rot6d_to_rotmat(pose).view(-1, 24, 3, 3), shape, cam)


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (SIZE[1] // 16, SIZE[0] // 16, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(pixels, SIZE))


def write_3dpw(root: Path, sequences: dict[str, str], frames: int = 4) -> None:
    """Raw 3DPW: {sequence: genders of its people}, e.g. {'downtown_bar_00': 'mf'}; one frame of each is not valid."""
    folder = root / "sequenceFiles" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    camera = np.eye(4)
    camera[:3, :3] = np.diag([1.0, -1.0, -1.0])
    camera[:3, 3] = [0, 0, 4]
    for number, (name, genders) in enumerate(sequences.items()):
        rng = np.random.default_rng(number)
        people = range(len(genders))
        valid = np.ones(frames + 1)
        valid[1] = 0
        sequence = {
            "sequence": name,
            "genders": list(genders),
            "poses": [rng.normal(0, 0.1, (frames + 1, 72)) for _ in people],
            "betas": [rng.normal(0, 1, 300) for _ in people],
            "trans": [np.tile([0.3 * person, 0.1, 0.2], (frames + 1, 1)) for person in people],
            "poses2d": [rng.uniform(0, 1, (frames + 1, 3, 18)) for _ in people],
            "campose_valid": [valid for _ in people],
            "cam_poses": np.tile(camera, (frames + 1, 1, 1)),
            "cam_intrinsics": np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]]),
        }
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(sequence, protocol=2))
        for frame in range(frames + 1):
            write_image(root / "imageFiles" / name / f"image_{frame:05d}.jpg", seed=frame)


def write_h36m(root: Path, mosh_root: Path, sequences: dict[str, list[str]], frames: int = 11) -> None:
    """Raw Human3.6M: {subject: ['Walking.54138969', ...]}; joint k of the 32 is at (k, 2k, 3k) mm and (k, 100) px."""
    cameras = {"54138969": 0, "55011271": 1, "58860488": 2, "60457274": 3}
    for subject, names in sequences.items():
        for name in names:
            features = root / subject / "MyPoseFeatures"
            k = np.arange(len(H36M32))
            for folder, joints in (("D3_Positions_mono", [k, 2 * k, 3 * k]), ("D2_Positions", [k, 0 * k + 100])):
                row = np.stack(joints, 1).ravel()
                write_cdf(features / folder / f"{name}.cdf", np.tile(row, (frames, 1)))
            masks = root / subject / "MySegmentsMat" / "ground_truth_bb" / f"{name}.mat"
            masks.parent.mkdir(parents=True, exist_ok=True)
            mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
            mask[20:220, 100:180] = 1
            with h5py.File(masks, "w") as file:
                references = file.create_dataset("Masks", (frames, 1), dtype=h5py.ref_dtype)
                for frame in range(frames):
                    references[frame, 0] = file.create_dataset(f"m{frame}", data=mask.T).ref
            video = root / subject / "Videos" / f"{name}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), 50, SIZE)
            for frame in range(frames):
                writer.write(np.full((SIZE[1], SIZE[0], 3), 20 * frame, np.uint8))
            writer.release()
            action, camera = name.rsplit(".", 1)
            mosh = mosh_root / subject / f"{action}_cam{cameras[camera]}_aligned.pkl"
            mosh.parent.mkdir(parents=True, exist_ok=True)
            poses = np.zeros(((frames + 4) // 5, 72))
            mosh.write_bytes(pickle.dumps({"new_poses": poses, "betas": np.zeros(10)}, protocol=2))


def write_cdf(path: Path, table: np.ndarray, variable: str = "Pose") -> None:
    """A CDF file with one variable of a row (F,K) for each frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # cdflib writes over nothing
    data = table.astype(np.float32)
    file = cdflib.cdfwrite.CDF(path, cdf_spec={"Majority": "row_major", "Encoding": 6, "Compressed": 0})
    kind = {"Variable": variable, "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True, "Var_Type": "zVariable"}
    file.write_var({**kind, "Dim_Sizes": list(data.shape), "Dim_Vary": [True, True]}, var_data=data[None])
    file.close()


def write_3dhp(root: Path, frames: int = 4, sequences: Iterable[str] = TEST_SEQUENCES) -> None:
    """Raw test set of MPI-INF-3DHP: joint k is at (60 + 8k, 200 - 4k) px and (10k, -20k, 5k + 3000) mm.

    Frame 1 is not valid; in frame 2 the last joint is right of the image; the others move by a pixel each.
    """
    k, t = np.arange(17), np.arange(frames)[:, None]
    joints_2d = np.stack([60 + 8 * k + t, 200 - 4 * k + 0 * t], axis=2).astype(float)
    joints_2d[2, -1, 0] = SIZE[0]
    joints_3d = np.tile(np.stack([10 * k, -20 * k, 5 * k + 3000], axis=1).astype(float), (frames, 1, 1))
    valid = np.ones((frames, 1))
    valid[1] = 0
    for number, name in enumerate(sequences):
        folder = root / "mpi_inf_3dhp_test_set" / name
        for frame in range(frames):
            write_image(folder / "imageSequence" / f"img_{frame + 1:06d}.jpg", seed=10 * number + frame)
        with h5py.File(folder / "annot_data.mat", "w") as file:
            file["annot2"], file["annot3"] = joints_2d[:, None], joints_3d[:, None]
            file["valid_frame"] = valid
            file["activity_annotation"] = np.full((frames, 1), 1.0 + number)


def write_3dhp_train(root: Path, sequences: Iterable[str] = ("S1/Seq1",), frames: int = 21) -> None:
    """Raw training set of MPI-INF-3DHP: joint k is at (900 + 10k, 1000) px; frame t is grey of brightness 10t.

    In the first frame of camera 1 a joint is left of the image.
    """
    k = np.arange(28)
    joints_2d = np.stack([900 + 10 * k, 0 * k + 1000], axis=1).ravel().astype(float)
    joints_3d = np.stack([10 * k, -20 * k, 5 * k + 3000], axis=1).ravel().astype(float)
    for name in sequences:
        folder = root / name
        (folder / "imageSequence").mkdir(parents=True, exist_ok=True)
        annotations = {key: np.empty((14, 1), object) for key in ("annot2", "annot3")}
        for camera in range(14):
            annotations["annot2"][camera, 0] = np.tile(joints_2d, (frames, 1))
            annotations["annot3"][camera, 0] = np.tile(joints_3d, (frames, 1))
        annotations["annot2"][1, 0][0, 2 * 7] = -1
        scipy.io.savemat(folder / "annot.mat", annotations)
        for camera in CAMERAS:
            write_video(folder / "imageSequence" / f"video_{camera}.avi", frames)


def write_video(path: Path, frames: int, size: tuple[int, int] = (64, 64)) -> None:
    """Frame t is grey of brightness 10t."""
    codec = cv2.VideoWriter_fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), codec, 25, size)
    for frame in range(frames):
        writer.write(np.full((*size[::-1], 3), 10 * frame, np.uint8))
    writer.release()


def write_openpose(folder: Path, frames: int) -> None:
    """OpenPose's files of a clip of size SIZE in which the toy body stands; its face and feet are not found."""
    folder.mkdir(parents=True, exist_ok=True)
    joints = np.zeros((len(BODY25), 3))
    for row, name in enumerate(BODY25.values()):
        if name in SMPL24:
            x, y, _ = REST[SMPL24.index(name)]
            joints[row] = SIZE[0] / 2 + 100 * x, SIZE[1] / 2 - 100 * y, 0.9
    content = json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": joints.ravel().tolist()}]})
    for frame in range(frames):
        (folder / f"clip_{frame:012d}_keypoints.json").write_text(content)


def write_source(root: Path, file: Path, frames: int = 3) -> None:
    """A labelled source in the processed format, with its images."""
    rng = np.random.default_rng(5)
    names = [f"images/source_{frame}.jpg" for frame in range(frames)]
    for frame, name in enumerate(names):
        write_image(root / name, seed=100 + frame)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        imgname=np.array(names),
        center=np.tile([160.0, 120.0], (frames, 1)),
        scale=np.full(frames, 1.2),
        part=np.concatenate([rng.uniform(60, 200, (frames, 24, 2)), np.ones((frames, 24, 1))], axis=2),
        S=np.concatenate([rng.normal(0, 0.3, (frames, 24, 3)), np.ones((frames, 24, 1))], axis=2),
        pose=rng.normal(0, 0.2, (frames, 72)),
        shape=rng.normal(0, 1, (frames, 10)),
    )


def environment(folder: Path) -> dict[str, str]:
    """What points the commands at a folder of toys."""
    names = {"BOA_DATA": "data", "PW3D_ROOT": "3DPW", "H36M_ROOT": "H36M", "H36M_MOSH_ROOT": "mosh"}
    names["MPI_INF_3DHP_ROOT"] = "MPI_INF_3DHP"
    return {name: str(folder / part) for name, part in names.items()}


def read_summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())
