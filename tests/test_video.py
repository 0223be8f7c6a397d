"""Decoding: which frames a file, a folder and a camera give, when they are shown, and one line for what is wrong."""

import av
import cv2
import numpy as np
import pytest
from videos import Clip, complaint, encode

from footage import sources
from footage.video import Video
from utils.errors import UserError
from utils.joints import COCO17


def test_a_clip_is_decoded_frame_by_frame_with_the_times_at_which_frames_are_shown(tmp_path):
    times = [0, 4, 8, 30, 34, 90]
    pictures = list(Video(str(encode(tmp_path / "a.mp4", times))))
    assert [picture.index for picture in pictures] == list(range(6))
    np.testing.assert_allclose([picture.time for picture in pictures], np.array(times) / 100, atol=1e-6)
    assert [round(picture.rgb[40, 40].mean() / 20) for picture in pictures] == list(range(6))


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))])
def test_a_clip_is_turned_upright(tmp_path, rotation, corner):
    """The display matrix turns counter-clockwise, which takes the upper left corner to the lower left one."""
    picture = next(iter(Video(str(encode(tmp_path / "a.mp4", [0, 10], rotation)))))
    assert picture.rgb.shape == ((48, 64, 3) if rotation % 180 == 0 else (64, 48, 3))
    assert picture.rgb[corner].min() > 200
    assert picture.rgb[-1 - corner[0], -1 - corner[1]].max() < 100


def test_a_folder_of_pictures_is_ordered_by_the_value_of_its_numbers(tmp_path):
    for number in (10, 9, 100):
        cv2.imwrite(str(tmp_path / f"p{number}.png"), np.full((8, 8, 3), number, np.uint8))
    assert [picture.name for picture in Video(str(tmp_path))] == ["p9.png", "p10.png", "p100.png"]


def test_a_clip_and_its_pictures_are_the_same_frames(clip):
    for one, other in zip(Video(str(clip.file)), Video(str(clip.pictures)), strict=True):
        assert one.index == other.index
        assert np.abs(one.rgb.astype(int) - other.rgb).mean() < 4


def test_start_stop_stride_and_max_frames_choose_frames(tmp_path):
    file = str(encode(tmp_path / "a.mp4", list(range(0, 100, 10))))

    def chosen(*arguments) -> list[int]:
        opened = Video(file, *arguments)
        indices = [picture.index for picture in opened]
        assert abs(opened.frames - len(indices)) <= 1  # the last frame has no time of its own
        return indices

    assert chosen() == list(range(10))
    assert chosen(0.25, 0.75) == [3, 4, 5, 6, 7]
    assert chosen(0.0, 0.0, 3) == [0, 3, 6, 9]
    assert chosen(0.1, 0.8, 2) == [1, 3, 5, 7]
    assert chosen(0.0, 0.0, 2, 3) == [0, 2, 4]


def test_a_camera_is_a_stream_without_end(monkeypatch, clip):
    opened = cv2.VideoCapture(str(clip.file))
    monkeypatch.setattr(sources.cv2, "VideoCapture", lambda number: opened)
    camera = Video("0")
    assert camera.is_camera and camera.frames is None and camera.name == "camera0"
    reference = next(iter(Video(str(clip.pictures)))).rgb
    assert np.abs(next(iter(camera)).rgb.astype(int) - reference).mean() < 4


def test_clips_that_cannot_be_read(clip, tmp_path):
    keypoints = clip.openpose()
    whole = encode(tmp_path / "whole.mp4", list(range(0, 400, 4)), size=(512, 384)).read_bytes()
    assert "nowhere.mp4 is missing; name a video" in complaint(tmp_path / "nowhere.mp4", keypoints)
    for name, content in (("empty", b""), ("text", b"no video"), ("cut", whole[:5000])):
        (tmp_path / f"{name}.mp4").write_bytes(content)
        assert f"{name}.mp4 is no readable video" in complaint(tmp_path / f"{name}.mp4", keypoints)


def test_a_clip_of_nothing_but_sound(clip, tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "song.mp4 holds no video, only audio" in complaint(tmp_path / "song.mp4", clip.openpose())


def test_a_clip_that_is_cut_off_gives_what_it_has(clip, tmp_path):
    whole = encode(tmp_path / "whole.mp4", list(range(0, 400, 4)), size=(512, 384), movflags="faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    own = Clip(tmp_path, np.repeat(clip.joints[:1], 100, axis=0))
    message = complaint(tmp_path / "cut.mp4", own.openpose(), taken=30)
    assert "cut.mp4 is cut off" in message or "cut.mp4 is damaged after frame" in message


def test_pictures_of_several_sizes(clip, tmp_path):
    for name, size in (("a.png", 300), ("b.png", 400)):
        cv2.imwrite(str(tmp_path / name), np.zeros((size, size, 3), np.uint8))
    (tmp_path / "k.json").write_text(clip.alphapose(COCO17).read_text().replace("0.jpg", "a.jpg"))
    assert "b.png is 400x400 px where the frames before are 300x300" in complaint(tmp_path, tmp_path / "k.json")


def test_a_range_without_frames_and_a_folder_without_pictures(clip, tmp_path):
    assert "has no frame from --start 9 to" in complaint(clip.file, clip.openpose(), start=9.0)
    assert "holds no image" in complaint(tmp_path, clip.openpose())


def test_a_camera_that_is_not_there():
    with pytest.raises(UserError, match="camera 97 cannot be opened"):
        Video("97")
