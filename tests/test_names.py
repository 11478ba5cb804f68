"""Names from outside."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from unlearnbench.names import Label, Name, Place
from unlearnbench.registry.component import label_slug

NOT_NAMES = ["", ".", "..", ".hidden", "../up", "a/b", "/etc/passwd", "a b", "a\n", "a\x00", "a\x1b[2J", "é", "a" * 121]


@pytest.mark.parametrize("name", ["digits", "a", "_", "-", "A.b_c-9", "7", "a" * 120])
def test_a_name_is_letters_digits_dots_dashes_and_underscores(name: str) -> None:
    assert TypeAdapter[Any](Name).validate_python(name) == name


@pytest.mark.parametrize("name", NOT_NAMES)
def test_what_could_leave_a_folder_or_hide_is_no_name(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Any](Name).validate_python(name)


@pytest.mark.parametrize("place", ["../x", "/x", "a/../b", "a//b", "a/", "./a", "a/.b", "a\\b/\n"])
def test_a_place_is_names_alone(place: str) -> None:
    assert TypeAdapter[Any](Place).validate_python("store/features/0f/features.h5")
    with pytest.raises(ValidationError):
        TypeAdapter[Any](Place).validate_python(place)


def test_a_label_is_text_and_its_slug_is_safe() -> None:
    assert TypeAdapter[Any](Label).validate_python("erwp kappa=1.5, l_ne+l_e")
    for label in ("", "a" * 201):
        with pytest.raises(ValidationError):
            TypeAdapter[Any](Label).validate_python(label)
    assert label_slug("erwp kappa=1.5") == "erwp-kappa=1.5"
    assert label_slug("../../etc") == "-..-etc"
    assert label_slug("..") == "-"
    assert label_slug("<i>a/b</i>\x1b[2J") == "-i-a-b-i-2J"
    assert len(label_slug("a" * 500)) == 120
