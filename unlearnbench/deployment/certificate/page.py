"""The pages of a certificate: HTML that prints on one or two sheets of A4, and markdown."""

from __future__ import annotations

import functools
import json
from typing import Any

import jinja2

from unlearnbench.deployment.certificate.signature import fingerprint
from unlearnbench.escape import markdown
from unlearnbench.results.judgement import most_fae
from unlearnbench.results.tables import markdown_line

# More classes than this do not fit the paper: the removed ones and those that changed most are shown.
SHOWN_CLASSES = 24

HEADLINE = {
    "forget_accuracy": ("Removed classes recognised (FAe)", "test images of the removed classes that get their label"),
    "retain_accuracy": ("Other classes recognised (CAne)", "test images of the classes that stay that get their label"),
    "masked_retain_accuracy": (
        "The same among their own outputs",
        "without the removed outputs as rivals, so that what was lost is not hidden by what they no longer take",
    ),
    "forget_prototype_accuracy": (
        "Removed classes by their features (FPAe)",
        "test images of the removed classes nearest to their own class's mean, in the features before the classifier",
    ),
}
RECOVERY = {
    "membership": (
        "Membership attack",
        "tells images of the removed classes that the model was trained on from others by its outputs; 50 is guessing",
    ),
    "probe": (
        "Linear probe",
        "a new classifier on the frozen features, given the images that the method had; all classes compete",
    ),
    "few_shot": (
        "Few-shot relearning",
        "the removed classes' outputs are rebuilt from up to 5 images each; nothing is trained",
    ),
}
STAGES = {
    "prototype": ("nearest prototype", "test images of the removed classes nearest to their own class's mean there"),
    "probe": (
        "linear probe",
        "mean of the shares of each removed class, and of all others together, that a classifier on it finds",
    ),
}
NO_FDR = (
    "There is no FDR here, a model retrained without the removed classes. Such a model still tells them apart to some "
    "degree, so that without it nobody can say which of the numbers after the removal are as low as they would be then."
)


def not_shown(values: dict[str, Any]) -> list[str]:
    """Return what a reader must not conclude from a certificate."""
    lines = [
        "It does not show that nothing of the removed classes can be recovered: it reports three attacks and no more.",
        f"Every number holds for the {values['data']['test_images']:,} test images named here, and for this seed.",
        "It says nothing of copies of the original model, of its backups, or of the images it was trained on.",
    ]
    if values["record"]["fdr"] == "none":
        lines.insert(0, NO_FDR)
    if not values["stages"]:
        lines.append("Earlier stages of the network were not measured, only its outputs and last features.")
    if not values["method"]["run_here"]:
        lines.append("The method was not run here: what it is and which images it read is not known.")
    if values["issued"]["by"]:
        lines.append("Name and date of issue are as given by the issuer.")
    return lines


def still_recognised(values: dict[str, Any]) -> str:
    """Return in words that the outputs have not forgotten, by the bound of the ranking; "" if they have."""
    fae = values["headline"]["forget_accuracy"]
    before, after = fae["before"]["value"], fae["after"]["value"]
    if after <= most_fae(before):
        return ""
    return f"The model still recognises them: {percent(after)} % of their test images, {percent(before)} % before."


def shown_classes(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the classes that the pages show, in their order: all, or the removed ones and those that changed most."""
    classes: list[dict[str, Any]] = values["classes"]
    if len(classes) <= SHOWN_CLASSES:
        return classes

    def change(row: dict[str, Any]) -> float:
        both = row["before"] and row["after"]
        return abs(row["after"]["value"] - row["before"]["value"]) if both else 0.0

    ordered = sorted(classes, key=lambda row: (not row["removed"], -change(row)))
    return sorted(ordered[:SHOWN_CLASSES], key=lambda row: int(row["index"]))


def percent(value: float | None) -> str:
    """Return a fraction in percent with one digit, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def interval(share: dict[str, Any] | None) -> str:
    """Return the 95 % interval of a share of images, or "" if there is none."""
    return "" if share is None else f"{percent(share['interval'][0])} to {percent(share['interval'][1])}"


def bounds(row: dict[str, Any]) -> str:
    """Return a limit in words."""
    lower = "" if row["min"] is None else f"at least {percent(row['min'])}"
    upper = "" if row["max"] is None else f"at most {percent(row['max'])}"
    return " and ".join(part for part in (lower, upper) if part)


def given_text(data: dict[str, Any]) -> str:
    """Return in words how many images of each class a method was given."""
    told: str = data["limited"]
    return f"{told} of each class's training images" if told.endswith("%") else f"{told} of each class"


def options_text(options: dict[str, Any]) -> str:
    """Return the options of a method in one line."""
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in sorted(options.items())) or "none"


def check_commands(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Return how the certificate can be checked again: what a command tells, and the command."""
    seed, method = values["method"]["seed"], values["method"]["label"]
    # The files may be given other names, so that this one stands for all.
    verify = "unlearnbench certificate --verify CERTIFICATE.json"
    found = [
        ("a file holds these weights", f"{verify} --weights FILE"),
        ("the content is as issued", verify),
        ("the numbers follow from the stored outputs", f"{verify} --runs RUNS"),
    ]
    if values["method"]["run_here"]:
        again = f'unlearnbench reproduce RUNS/records --only "{method}"'
        found.append((f"the method gives this again (seed {seed})", again))
    return found


@functools.cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("unlearnbench.deployment", "certificate")
    place = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return place.get_template("certificate.html.j2")


def html_page(values: dict[str, Any]) -> str:
    """Return a certificate as a web page of one file, without scripts.

    Args:
        values: Content of the certificate.
    """
    signature = values.get("signature")
    return _template().render(
        values=values,
        shown=shown_classes(values),
        headline=HEADLINE,
        recovery=RECOVERY,
        stages=STAGES,
        not_shown=not_shown(values),
        still_recognised=still_recognised(values),
        commands=check_commands(values),
        percent=percent,
        interval=interval,
        bounds=bounds,
        options_text=options_text,
        given=given_text(values["data"]),
        key=fingerprint(signature) if signature else "",
    )


def markdown_page(values: dict[str, Any]) -> str:
    """Return a certificate as markdown.

    Args:
        values: Content of the certificate.
    """
    has_fdr = values["record"]["fdr"] != "none"
    last = ["FDR"] if has_fdr else []
    model, data, method = values["model"], values["data"], values["method"]
    source = f" ({data['source']})" if data["source"] else ""
    removed, known = markdown(", ".join(values["removed"])), still_recognised(values)
    what = f"{known} To be removed" if known else "Removed"
    parts = [
        f"# Certificate of class removal\n\n{what}: **{removed}**. {_verdict_words(values)}",
        "\n".join(
            [
                f"- Issued by {markdown(values['issued']['by'] or 'nobody named')}, {markdown(values['issued']['on'])}",
                f"- Model before: {markdown(model['architecture'])}, {markdown(model['before']['name'])}, "
                f"SHA-256 `{model['before']['sha256']}`",
                f"- Model after: SHA-256 `{model['after']['sha256']}` in the store, "
                f"`{model['after']['tensors_sha256']}` of its tensors as exported",
                f"- Data: {markdown(data['name'] + source)}, revision `{data['revision']}`, "
                f"{data['train_images']:,} training and {data['test_images']:,} test images; "
                f"the method was given {given_text(data)}",
                f"- Method: {markdown(_method_words(method))}",
                f"- Record: SHA-256 `{values['record']['sha256']}`",
            ]
        ),
    ]
    rows: list[tuple[str, ...]]
    if values["limits"]:
        rows = [
            (f"{row['name']}: {row['meaning']}", bounds(row), percent(row["value"]), row["verdict"])
            for row in values["limits"]
        ]
        parts.append("## Limits\n\n" + _table(("limit", "stated", "measured", "verdict"), rows))
    rows = [
        (f"{title}: {meaning}", *_three(values["headline"][key], has_fdr, shares=True))
        for key, (title, meaning) in HEADLINE.items()
    ]
    parts.append("## Forgotten and kept, in percent\n\n" + _table(("", "before", "after", *last), rows))
    rows = [
        (f"{title}: {meaning}", *_three(values["recovery"][key], has_fdr, shares=False))
        for key, (title, meaning) in RECOVERY.items()
    ]
    parts.append("## Attempts to bring it back, in percent\n\n" + _table(("", "before", "after", *last), rows))
    rows = [
        (
            f"{row['name']}{' (removed)' if row['removed'] else ''}",
            str(row["given_images"]),
            *_three(row, has_fdr=False, shares=True),
        )
        for row in shown_classes(values)
    ]
    parts.append("## Class by class, in percent\n\n" + _table(("class", "given images", "before", "after"), rows))
    going = []
    for row in values["destinations"]:
        shares = ", ".join(f"{to['name']} {percent(to['share'])}" for to in row["to"])
        going.append(f"- {markdown(row['name'])}: {markdown(shares)}")
    parts.append("## What images of the removed classes are taken for now, in percent\n\n" + "\n".join(going))
    for stage in values["stages"]:
        title, meaning = STAGES[stage["measure"]]
        rows = [(markdown(row["stage"]), *_three(row, has_fdr, shares=False)) for row in stage["rows"]]
        text = f"## Every stage of the network: {title}, in percent\n\n{meaning.capitalize()}.\n\n"
        parts.append(text + _table(("stage", "before", "after", *last), rows))
    parts.append("## What this does not show\n\n" + "\n".join(f"- {line}" for line in not_shown(values)))
    lines = [f"- {what}: `{command}`" for what, command in check_commands(values)]
    parts.append("## How to check it\n\n" + "\n".join(lines))
    signature = values.get("signature")
    signed = f"Signed with {signature['algorithm']}, key {fingerprint(signature)}." if signature else "Not signed."
    parts.append(f"{signed} SHA-256 of the content: `{values['sha256']}`")
    return "\n\n".join(parts) + "\n"


def _verdict_words(values: dict[str, Any]) -> str:
    words = {
        "passed": "All stated limits are met.",
        "failed": "Stated limits are not met.",
        "undecided": "No stated limit is missed, but there are too few images to say that all are met.",
        None: "No limits were stated.",
    }
    return words[values["verdict"]]


def _method_words(method: dict[str, Any]) -> str:
    if not method["run_here"]:
        return f"{method['label']}, which was not run here"
    seconds = "" if method["seconds"] is None else f", {method['seconds']:.0f} s on {method['device']}"
    return (
        f"{method['name']} {method['version']} of {method['distribution']}, seed {method['seed']}, finished "
        f"{method['finished_at']}{seconds}, {method['image_passes']:,} image passes; options: "
        f"{options_text(method['options'])}"
    )


def _three(row: dict[str, Any], has_fdr: bool, *, shares: bool) -> list[str]:
    names = ("before", "after", "fdr") if has_fdr else ("before", "after")
    found = [row[name] for name in names]
    return [percent(value["value"] if shares and value else value if not shares else None) for value in found]


def _table(header: tuple[str, ...], rows: list[Any]) -> str:
    line = f"| --- |{' ---: |' * (len(header) - 1)}"
    return "\n".join([markdown_line(header), line, *(markdown_line(tuple(row)) for row in rows)])
