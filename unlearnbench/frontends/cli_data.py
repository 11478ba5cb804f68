"""The `data` commands of the command line. As in `cli`, functions import modules so that it starts fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlearnbench.frontends.terminal import echo, echo_json, messages, table_console

if TYPE_CHECKING:
    from rich.table import Table

    from unlearnbench.datasets.add import Listener
    from unlearnbench.datasets.dataset import DatasetInfo
    from unlearnbench.engine.progress import Counting
    from unlearnbench.experiment.assets import Holding


SHOWN_NAMES = 3

data_app = typer.Typer(help="List, add, fetch and remove data sets and published weights.", no_args_is_help=True)


@contextmanager
def telling() -> Iterator[tuple[Counting, Listener]]:
    """Give the objects that show downloads and reading to the user, on stderr."""
    from unlearnbench.datasets.add import Listener
    from unlearnbench.engine.progress import Counting

    with Counting(messages()) as counting:
        yield counting, Listener(counting.say, counting.start_images, counting.advance_images)


@data_app.command("list")
def data_list(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """List data sets and published weights: which are on this machine, and how to get the others."""
    from unlearnbench.experiment.assets import holdings

    found = holdings()
    if as_json:
        echo_json([vars(holding) for holding in found])
        return
    from unlearnbench.results.tables import show

    show(holdings_table(found), table_console())


@data_app.command("add")
def data_add(
    name: Annotated[str, typer.Argument(help="A data set, such as cifar100; image_folder or parquet for your own.")],
    paths: Annotated[list[Path], typer.Argument(help="Folders or archives that hold it.", metavar="PATH...")],
    as_name: Annotated[
        str, typer.Option("--as", help="Name of images of your own; manifests have it as `source`.", metavar="NAME")
    ] = "default",
    side: Annotated[
        int | None, typer.Option(min=2, help="Your own: make each image a square of this side.", metavar="PIXELS")
    ] = None,
    test_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Your own: share to test with, if there is no test part.")
    ] = 0.2,
    replace: Annotated[bool, typer.Option("--replace", help="Your own: replace other images of this name.")] = False,
    image_column: Annotated[
        str | None, typer.Option(help="parquet: column of images, if it is not clear.", metavar="COLUMN")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="parquet: column of classes, likewise.", metavar="COLUMN")
    ] = None,
) -> None:
    """Check the images in PATH and prepare them once, for all manifests.

    For parquet, PATH can be `hub:ORG/NAME`, or `hub:ORG/NAME@REVISION`, in the cache of the Hugging Face hub.
    """
    from unlearnbench.datasets.add import FolderOptions, add

    with telling() as (_, listener):
        info = add(name, paths, FolderOptions(as_name, side, test_share, image_column, label_column, replace), listener)
    echo(_sentence(info))


@data_app.command("remove")
def data_remove(
    name: Annotated[str, typer.Argument(help="A data set that was added or fetched.")],
    as_name: Annotated[
        str | None, typer.Option("--as", help="Name under which images of your own were added.", metavar="NAME")
    ] = None,
) -> None:
    """Remove a data set from the data folder; images that stayed in a folder of yours are left there."""
    from unlearnbench.datasets.add import remove

    remove(name, as_name)
    echo(f"removed: {name}{f' {as_name}' if as_name else ''}")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A data set, such as cifar100 or hub:ORG/NAME, or `weights`.")],
    weights: Annotated[
        list[str] | None, typer.Argument(help="After `weights`: architecture and name.", metavar="[ARCHITECTURE NAME]")
    ] = None,
) -> None:
    """Download and add a data set, or download published weights; a cut download goes on where it stopped.

    `hub:ORG/NAME` is a data set of the Hugging Face hub (extras hub and parquet) and becomes the parquet data set NAME.
    Weights of the hub go by `hub:ORG/NAME` and a revision, such as main, and those of timm by `timm:NETWORK` and a tag.
    """
    from unlearnbench.errors import DatasetError
    from unlearnbench.experiment.assets import fetch_dataset, fetch_published

    with telling() as (counting, listener):
        if name == "weights":
            if len(weights or []) != 2:
                raise DatasetError(
                    "unlearnbench data fetch weights takes ARCHITECTURE and NAME\n  See: unlearnbench data list"
                )
            architecture, label = weights or ["", ""]
            text = str(fetch_published(architecture, label, counting.download(f"{architecture} {label}"), listener.say))
        elif weights:
            raise DatasetError(f"{' '.join(weights)}: only `weights` takes more than a name")
        else:
            text = _sentence(fetch_dataset(name, listener, counting.download(name)))
    echo(text)


def _sentence(info: DatasetInfo) -> str:
    train, test = sum(info.train_counts), sum(info.test_counts)
    classes = len(info.class_names)
    return (
        f"{info.name}: {classes} classes ({some_names(info.class_names)}), {train:,} training and {test:,} test images "
        f"of {shape_text(info.shape)}, revision {info.revision}{f', from {info.origin}' if info.origin else ''}"
    )


def shape_text(shape: Sequence[int]) -> str:
    """Return channels, height and width of images as "3x32x32"."""
    return "x".join(map(str, shape))


def some_names(names: Sequence[str]) -> str:
    """Return the first class names, and how many more there are."""
    rest = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {rest:,} more" if rest > 0 else "")


def holdings_table(holdings: Sequence[Holding]) -> Table:
    """Return data sets and weights as a table for a terminal."""
    from rich.table import Table

    from unlearnbench.machine import size_text

    table = Table()
    for name in ("name", "here", "classes", "training", "test", "shape", "size", "revision", "class names", "note"):
        is_number = name in ("classes", "training", "test", "size")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=is_number)
    for holding in holdings:
        numbers = (holding.classes, holding.train_images, holding.test_images)
        table.add_row(
            holding.name,
            "yes" if holding.there else "no",
            *("" if number is None else f"{number:,}" for number in numbers),
            shape_text(holding.shape),
            "" if holding.size is None else size_text(holding.size),
            holding.revision or "",
            some_names(holding.class_names),
            holding.note,
        )
    return table
