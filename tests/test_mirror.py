"""An output folder elsewhere is one whose files come and go as they are needed, at an address of fsspec."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.clusters import compare_with_a_local_run
from support.commands import cli
from support.manifests import ERWP, WD, manifest_text, write_manifest
from support.records import comparable_records

from unlearnbench.errors import StoreError, UnwritableError, WrongUseError
from unlearnbench.files import file_hash
from unlearnbench.mirror import Remote, at_hand, mirror, origin, publish, publish_unseen, shown
from unlearnbench.store import CHECKPOINT, Store


def entry_of(text: str, built: list[str]) -> Any:
    """Return a function that builds an entry with one file, and remembers that it did."""

    def build(folder: Path) -> dict[str, Any]:
        built.append(text)
        (folder / "words.txt").write_text(text)
        return {"length": len(text)}

    return build


def raising(error: Exception) -> Any:
    """Return a function that raises an exception, whatever it is called with."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.slow)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/far"
    return str(request.getfixturevalue("bucket"))


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve S3 on this machine, as moto imitates it, and make a bucket."""
    if find_spec("moto") is None or find_spec("s3fs") is None or find_spec("flask") is None:
        pytest.skip("needs pip install 'unlearnbench[s3]' 'moto[server]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        end = time.monotonic() + 90
        while True:
            assert server.poll() is None
            assert time.monotonic() < end
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        import s3fs

        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket/runs"
    server.kill()
    server.wait()
    log.close()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function after which this process has the cache of the machine that it names."""

    def move(name: str) -> None:
        monkeypatch.setenv("UNLEARNBENCH_CACHE", str(tmp_path / name))

    move("first")
    return move


def test_an_entry_made_on_one_machine_is_found_on_another(address: str, machine: Any) -> None:
    built: list[str] = []
    Store(mirror(address) / "store").get("words", "hello", entry_of("hello", built))
    machine("second")
    store = Store(mirror(address) / "store")
    assert store.has("words", "hello")
    # What is only asked for is not copied.
    assert not (store.folder / "words").exists()
    assert store.facts("words", "hello") == {"length": 5}
    assert (store.get("words", "hello", entry_of("other", built)) / "words.txt").read_text() == "hello"
    assert built == ["hello"]


def test_what_could_not_be_copied_to_the_address_is_copied_by_the_next_run(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    address = f"file://{tmp_path}/far"
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "offer", raising(UnwritableError("the address is away")))
        with pytest.raises(UnwritableError, match="away"):
            Store(mirror(address) / "store").get("words", "late", entry_of("late", built))
    record = mirror(address) / "records/m/p/wd/seed-0.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    Store(mirror(address) / "store").get("words", "late", entry_of("late", built))
    publish_unseen(mirror(address), [record])
    assert built == ["late"]
    machine("second")
    assert Store(mirror(address) / "store").facts("words", "late") == {"length": 4}
    assert (at_hand(address) / "records/m/p/wd/seed-0.json").read_text() == "{}"


def test_a_folder_of_a_stranger_leads_to_no_address(tmp_path: Path, machine: Any) -> None:
    (tmp_path / "private").mkdir()
    for name in ("strange", "mirrors/strange"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "origin.json").write_text(json.dumps({"address": f"file://{tmp_path}/private"}))
        assert origin(folder) is None
        assert shown(folder) == str(folder)


def test_of_two_machines_that_make_the_same_the_second_takes_what_the_first_made(address: str, machine: Any) -> None:
    built: list[str] = []

    def meanwhile(folder: Path) -> dict[str, Any]:
        machine("second")
        Store(mirror(address) / "store").get("words", "race", entry_of("first to end", built))
        return entry_of("last to end", built)(folder)

    folder = Store(mirror(address) / "store").get("words", "race", meanwhile)
    assert built == ["first to end", "last to end"]
    assert (folder / "words.txt").read_text() == "first to end"
    assert json.loads((folder / "entry.json").read_text())["files"]["words.txt"]["sha256"] == file_hash(
        folder / "words.txt"
    )


def test_what_is_damaged_here_is_copied_again_and_what_is_damaged_there_is_made_again(
    tmp_path: Path, machine: Any
) -> None:
    address, built, said = f"file://{tmp_path}/far", [], []
    store = Store(mirror(address) / "store", said.append)
    folder = store.get("words", "one", entry_of("right", built))
    (folder / "words.txt").write_text("wrong")
    assert (Store(store.folder).get("words", "one", entry_of("right", built)) / "words.txt").read_text() == "right"
    assert built == ["right"]
    (stored,) = (path for path in (tmp_path / "far/objects").rglob("*") if path.is_file())
    stored.write_text("wrong")
    shutil.rmtree(folder)
    again = Store(store.folder, said.append).get("words", "one", entry_of("right", built))
    assert (again / "words.txt").read_text() == "right"
    assert built == ["right", "right"]
    assert any("is damaged: its content is not what was written; it is made again" in line for line in said)
    machine("second")
    assert (Store(mirror(address) / "store").get("words", "one", entry_of("x", built)) / "words.txt").exists()
    assert built == ["right", "right"]


def test_another_machine_goes_on_from_the_checkpoint_of_one_that_is_gone(
    tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearnbench.mirror.CHECKPOINT_SECONDS", 0.05)
    address = f"file://{tmp_path}/far"

    def taken_away(folder: Path) -> dict[str, Any]:
        (folder / CHECKPOINT).write_text("half")
        end = time.monotonic() + 60
        while not (tmp_path / "far/checkpoints/words/long").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        raise KeyboardInterrupt

    def going_on(folder: Path) -> dict[str, Any]:
        (folder / "words.txt").write_text((folder / CHECKPOINT).read_text() + " and whole")
        return {}

    with pytest.raises(KeyboardInterrupt):
        Store(mirror(address) / "store").get("words", "long", taken_away)
    machine("second")
    folder = Store(mirror(address) / "store").get("words", "long", going_on)
    assert (folder / "words.txt").read_text() == "half and whole"
    assert list((tmp_path / "far/checkpoints/words").iterdir()) == []


def test_records_are_as_they_are_there(address: str, machine: Any) -> None:
    first = at_hand(address)
    path = first / "records" / "small" / "seed-0.json"
    path.parent.mkdir(parents=True)
    path.write_text("1")
    publish(path)
    machine("second")
    second = at_hand(address)
    copy = second / "records" / "small" / "seed-0.json"
    assert copy.read_text() == "1"
    copy.write_text("22")
    publish(copy)
    machine("first")
    assert at_hand(address) == first
    assert path.read_text() == "22"
    assert shown(first) == address


def test_an_address_that_cannot_be_used_or_written_is_one_line_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARNBENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(StoreError, match=r"no-such-kind://runs: cannot be used: .*\n  Install what fsspec names"):
        at_hand("no-such-kind://runs")
    (tmp_path / "file").write_text("")
    folder = mirror(f"file://{tmp_path}/file/runs")
    with pytest.raises(UnwritableError, match=r"writing failed: .*\n  Mend that, then run the same command again"):
        Store(folder / "store").get("words", "one", entry_of("x", []))
    with pytest.raises(StoreError, match=r"^ftp://127\.0\.0\.1:9/runs: cannot be reached: Connection refused$"):
        at_hand("ftp://127.0.0.1:9/runs")
    with pytest.raises(WrongUseError, match=r"^an empty path of an output folder\n"):
        at_hand("")


@pytest.mark.slow
def test_every_command_that_reads_a_run_reads_it_at_an_address(machine: Any, tmp_path: Path) -> None:
    address = f"file://{tmp_path}/far"
    manifest = write_manifest(tmp_path, manifest_text(WD, ERWP))
    assert cli("run", manifest, "-o", address, "--device", "cpu").code == 0
    machine("second")
    exported = cli("export", address, "--to", "csv")
    assert (exported.code, exported.out.count("wd,")) == (0, exported.out.count("original,")), exported.err
    model = cli("export-model", address, "--only", "wd", "-o", tmp_path / "new.safetensors")
    assert model.code == 0, model.err
    assert "0 of 445 test images classified otherwise than recorded" in model.err
    certificate = cli("certificate", address, "--only", "wd", "--by", "Jane Roe", "-o", tmp_path / "certificate")
    assert certificate.code == 0, certificate.err
    verified = cli("certificate", "--verify", tmp_path / "certificate.json", "--runs", address)
    assert verified.code == 0, verified.err
    checked = cli("leaderboard", "check", address, "--features", address)
    assert (checked.code, checked.out.endswith("metrics computed again from features, no fault\n")) == (0, True), (
        checked
    )
    submitted = cli("submit", address, "-o", tmp_path / "submission")
    assert submitted.code == 0, submitted.err
    if find_spec("matplotlib"):
        reported = cli("report", address, "-o", tmp_path / "report")
        assert (reported.code, reported.err) == (0, "")
        assert list((tmp_path / "report").rglob("relevant-share*"))
    outside = cli("judge", tmp_path / "new.safetensors", manifest, "-o", address, "--label", "again", "--seed", "0")
    assert outside.code == 0, outside.err
    assert "again" in cli("table", address).out


@pytest.mark.slow
def test_a_run_to_an_address_gives_the_records_of_a_local_one_and_is_read_elsewhere(
    bucket: str, machine: Any, tmp_path: Path
) -> None:
    address = f"{bucket}-{os.getpid()}"
    manifest = compare_with_a_local_run(tmp_path, address)
    machine("second")
    again = cli("run", manifest, "-o", address, "--device", "cpu")
    assert (again.code, again.err.splitlines()[0]) == (0, "small: all 3 cells are done already")
    assert again.out == cli("table", address).out
    evaluated = cli("evaluate", address, "--metric", "linear_cka")
    assert evaluated.code == 0, evaluated.err
    assert "3 records rewritten" in evaluated.err
    built = cli("leaderboard", "build", address, "-o", tmp_path / "board")
    assert built.code == 0, built.err
    machine("first")
    assert comparable_records(at_hand(address)).keys() == comparable_records(tmp_path / "local").keys()
