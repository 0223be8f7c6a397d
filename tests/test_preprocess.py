"""Converters: what they write, and each slip of the published code put right, or repeated with paper_compat."""

import pickle

import cv2
import numpy as np
import pytest
import smplx
import torch
import toys
from scipy.spatial.transform import Rotation

from models.smpl import load_bodies, read_model
from utils.data_preprocess import h36m, pw3d, smpl_model
from utils.data_preprocess.conversion import Settings
from utils.errors import UserError
from utils.joints import H36M32, SPIN24

SEQUENCE = "downtown_bar_00"


@pytest.fixture
def raw_3dpw(tmp_path):
    toys.write_3dpw(tmp_path, {SEQUENCE: "mf"}, frames=6)
    return tmp_path


def convert_3dpw(root, bodies, paper_compat=False) -> dict[str, np.ndarray]:
    pw3d.convert(root, root / "out", bodies, paper_compat)
    with np.load(root / "out" / f"{SEQUENCE}.npz") as file:
        return {key: file[key] for key in file.files}


def raw_joints(root, body, person: int) -> np.ndarray:
    """Joints of the valid frames of the raw file, without translation."""
    raw = pickle.loads((root / "sequenceFiles/test" / f"{SEQUENCE}.pkl").read_bytes())
    pose = torch.as_tensor(np.delete(raw["poses"][person], 1, axis=0), dtype=torch.float32)
    betas = torch.as_tensor(raw["betas"][person][:10], dtype=torch.float32).expand(len(pose), -1)
    return body.from_axis_angle(pose, betas).joints.detach().numpy()


def test_frames_without_a_camera_are_left_out_person_after_person(raw_3dpw, bodies):
    out = convert_3dpw(raw_3dpw, bodies)
    assert out["person"].tolist() == [0] * 6 + [1] * 6
    assert out["imgname"][0] == f"imageFiles/{SEQUENCE}/image_00000.jpg"
    assert out["imgname"][1] == f"imageFiles/{SEQUENCE}/image_00002.jpg"


def test_a_womans_joints_come_from_the_female_body(raw_3dpw, bodies):
    woman = convert_3dpw(raw_3dpw, bodies)["smpl_j3d"][6:]
    np.testing.assert_allclose(woman, raw_joints(raw_3dpw, bodies["female"], 1), atol=1e-6)
    as_published = convert_3dpw(raw_3dpw, bodies, paper_compat=True)["smpl_j3d"][6:]
    man_there = raw_joints(raw_3dpw, bodies["male"], 1) + np.float32([0.3, 0.1, 0.2])
    np.testing.assert_allclose(as_published, man_there, atol=1e-6)


def test_the_2d_joints_and_the_box_are_those_of_the_persons_own_body(raw_3dpw, bodies):
    out = convert_3dpw(raw_3dpw, bodies)
    joints = raw_joints(raw_3dpw, bodies["female"], 1) + [0.3, 0.1, 0.2]
    in_camera = joints * [1, -1, -1] + [0, 0, 4]
    pixels = in_camera[..., :2] / in_camera[..., 2:] * 300 + [160, 120]
    np.testing.assert_allclose(out["smpl_j2d"][6:, :, :2], pixels, atol=1e-3)
    assert (out["smpl_j2d"][..., 2] == 1).all()
    side = np.ptp(pixels, axis=1).max(1)
    np.testing.assert_allclose(out["scale"][6:], 1.2 * side / 200, atol=1e-5)


def test_the_translation_is_not_added_to_the_3d_joints(raw_3dpw, bodies):
    man = convert_3dpw(raw_3dpw, bodies)["smpl_j3d"][:6]
    np.testing.assert_allclose(man, raw_joints(raw_3dpw, bodies["male"], 0), atol=1e-6)


def test_the_global_orientation_is_the_cameras(raw_3dpw, bodies):
    raw = pickle.loads((raw_3dpw / "sequenceFiles/test" / f"{SEQUENCE}.pkl").read_bytes())
    expected = np.diag([1.0, -1, -1]) @ Rotation.from_rotvec(raw["poses"][0][0, :3]).as_matrix()
    ours = Rotation.from_rotvec(convert_3dpw(raw_3dpw, bodies)["pose"][0, :3]).as_matrix()
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_a_stream_of_two_people_is_cut_between_them(frames):
    people = dict.fromkeys(zip(frames.columns["sequence"], frames.columns["person"].tolist(), strict=True))
    assert list(people) == [("flat_packBags_00", 0), ("flat_packBags_00", 1), ("downtown_cafe_00", 0)]


@pytest.fixture
def raw_h36m(tmp_path):
    toys.write_h36m(tmp_path / "H36M", tmp_path / "mosh", {"S1": ["Walking 1.54138969"], "S5": ["Eating.60457274"]})
    return tmp_path


def convert_h36m(root, paper_compat=False) -> dict[str, np.ndarray]:
    h36m.convert(root / "H36M", root / "mosh", root / "h36m_train.npz", paper_compat)
    with np.load(root / "h36m_train.npz") as file:
        return {key: file[key] for key in file.files}


def test_every_fifth_frame_of_human36m_is_taken(raw_h36m):
    out = convert_h36m(raw_h36m)
    assert out["imgname"].tolist() == [
        *(f"images/S1_Walking_1.54138969_{frame:06d}.jpg" for frame in (1, 6, 11)),
        *(f"images/S5_Eating.60457274_{frame:06d}.jpg" for frame in (1, 6, 11)),
    ]
    brightness = [cv2.imread(str(raw_h36m / "H36M" / name)).mean() for name in out["imgname"][:3]]
    np.testing.assert_allclose(brightness, [0, 100, 200], atol=5)
    np.testing.assert_allclose(out["center"][0], [140, 120])
    np.testing.assert_allclose(out["scale"][0], 0.9 * 200 / 200)


def test_jaw_and_head_of_human36m_land_where_spin_has_them(raw_h36m):
    names, root = list(SPIN24), H36M32.index("Pelvis (MPII)")
    out = convert_h36m(raw_h36m)
    for name in ("Jaw (H36M)", "Head (H36M)", "Left Knee", "Right Wrist"):
        k = H36M32.index(name) - root
        np.testing.assert_allclose(out["S"][0, names.index(name)], [k / 1000, 2 * k / 1000, 3 * k / 1000, 1], atol=1e-6)
    assert out["S"][0, names.index("Top of Head (LSP)"), 3] == 0
    as_published = convert_h36m(raw_h36m, paper_compat=True)
    np.testing.assert_allclose(as_published["S"][:, names.index("Head (H36M)")], out["S"][:, names.index("Jaw (H36M)")])
    slipped = as_published["S"][:, names.index("Top of Head (LSP)")]
    np.testing.assert_allclose(slipped, out["S"][:, names.index("Head (H36M)")])


def test_a_sequence_without_its_mesh_annotation_is_named_and_left_out_or_stops(raw_h36m, caplog):
    (raw_h36m / "mosh/S5/Eating_cam3_aligned.pkl").unlink()
    places = (raw_h36m / "H36M", raw_h36m / "mosh", raw_h36m / "strict.npz")
    with pytest.raises(UserError, match="1 of 2 sequences could not be converted"):
        h36m.convert(*places, settings=Settings(strict=True))
    assert "Eating_cam3_aligned.pkl is missing; set H36M_MOSH_ROOT" in caplog.text
    assert not (raw_h36m / "strict.npz").exists()
    out = convert_h36m(raw_h36m)
    assert out["missing"].tolist() == ["S5_Eating.60457274"]
    assert len(out["pose"]) == len(out["imgname"]) == 3


def test_a_missing_mesh_annotation_is_replaced_by_the_previous_one_with_paper_compat(raw_h36m, caplog):
    (raw_h36m / "mosh/S5/Eating_cam3_aligned.pkl").unlink()
    assert len(convert_h36m(raw_h36m, paper_compat=True)["pose"]) == 6
    assert "Eating_cam3_aligned.pkl" in caplog.text


def test_released_smpl_becomes_a_file_that_smplx_loads_without_chumpy(released_smpl):
    assert b"chumpy" in next(released_smpl.rglob("basicmodel_m_*")).read_bytes()
    smpl_model.convert(released_smpl)
    expected = toys.smpl_model()
    for gender in ("NEUTRAL", "MALE", "FEMALE"):
        path = released_smpl / f"SMPL_{gender}.pkl"
        assert b"chumpy" not in path.read_bytes()
        model = read_model(path)
        for name in ("v_template", "shapedirs", "posedirs"):
            np.testing.assert_array_equal(model[name], expected[name])
        assert smplx.utils.Struct(**model).J_regressor.shape == (24, toys.VERTICES)


def test_released_smpl_can_be_used_as_it_is(released_smpl):
    model = read_model(next(released_smpl.rglob("basicmodel_f_*")))
    np.testing.assert_array_equal(model["v_template"], toys.smpl_model()["v_template"])


def test_a_released_body_without_its_arrays_is_named(tmp_path):
    model = {**toys.smpl_model(), "weights": "abc", "J": 3.0, "f": [[1, 2]]}
    (tmp_path / "basicmodel_neutral_lbs.pkl").write_bytes(pickle.dumps(model, 2))
    with pytest.raises(UserError, match=r"basicmodel_neutral_lbs\.pkl: J, weights, f is no array; download SMPL"):
        smpl_model.convert(tmp_path)
    assert not (tmp_path / "SMPL_NEUTRAL.pkl").exists()


def test_missing_body_models_are_named(tmp_path):
    with pytest.raises(UserError, match=r"basicmodel_neutral_\*\.pkl.*download SMPL"):
        smpl_model.convert(tmp_path)
    with pytest.raises(UserError, match=r"SMPL_NEUTRAL\.pkl is missing; run `python process_data\.py --dataset smpl`"):
        load_bodies(tmp_path, tmp_path / "J_regressor_extra.npy")
