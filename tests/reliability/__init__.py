"""Trials that look for what breaks the benchmark: kills, fuzzed files, damage, races, hostile plugins, odd machines."""

import sys
from pathlib import Path

# The helpers of the tests lie in their folder, which pytest puts on the search path and Python alone does not.
if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))
