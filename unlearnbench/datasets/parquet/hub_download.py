"""Downloads from the Hugging Face hub into its cache, by the hub's own library."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from unlearnbench.datasets.parquet.hub_cache import HUB, MAIN, Kind, cache_folder, snapshot
from unlearnbench.errors import DatasetError
from unlearnbench.escape import one_line
from unlearnbench.machine import require_space, size_text

Choose = Callable[[Sequence[str]], Sequence[str]]


class NoFileError(DatasetError):
    """A repository has no file of the wanted kind."""


def fetch_files(
    kind: Kind,
    repository: str,
    choose: Choose,
    revision: str = MAIN,
    say: Callable[[str], None] = lambda message: None,
) -> Path:
    """Download files of a repository, and return the folder that its commit has in the cache.

    The library goes on with a cut download, checks what it has, and notes which commit a branch or tag stood for.

    Args:
        kind: What the repository holds.
        repository: Its name on the hub, ORGANISATION/NAME.
        choose: Function that picks the files that are wanted from the paths of all.
        revision: A branch, a tag or a commit.
        say: Callback that receives a line with the size.

    Raises:
        NoFileError: If no file is wanted.
        DatasetError: If the library is not installed, the hub cannot be reached or has no such repository or
            revision, or the disk is full.
    """
    snapshot(kind, repository, revision)  # This checks the names.
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError as error:
        raise DatasetError("huggingface_hub is not installed\n  pip install 'unlearnbench[hub]'") from error
    # The library reads the address and the cache's place when it is imported, which may have been earlier.
    endpoint, cache = os.environ.get("HF_ENDPOINT"), cache_folder()
    name, singular = f"{HUB}{repository}", kind.removesuffix("s")
    try:
        found = HfApi(endpoint=endpoint).repo_info(
            repository, repo_type=singular, revision=revision, files_metadata=True
        )
        sizes = {file.rfilename: file.size or 0 for file in found.siblings or ()}
        wanted = choose(list(sizes))
        size = sum(sizes[file] for file in wanted)
        if wanted:
            say(f"fetching {name} at {found.sha}: {size_text(size)}")
            require_space(cache, size, name, "HF_HOME")
            folder = snapshot_download(
                repository,
                repo_type=singular,
                revision=revision,
                cache_dir=cache,
                allow_patterns=[glob.escape(file) for file in wanted],
                endpoint=endpoint,
            )
    except DatasetError:
        raise
    # The library's transport raises errors of its own, which differ from one of its releases to the next.
    except Exception as error:
        raise DatasetError(f"{name} at {revision!r} cannot be fetched: {_reason(error)}") from error
    if not wanted:
        raise NoFileError(f"{name} at {revision!r} has no file that can be used here: {_some(list(sizes))}")
    return Path(folder)


def _reason(error: Exception) -> str:
    """Return what happened in one line, and what helps where that is known."""
    match type(error).__name__:
        case "RepositoryNotFoundError":
            return "the hub shows no such repository\n  If it is private, log in first: hf auth login"
        case "GatedRepoError":
            return "its owner has to grant access\n  Ask for it on the repository's page, then log in: hf auth login"
        case "RevisionNotFoundError":
            return "the repository has no such branch, tag or commit"
        case "OfflineModeIsEnabled":
            return "HF_HUB_OFFLINE is set, which forbids it"
    return f"{one_line(str(error)) or type(error).__name__}\n  The same command goes on from where it stopped"


def _some(files: Sequence[str]) -> str:
    return ", ".join(sorted(files)[:5]) + (", ..." if len(files) > 5 else "") if files else "it is empty"
