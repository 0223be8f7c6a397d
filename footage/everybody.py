"""Everybody in a clip, each followed by a run of their own: one video and one animated file of all of them."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch

from footage.export import save_scene
from footage.overlay import shrunk
from footage.poses import clip_of
from footage.sources import VideoFrame
from models.smpl import SMPL
from utils.files import load_npz
from utils.image import BOX_UNIT
from utils.renderer import draw_in_image

# RGB, by which people are told apart
COLOURS = ((170, 190, 235), (240, 180, 120), (150, 215, 150), (235, 150, 170), (225, 215, 120), (190, 160, 230))
_FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.5)  # and its size
_LOWEST = 14  # px, of a name's line where a head is at the upper edge
_DRAWN = ("index", "rotmat", "betas", "cam", "center", "scale", "translation")
_EXPORTED = ("rotmat", "betas", "translation", "time")
_SMOOTHED = ("rotmat_smooth", "translation_smooth")
_REMEDY = "run it again by --overwrite"

Arrays = Mapping[str, np.ndarray]  # of a predictions.npz


def draw_all(frames: Iterable[VideoFrame], folders: Mapping[str, Path], body: SMPL) -> Iterator[np.ndarray]:
    """Each image of a clip, at most 720 px high, with all bodies and their names, the nearer over the farther.

    Args:
        frames: of the clip
        folders: of the runs that followed one person each, by the names of these people
        body: that they are of

    Raises UserError when the predictions of a run are missing or damaged.
    """
    people = {name: load_npz(folder / "predictions.npz", _DRAWN, _REMEDY) for name, folder in folders.items()}
    rows = {name: {index: row for row, index in enumerate(person["index"].tolist())} for name, person in people.items()}
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(people)}
    for frame in frames:
        image, zoom = shrunk(frame.rgb)
        there = [(name, rows[name][frame.index]) for name in people if frame.index in rows[name]]
        for name, row in sorted(there, key=lambda one: -people[one[0]]["translation"][one[1], 2]):
            _draw(image, zoom, {key: array[row] for key, array in people[name].items()}, body, name, colours[name])
        yield image


def _draw(image: np.ndarray, zoom: float, person: Arrays, body: SMPL, name: str, colour: tuple[int, int, int]) -> None:
    """Draw a person, as they are in one frame, over an image that was shrunk, in place."""
    rotmat, betas = (torch.from_numpy(person[key][None]) for key in ("rotmat", "betas"))
    with torch.no_grad():
        vertices = body.from_rotmat(rotmat, betas).vertices[0].numpy()
    center, side = person["center"] * zoom, float(person["scale"]) * BOX_UNIT * zoom
    draw_in_image(image, vertices, body.faces, person["cam"], center, side, colour)
    width = cv2.getTextSize(name, *_FONT, 1)[0][0]
    place = (round(center[0] - width / 2), max(round(center[1] - side / 2), _LOWEST))
    for shade, thickness in (((0, 0, 0), 3), (colour, 1)):
        cv2.putText(image, name, place, *_FONT, shade, thickness, cv2.LINE_AA)


def export_all(file: Path, folders: Mapping[str, Path], body: SMPL) -> None:
    """Write all bodies into one animated file (footage.export.save_scene); arguments and errors as of `draw_all`."""
    clips = {}
    for name, folder in folders.items():
        arrays = load_npz(folder / "predictions.npz", _EXPORTED, _REMEDY, _SMOOTHED)
        smoothed = {key.removesuffix("_smooth"): arrays[key] for key in _SMOOTHED if key in arrays}
        clips[f"{name} "] = clip_of(body, arrays | smoothed)
    save_scene(file, clips)
