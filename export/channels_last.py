"""The form of the model for TFLite, whose tensors are channels-last: the mobile form without a matmul or a reshape.

:func:`to_channels_last` makes it from the mobile form's own weights. What changes, all of it exact algebra:

- Inside an XF stage the map (1, C, H, W) is (1, C, N, P): one row for each of the N patches, one column for each of
  the P positions in a patch. 1x1 convolutions, LayerNorm and elementwise ops don't care, and XFA's sums over the tokens
  of one position are means over the rows. One transpose leads into a stage and one out of it.
- XFA's products of two activations are elementwise products, with sums over features and over rows. XNNPACK runs a
  FULLY_CONNECTED only if its weights are constant, and a GPU no BATCH_MATMUL of two activations; these forms run
  everywhere. It costs V's and the output's projections for every token: 6 % more MACs in ``xformer_s``.
- LayerNorm's gain and shift are part of the convolution that follows. Its subtraction of the mean is part of the
  convolutions that write to the sum from block to block: only LayerNorms read that.
- The query feature score is computed from K, which has fewer features than the token that K is made of.
- Nearest upsampling is concatenation and reshape: XNNPACK has no RESIZE_NEAREST_NEIGHBOR.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xformer_export.program import replace_modules
from xformer_mobile.mobile import (
    LONGEST_SUM,
    POOL_TILE,
    POSITIONS,
    ChannelNorm,
    MobileDetectionBlock,
    MobileXFA,
    MobileXFBlock,
    MobileXFormer,
    MobileXFStage,
)
from xformer_mobile.reference import PATCH

__all__ = ["PatchXFA", "PatchXFBlock", "PatchXFStage", "PlainNorm", "to_channels_last", "to_patch_form"]


def to_channels_last(model: MobileXFormer) -> nn.Module:
    """Return the channels-last form of ``model``, with the same interface; ``model`` itself is left as it was."""
    rules = {MobileXFStage: PatchXFStage, MobileDetectionBlock: DoublingDetectionBlock}
    with torch.no_grad():
        return replace_modules(model, rules).eval()


def to_patch_form(model: MobileXFormer) -> nn.Module:
    """Return the form of ``model`` in which only the XF stages are channels-last; ``model`` is left as it was."""
    with torch.no_grad():
        return replace_modules(model, {MobileXFStage: PatchXFStage}).eval()


def _conv(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """A 1x1 convolution in float32 with the given weight, (out, in), of any float dtype."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    conv.weight = nn.Parameter(weight.float()[:, :, None, None].contiguous(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.float().contiguous(), requires_grad=False)
    return conv


def _centred(conv: nn.Module) -> nn.Conv2d:
    """The 1x1 convolution ``conv`` less the mean of its output over the channels, in float64."""
    assert isinstance(conv, nn.Conv2d)
    weight = conv.weight.double()[:, :, 0, 0]
    bias = None if conv.bias is None else conv.bias.double()
    return _conv(weight - weight.mean(0), None if bias is None else bias - bias.mean())


def _absorb(norm: ChannelNorm, conv: nn.Conv2d) -> nn.Conv2d:
    """The 1x1 convolution ``conv`` with the gain and shift of the norm in front of it folded in, in float64."""
    assert conv.bias is not None
    weight = conv.weight.double()[:, :, 0, 0]
    gain, shift = norm.weight.double().flatten(), norm.bias.double().flatten()
    return _conv(weight * gain, conv.bias.double() + weight @ shift)


def _absorb_first(norm: ChannelNorm, layers: nn.Sequential) -> nn.Sequential:
    """``layers`` with the norm in front of them folded into the first, a 1x1 convolution."""
    first, *rest = layers
    assert isinstance(first, nn.Conv2d)
    return nn.Sequential(_absorb(norm, first), *rest)


def _row_mean(x: Tensor) -> Tensor:
    """The mean over the rows, (1, C, N, P) -> (1, C, 1, P), in steps whose sums are short."""
    rows = x.shape[2]
    while rows > LONGEST_SUM:
        tile = math.gcd(rows, POOL_TILE * POOL_TILE)
        if tile == 1:
            break
        x = F.avg_pool2d(x, (tile, 1))
        rows //= tile
    return x.mean(2, keepdim=True) if rows > 1 else x


class PlainNorm(nn.Module):
    """LayerNorm over the channels of (1, C, N, P), whose mean is 0 already; without gain and shift."""

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        self.channels, self.eps = norm.weight.shape[1], norm.eps

    def forward(self, x: Tensor) -> Tensor:
        variance = (x * x).mean(1, keepdim=True)  # (1, 1, N, P)
        return x * torch.rsqrt(variance + self.eps)


class PatchXFA(nn.Module):
    """XFA on (1, C, N, P) as 1x1 convolutions, elementwise products and means over rows; A stands for heads * D."""

    def __init__(self, module: MobileXFA, norm: ChannelNorm) -> None:
        super().__init__()
        heads = module.heads
        one_position = module.own_head[:heads]  # (heads, A) of 0/1: slots are position-major
        self.q = _absorb(norm, module.q)
        self.k = _absorb(norm, module.k)
        self.score = _conv(module.sum_heads.weight[:, :, 0, 0] * module.w_feature)  # (heads, A), of K
        self.v = _absorb(norm, _conv(module.w_v.t(), module.b_v[:heads].sum(0)))
        self.out = _centred(_conv(module.w_out.t(), module.b_out.flatten()))
        self.sum_heads = module.sum_heads
        self.expand_heads = _conv(one_position.t())
        self.register_buffer("floor_q", module.floor_q)
        self.register_buffer("floor_k", module.floor_k)
        # The mobile form's masks leave one position of each; its 1/N is in the mean here.
        pixels = module.w_context.sum(0, keepdim=True) * (module.tokens // POSITIONS)  # (1, heads, H, W)
        # Contiguous, as every parameter and buffer is: see check_constants in to_tflite.py.
        self.register_buffer("w_context", to_patches(pixels).contiguous())  # (1, heads, N, P)

    floor_q: Tensor
    floor_k: Tensor
    w_context: Tensor

    def _inverse_norm(self, x: Tensor, floor: Tensor) -> Tensor:
        return torch.rsqrt(torch.maximum(self.sum_heads(x * x), floor))  # (1, heads, N, P)

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, N, P) -> (1, C, N, P)."""
        q, k, v = self.q(x), self.k(x), self.v(x)  # (1, A, N, P)
        norm_q = self._inverse_norm(q, self.floor_q)  # (1, heads, N, P)
        norm_k = self._inverse_norm(k, self.floor_k)  # (1, heads, N, P)

        context_score = _row_mean(k * self.expand_heads(norm_k * self.w_context))  # (1, A, 1, P)
        feature_score = norm_k * self.score(k)  # (1, heads, N, P)
        value = _row_mean(v * self.expand_heads(feature_score))  # (1, A, 1, P)

        query_score = self.sum_heads(q * context_score) * norm_q  # (1, heads, N, P)
        out: Tensor = self.out(self.expand_heads(query_score) * value)
        return out


class PatchXFBlock(nn.Module):
    """Pre-norm transformer block on (1, C, N, P)."""

    def __init__(self, module: MobileXFBlock) -> None:
        super().__init__()
        norm1, norm2, mlp = module.norm1, module.norm2, module.mlp
        assert isinstance(norm1, ChannelNorm)
        assert isinstance(norm2, ChannelNorm)
        assert isinstance(mlp, nn.Sequential)
        self.norm1 = PlainNorm(norm1)
        self.attention = PatchXFA(module.attention, norm1)
        self.norm2 = PlainNorm(norm2)
        *layers, last = _absorb_first(norm2, mlp)
        self.mlp = nn.Sequential(*layers, _centred(last))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchXFStage(nn.Module):
    """MobileViT's wrapper; its blocks run on rows of patches."""

    def __init__(self, module: MobileXFStage) -> None:
        super().__init__()
        *blocks, norm = module.blocks
        assert isinstance(norm, ChannelNorm)
        assert isinstance(module.project_out, nn.Sequential)
        local, project_in = module.enter
        self.enter = nn.Sequential(local, _centred(project_in))
        self.blocks = nn.Sequential(
            *(PatchXFBlock(block) for block in blocks if isinstance(block, MobileXFBlock)), PlainNorm(norm)
        )
        # 1x1: it runs on rows of patches as well, where there are fewer channels to bring back.
        self.project_out = _absorb_first(norm, module.project_out)
        self.fuse = module.fuse

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)  # (1, C, H, W)
        tokens = self.project_out(self.blocks(to_patches(entered)))  # (1, C, N, P)
        out: Tensor = self.fuse(torch.cat((x, from_patches(tokens, entered.shape[2], entered.shape[3])), dim=1))
        return out


class DoublingDetectionBlock(nn.Module):
    """A detection block whose upsampling is concatenation."""

    def __init__(self, module: MobileDetectionBlock) -> None:
        super().__init__()
        self.squeeze, self.squeeze_coarser = module.squeeze, module.squeeze_coarser
        self.act, self.body = module.act, module.body

    def forward(self, x: Tensor, coarser: Tensor | None) -> Tensor:
        squeezed: Tensor = self.squeeze(x)
        if coarser is not None and self.squeeze_coarser is not None:
            squeezed = squeezed + double(self.squeeze_coarser(coarser))
        out: Tensor = self.body(self.act(squeezed))
        return out


def double(x: Tensor) -> Tensor:
    """Twice as high and wide, each pixel four times: (1, C, H, W) -> (1, C, 2H, 2W), without a transpose."""
    _, channels, height, width = x.shape
    x = x.permute(0, 2, 3, 1)  # (1, H, W, C)
    x = torch.cat((x, x), dim=3).reshape(1, height, 1, 2 * width * channels)
    x = torch.cat((x, x), dim=2).reshape(1, 2 * height, 2 * width, channels)
    return x.permute(0, 3, 1, 2)


def to_patches(x: Tensor) -> Tensor:
    """(1, C, H, W) -> (1, C, N, P), by one transpose of a channels-last tensor."""
    _, channels, height, width = x.shape
    rows, columns = height // PATCH, width // PATCH
    x = x.permute(0, 2, 3, 1).reshape(rows, PATCH, columns, PATCH * channels)
    return x.transpose(1, 2).reshape(1, rows * columns, POSITIONS, channels).permute(0, 3, 1, 2)


def from_patches(x: Tensor, height: int, width: int) -> Tensor:
    """(1, C, N, P) -> (1, C, H, W), the inverse of :func:`to_patches`."""
    channels = x.shape[1]
    rows, columns = height // PATCH, width // PATCH
    x = x.permute(0, 2, 3, 1).reshape(rows, columns, PATCH, PATCH * channels)
    return x.transpose(1, 2).reshape(1, height, width, channels).permute(0, 3, 1, 2)
