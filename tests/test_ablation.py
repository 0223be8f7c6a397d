"""The program of the tables: which runs are used again, and what becomes of those that stopped."""

import json

import numpy as np
import pytest

import boa
from benchmarks import ablation
from benchmarks.ablation import Run, code_version, lacking, made, make_all, markdown, options_of
from benchmarks.tables import MEASURES, TABLES
from utils.errors import UserError

FLAGS = ["--dataset_name", "synthetic", "--lr", "1e-4"]


class Boa:
    """Stands in for boa.py: writes a summary of what the test says."""

    def __init__(self, code: int = 0, **summary) -> None:
        self.code, self.calls = code, []
        self.summary = {"frames": 12, "complete": True, "stopped": None, "mpjpe_mm": 90.0, **summary}

    def __call__(self, run: Run) -> int:
        assert not (run.folder / "summary.json").exists()
        self.calls.append(run.row)
        if self.summary["frames"] is not None:
            options = json.loads(json.dumps(vars(boa.read_options(run.arguments))))
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / "summary.json").write_text(json.dumps({**self.summary, "options": options}))
        return self.code


@pytest.fixture
def run(tmp_path) -> Run:
    return Run("BOA", tmp_path / "seed-0" / "BOA", FLAGS, tmp_path, {"code": "a", "renderer": "2"})


def rewrite(run: Run, **changed) -> None:
    summary = json.loads((run.folder / "summary.json").read_text())
    (run.folder / "summary.json").write_text(json.dumps({**summary, **changed}))


def test_a_complete_run_is_made_once(run):
    boa_py = Boa()
    first, second = made(run, boa_py), made(run, boa_py)
    assert first == second and first["mpjpe_mm"] == 90 and boa_py.calls == ["BOA"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"flags": [*FLAGS, "--first_order"]}, "another first_order"),
        ({"flags": ["--dataset_name", "synthetic"]}, "another lr"),
        ({"made_with": {"code": "b", "renderer": "2"}}, "another code"),
        ({"made_with": {"code": "a", "renderer": "3"}}, "another renderer"),
        ({"made_with": {"code": "a", "renderer": "2", "seed": "0"}}, "another seed"),
    ],
)
def test_a_run_of_other_options_streams_or_code_is_made_again(run, change, reason):
    made(run, Boa())
    boa_py, other = Boa(mpjpe_mm=80.0), run._replace(**change)
    assert reason in lacking(other)
    assert made(other, boa_py)["mpjpe_mm"] == 80 and boa_py.calls == ["BOA"]
    assert lacking(other) is None


def test_options_that_boa_did_not_have_yet_or_has_no_more_make_it_again(run):
    made(run, Boa())
    options = run.summary["options"]
    for changed in ({**options, "of_old": 1}, {name: value for name, value in options.items() if name != "beta1"}):
        rewrite(run, options=changed)
        assert "another " in lacking(run)


def test_where_results_go_is_no_option_that_counts(run, tmp_path):
    made(run, Boa())
    moved = run._replace(folder=tmp_path / "elsewhere" / "BOA")
    run.folder.parent.rename(tmp_path / "elsewhere")
    assert lacking(moved) is None


def test_a_later_run_in_the_same_folder_does_not_pass_for_this_one(run):
    made(run, Boa())
    rewrite(run, mpjpe_mm=10.0)
    assert "another summary" in lacking(run)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", None, "\udcff"])
def test_a_damaged_summary_or_note_is_none(run, text):
    made(run, Boa())
    for file in (run.folder / "summary.json", run.note):
        whole = file.read_bytes()
        file.unlink() if text is None else file.write_bytes(text.encode(errors="surrogateescape"))
        assert lacking(run)
        file.write_bytes(whole)
        assert lacking(run) is None


def test_a_row_whose_loss_explodes_is_a_result_and_made_once(run):
    boa_py = Boa(code=2, complete=False, stopped="not finite", frames=7)
    for _ in range(2):
        assert made(run, boa_py)["frames"] == 7
    assert boa_py.calls == ["BOA"]
    results = {"frozen": [summary()], "BOA": [made(run, boa_py), summary()]}
    assert "| BOA | not finite after 7 frames |" in markdown(results, ("mpjpe_mm",))


@pytest.mark.parametrize("stopped", ["image_00003.jpg is no readable image", "No space left", "interrupted"])
def test_a_run_that_stopped_is_made_again_and_ends_the_program_when_it_stops_again(run, stopped):
    with pytest.raises(UserError, match=rf"BOA stopped after 7 frames: {stopped}") as caught:
        made(run, Boa(code=2, complete=False, stopped=stopped, frames=7))
    assert "\n" not in str(caught.value)
    assert lacking(run) == f"stopped before ({stopped})"
    with pytest.raises(UserError, match=stopped):
        made(run, Boa(code=130, complete=False, stopped=stopped, frames=7))
    assert made(run, Boa())["complete"] and lacking(run) is None


def test_a_summary_of_before_stopped_was_told_counts_only_when_it_is_complete(run):
    boa_py = Boa(complete=False)
    del boa_py.summary["stopped"]
    with pytest.raises(UserError):
        made(run, boa_py)
    boa_py.summary["complete"] = True
    made(run, boa_py)
    assert lacking(run) is None


def test_a_run_that_leaves_nothing_or_fails_at_its_end_ends_the_program(run):
    with pytest.raises(UserError, match=r"has no summary: .* code 2"):
        made(run, Boa(code=2, frames=None))
    with pytest.raises(UserError, match="ended with code 1"):
        made(run, Boa(code=1))
    assert lacking(run)  # though its summary is complete


def test_after_an_error_no_other_run_is_begun(run, tmp_path):
    boa_py = Boa(code=2, complete=False, stopped="No space left")
    runs = [run._replace(row=str(row), folder=tmp_path / str(row)) for row in range(8)]
    with pytest.raises(UserError, match="No space left"):
        make_all(runs, 1, boa_py)
    assert len(boa_py.calls) == 1


def test_several_jobs_make_every_run_once_and_keep_the_order_of_the_rows(run, tmp_path):
    runs = [
        run._replace(row=row, folder=tmp_path / f"seed-{seed}" / row) for seed in range(3) for row in ("frozen", "BOA")
    ]
    boa_py = Boa()
    results = make_all(runs, 3, boa_py)
    assert sorted(boa_py.calls) == ["BOA"] * 3 + ["frozen"] * 3
    assert list(results) == ["frozen", "BOA"] and [len(summaries) for summaries in results.values()] == [3, 3]


def summary(mpjpe_mm: float = 100.0, pampjpe_mm: float = 50.0, **more) -> dict:
    return {
        **{"frames": 12, "complete": True, "stopped": None, "frames_per_second": 2.0},
        **{"mpjpe_mm": mpjpe_mm, "pampjpe_mm": pampjpe_mm, **more},
    }


def test_the_table_has_means_deviations_and_changes_against_frozen():
    results = {
        "frozen": [summary(100.0), summary(110.0), summary(120.0)],
        "BOA": [summary(80.0, 55.0), summary(90.0, 55.0), summary(94.0, 55.0)],
    }
    cells = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]]
        for row in markdown(results, ("mpjpe_mm", "pampjpe_mm", "frames_per_second")).splitlines()
    }
    assert cells[""] == ["MPJPE [mm]", "PA-MPJPE [mm]", "frames/s", "MPJPE", "PA-MPJPE"]
    assert cells["frozen"] == ["110.0 ± 10.0", "50.0 ± 0.0", "2.0 ± 0.0", "", ""]
    deviation = np.std([80, 90, 94], ddof=1)
    assert cells["BOA"] == [f"88.0 ± {deviation:.1f}", "55.0 ± 0.0", "2.0 ± 0.0", "-20%", "+10%"]


def test_one_run_has_no_deviation():
    assert "| 100.0 | 50.0 |" in markdown({"frozen": [summary()]}, ("mpjpe_mm", "pampjpe_mm"))


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_a_table_are_different_runs_of_boa_and_one_has_the_defaults(name):
    chosen = TABLES[name]
    stream = ["--video", "clip.mp4"] if chosen.clips else ["--dataset_name", chosen.stream]
    stream += chosen.more
    rows = [options_of(["--name", "x", *stream, *flags]) for flags in chosen.rows.values()]
    assert all(rows.count(row) == 1 for row in rows)
    assert any(options_of(["--name", "x", *stream, *order]) in rows for order in ([], ["--first_order"]))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_frozen_to_compare_with_and_known_measures_and_rows_have_folders_of_their_own(name):
    chosen = TABLES[name]
    assert chosen.rows["frozen"] == ["--method", "frozen"] and set(chosen.measures) <= MEASURES.keys()
    assert len({ablation.file_name(row) for row in chosen.rows}) == len(chosen.rows)


def test_the_ablation_is_of_three_seeds():
    assert len(set(TABLES["ablation"].seeds)) == 3


@pytest.mark.parametrize("name", TABLES)
def test_every_seed_has_streams_of_its_own_that_are_rendered_before(name, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(ablation.stream, "build", lambda root, body_dir, dataset, seed: asked.append((root, seed)))
    monkeypatch.setattr(ablation.config, "SYNTHETIC_ROOT", tmp_path / "synthetic")
    table = TABLES[name]
    runs = ablation.runs_of(name, table, (0, 1))
    assert asked == [(tmp_path / "synthetic-0", 0), (tmp_path / "synthetic-1", 1)]
    assert len(runs) == len({run.folder for run in runs}) == 2 * len(table.rows) * max(len(table.clips), 1)
    assert {run.root for run in runs} == {root for root, _ in asked}
    for run in runs:
        videos = [flag for flag in run.flags if str(run.root) in flag]
        assert (
            len(videos) == bool(table.clips) and {"code", "assets", "renderer", "body", "seed"} <= run.made_with.keys()
        )


def test_the_version_of_the_code_is_that_of_what_it_does(tmp_path):
    (tmp_path / "utils").mkdir()
    file = tmp_path / "utils" / "losses.py"

    def version(text: str) -> str:
        file.write_text(text)
        return code_version(tmp_path)

    before = version('"""Losses."""\n\n\ndef loss(x):\n    """Of x."""\n    return 2 * x\n')
    assert version('"""Every loss."""\n\n# with a reason\ndef loss(x):\n    return 2*x\n') == before
    assert version("def loss(x):\n    return 3 * x\n") != before
    file.rename(tmp_path / "utils" / "other.py")
    assert code_version(tmp_path) != before
