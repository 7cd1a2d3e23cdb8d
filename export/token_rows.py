"""The form of the XF stages for ONNX: a token in each row, and the tokens of one position side by side.

ONNX's LayerNormalization is over the last axis, and in int8 ONNX Runtime's convolutions are channels-last. So what runs
from block to block is (1, P, N, C) here: the P positions in a patch, and of each its N patches. XFA's sums over the
tokens of one position are then plain matmuls, without the mobile form's masks, whose zeros cost four times the work.
:func:`to_token_rows` makes it from the mobile form's own weights; all of it is exact algebra.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xformer_export.program import replace_modules
from xformer_mobile.mobile import (
    POSITIONS,
    ChannelNorm,
    MobileXFA,
    MobileXFBlock,
    MobileXFormer,
    MobileXFStage,
)
from xformer_mobile.reference import PATCH

__all__ = ["RowNorm", "RowXFA", "RowXFBlock", "RowXFStage", "from_rows", "to_rows", "to_token_rows"]


def to_token_rows(model: MobileXFormer) -> nn.Module:
    """Return the form of ``model`` with tokens in rows, with the same interface; ``model`` is left as it was."""
    rules = {ChannelNorm: RowNorm, MobileXFA: RowXFA, MobileXFBlock: RowXFBlock, MobileXFStage: RowXFStage}
    with torch.no_grad():
        return replace_modules(model, rules).eval()


def to_rows(x: Tensor) -> Tensor:
    """(1, C, H, W) -> (1, P, N, C)."""
    _, channels, height, width = x.shape
    rows, columns = height // PATCH, width // PATCH
    x = x.permute(0, 2, 3, 1).reshape(rows, PATCH, columns, PATCH * channels)
    x = x.transpose(0, 1).reshape(PATCH, rows * columns, PATCH, channels)
    return x.transpose(1, 2).reshape(1, POSITIONS, rows * columns, channels)


def from_rows(x: Tensor, height: int, width: int) -> Tensor:
    """(1, P, N, C) -> (1, C, H, W), the inverse of :func:`to_rows`."""
    channels = x.shape[3]
    rows, columns = height // PATCH, width // PATCH
    x = x.reshape(PATCH, PATCH, rows * columns, channels).transpose(1, 2)
    x = x.reshape(PATCH, rows, columns, PATCH * channels).transpose(0, 1)
    return _channels_first(x.reshape(1, height, width, channels))


def _channels_first(x: Tensor) -> Tensor:
    """(1, P, N, C) -> (1, C, P, N): to a 1x1 convolution, positions and patches are a height and a width."""
    return x.permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    """(1, C, P, N) -> (1, P, N, C)."""
    return x.permute(0, 2, 3, 1)


class RowNorm(nn.Module):
    """LayerNorm over the channels of (1, P, N, C)."""

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = nn.Parameter(norm.weight.flatten(), requires_grad=False)
        self.bias = nn.Parameter(norm.bias.flatten(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RowXFA(nn.Module):
    """XFA on (1, P, N, C), one batch of matmuls for the P positions; ``A`` stands for heads * D."""

    def __init__(self, module: MobileXFA) -> None:
        super().__init__()
        heads = module.heads
        self.heads, self.attention_dim, self.dim = heads, module.attention_dim, module.dim
        self.patches = module.tokens // POSITIONS
        self.q, self.k = module.q, module.k
        # The mobile form's masks leave one position of each; its 1/N of the second sum is in the score here.
        context = module.w_context.sum(0)[:, ::PATCH, ::PATCH]  # (heads, h, w)
        score = module.score
        assert score.bias is not None
        self.register_buffer("w_context", context.flatten(1).contiguous())  # (heads, N)
        self.register_buffer("w_score", score.weight.detach().flatten(1) / self.patches)  # (heads, C)
        self.register_buffer("b_score", score.bias.detach()[:, None] / self.patches)  # (heads, 1)
        self.register_buffer("sum_heads", module.sum_heads.weight.detach().flatten(1))  # (heads, A)
        self.register_buffer("floor_q", module.floor_q.reshape(heads, 1))
        self.register_buffer("floor_k", module.floor_k.reshape(heads, 1))
        self.register_buffer("own_head", module.own_head[:heads].clone())  # (heads, A): slots are position-major
        self.register_buffer("b_v", module.b_v[:heads].clone())  # (heads, A)
        self.register_buffer("ones", torch.ones(self.patches, 1))
        self.register_buffer("w_v", module.w_v)  # (C, A)
        self.register_buffer("w_out", module.w_out)  # (A, C)
        self.register_buffer("b_out", module.b_out.flatten())

    w_context: Tensor
    w_score: Tensor
    b_score: Tensor
    sum_heads: Tensor
    floor_q: Tensor
    floor_k: Tensor
    own_head: Tensor
    b_v: Tensor
    ones: Tensor
    w_v: Tensor
    w_out: Tensor
    b_out: Tensor

    def _inverse_norm(self, x: Tensor, floor: Tensor) -> Tensor:
        squares = torch.matmul(self.sum_heads, (x * x).transpose(1, 2))
        return torch.rsqrt(torch.maximum(squares, floor))  # (P, heads, N)

    def _flat(self, x: Tensor) -> Tensor:
        """(1, A, P, N) -> (P, N, A)."""
        return _channels_last(x).reshape(POSITIONS, self.patches, self.attention_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(1, P, N, C) -> (1, P, N, C)."""
        image, rows = _channels_first(x), x.reshape(POSITIONS, self.patches, self.dim)
        q, k = self._flat(self.q(image)), self._flat(self.k(image))  # (P, N, A)
        norm_q = self._inverse_norm(q, self.floor_q)  # (P, heads, N)
        norm_k = self._inverse_norm(k, self.floor_k)  # (P, heads, N)

        context_score = torch.matmul(norm_k * self.w_context, k)  # (P, heads, A)
        query_score = torch.matmul(context_score * self.own_head, q.transpose(1, 2)) * norm_q  # (P, heads, N)

        feature_score = (torch.matmul(self.w_score, rows.transpose(1, 2)) + self.b_score) * norm_k  # (P, heads, N)
        summed = torch.matmul(feature_score, rows)  # (P, heads, C)
        total = torch.matmul(feature_score, self.ones)  # (P, heads, 1)
        value = torch.matmul(summed, self.w_v) * self.own_head + total * self.b_v  # (P, heads, A)
        context = torch.matmul(value, self.w_out)  # (P, heads, C): one vector for each head and position

        out = torch.matmul(query_score.transpose(1, 2), context) + self.b_out  # (P, N, C)
        return out.reshape(x.shape)


class RowXFBlock(nn.Module):
    """Pre-norm transformer block on (1, P, N, C)."""

    def __init__(self, module: MobileXFBlock) -> None:
        super().__init__()
        self.norm1, self.attention = module.norm1, module.attention
        self.norm2, self.mlp = module.norm2, module.mlp

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + _channels_last(self.mlp(_channels_first(self.norm2(x))))
        return out


class RowXFStage(nn.Module):
    """MobileViT's wrapper; its blocks run on rows of tokens."""

    def __init__(self, module: MobileXFStage) -> None:
        super().__init__()
        self.enter, self.blocks = module.enter, module.blocks
        self.project_out, self.fuse = module.project_out, module.fuse

    def forward(self, x: Tensor) -> Tensor:
        rows = self.blocks(to_rows(self.enter(x)))  # (1, P, N, C)
        tokens = self.project_out(from_rows(rows, x.shape[2], x.shape[3]))  # (1, C, H, W)
        out: Tensor = self.fuse(torch.cat((x, tokens), dim=1))
        return out
