"""What is counted in each format's graph, limits and baselines, planted regressions, counted instructions."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest

from tests.conftest import Call, MakeBundle, macs_by_torch
from xformer_export.prepare import prepare
from xformer_export.to_onnx import form_for
from xformer_mobile.artifact import Bundle
from xformer_mobile.bench import instructions
from xformer_mobile.bench.counts import COUNTS, Baseline, count_artifact, count_bundle, exceeded, gate, improved
from xformer_mobile.errors import BundleError, UnavailableError, UsageError
from xformer_mobile.optional import import_coremltools
from xformer_mobile.runners import ENGINES

SCHEMA = Path(gate.__file__).parent.parent.parent / "schemas/counts_baseline.schema.json"


@pytest.fixture(scope="module")
def bundle(make_bundle: MakeBundle) -> Path:
    return make_bundle("classify")


# ---- graphs known by hand -----------------------------------------------------------------------------------


def write_onnx(path: Path) -> None:
    """A grouped convolution, a reshape that is none to .ort, and a matmul."""
    helper, f = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=2),
        helper.make_node("Reshape", ["c", "shape"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["m", "t"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "w"),
        onnx.numpy_helper.from_array(np.int64([1, 100]), "shape"),
        onnx.numpy_helper.from_array(np.ones((7, 100), np.float32), "m"),
    ]
    ends = [helper.make_tensor_value_info("x", f, [1, 2, 5, 5])], [helper.make_tensor_value_info("y", f, [7, 1])]
    opset = [helper.make_opsetid("", 18)]
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", *ends, constants), opset_imports=opset, ir_version=8), path
    )


def write_ort(path: Path) -> None:
    """The same, as ONNX Runtime saves it without changing the graph."""
    import onnxruntime

    write_onnx(path.with_suffix(".onnx"))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(path.with_suffix(".onnx")), options, providers=["CPUExecutionProvider"])


ONNX_COUNTS = {
    "macs": 4 * 5 * 5 * 9 + 7 * 100,
    "ops": 4,
    "transposes": 1,
    "qdq-pairs": 0,
    "weights-bytes": 144 + 16 + 2800,
    "bytes-moved": (200 + 144 + 400) + (400 + 16 + 400) + (400 + 400) + (400 + 2800 + 28),
}


def write_tflite(path: Path, *, modulo: str = "", transposes: int = 0) -> None:
    """A convolution and a depthwise one; between them, or instead of them, a modulo, which XNNPACK does not take."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    codes = schema.BuiltinOperator
    model, graph = schema.ModelT(version=3), schema.SubGraphT(tensors=[], operators=[])
    model.buffers = [schema.BufferT()]

    def tensor(shape: list[int], values: Any = None) -> int:
        kind = schema.TensorType.FLOAT32 if values is None or values.dtype == np.float32 else schema.TensorType.INT32
        if values is not None:
            model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        index = len(graph.tensors)
        buffer = 0 if values is None else len(model.buffers) - 1
        graph.tensors.append(schema.TensorT(shape=shape, type=kind, buffer=buffer, name=f"t{index}".encode()))
        return index

    def add(code: int, inputs: list[int], shape: list[int], kind: int = 0, options: Any = None) -> int:
        model.operatorCodes = [*(model.operatorCodes or []), schema.OperatorCodeT(code, None, 2, code)]
        made = tensor(shape)
        graph.operators.append(
            schema.OperatorT(len(model.operatorCodes) - 1, inputs, [made], kind, builtinOptions=options)
        )
        return made

    def take_modulo(x: int) -> int:
        return add(codes.FLOOR_MOD, [x, x], graph.tensors[x].shape, schema.BuiltinOptions.FloorModOptions)

    image = last = tensor([1, 4, 4, 2])
    if modulo != "alone":
        kernel = tensor([3, 1, 1, 2], np.ones((3, 1, 1, 2), np.float32))
        zeros = tensor([3], np.zeros(3, np.float32))
        strides = {"strideH": 1, "strideW": 1}
        last = add(
            codes.CONV_2D,
            [image, kernel, zeros],
            [1, 4, 4, 3],
            schema.BuiltinOptions.Conv2DOptions,
            schema.Conv2DOptionsT(**strides),
        )
        if modulo:
            last = take_modulo(last)
        for _ in range(transposes):
            order = tensor([4], np.int32([0, 2, 1, 3]))
            last = add(codes.TRANSPOSE, [last, order], [1, 4, 4, 3], schema.BuiltinOptions.TransposeOptions)
        kernel = tensor([1, 3, 3, 3], np.ones((1, 3, 3, 3), np.float32))
        last = add(
            codes.DEPTHWISE_CONV_2D,
            [last, kernel, zeros],
            [1, 4, 4, 3],
            schema.BuiltinOptions.DepthwiseConv2DOptions,
            schema.DepthwiseConv2DOptionsT(**strides, depthMultiplier=1),
        )
    else:
        last = take_modulo(image)
    for operator in graph.operators:
        if operator.builtinOptions is None:
            names = {value: name for name, value in vars(schema.BuiltinOptions).items() if isinstance(value, int)}
            operator.builtinOptions = getattr(schema, f"{names[operator.builtinOptionsType]}T")()
    graph.inputs, graph.outputs = [image], [last]
    model.subgraphs = [graph]
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(builder.Output())


TFLITE_COUNTS = {
    "macs": 3 * 16 * 2 + 3 * 16 * 9,
    "ops": 2,
    "transposes": 0,
    "partitions": 1,
    "undelegated-ops": 0,
    "qdq-pairs": 0,
    "weights-bytes": 24 + 12 + 108,
    "bytes-moved": (128 + 24 + 12 + 192) + (192 + 108 + 12 + 192),
}


def write_coreml(path: Path) -> None:
    """A convolution and a matmul of its transposed result."""
    ct = import_coremltools()
    from coremltools.converters.mil import Builder

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(1, 2, 4, 4))], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        made = Builder.conv(x=x, weight=np.ones((3, 2, 1, 1), np.float32))
        rows = Builder.reshape(x=made, shape=[3, 16])
        product = Builder.matmul(x=rows, y=np.ones((3, 11), np.float32), transpose_x=True)
        return Builder.transpose(x=product, perm=[1, 0], name="out")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coremltools leaves a temporary folder to the garbage collector
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
            package_dir=str(path),
            pass_pipeline=ct.PassPipeline.EMPTY,
        )
        gc.collect()


COREML_COUNTS = {
    "macs": 3 * 16 * 2 + 16 * 11 * 3,
    "ops": 4,
    "transposes": 1,
    "qdq-pairs": 0,
    "weights-bytes": 24 + 132,
    "bytes-moved": (128 + 24 + 192) + (192 + 192) + (192 + 132 + 704) + (704 + 704),
}

BY_HAND: dict[str, tuple[str, Callable[[Path], None], dict[str, int]]] = {
    "onnx": ("model.onnx", write_onnx, ONNX_COUNTS),
    "ort": ("model.ort", write_ort, ONNX_COUNTS),
    "tflite": ("model.tflite", write_tflite, TFLITE_COUNTS),
    "coreml": ("model.mlpackage", write_coreml, COREML_COUNTS),
}


@pytest.mark.parametrize("format", BY_HAND)
def test_counts_of_a_graph_known_by_hand(format: str, tmp_path: Path) -> None:
    name, write, counts = BY_HAND[format]
    write(tmp_path / name)
    assert count_artifact(format, tmp_path / name) == counts


@pytest.mark.parametrize(
    ("modulo", "partitions", "undelegated"), [("", 1, 0), ("between", 2, 1), ("alone", 0, 1)], ids=str
)
def test_what_xnnpack_takes(modulo: str, partitions: int, undelegated: int, tmp_path: Path) -> None:
    write_tflite(tmp_path / "model.tflite", modulo=modulo)
    counts = count_artifact("tflite", tmp_path / "model.tflite")
    assert (counts["partitions"], counts["undelegated-ops"]) == (partitions, undelegated)


@pytest.mark.parametrize("format", ["onnx", "ort", "tflite"])
def test_a_broken_artifact_is_one_error(format: str, tmp_path: Path) -> None:
    """Cut off or overwritten anywhere, it is counted or refused; nothing else is raised."""
    name, write, _ = BY_HAND[format]
    file = tmp_path / name
    write(file)
    content = file.read_bytes()
    for length in range(0, len(content) // 2, max(1, len(content) // 60)):
        file.write_bytes(content[:length])
        with pytest.raises(BundleError, match=name):
            count_artifact(format, file)
    if format == "tflite":
        return  # a file that LiteRT itself reads wrongly can take the process with it
    generator = np.random.default_rng(0)
    for place in generator.integers(0, len(content), 200):
        file.write_bytes(content[:place] + b"\xff\xff" + content[place + 2 :])
        with contextlib.suppress(BundleError):
            count_artifact(format, file)


def test_counts_of_a_bundle(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    counts = count_bundle(opened)["onnx"]
    assert counts.keys() == COUNTS.keys() - {"partitions", "undelegated-ops", "instructions"}
    graph = onnx.load(bundle / "model.onnx").graph
    assert counts["ops"] == len(graph.node)
    assert counts["transposes"] == sum(node.op_type == "Transpose" for node in graph.node)
    assert counts["weights-bytes"] == sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer)
    assert counts["artifact-bytes"] == (bundle / "model.onnx").stat().st_size
    # Exact algebra makes the mobile form cheaper than the reference; most of the work is the same.
    assert 0.7 < counts["macs"] / opened.manifest["model"]["macs"] <= 1.05
    assert count_bundle(opened) == count_bundle(opened)


def test_macs_of_onnx_are_those_that_pytorch_counts(bundle: Path) -> None:
    """Other formats' tests are with their converters."""
    opened = Bundle.open(bundle)
    prepared = prepare(None, task="classify", variant="xformer_xxs", image_size=opened.image_size)
    assert count_bundle(opened)["onnx"]["macs"] == macs_by_torch(form_for(prepared.mobile, "fp32"), opened.image_size)


def test_without_its_package_a_format_keeps_what_the_report_has(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    counts = count_bundle(Bundle.open(bundle))["onnx"]
    assert counts.keys() == {"ops", "transposes", "qdq-pairs", "artifact-bytes"}
    status, out, _ = call("bench", "counts", bundle, "--max-macs", 10**15)
    assert status == 1
    assert "MISSED: onnx: macs can't be counted here" in out


# ---- limits and baselines -----------------------------------------------------------------------------------

COUNTED = {"onnx": {"ops": 10, "transposes": 2}, "tflite": {"ops": 20, "partitions": 1}}


def test_limits() -> None:
    assert exceeded(COUNTED, {}) == []
    assert [str(excess) for excess in exceeded(COUNTED, {"ops": 15})] == ["tflite: ops is 20, 15 is allowed"]
    assert exceeded(COUNTED, {"partitions": 1}) == []  # ONNX has no delegate
    assert len(exceeded(COUNTED, {"bytes-moved": 1})) == 2  # nobody could count it: nothing passes
    assert exceeded(COUNTED, {"ops": 15}, {"tflite": {"ops": 20}}) == []
    assert [excess.format for excess in exceeded(COUNTED, {}, {"onnx": {"partitions": 9}})] == ["onnx"]
    nothing = {"tflite": {"partitions": 0}}
    assert ["nothing is delegated" in str(excess) for excess in exceeded(nothing, {"partitions": 1})] == [True]
    assert exceeded(nothing, {"partitions": 0}) == []


def test_a_baseline_allows_what_it_has(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    file.write_bytes(Baseline(COUNTED).as_bytes())
    before = Baseline.read(file)
    assert before == Baseline(COUNTED)
    assert exceeded(COUNTED, {}, {}, before) == []
    worse = {"onnx": {"ops": 11, "transposes": 1}, "tflite": {"ops": 20}}
    assert [str(excess) for excess in exceeded(worse, {}, {}, before)] == [
        "onnx: ops is 11, 10 is allowed",
        "tflite: partitions can't be counted here, and 1 is its limit",
    ]
    assert [excess.count for excess in exceeded(worse, {"ops": 50}, {}, before)] == ["partitions"]
    assert exceeded({"onnx": COUNTED["onnx"]}, {}, {}, before) == []
    assert list(improved(worse, before)) == [("onnx", "transposes", 1, 2)]


ORIGIN = {"tool": "valgrind 3.19.0", "engine": "litert 2.3.0", "architecture": "x86_64"}


def test_instructions_are_compared_with_their_own_kind() -> None:
    before = Baseline({"tflite": {"instructions": 1_000_000}}, {"tflite": ORIGIN})

    def misses(now: int, **change: str) -> list[str]:
        origins = {"tflite": {**ORIGIN, **change}}
        return [str(excess) for excess in exceeded({"tflite": {"instructions": now}}, {}, {}, before, origins)]

    assert misses(1_001_000) == []
    assert misses(1_001_001) == ["tflite: instructions is 1001001, 1001000 is allowed"]
    for name, value in {"tool": "perf 6.1", "engine": "litert 2.4.0", "architecture": "aarch64"}.items():
        (said,) = misses(5, **{name: value})
        assert "can't be compared" in said
        assert f"the baseline's {name} is {ORIGIN[name]}, this one's is {value}" in said
    unknown = Baseline(before.counts)
    (excess,) = exceeded({"tflite": {"instructions": 5}}, {}, {}, unknown, {"tflite": ORIGIN})
    assert "does not say how it was counted" in str(excess)
    now = {"tflite": {"instructions": 990_000}}
    assert list(improved(now, before, {"tflite": ORIGIN})) == [("tflite", "instructions", 990_000, 1_000_000)]
    assert list(improved({"tflite": {"instructions": 999_500}}, before, {"tflite": ORIGIN})) == []
    assert list(improved(now, unknown, {"tflite": ORIGIN})) == []


def document(**change: Any) -> dict[str, Any]:
    return {"kind": "xformer-mobile counts", "schema_version": "1.0", "formats": {"onnx": {"ops": 5}}, **change}


def test_the_schema_has_every_count() -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]["formats"]["additionalProperties"]["properties"]) == list(COUNTS)
    jsonschema.validate(json.loads(Baseline(COUNTED, {"tflite": ORIGIN}).as_bytes()), schema)


def test_what_is_unknown_in_a_baseline_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    formats = {"onnx": {"ops": 5, "watts": {"idle": 0.5}}, "abacus": {"ops": 1}}
    file.write_text(json.dumps(document(schema_version="1.9", formats=formats, author="me")))
    assert Baseline.read(file).counts == {"onnx": {"ops": 5}, "abacus": {"ops": 1}}


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "truncated": json.dumps(document()).encode()[:-5],
    "not UTF-8": b"\xff\xfe{",
    "nested": b"[" * 100_000,
    "a long number": b'{"kind": ' + b"9" * 5000 + b"}",
    "NaN": b'{"kind": NaN}',
    "huge": b" " * (2**20 + 1),
    **{
        name: json.dumps(content).encode()
        for name, content in {
            "a list": [],
            "foreign": {"schema_version": "1.0", "measurements": []},
            "a newer major version": document(schema_version="2.0"),
            "no version": {key: value for key, value in document().items() if key != "schema_version"},
            "formats of a list": document(formats=[]),
            "a format of a number": document(formats={"onnx": 5}),
            "text": document(formats={"onnx": {"ops": "5"}}),
            "negative": document(formats={"onnx": {"ops": -5}}),
            "a float": document(formats={"onnx": {"ops": 5.0}}),
            "a truth": document(formats={"onnx": {"ops": True}}),
            "beyond reason": document(formats={"onnx": {"ops": 10**30}}),
            "origins of a list": document(instructions=[]),
            "an origin of a number": document(instructions={"onnx": {"tool": 5}}),
        }.items()
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_baseline_is_refused_on_one_line(name: str, call: Call, bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    file.write_bytes(HOSTILE[name])
    status, out, err = call("bench", "counts", bundle, "--baseline", file)
    assert (status, out) == (1, "")
    assert err.startswith(f"xformer-bench: error: {file}")
    assert err.count("\n") == 1
    assert len(err) < 600


def test_a_baseline_that_is_not_there(call: Call, bundle: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        status, _, err = call("bench", "counts", bundle, "--baseline", path)
        assert status == 1
        assert err.startswith(f"xformer-bench: error: can't read {path}: ")


# ---- planted regressions ------------------------------------------------------------------------------------


def set_artifact(bundle: Path, format: str, name: str) -> None:
    """Say in the manifest of a copied bundle what its artifact now is."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    content = (bundle / name).read_bytes()
    entry = next((entry for entry in manifest["artifacts"] if entry["format"] == format), None)
    if entry is None:
        entry = {**manifest["artifacts"][0], "format": format, "file": name, "requires": {"tflite_runtime": "2.3.0"}}
        manifest["artifacts"].append(entry)
    entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    path.write_text(json.dumps(manifest))


def _change_onnx(bundle: Path, change: Callable[[Any], None]) -> None:
    model = onnx.load(bundle / "model.onnx")
    change(model.graph)
    onnx.save(model, bundle / "model.onnx")
    set_artifact(bundle, "onnx", "model.onnx")


def _lead_output_through(graph: Any, kind: str, **attributes: Any) -> None:
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    last.output[0] = "planted"
    graph.node.append(onnx.helper.make_node(kind, ["planted"], [graph.output[0].name], **attributes))


def plant_transpose(bundle: Path) -> None:
    _change_onnx(bundle, lambda graph: _lead_output_through(graph, "Transpose", perm=[0, 1]))


def plant_op(bundle: Path) -> None:
    _change_onnx(bundle, lambda graph: _lead_output_through(graph, "Relu"))


def plant_weights(bundle: Path) -> None:
    """Another copy of each constant that counts, under a name of its own."""

    def double(graph: Any) -> None:
        for tensor in list(graph.initializer):
            other = graph.initializer.add()
            other.CopyFrom(tensor)
            other.name += "_again"

    _change_onnx(bundle, double)


def plant_partition(bundle: Path) -> None:
    write_tflite(bundle / "model.tflite", modulo="between")
    set_artifact(bundle, "tflite", "model.tflite")


def plant_no_partition(bundle: Path) -> None:
    write_tflite(bundle / "model.tflite", modulo="alone")
    set_artifact(bundle, "tflite", "model.tflite")


PLANTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "an extra transpose": (plant_transpose, "onnx: transposes is "),
    "one more op": (plant_op, "onnx: ops is "),
    "doubled weights": (plant_weights, "onnx: weights-bytes is "),
    "a second partition": (plant_partition, "tflite: partitions is 2, 1 is allowed"),
    "a missing partition": (plant_no_partition, "tflite: partitions is 0: nothing is delegated"),
}


@pytest.fixture(scope="module")
def gated(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two formats, with the baseline counts.json in it."""
    copied = tmp_path_factory.mktemp("gated") / "bundle"
    shutil.copytree(bundle, copied)
    write_tflite(copied / "model.tflite")
    set_artifact(copied, "tflite", "model.tflite")
    (copied / "counts.json").write_bytes(Baseline(count_bundle(Bundle.open(copied))).as_bytes())
    return copied


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_regression_is_caught(name: str, gated: Path, call: Call, tmp_path: Path) -> None:
    plant, message = PLANTED[name]
    worse = tmp_path / "worse"
    shutil.copytree(gated, worse)
    assert call("bench", "counts", worse, "--baseline", gated / "counts.json")[0] == 0
    plant(worse)
    status, out, _ = call("bench", "counts", worse, "--baseline", gated / "counts.json")
    assert status == 1
    assert f"MISSED: {message}" in out


# ---- the command --------------------------------------------------------------------------------------------


def test_counts_on_the_command_line(call: Call, gated: Path, tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    status, out, err = call("bench", "counts", gated, "--write-baseline", file)
    assert (status, err) == (0, "")
    assert "artifact-bytes" in out
    assert "instructions" not in out
    assert file.stat().st_size < 1000
    assert file.read_bytes() == (gated / "counts.json").read_bytes()
    status, out, _ = call("bench", "counts", gated, "--baseline", file, "--max-transposes", "onnx=0", "--json")
    assert status == 1
    shown = json.loads(out)
    assert (shown["passed"], shown["below_baseline"]) == (False, [])
    assert [said.split(" is ")[0] for said in shown["exceeded"]] == ["onnx: transposes"]
    assert call("bench", "counts", gated, "--max-ops", 10, "--max-ops", "onnx=5000")[0] == 0


def test_an_improvement_is_said(call: Call, gated: Path, tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    counts = count_bundle(Bundle.open(gated))
    counts["onnx"]["ops"] += 10
    file.write_bytes(Baseline({**counts, "coreml": {"ops": 1}}).as_bytes())
    status, out, err = call("bench", "counts", gated, "--baseline", file)
    assert status == 0
    assert "(-10)" in out
    assert "below the baseline, which --write-baseline can lower: onnx ops" in out
    assert err == "note: the baseline has coreml, the bundle has not\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-ops", "many"], "a limit is a number, or FORMAT=N"),
        (["--max-ops", "-1"], "a limit is a number, or FORMAT=N"),
        (["--max-ops", "onnx="], "a limit is a number, or FORMAT=N"),
        (["--max-ops", "9" * 30], "a limit is a number, or FORMAT=N"),
        (["--max-ops", "onyx=3"], "unknown format 'onyx'"),
        (["--max-ops", "coreml=3"], "has onnx"),
        (["--max-instructions", "x"], "a limit is a number, or FORMAT=N"),
        (["--engine", "onyx"], "unknown engine 'onyx'"),
        (["--engine", "litert"], "litert runs tflite"),
    ],
    ids=" ".join,
)
def test_wrong_usage(call: Call, bundle: Path, arguments: list[str], message: str, tool_folder: Path) -> None:
    write_valgrind(tool_folder)
    status, out, err = call("bench", "counts", bundle, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


# ---- instructions -------------------------------------------------------------------------------------------

VALGRIND = """#!/bin/sh
# A valgrind that runs the process and counts 1000 instructions a run, and as many at the start.
for argument; do
    case $argument in
        --version) echo valgrind-9.9.9; exit 0;;
        --log-file=*) log=${argument#--log-file=};;
        00[0-9]*) runs=$((1$argument - 1000000));;
    esac
done
while [ "${1#--}" != "$1" ]; do shift; done
%s
"$@" || exit $?
echo "==7== I   refs:      1,$(printf %%03d $runs),000" > "$log"
"""

PERF = """#!/bin/sh
case $1 in
    --version) echo perf version 9.9; exit 0;;
esac
echo "%s,,instructions:u,100,100.00,," >&2
"""


def _write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def write_valgrind(folder: Path, first: str = "") -> None:
    _write_script(folder / "valgrind", VALGRIND % first)


@pytest.fixture
def tool_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which programs are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_instructions_of_a_run_are_the_difference_of_two_processes(
    call: Call, gated: Path, tmp_path: Path, tool_folder: Path
) -> None:
    write_valgrind(tool_folder)
    file = tmp_path / "counts.json"
    arguments = ["counts", gated, "--engine", "onnxruntime"]
    status, out, err = call("bench", *arguments, "--json", "--write-baseline", file)
    assert (status, err) == (0, "")
    shown = json.loads(out)
    assert shown["counts"]["onnx"]["instructions"] == 1000
    assert "instructions" not in shown["counts"]["tflite"]
    said = shown["instructions"]["onnx"]
    assert said["tool"] == "valgrind 9.9.9"
    assert said["engine"].startswith("onnxruntime ")
    assert "AVX-512" in said["note"]
    before = Baseline.read(file)
    assert before.counts["onnx"]["instructions"] == 1000
    assert before.origins["onnx"].keys() == {"tool", "engine", "architecture", "processor", "python"}
    # The baseline names them: they are counted without being asked for.
    status, out, _ = call("bench", "counts", gated, "--baseline", file)
    assert status == 0
    assert "counted by valgrind 9.9.9" in out
    assert "another code path" in out
    status, out, _ = call("bench", *arguments, "--max-instructions", "onnx=999")
    assert status == 1
    assert "MISSED: onnx: instructions is 1000, 999 is allowed" in out
    # With another tool, no process is started, and nothing passes.
    written = json.loads(file.read_bytes())
    written["instructions"]["onnx"]["tool"] = "valgrind 1.0"
    file.write_text(json.dumps(written))
    status, out, _ = call("bench", "counts", gated, "--baseline", file)
    assert status == 1
    assert "the baseline's tool is valgrind 1.0, this one's is valgrind 9.9.9" in out
    assert "counted by" not in out


def test_without_a_tool_it_says_what_to_install(call: Call, bundle: Path, tool_folder: Path, tmp_path: Path) -> None:
    for arguments in (["--instructions"], ["--max-instructions", 5]):
        status, out, err = call("bench", "counts", bundle, *arguments)
        assert (status, out) == (1, "")
        assert err.startswith("xformer-bench: error: instructions can't be counted: neither perf nor valgrind is")
        assert "apt install valgrind" in err
        assert err.count("\n") == 1
    assert call("bench", "counts", bundle)[0] == 0


def test_perf_is_taken_where_it_counts(tool_folder: Path) -> None:
    _write_script(tool_folder / "perf", PERF % "<not supported>")
    with pytest.raises(UnavailableError, match="perf has no counters here and valgrind is not installed"):
        instructions.find_tool()
    write_valgrind(tool_folder)
    assert instructions.find_tool().name == "valgrind 9.9.9"
    _write_script(tool_folder / "perf", PERF % "12345")
    tool = instructions.find_tool()
    assert tool.name == "perf 9.9"
    assert tool.read("12345,,instructions:u,100,100.00,,\n") == 12345
    assert tool.read("<not counted>,,instructions:u,0,100.00,,\n") is None


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("kill -ILL $$", "executes an instruction that the tool does not know"),
        ('echo "vex: unhandled instruction bytes: 0x62" > "$log"; exit 1', "executes an instruction that the tool"),
        ("echo no luck >&2; exit 3", "died of exit status 3; the last it said: no luck"),
        ("exit 0", "valgrind 9.9.9 has counted nothing of onnxruntime"),
        ("runs=1", "counts no more instructions for"),
    ],
    ids=["SIGILL", "unhandled", "exit", "no count", "constant"],
)
def test_an_engine_that_a_tool_does_not_run_is_one_line(
    first: str, message: str, call: Call, bundle: Path, tool_folder: Path
) -> None:
    write_valgrind(tool_folder, first)
    status, out, err = call("bench", "counts", bundle, "--instructions", "--quiet")
    assert (status, out) == (1, "")
    assert err.startswith("xformer-bench: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_model_that_its_engine_refuses_says_so_itself(
    call: Call, bundle: Path, tmp_path: Path, tool_folder: Path
) -> None:
    write_valgrind(tool_folder)
    copied = tmp_path / "copied"
    shutil.copytree(bundle, copied)
    _change_onnx(copied, lambda graph: _lead_output_through(graph, "Unknown", domain="org.example"))
    opened = Bundle.open(copied)
    with pytest.raises(BundleError, match="ONNX Runtime refuses"):
        instructions.count_instructions(opened, "onnx", ENGINES["onnxruntime"], instructions.find_tool())


def test_which_engine_counts_which_format(gated: Path) -> None:
    opened = Bundle.open(gated)
    assert {format: row.name for format, row in instructions.choose(opened, []).items()} == {
        "onnx": "onnxruntime",
        "tflite": "litert",
    }
    assert list(instructions.choose(opened, ["litert", "litert"])) == ["tflite"]
    with pytest.raises(UsageError, match="both run onnx"):
        instructions.choose(opened, ["onnxruntime", "onnxruntime-xnnpack"])
    with pytest.raises(UnavailableError, match="macOS has neither"):
        instructions.choose(opened, ["coreml"])


def test_the_tool_of_this_machine_counts_what_is_executed(tmp_path: Path) -> None:
    """The real one, on processes that take it a second; where there is none, the error."""
    try:
        tool = instructions.find_tool()
    except UnavailableError as error:
        assert "type: apt install valgrind" in str(error)  # noqa: PT017 (both ends are tested)
        return

    def count(runs: int) -> int:
        log = tmp_path / "log"
        code = f"for _ in range(int('{runs:06}')): pass"
        command = [*tool.command(log), sys.executable, "-I", "-S", "-c", code]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        found = tool.read(log.read_text("utf-8"))
        assert found is not None
        return found

    once, many = count(1), count(100_000)
    assert count(1) == pytest.approx(once, rel=0.01)
    # A turn of the loop takes tens of instructions, or hundreds where Python is built without optimizations.
    assert 3 < (many - once) / 100_000 < 3000
