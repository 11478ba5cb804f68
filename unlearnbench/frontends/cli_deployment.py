"""The commands for a model in use. As in `cli`, functions import modules so that the command line starts fast."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unlearnbench.frontends.terminal import tell


class WeightsFormat(StrEnum):
    """The choices of `export-model --format`."""

    safetensors = "safetensors"
    state_dict = "state_dict"
    onnx = "onnx"


Row = Annotated[
    Path, typer.Argument(help="Output folder of a run, a folder of its records, or a record.", metavar="ROW")
]
OnlyOption = Annotated[
    str, typer.Option("--only", help="The method, where ROW holds several.", metavar="METHOD", show_default=False)
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="The seed, where ROW holds several.")]


def add_deployment_commands(app: typer.Typer) -> None:
    """Add the commands for a model in use."""
    app.command("export-model")(export_model)


def export_model(
    row: Row,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write; its card is written beside it.")],
    label: OnlyOption = "",
    seed: SeedOption = None,
    form: Annotated[
        WeightsFormat | None,
        typer.Option("--format", help="How the weights are written; by the file's ending if not given."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Load the file again and compare it with the record.")
    ] = True,
) -> None:
    """Write the unlearned weights of ROW in the names of your own checkpoint, with a card, and check the file."""
    from unlearnbench.deployment.export import export

    done = export(row, output, form.value if form else "", label, seed, check=check)
    typer.echo(done.weights)
    typer.echo(done.card)
    if done.check is None:
        tell(f"{done.weights}: not checked")
    else:
        turned = f"{done.check.turned} of {done.check.images:,} test images classified otherwise than recorded"
        tell(
            f"{done.weights}: loaded again: FAe {100 * done.check.forget_accuracy:.2f}, "
            f"CAne {100 * done.check.retain_accuracy:.2f}; {turned}"
        )
