"""Tables for other programs. Each format is a function from a leaderboard to files, and `WRITERS` names them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unlearnbench.errors import StoreError, os_reason
from unlearnbench.paths import below
from unlearnbench.registry.component import label_slug
from unlearnbench.results.leaderboard.view import Board, Line, ProblemBoard
from unlearnbench.results.records.record import Record
from unlearnbench.results.rows import Judgement
from unlearnbench.results.tables import LEGEND, points, position_text, words
from unlearnbench.terms import SHORT, VIEWS

# The content of each file is a text, or bytes if the file is not a text, by file name.
Files = Mapping[str, str | bytes]
# What of a judgement fits one cell.
SIMPLE = ("keep", "forget", "provisional", "position", "distance", "said", "closer_to")
HUB_DATASET = "unlearnbench/unlearnbench"


def export(board: Board, form: str) -> Files:
    """Return the files of a format, one of `WRITERS`."""
    return WRITERS[form](board)


def write_files(files: Files, folder: Path) -> list[Path]:
    """Write files below a folder and return their paths.

    Raises:
        StoreError: If a file cannot be written.
    """
    try:
        for name, text in files.items():
            path = below(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {os_reason(error)}") from error
    return [folder / name for name in files]


def _facts(problem: ProblemBoard, line: Line) -> dict[str, Any]:
    """Return what CSV and JSON hold about a row besides its metrics."""
    row = line.row
    return {
        "problem": problem.problem.slug,
        "dataset": problem.problem.dataset,
        "architecture": problem.problem.architecture,
        "method": row.label,
        "role": row.role,
        "distribution": row.method.distribution,
        "distribution_version": row.method.distribution_version,
        "version": row.method.version,
        "rank": None if row.rank is None else list(row.rank),
        "division": row.division,
        **{key: value for key, value in (row.judgement or Judgement()).as_json().items() if key in SIMPLE},
        **{f"position_{view}": (row.judgement or Judgement()).positions.get(view) for view in VIEWS},
        "pareto": row.pareto,
        "note": row.note,
        "seeds": [record.seed for record in row.records],
        "failed_seeds": [record.seed for record in row.records if record.status != "done"],
        "gap_to_fdr": line.gap,
        "image_passes": line.image_passes,
    }


def _metrics(board: Board) -> list[str]:
    """Return the labels of all metrics, with those that rank first."""
    every = {
        label for problem in board.problems for line in problem.lines for r in line.row.records for label in r.metrics
    }
    return [*SHORT.values(), *sorted(every - set(SHORT.values()))]


def write_csv(board: Board) -> Files:
    """Return one CSV table with a line for each problem and unlearner; values are fractions, missing ones are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = _metrics(board)
    columns = [f"{metric} {part}" for metric in metrics for part in ("mean", "std", "low", "high")]
    header: list[str] = []
    for problem in board.problems:
        for line in problem.lines:
            facts = _facts(problem, line)
            if not header:
                header = [*facts, *columns]
                writer.writerow(header)
            cells = [" ".join(map(str, value)) if isinstance(value, list) else value for value in facts.values()]
            for metric in metrics:
                interval = line.row.interval(metric) or (None, None)
                cells += [line.row.mean(metric), line.row.std(metric), *interval]
            writer.writerow(["" if cell is None else cell for cell in cells])
    return {"leaderboard.csv": text.getvalue()}


def write_json(board: Board) -> Files:
    """Return one JSON list with an object for each problem and unlearner, which holds the values of every seed."""
    rows = [
        {
            **_facts(problem, line),
            "options": line.row.method.options,
            "reported": dict(line.reported),
            "metrics": {
                metric: {
                    "mean": line.row.mean(metric),
                    "std": line.row.std(metric),
                    "interval": line.row.interval(metric),
                    "values": line.row.values(metric),
                }
                for metric in _metrics(board)
                if line.row.values(metric)
            },
        }
        for problem in board.problems
        for line in problem.lines
    ]
    return {"leaderboard.json": json.dumps(rows, indent=1) + "\n"}


LATEX_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "|": r"\textbar{}",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def write_latex(board: Board) -> Files:
    """Return one file with a table for each problem, and what the columns mean; it needs the LaTeX package booktabs."""
    tables = [_latex_table(problem) for problem in board.problems]
    items = [rf"\item[{_latex(term)}] {_latex(text.replace('*', ''))}" for term, text in LEGEND]
    meanings = "\n".join([r"\begin{description}", *items, r"\end{description}", ""])
    return {"leaderboard.tex": "\n".join([*tables, meanings])}


def _latex_table(problem: ProblemBoard) -> str:
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(problem.problem.title)}. Mean $\pm$ standard deviation over seeds in percent; methods "
        r"below the last rule have no rank. Position, of the view that is farthest: 0 is as retrained, 1 as the "
        r"original.}",
        r"\begin{tabular}{rlllrrrrr}",
        r"\toprule",
        r"rank & method & kept & forgot & position & FA$_e$ & FPA$_e$ & gap & CA$_{ne}$ \\",
    ]
    for kind in ("reference", "ranked", "below"):
        shown = problem.of_kind(kind)
        lines += [r"\midrule"] if shown else []
        lines += [_latex_line(line) for line in shown]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_line(line: Line) -> str:
    values = []
    for metric in SHORT.values():
        mean, std = line.row.mean(metric), line.row.std(metric)
        spread = "" if std is None else rf" $\pm$ {points(std)}"
        values.append("--" if mean is None else f"{points(mean)}{spread}")
    gap = "--" if line.gap is None else f"${points(line.gap, sign=True)}$"
    judged = [*words(line.row), position_text(line.row)]
    return " & ".join([line.place, _latex(line.name), *judged, *values[:2], gap, values[2]]) + r" \\"


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def write_hub(board: Board) -> Files:
    """Return the Hub's `.eval_results` files, one for each problem and unlearner with a result; values are percent.

    Source: https://huggingface.co/docs/hub/eval-results
    """
    return {
        f".eval_results/{problem.problem.slug}-{label_slug(line.row.label)}.yaml": _hub_entries(problem, line)
        for problem in board.problems
        for line in problem.lines
        if line.row.done
    }


def _hub_entries(problem: ProblemBoard, line: Line) -> str:
    done = line.row.done
    entries = []
    for short, metric in SHORT.items():
        mean, std = line.row.mean(metric), line.row.std(metric)
        if mean is None:
            continue
        spread = "" if std is None else f", standard deviation {points(std)}"
        note = f"{line.name} on {problem.problem.title}: {short}, mean of {len(done)} seeds{spread}"
        # Every JSON string is a YAML string too.
        entries += [
            "- dataset:",
            f"    id: {HUB_DATASET}",
            f"    task_id: {json.dumps(f'{problem.problem.slug}/{metric}')}",
            f"    revision: {json.dumps(problem.problem.dataset_revision)}",
            f"  value: {100 * mean:.4f}",
            f"  date: {json.dumps(max(record.measured.finished_at for record in done)[:10])}",
            f"  notes: {json.dumps(note)}",
        ]
    return "\n".join(entries) + "\n"


def inspect_records(board: Board) -> list[Record]:
    """Return the records for logs, in the order of their samples, with a cell once for each manifest that has it."""
    found = {}
    # If a record is there twice, the later one counts, as in tables.
    for record in sorted(board.records, key=lambda record: (record.measured.finished_at, record.hash)):
        found[record.manifest_name, record.problem.id, record.method.id, record.seed] = record
    return sorted(found.values(), key=lambda record: (record.problem.slug, record.seed))


WRITERS: dict[str, Callable[[Board], Files]] = {
    "csv": write_csv,
    "json": write_json,
    "latex": write_latex,
    "hf": write_hub,
}
