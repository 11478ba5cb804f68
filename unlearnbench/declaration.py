"""What an unlearner declares about itself for the conformance check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])
Behaviour = Literal["forgets", "retains"]

EXEMPTIONS = "__unlearnbench_exemptions__"
CHECK_OPTIONS = "__unlearnbench_check_options__"


def declare(
    *, exempt: Mapping[Behaviour, str] | None = None, check_options: Mapping[str, Any] | None = None
) -> Callable[[Function], Function]:
    """Return a decorator for an unlearner that behaves in a way the conformance check has to know.

    Args:
        exempt: For each behaviour that the method does not promise, the reason: `forgets` (forget accuracy
            falls) or `retains` (retain accuracy holds).
        check_options: Options with which it shows its behaviour on the check's small problem, where the
            defaults are made for larger ones.
    """

    def mark(function: Function) -> Function:
        setattr(function, EXEMPTIONS, dict(exempt or {}))
        setattr(function, CHECK_OPTIONS, dict(check_options or {}))
        return function

    return mark
