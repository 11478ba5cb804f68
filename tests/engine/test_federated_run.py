"""A federation from its manifest to its records: what a party is handed, and what the records say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.commands import cli
from support.federations import ENGINE, FEDERATION, federated_text
from support.manifests import ERWP, FOLNRC, WD, write_manifest
from support.plugins import fake_distribution

from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.experiment.plan import make_plan
from unlearnbench.experiment.resolve import resolve
from unlearnbench.models.federation.shares import party_images
from unlearnbench.results.audit.consistency import inconsistencies
from unlearnbench.results.records.files import read_record
from unlearnbench.results.records.record import Record, with_hash

pytestmark = pytest.mark.slow

UNLIKE = f'{FEDERATION}\nsplit = "dirichlet"\nalpha = 0.3\nparticipation = 0.8\nlocal_epochs = 2'.replace(
    "party = 0\nrounds = 2", "party = 1\nrounds = 1"
)


@dataclass(frozen=True)
class Federated:
    """A finished run of a federation."""

    manifest: Path
    output: Path

    @property
    def records(self) -> dict[str, Record]:
        """Records of seed 1 by label; those of seed 0 are the same in kind."""
        paths = self.output.glob("records/*/*/*/seed-1.json")
        return {record.method.label: record for record in map(read_record, paths)}


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory) -> Federated:
    folder = tmp_path_factory.mktemp("federated")
    text = federated_text(WD, FOLNRC, ERWP, head="seeds = [0, 1]", federation=UNLIKE)
    manifest = write_manifest(folder, text, "together.toml")
    done = cli("run", manifest, "-o", folder / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    return Federated(manifest, folder / "runs")


def test_a_party_is_handed_its_own_images_and_no_other(federated: Federated) -> None:
    labels = open_dataset("digits").train().labels
    record = federated.records["erwp"]
    counts = federated.records["original"].rounds
    assert counts is not None
    own = party_images(labels, counts.images_per_class, 1)[1]
    with h5py.File(federated.output / record.files["features"].path) as file:
        ids, held = file["limited/ids"][:], file["limited/labels"][:]
    assert ids.tolist() == open_dataset("digits").train().ids[own].tolist()
    assert tuple(np.bincount(held, minlength=10).tolist()) == record.share == counts.images_per_class[1]
    # What it read follows from its share: two epochs of the removal, and the search before.
    assert record.image_passes["retain"] == 2 * sum(record.share[:8])


def test_the_records_say_who_trained_and_what_was_sent(federated: Federated) -> None:
    original, fdr = federated.records["original"], federated.records["fdr"]
    assert original.problem.federation == {
        "parties": 10,
        "party": 1,
        "rounds": 1,
        "local_epochs": 2,
        "participation": 0.8,
        "split": "dirichlet",
        "alpha": 0.3,
        "strategy": "fedavg",
    }
    assert original.problem.limited_counts == ()
    assert original.limited_counts == original.share
    for record in (original, fdr):
        assert record.rounds is not None
        assert [len(drawn) for drawn in record.rounds.trained_in_round] <= [8]
        assert len(record.rounds.accuracy_by_round) == 1
        assert record.rounds.bytes_sent["to_parties"] == record.rounds.bytes_sent["from_parties"] > 0
    planned = next(cell for cell in make_plan(resolve(federated.manifest)).cells if cell.seed == 1)
    assert planned.original.image_passes == sum(original.image_passes.values()) > sum(fdr.image_passes.values()) > 0
    assert fdr.image_passes["forget"] == 0
    # One accuracy by round over all test images of the classes that the model is trained on.
    assert original.rounds is not None
    both = [original.metrics[name] for name in ("forget_accuracy", "retain_accuracy")]
    hits = sum((metric.value or 0) * (metric.hits.images if metric.hits else 0) for metric in both)
    images = sum(metric.hits.images for metric in both if metric.hits)
    assert original.rounds.accuracy_by_round[-1] == pytest.approx(hits / images, abs=1e-9)


def test_the_records_keep_their_own_rules(federated: Federated) -> None:
    for record in federated.records.values():
        assert list(inconsistencies(record)) == []
    assert cli("leaderboard", "check", federated.output / "records").code == 0


def test_a_record_that_contradicts_its_federation_is_found(federated: Federated) -> None:
    original, erwp = federated.records["original"], federated.records["erwp"]
    rounds = original.rounds
    assert rounds is not None
    moved = (rounds.images_per_class[1], rounds.images_per_class[0], *rounds.images_per_class[2:])
    manifest = erwp.manifest["federation"]
    cases = {
        "rounds: missing": original.model_copy(update={"rounds": None}),
        "share: not what rounds.images_per_class says of party 1": original.model_copy(
            update={"rounds": rounds.model_copy(update={"images_per_class": moved})}
        ),
        "image_passes: ": original.model_copy(
            update={"rounds": rounds.model_copy(update={"trained_in_round": ((0, 1),)})}
        ),
        "rounds.trained_in_round: a party beyond the last, 9": original.model_copy(
            update={"rounds": rounds.model_copy(update={"trained_in_round": ((10,),)})}
        ),
        "rounds.accuracy_by_round: 2 rounds, but the federation has 1": original.model_copy(
            update={"rounds": rounds.model_copy(update={"accuracy_by_round": (0.1, 0.2)})}
        ),
        "share: 0 numbers": erwp.model_copy(update={"share": ()}),
        "share: 3 numbers": erwp.model_copy(update={"share": (1, 2, 3)}),
        "problem.federation: ": erwp.model_copy(
            update={"manifest": {**erwp.manifest, "federation": {**manifest, "alpha": 3.0}}}
        ),
    }
    for message, record in cases.items():
        found = list(inconsistencies(with_hash(record)))
        assert any(fault.startswith(message) for fault in found), (message, found)


def test_a_run_that_is_there_is_not_made_again(federated: Federated) -> None:
    done = cli("run", federated.manifest, "-o", federated.output, "--dry-run", "--json")
    assert {row["what"]: row["total"] - row["cached"] for row in done.json[0]["work"]} == dict.fromkeys(
        ("train Original", "train FDR", *(f"unlearn with {name}" for name in ("wd", "folnrc", "erwp"))), 0
    ) | {"extract features": 0, "metrics and record": 0}


def test_options_of_a_federation_are_not_tuned(federated: Federated, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    done = cli("tune", federated.manifest, "-o", tmp_path / "tuned.toml", "--trials", "1")
    assert (done.code, done.err.splitlines()[0]) == (
        2,
        f"{federated.manifest}: federation: trials hold images out of one pool, which the parties do not have",
    )


def test_an_engine_plays_the_rounds_and_the_record_names_it(tmp_path: Path, search_path: Path) -> None:
    fake_distribution(search_path, "their-engine", {"federations": {"theirs": "their_engine:theirs"}}, ENGINE)
    folders = []
    for engine in ("", '\nengine = "theirs"\nstrategy = "Mean"'):
        folders.append(tmp_path / f"runs{len(folders)}")
        text = federated_text(WD, head="seeds = [1]", federation=f"{UNLIKE}{engine}")
        manifest = write_manifest(tmp_path, text, "together.toml")
        apart = ("--parties-apart",) if engine else ()
        done = cli("run", manifest, "-o", folders[-1], "--device", "cpu", *apart)
        assert done.code == 0, done.err
    assert "together: --parties-apart changes nothing, since theirs plays its rounds\n" in done.err
    plain, played = (Federated(tmp_path, folder).records["original"] for folder in folders)
    assert (plain.details, played.details["federation_engine"]) == (
        {},
        {
            "name": "theirs",
            "options": {"rate": 1.0},
            "version": 1,
            "distribution": "their-engine",
            "distribution_version": "1.0",
            "digest": played.details["federation_engine"]["digest"],
            "libraries": {"theirs": "1.0"},
        },
    )
    # It averages as we do, so that the models are the same.
    assert plain.files["model"].sha256 == played.files["model"].sha256
    assert plain.rounds == played.rounds
    assert list(inconsistencies(played)) == []
