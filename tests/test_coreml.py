"""Core ML packages: what an app sees of them, their graph, their numbers, their bytes, and what is refused.

Packages are read here with protobuf and coremltools' own loader, and run by the evaluator of
:mod:`xformer_mobile.runners.mil`: it shows what a program means. Apple's kernels are not here.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import macs_by_torch
from xformer_export import to_coreml
from xformer_export.op_rules import ALLOWED_OPS, MAX_RANK
from xformer_export.prepare import Converted, Options, Prepared, metadata_of, prepare
from xformer_export.to_coreml import SYSTEMS, convert, distinct_labels
from xformer_mobile import __version__
from xformer_mobile.bench.counts import count_artifact
from xformer_mobile.errors import BundleError, ConversionError, UsageError
from xformer_mobile.mobile import SQUARES_FLOOR
from xformer_mobile.optional import import_coremltools
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners.mil import MilProgram
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import TASKS, ImageSize

SMALL = ImageSize(64, 64)

TWINS = ("crane", "dog", "crane", "crane (0)", "Kranich")

SPEC = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"

SNR_DB = {"classify": 40, "detect": 32, "segment": 40}
"""What fp16 must keep on drawn weights. The drawn detector is ill-conditioned: to round its weights alone to fp16 costs
all but 34 dB on one of six pictures."""


@dataclass(frozen=True)
class Case:
    """What is converted: every task in both precisions, and every deployment target."""

    task: str
    precision: str
    ios: int
    labels: tuple[str, ...] | None = None


CASES = {
    f"{case.task}-{case.precision}-ios{case.ios}": case
    for case in (
        Case("classify", "fp16", 16),
        Case("classify", "fp32", 15, TWINS),
        Case("detect", "fp16", 17),
        Case("detect", "fp32", 16),
        Case("segment", "fp16", 15),
        Case("segment", "fp32", 18),
    )
}


@dataclass(frozen=True)
class Package:
    """A converted case and what was read of it with protobuf alone."""

    case: Case
    prepared: Prepared
    path: Path
    converted: Converted
    spec: Any

    @property
    def ops(self) -> list[Any]:
        """The program's ops as protobuf messages, constants left out."""
        (block,) = self.spec.mlProgram.functions["main"].block_specializations.values()
        return [op for op in block.operations if op.type != "const"]

    def count(self, *kinds: str) -> int:
        """How many ops there are of these kinds."""
        return sum(op.type in kinds for op in self.ops)

    @functools.cached_property
    def main(self) -> Any:
        """The program's function, as coremltools loads it."""
        import_coremltools()
        from coremltools.converters.mil.frontend.milproto.load import load

        weights = str((self.path / WEIGHTS).parent)
        return load(self.spec, self.spec.specificationVersion, weights).functions["main"]

    @property
    def features(self) -> dict[str, Any]:
        """Inputs and outputs by name."""
        return {item.name: item for item in (*self.spec.description.input, *self.spec.description.output)}


Make = Callable[[str], Package]


def _prepared(case: Case) -> Prepared:
    return prepare(None, task=case.task, variant="xformer_xxs", image_size=SMALL, labels=case.labels)


def _read_spec(path: Path) -> Any:
    spec = import_coremltools().proto.Model_pb2.Model()
    spec.ParseFromString((path / SPEC).read_bytes())
    return spec


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Converts a case of CASES when it is first asked for."""
    made: dict[str, Package] = {}

    def one(name: str) -> Package:
        if name not in made:
            case = CASES[name]
            path = tmp_path_factory.mktemp(name) / "model.mlpackage"
            prepared = _prepared(case)
            converted = convert(prepared, Options(precision=case.precision, minimum_ios=case.ios), path)
            made[name] = Package(case, prepared, path, converted, _read_spec(path))
        return made[name]

    return one


@pytest.fixture(params=CASES)
def package(request: pytest.FixtureRequest, make: Make) -> Package:
    """Every package, one after the other."""
    return make(request.param)


# ---- what is counted ---------------------------------------------------------------------------------------


def test_counts_are_those_of_the_mobile_form(package: Package) -> None:
    counts = count_artifact("coreml", package.path)
    size = package.prepared.config.image_size
    assert counts["macs"] == macs_by_torch(package.prepared.mobile, size)
    assert counts["ops"] == len(package.ops)
    assert counts["transposes"] == 0
    stored = (package.path / WEIGHTS).stat().st_size
    assert 0.97 * stored < counts["weights-bytes"] < 1.02 * stored  # its blobs are padded; small ones are elsewhere
    assert counts["bytes-moved"] > counts["weights-bytes"]
    assert "partitions" not in counts  # which part runs where is known on a device


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_package_is_not_counted(share: float, make: Make, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mlpackage"
    shutil.copytree(make("classify-fp16-ios16").path, broken)
    content = (broken / SPEC).read_bytes()
    (broken / SPEC).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BundleError):
        count_artifact("coreml", broken)


# ---- what an app sees --------------------------------------------------------------------------------------


def test_the_input_is_an_rgb_image_of_one_size(package: Package) -> None:
    (feature,) = package.spec.description.input
    image = feature.type.imageType
    assert feature.name == "image"
    assert feature.type.WhichOneof("Type") == "imageType"
    assert image.ColorSpace.Name(image.colorSpace) == "RGB"
    assert (image.height, image.width) == (64, 64)
    assert image.WhichOneof("SizeFlexibility") is None


def test_the_manifests_outputs_are_float32_arrays_in_both_precisions(package: Package) -> None:
    for name, shape in package.prepared.config.output_shapes().items():
        array = package.features[name].type.multiArrayType
        assert array.ArrayDataType.Name(array.dataType) == "FLOAT32"
        assert tuple(array.shape) == shape
    extra = {"classLabel", "classLabel_probs"} if package.case.task == "classify" else set()
    assert set(package.features) == {"image", *package.prepared.config.output_shapes(), *extra}


def test_a_classifier_is_one_for_vision(make: Make) -> None:
    description = make("classify-fp16-ios16").spec.description
    assert description.predictedFeatureName == "classLabel"
    assert description.predictedProbabilitiesName == "classLabel_probs"
    types = {item.name: item.type for item in description.output}
    assert list(types) == ["classLabel", "classLabel_probs", "logits"]
    assert types["classLabel"].WhichOneof("Type") == "stringType"
    assert types["classLabel_probs"].dictionaryType.WhichOneof("KeyType") == "stringKeyType"
    assert description.metadata.userDefined["com.apple.coreml.model.preview.type"] == "imageClassifier"


@pytest.mark.parametrize("name", ["detect-fp16-ios17", "segment-fp32-ios18"])
def test_what_is_no_classifier_does_not_say_it_is_one(name: str, make: Make) -> None:
    description = make(name).spec.description
    assert not description.predictedFeatureName
    assert not description.predictedProbabilitiesName
    assert "com.apple.coreml.model.preview.type" not in description.metadata.userDefined


@pytest.mark.parametrize("name", ["classify-fp16-ios16", "classify-fp32-ios15"])
def test_probabilities_are_the_softmax_of_the_logits_by_label(name: str, make: Make) -> None:
    package = make(name)
    labels = distinct_labels(package.prepared.config.labels)
    found = MilProgram.load(package.path).run({"image": golden_picture(0, SMALL)})
    expected = torch.from_numpy(found["logits"]).softmax(1)[0].numpy()
    assert list(found["classLabel_probs"]) == list(labels)
    np.testing.assert_allclose(list(found["classLabel_probs"].values()), expected, rtol=1e-6)
    assert found["classLabel"] == labels[int(expected.argmax())]


def test_labels_that_stand_twice_are_told_apart(make: Make) -> None:
    package = make("classify-fp32-ios15")
    assert len(set(distinct_labels(TWINS))) == len(TWINS)
    assert "index behind it" in package.features["classLabel"].shortDescription
    assert json.loads(package.spec.description.metadata.userDefined["labels"]) == list(TWINS)
    assert "index" not in make("classify-fp16-ios16").features["classLabel"].shortDescription


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("cat", "dog"), ("cat", "dog")),
        (("crane", "dog", "crane"), ("crane (0)", "dog", "crane (2)")),
        (("a", "a", "a (0)"), ("a (0) (0)", "a (1)", "a (0) (2)")),
        (("a (2)", "a", "a"), ("a (2) (0)", "a (1)", "a (2) (2)")),
    ],
    ids=["distinct", "twins", "a made one exists", "a made one exists before"],
)
def test_distinct_labels(labels: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert distinct_labels(labels) == expected


def test_the_package_says_what_it_is(package: Package) -> None:
    metadata, config = package.spec.description.metadata, package.prepared.config
    defined = {key: value for key, value in metadata.userDefined.items() if not key.startswith("com.")}
    assert defined == metadata_of(package.prepared)
    tools = {key.rpartition(".")[2] for key in metadata.userDefined if key.startswith("com.github.apple.coremltools")}
    assert tools == {"source", "source_dialect", "version"}
    assert metadata.versionString == __version__
    assert metadata.license == "Apache-2.0"
    assert metadata.author == "The XFormer Mobile authors"
    assert "xformer_xxs" in metadata.shortDescription
    assert "untrained" in metadata.shortDescription
    assert "64x64" in package.features["image"].shortDescription
    for name, shape in config.output_shapes().items():
        assert package.features[name].shortDescription == f"{TASKS[config.task].meaning}; float32, {shape}"
    assert all(feature.shortDescription for feature in package.features.values())


def test_others_weights_are_not_put_under_our_license(make: Make) -> None:
    package = make("segment-fp32-ios18")
    theirs = Prepared(package.prepared.reference, package.prepared.mobile, {"source": "checkpoint", "sha256": "0"})
    entries = to_coreml._metadata(theirs)
    assert entries["license"].startswith("The weights are under the license of their owner")
    assert entries["author"].startswith("The owner of the weights")


def test_nothing_of_the_machine_or_the_day_is_in_it(package: Package) -> None:
    assert sorted(str(file.relative_to(package.path)) for file in package.path.rglob("*") if file.is_file()) == [
        SPEC,
        WEIGHTS,
        "Manifest.json",
    ]
    content = (package.path / SPEC).read_bytes() + (package.path / "Manifest.json").read_bytes()
    for place in (str(Path.home()), "site-packages", str(Path(__file__).parent.parent), "/tmp", "conversion_date"):
        assert place.encode() not in content, place


# ---- the graph ---------------------------------------------------------------------------------------------


def test_ops_are_allowed_and_no_tensor_is_above_rank_4(package: Package) -> None:
    assert {op.type for op in package.ops} <= ALLOWED_OPS["coreml"]
    (block,) = package.spec.mlProgram.functions["main"].block_specializations.values()
    shapes = [output.type.tensorType for op in block.operations for output in op.outputs]
    assert max(shape.rank for shape in shapes) == MAX_RANK == 4
    assert all(dimension.WhichOneof("dimension") == "constant" for shape in shapes for dimension in shape.dimensions)
    assert package.converted.graph["ops"] == dict(sorted(Counter(op.type for op in package.ops).items()))
    assert package.converted.graph["largest_rank"] == 4


def test_layer_norm_is_native_over_the_channels_with_its_gain_and_shift(package: Package) -> None:
    norms = [op for op in package.ops if op.type == "layer_norm"]
    assert len(norms) == 21
    assert all({"axes", "gamma", "beta", "epsilon"} <= set(op.inputs) for op in norms)
    loaded = [op for op in package.main.operations if op.op_type == "layer_norm"]
    assert all(list(op.axes.val) == [1] for op in loaded)
    assert all(op.epsilon.val == pytest.approx(1e-5, rel=2e-3) for op in loaded)
    assert all(op.gamma.shape == op.beta.shape == (op.x.shape[1],) for op in loaded)


def test_nothing_is_transposed(package: Package) -> None:
    """XFA's transposes are arguments of its matmuls: three a block."""
    assert package.count("transpose") == package.converted.graph["transposes"] == 0
    matmuls = [op for op in package.main.operations if op.op_type == "matmul"]
    assert len(matmuls) == 9 * 4
    assert sum(bool(op.transpose_x.val) + bool(op.transpose_y.val) for op in matmuls) == 9 * 3


def test_activations_are_native(package: Package) -> None:
    loaded = package.main.operations
    assert package.count("gelu") == 9
    assert {op.mode.val for op in loaded if op.op_type == "gelu"} == {"EXACT"}
    assert package.count("silu") == {"classify": 32, "detect": 51, "segment": 32}[package.case.task]
    assert package.count("sigmoid") == 7  # the gates of squeeze-excite


@pytest.mark.parametrize(
    ("name", "kind", "scales"),
    [
        ("detect-fp16-ios17", "upsample_nearest_neighbor", [2, 2]),
        ("segment-fp16-ios15", "upsample_bilinear", [2, 4, 8]),
        ("segment-fp32-ios18", "upsample_bilinear", [2, 4, 8]),
    ],
)
def test_upsampling(name: str, kind: str, scales: list[int], make: Make) -> None:
    found = [op for op in make(name).main.operations if op.op_type.startswith("upsample")]
    assert [op.op_type for op in found] == [kind] * len(scales)
    assert [op.scale_factor_height.val for op in found] == [op.scale_factor_width.val for op in found] == scales
    if kind == "upsample_bilinear":
        assert not any(op.align_corners.val for op in found)


def test_precision_is_what_was_asked_for(package: Package) -> None:
    """In fp16 only what is at the border is float32: the image, the outputs, and the softmax of the logits."""
    loaded = package.main
    types = Counter(_dtype(op.outputs[0]) for op in loaded.operations if op.op_type not in ("const", "cast"))
    casts = [(_dtype(op.x), _dtype(op.outputs[0])) for op in loaded.operations if op.op_type == "cast"]
    if package.case.precision == "fp32":
        assert set(types) <= {"fp32", "str"}
        assert not casts
        return
    outputs = len(package.prepared.config.output_shapes())
    float32 = [op.op_type for op in loaded.operations if op.op_type != "cast" and _dtype(op.outputs[0]) == "fp32"]
    assert [kind for kind in float32 if kind != "const"] == (["softmax"] if package.case.task == "classify" else [])
    assert sorted(casts) == [("fp16", "fp32")] * outputs + [("fp32", "fp16")]
    assert package.converted.graph["casts"] == outputs + 1
    assert package.converted.graph["float32_ops"] == ({"softmax": 1} if package.case.task == "classify" else {})
    assert types["fp16"] > 400


def test_the_floor_of_the_norms_survives(package: Package) -> None:
    floors = [op for op in package.main.operations if op.op_type == "maximum"]
    assert len(floors) == 9 * 2
    smallest = min(float(value.val.min()) for op in floors for value in (op.x, op.y) if value.val is not None)
    assert smallest == SQUARES_FLOOR


def test_fp16_halves_the_weights(make: Make) -> None:
    half, full = make("segment-fp16-ios15").converted.graph, make("segment-fp32-ios18").converted.graph
    assert 0.49 < half["weights_bytes"] / full["weights_bytes"] < 0.53


# ---- the declared system -----------------------------------------------------------------------------------


def test_every_deployment_target_is_converted_to() -> None:
    assert {case.ios for case in CASES.values()} == set(map(int, SYSTEMS))


def test_the_declared_system_has_every_op(package: Package) -> None:
    """coremltools' loader looks each op and its types up in the opset of the version that the package declares."""
    system = SYSTEMS[str(package.case.ios)]
    assert package.spec.specificationVersion == system.specification_version
    assert package.spec.mlProgram.functions["main"].opset == system.opset
    assert package.converted.requires == {
        "minimum_ios": str(package.case.ios),
        "minimum_macos": system.macos,
        "specification_version": system.specification_version,
    }
    target = import_coremltools().target[f"iOS{package.case.ios}"]
    loaded = package.main
    assert loaded.opset_version == target
    registry = sys.modules["coremltools.converters.mil.mil.ops.registry"].SSAOpRegistry.core_ops
    assert [op.op_type for op in loaded.operations if min(registry[op.op_type]) > target] == []


def test_an_op_above_the_declared_system_is_refused(make: Make, tmp_path: Path) -> None:
    package = make("detect-fp32-ios16")
    path = tmp_path / "model.mlpackage"
    _save(_program("pixel_unshuffle"), path, 16)
    _declare(path, 15)
    with pytest.raises(ConversionError, match=r"No available version for pixel_unshuffle in the .*iOS15 opset"):
        to_coreml._read_back(import_coremltools(), package.prepared, SYSTEMS["15"], "fp32", path)


def test_a_type_above_the_declared_system_is_refused(make: Make, tmp_path: Path) -> None:
    """From iOS 17 on, an fp16 rsqrt takes a float32 epsilon."""
    package = make("detect-fp16-ios17")
    path = tmp_path / "model.mlpackage"
    _copy(package, path)
    _declare(path, 16)
    with pytest.raises(ConversionError, match=r"can't be read back.*rsqrt"):
        to_coreml._read_back(import_coremltools(), package.prepared, SYSTEMS["16"], "fp16", path)


# ---- numbers -----------------------------------------------------------------------------------------------


def test_it_computes_what_the_reference_computes(package: Package) -> None:
    program = MilProgram.load(package.path)
    pictures = [golden_picture(index, SMALL) for index in range(3)]
    with TorchRunner(package.prepared.reference) as runner:
        expected = [runner.run(picture) for picture in pictures]
    found = [program.run({"image": picture}) for picture in pictures]
    for name in expected[0]:
        a, b = (np.concatenate([outputs[name] for outputs in side]).astype(np.float64) for side in (expected, found))
        if package.case.precision == "fp32":
            assert np.abs(a - b).max() <= 1e-4 * np.ptp(a)
        else:
            assert 10 * np.log10(np.square(a).sum() / np.square(a - b).sum()) >= SNR_DB[package.case.task]


# ---- bytes -------------------------------------------------------------------------------------------------


def _files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_another_process_writes_the_same_bytes(make: Make, tmp_path: Path) -> None:
    package = make("detect-fp16-ios17")
    code = f"""
import pathlib
from xformer_export.prepare import Options, prepare
from xformer_export.to_coreml import convert
from xformer_mobile.spec import ImageSize
prepared = prepare(None, task="detect", variant="xformer_xxs", image_size=ImageSize(64, 64))
convert(prepared, Options(precision="fp16", minimum_ios=17), pathlib.Path({str(tmp_path / "model.mlpackage")!r}))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "20"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert _files(tmp_path / "model.mlpackage") == _files(package.path)


def test_an_older_package_is_replaced_whole(make: Make, tmp_path: Path) -> None:
    package = make("detect-fp32-ios16")
    (tmp_path / "model.mlpackage").mkdir()
    (tmp_path / "model.mlpackage/left_over").write_text("from an older version")
    draft = tmp_path / "draft"
    _copy(package, draft)
    (draft / "debug.json").write_text("a file that no manifest lists")
    to_coreml._write(package.spec, draft, tmp_path / "model.mlpackage")
    assert _files(tmp_path / "model.mlpackage") == _files(package.path)


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(minimum_ios=14), "unknown minimum iOS '14'.*valid: 15, 16, 17, 18"),
        (Options(precision="int4"), "unknown precision 'int4'.*valid: fp32, fp16"),
    ],
    ids=["ios", "precision"],
)
def test_unknown_options(options: Options, message: str, make: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        convert(make("detect-fp32-ios16").prepared, options, tmp_path / "model.mlpackage")
    assert not list(tmp_path.iterdir())


class _Layer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.lgamma(x)


class _Model(nn.Module):
    """Takes the place of a mobile form: an op that Core ML does not have, or a rank that it does not take."""

    def __init__(self, config: object, kind: str) -> None:
        super().__init__()
        self.config = config
        self.kind = kind
        self.middle = nn.Sequential(nn.SiLU(), _Layer())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.kind == "op":
            x = self.middle(image)
        elif self.kind == "rank":
            x = image.reshape(1, 32, 2, 32, 2, 3).permute(0, 2, 4, 1, 3, 5) * 2
        else:
            x = torch.tanh(image)
        y = x.flatten()[:64].reshape(1, 1, 8, 8)
        return tuple(y * scale for scale in (1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("op", r"coremltools failed at aten\.lgamma.* module .*middle\.1 \(test_coreml\.py:\d+: return torch\.lgamma"),
        ("rank", "rank 6"),
        ("foreign", "outside its allow-list.*tanh|reads back with"),
    ],
)
def test_a_model_that_leaves_the_rules_is_refused(kind: str, message: str, make: Make, tmp_path: Path) -> None:
    prepared = make("detect-fp32-ios16").prepared
    broken = Prepared(prepared.reference, _Model(prepared.config, kind), prepared.weights)  # type: ignore[arg-type]
    with pytest.raises(ConversionError, match=message):
        convert(broken, Options(), tmp_path / "model.mlpackage")


def _copy(package: Package, path: Path) -> None:
    shutil.copytree(package.path, path)


def _cut_weights(path: Path) -> None:
    content = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(content[: len(content) // 2])


def _change(path: Path, change: Callable[[Any], None]) -> None:
    spec = _read_spec(path)
    change(spec)
    (path / SPEC).write_bytes(spec.SerializeToString(deterministic=True))


def _half_output(spec: Any) -> None:
    array = spec.description.output[-1].type.multiArrayType
    array.dataType = array.ArrayDataType.Value("FLOAT16")


def _other_label(spec: Any) -> None:
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    (classify,) = [op for op in block.operations if op.type == "classify"]
    labels = classify.inputs["classes"].arguments[0].value.immediateValue.list.values
    labels[1].immediateValue.tensor.strings.values[0] = "cat"


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "weights are cut": (_cut_weights, "can't be read back"),
    "no specification": (lambda path: (path / SPEC).unlink(), "can't be read back"),
    "half output": (lambda path: _change(path, _half_output), r"output logits float16 \(1, 5\); asked was float32"),
    "other label": (lambda path: _change(path, _other_label), "labels .*'cat'"),
    "other size": (
        lambda path: _change(path, lambda spec: setattr(spec.description.input[0].type.imageType, "width", 65)),
        "input image RGB image 64 x 65; asked was RGB image 64 x 64",
    ),
    "metadata": (
        lambda path: _change(path, lambda spec: spec.description.metadata.userDefined.pop("weights")),
        "metadata weights None",
    ),
    "author": (
        lambda path: _change(path, lambda spec: setattr(spec.description.metadata, "author", "somebody")),
        "author somebody; asked was The XFormer Mobile authors",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_reads_back_otherwise_is_refused(damage: str, make: Make, tmp_path: Path) -> None:
    package = make("classify-fp32-ios15")
    change, problem = DAMAGES[damage]
    path = tmp_path / "model.mlpackage"
    _copy(package, path)
    to_coreml._read_back(import_coremltools(), package.prepared, SYSTEMS["15"], "fp32", path)
    change(path)
    with pytest.raises(ConversionError, match=problem):
        to_coreml._read_back(import_coremltools(), package.prepared, SYSTEMS["15"], "fp32", path)


# ---- the graph pass ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("affine", {"layer_norm": 1}),
        ("shared", {"layer_norm": 1, "mul": 1, "add": 2}),
        ("scalar", {"layer_norm": 1, "mul": 1, "add": 1}),
        ("last axis", {"layer_norm": 1, "mul": 1, "add": 1}),
    ],
)
def test_a_norms_gain_and_shift_are_folded_only_where_it_is_the_same(kind: str, expected: dict[str, int]) -> None:
    program = _program(kind)
    name, _ = to_coreml._passes()
    sys.modules["coremltools.converters.mil.mil.passes.pass_registry"].PASS_REGISTRY[name](program)
    ops = program.functions["main"].operations
    assert Counter(op.op_type for op in ops if op.op_type != "const") == expected
    if kind == "affine":
        (norm,) = [op for op in ops if op.op_type == "layer_norm"]
        np.testing.assert_array_equal(norm.gamma.val, [1, 2, 3])
        np.testing.assert_array_equal(norm.beta.val, [4, 5, 6])
        assert norm.epsilon.val == np.float32(1e-3)
        assert program.functions["main"].outputs[0] is norm.outputs[0]


def _program(kind: str) -> Any:
    """A small MIL program over float32 (1, 3, 4, 4)."""
    ct = import_coremltools()
    builder = ct.converters.mil.Builder
    gain = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)

    @builder.program(input_specs=[builder.TensorSpec((1, 3, 4, 4))], opset_version=ct.target.iOS16)  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        if kind == "pixel_unshuffle":
            return builder.pixel_unshuffle(x=x, downscale_factor=np.uint32(2))
        axes = [3] if kind == "last axis" else [1]
        norm = builder.layer_norm(x=x, axes=axes, epsilon=np.float32(1e-3))
        product = builder.mul(x=norm, y=np.float32(2) if kind == "scalar" else gain)
        total = builder.add(x=product, y=gain + 3)
        return builder.add(x=total, y=norm) if kind == "shared" else total

    return program


def _save(program: Any, path: Path, ios: int) -> None:
    ct = import_coremltools()
    target = ct.target[f"iOS{ios}"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # coremltools leaves a temporary folder behind
        ct.convert(program, minimum_deployment_target=target, skip_model_load=True, package_dir=str(path))


def _declare(path: Path, ios: int) -> None:
    """Make a package say that it is for another system."""
    system = SYSTEMS[str(ios)]

    def change(spec: Any) -> None:
        spec.specificationVersion = system.specification_version
        main = spec.mlProgram.functions["main"]
        (block,) = main.block_specializations.values()
        kept = type(block)()
        kept.CopyFrom(block)
        main.block_specializations.clear()
        main.block_specializations[system.opset].CopyFrom(kept)
        main.opset = system.opset

    _change(path, change)


def _dtype(variable: Any) -> str:
    """``fp16``, ``fp32``, ...: the type of a variable's elements."""
    import_coremltools()
    from coremltools.converters.mil.mil import types

    return str(types.builtin_to_string(variable.dtype)) if types.is_tensor(variable.sym_type) else "str"
