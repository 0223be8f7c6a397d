"""`--verify`: scores once more, from what was predicted."""

import numpy as np
import pytest
import toys
from tiny import write_clip

import boa
from utils.errors import UserError
from utils.files import save_npz


def verified(folder, capsys) -> str:
    capsys.readouterr()
    boa.main(["--verify", str(folder)])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        ([], 8),
        (["--batch_size", "5", "--paper_compat"], 8),
        (["--stride", "2", "--max_frames", "4"], 7),  # no three frames that follow each other, and no acceleration
    ],
)
def test_scores_of_a_data_set_follow_from_its_predictions(command, capsys, flags, count):
    folder = command("x", "--save_predictions", *flags)
    frames = toys.read_summary(folder)["frames"]
    assert f"{frames} frames scored again, {count} scores agree" in verified(folder, capsys)


def test_scores_of_footage_follow_from_its_predictions(command, capsys):
    folder = command("x", *write_clip(command.folder, 36))
    assert "23 frames scored again, 3 scores agree" in verified(folder, capsys)


def test_a_score_that_was_changed_is_found(command):
    folder = command("x", "--save_predictions")
    text = (folder / "scores.csv").read_text()
    cell = text.splitlines()[3].split(",")[-1]
    (folder / "scores.csv").write_text(text.replace(cell, f"{float(cell) + 0.01:.4f}"))
    with pytest.raises(UserError, match=r"image_00003.jpg is .* by predictions.npz"):
        boa.main(["--verify", str(folder)])


def test_a_mean_that_was_changed_is_found(command):
    folder = command("x", "--save_predictions")
    mean = str(toys.read_summary(folder)["pampjpe_mm"])
    text = (folder / "summary.json").read_text()
    (folder / "summary.json").write_text(text.replace(mean, "40.0", 1))
    with pytest.raises(UserError, match=r"the mean of pampjpe_mm is 40.0000, but .* by predictions.npz"):
        boa.main(["--verify", str(folder)])


def test_predictions_of_another_run_are_found(command):
    folder = command("x", "--save_predictions")
    with np.load(folder / "predictions.npz") as file:
        arrays = {name: file[name] for name in file.files}
    save_npz(folder / "predictions.npz", **{**arrays, "betas": arrays["betas"] + 1})
    with pytest.raises(UserError, match=r"by predictions.npz"):
        boa.main(["--verify", str(folder)])
    save_npz(folder / "predictions.npz", **{name: array[:-1] for name, array in arrays.items()})
    with pytest.raises(UserError, match=r"12 frames in scores.csv, 11 in predictions.npz"):
        boa.main(["--verify", str(folder)])


def test_without_predictions_the_flag_is_named(command):
    folder = command("x")
    with pytest.raises(UserError, match=r"predictions.npz is missing; run it again with --save_predictions"):
        boa.main(["--verify", str(folder)])


def test_a_run_can_be_traced(command):
    summary = toys.read_summary(command("x"))
    origin = summary["provenance"]
    assert {"torch", "numpy", "python", "learn2learn"} <= set(origin["versions"])
    assert set(origin["inputs"]) >= {"base_model", "smpl_model_dir", "data", "source", "images", "gmm"}
    assert all(len(file["sha256"]) == 64 for file in origin["inputs"].values())
    assert origin["command"] and summary["protocol"] and "paper_compat" in summary["options"]
