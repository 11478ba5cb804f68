"""How much of each layer the relevance search found, for each class and for the union over the forget classes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load

from unlearnbench.errors import InvalidFileError
from unlearnbench.paths import below
from unlearnbench.results.figures.drawing import Drawing, FigureData, NotDrawnError
from unlearnbench.results.figures.style import ERWP, GREY, ORANGE, legend_below, new_figure, percent_axis
from unlearnbench.results.records.record import Record
from unlearnbench.results.relevance import SearchRecord, grouped_searches, searches
from unlearnbench.store import Store

TENSORS = "tensors.safetensors"
# Up to this many layers are named on the axis; if there are more, they are numbered.
NAMED_LAYERS = 8


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield a plot for each group of stored searches that differ only in the seed.

    Raises:
        NotDrawnError: After all others were drawn, if the store lacks the searches of a problem and unlearner; at once,
            if it holds a damaged one.
    """
    searched = [record for record in source.records if "relevance" in record.details.get("kept", {})]
    if not searched:
        return
    # The records of a table may come from several machines, each with a store of its own.
    held = [record for record in searched if _folder(record, source).is_dir()]
    try:
        found = searches(held or searched, source.folder)
    except InvalidFileError as error:
        raise NotDrawnError(str(error)) from error
    for group, members in grouped_searches(found).items():
        yield _drawing(group, members, [_union(member, source) for member in members])
    drawn = {(record.problem.id, record.method.label) for record in held}
    lost = {_title(record): record for record in searched if (record.problem.id, record.method.label) not in drawn}
    if lost:
        raise NotDrawnError(
            "; ".join(
                f"{_folder(record, source)}: the search of {title} is not in the store"
                for title, record in lost.items()
            )
        )


def _title(record: Record) -> str:
    return f"{record.method.label}, {record.problem.slug}"


def _folder(record: Record, source: FigureData) -> Path:
    """Return the folder of a record's search in the store."""
    path = below(source.folder / "store", f"relevance/{record.details['kept']['relevance']}")
    return Store(source.folder / "store", create=False).entry(path.parent.name, path.name)


def _union(search: SearchRecord, source: FigureData) -> dict[str, float]:
    """Return the share of each layer that is relevant to any forget class."""
    path = _folder(search.record, source) / TENSORS
    try:
        masks = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise NotDrawnError(f"{path}: the relevance masks cannot be read: {error}") from error
    return {layer: float(mask.mean()) for layer, mask in masks.items()}


def _drawing(group: str, members: Sequence[SearchRecord], unions: Sequence[dict[str, float]]) -> Drawing:
    shares: dict[str, list[float]] = {}
    for member in members:
        for finding in member.facts["findings"]:
            shares.setdefault(finding["layer"], []).append(finding["share"])
    rows = [_row(layer, found, [union[layer] for union in unions]) for layer, found in shares.items()]
    figure, (axes,) = new_figure(height=2.55)
    places = range(1, len(rows) + 1)
    low, high = ([100 * row[key] for row in rows] for key in ("lowest", "highest"))
    axes.vlines(places, low, high, color=GREY, linewidth=1, label="lowest to highest class")
    axes.plot(
        places,
        [100 * row["mean"] for row in rows],
        linestyle="none",
        label="mean over classes",
        **ERWP.line(markersize=4),
    )
    axes.plot(
        places, [100 * row["union"] for row in rows], color=ORANGE, drawstyle="steps-mid", label="union over classes"
    )
    percent_axis(axes, "y", "relevant share of the layer", (0, 104))
    if len(rows) <= NAMED_LAYERS:
        axes.set_xticks(places, list(shares), rotation=20, ha="right")
    else:
        axes.set_xlabel("layer, from input to classifier")
        axes.xaxis.get_major_locator().set_params(integer=True)
    legend_below(figure, [axes], 2)
    settings = ", ".join(f"{key} {value}" for key, value in members[0].facts["settings"].items())
    title = (
        f"Share of the parameters of each layer that the search found relevant ({members[0].record.problem.title}; "
        f"{settings}; seeds: {len(members)}): of each class by itself, and of their union, which is what moves."
    )
    return Drawing(f"relevant-share-{group}", title, figure, rows)


def _row(layer: str, shares: Sequence[float], unions: Sequence[float]) -> dict[str, Any]:
    return {
        "layer": layer,
        "mean": statistics.fmean(shares),
        "lowest": min(shares),
        "highest": max(shares),
        "union": statistics.fmean(unions),
    }
