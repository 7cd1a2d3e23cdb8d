"""The graph of an artifact of any format, and where in it each module of the exported form begins and ends."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from xformer_mobile.preprocess import ByteImage

__all__ = [
    "ArtifactLayers",
    "Boundary",
    "FloatArray",
    "Graph",
    "Operator",
    "boundaries",
    "holds_picture",
    "is_within",
    "keeps_values",
]

FloatArray = npt.NDArray[np.float32]

VALUE_KEEPING = frozenset(
    {"cast", "dequantize", "dequantizelinear", "expanddims", "identity", "quantize", "quantizelinear"}
    | {"reshape", "squeeze", "transpose", "unsqueeze"}
)
"""Kinds of op, in any format's spelling, whose output has the values of their input: in another type or order."""


@dataclass(frozen=True)
class Operator:
    """One op of an artifact's graph.

    ``scope`` is the dotted path of the exported form's module that it comes from ("" for the root, and for an op that
    no module asked for), ``kind`` the format's own name of the op. ``inputs`` and ``outputs`` are names of tensors
    that are computed at run time: constants are not among them.
    """

    scope: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """An artifact's graph, its operators in an order in which they can be run.

    ``inputs`` and ``outputs`` are names of tensors. ``steps`` has the quantization step (scale) of each tensor that is
    held in integers, in the unit of its values; ``ranges`` the lowest and the highest value that such a tensor can
    hold, where that is known.
    """

    operators: tuple[Operator, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class ArtifactLayers(Protocol):
    """An artifact whose intermediate tensors can be read; one class for each format."""

    @property
    def graph(self) -> Graph:
        """The artifact's graph."""

    def values(self, image: ByteImage, names: Collection[str]) -> dict[str, FloatArray]:
        """The values of tensors for one picture.

        Args:
            image: RGB bytes, uint8 (1, H, W, 3).
            names: tensors of the graph.

        Returns:
            By name: float32, dequantized where the tensor is held in integers, in the artifact's own layout.
        """


@dataclass(frozen=True)
class Boundary:
    """Where in an artifact's graph the module at ``path`` begins and ends: the tensors that it reads and gives.

    ``input`` is None where the module reads several.
    """

    path: str
    input: str | None
    output: str


def keeps_values(kind: str) -> bool:
    """Whether an op of a kind, in any format's spelling, only changes the type, the layout or the shape."""
    return kind.lower().replace("_", "") in VALUE_KEEPING


def is_within(scope: str, path: str) -> bool:
    """Whether a dotted path is that of the module at ``path`` or of one of its parts."""
    return scope == path or path == "" or scope.startswith(f"{path}.")


def boundaries(graph: Graph) -> list[Boundary]:
    """The modules that give one tensor, in the order in which these are computed; parts before the whole.

    An op without a scope that keeps its input's values (a change of type or layout, quantizing, dequantizing) is part
    of the module that makes them, so that what a module gives is what the next one reads. Tensors that hold the same
    values but for that are one; of those that cross a module's border the last to be computed stands for all. A
    module that gives several is left out, its parts need not be. The root is left out too.
    """
    scopes, source = _owners(graph)
    order = {name: index for index, operator in enumerate(graph.operators) for name in operator.outputs}
    readers: dict[str, set[int]] = {}
    for index, operator in enumerate(graph.operators):
        for name in operator.inputs:
            readers.setdefault(name, set()).add(index)

    members: dict[str, set[int]] = {}
    for index, scope in enumerate(scopes):
        for path in _prefixes(scope):
            members.setdefault(path, set()).add(index)

    found = []
    for path, own in members.items():
        made = {name for index in own for name in graph.operators[index].outputs}
        read = {name for index in own for name in graph.operators[index].inputs} - made
        given = {name for name in made if name in graph.outputs or readers.get(name, set()) - own}
        if len({source[name] for name in given}) != 1:
            continue
        start = _last(read, order) if len({source[name] for name in read}) == 1 else None
        found.append(Boundary(path, start, _last(given, order)))
    return sorted(found, key=lambda boundary: (order[boundary.output], -boundary.path.count("."), boundary.path))


def holds_picture(graph: Graph) -> set[str]:
    """The tensors that hold the picture's own bytes, in any type and layout."""
    found = set(graph.inputs)
    for operator in graph.operators:
        if keeps_values(operator.kind) and len(operator.inputs) == 1 and operator.inputs[0] in found:
            found.update(operator.outputs)
    return found


def _owners(graph: Graph) -> tuple[list[str], dict[str, str]]:
    """Each operator's scope, and for each tensor the first one that has the same values."""
    scope_of: dict[str, str] = {}
    source = {name: name for name in graph.inputs}
    scopes = []
    for operator in graph.operators:
        scope = operator.scope
        inserted = scope == "" and keeps_values(operator.kind) and len(operator.inputs) == 1
        if inserted:
            scope = scope_of.get(operator.inputs[0], "")
        scopes.append(scope)
        for name in operator.inputs:
            source.setdefault(name, name)
        for name in operator.outputs:
            scope_of[name] = scope
            source[name] = source[operator.inputs[0]] if inserted else name
    return scopes, source


def _last(names: Collection[str], order: Mapping[str, int]) -> str:
    """The tensor that is computed last; the graph's own inputs are before all."""
    return max(sorted(names), key=lambda name: order.get(name, -1))


def _prefixes(scope: str) -> Iterator[str]:
    """The path of a module and of all modules that it is in, but for the root: ``a.b`` -> ``a``, ``a.b``."""
    parts = scope.split(".") if scope else []
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])
