"""The number of networks that an unlearner runs: the one it was given, teachers, fresh ones."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


class NetworkCount:
    """Counts the different networks that were called; a part that is called by itself counts as its network."""

    def __init__(self) -> None:
        self.number = 0
        # The references are weak so that counting keeps no network alive; ids would recur once a network is freed.
        self._seen: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._parts: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def add(self, network: nn.Module) -> None:
        """Count a network, unless it was counted before as a whole or in part."""
        if network in self._parts:
            return
        parts = set(network.modules())
        called = [seen for seen in self._seen if seen in parts]
        self.number += 1 - len(called)
        self._seen.difference_update(called)
        self._seen.add(network)
        self._parts.update(parts)


@contextmanager
def networks_that_run(original: nn.Module) -> Iterator[NetworkCount]:
    """Count the networks called within the context, which are outermost modules of about the original's size."""
    count, depth = NetworkCount(), [0]
    smallest = sum(parameter.numel() for parameter in original.parameters()) / 2

    def enter(module: nn.Module, _: Any) -> None:
        if depth[0] == 0 and sum(parameter.numel() for parameter in module.parameters()) > smallest:
            count.add(module)
        depth[0] += 1

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        depth[0] -= 1

    handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True))
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()
