"""Layer by layer: clean artifacts pass, and a planted fault is blamed on the very module that it is in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from xformer_export import to_onnx
from xformer_export.calibration import Calibration
from xformer_export.layers import LayerReport, look_inside
from xformer_export.layers.compare import IMAGE, LIMITS, compare_layers
from xformer_export.layers.onnx_file import OnnxLayers
from xformer_export.layers.operators import Boundary, Graph, Operator, boundaries, holds_picture
from xformer_export.prepare import Options, Prepared, prepare
from xformer_mobile.errors import BundleError, UnavailableError, UsageError
from xformer_mobile.patterns import golden_picture
from xformer_mobile.spec import ImageSize

SIZE = ImageSize(64, 64)

PICTURES = [golden_picture(index, SIZE) for index in range(2)]

OWN_SNR_DB = {"fp32": 110.0, "fp16": 55.0, "int8-weights": 35.0, "int8": 25.0}
"""What the worst layer of a clean artifact reaches at least; the limits are well below."""


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(None, task="classify", variant="xformer_xxs", image_size=SIZE)


@pytest.fixture(scope="module")
def artifacts(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model.onnx of each precision. Don't change them."""
    folder, calibration = tmp_path_factory.mktemp("layers"), Calibration.of(prepared.config, count=2)
    paths = {precision: folder / f"{precision}.onnx" for precision in LIMITS}
    for precision, path in paths.items():
        to_onnx.convert(prepared, Options(precision=precision, calibration=calibration), path)
    return paths


def _look(prepared: Prepared, path: Path, precision: str) -> LayerReport:
    return look_inside(prepared, "onnx", path, precision=precision, pictures=PICTURES)


# ---- where modules begin and end --------------------------------------------------------------------------


def _op(scope: str, kind: str, read: str, made: str) -> Operator:
    return Operator(scope, kind, tuple(read.split()), tuple(made.split()))


@pytest.mark.parametrize(
    ("operators", "outputs", "expected"),
    [
        pytest.param(
            [_op("a", "Conv", "x", "y"), _op("b.c", "Conv", "y", "z")],
            "z",
            [Boundary("a", "x", "y"), Boundary("b.c", "y", "z"), Boundary("b", "y", "z")],
            id="one after the other, parts before the whole",
        ),
        pytest.param(
            [
                _op("a", "Conv", "x", "y"),
                _op("", "QuantizeLinear", "y", "q"),
                _op("", "DequantizeLinear", "q", "d"),
                _op("b", "Conv", "d", "z"),
            ],
            "z",
            [Boundary("a", "x", "d"), Boundary("b", "d", "z")],
            id="quantizing is its producer's",
        ),
        pytest.param(
            [_op("a", "Conv", "x", "y"), _op("", "CAST", "y", "h"), _op("b", "Mul", "y h", "z")],
            "z",
            [Boundary("a", "x", "h"), Boundary("b", "h", "z")],
            id="the same values in two types are one tensor",
        ),
        pytest.param(
            [_op("a", "Conv", "x", "y"), _op("b", "Mul", "x y", "z")],
            "z",
            [Boundary("a", "x", "y"), Boundary("b", None, "z")],
            id="two tensors in",
        ),
        pytest.param(
            [_op("a", "Conv", "x", "y"), _op("a.b", "Conv", "y", "z")],
            "y z",
            [Boundary("a.b", "y", "z")],
            id="two tensors out",
        ),
        pytest.param(
            [_op("a", "Split", "x", "y z"), _op("b", "Mul", "y z", "w")],
            "w",
            [Boundary("b", None, "w")],
            id="an op with two outputs",
        ),
        pytest.param(
            [_op("", "Sub", "x", "y"), _op("ab", "Conv", "y", "z"), _op("a", "Conv", "z", "w")],
            "w",
            [Boundary("ab", "y", "z"), Boundary("a", "z", "w")],
            id="a path that begins like another",
        ),
    ],
)
def test_boundaries(operators: list[Operator], outputs: str, expected: list[Boundary]) -> None:
    assert boundaries(Graph(tuple(operators), ("x",), tuple(outputs.split()), {})) == expected


def test_the_picture_is_the_same_in_any_type_and_layout() -> None:
    operators = _op("", "Transpose", "x", "t"), _op("", "Cast", "t", "c"), _op("", "Sub", "c", "s")
    assert holds_picture(Graph(operators, ("x",), ("s",), {})) == {"x", "t", "c"}


# ---- any format -------------------------------------------------------------------------------------------


class Tiny(nn.Module):
    """Two modules of its own work, one that hands on, one that runs twice, and a mean between them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.SiLU())
        self.twice = nn.ReLU()
        self.head = nn.Conv2d(5, 4, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.body(self.twice(image.permute(0, 3, 1, 2).float() - 100))
        return (self.twice(self.head(x.mean((2, 3), keepdim=True))),)


TINY_GRAPH = Graph(
    (
        _op("", "transpose", "image", "nchw"),
        _op("", "sub", "nchw", "centred"),
        _op("twice", "relu", "centred", "entered"),
        _op("body.0", "conv", "entered", "conv"),
        _op("body.1", "silu", "conv", "body"),
        _op("", "reduce_mean", "body", "mean"),
        _op("head", "conv", "mean", "head"),
        _op("twice", "relu", "head", "out"),
    ),
    ("image",),
    ("out",),
    {},
)


class FakeLayers:
    """Computes the tensors of TINY_GRAPH, then changes them."""

    def __init__(self, form: Tiny, change: Callable[[str, Tensor], Tensor], graph: Graph = TINY_GRAPH) -> None:
        self.form, self.change, self.graph = form, change, graph

    def values(self, image: np.ndarray, names: Collection[str]) -> dict[str, np.ndarray]:
        form, found = self.form, {}

        def keep(name: str, values: Tensor) -> Tensor:
            found[name] = self.change(name, values)
            return found[name] if found[name].shape == values.shape else values

        with torch.no_grad():
            x = keep("centred", torch.from_numpy(image).permute(0, 3, 1, 2).float() - 100)
            x = keep("entered", x.relu())
            x = keep("body", form.body[1](keep("conv", form.body[0](x))))
            x = keep("head", form.head(keep("mean", x.mean((2, 3), keepdim=True))))
            keep("out", x.relu())
        return {name: found[name].numpy() for name in names}


@pytest.fixture
def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny().eval()


def _as_it_is(name: str, values: Tensor) -> Tensor:
    return values


def _compare(tiny: Tiny, change: Callable[[str, Tensor], Tensor] = _as_it_is, **graph: Any) -> LayerReport:
    layers = FakeLayers(tiny, change, Graph(TINY_GRAPH.operators, ("image",), ("out",), **({"steps": {}} | graph)))
    return compare_layers(tiny, layers, "int8" if graph else "fp32", [picture[:, :8, :6] for picture in PICTURES])


def _rows(report: LayerReport) -> dict[str, Any]:
    return {row.path: row for row in report.rows}


def test_equal_layers_pass_and_what_only_hands_on_is_no_layer(tiny: Tiny) -> None:
    report = _compare(tiny)
    assert report
    assert report.misses() == []
    # "twice" runs twice; "body" hands on what body.1 gives; the row of the root is the mean in front of the head.
    assert [(row.path, row.kind) for row in report.rows] == [
        (IMAGE, "Picture"),
        ("body.0", "Conv2d"),
        ("body.1", "SiLU"),
        ("", "Tiny"),
        ("head", "Conv2d"),
    ]
    assert all(row.own_snr_db > 110 and max(row.gain, row.shift) < 1e-6 for row in report.rows)
    assert math.isinf(report.rows[0].own_snr_db)
    assert report.first is None
    document = report.as_json()
    assert (document["passed"], document["compared"], document["first"]) == (True, 4, None)
    assert document["rows"][0]["own_snr_db"] is None
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x: x.permute(0, 2, 3, 1), id="channels last"),
        pytest.param(lambda x: x.permute(0, 2, 3, 1).flatten(0, 2), id="a row for each pixel"),
        pytest.param(lambda x: x.flatten(2), id="pixels in one axis"),
    ],
)
def test_layouts_are_found(tiny: Tiny, change: Callable[[Tensor], Tensor]) -> None:
    report = _compare(tiny, lambda name, values: change(values))
    assert report
    assert len(report.rows) == 5


@pytest.mark.parametrize(
    ("name", "change", "path", "figure"),
    [
        pytest.param("conv", lambda x: 1.05 * x, "body.0", "scaled", id="a scale"),
        pytest.param("conv", lambda x: x + 0.5, "body.0", "shifted", id="an offset"),
        pytest.param("body", lambda x: x.roll(1, 2), "body.1", "signal-to-noise", id="moved by a pixel"),
        pytest.param("mean", lambda x: 1.1 * x, "", "scaled", id="between the modules"),
        pytest.param("centred", lambda x: x.flip(1), IMAGE, "signal-to-noise", id="channels swapped"),
        pytest.param("head", lambda x: x * math.nan, "head", "nan", id="not a number"),
    ],
)
def test_the_layer_with_the_fault_is_blamed(
    tiny: Tiny, name: str, change: Callable[[Tensor], Tensor], path: str, figure: str
) -> None:
    report = _compare(tiny, lambda made, values: change(values) if made == name else values)
    assert not report
    assert report.first is not None
    assert report.first.path == path
    assert [row.path for row in report.rows if not row.passed] == [path]
    assert any(figure in miss and report.first.kind in miss for miss in report.misses())
    json.dumps(report.as_json(), allow_nan=False)


def test_rounding_and_cutting_off_are_no_faults(tiny: Tiny) -> None:
    """Half of the values are beyond the range of the tensor, and its steps are coarse."""
    step, low, high = 3.0, -21.0, 21.0

    def rounded(name: str, values: Tensor) -> Tensor:
        return (values / step).round().mul(step).clip(low, high) if name == "conv" else values

    clean = _compare(tiny, rounded, steps={"conv": step}, ranges={"conv": (low, high)})
    assert clean
    assert _rows(clean)["body.0"].gain == 0

    shifted = _compare(tiny, lambda *one: rounded(*one) + step * (one[0] == "conv"), steps={"conv": step})
    assert [row.path for row in shifted.rows if not row.passed] == ["body.0"]


def test_a_gain_is_of_what_is_not_cut_off(tiny: Tiny) -> None:
    """Where a scale is wrong values reach the end of the range that should not: they would hide a part of it."""
    step, low, high = 0.5, -21.0, 21.0

    def scaled(name: str, values: Tensor) -> Tensor:
        return (1.05 * values / step).round().mul(step).clip(low, high) if name == "conv" else values

    found = _compare(tiny, scaled, steps={"conv": step}, ranges={"conv": (low, high)})
    assert _rows(found)["body.0"].gain > 0.045


def test_values_within_one_step_have_no_gain(tiny: Tiny) -> None:
    """A tensor that is nearly constant on its grid tells nothing of a scale, however low its signal is."""
    steps, ranges = {"conv": 1000.0}, {"conv": (-128000.0, 127000.0)}
    assert _compare(tiny, lambda name, values: 0 * values if name == "conv" else values, steps=steps, ranges=ranges)


# ---- ONNX -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", LIMITS)
def test_a_clean_artifact_passes(prepared: Prepared, artifacts: dict[str, Path], precision: str) -> None:
    report = _look(prepared, artifacts[precision], precision)
    assert report.misses() == []
    assert report.pictures == len(PICTURES)
    assert report.compared >= 0.98 * report.modules
    assert report.modules > 150
    assert report.worst is not None
    assert report.worst.own_snr_db >= OWN_SNR_DB[precision]
    # In int8 the first convolution reads the picture's bytes in a border: there is nothing in front of it.
    assert (IMAGE in _rows(report)) == (precision != "int8")


def test_inherited_noise_grows_where_the_layers_own_does_not(prepared: Prepared, artifacts: dict[str, Path]) -> None:
    last = _rows(_look(prepared, artifacts["int8"], "int8"))["head.fc"]
    assert last.snr_db is not None
    assert last.snr_db < 25 < last.own_snr_db


def _constant(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def _set(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _node(model: onnx.ModelProto, kind: str, path: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == kind and node.name.startswith(f"{path}/"))


def _scale_weight(model: onnx.ModelProto, path: str) -> None:
    """Five percent: the weights themselves, or the scales of those in int8."""
    weight = _node(model, "Conv", path).input[1]
    makers = [node for node in model.graph.node if weight in node.output]
    scaled = _constant(model, makers[0].input[1] if makers else weight)
    values = numpy_helper.to_array(scaled)
    _set(scaled, (np.float32(1.05) * values).astype(values.dtype))


def _move_pads(model: onnx.ModelProto, path: str) -> None:
    (pads,) = (one.ints for one in _node(model, "Conv", path).attribute if one.name == "pads")
    assert list(pads) == [1, 1, 1, 1]
    pads[:] = [0, 0, 2, 2]


def _move_zero_point(model: onnx.ModelProto, path: str) -> None:
    """By one, in the DequantizeLinear behind a convolution only."""
    made = _node(model, "Conv", path).output[0]
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        node = next(one for one in model.graph.node if one.op_type == kind and one.input[0] == made)
        made = node.output[0]
    zero = numpy_helper.to_array(_constant(model, node.input[2]))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(zero + 1, zero.dtype), "moved"))
    node.input[2] = "moved"


def _swap_mean(model: onnx.ModelProto, path: str) -> None:
    """The normalisation's mean in the order of blue, green, red."""
    mean = _constant(model, _node(model, "Sub", path).input[1])
    _set(mean, numpy_helper.to_array(mean)[:, ::-1].copy())


@pytest.mark.parametrize(
    ("precision", "plant", "path", "blamed"),
    [
        pytest.param("fp32", _scale_weight, "backbone.stages.1.0.body.0.0", None, id="fp32: a weight scaled"),
        pytest.param("fp16", _scale_weight, "backbone.stages.1.0.body.3", None, id="fp16: a weight scaled"),
        pytest.param("int8-weights", _scale_weight, "head.fc", None, id="int8-weights: a weight's scales"),
        pytest.param("int8", _scale_weight, "backbone.stem.0", None, id="int8: the first weight's scales"),
        pytest.param("int8", _scale_weight, "backbone.stages.1.1.blocks.0.mlp.2", None, id="int8: a weight's scales"),
        pytest.param("fp32", _move_pads, "backbone.stages.0.0.body.1.0", None, id="fp32: pads on one side"),
        pytest.param("int8", _move_pads, "backbone.stages.0.0.body.1.0", None, id="int8: pads on one side"),
        pytest.param("int8", _move_zero_point, "backbone.stage2.0.body.3", None, id="int8: a zero point off by one"),
        pytest.param("fp32", _swap_mean, "backbone", IMAGE, id="fp32: the mean's channels swapped"),
    ],
)
def test_a_planted_fault_is_blamed_on_its_module(
    prepared: Prepared,
    artifacts: dict[str, Path],
    tmp_path: Path,
    precision: str,
    plant: Callable[[onnx.ModelProto, str], None],
    path: str,
    blamed: str | None,
) -> None:
    model = onnx.load(artifacts[precision])
    plant(model, path)
    broken = tmp_path / "model.onnx"
    broken.write_bytes(model.SerializeToString())
    report = _look(prepared, broken, precision)
    assert report.first is not None
    assert report.first.path == (blamed or path)
    assert [row.path for row in report.rows if not row.passed] == [report.first.path]
    assert all(miss.startswith(f"{report.first.path} ({report.first.kind}) ") for miss in report.misses())
    assert report.as_json()["first"] == report.first.path


def test_integers_are_read_as_what_they_stand_for(artifacts: dict[str, Path]) -> None:
    layers = OnnxLayers(artifacts["int8"])
    held = next(operator for operator in layers.graph.operators if operator.kind == "DequantizeLinear")
    values = layers.values(PICTURES[0], [held.inputs[0], held.outputs[0], *layers.graph.inputs])
    np.testing.assert_allclose(values[held.inputs[0]], values[held.outputs[0]], rtol=1e-6)
    np.testing.assert_array_equal(values[layers.graph.inputs[0]], PICTURES[0])
    low, high = layers.graph.ranges[held.outputs[0]]
    assert high - low == pytest.approx(255 * layers.graph.steps[held.outputs[0]])
    assert low <= values[held.outputs[0]].min() <= values[held.outputs[0]].max() <= high


def test_a_format_that_shows_nothing_says_why(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="gives no tensor but its outputs"):
        look_inside(prepared, "ort", tmp_path / "model", precision="fp32", pictures=PICTURES)


@pytest.mark.parametrize(("format", "precision"), [("gguf", "fp32"), ("onnx", "int4")])
def test_unknown_names_are_the_users_error(
    prepared: Prepared, artifacts: dict[str, Path], format: str, precision: str
) -> None:
    with pytest.raises(UsageError, match="unknown"):
        look_inside(prepared, format, artifacts["fp32"], precision=precision, pictures=PICTURES)


@pytest.mark.parametrize("content", [b"no model", b""], ids=["other bytes", "empty"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        OnnxLayers(path)
