"""The claims of a paper, as rules over measured values. They are stored in `claims.toml`."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unlearnbench.errors import InvalidFileError

FILE = "claims.toml"
EpochNumber = Annotated[int, Field(ge=1)]
Epoch = EpochNumber | Literal["last", "every"] | Annotated[tuple[EpochNumber, ...], Field(min_length=2)]


class ClaimPart(BaseModel):
    """A table of the file: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(ClaimPart):
    """A measured value: a metric of an unlearner, or the difference between two.

    Attributes:
        method: Name of the unlearner, `original` or `fdr`.
        metric: Name of a metric; `speed_up_seconds`; or `speed_up_epochs`, FDR's image passes over the unlearner's
            epochs times its limited images.
        options: Options of the unlearner that differ from the paper's own.
        metric_options: Options of the metric.
        data: Whether the unlearner had the `limited` data, the `full` training set or, where a party unlearns with its
            own share, limited data `drawn` from all images in a federation that is otherwise the same.
        epoch: Epoch after which it is taken, counted from 1, or `last` or `every`; of several numbers the one that
            meets the claim best. None means the end.
        since: Earliest version of the unlearner that does what the claim is about.
        minus: Value that is subtracted, seed by seed.
        apart_from: Value from which the distance, without its sign, is taken.
    """

    method: str
    metric: str
    options: dict[str, Any] = {}
    metric_options: dict[str, Any] = {}
    data: Literal["limited", "full", "drawn"] = "limited"
    epoch: Epoch | None = None
    since: Annotated[int, Field(ge=1)] = 1
    minus: Value | None = None
    apart_from: Value | None = None

    def with_options(self, **options: Any) -> Value:
        """Return the value of the same unlearner with other options."""
        return self.model_copy(update={"options": {**self.options, **options}})


class Each(ClaimPart):
    """Several values that differ in an option of the unlearner; the rule must hold for each of them.

    Attributes:
        option: Name of the option.
        values: Values of the option.
    """

    option: str
    values: tuple[Any, ...]


class Bounded(ClaimPart):
    """The value is at most, or at least, a number; in percent for shares."""

    kind: Literal["at_most", "at_least"]
    value: Value
    bound: float
    each: Each | None = None


class Within(ClaimPart):
    """The mean value lies within a number of points of another one's, seed by seed."""

    kind: Literal["within"]
    value: Value
    of: Value
    points: Annotated[float, Field(ge=0)]
    each: Each | None = None


class Less(ClaimPart):
    """The mean value is less than another one's."""

    kind: Literal["less"]
    value: Value
    than: Value


class Best(ClaimPart):
    """One value of an option gives the highest, or the lowest, value among several."""

    kind: Literal["best"]
    value: Value
    option: str
    values: tuple[Any, ...]
    best: Any
    by: Literal["highest", "lowest"] = "highest"


class Ordered(ClaimPart):
    """Values fall, or rise, one after the other; a step of up to `slack` points the other way is forgiven.

    A single entry in `values` with `every` epoch stands for its values by epoch.
    """

    kind: Literal["order"]
    values: Annotated[tuple[Value, ...], Field(min_length=1)]
    direction: Literal["falling", "rising"]
    slack: Annotated[float, Field(ge=0)] = 0.0


class Lowest(ClaimPart):
    """An unlearner has the lowest value among those that keep another value within some points of Original's.

    Attributes:
        kind: `lowest`.
        value: Value of the unlearner that is claimed to have the lowest.
        among: Names of the other unlearners.
        kept: Value that must be kept, of the same unlearner.
        points: Largest distance from Original's value.
    """

    kind: Literal["lowest"]
    value: Value
    among: Annotated[tuple[str, ...], Field(min_length=1)]
    kept: Value
    points: Annotated[float, Field(ge=0)]

    def of(self, method: str) -> Lowest:
        """Return the same rule for another unlearner."""
        values = {key: getattr(self, key).model_copy(update={"method": method}) for key in ("value", "kept")}
        return self.model_copy(update=values)


AnyRule = Bounded | Within | Less | Best | Ordered | Lowest
Rule = Annotated[AnyRule, Field(discriminator="kind")]


class Setting(ClaimPart):
    """The data set and network of the paper's own experiment, and the epochs that it trained originals for."""

    dataset: str
    architecture: str
    epochs: int


class Claim(ClaimPart):
    """One claim of the paper.

    Attributes:
        id: Identifier of the claim.
        where: Where the paper makes it.
        text: The claim in one sentence.
        manifests: Manifests of its experiment, by their names or the beginnings of these.
        settings: Settings of the paper's own experiment.
        only_there: Whether the claim has no meaning on other data.
        own_schedule: Whether the claim has no meaning if originals are trained for another number of epochs.
        rule: Rule that must hold.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    where: str
    text: str
    manifests: Annotated[tuple[str, ...], Field(min_length=1)]
    settings: Annotated[tuple[str, ...], Field(min_length=1)]
    only_there: bool = False
    own_schedule: bool = False
    rule: Rule

    def is_of(self, manifest: str) -> bool:
        """Return whether a manifest runs the claim's experiment."""
        return any(manifest == name or manifest.startswith(f"{name}-") for name in self.manifests)


class Claims(ClaimPart):
    """The whole file: settings by name, and the claims."""

    settings: dict[str, Setting]
    claims: tuple[Claim, ...]


def read_claims(text: str, file: str = FILE) -> Claims:
    """Parse claims from the text of a file.

    Raises:
        InvalidFileError: If the text has faults, all of which are named.
    """
    try:
        found = Claims.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InvalidFileError(f"{file}: not valid TOML: {error}") from error
    except ValidationError as error:
        faults = [f"{file}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise InvalidFileError("\n".join(faults)) from error
    names = [claim.id for claim in found.claims]
    faults = [f"{file}: {name}: stands there {names.count(name)} times" for name in names if names.count(name) > 1]
    for claim in found.claims:
        unknown = [name for name in claim.settings if name not in found.settings]
        faults += [f"{file}: {claim.id}: no setting has the name {name!r}" for name in unknown]
    if faults:
        raise InvalidFileError("\n".join(dict.fromkeys(faults)))
    return found


@functools.cache
def known_claims() -> Claims:
    """Return the claims that come with the package."""
    return read_claims(files("unlearnbench.results.report").joinpath(FILE).read_text(encoding="utf-8"))


def values_of(rule: AnyRule) -> tuple[Value, ...]:
    """Return all values that a rule looks at, nested ones included."""
    return tuple(inner for value in _tops(rule) for inner in _with_inner(value))


def _tops(rule: AnyRule) -> tuple[Value, ...]:
    match rule:
        case Bounded():
            return expanded(rule.value, rule.each)
        case Within():
            return (*expanded(rule.value, rule.each), rule.of)
        case Less():
            return rule.value, rule.than
        case Best():
            return expanded(rule.value, Each(option=rule.option, values=rule.values))
        case Ordered():
            return rule.values
        case Lowest():
            others = [rule.of(method) for method in rule.among]
            return tuple(value for one in (rule, *others) for value in (one.value, one.kept))


def expanded(value: Value, each: Each | None) -> tuple[Value, ...]:
    """Return the value once for each value of an option, or as it is if there is no option."""
    return (value,) if each is None else tuple(value.with_options(**{each.option: option}) for option in each.values)


def _with_inner(value: Value) -> tuple[Value, ...]:
    inner = tuple(found for part in (value.minus, value.apart_from) if part is not None for found in _with_inner(part))
    return (value, *inner)


def alternatives(rule: AnyRule) -> tuple[AnyRule, ...]:
    """Return the rules of which one must hold: one for each epoch, where a value names several."""
    several = next((value.epoch for value in _tops(rule) if isinstance(value.epoch, tuple)), None)
    if several is None:
        return (rule,)
    return tuple(_changed(rule, functools.partial(_after, several=several, epoch=epoch)) for epoch in several)


def _after(value: Value, several: Epoch, epoch: int) -> Value:
    return value.model_copy(update={"epoch": epoch}) if value.epoch == several else value


def about(rule: AnyRule, method: str) -> AnyRule | None:
    """Return a rule about ERwP as one about another method that has no options and no epochs, or None if it is not.

    Rules that compare options, epochs or methods with each other mean nothing for another method.
    """
    if not isinstance(rule, Bounded | Within | Less) or not any(value.method == "erwp" for value in _tops(rule)):
        return None
    plain: dict[str, Any] = {"method": method, "options": {}, "epoch": None, "since": 1}
    found = _changed(rule, lambda value: value.model_copy(update=plain) if value.method == "erwp" else value)
    return found if isinstance(found, Less) else found.model_copy(update={"each": None})


def _changed(rule: AnyRule, change: Callable[[Value], Value]) -> AnyRule:
    """Return a rule with other values, including those that are subtracted."""

    def deep(value: Value) -> Value:
        inner = {key: deep(one) for key in ("minus", "apart_from") if (one := getattr(value, key)) is not None}
        return change(value.model_copy(update=inner))

    fields = {name: getattr(rule, name) for name in type(rule).model_fields}
    updates: dict[str, Any] = {name: deep(one) for name, one in fields.items() if isinstance(one, Value)}
    if isinstance(rule, Ordered):
        updates["values"] = tuple(map(deep, rule.values))
    return rule.model_copy(update=updates)
