"""The source for real footage: labels against picture and body model, equal data for equal seeds, disjoint splits."""

from pathlib import Path

import numpy as np
import pytest
import torch

import runs
import streams
from datasets.h36m import open_source
from datasets.pw3d import open_folder
from models.hmr import load_hmr
from models.smpl import load_bodies
from synthetic import stream as synthetic
from synthetic import wild
from utils.image import Crop, read_rgb
from utils.joints import SPIN, SPIN24

DEMO = Path(__file__).parent.parent / "data/demo"


@pytest.fixture(scope="module", autouse=True)
def few_clips():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wild, "CLIPS", 1)
        patch.setattr(wild, "EXTRAS", 4)
        yield


@pytest.fixture(scope="module")
def source(few_clips):
    return wild.Wild(DEMO)


@pytest.fixture(scope="module")
def bodies():
    return load_bodies(DEMO / "smpl", DEMO / "spin_data/J_regressor_extra.npy")


def body_of(bodies, gender, pose, betas):
    pose, betas = (torch.tensor(np.asarray(values)[None], dtype=torch.float32) for values in (pose, betas))
    return bodies[gender].from_axis_angle(pose, betas)


def test_equal_seeds_give_equal_samples(source):
    again = wild.Wild(DEMO)
    for seed in range(6):
        first, second = (each.sample(np.random.default_rng(seed), 96) for each in (source, again))
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name])
    assert (source.sample(np.random.default_rng(7), 96)["image"] != first["image"]).any()


def test_training_and_validation_share_no_person_no_pose_and_no_camera(source):
    other = wild.Wild(DEMO, "validation")
    for name in ("_people", "_poses", "_cameras"):
        ours, theirs = ({row.tobytes() for row in getattr(each, name)} for each in (source, other))
        assert not ours & theirs


def test_the_person_is_where_the_keypoints_say(source, monkeypatch):
    """Alone on black, every joint in the picture is on the person or at the edge of him, and he is near his joints."""
    for share in ("HELD_SHARE", "OCCLUDED_SHARE", "EDGE_SHARE", "FLAT_SHARE"):
        monkeypatch.setattr(wild, share, 0)
    monkeypatch.setattr(wild, "BYSTANDERS", (1.0,))
    monkeypatch.setattr(wild.Props, "_backdrop", lambda *args: [])
    monkeypatch.setattr(wild.WildScene, "background", lambda *args: np.zeros((224, 224, 3), np.float32))
    monkeypatch.setattr(wild.WildScene, "develop", lambda self, rng, image: image)
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


def test_the_3d_labels_are_those_of_the_body_model(source, bodies):
    for seed in range(4):
        sample = source.sample(np.random.default_rng(seed), 64)
        joints = body_of(bodies, "neutral", sample["pose"], sample["betas"]).joints[0, SPIN].numpy()
        centred = joints - joints[list(SPIN24).index("Pelvis (MPII)")]
        np.testing.assert_allclose(sample["joints_3d"][:, :3], centred, atol=1e-4)


def test_some_pictures_show_a_part_of_the_person_only(source):
    seen = [source.sample(np.random.default_rng(seed), 64)["keypoints_2d"][:, 2].mean() for seed in range(40)]
    assert 4 <= sum(share < 0.9 for share in seen) <= 28 and min(seen) > 0.2


def test_the_written_data_open_and_equal_seeds_give_equal_ones(tmp_path, bodies):
    for name in ("first", "second"):
        wild.build(tmp_path / name, DEMO, seed=1, labelled=3, frames=2)
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert len(files) == 3 + 1 + synthetic.SEQUENCES * (2 + 1)
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    labelled = tmp_path / "first/wild-source"
    assert len(open_source(labelled, labelled / "h36m_train.npz", "")) == 3
    stream = tmp_path / "first/wild"
    frames = open_folder(stream, stream / "3dpw_vid", "")[0]
    assert len(frames) == synthetic.SEQUENCES * 2
    for index in range(len(frames)):
        assert np.abs(frames[index]["keypoints_2d"][:, :2]).max() <= 1
        rgb = read_rgb(stream / frames[index]["imgname"])
        assert Crop(frames.columns["center"][index], frames.columns["scale"][index]).image(rgb).std() > 5
    for raw in (np.load(file) for file in (stream / "3dpw_vid").glob("*.npz")):
        gender = {"m": "male", "f": "female"}[str(raw["gender"][0])]
        joints = body_of(bodies, gender, raw["pose"][0], raw["shape"][0]).joints[0].numpy()
        np.testing.assert_allclose(raw["smpl_j3d"][0], joints, atol=1e-4)


def test_the_stream_is_named_in_the_configuration():
    stream = streams.STREAMS["wild"]
    assert stream.target.images.parent == stream.source.images.parent
    assert stream.assets.base_model == streams.FOOTAGE_ASSETS.base_model != streams.DEMO_ASSETS.base_model
    load_hmr(stream.assets.mean_params, stream.assets.base_model)


def test_the_source_of_footage_is_rendered_at_first_use(tmp_path, monkeypatch):
    monkeypatch.setattr(wild.build_source, "__defaults__", (2,))
    source = streams.WILD._replace(images=tmp_path, annotations=tmp_path / "h36m_train.npz")
    monkeypatch.setattr(streams, "WILD", source)
    assert len(runs.open_footage_source(streams.FOOTAGE_ASSETS)) == 2
    monkeypatch.setattr(wild, "build_source", None)  # the second time it is there
    assert len(runs.open_footage_source(streams.FOOTAGE_ASSETS)) == 2
