"""Motion capture: BVH files of several skeletons, read back against our own export."""

import re

import conftest
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import config
import process_data
from footage.export import Clip, save_bvh
from synthetic.motions import motion
from utils.data_preprocess import mocap
from utils.errors import UserError
from utils.joints import SMPL24

BODY = conftest.PROJECT / "data" / "demo" / "smpl" / "SMPL_NEUTRAL.npz"
TURN = np.diag([1.0, -1.0, -1.0])
# our names -> those of the conversions of CMU's data base, and of those for iClone
CMU = {
    "pelvis": "Hips",
    "spine1": "LowerBack",
    "spine2": "Spine",
    "spine3": "Spine1",
    "neck": "Neck1",
    "head": "Head",
    **{
        f"{side}_{part}": f"{side.title()}{name}"
        for side in ("left", "right")
        for part, name in {
            "collar": "Shoulder",
            "shoulder": "Arm",
            "elbow": "ForeArm",
            "wrist": "Hand",
            "hand": "FingerBase",
            "hip": "UpLeg",
            "knee": "Leg",
            "ankle": "Foot",
            "foot": "ToeBase",
        }.items()
    },
}
ICLONE = {
    "pelvis": "CC_Base_Hip",
    "spine1": "CC_Base_Spine01",
    "spine2": "CC_Base_Spine02",
    "spine3": "CC_Base_Waist",
    "neck": "CC_Base_NeckTwist01",
    "head": "CC_Base_Head",
    **{
        f"{side}_{part}": f"CC_Base_{side[0].upper()}_{name}"
        for side in ("left", "right")
        for part, name in {
            "collar": "Clavicle",
            "shoulder": "Upperarm",
            "elbow": "Forearm",
            "wrist": "Hand",
            "hand": "Mid1",
            "hip": "Thigh",
            "knee": "Calf",
            "ankle": "Foot",
            "foot": "ToeBase",
        }.items()
    },
}


def as_clip(poses: np.ndarray, rate: float = 30.0, joints: np.ndarray | None = None) -> Clip:
    """Poses (T,24,3) in the body's axes as our export has them, of the free body unless other joints are given."""
    with np.load(BODY) as model:
        joints = model["J_regressor"] @ model["v_template"] if joints is None else joints
        parents = np.concatenate([[-1], model["kintree_table"][0, 1:].astype(int)])
    rotmat = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    rotmat[:, 0] = TURN @ rotmat[:, 0]
    count = len(poses)
    empty = (np.zeros((1, 3)), np.zeros((0, 3), int), np.zeros((1, 24)))
    return Clip(*empty, joints, parents, rotmat, np.zeros((count, 3)), np.arange(count) / rate)


def rename(text: str, names: dict[str, str]) -> str:
    return re.sub(r"(ROOT|JOINT) (\w+)", lambda found: f"{found[1]} {names[found[2]]}", text)


def difference(poses: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance (T,24) mm of the joints, about the pelvis."""
    places = [as_clip(each).skeleton() for each in (poses, others)]
    return 1000 * np.linalg.norm(np.subtract(*(place - place[:, :1] for place in places)), axis=-1)


def convert(folder, texts: dict[str, str], failing: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    for name, text in texts.items():
        (folder / name).write_text(text)
    assert tuple(mocap.convert(folder, folder / "mocap.npz", BODY)) == failing
    with np.load(folder / "mocap.npz") as npz:
        return dict(npz)


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.mark.parametrize("kind", ["walk", "jumping_jack", "kick", "serve"])
@pytest.mark.parametrize("names", [None, CMU, ICLONE], ids=["own", "cmu", "iclone"])
def test_a_motion_comes_back_from_our_export(raw, kind, names):
    poses = motion(kind, np.random.default_rng(0), 20)
    save_bvh(raw / "clip.bvh", as_clip(poses))
    text = (raw / "clip.bvh").read_text()
    found = convert(raw, {"clip.bvh": rename(text, names) if names else text})
    assert found["poses"].dtype == np.float16 and found["poses"].shape == (20, 24, 3)
    assert set(found["clip"]) == {"clip"}
    away = difference(poses, found["poses"].astype(float))
    limbs = [row for row, name in enumerate(SMPL24) if name.endswith(("hip", "knee", "ankle", "elbow", "wrist"))]
    # what the spine does is spread evenly over its joints, which are not known apart; half precision is 2 mm
    assert away[:, limbs].mean() < 12 and away.max() < 45
    # the way back and forth again changes nothing more
    again = raw / "again"
    again.mkdir()
    save_bvh(again / "clip.bvh", as_clip(found["poses"].astype(float)))
    second = convert(again, {})["poses"].astype(float)
    assert difference(found["poses"].astype(float), second)[:, limbs].mean() < 5


def test_a_person_of_other_proportions_bends_the_same(raw):
    """Long arms and short legs: the bones point to where they pointed, though their ends are elsewhere."""
    poses = motion("squat", np.random.default_rng(1), 10)
    clip = as_clip(poses)
    offsets = clip.offsets * np.where([name.endswith(("elbow", "wrist")) for name in SMPL24], 1.3, 0.9)[:, None]
    joints = np.zeros((24, 3))
    for joint, parent in enumerate(clip.parents):
        joints[joint] = offsets[joint] + (joints[parent] if parent >= 0 else 0)
    save_bvh(raw / "tall.bvh", as_clip(poses, joints=joints))
    found = convert(raw, {})["poses"].astype(float)
    knee = SMPL24.index("left_knee")
    angles = [np.linalg.norm(each[:, knee], axis=-1) for each in (poses, found)]
    np.testing.assert_allclose(*angles, atol=0.02)


@pytest.mark.parametrize("turn", [[np.pi / 2, 0, 0], [0, 2.0, 0]], ids=["z up", "facing aside"])
def test_the_axes_of_a_file_do_not_matter(raw, turn):
    """The same motion in a file with z up, and of a skeleton that rests facing aside."""
    poses = motion("lunge", np.random.default_rng(2), 8)
    save_bvh(raw / "one.bvh", as_clip(poses))
    plain = convert(raw, {})["poses"].astype(float)
    axes = Rotation.from_rotvec(turn)
    clip = as_clip(poses)
    inside = (axes * Rotation.from_matrix((TURN @ clip.rotmat)[:, :1].reshape(-1, 3, 3)) * axes.inv()).as_matrix()
    rest = Rotation.from_matrix(clip.rotmat[:, 1:].reshape(-1, 3, 3))
    others = (axes * rest * axes.inv()).as_matrix().reshape(-1, 23, 3, 3)
    rotmat = np.concatenate([(TURN @ inside)[:, None], others], axis=1)
    save_bvh(raw / "one.bvh", clip._replace(joints=axes.apply(clip.joints), rotmat=rotmat))
    turned = convert(raw, {})["poses"].astype(float)
    assert np.abs(plain[:, 1:] - turned[:, 1:]).max() < 0.01


def test_about_thirty_poses_a_second_are_kept(raw):
    save_bvh(raw / "fast.bvh", as_clip(motion("run", np.random.default_rng(0), 40), rate=120))
    assert len(convert(raw, {})["poses"]) == 10


def test_a_damaged_file_is_named_and_the_others_are_converted(raw, caplog, monkeypatch):
    save_bvh(raw / "a_good.bvh", as_clip(motion("walk", np.random.default_rng(0), 5)))
    text = (raw / "a_good.bvh").read_text()
    damaged = {
        "b_cut.bvh": text[: len(text) // 2],
        "c_empty.bvh": "",
        "d_other.bvh": text.replace("left_elbow", "tentacle"),
        "e_words.bvh": text.replace("Frames: 5", "Frames: many"),
        "f_infinite.bvh": text[: text.rindex(" ")] + " nan\n",
    }
    found = convert(raw, damaged, tuple(name.removesuffix(".bvh") for name in damaged))
    assert "5 of 6 files are left out: b_cut, c_empty," in caplog.text
    assert all(f"/{name}" in caplog.text for name in damaged)
    assert "tentacle" not in caplog.text and "has no joint LeftForeArm" in caplog.text
    assert set(found["clip"]) == {"a_good"}
    monkeypatch.setattr(config, "MOCAP_ROOT", raw)
    monkeypatch.setattr(config, "MOCAP_POSES", raw / "again.npz")
    with pytest.raises(SystemExit) as ended:
        process_data.main(["--dataset", "mocap"])
    assert ended.value.code == 3 and (raw / "again.npz").exists()
    (raw / "a_good.bvh").unlink()
    with pytest.raises(UserError, match=r"none of the 5 files of .* could be converted"):
        mocap.convert(raw, raw / "other.npz", BODY)
    assert not (raw / "other.npz").exists()


def test_a_skeleton_that_lies_at_rest_is_refused(raw):
    save_bvh(raw / "lying.bvh", as_clip(motion("walk", np.random.default_rng(0), 3)))
    text = (raw / "lying.bvh").read_text()
    lying = re.sub(
        r"OFFSET (\S+) (\S+) (\S+)",
        lambda found: f"OFFSET {found[1]} {float(found[2]) * 0.7 - float(found[3]) * 0.7} {float(found[2]) * 0.7}",
        text,
    )
    with pytest.raises(UserError, match="none of the 1 files"):
        convert(raw, {"lying.bvh": lying})


def test_the_command_needs_a_folder_with_files(raw, monkeypatch):
    monkeypatch.setattr(config, "MOCAP_ROOT", raw / "nowhere")
    with pytest.raises(UserError, match="nowhere is missing; name a folder of BVH files by MOCAP_ROOT"):
        process_data.main(["--dataset", "mocap"])
    monkeypatch.setattr(config, "MOCAP_ROOT", raw)
    with pytest.raises(UserError, match=r"holds no \.bvh file"):
        process_data.main(["--dataset", "mocap"])
