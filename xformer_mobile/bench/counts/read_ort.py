"""The graph of a .ort file: ONNX's nodes in a FlatBuffers file. Reading it needs no package.

The numbers are those of the fields in ONNX Runtime's ``ort.fbs``.
"""

from __future__ import annotations

from pathlib import Path

from xformer_mobile.bench.counts.flatbuffer import Table, read_root
from xformer_mobile.bench.counts.graph import Graph, Tensor
from xformer_mobile.bench.counts.read_onnx import Node, build_graph, make_tensor

__all__ = ["read"]

IDENTIFIER = b"ORTM"

MODEL = 1  # of an InferenceSession
GRAPH = 7  # of a Model
INITIALIZERS, NODE_ARGS, NODES = 0, 1, 2  # of a Graph
DIMS, DATA_TYPE = 2, 3  # of a Tensor, whose name is field 0
VALUE_TYPE, VALUE = 1, 2  # of a TypeInfo
IS_TENSOR = 1
IS_STATIC = 1
NAME, OP_TYPE, INPUTS, OUTPUTS, ATTRIBUTES = 0, 5, 8, 9, 10  # of a Node
INTEGER = 4  # of an Attribute, whose name is field 0


def read(path: Path) -> Graph:
    """Read a .ort file, whose shapes are static.

    Raises:
        ValueError: no .ort file, a truncated one, or one without static shapes.
    """
    model = read_root(path.read_bytes(), IDENTIFIER).table(MODEL)
    graph = None if model is None else model.table(GRAPH)
    if graph is None:
        raise ValueError("it has no graph")
    tensors = {
        constant.text(0): make_tensor(constant.numbers(DIMS, "q"), constant.scalar(DATA_TYPE, "i"), is_constant=True)
        for constant in graph.tables(INITIALIZERS)
    }
    for value in graph.tables(NODE_ARGS):
        found = _tensor(value)
        if found is not None:
            tensors.setdefault(value.text(0), found)
    nodes = [
        Node(
            node.text(OP_TYPE),
            node.texts(INPUTS),
            node.texts(OUTPUTS),
            {attribute.text(0): attribute.scalar(INTEGER, "q") for attribute in node.tables(ATTRIBUTES)},
            node.text(NAME),
        )
        for node in graph.tables(NODES)
    ]
    return build_graph(nodes, tensors)


def _tensor(value: Table) -> Tensor | None:
    """What a ValueInfo says; None for what is no tensor of a known shape."""
    info = value.table(2)
    if info is None or info.scalar(VALUE_TYPE, "B") != IS_TENSOR:
        return None
    kind = info.table(VALUE)
    shape = None if kind is None else kind.table(1)
    if kind is None or shape is None:
        return None
    sides = []
    for dimension in shape.tables(0):
        side = dimension.table(0)
        if side is None or side.scalar(0, "b") != IS_STATIC:
            return None
        sides.append(side.scalar(1, "q"))
    return make_tensor(tuple(sides), kind.scalar(0, "i"))
