"""The graph of a .tflite file, and what XNNPACK takes of it."""

from __future__ import annotations

from collections import Counter
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
from xformer_mobile.chatter import silenced
from xformer_mobile.optional import require

__all__ = ["count_partitions", "read"]

IDENTIFIER = b"TFL3"

BITS = {
    "FLOAT32": 32,
    "FLOAT16": 16,
    "BFLOAT16": 16,
    "FLOAT64": 64,
    "INT2": 2,
    "INT4": 4,
    "UINT4": 4,
    "INT8": 8,
    "UINT8": 8,
    "BOOL": 8,
    "INT16": 16,
    "UINT16": 16,
    "INT32": 32,
    "UINT32": 32,
    "INT64": 64,
    "UINT64": 64,
    "COMPLEX64": 64,
    "COMPLEX128": 128,
}
"""Bits of an element. What is not here (strings, resources) has none."""


def read(path: Path) -> Graph:
    """Read a .tflite file of one subgraph, whose shapes are static.

    Raises:
        MissingDependencyError: ai-edge-litert is not installed.
        ValueError: no model, or one of another form.
    """
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    content = path.read_bytes()
    if content[4:8] != IDENTIFIER:
        raise ValueError("it is not a .tflite file")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    except Exception as error:  # flatbuffers raises whatever Python does on a wrong offset
        raise ValueError("it is truncated or foreign") from error
    if len(model.subgraphs or ()) != 1:
        raise ValueError(f"it has {len(model.subgraphs or ())} subgraphs; one is counted")
    graph = model.subgraphs[0]
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    types = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}

    def tensor(index: int) -> Tensor | None:
        if index < 0:  # left out
            return None
        found = graph.tensors[index]
        shape = () if found.shape is None else tuple(map(int, found.shape))
        kind = types.get(found.type, "")
        return Tensor(shape, BITS.get(kind, 0), model.buffers[found.buffer].data is not None, "FLOAT" in kind)

    operators: list[Operator] = []
    constants: dict[int, int] = {}
    for operator in graph.operators or ():
        code = model.operatorCodes[operator.opcodeIndex]
        inputs, outputs = (
            [] if indices is None else [(str(index), tensor(int(index))) for index in indices]
            for indices in (operator.inputs, operator.outputs)
        )
        for index, found in (*inputs, *outputs):
            if found is not None and found.is_constant:
                buffer = graph.tensors[int(index)].buffer  # tensors of one content share it
                constants[buffer] = len(model.buffers[buffer].data)
        kind = f"custom {code.customCode.decode()}" if code.customCode else names.get(code.builtinCode, "unknown")
        operators.append(
            Operator(
                kind,
                _macs(kind, [found for _, found in inputs], [found for _, found in outputs], operator),
                tuple((index, found) for index, found in inputs if found is not None),
                tuple((index, found) for index, found in outputs if found is not None),
                _name(graph.tensors[int(outputs[0][0])]) if outputs else "",
            )
        )
    partitions, outside = count_partitions(_interpreter(content))
    return Graph(tuple(operators), sum(constants.values()), partitions, sum(outside.values()))


def _name(tensor: Any) -> str:
    return bytes(tensor.name or b"").decode()


def _macs(kind: str, inputs: list[Tensor | None], outputs: list[Tensor | None], operator: Any) -> int:
    """Kernels are (output channels, height, width, input channels), (1, height, width, channels) for depthwise."""
    shapes = [() if found is None else found.shape for found in inputs]
    made = () if not outputs or outputs[0] is None else outputs[0].shape
    if kind == "CONV_2D":
        return convolution_macs(made, shapes[1][1:])
    if kind == "DEPTHWISE_CONV_2D":
        return convolution_macs(made, shapes[1][1:3])
    if kind == "TRANSPOSE_CONV":  # output's shape, kernel, source
        return transposed_convolution_macs(shapes[2], shapes[1][:3])
    if kind == "FULLY_CONNECTED":
        return matmul_macs(made, shapes[1][-1])
    if kind == "BATCH_MATMUL":
        options = operator.builtinOptions
        return matmul_macs(made, shapes[0][-2 if options is not None and options.adjX else -1])
    return 0


def _interpreter(content: bytes) -> Any:
    litert = require("ai_edge_litert.interpreter", extra="tflite")
    try:
        with silenced():  # it names its delegate
            interpreter = litert.Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"LiteRT refuses it: {' '.join(str(error).split())[:200]}") from error
    return interpreter


def count_partitions(interpreter: Any) -> tuple[int, Counter[str]]:
    """How many partitions XNNPACK took of an interpreter's graph, and the ops that it left, by name.

    The interpreter lists the graph's own ops, and after them one DELEGATE for each partition. What a partition
    computes is inside: from its outputs back to its inputs.
    """
    ops = interpreter._get_ops_details()
    made_by = {int(tensor): op for op in ops if op["op_name"] != "DELEGATE" for tensor in op["outputs"]}
    partitions = [op for op in ops if op["op_name"] == "DELEGATE"]
    inside: set[int] = set()
    for partition in partitions:
        borders = {int(tensor) for tensor in partition["inputs"]}
        waiting = [int(tensor) for tensor in partition["outputs"]]
        while waiting:
            tensor = waiting.pop()
            op = None if tensor in borders else made_by.get(tensor)
            if op is not None and op["index"] not in inside:
                inside.add(op["index"])
                waiting += [int(source) for source in op["inputs"]]
    left = (op["op_name"] for op in ops if op["op_name"] != "DELEGATE" and op["index"] not in inside)
    return len(partitions), Counter(left)
