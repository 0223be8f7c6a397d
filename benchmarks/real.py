"""Real people with 3D truth: the table of `--dataset_name multiview`, network by network, beside MediaPipe's own 3D.

    python benchmarks/real.py                                        # the free network of footage
    python benchmarks/real.py --model_file a.pt b.pt                 # these networks instead

Every network is scored as it is and adapted, and both smoothed over time as a video's predictions are saved; the runs
are in experiments/real, and used again (benchmarks/ablation.py). Nothing is chosen by these numbers.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import default_collate

sys.path.insert(0, str(Path(__file__).parents[1]))

import config
import streams
from benchmarks.ablation import PROJECT, Run, assets_version, code_version, file_name, make_all
from datasets.base import CroppedFrames
from footage.smoothing import smooth_joints
from models.smpl import SMPL, load_bodies
from utils.errors import UserError, run_command
from utils.evaluation import Scorer, score_multiview
from utils.files import load_npz, save_text
from utils.image import read_rgb
from utils.joints import JOINTS49, LIMBS, MEDIAPIPE33, rows
from utils.scores import SCORES, means_of
from utils.structures import Prediction

MEASURES = {
    "mpjpe_mm": ("MPJPE [mm]", 1, 0),
    "pampjpe_mm": ("PA-MPJPE [mm]", 1, 0),
    "accel_mm": ("accel. [mm]", 1, 1),
    "reprojection_share_of_box": ("2D error [% of the box]", 100, 1),
}
OWN_SCORES = ("mpjpe", "pampjpe", "accel")  # those that 3D without a camera has
Numbers = Mapping[str, float | None]  # measure -> mean, None where there is none


def own_3d(frames: CroppedFrames) -> dict[str, Numbers]:
    """Scores of MediaPipe's world landmarks, camera by camera; frames in which it sees nobody do not count.

    Raises UserError when MediaPipe is not installed or an image is missing.
    """
    try:
        from mediapipe.python.solutions.pose import Pose
    except ImportError as error:
        raise UserError(f"MediaPipe is not there ({error}); pip install --no-deps -r requirements-video.txt") from error
    found: dict[str, list[dict[str, float]]] = {}
    scorer = own_scorer(frames)
    for index in range(len(frames)):
        frame = frames.crop(index)
        if frame["sequence"] not in found:
            pose = Pose(model_complexity=1)  # which goes on from frame to frame
        scores = found.setdefault(frame["sequence"], [])
        landmarks = pose.process(read_rgb(frames.images / frame["imgname"])).pose_world_landmarks
        if landmarks:
            points = np.array([[mark.x, mark.y, mark.z] for mark in landmarks.landmark])
            scores += scorer(as_prediction(of_landmarks(points)), default_collate([frame]))
    return {camera: by_column(means_of(scores, OWN_SCORES)) for camera, scores in found.items()}


def smoothed(run: Run, frames: CroppedFrames, body: SMPL) -> dict[str, Numbers]:
    """Scores of a run as a video of the same would be saved, camera by camera."""
    remedy = "remove the folder and run this again"
    ours = load_npz(run.folder / "predictions.npz", ("rotmat", "betas"), remedy)
    items = [frames.labels(index) for index in range(len(frames))]
    cameras = np.array([frame["sequence"] for frame in items])
    found: dict[str, Numbers] = {}
    for camera in dict.fromkeys(cameras):
        of_camera, scorer, scores = np.flatnonzero(cameras == camera), own_scorer(frames), []
        times = np.array([items[index]["index"] for index in of_camera]) / streams.STREAMS["multiview"].detected_at
        joints = smooth_joints(ours["rotmat"][of_camera], ours["betas"][of_camera], times, body)
        for index, of_frame in zip(of_camera, joints, strict=True):
            scores += scorer(as_prediction(of_frame), default_collate([items[index]]))
        found[camera] = by_column(means_of(scores, OWN_SCORES))
    return found


def own_scorer(frames: CroppedFrames) -> Scorer:
    """Scores 3D joints that were not projected."""
    return Scorer(lambda prediction, frame: score_multiview(prediction, frame, {}, torch.zeros(0)), frames.step)


def of_landmarks(points: np.ndarray) -> np.ndarray:
    """World landmarks (33,3) m in the rows (49,3) of joints; those of the limbs, 0 elsewhere."""
    joints = np.zeros((len(JOINTS49), 3))
    joints[rows(LIMBS.values(), JOINTS49)] = points[rows(LIMBS.values(), MEDIAPIPE33)]
    return joints


def as_prediction(joints: np.ndarray) -> Prediction:
    """Joints (49,3) m in the place of a network's."""
    nothing, places = torch.zeros(1, 0), torch.full((1, len(JOINTS49), 2), torch.nan)
    return Prediction(nothing, nothing, nothing, torch.as_tensor(joints, dtype=torch.float32)[None], nothing, places)


def by_column(means: Mapping[str, float | None]) -> Numbers:
    """Means of scores under the names that summary.json has for them."""
    return {SCORES[name].column: mean for name, mean in means.items()}


def table(found: Mapping[str, Mapping[str, Numbers]]) -> str:
    """A row of markdown for each entry: mean over the cameras, in brackets each camera."""
    header = ["", *(title for title, _, _ in MEASURES.values())]
    lines = [header, ["---"] * len(header)]
    for row, by_camera in found.items():
        lines.append([row, *(_cell(by_camera, measure) for measure in MEASURES)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(by_camera: Mapping[str, Numbers], measure: str) -> str:
    _, factor, digits = MEASURES[measure]
    values = [numbers.get(measure) for numbers in by_camera.values()]
    if not values or any(value is None for value in values):
        return ""
    scaled = [factor * value for value in values]
    return f"{np.mean(scaled):.{digits}f} ({' '.join(f'{value:.{digits}f}' for value in scaled)})"


def runs_of(model_files: Sequence[Path]) -> list[Run]:
    """Each network as it is, and adapted."""
    recording = streams.MULTIVIEW.annotations
    made_with = {
        "code": code_version(),
        "assets": assets_version(config.DEMO),
        "recording": str(recording.stat().st_mtime_ns),
    }
    runs = []
    for file in model_files or [streams.STREAMS["multiview"].assets.base_model]:
        made_with = {**made_with, "network": str(file.stat().st_mtime_ns)}
        for method, word in (("frozen", "frozen"), ("boa", "adapted")):
            flags = ["--dataset_name", "multiview", "--model_file", str(file.resolve()), "--method", method]
            flags += ["--save_predictions"]
            row = f"{file.stem}, {word}"
            runs.append(
                Run(row, PROJECT / "experiments" / "real" / file_name(row), flags, config.SYNTHETIC_ROOT, made_with)
            )
    return runs


def main(argv: Sequence[str] | None = None) -> None:
    """Run what lacks, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_file", type=Path, nargs="+", default=[], help="networks; default: that of footage")
    options = parser.parse_args(argv)
    missing = [file for file in options.model_file if not file.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing; name a network by --model_file")
    frames, _ = streams.STREAMS["multiview"].open()
    runs = runs_of(options.model_file)
    results = make_all(runs, jobs=1)
    assets = streams.STREAMS["multiview"].assets
    body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ("neutral",))["neutral"]
    found = {}
    for run in runs:
        found[run.row] = results[run.row][0]["by_sequence"]
        found[f"{run.row}, smoothed"] = smoothed(run, frames, body)
    text = table({**found, "MediaPipe's own 3D": own_3d(frames)})
    save_text(PROJECT / "experiments" / "real" / "table.md", text)
    print(text, end="")


if __name__ == "__main__":
    run_command(main)
