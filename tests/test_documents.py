"""Text and JSON from outside, within bounds."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import pytest

from unlearnbench.documents import LARGEST_BYTES, MOST_VALUES, compressed, parsed_json, read_json, read_text
from unlearnbench.errors import InvalidFileError


def test_json_within_the_bounds_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, null, "é", 18446744073709551615], "b": ' + "[" * 30 + "]" * 30 + "}")
    assert read_json(path)["a"] == [1, 2.5, None, "é", 2**64 - 1]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[" * 100_000 + "]" * 100_000, "it is nested more than 32 levels deep"),
        ("[" * 33 + "]" * 33, "it is nested more than 32 levels deep"),
        ('{"a":' * 40 + "1" + "}" * 40, "it is nested more than 32 levels deep"),
        ("[" + "9" * 5000 + "]", "it holds a number of too many digits"),
        (f"[{10**40}]", "it holds a number of 41 digits"),
        ('{"a\\ud800": 1}', "it holds half of a character (a lone surrogate)"),
        (f"[{'0,' * MOST_VALUES}0]", "it has more than 1,000,000 values"),
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)
def test_json_beyond_the_bounds_is_refused_in_one_line(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared
        parsed_json(text)
    assert str(caught.value) == fault


@pytest.mark.slow
def test_a_compressed_file_is_read_within_the_same_bounds(tmp_path: Path) -> None:
    path = tmp_path / "lines.xz"
    path.write_bytes(whole := compressed("a" * 1000))
    assert read_text(path) == "a" * 1000
    with pytest.raises(InvalidFileError) as caught:
        read_text(path, 999)
    assert str(caught.value) == f"{path}: has more than the 999 bytes that are read of such a file"
    greedy = lzma.compress(b"a", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}])
    for damaged, fault in (
        (b"a" * 1000, "Input format not supported by decoder"),
        (whole[:-9], "its end is missing"),
        (whole[:40] + b"\xff" * 9 + whole[49:], "Corrupt input data"),
        (greedy, "Memory usage limit exceeded"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InvalidFileError) as caught:
            read_text(path)
        assert str(caught.value) == f"{path}: cannot be decompressed: {fault}"


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(InvalidFileError) as caught:
        read_json(path)
    assert str(caught.value) == f"{path}: has more than the {LARGEST_BYTES:,} bytes that are read of such a file"


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(InvalidFileError, match="cannot be read: not a file"):
            read_text(tmp_path / name)
    with pytest.raises(InvalidFileError, match="cannot be read: No such file"):
        read_text(tmp_path / "missing")


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ab\xff")
    with pytest.raises(InvalidFileError, match=r"not UTF-8 text \(byte 2\)"):
        read_text(tmp_path / "a")
