"""A benchmark of class unlearning with limited data: the command line's functions for notebooks and plugins.

A name is imported only when it is first used, so that `import unlearnbench` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearnbench.engine.executor import run
    from unlearnbench.errors import NotApplicable
    from unlearnbench.experiment.resolve import load_manifest
    from unlearnbench.metrics.features import open_features
    from unlearnbench.registry.declare import declare
    from unlearnbench.results.evaluate import evaluate
    from unlearnbench.results.report.frame import read_records
    from unlearnbench.unlearners.contract import check_unlearner

__version__ = "0.1.0"
__all__ = [
    "NotApplicable",
    "check_unlearner",
    "declare",
    "evaluate",
    "load_manifest",
    "open_features",
    "read_records",
    "run",
]

_HOMES = {
    "NotApplicable": "errors",
    "check_unlearner": "unlearners.contract",
    "declare": "registry.declare",
    "evaluate": "results.evaluate",
    "load_manifest": "experiment.resolve",
    "open_features": "metrics.features",
    "read_records": "results.report.frame",
    "run": "engine.executor",
}


def __getattr__(name: str) -> Any:
    """Import a name from the module that defines it when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the names of the interface."""
    return sorted({*globals(), *__all__})
