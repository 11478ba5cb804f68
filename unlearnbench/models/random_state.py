"""Global random state: code inside the context has its own, and code outside keeps the one it had."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python for the context, and restore their states afterwards.

    Args:
        seed: Seed in [0, 2**63).
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        # A GPU that is not in use yet has no state to keep. Without a list, torch would initialise them all and warn.
        gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(gpus, device_type="cuda"):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
