"""The evaluator of Core ML packages: each op by itself, whole networks, broken packages, and the runner on top.

Ops are built with coremltools' own builder, saved, and read back; what they should give comes from numpy and torch.
The programs are converted as coremltools converts, but for one pass, see :data:`INEXACT_PASS`.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from xformer_mobile.errors import BundleError, ImageError, MissingDependencyError, UsageError
from xformer_mobile.mobile import MobileXFormer, to_mobile
from xformer_mobile.optional import NOT_NEEDED, import_coremltools
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners import mil
from xformer_mobile.runners.core_ml import CoreMLRunner
from xformer_mobile.runners.mil import OPS, MilInput, MilOutput, MilProgram, evaluate
from xformer_mobile.spec import TASKS, ImageSize, ModelConfig
from xformer_mobile.zoo import untrained_model

Array = npt.NDArray[Any]

INEXACT_PASS = "common::fuse_elementwise_to_batchnorm"
"""Turns ``x * gain + bias`` into a batch_norm with variance 1 and epsilon 1e-5: wrong by 5e-6 of each value."""

SIZE = ImageSize(64, 64)


@pytest.fixture(scope="module")
def ct() -> ModuleType:
    return import_coremltools()


@contextmanager
def quiet() -> Iterator[None]:
    """Without what coremltools warns of itself; the temporary folders that it forgets are collected here too.

    Nor does it check the program after each of a hundred passes, which takes half of the time.
    """
    program = importlib.import_module("coremltools.converters.mil.mil").Program
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "validate", lambda self, **options: None)
        warnings.filterwarnings("ignore", "Implicitly cleaning up", ResourceWarning)
        warnings.filterwarnings("ignore", "Function _TORCH_OPS_REGISTRY", DeprecationWarning)
        yield
        gc.collect()


def save_program(ct: ModuleType, path: Path, program: Any, target: str = "iOS16", **options: Any) -> Path:
    """Save a MIL program as it is, without any optimization."""
    with quiet():
        ct.convert(
            program,
            convert_to="mlprogram",
            compute_precision=ct.precision.FLOAT32,  # leaves the types alone
            minimum_deployment_target=ct.target[target],
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            **options,
        ).save(str(path))
    return path


# ---- each op ---------------------------------------------------------------------------------------------


def draw(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


INPUTS = {
    "x": draw(0, 2, 6, 8, 8),
    "y": draw(1, 2, 6, 8, 8),
    "unit": np.random.default_rng(2).uniform(0.1, 0.9, (2, 6, 8, 8)).astype(np.float32),
    "rows": draw(3, 2, 5, 6),
    "video": draw(4, 1, 4, 6, 5, 7),
}
WEIGHTS = {
    "dense": draw(10, 5, 6, 3, 3) / 7,
    "even": draw(11, 5, 6, 4, 4) / 9,
    "depthwise": draw(12, 12, 1, 3, 3) / 3,
    "line": draw(13, 4, 5, 3) / 4,
    "cube": draw(14, 3, 4, 2, 3, 3) / 6,
    "transposed": draw(15, 6, 4, 3, 3) / 7,
    "grouped": draw(16, 6, 2, 2, 2) / 3,
    "matrix": draw(17, 7, 6) / 2,
    "channels": draw(18, 6),
    "spread": np.abs(draw(19, 6)) + 0.5,
    "seven": draw(20, 7),
    "five": draw(21, 5),
    "layer": draw(22, 6),
    "plane": draw(23, 8, 8),
}

Build = Callable[[Any], Any]
CASES: dict[str, tuple[str, Build, Build]] = {}
"""By name: the op, how it is built from MIL's values, and what it should give, from tensors. Names start with the op.

Both functions take a namespace: the INPUTS by name, ``mb``, ``c`` (a constant of the program's precision), ``w`` (one
of the WEIGHTS) and ``type`` (fp16 or fp32).
"""


def case(name: str, build: Build, expected: Build) -> None:
    assert name not in CASES, name
    CASES[name] = (name.split()[0], build, expected)


def number(o: Any, condition: Any) -> Any:
    """A truth value as 0 or 1: a program can't return truth values."""
    return o.mb.cast(x=condition, dtype=o.type)


def each(function: Callable[[Array], Array]) -> Callable[[Tensor], Tensor]:
    """A numpy function on a tensor, in float64."""
    return lambda x: torch.from_numpy(np.asarray(function(x.double().numpy())))


UNARY: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "abs": ("x", np.abs),
    "acos": ("unit", np.arccos),
    "asin": ("unit", np.arcsin),
    "atan": ("x", np.arctan),
    "atanh": ("unit", np.arctanh),
    "ceil": ("x", np.ceil),
    "cos": ("x", np.cos),
    "cosh": ("x", np.cosh),
    "erf": ("x", np.vectorize(__import__("math").erf)),
    "exp": ("x", np.exp),
    "exp2": ("x", np.exp2),
    "floor": ("x", np.floor),
    "identity": ("x", lambda x: x),
    "relu": ("x", lambda x: np.maximum(x, 0)),
    "relu6": ("x", lambda x: np.clip(x, 0, 6)),
    "round": ("x", np.round),
    "sigmoid": ("x", lambda x: 1 / (1 + np.exp(-x))),
    "sign": ("x", np.sign),
    "silu": ("x", lambda x: x / (1 + np.exp(-x))),
    "sin": ("x", np.sin),
    "sinh": ("x", np.sinh),
    "softplus": ("x", lambda x: np.log1p(np.exp(x))),
    "softsign": ("x", lambda x: x / (1 + np.abs(x))),
    "sqrt": ("unit", np.sqrt),
    "square": ("x", np.square),
    "tan": ("unit", np.tan),
    "tanh": ("x", np.tanh),
}
for op, (source, function) in UNARY.items():
    case(
        op,
        lambda o, op=op, source=source: getattr(o.mb, op)(x=getattr(o, source)),
        lambda o, function=function, source=source: each(function)(getattr(o, source)),
    )

BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "floor_div": lambda x, y: np.floor(x / y),
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mod": np.mod,
    "mul": np.multiply,
    "real_div": np.divide,
    "sub": np.subtract,
}
for op, both in BINARY.items():
    case(
        op,
        lambda o, op=op: getattr(o.mb, op)(x=o.x, y=o.unit),
        lambda o, both=both: torch.from_numpy(both(o.x.double().numpy(), o.unit.double().numpy())),
    )
case("mul scalar", lambda o: o.mb.mul(x=o.x, y=o.c(1.5)), lambda o: o.x * 1.5)
case("add row", lambda o: o.mb.add(x=o.rows, y=o.w("layer")), lambda o: o.rows + o.w("layer"))
case("pow", lambda o: o.mb.pow(x=o.unit, y=o.c(2.5)), lambda o: o.unit**2.5)

COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "equal": torch.eq,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "not_equal": torch.ne,
}
for op, compare in COMPARISONS.items():
    case(
        op,
        lambda o, op=op: number(o, getattr(o.mb, op)(x=o.mb.round(x=o.x), y=o.mb.round(x=o.y))),
        lambda o, compare=compare: compare(o.x.round(), o.y.round()),
    )
for op, logic in {"logical_and": "__and__", "logical_or": "__or__", "logical_xor": "__xor__"}.items():
    case(
        op,
        lambda o, op=op: number(o, getattr(o.mb, op)(x=o.mb.greater(x=o.x, y=o.c(0)), y=o.mb.greater(x=o.y, y=o.c(0)))),
        lambda o, logic=logic: getattr(o.x > 0, logic)(o.y > 0),
    )
case("logical_not", lambda o: number(o, o.mb.logical_not(x=o.mb.greater(x=o.x, y=o.c(0)))), lambda o: ~(o.x > 0))
case(
    "select",
    lambda o: o.mb.select(cond=o.mb.greater(x=o.x, y=o.c(0)), a=o.y, b=o.unit),
    lambda o: torch.where(o.x > 0, o.y, o.unit),
)
case("cast integer", lambda o: o.mb.cast(x=o.mb.mul(x=o.x, y=o.c(4)), dtype="int32"), lambda o: (o.x * 4).trunc())
case(
    "cast truth",
    lambda o: number(o, o.mb.cast(x=o.mb.relu(x=o.x), dtype="bool")),
    lambda o: o.x > 0,
)
case("clip", lambda o: o.mb.clip(x=o.x, alpha=o.c(-0.5), beta=o.c(0.75)), lambda o: o.x.clamp(-0.5, 0.75))
case("inverse", lambda o: o.mb.inverse(x=o.unit, epsilon=o.c(0.25)), lambda o: 1 / (o.unit + 0.25))
case("log", lambda o: o.mb.log(x=o.unit, epsilon=o.c(0.25)), lambda o: torch.log(o.unit + 0.25))
case("rsqrt", lambda o: o.mb.rsqrt(x=o.unit, epsilon=o.c(0.25)), lambda o: 1 / torch.sqrt(o.unit + 0.25))
case("rsqrt default", lambda o: o.mb.rsqrt(x=o.unit), lambda o: 1 / torch.sqrt(o.unit))
case("threshold", lambda o: o.mb.threshold(x=o.x, alpha=o.c(0.25)), lambda o: o.x.clamp_min(0.25))
case("elu", lambda o: o.mb.elu(x=o.x, alpha=o.c(0.5)), lambda o: torch.where(o.x > 0, o.x, 0.5 * (torch.exp(o.x) - 1)))
case("gelu", lambda o: o.mb.gelu(x=o.x), lambda o: o.x / 2 * (1 + torch.erf(o.x / 2**0.5)))
case(
    "gelu tanh",
    lambda o: o.mb.gelu(x=o.x, mode="TANH_APPROXIMATION"),
    lambda o: o.x / 2 * (1 + torch.tanh((2 / np.pi) ** 0.5 * (o.x + 0.044715 * o.x**3))),
)
case(
    "gelu sigmoid",
    lambda o: o.mb.gelu(x=o.x, mode="SIGMOID_APPROXIMATION"),
    lambda o: o.x * torch.sigmoid(1.702 * o.x),
)
case("leaky_relu", lambda o: o.mb.leaky_relu(x=o.x, alpha=o.c(0.25)), lambda o: torch.where(o.x > 0, o.x, o.x / 4))
case(
    "prelu",
    lambda o: o.mb.prelu(x=o.x, alpha=o.w("channels")),
    lambda o: torch.where(o.x > 0, o.x, o.x * o.w("channels")[:, None, None]),
)
case(
    "clamped_relu",
    lambda o: o.mb.clamped_relu(x=o.x, alpha=o.c(0.25), beta=o.c(0.5)),
    lambda o: torch.where(o.x > 0, o.x, o.x / 4).clamp_max(0.5),
)
case(
    "linear_activation",
    lambda o: o.mb.linear_activation(x=o.x, alpha=o.c(0.25), beta=o.c(0.5)),
    lambda o: o.x / 4 + 0.5,
)
case(
    "scaled_tanh",
    lambda o: o.mb.scaled_tanh(x=o.x, alpha=o.c(0.25), beta=o.c(0.5)),
    lambda o: torch.tanh(o.x / 2) / 4,
)
case(
    "sigmoid_hard",
    lambda o: o.mb.sigmoid_hard(x=o.x, alpha=o.c(0.25), beta=o.c(0.5)),
    lambda o: (o.x / 4 + 0.5).clamp(0, 1),
)
case(
    "thresholded_relu",
    lambda o: o.mb.thresholded_relu(x=o.x, alpha=o.c(0.25)),
    lambda o: torch.where(o.x >= 0.25, o.x, 0),
)
case("softmax", lambda o: o.mb.softmax(x=o.x, axis=1), lambda o: torch.exp(o.x) / torch.exp(o.x).sum(1, keepdim=True))

case(
    "conv",
    lambda o: o.mb.conv(x=o.x, weight=o.w("dense"), bias=o.w("five"), pad_type="custom", pad=[1, 1, 1, 1]),
    lambda o: F.conv2d(o.x, o.w("dense"), o.w("five"), padding=1),
)
case(
    "conv valid stride dilation",
    lambda o: o.mb.conv(x=o.x, weight=o.w("dense"), strides=[2, 1], dilations=[1, 2], pad_type="valid"),
    lambda o: F.conv2d(o.x, o.w("dense"), stride=(2, 1), dilation=(1, 2)),
)
case(
    "conv custom uneven",
    lambda o: o.mb.conv(x=o.x, weight=o.w("dense"), pad_type="custom", pad=[0, 1, 2, 0]),
    lambda o: F.conv2d(F.pad(o.x, (2, 0, 0, 1)), o.w("dense")),
)
case(
    "conv same stride 2",
    lambda o: o.mb.conv(x=o.x, weight=o.w("dense"), strides=[2, 2], pad_type="same"),
    lambda o: F.conv2d(F.pad(o.x, (0, 1, 0, 1)), o.w("dense"), stride=2),
)
case(
    "conv same even kernel",
    lambda o: o.mb.conv(x=o.x, weight=o.w("even"), pad_type="same"),
    lambda o: F.conv2d(F.pad(o.x, (1, 2, 1, 2)), o.w("even")),
)
case(
    "conv same_lower",
    lambda o: o.mb.conv(x=o.x, weight=o.w("dense"), strides=[2, 2], pad_type="same_lower"),
    lambda o: F.conv2d(F.pad(o.x, (1, 0, 1, 0)), o.w("dense"), stride=2),
)
case(
    "conv depthwise",
    lambda o: o.mb.conv(x=o.x, weight=o.w("depthwise"), groups=6, pad_type="custom", pad=[1, 1, 1, 1]),
    lambda o: F.conv2d(o.x, o.w("depthwise"), groups=6, padding=1),
)
case(
    "conv 1d",
    lambda o: o.mb.conv(x=o.rows, weight=o.w("line"), pad_type="valid"),
    lambda o: F.conv1d(o.rows, o.w("line")),
)
case(
    "conv 3d",
    lambda o: o.mb.conv(x=o.video, weight=o.w("cube"), pad_type="custom", pad=[1, 0, 1, 1, 0, 0]),
    lambda o: F.conv3d(F.pad(o.video, (0, 0, 1, 1, 1, 0)), o.w("cube")),
)
case(
    "conv_transpose",
    lambda o: o.mb.conv_transpose(x=o.x, weight=o.w("transposed"), strides=[2, 2], pad_type="valid"),
    lambda o: F.conv_transpose2d(o.x, o.w("transposed"), stride=2),
)
case(
    "conv_transpose custom groups bias",
    lambda o: o.mb.conv_transpose(
        x=o.x, weight=o.w("grouped"), bias=o.w("layer"), groups=3, strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]
    ),
    lambda o: F.conv_transpose2d(o.x, o.w("grouped"), o.w("layer"), stride=2, padding=1, groups=3),
)
case(
    "conv_transpose output shape",
    lambda o: o.mb.conv_transpose(
        x=o.x,
        weight=o.w("transposed"),
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
        output_shape=[2, 4, 16, 16],
    ),
    lambda o: F.conv_transpose2d(o.x, o.w("transposed"), stride=2, padding=1, output_padding=1),
)
case(
    "conv_transpose same",
    lambda o: o.mb.conv_transpose(x=o.x, weight=o.w("transposed"), strides=[2, 2], pad_type="same"),
    lambda o: F.conv_transpose2d(o.x, o.w("transposed"), stride=2)[:, :, :16, :16],
)
case(
    "linear",
    lambda o: o.mb.linear(x=o.rows, weight=o.w("matrix"), bias=o.w("seven")),
    lambda o: o.rows @ o.w("matrix").T + o.w("seven"),
)
case("linear no bias", lambda o: o.mb.linear(x=o.rows, weight=o.w("matrix")), lambda o: o.rows @ o.w("matrix").T)
case("matmul", lambda o: o.mb.matmul(x=o.x, y=o.y), lambda o: o.x @ o.y)
case(
    "matmul transposed",
    lambda o: o.mb.matmul(x=o.rows, y=o.rows, transpose_x=True),
    lambda o: o.rows.transpose(1, 2) @ o.rows,
)
case(
    "matmul constant",
    lambda o: o.mb.matmul(x=o.rows, y=o.w("matrix"), transpose_y=True),
    lambda o: o.rows @ o.w("matrix").T,
)
case(
    "einsum",
    lambda o: o.mb.einsum(values=(o.x, o.mb.transpose(x=o.y, perm=[0, 2, 3, 1])), equation="nchw,nwhu->nchu"),
    lambda o: (o.x[:, :, :, None] @ o.y.permute(0, 3, 2, 1)[:, None])[:, :, :, 0],
)

case(
    "avg_pool",
    lambda o: o.mb.avg_pool(x=o.x, kernel_sizes=[2, 4], strides=[2, 4], pad_type="valid"),
    lambda o: o.x.reshape(2, 6, 4, 2, 2, 4).mean((3, 5)),
)
case(
    "avg_pool padded",
    lambda o: o.mb.avg_pool(x=o.x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]),
    lambda o: F.avg_pool2d(o.x, 3, 2, 1),
)
case(
    "avg_pool padding left out",
    lambda o: o.mb.avg_pool(
        x=o.x,
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
        exclude_padding_from_average=True,
    ),
    lambda o: F.avg_pool2d(o.x, 3, 2, 1, count_include_pad=False),
)
case(
    "avg_pool same",
    lambda o: o.mb.avg_pool(
        x=o.x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="same", exclude_padding_from_average=True
    ),
    lambda o: (
        F.avg_pool2d(F.pad(o.x, (0, 1, 0, 1)), 3, 2) / F.avg_pool2d(F.pad(torch.ones_like(o.x), (0, 1, 0, 1)), 3, 2)
    ),
)
case(
    "avg_pool ceil",
    lambda o: o.mb.avg_pool(
        x=o.x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1], ceil_mode=True
    ),
    lambda o: F.avg_pool2d(o.x, 3, 2, 1, ceil_mode=True),
)
case(
    "avg_pool 1d",
    lambda o: o.mb.avg_pool(x=o.rows, kernel_sizes=[2], strides=[2], pad_type="valid"),
    lambda o: o.rows.reshape(2, 5, 3, 2).mean(3),
)
case(
    "max_pool",
    lambda o: o.mb.max_pool(x=o.x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"),
    lambda o: o.x.reshape(2, 6, 4, 2, 4, 2).amax((3, 5)),
)
case(
    "max_pool of negative values same_lower",
    lambda o: o.mb.max_pool(x=o.mb.sub(x=o.x, y=o.c(9)), kernel_sizes=[3, 3], strides=[2, 2], pad_type="same_lower"),
    lambda o: F.max_pool2d(F.pad(o.x, (1, 0, 1, 0), value=-100), 3, 2) - 9,
)
case(
    "max_pool ceil",
    lambda o: o.mb.max_pool(x=o.x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="valid", ceil_mode=True),
    lambda o: F.max_pool2d(o.x, 3, 2, ceil_mode=True),
)
case(
    "max_pool 3d",
    lambda o: o.mb.max_pool(x=o.video, kernel_sizes=[2, 2, 2], strides=[2, 1, 2], pad_type="valid"),
    lambda o: F.max_pool3d(o.video, 2, (2, 1, 2)),
)

case(
    "batch_norm",
    lambda o: o.mb.batch_norm(
        x=o.x,
        mean=o.w("channels"),
        variance=o.w("spread"),
        gamma=o.w("layer"),
        beta=o.w("channels"),
        epsilon=o.c(0.125),
    ),
    lambda o: (
        (o.x - o.w("channels")[:, None, None])
        / torch.sqrt(o.w("spread")[:, None, None] + 0.125)
        * o.w("layer")[:, None, None]
        + o.w("channels")[:, None, None]
    ),
)
case(
    "batch_norm plain",
    lambda o: o.mb.batch_norm(x=o.x, mean=o.w("channels"), variance=o.w("spread"), epsilon=o.c(0.125)),
    lambda o: (o.x - o.w("channels")[:, None, None]) / torch.sqrt(o.w("spread")[:, None, None] + 0.125),
)


def normalized(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    variance, mean = torch.var_mean(x.double(), axes, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + epsilon)


case(
    "instance_norm",
    lambda o: o.mb.instance_norm(x=o.x, gamma=o.w("layer"), beta=o.w("channels"), epsilon=o.c(0.125)),
    lambda o: normalized(o.x, (2, 3), 0.125) * o.w("layer")[:, None, None] + o.w("channels")[:, None, None],
)
case(
    "layer_norm",
    lambda o: o.mb.layer_norm(x=o.rows, axes=[-1], gamma=o.w("layer"), beta=o.w("channels"), epsilon=o.c(0.125)),
    lambda o: normalized(o.rows, (2,), 0.125) * o.w("layer") + o.w("channels"),
)
case(
    "layer_norm channels",
    lambda o: o.mb.layer_norm(x=o.x, axes=[1], gamma=o.w("layer"), beta=o.w("channels"), epsilon=o.c(0.125)),
    lambda o: normalized(o.x, (1,), 0.125) * o.w("layer")[:, None, None] + o.w("channels")[:, None, None],
)
case(
    "layer_norm plane",
    lambda o: o.mb.layer_norm(x=o.x, axes=[2, 3], gamma=o.w("plane"), epsilon=o.c(0.125)),
    lambda o: normalized(o.x, (2, 3), 0.125) * o.w("plane"),
)
case(
    "l2_norm",
    lambda o: o.mb.l2_norm(x=o.x, epsilon=o.c(0.5)),
    lambda o: o.x / torch.sqrt((o.x**2).sum((1, 2, 3), keepdim=True) + 0.5),
)

REDUCTIONS: dict[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "reduce_l1_norm": lambda x, axes: np.abs(x).sum(axes),
    "reduce_l2_norm": lambda x, axes: np.sqrt((x**2).sum(axes)),
    "reduce_log_sum": lambda x, axes: np.log(x.sum(axes)),
    "reduce_log_sum_exp": lambda x, axes: np.log(np.exp(x).sum(axes)),
    "reduce_max": lambda x, axes: x.max(axes),
    "reduce_mean": lambda x, axes: x.mean(axes),
    "reduce_min": lambda x, axes: x.min(axes),
    "reduce_sum": lambda x, axes: x.sum(axes),
    "reduce_sum_square": lambda x, axes: (x**2).sum(axes),
}
for op, reduction in REDUCTIONS.items():
    case(
        op,
        lambda o, op=op: getattr(o.mb, op)(x=o.unit, axes=[1, -1]),
        lambda o, reduction=reduction: each(lambda x, f=reduction: f(x, (1, 3)))(o.unit),
    )
case(
    "reduce_mean all kept",
    lambda o: o.mb.reduce_mean(x=o.x, keep_dims=True),
    lambda o: o.x.mean().reshape(1, 1, 1, 1),
)
case("reduce_argmax", lambda o: o.mb.reduce_argmax(x=o.x, axis=1, keep_dims=True), lambda o: o.x.argmax(1, True))
case("reduce_argmin", lambda o: o.mb.reduce_argmin(x=o.x, axis=-1), lambda o: o.x.argmin(-1))

case("reshape", lambda o: o.mb.reshape(x=o.x, shape=[0, 3, -1, 4]), lambda o: o.x.reshape(2, 3, 32, 4))
case("transpose", lambda o: o.mb.transpose(x=o.x, perm=[0, 2, 3, 1]), lambda o: o.x.permute(0, 2, 3, 1))
case("expand_dims", lambda o: o.mb.expand_dims(x=o.rows, axes=[0, -1]), lambda o: o.rows[None, ..., None])
case("squeeze", lambda o: o.mb.squeeze(x=o.mb.expand_dims(x=o.rows, axes=[0, -1]), axes=[-1]), lambda o: o.rows[None])
case("squeeze all", lambda o: o.mb.squeeze(x=o.mb.expand_dims(x=o.rows, axes=[0, -1])), lambda o: o.rows)
case("flatten2d", lambda o: o.mb.flatten2d(x=o.x, axis=2), lambda o: o.x.reshape(12, 64))
case(
    "shape",
    lambda o: o.mb.reshape(x=o.x, shape=o.mb.shape(x=o.y)),
    lambda o: o.x,
)
case("concat", lambda o: o.mb.concat(values=(o.x, o.y, o.x), axis=1), lambda o: torch.cat((o.x, o.y, o.x), 1))
case(
    "concat interleaved",
    lambda o: o.mb.concat(values=(o.x, o.y), axis=-3, interleave=True),
    lambda o: torch.stack((o.x, o.y), 2).reshape(2, 12, 8, 8),
)
case("stack", lambda o: o.mb.stack(values=(o.rows, o.rows), axis=1), lambda o: torch.stack((o.rows, o.rows), 1))
case("split", lambda o: o.mb.split(x=o.x, num_splits=3, axis=1), lambda o: o.x.chunk(3, 1))
case(
    "split sizes",
    lambda o: o.mb.split(x=o.x, split_sizes=[1, 5], axis=1),
    lambda o: (o.x[:, :1], o.x[:, 1:]),
)
case(
    "slice_by_index",
    lambda o: o.mb.slice_by_index(
        x=o.x,
        begin=[0, 1, 0, -1],
        end=[2, 6, -1, 2],
        stride=[1, 2, 3, -2],
        begin_mask=[False, False, True, False],
        end_mask=[True, False, False, False],
    ),
    lambda o: torch.from_numpy(o.x.numpy()[:, 1:6:2, :-1:3, -1:2:-2].copy()),
)
case(
    "slice_by_index squeezed",
    lambda o: o.mb.slice_by_index(
        x=o.x,
        begin=[0, -2, 1, 0],
        end=[0, 0, 4, 0],
        squeeze_mask=[True, True, False, False],
        end_mask=[False, False, False, True],
    ),
    lambda o: o.x[0, -2, 1:4],
)
case(
    "slice_by_size",
    lambda o: o.mb.slice_by_size(x=o.x, begin=[0, 1, -3, 2], size=[2, -1, 2, 4]),
    lambda o: o.x[:, 1:, 5:7, 2:6],
)
case("reverse", lambda o: o.mb.reverse(x=o.x, axes=[1, 3]), lambda o: o.x.flip(1, 3))
case("tile", lambda o: o.mb.tile(x=o.rows, reps=[1, 2, 3]), lambda o: o.rows.repeat(1, 2, 3))
case(
    "pad",
    lambda o: o.mb.pad(x=o.x, pad=[1, 0, 2, 3], constant_val=o.c(0.5)),
    lambda o: F.pad(o.x, (2, 3, 1, 0), value=0.5),
)
case(
    "pad reflect",
    lambda o: o.mb.pad(x=o.x, pad=[1, 0, 2, 3], mode="reflect", constant_val=o.c(0)),
    lambda o: F.pad(o.x, (2, 3, 1, 0), "reflect"),
)
case(
    "pad replicate",
    lambda o: o.mb.pad(x=o.x, pad=[1, 0, 2, 3], mode="replicate", constant_val=o.c(0)),
    lambda o: F.pad(o.x, (2, 3, 1, 0), "replicate"),
)
case("fill", lambda o: o.mb.add(x=o.mb.fill(shape=[5, 6], value=o.c(1.5)), y=o.rows), lambda o: o.rows + 1.5)
case(
    "fill_like",
    lambda o: o.mb.add(x=o.mb.fill_like(ref_tensor=o.rows, value=o.c(1.5)), y=o.rows),
    lambda o: o.rows + 1.5,
)
case(
    "range_1d",
    lambda o: o.mb.add(x=o.mb.cast(x=o.mb.range_1d(start=1, end=7, step=1), dtype=o.type), y=o.rows),
    lambda o: o.rows + torch.arange(1, 7),
)
case("cumsum", lambda o: o.mb.cumsum(x=o.rows, axis=1), lambda o: o.rows.cumsum(1))
case(
    "cumsum reversed",
    lambda o: o.mb.cumsum(x=o.rows, axis=1, exclusive=True, reverse=True),
    lambda o: o.rows.flip(1).cumsum(1).flip(1) - o.rows,
)
BELOW = torch.arange(8)[:, None] - torch.arange(8)
"""How far each of 8 x 8 elements is below the diagonal."""
case(
    "band_part",
    lambda o: o.mb.band_part(x=o.x, lower=1, upper=2),
    lambda o: torch.where((BELOW <= 1) & (BELOW >= -2), o.x, 0),
)
case(
    "one_hot",
    lambda o: o.mb.one_hot(
        indices=o.mb.reduce_argmax(x=o.rows, axis=2), one_hot_vector_size=6, axis=1, on_value=o.c(2), off_value=o.c(0.5)
    ),
    lambda o: torch.where(torch.arange(6)[:, None] == o.rows.argmax(2)[:, None], 2.0, 0.5),
)
case(
    "gather",
    lambda o: o.mb.gather(x=o.x, indices=np.array([[0, -1], [3, 2]], np.int32), axis=1),
    lambda o: o.x[:, torch.tensor([[0, 5], [3, 2]])],
)
case(
    "gather batches",
    lambda o: o.mb.gather(x=o.rows, indices=np.array([[0, 4], [3, 2]], np.int32), axis=1, batch_dims=1),
    lambda o: torch.stack((o.rows[0, [0, 4]], o.rows[1, [3, 2]])),
)
case(
    "gather_along_axis",
    lambda o: o.mb.gather_along_axis(x=o.x, indices=o.mb.argsort(x=o.x, axis=1, ascending=True), axis=1),
    lambda o: o.x.sort(1).values,
)
case(
    "gather_nd",
    lambda o: o.mb.gather_nd(x=o.rows, indices=np.array([[0, 4], [1, -2]], np.int32)),
    lambda o: torch.stack((o.rows[0, 4], o.rows[1, 3])),
)
case(
    "gather_nd batches",
    lambda o: o.mb.gather_nd(x=o.rows, indices=np.array([[[4, 0]], [[-2, 1]]], np.int32), batch_dims=1),
    lambda o: torch.stack((o.rows[0, 4, 0], o.rows[1, 3, 1]))[:, None],
)
case("argsort", lambda o: o.mb.argsort(x=o.x, axis=1), lambda o: o.x.argsort(1, descending=True))
case("topk", lambda o: o.mb.topk(x=o.x, k=3, axis=1), lambda o: tuple(o.x.topk(3, 1)))
case(
    "topk smallest",
    lambda o: o.mb.topk(x=o.x, k=2, axis=-1, ascending=True, return_indices=False),
    lambda o: o.x.topk(2, -1, largest=False).values,
)
case(
    "pixel_shuffle",
    lambda o: o.mb.pixel_shuffle(x=o.mb.slice_by_size(x=o.x, begin=[0, 0, 0, 0], size=[2, 4, 8, 8]), upscale_factor=2),
    lambda o: F.pixel_shuffle(o.x[:, :4], 2),
)
case(
    "pixel_unshuffle",
    lambda o: o.mb.pixel_unshuffle(x=o.x, downscale_factor=np.uint32(2)),
    lambda o: F.pixel_unshuffle(o.x, 2),
)
case(
    "depth_to_space",
    lambda o: o.mb.depth_to_space(x=o.mb.concat(values=(o.x, o.y), axis=1), block_size=2),
    lambda o: (
        torch.stack(  # channel 3k + c of the input goes to channel c, at row and column k of its block
            [torch.cat((o.x, o.y), 1)[:, k * 3 : k * 3 + 3] for k in range(4)], -1
        )
        .reshape(2, 3, 8, 8, 2, 2)
        .permute(0, 1, 2, 4, 3, 5)
        .reshape(2, 3, 16, 16)
    ),
)
case(
    "space_to_depth",
    lambda o: o.mb.space_to_depth(x=o.x, block_size=2),
    lambda o: torch.cat([o.x[:, :, row::2, column::2] for row in range(2) for column in range(2)], 1),
)

SAMPLING = {
    "STRICT_ALIGN_CORNERS": [0, 0.25, 0.5, 0.75, 1],
    "ALIGN_CORNERS": [0, 0.25, 0.5, 0.75, 1],
    "DEFAULT": [0, 0.4, 0.8, 1, 1],
    "OFFSET_CORNERS": [0.1, 0.3, 0.5, 0.7, 0.9],
    "UNALIGN_CORNERS": [0, 0.1, 0.5, 0.9, 1],
}
"""Where 5 samples lie between 2, as coremltools documents it."""

for mode, points in SAMPLING.items():
    case(
        f"resize_bilinear {mode}",
        lambda o, mode=mode: o.mb.resize_bilinear(
            x=o.mb.slice_by_size(x=o.x, begin=[0, 0, 0, 0], size=[2, 6, 2, 2]),
            target_size_height=5,
            target_size_width=5,
            sampling_mode=mode,
        ),
        lambda o, points=points: torch.einsum(
            "ncij,hi,wj->nchw", o.x[:, :, :2, :2], *[torch.tensor([[1 - p, p] for p in points])] * 2
        ),
    )
case(
    "resize_bilinear smaller",
    lambda o: o.mb.resize_bilinear(x=o.x, target_size_height=3, target_size_width=5, sampling_mode="UNALIGN_CORNERS"),
    lambda o: F.interpolate(o.x, (3, 5), mode="bilinear"),
)
case(
    "resize_bilinear to one",
    lambda o: o.mb.resize_bilinear(x=o.x, target_size_height=1, target_size_width=1, sampling_mode="ALIGN_CORNERS"),
    lambda o: o.x[:, :, 3:5, 3:5].mean((2, 3), keepdim=True),
)
case(
    "upsample_bilinear",
    lambda o: o.mb.upsample_bilinear(x=o.x, scale_factor_height=2, scale_factor_width=4, align_corners=False),
    lambda o: F.interpolate(o.x, scale_factor=(2, 4), mode="bilinear"),
)
case(
    "upsample_bilinear corners",
    lambda o: o.mb.upsample_bilinear(x=o.x, scale_factor_height=2, scale_factor_width=3, align_corners=True),
    lambda o: F.interpolate(o.x, scale_factor=(2, 3), mode="bilinear", align_corners=True),
)
case(
    "upsample_bilinear neither",
    lambda o: o.mb.upsample_bilinear(
        x=o.mb.slice_by_size(x=o.x, begin=[0, 0, 0, 0], size=[2, 6, 2, 2]),
        scale_factor_height=2.5,
        scale_factor_width=2.5,
        align_corners=False,
        half_pixel_centers=False,
    ),
    lambda o: torch.einsum(
        "ncij,hi,wj->nchw", o.x[:, :, :2, :2], *[torch.tensor([[1 - p, p] for p in SAMPLING["DEFAULT"]])] * 2
    ),
)
case(
    "upsample_nearest_neighbor",
    lambda o: o.mb.upsample_nearest_neighbor(x=o.x, scale_factor_height=2, scale_factor_width=3),
    lambda o: o.x.repeat_interleave(2, 2).repeat_interleave(3, 3),
)
case(
    "resize_nearest_neighbor",
    lambda o: o.mb.resize_nearest_neighbor(x=o.x, target_size_height=12, target_size_width=5),
    lambda o: F.interpolate(o.x, (12, 5), mode="nearest"),
)

BYTES = np.random.default_rng(30).integers(0, 256, (7, 6)).astype(np.uint8)
case(
    "constexpr_affine_dequantize",
    lambda o: o.mb.linear(
        x=o.rows,
        weight=o.mb.constexpr_affine_dequantize(
            quantized_data=BYTES, zero_point=np.arange(7, dtype=np.uint8), scale=o.w("seven"), axis=0
        ),
    ),
    lambda o: o.rows @ o.r((BYTES - np.arange(7.0)[:, None]) * o.w("seven").numpy()[:, None]).T,
)
case(
    "constexpr_affine_dequantize scalar",
    lambda o: o.mb.linear(
        x=o.rows,
        weight=o.mb.constexpr_affine_dequantize(
            quantized_data=BYTES.view(np.int8), zero_point=np.int8(3), scale=o.c(0.125), axis=0
        ),
    ),
    lambda o: o.rows @ o.r((BYTES.view(np.int8) - 3.0) * 0.125).T,
)
INDICES = np.random.default_rng(31).integers(0, 4, (7, 6)).astype(np.uint8)
case(
    "constexpr_lut_to_dense",
    lambda o: o.mb.linear(
        x=o.rows,
        weight=o.mb.constexpr_lut_to_dense(
            indices=np.packbits((INDICES.reshape(-1, 1) >> np.arange(2)) & 1, bitorder="little"),
            lut=o.w("five")[:4],
            shape=np.array([7, 6], np.uint32),
        ),
    ),
    lambda o: o.rows @ o.w("five")[torch.from_numpy(INDICES).long()].T,
)
MASK = np.random.default_rng(32).random((7, 6)) < 0.3
case(
    "constexpr_sparse_to_dense",
    lambda o: o.mb.linear(
        x=o.rows,
        weight=o.mb.constexpr_sparse_to_dense(
            nonzero_data=o.w("plane").reshape(-1)[: MASK.sum()],
            mask=np.packbits(MASK.reshape(-1), bitorder="little"),
            shape=np.array([7, 6], np.uint32),
        ),
    ),
    lambda o: o.rows @ torch.zeros(7, 6).masked_scatter(torch.from_numpy(MASK), o.w("plane")).T,
)

OLD = tuple(CASES)
"""Ops as of iOS 16; those below came with iOS 17 and 18, or changed."""

case(
    "quantize",
    lambda o: o.mb.cast(
        x=o.mb.quantize(input=o.x, scale=o.c(0.0078125), zero_point=np.int8(-7), output_dtype="int8"), dtype="int32"
    ),
    lambda o: ((o.x / 0.0078125).round() - 7).clamp(-128, 127),
)
case(
    "quantize channels",
    lambda o: o.mb.cast(
        x=o.mb.quantize(
            input=o.x, scale=o.w("spread"), zero_point=np.arange(6, dtype=np.uint8), axis=1, output_dtype="uint8"
        ),
        dtype="int32",
    ),
    lambda o: ((o.x / o.w("spread")[:, None, None]).round() + torch.arange(6)[:, None, None]).clamp(0, 255),
)
case(
    "dequantize",
    lambda o: o.mb.dequantize(
        input=o.mb.quantize(input=o.x, scale=o.c(0.03125), output_dtype="int8"), scale=o.w("spread"), axis=1
    ),
    lambda o: (o.x / 0.03125).round().clamp(-128, 127) * o.w("spread")[:, None, None],
)
case(
    "constexpr_blockwise_shift_scale",
    lambda o: o.mb.linear(
        x=o.rows,
        weight=o.mb.constexpr_blockwise_shift_scale(
            data=BYTES.view(np.int8),
            scale=o.w("plane").reshape(-1)[:14].reshape(7, 2),
            offset=np.arange(14, dtype=np.int8).reshape(7, 2),
        ),
    ),
    lambda o: (
        o.rows
        @ o.r(
            (BYTES.view(np.int8) - np.arange(14.0).reshape(7, 2).repeat(3, 1))
            * o.w("plane").reshape(-1)[:14].reshape(7, 2).numpy().repeat(3, 1)
        ).T
    ),
)
case(
    "constexpr_lut_to_dense blocks",
    lambda o: o.mb.linear(
        x=o.rows,
        weight=o.mb.constexpr_lut_to_dense(
            indices=INDICES.astype(o.np_uint2), lut=o.w("plane").reshape(-1)[:8].reshape(1, 2, 4, 1)
        ),
    ),
    lambda o: (
        o.rows
        @ torch.stack(
            [
                o.w("plane").reshape(-1)[4 * (k // 3) : 4 * (k // 3) + 4][torch.from_numpy(INDICES[:, k]).long()]
                for k in range(6)
            ]
        )
    ),
)
case(
    "constexpr_lut_to_dense vectors",
    lambda o: o.mb.linear(
        x=o.rows,
        weight=o.mb.constexpr_lut_to_dense(
            indices=INDICES[:, :3].astype(o.np_uint2),
            lut=o.w("plane").reshape(-1)[:8].reshape(1, 1, 4, 2),
            vector_axis=np.int32(1),
        ),
    ),
    lambda o: (
        o.rows @ o.w("plane").reshape(-1)[:8].reshape(4, 2)[torch.from_numpy(INDICES[:, :3]).long()].reshape(7, 6).T
    ),
)
case(
    "gather iOS 17",
    lambda o: o.mb.gather(x=o.x, indices=np.array([0, 3], np.int32), axis=2, validate_indices=False),
    lambda o: o.x[:, :, [0, 3]],
)
case(
    "topk iOS 17",
    lambda o: o.mb.topk(x=o.x, k=4, axis=1, sort=True, output_indices_dtype="int32"),
    lambda o: tuple(o.x.topk(4, 1)),
)
case(
    "scaled_dot_product_attention",
    lambda o: o.mb.scaled_dot_product_attention(query=o.x, key=o.y, value=o.unit),
    lambda o: torch.softmax(o.x @ o.y.transpose(2, 3) / 8**0.5, -1) @ o.unit,
)
case(
    "scaled_dot_product_attention masked",
    lambda o: o.mb.scaled_dot_product_attention(query=o.x, key=o.y, value=o.unit, attn_mask=o.w("plane")),
    lambda o: torch.softmax(o.x @ o.y.transpose(2, 3) / 8**0.5 + o.w("plane"), -1) @ o.unit,
)

ELSEWHERE = {"classify", "constexpr_cast"}
"""Ops with a test of their own."""


class Results:
    """What the saved program of all cases gives, and what it should give: it is run once for each precision."""

    def __init__(self, ct: ModuleType, folder: Path) -> None:
        self.ct, self.folder = ct, folder
        self.found: dict[tuple[str, str], dict[str, Array]] = {}

    def of(self, name: str, precision: str) -> tuple[list[Array], list[Array]]:
        target = "iOS16" if name in OLD else "iOS18"
        if (precision, target) not in self.found:
            self.found[precision, target] = self._run(precision, target)
        results = self.found[precision, target]
        found = [value for key, value in results.items() if key.rsplit(":", 1)[0] == name]
        dtype = np.float16 if precision == "fp16" else np.float32

        def constant(value: Any) -> Tensor:
            return torch.from_numpy(np.asarray(value).astype(dtype).astype(np.float32))

        expected = CASES[name][2](
            SimpleNamespace(
                **{key: constant(value) for key, value in INPUTS.items()},
                c=constant,
                r=constant,
                w=lambda key: constant(WEIGHTS[key]),
            )
        )
        expected = expected if isinstance(expected, tuple) else (expected,)
        return found, [value.numpy() for value in expected]

    def _run(self, precision: str, target: str) -> dict[str, Array]:
        from coremltools.converters.mil.mil import Builder, types

        dtype = np.float16 if precision == "fp16" else np.float32
        names = [name for name in CASES if (name in OLD) == (target == "iOS16")]
        specs = [Builder.TensorSpec(value.shape, getattr(types, precision)) for value in INPUTS.values()]

        @Builder.program(input_specs=specs, opset_version=self.ct.target[target])  # type: ignore[untyped-decorator]
        def program(x: Any, y: Any, unit: Any, rows: Any, video: Any) -> list[Any]:
            o = SimpleNamespace(
                x=x,
                y=y,
                unit=unit,
                rows=rows,
                video=video,
                mb=Builder,
                type=precision,
                c=dtype,
                w=lambda key: WEIGHTS[key].astype(dtype),
                np_uint2=types.np_uint2_dtype,
            )
            outputs = []
            for number, name in enumerate(names):
                made = CASES[name][1](o)
                for part, value in enumerate(made if isinstance(made, (tuple, list)) else [made]):
                    outputs.append(Builder.identity(x=value, name=f"case{number}_{part}"))
            return outputs

        path = save_program(self.ct, self.folder / f"{precision}-{target}.mlpackage", program, target)
        results = evaluate(path, {key: value.astype(dtype) for key, value in INPUTS.items()})
        return {
            f"{name}:{key}": value for key, value in results.items() for name in [names[int(key[4:].split("_")[0])]]
        }


@pytest.fixture(scope="module")
def results(ct: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return Results(ct, tmp_path_factory.mktemp("ops"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", CASES)
def test_op(results: Results, name: str, precision: str) -> None:
    found, expected = results.of(name, precision)
    assert [value.shape for value in found] == [value.shape for value in expected]
    for value, exact in zip(found, expected, strict=True):
        if value.dtype == np.int32:
            np.testing.assert_array_equal(value, exact)
        elif precision == "fp32":
            assert value.dtype == np.float32
            np.testing.assert_allclose(value, exact, rtol=2e-6, atol=2e-6 * np.abs(exact).max())
        else:  # computed in fp32, rounded once: the nearest fp16 number, or its neighbor
            assert value.dtype == np.float16
            np.testing.assert_allclose(value, exact, rtol=2**-10, atol=2**-20 * np.abs(exact).max())


def test_every_op_is_tested() -> None:
    assert set(OPS) == {op for op, _, _ in CASES.values()} | ELSEWHERE


# ---- whole networks --------------------------------------------------------------------------------------


def export(module: nn.Module, example: Tensor) -> Any:
    return torch.export.export(module.eval(), (example,)).run_decompositions({})


def convert(ct: ModuleType, path: Path, module: Any, inputs: Any, example: Tensor, **options: Any) -> Path:
    """Save a torch module, or what it was exported to, as coremltools converts it, but for :data:`INEXACT_PASS`."""
    pipeline = ct.PassPipeline.DEFAULT
    pipeline.remove_passes({INEXACT_PASS})
    with quiet():
        ct.convert(
            export(module, example) if isinstance(module, nn.Module) else module,
            inputs=[inputs],
            minimum_deployment_target=ct.target.iOS16,
            pass_pipeline=pipeline,
            skip_model_load=True,
            **options,
        ).save(str(path))
    return path


class AllTasks(nn.Module):
    """The mobile form of the three tasks on one backbone; takes (1, 3, H, W) float, 0..255."""

    def __init__(self, models: dict[str, MobileXFormer]) -> None:
        super().__init__()
        self.backbone = models["classify"].backbone
        self.heads = nn.ModuleList(model.head for model in models.values())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = [self.backbone.stage2(self.backbone.stage1(self.backbone.stem(x - self.backbone.mean)))]
        for stage in self.backbone.stages:
            features.append(stage(features[-1]))
        return tuple(output for head in self.heads for output in head(tuple(features)))


class RoundedToHalf(TorchDispatchMode):
    """Rounds the result of each of torch's ops to fp16: the evaluator's model of fp16, made another way."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return tree_map(half, function(*args, **(kwargs or {})))


def half(value: Any) -> Any:
    return value.half().float() if isinstance(value, Tensor) and value.dtype == torch.float32 else value


@pytest.fixture(scope="module")
def all_tasks() -> tuple[AllTasks, dict[str, tuple[int, ...]]]:
    """The network, and the shapes of its outputs by name."""
    configs = {task: ModelConfig.create(task, "xformer_xxs", image_size=SIZE) for task in TASKS}
    shapes = {
        f"{task}_{name}": shape for task, config in configs.items() for name, shape in config.output_shapes().items()
    }
    models = {task: to_mobile(untrained_model(config)) for task, config in configs.items()}
    return AllTasks(models).eval(), shapes


@pytest.fixture(scope="module")
def xformer(
    ct: ModuleType,
    all_tasks: tuple[AllTasks, dict[str, tuple[int, ...]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """The saved network in fp32 or fp16, converted when it is first asked for."""
    network, shapes = all_tasks
    folder = tmp_path_factory.mktemp("xformer")
    example = torch.zeros(1, 3, SIZE.height, SIZE.width)
    exported = export(network, example)

    def make(precision: str) -> Path:
        path = folder / f"{precision}.mlpackage"
        if not path.exists():
            convert(
                ct,
                path,
                exported,
                ct.ImageType(name="image", shape=(1, 3, SIZE.height, SIZE.width), color_layout=ct.colorlayout.RGB),
                example,
                outputs=[ct.TensorType(name=name, dtype=np.float32) for name in shapes],
                compute_precision=ct.precision(precision),
            )
        return path

    return make


def bytes_as_input(image: Array) -> Tensor:
    return torch.from_numpy(image).permute(0, 3, 1, 2).float()


def snr_db(found: Array, exact: Array) -> float:
    exact = exact.astype(np.float64)
    return float(10 * np.log10((exact**2).sum() / ((found - exact) ** 2).sum()))


def test_xformer_in_fp32(
    xformer: Callable[[str], Path], all_tasks: tuple[AllTasks, dict[str, tuple[int, ...]]]
) -> None:
    network, shapes = all_tasks
    image = golden_picture(3, SIZE)
    program = MilProgram.load(xformer("float32"))
    assert program.inputs == (MilInput("image", (1, 3, 64, 64), "uint8", "RGB"),)
    assert program.outputs == tuple(MilOutput(name, shape, "float32") for name, shape in shapes.items())
    assert (program.opset, program.deployment_target) == ("CoreML6", "iOS16")
    assert program.ops["layer_norm"] == 21
    with torch.inference_mode():
        expected = dict(zip(shapes, network(bytes_as_input(image)), strict=True))
    for _ in range(2):  # a second run finds the constants as they were
        found = program.run({"image": image})
        assert list(found) == list(shapes)
        for name, exact in expected.items():
            assert np.abs(found[name] - exact.numpy()).max() <= 1e-5 * (exact.max() - exact.min()).item(), name


def test_xformer_in_fp16(
    xformer: Callable[[str], Path], all_tasks: tuple[AllTasks, dict[str, tuple[int, ...]]]
) -> None:
    """As precise as torch with every value rounded to fp16. These untrained networks lose much: 30 to 45 dB remain."""
    network, shapes = all_tasks
    image = golden_picture(3, SIZE)
    found = evaluate(xformer("float16"), {"image": image})
    unrounded = evaluate(xformer("float16"), {"image": image}, precision="fp32")
    weights = {name: half(value) for name, value in network.state_dict().items()}
    with torch.inference_mode():
        exact = network(bytes_as_input(image))
        fp16_weights = torch.func.functional_call(network, weights, bytes_as_input(image))
        with RoundedToHalf():
            fp16 = torch.func.functional_call(network, weights, bytes_as_input(image))
    for name, value, only_weights, rounded in zip(shapes, exact, fp16_weights, fp16, strict=True):
        emulated = snr_db(rounded.numpy(), value.numpy())
        assert snr_db(found[name], value.numpy()) == pytest.approx(emulated, abs=4), name
        assert snr_db(unrounded[name], value.numpy()) == pytest.approx(
            snr_db(only_weights.numpy(), value.numpy()), abs=1
        ), name
        assert snr_db(unrounded[name], value.numpy()) > snr_db(found[name], value.numpy())


def mobile_vit(transformers: ModuleType) -> nn.Module:
    config = transformers.MobileViTConfig(
        image_size=64,
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 40],
        num_attention_heads=2,
        num_labels=7,
    )
    return transformers.MobileViTForImageClassification(config)  # type: ignore[no-any-return]


def mobile_vit_v2(transformers: ModuleType) -> nn.Module:
    config = transformers.MobileViTV2Config(
        image_size=64, width_multiplier=0.25, base_attn_unit_dims=[32, 48, 64], num_labels=7
    )
    return transformers.MobileViTV2ForImageClassification(config)  # type: ignore[no-any-return]


def mobile_net_v2(transformers: ModuleType) -> nn.Module:
    config = transformers.MobileNetV2Config(image_size=64, depth_multiplier=0.35, num_labels=7)
    return transformers.MobileNetV2ForImageClassification(config)  # type: ignore[no-any-return]


class LogitsOnly(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model(pixels, return_dict=False)[0]
        return logits


@pytest.mark.parametrize("make", [mobile_net_v2, mobile_vit, mobile_vit_v2])
def test_the_family(ct: ModuleType, tmp_path: Path, make: Callable[[ModuleType], nn.Module]) -> None:
    """Networks that others wrote, with ops that ours has none of: batch_norm, softmax, resizing, unfolding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever transformers has to say of the versions it finds
        transformers = importlib.import_module("transformers")
        torch.manual_seed(0)
        network = LogitsOnly(make(transformers)).eval()
        for weight in network.requires_grad_(False).parameters():
            if weight.dim() > 1:
                nn.init.kaiming_normal_(weight)
    pixels = torch.from_numpy(draw(5, 1, 3, 64, 64))
    path = convert(
        ct,
        tmp_path / "net.mlpackage",
        network,
        ct.TensorType(name="pixels", shape=(1, 3, 64, 64), dtype=np.float32),
        pixels,
        outputs=[ct.TensorType(name="logits", dtype=np.float32)],
        compute_precision=ct.precision.FLOAT32,
    )
    with torch.inference_mode():
        exact = network(pixels).numpy()
    assert np.ptp(exact) > 1e-6
    found = evaluate(path, {"pixels": pixels.numpy()})["logits"]
    assert np.abs(found - exact).max() <= 1e-5 * np.ptp(exact)


# ---- what a program is, apart from its ops ---------------------------------------------------------------


class Mixed(nn.Module):
    """Mixes an image's channels, each in its own way."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(1.0, 1 + x.shape[1])[:, None, None]


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_image_input(ct: ModuleType, tmp_path: Path, layout: str) -> None:
    """The caller's image is RGB. Scale and bias come from the program: coremltools writes them there as ops."""
    channels = 1 if layout == "GRAYSCALE" else 3
    bias = [0.5, -0.25, 1.0][:channels]
    path = convert(
        ct,
        tmp_path / "image.mlpackage",
        Mixed(),
        ct.ImageType(
            name="image",
            shape=(1, channels, 4, 6),
            color_layout=getattr(ct.colorlayout, layout),
            scale=1 / 64,
            bias=bias if channels == 3 else bias[0],
        ),
        torch.zeros(1, channels, 4, 6),
        outputs=[ct.TensorType(name="out", dtype=np.float32)],
        compute_precision=ct.precision.FLOAT32,
    )
    program = MilProgram.load(path)
    assert program.inputs == (MilInput("image", (1, channels, 4, 6), "uint8", layout),)
    image = np.random.default_rng(6).integers(0, 256, (4, 6, 3) if channels == 3 else (4, 6)).astype(np.uint8)
    planes = image[None] if channels == 1 else image.transpose(2, 0, 1)
    planes = planes[::-1] if layout == "BGR" else planes
    exact = (planes / 64 + np.array(bias)[:, None, None]) * np.arange(1, 1 + channels)[:, None, None]
    for form in (image, image[None]):
        np.testing.assert_allclose(program.run({"image": form})["out"], exact[None], rtol=1e-6)
    for wrong in (image.astype(np.float32), image[:-1], image[..., None], image[None, None]):
        with pytest.raises(ImageError, match=r"input 'image': got .* it takes uint8 \(4, 6"):
            program.run({"image": wrong})


@pytest.mark.parametrize("labels", [["cat", "dog", "bird"], [7, 8, 9]], ids=["names", "numbers"])
def test_classifier(ct: ModuleType, tmp_path: Path, labels: list[Any]) -> None:
    """As MLModel.predict returns it: a label, and the probability of each."""
    path = convert(
        ct,
        tmp_path / "classifier.mlpackage",
        nn.Sequential(nn.Flatten(), nn.Softmax(1)),
        ct.TensorType(name="x", shape=(1, 3, 1), dtype=np.float32),
        torch.zeros(1, 3, 1),
        classifier_config=ct.ClassifierConfig(labels),
        compute_precision=ct.precision.FLOAT16,
    )
    program = MilProgram.load(path)
    assert program.outputs == (
        MilOutput("classLabel", None, "label"),
        MilOutput("classLabel_probs", None, "probabilities"),
    )
    found = program.run({"x": np.array([[[0.5], [2.0], [-1.0]]])})
    assert found["classLabel"] == labels[1]
    assert type(found["classLabel"]) is type(labels[1])
    exact = np.exp([0.5, 2, -1]) / np.exp([0.5, 2, -1]).sum()
    assert found["classLabel_probs"] == pytest.approx(dict(zip(labels, exact, strict=True)), rel=2e-3)


@pytest.fixture(scope="module")
def small(ct: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small fp16 program with weights in a file: ``x @ matrix.T``, then ``+ 2048`` and ``- 2048``."""
    from coremltools.converters.mil.mil import Builder, types

    @Builder.program(  # type: ignore[untyped-decorator]
        input_specs=[Builder.TensorSpec((2, 6), types.fp16), Builder.TensorSpec((3,), types.int32)],
        opset_version=ct.target.iOS16,
    )
    def program(x: Any, which: Any) -> Any:
        half_dtype = np.float16
        product = Builder.linear(x=x, weight=WEIGHTS["matrix"].astype(half_dtype), name="product")
        large = Builder.add(x=product, y=half_dtype(2048), name="large")
        small_again = Builder.sub(x=large, y=half_dtype(2048), name="small_again")
        return Builder.gather(x=small_again, indices=which, axis=1, name="out")

    return save_program(ct, tmp_path_factory.mktemp("small") / "small.mlpackage", program)


X = draw(7, 2, 6).astype(np.float16)
WHICH = np.array([0, 6, -1], np.int32)


def test_every_fp16_value_is_rounded(small: Path) -> None:
    weight = WEIGHTS["matrix"].astype(np.float16).astype(np.float32)
    exact = X.astype(np.float32) @ weight.T
    stored = evaluate(small, {"x": X, "which": WHICH}, intermediates=True)
    assert {name: value.dtype for name, value in stored.items()} == dict.fromkeys(stored, np.dtype("float16"))
    np.testing.assert_array_equal(stored["product"], exact.astype(np.float16))
    np.testing.assert_array_equal(stored["small_again"], np.float16(np.float16(stored["product"] + 2048) - 2048))
    assert set(np.unique(stored["small_again"] % 1)) <= {0.0}  # 2048 and more in fp16: whole numbers
    free = evaluate(small, {"x": X, "which": WHICH}, precision="fp32")["out"]
    assert free.dtype == np.float32
    np.testing.assert_allclose(free, exact[:, [0, 6, 6]], atol=5e-4)
    assert np.abs(free % 1).max() > 0.01


def test_an_fp16_input_is_rounded(small: Path) -> None:
    fine = draw(7, 2, 6)
    program = MilProgram.load(small)
    products = [
        program.run({"x": x, "which": WHICH}, intermediates=["product"])["product"]
        for x in (fine, fine.astype(np.float64), fine.astype(np.float16))
    ]
    np.testing.assert_array_equal(products[0], products[2])
    np.testing.assert_array_equal(products[1], products[2])
    weight = WEIGHTS["matrix"].astype(np.float16).astype(np.float32)
    assert (products[0] != (fine @ weight.T).astype(np.float16)).any()


def test_what_overflows_fp16_is_infinite(small: Path) -> None:
    large = np.full((2, 6), 60000, np.float16)
    exact = evaluate(small, {"x": large, "which": WHICH}, intermediates=True, precision="fp32")
    found = evaluate(small, {"x": large, "which": WHICH}, intermediates=True)
    assert np.isfinite(exact["product"]).all()
    np.testing.assert_array_equal(np.isinf(found["product"]), np.abs(exact["product"]) >= 65520)
    assert np.isinf(found["out"]).any()


def test_intermediate_values(small: Path) -> None:
    program = MilProgram.load(small)
    inputs = {"x": X, "which": WHICH}
    assert list(program.run(inputs)) == ["out"]
    assert list(program.run(inputs, intermediates=True)) == ["out", "product", "large", "small_again"]
    assert list(program.run(inputs, intermediates=["large", "out"])) == ["out", "large"]
    assert list(program.run(inputs, intermediates="large")) == ["out", "large"]
    with pytest.raises(UsageError, match=r"computes no value 'larger'$"):
        program.run(inputs, intermediates=["larger"])


def test_outputs_are_the_callers(small: Path) -> None:
    """Writing to a result changes neither the constants nor the input."""
    program = MilProgram.load(small)
    given = X.copy()
    first = program.run({"x": given, "which": WHICH}, intermediates=True)
    kept = {name: value.copy() for name, value in first.items()}
    for value in first.values():
        value += 1
    np.testing.assert_array_equal(given, X)
    for name, value in program.run({"x": given, "which": WHICH}, intermediates=True).items():
        np.testing.assert_array_equal(value, kept[name])


def test_constexpr_cast(ct: ModuleType, tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import Builder

    @Builder.program(  # type: ignore[untyped-decorator]
        input_specs=[Builder.TensorSpec((2, 6))], opset_version=ct.target.iOS16
    )
    def program(x: Any) -> Any:
        weight = Builder.constexpr_cast(source_val=WEIGHTS["matrix"].astype(np.float16), output_dtype="fp32")
        return Builder.linear(x=x, weight=weight, name="out")

    path = save_program(ct, tmp_path / "cast.mlpackage", program)
    x = draw(8, 2, 6)
    exact = x @ WEIGHTS["matrix"].astype(np.float16).astype(np.float32).T
    np.testing.assert_allclose(evaluate(path, {"x": x})["out"], exact, rtol=1e-5, atol=1e-6)


def test_quantized_weights(ct: ModuleType, tmp_path: Path) -> None:
    """8-bit weights, as coremltools' optimizer makes them, are what its own decompression makes of them."""
    torch.manual_seed(0)
    path = convert(
        ct,
        tmp_path / "float.mlpackage",
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)),
        ct.TensorType(name="x", shape=(1, 3, 8, 8), dtype=np.float32),
        torch.zeros(1, 3, 8, 8),
        outputs=[ct.TensorType(name="out", dtype=np.float32)],
        compute_precision=ct.precision.FLOAT32,
    )
    optimize = importlib.import_module("coremltools.optimize.coreml")
    config = optimize.OptimizationConfig(optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0))
    with quiet():
        quantized = optimize.linear_quantize_weights(ct.models.MLModel(str(path), skip_model_load=True), config)
        quantized.save(str(tmp_path / "int8.mlpackage"))
        optimize.decompress_weights(quantized).save(str(tmp_path / "decompressed.mlpackage"))
        del quantized
    program = MilProgram.load(tmp_path / "int8.mlpackage")
    assert program.ops["constexpr_affine_dequantize"] >= 2
    x = draw(9, 1, 3, 8, 8)
    found = program.run({"x": x})["out"]
    exact = evaluate(tmp_path / "decompressed.mlpackage", {"x": x})["out"]
    np.testing.assert_allclose(found, exact, atol=1e-6 * np.ptp(exact))
    assert np.abs(found - evaluate(path, {"x": x})["out"]).max() > 1e-4 * np.ptp(exact)


# ---- what is refused -------------------------------------------------------------------------------------

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHT_FILE = "Data/com.apple.CoreML/weights/weight.bin"


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the model's specification."""
    spec = import_coremltools().proto.Model_pb2.Model()
    spec.ParseFromString((path / MODEL).read_bytes())
    change(spec)
    (path / MODEL).write_bytes(spec.SerializeToString())


def block(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def rename_ops(spec: Any) -> None:
    for operation in block(spec).operations:
        operation.type = {"add": "lstm", "sub": "lstm", "gather": "custom_layer"}.get(operation.type, operation.type)


def truncate(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def state(path: Path, entry: str) -> None:
    """Let the package's manifest name another file as its model."""
    file = path / "Manifest.json"
    stated = json.loads(file.read_bytes())
    stated["itemInfoEntries"][stated["rootModelIdentifier"]]["path"] = entry
    file.write_text(json.dumps(stated))


def replace_with_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"a file")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing there": (shutil.rmtree, "no Core ML package at "),
    "a file": (replace_with_file, "is a file; a Core ML package is a folder"),
    "no manifest": (
        lambda path: (path / "Manifest.json").unlink(),
        "is not a Core ML package: it has no Manifest.json",
    ),
    "manifest cut": (lambda path: truncate(path / "Manifest.json", 0.5), "does not name the package's model"),
    "manifest foreign": (lambda path: (path / "Manifest.json").write_text("[1]"), "does not name the package's model"),
    "path not text": (lambda path: state(path, 5), "does not name the package's model"),  # type: ignore[arg-type]
    "path outside": (lambda path: state(path, "../../model"), "names a model outside of the package"),
    "path absolute": (lambda path: state(path, "/etc/passwd"), "names a model outside of the package"),
    "no model": (
        lambda path: (path / MODEL).unlink(),
        "is not complete: it has no Data/com.apple.CoreML/model.mlmodel",
    ),
    "model cut": (lambda path: truncate(path / MODEL, 0.5), "is not a Core ML model, or not all of one"),
    "model foreign": (lambda path: (path / MODEL).write_bytes(b"\xff" * 100), "is not a Core ML model"),
    "model empty": (lambda path: (path / MODEL).write_bytes(b""), r"is no ML program \(empty\)"),
    "no weights": (lambda path: (path / WEIGHT_FILE).unlink(), "coremltools refuses .*"),
    "weights cut": (lambda path: truncate(path / WEIGHT_FILE, 0.7), "coremltools refuses .*"),
    "weights empty": (lambda path: (path / WEIGHT_FILE).write_bytes(b""), "coremltools refuses .*"),
    "weights foreign": (lambda path: (path / WEIGHT_FILE).write_bytes(b"\xff" * 500), "coremltools refuses .*"),
    "neural network": (
        lambda path: edit(path, lambda spec: spec.neuralNetwork.SetInParent()),
        r"is no ML program \(neuralNetwork\)",
    ),
    "flexible shape": (
        lambda path: edit(path, lambda spec: spec.description.input[0].type.multiArrayType.shapeRange.SetInParent()),
        "'x' has a flexible shape",
    ),
    "two functions": (
        lambda path: edit(
            path, lambda spec: spec.mlProgram.functions["more"].CopyFrom(spec.mlProgram.functions["main"])
        ),
        "has the functions main, more",
    ),
    "state": (
        lambda path: edit(path, lambda spec: spec.description.state.add(name="memory")),
        "keeps state between runs",
    ),
    "image output": (
        lambda path: edit(path, lambda spec: spec.description.output[0].type.imageType.SetInParent()),
        "the output 'out' is an image",
    ),
    "future version": (
        lambda path: edit(path, lambda spec: setattr(spec, "specificationVersion", 99)),
        "has the specification version 99",
    ),
    "no program for the opset": (
        lambda path: edit(path, lambda spec: setattr(spec.mlProgram.functions["main"], "opset", "CoreML1")),
        "has no program for its opset CoreML1",
    ),
    "input lost": (
        lambda path: edit(path, lambda spec: setattr(spec.description.input[0], "name", "other")),
        "declares the input 'other', which its program does not have",
    ),
    "output lost": (
        lambda path: edit(path, lambda spec: setattr(spec.description.output[0], "name", "other")),
        "declares the output 'other', which its program does not have",
    ),
    "missing ops": (
        lambda path: edit(path, rename_ops),
        r"has ops that the evaluator lacks: custom_layer \(1\), lstm \(2\)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_package(small: Path, tmp_path: Path, name: str) -> None:
    breaks, message = BROKEN[name]
    path = tmp_path / "broken.mlpackage"
    shutil.copytree(small, path)
    breaks(path)
    with pytest.raises(BundleError, match=message) as raised:
        MilProgram.load(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


WRONG_INPUTS: dict[str, tuple[dict[str, Array], str]] = {
    "none": ({}, "got inputs none; .* takes x, which$"),
    "one missing": ({"x": X}, "got inputs x; .* takes x, which$"),
    "one more": ({"x": X, "which": WHICH, "y": X}, "got inputs x, which, y; .* takes x, which$"),
    "shape": ({"x": X[:1], "which": WHICH}, r"input 'x': got float16 \(1, 6\); it takes float \(2, 6\)$"),
    "integers": ({"x": X.astype(np.int32), "which": WHICH}, r"input 'x': got int32 \(2, 6\); it takes float"),
    "floats": ({"x": X, "which": WHICH * 1.0}, r"input 'which': got float64 \(3,\); it takes integer \(3,\)$"),
}


@pytest.mark.parametrize("name", WRONG_INPUTS)
def test_wrong_inputs(small: Path, name: str) -> None:
    inputs, message = WRONG_INPUTS[name]
    with pytest.raises(UsageError, match=message):
        evaluate(small, inputs)


def test_an_op_that_fails_is_named(small: Path) -> None:
    with pytest.raises(BundleError, match=r"small.mlpackage: gather 'out' fails: ."):
        evaluate(small, {"x": X, "which": WHICH + 1})


def test_a_wrong_shape_is_noticed(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluator checks itself: what an op makes has the shape that the program declares."""
    row = mil._Row(lambda x, y: x[:1], False, {"x": True, "y": True})
    monkeypatch.setitem(OPS, "add", row)
    with pytest.raises(BundleError, match=r"add 'large' made \(1, 7\); the program declares \(2, 7\)"):
        evaluate(small, {"x": X, "which": WHICH})


def test_an_unknown_parameter_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, "add", mil._Row(lambda x: x, False, {"x": True}))
    with pytest.raises(BundleError, match="add 'large' has the parameters y, which the evaluator lacks"):
        MilProgram.load(small)


def test_unknown_precision(small: Path) -> None:
    with pytest.raises(UsageError, match="unknown precision 'fp8'; valid: stored, fp32"):
        MilProgram.load(small, precision="fp8")  # type: ignore[arg-type]


# ---- imports ---------------------------------------------------------------------------------------------


def test_without_coremltools(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    import_coremltools.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"coremltools is not installed; .*'xformer-mobile\[coreml\]'"):
        MilProgram.load(small)


def test_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import xformer_mobile.runners.core_ml"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingDependencyError: torch is not installed; type: pip install 'xformer-mobile[coreml]'" in result.stderr


def test_coremltools_says_nothing() -> None:
    """Its warnings stay off the terminal, and the frameworks that it would try are left alone, to be used later."""
    code = f"""
import sys
from xformer_mobile.optional import import_coremltools
assert import_coremltools() is import_coremltools() is sys.modules["coremltools"]
assert not set({NOT_NEEDED!r}) & sys.modules.keys()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert logging.getLogger("coremltools").level == logging.ERROR


# ---- the runner ------------------------------------------------------------------------------------------


def test_runner_elsewhere(
    xformer: Callable[[str], Path], all_tasks: tuple[AllTasks, dict[str, tuple[int, ...]]]
) -> None:
    """The evaluator runs it; only what is declared comes back, and torch keeps its threads."""
    _, shapes = all_tasks
    declared = {name: shapes[name] for name in ("classify_logits", "segment_logits")}
    image = golden_picture(3, SIZE)
    threads = torch.get_num_threads()
    with CoreMLRunner(xformer("float32"), SIZE, declared, threads=1) as runner:
        found = runner.run(image)
    assert runner.engine == "coreml"
    assert torch.get_num_threads() == threads
    exact = evaluate(xformer("float32"), {"image": image})
    assert list(found) == list(declared)
    for name in declared:
        np.testing.assert_array_equal(found[name], exact[name])


class FakeMLModel:
    """Stands in for coremltools' MLModel, which predicts on macOS only."""

    made: tuple[Any, ...] = ()

    def __init__(self, path: str, compute_units: Any) -> None:
        if path.endswith("broken"):
            raise RuntimeError("Error compiling model:\nmore")
        type(self).made = (path, compute_units)

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        assert list(data) == ["image"]
        assert isinstance(data["image"], Image.Image)
        assert data["image"].mode == "RGB"
        pixels = np.asarray(data["image"]).astype(np.float16)
        return {
            "classLabel": "cat",
            "classLabel_probs": {"cat": 1.0},
            "other": np.zeros(3),
            "logits": pixels.reshape(1, -1)[:, :5],
        }


def test_runner_on_macos(ct: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in: this branch has not met Apple's framework here."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(ct.models, "MLModel", FakeMLModel)
    image = golden_picture(3, SIZE)
    with CoreMLRunner(Path("some.mlpackage"), SIZE, {"logits": (1, 5)}, threads=1) as runner:
        found = runner.run(image)
    assert FakeMLModel.made == ("some.mlpackage", ct.ComputeUnit.ALL)
    assert list(found) == ["logits"]
    assert found["logits"].dtype == np.float32
    np.testing.assert_array_equal(found["logits"][0], image.reshape(-1)[:5])
    with pytest.raises(BundleError, match=r"Core ML refuses broken: Error compiling model:$"):
        CoreMLRunner(Path("broken"), SIZE, {}).open()
    with (
        CoreMLRunner(Path("some.mlpackage"), SIZE, {"lost": (1,)}) as runner,
        pytest.raises(BundleError, match="coreml returned"),
    ):
        runner.run(image)


def test_runner_refuses_a_broken_package(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no Core ML package at"):
        CoreMLRunner(tmp_path / "none.mlpackage", SIZE, {}).open()
