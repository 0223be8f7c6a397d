"""Reading other people's pickles without running other people's code.

Data sets and body models of this field come as pickles, some of Python 2, some with chumpy arrays inside. Only the
classes that such files need are allowed; anything else is an error. chumpy is not needed: its arrays are unwrapped.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from utils.errors import UserError
from utils.files import existing


class _Chumpy:
    """Stands for a chumpy object: a leaf holds its values in `x`, a Select picks entries of another one."""

    def __setstate__(self, state: dict) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        if "x" in self.state:
            return np.asarray(self.state["x"])
        picked = np.asarray(_unwrap(self.state["a"])).ravel()[self.state["idxs"]]
        return picked.reshape(self.state.get("preferred_shape", picked.shape))


def _reconstructor(cls: type, base: type, state: Any) -> object:
    """What Python 2 wrote for objects of protocol 0 and 1; only the stand-ins for chumpy are made this way."""
    if cls is not _Chumpy:
        raise pickle.UnpicklingError(f"it would build a {cls!r}")
    return _Chumpy()


_SAFE: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _Chumpy,
}
for _builtins in ("builtins", "__builtin__"):  # Python 3's and Python 2's name
    _SAFE.update({(_builtins, safe.__name__): safe for safe in (set, object, bytes)})
for _copyreg in ("copyreg", "copy_reg"):
    _SAFE[(_copyreg, "_reconstructor")] = _reconstructor
for _core in ("numpy.core", "numpy._core"):
    _SAFE[(f"{_core}.multiarray", "_reconstruct")] = np.core.multiarray._reconstruct
    _SAFE[(f"{_core}.multiarray", "scalar")] = np.core.multiarray.scalar
for _name in ("csc", "csr", "coo"):
    for _module in (_name, f"_{_name}"):
        _SAFE[(f"scipy.sparse.{_module}", f"{_name}_matrix")] = getattr(scipy.sparse, f"{_name}_matrix")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return _SAFE[(module, name)]


def _unwrap(value: Any) -> Any:
    """Turn chumpy stand-ins anywhere in lists and dictionaries into numpy arrays."""
    if isinstance(value, _Chumpy):
        return value.array()
    if isinstance(value, dict):
        return {key: _unwrap(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unwrap(item) for item in value]
    return value


def load_pickle(path: Path, keys: tuple[str, ...], remedy: str) -> dict[str, Any]:
    """Read a pickled dictionary of numbers, numpy and scipy.sparse arrays, also one written by Python 2 or with chumpy.

    Args:
        path: the file
        keys: what the dictionary must have
        remedy: what the user can do if the file is missing or damaged

    Raises:
        UserError: the file is missing, damaged, lacks a key, or asks for any other class (none of its code is run).
    """
    existing(path, remedy)
    try:
        with Path(path).open("rb") as file:
            content = _unwrap(_Unpickler(file, encoding="latin1").load())
    except Exception as error:  # a damaged pickle can raise nearly anything; the cause is in the message
        raise UserError(f"{path} cannot be read safely ({error or type(error).__name__}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__} where a dictionary is needed; {remedy}")
    missing = [key for key in keys if key not in content]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; {remedy}")
    return content
