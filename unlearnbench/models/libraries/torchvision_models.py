"""The classifiers of torchvision and their published weights, read from the source text of `torchvision.models`.

Importing torchvision takes seconds, and a manifest is to be checked in less than one.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unlearnbench.models.libraries.published import IMAGENET_MEAN, IMAGENET_STD, PublishedWeights
from unlearnbench.models.libraries.sources import package_file

FAMILY = "torchvision:"
IMAGENET_CLASSES = 1_000
# Each builder of a classifier is registered under its own name.
REGISTERED = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.M)


def networks() -> dict[str, Path]:
    """Return the file that defines each classifier of the installed torchvision, by its name."""
    folder = package_file("torchvision", "models")
    if folder is None:
        return {}
    files = sorted(folder.glob("*.py"))
    return {name: file for file in files for name in REGISTERED.findall(_text(file))}


@functools.cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@functools.cache
def published(network: str) -> dict[str, PublishedWeights]:
    """Return the published weights of a classifier by their names, `DEFAULT` among them; empty if it has none."""
    file = networks().get(network)
    if file is None:
        return {}
    statements = {node.name: node for node in ast.parse(_text(file)).body if isinstance(node, _NAMED)}
    builder = statements[network]
    arguments = builder.args.kwonlyargs if isinstance(builder, ast.FunctionDef) else []
    annotation = next((argument.annotation for argument in arguments if argument.arg == "weights"), None)
    named = [node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)] if annotation else []
    return next((dict(_members(statements[name])) for name in named if name in statements), {})


_NAMED = (ast.FunctionDef, ast.ClassDef)


def _members(enumeration: ast.stmt) -> Iterator[tuple[str, PublishedWeights]]:
    """Yield the members of a class of weights; a member may be another name of one before it."""
    found: dict[str, PublishedWeights] = {}
    for statement in getattr(enumeration, "body", ()):
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            continue
        name, value = statement.targets[0].id, statement.value
        if isinstance(value, ast.Name) and value.id in found:
            found[name] = found[value.id]
        elif isinstance(value, ast.Call) and (weights := _weights(value)) is not None:
            found[name] = weights
        if name in found:
            yield name, found[name]


def _weights(call: ast.Call) -> PublishedWeights | None:
    """Return the facts of one call `Weights(url=..., transforms=partial(..., crop_size=...), meta={...})`.

    None stands for weights without a classifier.
    """
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    url = str(ast.literal_eval(given["url"]))
    facts: dict[str, Any] = {}
    for node in (*ast.walk(given["transforms"]), *ast.walk(given["meta"])):
        pairs: list[tuple[Any, ast.expr]] = []
        if isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Dict):
            pairs = [(k.value, v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)]
        facts.update({key: value.value for key, value in pairs if isinstance(value, ast.Constant)})
        facts.update({key: _numbers(value) for key, value in pairs if key in ("mean", "std")})
    # The names of the classes are a list elsewhere, or None.
    if "categories" in facts:
        return None
    file_name = url.rpartition("/")[2]
    return PublishedWeights(
        url,
        file_name,
        "sha256",
        file_name.removesuffix(".pth").rpartition("-")[2],
        int(facts.get("_file_size", 0) * 2**20),
        IMAGENET_CLASSES,
        facts.get("mean", IMAGENET_MEAN),
        facts.get("std", IMAGENET_STD),
        facts.get("crop_size"),
    )


def _numbers(value: ast.expr) -> tuple[float, ...]:
    """Return the numbers of a list or tuple, which may be written as sums such as `128 / 255`."""
    found: Any = eval(compile(ast.Expression(value), "<torchvision>", "eval"), {"__builtins__": {}})
    return tuple(found)
