"""A submission: a folder with everything that others need to judge a run and to run it again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from unlearnbench.documents import read_json
from unlearnbench.errors import InvalidFileError, StoreError, UnlearnBenchError, did_you_mean, os_reason
from unlearnbench.escape import markdown
from unlearnbench.experiment.writer import manifest_toml
from unlearnbench.files import file_hash, write_json
from unlearnbench.machine import source_folder, was_on_index
from unlearnbench.names import Place
from unlearnbench.paths import below
from unlearnbench.registry.plugin_file import FILE
from unlearnbench.results.leaderboard.view import manifest_id
from unlearnbench.results.records.files import Entry, record_paths, stored_file, write_record
from unlearnbench.results.records.load import Say, check_entries, load_entries, unheard

SUBMISSION_FILE = "submission.json"
CHECKOUT = "UNLEARNBENCH"
# Readers copy this into a shell.
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*")


class Submission(BaseModel):
    """The content of `submission.json`.

    Attributes:
        schema_version: Version of the file's schema.
        methods: Labels of the unlearners, each with distribution and version.
        problems: Titles by id.
        records: SHA-256 of each record file, by its path below the submission.
        manifests: SHA-256 of each manifest, by its path below the submission.
        features: SHA-256 of the feature file that each record was made from, by the record's path. The feature files
            themselves are not part of a submission.
        environments: The different environments that the records name.
        rerun: Commands that run it again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    methods: dict[str, str]
    problems: dict[str, str]
    records: dict[Place, str]
    manifests: dict[Place, str]
    features: dict[Place, str]
    environments: list[dict[str, Any]]
    rerun: list[str]


def write_submission(source: Path, folder: Path, only: Sequence[str] = (), say: Say = unheard) -> Submission:
    """Make the folder of a submission from a run.

    Args:
        source: Output folder of the run.
        folder: Folder for the submission, which must be new or empty.
        only: Labels of the unlearners to submit; empty means all. References are always included.
        say: Callback as in `load_entries`.

    Raises:
        InvalidFileError: If the records cannot be used, or do not make up a table together.
        StoreError: If the folder cannot be written.
        UnlearnBenchError: If it is in use.
    """
    entries = _chosen(load_entries([source], say), only)
    check_entries(entries)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UnlearnBenchError(f"{folder}: not empty; choose another folder with --output")
        for entry in entries:
            target = below(folder, f"records/{entry.place}")
            target.parent.mkdir(parents=True, exist_ok=True)
            write_record(entry.record, target)
        manifests = _write_manifests(entries, folder)
        submission = _submission(entries, folder, manifests)
        write_json(folder / SUBMISSION_FILE, submission.model_dump())
        (folder / "README.md").write_text(_readme(submission), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {os_reason(error)}") from error
    return submission


def missing_features(source: Path) -> int:
    """Return how many records of an output folder name a feature file that is no longer there."""
    files = [entry.record.files.get("features") for entry in load_entries([source])]
    return sum(file is not None and not stored_file(source, file).is_file() for file in files)


def _chosen(entries: Sequence[Entry], only: Sequence[str]) -> list[Entry]:
    labels = {entry.record.method.label for entry in entries if entry.record.method.role == "unlearner"}
    for label in only:
        if label not in labels:
            raise InvalidFileError(f"--only {label}: the records hold no such method{did_you_mean(label, labels)}")
    return [
        entry
        for entry in entries
        if not only or entry.record.method.role == "reference" or entry.record.method.label in only
    ]


def _write_manifests(entries: Sequence[Entry], folder: Path) -> list[str]:
    found = {manifest_id(entry.record): entry.record for entry in entries}
    names = []
    for identity, record in found.items():
        same = sum(other.manifest_name == record.manifest_name for other in found.values())
        name = f"{record.manifest_name}{f'-{identity[:6]}' if same > 1 else ''}.toml"
        below(folder, name).write_text(manifest_toml(record.manifest, "As resolved by the run."), encoding="utf-8")
        names.append(name)
    return sorted(names)


def _submission(entries: Sequence[Entry], folder: Path, manifests: Sequence[str]) -> Submission:
    records = {f"records/{entry.place}": entry.record for entry in entries}
    unlearners = [record.method for record in records.values() if record.method.role == "unlearner"]
    methods = {
        found.label: f"{found.name} of {found.distribution} {found.distribution_version}" for found in unlearners
    }
    environments = {json.dumps(record.environment, sort_keys=True): record.environment for record in records.values()}
    return Submission(
        methods=methods,
        problems={record.problem.id: record.problem.title for record in records.values()},
        records={place: file_hash(folder / place) for place in records},
        manifests={name: file_hash(folder / name) for name in manifests},
        features={place: r.files["features"].sha256 for place, r in records.items() if "features" in r.files},
        environments=[environments[key] for key in sorted(environments)],
        rerun=[
            *_installation({(r.method.distribution, r.method.distribution_version) for r in records.values()}),
            f"unlearnbench run {' '.join(manifests)} -o runs",
            "unlearnbench compare . runs",
        ],
    )


def _installation(distributions: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the command that installs what the methods come from, and a remark on what only its author has.

    A method in a file is of no distribution; its file has to be sent along.
    """
    wanted = []
    for name, version in sorted(distributions):
        if folder := source_folder(name):
            wanted.append(f"-e {CHECKOUT}" if folder == "." else f"-e {CHECKOUT}/{folder}")
        elif name == FILE or not _REQUIREMENT.fullmatch(f"{name}=={version}"):
            continue
        elif was_on_index(name):
            wanted.append(f"{name}=={version}")
        else:
            yield f"# {name} {version} is on no index: get its source, and pip install that"
    yield f"pip install {' '.join(wanted)}"


def _readme(submission: Submission) -> str:
    methods = "\n".join(f"- {markdown(label)}: {markdown(text)}" for label, text in submission.methods.items())
    problems = "\n".join(f"- {markdown(title)} (`{identity}`)" for identity, title in submission.problems.items())
    rerun = "\n".join(submission.rerun)
    commits = sorted({str(found["commit"]) for found in submission.environments if found.get("commit")})
    commit = f" at {markdown(', '.join(commits))}" if commits else ""
    return (
        "# Submission to the leaderboard\n\n"
        "Made by `unlearnbench submit`. Put this folder below `leaderboard/submissions/`, check it, build the pages, "
        "and open a pull request:\n\n"
        "```console\nunlearnbench leaderboard check leaderboard/submissions/NAME --features RUNS\n"
        "unlearnbench leaderboard build leaderboard -o leaderboard\n```\n\n"
        f"## Methods\n\n{methods or 'none'}\n\n## Problems\n\n{problems}\n\n"
        "## How to run it again\n\n"
        f"In this folder, where {CHECKOUT} is a checkout of the benchmark's repository{commit}:\n\n"
        f"```console\n{rerun}\n```\n\n"
        f"`{SUBMISSION_FILE}` holds the hash of every record and manifest, the hashes of the feature files that the "
        "records were made from, and the environments.\n"
    )


def read_submission(path: Path) -> Submission:
    """Return the content of a `submission.json`.

    Raises:
        InvalidFileError: If the file is not one.
    """
    try:
        return Submission.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidFileError(f"{path}: {key}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error


def submission_faults(folder: Path) -> list[str]:
    """Return how the files of a submission differ from those that its `submission.json` names."""
    path = folder / SUBMISSION_FILE
    try:
        told = read_submission(path)
    except InvalidFileError as error:
        return [str(error)]
    faults = []
    for place, wanted in {**told.records, **told.manifests}.items():
        key = "records" if place in told.records else "manifests"
        try:
            file = below(folder, place)
        except InvalidFileError as error:
            faults.append(f"{path}: {key}.{place}: {error}")
            continue
        if not file.is_file():
            faults.append(f"{path}: {key}.{place}: no such file")
        elif file_hash(file) != wanted:
            faults.append(f"{path}: {key}.{place}: the file's hash is another; it was changed after `submit`")
    there = {file.relative_to(folder).as_posix() for file in record_paths(folder / "records")}
    faults += [f"{path}: records: {place} is not among them" for place in sorted(there - told.records.keys())]
    return faults
