"""Tables of ranked rows as text cells, shared by the terminal and the markdown pages."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from unlearnbench.escape import one_line
from unlearnbench.results.judgement import FEWEST_SEEDS, MOST_FAE, MOST_FAE_SHARE, MOST_LOSS
from unlearnbench.results.ranking import CONTROL, ORDER_TEXTS, PAPER, WITHOUT_FDR, is_provisional
from unlearnbench.results.rows import Judgement, Row
from unlearnbench.terms import REFERENCES, SHORT

_BARE_BAR = re.compile(r"(?<!\\)\|")

HEADER = (
    "rank",
    "method",
    "kept",
    "forgot",
    "position",
    "FAe",
    "FPAe",
    "gap to FDR",
    "CAne",
    "image passes",
    "seconds",
    "seeds",
)

# In plain words: every table, page and export explains its columns with these.
LEGEND: tuple[tuple[str, str], ...] = (
    (
        "Original, FDR",
        "Original learned all classes. FDR (full data retraining) was trained from scratch without the forget classes: "
        "it is what perfect forgetting would give. Both are yardsticks and have no rank.",
    ),
    (
        "kept",
        "whether the accuracy on the classes that stay fell by at most "
        f"{100 * MOST_LOSS:g} points, measured among their outputs alone: *passed*, *failed*, or *undecided* where the "
        "95 % interval holds the limit. Who failed has no rank.",
    ),
    (
        "forgot",
        f"the same three words for the outputs: FAe of at most {100 * MOST_FAE:g} %, or {100 * MOST_FAE_SHARE:g} % of "
        "Original's. Who failed is ranked behind all others.",
    ),
    (
        "position",
        "how much the features still know of the forget classes: 0 is as retrained, 1 as Original, below 0 is damage. "
        "Three views read the features, the nearest class prototype (as FPAe), the 20 nearest neighbours and a linear "
        "probe; shown is the mean of the view whose |position| is the largest on average, and methods are ordered by "
        "the mean over seeds of the largest |position|.",
    ),
    (
        "closer to",
        "the relative verdict: on how many more of 100 forget images the nearest prototype is that of FDR rather than "
        "that of Original, with the 95 % interval over seeds and images. Below 0 a model is closer to Original, above "
        "0 to FDR; *undecided* where the interval holds 0, as it does for a second FDR.",
    ),
    (
        "rank",
        "the best and the worst rank that the data allow: a method is put before another only where 95 % intervals of "
        "all differences together say so. Rows whose options were searched for, with FDR (*oracle-tuned*) or without "
        "(*self-tuned*), are ranked among themselves.",
    ),
    ("control", "a method that only seems to forget. It shows what the other numbers are worth, and has no rank."),
    ("provisional", f"fewer than {FEWEST_SEEDS} seeds, or records from before a metric of the rule: no rank yet."),
    ("FAe", "share of the forget classes' test images that are still classified as their own class. It should fall."),
    (
        "FPAe",
        "share of these images whose nearest class prototype, in feature space, is still that of their own class. It "
        "should come near FDR's; below it is damage, not better forgetting.",
    ),
    ("gap to FDR", "FPAe minus FDR's with the same seed, in points."),
    ("CAne", "accuracy on the test images of the classes that stay. It should not fall."),
)


# These columns are empty, and these words are not used, where a manifest does without FDR.
OF_RANKING = ("kept", "forgot", "position", "closer to", "rank", "control", "provisional", "gap to FDR")


def legend(problems: Iterable[Sequence[Row]]) -> tuple[tuple[str, str], ...]:
    """Return the part of the legend that explains the tables of some problems."""
    if all(does_without_fdr(rows) for rows in problems):
        return tuple((term, text) for term, text in LEGEND if term not in OF_RANKING)
    return LEGEND


# What cannot be said of a problem whose manifest does without FDR.
NO_YARDSTICK = (
    "No rank and no gap: the manifest does without FDR, the model retrained without the forget classes. FAe says what "
    "the outputs still tell, and CAne what was kept; whether FPAe is as low as retraining would leave it, too high or, "
    "by damage, too low, cannot be concluded."
)


def does_without_fdr(rows: Iterable[Row]) -> bool:
    """Return whether the manifest of a problem does without FDR."""
    return all(record.fdr == "none" for row in rows for record in row.records)


def caption(rows: Sequence[Row], order: str = PAPER) -> str:
    """Return the caption of a table of rows that are ranked by an entry of `ORDERS`."""
    numbers = "Mean ± standard deviation over seeds, in percent."
    if does_without_fdr(rows):
        return f"{numbers} {NO_YARDSTICK}"
    if all(row.rank is None for row in rows):
        return numbers
    return f"{numbers} {ranking_text(order)}"


def ranking_text(order: str) -> str:
    """Return in words how rows are ranked and, by an entry of `ORDERS`, listed."""
    return (
        "A rank is the range that paired 95 % intervals allow, which hold for all pairs of methods at once; rows are "
        f"listed by {ORDER_TEXTS[order]}."
    )


def rank_text(row: Row) -> str:
    """Return a row's range of ranks, such as "1" or "2-4", or why it has none in a word."""
    if row.rank is not None:
        best, worst = row.rank
        return str(best) if best == worst else f"{best}-{worst}"
    return "control" if row.note == CONTROL else "provisional" if is_provisional(row) else ""


def position_text(row: Row) -> str:
    """Return the position of the view that is farthest from FDR, with the view's name."""
    found = row.judgement
    if found is None or found.position is None:
        return "-"
    return f"{found.position:+.2f} {found.farthest}"


def words(row: Row) -> tuple[str, str]:
    """Return whether a row kept the retain classes and whether its outputs forgot, as tables show it."""
    found = row.judgement
    return ("-", "-") if found is None else (found.keep or "-", found.forget or "-")


def features_text(row: Row) -> str:
    """Return in words where a row's features lie and to which reference they are closer; "" if nothing is known."""
    found = row.judgement
    if found is None:
        return ""
    return "; ".join(part for part in (found.said, closer_text(found)) if part)


def closer_text(found: Judgement) -> str:
    """Return the relative verdict with its value and interval in points, or "" if the records do not say."""
    if found.relative is None:
        return ""
    mean, low, high = (f"{100 * part:+.1f}" for part in found.relative)
    word = found.closer_to if found.closer_to == "undecided" else f"closer to {found.closer_to}"
    return f"{word} ({mean}, {low} to {high})"


def percent(mean: float | None, std: float | None) -> str:
    """Return a fraction as "12.34 ± 0.56" percent, or "-" if there is none."""
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")


def method_name(row: Row) -> str:
    """Return the name of a row as tables show it; an FDR that was not trained is marked, and weights from elsewhere."""
    given = " (given)" if row.method.name == "fdr" and row.records[0].fdr != "train" else ""
    if row.is_reference:
        return REFERENCES.get(row.label, row.label) + given
    return one_line(row.label) + ("" if row.run_here else " (not run here)")


def gap_to_fdr(row: Row, rows: Sequence[Row]) -> str:
    """Return the mean difference of FPAe to FDR's over common seeds, in points with a sign."""
    fdr = next((other for other in rows if other.is_reference and other.method.name == "fdr"), None)
    if fdr is None or row is fdr:
        return "-"
    gaps = row.gaps(fdr).values()
    return f"{100 * statistics.fmean(gaps):+.2f}" if gaps else "-"


def cells(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    """Return a row's cells in the order of `HEADER`."""
    metrics = [percent(row.mean(name), row.std(name)) for name in SHORT.values()]
    ran = row.done if row.run_here else ()
    reads = [sum(record.image_passes.values()) for record in ran]
    seconds = [sum(record.measured.seconds.get(key, 0.0) for key in ("train", "unlearn")) for record in ran]
    done, total = len(row.done), len(row.records)
    return (
        rank_text(row),
        method_name(row),
        *words(row),
        position_text(row),
        metrics[0],
        metrics[1],
        gap_to_fdr(row, rows),
        metrics[2],
        f"{statistics.fmean(reads):,.0f}" if reads else "-",
        f"{statistics.fmean(seconds):.2f}" if seconds else "-",
        str(done) if done == total else f"{done} of {total}",
    )


# A narrow terminal drops these columns, in this order.
DISPENSABLE = ("image passes", "seconds", "gap to FDR", "seeds", "FPAe", "forgot", "kept")


def show(table: Table, console: Console, dispensable: Sequence[str] = ()) -> None:
    """Print a table with the columns that the console has room for, and say which ones it has not.

    No number is cut: columns are left out until the others fit, and a table that is too wide even so is printed wider.

    Args:
        table: Table, changed in place. A column with numbers has `no_wrap`.
        console: Console to print on.
        dispensable: Headings of the columns that are left out, in this order; without them those on the right are, up
            to the second.
    """
    names = [str(column.header) for column in table.columns]
    order = [name for name in dispensable if name in names] or names[:1:-1]
    left_out: list[str] = []
    while _needed(table) > console.width and len(left_out) < len(order):
        left_out.append(order[len(left_out)])
        table.columns = [column for column in table.columns if column.header != left_out[-1]]
    if _needed(table) > console.width:
        table.width = _needed(table)
    console.print(table, crop=False)
    if left_out:
        what = ", ".join(left_out)
        console.print(
            f"Left out for lack of room: {what}. A wider terminal, a file or --json has them.", soft_wrap=True
        )


def _needed(table: Table) -> int:
    """Return the width that a table needs: that of the longest line or, where lines may wrap, of the longest word."""
    width = 1
    for column in table.columns:
        lines = [line for text in (column.header, *column.cells) for line in str(text).splitlines()]
        parts = lines if column.no_wrap else [word for line in lines for word in line.split()]
        # Each column has a space on both sides and a border.
        width += 3 + max((cell_len(part) for part in parts), default=0)
    return width


def terminal_table(rows: Sequence[Row], without: Sequence[str] = (), order: str = PAPER) -> Table:
    """Return one problem's table for a terminal, without some columns."""
    title, below = rows[0].problem.title, caption(rows, order)
    dropped = [name for name in DISPENSABLE if name in without]
    # What a table without FDR cannot have is explained by its caption.
    if dropped and not does_without_fdr(rows):
        below += f" Not shown for want of room: {', '.join(dropped)}."
    table = Table(title=title, caption=below, title_justify="left", caption_justify="left")
    shown = [number for number, name in enumerate(HEADER) if name not in without]
    for name in (HEADER[number] for number in shown):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for number, row in enumerate(rows):
        following = rows[number + 1] if number + 1 < len(rows) else None
        # A line separates references, ranked unlearners and those that did not keep the retain classes.
        ends = following is not None and (row.is_reference, row.rank is None) != (
            following.is_reference,
            following.rank is None,
        )
        texts = cells(row, rows)
        style = None if row.rank or row.is_reference else "dim"
        table.add_row(*(texts[number] for number in shown), end_section=ends, style=style)
    return table


def metric_table(rows: Sequence[Row], metrics: Sequence[str]) -> Table:
    """Return one problem's values of any metrics, with a line for each metric and row, in the metrics' own units."""
    table = Table(title=rows[0].problem.title, title_justify="left")
    for name in ("metric", "method", "mean", "std", "95 % interval", "seeds"):
        table.add_column(name, justify="left" if name in ("metric", "method") else "right", no_wrap=True)
    for metric in metrics:
        for row in rows:
            mean, std, interval = row.mean(metric), row.std(metric), row.interval(metric)
            table.add_row(
                metric,
                method_name(row),
                "-" if mean is None else f"{mean:.4f}",
                "-" if std is None else f"{std:.4f}",
                "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
                f"{len(row.values(metric))} of {len(row.records)}",
            )
        table.add_section()
    return table


def print_tables(problems: Sequence[Sequence[Row]], console: Console, order: str = PAPER) -> None:
    """Print the table of each problem, followed by cautions and the reasons why unlearners have no rank."""
    for rows in problems:
        # Without FDR these columns would be empty.
        absent = OF_RANKING if does_without_fdr(rows) else ()
        show(terminal_table(rows, absent, order), console, DISPENSABLE)
        for line in cautions(rows):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        for row in rows:
            # The caption explains what is true of all.
            lines = [row.note] if row.note and row.note not in (WITHOUT_FDR, CONTROL) else []
            lines += [f"features {text}"] if (text := features_text(row)) else []
            for line in lines:
                console.print(f"{method_name(row)}: {line}", markup=False, highlight=False, soft_wrap=True)
    if problems:
        console.print("\n".join(f"{term}: {text.replace('*', '')}" for term, text in legend(problems)), soft_wrap=True)


# A classifier below this share of its own prototypes' accuracy does not use what its features hold.
SUSPICIOUS = 0.5


def cautions(rows: Sequence[Row]) -> list[str]:
    """Return what a reader of a problem's table has to know, one line each.

    That is what makes the references doubtful yardsticks, how far they are from the published network, and where
    methods that distil do so in different ways.
    """
    found = []
    chance = 1 / rows[0].problem.num_classes
    original, fdr = (
        next((row for row in rows if row.is_reference and row.method.name == name), None) for name in REFERENCES
    )
    known = fdr.mean(SHORT["FAe"]) if fdr else None
    if known is not None and known > chance:
        found.append(
            f"Caution: FDR recognises {points(known)} % of the forget images, where chance is {points(chance)} %: what "
            "its training started from knows the forget classes, so that it is no yardstick of forgetting."
        )
    right, near = (original.mean(name) if original else None for name in (SHORT["CAne"], "retain_prototype_accuracy"))
    if right is not None and near is not None and near > 2 * chance and right < SUSPICIOUS * near:
        found.append(
            f"Caution: Original's CAne is {points(right)} %, while {points(near)} % of the same images lie nearest to "
            "the prototype of their class: its outputs may stand in another order than the data's classes "
            "(`class_order` in [architecture] gives it), or the images were normalised in another way (`mean`, `std` "
            "in [training])."
        )
    elif right is not None and right <= chance:
        found.append(
            f"Caution: Original's CAne is {points(right)} %, where chance is {points(chance)} %: there is nothing to "
            "forget. Were its images normalised in another way (`mean`, `std` in [training])?"
        )
    return [*found, *_distance_to_published(original), *_mixed_reductions(rows)]


def _mixed_reductions(rows: Sequence[Row]) -> list[str]:
    """Return which methods average the distillation loss in which way, unless all do so in the same."""
    by_reduction: dict[str, list[str]] = {}
    for row in rows:
        if "reduction" in row.method.options and row.method.options.get("beta") != 0:
            by_reduction.setdefault(str(row.method.options["reduction"]), []).append(row.label)
    if len(by_reduction) < 2:
        return []
    groups = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in sorted(by_reduction.items()))
    return [
        f"The methods do not all average the distillation loss in one way ({groups}). Of {rows[0].problem.num_classes} "
        "classes `element_mean` makes it smaller by about their number than `batch_mean`, at the same beta."
    ]


def _distance_to_published(original: Row | None) -> list[str]:
    """Return how far the originals are from the published accuracy of their network, where there is one."""
    beside = [record.beside_published for record in original.done] if original else []
    known = [one for one in beside if one is not None]
    if not known:
        return []
    accuracy, published = statistics.fmean(one.accuracy for one in known), known[0].published
    text = (
        f"Original's accuracy on all classes is {points(accuracy)} %, {points(abs(published - accuracy))} points "
        f"{'below' if accuracy < published else 'above'} the {points(published)} % with which {known[0].source} "
        "publishes this network."
    )
    if not any(one.under_trained for one in known):
        return [text]
    return [
        f"Caution: under-trained. {text} With originals that were not trained to their end, other methods can be found "
        "to work than with converged ones."
    ]


def markdown_line(texts: Sequence[str]) -> str:
    """Return one line of a markdown table; its cells are markdown, in which text from outside is escaped already."""
    escaped = [_BARE_BAR.sub(r"\|", one_line(text)) for text in texts]
    return f"| {' | '.join(escaped)} |"


def points(value: float | None, *, sign: bool = False) -> str:
    """Return a fraction as percent or points with two digits, or "-" if there is none."""
    return "-" if value is None else f"{100 * value:{'+' if sign else ''}.2f}"
