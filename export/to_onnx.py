"""ONNX: torch.export, the ONNX exporter on top of it, onnxsim, then metadata.

Opset 20, which ONNX Runtime reads since its version 1.17, has GELU as one operator. LayerNorm is one too, over the last
axis: the transposes around it cost less than means over the channels do, and in int8 ONNX Runtime, whose convolutions
are channels-last there, drops most of them. A mean over both spatial axes is GlobalAveragePool. Each of the targets,
arm and x86, has a form of its own: of int8 (:mod:`xformer_export.quantize_onnx`) and of what is computed in float
(:mod:`xformer_export.wide_maps`).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import json
import logging
import platform
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xformer_export.op_rules import check_graph
from xformer_export.placement import Placement
from xformer_export.prepare import PRODUCER, Converted, Network, Options, Prepared, metadata_of
from xformer_export.program import conversion_errors, trace_program
from xformer_export.quantize_onnx import quantize, quantize_weights
from xformer_export.token_rows import to_token_rows
from xformer_export.wide_maps import with_wide_maps
from xformer_mobile import __version__
from xformer_mobile.artifact import FORMATS, INPUT_NAME
from xformer_mobile.errors import ConversionError, UsageError
from xformer_mobile.files import output_errors
from xformer_mobile.mobile import ChannelNorm, MobileXFormer
from xformer_mobile.optional import require

__all__ = ["OPSET", "check_ort_target", "convert", "convert_network", "convert_to_ort", "form_for", "target_here"]

OPSET = 20

_ARM_MACHINES = frozenset({"aarch64", "arm64"})

KEPT_IN_FP32 = ("GlobalAveragePool", "AveragePool")
"""Reductions of an fp16 graph that stay in fp32, with all of LayerNorm."""


def convert(prepared: Prepared, options: Options, path: Path) -> Converted:
    """Convert the mobile form and write ``path``, a .onnx file. Same weights, same versions, same bytes.

    Raises:
        ConversionError: the exporter or the simplifier failed, or the graph leaves the allowed ops.
        MissingDependencyError: onnx, onnxscript or onnxsim is not installed.
    """
    onnx = require("onnx", extra="onnx")
    model = _float_model(onnx, prepared, options)
    quantization: dict[str, Any] = {}
    if options.precision == "fp16":
        model = _to_half(prepared, model)
    elif options.precision != "fp32":
        model, quantization = _to_int8(onnx, prepared, options, model)
    _finish(onnx, prepared, model)
    ranks = _check(onnx, model)
    ops = Counter(node.op_type for node in model.graph.node)
    check_graph("onnx", ops, ranks)
    _write(model, path)
    graph = {
        "target": options.onnx_target,
        "ops": dict(sorted(ops.items())),
        "mobile_usability": _mobile_usability(path),
    }
    return Converted({"opset": OPSET}, "uint8", "NHWC", graph, quantization)


def convert_network(network: Network, path: Path) -> None:
    """Convert any network in float32 by the same steps and write ``path``: any ops, and no metadata.

    Raises:
        ConversionError: the exporter or the simplifier failed, or the graph has shapes that are not static.
        MissingDependencyError: onnx, onnxscript or onnxsim is not installed.
    """
    onnx = require("onnx", extra="onnx")
    model = _lower(network)
    _clean(onnx, network, model)
    _check(onnx, model)
    _write(model, path)


def convert_to_ort(prepared: Prepared, options: Options, path: Path) -> Converted:
    """Write ``path``, a .ort file: the same graph in the format that ONNX Runtime's reduced builds read.

    It is made from the model.onnx beside it, or from one that is made for it. Graph optimizations that suit any
    machine are done (ONNX Runtime's level "basic"); those for one kind of CPU are left to the phone. In int8 the
    operators between QuantizeLinear and DequantizeLinear are fused here (level "extended"), for what reads a .ort file
    does not.

    Raises:
        ConversionError: see :func:`convert`; ONNX Runtime can't save the graph.
        UsageError: see :func:`check_ort_target`.
    """
    if options.precision == "int8":
        check_ort_target(options.onnx_target)
    ort = require("onnxruntime", extra="onnx")
    quantization: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = path.with_name(FORMATS["onnx"])
        if not source.is_file():
            source = Path(folder) / FORMATS["onnx"]
            convert(prepared, options, source)
        content = _as_ort(ort, source, path, fuse=options.precision == "int8")
        if options.precision.startswith("int8"):
            plain = Path(folder) / "float.onnx"
            _write(_fp32_model(require("onnx", extra="onnx"), prepared, options), plain)
            quantization["fp32_size_bytes"] = len(_as_ort(ort, plain, Path(folder) / "float.ort"))
            if options.precision == "int8":
                quantization["target"] = options.onnx_target
    with output_errors(path.name):
        path.write_bytes(content)
    requires = {"opset": OPSET, "onnxruntime": _release(ort.__version__)}
    return Converted(requires, "uint8", "NHWC", quantization=quantization)


def target_here() -> str:
    """The target that this machine is one of: arm or x86."""
    return "arm" if platform.machine().lower() in _ARM_MACHINES else "x86"


def check_ort_target(target: str) -> None:
    """ONNX Runtime fuses signed int8 on Arm processors only, and a .ort file is fused where it is written.

    Raises:
        UsageError: this machine can't fuse the flavour for ``target``.
    """
    if target == "arm" and target_here() != "arm":
        raise UsageError(
            "ONNX Runtime fuses int8 for arm on an Arm machine only, and a .ort file is slow unless it is fused; "
            "leave --ort-format out, export it on an Arm machine, or give --onnx-target x86"
        )


def _as_ort(ort: Any, source: Path, path: Path, *, fuse: bool = False) -> bytes:
    """Save ``source``, a .onnx file, at ``path`` as .ort; returns the same in its one form."""
    canonical = require("xformer_export.ort_format", extra="onnx").canonical
    levels = ort.GraphOptimizationLevel
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if fuse else levels.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(path)
    settings.add_session_config_entry("session.save_model_format", "ORT")
    try:
        ort.InferenceSession(str(source), settings, providers=["CPUExecutionProvider"])
        content: bytes = canonical(path.read_bytes())
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        raise ConversionError(f"ONNX Runtime can't save the graph: {str(error).splitlines()[0][:200]}") from error
    return content


def _release(version: str) -> str:
    """Major.minor: the oldest ONNX Runtime that surely reads a .ort file which this version wrote."""
    return ".".join(version.split(".")[:2])


def _lower(network: Network) -> Any:
    """The network as a simplified ModelProto in float32."""
    require("onnxscript", extra="onnx")
    onnxsim = require("onnxsim", extra="onnx")
    exported = _export(network)
    try:
        model, same = onnxsim.simplify(exported)
    except Exception as error:  # the simplifier's C++ raises plain RuntimeErrors
        raise ConversionError(f"onnxsim failed: {error}") from error
    if not same:
        raise ConversionError("onnxsim changed what the graph computes")
    return model


def _check(onnx: Any, model: Any) -> dict[str, int]:
    """Hold a model to ONNX's own rules; returns the rank of every tensor."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ConversionError(f"the ONNX checker refuses the graph: {str(error).splitlines()[0]}") from error
    return _ranks(onnx, model)


def _write(model: Any, path: Path) -> None:
    content: bytes = model.SerializeToString(deterministic=True)
    with output_errors(path.name):
        path.write_bytes(content)


def _export(network: Network) -> Any:
    """The exporter's own result, as a ModelProto."""
    size = network.image_size
    example = torch.zeros(1, size.height, size.width, 3, dtype=torch.uint8)
    with _quiet():
        traced = trace_program(network.module, (example,))
        with conversion_errors("the ONNX exporter", traced):
            program = torch.onnx.export(
                traced,
                input_names=[INPUT_NAME],
                output_names=list(network.output_shapes),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                custom_translation_table=_translations(),
            )
    assert program is not None
    for node in program.model.graph:
        # The module's path in front of each name, where a reader of the graph looks for it.
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
        path = json.loads(scopes.replace("'", '"'))[-2] if scopes else ""
        node.name = f"{path}/{node.name}" if path else node.name
    return program.model_proto


def _translations() -> dict[Any, Any]:
    op: Any = importlib.import_module("onnxscript").opset20

    def mean(x: Any, dim: Sequence[int], keepdim: bool = False, dtype: Any = None) -> Any:
        if len(x.shape) == 4 and keepdim:
            axes = sorted(axis % 4 for axis in dim)
            if axes == [2, 3]:
                return op.GlobalAveragePool(x)
        return op.ReduceMean(x, op.Constant(value_ints=list(dim)), keepdims=int(keepdim))

    return {torch.ops.aten.mean.dim: mean}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about optional packages and its own deprecations from the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _to_half(prepared: Prepared, model: Any) -> Any:
    """The graph in fp16 but for what would overflow or lose its digits there; the outputs stay float32."""
    float16 = require("onnxruntime.transformers.float16", extra="onnx")
    onnx_model = require("onnxruntime.transformers.onnx_model", extra="onnx")
    norms = tuple(f"{path}/" for path, module in prepared.mobile.named_modules() if isinstance(module, ChannelNorm))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter tells of each weight that fp16 rounds to another number
        half = float16.convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=list(KEPT_IN_FP32),
            node_block_list=[node.name for node in model.graph.node if node.name.startswith(norms)],
        )
    # Its casts are at the end of the graph, and one for each reader of a tensor, under one name.
    casts = {node.output[0]: node for node in half.graph.node}
    for node in [node for node in half.graph.node if casts[node.output[0]] is not node]:
        half.graph.node.remove(node)
    onnx_model.OnnxModel.graph_topological_sort(half.graph, is_deterministic=True)
    return half


def _to_int8(onnx: Any, prepared: Prepared, options: Options, model: Any) -> tuple[Any, dict[str, Any]]:
    """The graph in one of the int8 precisions, and how: the float32 file's size, and for int8 how it was calibrated."""
    how: dict[str, Any] = {"fp32_size_bytes": _fp32_model(onnx, prepared, options).ByteSize()}
    if options.precision == "int8-weights":
        quantize_weights(model)
        return model, how
    assert options.calibration is not None
    placement = Placement.of(prepared.mobile, options.keep_float)
    choice = quantize(model, placement, options.calibration, options.onnx_target, options.step)
    return choice.artifact, {**how, "target": options.onnx_target, "ranges": choice.as_json()}


def _mobile_usability(path: Path) -> list[str]:
    """What ONNX Runtime's own check of a model for mobile execution providers says, line by line.

    It goes by the kinds of op: whether the CPU, NNAPI or Core ML provider is the better choice on a phone, only a
    measurement on one can tell.
    """
    checker = require("onnxruntime.tools.mobile_helpers.usability_checker", extra="onnx")
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.Logger("usability", logging.INFO)
    logger.addHandler(handler)
    checker.analyze_model(path, logger=logger)
    return [line.strip() for line in lines[1:] if line.strip(" =-")]  # the first has the path


def form_for(mobile: MobileXFormer, precision: str, target: str = Options.onnx_target) -> nn.Module:
    """The form of ``mobile`` that is converted, whose modules' paths are in the names of the graph's nodes."""
    form = to_token_rows(mobile)
    if precision == "int8":  # its maps are a quarter of the size, and not in blocks
        return form
    return with_wide_maps(form, mobile.config.image_size, blocked=target == "x86")


def _fp32_model(onnx: Any, prepared: Prepared, options: Options) -> Any:
    """The graph in float32 as its own file has it."""
    return _float_model(onnx, prepared, dataclasses.replace(options, precision="fp32"))


def _float_model(onnx: Any, prepared: Prepared, options: Options) -> Any:
    """The graph in float32 that the precision starts from."""
    key = "onnx-int8" if options.precision == "int8" else f"onnx-{options.onnx_target}"
    if key not in prepared.lowered:
        form = form_for(prepared.mobile, options.precision, options.onnx_target)
        model = _lower(dataclasses.replace(prepared.network, module=form))
        _finish(onnx, prepared, model)
        prepared.lowered[key] = model.SerializeToString(deterministic=True)
    return onnx.load_from_string(prepared.lowered[key])


def _finish(onnx: Any, prepared: Prepared, model: Any) -> None:
    """Drop what is the exporter's, and say in the model what it is."""
    _clean(onnx, prepared.network, model)
    onnx.helper.set_model_props(model, metadata_of(prepared))


def _clean(onnx: Any, network: Network, model: Any) -> None:
    """Drop what differs from run to run or machine to machine and what is there twice; name model and producer."""
    _share_constants(model)
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    model.graph.name = network.name
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.ClearField("functions")
    model.producer_name, model.producer_version = PRODUCER, __version__
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)


def _share_constants(model: Any) -> None:
    """Keep one of the constants that are equal, such as the masks of a stage's blocks."""
    graph = model.graph
    first: dict[bytes, str] = {}
    other: dict[str, str] = {}
    for tensor in list(graph.initializer):
        unnamed = copy.copy(tensor)
        unnamed.ClearField("name")
        kept = first.setdefault(unnamed.SerializeToString(deterministic=True), tensor.name)
        if kept != tensor.name:
            other[tensor.name] = kept
            graph.initializer.remove(tensor)
    for node in graph.node:
        node.input[:] = [other.get(name, name) for name in node.input]


def _ranks(onnx: Any, model: Any) -> dict[str, int]:
    """The rank of every tensor of the graph; one that can't be inferred is an error."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if not all(dim.HasField("dim_value") for dim in dims):
            raise ConversionError(f"the onnx graph has a tensor without a static shape: {value.name}")
        ranks[value.name] = len(dims)
    unknown = [name for node in graph.node for name in node.output if name and name not in ranks]
    if unknown:
        raise ConversionError(f"the onnx graph has tensors of unknown shape: {', '.join(unknown[:5])}")
    return ranks
