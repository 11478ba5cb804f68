"""Limits that a user states for a removal, and how what was measured stands to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli
from pydantic import ValidationError

from unlearnbench.errors import Fault, InvalidFileError, ManifestError, did_you_mean, unreadable
from unlearnbench.experiment.manifest import Bound
from unlearnbench.experiment.toml_positions import key_lines, line_of

# What can be limited, and what each value is, a fraction.
LIMITED = {
    "forget_accuracy": "test images of the removed classes that are still recognised",
    "forget_prototype_accuracy": "the same by the nearest class mean in feature space",
    "retain_accuracy": "test images of the classes that stay that are recognised",
    "retain_loss": "accuracy lost on the classes that stay, among their own outputs",
    "worst_class_loss": "accuracy lost on the class that stays and lost most",
    "membership": "accuracy of the membership attack; 50 % is guessing",
    "probe": "accuracy of a linear probe on the removed classes",
    "few_shot": "accuracy on the removed classes after a few images of each",
}


def read_limits(path: Path) -> dict[str, Bound]:
    """Return the limits in a file: `forget_accuracy = { max = 0.05 }` and the like, as fractions.

    Raises:
        InvalidFileError: If the file cannot be read.
        ManifestError: If it has faults, all of which are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomli.loads(text)
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise InvalidFileError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except tomli.TOMLDecodeError as error:
        raise InvalidFileError(f"{path}:{error.lineno}: not valid TOML: {error.msg}") from error
    lines, limits, faults = key_lines(text), dict[str, Bound](), list[Fault]()
    for name, value in raw.items():
        fault = ""
        if name not in LIMITED:
            fault = f"nothing of this name can be limited{did_you_mean(name, LIMITED)}"
        else:
            try:
                limits[name] = Bound.model_validate(value)
                fault = _bound_fault(limits[name])
            except ValidationError:
                fault = "give min or max, as fractions: { max = 0.05 }"
        if fault:
            faults.append(Fault(line_of((name,), lines), name, fault))
    if faults:
        raise ManifestError(str(path), faults)
    if not limits:
        raise InvalidFileError(f"{path}: states no limit\n  For example: forget_accuracy = {{ max = 0.05 }}")
    return limits


def _bound_fault(bound: Bound) -> str:
    given = [value for value in (bound.min, bound.max) if value is not None]
    if not given:
        return "give min or max, as fractions: { max = 0.05 }"
    if any(not 0 <= value <= 1 for value in given):
        return "limits are fractions between 0 and 1, not percent"
    if len(given) == 2 and given[0] > given[1]:
        return f"min {given[0]:g} is above max {given[1]:g}"
    return ""


def limited_values(values: dict[str, Any]) -> dict[str, tuple[float | None, list[float] | None]]:
    """Return what can be limited: each value, and its interval where it is a share of images.

    Args:
        values: Content of a certificate.
    """
    shares, attacks = values["headline"], values["recovery"]
    found: dict[str, tuple[float | None, list[float] | None]] = {}
    for name in ("forget_accuracy", "forget_prototype_accuracy", "retain_accuracy"):
        after = shares[name]["after"]
        found[name] = (None, None) if after is None else (after["value"], after["interval"])
    kept = shares["masked_retain_accuracy"]
    whole = kept["before"] is not None and kept["after"] is not None
    found["retain_loss"] = (kept["before"]["value"] - kept["after"]["value"] if whole else None, None)
    losses = [
        each["before"]["value"] - each["after"]["value"]
        for each in values["classes"]
        if not each["removed"] and each["before"] and each["after"]
    ]
    found["worst_class_loss"] = (max(losses, default=None), None)
    return {**found, **{name: (attacks[name]["after"], None) for name in ("membership", "probe", "few_shot")}}


def judged(limits: dict[str, Bound], values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each limit with what was measured and how that stands to it: passed, undecided or failed.

    A share of images is *undecided* where its 95 % interval crosses the limit. What could not be measured has failed.
    """
    found = limited_values(values)
    rows = []
    for name, bound in limits.items():
        value, interval = found[name]
        low, high = interval or (value, value)
        facts = {"name": name, "meaning": LIMITED[name], "min": bound.min, "max": bound.max}
        rows.append({**facts, "value": value, "interval": interval, "verdict": _verdict(bound, value, low, high)})
    return rows


def _verdict(bound: Bound, value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "failed"
    # Differences of fractions carry rounding errors in their last digits.
    least = -1.0 if bound.min is None else bound.min - 1e-9
    most = 2.0 if bound.max is None else bound.max + 1e-9
    if least <= low and high <= most:
        return "passed"
    return "undecided" if least <= high and low <= most else "failed"


def overall(rows: list[dict[str, Any]]) -> str | None:
    """Return the verdict on all limits, or None if none were stated."""
    verdicts = [row["verdict"] for row in rows]
    return next((verdict for verdict in ("failed", "undecided", "passed") if verdict in verdicts), None)
