"""3DPW (von Marcard et al., ECCV 2018) as a stream: the test sequences in the order of the protocol."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from datasets.base import CroppedFrames, read_columns
from utils.errors import UserError
from utils.files import existing

log = logging.getLogger("boa")

# the order matters: the weights that one sequence leaves behind are where the next one starts
TEST_SEQUENCES = (
    *("downtown_runForBus_00", "downtown_rampAndStairs_00", "flat_packBags_00", "downtown_runForBus_01"),
    *("office_phoneCall_00", "downtown_windowShopping_00", "downtown_walkUphill_00", "downtown_sitOnStairs_00"),
    *("downtown_enterShop_00", "downtown_walking_00", "downtown_stairs_00", "downtown_crossStreets_00"),
    *("downtown_car_00", "downtown_downstairs_00", "downtown_bar_00", "downtown_walkBridge_01"),
    *("downtown_weeklyMarket_00", "downtown_warmWelcome_00", "downtown_arguing_00", "downtown_upstairs_00"),
    *("downtown_bus_00", "flat_guitar_01", "downtown_cafe_00", "outdoors_fencing_01"),
)
# of the first release, and of HMMR's list
_LATER_REMOVED = "downtown_cafe_01"
_KEYS = ("imgname", "center", "scale", "pose", "shape", "gender", "smpl_j2d")


def open_stream(images: Path, annotations: Path, remedy: str) -> tuple[CroppedFrames, list[str]]:
    """Join the sequences that are there -> the frames, and the names of the sequences of the protocol that are not.

    Raises UserError when there is no sequence, or one is damaged or empty.
    """
    return _open_listed(images, annotations, remedy, TEST_SEQUENCES)


def open_ph(images: Path, annotations: Path, remedy: str) -> tuple[CroppedFrames, list[str]]:
    """The same for the #PH protocol: HMMR's sequences in the order of their names, with a neutral shape for each."""
    return _open_listed(images, annotations, remedy, sorted([*TEST_SEQUENCES, _LATER_REMOVED]), ("shape_neutral",))


def _open_listed(
    images: Path, annotations: Path, remedy: str, names: Iterable[str], more: tuple[str, ...] = ()
) -> tuple[CroppedFrames, list[str]]:
    existing(annotations, remedy)
    present = [name for name in names if (annotations / f"{name}.npz").exists()]
    if not present:
        raise UserError(f"{annotations} holds none of the test sequences of 3DPW; {remedy}")
    missing = [name for name in TEST_SEQUENCES if name not in present]
    if missing:
        log.warning("%d of 24 sequences are not in %s: %s", len(missing), annotations, ", ".join(missing))
    files = [annotations / f"{name}.npz" for name in present]
    return join_sequences(images, files, remedy, more, missing), missing


def open_folder(images: Path, annotations: Path, remedy: str) -> tuple[CroppedFrames, list[str]]:
    """Join all sequences of a folder in 3DPW's processed format, by name; as `open_stream`, with none that may lack."""
    files = sorted(existing(annotations, remedy).glob("*.npz"))
    if not files:
        raise UserError(f"{annotations} holds no sequence; {remedy}")
    return join_sequences(images, files, remedy), []


def join_sequences(
    images: Path, files: list[Path], remedy: str, more: tuple[str, ...] = (), missing: Sequence[str] = ()
) -> CroppedFrames:
    """Read files of 3DPW's processed format, which hold `more`, one by one; a sequence is named after its file."""
    parts = [_read_sequence(file, remedy, more) for file in files]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return CroppedFrames(images, columns, files[0].parent, missing)


def _read_sequence(file: Path, remedy: str, more: tuple[str, ...]) -> dict[str, np.ndarray]:
    raw, _ = read_columns(file, (*_KEYS, *more), remedy, optional=("person",))
    count = len(raw["imgname"])
    if count == 0:
        raise UserError(f"{file} holds no frame; {remedy}")
    if not np.isin(raw["gender"], ("m", "f")).all():
        raise UserError(
            f"{file}: gender holds {', '.join(np.unique(raw['gender'])[:3])} where m or f is needed; {remedy}"
        )
    names = raw["imgname"]
    # files of the published code do not say who is who; persons follow one another, so that the next one begins where
    # the file names do not go on
    person = raw.get("person", np.concatenate([[0], np.cumsum(names[1:] <= names[:-1])]))
    return {
        "imgname": names,
        "center": raw["center"],
        "scale": raw["scale"],
        "keypoints_2d": raw["smpl_j2d"],
        "pose": raw["pose"],
        "betas": raw["shape"],
        "gender": (raw["gender"] == "f").astype(np.int64),
        "sequence": np.full(count, file.stem),
        "person": person,
        **({"betas_neutral": raw["shape_neutral"]} if "shape_neutral" in raw else {}),
    }
