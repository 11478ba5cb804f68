"""A file of an output folder is damaged: it is found, named and made again, and the records are the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from .bench import Bench, traceback_in
from .trials import Trial

Damage = Callable[[Random, Path], None]


def _truncated(random: Random, path: Path) -> None:
    os.truncate(path, random.randrange(path.stat().st_size))


def _flipped(random: Random, path: Path) -> None:
    """Flip one bit, so that neither size nor time tell."""
    found = path.stat()
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _zeroed(random: Random, path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _exchanged(random: Random, path: Path) -> None:
    """Exchange it with a file of its name beside it, as a careless copy does."""
    others = sorted(other for other in path.parents[1].rglob(path.name) if other != path and other.is_file())
    if not others:
        others = sorted(other for other in path.parents[2].rglob("*.json") if other != path)
    other, between = random.choice(others), path.with_name("between")
    path.rename(between)
    other.rename(path)
    between.rename(other)


def _removed(random: Random, path: Path) -> None:
    path.unlink()


def _folder(random: Random, path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("")


def _unreadable(random: Random, path: Path) -> None:
    """Put a link to nowhere in its place, which nobody can read, whatever his rights are."""
    path.unlink()
    path.symlink_to("/nowhere/at-all")


DAMAGES: dict[str, Damage] = {
    "truncated": _truncated,
    "one bit flipped": _flipped,
    "zeroed": _zeroed,
    "exchanged": _exchanged,
    "removed": _removed,
    "a folder": _folder,
    "unreadable": _unreadable,
}
# Every kind of file that a finished run has, by the pattern of its path.
FILES = {
    "weights": "store/models/*/model.safetensors",
    "features": "store/features/*/features.h5",
    "tensors of a search": "store/relevance/*/tensors.safetensors",
    "entry of a model": "store/models/*/entry.json",
    "entry of features": "store/features/*/entry.json",
    "entry of a search": "store/relevance/*/entry.json",
    "record": "records/**/*.json",
}
CASES = [(file, damage) for file in FILES for damage in DAMAGES]


def attempt(random: Random, bench: Bench, number: int) -> Trial:
    """Damage one file of a finished run and run again."""
    file, damage = CASES[number % len(CASES)]
    with bench.copied() as output:
        path = random.choice(sorted(output.glob(FILES[file])))
        DAMAGES[damage](random, path)
        if "search" in file:
            _let_it_be_read(output)
        done = bench.run(output)
        fault = traceback_in(done) or (f"exit code {done.code}: {done.err.strip()[-300:]}" if done.code else "")
        fault = fault or _unnamed(path, done.err, damage, output) or bench.differs(output)
        shutil.rmtree(output, ignore_errors=True)
    return Trial(f"{file}: {damage}", fault)


def _let_it_be_read(output: Path) -> None:
    """Remove what ERwP made, since nobody reads a search whose result is there."""
    for path in output.glob("records/**/erwp/*.json"):
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        for file in files.values():
            shutil.rmtree((output / file["path"]).parent)
        path.unlink()


def _unnamed(path: Path, said: str, damage: str, output: Path) -> str:
    """Return that a damaged file was not named; one that is not there need not be."""
    named = str(path) in said or str(path.parent) in said
    return "" if named or damage == "removed" else f"{path.relative_to(output)} is not named: {said.strip()[-200:]}"
