"""Methods that do harm, and how the cell of each ends."""

from __future__ import annotations

from pathlib import Path

METHODS = '''
import ctypes
import gc
import os
import pathlib
import shutil
import signal
import sys
import tempfile
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


def seeks_credentials(model, task):
    """Report where it finds the credentials of the user, whose value is that of no other variable."""
    found = [name for name, value in os.environ.items() if value == "a-secret-of-the-user"]
    places = [*pathlib.Path("/proc").glob("[0-9]*/environ"), pathlib.Path.home() / ".aws/credentials"]
    for path in places:
        try:
            if b"a-secret-of-the-user" in path.read_bytes():
                found.append(str(path))
        except OSError:
            pass
    task.report("found", found)
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


def reads(model, task, *, store: str = ""):
    for path in pathlib.Path(store).rglob("*.safetensors"):
        path.read_bytes()
    return model


def writes(model, task, *, store: str = ""):
    """Put a file in the store, by a link from the place that is the method's own."""
    link = pathlib.Path(tempfile.mkdtemp()) / "link"
    link.symlink_to(store)
    (link / "models/forged").mkdir()
    return model


def kills_the_run(model, task):
    process = os.getppid()
    while process > 1:
        parent = int(pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(process, signal.SIGKILL)
        process = parent
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


def links(model, task, *, store: str = ""):
    """Give back a link to what another has made."""
    other = next(pathlib.Path(store).rglob("model.safetensors"))
    sys.modules["unlearnbench.engine.processes.unlearning"].save_network = lambda model, path: path.symlink_to(other)
    return model


def pipes(model, task):
    """Give back what nobody will ever write to."""
    sys.modules["unlearnbench.engine.processes.unlearning"].save_network = lambda model, path: os.mkfifo(path)
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
# What needs a fence, and how the cell ends where the system has one.
FENCED = {
    "deletes": "PermissionError: [Errno 13] Permission denied: ",
    "reads": "PermissionError: [Errno 13] Permission denied: ",
    "writes": "PermissionError: [Errno 13] Permission denied: ",
    "kills_the_run": "PermissionError: [Errno 1] Operation not permitted",
}
ODD = ("fills_memory", "cuts", "closes", "links", "pipes")
HONEST = ("leaves_hooks", "leaves_states", "walks_memory", "seeks_credentials", "forks", "moves")


def fenced(landlock: int) -> dict[str, str]:
    """Return the methods that a fence stops, with their reasons, for a version of Landlock; 0 is none."""
    return {name: reason for name, reason in FENCED.items() if landlock >= (6 if name == "kills_the_run" else 1)}


def needs(note: Path, store: Path) -> dict[str, str]:
    """Return the options of those methods that need any.

    Args:
        note: File that one of them writes, in a folder of its own.
        store: Store of the output folder, to which some do harm.
    """
    note.parent.mkdir()
    return {"forks": f'note = "{note}"', **dict.fromkeys(("deletes", "links", "reads", "writes"), f'store = "{store}"')}


def entry(name: str, options: str = "") -> str:
    return f'[[unlearners]]\nname = "{name}"' + (f"\noptions = {{ {options} }}" if options else "")
