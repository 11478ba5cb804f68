"""What a record says about one metric: the value or the reason why there is none, and which images count."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class RecordPart(BaseModel):
    """A table of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Hits(RecordPart):
    """Which test images count for a metric that is a share of them, one bit for each, in the feature file's order.

    `bits` is base64 of bytes of eight images each, with the first image in the highest bit and the last byte padded
    with 0.
    """

    images: int = Field(gt=0)
    bits: str

    @field_validator("bits")
    @classmethod
    def _one_for_each_image(cls, bits: str, info: ValidationInfo) -> str:
        try:
            found = len(base64.b64decode(bits, validate=True))
        except ValueError as error:
            length = {"length": len(bits)}
            raise PydanticCustomError("bits", "its {length} characters are not base64", length) from error
        images = info.data.get("images")
        # If the number of images is itself at fault, only that is reported.
        if images is not None and found != -(-images // 8):
            facts = {"found": found, "images": images, "needed": -(-images // 8)}
            raise PydanticCustomError("bits", "{found} bytes, where {images} images need {needed}", facts)
        return bits


class MetricRecord(RecordPart):
    """One metric: its value with the settings of its protocol, or the reason why there is none."""

    name: str
    status: Literal["done", "failed"]
    value: float | None
    reason: str | None
    options: dict[str, Any]
    version: int = Field(ge=1)
    distribution: str
    distribution_version: str
    digest: str
    details: dict[str, Any] = {}
    hits: Hits | None = None


def packed(hits: NDArray[np.bool_]) -> Hits:
    """Return hits in the form that a record stores; `unpacked` reverses it."""
    return Hits(images=len(hits), bits=base64.b64encode(np.packbits(hits).tobytes()).decode())


def unpacked(hits: Hits) -> NDArray[np.bool_]:
    """Return the (N,) bool outcomes that a record holds."""
    found = np.frombuffer(base64.b64decode(hits.bits), dtype=np.uint8)
    return np.unpackbits(found, count=hits.images).astype(np.bool_)
