"""Footage: what is decoded, which joints of a detector go where, who is followed, and one line for what is wrong."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import conftest
import cv2
import numpy as np
import pytest
import torch
import toys

import boa
import streams
from datasets.base import batches
from footage import video
from footage.keypoints import open_keypoints, to_joints49
from footage.tracking import SteadyBox, Tracker, box_of, overlap
from footage.video import Footage, Picture, Video, bridge, follow, list_people
from models.prediction import Prediction
from models.prior import PosePrior
from synthetic import stream as synthetic
from synthetic.camera import FRAME_SIZE
from utils import losses
from utils.errors import UserError
from utils.evaluation import FootageScorer
from utils.image import BOX_UNIT, Crop
from utils.joints import BODY25, COCO17, HALPE26, JOINTS49, MEDIAPIPE33, SPIN, rows
from utils.renderer import write_video

REAL = conftest.PROJECT.parent / "shared" / "data"
FRAMES = 8
OPENPOSE_NAMES = list(BODY25)


# a rendered clip of one person, and the same joints as files of two detectors


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


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    folder = tmp_path_factory.mktemp("clip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SEQUENCES", 1)
        synthetic.write_stream(folder / "street", conftest.PROJECT / "data" / "demo", "test", frames=FRAMES)
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


def encode(path: Path, times: list[int], rotation: int = 0, size: tuple[int, int] = (64, 48), **options: str) -> Path:
    """A clip whose frame i is of grey 20 * i, but for a white upper left corner, shown at `times` in 1/100 s."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=100)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        stream.options = {"crf": "1"}
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


# decoding


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
    monkeypatch.setattr(video.cv2, "VideoCapture", lambda number: opened)
    camera = Video("0")
    assert camera.is_camera and camera.frames is None and camera.name == "camera0"
    reference = next(iter(Video(str(clip.pictures)))).rgb
    assert np.abs(next(iter(camera)).rgb.astype(int) - reference).mean() < 4


# joints


def test_each_joint_goes_to_every_row_that_means_it_and_to_no_other():
    points = np.arange(1, 26)[:, None] * np.array([[1.0, 10.0, 0.04]])
    person = to_joints49(points[None], OPENPOSE_NAMES)[0]
    np.testing.assert_array_equal(person[:25], points)
    assert person[JOINTS49.index("Right Knee"), 0] == person[JOINTS49.index("OP RKnee"), 0] == 11
    assert person[JOINTS49.index("Left Ear"), 0] == person[JOINTS49.index("OP LEar"), 0] == 19
    for name in ("Neck (LSP)", "Pelvis (MPII)", "Thorax (MPII)", "Right Hip", "Top of Head (LSP)"):
        assert not person[JOINTS49.index(name)].any()


@pytest.mark.parametrize("table", [COCO17, HALPE26, MEDIAPIPE33])
def test_tables_name_left_and_right_in_pairs(table):
    known = [name for name in table if name]
    assert len(set(known)) == len(known) and set(known) <= set(JOINTS49)
    assert {name.replace("OP L", "OP R") for name in known if "OP L" in name} == {n for n in known if "OP R" in n}


def test_mediapipe_s_own_names_agree_with_the_table():
    pose = pytest.importorskip("mediapipe.python.solutions.pose")
    for landmark, name in zip(pose.PoseLandmark, MEDIAPIPE33, strict=True):
        side, _, part = landmark.name.partition("_")
        part = "BIGTOE" if part == "FOOT_INDEX" else part
        expected = landmark.name if side == "NOSE" else side[0] + part
        assert not name or name.removeprefix("OP ").upper() == expected


def test_the_middles_of_openpose_are_left_out_since_the_body_has_them_elsewhere():
    file = REAL / "im1010_openpose.json"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    numbers = np.reshape(json.loads(file.read_text())["people"][0]["pose_keypoints_2d"], (25, 3))
    by_name = dict(zip(OPENPOSE_NAMES, numbers, strict=True))
    middle = (by_name["OP RShoulder"] + by_name["OP LShoulder"])[:2] / 2
    assert np.abs(by_name["OP Neck"][:2] - middle).max() < 1  # px: it says nothing that the shoulders do not
    person = open_keypoints(str(file), numbered=False).everyone(0, "im1010.jpg", None)[0]
    others = [row for row, name in enumerate(OPENPOSE_NAMES) if name not in ("OP Neck", "OP MidHip")]
    np.testing.assert_allclose(person[others], numbers[others])
    assert not person[rows(["OP Neck", "OP MidHip"], JOINTS49)].any()


def test_points_are_where_the_crop_shows_them():
    """A white pixel of the image is found in the crop where `exact_points` says."""
    for center, scale in (([100.3, 81.7], 0.8), ([20.0, 30.6], 1.31), ([100.0, 80.0], 1.12)):
        image = np.zeros((160, 200, 3), np.uint8)
        x, y = 37, 61
        image[y, x] = 255
        crop = Crop(np.array(center), scale)
        cut = crop.image(image)[..., 0]
        weights = cut / cut.sum()
        where = [(weights.sum(axis=axis) * (np.arange(224) + 0.5)).sum() for axis in (0, 1)]
        expected = (crop.exact_points(np.array([[x, y, 1.0]]))[0, :2] + 1) * 112
        np.testing.assert_allclose(where, expected, atol=0.35)


def stream_of(clip: Clip, keypoints: Path, source: Path | None = None) -> list[dict]:
    return list(Footage(Video(str(source or clip.file)), str(keypoints)))


def test_openpose_and_alphapose_files_of_the_same_joints_give_the_same_frames(clip):
    ways = [clip.openpose(), clip.alphapose(COCO17), clip.alphapose(HALPE26)]
    reference, *others = [stream_of(clip, way) for way in ways]
    assert len(reference) == FRAMES
    expected = to_joints49(clip.joints[:, rows(COCO17, JOINTS49)], COCO17)
    np.testing.assert_allclose([frame["keypoints_px"][0] for frame in reference], expected, rtol=1e-6)
    for other in others:
        for frame, same in zip(reference, other, strict=True):
            for key in ("image", "keypoints_2d", "keypoints_px", "center", "scale", "bridged", "time"):
                torch.testing.assert_close(frame[key], same[key], rtol=0, atol=1e-6)


def test_pictures_find_their_joints_by_name_and_a_clip_by_number_from_0_or_1(clip, tmp_path):
    reference = stream_of(clip, clip.alphapose(COCO17, "{}.png"), clip.pictures)
    assert len(reference) == FRAMES
    own = Clip(tmp_path, clip.joints)
    own.file = clip.file
    for name in ("walk_{:03d}.jpg", "x{}"):
        for first in (0, 1):
            own.joints = np.concatenate([clip.joints[:first], clip.joints])
            entries = json.loads(own.alphapose(COCO17, name).read_text())[first:]
            (tmp_path / "shifted.json").write_text(json.dumps(entries))
            for frame, same in zip(reference, stream_of(own, tmp_path / "shifted.json"), strict=True):
                torch.testing.assert_close(frame["keypoints_px"], same["keypoints_px"])


def test_a_frame_is_what_a_data_set_gives_and_more(clip):
    frame = stream_of(clip, clip.openpose())[3]
    shapes = {name: tuple(value.shape) for name, value in frame.items() if isinstance(value, torch.Tensor)}
    height, width = FRAME_SIZE
    assert shapes == {
        "image": (1, 3, 224, 224),
        "keypoints_2d": (1, 49, 3),
        "keypoints_px": (1, 49, 3),
        "center": (1, 2),
        "scale": (1,),
        "person": (1,),
        "index": (1,),
        "time": (1,),
        "rgb": (1, height, width, 3),
        "bridged": (1,),
    }
    assert frame["imgname"] == ["walk_000003"] and frame["sequence"] == ["walk"] and frame["index"].item() == 3
    seen = frame["keypoints_2d"][0, :, 2] > 0
    assert frame["keypoints_2d"][0, seen, :2].abs().max() < 1
    # the way back: the center is measured from the edge of the image, keypoints from the middle of the first pixel
    back = frame["center"] + frame["keypoints_2d"][0, :, :2] * frame["scale"] * BOX_UNIT / 2 - 0.5
    torch.testing.assert_close(back[seen].float(), frame["keypoints_px"][0, seen, :2], atol=0.6, rtol=0)


# who is who


def figure(x: float, y: float = 200.0, size: float = 100.0, phase: float = 0.0) -> np.ndarray:
    """A person (49,3) of OpenPose's joints at a place, with the legs of a walk."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (25, 2)) * [0.4, 1.0] * size
    points[10:15] += np.sin(phase) * 0.1 * size
    joints = np.concatenate([points + [x, y], np.full((25, 1), 0.9)], axis=1)
    return to_joints49(joints[None], OPENPOSE_NAMES)[0]


def test_people_who_cross_keep_their_numbers_whatever_their_order():
    rng, tracker = np.random.default_rng(1), Tracker()
    for frame in range(60):
        people = [figure(100 + 5 * frame, phase=frame / 3), figure(400 - 5 * frame, 212, 104, frame / 3 + 2)]
        if 27 <= frame <= 32:  # the second is hidden while they pass
            people.pop()
        order = rng.permutation(len(people)) if frame else range(len(people))
        numbers = tracker.update(np.stack([people[row] for row in order]))
        assert dict(zip(order, numbers, strict=True)) == {row: row + 1 for row in range(len(people))}, frame
    assert tracker.count == 2


def test_somebody_of_another_size_or_place_is_somebody_else():
    tracker = Tracker()
    assert tracker.update(figure(200)[None]) == [1]
    assert tracker.update(figure(300)[None]) == [2]
    assert tracker.update(figure(200, size=40)[None]) == [3]
    assert tracker.update(figure(205)[None]) == [1]


def test_overlap_of_boxes_is_that_of_areas():
    assert overlap(np.array([0, 0, 2.0]), np.array([1, 0, 2.0])) == pytest.approx(1 / 3)
    assert overlap(np.array([0, 0, 2.0]), np.array([5, 0, 2.0])) == 0


class Script:
    """A detector that reads out what a test wrote for each frame."""

    def __init__(self, frames: list[list[np.ndarray]]) -> None:
        self.frames = frames

    def everyone(self, index, name, rgb):
        return np.array(self.frames[index]).reshape(-1, 49, 3)

    def looks(self, index, name, rgb, box):
        yield self.everyone(index, name, rgb)


def pictures(count: int) -> list[Picture]:
    return [Picture(index, index / 25, str(index), np.zeros((400, 500, 3), np.uint8)) for index in range(count)]


def followed(frames: list[list[np.ndarray]], number: int = 0) -> list[np.ndarray | None]:
    seen = np.zeros(49)
    return [person for _, person in follow(pictures(len(frames)), Script(frames), number, seen)]


def test_the_largest_and_most_central_is_followed_or_whom_the_user_names():
    small, central, edge = figure(380, size=40), figure(240, size=100), figure(20, 30, size=105)
    frames = [[small]] + [[edge, small, central]] * 12
    assert [None if person is None else person[0, 0] for person in followed(frames)] == [None] + [central[0, 0]] * 12
    assert all(person[0, 0] == small[0, 0] for person in followed(frames, number=1))


def test_nobody_else_is_followed_when_the_person_has_gone():
    mine, other = [figure(240 + 2 * frame) for frame in range(40)], figure(100, size=90)
    frames = [[person, other] for person in mine[:20]] + [[other]] * 20
    people = followed(frames)
    assert all(person[0, 0] == own[0, 0] for person, own in zip(people[:20], mine, strict=False))
    assert people[20:] == [None] * 20


def test_a_person_who_comes_later_is_followed_from_then_on():
    people = followed([[]] * 15 + [[figure(240)]] * 3)
    assert [person is None for person in people] == [True] * 15 + [False] * 3


def test_a_short_gap_is_bridged_and_marked_and_a_long_one_is_not():
    def run(gap: int) -> list[tuple]:
        people = [figure(100), *[None] * gap, figure(100 + 10 * (gap + 1)), None]
        return list(bridge(zip(pictures(len(people)), people, strict=True)))

    short = run(4)
    assert [frame.index for frame, *_ in short] == list(range(7))
    assert [is_bridged for *_, is_bridged in short] == [False, True, True, True, True, False, False]
    for step, (_, person, box, _) in enumerate(short[:6]):
        np.testing.assert_allclose(person[:, :2].max(0), figure(100 + 10 * step)[:, :2].max(0))
        np.testing.assert_allclose(box, box_of(figure(100 + 10 * step)))
        assert person[:, 2].any() == (step in (0, 5))
    assert short[6][1] is None
    missing = [person is None for _, person, *_ in run(video.LONGEST_GAP + 1)]
    assert missing == [False, *[True] * (video.LONGEST_GAP + 1), False, True]


def test_a_steady_box_trembles_less_and_cuts_nobody_off():
    rng = np.random.default_rng(0)
    boxes = np.stack([[200 + 4 * t, 200, 120] + rng.normal(0, 3, 3) for t in range(200)])
    steady = SteadyBox()
    smooth = np.stack([steady(box) for box in boxes])
    assert np.diff(smooth, n=2, axis=0).std() < 0.6 * np.diff(boxes, n=2, axis=0).std()
    low, high = boxes[:, :2] - boxes[:, 2:] / 2.4, boxes[:, :2] + boxes[:, 2:] / 2.4
    assert (smooth[:, :2] - smooth[:, 2:] / 2 <= low + 1e-9).all() and (smooth[:, :2] + smooth[:, 2:] / 2 >= high).all()


def test_list_people_numbers_them_in_a_picture(clip, tmp_path):
    tall, small = clip.joints[0].copy(), clip.joints[0].copy()
    small[:, :2] = small[:, :2] * 0.4 + 10
    folder = Clip(tmp_path, clip.joints).openpose([[small, tall]] * FRAMES)
    text = list_people(Footage(Video(str(clip.file)), str(folder)), tmp_path / "people.png")
    assert "person 1, 2; choose one by --person" in text
    picture = cv2.imread(str(tmp_path / "people.png"))[..., ::-1]
    x, y, side = box_of(to_joints49(tall[None, :25], OPENPOSE_NAMES)[0])
    assert (picture[round(y), round(x - side / 2)] == [255, 60, 60]).all()
    chosen = [list(Footage(Video(str(clip.file)), str(folder), person)) for person in (0, 1, 2)]
    sides = [frames[0]["scale"].item() for frames in chosen]
    assert sides[0] == sides[1] == pytest.approx(sides[2] / 0.4, rel=0.05)


# losses and scores


ALL = slice(None)


def random_joints(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 49, 2, generator=generator), torch.rand(1, 49, 3, generator=generator)


def test_detected_joints_count_in_all_rows_and_those_of_data_sets_in_spin_s():
    predicted, given = random_joints(0)
    by_hand = (given[..., 2:] * (predicted - given[..., :2]) ** 2)[0]
    assert losses.kp2d(predicted, given, ALL).item() == pytest.approx(by_hand.mean().item())
    assert losses.kp2d(predicted, given).item() == pytest.approx(by_hand[SPIN].mean().item())
    given[0, SPIN, 2] = 0
    assert losses.visible(given, ALL).tolist() == [True]
    assert losses.visible(given).tolist() == [False]


def test_the_motion_of_detected_joints_counts_where_both_frames_are_confident():
    (now, given), (before, given_before) = random_joints(0), random_joints(1)
    expected = 0.0
    for joint in range(49):
        if min(given[0, joint, 2], given_before[0, joint, 2]) > 0.3:
            way = (now - before)[0, joint] - (given - given_before)[0, joint, :2]
            expected += (way**2).sum().item()
    found = losses.motion(now, before, given, given_before, ALL)
    assert found.item() == pytest.approx(expected / 98, rel=1e-5)


def make_prediction(keypoints: torch.Tensor, joints: torch.Tensor) -> Prediction:
    return Prediction(None, None, None, joints, None, keypoints)


def test_footage_is_scored_in_px_and_as_a_share_of_the_box():
    given = torch.cat([torch.zeros(1, 49, 2), torch.full((1, 49, 1), 0.2)], dim=2)
    given[0, 3, 2], given[0, 4, 2] = 0.9, 0.5
    adapted, frozen = torch.full((1, 49, 2), 7.0), torch.zeros(1, 49, 2)
    adapted[0, 3], adapted[0, 4] = torch.tensor([0.3, 0.4]), torch.tensor([0.0, 0.1])
    frozen[0, 3] = torch.tensor([0.0, 1.0])
    scorer = FootageScorer(lambda image: make_prediction(frozen, None))
    rows = []
    for index, height in ((0, 0.0), (1, 0.001), (2, 0.004), (4, 0.0), (5, 0.0), (6, 0.0)):
        joints = torch.zeros(1, 49, 3)
        joints[0, SPIN][13] = torch.tensor([0, height, 0])
        frame = {"image": None, "keypoints_2d": given, "scale": torch.tensor([2.0]), "index": torch.tensor([index])}
        frame |= {"sequence": ["clip"], "person": torch.tensor([0])}
        rows += scorer(make_prediction(adapted, joints), frame)
    share = (0.9 * 0.5 + 0.5 * 0.1) / 1.4 / 2
    assert rows[0]["adapted_share"] == pytest.approx(share)
    assert rows[0]["adapted_px"] == pytest.approx(400 * share)
    assert rows[0]["frozen_share"] == pytest.approx(0.9 / 1.4 / 2)
    # 4 - 2 * 1 + 0 mm of one joint in 24; nothing is told across a frame that is missing
    assert [row["accel"] for row in rows] == pytest.approx([np.nan, np.nan, 2 / 24, np.nan, np.nan, 0], nan_ok=True)


# the loop


class Record:
    """What run_stream hands to the results of footage."""

    def __init__(self) -> None:
        self.frames, self.adapted, self.added, self.missing = None, [], [], []

    def add(self, frame, prediction, scores=(), terms=(), adapted=()) -> None:
        if prediction is None:
            self.missing.append(frame["index"].item())
        else:
            self.added.append((frame["index"].item(), scores[0], terms))
            self.adapted += adapted

    def running(self) -> dict[str, str]:
        return {}


def run_loop(clip: Clip, keypoints: Path, world, bodies, **options) -> Record:
    torch.manual_seed(0)
    model, record = toys.TinyRegressor().eval(), Record()
    options = boa.Options(labelloss_weight=0.0, prev_n=2, lr=1e-3, **options)
    learner = boa.make_learner(model, bodies["neutral"], PosePrior(world.stream.assets.gmm), options, ALL)
    boa.run_stream(iter(Footage(Video(str(clip.file)), str(keypoints))), None, learner, FootageScorer(None), record)
    return record


def test_the_loop_adapts_to_footage_and_all_detectors_come_to_the_same(clip, world, bodies):
    records = [run_loop(clip, way, world, bodies) for way in (clip.openpose(), clip.alphapose(COCO17))]
    for one, other in zip(records[0].added, records[1].added, strict=True):
        assert one[1] == pytest.approx(other[1], abs=1e-6, nan_ok=True)
        assert one[2] == pytest.approx(other[2], abs=1e-6)
    assert ["upper/motion" in terms for _, _, terms in records[0].added] == [False] * 2 + [True] * (FRAMES - 2)
    assert records[0].adapted == [True] * FRAMES


def test_a_gap_is_predicted_without_adapting_and_counted_and_the_end_is_missing(clip, world, bodies, tmp_path):
    frames = [[person] for person in clip.joints]
    frames[3] = frames[6] = frames[7] = []
    record = run_loop(clip, Clip(tmp_path, clip.joints).openpose(frames), world, bodies)
    assert [index for index, *_ in record.added] == [0, 1, 2, 3, 4, 5]
    assert [bool(terms) for *_, terms in record.added] == [True, True, True, False, True, True]
    assert record.missing == [6, 7]
    assert record.adapted == [True, True, True, False, True, True]


def test_a_data_set_without_a_joint_that_the_losses_use_is_an_error_that_says_which_there_were(
    world, frames, bodies, tmp_path
):
    frames.columns["keypoints_2d"] = frames.columns["keypoints_2d"].copy()
    frames.columns["keypoints_2d"][:, :, 2] = 0
    frames.columns["keypoints_2d"][:, rows(["OP Neck", "OP RKnee"], JOINTS49), 2] = 1
    model, options = toys.TinyRegressor().eval(), boa.Options(labelloss_weight=0.0)
    learner = boa.make_learner(model, bodies["neutral"], PosePrior(world.stream.assets.gmm), options)
    record, score = Record(), lambda prediction, frame: [{"mpjpe": 0.0}]
    with pytest.raises(UserError, match=r"nothing was adapted: no 2D joint that the losses use .* only: Neck, RKnee"):
        boa.run_stream(batches(frames, 1), None, learner, score, record)
    assert record.adapted == [False] * len(frames)


# what can be wrong


def complaint(clip: Clip, source: Path, keypoints: Path | str, taken: int = 0, **options) -> str:
    """The error of a stream, after `taken` frames."""
    frames = []
    with pytest.raises(UserError) as caught:
        for frame in Footage(Video(str(source), **options), str(keypoints)):
            frames.append(frame)
    message = str(caught.value)
    assert "\n" not in message
    assert len(frames) >= taken
    return message


def test_clips_that_cannot_be_read(clip, tmp_path):
    keypoints = clip.openpose()
    whole = encode(tmp_path / "whole.mp4", list(range(0, 400, 4)), size=(512, 384)).read_bytes()
    assert "nowhere.mp4 is missing; name a video" in complaint(clip, tmp_path / "nowhere.mp4", keypoints)
    for name, content in (("empty", b""), ("text", b"no video"), ("cut", whole[:5000])):
        (tmp_path / f"{name}.mp4").write_bytes(content)
        assert f"{name}.mp4 is no readable video" in complaint(clip, tmp_path / f"{name}.mp4", keypoints)


def test_a_clip_of_nothing_but_sound(clip, tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "song.mp4 holds no video, only audio" in complaint(clip, tmp_path / "song.mp4", clip.openpose())


def test_a_clip_that_is_cut_off_gives_what_it_has(clip, tmp_path):
    whole = encode(tmp_path / "whole.mp4", list(range(0, 400, 4)), size=(512, 384), movflags="faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    own = Clip(tmp_path, np.repeat(clip.joints[:1], 100, axis=0))
    message = complaint(clip, tmp_path / "cut.mp4", own.openpose(), taken=30)
    assert "cut.mp4 is cut off" in message or "cut.mp4 is damaged after frame" in message


def test_a_clip_of_one_frame_works(clip, tmp_path):
    encode(tmp_path / "one.mp4", [0], size=(512, 384))
    [frame] = stream_of(clip, clip.openpose(), tmp_path / "one.mp4")
    assert "image" in frame


def test_pictures_of_several_sizes(clip, tmp_path):
    for name, size in (("a.png", 300), ("b.png", 400)):
        cv2.imwrite(str(tmp_path / name), np.zeros((size, size, 3), np.uint8))
    (tmp_path / "k.json").write_text(clip.alphapose(COCO17).read_text())
    assert "b.png is 400x400 px where the frames before are 300x300" in complaint(clip, tmp_path, tmp_path / "k.json")


def test_a_range_without_frames_and_a_folder_without_pictures(clip, tmp_path):
    assert "has no frame from --start 9 to" in complaint(clip, clip.file, clip.openpose(), start=9.0)
    assert "holds no picture" in complaint(clip, tmp_path, clip.openpose())


def test_a_camera_that_is_not_there():
    with pytest.raises(UserError, match="camera 97 cannot be opened"):
        Video("97")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no person"),
        ("{]", "cannot be read as JSON"),
        ('{"fish": 1}', "neither OpenPose's nor AlphaPose's"),
        ('[{"fish": 1}]', "is not AlphaPose's: an entry has no image_id"),
        ('[{"image_id": "0.jpg", "keypoints": "fish"}]', "not x, y, confidence"),
        ('[{"image_id": "a.jpg", "keypoints": ' + str([0.5] * 51) + "}]", "a.jpg has no number"),
        ('[{"image_id": "0.jpg", "keypoints": ' + str([0.5] * 408) + "}]", "holds 136 joints a person; 17 (COCO)"),
        ('{"people": [{"pose_keypoints_2d": ' + str([0.5] * 54) + "}]}", "holds 18 joints a person; 25 are needed"),
    ],
)
def test_files_that_are_no_keypoints(clip, tmp_path, content, message):
    (tmp_path / "k.json").write_text(content)
    assert message in complaint(clip, clip.file, tmp_path / "k.json")


def test_a_damaged_file_in_the_middle_keeps_what_came_before(clip, tmp_path):
    encode(tmp_path / "long.mp4", list(range(0, 60, 2)), size=(512, 384))
    folder = Clip(tmp_path, np.repeat(clip.joints[:1], 30, axis=0)).openpose()
    (folder / "walk_000000000020_keypoints.json").write_text('{"people": [')
    message = complaint(clip, tmp_path / "long.mp4", folder, taken=20)
    assert "walk_000000000020_keypoints.json cannot be read as JSON" in message


def test_a_clip_without_people_says_which_joints_there_were(clip, tmp_path):
    nobody = Clip(tmp_path, clip.joints).openpose([[] for _ in range(FRAMES)])
    assert "nobody can be followed" in (message := complaint(clip, clip.file, nobody)) and message.endswith(": none")
    face = np.zeros((49, 3))
    face[rows(["OP Nose", "OP LEye", "OP REar"], JOINTS49)] = [100, 100, 0.9]
    faces = Clip(tmp_path, clip.joints).openpose([[face]] * FRAMES)
    assert complaint(clip, clip.file, faces, taken=FRAMES).endswith("joints that were there: Nose, LEye, REar")


def test_a_person_who_is_not_there(clip):
    footage = Footage(Video(str(clip.file)), str(clip.openpose()), person=7)
    with pytest.raises(UserError, match="there is no person 7; --list_people shows who is there"):
        list(footage)


def test_without_mediapipe(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    monkeypatch.setitem(sys.modules, "mediapipe.python.solutions.pose", None)
    assert "pip install --no-deps -r requirements-video.txt" in complaint(clip, clip.file, "mediapipe")


# memory and real footage


MEMORY_SCRIPT = """
import resource, sys
from pathlib import Path
sys.path[:0] = [{project!r}, {tests!r}]
import numpy as np
import boa, streams, toys
from footage.video import Crop, Footage, Video
from models.smpl import load_bodies
from utils.evaluation import FootageScorer
from footage.overlay import OverlayVideo
from footage.poses import PosesFile
from footage.results import FootageResults
from models.prior import PosePrior
from utils.results import RunFolder, recorded

Crop.image = lambda crop, rgb: np.zeros((224, 224, 3), np.float32)  # the slowest part, and it keeps nothing
count, folder, assets = int(sys.argv[1]), Path(sys.argv[2]), streams.DEMO_ASSETS
footage = Footage(Video({clip!r}, max_frames=count), {keypoints!r})
body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ["neutral"])["neutral"]
run = RunFolder(folder, boa.Options(), {{}})
overlay = OverlayVideo(folder / "overlay.mp4", footage.rate, body.faces)
results = FootageResults(run, count, overlay, PosesFile(folder, body, True, "none"))
learner = boa.make_learner(toys.TinyRegressor().eval(), body, PosePrior(assets.gmm), boa.Options(), adapts=False)
with recorded(results):
    boa.run_stream(iter(footage), None, learner, FootageScorer(None), results)
assert len(run.rows) == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_the_clip(tmp_path):
    encode(tmp_path / "long.mp4", list(range(1200)), size=(160, 120))
    person = figure(80, 60, 80)
    own = Clip(tmp_path, np.repeat(person[None], 1200, axis=0))
    script = MEMORY_SCRIPT.format(
        project=str(conftest.PROJECT),
        tests=str(conftest.PROJECT / "tests"),
        clip=str(tmp_path / "long.mp4"),
        keypoints=str(own.openpose()),
    )
    peaks = []
    for count in (300, 1200):
        command = [sys.executable, "-c", script, str(count), str(tmp_path / str(count))]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        result = subprocess.run(command, capture_output=True, text=True, env=one_thread)
        assert result.returncode == 0, result.stderr
        peaks.append(float(result.stdout))
    assert peaks[1] - peaks[0] < 10, peaks  # MB; of 3,000 frames less than 30


@pytest.fixture(scope="module")
def tennis() -> Path:
    pytest.importorskip("mediapipe")
    if not (REAL / "tennis.mp4").exists():
        pytest.skip(f"the clip is not at {REAL}")
    return REAL / "tennis.mp4"


def test_mediapipe_follows_the_player_and_his_joints_as_files_give_the_same_frames(tennis, tmp_path):
    def opened() -> Video:
        return Video(str(tennis), stride=24, max_frames=13)

    detector = open_keypoints("mediapipe", numbered=True)
    found = [(picture.index, person) for picture, person in follow(opened(), detector, 0, np.zeros(49))]
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
    # the player fills most of the height; spectators are small, and to the left and right of him
    assert min(frame["scale"].item() * BOX_UNIT for frame in live) > 350
    middle = np.array([frame["center"][0].numpy() for frame in live])
    assert (np.abs(np.diff(middle, axis=0)) < 200).all()


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, clip):
    assets = streams.DEMO_ASSETS
    (tmp_path / "text.mp4").write_text("no video")
    result = conftest.run(
        *("boa.py", "--name", "x", "--expdir", tmp_path / "out", "--video", tmp_path / "text.mp4"),
        *("--keypoints", clip.openpose(), "--model_file", assets.base_model),
    )
    assert result.returncode == 2
    assert [line for line in result.stderr.splitlines() if "ERROR" in line] == result.stderr.splitlines()[-1:]
    assert "text.mp4 is no readable video" in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_leaves_a_video_predictions_and_animations(tmp_path, clip):
    boa.main(
        [
            *("--name", "walk", "--expdir", str(tmp_path), "--video", str(clip.file), "--labelloss_weight", "0"),
            *("--keypoints", str(clip.openpose()), "--max_frames", "3", "--smooth", "--export", "both"),
            *("--first_order", "--model_file", str(streams.DEMO_ASSETS.base_model)),
        ]
    )
    folder = tmp_path / "walk"
    with av.open(str(folder / "overlay.mp4")) as container:
        assert len(list(container.decode(video=0))) == 3
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["frames"], summary["frames_missing"], summary["frames_not_adapted"]) == (3, 0, 0)
    assert 0 < summary["adapted_share_of_box"] < summary["frozen_share_of_box"] < 0.5
    with np.load(folder / "predictions.npz") as file:
        assert file["rotmat_smooth"].shape == (3, 24, 3, 3) and file["index"].tolist() == [0, 1, 2]
    assert (folder / "animation.glb").exists() and (folder / "animation.bvh").exists()
