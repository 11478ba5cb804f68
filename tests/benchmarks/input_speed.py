"""Speed of the input pipeline alone, against a plain copy of the same images."""

from __future__ import annotations

import torch

from tests.benchmarks.problem import data, device, wait
from tests.benchmarks.ratio import Ratio, measure

IMAGES = 50_000


def pipeline() -> Ratio:
    """Measure crop, flip and normalisation of an epoch; the goal is 50,000 images/s, however long a copy takes."""
    images = torch.from_numpy(data().train_part.images.read(data().train_part.ids.argsort())).to(device())

    def epoch() -> None:
        for _ in data().train.shuffled(64, torch.Generator().manual_seed(0)):
            pass
        wait()

    def copy() -> None:
        for batch in images.split(64):
            batch.to(torch.float32)
        wait()

    return measure("input pipeline / copy to float32 (wanted: 50,000 images/s)", 0.0, IMAGES, epoch, copy)
