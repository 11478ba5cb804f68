"""A method's data card: what it reads and how many networks it runs, measured on the conformance check's problem."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs
from torch import nn

from unlearnbench.models.random_state import own_random_state
from unlearnbench.registry.entry_points import Plugin
from unlearnbench.registry.options import call_arguments, check_options, schema
from unlearnbench.store import content_id
from unlearnbench.unlearners.network_count import networks_that_run
from unlearnbench.unlearners.toy_problem import small_problem


@dataclass(frozen=True)
class DataCard:
    """What a method needs, with its defaults.

    Attributes:
        forget_images: Limited forget images that there were.
        retain_images: Limited retain images that there were.
        forget_reads: Forget images that it read, each as often as it read it.
        retain_reads: Retain images that it read.
        test_reads: Test images: none, since a task holds none.
        networks: Different networks that computed something: the one that it was given, teachers, fresh ones. Weights
            kept in other forms (masks, importances, copies of parameters) are not seen.
        reason: Why there are no figures, "" if there are.
    """

    forget_images: int
    retain_images: int
    forget_reads: int = 0
    retain_reads: int = 0
    test_reads: int = 0
    networks: int = 0
    reason: str = ""

    def lines(self) -> list[str]:
        """Return the card as `show` prints it."""
        head = (
            "Data card, measured with the defaults on digits "
            f"({self.forget_images} forget and {self.retain_images} retain images)"
        )
        if self.reason:
            return [head, f"  not measured: {self.reason}"]
        rows = {
            "forget images read": self.forget_reads,
            "retain images read": self.retain_reads,
            "test images read": self.test_reads,
            "networks run": self.networks,
        }
        return [head, *(f"  {name:<18}  {value:,}" for name, value in rows.items())]


def measured_card(function: Callable[..., nn.Module]) -> DataCard:
    """Run an unlearner on the small problem and return what it read."""
    problem = small_problem()
    task = problem.task()
    card = DataCard(task.size("forget"), task.size("retain"))
    arguments = call_arguments(function, check_options("unlearner", schema(function), {})[0])
    try:
        with own_random_state(1), networks_that_run(problem.original) as networks:
            function(copy.deepcopy(problem.original), task, **arguments)
    # Foreign code may raise anything; the card says what.
    except Exception as error:
        return DataCard(card.forget_images, card.retain_images, reason=f"{type(error).__name__}: {error}")
    reads = task.image_reads
    return DataCard(card.forget_images, card.retain_images, reads["forget"], reads["retain"], networks=networks.number)


def _memory_file() -> Path:
    return platformdirs.user_cache_path("unlearnbench") / "data-cards.json"


def data_card(plugin: Plugin) -> DataCard:
    """Return an installed unlearner's card; one that was measured for the same source is remembered.

    Raises:
        PluginError: If it cannot be imported or one of its options has no type or default.
    """
    key = content_id(plugin.distribution, plugin.distribution_version, plugin.target, plugin.digest)
    file = _memory_file()
    try:
        remembered = json.loads(file.read_text())
        return DataCard(**remembered[key])
    except (OSError, ValueError, KeyError, TypeError):
        card = measured_card(plugin.load())
    _remember(file, key, card)
    return card


def _remember(file: Path, key: str, card: DataCard) -> None:
    """Keep a card; a cache folder that cannot be written costs only time."""
    try:
        cards = json.loads(file.read_text())
    except (OSError, ValueError):
        cards = {}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{id(card)}.tmp")
        temporary.write_text(json.dumps({**cards, key: asdict(card)}))
        temporary.replace(file)
    except (OSError, TypeError):
        return
