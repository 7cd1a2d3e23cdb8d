"""The reference form of XFormer: the article's own words in plain PyTorch. It is trained; it is the truth.

Source: "Lightweight Vision Transformer with Cross Feature Attention", arXiv 2207.07268. The wrapper around
the transformer blocks (unfold, blocks, fold, fusion) is MobileViT's, arXiv 2110.02178. Heads: YOLOv3,
arXiv 1804.02767, with the 96-channel neck usual for MobileNets; SegFormer's all-MLP decoder, arXiv 2105.15203.

Read :mod:`xformer_mobile.mobile` beside this file: it is the same function, rewritten for export.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xformer_mobile.layers import MV3, ConvNormAct
from xformer_mobile.spec import IMAGENET_MEAN, IMAGENET_STD, ModelConfig, Stage, Variant

__all__ = [
    "XFA",
    "AllMLPHead",
    "Backbone",
    "ClassifierHead",
    "DetectionBlock",
    "XFBlock",
    "XFStage",
    "XFormer",
    "YOLOv3Head",
    "fold_patches",
    "normalize",
    "unfold_patches",
]

PATCH = 2
"""Side in pixels of the patches that the transformer blocks unfold; a patch has PATCH * PATCH positions."""


def normalize(image: Tensor) -> Tensor:
    """Bytes (B, H, W, 3) -> the reference form's input: (B, 3, H, W) float32, ImageNet mean and std."""
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    std = torch.tensor(IMAGENET_STD)[:, None, None]
    return (image.permute(0, 3, 1, 2).float() / 255 - mean) / std


def unfold_patches(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, P, N, C): the P = 4 positions in a 2x2 patch, the N = HW/4 patches."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)  # (B, C, h, py, w, px)
    return x.permute(0, 3, 5, 2, 4, 1).reshape(batch, PATCH * PATCH, -1, channels)  # (B, P, N, C)


def fold_patches(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, P, N, C) -> (B, C, H, W): the inverse of :func:`unfold_patches`."""
    batch, _, _, channels = tokens.shape
    x = tokens.reshape(batch, PATCH, PATCH, height // PATCH, width // PATCH, channels)  # (B, py, px, h, w, C)
    return x.permute(0, 5, 3, 1, 4, 2).reshape(batch, channels, height, width)  # (B, C, H, W)


class XFA(nn.Module):
    """Cross feature attention: softmax-free, linear in the number of tokens.

    The article prints its equations as pictures. Its prose fixes: Q and K are L2-normalised along the
    features; a kernel W_C makes a context score of K along the tokens, a kernel W_F a feature score along
    the features; the attention map is formed along the features, scaled by a learnable temperature lambda,
    without softmax, at a cost linear in N. The reading here, per head and per position in the patch::

        Qn = Q / |Q|,  Kn = K / |K|                (N, D)
        S_C = Kn^T W_C / N                         (D)     context score
        S_F = Kn W_F                               (N)     feature score
        XFA = lambda * Qn (S_C S_F^T) V / N        (N, D)  evaluated as (Qn S_C) (S_F^T V): O(N D)

    The sums over tokens are means (the two 1/N), so that a checkpoint keeps its scale at another input size.
    W_C lives on the grid of patches that the model was built with; see
    :func:`xformer_mobile.weights.resample_context`. docs/model.md says why this reading, and what else the
    prose allows; a correction would change this class and its counterpart ``MobileXFA``.

    Args:
        dim: width of the tokens.
        attention_dim: width D of Q, K and V over all heads.
        heads: number of heads.
        grid: (height, width) of the grid of patches; N = height * width.
    """

    EPS = 1e-6
    """Lower bound of the norms that Q and K are divided by."""

    def __init__(self, dim: int, attention_dim: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = attention_dim // heads
        self.q = nn.Linear(dim, attention_dim)
        self.k = nn.Linear(dim, attention_dim)
        self.v = nn.Linear(dim, attention_dim)
        self.out = nn.Linear(attention_dim, dim)
        self.w_context = nn.Parameter(torch.ones(heads, *grid))  # W_C: (heads, h, w)
        self.w_feature = nn.Parameter(torch.randn(heads, self.head_dim))  # W_F: (heads, D)
        self.temperature = nn.Parameter(torch.ones(heads))  # lambda: (heads)

    def _split_heads(self, x: Tensor) -> Tensor:
        batch, positions, tokens, _ = x.shape
        return x.reshape(batch, positions, tokens, self.heads, self.head_dim).transpose(2, 3)  # (B, P, heads, N, D)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, N, dim) -> (B, P, N, dim)."""
        count = x.shape[2]
        q = F.normalize(self._split_heads(self.q(x)), dim=-1, eps=self.EPS)  # (B, P, heads, N, D)
        k = F.normalize(self._split_heads(self.k(x)), dim=-1, eps=self.EPS)  # (B, P, heads, N, D)
        v = self._split_heads(self.v(x))  # (B, P, heads, N, D)
        context_score = torch.einsum("bphnd,hn->bphd", k, self.w_context.flatten(1)) / count
        feature_score = torch.einsum("bphnd,hd->bphn", k, self.w_feature)
        query_score = torch.einsum("bphnd,bphd->bphn", q, context_score)
        context = torch.einsum("bphn,bphnd->bphd", feature_score, v) / count
        attended = torch.einsum("h,bphn,bphd->bphnd", self.temperature, query_score, context)
        out: Tensor = self.out(attended.transpose(2, 3).flatten(3))  # (B, P, N, heads * D) -> (B, P, N, dim)
        return out


class XFBlock(nn.Module):
    """Pre-norm transformer block: ``x + XFA(LN(x))``, then ``x + MLP(LN(x))`` with GELU. Keeps (B, P, N, dim)."""

    def __init__(self, dim: int, mlp_ratio: int, attention_dim: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = XFA(dim, attention_dim, heads, grid)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * mlp_ratio), nn.GELU(), nn.Linear(dim * mlp_ratio, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class XFStage(nn.Module):
    """MobileViT's wrapper around XF blocks: local convolution, unfold, blocks, fold, fusion. Keeps (B, C, H, W)."""

    def __init__(self, stage: Stage, variant: Variant, grid: tuple[int, int]) -> None:
        super().__init__()
        channels, dim = stage.channels, stage.dim
        self.local = ConvNormAct(channels, channels, 3)
        self.project_in = nn.Conv2d(channels, dim, 1, bias=False)
        self.blocks = nn.Sequential(
            *(XFBlock(dim, stage.mlp_ratio, variant.attention_dim, variant.heads, grid) for _ in range(stage.blocks))
        )
        self.norm = nn.LayerNorm(dim)
        self.project_out = ConvNormAct(dim, channels)
        self.fuse = ConvNormAct(2 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, _, height, width = x.shape
        tokens = unfold_patches(self.project_in(self.local(x)))  # (B, P, N, dim)
        tokens = self.norm(self.blocks(tokens))
        folded = self.project_out(fold_patches(tokens, height, width))  # (B, C, H, W)
        out: Tensor = self.fuse(torch.cat((x, folded), dim=1))
        return out


class Backbone(nn.Module):
    """The network up to its head: (B, 3, H, W) -> features at strides 4, 8, 16 and 32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        variant, ratio = config.variant, config.variant.expand_ratio
        self.stem = ConvNormAct(3, variant.stem, 3, stride=2)
        self.stage1 = MV3(variant.stem, variant.stage1, expand_ratio=ratio)
        self.stage2 = nn.Sequential(
            MV3(variant.stage1, variant.stage2, stride=2, expand_ratio=ratio),
            MV3(variant.stage2, variant.stage2, expand_ratio=ratio),
            MV3(variant.stage2, variant.stage2, expand_ratio=ratio),
        )
        channels = (variant.stage2, *(stage.channels for stage in variant.stages))
        self.stages = nn.ModuleList(
            nn.Sequential(
                MV3(channels[index], stage.channels, stride=2, expand_ratio=ratio),
                XFStage(stage, variant, config.image_size.at_stride((8 << index) * PATCH)),
            )
            for index, stage in enumerate(variant.stages)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        stride4 = self.stage2(self.stage1(self.stem(x)))
        stride8 = self.stages[0](stride4)
        stride16 = self.stages[1](stride8)
        stride32 = self.stages[2](stride16)
        return stride4, stride8, stride16, stride32


class ClassifierHead(nn.Module):
    """1x1 convolution, global average pool, linear: the stride-32 features -> logits (B, classes)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.conv = ConvNormAct(config.variant.feature_channels[-1], config.variant.head)
        self.fc = nn.Linear(config.variant.head, config.num_classes)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor]:
        pooled = self.conv(features[-1]).mean((2, 3))  # (B, head)
        return (self.fc(pooled),)


class DetectionBlock(nn.Module):
    """YOLOv3's five convolutions between 1x1 (to ``channels``) and 3x3 (to twice that)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.squeeze1 = ConvNormAct(in_channels, channels)
        self.widen1 = ConvNormAct(channels, 2 * channels, 3)
        self.squeeze2 = ConvNormAct(2 * channels, channels)
        self.widen2 = ConvNormAct(channels, 2 * channels, 3)
        self.squeeze3 = ConvNormAct(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.squeeze3(self.widen2(self.squeeze2(self.widen1(self.squeeze1(x)))))
        return out


class YOLOv3Head(nn.Module):
    """YOLOv3's neck and head over strides 8, 16 and 32.

    Returns, finest first, one map a scale: (B, anchors * (5 + classes), H/stride, W/stride), where each
    anchor has (tx, ty, tw, th, objectness, classes...) as logits.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.variant.neck
        features = config.variant.feature_channels[1:]
        coarsest = len(features) - 1
        self.blocks = nn.ModuleList(
            DetectionBlock(channels if scale == coarsest else channels + width, width)
            for scale, channels in enumerate(features)
        )
        self.laterals = nn.ModuleList(ConvNormAct(width, width) for _ in range(coarsest))
        self.bridges = nn.ModuleList(ConvNormAct(width, width, 3) for _ in features)
        self.predictors = nn.ModuleList(
            nn.Conv2d(width, len(anchors) * (5 + config.num_classes), 1) for anchors in config.anchors
        )

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _, stride8, stride16, stride32 = features
        top = self.blocks[2](stride32)
        middle = self.blocks[1](torch.cat((self._up(self.laterals[1](top)), stride16), dim=1))
        bottom = self.blocks[0](torch.cat((self._up(self.laterals[0](middle)), stride8), dim=1))
        return tuple(
            predict(bridge(x))
            for predict, bridge, x in zip(self.predictors, self.bridges, (bottom, middle, top), strict=True)
        )

    @staticmethod
    def _up(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class AllMLPHead(nn.Module):
    """SegFormer's decoder over strides 4 to 32: a linear layer a scale, bilinear up to stride 4, fuse, predict.

    Returns logits (B, classes, H/4, W/4).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.variant.decoder
        features = config.variant.feature_channels
        self.linears = nn.ModuleList(nn.Linear(channels, width) for channels in features)
        self.fuse = ConvNormAct(len(features) * width, width)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(width, config.num_classes, 1)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor]:
        size = features[0].shape[2:]
        maps = [
            F.interpolate(
                linear(x.movedim(1, -1)).movedim(-1, 1),  # linear over channels: (B, width, h, w)
                size=size,
                mode="bilinear",
                align_corners=False,
            )
            for linear, x in zip(self.linears, features, strict=True)
        ]
        fused = self.fuse(torch.cat(maps, dim=1))  # (B, width, H/4, W/4)
        return (self.classifier(self.dropout(fused)),)


HEADS: dict[str, type[ClassifierHead] | type[YOLOv3Head] | type[AllMLPHead]] = {
    "classify": ClassifierHead,
    "detect": YOLOv3Head,
    "segment": AllMLPHead,
}


class XFormer(nn.Module):
    """XFormer with the head of one task.

    Takes a normalised float image (B, 3, H, W) of ``config.image_size`` and returns a tuple of raw outputs,
    in the order and with the shapes of :meth:`~xformer_mobile.spec.ModelConfig.output_shapes`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.head = HEADS[config.task](config)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = self.head(self.backbone(x))
        return out
