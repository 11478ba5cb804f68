"""Data sets and networks of the Hugging Face hub are fetched by its own library, here from a server like the hub."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from support.commands import cli
from support.hub import COMMIT, VIT, HubServer
from support.manifests import WD, manifest_text, write_manifest

from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.datasets.parquet import hub_download
from unlearnbench.errors import DatasetError
from unlearnbench.experiment.assets import fetch_missing
from unlearnbench.models.weights import find_weights

arrow = pytest.importorskip("pyarrow", reason="needs pip install 'unlearnbench[parquet]'")
parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("huggingface_hub", reason="needs pip install 'unlearnbench[hub]'")

pytest_plugins = ["support.data_fixtures"]

DIGITS = load_digits()


def table(numbers: range) -> bytes:
    """Return some of scikit-learn's digits as a parquet file."""
    images = []
    for number in numbers:
        buffer = io.BytesIO()
        Image.fromarray((DIGITS.images[number] * 15).astype(np.uint8)).save(buffer, "png")
        images.append({"bytes": buffer.getvalue(), "path": f"{number}.png"})
    out = io.BytesIO()
    parquet.write_table(arrow.table({"image": images, "label": DIGITS.target[numbers.start : numbers.stop]}), out)
    return out.getvalue()


@pytest.fixture
def hub(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    server.repositories["datasets/zoo/digits"] = {
        "README.md": b"# Digits",
        "data/train-00000-of-00001.parquet": table(range(60)),
        "data/test-00000-of-00001.parquet": table(range(60, 90)),
    }
    server.repositories["models/org/net"] = {
        "config.json": json.dumps(VIT).encode(),
        "preprocessor_config.json": json.dumps({"image_mean": [0.5]}).encode(),
        "pytorch_model.bin": b"the unsafe form",
        "model.safetensors": b"weights",
    }
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_a_data_set_is_fetched_added_and_known_by_its_commit(hub: HubServer) -> None:
    done = cli("data", "fetch", "hub:zoo/digits")
    assert done.code == 0, done.err
    assert f"fetching hub:zoo/digits at {COMMIT}: " in done.err
    facts = "digits: 10 classes (0, 1, 2 and 7 more), 60 training and 30 test images of 3x8x8, revision "
    assert done.out.startswith(facts)
    assert done.out.endswith(f", from hub:zoo/digits@{COMMIT}\n")
    dataset = open_dataset("parquet", {"source": "digits"})
    assert dataset.info.origin == f"hub:zoo/digits@{COMMIT}"
    images = dataset.train().images.read(np.arange(60))
    assert np.array_equal(images[:, 0], (DIGITS.images[:60] * 15).astype(np.uint8))
    listed = next(entry for entry in cli("data", "list", "--json").json if entry["name"] == "parquet digits")
    assert listed["note"] == f"hub:zoo/digits@{COMMIT}"


def test_a_cut_download_goes_on_where_it_stopped(hub: HubServer, tmp_path: Path) -> None:
    # The library writes blocks of 10 MiB, and a block that was cut is asked for again.
    content = bytes(range(256)) * (12 << 12)
    hub.repositories["models/org/net"] = {"config.json": b"{}", "model.safetensors": content}
    hub.cuts = [2, 11 << 20]
    assert cli("data", "fetch", "weights", "hub:org/net", "main").code == 0
    assert any(asked not in (None, "bytes=0-") for asked in hub.ranges)
    assert find_weights("hub:org/net", "main", tmp_path).path.read_bytes() == content


def test_what_was_fetched_is_added_under_other_names_without_the_hub(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("data", "fetch", f"hub:zoo/digits@{COMMIT}").code == 0
    hub.repositories.clear()
    done = cli("data", "add", "parquet", f"hub:zoo/digits@{COMMIT}", "--as", "again", "--side", "16")
    assert (done.code, "of 3x16x16" in done.out) == (0, True), done.err


def test_what_the_hub_has_converted_is_fetched_from_its_branch(hub: HubServer) -> None:
    branch = "refs/convert/parquet"
    files = {"default/train/0000.parquet": table(range(30)), "default/test/0000.parquet": table(range(60, 90))}
    # The library asks for files by the commit.
    hub.repositories |= {f"datasets/zoo/digits@{branch}": files, "datasets/zoo/digits": files}
    done = cli("data", "fetch", f"hub:zoo/digits@{branch}")
    assert (done.code, "30 training and 30 test images" in done.out) == (0, True), done.err


def refused(name: str) -> str:
    done = cli("data", "fetch", *name.split())
    assert done.code == 2
    return done.err


def test_what_cannot_be_fetched_is_said_with_the_reason(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["datasets/zoo/texts"] = {"README.md": b"", "data.csv": b""}
    assert refused("hub:zoo/texts") == (
        "hub:zoo/texts at 'main' has no file that can be used here: README.md, data.csv\n"
        "  The hub may have converted it: unlearnbench data fetch hub:zoo/texts@refs/convert/parquet\n"
    )
    assert refused("hub:zoo/none") == (
        "hub:zoo/none at 'main' cannot be fetched: the hub shows no such repository\n"
        "  If it is private, log in first: hf auth login\n"
    )
    assert refused("hub:zoo/digits@v2") == (
        "hub:zoo/digits at 'v2' cannot be fetched: the repository has no such branch, tag or commit\n"
    )
    assert "is not ORGANISATION/NAME and a revision" in refused("hub:digits")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    told = refused("hub:zoo/digits")
    assert told.startswith("hub:zoo/digits at 'main' cannot be fetched: ")
    assert told.endswith("\n  The same command goes on from where it stopped\n")
    assert len(told.splitlines()) == 2


def test_weights_and_the_network_are_fetched_by_their_names(hub: HubServer, tmp_path: Path) -> None:
    done = cli("data", "fetch", "weights", "hub:org/net", "main")
    assert done.code == 0, done.err
    found = find_weights("hub:org/net", "main", tmp_path)
    assert (done.out.strip(), found.mean, found.num_classes) == (str(found.path), (0.5,), 10)
    assert found.path.read_bytes() == b"weights"
    assert {file.name for file in found.path.parent.iterdir()} == {
        *("config.json", "preprocessor_config.json", "model.safetensors")
    }
    assert refused("weights hub:org/none main").startswith("hub:org/none at 'main' cannot be fetched: the hub shows no")


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="no extra timm")
def test_weights_of_timm_are_fetched_by_their_tag(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["models/timm/resnet18.a1_in1k"] = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    assert cli("data", "fetch", "weights", "timm:resnet18", "a1_in1k").code == 0
    assert find_weights("timm:resnet18", "a1_in1k", tmp_path).path.name == "pytorch_model.bin"
    assert refused("weights timm:resnet18 a9").startswith("timm publishes no weights 'a9' of resnet18\n")


@pytest.mark.parametrize("role", ["weights", "original", "fdr"])
def test_run_fetches_what_its_manifest_needs_from_the_hub_only_when_asked(
    hub: HubServer, tmp_path: Path, role: str
) -> None:
    bare = write_manifest(tmp_path, manifest_text(WD, architecture='[architecture]\nname = "hub:org/net"'))
    fetch_missing(bare)
    place = tmp_path / "hf" / "hub" / "models--org--net" / "snapshots" / COMMIT
    assert {file.name for file in place.iterdir()} == {"config.json", "preprocessor_config.json"}
    named = manifest_text(WD, architecture=f'[references]\n{role} = "main"\n[architecture]\nname = "hub:org/net"')
    if role == "weights":
        named = manifest_text(WD, architecture='[architecture]\nname = "hub:org/net"\nweights = "main"')
    fetch_missing(write_manifest(tmp_path, named))
    assert (place / "model.safetensors").read_bytes() == b"weights"
    hub.repositories.clear()  # What is here is not asked for again.
    fetch_missing(tmp_path / "small.toml")


def test_without_the_library_the_extra_is_named(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DatasetError, match=r"^huggingface_hub is not installed\n  pip install 'unlearnbench\[hub\]'$"):
        hub_download.fetch_files("datasets", "zoo/digits", list)
