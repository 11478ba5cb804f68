"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from support.commands import python

from unlearnbench.files import held, write_json

# This process cannot write more than some bytes to a file.
FULL = (
    "import resource, sys; from pathlib import Path; from unlearnbench import files; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); path = Path(sys.argv[1]); "
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [
        "import h5py, numpy\nwith files.held(path) as held, h5py.File(held, 'w') as file:\n"
        "    for n in range(9): file.create_dataset(str(n), data=numpy.arange(1000))",
        "import torch\nwith files.held(path) as held: torch.save(torch.rand(9999), held)",
        "with files.writing(path): path.write_bytes(bytes(9999))",
    ],
    ids=["HDF5", "torch", "bytes"],
)
def test_a_write_that_fails_is_an_error_and_nothing_worse(tmp_path: Path, write: str) -> None:
    path = tmp_path / "file"
    done = python("-c", f"{FULL}\n{write}", path)
    assert (done.code, done.err.splitlines()[-2:]) == (
        1,
        [
            f"unlearnbench.errors.UnwritableError: {path}: cannot be written: File too large",
            "  Mend that, then run the same command again: it goes on from what is done",
        ],
    )


def test_a_held_file_is_what_the_library_wrote(tmp_path: Path) -> None:
    with held(tmp_path / "held.h5") as file, h5py.File(file, "w") as opened:
        opened.create_dataset("rows", data=np.arange(10_000).reshape(100, 100), chunks=(7, 100))
    with h5py.File(tmp_path / "held.h5") as opened:
        assert opened["rows"][42, 17] == 4217


def test_an_error_of_the_caller_s_own_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError), held(tmp_path / "file"):
        raise KeyError


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    killed = (
        "import os, signal, sys; from pathlib import Path; from unlearnbench import files; "
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL); files.write_json(Path(sys.argv[1]), 1)"
    )
    path = tmp_path / "a.json"
    assert python("-c", killed, path).code == -9
    assert len(list(tmp_path.iterdir())) == 1
    write_json(path, 2)
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_written_whole_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1, "a": [1.5, None]})
    write_json(path, {"b": 2})
    assert path.read_text() == '{\n "b": 2\n}\n'
    assert list(path.parent.iterdir()) == [path]
