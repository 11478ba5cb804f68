"""The relevance search in real runs: kept once, shared by manifests, displayed and saved."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.commands import Done, cli
from support.manifests import WD, manifest_text, write_manifest

from unlearnbench.results.records.load import load_records

pytestmark = pytest.mark.slow


def erwp(*options: str) -> str:
    return f'[[unlearners]]\nname = "erwp"\noptions = {{ {", ".join(("epochs = 1", *options))} }}'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two manifests that differ in the removal, and a third that differs in the search."""
    folder = tmp_path_factory.mktemp("relevance")
    for name, options in {
        "first": ("learning_rate = 1e-3",),
        "second": ("learning_rate = 1e-2", "beta = 3"),
        "third": ("keep_share = 0.5",),
    }.items():
        done = cli("run", write_manifest(folder, manifest_text(erwp(*options)), f"{name}.toml"), "-o", folder / "runs")
        assert done.code == 0, done.err
    return folder / "runs"


def kept(runs: Path, manifest: str) -> str:
    (record,) = [r for r in load_records(runs) if r.manifest_name == manifest and r.method.name == "erwp"]
    identity: str = record.details["kept"]["relevance"]
    return identity


def test_manifests_that_vary_only_the_removal_share_one_search(runs: Path) -> None:
    assert kept(runs, "first") == kept(runs, "second") != kept(runs, "third")
    assert len([path for path in (runs / "store" / "relevance").iterdir() if path.is_dir()]) == 2


def test_a_shared_search_counts_for_every_method_that_uses_it(runs: Path) -> None:
    first, second = (
        next(r for r in load_records(runs) if r.manifest_name == name and r.method.name == "erwp")
        for name in ("first", "second")
    )
    assert first.image_passes == second.image_passes
    assert first.image_passes["forget"] > 2 * 14
    assert second.measured.seconds["unlearn"] > 0


def test_the_mask_and_its_share_are_kept(runs: Path) -> None:
    masks = load_file(runs / "store" / "relevance" / kept(runs, "first") / "tensors.safetensors")
    assert all(mask.dtype == torch.bool for mask in masks.values())
    marked = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    (record,) = [r for r in load_records(runs) if r.manifest_name == "first" and r.method.name == "erwp"]
    assert record.details["relevant_share"] == marked


def test_parameters_outside_the_mask_are_the_same_to_the_bit_in_a_real_run(runs: Path) -> None:
    masks = load_file(runs / "store" / "relevance" / kept(runs, "third") / "tensors.safetensors")
    records = {r.method.name: r for r in load_records(runs) if r.manifest_name == "third"}
    before, after = (load_file(runs / records[name].files["model"].path) for name in ("original", "erwp"))
    moved = 0
    for name, value in before.items():
        mask = masks.get(name, torch.zeros_like(value, dtype=torch.bool))
        assert torch.equal(after[name][~mask], value[~mask]), name
        moved += int((after[name][mask] != value[mask]).sum())
    assert moved > 0
    assert sum(int((~mask).sum()) for mask in masks.values()) > 0


def shown(runs: Path) -> Done:
    done = cli("relevance", runs)
    assert done.code == 0, done.err
    return done


def test_relevance_prints_a_row_for_each_layer(runs: Path) -> None:
    lines = shown(runs).out.splitlines()
    assert "layers weights" in " ".join(" ".join(lines).split())
    assert sum("0.weight" in line for line in lines) == 2
    assert sum(" of 2 " in line for line in lines) == 8


def test_relevance_saves_a_row_for_each_seed_class_and_layer(runs: Path) -> None:
    written = [line.removeprefix("written: ") for line in shown(runs).err.splitlines()]
    assert len(written) == 2
    for path in written:
        with Path(path).open() as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == 2 * 4
        assert {(row["class"], row["class_name"]) for row in rows} == {("8", "8"), ("9", "9")}
        assert all(0 < float(row["share"]) <= 1 for row in rows)


def test_relevance_as_json_has_the_findings_of_each_search(runs: Path) -> None:
    searches = cli("relevance", runs, "--json").json
    assert [len(search["findings"]) for search in searches] == [8, 8]
    assert {search["settings"]["keep_share"] for search in searches} == {0.5, 1.0}


def test_relevance_of_runs_without_a_search_says_so(tmp_path: Path) -> None:
    cli("run", write_manifest(tmp_path, manifest_text(WD)), "-o", tmp_path / "runs")
    done = cli("relevance", tmp_path / "runs")
    assert done.code == 1
    assert done.err == f"{tmp_path / 'runs'}: no finished method searched for relevant parameters; ERwP does\n"


def test_a_file_in_the_place_of_the_folder_is_named_after_the_table(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    place = tmp_path / "runs" / "relevance"
    shutil.rmtree(place, ignore_errors=True)
    place.write_text("")
    done = cli("relevance", tmp_path / "runs")
    assert done.code == 1
    assert "share zeroed" in done.out
    assert done.err == f"{place}: cannot be written: File exists\n"


def test_a_search_that_is_not_in_the_store_is_named_with_the_way_back(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "records", tmp_path / "records")
    done = cli("relevance", tmp_path)
    assert done.code == 1
    (identity,) = {line.split("/")[-2] for line in done.err.splitlines()}
    assert done.err == (
        f"{tmp_path}/store/relevance/{identity}/entry.json: the relevance search is not in the store; run the manifest "
        "again, or, for a leaderboard, give the output folder of its run\n"
    )


def test_a_damaged_search_is_named(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    path = tmp_path / "runs" / "store" / "relevance" / kept(runs, "first") / "entry.json"
    path.write_text("[]")
    done = cli("relevance", tmp_path / "runs")
    mend = "run the manifest again, which makes it anew"
    assert (done.code, done.err) == (1, f"{path}: the relevance search is damaged; {mend}\n")
