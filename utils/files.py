"""Reading with a remedy, writing without half-written files."""

import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from utils.errors import UserError


def existing(path: Path, remedy: str) -> Path:
    """The path itself, or a UserError that names it and says what to do."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} is missing; {remedy}")
    return path


def load_npz(path: Path, keys: Iterable[str], remedy: str, optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Read the named arrays of an npz file, and the optional ones that it has; never unpickles.

    Raises UserError when the file is missing or damaged, or lacks one of `keys`.
    """
    existing(path, remedy)
    try:
        with np.load(path) as npz:
            missing = [key for key in keys if key not in npz.files]
            if missing:
                raise UserError(f"{path} lacks {', '.join(missing)}; {remedy}")
            return {key: npz[key] for key in (*keys, *optional) if key in npz.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from error


def load_npy(path: Path, shape: tuple[int | None, ...], remedy: str) -> np.ndarray:
    """Read one array of the given shape (None: any length); never unpickles.

    Raises UserError when the file is missing, damaged or of another shape.
    """
    existing(path, remedy)
    try:
        array = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from error
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        raise UserError(f"{path} has shape {array.shape} where {shape} is needed; {remedy}")
    return array


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary name beside `path`, then rename: the file is whole or absent.

    Raises UserError when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    # the ending stays, because numpy and video writers choose the format by it
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error}); free some space or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """np.savez that never leaves a half-written file."""
    write_atomically(path, lambda temporary: _write_npz(temporary, arrays))


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # np.savez leaves its archive open when the disk is full, and Python complains on the screen when it closes it later
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
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
