"""What all formats' graphs are counted as: operators with the bytes that they read and write and their MACs.

The definitions, the same for every format:

- MACs: multiply-accumulates of convolutions (the padding's included), matmuls and fully connected layers, the batch's
  included. Nothing else has any.
- Bytes moved: what each operator reads and writes, constants included, one operator after the other and each operand
  as often as it stands there: without fusion, and reshapes copy.
- Operators are those that run; what only holds or unpacks a constant is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "DEQUANTIZE",
    "QUANTIZE",
    "TRANSPOSES",
    "Graph",
    "Operator",
    "Tensor",
    "attention_macs",
    "convolution_macs",
    "count_kinds",
    "matmul_macs",
    "transposed_convolution_macs",
]

Shape = Sequence[int]

TRANSPOSES = frozenset(
    {"Transpose", "TRANSPOSE", "transpose", "aten.permute_copy", "aten::permute_copy", "XNNStaticTranspose"}
)
"""The operators that only move data into another order, of all formats."""

QUANTIZE = frozenset({"QuantizeLinear", "QUANTIZE", "quantize", "quantized_decomposed::quantize_per_tensor"})
DEQUANTIZE = frozenset({"DequantizeLinear", "DEQUANTIZE", "dequantize", "quantized_decomposed::dequantize_per_tensor"})


@dataclass(frozen=True)
class Tensor:
    """A value of a graph: its shape, the bits of an element, whether it is a constant and whether floating point."""

    shape: tuple[int, ...]
    bits: int
    is_constant: bool = False
    is_float: bool = False

    @property
    def size_bytes(self) -> int:
        """Packed, and a whole number of bytes."""
        return (math.prod(self.shape) * self.bits + 7) // 8


@dataclass(frozen=True)
class Operator:
    """One operator: its kind in its format, its multiply-accumulates, and what it reads and writes.

    ``inputs`` and ``outputs`` are values by an identifier that is the graph's own; ``name`` is for people.
    """

    kind: str
    macs: int = 0
    inputs: tuple[tuple[str, Tensor], ...] = ()
    outputs: tuple[tuple[str, Tensor], ...] = ()
    name: str = ""

    @property
    def moved_bytes(self) -> int:
        """The bytes that it reads and writes."""
        return sum(tensor.size_bytes for _, tensor in (*self.inputs, *self.outputs))


@dataclass(frozen=True)
class Graph:
    """An artifact's operators and constants.

    ``partitions`` is how many parts a delegate takes, and ``undelegated`` how many operators are in none; None where
    the format has no delegate, or where that can't be told.
    """

    operators: tuple[Operator, ...]
    weights_bytes: int
    partitions: int | None = None
    undelegated: int | None = None

    def counts(self) -> dict[str, int]:
        """By the names of :data:`xformer_mobile.bench.counts.COUNTS`."""
        kinds: dict[str, int] = {}
        for operator in self.operators:
            kinds[operator.kind] = kinds.get(operator.kind, 0) + 1
        found = {
            **count_kinds(kinds),
            "macs": sum(operator.macs for operator in self.operators),
            "weights-bytes": self.weights_bytes,
            "bytes-moved": sum(operator.moved_bytes for operator in self.operators),
        }
        if self.partitions is not None:
            found["partitions"] = self.partitions
        if self.undelegated is not None:
            found["undelegated-ops"] = self.undelegated
        return found


def count_kinds(kinds: Mapping[str, int]) -> dict[str, int]:
    """The counts that need no more than how often each kind of operator occurs; none of no operators."""
    if not kinds:
        return {}
    quantize, dequantize = (sum(kinds.get(name, 0) for name in names) for names in (QUANTIZE, DEQUANTIZE))
    return {
        "ops": sum(kinds.values()),
        "transposes": sum(kinds.get(name, 0) for name in TRANSPOSES),
        "qdq-pairs": min(quantize, dequantize),
    }


# ---- multiply-accumulates -----------------------------------------------------------------------------------


def convolution_macs(output: Shape, kernel: Shape) -> int:
    """Of a convolution: each value of ``output`` takes a kernel of ``kernel``: input channels of a group, sides."""
    return math.prod(output) * math.prod(kernel)


def transposed_convolution_macs(source: Shape, kernel: Shape) -> int:
    """Of a transposed convolution: each value of ``source`` goes to output channels of a group, sides."""
    return math.prod(source) * math.prod(kernel)


def matmul_macs(output: Shape, inner: int) -> int:
    """Of a matmul or a fully connected layer: each value of ``output`` is a sum of ``inner`` products."""
    return math.prod(output) * inner


def attention_macs(query: Shape, key: Shape, value: Shape) -> int:
    """Of scaled dot-product attention, (..., T, d) with (..., S, d) and (..., S, e): its two matmuls."""
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
