"""What is rendered is rendered again when renderer, body or seed changed, and never passes for complete too early."""

import json
import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT
from places import DEMO

import config
import process_data
import runs
import streams
from synthetic import props, stream, version
from synthetic.body import body_files
from synthetic.lab import Lab
from synthetic.wild import Wild
from utils.errors import UserError
from utils.image import read_rgb

GOLDEN = Path(__file__).with_name("rendered.json")


@pytest.fixture
def body_dir(tmp_path):
    """A body of which only the files' names are right."""
    for file in body_files(DEMO):
        copy = tmp_path / "body" / file.relative_to(DEMO)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.name)
    return tmp_path / "body"


@pytest.fixture
def rendered(monkeypatch):
    """The folders that were rendered, by stand-ins that write one file each."""
    calls = []

    def write(output: Path, name: str) -> None:
        calls.append(name)
        (output / "images").mkdir(parents=True)
        (output / "images" / f"{len(calls)}.jpg").write_text(name)

    monkeypatch.setattr(stream, "write_stream", lambda output, body_dir, split, seed: write(output, split))
    monkeypatch.setattr(stream, "write_source", lambda output, source, count: write(output, output.name))
    sources = {name: source._replace(samples=lambda body_dir: None) for name, source in stream.SOURCES.items()}
    monkeypatch.setattr(stream, "SOURCES", sources)
    return calls


@pytest.mark.parametrize("name", stream.SETS)
def test_what_is_missing_is_rendered_and_what_is_there_is_not(tmp_path, body_dir, rendered, name, caplog):
    caplog.set_level(logging.INFO)
    stream.build(tmp_path / "root", body_dir, name)
    assert rendered == list(stream.SETS[name]) == sorted(rendered, key=list(stream.SETS[name]).index)
    assert {path.name for path in (tmp_path / "root").iterdir()} == set(rendered)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    caplog.clear()
    stream.build(tmp_path / "root", body_dir, name)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert len(rendered) == len(stream.SETS[name])
    assert len(caplog.messages) == 1 and "as it would be rendered now" in caplog.text


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("renderer", ["source", "validation", "test"]),
        ("smpl/SMPL_FEMALE.npz", ["source", "validation", "test"]),
        ("spin_data/J_regressor_extra.npy", ["source", "validation", "test"]),
        ("seed", ["validation", "test"]),  # the source is the same for every seed
        ("interrupted", ["test"]),
    ],
)
def test_another_renderer_body_or_seed_renders_again_and_one_line_says_so(
    tmp_path, body_dir, rendered, monkeypatch, caplog, change, again
):
    root, seed = tmp_path / "root", 0
    stream.build(root, body_dir, "synthetic", seed)
    rendered.clear()
    if change == "renderer":
        monkeypatch.setattr(version, "RENDERER_VERSION", version.RENDERER_VERSION + 1)
    elif change == "seed":
        seed = 1
    elif change == "interrupted":
        (root / "test" / "complete").unlink()
    else:
        (body_dir / change).write_text("another one")
    assert [name for name in stream.SETS["synthetic"] if not version.is_current(root / name, body_dir)] == (
        [] if change == "seed" else again
    )
    caplog.set_level(logging.INFO)
    stream.build(root, body_dir, "synthetic", seed)
    assert rendered == again
    (line,) = caplog.messages
    assert all(f"{root / name} again (" in line for name in again)
    assert len(list(root.glob("*/images/*.jpg"))) == 3  # nothing is left of what was there before
    assert version.is_current(root / "test", body_dir, seed) and not version.is_current(root / "test", body_dir, 7)


def test_what_was_rendered_before_there_were_versions_is_rendered_again(tmp_path, body_dir, rendered):
    root = tmp_path / "root"
    for name in ("source", "validation", "test"):
        (root / name / "imageFiles").mkdir(parents=True)
    (root / "complete").write_text("seed 0\n")
    stream.build(root, body_dir, "synthetic")
    assert rendered == ["source", "validation", "test"]


@pytest.mark.parametrize("text", [b"", b"seed 0\n", b"renderer", b"\xff\xfe", None])
def test_a_damaged_note_is_none(tmp_path, body_dir, text):
    folder = tmp_path / "test"
    version.render(folder, version.made_of(body_dir, 0), lambda output: output.mkdir())
    assert version.is_current(folder, body_dir)
    (folder / "complete").unlink()
    if text is not None:
        (folder / "complete").write_bytes(text)
    assert not version.is_current(folder, body_dir)


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("the disk is full"), MemoryError])
@pytest.mark.parametrize("stale", [False, True])
def test_an_interrupted_rendering_never_passes_for_complete(tmp_path, body_dir, error, stale):
    folder, old = tmp_path / "root" / "test", version.made_of(body_dir, 0)
    if stale:
        version.render(folder, old, lambda output: (output / "images").mkdir(parents=True))

    def half(output: Path) -> None:
        (output / "images").mkdir(parents=True)
        (output / "complete").write_text("renderer 2\n")
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        version.render(folder, version.made_of(body_dir, 1), half)
    assert not version.is_current(folder, body_dir, 1)
    # what was there before stays, and nothing else
    assert [path.name for path in (tmp_path / "root").iterdir()] == (["test"] if stale else [])
    assert version.is_current(folder, body_dir, 0) == stale


def test_what_a_killed_program_left_is_no_stream(tmp_path, body_dir, rendered):
    (tmp_path / "root" / ".test.abc" / "test" / "images").mkdir(parents=True)
    stream.build(tmp_path / "root", body_dir, "synthetic")
    assert rendered == ["source", "validation", "test"]


def test_two_programs_may_render_the_same_at_a_time(tmp_path, body_dir):
    folder, made_of = tmp_path / "test", version.made_of(body_dir, 0)

    def write(output: Path) -> None:
        (output / "images").mkdir(parents=True)
        (output / "images" / "0.jpg").write_text("0")

    def slow(output: Path) -> None:
        write(output)
        version.render(folder, made_of, write)  # the other program comes in between
        (output / "images" / "1.jpg").write_text("1")

    version.render(folder, made_of, slow)
    assert [path.name for path in (folder / "images").iterdir()] == ["0.jpg"] and version.is_current(folder, body_dir)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_folder_with_anything_else_in_it_is_not_replaced(tmp_path, body_dir, rendered):
    (tmp_path / "root" / "source").mkdir(parents=True)
    (tmp_path / "root" / "source" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"source holds thesis\.tex, which was not rendered"):
        stream.build(tmp_path / "root", body_dir, "synthetic")
    assert (tmp_path / "root" / "source" / "thesis.tex").read_text() == "precious" and not rendered


@pytest.mark.parametrize("place", ["/proc/nowhere", "a file"])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, body_dir, rendered, place):
    (tmp_path / "a file").write_text("")
    root = Path(place) if place.startswith("/") else tmp_path / place
    for render in (lambda: stream.build(root, body_dir, "wild"), lambda: stream.build_source(root / "x", body_dir)):
        with pytest.raises(UserError, match=r"cannot be written .*set SYNTHETIC_ROOT") as caught:
            render()
        assert "\n" not in str(caught.value)


def test_the_source_of_footage_is_rendered_at_first_use_and_again_when_it_is_stale(
    tmp_path, body_dir, rendered, monkeypatch, caplog
):
    folder, read = tmp_path / "wild-source", []
    monkeypatch.setattr(config, "DEMO", body_dir)
    monkeypatch.setattr(streams, "WILD", streams.WILD._replace(images=folder))
    monkeypatch.setattr(streams, "open_source", read.append)
    for _ in range(2):
        runs.open_footage_source(streams.FOOTAGE_ASSETS)
        assert rendered == ["wild-source"] and version.is_current(folder, body_dir)
    monkeypatch.setattr(version, "RENDERER_VERSION", 99)
    caplog.set_level(logging.INFO)
    runs.open_footage_source(streams.FOOTAGE_ASSETS)
    assert len(rendered) == 2 and "wild-source again (renderer 2 instead of 99)" in caplog.text
    assert read == [streams.WILD] * 3


@pytest.mark.parametrize(("seed", "flag"), [(None, ""), (0, ""), (5, " --seed 5")])
def test_a_run_on_a_stale_stream_is_told_the_command_that_helps(tmp_path, body_dir, monkeypatch, seed, flag):
    folder, command = tmp_path / "test", "python process_data.py --dataset synthetic"
    with pytest.raises(UserError, match=f"test is missing; run `{command}`"):
        version.check_current(folder, body_dir, command)
    version.render(folder, version.made_of(body_dir, seed), lambda output: output.mkdir())
    version.check_current(folder, body_dir, command)
    monkeypatch.setattr(version, "RENDERER_VERSION", 99)
    with pytest.raises(UserError, match=rf"renderer 2 instead of 99\); run `{command}{flag}`"):
        version.check_current(folder, body_dir, command)


@pytest.mark.parametrize("name", [name for name, stream in streams.STREAMS.items() if stream.target.rendered])
def test_boa_refuses_a_stale_stream_or_source(tmp_path, body_dir, monkeypatch, name):
    monkeypatch.setattr(config, "DEMO", body_dir)
    chosen, parts = streams.STREAMS[name], {}
    for part in ("target", "source"):
        recording = getattr(chosen, part)
        # what the command renders is what boa.py reads
        assert recording.images.name in stream.SETS[recording.made_by.rpartition(" ")[2]]
        parts[part] = recording._replace(images=tmp_path / part)
        version.render(tmp_path / part, version.made_of(body_dir), lambda output: output.mkdir())
    monkeypatch.setitem(streams.STREAMS, name, chosen._replace(**parts))
    for part in ("target", "source"):
        runs.check_rendered(*parts.values())
        (tmp_path / part / "complete").write_text("renderer 1\n")
        with pytest.raises(
            UserError, match=rf"{part} is not what would be rendered now .*run `python process_data\.py"
        ):
            runs.check_rendered(*parts.values())
        version.render(tmp_path / part, version.made_of(body_dir), lambda output: output.mkdir())


def test_without_the_body_the_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"SMPL_NEUTRAL\.npz is missing; .*restore data/demo"):
        version.is_current(tmp_path, tmp_path)


@pytest.mark.parametrize("name", stream.SETS)
def test_the_command_renders_a_set_of_the_seed_that_is_named(tmp_path, body_dir, rendered, monkeypatch, name):
    monkeypatch.setattr(config, "SYNTHETIC_ROOT", tmp_path / "root")
    monkeypatch.setattr(config, "DEMO", body_dir)
    process_data.main(["--dataset", name, "--seed", "3"])
    for part in stream.SETS[name]:
        assert version.is_current(tmp_path / "root" / part, body_dir, 3 if part in stream.DOMAINS else None)


def test_the_demo_asks_the_renderer_each_time():
    if not shutil.which("make"):
        pytest.skip("there is no make")
    lines = subprocess.run(["make", "-n", "demo"], cwd=PROJECT, capture_output=True, text=True).stdout.splitlines()
    commands = [line.split(maxsplit=1)[1] for line in lines if line.startswith(".venv/bin/python ") and ".py " in line]
    assert commands[0] == "process_data.py --dataset synthetic --seed 1" and commands[1].startswith("boa.py ")


def signature(image: np.ndarray, keypoints: np.ndarray) -> list[float]:
    """Mean brightness of the 4x4 parts of an image, and where some joints are, in parts of the image."""
    height, width = (side // 4 for side in image.shape[:2])
    parts = image[: 4 * height, : 4 * width].astype(float).reshape(4, height, 4, width, 3).mean(axis=(1, 3, 4))
    return [*parts.ravel().round(1).tolist(), *keypoints[::7, :2].astype(float).ravel().round(3).tolist()]


def signatures(folder: Path) -> dict[str, list[float]]:
    """Of what this renderer makes."""
    found = {}
    for source in (Lab(DEMO), Wild(DEMO, clips=2)):
        for seed in range(3):
            sample = source.sample(np.random.default_rng(seed), 96)
            found[f"{type(source).__name__} {seed}"] = signature(sample["image"], sample["keypoints_2d"])
    for split in stream.DOMAINS:
        stream.write_stream(folder / split, DEMO, split, frames=2)
        for file in sorted((folder / split / "3dpw_vid").glob("*.npz")):
            with np.load(file) as labels:
                image = read_rgb(folder / split / str(labels["imgname"][1]))
                found[file.stem] = signature(image, labels["smpl_j2d"][1] / image.shape[1])
    return found


@pytest.mark.slow
def test_a_renderer_that_renders_otherwise_has_another_version(tmp_path, monkeypatch):
    """After RENDERER_VERSION is raised, delete tests/rendered.json and run this: it writes it anew."""
    monkeypatch.setattr(props, "EXTRAS", 4)
    found = signatures(tmp_path)
    if not GOLDEN.exists():
        lines = ",\n".join(f'  "{name}": {numbers}' for name, numbers in found.items())
        GOLDEN.write_text(f'{{"renderer": {version.RENDERER_VERSION}, "signatures": {{\n{lines}\n}}}}\n')
        pytest.fail(f"{GOLDEN.name} was missing and is written anew; look at what is rendered now")
    golden = json.loads(GOLDEN.read_text())
    assert golden["renderer"] == version.RENDERER_VERSION, f"{GOLDEN.name} is of another version; delete it"
    assert golden["signatures"].keys() == found.keys()
    for name, numbers in found.items():
        # another processor rounds otherwise, which moves a pixel here and there
        expected = np.array(golden["signatures"][name])
        wrong = np.abs(expected - numbers) > np.where(np.arange(len(expected)) < 16, 1.0, 0.005)
        assert not wrong.any(), f"{name} looks different: if that is meant, raise RENDERER_VERSION"
