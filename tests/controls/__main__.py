"""`python -m tests.controls [PAGE]` trains networks of a known state and writes what the metrics are worth."""

from __future__ import annotations

import sys
from pathlib import Path

from .page import page
from .trial import judged_models, known_values, trials

PAGE = Path(__file__).parents[2] / "leaderboard" / "METRICS.md"


def main() -> int:
    """Write the page, and return the exit code."""
    values = known_values(judged_models())
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(page(values, trials(values)), encoding="utf-8")
    print(target)
    return 0


sys.exit(main())
