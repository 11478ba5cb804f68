"""Networks and weights of the Hugging Face hub, timm's among them, in the hub's own cache on this machine.

They are looked for in the cache, and only `fetch` downloads. What is missing is named with the command that does so.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.datasets.parquet.hub_cache import HUB, MAIN, snapshot
from unlearnbench.datasets.parquet.hub_download import fetch_files
from unlearnbench.errors import DatasetError, did_you_mean
from unlearnbench.models.libraries.sources import package_file

TIMM = "timm:"
# These are the files that weights come in, the safe form first.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CONFIGURATION, PREPARATION = "config.json", "preprocessor_config.json"
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


def cached_model(repository: str, revision: str = MAIN) -> HubModel | None:
    """Return a network of the hub, or None if the cache has not this revision of it.

    Args:
        repository: Its name on the hub, ORGANISATION/NAME.
        revision: A branch, a tag or a commit.

    Raises:
        DatasetError: If the name has another form, or a file of it is damaged.
    """
    folder = snapshot("models", repository, revision)
    if not (folder / CONFIGURATION).is_file():
        return None
    config = _read(folder / CONFIGURATION)
    prepared = folder / PREPARATION
    preparation = config.get("pretrained_cfg") or (_read(prepared) if prepared.is_file() else {})
    return HubModel(folder, config, preparation)


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not readable: {error}\n  Remove it and fetch it again") from error
    return found


def how_to_fetch(architecture: str, label: str = MAIN) -> str:
    """Return the line with the command that brings weights of the hub, and their network, to this machine."""
    return f"\n  Fetch it: unlearnbench data fetch weights {architecture} {label}, or run with --download"


def place_on_hub(architecture: str, label: str) -> tuple[str, str]:
    """Return the repository and the revision of weights of `timm:` or `hub:`.

    Args:
        architecture: Name of the network, with its family.
        label: A tag of timm's, or a revision of a repository of the hub.

    Raises:
        DatasetError: If timm publishes no weights of this tag.
    """
    family, colon, member = architecture.partition(":")
    return (timm_repository(member, label), MAIN) if f"{family}{colon}" == TIMM else (member, label)


def fetch(
    architecture: str,
    label: str = MAIN,
    say: Callable[[str], None] = lambda message: None,
    *,
    weights: bool = True,
) -> HubModel:
    """Download a network's configuration from the hub, and its weights.

    Args:
        architecture: Name of the network, `timm:...` or `hub:...`.
        label: A tag of timm's, or a revision of a repository of the hub.
        say: Callback that receives a line with the size.
        weights: Whether the weights are wanted too.

    Raises:
        DatasetError: If the repository holds no such network, or `fetch_files` fails.
    """

    def choose(files: Sequence[str]) -> list[str]:
        if CONFIGURATION not in files:
            return []
        best = [name for name in WEIGHT_FILES if name in files][:1]
        return [CONFIGURATION, *([PREPARATION] if PREPARATION in files else []), *(best if weights else [])]

    repository, revision = place_on_hub(architecture, label)
    fetch_files("models", repository, choose, revision, say)
    found = cached_model(repository, revision)
    if found is None or (weights and found.weights is None):
        raise DatasetError(f"{HUB}{repository} at {revision!r} has no weights: none of {', '.join(WEIGHT_FILES)}")
    return found


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
        DatasetError: If the network has no weights of this tag, or timm is not installed.
    """
    if package_file("timm") is None:
        raise DatasetError("timm is not installed\n  pip install 'unlearnbench[timm]'")
    tags = timm_tags(network)
    if tag not in tags:
        raise DatasetError(f"timm publishes no weights {tag!r} of {network}{did_you_mean(tag, tags)}")
    return f"timm/{network}.{tag}"
