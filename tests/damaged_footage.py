"""Small good files of footage and what reads them, for trying damaged copies of these."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mutations import mutations
from PIL import Image
from videos import encode, figure

from footage.people import Footage
from footage.video import Video
from utils.errors import UserError

SIZE = (96, 72)  # px, width and height


class Case(NamedTuple):
    """A file in a folder of its own, beside others that are needed; `read` reads it to the end."""

    file: Path
    read: Callable[[Path], None]


def watch(file: Path) -> None:
    """Decode a video, or the images of a folder."""
    for _ in Video(str(file)):
        pass


def watch_folder(file: Path) -> None:
    """Decode the images of the file's folder."""
    watch(file.parent)


def follow(keypoints: Path) -> None:
    """Follow somebody through images by a file of keypoints."""
    for _ in Footage(Video(str(keypoints.parents[1] / "images")), str(keypoints)).prepared():
        pass


def follow_in_folder(keypoints: Path) -> None:
    """The same by all files beside it."""
    for _ in Footage(Video(str(keypoints.parents[1] / "images")), str(keypoints.parent)).prepared():
        pass


def _clip(folder: Path, ending: str, codec: str) -> Case:
    file = encode(folder / f"clip.{ending}", list(range(0, 40, 4)), size=SIZE, codec=codec)
    return Case(file, watch)


def _image(folder: Path, ending: str, deep: bool = False) -> Case:
    values = np.random.default_rng(0).integers(0, 255, SIZE[::-1], dtype=np.uint8)
    picture = values.astype(np.uint16) * 257 if deep else np.dstack([values] * 3)
    file = folder / f"a.{ending}"
    Image.fromarray(picture).save(file)
    return Case(file, watch_folder)


def _people() -> list[np.ndarray]:
    """Somebody (25,3) in four frames."""
    return [np.round(figure(40 + 2 * frame, 36, 50)[:25], 2) for frame in range(4)]


def _images(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    for frame in range(4):
        Image.fromarray(np.zeros((*SIZE[::-1], 3), np.uint8)).save(folder / "images" / f"{frame}.png")


def _openpose(folder: Path) -> Case:
    _images(folder)
    (folder / "openpose").mkdir()
    for frame, person in enumerate(_people()):
        content = {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": person.ravel().tolist()}]}
        (folder / "openpose" / f"{frame}_keypoints.json").write_text(json.dumps(content))
    return Case(folder / "openpose" / "1_keypoints.json", follow_in_folder)


def _alphapose(folder: Path) -> Case:
    _images(folder)
    (folder / "alphapose").mkdir()
    people = [{"image_id": f"{frame}.jpg", "keypoints": person[:17].ravel().tolist(), "score": 2.9, "idx": [1]}
              for frame, person in enumerate(_people())]  # fmt: skip
    (folder / "alphapose" / "results.json").write_text(json.dumps(people))
    return Case(folder / "alphapose" / "results.json", follow)


MAKERS: dict[str, Callable[[Path], Case]] = {
    "mp4": lambda folder: _clip(folder, "mp4", "libx264"),
    "avi": lambda folder: _clip(folder, "avi", "mpeg4"),
    "webm": lambda folder: _clip(folder, "webm", "libvpx"),
    "ts": lambda folder: _clip(folder, "ts", "libx264"),
    "png": lambda folder: _image(folder, "png"),
    "deep png": lambda folder: _image(folder, "png", deep=True),
    "jpg": lambda folder: _image(folder, "jpg"),
    "tif": lambda folder: _image(folder, "tif", deep=True),
    "webp": lambda folder: _image(folder, "webp"),
    "openpose": _openpose,
    "alphapose": _alphapose,
}


_ODD = (
    None,
    True,
    -1,
    0,
    10**400,
    -1e308,
    1e-320,
    float("nan"),
    float("inf"),
    "",
    "1",
    "\ud800\n",
    [],
    [[]],
    {},
    {"a": 1},
)


def odd_values(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies of a JSON file that are JSON too, with one to three values replaced by others, left out or doubled."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        content = json.loads(data)
        for _ in range(rng.integers(1, 4)):
            _replace_one(content, rng)
        yield json.dumps(content).encode()


def _replace_one(content: object, rng: np.random.Generator) -> None:
    while isinstance(content, list | dict) and content:
        key = list(range(len(content)) if isinstance(content, list) else content)[rng.integers(len(content))]
        inner = content[key]
        if isinstance(inner, list | dict) and rng.random() < 0.8:
            content = inner
            continue
        action = rng.integers(4)
        if action == 0:
            del content[key]
        elif action == 1 and isinstance(content, list):
            content.insert(key, inner)
        else:
            content[key] = _ODD[rng.integers(len(_ODD))]
        return


def damaged(case: Case, count: int, seed: int) -> Iterator[bytes]:
    """Damaged copies of the good file of a case; of JSON every second one is still JSON."""
    data = case.file.read_bytes()
    if case.file.suffix != ".json":
        yield from mutations(data, count, seed)
        return
    for pair in zip(mutations(data, count // 2, seed), odd_values(data, count // 2, seed), strict=True):
        yield from pair


def make_case(name: str, folder: Path) -> Case:
    """Write the good file of a name into a new folder."""
    folder.mkdir(parents=True)
    return MAKERS[name](folder)


def outcome(case: Case, data: bytes) -> str:
    """Read other bytes in place of the good file -> `read`, or the one line that says what is wrong."""
    case.file.write_bytes(data)
    try:
        case.read(case.file)
    except UserError as error:
        message = str(error)
        if "\n" in message or not message.strip():
            raise AssertionError(f"not one line: {message!r}") from error
        return message
    return "read"
