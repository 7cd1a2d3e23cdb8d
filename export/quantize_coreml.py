"""int8 for Core ML: coremltools' own graph passes, with ranges that were counted on any system.

Weights are stored in int8, symmetric, one scale for each output channel; Core ML unpacks them to float16. For int8
activations, coremltools puts quantize and dequantize in front of a convolution or a sum. The ranges for them it would
take from predictions, which only macOS makes; here the evaluator of :mod:`xformer_mobile.runners.mil` runs the float16
package instead.

What a convolution makes is rounded where the next one takes it, behind the activation: SiLU and GELU read float16.
coremltools' further pass, which rounds in front of them too, would leave 12 dB of the classifier's 25.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from xformer_export.calibration import Calibration, Choice, Outputs, Run, choose_ranges, collect
from xformer_export.int8_weights import LEAST_WEIGHTS
from xformer_export.placement import Placement
from xformer_export.shortcuts import checked_once
from xformer_mobile.artifact import INPUT_NAME
from xformer_mobile.errors import ConversionError
from xformer_mobile.optional import import_coremltools
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.ranges import Histogram, Range
from xformer_mobile.runners.mil import MilProgram

__all__ = ["MINIMUM_IOS", "quantize", "quantize_weights"]

MINIMUM_IOS = {"int8-weights": 16, "int8": 17}
"""The first release that runs a precision."""

MODE = "linear"
"""coremltools' name of ranges that need not be symmetric: half of what SiLU makes would be left unused."""

WEIGHTED_OPS = {"conv": "weight", "linear": "weight", "matmul": "y", "mul": "y"}
"""What has weights, and which operand they are. Of a product, the kernel over the tokens in XFA."""

SAME_WEIGHTS: dict[str, Any] = {"rtol": 2e-3, "atol": 1e-7}
"""So far may weights in float16 be from those that were trained."""

NARROWEST, WIDEST = 2**-6, 500.0
"""coremltools computes scales and zero points in float16. A range narrower than this has no normal scale there and is
widened; a value larger than this would overflow, and what reads it stays float."""


@dataclass(frozen=True)
class _Plan:
    """Names in a package: the ops that compute in int8, the values that they read, and what is to stay float."""

    ops: tuple[str, ...]
    values: tuple[str, ...]
    kept: tuple[str, ...]


def quantize(
    model: Any, mobile: nn.Module, placement: Placement, calibration: Calibration, step: Any = lambda name: None
) -> Choice[Any]:
    """The float16 ``model``, made of ``mobile``, with int8 convolutions and sums of them.

    ``model`` is coremltools' MLModel for iOS 17 or later, as the choice's artifact is.

    Raises:
        ConversionError: coremltools failed, or an activation is not finite.
        MissingDependencyError: coremltools is not installed.
    """
    plan = _plan(_load(model), mobile, placement)
    step("coreml: count activations")
    histograms = collect(_values(model, plan.values), calibration)
    wide = {name for name, histogram in histograms.items() if _is_wide(histogram)}
    if wide:
        plan = _plan(_load(model), mobile, placement, wide)
    small = quantize_weights(model, plan.ops, plan.kept)

    def build(found: Mapping[str, Range]) -> Any:
        return _insert(small, found, plan.ops)

    return choose_ranges(
        {name: histograms[name] for name in plan.values},
        open_model(model),
        build,
        open_model,
        calibration,
        step=lambda method: step(f"coreml: try ranges by {method}"),
    )


def quantize_weights(model: Any, ops: Collection[str] = (), kept: Collection[str] = ()) -> Any:
    """The float16 ``model``, an MLModel, with the weights of convolutions and matmuls stored in int8.

    Small weights stay float16, but for those of ``ops``. So do kernels of zeros and ones, and those of ``kept``.

    Raises:
        ConversionError: coremltools failed.
        MissingDependencyError: coremltools is not installed.
    """
    optimize = import_coremltools().optimize.coreml
    names = []
    for op in _load(model).operations:
        if op.op_type not in WEIGHTED_OPS or op.name in kept:
            continue
        weights = op.inputs[WEIGHTED_OPS[op.op_type]]
        if weights.val is None or np.isin(weights.val, (0, 1)).all():
            continue
        if weights.val.size >= LEAST_WEIGHTS or op.name in ops:
            names.append(weights.op.name)
    row = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", granularity="per_channel", weight_threshold=0)
    with _passes():
        return optimize.linear_quantize_weights(
            model, optimize.OptimizationConfig(op_name_configs=dict.fromkeys(names, row))
        )


def open_model(model: Any) -> Run:
    """A package, opened by the evaluator."""
    program = MilProgram.load(Path(model.package_path))
    names = [output.name for output in program.outputs if output.shape is not None]

    def run(picture: ByteImage) -> Outputs:
        found = program.run({INPUT_NAME: picture})
        return {name: found[name] for name in names}

    return run


def _values(model: Any, names: Sequence[str]) -> Any:
    """Runs the package and returns these of the values that it computes, by name; not rounded, which takes as long."""
    program = MilProgram.load(Path(model.package_path), precision="fp32")

    def run(picture: ByteImage) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        found = program.run({INPUT_NAME: picture}, intermediates=names)
        for name in names:
            yield name, found[name].astype(np.float32, copy=False)

    return run


def _load(model: Any) -> Any:
    """The function of a package, as its passes see it."""
    milproto = importlib.import_module("coremltools.converters.mil.frontend.milproto.load")
    spec = model.get_spec()
    return milproto.load(spec, spec.specificationVersion, model.weights_dir).functions["main"]


def _plan(function: Any, mobile: nn.Module, placement: Placement, wide: Collection[str] = ()) -> _Plan:
    """What computes in int8: convolutions by their placement, and sums of nothing but their results.

    What reads a value of ``wide`` is float. A convolution is known by its weights, which float16 has rounded.
    """
    trained = {
        path: part.weight.detach().numpy() for path, part in mobile.named_modules() if isinstance(part, nn.Conv2d)
    }
    made_in_int8: set[Any] = set()
    ops: list[str] = []
    kept: list[str] = []
    values: dict[str, None] = {}
    for op in function.operations:
        if op.op_type == "conv":
            operands = [op.x]
            paths = [
                path
                for path, weights in trained.items()
                if weights.shape == op.weight.shape and np.allclose(op.weight.val, weights, **SAME_WEIGHTS)
            ]
            inside = any(map(placement.is_int8, paths))
            if any(map(placement.is_kept, paths)):
                kept.append(op.name)
        elif op.op_type == "add":
            operands = [op.x, op.y]
            inside = made_in_int8.issuperset(operands)
        else:
            if op.op_type.startswith("upsample") and op.x in made_in_int8:
                made_in_int8.add(op.outputs[0])
            continue
        if inside and not any(operand.name in wide for operand in operands):
            made_in_int8.add(op.outputs[0])
            ops.append(op.name)
            values |= dict.fromkeys(operand.name for operand in operands)
    return _Plan(tuple(ops), tuple(values), tuple(kept))


def _is_wide(histogram: Histogram) -> bool:
    return max(-histogram.low, histogram.high) > WIDEST


def _insert(model: Any, found: Mapping[str, Range], ops: Sequence[str]) -> Any:
    """The package with quantize and dequantize in front of the ops."""
    ct = import_coremltools()
    registry = importlib.import_module("coremltools.converters.mil.mil.passes.pass_registry")
    graph_pass = importlib.import_module("coremltools.converters.mil.mil.passes.graph_pass")
    row = ct.optimize.coreml.OpLinearQuantizerConfig(mode=MODE)
    config = ct.optimize.coreml.OptimizationConfig(op_name_configs=dict.fromkeys(ops, row))
    statistics = {name: {"rmin": low, "rmax": max(high, low + NARROWEST)} for name, (low, high) in found.items()}
    insert = registry.PASS_REGISTRY["compression::insert_prefix_quantize_dequantize_pair"]
    insert.set_options([graph_pass.PassOption("config", config), graph_pass.PassOption("activation_stats", statistics)])
    with _passes():
        return ct.models.utils._apply_graph_pass(model, insert, skip_model_load=True)


@contextlib.contextmanager
def _passes() -> Iterator[None]:
    """Run coremltools' passes: its names counted from the start, its bars hidden, its errors turned into ours."""
    # It numbers what has no name on from what it did before.
    import_coremltools().converters.mil.Builder.name_count.clear()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), checked_once():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # the passes raise whatever their parts raise
            message = " ".join(str(error).split())[:300]
            raise ConversionError(f"coremltools can't quantize: {type(error).__name__}: {message}") from error
