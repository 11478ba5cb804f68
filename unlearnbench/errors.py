"""The errors of the benchmark, as exceptions that carry a message for the user."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from unlearnbench.terms import SHORT


class UnlearnBenchError(Exception):
    """A mistake that the user can correct, printed without a traceback."""

    exit_code = 2


class InvalidFileError(UnlearnBenchError):
    """The content of a file is wrong."""

    exit_code = 1


class WrongUseError(InvalidFileError):
    """What a command names is not there, or could be one of several."""

    exit_code = 2


class StoreError(UnlearnBenchError):
    """The output folder cannot be used."""

    exit_code = 1


class UnwritableError(StoreError):
    """A result cannot be written, for example because the disk is full; what was written before is kept."""


class PluginError(UnlearnBenchError):
    """A plugin cannot be found, imported or called."""


class DatasetError(UnlearnBenchError):
    """A data set is missing or damaged."""


class NotHereError(DatasetError):
    """A data set or weights that are available, but not on this machine.

    Attributes:
        stand_in: What is known without having them, which is enough to check and plan but not to run.
    """

    def __init__(self, message: str, stand_in: Any) -> None:
        self.stand_in = stand_in
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.stand_in)


class MetricError(UnlearnBenchError):
    """A metric cannot be computed from these arrays."""


class NotApplicable(UnlearnBenchError):  # noqa: N818 - a state of a cell, not a fault
    """Raised by an unlearner that cannot run on this problem; the cell is recorded with the reason."""


class TrainingFailedError(UnlearnBenchError):
    """A training ended without giving a model, for example because the loss is no longer finite."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or the name of its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def os_reason(error: OSError) -> str:
    """Return why the operating system refused, without the path that the message names already."""
    return error.strerror or str(error)


def unreadable(path: object, error: OSError) -> InvalidFileError:
    """Return the fault of a file that the operating system does not give."""
    kind = WrongUseError if isinstance(error, FileNotFoundError) else InvalidFileError
    return kind(f"{path}: cannot be read: {os_reason(error)}")


@dataclass(frozen=True)
class Fault:
    """One fault of a manifest.

    Attributes:
        line: Line in the file, counted from 1.
        key: Dotted path of the key; "" for the file as a whole.
        message: What is wrong, and how to correct it.
    """

    line: int
    key: str
    message: str

    def describe(self, file: str) -> str:
        """Return the fault as `file:line: key: message`."""
        where = f"{self.key}: " if self.key else ""
        return f"{file}:{self.line}: {where}{self.message}"


class ManifestError(InvalidFileError):
    """All faults of one manifest."""

    def __init__(self, file: str, faults: Iterable[Fault]) -> None:
        self.file = file
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.line, fault.key)))
        super().__init__("\n".join(_lists_once(fault.describe(file) for fault in self.faults)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.faults)


def _lists_once(messages: Iterable[str]) -> Iterator[str]:
    """Yield messages, with each list of valid names only in the first, since ten wrong names need it once."""
    shown: set[str] = set()
    for message in messages:
        found = re.search(r"\n  (Did you mean '.*'\? )?(Valid: .*)", message)
        if found and found[2] in shown:
            question = f"\n  {found[1].rstrip()}" if found[1] else ""
            message = f"{message[: found.start()]}{question}{message[found.end() :]}"
        shown |= {found[2]} if found else set()
        yield message


# The number is limited because the names of ImageNet's classes would fill the screen.
SHOWN_NAMES = 40


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a line that names the nearest valid name, if there is one, and the valid names."""
    valid = sorted(names)
    nearest = _nearest(name.casefold(), valid)
    question = f"Did you mean {nearest!r}? " if nearest else ""
    shown = ", ".join(valid[:SHOWN_NAMES]) if valid else "none"
    rest = f", ... ({len(valid)} in all)" if len(valid) > SHOWN_NAMES else ""
    return f"\n  {question}Valid: {shown}{rest}"


def _nearest(name: str, valid: list[str]) -> str | None:
    """Return the valid name that is most like a casefolded name, whatever its own case."""
    meant = {short.casefold(): metric for short, metric in SHORT.items()}.get(name)
    if meant in valid:
        return meant
    folded = {known.casefold(): known for known in reversed(valid)}
    found = difflib.get_close_matches(name, folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None
