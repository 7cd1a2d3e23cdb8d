"""int8 for ExecuTorch: PyTorch's PT2E quantization, with quantizers of our own for what XNNPACK computes in int8.

The graph is annotated when its ranges are known, so that every scale of an activation is fixed before; PT2E's observers
decide only the weights', symmetric and with one scale for each output channel.

In int8 a global mean is one mean: its sums are integers, and exact.

XNNPACK has no convolution with weights in int8 and activations in float. The nearest that it has rounds a convolution's
input to int8 when it runs, by the range that this picture's input has; what it computes from there on is float.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx
from torch.export import ExportedProgram

from xformer_export.calibration import Calibration, Choice, Outputs, Run, choose_ranges, collect
from xformer_export.int8_weights import LEAST_WEIGHTS
from xformer_export.placement import Placement
from xformer_mobile.errors import ConversionError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.ranges import LEVELS, Range

__all__ = ["partitioner", "quantize", "quantize_weights"]

aten = torch.ops.aten

CONVOLUTION = aten.conv2d.default

SIGMOID = aten.sigmoid.default

INT8_OPS = {aten.add.Tensor, aten.mean.dim, aten.mul.Tensor, CONVOLUTION, SIGMOID}
"""What computes in int8."""

MOVING_OPS = {aten.permute.default, aten.reshape.default, aten.transpose.int, aten.view.default}
"""What moves values: int8 where its input is."""

SHARING_OPS = {aten.cat.default, *MOVING_OPS}
"""What XNNPACK takes only if inputs and output have one scale."""

TRANSPARENT_OPS = {
    aten._unsafe_view.default,
    aten.add.Tensor,
    aten.clone.default,
    aten.mul.Tensor,
    SIGMOID,
    *SHARING_OPS,
}
"""What stands between an upsampled map and the next convolution."""

SIGMOID_RANGE: Range = (0.0, 255 / 256)
"""The one range that XNNPACK's sigmoid writes: a scale of 1/256."""

LEAST_SCALE = 2.0**-24
"""Below any that a trained model has; XNNPACK refuses a convolution whose scales are too far apart."""


def quantize(
    program: ExportedProgram,
    placement: Placement,
    prefix: str,
    calibration: Calibration,
    names: tuple[str, ...],
    step: Any = lambda name: None,
) -> Choice[fx.GraphModule]:
    """The float32 ``program`` with int8 convolutions and what stands between them.

    ``prefix`` is the path in the program of ``placement``'s module; ``names`` are the outputs'.

    Raises:
        ConversionError: PT2E failed, or an activation is not finite.
        MissingDependencyError: executorch is not installed.
    """
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)
    _pool_at_once(graph)
    plan = _Plan.of(graph, placement, prefix)
    step("executorch: count activations")
    histograms = collect(_all_values(graph, plan), calibration)
    fixed = dict.fromkeys(plan.sigmoids, SIGMOID_RANGE)

    def build(found: dict[str, Range]) -> fx.GraphModule:
        return _apply(graph, plan, found | fixed)

    return choose_ranges(
        histograms,
        _open(graph, names),
        build,
        lambda made: _open(made, names),
        calibration,
        step=lambda method: step(f"executorch: try ranges by {method}"),
    )


@dataclass(frozen=True)
class _Plan:
    """What of a graph is int8, by the names of its nodes.

    ``inside`` computes in int8; ``ranged`` has every value that int8 holds, and in whose name its range is kept;
    ``counted`` are those that decide over a range, and ``sigmoids`` those whose range is given.
    """

    inside: frozenset[str]
    ranged: dict[str, str]
    counted: frozenset[str]
    sigmoids: frozenset[str]

    @classmethod
    def of(cls, graph: fx.GraphModule, placement: Placement, prefix: str) -> _Plan:
        inside: dict[str, Any] = {}
        ranged: dict[str, str] = {}
        for node in graph.graph.nodes:
            path = _module_path(node, prefix)
            if path is None or not placement.is_int8(path) or node.target not in INT8_OPS | SHARING_OPS:
                continue
            sources = [source.name for source in _activations(node)]
            if node.target in MOVING_OPS and sources[0] not in inside:
                continue
            inside[node.name] = node.target
            for name in (*sources, node.name):
                ranged.setdefault(name, name)
            if node.target in SHARING_OPS:
                shared = {ranged[name] for name in (*sources, node.name)}
                ranged = {name: ranged[sources[0]] if kept in shared else kept for name, kept in ranged.items()}
        return cls(
            frozenset(inside),
            ranged,
            frozenset(name for name in ranged if inside.get(name) not in SHARING_OPS | {SIGMOID}),
            frozenset(name for name, target in inside.items() if target == SIGMOID),
        )


def _activations(node: fx.Node) -> list[fx.Node]:
    """What a node computes from, without a convolution's weights."""
    return node.all_input_nodes[:1] if node.target == CONVOLUTION else node.all_input_nodes


def _module_path(node: fx.Node, prefix: str) -> str | None:
    """The path below ``prefix`` of the innermost module that made a node; None where it is not below."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path: str = stack[-1][0] if stack else ""
    inside = path == prefix or path.startswith(f"{prefix}.")
    return path[len(prefix) + 1 :] if inside else None


def _pool_at_once(graph: fx.GraphModule) -> None:
    """Means of tiles in front of a global mean are part of it, in place."""
    for node in graph.graph.nodes:
        if node.target == aten.mean.dim:
            while (source := node.args[0]).target == aten.avg_pool2d.default:
                node.replace_input_with(source, source.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _all_values(graph: fx.GraphModule, plan: _Plan) -> Any:
    """Runs the graph and returns every value that decides over a range, by the name that the range has."""
    opened = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    opened.graph_copy(graph.graph, copies)
    counted = [node for node in graph.graph.nodes if node.name in plan.counted]
    opened.output([copies[node] for node in counted])
    reader = fx.GraphModule(graph, opened)

    def run(picture: ByteImage) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        with torch.inference_mode():
            values = reader(torch.from_numpy(picture.copy()))
        for node, value in zip(counted, values, strict=True):
            yield plan.ranged[node.name], value.numpy()

    return run


def _open(graph: fx.GraphModule, names: tuple[str, ...]) -> Run:
    """A graph, run by PyTorch."""

    def run(picture: ByteImage) -> Outputs:
        with torch.inference_mode():
            outputs = graph(torch.from_numpy(picture.copy()))
        return {name: values.numpy() for name, values in zip(names, outputs, strict=True)}

    return run


def _apply(graph: fx.GraphModule, plan: _Plan, found: dict[str, Range]) -> fx.GraphModule:
    """The graph with quantize and dequantize around what is int8."""
    quantizer = require("torchao.quantization.pt2e.quantizer", extra="executorch")

    def fixed(node: fx.Node) -> Any:
        scale, zero = _scale_and_zero(found[plan.ranged[node.name]])
        return quantizer.FixedQParamsQuantizationSpec(
            dtype=torch.int8,
            scale=scale,
            zero_point=zero,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
        )

    def annotation(node: fx.Node) -> Any:
        if node.name not in plan.inside:
            return None
        inputs = {source: fixed(source) for source in _activations(node)}
        if node.target == CONVOLUTION:
            inputs[node.all_input_nodes[1]] = _weights_spec()
        return quantizer.QuantizationAnnotation(inputs, fixed(node), _annotated=True)

    return _run(graph, annotation)


def quantize_weights(program: ExportedProgram) -> fx.GraphModule:
    """The float32 ``program`` with convolutions that have weights in int8 and round their input as they run.

    Depthwise convolutions stay float: XNNPACK has none that rounds its input. Of convolutions that read one value, only
    those with the largest kernel are rounded: with a 1x1 and a 3x3 on one rounded input, the 3x3's results are wrong in
    ExecuTorch 1.5.

    Raises:
        ConversionError: PT2E failed.
        MissingDependencyError: executorch is not installed.
    """
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)
    _order_channels_last(graph)
    observer = require("torchao.quantization.pt2e.observer", extra="executorch")
    quantizer = require("torchao.quantization.pt2e.quantizer", extra="executorch")
    rounded = quantizer.QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=observer.PlaceholderObserver.with_args(is_dynamic=True),
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        is_dynamic=True,
    )

    def annotation(node: fx.Node) -> Any:
        if not _can_be_rounded(node):
            return None
        source, weight = node.all_input_nodes[:2]
        others = (reader for reader in source.users if _can_be_rounded(reader))
        if any(_kernel(reader) > _kernel(node) for reader in others):
            return None
        return quantizer.QuantizationAnnotation({source: rounded, weight: _weights_spec()}, _annotated=True)

    return _run(graph, annotation)


def _can_be_rounded(node: fx.Node) -> bool:
    """Whether a node is a convolution, not depthwise, with enough weights."""
    if node.target != CONVOLUTION:
        return False
    shape = node.all_input_nodes[1].meta["val"].shape
    return bool(shape[1] > 1 and shape.numel() >= LEAST_WEIGHTS)


def _kernel(node: fx.Node) -> int:
    """The number of positions of a convolution's kernel."""
    size: int = node.all_input_nodes[1].meta["val"].shape[2:].numel()
    return size


def _order_channels_last(graph: fx.GraphModule) -> None:
    """Put a depthwise convolution by one in front of convolutions that read what was upsampled, in place.

    What is upsampled is channels-first, what is computed from it too, and a convolution wants it channels-last. Moved
    are then the channels of values that are rounded already, which XNNPACK can't do when it runs.
    """
    for node in list(graph.graph.nodes):
        if node.target != CONVOLUTION or not _is_upsampled(node.all_input_nodes[0]):
            continue
        source = node.all_input_nodes[0]
        channels = source.meta["val"].shape[1]
        name = f"one_{node.name}"
        graph.register_buffer(name, torch.ones(channels, 1, 1, 1))
        with graph.graph.inserting_before(node):
            one = graph.graph.get_attr(name)
            ordered = graph.graph.call_function(CONVOLUTION, (source, one, None, [1, 1], [0, 0], [1, 1], channels))
        one.meta["val"] = torch.ones(channels, 1, 1, 1)
        ordered.meta = dict(source.meta)
        node.replace_input_with(source, ordered)
    graph.recompile()


def _is_upsampled(node: fx.Node) -> bool:
    """Whether a value comes from an upsampled one, with no convolution between."""
    if node.target == aten.maximum.default and node.args[0] is node.args[1]:  # as to_executorch copies, to concatenate
        return True
    return node.target in TRANSPARENT_OPS and any(map(_is_upsampled, node.all_input_nodes))


def _run(graph: fx.GraphModule, annotation: Callable[[fx.Node], Any]) -> fx.GraphModule:
    """What PT2E makes of a copy of the graph whose nodes have these annotations."""
    pt2e = require("torchao.quantization.pt2e.quantize_pt2e", extra="executorch")
    quantizer = require("torchao.quantization.pt2e.quantizer", extra="executorch")

    class Annotator(quantizer.Quantizer):  # type: ignore[misc, name-defined]
        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            for node in model.graph.nodes:
                if (found := annotation(node)) is not None:
                    node.meta[quantizer.quantizer.Q_ANNOTATION_KEY] = found
            return model

        def validate(self, model: fx.GraphModule) -> None:
            pass

    (image,) = (node for node in graph.graph.nodes if node.op == "placeholder")
    example = torch.zeros(image.meta["val"].shape, dtype=image.meta["val"].dtype)
    try:
        prepared = pt2e.prepare_pt2e(copy.deepcopy(graph), Annotator())
        with torch.inference_mode():
            prepared(example)  # the weights are observed when it runs
        converted: fx.GraphModule = pt2e.convert_pt2e(prepared)
    except Exception as error:  # PT2E raises whatever its passes raise
        message = " ".join(str(error).split())[:300]
        raise ConversionError(f"PT2E failed: {type(error).__name__}: {message}") from error
    return converted


def _weights_spec() -> Any:
    """Symmetric, with one scale for each output channel."""
    observer = require("torchao.quantization.pt2e.observer", extra="executorch")
    quantizer = require("torchao.quantization.pt2e.quantizer", extra="executorch")
    return quantizer.QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=observer.PerChannelMinMaxObserver.with_args(eps=LEAST_SCALE),
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )


def _scale_and_zero(found: Range) -> tuple[float, int]:
    """The step of int8 and the number that stands for 0."""
    low, high = found
    scale = max((high - low) / (LEVELS - 1), LEAST_SCALE)
    return scale, min(127, max(-128, round(-128 - low / scale)))


# ---- lowering -----------------------------------------------------------------------------------------------


def partitioner() -> Any:
    """ExecuTorch's partitioner for XNNPACK, and the sigmoid in int8, which XNNPACK has and it does not hand over."""
    partition = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    nodes = importlib.import_module("executorch.backends.xnnpack.partition.config.generic_node_configs")
    configs = importlib.import_module("executorch.backends.xnnpack.partition.config")
    precision = importlib.import_module("executorch.backends.xnnpack.partition.config.xnnpack_config")

    class SigmoidConfig(nodes.SigmoidConfig):  # type: ignore[misc, name-defined]
        def supported_precision_types(self) -> list[Any]:
            kinds = precision.ConfigPrecisionType
            return [kinds.FP32, kinds.STATIC_QUANT]

    return partition.XnnpackPartitioner(
        configs=[
            SigmoidConfig if config is nodes.SigmoidConfig else config for config in configs.ALL_PARTITIONER_CONFIGS
        ]
    )
