"""Manifests, records and submissions that nobody meant: each is refused in lines that name the place, or is sound."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from support.commands import Done, cli
from support.paths import REPOSITORY

from unlearnbench.results.records.record import content_hash

from .bench import Bench, traceback_in
from .trials import Trial

# No answer takes longer, in seconds of the processor, or more memory than this beyond what the command itself takes.
SECONDS, BYTES = 5.0, 500 * 2**20
# Ten manifests are tried for each submission, and five records for two submissions.
SHARES = {"manifest": 20, "record": 5, "submission": 2}

NASTY: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.0, -0.0, 1e308, 1e-308, True, False, None),
    *(
        "",
        " ",
        "..",
        "../../x",
        "/etc/passwd",
        "a/b",
        "\x00",
        "\x1b[2J",
        "x" * 5000,
        "é",
        "e\u0301",
        "\u202e",
        "|",
        "\n",
    ),
    *("<script>alert(1)</script>", "[x](javascript:1)", "NaN", "1e9", "original", "FDR", "ERWP", "con", "😀" * 40),
    *([], {}, [[]], [[[[[[]]]]]], {"a": {"b": {}}}, [0] * 500, ["8", "9"], {"min": 0}, list("abc")),
)
TOML_NASTY = (
    *("inf", "-inf", "nan", "1e400", "0x7fffffffffffffff", "1979-05-27T07:32:00Z", "07:32:00", "'''\n'''", "{}", "[]"),
    *(
        "[" * 40 + "]" * 40,
        "{a={a={a={a=1}}}}",
        "9" * 400,
        "9" * 5000,
        '"\\u0000"',
        '"\\uD7FF"',
        "[[1], ['a']]",
        "+1",
        "=",
        "",
    ),
    *('"' + "y" * 3000 + '"', "[" + "1," * 3000 + "]", "[0.1, 1e-300]", '["../x", "a/b"]', "true", '""'),
)


@dataclass(frozen=True)
class Answer:
    """What a command did in a process of its own."""

    done: Done
    seconds: float
    grown: int


def answer(*arguments: str | Path) -> Answer:
    """Run the command line in a copy of this process, and measure it."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape") as told:
        before = _resident()
        child = os.fork()
        if child == 0:
            _in_child(told, arguments)
        _, status, usage = os.wait4(child, 0)
        told.seek(0)
        text = told.read()
    code, out, err = json.loads(text) if text else (os.waitstatus_to_exitcode(status), "", "")
    grown = max(0, usage.ru_maxrss * 1024 - before)
    return Answer(Done(code, out, err), usage.ru_utime + usage.ru_stime, grown)


def _resident() -> int:
    """Return the bytes that this process holds now, with which its copy begins."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()


def _in_child(told: Any, arguments: tuple[str | Path, ...]) -> None:
    """Run the command line, write down what it did, and end."""
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    try:
        done = cli(*arguments)
        text = json.dumps([done.code, done.out, done.err])
    except BaseException as error:
        text = json.dumps([70, "", f"Traceback (most recent call last): {type(error).__name__}: {error}"[:2000]])
    told.write(text)
    told.flush()
    os._exit(0)


def fault_of(found: Answer, place: Path) -> str:
    """Return what is wrong with an answer about files at a place, or "" if nothing is."""
    done = found.done
    if fault := traceback_in(done):
        return fault
    if done.code not in (0, 1, 2):
        return f"exit code {done.code}"
    if found.seconds > SECONDS:
        return f"it took {found.seconds:.1f} s"
    if found.grown > BYTES:
        return f"it took {found.grown // 2**20} MiB"
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", done.out + done.err):
        return f"it prints control characters: {(done.out + done.err)[:200]!r}"
    first = done.err.strip().splitlines()[:1]
    if done.code and not (first and str(place) in first[0]):
        return f"its first line does not name the place: {first}"
    return ""


def attempt(random: Random, bench: Bench, number: int) -> Trial:
    """Spoil one file and ask about it."""
    _warm_up(bench)
    what = random.choices(sorted(SHARES), [SHARES[name] for name in sorted(SHARES)])[0]
    with bench.place() as place:
        return KINDS[what](random, bench, place)


@cache
def _warm_up(bench: Bench) -> None:
    """Import here what the copies of this process would import again and again."""
    cli("validate", bench.manifest)
    cli("table", bench.finished)
    with bench.place() as place:
        cli("submit", bench.finished, "--only", "folnrc", "-o", place / "submission")
        cli("leaderboard", "check", place / "submission")
        cli("leaderboard", "build", bench.finished, "-o", place / "board")


@cache
def _manifests() -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "manifests").rglob("*digits*.toml")))


def _manifest(random: Random, bench: Bench, place: Path) -> Trial:
    text = random.choice(_manifests())
    name, spoil = random.choice(sorted(SPOILED.items()))
    content: str | bytes = text
    for _ in range(random.choice((1, 1, 1, 3))):
        content = spoil(random, text) if isinstance(content, str) else content
        text = content if isinstance(content, str) else text
    path = place / "m.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    found = answer("validate", path)
    fault = fault_of(found, path)
    if not fault and name == "unknown key" and found.done.code == 0:
        fault = "a key that is not known is taken"
    kept = f"{fault}\n  {content[-400:]!r}" if fault else ""
    return Trial(f"manifest: {name}", kept)


def _lines(random: Random, text: str) -> tuple[list[str], int]:
    lines = text.split("\n")
    keys = [number for number, line in enumerate(lines) if re.match(r"[a-z_.]+ *=", line)]
    return lines, random.choice(keys) if keys else 0


def _another_value(random: Random, text: str) -> str:
    lines, number = _lines(random, text)
    value = random.choice(TOML_NASTY) if random.random() < 0.5 else json.dumps(random.choice(NASTY), ensure_ascii=False)
    lines[number] = f"{lines[number].partition('=')[0]}= {value}"
    return "\n".join(lines)


def _unknown_key(random: Random, text: str) -> str:
    lines, number = _lines(random, text)
    key = random.choice(("epoch_s", "labels", "x", '"a.b"', "a.b.c", "ä".encode().hex(), "seed"))
    return "\n".join([*lines[: number + 1], f"{key} = 1", *lines[number + 1 :]])


def _another_line(random: Random, text: str) -> str:
    """Remove, repeat, cut or exchange lines."""
    lines, number = _lines(random, text)
    other = random.randrange(len(lines))
    way = random.randrange(4)
    if way == 0:
        del lines[number]
    elif way == 1:
        lines.insert(other, lines[number])
    elif way == 2:
        lines[number] = lines[number][: random.randrange(1 + len(lines[number]))]
    else:
        lines[number], lines[other] = lines[other], lines[number]
    return "\n".join(lines)


def _other_bytes(random: Random, text: str) -> bytes:
    content = bytearray(text.encode())
    for _ in range(random.randrange(1, 6)):
        content[random.randrange(len(content))] = random.randrange(256)
    return bytes(content[: random.randrange(len(content))] if random.random() < 0.3 else content)


def _encoding(random: Random, text: str) -> bytes:
    return text.encode(random.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037")))


def _deep(random: Random, text: str) -> str:
    levels = random.choice((10, 33, 100, 399, 900, 5000))
    key = random.choice(("x", "seeds", "unlearners", "problem.matrix.forget_last"))
    ways = (f"{key} = {'[' * levels}{']' * levels}", f"{'.'.join('a' * levels)} = 1", f"[{'.'.join('k' * levels)}]")
    return f"{random.choice(ways)}\n{text}"


def _huge(random: Random, text: str) -> str:
    many = random.choice((1000, 10_000, 60_000, 400_000))
    numbers = ", ".join(map(str, range(many)))
    return random.choice(
        (
            re.sub(r"^seeds = .*$", f"seeds = [{numbers}]", text, flags=re.M),
            f'{text}\n[[unlearners]]\nname = "erwp"\nlabel = "m"\nmatrix = {{ epochs = [{numbers}] }}',
            text + "".join(f'\n[[unlearners]]\nname = "wd"\nlabel = "w{n}"' for n in range(min(many, 10_000))),
            f'description = "{"d" * many * 10}"\n{text}',
            f"{text}\n# {'c' * many * 10}",
        )
    )


SPOILED: dict[str, Callable[[Random, str], str | bytes]] = {
    "another value": _another_value,
    "another line": _another_line,
    "unknown key": _unknown_key,
    "other bytes": _other_bytes,
    "encoding": _encoding,
    "deep": _deep,
    "huge": _huge,
}


def _spoil_json(random: Random, values: Any) -> str:
    """Spoil the value or the key of one place of nested JSON values, or the text."""
    table: Any = values
    while True:
        items = list(table.keys() if isinstance(table, dict) else range(len(table)))
        key = random.choice(items)
        if not isinstance(table[key], dict | list) or not table[key] or random.random() < 0.1:
            break
        table = table[key]
    way = random.randrange(5)
    if way == 0 and isinstance(table, dict):
        del table[key]
    elif way == 1 and isinstance(table, dict):
        table[f"{key}x"] = table.pop(key)
    else:
        table[key] = random.choice(NASTY)
    if random.random() < 0.6 and "hash" in values:
        values["hash"] = content_hash(values)
    text = json.dumps(values)
    if way == 4:
        spoilt = random.choice(
            ("[" * 100_000, text[: random.randrange(len(text))], f"[{text}]", '{"a":' * 5000, "9" * 9999)
        )
        return spoilt
    return text


def _record(random: Random, bench: Bench, place: Path) -> Trial:
    """Spoil a record of a finished run and ask for the table."""
    with bench.copied() as output:
        path = random.choice(sorted(output.glob("records/**/*.json")))
        path.write_text(_spoil_json(random, json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
        command = random.choice(("table", "table --json", "leaderboard build"))
        folder = ("-o", place / "board") if "build" in command else ()
        found = answer(*command.split(), output, *folder)
        fault = fault_of(found, output)
        if not fault:
            fault = _outside(place, {"board"})
        kept = f"{fault}\n  {path.read_text(encoding='utf-8')[:300]!r}" if fault else ""
    return Trial(f"record: {command}", kept)


def _submission(random: Random, bench: Bench, place: Path) -> Trial:
    """Spoil one file of a submission and check it."""
    submitted = place / "in" / "submission"
    submitted.parent.mkdir()
    made = answer("submit", bench.finished, "--only", "folnrc", "-o", submitted)
    if made.done.code or not submitted.is_dir():
        return Trial("submission", f"it cannot be made: {made.done.err.strip()[-200:]}")
    path = random.choice(sorted(found for found in submitted.rglob("*") if found.is_file()))
    if path.suffix == ".json":
        path.write_text(_spoil_json(random, json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    else:
        path.write_bytes(_other_bytes(random, path.read_text(encoding="utf-8")))
    found = answer("leaderboard", "check", submitted)
    fault = fault_of(found, submitted) or _outside(place, {"in"})
    return Trial(f"submission: {path.suffix}", f"{path.name}: {fault}" if fault else "")


def _outside(place: Path, allowed: set[str]) -> str:
    """Return which files a command has written where it had nothing to write."""
    others = sorted({path.name for path in place.iterdir()} - allowed)
    return f"written outside: {', '.join(others)}" if others else ""


KINDS: dict[str, Callable[[Random, Bench, Path], Trial]] = {
    "manifest": _manifest,
    "record": _record,
    "submission": _submission,
}

if sys.platform == "win32":
    raise ImportError("the trials fork this process, which needs a Unix")
