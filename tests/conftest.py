"""What several tests share: toy data, the free body, clips and the inputs of the published numbers where they are."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import free
import numpy as np
import pytest
import toys
import videos
from places import CLIPS, PARITY, PROJECT, TESTS

import streams
from datasets import pw3d as pw3d_stream
from models.smpl import SMPL, load_bodies
from utils.data_preprocess import pw3d

pytest_plugins = ["tiny"]  # the fixture of runs with a tiny network

SEQUENCES = {"flat_packBags_00": "mf", "downtown_cafe_00": "f"}
SEQUENCES_3DPW = {"downtown_bar_00": "mf", "downtown_bus_00": "f", "flat_guitar_01": "m"}  # of `raw`


# test -> largest difference from the published method's numbers, absolute and relative to the largest number compared
agreement: dict[str, tuple[float, float]] = {}


def note_agreement(actual: np.ndarray, expected: np.ndarray) -> None:
    """Remember how far numbers of the running test are from the published ones, for the table at the end."""
    test = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split(" ")[0]
    difference = float(np.abs(actual - expected).max(initial=0))
    relative = difference / max(float(np.abs(expected).max(initial=0)), 1e-12)
    before = agreement.get(test, (0.0, 0.0))
    agreement[test] = (max(before[0], difference), max(before[1], relative))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What a process of several that share the tests tells the one that prints the table."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["agreement"] = agreement


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take what such a process told; one that died told nothing."""
    agreement.update(getattr(node, "workeroutput", {}).get("agreement", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if agreement:
        terminalreporter.section("largest difference from the published method's numbers")
        for test, (absolute, relative) in agreement.items():
            terminalreporter.line(f"{test:64} {absolute:8.1e} absolute {relative:8.1e} of the largest number")


def run(*arguments: object, env: dict[str, str] | None = None, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """Run one of the project's commands as a user types it, from a folder."""
    program, *others = map(str, arguments)
    command = [sys.executable, str(PROJECT / program) if program.endswith(".py") else program, *others]
    return subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True)


def run_script(name: str, *arguments: object) -> str:
    """Run a program of tests/scripts on one thread -> what it prints."""
    paths = os.pathsep.join(map(str, (PROJECT, TESTS)))
    env = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    result = run(TESTS / "scripts" / name, *arguments, env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout


@dataclasses.dataclass
class World:
    """A folder of toys, converted and ready to run on."""

    folder: Path
    stream: streams.Stream

    @property
    def env(self) -> dict[str, str]:
        return toys.environment(self.folder)


def make_world(folder: Path) -> World:
    assets = toys.write_assets(folder / "data")
    toys.write_3dpw(folder / "3DPW", SEQUENCES)
    extras = folder / "data" / "dataset_extras"
    bodies = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ("male", "female"))
    pw3d.convert(folder / "3DPW", extras / "3dpw_vid", bodies)
    toys.write_source(folder / "H36M", extras / "h36m_train.npz")
    target = streams.PW3D._replace(images=folder / "3DPW", annotations=extras / "3dpw_vid")
    source = streams.H36M._replace(images=folder / "H36M", annotations=extras / "h36m_train.npz")
    return World(folder, streams.STREAMS["3dpw"]._replace(target=target, source=source, assets=assets))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Toys that no test changes."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def own_world(tmp_path: Path) -> World:
    """Toys that a test may damage."""
    return make_world(tmp_path)


@pytest.fixture(scope="session")
def bodies(world: World) -> dict[str, SMPL]:
    return load_bodies(world.stream.assets.smpl_model_dir, world.stream.assets.regressor_extra)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw 3DPW and MPI-INF-3DHP that a test may damage if it repairs them."""
    folder = tmp_path_factory.mktemp("raw")
    toys.write_3dpw(folder / "3DPW", SEQUENCES_3DPW)
    toys.write_3dhp(folder / "MPI_INF_3DHP")
    toys.write_3dhp_train(folder / "MPI_INF_3DHP", ("S1/Seq1", "S1/Seq2", "S2/Seq1"), frames=11)
    return folder


@pytest.fixture
def frames(world: World):
    """The toy stream, opened."""
    target = world.stream.target
    return pw3d_stream.open_stream(target.images, target.annotations, "-")[0]


@pytest.fixture(scope="session")
def free_body() -> SMPL:
    """The neutral free body that comes with the repository."""
    return free.bodies()["neutral"]


@pytest.fixture(scope="session")
def released_smpl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SMPL as its owners release it: chumpy arrays inside, made in a process that has a module of that name."""
    folder = tmp_path_factory.mktemp("smpl")
    inner = folder / "SMPL_python_v.1.1.0"
    inner.mkdir()
    names = [f"basicmodel_{part}_lbs_10_207_0_v1.1.0.pkl" for part in ("neutral", "m", "f")]
    run_script("released_smpl.py", *(inner / name for name in names))
    return folder


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real clips and photographs."""
    if not CLIPS.is_dir():
        pytest.skip(f"BOA_CLIPS: there is no {CLIPS}")
    return CLIPS


@pytest.fixture(scope="session")
def parity_kit():
    """The module that makes the inputs of the published method's numbers; the goldens are beside it."""
    script = PARITY / "fixture.py"
    if not script.exists():
        pytest.skip(f"BOA_PARITY: there is no {script}")
    spec = importlib.util.spec_from_file_location("parity_fixture", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def parity_folder(parity_kit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data sets and assets of the parity kit, written once."""
    folder = tmp_path_factory.mktemp("parity")
    parity_kit.build(parity_kit.default_spec(101), folder)
    return folder


@pytest.fixture(scope="session")
def parity_env(parity_folder: Path) -> dict[str, str]:
    mosh = parity_folder / "neutrMosh" / "neutrSMPL_H3.6"
    return {**toys.environment(parity_folder), "H36M_MOSH_ROOT": str(mosh)}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> videos.Clip:
    """A rendered clip of one person, with its pictures and joints."""
    return videos.make_clip(tmp_path_factory.mktemp("clip"))
