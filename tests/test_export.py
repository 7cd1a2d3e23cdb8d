"""The ONNX converter: its graph keeps the rules, its bytes repeat, its bundle replaces the old one whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from xformer_export import ExportRequest, build_bundle, bundle, to_onnx
from xformer_export.formats import default_quantization, parse_formats
from xformer_export.op_rules import ALLOWED_OPS, MAX_RANK, check_graph
from xformer_export.prepare import Options, Prepared, prepare
from xformer_export.recipes import RECIPES, find_recipe
from xformer_export.token_rows import to_token_rows
from xformer_mobile.artifact import Bundle
from xformer_mobile.errors import (
    CheckpointError,
    ConversionError,
    OutputError,
    ParityError,
    UsageError,
)
from xformer_mobile.mobile import ChannelNorm
from xformer_mobile.parity import TOLERANCES, compare, run_all
from xformer_mobile.patterns import golden_picture
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.runners import open_runner
from xformer_mobile.runners.onnx_runtime import OnnxRuntimeRunner
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import TASKS, ImageSize
from xformer_mobile.weights import save_checkpoint

SMALL = ImageSize(64, 64)


def _prepared(task: str = "classify") -> Prepared:
    return prepare(None, task=task, variant="xformer_xxs", image_size=SMALL)


def _convert(prepared: Prepared, folder: Path, precision: str = "fp32") -> onnx.ModelProto:
    to_onnx.convert(prepared, Options(precision), folder / "model.onnx")
    return onnx.load(folder / "model.onnx")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    return {task: _convert(_prepared(task), tmp_path_factory.mktemp(task)) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_graph_holds_only_allowed_ops_of_the_standard_domain(task: str, graphs: dict[str, onnx.ModelProto]) -> None:
    graph = graphs[task].graph
    assert {node.op_type for node in graph.node} <= ALLOWED_OPS["onnx"]
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    assert not graphs[task].functions


@pytest.mark.parametrize("task", TASKS)
def test_no_tensor_is_above_rank_4_and_every_shape_is_static(task: str, graphs: dict[str, onnx.ModelProto]) -> None:
    inferred = onnx.shape_inference.infer_shapes(graphs[task], strict_mode=True).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    assert len(values) >= sum(len(node.output) for node in inferred.node)
    for value in values:
        dims = value.type.tensor_type.shape.dim
        assert len(dims) <= MAX_RANK == 4
        assert all(dim.HasField("dim_value") for dim in dims)
    assert all(len(tensor.dims) <= MAX_RANK for tensor in inferred.initializer)


@pytest.mark.parametrize("task", TASKS)
def test_attention_is_conv_and_matmul(task: str, graphs: dict[str, onnx.ModelProto]) -> None:
    """Of the ops inside attention, those that sum anything are convolutions and matmuls."""
    nodes = [node for node in graphs[task].graph.node if ".attention" in node.name]
    ops = Counter(node.op_type for node in nodes)
    assert ops["MatMul"] == 9 * 10
    assert ops["Conv"] == 9 * 2
    elementwise_and_layout = {"Mul", "Add", "Max", "Sqrt", "Reciprocal", "Reshape", "Transpose"}
    assert set(ops) <= {"Conv", "MatMul"} | elementwise_and_layout


@pytest.mark.parametrize("task", TASKS)
def test_interface_is_bytes_in_and_named_outputs(task: str, graphs: dict[str, onnx.ModelProto]) -> None:
    model, config = graphs[task], _prepared(task).config
    (image,) = model.graph.input
    assert image.name == "image"
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == [1, 64, 64, 3]
    assert [output.name for output in model.graph.output] == list(config.output_shapes())
    assert {output.type.tensor_type.elem_type for output in model.graph.output} == {onnx.TensorProto.FLOAT}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", to_onnx.OPSET)]


def test_artifact_describes_itself_and_nothing_of_the_machine(graphs: dict[str, onnx.ModelProto]) -> None:
    model = graphs["classify"]
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["task"] == "classify"
    assert json.loads(properties["labels"])[999] == "class 999"
    assert json.loads(properties["input"])["resize"]["rule"] == "resize_shorter_center_crop"
    content = model.SerializeToString()
    for place in (str(Path.home()), "site-packages", str(Path(__file__).parent.parent), "/tmp"):
        assert place.encode() not in content, place


def test_layers_keep_their_module_paths(graphs: dict[str, onnx.ModelProto]) -> None:
    names = [node.name for node in graphs["classify"].graph.node]
    assert any(name.startswith("backbone.stages.1.1.blocks.0.attention/") for name in names)
    assert len(set(names)) == len(names)


def test_squeeze_excite_pools_globally(graphs: dict[str, onnx.ModelProto]) -> None:
    for task, model in graphs.items():
        ops = Counter(node.op_type for node in model.graph.node)
        assert ops["GlobalAveragePool"] == (9 if task == "classify" else 8)  # the widest map's mean is of means
        assert not ops.keys() & {"AveragePool", "ReduceMean"}


def test_norms_and_gelus_are_one_operator_each(graphs: dict[str, onnx.ModelProto]) -> None:
    for model in graphs.values():
        ops = Counter(node.op_type for node in model.graph.node)
        assert (ops["LayerNormalization"], ops["Gelu"]) == (2 * 9 + 3, 9)


@pytest.mark.parametrize("task", TASKS)
def test_token_rows_are_the_same_function(task: str) -> None:
    mobile = _prepared(task).mobile
    before = {name: values.clone() for name, values in mobile.state_dict().items()}
    form = to_token_rows(mobile)
    image = torch.from_numpy(golden_picture(0, mobile.config.image_size).copy())
    with torch.inference_mode():
        for expected, found in zip(mobile(image), form(image), strict=True):
            assert found.shape == expected.shape
            span = float(expected.max() - expected.min())
            assert float((found - expected).abs().max()) <= 2e-5 * span
    for values in form.state_dict().values():
        values.zero_()
    assert all(torch.equal(values, before[name]) for name, values in mobile.state_dict().items())


def test_global_pools_sum_few_values(graphs: dict[str, onnx.ModelProto]) -> None:
    """An engine may sum one after the other in the tensor's own precision; large maps are averaged by tiles first."""
    for model in graphs.values():
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
        pooled = [shapes[node.input[0]] for node in graph.node if node.op_type == "GlobalAveragePool"]
        assert pooled
        assert max(height * width for _, _, height, width in pooled) <= 256


@pytest.mark.parametrize(
    ("ops", "ranks", "problem"),
    [
        (Counter(Conv=3, Einsum=2), {}, "2 Einsum"),
        (Counter(Conv=3), {"x": 5, "y": 4}, r"x \(rank 5\)"),
    ],
    ids=["op", "rank"],
)
def test_check_graph_refuses(ops: Counter[str], ranks: dict[str, int], problem: str) -> None:
    with pytest.raises(ConversionError, match=problem):
        check_graph("onnx", ops, ranks)


class _Unfolded(torch.nn.Module):
    """What the rewrite avoids: a rank-6 reshape."""

    def __init__(self, config: object) -> None:
        super().__init__()
        self.config = config

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        x = image.float().reshape(1, 32, 2, 32, 2, 3).permute(0, 2, 4, 1, 3, 5)
        return (x.reshape(1, -1),)


def test_converter_refuses_a_model_that_leaves_the_rules(tmp_path: Path) -> None:
    prepared = _prepared()
    broken = Prepared(prepared.reference, _Unfolded(prepared.config), prepared.weights)  # type: ignore[arg-type]
    with pytest.raises(ConversionError, match="rank 6"):
        to_onnx.convert(broken, Options(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_two_conversions_are_byte_identical(precision: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _convert(_prepared(), tmp_path / name, precision)
        to_onnx.convert_to_ort(_prepared(), Options(precision), tmp_path / name / "model.ort")
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector in fp16."""
    folder = tmp_path_factory.mktemp("half")
    _convert(_prepared("detect"), folder, "fp16")
    return folder / "model.onnx"


def test_fp16_keeps_norms_reductions_and_outputs_in_fp32(half: Path) -> None:
    model = onnx.load(half)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    single, byte = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    assert {types[output.name] for output in graph.output} == {single}
    assert types["image"] == byte
    norms = {f"{path}/" for path, part in _prepared("detect").mobile.named_modules() if isinstance(part, ChannelNorm)}
    assert len(norms) == 21
    seen = set()
    for node in graph.node:
        floats = {types[name] for name in (*node.input, *node.output) if name} & {single, onnx.TensorProto.FLOAT16}
        path = node.name.rpartition("/")[0] + "/"
        if node.op_type == "Cast":
            continue
        if path in norms or node.op_type in to_onnx.KEPT_IN_FP32:
            assert floats == {single}, node.name
            seen.add(path)
        elif node.op_type in ("Conv", "MatMul"):
            assert floats == {onnx.TensorProto.FLOAT16}, node.name
    assert norms <= seen


def test_fp16_is_smaller_and_agrees(half: Path, graphs: dict[str, onnx.ModelProto]) -> None:
    """Untrained weights: their logits are small differences of large sums, where trained ones have 40 dB and more."""
    prepared = _prepared("detect")
    config = prepared.config
    assert half.stat().st_size < 0.6 * graphs["detect"].ByteSize()
    images = [golden_picture(index, SMALL) for index in range(3)]
    with TorchRunner(prepared.reference) as runner:
        expected = run_all(runner, images)
    with OnnxRuntimeRunner(half, SMALL, config.output_shapes(), threads=1) as runner:
        found = run_all(runner, images)
    comparison = compare(expected, found, Postprocess.of(config), engine="onnxruntime", tolerance=TOLERANCES["fp16"])
    assert len(comparison.outputs) == 3
    assert all(30 < output.snr_db < 100 for output in comparison.outputs)


def _files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def _request(output: Path, **changes: object) -> ExportRequest:
    fields: dict[str, object] = {"formats": ("onnx",), "variant": "xformer_xxs", "image_size": SMALL, "output": output}
    return ExportRequest(**{**fields, **changes})  # type: ignore[arg-type]


def test_two_exports_of_a_checkpoint_are_byte_identical(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.safetensors"
    save_checkpoint(_prepared("detect").reference, checkpoint)
    for name in ("a", "b"):
        build_bundle(_request(tmp_path / name, checkpoint=checkpoint, variant=None))
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    assert Bundle.open(tmp_path / "a").manifest["model"]["weights"]["source"] == "checkpoint"


def test_export_does_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.safetensors"
    save_checkpoint(_prepared("segment").reference, checkpoint)
    for threads in ("1", "2"):
        code = "from xformer_mobile.cli import export_main; export_main()"
        output = str(tmp_path / threads)
        arguments = ["--checkpoint", str(checkpoint), "--image-size", "128", "--output", output, "--quiet"]
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True, capture_output=True)
    assert _files(tmp_path / "1") == _files(tmp_path / "2")


def test_a_single_class_can_be_exported(tmp_path: Path) -> None:
    made = build_bundle(_request(tmp_path / "one", labels=("thing",)))
    assert made.output_shapes == {"logits": (1, 1)}
    assert made.manifest["parity"]["onnx"]["passed"]


def test_an_artifact_that_disagrees_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "bundle"
    build_bundle(_request(target))
    before = _files(target)
    original = bundle.prepare

    def faulty(*args: object, **options: object) -> Prepared:
        prepared = original(*args, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            prepared.mobile.backbone.stages[1][1].blocks[0].attention.w_context.mul_(1.05)  # type: ignore[index,union-attr]
        return prepared

    monkeypatch.setattr(bundle, "prepare", faulty)
    with pytest.raises(ParityError, match=r"logits differs by .* of its range, 1e-04 is allowed"):
        build_bundle(_request(target))
    assert _files(target) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_weights_whose_activations_overflow_are_refused(tmp_path: Path) -> None:
    reference = _prepared().reference
    with torch.no_grad():
        reference.backbone.stem.conv.weight.fill_(1e38)
    checkpoint = tmp_path / "weights.safetensors"
    save_checkpoint(reference, checkpoint)
    with pytest.raises(CheckpointError, match="the weights are finite, but"):
        build_bundle(_request(tmp_path / "bundle", checkpoint=checkpoint))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("kind", ["file", "other directory"])
def test_what_is_no_bundle_is_left_alone(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    keep = target if kind == "file" else target / "thesis.txt"
    keep.parent.mkdir(exist_ok=True)
    keep.write_text("years of work")
    with pytest.raises(OutputError, match="precious"):
        build_bundle(_request(target))
    assert keep.read_text() == "years of work"


def test_the_current_directory_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "bundle" / "inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    for target in (Path(), inside.parent):
        with pytest.raises(OutputError, match="holds the current directory"):
            build_bundle(_request(target))
    assert list(inside.parent.iterdir()) == [inside]


def test_a_mount_point_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(OutputError, match="is a mount point"):
        build_bundle(_request(tmp_path))


def test_artifact_reads_back_and_runs_at_another_size(tmp_path: Path) -> None:
    made = build_bundle(_request(tmp_path / "wide", task="segment", image_size=ImageSize(64, 128)))
    with open_runner(made, threads=1) as runner:
        outputs = runner.run(np.zeros((1, 64, 128, 3), np.uint8))
    assert outputs["logits"].shape == (1, 19, 16, 32)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["onnx"], ("onnx",)),
        (["all"], ("onnx", "coreml", "tflite", "executorch")),
        (["onnx", "all", "onnx", "ort"], ("onnx", "ort", "coreml", "tflite", "executorch")),
        ([" tflite ", "onnx"], ("onnx", "tflite")),
    ],
    ids=str,
)
def test_formats_that_can_be_written(names: list[str], expected: tuple[str, ...]) -> None:
    assert parse_formats(names) == expected


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (["tfilte"], UsageError, r"unknown format 'tfilte' \(did you mean 'tflite'\?\); valid: onnx, ort, coreml"),
        (["onnx", ""], UsageError, "unknown format ''"),
    ],
    ids=str,
)
def test_formats_that_can_not(names: list[str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        parse_formats(names)


def test_recipes() -> None:
    assert {name: find_recipe(name).precision for name in RECIPES} == {
        "none": "fp32",
        "fp16": "fp16",
        "int8-weights": "int8-weights",
        "int8": "int8",
    }
    assert default_quantization(("coreml",)) == "fp16"
    assert default_quantization(("onnx", "coreml")) == "none"
    with pytest.raises(UsageError, match="unknown quantization 'int4'"):
        find_recipe("int4")
