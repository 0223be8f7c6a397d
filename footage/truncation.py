"""Whether a video file ends before its own structure does: a copy that was broken off, a full memory card."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")


def is_truncated(path: Path) -> bool:
    """Look at the sizes that MP4 and MOV, AVI, Matroska and WebM give of themselves; False for all else."""
    readers: dict[bytes, Callable[[BinaryIO], int]] = {b"RIFF": _riff_end, _EBML: _matroska_end}
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            end = _mp4_end(file)
        else:
            end = readers.get(head[:4], lambda file: 0)(file)
    return end > path.stat().st_size


def _mp4_end(file: BinaryIO) -> int:
    """Where the last box ends (ISO/IEC 14496-12, 4.2)."""
    position, length = 0, file.seek(0, 2)
    while position < length:
        file.seek(position)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:  # a longer number follows
            size = int.from_bytes(header[8:16], "big")
        if size < 8:  # 0: to the end of the file; others are no boxes
            break
        position += size
    return position


def _riff_end(file: BinaryIO) -> int:
    """Where the first chunk ends; files of more than 1 GB have several."""
    return 8 + int.from_bytes(file.read(8)[4:8], "little")


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends (RFC 8794 and 9559); 0 where it is of unknown size, as in a recording that goes on."""
    file.seek(4)
    file.seek(_ebml_size(file) or 0, 1)
    if file.read(4) != _SEGMENT:
        return 0
    size = _ebml_size(file)
    return file.tell() + size if size is not None else 0


def _ebml_size(file: BinaryIO) -> int | None:
    """A size of variable length: as many leading zeros as bytes follow; all ones: unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    number = int.from_bytes(first + file.read(more), "big") - (1 << 7 * (more + 1))
    return None if number == (1 << 7 * (more + 1)) - 1 else number
