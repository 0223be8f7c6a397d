"""The written streams and sources: labels against the body model and the camera, and the readers of the data sets."""

import functools

import numpy as np
import pytest
from free import joints_of, perspective_residual
from places import DEMO

from datasets.h36m import open_source
from datasets.pw3d import join_sequences, open_folder
from synthetic import props, stream
from synthetic.lab import Lab
from synthetic.motions import TEST_KINDS
from synthetic.wild import Wild
from utils.image import Crop, read_rgb
from utils.joints import SPIN, SPIN24

FRAMES = 3


@pytest.fixture(scope="module", params=["test", "wild"])
def split(request):
    return request.param


@pytest.fixture(scope="module")
def written(tmp_path_factory, split):
    output = tmp_path_factory.mktemp("stream")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(props, "EXTRAS", 4)
        stream.write_stream(output, DEMO, split, seed=1, frames=FRAMES)
    return output


def read_sequences(folder):
    return [dict(np.load(file)) for file in sorted((folder / "3dpw_vid").glob("*.npz"))]


def test_the_labels_are_those_of_each_persons_own_body(written):
    for raw in read_sequences(written):
        for row in range(FRAMES):
            gender = {"m": "male", "f": "female"}[str(raw["gender"][row])]
            joints = joints_of(gender, raw["pose"][row], raw["shape"][row])
            np.testing.assert_allclose(raw["smpl_j3d"][row], joints, atol=1e-4)
            seen = raw["smpl_j2d"][row, :, :2]
            in_box = (seen - raw["center"][row]) / (100 * raw["scale"][row])
            assert perspective_residual(joints, in_box) < 1e-3
            np.testing.assert_array_equal(raw["part"][row], raw["smpl_j2d"][row, SPIN])


def test_a_stream_opens_like_3dpw_and_every_joint_is_in_its_crop(written, split):
    files = sorted((written / "3dpw_vid").glob("*.npz"))
    assert [file.stem.split("_", 2)[2] for file in files] == list(stream.DOMAINS[split].kinds)
    frames = open_folder(written, written / "3dpw_vid", "")[0]
    assert len(frames) == len(join_sequences(written, files, "")) == FRAMES * stream.SEQUENCES
    for index in range(len(frames)):
        assert np.abs(frames[index]["keypoints_2d"][:, :2]).max() <= 1
        rgb = read_rgb(written / frames[index]["imgname"])
        assert Crop(frames.columns["center"][index], frames.columns["scale"][index]).image(rgb).std() > 5


def test_the_test_stream_shows_what_the_source_does_not():
    assert stream.DOMAINS["test"].kinds == TEST_KINDS
    assert not set(stream.DOMAINS["test"].kinds) & set(stream.DOMAINS["validation"].kinds)


def test_equal_seeds_give_equal_streams_and_other_seeds_others(tmp_path):
    for name, seed in (("first", 1), ("equal", 1), ("other", 2)):
        stream.write_stream(tmp_path / name, DEMO, "test", seed=seed, frames=2)
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert len(files) == stream.SEQUENCES * (2 + 1)
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "equal" / file).read_bytes()
    for ours, other in zip(*(read_sequences(tmp_path / name) for name in ("first", "other")), strict=True):
        assert (ours["pose"] != other["pose"]).any() and (ours["shape"] != other["shape"]).any()


@pytest.mark.parametrize("make", [Lab, functools.partial(Wild, clips=1)])
def test_a_labelled_source_opens_like_human36m(tmp_path, make, monkeypatch):
    monkeypatch.setattr(props, "EXTRAS", 4)
    stream.write_source(tmp_path, make(DEMO), 4)
    frames = open_source(tmp_path, tmp_path / "h36m_train.npz", "")
    assert len(frames) == 4
    for index in range(4):
        frame = frames[index]
        joints = joints_of("neutral", frame["pose"], frame["betas"])[SPIN]
        pelvis = list(SPIN24).index("Pelvis (MPII)")
        np.testing.assert_allclose(frame["joints_3d"][:, :3], joints - joints[pelvis], atol=1e-4)
        seen = frame["keypoints_2d"][SPIN, 2] > 0
        # the loader truncates to whole pixels of the crop, 2/224 each
        assert perspective_residual(joints[seen], frame["keypoints_2d"][SPIN, :2][seen]) < 0.02
        rgb = read_rgb(tmp_path / frame["imgname"])
        assert Crop(frames.columns["center"][index], frames.columns["scale"][index]).image(rgb).std() > 5
