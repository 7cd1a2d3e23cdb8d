"""int8 for ONNX: QuantizeLinear and DequantizeLinear around what computes in int8, placed by ONNX Runtime's quantizer.

There are two flavours, by the processor that the file is for. ``arm`` has signed activations (S8S8), which XNNPACK and
Arm's kernels take; ``x86`` unsigned ones (U8S8), without which ONNX Runtime fuses few convolutions there. Weights are
signed, symmetric, with one scale for each output channel, in both. On x86 processors without VNNI instructions
ONNX Runtime's U8S8 kernels can saturate.

In int8 a global mean is one GlobalAveragePool: its sums are integers, and exact. The picture's bytes go into the first
convolution as they are, so that nothing of them is rounded: the mean that is taken from them is in the convolution's
bias, and around the picture there is a border of the mean in place of the convolution's own zeros.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xformer_export.calibration import Calibration, Choice, Outputs, Run, choose_ranges, collect
from xformer_export.int8_weights import BYTES, LEAST_WEIGHTS, round_weights, take_bytes
from xformer_export.placement import Placement
from xformer_mobile.errors import ConversionError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.ranges import Range

__all__ = ["TARGETS", "quantize", "quantize_weights"]

TARGETS = {"arm": "QInt8", "x86": "QUInt8"}
"""The flavours, and ONNX Runtime's name of their activations' type."""

INT8_OPS = ("Add", "Concat", "Conv", "GlobalAveragePool", "Mul", "Resize", "Sigmoid")

WEIGHTED_OPS = {"Conv": 0, "MatMul": 1, "Mul": 0}
"""What has constants as its second input, and along which of their axes there are scales: the output channels, or the
heads of XFA's kernel over the tokens."""


def quantize(
    model: Any, placement: Placement, calibration: Calibration, target: str, step: Any = lambda name: None
) -> Choice[Any]:
    """The float32 ``model`` with int8 convolutions and what stands between them.

    Raises:
        ConversionError: ONNX Runtime's quantizer failed, or an activation is not finite.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """
    onnx = require("onnx", extra="onnx")
    exact = open_model(model)
    model = copy.deepcopy(model)
    _pool_at_once(model)
    bytes_of_picture = _take_bytes(onnx, model, placement)
    _infer_shapes(onnx, model)
    nodes = [
        node.name
        for node in model.graph.node
        if node.op_type in INT8_OPS and "/" in node.name and placement.is_int8(node.name.rpartition("/")[0])
    ]
    step("onnx: count activations")
    histograms = collect(_values(model, nodes), calibration)

    def build(found: dict[str, Range]) -> Any:
        made = _insert(model, found | dict.fromkeys(bytes_of_picture, BYTES), nodes, target)
        _drop_conversion(onnx, made, bytes_of_picture)
        return made

    choice = choose_ranges(
        histograms,
        exact,
        build,
        open_model,
        calibration,
        step=lambda method: step(f"onnx: try ranges by {method}"),
    )
    made = choice.artifact
    quantize_weights(made, placement)
    _drop_zero_points(onnx, made)
    _shorten_names(model, made)
    del made.graph.value_info[:]
    return choice


def open_model(model: Any) -> Run:
    """A model in memory, on one thread of ONNX Runtime."""
    ort = require("onnxruntime", extra="onnx")
    session = ort.InferenceSession(model.SerializeToString(), _settings(ort), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    (image,) = session.get_inputs()

    def run(picture: ByteImage) -> Outputs:
        return dict(zip(names, session.run(names, {image.name: picture}), strict=True))

    return run


def _settings(ort: Any) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 1
    return settings


def _values(model: Any, nodes: Collection[str]) -> Any:
    """Runs the model, unoptimized, and returns every float value that these nodes read and make, by name."""
    onnx = require("onnx", extra="onnx")
    ort = require("onnxruntime", extra="onnx")
    opened = copy.deepcopy(model)
    wanted = {name for node in opened.graph.node if node.name in nodes for name in (*node.input, *node.output)}
    known = {value.name for value in opened.graph.output}
    opened.graph.output.extend(
        value
        for value in opened.graph.value_info
        if value.name in wanted - known and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    )
    names = [value.name for value in opened.graph.output if value.name in wanted]
    settings = _settings(ort)
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(opened.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()

    def run(picture: ByteImage) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        yield from zip(names, session.run(names, {image.name: picture}), strict=True)

    return run


def _insert(model: Any, found: dict[str, Range], nodes: list[str], target: str) -> Any:
    """The model with QuantizeLinear and DequantizeLinear around the nodes."""
    calibrate = require("onnxruntime.quantization.calibrate", extra="onnx")
    quantization = require("onnxruntime.quantization", extra="onnx")
    qdq = require("onnxruntime.quantization.qdq_quantizer", extra="onnx")
    onnx_model = require("onnxruntime.transformers.onnx_model", extra="onnx")
    data = {
        name: calibrate.TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in found.items()
    }
    with _quiet():
        try:
            quantizer = qdq.QDQQuantizer(
                copy.deepcopy(model),
                per_channel=True,
                reduce_range=False,
                weight_qType=quantization.QuantType.QInt8,
                activation_qType=quantization.QuantType[TARGETS[target]],
                tensors_range=calibrate.TensorsData(quantization.CalibrationMethod.MinMax, data),
                nodes_to_quantize=nodes,
                nodes_to_exclude=[],
                op_types_to_quantize=list(INT8_OPS),
                extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
            )
            quantizer.quantize_model()
        except Exception as error:  # the quantizer raises plain ValueErrors and RuntimeErrors
            message = " ".join(str(error).split())[:300]
            raise ConversionError(f"ONNX Runtime's quantizer failed: {type(error).__name__}: {message}") from error
    made = quantizer.model.model
    onnx_model.OnnxModel.graph_topological_sort(made.graph, is_deterministic=True)  # the new nodes are at the end
    return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's advice on every tensor that it leaves alone from the user."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _infer_shapes(onnx: Any, model: Any) -> None:
    """Note every value's shape in the model, where the quantizer looks for it."""
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    model.graph.value_info.extend(inferred.graph.value_info)


def _pool_at_once(model: Any) -> None:
    """Means of tiles in front of a global mean are part of it."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    for node in [node for node in model.graph.node if node.op_type == "GlobalAveragePool"]:
        while (source := made_by.get(node.input[0])) is not None and source.op_type == "AveragePool":
            node.input[0] = source.input[0]
            model.graph.node.remove(source)


# ---- the picture ----------------------------------------------------------------------------------------------


def _take_bytes(onnx: Any, model: Any, placement: Placement) -> list[str]:
    """Let the first convolution read the picture's bytes, in place; returns the name of what it reads as floats.

    What was ``conv(picture - mean)``, with zeros around it, is a convolution of the picture in a border of the mean,
    rounded to bytes. Its bias is made to fit the weights that int8 holds. Where the convolution is to stay float,
    nothing is done.
    """
    graph = model.graph
    readers = {name: node for node in graph.node for name in node.input}
    (image,) = graph.input
    transpose = readers[image.name]
    cast = readers[transpose.output[0]]
    subtract = readers[cast.output[0]]
    conv = readers[subtract.output[0]]
    assert [node.op_type for node in (transpose, cast, subtract, conv)] == ["Transpose", "Cast", "Sub", "Conv"]
    path = conv.name.rpartition("/")[0]
    if not placement.is_int8(path):
        return []
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    mean = constants[subtract.input[1]].reshape(-1)
    bias, border = take_bytes(constants[conv.input[1]], constants[conv.input[2]], mean)

    (pads,) = (attribute.ints for attribute in conv.attribute if attribute.name == "pads")
    top, left, bottom, right = pads
    _, height, width, channels = (dim.dim_value for dim in image.type.tensor_type.shape.dim)
    rows = [(1, side, width, channels) for side in (top, bottom)]
    columns = [(1, top + height + bottom, side, channels) for side in (left, right)]
    made: dict[str, npt.NDArray[Any]] = {f"{path}.bias_of_bytes": bias}
    conv.input[:] = [cast.output[0], conv.input[1], *made]
    pads[:] = [0, 0, 0, 0]
    bordered = image.name
    for axis, what, shapes in ((1, "rows", rows), (2, "columns", columns)):
        sides = [f"{image.name}_{what}_{side}" for side in ("before", "after")]
        made |= {name: np.broadcast_to(border, shape).copy() for name, shape in zip(sides, shapes, strict=True)}
        name = f"{image.name}_{what}"
        node = onnx.helper.make_node("Concat", [sides[0], bordered, sides[1]], [name], name=name, axis=axis)
        graph.node.insert(list(graph.node).index(transpose), node)
        bordered = name
    transpose.input[0] = bordered
    graph.initializer.extend(onnx.numpy_helper.from_array(values, name) for name, values in made.items())
    graph.node.remove(subtract)
    return [cast.output[0]]


def _drop_conversion(onnx: Any, made: Any, names: list[str]) -> None:
    """Where bytes are made floats only to be quantized to the same bytes, leave both out, in place."""
    graph = made.graph
    for name in names:
        (cast,) = (node for node in graph.node if name in node.output)
        (quantize,) = (node for node in graph.node if name in node.input)
        (zero,) = (tensor for tensor in graph.initializer if tensor.name == quantize.input[2])
        if zero.data_type != onnx.TensorProto.UINT8:
            continue
        for node in graph.node:
            node.input[:] = [cast.input[0] if source == quantize.output[0] else source for source in node.input]
        graph.node.remove(quantize)
        graph.node.remove(cast)


# ---- constants ----------------------------------------------------------------------------------------------


def quantize_weights(model: Any, placement: Placement | None = None) -> None:
    """Store the float32 weights of convolutions and matmuls as int8, each followed by DequantizeLinear, in place.

    What ``placement`` keeps in float stays as it is.
    """
    onnx = require("onnx", extra="onnx")
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    done: dict[str, str] = {}
    for node in list(graph.node):
        axis = WEIGHTED_OPS.get(node.op_type)
        if axis is None or (placement is not None and placement.is_kept(node.name.rpartition("/")[0])):
            continue
        tensor = constants.get(node.input[1])
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < LEAST_WEIGHTS:
            continue
        if tensor.name not in done:
            done[tensor.name] = f"{tensor.name}_float"
            stored, scale = round_weights(values, axis)
            names = [f"{tensor.name}_int8", f"{tensor.name}_scale"]
            graph.initializer.extend(map(onnx.numpy_helper.from_array, (stored, scale), names))
            made = onnx.helper.make_node(
                "DequantizeLinear", names, [done[tensor.name]], name=f"{tensor.name}_DequantizeLinear", axis=axis
            )
            graph.node.insert(list(graph.node).index(node), made)
        node.input[1] = done[tensor.name]
    used = {name for node in graph.node for name in node.input}
    for name in done:
        if name not in used:
            graph.initializer.remove(constants[name])


def _drop_zero_points(onnx: Any, model: Any) -> None:
    """Leave out the zero points of weights and biases: they are 0, which is DequantizeLinear's default."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or len(node.input) < 3 or node.input[0] not in constants:
            continue
        zero = constants.get(node.input[2])
        if zero is not None and not onnx.numpy_helper.to_array(zero).any():
            del node.input[2]
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _shorten_names(model: Any, made: Any) -> None:
    """Number the values and nodes that ``model`` does not have; their names would be a tenth of the file."""
    graph = made.graph
    kept = {name for node in model.graph.node for name in (node.name, *node.input, *node.output)}
    short: dict[str, str] = {}
    for number, node in enumerate(graph.node):
        if node.name not in kept:
            node.name = f"n{number}"
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name and name not in kept:
                    names[index] = short.setdefault(name, f"q{len(short)}")
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
