"""The convolutional building blocks that every part of the reference model shares.

MV3 is MobileNetV3's block (arXiv 1905.02244) with the SiLU of the XFormer article (arXiv 2207.07268).
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["MV3", "ConvNormAct", "SqueezeExcite"]


class ConvNormAct(nn.Module):
    """Convolution without bias, BatchNorm, and SiLU unless ``act`` is false.

    Input (B, in_channels, H, W), output (B, out_channels, ceil(H/stride), ceil(W/stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act: nn.Module = nn.SiLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class SqueezeExcite(nn.Module):
    """Gates each channel by a small network of the channels' global averages. Keeps the shape (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // reduction, 1)
        self.act = nn.SiLU()
        self.expand = nn.Conv2d(channels // reduction, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        out: Tensor = x * self.gate(self.expand(self.act(self.reduce(pooled))))
        return out


class MV3(nn.Module):
    """MobileNetV3's inverted residual: expand, depthwise 3x3, squeeze-excite, project.

    The input is added to the output where their shapes agree.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, expand_ratio: int = 4) -> None:
        super().__init__()
        hidden = in_channels * expand_ratio
        self.expand = ConvNormAct(in_channels, hidden)
        self.depthwise = ConvNormAct(hidden, hidden, 3, stride=stride, groups=hidden)
        self.squeeze_excite = SqueezeExcite(hidden)
        self.project = ConvNormAct(hidden, out_channels, act=False)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.squeeze_excite(self.depthwise(self.expand(x))))
        return x + out if self.residual else out
