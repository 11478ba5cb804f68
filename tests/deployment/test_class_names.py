"""Classes on the command line: names before indices, and nothing that could mean two classes."""

from __future__ import annotations

import re
import shlex

import pytest

from unlearnbench.deployment.class_names import class_list, classes_of
from unlearnbench.errors import UnlearnBenchError

ANIMALS = ("cat", "dog", "wolf")
# Folders 0 to 11 as they are sorted: as text.
NUMBERS = tuple(sorted(map(str, range(12))))


def test_a_class_is_named_or_counted() -> None:
    assert classes_of(("wolf", "0"), ANIMALS, "--forget") == (2, 0)


def test_a_name_counts_before_an_index() -> None:
    assert NUMBERS.index("8") == 10
    assert classes_of(("8", "10"), NUMBERS, "--forget") == (10, 2)


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        (("wlf",), ANIMALS, "--forget: no class 'wlf': the classes are 0 to 2\n  Did you mean 'wolf'?"),
        (("3",), ANIMALS, "--forget: no class '3': the classes are 0 to 2"),
        (("dog", "1"), ANIMALS, "--forget: class 'dog' is named twice"),
        (
            ("0",),
            ("10", "11", "12", "13"),
            "--forget: 0 is the index of class '10', but these classes are called by numbers (10, 11, 12, ...) and "
            "none of them 0\n  Write the name of the class that you mean",
        ),
    ],
)
def test_what_names_no_class_is_refused(given: tuple[str, ...], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UnlearnBenchError, match=re.escape(message)):
        classes_of(given, names, "--forget")


def test_a_list_of_classes_can_be_pasted_back() -> None:
    odd = (" lead", "-x", "a,b", "größe", 'q"uote', "ro se", "漢字")
    order = [4, 1, 2, 3, 6, 0, 5]
    (told,) = shlex.split(class_list(order, odd))
    assert told == 'q"uote,-x,2,größe,漢字,0,ro se'
    assert classes_of(told.split(","), odd, "--class-order") == tuple(order)
    assert class_list([1, -1, 0], ANIMALS) == "'dog,?,cat'"
    with pytest.raises(UnlearnBenchError, match=r"\n  Names are separated by commas; for ' lead' give its index: 0$"):
        classes_of(("a", "b"), odd, "--forget")
