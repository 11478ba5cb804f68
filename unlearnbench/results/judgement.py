"""What the ranking rule says of a single method: what it kept, what its outputs and its features forgot.

Everything here follows from the records of the method, of Original and of FDR; no other method changes it.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unlearnbench.results.records.record import Record
from unlearnbench.results.rows import Judgement, Row, Word
from unlearnbench.results.statistics import (
    bootstrap_image_draws,
    bootstrap_means,
    percentile_interval,
    seeds_and_images_interval,
)
from unlearnbench.terms import POSITIONS, SHORT, VIEW_METRICS

MASKED = "masked_retain_accuracy"
RELATIVE = "relative_verdict"
# A method may lose this much of the retain classes, among whose outputs alone the loss is measured.
MOST_LOSS = 0.02
# Its outputs have forgotten if FAe is at most this, or at most this share of Original's.
MOST_FAE, MOST_FAE_SHARE = 0.05, 0.1
# With fewer seeds there is no rank yet.
FEWEST_SEEDS = 3
# Two FDR models of different seeds lie within this many standard deviations in 95 of 100 cases.
NORMAL_95 = 1.96


def judged(row: Row, original: Row, fdr: Row) -> Judgement:
    """Return what the ranking rule says of a method whose seeds both references have."""
    seeds = sorted(row.values(SHORT["FAe"]).keys() & original.values(SHORT["FAe"]).keys())
    forget = _forget(row, original, seeds)
    missing = _lacking(row, original, fdr)
    if missing:
        return Judgement(forget=forget, relative=relative(row), provisional=missing)
    keep, loss = _keep(row, original, seeds)
    positions = positions_by_seed(row, original, fdr)
    means = {view: statistics.fmean(values.values()) for view, values in positions.items() if values}
    sizes = {view: statistics.fmean(map(abs, positions[view].values())) for view in means}
    few = f"{len(seeds)} seed{'s' * (len(seeds) != 1)}, {FEWEST_SEEDS} are needed for a rank"
    return Judgement(
        keep=keep,
        loss=loss,
        forget=forget,
        positions=means,
        farthest=max(sizes, key=lambda view: sizes[view]),
        distance=statistics.fmean(distances(positions).values()),
        said=_said(means, sizes, noise_floor(original, fdr)),
        relative=relative(row),
        provisional=few if len(seeds) < FEWEST_SEEDS else "",
    )


def _lacking(row: Row, original: Row, fdr: Row) -> str:
    """Return which metric of the rule a row lacks; "" if it has all for each of its seeds."""
    for metric, view in ((MASKED, None), *((metric, view) for view, metric in POSITIONS.items())):
        for holder, name in ((row, ""), (original, "Original's ")):
            lacking = [
                record
                for record in row.done
                if record.seed not in holder.values(metric)
                and (view is None or has_scale(original, fdr, view, record.seed))
            ]
            if lacking:
                found = lacking[0].metrics.get(metric) if holder is row else None
                made = "the records were made before this metric" if found is None else found.reason
                return f"{name}{metric} is missing with seed {', '.join(str(one.seed) for one in lacking)}: {made}"
    blind = [
        str(record.seed)
        for record in row.done
        if not any(has_scale(original, fdr, view, record.seed) for view in POSITIONS)
    ]
    if blind:
        return f"with seed {', '.join(blind)} no view finds more of the forget images in Original than in FDR"
    return ""


def has_scale(original: Row, fdr: Row, view: str, seed: int) -> bool:
    """Return whether a view finds more of the forget images in Original than in FDR, as far as the records say.

    Where it does not, there is nothing that a method could have forgotten in this view, and a position would have no
    meaning: the other views judge this seed. On small data a linear probe may find as much in both.
    """
    top, base = (holder.values(VIEW_METRICS[view]).get(seed) for holder in (original, fdr))
    return top is None or base is None or top > base


def word(low: float, high: float, limit: float) -> Word:
    """Return whether an interval lies at or below a limit, holds it, or lies above it."""
    # The bootstrap draws in single precision.
    slack = 1e-6
    return "passed" if high <= limit + slack else "failed" if low > limit + slack else "undecided"


def _keep(row: Row, original: Row, seeds: Sequence[int]) -> tuple[Word, tuple[float, float, float]]:
    """Return the verdict on the retain classes, and the loss with the bounds of its interval."""
    own, before = (holder.outcomes(MASKED, seeds).astype(np.float64) for holder in (row, original))
    if own.shape != before.shape:
        own, before = own.mean(axis=1, keepdims=True), before.mean(axis=1, keepdims=True)
    low, high = percentile_interval(bootstrap_means(before - own))
    return word(low, high, MOST_LOSS), (float((before - own).mean()), low, high)


def _forget(row: Row, original: Row, seeds: Sequence[int]) -> Word:
    """Return the verdict on the outputs."""
    metric = SHORT["FAe"]
    before = statistics.fmean(original.values(metric)[seed] for seed in seeds)
    low, high = percentile_interval(bootstrap_means(row.outcomes(metric, seeds).astype(np.float64)))
    return word(low, high, most_fae(before))


def most_fae(before: float) -> float:
    """Return the FAe up to which outputs count as having forgotten, as a fraction.

    Args:
        before: Original's FAe, a fraction.
    """
    return max(MOST_FAE, MOST_FAE_SHARE * before)


def positions_by_seed(row: Row, original: Row, fdr: Row) -> dict[str, dict[int, float]]:
    """Return a row's position by view and seed, without the seeds for which the view has no scale."""
    return {
        view: {seed: value for seed, value in row.values(metric).items() if has_scale(original, fdr, view, seed)}
        for view, metric in POSITIONS.items()
    }


def distances(positions: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """Return the largest |position| over the views that have one, by seed."""
    seeds = sorted(set().union(*(values.keys() for values in positions.values())))
    return {seed: max(abs(values[seed]) for values in positions.values() if seed in values) for seed in seeds}


def drawn_distances(row: Row, original: Row, fdr: Row, seeds: Sequence[int]) -> NDArray[np.float64]:
    """Return the largest |position| of each seed in each resample of the test images, (B, S).

    The distance from FDR is that of the resample, and the scale from FDR to Original stays that of all images: it is
    the same for all methods and decides nothing between two of them, but of few images it may be near 0, and no
    difference of quotients would ever be seen. Where the records do not say which images count, or the references'
    images are others, all resamples are alike.
    """
    found = []
    for view, positions in positions_by_seed(row, original, fdr).items():
        metric = VIEW_METRICS[view]
        outcomes = [holder.outcomes(metric, seeds) for holder in (row, original, fdr) if _has(holder, metric, seeds)]
        fixed = np.array([abs(positions.get(seed, np.nan)) for seed in seeds])
        if len(outcomes) < 3 or len({shares.shape for shares in outcomes}) > 1 or outcomes[0].shape[1] == 1:
            found.append(bootstrap_image_draws(fixed[:, None]))
            continue
        own, before, base = outcomes
        scale = np.where(np.isnan(fixed), np.nan, before.mean(axis=1) - base.mean(axis=1))
        found.append(np.abs((bootstrap_image_draws(own) - bootstrap_image_draws(base)) / scale))
    # A seed without any view has no distance at all.
    drawn: NDArray[np.float64] = np.fmax.reduce(found)
    return drawn


def _has(row: Row, metric: str, seeds: Sequence[int]) -> bool:
    return set(seeds) <= row.values(metric).keys()


def noise_floor(original: Row, fdr: Row) -> dict[str, float]:
    """Return, by view, the distance within which two FDR models of different seeds lie in 95 of 100 cases.

    It is measured in positions: 1.96 times the standard deviation of the difference of two such models' accuracies,
    over the mean distance from Original to FDR. It is empty with fewer than three seeds.
    """
    floors = {}
    for view, metric in VIEW_METRICS.items():
        known, tops = fdr.values(metric), original.values(metric)
        seeds = sorted(known.keys() & tops.keys())
        if len(seeds) < FEWEST_SEEDS:
            return {}
        scale = statistics.fmean(tops[seed] - known[seed] for seed in seeds)
        pairs = [(known[one] - known[other]) ** 2 for one, other in itertools.combinations(seeds, 2)]
        floors[view] = NORMAL_95 * math.sqrt(statistics.fmean(pairs)) / abs(scale) if scale else math.inf
    return floors


def relative(row: Row) -> tuple[float, float, float] | None:
    """Return the relative verdict's value, mean over seeds, with the bounds of its interval over seeds and images.

    It is None where a record lacks it or, since details have no schema, its interval over the images.
    """
    values = row.values(RELATIVE)
    halves = {record.seed: _half_over_images(record) for record in row.done if record.seed in values}
    known = [half for half in halves.values() if half is not None]
    if not known or len(known) < len(row.done):
        return None
    bounds = seeds_and_images_interval(list(values.values()), known)
    # No mean of differences of shares can lie beyond.
    return None if bounds is None else (statistics.fmean(values.values()), max(-1.0, bounds[0]), min(1.0, bounds[1]))


def _half_over_images(record: Record) -> float | None:
    """Return half the width of a record's own interval of the relative verdict."""
    bounds = record.metrics[RELATIVE].details.get("interval")
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(isinstance(one, int | float) for one in bounds):
        return None
    half = (bounds[1] - bounds[0]) / 2
    return float(half) if math.isfinite(half) and half >= 0 else None


def _said(means: Mapping[str, float], sizes: Mapping[str, float], floors: Mapping[str, float]) -> str:
    """Return in words where the features lie: at FDR, which views still know, and which are below FDR."""
    beyond = [view for view in means if sizes[view] > floors.get(view, 0.0)]
    parts = {
        "residual": [view for view in beyond if means[view] > 0],
        "damaged": [view for view in beyond if means[view] <= 0],
    }
    named = {word: "all views" if len(views) == len(POSITIONS) else ", ".join(views) for word, views in parts.items()}
    return ", ".join(f"{word} ({views})" for word, views in named.items() if views) or "at FDR"
