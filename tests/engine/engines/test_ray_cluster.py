"""The engine on Ray gives what the local one gives, whatever dies; a real Ray runs on this machine."""

from __future__ import annotations

import os
import platform
import signal
import socket
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.clusters import (
    FEDERATED,
    LIMIT_SECONDS,
    add,
    alone,
    checkpoints,
    compare_with_a_local_run,
    die_first,
    divide,
    end_all,
    entry_times,
    first_of,
    kill_a_run,
    niceness,
    resume,
    take_long_first,
    wait_until,
)
from support.commands import cli, python, start
from support.manifests import TRAINING, WD, manifest_text, write_manifest
from support.paths import REPOSITORY
from support.records import comparable_records

from unlearnbench.engine.engines import ray_connection
from unlearnbench.engine.engines.crew import muster
from unlearnbench.engine.engines.engine import DiedError, EngineError, Need
from unlearnbench.engine.engines.place import place
from unlearnbench.engine.engines.ray_cluster import RayEngine, room_for
from unlearnbench.engine.engines.ray_connection import connect, prepared, ray_module

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs pip install 'unlearnbench[ray]'")
SAID: list[str] = []


class Lane:
    """What a display would show, as a list."""

    def __init__(self) -> None:
        self.shown: list[tuple[object, ...]] = []

    def begin(self, what: str, passes: int | None) -> None:
        self.shown.append(("begin", what, passes))

    def advance(self, images: int) -> None:
        self.shown.append(("advance", images))

    def end(self) -> None:
        self.shown.append(("end",))


def patiently(start: Callable[[], Any]) -> Any:
    """Start a node, which Ray gives up after 30 seconds that a busy machine may need more of."""
    for _ in range(3):
        try:
            return start()
        # Ray has no type of its own for this error.
        except Exception as error:
            if "timed out" not in str(error):
                raise
    pytest.skip("Ray does not start within its 30 seconds on this busy machine")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a Ray of two nodes on this machine, whose workers find the tests' functions."""
    with alone(tmp_path_factory), pytest.MonkeyPatch.context() as patch:
        path = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        prepared()
        started = import_module("ray.cluster_utils").Cluster()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            started.port = free.getsockname()[1]
        patiently(lambda: started.add_node(num_cpus=2, include_dashboard=False, ray_client_server_port=started.port))
        started.second = patiently(lambda: started.add_node(num_cpus=1))
        patch.setenv("RAY_ADDRESS", started.address)
        yield started
        ray_module().shutdown()
        started.shutdown()


@pytest.fixture
def cluster(nodes: Any) -> str:
    return "ray"


@needs_ray
def test_a_cluster_that_is_not_there_is_one_line() -> None:
    # This comes first, since a process stays with the first cluster that it connects to.
    with pytest.raises(EngineError, match=r"^--on 127.0.0.1:9: nothing answers at 127.0.0.1:9: "):
        connect("127.0.0.1:9", SAID.append)


@needs_ray
@pytest.mark.slow
def test_results_errors_and_what_is_said_come_from_a_fresh_process_each(cluster: str) -> None:
    lanes = [Lane()]
    with RayEngine(cluster, lanes, SAID.append, jobs=2) as engine:
        numbers = engine.share([10, 20])
        assert engine.free
        futures = [engine.submit(Need(), add, number, 1) for number in range(3)]
        failing, shared = engine.submit(Need(), divide, 0), engine.submit(Need(), first_of, numbers)
        nice = engine.submit(Need(), niceness)
        assert not engine.free
        end_all(engine, [*futures, failing, shared, nice])
        assert engine.free
    assert [future.result()[0] for future in futures] == [1, 2, 3]
    assert len({future.result()[1] for future in futures}) == 3
    # Ray's own workers would wait for everybody else.
    assert (shared.result(), nice.result()) == (10, os.nice(0))
    with pytest.raises(ZeroDivisionError):
        failing.result()
    assert {"0 + 1", "1 + 1", "2 + 1"} <= set(SAID)
    assert ("begin", "adding", 2) in lanes[0].shown


@needs_ray
@pytest.mark.slow
def test_a_dead_process_is_begun_again_as_often_as_the_need_says(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with RayEngine(cluster, [], SAID.append) as engine:
        survives = engine.submit(Need(retries=1), die_first, tmp_path / "a", 1)
        dies = engine.submit(Need(), die_first, tmp_path / "b", 1)
        end_all(engine, [survives, dies])
    assert survives.result() == 1
    with pytest.raises(DiedError, match="its process was killed by SIGKILL"):
        dies.result()


@needs_ray
@pytest.mark.slow
def test_what_a_killed_worker_of_ray_s_computed_is_begun_again(cluster: str, tmp_path: Path) -> None:
    with RayEngine(cluster, [], SAID.append) as engine:
        future = engine.submit(Need(retries=1), take_long_first, tmp_path)
        wait_until(lambda: bool(engine.workers and list(tmp_path.iterdir())), engine, [future])
        os.kill(engine.workers[0], signal.SIGKILL)
        end_all(engine, [future])
    assert future.result() == "again"
    assert "ray: its worker died; begun again, 1 of 1" in SAID


@needs_ray
@pytest.mark.slow
def test_a_run_on_ray_gives_the_records_of_a_local_one(cluster: str, tmp_path: Path) -> None:
    compare_with_a_local_run(tmp_path, tmp_path / "runs", "--on", cluster)


@needs_ray
@pytest.mark.slow
def test_what_a_killed_driver_has_finished_is_not_done_again(cluster: str, nodes: Any, tmp_path: Path) -> None:
    kill_a_run(tmp_path, "--on", nodes.address)
    resume(tmp_path, "--on", cluster)


@needs_ray
@pytest.mark.slow
def test_parties_train_on_the_nodes_and_a_killed_server_goes_on(cluster: str, nodes: Any, tmp_path: Path) -> None:
    kill_a_run(tmp_path, "--on", nodes.address, "--parties-apart", text=FEDERATED, moment=checkpoints)
    resume(tmp_path, "--on", cluster, "--parties-apart", text=FEDERATED)


@needs_ray
@pytest.mark.slow
def test_a_cluster_is_reached_from_outside_by_its_client_s_port(nodes: Any, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, manifest_text(WD))
    address = f"ray://127.0.0.1:{nodes.port}"
    command = ("run", manifest, "-o", tmp_path / "runs", "--device", "cpu", "--on", address)
    # A process keeps the first way by which it has reached a cluster.
    done = python("-m", "unlearnbench", *command)
    assert done.code == 0, done.err
    assert f"ray: connecting to {address}\n" in done.err
    assert len(comparable_records(tmp_path / "runs")) == 3


@needs_ray
@pytest.mark.slow
def test_doctor_tries_each_part_of_ray(cluster: str, tmp_path: Path) -> None:
    done = cli("doctor", "--on", cluster, "-o", tmp_path / "runs")
    assert f"ok       ray, reached: 4 stages ran on {platform.node()}\n" in done.out, done.out
    assert "ok       versions there: the same everywhere\n" in done.out
    assert f"ok       store from there: {tmp_path / 'runs'} can be written\n" in done.out
    broken = python("-m", "unlearnbench", "doctor", "--on", "127.0.0.1:9", "-o", tmp_path / "runs")
    assert broken.code == 1
    assert "PROBLEM  127.0.0.1:9, reached: --on 127.0.0.1:9: nothing answers at 127.0.0.1:9: " in broken.out


@needs_ray
@pytest.mark.slow
def test_what_a_lost_node_computed_is_begun_again_on_another(nodes: Any, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    with RayEngine("ray", [], SAID.append) as engine:
        futures = [engine.submit(Need(retries=1), take_long_first, folder) for folder in folders]
        wait_until(lambda: all(list(folder.iterdir()) for folder in folders), engine, futures)
        nodes.remove_node(nodes.second, allow_graceful=False)
        wait_until(lambda: "ray: its node was lost; begun again, 1 of 1" in SAID, engine, futures)
        for folder in folders:
            (folder / "end").touch()
        end_all(engine, futures)
    # Three functions filled three cores, one of which the lost node had.
    assert sorted(future.result() for future in futures) == ["again", "first", "first"]


@needs_ray
@pytest.mark.slow
def test_a_killed_head_ends_the_run_in_one_line_and_another_engine_goes_on(nodes: Any, tmp_path: Path) -> None:
    """This comes last but one of those with a cluster, which it ends."""
    manifest = write_manifest(tmp_path, manifest_text(WD))
    # What is begun already may end well without a head, so there is work for longer than its silence is borne.
    lasting = manifest_text(WD, head="seeds = [1]", training=TRAINING.replace("epochs = 2", "epochs = 20000"))
    others = write_manifest(tmp_path, lasting, "lasting.toml")
    command = ("-m", "unlearnbench", "run", manifest, others, "-o", tmp_path / "runs", "--device", "cpu")
    process = start(*command, "--on", nodes.address, own_group=True)
    end = time.monotonic() + LIMIT_SECONDS
    while not entry_times(tmp_path / "runs"):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.2)
    nodes.head_node.kill_gcs_server(check_alive=False)
    _, said = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert said.endswith(
        "ray: the cluster's head has not answered for 60 s\n"
        "  ray status tells how it is; the same command goes on from what is done, here or elsewhere\n"
    )
    resume(tmp_path)


@needs_ray
@pytest.mark.slow
def test_between_two_manifests_a_dead_head_is_one_line_too(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes.head_node.kill_gcs_server(check_alive=False)
    monkeypatch.setattr(ray_connection, "ANSWER_SECONDS", 2.0)
    with pytest.raises(EngineError, match=r"^(ray: the cluster's head has not answered for 2 s\n|--on ray: .)"):
        muster(place("cpu", None, "ray", None), (1, 8, 8), 3, Path(), SAID.append)


def test_the_scarcest_resource_decides_how_many_stages_there_is_room_for() -> None:
    found = {"CPU": 16.0, "GPU": 2.0, "memory": 8.0 * 2**30}
    assert room_for(Need(cpus=2), found) == 8
    assert room_for(Need(cpus=2, gpus=0.25), found) == 8
    assert room_for(Need(cpus=1, gpus=1), found) == 2
    assert room_for(Need(cpus=1, memory_gib=2), found) == 4
    # Several devices take as much each, and whole GPUs.
    assert room_for(Need(cpus=2, devices=4), found) == 2
    assert room_for(Need(cpus=1, gpus=0.5, devices=2), found) == 1
    assert Need(2, 0.5, 3.0, devices=4).together == Need(8, 4, 12.0)
    # One is submitted all the same, so that what is missing is said.
    assert room_for(Need(gpus=4), found) == 1
