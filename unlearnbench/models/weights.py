"""Weights that somebody else has trained: published ones, found by name, and checkpoints, found by path."""

from __future__ import annotations

import functools
import hashlib
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from unlearnbench.datasets.dataset import data_folder
from unlearnbench.datasets.download import LARGEST_GROWTH, Download, Progress, fetch, is_there
from unlearnbench.datasets.parquet.hub_cache import HUB
from unlearnbench.errors import DatasetError, NotHereError, os_reason
from unlearnbench.machine import size_text
from unlearnbench.models.libraries import hub, torchvision_models
from unlearnbench.models.libraries.published import PublishedWeights
from unlearnbench.store import content_id


@dataclass(frozen=True)
class Weights:
    """A checkpoint on this machine.

    Attributes:
        label: The weights as the manifest names them.
        identity: Checksum that identifies the content.
        path: File that holds the checkpoint.
        algorithm: Hash algorithm of `checksum`.
        checksum: First hexadecimal digits of the hash that the file must have, a user's own since it was looked at.
        num_classes: K outputs; None if unknown until the file is read.
        mean: Channel means that images were normalised with in its training; None if unknown.
        std: Channel standard deviations that they were normalised with; None if unknown.
        side: Side of the square that their library cuts from an image; None if unknown.
        class_order: Class that each output stands for; None if output k stands for class k.
    """

    label: str
    identity: str
    path: Path
    algorithm: str = "sha256"
    checksum: str = ""
    num_classes: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    side: int | None = None
    class_order: tuple[int, ...] | None = None

    def in_order(self, class_order: tuple[int, ...]) -> Weights:
        """Return these weights with outputs that stand for classes in another order than the data set's."""
        if class_order == tuple(range(len(class_order))):
            return self
        return replace(self, identity=content_id(self.identity, class_order), class_order=class_order)


CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".th")


def _pytorchcv(file_name: str, sha1: str, release: str, size: int) -> PublishedWeights:
    """Return weights for CIFAR-100 from pytorchcv's model store.

    Source: names, hashes and releases from pytorchcv's model_metainfos.csv; mean and std from the same
    author's CIFAR training code, which uses the values of CIFAR-10 for CIFAR-100 too.
    """
    url = f"https://github.com/osmr/imgclsmob/releases/download/{release}/{file_name}.zip"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return PublishedWeights(url, file_name, "sha1", sha1, size, 100, mean, std)


def _torchvision(file_name: str, size: int) -> PublishedWeights:
    """Return weights for ImageNet-1k from torchvision's store, whose file names end in the first digits of the hash."""
    url = f"https://download.pytorch.org/models/{file_name}"
    digits = file_name.removesuffix(".pth").rpartition("-")[2]
    return PublishedWeights(url, file_name, "sha256", digits, size, 1000)


WEIGHTS = {
    ("resnet20", "pytorchcv"): _pytorchcv(
        "resnet20_cifar100-2964-a5322afe.pth", "a5322afed92fa96cb7b3453106f73cf38e316151", "v0.0.180", 1_200_000
    ),
    ("resnet56", "pytorchcv"): _pytorchcv(
        "resnet56_cifar100-2488-d65f53b1.pth", "d65f53b10ad5d124698e728432844c65261c3107", "v0.0.181", 3_600_000
    ),
    ("resnet164", "pytorchcv"): _pytorchcv(
        "resnet164bn_cifar100-2044-8fa07b72.pth", "8fa07b7264a075fa5add58f4c676b99a98fb1c89", "v0.0.182", 7_300_000
    ),
    ("resnet18", "IMAGENET1K_V1"): _torchvision("resnet18-f37072fd.pth", 46_830_571),
    ("resnet50", "IMAGENET1K_V1"): _torchvision("resnet50-0676ba61.pth", 102_530_333),
    ("mobilenet_v2", "IMAGENET1K_V1"): _torchvision("mobilenet_v2-b0353104.pth", 14_212_972),
}


def weights_folder() -> Path:
    """Return the folder that fetched weights are kept in."""
    return data_folder() / "weights"


def cached_weights(published: PublishedWeights) -> Path | None:
    """Return the checkpoint if it is on this machine, in our folder or in that of torchvision or pytorchcv.

    Raises:
        DatasetError: If the data folder cannot be read.
    """
    own = weights_folder() / published.file_name
    if is_there(own):
        return own
    torch_home = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
    others = (torch_home / "hub" / "checkpoints", Path.home() / ".torch" / "models")
    files = (place / published.file_name for place in others)
    # We may lack access to their folders, which is no fault; unlike `is_file`, `access` then simply returns False.
    return next((file for file in files if os.access(file, os.R_OK) and file.is_file()), None)


def published_weights(architecture: str) -> dict[str, PublishedWeights]:
    """Return the weights that can be downloaded for an architecture, by their names."""
    known = {label: weights for (name, label), weights in WEIGHTS.items() if name == architecture}
    family = torchvision_models.FAMILY
    if architecture.startswith(family):
        known |= torchvision_models.published(architecture.removeprefix(family))
    return known


def find_weights(architecture: str, label: str, folder: Path) -> Weights:
    """Return the weights that a manifest refers to.

    Args:
        architecture: Name of the architecture.
        label: Name of published weights, or a path to a checkpoint.
        folder: Folder that relative paths start from, which is that of the manifest.

    Raises:
        DatasetError: If no weights have this name, or they are not on this machine.
    """
    published = published_weights(architecture).get(label)
    if published is None:
        own = (folder / Path(label).expanduser()).is_file() or Path(label).suffix in CHECKPOINT_SUFFIXES
        of_hub = architecture.startswith((HUB, hub.TIMM)) and not own
        return _of_hub(architecture, label) if of_hub else _own_checkpoint(architecture, label, folder)
    path = cached_weights(published)
    weights = Weights(
        label,
        published.checksum,
        path or weights_folder() / published.file_name,
        published.algorithm,
        published.checksum,
        published.num_classes,
        published.mean,
        published.std,
        published.side,
    )
    if path is None:
        raise NotHereError(
            f"{label!r} of {architecture} is not on this machine ({size_text(published.size)})\n"
            f"  Fetch it: unlearnbench data fetch weights {architecture} {label}, or run with --download",
            weights,
        )
    return weights


def _own_checkpoint(architecture: str, label: str, folder: Path) -> Weights:
    path = folder / Path(label).expanduser()
    try:
        state = path.stat() if path.is_file() else None
        digest = _file_digest(path, state.st_size, state.st_mtime_ns) if state else None
    except OSError as error:
        raise DatasetError(f"{label!r}: {path} cannot be read: {os_reason(error)}") from error
    if digest is None:
        what = "no such file" if path.suffix in CHECKPOINT_SUFFIXES else "neither published weights nor a file"
        names = published_weights(architecture)
        listed = f"Published for {architecture}: {', '.join(names) or 'none'}"
        raise DatasetError(f"{label!r}: {what} (looked at {path})\n  {listed}")
    return Weights(label, digest, path, checksum=digest)


def _of_hub(architecture: str, label: str) -> Weights:
    """Return weights from the cache of the Hugging Face hub: a tag of timm's, or a revision of a repository."""
    repository, revision = hub.place_on_hub(architecture, label)
    found = hub.cached_model(repository, revision)
    if found is None or found.weights is None:
        stand_in = Weights(label, "", Path(repository))
        raise NotHereError(
            f"{label!r} of {architecture} is not on this machine{hub.how_to_fetch(architecture, label)}", stand_in
        )
    own = _own_checkpoint(architecture, str(found.weights), Path())
    return replace(own, label=label, num_classes=found.num_classes, mean=found.mean, std=found.std, side=found.side)


@functools.cache
def _file_digest(path: Path, size: int, modified: int) -> str:
    """Return the hash of a file; the size and the time make the cache miss when the file has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def fetch_weights(published: PublishedWeights, progress: Progress = lambda done, total: None) -> Path:
    """Download published weights into the data folder and return the checkpoint's path.

    Raises:
        DatasetError: If `fetch` fails, or the archive does not hold the checkpoint.
    """
    folder = weights_folder()
    if not published.url.endswith(".zip"):
        download = Download(published.url, published.size, published.algorithm, published.checksum)
        return fetch(download, folder, progress)
    # No checksum is published for the archive, so only that of the checkpoint within it is checked.
    archive = fetch(Download(published.url, None, "sha1", ""), folder, progress)
    try:
        with zipfile.ZipFile(archive) as compressed:
            if compressed.getinfo(published.file_name).file_size > LARGEST_GROWTH * published.size:
                raise DatasetError(
                    f"{published.url}: {published.file_name} is far larger than the published checkpoint"
                )
            content = compressed.read(published.file_name)
    except (zipfile.BadZipFile, KeyError, RuntimeError) as error:
        raise DatasetError(f"{published.url}: not an archive with {published.file_name}: {error}") from error
    finally:
        archive.unlink()
    found = hashlib.new(published.algorithm, content).hexdigest()
    if not found.startswith(published.checksum):
        raise DatasetError(
            f"{published.url}: wrong checksum of {published.file_name}: {published.algorithm} {found}, "
            f"not {published.checksum}"
        )
    temporary = folder / f"{published.file_name}.part"
    temporary.write_bytes(content)
    return temporary.replace(folder / published.file_name)
