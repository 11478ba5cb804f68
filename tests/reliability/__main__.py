"""`python -m tests.reliability SUBJECT --trials N --seed S` runs trials and prints what survived."""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from .bench import Bench
from .trials import run_trials, table

SUBJECTS = ("kills", "fuzz", "corrupt", "races", "plugins", "machines")


def main() -> int:
    """Run the trials that the command line asks for, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--trials", type=int, default=20, help="number of trials (20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the trials (0)")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="repeat the trials of these numbers alone")
    told = parser.parse_args()
    attempt = import_module(f".{told.subject}", __package__).attempt
    numbers = told.only or range(told.trials)
    trials = []
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        for trial in run_trials(told.subject, attempt, numbers, told.seed, Bench(Path(folder))):
            trials.append(trial)
            mark = "FAILED " if trial.fault else "survived"
            print(f"{trial.number}: {mark} {trial.kind}", file=sys.stderr, flush=True)
    print(table(told.subject, trials, told.seed))
    return int(any(trial.fault for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
