"""Seeds derived from the seed of a run, one for each purpose."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Return a number in [0, 2**63) for one purpose of a seed, so that no two purposes share a random stream."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
