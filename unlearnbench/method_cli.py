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


@method_app.command()
def tune(
    manifest: Annotated[Path, typer.Argument(help="Manifest file (TOML).", metavar="MANIFEST")],
    trials: Annotated[int, typer.Option(min=1, help="Settings to try of each method, its own among them.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each trial; none of them is the manifest's.")] = 2,
    to: Annotated[
        Path | None, typer.Option(help="The tuned manifest.", metavar="FILE", show_default="NAME-tuned.toml")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Output folder; the trials lie in its folder `trials`, in no table.")
    ] = Path("runs"),
    device: Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Search the options of every method of MANIFEST under one budget and write a manifest that has them."""
    from unlearnbench.manifest_text import manifest_toml
    from unlearnbench.tuning import Budget, check_target, tune, tuned_file

    file = to or tuned_file(manifest)
    check_target(file)
    budget = Budget(trials, seeds, output / "trials", device)
    tuned = tune(manifest, budget, lambda line: typer.echo(line, err=True))
    file.write_text(manifest_toml(tuned, f"Written by unlearnbench tune {manifest.name}"), encoding="utf-8")
    typer.echo(file)
