"""Questions to foreign code, answered in a process of its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from unlearnbench.engine.processes.fork_server import Setting, fork_server
from unlearnbench.engine.processes.method import last_lines
from unlearnbench.engine.processes.unlearning import reason_of
from unlearnbench.errors import PluginError, UnlearnBenchError
from unlearnbench.registry.declare import RANGES, Range, SearchSpace
from unlearnbench.registry.entry_points import PluginKind, find
from unlearnbench.unlearners.contract import CheckResult, examine


def check_results(unlearner: str) -> Iterator[CheckResult]:
    """Yield what the contract's checks of an installed unlearner say, each as soon as it is known.

    Raises:
        PluginError: If the unlearner cannot be loaded, or its process does not survive the checks.
    """
    for value in _values(_check_results, unlearner):
        yield CheckResult(**value)


def _check_results(unlearner: str) -> Iterator[dict[str, Any]]:
    for result in examine(find("unlearners", unlearner).load()):
        yield vars(result)


def declared_ranges(unlearner: str) -> dict[str, SearchSpace]:
    """Return the ranges that an installed unlearner declares for its options.

    Raises:
        PluginError: If the unlearner cannot be loaded.
    """
    (spaces,) = _values(_declared_ranges, unlearner)
    return {
        name: Range(**space)
        if isinstance(space, dict)
        else tuple(tuple(v) if isinstance(v, list) else v for v in space)
        for name, space in spaces.items()
    }


def _declared_ranges(unlearner: str) -> Iterator[dict[str, Any]]:
    declared = getattr(find("unlearners", unlearner).load(), RANGES, {})
    yield {name: vars(space) if isinstance(space, Range) else list(space) for name, space in declared.items()}


def try_loading(kind: PluginKind, name: str) -> None:
    """Load an installed plugin where that can do no harm.

    Raises:
        PluginError: If it cannot be loaded.
    """
    list(_values(_loaded, kind, name))


def _loaded(kind: PluginKind, name: str) -> Iterator[None]:
    find(kind, name).load()
    yield None


def _values(function: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """Yield the JSON values that a function yields in a process of its own.

    Raises:
        PluginError: If the function raises an exception, or its process ends before the function does.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with fork_server(1).start(_send_values, function, arguments, setting=Setting(log, trusted=False)) as process:
            while True:
                # How it ended is looked at first, so that messages which were sent before are still read.
                ended = process.ended
                content = process.message()
                if content is None:
                    if ended is not None:
                        raise PluginError("\n  ".join([f"{arguments[-1]}: {ended}", *last_lines(log)]))
                    process.wait(None)
                    continue
                message = json.loads(content)
                if "failed" in message:
                    raise PluginError(message["failed"])
                if "end" in message:
                    return
                yield message["value"]


def _send_values(connection: Connection, function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    try:
        for value in function(*arguments):
            connection.send_bytes(json.dumps({"value": value}).encode())
        outcome: dict[str, Any] = {"end": True}
    except UnlearnBenchError as error:
        outcome = {"failed": str(error)}
    except BaseException as error:
        outcome = {"failed": f"{arguments[-1]}: {reason_of(error)}"}
    connection.send_bytes(json.dumps(outcome).encode())
