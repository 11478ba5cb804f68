"""The store of results."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import python, start

from unlearnbench.errors import InvalidFileError, StoreError, UnwritableError
from unlearnbench.files import write_json
from unlearnbench.mirror import ENTRY
from unlearnbench.store import CHECKPOINT, Store, lock_fault


def builder(text: str = "content") -> tuple[Callable[[Path], dict[str, Any]], list[Path]]:
    """Return a builder of an entry with one file, and the list of folders that the builder was called for."""
    calls: list[Path] = []

    def build(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        (folder / "data.bin").write_text(text)
        return {"number": len(calls)}

    return build, calls


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    build, calls = builder()
    folders = {Store(tmp_path / "store").get("models", "a", build) for _ in range(3)}
    assert folders == {tmp_path / "store" / "models" / "a"}
    assert len(calls) == 1
    assert (folders.pop() / "data.bin").read_text() == "content"
    assert Store(tmp_path / "store").facts("models", "a") == {"number": 1}


def test_kinds_and_names_are_kept_apart(tmp_path: Path) -> None:
    build, calls = builder()
    store = Store(tmp_path / "store")
    for kind, name in (("models", "a"), ("models", "b"), ("features", "a")):
        store.get(kind, name, build)
    assert len(calls) == 3


def test_an_entry_that_is_not_there_is_not_had(tmp_path: Path) -> None:
    said: list[str] = []
    assert not Store(tmp_path / "store", said.append).has("models", "a")
    assert said == []


def _truncate(folder: Path) -> None:
    (folder / "data.bin").write_text("cont")


def _alter(folder: Path) -> None:
    (folder / "data.bin").write_text("CONTENT")


def _remove(folder: Path) -> None:
    (folder / "data.bin").unlink()


def _remove_entry(folder: Path) -> None:
    (folder / ENTRY).unlink()


def _cut_entry(folder: Path) -> None:
    (folder / ENTRY).write_text('{"files": {')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "{folder}/data.bin is damaged: 4 bytes, not 7"),
        (_alter, "{folder}/data.bin is damaged: its content is not what was written"),
        (_remove, "{folder}/data.bin is missing"),
        (_remove_entry, "{folder}/entry.json is missing or not readable"),
        (_cut_entry, "{folder}/entry.json is missing or not readable"),
    ],
)
def test_a_damaged_entry_is_named_and_made_again(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    build, calls = builder()
    folder = Store(tmp_path / "store").get("models", "a", build)
    damage(folder)
    said: list[str] = []
    store = Store(tmp_path / "store", said.append)
    assert store.get("models", "a", build) == folder
    assert said == [f"{message.format(folder=folder)}; it is made again"]
    assert len(calls) == 2
    assert (folder / "data.bin").read_text() == "content"
    assert Store(tmp_path / "store", said.append).has("models", "a")
    assert len(said) == 1


def _same_size_and_time(folder: Path) -> None:
    file = folder / "data.bin"
    found = file.stat()
    file.write_text("CONTENT")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def _changed_facts(folder: Path) -> None:
    text = (folder / ENTRY).read_text()
    (folder / ENTRY).write_text(text.replace('"number": 1', '"number": 9'))


def _list_of_files(folder: Path) -> None:
    write_json(folder / ENTRY, {"facts": {}, "files": []})


def _stranger(folder: Path) -> None:
    write_json(folder / ENTRY, {"facts": {}, "files": {"../../x": {"size": 1, "sha256": ""}}})


def _deep_entry(folder: Path) -> None:
    (folder / ENTRY).write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_same_size_and_time, "{folder}/data.bin is damaged: its content is not what was written"),
        (_changed_facts, "{folder}/entry.json is damaged: its content is not what was written"),
        (_list_of_files, "{folder}/entry.json is missing or not readable"),
        (_stranger, "{folder}: '../../x' leads out of this folder"),
        (_deep_entry, "{folder}/entry.json is missing or not readable"),
    ],
)
def test_a_changed_entry_is_named_and_made_again(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    build, calls = builder()
    folder = Store(tmp_path / "store").get("models", "a", build)
    damage(folder)
    said: list[str] = []
    Store(tmp_path / "store", said.append).get("models", "a", build)
    assert said == [f"{message.format(folder=folder)}; it is made again"]
    assert (len(calls), (folder / "data.bin").read_text()) == (2, "content")


def test_two_entries_exchanged_are_named_and_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first, second = (store.get("models", name, builder(name)[0]) for name in ("a", "b"))
    first.rename(tmp_path / "away")
    second.rename(first)
    (tmp_path / "away").rename(second)
    said: list[str] = []
    again = Store(tmp_path / "store", said.append)
    assert [(again.get("models", name, builder(name)[0]) / "data.bin").read_text() for name in "ab"] == ["a", "b"]
    assert said == [
        f"{first}/entry.json is that of models/b; it is made again",
        f"{second}/entry.json is that of models/a; it is made again",
    ]


def test_facts_of_another_entry_are_not_read(tmp_path: Path) -> None:
    folder = Store(tmp_path / "store").get("models", "a", builder()[0])
    folder.rename(folder.with_name("b"))
    with pytest.raises(InvalidFileError, match=r"entry\.json is that of models/a"):
        Store(tmp_path / "store").facts("models", "b")


def test_a_copied_store_is_taken_by_its_content(tmp_path: Path) -> None:
    build, _ = builder()
    folder = Store(tmp_path / "store").get("models", "a", build)
    os.utime(folder / "data.bin", (1, 1))
    assert Store(tmp_path / "store").has("models", "a")


def test_an_interrupted_build_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def interrupted(folder: Path) -> dict[str, Any]:
        (folder / "data.bin").write_text("half")
        (folder / "other.bin").write_text("left over")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("models", "a", interrupted)
    assert not store.has("models", "a")
    build, calls = builder()
    folder = store.get("models", "a", build)
    assert len(calls) == 1
    assert sorted(file.name for file in folder.iterdir()) == ["data.bin", ENTRY]
    assert (folder / "data.bin").read_text() == "content"


def test_a_checkpoint_is_there_for_the_next_build_and_gone_after_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def interrupted(folder: Path) -> dict[str, Any]:
        (folder / CHECKPOINT).write_text("half way")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("models", "a", interrupted)
    found: list[str] = []

    def build(folder: Path) -> dict[str, Any]:
        found.append((folder / CHECKPOINT).read_text())
        (folder / "data.bin").write_text("whole")
        return {}

    folder = store.get("models", "a", build)
    assert found == ["half way"]
    assert sorted(file.name for file in folder.iterdir()) == ["data.bin", ENTRY]


def test_what_an_interrupted_build_left_is_cleared_away(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> dict[str, Any]:
        (folder / "epochs").mkdir()
        (folder / "epochs" / "1.safetensors").write_text("half")
        (folder / "model.safetensors").write_text("half")
        raise KeyboardInterrupt

    store = Store(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        store.get("models", "a", interrupted)
    build, _ = builder()
    folder = store.get("models", "a", build)
    assert sorted(file.name for file in folder.iterdir()) == ["data.bin", ENTRY]


def test_a_file_in_the_place_of_the_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "store")
    assert str(caught.value).startswith(f"{tmp_path}/store: a file where the output folder keeps its store\n")


def test_a_second_store_waits_for_the_first_and_reads(tmp_path: Path) -> None:
    started, may_end = threading.Event(), threading.Event()
    calls: list[str] = []
    said: list[str] = []

    def slow(folder: Path) -> dict[str, Any]:
        calls.append("slow")
        started.set()
        assert may_end.wait(10)
        (folder / "data.bin").write_text("of the first")
        return {}

    def second_says(message: str) -> None:
        said.append(message)
        may_end.set()

    build, second_calls = builder()
    first = threading.Thread(target=Store(tmp_path / "store").get, args=("models", "a", slow))
    first.start()
    assert started.wait(10)
    folder = Store(tmp_path / "store", second_says).get("models", "a", build)
    first.join()
    assert (calls, second_calls) == (["slow"], [])
    assert said == ["another run is making models/a; waiting for it"]
    assert (folder / "data.bin").read_text() == "of the first"


PROCESS = """
import sys, time
from pathlib import Path
from unlearnbench.store import Store
def build(folder):
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    time.sleep(0.5)
    (folder / "data.bin").write_text("x" * 1000)
    return {}
print(len((Store(Path(sys.argv[1])).get("models", "a", build) / "data.bin").read_text()))
"""


def test_of_two_processes_one_builds_and_both_read(tmp_path: Path) -> None:
    processes = [start("-c", PROCESS, tmp_path / "store", tmp_path / "log") for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert outputs == ["1000\n", "1000\n"]
    assert (tmp_path / "log").read_text() == "built\n"


def test_a_process_that_dies_while_building_holds_nobody_up(tmp_path: Path) -> None:
    killed = PROCESS.replace("time.sleep(0.5)", "import os; os.kill(os.getpid(), 9)")
    assert python("-c", killed, tmp_path / "store", tmp_path / "log").code == -9
    assert python("-c", PROCESS, tmp_path / "store", tmp_path / "log").out == "1000\n"


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "runs"
    with pytest.raises(StoreError) as caught:
        Store(output / "store")
    assert str(caught.value) == (
        f"{output}: the output folder cannot be written: Not a directory\n  Choose another with --output"
    )
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "runs" / "store")
    assert str(caught.value) == (
        f"{tmp_path}/runs: the file system of the output folder has no locks: {os.strerror(number)}\n"
        "  Choose a folder on a local disk with --output, or have it mounted with locks"
    )
    assert list((tmp_path / "runs" / "store").iterdir()) == []


def test_a_file_system_with_locks_is_left_as_it_was(tmp_path: Path) -> None:
    assert lock_fault(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_only_reads_makes_no_folder(tmp_path: Path) -> None:
    assert not Store(tmp_path / "store", create=False).has("models", "a")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_stays_until_what_it_led_to_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(folder: Path) -> dict[str, Any]:
        (folder / CHECKPOINT).write_text("epoch 9 of 10")
        (folder / "data.bin").write_bytes(b"content")
        return {}

    def full(path: Path, values: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    store = Store(tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr("unlearnbench.store.write_json", full)
        with pytest.raises(UnwritableError):
            store.get("models", "one", build)
    assert (tmp_path / "store/models/one.partial" / CHECKPOINT).read_text() == "epoch 9 of 10"
    folder = store.get("models", "one", build)
    assert {file.name for file in folder.iterdir()} == {"data.bin", "entry.json"}
