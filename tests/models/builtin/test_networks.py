from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from unlearnbench.errors import PluginError
from unlearnbench.models.build import build_network
from unlearnbench.models.builtin.imagenet_networks import resnet18
from unlearnbench.models.classifier import captured_features, classifier, classifier_name
from unlearnbench.models.weights import WEIGHTS

CIFAR, SMALL = (3, 32, 32), (3, 64, 64)


# The parameter counts are those that pytorchcv and torchvision publish for these networks.
@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters", "layer", "width"),
    [
        ("resnet20", CIFAR, 100, 278_324, "output", 64),
        ("resnet56", CIFAR, 100, 861_620, "output", 64),
        ("resnet164", CIFAR, 100, 1_727_284, "output", 256),
        ("resnet18_cifar", CIFAR, 10, 11_173_962, "fc", 512),
        ("resnet18", SMALL, 1000, 11_689_512, "fc", 512),
        ("resnet50", SMALL, 1000, 25_557_032, "fc", 2048),
        ("mobilenet_v2", SMALL, 1000, 3_504_872, "classifier.1", 1280),
    ],
)
def test_a_network_has_the_published_size_and_its_classifier_is_found(
    name: str, shape: tuple[int, int, int], classes: int, parameters: int, layer: str, width: int
) -> None:
    network = build_network(name, {}, classes, shape).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert classifier_name(network) == layer
    with torch.inference_mode(), captured_features(network) as features:
        logits = network(torch.zeros(2, *shape))
        assert logits.shape == (2, classes)
        assert features[0].shape == (2, width)
        assert torch.allclose(classifier(network)(features[0]), logits, atol=1e-5)


@pytest.mark.parametrize(("name", "shape"), [("resnet20", CIFAR), ("resnet18", SMALL), ("mobilenet_v2", SMALL)])
def test_any_number_of_classes_is_possible(name: str, shape: tuple[int, int, int]) -> None:
    assert build_network(name, {}, 7, shape).eval()(torch.zeros(1, *shape)).shape == (1, 7)


def test_cifar_networks_are_bit_for_bit_those_of_pytorchcv() -> None:
    from pytorchcv.models.resnet_cifar import resnet20_cifar100

    theirs, ours = resnet20_cifar100().eval(), build_network("resnet20", {}, 100, CIFAR).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(3, *CIFAR)
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)


def test_cifar_networks_take_grey_images_of_another_size() -> None:
    assert build_network("resnet20", {}, 5, (1, 28, 28)).eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 5)


def test_networks_of_torchvision_refuse_grey_images() -> None:
    with pytest.raises(PluginError, match=r"^resnet18 takes images of 3 channels, not 1$"):
        resnet18(10, (1, 64, 64))


def test_published_weights_are_those_that_torchvision_and_pytorchcv_name() -> None:
    import csv
    from pathlib import Path

    import pytorchcv
    from torchvision.models import get_model_weights

    table = Path(pytorchcv.__file__).parent / "models" / "common" / "model_metainfos.csv"
    rows = {row["model_name"]: row for row in csv.DictReader(table.open())}
    theirs = {"resnet20": "resnet20_cifar100", "resnet56": "resnet56_cifar100", "resnet164": "resnet164bn_cifar100"}
    for (name, label), published in WEIGHTS.items():
        if label == "pytorchcv":
            row = rows[theirs[name]]
            assert published.checksum == row["checksum"]
            assert published.file_name == f"{theirs[name]}-{row['error_value']}-{row['checksum'][:8]}.pth"
            assert f"/{row['repo_release_tag']}/" in published.url
        else:
            assert get_model_weights(name)[label].url == published.url


@pytest.mark.slow
def test_cifar_networks_do_without_the_slow_part_of_pytorchcv() -> None:
    code = (
        "import sys, unlearnbench.models.builtin.cifar_resnet; "
        "print('pytorchcv.model_provider' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
