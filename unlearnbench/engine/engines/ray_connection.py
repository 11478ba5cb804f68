"""The connection to a Ray cluster, which is started on this machine if there is none."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from importlib import import_module
from typing import Any, TypeVar

from unlearnbench.engine.engines.engine import EngineError
from unlearnbench.errors import UnlearnBenchError, first_line
from unlearnbench.store import Say

# Every wait for the cluster ends after this, and says what it was for.
ANSWER_SECONDS = 60.0
REACH_SECONDS = 10.0
START_MILLISECONDS = 180_000
RECONNECT_SECONDS = 300
Answer = TypeVar("Answer")
INSTALL = "--on ray needs Ray\n  pip install 'unlearnbench[ray]'"


def prepared() -> None:
    """Give Ray more time than it takes for itself, by variables that it reads when it is imported.

    Its agent has 15 seconds to start, for which a whole node waits, and that is too few on a busy machine. A driver
    whose head is silent for a minute ends its own process with a stack of C++, before anything can be said instead. Its
    workers have the niceness 15, with which they get next to nothing of a core that others use too.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", str(START_MILLISECONDS))
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(RECONNECT_SECONDS))


def ray_module() -> Any:
    """Return Ray.

    Raises:
        UnlearnBenchError: If it is not installed.
    """
    prepared()
    try:
        return import_module("ray")
    except ImportError as error:
        raise UnlearnBenchError(INSTALL) from error


def connect(address: str, say: Say) -> Any:
    """Connect to a cluster, or start one on this machine, unless that was done before; return Ray.

    Args:
        address: `ray` for the cluster that RAY_ADDRESS names or else a new one on this machine, `ray://HOST:PORT`, or
            `HOST:PORT`.
        say: Receives the address of the dashboard.

    Raises:
        EngineError: If the cluster does not answer.
        UnlearnBenchError: If Ray is not installed.
    """
    ray = ray_module()
    if ray.is_initialized():
        return ray
    place = os.environ.get("RAY_ADDRESS", "local") if address == "ray" else address
    settings = {"log_to_driver": False, "logging_level": "ERROR"}
    say(f"ray: {'starting on this machine' if place == 'local' else f'connecting to {place}'}")
    try:
        context = _started(ray, settings, say) if place == "local" else _joined(ray, place, settings)
    # Ray raises exceptions of no kind of their own.
    except Exception as error:
        raise EngineError(f"--on {address}: {first_line(error)}") from error
    dashboard = getattr(context, "dashboard_url", "")
    if dashboard:
        say(f"ray: dashboard at http://{dashboard}")
    return ray


def _started(ray: Any, settings: dict[str, Any], say: Say) -> Any:
    """Start a cluster on this machine, which ends with the thread that starts it."""
    try:
        return ray.init(address="local", include_dashboard=_has_dashboard(), **settings)
    except Exception as error:
        # A busy machine may need longer than the 30 seconds that Ray gives itself, and knows by then what it has read.
        if "timed out" not in str(error):
            raise
        say("ray: the start took too long; once more, without the dashboard")
        ray.shutdown()
        return ray.init(address="local", include_dashboard=False, **settings)


def _has_dashboard() -> bool:
    """Return whether what Ray's dashboard needs is installed."""
    try:
        import_module("aiohttp_cors")
    except ImportError:
        return False
    return True


ATTEMPTS = 3


def _joined(ray: Any, place: str, settings: dict[str, Any]) -> Any:
    """Connect to a cluster that runs, which may not answer for ever."""
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"nothing answers at {host}:{port}: {error}") from error
    for left in reversed(range(ATTEMPTS)):
        try:
            return answered(lambda: ray.init(address=place, **settings))
        except TimeoutError as error:
            raise ConnectionError(
                f"the cluster has not answered for {ANSWER_SECONDS:.0f} s; ray status tells how it is"
            ) from error
        except ConnectionAbortedError:
            # A busy head has not started the process for this client within Ray's own limit, and may the next time.
            if not left:
                raise
    raise AssertionError("the last attempt returns or raises")


def answered(ask: Callable[[], Answer], seconds: float = ANSWER_SECONDS) -> Answer:
    """Return what a call of Ray's returns. Most of them have no limit, and wait for ever for a head that is gone.

    Args:
        ask: The call, which is made in a thread.
        seconds: How long it may take.

    Raises:
        TimeoutError: If it takes longer; the thread is left to itself.
        Exception: What the call raises.
    """
    answer: Future[Answer] = Future()

    def call() -> None:
        try:
            answer.set_result(ask())
        # It is raised where somebody waits for it.
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return answer.result(seconds)


def asked(ask: Callable[[], Answer]) -> Answer:
    """Return what a call of Ray's returns that reaches a cluster to which there is a connection.

    Raises:
        EngineError: If the cluster does not answer any more.
    """
    try:
        return answered(ask, ANSWER_SECONDS)
    # Ray raises whatever its part that is missing makes it raise.
    except Exception as error:
        raise lost(error) from error


def lost(error: Exception, seconds: float | None = None) -> EngineError:
    """Return what ends a run whose cluster is gone, from what a call of Ray's has raised, and after how long."""
    what = (
        f"the cluster's head has not answered for {seconds or ANSWER_SECONDS:.0f} s"
        if isinstance(error, TimeoutError)
        else f"the connection to the cluster has ended ({type(error).__name__})"
    )
    return EngineError(
        f"ray: {what}\n  ray status tells how it is; the same command goes on from what is done, here or elsewhere"
    )
