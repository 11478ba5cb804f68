from __future__ import annotations

import subprocess
import sys

import pytest
from torchvision import models

from unlearnbench.errors import PluginError
from unlearnbench.models.libraries.members import check_member
from unlearnbench.models.libraries.torchvision_models import networks, published
from unlearnbench.registry.entry_points import find


def test_the_names_are_those_that_torchvision_registers() -> None:
    assert set(networks()) == set(models.list_models(module=models))


@pytest.mark.parametrize("name", networks())
def test_published_weights_are_those_of_torchvision_with_its_own_preparation(name: str) -> None:
    theirs = {
        label: weights
        for label, weights in models.get_model_weights(name).__members__.items()
        if weights.meta["categories"] is not None
    }
    assert list(published(name)) == list(theirs)
    for label, weights in theirs.items():
        found, prepared = published(name)[label], weights.transforms()
        assert found.url == weights.url
        assert found.file_name.endswith(f"-{found.checksum}.pth")
        assert (found.mean, found.std) == (tuple(prepared.mean), tuple(prepared.std))
        assert [found.side] == prepared.crop_size
        assert found.num_classes == len(weights.meta["categories"])
        assert found.size == pytest.approx(weights.meta["_file_size"] * 2**20, abs=1)


def test_a_name_that_torchvision_has_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"^'torchvision:resnet19': .* no such classifier\n  Did you mean 'resnet1"):
        check_member("torchvision:resnet19")


@pytest.mark.parametrize("name", ["torchvision:", "torchvision"])
def test_a_family_alone_is_no_network(name: str) -> None:
    expected = f"^{name!r} is a family of .*\n  Put the name of one behind it: torchvision:NAME$"
    with pytest.raises(PluginError, match=expected):
        check_member(find("architectures", name).name)


def test_names_and_weights_are_found_without_importing_torch() -> None:
    code = (
        "import sys; from unlearnbench.models.weights import published_weights; "
        "print(len(published_weights('torchvision:resnet50')), 'torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3 False False"
