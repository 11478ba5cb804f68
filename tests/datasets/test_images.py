from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_data import pixels, png

from unlearnbench.datasets.images import decode, image_size
from unlearnbench.errors import DatasetError


def encoded(image: Image.Image, form: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_colours_come_back_as_they_were_saved() -> None:
    assert np.array_equal(decode(png(5, 7, 1), "a.png"), pixels(5, 7, 1).transpose(2, 0, 1))


def test_grey_images_become_three_equal_channels() -> None:
    grey = pixels(5, 7)[:, :, 0]
    decoded = decode(encoded(Image.fromarray(grey)), "a.png")
    assert np.array_equal(decoded, np.stack([grey] * 3))


def test_sixteen_bit_grey_keeps_its_upper_eight_bits() -> None:
    values = np.array([[0, 255, 256], [32768, 40000, 65535]], dtype=np.uint16)
    decoded = decode(encoded(Image.fromarray(values)), "a.png")
    assert np.array_equal(decoded[0], values >> 8)


def test_sixteen_bit_colour_keeps_its_upper_eight_bits() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (2, 3, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(decode(content, "a.png"), (values >> 8).astype(np.uint8).transpose(2, 0, 1))


def test_cmyk_images_become_rgb() -> None:
    red = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    assert decode(encoded(red, "tiff"), "a.tif")[:, 0, 0].tolist() == [255, 0, 0]


def test_palette_images_become_their_colours() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert decode(encoded(image), "a.png")[:, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize(("alpha", "expected"), [(0, [255, 255, 255]), (255, [10, 20, 30]), (51, [206, 208, 210])])
def test_what_is_transparent_is_laid_on_white(alpha: int, expected: list[int]) -> None:
    image = Image.new("RGBA", (4, 4), (10, 20, 30, alpha))
    assert decode(encoded(image), "a.png")[:, 0, 0].tolist() == expected


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert decode(encoded(image, "gif", transparency=1), "a.gif")[:, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (37, 53), (33, 33), (8, 9)])
def test_resize_and_centre_crop_are_those_of_torchvision(size: tuple[int, int]) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    expected = Compose([Resize(32), CenterCrop(32)])(Image.fromarray(pixels(*size, 3)))
    found = decode(png(*size, 3), "a.png", size=(32, 32))
    assert np.array_equal(found, np.asarray(expected).transpose(2, 0, 1))


def test_a_text_file_is_refused() -> None:
    with pytest.raises(DatasetError, match=re.escape("x/readme.txt: not an image that can be read") + "$"):
        decode(b"hello", Path("x/readme.txt"))


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"^a\.png: not an image that can be read$"):
        decode(b"", "a.png")


def test_a_truncated_image_is_refused() -> None:
    jpeg = encoded(Image.fromarray(pixels(64, 64)), "jpeg")
    with pytest.raises(
        DatasetError, match=r"^a\.jpg: damaged image: image file is truncated \(\d+ bytes not processed\)$"
    ):
        decode(jpeg[: len(jpeg) // 2], "a.jpg")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1)])
def test_a_side_of_one_pixel_is_refused(height: int, width: int) -> None:
    expected = rf"^a\.png: {width}x{height} pixels show nothing; remove it or replace it$"
    with pytest.raises(DatasetError, match=expected):
        decode(png(height, width), "a.png")
    with pytest.raises(DatasetError, match=expected):
        image_size(png(height, width), "a.png")


def test_floating_point_images_are_refused() -> None:
    image = Image.fromarray(np.ones((4, 4), dtype=np.float32))
    expected = r"^a\.tif: floating-point values have no fixed range; save it with 8 bits per channel$"
    with pytest.raises(DatasetError, match=expected):
        decode(encoded(image, "tiff"), "a.tif")


def test_grey_values_beyond_16_bits_are_refused() -> None:
    image = Image.fromarray(np.full((4, 4), 70000, dtype=np.int32))
    with pytest.raises(DatasetError, match=r"^a\.tif: grey values 70000 to 70000 do not fit 16 bits$"):
        decode(encoded(image, "tiff"), "a.tif")


def test_image_size_is_height_and_width() -> None:
    assert image_size(png(5, 7), "a.png") == (5, 7)
