"""One image file as 8-bit RGB: decoded, converted and resized, or refused with its name."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from unlearnbench.errors import DatasetError, os_reason
from unlearnbench.machine import cores

SMALLEST_SIDE = 2
# Cameras and scanners store 12 bits in files of 16.
TWELVE_BITS = 0xFFF
_DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def image_size(content: bytes, name: Path | str) -> tuple[int, int]:
    """Return the height and width in an image's header, without decoding the pixels.

    Raises:
        DatasetError: If the content is not an image, or a side has a single pixel.
    """
    with _opened(content, name) as image:
        return image.height, image.width


def image_fault(error: DatasetError) -> str:
    """Describe what is wrong with one of the files, and what to do with it if it is not an image."""
    stray = str(error).endswith("not an image that can be read")
    return f"{error}; remove it or move it out" if stray else str(error)


def decode(
    content: bytes,
    name: Path | str,
    size: tuple[int, int] | None = None,
    dark: Callable[[int], None] = lambda largest: None,
) -> NDArray[np.uint8]:
    """Return an image as RGB, (3, H, W) uint8.

    Grey, palette, CMYK and other colour spaces are converted, 16-bit grey keeps its upper 8 bits, and transparent
    pixels are laid on white. Only the first of several frames is used. EXIF rotation is not applied, since
    torchvision does not apply it.

    Args:
        content: Bytes of the file.
        name: Name of the file, for messages.
        size: Height and width of the image that is returned; None keeps the image's own. An image of another size is
            resized (bilinear, antialiased) until it covers it and cropped in the centre; for a square that is exactly
            what torchvision's `Resize` and `CenterCrop` do.
        dark: Callback that receives the largest value of a 16-bit image whose values need only 12 bits, so that its
            upper 8 bits are nearly black.

    Raises:
        DatasetError: If the content is not a complete image, a side has a single pixel, or its values have no fixed
            range.
    """
    with _opened(content, name) as image:
        try:
            image.load()
        except (OSError, ValueError, SyntaxError) as error:
            raise DatasetError(f"{name}: damaged image: {error}") from error
        rgb = _as_rgb(image, name, dark)
    if size is not None and (rgb.height, rgb.width) != size:
        rgb = _covering(rgb, *size)
    return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))


def _opened(content: bytes, name: Path | str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise DatasetError(f"{name}: not an image that can be read") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{name}: damaged image: {error}") from error
    if min(image.size) < SMALLEST_SIDE:
        raise DatasetError(f"{name}: {image.width}x{image.height} pixels show nothing; remove it or replace it")
    return image


def _as_rgb(image: Image.Image, name: Path | str, dark: Callable[[int], None]) -> Image.Image:
    if image.mode in _DEEP_GREY:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DatasetError(f"{name}: grey values {values.min()} to {values.max()} do not fit 16 bits")
        if 0 < values.max() <= TWELVE_BITS:
            dark(int(values.max()))
        # Pillow's own conversion would clip everything above 255 to white.
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DatasetError(f"{name}: floating-point values have no fixed range; save it with 8 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image).convert("RGB")
    return image.convert("RGB")


def _covering(image: Image.Image, height: int, width: int) -> Image.Image:
    # The side that has to grow most, or may shrink least, becomes exact; the other is cropped.
    if image.width * height <= image.height * width:
        resized = (width, int(width * image.height / image.width))
    else:
        resized = (int(height * image.width / image.height), height)
    if image.size != resized:
        image = image.resize(resized, Image.Resampling.BILINEAR)
    # torchvision rounds the offset, with halves going to the even number.
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


DIGEST_BYTES = 16


@dataclass(frozen=True)
class FileImages:
    """Images in files, decoded on request by a pool of threads.

    Attributes:
        name: Name of the data set, for messages.
        root: Folder that the paths are relative to.
        paths: N paths below the root.
        digests: (N, 16) uint8, the first bytes of each file's SHA-256.
        side: Height and width of the images that `read` returns.
    """

    name: str
    root: Path
    paths: Sequence[str]
    digests: NDArray[np.uint8]
    side: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return 3, self.side, self.side

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images at `indices`, shape (B, 3, side, side).

        Raises:
            DatasetError: If a file is missing or is not the one that was added.
        """
        images = np.empty((len(indices), *self.shape), dtype=np.uint8)
        for row, image in enumerate(decoding_threads().map(self._read_one, indices.tolist())):
            images[row] = image
        return images

    def _read_one(self, index: int) -> NDArray[np.uint8]:
        path = self.root / self.paths[index]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DatasetError(
                f"{self.name}: {path} cannot be read: {os_reason(error)}\n"
                f"  Bring it back, or add the data set again: unlearnbench data add"
            ) from error
        if short_digest(content) != self.digests[index].tobytes():
            raise DatasetError(
                f"{self.name}: {path} is not the file that was added\n"
                "  Bring it back, or add the data set again: unlearnbench data add"
            )
        return decode(content, path, (self.side, self.side))


@functools.cache
def decoding_threads() -> ThreadPoolExecutor:
    """Return the threads that decode images; they run in parallel because Pillow releases the interpreter lock."""
    return ThreadPoolExecutor(cores(), thread_name_prefix="decode")


def short_digest(content: bytes) -> bytes:
    """Return the first bytes of the SHA-256 of a file or an image, by which copies are found."""
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]
