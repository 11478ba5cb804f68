"""The position of a key in a TOML file."""

from __future__ import annotations

import pytest
import tomli

from unlearnbench.experiment.toml_positions import KeyPath, key_lines, line_of

DOCUMENT = '''\
seeds = [0]
dataset.name = "digits"
dataset.options.size = 3
description = """
name = "not a key"
[problem]
"""
architecture = { name = "net", options = { width = 4 } }

[ training ]  # a comment
milestones = [
  1,
  2,
]
"quoted key" = 1
'single' = 2

[[unlearners]]
name = "wd"
[[ unlearners ]]
name = "erwp"
[unlearners.options]
epochs = 1
text = \'\'\'one line, { epochs = 3 }\'\'\'
[problem]
forget_last = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("seeds",), 1),
        (("dataset",), 2),
        (("dataset", "name"), 2),
        (("dataset", "options"), 3),
        (("dataset", "options", "size"), 3),
        (("description",), 4),
        (("architecture", "name"), 8),
        (("training",), 10),
        (("training", "milestones"), 11),
        (("training", "quoted key"), 15),
        (("training", "single"), 16),
        (("unlearners",), 18),
        (("unlearners", 0), 18),
        (("unlearners", 0, "name"), 19),
        (("unlearners", 1), 20),
        (("unlearners", 1, "name"), 21),
        (("unlearners", 1, "options"), 22),
        (("unlearners", 1, "options", "epochs"), 23),
        (("unlearners", 1, "options", "text"), 24),
        (("problem",), 25),
        (("problem", "forget_last"), 26),
    ],
)
def test_a_key_stands_in_its_line(path: KeyPath, line: int) -> None:
    tomli.loads(DOCUMENT)
    assert key_lines(DOCUMENT)[path] == line


def test_lines_of_a_multi_line_string_are_no_keys() -> None:
    assert ("name",) not in key_lines(DOCUMENT)


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_a_multi_line_string_that_ends_in_its_own_line_hides_nothing(quotes: str) -> None:
    assert key_lines(f"a = {quotes}x{quotes}\nb = 1\n") == {("a",): 1, ("b",): 2}


def test_a_line_separator_that_toml_does_not_know_starts_no_line() -> None:
    assert key_lines('a = "x\u2028y"\nb = 1\n')[("b",)] == 2


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("training", "epochs"), 10),
        (("unlearners", 1, "options", "beta"), 22),
        (("unlearners", 5, "name"), 18),
        (("metrics", 0, "name"), 1),
        ((), 1),
    ],
)
def test_a_missing_key_is_placed_at_the_nearest_table_above_it(path: KeyPath, line: int) -> None:
    assert line_of(path, key_lines(DOCUMENT)) == line


@pytest.mark.parametrize(
    "text",
    [
        'a = 1 # says """ and \'\'\'\nb = 2 # """\n',
        "a = \"it is '''\"\nb = 2\n",
        'a = \'"""\'\nb = \'"""\'\n',
        'a = "\\""\nb = "\\""\n',
    ],
)
def test_quotes_in_comments_and_strings_open_no_string(text: str) -> None:
    tomli.loads(text)
    assert key_lines(text) == {("a",): 1, ("b",): 2}
