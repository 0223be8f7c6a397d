"""Arrays that are filled frame by frame on disk."""

import errno
import io
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import save_npz


class ArrayFile:
    """An npz that is filled frame by frame on disk, so that memory does not grow with the video.

    Args:
        file: the npz
        shapes: of each array in one frame; all are float32
    """

    def __init__(self, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.file, self.shapes, self.count = file, shapes, 0
        self.folder = file.parent / f".{file.stem}"
        self.parts: dict[str, io.FileIO] = {}

    def bytes_needed(self, frames: int) -> int:
        """Room for so many frames, and for the npz that is made of them."""
        return 2 * 4 * frames * sum(map(math.prod, self.shapes.values()))

    def cut(self, count: int) -> None:
        """Go on after so many frames, of those that are there from before."""
        self.folder.mkdir(exist_ok=True)
        self.count = count
        self.parts = {name: (self.folder / name).open("ab", buffering=0) for name in self.shapes}
        for name, part in self.parts.items():
            size = 4 * count * math.prod(self.shapes[name])
            if part.tell() < size:
                raise ValueError(f"{self.folder / name} has {part.tell()} bytes where {size} are needed")
            part.truncate(size)

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append the arrays of one frame; UserError when the disk is full."""
        try:
            if not self.parts:
                self.cut(0)
            for name, part in self.parts.items():
                numbers = np.asarray(arrays[name], np.float32).tobytes()
                if part.write(numbers) < len(numbers):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise UserError(
                f"{self.file} cannot be written ({error}); free some space or choose another folder"
            ) from error
        self.count += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was added, (N, ...) each, read from the disk as it is needed."""
        return {
            name: np.memmap(self.folder / name, np.float32, "r", shape=(self.count, *shape))
            for name, shape in self.shapes.items()
        }

    def save(self, **more: np.ndarray) -> None:
        """Write the npz, with further arrays, if there was a frame."""
        if self.count:
            save_npz(self.file, **self.arrays(), **more)

    def discard(self) -> None:
        """Take away what the npz was made of; the arrays must not be used any more."""
        for part in self.parts.values():
            if not part.closed:
                part.truncate(0)  # a file that somebody still maps would keep its room on a full disk
                part.close()
        shutil.rmtree(self.folder, ignore_errors=True)
