"""The project as a whole: what it depends on, how it is set up, and who imports whom (docs/layout.md)."""

import ast
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import conftest
import pytest
from places import PROJECT, TESTS

from tools import check_system

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
CODE = sorted(
    file
    for file in PROJECT.rglob("*.py")
    if not {".venv", "data", "experiments"} & set(file.relative_to(PROJECT).parts)
)
OURS = {file.stem for file in [*PROJECT.glob("*.py"), *TESTS.glob("*.py")]} | {
    path.parent.name for path in PROJECT.glob("*/*.py")
}


def requirements(name: str) -> list[str]:
    """The lines of a requirements file, without comments and without options of pip."""
    lines = [line.partition("#")[0].partition(" --")[0].strip() for line in (PROJECT / name).read_text().splitlines()]
    return [line for line in lines if line]


def distribution(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-")


def imports(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room(file: Path) -> str:
    """The folder that a file is in, or the name of the program."""
    return file.relative_to(PROJECT).parts[0].removesuffix(".py")


# what is depended on


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("requirements.txt", PYPROJECT["project"]["dependencies"]),
        ("requirements-dev.txt", EXTRAS["dev"]),
        ("requirements-video.txt", EXTRAS["video"]),
    ],
)
def test_the_requirements_are_those_of_pyproject(name, table):
    assert requirements(name) == table


def test_learn2learn_is_built_from_sources_that_fit_this_python():
    text = (PROJECT / "requirements.txt").read_text()
    assert re.search(r'^learn2learn==\S+ --config-settings "--build-option=build_ext"$', text, re.MULTILINE)


def test_every_package_that_is_imported_is_declared_and_the_other_way_round():
    declared = {distribution(line) for line in PYPROJECT["project"]["dependencies"]}
    optional = {extra: {distribution(line) for line in lines} for extra, lines in EXTRAS.items()}
    providers = {module: {name.lower() for name in names} for module, names in packages_distributions().items()}
    # perhaps not installed
    providers |= {"mediapipe": {"mediapipe"}, "sklearn": {"scikit-learn"}}
    used, in_tests = set(), set()
    for file in CODE:
        foreign = {name.split(".")[0] for name in imports(file)} - OURS - set(sys.stdlib_module_names)
        names = {name for module in foreign for name in providers[module]}
        (in_tests if room(file) == "tests" else used).update(names)
    assert used <= declared | optional["video"] | optional["body"] | optional["cluster"]
    assert in_tests <= declared | optional["dev"] | optional["video"]
    assert declared <= used | in_tests
    # one is a command, the other what --cluster is tested with
    assert optional["dev"] - {"pytest-xdist", "ruff", "submitit"} <= in_tests
    # the others of the video extra are what MediaPipe asks for, since it is installed without
    assert "mediapipe" in used and optional["body"] | optional["cluster"] <= used


def test_tools_are_pinned_so_that_the_same_tree_has_the_same_findings():
    assert all("==" in line for line in EXTRAS["dev"])


def test_all_programs_and_rooms_are_part_of_an_installation():
    setup = PYPROJECT["tool"]["setuptools"]
    assert sorted(setup["py-modules"]) == sorted(file.stem for file in PROJECT.glob("*.py"))
    rooms = {path.parent.name for path in PROJECT.glob("*/*.py")} | {"tools"}
    assert {name.rstrip("*") for name in setup["packages"]["find"]["include"]} == rooms - {"tests", "benchmarks"}


def test_the_pythons_of_the_project_are_the_same_everywhere():
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PYPROJECT["project"]["requires-python"]).groups()
    pythons = [f"3.{minor}" for minor in range(int(low), int(high))]
    workflow = (PROJECT / ".github" / "workflows" / "test.yml").read_text()
    assert re.search(r"python: \[(.*)\]", workflow)[1] == ", ".join(f'"{python}"' for python in pythons)
    assert [f"{major}.{minor}" for major, minor in check_system.PYTHONS] == pythons
    assert f"Python {' or '.join(pythons)}" in (PROJECT / "README.md").read_text()


def test_checks_run_what_contributors_are_told_to_run():
    told = (PROJECT / "CONTRIBUTING.md").read_text()
    assert "`make test` runs the tests" in (PROJECT / "README.md").read_text()
    for file in (".ci/run", ".github/workflows/test.yml"):
        run = re.findall(r"^(?:\s*- run: )?(make \w+)", (PROJECT / file).read_text(), re.MULTILINE)
        assert run == ["make test", "make lint"]
        assert all(f"`{command}`" in told for command in run)


def test_versions_are_equal_and_the_paper_s_authors_are_named():
    citation = (PROJECT / "CITATION.cff").read_text()
    version = PYPROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in citation and f"## {version}" in (PROJECT / "CHANGELOG.md").read_text()
    for author in ("Guan", "Xu", "Wang", "Ni", "Yang"):
        assert f"family-names: {author}," in citation


# setting up


def test_a_machine_that_can_build_lacks_nothing(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["check_system.py"])
    if check_system.missing_packages():
        pytest.skip("this machine has no compiler")
    check_system.main()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("install", [[], ["--install"]])
def test_without_a_compiler_the_command_is_said_that_gets_it(monkeypatch, tmp_path, capsys, install):
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get either
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["check_system.py", *install])
    with pytest.raises(SystemExit) as stopped:
        check_system.main()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert str(stopped.value) == f"on Debian and Ubuntu: sudo apt-get install gcc libc6-dev python{version}-dev"
    assert "missing: a C compiler, since learn2learn is compiled" in capsys.readouterr().err


def test_a_compiler_that_fails_is_as_good_as_none(monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", f"{compiler} -O2")
    assert ("gcc", "libc6-dev") in check_system.missing_packages().values()


def test_only_root_installs_and_only_what_is_missing(monkeypatch, tmp_path):
    said = tmp_path / "said"
    fake = tmp_path / "apt-get"
    fake.write_text(f'#!/bin/sh\necho "$*" >> {said}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert not check_system.install(["gcc"]) and not said.exists()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert check_system.install(["gcc"])
    assert said.read_text().splitlines() == ["update", "install -y --no-install-recommends gcc"]


def test_another_python_is_told_which_it_must_be(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["check_system.py"])
    monkeypatch.setattr(check_system, "PYTHONS", ((2, 7),))
    with pytest.raises(SystemExit, match=r"Python 3\.11 or 3\.12 is needed, and this is .*PYTHON="):
        check_system.main()


def test_the_check_needs_nothing_that_is_not_installed_yet():
    assert {name.split(".")[0] for name in imports(PROJECT / "tools/check_system.py")} <= set(sys.stdlib_module_names)


def test_a_variable_says_where_parity_and_clips_are(tmp_path):
    code = "import places; print(places.PARITY, places.CLIPS)"
    env = {
        "BOA_PARITY": str(tmp_path / "a"),
        "BOA_CLIPS": str(tmp_path / "b"),
        "PYTHONPATH": str(TESTS),
    }
    assert conftest.run("-c", code, env=env).stdout.split() == [str(tmp_path / "a"), str(tmp_path / "b")]


# who is where, and imports whom

LAYOUT = (PROJECT / "docs" / "layout.md").read_text()
TREE = dict(re.findall(r"^([\w./]+) {2,}(.+)$", re.search(r"```\n(boa\.py.*?)```", LAYOUT, re.DOTALL)[1], re.MULTILINE))
MAY_IMPORT = {
    "utils": {"utils"},
    "models": {"models", "utils"},
    "datasets": {"datasets", "models", "utils"},
    "footage": {"footage", "models", "utils"},
    "synthetic": {"synthetic", "utils"},
    "config": set(),
    "streams": {"config", "datasets", "utils"},
}


def modules(line: str) -> list[str]:
    """The modules that a line of the tree lists, as `base (CroppedFrames), pw3d: they read`."""
    listed = re.sub(r"\([^)]*\)", "", line).partition(":")[0]
    return re.findall(r"[\w./]+", listed)


def test_every_room_and_every_program_stands_in_the_layout():
    folders = {f"{file.parent.relative_to(PROJECT)}/" for file in CODE if file.parent != PROJECT}
    assert {*folders, *(file.name for file in PROJECT.glob("*.py"))} - {"tests/scripts/"} <= set(TREE)
    assert all((PROJECT / name).exists() for name in TREE)


@pytest.mark.parametrize(
    "name", [name for name in TREE if name.endswith("/") and name not in ("data/", "docs/", "tests/")]
)
def test_the_layout_lists_the_modules_of_a_room(name):
    there = {file.stem for file in (PROJECT / name).glob("*.py")} - {"__init__"}
    assert set(modules(TREE[name])) == there


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(name):
    for file in (file for file in CODE if room(file) == name):
        others = {module.split(".")[0] for module in imports(file)} & OURS
        if file.parent.name == "data_preprocess":
            others -= {"models"}  # converters pose bodies
        assert others <= MAY_IMPORT[name], file


def test_nobody_imports_a_program():
    for file in (file for file in CODE if room(file) not in ("tests", "benchmarks")):
        assert not {"boa", "pretrain", "compare", "process_data"} & imports(file), file


@pytest.mark.slow
def test_importing_a_module_reads_no_data_and_says_nothing(tmp_path):
    names = [
        ".".join(file.relative_to(PROJECT).with_suffix("").parts)
        for file in CODE
        if room(file) not in ("tests", "tools")
    ]
    code = (
        "import sys; opened = []\n"
        "sys.addaudithook(lambda event, a: opened.append(str(a[0])) if event == 'open' else None)\n"
        f"import {', '.join(name.removesuffix('.__init__') for name in names if not name.startswith('benchmarks'))}\n"
        "print([name for name in opened if name.endswith(('.npz', '.npy', '.pkl', '.pt', '.jpg'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
