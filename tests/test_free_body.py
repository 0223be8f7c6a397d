"""The free body in data/demo behaves like SMPL."""

import free
import numpy as np
import pytest
import torch
from places import DEMO
from scipy.spatial import ConvexHull, Delaunay
from scipy.spatial.transform import Rotation

from models.prior import PosePrior
from synthetic.body import GENDERS, Body
from tools.build_body.body_model import volume
from utils.joints import BODY25, H36M17, JOINTS49, SMPL24, SPIN24, flip_permutation


@pytest.fixture(scope="module")
def bodies():
    return free.bodies()


def posed(body, **rotations):
    """Vertices (V,3) and joints (49,3) of the mean shape; rotations {joint name: axis-angle}."""
    pose = torch.zeros(1, 24, 3)
    for name, rotvec in rotations.items():
        pose[0, SMPL24.index(name)] = torch.tensor(rotvec)
    output = body.from_axis_angle(pose.reshape(1, 72), torch.zeros(1, 10))
    return output.vertices[0].numpy(), output.joints[0].numpy()


def at(joints, name):
    return joints[JOINTS49.index(name)]


@pytest.mark.parametrize("gender", GENDERS)
def test_the_body_stands_upright_in_a_t_pose_and_faces_plus_z(bodies, gender):
    vertices, joints = posed(bodies[gender])
    height, width = np.ptp(vertices[:, 1]), np.ptp(vertices[:, 0])
    assert 1.5 < height < 1.9 and 1.5 < width < 1.9
    assert at(joints, "Top of Head (LSP)")[1] > at(joints, "OP MidHip")[1] > at(joints, "Left Ankle")[1]
    assert at(joints, "Nose")[2] > at(joints, "Left Ear")[2]
    assert at(joints, "OP LBigToe")[2] > at(joints, "OP LHeel")[2]


@pytest.mark.parametrize("gender", GENDERS)
def test_the_ears_are_where_they_meet_the_face_as_detectors_see_them(bodies, gender):
    _, joints = posed(bodies[gender])
    # bitragion breadth of nearly all adults; from rim to rim of the ears it is 17 cm and more
    assert 0.125 < at(joints, "Left Ear")[0] - at(joints, "Right Ear")[0] < 0.16


@pytest.mark.parametrize("gender", GENDERS)
def test_left_is_plus_x_and_the_right_is_its_mirror_image(bodies, gender):
    _, joints = posed(bodies[gender])
    left = [row for row, name in enumerate(JOINTS49) if name.startswith(("Left ", "OP L"))]
    assert (joints[left, 0] > 0.01).all()
    across = np.concatenate([flip_permutation(BODY25), len(BODY25) + np.array(flip_permutation(SPIN24))])
    np.testing.assert_allclose(joints[across] * [-1, 1, 1], joints, atol=2e-4)


def test_raising_the_left_shoulder_lifts_the_arm_at_plus_x_and_nothing_else(bodies):
    _, rest = posed(bodies["neutral"])
    _, raised = posed(bodies["neutral"], left_shoulder=[0.0, 0.0, 1.2])
    assert SMPL24.index("left_shoulder") == 16
    assert at(raised, "Left Wrist")[1] > at(rest, "Left Wrist")[1] + 0.4
    np.testing.assert_allclose(at(raised, "Right Wrist"), at(rest, "Right Wrist"), atol=1e-6)


def test_knee_elbow_and_hip_turn_about_the_axes_of_smpl(bodies):
    _, rest = posed(bodies["neutral"])
    _, bent = posed(bodies["neutral"], left_knee=[1.0, 0.0, 0.0], left_elbow=[0.0, -1.0, 0.0])
    assert at(bent, "Left Ankle")[2] < at(rest, "Left Ankle")[2] - 0.2
    assert at(bent, "Left Wrist")[2] > at(rest, "Left Wrist")[2] + 0.1
    _, lifted = posed(bodies["neutral"], right_hip=[-1.2, 0.0, 0.0])
    assert at(lifted, "Right Knee")[1] > at(rest, "Right Knee")[1] + 0.15
    assert at(lifted, "Right Knee")[2] > at(rest, "Right Knee")[2] + 0.2


@pytest.mark.parametrize("gender", GENDERS)
def test_the_surface_is_closed_and_its_volume_that_of_a_person(bodies, gender):
    vertices, _ = posed(bodies[gender])
    faces = bodies[gender].faces.astype(int)
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)
    assert {tuple(edge) for edge in directed.tolist()} == {tuple(edge) for edge in directed[:, ::-1].tolist()}
    assert len(vertices) - len(directed) // 2 + len(faces) == 2  # Euler: a sphere
    assert 0.045 < volume(vertices, faces) < 0.085


@pytest.mark.parametrize("gender", GENDERS)
def test_regressed_joints_lie_inside_the_body(bodies, gender):
    vertices, joints = posed(bodies[gender])
    h36m = np.load(DEMO / "spin_data/J_regressor_h36m.npy") @ vertices
    inner = [row for row, name in enumerate(H36M17) if name != "Head (H36M)"]
    for joint in h36m[inner]:
        # the body's cross section around the joint; an arm or a leg is convex there, the trunk nearly
        near = vertices[np.linalg.norm(vertices - joint, axis=1) < 0.17]
        assert Delaunay(near[ConvexHull(near).vertices]).find_simplex(joint) >= 0
    for name in ("Left Hip", "Left Knee", "Right Ankle", "Right Wrist"):
        assert np.linalg.norm(h36m[H36M17.index(name)] - at(joints, name)) < 0.02


def test_rows_of_the_regressors_are_averages_of_vertices():
    for name, count in (("extra", 9), ("h36m", 17)):
        regressor = np.load(DEMO / f"spin_data/J_regressor_{name}.npy")
        assert regressor.shape == (count, 6890) and (regressor >= 0).all()
        np.testing.assert_allclose(regressor.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("gender", GENDERS)
def test_the_first_shape_direction_makes_taller(bodies, gender):
    def height(first):
        betas = torch.zeros(1, 10)
        betas[0, 0] = first
        return np.ptp(bodies[gender].unposed(betas)[0, :, 1].numpy())

    assert height(-1) + 0.03 < height(0) < height(1) - 0.03


@pytest.mark.parametrize("gender", GENDERS)
def test_numpy_skinning_agrees_with_smplx(bodies, gender):
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.5, (24, 3)), rng.normal(0, 1, 10)
    body = Body(DEMO, gender)
    vertices, joints = body(Rotation.from_rotvec(pose).as_matrix(), body.shaped(betas))
    expected = bodies[gender].from_axis_angle(
        torch.tensor(pose.reshape(1, 72), dtype=torch.float32), torch.tensor(betas[None], dtype=torch.float32)
    )
    np.testing.assert_allclose(vertices, expected.vertices[0], atol=2e-6)
    np.testing.assert_allclose(body.joints49(vertices, joints), expected.joints[0], atol=2e-6)


def test_the_mean_parameters_are_an_upright_person_before_the_camera():
    parameters = np.load(DEMO / "spin_data/smpl_mean_params.npz")
    assert {name: parameters[name].shape for name in parameters} == {"pose": (144,), "shape": (10,), "cam": (3,)}
    first_columns = parameters["pose"].reshape(24, 3, 2)
    np.testing.assert_allclose(np.linalg.norm(first_columns, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(first_columns[0], np.diag([1, -1, -1])[:, :2], atol=1e-6)


def test_the_pose_prior_prefers_a_standing_person_to_a_knee_bent_backwards():
    prior = PosePrior(DEMO / "spin_data/gmm_08.pkl")
    standing, broken = torch.zeros(2, 24, 3)
    for pose in (standing, broken):
        pose[SMPL24.index("left_shoulder"), 2] = -1.2
        pose[SMPL24.index("right_shoulder"), 2] = 1.2
    broken[SMPL24.index("left_knee"), 0] = -1.5
    energy = prior(torch.stack([standing, broken])[:, 1:].reshape(2, 69))
    assert energy[0] + 10 < energy[1]
