"""What a run on one's own video leaves: the video with the body on the person, predictions, errors, animated files.

Everything is written frame by frame, so that memory does not grow with the video and an interrupted run keeps what it
has.
"""

import csv
import io
import json
import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from footage.export import Clip, save_bvh, save_glb
from footage.smoothing import OneEuro, OneEuroRotation
from footage.window import Window
from utils.files import save_text, write_atomically
from utils.image import BOX_UNIT
from utils.renderer import VIDEO_SAMPLING, VideoWriter, draw_in_image, side_view
from utils.results import ArrayFile, means_of, save_settings

HEIGHT = 720  # px of the video at most
PANEL = 320  # px, width of the view from the side
# cutoff in Hz and how fast it rises, for rotations (rad/s) and translation (m/s)
ROTATION_FILTER = (1.5, 0.7)
TRANSLATION_FILTER = (1.0, 1.0)
_SHAPES = {
    "rotmat": (24, 3, 3),
    "betas": (10,),
    "cam": (3,),
    "joints_3d": (49, 3),
    "joints_2d": (49, 2),
    "center": (2,),
    "scale": (),
    "cam_full": (3,),
    "translation": (3,),
}
_SMOOTH = {"rotmat_smooth": (24, 3, 3), "translation_smooth": (3,)}
_COLUMNS = ("index", "time_s", "image", "person", "seen", "adapted")
_SCORES = {
    "frozen_px": "frozen_px",
    "frozen_share": "frozen_share_of_box",
    "adapted_px": "adapted_px",
    "adapted_share": "adapted_share_of_box",
    "accel": "accel_mm",
}
# what `seen` says in scores.csv: by the detector, interpolated over a gap, not there
SEEN, BRIDGED, MISSING = "yes", "bridged", "no"


def focal_length(image_size: tuple[int, int]) -> float:
    """The focal length in px that `translation` is given for: the image's diagonal, as for an unknown camera."""
    return math.hypot(*image_size)


def full_camera(cam: np.ndarray, center: np.ndarray, side: float, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The crop's camera in the whole image.

    Args:
        cam: (3,) weak perspective s, tx, ty over the crop
        center: (2,) px and side, px, of the crop
        image_size: height and width, px

    Returns:
        cam_full: (3,) = k, u, v: a point (x,y,z) m of the body is at (k x + u, k y + v) px
        translation: (3,) m, to be added to the body in front of a pinhole camera with `focal_length` and its centre in
            the middle of the image; puts the body's origin at the same pixel
    """
    s, *offset = cam
    k = s * side / 2
    middle = center + k * np.array(offset)
    focal, height, width = focal_length(image_size), *image_size
    depth = focal / k
    x, y = (middle - np.array([width, height]) / 2) * depth / focal
    return {"cam_full": np.array([k, *middle]), "translation": np.array([x, y, depth])}


class FootageResults:
    """Collects what a run on footage yields; of the same outer shape as utils.results.Results, for batches of one.

    Args:
        folder: of the run
        settings: every option, for setting.txt and summary.json
        facts: what else summary.json shall say
        frames: how many there will be, None if unknown
        rate: frames/s of the video
        body: the body model that the predictions are of
        smooth: filter rotations and translation; both are saved
        export: none, glb, bvh or both
        window: shows each frame of the video as it is made
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        facts: Mapping[str, Any],
        frames: int | None,
        rate: float,
        body: Any,
        smooth: bool,
        export: str,
        window: Window | None = None,
    ) -> None:
        self.folder, self.settings, self.facts, self.frames = folder, settings, dict(facts), frames
        self.body, self.smooth, self.export, self.window = body, smooth, export, window
        self.rows: list[dict[str, Any]] = []
        self.sums, self.counted = {"frozen_share": 0.0, "adapted_share": 0.0}, 0  # of the frames that have both
        self.size: tuple[int, int] | None = None
        save_settings(folder, settings)
        self.writer = SummaryWriter(str(folder))
        self.video = VideoWriter(folder / "overlay.mp4", rate)
        self.drawer, self.drawing = ThreadPoolExecutor(1), None
        self.predictions = ArrayFile(folder / "predictions.npz", _SHAPES | (_SMOOTH if smooth else {}))
        self.rotations, self.places = OneEuroRotation(*ROTATION_FILTER), OneEuro(*TRANSLATION_FILTER)
        self.started = time.monotonic()

    def add(
        self, frame: Mapping[str, Any], prediction: Any, scores: list[dict[str, float]], losses: Mapping[str, float]
    ) -> None:
        """Take a frame in which the person is; shapes as datasets.video.Footage gives them."""
        step = len(self.rows)
        for name, value in losses.items():
            self.writer.add_scalar(f"loss/{name}", value, step)
        for name, value in scores[0].items():
            if not math.isnan(value):
                self.writer.add_scalar(f"score/{name}", value, step)
        if not frame["bridged"]:
            self.sums = {name: total + scores[0][name] for name, total in self.sums.items()}
            self.counted += 1
        self.rows.append(
            {
                "index": int(frame["index"]),
                "time_s": float(frame["time"]),
                "image": frame["imgname"][0],
                "person": int(frame["person"]),
                "seen": BRIDGED if frame["bridged"] else SEEN,
                "adapted": "yes" if losses else "no",
                **scores[0],
            }
        )
        rgb, center = frame["rgb"][0].numpy(), frame["center"][0].numpy().astype(np.float64)
        side = BOX_UNIT * float(frame["scale"])
        self.size = rgb.shape[:2]
        # one transfer from the device
        rotmat, betas, cam, joints, vertices, keypoints = (field[0].cpu().numpy() for field in prediction)
        arrays = {
            "rotmat": rotmat,
            "betas": betas,
            "cam": cam,
            "joints_3d": joints,
            "joints_2d": center + keypoints * side / 2,
            "center": center,
            "scale": side / BOX_UNIT,
            **full_camera(cam, center, side, self.size),
        }
        if self.smooth:
            seconds = float(frame["time"])
            arrays["rotmat_smooth"] = self.rotations(rotmat.astype(np.float64), seconds)
            arrays["translation_smooth"] = self.places(arrays["translation"], seconds)
        self.predictions.add(arrays)
        self._draw(rgb, vertices, cam, center, side)

    def add_missing(self, index: Any, seconds: Any, rgb: Any) -> None:
        """Take a frame in which the person is not; arguments as in the frames of datasets.video.Footage."""
        self.rows.append({"index": int(index), "time_s": float(seconds), "seen": MISSING})
        self.rotations.reset()
        self.places.reset()
        self._draw(rgb[0].numpy())

    def _draw(self, rgb: np.ndarray, *person: Any) -> None:
        """Append a frame to the video, with the person if there is one, while the next frame is adapted to.

        One frame at a time, so that they do not pile up; a window shows its picture at once.
        """
        self._wait_for_drawing()
        self.drawing = self.drawer.submit(self._append, rgb, *person)
        if self.window:
            self.window.show(self._wait_for_drawing())

    def _wait_for_drawing(self) -> np.ndarray | None:
        drawing, self.drawing = self.drawing, None
        return drawing.result() if drawing else None

    def _append(self, rgb: np.ndarray, *person: Any) -> np.ndarray:
        """Append a frame to the video: the picture, and beside it, on white, the body from the side -> the frame."""
        picture, zoom = _shrunk(rgb)
        side = min(PANEL, len(picture))
        panel = np.full((len(picture), side, 3), 255, np.uint8)
        if person:
            vertices, cam, center, box_side = person
            draw_in_image(picture, vertices, self.body.faces, cam, center * zoom, box_side * zoom)
            top = (len(picture) - side) // 2
            panel[top : top + side] = side_view(vertices, self.body.faces, cam, side, supersampling=VIDEO_SAMPLING)
        shown = np.hstack([picture, panel])
        self.video.add(shown)
        return shown

    def running(self) -> dict[str, str]:
        """Mean 2D error up to now as a share of the box, for a progress bar."""
        means = {name: total / max(1, self.counted) for name, total in self.sums.items()}
        return {name.removesuffix("_share"): f"{100 * mean:.1f} %" for name, mean in means.items()}

    def close(self) -> None:
        """Finish every file, whatever happens to the others; on a full disk the large ones make room for the scores."""
        rate = len(self.rows) / (time.monotonic() - self.started)
        with ExitStack() as steps:  # done from the last to the first
            if self.rows:
                steps.callback(write_atomically, self.folder / "reprojection.png", self._plot)
                steps.callback(self._save_scores, rate)
            steps.callback(self.predictions.discard)
            steps.callback(self._save_predictions)
            steps.callback(self.video.close)
            steps.callback(self.writer.close)
            steps.callback(self._wait_for_drawing)
            steps.callback(self.drawer.shutdown)
            if self.window:
                steps.callback(self.window.close)

    def _save_predictions(self) -> None:
        """Write predictions.npz and what is to be exported of it, if the person was in any frame."""
        count = self.predictions.count  # one less than the rows when the disk was full
        rows = [row for row in self.rows if row["seen"] != MISSING][:count]
        if not rows:
            return
        clip = self._clip(self.predictions.arrays(), np.array([row["time_s"] for row in rows]))
        self.predictions.close(
            imgname=np.array([row["image"] for row in rows], dtype=str),
            index=np.array([row["index"] for row in rows]),
            time=clip.times,
            bridged=np.array([row["seen"] == BRIDGED for row in rows]),
            skeleton=clip.skeleton().astype(np.float32),
            focal_length=np.array(focal_length(self.size)),
            image_size=np.array(self.size),
        )
        if self.export in ("glb", "both"):
            save_glb(self.folder / "animation.glb", clip)
        if self.export in ("bvh", "both"):
            save_bvh(self.folder / "animation.bvh", clip)

    def _clip(self, arrays: Mapping[str, np.ndarray], times: np.ndarray) -> Clip:
        body, suffix = self.body, "_smooth" if self.smooth else ""
        betas = torch.as_tensor(np.mean(arrays["betas"], axis=0), dtype=torch.float32, device=body.v_template.device)
        vertices = body.unposed(betas[None])[0]
        return Clip(
            vertices.cpu().numpy(),
            np.asarray(body.faces),
            body.lbs_weights.cpu().numpy(),
            (body.J_regressor @ vertices).cpu().numpy().astype(np.float64),
            np.concatenate([[-1], body.parents[1:].numpy()]),
            np.asarray(arrays[f"rotmat{suffix}"], np.float64),
            np.asarray(arrays[f"translation{suffix}"], np.float64),
            times,
        )

    def _save_scores(self, rate: float) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_COLUMNS, *_SCORES.values()])
        for row in self.rows:
            numbers = [row.get(score, math.nan) for score in _SCORES]
            cells = ["" if math.isnan(number) else f"{number:.5f}" for number in numbers]
            writer.writerow([*(row.get(column, "") for column in _COLUMNS), *cells])
        save_text(self.folder / "scores.csv", text.getvalue())
        means = means_of(self.rows, _SCORES)
        summary = {
            "frames": len(self.rows),
            "complete": self.frames is None or len(self.rows) == self.frames,
            "frames_bridged": sum(row["seen"] == BRIDGED for row in self.rows),
            "frames_missing": sum(row["seen"] == MISSING for row in self.rows),
            **{_SCORES[score]: value for score, value in means.items()},
            "frames_per_second": rate,
            **self.facts,
            "options": dict(self.settings),
        }
        save_text(self.folder / "summary.json", json.dumps(summary, indent=2, default=str) + "\n")
        lines = [
            f"{summary['frames']} frames, {rate:.2f} frames/s; bridged: {summary['frames_bridged']}, "
            f"without the person: {summary['frames_missing']}, "
            f"predicted but not adapted to: {self.facts.get('frames_not_adapted', 0)}"
        ]
        for name in ("frozen", "adapted"):
            if means[f"{name}_px"] is not None:
                share = 100 * means[f"{name}_share"]
                lines.append(f"2D error, {name}: {means[f'{name}_px']:.1f} px, {share:.2f} % of the box")
        if means["accel"] is not None:
            lines.append(f"acceleration of the 3D joints: {means['accel']:.1f} mm/frame^2")
        save_text(self.folder / "performance.txt", "\n".join(lines) + "\n")

    def _plot(self, path: Path) -> None:
        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
        times = [row["time_s"] for row in self.rows]
        means = means_of(self.rows, _SCORES)
        for name in ("frozen", "adapted"):
            share = [100 * row.get(f"{name}_share", math.nan) for row in self.rows]
            mean = means[f"{name}_share"]
            label = name if mean is None else f"{name}: mean {100 * mean:.1f} %"
            axes.plot(times, share, label=label)
        axes.set(xlabel="time [s]", ylabel="2D error [% of the box]", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=110)
        pyplot.close(figure)


def _shrunk(rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy of an image, at most HEIGHT px high, and by how much it is shrunk."""
    zoom = min(1.0, HEIGHT / len(rgb))
    if zoom == 1:
        return rgb.copy(), 1.0
    return cv2.resize(rgb, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), zoom
