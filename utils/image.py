"""Reading an image, and the crop around a person that image and points share."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE
from scipy import ndimage

from utils.errors import UserError
from utils.files import existing
from utils.geometry import CROP_SIZE

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
_TAIL = 16  # bytes in which a whole file has its ending
_ENDINGS = (b"\xff\xd9", b"IEND")  # of JPEG, of PNG
_BAND = 2**23  # pixels
BOX_UNIT = 200.0  # px; the scale of a box is its side in this unit, as in SPIN


def read_rgb(path: Path) -> np.ndarray:
    """Read an image file -> (H,W,3) uint8 RGB, turned upright as its EXIF data say.

    Raises UserError when the file is missing, truncated or no image.
    """
    existing(path, "check the folder of the data set in config.py")
    try:
        # Pillow, because OpenCV fills the lost part of a truncated file with grey and says nothing
        with Image.open(path) as image:
            bits = _bits(image)
            ImageOps.exif_transpose(image, in_place=True)
            return _pixels(image, bits, path)
    except UserError:
        raise
    except Exception as error:  # of any kind: the decoders of a damaged file are not particular
        raise UserError(f"{path} is no readable image ({error}); download or extract it again") from error


def _bits(image: Image.Image) -> int:
    """How many bits a value of a deep grey image has; TIFF knows of 10, 12 and 14, too."""
    return getattr(image, "tag_v2", {}).get(BITSPERSAMPLE, (16,))[0]


def _pixels(image: Image.Image, bits: int, path: Path) -> np.ndarray:
    """An image as (H,W,3) uint8 RGB, a large one band by band, since Pillow makes several copies of each."""
    width, height = image.size
    rows = max(1, _BAND // width)
    if height <= rows:
        return np.array(_to_eight_bits(image, bits, path).convert("RGB"))
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = _to_eight_bits(band, bits, path).convert("RGB")
    return pixels


def _to_eight_bits(image: Image.Image, bits: int, path: Path) -> Image.Image:
    """An image as it is, but for grey of more than 8 bits, which Pillow would cut off at 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or bits > 16 or values.min() < 0 or values.max() >= 2**bits:
        raise UserError(f"{path} has numbers of another kind than 8 or 16 bits a pixel; save it as such")
    scaled = np.round(np.linspace(0, 255, 2**bits)).astype(np.uint8)
    return Image.fromarray(scaled[values])


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file in px, from its header alone, as stored (EXIF data are not looked at).

    A JPEG or PNG file that does not end as such a file ends is decoded, to see whether it is whole.
    Raises UserError when the file is missing, truncated or no image.
    """
    try:
        with path.open("rb") as file, Image.open(file) as image:
            size = image.size
            file.seek(-_TAIL, os.SEEK_END)
            tail = file.read()
        is_whole = any(ending in tail for ending in _ENDINGS)
    except Exception:  # of any kind, as above
        is_whole = False
    if not is_whole:
        height, width = read_rgb(path).shape[:2]
        return width, height
    return size


def normalise(rgb: np.ndarray) -> np.ndarray:
    """(224,224,3) RGB in 0-255 -> (3,224,224) float32 with the mean and deviation of ImageNet."""
    return np.ascontiguousarray(((rgb / np.float32(255) - MEAN) / STD).transpose(2, 0, 1), dtype=np.float32)


def box_around(points: np.ndarray, enlarge: float) -> tuple[np.ndarray, float]:
    """Square box around points (N,2) px -> center (2,) px and scale (side / 200)."""
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, float(enlarge * (high - low).max() / BOX_UNIT)


@dataclass(frozen=True)
class Crop:
    """The square of side 200 * scale around center, brought to 224x224 (SPIN's protocol, Kolotouros et al. 2019).

    Attributes:
        center: (2,) px
        scale: side of the square in units of 200 px
    """

    center: np.ndarray
    scale: float

    @property
    def _side(self) -> float:
        return BOX_UNIT * self.scale

    @cached_property
    def corners(self) -> np.ndarray:
        """Upper left and lower right (exclusive) corner, (2,2) whole px.

        SPIN's pixels are 1-based and it truncates towards zero; released npz files and numbers depend on it.
        """
        ends = np.array([[0.0], [CROP_SIZE]])
        return ((ends / CROP_SIZE - 0.5) * self._side + self.center).astype(int)

    def is_outside(self, size: tuple[int, int]) -> bool:
        """Whether it shows nothing of an image of this width and height."""
        low, high = self.corners
        return bool((high <= 0).any() or (low >= size).any())

    def image(self, rgb: np.ndarray) -> np.ndarray:
        """Cut (H,W,3) uint8 -> (224,224,3) float32 in 0-255; what lies outside of the image is black."""
        (x0, y0), (x1, y1) = self.corners
        height, width = rgb.shape[:2]
        patch = np.zeros((y1 - y0, x1 - x0, 3), np.float32)
        inside = rgb[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        top, left = max(-y0, 0), max(-x0, 0)
        if y0 < height and x0 < width:
            patch[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        return _resize(patch)

    def points(self, keypoints: np.ndarray) -> np.ndarray:
        """Points (N,2+) px of the image -> the same with x and y in [-1,1] over the crop, float32.

        They are truncated to whole pixels of the crop (SPIN's protocol); further columns, as confidence, stay.
        """
        in_crop = ((keypoints[:, :2] - self.center) / self._side + 0.5) * CROP_SIZE
        result = keypoints.astype(np.float32)
        result[:, :2] = 2.0 * (in_crop.astype(int) + 1) / CROP_SIZE - 1
        return result

    def exact_points(self, keypoints: np.ndarray) -> np.ndarray:
        """The same without truncation, for points that are compared with nobody's released files.

        The centre of the first pixel is at 0, as in `points`, and 0.5 from the edge of the image, as in the renderer.
        """
        low, high = self.corners
        result = keypoints.astype(np.float32)
        result[:, :2] = 2 * (keypoints[:, :2] + 0.5 - low) / (high - low) - 1
        return result


def _resize(patch: np.ndarray) -> np.ndarray:
    """Shrink or enlarge to 224x224 without aliasing: Gaussian blur, then bilinear interpolation, as scikit-image."""
    factors = [side / CROP_SIZE for side in patch.shape[:2]]
    sigmas = [max((factor - 1) / 2, 0) for factor in factors]
    # a sigma of 0 means "choose one" to OpenCV; a kernel of one pixel is what turns the blur off
    kernel_y, kernel_x = (cv2.getGaussianKernel(2 * int(4 * sigma + 0.5) + 1, sigma or 1.0) for sigma in sigmas)
    blurred = cv2.sepFilter2D(patch, -1, kernel_x, kernel_y, borderType=cv2.BORDER_REFLECT_101)
    if min(factors) >= 1:
        return cv2.resize(blurred, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR)
    # three times slower; but OpenCV repeats the outermost pixels of an enlarged patch where they should be mirrored
    zoom = [1 / factor for factor in factors]
    return ndimage.zoom(blurred, [*zoom, 1], order=1, mode="mirror", grid_mode=True)
