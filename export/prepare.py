"""Step one: the reference model with its weights, its mobile form, and the golden cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from xformer_export.calibration import Calibration
from xformer_mobile import __version__
from xformer_mobile.artifact import GoldenCase, describe_input
from xformer_mobile.errors import CheckpointError
from xformer_mobile.mobile import MobileXFormer, to_mobile
from xformer_mobile.patterns import golden_picture
from xformer_mobile.reference import XFormer
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import ImageSize, ModelConfig
from xformer_mobile.zoo import load_reference, one_thread

__all__ = ["PRODUCER", "Converted", "Network", "Options", "Prepared", "golden_cases", "metadata_of", "prepare"]

PRODUCER = "xformer-mobile"

GOLDEN_CASES = 3


@dataclass(frozen=True)
class Network:
    """What of any model the converters need: a module and its interface.

    ``module`` takes an RGB image of bytes, uint8 (1, H, W, 3) of ``image_size``, and returns a tuple of float32
    outputs; ``output_shapes`` are their shapes by name, in that order.
    """

    name: str
    module: nn.Module
    image_size: ImageSize
    output_shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Prepared:
    """A model ready for the converters.

    ``weights`` is the manifest's ``model.weights``; ``lowered`` is where a converter keeps its own float32 result, by
    format, which every precision starts from.
    """

    reference: XFormer
    mobile: MobileXFormer
    weights: dict[str, Any]
    lowered: dict[str, bytes] = field(default_factory=dict)

    @property
    def config(self) -> ModelConfig:
        return self.reference.config

    @property
    def network(self) -> Network:
        """The mobile form."""
        config = self.config
        return Network(config.variant.name, self.mobile, config.image_size, config.output_shapes())


def _say_nothing(step: str) -> None:
    """Not a lambda: options are pickled."""


@dataclass(frozen=True)
class Options:
    """How to convert: what every converter is given, and reads what concerns it.

    ``precision`` is fp32, fp16, int8-weights or int8; ``minimum_ios`` is for Core ML, ``backend`` for ExecuTorch,
    ``onnx_target`` (arm or x86) for ONNX. For int8 there are ``calibration``, the paths ``keep_float`` of the
    mobile form's modules that stay float, and ``step``, which is called with what is being done.
    """

    precision: str = "fp32"
    minimum_ios: int = 16
    backend: str = "xnnpack"
    onnx_target: str = "arm"
    calibration: Calibration | None = None
    keep_float: tuple[str, ...] = ()
    step: Callable[[str], None] = _say_nothing


@dataclass(frozen=True)
class Converted:
    """What a converter says of the artifact that it has written.

    ``requires`` is what a runtime must support; ``input_dtype`` and ``input_layout`` are the input's inside the
    artifact; ``graph`` is what was counted in the graph, as JSON values: it goes to the bundle's report. Of a quantized
    one, ``quantization`` says how: the method of the ranges and what every method reached.
    """

    requires: dict[str, Any]
    input_dtype: str
    input_layout: str
    graph: dict[str, Any] = field(default_factory=dict)
    quantization: dict[str, Any] = field(default_factory=dict)


def prepare(
    checkpoint: Path | None,
    *,
    task: str | None = None,
    variant: str | None = None,
    image_size: ImageSize | None = None,
    labels: tuple[str, ...] | None = None,
) -> Prepared:
    """Load the reference model and rewrite it; see :func:`load_reference`."""
    model, weights = load_reference(checkpoint, task=task, variant=variant, image_size=image_size, labels=labels)
    return Prepared(model, to_mobile(model), weights)


def metadata_of(prepared: Prepared) -> dict[str, str]:
    """What every artifact says of itself in its format's own metadata, as strings by name."""
    config = prepared.config
    return {
        "generator": f"{PRODUCER} {__version__}",
        "task": config.task,
        "variant": config.variant.name,
        "labels": json.dumps(config.labels, ensure_ascii=False),
        "input": json.dumps(describe_input(config), ensure_ascii=False, sort_keys=True),
        "weights": json.dumps(prepared.weights, sort_keys=True),
    }


def golden_cases(model: XFormer) -> list[GoldenCase]:
    """Golden inputs and the reference model's outputs for them, computed on one thread: the same bytes each time.

    Raises:
        CheckpointError: the reference model returns NaN or infinite values for one of them.
    """
    cases = []
    with TorchRunner(model) as runner, one_thread():
        for index in range(GOLDEN_CASES):
            image = golden_picture(index, model.config.image_size)
            outputs = runner.run(image)
            for name, values in outputs.items():
                if not (abs(values) < float("inf")).all():
                    raise CheckpointError(
                        f"the weights are finite, but the model's output {name!r} is not: its activations overflow"
                    )
            cases.append(GoldenCase(f"{index:03d}", image, outputs))
    return cases
