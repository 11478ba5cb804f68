"""The verdict on each claim: whether it holds in the records, as far as their seeds can tell."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unlearnbench.models.federation.federation import Federation
from unlearnbench.results.records.record import Record
from unlearnbench.results.report.claim_values import (
    Case,
    Measured,
    NotMeasuredError,
    cases,
    epochs_of,
    is_share,
    measured,
)
from unlearnbench.results.report.claims import (
    AnyRule,
    Best,
    Bounded,
    Claim,
    Claims,
    Each,
    Less,
    Lowest,
    Ordered,
    Setting,
    Value,
    Within,
    about,
    alternatives,
    expanded,
    known_claims,
    values_of,
)
from unlearnbench.results.statistics import standard_deviation, t_interval

Verdict = Literal["holds", "does not hold", "undecided", "not run"]
# Of several ways to meet a claim the best one counts.
BEST_FIRST: tuple[Verdict, ...] = ("holds", "undecided", "does not hold")
# Whoever asks of ERwP what this control does as well has asked little.
CONTROL = "wd"
# Summing in another order may leave a rounding error of this size.
EPSILON = 1e-9


@dataclass(frozen=True)
class JudgedClaim:
    """The outcome of a claim in one case.

    Attributes:
        claim: The claim.
        verdict: Whether it holds; undecided where the bound lies inside the 95 % interval.
        found: Measured values in words, or what is missing.
        where: Data set, network and forget classes of the case; "" if none of its experiment was run.
        same: How close the case is to the paper's: `the paper's`, `other schedule`, `other network` or `other data`.
        under_trained: Whether its originals are more than 5 points below the published accuracy of their network.
        says_little: Whether weight deletion, which forgets nothing but its outputs, meets a claim about ERwP too.
    """

    claim: Claim
    verdict: Verdict
    found: str
    where: str = ""
    same: str = ""
    under_trained: bool = False
    says_little: bool = False


@dataclass(frozen=True)
class Margin:
    """By how much a condition is met, seed by seed: above 0 it is.

    Attributes:
        by: The margin.
        strict: Whether a margin of 0 is too little.
    """

    by: Measured
    strict: bool = False

    @property
    def verdict(self) -> Verdict:
        """Whether the condition holds; undecided where the 95 % t interval over seeds holds the bound.

        A single seed has no interval and decides nothing.
        """
        interval = t_interval(list(self.by.by_seed.values()))
        if interval is None:
            return "undecided"
        least = EPSILON if self.strict else -EPSILON
        low, high = interval
        return "holds" if low > least else "does not hold" if high <= least else "undecided"


def _verdict(margins: Iterable[Margin]) -> Verdict:
    """Return the verdict on a rule all of whose conditions must hold."""
    found = {margin.verdict for margin in margins}
    return max(found, key=BEST_FIRST.index, default="holds")


def judged_claims(records: Iterable[Record], claims: Claims | None = None) -> list[JudgedClaim]:
    """Return each claim with its verdict, one for each case that its experiment was run on, but at least one."""
    known = claims or known_claims()
    every = cases(records)
    found = []
    for claim in known.claims:
        settings = [known.settings[name] for name in claim.settings]
        looked_at = {case.problems: case for case in (_looked_at(claim, case) for case in every) if case is not None}
        concerned = [case for case in looked_at.values() if _concerns(claim, case, settings)]
        tried = [_outcome(claim, case, settings) for case in concerned]
        found += tried or [JudgedClaim(claim, "not run", f"no record of {' or '.join(claim.manifests)}")]
    return found


def _looked_at(claim: Claim, case: Case) -> Case | None:
    """Return a case without the records that a claim does not look at, or None if nothing is left."""
    kinds = {value.data for value in values_of(claim.rule)}
    every = (*case.limited, *case.full, *case.drawn)
    own = frozenset(record.manifest_name for record in every if claim.is_of(record.manifest_name))
    kept = {data: case.records(data) if data in kinds else () for data in ("limited", "full", "drawn")}
    left = Case(**kept, own=own)
    return left if left.limited or left.full else None


def _concerns(claim: Claim, case: Case, settings: Sequence[Setting]) -> bool:
    """Return whether records of a case belong to the claim's experiment."""
    kinds = {value.data for value in values_of(claim.rule)}
    of_claim = case.full if "full" in kinds else case.limited
    if "drawn" in kinds and not is_share(case.problem):
        return False
    there = not claim.only_there or any(_fits(case, setting) for setting in settings)
    return there and any(claim.is_of(record.manifest_name) for record in of_claim)


def _fits(case: Case, setting: Setting) -> bool:
    return (case.problem.dataset, case.problem.architecture) == (setting.dataset, setting.architecture)


def _outcome(claim: Claim, case: Case, settings: Sequence[Setting]) -> JudgedClaim:
    problem = case.problem
    left = problem.limited if problem.federation is None else f"{problem.limited} of {_federated(problem.federation)}"
    where = f"{problem.data_name} / {problem.architecture}, {len(problem.forget_classes)} forgotten, {left} left"
    same = nearness(case, settings)
    if claim.own_schedule and same != "the paper's":
        epochs = "given weights" if problem.weights else f"{problem.training.get('epochs')} epochs"
        return JudgedClaim(claim, "not run", f"originals of the paper's schedule: {epochs} here", where, same)
    try:
        verdict, found = judged(claim.rule, case)
    except NotMeasuredError as error:
        return JudgedClaim(claim, "not run", str(error), where, same)
    beside = [record.beside_published for record in (*case.limited, *case.full)]
    under_trained = any(one.under_trained for one in beside if one is not None)
    return JudgedClaim(claim, verdict, found, where, same, under_trained, _says_little(claim.rule, case))


def _federated(settings: Mapping[str, Any]) -> str:
    federation = Federation.model_validate_json(json.dumps(settings))
    return f"{federation.parties} parties ({federation.alike})"


def _says_little(rule: AnyRule, case: Case) -> bool:
    """Return whether a rule about ERwP holds for weight deletion as well."""
    asked = about(rule, CONTROL)
    try:
        return asked is not None and judged(asked, case)[0] == "holds"
    except NotMeasuredError:
        return False


def nearness(case: Case, settings: Sequence[Setting]) -> str:
    """Return how close a case is to the settings of the paper."""
    fitting = [setting for setting in settings if _fits(case, setting)]
    if fitting:
        trained = case.problem.weights is None
        same = trained and any(case.problem.training.get("epochs") == setting.epochs for setting in fitting)
        return "the paper's" if same or not trained else "other schedule"
    known = any(case.problem.dataset == setting.dataset for setting in settings)
    return "other network" if known else "other data"


def judged(rule: AnyRule, case: Case) -> tuple[Verdict, str]:
    """Return whether a rule holds in a case, and the measured values in words.

    A rule that may be met after one of several epochs is judged by the epoch that meets it best.

    Raises:
        NotMeasuredError: If the records lack values, all of which are named.
    """
    tried = [_judged(one, case) for one in alternatives(rule)]
    return min(tried, key=lambda one: BEST_FIRST.index(one[0]))


def _judged(rule: AnyRule, case: Case) -> tuple[Verdict, str]:
    match rule:
        case Bounded():
            return _bounded(rule, case)
        case Within():
            return _within(rule, case)
        case Less():
            first, second = _all([rule.value, rule.than], case)
            return Margin(second.less(first), strict=True).verdict, f"{first} against {second}"
        case Best():
            return _best(rule, case)
        case Ordered():
            return _ordered(rule, case)
        case Lowest():
            return _lowest(rule, case)


def _all(values: Iterable[Value], case: Case) -> list[Measured]:
    """Return measured values.

    Raises:
        NotMeasuredError: If any are missing, all of which are named.
    """
    found, missing = [], []
    for value in values:
        try:
            found.append(measured(value, case))
        except NotMeasuredError as error:
            missing.append(str(error))
    if missing:
        raise NotMeasuredError("; ".join(dict.fromkeys(missing)))
    return found


def _by_epoch(value: Value, case: Case) -> list[Value]:
    """Return a value for each epoch if it is asked for after every one, and otherwise the value itself."""
    if value.epoch != "every":
        return [value]
    return [value.model_copy(update={"epoch": epoch}) for epoch in epochs_of(value, case)]


def _spread(value: Value, each: Each | None, case: Case) -> Iterator[tuple[str, Value]]:
    """Yield the values that a rule must hold for, each with the words that distinguish it from the others."""
    for one in expanded(value, each):
        for other in _by_epoch(one, case):
            words = [f"{each.option} {other.options[each.option]:g}"] if each else []
            words += [f"epoch {other.epoch}"] if value.epoch == "every" else []
            yield " ".join(words), other


def _bounded(rule: Bounded, case: Case) -> tuple[Verdict, str]:
    names, values = zip(*_spread(rule.value, rule.each, case), strict=True)
    found = list(zip(names, _all(values, case), strict=True))
    sign = -1.0 if rule.kind == "at_most" else 1.0
    margins = [Margin(value.moved(sign, -sign * rule.bound)) for _, value in found]
    name, worst = min(found, key=lambda pair: sign * pair[1].mean)
    return _verdict(margins), _words(name, worst, len(found))


def _within(rule: Within, case: Case) -> tuple[Verdict, str]:
    names, values = zip(*_spread(rule.value, rule.each, case), strict=True)
    *found, base = _all([*values, rule.of], case)
    differences = [(name, value.less(base)) for name, value in zip(names, found, strict=True)]
    name, worst = max(differences, key=lambda pair: abs(pair[1].mean))
    margins = [Margin(one.moved(sign, rule.points)) for _, one in differences for sign in (1.0, -1.0)]
    interval = t_interval(list(worst.by_seed.values()))
    # Two kinds of limited data are compared for their difference itself.
    between = interval if rule.of.data != rule.value.data else None
    told = f", 95 % interval {between[0]:.2f} to {between[1]:.2f}" if between else ""
    return _verdict(margins), f"difference {_words(name, worst, len(found))}{told}"


def _words(name: str, value: Measured, of: int) -> str:
    return f"{value}" if of == 1 else f"{value}, the worst of {of}: {name}"


def _best(rule: Best, case: Case) -> tuple[Verdict, str]:
    found = _all(expanded(rule.value, Each(option=rule.option, values=rule.values)), case)
    pairs = list(zip(rule.values, found, strict=True))
    sign = 1.0 if rule.by == "highest" else -1.0
    best, value = max(pairs, key=lambda pair: sign * pair[1].mean)
    claimed = next(one for option, one in pairs if option == rule.best)
    verdict = _verdict(Margin(claimed.less(one).moved(sign)) for option, one in pairs if option != rule.best)
    if best == rule.best:
        return verdict, f"{rule.option} {best:g}: {value}"
    return verdict, f"{rule.option} {best:g}: {value}; {rule.option} {rule.best:g}: {claimed}"


def _ordered(rule: Ordered, case: Case) -> tuple[Verdict, str]:
    found = _all([one for value in rule.values for one in _by_epoch(value, case)], case)
    if len(found) < 2:
        raise NotMeasuredError(f"{found[0].name}: a single value has no order")
    sign = 1.0 if rule.direction == "rising" else -1.0
    # Without slack, equal values are not in order either.
    steps = [
        Margin(after.less(before).moved(sign, rule.slack), strict=not rule.slack)
        for before, after in itertools.pairwise(found)
    ]
    return _verdict(steps), _listed(found)


def _listed(values: Sequence[Measured]) -> str:
    """Return values in words; if there are many, their means, followed by the spread and the seeds of all."""
    if len(values) <= 5:
        return ", ".join(map(str, values))
    spreads = [spread for value in values if (spread := standard_deviation(list(value.by_seed.values())))]
    seeds = sorted({len(value.by_seed) for value in values})
    of = f"{'-'.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} {'seed' if seeds == [1] else 'seeds'}"
    widest = f"± up to {max(spreads):.2f}, " if spreads else ""
    return f"{', '.join(f'{value.mean:.2f}' for value in values)} ({widest}{of})"


def _lowest(rule: Lowest, case: Case) -> tuple[Verdict, str]:
    own, kept, original = _all([rule.value, rule.kept, rule.kept.model_copy(update={"method": "original"})], case)
    loss = original.less(kept)
    keeps = Margin(loss.moved(-1.0, rule.points))
    if loss.mean > rule.points + EPSILON:
        return keeps.verdict, f"{own}, but what is kept is {loss.mean:.2f} points below Original's"
    rivals = {}
    for method in rule.among:
        value, its_kept = _all([rule.of(method).value, rule.of(method).kept], case)
        if original.less(its_kept).mean <= rule.points + EPSILON:
            rivals[method] = value
    if not rivals:
        return keeps.verdict, f"{own}; no other method keeps it"
    name, best = min(rivals.items(), key=lambda pair: pair[1].mean)
    lower = [Margin(value.less(own), strict=True) for value in rivals.values()]
    return _verdict([keeps, *lower]), f"{own} against {best} of {name}"
