"""Which entry of a detector's files is of which frame, which joints it has, and whether these fit the image.

Somebody walks from left to right, 10 px a frame, so that x says of which frame joints are.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from places import CLIPS
from videos import OPENPOSE_NAMES, encode

from footage.formats import is_body_25b
from footage.keypoints import KeypointFiles
from footage.people import Footage
from footage.video import Video
from utils.errors import UserError
from utils.joints import COCO17, HALPE26, JOINTS49

WIDTH, HEIGHT = 320, 240
# x to the right of the image and y down, of somebody 1 high who looks into the camera
STANDING = {
    **{"OP Nose": (0, 0.06), "OP Neck": (0, 0.18), "OP MidHip": (0, 0.5)},
    **{"OP RShoulder": (-0.1, 0.18), "OP RElbow": (-0.14, 0.33), "OP RWrist": (-0.15, 0.47)},
    **{"OP RHip": (-0.06, 0.5), "OP RKnee": (-0.07, 0.73), "OP RAnkle": (-0.07, 0.95)},
    **{"OP REye": (-0.02, 0.045), "OP REar": (-0.045, 0.055)},
    **{"OP RBigToe": (-0.09, 1.0), "OP RSmallToe": (-0.11, 0.99), "OP RHeel": (-0.065, 0.97)},
}
STANDING |= {name.replace("OP R", "OP L"): (-x, y) for name, (x, y) in STANDING.items() if name.startswith("OP R")}
COCO18 = [name for name in OPENPOSE_NAMES[:19] if name != "OP MidHip"]
BODY25B = [*COCO17, "OP Neck", "Top of Head (LSP)", *OPENPOSE_NAMES[19:]]


def person(frame: int, names: list[str] = OPENPOSE_NAMES, height: float = 170) -> np.ndarray:
    """Joints (R,3) px of a frame; those that nobody has are not found."""
    at = STANDING | {"Top of Head (LSP)": (0.0, 0.0)}
    x, y = np.array([at.get(name, (np.nan, 0)) for name in names]).T
    joints = np.stack([60 + 10 * frame + x * height, 30 + y * height, np.full(len(names), 0.9)], axis=1)
    return np.where(np.isnan(joints).any(axis=1, keepdims=True), 0.0, joints)


def write_openpose(
    folder: Path,
    names: list[str],
    frames: list[int],
    key: str = "pose_keypoints_2d",
    joints: list[str] = OPENPOSE_NAMES,
) -> Path:
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, frames, strict=True):
        content = {"version": 1.3, "people": [{key: person(frame, joints).ravel().tolist()}]}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def openpose_of(folder: Path, clip: str, frames: range, first: int = 0) -> Path:
    return write_openpose(folder, [f"{clip}_{first + frame:012d}_keypoints" for frame in frames], list(frames))


def write_alphapose(file: Path, names: list[object], frames: list[int], table: list[str] = COCO17) -> Path:
    entries = [
        {"image_id": name, "keypoints": person(frame, table).ravel().tolist(), "score": 2.9, "category_id": 1}
        for name, frame in zip(names, frames, strict=True)
    ]
    file.write_text(json.dumps(entries))
    return file


@pytest.fixture
def clip(tmp_path) -> Path:
    """A clip of six frames."""
    return encode(tmp_path / "clip.mp4", list(range(0, 24, 4)), size=(WIDTH, HEIGHT))


@pytest.fixture
def images(tmp_path) -> Path:
    """The same as images, frame_0001.jpg and so on."""
    (tmp_path / "images").mkdir()
    for number in range(1, 7):
        cv2.imwrite(str(tmp_path / "images" / f"frame_{number:04d}.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return tmp_path / "images"


def seen(video: Path, keypoints: Path, first_frame: int = -1) -> tuple[list[int | None], KeypointFiles]:
    """Of which frame the joints are that each frame gets, and where they came from."""
    opened = Video(str(video))
    files = KeypointFiles(keypoints, opened, first_frame)
    found = []
    for frame in opened:
        people = files.detect_all(frame)
        found.append(round((people[0, JOINTS49.index("OP Nose"), 0] - 60) / 10) if len(people) else None)
    return found, files


def refusal(video: Path, keypoints: Path, first_frame: int = -1) -> str:
    with pytest.raises(UserError) as caught:
        seen(video, keypoints, first_frame)
    assert "\n" not in str(caught.value)
    return str(caught.value)


EVERY = list(range(6))

# which frame


def test_bare_numbers_count_from_0_also_where_nobody_is_in_the_first_frame(clip, tmp_path, caplog):
    """AlphaPose calls the frames of a clip 0.jpg, 1.jpg, ... and leaves out those without people."""
    caplog.set_level("INFO")
    for first in (1, 2, 5):
        names, frames = [f"{frame}.jpg" for frame in EVERY[first:]], EVERY[first:]
        found, files = seen(clip, write_alphapose(tmp_path / "a.json", names, frames))
        assert found == [None] * first + EVERY[first:]
        assert files.facts()["frames_without_keypoints"] == first and not files.warnings()
        assert f"a.json: the first entry {first}.jpg is taken for frame {first}, counted from 0" in caplog.text


def test_numbers_count_from_1_where_the_last_one_is_that_of_the_clip_s_frames(clip, tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("{}.jpg", "frame_{:04d}.png"):
        names = [name.format(frame + 1) for frame in EVERY]
        found, files = seen(clip, write_alphapose(tmp_path / "a.json", names, EVERY))
        assert found == EVERY and files.facts()["keypoints_first"] == f"{names[0]} is taken for frame 0"
    found, _ = seen(clip, openpose_of(tmp_path / "o", "clip", range(6), first=1))
    assert found == EVERY
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_what_may_be_either_is_a_warning(clip, tmp_path, caplog):
    found, _ = seen(clip, write_alphapose(tmp_path / "a.json", ["f_1.jpg", "f_2.jpg"], [1, 2]))
    assert found == [None, 1, 2, None, None, None]
    assert (
        "the first entry f_1.jpg is taken for frame 1, counted from 0; if that is wrong, give --first_frame"
        in caplog.text
    )
    found, _ = seen(clip, tmp_path / "a.json", first_frame=0)
    assert found == [1, 2, None, None, None, None]


def test_another_first_number_is_asked_about(clip, tmp_path):
    names = [f"clip_{number:012d}_keypoints" for number in range(100, 104)]
    folder = write_openpose(tmp_path / "o", names, [1, 2, 3, 4])
    message = refusal(clip, folder)
    assert f"the first entry is {names[0]}; say by --first_frame which frame of the video it is" in message
    assert seen(clip, folder, first_frame=1)[0] == [None, 1, 2, 3, 4, None]
    names = [f"IMG_{number}.jpg" for number in range(37, 43)]
    assert "the first entry is IMG_37.jpg" in refusal(clip, write_alphapose(tmp_path / "a.json", names, EVERY))


def test_entries_beyond_the_end_of_the_clip_are_told(clip, tmp_path):
    found, files = seen(clip, openpose_of(tmp_path / "o", "clip", range(10)))
    assert found == EVERY and files.facts()["keypoints_beyond_end"] == 4
    assert any("entries of no frame: 4; the last is of frame 9" in line for line in files.warnings())
    # not where the end of the clip was not reached
    opened = Video(str(clip), max_frames=3)
    files = KeypointFiles(tmp_path / "o", opened)
    assert len([files.detect_all(frame) for frame in opened]) == 3 and files.facts()["keypoints_beyond_end"] == 0


def test_frames_without_an_entry_are_told_of_a_detector_that_writes_one_for_each(clip, tmp_path):
    found, files = seen(clip, openpose_of(tmp_path / "o", "clip", range(4)))
    assert found == [0, 1, 2, 3, None, None]
    assert any("frames without an entry: 2" in line for line in files.warnings())


def test_entries_of_another_time_are_refused(clip, tmp_path):
    names = [f"{number}.jpg" for number in range(50, 60)]
    assert "the entries are of frames 50 to 59, the video has 6" in refusal(
        clip, write_alphapose(tmp_path / "a.json", names, list(range(10)))
    )


def test_of_several_clips_that_of_the_video_is_taken(clip, tmp_path):
    folder = openpose_of(tmp_path / "o", "clip", range(6))
    write_openpose(folder, [f"b_{frame:012d}_keypoints" for frame in EVERY], [20] * 6)
    found, files = seen(clip, folder)
    assert found == EVERY and any("entries of other clips or images: 6" in line for line in files.warnings())
    message = refusal(clip.rename(tmp_path / "c.mp4"), folder)
    assert "entries of several clips: b_000000000000_keypoints, clip_000000000000_keypoints" in message


def test_of_several_lists_that_of_the_video_is_taken(clip, tmp_path):
    (tmp_path / "lists").mkdir()
    for name, shift in (("clip", 0), ("other", 9)):
        names = [f"{frame}.jpg" for frame in EVERY]
        write_alphapose(tmp_path / "lists" / f"{name}.json", names, [frame + shift for frame in EVERY])
    assert seen(clip, tmp_path / "lists")[0] == EVERY
    message = refusal(clip.rename(tmp_path / "c.mp4"), tmp_path / "lists")
    assert "several files that may be of this video: clip.json, other.json" in message
    openpose_of(tmp_path / "lists", "c", range(6))
    assert "several files that may be of this video" in refusal(tmp_path / "c.mp4", tmp_path / "lists")


@pytest.mark.parametrize("names", [["1.jpg", "01.jpg"], ["1.jpg", "1.png"], ["f_1", "f_01"]])
def test_two_entries_of_one_frame_are_refused(clip, tmp_path, names):
    message = refusal(clip, write_alphapose(tmp_path / "a.json", names, [1, 2]))
    assert f"{names[0]} and {names[1]} are both of one frame" in message


def test_a_list_of_two_clips_images_is_refused(clip, tmp_path):
    names = ["a/0000.jpg", "a/0001.jpg", "b/0000.jpg"]
    assert "entries of several clips: a/0000.jpg, b/0000.jpg" in refusal(
        clip, write_alphapose(tmp_path / "a.json", names, [0, 1, 2])
    )


def test_numbers_and_whole_paths_are_names_of_images(clip, tmp_path):
    for names in (
        EVERY,
        [f"C:\\Users\\me\\{frame}.jpg" for frame in EVERY],
        [f"/home/me/{frame}.jpg" for frame in EVERY],
    ):
        assert seen(clip, write_alphapose(tmp_path / "a.json", names, EVERY))[0] == EVERY


def test_images_are_found_by_name_and_other_names_are_told_at_once(images, tmp_path):
    names = [f"frame_{number:04d}_keypoints" for number in range(1, 7)]
    assert seen(images, write_openpose(tmp_path / "o", names, EVERY))[0] == EVERY
    assert (
        seen(images, write_alphapose(tmp_path / "a.json", [f"x/frame_{n:04d}.png" for n in range(1, 7)], EVERY))[0]
        == EVERY
    )
    other = openpose_of(tmp_path / "p", "clip", range(6))
    message = refusal(images, other)
    assert (
        "nothing is called like an image of the video: the images are frame_0001.jpg, ..., the entries clip_0"
        in message
    )
    assert seen(images, other, first_frame=0)[0] == EVERY


def test_entries_of_missing_images_are_told(images, tmp_path):
    names = [f"frame_{number:04d}_keypoints" for number in range(1, 7)]
    folder = write_openpose(tmp_path / "o", names, EVERY)
    for number in (2, 3):
        (images / f"frame_{number:04d}.jpg").rename(images / f"frame_{number:04d}.HEIC")
    found, files = seen(images, folder)
    assert found == [0, 3, 4, 5] and files.facts()["keypoints_unused"] == 2


def test_two_images_of_one_entry_are_refused(images, tmp_path):
    cv2.imwrite(str(images / "frame_0001.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    folder = write_openpose(tmp_path / "o", ["frame_0001_keypoints"], [0])
    assert "frame_0001_keypoints is of frame_0001.jpg and of frame_0001.png" in refusal(images, folder)
    both = write_alphapose(tmp_path / "a.json", ["frame_0001.jpg", "frame_0001.png"], [0, 1])
    assert seen(images, both)[0][:2] == [0, 1]  # these know the ending


def test_notes_of_a_mac_are_no_entries(clip, tmp_path):
    folder = openpose_of(tmp_path / "o", "clip", range(6))
    (folder / "._clip_000000000000_keypoints.json").write_bytes(b"\0\5\26\7")
    assert seen(clip, folder)[0] == EVERY


def test_no_file_is_of_what_a_camera_will_see(tmp_path):
    class Camera:
        is_camera, name, names, source_frames = True, "camera0", None, None

    with pytest.raises(UserError, match="no file knows what a camera will see; take --keypoints mediapipe"):
        KeypointFiles(write_alphapose(tmp_path / "a.json", [0], [0]), Camera())


# which joints


@pytest.mark.parametrize(("table", "rest"), [(COCO17, 0), (HALPE26, 0), (COCO17, 133 - 17), (HALPE26, 136 - 26)])
def test_alphapose_s_bodies_are_read_whatever_comes_after_them(clip, tmp_path, table, rest):
    names = [f"{frame}.jpg" for frame in EVERY]
    file = write_alphapose(tmp_path / "a.json", names, EVERY, [*table, *["face"] * rest])
    opened = Video(str(clip))
    people = KeypointFiles(file, opened).detect_all(next(iter(opened)))[0]
    assert_is_person(people, [name for name in table if name])


def assert_is_person(people: np.ndarray, names: list[str]) -> None:
    """That the joints (49,3) of these names are those of the first frame, and no others are there."""
    for row, name in enumerate(JOINTS49[:25]):
        is_there = name in names and name not in ("OP Neck", "OP MidHip")
        expected = person(0, [name])[0] if is_there else np.zeros(3)
        np.testing.assert_allclose(people[row], expected, err_msg=name)


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (OPENPOSE_NAMES, "pose_keypoints_2d"),
        (OPENPOSE_NAMES, "pose_keypoints"),
        (COCO18, "pose_keypoints"),
        (COCO18, "pose_keypoints_2d"),
        (BODY25B, "pose_keypoints_2d"),
        ([*BODY25B, *["hands and face"] * 110], "pose_keypoints_2d"),
        (["Top of Head (LSP)", *COCO18[1:14], "chest"], "pose_keypoints_2d"),
    ],
)
def test_openpose_s_bodies_are_read_and_told_apart(clip, tmp_path, names, key):
    files = [f"clip_{frame:012d}_keypoints" for frame in EVERY]
    opened = Video(str(clip))
    folder = write_openpose(tmp_path / "o", files, EVERY, key, names)
    people = KeypointFiles(folder, opened).detect_all(next(iter(opened)))[0]
    assert_is_person(people, names)
    assert people[JOINTS49.index("Top of Head (LSP)"), 2] == (0.9 if "Top of Head (LSP)" in names else 0)


def test_body_25b_is_told_by_its_geometry_whatever_is_seen_of_it():
    rng = np.random.default_rng(0)
    for names, expected in ((OPENPOSE_NAMES, False), (BODY25B, True)):
        whole = [person(frame, names) for frame in EVERY]
        assert is_body_25b(whole) == expected
        noisy = [joints + rng.normal(0, 2, joints.shape) * [1, 1, 0] for joints in whole]
        assert is_body_25b(noisy) == expected
        for hidden in (slice(0, 3), slice(9, 13)):  # face or shoulder; hips or knees
            parts = [joints.copy() for joints in whole]
            for joints in parts:
                joints[hidden] = 0
            assert is_body_25b(parts) in (expected, False) and (hidden.start or is_body_25b(parts) == expected)
    assert not is_body_25b([])
    file = CLIPS / "im1010_openpose.json"
    if file.exists():
        photographed = json.loads(file.read_text())["people"]
        assert not is_body_25b([np.reshape(one["pose_keypoints_2d"], (25, 3)) for one in photographed])


@pytest.mark.parametrize(("outer", "inner"), [("people", "pose_keypoints_2d"), ("bodies", "joints")])
def test_the_other_forms_of_alphapose_are_read(clip, tmp_path, outer, inner):
    """--format open and cmu: one dictionary by image, and sep-json with a file an image."""
    (tmp_path / "sep-json").mkdir()
    content = {}
    for frame in EVERY[1:]:
        joints = person(frame, COCO18).ravel().tolist()
        content[f"{frame}.jpg"] = {"version": "AlphaPose v0.3", outer: [{inner: joints}]}
        (tmp_path / "sep-json" / f"{frame}.json").write_text(json.dumps(content[f"{frame}.jpg"]))
    (tmp_path / "alphapose-results.json").write_text(json.dumps(content))
    for source in ("alphapose-results.json", "sep-json"):
        assert seen(clip, tmp_path / source)[0] == [None, *EVERY[1:]]


# in which units


@pytest.mark.parametrize("scale", [3, 4])
def test_fractions_of_the_image_are_refused(clip, tmp_path, scale):
    """OpenPose's --keypoint_scale 3 is 0 to 1, 4 is -1 to 1."""
    folder = openpose_of(tmp_path / "o", "clip", range(6))
    for frame, file in enumerate(sorted(folder.iterdir())):
        joints = person(frame) / [WIDTH, HEIGHT, 1]
        joints[:, :2] = joints[:, :2] * 2 - 1 if scale == 4 else joints[:, :2]
        file.write_text(json.dumps({"people": [{"pose_keypoints_2d": joints.ravel().tolist()}]}))
    assert "are fractions of the image and no pixels; let OpenPose write these by --keypoint_scale 0" in refusal(
        clip, folder
    )


def transformed(folder: Path, matrix: list[list[float]], offset: tuple[float, float] = (0, 0)) -> Path:
    """Keypoints of six frames with x and y transformed."""
    openpose_of(folder, "clip", range(6))
    for frame, file in enumerate(sorted(folder.iterdir())):
        joints = person(frame)
        joints[:, :2] = joints[:, :2] @ np.array(matrix).T + offset
        file.write_text(json.dumps({"people": [{"pose_keypoints_2d": joints.ravel().tolist()}]}))
    return folder


def test_joints_of_a_larger_copy_and_of_a_turned_image_lie_outside(clip, tmp_path):
    _, files = seen(clip, transformed(tmp_path / "large", [[12, 0], [0, 12]]))
    assert files.facts()["keypoints_outside"] > 0.9 and "the detector saw a larger copy" in files.warnings()[0]
    _, files = seen(clip, transformed(tmp_path / "right", [[1, 0], [0, 1]]))
    assert files.facts()["keypoints_outside"] == 0 and not files.warnings()
    upright = encode(tmp_path / "upright.mp4", list(range(0, 24, 4)), size=(HEIGHT, WIDTH))
    upright.rename(tmp_path / "clip.mp4")
    _, files = seen(tmp_path / "clip.mp4", transformed(tmp_path / "lying", [[0, 1.4], [-1, 0]], (0, WIDTH - 81)))
    assert files.facts()["keypoints_outside"] > 0.1 and "turned by 90 degrees" in files.warnings()[0]


def test_joints_of_a_smaller_copy_are_all_in_one_corner(clip, tmp_path):
    _, files = seen(clip, transformed(tmp_path / "small", [[0.25, 0], [0, 0.25]]))
    assert "all joints lie in the upper left quarter of the image" in files.warnings()[0]


def test_odd_units_are_told_while_there_is_time(tmp_path, caplog):
    long = encode(tmp_path / "clip.mp4", list(range(0, 120, 4)), size=(WIDTH, HEIGHT))
    folder = openpose_of(tmp_path / "o", "clip", range(30, 60), first=-30)
    opened = Video(str(long))
    files = KeypointFiles(folder, opened)
    for frame in opened:
        files.detect_all(frame)
        if frame.index == 12:
            break
    assert "of the joints lie outside of the image of 320x240 px" in caplog.text


def test_impossible_coordinates_are_left_out_and_told(clip, tmp_path):
    folder = openpose_of(tmp_path / "o", "clip", range(6))
    file = sorted(folder.iterdir())[2]
    joints = person(2)
    joints[4, :2], joints[7, :2] = 1e300, -1e9
    file.write_text(json.dumps({"people": [{"pose_keypoints_2d": joints.ravel().tolist()}]}))
    frames = list(Footage(Video(str(clip)), str(folder)).prepared())
    assert all("image" in frame for frame in frames)
    assert frames[2]["keypoints_px"].abs().max() < 400 and not frames[2]["keypoints_px"][0, [4, 7]].any()
    _, files = seen(clip, folder)
    assert files.facts()["keypoints_impossible"] == 4  # elbow and wrist have two rows each
