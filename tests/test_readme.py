"""What the pages say is so: commands run as printed, flags, files and links are there."""

import argparse
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import conftest
import cv2
import numpy as np
import pages
import pytest
import toys
from pages import PAGES
from places import PROJECT

import boa
import process_data
from streams import STREAMS

README = PROJECT / "README.md"
COMMANDS = sorted({shlex.join(command) for page in PAGES for command in pages.commands(page.read_text())})
# with arguments; the others are of no run, or do without any
PYTHON = [command for command in COMMANDS if re.match(r"python [\w/]+\.py \S", command) and "--help" not in command]
MAKE = [command for command in COMMANDS if command.startswith("make ")]
PIP_FLAGS = {"--upgrade", "--editable"}  # of programs that are not ours


class Parsed(Exception):
    """The program has read its command line, and need not do what it says."""


@pytest.fixture
def parse_only(monkeypatch):
    """Run a program until it has parsed its command line; a line that it refuses fails the test."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        parse_args(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)

    def run(program: str, arguments: list[str]) -> None:
        assert re.search("ArgumentParser|utils.options", (PROJECT / program).read_text()), f"{program} takes no flags"
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        with pytest.raises(Parsed):
            runpy.run_path(str(PROJECT / program), run_name="__main__")

    return run


@pytest.mark.parametrize("command", PYTHON)
def test_a_program_knows_the_flags_that_a_page_gives_it(command, parse_only):
    _, program, *arguments = shlex.split(command)
    parse_only(program, arguments)


@pytest.mark.parametrize("command", [command for command in PYTHON if "process_data.py" in command])
def test_a_data_set_knows_the_flags_that_a_page_gives_it(command):
    process_data.parse(shlex.split(command)[2:])


@pytest.mark.parametrize("command", [command for command in PYTHON if " boa.py " in command])
def test_boa_accepts_together_the_flags_that_a_page_gives_it(command):
    boa.read_options(shlex.split(command)[2:])


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_what_a_page_asks_of_it(command):
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=PROJECT, check=True, capture_output=True)


def test_every_flag_in_the_pages_is_one_of_a_program_s(capsys, monkeypatch):
    known = set(PIP_FLAGS)
    programs = [
        "boa.py",
        "process_data.py",
        "pretrain.py",
        "compare.py",
        "benchmarks/ablation.py",
        "benchmarks/feature_change.py",
    ]
    for program in [*programs, "tools/check_system.py"]:
        monkeypatch.setattr(sys, "argv", [program, "--help"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(PROJECT / program), run_name="__main__")
        known |= pages.flags(capsys.readouterr().out)
    for page in PAGES:
        assert not pages.flags(page.read_text()) - known, page


def test_files_that_commands_name_are_there():
    for command in COMMANDS:
        for name in re.findall(r"(?:-r|python|pytest) ([\w/-]+\.(?:py|txt))", command):
            assert (PROJECT / name).exists(), command


def test_runs_that_a_page_compares_were_made_by_it():
    for page in PAGES:
        made = set()
        for command in pages.commands(page.read_text()):
            if "--name" in command:
                made.add(f"experiments/{command[command.index('--name') + 1]}")
            used = {re.match(r"experiments/[\w-]+", word)[0] for word in command if word.startswith("experiments/")}
            assert used <= made, command


def test_streams_in_the_pages_are_all_there_are():
    named = re.findall(r"^\| (`[^|]*`) \|", pages.section(README, "Benchmarks"), flags=re.MULTILINE)
    streams = {name for row in named for name in re.findall(r"`(\w[\w-]*)`", row)}
    assert streams == set(STREAMS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_and_picture_leads_somewhere(page):
    for link in pages.links(page):
        if link.startswith("http"):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if heading:
            assert heading in [pages.anchor(other) for other in pages.headings(target)], link


def test_pictures_are_pictures():
    for page in PAGES:
        for name in pages.links(page):
            if name.endswith((".jpg", ".png")):
                assert cv2.imread(str(page.parent / name)).std() > 10, name


def test_messages_name_headings_that_there_are():
    sources = [file for file in PROJECT.rglob("*.py") if ".venv" not in file.parts and "tests" not in file.parts]
    found = 0
    for file in sources:
        for page, heading in re.findall(r"\((README|docs/\w+\.md|data/README\.md), ([^)]+)\)", file.read_text()):
            found += 1
            target = README if page == "README" else PROJECT / page
            assert heading in pages.headings(target), f"{file}: {page}, {heading}"
    assert found


def test_python_in_the_pages_compiles():
    blocks = [(page, block) for page in PAGES for block in pages.python_blocks(page)]
    assert [page for page, _ in blocks] == [README]
    for page, block in blocks:
        compile(block, str(page), "exec")


def run_printed(command: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of a page from a folder that is not the project's."""
    result = conftest.run(*command[1:], env=env, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.slow
def test_the_benchmark_runs_as_printed(tmp_path, released_smpl):
    """The four commands of the README on toys, from another folder."""
    world = conftest.make_world(tmp_path / "toys")
    smpl = world.folder / "data" / "smpl"
    for file in (*smpl.iterdir(), *world.stream.target.annotations.iterdir(), world.stream.source.annotations):
        file.unlink()
    for file in released_smpl.rglob("basicmodel_*"):
        (smpl / file.name).write_bytes(file.read_bytes())
    toys.write_h36m(world.folder / "H36M", world.folder / "mosh", {"S1": ["Walking.54138969"]})
    printed = [command for command in pages.commands(pages.section(README, "Benchmarks")) if command[0] == "python"]
    assert len(printed) == 4
    for command in printed:
        run_printed(command, tmp_path, world.env)
    summary = toys.read_summary(tmp_path / "experiments" / "boa-3dpw")
    assert summary["complete"] and summary["frames"] == 12 and np.isfinite(summary["mpjpe_mm"])


@pytest.mark.slow
def test_a_video_with_files_of_joints_runs_as_printed(tmp_path):
    """The README's command with --keypoints, from another folder, on a clip of grey frames and a person who stands."""
    toys.write_video(tmp_path / "clip.mp4", 3, size=toys.SIZE)
    toys.write_openpose(tmp_path / "openpose", 3)
    toys.write_source(tmp_path / "wild-source", tmp_path / "wild-source" / "h36m_train.npz")
    [command] = [c for c in pages.commands(pages.section(README, "Your own video")) if "--keypoints" in c]
    folder = tmp_path / "experiments" / "tennis-openpose"
    for method, more in (("frozen", []), ("boa", ["--method", "boa", "--overwrite"])):
        run_printed(command + more, tmp_path, {"SYNTHETIC_ROOT": str(tmp_path), "BOA_DATA": str(tmp_path / "nothing")})
        summary = toys.read_summary(folder)
        assert summary["complete"] and summary["frames"] == 3 and summary["options"]["method"] == method
        assert ("2D error, adapted" in (folder / "performance.txt").read_text()) == (method == "boa")
        assert {"overlay.mp4", "reprojection.png", "predictions.npz"} <= {file.name for file in folder.iterdir()}
