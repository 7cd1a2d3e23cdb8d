"""The layers of a .tflite file: whose they are, what they hold, and which one a planted fault is blamed on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from torch import nn

from xformer_export import to_tflite
from xformer_export.calibration import Calibration
from xformer_export.channels_last import to_channels_last
from xformer_export.layers.compare import compare_layers
from xformer_export.layers.operators import boundaries
from xformer_export.layers.tflite_file import TFLiteLayers, _paths_by_key, _resolve
from xformer_export.prepare import Options, Prepared, prepare
from xformer_mobile.errors import BundleError
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners.litert import LiteRTRunner
from xformer_mobile.spec import ImageSize

SIZE = ImageSize(64, 64)

PICTURES = [golden_picture(index, SIZE) for index in range(2)]

PRECISIONS = ("fp32", "fp16", "int8-weights", "int8")

Plant = Callable[[Any, nn.Module, str], None]


@dataclass(frozen=True)
class Made:
    """A converted model in each precision, and the form that it was made from."""

    prepared: Prepared
    form: nn.Module
    files: Mapping[str, Path]

    def layers(self, precision: str) -> TFLiteLayers:
        return TFLiteLayers(self.files[precision], self.form)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The smallest segmenter: a backbone of several outputs, and a head whose modules are in a list."""
    prepared = prepare(None, task="segment", variant="xformer_xxs", image_size=SIZE)
    folder, calibration = tmp_path_factory.mktemp("layers"), Calibration.of(prepared.config, count=16)
    files = {precision: folder / f"{precision}.tflite" for precision in PRECISIONS}
    for precision, path in files.items():
        to_tflite.convert(prepared, Options(precision, calibration=calibration), path)
    return Made(prepared, to_channels_last(prepared.mobile), files)


@pytest.fixture(scope="module")
def detector_paths() -> dict[str, str]:
    """The paths of a detector's modules by what the converter calls them."""
    prepared = prepare(None, task="detect", variant="xformer_xxs", image_size=SIZE)
    return _paths_by_key(to_channels_last(prepared.mobile))


every_precision = pytest.mark.parametrize("precision", PRECISIONS)


# ---- the graph ---------------------------------------------------------------------------------------------


@every_precision
def test_every_module_that_is_called_once_has_a_boundary(precision: str, made: Made) -> None:
    """What XFA calls several times, and the backbone with its four outputs, have none."""
    found = {boundary.path for boundary in boundaries(made.layers(precision).graph)}
    missing = {
        path
        for path, module in made.form.named_modules()
        if path not in found and not isinstance(module, nn.ModuleList)
    }
    several = {path for path, _ in made.form.named_modules() if path.endswith((".sum_heads", ".expand_heads"))}
    assert several
    assert missing == several | {"", "backbone"}


@every_precision
def test_graph_is_closed_and_names_are_unique(precision: str, made: Made) -> None:
    graph = made.layers(precision).graph
    known = set(graph.inputs)
    for operator in graph.operators:
        assert operator.inputs
        assert known.issuperset(operator.inputs)
        assert known.isdisjoint(operator.outputs)
        known.update(operator.outputs)
    assert graph.inputs == ("image",)
    assert graph.outputs == ("logits",)
    assert known.issuperset(graph.outputs)


@every_precision
def test_every_op_s_scope_is_a_module_that_is_called(precision: str, made: Made) -> None:
    """Only what changes types is no module's, and the last change of layout, whose name is the output's."""
    modules = dict(made.form.named_modules())
    for operator in made.layers(precision).graph.operators:
        assert not isinstance(modules[operator.scope], nn.ModuleList)
        if operator.scope == "":
            assert operator.kind in ("QUANTIZE", "DEQUANTIZE", "TRANSPOSE")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("backbone/stem/0;3", "backbone.stem.0"),
        ("backbone/0/0/body/1/0;2", "backbone.stages.0.0.body.1.0"),
        ("backbone/1/1;;backbone/stem/1", "backbone.stages.1.1"),
        ("backbone;1", "backbone"),
        ("head/0/squeeze", "head.blocks.0.squeeze"),
        ("head/0/1;1", "head.laterals.0.1"),
        ("head/0/bridge/0;2", "head.outputs.0.bridge.0"),
        ("head/0;1", "head"),
        ("head/0/unheard/of", "head"),
        ("backbone/0/1/blocks/0/unheard/0", "backbone.stages.0.1.blocks.0"),
        ("logits", ""),
        ("", ""),
    ],
)
def test_names_lead_to_modules(name: str, path: str, detector_paths: dict[str, str]) -> None:
    """What may be any of several modules is the one's that has them all."""
    assert _resolve(name, detector_paths) == path


# ---- values ------------------------------------------------------------------------------------------------


@every_precision
def test_values_are_those_of_the_file(precision: str, made: Made) -> None:
    """The picture and the outputs are the runner's, whichever tensors are asked for beside them."""
    picture = golden_picture(0, SIZE)
    layers = made.layers(precision)
    several = {boundary.output for boundary in boundaries(layers.graph)}
    found = layers.values(picture, {"image", "logits", *several})
    with LiteRTRunner(made.files[precision], SIZE, made.prepared.config.output_shapes()) as runner:
        logits = runner.run(picture)["logits"]
    assert np.array_equal(found["image"], picture)
    assert found["logits"].dtype == np.float32
    assert found["logits"].shape == logits.shape
    assert np.abs(found["logits"] - logits).max() <= 1e-5 * np.abs(logits).max()


def test_values_are_of_the_picture_that_is_given(made: Made) -> None:
    layers, name = made.layers("fp32"), "backbone/stem/0;3"
    first, second = (layers.values(golden_picture(index, SIZE), [name])[name] for index in (0, 1))
    again = layers.values(golden_picture(0, SIZE), [name])[name]
    assert first.shape == (1, 32, 32, 8)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_integers_come_as_the_values_that_they_stand_for(made: Made) -> None:
    layers = made.layers("int8")
    graph = layers.graph
    assert len(graph.steps) > 100
    assert graph.steps.keys() == graph.ranges.keys()
    again = {one.outputs[0] for one in graph.operators if one.kind == "QUANTIZE" and one.inputs[0] in graph.steps}
    assert again
    for name, values in layers.values(golden_picture(0, SIZE), graph.steps).items():
        step, (low, high) = graph.steps[name], graph.ranges[name]
        assert high - low == pytest.approx(255 * step) if name not in again else 2 * step < high - low < 255.5 * step
        assert low - 0.01 * step <= values.min() <= values.max() <= high + 0.01 * step
        assert np.abs(values / step - np.rint(values / step)).max() < 0.01, name


@pytest.mark.parametrize("precision", ["fp16", "int8-weights"])
def test_unpacked_weights_are_constants(precision: str, made: Made) -> None:
    """They stand before DEQUANTIZE; only the picture's is an op of the graph."""
    graph = made.layers(precision).graph
    assert [operator.inputs for operator in graph.operators if operator.kind == "DEQUANTIZE"] == [("image",)]
    assert graph.ranges == dict.fromkeys(("image", *graph.operators[0].outputs), (0.0, 255.0))


def test_tensors_of_one_name_are_told_apart(made: Made, tmp_path: Path) -> None:
    names = ["backbone/stem/1", "backbone/stem/1;1"]
    model = flatbuffer_utils.read_model(str(made.files["fp32"]))
    (graph,) = model.subgraphs
    indices = [_index(graph, name) for name in names]
    graph.tensors[indices[1]].name = names[0].encode()
    layers = TFLiteLayers(_written(model, tmp_path), made.form)
    picture = golden_picture(0, SIZE)
    expected = made.layers("fp32").values(picture, names)
    found = layers.values(picture, [f"{names[0]}#{index}" for index in indices])
    for one, other in zip(expected.values(), found.values(), strict=True):
        assert np.array_equal(one, other)
    assert names[0] not in {name for operator in layers.graph.operators for name in operator.outputs}


# ---- planted faults ----------------------------------------------------------------------------------------


def _index(graph: Any, name: str) -> int:
    """The index of the only tensor of a name."""
    (found,) = (index for index, tensor in enumerate(graph.tensors) if tensor.name == name.encode())
    return found


def _written(model: Any, folder: Path) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(to_tflite.pack(model))
    return path


def _operator(model: Any, form: nn.Module, path: str, *kinds: str) -> Any:
    """The first op of a module whose kind is one of those."""
    (graph,) = model.subgraphs
    paths = _paths_by_key(form)
    codes = [getattr(schema.BuiltinOperator, kind) for kind in kinds]
    return next(
        operator
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode in codes
        and _resolve(graph.tensors[operator.outputs[0]].name.decode(), paths) == path
    )


def _own_constant(model: Any, operator: Any, place: int) -> Any:
    """The buffer of a copy of the constant that an op reads there; what others read stays as it is."""
    (graph,) = model.subgraphs
    tensor = copy.copy(graph.tensors[operator.inputs[place]])
    model.buffers.append(schema.BufferT(data=model.buffers[tensor.buffer].data))
    tensor.buffer = len(model.buffers) - 1
    operator.inputs[place] = len(graph.tensors)
    graph.tensors.append(tensor)
    return model.buffers[-1]


def _change(buffer: Any, dtype: str, change: Callable[[Any], Any]) -> None:
    values = np.asarray(change(np.frombuffer(bytes(buffer.data), dtype))).astype(dtype)
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)


def _scale_weights(model: Any, form: nn.Module, path: str) -> None:
    """The weights of a convolution are 1.05 times what they were, in whatever type they are."""
    (graph,) = model.subgraphs
    reader, place = _operator(model, form, path, "CONV_2D", "DEPTHWISE_CONV_2D"), 1
    for operator in graph.operators:
        if reader.inputs[place] in operator.outputs:  # DEQUANTIZE
            reader, place = operator, 0
            break
    tensor = graph.tensors[reader.inputs[place]]
    if tensor.type == schema.TensorType.INT8:
        tensor.quantization.scale = np.asarray(tensor.quantization.scale) * np.float32(1.05)
    else:
        dtype = "<f2" if tensor.type == schema.TensorType.FLOAT16 else "<f4"
        _change(_own_constant(model, reader, place), dtype, lambda values: values * np.float32(1.05))


def _shift_bias(model: Any, form: nn.Module, path: str) -> None:
    """A convolution in int8 gives two steps more."""
    (graph,) = model.subgraphs
    convolution = _operator(model, form, path, "CONV_2D", "DEPTHWISE_CONV_2D")
    step = graph.tensors[convolution.outputs[0]].quantization.scale[0]
    of_bias = np.asarray(graph.tensors[convolution.inputs[2]].quantization.scale)
    _change(_own_constant(model, convolution, 2), "<i4", lambda values: values + np.rint(2 * step / of_bias))


def _move_padding(model: Any, form: nn.Module, path: str) -> None:
    """What is padded on both sides is padded twice on one: the picture moves by a pixel."""
    pad = _operator(model, form, path, "PAD")

    def move(widths: Any) -> Any:
        total = widths.reshape(4, 2).sum(1)
        return np.stack([total, 0 * total], 1)

    _change(_own_constant(model, pad, 1), "<i4", move)


def _raise_epsilon(model: Any, form: nn.Module, path: str) -> None:
    """LayerNorm adds 0.1 to the variance."""
    add = _operator(model, form, path, "ADD")
    buffers = [model.buffers[model.subgraphs[0].tensors[index].buffer] for index in add.inputs]
    (place,) = (place for place, buffer in enumerate(buffers) if buffer.data is not None)
    _change(_own_constant(model, add, place), "<f4", lambda values: 0 * values + 0.1)


def _add_for_multiply(model: Any, form: nn.Module, path: str) -> None:
    """SiLU is x + sigmoid(x)."""
    multiply = _operator(model, form, path, "MUL")
    multiply.opcodeIndex = to_tflite.operator_code(model, schema.BuiltinOperator.ADD, version=1)
    multiply.builtinOptionsType = schema.BuiltinOptions.AddOptions
    multiply.builtinOptions = schema.AddOptionsT()


def _nudge_zero_point(model: Any, form: nn.Module, path: str) -> None:
    """What a convolution gives has its zero at the next integer, for who makes it and for who reads it."""
    (graph,) = model.subgraphs
    made = graph.tensors[_operator(model, form, path, "CONV_2D").outputs[0]]
    made.quantization.zeroPoint = np.asarray(made.quantization.zeroPoint) + 1


@pytest.mark.parametrize(
    ("precision", "plant", "path"),
    [
        ("fp32", _scale_weights, "backbone.stages.1.1.fuse.0"),
        ("fp32", _scale_weights, "backbone.stages.0.1.blocks.1.attention.score"),
        ("fp32", _scale_weights, "head.scales.2"),
        ("fp32", _move_padding, "backbone.stem.0"),
        ("fp32", _move_padding, "backbone.stages.0.0.body.1.0"),
        ("fp32", _raise_epsilon, "backbone.stages.1.1.blocks.2.norm2"),
        ("fp32", _add_for_multiply, "backbone.stage2.1.body.1.1"),
        ("fp16", _scale_weights, "backbone.stages.2.1.blocks.0.mlp.2"),
        ("int8-weights", _scale_weights, "backbone.stages.1.0.body.3"),
        ("int8", _scale_weights, "backbone.stem.0"),
        ("int8", _scale_weights, "backbone.stages.0.0.body.3"),
        ("int8", _scale_weights, "backbone.stages.1.1.blocks.1.attention.v"),
        ("int8", _shift_bias, "backbone.stem.0"),
        ("int8", _shift_bias, "backbone.stages.1.1.enter.1"),
        ("int8", _move_padding, "backbone.stages.0.0.body.1.0"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else value,
)
def test_a_fault_is_blamed_on_its_layer(precision: str, plant: Plant, path: str, made: Made, tmp_path: Path) -> None:
    model = flatbuffer_utils.read_model(str(made.files[precision]))
    plant(model, made.form, path)
    layers = TFLiteLayers(_written(model, tmp_path), made.form)
    report = compare_layers(made.form, layers, precision, PICTURES)
    assert not report
    assert report.first is not None
    assert report.first.path == path


@every_precision
def test_no_layer_of_a_clean_file_is_blamed(precision: str, made: Made) -> None:
    report = compare_layers(made.form, made.layers(precision), precision, PICTURES)
    assert report.misses() == []
    assert report.compared >= 0.9 * report.modules


def test_another_zero_point_alone_is_no_fault(made: Made, tmp_path: Path) -> None:
    """A tensor has one, for who writes it and for who reads it: the values stay."""
    model = flatbuffer_utils.read_model(str(made.files["int8"]))
    _nudge_zero_point(model, made.form, "backbone.stages.0.0.body.3")
    layers = TFLiteLayers(_written(model, tmp_path), made.form)
    assert compare_layers(made.form, layers, "int8", PICTURES).misses() == []


# ---- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.001, 0.5, 0.99])
def test_truncated_files_are_refused(share: float, made: Made, tmp_path: Path) -> None:
    content = made.files["int8"].read_bytes()
    path = tmp_path / "model.tflite"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BundleError, match=r"LiteRT refuses .*model\.tflite: "):
        TFLiteLayers(path, made.form)


def _add_subgraph(model: Any) -> None:
    model.subgraphs = [*model.subgraphs, copy.copy(model.subgraphs[0])]


def _misname_tensor(model: Any) -> None:
    model.subgraphs[0].tensors[model.subgraphs[0].operators[3].outputs[0]].name = b"\xff\xfe"


@pytest.mark.parametrize("change", [_add_subgraph, _misname_tensor], ids=["subgraphs", "names"])
def test_a_model_of_another_form_is_refused(change: Callable[[Any], None], made: Made, tmp_path: Path) -> None:
    model = flatbuffer_utils.read_model(str(made.files["fp32"]))
    change(model)
    with pytest.raises(BundleError, match=r"model\.tflite has an unknown form"):
        TFLiteLayers(_written(model, tmp_path), made.form)


def test_a_picture_of_another_size_is_refused(made: Made) -> None:
    with pytest.raises(BundleError, match="LiteRT fails in"):
        made.layers("fp32").values(golden_picture(0, ImageSize(128, 64)), ["logits"])


def test_a_missing_file_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"can't read .*: No such file or directory"):
        TFLiteLayers(tmp_path / "model.tflite", made.form)
