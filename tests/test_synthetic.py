"""The synthetic benchmark: labels against the body model and the camera, and the promises of its description."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from datasets.h36m import open_source
from datasets.pw3d import join_sequences
from models.smpl import load_bodies
from synthetic import stream as synthetic
from synthetic.body import Body
from synthetic.motions import (
    KINDS,
    SOURCE_KINDS,
    TEST_KINDS,
    VALIDATION_KINDS,
    WILD_KINDS,
    mirrored,
    motion,
)
from synthetic.street import Camera, look_at
from utils.image import Crop, read_rgb
from utils.joints import JOINTS49, SMPL24, SPIN, SPIN24

DEMO = Path(__file__).parent.parent / "data/demo"
FRAMES = 3


@pytest.fixture(scope="module")
def bodies():
    return load_bodies(DEMO / "smpl", DEMO / "spin_data/J_regressor_extra.npy")


@pytest.fixture(scope="module")
def lab():
    return synthetic.Lab(DEMO)


@pytest.fixture(scope="module")
def samples(lab):
    rng = np.random.default_rng(3)
    return [lab.sample(rng) for _ in range(12)]


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    output = tmp_path_factory.mktemp("stream")
    synthetic.write_stream(output, DEMO, "test", seed=1, frames=FRAMES)
    return output


def read_sequences(stream):
    return [dict(np.load(file)) for file in sorted((stream / "3dpw_vid").glob("*.npz"))]


def body_of(bodies, gender, pose, betas):
    pose, betas = (torch.tensor(np.asarray(values)[None], dtype=torch.float32) for values in (pose, betas))
    return bodies[gender].from_axis_angle(pose, betas)


def perspective_residual(joints, keypoints):
    """Largest distance of 2D keypoints (N,2) from the pinhole image of joints (N,3) under the best camera position.

    u = a (x + tx) / (z + tz) + bx is linear in a, tz, bx and a tx + bx tz once it is multiplied out; v likewise.
    """
    (x, y, z), (u, v) = joints.T, keypoints.T
    one, zero = np.ones_like(z), np.zeros_like(z)
    rows = np.concatenate([np.stack([x, -u, z, one, zero, zero], 1), np.stack([y, -v, zero, zero, z, one], 1)])
    a, tz, bx, cx, by, cy = np.linalg.lstsq(rows, np.concatenate([u * z, v * z]), rcond=None)[0]
    seen = np.stack([a * x + bx * z + cx, a * y + by * z + cy], axis=1) / (z + tz)[:, None]
    return np.linalg.norm(seen - keypoints, axis=1).max()


def test_equal_generators_give_equal_pictures_and_labels(lab):
    first, second = (lab.sample(np.random.default_rng(7)) for _ in range(2))
    again = synthetic.Lab(DEMO).sample(np.random.default_rng(7))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
        np.testing.assert_array_equal(value, again[name])
    assert (lab.sample(np.random.default_rng(8))["image"] != first["image"]).any()


def test_the_3d_labels_of_the_lab_are_those_of_the_body_model(samples, bodies):
    for sample in samples:
        joints = body_of(bodies, "neutral", sample["pose"], sample["betas"]).joints[0, SPIN].numpy()
        centred = joints - joints[list(SPIN24).index("Pelvis (MPII)")]
        np.testing.assert_allclose(sample["joints_3d"][:, :3], centred, atol=1e-4)
        assert (sample["joints_3d"][:, 3] == 1).all() and (sample["keypoints_2d"][:, 2] == 1).all()


def test_the_2d_labels_of_the_lab_are_a_projection_of_its_body_inside_of_the_picture(samples, bodies):
    for sample in samples:
        joints = body_of(bodies, "neutral", sample["pose"], sample["betas"]).joints[0].numpy()
        assert perspective_residual(joints.astype(float), sample["keypoints_2d"][:, :2].astype(float)) < 1e-4
        assert np.abs(sample["keypoints_2d"][:, :2]).max() < 1.1


def test_people_of_the_lab_stand_upright_and_face_every_direction(lab):
    rng = np.random.default_rng(0)
    poses = np.stack([lab._pose(rng) for _ in range(200)])
    ahead = Rotation.from_rotvec(poses[:, 0]).apply([0, 0, 1])
    quarters = np.histogram(np.arctan2(ahead[:, 0], ahead[:, 2]), bins=4, range=(-np.pi, np.pi))[0]
    assert (quarters > 25).all()
    for sample in [lab.sample(rng) for _ in range(20)]:
        down = sample["keypoints_2d"][JOINTS49.index("Left Ankle"), 1]
        assert down > sample["keypoints_2d"][JOINTS49.index("Neck (LSP)"), 1]


def test_the_person_is_where_the_keypoints_say(lab, monkeypatch):
    """Drawn in white on black, every joint's pixel shows the person, a few of the face and toes at the edge aside."""
    monkeypatch.setattr(synthetic, "lab_walls", lambda *args: np.zeros((224, 224, 3), np.float32))
    monkeypatch.setattr(synthetic, "grain", lambda rng, shape, deviation: np.zeros(shape, np.float32))
    rng = np.random.default_rng(1)
    for _ in range(6):
        sample = lab.sample(rng)
        x, y = np.clip((sample["keypoints_2d"][:, :2] + 1) * 112, 0, 223).astype(int).T
        assert sample["image"][y, x].any(axis=1).mean() > 0.85
        shown = np.argwhere(sample["image"].any(axis=2))[:, ::-1] / 112 - 1
        near = np.linalg.norm(shown[:, None] - sample["keypoints_2d"][None, :, :2], axis=2).min(axis=1)
        assert near.max() < 0.3


def test_training_and_validation_share_no_person_no_pose_and_no_camera(lab):
    other = synthetic.Lab(DEMO, "validation")
    for name in ("_people", "_poses", "_azimuths"):
        ours, theirs = ({np.asarray(row).tobytes() for row in getattr(each, name)} for each in (lab, other))
        assert not ours & theirs


def test_the_kinds_of_motion_of_the_splits_are_disjoint_and_all_there_are():
    splits = [set(kinds) for kinds in (SOURCE_KINDS, VALIDATION_KINDS, TEST_KINDS, WILD_KINDS)]
    assert sum(map(len, splits)) == len(set.union(*splits)) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_motions_are_smooth_and_keep_within_what_joints_can_do(kind):
    poses = motion(kind, np.random.default_rng(0), 90)
    assert poses.shape == (90, len(SMPL24), 3) and np.isfinite(poses).all()
    assert poses.std(axis=0).max() > 0.02  # something moves
    turns = Rotation.from_rotvec(poses.reshape(-1, 3))
    steps = (turns[: -len(SMPL24)].inv() * turns[len(SMPL24) :]).magnitude()
    assert steps.max() < 0.6  # rad in a thirtieth of a second
    for side in ("left", "right"):
        knee, elbow = poses[:, SMPL24.index(f"{side}_knee")], poses[:, SMPL24.index(f"{side}_elbow")]
        assert (knee[:, 0] > 0).all() and (elbow[:, 1] * (-1 if side == "left" else 1) > 0).all()


def test_the_mirror_image_of_a_pose_mirrors_its_joints(bodies):
    pose = motion("throw", np.random.default_rng(0), 1)[0]
    joints = body_of(bodies, "neutral", pose.ravel(), np.zeros(10)).joints[0].numpy()
    other = body_of(bodies, "neutral", mirrored(pose).ravel(), np.zeros(10)).joints[0].numpy()
    left, right = JOINTS49.index("Left Wrist"), JOINTS49.index("Right Wrist")
    np.testing.assert_allclose(other[right], joints[left] * [-1, 1, 1], atol=1e-3)


def test_a_person_walks_forward_on_the_floor():
    body = Body(DEMO, "male")
    person = synthetic.Person(body, np.zeros(10), np.zeros((len(body.template), 3)))
    rotmats, places = synthetic.perform(person, "walk", np.random.default_rng(2), 60)
    for rotmat, place in zip(rotmats, places, strict=True):
        lowest = (person.body(rotmat, person.shaped)[0] + place)[:, 1].min()
        assert lowest == pytest.approx(0, abs=1e-5)
    moved = places[-1] - places[0]
    ahead = rotmats[:, 0].mean(axis=0) @ [0, 0, 1]
    assert moved @ ahead > 0.7  # m in 2 s


class NoisyBody:
    """A body whose points are moved by as much as rounding on another processor might."""

    def __init__(self, body: Body, seed: int) -> None:
        self.body, self.rng = body, np.random.default_rng(seed)

    def __call__(self, *pose):
        return [points + 1e-7 * self.rng.standard_normal(points.shape) for points in self.body(*pose)]


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_does_not_choose_the_standing_foot(kind):
    body, places = Body(DEMO, "male"), []
    for seed in (0, 1):
        person = synthetic.Person(body, np.zeros(10), np.zeros((len(body.template), 3)))
        person.body = NoisyBody(body, seed)
        places.append(synthetic.perform(person, kind, np.random.default_rng(3), 40)[1])
    np.testing.assert_allclose(*places, atol=1e-4)


def test_look_at_puts_the_target_in_the_middle_with_the_sky_above():
    position, target = np.array([3.0, 2.0, -1.0]), np.array([0.5, 1.0, 0.2])
    camera = Camera(look_at(position, target), position, 400.0, (384, 512))
    seen = camera.project(camera.to_camera(np.stack([target, target + np.array([0, 0.5, 0])])))
    np.testing.assert_allclose(seen[0], [256, 192], atol=1e-6)
    assert seen[1, 1] < 150 and seen[1, 0] == pytest.approx(256)
    assert np.linalg.det(camera.rotation) == pytest.approx(1)
    rays = camera.rays()[:, 191, 255]
    np.testing.assert_allclose(
        rays / np.linalg.norm(rays), (target - position) / np.linalg.norm(target - position), atol=2e-3
    )


def test_the_labels_of_the_street_are_those_of_each_persons_own_body(stream, bodies):
    for raw in read_sequences(stream):
        for row in range(FRAMES):
            gender = {"m": "male", "f": "female"}[str(raw["gender"][row])]
            joints = body_of(bodies, gender, raw["pose"][row], raw["shape"][row]).joints[0].numpy()
            np.testing.assert_allclose(raw["smpl_j3d"][row], joints, atol=1e-4)
            seen = raw["smpl_j2d"][row, :, :2]
            in_box = (seen - raw["center"][row]) / (100 * raw["scale"][row])
            assert perspective_residual(joints.astype(float), in_box) < 1e-3
            np.testing.assert_array_equal(raw["part"][row], raw["smpl_j2d"][row, SPIN])


def test_the_stream_opens_like_3dpw_and_every_joint_is_in_its_crop(stream):
    files = sorted((stream / "3dpw_vid").glob("*.npz"))
    assert len(files) == synthetic.SEQUENCES and [file.stem.split("_", 2)[2] for file in files] == list(TEST_KINDS)
    frames = join_sequences(stream, files, "")
    assert len(frames) == FRAMES * synthetic.SEQUENCES
    for index in range(len(frames)):
        assert np.abs(frames[index]["keypoints_2d"][:, :2]).max() <= 1


def test_equal_seeds_give_equal_streams_and_other_seeds_others(stream, tmp_path):
    for seed in (1, 2):
        synthetic.write_stream(tmp_path / str(seed), DEMO, "test", seed=seed, frames=FRAMES)
    files = sorted(path.relative_to(stream) for path in stream.rglob("*.*"))
    assert len(files) == synthetic.SEQUENCES * (FRAMES + 1)
    same = [
        (stream / file).read_bytes() == (tmp_path / "1" / file).read_bytes() for file in files if file.suffix == ".jpg"
    ]
    assert all(same)
    for ours, equal, other in zip(
        *(read_sequences(path) for path in (stream, tmp_path / "1", tmp_path / "2")), strict=True
    ):
        for key, values in ours.items():
            np.testing.assert_array_equal(values, equal[key])
        assert (ours["pose"] != other["pose"]).any() and (ours["shape"] != other["shape"]).any()


def test_the_background_stays_while_the_camera_does(tmp_path):
    """Without camera motion, what is far from the person does not change but for the camera's noise."""
    street = synthetic.Street(np.random.default_rng(0), 0.0)
    position = np.array([0.0, 1.5, 4.0])
    camera = Camera(look_at(position, np.array([0.0, 1.0, 0.0])), position, 400.0, (120, 160))
    first, _ = street.layers(camera, np.zeros(3), 4.0)
    second, _ = street.layers(camera, np.array([0.3, 0, 0]), 4.0)
    np.testing.assert_array_equal(first[:40], second[:40])
    assert (first != second).any()  # the shadow has moved


def test_the_labelled_source_opens_like_human36m(tmp_path, bodies):
    synthetic.write_source(tmp_path, DEMO, 4)
    frames = open_source(tmp_path, tmp_path / "h36m_train.npz", "")
    assert len(frames) == 4
    for index in range(4):
        frame = frames[index]
        joints = body_of(bodies, "neutral", frame["pose"], frame["betas"]).joints[0, SPIN].numpy()
        pelvis = list(SPIN24).index("Pelvis (MPII)")
        np.testing.assert_allclose(frame["joints_3d"][:, :3], joints - joints[pelvis], atol=1e-4)
        # the loader truncates to whole pixels of the crop, 2/224 each
        assert perspective_residual(joints.astype(float), frame["keypoints_2d"][SPIN, :2].astype(float)) < 0.02
        rgb = read_rgb(tmp_path / frame["imgname"])
        assert Crop(frames.columns["center"][index], frames.columns["scale"][index]).image(rgb).std() > 5
