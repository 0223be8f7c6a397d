"""Numbers and times of decoded frames, by the time stamps of the packets that they come from."""

from collections import deque
from heapq import heappop, heappush

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_LONGEST_PAUSE = 10.0  # s between two frames of a broadcast; after more of it, another recording follows
_UNEVEN = 0.2  # by which the steps of a constant rate may differ, of a step
_TICK = 0.0011  # s, to which some containers round
_SHORTEST_STEP = 0.001  # s between two frames, so that times only grow
_BEGINS_WITH_KEY = ("mov", "matroska", "avi", "flv")  # containers whose first frame can be decoded
_FIRST_FRAMES = 8  # in which it shows whether frames come in the order of their stamps
_NOT_CODED = 10  # bytes at most of a packet of MPEG-4 that says: the last frame once more


class Timeline:
    """Says of each decoded frame which one of the clip it is, and when it is shown.

    Decoders give frames in the order in which they are shown. One that is damaged is missing there, mostly without an
    error; it counts all the same, so that all after it keep their numbers. Where time goes back, as in files that were
    joined, it goes on by a frame.

    Args:
        stream: of the frames
        rate: frames/s, where there are no times

    Attributes:
        count: frames up to now, seen or lost
        lost: those of them that were not seen
        joins: places where time went back
    """

    def __init__(self, stream: VideoStream, rate: float) -> None:
        self.codec, self.is_broadcast = stream.codec_context, stream.container.format.name == "mpegts"
        # AVI only says when packets are decoded, and some files of others are no better
        self.is_avi = stream.container.format.name == "avi"
        self.is_unordered = self.is_avi and bool(self.codec.has_b_frames)
        self.unit, self.period = float(stream.time_base or 0), 1 / rate
        # of the packets whose frames are not seen yet: a heap of time and stamp, and the times of each stamp
        self.expected: list[tuple[float, int]] = []
        self.times: dict[int, deque[float]] = {}
        self.begins_with_key = begins_with_key(stream)
        self.start: float | None = None  # s, time of the first key frame
        self.decoded: float | None = None  # s, when the last packet is decoded
        self.shift = 0.0  # s, of the recording at hand against the first one
        self.is_damaged = False
        self.due: dict[int, int] = {}  # stamps of packets that failed -> how many frames come before theirs
        self.count = self.lost = self.joins = 0
        self.first, self.last = 0.0, None  # s, times of frames
        self.step: float | None = None  # s between frames; 0: it is not constant

    def expect(self, packet: Packet) -> None:
        """Take note of a packet before it is decoded."""
        self.is_damaged |= packet.is_corrupt
        if packet.dts is not None:
            self._join(packet.dts * self.unit)
        if packet.pts is None:
            return
        stamp = packet.dts if self.is_avi and packet.dts is not None else packet.pts
        time = stamp * self.unit + self.shift
        if self.start is None and (packet.is_keyframe or self.begins_with_key):
            self.start = time
        # what is shown before the first key frame cannot be decoded, and no program counts it
        if self.start is not None and time >= self.start and is_shown(packet, self.codec.name):
            heappush(self.expected, (time, packet.pts))
            self.times.setdefault(packet.pts, deque()).append(time)

    def _join(self, decoded: float) -> None:
        """Go on by a frame where time goes back, or on a broadcast far ahead."""
        step = 0.0 if self.decoded is None else decoded - self.decoded
        if step < 0 or (self.is_broadcast and step > _LONGEST_PAUSE):
            self.shift += self.period - step
            self.joins += 1
        self.decoded = decoded

    def damage(self, packet: Packet | None) -> None:
        """Take note of a packet that could not be decoded, or not even be read."""
        self.is_damaged = True
        if self.is_unordered and packet is not None and packet.pts in self.times:
            self.due[packet.pts] = self.codec.reorder_depth

    def place(self, frame: VideoFrame) -> tuple[int, float] | None:
        """The next frame -> its number, from 0, and its time in s from the first one; None if its place has passed."""
        if not self.is_unordered and self._is_late(frame):
            if self.is_damaged or self.count > _FIRST_FRAMES:
                return None  # what lacks frames that it refers to may come late, or twice
            self.is_unordered = True
        time, passed = self._next(frame) if self.is_unordered else self._match(frame)
        if self.last is None:
            time = time or 0.0
            self._lose(passed)
            self.first = time - self.count * self.period
        else:
            time = self.last + max(self.period if time is None else time - self.last, _SHORTEST_STEP)
            self._lose(max(passed, self._vanished(time - self.last)))
        self.last = time
        self.count += 1
        self.is_damaged &= not frame.key_frame
        return self.count - 1, time - self.first

    def _is_late(self, frame: VideoFrame) -> bool:
        """Whether a frame is of no packet that it could still be of."""
        if self.start is None or self.last is None or frame.pts is None or frame.pts in self.times:
            return False
        return self.is_damaged or frame.pts * self.unit + self.shift < self.last

    def finish(self) -> None:
        """Count what is lost at the end."""
        self._lose(len(self.expected))
        self.expected, self.times = [], {}

    def _match(self, frame: VideoFrame) -> tuple[float | None, int]:
        """The time of a frame, None if no packet says it, and how many frames were expected before it."""
        if frame.pts not in self.times:
            return None, 0
        passed = self._pass(self.times[frame.pts][0])
        return self._take_first(), passed

    def _next(self, frame: VideoFrame) -> tuple[float | None, int]:
        """The same as `_match` by the order alone."""
        passed = 0
        if frame.key_frame and frame.pts in self.times:  # what is decoded before one is shown before it
            passed = self._pass(self.times[frame.pts][0])
        self.due.pop(frame.pts, None)  # it could be decoded, in part
        self.due = {stamp: frames - 1 for stamp, frames in self.due.items()}
        for stamp in [stamp for stamp, frames in self.due.items() if frames < 0]:
            del self.due[stamp]
            if self.expected:
                self._take_first()
                passed += 1
        return (self._take_first() if self.expected else None), passed

    def _pass(self, time: float) -> int:
        """Expect nothing before a time any more -> how many frames that were."""
        passed = 0
        while self.expected[0][0] < time:
            self.due.pop(self.expected[0][1], None)
            self._take_first()
            passed += 1
        return passed

    def _take_first(self) -> float:
        """The earliest of the expected times, which is expected no more."""
        time, stamp = heappop(self.expected)
        self.times[stamp].popleft()
        if not self.times[stamp]:
            del self.times[stamp]
        return time

    def _vanished(self, step: float) -> int:
        """How many frames after damage had no packet, by the time between two frames, where it is constant else."""
        if self.is_damaged:
            return round(step / self.step) - 1 if self.step else 0
        if self.step is None:
            self.step = step
        elif abs(step - self.step) > _UNEVEN * self.step + _TICK:
            self.step = 0.0
        return 0

    def _lose(self, frames: int) -> None:
        self.count += frames
        self.lost += frames


def begins_with_key(stream: VideoStream) -> bool:
    """Whether a stream can be decoded from its first frame on, and not from the first key frame."""
    return stream.container.format.name.startswith(_BEGINS_WITH_KEY)


def is_shown(packet: Packet, codec: str) -> bool:
    """Whether a packet holds a frame that is shown when its time comes."""
    if not packet.size or packet.is_discard:
        return False
    if codec == "vp8":  # frames that others refer to need not be shown (RFC 6386, 9.1)
        return bool(bytes(packet)[0] & 0x10)
    return codec != "mpeg4" or packet.size > _NOT_CODED
