"""Rendered footage with MediaPipe's joints and 3D truth: where designs for one's own video are compared.

    python benchmarks/footage_truth.py                     # the networks of joints and of images, seeds 1 and 2
    python benchmarks/footage_truth.py --row "steady: --motionloss_weight 0.8"

Clips of the stream `wild` are run as videos (`boa.py --video`), and predictions.npz is scored against the joints that
were rendered: the twelve of the limbs, around the hips, in the axes of the camera, as on real people. Each row is there
as it was predicted, and smoothed over time as it is saved.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.ablation import PROJECT, Run, make_all, runs_of
from benchmarks.tables import FROZEN, TABLES
from footage.smoothing import smooth_joints
from models.smpl import SMPL, load_bodies
from streams import DEMO_ASSETS, WILD_ASSETS
from utils.errors import UserError, run_command
from utils.evaluation import Acceleration, score_limbs
from utils.files import load_npz, save_text
from utils.joints import JOINTS49, LIMBS, rows

TITLES = ("MPJPE [mm]", "PA-MPJPE [mm]", "accel. [mm]", "frames")


def scores_of(predicted: np.ndarray, given: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """MPJPE, PA-MPJPE and acceleration error, mm, and the frames of a clip.

    Args:
        predicted, given: (F,49,3) m, in camera axes
        numbers: (F,) of the frames; an acceleration needs three that follow one another
    """
    limbs = [joints[:, rows(LIMBS.values(), JOINTS49)].astype(np.float64) for joints in (predicted, given)]
    ours, truth, scores = score_limbs(*limbs)
    acceleration = Acceleration(step=1)
    errors = np.array([acceleration("", 0, *frame) for frame in zip(numbers, ours, truth, strict=True)])
    known = errors[~np.isnan(errors)]
    accel = known.mean() if len(known) else np.nan
    return np.array([scores["mpjpe"].mean(), scores["pampjpe"].mean(), accel, len(numbers)])


def score_run(run: Run, body: SMPL) -> np.ndarray:
    """The scores (2,4) of a run on a clip, as predicted and smoothed.

    Raises UserError when its predictions or the truth are missing.
    """
    clip = Path(run.flags[run.flags.index("--video") + 1]).name
    remedy = "run the row again"
    ours = load_npz(run.folder / "predictions.npz", ("joints_3d", "turn", "imgname", "rotmat", "betas", "time"), remedy)
    truth = load_npz(run.root / "wild" / "3dpw_vid" / f"{clip}.npz", ("smpl_j3d", "imgname"), remedy)
    # a folder's frames are named with or without their ending
    place = {Path(str(name)).stem: row for row, name in enumerate(truth["imgname"])}
    numbers = np.array([place[Path(str(name)).stem] for name in ours["imgname"]])
    smoothed = smooth_joints(ours["rotmat"], ours["betas"], ours["time"], body)
    in_camera = [joints @ ours["turn"].swapaxes(1, 2) for joints in (ours["joints_3d"], smoothed)]
    return np.stack([scores_of(joints, truth["smpl_j3d"][numbers], numbers) for joints in in_camera])


def markdown(found: dict[str, list[np.ndarray]]) -> str:
    """Mean over the clips of each row, and how many frames there were; `found` has (2,4) for each clip."""
    lines = [["", *TITLES], ["---"] * (len(TITLES) + 1)]
    for row, scores in found.items():
        for suffix, of_clips in zip(("", ", smoothed"), np.stack(scores, axis=1), strict=True):
            *means, _ = np.nanmean(of_clips, axis=0)
            lines.append([row + suffix, *(f"{mean:.1f}" for mean in means), f"{int(of_clips[:, -1].sum())}"])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what lacks, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="of the rendered streams (default: 1 2)")
    parser.add_argument("--clips", nargs="+", help="of the stream; default: those of the table footage-rates")
    parser.add_argument("--row", action="append", default=[], help="another row, as `name: flags of boa.py`")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: 1)")
    options = parser.parse_args(argv)
    named = dict(_row(text) for text in options.row)
    footage = TABLES["footage-rates"]
    adapted = ["--method", "boa"]
    of_images = [*adapted, "--model_file", str(WILD_ASSETS.base_model)]
    rows = {**FROZEN, "adapted": adapted, "footage.pt, adapted": of_images, **named}
    table = footage._replace(rows=rows, clips=tuple(options.clips or footage.clips), more=())
    runs = runs_of("footage-truth", table, options.seeds)
    make_all(runs, options.jobs)
    body = load_bodies(DEMO_ASSETS.smpl_model_dir, DEMO_ASSETS.regressor_extra, ("neutral",))["neutral"]
    found: dict[str, list[np.ndarray]] = {}
    for run in runs:
        found.setdefault(run.row, []).append(score_run(run, body))
    text = markdown(found)
    save_text(PROJECT / "experiments" / "footage-truth" / "table.md", text)
    print(text, end="")


def _row(text: str) -> tuple[str, list[str]]:
    name, colon, flags = text.partition(":")
    if not colon:
        raise UserError(f"--row {text} has no colon; give it as `name: flags`")
    return name.strip(), shlex.split(flags)


if __name__ == "__main__":
    run_command(main)
