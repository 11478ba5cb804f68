"""Global random state: what runs inside has its own, what runs outside keeps its."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python for the context, and put their states back afterwards.

    Args:
        seed: In [0, 2**63).
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        # GPUs that nothing has used yet have no state to keep; without a list torch would wake up and warn of them all.
        gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(gpus, device_type="cuda"):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
