"""Second readers: which there are, that they read what the engine reads, and what counts as a disagreement."""

from __future__ import annotations

import importlib
import json
import math
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import MakeBundle
from xformer_export import to_tflite
from xformer_export.prepare import Options, prepare
from xformer_mobile.artifact import FORMATS, Bundle
from xformer_mobile.errors import BundleError, UsageError
from xformer_mobile.files import tree_sha256
from xformer_mobile.optional import import_coremltools
from xformer_mobile.parity import compare_outputs, run_all
from xformer_mobile.parity.readers import READER_TOLERANCES, compare_readers
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners import (
    ENGINES,
    NO_SECOND_READER,
    SECOND_READERS,
    NoReader,
    Runner,
    open_runner_for_format,
    open_second_reader,
)
from xformer_mobile.runners.base import FileRunner, Outputs
from xformer_mobile.runners.core_ml import CoreMLEvaluatorRunner
from xformer_mobile.runners.onnx_reference import OnnxReferenceRunner
from xformer_mobile.runners.tensorflow_lite import TensorFlowLiteRunner
from xformer_mobile.spec import ImageSize

SIZE = ImageSize(64, 64)


@pytest.fixture(scope="module")
def bundle(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A classifier in ONNX and TFLite; its other artifacts are not models, and are not read here."""
    folder = tmp_path_factory.mktemp("readers") / "bundle"
    shutil.copytree(make_bundle("classify"), folder)
    prepared = prepare(None, variant="xformer_xxs", image_size=SIZE)
    to_tflite.convert(prepared, Options(), folder / FORMATS["tflite"])
    (folder / FORMATS["coreml"]).mkdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    (entry,) = manifest["artifacts"]
    for format in ("tflite", "coreml", "ort", "executorch"):
        file = folder / FORMATS[format]
        if not file.exists():
            file.write_bytes(b"no model")
        manifest["artifacts"].append(
            {**entry, "format": format, "file": file.name, "sha256": tree_sha256(file), "requires": {}, "tools": {}}
        )
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle.open(folder)


# ---- which there are ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", SECOND_READERS)
def test_table_names_a_runner_that_is_no_engine(format: str) -> None:
    row = SECOND_READERS[format]
    runner = getattr(importlib.import_module(f"xformer_mobile.runners.{row.module}"), row.runner)
    assert issubclass(runner, Runner)
    assert (row.format, runner.engine) == (format, row.name)
    assert row.name not in ENGINES


@pytest.mark.parametrize("system", ["Linux", "Darwin"])
def test_every_format_has_a_reader_or_a_reason(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    readers = {format for format, row in SECOND_READERS.items() if row.is_second}
    assert readers | NO_SECOND_READER.keys() == FORMATS.keys()


@pytest.mark.parametrize(
    ("format", "reason"),
    [
        ("coreml", "Core ML's framework is on macOS only; the evaluator read it"),
        ("ort", "only ONNX Runtime reads .ort files"),
        ("executorch", "only ExecuTorch's own runtime reads .pte files"),
    ],
)
def test_a_format_without_one(format: str, reason: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert open_second_reader(bundle, format) == NoReader(reason)


@pytest.mark.parametrize(("format", "extra"), [("onnx", "onnx"), ("tflite", "tensorflow")])
def test_a_package_that_is_missing(format: str, extra: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reason = f"{SECOND_READERS[format].package} is not installed; type: pip install 'xformer-mobile[{extra}]'"
    assert open_second_reader(bundle, format) == NoReader(reason)


def test_a_format_that_the_bundle_lacks(make_bundle: MakeBundle) -> None:
    with pytest.raises(UsageError, match="has no tflite artifact"):
        open_second_reader(Bundle.open(make_bundle("classify")), "tflite")


def test_on_macos_the_evaluator_is_core_mls_second_reader(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert isinstance(open_second_reader(bundle, "coreml"), CoreMLEvaluatorRunner)


# ---- what they compute -------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_reads_what_the_engine_reads(format: str, bundle: Bundle) -> None:
    cases = bundle.golden()
    images = [case.image for case in cases]
    reader = open_second_reader(bundle, format)
    assert isinstance(reader, Runner)
    with open_runner_for_format(bundle, format, threads=1) as engine, reader:
        first, second = run_all(engine, images), run_all(reader, images)
    assert compare_readers(first, second, "fp32")
    (against_reference,) = compare_outputs([case.outputs for case in cases], second)
    assert against_reference.relative_max <= 1e-4


def test_another_weight_is_a_disagreement(bundle: Bundle, tmp_path: Path) -> None:
    image = golden_picture(0, SIZE)
    path = bundle.artifact("onnx").path
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    changed = tmp_path / "model.onnx"
    onnx.save(model, changed)
    runner = OnnxReferenceRunner(changed, SIZE, bundle.output_shapes)
    with open_runner_for_format(bundle, "onnx", threads=1) as engine, runner:
        comparison = compare_readers([engine.run(image)], [runner.run(image)], "fp32")
    assert not comparison
    (miss,) = comparison.misses()
    assert miss.startswith("the readers disagree: logits differs by ")


def _onnx_file(path: Path, nodes: list[Any]) -> Path:
    """A model of these nodes, from ``x``, the image's values in float32, to ``logits``, all of their shape."""
    shape = (1, SIZE.height, SIZE.width, 3)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT), *nodes],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32(128), "middle")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def test_sigmoid_of_large_values_is_quiet(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sub", ["x", "middle"], ["y"]), helper.make_node("Sigmoid", ["y"], ["logits"])]
    image = golden_picture(0, SIZE).copy()
    image[0, 0, 0] = 0, 128, 255
    path = _onnx_file(tmp_path / "model.onnx", nodes)
    with OnnxReferenceRunner(path, SIZE, {"logits": image.shape}) as runner:
        found = runner.run(image)["logits"]
    np.testing.assert_allclose(found, 0.5 * (1 + np.tanh((image.astype(np.float32) - 128) / 2)), atol=1e-6)


def test_core_mls_evaluator_runs_a_package_on_any_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ct = import_coremltools()
    mb = importlib.import_module("coremltools.converters.mil").Builder
    path = tmp_path / "model.mlpackage"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of coremltools' own

        @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 64, 64))], opset_version=ct.target.iOS16)
        def program(image: Any) -> Any:
            return mb.reduce_mean(x=image, axes=[2, 3], name="logits")

        ct.convert(
            program,
            convert_to="mlprogram",
            inputs=[ct.ImageType("image", (1, 3, 64, 64), color_layout=ct.colorlayout.RGB)],
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        ).save(str(path))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    image = golden_picture(0, SIZE)
    with CoreMLEvaluatorRunner(path, SIZE, {"logits": (1, 3)}, threads=1) as runner:
        found = runner.run(image)["logits"]
    np.testing.assert_allclose(found, image.mean((1, 2)), rtol=1e-5)


# ---- what they refuse --------------------------------------------------------------------------------------

READERS: dict[str, tuple[type[FileRunner], str]] = {
    "onnx": (OnnxReferenceRunner, "ONNX's reference evaluator refuses"),
    "tflite": (TensorFlowLiteRunner, "TensorFlow refuses"),
}

BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "text": lambda content: b"This is not a model.\n" * 9,
    "its first 16 bytes": lambda content: content[:16],
    "its first half": lambda content: content[: len(content) // 2],
    "all but its last tenth": lambda content: content[: -len(content) // 10],
}


@pytest.mark.parametrize("form", BROKEN)
@pytest.mark.parametrize("format", READERS)
def test_a_broken_file_is_refused(format: str, form: str, bundle: Bundle, tmp_path: Path) -> None:
    runner, message = READERS[format]
    path = tmp_path / "model"
    path.write_bytes(BROKEN[form](bundle.artifact(format).path.read_bytes()))
    with pytest.raises(BundleError, match=message):
        runner(path, SIZE, bundle.output_shapes).open()


@pytest.mark.parametrize("format", READERS)
def test_a_missing_file_is_named(format: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="missing"):
        READERS[format][0](tmp_path / "missing", SIZE, {"logits": (1, 1000)}).open()


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([helper.make_node("Sigmiod", ["x"], ["logits"])], "refuses .*Sigmiod"),
        ([helper.make_node("Reshape", ["x", "middle"], ["logits"])], "can't run"),
    ],
    ids=["unknown op", "inputs that do not fit"],
)
def test_an_operator_that_can_not_be_run(nodes: list[Any], message: str, tmp_path: Path) -> None:
    image = golden_picture(0, SIZE)
    runner = OnnxReferenceRunner(_onnx_file(tmp_path / "model.onnx", nodes), SIZE, {"logits": image.shape})
    with pytest.raises(BundleError, match=message), runner:
        runner.run(image)


# ---- agreement ---------------------------------------------------------------------------------------------


def _pair(noise: float) -> tuple[list[Outputs], list[Outputs]]:
    """Two pictures' outputs of unit power, and the same with noise of this standard deviation."""
    rng = np.random.default_rng(0)
    first = [{"logits": rng.normal(size=(1, 1000)).astype(np.float32)} for _ in range(2)]
    second = [{"logits": one["logits"] + rng.normal(scale=noise, size=(1, 1000)).astype(np.float32)} for one in first]
    return first, second


@pytest.mark.parametrize(
    ("precision", "noise", "agrees"),
    [
        ("fp32", 1e-6, True),
        ("fp32", 1e-3, False),
        ("int8-weights", 1e-6, True),
        ("int8-weights", 1e-3, False),
        ("fp16", 5e-3, True),
        ("fp16", 0.1, False),
        ("int8", 0.3, True),
        ("int8", 1.5, False),
    ],
)
def test_tolerance_belongs_to_the_precision(precision: str, noise: float, agrees: bool) -> None:
    comparison = compare_readers(*_pair(noise), precision)
    assert bool(comparison) is agrees
    assert len(comparison.misses()) == (0 if agrees else 1)
    assert all(miss.startswith("the readers disagree: logits ") for miss in comparison.misses())


@pytest.mark.parametrize("precision", READER_TOLERANCES)
def test_what_is_not_finite_never_agrees(precision: str) -> None:
    first, second = _pair(0)
    second[1]["logits"][0, 0] = math.nan
    comparison = compare_readers(first, second, precision)
    assert not comparison
    assert comparison.as_json()["outputs"]["logits"] == {"relative_max": None, "snr_db": None, "max_abs": None}


def test_the_document() -> None:
    document = compare_readers(*_pair(1e-3), "fp16").as_json()
    assert document["tolerance"] == READER_TOLERANCES["fp16"].as_json()
    (figures,) = document["outputs"].values()
    assert figures["snr_db"] == pytest.approx(60, abs=1)
    assert figures.keys() == {"relative_max", "snr_db", "max_abs"}


def test_an_unknown_precision() -> None:
    with pytest.raises(UsageError, match="unknown precision 'int4'"):
        compare_readers(*_pair(0), "int4")


# ---- importing TensorFlow ----------------------------------------------------------------------------------


def test_tensorflow_is_imported_quietly_and_triton_may_come_later() -> None:
    """TensorFlow before triton crashes the process, see BEFORE_TENSORFLOW."""
    code = """
import contextlib
from xformer_mobile.optional import import_tensorflow
import_tensorflow()
with contextlib.suppress(ImportError):
    import triton
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
