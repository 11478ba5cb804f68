"""A federation: the accuracy of the server's model round by round, and what each party holds of each class."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.patches import Rectangle

from unlearnbench.models.federation.federation import Rounds
from unlearnbench.results.figures.drawing import Drawing, FigureData
from unlearnbench.results.figures.style import COLUMN, VERMILION, legend_below, looks, new_figure, percent_axis
from unlearnbench.results.rows import Row
from unlearnbench.results.tables import method_name

# Beyond these the numbers and names of parties would run into each other.
SHOWN_PARTIES = 50


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield both figures for each problem whose references a federation trained."""
    for experiment in source.experiments:
        for rows in experiment.problems:
            found = [(row, rounds) for row in rows if row.is_reference and (rounds := _rounds(row))]
            if found:
                stem, caption = experiment.stem(rows), experiment.caption(rows)
                yield _accuracies(f"{stem}-rounds", caption, found)
                yield _shares(f"{stem}-shares", caption, *found[0])


def _rounds(row: Row) -> dict[int, Rounds]:
    """Return what a federation did to train a row's models, by seed."""
    return {record.seed: record.rounds for record in row.done if record.rounds is not None}


def _accuracies(name: str, caption: str, found: Sequence[tuple[Row, Mapping[int, Rounds]]]) -> Drawing:
    styles = looks(row.method for row, _ in found)
    figure, (axes,) = new_figure(COLUMN, 2.5)
    lines: list[dict[str, Any]] = []
    for row, by_seed in found:
        colour = styles[row.method.label].colour
        thin = {"color": colour, "alpha": 0.25, "linewidth": 0.7}
        curves = [rounds.accuracy_by_round for rounds in by_seed.values()]
        for curve in curves:
            axes.plot(range(1, len(curve) + 1), [100 * value for value in curve], **thin)
        means = [statistics.fmean(values) for values in zip(*curves, strict=False)]
        axes.plot(range(1, len(means) + 1), [100 * value for value in means], color=colour, label=method_name(row))
        lines += [
            {"method": method_name(row), "seed": seed, "round": number, "parties": len(drawn), "accuracy": value}
            for seed, rounds in by_seed.items()
            for number, (drawn, value) in enumerate(
                zip(rounds.trained_in_round, rounds.accuracy_by_round, strict=False), start=1
            )
        ]
    axes.set_xlabel("round")
    percent_axis(axes, "y", "accuracy", (0, 103))
    legend_below(figure, [axes])
    title = (
        f"Accuracy of the server's model after each round ({caption}), on the test images of the classes that it is "
        "trained on: FDR's without the forget classes. Thin lines are seeds, thick ones their mean."
    )
    return Drawing(name, title, figure, lines)


def _shares(name: str, caption: str, row: Row, by_seed: Mapping[int, Rounds]) -> Drawing:
    """Draw the shares of the first seed; the numbers of all seeds are in the CSV file."""
    first = min(by_seed)
    held = by_seed[first].images_per_class[:SHOWN_PARTIES]
    figure, (axes,) = new_figure(COLUMN, 0.9 + 0.13 * len(held))
    image = axes.imshow(held, cmap="Purples", vmin=0, aspect="auto", interpolation="nearest")
    axes.set(xlabel="class", ylabel="party")
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("training images")
    bar.outline.set_linewidth(0.4)
    party = (row.problem.federation or {}).get("party")
    if party is not None and party < len(held):
        axes.add_patch(Rectangle((-0.5, party - 0.5), len(held[0]), 1, fill=False, edgecolor=VERMILION, linewidth=1.2))
    framed = "" if party is None else f" Party {party}, in the frame, unlearns with its own share."
    cut = len(by_seed[first].images_per_class) - len(held)
    rest = f" The other {cut:,} parties are not drawn." if cut > 0 else ""
    forget = ", ".join(map(str, row.problem.forget_classes))
    title = (
        f"Images of each class that each party holds with seed {first} ({caption}). The forget classes are {forget}."
        f"{framed}{rest}"
    )
    lines = [
        {"seed": seed, "party": number, "class": label, "images": images, "unlearns": number == party}
        for seed, rounds in by_seed.items()
        for number, counts in enumerate(rounds.images_per_class)
        for label, images in enumerate(counts)
    ]
    return Drawing(name, title, figure, lines)
