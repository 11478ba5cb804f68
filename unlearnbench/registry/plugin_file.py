"""A plugin in a file of the user's own, named `file:PATH.py:FUNCTION`."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

from unlearnbench.errors import PluginError, did_you_mean, os_reason
from unlearnbench.registry.syntax import source_module

FILE = "file"


def is_file_name(name: str) -> bool:
    """Return whether a plugin's name is the place of a function in a file."""
    return name.startswith(f"{FILE}:")


def located(name: str, folder: Path) -> str:
    """Return the name of a plugin in a file with its path taken from a folder; other names stay as they are."""
    if not is_file_name(name):
        return name
    path, _, function = name.removeprefix(f"{FILE}:").rpartition(":")
    return f"{FILE}:{(folder / Path(path).expanduser()).resolve()}:{function}" if path else name


def short_name(name: str) -> str:
    """Return the name of a plugin in a file without the folders on the way to the file."""
    if not is_file_name(name):
        return name
    path, _, function = name.removeprefix(f"{FILE}:").rpartition(":")
    return f"{FILE}:{Path(path).name}:{function}"


def check_place(name: str) -> str:
    """Return where the function of a file is, as `path:function`, after looking whether it is there.

    Raises:
        PluginError: If the name has another form, or the file or the function does not exist.
    """
    place = name.removeprefix(f"{FILE}:")
    path, _, function = place.rpartition(":")
    if not path or not function.isidentifier():
        raise PluginError(f"{name!r} does not name a function of a file\n  The form is file:PATH.py:FUNCTION")
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise PluginError(f"{name!r}: {path} cannot be read: {os_reason(error)}") from error
    source = source_module(path)
    if source is None:
        raise PluginError(f"{name!r}: {path} is not a Python file that can be read")
    if function not in source.definitions and function not in source.imports:
        raise PluginError(f"{name!r}: {path} defines no {function!r}{did_you_mean(function, source.definitions)}")
    return place


@functools.cache
def file_module(path: str) -> ModuleType:
    """Return the module that a file holds, imported once."""
    spec = importlib.util.spec_from_file_location(f"unlearnbench_file_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
