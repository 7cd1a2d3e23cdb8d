"""The graph of a Core ML package: the ops of its program, in the package's own protocol buffers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from xformer_mobile.bench.counts.graph import (
    Graph,
    Operator,
    Tensor,
    attention_macs,
    convolution_macs,
    matmul_macs,
    transposed_convolution_macs,
)
from xformer_mobile.optional import import_coremltools
from xformer_mobile.runners.mlpackage import read_package

__all__ = ["read"]

CONSTANT = "const"
CONSTEXPR = "constexpr_"
"""Ops whose result is a constant: they unpack what is stored quantized, sparse or in a table."""


def read(path: Path) -> Graph:
    """Read a package whose model is an ML program of one function, whose shapes are static.

    A constant is what is stored in the weights' file, and any number that is not an integer: strides, axes and shapes
    are attributes of an op, as in the other formats.

    Raises:
        MissingDependencyError: coremltools is not installed.
        BundleError: no package, or one that is broken.
        ValueError: its model is of another form.
    """
    spec, _ = read_package(path, import_coremltools())
    if spec.WhichOneof("Type") != "mlProgram" or len(spec.mlProgram.functions) != 1:
        raise ValueError("its model is not an ML program of one function")
    (function,) = spec.mlProgram.functions.values()
    if function.opset not in function.block_specializations:
        raise ValueError(f"it has no program for its opset {function.opset[:40]}")
    tensors = {value.name: _typed(value.type) for value in function.inputs}
    flags: dict[str, bool] = {}
    operators, weights = [], 0
    for operation in _operations(function.block_specializations[function.opset]):
        if operation.type == CONSTANT:
            name, value = operation.outputs[0].name, operation.attributes["val"]
            weights += _stored_bytes(value)
            if _is_data(value):
                tensors[name] = _typed(value.type, is_constant=True)
            elif value.immediateValue.tensor.bools.values:
                flags[name] = value.immediateValue.tensor.bools.values[0]
            continue
        is_constant = operation.type.startswith(CONSTEXPR)
        for made in operation.outputs:
            tensors[made.name] = _typed(made.type, is_constant=is_constant)
        if is_constant:
            packed = [value for value in _values(operation) if _is_data(value)]
            weights += sum(_stored_bytes(value) for value in packed)
            stored = [_typed(value.type) for value in packed]
            bits = max(stored, key=lambda tensor: math.prod(tensor.shape)).bits if stored else 0
            if bits == 8:  # consumers read what is stored
                (made,) = operation.outputs
                tensors[made.name] = replace(tensors[made.name], bits=bits, is_float=False)
        else:
            operators.append(_operator(operation, tensors, flags))
    return Graph(tuple(operators), weights)


def _values(operation: Any) -> Iterator[Any]:
    """What an op has with it: up to iOS 17 as attributes, from iOS 18 on as operands."""
    yield from operation.attributes.values()
    for argument in operation.inputs.values():
        yield from (binding.value for binding in argument.arguments if not binding.name)


def _operations(block: Any) -> Iterator[Any]:
    """The ops, those of nested blocks after the op that has them."""
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _operations(nested)


def _typed(type_: Any, *, is_constant: bool = False) -> Tensor:
    """A value by its type; what is no tensor (a classifier's dictionary) has no size."""
    if type_.WhichOneof("type") != "tensorType":
        return Tensor((), 0, is_constant)
    tensor = type_.tensorType
    shape: list[int] = []
    for side in tensor.dimensions:
        if side.WhichOneof("dimension") != "constant":
            raise ValueError("its program has a flexible shape")
        shape.append(int(side.constant.size))
    name = type(tensor).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[tensor.dataType].name
    digits = re.search(r"\d+", name)  # FLOAT16, INT8, UINT4
    bits = 8 if name == "BOOL" else int(digits[0]) if digits else 0
    return Tensor(tuple(shape), bits, is_constant, "FLOAT" in name)


def _is_data(value: Any) -> bool:
    """Whether a constant is an operand and no attribute: a number that is not an integer, or in the weights' file."""
    kind = value.WhichOneof("value")
    if kind == "blobFileValue":
        return True
    return kind == "immediateValue" and value.immediateValue.tensor.WhichOneof("value") in (
        "floats",
        "doubles",
        "bytes",
    )


def _stored_bytes(value: Any) -> int:
    return _typed(value.type).size_bytes if _is_data(value) else 0


def _operator(operation: Any, tensors: Mapping[str, Tensor], flags: Mapping[str, bool]) -> Operator:
    read = [binding.name for argument in operation.inputs.values() for binding in argument.arguments]
    inputs, outputs = (
        # What is not there is an attribute.
        tuple((name, tensors[name]) for name in names if name in tensors)
        for names in (read, [made.name for made in operation.outputs])
    )
    return Operator(operation.type, _macs(operation, tensors, flags), inputs, outputs, operation.outputs[0].name)


def _macs(operation: Any, tensors: Mapping[str, Tensor], flags: Mapping[str, bool]) -> int:
    def shape(parameter: str) -> tuple[int, ...]:
        name = operation.inputs[parameter].arguments[0].name
        if name not in tensors:
            raise ValueError(f"the {parameter} of {operation.outputs[0].name[:80]!r} is not known")
        return tensors[name].shape

    def flag(parameter: str) -> bool:
        arguments: Any = operation.inputs[parameter].arguments if parameter in operation.inputs else ()
        return bool(arguments) and flags.get(arguments[0].name, False)

    kind: str = operation.type
    made = tensors[operation.outputs[0].name].shape
    if kind == "conv":  # weight: (output channels, input channels of a group, sides)
        return convolution_macs(made, shape("weight")[1:])
    if kind == "conv_transpose":  # weight: (input channels, output channels of a group, sides)
        return transposed_convolution_macs(shape("x"), shape("weight")[1:])
    if kind == "linear":
        return matmul_macs(made, shape("x")[-1])
    if kind == "matmul":
        return matmul_macs(made, shape("x")[-2 if flag("transpose_x") else -1])
    if kind == "scaled_dot_product_attention":
        return attention_macs(shape("query"), shape("key"), shape("value"))
    return 0
