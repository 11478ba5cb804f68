"""Parquet files of images and labels: which columns they are, and the bytes of each image."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from unlearnbench.errors import DatasetError, did_you_mean
from unlearnbench.escape import one_line

# Usual names, where a table has several columns of a kind.
IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label", "class")
KEPT_GROUPS = 4
_IMAGES = re.compile(r"(large_)?binary$|struct<bytes: ")
_LABELS = re.compile(r"(large_)?string$|u?int(8|16|32|64)$|dictionary<values=(large_)?string")


class TableError(DatasetError):
    """A parquet file is not what it should be; the message names it, and the column."""


@dataclass(frozen=True)
class Columns:
    """The columns of a file that are read.

    Attributes:
        image: Column of encoded images.
        label: Column of classes.
        class_names: Names of the classes as the file's own schema has them; None if it has none.
    """

    image: str
    label: str
    class_names: tuple[str, ...] | None


def parquet_library() -> Any:
    """Return pyarrow's module for parquet.

    Raises:
        DatasetError: If pyarrow is not installed.
    """
    try:
        return import_module("pyarrow.parquet")
    except ImportError as error:
        raise DatasetError("parquet: pyarrow is not installed\n  pip install 'unlearnbench[parquet]'") from error


class Table:
    """One parquet file, of which the last row groups that were read are kept.

    Args:
        path: The file.

    Raises:
        TableError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, list[Any]] = OrderedDict()
        try:
            self._file = parquet_library().ParquetFile(path)
        # pyarrow's exceptions are ValueErrors and OSErrors.
        except (ValueError, OSError) as error:
            raise TableError(f"{path}: not a parquet file that can be read: {one_line(str(error))}") from error
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._starts[-1])

    def columns(self, image: str | None, label: str | None) -> Columns:
        """Return the columns to read.

        Args:
            image: Column of images that the user names; None finds it.
            label: Column of classes, likewise.

        Raises:
            TableError: If there is no such column, or more than one could be meant.
        """
        schema = self._file.schema_arrow
        features = _features(schema)
        types = {field.name: str(field.type) for field in schema}
        declared = {name: feature.get("_type", "") for name, feature in features.items()}
        chosen = self._chosen("image", image, types, _fitting(types, declared, "Image", _IMAGES), IMAGE_NAMES)
        classes = self._chosen("label", label, types, _fitting(types, declared, "ClassLabel", _LABELS), LABEL_NAMES)
        names = features.get(classes, {}).get("names")
        return Columns(chosen, classes, tuple(map(str, names)) if names else None)

    def _chosen(
        self, what: str, wish: str | None, types: Mapping[str, str], fitting: Sequence[str], usual: Sequence[str]
    ) -> str:
        """Return the column that the user names, the one that has a usual name, or the only one that fits."""
        if wish is not None:
            if wish not in types:
                raise TableError(f"{self.path}: no column {wish!r}{did_you_mean(wish, list(types))}")
            return wish
        found = next(([name] for name in usual if name in fitting), list(fitting))
        if len(found) == 1:
            return found[0]
        said = f"{', '.join(found)} could each be the {what}" if found else f"no column could be the {what}"
        raise TableError(
            f"{self.path}: {said}; its columns: {', '.join(types)}\n  Name the right one: --{what}-column COLUMN"
        )

    def labels(self, column: str) -> list[Any]:
        """Return what each row has in the column of classes: numbers or texts.

        Raises:
            TableError: If the file is damaged, or a row has nothing there.
        """
        try:
            found: list[Any] = self._file.read(columns=[column]).column(column).to_pylist()
        except (ValueError, OSError) as error:
            raise TableError(f"{self.path}: column {column!r}: {one_line(str(error))}") from error
        # The hub's test parts whose classes are kept secret have -1.
        empty = [row for row, value in enumerate(found) if value is None or value == -1]
        if empty:
            rows = f"{len(empty):,} of {len(found):,} rows have no class, the first is row {empty[0]}"
            raise TableError(f"{self.path}: column {column!r}: {rows}; leave this file out, or mend it")
        odd = next((row for row, value in enumerate(found) if not isinstance(value, int | str)), None)
        if odd is not None:
            raise TableError(f"{self.path}: column {column!r}: row {odd} has {found[odd]!r}, not a number or a text")
        return found

    def image(self, column: str, row: int) -> bytes:
        """Return the encoded image of a row.

        Raises:
            TableError: If the row has none, or the file is damaged.
        """
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            cells = self._group(column, group)
        value = cells[row - int(self._starts[group])].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            path = value.get("path") if isinstance(value, dict) else None
            only = f", only the path {path!r}; write the table with its images in it" if path else ""
            raise TableError(f"{self.path}: column {column!r}: row {row} has no image{only}")
        if not isinstance(content, bytes):
            raise TableError(f"{self.path}: column {column!r}: row {row} has {type(content).__name__}, not an image")
        return content

    def _group(self, column: str, group: int) -> Any:
        if group not in self._groups:
            try:
                self._groups[group] = self._file.read_row_group(group, columns=[column]).column(column)
            except (ValueError, OSError) as error:
                raise TableError(f"{self.path}: column {column!r}: {one_line(str(error))}") from error
            while len(self._groups) > KEPT_GROUPS:
                self._groups.popitem(last=False)
        return self._groups[group]


@dataclass(frozen=True)
class Cell:
    """The image in a row of a table, which is read as a file is.

    Attributes:
        table: The table.
        column: Its column of images.
        row: Number of the row.
    """

    table: Table
    column: str
    row: int

    @property
    def name(self) -> str:
        """Number of the row."""
        return str(self.row)

    @property
    def parent(self) -> Path:
        """The parquet file."""
        return self.table.path

    def read_bytes(self) -> bytes:
        """Return the encoded image.

        Raises:
            TableError: If there is none.
        """
        return self.table.image(self.column, self.row)

    def __str__(self) -> str:
        """Return file, column and row."""
        return f"{self.table.path}: column {self.column!r}: row {self.row}"


def _features(schema: Any) -> dict[str, Any]:
    """Return what the hub's library has written into a schema about each column; empty without it."""
    try:
        text = (schema.metadata or {}).get(b"huggingface", b"{}")
        found = json.loads(text).get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def _fitting(types: Mapping[str, str], declared: Mapping[str, str], kind: str, pattern: re.Pattern[str]) -> list[str]:
    """Return the columns that the hub's library has written as of this kind, or else those whose types fit it."""
    sure = [name for name in types if declared.get(name) == kind]
    return sure or [name for name, text in types.items() if pattern.match(text)]
