"""Joints in files of detectors: of which frame they are, which of the 49, and one line for what is wrong."""

import json

import numpy as np
import pytest
import torch
from places import CLIPS
from videos import FRAMES, OPENPOSE_NAMES, Clip, complaint, encode, stream_of

from footage.detector import to_joints49
from footage.keypoints import KeypointFiles
from footage.video import Video
from utils.image import Crop
from utils.joints import COCO17, HALPE26, JOINTS49, MEDIAPIPE33, rows


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


def test_the_middles_of_openpose_are_left_out_since_the_body_has_them_elsewhere():
    file = CLIPS / "im1010_openpose.json"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    numbers = np.reshape(json.loads(file.read_text())["people"][0]["pose_keypoints_2d"], (25, 3))
    by_name = dict(zip(OPENPOSE_NAMES, numbers, strict=True))
    middle = (by_name["OP RShoulder"] + by_name["OP LShoulder"])[:2] / 2
    assert np.abs(by_name["OP Neck"][:2] - middle).max() < 1  # px: it says nothing that the shoulders do not
    photograph = Video(str(CLIPS / "im1010.jpg"))
    person = KeypointFiles(file, photograph).detect_all(next(iter(photograph)))[0]
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no person"),
        ("{]", "cannot be read as JSON"),
        ('{"fish": 1}', "neither OpenPose's nor AlphaPose's"),
        ('[{"fish": 1}]', "is not AlphaPose's: an entry has no image_id"),
        ('[{"image_id": "0.jpg", "keypoints": "fish"}]', "not x, y, confidence"),
        ('[{"image_id": "a.jpg", "keypoints": ' + str([0.5] * 51) + "}]", "a.jpg has no number"),
        ('[{"image_id": "0.jpg", "keypoints": ' + str([0.5] * 63) + "}]", "holds 21 joints a person; what can be read"),
        ('{"people": [{"face_keypoints_2d": []}]}', "no pose_keypoints_2d or pose_keypoints, only 'face_keypoints_2d'"),
    ],
)
def test_files_that_are_no_keypoints(clip, tmp_path, content, message):
    (tmp_path / "k.json").write_text(content)
    assert message in complaint(clip.file, tmp_path / "k.json")


def test_a_damaged_file_in_the_middle_keeps_what_came_before(clip, tmp_path):
    encode(tmp_path / "long.mp4", list(range(0, 60, 2)), size=(512, 384))
    folder = Clip(tmp_path, np.repeat(clip.joints[:1], 30, axis=0)).openpose()
    (folder / "walk_000000000020_keypoints.json").write_text('{"people": [')
    message = complaint(tmp_path / "long.mp4", folder, taken=20)
    assert "walk_000000000020_keypoints.json cannot be read as JSON" in message
