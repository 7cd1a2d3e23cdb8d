"""int8 for ExecuTorch: what is annotated, what XNNPACK takes of it, and what the program computes.

A conversion of a whole model takes minutes: the programs here are of a few layers, and whole models stay in PyTorch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from xformer_export import quantize_executorch as q8
from xformer_export import to_executorch
from xformer_export.calibration import Calibration, snr_db
from xformer_export.channels_last import to_patch_form
from xformer_export.placement import Placement
from xformer_export.prepare import Converted, Options, Prepared, prepare
from xformer_mobile.bench.counts import Certificate, read_certificate
from xformer_mobile.errors import UnavailableError
from xformer_mobile.mobile import ChannelNorm, MobileXFormer
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners.executorch_runtime import ExecuTorchRunner
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import ImageSize, ModelConfig

SIZE = ImageSize(64, 64)

PICTURES = 8

CAST = "dim_order_ops._to_dim_order_copy"


class Few(nn.Module):
    """The mobile form's kinds of int8 and float op between bytes and logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = config
        self.mix = nn.Conv2d(3, 64, 4, stride=4)
        with torch.no_grad():
            self.mix.weight.div_(255)
        self.act = nn.SiLU()
        self.spread = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.norm = ChannelNorm(nn.LayerNorm(64))
        self.project = nn.Conv2d(64, 64, 1)
        self.fuse = nn.Conv2d(128, 64, 1)
        self.head = nn.Conv2d(64, config.num_classes, 1)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        x = image.permute(0, 3, 1, 2).to(self.mix.weight.dtype)
        x = self.act(self.mix(x))  # (1, 64, H/4, W/4)
        x = x + self.project(self.norm(self.spread(x)))
        x = self.act(self.fuse(torch.cat((x, self.act(x)), dim=1)))
        pooled = nn.functional.avg_pool2d(x, (8, 8)).mean((2, 3), keepdim=True)
        return (self.head(pooled * torch.sigmoid(pooled)).reshape(1, self.config.num_classes),)


@dataclass(frozen=True)
class Made:
    """A program of few layers, and what the converter says of it."""

    prepared: Prepared
    path: Path
    converted: Converted

    @property
    def certificate(self) -> Certificate:
        return read_certificate("executorch", self.path)

    def logits(self) -> list[np.ndarray[Any, Any]]:
        config = self.prepared.config
        with ExecuTorchRunner(self.path, SIZE, config.output_shapes(), threads=1) as runner:
            return [runner.run(golden_picture(index, SIZE))["logits"] for index in range(3)]


def _prepared(task: str = "classify") -> Prepared:
    return prepare(None, task=task, variant="xformer_xxs", image_size=SIZE)


def few() -> Prepared:
    whole = _prepared()
    return Prepared(whole.reference, Few(whole.config).eval(), whole.weights)  # type: ignore[arg-type]


def options(prepared: Prepared, precision: str) -> Options:
    return Options(precision, calibration=Calibration.of(prepared.config, count=PICTURES))


@pytest.fixture(scope="module", params=["int8", "int8-weights"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    prepared, path = few(), tmp_path_factory.mktemp(request.param) / "model.pte"
    return Made(prepared, path, to_executorch.convert(prepared, options(prepared, request.param), path))


def test_what_was_upsampled_can_be_rounded(tmp_path: Path) -> None:
    """Channels-first values, rounded before they are moved, would stop XNNPACK when it runs."""
    detector = prepare(None, task="detect", variant="xformer_xxs", image_size=SIZE)
    path = tmp_path / "model.pte"
    to_executorch.convert(detector, Options("int8-weights"), path)
    image, shapes = golden_picture(0, SIZE), detector.config.output_shapes()
    with ExecuTorchRunner(path, SIZE, shapes, 1) as runner, TorchRunner(detector.reference) as reference:
        assert snr_db([reference.run(image)], [runner.run(image)]) > 12
    assert read_certificate("executorch", path).share("weights") > 0.95


class _OneInput(nn.Module):
    """Convolutions of different kernels that read one value."""

    def __init__(self, *kernels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Conv2d(3, 32, 1)
        self.convolutions = nn.ModuleList(nn.Conv2d(32, 32, kernel, padding=kernel // 2) for kernel in kernels)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = torch.relu(self.enter(image.permute(0, 3, 1, 2).float() / 64 - 2))
        return tuple(convolution(x) for convolution in self.convolutions)


@pytest.mark.parametrize("kernels", [(1, 3), (3, 1), (3, 3), (1, 1)])
def test_convolutions_that_share_an_input(kernels: tuple[int, ...], tmp_path: Path) -> None:
    """XNNPACK computes a 3x3 convolution wrongly if it shares its rounded input with a 1x1."""
    module, path = _OneInput(*kernels).eval(), tmp_path / "model.pte"
    program = to_executorch._export(module, SIZE, {})
    rounded = to_executorch._export(q8.quantize_weights(program), SIZE, {})
    path.write_bytes(to_executorch._lower(rounded, q8.partitioner())[0])
    image = golden_picture(0, SIZE)
    names = [f"made{index}" for index in range(len(kernels))]
    with ExecuTorchRunner(path, SIZE, dict.fromkeys(names, (1, 32, 64, 64)), 1) as runner, torch.inference_mode():
        expected = [made.numpy() for made in module(torch.from_numpy(image.copy()))]
        found = runner.run(image)
    for name, values, kernel in zip(names, expected, kernels, strict=True):
        reached = snr_db([{name: values}], [{name: found[name]}])
        assert reached > 30, name
        assert (reached < 80) == (kernel == max(kernels)), name


def test_everything_that_computes_is_delegated(made: Made) -> None:
    graph = made.converted.graph
    assert (graph["partitions"], graph["not_delegated"]) == (1, {CAST: 1})
    assert made.converted.requires["backend"] == "xnnpack"


def test_what_is_int8_in_the_file(made: Made) -> None:
    certificate = made.certificate
    assert certificate.share("weights") > 0.95
    if made.converted.quantization.get("ranges"):
        # All but LayerNorm's two means.
        norm = 2 * 64 * (SIZE.height // 4) * (SIZE.width // 4)
        assert certificate.macs[1] - certificate.macs[0] == norm
        kinds = {kind for island in certificate.islands for kind in island.kinds}
        assert "XNNSigmoid" not in kinds
        assert "XNNGlobalAvgPooling2d" not in kinds
        assert "XNNConcatenate2" not in kinds


def test_it_says_how_it_was_made(made: Made, tmp_path: Path) -> None:
    quantization = made.converted.quantization
    to_executorch.convert(made.prepared, Options(), tmp_path / "float.pte")
    assert quantization["fp32_size_bytes"] == (tmp_path / "float.pte").stat().st_size
    assert made.path.stat().st_size < 0.6 * quantization["fp32_size_bytes"]
    if ranges := quantization.get("ranges"):
        assert ranges["snr_db"][ranges["method"]] == max(ranges["snr_db"].values())


def test_it_computes_what_the_float_form_does(made: Made) -> None:
    for index, found in enumerate(made.logits()):
        with torch.inference_mode():
            (expected,) = made.prepared.mobile(torch.from_numpy(golden_picture(index, SIZE).copy()))
        error = float(np.abs(found - expected.numpy()).max() / (expected.max() - expected.min()))
        assert 1e-4 < error < 0.05


def test_another_process_makes_the_same_bytes(made: Made, tmp_path: Path) -> None:
    """With another seed of Python's hashes, on which the order of sets depends."""
    precision = "int8" if made.converted.quantization.get("ranges") else "int8-weights"
    code = """
import sys
from pathlib import Path
from tests.test_quantize_executorch import few, options
from xformer_export import to_executorch
prepared = few()
to_executorch.convert(prepared, options(prepared, sys.argv[1]), Path(sys.argv[2]))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "11"}
    again = tmp_path / "again.pte"
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code, precision, str(again)], env=environment, cwd=root, check=True)
    assert again.read_bytes() == made.path.read_bytes()


def test_core_ml_has_neither(tmp_path: Path) -> None:
    prepared = few()
    for precision in ("int8", "int8-weights"):
        chosen = replace(options(prepared, precision), backend="coreml")
        with pytest.raises(UnavailableError, match=f"{precision} for .* XNNPACK only; .*--format coreml"):
            to_executorch.convert(prepared, chosen, tmp_path / "model.pte")
    assert not list(tmp_path.iterdir())


# ---- what is annotated, in PyTorch --------------------------------------------------------------------------


def _graph(mobile: nn.Module) -> fx.GraphModule:
    program = to_executorch._export(
        to_executorch._Typed(mobile, torch.float32), SIZE, to_executorch.INT8_DECOMPOSITIONS
    )
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)
    q8._pool_at_once(graph)
    return graph


@pytest.fixture(scope="module")
def detector() -> tuple[nn.Module, fx.GraphModule]:
    """The patch form of a whole model, and its graph."""
    form = to_patch_form(_prepared("detect").mobile)
    return form, _graph(form)


def test_the_patch_form_is_the_same_function() -> None:
    mobile: MobileXFormer = _prepared("detect").mobile
    image = torch.from_numpy(golden_picture(0, SIZE).copy())
    with torch.inference_mode():
        for expected, found in zip(mobile(image), _graph(to_patch_form(mobile))(image), strict=True):
            span = float(expected.max() - expected.min())
            assert float((found - expected).abs().max()) <= 1e-4 * span


def test_placement_decides(detector: tuple[nn.Module, fx.GraphModule]) -> None:
    form, graph = detector
    placement = Placement.of(form)
    plan = q8._Plan.of(graph, placement, "model")
    paths = {node.name: q8._module_path(node, "model") or "" for node in graph.graph.nodes}
    inside = {paths[name] for name in plan.inside}
    convolutions = [node.name for node in graph.graph.nodes if node.target == q8.CONVOLUTION]
    outside = {paths[name] for name in convolutions if name not in plan.inside}
    kinds = ("mean", "sum_heads", "expand_heads", "score", "predict")
    assert {path.rpartition(".")[2] for path in outside} == set(kinds)
    assert not any(path.endswith(kinds) for path in inside)
    sigmoids = {paths[node.name] for node in graph.graph.nodes if node.target == q8.SIGMOID}
    assert sigmoids - {paths[name] for name in plan.sigmoids} == {
        f"head.outputs.{scale}.bridge.1" for scale in range(3)
    }
    kept = q8._Plan.of(graph, Placement.of(form, ["head", "backbone.stem"]), "model")
    assert {path for path in inside if not path.startswith(("head", "backbone.stem"))} == {
        paths[name] for name in kept.inside
    }


def test_a_concatenation_has_one_scale(detector: tuple[nn.Module, fx.GraphModule]) -> None:
    """Of its inputs and its output: XNNPACK refuses any other."""
    form, graph = detector
    plan = q8._Plan.of(graph, Placement.of(form), "model")
    found = dict.fromkeys(plan.ranged.values(), (-1.0, 2.0)) | dict.fromkeys(plan.sigmoids, q8.SIGMOID_RANGE)
    for index, name in enumerate(sorted(set(plan.ranged.values()) - plan.sigmoids)):
        found[name] = (-1.0 - index, 2.0)
    quantized = q8._apply(graph, plan, found)
    joined = [node for node in quantized.graph.nodes if node.target == torch.ops.aten.cat.default]
    scales = [
        {source.args[1:3] for source in node.all_input_nodes} | {user.args[1:3] for user in node.users}
        for node in joined
        if all("dequantize" in str(source.target) for source in node.all_input_nodes)
    ]
    assert len(scales) >= 3
    assert all(len(pairs) == 1 for pairs in scales)
    made = [next(iter(node.users)) for node in quantized.graph.nodes if node.target == q8.SIGMOID]
    scaled = [node.args[1:3] for node in made if "quantize" in str(node.target)]
    assert scaled == [(1 / 256, -128)] * len(plan.sigmoids)


def test_means_of_tiles_are_one(detector: tuple[nn.Module, fx.GraphModule]) -> None:
    """The pools that are left are XFA's."""
    _, graph = detector
    pools = [node for node in graph.graph.nodes if node.target == torch.ops.aten.avg_pool2d.default]
    assert all("attention" in (q8._module_path(node, "model") or "") for node in pools)


@pytest.mark.parametrize(
    ("found", "expected"), [((-1.0, 1.55), (0.01, -28)), ((0.0, 2.55), (0.01, -128)), ((0.0, 0.0), (2.0**-24, -128))]
)
def test_scale_and_zero(found: tuple[float, float], expected: tuple[float, int]) -> None:
    scale, zero = q8._scale_and_zero(found)
    assert (round(scale, 9), zero) == (round(expected[0], 9), expected[1])
