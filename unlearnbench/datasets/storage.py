"""Data sets as stored in the data folder: packed into one array, or indexed as files that stay where they are.

A prepared data set is a folder with the following files, which list training images before test images:

    facts.json      format, kind, revision, class names, counts, shape, mean, std, size of each other file
    labels.npy      (N,) int64
    ids.npy         (N,) int64, unique in each part
    images.npy      (N, C, H, W) uint8, if packed
    paths.json      N paths relative to `root` of the facts, if indexed
    digests.npy     (N, 16) uint8, the first bytes of each file's SHA-256, if indexed
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.datasets.class_folders import Found, FoundPart, ImageFile, raise_faults
from unlearnbench.datasets.dataset import ArrayImages, Dataset, DatasetInfo, Part, data_folder
from unlearnbench.datasets.download import is_there
from unlearnbench.datasets.findings import Copies, Depths, unreadable
from unlearnbench.datasets.images import (
    DIGEST_BYTES,
    FileImages,
    decode,
    decoding_threads,
    image_fault,
    image_size,
    short_digest,
)
from unlearnbench.documents import parsed_json
from unlearnbench.errors import DatasetError, os_reason
from unlearnbench.files import write_json
from unlearnbench.machine import require_space

FACTS = "facts.json"
FORMAT = 1
CHUNK = 512
# These are the usual values for ImageNet's training images. Large data sets use them to avoid decoding every image.
USUAL_MEAN, USUAL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Advance = Callable[[int], None]


def _chunks(part: FoundPart) -> Iterator[Any]:
    for start in range(0, len(part.labels), CHUNK):
        yield part.images[start : start + CHUNK]


def pack(
    found: Found,
    folder: Path,
    name: str,
    shape: tuple[int, int, int],
    advance: Advance = lambda images: None,
    *,
    resized: bool = False,
) -> list[str]:
    """Write a data set as one array of images of one size.

    Args:
        found: Images that were found.
        folder: Empty folder to write into.
        name: Name of the data set.
        shape: Channels, height and width of each stored image.
        advance: Callback that receives the number of images after each chunk.
        resized: Whether images of another size are resized and cropped; if not, they are faults.

    Returns:
        What the user should know about the images, a line each.

    Raises:
        DatasetError: If files are not images, each of which is named, or the disk is full.
    """
    digest, faults = hashlib.sha256(), list[str]()
    total = len(found.train.labels) + len(found.test.labels)
    require_space(folder, total * int(np.prod(shape)), name)
    histogram = np.zeros((shape[0], 256), dtype=np.int64)
    copies, depths = Copies(), Depths()
    with (folder / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (total, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in (found.train, found.test):
            labels = iter(part.labels)
            for chunk in _chunks(part):
                images = _decoded(chunk, shape, faults, depths.add, resized=resized)
                advance(len(chunk))
                if not faults:
                    hashes = [short_digest(image.tobytes()) for image in images]
                    copies.add(hashes, list(itertools.islice(labels, len(hashes))), test=part is found.test)
                    # The array is written in order because a full disk raises an error this way, where a memory map
                    # would end the process with a signal.
                    file.write(images.tobytes())
                    digest.update(images.tobytes())
                    if part is found.train:
                        histogram += [np.bincount(channel.ravel(), minlength=256) for channel in images.swapaxes(0, 1)]
    raise_faults(name, faults)
    mean, std = _statistics(histogram)
    facts = {"kind": "packed", "shape": list(shape), "mean": mean, "std": std}
    _write_facts(found, folder, name, facts, digest)
    return [*copies.notes(), *depths.notes()]


def _decoded(
    chunk: Sequence[ImageFile] | NDArray[np.uint8],
    shape: tuple[int, int, int],
    faults: list[str],
    dark: Callable[[int], None],
    *,
    resized: bool,
) -> NDArray[np.uint8]:
    """Return the images (B, C, H, W) of a chunk, and append each file that cannot be used to `faults`."""
    if isinstance(chunk, np.ndarray):
        return chunk  # The reader that made the array has checked it.

    def read(path: ImageFile) -> NDArray[np.uint8] | str:
        try:
            image = decode(path.read_bytes(), str(path), shape[1:] if resized else None, dark)
        except DatasetError as error:
            return image_fault(error)
        except OSError as error:
            return unreadable(path, error)
        if image.shape != shape:
            size, usual = (f"{s[2]}x{s[1]}" for s in (image.shape, shape))
            return f"{path}: {size} pixels where {usual} belong"
        return image

    read_images = list(decoding_threads().map(read, chunk))
    faults.extend(image for image in read_images if isinstance(image, str))
    whole = [image for image in read_images if not isinstance(image, str)]
    return np.stack(whole) if whole else np.empty((0, *shape), dtype=np.uint8)


def _statistics(histogram: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel in [0, 1], from exact counts of its 256 values."""
    values = np.arange(256) / 255.0
    weights = histogram / histogram.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    # A channel with a single value has no spread to divide by.
    std = np.where(std > 0, std, 1.0)
    return [round(float(x), 6) for x in mean], [round(float(x), 6) for x in std]


def index(
    found: Found, folder: Path, name: str, side: int, root: Path, advance: Advance = lambda images: None
) -> list[str]:
    """Write an index of files that stay where they are and are decoded when they are read.

    Each file is read once here, to hash it and to check its header; its pixels are decoded only when it is used.

    Args:
        found: Images that were found, in files below `root`.
        folder: Empty folder to write into.
        name: Name of the data set.
        side: Side of the square that each image becomes.
        root: Folder that the paths are relative to.
        advance: Callback that receives the number of images after each chunk.

    Returns:
        What the user should know about the images, a line each.

    Raises:
        DatasetError: If files are not images, each of which is named.
    """
    digest, faults = hashlib.sha256(), list[str]()

    def read(path: Path) -> bytes | str:
        try:
            content = path.read_bytes()
            image_size(content, path)
        except DatasetError as error:
            return image_fault(error)
        except OSError as error:
            return unreadable(path, error)
        return short_digest(content)

    digests: list[bytes] = []
    for part in (found.train, found.test):
        for chunk in _chunks(part):
            for result in decoding_threads().map(read, chunk):
                if isinstance(result, str):
                    faults.append(result)
                else:
                    digests.append(result)
            advance(len(chunk))
    raise_faults(name, faults)
    copies, training = Copies(), len(found.train.labels)
    copies.add(digests[:training], found.train.labels, test=False)
    copies.add(digests[training:], found.test.labels, test=True)
    digest.update(b"".join(digests))
    np.save(folder / "digests.npy", np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES))
    files = [*found.train.images, *found.test.images]
    write_json(folder / "paths.json", [Path(file).relative_to(root).as_posix() for file in files])
    facts = {"kind": "indexed", "shape": [3, side, side], "mean": USUAL_MEAN, "std": USUAL_STD, "root": str(root)}
    _write_facts(found, folder, name, facts, digest)
    return list(copies.notes())


def _write_facts(found: Found, folder: Path, name: str, facts: dict[str, Any], digest: Any) -> None:
    """Write labels, ids and facts; the facts come last, since a folder without them does not count as a data set."""
    labels = np.array([*found.train.labels, *found.test.labels], dtype=np.int64)
    ids = np.array([*found.train.ids, *found.test.ids], dtype=np.int64)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "ids.npy", ids)
    identity = [FORMAT, found.class_names, len(found.train.labels), facts["shape"]]
    digest.update(json.dumps(identity).encode() + labels.astype("<i8").tobytes() + ids.astype("<i8").tobytes())
    write_json(
        folder / FACTS,
        {
            **facts,
            "format": FORMAT,
            "name": name,
            "revision": digest.hexdigest()[:16],
            "origin": found.origin,
            "class_names": found.class_names,
            "train_counts": found.counts(found.train),
            "test_counts": found.counts(found.test),
            "files": {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.name != FACTS},
        },
    )


def is_prepared(folder: Path) -> bool:
    """Return whether a folder holds a prepared data set.

    Raises:
        DatasetError: If the folder cannot be read.
    """
    return is_there(folder / FACTS)


def open_prepared(folder: Path) -> Dataset:
    """Return a prepared data set, whose arrays are read on request.

    Raises:
        DatasetError: If a file is missing or has another size, or another version prepared the data set.
    """
    try:
        facts = parsed_json((folder / FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise DatasetError(f"{folder}: prepared in format {facts['format']}, this version reads {FORMAT}{_AGAIN}")
        for file, size in facts["files"].items():
            found = (folder / file).stat().st_size
            if found != size:
                raise DatasetError(f"{folder / file}: damaged: {found} bytes, not {size}{_AGAIN}")
        info = _info(facts)
    except FileNotFoundError as error:
        raise DatasetError(f"{error.filename}: missing{_AGAIN}") from error
    except OSError as error:
        raise DatasetError(f"{error.filename or folder}: cannot be read: {os_reason(error)}{_AGAIN}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{folder / FACTS}: not readable: {error}{_AGAIN}") from error
    parts = functools.partial(_part, folder, facts)
    return Dataset(info, train=lambda: parts(test=False), test=lambda: parts(test=True))


def images_elsewhere() -> list[Path]:
    """Return the folders in which images of added data sets stay, since only their places are kept."""
    found = []
    # A data set has a folder, or one for each name that it was added under; what lies deeper can be many images.
    for facts in (*data_folder().glob(f"*/{FACTS}"), *data_folder().glob(f"*/*/{FACTS}")):
        # A data set that cannot be read is none that a run has images of.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = parsed_json(facts.read_text(encoding="utf-8"))
            if values["kind"] == "indexed":
                found.append(Path(values["root"]))
    # A process needs the interpreter and its libraries, which might lie in the same folder.
    needed = [Path(place).resolve() for place in (sys.prefix, __file__)]
    return [root for root in found if not any(place.is_relative_to(root.resolve()) for place in needed)]


_AGAIN = "\n  Add the data set again: unlearnbench data add, or data fetch"


def _info(facts: dict[str, Any]) -> DatasetInfo:
    channels, height, width = facts["shape"]
    return DatasetInfo(
        name=facts["name"],
        revision=facts["revision"],
        class_names=tuple(facts["class_names"]),
        train_counts=tuple(facts["train_counts"]),
        test_counts=tuple(facts["test_counts"]),
        shape=(channels, height, width),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        # Data sets that earlier versions prepared do not say.
        origin=facts.get("origin", ""),
    )


def _part(folder: Path, facts: dict[str, Any], *, test: bool) -> Part:
    training = sum(facts["train_counts"])
    rows = slice(training, None) if test else slice(0, training)
    labels, ids = np.load(folder / "labels.npy")[rows], np.load(folder / "ids.npy")[rows]
    if facts["kind"] == "packed":
        return Part(ArrayImages(np.load(folder / "images.npy", mmap_mode="r")[rows]), labels, ids)
    paths = json.loads((folder / "paths.json").read_text(encoding="utf-8"))[rows]
    digests = np.load(folder / "digests.npy")[rows]
    return Part(FileImages(facts["name"], Path(facts["root"]), paths, digests, facts["shape"][1]), labels, ids)
