"""Unlearners over all problems: on which share of them each passes and lies within t of FDR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unlearnbench.results.figures.drawing import Drawing, FigureData
from unlearnbench.results.figures.style import legend_below, looks, new_figure, percent_axis
from unlearnbench.results.ranking import rows_by_problem
from unlearnbench.results.summaries.profile import Overall, overall


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield the profile if the records hold unlearners that ran on enough problems."""
    shown = [one for one in overall(rows_by_problem(source.records)) if one.score is not None]
    if shown:
        yield _drawing(shown)


def _drawing(shown: Sequence[Overall]) -> Drawing:
    figure, (axes,) = new_figure()
    styles = looks(next(iter(one.rows.values())).method for one in shown)
    for one in shown:
        x, y = zip(*one.curve, strict=True)
        look = styles[next(iter(one.rows.values())).method.label]
        line = look.line(markersize=3.5, markevery=[len(x) - 1], clip_on=False)
        axes.plot(x, [100 * share for share in y], label=f"{one.label} {one.score:.2f}", drawstyle="steps-post", **line)
    axes.set(xlim=(0, 1), xlabel="largest |position|, at most t")
    percent_axis(axes, "y", "problems", (0, 100))
    figure.set_figheight(2.15 + 0.16 * legend_below(figure, [axes], 2))
    title = (
        "Performance profile: the share of its problems on which a method kept the retain classes, its outputs forgot, "
        "and its largest |position| is at most t. The number is the area below the line, the method's score."
    )
    return Drawing("performance-profile", title, figure, [line for one in shown for line in _lines(one)])


def _lines(one: Overall) -> Iterator[dict[str, object]]:
    for limit, share in one.curve:
        yield {"method": one.label, "problems": len(one.rows), "score": one.score, "t": limit, "share": share}
