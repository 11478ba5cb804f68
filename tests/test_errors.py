"""Errors and their texts: the nearest valid name, the way from another process, the first line."""

from __future__ import annotations

import pickle

import pytest

from unlearnbench.errors import Fault, ManifestError, NotHereError, did_you_mean, first_line

METRICS = ("forget_accuracy", "forget_prototype_accuracy", "retain_accuracy")


@pytest.mark.parametrize(
    ("name", "names", "nearest"),
    [
        ("WD", ("erwp", "wd"), "wd"),
        ("Erpw", ("erwp", "wd"), "erwp"),
        ("imagenet1k_v1", ("IMAGENET1K_V1", "pytorchcv"), "IMAGENET1K_V1"),
        ("FAe", METRICS, "forget_accuracy"),
        ("FPAe", METRICS, "forget_prototype_accuracy"),
        ("cane", METRICS, "retain_accuracy"),
    ],
)
def test_the_nearest_name_is_found_in_whatever_case(name: str, names: tuple[str, ...], nearest: str) -> None:
    assert did_you_mean(name, names) == f"\n  Did you mean {nearest!r}? Valid: {', '.join(sorted(names))}"


@pytest.mark.parametrize(("name", "names"), [("salun", ("tslnrc", "wd")), ("FAe", ("erwp", "wd"))])
def test_what_is_near_to_nothing_is_answered_with_the_valid_names(name: str, names: tuple[str, ...]) -> None:
    assert did_you_mean(name, names) == f"\n  Valid: {', '.join(names)}"


def test_errors_of_a_worker_arrive_as_they_were() -> None:
    missing = pickle.loads(pickle.dumps(NotHereError("not here", 3)))
    assert (str(missing), missing.stand_in) == ("not here", 3)
    faulty = ManifestError("m.toml", [Fault(2, "seeds", "is empty")])
    assert str(pickle.loads(pickle.dumps(faulty))) == str(faulty)


def test_an_exception_without_text_is_told_by_its_type() -> None:
    found = [first_line(error) for error in (ValueError("a\nb"), ValueError(), KeyError())]
    assert found == ["a", "ValueError", "KeyError"]
