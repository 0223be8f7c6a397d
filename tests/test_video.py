"""Decoding: which frames a file, a folder and a camera give, when they are shown, and one line for what is wrong."""

import os
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from videos import Clip, complaint, damage_packet, encode, number_shown, numbered, remux

from footage.sources import VideoFrame
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


# what containers say of themselves


def read(path: Path) -> tuple[Video, list[VideoFrame]]:
    opened = Video(str(path))
    return opened, list(opened)


@pytest.mark.parametrize(
    ("ending", "codec", "options"),
    [
        ("mp4", "libx264", {"g": "10", "bf": "0"}),
        ("mp4", "libx264", {"g": "10", "bf": "2", "b-adapt": "0"}),
        ("mp4", "libx265", {"x265-params": "log-level=none:keyint=10:bframes=0"}),
        ("avi", "mpeg4", {"g": "10"}),
        ("avi", "mjpeg", {}),
        ("avi", "libx264", {"g": "10", "bf": "2", "b-adapt": "0"}),
        ("mkv", "libx264", {"g": "10", "bf": "2"}),
        ("webm", "libvpx", {"g": "10", "deadline": "realtime"}),
    ],
)
@pytest.mark.parametrize("packet", [0, 13, 20, 29])
def test_frames_keep_their_numbers_after_a_damaged_packet(tmp_path, ending, codec, options, packet):
    file = numbered(tmp_path / f"a.{ending}", 30, codec, **options)
    damage_packet(file, packet)
    video, frames = read(file)
    lost, shown = video.facts()["frames_lost"], {frame.index: number_shown(frame) for frame in frames}
    assert len(shown) == len(frames) == 30 - lost and video.source_frames == 30
    assert lost == 0 or any("damaged frames that are left out" in line for line in video.warnings())
    # what is in other groups of ten than the damage, and not beside them, is whole
    far = [index for index in shown if abs(index - (packet // 10 * 10 + 5)) > 8]
    assert len(far) >= 13 and all(shown[index] == index for index in far)
    times = [frame.time for frame in frames if frame.index in far]
    np.testing.assert_allclose(times, np.array(far) / 25, atol=2e-3)


def test_a_clip_that_was_trimmed_without_encoding_has_the_frames_that_are_shown(tmp_path):
    """MP4: the samples from the key frame on are there, an edit list hides those before the cut."""
    long = numbered(tmp_path / "long.mp4", 35, g="250", bf="0")
    video, frames = read(remux(long, tmp_path / "a.mp4", shift=-1.0, avoid_negative_ts="disabled"))
    assert [number_shown(frame) for frame in frames] == list(range(25, 35))
    assert [frame.index for frame in frames] == list(range(10))
    assert Video(str(tmp_path / "a.mp4")).frames == video.frames == 10 and video.is_whole and not video.warnings()


def test_empty_packets_of_an_avi_are_no_frames_and_take_their_time(tmp_path):
    long = numbered(tmp_path / "long.avi", 20, "mpeg4", g="10")
    video, frames = read(remux(long, tmp_path / "a.avi", shift=0.4))
    with av.open(str(tmp_path / "a.avi")) as file:
        assert file.streams.video[0].frames == 30  # what the header counts
    assert [number_shown(frame) for frame in frames] == list(range(20))
    assert Video(str(tmp_path / "a.avi")).frames == video.frames == 20 and not video.warnings()
    assert frames[-1].time == pytest.approx(29 / 25)


@pytest.mark.parametrize(
    ("ending", "codec", "options"), [("ts", "libx264", {"bf": "2"}), ("mpg", "mpeg2video", {}), ("webm", "libvpx", {})]
)
def test_files_that_were_joined_go_on_where_time_goes_back(tmp_path, ending, codec, options):
    parts = [numbered(tmp_path / f"{count}.{ending}", count, codec, **options).read_bytes() for count in (20, 12)]
    (tmp_path / f"joined.{ending}").write_bytes(b"".join(parts))
    video, frames = read(tmp_path / f"joined.{ending}")
    assert [number_shown(frame) for frame in frames] == [*range(20), *range(12)]
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(32) / 25, atol=1e-3)
    assert (
        video.rate == pytest.approx(25) and "places where time goes back, as in joined files: 1" in video.warnings()[0]
    )


def test_a_broadcast_that_begins_in_the_middle_is_counted_from_its_first_picture(tmp_path):
    data = numbered(tmp_path / "whole.ts", 35, g="10", bf="0").read_bytes()
    (tmp_path / "late.ts").write_bytes(data[len(data) // 188 // 6 * 188 :])
    video, frames = read(tmp_path / "late.ts")
    first = number_shown(frames[0])
    assert 5 <= first <= 10
    assert [(frame.index, number_shown(frame)) for frame in frames] == [(i, first + i) for i in range(35 - first)]
    assert video.facts()["frames_lost"] == 0


def test_a_browser_s_recording_has_the_rate_of_its_frames(tmp_path):
    """WebM of a MediaRecorder: no length, whole milliseconds, and a rate of 1000 frames/s in its header."""
    times = [round(1001 * index / 30) + index % 3 for index in range(30)]
    with av.open(str(tmp_path / "a.webm"), "w", options={"live": "1"}) as file:
        stream = file.add_stream("libvpx", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"deadline": "realtime", "lag-in-frames": "0"}
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with av.open(str(tmp_path / "a.webm")) as file:
        assert file.streams.video[0].average_rate == 1000 and file.duration is None
    video, frames = read(tmp_path / "a.webm")
    assert video.rate == pytest.approx(29 / (times[-1] / 1000), rel=0.01) and video.frames == len(frames) == 30
    np.testing.assert_allclose([frame.time for frame in frames], np.array(times) / 1000, atol=1e-3)


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "2", "b-adapt": "0"}])
@pytest.mark.parametrize(
    ("ending", "codec"),
    [
        *((ending, "libx264") for ending in ("mp4", "mov", "avi", "mkv", "ts", "flv", "h264")),
        *(("avi", "mpeg4"), ("mpg", "mpeg2video"), ("ts", "mpeg2video")),
    ],
)
def test_frames_come_in_order_and_evenly_from_every_container(tmp_path, ending, codec, options):
    if codec != "libx264":
        options = {"bf": options["bf"]}
    video, frames = read(numbered(tmp_path / f"a.{ending}", 30, codec, **options))
    assert [(frame.index, number_shown(frame)) for frame in frames] == [(index, index) for index in range(30)]
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(30) / 25, atol=2e-3)
    assert video.rate == pytest.approx(25) and not video.warnings() and video.facts()["frames_lost"] == 0


def test_references_that_are_not_shown_are_no_frames(tmp_path):
    """VP8 has packets that only others refer to: bit 4 of their first byte is 0 (RFC 6386, 9.1)."""
    file = numbered(tmp_path / "a.webm", 30, "libvpx", g="10", deadline="realtime")
    with av.open(str(file)) as container:
        packets = [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]
    data = bytearray(file.read_bytes())
    data[data.index(packets[14])] &= ~0x10
    file.write_bytes(bytes(data))
    video, frames = read(file)
    assert [number_shown(frame) for frame in frames] == [*range(14), *range(15, 30)]
    assert [frame.index for frame in frames] == list(range(29)) and video.facts()["frames_lost"] == 0


@pytest.mark.parametrize("ending", ["mp4", "avi", "mkv"])
def test_a_file_that_is_cut_off_says_so_after_its_frames(tmp_path, ending):
    whole = numbered(tmp_path / f"whole.{ending}", 35)
    if ending == "mp4":
        whole = remux(whole, tmp_path / "whole2.mp4", movflags="faststart")
    assert len(list(Video(str(whole)))) == 35
    (tmp_path / f"cut.{ending}").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    count = 0
    with pytest.raises(UserError, match=rf"cut\.{ending} is cut off: it ends after \d+ (of 35 )?frames"):
        for frame in Video(str(tmp_path / f"cut.{ending}")):
            assert frame.index == count
            count += 1
    assert 10 < count < 35


# names


@pytest.mark.parametrize("name", ["12:30:05.mp4", "clip %03d [1080p] #2.mp4", "http:clip.mp4", "-i.mp4"])
def test_a_clip_may_have_any_name(tmp_path, monkeypatch, name):
    numbered(tmp_path / "plain.mp4", 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for source in (name, f"./{name}", str(tmp_path / name)):
        assert len(list(Video(source))) == 3


def test_names_that_are_no_text_can_be_written(tmp_path):
    """Bytes of GBK, as from a zip made on a Chinese Windows."""
    stem = os.fsdecode("动作".encode("gbk"))
    numbered(tmp_path / "plain.mp4", 2).rename(tmp_path / f"{stem}.mp4")
    video, frames = read(tmp_path / f"{stem}.mp4")
    for name in (video.name, frames[1].name):
        assert name.encode() and name.startswith("\\udc")
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "a.png").rename(tmp_path / "images" / f"{stem}.png")
    [frame] = Video(str(tmp_path / "images"))
    assert frame.name.encode() and frame.name.endswith(".png")


def test_texts_in_a_file_need_not_be_unicode(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as file:
        file.metadata["title"] = "MARK"
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode())
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(data.replace(b"MARK", "动作".encode("gbk")))
    assert len(list(Video(str(tmp_path / "a.avi")))) == 1


def test_a_playlist_leads_nowhere_else(tmp_path):
    (tmp_path / "clip.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(UserError, match=r"clip\.mp4"):
        list(Video(str(tmp_path / "clip.mp4")))


def test_files_of_a_folder_that_are_not_read_are_named_and_hidden_ones_are_none(tmp_path, caplog):
    for name in ("b.JPG", "a.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    for name in ("c.HEIC", "d.heic", "notes.txt", "._a.png", ".DS_Store"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "e.png").mkdir()
    video = Video(str(tmp_path))
    assert [frame.name for frame in video] == ["a.png", "b.JPG"]
    assert video.facts()["files_not_read"] == {".heic": 2, ".txt": 1}
    assert "files that are not read: 2 .heic, 1 .txt; save them as PNG or JPEG" in caplog.text


# what cannot be read


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
