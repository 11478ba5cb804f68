"""The cache that the Hugging Face hub's own library fills: which folder of it has a repository."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from unlearnbench.errors import DatasetError, PluginError

HUB = "hub:"
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
MAIN = "main"
# The hub converts what its data sets hold into parquet files, on a branch of this name.
CONVERTED = "refs/convert/parquet"

Kind = Literal["models", "datasets"]


def cache_folder() -> Path:
    """Return the folder of the hub's cache, as the hub's own library finds it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def snapshot(kind: Kind, repository: str, revision: str = MAIN) -> Path:
    """Return the folder that a revision of a repository has in the cache, called as its commit; it may not exist.

    Args:
        kind: What the repository holds.
        repository: Its name on the hub, ORGANISATION/NAME.
        revision: A branch, a tag or a commit.

    Raises:
        DatasetError: If the name or the revision has another form.
    """
    if not REPOSITORY.fullmatch(repository) or not REVISION.fullmatch(revision):
        raise DatasetError(f"{repository!r} at {revision!r} is not ORGANISATION/NAME and a revision of the hub")
    place = cache_folder() / f"{kind}--{repository.replace('/', '--')}"
    named = place / "refs" / revision
    commit = named.read_text(encoding="utf-8").strip() if named.is_file() else revision
    return place / "snapshots" / commit


def dataset_name(name: str) -> tuple[str, str]:
    """Return the repository and the revision of `hub:ORGANISATION/NAME` or `hub:ORGANISATION/NAME@REVISION`."""
    repository, _, revision = name.removeprefix(HUB).partition("@")
    return repository, revision or MAIN


def check_is_copied(name: str) -> None:
    """Check that a manifest's data set is not named as the hub names it.

    Raises:
        PluginError: If it is `hub:ORGANISATION/NAME`, which has to become a parquet data set of this machine first.
    """
    if name.startswith(HUB):
        source = dataset_name(name)[0].rpartition("/")[2]
        raise PluginError(
            f"{name!r} is a data set of the Hugging Face hub, which a manifest names by its copy on this machine\n"
            f'  unlearnbench data fetch {name}, and here name = "parquet", options = {{ source = "{source}" }}'
        )


def dataset_folder(path: Path) -> Path:
    """Return the folder of the cache that `hub:ORGANISATION/NAME` stands for, and any other path as it is.

    Raises:
        DatasetError: If the cache has no such data set; nothing is downloaded here.
    """
    name = path.as_posix()
    if not name.startswith(HUB):
        return path
    folder = snapshot("datasets", *dataset_name(name))
    if not folder.is_dir():
        raise DatasetError(
            f"{name} is not on this machine: nothing at {folder}\n  Fetch it: unlearnbench data fetch {name}"
        )
    return folder


def origin(folders: Sequence[Path]) -> str:
    """Return `hub:ORGANISATION/NAME@COMMIT` for the cache's folder of a data set, and "" for any other folders."""
    place = folders[0].relative_to(cache_folder().resolve()) if _is_cached(folders) else Path()
    match place.parts:
        case (repository, "snapshots", commit):
            return f"{HUB}{repository.removeprefix('datasets--').replace('--', '/')}@{commit}"
    return ""


def _is_cached(folders: Sequence[Path]) -> bool:
    return len(folders) == 1 and folders[0].is_relative_to(cache_folder().resolve())
