"""Every unlearner of the zoo keeps to the contract and documents what it does."""

from importlib.metadata import distribution

import pytest
from unlearnbench.registry.describe import plugin_page
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.options import plugin_schema
from unlearnbench.testing import check_unlearner

NAMES = sorted(entry.name for entry in distribution("unlearnbench-zoo").entry_points)
# SSD's importances come from few images; CF-k and L1-sparse see retain images alone and start from the original.
EXEMPT = {
    "ssd": ["retain accuracy holds"],
    "cf_k": ["forget accuracy falls"],
    "l1_sparse": ["forget accuracy falls"],
}


def test_the_zoo_has_nineteen_methods() -> None:
    assert NAMES == [
        "bad_teacher",
        "boundary_shrink",
        "cf_k",
        "cola",
        "delete",
        "duck",
        "eu_k",
        "head_distillation",
        "jit",
        "l1_sparse",
        "lotus",
        "mu_mis",
        "neggrad_plus",
        "pour",
        "random_labels",
        "salun",
        "scrub",
        "ssd",
        "unsir",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_to_the_contract(name: str) -> None:
    findings = check_unlearner(find("unlearners", name).load())
    exempt = [finding.check for finding in findings if finding.status == "exempt"]
    assert exempt == EXEMPT.get(name, [])


@pytest.mark.parametrize("name", NAMES)
def test_its_page_says_what_it_reads_and_changes_and_where_it_is_from(name: str) -> None:
    plugin = find("unlearners", name)
    lines = plugin_page(plugin).splitlines()
    for section in ("Returns:", "Reads:", "Changes:", "Source:", "Options"):
        assert any(line.startswith(section) for line in lines), section
    assert max(map(len, lines)) <= 120
    assert all(option.meaning for option in plugin_schema(plugin))
