"""A camera that does not wait: its newest frames, their numbers and times, and how old they are when they are shown."""

import csv
import json
import threading
import time
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
import toys
from test_footage import footage_results
from videos import Script, blank_frames, figure

import boa
from footage.left_right import as_it_is
from footage.live import OLDEST, Live
from footage.people import NOBODY, Footage, bridge, follow
from footage.sources import Camera, Undecoded
from footage.tracking import Tracker
from footage.video import Video
from models.prior import PosePrior
from utils.evaluation import FootageScorer
from utils.renderer import VideoWriter
from utils.results import recorded

RATE = 30.0


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Grabber:
    """cv2.VideoCapture, which gives so many images as a test lets it, each as red as its number."""

    def __init__(self, number: int) -> None:
        self.allowed, self.waits, self.given, self.is_open = threading.Semaphore(0), threading.Semaphore(0), 0, True
        self.is_at_end = False

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return RATE

    def read(self):
        self.waits.release()
        self.allowed.acquire()
        self.given += 1
        return not self.is_at_end, np.full((8, 8, 3), (0, 0, self.given - 1), np.uint8)

    def release(self) -> None:
        self.is_open = False

    def give(self, count: int) -> None:
        """Give so many images, and wait until they are taken in."""
        for _ in range(count):
            self.waits.acquire()
            self.allowed.release()
        self.waits.acquire()
        self.waits.release()


class Webcam(Grabber):
    """One that gives images in time."""

    def read(self):
        self.started = getattr(self, "started", time.monotonic())
        self.given += 1
        due = self.started + self.given / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        return True, np.zeros((180, 240, 3), np.uint8)


class Standing:
    """A detector that sees somebody who stands there."""

    def detect_all(self, frame):
        return figure(120, 90, 60)[None]

    def detect_near(self, frame, box):
        yield self.detect_all(frame)

    def facts(self):
        return {}

    def warnings(self):
        return []


class Slow(toys.TinyRegressor):
    """A network that takes 0.15 s."""

    def forward(self, *given):
        time.sleep(0.15)
        return super().forward(*given)


@pytest.fixture
def grabber(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Grabber)


def test_a_camera_gives_its_newest_frame_with_number_and_time_of_when_it_came(grabber):
    clock = Clock()
    camera = Camera(0, clock)
    camera.capture.give(2)  # while the program still starts
    clock.now += 5
    frames, taken = iter(camera), []
    for count, seconds in ((1, 0.1), (3, 0.2), (1, 0.3)):
        clock.now = 105 + seconds
        camera.capture.give(count)
        taken.append(next(frames))
    assert [frame.index for frame in taken] == [0, 3, 4]
    assert [frame.time for frame in taken] == pytest.approx([0.1, 0.2, 0.3])
    assert [frame.name for frame in taken] == ["camera0_000000", "camera0_000003", "camera0_000004"]
    # the two from before are forgotten
    assert [frame.decode()[0, 0].tolist() for frame in taken] == [[2, 0, 0], [5, 0, 0], [6, 0, 0]]
    clock.now += 0.25
    assert camera.age(taken[-1].time) == pytest.approx(0.25)


def test_a_camera_that_ends_gives_its_last_frame_and_is_given_back(grabber, caplog):
    camera = Camera(3)
    frames = iter(camera)
    camera.capture.give(1)
    camera.capture.is_at_end = True
    camera.capture.allowed.release()
    assert [frame.index for frame in frames] == [0]
    assert not camera.capture.is_open
    assert "camera 3 gives no more images" in caplog.text


def test_a_camera_that_gives_nothing_is_given_up(grabber, monkeypatch):
    monkeypatch.setattr("footage.sources._PATIENCE", 0.05)
    assert not list(Camera(0))


class Given(list):
    """Frames as a camera gives them."""

    frames = None


@pytest.mark.parametrize(("stride", "indices", "dropped"), [(1, [0, 3, 4], [0, 2, 0]), (2, [0, 4], [0, 1])])
def test_the_frames_that_are_left_out_are_told_of_those_that_were_wanted(grabber, stride, indices, dropped):
    video = Video("0", stride=stride)
    assert video.is_camera and video.frames is None and video.name == "camera0"
    video.reader = Given(Undecoded(index, index / RATE, "", lambda: np.zeros((8, 8, 3))) for index in (0, 3, 4))
    frames = list(video)
    assert [frame.index for frame in frames] == indices
    assert [frame.dropped for frame in frames] == dropped


def test_a_dropped_frame_is_to_tracking_one_in_which_nobody_is_seen(monkeypatch):
    """So that velocities stay those of the camera's frames."""
    people = [figure(100 + 8 * index) for index in range(12)]
    taken = [0, 1, 2, 3, 6, 7, 11]
    frames = [blank_frames(12)[index]._replace(dropped=index - before - 1) for before, index in pairwise([-1, *taken])]
    trackers = []
    monkeypatch.setattr("footage.people.Tracker", lambda: trackers.append(Tracker()) or trackers[0])
    followed = list(follow(frames, Script([[person] for person in people]), 0, np.zeros(49), start_frames=1))
    assert all(person is not None for _, person in followed)
    np.testing.assert_allclose(trackers[0].tracks[1].velocity, [8, 0], atol=1)

    told = []

    def straighten(person):
        told.append(person.any())
        return as_it_is(person)

    list(bridge(followed, straighten))
    assert told == [index in taken for index in range(12)]


def test_what_is_live_is_not_held_back_for_who_may_come_back():
    seen = [figure(100), NOBODY, figure(100)]
    frames, given = zip(blank_frames(3), [seen[0], None, seen[2]], strict=True), []

    def watched():
        for frame, person in frames:
            given.append(frame.index)
            yield frame, person

    for followed in bridge(watched(), longest=0):
        assert given == list(range(followed.frame.index + 1))
        assert (followed.person is None) == (followed.frame.index == 1)


class Stamped:
    """Frames that are taken when they are asked for."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.count = clock, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.count += 1
        return {"index": self.count - 1, "time": self.clock()}


@pytest.mark.parametrize(
    ("work", "indices", "age"),
    [
        (0.1, [0, 1, 2, 3, 4], 0.2),  # each is prepared while the one before is worked on
        (0.3, [0, 2, 4, 6, 8], 0.3),  # would be 0.6, so that the one that waited is left out
        (0.6, [0, 2, 4, 6, 8], 0.6),  # nothing helps
    ],
)
def test_a_frame_that_waited_too_long_is_left_out_for_a_newer_one(work, indices, age):
    clock = Clock()
    stamped, live = Stamped(clock), Live(lambda seconds: clock() - seconds, clock=clock)
    found, ages = [], []
    for frame in live.frames(stamped):
        while stamped.count < frame["index"] + 2:  # the next one is prepared by a thread
            time.sleep(0.001)
        clock.now += work
        found.append(frame["index"])
        ages.append(live.age(frame["time"]))
        if len(found) == 5:
            break
    assert found == indices
    assert max(ages) == pytest.approx(age)
    assert live.dropped == indices[-1] - 4


def test_the_window_shows_no_frame_that_is_older_than_half_a_second():
    clock, shown = Clock(), []

    class Window:
        def show(self, rgb):
            shown.append(rgb)
            clock.now += 0.05

    live = Live(lambda seconds: clock() - 100 - seconds, clock=clock)
    live.window = Window()
    for number, (now, seconds) in enumerate([(100.2, 0.1), (100.5, 0.2), (100.9, 0.42), (101.0, 0.3), (101.1, 1.0)]):
        clock.now = now
        live.show(number, seconds)
    assert shown == [0, 1, 4]  # the third would be by the time it is there
    assert live.facts() == {
        "frames_dropped": 0,
        "frames_too_late": 2,
        "age_median_s": pytest.approx(0.15),
        "age_largest_s": pytest.approx(0.35),
    }
    assert live.warnings() == ["frames that were not shown, as they were older than 0.5 s by then: 2"]


def test_a_video_shows_its_frames_at_their_numbers(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", 10, numbered=True)  # a segment has ten frames
    numbers = np.cumsum([0, 1, 3, 1, 4, 3, 13, 1, 14, 1, 9, 1, 1, 2, 1, 30, 1, 1, 1, 7, 5, 1, 1]).tolist()
    for count, number in enumerate(numbers):
        writer.add(np.full((64, 64, 3), 10 * count, np.uint8), number)
    writer.close()
    with av.open(str(tmp_path / "a.mp4")) as video:
        frames = [(round(frame.time * 10), frame.to_ndarray(format="rgb24").mean()) for frame in video.decode(video=0)]
    assert [number for number, _ in frames] == numbers
    np.testing.assert_allclose([grey for _, grey in frames], 10 * np.arange(len(numbers)), atol=4)


def test_a_slow_network_drops_frames_of_a_camera_and_says_so(monkeypatch, free_body, world, tmp_path, caplog):
    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    monkeypatch.setattr("footage.people.open_detector", lambda *_: Standing())
    footage = Footage(Video("0", max_frames=10), "mediapipe")
    results = footage_results(tmp_path, free_body, 10, live=footage.live)
    results.footage = footage
    model = Slow().eval()
    options = boa.Options(method="frozen")
    learner = boa.make_learner(model, free_body, PosePrior(world.stream.assets.gmm), options, slice(None), adapts=False)
    with recorded(results):
        boa.run_stream(iter(footage), None, learner, FootageScorer(None), results)
    summary = json.loads((tmp_path / "summary.json").read_text())
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    numbers, times = [int(row["index"]) for row in rows], np.array([float(row["time_s"]) for row in rows])
    assert summary["frames_dropped"] == numbers[-1] - numbers[0] + 1 - len(rows) > 10
    assert f"left out for newer ones: {summary['frames_dropped']}" in caplog.text
    # a busy machine may take an image late
    assert times[-1] - times[0] == pytest.approx((numbers[-1] - numbers[0]) / RATE, abs=0.5)
    assert 0.15 < summary["age_median_s"] <= summary["age_largest_s"] < OLDEST + 0.1
    with av.open(str(tmp_path / "overlay.mp4")) as video:
        shown = [frame.time for frame in video.decode(video=0)]
    assert shown[-1] - shown[0] == pytest.approx(times[-1] - times[0], abs=0.11)  # it has 10 frames/s
    with np.load(tmp_path / "predictions.npz") as file:
        assert file["index"].tolist() == numbers
