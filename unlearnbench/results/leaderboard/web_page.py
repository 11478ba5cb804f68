"""The leaderboard as a single web page that loads no other files. Its template is `leaderboard.html.j2`."""

from __future__ import annotations

import math
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unlearnbench.escape import html, one_line, url
from unlearnbench.results.judgement import MOST_LOSS
from unlearnbench.results.leaderboard import plot
from unlearnbench.results.leaderboard.markdown import interval_text, page_name, place_text, score_text
from unlearnbench.results.leaderboard.view import Board, Line, factor
from unlearnbench.results.ranking import ORDER_TEXTS
from unlearnbench.results.records.files import COLLECTION
from unlearnbench.results.rows import computed_on
from unlearnbench.results.summaries.stages import STAGE_LEGEND, StageMetric
from unlearnbench.results.tables import LEGEND, features_text, method_name, points, ranking_text, words
from unlearnbench.terms import SHORT

# HTML does without these, and a page has tens of thousands of them.
_OPTIONAL = re.compile(r"</(?:td|th|tr|dt|dd)>")
# The heat map has so many tints. Even the strongest, in percent of its colour, leaves the number readable.
TINTS, STRONGEST = 14, 70


def web_page(board: Board) -> str:
    """Return the page's HTML."""
    environment = Environment(
        loader=PackageLoader("unlearnbench.results.leaderboard", ""),
        autoescape=True,
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(points=points, factor=factor, one_line=one_line, sortable=_sortable, url=url)
    environment.globals.update(
        short=SHORT,
        gate=100 * MOST_LOSS,
        plots=plot.plots,
        size=plot,
        provenance=_provenance,
        interval_text=interval_text,
        place_text=place_text,
        page_name=page_name,
        collection=COLLECTION,
        score_text=score_text,
        words=words,
        features_text=features_text,
        legend=LEGEND,
        stage_legend=STAGE_LEGEND,
        profile_path=plot.profile_path,
        method_name=method_name,
        stage_tint=_stage_tint,
        tints=TINTS,
        strongest=STRONGEST,
    )
    template = environment.get_template("leaderboard.html.j2")
    page = template.render(board=board, order_text=ORDER_TEXTS[board.order], ranking=ranking_text(board.order))
    return _OPTIONAL.sub("", page)


def _escaped(value: Any) -> Any:
    """Return text from outside as HTML; what the template's own macros give is HTML already."""
    return Markup(html(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def _stage_tint(value: float | None, metric: StageMetric, largest: float) -> str:
    """Return how strongly a cell of the heat map is coloured, as a class of the page's style."""
    share = 0.0 if value is None else min(1.0, max(0.0, abs(value) / largest if metric.is_gap else value))
    return f"h{TINTS * share:.0f}"


def _sortable(value: float | None) -> str:
    """Return a number as a sort key; a missing number has none and stays last."""
    if value is None:
        return ""
    # Seven digits are more than a cell shows, and a page has thousands of cells.
    return "1e308" if math.isinf(value) else f"{value:.7g}"


def _provenance(line: Line) -> list[tuple[str, str]]:
    """Return the origin of a row, as names and values; versions of libraries stand in its records."""
    records = line.row.records
    commits = sorted({str(record.environment.get("commit") or "unknown") for record in records})
    method = line.row.method
    facts = [
        ("method", f"{method.name}, version {method.version}, of {method.distribution} {method.distribution_version}"),
        ("computed on", computed_on(records)),
        ("commit", ", ".join(commits)),
        ("standing", line.standing),
    ]
    return [(name, value) for name, value in facts if value]
