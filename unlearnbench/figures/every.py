"""All figures, in the order of a report."""

from __future__ import annotations

from unlearnbench.figures import (
    attention_maps,
    epochs,
    feature_map,
    matrix,
    prototype_bars,
    relevance_curves,
    relevant_share,
    trade_off,
)
from unlearnbench.figures.base import Draw

FIGURES: tuple[Draw, ...] = (
    trade_off.drawings,
    prototype_bars.drawings,
    matrix.drawings,
    epochs.drawings,
    relevance_curves.drawings,
    relevant_share.drawings,
    attention_maps.drawings,
    feature_map.drawings,
)
