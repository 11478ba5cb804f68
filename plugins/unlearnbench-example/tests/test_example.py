"""The unlearner keeps to the contract of unlearnbench's unlearners."""

from unlearnbench.registry.entry_points import find
from unlearnbench.testing import check_unlearner

from unlearnbench_example.example import example


def test_it_is_registered() -> None:
    assert find("unlearners", "example").load() is example


def test_it_keeps_to_the_contract() -> None:
    check_unlearner(example)
