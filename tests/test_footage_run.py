"""The loop and the command on one's own video."""

import json
import os
import shutil
from pathlib import Path

import av
import conftest
import numpy as np
import pytest
import torch
import toys
from videos import FRAMES, Clip, encode, figure

import boa
import streams
from datasets.base import batches
from footage.people import Footage
from footage.video import Video
from models.prior import PosePrior
from utils.errors import UserError
from utils.evaluation import FootageScorer
from utils.joints import COCO17, JOINTS49, rows

ALL = slice(None)


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


def test_memory_does_not_grow_with_the_clip(tmp_path):
    encode(tmp_path / "long.mp4", list(range(1200)), size=(160, 120))
    own = Clip(tmp_path, np.repeat(figure(80, 60, 80)[None], 1200, axis=0))
    openpose = own.openpose()
    peaks = [
        float(conftest.run_script("footage_memory.py", tmp_path / "long.mp4", openpose, count, tmp_path / str(count)))
        for count in (300, 1200)
    ]
    assert peaks[1] - peaks[0] < 10, peaks  # MB; of 3,000 frames less than 30


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
            *("--keypoints", str(clip.openpose()), "--max_frames", "3", "--export", "both"),
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


def test_the_command_tells_at_the_end_what_was_odd_and_writes_names_that_are_no_text(tmp_path, clip, caplog):
    """A folder from a Chinese Windows, with a photograph that is not read and joints of one image too many."""
    stem = os.fsdecode("动作".encode("gbk"))
    images = tmp_path / "images"
    images.mkdir()
    for frame in range(3):
        shutil.copy(clip.pictures / f"{frame}.png", images / f"{stem}_{frame}.png")
    (images / "IMG_0001.HEIC").write_bytes(b"photograph")
    own = Clip(tmp_path, clip.joints[:4])
    joints = own.openpose(name=stem + "_{}_keypoints.json")
    boa.main(
        [
            *("--name", "names", "--expdir", str(tmp_path), "--video", str(images), "--keypoints", str(joints)),
            *("--method", "frozen", "--export", "bvh", "--model_file", str(streams.DEMO_ASSETS.base_model)),
        ]
    )
    summary = json.loads((tmp_path / "names" / "summary.json").read_text())
    assert summary["complete"] and summary["frames"] == 3
    assert summary["files_not_read"] == {".heic": 1} and summary["keypoints_unused"] == 1
    assert "entries of other clips or images: 1" in caplog.text and "files that are not read: 1 .heic" in caplog.text
    assert "_2.png" in (tmp_path / "names" / "scores.csv").read_text(encoding="utf-8")
    with np.load(tmp_path / "names" / "predictions.npz") as file:
        assert [name.encode()[-6:] for name in file["imgname"]] == [b"_0.png", b"_1.png", b"_2.png"]
    assert (tmp_path / "names" / "animation.bvh").exists() and (tmp_path / "names" / "setting.txt").exists()
