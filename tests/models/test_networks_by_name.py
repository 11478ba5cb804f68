"""Networks that people use, end to end: two reference models, ERwP and two baselines on small images, one seed."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from support.commands import Done, cli
from support.hub import VIT, cache
from support.manifests import FOLNRC, WD, manifest_text, write_manifest

OWN = Path(__file__).parents[1] / "support" / "networks.py"
SIDE, CLASSES, IMAGES = 32, 4, 10
ERWP = (
    '[[unlearners]]\nname = "erwp"\noptions = { augmentation = "rotation", batch_size = 16, learning_rate = 1e-3, '
    "epochs = 1 }"
)
TRAINING = "[training]\nepochs = 1\nbatch_size = 16\nlearning_rate = 0.02\nschedule = 'constant'\nprecision = 'float32'"
PROBLEM = '[problem]\nforget_classes = ["3"]\nlimited_share = 0.3'


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Add scikit-learn's digits 0 to 3 as photos of a user, 32 pixels a side and in colour."""
    folder = tmp_path_factory.mktemp("photos")
    digits = load_digits()
    for label in range(CLASSES):
        (folder / str(label)).mkdir()
        for number, image in enumerate(digits.images[digits.target == label][:IMAGES]):
            grey = Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((SIDE, SIDE))
            grey.convert("RGB").save(folder / str(label) / f"{number}.png")
    done = cli("data", "add", "image_folder", folder, "--as", "digit-photos")
    assert done.code == 0, done.err


def run(folder: Path, architecture: str, options: str = "") -> Done:
    text = manifest_text(
        ERWP,
        WD,
        FOLNRC,
        dataset='[dataset]\nname = "image_folder"\noptions = { source = "digit-photos" }',
        architecture=f'[architecture]\nname = "{architecture}"\n{options}',
        problem=PROBLEM,
        training=TRAINING,
    )
    return cli("run", write_manifest(folder, text), "-o", folder / "runs", "--device", "cpu")


NETWORKS = {
    "torchvision:resnet18": "",
    "torchvision:mobilenet_v3_small": "",
    "torchvision:densenet121": "",
    "torchvision:efficientnet_b0": "",
    "torchvision:googlenet": "options = { arguments = { aux_logits = true } }",
    "torchvision:shufflenet_v2_x0_5": "",
    "timm:vit_tiny_patch16_224": "options = { arguments = { depth = 2 } }",
    "timm:deit_tiny_distilled_patch16_224": "options = { arguments = { depth = 2 } }",
    "timm:swin_tiny_patch4_window7_224": "options.arguments = { depths = [1, 1], num_heads = [2, 2], embed_dim = 16 }",
    "timm:convnext_atto": "options = { arguments = { depths = [1, 1, 1, 1], dims = [8, 16, 32, 64] } }",
    "timm:mobilenetv3_small_050": "",
    "hub:org/net": "",
    **{
        f"file:{OWN}:{name}": ""
        for name in (
            *("vision_transformer", "convnext", "swin", "weight_normed", "old_weight_normed", "spectral_normed"),
            *("without_bias", "cosine", "low_rank_body"),
        )
    },
}
EXTRAS = {"timm:": "timm", "hub:": "transformers"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS, ids=lambda name: name.replace(str(OWN), "networks.py"))
def test_a_network_is_trained_unlearned_and_measured(
    name: str, photos: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = [package for family, package in EXTRAS.items() if name.startswith(family)]
    if any(importlib.util.find_spec(package) is None for package in missing):
        pytest.skip(f"{missing[0]} is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    cache(tmp_path / "hf", "org/net", {"config.json": VIT})
    done = run(tmp_path, name, NETWORKS[name])
    assert done.code == 0, done.err
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "records").rglob("*.json")]
    assert {record["method"]["label"] for record in records} == {"original", "fdr", "erwp", "wd", "folnrc"}
    for record in records:
        assert record["status"] == "done", record["reason"]
        values = [record["metrics"][metric]["value"] for metric in ("forget_accuracy", "retain_accuracy")]
        assert all(math.isfinite(value) for value in values)
    deleted = next(record for record in records if record["method"]["label"] == "wd")
    # Deleting an output leaves the features as they are and can only help the retain classes.
    original = next(record for record in records if record["method"]["label"] == "original")
    assert deleted["metrics"]["forget_accuracy"]["value"] == 0.0
    assert deleted["metrics"]["retain_accuracy"]["value"] >= original["metrics"]["retain_accuracy"]["value"]
    for metric in ("forget_prototype_accuracy", "retain_prototype_accuracy"):
        assert deleted["metrics"][metric]["value"] == original["metrics"][metric]["value"]
    if os.environ.get("UNLEARNBENCH_SHOW"):
        print(name, next(record for record in records if record["method"]["label"] == "erwp")["details"])


@pytest.mark.parametrize("name", ["cosine_layer", "low_rank_head"])
def test_a_network_whose_classifier_cannot_be_told_is_refused_before_anything_is_trained(
    name: str, photos: None, tmp_path: Path
) -> None:
    done = run(tmp_path, f"file:{OWN}:{name}")
    assert done.code == 1
    assert "architecture.name: " in done.err
    assert "its outputs are not W f + b of a linear layer" in done.err
    assert "training Original" not in done.err
    assert not list((tmp_path / "runs").rglob("*.safetensors"))
