"""The graph of a .onnx file, and what .onnx and .ort files share: their operators' MACs and element types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xformer_mobile.bench.counts.graph import (
    Graph,
    Operator,
    Tensor,
    convolution_macs,
    matmul_macs,
    transposed_convolution_macs,
)
from xformer_mobile.optional import require

__all__ = ["Node", "build_graph", "make_tensor", "read"]

BITS = {
    1: 32,  # float
    2: 8,
    3: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    9: 8,  # bool
    10: 16,  # float16
    11: 64,
    12: 32,
    13: 64,
    14: 64,
    15: 128,
    16: 16,  # bfloat16
    17: 8,
    18: 8,
    19: 8,
    20: 8,
    21: 4,
    22: 4,
    23: 4,
}
"""Bits of an element by TensorProto.DataType, whose numbers .ort files have too. Strings (8) have none."""

FLOATS = frozenset({1, 10, 11, 16})
"""The floating-point ones among them."""

CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Each kind of convolution, and which of its inputs is the kernel, (output channels, input channels, sides)."""

MATMULS = ("MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "FusedGemm", "QGemm")

CONSTANT = "Constant"


@dataclass(frozen=True)
class Node:
    """A node: inputs and outputs by name, empty where they are left out, and its attributes that are integers."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    integers: Mapping[str, int] = field(default_factory=dict)
    name: str = ""


def read(path: Path) -> Graph:
    """Read a .onnx file, whose shapes are static.

    Raises:
        MissingDependencyError: onnx is not installed.
        ValueError: no model, or its shapes can't be inferred.
    """
    onnx = require("onnx", extra="onnx")
    try:
        graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise ValueError(" ".join(str(error).split())[:200]) from error
    stored = [*graph.initializer]
    for node in graph.node:
        if node.op_type == CONSTANT:
            (value,) = (attribute.t for attribute in node.attribute if attribute.name == "value")
            stored.append(onnx.TensorProto(name=node.output[0], dims=value.dims, data_type=value.data_type))
    tensors = {tensor.name: make_tensor(tuple(tensor.dims), tensor.data_type, is_constant=True) for tensor in stored}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        shape = tuple(side.dim_value for side in kind.shape.dim)
        tensors.setdefault(value.name, make_tensor(shape, kind.elem_type))
    nodes = [
        Node(node.op_type, node.input, node.output, _integers(node), node.name)
        for node in graph.node
        if node.op_type != CONSTANT
    ]
    return build_graph(nodes, tensors)


def make_tensor(shape: tuple[int, ...], data_type: int, *, is_constant: bool = False) -> Tensor:
    """A value by the number of its element type."""
    return Tensor(shape, BITS.get(data_type, 0), is_constant, data_type in FLOATS)


def _integers(node: Any) -> dict[str, int]:
    return {attribute.name: attribute.i for attribute in node.attribute}


def build_graph(nodes: Iterable[Node], tensors: Mapping[str, Tensor]) -> Graph:
    """The graph of ONNX nodes and of all their values by name.

    Raises:
        ValueError: the shape of a value that MACs depend on is not known.
    """
    operators = []
    for node in nodes:
        inputs, outputs = (
            tuple((name, tensors[name]) for name in names if name in tensors) for names in (node.inputs, node.outputs)
        )
        operators.append(Operator(node.kind, _macs(node, tensors), inputs, outputs, node.name))
    weights = sum(tensor.size_bytes for tensor in tensors.values() if tensor.is_constant)
    return Graph(tuple(operators), weights)


def _macs(node: Node, tensors: Mapping[str, Tensor]) -> int:
    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise ValueError(f"the shape of {name[:80]!r} is not known")
        return tensors[name].shape

    if node.kind in CONVOLUTIONS:
        return convolution_macs(shape(node.outputs[0]), shape(node.inputs[CONVOLUTIONS[node.kind]])[1:])
    if node.kind == "ConvTranspose":
        return transposed_convolution_macs(shape(node.inputs[0]), shape(node.inputs[1])[1:])
    if node.kind in MATMULS:
        first = shape(node.inputs[0])
        return matmul_macs(
            shape(node.outputs[0]), first[0 if len(first) == 1 else -2 if node.integers.get("transA") else -1]
        )
    return 0
