"""The command line's publishing part. As in `cli`, imports stand inside functions, so that it starts fast."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

leaderboard_app = typer.Typer(help="Build and check pages to publish.", no_args_is_help=True)


class RankOrder(StrEnum):
    """What `--rank-by` offers; the keys of `ranking.ORDERS`, which takes numpy to import."""

    paper = "paper"
    prototype_gap = "prototype-gap"
    retain_accuracy = "retain-accuracy"
    images_read = "images-read"


RankBy = Annotated[
    RankOrder,
    typer.Option(help="paper: FAe, then |FPAe - FDR's|; the gate on CAne holds for all."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def add_board_commands(app: typer.Typer) -> None:
    """Add the commands that are not below `leaderboard`."""


def _messages() -> Console:
    return Console(stderr=True)


@leaderboard_app.command("build")
def leaderboard_build(
    records: Annotated[
        list[Path],
        typer.Argument(help="Output folders of runs, leaderboards, submissions, folders of records.", metavar="DIR..."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pages.")] = Path("leaderboard"),
    rank_by: RankBy = RankOrder.paper,
) -> None:
    """Write the leaderboard from the records in DIR: README.md, index.html, a page for each problem, the records."""
    from unlearnbench.leaderboard import build_leaderboard

    for path in build_leaderboard(records, output, rank_by.value):
        typer.echo(path)
