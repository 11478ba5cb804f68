"""The geometry of a trade-off plot: numbers for a template that draws SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unlearnbench.results.judgement import MOST_LOSS
from unlearnbench.results.leaderboard.view import Line, ProblemBoard
from unlearnbench.results.summaries.profile import Overall
from unlearnbench.results.tables import points
from unlearnbench.terms import SHORT

WIDTH, HEIGHT = 520, 360
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44
# The size of a label is in the same units, and these are approximately the font's.
LETTER, LINE_HEIGHT = 6.4, 13.0
MARK = 7.0
# This share of an axis is left to values far below the gate.
COMPRESSED = 0.28


@dataclass(frozen=True)
class Tick:
    """A number on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """An unlearner's mean, its seeds and its label.

    Attributes:
        line: Line of the unlearner.
        number: Position among the problem's lines.
        x: Position of the mean along the x axis.
        y: Position of the mean along the y axis.
        seeds: (x, y) of each seed.
        label: (x, y) of the left end of the label's base line; None if there is no room.
        title: The numbers in words.
    """

    line: Line
    number: int
    x: float
    y: float
    seeds: tuple[tuple[float, float], ...]
    label: tuple[float, float] | None
    title: str


@dataclass(frozen=True)
class Plot:
    """A plot of CAne against one of the two other metrics.

    Attributes:
        name: Name of the metric on the x axis: `FAe` or `FPAe`.
        x_ticks: Ticks along the bottom.
        y_ticks: Ticks along the left side.
        marks: Marks, references first.
        gate: y of the CAne that an unlearner must keep; None if unknown.
        yardstick: x of FDR; None if unknown.
        bend: y below which CAne is drawn on a compressed scale; None if the whole scale is linear.
    """

    name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    gate: float | None
    yardstick: float | None
    bend: float | None


class Axis:
    """An axis from the lowest to the highest value, linear above a bend and compressed below it.

    Args:
        values: Fractions; at least one.
        start: Position of the low end.
        end: Position of the high end.
        bend: Fraction below which the scale is compressed if most of the axis would go there; None for a linear axis.
    """

    def __init__(self, values: Iterable[float], start: float, end: float, bend: float | None = None) -> None:
        percents = [100 * value for value in values]
        low, high = min(percents), max(percents)
        margin = max(0.04 * (high - low), 0.5)
        # A point at 0 % is kept clear of the frame.
        self._low, self._high = (low - margin if low > margin else -margin), high + margin
        self._start, self._end = start, end
        self.bend: float | None = None
        if bend is not None and 100 * bend - low > 1.5 * (high - 100 * bend) > 0:
            self.bend, self._low = bend, low - 0.06 * (high - low)

    def at(self, value: float) -> float:
        """Return the position of a fraction."""
        percent = 100 * value
        bottom, below = self._low, 0.0
        if self.bend is not None:
            if percent < 100 * self.bend:
                share = COMPRESSED * (percent - self._low) / (100 * self.bend - self._low)
                return round(self._start + share * (self._end - self._start), 1)
            bottom, below = 100 * self.bend, COMPRESSED
        share = below + (1 - below) * (percent - bottom) / (self._high - bottom)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self) -> tuple[Tick, ...]:
        """Return the numbers along the axis."""
        if self.bend is None:
            return self._ticks(self._low, self._high, 6)
        return self._ticks(self._low, 100 * self.bend - 1e-6, 2) + self._ticks(100 * self.bend, self._high, 4)

    def _ticks(self, low: float, high: float, steps: int) -> tuple[Tick, ...]:
        step = _round_step(max(high - low, 1.0) / steps)
        first = math.ceil(max(low, 0) / step - 1e-9)
        last = math.floor(min(high, 100) / step + 1e-9)
        numbers = (number * step for number in range(first, last + 1))
        return tuple(Tick(self.at(number / 100), f"{number:g}") for number in numbers)


def _round_step(step: float) -> float:
    """Return the smallest number that is 1, 2 or 5 times a power of ten and at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step - 1e-9)


def plots(board: ProblemBoard) -> list[Plot]:
    """Return the plots of a problem, CAne against FAe and against FPAe, without those that have no result."""
    return [plot for plot in (_plot(board, "FAe"), _plot(board, "FPAe")) if plot.marks]


def _plot(board: ProblemBoard, name: str) -> Plot:
    seeds = [_seeds(line, name) for line in board.lines]
    every = [point for of_line in seeds for point in of_line]
    if not every:
        return Plot(name, (), (), (), None, None, None)
    original, fdr = board.reference("original"), board.reference("fdr")
    kept = original.row.mean(SHORT["CAne"]) if original else None
    gate = None if kept is None else kept - MOST_LOSS
    x = Axis((point[0] for point in every), LEFT, WIDTH - RIGHT)
    heights = [point[1] for point in every] + ([gate] if gate is not None else [])
    # The bend lies just below the gate, so that unlearners that fail it narrowly share the scale of those that pass.
    bend = None if gate is None else gate - 0.4 * (max(heights) - gate)
    y = Axis(heights, HEIGHT - BOTTOM, TOP, bend)
    yardstick = fdr.row.mean(SHORT[name]) if fdr else None
    return Plot(
        name,
        x.ticks(),
        y.ticks(),
        _marks(board, name, seeds, x, y),
        None if gate is None else y.at(gate),
        None if yardstick is None else x.at(yardstick),
        None if y.bend is None else y.at(y.bend),
    )


def _seeds(line: Line, name: str) -> list[tuple[float, float]]:
    kept = line.row.values(SHORT["CAne"])
    return [(value, kept[seed]) for seed, value in line.row.values(SHORT[name]).items() if seed in kept]


def _marks(
    board: ProblemBoard, name: str, seeds: Sequence[Sequence[tuple[float, float]]], x: Axis, y: Axis
) -> tuple[Mark, ...]:
    every = enumerate(zip(board.lines, seeds, strict=True))
    shown = [(number, line, pairs) for number, (line, pairs) in every if pairs]
    centres = [
        (x.at(sum(pair[0] for pair in pairs) / len(pairs)), y.at(sum(pair[1] for pair in pairs) / len(pairs)))
        for _, _, pairs in shown
    ]
    labels = _labels([line.name for _, line, _ in shown], centres)
    return tuple(
        Mark(
            line,
            number,
            *centre,
            tuple((x.at(first), y.at(second)) for first, second in pairs),
            label,
            _title(line, name),
        )
        for (number, line, pairs), centre, label in zip(shown, centres, labels, strict=True)
    )


def _title(line: Line, name: str) -> str:
    values = {short: points(line.row.mean(SHORT[short])) for short in (name, "CAne")}
    return f"{line.name}: {', '.join(f'{short} {value} %' for short, value in values.items())}"


def _labels(names: Sequence[str], centres: Sequence[tuple[float, float]]) -> list[tuple[float, float] | None]:
    """Place labels beside their marks, one after the other, where they cover neither a mark nor another label."""
    taken = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in centres]
    found: list[tuple[float, float] | None] = []
    for name, (x, y) in zip(names, centres, strict=True):
        width = LETTER * len(name)
        place = None
        for left, base in _candidates(x, y, width):
            box = (left, base - LINE_HEIGHT + 3, left + width, base + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= TOP and box[3] <= HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                place = (round(left, 1), round(base, 1))
                taken.append(box)
                break
        found.append(place)
    return found


def _candidates(x: float, y: float, width: float) -> Iterable[tuple[float, float]]:
    """Yield the left end and base line of possible labels, nearest first."""
    for distance in (0.0, 13.0, 26.0, 39.0):
        for shift in (distance, -distance) if distance else (0.0,):
            yield x + MARK + 3, y + 4 + shift
            yield x - MARK - 3 - width, y + 4 + shift
        yield x - width / 2, y - MARK - 4 - distance
        yield x - width / 2, y + MARK + 12 + distance


def _overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


SPARK_WIDTH, SPARK_HEIGHT = 120, 30


def profile_path(method: Overall) -> str:
    """Return the outline of the area below a method's profile as an SVG path, t from left to right."""
    floor = float(SPARK_HEIGHT)
    corners = [(round(SPARK_WIDTH * limit, 1), round(floor * (1 - share), 1)) for limit, share in method.curve]
    steps = "".join(f"H{x}V{y}" for x, y in corners)
    return f"M0 {floor:g}{steps}H{SPARK_WIDTH}V{floor:g}z"
