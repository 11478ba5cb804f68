"""The leaderboard for a reader in a hurry: who forgets, who only hides, what it costs, what nobody can do yet."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from unlearnbench.escape import markdown, markdown_link
from unlearnbench.results.judgement import MOST_FAE, MOST_FAE_SHARE, MOST_LOSS
from unlearnbench.results.rows import Row
from unlearnbench.results.summaries.profile import passes
from unlearnbench.results.tables import markdown_line
from unlearnbench.terms import SHORT

TITLE = "For a reader in a hurry"
# Features lie at FDR within the first position in each view; from the second on, a view finds at least half of what
# Original knows beyond FDR.
NEAR, HALF = 0.25, 0.5
_HALF = f"{100 * HALF:.0f} %"
OUTCOMES = {
    "forgets": f"passes, and each of the three views puts its features within {NEAR:g} of FDR",
    "in part": f"passes, and no view finds as much as {_HALF} of what Original knows beyond FDR",
    "damages": f"passes, and a view puts its features more than {NEAR:g} below FDR, which never saw the classes",
    "only hides": f"passes, but a view still finds at least {_HALF} of what Original knows beyond FDR",
    "undecided": "the 95 % interval of what it kept or of what its outputs forgot holds the limit",
    "still knows": "its outputs still tell the classes",
    "loses": f"it lost more than {100 * MOST_LOSS:g} points of the classes that stay",
}


def outcome(row: Row) -> str | None:
    """Return how a method ended on a problem, a key of `OUTCOMES`; None if too little is known of it."""
    found = row.judgement
    if row.is_reference or found is None or found.provisional or found.distance is None:
        return None
    if found.keep == "failed":
        return "loses"
    if found.forget == "failed":
        return "still knows"
    if not passes(row):
        return "undecided"
    if found.distance <= NEAR:
        return "forgets"
    if max(found.positions.values()) >= HALF:
        return "only hides"
    return "damages" if min(found.positions.values()) < -NEAR else "in part"


@dataclass(frozen=True)
class Summary:
    """What the page says is taken from here.

    Attributes:
        problems: Rows of each problem, in the order of the leaderboard.
        places: Where each problem stands on the leaderboard's pages, by its slug.
    """

    problems: Sequence[Sequence[Row]]
    places: Mapping[str, str]

    @cached_property
    def by_method(self) -> dict[str, list[Row]]:
        """The rows of which enough is known, by the method's label."""
        found: dict[str, list[Row]] = {}
        for row in (row for rows in self.problems for row in rows if outcome(row) is not None and _is_default(row)):
            found.setdefault(row.label, []).append(row)
        return found

    @cached_property
    def best(self) -> list[Row | None]:
        """For each problem the passing method that lies nearest to FDR, or None if nobody passes."""
        able = (
            [row for row in passing(rows) if row.role == "unlearner" and _is_default(row)] for rows in self.problems
        )
        return [min(rows, key=distance) if rows else None for rows in able]

    def link(self, row: Row) -> str:
        """Return a link to the problem of a row, by its number on the leaderboard."""
        slugs = [rows[0].problem.slug for rows in self.problems]
        return markdown_link(f"problem {slugs.index(row.problem.slug) + 1}", self.places[row.problem.slug])


def _is_default(row: Row) -> bool:
    """Return whether nothing was searched for a row, whose cost then is all that it reads."""
    return row.division == "default"


def passing(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of which enough is known and that pass."""
    return [row for row in rows if outcome(row) in ("forgets", "in part", "damages", "only hides")]


def distance(row: Row) -> float:
    """Return the largest |position| of a row, infinite if it has none."""
    found = row.judgement.distance if row.judgement else None
    return math.inf if found is None else found


def spent(row: Row) -> float | None:
    """Return a method's image passes over FDR's, mean over seeds; None if it reads no image."""
    shares = [1 / value for value in row.values("speed_up").values() if value]
    return statistics.fmean(shares) if shares else None


def lost(row: Row) -> float:
    """Return how many points of the classes that stay a method lost, mean over seeds."""
    return 100 * row.judgement.loss[0] if row.judgement and row.judgement.loss else math.nan


def in_short(problems: Sequence[Sequence[Row]], places: Mapping[str, str]) -> list[str]:
    """Return the parts of the page.

    Args:
        problems: Rows of each problem, in the order of the leaderboard.
        places: Where each problem stands on the leaderboard's pages, by its slug.
    """
    summary = Summary(problems, places)
    if not summary.by_method:
        return ["No method has been run with three seeds yet."]
    fae = f"FAe of at most {100 * MOST_FAE:g} %, or {100 * MOST_FAE_SHARE:g} % of Original's"
    return [
        f"{len(summary.by_method)} methods on {len(problems)} problems. A method *passes* if it loses at most "
        f"{100 * MOST_LOSS:g} points of the classes that stay and its outputs forget the others ({fae}). FDR is the "
        "model retrained without them, Original the one that knows them; a position is 0 at FDR and 1 at Original.",
        "\n".join(_sentences(summary)),
        "## Each method",
        _counts(summary.by_method),
        "Image passes are in percent of FDR's, and the loss is in points of the classes that stay: both are medians of "
        "the problems on which the method passes.",
        "\n".join(f"- **{name}**: {text}" for name, text in OUTCOMES.items()),
        "## The nearest to FDR on each problem",
        "\n".join(f"{number}. {_nearest(rows, best, places)}" for number, (rows, best) in _numbered(summary)),
    ]


def _numbered(summary: Summary) -> Iterable[tuple[int, tuple[Sequence[Row], Row | None]]]:
    return enumerate(zip(summary.problems, summary.best, strict=True), 1)


def _sentences(summary: Summary) -> Iterator[str]:
    """Yield who forgets, who only hides, what it costs and what nobody can do yet."""
    problems, best = summary.problems, [row for row in summary.best if row is not None]
    forgetting = [row for row in best if outcome(row) == "forgets"]
    if best:
        nearest, farthest = min(best, key=distance), max(best, key=distance)
        yield (
            f"- **Who forgets.** On {len(forgetting)} of {len(problems)} problems a method forgets in its outputs and "
            f"in its features; the nearest to FDR is {_named(nearest)} on {summary.link(nearest)}, at "
            f"{distance(nearest):.2f}."
        )
    yield from _hiding(summary)
    yield from _cheapest(summary)
    nobody = [rows[0] for rows, row in zip(problems, summary.best, strict=True) if row is None]
    parts = [f"come within {NEAR:g} of FDR in all three views on {len(problems) - len(forgetting)} of {len(problems)}"]
    if nobody:
        parts.append(f"pass at all on {', '.join(summary.link(row) for row in nobody)}")
    if len(best) > len(forgetting):
        parts[0] += f" (the best on {summary.link(farthest)}, {_named(farthest)}, stays at {distance(farthest):.2f})"
    if len(problems) > 1 and not any(_everywhere(rows, problems) for rows in summary.by_method.values()):
        parts.append("forget on every problem with the same options")
    if len(forgetting) < len(problems):
        yield f"- **What nobody can do yet.** To {'; to '.join(parts)}."


def _hiding(summary: Summary) -> Iterator[str]:
    """Yield how many methods mostly hide, and which hides most."""
    able = [rows for rows in summary.by_method.values() if rows[0].role == "unlearner" and passing(rows)]
    mostly = [rows for rows in able if 2 * len(_hidden(rows)) > len(passing(rows))]
    hidden = [row for rows in able for row in _hidden(rows)]
    if hidden:
        most = max(hidden, key=_known)
        yield (
            f"- **Who only hides.** Of {len(able)} methods that pass anywhere, {len(mostly)} mostly hide: their "
            f"outputs forget and a view of their features still knows; {_named(most)} on {summary.link(most)} "
            f"most of all, at {_known(most):+.2f}."
        )


def _everywhere(rows: Sequence[Row], problems: Sequence[Sequence[Row]]) -> bool:
    return len(rows) == len(problems) and all(outcome(row) == "forgets" for row in rows)


def _known(row: Row) -> float:
    """Return the position of the view that finds most of the forget classes."""
    return max(row.judgement.positions.values()) if row.judgement else -math.inf


def _hidden(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if outcome(row) == "only hides"]


def _named(row: Row) -> str:
    return f"**{markdown(row.label)}**"


def _cheapest(summary: Summary) -> Iterator[str]:
    """Yield what passing costs, and who passes at the least cost."""
    able = [row for rows in summary.by_method.values() for row in passing(rows) if row.role == "unlearner"]
    known = [(share, row) for row in able if (share := spent(row)) is not None]
    if known:
        middle = statistics.median(share for share, _ in known)
        share, least = min(known, key=lambda pair: pair[0])
        yield (
            f"- **What it costs.** Who passes reads {100 * middle:.0f} % of the images that FDR reads and loses "
            f"{statistics.median(map(lost, able)):.1f} points of the classes that stay (medians); least of all "
            f"{_named(least)} on {summary.link(least)}, {100 * share:.1f} %."
        )


def _counts(by_method: Mapping[str, Sequence[Row]]) -> str:
    """Return a table of how often each method ended in which way, and of what it cost where it passed."""
    counts = {
        label: {name: sum(outcome(row) == name for row in rows) for name in OUTCOMES}
        for label, rows in by_method.items()
    }
    # Who forgets on the larger share of its problems comes first, then who does so in part, and so on.
    order = sorted(counts, key=lambda label: (*(-n / len(by_method[label]) for n in counts[label].values()), label))
    header = ["method", "problems", *OUTCOMES, "image passes", "loss"]
    lines = [markdown_line(header), markdown_line(["---", *["---:"] * (len(header) - 1)])]
    for label in order:
        rows = by_method[label]
        control = " (control)" if rows[0].role == "control" else ""
        numbers = (str(number or "") for number in counts[label].values())
        lines.append(markdown_line([markdown(label) + control, str(len(rows)), *numbers, *_costs(rows)]))
    return "\n".join(lines)


def _costs(rows: Sequence[Row]) -> tuple[str, str]:
    able = passing(rows)
    shares = [share for row in able if (share := spent(row)) is not None]
    return (
        f"{100 * statistics.median(shares):.1f}" if shares else "-",
        f"{statistics.median(map(lost, able)):+.1f}" if able else "-",
    )


def _nearest(rows: Sequence[Row], best: Row | None, places: Mapping[str, str]) -> str:
    problem = rows[0].problem
    link = markdown_link(problem.title, places[problem.slug])
    if best is None or best.judgement is None:
        return f"{link}: nobody passes."
    views = ", ".join(f"{view} {position:+.2f}" for view, position in best.judgement.positions.items())
    share = spent(best)
    cost = "" if share is None else f", for {100 * share:.1f} % of FDR's image passes"
    fae = 100 * (best.mean(SHORT["FAe"]) or 0.0)
    return (
        f"{link}: {_named(best)} {outcome(best)}, at a distance of {distance(best):.2f} ({views}), with FAe {fae:.1f} "
        f"and a loss of {lost(best):.1f} points{cost}."
    )
