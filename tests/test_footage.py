"""What a run on footage leaves, from the true bodies of a rendered stream as predictions."""

import csv
import dataclasses
import gc
import json
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from footage.camera import full_camera
from footage.live import Live
from footage.overlay import OverlayVideo
from footage.poses import PosesFile
from footage.results import FootageResults
from footage.smoothing import DEVIATION, smooth, smooth_rotations
from footage.window import open_window
from utils.errors import UserError
from utils.files import save_npz
from utils.geometry import project
from utils.renderer import VideoWriter, draw_in_image
from utils.results import recorded
from utils.run_folder import RunFolder
from utils.structures import Prediction

SIZE = (180, 240)  # height and width
CENTER, SIDE = np.array([150.0, 80.0]), 140.0


@pytest.fixture(scope="module")
def body(free_body):
    return free_body


def predicted(body, turn: float = 0.0) -> Prediction:
    """A body upright in the image, turned about the vertical."""
    root = Rotation.from_rotvec([0, turn, 0]) * Rotation.from_rotvec([np.pi, 0, 0])
    rotmat = torch.eye(3).repeat(1, 24, 1, 1)
    rotmat[0, 0] = torch.tensor(root.as_matrix())
    betas, cam = torch.zeros(1, 10), torch.tensor([[0.9, 0.05, 0.1]])
    joints, vertices = body.from_rotmat(rotmat, betas)
    return Prediction(rotmat, betas, cam, joints, vertices, project(joints, cam))


def footage_frame(index: int, bridged: bool = False) -> dict:
    return {
        "index": torch.tensor([index]),
        "time": torch.tensor([index / 10], dtype=torch.float64),
        "imgname": [f"clip_{index:06d}"],
        "person": torch.tensor([1]),
        "bridged": torch.tensor([bridged]),
        "exchanged": ["arms" if index == 4 else ""],
        "dropped": torch.tensor([2 * (index == 5)]),
        "rgb": torch.full((1, *SIZE, 3), 200, dtype=torch.uint8),
        "center": torch.tensor(CENTER)[None],
        "scale": torch.tensor([SIDE / 200]),
    }


SCORES = {"frozen_px": 8.0, "frozen_share": 0.08, "adapted_px": 2.0, "adapted_share": 0.02, "accel": float("nan")}


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str = "x"


@dataclasses.dataclass(frozen=True)
class Clip:
    """What results ask of footage."""

    frames: int | None

    def facts(self) -> dict[str, object]:
        return {"packets_lost": 2}

    def warnings(self) -> list[str]:
        return ["clip.mp4: 2 packets were lost"]


def footage_results(
    folder: Path, body, frames: int | None, smooth: bool = False, export: str = "none", live=None
) -> FootageResults:
    folder.mkdir(exist_ok=True)
    overlay = OverlayVideo(folder / "overlay.mp4", 10.0, np.asarray(body.faces), live)
    return FootageResults(
        RunFolder(folder, Settings(), {}), Clip(frames), overlay, PosesFile(folder, body, smooth, export)
    )


@pytest.fixture(scope="module")
def finished(body, tmp_path_factory):
    """Six frames, of which the third is without the person and the fourth bridged."""
    folder = tmp_path_factory.mktemp("footage")
    results = footage_results(folder, body, 6, smooth=True, export="both")
    for index in range(6):
        frame = footage_frame(index, bridged=index == 3)
        if index == 2:
            results.add(frame, None)
        else:
            terms = {"upper/total": 1.0} if index else {}
            results.add(frame, predicted(body, 0.1 * index), [SCORES], terms, [index > 0])
    assert results.running() == {"frozen": "8.0 %", "adapted": "2.0 %"}
    results.close()
    return folder


def test_a_run_leaves_these_files(finished):
    names = {file.name.split(".tfevents")[0] for file in finished.iterdir()}
    assert names == {
        *("overlay.mp4", "predictions.npz", "scores.csv", "summary.json", "performance.txt", "reprojection.png"),
        *("animation.glb", "animation.bvh", "setting.txt", "events.out"),
    }


def test_the_video_has_every_frame_of_the_clip_with_the_body_on_it(finished):
    with av.open(str(finished / "overlay.mp4")) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert video.streams.video[0].codec_context.pix_fmt == "yuv420p"
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 6
    assert frames[0].shape == (SIZE[0], SIZE[1] + SIZE[0], 3)
    images = [frame[:, : SIZE[1]].astype(int) for frame in frames]
    assert np.abs(images[0] - 200).max() > 60
    assert np.abs(images[2] - 200).max() < 12  # nobody is drawn where nobody is
    assert frames[2][:, SIZE[1] :].min() > 240


def test_scores_and_summary_count_what_was_seen(finished):
    rows = list(csv.DictReader((finished / "scores.csv").open()))
    assert [row["seen"] for row in rows] == ["yes", "yes", "no", "bridged", "yes", "yes"]
    assert [row["adapted"] for row in rows] == ["no", "yes", "", "yes", "yes", "yes"]
    assert rows[2]["adapted_px"] == "" and rows[1]["adapted_share_of_box"] == "0.02000"
    summary = json.loads((finished / "summary.json").read_text())
    assert (summary["frames"], summary["frames_missing"], summary["frames_bridged"]) == (6, 1, 1)
    assert [(row["exchanged"], row["dropped"]) for row in rows[3:]] == [("", "0"), ("arms", "0"), ("", "2")]
    assert (summary["guards"]["sides_exchanged"], summary["guards"]["joints_dropped"]) == (1, 2)
    assert summary["packets_lost"] == 2  # what the footage knows is said, too
    assert summary["frozen_share_of_box"] == pytest.approx(0.08) and summary["accel_mm"] is None
    assert "adapted: 2.0 px, 2.00 % of the box" in (finished / "performance.txt").read_text()


def test_predictions_hold_every_predicted_frame(finished):
    with np.load(finished / "predictions.npz") as file:
        assert file["index"].tolist() == [0, 1, 3, 4, 5]
        assert file["rotmat"].shape == file["rotmat_smooth"].shape == (5, 24, 3, 3)
        assert file["bridged"].tolist() == [False, False, True, False, False]
        assert file["skeleton"].shape == (5, 24, 3) and file["joints_2d"].shape == (5, 49, 2)
        assert file["focal_length"] == pytest.approx(np.hypot(*SIZE))
        assert np.abs(np.linalg.det(file["rotmat_smooth"]) - 1).max() < 1e-5
        assert not list(finished.glob(".*"))


def test_the_cameras_of_the_whole_image_agree_with_the_crops(body, finished):
    with np.load(finished / "predictions.npz") as file:
        seen, cam, translation = file["joints_2d"][0], file["cam_full"][0], file["translation"][0]
        turn = file["turn"][0]
        joints, focal = file["joints_3d"][0], file["focal_length"]
    # the crop's pinhole camera is far away, so that it is nearly the weak perspective
    np.testing.assert_allclose(joints[:, :2] * cam[0] + cam[1:], seen, atol=1.5)
    # and the near one puts the body's origin at the same place
    origin = translation[:2] / translation[2] * focal + np.array(SIZE[::-1]) / 2
    np.testing.assert_allclose(origin, cam[1:], atol=1e-3)
    in_camera = joints @ turn.T + translation
    pinhole = in_camera[:, :2] / in_camera[:, 2:] * focal + np.array(SIZE[::-1]) / 2
    assert np.abs(pinhole - seen).max() < 0.1 * SIDE


def test_somebody_at_the_edge_is_turned_as_their_ray_is(body, tmp_path):
    """A body that faces the camera faces it wherever it stands."""
    poses = PosesFile(tmp_path, body, smooth=False, export="none")
    poses.add(predicted(body, 0.4).on_host(), np.array([20.0, 90.0]), SIDE, SIZE)
    poses.close(["clip_0"], [0], [0.0], [False])
    with np.load(tmp_path / "predictions.npz") as file:
        translation, turn, skeleton = (file[name][0].astype(float) for name in ("translation", "turn", "skeleton"))
        shoulders = file["joints_3d"][0, [2, 5]].astype(float)
    towards = translation / np.linalg.norm(translation)
    np.testing.assert_allclose(turn @ [0, 0, 1], towards, atol=1e-6)
    axis = np.cross([0, 0, 1.0], towards)
    assert np.linalg.norm(axis) > 0.2
    np.testing.assert_allclose(turn @ axis, axis, atol=1e-6)  # by the shortest way
    np.testing.assert_allclose(skeleton[[17, 16]], shoulders @ turn.T + translation, atol=1e-5)


def test_the_body_is_drawn_where_its_vertices_project(body):
    prediction = predicted(body, 0.4)
    image = np.full((*SIZE, 3), 255, np.uint8)
    vertices, cam = prediction.vertices[0].numpy(), prediction.cam[0].numpy()
    draw_in_image(image, vertices, np.asarray(body.faces), cam, CENTER, SIDE)
    drawn = (image != 255).any(axis=2)
    points = project(prediction.vertices, prediction.cam)[0].numpy() * SIDE / 2 + CENTER
    inside = (points > 1).all(axis=1) & (points < np.array(SIZE[::-1]) - 1).all(axis=1)
    columns, rows = np.floor(points[inside]).astype(int).T
    near = np.zeros_like(drawn)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            near |= np.roll(drawn, (down, right), axis=(0, 1))
    assert near[rows, columns].all()
    assert np.flatnonzero(drawn.any(axis=0)).min() >= np.floor(points[inside, 0].min()) - 1


def test_a_body_outside_of_the_image_is_not_drawn(body):
    prediction, image = predicted(body), np.full((*SIZE, 3), 255, np.uint8)
    cam, faces = prediction.cam[0].numpy(), np.asarray(body.faces)
    draw_in_image(image, prediction.vertices[0].numpy(), faces, cam, np.array([900.0, 80.0]), SIDE)
    assert (image == 255).all()


class Shown:
    """A window that is closed by the user when it has shown two pictures."""

    def __init__(self):
        self.pictures, self.is_open = [], True

    def show(self, rgb):
        self.pictures.append(rgb)
        if len(self.pictures) == 2:
            raise KeyboardInterrupt

    def close(self):
        self.is_open = False


def test_a_window_shows_what_the_video_gets_and_closing_it_ends_the_run_with_its_files(body, tmp_path):
    live = Live(age=lambda seconds: 0.1)
    live.window = window = Shown()
    results = footage_results(tmp_path, body, 3, live=live)
    with pytest.raises(KeyboardInterrupt), recorded(results):
        for index in range(3):
            results.add(footage_frame(index), predicted(body), [SCORES], {}, [False])
    assert not window.is_open and window.pictures[0].shape == (SIZE[0], SIZE[1] + SIZE[0], 3)
    with av.open(str(tmp_path / "overlay.mp4")) as video:
        assert len(list(video.decode(video=0))) == 2
    with np.load(tmp_path / "predictions.npz") as file:
        assert file["index"].tolist() == [0, 1]


def test_without_a_display_there_is_no_window(monkeypatch, caplog):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with caplog.at_level("INFO"):
        assert open_window("camera0") is None
    assert "no display" in caplog.text


def test_a_run_without_anybody_leaves_a_video_and_no_predictions(body, tmp_path):
    results = footage_results(tmp_path, body, None, export="glb")
    for index in range(2):
        results.add(footage_frame(index), None)
    results.close()
    names = {file.name for file in tmp_path.iterdir()}
    assert {"overlay.mp4", "scores.csv"} <= names and not names & {"predictions.npz", "animation.glb"}


def test_a_video_on_a_full_disk_is_one_line_and_keeps_what_it_has(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", 10)
    frames = np.random.default_rng(0).integers(0, 255, (140, 64, 64, 3), dtype=np.uint8)
    for frame in frames[:100]:
        writer.add(frame)

    def full(packet=None):
        raise OSError(28, "No space left on device")

    class Container:
        mux = close = staticmethod(full)

    whole, writer.container = writer.container, Container()
    message = r"a\.mp4 cannot be written .*No space left.*free some space"
    with pytest.raises(UserError, match=message):
        for frame in frames[100:]:
            writer.add(frame)
    with pytest.raises(UserError, match=message):
        writer.close()
    del whole
    assert not list(tmp_path.glob(".*"))
    with av.open(str(tmp_path / "a.mp4")) as video:
        assert 0 < len(list(video.decode(video=0))) < 100


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("a small disk can only be made by root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_that_fills_up_keeps_video_and_scores(body, small_disk):
    results = footage_results(small_disk / "run", body, None)
    noise, count = np.random.default_rng(0), 0
    with pytest.raises(UserError, match=r"cannot be written .*No space left.*free some space"), recorded(results):
        while count < 500:
            frame = footage_frame(count)
            frame["rgb"] = torch.from_numpy(noise.integers(0, 255, (1, *SIZE, 3), dtype=np.uint8))
            results.add(frame, predicted(body), [SCORES], {}, [True])
            count += 1
    assert 5 < count < 500
    rows = list(csv.DictReader((small_disk / "run" / "scores.csv").open()))
    assert abs(len(rows) - count) <= 1
    assert json.loads((small_disk / "run" / "summary.json").read_text())["frames"] == len(rows)
    with av.open(str(small_disk / "run" / "overlay.mp4")) as video:
        assert 0 < len(list(video.decode(video=0))) <= len(rows)
    assert not list((small_disk / "run").glob(".*"))


def test_an_npz_on_a_full_disk_is_one_line(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("sys.unraisablehook", said.append)
    (tmp_path / ".a.part.npz").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"a\.npz cannot be written .*No space left"):
        save_npz(tmp_path / "a.npz", numbers=np.zeros(100_000))
    gc.collect()
    assert not said and not list(tmp_path.iterdir())


def test_full_camera_of_a_crop_in_the_middle_is_the_crops():
    found = full_camera(np.array([0.8, 0.0, 0.0]), np.array([120.0, 90.0]), 100.0, SIZE)
    np.testing.assert_allclose(found["cam_full"], [40, 120, 90])
    np.testing.assert_allclose(found["translation"], [0, 0, np.hypot(*SIZE) / 40])


# smoothing


def test_what_moves_evenly_stays_and_jitter_shrinks():
    times = np.arange(200) / 30
    straight = np.outer(times, [3.0, -1.0, 0.2])
    np.testing.assert_allclose(smooth(straight, times)[10:-10], straight[10:-10], atol=1e-12)
    noise = np.random.default_rng(0).normal(0, 0.01, (200, 3))
    assert smooth(noise, times).std() < 0.5 * noise.std()


def test_nothing_is_smoothed_over_a_gap_and_frames_far_apart_stay():
    times = np.concatenate([np.arange(20), np.arange(40, 60)]) / 30
    values = np.repeat([0.0, 5.0], 20)[:, None]
    np.testing.assert_allclose(smooth(values, times), values, atol=1e-12)
    np.testing.assert_array_equal(smooth(values, 100 * times), values)
    assert smooth(values[:1], times[:1]).tolist() == [[0.0]]


def test_smoothed_rotations_are_the_middle_of_what_is_around_them():
    """Against scipy's mean, which minimises the same distance."""
    times, rotations = np.arange(9) / 30, Rotation.random(9, random_state=1)
    found = smooth_rotations(rotations.as_matrix()[:, None], times)
    for frame in range(9):
        weights = np.exp(-(((times - times[frame]) / DEVIATION) ** 2) / 2)
        weights[np.abs(times - times[frame]) > 3 * DEVIATION] = 0
        wanted = rotations.mean(weights=weights).as_matrix()
        np.testing.assert_allclose(found[frame, 0], wanted, atol=1e-6)
