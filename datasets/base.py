"""The only reader of frames in the program: an image, the crop around its person, and what is known of them."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from utils.errors import UserError
from utils.files import load_npz
from utils.image import BOX_UNIT, Crop, normalise, read_rgb
from utils.joints import BODY25, JOINTS49, SPIN24
from utils.prefetch import ahead
from utils.structures import Frame

# what a column of a processed file holds per frame
_FILE_SHAPES = {
    "center": (2,),
    "keypoints": (len(JOINTS49), 3),
    "part": (len(SPIN24), 3),
    "S": (len(SPIN24), 4),
    "ray": (3,),
    "pose": (72,),
    "shape": (10,),
    "shape_neutral": (10,),
    "smpl_j2d": (len(JOINTS49), 3),
}
_TEXTS = ("imgname", "gender")
_WHOLE = ("person", "activity")  # whole numbers
# what a column holds per frame, for the check at the door
_SHAPES = {
    "center": (2,),
    "scale": (),
    "keypoints_2d": (len(JOINTS49), 3),
    "joints_3d": (len(SPIN24), 4),
    "ray": (3,),
    "pose": (72,),
    "betas": (10,),
    "betas_neutral": (10,),
}
_NUMBERS = ("joints_3d", "pose", "betas", "betas_neutral")
_NAMES = ("imgname", "sequence", "activity", "exchanged")
_SIDES = (1.0, 8192.0)  # px, of a box; the patch that is cut out of the image takes 12 bytes per px
_FARTHEST = 1e6  # px, from the image to the centre of a box


def read_columns(
    file: Path, keys: Sequence[str], remedy: str, optional: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read columns of N rows of a processed file, and names of what should be in the file and is not.

    Args:
        file: npz
        keys: columns that must be there, `imgname` among them
        remedy: what the user can do if the file is missing or damaged
        optional: columns that may be there

    Raises UserError when the file is missing or damaged, holds no row, lacks a column, or one is of another shape or
    kind.
    """
    raw = load_npz(file, keys, remedy, optional=(*optional, "missing"))
    missing = [str(name) for name in raw.pop("missing", np.zeros(0, str)).ravel()]
    count = raw["imgname"].size
    if count == 0:
        raise UserError(f"{file} holds no frame; {remedy}")
    for name, column in raw.items():
        shape = (count, *_FILE_SHAPES.get(name, ()))
        kinds = "U" if name in _TEXTS else "iu" if name in _WHOLE else "fiu"
        if column.shape != shape:
            raise UserError(f"{file}: {name} has shape {column.shape} where {shape} is needed; {remedy}")
        if column.dtype.kind not in kinds:
            raise UserError(f"{file}: {name} holds {column.dtype} where {_kind(kinds)} is needed; {remedy}")
    return raw, missing


def _kind(kinds: str) -> str:
    return {"U": "text", "iu": "whole numbers"}.get(kinds, "numbers")


def spin_columns(raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of CroppedFrames out of a file whose joints, `part` and `S`, are SPIN's 24."""
    # the annotation has no OpenPose joints; zeros say that they are not seen
    unseen = np.zeros((len(raw["part"]), len(BODY25), 3))
    return {
        "imgname": raw["imgname"],
        "center": raw["center"],
        "scale": raw["scale"],
        "keypoints_2d": np.concatenate([unseen, raw["part"]], axis=1),
        "joints_3d": raw["S"],
    }


class CroppedFrames(Dataset):
    """Frames with a person each, from columns of N rows.

    Args:
        images: the folder in which the image names start
        columns: `imgname` (N,), `center` (N,2) px, `scale` (N,) side / 200 px, `keypoints_2d` (N,49,3) px and
            confidence; further ones travel along: `joints_3d` (N,24,4) metres, `pose` (N,72) axis-angle, `betas`
            (N,10), `betas_neutral` (N,10), `gender` (N,) 0 male 1 female, `sequence` (N,), `person` (N,), `activity`
            (N,) its name
        origin: the file the columns come from, for messages
        missing: names of sequences, or parts of them, that belong to the set and are not there
        annotation: which of several annotations of the set the labels are, "" where there is but one

    Attributes:
        numbers: (N,) of the frames in their sequences, by the last number of the image's name; rows where one has none
        step: by which the numbers of consecutive frames mostly differ

    Raises:
        UserError: no frame at all, or columns of other shapes, or numbers that are not finite, or no box
    """

    def __init__(
        self,
        images: Path,
        columns: Mapping[str, np.ndarray],
        origin: Path,
        missing: Sequence[str] = (),
        annotation: str = "",
    ) -> None:
        self.images, self.columns, self.origin = images, columns, origin
        self.missing, self.annotation = list(missing), annotation
        count = len(columns["imgname"])
        if count == 0:
            raise UserError(f"{origin} holds no frame; convert the data set again (README, Benchmarks)")
        for name, column in columns.items():
            shape = (count, *_SHAPES.get(name, ()))
            if column.shape != shape:
                raise UserError(f"{origin}: {name} has shape {column.shape} where {shape} is needed; convert it again")
            if name in _SHAPES and not np.isfinite(column).all():
                bad = ~np.isfinite(column).reshape(count, -1).all(axis=1)
                first = columns["imgname"][bad.argmax()]
                raise UserError(f"{origin}: {name} of {first} is not finite; convert it again")
        sides = columns["scale"] * BOX_UNIT
        is_box = (sides >= _SIDES[0]) & (sides <= _SIDES[1]) & (abs(columns["center"]) < _FARTHEST).all(1)
        if not is_box.all():
            first = columns["imgname"][np.argmin(is_box)]
            raise UserError(f"{origin}: center and scale of {first} are no box in an image; convert it again")
        self.rows = np.arange(count)
        self.numbers = _numbers(columns["imgname"])
        self.step = _usual_step(self.numbers)
        self.sizes: dict[str, tuple[int, int]] = {}  # px, width and height of each sequence's images

    def part(self, stride: int, max_frames: int) -> "CroppedFrames":
        """Every `stride`-th frame, `max_frames` of them at most (0: all); `index` stays the row among all."""
        rows = np.arange(0, len(self), stride)[: max_frames or None]
        return self._rows(rows, self.step * stride)

    def only(self, sequence: str) -> "CroppedFrames":
        """The frames of one sequence; UserError when it is not there."""
        sequences = self.columns.get("sequence", np.array([]))
        rows = np.flatnonzero(sequences == sequence)
        if not len(rows):
            there = ", ".join(dict.fromkeys(sequences.tolist()))
            raise UserError(f"{self.origin} has no sequence {sequence}; there are: {there}")
        return self._rows(rows, self.step)

    def _rows(self, rows: np.ndarray, step: int) -> "CroppedFrames":
        part = self._with({name: column[rows] for name, column in self.columns.items()})
        part.rows, part.numbers, part.step = self.rows[rows], self.numbers[rows], step
        return part

    def without(self, name: str) -> "CroppedFrames":
        """The same frames without one of the columns."""
        return self._with({other: column for other, column in self.columns.items() if other != name})

    def replacing(self, name: str, column: np.ndarray) -> "CroppedFrames":
        """The same frames with other numbers in one of the columns."""
        return self._with({**self.columns, name: column})

    def _with(self, columns: Mapping[str, np.ndarray]) -> "CroppedFrames":
        return type(self)(self.images, columns, self.origin, self.missing, self.annotation)

    def __len__(self) -> int:
        return len(self.columns["imgname"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One frame: `image` (3,224,224) normalised, `keypoints_2d` (49,3) in [-1,1], the other columns.

        And `index`, its row in the data set, and `number`, that of the frame in its sequence.

        Raises UserError when the image is missing or unreadable.
        """
        frame = self.crop(index)
        return {**frame, "image": normalise(frame["image"])}

    def crop(self, index: int) -> dict[str, Any]:
        """The same with the `image` as it is, (224,224,3) RGB in 0-255."""
        name, crop = str(self.columns["imgname"][index]), self._crop(index)
        rgb = read_rgb(self.images / name)
        self._check_size(index, name, rgb.shape[1::-1])
        return {**self.labels(index), "image": crop.image(rgb), "outside": crop.is_outside(rgb.shape[1::-1])}

    def _check_size(self, index: int, name: str, size: tuple[int, int]) -> None:
        """Raise UserError for an image of another size than that of its sequence, to whose pixels all boxes refer."""
        if "sequence" not in self.columns:
            return
        expected = self.sizes.setdefault(str(self.columns["sequence"][index]), size)
        if size != expected:
            raise UserError(
                f"{self.images / name} is {size[0]}x{size[1]} px where its sequence is {expected[0]}x{expected[1]}; "
                "get the images as their owners distribute them"
            )

    def _crop(self, index: int) -> Crop:
        return Crop(self.columns["center"][index], self.columns["scale"][index])

    def labels(self, index: int) -> dict[str, Any]:
        """The same without the `image`, which is not read."""
        row = {name: column[index] for name, column in self.columns.items() if name not in ("center", "scale")}
        row["keypoints_2d"] = self._crop(index).points(row["keypoints_2d"])
        numbers = {name: np.float32(row[name]) for name in _NUMBERS if name in row}
        names = {name: str(row[name]) for name in _NAMES if name in row}
        place = {"index": self.rows[index], "number": self.numbers[index]}
        return {**row, **numbers, **names, **place}


def _numbers(names: np.ndarray) -> np.ndarray:
    """The last number in the name of each image (N,), or, where one has none, the rows."""
    # 18 digits are what 64 bits hold
    found = [re.search(r"(\d{1,18})\D*$", Path(str(name)).stem) for name in names]
    return np.array([int(match[1]) for match in found]) if all(found) else np.arange(len(names))


def _usual_step(numbers: np.ndarray) -> int:
    """The most frequent positive difference of neighbours, 1 where there is none."""
    steps, counts = np.unique(np.diff(numbers), return_counts=True)
    forward = steps > 0
    return int(steps[forward][counts[forward].argmax()]) if forward.any() else 1


def batches(dataset: CroppedFrames, batch_size: int, endless: bool = False, first: int = 0) -> Iterator[Frame]:
    """Batches of consecutive frames, the next one read ahead, from batch number `first` on.

    `endless` starts again after the last frame.
    """
    start, count = first * batch_size, len(dataset)
    frames = (row % count for row in itertools.count(start)) if endless else iter(range(start, count))
    groups = iter(lambda: list(itertools.islice(frames, batch_size)), [])
    return ahead(_pinned(default_collate([dataset[index] for index in group])) for group in groups)


def _pinned(batch: Frame) -> Frame:
    """The batch with its images where a GPU, if there is one, can fetch them while the program goes on."""
    return {**batch, "image": batch["image"].pin_memory()} if torch.cuda.is_available() else batch
