"""The numbers that papers report, for problems that match theirs. They are stored in `published.toml`."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from unlearnbench.results.records.record import MethodRecord, ProblemRecord

# The paper varies these options, so that an unlearner that differs from the paper's own setting in one is another row.
DEFAULTS: dict[str, Any] = {"l_e": True, "l_kd": True, "l_ne": True, "keep_share": 1.0, "beta": 10.0, "kappa": 2.0}
# An unlearner that differs in one of these options is not the one that the paper describes.
OWN = {"stop_when_forgotten": False}


@dataclass(frozen=True)
class PublishedTable:
    """What a paper reports on one problem.

    Attributes:
        source: Paper and table.
        url: Address of the paper.
        runs: Number of runs that its means are taken over.
        values: The table as stored in the data file.
    """

    source: str
    url: str
    runs: int
    values: Mapping[str, Any]

    def figures(self, method: MethodRecord) -> dict[str, float]:
        """Return the reported fractions of an unlearner by metric, or none if the paper has no such row."""
        changed = changed_options(method)
        stated = _file()["stated"].get(method.name, {}).get(self.values["dataset"], {})
        if changed is None or any(method.options.get(key, value) != value for key, value in stated.items()):
            return {}
        if not changed:
            found = self.values["figures"].get(method.name, {})
        else:
            variants = self.values.get("variants", ())
            found = next(
                (one["figures"] for one in variants if one["name"] == method.name and one["options"] == changed), {}
            )
        return {metric: value / 100 for metric, value in found.items()}


def changed_options(method: MethodRecord) -> dict[str, Any] | None:
    """Return the options that the paper varies and in which an unlearner differs from the paper's own setting.

    The result is None if the unlearner is not the one that the paper describes at all.
    """
    if any(method.options.get(key, value) != value for key, value in OWN.items()):
        return None
    options = {key: method.options.get(key, value) for key, value in DEFAULTS.items()}
    return {key: value for key, value in options.items() if value != DEFAULTS[key]}


def is_papers_own(method: MethodRecord, options: Mapping[str, Any], free: Collection[str] = ()) -> bool:
    """Return whether an unlearner is the paper's with these options.

    Args:
        method: Unlearner to check.
        options: Options that it must have; any other option that the paper varies must have the paper's own setting.
        free: Names of options that may have any value if they are not in `options`.
    """
    changed = changed_options(method)
    wanted = {key: value for key, value in DEFAULTS.items() if key not in free} | dict(options)
    # If an unlearner lacks one of the paper's options, it counts as having the paper's own value.
    return changed is not None and all(
        method.options.get(key, DEFAULTS.get(key)) == value for key, value in wanted.items()
    )


def published_table(problem: ProblemRecord) -> PublishedTable | None:
    """Return the paper's results for a problem with its data set, network, forget classes and limited data, if any."""
    for table in _tables():
        last = tuple(range(table["num_classes"] - table["forget_last"], table["num_classes"]))
        if (
            problem.dataset == table["dataset"]
            and problem.architecture == table["architecture"]
            and problem.num_classes == table["num_classes"]
            and tuple(problem.forget_classes) == last
            and problem.limited == _limited(table)
            and problem.federation is None
        ):
            return PublishedTable(table["source"], table["url"], table["runs"], table)
    return None


def _limited(table: Mapping[str, Any]) -> str:
    share = table.get("limited_share")
    return f"{share * 100:.10g} %" if share is not None else f"{table['limited_images_per_class']} images"


def _tables() -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = _file()["tables"]
    return tables


@functools.cache
def _file() -> dict[str, Any]:
    return tomllib.loads(files("unlearnbench.results.report").joinpath("published.toml").read_text(encoding="utf-8"))
