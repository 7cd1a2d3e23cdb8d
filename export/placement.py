"""Which parts of the model compute in int8 and which stay float: one decision on the torch modules, for every format.

Convolutions with trained weights are int8, and so is what stands between them: activations, sums, gates, pooling,
concatenation. Float stay, by their kind:

- LayerNorm, GELU and the sums of an XF block: what runs from block to block is never rounded to 8 bits;
- XFA's norms, score sums, lambda and products of activations;
- the normalization of the input, which in ONNX is part of the first convolution;
- a detector's predictions and the activations that they are made of: 8 bits for a box coordinate or a score shift boxes
  and make scores tie, which was half of the mAP that int8 lost.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from xformer_export.channels_last import PatchXFA, PatchXFBlock, PlainNorm
from xformer_mobile.errors import UsageError
from xformer_mobile.mobile import ChannelNorm, MobileBackbone, MobileXFA, MobileXFBlock

__all__ = ["FLOAT_MODULES", "Placement", "weight_digest"]

FLOAT_MODULES: tuple[type[nn.Module], ...] = (
    ChannelNorm,
    MobileBackbone,
    MobileXFA,
    MobileXFBlock,
    PatchXFA,
    PatchXFBlock,
    PlainNorm,
    nn.GELU,
)
"""What a module of these classes does itself is float; the modules in it decide for themselves."""

FLOAT_CONVOLUTIONS = ("sum_heads", "expand_heads", "score", "predict")
"""Of XFA: kernels of zeros and ones, and the query feature score. Of a detector: the last ones."""

FLOAT_ACTIVATIONS = re.compile(r"head\.outputs\.\d+\.bridge\.1")
"""The paths of a detector's activations that ``predict`` reads."""


@dataclass(frozen=True)
class Placement:
    """Where a form of the model computes in int8.

    ``modules`` has every module's path and whether what the module does itself is int8; ``convolutions`` those of the
    convolutions, by :func:`weight_digest` of their weights; ``kept`` the paths that stay float with all below them.
    """

    modules: Mapping[str, bool]
    convolutions: Mapping[bytes, str]
    kept: tuple[str, ...] = ()

    @classmethod
    def of(cls, module: nn.Module, keep_float: Collection[str] = ()) -> Placement:
        """The decision for a form of the model; what is at or below the paths of ``keep_float`` is float too.

        Raises:
            UsageError: a path of ``keep_float`` that the model does not have.
        """
        named = dict(module.named_modules())
        unknown = [path for path in keep_float if path not in named]
        if unknown:
            raise UsageError(f"the model has no part {unknown[0]!r}")
        modules = {
            path: not isinstance(part, FLOAT_MODULES)
            and path.rpartition(".")[2] not in FLOAT_CONVOLUTIONS
            and not FLOAT_ACTIVATIONS.fullmatch(path)
            and not _is_below(path, keep_float)
            for path, part in named.items()
        }
        convolutions = {
            weight_digest(part.weight.detach().numpy()): path
            for path, part in named.items()
            if isinstance(part, nn.Conv2d)
        }
        return cls(modules, convolutions, tuple(keep_float))

    def is_int8(self, path: str) -> bool:
        """Whether what the module at ``path`` does itself is int8; what is no module's is float."""
        return self.modules.get(path, False)

    def is_kept(self, path: str) -> bool:
        """Whether the module at ``path`` is to stay float, its weights too."""
        return _is_below(path, self.kept)


def _is_below(path: str, paths: Collection[str]) -> bool:
    return any(path == above or path.startswith(f"{above}.") for above in paths)


def weight_digest(values: object) -> bytes:
    """What identifies a convolution's float32 weights, in whatever order a format keeps them."""
    flat = np.asarray(values, dtype=np.float32).reshape(-1)
    return hashlib.sha256(np.sort(flat).tobytes()).digest()
