"""Some classes of another data set, as a data set of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from unlearnbench.datasets.dataset import NOT_HERE, Dataset, DatasetInfo, Part
from unlearnbench.datasets.held_out import some_images
from unlearnbench.errors import DatasetError, NotHereError, did_you_mean
from unlearnbench.registry.entry_points import find


def class_subset(folder: Path, *, of: str = "cifar100", classes: tuple[str, ...] = ()) -> Dataset:
    """Return some classes of another data set: networks are trained and tested on their images alone.

    Args:
        folder: The data folder, for the other data set's reader.
        of: Name of the other data set, which is read with its default options.
        classes: Names of the classes, two or more. They keep the order that they have in the other data set, whatever
            the order here.

    Raises:
        PluginError: If no data set has this name.
        NotHereError: If it was not added.
        DatasetError: If a class is not one of its classes or is named twice, or its files are damaged.

    Source: own. Images, split, ids and normalisation are those of the whole data set; superclasses keep their numbers.
    """
    if of == "class_subset":
        raise DatasetError("class_subset: 'class_subset' has no classes of its own; name the data set that has them")
    if len(classes) < 2 or len(set(classes)) < len(classes):
        twice = sorted({name for name in classes if classes.count(name) > 1})
        found = f"{twice[0]!r} is named twice" if twice else f"{len(classes)} classes are named"
        raise DatasetError(f"class_subset: {found}; name two or more classes of {of}, each once")
    try:
        whole: Dataset = find("datasets", of).load()(folder)
    except NotHereError as error:
        raise NotHereError(str(error), _stand_in(error.stand_in, classes, error)) from error
    names = whole.info.class_names
    for name in classes:
        if name not in names:
            raise DatasetError(f"class_subset: {of} has no class {name!r}{did_you_mean(name, names)}")
    kept = tuple(label for label, name in enumerate(names) if name in classes)
    info = _info(whole.info, kept)
    return Dataset(info, train=lambda: _part(whole.train(), kept), test=lambda: _part(whole.test(), kept))


def _info(info: DatasetInfo, kept: tuple[int, ...]) -> DatasetInfo:
    return replace(
        info,
        name=f"{info.name}-{len(kept)}-classes",
        class_names=tuple(info.class_names[label] for label in kept),
        train_counts=tuple(info.train_counts[label] for label in kept),
        test_counts=tuple(info.test_counts[label] for label in kept),
        superclasses=tuple(info.superclasses[label] for label in kept if info.superclasses),
    )


def _stand_in(whole: Dataset, classes: tuple[str, ...], error: DatasetError) -> Dataset:
    """Return what is known of the classes of a data set that is not here: their names and number of images."""
    if len(classes) > len(whole.info.class_names):
        raise DatasetError(
            f"class_subset: {len(classes)} classes are named, {whole.info.name} has {len(whole.info.class_names)}"
        ) from error
    info = replace(_info(whole.info, tuple(range(len(classes)))), revision=NOT_HERE, class_names=tuple(sorted(classes)))
    return Dataset(info, whole.train, whole.test)


def _part(part: Part, kept: tuple[int, ...]) -> Part:
    """Return the images of some classes, with labels from 0 on."""
    found = some_images(part, np.flatnonzero(np.isin(part.labels, kept)))
    return Part(found.images, np.searchsorted(np.array(kept), found.labels).astype(np.int64), found.ids)
