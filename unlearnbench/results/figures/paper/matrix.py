"""FAe, FPAe and CAne against what a manifest's matrix varies: tables 2 to 5 and section 5.7 of the supplement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unlearnbench.results.experiments import FORGET, Experiment
from unlearnbench.results.figures.drawing import Drawing, FigureData
from unlearnbench.results.figures.style import (
    ERWP,
    LOOKS,
    ORIGINAL,
    RETRAINED,
    MarkerStyle,
    legend_below,
    new_figure,
    percent_axis,
)
from unlearnbench.results.rows import Row
from unlearnbench.results.tables import method_name
from unlearnbench.terms import SHORT

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# This many letters of names fit side by side below the axis of a paper's column.
NAMES_IN_A_LINE = 32
REFERENCES = {"original": (ORIGINAL, "--"), "fdr": (RETRAINED, ":")}


@dataclass(frozen=True)
class Series:
    """Rows of one unlearner in the order of what is varied.

    Attributes:
        method: Name of the unlearner.
        what: What is varied; "" if each row stands for itself.
        rows: Rows with the value of what is varied, or with their label.
    """

    method: str
    what: str
    rows: tuple[tuple[Any, Row], ...]

    @property
    def is_numeric(self) -> bool:
        """Whether the varied values are numbers."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in self.rows)


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield a plot for each unlearner that a manifest's matrix varies."""
    for experiment in source.experiments:
        for number, series in enumerate(varied(experiment)):
            yield _drawing(experiment, series, f"{experiment.name}-{series.method}-matrix{number or ''}")


def varied(experiment: Experiment) -> Iterator[Series]:
    """Yield what an experiment varies, unlearner by unlearner; rows without a result are left out."""
    names = dict.fromkeys(row.method.name for row in experiment.rows if not row.is_reference and row.done)
    for name in names:
        rows = [row for row in experiment.rows if row.method.name == name and row.done]
        if experiment.varied_problem == (FORGET,):
            for label in dict.fromkeys(row.label for row in rows):
                same = [row for row in rows if row.label == label]
                if len(same) > 1:
                    yield Series(name, FORGET, tuple((len(row.problem.forget_classes), row) for row in same))
            continue
        keys = [key for key in experiment.varied_options if len({str(row.method.options.get(key)) for row in rows}) > 1]
        for same in ([row for row in problem if row in rows] for problem in experiment.problems):
            if len(same) > 1 and len(keys) == 1:
                ordered = sorted(same, key=experiment.order)
                yield Series(name, keys[0], tuple((row.method.options[keys[0]], row) for row in ordered))
            elif len(same) > 1:
                yield Series(name, "", tuple((row.label, row) for row in sorted(same, key=experiment.order)))


def _drawing(experiment: Experiment, series: Series, name: str) -> Drawing:
    figure, panels = new_figure(height=3.9, rows=3, sharex=True)
    places = [value for value, _ in series.rows] if series.is_numeric else list(range(len(series.rows)))
    # Settings that are not numbers have nothing in between, so that no line joins them.
    joined = "-" if series.is_numeric else "none"
    for axes, (short, metric) in zip(panels, SHORT.items(), strict=True):
        _draw(
            axes, places, [row for _, row in series.rows], metric, series.method, LOOKS.get(series.method, ERWP), joined
        )
        for reference, (look, style) in REFERENCES.items():
            beside = [found for _, row in series.rows if (found := _reference(experiment, row, reference))]
            if len(beside) == len(places):
                _draw(axes, places, beside, metric, method_name(beside[0]), look, style)
        percent_axis(axes, "y", short)
        axes.margins(y=0.15)
    panels[-1].set_xlabel(series.what)
    if series.is_numeric:
        panels[-1].set_xticks(places)
        panels[-1].xaxis.set_major_formatter("{x:g}")
    else:
        names = [str(value) for value, _ in series.rows]
        slanted = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"}
        panels[-1].set_xticks(places, names, **({} if len("".join(names)) <= NAMES_IN_A_LINE else slanted))
        panels[-1].margins(x=0.15)
    legend_below(figure, [panels[0]], 3)
    title = (
        f"{series.method} against {series.what or 'its options'} ({experiment.name}): means over seeds, bars are one "
        f"standard deviation; each panel has a scale of its own. Data: {series.rows[0][1].problem.data_name}, "
        f"{series.rows[0][1].problem.architecture}."
    )
    lines = [line for value, row in series.rows for line in _lines(experiment, series, value, row)]
    return Drawing(name, title, figure, lines)


def _reference(experiment: Experiment, row: Row, name: str) -> Row | None:
    """Return Original or FDR of a row's problem."""
    rows = (other for other in experiment.rows if other.problem.id == row.problem.id and other.is_reference)
    return next((other for other in rows if other.method.name == name and other.done), None)


def _draw(
    axes: Axes, places: Sequence[float], rows: Sequence[Row], metric: str, label: str, look: MarkerStyle, style: str
) -> None:
    known = [(place, row) for place, row in zip(places, rows, strict=True) if row.values(metric)]
    axes.errorbar(
        [place for place, _ in known],
        [100 * (row.mean(metric) or 0.0) for _, row in known],
        yerr=[100 * (row.std(metric) or 0.0) for _, row in known],
        label=label,
        linestyle=style,
        elinewidth=0.7,
        capsize=2,
        # The unlearner is drawn over the references where they meet.
        zorder=2 if rows[0].is_reference else 3,
        **look.line(markersize=4),
    )


def _lines(experiment: Experiment, series: Series, value: Any, row: Row) -> Iterator[dict[str, Any]]:
    references = {name: _reference(experiment, row, name) for name in REFERENCES}
    for short, metric in SHORT.items():
        means = {name: found.mean(metric) if found else None for name, found in references.items()}
        yield {
            "method": row.label,
            "varied": series.what or "options",
            "value": value,
            "metric": metric,
            "short": short,
            "seeds": len(row.values(metric)),
            "mean": row.mean(metric),
            "std": row.std(metric),
            **means,
        }
