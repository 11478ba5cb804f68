"""The paper compared with what was measured: its numbers with the difference, and its claims with the verdict."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from unlearnbench.escape import markdown
from unlearnbench.results.records.record import Record
from unlearnbench.results.report.claim_values import distinct_rows
from unlearnbench.results.report.published import PublishedTable, published_table
from unlearnbench.results.report.verdicts import JudgedClaim, judged_claims
from unlearnbench.results.rows import Row, grouped_rows
from unlearnbench.results.tables import markdown_line, method_name
from unlearnbench.terms import SHORT

GENERATED = "Generated from run records by `unlearnbench report --paper`; do not edit by hand."
GAP = "prototype_gap"
NAMES = {metric: short for short, metric in SHORT.items()} | {GAP: "distance of FPAe from FDR's"}
NUMBER_COLUMNS = ("where", "problem", "method", "metric", "paper", "ours", "difference", "seeds", "training")
CLAIM_COLUMNS = ("claim", "where", "verdict", "measured", "on", "data")


def paper_page(records: Sequence[Record]) -> str:
    """Return the page: the numbers of every row that the paper also has, followed by each claim."""
    found = judged_claims(records)
    parts = [
        "# The paper and these runs",
        GENERATED,
        "## Numbers",
        _numbers(records),
        "Percent, mean ± standard deviation over seeds; the difference is ours less the paper's, in points. *Training* "
        "says how long Original and FDR were trained here.",
        "## Claims",
        _summary(found),
        _table(CLAIM_COLUMNS, [_claim(outcome) for outcome in found]),
        "A claim is a rule over means; *measured* shows its value with standard deviation and seeds, in percent or "
        "points, speed-ups as factors. It *holds* or *does not hold* where the 95 % t interval over seeds says so; it "
        "is *undecided* where the bound lies inside the interval, or there is a single seed and no interval. *Says "
        "little* marks what holds for weight deletion as well, which takes nothing but outputs away. *Data* says "
        "whether the "
        "experiment has the paper's data set, network and schedule, or only its form: a rule that fails elsewhere does "
        "not refute the paper; *under-trained* says that its originals are more than 5 points below the published "
        "accuracy of their network. *Not run* says what is missing. Rules: `unlearnbench/results/report/claims.toml`.",
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join([markdown_line(header), markdown_line(["---"] * len(header)), *map(markdown_line, lines)])


def _numbers(records: Iterable[Record]) -> str:
    lines = []
    for rows in grouped_rows(records):
        published = published_table(rows[0].problem)
        if published is not None:
            lines += list(_number_lines(rows, published))
    if not lines:
        return "No row here is one of the paper's: it has CIFAR-100, CUB-200 and ImageNet-1k, and its own options."
    return _table(NUMBER_COLUMNS, lines)


def _number_lines(rows: Sequence[Row], published: PublishedTable) -> Iterator[tuple[str, ...]]:
    fdr = next((row for row in rows if row.method.name == "fdr"), None)
    for row in sorted(distinct_rows(rows), key=rows.index):
        for metric, reported in published.figures(row.method).items():
            values = list((row.gaps(fdr) if metric == GAP else row.values(metric)).values())
            if not values:
                continue
            if metric == GAP:
                # The paper's gap has no sign; ours loses it seed by seed, so that seeds do not make up for each other.
                values = [abs(value) for value in values]
            mean = statistics.fmean(values)
            spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
            yield (
                published.source.partition("supplement, ")[2],
                markdown(row.problem.title),
                markdown(method_name(row)),
                NAMES[metric],
                f"{100 * reported:.2f}",
                f"{100 * mean:.2f}{spread}",
                f"{100 * (mean - reported):+.2f}",
                str(len(values)),
                "given weights" if row.problem.weights else f"{row.problem.training.get('epochs')} epochs",
            )


def _summary(found: Sequence[JudgedClaim]) -> str:
    said = {
        "holds": "hold",
        "does not hold": "do not hold",
        "undecided": "are undecided",
        "not run": "were not run",
    }
    words = ", ".join(f"{sum(one.verdict == verdict for one in found)} {plural}" for verdict, plural in said.items())
    own = [one for one in found if one.same == "the paper's"]
    return f"{len(found)} lines: {words}. On the paper's own data, network and schedule: {len(own)}."


def _claim(outcome: JudgedClaim) -> tuple[str, ...]:
    claim = outcome.claim
    verdict = outcome.verdict if outcome.verdict == "not run" else f"**{outcome.verdict}**"
    verdict += ", says little: it holds for weight deletion" if outcome.says_little else ""
    missing = "missing: " if outcome.verdict == "not run" else ""
    found, on = markdown(outcome.found), markdown(outcome.where) or "-"
    data = (outcome.same or "-") + (", under-trained" if outcome.under_trained else "")
    return f"{claim.text} (`{claim.id}`)", claim.where, verdict, f"{missing}{found}", on, data
