"""Everybody in a clip: a run for each, one video and one animated file of all."""

import csv
import json
from pathlib import Path

import av
import conftest
import numpy as np
import pytest
import toys
from crossing import Crossing, make_crossing
from test_export import read_glb
from test_parts import InThisProcess
from videos import Clip, encode, figure

import boa
import parts
import streams
from footage.everybody import draw_all
from footage.people import Footage, find_people
from footage.sources import VideoFrame
from footage.video import Video
from utils.errors import UserError
from utils.files import save_npz
from utils.joints import JOINTS49, rows

PARTS = ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
LIMBS = rows([f"OP {side}{part}" for side in "RL" for part in PARTS], JOINTS49)
HIPS = rows(["OP RHip", "OP LHip"], JOINTS49)


@pytest.fixture
def launcher(monkeypatch) -> InThisProcess:
    launcher = InThisProcess({})
    monkeypatch.setattr(parts, "_launcher", lambda options, parent: launcher)
    return launcher


def write_people(folder: Path, frames: list[list[np.ndarray]]) -> list[str]:
    """A clip at 100 frames/s with people (49,3) in its frames -> the flags for it."""
    video = encode(folder / "walk.mp4", list(range(len(frames))), size=(160, 120))
    keypoints = Clip(folder, np.zeros((1, 49, 3))).openpose(frames)
    return ["--video", str(video), "--keypoints", str(keypoints), "--method", "frozen", "--person", "all"]


def small(x: float) -> np.ndarray:
    return figure(x, 60, 60)


def images_of(file: Path) -> np.ndarray:
    with av.open(str(file)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(int)


# two people who cross


class Crossed:
    """A run on everybody in the crossing, by the free network of joints."""

    def __init__(self, clip: Crossing, folder: Path) -> None:
        self.clip, self.folder = clip, folder
        self.predictions = [np.load(folder / "parts" / f"person-{number}" / "predictions.npz") for number in (1, 2)]
        # whoever is the nearer at the start has the lower number; the tests ask the truth
        first = self.predictions[0]["joints_2d"][0, LIMBS]
        self.whom = int(np.argmin([np.abs(first - clip.joints_px[who, 0, LIMBS]).mean() for who in (0, 1)]))


@pytest.fixture(scope="module")
def crossed(tmp_path_factory) -> Crossed:
    folder = tmp_path_factory.mktemp("crossing")
    clip = make_crossing(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_launcher", lambda options, parent: InThisProcess({}))
        boa.main(
            [
                *("--name", "both", "--expdir", str(folder), "--video", str(clip.file), "--person", "all"),
                *("--keypoints", str(clip.keypoints), "--method", "frozen", "--export", "glb"),
                *("--model_file", str(streams.FOOTAGE_ASSETS.base_model)),
            ]
        )
    return Crossed(clip, folder / "both")


def test_two_people_who_cross_keep_their_own_bodies(crossed):
    """By the truth: in every frame where they are in the image, and in 3D before, during and after."""
    frames = crossed.clip.joints.shape[1]
    for predictions, who in zip(crossed.predictions, (crossed.whom, 1 - crossed.whom), strict=True):
        index, found = predictions["index"], predictions["joints_3d"][:, LIMBS]
        assert len(index) == frames
        places = np.stack([crossed.clip.joints_px[one][index][:, LIMBS] for one in (who, 1 - who)])
        own, other = np.linalg.norm(predictions["joints_2d"][:, LIMBS] - places, axis=-1).mean(-1)
        assert own.max() < 15 and own.mean() < 6
        assert (own < other).all()
        found = found - predictions["joints_3d"][:, HIPS].mean(1, keepdims=True)
        truth = crossed.clip.joints[:, index]
        truth = truth[:, :, LIMBS] - truth[:, :, HIPS].mean(2, keepdims=True)
        own, other = (np.linalg.norm(found - truth[one], axis=-1).mean(-1) for one in (who, 1 - who))
        for third in np.array_split(np.arange(frames), 3):
            assert own[third].mean() < 0.5 * other[third].mean()


def test_the_video_shows_both(crossed):
    pictures, clip = images_of(crossed.folder / "overlay.mp4"), images_of(crossed.clip.file)
    assert pictures.shape == clip.shape
    changed = np.abs(pictures - clip).max(-1) > 40
    for frame in (0, len(clip) // 2, len(clip) - 1):
        for x, y in np.round(crossed.clip.joints_px[:, frame, HIPS].mean(1)).astype(int):
            assert changed[frame, y - 2 : y + 3, x - 2 : x + 3].mean() > 0.8
        assert changed[frame].mean() < 0.2


def test_one_animated_file_has_both_in_their_places(crossed):
    document, arrays = read_glb(crossed.folder / "animation.glb")
    assert len(document["meshes"]) == len(document["skins"]) == 2 and len(document["animations"]) == 1
    names = [node["name"] for node in document["nodes"]]
    assert len(set(names)) == len(names) and {"person-1 body", "person-2 body"} <= set(names)
    skins = [set(skin["joints"]) for skin in document["skins"]]
    assert not skins[0] & skins[1] and [len(skin) for skin in skins] == [24, 24]
    moves = moves_of(document, arrays)
    for name in ("person-1", "person-2"):
        alone = moves_of(*read_glb(crossed.folder / "parts" / name / "animation.glb"))
        assert len(alone) == 25
        for (node, path), (times, values) in alone.items():
            np.testing.assert_allclose(moves[f"{name} {node}", path][0], times, atol=1e-5)
            np.testing.assert_allclose(moves[f"{name} {node}", path][1], values, atol=1e-5)
    assert len(moves) == 50


def moves_of(document: dict, arrays: list[np.ndarray]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Times and values of each channel of a glTF file, by its node's name and what of it moves."""
    (animation,) = document["animations"]
    samplers = [tuple(arrays[sampler[end]] for end in ("input", "output")) for sampler in animation["samplers"]]
    places = [
        (document["nodes"][one["target"]["node"]]["name"], one["target"]["path"]) for one in animation["channels"]
    ]
    return {place: samplers[one["sampler"]] for place, one in zip(places, animation["channels"], strict=True)}


def test_a_run_of_everybody_says_how_each_fared(crossed):
    summary = toys.read_summary(crossed.folder)
    table = list(csv.DictReader((crossed.folder / "scores.csv").open()))
    assert [row["person"] for row in table] == [*summary["by_person"]] == ["person-1", "person-2"]
    assert summary["complete"] and (summary["people"], summary["left_out"], summary["frames"]) == (2, 0, 30)
    own = [toys.read_summary(crossed.folder / "parts" / row["person"])["frozen_share_of_box"] for row in table]
    assert summary["frozen_share_of_box"] == pytest.approx(np.mean(own))
    assert (crossed.folder / "performance.txt").read_text() == (crossed.folder / "scores.csv").read_text()


# who is followed


def test_each_is_followed_as_by_their_number_alone(command, launcher):
    """Two who walk past each other, in changing order, and one who comes later."""
    frames = [[small(30 + frame), small(120 - frame)] for frame in range(90)]
    frames = [[small(60)] * (frame > 20) + people[:: 1 if frame % 2 else -1] for frame, people in enumerate(frames)]
    flags = write_people(command.folder, frames)
    everybody = command("x", *flags)
    assert [*toys.read_summary(everybody)["by_person"]] == ["person-1", "person-2", "person-3"]
    for number in "123":
        alone = command(f"alone-{number}", *flags[:-1], number)
        own = everybody / "parts" / f"person-{number}"
        assert (alone / "scores.csv").read_bytes() == (own / "scores.csv").read_bytes()


def test_people_come_and_go_and_who_is_seen_for_less_than_half_a_second_is_left_out(command, launcher, caplog):
    """At 100 frames/s: one stays, one comes in frame 40, one has gone after frame 55, one is there for 49 frames."""
    frames = [
        [small(20), *[small(60)] * (index >= 40), *[small(100)] * (index < 56), *[small(140)] * (20 <= index < 69)]
        for index in range(120)
    ]
    caplog.set_level("INFO")
    folder = command("x", *write_people(command.folder, frames), "--export", "glb")
    summary = toys.read_summary(folder)
    assert "people who are followed: 1, 2, 4; seen for too few frames, and left out: 1" in caplog.text
    assert summary["left_out"] == 1
    seen = {name: row["frames"] - row["frames_missing"] for name, row in summary["by_person"].items()}
    assert sorted(seen.values()) == [56, 80, 120]
    assert len(images_of(folder / "overlay.mp4")) == 120
    # who is not there is nothing in the animation
    document, arrays = read_glb(folder / "animation.glb")
    assert {sampler["interpolation"] for sampler in document["animations"][0]["samplers"]} == {"LINEAR", "STEP"}
    sizes = {
        seen[node.split()[0]]: [(round(100 * float(time[0])), *size) for time, size in zip(times, values, strict=True)]
        for (node, path), (times, values) in moves_of(document, arrays).items()
        if path == "scale"
    }
    assert sizes == {56: [(0, 1, 1, 1), (56, 0, 0, 0)], 80: [(0, 0, 0, 0), (40, 1, 1, 1)]}


def test_who_is_there_in_a_short_clip_is_followed(command, launcher):
    folder = command("x", *write_people(command.folder, [[small(40), small(120)]] * 7 + [[small(40)]]))
    assert toys.read_summary(folder)["people"] == 2


def test_everybody_is_adapted_to_with_weights_of_their_own(command, launcher):
    flags = write_people(command.folder, [[small(40 + index), small(120)] for index in range(8)])
    flags[flags.index("frozen")] = "boa"
    flags += ["--lr", "1e-3", "--labelloss_weight", "0"]
    everybody = command("x", *flags)
    alone = command("alone", *[{"all": "2"}.get(flag, flag) for flag in flags])
    own = everybody / "parts" / "person-2"
    assert (own / "scores.csv").read_bytes() == (alone / "scores.csv").read_bytes()
    assert toys.read_summary(own)["frames_not_adapted"] == 0


def test_nobody_is_one_line(command, launcher):
    with pytest.raises(UserError, match="nobody can be followed by --keypoints"):
        command("x", *write_people(command.folder, [[]] * 4 + [[figure(50, 50, 1)]]))


def test_the_nearer_is_drawn_last(free_body, tmp_path):
    """Two of the same body at the same pixels, once the one and once the other nearer."""
    shown = []
    for depths in ((3.0, 5.0), (5.0, 3.0)):
        for name, depth in zip(("a", "b"), depths, strict=True):
            arrays = {"rotmat": np.eye(3)[None, None].repeat(24, 1), "betas": np.zeros((1, 10)), "cam": [[0.9, 0, 0]]}
            arrays |= {"center": [[80, 60]], "scale": [0.5], "translation": [[0, 0, depth]]}
            arrays = {key: np.array(value, np.float32) for key, value in arrays.items()}
            save_npz(tmp_path / name / "predictions.npz", index=np.array([4]), **arrays)
        frames = [VideoFrame(index, 0.0, "", np.zeros((120, 160, 3), np.uint8)) for index in (3, 4)]
        before, image = draw_all(frames, {name: tmp_path / name for name in "ab"}, free_body)
        assert not before.any()
        shown.append(image[60, 80].astype(int))
    assert shown[0][2] > shown[0][0] and shown[1][0] > shown[1][2]  # the first is blue, the second orange


class Onlooker:
    """A detector that looks at the frames itself, and says what a test wrote for each."""

    frames: list[list[np.ndarray]]
    made = looks = 0

    def __init__(self) -> None:
        Onlooker.made += 1

    def detect_all(self, frame: VideoFrame) -> np.ndarray:
        Onlooker.looks += 1
        return np.array(self.frames[frame.index]).reshape(-1, 49, 3)

    def facts(self) -> dict[str, object]:
        return {}

    def warnings(self) -> list[str]:
        return []


def test_one_detector_tells_all_apart_and_where_each_is(command, launcher, monkeypatch):
    """Every second frame from the fourth on, of two who walk past each other, and somebody at the start."""
    frames = [[small(30 + frame), small(120 - frame)][:: 1 if frame % 4 else -1] for frame in range(90)]
    frames[0].append(small(75))
    monkeypatch.setattr("footage.people.MediaPipe", Onlooker)
    Onlooker.frames = frames
    flags = write_people(command.folder, frames)
    more = ["--start", "0.04", "--stride", "2"]
    looked = command("looked", *flags[:2], *flags[4:], *more)
    assert (Onlooker.made, Onlooker.looks) == (1, 43)
    read = command("read", *flags, *more)
    for name in ("person-1", "person-2"):
        one, other = ((folder / "parts" / name / "scores.csv").read_bytes() for folder in (looked, read))
        assert one == other
    assert toys.read_summary(looked)["people"] == 2 and toys.read_summary(looked)["frames"] == 43


@pytest.mark.slow
def test_mediapipe_s_joints_of_two_people_who_cross_stay_with_them(tmp_path):
    pytest.importorskip("mediapipe")
    clip = make_crossing(tmp_path)
    video = Video(str(clip.file))
    found = find_people(Footage(video, "mediapipe"), tmp_path / "found")
    numbers = [number for number, frames in found.seen.items() if frames > 10]
    whom = []
    for number in numbers:
        frames = list(Footage(Video(str(clip.file)), str(tmp_path / "found"), number, found.first).prepared())
        places = [(frame["index"].item(), frame["keypoints_px"][0].numpy()) for frame in frames if "image" in frame]
        nearest = set()
        for index, person in places:
            seen = [row for row in LIMBS if person[row, 2] > 0.3]
            away = np.abs(person[seen, :2] - clip.joints_px[:, index, seen]).mean((1, 2))
            nearest.add(int(away.argmin()))
        assert len(nearest) == 1
        whom += nearest
        assert {places[0][0], places[-1][0]} <= {0, 1, 28, 29}
    assert sorted(whom) == [0, 1]


# what does not go together, and what goes on


def test_a_camera_shows_each_moment_once(command, monkeypatch):
    class Camera:
        is_camera = True

    class Seen:
        video = Camera()

    monkeypatch.setattr(parts, "open_footage", lambda options: Seen())
    with pytest.raises(UserError, match=r"--person all .* a camera shows"):
        command("x", "--video", "0", "--person", "all")
    assert not (command.folder / "out").exists()


@pytest.mark.parametrize("word", ["everyone", "-1", "1.5", ""])
def test_a_person_is_a_number_or_all(command, tmp_path, word):
    flags = write_people(tmp_path, [[small(60)]])
    with pytest.raises(UserError, match=f"--person takes a number, .* or all, not '{word}'"):
        command("x", *flags[:-1], word)
    assert not (command.folder / "out").exists()


def test_all_people_of_a_data_set_are_refused(command, capsys):
    with pytest.raises(SystemExit):
        command("x", "--person", "all")
    assert "--person does nothing here: it is for --video" in capsys.readouterr().err


def test_the_same_command_goes_on_and_overwrite_begins_anew(command, launcher, monkeypatch):
    flags = write_people(command.folder, [[small(40), small(120)]] * 60)
    launcher.failures["person-2"] = 2
    with pytest.raises(UserError, match="1 of 2 parts failed, person-2: the node is gone"):
        command("x", *flags)
    folder = command.folder / "out" / "x"
    assert not toys.read_summary(folder)["complete"] and not (folder / "overlay.mp4").exists()
    with monkeypatch.context() as patch:
        patch.setattr("footage.people.find_people", None)  # it is known who is there
        command("x", *flags)
    assert launcher.begun == {"person-1": 1, "person-2": 3}
    assert toys.read_summary(folder)["complete"] and (folder / "overlay.mp4").exists()
    assert not list(folder.glob(".*"))
    begun = dict(launcher.begun)
    command("x", *flags, "--resume")
    assert launcher.begun == begun
    with pytest.raises(UserError, match="was begun with --stride 1, not 2"):
        command("x", *flags, "--stride", "2")
    command("x", *flags, "--stride", "2", "--overwrite")
    assert toys.read_summary(folder)["by_person"]["person-1"]["frames"] == 30


def test_everybody_in_several_clips(command, launcher, tmp_path):
    _, video, _, keypoints, *others = write_people(tmp_path, [[small(40), small(120)]] * 6)
    for name in ("one", "two"):
        for parent, source in (("clips", video), ("keypoints", keypoints)):
            (tmp_path / parent).mkdir(exist_ok=True)
            (tmp_path / parent / (f"{name}.mp4" if parent == "clips" else name)).symlink_to(source)
    folder = command("x", "--video", str(tmp_path / "clips"), "--keypoints", str(tmp_path / "keypoints"), *others)
    summary = toys.read_summary(folder)
    assert [*summary["by_clip"]] == ["one", "two"] and summary["by_clip"]["two"]["frames"] == 6
    assert (folder / "parts" / "two" / "parts" / "person-2" / "predictions.npz").exists()
    assert summary["frozen_share_of_box"] == pytest.approx(summary["by_clip"]["one"]["frozen_share_of_box"])


def test_scores_are_computed_again_for_each(command, launcher, capsys):
    folder = command("x", *write_people(command.folder, [[small(40), small(120)]] * 6))
    with pytest.raises(UserError, match="name a folder in there by --verify"):
        boa.main(["--verify", str(folder)])
    boa.main(["--verify", str(folder / "parts" / "person-2")])
    assert "6 frames scored again" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip_however_many_there_are(tmp_path):
    """Five people, 50 frames and 300; of 1,000 less than 300 MB."""
    encode(tmp_path / "walk.mp4", list(range(300)), size=(160, 120))
    people = [figure(x, 60, 30) for x in (16, 48, 80, 112, 144)]
    keypoints = Clip(tmp_path, np.zeros((1, 49, 3))).openpose([people] * 300)
    peaks = []
    for count in (50, 300):
        printed = conftest.run_script("everybody_memory.py", tmp_path, keypoints, count, tmp_path / str(count))
        peaks.append(float(printed.split()[-1]))
        summary = json.loads((tmp_path / str(count) / "x" / "summary.json").read_text())
        assert (summary["people"], summary["frames"]) == (5, count)
    assert peaks[1] - peaks[0] < 75, peaks  # MB
