"""Poses to train on: motion capture, where there is some, and procedural motions."""

import logging
from pathlib import Path

import numpy as np

from synthetic.motions import KINDS, mirrored, source_poses
from synthetic.stream import DOMAINS
from utils.files import load_npz

log = logging.getLogger("boa")

_CLIPS = 60  # of each kind of procedural motion
_HELD_OUT = 8  # every eighth clip of motion capture is not trained on
_RECORDED_SHARE = 2 / 3  # of the poses, where there is motion capture


def training_poses(seed: int, recorded_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Poses (N,24,3) to train on and (M,24,3) to validate on, axis-angle, y up.

    They are of no kind of motion that the rendered footage shows, so that this stays unseen.

    Args:
        seed: of the procedural motions
        recorded_file: the npz of utils.data_preprocess.mocap; it may be missing, which is logged

    Raises:
        UserError: the file is damaged
    """
    kinds = [kind for kind in KINDS if kind not in DOMAINS["wild"].kinds]
    made, held_out = (source_poses(np.random.default_rng([seed, part]), _CLIPS, kinds=kinds) for part in range(2))
    if not recorded_file.exists():
        log.info("%s is not there: procedural motions only (process_data.py --dataset mocap)", recorded_file)
        return made, held_out
    recorded = load_npz(recorded_file, ("poses", "clip"), "run process_data.py --dataset mocap")
    poses, clips = recorded["poses"].astype(np.float32), recorded["clip"]
    held = np.isin(clips, np.unique(clips)[::_HELD_OUT])
    trained = np.concatenate([poses[~held], mirrored(poses[~held])])
    share = min(len(made), round(len(trained) * (1 / _RECORDED_SHARE - 1)))
    chosen = np.random.default_rng([seed, 2]).choice(len(made), share, replace=False)
    return np.concatenate([trained, made[chosen]]), poses[held]
