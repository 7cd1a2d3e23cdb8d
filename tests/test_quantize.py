"""int8 in ONNX and TFLite: what is read back, what it computes, and that it is the same each time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from xformer_export import to_onnx, to_tflite
from xformer_export.calibration import Calibration, snr_db
from xformer_export.placement import FLOAT_MODULES, Placement
from xformer_export.prepare import Converted, Options, Prepared, prepare
from xformer_export.recipes import RECIPES, Promise
from xformer_mobile.bench.counts import Certificate, read_certificate
from xformer_mobile.errors import UsageError
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners import LooseArtifact, open_loose
from xformer_mobile.spec import ImageSize

SIZE = ImageSize(64, 64)

FORMATS = {"onnx": to_onnx.convert, "tflite": to_tflite.convert}

ENGINES = {"onnx": "onnxruntime", "tflite": "litert"}

SIGMOIDS = {"onnx": "Sigmoid", "tflite": "LOGISTIC"}

PRECISIONS = ("int8", "int8-weights")


@dataclass(frozen=True)
class Made:
    path: Path
    converted: Converted
    certificate: Certificate


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(None, task="classify", variant="xformer_xxs", image_size=SIZE)


@pytest.fixture(scope="module")
def options(prepared: Prepared) -> Options:
    return Options(calibration=Calibration.of(prepared.config, count=8))


@pytest.fixture(scope="module")
def made(prepared: Prepared, options: Options, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Made]:
    folder, found = tmp_path_factory.mktemp("int8"), {}
    for format, convert in FORMATS.items():
        for precision in ("fp32", *PRECISIONS):
            path = folder / f"{precision}.{format}"
            converted = convert(prepared, replace(options, precision=precision), path)
            found[format, precision] = Made(path, converted, read_certificate(format, path))
    return found


def outputs(prepared: Prepared, format: str, path: Path, calibration: Calibration) -> list[dict[str, Any]]:
    config = prepared.config
    artifact = LooseArtifact(path, format, config.image_size, config.output_shapes())
    with open_loose(artifact, ENGINES[format], threads=1) as runner:
        return [runner.run(image) for image in calibration.compared()]


@pytest.mark.parametrize("format", FORMATS)
def test_int8_computes_in_int8(format: str, made: dict[tuple[str, str], Made]) -> None:
    found = made[format, "int8"].certificate
    assert found.share("macs") > 0.85
    assert found.share("weights") > 0.85
    assert found.qdq_pairs > 0
    assert found.islands
    floats = made[format, "fp32"].certificate
    assert floats.share("macs") == floats.share("weights") == 0
    assert not floats.islands


@pytest.mark.parametrize("format", FORMATS)
def test_int8_weights_compute_in_float(format: str, made: dict[tuple[str, str], Made]) -> None:
    found = made[format, "int8-weights"].certificate
    assert found.share("macs") == 0
    assert found.share("weights") > 0.85


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("format", FORMATS)
def test_it_is_smaller(format: str, precision: str, made: dict[tuple[str, str], Made]) -> None:
    found = made[format, precision]
    whole = made[format, "fp32"].path.stat().st_size
    assert found.converted.quantization["fp32_size_bytes"] == whole
    assert found.path.stat().st_size < 0.6 * whole  # the smallest variant is half names


@pytest.mark.parametrize(("precision", "least"), [("int8", 6), ("int8-weights", 14)])
@pytest.mark.parametrize("format", FORMATS)
def test_outputs_are_near(
    format: str, precision: str, least: float, prepared: Prepared, options: Options, made: dict[tuple[str, str], Made]
) -> None:
    assert options.calibration is not None
    expected, found = (
        outputs(prepared, format, made[format, kind].path, options.calibration) for kind in ("fp32", precision)
    )
    assert least < snr_db(expected, found) < 80


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_said_of_the_ranges(format: str, made: dict[tuple[str, str], Made]) -> None:
    ranges = made[format, "int8"].converted.quantization["ranges"]
    assert ranges["method"] in ranges["snr_db"]
    assert ranges["snr_db"][ranges["method"]] == max(ranges["snr_db"].values())
    assert len(ranges["snr_db"]) == 4
    assert "ranges" not in made[format, "int8-weights"].converted.quantization


@pytest.mark.parametrize("format", FORMATS)
def test_same_bytes_again(
    format: str, prepared: Prepared, options: Options, made: dict[tuple[str, str], Made], tmp_path: Path
) -> None:
    for precision in PRECISIONS:
        again = tmp_path / f"{precision}.{format}"
        FORMATS[format](prepared, replace(options, precision=precision), again)
        assert again.read_bytes() == made[format, precision].path.read_bytes(), precision


@pytest.mark.parametrize("format", FORMATS)
def test_parts_that_stay_float(
    format: str, prepared: Prepared, options: Options, made: dict[tuple[str, str], Made], tmp_path: Path
) -> None:
    path = tmp_path / f"mixed.{format}"
    mixed = replace(options, precision="int8", keep_float=("backbone.stage1", "backbone.stages.2.1.blocks.1.mlp"))
    FORMATS[format](prepared, mixed, path)
    found, whole = read_certificate(format, path), made[format, "int8"].certificate
    assert found.macs[1] == whole.macs[1]
    modules = dict(prepared.mobile.named_modules())
    assert 0 < found.macs[0] < whole.macs[0]
    assert 0 < found.weights[0] < whole.weights[0]  # what stays float keeps its weights too
    assert set(mixed.keep_float) <= modules.keys()


@pytest.mark.parametrize("format", FORMATS)
def test_a_detectors_predictions_are_float(format: str, tmp_path: Path) -> None:
    detector = prepare(None, task="detect", variant="xformer_xxs", image_size=SIZE)
    calibration, path = Calibration.of(detector.config, count=8), tmp_path / f"model.{format}"
    FORMATS[format](detector, Options("int8", calibration=calibration), path)
    for values in outputs(detector, format, path, calibration)[0].values():
        assert len(np.unique(values)) > min(256, values.size // 2)  # int8 has 256 values
    found = read_certificate(format, path)
    assert found.share("weights") > 0.95  # stored in int8, where they compute in float
    assert sum(island.kinds.get(SIGMOIDS[format], 0) for island in found.islands) == 3
    assert RECIPES["int8"].promise is not None
    promise, small = RECIPES["int8"].promise.of("xformer_xxs", format), path.stat().st_size
    assert promise.misses(found, format, small, 4 * small) == []


def test_x86_takes_unsigned_activations(prepared: Prepared, options: Options, tmp_path: Path) -> None:
    kinds = {}
    for target in ("arm", "x86"):
        path = tmp_path / f"{target}.onnx"
        to_onnx.convert(prepared, replace(options, precision="int8", onnx_target=target), path)
        model = onnx.load(path)
        zeros = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        kinds[target] = Counter(zeros[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear")
    assert set(kinds["arm"]) == {onnx.TensorProto.INT8}
    assert set(kinds["x86"]) == {onnx.TensorProto.UINT8}


@pytest.mark.parametrize("target", ["arm", "x86"])
def test_the_pictures_bytes_are_not_rounded(target: str, prepared: Prepared, options: Options, tmp_path: Path) -> None:
    """What the first convolution makes of them is what its int8 weights make of the float picture.

    At the border too, but for the mean's rounding to bytes.
    """
    path = tmp_path / "model.onnx"
    to_onnx.convert(prepared, replace(options, precision="int8", onnx_target=target), path)
    model = onnx.load(path)
    (stem,) = (node for node in model.graph.node if node.name.startswith("backbone.stem.0/"))
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made_by = {node.output[0]: node for node in model.graph.node}
    bytes_of_picture = made_by[stem.input[0]]
    scale, zero = (constants[name] for name in bytes_of_picture.input[1:])
    assert (float(scale), int(zero)) == (1.0, {"arm": -128, "x86": 0}[target])
    assert ("Cast" in {node.op_type for node in model.graph.node}) == (target == "arm")

    stored, scales = (constants[name] for name in made_by[stem.input[1]].input[:2])
    weights = torch.from_numpy(stored * scales[:, None, None, None])
    image = golden_picture(0, SIZE)
    expected = of_the_float_picture(prepared, image, weights)

    model.graph.output.append(onnx.helper.make_tensor_value_info(stem.output[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run([stem.output[0]], {"image": image})
    assert np.abs(found - expected)[:, :, 1:, 1:].max() < 1e-4 * np.abs(expected).max()
    border = np.abs(weights.numpy()).sum((1, 2, 3)) / 2
    assert (np.abs(found - expected).max((0, 2, 3)) < border).all()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128)])
def test_tflite_does_not_round_the_pictures_bytes_either(height: int, width: int, tmp_path: Path) -> None:
    size, path = ImageSize(height, width), tmp_path / "model.tflite"
    prepared = prepare(None, task="classify", variant="xformer_xxs", image_size=size)
    options = Options("int8", calibration=Calibration.of(prepared.config, count=8))
    converted = to_tflite.convert(prepared, options, path)
    assert (converted.graph["xnnpack_partitions"], converted.graph["outside_xnnpack"]) == (1, {})
    model = flatbuffer_utils.read_model(str(path))
    (graph,) = model.subgraphs
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    first = [names[model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in graph.operators[:5]]
    assert first == ["DEQUANTIZE", "QUANTIZE", "CONCATENATION", "CONCATENATION", "CONV_2D"]
    stem = graph.operators[4]
    assert list(graph.operators[0].inputs) == list(graph.inputs)
    assert list(graph.operators[1].inputs) == list(graph.operators[0].outputs)
    for operator in graph.operators[1:4]:
        for index in {*operator.inputs, *operator.outputs} - {*graph.operators[0].outputs}:
            quantization = graph.tensors[index].quantization
            assert (list(quantization.scale), list(quantization.zeroPoint)) == ([1.0], [-128])

    kernel, made = (graph.tensors[index] for index in (stem.inputs[1], stem.outputs[0]))
    stored = np.frombuffer(bytes(model.buffers[kernel.buffer].data), np.int8).reshape(kernel.shape)
    weights = torch.from_numpy(stored * kernel.quantization.scale[:, None, None, None]).permute(0, 3, 1, 2)
    image = golden_picture(0, size)
    expected = of_the_float_picture(prepared, image, weights.to(torch.float32))

    graph.outputs, graph.operators, model.signatureDefs = [stem.outputs[0]], graph.operators[:5], []
    interpreter = Interpreter(model_content=bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).astype(np.float32)
    step = float(made.quantization.scale[0])
    found = ((found - made.quantization.zeroPoint[0]) * step).transpose(0, 3, 1, 2)
    covered = (found > found.min()) & (found < found.max())
    assert covered.mean() > 0.9
    off = np.where(covered, np.abs(found - expected), 0)
    assert off[:, :, 1:, 1:].max() < 0.51 * step
    border = np.abs(weights.numpy()).sum((1, 2, 3)) / 2
    assert (off.max((0, 2, 3)) < border + 0.51 * step).all()


def of_the_float_picture(prepared: Prepared, image: np.ndarray, weights: torch.Tensor) -> np.ndarray:
    """What the first convolution makes of a picture, (1, H, W, 3), with these weights, (out, 3, 3, 3)."""
    own = prepared.mobile.backbone.stem[0]
    centred = torch.from_numpy(image.copy()).permute(0, 3, 1, 2) - prepared.mobile.backbone.mean
    with torch.inference_mode():
        return torch.nn.functional.conv2d(centred, weights, own.bias, own.stride, own.padding).numpy()


def test_a_first_convolution_in_float_is_left_alone(prepared: Prepared, options: Options, tmp_path: Path) -> None:
    options = replace(options, precision="int8", keep_float=("backbone.stem",))
    to_onnx.convert(prepared, options, tmp_path / "model.onnx")
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
    assert (ops["Cast"], ops["Sub"]) == (1, 1)
    to_tflite.convert(prepared, options, tmp_path / "model.tflite")
    model = flatbuffer_utils.read_model(str(tmp_path / "model.tflite"))
    codes = [model.operatorCodes[operator.opcodeIndex].builtinCode for operator in model.subgraphs[0].operators[:4]]
    kinds = schema.BuiltinOperator
    assert codes == [kinds.DEQUANTIZE, kinds.SUB, kinds.PAD, kinds.CONV_2D]


def test_onnx_weights_have_a_scale_for_each_channel(made: dict[tuple[str, str], Made]) -> None:
    for precision in PRECISIONS:
        model = onnx.load(made["onnx", precision].path)
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        unpacked = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
        convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in unpacked]
        assert len(convolutions) > 50
        for node in convolutions:
            weights, scale = (constants[name] for name in unpacked[node.input[1]].input[:2])
            assert weights.dtype == np.int8
            assert scale.shape == weights.shape[:1]
            assert weights.min() >= -127


def test_placement(prepared: Prepared) -> None:
    found = Placement.of(prepared.mobile)
    assert found.is_int8("backbone.stem.0")
    assert found.is_int8("backbone.stage1")
    assert found.is_int8("backbone.stages.0.1.blocks.0.attention.q")
    assert found.is_int8("backbone.stages.0.1.blocks.0.mlp.2")
    for path in ("attention", "attention.sum_heads", "attention.score", "norm1", "mlp.1"):
        assert not found.is_int8(f"backbone.stages.0.1.blocks.0.{path}"), path
    assert not found.is_int8("backbone.stages.0.1.blocks.0")
    assert not found.is_int8("no.such.path")
    for path, part in prepared.mobile.named_modules():
        assert not (isinstance(part, FLOAT_MODULES) and found.is_int8(path)), path
    detector = Placement.of(prepare(None, task="detect", variant="xformer_xxs", image_size=SIZE).mobile)
    for path, expected in (("bridge.0", True), ("bridge.1", False), ("predict", False)):
        assert [detector.is_int8(f"head.outputs.{scale}.{path}") for scale in range(3)] == [expected] * 3, path


def test_what_is_kept_float_is_kept_with_all_below_it(prepared: Prepared) -> None:
    found = Placement.of(prepared.mobile, ("backbone.stages.0.1",))
    assert found.is_kept("backbone.stages.0.1.fuse.0")
    assert not found.is_kept("backbone.stages.0.10")
    assert not found.is_kept("")
    assert not found.is_int8("backbone.stages.0.1")
    assert not found.is_int8("backbone.stages.0.1.fuse.0")
    assert found.is_int8("backbone.stages.1.1.fuse.0")
    with pytest.raises(UsageError, match=r"no part 'backbone\.nowhere'"):
        Placement.of(prepared.mobile, ("backbone.nowhere",))


def test_promises() -> None:
    def certificate(macs: int, weights: int) -> Certificate:
        return Certificate((macs, 100), (1, 2), (1, 2), (weights, 100), 1, ())

    promise = Promise(int8_macs=0.95, int8_weights=0.9, size=0.3)
    whole = 20_000_000
    assert promise.misses(certificate(95, 90), "onnx", 6_000_000, whole) == []
    assert promise.misses(certificate(95, 90), "ort", 6_200_000, whole) == []
    assert len(promise.misses(certificate(94, 89), "tflite", 6_200_000, whole)) == 3
    (missed,) = promise.misses(certificate(95, 90), "onnx", 6_200_000, whole)
    assert missed == "it has 0.310 of the fp32 artifact's bytes, 0.30 are promised"


def test_a_small_graph_promises_less() -> None:
    """The description of the graph takes the same bytes, however few the weights are."""
    promise, found = Promise(size=0.3), Certificate((1, 1), (1, 1), (1, 1), (1, 1), 1, ())
    assert promise.misses(found, "onnx", 1_600_000, 4_000_000) == []
    assert promise.misses(found, "onnx", 1_800_000, 4_000_000)


def test_recipes_promise() -> None:
    assert Promise(int8_macs=0.95).of("xformer_s", "onnx").int8_macs == 0.95
    assert Promise(int8_macs=0.95).of("xformer_xxs", "onnx").int8_macs == 0.90
    assert Promise(int8_weights=0.95).of("xformer_xxs", "tflite").int8_weights == 0.95
    assert Promise(int8_weights=0.95).of("xformer_xxs", "executorch").int8_weights == 0.93
    assert Promise().of("xformer_xxs", "executorch") == Promise()
    assert RECIPES["int8"].promise == Promise(0.95, 0.95, 0.30)
