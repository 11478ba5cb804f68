"""What a node of a cluster is like, seen from a stage that runs there."""

from __future__ import annotations

import platform
import socket
from dataclasses import dataclass

import torch

from unlearnbench import __version__
from unlearnbench.engine.engines.engine import Listener
from unlearnbench.machine import Precision, library_versions
from unlearnbench.mirror import local_folder, publish
from unlearnbench.models.training import resolve_precision
from unlearnbench.store import Store


@dataclass(frozen=True)
class Examination:
    """What was found on a node.

    Attributes:
        host: Name of the node.
        versions: Versions of Python, the package and its libraries.
        device: Name of the first GPU that torch can use there; "" if there is none.
        precision: What a recipe's `auto` stands for there.
        store_fault: Why the store cannot be used from there; "" if it can.
    """

    host: str
    versions: dict[str, str]
    device: str
    precision: Precision
    store_fault: str


def versions() -> dict[str, str]:
    """Return the versions that have to be equal wherever stages of one run are computed."""
    libraries = {name: version or "missing" for name, version in library_versions().items()}
    return {"python": platform.python_version(), "unlearnbench": __version__, **libraries}


def examined(told: Listener, output: str) -> Examination:
    """Look at the node that this is computed on.

    Args:
        told: Listener, which is told nothing.
        output: Path or address of the output folder, which is tried.
    """
    fault = ""
    try:
        folder = local_folder(output)
        Store(folder / "store", told.say)
        tried = folder / "tried" / socket.gethostname()
        tried.parent.mkdir(exist_ok=True)
        tried.write_bytes(b"tried")
        publish(tried)
    # Whatever goes wrong is the finding.
    except Exception as error:
        fault = str(error).partition("\n")[0]
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    name = torch.cuda.get_device_name() if gpu else ""
    return Examination(socket.gethostname(), versions(), name, resolve_precision("auto", device), fault)
