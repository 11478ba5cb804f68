"""The cache that the Hugging Face hub's own library fills: which folder of it has a repository."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from unlearnbench.errors import DatasetError

HUB = "hub:"
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def cache_folder() -> Path:
    """Return the folder of the hub's cache, as the hub's own library finds it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def snapshot(kind: Literal["models", "datasets"], repository: str, revision: str = "main") -> Path:
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


def dataset_folder(path: Path) -> Path:
    """Return the folder of the cache that `hub:ORGANISATION/NAME` stands for, and any other path as it is.

    Raises:
        DatasetError: If the cache has no such data set; nothing is downloaded here.
    """
    name = path.as_posix()
    if not name.startswith(HUB):
        return path
    repository = name.removeprefix(HUB)
    folder = snapshot("datasets", repository)
    if not folder.is_dir():
        raise DatasetError(
            f"{name} is not on this machine: nothing at {folder}\n"
            f"  Fetch it: hf download --repo-type dataset {repository}   "
            "(of huggingface_hub; the extra `hub` brings it)"
        )
    return folder
