"""A rendered clip with its joints as files of two detectors, clips of grey frames, figures of joints."""

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from places import DEMO

from footage.detector import to_joints49
from footage.people import Footage
from footage.sources import VideoFrame
from footage.video import Video
from synthetic import stream as synthetic
from utils.errors import UserError
from utils.joints import BODY25, COCO17, JOINTS49, rows
from utils.renderer import write_video

FRAMES = 8
OPENPOSE_NAMES = list(BODY25)


class Clip:
    """A folder with a clip, its pictures, and its joints (F,49,3) px, of which only COCO's are confident."""

    def __init__(self, folder: Path, joints: np.ndarray) -> None:
        self.folder, self.joints = folder, joints
        self.file, self.pictures = folder / "walk.mp4", folder / "pictures"

    def openpose(self, frames: list[list[np.ndarray]] | None = None, name: str = "walk_{:012d}_keypoints.json") -> Path:
        target = self.folder / "openpose"
        target.mkdir(exist_ok=True)
        for frame, people in enumerate(frames or [[person] for person in self.joints]):
            rows25 = [{"pose_keypoints_2d": person[:25].ravel().tolist()} for person in people]
            (target / name.format(frame)).write_text(json.dumps({"version": 1.3, "people": rows25}))
        return target

    def alphapose(self, table: list[str], name: str = "{}.jpg") -> Path:
        entries = []
        for frame, person in enumerate(self.joints):
            joints = np.zeros((len(table), 3))
            known = [row for row, joint in enumerate(table) if joint]
            joints[known] = person[rows([table[row] for row in known], JOINTS49)]
            entry = {"image_id": name.format(frame), "keypoints": joints.ravel().tolist(), "score": 2.9, "idx": [1]}
            entries.append({**entry, "category_id": 1, "box": [0, 0, 10, 10]})
        file = self.folder / f"alphapose{len(table)}.json"
        file.write_text(json.dumps(entries))
        return file


def make_clip(folder: Path) -> Clip:
    """A rendered walk as a clip, as pictures and as joints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SEQUENCES", 1)
        synthetic.write_stream(folder / "street", DEMO, "test", frames=FRAMES)
    with np.load(next((folder / "street/3dpw_vid").glob("*.npz"))) as labels:
        joints = labels["smpl_j2d"].astype(float)
        names = labels["imgname"]
    joints[:, [row for row, name in enumerate(JOINTS49) if name not in COCO17]] = 0
    joints[..., 2] *= np.linspace(0.5, 1, 49)
    pictures = folder / "pictures"
    pictures.mkdir()
    images = [cv2.imread(str(folder / "street" / name)) for name in names]
    for frame, image in enumerate(images):
        cv2.imwrite(str(pictures / f"{frame}.png"), image)
    write_video(folder / "walk.mp4", (image[..., ::-1] for image in images), rate=30, quality=1)
    return Clip(folder, joints)


def encode(
    path: Path,
    times: list[int],
    rotation: int = 0,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    codec_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A clip whose frame i is of grey 20 * i, but for a white upper left corner, shown at `times` in 1/100 s.

    `options` are the container's.
    """
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=100)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        stream.options = codec_options or ({"crf": "1"} if codec == "libx264" else {})
        if rotation:
            stream.set_display_rotation(rotation)
        for index, time in enumerate(times):
            pixels = np.full((size[1], size[0], 3), 20 * index % 200, np.uint8)
            pixels[: size[1] // 4, : size[0] // 4] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbered(path: Path, count: int, codec: str = "libx264", container: str = "", **codec_options: str) -> Path:
    """A clip at 25 frames/s whose frame i is of grey 20 + 6 * i below noise, which keeps the encoder busy."""
    with av.open(str(path), "w", format=container or None) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options, stream.bit_rate = codec_options, 4_000_000
        for index in range(count):
            pixels = np.full((48, 64, 3), 20 + 6 * index, np.uint8)
            pixels[:24] = np.random.default_rng(index).integers(0, 255, (24, 64, 3))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path


def number_shown(frame: VideoFrame) -> int:
    """Which frame of a `numbered` clip an image is, by its grey."""
    return round((float(frame.rgb[34:].mean()) - 20) / 6)


def remux(source: Path, target: Path, shift: float = 0.0, **options: str) -> Path:
    """Copy the packets of a clip into another container, `shift` s later, without encoding them again."""
    with av.open(str(source)) as file, av.open(str(target), "w", options=options) as copy:
        stream = file.streams.video[0]
        out, ticks = copy.add_stream_from_template(stream), round(shift / stream.time_base)
        for packet in file.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, out
                copy.mux(packet)
    return target


def damage_packet(path: Path, number: int) -> None:
    """Overwrite a packet of a clip, but for the header that some containers put before it."""
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(file.streams.video[0]) if packet.size]
    data, (position, size) = bytearray(path.read_bytes()), packets[number]
    data[position + 10 : position + size] = np.random.default_rng(0).bytes(size - 10)
    path.write_bytes(bytes(data))


def figure(x: float, y: float = 200.0, size: float = 100.0, phase: float = 0.0) -> np.ndarray:
    """A person (49,3) of OpenPose's joints at a place, with the legs of a walk."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (25, 2)) * [0.4, 1.0] * size
    points[10:15] += np.sin(phase) * 0.1 * size
    joints = np.concatenate([points + [x, y], np.full((25, 1), 0.9)], axis=1)
    return to_joints49(joints[None], OPENPOSE_NAMES)[0]


class Script:
    """A detector that reads out what a test wrote for each frame."""

    def __init__(self, frames: list[list[np.ndarray]]) -> None:
        self.frames = frames

    def detect_all(self, frame):
        return np.array(self.frames[frame.index]).reshape(-1, 49, 3)

    def detect_near(self, frame, box):
        yield self.detect_all(frame)


def blank_frames(count: int) -> list[VideoFrame]:
    return [VideoFrame(index, index / 25, str(index), np.zeros((400, 500, 3), np.uint8)) for index in range(count)]


def stream_of(clip: Clip, keypoints: Path, source: Path | None = None) -> list[dict]:
    return list(Footage(Video(str(source or clip.file)), str(keypoints)))


def complaint(source: Path, keypoints: Path | str, taken: int = 0, **options) -> str:
    """The error of a stream, after `taken` frames."""
    frames = []
    with pytest.raises(UserError) as caught:
        for frame in Footage(Video(str(source), **options), str(keypoints)):
            frames.append(frame)
    message = str(caught.value)
    assert "\n" not in message
    assert len(frames) >= taken
    return message
