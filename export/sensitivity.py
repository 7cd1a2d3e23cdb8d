"""What int8 costs where: each part of the model rounded by itself, on the torch form, before anything is converted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xformer_export.calibration import Calibration
from xformer_export.placement import FLOAT_CONVOLUTIONS
from xformer_mobile.fake_quant import FakeQuant
from xformer_mobile.mobile import MobileMV3, MobileXFBlock, MobileXFormer
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.base import Outputs

__all__ = ["Part", "RoundedModel", "Sensitivity", "measure_sensitivity"]

PICTURES = 16
"""Pictures on which each part is rounded by itself."""

UNITS = (MobileMV3, MobileXFBlock)
"""What stays float stays so as a whole: a float layer between int8 ones costs two conversions."""


@dataclass(frozen=True)
class Part:
    """A part of the model: its layers, their multiply-accumulates, and the noise that rounding it alone makes.

    ``noise`` is the power of the outputs' difference over their own, the mean of the outputs and pictures.
    """

    path: str
    layers: tuple[str, ...]
    macs: int
    noise: float

    def as_json(self) -> dict[str, Any]:
        return {"path": self.path, "macs": self.macs, "noise": self.noise}


@dataclass(frozen=True)
class Sensitivity:
    """All parts, the one that gains most for what it costs in float first."""

    parts: tuple[Part, ...]

    def kept(self, count: int) -> tuple[str, ...]:
        """The paths of the first parts."""
        return tuple(part.path for part in self.parts[:count])


class RoundedModel:
    """The mobile form on torch as int8 would round it, but for the parts that stay float."""

    def __init__(self, mobile: MobileXFormer, calibration: Calibration) -> None:
        self.model = copy.deepcopy(mobile).eval()
        self.names = list(mobile.config.output_shapes())
        self.rounding = FakeQuant(self.model, FLOAT_CONVOLUTIONS)
        with self.rounding.counting():
            for image in calibration.counted():
                self.run(image)
        self.rounding.set_ranges("percentile")

    def run(self, image: ByteImage) -> Outputs:
        """Raw outputs by name for (1, H, W, 3) uint8."""
        with torch.no_grad():
            outputs = self.model(torch.from_numpy(np.array(image)))
        return {name: values.numpy() for name, values in zip(self.names, outputs, strict=True)}

    def keep_float(self, paths: Iterable[str]) -> None:
        """Round everything that is not at or below these paths."""
        kept = tuple(paths)
        self.rounding.round_only(
            layer
            for layer in self.rounding.layers
            if not any(layer == path or layer.startswith(f"{path}.") for path in kept)
        )


def measure_sensitivity(
    rounded: RoundedModel, calibration: Calibration, step: Callable[[str], None] = lambda path: None
) -> Sensitivity:
    """Round each part by itself; ``step`` is called with the path of each."""
    images = [image for image, _ in zip(calibration.compared(), range(PICTURES), strict=False)]
    rounded.rounding.round_only(())
    expected = [rounded.run(image) for image in images]
    macs = _macs(rounded, images[0])
    parts = []
    for path, layers in _units(rounded).items():
        step(path)
        rounded.rounding.round_only(layers)
        found = [rounded.run(image) for image in images]
        noise = float(np.mean([_noise(a, b) for a, b in zip(expected, found, strict=True)]))
        parts.append(Part(path, tuple(layers), sum(macs[layer] for layer in layers), noise))
    total = sum(part.macs for part in parts)
    # A part without multiply-accumulates still costs its conversions.
    return Sensitivity(tuple(sorted(parts, key=lambda part: part.noise / (part.macs + total / 1000), reverse=True)))


def _units(rounded: RoundedModel) -> dict[str, list[str]]:
    """The layers of each part, by the part's path."""
    modules = dict(rounded.model.named_modules())
    found: dict[str, list[str]] = {}
    for layer in rounded.rounding.layers:
        steps = layer.split(".")
        above = (".".join(steps[:length]) for length in range(1, len(steps)))
        path = next((path for path in above if isinstance(modules[path], UNITS)), layer)
        found.setdefault(path, []).append(layer)
    return found


def _macs(rounded: RoundedModel, image: ByteImage) -> dict[str, int]:
    """The multiply-accumulates of each layer."""
    found: dict[str, int] = {}

    def counter(path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, given: Any, made: Tensor) -> None:
            assert isinstance(module, nn.Conv2d)
            found[path] = made.numel() * module.weight[0].numel()

        return hook

    modules = dict(rounded.model.named_modules())
    hooks = [modules[path].register_forward_hook(counter(path)) for path in rounded.rounding.layers]
    rounded.run(image)
    for hook in hooks:
        hook.remove()
    return found


def _noise(expected: Outputs, found: Outputs) -> float:
    def power(values: npt.NDArray[np.float32]) -> float:
        return float(np.square(values, dtype=np.float64).sum())

    return float(
        np.mean([power(found[name] - expected[name]) / max(power(expected[name]), 1e-30) for name in expected])
    )
