"""Who is followed, which gaps are bridged, and what a frame of footage is."""

import json

import cv2
import numpy as np
import pytest
import torch
from videos import FRAMES, OPENPOSE_NAMES, Clip, Script, blank_frames, complaint, encode, figure, stream_of

from footage import people
from footage.detector import to_joints49
from footage.people import LONGEST_GAP, Footage, bridge, follow, list_people
from footage.tracking import box_of
from footage.video import Video
from synthetic.camera import FRAME_SIZE
from utils.errors import UserError
from utils.image import BOX_UNIT, Crop
from utils.joints import JOINTS49, rows


def followed(frames: list[list[np.ndarray]], number: int = 0) -> list[np.ndarray | None]:
    seen = np.zeros(49)
    return [person for _, person in follow(blank_frames(len(frames)), Script(frames), number, seen)]


def test_the_largest_and_most_central_is_followed_or_whom_the_user_names():
    small, central, edge = figure(380, size=40), figure(240, size=100), figure(20, 30, size=105)
    frames = [[small]] + [[edge, small, central]] * 12
    assert [None if person is None else person[0, 0] for person in followed(frames)] == [None] + [central[0, 0]] * 12
    assert all(person[0, 0] == small[0, 0] for person in followed(frames, number=1))


def test_nobody_else_is_followed_when_the_person_has_gone():
    mine, other = [figure(240 + 2 * frame) for frame in range(40)], figure(100, size=90)
    frames = [[person, other] for person in mine[:20]] + [[other]] * 20
    found = followed(frames)
    assert all(person[0, 0] == own[0, 0] for person, own in zip(found[:20], mine, strict=False))
    assert found[20:] == [None] * 20


def test_a_person_who_comes_later_is_followed_from_then_on():
    found = followed([[]] * 15 + [[figure(240)]] * 3)
    assert [person is None for person in found] == [True] * 15 + [False] * 3


def test_a_short_gap_is_bridged_and_marked_and_a_long_one_is_not():
    def run(gap: int) -> list[tuple]:
        people = [figure(100), *[None] * gap, figure(100 + 10 * (gap + 1)), None]
        return list(bridge(zip(blank_frames(len(people)), people, strict=True)))

    short = run(4)
    assert [frame.index for frame, *_ in short] == list(range(7))
    assert [one.bridged for one in short] == [False, True, True, True, True, False, False]
    for step, (_, person, box, *_) in enumerate(short[:6]):
        np.testing.assert_allclose(person[:, :2].max(0), figure(100 + 10 * step)[:, :2].max(0))
        np.testing.assert_allclose(box, box_of(figure(100 + 10 * step)))
        np.testing.assert_allclose(person[:, 2], figure(100)[:, 2])  # a network is given them
    assert short[6][1] is None
    missing = [person is None for _, person, *_ in run(LONGEST_GAP + 1)]
    assert missing == [False, *[True] * (LONGEST_GAP + 1), False, True]


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
        "dropped": (1,),
    }
    assert frame["imgname"] == ["walk_000003"] and frame["sequence"] == ["walk"] and frame["index"].item() == 3
    seen = frame["keypoints_2d"][0, :, 2] > 0
    assert frame["keypoints_2d"][0, seen, :2].abs().max() < 1
    # the way back: the center is measured from the edge of the image, keypoints from the middle of the first pixel
    back = frame["center"] + frame["keypoints_2d"][0, :, :2] * frame["scale"] * BOX_UNIT / 2 - 0.5
    torch.testing.assert_close(back[seen].float(), frame["keypoints_px"][0, seen, :2], atol=0.6, rtol=0)


def test_a_clip_of_one_frame_works(clip, tmp_path):
    encode(tmp_path / "one.mp4", [0], size=(512, 384))
    [frame] = stream_of(clip, clip.openpose(), tmp_path / "one.mp4")
    assert "image" in frame


def test_a_clip_without_people_says_which_joints_there_were(clip, tmp_path):
    nobody = Clip(tmp_path, clip.joints).openpose([[] for _ in range(FRAMES)])
    assert "nobody can be followed" in (message := complaint(clip.file, nobody)) and message.endswith(": none")
    face = np.zeros((49, 3))
    face[rows(["OP Nose", "OP LEye", "OP REar"], JOINTS49)] = [100, 100, 0.9]
    faces = Clip(tmp_path, clip.joints).openpose([[face]] * FRAMES)
    assert complaint(clip.file, faces, taken=FRAMES).endswith("joints that were there: Nose, LEye, REar")


def test_a_person_who_is_not_there(clip):
    footage = Footage(Video(str(clip.file)), str(clip.openpose()), person=7)
    with pytest.raises(UserError, match="there is no person 7; --list_people shows who is there"):
        list(footage)


def test_a_box_is_cut_out_of_a_large_image_without_its_size_in_memory(monkeypatch):
    """What is shown of it is the same but for how it is made smaller."""
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), (1600, 1200))
    box = np.array([700.0, 500.0, 1400.0])
    expected = Crop(box[:2], box[2] / BOX_UNIT).image(rgb)
    np.testing.assert_array_equal(people._cut(rgb, box), expected)
    monkeypatch.setattr(people, "_LARGEST_PATCH", 700)
    assert np.abs(people._cut(rgb, box) - expected).mean() < 2
    assert people._cut(rgb, np.array([700.0, 500.0, 200_000.0])).shape == (224, 224, 3)


def test_who_is_smaller_than_a_few_pixels_is_not_followed():
    assert followed([[figure(240, size=1.5)]] * 3) == [None] * 3
    assert all(person is not None for person in followed([[figure(240, size=12)]] * 3))


def test_what_was_odd_is_told_for_the_end_of_a_run(clip, tmp_path):
    own = Clip(tmp_path, np.concatenate([clip.joints, clip.joints]))
    footage = Footage(Video(str(clip.file)), str(own.openpose()))
    assert footage.frames == FRAMES
    frames = list(footage.prepared())
    facts = footage.facts()
    assert len(frames) == footage.frames == FRAMES and facts["frames_lost"] == 0
    assert facts["keypoints_beyond_end"] == FRAMES and facts["keypoints_joints"] == "BODY_25"
    assert [line for line in footage.warnings() if f"entries of no frame: {FRAMES};" in line]
    assert json.dumps(facts)
