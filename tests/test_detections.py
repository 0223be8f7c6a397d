"""Samples of 2D joints: geometry against an independent projection, a detector's mistakes against their description."""

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import config
from models.skeleton import Skeleton
from models.smpl import load_bodies
from synthetic import detections
from synthetic.detections import Detections, Detector, Draw, Views, hidden_joints, pose_people, view_people
from synthetic.motions import source_poses
from utils.joints import DETECTED23, JOINTS49, SMPL24, flip_permutation, rows

SEEN = rows(DETECTED23, JOINTS49)


@pytest.fixture(scope="module")
def body():
    demo = config.PROJECT / "data" / "demo"
    return load_bodies(demo / "smpl", demo / "spin_data" / "J_regressor_extra.npy", ["neutral"])["neutral"]


@pytest.fixture(scope="module")
def skeleton(body):
    return Skeleton(body.joints_only())


@pytest.fixture(scope="module")
def poses() -> np.ndarray:
    return source_poses(np.random.default_rng(0), clips=2)


@pytest.fixture(scope="module")
def views(skeleton, poses) -> Views:
    draw = Draw(3)
    return view_people(draw, skeleton, pose_people(draw, torch.as_tensor(poses, dtype=torch.float32), 400))


def test_the_same_index_is_the_same_batch(skeleton, poses):
    first, second = (Detections(skeleton, poses, 5, 8) for _ in range(2))
    for name, value in first[3].items():
        torch.testing.assert_close(value, second[3][name], rtol=0, atol=0)
    assert not torch.equal(first[3]["joints"], first[4]["joints"])
    assert not torch.equal(first[3]["joints"], Detections(skeleton, poses, 6, 8)[3]["joints"])


def test_labels_pose_the_body_to_its_joints_but_for_the_stretch(skeleton, poses, body, monkeypatch):
    monkeypatch.setattr(detections, "STRETCH", 0.0)
    batch = Detections(skeleton, poses, 5, 8)[0]
    joints = body.from_rotmat(batch["rotmat"], batch["betas"]).joints
    torch.testing.assert_close(batch["joints"], joints, atol=2e-5, rtol=0)


def test_bones_are_stretched_alike_on_both_sides(skeleton, poses):
    stretch = detections._stretch(Draw(1), 2000)
    torch.testing.assert_close(stretch, stretch[:, flip_permutation(SMPL24)])
    assert stretch.std(0) == pytest.approx(np.full(24, detections.STRETCH), rel=0.5)


def test_exact_points_are_where_opencv_projects_the_body(skeleton, poses):
    """Some pinhole camera must see the 49 joints exactly there: found by OpenCV from the joints and points alone."""
    batch = Detections(skeleton, poses, 7, 12)[0]
    for joints, points in zip(batch["joints"].double().numpy(), batch["exact_2d"].double().numpy(), strict=True):
        # the box is anywhere in the picture, so that focal length and principal point are unknown: a linear camera
        rows_of_points = []
        for (x, y, z), (u, v) in zip(joints, points, strict=True):
            rows_of_points += [
                [x, y, z, 1, 0, 0, 0, 0, -u * x, -u * y, -u * z, -u],
                [0, 0, 0, 0, x, y, z, 1, -v * x, -v * y, -v * z, -v],
            ]
        camera = np.linalg.svd(np.array(rows_of_points))[2][-1].reshape(3, 4)
        inside, turn, *_ = cv2.decomposeProjectionMatrix(camera)
        inside /= inside[2, 2]
        seen = np.column_stack([joints, np.ones(49)]) @ camera.T
        np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], points, atol=2e-4)
        assert abs(inside[0, 0]) == pytest.approx(abs(inside[1, 1]), rel=0.02)  # square pixels
        assert abs(inside[0, 1]) < 0.02 * abs(inside[0, 0])
        # the camera looks past the person by some degrees, and is turned by nothing else
        angle = Rotation.from_matrix(turn * np.sign(np.diag(inside))).magnitude()
        assert min(angle, np.pi - angle) < np.radians(30)


def test_cameras_are_near_and_far_high_and_low_and_people_face_anywhere(views):
    distance = views.in_camera[:, 8, 2]
    assert distance.min() > 1.5 and distance.max() < 16 and (distance < 3).any() and (distance > 10).any()
    up = views.rotmat[:, 0] @ torch.tensor([0.0, 1, 0])
    assert (up[:, 1] < -0.8).float().mean() > 0.6  # most stand, and y is down in the camera's axes
    assert (up[:, 2] < -0.6).any()  # seen from above
    facing = views.rotmat[:, 0] @ torch.tensor([0.0, 0, 1])
    assert all((facing[:, axis] * sign > 0.5).float().mean() > 0.1 for axis in (0, 2) for sign in (-1, 1))


def test_arms_and_legs_are_exchanged_between_poses_but_the_trunk_is_not(monkeypatch):
    monkeypatch.setattr(detections, "POSE_NOISE", 0.0)
    monkeypatch.setattr(detections, "LARGE_NOISE", 0.0)
    bank = torch.arange(50.0)[:, None, None].expand(50, 24, 3)
    mixed = pose_people(Draw(1), bank, 3000)[..., 0]
    spine = mixed[:, rows(["pelvis", "spine1", "spine2", "spine3", "head"], SMPL24)]
    assert (spine == spine[:, :1]).all()
    for limb in (*detections.ARMS, *detections.LEGS):
        assert (mixed[:, limb] == mixed[:, limb[:1]]).all()
        other = (mixed[:, limb[0]] != mixed[:, 0]).float().mean().item()
        assert other == pytest.approx(detections.MIX_SHARE * 49 / 50, abs=0.03)


def seen_from_the_side(left: float) -> torch.Tensor:
    """Joints (1,49,3) of a standing body 4 m away; `left` 1: the left side is nearer, -1: the right."""
    demo = config.PROJECT / "data" / "demo"
    standing = load_bodies(demo / "smpl", demo / "spin_data" / "J_regressor_extra.npy", ["neutral"])["neutral"]
    pose = torch.zeros(1, 24, 3)
    for side, sign in (("left", -1), ("right", 1)):
        pose[0, SMPL24.index(f"{side}_shoulder"), 2] = sign * 1.4  # hanging
    facing = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec([0, left * np.pi / 2 * -1, 0])
    pose[0, 0] = torch.as_tensor(facing.as_rotvec())
    joints = standing.from_axis_angle(pose.view(1, 72), torch.zeros(1, 10)).joints
    return joints - joints[:, 8:9] + torch.tensor([0, 0, 4.0])


@pytest.mark.parametrize("left", [1.0, -1.0])
def test_from_the_side_the_far_side_is_hidden(left):
    joints = seen_from_the_side(left)
    hidden = hidden_joints(joints)[0]
    near, far = "LR" if joints[0, 2, 2] > joints[0, 5, 2] else "RL"
    is_hidden = {name: bool(value) for name, value in zip(DETECTED23, hidden, strict=True)}
    assert all(is_hidden[f"OP {far}{part}"] for part in ("Shoulder", "Elbow", "Hip", "Knee"))
    assert not any(is_hidden[f"OP {near}{part}"] for part in ("Shoulder", "Elbow", "Wrist", "Knee", "Ankle"))


def faultless(monkeypatch) -> None:
    """A detector that makes no mistakes but those that a test turns on again."""
    for name in (
        "OFFSET_DEVIATION",
        "SEVERITY",
        "GROSS_SHARE",
        "CUT_SHARE",
        "LOST_SHARE",
        "MISPLACED_SHARE",
        "NOBODY_SHARE",
    ):
        monkeypatch.setattr(detections, name, 0.0)
    monkeypatch.setattr(detections, "EXCHANGED", ())
    monkeypatch.setattr(detections, "SKELETONS", ())
    still = {
        name: part._replace(offset=(0.0, 0.0, 0.0), noise=0.0, missed=0.0, hidden_missed=0.0)
        for name, part in detections.PARTS.items()
    }
    monkeypatch.setattr(detections, "PARTS", still)


def change(monkeypatch, ending: str, **values) -> None:
    parts = {**detections.PARTS, ending: detections.PARTS[ending]._replace(**values)}
    monkeypatch.setattr(detections, "PARTS", parts)


def in_metres(found: torch.Tensor, views: Views) -> torch.Tensor:
    """How far (B,23,2) m from the body's joints what was found is, at the joints' distance."""
    joints = views.in_camera[:, SEEN]
    return (found[..., :2] - joints[..., :2] / joints[..., 2:]) * joints[..., 2:]


def test_without_mistakes_the_joints_are_found_where_they_are(views, monkeypatch):
    faultless(monkeypatch)
    found = Detector()(Draw(1), views)
    assert (found[..., 2] == 1).all()
    assert in_metres(found, views).abs().max() < 1e-5


def test_noise_is_as_large_as_described_and_grows_where_a_joint_is_hidden(views, monkeypatch):
    faultless(monkeypatch)
    change(monkeypatch, "Knee", noise=0.02)
    away = in_metres(torch.cat([Detector()(Draw(seed), views) for seed in range(10)]), repeated(views, 10))
    knees = rows(["OP RKnee", "OP LKnee"], DETECTED23)
    hidden = hidden_joints(views.in_camera)[:, knees].repeat(10, 1)
    assert away[:, knees][~hidden].std() == pytest.approx(0.02, rel=0.05)
    assert away[:, knees][hidden].std() == pytest.approx(0.02 * detections.HIDDEN_NOISE, rel=0.1)
    others = [row for row in range(23) if row not in knees]
    assert away[:, others].abs().max() < 1e-5


def repeated(views: Views, times: int) -> Views:
    return Views(*(field.repeat(times, *[1] * (field.ndim - 1)) for field in views))


def test_an_offset_turns_with_its_bone_and_is_mirrored(skeleton, monkeypatch):
    faultless(monkeypatch)
    change(monkeypatch, "Ear", offset=(0.05, 0.0, 0.0))
    monkeypatch.setattr(Draw, "uniform", lambda self, *shape, low=0.0, high=1.0: torch.ones(shape))
    pose = torch.zeros(1, 24, 3)
    joints, bones = skeleton(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10))
    views = Views(pose, torch.zeros(1, 10), joints, joints + torch.tensor([0, 0, 5.0]), bones)
    away = in_metres(Detector()(Draw(0), views), views)[0]
    # the body faces along +z with its left at +x
    left, right = rows(["OP LEar", "OP REar"], DETECTED23)
    np.testing.assert_allclose(away[[left, right]], [[0.05, 0], [-0.05, 0]], atol=1e-5)
    nod = torch.eye(3).repeat(1, 24, 1, 1)
    nod[0, SMPL24.index("head")] = torch.as_tensor(Rotation.from_rotvec([0, 0, np.pi / 2]).as_matrix())
    joints, bones = skeleton(nod, torch.zeros(1, 10))
    views = Views(pose, torch.zeros(1, 10), joints, joints + torch.tensor([0, 0, 5.0]), bones)
    away = in_metres(Detector()(Draw(0), views), views)[0]
    np.testing.assert_allclose(away[[left, right]], [[0, 0.05], [0, -0.05]], atol=1e-5)


def test_joints_are_missed_as_often_as_described(views, monkeypatch):
    faultless(monkeypatch)
    change(monkeypatch, "Wrist", missed=0.2, hidden_missed=0.7)
    found = torch.cat([Detector()(Draw(seed), views)[..., 2] for seed in range(10)])
    wrists = rows(["OP RWrist", "OP LWrist"], DETECTED23)
    hidden = hidden_joints(views.in_camera)[:, wrists].repeat(10, 1)
    assert (found[:, wrists][~hidden] == 0).float().mean() == pytest.approx(0.2, abs=0.03)
    assert (found[:, wrists][hidden] == 0).float().mean() == pytest.approx(0.7, abs=0.05)


def test_left_and_right_are_exchanged_as_often_as_described(views, monkeypatch):
    faultless(monkeypatch)
    legs = ("Hip", "Knee", "Ankle", "Heel", "Toe")
    monkeypatch.setattr(detections, "EXCHANGED", ((0.3, legs),))
    found = torch.cat([Detector()(Draw(seed), views) for seed in range(10)])
    right, left = rows(["OP RAnkle", "OP LAnkle"], DETECTED23)
    exact = views.in_camera[:, SEEN].repeat(10, 1, 1)
    exact = exact[..., :2] / exact[..., 2:]
    exchanged = (found[:, right, :2] - exact[:, left]).norm(dim=-1) < 1e-6
    assert exchanged.float().mean() == pytest.approx(0.3, abs=0.03)
    arms = [row for row, name in enumerate(DETECTED23) if not name.endswith(legs)]
    torch.testing.assert_close(found[:, arms, :2], exact[:, arms])
    # an exchange is one of all the legs' joints at once
    heel = rows(["OP RHeel"], DETECTED23)[0]
    left_heel = rows(["OP LHeel"], DETECTED23)[0]
    assert torch.equal(exchanged, (found[:, heel, :2] - exact[:, left_heel]).norm(dim=-1) < 1e-6)


def test_a_guessed_limb_is_off_as_a_whole(views, monkeypatch):
    faultless(monkeypatch)
    monkeypatch.setattr(detections, "MISPLACED_SHARE", 0.3)
    away = in_metres(torch.cat([Detector()(Draw(seed), views) for seed in range(10)]), repeated(views, 10))
    hip, knee, ankle, heel = rows([f"OP L{part}" for part in ("Hip", "Knee", "Ankle", "Heel")], DETECTED23)
    off = away[:, ankle].norm(dim=-1) > 1e-4
    assert off.float().mean() == pytest.approx(0.3, abs=0.03) and away[:, hip].abs().max() < 1e-5
    assert away[off, ankle].std() == pytest.approx(detections.MISPLACED_NOISE, rel=0.1)
    # each at its own depth, so that only the directions are the same
    for joint in (knee, heel):
        turned = torch.nn.functional.cosine_similarity(away[off, ankle], away[off, joint])
        assert turned.min() > 0.99


def test_some_detectors_have_no_feet_and_some_pictures_end_at_the_knees(views, monkeypatch):
    faultless(monkeypatch)
    monkeypatch.setattr(detections, "SKELETONS", ((0.4, ("SmallToe",)), (0.6, ("SmallToe", "BigToe", "Heel"))))
    found = Detector()(Draw(1), views)[..., 2] == 1
    assert not found[:, rows(["OP LSmallToe", "OP RSmallToe"], DETECTED23)].any()
    heels = found[:, rows(["OP LHeel", "OP RHeel"], DETECTED23)]
    assert (heels[:, 0] == heels[:, 1]).all() and heels.float().mean() == pytest.approx(0.4, abs=0.08)
    monkeypatch.setattr(detections, "SKELETONS", ())
    monkeypatch.setattr(detections, "CUT_SHARE", 1.0)
    cut = Detector()(Draw(1), views)[..., 2] == 0
    assert cut.any(1).float().mean() > 0.9 and (cut.sum(1) < 20).all()


def test_at_least_so_many_joints_are_found_that_there_is_somebody(skeleton, poses):
    batch = Detections(skeleton, poses, 5, 500)[0]
    assert (batch["keypoints_2d"][..., 2].sum(1) >= detections.LEAST_FOUND).all()
    # what repeats a joint is empty, so that no row is cleaner than a detector's
    assert not batch["keypoints_2d"][:, [row for row in range(49) if row not in SEEN]].any()
    missing = batch["keypoints_2d"][..., 2] == 0
    assert not batch["keypoints_2d"][missing].any()


def test_boxes_are_around_what_was_found(skeleton, poses):
    keypoints = Detections(skeleton, poses, 5, 300)[0]["keypoints_2d"]
    seen = keypoints[..., 2] > 0
    places = torch.where(seen[..., None], keypoints[..., :2], 0)
    reach = places.abs().amax((1, 2))
    assert reach.quantile(0.95) < 1.15 and reach.median() > 0.6


def test_in_a_picture_joints_outside_are_not_found_and_now_and_then_nobody():
    rng = np.random.default_rng(0)
    keypoints = torch.as_tensor(rng.uniform(-0.8, 0.8, (600, 49, 3)), dtype=torch.float32)
    keypoints[..., 2] = 1
    ankle = rows(["OP LAnkle"], JOINTS49)[0]
    keypoints[:, ankle, 2] = 0
    found = Detector().in_picture(Draw(2), keypoints)
    nobody = ~(found[..., 2] > 0).any(1)
    assert nobody.float().mean() == pytest.approx(detections.NOBODY_SHARE, abs=0.05)
    assert found.shape == (600, 49, 3) and not found[:, ankle].any()
    nose = rows(["OP Nose"], JOINTS49)[0]
    seen = found[:, nose, 2] > 0
    away = (found[seen, nose, :2] - keypoints[seen, nose, :2]).norm(dim=-1)
    assert 0 < away.median() < 0.1
