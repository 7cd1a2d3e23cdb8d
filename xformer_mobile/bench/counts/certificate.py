"""What of an artifact computes in int8, read from the artifact: shares, and the float islands between int8 parts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from xformer_mobile.bench.counts.graph import DEQUANTIZE, QUANTIZE, Graph, Operator, Tensor

__all__ = ["Certificate", "Island", "certify"]

FUSED = {
    "onnx": frozenset(
        {
            "Add",
            "AveragePool",
            "Concat",
            "Conv",
            "Gemm",
            "GlobalAveragePool",
            "MatMul",
            "Mul",
            "Reshape",
            "Resize",
            "Sigmoid",
            "Transpose",
        }
    ),
    "coreml": frozenset({"add", "avg_pool", "conv", "linear", "max_pool"}),
}
FUSED["ort"] = FUSED["onnx"]
"""Formats whose int8 is written as float operators between DEQUANTIZE and QUANTIZE, and those that engines fuse."""

FLOAT_RESULTS = frozenset({"coreml"})
"""Formats in which an int8 operator's result may be float: SiLU follows it, and rounding follows that."""

MAX_ISLANDS = 100
"""So many are listed by name."""


@dataclass(frozen=True)
class Island:
    """Connected float operators: how many, their multiply-accumulates, of which kinds, the first one's name."""

    ops: int
    macs: int
    kinds: dict[str, int]
    first: str

    def as_json(self) -> dict[str, Any]:
        return {"ops": self.ops, "macs": self.macs, "kinds": self.kinds, "first": self.first}


@dataclass(frozen=True)
class Certificate:
    """Of each pair, what is in int8 and what there is of it.

    ``ops`` are those that compute or move data, without QUANTIZE and DEQUANTIZE; ``moved_bytes`` what they read and
    write; ``weights`` the values of constants that are stored in int8 or in floating point.
    """

    macs: tuple[int, int]
    ops: tuple[int, int]
    moved_bytes: tuple[int, int]
    weights: tuple[int, int]
    qdq_pairs: int
    islands: tuple[Island, ...]

    def share(self, name: str) -> float:
        """int8's share, 0..1, of ``macs``, ``ops``, ``moved_bytes`` or ``weights``; 0 of nothing."""
        inside, whole = getattr(self, name)
        return inside / whole if whole else 0.0

    def as_json(self) -> dict[str, Any]:
        """As a manifest has it."""
        pairs = {
            name: {"int8": getattr(self, name)[0], "all": getattr(self, name)[1], "share": round(self.share(name), 6)}
            for name in ("macs", "ops", "moved_bytes", "weights")
        }
        return {
            **pairs,
            "qdq_pairs": self.qdq_pairs,
            "float_islands": [island.as_json() for island in self.islands[:MAX_ISLANDS]],
            "float_island_count": len(self.islands),
        }


def certify(graph: Graph, format: str) -> Certificate:
    """Read what computes in int8 from an artifact's graph.

    An operator does where every value that it reads and writes is an 8-bit integer. In ONNX and Core ML, where a float
    operator between DEQUANTIZE and QUANTIZE stands for an int8 one, it does if it is of a kind that engines fuse; in
    Core ML also where its result stays float. Which of them Apple's engines compute in int8, only a device can tell.
    """
    fused = FUSED.get(format, frozenset())
    unpacked = {name for name, _ in _results(graph.operators, DEQUANTIZE)}
    readers: dict[str, list[str]] = {}
    for operator in graph.operators:
        for name, _ in operator.inputs:
            readers.setdefault(name, []).append(operator.kind)

    def is_int8_value(name: str, tensor: Tensor) -> bool:
        return not tensor.is_float and tensor.bits == 8

    def is_int8(operator: Operator) -> bool:
        folds = operator.kind in fused
        read = [
            is_int8_value(name, tensor) or (folds and name in unpacked)
            for name, tensor in operator.inputs
            if not tensor.is_constant
        ]
        written = [
            is_int8_value(name, tensor)
            or (folds and format in FLOAT_RESULTS)
            or (folds and bool(readers.get(name)) and all(kind in QUANTIZE for kind in readers[name]))
            for name, tensor in operator.outputs
        ]
        return bool(read) and bool(written) and all(read) and all(written)

    borders = QUANTIZE | DEQUANTIZE
    computing = [operator for operator in graph.operators if operator.kind not in borders]
    inside = [is_int8(operator) for operator in computing]
    counted = Counter(operator.kind in QUANTIZE for operator in graph.operators if operator.kind in borders)

    def pair(values: Iterable[int]) -> tuple[int, int]:
        listed = list(values)
        return sum(value for value, int8 in zip(listed, inside, strict=True) if int8), sum(listed)

    outside = [operator for operator, int8 in zip(computing, inside, strict=True) if not int8]
    macs = pair(operator.macs for operator in computing)
    return Certificate(
        macs=macs,
        ops=(sum(inside), len(computing)),
        moved_bytes=pair(operator.moved_bytes for operator in computing),
        weights=_weights(graph),
        qdq_pairs=min(counted[True], counted[False]),
        islands=tuple(_islands(outside)) if macs[0] else (),
    )


def _results(operators: Iterable[Operator], kinds: frozenset[str]) -> Iterator[tuple[str, Tensor]]:
    for operator in operators:
        if operator.kind in kinds:
            yield from operator.outputs


def _weights(graph: Graph) -> tuple[int, int]:
    """How many values of the constants are stored in 8 bits, and how many in them or in floating point."""
    constants = {name: tensor for operator in graph.operators for name, tensor in operator.inputs if tensor.is_constant}
    packed = sum(_size(tensor) for tensor in constants.values() if not tensor.is_float and tensor.bits == 8)
    return packed, packed + sum(_size(tensor) for tensor in constants.values() if tensor.is_float)


def _size(tensor: Tensor) -> int:
    return math.prod(tensor.shape)


def _islands(operators: list[Operator]) -> Iterator[Island]:
    """Operators that are connected by values that are no constants, in the graph's order."""
    parent = list(range(len(operators)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    made_by = {name: index for index, operator in enumerate(operators) for name, _ in operator.outputs}
    for index, operator in enumerate(operators):
        for name, tensor in operator.inputs:
            source = made_by.get(name)
            if source is not None and not tensor.is_constant:
                first, second = sorted((root(index), root(source)))
                parent[second] = first
    groups: dict[int, list[Operator]] = {}
    for index, operator in enumerate(operators):
        groups.setdefault(root(index), []).append(operator)
    for group in groups.values():
        kinds = Counter(operator.kind for operator in group)
        yield Island(len(group), sum(operator.macs for operator in group), dict(sorted(kinds.items())), group[0].name)
