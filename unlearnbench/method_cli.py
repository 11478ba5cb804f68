"""The command line's part for authors of methods. As in `cli`, imports stand inside functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

method_app = typer.Typer()


@method_app.command("new-plugin")
def new_plugin(
    name: Annotated[str, typer.Argument(help="What the method is called, for example my-method.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder in which the plugin's own folder is made.")
    ] = Path(),
) -> None:
    """Write an installable plugin with one unlearner, its entry point, a test and a README."""
    from unlearnbench.new_plugin import write_plugin

    place = write_plugin(name, output)
    typer.echo(place)
    typer.echo(f"pip install -e {place} && python -m pytest {place}", err=True)
