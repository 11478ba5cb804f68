"""What counts as a layer to ERwP's search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SearchedLayer:
    """A parameter tensor that the search takes as a layer, or a part of one.

    Attributes:
        parameter: Name of the tensor.
        value: The tensor.
        positions: (n,) int64, flat positions of the part; None for the whole tensor.
    """

    parameter: str
    value: nn.Parameter
    positions: Tensor | None = None

    @property
    def owner(self) -> str:
        """Name of the module that holds the tensor."""
        return self.parameter.rpartition(".")[0]

    def order(self, gradient: Tensor) -> Tensor:
        """Return the layer's flat positions in its tensor, (n,) int64, those with the largest gradients first."""
        sizes = gradient.flatten().abs()
        if self.positions is None:
            return sizes.sort(descending=True, stable=True).indices
        return self.positions[sizes[self.positions].sort(descending=True, stable=True).indices]


def searched_layers(model: nn.Module, layers: Literal["weights", "all"]) -> dict[str, SearchedLayer]:
    """Return what counts as a layer, by name.

    Attention that holds the weights of queries, keys and values in one tensor is three layers. A weight that is
    computed, as under weight or spectral norm, is the parameter of its size that it is computed from.
    """
    found: dict[str, SearchedLayer] = {}
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        if layers == "weights" and isinstance(owner, nn.MultiheadAttention) and name.endswith("in_proj_weight"):
            parts = torch.arange(parameter.numel(), device=parameter.device).chunk(3)
            for what, positions in zip(("queries", "keys", "values"), parts, strict=True):
                found[f"{name}[{what}]"] = SearchedLayer(name, parameter, positions)
        elif layers == "all" or _is_weight(model, name, parameter):
            found[name] = SearchedLayer(name, parameter)
    return found


def searched_parameters(model: nn.Module, layers: Literal["weights", "all"]) -> dict[str, nn.Parameter]:
    """Return the parameter tensors of the layers that are searched, by name."""
    return {layer.parameter: layer.value for layer in searched_layers(model, layers).values()}


def _is_weight(model: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Return whether a parameter is the weight of a convolution, a linear layer or attention, or gives that weight."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path.removesuffix(".parametrizations.weight"))
    if isinstance(owner, nn.MultiheadAttention):
        return leaf.endswith("_weight")
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    computed = path.endswith(".parametrizations.weight") or leaf.startswith("weight_")
    return isinstance(owner, kinds) and (leaf == "weight" or (computed and parameter.numel() == owner.weight.numel()))
