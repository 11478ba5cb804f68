"""Methods that do harm run beside others: each ends its own cell, and the others' records are as without them."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from random import Random
from typing import Any

from support.hostile import HONEST, METHODS, ODD, REASONS, entry, fenced, needs
from support.manifests import ERWP, FOLNRC, WD, manifest_text, write_manifest
from support.plugins import fake_distribution

from unlearnbench.engine.processes.fence import landlock

from .bench import END_SECONDS, Bench, alive, records_of
from .trials import Trial

NAMES = (*HONEST, *REASONS, *ODD, *fenced(landlock()))
LIMITS = ("--cell-time-limit", "40", "--cell-memory", "0.75")


def attempt(random: Random, bench: Bench, number: int) -> Trial:
    """Run two of the methods among others."""
    names, jobs = random.sample(NAMES, 2), random.choice("12")
    with bench.place() as place:
        kinds = {"unlearners": {name: f"hostile:{name}" for name in NAMES}}
        site = fake_distribution(place / "site", "hostile", kinds, {"hostile": METHODS})
        options = needs(place / "elsewhere/note", place / "runs/store")
        entries = [entry(name, options.get(name, "")) for name in names]
        others = [WD, FOLNRC, ERWP]
        position = random.randrange(len(others) + 1)
        manifest = write_manifest(place, manifest_text(*others[:position], *entries, *others[position:]))
        mark = uuid.uuid4().hex
        command = bench.command("run", manifest, "-o", place / "runs", "--device", "cpu", "--jobs", jobs, "--json")
        process = bench.start([*command, *LIMITS], mark, site)
        out, err = process.communicate(timeout=300)
        fault = _fault(bench, place / "runs", names, process.returncode, out, err) or _left(mark)
    return Trial(" and ".join(sorted(names)), f"{jobs} jobs: {fault}" if fault else "")


def _fault(bench: Bench, output: Path, names: list[str], code: int, out: str, err: str) -> str:
    """Return what is wrong with a run among whose methods some do harm."""
    if "Traceback" in err:
        return f"a traceback: {err.strip().splitlines()[-1][:200]}"
    failing = [name for name in names if name not in HONEST]
    if code != int(bool(failing)):
        return f"exit code {code}: {err.strip()[-300:]}"
    try:
        rows = {row["method"] for row in json.loads(out)}
    except ValueError:
        return f"--json prints no JSON: {out[:200]!r}"
    if missing := {"original", "fdr", "wd", "folnrc", "erwp", *names} - rows:
        return f"no row of {', '.join(sorted(missing))}"
    records = records_of(output)
    for name in names:
        status = records[f"{name}/seed-0.json"]["status"]
        if status != ("failed" if name in failing else "done"):
            return f"{name} is {status}"
    expected = records_of(bench.finished)
    wrong = [name for name, record in expected.items() if _without_manifest(records[name]) != _without_manifest(record)]
    return f"other records: {', '.join(wrong)}" if wrong else ""


def _without_manifest(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "manifest": None}


def _left(mark: str) -> str:
    end = time.monotonic() + END_SECONDS
    while (left := alive(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    for number in left:
        os.kill(number, 9)
    return f"{len(left)} processes live on" if left else ""
