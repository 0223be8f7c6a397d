"""The labelled source of the free benchmark: labels against image and body model, and what its description promises."""

import numpy as np
import pytest
from free import joints_of, perspective_residual
from places import DEMO
from scipy.spatial.transform import Rotation

from synthetic import lab as lab_room
from synthetic.lab import Lab
from utils.joints import JOINTS49, SPIN, SPIN24


@pytest.fixture(scope="module")
def lab():
    return Lab(DEMO)


@pytest.fixture(scope="module")
def samples(lab):
    rng = np.random.default_rng(3)
    return [lab.sample(rng) for _ in range(12)]


def test_equal_generators_give_equal_images_and_labels(lab):
    first, second = (lab.sample(np.random.default_rng(7)) for _ in range(2))
    again = Lab(DEMO).sample(np.random.default_rng(7))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
        np.testing.assert_array_equal(value, again[name])
    assert (lab.sample(np.random.default_rng(8))["image"] != first["image"]).any()


def test_the_3d_labels_are_those_of_the_body_model(samples):
    for sample in samples:
        joints = joints_of("neutral", sample["pose"], sample["betas"])[SPIN]
        centred = joints - joints[list(SPIN24).index("Pelvis (MPII)")]
        np.testing.assert_allclose(sample["joints_3d"][:, :3], centred, atol=1e-4)
        assert (sample["joints_3d"][:, 3] == 1).all() and (sample["keypoints_2d"][:, 2] == 1).all()


def test_the_2d_labels_are_a_projection_of_the_body_inside_of_the_image(samples):
    for sample in samples:
        joints = joints_of("neutral", sample["pose"], sample["betas"])
        assert perspective_residual(joints, sample["keypoints_2d"][:, :2]) < 1e-4
        assert np.abs(sample["keypoints_2d"][:, :2]).max() < 1.1


def test_people_stand_upright_and_face_every_direction(lab):
    rng = np.random.default_rng(0)
    poses = np.stack([lab.random_pose(rng) for _ in range(200)])
    ahead = Rotation.from_rotvec(poses[:, 0]).apply([0, 0, 1])
    quarters = np.histogram(np.arctan2(ahead[:, 0], ahead[:, 2]), bins=4, range=(-np.pi, np.pi))[0]
    assert (quarters > 25).all()
    for sample in [lab.sample(rng) for _ in range(20)]:
        down = sample["keypoints_2d"][JOINTS49.index("Left Ankle"), 1]
        assert down > sample["keypoints_2d"][JOINTS49.index("Neck (LSP)"), 1]


def test_the_person_is_where_the_keypoints_say(lab, monkeypatch):
    """Drawn in white on black, every joint's pixel shows the person, a few of the face and toes at the edge aside."""
    monkeypatch.setattr(lab_room, "lab_walls", lambda *args: np.zeros((224, 224, 3), np.float32))
    monkeypatch.setattr(lab_room, "grain", lambda rng, shape, deviation: np.zeros(shape, np.float32))
    rng = np.random.default_rng(1)
    for _ in range(6):
        sample = lab.sample(rng)
        x, y = np.clip((sample["keypoints_2d"][:, :2] + 1) * 112, 0, 223).astype(int).T
        assert sample["image"][y, x].any(axis=1).mean() > 0.85
        shown = np.argwhere(sample["image"].any(axis=2))[:, ::-1] / 112 - 1
        near = np.linalg.norm(shown[:, None] - sample["keypoints_2d"][None, :, :2], axis=2).min(axis=1)
        assert near.max() < 0.3


def test_training_and_validation_share_no_person_no_pose_and_no_camera(lab):
    other = Lab(DEMO, "validation")
    for name in ("people", "poses", "azimuths"):
        ours, theirs = ({np.asarray(row).tobytes() for row in getattr(each, name)} for each in (lab, other))
        assert ours and theirs and not ours & theirs
