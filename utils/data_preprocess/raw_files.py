"""Reading the formats that data sets are distributed in: HDF5, CDF and MATLAB 5.

What a file announces is compared with what it can hold before memory is reserved for it. A damaged file is a ValueError
or whatever the library raises, but never ends the program or keeps it busy for ever, as it would with scipy.io.loadmat,
which crashes on some, and cdflib, which goes round in circles on others.
"""

import contextlib
import math
import signal
import struct
import threading
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType

import cdflib
import h5py
import numpy as np

from utils.files import MAX_COMPRESSION

try:
    import resource
except ImportError:  # Windows
    resource = None

_SECONDS = 3.0  # of the processor, for a CDF file; a whole one takes a hundredth of that
_MEMORY = 2 * 2**30  # bytes, for the same
_PAGE = 4096  # bytes


def hdf5_array(content: h5py.File, key: str | h5py.Reference) -> np.ndarray:
    """All numbers of a dataset of an HDF5 file; ValueError when it has none, or announces more than the file holds."""
    dataset = content[key]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
        raise ValueError(f"{key} holds no numbers")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{key} lies in another file")
    check_announced(key, dataset.nbytes, min(dataset.id.get_storage_size(), Path(content.filename).stat().st_size))
    return dataset[()]


def check_announced(name: object, announced: int, stored: int) -> None:
    """Raise ValueError when that many stored bytes, if compressed, cannot hold the announced ones."""
    if announced > MAX_COMPRESSION * stored:
        raise ValueError(f"{name} is announced with {announced} bytes, more than the file holds")


# CDF


def read_cdf(file: Path, variable: str) -> np.ndarray:
    """The values of a variable of a CDF file, float64; whatever cdflib raises when it cannot be read."""
    with _limited():
        content = cdflib.CDF(file)
        info = content.varinq(variable)
        announced = (info.Last_Rec + 1) * math.prod(info.Dim_Sizes) * np.dtype(np.float64).itemsize
        check_announced(variable, announced, file.stat().st_size)
        return np.asarray(content.varget(variable), np.float64)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """TimeoutError and MemoryError for what takes too much time or memory; no limits but in the main thread."""
    if resource is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it takes too long")

    usual = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, stop)
    try:
        _limit_memory(usual)
        signal.setitimer(signal.ITIMER_PROF, _SECONDS, 1)  # and again, where the first one was caught
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, usual)


def _limit_memory(usual: tuple[int, int]) -> None:
    memory = Path("/proc/self/statm")
    if memory.exists():  # elsewhere than on Linux only the time is limited
        limit = int(memory.read_text().split()[0]) * _PAGE + _MEMORY
        if usual[0] == resource.RLIM_INFINITY or limit < usual[0]:
            resource.setrlimit(resource.RLIMIT_AS, (limit, usual[1]))


# MATLAB 5, by "MAT-File Format" of The MathWorks

_HEADER = 128  # bytes
_TAG = 8
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15  # kinds of elements
_CELLS = 1  # class of a matrix; the classes of real numbers are 6 to 15
_NUMERIC = range(6, 16)
_COMPLEX = 0x800
_PEEK = 1024  # bytes, in which a variable has its name


def read_cells(file: Path, names: Collection[str]) -> dict[str, list[np.ndarray]]:
    """Cell arrays of real matrices out of a MATLAB 5 file: name -> matrices float64, column by column of cells.

    Raises ValueError, KeyError or zlib.error when the file is damaged or lacks one.
    """
    content = memoryview(file.read_bytes())
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[_HEADER - 2 : _HEADER]))
    if order is None:
        raise ValueError("it is no MATLAB 5 file")
    found = {}
    place = _HEADER
    while place < len(content):
        kind, data, place = _element(content, place, order)
        if kind == _COMPRESSED:
            peek = memoryview(zlib.decompressobj().decompress(data, _PEEK))
            if _name(peek[_TAG:], order) not in names:
                continue
            kind, data, _ = _element(memoryview(zlib.decompress(data)), 0, order)
        if kind == _MATRIX and (name := _name(data, order)) in names:
            found[name] = _cells(data, order)
    missing = [name for name in names if name not in found]
    if missing:
        raise KeyError(missing[0])
    return found


def _element(content: memoryview, place: int, order: str) -> tuple[int, memoryview, int]:
    """The element at a place -> its kind, its bytes, and the place of the next one."""
    if place + _TAG > len(content):
        raise ValueError("it is cut off")
    kind, size = struct.unpack_from(f"{order}II", content, place)
    start = place + _TAG
    if kind >> 16:  # a small element, with its bytes in the tag
        kind, size, start = kind & 0xFFFF, kind >> 16, place + _TAG // 2
        end = place + _TAG
        if size > _TAG // 2:
            raise ValueError("a small element is large")
    else:
        end = start + size
        end += 0 if kind == _COMPRESSED else -size % _TAG
    if start + size > len(content):
        raise ValueError("it is cut off")
    return kind, content[start : start + size], end


def _header(matrix: memoryview, order: str) -> tuple[int, tuple[int, ...], str, int]:
    """Class, shape and name of a matrix, and the place where its content begins."""
    _, flags, place = _element(matrix, 0, order)
    _, sides, place = _element(matrix, place, order)
    _, name, place = _element(matrix, place, order)
    (flag,) = struct.unpack_from(f"{order}I", flags)
    shape = tuple(np.frombuffer(sides, f"{order}i4").tolist())
    if flag & _COMPLEX or min(shape, default=0) < 0:
        raise ValueError("it holds a matrix of complex numbers or of a negative size")
    return flag & 0xFF, shape, bytes(name).decode("latin1"), place


def _name(matrix: memoryview, order: str) -> str:
    return _header(matrix, order)[2]


def _cells(matrix: memoryview, order: str) -> list[np.ndarray]:
    kind, shape, name, place = _header(matrix, order)
    count = math.prod(shape)
    if kind != _CELLS or count * _TAG > len(matrix):
        raise ValueError(f"{name} is no array of {count} cells")
    cells = []
    for _ in range(count):
        kind, data, place = _element(matrix, place, order)
        if kind != _MATRIX:
            raise ValueError(f"{name} holds a cell that is no matrix")
        cells.append(_numbers(data, order))
    return cells


def _numbers(matrix: memoryview, order: str) -> np.ndarray:
    if len(matrix) == 0:
        return np.zeros((0, 0))
    kind, shape, _, place = _header(matrix, order)
    stored, data, _ = _element(matrix, place, order)
    if kind not in _NUMERIC or stored not in _NUMBERS:
        raise ValueError("it holds a cell without real numbers")
    numbers = np.frombuffer(data, order + _NUMBERS[stored]).astype(np.float64)
    return numbers.reshape(shape, order="F")
