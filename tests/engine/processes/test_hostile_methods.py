"""Methods that do harm: each is a failed or an honest cell, and every other record is as if they had not been there."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from support.commands import cli
from support.manifests import FOLNRC, WD, manifest_text, write_manifest
from support.plugins import fake_distribution
from support.records import comparable_records, record_files

from unlearnbench.results.record import Record, read_record

pytestmark = pytest.mark.slow

METHODS = '''
import ctypes
import gc
import os
import pathlib
import shutil
import signal
import sys
import time

import numpy as np
import torch
from torch import nn

print("printed at import")


class Loud(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def leaves_hooks(model, task):
    nn.modules.module.register_module_forward_hook(lambda module, inputs, output: output * 0)
    return model


def leaves_states(model, task):
    torch.autocast("cpu", torch.bfloat16).__enter__()
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.nn.functional.cross_entropy = lambda *args, **kwargs: torch.zeros(())
    np.argmax = lambda *args, **kwargs: 0
    json = sys.modules["json"]
    json.loads = lambda text: {}
    return model


def walks_memory(model, task):
    """Report how many images there are in anything that the process holds."""
    sizes = []
    for found in gc.get_objects():
        if isinstance(found, (torch.Tensor, np.ndarray)) and tuple(found.shape[-2:]) == (8, 8) and found.ndim == 4:
            sizes.append(len(found))
    for module in list(sys.modules.values()):
        for value in list(getattr(module, "__dict__", {}).values()):
            if isinstance(value, (torch.Tensor, np.ndarray)) and value.size and len(value.shape) == 4:
                sizes.append(len(value))
    task.report("largest", max(sizes))
    task.report("limited", task.size())
    return model


def exits(model, task):
    os._exit(0)


def crashes(model, task):
    ctypes.string_at(0)


def stops(model, task):
    raise KeyboardInterrupt


def ends(model, task):
    raise BaseException("the end")


def raises_loudly(model, task):
    raise Loud


def raises_a_surrogate(model, task):
    raise ValueError("odd \\udc80 text")


def sleeps(model, task):
    time.sleep(3600)


def fills_memory(model, task):
    held = []
    while True:
        held.append(np.ones(2**22))


def forks(model, task, *, note: str = ""):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            pathlib.Path(note).write_text(str(os.getpid()))
            time.sleep(3600)
        os._exit(0)
    while not pathlib.Path(note).is_file() or not pathlib.Path(note).read_text():
        time.sleep(0.01)
    return model


def cuts(model, task):
    return nn.Sequential(*list(model)[:2], nn.Flatten(), nn.Linear(10, 10))


def returns_nan(model, task):
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    return model


def moves(model, task):
    os.chdir("/")
    return model


def deletes(model, task, *, store: str = ""):
    shutil.rmtree(store)
    return model


def closes(model, task):
    os.closerange(3, 1000)
    time.sleep(0.1)
    return model


def lies(model, task):
    """Send what no message is."""
    for found in gc.get_objects():
        if type(found).__name__ == "Connection":
            found.send_bytes(b"\\x80\\x04 no json")
    return model


def kills_its_parent(model, task):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)
'''
REASONS = {
    "exits": "its process ended with exit code 0",
    "crashes": "its process was killed by SIGSEGV",
    "stops": "KeyboardInterrupt",
    "ends": "BaseException: the end",
    "raises_loudly": "Loud",
    "raises_a_surrogate": "ValueError: odd \\udc80 text",
    "sleeps": "it took longer than cell_time_limit allows, 15 s",
    "returns_nan": "returns_nan returned a model whose parameter 0.weight is not finite",
    "lies": "its process sent a message that cannot be read",
    "kills_its_parent": "its process was killed with the one that watches it",
}
ODD = ("fills_memory", "cuts", "deletes", "closes")
HONEST = ("leaves_hooks", "leaves_states", "walks_memory", "forks", "moves")


def entry(name: str, options: str = "") -> str:
    return f'[[unlearners]]\nname = "{name}"' + (f"\noptions = {{ {options} }}" if options else "")


@pytest.mark.parametrize("jobs", [1, 2])
def test_whatever_a_method_does_the_others_records_are_the_same(
    search_path: Path, tmp_path: Path, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (*HONEST, *REASONS, *ODD)
    fake_distribution(
        search_path, "hostile", {"unlearners": {name: f"hostile:{name}" for name in names}}, {"hostile": METHODS}
    )
    note, runs = tmp_path / "note", tmp_path / "bad"
    options = {"forks": f'note = "{note}"', "deletes": f'store = "{runs / "store"}"'}
    limits = ("--cell-time-limit", "15", "--cell-memory", "0.75")
    good = write_manifest(tmp_path, manifest_text(WD, FOLNRC), "same.toml")
    assert cli("run", good, "-o", tmp_path / "good", "--device", "cpu", "--jobs", jobs).code == 0
    bad = write_manifest(
        tmp_path, manifest_text(*(entry(name, options.get(name, "")) for name in names), WD, FOLNRC), "same.toml"
    )
    folder = Path.cwd()
    done = cli("run", bad, "-o", runs, "--device", "cpu", "--jobs", jobs, "--json", *limits)
    assert Path.cwd() == folder
    assert done.code == 1
    assert "Traceback" not in done.err
    assert {row["method"] for row in json.loads(done.out)} >= {"original", "fdr", *names}
    found: dict[str, Record] = {name.partition("/")[0]: read_record(path) for name, path in record_files(runs).items()}
    assert {name: found[name].reason for name in REASONS} == REASONS
    assert {name: found[name].status for name in (*HONEST, *ODD) if name in HONEST} == dict.fromkeys(HONEST, "done")
    assert {found[name].status for name in ODD} == {"failed"}
    assert "more than cell_memory allows" in (found["fills_memory"].reason or "")
    assert (found["cuts"].reason or "").startswith("cuts returned weights that do not fit the network: ")
    assert found["exits"].details["log"] == ["printed at import"]
    # Neither test images nor training images outside the limited data were anywhere in its memory.
    assert found["walks_memory"].details["largest"] == found["walks_memory"].details["limited"] == 140
    _assert_gone(int(note.read_text()))
    others = comparable_records(tmp_path / "good")
    after = comparable_records(runs)
    assert {name for name in others if name in after} == set(others)
    for name, record in others.items():
        assert {**after[name], "manifest": None, "hash": None} == {**record, "manifest": None, "hash": None}


def _assert_gone(process: int) -> None:
    for _ in range(50):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"process {process} lives on")


def test_a_method_that_raises_at_import_is_a_failed_cell(search_path: Path, tmp_path: Path) -> None:
    text = "raise SystemExit('not today')\ndef never(model, task):\n    return model\n"
    fake_distribution(search_path, "sick", {"unlearners": {"never": "sick:never"}}, {"sick": text})
    path = write_manifest(tmp_path, manifest_text(entry("never"), WD))
    assert cli("run", path, "-o", tmp_path / "runs", "--device", "cpu").code == 1
    found = {name.partition("/")[0]: read_record(file) for name, file in record_files(tmp_path / "runs").items()}
    assert found["never"].reason == (
        "unlearner 'never' of sick 1.0 cannot be loaded from sick:never: SystemExit: not today"
    )
    assert found["wd"].status == "done"
