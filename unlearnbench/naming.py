"""Names: content hashes that identify things, and the nearest valid name for one that is wrong."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from typing import Any

# The names of ImageNet's classes would fill the screen.
SHOWN_NAMES = 40
# The metrics that rank, by the names that the paper gives them, in the paper's order.
SHORT = {"FAe": "forget_accuracy", "FPAe": "forget_prototype_accuracy", "CAne": "retain_accuracy"}


def content_id(*parts: Any) -> str:
    """Return 16 hexadecimal digits that depend on every JSON value in `parts` and on nothing else."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a line that names the nearest valid name, if there is one, and the valid names."""
    valid = sorted(names)
    nearest = _nearest(name.casefold(), valid)
    question = f"Did you mean {nearest!r}? " if nearest else ""
    shown = ", ".join(valid[:SHOWN_NAMES]) if valid else "none"
    rest = f", ... ({len(valid)} in all)" if len(valid) > SHOWN_NAMES else ""
    return f"\n  {question}Valid: {shown}{rest}"


def _nearest(name: str, valid: list[str]) -> str | None:
    """Return the valid name that a casefolded one is most like, in whatever case it stands."""
    meant = {short.casefold(): metric for short, metric in SHORT.items()}.get(name)
    if meant in valid:
        return meant
    folded = {known.casefold(): known for known in reversed(valid)}
    found = difflib.get_close_matches(name, folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None
