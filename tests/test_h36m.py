"""Human3.6M: damaged, missing and repaired files, the mesh annotation, the archives, the scored subjects."""

import gzip
import io
import logging
import pickle
import re
import tarfile
import tracemalloc
import types

import cv2
import h5py
import numpy as np
import pytest
import torch
import toys
from damage import cut, emptied, gone
from scipy.spatial.transform import Rotation

from datasets import h36m as stream
from models.smpl import load_bodies
from utils.data_preprocess import conversion, h36m
from utils.data_preprocess.conversion import Settings
from utils.errors import UserError
from utils.evaluation import score_h36m
from utils.joints import H36M17, H36M32, SPIN, SPIN24, rows

SEQUENCES = {"S1": ["Walking.54138969", "Eating.60457274"], "S5": ["Posing.55011271"]}
DAMAGED = "Eating.60457274"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("h36m")
    toys.write_h36m(folder / "H36M", folder / "mosh", SEQUENCES)
    return folder


def convert(raw, output, **more) -> list[str]:
    return h36m.convert(raw / "H36M", raw / "mosh", output / "h36m_train.npz", **more)


def cdf(joints: np.ndarray, variable: str = "Pose"):
    return lambda file: toys.write_cdf(file, joints, variable)


def no_person(file) -> None:
    with h5py.File(file, "a") as content:
        content["m5"][...] = 0


def larger_masks(file) -> None:
    with h5py.File(file, "a") as content:
        for frame in range(11):
            del content[f"m{frame}"]
            content["Masks"][frame, 0] = content.create_dataset(f"m{frame}", data=np.ones((640, 480), np.uint8)).ref


def no_masks(file) -> None:
    with h5py.File(file, "a") as content:
        del content["Masks"]


def fewer_masks(file) -> None:
    with h5py.File(file, "a") as content:
        first = content["Masks"][:3]
        del content["Masks"]
        content.create_dataset("Masks", data=first, dtype=h5py.ref_dtype)


def short_video(file) -> None:
    toys.write_video(file, 6)


def mosh(**changes):
    def damage(file) -> None:
        content = {**pickle.loads(file.read_bytes()), **changes}
        content = {name: array for name, array in content.items() if array is not None}
        file.write_bytes(pickle.dumps(content, protocol=2))

    return damage


def with_nan() -> np.ndarray:
    joints = np.zeros((11, 96))
    joints[5, 9:12] = np.nan
    return joints


D3, D2, MASKS, VIDEO = (
    f"H36M/S1/{place}"
    for place in (
        f"MyPoseFeatures/D3_Positions_mono/{DAMAGED}.cdf",
        f"MyPoseFeatures/D2_Positions/{DAMAGED}.cdf",
        f"MySegmentsMat/ground_truth_bb/{DAMAGED}.mat",
        f"Videos/{DAMAGED}.mp4",
    )
)
MOSH = "mosh/S1/Eating_cam3_aligned.pkl"
DAMAGES = {
    "3D truncated": (D3, cut, r"Eating.60457274.cdf cannot be read"),
    "3D empty": (D3, emptied, r"Eating.60457274.cdf cannot be read"),
    "3D wrong variable": (D3, cdf(np.zeros((11, 96)), "Other"), r"Eating.60457274.cdf cannot be read"),
    "3D wrong shape": (D3, cdf(np.zeros((11, 95))), r"Pose has shape \(1, 11, 95\) where \(1, frames, 96\)"),
    "3D other joints": (D3, cdf(np.zeros((11, 51))), r"Pose has shape \(1, 11, 51\) where"),
    "3D nan": (D3, cdf(with_nan()), r"S is not finite in 1 frames, the first is images/S1_Eating.60457274_000006"),
    "2D missing": (D2, gone, r"Eating.60457274.cdf is missing"),
    "2D other frames": (D2, cdf(np.zeros((9, 64))), r"has 9 frames, the 3D joints 11"),
    "masks missing": (MASKS, gone, r"Eating.60457274.mat is missing"),
    "masks truncated": (MASKS, cut, r"Eating.60457274.mat cannot be read"),
    "masks empty": (MASKS, emptied, r"Eating.60457274.mat cannot be read"),
    "masks wrong variable": (MASKS, no_masks, r"Eating.60457274.mat cannot be read"),
    "masks too few": (MASKS, fewer_masks, r"Eating.60457274.mat cannot be read"),
    "masks of another size": (MASKS, larger_masks, r"mp4 is 320 x 240 px, its annotation for 640 x 480"),
    "mask without a person": (MASKS, no_person, r"a mask without a person"),
    "video missing": (VIDEO, gone, r"Eating.60457274.mp4 is missing"),
    "video truncated": (VIDEO, cut, r"Eating.60457274.mp4 (cannot be decoded|ends after)"),
    "video empty": (VIDEO, emptied, r"Eating.60457274.mp4 cannot be decoded"),
    "video too short": (VIDEO, short_video, r"Eating.60457274.mp4 ends after 6 of 11 annotated frames"),
    "mosh missing": (MOSH, gone, r"Eating_cam3_aligned.pkl is missing"),
    "mosh truncated": (MOSH, cut, r"Eating_cam3_aligned.pkl cannot be read safely"),
    "mosh without a variable": (MOSH, mosh(betas=None), r"Eating_cam3_aligned.pkl lacks betas"),
    "mosh of another shape": (MOSH, mosh(new_poses=np.zeros((3, 69))), r"new_poses has shape \(3, 69\)"),
    "mosh with nan": (MOSH, mosh(new_poses=np.full((3, 72), np.nan)), r"pose is not finite in 3 frames"),
    "mosh too short": (MOSH, mosh(new_poses=np.zeros((2, 72))), r"2 mesh annotations for 3 frames"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_the_others_are_converted_and_after_repair_only_what_was_missing(
    raw, tmp_path, caplog, damage
):
    name, spoil, message = DAMAGES[damage]
    file = raw / name
    whole = file.read_bytes()
    spoil(file)
    try:
        assert convert(raw, tmp_path) == [f"S1_{DAMAGED}"]
    finally:
        file.write_bytes(whole)
    (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert re.search(message, line) and "\n" not in line
    assert np.load(tmp_path / "h36m_train.npz")["missing"].tolist() == [f"S1_{DAMAGED}"]
    before = {part: part.stat().st_mtime_ns for part in (tmp_path / "parts/h36m_train").glob("*.npz")}
    assert len(before) == 2
    assert convert(raw, tmp_path) == []
    after = {part: part.stat().st_mtime_ns for part in (tmp_path / "parts/h36m_train").glob("*.npz")}
    assert len(after) == 3 and before.items() < after.items()
    assert len(np.load(tmp_path / "h36m_train.npz")["imgname"]) == 9


def test_each_mask_and_each_frame_is_read_once(raw, tmp_path, monkeypatch):
    masks, grabbed = [], []
    box, capture = h36m._box, cv2.VideoCapture
    monkeypatch.setattr(h36m, "_box", lambda mask: masks.append(1) or box(mask))

    class Counting:
        def __init__(self, path: str) -> None:
            self.capture = capture(path)

        def grab(self) -> bool:
            grabbed.append(1)
            return self.capture.grab()

        def retrieve(self):
            return self.capture.retrieve()

        def release(self) -> None:
            self.capture.release()

    monkeypatch.setattr(conversion.cv2, "VideoCapture", Counting)
    convert(raw, tmp_path)
    assert len(masks) == 3 * 3  # every 5th of 11 frames of three sequences
    assert len(grabbed) == 3 * 11


def test_several_processes_make_the_same_file_and_a_picture_for_each_subject(raw, tmp_path):
    for workers in (1, 2):
        convert(raw, tmp_path / str(workers), settings=Settings(workers, preview=True))
        assert cv2.imread(str(tmp_path / str(workers) / "h36m_train_S5.png")).any()
    one, two = (np.load(tmp_path / str(workers) / "h36m_train.npz") for workers in (1, 2))
    assert sorted(one.files) == sorted(two.files)
    assert all((one[name] == two[name]).all() for name in one.files)


def test_a_dry_run_says_what_is_missing(raw, tmp_path, caplog):
    file = raw / MASKS
    whole = file.read_bytes()
    file.unlink()
    try:
        with pytest.raises(UserError, match="1 things are missing or wrong in 3 sequences"):
            convert(raw, tmp_path, settings=Settings(dry_run=True))
    finally:
        file.write_bytes(whole)
    assert "S1 Eating.60457274: " in caplog.text and not list(tmp_path.iterdir())


def test_without_the_mesh_annotation_everything_else_is_written(raw, tmp_path, caplog):
    h36m.convert(raw / "H36M", tmp_path / "nowhere", tmp_path / "h36m_train.npz")
    assert "pose and shape are not; set H36M_MOSH_ROOT" in caplog.text
    assert sorted(np.load(tmp_path / "h36m_train.npz").files) == ["S", "center", "imgname", "part", "scale"]
    with pytest.raises(UserError, match="lacks pose and shape, as it was made without the mesh annotation"):
        stream.open_source(raw / "H36M", tmp_path / "h36m_train.npz", "do it")
    convert(raw, tmp_path)  # and once it is there, they are added
    assert len(stream.open_source(raw / "H36M", tmp_path / "h36m_train.npz", "do it")) == 9


@pytest.fixture(scope="module")
def standing(world, tmp_path_factory):
    """A set whose 2D joints are those of its mesh annotation, but for S5's, which is upside-down."""
    folder = tmp_path_factory.mktemp("standing")
    toys.write_h36m(folder / "H36M", folder / "mosh", SEQUENCES)
    assets = world.stream.assets
    body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ["neutral"])["neutral"].joints_only()
    rng = np.random.default_rng(0)
    for subject, names in SEQUENCES.items():
        for name in names:
            sequence = h36m.Sequence36(folder / "H36M", subject, name)
            poses = rng.normal(0, 0.1, (3, 72))
            poses[:, :3] = (Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(poses[:, :3])).as_rotvec()
            joints = h36m._mosh_joints(body, poses, np.zeros(10))[:, rows(H36M17, SPIN24), :2]
            given = np.zeros((11, len(H36M32), 2))
            given[::5, rows(H36M17, H36M32)] = 150 * joints + [300, 200]
            toys.write_cdf(sequence.joints_2d, given.reshape(11, -1))
            if subject == "S5":
                poses[:, :3] = (Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(poses[:, :3])).as_rotvec()
            sequence.mosh(folder / "mosh").write_bytes(pickle.dumps({"new_poses": poses, "betas": np.zeros(10)}, 2))
    return folder, body


def test_an_annotation_that_is_upside_down_is_found_and_turned_in_a_copy(standing, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder, body = standing
    file = folder / "mosh/S5/Posing_cam1_aligned.pkl"
    whole = file.read_bytes()
    with pytest.raises(UserError, match=r"1 mesh annotations are upside-down: S5 Posing\.55011271; add --rectify"):
        convert(folder, tmp_path, body=body)
    assert "S1 Walking.54138969: 0.0 px between mesh annotation and 2D joints" in caplog.text
    convert(folder, tmp_path, body=body, rectify=True)
    turned = file.with_name("Posing_cam1_aligned_rectified.npz")
    assert file.read_bytes() == whole
    written = turned.stat().st_mtime_ns
    labels = np.load(tmp_path / "h36m_train.npz")
    joints = h36m._mosh_joints(body, labels["pose"][-3:], labels["shape"][-1])
    assert h36m.projected_distance(joints, labels["part"][-3:]) < 0.1
    convert(folder, tmp_path, body=body, rectify=True, settings=Settings(overwrite=True))
    assert turned.stat().st_mtime_ns == written


def test_the_scored_subjects_have_a_file_for_each_protocol(tmp_path, bodies, world):
    toys.write_h36m(tmp_path / "H36M", tmp_path / "mosh", {"S9": ["Eating.60457274", "Eating.54138969"], "S1": []})
    files = {protocol: tmp_path / f"p{protocol}.npz" for protocol in (1, 2)}
    h36m.convert_valid(tmp_path / "H36M", files)
    frames = {protocol: stream.open_stream(tmp_path / "H36M", file, "-")[0] for protocol, file in files.items()}
    assert (len(frames[1]), len(frames[2])) == (6, 3)
    assert frames[2][0]["sequence"] == "S9_Eating.60457274"
    assert frames[1][0]["keypoints_2d"][SPIN, 2].sum() == 17


def test_scores_of_human36m_are_zero_for_the_annotated_joints(bodies, world):
    regressor = torch.as_tensor(np.load(world.stream.assets.regressor_h36m), dtype=torch.float32)
    body = bodies["neutral"]
    vertices = body.unposed(torch.zeros(1, 10))
    joints = torch.zeros(1, 24, 4)
    joints[:, rows(H36M17, SPIN24), :3] = regressor @ vertices
    prediction = types.SimpleNamespace(vertices=vertices, keypoints_2d=torch.zeros(1, 49, 2))
    frame = {"joints_3d": joints, "keypoints_2d": torch.ones(1, 49, 3)}
    scores = score_h36m(prediction, frame, bodies, regressor)[2]
    assert scores["mpjpe"][0] < 1e-3


# the archives


def archive(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as content:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            content.addfile(member, io.BytesIO(data))


def test_archives_are_unpacked_once(tmp_path):
    archive(tmp_path / "Poses_S1.tgz", {"S1/MyPoseFeatures/a.cdf": b"joints"})
    h36m.unpack(tmp_path)
    file = tmp_path / "S1/MyPoseFeatures/a.cdf"
    assert file.read_bytes() == b"joints"
    file.unlink()
    h36m.unpack(tmp_path)
    assert not file.exists()  # the archive is marked as done


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside_of_h36m.txt", "S1/../../outside.txt"])
def test_an_archive_that_reaches_outside_is_refused(tmp_path, name):
    root = tmp_path / "H36M"
    root.mkdir()
    archive(root / "bad.tgz", {name: b"bad"})
    if name.startswith("/"):  # the filter takes the slash away, and the file stays inside
        h36m.unpack(root)
        assert (root / name[1:]).exists()
    else:
        with pytest.raises(UserError, match=r"bad\.tgz cannot be unpacked .*download it again"):
            h36m.unpack(root)
    assert not (tmp_path / "outside.txt").exists()


LINKS = {
    "symbolic, up": (tarfile.SYMTYPE, ".."),
    "symbolic, away": (tarfile.SYMTYPE, "/tmp"),
    "symbolic, inside": (tarfile.SYMTYPE, "S5"),
    "hard": (tarfile.LNKTYPE, "../../outside.txt"),
    "fifo": (tarfile.FIFOTYPE, ""),
    "device": (tarfile.CHRTYPE, ""),
    "sparse": (tarfile.GNUTYPE_SPARSE, ""),
}


@pytest.mark.parametrize("kind", LINKS)
def test_an_archive_with_a_link_is_refused_before_anything_goes_through_it(tmp_path, kind):
    root = tmp_path / "H36M"
    root.mkdir()
    with tarfile.open(root / "bad.tgz", "w:gz") as content:
        link = tarfile.TarInfo("S1")
        link.type, link.linkname = LINKS[kind]
        content.addfile(link)
        member = tarfile.TarInfo("S1/outside.txt")
        member.size = 3
        content.addfile(member, io.BytesIO(b"bad"))
    with pytest.raises(UserError, match=r"bad\.tgz cannot be unpacked"):
        h36m.unpack(root)
    assert [path.name for path in root.iterdir()] == ["bad.tgz"]
    assert [path.name for path in tmp_path.iterdir()] == ["H36M"]


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_archive_that_announces_what_it_does_not_hold_asks_for_no_memory(tmp_path, kind):
    member = tarfile.TarInfo("S1/large.bin")
    member.type, member.size = kind, 8 * 2**30
    (tmp_path / "bad.tgz").write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(2000)))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"bad\.tgz cannot be unpacked"):
        h36m.unpack(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert not (tmp_path / ".unpacked").exists()


def test_a_truncated_archive_is_one_line_and_goes_on_after_repair(tmp_path):
    rng = np.random.default_rng(0)
    archive(tmp_path / "a.tgz", {"S1/a.bin": rng.bytes(50_000), "S1/b.bin": rng.bytes(50_000)})
    whole = (tmp_path / "a.tgz").read_bytes()
    cut(tmp_path / "a.tgz")
    with pytest.raises(UserError, match=r"a\.tgz cannot be unpacked"):
        h36m.unpack(tmp_path)
    (tmp_path / "a.tgz").write_bytes(whole)
    h36m.unpack(tmp_path)
    assert [(tmp_path / f"S1/{name}.bin").stat().st_size for name in "ab"] == [50_000, 50_000]


def test_a_folder_without_archives_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.tgz file"):
        h36m.unpack(tmp_path)
