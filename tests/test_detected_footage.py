"""Rendered footage as a detector sees it: which frames are kept, and what is read back."""

import numpy as np
import pytest
import torch

from footage import detections
from utils.errors import UserError

FRAMES = 6


@pytest.fixture
def stream(tmp_path):
    """Two clips of labels, as the renderer writes them; the pictures are not looked at."""
    rng = np.random.default_rng(0)
    for name in ("wild_00_walk", "wild_01_run"):
        exact = np.concatenate([rng.uniform(100, 300, (FRAMES, 49, 2)), np.ones((FRAMES, 49, 1))], axis=-1)
        labels = {
            "pose": rng.normal(0, 1, (FRAMES, 72)),
            "shape": rng.normal(0, 1, (FRAMES, 10)),
            "gender": np.array(["m"] * FRAMES),
            "smpl_j3d": rng.normal(0, 0.3, (FRAMES, 49, 3)),
            "smpl_j2d": exact,
        }
        (tmp_path / "3dpw_vid").mkdir(exist_ok=True)
        (tmp_path / "imageFiles" / name).mkdir(parents=True)
        np.savez(tmp_path / "3dpw_vid" / f"{name}.npz", **labels)
    return tmp_path


def follow(monkeypatch, stream, change=lambda index, frame: frame) -> None:
    """Let everybody be found 3 px beside where they are, but for what `change` makes of a frame."""

    class Found:
        def __init__(self, video: str, keypoints: str) -> None:
            assert keypoints == "mediapipe"
            self.name = video.rpartition("/")[2]

        def prepared(self):
            with np.load(stream / "3dpw_vid" / f"{self.name}.npz") as npz:
                exact = npz["smpl_j2d"]
            for index, person in enumerate(exact):
                frame = {
                    "index": torch.tensor([index]),
                    "sequence": [self.name],
                    "bridged": torch.tensor([False]),
                    "keypoints_px": torch.tensor(person[None] + [3, 0, -0.1]),
                    "keypoints_2d": torch.full((1, 49, 3), float(index)),
                }
                changed = change(index, frame)
                if isinstance(changed, Exception):
                    raise changed
                yield changed

    monkeypatch.setattr(detections, "Footage", Found)
    monkeypatch.setattr(detections, "Video", lambda source: source)


def test_what_is_found_lies_beside_the_truth(stream, monkeypatch, tmp_path):
    follow(monkeypatch, stream)
    assert detections.detect(stream, tmp_path / "out" / "1.npz") == 2 * FRAMES
    with np.load(tmp_path / "out" / "1.npz") as npz:
        assert all(len(npz[name]) == 2 * FRAMES for name in npz.files)
        np.testing.assert_allclose(npz["keypoints_px"][..., :2] - npz["exact_px"][..., :2], [[[3, 0]] * 49] * 12)
        assert npz["sequence"][0] == "wild_00_walk" and npz["sequence"][-1] == "wild_01_run"
    found = detections.read_detections(tmp_path / "out")
    assert found["keypoints_2d"].shape == found["joints"].shape == (2 * FRAMES, 49, 3)
    assert found["joints"].dtype == torch.float32


def test_frames_of_somebody_else_bridged_ones_and_those_without_anybody_are_left_out(stream, monkeypatch, tmp_path):
    def change(index, frame):
        if index == 0:
            return {name: value for name, value in frame.items() if not name.startswith("keypoints")}
        if index == 1:
            return {**frame, "bridged": torch.tensor([True])}
        return {**frame, "keypoints_px": frame["keypoints_px"] + 400} if index == 2 else frame

    follow(monkeypatch, stream, change)
    assert detections.detect(stream, tmp_path / "1.npz") == 2 * (FRAMES - 3)


def test_a_clip_without_anybody_is_left_out_and_a_stream_without_anybody_is_an_error(
    stream, monkeypatch, tmp_path, caplog
):
    nobody = UserError("nobody can be followed")

    def change(index, frame):
        return nobody if frame["sequence"] == ["wild_00_walk"] else frame

    follow(monkeypatch, stream, change)
    assert detections.detect(stream, tmp_path / "1.npz") == FRAMES
    assert "wild_00_walk ends early: nobody can be followed" in caplog.text
    follow(monkeypatch, stream, lambda index, frame: nobody)
    with pytest.raises(UserError, match="nobody was found in"):
        detections.detect(stream, tmp_path / "2.npz")
    assert not (tmp_path / "2.npz").exists()


def test_without_files_there_is_nothing_and_a_damaged_one_is_an_error(tmp_path):
    assert detections.read_detections(tmp_path / "nowhere") == {}
    np.savez(tmp_path / "1.npz", keypoints_2d=np.zeros((3, 17, 3)), joints=np.zeros((3, 49, 3)))
    with pytest.raises(UserError, match=r"1\.npz holds joints of shape \(17, 3\)"):
        detections.read_detections(tmp_path)
    (tmp_path / "1.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"1\.npz cannot be read"):
        detections.read_detections(tmp_path)


def test_people_in_pictures_are_written_beside_what_was_found_of_them(monkeypatch, tmp_path):
    """A picture's brightness is what the detector finds there: nobody, too few joints, or all of them 3 px beside."""
    rng = np.random.default_rng(0)
    exact = np.concatenate([rng.uniform(-0.5, 0.5, (49, 2)), np.ones((49, 1))], axis=-1)
    joints = rng.normal(0, 0.3, (24, 4))

    class Found:
        def detect_alone(self, rgb: np.ndarray) -> np.ndarray:
            person = exact.copy()
            person[:, :2] = (exact[:, :2] + 1) / 2 * len(rgb) - 0.5 + [3, 0]
            person[40:] = 0
            person[3, 2] = 0.05
            if rgb[0, 0, 0] == 1:
                person[2:, 2] = 0.1
            return person[None] if rgb[0, 0, 0] else np.zeros((0, 49, 3))

    def people():
        for size, brightness in ((100, 0), (200, 1), (300, 2), (400, 2)):
            image = np.full((size, size, 3), brightness, np.uint8)
            yield {"image": image, "keypoints_2d": exact, "joints_3d": joints}

    monkeypatch.setattr(detections, "MediaPipe", Found)
    assert detections.try_out(people(), tmp_path / "detector.npz") == 2
    with np.load(tmp_path / "detector.npz") as npz:
        away = npz["keypoints_2d"][:, :40, :2] - npz["exact_2d"][:, :40, :2]
        np.testing.assert_allclose(away, np.tile([[[6 / 300, 0]], [[6 / 400, 0]]], (1, 40, 1)), atol=2e-3)
        np.testing.assert_allclose(npz["keypoints_2d"][:, 3, 2], 0.05, atol=1e-4)
        assert not npz["keypoints_2d"][:, 40:].any()
        np.testing.assert_allclose(npz["joints_3d"], [joints] * 2, atol=2e-3)
    with pytest.raises(UserError, match="found nobody"):
        detections.try_out((), tmp_path / "other.npz")
    assert not (tmp_path / "other.npz").exists()
