"""Core ML packages in int8: what computes in it, how weights and ranges are stored, their numbers, what is refused.

Packages are read with coremltools' own loader and run by the evaluator of :mod:`xformer_mobile.runners.mil`.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import macs_by_torch
from xformer_export import quantize_coreml
from xformer_export.calibration import Calibration, snr_db
from xformer_export.op_rules import ALLOWED_OPS, QUANTIZED_OPS, check_graph
from xformer_export.placement import Placement
from xformer_export.prepare import Converted, Options, Prepared, prepare
from xformer_export.recipes import RECIPES
from xformer_export.to_coreml import convert
from xformer_mobile.bench.counts import count_artifact, read_certificate
from xformer_mobile.errors import ConversionError, UsageError
from xformer_mobile.mobile import MobileXFBlock
from xformer_mobile.optional import import_coremltools
from xformer_mobile.ranges import METHODS
from xformer_mobile.runners.mil import MilProgram
from xformer_mobile.spec import ImageSize

SMALL = ImageSize(64, 64)
PICTURES = 8
WEIGHTS = "Data/com.apple.CoreML/weights"


@dataclass(frozen=True)
class Case:
    """What is converted; ``snr_db`` is what must be left on drawn weights."""

    task: str
    precision: str
    ios: int
    snr_db: float


CASES = {
    f"{case.task}-{case.precision}-ios{case.ios}": case
    for case in (
        Case("classify", "int8", 17, 5),
        Case("detect", "int8", 18, 3),
        Case("segment", "int8-weights", 16, 12),
        Case("classify", "int8-weights", 18, 12),
    )
}
INT8 = [name for name, case in CASES.items() if case.precision == "int8"]


@dataclass(frozen=True)
class Package:
    """A converted case."""

    case: Case
    prepared: Prepared
    path: Path
    converted: Converted

    @functools.cached_property
    def ops(self) -> list[Any]:
        """The program's ops as coremltools loads them, constants left out."""
        return [op for op in quantize_coreml._load(_open(self.path)).operations if op.op_type != "const"]

    def of(self, *kinds: str) -> list[Any]:
        """The ops of these kinds."""
        return [op for op in self.ops if op.op_type in kinds]


Make = Callable[[str], Package]


def _prepared(task: str) -> Prepared:
    return prepare(None, task=task, variant="xformer_xxs", image_size=SMALL)


def _options(prepared: Prepared, case: Case) -> Options:
    return Options(case.precision, case.ios, calibration=Calibration.of(prepared.config, count=PICTURES))


def _open(path: Path) -> Any:
    return import_coremltools().models.MLModel(str(path), skip_model_load=True)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Converts a case of CASES when it is first asked for."""
    made: dict[str, Package] = {}

    def one(name: str) -> Package:
        if name not in made:
            case = CASES[name]
            path = tmp_path_factory.mktemp(name) / "model.mlpackage"
            prepared = _prepared(case.task)
            made[name] = Package(case, prepared, path, convert(prepared, _options(prepared, case), path))
        return made[name]

    return one


@pytest.fixture(params=CASES)
def package(request: pytest.FixtureRequest, make: Make) -> Package:
    """Every package, one after the other."""
    return make(request.param)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier in fp16 for iOS 17."""
    path = tmp_path_factory.mktemp("half") / "model.mlpackage"
    convert(_prepared("classify"), Options("fp16", 17), path)
    return path


def _path(package: Package, conv: Any) -> str:
    """The module that a convolution is of, by the name that coremltools gives its weights."""
    name = conv.weight.name.removeprefix("p_model_").removesuffix("_quantized").removesuffix("_to_fp16")
    paths = {f"{path.replace('.', '_')}_weight": path for path, _ in package.prepared.mobile.named_modules()}
    return paths[name]


def _zero_point(op: Any) -> int:
    """Of quantize or dequantize; coremltools makes -128 of int8 no zero point at all of uint8."""
    return int(op.zero_point.val) if op.zero_point is not None else 0


# ---- activations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INT8)
def test_convolutions_read_int8_as_they_are_placed(name: str, make: Make) -> None:
    package = make(name)
    placement = Placement.of(package.prepared.mobile)
    found = {_path(package, conv): conv.x.op.op_type == "dequantize" for conv in package.of("conv")}
    assert found == {path: placement.is_int8(path) for path in found}
    assert Counter(found.values())[True] >= 86


@pytest.mark.parametrize(("name", "sums"), [("classify-int8-ios17", 2), ("detect-int8-ios18", 4)])
def test_sums_are_int8_outside_of_xf_blocks(name: str, sums: int, make: Make) -> None:
    """Residuals of MV3 blocks and, of the detector, what joins two scales."""
    package = make(name)
    kinds = Counter(tuple(sorted(operand.op.op_type for operand in (op.x, op.y))) for op in package.of("add"))
    assert kinds["dequantize", "dequantize"] == sums
    blocks = sum(isinstance(part, MobileXFBlock) for part in package.prepared.mobile.modules())
    assert sum(count for kind, count in kinds.items() if "dequantize" not in kind) == blocks * 4


@pytest.mark.parametrize("name", INT8)
def test_only_convolutions_and_sums_read_int8(name: str, make: Make) -> None:
    """Activations, norms, gates and outputs are float16."""
    package = make(name)
    readers = {user.op_type for op in package.of("dequantize") for user in op.outputs[0].child_ops}
    assert readers == {"conv", "add"}
    makers = {op.input.op.op_type for op in package.of("dequantize")}
    assert makers == {"quantize"}


@pytest.mark.parametrize("name", INT8)
def test_a_value_is_quantized_once_and_read_as_it_was_written(name: str, make: Make) -> None:
    package = make(name)
    quantized = package.of("quantize")
    assert len({op.input.name for op in quantized}) == len(quantized)
    for op in quantized:
        assert op.output_dtype.val in ("int8", "uint8")
        assert op.scale.val.dtype == np.float16
        assert 2**-14 <= op.scale.val < 10
    for conv in (conv for conv in package.of("conv") if conv.x.op.op_type == "dequantize"):
        after, before = conv.x.op, conv.x.op.input.op
        assert _zero_point(after) == _zero_point(before)
        # coremltools divides the scales around a sum by one of its operands', so that this one is 1.
        assert after.scale.val == before.scale.val or before.input.op.op_type == "add"
    assert len({_zero_point(op) for op in quantized}) > 10


def test_what_is_kept_float_reads_float(half: Path) -> None:
    prepared = _prepared("classify")
    function = quantize_coreml._load(_open(half))

    def plan(*kept: str) -> tuple[str, ...]:
        return quantize_coreml._plan(function, prepared.mobile, Placement.of(prepared.mobile, kept)).ops

    everything, without = plan(), plan("backbone.stages.0")
    assert set(without) < set(everything)
    kept = [
        path for path, int8 in Placement.of(prepared.mobile).modules.items() if path.startswith("backbone.stages.0")
    ]
    convolutions = [path for path in Placement.of(prepared.mobile).convolutions.values() if path in kept]
    floats = ("sum_heads", "score")
    assert len(everything) - len(without) == sum(not path.endswith(floats) for path in convolutions)


def test_what_reads_a_wide_value_stays_float(half: Path) -> None:
    """And a sum of it does, too: its operands are not both int8 any more."""
    prepared = _prepared("classify")
    function = quantize_coreml._load(_open(half))
    placement = Placement.of(prepared.mobile)
    whole = quantize_coreml._plan(function, prepared.mobile, placement)
    sums = [op for op in function.operations if op.op_type == "add" and op.name in whole.ops]
    reader = sums[0].y.op
    found = quantize_coreml._plan(function, prepared.mobile, placement, {reader.x.name})
    assert set(whole.ops) - set(found.ops) == {reader.name, *(op.name for op in sums)}
    assert reader.x.name not in found.values


# ---- weights -----------------------------------------------------------------------------------------------


def test_weights_are_symmetric_int8_with_a_scale_for_each_output_channel(package: Package) -> None:
    stored = package.of("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")
    assert {op.op_type for op in stored} == {
        "constexpr_blockwise_shift_scale" if package.case.ios == 18 else "constexpr_affine_dequantize"
    }
    for op in stored:
        data = op.data if package.case.ios == 18 else op.quantized_data
        assert data.val.dtype == np.int8
        assert op.scale.val.size == data.shape[0]
        channels = np.abs(data.val.reshape(data.shape[0], -1).astype(np.int32)).max(1)
        assert (channels >= 126).all()
        offset = op.offset if package.case.ios == 18 else op.zero_point
        assert offset is None or not np.any(offset.val)


def test_nearly_all_weights_are_int8(package: Package) -> None:
    values = {True: 0, False: 0}
    for op in package.of("conv", "linear"):
        values[op.weight.op.op_type.startswith("constexpr_")] += math.prod(op.weight.shape)
        if package.case.precision == "int8" and op.op_type == "conv" and op.x.op.op_type == "dequantize":
            assert op.weight.op.op_type.startswith("constexpr_"), op.name
    assert values[True] >= 0.95 * sum(values.values())


def test_zeros_and_ones_stay_exact(package: Package) -> None:
    kernels = [op.weight for op in package.of("conv", "linear") if op.weight.val is not None]
    exact = [weight for weight in kernels if np.isin(weight.val, (0, 1)).all()]
    assert len(exact) == 9 * 3  # two sums over heads and one over tokens in each block
    assert all(weight.op.op_type == "const" for weight in exact)


def test_the_kernels_over_the_tokens_are_int8_too(tmp_path: Path) -> None:
    """They grow with the picture: at 256x256, a tenth of the smallest variant's constants."""
    prepared = prepare(None, task="classify", variant="xformer_xxs", image_size=ImageSize(256, 256))
    path = tmp_path / "model.mlpackage"
    convert(prepared, Options("int8-weights", 16), path)
    products = [op for op in quantize_coreml._load(_open(path)).operations if op.op_type == "mul"]
    stored = [op.y.op for op in products if op.y.op.op_type == "constexpr_affine_dequantize"]
    assert len(stored) == 9 + 6  # in each block what weights the sum; and what averages, where the tokens are many
    found = read_certificate("coreml", path)
    promise = RECIPES["int8-weights"].promise
    assert promise is not None
    assert found.share("weights") >= promise.of("xformer_xxs", "coreml").int8_weights == 0.95


def test_int8_is_small(make: Make, half: Path) -> None:
    full = 2 * sum(file.stat().st_size for file in (half / WEIGHTS).iterdir())
    for name in ("classify-int8-ios17", "classify-int8-weights-ios18"):
        assert make(name).converted.graph["weights_bytes"] <= 0.30 * full


# ---- the package -------------------------------------------------------------------------------------------


def test_ops_are_those_of_the_precision(package: Package) -> None:
    counts = Counter(op.op_type for op in package.ops)
    assert package.converted.graph["ops"] == dict(sorted(counts.items()))
    assert set(counts) <= ALLOWED_OPS["coreml"] | QUANTIZED_OPS["coreml"][package.case.precision]
    with pytest.raises(ConversionError, match="outside its allow-list"):
        check_graph("coreml", counts, {}, "fp16")
    assert ("quantize" in counts) == (package.case.precision == "int8")


def test_what_is_not_int8_is_float16(package: Package) -> None:
    assert package.converted.graph["float32_ops"] == ({"softmax": 1} if package.case.task == "classify" else {})
    assert package.converted.requires["minimum_ios"] == str(package.case.ios)


def test_counts(package: Package) -> None:
    counts = count_artifact("coreml", package.path)
    assert counts["macs"] == macs_by_torch(package.prepared.mobile, SMALL)
    assert counts["ops"] == sum(not op.op_type.startswith("constexpr_") for op in package.ops)
    assert counts["qdq-pairs"] == len(package.of("quantize"))
    stored = package.converted.graph["weights_bytes"]
    assert 0.9 * stored < counts["weights-bytes"] < 1.02 * stored  # its many small blobs are padded


def test_it_computes_nearly_what_the_model_computes(package: Package) -> None:
    pictures = list(Calibration.of(package.prepared.config, count=6, seed=1).counted())
    program = MilProgram.load(package.path)
    names = package.prepared.config.output_shapes()
    found = [{name: program.run({"image": picture})[name] for name in names} for picture in pictures]
    with torch.no_grad():
        made = [package.prepared.mobile(torch.tensor(picture)) for picture in pictures]
    expected = [dict(zip(names, (part.numpy() for part in parts), strict=True)) for parts in made]
    assert snr_db(expected, found) >= package.case.snr_db


def test_it_says_how_the_ranges_were_chosen(package: Package) -> None:
    quantization = package.converted.quantization
    if package.case.precision == "int8-weights":
        assert set(quantization) == {"fp32_size_bytes"}
        return
    ranges = quantization["ranges"]
    assert ranges["method"] in METHODS
    assert set(ranges["snr_db"]) == set(METHODS)
    assert ranges["snr_db"][ranges["method"]] == max(ranges["snr_db"].values())


def test_the_same_again_is_byte_identical(make: Make, tmp_path: Path) -> None:
    package = make("classify-int8-weights-ios18")
    convert(package.prepared, _options(package.prepared, package.case), tmp_path / "model.mlpackage")
    for file in (file for file in package.path.rglob("*") if file.is_file()):
        assert (tmp_path / "model.mlpackage" / file.relative_to(package.path)).read_bytes() == file.read_bytes()


# ---- edges -------------------------------------------------------------------------------------------------


def _convolution(weights: np.ndarray[Any, Any], path: Path) -> Any:
    """A package of one convolution in float16, from ``x`` to ``out``; (1, 3, 8, 8)."""
    ct = import_coremltools()
    builder = ct.converters.mil.Builder
    half = ct.converters.mil.mil.types.fp16

    @builder.program(input_specs=[builder.TensorSpec((1, 3, 8, 8), half)], opset_version=ct.target.iOS17)  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        moved = builder.add(x=x, y=np.float16(1), name="moved")
        return builder.conv(x=moved, weight=weights.astype(np.float16), name="out")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # coremltools leaves a temporary folder behind
        return ct.convert(
            program, minimum_deployment_target=ct.target.iOS17, skip_model_load=True, package_dir=str(path)
        )


@pytest.mark.parametrize(
    ("found", "scale", "zero"),
    [((0.0, 0.0), 2**-6 / 255, 0), ((-400.0, 500.0), 900 / 255, -15), ((-1.0, 0.0), 1 / 255, 127)],
    ids=["dead", "wide", "negative"],
)
def test_scale_and_zero_point(found: tuple[float, float], scale: float, zero: int, tmp_path: Path) -> None:
    model = _convolution(np.ones((4, 3, 1, 1)), tmp_path / "model.mlpackage")
    made = quantize_coreml._insert(model, {"moved": found}, ["out"])
    (op,) = [op for op in quantize_coreml._load(made).operations if op.op_type == "quantize"]
    assert op.scale.val == pytest.approx(scale, rel=2e-3)
    assert _zero_point(op) == zero
    picture = np.full((1, 3, 8, 8), found[1] - 1, np.float16)
    out = MilProgram.load(Path(made.package_path)).run({"x": picture})["out"]
    np.testing.assert_allclose(out, 3 * found[1], atol=6 * scale)


def test_a_channel_of_zeros_stays_zero(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 5, 5))
    weights[1] = 0
    model = _convolution(weights, tmp_path / "model.mlpackage")
    made = quantize_coreml.quantize_weights(model, ["out"])
    (op,) = [op for op in quantize_coreml._load(made).operations if op.op_type == "constexpr_affine_dequantize"]
    assert op.quantized_data.shape == (4, 3, 5, 5)
    picture = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float16)
    out = MilProgram.load(Path(made.package_path)).run({"x": picture})["out"]
    assert np.isfinite(out).all()
    assert not out[0, 1].any()
    assert out[0, 0].any()


@pytest.mark.parametrize(
    ("precision", "ios", "message"),
    [
        ("int8", 16, "int8 in Core ML needs iOS 17; type: --minimum-ios 17"),
        ("int8-weights", 15, "int8-weights in Core ML needs iOS 16; type: --minimum-ios 16"),
    ],
)
def test_a_system_that_is_too_old_is_refused(precision: str, ios: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        convert(_prepared("classify"), Options(precision, ios), tmp_path / "model.mlpackage")
    assert not list(tmp_path.iterdir())


def test_failures_of_coremltools_are_told_on_one_line(tmp_path: Path) -> None:
    model = _convolution(np.ones((4, 3, 1, 1)), tmp_path / "model.mlpackage")
    with pytest.raises(ConversionError, match="coremltools can't quantize: KeyError: 'moved'"):
        quantize_coreml._insert(model, {}, ["out"])
