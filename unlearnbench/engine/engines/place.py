"""Where a plan is computed: on this machine or on a cluster, whose profile says what a stage gets there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tomli
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from unlearnbench.documents import read_text
from unlearnbench.errors import InvalidFileError, UnlearnBenchError, did_you_mean
from unlearnbench.experiment.toml_positions import KeyPath, key_lines, line_of
from unlearnbench.machine import Precision

ENGINES = ("local", "ray", "slurm")

Count = Annotated[int, Field(ge=1)]


def _text_or_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("should be text or a whole number")
    return value


Option = Annotated[Any, AfterValidator(_text_or_number)]
# TOML has lists only.
Lines = Annotated[tuple[str, ...], Field(strict=False)]


class Profile(BaseModel):
    """What a cluster gives a stage, as a TOML file says it.

    Attributes:
        cpus: Cores of a stage.
        gpus: GPUs of a stage; on Ray a fraction shares one.
        memory_gib: GiB of memory of a stage; None leaves it to the cluster.
        precision: What a recipe's `auto` stands for on the nodes; None means bfloat16 with GPUs, and without them what
            this machine would choose.
        jobs_at_once: Number of Slurm jobs that are queued or run at a time.
        stages_per_job: Number of stages that one Slurm job computes one after the other.
        minutes: Minutes that a Slurm job may take. One that needs longer goes on from its checkpoint in the next.
        partition: Partition of Slurm; None takes the site's own.
        account: Account of Slurm; None takes the user's own.
        setup: Lines of shell that each Slurm job begins with, such as `module load cuda`.
        options: Other options of sbatch, by name.
        resubmit: How often a job that was lost, preempted or out of time is submitted again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    cpus: Annotated[float, Field(gt=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    precision: Precision | None = None
    jobs_at_once: Count = 20
    stages_per_job: Count = 1
    minutes: Count = 240
    partition: str | None = None
    account: str | None = None
    setup: Lines = ()
    options: dict[str, Option] = {}
    resubmit: Annotated[int, Field(ge=0)] = 10


@dataclass(frozen=True)
class Place:
    """Where a plan is computed, as the user says it.

    Attributes:
        device: Device to compute on, a value of `--device`.
        jobs: Number of cells that run at the same time; None leaves it to the engine.
        on: The engine: `local`, `ray`, the address of a Ray cluster, or `slurm`.
        profile: What a cluster gives a stage.
        detach: Whether to leave the jobs of Slurm running alone.
        parties_apart: Whether each party of a federation trains in a worker of its own.
    """

    device: str = "auto"
    jobs: int | None = None
    on: str = "local"
    profile: Profile = field(default_factory=Profile)
    detach: bool = False
    parties_apart: bool = False

    @property
    def at_hand(self) -> bool:
        """Whether all is computed on this machine, without a cluster."""
        return self.on == "local"


def place(
    device: str, jobs: int | None, on: str, profile: Path | None, detach: bool = False, parties_apart: bool = False
) -> Place:
    """Return the place that the command line names.

    Raises:
        InvalidFileError: If the profile has faults.
        UnlearnBenchError: If there is no such engine.
    """
    if on not in ENGINES and not re.fullmatch(r"(ray://)?[^/\s]+:\d+", on):
        raise UnlearnBenchError(
            f"--on {on}: no such engine{did_you_mean(on, [*ENGINES, 'ray://HOST:PORT', 'HOST:PORT'])}"
        )
    if profile is not None and on == "local":
        raise UnlearnBenchError("--profile: it says what a cluster gives a stage\n  Name the cluster with --on")
    if detach and on != "slurm":
        raise UnlearnBenchError("--detach: only jobs of Slurm can go on alone\n  Use it with --on slurm")
    if detach and parties_apart:
        raise UnlearnBenchError("--detach: the rounds of --parties-apart are led from here\n  Leave one of them out")
    return Place(device, jobs, on, read_profile(profile) if profile else Profile(), detach, parties_apart)


def read_profile(path: Path) -> Profile:
    """Return the profile in a file.

    Raises:
        InvalidFileError: If the file cannot be read or has faults, with all of them.
    """
    text = read_text(path)
    try:
        values = tomli.loads(text)
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise InvalidFileError(f"{path}: not TOML: {str(error).splitlines()[0]}") from error
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        lines = key_lines(text)
        faults = sorted(error.errors(), key=lambda fault: line_of(fault["loc"], lines))
        raise InvalidFileError("\n".join(_fault(path, lines, fault) for fault in faults)) from error


def _fault(path: Path, lines: dict[KeyPath, int], fault: Any) -> str:
    """Return a line about a fault that pydantic found in a profile."""
    key = ".".join(map(str, fault["loc"]))
    where = f"{path}:{line_of(fault['loc'], lines)}: {key}"
    if fault["type"] == "extra_forbidden":
        return f"{where}: no such key{did_you_mean(key, list(Profile.model_fields))}"
    message = fault["msg"].lower().removeprefix("value error, ").replace("tuple", "list").removeprefix("input ")
    return f"{where}: {message}, not {fault['input']!r}"
