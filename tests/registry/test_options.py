"""Options of plugins."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from support.commands import python
from support.plugins import fake_distribution

from unlearnbench.errors import PluginError
from unlearnbench.registry.declare import ADDED_LATER
from unlearnbench.registry.entry_points import KINDS, PluginKind, find, installed
from unlearnbench.registry.options import EMPTY, Option, call_arguments, check_options, plugin_schema, schema
from unlearnbench.registry.signature import read_signature


def separate(
    model: object,
    task: object,
    *,
    epochs: Annotated[int, Field(ge=0)] = 5,
    rate: float = 0.5,
    mode: Literal["fast", "slow"] = "fast",
    steps: tuple[tuple[int, float], ...] = (),
    size: int | None = None,
    deep: bool = False,
) -> None:
    """Do it.

    Args:
        model: The model.
        epochs: Passes.
        rate (float): Step size,
            above 0.
        mode: How.
    """


@dataclass(frozen=True)
class Speed:
    """Speed: how fast.

    Attributes:
        epochs: Passes.
        rate: Step size,
            above 0.
        mode: How.
    """

    epochs: Annotated[int, Field(ge=0)] = 5
    rate: float = 0.5
    mode: Literal["fast", "slow"] = "fast"


@dataclass(frozen=True)
class Shape:
    """Shape: how big."""

    steps: tuple[tuple[int, float], ...] = ()
    size: int | None = None
    deep: bool = False


@dataclass(frozen=True)
class Bundle(Shape, Speed):
    """All options."""


def bundled(model: object, task: object, *, options: Bundle = Bundle()) -> None:
    """Do it."""


def test_a_schema_is_read_from_keyword_arguments() -> None:
    found = schema(separate)
    assert [(option.name, option.type_name, option.default, option.meaning) for option in found] == [
        ("epochs", "int", 5, "Passes."),
        ("rate", "float", 0.5, "Step size, above 0."),
        ("mode", "'fast' | 'slow'", "fast", "How."),
        ("steps", "tuple[tuple[int, float], ...]", (), ""),
        ("size", "int | None", None, ""),
        ("deep", "bool", False, ""),
    ]


def test_a_dataclass_gives_the_same_schema_and_groups() -> None:
    def without_group(option: Option) -> tuple[Any, ...]:
        return option.name, option.type_name, option.default, option.meaning

    assert [without_group(option) for option in schema(bundled)] == [
        without_group(option) for option in schema(separate)
    ]
    assert [option.group for option in schema(bundled)] == ["Speed: how fast"] * 3 + ["Shape: how big"] * 3
    assert {option.group for option in schema(separate)} == {""}


@pytest.mark.parametrize("function", [separate, bundled])
@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"epochs": 0}, 0),
        ({"rate": 1}, 1),
        ({"mode": "slow"}, "slow"),
        ({"steps": [[3, 0.1], [5, 1]]}, [[3, 0.1], [5, 1]]),
        ({"size": 4}, 4),
        ({"deep": True}, True),
    ],
)
def test_a_fitting_value_is_kept_beside_the_defaults(
    function: Callable[..., Any], given: dict[str, Any], value: Any
) -> None:
    values, faults = check_options("it", schema(function), given)
    defaults = {"epochs": 5, "rate": 0.5, "mode": "fast", "steps": [], "size": None, "deep": False}
    assert not faults
    assert values == {**defaults, next(iter(given)): value}
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epochs", "3", "'3' does not fit option 'epochs' (int, default 5): input should be a valid integer"),
        ("epochs", True, "True does not fit option 'epochs' (int, default 5): input should be a valid integer"),
        ("epochs", 1.5, "1.5 does not fit option 'epochs' (int, default 5): input should be a valid integer"),
        (
            "epochs",
            -1,
            "-1 does not fit option 'epochs' (int, default 5): input should be greater than or equal to 0",
        ),
        (
            "rate",
            float("nan"),
            "nan does not fit option 'rate' (float, default 0.5): input should be a finite number",
        ),
        (
            "mode",
            "quick",
            "'quick' does not fit option 'mode' ('fast' | 'slow', default 'fast'): input should be 'fast' or 'slow'",
        ),
        (
            "steps",
            [[1]],
            "[[1]] does not fit option 'steps' (tuple[tuple[int, float], ...], default ()): field required",
        ),
        (
            "steps",
            3,
            "3 does not fit option 'steps' (tuple[tuple[int, float], ...], default ()): input should be a valid array",
        ),
        ("size", "4", "'4' does not fit option 'size' (int | None, default None): input should be a valid integer"),
        ("deep", 1, "1 does not fit option 'deep' (bool, default False): input should be a valid boolean"),
        (
            "epoch",
            3,
            "it has no option 'epoch'\n  Did you mean 'epochs'? Its options: epochs (int, 5), rate (float, 0.5), mode "
            "('fast' | 'slow', 'fast'), steps (tuple[tuple[int, float], ...], ()), size (int | None, None), deep "
            "(bool, False)",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_what_would(key: str, value: Any, message: str) -> None:
    for function in (separate, bundled):
        assert check_options("it", schema(function), {key: value})[1] == {key: message}


def test_all_faults_of_the_options_are_told_at_once() -> None:
    assert set(check_options("it", schema(separate), {"epochs": "x", "a": 1, "deep": 2, "rate": 1.0})[1]) == {
        "epochs",
        "a",
        "deep",
    }


@pytest.mark.parametrize("function", [separate, bundled])
def test_a_plugin_is_called_with_values_of_its_types(function: Callable[..., Any]) -> None:
    values, _ = check_options("it", schema(function), {"steps": [[3, 1]], "rate": 1})
    arguments = call_arguments(function, values)
    assert set(arguments) == ({"options"} if function is bundled else set(values))
    typed = vars(arguments["options"]) if function is bundled else arguments
    assert typed["steps"] == ((3, 1.0),)
    assert isinstance(typed["rate"], float)
    assert (typed["epochs"], typed["mode"], typed["size"], typed["deep"]) == (5, "fast", None, False)


def grown(model: object, *, epochs: int = 5, mix: Annotated[float, Field(ge=0), ADDED_LATER] = 0.5) -> float:
    return mix


def test_a_plugin_takes_the_default_of_an_option_that_its_record_has_no_word_of() -> None:
    epochs, mix = schema(grown)
    assert (epochs.added_later, mix.added_later, mix.type_name) == (False, True, "float")
    assert grown(None, **call_arguments(grown, {"epochs": 3})) == 0.5
    assert grown(None, **call_arguments(grown, {"epochs": 3, "mix": 1.0})) == 1.0
    with pytest.raises(KeyError):
        call_arguments(grown, {"mix": 1.0})
    assert check_options("it", schema(grown), {"mix": -1.0})[1].keys() == {"mix"}


def no_default(model: object, *, epochs: int) -> None: ...


def no_type(model: object, *, epochs=3) -> None: ...


@dataclass(frozen=True)
class NoDefault:
    epochs: int


@dataclass(frozen=True)
class Factory:
    steps: list[int] = field(default_factory=list)


def bundle_without_default(model: object, *, options: NoDefault) -> None: ...


def bundle_with_factory(model: object, *, options: Factory = Factory()) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_default, f"option 'epochs' of {__name__}:no_default needs a type and a default"),
        (no_type, f"option 'epochs' of {__name__}:no_type needs a type and a default"),
        (bundle_without_default, "option 'epochs' of NoDefault needs a default"),
        (bundle_with_factory, "option 'steps' of Factory needs a default"),
    ],
)
def test_an_option_without_type_or_default_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(PluginError) as caught:
        schema(function)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text", ["f = 3", "from __future__ import annotations\ndef f(model, *, epochs: Missing = 3): ..."]
)
def test_a_plugin_without_a_readable_signature_is_named(search_path: Path, text: str) -> None:
    module = f"unreadable_{len(text)}"
    fake_distribution(search_path, "odd", {"unlearners": {"odd": f"{module}:f"}}, {module: text})
    with pytest.raises(PluginError, match=r"^unlearner 'odd' of odd has no readable signature: "):
        plugin_schema(find("unlearners", "odd"))


def test_a_plugin_without_options_has_an_empty_schema() -> None:
    assert plugin_schema(find("unlearners", "wd")) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_the_source_text_of_every_built_in_plugin_says_what_its_import_does(kind: PluginKind) -> None:
    for plugin in installed(kind):
        assert read_signature(plugin.module, plugin.attribute, EMPTY) is not None, plugin
        # Two pydantic fields with the same meaning are not equal, but their representations are.
        assert repr(plugin_schema(plugin)) == repr(schema(plugin.load())), plugin


def test_checking_options_imports_no_plugin() -> None:
    code = (
        "import sys; from unlearnbench.registry.options import resolve_options; "
        "from unlearnbench.registry.entry_points import find; "
        "print(resolve_options(find('unlearners', 'erwp'), {'epochs': 77})[0]['epochs'], 'torch' in sys.modules)"
    )
    assert python("-c", code).out == "77 False\n"
