"""SMPL as released, with chumpy arrays inside -> files of plain arrays that smplx loads without chumpy."""

import logging
import pickle
from pathlib import Path

import numpy as np
import scipy.sparse

from utils.errors import UserError
from utils.files import write_atomically
from utils.restricted_pickle import load_pickle

log = logging.getLogger("boa")

# names of the released files, versions 1.0.0 and 1.1.0, in lower case
_RELEASED = {"NEUTRAL": "basicmodel_neutral_", "MALE": "basicmodel_m_", "FEMALE": "basicmodel_f_"}
_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "J", "weights", "kintree_table", "f")
_REMEDY = "download SMPL for Python, version 1.1.0, from its web site and unpack it there"


def convert(folder: Path) -> None:
    """Write SMPL_{NEUTRAL,MALE,FEMALE}.pkl into a folder in which the released files lie, at any depth.

    Files that are called so already, with chumpy inside, are cleaned too.
    Raises UserError when a gender is not there, or a file is damaged or hostile.
    """
    for gender, start in _RELEASED.items():
        target = folder / f"SMPL_{gender}.pkl"
        released = sorted(file for file in folder.rglob("*.pkl") if file.name.lower().startswith(start))
        if not released and not target.exists():
            raise UserError(f"{folder} holds neither {start}*.pkl nor {target.name}; {_REMEDY}")
        source = released[-1] if released else target
        model = load_pickle(source, _KEYS, _REMEDY)
        plain = {key: value for key, value in model.items() if _is_plain(value)}
        lacking = [key for key in _KEYS if not np.shape(plain.get(key, 0))]
        if lacking:
            raise UserError(f"{source}: {', '.join(lacking)} is no array; {_REMEDY}")
        write_atomically(target, lambda path, plain=plain: path.write_bytes(pickle.dumps(plain, protocol=2)))
        log.info("%s: %d vertices, from %s", target, len(plain["v_template"]), source)


def _is_plain(value: object) -> bool:
    return isinstance(value, np.ndarray | str | int | float) or scipy.sparse.issparse(value)
