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
from synthetic.detections import Detections, Detector, Draw, Mistakes, Views, limbs_of, pose_people, view_people
from synthetic.motions import source_poses
from utils.joints import DETECTED23, FACE5, JOINTS49, SMPL24, SPIN, SPIN24, flip_permutation, rows

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


@pytest.fixture(scope="module")
def detector(views) -> Detector:
    """It sees everything some centimetres beside where it is, arms at times hardly."""
    generator = torch.Generator().manual_seed(1)
    away = 0.02 * torch.randn(400, 23, 2, generator=generator)
    return Detector(mistakes_of(views, away, torch.rand(400, 23, generator=generator).clamp(min=0.01)))


def test_the_same_index_is_the_same_batch(skeleton, poses, detector):
    first, second = (Detections(skeleton, poses, detector, 5, 8) for _ in range(2))
    for name, value in first[3].items():
        torch.testing.assert_close(value, second[3][name], rtol=0, atol=0)
    assert not torch.equal(first[3]["joints"], first[4]["joints"])
    assert not torch.equal(first[3]["joints"], Detections(skeleton, poses, detector, 6, 8)[3]["joints"])


def test_labels_pose_the_body_to_its_joints_but_for_the_stretch(skeleton, poses, detector, body, monkeypatch):
    monkeypatch.setattr(detections, "STRETCH", 0.0)
    batch = Detections(skeleton, poses, detector, 5, 8)[0]
    joints = body.from_rotmat(batch["rotmat"], batch["betas"]).joints
    torch.testing.assert_close(batch["joints"], joints, atol=2e-5, rtol=0)


def test_bones_are_stretched_alike_on_both_sides(skeleton, poses):
    stretch = detections._stretch(Draw(1), 2000)
    torch.testing.assert_close(stretch, stretch[:, flip_permutation(SMPL24)])
    assert stretch.std(0) == pytest.approx(np.full(24, detections.STRETCH), rel=0.5)


def test_exact_points_are_where_opencv_projects_the_body(skeleton, poses, detector):
    """Some pinhole camera must see the 49 joints exactly there: found by OpenCV from the joints and points alone."""
    batch = Detections(skeleton, poses, detector, 7, 12)[0]
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


def mistakes_of(views: Views, away: torch.Tensor | float = 0.0, confidence: torch.Tensor | float = 1.0) -> Mistakes:
    """Those of a detector that was tried on these people."""
    count = len(views.joints)
    limbs = limbs_of(views.in_camera[:, SPIN])
    return Mistakes(limbs, torch.zeros(count, 23, 2) + away, torch.zeros(count, 23) + confidence)


@pytest.fixture
def faultless(monkeypatch) -> None:
    """Nothing is wrong but what was measured, and every detector has MediaPipe's joints."""
    for name in ("_SEVERITY", "_OFFSET", "_JITTER", "CUT_SHARE", "LOST_SHARE", "NOBODY_SHARE"):
        monkeypatch.setattr(detections, name, 0.0)
    monkeypatch.setattr(detections, "_MEDIAPIPE_SHARE", 1.0)
    monkeypatch.setattr(detections, "EXCHANGED", ())
    monkeypatch.setattr(detections, "HIDDEN_SHARE", 0.0)


def in_metres(found: torch.Tensor, views: Views) -> torch.Tensor:
    """How far (B,23,2) m from the body's joints what was found is, at the joints' distance."""
    joints = views.in_camera[:, SEEN]
    return (found[..., :2] - joints[..., :2] / joints[..., 2:]) * joints[..., 2:]


def test_without_mistakes_the_joints_are_found_where_they_are(views, faultless):
    found = Detector(mistakes_of(views))(Draw(1), views)
    assert (found[..., 2] == 1).all()
    assert in_metres(found, views).abs().max() < 1e-5


def test_people_are_seen_as_those_that_they_resemble_were(views, faultless):
    """Everybody was tried once, so that the most similar one is the person, or, in a mirror, the mirror image."""
    generator = torch.Generator().manual_seed(0)
    away, confidence = 0.1 * torch.randn(400, 23, 2, generator=generator), torch.rand(400, 23, generator=generator)
    detector = Detector(mistakes_of(views, away, confidence))
    found = detector(Draw(1), views)
    own = (found[..., 2] - confidence).abs().amax(1) < 1e-6
    # of those to compare with, drawn at random, some lack the person
    assert own.float().mean() > 0.8
    torch.testing.assert_close(in_metres(found, views)[own], away[own], atol=1e-5, rtol=0)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    reflected = views._replace(in_camera=views.in_camera[:, flip_permutation(JOINTS49)] * flip)
    sides = flip_permutation(DETECTED23)
    found = detector(Draw(1), reflected)
    own = (found[..., 2] - confidence[:, sides]).abs().amax(1) < 1e-6
    assert own.float().mean() > 0.8
    torch.testing.assert_close(in_metres(found, reflected)[own], (away[:, sides] * flip[:2])[own], atol=1e-5, rtol=0)


def test_what_was_measured_is_in_metres_and_lacks_people_who_were_not_found(views):
    """Pictures in which a metre is 0.4, with an elbow 10 cm below the body's and an ankle that has no confidence."""
    exact = torch.cat([0.4 * views.joints[..., :2] + 0.1, torch.ones(400, 49, 1)], dim=-1)
    found = exact.clone()
    elbow, ankle = rows(["OP LElbow", "OP RAnkle"], JOINTS49)
    found[:, elbow, 1] += 0.04
    found[:, ankle] = 0
    found[7, :, 0] += 0.2
    joints = torch.cat([views.joints[:, SPIN], torch.ones(400, 24, 1)], dim=-1)
    mistakes = Mistakes.measured(found, exact, joints)
    assert len(mistakes.limbs) == 399
    elbow, ankle, nose = rows(["OP LElbow", "OP RAnkle", "OP Nose"], DETECTED23)
    np.testing.assert_allclose(mistakes.away[:, elbow], [[0, 0.1]] * 399, atol=1e-4)
    assert not mistakes.confidence[:, ankle].any() and not mistakes.away[:, [ankle, nose]].abs().max() > 1e-4
    wrists = rows(["Left Wrist", "Right Hip", "Left Hip"], SPIN24)
    wrist, *hips = joints[0, wrists, :3]
    by_name = dict(zip([name for name in SPIN24][:12], mistakes.limbs[0], strict=True))
    torch.testing.assert_close(by_name["Left Wrist"], wrist - (hips[0] + hips[1]) / 2)


def test_left_and_right_are_exchanged_as_often_as_described(views, faultless, monkeypatch):
    legs = ("Hip", "Knee", "Ankle", "Heel", "Toe")
    monkeypatch.setattr(detections, "EXCHANGED", ((0.3, legs),))
    found = torch.cat([Detector(mistakes_of(views))(Draw(seed), views) for seed in range(10)])
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


def test_some_detectors_have_no_feet_and_some_pictures_end_at_the_knees(views, faultless, monkeypatch):
    toes, heels = (rows([f"OP {s}{part}" for s in "LR"], DETECTED23) for part in ("SmallToe", "Heel"))
    confidence = torch.ones(400, 23)
    confidence[:, toes] = 0  # as MediaPipe, which has none
    tried = mistakes_of(views, confidence=confidence)
    assert not Detector(tried)(Draw(1), views)[:, toes, 2].any()
    monkeypatch.setattr(detections, "_MEDIAPIPE_SHARE", 0.0)
    monkeypatch.setattr(detections, "_OTHERS", ((0.4, ()), (0.6, ("SmallToe", "BigToe", "Heel"))))
    found = Detector(tried)(Draw(1), views)[..., 2] > 0
    assert (found[:, toes] == found[:, heels]).all() and found[:, heels].float().mean() == pytest.approx(0.4, abs=0.08)
    monkeypatch.setattr(detections, "_MEDIAPIPE_SHARE", 1.0)
    monkeypatch.setattr(detections, "CUT_SHARE", 1.0)
    cut = Detector(mistakes_of(views))(Draw(1), views)[..., 2] == 0
    assert cut.any(1).float().mean() > 0.9 and (cut.sum(1) < 20).all()


def test_what_the_head_hides_of_a_face_is_left_out_now_and_then(views, faultless, monkeypatch):
    monkeypatch.setattr(detections, "HIDDEN_SHARE", 1.0)
    monkeypatch.setattr(detections, "MISSED_SHARE", 0.0)
    monkeypatch.setattr(detections, "_EDGE", 0.0)
    found = Detector(mistakes_of(views))(Draw(1), views)[..., 2] > 0
    nose, *ears = rows(["OP Nose", "OP REar", "OP LEar"], DETECTED23)
    places = views.in_camera[:, SEEN]
    depth = places[..., 2]
    # somebody far away who shows their nose has it before their ears, and the nearer ear is the one that is seen
    far = views.in_camera[:, 0, 2] > 6
    clear = far & ((depth[:, ears].mean(1) - depth[:, nose]).abs() > 0.03)
    assert torch.equal(found[clear, nose], (depth[:, nose] < depth[:, ears].mean(1))[clear])
    aside = far & ((depth[:, ears[0]] - depth[:, ears[1]]).abs() > 0.05)
    assert torch.equal(found[aside][:, ears[0]], (depth[:, ears[0]] < depth[:, ears[1]])[aside])
    body = [row for row, name in enumerate(DETECTED23) if name not in FACE5]
    assert clear.sum() > 50 and aside.sum() > 20 and found[:, body].all()


def test_at_least_so_many_joints_are_found_that_there_is_somebody(skeleton, poses, detector):
    batch = Detections(skeleton, poses, detector, 5, 500)[0]
    assert ((batch["keypoints_2d"][..., 2] > 0).sum(1) >= detections.LEAST_FOUND).all()
    # what repeats a joint is empty, so that no row is cleaner than a detector's
    assert not batch["keypoints_2d"][:, [row for row in range(49) if row not in SEEN]].any()
    missing = batch["keypoints_2d"][..., 2] == 0
    assert not batch["keypoints_2d"][missing].any()


def test_boxes_are_around_what_was_found(skeleton, poses, detector):
    keypoints = Detections(skeleton, poses, detector, 5, 300)[0]["keypoints_2d"]
    seen = keypoints[..., 2] > 0
    places = torch.where(seen[..., None], keypoints[..., :2], 0)
    reach = places.abs().amax((1, 2))
    assert reach.quantile(0.95) < 1.15 and reach.median() > 0.6


def test_in_a_picture_joints_outside_are_not_found_and_now_and_then_nobody(views):
    joints = torch.cat([views.in_camera[:, SPIN], torch.ones(400, 24, 1)], dim=-1).repeat(2, 1, 1)
    keypoints = torch.cat([0.4 * views.in_camera[..., :2], torch.ones(400, 49, 1)], dim=-1).repeat(2, 1, 1)
    ankle, nose = rows(["OP LAnkle", "OP Nose"], JOINTS49)
    keypoints[:, ankle, 2] = 0
    found = Detector(mistakes_of(views, 0.05)).in_picture(Draw(2), keypoints, joints)
    nobody = ~(found[..., 2] > 0).any(1)
    assert nobody.float().mean() == pytest.approx(detections.NOBODY_SHARE, abs=0.05)
    assert found.shape == (800, 49, 3) and not found[:, ankle].any()
    seen = found[:, nose, 2] > 0
    away = (found[seen, nose, :2] - keypoints[seen, nose, :2]).norm(dim=-1)
    # 0.05 m in both directions, in a picture where a metre is 0.4 long
    assert away.median() == pytest.approx(0.4 * 0.05 * 2**0.5, rel=0.15)
