"""The report of a run: tables as markdown, figures as PNG and SVG, and the numbers of each as CSV."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.errors import StoreError, os_reason
from unlearnbench.escape import markdown, url
from unlearnbench.paths import below, refuse_foreign
from unlearnbench.results.experiments import Experiment
from unlearnbench.results.figures import (
    feature_map,
    federation,
    performance_profile,
    prototype_bars,
    recovery_curves,
    stage_map,
    trade_off,
)
from unlearnbench.results.figures.drawing import Draw, Drawing, FigureData, NotDrawnError, csv_text, save
from unlearnbench.results.figures.paper import attention_maps, epochs, matrix, relevance_curves, relevant_share
from unlearnbench.results.figures.style import styled
from unlearnbench.results.figures.trade_off import one_for_each_network
from unlearnbench.results.records.files import is_collection
from unlearnbench.results.records.load import Say, load_entries, unheard
from unlearnbench.results.report.paper_page import paper_page
from unlearnbench.results.rows import Row, computed_on
from unlearnbench.results.tables import (
    HEADER,
    caption,
    cautions,
    cells,
    gap_to_fdr,
    legend,
    markdown_line,
    method_name,
    percent,
)
from unlearnbench.terms import SHORT

FIGURES: tuple[Draw, ...] = (
    trade_off.drawings,
    prototype_bars.drawings,
    stage_map.drawings,
    performance_profile.drawings,
    matrix.drawings,
    epochs.drawings,
    relevance_curves.drawings,
    relevant_share.drawings,
    recovery_curves.drawings,
    federation.drawings,
    attention_maps.drawings,
    feature_map.drawings,
)

PAGE = "README.md"
PAPER_PAGE = "paper.md"
FIGURE_FOLDER = "figures"
TABLE_FOLDER = "tables"
GENERATED = "Generated from run records by `unlearnbench report`; do not edit by hand."


@dataclass(frozen=True)
class Written:
    """The outcome of writing a report.

    Attributes:
        paths: Files in the order of writing.
        not_drawn: Reasons why figures are missing.
    """

    paths: tuple[Path, ...]
    not_drawn: tuple[str, ...]


def write_report(
    source: Path,
    folder: Path,
    *,
    paper: bool = False,
    brief: bool = False,
    figures: Sequence[Draw] = FIGURES,
    say: Say = unheard,
) -> Written:
    """Write the report of a run.

    Args:
        source: Output folder of the run, a leaderboard, or a folder of records.
        folder: Folder to write the report to.
        paper: Whether to put the paper's numbers and claims beside ours.
        brief: Whether to leave out what stands elsewhere or what a command can write again from the records: tables of
            the problems that a leaderboard ranks, all CSV and SVG files, and all pictures but one for each network.
        figures: Figures to draw, unless the report is brief.
        say: Callback as in `load_entries`.

    Raises:
        InvalidFileError: If the records cannot be used.
        StoreError: If the folder cannot be written.
    """
    refuse_foreign(
        folder, (PAGE, PAPER_PAGE) if paper else (PAGE,), ("Generated from run records by `unlearnbench report",)
    )
    entries = load_entries([source], say, unranked=True)
    material = FigureData(tuple(entry.record for entry in entries), source)
    board = {entry.record.manifest_name for entry in entries if entry.ranked and is_collection(entry.path)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tables = [] if brief else _write_tables(material.experiments, folder)
        drawn = (one_for_each_network,) if brief else figures
        pictures, shown, not_drawn = _draw_all(material, folder, drawn, brief)
        texts = {PAGE: _page(material, shown, not_drawn, paper, board if brief else None)}
        if paper:
            texts[PAPER_PAGE] = paper_page(material.records)
        for name, text in texts.items():
            below(folder, name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {os_reason(error)}") from error
    return Written((*(folder / name for name in texts), *tables, *pictures), not_drawn)


def _draw_all(
    source: FigureData, folder: Path, figures: Sequence[Draw], brief: bool
) -> tuple[list[Path], list[str], tuple[str, ...]]:
    """Write all figures and return their files, their entries on the page, and why some are missing."""
    paths, entries, missing = [], [], []
    with styled():
        for draw in figures:
            try:
                for drawing in draw(source):
                    paths += save(drawing, folder / FIGURE_FOLDER, brief=brief)
                    entries.append(_entry(drawing, brief))
            # The details of a metric have no schema, and those of a record from elsewhere can be anything.
            except (NotDrawnError, LookupError, TypeError, AttributeError) as error:
                name = draw.__module__.rpartition(".")[2].replace("_", " ")
                known = isinstance(error, NotDrawnError)
                reason = (
                    str(error) if known else f"what a record holds cannot be read ({type(error).__name__}: {error})"
                )
                missing.append(f"{name}: not drawn: {reason}")
    return paths, entries, tuple(missing)


def _entry(drawing: Drawing, brief: bool) -> str:
    place = f"{FIGURE_FOLDER}/{drawing.name}"
    if brief:
        return f"![{drawing.name}]({url(place)}.png)\n\n{markdown(drawing.title)}"
    links = f"[SVG]({url(place)}.svg), [CSV]({url(place)}.csv)"
    return f"![{drawing.name}]({url(place)}.png)\n\n{markdown(drawing.title)} {links}"


def _write_tables(experiments: Sequence[Experiment], folder: Path) -> list[Path]:
    """Write the numbers of each experiment's tables as CSV."""
    paths = []
    for experiment in experiments:
        paths.append(below(folder, f"{TABLE_FOLDER}/{experiment.name}.csv"))
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_text(csv_text([_numbers(experiment, row) for row in experiment.rows]), encoding="utf-8")
    return paths


def _numbers(experiment: Experiment, row: Row) -> dict[str, Any]:
    """Return a row's numbers as fractions; missing ones are None."""
    found: dict[str, Any] = {
        "problem": row.problem.slug,
        "method": row.label,
        "role": row.method.role,
        "rank": row.rank,
    }
    found |= {"forget classes": len(row.problem.forget_classes), "limited data": row.problem.limited}
    found |= {key: value for key, value in experiment.settings(row).items() if key not in found}
    found |= {"seeds": len(row.done)}
    for metric in SHORT.values():
        low, high = row.interval(metric) or (None, None)
        values = {"mean": row.mean(metric), "std": row.std(metric), "low": low, "high": high}
        found |= {f"{metric} {name}": value for name, value in values.items()}
    return found


def _page(
    source: FigureData, entries: Sequence[str], not_drawn: Sequence[str], paper: bool, elsewhere: Collection[str] | None
) -> str:
    """Return the page of a report, of a brief one without the tables that stand elsewhere, by names of manifests."""
    parts = ["# Report", GENERATED]
    if paper:
        parts.append(f"[The paper's numbers and claims beside ours]({PAPER_PAGE})")
    shown = [one for one in source.experiments if one.name not in (elsewhere or ())]
    left = sorted({one.name for one in source.experiments} - {one.name for one in shown})
    if left:
        parts.append(f"On the leaderboard's own pages, and not here: {', '.join(f'`{name}`' for name in left)}.")
    for experiment in shown:
        parts += [f"## {experiment.name}", *filter(None, [markdown(experiment.manifest.get("description") or "")])]
        parts += _tables(experiment)
        if elsewhere is None:
            parts.append(f"[CSV]({TABLE_FOLDER}/{experiment.name}.csv)")
    meanings = legend([rows for experiment in shown for rows in experiment.problems])
    parts += ["## What the columns say", "\n".join(f"- **{term}**: {text}" for term, text in meanings)]
    parts += ["## Figures", *entries] if entries else []
    parts += ["## Not drawn", "\n".join(f"- {markdown(line)}" for line in not_drawn)] if not_drawn else []
    return "\n\n".join(parts) + "\n"


def _tables(experiment: Experiment) -> Iterator[str]:
    """Yield an experiment's tables with their captions, followed by the reasons why unlearners have no rank."""
    if experiment.has_matrix:
        yield _matrix_table(experiment)
        yield "Mean ± standard deviation over seeds, in percent; the gap is FPAe less FDR's, seed by seed, in points."
    else:
        for rows in experiment.problems:
            yield f"### {markdown(rows[0].problem.title)}"
            yield _table(HEADER, [cells(row, rows) for row in rows])
            yield caption(rows)
            yield from map(markdown, cautions(rows))
    yield _computed_on(experiment)
    notes = [
        f"- {row.problem.slug}, {markdown(method_name(row))}: {markdown(row.note)}"
        for row in experiment.rows
        if row.note
    ]
    if notes:
        yield "\n".join(notes)


def _computed_on(experiment: Experiment) -> str:
    """Return the devices and precisions that the rows were computed with, row by row if these differ."""
    places: dict[str, list[str]] = {}
    for row in experiment.rows:
        problem = f"{row.problem.slug}, " if len(experiment.problems) > 1 else ""
        places.setdefault(computed_on(row.records), []).append(problem + method_name(row))
    if len(places) == 1:
        return f"Computed on {markdown(next(iter(places)))}."
    return "\n".join(
        ["Computed on", "", *(f"- {markdown(place)}: {markdown('; '.join(names))}" for place, names in places.items())]
    )


def _matrix_table(experiment: Experiment) -> str:
    varied = [*experiment.varied_problem, *experiment.varied_options]
    header = ("method", *varied, *SHORT, "gap to FDR", "seeds")
    lines = []
    for rows in experiment.problems:
        for row in sorted(rows, key=experiment.order):
            settings = experiment.settings(row)
            metrics = [percent(row.mean(metric), row.std(metric)) for metric in SHORT.values()]
            shown = ["" if settings[key] is None else str(settings[key]) for key in varied]
            seeds = (
                f"{len(row.done)}" if len(row.done) == len(row.records) else f"{len(row.done)} of {len(row.records)}"
            )
            lines.append((method_name(row), *shown, *metrics, gap_to_fdr(row, rows), seeds))
    return _table(header, lines)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rules = ["---" if name == "method" else "---:" for name in header]
    escaped = [[markdown(text) for text in line] for line in (header, *lines)]
    return "\n".join(map(markdown_line, [escaped[0], rules, *escaped[1:]]))
