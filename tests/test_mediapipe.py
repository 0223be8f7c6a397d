"""MediaPipe as a detector: its joints, its quiet, and a real clip that it sees."""

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from places import CLIPS
from videos import Clip, complaint

from footage import mediapipe, remembered
from footage.people import Footage, follow, open_detector
from footage.sources import VideoFrame
from footage.tracking import box_of
from footage.video import Video
from utils.image import BOX_UNIT
from utils.joints import HALPE26, JOINTS49, MEDIAPIPE33


def test_mediapipe_s_own_names_agree_with_the_table():
    pose = pytest.importorskip("mediapipe.python.solutions.pose")
    for landmark, name in zip(pose.PoseLandmark, MEDIAPIPE33, strict=True):
        side, _, part = landmark.name.partition("_")
        part = "BIGTOE" if part == "FOOT_INDEX" else part
        expected = landmark.name if side == "NOSE" else side[0] + part
        assert not name or name.removeprefix("OP ").upper() == expected


def test_without_mediapipe(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    monkeypatch.setitem(sys.modules, "mediapipe.python.solutions.pose", None)
    assert "pip install --no-deps -r requirements-video.txt" in complaint(clip.file, "mediapipe")


@pytest.fixture(scope="module")
def tennis() -> Path:
    pytest.importorskip("mediapipe")
    if not (CLIPS / "tennis.mp4").exists():
        pytest.skip(f"the clip is not at {CLIPS}")
    return CLIPS / "tennis.mp4"


def test_mediapipe_follows_the_player_and_their_joints_as_files_give_the_same_frames(tennis, tmp_path):
    def opened() -> Video:
        return Video(str(tennis), stride=24, max_frames=13)

    detector = open_detector("mediapipe", opened())
    found = [(frame.index, person) for frame, person in follow(opened(), detector, 0, np.zeros(49))]
    assert all(person is not None for _, person in found)
    people = np.zeros((312, 49, 3))
    people[[index for index, _ in found]] = [person for _, person in found]
    own = Clip(tmp_path, people)
    live, openpose, alphapose = (
        list(Footage(opened(), str(keypoints))) for keypoints in ("mediapipe", own.openpose(), own.alphapose(HALPE26))
    )
    for frames in zip(live, openpose, alphapose, strict=True):
        for key in ("keypoints_2d", "center", "scale", "image"):
            torch.testing.assert_close(frames[1][key], frames[0][key], rtol=0, atol=1e-6)
            torch.testing.assert_close(frames[2][key], frames[0][key], rtol=0, atol=1e-6)
    # the player fills most of the height; spectators are small, and to the left and right of them
    assert min(frame["scale"].item() * BOX_UNIT for frame in live) > 350
    middle = np.array([frame["center"][0].numpy() for frame in live])
    assert (np.abs(np.diff(middle, axis=0)) < 200).all()


def test_it_says_nothing_on_the_screen_once_it_is_there(capfd):
    """Its first detection would; and what the program says meanwhile must not be lost."""
    pytest.importorskip("mediapipe")
    detector = mediapipe.MediaPipe()
    capfd.readouterr()
    figure = mediapipe._draw_figure()
    frame = VideoFrame(0, 0.0, "figure", figure)
    [person] = detector.detect_all(frame)
    for _ in range(2):  # by the one that looks at single images, and by the one that goes on
        assert len(next(detector.detect_near(frame, box_of(person)))) == 1
    print("a warning", file=sys.stderr)
    assert capfd.readouterr().err == "a warning\n"
    head, feet = (person[JOINTS49.index(name), 1] for name in ("OP Nose", "OP LHeel"))
    assert 30 < head < 70 and 215 < feet < 250


@pytest.mark.slow
def test_what_mediapipe_finds_after_a_stop_is_what_it_would_have_found(tennis, tmp_path, monkeypatch):
    pytest.importorskip("mediapipe")
    monkeypatch.setattr(remembered, "RENEWED", 6)

    def remembering(log: str, goes_on: bool) -> Footage:
        footage = Footage(Video(str(tennis), stride=8, max_frames=18), "mediapipe")
        footage.remember(tmp_path / log, goes_on)
        return footage

    whole = list(remembering("whole", goes_on=False).prepared())
    list(islice(remembering("stopped", goes_on=False).prepared(), 5))
    on = list(remembering("stopped", goes_on=True).prepared(5))
    for expected, found in zip(whole[5:], on, strict=True):
        assert torch.equal(expected["keypoints_px"], found["keypoints_px"])
        assert torch.equal(expected["image"], found["image"])
