"""The commands as a user types them, what they write, and one clear line for each thing that can be wrong."""

import csv
import pickle
from pathlib import Path

import conftest
import numpy as np
import pytest
import torch
import toys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import boa
import streams
from models.hmr import HMR
from utils.errors import UserError
from utils.files import write_atomically

# what other people's libraries like to say on import or in use
FOREIGN = ("gym", "Warning", "WARNING: You are using", "deprecated", "Traceback")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """README's way from raw data to scores on toys, one command after the other."""
    folder = tmp_path_factory.mktemp("commands")
    world = conftest.make_world(folder)
    toys.write_h36m(folder / "H36M", folder / "mosh", {"S1": ["Walking.54138969"]})
    outputs = []
    for arguments in (
        ("process_data.py", "--dataset", "3dpw"),
        ("process_data.py", "--dataset", "h36m"),
        ("boa.py", "--name", "boa-1", "--expdir", folder, "--save_predictions"),
        ("boa.py", "--name", "base", "--expdir", folder, "--method", "frozen"),
    ):
        result = conftest.run(*arguments, env=world.env)
        assert result.returncode == 0, result.stderr
        outputs.append(result)
    return folder, outputs


@pytest.mark.slow
def test_a_run_writes_every_file(finished):
    folder, _ = finished
    names = {file.name.split(".tfevents")[0] for file in (folder / "boa-1").iterdir()}
    scores = {"mpjpe.npy", "pampjpe.npy", "pme.npy", "ume.npy", "scores.csv", "performance.txt", "summary.json"}
    assert names == scores | {"setting.txt", "predictions.npz", "events.out"}


@pytest.mark.slow
def test_all_files_of_a_run_tell_the_same(finished):
    folder = finished[0] / "boa-1"
    summary = toys.read_summary(folder)
    rows = list(csv.DictReader((folder / "scores.csv").open()))
    assert summary["frames"] == len(rows) == 12
    assert summary["complete"]
    assert len(summary["missing_sequences"]) == 22
    for file, name in (("mpjpe", "mpjpe_mm"), ("pampjpe", "pampjpe_mm"), ("pme", "pve_mm"), ("ume", "ume_mm")):
        metres = np.load(folder / f"{file}.npy")
        assert metres.shape == (12, 1)
        np.testing.assert_allclose(1000 * metres[:, 0], [float(row[name]) for row in rows], atol=1e-3)
        assert summary[name] == pytest.approx(1000 * metres.mean())
    assert [row["sequence"] for row in rows] == ["flat_packBags_00"] * 8 + ["downtown_cafe_00"] * 4
    # the second frame of each person has no valid camera and was dropped
    assert [row["accel_mm"] == "" for row in rows] == [True, True, True, False] * 3
    assert f"MPJPE [mm]: {summary['mpjpe_mm']:.1f}" in (folder / "performance.txt").read_text()
    assert summary["options"]["lr"] == 3e-6


@pytest.mark.slow
def test_predictions_hold_every_frame(finished):
    with np.load(finished[0] / "boa-1" / "predictions.npz") as file:
        shapes = {name: file[name].shape for name in file.files}
        assert file["imgname"][0] == "imageFiles/flat_packBags_00/image_00000.jpg"
        assert abs(np.linalg.det(file["rotmat"]) - 1).max() < 1e-5
    assert shapes == {
        "imgname": (12,),
        "rotmat": (12, 24, 3, 3),
        "betas": (12, 10),
        "cam": (12, 3),
        "joints_3d": (12, 49, 3),
    }


@pytest.mark.slow
def test_tensorboard_has_every_term_and_score(finished):
    events = EventAccumulator(str(finished[0] / "boa-1"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    for level in ("lower", "upper"):
        assert {f"loss/{level}/{term}" for term in ("kp2d", "pose_prior", "shape_prior", "labelled", "total")} <= tags
    assert {"loss/upper/teacher", "score/mpjpe", "score/pampjpe", "score/pve", "score/ume", "score/accel"} <= tags
    assert len(events.Scalars("score/mpjpe")) == 12


@pytest.mark.slow
def test_frozen_scores_the_base_model_and_adaptation_changes_it(finished):
    folder, _ = finished
    frozen, adapted = (np.load(folder / name / "mpjpe.npy") for name in ("base", "boa-1"))
    assert np.isfinite([frozen, adapted]).all()
    assert (frozen != adapted).all()
    assert toys.read_summary(folder / "base")["options"]["method"] == "frozen"


@pytest.mark.slow
def test_other_libraries_say_nothing_and_our_warning_is_seen(finished):
    _, outputs = finished
    for result in outputs:
        assert not [word for word in FOREIGN if word in result.stdout + result.stderr], result.stderr
    assert "WARNING: 22 of 24 sequences are not in" in outputs[2].stderr


def test_importing_boa_reads_no_file_and_chooses_no_device(tmp_path):
    code = (
        "import sys; opened = []\n"
        "sys.addaudithook(lambda event, a: opened.append(str(a[0])) if event == 'open' else None)\n"
        "import boa, torch\n"
        "print([name for name in opened if name.endswith(('.npz', '.npy', '.pkl', '.pt', '.jpg'))],"
        " torch.cuda.is_initialized(), 'learn2learn' in sys.modules)"
    )
    result = conftest.run("-c", code, env={"BOA_DATA": str(tmp_path / "nowhere")})
    assert result.stdout.strip() == "[] False False", result.stderr


def test_help_needs_no_data(tmp_path):
    result = conftest.run("boa.py", "--help", env={"BOA_DATA": str(tmp_path / "nowhere")})
    assert result.returncode == 0
    for flag in ("--metalr", "--prev_n", "--first_order", "--consistent_s3d_weight", "--paper_compat", "--device"):
        assert flag in result.stdout


def test_an_error_is_one_line_and_exit_code_2(tmp_path):
    result = conftest.run("boa.py", "--name", "x", "--expdir", tmp_path, env={"BOA_DATA": str(tmp_path / "nowhere")})
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert "SMPL_NEUTRAL.pkl is missing; run `python process_data.py --dataset smpl`" in lines[0]
    assert "without any download, `python boa.py --name demo --dataset_name synthetic` runs now" in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.fixture
def attempt(own_world, monkeypatch, tmp_path):
    """Run boa.py in this process on toys that the test has damaged -> the error's message."""
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream)

    def run(*arguments: str) -> str:
        with pytest.raises(UserError) as caught:
            boa.main(["--name", "x", "--expdir", str(tmp_path / "out"), *arguments])
        message = str(caught.value)
        assert "\n" not in message
        return message

    run.world, run.out = own_world.stream, tmp_path / "out" / "x"
    return run


def rewrite(file, **changes) -> None:
    """Change arrays of an npz; None takes one away."""
    with np.load(file) as old:
        arrays = {**{name: old[name] for name in old.files}, **changes}
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})


def test_without_a_base_model(attempt):
    attempt.world.assets.base_model.unlink()
    assert "basemodel.pt is missing; get the base model" in attempt()


def test_with_a_checkpoint_of_another_architecture(attempt, tmp_path):
    state = {name: value for name, value in HMR(toys.mean_params(), 18).state_dict().items() if "layer4" not in name}
    torch.save({"model": state}, tmp_path / "other.pt")
    message = attempt("--model_file", str(tmp_path / "other.pt"))
    assert "other.pt" in message
    assert "lacks layer4.0.conv1.weight" in message


def test_with_a_checkpoint_that_runs_code(attempt, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "marker"), "w"))

    torch.save({"model": Hostile()}, tmp_path / "hostile.pt")
    assert "hostile.pt is no checkpoint that can be read safely" in attempt(
        "--model_file", str(tmp_path / "hostile.pt")
    )
    assert not (tmp_path / "marker").exists()


def test_with_a_truncated_checkpoint(attempt):
    file = attempt.world.assets.base_model
    file.write_bytes(file.read_bytes()[:1000])
    assert "basemodel.pt is no checkpoint that can be read safely" in attempt()


def test_with_a_hostile_pose_prior(attempt, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "marker"), "w"))

    attempt.world.assets.gmm.write_bytes(pickle.dumps({"means": Hostile()}))
    assert "gmm_08.pkl cannot be read safely" in attempt()
    assert not (tmp_path / "marker").exists()


def test_with_a_regressor_of_another_mesh(attempt):
    np.save(attempt.world.assets.regressor_h36m, np.zeros((17, 6890)))
    assert f"J_regressor_h36m.npy has shape (17, 6890) where (17, {toys.VERTICES}) is needed" in attempt()


@pytest.mark.parametrize("key", ["smpl_j2d", "pose", "gender"])
def test_with_an_npz_that_lacks_a_key(attempt, key):
    rewrite(attempt.world.target.annotations / "downtown_cafe_00.npz", **{key: None})
    assert f"downtown_cafe_00.npz lacks {key}; run `python process_data.py --dataset 3dpw`" in attempt()


def test_with_an_npz_of_other_shapes(attempt):
    rewrite(
        attempt.world.target.annotations / "downtown_cafe_00.npz", smpl_j2d=np.zeros((4, 49, 3)), pose=np.zeros((3, 72))
    )
    assert "pose has shape" in attempt()


def test_with_an_empty_sequence(attempt):
    file = attempt.world.target.annotations / "downtown_cafe_00.npz"
    with np.load(file) as old:
        empty = {name: old[name][:0] for name in old.files}
    np.savez(file, **empty)
    assert "downtown_cafe_00.npz holds no frame" in attempt()


def test_with_a_truncated_npz(attempt):
    file = attempt.world.target.annotations / "downtown_cafe_00.npz"
    file.write_bytes(file.read_bytes()[:300])
    assert "downtown_cafe_00.npz cannot be read" in attempt()


def test_without_converted_data(attempt):
    for file in attempt.world.target.annotations.iterdir():
        file.unlink()
    assert "none of the test sequences of 3DPW; run `python process_data.py --dataset 3dpw`" in attempt()


def test_without_a_source(attempt):
    attempt.world.source.annotations.unlink()
    message = attempt()
    assert "h36m_train.npz is missing; run `python process_data.py --dataset h36m`" in message
    assert "--labelloss_weight 0" in message


def test_without_3dpw_the_free_benchmark_is_named(own_world, monkeypatch, tmp_path):
    target = streams.PW3D._replace(annotations=tmp_path / "nowhere")
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream._replace(target=target))
    with pytest.raises(UserError, match=r"process_data\.py --dataset 3dpw.*`--dataset_name synthetic` runs now"):
        boa.main(["--name", "x", "--expdir", str(tmp_path)])


def test_a_stream_may_have_defaults_of_its_own_and_a_flag_overrules_them(own_world, monkeypatch, tmp_path):
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream._replace(defaults={"lr": 1e-5, "metalr": 2e-5}))
    boa.main(["--name", "x", "--expdir", str(tmp_path), "--metalr", "0", "--labelloss_weight", "0"])
    options = toys.read_summary(tmp_path / "x")["options"]
    assert (options["lr"], options["metalr"], options["beta1"]) == (1e-5, 0, 0.5)


def test_a_run_without_source_does_not_open_it(own_world, monkeypatch, tmp_path):
    own_world.stream.source.annotations.unlink()
    monkeypatch.setitem(streams.STREAMS, "3dpw", own_world.stream)
    boa.main(["--name", "x", "--expdir", str(tmp_path), "--labelloss_weight", "0"])
    assert toys.read_summary(tmp_path / "x")["complete"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "text"])
def test_with_a_damaged_image_the_scores_so_far_are_saved(attempt, damage):
    image = attempt.world.target.images / "imageFiles/flat_packBags_00/image_00003.jpg"
    whole = image.read_bytes()
    image.unlink()
    if damage != "missing":
        image.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"not an image")
    message = attempt()
    assert "image_00003.jpg is " + ("missing" if damage == "missing" else "no readable image") in message
    summary = toys.read_summary(attempt.out)
    assert (summary["frames"], summary["complete"]) == (2, False)
    assert len(np.load(attempt.out / "mpjpe.npy")) == 2


def test_with_a_loss_that_is_not_finite_the_frame_is_named(attempt):
    file = attempt.world.target.annotations / "flat_packBags_00.npz"
    with np.load(file) as old:
        keypoints = old["smpl_j2d"]
    keypoints[2, :, 2] = 3e38  # a confidence that float32 cannot multiply by the weight of the loss
    rewrite(file, smpl_j2d=keypoints)
    message = attempt("--save_predictions")
    assert "upper/total" in message
    assert "not finite at imageFiles/flat_packBags_00/image_00003.jpg" in message
    summary = toys.read_summary(attempt.out)
    assert (summary["frames"], summary["complete"]) == (2, False)
    assert len(np.load(attempt.out / "predictions.npz")["imgname"]) == 2


def test_with_a_prediction_that_is_not_finite_the_frame_is_named(attempt):
    message = attempt("--lr", "1e38")
    assert "prediction not finite at imageFiles/flat_packBags_00/image_00000.jpg" in message


def test_an_earlier_run_is_not_overwritten_unasked(attempt):
    attempt.out.mkdir(parents=True)
    (attempt.out / "scores.csv").write_text("precious")
    for flags in ([], ["--overwrite"]):
        assert "x holds files that are not of a run; choose another --name" in attempt(*flags)
    (attempt.out / "setting.txt").write_text("name: x")
    assert "holds an earlier run; choose another --name, or replace it by --overwrite" in attempt()
    assert (attempt.out / "scores.csv").read_text() == "precious"
    boa.main(["--name", "x", "--expdir", str(attempt.out.parent), "--overwrite", "--method", "frozen"])
    assert toys.read_summary(attempt.out)["frames"] == 12


@pytest.mark.parametrize("name", ["../x", "..", ".", "", "a/b", "/", "..\n"])
def test_a_name_that_is_none_of_a_folder_is_refused(attempt, name):
    attempt.out.parent.mkdir()
    precious = attempt.out.parent / "scores.csv"
    precious.write_text("precious")
    assert "is no name of a folder" in attempt("--name", name, "--overwrite")
    assert precious.read_text() == "precious"


def test_a_gpu_that_is_not_there(attempt):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for device in ("cuda", "cuda:7"):
        assert "finds no GPU here; use --device cpu" in attempt("--device", device)


@pytest.mark.parametrize("device", ["gpu", "mps", "cpu:x", "meta", "cuda:-1"])
def test_a_device_that_is_none_is_one_line(attempt, device):
    assert f"--device {device}" in attempt("--device", device)


def test_a_full_disk_is_one_line(attempt):
    # /dev/full takes nothing, as a full disk
    attempt.out.mkdir(parents=True)

    def fill(path: Path) -> None:
        Path("/dev/full").write_text("x" * 10**6)

    with pytest.raises(UserError, match=r"scores\.csv cannot be written .*No space left.*free some space"):
        write_atomically(attempt.out / "scores.csv", fill)
    assert not list(attempt.out.iterdir())
