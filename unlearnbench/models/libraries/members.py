"""Whether a library has a network of a name, said before the library is imported."""

from __future__ import annotations

from collections.abc import Collection

from unlearnbench.datasets.parquet.hub_cache import HUB
from unlearnbench.errors import DatasetError, NotHereError, PluginError, did_you_mean
from unlearnbench.models.libraries.hub import TIMM, cached_model, how_to_fetch, timm_networks
from unlearnbench.models.libraries.sources import package_file
from unlearnbench.models.libraries.torchvision_models import FAMILY as TORCHVISION
from unlearnbench.models.libraries.torchvision_models import networks


def check_member(name: str) -> None:
    """Check that a library has the network that an architecture's name refers to; other names pass.

    Args:
        name: Name of an architecture, such as `torchvision:resnet18`.

    Raises:
        PluginError: If the library is not installed or has no such network.
        NotHereError: If the network is one of the hub and not on this machine.
    """
    family, colon, member = name.partition(":")
    if colon and not member:
        raise PluginError(f"{name!r} is a family of networks\n  Put the name of one behind it: {name}NAME")
    if f"{family}{colon}" == TORCHVISION:
        _check(name, member, networks())
    elif f"{family}{colon}" == TIMM:
        _check_installed("timm", "timm")
        _check(name, member, timm_networks())
    elif f"{family}{colon}" == HUB:
        _check_installed("transformers", "hub")
        try:
            found = cached_model(member)
        except DatasetError as error:
            raise PluginError(str(error)) from error
        if found is None:
            raise NotHereError(f"{name!r} is not on this machine{how_to_fetch(name)}", None)


def _check_installed(package: str, extra: str) -> None:
    if package_file(package) is None:
        raise PluginError(f"{package} is not installed\n  pip install 'unlearnbench[{extra}]'")


def _check(name: str, member: str, known: Collection[str]) -> None:
    if member not in known:
        raise PluginError(f"{name!r}: the installed library has no such classifier{did_you_mean(member, known)}")
