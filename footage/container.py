"""Video files: their frames, upright, with the times at which they are shown, whatever the file says of itself."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from footage.sources import USUAL_RATE, Undecoded
from footage.timeline import Timeline, begins_with_key, is_shown
from footage.truncation import is_truncated
from utils.errors import UserError
from utils.files import existing, safe_name

_BELIEVED_RATES = (0.01, 240.0)  # frames/s; a browser's recording says 1000
_MOST_PIXELS = 2**26  # of a frame; beyond are the sizes of damaged headers
_GIVE_UP = 10  # errors in a row, after which a file is not read on
_UNEQUAL = 0.01  # by which a measured rate must differ from the announced one to be taken, of it


class VideoFile:
    """The frames of a video file (footage.sources.Source). What is damaged is left out, and counted.

    Raises UserError when the file is missing or holds no video.
    """

    names = None

    def __init__(self, path: Path) -> None:
        self.path = existing(path, "name a video, a folder of images or a camera by --video")
        self.name = safe_name(path.stem)
        self.container, self.stream = _open(path)
        # not by frames: when the last ones are damaged, those that are decoded side by side would be lost with them
        self.stream.thread_type = "SLICE"
        announced = float(self.stream.average_rate or 0)
        self.frames = _indexed(self.container, self.stream)
        if self.frames is None and path.is_file():
            self.frames, measured = _extent(path)
            if measured and abs(measured - announced) > _UNEQUAL * announced:
                announced = measured
        low, high = _BELIEVED_RATES
        self.rate = min(max(announced, low), high) if announced else USUAL_RATE
        self.timeline = Timeline(self.stream, self.rate)
        self.errors = self.damaged = 0
        self.gave_up = False

    def __iter__(self) -> Iterator[Undecoded]:
        """Raises UserError after the last frame where the file is cut off or cannot be read to its end."""
        seconds, timeline = 0.0, self.timeline
        for frame in self._decoded():
            if (place := timeline.place(frame)) is None:
                continue
            index, seconds = place
            self.damaged += frame.is_corrupt
            name = f"{self.name}_{index:06d}"
            yield Undecoded(index, seconds, name, partial(_upright, frame, f"{self.path}: {name}"))
        timeline.finish()
        self.frames = timeline.count
        if timeline.count == timeline.lost:
            raise UserError(f"{self.path} holds no frame that can be decoded; it may be cut off")
        if timeline.count < (self.stream.frames or np.inf) and is_truncated(self.path):
            whole = f" of {self.stream.frames}" if self.stream.frames else ""
            raise UserError(f"{self.path} is cut off: it ends after {timeline.count}{whole} frames")
        if self.gave_up:
            raise UserError(f"{self.path} is damaged after frame {timeline.count}, {seconds:.1f} s, and ends there")

    def _decoded(self) -> Iterator[av.VideoFrame]:
        failures, packets = 0, self.container.demux(self.stream)
        while failures < _GIVE_UP:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                failures += 1
                self._note_damage(None)
                packets = self.container.demux(self.stream)
                continue
            if packet is None:
                break
            failures = 0
            self.timeline.expect(packet)
            yield from self._decode(packet)
        self.gave_up = failures == _GIVE_UP

    def _decode(self, packet: Packet) -> Iterator[av.VideoFrame]:
        is_last = packet.dts is None and not packet.size  # it asks for what the decoder keeps back
        for _ in range(_GIVE_UP if is_last else 1):
            try:
                yield from packet.decode()
                return
            except EOFError:
                return
            except av.FFmpegError:
                self._note_damage(packet)

    def _note_damage(self, packet: Packet | None) -> None:
        self.errors += 1
        self.timeline.damage(packet)

    def facts(self) -> dict[str, object]:
        """What was not as it should be up to now."""
        return {
            "frames_lost": self.timeline.lost,
            "frames_damaged": self.damaged,
            "times_joined": self.timeline.joins,
        }

    def warnings(self) -> list[str]:
        """The same in words."""
        lines = []
        if self.timeline.lost:
            lines.append(
                f"{self.path}: damaged frames that are left out: {self.timeline.lost}; the others keep their numbers"
            )
        elif self.errors:
            lines.append(f"{self.path}: places that are damaged: {self.errors}")
        if self.damaged:
            lines.append(f"{self.path}: frames that show damage: {self.damaged}")
        if self.timeline.joins:
            lines.append(
                f"{self.path}: places where time goes back, as in joined files: {self.timeline.joins}; "
                "it goes on by a frame there"
            )
        return lines


def _open(path: Path) -> tuple[InputContainer, VideoStream]:
    """A video file and its video; UserError when there is none."""
    # absolute, since what stands before a colon would be taken for a protocol; and no playlist may lead elsewhere
    name = str(path.absolute())
    source = name if name.isascii() or safe_name(name) == name else path.open("rb")
    try:
        container = av.open(source, options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{path} is no readable video ({error}); it may be empty or cut off") from error
    # the cover of a piece of music is a video stream, too
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        others = sorted({stream.type for stream in container.streams} - {"video"})
        raise UserError(f"{path} holds no video, only {' and '.join(others) or 'images'}")
    if streams[0].codec_context is None:
        raise UserError(f"{path} holds video of a kind that cannot be decoded; save it as MP4 (H.264)")
    streams[0].codec_context.options = {"max_pixels": str(_MOST_PIXELS)}
    return container, streams[0]


class _Extent(NamedTuple):
    """How many frames there are, and how many a second; None where it is not known."""

    frames: int
    rate: float | None


def _extent(path: Path) -> _Extent:
    """The frames that a file really has, by going through its packets."""
    container, stream = _open(path)
    frames, steps, seconds, before, has_key = 0, 0, 0.0, None, begins_with_key(stream)
    with container:
        try:
            for packet in container.demux(stream):
                has_key |= packet.is_keyframe
                if not (has_key and is_shown(packet, stream.codec_context.name)):
                    continue
                frames += 1
                if packet.dts is not None:
                    if before is not None and packet.dts > before:  # and not another recording, which follows
                        steps, seconds = steps + 1, seconds + float((packet.dts - before) * stream.time_base)
                    before = packet.dts
        except av.FFmpegError:
            pass  # what is damaged is told when it is decoded
    return _Extent(frames, steps / seconds if seconds else None)


def _indexed(container: InputContainer, stream: VideoStream) -> int | None:
    """The number of frames in the index of a file, None if it has none of the whole; headers count hidden ones, too."""
    entries = stream.index_entries
    if not container.format.name.startswith(("mov", "avi")) or not 0 < min(stream.frames, 2) <= len(entries):
        return None
    return sum(bool(entry.size) and not entry.is_discard for entry in entries)


def _upright(frame: av.VideoFrame, name: str) -> np.ndarray:
    """Decode a frame and turn it as its metadata say -> (H,W,3) uint8 RGB."""
    try:
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
    except (av.FFmpegError, ValueError, MemoryError) as error:
        raise UserError(f"{name} cannot be decoded ({error})") from error
