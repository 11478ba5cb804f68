"""The hub's cache on this machine, with networks written into it as the hub's own command does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.commands import cli
from support.hub import VIT, cache
from support.manifests import WD, manifest_text, write_manifest

from unlearnbench.errors import DatasetError, NotHereError, PluginError
from unlearnbench.models.build import Network, build_network
from unlearnbench.models.libraries.hub import cached_model, timm_networks, timm_tags
from unlearnbench.models.libraries.members import check_member
from unlearnbench.models.weights import find_weights

SHAPE = (1, 8, 8)
has_transformers = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="no extra hub")
has_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="no extra timm")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path / "hf"


def test_the_cache_is_read_by_branch_and_by_commit(home: Path) -> None:
    folder = cache(
        home,
        "org/net",
        {
            "config.json": VIT,
            "preprocessor_config.json": {"image_mean": [0.5], "image_std": [0.25], "size": {"height": 224}},
        },
    )
    for revision in ("main", "0f1e"):
        found = cached_model("org/net", revision)
        assert found is not None
        assert found.folder == folder
        assert (found.num_classes, found.mean, found.std, found.side) == (10, (0.5,), (0.25,), 224)
        assert found.weights is None
    assert cached_model("org/net", "other") is None
    assert cached_model("org/other") is None


def test_names_that_would_leave_the_cache_are_refused(home: Path) -> None:
    for repository, revision in (("../x", "main"), ("org/net", "../../x"), ("net", "main")):
        with pytest.raises(DatasetError, match=r"is not ORGANISATION/NAME and a revision of the hub$"):
            cached_model(repository, revision)


def test_a_damaged_configuration_is_named(home: Path) -> None:
    folder = cache(home, "org/net", {"config.json": VIT})
    (folder / "config.json").write_text("{")
    with pytest.raises(DatasetError, match=rf"^{re.escape(str(folder))}/config\.json: not readable: "):
        cached_model("org/net")


@has_transformers
def test_a_network_that_is_not_here_is_named_with_the_command_that_brings_it(home: Path) -> None:
    expected = (
        r"^'hub:org/net' is not on this machine\n  Fetch it: unlearnbench data fetch weights hub:org/net main, or "
    )
    with pytest.raises(NotHereError, match=expected):
        check_member("hub:org/net")
    with pytest.raises(PluginError, match="is not ORGANISATION/NAME"):
        check_member("hub:net")


@has_transformers
def test_a_network_of_transformers_is_built_from_its_configuration_for_the_images(home: Path) -> None:
    cache(home, "org/net", {"config.json": VIT})
    model = build_network("hub:org/net", {}, 5, SHAPE).eval()
    logits = model(torch.zeros(2, *SHAPE))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 5)


@has_transformers
def test_weights_of_the_hub_fill_it_and_bring_their_normalisation(home: Path, tmp_path: Path) -> None:
    folder = cache(home, "org/net", {"config.json": VIT, "preprocessor_config.json": {"image_mean": [0.4]}})
    network = Network("hub:org/net", {}, 10, SHAPE)
    trained = network.unfilled(3)
    save_file(dict(trained.state_dict()), folder / "model.safetensors")
    found = find_weights("hub:org/net", "main", tmp_path)
    assert (found.label, found.num_classes, found.mean, found.path) == (
        "main",
        10,
        (0.4,),
        folder / "model.safetensors",
    )
    filled = network.filled(found).eval()
    images = torch.linspace(-1, 1, 128).view(2, *SHAPE)
    assert torch.equal(filled(images), trained.eval()(images))
    with pytest.raises(
        NotHereError, match=r"^'v2' of hub:org/net is not on this machine\n.*fetch weights hub:org/net v2, "
    ):
        find_weights("hub:org/net", "v2", tmp_path)


@has_transformers
def test_a_manifest_with_a_network_that_is_not_here_is_valid_and_says_how_to_get_it(home: Path, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, manifest_text(WD, architecture='[architecture]\nname = "hub:org/net"'))
    done = cli("validate", manifest)
    assert done.code == 0
    assert f"{manifest}:5: architecture.name: 'hub:org/net' is not on this machine" in done.err
    assert cli("run", manifest, "-o", tmp_path / "runs").code == 1


@has_timm
def test_the_names_of_timm_are_those_that_it_registers() -> None:
    import timm

    theirs = {name for name in timm.list_models() if not name.startswith("test_")}
    assert len(theirs - timm_networks()) <= len(theirs) / 100


@has_timm
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_the_tags_of_timm_are_those_of_its_configurations(name: str) -> None:
    import timm

    theirs = {found.partition(".")[2] for found in timm.list_pretrained(f"{name}.*")}
    assert theirs <= set(timm_tags(name))


@has_timm
def test_weights_of_timm_go_by_their_tag(home: Path, tmp_path: Path) -> None:
    configuration = {
        "num_classes": 1000,
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 224, 224]},
    }
    folder = cache(home, "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", {"config.json": configuration})
    (folder / "model.safetensors").write_bytes(b"weights")
    found = find_weights("timm:vit_tiny_patch16_224", "augreg_in21k_ft_in1k", tmp_path)
    assert (found.num_classes, found.mean, found.side) == (1000, (0.5, 0.5, 0.5), 224)
    with pytest.raises(DatasetError, match=r"^timm publishes no weights 'augreg' of vit_tiny_patch16_224\n  "):
        find_weights("timm:vit_tiny_patch16_224", "augreg", tmp_path)


def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearnbench.models.libraries import hub, members

    monkeypatch.setattr(members, "package_file", lambda *_: None)
    for name, package, extra in (("timm:resnet18", "timm", "timm"), ("hub:org/net", "transformers", "hub")):
        expected = f"{package} is not installed\n  pip install 'unlearnbench[{extra}]'"
        with pytest.raises(PluginError, match=f"^{re.escape(expected)}$"):
            check_member(name)
    monkeypatch.setattr(hub, "package_file", lambda *_: None)
    with pytest.raises(DatasetError, match=r"^timm is not installed\n  pip install 'unlearnbench\[timm\]'$"):
        find_weights("timm:resnet18", "a1_in1k", Path())
