"""The commands about plugins: installed ones, new ones, and their options. As in `cli`, functions import modules."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import typer

from unlearnbench.errors import PluginError
from unlearnbench.frontends.cli_results import JsonOption
from unlearnbench.frontends.terminal import echo, echo_json, tell
from unlearnbench.mirror import at_hand

plugin_app = typer.Typer()


@plugin_app.command("new-plugin")
def new_plugin(
    name: Annotated[str, typer.Argument(help="What it is called, for example my-method.")],
    kind: Annotated[
        Literal["unlearner", "architecture", "dataset", "metric"], typer.Option(help="What the plugin is.")
    ] = "unlearner",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder in which the plugin's own folder is made.")
    ] = Path(),
) -> None:
    """Write an installable plugin with one function, its entry point, a test and a README."""
    from unlearnbench.registry.scaffold import write_plugin

    place = write_plugin(name, output, kind)
    echo(place)
    echo(f"pip install -e {place} && python -m pytest {place}", err=True)


@plugin_app.command()
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
    division: Annotated[
        Literal["self-tuned", "oracle-tuned"],
        typer.Option(help="Judge trials by held-out limited images alone, or by FDR on other training images too."),
    ] = "oracle-tuned",
) -> None:
    """Search the options of every method of MANIFEST under one budget and write a manifest that has them."""
    from unlearnbench.engine.tuning.search import Budget, check_target, tune, tuned_file
    from unlearnbench.experiment.writer import manifest_toml, moved

    file = to or tuned_file(manifest)
    check_target(file)
    budget = Budget(trials, seeds, output / "trials", device, division)
    tuned = moved(tune(manifest, budget, tell), manifest.parent, file.parent)
    file.write_text(manifest_toml(tuned, f"Written by unlearnbench tune {manifest.name}"), encoding="utf-8")
    echo(file)


@plugin_app.command(name="list")
def list_plugins(
    kind: Annotated[
        Literal["unlearners", "datasets", "architectures", "metrics", "federations"],
        typer.Argument(help="What to list."),
    ],
    as_json: JsonOption = False,
) -> None:
    """List installed plugins of a KIND with the distribution they come from."""
    from unlearnbench.registry.entry_points import installed

    plugins = installed(kind)
    if as_json:
        echo_json([vars(plugin) for plugin in plugins])
        return
    width = max((len(plugin.name) for plugin in plugins), default=0)
    for plugin in plugins:
        clash = "  (name taken twice)" if sum(other.name == plugin.name for other in plugins) > 1 else ""
        echo(f"{plugin.name:<{width}}  {plugin.distribution} {plugin.distribution_version}{clash}")


@plugin_app.command()
def show(
    name: Annotated[str, typer.Argument(help="An unlearner, data set, architecture or metric.")],
    as_json: JsonOption = False,
) -> None:
    """Show the page of a plugin: what it does, its options, and its source."""
    from unlearnbench.registry.describe import plugin_json, plugin_page, plugins_named

    plugins = plugins_named(name)
    if as_json:
        echo_json([plugin_json(plugin) for plugin in plugins])
        return
    for number, plugin in enumerate(plugins):
        echo(("\n\n" if number else "") + plugin_page(plugin))


@plugin_app.command()
def check(
    name: Annotated[str, typer.Argument(help="An installed unlearner.")],
) -> None:
    """Check that an unlearner keeps to the contract, on a small real problem, and say what it reads and runs."""
    from unlearnbench.registry.entry_points import find

    find("unlearners", name)
    from unlearnbench.engine.processes.isolated import check_results

    failed = 0
    try:
        for result in check_results(name):
            failed += result.status == "failed"
            echo(f"{result.status:<15} {result.check}{': ' if result.message else ''}{result.message}")
    except PluginError as error:
        failed += 1
        echo(f"{'failed':<15} lives to the end of the checks: {error}")
    if failed:
        raise typer.Exit(1)


@plugin_app.command()
def doctor(
    output: Annotated[
        Path, typer.Option("--output", "-o", parser=at_hand, help="Output folder that runs are to have.", metavar="DIR")
    ] = Path("runs"),
    on: Annotated[str, typer.Option("--on", help="Check a cluster too, as run has it.", metavar="ENGINE")] = "local",
    profile: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="What a stage needs on a cluster (TOML).")
    ] = None,
) -> None:
    """Check this installation: libraries, device, folders and their locks, plugins; with --on a cluster as well."""
    from unlearnbench.engine.engines.place import place
    from unlearnbench.frontends.doctor import diagnoses

    where = place("auto", None, on, profile)
    found = diagnoses(output)
    if not where.at_hand:
        from unlearnbench.frontends.cluster_doctor import cluster_diagnoses

        found = chain(found, cluster_diagnoses(where, output, tell))
    healthy = True
    for diagnosis in found:
        healthy &= diagnosis.good
        echo(f"{'ok     ' if diagnosis.good else 'PROBLEM'}  {diagnosis.what}: {diagnosis.text}")
    if not healthy:
        raise typer.Exit(1)
