"""Preflight: planted graphs and the findings they must give, the project's own artifacts, the tables and their page."""

from __future__ import annotations

import gc
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
import torch

from tests.conftest import MakeBundle
from xformer_export import ExportRequest, build_bundle
from xformer_mobile.bench.counts import count_artifact
from xformer_mobile.bench.counts.bundle import READERS
from xformer_mobile.bench.counts.graph import Graph, Operator, Tensor
from xformer_mobile.errors import BundleError, MissingDependencyError, UsageError
from xformer_mobile.forecast import SEVERITIES, Finding, forecast
from xformer_mobile.forecast.operators import LISTS, NNAPI_RANK, ORT_COREML, ORT_NNAPI, OpList
from xformer_mobile.forecast.preflight import apply_rules
from xformer_mobile.forecast.rules import FP16_MAX, FP16_NEAR, REPLACEMENTS, RULES, Rule
from xformer_mobile.forecast.subject import Subject
from xformer_mobile.optional import import_coremltools
from xformer_mobile.spec import ImageSize

PAGE = Path(__file__).parent.parent / "docs/forecast.md"

ENTRY = {
    "type": "object",
    "additionalProperties": False,
    "required": ["target", "severity", "op", "count", "modules", "message", "rewrite", "source"],
    "properties": {
        "target": {"type": "string", "pattern": "^[a-z-]+$"},
        "severity": {"enum": ["leaves", "slow", "risk", "note"]},
        "op": {"type": "string", "minLength": 1},
        "count": {"type": "integer", "minimum": 1},
        "modules": {"type": "array", "items": {"type": "string", "minLength": 1}, "uniqueItems": True},
        "message": {"type": "string", "minLength": 1},
        "rewrite": {"type": "string", "minLength": 1},
        "source": {"type": "string", "pattern": "^https://[a-z.]+/"},
    },
}

Key = tuple[str, str, str]


def keys(findings: Iterable[Finding]) -> set[Key]:
    """What the findings are about; all of them are checked to be entries of a report."""
    found = set()
    for finding in findings:
        jsonschema.validate(finding.as_json(), ENTRY)
        found.add((finding.target, finding.severity, finding.op))
    return found


def leaves(op: str, *targets: str) -> set[Key]:
    return {(target, "leaves", op) for target in targets}


# ---- .onnx --------------------------------------------------------------------------------------------------

F, F16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
ALWAYS = {("nnapi", "note", "model")}
FP32 = {*ALWAYS, ("qnn", "note", "model")}
TRANSPOSE = {("onnxruntime", "slow", "Transpose"), ("xnnpack", "leaves", "Transpose")}
DYNAMIC = {(target, "risk", "model") for target in ("coreml", "nnapi", "qnn")}

node = onnx.helper.make_node


def weight(name: str, *shape: int, values: Any = None) -> Any:
    return onnx.numpy_helper.from_array(np.ones(shape, np.float32) if values is None else values, name)


def value(name: str, *shape: int | str, kind: int = F) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def write_onnx(path: Path, inputs: list[Any], nodes: list[Any], out: Any, constants: Iterable[Any] = ()) -> Path:
    graph = onnx.helper.make_graph(nodes, "g", inputs, [out], list(constants))
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


QDQ = [
    node("QuantizeLinear", ["x", "s"], ["q"]),
    node("DequantizeLinear", ["q", "s"], ["d"]),
    node("Conv", ["d", "w"], ["y"], kernel_shape=[1, 1]),
]

ONNX_CASES: dict[str, tuple[list[Any], list[Any], Any, list[Any], set[Key]]] = {
    "erf": (
        [value("x", 1, 8)],
        [node("Erf", ["x"], ["y"])],
        value("y", 1, 8),
        [],
        FP32 | leaves("Erf", "xnnpack", "nnapi", "qnn"),
    ),
    "einsum": (
        [value("x", 2, 3), value("z", 3, 4)],
        [node("Einsum", ["x", "z"], ["y"], equation="ij,jk->ik")],
        value("y", 2, 4),
        [],
        FP32 | leaves("Einsum", "xnnpack", "nnapi", "coreml"),
    ),
    "five axes": (
        [value("x", 1, 2, 3, 4, 5)],
        [node("Transpose", ["x"], ["y"], perm=[0, 2, 1, 3, 4])],
        value("y", 1, 3, 2, 4, 5),
        [],
        FP32 | TRANSPOSE | leaves("Transpose", "nnapi"),
    ),
    "six axes": (
        [value("x", 1, 2, 3, 4, 5, 6)],
        [node("Transpose", ["x"], ["y"], perm=[0, 2, 1, 3, 4, 5])],
        value("y", 1, 3, 2, 4, 5, 6),
        [],
        FP32 | TRANSPOSE | leaves("Transpose", "nnapi", "coreml"),
    ),
    "a batch that is not fixed": (
        [value("x", "batch", 8)],
        [node("Softmax", ["x"], ["y"])],
        value("y", "batch", 8),
        [],
        FP32 | DYNAMIC,
    ),
    "a product with a weight": (
        [value("x", 5, 8)],
        [node("MatMul", ["x", "w"], ["y"])],
        value("y", 5, 4),
        [weight("w", 8, 4)],
        FP32,
    ),
    "a product with a weight that is unpacked": (
        [value("x", 5, 8)],
        [node("Transpose", ["v"], ["w"]), node("MatMul", ["x", "w"], ["y"])],
        value("y", 5, 4),
        [weight("v", 4, 8)],
        FP32 | TRANSPOSE,
    ),
    "a product of two matrices": (
        [value("x", 5, 8), value("z", 8, 4)],
        [node("MatMul", ["x", "z"], ["y"])],
        value("y", 5, 4),
        [],
        FP32 | leaves("MatMul", "xnnpack", "nnapi"),
    ),
    "a product of stacks": (
        [value("x", 2, 5, 8), value("z", 2, 8, 4)],
        [node("MatMul", ["x", "z"], ["y"])],
        value("y", 2, 5, 4),
        [],
        FP32 | leaves("MatMul", "xnnpack"),
    ),
    "a product of a stack and a weight": (
        [value("x", 2, 5, 8)],
        [node("MatMul", ["x", "w"], ["y"])],
        value("y", 2, 5, 4),
        [weight("w", 8, 4)],
        FP32 | leaves("MatMul", "nnapi"),
    ),
    "a convolution in 1-D": (
        [value("x", 1, 8, 5)],
        [node("Conv", ["x", "w"], ["y"], kernel_shape=[1])],
        value("y", 1, 4, 5),
        [weight("w", 4, 8, 1)],
        FP32 | leaves("Conv", "xnnpack"),
    ),
    "an activation behind a convolution": (
        [value("x", 1, 8, 5, 5)],
        [node("Conv", ["x", "w"], ["c"], kernel_shape=[1, 1]), node("Relu", ["c"], ["y"])],
        value("y", 1, 4, 5, 5),
        [weight("w", 4, 8, 1, 1)],
        FP32,
    ),
    "an activation behind none": (
        [value("x", 1, 8)],
        [node("Relu", ["x"], ["y"])],
        value("y", 1, 8),
        [],
        FP32 | leaves("Relu", "xnnpack"),
    ),
    "between quantize and dequantize": (
        [value("x", 1, 8, 5, 5)],
        QDQ,
        value("y", 1, 4, 5, 5),
        [weight("w", 4, 8, 1, 1), weight("s", values=np.float32(0.5))],
        FP32 | leaves("QuantizeLinear", "coreml") | leaves("DequantizeLinear", "coreml"),
    ),
    "fp16": (
        [value("x", 1, 8, kind=F16)],
        [node("Softmax", ["x"], ["y"])],
        value("y", 1, 8, kind=F16),
        [],
        ALWAYS | leaves("model", "nnapi"),
    ),
    "a cast between precisions": (
        [value("x", 1, 8)],
        [node("Cast", ["x"], ["y"], to=F16)],
        value("y", 1, 8, kind=F16),
        [],
        FP32 | leaves("Cast", "xnnpack") | {("onnxruntime", "slow", "Cast")},
    ),
    "a cast of bytes": (
        [value("x", 1, 8, kind=onnx.TensorProto.UINT8)],
        [node("Cast", ["x"], ["y"], to=F)],
        value("y", 1, 8),
        [],
        ALWAYS | leaves("Cast", "xnnpack"),
    ),
}


@pytest.mark.parametrize("name", ONNX_CASES)
def test_a_planted_onnx_graph(name: str, tmp_path: Path) -> None:
    inputs, nodes, out, constants, expected = ONNX_CASES[name]
    assert keys(forecast(write_onnx(tmp_path / "m.onnx", inputs, nodes, out, constants), "onnx")) == expected


@pytest.mark.parametrize("name", ["erf", "a product of two matrices"])
def test_an_ort_file_has_the_same_findings(name: str, tmp_path: Path) -> None:
    import onnxruntime

    inputs, nodes, out, constants, expected = ONNX_CASES[name]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "m.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    model = write_onnx(tmp_path / "m.onnx", inputs, nodes, out, constants)
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    assert keys(forecast(tmp_path / "m.ort", "ort")) == expected


@pytest.mark.parametrize(
    ("op", "target", "rewrite"),
    [("Erf", "nnapi", "tanh"), ("Erf", "qnn", "Gelu"), ("Einsum", "nnapi", "MatMul"), ("Einsum", "xnnpack", "listed")],
)
def test_a_rewrite_takes_ops_that_the_target_has(op: str, target: str, rewrite: str, tmp_path: Path) -> None:
    inputs, nodes, out, constants, _ = ONNX_CASES[op.lower()]
    findings = forecast(write_onnx(tmp_path / "m.onnx", inputs, nodes, out, constants), "onnx")
    (finding,) = (finding for finding in findings if (finding.op, finding.target) == (op, target))
    assert rewrite in finding.rewrite


@pytest.mark.parametrize(
    ("name", "paths", "modules"),
    [
        ("head.1/node_Erf", {}, ("head.1",)),
        ("/head/1/Erf", {}, ("head.1",)),
        ("Erf", {}, ()),
        ("Erf", {"Erf": "head.1"}, ("head.1",)),
        ("neck/node_Erf", {"y": "head.1"}, ("head.1",)),
    ],
    ids=["ours", "another exporter's", "no path", "by the op's name", "by the tensor's name"],
)
def test_modules(name: str, paths: dict[str, str], modules: tuple[str, ...], tmp_path: Path) -> None:
    nodes = [node("Erf", ["x"], ["y"], name=name)]
    model = write_onnx(tmp_path / "m.onnx", [value("x", 1, 8)], nodes, value("y", 1, 8))
    assert {finding.modules for finding in forecast(model, "onnx", paths=paths) if finding.op == "Erf"} == {modules}


def test_the_heaviest_come_first_and_ops_are_counted(tmp_path: Path) -> None:
    nodes = [node("Erf", ["x"], ["a"]), node("Transpose", ["a"], ["b"]), node("Erf", ["b"], ["y"])]
    model = write_onnx(tmp_path / "m.onnx", [value("x", 4, 8)], nodes, value("y", 8, 4))
    findings = forecast(model, "onnx")
    order = [list(SEVERITIES).index(finding.severity) for finding in findings]
    assert order == sorted(order)
    assert {finding.op: finding.count for finding in findings if finding.target == "xnnpack"} == {
        "Erf": 2,
        "Transpose": 1,
    }


# ---- .tflite ------------------------------------------------------------------------------------------------

Tensors = list[tuple[str, tuple[int, ...], Any]]
Ops = list[tuple[str, list[str], str]]


def write_tflite(path: Path, tensors: Tensors, operators: Ops, *, batch_is_free: bool = False) -> Path:
    """Tensors: name, shape, and a numpy type, or the values. The first is the input, the last op makes the output."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    model, graph = schema.ModelT(version=3), schema.SubGraphT(tensors=[], operators=[])
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    places = {}
    for name, shape, held in tensors:
        is_constant = isinstance(held, np.ndarray)
        kind = getattr(schema.TensorType, (held.dtype if is_constant else np.dtype(held)).name.upper())
        if is_constant:
            model.buffers.append(schema.BufferT(data=np.frombuffer(held.tobytes(), np.uint8)))
        places[name] = len(graph.tensors)
        buffer = len(model.buffers) - 1 if is_constant else 0
        graph.tensors.append(schema.TensorT(shape=list(shape), type=kind, buffer=buffer, name=name.encode()))
    if batch_is_free:
        graph.tensors[0].shapeSignature = [-1, *tensors[0][1][1:]]
    for kind, inputs, output in operators:
        model.operatorCodes.append(schema.OperatorCodeT(min(getattr(schema.BuiltinOperator, kind), 127), None, 1, 0))
        model.operatorCodes[-1].builtinCode = getattr(schema.BuiltinOperator, kind)
        name = "".join(part.capitalize() for part in kind.split("_")) + "Options"
        name = {"BatchMatmulOptions": "BatchMatMulOptions"}.get(name, name)
        options = getattr(schema, f"{name}T", None)
        graph.operators.append(
            schema.OperatorT(
                len(model.operatorCodes) - 1,
                [places[tensor] for tensor in inputs],
                [places[output]],
                getattr(schema.BuiltinOptions, name, 0),
                None if options is None else options(),
            )
        )
    graph.inputs, graph.outputs = [0], [places[operators[-1][2]]]
    model.subgraphs = [graph]
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(builder.Output())
    return path


f32, i32 = np.float32, np.int32

TFLITE_CASES: dict[str, tuple[Tensors, Ops, set[Key]]] = {
    "nothing to say": ([("x", (1, 8), f32), ("y", (1, 8), f32)], [("LOGISTIC", ["x"], "y")], set()),
    "what XNNPACK leaves": (
        [("x", (1, 8), f32), ("y", (1, 8), f32)],
        [("FLOOR_MOD", ["x", "x"], "y")],
        leaves("FLOOR_MOD", "xnnpack"),
    ),
    "an op that the GPU has not": (
        [("x", (1, 8), f32), ("axis", (1,), np.array([0], i32)), ("y", (1, 1, 8), f32)],
        [("EXPAND_DIMS", ["x", "axis"], "y")],
        leaves("EXPAND_DIMS", "gpu", "xnnpack"),
    ),
    "five axes": (
        [("x", (1, 2, 2, 2, 2), f32), ("y", (1, 2, 2, 2, 2), f32)],
        [("LOGISTIC", ["x"], "y")],
        leaves("LOGISTIC", "gpu"),
    ),
    "bytes to float": (
        [("x", (1, 8), np.uint8), ("y", (1, 8), f32)],
        [("CAST", ["x"], "y")],
        leaves("CAST", "xnnpack", "gpu"),
    ),
    "whole numbers": (
        [("x", (1, 8), i32), ("y", (1, 8), i32)],
        [("ABS", ["x"], "y")],
        leaves("ABS", "xnnpack", "gpu"),
    ),
    "a slice of two axes": (
        [
            ("x", (4, 8), f32),
            ("b", (2,), np.array([0, 0], i32)),
            ("s", (2,), np.array([2, 8], i32)),
            ("y", (2, 8), f32),
        ],
        [("SLICE", ["x", "b", "s"], "y")],
        leaves("SLICE", "gpu"),
    ),
    "a constant stack": (
        [("x", (2, 4, 8), f32), ("w", (2, 8, 3), np.ones((2, 8, 3), f32)), ("y", (2, 4, 3), f32)],
        [("BATCH_MATMUL", ["x", "w"], "y")],
        leaves("BATCH_MATMUL", "gpu"),
    ),
    "layout": (
        [("x", (4, 8), f32), ("p", (2,), np.array([1, 0], i32)), ("y", (8, 4), f32)],
        [("TRANSPOSE", ["x", "p"], "y")],
        {("gpu", "slow", "TRANSPOSE")},
    ),
}


@pytest.mark.parametrize("name", TFLITE_CASES)
def test_a_planted_tflite_graph(name: str, tmp_path: Path) -> None:
    tensors, operators, expected = TFLITE_CASES[name]
    assert keys(forecast(write_tflite(tmp_path / "m.tflite", tensors, operators), "tflite")) == expected


def test_a_tflite_input_that_is_not_fixed(tmp_path: Path) -> None:
    tensors, operators, _ = TFLITE_CASES["nothing to say"]
    (finding,) = forecast(write_tflite(tmp_path / "m.tflite", tensors, operators, batch_is_free=True), "tflite")
    assert (finding.target, finding.severity, finding.count) == ("gpu", "risk", 1)
    assert finding.message.endswith(": x")


def test_modules_of_what_xnnpack_leaves_are_named_only_if_it_leaves_all_of_a_kind() -> None:
    made = Tensor((1, 8), 32, is_float=True)
    operators = tuple(Operator("MUL", outputs=((str(place), made),), name=f"head/{place};1") for place in range(2))
    graph = Graph(operators, 0)
    found = {left: apply_rules(Subject("tflite", graph, left={"MUL": left})) for left in (1, 2)}
    assert {left: [(finding.count, finding.modules) for finding in each] for left, each in found.items()} == {
        1: [(1, ())],
        2: [(2, ("head.0", "head.1"))],
    }


# ---- Core ML ------------------------------------------------------------------------------------------------


def write_coreml(path: Path, shape: tuple[int, ...], body: Callable[[Any, Any], Any], *, half: bool) -> Path:
    ct = import_coremltools()
    from coremltools.converters.mil import Builder

    @Builder.program(input_specs=[Builder.TensorSpec(shape=shape)], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        return body(Builder, x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coremltools leaves a temporary folder to the garbage collector
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            skip_model_load=True,
            package_dir=str(path),
        )
        gc.collect()
    return path


def _rearranged(mb: Any, x: Any) -> Any:
    moved = mb.transpose(x=mb.linear(x=x, weight=np.ones((5, 4), f32)), perm=[0, 2, 1, 3, 4])
    return mb.relu(x=mb.reshape(x=mb.sigmoid(x=moved), shape=[3, 10]))


CASTS = {("neural-engine", "slow", "cast")}
COREML_CASES: dict[str, tuple[tuple[int, ...], Callable[[Any, Any], Any], bool, set[Key]]] = {
    "fp32": ((1, 3, 4, 4), lambda mb, x: mb.relu(x=x), False, {("neural-engine", "leaves", "model")}),
    "fp16": ((1, 3, 4, 4), lambda mb, x: mb.relu(x=x), True, CASTS),
    "five axes, moved": (
        (1, 2, 3, 1, 4),
        _rearranged,
        True,
        CASTS
        | {("neural-engine", "slow", "transpose")}
        | {("neural-engine", "note", op) for op in ("linear", "reshape", "cast", "transpose", "sigmoid")},
    ),
    "gather": (
        (1, 3, 4, 4),
        lambda mb, x: mb.gather(x=x, indices=np.array([2, 0], i32), axis=1),
        True,
        CASTS | {("neural-engine", "note", "gather")},
    ),
    "a short last axis": (
        (1, 64, 64, 2),
        lambda mb, x: mb.relu(x=x),
        True,
        CASTS | {("neural-engine", "note", "model")},
    ),
}


@pytest.mark.parametrize("name", COREML_CASES)
def test_a_planted_coreml_program(name: str, tmp_path: Path) -> None:
    shape, body, half, expected = COREML_CASES[name]
    assert keys(forecast(write_coreml(tmp_path / "m.mlpackage", shape, body, half=half), "coreml")) == expected


def test_a_coreml_input_that_is_not_fixed(tmp_path: Path) -> None:
    path = write_coreml(tmp_path / "m.mlpackage", (1, 3, 4, 4), lambda mb, x: mb.relu(x=x), half=True)
    (file,) = path.rglob("*.mlmodel")
    spec = import_coremltools().proto.Model_pb2.Model()
    spec.ParseFromString(file.read_bytes())
    spec.description.input[0].type.multiArrayType.shapeRange.sizeRanges.add(lowerBound=1, upperBound=4)
    file.write_bytes(spec.SerializeToString())
    (finding,) = forecast(path, "coreml")
    assert (finding.target, finding.severity) == ("neural-engine", "risk")
    assert finding.message.endswith(": x")


# ---- ExecuTorch ---------------------------------------------------------------------------------------------


class _Modulo(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.remainder(x.sigmoid(), 0.5)


def test_an_executorch_program(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of its own
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(_Modulo().eval(), (torch.ones(1, 8),))
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    (tmp_path / "m.pte").write_bytes(lowered.buffer)
    assert keys(forecast(tmp_path / "m.pte", "executorch")) == leaves("aten::remainder", "xnnpack")


@pytest.mark.parametrize(("foreign", "target"), [(False, "xnnpack"), (True, "delegate")], ids=["xnnpack", "another"])
def test_kernels_outside_of_a_delegate(foreign: bool, target: str) -> None:
    kernel = Operator("aten::remainder", name="aten::remainder 3")
    assert keys(apply_rules(Subject("executorch", Graph((kernel,), 0), foreign=foreign))) == leaves(kernel.kind, target)


# ---- fp16 ---------------------------------------------------------------------------------------------------

NEAR, OVER = "near", "overflows"


@pytest.mark.parametrize(
    ("reach", "word"),
    [
        (1.0, ""),
        (FP16_NEAR, ""),
        (FP16_NEAR + 1, NEAR),
        (FP16_MAX, NEAR),
        (1e5, OVER),
        (math.inf, OVER),
        (math.nan, OVER),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("format", "bits", "targets"),
    [
        ("onnx", 32, {"qnn"}),
        ("onnx", 16, {"onnxruntime", "qnn"}),
        ("tflite", 32, {"gpu"}),
        ("coreml", 32, set()),
        ("coreml", 16, {"neural-engine"}),
        ("executorch", 32, set()),
        ("executorch", 16, {"xnnpack"}),
    ],
)
@pytest.mark.parametrize("by", ["y", "mul_1"], ids=["by tensor", "by op"])
def test_ranges(format: str, bits: int, targets: set[str], reach: float, word: str, by: str) -> None:
    operator = Operator("mul", outputs=(("y", Tensor((1, 8), bits, is_float=True)),), name="mul_1")
    subject = Subject(format, Graph((operator,), 0), ranges={by: reach}, paths={"mul_1": "head"})
    found = [finding for finding in apply_rules(subject) if finding.severity == "risk"]
    assert {finding.target for finding in found} == (targets if word else set())
    assert all(word in finding.message and finding.modules == ("head",) for finding in found)
    keys(found)


def test_ranges_of_integers_say_nothing() -> None:
    operator = Operator("MUL", outputs=(("y", Tensor((1, 8), 8)),), name="mul_1")
    assert not apply_rules(Subject("tflite", Graph((operator,), 0), ranges={"y": 1e9}))


# ---- the project's own artifacts ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artifacts(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """In fp32, but for ExecuTorch, whose conversion takes longest."""
    folder = tmp_path_factory.mktemp("forecast") / "bundle"
    size = ImageSize(64, 64)
    build_bundle(ExportRequest(formats=("coreml", "tflite"), variant="xformer_xxs", image_size=size, output=folder))
    return {
        "onnx": make_bundle("classify") / "model.onnx",
        "coreml": folder / "model.mlpackage",
        "tflite": folder / "model.tflite",
    }


OWN: dict[str, set[Key]] = {
    "onnx": leaves("MatMul", "nnapi", "xnnpack")
    | {("onnxruntime", "slow", "Transpose")}
    | {("nnapi", "leaves", op) for op in ("Gelu", "LayerNormalization", "Reciprocal")},
    "coreml": {("neural-engine", "leaves", "model"), ("neural-engine", "note", "reshape")},
    "tflite": {("gpu", "slow", "RESHAPE"), ("gpu", "slow", "TRANSPOSE")},
}
"""Some of the findings of each."""


@pytest.mark.parametrize("format", OWN)
def test_our_own_artifacts(format: str, artifacts: dict[str, Path]) -> None:
    findings = forecast(artifacts[format], format)
    found = keys(findings)
    assert found >= OWN[format]
    assert not {key for key in found if key[1] == "risk"}
    assert not [finding for finding in findings if "axes, which" in finding.message]  # nothing of more than four
    assert not {key for key in found if key[0] in ("coreml", "qnn", "gpu") and key[1] == "leaves"}
    transposes = [
        finding.count for finding in findings if finding.op.lower() == "transpose" and finding.severity == "slow"
    ]
    assert sum(transposes) == count_artifact(format, artifacts[format])["transposes"]


def test_our_own_modules_are_named(make_bundle: MakeBundle) -> None:
    (finding,) = (
        found
        for found in forecast(make_bundle("classify") / "model.onnx", "onnx")
        if (found.target, found.op) == ("nnapi", "Gelu")
    )
    assert len(finding.modules) == finding.count
    assert all(re.fullmatch(r"backbone\.stages\.\d\.1\.blocks\.\d\.mlp\.1", path) for path in finding.modules)


# ---- tables and errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_is_complete(rule: Rule) -> None:
    assert set(rule.formats) <= set(READERS)
    assert rule.severity in SEVERITIES
    assert rule.message
    assert rule.rewrite
    assert re.match(r"https://[\w.]+/", rule.source)
    rows = [row for row in PAGE.read_text("utf-8").splitlines() if row.startswith(f"| `{rule.name}` |")]
    assert len(rows) == 1, "docs/forecast.md has one row for each rule"
    assert f"]({rule.source})" in rows[0]
    assert f"| {rule.severity} |" in rows[0]


def test_each_format_has_rules_and_their_names_differ() -> None:
    assert {format for rule in RULES for format in rule.formats} == set(READERS)
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("listed", "file"),
    [(ORT_NNAPI, "nnapi_supported_ops.md"), (ORT_COREML, "coreml_supported_mlprogram_ops.md")],
    ids=["nnapi", "coreml"],
)
def test_op_lists_have_all_that_onnx_runtime_ships(listed: OpList, file: str) -> None:
    """A newer version may list more: then it is time to look them up again. ArgMax is spelled Argmax there."""
    import onnxruntime

    page = (Path(onnxruntime.__file__).parent / "tools/mobile_helpers" / file).read_text("utf-8")
    theirs = re.findall(r"^\|(?:ai\.onnx|com\.microsoft):(\w+)\|", page, re.MULTILINE)
    assert len(theirs) > 30
    assert not {{"Argmax": "ArgMax"}.get(op, op) for op in theirs} - listed.ops


def test_tables_agree() -> None:
    assert ORT_NNAPI.ops >= NNAPI_RANK
    for row in REPLACEMENTS:
        assert any(row.needs <= listed.ops and row.op not in listed.ops for listed in LISTS), row


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no forecast for the format 'caffe'; there is for onnx"):
        forecast(tmp_path / "model", "caffe")


@pytest.mark.parametrize("format", READERS)
def test_a_file_that_is_broken_or_not_there_is_one_error(format: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        forecast(tmp_path / "missing", format)
    (tmp_path / "model").write_bytes(b"not a model, and not one of any other kind either")
    with pytest.raises(BundleError):
        forecast(tmp_path / "model", format)


@pytest.mark.parametrize(
    ("format", "module", "extra"),
    [("onnx", "onnx", "onnx"), ("tflite", "ai_edge_litert.schema_py_generated", "tflite")],
    ids=["onnx", "tflite"],
)
def test_a_missing_package_is_named(
    format: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"xformer-mobile\[{extra}\]"):
        forecast(tmp_path / "model", format)
