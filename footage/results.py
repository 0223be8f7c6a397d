"""What a run on one's own video leaves: the video with the body on the person, predictions, errors, animated files.

Everything large is written frame by frame, so that memory does not grow with the video and an interrupted run keeps
what it has.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import matplotlib
import numpy as np

from footage.overlay import Drawn, OverlayVideo
from footage.people import Footage
from footage.poses import PosesFile
from utils.files import write_atomically
from utils.image import BOX_UNIT
from utils.resume import State, has_state
from utils.run_folder import RunFolder
from utils.scores import DYNAMIC_SCORES, SCORES, Row, guard_lines, guarded, means_of, of_dynamic_steps, table_of
from utils.structures import Frame, Prediction

log = logging.getLogger("boa")

_LABELS = ("index", "time_s", "image", "person", "seen", "adapted", "exchanged", "dropped", "jump")
_COLUMNS = {
    "frozen_px": "frozen_px",
    "frozen_share": "frozen_share_of_box",
    "adapted_px": "adapted_px",
    "adapted_share": "adapted_share_of_box",
    "accel": "accel_mm",
}
_OVERLAY_BYTES = 20_000  # of a frame of 720 px
# what `seen` says in scores.csv: by the detector, interpolated over a gap, not there
SEEN, BRIDGED, MISSING = "yes", "bridged", "no"


class FootageResults:
    """Collects what a run on footage yields, in batches of one (utils.results.Results).

    Args:
        run: its folder
        footage: what is gone through, which knows what was not as it should be
        overlay, poses: its parts
    """

    def __init__(self, run: RunFolder, footage: Footage, overlay: OverlayVideo, poses: PosesFile) -> None:
        self.run, self.footage, self.overlay, self.poses = run, footage, overlay, poses
        self.sums, self.counted = {"frozen_share": 0.0, "adapted_share": 0.0}, 0  # of the frames that have both

    @property
    def frames(self) -> int | None:
        """How many there will be, None if unknown."""
        return self.footage.frames

    def add(
        self,
        frame: Frame,
        prediction: Prediction | None,
        scores: Sequence[Mapping[str, float]] = (),
        terms: Mapping[str, float] = {},
        adapted: Sequence[bool] = (),
    ) -> None:
        """Take a frame; the prediction is None where the person is not."""
        rgb = frame["rgb"][0].numpy()
        labels: Row = {"index": int(frame["index"]), "time_s": float(frame["time"])}
        if prediction is None:
            self.run.add({**labels, "seen": MISSING}, {}, adapted=False)
            self.overlay.add(rgb, None, labels["time_s"])
            return
        labels |= {"image": frame["imgname"][0], "person": int(frame["person"])}
        labels |= {"seen": BRIDGED if frame["bridged"] else SEEN, "adapted": "yes" if adapted[0] else "no"}
        labels |= {"exchanged": frame["exchanged"][0], "dropped": int(frame["dropped"])}
        labels["jump"] = frame.get("jump", [""])[0]
        if not frame["bridged"]:
            self.sums = {name: total + scores[0][name] for name, total in self.sums.items()}
            self.counted += 1
        self.run.add_terms(terms)
        self.run.add(labels, {**scores[0], **of_dynamic_steps(terms)}, adapted[0])
        center, side = frame["center"][0].numpy().astype(np.float64), BOX_UNIT * float(frame["scale"])
        prediction = prediction.on_host()
        self.poses.add(prediction, center, side, rgb.shape[:2])
        body = Drawn(prediction.vertices[0].numpy(), prediction.cam[0].numpy(), center, side)
        self.overlay.add(rgb, body, labels["time_s"])

    def running(self) -> dict[str, str]:
        """Mean 2D error up to now as a fraction of the box, for a progress bar."""
        means = {name: self.sums[f"{name}_share"] / max(1, self.counted) for name in self._networks}
        return {name: f"{100 * mean:.1f} %" for name, mean in means.items()}

    @property
    def _networks(self) -> tuple[str, ...]:
        """Those to compare: the base model and, where anything was adapted, what it became."""
        return ("frozen", "adapted") if self.run.adapted else ("frozen",)

    def bytes_needed(self) -> int:
        """Room for what is written frame by frame, of an overlay as large as most."""
        frames = self.frames or 0
        return self.poses.file.bytes_needed(frames) + _OVERLAY_BYTES * frames

    def state(self) -> State:
        """What there is up to now (utils.resume.Stateful)."""
        return {
            "run": self.run.state(),
            "sums": self.sums,
            "counted": self.counted,
            "poses": self.poses.state(),
            "overlay": self.overlay.state(),
        }

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.run.load_state(state["run"])
        self.sums, self.counted = state["sums"], state["counted"]
        self.poses.load_state(state["poses"])
        self.overlay.load_state(state["overlay"])

    def discard(self) -> None:
        """Take away what is kept to go on."""
        self.poses.discard()
        self.overlay.discard()

    def close(self) -> None:
        """Finish every file, whatever happens to the others; on a full disk the large ones make room for the scores."""
        rate = self.run.frames_per_second()
        with ExitStack() as steps:  # done from the last to the first
            steps.callback(self._save_scores, rate)
            if self.run.rows:
                steps.callback(write_atomically, self.run.folder / "reprojection.png", self._plot)
            if not has_state(self.run.folder):
                steps.callback(self.poses.discard)
            steps.callback(self._save_poses)
            steps.callback(self.run.writer.close)
            steps.callback(self.overlay.close)

    def _save_poses(self) -> None:
        rows = [row for row in self.run.rows if row["seen"] != MISSING]
        names, index, times = ([row[label] for row in rows] for label in ("image", "index", "time_s"))
        self.poses.close(names, index, times, [row["seen"] == BRIDGED for row in rows])

    def _save_scores(self, rate: float) -> None:
        rows, columns = self.run.rows, self._columns()
        means = means_of(rows, columns)
        seen = [row["seen"] for row in rows]
        numbers = {
            "frames_bridged": seen.count(BRIDGED),
            "frames_missing": seen.count(MISSING),
            "frames_not_adapted": len(rows) - seen.count(MISSING) - self.run.adapted,
            **{columns[score]: value for score, value in means.items()},
            "frames_per_second": rate,
            **self.footage.facts(),
            "guards": guarded(rows),
        }
        for warning in self.footage.warnings():
            log.warning(warning)
        not_adapted = f", predicted but not adapted to: {numbers['frames_not_adapted']}" if self.run.adapted else ""
        lines = [
            f"{len(rows)} frames; bridged: {numbers['frames_bridged']}, "
            f"without the person: {numbers['frames_missing']}" + not_adapted + guard_lines(rows)
        ]
        for name in self._networks:
            if means[f"{name}_px"] is not None:
                percent = 100 * means[f"{name}_share"]
                lines.append(f"2D error, {name}: {means[f'{name}_px']:.1f} px, {percent:.2f} % of the box")
        if means["accel"] is not None:
            lines.append(f"acceleration of the 3D joints: {means['accel']:.1f} mm/frame^2")
        if "extra_steps" in means:
            lines.append(f"extra steps: {means['extra_steps']:.2f} a frame")
        table = table_of(rows, _LABELS, columns, digits=5)
        self.run.save(table, self.frames, numbers, "\n".join(lines) + "\n")

    def _columns(self) -> dict[str, str]:
        """The scores of these frames with their names; those of dynamic steps only where there are any."""
        dynamic = [score for score in DYNAMIC_SCORES if score in self.run.rows.known]
        return {**_COLUMNS, **{score: SCORES[score].column for score in dynamic}}

    def _plot(self, path: Path) -> None:
        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
        times = [row["time_s"] for row in self.run.rows]
        means = means_of(self.run.rows, _COLUMNS)
        for name in self._networks:
            percent = [100 * row.get(f"{name}_share", math.nan) for row in self.run.rows]
            mean = means[f"{name}_share"]
            label = name if mean is None else f"{name}: mean {100 * mean:.1f} %"
            axes.plot(times, percent, label=label)
        axes.set(xlabel="time [s]", ylabel="2D error [% of the box]", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=110)
        pyplot.close(figure)
