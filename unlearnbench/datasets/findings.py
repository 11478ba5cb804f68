"""What a user should know about the images of a data set before they are used: their sizes, copies and depths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unlearnbench.datasets.class_folders import Found, ImageFile, raise_faults
from unlearnbench.datasets.images import image_fault, image_size
from unlearnbench.errors import DatasetError, os_reason

LARGEST_KEPT_SIDE = 256
SHOWN = 3


@dataclass(frozen=True)
class Size:
    """The height and width that images are stored in.

    Attributes:
        height: Of every stored image.
        width: Likewise.
        note: What is said of images that had another size; "" if none had.
    """

    height: int
    width: int
    note: str = ""


def common_size(name: str, found: Found) -> Size:
    """Return the size that most images have, or a square of 256 pixels where there is no such size or it is larger.

    Raises:
        DatasetError: If files are not images, each of which is named.
    """
    sizes: dict[ImageFile, tuple[int, int]] = {}
    faults = []
    for file in (*found.train.images, *found.test.images):
        try:
            sizes[file] = image_size(file.read_bytes(), str(file))
        except DatasetError as error:
            faults.append(image_fault(error))
        except OSError as error:
            faults.append(unreadable(file, error))
    raise_faults(name, faults)
    usual, number = Counter(sizes.values()).most_common(1)[0]
    if 2 * number > len(sizes) and max(usual) <= LARGEST_KEPT_SIDE:
        others = [file for file, size in sizes.items() if size != usual]
        shown = ", ".join(f"{file} ({_text(sizes[file])})" for file in others[:SHOWN])
        rest = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        verb = "is" if len(others) == 1 else "are"
        return Size(
            *usual,
            f"{len(others):,} of {len(sizes):,} images {verb} not {_text(usual)} and {verb} resized and cropped to it: "
            f"{shown}{rest}"
            if others
            else "",
        )
    side = LARGEST_KEPT_SIDE
    smallest, largest = min(sizes.values()), max(sizes.values())
    differ = f"have sizes from {_text(smallest)} to {_text(largest)}" if smallest != largest else f"are {_text(usual)}"
    return Size(
        side, side, f"images {differ}: each is resized and cropped to {side}x{side}; --side chooses another square"
    )


def _images(number: int, kind: str = "") -> str:
    return f"1 {kind}image is" if number == 1 else f"{number:,} {kind}images are"


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def unreadable(file: ImageFile, error: OSError) -> str:
    """Describe a file that cannot be read."""
    if isinstance(file, Path) and file.is_symlink() and not file.exists():
        return f"{file}: a link to {file.readlink()}, which is not there; remove it or bring that back"
    return f"{file}: cannot be read: {os_reason(error)}"


@dataclass
class Copies:
    """Counts images that occur more than once, by their content.

    Attributes:
        across: Number of test images that are training images too.
        labelled_twice: Number of images that an earlier image under another class is equal to.
    """

    across: int = 0
    labelled_twice: int = 0
    _seen: dict[bytes, tuple[bool, int]] = field(default_factory=dict)

    def add(self, digests: Sequence[bytes], labels: Sequence[int], *, test: bool) -> None:
        """Count the next images of a part, training images first.

        Args:
            digests: Hash of each image.
            labels: Class of each image.
            test: Whether they are test images.
        """
        for digest, label in zip(digests, labels, strict=True):
            before = self._seen.setdefault(digest, (test, label))
            self.across += test and not before[0]
            self.labelled_twice += before[1] != label

    def notes(self) -> Iterator[str]:
        """Yield a line for each kind of copies."""
        if self.across:
            yield f"{_images(self.across, 'test ')} in the training part too"
        if self.labelled_twice:
            yield f"{_images(self.labelled_twice)} equal to one of another class"


@dataclass
class Depths:
    """Counts images of 16 bits whose values need only 12.

    Attributes:
        images: Their number.
        largest: The largest value among them.
    """

    images: int = 0
    largest: int = 0

    def add(self, largest: int) -> None:
        """Count an image with this largest value."""
        self.images += 1
        self.largest = max(self.largest, largest)

    def notes(self) -> Iterator[str]:
        """Yield a line if there are any."""
        if self.images:
            yield (
                f"{self.images:,} images have 16-bit values up to {self.largest:,} only, and come out nearly black; if "
                "they hold 12 bits, multiply them by 16 and add them again"
            )
