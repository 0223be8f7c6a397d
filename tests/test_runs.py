"""What a run goes through and where it is written, by the program's own entry."""

import csv
import json
import shutil
import subprocess
import sys

import conftest
import cv2
import numpy as np
import pytest
import torch
import toys

import boa
import compare
import runs
import streams
from datasets.base import batches
from models.prior import PosePrior
from synthetic import version
from utils.errors import UserError, run_command
from utils.files import load_npz


@pytest.fixture
def main(own_world, monkeypatch, tmp_path):
    """Run boa.py in this process on toys -> the folder of the run."""
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream)

    def run(*flags: str, name: str = "x"):
        boa.main(["--name", name, "--expdir", str(tmp_path / "out"), *flags])
        return tmp_path / "out" / name

    run.world = own_world
    return run


def rows_of(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "scores.csv").open()))


def test_a_part_of_a_stream_has_the_frames_that_were_asked_for(main):
    whole = rows_of(main("--method", "frozen"))
    part = rows_of(main("--method", "frozen", "--stride", "3", "--max_frames", "3", name="part"))
    assert [row["image"] for row in part] == [row["image"] for row in whole[:9:3]]
    assert [row["mpjpe_mm"] for row in part] == [row["mpjpe_mm"] for row in whole[:9:3]]
    assert toys.read_summary(main("--method", "frozen", "--max_frames", "3", name="few"))["complete"]


def test_frames_that_were_not_adapted_to_are_counted(main):
    assert toys.read_summary(main("--method", "frozen"))["frames_not_adapted"] == 12
    assert toys.read_summary(main("--labelloss_weight", "0", name="boa"))["frames_not_adapted"] == 0


def test_a_summary_says_what_stopped_a_run(main, monkeypatch):
    assert toys.read_summary(main("--method", "frozen", name="whole"))["stopped"] is None
    (main.world.stream.target.images / "imageFiles/flat_packBags_00/image_00003.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="no readable image"):
        main("--method", "frozen")
    folder = main.world.folder / "out" / "x"
    assert "no readable image" in toys.read_summary(folder)["stopped"]


def test_a_summary_says_that_a_loss_was_not_finite(main):
    file = main.world.stream.target.annotations / "flat_packBags_00.npz"
    with np.load(file) as old:
        arrays = dict(old)
    arrays["smpl_j2d"][2, :, 2] = 3e38  # a confidence that float32 cannot multiply by the weight of the loss
    np.savez(file, **arrays)
    with pytest.raises(UserError, match="not finite"):
        main("--labelloss_weight", "0")
    summary = toys.read_summary(main.world.folder / "out" / "x")
    assert (summary["stopped"], summary["frames"]) == ("not finite", 2)


def test_a_run_that_stops_in_its_first_frame_says_why(main):
    (main.world.stream.target.images / "imageFiles/flat_packBags_00/image_00000.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="no readable image"):
        main("--method", "frozen")
    summary = toys.read_summary(main.world.folder / "out" / "x")
    assert summary["frames"] == 0 and not summary["complete"] and "no readable image" in summary["stopped"]


def test_a_gpu_that_is_out_of_memory_in_the_probe_is_called_that(main, monkeypatch, caplog):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")

    monkeypatch.setattr(torch.autograd, "grad", full)
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: main("--labelloss_weight", "0"))
    assert caught.value.code == 2
    assert "the GPU is out of memory; use --first_order" in caplog.text


def test_runs_too_short_for_every_score_are_compared(main, capsys):
    one, other = (main("--method", "frozen", "--max_frames", "1", name=name) for name in ("one", "other"))
    compare.main([str(one), str(other)])
    table = capsys.readouterr().out
    assert "(+0 %)" in table and "accel" not in table.splitlines()[-3]
    assert (other / "comparison.png").exists()


def footage_run(folder, **scores: str):
    """What a run on footage leaves, as far as it is compared."""
    folder.mkdir()
    values = {"index": "0", "person": "1", "image": "a", "adapted_share_of_box": "0.02", "accel_mm": "", **scores}
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, values)
        writer.writeheader()
        writer.writerows([values, {**values, "index": "1", "accel_mm": "3.0"}])
    numbers = {"adapted_share_of_box": 0.02, "accel_mm": 3.0, "frames_per_second": 1.0, "options": {"video": "a.mp4"}}
    (folder / "summary.json").write_text(json.dumps(numbers))
    return folder


def test_runs_on_footage_are_compared_by_what_they_have(tmp_path, capsys):
    compare.main([str(footage_run(tmp_path / "a")), str(footage_run(tmp_path / "b"))])
    assert "2D error [% of the box]" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--video is for runs on a data set; a run on footage has its overlay\.mp4"):
        compare.main([str(tmp_path / "a"), str(tmp_path / "b"), "--video"])


def test_the_source_of_footage_with_smpl_is_human36m_or_lacks_the_free_bodys_shapes(tmp_path, monkeypatch, world):
    toys.write_source(tmp_path, tmp_path / "h36m_train.npz")
    free = streams.Recording(tmp_path, tmp_path / "h36m_train.npz", "-")
    monkeypatch.setattr(streams, "WILD", free)
    monkeypatch.setattr(version, "is_current", lambda *_: True)
    monkeypatch.setattr(streams, "H36M", free._replace(annotations=tmp_path / "nowhere.npz"))
    assert "betas" in runs.open_footage_source(streams.FOOTAGE_ASSETS)[0]
    assert "betas" not in runs.open_footage_source(streams.ASSETS)[0]
    monkeypatch.setattr(streams, "H36M", world.stream.source)
    own = runs.open_footage_source(streams.ASSETS)
    assert own.images == world.stream.source.images and "betas" in own[0]


def test_the_labelled_term_without_betas_is_the_sum_of_the_others(world, bodies, frames):
    model = toys.TinyRegressor().eval()
    learner = boa.make_learner(model, bodies["neutral"], PosePrior(world.stream.assets.gmm), boa.Options())
    source = streams.open_source(world.stream.source)
    batch = next(iter(batches(source, 1)))
    prediction = learner.predict(batch)
    terms = boa.labelled_terms(prediction, {name: value for name, value in batch.items() if name != "betas"})
    whole = boa.labelled_terms(prediction, batch)
    assert "labelled/betas" not in terms
    expected = whole["labelled"] - 0.001 * whole["labelled/betas"]
    torch.testing.assert_close(terms["labelled"], expected)


def test_boa_runs_from_another_folder_on_a_clip_beside_it(tmp_path):
    """The program finds its own files from anywhere; results are where they are asked for."""
    images = tmp_path / "clip"
    images.mkdir()
    joints = []
    for index in range(2):
        cv2.imwrite(str(images / f"{index}.png"), np.full((120, 160, 3), 90, np.uint8))
        person = np.stack([np.linspace(40, 90, 25), np.linspace(20, 110, 25), np.full(25, 0.9)], axis=1)
        joints.append(person)
        (images / f"{index}_keypoints.json").write_text(
            f'{{"people": [{{"pose_keypoints_2d": {person.ravel().tolist()}}}]}}'
        )
    openpose = tmp_path / "openpose"
    openpose.mkdir()
    for file in images.glob("*.json"):
        shutil.move(file, openpose / file.name)
    command = [sys.executable, str(conftest.PROJECT / "boa.py"), "--name", "x", "--video", "clip"]
    flags = ["--keypoints", "openpose", "--method", "frozen"]
    result = subprocess.run([*command, *flags], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    predictions = load_npz(tmp_path / "experiments/x/predictions.npz", ["index"], "-")
    assert predictions["index"].tolist() == [0, 1]
