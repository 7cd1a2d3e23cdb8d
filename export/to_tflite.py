"""TFLite: the channels-last form through litert-torch, float16 weights by ai-edge-quantizer, then names and metadata.

What litert-torch writes is changed in these places:

- The input and the outputs bear the manifest's names, as tensors and in the signature, in the manifest's order.
- The input is a quantized tensor of scale 1 and zero point 0, and DEQUANTIZE stands where the converter has CAST: it
  computes the same, and XNNPACK takes it. So the whole graph is one partition, in int8 too: QUANTIZE of the bytes would
  be enough there, but LiteRT would run that by itself, more slowly than XNNPACK runs both.
- Inner tensors are named by module paths without the classes' names, which made a tenth of a small file.
- Buffers start at multiples of 16 bytes, as TFLite's schema demands and its Python classes do not keep to.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from xformer_export.channels_last import to_channels_last
from xformer_export.op_rules import check_graph, check_transposes
from xformer_export.placement import Placement
from xformer_export.prepare import Converted, Network, Options, Prepared
from xformer_export.program import conversion_errors, export_program
from xformer_export.quantize_tflite import MARKS, operator_code, quantize, quantize_weights
from xformer_export.shortcuts import compiled_when_called, shared_origins
from xformer_export.tflite_metadata import METADATA_NAME, OWN_METADATA_NAME, Description, attach_files, describe
from xformer_export.tflite_metadata import check as check_metadata
from xformer_mobile.artifact import INPUT_NAME
from xformer_mobile.bench.counts.read_tflite import count_partitions
from xformer_mobile.errors import ConversionError
from xformer_mobile.files import output_errors
from xformer_mobile.optional import require
from xformer_mobile.spec import ImageSize

__all__ = ["ALIGNMENT", "check_constants", "convert", "convert_network", "finish", "lower", "pack"]

ALIGNMENT = 16
"""Bytes; ``force_align`` of a buffer's data in TFLite's schema."""

MIN_RUNTIME = "min_runtime_version"
"""The metadata entry in which the converter says from which TFLite version on all ops of the graph exist."""

HALF_DEQUANTIZE_VERSION = 3
"""The version of DEQUANTIZE that takes float16, there since TensorFlow 1.15 (TFLite's op_version.cc)."""

INT8_DEQUANTIZE_VERSION = 2
"""The version of DEQUANTIZE that takes int8 (TFLite's op_version.cc)."""

KEPT_IN_FP32 = ((".*", "DEPTHWISE_CONV_2D"), (r".*_backbone/[\w.]*_(?:stem|stage1|stage2)/.*", "CONV_2D"))
"""Scopes and ops whose weights stay float32 in an fp16 file: depthwise convolutions, and those at strides 2 and 4.

They are 3.6 % of the weights of ``xformer_s``, and most of the error is theirs: in float16 too, the classifier of the
sample weights has 36.4 dB on the worst golden picture instead of 43.4.
"""

IDENTIFIER = b"TFL3"


def convert(prepared: Prepared, options: Options, path: Path) -> Converted:
    """Convert the mobile form and write ``path``, a .tflite file. Same weights, same versions, same bytes.

    ``options.precision`` fp16 stores the convolutions' weights as float16, int8-weights as int8; all is computed in
    float32. int8 computes in it.

    Raises:
        ConversionError: the converter failed, the graph leaves its rules, or what was written does not read back.
        MissingDependencyError: litert-torch or ai-edge-litert is not installed.
    """
    lowered = lower(prepared)
    quantization: dict[str, Any] = {}
    if options.precision in ("int8", "int8-weights"):
        quantization["fp32_size_bytes"] = len(finish(prepared, replace(options, precision="fp32"), lowered)[0])
        if options.precision == "int8":
            assert options.calibration is not None
            placement = Placement.of(to_channels_last(prepared.mobile), options.keep_float)
            choice = quantize(lowered, placement, options.calibration, options.step)
            lowered = choice.artifact
            quantization["ranges"] = choice.as_json()
        else:
            lowered = quantize_weights(lowered)
    content, converted = finish(prepared, options, lowered)
    converted = replace(converted, quantization=quantization)
    with output_errors(path.name):
        path.write_bytes(content)
    return converted


def lower(prepared: Prepared) -> bytes:
    """The converter's own result in float32, as bytes.

    Raises:
        ConversionError: the converter failed.
        MissingDependencyError: litert-torch is not installed.
    """
    if "tflite" not in prepared.lowered:
        module = to_channels_last(prepared.mobile)
        content = _lower(module, prepared.config.image_size)
        check_constants(module, content)
        prepared.lowered["tflite"] = content
    return prepared.lowered["tflite"]


def convert_network(network: Network, path: Path) -> None:
    """Convert any network in float32 by the same steps and write ``path``: any ops, and no metadata.

    Raises:
        ConversionError: the converter failed, or what was written does not read back.
        MissingDependencyError: litert-torch or ai-edge-litert is not installed.
    """
    flatbuffer_utils = require("ai_edge_litert.tools.flatbuffer_utils", extra="tflite")
    with _known_form():
        model = flatbuffer_utils.read_model_from_bytearray(_lower(network.module, network.image_size))
        _shape_model(model, network.output_shapes)
        model.metadata = _kept_metadata(model)
        _drop_unused(model)
    content = pack(model)
    _read_back(network, content)
    with output_errors(path.name):
        path.write_bytes(content)


def _lower(module: nn.Module, size: ImageSize) -> bytes:
    """The converter's own result for a module that takes bytes (1, H, W, 3)."""
    example = (torch.zeros(1, size.height, size.width, 3, dtype=torch.uint8),)
    with _quiet():
        litert_torch = require("litert_torch", extra="tflite")
        source = functools.partial(export_program, module, example)
        with shared_origins(), compiled_when_called(), conversion_errors("litert-torch", source):
            return bytes(litert_torch.convert(module, example).model_content())


def finish(prepared: Prepared, options: Options, lowered: bytes) -> tuple[bytes, Converted]:
    """From the converter's result to the file's bytes: precision, names, metadata, and the checks.

    Raises:
        ConversionError: the graph leaves its rules, or what was made does not read back.
        MissingDependencyError: litert-torch or ai-edge-litert is not installed.
    """
    flatbuffer_utils = require("ai_edge_litert.tools.flatbuffer_utils", extra="tflite")
    content = _with_half_weights(lowered) if options.precision == "fp16" else lowered
    description = describe(prepared)
    with _known_form():
        model = flatbuffer_utils.read_model_from_bytearray(content)
        if options.precision == "int8":
            _drop_marks(model)
        _shape_model(model, prepared.network.output_shapes)
        _set_metadata(model, description)
        _drop_unused(model)
    graph = _check(prepared, model)
    content = attach_files(pack(model), description)
    check_metadata(content, description)
    graph.update(_read_back(prepared.network, content))
    runtime = {entry.name: model.buffers[entry.buffer].data for entry in model.metadata}[MIN_RUNTIME.encode()]
    version = bytes(runtime).rstrip(b"\0").decode("ascii")
    return content, Converted({"tflite_runtime": version}, "uint8", "NHWC", graph)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converters' own deprecations from the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _with_half_weights(content: bytes) -> bytes:
    """The model with the weights of its convolutions in float16, each followed by DEQUANTIZE."""
    with _quiet():
        quantizer = require("ai_edge_quantizer.quantizer", extra="tflite")
        qtyping = require("ai_edge_quantizer.qtyping", extra="tflite")
        algorithms = require("ai_edge_quantizer.algorithm_manager", extra="tflite").AlgorithmName
        recipe = require("ai_edge_quantizer.recipe_manager", extra="tflite").RecipeManager()
        recipe.add_quantization_config(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key=algorithms.FLOAT_CASTING,
        )
        # What comes later in a recipe goes before.
        for scope, operation in KEPT_IN_FP32:
            recipe.add_quantization_config(
                regex=scope, operation_name=qtyping.TFLOperationName(operation), algorithm_key=algorithms.NO_QUANTIZE
            )
        try:
            made = quantizer.Quantizer(bytearray(content), recipe.get_quantization_recipe()).quantize()
        except Exception as error:  # the quantizer raises plain ValueErrors and RuntimeErrors
            message = " ".join(str(error).split())[:300]
            raise ConversionError(f"ai-edge-quantizer failed: {type(error).__name__}: {message}") from error
    return bytes(made.quantized_model)


# ---- changes of the converter's model ----------------------------------------------------------------------


@contextlib.contextmanager
def _known_form() -> Iterator[None]:
    """Turn what trips over a model of another form than is known here into a ConversionError."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ConversionError(f"litert-torch's model has an unknown form: {type(error).__name__}: {error}") from error


def _shape_model(model: Any, output_shapes: Mapping[str, tuple[int, ...]]) -> None:
    """The changes that every model of ours has."""
    _name_interface(model, list(output_shapes))
    _shorten_names(model)
    _read_bytes(model)


def _name_interface(model: Any, outputs: list[str]) -> None:
    """Give the input and the outputs the manifest's names and order."""
    (graph,) = model.subgraphs
    (signature,) = model.signatureDefs
    (image,) = signature.inputs
    # The converter calls them output_0, output_1, ... in the order in which the module returns them.
    ordered = sorted(signature.outputs, key=lambda output: int(output.name.decode().rpartition("_")[2]))
    for entry, name in zip([image, *ordered], [INPUT_NAME, *outputs], strict=True):
        entry.name = name.encode()
        graph.tensors[entry.tensorIndex].name = name.encode()
    signature.outputs = ordered
    graph.inputs = [image.tensorIndex]
    graph.outputs = [entry.tensorIndex for entry in ordered]


def _drop_marks(model: Any) -> None:
    """Take the marks of quantizing from the names."""
    (graph,) = model.subgraphs
    for tensor in graph.tensors:
        tensor.name = re.sub(MARKS.encode(), b"", tensor.name)


def _shorten_names(model: Any) -> None:
    """``package.module.Class_backbone/package.module.Class_stem;2`` becomes ``backbone/stem;2``."""
    (graph,) = model.subgraphs
    interface = {*graph.inputs, *graph.outputs}
    for index, tensor in enumerate(graph.tensors):
        if index not in interface:
            name = re.sub(r"(?:[A-Za-z_]\w*\.)+[A-Za-z0-9]+_?", "", tensor.name.decode())
            tensor.name = re.sub(r"(^|;)/+", r"\1", name).strip(";").encode()


def _read_bytes(model: Any) -> None:
    """Replace the CAST of the input by DEQUANTIZE of a tensor of scale 1 and zero point 0."""
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    (graph,) = model.subgraphs
    casts = [op for op in graph.operators if _code(model, op).builtinCode == schema.BuiltinOperator.CAST]
    if [list(op.inputs) for op in casts] != [list(graph.inputs)]:
        raise ConversionError(f"the tflite graph has {len(casts)} CAST; one is expected, of the input")
    (cast,) = casts
    graph.tensors[graph.inputs[0]].quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[0])
    cast.opcodeIndex = operator_code(model, schema.BuiltinOperator.DEQUANTIZE, version=1)
    cast.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    cast.builtinOptions = schema.DequantizeOptionsT()
    types = {tensor.type for tensor in graph.tensors}
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.DEQUANTIZE:  # the quantizer leaves it at version 1
            if schema.TensorType.FLOAT16 in types:
                code.version = HALF_DEQUANTIZE_VERSION
            elif schema.TensorType.INT8 in types:
                code.version = INT8_DEQUANTIZE_VERSION


def _set_metadata(model: Any, description: Description) -> None:
    """Keep the runtime's version of the converter's metadata, and add ours."""
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    model.description = description.name.encode()
    model.metadata = _kept_metadata(model)
    for name, data in ((METADATA_NAME, description.packed), (OWN_METADATA_NAME, description.own_json)):
        model.metadata.append(schema.MetadataT(name=name.encode(), buffer=len(model.buffers)))
        model.buffers.append(schema.BufferT(data=np.frombuffer(data, np.uint8)))


def _kept_metadata(model: Any) -> list[Any]:
    return [entry for entry in model.metadata if entry.name == MIN_RUNTIME.encode()]


def _drop_unused(model: Any) -> None:
    """Drop the buffers and op codes that nothing refers to; the empty buffer 0 stays, as TFLite demands."""
    (graph,) = model.subgraphs
    holders = [*graph.tensors, *model.metadata]
    buffers = sorted({0} | {holder.buffer for holder in holders})
    model.buffers = [model.buffers[index] for index in buffers]
    for holder in holders:
        holder.buffer = buffers.index(holder.buffer)
    codes = sorted({op.opcodeIndex for op in graph.operators})
    model.operatorCodes = [model.operatorCodes[index] for index in codes]
    for op in graph.operators:
        op.opcodeIndex = codes.index(op.opcodeIndex)


def pack(model: Any) -> bytes:
    """The model's bytes; each buffer's data starts at a multiple of ALIGNMENT."""
    flatbuffers = require("flatbuffers", extra="tflite")
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")

    class Aligned:
        def __init__(self, data: Any) -> None:
            self.data = bytes(data)

        def Pack(self, builder: Any) -> int:  # noqa: N802 (called by the schema's classes)
            builder.Prep(ALIGNMENT, len(self.data))
            data = builder.CreateByteVector(self.data)
            schema.BufferStart(builder)
            schema.BufferAddData(builder, data)
            return int(schema.BufferEnd(builder))

    buffers = model.buffers
    model.buffers = [buffer if buffer.data is None else Aligned(buffer.data) for buffer in buffers]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    model.buffers = buffers
    return bytes(builder.Output())


def _code(model: Any, op: Any) -> Any:
    return model.operatorCodes[op.opcodeIndex]


# ---- checks ------------------------------------------------------------------------------------------------


def check_constants(module: nn.Module, content: bytes) -> None:
    """Find the values of each of the module's parameters and buffers in the converter's model, in any order.

    litert-torch 0.10 knows a constant by its address. Of one that is not contiguous it takes a copy that is gone when
    the next is copied to the same address, which then gets the first one's values without a word
    (https://github.com/google-ai-edge/litert-torch/issues/1061). So all of ours are contiguous, and this looks.

    Raises:
        ConversionError: the values of one are not there.
    """
    flatbuffer_utils = require("ai_edge_litert.tools.flatbuffer_utils", extra="tflite")
    model = flatbuffer_utils.read_model_from_bytearray(content)
    stored = {_digest(buffer.data) for buffer in model.buffers if buffer.data is not None and len(buffer.data) % 4 == 0}
    for name, tensor in module.state_dict().items():
        values = tensor.numpy()
        # One value all over may be stored as a scalar.
        if np.ptp(values) > 0 and _digest(values) not in stored:
            raise ConversionError(f"litert-torch lost the values of {name}: the model has no such constant")


def _digest(values: Any) -> bytes:
    """What identifies float32 values, in whatever order they stand."""
    flat = np.frombuffer(bytes(values), "<f4")
    return hashlib.sha256(np.sort(flat).tobytes()).digest()


def _check(prepared: Prepared, model: Any) -> dict[str, Any]:
    """Hold the graph to its rules; returns what was counted."""
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    (graph,) = model.subgraphs
    codes = [_code(model, op) for op in graph.operators]
    ops = Counter(
        f"custom {code.customCode.decode()}" if code.customCode else names[code.builtinCode] for code in codes
    )
    ranks = {tensor.name.decode(): 0 if tensor.shape is None else len(tensor.shape) for tensor in graph.tensors}
    check_graph("tflite", ops, ranks)
    transposes = check_transposes("tflite", prepared.config.task, ops["TRANSPOSE"])
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        floats = {schema.TensorType.FLOAT16: "<f2", schema.TensorType.FLOAT32: "<f4"}.get(tensor.type)
        if data is not None and floats and not np.isfinite(np.frombuffer(bytes(data), floats)).all():
            raise ConversionError(f"the tflite graph's {tensor.name.decode()} has values that its precision can't hold")
    return {"ops": dict(sorted(ops.items())), "transposes": transposes}


def _read_back(network: Network, content: bytes) -> dict[str, Any]:
    """Load the file as a runtime does and hold its interface to the manifest; returns what XNNPACK takes of it."""
    litert = require("ai_edge_litert.interpreter", extra="tflite")
    try:
        interpreter = litert.Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ConversionError(f"LiteRT refuses the model: {' '.join(str(error).split())[:300]}") from error
    size = network.image_size
    found = [
        {tensor["name"]: (tuple(map(int, tensor["shape"])), tensor["dtype"]) for tensor in tensors}
        for tensors in (interpreter.get_input_details(), interpreter.get_output_details())
    ]
    declared: list[dict[str, Any]] = [
        {INPUT_NAME: ((1, size.height, size.width, 3), np.uint8)},
        {name: (shape, np.float32) for name, shape in network.output_shapes.items()},
    ]
    if found != declared or list(found[1]) != list(declared[1]):
        raise ConversionError(f"the tflite model's interface is {found}; the manifest's is {declared}")
    partitions, outside = count_partitions(interpreter)
    return {"xnnpack_partitions": partitions, "outside_xnnpack": dict(sorted(outside.items()))}
