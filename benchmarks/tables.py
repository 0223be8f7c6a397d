"""The tables of the documentation as data: what each row changes, and on which streams it runs.

Ablations: the test stream, rendered from three seeds. Learning rates: the validation stream alone, so that nothing is
chosen on what is reported. Footage has learning rates of its own, chosen on rendered footage: as a stream with ground
truth (wild), and clip by clip as `--video` sees it, with the joints of MediaPipe (footage).
"""

from typing import NamedTuple

import streams

Rows = dict[str, list[str]]

FROZEN: Rows = {"frozen": ["--method", "frozen"]}
PAPER = ["--lr", "3e-6", "--metalr", "8e-6"]
# what each row of the ablation changes
ABLATION: Rows = {
    **FROZEN,
    "BOA, the paper's learning rates": PAPER,
    "BOA": [],
    "first order": ["--first_order"],
    "no motion": ["--motionloss_weight", "0"],
    "no teacher": ["--consistentloss_weight", "0"],
    "no labelled source": ["--labelloss_weight", "0"],
    "no probe (single level)": ["--metalr", "0"],
}


# the parts of DynaBOA, with joints that are exact and with such as detectors give; of first order, as it is
_PARTS: Rows = {
    "BOA": [],
    "dynamic steps": ["--dynamic_boa"],
    "retrieval": ["--retrieval"],
    "dynamic steps, retrieval": ["--dynamic_boa", "--retrieval"],
    "two passes": ["--passes", "2"],
    "soft reset": ["--soft_reset", "0.5"],
}
_NOISE = ["--keypoint_noise", "0.02"]
DYNABOA: Rows = {
    **FROZEN,
    **{row: ["--first_order", *flags] for row, flags in _PARTS.items()},
    **{f"{row}, noisy joints": ["--first_order", *flags, *_NOISE] for row, flags in _PARTS.items()},
}


def learning_rates(*of_adam: str) -> Rows:
    """A row for each learning rate of Adam; the probe's keeps the paper's proportion to it."""
    of_probe = [f"{float(rate) * 8 / 3:.1e}".replace("e-0", "e-").replace(".0e", "e") for rate in of_adam]
    return {f"{one}, {other}": ["--lr", one, "--metalr", other] for one, other in zip(of_adam, of_probe, strict=True)}


class Table(NamedTuple):
    """Rows of boa.py's flags, each run once for every seed.

    Attributes:
        rows: name -> flags; one is `frozen`, to which the others are compared
        stream: what boa.py runs on, a folder that process_data.py renders
        dataset: what process_data.py calls the set with that folder
        seeds: of the streams
        measures: columns, from MEASURES; the first two are shown in percent of frozen, too
        clips: where they are named, each of these sequences of the stream is run as a video instead
        more: flags of every row
    """

    rows: Rows
    stream: str
    dataset: str
    seeds: tuple[int, ...] = (0,)
    measures: tuple[str, ...] = ("mpjpe_mm", "pampjpe_mm", "pve_mm", "accel_mm", "frames_per_second")
    clips: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


TABLES = {
    "ablation": Table(ABLATION, stream="synthetic", dataset="synthetic", seeds=(0, 1, 2)),
    # every third frame: all sequences and cuts in a third of the time
    "dynaboa-ablation": Table(
        DYNABOA, stream="synthetic", dataset="synthetic", seeds=(0, 1, 2), more=("--stride", "3")
    ),
    "rates": Table(
        {**FROZEN, "3e-6, 8e-6 (the paper's)": PAPER, **learning_rates("1e-5", "3e-5", "1e-4", "3e-4")},
        stream="synthetic-validation",
        dataset="synthetic",
    ),
    "wild-rates": Table(
        {**FROZEN, **learning_rates("3e-5", "6e-5", "1e-4")},
        stream="wild",
        dataset="wild",
        measures=("reprojection_share_of_box", "mpjpe_mm", "pampjpe_mm", "accel_mm"),
        more=("--max_frames", "150"),
    ),
    "footage-rates": Table(
        {**FROZEN, **learning_rates("3e-5", "6e-5", "1e-4")},
        stream="wild",
        dataset="wild",
        measures=("adapted_share_of_box", "accel_mm"),
        clips=("wild_00_serve", "wild_01_run", "wild_02_talk"),
        more=("--model_file", str(streams.WILD_ASSETS.base_model)),
    ),
}


class Measure(NamedTuple):
    """A column: its title, and the factor of the number in summary.json."""

    title: str
    factor: float = 1


MEASURES = {
    "reprojection_share_of_box": Measure("reprojection error [% of the box]", 100),
    "adapted_share_of_box": Measure("reprojection error [% of the box]", 100),
    "mpjpe_mm": Measure("MPJPE [mm]"),
    "pampjpe_mm": Measure("PA-MPJPE [mm]"),
    "pve_mm": Measure("PVE [mm]"),
    "accel_mm": Measure("accel. [mm]"),
    "frames_per_second": Measure("frames/s"),
}
