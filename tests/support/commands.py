"""Helpers that run the command line in this process, and Python in another."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from unlearnbench.frontends.cli import main

# The command line as the text of a program, for a run that writes a checkpoint after every epoch.
RUN = (
    "import sys, unlearnbench.models.training as training; training.CHECKPOINT_SECONDS = 0.0; "
    "from unlearnbench.frontends.cli import main; sys.argv[0] = 'unlearnbench'; main()"
)


@dataclass(frozen=True)
class Done:
    """The outcome of a command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The printed output, parsed as JSON."""
        return json.loads(self.out)


def cli(*arguments: str | Path) -> Done:
    """Run the command line in this process, as the `unlearnbench` command does."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["unlearnbench", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, path: Path | None = None, own_group: bool = False) -> subprocess.Popen[str]:
    """Start `python ARGUMENTS` as a process of its own.

    Args:
        arguments: Arguments of Python.
        path: Folder that is put first on its module search path.
        own_group: Whether it leads a process group, as a command started in a terminal does.
    """
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=own_group,
    )


def python(*arguments: str | Path, path: Path | None = None) -> Done:
    """Run `python ARGUMENTS` to its end in a process of its own."""
    process = start(*arguments, path=path)
    out, err = process.communicate(timeout=300)
    return Done(process.returncode, out, err)
