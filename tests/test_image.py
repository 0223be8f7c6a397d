"""Reading of single images: depth, size, orientation, and one line for what is none."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from utils import image
from utils.errors import UserError
from utils.image import image_size, read_rgb


def ramp(dtype: type, high: int) -> np.ndarray:
    """(48,64) from 0 to a highest value."""
    return np.linspace(0, high, 48 * 64).reshape(48, 64).astype(dtype)


@pytest.mark.parametrize(
    ("ending", "options"), [("png", {}), ("tif", {}), ("tif", {"compression": "tiff_adobe_deflate"})]
)
def test_grey_of_16_bits_is_scaled_to_8(tmp_path, ending, options):
    deep = ramp(np.uint16, 65535)
    Image.fromarray(deep).save(tmp_path / f"a.{ending}", **options)
    rgb = read_rgb(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(rgb, np.dstack([np.round(deep / 257)] * 3))


def test_grey_of_8_bits_stays(tmp_path):
    Image.fromarray(ramp(np.uint8, 255)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png")[..., 1], ramp(np.uint8, 255))


def write_tiff(path, values: np.ndarray, bits: int, order: str) -> None:
    """A TIFF of grey values in one strip, in whole or packed bits."""
    bytes_ = values.astype(f"{order}u2").tobytes()
    if bits == 12:
        joined = "".join(f"{value:012b}" for value in values.ravel())
        bytes_ = int(joined, 2).to_bytes(len(joined) // 8, "big")
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, height), (279, 4, len(bytes_))]  # fmt: skip
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}{'I' if kind == 4 else 'H2x'}", value)
        for tag, kind, value in tags
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(bytes_))
    path.write_bytes(head + bytes_ + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))


@pytest.mark.parametrize(("bits", "order"), [(16, "<"), (16, ">"), (12, "<")])
def test_a_tiff_says_how_many_bits_it_has(tmp_path, bits, order):
    values = ramp(np.uint16, 2**bits - 1)
    write_tiff(tmp_path / "a.tif", values, bits, order)
    np.testing.assert_allclose(read_rgb(tmp_path / "a.tif")[..., 0], values * (255 / (2**bits - 1)), atol=0.51)


@pytest.mark.parametrize(("values", "what"), [(ramp(np.float32, 1), "floats"), (ramp(np.int32, 10**6), "32 bits")])
def test_other_numbers_are_refused(tmp_path, values, what):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif has numbers of another kind than 8 or 16 bits a pixel"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK", "P", "I;16"])
def test_a_large_image_is_read_in_bands(tmp_path, monkeypatch, mode):
    values = ramp(np.uint16, 65535)
    picture = Image.fromarray(values if mode == "I;16" else (values // 257).astype(np.uint8))
    (picture if mode == "I;16" else picture.convert("RGB").convert(mode)).save(tmp_path / "a.tif")
    whole = read_rgb(tmp_path / "a.tif")
    monkeypatch.setattr(image, "_BAND", 64 * 5)  # of 48 rows nine bands and a rest
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.tif"), whole)


def test_an_image_of_absurd_size_is_refused_before_it_takes_memory(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(png)
    for read in (read_rgb, image_size):
        with pytest.raises(UserError, match=r"a\.png is no readable image"):
            read(tmp_path / "a.png")


def test_an_image_is_turned_as_its_notes_say(tmp_path):
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:12, :16] = 255
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    rgb = read_rgb(tmp_path / "a.png")
    assert rgb.shape == (64, 48, 3) and rgb[0, -1].min() == 255 and rgb[-1].max() == 0
