"""Data sets and weights on this machine: an overview of what is here, and downloads of what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.datasets.add import SILENT, FolderOptions, Listener, add, offer_of
from unlearnbench.datasets.catalog import DATASET_DOWNLOADS, download_bytes, sources
from unlearnbench.datasets.dataset import DatasetInfo, data_folder, open_dataset
from unlearnbench.datasets.download import Progress, fetch, is_archive, unpacked
from unlearnbench.datasets.parquet.hub_cache import CONVERTED, HUB, MAIN, dataset_name
from unlearnbench.datasets.parquet.hub_download import NoFileError, fetch_files
from unlearnbench.datasets.storage import is_prepared
from unlearnbench.errors import DatasetError, NotHereError, PluginError, did_you_mean
from unlearnbench.experiment.manifest import ArchitectureChoice, Choice, ReferencesChoice, named_weights
from unlearnbench.experiment.reader import read_manifest
from unlearnbench.machine import size_text
from unlearnbench.models.libraries import hub
from unlearnbench.models.weights import WEIGHTS, cached_weights, fetch_weights, find_weights, published_weights
from unlearnbench.registry.entry_points import names


@dataclass(frozen=True)
class Holding:
    """A data set, or weights, and whether this machine has it.

    Attributes:
        name: Name in manifests and commands.
        there: Whether it can be used now.
        classes: K classes; None if it is not there.
        train_images: Number of training images.
        test_images: Number of test images.
        revision: Revision of the images and labels.
        size: Size in the data folder in bytes; None if it needs no space.
        shape: Channels, height and width of its images; empty if it is not there.
        class_names: Names of its classes, likewise.
        note: Why it is not there and the command that helps, or where it came from if that is known.
    """

    name: str
    there: bool
    classes: int | None = None
    train_images: int | None = None
    test_images: int | None = None
    revision: str | None = None
    size: int | None = None
    note: str = ""
    shape: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()


def holdings() -> list[Holding]:
    """Return all installed data sets, each that a user added under a name, and all published weights."""
    found = []
    for name in names("datasets"):
        if name in ("image_folder", "parquet"):
            found += [
                _dataset_holding(f"{name} {source}", {"source": source}) for source in sources(data_folder(), name)
            ]
        elif name != "class_subset":  # It has no images of its own.
            found.append(_dataset_holding(name, {}))
    for (architecture, label), published in WEIGHTS.items():
        name, path = f"weights {architecture} {label}", cached_weights(published)
        note = "" if path else f"{size_text(published.size)} to fetch: unlearnbench data fetch {name}"
        found.append(Holding(name, path is not None, size=path.stat().st_size if path else None, note=note))
    return found


def _dataset_holding(name: str, options: dict[str, str]) -> Holding:
    folder = data_folder().joinpath(*name.split(" "))
    try:
        info = open_dataset(name.partition(" ")[0], options).info
    except (DatasetError, PluginError) as error:
        return Holding(name, False, note=_note(name, folder, error))
    size = sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else None
    train, test = sum(info.train_counts), sum(info.test_counts)
    return Holding(
        name,
        True,
        len(info.class_names),
        train,
        test,
        info.revision,
        size,
        note=info.origin,
        shape=info.shape,
        class_names=info.class_names,
    )


def _note(name: str, folder: Path, error: Exception) -> str:
    """Return one line that says what to do about a data set that cannot be opened."""
    if is_prepared(folder) or isinstance(error, PluginError):
        return " ".join(str(error).split())
    if name in DATASET_DOWNLOADS:
        return f"{size_text(download_bytes(name))} to fetch: unlearnbench data fetch {name}"
    return (
        f"get it yourself, then: unlearnbench data add {name} PATH" if offer_of(name) else " ".join(str(error).split())
    )


def fetch_dataset(name: str, listener: Listener = SILENT, progress: Progress = lambda done, total: None) -> DatasetInfo:
    """Download a data set, add it and remove what was downloaded.

    Photos that are too many to be packed are unpacked below `images` of the data folder, and stay there. Files of the
    Hugging Face hub stay in the hub's own cache.

    Args:
        name: Name of the data set; `hub:ORGANISATION/NAME` becomes the parquet data set NAME.
        listener: Callbacks that follow the adding.
        progress: Callback for the download of a file.

    Raises:
        DatasetError: If it cannot be downloaded, or `fetch` or `add` fails.
    """
    if name.startswith(HUB):
        return _fetch_from_hub(name, listener)
    if name not in DATASET_DOWNLOADS:
        if name == "imagenet1k":
            raise DatasetError(
                "imagenet1k may not be passed on\n"
                "  Get it from image-net.org, then: unlearnbench data add imagenet1k PATH"
            )
        raise DatasetError(f"{name!r} cannot be fetched{did_you_mean(name, (*DATASET_DOWNLOADS, 'weights'))}")
    downloads, place = DATASET_DOWNLOADS[name], data_folder() / "downloads"
    place = place / name if len(downloads) > 1 else place
    files = []
    for download in downloads:
        listener.say(f"fetching {download.url}")
        files.append(fetch(download, place, progress))
    paths = [file for file in files if is_archive(file)]
    offer = offer_of(name)
    if offer is not None and not offer.packed:
        images = data_folder() / "images" / name
        shutil.rmtree(images, ignore_errors=True)
        images.mkdir(parents=True)
        paths = unpacked(paths, images, listener.say)
    # What is no archive lies in the folder that holds nothing else.
    info = add(name, paths if len(paths) == len(files) else [*paths, place], listener=listener)
    for file in files:
        file.unlink()
    if len(downloads) > 1:
        shutil.rmtree(place, ignore_errors=True)
    return info


def _fetch_from_hub(name: str, listener: Listener) -> DatasetInfo:
    def parquet(files: Sequence[str]) -> list[str]:
        return [file for file in files if file.endswith(".parquet")]

    repository, revision = dataset_name(name)
    try:
        fetch_files("datasets", repository, parquet, revision, listener.say)
    except NoFileError as error:
        if revision == CONVERTED:
            raise
        raise DatasetError(
            f"{error}\n  The hub may have converted it: unlearnbench data fetch {HUB}{repository}@{CONVERTED}"
        ) from error
    return add("parquet", [Path(name)], FolderOptions(repository.partition("/")[2]), listener)


def fetch_published(
    architecture: str,
    label: str,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda message: None,
) -> Path:
    """Download published weights, unless they are on this machine.

    Raises:
        DatasetError: If none are published under this name, or `fetch` fails.
    """
    if architecture.startswith((HUB, hub.TIMM)):
        return hub.fetch(architecture, label, say).weights or Path()
    published = published_weights(architecture).get(label)
    if published is None:
        known = [f"{name} {label}" for name, label in WEIGHTS]
        known += [f"{architecture} {name}" for name in published_weights(architecture)]
        raise DatasetError(
            f"no weights {architecture} {label} are published{did_you_mean(f'{architecture} {label}', known)}"
        )
    return cached_weights(published) or fetch_weights(published, progress)


def fetch_missing(
    manifest: Path, listener: Listener = SILENT, progress: Callable[[str], Progress] = lambda what: _silent
) -> None:
    """Download what a manifest names and this machine lacks, as far as it can be downloaded.

    Args:
        manifest: Path of the manifest, whose faults are left to `resolve`.
        listener: Callbacks that follow the adding of a data set.
        progress: Function that returns a callback for the download of something, given its name.

    Raises:
        DatasetError: If `fetch_dataset` or `fetch_published` fails.
    """
    sections = read_manifest(manifest).sections
    dataset: Choice | None = sections.get("dataset")
    name = dataset.name if dataset else ""
    if dataset and name == "class_subset":
        name = str(dataset.options.get("of", "cifar100"))  # A subset has the images of the data set that it names.
    if name in DATASET_DOWNLOADS and not is_prepared(data_folder() / name):
        fetch_dataset(name, listener, progress(name))
    architecture: ArchitectureChoice | None = sections.get("architecture")
    if architecture is None:
        return
    if architecture.name.startswith(HUB):
        _fetch_network(architecture, listener)
    for _, label in named_weights(architecture, sections.get("references", ReferencesChoice())).values():
        if label in published_weights(architecture.name):
            fetch_published(architecture.name, label, progress(f"{architecture.name} {label}"))
        elif architecture.name.startswith((HUB, hub.TIMM)) and not _is_here(architecture.name, label, manifest.parent):
            hub.fetch(architecture.name, label, listener.say)


def _fetch_network(architecture: ArchitectureChoice, listener: Listener) -> None:
    """Download the configuration of a network of the hub, unless it is here."""
    revision = str(architecture.options.get("revision", MAIN))
    if hub.cached_model(*hub.place_on_hub(architecture.name, revision)) is None:
        hub.fetch(architecture.name, revision, listener.say, weights=False)


def _is_here(architecture: str, label: str, folder: Path) -> bool:
    try:
        find_weights(architecture, label, folder)
    except NotHereError:
        return False
    except DatasetError:
        pass  # No download helps, and `resolve` says what is wrong.
    return True


def _silent(done: int, total: int | None) -> None:
    """Ignore the progress of a download."""
