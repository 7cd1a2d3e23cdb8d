"""ONNX: torch.export, the ONNX exporter on top of it, onnxsim, then metadata.

ONNX Runtime reads opset 18 since its version 1.14; the graph needs nothing from later ones. One translation is our
own: a mean over both spatial axes is GlobalAveragePool, the op made for it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from xformer_export.op_rules import check_graph
from xformer_export.prepare import Prepared
from xformer_mobile import __version__
from xformer_mobile.artifact import INPUT_NAME, describe_input
from xformer_mobile.errors import ConversionError
from xformer_mobile.optional import require

__all__ = ["OPSET", "convert", "metadata_of"]

OPSET = 18

PRODUCER = "xformer-mobile"


def convert(prepared: Prepared) -> bytes:
    """Convert the mobile form; returns the bytes of the .onnx file. Same weights, same versions, same bytes.

    Raises:
        ConversionError: the exporter or the simplifier failed, or the graph leaves the allowed ops.
        MissingDependencyError: onnx, onnxscript or onnxsim is not installed.
    """
    onnx = require("onnx", extra="onnx")
    require("onnxscript", extra="onnx")
    onnxsim = require("onnxsim", extra="onnx")

    exported = _export(prepared)
    try:
        model, same = onnxsim.simplify(exported)
    except Exception as error:  # the simplifier's C++ raises plain RuntimeErrors
        raise ConversionError(f"onnxsim failed: {error}") from error
    if not same:
        raise ConversionError("onnxsim changed what the graph computes")
    model = _clean(onnx, prepared, model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ConversionError(f"the ONNX checker refuses the graph: {str(error).splitlines()[0]}") from error
    check_graph("onnx", Counter(node.op_type for node in model.graph.node), _ranks(onnx, model))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def metadata_of(prepared: Prepared) -> dict[str, str]:
    """What the artifact says of itself, as ONNX ``metadata_props``."""
    config = prepared.config
    return {
        "generator": f"{PRODUCER} {__version__}",
        "task": config.task,
        "variant": config.variant.name,
        "labels": json.dumps(config.labels, ensure_ascii=False),
        "input": json.dumps(describe_input(config), ensure_ascii=False, sort_keys=True),
        "weights": json.dumps(prepared.weights, sort_keys=True),
    }


def _export(prepared: Prepared) -> Any:
    """The exporter's own result, as a ModelProto."""
    size = prepared.config.image_size
    example = torch.zeros(1, size.height, size.width, 3, dtype=torch.uint8)
    with _quiet():
        try:
            program = torch.onnx.export(
                prepared.mobile,
                (example,),
                input_names=[INPUT_NAME],
                output_names=list(prepared.config.output_shapes()),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                custom_translation_table=_translations(),
            )
        except Exception as error:  # the exporter raises whatever its passes raise
            raise ConversionError(f"torch.onnx.export failed: {_root_cause(error)}") from error
    assert program is not None
    for node in program.model.graph:
        # The module's path in front of each name, where a reader of the graph looks for it.
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
        path = json.loads(scopes.replace("'", '"'))[-2] if scopes else ""
        node.name = f"{path}/{node.name}" if path else node.name
    return program.model_proto


def _root_cause(error: BaseException) -> str:
    """The innermost error on one line: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _translations() -> dict[Any, Any]:
    op: Any = importlib.import_module("onnxscript").opset18

    def mean(x: Any, dim: Sequence[int], keepdim: bool = False, dtype: Any = None) -> Any:
        if sorted(axis % 4 for axis in dim) == [2, 3] and keepdim:
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


def _clean(onnx: Any, prepared: Prepared, model: Any) -> Any:
    """Drop what differs from run to run or machine to machine, and add the metadata."""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    model.graph.name = prepared.config.variant.name
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.ClearField("functions")
    model.producer_name, model.producer_version = PRODUCER, __version__
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.helper.set_model_props(model, metadata_of(prepared))
    return model


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
