"""The layers of Core ML packages: clean ones pass, and of one that was tampered with the right layer is blamed.

Faults are planted in the written package: in its program, a protocol buffer, or in the file of its weights.
"""

from __future__ import annotations

import functools
import importlib
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from xformer_export import quantize_coreml, to_coreml
from xformer_export.calibration import Calibration
from xformer_export.layers import mlpackage_dir
from xformer_export.layers.compare import LayerReport, compare_layers
from xformer_export.layers.mlpackage_dir import CoreMLLayers
from xformer_export.prepare import Options, prepare
from xformer_mobile.errors import BundleError, UsageError
from xformer_mobile.mobile import MobileXFormer
from xformer_mobile.optional import import_coremltools
from xformer_mobile.patterns import golden_picture
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.mil import MilOp
from xformer_mobile.spec import ImageSize

SMALL = ImageSize(64, 64)
MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"
TYPES = {10: np.dtype("<f2"), 11: np.dtype("<f4")}
"""numpy's types by MIL's data types."""

CASES = {
    "classify-fp16": ("fp16", 16),
    "detect-int8-weights": ("int8-weights", 18),
    "segment-int8": ("int8", 17),
}
"""The precision and the minimum iOS of the packages, by task and precision."""


@dataclass(frozen=True)
class Package:
    """A clean package and its layers."""

    path: Path
    form: MobileXFormer
    precision: str
    layers: CoreMLLayers
    pictures: list[ByteImage]

    def compare(self, layers: CoreMLLayers) -> LayerReport:
        return compare_layers(self.form, layers, self.precision, self.pictures)


Make = Callable[[str], Package]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Converts a case of CASES when it is first asked for. A form is exported once, however many packages are read.

    coremltools does not check its program after each pass, one method finds all ranges, and no fp32 package is made
    only to be weighed: that takes most of the time.
    """
    made: dict[str, Package] = {}
    folder = tmp_path_factory.mktemp("packages")

    def one(name: str) -> Package:
        if name not in made:
            precision, ios = CASES[name]
            prepared = prepare(None, task=name.partition("-")[0], variant="xformer_xxs", image_size=SMALL)
            path = folder / f"{name}.mlpackage"
            calibration = Calibration.of(prepared.config, count=4)
            to_coreml.convert(prepared, Options(precision, ios, calibration=calibration), path)
            form = prepared.mobile
            layers = CoreMLLayers(path, form)
            pictures = [golden_picture(index, SMALL) for index in range(2)]
            made[name] = Package(path, form, precision, layers, pictures)
        return made[name]

    import_coremltools()
    program = importlib.import_module("coremltools.converters.mil.mil").Program
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "validate", lambda self, **options: None)
        patch.setattr(to_coreml, "_float_size", lambda *what: 0)
        one_method = functools.partial(quantize_coreml.choose_ranges, methods=["minmax"])
        patch.setattr(quantize_coreml, "choose_ranges", one_method)
        patch.setattr(mlpackage_dir, "_paths_by_node", functools.cache(mlpackage_dir._paths_by_node))
        yield one


# ---- clean packages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_every_layer_of_a_clean_package_passes(make: Make, name: str) -> None:
    package = make(name)
    report = package.compare(package.layers)
    assert not report.misses()
    compared = {row.path for row in report.rows}
    parts = {
        path
        for path, module in package.form.named_modules()
        if not list(module.children()) and not isinstance(module, nn.Identity)
    }
    # Attention runs one kernel of zeros and ones twice.
    assert {path.rpartition(".")[2] for path in parts - compared} == {"sum_heads"}
    assert report.compared >= 0.95 * report.modules


@pytest.mark.parametrize("name", CASES)
def test_values_are_the_programs_own_in_the_forms_layout(make: Make, name: str) -> None:
    package = make(name)
    graph, (picture, _) = package.layers.graph, package.pictures
    names = {*graph.inputs, *graph.outputs, *(name for operator in graph.operators for name in operator.outputs)}
    values = package.layers.values(picture, names)
    assert values.keys() == names
    assert {found.dtype for found in values.values()} == {np.dtype(np.float32)}
    assert np.array_equal(values["image"], picture.transpose(0, 3, 1, 2))
    assert set(graph.outputs) == set(package.form.config.output_shapes())
    for name, (low, high) in graph.ranges.items():
        step = graph.steps[name]
        assert values[name].min() >= low - step / 2, name
        assert values[name].max() <= high + step / 2, name
        # A multiple of the step away from the end of the range, as far as float16 holds it.
        steps = (values[name] - low) / step
        assert np.allclose(steps, np.round(steps), atol=0.25), name
    assert bool(graph.steps) == (package.precision == "int8")


def test_sums_in_int8_are_read_in_the_forms_unit(make: Make) -> None:
    package = make("segment-int8")
    values = package.layers.values(
        package.pictures[0], {name for o in package.layers.graph.operators for name in o.outputs}
    )
    sums = [
        operator
        for operator in package.layers.graph.operators
        if operator.kind == "add" and all(name in package.layers.graph.steps for name in operator.inputs)
    ]
    assert sums
    raw = package.layers._program.run({"image": package.pictures[0]}, intermediates=[o.outputs[0] for o in sums])
    moved = [o for o in sums if not np.allclose(raw[o.outputs[0]], values[o.outputs[0]], rtol=0.01)]
    assert moved, "coremltools has left all units alone: another case is needed"
    for operator in sums:
        x, y = (values[name] for name in operator.inputs)
        assert np.allclose(x + y, values[operator.outputs[0]], atol=0.01 * np.abs(x + y).max())


def test_ops_are_named_by_what_they_were_made_from() -> None:
    operations = [
        MilOp("cast_1", "cast", ("image",), ("image_to_fp16",), {}),
        MilOp("conv2d_3_cast_fp16", "conv", ("image_to_fp16",), ("conv2d_3_cast_fp16",), {}),
        MilOp("quantize_0", "quantize", ("conv2d_3_cast_fp16",), ("quantize_0",), {}),
        MilOp("dequantize_0", "dequantize", ("quantize_0",), ("dequantize_0",), {}),
        MilOp("fused_7", "relu", ("dequantize_0",), ("fused_7",), {}),
        MilOp("reshape_0", "reshape", ("fused_7",), ("reshape_0",), {}),
        MilOp("view_cast_fp16", "reshape", ("reshape_0",), ("logits",), {}),
    ]
    paths = {"conv2d": "stem", "conv2d_3": "body.conv", "view": "head"}
    scopes = [operator.scope for operator in mlpackage_dir._operators(operations, paths)]
    assert scopes == ["", "body.conv", "", "", "body.conv", "", "head"]


STEPS = {"x": 0.02, "y": 0.04, "z": 0.1, "v": 0.05, "w": 0.2}
"""Of tensors in the form's unit: z is x + y, and w is z + v."""

SCALES = {
    "quantize_x": 0.02,
    "dequantize_x": 0.02 / 0.04,
    "quantize_y": 0.04,
    "dequantize_y": 1.0,
    "quantize_z": 0.1 / 0.04,
    "dequantize_z": 0.1 / 0.05,
    "quantize_v": 0.05,
    "dequantize_v": 1.0,
    "quantize_w": 0.2 / 0.05,
    "dequantize_w": 0.2,
}
"""What coremltools makes of them: around the first sum they are divided by y's, around the second by v's."""


@pytest.mark.parametrize("wrong", ["none", *SCALES])
def test_one_wrong_scale_does_not_make_the_other_tensors_of_a_sum_look_wrong(wrong: str) -> None:
    def pair(name: str, source: str) -> list[MilOp]:
        made, read = f"quantize_{name}", f"dequantize_{name}"
        settings = [
            {"scale": SCALES[one] * (1.05 if one == wrong else 1.0), "zero_point": 3.0, "output_dtype": "int8"}
            for one in (made, read)
        ]
        return [
            MilOp(made, "quantize", (source,), (made,), settings[0]),
            MilOp(read, "dequantize", (made,), (read,), settings[1]),
        ]

    held = mlpackage_dir._find_held(
        [
            *pair("x", "float_x"),
            *pair("y", "float_y"),
            MilOp("sum_z", "add", ("dequantize_x", "dequantize_y"), ("sum_z",), {}),
            *pair("z", "sum_z"),
            *pair("v", "float_v"),
            MilOp("sum_w", "add", ("dequantize_z", "dequantize_v"), ("sum_w",), {}),
            *pair("w", "sum_w"),
        ]
    )
    units = {"dequantize_x": 0.04, "dequantize_y": 0.04, "sum_z": 0.04}
    units |= {"dequantize_z": 0.05, "dequantize_v": 0.05, "sum_w": 0.05, "dequantize_w": 1.0}
    assert {name: held[name].unit for name in units} == pytest.approx(units)
    for name, right in STEPS.items():
        step = right * (1.05 if wrong == f"dequantize_{name}" else 1.0)
        for tensor in (f"quantize_{name}", f"dequantize_{name}"):
            grid = held[tensor].grid
            assert grid is not None
            assert (grid.step, grid.low, grid.high) == pytest.approx((step, -131 * step, 124 * step)), tensor
        assert held[f"quantize_{name}"].as_float(np.array([3, 5], np.int8)) == pytest.approx([0, 2 * step])


# ---- planted faults ---------------------------------------------------------------------------------------


class Editor:
    """A package's program and weights, to be changed and written back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = import_coremltools().proto.Model_pb2.Model()
        self.spec.ParseFromString((path / MODEL).read_bytes())
        self.blobs = bytearray((path / WEIGHTS).read_bytes())
        function = self.spec.mlProgram.functions["main"]
        self.operations = function.block_specializations[function.opset].operations

    def maker(self, name: str) -> Any:
        """The op that makes a value."""
        return next(one for one in self.operations if name in [output.name for output in one.outputs])

    def parameter(self, operation: Any, name: str) -> Any:
        """The constant that is an op's parameter."""
        if name in operation.attributes:
            return operation.attributes[name]
        argument = operation.inputs[name].arguments[0]
        return argument.value if argument.HasField("value") else self.maker(argument.name).attributes["val"]

    def own(self, operation: Any, name: str) -> Any:
        """The same, in a copy that no other op reads."""
        source = operation.inputs[name].arguments[0]
        copy = type(operation)()
        copy.CopyFrom(self.maker(source.name))
        copy.outputs[0].name = source.name = f"planted_{name}"
        self.operations.insert(0, copy)
        return self.operations[0].attributes["val"]

    def scale(self, value: Any, factor: float) -> None:
        """Multiply a constant of floats, wherever it is stored."""
        dtype = TYPES[value.type.tensorType.dataType]
        if value.WhichOneof("value") == "blobFileValue":
            # The header of MIL's blob: a mark, the data type, the size, and where the data begin.
            _, _, size, start = struct.unpack_from("<IIQQ", self.blobs, value.blobFileValue.offset)
            made = np.frombuffer(self.blobs[start : start + size], dtype) * dtype.type(factor)
            self.blobs[start : start + size] = made.astype(dtype).tobytes()
            return
        tensor = value.immediateValue.tensor
        if tensor.WhichOneof("value") == "floats":
            tensor.floats.values[:] = [number * factor for number in tensor.floats.values]
        else:
            made = np.frombuffer(tensor.bytes.values, dtype) * dtype.type(factor)
            tensor.bytes.values = made.astype(dtype).tobytes()

    def write(self) -> None:
        (self.path / MODEL).write_bytes(self.spec.SerializeToString())
        (self.path / WEIGHTS).write_bytes(self.blobs)


def wrong_weights(editor: Editor, operation: Any, parameter: str) -> None:
    """5 % too large; in int8, their scales."""
    maker = editor.maker(operation.inputs[parameter].arguments[0].name)
    editor.scale(editor.parameter(maker, "val" if maker.type == "const" else "scale"), 1.05)


def moved_pad(editor: Editor, operation: Any, parameter: str) -> None:
    """One row above goes below."""
    pads = editor.own(operation, parameter).immediateValue.tensor.ints.values
    assert list(pads) == [1, 1, 1, 1]
    pads[:] = [0, 2, 1, 1]


def wrong_scale(editor: Editor, operation: Any, parameter: str) -> None:
    """5 % too large, of this op alone."""
    editor.scale(editor.own(operation, parameter), 1.05)


def wrong_zero(editor: Editor, operation: Any, parameter: str) -> None:
    """Off by one, of this op alone."""
    tensor = editor.own(operation, parameter).immediateValue.tensor
    tensor.bytes.values = (np.frombuffer(tensor.bytes.values, np.int8) + np.int8(1)).tobytes()


@dataclass(frozen=True)
class Fault:
    """What is planted in which parameter of which op. The op is the first of ``kind`` that ``module`` has or, of a
    quantize or dequantize, that follows its last. ``blamed`` is the layer, if it is not the module."""

    package: str
    module: str
    kind: str
    parameter: str
    plant: Callable[[Editor, Any, str], None]
    blamed: str = ""


FAULTS = {
    f"{fault.package} {fault.plant.__name__} {fault.module} {fault.kind}": fault
    for fault in (
        Fault("classify-fp16", "backbone", "sub", "y", wrong_weights, blamed="image"),
        Fault("classify-fp16", "backbone.stem.0", "conv", "weight", wrong_weights),
        Fault("classify-fp16", "backbone.stage2.1.body.1.0", "conv", "pad", moved_pad),
        Fault("classify-fp16", "backbone.stages.0.1.blocks.1.norm2", "layer_norm", "gamma", wrong_weights),
        Fault("classify-fp16", "backbone.stages.1.1.blocks.2.attention", "linear", "weight", wrong_weights),
        Fault("classify-fp16", "head.fc", "conv", "weight", wrong_weights),
        Fault("detect-int8-weights", "backbone.stages.2.1.blocks.0.mlp.2", "conv", "weight", wrong_weights),
        Fault("detect-int8-weights", "head.blocks.1.body.0.0", "conv", "weight", wrong_weights),
        Fault("detect-int8-weights", "head.blocks.2.body.2.0", "conv", "pad", moved_pad),
        Fault("segment-int8", "backbone.stages.0.0.body.3", "conv", "weight", wrong_weights),
        Fault("segment-int8", "backbone.stage2.2.body.1.0", "conv", "pad", moved_pad),
        Fault("segment-int8", "backbone.stage2.1.body.0.1", "quantize", "zero_point", wrong_zero),
        Fault("segment-int8", "backbone.stage1.body.3", "dequantize", "zero_point", wrong_zero),
        Fault("segment-int8", "head.scales.0", "quantize", "scale", wrong_scale),
        Fault("segment-int8", "head.scales.0", "dequantize", "scale", wrong_scale),
    )
}


def find_operation(package: Package, fault: Fault) -> str:
    """The output of the op that the fault is planted in."""
    graph = package.layers.graph
    own = [operator for operator in graph.operators if operator.scope == fault.module]
    if fault.kind not in ("quantize", "dequantize"):
        return next(operator.outputs[0] for operator in own if operator.kind == fault.kind)
    name = own[-1].outputs[0]
    while True:
        follower = next(one for one in graph.operators if name in one.inputs and one.kind in ("quantize", "dequantize"))
        (name,) = follower.outputs
        if follower.kind == fault.kind:
            return name


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_blamed_on_its_layer(make: Make, tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    package = make(fault.package)
    path = tmp_path / "model.mlpackage"
    shutil.copytree(package.path, path)
    editor = Editor(path)
    fault.plant(editor, editor.maker(find_operation(package, fault)), fault.parameter)
    editor.write()
    first = package.compare(CoreMLLayers(path, package.form)).first
    assert first is not None
    assert first.path == (fault.blamed or fault.module)


# ---- refused ----------------------------------------------------------------------------------------------


def test_what_is_no_package_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no Core ML package"):
        CoreMLLayers(tmp_path / "absent.mlpackage", make("classify-fp16").form)


def test_an_unknown_tensor_is_refused(make: Make) -> None:
    package = make("classify-fp16")
    with pytest.raises(UsageError, match="computes no value 'nothing'"):
        package.layers.values(package.pictures[0], ["nothing"])
