"""The mobile form: the reference model's function, rewritten with only what phones run natively.

:func:`to_mobile` makes it from any reference model. What changes, all of it exact algebra:

- The input is an RGB image of bytes, (1, H, W, 3); normalisation and layout change are the first ops. The
  scale is folded into the stem's weights, the mean is subtracted (not folded: the zero padding comes after it).
- BatchNorm is folded into the convolutions; linear layers are 1x1 convolutions on (1, C, H, W).
- Tokens are never unfolded. Everything but XFA's sums over tokens is the same for each pixel, and the sums
  are taken per position in the 2x2 patch by a constant mask inside a matmul. So there is no rank-6 reshape
  and nothing above rank 4; what is left of transposes is the second operand of three matmuls a block.
- In XFA, V is used only in a weighted sum over tokens. The sum is linear, so it is taken over x (matmul), and
  the projections to V and from the heads follow on the few summed vectors instead of on every token.
  lambda and both 1/N are folded into constants.
- LayerNorm runs along the channel axis, written as mean, subtract, square, rsqrt.
- In the detector and the segmenter, a 1x1 convolution over concatenated, upsampled maps is a sum of 1x1
  convolutions before the upsampling: cheaper, and without the concatenation.

fp16: each head's Q and K are scaled by a constant so that the sum of squares of any layer-normed input stays
below :data:`SQUARES_BOUND`; L2 normalisation cancels the constant. See ``_safe_scale``.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from xformer_mobile.layers import MV3, ConvNormAct, SqueezeExcite
from xformer_mobile.reference import (
    PATCH,
    XFA,
    AllMLPHead,
    Backbone,
    ClassifierHead,
    DetectionBlock,
    XFBlock,
    XFormer,
    XFStage,
    YOLOv3Head,
)
from xformer_mobile.spec import IMAGENET_MEAN, IMAGENET_STD, ModelConfig

__all__ = ["MobileXFA", "MobileXFormer", "to_mobile"]

POSITIONS = PATCH * PATCH

LONGEST_SUM = 256
POOL_TILE = 8
"""Global means over more than LONGEST_SUM values go by tiles of POOL_TILE x POOL_TILE."""

SQUARES_BOUND = 2.0**14
"""Upper bound that ``_safe_scale`` guarantees for the sums of squares; the largest fp16 number is 65504."""

SQUARES_FLOOR = 2.0**-14
"""The smallest normal fp16 number (6.1e-5): a sum of squares below it counts as this, in every precision."""


def to_mobile(model: XFormer) -> MobileXFormer:
    """Return the mobile form of ``model``, in eval mode and float32; ``model`` itself is left as it was.

    The result takes uint8 (1, H, W, 3) and returns what the reference form returns for that image after
    normalisation.
    """
    with torch.no_grad():
        return MobileXFormer(model).eval()


# ---- rewriting: one function for each kind of reference module -------------------------------------------


def _conv(
    weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> nn.Conv2d:
    """A float32 convolution with the given weight, (out, in/groups, k, k) or (out, in), of any float dtype."""
    if weight.dim() == 2:
        weight = weight[:, :, None, None]
    out_channels, in_channels, kernel, _ = weight.shape
    conv = nn.Conv2d(in_channels * groups, out_channels, kernel, stride, padding, groups=groups, bias=bias is not None)
    conv.weight = nn.Parameter(_constant(weight), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(_constant(bias), requires_grad=False)
    return conv


def _constant(tensor: Tensor) -> Tensor:
    """A float32 copy that shares nothing with the reference model."""
    return tensor.detach().to(torch.float32, copy=True).contiguous()


def _fold(block: ConvNormAct) -> tuple[Tensor, Tensor]:
    """The weight and bias of ``block``'s convolution with its BatchNorm folded in, in float64."""
    norm = block.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        block.conv.weight.double(),
        None,
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        norm.weight.double(),
        norm.bias.double(),
    )
    return weight.detach(), bias.detach()


@functools.singledispatch
def _rewrite(module: nn.Module) -> nn.Module:
    raise TypeError(f"no mobile form for {type(module).__name__}")


@_rewrite.register
def _(module: ConvNormAct) -> nn.Module:
    weight, bias = _fold(module)
    source = module.conv
    conv = _conv(weight, bias, stride=source.stride[0], padding=source.kernel_size[0] // 2, groups=source.groups)
    return conv if isinstance(module.act, nn.Identity) else nn.Sequential(conv, nn.SiLU())


@_rewrite.register
def _(module: nn.Linear) -> nn.Module:
    return _conv(module.weight.detach(), module.bias.detach())


@_rewrite.register
def _(module: nn.Conv2d) -> nn.Module:
    return _conv(
        module.weight.detach(),
        None if module.bias is None else module.bias.detach(),
        stride=module.stride[0],
        padding=module.kernel_size[0] // 2,
        groups=module.groups,
    )


@_rewrite.register
def _(module: nn.Sequential) -> nn.Module:
    return nn.Sequential(*(_rewrite(child) for child in module))


@_rewrite.register(nn.GELU)
@_rewrite.register(nn.SiLU)
def _(module: nn.Module) -> nn.Module:
    return type(module)()


# ---- modules ---------------------------------------------------------------------------------------------


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (1, C, H, W)."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = nn.Parameter(_constant(norm.weight)[None, :, None, None], requires_grad=False)
        self.bias = nn.Parameter(_constant(norm.bias)[None, :, None, None], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)  # (1, C, H, W)
        variance = (centred * centred).mean(1, keepdim=True)  # (1, 1, H, W)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


_rewrite.register(nn.LayerNorm)(ChannelNorm)


def global_mean(x: Tensor) -> Tensor:
    """The mean over H and W: (1, C, H, W) -> (1, C, 1, 1), in steps whose sums are short.

    A runtime may add one after the other in the tensor's own precision: over 160x160 values a single global pool of
    ONNX Runtime 1.31 was wrong by 1e-4 of the range in float32, and fp16 would be lost. Means of equally large tiles
    are exact algebra.
    """
    height, width = x.shape[2:]
    while height * width > LONGEST_SUM:
        tile = math.gcd(height, POOL_TILE), math.gcd(width, POOL_TILE)
        if tile == (1, 1):
            break
        x = F.avg_pool2d(x, tile)
        height, width = height // tile[0], width // tile[1]
    return x.mean((2, 3), keepdim=True)


class MobileSqueezeExcite(nn.Module):
    """Squeeze-excite with a global average pool."""

    def __init__(self, module: SqueezeExcite) -> None:
        super().__init__()
        self.gate = nn.Sequential(_rewrite(module.reduce), nn.SiLU(), _rewrite(module.expand), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.gate(global_mean(x))
        return out


_rewrite.register(SqueezeExcite)(MobileSqueezeExcite)


class MobileMV3(nn.Module):
    """MV3 with its BatchNorms folded."""

    def __init__(self, module: MV3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _rewrite(module.expand),
            _rewrite(module.depthwise),
            _rewrite(module.squeeze_excite),
            _rewrite(module.project),
        )
        self.residual = module.residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return x + out if self.residual else out


_rewrite.register(MV3)(MobileMV3)


def _safe_scale(weight: Tensor, bias: Tensor, norm: nn.LayerNorm) -> Tensor:
    """One factor a head that keeps ``|weight @ LN(x) + bias| ** 2`` below SQUARES_BOUND for every x.

    LN(x) = g * u + b with ``|u|**2 <= C``, so ``|weight @ LN(x) + bias| <= |weight * g| sqrt(C) + |weight @ b
    + bias|`` with the Frobenius norm. ``weight`` is (heads, D, C), ``bias`` (heads, D); returns (heads) powers
    of two, which change no mantissa.
    """
    gain, shift = norm.weight.detach().double(), norm.bias.detach().double()
    spread = (weight * gain).flatten(1).norm(dim=1) * gain.numel() ** 0.5
    offset = (weight @ shift + bias).norm(dim=1)
    bound = (spread + offset).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.exp2(torch.floor(torch.log2(SQUARES_BOUND**0.5 / bound)))


class MobileXFA(nn.Module):
    """XFA as 1x1 convolutions and matmuls on (1, C, H, W); ``S`` stands for heads * positions, T for H * W.

    Every token n belongs to one position p in its patch. ``mask[p, n]`` is 1 where it does, so that a matmul
    over all T tokens with masked weights is the sum over the tokens of one position, and a masked factor picks
    each token's own position again. The four-fold work is in matmuls that are S wide: a few percent of the
    projections that they replace.

    Args:
        module: the reference attention.
        norm: the LayerNorm in front of it, which bounds its input.
        grid: (h, w) of the grid of patches.
    """

    def __init__(self, module: XFA, norm: nn.LayerNorm) -> None:
        super().__init__()
        heads, dim = module.heads, module.head_dim
        grid_height, grid_width = module.w_context.shape[1:]
        self.heads, self.attention_dim, self.dim = heads, heads * dim, module.out.out_features
        self.slots, self.tokens = heads * POSITIONS, grid_height * grid_width * POSITIONS
        self.grid = (grid_height * PATCH, grid_width * PATCH)

        w_q, b_q, scale_q = self._projection(module.q, module, norm)
        w_k, b_k, scale_k = self._projection(module.k, module, norm)
        w_feature = module.w_feature.detach().double()
        # S_F's numerator is linear in K, so it is part of the same convolution: rows W_F W_K.
        w_score = torch.einsum("hd,hdc->hc", w_feature, w_k)
        b_score = torch.einsum("hd,hd->h", w_feature, b_k)
        self.q = _conv(w_q.flatten(0, 1), b_q.flatten())
        self.k = _conv(w_k.flatten(0, 1), b_k.flatten())
        self.score = _conv(w_score, b_score)
        self.w_feature = w_feature.flatten()  # (A): no buffer, since only forms made from this one read it
        # The sum of squares of each head, as a 1x1 convolution with a constant 0/1 kernel.
        head_of = torch.arange(self.attention_dim) // dim  # (A): the head of each feature
        self.sum_heads = _conv((head_of[None, :] == torch.arange(heads)[:, None]).float())
        self.register_buffer("floor_q", self._floor(scale_q, module.EPS))
        self.register_buffer("floor_k", self._floor(scale_k, module.EPS))

        mask = torch.zeros(POSITIONS, 1, *self.grid)  # (P, 1, H, W)
        for position in range(POSITIONS):
            mask[position, 0, position // PATCH :: PATCH, position % PATCH :: PATCH] = 1
        count = self.tokens // POSITIONS
        pixels = module.w_context.detach().double().repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
        temperature = module.temperature.detach().double()[:, None, None]
        self.register_buffer("w_context", _constant(mask * pixels * temperature / count))  # (P, heads, H, W)
        self.register_buffer("w_mean", _constant(mask / count))  # (P, 1, H, W)
        self.register_buffer("mask", mask)
        self.register_buffer("ones", torch.ones(self.tokens, 1))

        slot_head = torch.arange(self.slots) % heads  # slots are position-major: slot = p * heads + head
        own = (head_of[None, :] == slot_head[:, None]).float()  # (S, A)
        self.register_buffer("own_head", own)
        self.register_buffer("w_v", _constant(module.v.weight.t()))  # (C, A)
        self.register_buffer("b_v", own * _constant(module.v.bias))  # (S, A)
        self.register_buffer("w_out", _constant(module.out.weight.t()))  # (A, C)
        self.register_buffer("b_out", _constant(module.out.bias)[None, :, None, None])

    @staticmethod
    def _projection(linear: nn.Linear, module: XFA, norm: nn.LayerNorm) -> tuple[Tensor, Tensor, Tensor]:
        weight = linear.weight.detach().double().reshape(module.heads, module.head_dim, -1)  # (heads, D, C)
        bias = linear.bias.detach().double().reshape(module.heads, module.head_dim)  # (heads, D)
        scale = _safe_scale(weight, bias, norm)
        return weight * scale[:, None, None], bias * scale[:, None], scale

    @staticmethod
    def _floor(scale: Tensor, eps: float) -> Tensor:
        return (scale * eps).square().clamp_min(SQUARES_FLOOR).float()[None, :, None, None]  # (1, heads, 1, 1)

    w_context: Tensor
    w_mean: Tensor
    mask: Tensor
    ones: Tensor
    floor_q: Tensor
    floor_k: Tensor
    own_head: Tensor
    w_v: Tensor
    b_v: Tensor
    w_out: Tensor
    b_out: Tensor

    def _inverse_norm(self, x: Tensor, floor: Tensor) -> Tensor:
        return torch.rsqrt(torch.maximum(self.sum_heads(x * x), floor))  # (1, heads, H, W)

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, H, W) -> (1, C, H, W)."""
        slots, tokens = self.slots, self.tokens
        q, k = self.q(x), self.k(x)  # (1, A, H, W)
        norm_q = self._inverse_norm(q, self.floor_q)  # (1, heads, H, W)
        norm_k = self._inverse_norm(k, self.floor_k)  # (1, heads, H, W)

        by_context = (norm_k * self.w_context).reshape(slots, tokens)  # (P, heads, H, W) -> (S, T)
        context_score = torch.matmul(by_context, k.reshape(self.attention_dim, tokens).t())  # (S, A)
        query_score = torch.matmul(context_score * self.own_head, q.reshape(self.attention_dim, tokens))  # (S, T)
        query_score = query_score.reshape(POSITIONS, self.heads, *self.grid) * norm_q * self.mask

        feature_score = (self.score(x) * norm_k * self.w_mean).reshape(slots, tokens)  # (S, T)
        summed = torch.matmul(feature_score, x.reshape(self.dim, tokens).t())  # (S, C)
        total = torch.matmul(feature_score, self.ones)  # (S, 1)
        value = torch.matmul(summed, self.w_v) * self.own_head + total * self.b_v  # (S, A)
        context = torch.matmul(value, self.w_out)  # (S, C): one vector for each head and position

        out = torch.matmul(context.t(), query_score.reshape(slots, tokens))  # (C, T)
        return out.reshape(1, self.dim, *self.grid) + self.b_out


class MobileXFBlock(nn.Module):
    """Pre-norm transformer block on (1, C, H, W)."""

    def __init__(self, module: XFBlock) -> None:
        super().__init__()
        self.norm1 = _rewrite(module.norm1)
        self.attention = MobileXFA(module.attention, module.norm1)
        self.norm2 = _rewrite(module.norm2)
        self.mlp = _rewrite(module.mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


_rewrite.register(XFBlock)(MobileXFBlock)


class MobileXFStage(nn.Module):
    """MobileViT's wrapper without unfold and fold."""

    def __init__(self, module: XFStage) -> None:
        super().__init__()
        self.enter = nn.Sequential(_rewrite(module.local), _rewrite(module.project_in))
        self.blocks = nn.Sequential(*(_rewrite(block) for block in module.blocks), _rewrite(module.norm))
        self.project_out = _rewrite(module.project_out)
        self.fuse = _rewrite(module.fuse)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.project_out(self.blocks(self.enter(x)))
        out: Tensor = self.fuse(torch.cat((x, tokens), dim=1))
        return out


_rewrite.register(XFStage)(MobileXFStage)


class MobileBackbone(nn.Module):
    """Bytes (1, H, W, 3) -> features at strides 4, 8, 16 and 32."""

    def __init__(self, module: Backbone) -> None:
        super().__init__()
        weight, bias = _fold(module.stem)
        std = torch.tensor(IMAGENET_STD, dtype=torch.float64)[None, :, None, None]
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN)[None, :, None, None])
        self.stem = nn.Sequential(_conv(weight / (255 * std), bias, stride=2, padding=1), nn.SiLU())
        self.stage1 = _rewrite(module.stage1)
        self.stage2 = _rewrite(module.stage2)
        self.stages = nn.ModuleList(_rewrite(stage) for stage in module.stages)

    mean: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = image.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean  # (1, 3, H, W)
        features = [self.stage2(self.stage1(self.stem(x)))]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return tuple(features)


class MobileClassifierHead(nn.Module):
    """1x1 convolution, global average pool, and the linear layer as a 1x1 convolution."""

    def __init__(self, module: ClassifierHead) -> None:
        super().__init__()
        self.conv = _rewrite(module.conv)
        self.fc = _rewrite(module.fc)
        self.num_classes = module.fc.out_features

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor]:
        pooled = global_mean(self.conv(features[-1]))  # (1, head, 1, 1)
        return (self.fc(pooled).reshape(1, self.num_classes),)


class MobileDetectionBlock(nn.Module):
    """A detection block over a feature map and, unless it is the coarsest, the upsampled coarser one.

    The first 1x1 convolution runs on each part by itself, on the coarser one before it is upsampled.
    """

    def __init__(self, module: DetectionBlock, coarser_channels: int) -> None:
        super().__init__()
        weight, bias = _fold(module.squeeze1)  # over (coarser, own) channels
        self.squeeze = _conv(weight[:, coarser_channels:], bias)
        self.squeeze_coarser = _conv(weight[:, :coarser_channels]) if coarser_channels else None
        self.act = nn.SiLU()
        self.body = nn.Sequential(
            _rewrite(module.widen1), _rewrite(module.squeeze2), _rewrite(module.widen2), _rewrite(module.squeeze3)
        )

    def forward(self, x: Tensor, coarser: Tensor | None) -> Tensor:
        squeezed = self.squeeze(x)
        if coarser is not None and self.squeeze_coarser is not None:
            squeezed = squeezed + F.interpolate(self.squeeze_coarser(coarser), scale_factor=2.0, mode="nearest")
        out: Tensor = self.body(self.act(squeezed))
        return out


class MobileYOLOv3Head(nn.Module):
    """YOLOv3's neck and head; returns the raw maps, finest first."""

    def __init__(self, module: YOLOv3Head) -> None:
        super().__init__()
        laterals = [_rewrite(lateral) for lateral in module.laterals]
        self.laterals = nn.ModuleList([*laterals, nn.Identity()])
        blocks = [block for block in module.blocks if isinstance(block, DetectionBlock)]
        widths = [lateral.conv.out_channels for lateral in module.laterals if isinstance(lateral, ConvNormAct)]
        self.blocks = nn.ModuleList(map(MobileDetectionBlock, blocks, [*widths, 0]))
        self.outputs = nn.ModuleList(
            nn.Sequential(OrderedDict(bridge=_rewrite(bridge), predict=_rewrite(predictor)))
            for bridge, predictor in zip(module.bridges, module.predictors, strict=True)
        )

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps: list[Tensor] = []
        coarser: Tensor | None = None
        for scale in reversed(range(len(self.blocks))):
            x = self.blocks[scale](features[scale + 1], coarser)
            maps.append(self.outputs[scale](x))
            coarser = self.laterals[scale - 1](x) if scale else None
        return tuple(reversed(maps))


class MobileAllMLPHead(nn.Module):
    """SegFormer's decoder with the fusion folded into each scale's linear layer.

    Bilinear upsampling is linear and keeps constants, so the 1x1 fusion over the concatenated maps is a sum,
    and its part for one scale, times that scale's linear layer, is one 1x1 convolution at that scale.
    """

    def __init__(self, module: AllMLPHead) -> None:
        super().__init__()
        weight, bias = _fold(module.fuse)  # (width, scales * width, 1, 1)
        linears = [linear for linear in module.linears if isinstance(linear, nn.Linear)]
        parts = weight.flatten(1).chunk(len(linears), dim=1)
        for linear, part in zip(linears, parts, strict=True):
            bias = bias + part @ linear.bias.detach().double()
        self.scales = nn.ModuleList(
            _conv(part @ linear.weight.detach().double(), None if scale else bias)
            for scale, (linear, part) in enumerate(zip(linears, parts, strict=True))
        )
        self.act = nn.SiLU()
        self.classifier = _rewrite(module.classifier)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor]:
        fused = self.scales[0](features[0])  # (1, width, H/4, W/4)
        for scale, x in zip(list(self.scales)[1:], features[1:], strict=True):
            fused = fused + F.interpolate(scale(x), size=fused.shape[2:], mode="bilinear", align_corners=False)
        return (self.classifier(self.act(fused)),)


_rewrite.register(ClassifierHead)(MobileClassifierHead)
_rewrite.register(YOLOv3Head)(MobileYOLOv3Head)
_rewrite.register(AllMLPHead)(MobileAllMLPHead)


class MobileXFormer(nn.Module):
    """The mobile form of a whole model; see :func:`to_mobile`.

    Takes uint8 (1, H, W, 3), RGB, of ``config.image_size``; returns the tuple of raw float32 outputs of
    :meth:`~xformer_mobile.spec.ModelConfig.output_shapes`.
    """

    def __init__(self, model: XFormer) -> None:
        super().__init__()
        self.config: ModelConfig = model.config
        self.backbone = MobileBackbone(model.backbone)
        self.head = _rewrite(model.head)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = self.head(self.backbone(image))
        return out
