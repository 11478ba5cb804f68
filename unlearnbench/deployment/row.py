"""One finished cell of an output folder, with the records of its references and the files that it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unlearnbench.errors import InvalidFileError, WrongUseError, did_you_mean
from unlearnbench.files import file_hash
from unlearnbench.mirror import origin
from unlearnbench.results.judgement import most_fae
from unlearnbench.results.records.files import read_record, stored_file
from unlearnbench.results.records.load import read_entries
from unlearnbench.results.records.record import Record
from unlearnbench.terms import SHORT


@dataclass(frozen=True)
class FinishedCell:
    """A cell that has a result.

    Attributes:
        folder: Output folder of the run.
        record: Its record.
        original: Record of Original of the same problem and seed; None if it is not in the folder.
        fdr: Record of FDR; None if there is none.
    """

    folder: Path
    record: Record
    original: Record | None
    fdr: Record | None

    @property
    def name(self) -> str:
        """The cell in one line."""
        return f"{self.record.method.label}, seed {self.record.seed}"

    @property
    def still_recognised(self) -> str:
        """That the outputs have not forgotten, by the bound of the ranking, in one line; "" if they have."""
        after, before = (record.value(SHORT["FAe"]) if record else None for record in (self.record, self.original))
        if after is None or after <= most_fae(before or 0.0):
            return ""
        was = "" if before is None else f", {100 * before:.2f} % before"
        return f"still recognised: {100 * after:.2f} % of their test images{was}"

    def file(self, name: str, record: Record | None = None) -> Path:
        """Return a file that a record was made from.

        Args:
            name: `model` or `features`.
            record: Record of a reference; None for the cell's own.

        Raises:
            InvalidFileError: If it is not there, or its content is not what the record was made from.
        """
        made = record or self.record
        file = made.files.get(name)
        if file is None:
            raise InvalidFileError(f"{self.folder}: the record of {made.method.label} names no file of its {name}")
        path = stored_file(self.folder, file)
        if not path.is_file():
            raise InvalidFileError(f"{path}: no such file\n  Run the manifest again, which makes it")
        if file_hash(path) != file.sha256:
            raise InvalidFileError(
                f"{path}: its content is not what the record was made from\n  Run the manifest again, which makes it"
            )
        return path


def finished_cell(place: Path, label: str = "", seed: int | None = None) -> FinishedCell:
    """Return the one finished cell that a user means.

    Args:
        place: Output folder of a run, a folder of its records, or a record.
        label: Label of the method; it may be left out if there is only one.
        seed: Seed; it may be left out if there is only one.

    Raises:
        InvalidFileError: If no cell, or more than one, is meant, or its records cannot be used.
    """
    folder = _output_folder(place)
    everything = [entry.record for entry in read_entries([folder])]
    within = [read_record(place)] if place.is_file() else [entry.record for entry in read_entries([place])]
    found = [record for record in within if record.status == "done" and _is_meant(record, label, seed, place)]
    if len(found) != 1:
        raise WrongUseError(f"{place}: {_choice(within, found, label, seed)}")
    record = found[0]
    if record.method.name == "original" and record.method.role == "reference":
        raise WrongUseError(f"{place}: Original is the model before the removal\n  Say which method: --only NAME")
    pair = {
        other.method.name: other
        for other in everything
        if other.method.role == "reference"
        and other.status == "done"
        and (other.problem.id, other.seed) == (record.problem.id, record.seed)
    }
    return FinishedCell(folder, record, pair.get("original"), pair.get("fdr"))


def _output_folder(place: Path) -> Path:
    """Return the output folder that records lie in.

    Raises:
        InvalidFileError: If they lie in none, as those of a leaderboard, which has neither models nor features.
    """
    if not place.exists():
        raise WrongUseError(f"{place}: no such file or folder")
    for folder in (place.absolute(), *place.absolute().parents):
        # The store of a folder that mirrors another comes only as far as it is asked for.
        if (folder / "records").is_dir() and ((folder / "store").is_dir() or origin(folder)):
            return folder
    raise WrongUseError(f"{place}: not in an output folder of a run, which holds `records` and `store`")


def _is_meant(record: Record, label: str, seed: int | None, place: Path) -> bool:
    # A reference is meant only by its name or by its file.
    by_label = record.method.label == label if label else record.method.role != "reference" or place.is_file()
    return by_label and (seed is None or record.seed == seed)


def _choice(within: list[Record], found: list[Record], label: str, seed: int | None) -> str:
    """Return what is wrong with a choice of no cell or of several, and how to say it better."""
    labels = sorted({record.method.label for record in within})
    if label and label not in labels:
        return f"holds no row of {label!r}{did_you_mean(label, labels)}"
    if not found:
        failed = next((record for record in within if _is_meant(record, label, seed, Path())), None)
        if failed is not None:
            return f"{failed.method.label} with seed {failed.seed} has no result: {failed.reason}"
        seeds = ", ".join(map(str, sorted({record.seed for record in within})))
        return f"holds no finished method{'' if seed is None else f' with seed {seed}'}\n  Seeds: {seeds}"
    meant = sorted({record.method.label for record in found})
    if len(meant) > 1:
        return f"holds {len(meant)} methods; one can be taken at a time\n  Say which: --only {' | '.join(meant)}"
    if len({record.problem.id for record in found}) > 1:
        return f"{meant[0]} was run on several problems\n  Give the folder of one, or a record"
    return f"holds several seeds of {meant[0]}\n  Say which: --seed {' | '.join(str(r.seed) for r in found)}"
