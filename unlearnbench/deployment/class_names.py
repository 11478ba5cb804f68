"""Classes as a user names them on the command line: by name or by index."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from unlearnbench.errors import UnlearnBenchError, did_you_mean


def classes_of(given: Sequence[str], names: Sequence[str], option: str) -> tuple[int, ...]:
    """Return the indices of classes.

    A name counts before an index, so that the folder `8` is meant by 8, wherever it stands among the classes.

    Args:
        given: Names or indices.
        names: K names of the classes.
        option: Where they were given, for messages.

    Raises:
        UnlearnBenchError: If there is no such class, one is named twice, or an index could be a mistyped name.
    """
    found = tuple(_class_of(text, names, option) for text in given)
    twice = next((label for label in found if found.count(label) > 1), None)
    if twice is not None:
        raise UnlearnBenchError(f"{option}: class {names[twice]!r} is named twice")
    return found


def class_list(labels: Sequence[int], names: Sequence[str]) -> str:
    """Return classes as an option takes them, to be pasted into a shell: by index where a name cannot stand in a list.

    Args:
        labels: Class indices; what is no index of a name stands as "?".
        names: K names of the classes.
    """
    told = {label: str(label) if _needs_index(name) else name for label, name in enumerate(names)}
    return shlex.quote(",".join(told.get(label, "?") for label in labels))


def _needs_index(name: str) -> bool:
    return "," in name or name != name.strip()


def _class_of(text: str, names: Sequence[str], option: str) -> int:
    if text in names:
        return list(names).index(text)
    if not text.isdecimal() or int(text) >= len(names):
        listed = "" if text.isdecimal() else did_you_mean(text, names)
        odd = next((label for label, name in enumerate(names) if _needs_index(name)), None)
        hint = "" if odd is None else f"\n  Names are separated by commas; for {names[odd]!r} give its index: {odd}"
        raise UnlearnBenchError(f"{option}: no class {text!r}: the classes are 0 to {len(names) - 1}{listed}{hint}")
    numbered = [name for name in names if name.isdecimal()]
    if numbered:
        index = int(text)
        raise UnlearnBenchError(
            f"{option}: {text} is the index of class {names[index]!r}, but these classes are called by numbers "
            f"({', '.join(numbered[:3])}{', ...' if len(numbered) > 3 else ''}) and none of them {text}\n"
            f"  Write the name of the class that you mean"
        )
    return int(text)
