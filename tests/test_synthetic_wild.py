"""The source for footage: labels against image and body model, equal data for equal seeds, disjoint splits."""

import numpy as np
import pytest
from free import joints_of
from places import DEMO

from synthetic import props, samples, wild
from synthetic.wild import Wild
from utils.joints import SPIN, SPIN24


@pytest.fixture(scope="module", autouse=True)
def few_extras():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(props, "EXTRAS", 4)
        yield


@pytest.fixture(scope="module")
def source(few_extras):
    return Wild(DEMO, clips=1)


def test_equal_seeds_give_equal_samples(source):
    again = Wild(DEMO, clips=1)
    for seed in range(6):
        first, second = (each.sample(np.random.default_rng(seed), 96) for each in (source, again))
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name])
    assert (source.sample(np.random.default_rng(7), 96)["image"] != first["image"]).any()


def test_people_for_a_detector_are_the_same_each_time_in_the_given_poses_and_of_many_sizes(monkeypatch):
    monkeypatch.setattr(samples, "POSE_NOISE", 0.0)
    monkeypatch.setattr(samples, "MIX_FRACTION", 0.0)
    poses = np.random.default_rng(0).normal(0, 0.2, (2, 24, 3))
    people, again = (list(wild.people_of(DEMO, poses, 5)) for _ in range(2))
    assert len({len(person["image"]) for person in people}) == 5
    for one, other in zip(people, again, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        assert any(np.allclose(one["pose"].reshape(24, 3)[1:], pose[1:], atol=1e-6) for pose in poses)


def test_training_and_validation_share_no_person_no_pose_and_no_camera(source):
    other = Wild(DEMO, "validation", clips=1)
    for name in ("people", "poses", "views"):
        ours, theirs = ({row.tobytes() for row in getattr(each, name)} for each in (source, other))
        assert ours and theirs and not ours & theirs


def test_the_person_is_where_the_keypoints_say(source, monkeypatch):
    """Alone on black, every joint in the image is on the person or at their edge, and the person near the joints."""
    for name in ("HELD_FRACTION", "EDGE_FRACTION", "FLAT_FRACTION"):
        monkeypatch.setattr(wild, name, 0)
    monkeypatch.setattr(props, "OCCLUDED_FRACTION", 0)
    monkeypatch.setattr(props, "BYSTANDERS", (1.0,))
    monkeypatch.setattr(props.Props, "backdrop", lambda *args: [])
    monkeypatch.setattr(props.WildScene, "background", lambda *args: np.zeros((224, 224, 3), np.float32))
    monkeypatch.setattr(props.WildScene, "develop", lambda self, rng, image: image)
    for seed in range(12):
        sample = source.sample(np.random.default_rng(seed))
        keypoints, shown = sample["keypoints_2d"], sample["image"].any(axis=2)
        inside = (np.abs(keypoints[:, :2]) <= 1).all(axis=1)
        np.testing.assert_array_equal(keypoints[:, 2], inside)
        x, y = np.clip((keypoints[inside, :2] + 1) * 112, 0, 223).astype(int).T
        assert shown[y, x].mean() > 0.85
        somewhere = np.argwhere(shown)[:, ::-1] / 112 - 1
        near = np.linalg.norm(somewhere[:, None] - keypoints[None, :, :2], axis=2).min(axis=1)
        metre = keypoints[SPIN, :2].std(axis=0).sum() / sample["joints_3d"][:, :2].std(axis=0).sum()
        assert near.max() < 0.25 * metre


def test_the_3d_labels_are_those_of_the_body_model(source):
    for seed in range(4):
        sample = source.sample(np.random.default_rng(seed), 64)
        joints = joints_of("neutral", sample["pose"], sample["betas"])[SPIN]
        centred = joints - joints[list(SPIN24).index("Pelvis (MPII)")]
        np.testing.assert_allclose(sample["joints_3d"][:, :3], centred, atol=1e-4)


def seen_fractions(source) -> np.ndarray:
    """Of the joints in the image, over 30 samples."""
    samples = (source.sample(np.random.default_rng(seed), 32) for seed in range(30))
    return np.array([sample["keypoints_2d"][:, 2].mean() for sample in samples])


def test_a_person_is_cut_off_where_that_is_drawn_and_only_there(source, monkeypatch):
    monkeypatch.setattr(wild, "EDGE_FRACTION", 0)
    monkeypatch.setattr(wild, "CUT_FRACTION", 0)
    whole = seen_fractions(source)
    monkeypatch.setattr(wild, "CUT_FRACTION", 1)
    cut = seen_fractions(source)
    assert whole.min() > 0.9 and (whole == 1).mean() > 0.7
    assert cut.min() > 0.4 and (cut < 1).mean() > 0.7


def test_where_an_image_ends_it_is_black_and_no_joint_counts(source, monkeypatch):
    monkeypatch.setattr(wild, "CUT_FRACTION", 0)
    monkeypatch.setattr(wild, "EDGE_FRACTION", 1)
    for seed in range(12):
        sample = source.sample(np.random.default_rng(seed), 96)
        black = ~sample["image"].any(axis=2)
        strips = [black[:2].all(), black[-2:].all(), black[:, :2].all(), black[:, -2:].all()]
        assert any(strips)
        x, y = ((sample["keypoints_2d"][:, :2] + 1) * 48).T
        counts = sample["keypoints_2d"][:, 2] > 0
        columns, rows = (np.flatnonzero(~black.all(axis=axis)) for axis in (0, 1))
        assert (x[counts] >= columns[0]).all() and (x[counts] <= columns[-1] + 1).all()
        assert (y[counts] >= rows[0]).all() and (y[counts] <= rows[-1] + 1).all()
