"""Where things lie in a trade-off plot: numbers for a template that draws SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unlearnbench.results.leaderboard.view import Line, ProblemBoard
from unlearnbench.results.ranking import CANE_GATE
from unlearnbench.results.tables import points
from unlearnbench.terms import SHORT

WIDTH, HEIGHT = 520, 360
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44
# A label's size in the same units; the font has about this width.
LETTER, LINE_HEIGHT = 6.4, 13.0
MARK = 7.0
# The share of an axis that what lies far below the gate gets.
COMPRESSED = 0.28


@dataclass(frozen=True)
class Tick:
    """A number on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A method's mean, its seeds and its label.

    Attributes:
        line: The method.
        number: Its position among the problem's lines.
        x: Of the mean.
        y: Of the mean.
        seeds: (x, y) of each seed.
        label: (x, y) of the label's left end on its base line; None where there is no room.
        title: The figures in words.
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
    """CAne against one of the two others.

    Attributes:
        name: Of the metric on the x axis: `FAe` or `FPAe`.
        x_ticks: Along the bottom.
        y_ticks: Along the left side.
        marks: References first.
        gate: y of the CAne that a method must keep; None if unknown.
        yardstick: x of FDR; None if unknown.
        bend: y below which CAne is drawn on a compressed scale; None if all of it is linear.
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
        start: Where the low end is drawn.
        end: Where the high end is drawn.
        bend: Below this fraction the scale is compressed if most of the axis would go there; None for a linear axis.
    """

    def __init__(self, values: Iterable[float], start: float, end: float, bend: float | None = None) -> None:
        percents = [100 * value for value in values]
        low, high = min(percents), max(percents)
        margin = max(0.04 * (high - low), 0.5)
        # A point at 0 % stands clear of the frame.
        self._low, self._high = (low - margin if low > margin else -margin), high + margin
        self._start, self._end = start, end
        self.bend: float | None = None
        if bend is not None and 100 * bend - low > 1.5 * (high - 100 * bend) > 0:
            self.bend, self._low = bend, low - 0.06 * (high - low)

    def at(self, value: float) -> float:
        """Return where a fraction is drawn."""
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
    """Return the smallest of 1, 2, 5, 10, 20, ... that is at least `step`, 0.5 or less below 1."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step - 1e-9)


def plots(board: ProblemBoard) -> list[Plot]:
    """Return the plots of a problem: CAne against FAe, and against FPAe; none without a result."""
    return [plot for plot in (_plot(board, "FAe"), _plot(board, "FPAe")) if plot.marks]


def _plot(board: ProblemBoard, name: str) -> Plot:
    seeds = [_seeds(line, name) for line in board.lines]
    every = [point for of_line in seeds for point in of_line]
    if not every:
        return Plot(name, (), (), (), None, None, None)
    original, fdr = board.reference("original"), board.reference("fdr")
    kept = original.row.mean(SHORT["CAne"]) if original else None
    gate = None if kept is None else kept - CANE_GATE
    x = Axis((point[0] for point in every), LEFT, WIDTH - RIGHT)
    heights = [point[1] for point in every] + ([gate] if gate is not None else [])
    # Just below the gate, so that what fails it narrowly is still on the scale of those that pass.
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
    """Yield left end and base line of a label, the nearest places first."""
    for distance in (0.0, 13.0, 26.0, 39.0):
        for shift in (distance, -distance) if distance else (0.0,):
            yield x + MARK + 3, y + 4 + shift
            yield x - MARK - 3 - width, y + 4 + shift
        yield x - width / 2, y - MARK - 4 - distance
        yield x - width / 2, y + MARK + 12 + distance


def _overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
