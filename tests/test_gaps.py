"""Files that are bad at their source: the rest is converted, and what lacks is named, in the file and in every run."""

import json
import logging
from pathlib import Path

import conftest
import numpy as np
import pytest
import toys
from damage import arrays, cut, emptied, gone

import boa
import streams
from datasets import h36m as stream_h36m
from datasets import mpi_inf_3dhp as stream_3dhp
from utils.data_preprocess import h36m, mpi_inf_3dhp, pw3d
from utils.data_preprocess.conversion import Settings
from utils.errors import UserError
from utils.files import read_record

BAD, FRONTAL = "54138969", h36m.FRONTAL
NAMES = [f"{action}.{camera}" for action in ("Directions", "Walking") for camera in (BAD, FRONTAL)]
VIDEO = f"H36M/S11/Videos/Directions.{BAD}.mp4"


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Human3.6M's scored subjects as distributed: a video of S11 is damaged."""
    toys.write_h36m(tmp_path / "H36M", tmp_path / "mosh", {subject: NAMES for subject in ("S9", "S11")})
    video = tmp_path / VIDEO
    video.write_bytes(video.read_bytes()[:300])
    return tmp_path


def protocols(folder: Path) -> dict[int, Path]:
    return {protocol: folder / f"h36m_valid_protocol{protocol}.npz" for protocol in (1, 2)}


@pytest.mark.slow
def test_the_commands_go_on_without_the_damaged_video_of_human36m(scored):
    env = toys.environment(scored)
    toys.write_assets(scored / "data")
    command = ("process_data.py", "--dataset", "h36m", "--split", "valid")
    result = conftest.run(*command, env=env)
    assert result.returncode == 3
    assert "Traceback" not in result.stderr
    assert f"Directions.{BAD}.mp4 cannot be decoded" in result.stderr
    assert "7 of 8 sequences converted, 0 of them before\n" in result.stderr
    assert f"done without S11_Directions.{BAD} (see above)" in result.stderr
    again = conftest.run(*command, env=env)
    assert again.returncode == 3
    assert "7 of 8 sequences converted, 7 of them before" in again.stderr
    for name, missing in (("h36m-p1", [f"S11_Directions.{BAD}"]), ("h36m-p2", [])):
        arguments = ("--name", name, "--expdir", scored, "--dataset_name", name, "--method", "frozen")
        result = conftest.run("boa.py", *arguments, env=env)
        assert result.returncode == 0, result.stderr
        assert toys.read_summary(scored / name)["missing_sequences"] == missing
        assert (f"is without S11_Directions.{BAD}" in result.stderr) == bool(missing)


def test_each_protocol_of_human36m_names_only_what_it_lacks_itself(scored):
    files = protocols(scored)
    assert h36m.convert_valid(scored / "H36M", files) == [f"S11_Directions.{BAD}"]
    frames = {protocol: stream_h36m.open_stream(scored / "H36M", file, "-")[0] for protocol, file in files.items()}
    assert frames[1].missing == [f"S11_Directions.{BAD}"] and frames[2].missing == []
    sequences = [f"{subject}_{name}" for subject in ("S9", "S11") for name in sorted(NAMES)]
    assert set(frames[1].columns["sequence"]) == {*sequences} - {*frames[1].missing}
    assert set(frames[2].columns["sequence"]) == {name for name in sequences if name.endswith(FRONTAL)}
    assert "missing" not in arrays(files[2])


def test_a_subject_that_is_not_there_at_all_is_missing_from_both_protocols(tmp_path, caplog):
    toys.write_h36m(tmp_path / "H36M", tmp_path / "mosh", {"S9": NAMES[:2]})
    assert h36m.convert_valid(tmp_path / "H36M", protocols(tmp_path)) == ["S11"]
    assert "S11 is not in" in caplog.text
    assert [arrays(file)["missing"].tolist() for file in protocols(tmp_path).values()] == [["S11"], ["S11"]]
    with pytest.raises(UserError, match="S11 is not there; do without --strict, or download it"):
        h36m.convert_valid(tmp_path / "H36M", protocols(tmp_path), Settings(strict=True))


def test_strict_stops_before_anything_is_joined_and_the_parts_are_kept(scored):
    with pytest.raises(UserError, match="1 of 8 sequences could not be converted"):
        h36m.convert_valid(scored / "H36M", protocols(scored), Settings(strict=True))
    assert not any(file.exists() for file in protocols(scored).values())
    assert len(list((scored / "parts/h36m_valid_protocol1").glob("*.npz"))) == 7


def test_a_file_without_the_array_of_what_lacks_is_read_as_before(scored):
    files = protocols(scored)
    h36m.convert_valid(scored / "H36M", files)
    columns = arrays(files[1])
    del columns["missing"]
    np.savez(scored / "old.npz", **columns)
    assert stream_h36m.open_stream(scored / "H36M", scored / "old.npz", "-")[1] == []


def test_the_labelled_source_says_what_it_lacks(tmp_path, caplog):
    toys.write_h36m(tmp_path / "H36M", tmp_path / "mosh", {"S1": NAMES[:2], "S5": NAMES[2:]})
    emptied(tmp_path / f"H36M/S5/MySegmentsMat/ground_truth_bb/Walking.{BAD}.mat")
    h36m.convert(tmp_path / "H36M", tmp_path / "mosh", tmp_path / "h36m_train.npz")
    source = stream_h36m.open_source(tmp_path / "H36M", tmp_path / "h36m_train.npz", "-")
    assert source.missing == [f"S5_Walking.{BAD}"]
    assert f"h36m_train.npz is without S5_Walking.{BAD}, which could not be converted" in caplog.text


@pytest.mark.parametrize("damage", [gone, emptied, cut])
def test_a_bad_video_of_3dhp_costs_its_sequence_that_camera_only(tmp_path, damage, caplog):
    toys.write_3dhp_train(tmp_path, ("S6/Seq1", "S6/Seq2"), frames=11)
    video = tmp_path / "S6/Seq2/imageSequence/video_2.avi"
    whole = video.read_bytes()
    damage(video)
    output = tmp_path / "train.npz"
    assert mpi_inf_3dhp.convert_train(tmp_path, output) == ["S6_Seq2_video_2"]
    (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert line.startswith("S6_Seq2_video_2: ") and "video_2.avi" in line
    columns = arrays(output)
    assert columns["missing"].tolist() == ["S6_Seq2_video_2"]
    videos = [tuple(name.split("/")[:2] + name.split("/")[3:4]) for name in columns["imgname"].tolist()]
    assert ("S6", "Seq2", "video_2") not in videos
    assert len(set(videos)) == 15
    assert all(len(column) == len(videos) for name, column in columns.items() if name != "missing")
    with pytest.raises(UserError, match="S6_Seq2_video_2 could not be converted"):
        mpi_inf_3dhp.convert_train(tmp_path, tmp_path / "strict.npz", settings=Settings(strict=True))
    video.write_bytes(whole)
    assert mpi_inf_3dhp.convert_train(tmp_path, output) == []
    assert len(arrays(output)["imgname"]) == len(videos) + 2


def test_a_sequence_of_the_test_set_of_3dhp_that_is_bad_is_named_by_every_run(raw, world, tmp_path, monkeypatch):
    file = raw / "MPI_INF_3DHP/mpi_inf_3dhp_test_set/TS4/annot_data.mat"
    whole = file.read_bytes()
    cut(file)
    try:
        mpi_inf_3dhp.convert_test(raw / "MPI_INF_3DHP", tmp_path / "test.npz")
    finally:
        file.write_bytes(whole)
    target = streams.HP3D._replace(images=raw / "MPI_INF_3DHP", annotations=tmp_path / "test.npz")
    stream = streams.STREAMS["mpi-inf-3dhp"]._replace(target=target, assets=world.stream.assets)
    monkeypatch.setitem(streams.STREAMS, "mpi-inf-3dhp", stream)
    boa.main(["--name", "x", "--expdir", str(tmp_path), "--dataset_name", "mpi-inf-3dhp", "--method", "frozen"])
    assert toys.read_summary(tmp_path / "x")["missing_sequences"] == ["TS4"]


def test_what_a_sequence_became_with_other_settings_does_not_stay_when_it_fails(raw, bodies, tmp_path):
    pw3d.convert(raw / "3DPW", tmp_path, bodies, paper_compat=True)
    file = raw / "3DPW/sequenceFiles/test/downtown_bus_00.pkl"
    whole = file.read_bytes()
    cut(file)
    try:
        assert pw3d.convert(raw / "3DPW", tmp_path, bodies) == ["downtown_bus_00"]
    finally:
        file.write_bytes(whole)
    assert sorted(part.stem for part in tmp_path.glob("*.npz")) == ["downtown_bar_00", "flat_guitar_01"]


def test_a_file_of_another_origin_stays_when_its_sequence_fails(raw, bodies, tmp_path):
    np.savez(tmp_path / "downtown_bus_00.npz", imgname=np.array(["a"]))
    file = raw / "3DPW/sequenceFiles/test/downtown_bus_00.pkl"
    whole = file.read_bytes()
    cut(file)
    try:
        pw3d.convert(raw / "3DPW", tmp_path, bodies)
    finally:
        file.write_bytes(whole)
    assert arrays(tmp_path / "downtown_bus_00.npz")["imgname"].tolist() == ["a"]


def test_where_nothing_can_be_converted_it_is_an_error(raw, bodies, tmp_path):
    toys.write_3dpw(tmp_path / "3DPW", {"downtown_bus_00": "f"})
    cut(tmp_path / "3DPW/sequenceFiles/test/downtown_bus_00.pkl")
    with pytest.raises(UserError, match="1 of 1 sequences could not be converted"):
        pw3d.convert(tmp_path / "3DPW", tmp_path / "out", bodies)


def test_a_file_that_cannot_be_written_is_no_gap(raw, bodies, tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot be written .*choose another folder"):
        pw3d.convert(raw / "3DPW", tmp_path / "out", bodies)


# which of its two annotations a file of MPI-INF-3DHP holds


@pytest.fixture(scope="module")
def test_set(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("converted") / "mpi_inf_3dhp_test.npz"
    mpi_inf_3dhp.convert_test(raw / "MPI_INF_3DHP", file)
    return file


def annotation(file: Path, **columns: np.ndarray) -> str:
    if columns:
        np.savez(file, **columns)
    return stream_3dhp.open_stream(Path(), file, "-")[0].annotation


def foreign(test_set: Path, sizes: list[float]) -> dict[str, np.ndarray]:
    """The columns that SPIN's and the published code's file have, with people of so many times the size."""
    columns = {name: arrays(test_set)[name] for name in ("imgname", "center", "scale", "part", "S")}
    columns["S"][..., :3] *= np.repeat(sizes, 2)[:, None, None]
    return columns


def test_a_file_of_ours_holds_the_true_sizes(test_set, tmp_path):
    assert annotation(test_set) == "annot3"
    assert annotation(tmp_path / "saved_again.npz", **arrays(test_set)) == "annot3"
    assert json.dumps(read_record(test_set))  # made before there was a word on it


def test_people_of_one_size_are_the_universal_annotation(test_set, tmp_path):
    found = annotation(tmp_path / "a.npz", **foreign(test_set, [0.9] * 6))
    assert found == "univ_annot3 (everybody has the same size)"


def test_people_of_several_sizes_are_the_true_annotation(test_set, tmp_path):
    found = annotation(tmp_path / "a.npz", **foreign(test_set, [0.9, 1.0, 1.02, 0.95, 1.1, 0.97]))
    assert found == "annot3 (people differ in size)"


@pytest.mark.parametrize("sizes", [[1.0, 1.02, 1.03, 1.0, 1.01, 1.02]])
def test_a_file_that_does_not_tell_is_presumed_to_be_spin_s(test_set, tmp_path, sizes):
    columns = foreign(test_set, sizes)
    assert annotation(tmp_path / "a.npz", **columns).startswith("univ_annot3 (presumably")
    first = {name: column[:2] for name, column in columns.items()}
    assert annotation(tmp_path / "a.npz", **first).startswith("univ_annot3 (presumably")


def test_the_part_of_a_stream_keeps_what_is_known_of_it(test_set):
    frames = stream_3dhp.open_stream(Path(), test_set, "-")[0]
    assert frames.part(2, 3).annotation == "annot3"
    assert frames.without("activity").missing == frames.missing
