"""The form of the model for ONNX: the mobile form whose XF blocks have a token in each row.

ONNX's LayerNormalization is over the last axis, and in int8 ONNX Runtime's convolutions are channels-last. So what runs
from block to block is (1, H, W, C) here, and attention's queries and keys are (T, A); its scores, which are small, are
as in the mobile form. :func:`to_token_rows` makes it from the mobile form's own weights; all of it is exact algebra.
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

__all__ = ["RowNorm", "RowXFA", "RowXFBlock", "RowXFStage", "to_token_rows"]


def to_token_rows(model: MobileXFormer) -> nn.Module:
    """Return the form of ``model`` with tokens in rows, with the same interface; ``model`` is left as it was."""
    rules = {ChannelNorm: RowNorm, MobileXFA: RowXFA, MobileXFBlock: RowXFBlock, MobileXFStage: RowXFStage}
    with torch.no_grad():
        return replace_modules(model, rules).eval()


def _channels_last(x: Tensor) -> Tensor:
    """(1, C, H, W) -> (1, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    """(1, H, W, C) -> (1, C, H, W)."""
    return x.permute(0, 3, 1, 2)


class RowNorm(nn.Module):
    """LayerNorm over the channels of (1, H, W, C)."""

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = nn.Parameter(norm.weight.flatten(), requires_grad=False)
        self.bias = nn.Parameter(norm.bias.flatten(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RowXFA(nn.Module):
    """XFA on (1, H, W, C); ``A`` stands for heads * D, ``S`` for heads * positions, ``T`` for H * W."""

    def __init__(self, module: MobileXFA) -> None:
        super().__init__()
        self.heads, self.slots, self.tokens = module.heads, module.slots, module.tokens
        self.attention_dim, self.dim, self.grid = module.attention_dim, module.dim, module.grid
        self.q, self.k, self.score = module.q, module.k, module.score
        for name, values in module.named_buffers(recurse=False):
            self.register_buffer(name, values)
        self.register_buffer("sum_heads", module.sum_heads.weight.detach()[:, :, 0, 0].contiguous())  # (heads, A)
        self.register_buffer("b_out", module.b_out.flatten())

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
    sum_heads: Tensor

    def _inverse_norm(self, rows: Tensor, floor: Tensor) -> Tensor:
        squares = torch.matmul(self.sum_heads, (rows * rows).t())  # (heads, T)
        return torch.rsqrt(torch.maximum(squares.reshape(1, self.heads, *self.grid), floor))  # (1, heads, H, W)

    def forward(self, x: Tensor) -> Tensor:
        """(1, H, W, C) -> (1, H, W, C)."""
        slots, tokens = self.slots, self.tokens
        image = _channels_first(x)
        q = _channels_last(self.q(image)).reshape(tokens, self.attention_dim)
        k = _channels_last(self.k(image)).reshape(tokens, self.attention_dim)
        norm_q = self._inverse_norm(q, self.floor_q)  # (1, heads, H, W)
        norm_k = self._inverse_norm(k, self.floor_k)  # (1, heads, H, W)

        by_context = (norm_k * self.w_context).reshape(slots, tokens)  # (P, heads, H, W) -> (S, T)
        context_score = torch.matmul(by_context, k)  # (S, A)
        query_score = torch.matmul(context_score * self.own_head, q.t())  # (S, T)
        query_score = query_score.reshape(POSITIONS, self.heads, *self.grid) * norm_q * self.mask

        feature_score = (self.score(image) * norm_k * self.w_mean).reshape(slots, tokens)  # (S, T)
        summed = torch.matmul(feature_score, x.reshape(tokens, self.dim))  # (S, C)
        total = torch.matmul(feature_score, self.ones)  # (S, 1)
        value = torch.matmul(summed, self.w_v) * self.own_head + total * self.b_v  # (S, A)
        context = torch.matmul(value, self.w_out)  # (S, C): one vector for each head and position

        out = torch.matmul(query_score.reshape(slots, tokens).t(), context)  # (T, C)
        return out.reshape(1, *self.grid, self.dim) + self.b_out


class RowXFBlock(nn.Module):
    """Pre-norm transformer block on (1, H, W, C)."""

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
        rows = self.blocks(_channels_last(self.enter(x)))  # (1, H, W, C)
        out: Tensor = self.fuse(torch.cat((x, self.project_out(_channels_first(rows))), dim=1))
        return out
