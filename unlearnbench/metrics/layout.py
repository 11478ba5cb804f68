"""The layout of a feature file as a stranger may have made it: nothing outside of the file, and no endless array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import h5py

# The writer compresses labels and ids alone, and zlib gains at most a factor of about 1,000.
LARGEST_GAIN = 1100
LARGEST_OTHER_GAIN = 16
ALWAYS_READ = 2**20


def layout_faults(file: h5py.File, names: Sequence[str]) -> Iterator[str]:
    """Yield why arrays of a feature file are not read.

    Args:
        file: Open file that has these arrays.
        names: Paths of the arrays, such as `test/labels`.
    """
    for name in names:
        parts = name.split("/")
        paths = ["/".join(parts[: length + 1]) for length in range(len(parts))]
        if not all(isinstance(file.get(path, getlink=True), h5py.HardLink) for path in paths):
            yield f"{name} is a link"
            continue
        array = file[name]
        if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "iuf":
            yield f"{name} is no array of numbers"
        elif array.external or array.is_virtual:
            yield f"{name} lies in another file"
        elif array.nbytes > ALWAYS_READ + _gain(name) * array.id.get_storage_size():
            yield f"{name} has the shape {array.shape}, and {array.id.get_storage_size():,} bytes in the file"
        elif name.startswith(("test/", "limited/")) and len(array) != len(file[f"{parts[0]}/features"]):
            yield f"{name} has {len(array)} rows, and {parts[0]}/features {len(file[f'{parts[0]}/features'])}"


def _gain(name: str) -> int:
    return LARGEST_GAIN if name.endswith(("labels", "ids")) else LARGEST_OTHER_GAIN
