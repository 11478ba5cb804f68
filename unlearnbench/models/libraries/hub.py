"""Networks and weights of the Hugging Face hub, timm's among them, found in the hub's own cache on this machine.

Nothing is downloaded here: what is missing is named with the hub's command that brings it.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.datasets.parquet.hub_cache import snapshot
from unlearnbench.errors import DatasetError, did_you_mean
from unlearnbench.models.libraries.sources import package_file

TIMM = "timm:"
# These are the files that weights come in, the safe form first.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
REGISTERED = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)\(", re.M)


@dataclass(frozen=True)
class HubModel:
    """A network that the hub's cache holds.

    Attributes:
        folder: Folder of its files, called as the commit.
        config: Content of its `config.json`.
        preparation: How its images were prepared, as the library that made it says; empty if it does not.
    """

    folder: Path
    config: dict[str, Any]
    preparation: dict[str, Any]

    @property
    def weights(self) -> Path | None:
        """The file that holds its weights, or None if there is none."""
        return next((self.folder / name for name in WEIGHT_FILES if (self.folder / name).is_file()), None)

    @property
    def num_classes(self) -> int | None:
        """K outputs, or None if the configuration does not say."""
        classes = self.config.get("num_classes") or len(self.config.get("id2label") or ()) or None
        return int(classes) if classes else None

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Channel means that images were normalised with; None if unknown."""
        return _numbers(self.preparation.get("mean") or self.preparation.get("image_mean"))

    @property
    def std(self) -> tuple[float, ...] | None:
        """Channel standard deviations that they were normalised with; None if unknown."""
        return _numbers(self.preparation.get("std") or self.preparation.get("image_std"))

    @property
    def side(self) -> int | None:
        """Side of the images that it takes; None if unknown."""
        given = self.preparation.get("crop_size") or self.preparation.get("size") or self.preparation.get("input_size")
        sizes = list(given.values()) if isinstance(given, dict) else given if isinstance(given, list) else [given]
        return int(sizes[-1]) if sizes and isinstance(sizes[-1], int) else self.config.get("image_size")


def _numbers(values: Any) -> tuple[float, ...] | None:
    return tuple(float(value) for value in values) if values else None


def cached_model(repository: str, revision: str = "main") -> HubModel | None:
    """Return a network of the hub, or None if the cache has not this revision of it.

    Args:
        repository: Its name on the hub, ORGANISATION/NAME.
        revision: A branch, a tag or a commit.

    Raises:
        DatasetError: If the name has another form, or a file of it is damaged.
    """
    folder = snapshot("models", repository, revision)
    if not (folder / "config.json").is_file():
        return None
    config = _read(folder / "config.json")
    prepared = folder / "preprocessor_config.json"
    preparation = config.get("pretrained_cfg") or (_read(prepared) if prepared.is_file() else {})
    return HubModel(folder, config, preparation)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not readable: {error}\n  Remove it and fetch it again") from error
    return found


def how_to_fetch(repository: str, revision: str = "main") -> str:
    """Return the line with the command that brings a network of the hub to this machine."""
    at = "" if revision == "main" else f" --revision {revision}"
    return f"\n  Fetch it: hf download {repository}{at}   (of huggingface_hub; the extra `hub` brings it)"


def timm_networks() -> set[str]:
    """Return the names of the installed timm's networks."""
    return {name for text in _timm_sources() for name in REGISTERED.findall(text)}


def timm_tags(network: str) -> list[str]:
    """Return the tags of a timm network's published weights, its default first."""
    pattern = re.compile(rf"""^\s+['"]{re.escape(network)}\.([\w.]+)['"]:""", re.M)
    return [tag for text in _timm_sources() for tag in pattern.findall(text)]


@functools.cache
def _timm_sources() -> tuple[str, ...]:
    folder = package_file("timm", "models")
    return tuple(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))) if folder else ()


def timm_repository(network: str, tag: str) -> str:
    """Return where timm keeps the weights of a tag on the hub.

    Raises:
        DatasetError: If the network has no weights of this tag.
    """
    tags = timm_tags(network)
    if tag not in tags:
        raise DatasetError(f"timm publishes no weights {tag!r} of {network}{did_you_mean(tag, tags)}")
    return f"timm/{network}.{tag}"
