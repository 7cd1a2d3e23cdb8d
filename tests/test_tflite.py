"""The TFLite converter and LiteRT's runner: the graph's rules, its interface, parity, metadata, and a second reader."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from tests.conftest import macs_by_torch
from xformer_export import tflite_metadata, to_tflite
from xformer_export.channels_last import to_channels_last
from xformer_export.op_rules import ALLOWED_OPS, MAX_RANK, TRANSPOSES, check_graph, check_transposes
from xformer_export.prepare import Converted, Options, Prepared, metadata_of, prepare
from xformer_mobile.bench.counts import count_artifact
from xformer_mobile.errors import BundleError, ConversionError, ImageError, MissingDependencyError
from xformer_mobile.parity import compare, tolerance_of
from xformer_mobile.patterns import golden_picture
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.runners.litert import LiteRTRunner
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import TASKS, ImageSize

SIZE = ImageSize(128, 128)
"""The smallest at which every stage has several patches, as at the sizes of use; converting takes as long at any."""

PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True)
class Made:
    """A converted model: the file, its bytes, and what the converter says of it."""

    prepared: Prepared
    path: Path
    converted: Converted

    @property
    def content(self) -> bytes:
        return self.path.read_bytes()

    @property
    def model(self) -> Any:
        return flatbuffer_utils.read_model_from_bytearray(self.content)

    def runner(self) -> LiteRTRunner:
        config = self.prepared.config
        return LiteRTRunner(self.path, config.image_size, config.output_shapes(), threads=1)


def _prepared(task: str, size: ImageSize = SIZE) -> Prepared:
    return prepare(None, task=task, variant="xformer_xxs", image_size=size)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Made]:
    """Each task in each precision; each task is lowered once, which is what takes time."""
    folder, models = tmp_path_factory.mktemp("tflite"), {}
    for task in TASKS:
        prepared = _prepared(task)
        lowered = to_tflite.lower(prepared)
        for precision in PRECISIONS:
            content, converted = to_tflite.finish(prepared, Options(precision=precision), lowered)
            path = folder / f"{task}-{precision}.tflite"
            path.write_bytes(content)
            models[task, precision] = Made(prepared, path, converted)
    return models


every_model = pytest.mark.parametrize(
    ("task", "precision"), [(task, precision) for task in TASKS for precision in PRECISIONS]
)


def _pictures(size: ImageSize = SIZE) -> list[Any]:
    return [golden_picture(index, size) for index in range(3)]


# ---- the channels-last form --------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [ImageSize(64, 64), ImageSize(512, 640)], ids=str)
def test_channels_last_form_is_the_same_function(task: str, size: ImageSize) -> None:
    """At 64x64 the last stage has one patch; at 512x640 the first has more rows than are summed at once."""
    mobile = _prepared(task, size).mobile
    changed = to_channels_last(mobile)
    image = torch.from_numpy(golden_picture(0, size).copy())
    with torch.inference_mode():
        for expected, found in zip(mobile(image), changed(image), strict=True):
            assert found.shape == expected.shape
            span = float(expected.max() - expected.min())
            assert float((found - expected).abs().max()) <= 2e-5 * span


def test_channels_last_form_leaves_the_mobile_form_as_it_was() -> None:
    mobile = _prepared("detect").mobile
    before = {name: values.clone() for name, values in mobile.state_dict().items()}
    changed = to_channels_last(mobile)
    for values in changed.state_dict().values():
        values.zero_()
    assert all(torch.equal(values, before[name]) for name, values in mobile.state_dict().items())


@pytest.mark.parametrize("task", TASKS)
def test_every_constant_is_contiguous(task: str) -> None:
    """The converter exchanges constants that are not; see check_constants."""
    assert all(values.is_contiguous() for values in to_channels_last(_prepared(task).mobile).state_dict().values())


# ---- the graph ---------------------------------------------------------------------------------------------


@every_model
def test_graph_holds_only_allowed_builtin_ops(task: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    model = made[task, precision].model
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    assert {names[code.builtinCode] for code in model.operatorCodes} <= ALLOWED_OPS["tflite"]
    assert all(code.customCode is None for code in model.operatorCodes)
    assert len({(code.builtinCode, code.version) for code in model.operatorCodes}) == len(model.operatorCodes)


@every_model
def test_no_tensor_is_above_rank_4_and_every_shape_is_static(
    task: str, precision: str, made: dict[tuple[str, str], Made]
) -> None:
    (graph,) = made[task, precision].model.subgraphs
    for tensor in graph.tensors:
        shape = [] if tensor.shape is None else tensor.shape
        assert len(shape) <= MAX_RANK == 4
        assert all(side > 0 for side in shape)
        assert tensor.shapeSignature is None


@every_model
def test_few_transposes(task: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    """One into and one out of each of three XF stages; the outputs' own layout."""
    graph = made[task, precision].converted.graph
    assert graph["ops"]["TRANSPOSE"] == graph["transposes"] == TRANSPOSES["tflite"][task]


@every_model
def test_xnnpack_takes_the_whole_graph_as_one_partition(
    task: str, precision: str, made: dict[tuple[str, str], Made]
) -> None:
    graph = made[task, precision].converted.graph
    assert graph["xnnpack_partitions"] == 1
    assert graph["outside_xnnpack"] == {}
    assert graph["ops"]["SUB"] == 1  # of the picture's mean; LayerNorms' are in the weights


@pytest.mark.parametrize("task", TASKS)
def test_activations_are_never_multiplied_as_matrices(task: str, made: dict[tuple[str, str], Made]) -> None:
    ops = made[task, "fp32"].converted.graph["ops"]
    assert not {"BATCH_MATMUL", "FULLY_CONNECTED", "BROADCAST_TO", "STRIDED_SLICE", "CAST"} & ops.keys()


@every_model
def test_interface_is_bytes_in_and_named_outputs(task: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    one = made[task, precision]
    config, model = one.prepared.config, one.model
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    (image,) = (graph.tensors[index] for index in graph.inputs)
    assert (image.name, image.type, image.shape) == (b"image", schema.TensorType.UINT8, [1, 128, 128, 3])
    assert (list(image.quantization.scale), list(image.quantization.zeroPoint)) == ([1.0], [0])
    outputs = [graph.tensors[index] for index in graph.outputs]
    assert {tensor.name.decode(): tuple(tensor.shape) for tensor in outputs} == config.output_shapes()
    assert {tensor.type for tensor in outputs} == {schema.TensorType.FLOAT32}
    assert [entry.name.decode() for entry in signature.inputs] == ["image"]
    assert [entry.name.decode() for entry in signature.outputs] == list(config.output_shapes())
    assert [entry.tensorIndex for entry in signature.outputs] == list(graph.outputs)
    assert (one.converted.input_dtype, one.converted.input_layout) == ("uint8", "NHWC")


@every_model
def test_runtime_that_is_needed(task: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    """GELU came with TFLite 2.9; RESIZE_BILINEAR of half pixels and DEQUANTIZE of halves were there before."""
    one = made[task, precision]
    assert one.converted.requires == {"tflite_runtime": "2.9.0"}
    versions = {code.builtinCode: code.version for code in one.model.operatorCodes}
    assert versions.pop(schema.BuiltinOperator.DEQUANTIZE) == (3 if precision == "fp16" else 1)
    assert versions.pop(schema.BuiltinOperator.RESIZE_BILINEAR, 3) == 3
    assert set(versions.values()) == {1}


@every_model
def test_buffers_are_aligned_and_all_used(task: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    content = made[task, precision].content
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    used = {graph.Tensors(index).Buffer() for index in range(graph.TensorsLength())}
    used |= {model.Metadata(index).Buffer() for index in range(model.MetadataLength())}
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if not buffer.DataIsNone():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % to_tflite.ALIGNMENT == 0
            assert index in used
    assert model.Buffers(0).DataIsNone()


@pytest.mark.parametrize("task", TASKS)
def test_half_weights_are_stored_where_they_count(task: str, made: dict[tuple[str, str], Made]) -> None:
    one = made[task, "fp16"]
    model, (graph,) = one.model, one.model.subgraphs
    stored = Counter[int]()
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None:
            stored[tensor.type] += len(data)
            if tensor.type == schema.TensorType.FLOAT16:
                assert not tensor.name.startswith((b"backbone/stem", b"backbone/stage1", b"backbone/stage2"))
    assert stored[schema.TensorType.FLOAT16] > 3 * stored[schema.TensorType.FLOAT32]
    assert len(one.content) < 0.65 * len(made[task, "fp32"].content)
    # Halves are read by DEQUANTIZE only: everything is computed in float32.
    for op in graph.operators:
        if model.operatorCodes[op.opcodeIndex].builtinCode != schema.BuiltinOperator.DEQUANTIZE:
            assert all(graph.tensors[index].type != schema.TensorType.FLOAT16 for index in op.inputs if index >= 0)


def test_tensors_are_named_by_module_paths(made: dict[tuple[str, str], Made]) -> None:
    (graph,) = made["classify", "fp32"].model.subgraphs
    names = {tensor.name.decode() for tensor in graph.tensors}
    assert "backbone/1/1/blocks/3/attention/q" in names
    assert not any("." in name or "Mobile" in name for name in names)


# ---- what it computes --------------------------------------------------------------------------------------


@every_model
def test_parity_with_the_reference(task: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    one, pictures = made[task, precision], _pictures()
    with TorchRunner(one.prepared.reference) as reference, one.runner() as runner:
        expected = [reference.run(picture) for picture in pictures]
        found = [runner.run(picture) for picture in pictures]
    rule = Postprocess.of(one.prepared.config)
    comparison = compare(expected, found, rule, engine="litert", tolerance=tolerance_of(rule.task, precision))
    if precision == "fp32":
        assert comparison.relative_max <= 1e-4
    else:
        assert min(output.snr_db for output in comparison.outputs) >= 40


@every_model
def test_tensorflow_computes_the_same(task: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    """TensorFlow's own interpreter, with its plain kernels: another reader than the one that the converter uses."""
    import tensorflow as tf

    one, picture = made[task, precision], _pictures()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf.lite.Interpreter is deprecated in favor of LiteRT's
        interpreter = tf.lite.Interpreter(
            model_content=one.content,
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    found = interpreter.get_signature_runner()(image=picture)
    with one.runner() as runner:
        expected = runner.run(picture)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].shape == values.shape
        assert np.abs(found[name] - values).max() <= 1e-4 * np.ptp(values)


# ---- bytes -------------------------------------------------------------------------------------------------


def test_conversions_in_two_processes_are_byte_identical(tmp_path: Path, made: dict[tuple[str, str], Made]) -> None:
    """``convert`` in a fresh process, and what the fixture made in this one, which has converted before."""
    code = """
import sys
from pathlib import Path
from xformer_export import to_tflite
from xformer_export.prepare import Options, prepare
from xformer_mobile.spec import ImageSize
prepared = prepare(None, task="segment", variant="xformer_xxs", image_size=ImageSize(128, 128))
to_tflite.convert(prepared, Options(precision="fp16"), Path(sys.argv[1]))
"""
    path = tmp_path / "model.tflite"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True)
    digests = [hashlib.sha256(content).hexdigest() for content in (path.read_bytes(), made["segment", "fp16"].content)]
    assert digests[0] == digests[1]


@every_model
def test_counts_are_those_of_the_channels_last_form(
    task: str, precision: str, made: dict[tuple[str, str], Made]
) -> None:
    """Its MACs differ from the mobile form's: it has products of elements where that has matmuls."""
    one = made[task, precision]
    counts = count_artifact("tflite", one.path)
    assert counts["macs"] == macs_by_torch(to_channels_last(one.prepared.mobile), SIZE)
    graph = one.converted.graph
    assert counts["ops"] == sum(graph["ops"].values())
    assert counts["transposes"] == graph["transposes"]
    assert (counts["partitions"], counts["undelegated-ops"]) == (1, 0)
    tensors = sum(len(buffer.data) for buffer in one.model.buffers if buffer.data is not None)
    assert 0.9 * tensors < counts["weights-bytes"] <= tensors  # the rest is metadata
    assert counts["bytes-moved"] > counts["weights-bytes"]


@every_model
def test_artifact_tells_nothing_of_the_machine(task: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    content = made[task, precision].content
    for place in (str(Path.home()), "site-packages", str(Path(__file__).parent.parent), "/tmp"):
        assert place.encode() not in content, place


# ---- metadata ----------------------------------------------------------------------------------------------


@every_model
def test_metadata_reads_back(task: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    one = made[task, precision]
    config = one.prepared.config
    fields = tflite_metadata.read_metadata(one.content)
    assert fields["name"] == "xformer_xxs"
    (graph,) = fields["subgraph_metadata"]
    (image,) = graph["input_tensor_metadata"]
    properties = image["content"]["content_properties"]
    assert properties == {"color_space": 1, "default_size": {"width": 128, "height": 128}}
    assert image["process_units"] == [{"options_type": 1, "options": {"mean": [0.0], "std": [1.0]}}]
    assert image["stats"] == {"max": [255.0], "min": [0.0]}
    outputs = graph["output_tensor_metadata"]
    assert [output["name"] for output in outputs] == list(config.output_shapes())
    assert [len(output["dimension_names"]) for output in outputs] == [len(s) for s in config.output_shapes().values()]
    files = [entry for owner in (graph, *outputs) for entry in owner.get("associated_files", [])]
    assert [entry["name"] for entry in files] == ["labels.txt"]
    assert files[0].get("type", 0) == (0 if task == "detect" else tflite_metadata.TENSOR_AXIS_LABELS)


@every_model
def test_labels_are_in_a_zip_behind_the_model(task: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    one = made[task, precision]
    with zipfile.ZipFile(one.path) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.date_time) == ("labels.txt", (1980, 1, 1, 0, 0, 0))
        assert archive.read(entry).decode().split("\n") == list(one.prepared.config.labels)


def test_own_metadata_is_the_other_formats(made: dict[tuple[str, str], Made]) -> None:
    one = made["detect", "fp32"]
    model = one.model
    (own,) = (model.buffers[entry.buffer].data for entry in model.metadata if entry.name == b"xformer-mobile")
    assert json.loads(bytes(own)) == metadata_of(one.prepared)


def test_mediapipe_reads_metadata_and_labels(tmp_path: Path, made: dict[tuple[str, str], Made]) -> None:
    """Google's own reader of TFLite metadata, with its own runtime: it classifies with nothing but our file.

    In a process of its own, away from the other runtimes of these tests.
    """
    code = """
import json, sys
import numpy as np
from mediapipe import Image, ImageFormat
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]), max_results=5)
with vision.ImageClassifier.create_from_options(options) as classifier:
    found = classifier.classify(Image(image_format=ImageFormat.SRGB, data=np.load(sys.argv[2])))
    print(json.dumps([[entry.category_name, entry.score] for entry in found.classifications[0].categories]))
"""
    one, picture = made["classify", "fp16"], _pictures()[0]
    file = tmp_path / "picture.npy"
    np.save(file, picture[0])
    result = subprocess.run([sys.executable, "-c", code, str(one.path), str(file)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    with one.runner() as runner:
        (logits,) = runner.run(picture)["logits"]
    best = np.argsort(-logits)[:5]
    assert [name for name, _ in found] == [one.prepared.config.labels[index] for index in best]
    assert np.allclose([score for _, score in found], logits[best], rtol=1e-4)


@pytest.mark.parametrize(("source", "signed"), [("sample", True), ("untrained", True), ("checkpoint", False)])
def test_other_people_s_weights_are_not_signed(source: str, signed: bool) -> None:
    prepared = _prepared("classify")
    fields = tflite_metadata.describe(replace(prepared, weights={**prepared.weights, "source": source})).fields
    assert ("author" in fields, "license" in fields) == (signed, signed)


def test_labels_of_any_script_survive() -> None:
    prepared = prepare(
        None, variant="xformer_xxs", image_size=SIZE, labels=("Käfer", "甲虫", "a, b", " bug"), task="classify"
    )
    description = tflite_metadata.describe(prepared)
    content = tflite_metadata.attach_files(b"a model", description)
    assert content.startswith(b"a model")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt").decode().split("\n") == list(prepared.config.labels)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: replace(d, own_json=d.own_json + b" "), "'xformer-mobile' does not read back"),
        (lambda d: replace(d, fields={**d.fields, "name": "other"}), "TFLite metadata does not read back"),
        (lambda d: replace(d, files={"labels.txt": b"other"}), "carries the files"),
    ],
    ids=["own", "fields", "files"],
)
def test_metadata_that_differs_is_refused(change: Any, problem: str, made: dict[tuple[str, str], Made]) -> None:
    one = made["classify", "fp32"]
    description = tflite_metadata.describe(one.prepared)
    tflite_metadata.check(one.content, description)
    with pytest.raises(ConversionError, match=problem):
        tflite_metadata.check(one.content, change(description))


def test_a_model_without_metadata_is_refused() -> None:
    bare = flatbuffer_utils.convert_object_to_bytearray(schema.ModelT(version=3))
    with pytest.raises(ConversionError, match="has no TFLite metadata"):
        tflite_metadata.read_metadata(bytes(bare))


# ---- errors ------------------------------------------------------------------------------------------------


def test_exchanged_constants_are_found(made: dict[tuple[str, str], Made]) -> None:
    """What issue 1061 of litert-torch does: one constant has another's values."""
    one = made["classify", "fp32"]
    module = to_channels_last(one.prepared.mobile)
    to_tflite.check_constants(module, one.content)
    state = module.state_dict()
    name = "backbone.stages.1.1.blocks.2.attention.w_context"
    state[name].copy_(state[name] * 1.25)
    with pytest.raises(ConversionError, match=f"lost the values of {name}"):
        to_tflite.check_constants(module, one.content)


def test_rules_are_held() -> None:
    with pytest.raises(ConversionError, match="1 custom FlexErf"):
        check_graph("tflite", Counter({"CONV_2D": 2, "custom FlexErf": 1}), {})
    with pytest.raises(ConversionError, match="the tflite graph has 7 transposes; classify takes at most 6"):
        check_transposes("tflite", "classify", 7)


def test_weights_beyond_float16_are_refused(made: dict[tuple[str, str], Made]) -> None:
    one = made["classify", "fp16"]
    model = one.model
    (graph,) = model.subgraphs
    tensor = next(tensor for tensor in graph.tensors if tensor.type == schema.TensorType.FLOAT16)
    model.buffers[tensor.buffer].data = np.full(len(model.buffers[tensor.buffer].data) // 2, np.inf, "<f2").view("u1")
    with pytest.raises(ConversionError, match="has values that its precision can't hold"):
        to_tflite._check(one.prepared, model)


@pytest.mark.parametrize("content", [b"", b"no flatbuffer, no TFL3", b"\x1c\x00\x00\x00TFL3" + bytes(64)])
def test_a_converter_s_unknown_result_is_refused(content: bytes) -> None:
    with pytest.raises(ConversionError, match="litert-torch's model has an unknown form"):
        to_tflite.finish(_prepared("classify"), Options(), content)


def test_a_converter_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import litert_torch

    def fail(*_: object) -> None:
        raise RuntimeError("no legal form\nand pages of advice")

    monkeypatch.setattr(litert_torch, "convert", fail)
    with pytest.raises(ConversionError, match=r"litert-torch failed: RuntimeError: no legal form and pages of advice$"):
        to_tflite.lower(_prepared("classify"))


@pytest.mark.parametrize("module", ["litert_torch", "ai_edge_litert.interpreter"])
def test_a_missing_package_says_what_to_type(
    module: str, monkeypatch: pytest.MonkeyPatch, made: dict[tuple[str, str], Made]
) -> None:
    runner = made["classify", "fp32"].runner()
    use = (lambda: to_tflite.lower(_prepared("classify"))) if module == "litert_torch" else runner.open
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'xformer-mobile\[tflite\]'"):
        use()


# ---- the runner --------------------------------------------------------------------------------------------


def test_runner_refuses_another_image(made: dict[tuple[str, str], Made]) -> None:
    with made["classify", "fp32"].runner() as runner:
        with pytest.raises(ImageError, match="litert takes uint8"):
            runner.run(np.zeros((1, 64, 64, 3), np.uint8))
        assert runner.run(_pictures()[0])["logits"].shape == (1, 1000)


def test_outputs_are_the_caller_s(made: dict[tuple[str, str], Made]) -> None:
    """The next run does not write into them."""
    first, second, _ = _pictures()
    with made["segment", "fp32"].runner() as runner:
        kept = runner.run(first)["logits"]
        before = kept.copy()
        runner.run(second)
    assert np.array_equal(kept, before)


def test_runner_holds_outputs_to_the_manifest(made: dict[tuple[str, str], Made]) -> None:
    one = made["classify", "fp32"]
    with LiteRTRunner(one.path, SIZE, {"scores": (1, 1000)}) as runner, pytest.raises(BundleError, match="declares"):
        runner.run(_pictures()[0])


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.001, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files_are_refused(share: float, tmp_path: Path, made: dict[tuple[str, str], Made]) -> None:
    content = made["classify", "fp32"].content
    path = tmp_path / "model.tflite"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BundleError, match=r"LiteRT refuses .*model\.tflite: ") as error:
        LiteRTRunner(path, SIZE, {}).open()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 a zip file", b"\x00\x00\x00\x80TFL3" + bytes(64), b"\x08\x00\x00\x00TFL3"]
)
def test_foreign_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="LiteRT refuses"):
        LiteRTRunner(path, SIZE, {}).open()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"can't read .*: No such file or directory"):
        LiteRTRunner(tmp_path / "model.tflite", SIZE, {}).open()
