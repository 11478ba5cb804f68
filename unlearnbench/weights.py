"""Weights in a file: what a network can be filled with. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Weights:
    """A checkpoint on this machine.

    Attributes:
        label: As the manifest has it.
        identity: Names its content: a checksum.
        path: The file.
        algorithm: Of `checksum`.
        checksum: The first hexadecimal digits of the hash that the file must have, "" for a user's own.
        num_classes: K outputs, None if not known before it is read.
        mean: Mean of each channel with which images were normalised in its training, None if not known.
        std: Standard deviation of each channel, likewise.
    """

    label: str
    identity: str
    path: Path
    algorithm: str = "sha256"
    checksum: str = ""
    num_classes: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
