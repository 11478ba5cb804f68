"""The versions of everything that determines a result, held against the code.

`python tests/versions.py` names each component and protocol whose code changed while its version did not.
`python tests/versions.py --confirm` runs the golden manifest and, if its numbers are still the golden ones, takes the
present code as the same versions. A change that is meant to move numbers raises the version of what it changes; where
it moves the golden run's, `--golden` writes these anew; on a machine of another kind it adds that machine's numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from unlearnbench.engine.executor import finish
from unlearnbench.experiment.plan import make_plan
from unlearnbench.experiment.resolve import resolve
from unlearnbench.machine import processor_name
from unlearnbench.registry import identity
from unlearnbench.registry.entry_points import KINDS, installed
from unlearnbench.registry.identity import Place, source_digest
from unlearnbench.results.records.record import Record

HERE = Path(__file__).parent
LOCK, MANIFEST, NUMBERS = HERE / "versions.lock", HERE / "golden.toml", HERE / "golden.json"
# Each of these versions stands for what the harness itself does to a result.
PROTOCOLS: dict[str, tuple[Place, ...]] = {
    "TRAINING_PROTOCOL": (
        ("unlearnbench.models.training", "ReferenceTraining"),
        ("unlearnbench.models.device_data", "LoadedData"),
        ("unlearnbench.models.build", "Network"),
    ),
    "TASK_PROTOCOL": (
        ("unlearnbench.unlearners.task", "UnlearningTask"),
        ("unlearnbench.models.random_state", "own_random_state"),
        ("unlearnbench.engine.artifacts.unlearned", "UnlearnedMaker"),
    ),
    "FEATURES_FORMAT": (("unlearnbench.metrics.feature_writer", "write_features"),),
    "FEDERATION_PROTOCOL": (
        ("unlearnbench.models.federation.training", "FederatedTraining"),
        ("unlearnbench.models.federation.shares", "party_images"),
        ("unlearnbench.models.federation.shares", "party_counts"),
    ),
    "METRICS_PROTOCOL": (("unlearnbench.metrics.compute", "judge"),),
}
# Other processors and other versions of torch round differently, and a training amplifies the difference.
ELSEWHERE = 0.08

Versions = dict[str, dict[str, Any]]
Numbers = dict[str, dict[str, float | None]]


def present_versions() -> Versions:
    """Return the version and digest of the built-in plugins and of the harness's protocols, by name."""
    found: Versions = {
        name: {"version": getattr(identity, name), "digest": source_digest(*places)}
        for name, places in PROTOCOLS.items()
    }
    for kind in KINDS:
        for plugin in installed(kind):
            if plugin.distribution == "unlearnbench":
                found[f"{kind}.{plugin.name}"] = {"version": plugin.version, "digest": plugin.digest}
    return dict(sorted(found.items()))


def moved(locked: Versions, present: Versions) -> list[str]:
    """Describe, one line each, what differs from the lock."""
    lines = []
    for name in sorted(locked.keys() | present.keys()):
        before, now = locked.get(name), present.get(name)
        if before == now:
            continue
        if before is None or now is None:
            lines.append(f"{name}: {'new' if before is None else 'gone'}")
        elif before["version"] == now["version"]:
            lines.append(
                f"{name}: the code changed and version {now['version']} did not\n"
                "  If its results change too, raise the version; if they do not: python tests/versions.py --confirm"
            )
        else:
            lines.append(f"{name}: version {before['version']} is {now['version']} now")
    return lines


def read_lock() -> Versions:
    """Return the content of the lock file."""
    held: Versions = json.loads(LOCK.read_text())
    return held


def rounding() -> str:
    """Return what rounding depends on; if it is the same, numbers are the same to the bit."""
    # Kernels are chosen by instruction set and by vendor.
    vendor = processor_name().partition(" ")[0]
    return f"torch {torch.__version__.partition('+')[0]}, {vendor}, {torch.backends.cpu.get_cpu_capability()}"


def golden_run(output: Path) -> Numbers:
    """Return every metric of the golden run, by unlearner."""
    records: list[Record] = finish(make_plan(resolve(MANIFEST)), output, "cpu")
    return {
        record.method.label: {
            label: None if metric.value is None else round(metric.value, 9)
            for label, metric in sorted(record.metrics.items())
        }
        for record in records
    }


def differences(found: Numbers, golden: dict[str, Numbers]) -> list[str]:
    """Describe, one line each, where a run's numbers differ from the golden ones.

    Args:
        found: Numbers of the run.
        golden: Content of `golden.json`: numbers by what their rounding depends on. Where this machine's are not among
            them, those of another have to be near.
    """
    own = golden.get(rounding())
    lines = []
    for method, metrics in (own or next(iter(golden.values()))).items():
        for metric, value in metrics.items():
            here = found.get(method, {}).get(metric)
            if own is not None:
                equal = here == value
            elif metric in ("forget_accuracy", "forget_prototype_accuracy", "retain_accuracy"):
                equal = here is not None and value is not None and abs(here - value) <= ELSEWHERE
            else:
                continue
            if not equal:
                lines.append(f"{method}: {metric}: {here}, where the golden run has {value}")
    return lines


def main() -> int:
    """Compare, confirm or write the golden numbers, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--confirm", action="store_true", help="run the golden manifest and write the lock")
    parser.add_argument("--golden", action="store_true", help="write the golden numbers and the lock anew")
    chosen = parser.parse_args()
    present = present_versions()
    lines = moved(read_lock() if LOCK.exists() else {}, present)
    if not (chosen.confirm or chosen.golden):
        print("\n".join(lines) or "nothing moved")
        return 1 if lines else 0
    with tempfile.TemporaryDirectory() as folder:
        found = golden_run(Path(folder))
    if chosen.golden:
        # Numbers of other machines are those of the code before, unless only this machine is new.
        golden = {} if lines else json.loads(NUMBERS.read_text())
        NUMBERS.write_text(json.dumps({**golden, rounding(): found}, indent=1) + "\n")
    elif other := differences(found, json.loads(NUMBERS.read_text())):
        print("\n".join([*other, "The results are not the same: raise the versions of what changed"]))
        return 1
    LOCK.write_text(json.dumps(present, indent=1) + "\n")
    print(f"{len(present)} versions written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
