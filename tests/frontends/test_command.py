"""The command as a process of its own: its streams, its encoding, and an interrupt while it starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FinishedRun
from support.commands import Done, start
from support.manifests import manifest_text, write_manifest

from unlearnbench.frontends.command import nearest_characters

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
WRITES = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


def shell(line: str, *arguments: str | Path | bytes, **environment: str) -> Done:
    """Run a line of the shell in which `$@` is the command with its arguments."""
    command = ["sh", "-c", line, "sh", sys.executable, "-m", "unlearnbench", *arguments]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **environment}, timeout=300, check=False)
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


@pytest.mark.slow
@WRITES
@pytest.mark.parametrize("arguments", [("table",), ("table", "--json"), ("--help",)])
def test_a_full_output_ends_in_one_line(finished: FinishedRun, arguments: tuple[str, ...]) -> None:
    folder = () if arguments == ("--help",) else (finished.output,)
    done = shell('"$@" >/dev/full', *arguments, *folder)
    assert (done.code, done.err) == (1, "the output: cannot be written: No space left on device\n")


@WRITES
def test_two_full_streams_end_in_an_exit_code(finished: FinishedRun) -> None:
    assert shell('"$@" >/dev/full 2>/dev/full', "table", finished.output) == Done(1, "", "")


@pytest.mark.slow
def test_a_closed_output_ends_in_one_line(finished: FinishedRun) -> None:
    done = shell('"$@" >&-', "table", finished.output)
    assert (done.code, done.err) == (1, "the output: cannot be written: Bad file descriptor\n")
    assert shell('"$@" >&-', "validate", finished.manifest, "none.toml").code == 1


@pytest.mark.slow
def test_closed_messages_leave_the_output_as_it_is(finished: FinishedRun) -> None:
    done = shell('"$@" 2>&-', "table", finished.output, "--json")
    assert done.code == 0
    assert [row["method"] for row in done.json][:2] == ["original", "fdr"]


def test_a_reader_that_has_gone_leaves_no_traceback(finished: FinishedRun) -> None:
    done = shell('{ "$@"; echo $? >&2; } | true', "table", finished.output)
    assert done.err in {"0\n", "1\n"}


def test_a_table_is_readable_in_ascii(finished: FinishedRun) -> None:
    done = shell('"$@"', "table", finished.output, **ASCII)
    assert done.code == 0
    assert "Mean +- standard deviation over seeds" in done.out
    assert done.out.isascii()
    assert "?" not in done.out


def test_what_looks_like_nothing_in_ascii_is_a_question_mark() -> None:
    def ascii_of(text: str) -> tuple[str, int]:
        return nearest_characters(UnicodeEncodeError("ascii", text, 0, len(text), "ordinal not in range"))

    assert ascii_of("±…é語\udcff") == ("+-...e??", 5)


@pytest.mark.slow
def test_paths_need_not_be_text(tmp_path: Path) -> None:
    manifest = os.fsencode(write_manifest(tmp_path, manifest_text())) + b"\xff.toml"
    os.rename(tmp_path / "small.toml", manifest)  # noqa: PTH104 - pathlib takes no bytes
    output = os.fsencode(tmp_path) + b"/runs\xff"
    done = shell('"$@"', "run", manifest, "-o", output, "--device", "cpu", "--json", **ASCII)
    assert done.code == 0, done.err
    assert [row["method"] for row in json.loads(done.out)] == ["original", "fdr", "wd"]
    assert shell('"$@"', "table", output, **ASCII).code == 0


def test_an_interrupt_while_the_command_is_imported_is_one_line() -> None:
    code = (
        "import builtins, os, signal, sys, unlearnbench.frontends.command as command\n"
        "real = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        "    if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = interrupted\n"
        "command.main()"
    )
    process = start("-c", code)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


@pytest.mark.slow
def test_an_interrupt_while_torch_is_imported_is_one_line(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, manifest_text())
    process = start("-X", "importtime", "-m", "unlearnbench", "run", manifest, "-o", tmp_path / "runs")
    assert process.stderr is not None
    for line in process.stderr:
        # The import of a library is reported at its end, and torch's own parts come first.
        if "torch." in line:
            process.send_signal(signal.SIGINT)
            break
    err = process.stderr.read()
    process.communicate(timeout=60)
    said = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, said) == (130, ["interrupted"])
