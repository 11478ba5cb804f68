"""The commands for a model in use. As in `cli`, functions import modules so that the command line starts fast."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unlearnbench.frontends.cli_results import JsonOption, show_tables
from unlearnbench.frontends.terminal import messages, tell
from unlearnbench.mirror import at_hand


class WeightsFormat(StrEnum):
    """The choices of `export-model --format`."""

    safetensors = "safetensors"
    state_dict = "state_dict"
    onnx = "onnx"


Row = Annotated[
    Path,
    typer.Argument(parser=at_hand, help="Output folder of a run, a folder of its records, or a record.", metavar="ROW"),
]
OnlyOption = Annotated[
    str, typer.Option("--only", help="The method, where ROW holds several.", metavar="METHOD", show_default=False)
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="The seed, where ROW holds several.")]


def add_deployment_commands(app: typer.Typer) -> None:
    """Add the commands for a model in use."""
    app.command()(init)
    app.command("export-model")(export_model)
    app.command()(certificate)
    app.command()(judge)


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
    if done.still_recognised:
        tell(f"{done.weights}: the forget classes are {done.still_recognised}")


def certificate(
    row: Annotated[
        Path | None,
        typer.Argument(
            parser=at_hand, help="Output folder of a run, a folder of its records, or a record.", metavar="ROW"
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Name of the files, without .html, .md and .json.")
    ] = Path("certificate"),
    label: OnlyOption = "",
    seed: SeedOption = None,
    limits: Annotated[Path | None, typer.Option(help="TOML file of limits to pass.", metavar="LIMITS")] = None,
    issued_by: Annotated[str, typer.Option("--by", help="Who issues it.", show_default=False)] = "",
    issued_on: Annotated[str, typer.Option("--on", help="When; today if not given.", show_default=False)] = "",
    key: Annotated[Path | None, typer.Option(help="Private key to sign with (Ed25519, PEM).", metavar="PEM")] = None,
    verify: Annotated[
        Path | None, typer.Option("--verify", help="Verify this certificate instead.", metavar="JSON")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="With --verify: the key that it must be signed with.", metavar="PEM")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="With --verify: a file that must hold these weights.", metavar="FILE")
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(parser=at_hand, help="With --verify: compute every number anew from this run.", metavar="RUNS"),
    ] = None,
) -> None:
    """Write what was removed from which model, measured before and after, on a page to print; or verify one."""
    from datetime import UTC, datetime

    from unlearnbench.deployment import issue as issuing
    from unlearnbench.deployment.row import finished_cell

    if verify is not None:
        for line in issuing.verify(verify, public_key, runs, weights):
            typer.echo(f"{verify}: {line}")
        return
    if row is None:
        raise typer.BadParameter("missing; give a ROW to write a certificate of, or --verify", param_hint="ROW")
    on = issued_on or datetime.now(UTC).date().isoformat()
    cell = finished_cell(row, label, seed)
    paths, verdict = issuing.issue(cell, output, limits, key, issued_by, on)
    for path in paths:
        typer.echo(path)
    if cell.still_recognised:
        tell(f"{cell.name}: the forget classes are {cell.still_recognised}")
    tell(f"limits: {verdict or 'none stated'}")
    if verdict == "failed":
        raise typer.Exit(1)


def judge(
    checkpoint: Annotated[Path, typer.Argument(help="Weights that were unlearned elsewhere.", metavar="CHECKPOINT")],
    manifest: Annotated[Path, typer.Argument(help="Manifest of the problem.", metavar="MANIFEST")],
    label: Annotated[str, typer.Option(help="Name of the row; the file's if not given.", show_default=False)] = "",
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            parser=at_hand,
            help="Output folder, whose references and rows they stand beside.",
            metavar="DIR",
        ),
    ] = Path("runs"),
    seed: Annotated[int | None, typer.Option("--seed", help="The seed whose Original they were made from.")] = None,
    class_order: Annotated[
        str,
        typer.Option(help="Class of each output, by commas, if not the original's order.", metavar="CLASSES"),
    ] = "",
    device: Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, ...")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Score weights that were unlearned elsewhere on the problem of MANIFEST, beside the rows that were run."""
    from unlearnbench.deployment.outside_weights import Outside, judge
    from unlearnbench.results.records.load import load_records

    order = tuple(name.strip() for name in class_order.split(",") if name)
    outside = Outside(checkpoint, label, seed, order)
    made = judge(outside, manifest, output, device, messages(), tell)
    here = [record for record in load_records(output, tell) if record.problem.id == made[0].problem.id]
    show_tables(here, as_json)
    if any(record.status == "failed" for record in made):
        raise typer.Exit(1)


def init(
    manifest: Annotated[Path, typer.Argument(help="Manifest to write.", metavar="MANIFEST")],
    data: Annotated[str, typer.Option(help="Folder of class folders, or a data set.", metavar="DATA")],
    architecture: Annotated[str, typer.Option(help="The network, as in a manifest.", metavar="NAME")],
    weights: Annotated[str, typer.Option(help="The checkpoint of your model.", metavar="FILE")],
    forget: Annotated[str, typer.Option(help="Classes to remove, by commas: names or indices.", metavar="CLASSES")],
    class_order: Annotated[
        str,
        typer.Option(help="Class of each output, by commas, if not the data's order.", metavar="CLASSES"),
    ] = "",
    crop: Annotated[int | None, typer.Option(min=1, help="Side of the square that the network sees.")] = None,
    mean: Annotated[str, typer.Option(help="Channel means of your training, by commas.", metavar="NUMBERS")] = "",
    std: Annotated[str, typer.Option(help="Channel deviations of your training.", metavar="NUMBERS")] = "",
) -> None:
    """Look at your images, network and weights, and write a commented MANIFEST if they belong together."""
    from unlearnbench.deployment.proposal import Wish, propose
    from unlearnbench.frontends.cli_data import telling

    if bool(mean) != bool(std):
        raise typer.BadParameter("give both or none", param_hint="--mean, --std")
    try:
        numbers = tuple(tuple(float(number) for number in text.split(",")) for text in (mean, std) if text)
    except ValueError as error:
        raise typer.BadParameter("not numbers separated by commas", param_hint="--mean, --std") from error
    forgotten, order = (tuple(name.strip() for name in text.split(",") if name) for text in (forget, class_order))
    normalisation = (numbers[0], numbers[1]) if numbers else None
    with telling() as (_, listener):
        propose(Wish(data, architecture, weights, forgotten, order, crop, normalisation), manifest, listener, tell)
    typer.echo(manifest)
