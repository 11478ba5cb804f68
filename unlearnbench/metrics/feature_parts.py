"""What a feature file is written from: rows of a forward pass, kept for some images and summed by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlearnbench.metrics.features import CHUNK_ROWS, COMPACT_DTYPE, stage_column
from unlearnbench.models.stages import Stage


@dataclass(frozen=True)
class Column:
    """Some of the numbers that a forward pass gives for each image.

    Attributes:
        name: Name of the column in a part of the file.
        place: Where the numbers stand in a row.
        dtype: Type that they are stored as.
    """

    name: str
    place: slice
    dtype: str

    @property
    def width(self) -> int:
        """How many numbers they are."""
        return int(self.place.stop - self.place.start)


def columns_of(file: h5py.File, stages: Sequence[Stage]) -> tuple[Column, ...]:
    """Return the columns of a row: the features, the pooled features of earlier stages, and the logits.

    Args:
        file: File whose head is written.
        stages: Stages before the classifier's input.
    """
    outputs, width = file["classifier/weight"].shape
    named = [("features", width, file.attrs["feature_dtype"])]
    named += [(stage_column(number), stage.width, COMPACT_DTYPE) for number, stage in enumerate(stages)]
    named.append(("logits", outputs, "float32"))
    found, start = [], 0
    for name, size, dtype in named:
        found.append(Column(name, slice(start, start + size), dtype))
        start += size
    return tuple(found)


def compact(column: Column) -> Column:
    """Return a column that is stored in half precision."""
    return replace(column, dtype=COMPACT_DTYPE)


class StoredImages:
    """A group of a feature file, which holds columns of some images in chunks of rows.

    Args:
        file: File to write to.
        name: Name of the group.
        columns: Columns to keep of each row.
        ids: (N,) ids of the images.
        labels: (N,) int64, labels of the images.
    """

    def __init__(
        self, file: h5py.File, name: str, columns: Sequence[Column], ids: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> None:
        rows = len(ids)
        self._step = max(1, min(rows, CHUNK_ROWS))
        self._group = file.create_group(name)
        self._columns = columns
        for column in columns:
            chunks = (self._step, column.width) if rows else None
            self._group.create_dataset(column.name, (rows, column.width), column.dtype, chunks=chunks)
        # Sorted or small integers compress to a tenth at no cost. They are one chunk that has to be written at once,
        # since every later write would compress it anew. Nothing cannot be compressed.
        packing: dict[str, Any] = {"chunks": (rows,), "compression": "gzip", "shuffle": True} if rows else {}
        for title, values in (("labels", labels), ("ids", ids)):
            self._group.create_dataset(title, (rows,), "int64", values, **packing)
        # These rows wait until their chunk is full.
        self._waiting = torch.empty(self._step, max(column.place.stop for column in columns))
        self._waits = self._written = 0

    def add(self, rows: Tensor) -> None:
        """Take the rows (n, all columns) of the next images, and write each chunk that they fill."""
        start, width = 0, self._waiting.shape[1]
        while start < len(rows):
            taken = min(self._step - self._waits, len(rows) - start)
            self._waiting[self._waits : self._waits + taken] = rows[start : start + taken, :width]
            start += taken
            self._waits += taken
            if self._waits == self._step:
                self.write()

    def write(self) -> None:
        """Write the rows that are waiting."""
        if self._waits:
            rows = self._waiting[: self._waits].numpy()
            for column in self._columns:
                self._group[column.name][self._written : self._written + self._waits] = rows[:, column.place]
        self._written += self._waits
        self._waits = 0


class ClassSums:
    """Sums of the features of each class, in the last stage and in the earlier ones.

    Args:
        num_classes: K classes.
        columns: Columns of a row, the logits last.
    """

    def __init__(self, num_classes: int, columns: Sequence[Column]) -> None:
        self._columns = columns[:-1]
        self._width = columns[-1].place.start
        self._sums = torch.zeros(num_classes, self._width, dtype=torch.float64)
        self._counts = torch.zeros(num_classes, dtype=torch.int64)

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """Add rows (n, all columns) with labels (n,)."""
        # The product of matrices is the same on every call, which atomic adds are not.
        members = torch.nn.functional.one_hot(labels, len(self._counts)).to(torch.float64)
        self._sums += members.T @ rows[:, : self._width].to(torch.float64)
        self._counts += members.sum(dim=0).to(torch.int64)

    def write(self, group: h5py.Group) -> None:
        """Write the sums and the number of images of each class."""
        group["counts"] = self._counts.numpy()
        for column in self._columns:
            name = "sums" if column.name == "features" else column.name
            group[name] = self._sums[:, column.place].numpy()
