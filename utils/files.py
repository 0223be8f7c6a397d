"""Reading with a remedy, writing without half-written files.

What a file announces is compared with what it can hold before memory is reserved for it: a damaged or hostile file of
a kilobyte does not ask for gigabytes.
"""

import contextlib
import json
import math
import shutil
import sys
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from utils.errors import UserError, WriteError, reason_for

# deflate, the compression of zip, HDF5 and MATLAB files, makes nothing smaller than by a factor of 1032
MAX_COMPRESSION = 1100
_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def existing(path: Path, remedy: str) -> Path:
    """The path itself, or a UserError that names it and says what to do."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} is missing; {remedy}")
    return path


def load_npz(path: Path, keys: Iterable[str], remedy: str, optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Read the named arrays of an npz file, and the optional ones that it has; never unpickles.

    Byte strings, which Python 2 wrote, become text. Raises UserError when the file is missing or damaged, lacks one of
    `keys`, or announces more than it can hold.
    """
    path = existing(path, remedy)
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as npz:
            warnings.simplefilter("ignore", UserWarning)  # about headers of Python 2, which numpy reads all the same
            missing = [key for key in keys if key not in npz.files]
            if not missing:
                names = [key for key in (*keys, *optional) if key in npz.files]
                _check_members(archive, names)
                return {name: _as_text(npz[name]) for name in names}
    except Exception as error:  # numpy and zipfile let through whatever a damaged file causes
        raise UserError(f"{path} cannot be read ({reason_for(error)}); {remedy}") from error
    raise UserError(f"{path} lacks {', '.join(missing)}; {remedy}")


def load_npy(path: Path, shape: tuple[int, ...], remedy: str) -> np.ndarray:
    """Read one array of numbers of the given shape; never unpickles.

    Raises UserError when the file is missing or damaged, is of another shape, or announces more than it can hold.
    """
    path = existing(path, remedy)
    try:
        with path.open("rb") as file:
            _check_header(file, path.stat().st_size)
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy lets through whatever a damaged file causes
        raise UserError(f"{path} cannot be read ({reason_for(error)}); {remedy}") from error
    if array.shape != shape:
        raise UserError(f"{path} has shape {array.shape} where {shape} is needed; {remedy}")
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise UserError(f"{path} holds what is no finite number; {remedy}")
    return array


def read_record(path: Path) -> dict[str, Any] | None:
    """How process_data.py made an npz, as its archive's comment says; None where it is not there or says nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            record = json.loads(archive.comment)
    except Exception:  # zipfile lets through whatever a damaged file causes
        return None
    return record if isinstance(record, dict) else None


def check_archive(archive: zipfile.ZipFile) -> None:
    """Raise ValueError when a member of a zip archive is announced larger than the file could hold it."""
    size = Path(archive.filename).stat().st_size
    for member in archive.infolist():
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename} is compressed in an unknown way")
        factor = 1 if member.compress_type == zipfile.ZIP_STORED else MAX_COMPRESSION
        if member.compress_size > size or member.file_size > factor * member.compress_size:
            raise ValueError(f"{member.filename} is announced with {member.file_size} bytes, more than the file holds")


def _check_members(archive: zipfile.ZipFile, names: Iterable[str]) -> None:
    check_archive(archive)
    for name in names:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as stream:
            _check_header(stream, member.file_size)


def _check_header(stream: IO[bytes], available: int) -> None:
    """Raise ValueError when an npy file of so many bytes announces more, or objects."""
    version = np.lib.format.read_magic(stream)
    if version not in _NPY_HEADERS:
        raise ValueError(f"version {version} of the npy format is unknown")
    shape, _, dtype = _NPY_HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    size = math.prod(shape) * max(dtype.itemsize, 1)
    if min(shape, default=0) < 0 or size > available:
        raise ValueError(f"an array of {size} bytes is announced, more than the file holds")


def _as_text(array: np.ndarray) -> np.ndarray:
    """Byte strings as text, anything else as it is; ValueError for text of what are no characters."""
    if array.dtype.kind == "S":
        # bytes that are no UTF-8 stay what they are when the name is opened
        return np.char.decode(array, "utf-8", "surrogateescape")
    check_text(array)
    return array


def check_text(array: np.ndarray) -> None:
    """Raise ValueError where an array is text of what are no characters, which Python cannot even refuse in words."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array.reshape(-1)).view(array.dtype.byteorder + "u4")
        if (codes > sys.maxunicode).any():
            raise ValueError("it holds text of what are no characters")


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise UserError when a disk has not so many bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {what} needs about {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free; "
            "free some space or choose another --expdir"
        )


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary name beside `path`, then rename: the file is whole or absent.

    Raises WriteError when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    # the ending stays, because numpy and video writers choose the format by it
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise WriteError(f"{path} cannot be written ({error}); free some space or choose another folder") from error
    finally:
        with contextlib.suppress(OSError):  # the folder may be none
            temporary.unlink(missing_ok=True)


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """np.savez that never leaves a half-written file."""
    write_atomically(path, lambda temporary: _write_npz(temporary, arrays))


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # np.savez leaves its archive open when the disk is full, and Python complains on the screen when it closes it later
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            # an entry without the time, so that the same arrays are the same file
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.asanyarray(array), allow_pickle=False)


def save_npy(path: Path, array: np.ndarray) -> None:
    """np.save that never leaves a half-written file."""
    write_atomically(path, lambda temporary: np.save(temporary, array))


def save_text(path: Path, text: str) -> None:
    """Write a text file that is whole or absent; what is no character, as in names of files, is escaped."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def safe_name(name: str) -> str:
    """A file's name as text that can be written anywhere: bytes that are no characters and control codes escaped."""
    is_text = (unicodedata.category(letter) not in ("Cc", "Cs") for letter in name)
    return "".join(
        letter if fine else letter.encode("unicode_escape").decode() for letter, fine in zip(name, is_text, strict=True)
    )
