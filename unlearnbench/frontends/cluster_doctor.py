"""The checks of `doctor --on ENGINE`, which show whether a cluster is able to compute the stages of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from unlearnbench.engine.engines.crew import examine
from unlearnbench.engine.engines.examination import Examination, versions
from unlearnbench.engine.engines.place import Place
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.frontends.doctor import Diagnosis
from unlearnbench.mirror import shown
from unlearnbench.store import Say

# As many stages look around, on whichever nodes the cluster gives them.
LOOKS = 4


def cluster_diagnoses(place: Place, output: Path, say: Say) -> Iterator[Diagnosis]:
    """Yield the diagnoses of a cluster: reach, versions, the store seen from there, and GPUs.

    Args:
        place: The cluster, with its profile.
        output: Output folder that a run is to have.
        say: Receives a line when the user should know something, such as the address of a dashboard.
    """
    try:
        found = examine(place, output, LOOKS, say)
    except UnlearnBenchError as error:
        yield Diagnosis(f"{place.on}, reached", str(error).replace("\n", "\n         "), False)
        return
    hosts = sorted({examination.host for examination in found})
    yield Diagnosis(f"{place.on}, reached", f"{LOOKS} stages ran on {', '.join(hosts)}", True)
    yield _versions(found)
    yield _store(found, output)
    yield _gpus(found, place)


def _versions(found: Sequence[Examination]) -> Diagnosis:
    """Compare the versions on each node with those here, since results are to be the same wherever they are made."""
    here = versions()
    other = sorted(
        {
            f"{name} {examination.versions.get(name, 'missing')} on {examination.host}, {version} here"
            for examination in found
            for name, version in here.items()
            if examination.versions.get(name) != version
        }
    )
    text = "; ".join(other) + "\n           install the same versions everywhere" if other else "the same everywhere"
    return Diagnosis("versions there", text, not other)


def _store(found: Sequence[Examination], output: Path) -> Diagnosis:
    faults = sorted({f"{each.host}: {each.store_fault}" for each in found if each.store_fault})
    if faults:
        return Diagnosis("store from there", "; ".join(faults), False)
    # A folder that is not shared can be written on every node too, and what was written is not here then.
    unseen = sorted({each.host for each in found if not (output / "tried" / each.host).exists()})
    if unseen and shown(output) == str(output):
        text = (
            f"{output} is another folder on {', '.join(unseen)}\n"
            "           name one on a disk that all nodes share, or an address such as s3://bucket/runs"
        )
        return Diagnosis("store from there", text, False)
    return Diagnosis("store from there", f"{shown(output)} can be written", True)


def _gpus(found: Sequence[Examination], place: Place) -> Diagnosis:
    names = sorted({each.device for each in found if each.device})
    if place.profile.gpus and not all(each.device for each in found):
        blind = ", ".join(sorted({each.host for each in found if not each.device}))
        text = f"none that torch can use on {blind}, though the profile asks for {place.profile.gpus:g}"
        return Diagnosis("GPU there", text, False)
    return Diagnosis("GPU there", ", ".join(names) or "none asked for; stages compute on CPUs", True)
