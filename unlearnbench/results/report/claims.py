"""What a paper claims, as rules over measured values, and whether they hold. Data: `claims.toml`."""

from __future__ import annotations

import functools
import tomllib
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unlearnbench.errors import InvalidFileError

FILE = "claims.toml"
Epoch = Annotated[int, Field(ge=1)] | Literal["last", "every"]


class Part(BaseModel):
    """A table of the file: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(Part):
    """A measured value: a metric of a method, or the difference of two.

    Attributes:
        method: Name of the method, `original` or `fdr`.
        metric: Name of a metric; `speed_up_seconds`; or `speed_up_epochs`, FDR's image passes over the method's epochs
            times its limited images.
        options: Options of the method in which it differs from the paper's own.
        metric_options: Options of the metric.
        data: Whether the method had the `limited` data or the `full` training set.
        epoch: After that epoch, counted from 1, after the `last` one, or after `every` one; None at the end.
        minus: What is taken away, seed by seed.
        apart_from: The value is the distance from this one, whatever its sign.
    """

    method: str
    metric: str
    options: dict[str, Any] = {}
    metric_options: dict[str, Any] = {}
    data: Literal["limited", "full"] = "limited"
    epoch: Epoch | None = None
    minus: Value | None = None
    apart_from: Value | None = None

    def with_options(self, **options: Any) -> Value:
        """Return the value of the same method with other options."""
        return self.model_copy(update={"options": {**self.options, **options}})


class Each(Part):
    """Several values, told apart by an option of the method: the rule must hold for each.

    Attributes:
        option: Its name.
        values: Its values.
    """

    option: str
    values: tuple[Any, ...]


class Bounded(Part):
    """The value is at most, or at least, a number; in percent for shares."""

    kind: Literal["at_most", "at_least"]
    value: Value
    bound: float
    each: Each | None = None


class Within(Part):
    """The value lies within so many points of another one, seed by seed, in the mean."""

    kind: Literal["within"]
    value: Value
    of: Value
    points: Annotated[float, Field(ge=0)]
    each: Each | None = None


class Less(Part):
    """The value is less than another one, in the mean."""

    kind: Literal["less"]
    value: Value
    than: Value


class Best(Part):
    """Of several values of an option one gives the highest, or the lowest, value."""

    kind: Literal["best"]
    value: Value
    option: str
    values: tuple[Any, ...]
    best: Any
    by: Literal["highest", "lowest"] = "highest"


class Ordered(Part):
    """Values fall, or rise, one after the other; a step the other way of up to `slack` points is forgiven.

    `values` with one value after `every` epoch are its values by epoch.
    """

    kind: Literal["order"]
    values: Annotated[tuple[Value, ...], Field(min_length=1)]
    direction: Literal["falling", "rising"]
    slack: Annotated[float, Field(ge=0)] = 0.0


class Lowest(Part):
    """A method has the lowest value among those that keep another value within so many points of Original's.

    Attributes:
        kind: `lowest`.
        value: Of the method that is claimed to have it.
        among: Names of the other methods.
        kept: What must be kept, of the same method.
        points: How near to Original's.
    """

    kind: Literal["lowest"]
    value: Value
    among: Annotated[tuple[str, ...], Field(min_length=1)]
    kept: Value
    points: Annotated[float, Field(ge=0)]

    def of(self, method: str) -> Lowest:
        """Return the same rule for another method."""
        values = {key: getattr(self, key).model_copy(update={"method": method}) for key in ("value", "kept")}
        return self.model_copy(update=values)


AnyRule = Bounded | Within | Less | Best | Ordered | Lowest
Rule = Annotated[AnyRule, Field(discriminator="kind")]


class Setting(Part):
    """Data set and network of the paper's own experiment, with the epochs that it trained originals for."""

    dataset: str
    architecture: str
    epochs: int


class Claim(Part):
    """One claim.

    Attributes:
        id: Its name.
        where: Where the paper makes it.
        text: The claim in one sentence.
        manifests: Its experiment: names of manifests, or how they begin.
        settings: Where the paper made the experiment.
        only_there: Whether it means nothing on other data.
        own_schedule: Whether it means nothing where originals are trained for another number of epochs.
        rule: What must be so.
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


class Claims(Part):
    """The whole file: settings by name, and the claims."""

    settings: dict[str, Setting]
    claims: tuple[Claim, ...]


def read_claims(text: str, file: str = FILE) -> Claims:
    """Return the claims in a text.

    Raises:
        InvalidFileError: With all faults of the text.
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
    return read_claims(files("unlearnbench.results.report").joinpath(FILE).read_text())


def values_of(rule: AnyRule) -> tuple[Value, ...]:
    """Return all values that a rule looks at, those within others too."""
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
    """Return a value for each value of an option, or the one without."""
    return (value,) if each is None else tuple(value.with_options(**{each.option: option}) for option in each.values)


def _with_inner(value: Value) -> tuple[Value, ...]:
    inner = tuple(found for part in (value.minus, value.apart_from) if part is not None for found in _with_inner(part))
    return (value, *inner)
