"""int8 as a phone would round, simulated in float on a PyTorch model: for training with it, and to see what hurts.

The weights of every convolution and linear layer are rounded with one scale for each output channel, symmetric; what
goes in and what comes out with one scale for each tensor. What follows a convolution as its BatchNorm belongs to it: a
scale for each channel makes no difference to weights that have one already. Gradients pass as if nothing were rounded,
and are zero where a value is beyond its range (arXiv 1712.05877, section 3; 1308.3432).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from xformer_mobile.errors import TrainingError
from xformer_mobile.layers import ConvNormAct
from xformer_mobile.ranges import METHODS, Histogram, Range

__all__ = ["FakeQuant"]

LOWEST, HIGHEST = -128, 127


@dataclass
class _Value:
    """A tensor that int8 holds: counted while ``range`` is None and ``counting``; rounded once it has one."""

    histogram: Histogram = field(default_factory=Histogram)
    range: Range | None = None
    counting: bool = False
    rounding: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> _Value:
        return self  # a copied model rounds alike

    def __call__(self, x: Tensor) -> Tensor:
        if self.counting:
            try:
                self.histogram.add(x.detach().float().cpu().numpy())
            except ValueError as error:
                raise TrainingError(f"an activation that int8 has to cover has {error}") from error
        if not self.rounding or self.range is None:
            return x
        low, high = self.range
        scale = max((high - low) / (HIGHEST - LOWEST), 1e-12)
        zero = max(LOWEST, min(HIGHEST, LOWEST - round(low / scale)))
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, LOWEST, HIGHEST)
        return rounded.to(x.dtype)


@dataclass
class _Layer:
    """A layer's two values, and whether its weights are rounded."""

    given: _Value = field(default_factory=_Value)
    made: _Value = field(default_factory=_Value)
    rounding: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> _Layer:
        return self


def _rounded(weight: Tensor) -> Tensor:
    """Weights (out, ...) on their int8 grids."""
    largest = weight.detach().abs().flatten(1).amax(1)
    scale = torch.where(largest > 0, largest / HIGHEST, torch.ones_like(largest)).float()
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    rounded: Tensor = torch.fake_quantize_per_channel_affine(weight.float(), scale, zeros, 0, -HIGHEST, HIGHEST)
    return rounded.to(weight.dtype)


class FakeQuant:
    """Makes a model's convolutions and linear layers round as int8 does, once they are calibrated.

    The model's parameters, their names and its interface stay as they are; copies of the model round alike.

    Args:
        model: the reference or the mobile form, of which nothing is copied.
        skip: names of layers (the last part of their paths) that are never rounded.
    """

    def __init__(self, model: nn.Module, skip: Collection[str] = ()) -> None:
        self.layers: dict[str, _Layer] = {}
        outputs = {
            f"{path}.conv" if path else "conv": part.norm
            for path, part in model.named_modules()
            if isinstance(part, ConvNormAct)
        }
        for path, part in list(model.named_modules()):
            if not isinstance(part, (nn.Conv2d, nn.Linear)) or path.rpartition(".")[2] in skip:
                continue
            layer = self.layers[path] = _Layer()
            part.forward = types.MethodType(_forward(layer), part)  # type: ignore[method-assign]
            outputs.get(path, part).register_forward_hook(_after(layer.made))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Within the block every value is counted; after it, ranges can be found.

        Running the model in it raises TrainingError where a value is not finite.
        """
        self._each(counting=True)
        try:
            yield
        finally:
            self._each(counting=False)

    def set_ranges(self, method: str) -> None:
        """Find each value's range by one of :data:`~xformer_mobile.ranges.METHODS`."""
        for layer in self.layers.values():
            for value in (layer.given, layer.made):
                value.range = METHODS[method](value.histogram) if value.histogram.total else None

    def ranges(self) -> dict[str, list[list[float]]]:
        """The ranges of what goes into each layer and of what comes out, by its path; empty before they are set."""
        return {
            path: [list(value.range) for value in (layer.given, layer.made) if value.range is not None]
            for path, layer in self.layers.items()
            if layer.given.range is not None
        }

    def load_ranges(self, ranges: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """Take ranges that :meth:`ranges` returned, and round all layers that have some."""
        for path, ((low, high), (lowest, highest)) in ranges.items():
            self.layers[path].given.range, self.layers[path].made.range = (low, high), (lowest, highest)
        self.round_only(ranges)

    def round_only(self, paths: Iterable[str]) -> None:
        """Round these layers and no others."""
        chosen = set(paths)
        for path, layer in self.layers.items():
            layer.rounding = layer.given.rounding = layer.made.rounding = path in chosen

    def _each(self, *, counting: bool) -> None:
        for layer in self.layers.values():
            layer.given.counting = layer.made.counting = counting


def _forward(layer: _Layer) -> Callable[[Any, Tensor], Tensor]:
    """The layer's own computation on rounded operands."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = layer.given(x)
        weight = _rounded(self.weight) if layer.rounding else self.weight
        if isinstance(self, nn.Linear):
            return nn.functional.linear(x, weight, self.bias)
        made: Tensor = self._conv_forward(x, weight, self.bias)
        return made

    return forward


def _after(value: _Value) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def hook(module: nn.Module, given: Any, made: Tensor) -> Tensor:
        return value(made)

    return hook
