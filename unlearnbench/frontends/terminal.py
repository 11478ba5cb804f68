"""What the command line prints with: text from outside cannot steer the terminal, and is never taken for markup."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from unlearnbench.escape import terminal


class PlainConsole(Console):
    """A console that shows every text as it is, in cells and titles of tables too."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a text without markup, emoji codes and characters that steer a terminal."""
        return super().render_str(terminal(text), **{**settings, "markup": False, "emoji": False})


def echo(message: object, *, err: bool = False) -> None:
    """Print a message that may hold text from outside."""
    typer.echo(terminal(str(message)), err=err)


def echo_json(value: Any) -> None:
    """Print JSON values."""
    echo(json.dumps(value, indent=1))


def tell(line: str) -> None:
    """Print a message on stderr, because stdout holds only the data asked for."""
    echo(line, err=True)


def put(data: str) -> None:
    """Print data for a program unchanged, unless a terminal would show them."""
    typer.echo(terminal(data) if sys.stdout.isatty() else data, nl=False)


def messages() -> Console:
    """Return the console for messages, on stderr."""
    return PlainConsole(stderr=True)


def table_console() -> Console:
    """Return the console for tables, which is wide enough to cut nothing if the output is not a terminal."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=200)
