"""The manifest that `init` proposes for a model in use, with what was seen as comments."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from unlearnbench.datasets.add import FolderOptions, Listener, add
from unlearnbench.datasets.catalog import sources
from unlearnbench.datasets.dataset import DatasetInfo, data_folder, open_dataset
from unlearnbench.deployment.class_names import classes_of
from unlearnbench.deployment.first_look import Look, Normalisation, check, look
from unlearnbench.errors import ManifestError, StoreError, UnlearnBenchError, os_reason
from unlearnbench.experiment.resolve import resolve
from unlearnbench.registry.entry_points import names
from unlearnbench.registry.plugin_file import is_file_name

SHOWN_CLASSES = 100
# These data sets hold images of a user's own, each under a name.
OWN = ("image_folder", "parquet")
CHANGED = "a change of them counts after:"


@dataclass(frozen=True)
class Wish:
    """What a user says about her model.

    Attributes:
        data: Folder of class folders, the name under which one was added, or the name of a data set.
        architecture: Name of the architecture; the path of one in a file starts from the working folder.
        weights: Path of her checkpoint from the working folder, or the name of published weights.
        forget: Names or indices of the classes to be removed.
        class_order: Class of each output; empty for the order of the data set.
        crop: Side of the square that the network sees; None for the whole image.
        normalisation: Mean and deviation of her training; None tries the usual ones.
    """

    data: str
    architecture: str
    weights: str
    forget: tuple[str, ...]
    class_order: tuple[str, ...] = ()
    crop: int | None = None
    normalisation: Normalisation | None = None


def propose(wish: Wish, manifest: Path, listener: Listener, say: Callable[[str], None]) -> None:
    """Look at data, network and weights, and write a commented manifest if they belong together.

    Args:
        wish: What the user says.
        manifest: File to write, which must not be there.
        listener: Callbacks that follow the adding of images.
        say: Callback that receives what was seen, line by line.

    Raises:
        DatasetError: If the images cannot be used.
        ManifestError: If something that was named does not exist or does not fit.
        InvalidFileError: If the weights do not fit the network, or not the images.
        StoreError: If the file cannot be written.
        UnlearnBenchError: If the manifest is there already.
    """
    if manifest.exists():
        raise UnlearnBenchError(f"{manifest}: is there already\n  Remove it, or name another")
    dataset = _dataset(wish.data, listener)
    wish = _named(wish, open_dataset(dataset["name"], dataset.get("options", {})).info.class_names)
    values = _values(wish, manifest.parent, dataset)
    draft = manifest.with_name(f".{os.getpid()}-{manifest.name}")
    try:
        manifest.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(tomli_w.dumps(values), encoding="utf-8")
        resolved = resolve(draft)
        found = look(resolved, wish.normalisation, say)
        info = resolved.dataset.info
        for line in _seen(info, found):
            say(line)
        given = resolved.problems[0].weights
        check(found, info.class_names, wish.weights, given.class_order if given else None)
        mean, std = found.normalisation
        values["training"] |= {"mean": list(mean), "std": list(std)}
        manifest.write_text(_commented(values, info, found, wish), encoding="utf-8")
    except ManifestError as error:
        # The draft's lines are nothing to the user.
        told = "\n".join(f"{fault.key}: {fault.message}" for fault in error.faults)
        raise UnlearnBenchError(told) from error
    except OSError as error:
        raise StoreError(f"{manifest}: cannot be written: {os_reason(error)}") from error
    finally:
        draft.unlink(missing_ok=True)


def _dataset(data: str, listener: Listener) -> dict[str, Any]:
    """Return the manifest's table of the data set; class folders that were not added before are added."""
    path = Path(data)
    for name in OWN:
        if data in sources(data_folder(), name) and not path.is_dir():
            return {"name": name, "options": {"source": data}}
    if path.exists():
        source, name = path.resolve().name, "parquet" if any(path.rglob("*.parquet")) else "image_folder"
        add(name, [path], replace(FolderOptions(), name=source), listener)
        listener.say(
            f"{data}: its images are kept in {data_folder() / name / source}, and {CHANGED} {_again(data, name)}"
        )
        return {"name": name, "options": {"source": source}}
    if data in names("datasets"):
        return {"name": data}
    raise UnlearnBenchError(
        f"--data {data}: no folder, no data set, and no images were added under this name\n"
        f"  Added: {', '.join(name for kind in OWN for name in sources(data_folder(), kind)) or 'none'}"
    )


def _again(data: str, name: str) -> str:
    """Return the command that adds images again under the name of their folder."""
    return shlex.join(["unlearnbench", "data", "add", name, data, "--as", Path(data).resolve().name, "--replace"])


def _named(wish: Wish, names: tuple[str, ...]) -> Wish:
    """Return a wish with the names of all classes that it gives by index.

    Raises:
        UnlearnBenchError: If there is no such class.
    """
    forget, order = (
        tuple(names[label] for label in classes_of(given, names, option))
        for given, option in ((wish.forget, "--forget"), (wish.class_order, "--class-order"))
    )
    return replace(wish, forget=forget, class_order=order)


def _values(wish: Wish, folder: Path, dataset: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest's values; paths start from its folder."""

    def moved(path: str) -> str:
        return path if Path(path).is_absolute() else Path(os.path.relpath(path, folder)).as_posix()

    architecture = wish.architecture
    if is_file_name(architecture):
        path, _, function = architecture.removeprefix("file:").rpartition(":")
        architecture = f"file:{moved(path)}:{function}"
    network: dict[str, Any] = {"name": architecture, "weights": wish.weights}
    if Path(wish.weights).is_file():
        network["weights"] = moved(wish.weights)
    if wish.class_order:
        network["class_order"] = list(wish.class_order)
    training: dict[str, Any] = {"epochs": 10, "batch_size": 64, "learning_rate": 0.01, "schedule": "one_cycle"}
    if wish.crop is not None:
        training["crop"] = wish.crop
    return {
        "seeds": [0],
        "dataset": dataset,
        "architecture": network,
        "references": {"fdr": "none"},
        "problem": {"forget_classes": list(wish.forget), "limited_share": 1.0},
        "training": training,
        "unlearners": [{"name": "erwp"}, {"name": "wd"}],
    }


def _seen(info: DatasetInfo, found: Look) -> list[str]:
    """Return what was seen, in a few lines."""
    channels, height, width = info.shape
    best = max(found.tried, key=lambda title: found.tried[title])
    return [
        f"{len(info.class_names)} classes, {sum(info.train_counts):,} training and {sum(info.test_counts):,} test "
        f"images of {width}x{height} pixels, {channels} channels",
        f"{100 * found.accuracy:.1f} % of {found.counts.sum()} test images are recognised, normalised {best}",
    ]


def _commented(values: dict[str, Any], info: DatasetInfo, found: Look, wish: Wish) -> str:
    """Return the manifest's text."""
    classes = [
        f"#   {label:3} {name}: {count} training images, {100 * share:.0f} % recognised"
        for label, (name, count, share) in enumerate(
            zip(info.class_names, info.train_counts, found.by_class, strict=True)
        )
    ]
    more = len(classes) - SHOWN_CLASSES
    tried = ", ".join(f"{title} {100 * value:.1f} %" for title, value in found.tried.items())
    comments = {
        "dataset": [
            *_where_images_are(wish.data, values["dataset"]),
            *(line[2:] for line in classes[:SHOWN_CLASSES]),
            *([f"  ... and {more} more"] if more > 0 else []),
        ],
        "architecture": [
            "The network, and the weights that must forget. They were loaded, and recognise "
            f"{100 * found.accuracy:.1f} % of {found.counts.sum()} test images."
        ],
        "references": [
            'FDR is a model retrained without the forget classes: "train" makes one if the images suffice, or give the',
            "path of your own. Without it there is no rank, and nobody can say how low is low enough.",
        ],
        "problem": ["What is removed, and the share of the training images that the methods are given."],
        "training": [
            "How images are prepared, and the schedule of methods that train for long. Tried for the original, under",
            f"the best order of its outputs: {tried}.",
        ],
        "unlearners": [
            "The methods: ERwP, and weight deletion, which only removes outputs, to compare with. See: unlearnbench",
            "list unlearners. A method's options stand in options = { ... }; see: unlearnbench show erwp",
        ],
    }
    parts = [
        f"# Removes {', '.join(wish.forget)} from {wish.weights}. Written by unlearnbench init; every key is explained",
        "# in manifests/README.md. Next: unlearnbench run, export-model, certificate.",
        tomli_w.dumps({"seeds": values["seeds"]}).strip().replace("\n", "").replace("    ", "").replace(",]", "]"),
    ]
    for key, lines in comments.items():
        parts.append("")
        parts += [f"# {line}".rstrip() for line in lines]
        tables = values[key] if isinstance(values[key], list) else [values[key]]
        parts += [_table(key, table, listed=isinstance(values[key], list)) for table in tables]
    return "\n".join(parts) + "\n"


def _where_images_are(data: str, dataset: dict[str, Any]) -> list[str]:
    """Return the comment on a manifest's data set, which the classes follow."""
    if not Path(data).is_dir():
        return ["The images, and their classes:"]
    return [
        f"The images of {data} as they were added, and their classes; {CHANGED}",
        f"  {_again(data, dataset['name'])}",
    ]


def _table(key: str, table: dict[str, Any], *, listed: bool) -> str:
    """Return a table of the manifest, with lists on one line."""
    lines = [f"[[{key}]]" if listed else f"[{key}]"]
    return "\n".join([*lines, *(f"{name} = {_inline(value)}" for name, value in table.items())])


def _inline(value: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_inline(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(_inline(inner) for inner in value)}]"
    return tomli_w.dumps({"a": value}).strip().removeprefix("a = ")
