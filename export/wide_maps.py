"""The convolutional blocks for ONNX in float, where their maps are wide: less memory, less time to gate them.

- *Groups.* The expanded map of an MV3 block is the largest of the network, and is needed for a moment only. Channels
  do not meet between the expansion and squeeze-excite, so :class:`GroupedMV3` takes a few of them at a time.
- *Gates on x86.* There ONNX Runtime keeps maps in blocks of 8 or 16 channels, and leaves them for a product that
  broadcasts: a map is reordered before and after. :class:`SpreadSqueezeExcite` makes the gate as large as the map,
  so that all of it stays in blocks. On other processors that would only be work.
- *Means elsewhere.* Out of blocks, ONNX Runtime 1.31 takes 2 ns a value for an AveragePool, a sixth of the whole
  network's time, and a tenth of that for a GlobalAveragePool. :class:`FlatSqueezeExcite` has only the latter.

:func:`with_wide_maps` makes it from a form's own weights; all of it is exact algebra.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xformer_export.program import replace_modules
from xformer_mobile.mobile import LONGEST_SUM, MobileMV3, MobileSqueezeExcite, global_mean
from xformer_mobile.spec import ImageSize

__all__ = ["FEWEST_CHANNELS", "WIDEST_MAP", "FlatSqueezeExcite", "GroupedMV3", "SpreadSqueezeExcite", "with_wide_maps"]

WIDEST_MAP = 16 * 2**20
"""So many values an expanded map may have before its block goes by groups: 64 MiB in float32. With half of it the peak
is higher and nothing faster: what is concatenated is there twice."""

FEWEST_CHANNELS = 32
"""Groups are no smaller: convolutions to fewer channels are slow."""


def with_wide_maps(form: nn.Module, size: ImageSize, *, blocked: bool) -> nn.Module:
    """Return ``form``, one for images of ``size``, with blocks that go by groups where their maps are wide.

    ``blocked`` is whether ONNX Runtime keeps maps in blocks of channels. ``form`` itself is left as it was.
    """
    blocks = dict(_group_channels(form, size))
    with torch.no_grad():
        made = replace_modules(form, {MobileSqueezeExcite: SpreadSqueezeExcite if blocked else FlatSqueezeExcite})
        for path, channels in blocks.items():
            block = made.get_submodule(path)
            assert isinstance(block, MobileMV3)
            made.set_submodule(path, GroupedMV3(block, channels))
    return made.eval()


def _group_channels(form: nn.Module, size: ImageSize) -> Iterator[tuple[str, int]]:
    """The path of each block whose expanded map is too wide, and how many channels its groups have."""
    stride = 2  # of the stem; blocks are in the order in which they run
    for path, block in form.named_modules():
        if isinstance(block, MobileMV3):
            height, width = size.at_stride(stride)
            expand, depthwise = _convolutions(block)
            channels = max(FEWEST_CHANNELS, WIDEST_MAP // (height * width))
            if channels < expand.out_channels:
                yield path, channels
            stride *= depthwise.stride[0]


def _convolutions(block: MobileMV3) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Of a block, the expansion and the depthwise convolution."""
    expand, depthwise = (block.get_submodule(path) for path in ("body.0.0", "body.1.0"))
    assert isinstance(expand, nn.Conv2d)
    assert isinstance(depthwise, nn.Conv2d)
    return expand, depthwise


class SpreadSqueezeExcite(nn.Module):
    """Squeeze-excite whose gate is as large as the map."""

    def __init__(self, module: MobileSqueezeExcite) -> None:
        super().__init__()
        self.gate = module.gate

    def forward(self, x: Tensor) -> Tensor:
        return x * F.interpolate(self.gate(global_mean(x)), size=x.shape[2:], mode="nearest")


class FlatSqueezeExcite(nn.Module):
    """Squeeze-excite whose means go over runs of values that are side by side in memory."""

    def __init__(self, module: MobileSqueezeExcite) -> None:
        super().__init__()
        self.gate = module.gate

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.gate(_flat_mean(x))
        return out


def _flat_mean(x: Tensor) -> Tensor:
    """The mean over H and W: (1, C, H, W) -> (1, C, 1, 1), of runs that are no longer than LONGEST_SUM."""
    channels, left = x.shape[1], x.shape[2] * x.shape[3]
    while left > LONGEST_SUM:
        run = math.gcd(left, LONGEST_SUM)
        if run == 1:
            break
        left //= run
        x = x.reshape(1, channels * left, run, 1).mean((2, 3), keepdim=True)
    return x.reshape(1, channels, left, 1).mean((2, 3), keepdim=True)


class GroupedMV3(nn.Module):
    """MV3 that expands and filters ``channels`` channels at a time; see :class:`~xformer_mobile.mobile.MobileMV3`."""

    def __init__(self, module: MobileMV3, channels: int) -> None:
        super().__init__()
        expand, depthwise = _convolutions(module)
        _, _, self.squeeze_excite, self.project = module.body
        self.groups = nn.ModuleList(
            nn.Sequential(_slice(expand, start, channels), nn.SiLU(), _slice(depthwise, start, channels), nn.SiLU())
            for start in range(0, expand.out_channels, channels)
        )
        self.residual = module.residual

    def forward(self, x: Tensor) -> Tensor:
        filtered = torch.cat([group(x) for group in self.groups], dim=1)
        out: Tensor = self.project(self.squeeze_excite(filtered))
        return x + out if self.residual else out


def _slice(conv: nn.Conv2d, start: int, channels: int) -> nn.Conv2d:
    """The convolution to some of the output channels; of a depthwise one, with its own input channels."""
    assert conv.bias is not None
    weight = conv.weight[start : start + channels]
    count = weight.shape[0]
    made = nn.Conv2d(
        conv.in_channels if conv.groups == 1 else count,
        count,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        groups=1 if conv.groups == 1 else count,
    )
    made.weight = nn.Parameter(weight.clone(), requires_grad=False)
    made.bias = nn.Parameter(conv.bias[start : start + channels].clone(), requires_grad=False)
    return made
