"""The federation of a manifest, checked against its data set, its engine, its seeds and what is to be forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from unlearnbench.datasets.dataset import NOT_HERE, DatasetInfo
from unlearnbench.errors import PluginError, did_you_mean
from unlearnbench.experiment.manifest import ProblemChoice
from unlearnbench.experiment.reader import ManifestFile
from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.federation.shares import FEWEST_IMAGES, party_counts, sizes
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.registry.component import Component, used
from unlearnbench.registry.entry_points import Plugin, find, names
from unlearnbench.registry.options import resolve_options

# What averages without an engine.
STRATEGIES = ("fedavg", "fedprox")
# Engines of this project's own, which are not installed with it.
DISTRIBUTIONS = {"flower": "unlearnbench-flower"}
LIMITED = ("limited_share", "limited_images_per_class")
SHOWN_PARTIES = 5
# A plan and a record hold who trains in which round.
MOST_TURNS = 1_000_000


def check_federation(file: ManifestFile, info: DatasetInfo) -> Federation | None:
    """Return the federation of a manifest, or None if it has none or after noting faults that hide others."""
    federation: Federation | None = file.sections.get("federation")
    if federation is None:
        return None
    _check_pairs(file, federation)
    _check_recipe(file, federation)
    images = sum(info.train_counts)
    empty = [name for name, held in zip(info.class_names, info.train_counts, strict=True) if not held]
    turns = federation.parties * federation.rounds
    if turns > MOST_TURNS:
        told = f"{federation.rounds:,} rounds of {federation.parties:,} parties, and {MOST_TURNS:,} turns are the most"
        file.fault(("federation", "rounds"), told)
    elif federation.parties > images:
        file.fault(
            ("federation", "parties"),
            f"{federation.parties:,} parties for the {images:,} training images of {info.name}; some would hold none",
        )
    elif federation.party is not None and federation.party >= federation.parties:
        last = federation.parties - 1
        file.fault(("federation", "party"), f"there is no party {federation.party}: the parties are 0 to {last}")
    elif empty:
        file.fault(("federation",), f"nobody holds an image of class {empty[0]!r}: {info.name} has none to train on")
    elif (federation.split == "dirichlet") == (federation.alpha is not None):
        return federation
    return None


def _check_pairs(file: ManifestFile, federation: Federation) -> None:
    """Note options that lack the setting which they belong to, and settings that lack their option."""
    pairs = (
        ("alpha", "split", "dirichlet", "how alike the shares are: 0.1 is very unlike, 100 nearly iid"),
        ("proximal", "strategy", "fedprox", "the weight that holds a party near the round's first weights, as 0.01"),
    )
    for key, owner, value, meaning in pairs if federation.engine is None else pairs[:1]:
        chosen, given = getattr(federation, owner), getattr(federation, key)
        if chosen == value and given is None:
            file.fault(("federation", key), f'missing; {owner} = "{value}" needs {meaning}')
        elif chosen != value and given is not None:
            file.fault(("federation", key), f'{owner} = "{chosen}" has none; remove it, or set {owner} = "{value}"')


def find_engine(file: ManifestFile) -> Component | None:
    """Return the engine that plays the rounds, with all its options; None without one, or after noting faults."""
    federation: Federation | None = file.sections.get("federation")
    if federation is None:
        return None
    if federation.engine is None:
        _check_without_engine(file, federation)
        return None
    if federation.proximal is not None:
        file.fault(("federation", "proximal"), f'engine = "{federation.engine}" has none; what it takes are options')
    try:
        plugin = find("federations", federation.engine)
    except PluginError as error:
        file.fault(("federation", "engine"), _missing(federation.engine, error))
        return None
    return _engine_in_use(file, federation, plugin)


def _engine_in_use(file: ManifestFile, federation: Federation, plugin: Plugin) -> Component | None:
    """Return an engine that is installed, with all its options, or None after noting faults."""
    key = "engine"
    try:
        options, faults = resolve_options(plugin, federation.options or {})
        for name, message in faults.items():
            file.fault(("federation", "options", name), message)
        if faults:
            return None
        play = plugin.load()
        key = "strategy"
        # The engine itself knows its strategies, and which options each of them takes.
        play(federation.strategy, **(federation.options or {}))
        return used(plugin, options)
    except PluginError as error:
        file.fault(("federation", key), str(error))
        return None


def _missing(name: str, error: PluginError) -> str:
    if name not in DISTRIBUTIONS or name in names("federations"):
        return str(error)
    return (
        f"no federation engine {name!r} is installed\n"
        f"  It comes with the distribution {DISTRIBUTIONS[name]} (pip install ./plugins/{DISTRIBUTIONS[name]}), which "
        "takes an environment of its own"
    )


def _check_without_engine(file: ManifestFile, federation: Federation) -> None:
    """Note what only engines know."""
    if federation.strategy not in STRATEGIES:
        file.fault(
            ("federation", "strategy"),
            f"there is no {federation.strategy!r} without an engine{did_you_mean(federation.strategy, STRATEGIES)}",
        )
    if federation.options is not None:
        file.fault(("federation", "options"), "are those of an engine, and none is given; remove them")


def _check_recipe(file: ManifestFile, federation: Federation) -> None:
    """Note a recipe that does not fit the rounds."""
    recipe: TrainingRecipe | None = file.sections.get("training")
    if recipe is None:
        return
    epochs = federation.rounds * federation.local_epochs
    if recipe.epochs != epochs:
        file.fault(
            ("training", "epochs"),
            f"{recipe.epochs} epochs, but {federation.rounds} rounds of {federation.local_epochs} are {epochs}; give "
            "that number, which the schedule and methods with a full schedule follow",
        )
    if recipe.resolutions:
        file.fault(("training", "resolutions"), "a federation trains on images of full size; remove it")


def leaves_a_share(file: ManifestFile, choice: ProblemChoice) -> bool | None:
    """Return whether the limited data are a party's share, or None after noting a fault.

    It is a fault if the problem sets limited data beside a party's share, or if nothing says what is left.
    """
    federation: Federation | None = file.sections.get("federation")
    given = [key for key in LIMITED if getattr(choice, key) is not None]
    if federation is None:
        # Where the table itself is faulty, nothing more is said about it.
        return None if "federation" in file.raw else False
    if federation.party is None and not given:
        file.fault(
            ("federation", "party"),
            "missing; the number of the party that unlearns with its own share (or limited_share in [problem], to "
            "compare with images drawn from all)",
        )
        return None
    if federation.party is None:
        return False
    for key in given:
        path = ("problem", "matrix") if key in file.sections["problem"].matrix else ("problem",)
        file.fault((*path, key), f"the share of party {federation.party} is what is left; keep one of the two")
    return None if given else True


def check_shares(file: ManifestFile, federation: Federation, info: DatasetInfo, forget: Sequence[int]) -> None:
    """Note seeds with which the party that unlearns lacks images of a kind, or with which nobody can train.

    Args:
        file: The manifest.
        federation: Its federation.
        info: Facts about the data set; if it is not here, its classes are not known either.
        forget: Indices of the forget classes.
    """
    if info.revision == NOT_HERE:
        return
    kinds = {"forget": tuple(forget), "retain": tuple(k for k in range(len(info.class_names)) if k not in forget)}
    both = set(range(federation.parties))
    lacking = ""
    for seed in file.sections.get("seeds", ()):
        counts = party_counts(federation, info.train_counts, seed)
        for kind, classes in kinds.items():
            held = sizes(counts, classes)
            both &= {party for party, images in enumerate(held) if images}
            if federation.party is not None and not held[federation.party]:
                lacking = lacking or f"with seed {seed} party {federation.party} holds no image of a {kind} class"
        if max(sizes(counts, kinds["retain"])) < FEWEST_IMAGES:
            number = federation.parties
            message = f"with seed {seed} none of {number:,} parties holds {FEWEST_IMAGES} images to train FDR on"
            file.fault(("federation", "parties"), message)
            return
    if lacking:
        file.fault(("federation", "party"), f"{lacking}\n  {_advice(sorted(both))}")


def _advice(parties: Sequence[int]) -> str:
    if not parties:
        return "No party holds both kinds with every seed; raise alpha, or take fewer parties or other seeds"
    more = len(parties) - SHOWN_PARTIES
    named = ", ".join(map(str, parties[:SHOWN_PARTIES])) + (f" and {more} more" if more > 0 else "")
    return f"Parties that hold both kinds with every seed: {named}"
