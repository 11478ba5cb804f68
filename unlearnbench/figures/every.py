"""All figures, in the order of a report."""

from __future__ import annotations

from unlearnbench.figures import epochs, feature_map, matrix, prototype_bars, relevant_share, trade_off
from unlearnbench.figures.base import Draw

FIGURES: tuple[Draw, ...] = (
    trade_off.drawings,
    prototype_bars.drawings,
    matrix.drawings,
    epochs.drawings,
    relevant_share.drawings,
    feature_map.drawings,
)
