"""A model as a graph (torch.fx), and the functions that compute the values of its nodes."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Values = dict[fx.Node, Any]


@dataclass(frozen=True)
class Step:
    """A node's part in a pass.

    Attributes:
        node: Node to compute.
        call: Function that computes its value.
        last_uses: Nodes whose values are not needed afterwards.
    """

    node: fx.Node
    call: Callable[[Values], Any]
    last_uses: tuple[fx.Node, ...]


@dataclass(frozen=True)
class Graph:
    """A model as a graph.

    Attributes:
        nodes: Nodes in the order of a pass, from the images to the logits.
        constants: Tensors that the model's own code creates, by the name that the nodes use.
    """

    nodes: tuple[fx.Node, ...]
    constants: dict[str, Tensor]


class Reader(fx.Tracer):
    """Reads a model as a graph without calling its parts as modules, which would be counted as networks that run."""

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Read on in the code of a part."""
        return super().call_module(m, m.forward, args, kwargs)


def graph_of(model: nn.Module) -> Graph | None:
    """Return a model as a graph, or None if it cannot be read as one or takes more than images."""
    try:
        # The trace works on a copy because a model may store what goes through it, which here are proxies.
        read = copy.deepcopy(model)
        nodes = tuple(Reader().trace(read).nodes)
    # Tracing runs the model's own code on proxies, which support only some of what code can do.
    except Exception:
        return None
    inputs = [str(node.target) for node in nodes if node.op == "placeholder"]
    if len(inputs) != 1 or inputs[0].startswith("*"):
        return None
    return Graph(nodes, {name: value for name, value in vars(read).items() if name.startswith("_tensor_constant")})


class Calls:
    """How the nodes of a model's graph are computed.

    Args:
        model: Model in evaluation mode.
        graph: The model as a graph.

    Attributes:
        folded: For each batch norm that can be folded, the node of the convolution before it and a function for both.
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        nodes = graph.nodes
        self._constants = graph.constants
        self._modules = dict(model.named_modules())
        self._called = {node: self._modules[str(node.target)] for node in nodes if node.op == "call_module"}
        # A parameter is used by each module that holds it and by each node that names it.
        self._users = Counter(value for module in model.modules() for value in module.parameters(recurse=False))
        named = dict(model.named_parameters(remove_duplicate=False))
        self._users.update(named[str(node.target)] for node in nodes if node.op == "get_attr" and node.target in named)
        self._interpreter = fx.Interpreter(model, garbage_collect_values=False, graph=nodes[0].graph)
        self.folded = dict(self._folded())

    def of(self, node: fx.Node) -> Callable[[Values], Any]:
        """Return the function that computes a node's value from those before it."""
        if node.op == "output":
            return first_argument(node)
        if node.op == "get_attr" and node.target in self._constants:
            constant = self._constants[str(node.target)]
            return lambda values: constant
        compute = getattr(self._interpreter, node.op)

        def call(values: Values) -> Any:
            arguments, named = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            return compute(node.target, arguments, named)

        return call

    def only(self, layer: nn.Module) -> fx.Node | None:
        """Return the node that calls a layer, or None if the layer's parameters are used anywhere else."""
        # A hook before the call may compute a weight from a parameter before a look sets the parameter's value.
        alone = not layer._forward_pre_hooks and all(self._users[own] == 1 for own in layer.parameters(recurse=False))
        nodes = [node for node, module in self._called.items() if module is layer]
        # The only argument has to be a tensor, passed by position, because that input is cut into parts.
        plain = len(nodes) == 1 and len(nodes[0].args) == 1 and nodes[0].args == tuple(nodes[0].all_input_nodes)
        return nodes[0] if alone and plain else None

    def _folded(self) -> Iterator[tuple[fx.Node, tuple[fx.Node, Callable[[Values], Any]]]]:
        for node, norm in self._called.items():
            before = node.all_input_nodes[0]
            convolution = self._called.get(before)
            if (
                isinstance(norm, nn.modules.batchnorm._BatchNorm)
                and norm.running_var is not None
                and isinstance(convolution, nn.Conv1d | nn.Conv2d | nn.Conv3d)
                and len(before.users) == 1
            ):
                try:
                    fused = fuse_conv_bn_eval(convolution, norm)
                # Folding fails, for example, if the weight is computed.
                except Exception:
                    continue
                yield node, (before, _applied(fused, before))


def _applied(module: nn.Module, node: fx.Node) -> Callable[[Values], Any]:
    argument = first_argument(node)
    # It is not called as a module because whoever counts the networks that run could take a large layer for one.
    return lambda values: module.forward(argument(values))


def first_argument(node: fx.Node) -> Callable[[Values], Any]:
    """Return the function that gives the value of a node's only argument."""
    (argument,) = node.all_input_nodes
    return lambda values: values[argument]


def steps_of(calls: dict[fx.Node, Callable[[Values], Any]]) -> list[Step]:
    """Return steps in the order of the nodes, each with the values that are not needed after it."""
    last: dict[fx.Node, fx.Node] = {}
    for node in calls:
        last |= dict.fromkeys(node.all_input_nodes, node)
    return [Step(node, call, tuple(used for used, by in last.items() if by is node)) for node, call in calls.items()]
