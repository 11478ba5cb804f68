"""Who computes the stages of a plan: the engine, how many at a time, and the devices of each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic

import torch

from unlearnbench.engine.engines.engine import Engine, EngineError, Follower, Need
from unlearnbench.engine.engines.examination import Examination, examined
from unlearnbench.engine.engines.local import LocalEngine
from unlearnbench.engine.engines.place import Place
from unlearnbench.engine.engines.ray_cluster import RayEngine, room_for
from unlearnbench.engine.engines.ray_connection import asked, connect
from unlearnbench.engine.engines.slurm.cluster import SlurmEngine
from unlearnbench.engine.processes.fork_server import fork_server
from unlearnbench.engine.processes.team import Team
from unlearnbench.engine.runner import SMALL_IMAGE, work_shares
from unlearnbench.errors import UnlearnBenchError, first_line
from unlearnbench.machine import Precision, cpu_precision
from unlearnbench.mirror import shown
from unlearnbench.models.training import resolve_precision
from unlearnbench.store import Say

# A stage whose worker dies is begun again so often. A method can kill workers of other cells, each time that it runs.
RETRIES = 3
# Looking at a cluster waits no longer for its turn.
EXAMINE_SECONDS = 600.0
# A display with more lanes cannot be read; whatever else runs is counted, but not shown.
MOST_LANES = 12


@dataclass(frozen=True)
class Crew:
    """Who computes the stages of a plan.

    Attributes:
        devices: Devices that the workers use in turn.
        jobs: Number of cells that run at the same time, as records say it.
        threads: Number of threads that each computes with.
        lanes: Number of lanes of the display.
        need: What each stage needs.
        engage: Opens the engine, from the lanes of a display and a listener for the user's lines.
        here: Device on which the process that hands out the stages looks at networks.
        title: What the crew computes on, for the first line of a run.
    """

    devices: tuple[torch.device, ...]
    jobs: int
    threads: int
    lanes: int
    need: Need
    engage: Callable[[Sequence[Follower], Say], AbstractContextManager[Engine]]
    here: torch.device
    title: str


def muster(place: Place, shape: tuple[int, ...], cells: int, output: Path, say: Say) -> Crew:
    """Return who computes a number of cells.

    Args:
        place: Where to compute.
        shape: Shape of the stored images.
        cells: Number of cells that are left to do.
        output: Output folder, in which Slurm's jobs find what to do.
        say: Receives a line when the user should know something, such as the address of a cluster's dashboard.

    Raises:
        EngineError: If a cluster does not answer.
        UnlearnBenchError: If torch cannot use the device, or an engine is not installed.
    """
    if place.at_hand:
        return _local_crew(place, shape, cells)
    if place.on == "slurm":
        return _slurm_crew(place, shape, cells, output)
    return _ray_crew(place, shape, cells, say)


def _local_crew(place: Place, shape: tuple[int, ...], cells: int) -> Crew:
    devices = choose_devices(place.device, place.jobs or 1)
    jobs, threads = work_shares(devices[0], shape, place.jobs)

    def engage(lanes: Sequence[Follower], say: Say) -> LocalEngine:
        return LocalEngine(fork_server(threads), lanes, say)

    need = Need(cpus=threads, retries=RETRIES)
    return Crew(devices, jobs, threads, min(jobs, cells), need, engage, devices[0], devices[0].type)


def _ray_crew(place: Place, shape: tuple[int, ...], cells: int, say: Say) -> Crew:
    need, room = _ray_need(place, say)
    device, threads = _one_of(need.gpus, shape, need.cpus)
    jobs = place.jobs or room
    engage = partial(_on_ray, place.on, threads, place.jobs)
    title = f"{device.type} by {place.on}"
    return Crew((device,), jobs, threads, min(jobs, cells, MOST_LANES), need, engage, torch.device("cpu"), title)


def _on_ray(address: str, threads: int, jobs: int | None, lanes: Sequence[Follower], say: Say) -> RayEngine:
    return RayEngine(address, lanes, say, threads=threads, jobs=jobs)


def _slurm_crew(place: Place, shape: tuple[int, ...], cells: int, output: Path) -> Crew:
    profile = place.profile
    if place.jobs:
        profile = profile.model_copy(update={"jobs_at_once": place.jobs})
    gpus = 0.0 if place.device == "cpu" else profile.gpus
    profile = profile.model_copy(update={"gpus": gpus})
    if place.device.startswith("cuda") and not gpus:
        raise UnlearnBenchError(f"--device {place.device}: the profile asks for no GPU\n  Add gpus = 1 to it")
    device, threads = _one_of(gpus, shape, profile.cpus)
    jobs = profile.jobs_at_once

    def engage(lanes: Sequence[Follower], say: Say) -> SlurmEngine:
        return SlurmEngine(output / "slurm", profile, lanes, say, threads=threads, detach=place.detach)

    need = Need(cpus=profile.cpus, gpus=gpus, memory_gib=profile.memory_gib, retries=RETRIES)
    lanes = min(jobs, cells, MOST_LANES)
    return Crew((device,), jobs, threads, lanes, need, engage, torch.device("cpu"), f"{device.type} by slurm")


def _one_of(gpus: float, shape: tuple[int, ...], cpus: float) -> tuple[torch.device, int]:
    """Return the device and the number of threads of a stage on a cluster."""
    threads = 1 if math.prod(shape) <= SMALL_IMAGE and not gpus else max(1, int(cpus))
    return torch.device("cuda" if gpus else "cpu"), threads


def _ray_need(place: Place, say: Say) -> tuple[Need, int]:
    """Return what each stage needs of a Ray cluster, and for how many the cluster has room."""
    found = asked(connect(place.on, say).cluster_resources)
    profile = place.profile
    gpus = 0.0 if place.device == "cpu" else profile.gpus or float(found.get("GPU", 0) >= 1)
    if place.device.startswith("cuda") and not gpus:
        raise UnlearnBenchError(f"--device {place.device}: the cluster has no GPU\n  Use --device cpu")
    need = Need(cpus=profile.cpus, gpus=gpus, memory_gib=profile.memory_gib, retries=RETRIES)
    return need, room_for(need, found)


def examine(place: Place, output: Path, number: int, say: Say) -> list[Examination]:
    """Return what so many workers of a cluster find where they run, each on whichever node has room."""
    place = replace(place, detach=False)
    crew = muster(place, (1, 8, 8), number, output, say)
    deadline = monotonic() + EXAMINE_SECONDS
    with crew.engage((), say) as engine:
        futures = [engine.submit(crew.need, examined, shown(output.absolute())) for _ in range(number)]
        while not all(future.done for future in futures):
            engine.wait([future for future in futures if not future.done], 1.0)
            if monotonic() > deadline:
                raise EngineError(
                    f"--on {place.on}: of {number} stages {sum(future.done for future in futures)} ran within "
                    f"{EXAMINE_SECONDS:.0f} s\n  The cluster may be full; ray status or squeue tell"
                )
    return [future.result() for future in futures]


def choose_devices(name: str, jobs: int = 1) -> tuple[torch.device, ...]:
    """Return the devices that a `--device` value stands for, which processes use in turn.

    Args:
        name: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto`: the first GPU, or the CPU if there is none. Several processes
            use all GPUs unless the name has a number.
        jobs: Number of processes.

    Raises:
        UnlearnBenchError: If there is no such device or torch cannot use it.
    """
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    elif not re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", name):
        raise UnlearnBenchError(f"--device {name}: no such device\n  Valid: auto, cpu, cuda, cuda:N, mps")
    else:
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        # torch raises RuntimeError, AssertionError or others, depending on the kind of device and on its own build.
        except Exception as error:
            raise UnlearnBenchError(
                f"--device {name}: torch cannot use it: {first_line(error)}\n"
                "  Use --device cpu; unlearnbench doctor says which GPU torch finds"
            ) from error
    if jobs > 1 and device.type == "cuda" and device.index is None:
        return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    return (device,)


def check_devices(together: int, devices: tuple[torch.device, ...]) -> None:
    """Check that this machine has devices for a training by several.

    Args:
        together: Number of devices that train one model together.
        devices: Devices that the workers use.

    Raises:
        UnlearnBenchError: If it has too few.
    """
    if together > 1 and (fault := Team(together, devices, 1).fault):
        raise UnlearnBenchError(
            f"devices_per_training = {together}: here {fault}\n"
            "  Run it where there are so many with --on, or with --device cpu"
        )


def device_precision(name: str) -> Precision:
    """Return what a recipe's `auto` precision stands for on the device of a `--device` value.

    Raises:
        UnlearnBenchError: If `choose_devices` fails.
    """
    return resolve_precision("auto", choose_devices(name)[0])


def place_precision(place: Place, output: Path, say: Say) -> Precision:
    """Return what a recipe's `auto` precision stands for on the nodes of a cluster.

    Raises:
        EngineError: If the cluster does not answer.
    """
    if place.profile.precision:
        return place.profile.precision
    if place.on == "slurm":
        # A job that only looks may wait for hours. What can be rented today computes in bfloat16.
        return "bfloat16" if place.profile.gpus and place.device != "cpu" else cpu_precision()
    if not _ray_need(place, say)[0].gpus:
        return cpu_precision()
    return examine(place, output, 1, say)[0].precision
