"""The leaderboard's markdown pages, in the form that GitHub shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unlearnbench.escape import markdown, markdown_link
from unlearnbench.results.audit.attestation import AGREEMENT, SELF_REPORTED
from unlearnbench.results.leaderboard.reported import TITLE as REPORTED
from unlearnbench.results.leaderboard.reported import reported_sections
from unlearnbench.results.leaderboard.view import Board, Line, ProblemBoard, count, factor, options_text
from unlearnbench.results.records.files import COLLECTION
from unlearnbench.results.records.record import ProblemRecord
from unlearnbench.results.rows import computed_on
from unlearnbench.results.summaries.in_short import TITLE as HURRY
from unlearnbench.results.summaries.in_short import in_short
from unlearnbench.results.summaries.profile import FEWEST_PROBLEMS, Overall
from unlearnbench.results.tables import (
    LEGEND,
    cautions,
    features_text,
    markdown_line,
    percent,
    points,
    position_text,
    rank_text,
    ranking_text,
    words,
)
from unlearnbench.terms import SHORT

GENERATED = "Generated from run records by `unlearnbench leaderboard build`; do not edit by hand."

COLUMNS = "\n".join(
    [
        *(f"- **{term}**: {text}" for term, text in LEGEND),
        "- **◆** marks the Pareto set of FAe, |gap to FDR| and CAne among the ranked methods, by means.",
        "- **image passes** are the training images that a method took through the network, each as often as it did, "
        "per seed; **speed-up** is FDR's count divided by the method's. In brackets: the ratio of seconds as measured "
        "on the machine of the records.",
        "- **seeds** are those of the records, with a word where a cell gave no result.",
        "- **self-reported** rows are what the one who ran them says; **verified** ones somebody has run again, with "
        f"means of FAe, FPAe and CAne within {100 * AGREEMENT:g} points.",
    ]
)


TRUST = f"""\
`unlearnbench leaderboard check` computes every metric of features again from the files of these that it is given, \
and refuses records that were edited, whose problem, options or seeds are not those of their manifest, or whose \
features are missing or another cell's; rows that lack seeds; and pages that the records do not give. It cannot find \
out how the networks were made whose features were handed in: on which images, in how many passes and seconds, with \
which budget for the options and which libraries. A row is therefore *{SELF_REPORTED}* until somebody has run \
`unlearnbench reproduce`; the page of its problem then says who *verified* it, and where."""


CARD = (
    "Images are counted each time they are read, per seed; a task holds no test image to read. Networks are those that "
    "computed something: the given one, teachers, fresh ones. *Searched*: the budget that `unlearnbench tune` had for "
    "the options, on other seeds and held-out training images; - where a person chose them."
)


def pages_of(board: Board) -> dict[str, list[ProblemBoard]]:
    """Return the problems of each page, which are those of one network on one data set, by the page's file name."""
    pages: dict[str, list[ProblemBoard]] = {}
    for problem in board.problems:
        pages.setdefault(page_name(problem), []).append(problem)
    return pages


def page_name(board: ProblemBoard) -> str:
    """Return the file name of the page that holds a problem."""
    return f"{board.problem.network_slug}.md"


def network_page(problems: Sequence[ProblemBoard], order: str) -> str:
    """Return the page of the problems of one network on one data set."""
    first = problems[0].problem
    contents = "\n".join(f"- {markdown_link(board.problem.title, f'#{board.problem.slug}')}" for board in problems)
    parts = [
        f"# {markdown(f'{first.source} / {first.architecture}')}",
        GENERATED,
        *([contents] if len(problems) > 1 else []),
        *(part for board in problems for part in _problem(board, order)),
        "## Columns",
        COLUMNS,
        "[All problems](README.md)",
    ]
    return "\n\n".join(parts) + "\n"


def _problem(board: ProblemBoard, order: str) -> list[str]:
    lost = board.of_kind("below")
    records = f"records/{board.problem.slug}{COLLECTION}"
    return [
        # The title may be another problem's too, so that links need an anchor of their own.
        f'<a id="{board.problem.slug}"></a>',
        f"## {markdown(board.problem.title)}",
        problem_table(board),
        f"{_caption(order)} Records: {markdown_link(records, records)}.",
        *_reported_source(board),
        *(
            ["### Without a rank", "\n".join(f"- {markdown(line.name)}: {markdown(line.row.note)}" for line in lost)]
            if lost
            else []
        ),
        *_features(board),
        "### Problem",
        _problem_facts(board),
        "### Methods",
        _methods(board),
        "### Verified",
        _verified(board),
    ]


def _features(board: ProblemBoard) -> list[str]:
    """Return where the features of each method lie, in words."""
    found = [(line.name, features_text(line.row)) for line in board.lines]
    lines = "\n".join(f"- {markdown(name)}: {text}" for name, text in found if text)
    return ["### Where the features lie", lines] if lines else []


def _caption(order: str) -> str:
    return f"Mean ± standard deviation over seeds, in percent. {ranking_text(order)}"


def problem_table(board: ProblemBoard) -> str:
    """Return the table of a problem, with a paper's numbers in columns of their own."""
    header, rules = ["rank", "method", "kept", "forgot", "position"], ["---:", "---", "---", "---", "---:"]
    for short in SHORT:
        header += [f"{short} *measured*", f"{short} *reported*"] if board.published else [short]
        rules += ["---:", "---:"] if board.published else ["---:"]
        if short == "FPAe":
            header.append("gap to FDR")
            rules.append("---:")
    header += ["speed-up", "image passes", "seeds", "manifest"]
    rules += ["---:", "---:", "---", "---"]
    lines = [markdown_line(header), markdown_line(rules)]
    for kind, heading in (("reference", ""), ("ranked", ""), ("below", "**without a rank**")):
        shown = board.of_kind(kind)
        if shown and heading:
            lines.append(markdown_line(["", heading, *[""] * (len(header) - 2)]))
        lines += [markdown_line(_cells(line, board.published is not None)) for line in shown]
    return "\n".join(lines)


def _cells(line: Line, published: bool) -> list[str]:
    row = line.row
    made = markdown(f"{row.method.distribution} {row.method.distribution_version}")
    # Rows of one division are ranked among themselves.
    division = "" if row.division == "default" else f", {row.division}"
    origin = f"{made}{division}, {'verified' if line.verified else SELF_REPORTED}"
    name = f"{'◆ ' if row.pareto else ''}**{markdown(line.name)}**<br>{origin}"
    cells = [line.place, name, *words(row), position_text(row)]
    for short, metric in SHORT.items():
        cells.append(percent(row.mean(metric), row.std(metric)))
        if published:
            cells.append(points(line.reported.get(metric)))
        if short == "FPAe":
            cells.append(points(line.gap, sign=True))
    return [
        *cells,
        _speed_up(line),
        count(line.image_passes),
        _seeds(line),
        markdown(", ".join(line.manifests)),
    ]


def _speed_up(line: Line) -> str:
    seconds = f" ({factor(line.speed_up_seconds)})" if line.speed_up_seconds is not None else ""
    return f"{factor(line.speed_up)}{seconds}"


def _seeds(line: Line) -> str:
    shown = []
    for link in line.links:
        text = str(link.seed) if link.status == "done" else f"{link.seed} {link.status.replace('_', ' ')}"
        shown.append(markdown_link(text, link.target) if link.target else markdown(text))
    return " ".join(shown)


def _reported_source(board: ProblemBoard) -> list[str]:
    if board.published is None:
        return []
    found = board.published
    return [
        f"*Reported*: the paper's own figures, means of {found.runs} runs: {found.source} ({found.url}). They are not "
        "ranked; *measured* is what the records here say."
    ]


def _problem_facts(board: ProblemBoard) -> str:
    problem = board.problem
    training = {key: value for key, value in problem.training.items() if value not in (None, [])}
    facts = (
        ("Forget classes", markdown(", ".join(problem.forget_class_names))),
        ("Limited data", f"{markdown(_limited(problem))}; {board.limited_images} images in all"),
        *([("Federation", markdown(options_text(problem.federation)))] if problem.federation else []),
        ("Images", f"{problem.train_images:,} for training, {problem.test_images:,} for testing"),
        ("Data set revision", markdown(problem.dataset_revision)),
        ("Training of the references", markdown(options_text(training))),
        ("Computed on", markdown(computed_on(record for row in board.rows for record in row.done) or "nothing")),
        *(("To note", markdown(line)) for line in cautions(board.rows)),
    )
    return "\n".join(f"- {key}: {value}" for key, value in facts)


def _limited(problem: ProblemRecord) -> str:
    by_party = (problem.federation or {}).get("party") is not None
    return f"the share of {problem.limited}" if by_party else f"{problem.limited} of each class"


def _verified(board: ProblemBoard) -> str:
    """Return who ran which rows again, and what the others rest on."""
    known = [f"- {markdown(line.name)}: {markdown(line.standing)}" for line in board.lines if line.verified]
    return "\n".join(known) or "None of these rows: each is what the one who ran it reports."


def _methods(board: ProblemBoard) -> str:
    shown = [line for line in board.lines if line.kind != "reference"]
    if not shown:
        return "none"
    card = list(shown[0].data_card)
    lines = [
        markdown_line(["method", "from", *card, "searched", "computed on", "options"]),
        markdown_line(["---", "---", *["---:"] * len(card), "---", "---", "---"]),
    ]
    for line in shown:
        made = f"{line.row.method.distribution} {line.row.method.distribution_version}"
        numbers = map(count, line.data_card.values())
        texts = [
            line.name,
            made,
            *numbers,
            line.search,
            computed_on(line.row.records),
            options_text(line.row.method.options),
        ]
        lines.append(markdown_line([markdown(text) for text in texts]))
    return "\n".join([*lines, "", CARD])


def overview_page(board: Board, others: Mapping[str, str]) -> str:
    """Return the page that ranks unlearners over all problems and lists these problems.

    Args:
        board: Leaderboard to show.
        others: Titles of hand-written pages beside it, by file name.
    """
    links = ", ".join(markdown_link(title, name) for name, title in others.items())
    parts = [
        "# Leaderboard",
        f"{GENERATED} [`index.html`](index.html) is the same with plots, to be opened in a browser.",
        f"In short: {markdown_link(HURRY, 'SUMMARY.md')}.",
        *([f"Written by hand: {links}."] if links else []),
        f"Numbers of others, not ranked: {markdown_link(REPORTED, 'REPORTED.md')}.",
        "## Methods over all problems",
        _overall_table(board),
        "The score is the area of a performance profile: the share of problems on which a method kept the retain "
        "classes, its outputs forgot, and its largest |position| is at most t, for t from 0 to 1; with its 95 % "
        f"interval by a bootstrap over problems. It takes {FEWEST_PROBLEMS} problems. The numbered columns hold the "
        "ranks. Methods that were not run on every problem stand below those that were.",
        *_unranked(board),
        "## How far to trust these rows",
        TRUST,
        "## Columns",
        COLUMNS,
    ]
    return "\n\n".join(parts) + "\n"


def hurry_page(board: Board) -> str:
    """Return the page that says in short what the records show."""
    places = {problem.problem.slug: _place(problem) for problem in board.problems}
    parts = in_short([problem.rows for problem in board.problems], places)
    return "\n\n".join([f"# {HURRY}", GENERATED, *parts, "[All problems](README.md)"]) + "\n"


def reported_page(board: Board) -> str:
    """Return the page of what papers report."""
    return "\n\n".join([f"# {REPORTED}", GENERATED, *reported_sections(board), "[All problems](README.md)"]) + "\n"


def _unranked(board: Board) -> list[str]:
    """Return what says which records lie beside those of the tables."""
    if not board.unranked:
        return []
    names = ", ".join(f"`{name}`" for name in board.unranked)
    return [
        "## Not ranked",
        f"The files of records also hold the runs of experiments, which are not ranked: {names}. "
        "`unlearnbench report` shows all of them.",
    ]


def _overall_table(board: Board) -> str:
    titles = [f"[{number}]({_place(problem)})" for number, problem in enumerate(board.problems, 1)]
    header = ["method", "score", "95 % interval", "passed on", *titles]
    lines = [markdown_line(header), markdown_line(["---", *["---:"] * (len(header) - 1)])]
    lines += [markdown_line(_overall_cells(method, board)) for method in board.overall]
    numbered = (f"{number}. {_summary(problem)}" for number, problem in enumerate(board.problems, 1))
    return "\n".join([*lines, "", *numbered])


def _place(board: ProblemBoard) -> str:
    return f"{page_name(board)}#{board.problem.slug}"


def _overall_cells(method: Overall, board: Board) -> Sequence[str]:
    return (
        markdown(method.label),
        score_text(method),
        interval_text(method.interval),
        f"{method.passed_on} of {len(method.rows)}",
        *(place_text(method, problem) for problem in board.problems),
    )


def score_text(method: Overall) -> str:
    """Return an unlearner's score, or "-" if there are too few problems."""
    return "-" if method.score is None else f"{method.score:.2f}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """Return the interval of a score, or "-" if there is none."""
    return "-" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def place_text(method: Overall, problem: ProblemBoard) -> str:
    """Return an unlearner's rank on a problem, in a word why it has none, or "-" if it was not run there."""
    row = method.rows.get(problem.problem.slug)
    return "-" if row is None else rank_text(row) or "none"


def _summary(board: ProblemBoard) -> str:
    """Return a problem's link, and how many methods were run on it with how many seeds."""
    ran = [line for line in board.lines if line.kind != "reference"]
    seeds = sorted({len(line.row.records) for line in ran})
    numbers = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0] if seeds else 0)
    return f"{markdown_link(board.problem.title, _place(board))}: {len(ran)} methods, {numbers} seeds each"
