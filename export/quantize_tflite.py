"""int8 for TFLite: ai-edge-quantizer's static quantization, one scope for what computes in int8 and one for the rest.

The quantizer knows operators by the names of their outputs. So each gets a name that says where it belongs; the scopes
are regular expressions. In int8 a global mean is one MEAN: its sums are integers, and exact. The picture's bytes go
into the first convolution as they are.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xformer_export.calibration import Calibration, Choice, Outputs, Run, choose_ranges, collect
from xformer_export.int8_weights import BYTES, LEAST_WEIGHTS, take_bytes
from xformer_export.placement import Placement, weight_digest
from xformer_mobile.errors import ConversionError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.ranges import Range

__all__ = ["MARKS", "operator_code", "quantize", "quantize_weights"]

INT8, STORED, FLOAT = "int8", "stored", "float"
"""The marks: computes in int8; in float, with its weights stored in int8; in float."""

MARK = r"{}\d+\|"
"""How a mark stands in front of the name that the converter gave a tensor, followed by the operator's number."""

MARKS = MARK.format(f"(?:{INT8}|{STORED}|{FLOAT})")
"""Any mark."""

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")

INT8_OPS = ("ADD", "CONCATENATION", "LOGISTIC", "MEAN", "MUL", "PAD", "RESHAPE", "RESIZE_BILINEAR", "TRANSPOSE")
"""What computes in int8 where its input is int8, beside convolutions. All of them, XNNPACK takes."""

ACTIVATIONS = ("LOGISTIC", "MUL")
"""The parts of SiLU. They are float where no int8 operator reads what they make."""

FLOAT_CLASSES = ("PatchXFBlock", "PatchXFA", "PlainNorm")
"""Modules in which only convolutions are int8; the converter names a tensor by the classes of its modules."""


def quantize(
    content: bytes, placement: Placement, calibration: Calibration, step: Any = lambda name: None
) -> Choice[bytes]:
    """The float32 model ``content`` with int8 convolutions and what stands between them.

    Raises:
        ConversionError: the quantizer failed, or an activation is not finite.
        MissingDependencyError: ai-edge-litert or ai-edge-quantizer is not installed.
    """
    marked, values, bytes_of_picture = _mark(content, placement)
    step("tflite: count activations")
    histograms = collect(_all_values(marked, values), calibration)

    def build(found: dict[str, Range]) -> bytes:
        return _apply(marked, found | dict.fromkeys(bytes_of_picture, BYTES))

    return choose_ranges(
        histograms,
        open_model(content),
        build,
        open_model,
        calibration,
        step=lambda method: step(f"tflite: try ranges by {method}"),
    )


def quantize_weights(content: bytes) -> bytes:
    """The float32 model ``content`` with the weights of its convolutions in int8, each followed by DEQUANTIZE.

    Raises:
        ConversionError: the quantizer failed.
        MissingDependencyError: ai-edge-quantizer is not installed.
    """
    recipes = _recipe_manager()
    for operation in CONVOLUTIONS:
        recipes.add_weight_only_config(regex=".*", operation_name=_operation(operation), num_bits=8)
    return _run(content, recipes, None)


def open_model(content: bytes) -> Run:
    """A model in memory, on one thread of LiteRT; outputs by their names in the signature."""
    interpreter = _interpreter(content)
    (image,) = interpreter.get_input_details()
    (signature,) = interpreter.get_signature_list()
    outputs = interpreter.get_signature_runner(signature).get_output_details()

    def run(picture: ByteImage) -> Outputs:
        interpreter.set_tensor(image["index"], picture)
        interpreter.invoke()
        return {name: interpreter.get_tensor(detail["index"]).copy() for name, detail in outputs.items()}

    return run


def _interpreter(content: bytes, **options: Any) -> Any:
    litert = require("ai_edge_litert.interpreter", extra="tflite")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that keeping all tensors takes memory, which is meant here
        interpreter = litert.Interpreter(model_content=content, num_threads=1, **options)
    interpreter.allocate_tensors()
    return interpreter


def _all_values(content: bytes, values: dict[int, str]) -> Any:
    """Runs the model and returns the tensors ``values``, names by index, which no delegate may swallow."""
    interpreter = _interpreter(content, experimental_preserve_all_tensors=True)
    (image,) = interpreter.get_input_details()

    def run(picture: ByteImage) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        interpreter.set_tensor(image["index"], picture)
        interpreter.invoke()
        for index, name in values.items():
            yield name, interpreter.get_tensor(index)

    return run


def _mark(content: bytes, placement: Placement) -> tuple[bytes, dict[int, str], list[str]]:
    """The model with each operator's output named by its place.

    Also returns the names of the values that int8 may hold, and those of them that are the picture's bytes.
    """
    flatbuffer_utils = require("ai_edge_litert.tools.flatbuffer_utils", extra="tflite")
    model = flatbuffer_utils.read_model_from_bytearray(content)
    (graph,) = model.subgraphs
    kind = _kinds(model)

    def name(index: int) -> str:
        return str(graph.tensors[index].name.decode())

    def activations(operator: Any) -> list[int]:
        return [index for index in operator.inputs if index >= 0 and not _is_constant(model, index)]

    def path(convolution: Any) -> str:
        return placement.convolutions.get(weight_digest(_constant(model, convolution.inputs[1])), "")

    _pool_at_once(graph, kind)
    stem = next(operator for operator in graph.operators if kind(operator) in CONVOLUTIONS)
    picture = _take_bytes(model, stem) if placement.is_int8(path(stem)) else []
    int8 = set(picture)
    for operator in graph.operators:
        if kind(operator) in CONVOLUTIONS:
            inside = placement.is_int8(path(operator))
        else:
            inside = (
                kind(operator) in INT8_OPS
                and not any(part in name(operator.outputs[0]) for part in FLOAT_CLASSES)
                and all(index in int8 for index in activations(operator))
            )
        if inside:
            int8.update(operator.outputs)
    for operator in reversed(graph.operators):
        readers = [reader for reader in graph.operators if operator.outputs[0] in reader.inputs]
        if kind(operator) in ACTIVATIONS and not any(reader.outputs[0] in int8 for reader in readers):
            int8.difference_update(operator.outputs)
    values: dict[int, str] = {}
    for number, operator in enumerate(graph.operators):
        inside = operator.outputs[0] in int8 and kind(operator) != "CAST"
        if inside:
            place = INT8
            values |= {index: name(index) for index in (*activations(operator), *operator.outputs)}
        elif (
            kind(operator) in CONVOLUTIONS
            and _constant(model, operator.inputs[1]).size >= LEAST_WEIGHTS
            and not placement.is_kept(path(operator))
        ):
            place = STORED
        else:
            place = FLOAT
        for index in operator.outputs:
            graph.tensors[index].name = f"{place}{number}|{name(index)}".encode()
    # An input of the first int8 operators is made by a float one; its name is known only now.
    values = {index: name(index) for index in values}
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)), values, [name(index) for index in picture]


def _kinds(model: Any) -> Callable[[Any], str]:
    """Names the kind of an operator of the model."""
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    return lambda operator: str(names[model.operatorCodes[operator.opcodeIndex].builtinCode])


def _is_constant(model: Any, index: int) -> bool:
    tensor = model.subgraphs[0].tensors[index]
    return model.buffers[tensor.buffer].data is not None


def _constant(model: Any, index: int, dtype: str = "<f4") -> npt.NDArray[Any]:
    """The values of a constant tensor."""
    tensor = model.subgraphs[0].tensors[index]
    data = bytes(model.buffers[tensor.buffer].data)
    return np.frombuffer(data, dtype).reshape([*tensor.shape])


def operator_code(model: Any, kind: int, version: int) -> int:
    """The index of a kind of operator in the model's list, to which it is added where it is missing."""
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    known = [code.builtinCode for code in model.operatorCodes]
    if kind not in known:
        known.append(kind)
        model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=kind, version=version, builtinCode=kind))
    return known.index(kind)


def _take_bytes(model: Any, stem: Any) -> list[int]:
    """Let the first convolution read the picture's bytes, in place; returns the floats that hold them.

    What was ``conv(pad(picture - mean))`` is a convolution of the picture with the mean around it, rounded to a byte.
    Rows and columns around it that the convolution's stride never reaches are left out.
    """
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    (graph,) = model.subgraphs
    kind = _kinds(model)
    cast, subtract, pad = graph.operators[:3]
    assert [kind(operator) for operator in graph.operators[:4]] == ["CAST", "SUB", "PAD", "CONV_2D"]
    assert graph.operators[3] is stem

    def add(shape: Sequence[int], name: str, values: npt.NDArray[Any] | None = None) -> int:
        data = None if values is None else np.frombuffer(values.tobytes(), np.uint8)
        model.buffers.append(schema.BufferT(data=data))
        graph.tensors.append(
            schema.TensorT(
                shape=[*shape], type=schema.TensorType.FLOAT32, buffer=len(model.buffers) - 1, name=name.encode()
            )
        )
        return len(graph.tensors) - 1

    weights = _constant(model, stem.inputs[1])
    bias, border = take_bytes(
        weights.transpose(0, 3, 1, 2),
        _constant(model, stem.inputs[2]),
        _constant(model, subtract.inputs[1]).reshape(-1),
    )
    stem.inputs[2] = add(bias.shape, "bias_of_bytes", bias)

    widths = _constant(model, pad.inputs[1], "<i4")
    options = stem.builtinOptions
    picture, made = [cast.outputs[0]], []
    shape = [*graph.tensors[cast.outputs[0]].shape]
    code = operator_code(model, schema.BuiltinOperator.CONCATENATION, version=2)
    for axis, stride in ((1, options.strideH), (2, options.strideW)):
        before, after = map(int, widths[axis])
        after -= (before + shape[axis] + after - weights.shape[axis]) % stride
        sides = []
        for size in (before, after):
            side = (*shape[:axis], size, *shape[axis + 1 :])
            values = np.broadcast_to(border.astype("<f4"), side)
            sides.append([add(side, f"border_{axis}", values)] if size > 0 else [])
        parts = [*sides[0], picture[-1], *sides[1]]
        shape[axis] += before + after
        picture.append(add(shape, f"bordered_{axis}"))
        made.append(
            schema.OperatorT(
                opcodeIndex=code,
                inputs=parts,
                outputs=[picture[-1]],
                builtinOptionsType=schema.BuiltinOptions.ConcatenationOptions,
                builtinOptions=schema.ConcatenationOptionsT(axis=axis),
            )
        )
    graph.operators[1:3] = made
    stem.inputs[0] = picture[-1]
    return picture


def _pool_at_once(graph: Any, kind: Any) -> None:
    """Means of tiles in front of a mean over both spatial axes are part of it."""
    made_by = {index: operator for operator in graph.operators for index in operator.outputs}
    for operator in [operator for operator in graph.operators if kind(operator) == "MEAN"]:
        while (source := made_by.get(operator.inputs[0])) is not None and kind(source) == "AVERAGE_POOL_2D":
            options = source.builtinOptions
            if options.filterHeight != options.filterWidth:  # XFA's means over rows
                break
            operator.inputs[0] = source.inputs[0]
            graph.operators.remove(source)


def _apply(content: bytes, found: dict[str, Range]) -> bytes:
    """The marked model quantized with these ranges."""
    recipes = _recipe_manager()
    algorithms = require("ai_edge_quantizer.algorithm_manager", extra="tflite").AlgorithmName
    recipes.add_static_config(regex=".*", operation_name=_operation("*"), activation_num_bits=8, weight_num_bits=8)
    for mark in (STORED, FLOAT):
        recipes.add_quantization_config(
            regex=rf"(.*;)?{MARK.format(mark)}.*", operation_name=_operation("*"), algorithm_key=algorithms.NO_QUANTIZE
        )
    recipes.add_weight_only_config(
        regex=rf"(.*;)?{MARK.format(STORED)}.*", operation_name=_operation("CONV_2D"), num_bits=8
    )
    for border in ("INPUT", "OUTPUT"):
        recipes.add_quantization_config(
            regex=".*", operation_name=_operation(border), algorithm_key=algorithms.NO_QUANTIZE
        )
    shape = (1, 1, 1, 1)
    statistics = {
        name: {"min": np.full(shape, low, np.float32), "max": np.full(shape, high, np.float32)}
        for name, (low, high) in found.items()
    }
    return _run(content, recipes, statistics)


def _recipe_manager() -> Any:
    return require("ai_edge_quantizer.recipe_manager", extra="tflite").RecipeManager()


def _operation(name: str) -> Any:
    """The quantizer's name of an operator; ``*`` is all of them."""
    return require("ai_edge_quantizer.qtyping", extra="tflite").TFLOperationName(name)


def _run(content: bytes, recipes: Any, statistics: Any) -> bytes:
    quantizer = require("ai_edge_quantizer.quantizer", extra="tflite")
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # it draws bars of its own
        warnings.simplefilter("ignore")
        try:
            made = quantizer.Quantizer(bytearray(content), recipes.get_quantization_recipe())
            return bytes(
                made.quantize(statistics, enable_progress_bar=False, enable_progress_report=False).quantized_model
            )
        except Exception as error:  # the quantizer raises plain ValueErrors and RuntimeErrors
            message = " ".join(str(error).split())[:300]
            raise ConversionError(f"ai-edge-quantizer failed: {type(error).__name__}: {message}") from error
