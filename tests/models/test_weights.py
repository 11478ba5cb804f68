"""Weights in a manifest, as the original model itself or as the start of its training."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.commands import Done, cli
from support.manifests import ARCHITECTURE, WD, manifest_text, write_manifest
from support.records import record_files
from support.tiny_data import WebServer

from unlearnbench.errors import DatasetError
from unlearnbench.experiment.plan import make_plan
from unlearnbench.experiment.resolve import resolve
from unlearnbench.models import weights as weights_module
from unlearnbench.models.build import Network
from unlearnbench.models.weights import PublishedWeights, cached_weights, find_weights

pytest_plugins = ["support.data_fixtures"]

TSLNRC = '[[unlearners]]\nname = "tslnrc"\noptions = { epochs = 1 }'


def checkpoint(path: Path, seed: int = 7, classes: int = 10, width: int = 4) -> Path:
    torch.save(Network("digits_net", {"width": width}, classes, (1, 8, 8)).build(seed, "original").state_dict(), path)
    return path


def manifest(folder: Path, *keys: str, seeds: str = "seeds = [0, 1]", training: str = "") -> Path:
    text = manifest_text(WD, TSLNRC, head=seeds, architecture="\n".join([ARCHITECTURE, *keys]))
    return write_manifest(folder, text.replace("padding = 1", f"padding = 1\n{training}"))


def run(path: Path, folder: Path, *more: str) -> Done:
    return cli("run", path, "-o", folder / "runs", "--device", "cpu", *more)


@pytest.mark.slow
def test_given_weights_are_the_original_of_every_seed_and_nobody_trains_it(tmp_path: Path) -> None:
    checkpoint(tmp_path / "mine.pth")
    path = manifest(tmp_path, 'weights = "mine.pth"')
    plan = make_plan(resolve(path))
    assert len({cell.original.id for cell in plan.cells}) == 1
    assert len({cell.fdr.id for cell in plan.cells}) == 2
    assert {cell.original.image_passes for cell in plan.cells} == {0}
    done = run(path, tmp_path)
    assert done.code == 0, done.err
    records = {name: json.loads(file.read_text()) for name, file in record_files(tmp_path / "runs").items()}
    first, second = records["original/seed-0.json"], records["original/seed-1.json"]
    assert first["image_passes"] == {"forget": 0, "retain": 0}
    assert first["files"]["model"] == second["files"]["model"]
    assert first["problem"]["weights"] == "mine.pth"
    assert records["fdr/seed-0.json"]["image_passes"]["retain"] > 0
    assert records["fdr/seed-0.json"]["image_passes"]["forget"] == 0


def test_the_dry_run_loads_a_given_original(tmp_path: Path) -> None:
    checkpoint(tmp_path / "mine.pth")
    done = run(manifest(tmp_path, 'weights = "mine.pth"'), tmp_path, "--dry-run", "--json")
    work = {row["what"]: row for row in done.json[0]["work"]}
    assert work["load Original"]["total"] == 1
    assert work["load Original"]["image_passes"] == 0
    assert work["train FDR"]["total"] == 2


def test_another_checkpoint_is_another_problem_and_a_moved_one_is_not(tmp_path: Path) -> None:
    checkpoint(tmp_path / "mine.pth", seed=1)
    path = manifest(tmp_path, 'weights = "mine.pth"')
    first = resolve(path).problems[0].id
    (tmp_path / "mine.pth").rename(tmp_path / "moved.pth")
    assert resolve(manifest(tmp_path, 'weights = "moved.pth"')).problems[0].id == first
    checkpoint(tmp_path / "moved.pth", seed=2)
    assert resolve(path.with_name("small.toml")).problems[0].id != first


@pytest.mark.slow
def test_training_starts_from_the_start_and_so_do_fdr_and_tslnrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path / "begin.pth", classes=5)
    begin = torch.load(tmp_path / "begin.pth")["0.weight"]
    path = manifest(tmp_path, 'start = "begin.pth"', seeds="seeds = [0]", training="weight_decay = 0.0")
    path.write_text(path.read_text().replace("learning_rate = 0.1", "learning_rate = 1e-12"))
    done = run(path, tmp_path)
    assert done.code == 0, done.err
    from safetensors.torch import load_file

    records = {name: json.loads(file.read_text()) for name, file in record_files(tmp_path / "runs").items()}
    for name in ("original/seed-0.json", "fdr/seed-0.json", "tslnrc/seed-0.json"):
        weight = load_file(tmp_path / "runs" / records[name]["files"]["model"]["path"])["0.weight"]
        assert torch.allclose(weight, begin, atol=1e-6), name
        assert records[name]["problem"]["start"] == "begin.pth"


def test_the_original_may_be_given_and_training_start_elsewhere(tmp_path: Path) -> None:
    checkpoint(tmp_path / "mine.pth", seed=1)
    checkpoint(tmp_path / "begin.pth", seed=2)
    both = resolve(manifest(tmp_path, 'weights = "mine.pth"', 'start = "begin.pth"')).problems[0]
    assert (both.weights and both.weights.label, both.start and both.start.label) == ("mine.pth", "begin.pth")
    swapped = resolve(manifest(tmp_path, 'weights = "begin.pth"', 'start = "mine.pth"')).problems[0]
    assert swapped.id != both.id


def test_weights_that_do_not_fit_end_the_run_before_anything_is_trained(tmp_path: Path) -> None:
    checkpoint(tmp_path / "mine.pth", width=8)
    done = run(manifest(tmp_path, 'weights = "mine.pth"'), tmp_path)
    assert done.code == 1
    lines = [line for line in done.err.splitlines() if "mine.pth" in line or "shape" in line]
    named = f"{tmp_path}/small.toml: architecture.weights: {tmp_path}/mine.pth: does not fit Sequential"
    assert lines[0] == named
    assert lines[1].startswith("  another shape: 0.weight is (8, 1, 3, 3), not (4, 1, 3, 3), ")
    assert record_files(tmp_path / "runs") == {}


def test_a_start_that_does_not_fit_ends_the_run_too(tmp_path: Path) -> None:
    checkpoint(tmp_path / "begin.pth", width=8)
    done = run(manifest(tmp_path, 'start = "begin.pth"'), tmp_path)
    assert done.code == 1
    assert f"architecture.start: {tmp_path}/begin.pth: does not fit Sequential" in done.err


def test_a_network_that_cannot_take_the_images_ends_the_run_before_anything_is_trained(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest_text(WD, architecture='[architecture]\nname = "resnet18"'))
    done = cli("run", path, "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 1
    assert done.err.endswith(f"{path}: architecture.name: resnet18 takes images of 3 channels, not 1\n")
    assert record_files(tmp_path / "runs") == {}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            'weights = "gone.pth"',
            "'gone.pth': no such file (looked at {folder}/gone.pth)\n  Published for digits_net: none",
        ),
        (
            'start = "IMAGENET1K_V1"',
            "'IMAGENET1K_V1': neither published weights nor a file (looked at {folder}/IMAGENET1K_V1)\n"
            "  Published for digits_net: none",
        ),
    ],
)
def test_weights_that_are_not_there_are_named_with_their_line(
    data: Path, tmp_path: Path, key: str, message: str
) -> None:
    path = manifest(tmp_path, key)
    done = cli("validate", path)
    name = key.partition(" ")[0]
    assert done.code == 1
    assert done.err.strip() == f"{path}:7: architecture.{name}: {message.format(folder=tmp_path)}"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, server: WebServer, data: Path, tmp_path: Path) -> PublishedWeights:
    """Publish weights "theirs" for digits_net on the local server."""
    content = checkpoint(tmp_path / "theirs.pth").read_bytes()
    digits = hashlib.sha256(content).hexdigest()[:8]
    server.files[f"/net-{digits}.pth"] = content
    url = server.url(f"/net-{digits}.pth")
    weights = PublishedWeights(url, f"net-{digits}.pth", "sha256", digits, len(content), 10, (0.25,), (0.5,))
    monkeypatch.setitem(weights_module.WEIGHTS, ("digits_net", "theirs"), weights)
    return weights


def test_published_weights_that_are_missing_are_named_with_the_command(
    published: PublishedWeights, tmp_path: Path, server: WebServer
) -> None:
    path = manifest(tmp_path, 'weights = "theirs"')
    done = run(path, tmp_path)
    assert done.code == 1
    size = f"{published.size / 1000:.0f} kB" if published.size >= 9950 else f"{published.size / 1000:.1f} kB"
    assert done.err.strip() == (
        f"{path}:7: architecture.weights: 'theirs' of digits_net is not on this machine ({size})\n"
        "  Fetch it: unlearnbench data fetch weights digits_net theirs, or run with --download"
    )
    assert server.ranges == []


@pytest.mark.slow
def test_run_with_download_fetches_them_first(published: PublishedWeights, tmp_path: Path, data: Path) -> None:
    done = run(manifest(tmp_path, 'weights = "theirs"', seeds="seeds = [0]"), tmp_path, "--download")
    assert done.code == 0, done.err
    assert (data / "weights" / published.file_name).is_file()
    done = run(manifest(tmp_path, 'weights = "theirs"', seeds="seeds = [0]"), tmp_path)
    assert "all 4 cells are done already" in done.err


def test_data_fetch_weights_prints_where_they_are(published: PublishedWeights, data: Path) -> None:
    done = cli("data", "fetch", "weights", "digits_net", "theirs")
    assert (done.code, done.out.strip()) == (0, str(data / "weights" / published.file_name))


def test_published_weights_bring_their_normalisation_and_the_recipe_s_own_goes_before(
    published: PublishedWeights, tmp_path: Path
) -> None:
    cli("data", "fetch", "weights", "digits_net", "theirs")
    recipe = resolve(manifest(tmp_path, 'start = "theirs"')).problems[0].recipe
    assert (recipe["mean"], recipe["std"]) == ([0.25], [0.5])
    own = manifest(tmp_path, 'start = "theirs"', training="mean = [0.1]\nstd = [0.2]")
    recipe = resolve(own).problems[0].recipe
    assert (recipe["mean"], recipe["std"]) == ([0.1], [0.2])


def test_published_weights_with_other_classes_cannot_be_the_original(
    published: PublishedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("data", "fetch", "weights", "digits_net", "theirs")
    monkeypatch.setitem(weights_module.WEIGHTS, ("digits_net", "theirs"), replace(published, num_classes=1000))
    path = manifest(tmp_path, 'weights = "theirs"')
    expected = (
        f"{path}:7: architecture.weights: 'theirs' has 1000 classes, digits has 10: it cannot be the original\n"
        '  To train from it: start = "theirs"'
    )
    assert cli("validate", path).err.strip() == expected


def test_weights_that_another_library_fetched_are_found(
    published: PublishedWeights, tmp_path: Path, data: Path
) -> None:
    assert cached_weights(published) is None
    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (tmp_path / "theirs.pth").rename(place / published.file_name)
    assert find_weights("digits_net", "theirs", tmp_path).path == place / published.file_name


def test_published_weights_that_are_damaged_end_the_run(
    published: PublishedWeights, tmp_path: Path, data: Path
) -> None:
    (data / "weights").mkdir(parents=True)
    checkpoint(data / "weights" / published.file_name, seed=99)
    done = run(manifest(tmp_path, 'weights = "theirs"'), tmp_path)
    assert done.code == 1
    assert f"{data}/weights/{published.file_name}: damaged, or changed since it was looked at: sha256 " in done.err


def test_unknown_published_weights_name_the_nearest(data: Path) -> None:
    done = cli("data", "fetch", "weights", "resnet50", "IMAGENET_V1")
    assert done.code == 2
    assert done.err.startswith(
        "no weights resnet50 IMAGENET_V1 are published\n  Did you mean 'resnet50 IMAGENET1K_V1'? Valid: "
    )


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ("mean = [0.1]", "training.mean: mean is given without std; give both or none"),
        ("std = [0.1]", "training.std: std is given without mean; give both or none"),
        (
            "mean = [0.1, 0.1, 0.1]\nstd = [1.0]",
            "training.mean: 3 numbers where digits has 1 channels",
        ),
    ],
)
def test_a_normalisation_that_does_not_fit_is_named(tmp_path: Path, training: str, message: str) -> None:
    path = manifest(tmp_path, training=training)
    done = cli("validate", path)
    assert re.fullmatch(rf"{re.escape(str(path))}:\d+: {re.escape(message)}", done.err.strip())


def test_a_checkpoint_of_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"^'x/y': neither published weights nor a file \(looked at "):
        find_weights("resnet20", "x/y", tmp_path)
