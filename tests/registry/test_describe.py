"""Pages of plugins, as `show` prints them."""

import pytest
from support.plugins import built_in

from unlearnbench.errors import PluginError
from unlearnbench.registry.describe import plugin_json, plugin_page, plugins_named


@pytest.mark.parametrize("name", built_in("unlearners"))
def test_the_page_of_an_unlearner_says_what_it_reads_and_changes_and_its_source(name: str) -> None:
    page = plugin_page(plugins_named(name)[0])
    lines = page.splitlines()
    assert lines[0].startswith(f"{name} (unlearner, unlearnbench ")
    for section in ("Returns:", "Reads:", "Changes:", "Source: ERwP", "Options"):
        assert any(line.startswith(section) for line in lines), section
    assert "Args:" not in lines
    assert max(map(len, lines)) <= 120


def test_every_option_of_erwp_has_a_group_and_a_meaning() -> None:
    options = plugin_json(plugins_named("erwp")[0])["options"]
    assert {option["group"].partition(":")[0] for option in options} == {"Relevance", "Removal", "Distillation"}
    assert all(option["meaning"] for option in options)
    defaults = {option["name"]: option["default"] for option in options}
    assert (defaults["epochs"], defaults["learning_rate"], defaults["beta"], defaults["kappa"]) == (10, 1e-4, 10.0, 2.0)
    assert (defaults["optimizer"], defaults["reduction"], defaults["batch_norm"]) == ("adam", "batch_mean", "frozen")


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(PluginError, match=r"^nothing named 'erpw' is installed\n  Did you mean 'erwp'\? Valid: "):
        plugins_named("erpw")
