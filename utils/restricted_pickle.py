"""Reading other people's pickles without running other people's code.

Data sets and body models of this field come as pickles, some of Python 2, some with chumpy arrays inside. Only the
classes that such files need are allowed, and even these are not the real ones but stand-ins that note what the file
says of them: once all is read, arrays and matrices are made of it, of no more bytes than were there. chumpy is not
needed. Anything else is an error that names it.
"""

import argparse
import io
import math
import pickle
import re
import types
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse

from utils.errors import UserError, reason_for
from utils.files import check_text, existing


class StandIn:
    """An object of a pickle, of which only the state is kept.

    `value` is what it becomes, given a function that does the same for what is inside of it.
    """

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def value(self, plain: Callable[[Any], Any]) -> Any:
        raise pickle.UnpicklingError(f"it holds a {type(self).__name__.strip('_')} that cannot be read")


class _Dtype(StandIn):
    """numpy.dtype: a kind and size, `f8`; the state adds the order of bytes."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[biufcSUO]\d{1,9}", _text(code)):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, which is not read")
        self.code = _text(code)

    def array(self, content: bytes | str | Sequence[Any], shape: Sequence[int], order: str) -> np.ndarray:
        """The array of the bytes, or of the objects, of a shape; UnpicklingError when it is not exactly these."""
        count = math.prod(shape)
        if any(type(side) is not int or side < 0 for side in shape):
            raise pickle.UnpicklingError(f"it holds an array of shape {shape}")
        if self.code.startswith("O"):
            flat = np.empty(len(content), object)
            for place, item in enumerate(content):
                flat[place] = item
        else:
            flat = np.frombuffer(_bytes(content), self._with_order()) if count else np.zeros(0, self._with_order())
        if len(flat) != count:
            raise pickle.UnpicklingError(f"it holds {len(flat)} numbers for an array of shape {shape}")
        check_text(flat)
        return flat.reshape(shape, order=order).copy(order="K")

    def _with_order(self) -> np.dtype:
        byte_order = "="
        if self.state:
            _, byte_order, *fields = self.state
            if fields[:3] != [None, None, None]:
                raise pickle.UnpicklingError("it holds an array of records, which is not read")
        return np.dtype(_text(byte_order) + self.code)


class _Array(StandIn):
    """numpy.ndarray: the state is version, shape, dtype, whether in Fortran's order, and the bytes."""

    def value(self, plain: Callable[[Any], Any]) -> np.ndarray:
        *_, shape, dtype, is_fortran, content = self.state
        if isinstance(content, list):
            content = [plain(item) for item in content]
        return dtype.array(content, shape, "F" if is_fortran else "C")


class _Sparse(StandIn):
    """A matrix or array of scipy.sparse, by its format."""

    layout: ClassVar[str]

    def value(self, plain: Callable[[Any], Any]) -> scipy.sparse.spmatrix:
        state = plain(self.state)
        shape = state["_shape"] if "_shape" in state else state["shape"]
        data = _array(state["data"])
        if self.layout == "coo":
            coords = state["coords"] if "coords" in state else (state["row"], state["col"])
            return scipy.sparse.coo_matrix((data, tuple(map(_array, coords))), shape)
        make = {"csc": scipy.sparse.csc_matrix, "csr": scipy.sparse.csr_matrix}[self.layout]
        matrix = make((data, _array(state["indices"]), _array(state["indptr"])), shape)
        matrix.check_format(full_check=True)  # an index outside of the matrix would be written to
        return matrix


class _Chumpy(StandIn):
    """A chumpy object: a leaf holds its values in `x`, a Select picks entries of another one."""

    def value(self, plain: Callable[[Any], Any]) -> np.ndarray:
        if "x" in self.state:
            return _array(plain(self.state["x"]))
        picked = _array(plain(self.state["a"])).ravel()[_array(plain(self.state["idxs"]))]
        return picked.reshape(self.state.get("preferred_shape", picked.shape))


class _Settings(StandIn):
    """An object that only holds settings, as argparse.Namespace: it becomes a dictionary."""

    def value(self, plain: Callable[[Any], Any]) -> Any:
        return plain(dict(self.state or {}))


def _array(value: Any) -> np.ndarray:
    """An array itself; lists are none, for one that holds another many times would become larger than the file."""
    if not isinstance(value, np.ndarray):
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__} where an array is needed")
    return value


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _bytes(content: str | bytes | bytearray = b"", encoding: str = "latin1") -> bytes:
    """What stands for bytes and bytearray, which would also take a number and fill the memory."""
    if isinstance(content, str):
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError(f"it makes bytes of a {type(content).__name__}")
    return bytes(content)


def _reconstruct(cls: type, *_: object) -> StandIn:
    """numpy's start of an array, copyreg's of an object that Python 2 wrote."""
    if not (isinstance(cls, type) and issubclass(cls, StandIn)):
        raise pickle.UnpicklingError(f"it would build a {cls!r}")
    return cls.__new__(cls)


def _scalar(dtype: _Dtype, content: bytes | str) -> np.generic:
    return dtype.array(content, (), "C")[()]


def _frombuffer(
    content: bytes, dtype: _Dtype, shape: Sequence[int], order: str, axes: Sequence[int] | None = None
) -> np.ndarray:
    """An array as pickle protocol 5 has it; since NumPy 2.3 with the order of its axes."""
    array = dtype.array(content, shape, "C" if axes else order)
    return array.transpose(axes) if axes else array


# (module, name) of what a file may ask for -> what it gets
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _bytes,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _Chumpy,
    ("collections", "OrderedDict"): OrderedDict,
    (argparse.__name__, "Namespace"): _Settings,
    (types.__name__, "SimpleNamespace"): _Settings,
}
for _builtins in ("builtins", "__builtin__"):  # Python 3's and Python 2's name
    ALLOWED.update({(_builtins, safe.__name__): safe for safe in (set, frozenset, object, complex)})
    ALLOWED.update({(_builtins, name): _bytes for name in ("bytes", "bytearray")})
for _copyreg in ("copyreg", "copy_reg"):
    ALLOWED[(_copyreg, "_reconstructor")] = _reconstruct
for _core in ("numpy.core", "numpy._core"):  # the name up to NumPy 1 and from NumPy 2 on; neither is imported
    ALLOWED[(f"{_core}.multiarray", "_reconstruct")] = _reconstruct
    ALLOWED[(f"{_core}.multiarray", "scalar")] = _scalar
    ALLOWED[(f"{_core}.numeric", "_frombuffer")] = _frombuffer
for _layout in ("csc", "csr", "coo"):
    _stand_in = type(f"_{_layout}", (_Sparse,), {"layout": _layout})
    for _module in (_layout, f"_{_layout}"):
        for _name in ("matrix", "array"):
            ALLOWED[(f"scipy.sparse.{_module}", f"{_layout}_{_name}")] = _stand_in


class RestrictedUnpickler(pickle._Unpickler):
    """Reads with stand-ins only.

    It is the unpickler in Python: the one in C reserves as much memory as a file likes, for the number that it gives to
    an entry of its memo.
    """

    dispatch: ClassVar[dict[int, Callable]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")  # so that bytes of Python 2 pass through text unharmed

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return ALLOWED[(module, name)]

    def load_build(self) -> None:
        """Set the state of a stand-in; that of anything else, as of a class, is not the file's to set."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], StandIn):
            self.stack[-1].__setstate__(state)
        elif not isinstance(self.stack[-1], OrderedDict):  # whose attributes are not needed
            raise pickle.UnpicklingError(f"it sets the state of a {type(self.stack[-1]).__name__}")

    def load_bytearray8(self) -> None:
        """Read a bytearray without reserving first what the file announces."""
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _guarded(load: Callable, target: Callable[[RestrictedUnpickler], Any], kind: type) -> Callable:
    """What fills a container, for containers of that kind only: nothing else is changed by what a file says."""

    def guarded(unpickler: RestrictedUnpickler) -> None:
        if not isinstance(target(unpickler), kind):
            raise pickle.UnpicklingError(f"it fills a {type(target(unpickler)).__name__} like a {kind.__name__}")
        load(unpickler)

    return guarded


for _opcode, _place, _kind in ((pickle.SETITEM, -3, dict), (pickle.APPEND, -2, list)):
    RestrictedUnpickler.dispatch[_opcode[0]] = _guarded(
        RestrictedUnpickler.dispatch[_opcode[0]], lambda unpickler, place=_place: unpickler.stack[place], _kind
    )
for _opcode, _kind in ((pickle.SETITEMS, dict), (pickle.APPENDS, list), (pickle.ADDITEMS, set)):
    RestrictedUnpickler.dispatch[_opcode[0]] = _guarded(
        RestrictedUnpickler.dispatch[_opcode[0]], lambda unpickler: unpickler.metastack[-1][-1], _kind
    )


def plain_value(value: Any) -> Any:
    """The same with every stand-in, anywhere in dictionaries, lists and tuples, turned into what it stands for."""
    done: dict[int, Any] = {}  # what occurs twice is made once, or a file could make it double again and again

    def plain(value: Any) -> Any:
        if not isinstance(value, dict | list | tuple | StandIn):
            return value
        if id(value) not in done:
            if isinstance(value, dict):
                done[id(value)] = result = {}
                result.update({key: plain(item) for key, item in value.items()})
            elif isinstance(value, list):
                done[id(value)] = result = []
                result.extend(plain(item) for item in value)
            else:
                is_tuple = isinstance(value, tuple)
                done[id(value)] = tuple(plain(item) for item in value) if is_tuple else value.value(plain)
        return done[id(value)]

    return plain(value)


def numbers(value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """What a pickle holds, an array or nested lists, as float64 of a shape; None is any length.

    Raises ValueError when it has another shape, or holds what is no number.
    """
    found = np.shape(value) if isinstance(value, np.ndarray) else _nested_shape(value, shape)
    if len(found) != len(shape) or any(want not in (None, got) for want, got in zip(shape, found, strict=True)):
        raise ValueError(f"has shape {found} where {shape} is needed".replace("None", "any"))
    return np.asarray(value, np.float64)


def _nested_shape(value: Any, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of nested lists, as far as it is the wanted one: no further, or shared lists would fill the memory."""
    if isinstance(value, np.ndarray):
        return value.shape
    if not isinstance(value, list | tuple):
        return ()
    if not shape or shape[0] not in (None, len(value)):
        return (len(value),)
    inner = {_nested_shape(item, shape[1:]) for item in value}
    if len(inner) > 1:
        raise ValueError(f"has rows of shapes {sorted(inner)[:3]} where {shape} is needed".replace("None", "any"))
    return (len(value), *(inner.pop() if inner else ()))


def load_pickle(path: Path, keys: tuple[str, ...], remedy: str) -> dict[str, Any]:
    """Read a pickled dictionary of numbers, numpy and scipy.sparse arrays, also one written by Python 2 or with chumpy.

    Args:
        path: the file
        keys: what the dictionary must have
        remedy: what the user can do if the file is missing or damaged

    Raises:
        UserError: the file is missing, damaged, lacks a key, or asks for any other class (none of its code is run).
    """
    path = existing(path, remedy)
    try:
        content = plain_value(RestrictedUnpickler(io.BytesIO(path.read_bytes())).load())
    except Exception as error:  # a damaged pickle can raise nearly anything; the cause is in the message
        raise UserError(f"{path} cannot be read safely ({reason_for(error)}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__} where a dictionary is needed; {remedy}")
    content = {_text(key): value for key, value in content.items()}
    missing = [key for key in keys if key not in content]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; {remedy}")
    return content
