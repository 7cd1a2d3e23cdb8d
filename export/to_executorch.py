"""ExecuTorch: torch.export, what XNNPACK lacks in terms of what it has, the XNNPACK partitioner, a .pte file.

XNNPACK's part of ExecuTorch 1.5 takes a mean over the spatial axes only, matmuls in batches only, and bilinear
upsampling only; each op that it lacks would cut the graph. So for this target, all of it exact:

- a mean over the channels is a 1x1 convolution with the constant kernel 1/C;
- a matmul of matrices is a batch of one;
- nearest upsampling is concatenation and reshape.

What stays outside is the cast from bytes and, with half precision, the casts of the outputs to float32.

int8 starts from another form, in which XFA has no matmuls and no reshapes: :func:`to_patch_form`. XNNPACK's
convolutions are channels-last and a program's tensors are not, so that each reshape costs transposes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from xformer_export.channels_last import PlainNorm, to_patch_form
from xformer_export.op_rules import check_ops
from xformer_export.placement import Placement
from xformer_export.prepare import Converted, Network, Options, Prepared
from xformer_export.program import Decompositions, conversion_errors, export_program, replace_modules
from xformer_export.quantize_executorch import partitioner as int8_partitioner
from xformer_export.quantize_executorch import quantize, quantize_weights
from xformer_export.shortcuts import compiled_when_called, decomposed_once, shared_origins, without_idle_passes
from xformer_export.side_by_side import beside
from xformer_mobile.chatter import silenced
from xformer_mobile.errors import UnavailableError
from xformer_mobile.files import output_errors
from xformer_mobile.mobile import ChannelNorm
from xformer_mobile.optional import import_coremltools, require
from xformer_mobile.spec import ImageSize, lookup
from xformer_mobile.zoo import one_thread

__all__ = ["BACKENDS", "convert", "convert_network"]

BACKENDS = ("xnnpack", "coreml")
"""What ExecuTorch hands the graph to."""

QUANTIZED = ("int8", "int8-weights")


def convert(prepared: Prepared, options: Options, path: Path) -> Converted:
    """Convert the mobile form and write ``path``, a .pte file.

    Same weights, same versions, same bytes, with XNNPACK. For Core ML there is an identifier drawn at random in it, by
    which devices keep what they have compiled.

    Raises:
        ConversionError: ExecuTorch failed, or an op that computes is left outside the backend.
        MissingDependencyError: executorch is not installed.
        UnavailableError: the backend can't be used on this machine, or not in this precision.
    """
    partitioner = lookup("ExecuTorch backend", options.backend, {"xnnpack": _xnnpack, "coreml": _coreml})
    quantization: dict[str, Any] = {}
    if options.precision in QUANTIZED:
        if options.backend != "xnnpack":
            raise UnavailableError(
                f"{options.precision} for ExecuTorch is for XNNPACK only; use --backend xnnpack, or --format coreml"
            )
        with beside("executorch in float32", functools.partial(_float_size, prepared)) as float_size:
            program, found = _quantized_program(prepared, options)
            options.step("executorch: convert")
            content, graph = _lower(program, int8_partitioner())
            options.step("executorch: convert in float32, to compare with")
            quantization = {"fp32_size_bytes": float_size(), **found}
    else:
        # Core ML's compiler makes halves of floats itself, and trips over a program that has them.
        half = options.precision == "fp16" and options.backend != "coreml"
        program = _float_program(prepared, torch.float16 if half else torch.float32)
        content, graph = _lower(program, partitioner(options))
    check_ops("executorch", Counter(graph["not_delegated"]))
    with output_errors(path.name):
        path.write_bytes(content)
    return Converted(
        requires={"executorch": _version_needed(), "backend": options.backend},
        input_dtype="uint8",
        input_layout="NHWC",
        graph={"backend": options.backend, **graph},
        quantization=quantization,
    )


def convert_network(network: Network, path: Path) -> None:
    """Convert any network in float32 with XNNPACK by the same steps and write ``path``.

    What XNNPACK does not take stays outside of it and runs on ExecuTorch's portable kernels.

    Raises:
        ConversionError: ExecuTorch failed.
        MissingDependencyError: executorch is not installed.
    """
    content, _ = _lower(_export(network.module, network.image_size, {}), _xnnpack(Options()))
    with output_errors(path.name):
        path.write_bytes(content)


def _float_program(prepared: Prepared, dtype: torch.dtype) -> ExportedProgram:
    """The mobile form in one float type."""
    return _export(_Typed(prepared.mobile, dtype), prepared.config.image_size, DECOMPOSITIONS)


def _float_size(prepared: Prepared, step: Callable[[str], None]) -> int:
    """The bytes of the .pte file in fp32; a job for a process of its own."""
    with silenced(), one_thread():
        return len(_lower(_float_program(prepared, torch.float32), _xnnpack(Options()))[0])


def _quantized_program(prepared: Prepared, options: Options) -> tuple[ExportedProgram, dict[str, Any]]:
    """The mobile form with quantize and dequantize in it, and how the ranges were chosen."""
    config = prepared.config
    form = to_patch_form(prepared.mobile)
    program = _export(_Typed(form, torch.float32), config.image_size, INT8_DECOMPOSITIONS)
    if options.precision == "int8-weights":
        return _export(quantize_weights(program), config.image_size, {}), {}
    assert options.calibration is not None
    placement = Placement.of(form, options.keep_float)
    names = tuple(config.output_shapes())
    choice = quantize(program, placement, "model", options.calibration, names, options.step)
    return _export(choice.artifact, config.image_size, {}), {"ranges": choice.as_json()}


def _export(module: nn.Module, size: ImageSize, decompositions: Decompositions) -> ExportedProgram:
    """The program of a module that takes bytes (1, H, W, 3)."""
    example = torch.zeros(1, size.height, size.width, 3, dtype=torch.uint8)
    with _quiet():
        require("executorch.exir", extra="executorch")
        return export_program(module, (example,), decompositions)


def _lower(program: ExportedProgram, partitioner: Any) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a .pte file, and what was counted in its graph."""
    with _quiet(), shared_origins(), compiled_when_called(), conversion_errors("ExecuTorch", program):
        exir = require("executorch.exir", extra="executorch")
        with decomposed_once(program), without_idle_passes():
            edge = exir.to_edge_transform_and_lower(
                program,
                partitioner=[partitioner],
                compile_config=exir.EdgeCompileConfig(_check_ir_validity=False),
            )
        module = edge.exported_program().graph_module
        delegated, left = _count(module)
        graph = {
            "partitions": sum("executorch_call_delegate" in str(node.target) for node in module.graph.nodes),
            "delegated": dict(sorted(delegated.items())),
            "not_delegated": dict(sorted(left.items())),
        }
        return bytes(edge.to_executorch().buffer), graph


# ---- the mobile form in the target's own ops ---------------------------------------------------------------


class _ConvNorm(nn.Module):
    """LayerNorm over the channels of (1, C, H, W), its means as 1x1 convolutions."""

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        channels = norm.weight.shape[1]
        self.weight, self.bias = norm.weight, norm.bias
        # A tensor: in half precision, ExecuTorch would cast a number outside of the delegate, at each call.
        self.register_buffer("eps", torch.full((1, 1, 1, 1), norm.eps))
        self.mean = nn.Conv2d(channels, 1, 1, bias=False)
        nn.init.constant_(self.mean.weight, 1 / channels)

    eps: Tensor

    def forward(self, x: Tensor) -> Tensor:
        centered = x - self.mean(x)  # (1, C, H, W)
        variance = self.mean(centered * centered)  # (1, 1, H, W)
        normed: Tensor = centered * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return normed


class _ConvPlainNorm(nn.Module):
    """The same of :class:`PlainNorm`, (1, C, N, P)."""

    def __init__(self, norm: PlainNorm) -> None:
        super().__init__()
        self.register_buffer("eps", torch.full((1, 1, 1, 1), norm.eps))
        self.mean = nn.Conv2d(norm.channels, 1, 1, bias=False)
        nn.init.constant_(self.mean.weight, 1 / norm.channels)

    eps: Tensor

    def forward(self, x: Tensor) -> Tensor:
        variance = self.mean(x * x)  # (1, 1, N, P)
        normed: Tensor = x * torch.rsqrt(variance + self.eps)
        return normed


class _HalfSiLU(nn.Module):
    """SiLU in two ops: PyTorch's own decomposition goes by way of fp32, which XNNPACK can't cast to."""

    def forward(self, x: Tensor) -> Tensor:
        return _silu(x)


class _HalfGELU(nn.Module):
    """GELU by a sigmoid, 5e-4 from the exact one at most (arXiv 1606.08415, section 2).

    XNNPACK has no GELU in half precision; where the two differ most, at 2.7, half precision itself rounds by 9.8e-4.
    """

    def __init__(self) -> None:
        super().__init__()
        linear = 2 * math.sqrt(2 / math.pi)
        self.register_buffer("linear", torch.full((1, 1, 1, 1), linear))
        self.register_buffer("cubic", torch.full((1, 1, 1, 1), linear * 0.044715))

    linear: Tensor
    cubic: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x * (self.linear + self.cubic * (x * x)))


class _Typed(nn.Module):
    """The mobile form, or its patch form, in one float type, with float32 outputs."""

    def __init__(self, mobile: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        rules: dict[type[nn.Module], Any] = {ChannelNorm: _ConvNorm, PlainNorm: _ConvPlainNorm}
        if dtype == torch.float16:
            rules |= {nn.SiLU: lambda _: _HalfSiLU(), nn.GELU: lambda _: _HalfGELU()}
        self.model = replace_modules(mobile, rules).to(dtype).eval()
        self.dtype = dtype

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        # Cast first: XNNPACK transposes floats, not bytes.
        return tuple(output.float() for output in self.model(image.to(self.dtype)))


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """(M, K) x (K, N) as a batch of one."""
    product: Tensor = torch.bmm(a.reshape(1, *a.shape), b.reshape(1, *b.shape))
    return product.reshape(a.shape[0], b.shape[1])


def _upsample_nearest(x: Tensor, output_size: Any, scale_factors: Any) -> Tensor:
    """Twice as high and wide, each pixel four times: (1, C, H, W) -> (1, C, 2H, 2W)."""
    _, channels, height, width = x.shape
    assert output_size is None
    assert list(scale_factors) == [2.0, 2.0]
    columns = x.reshape(channels * height, width, 1)
    rows = _twice(columns, 2).reshape(channels * height, 1, 2 * width)
    return _twice(rows, 1).reshape(1, channels, 2 * height, 2 * width)


def _twice(x: Tensor, axis: int) -> Tensor:
    """``x`` beside itself. The partitioner takes a concatenation of two tensors only if they are not the same one."""
    return torch.cat((x, torch.maximum(x, x)), dim=axis)


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _mean(x: Tensor, axes: Any, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """A mean over rows, (1, C, N, P) -> (1, C, 1, P), as average pooling; a global mean stays what it is."""
    if list(axes) != [2]:
        return NotImplemented
    assert keepdim
    return nn.functional.avg_pool2d(x, (x.shape[2], 1))


DECOMPOSITIONS: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.matmul.default: _matmul,
    torch.ops.aten.upsample_nearest2d.vec: _upsample_nearest,
}

INT8_DECOMPOSITIONS = DECOMPOSITIONS | {torch.ops.aten.mean.dim: _mean, torch.ops.aten.silu.default: _silu}
"""Those of the patch form, whose SiLU's sigmoid and product have scales of their own."""


# ---- backends ----------------------------------------------------------------------------------------------


def _xnnpack(options: Options) -> Any:
    module = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    return module.XnnpackPartitioner()


def _coreml(options: Options) -> Any:
    coremltools = import_coremltools()  # before the backend imports it in its own way
    try:
        partition = importlib.import_module("executorch.backends.apple.coreml.partition")
        compiler = importlib.import_module("executorch.backends.apple.coreml.compiler")
    except ImportError as error:
        raise UnavailableError(
            f"this build of ExecuTorch can't lower to Core ML ({error}); use a build for macOS, or --backend xnnpack"
        ) from error
    specs = compiler.CoreMLBackend.generate_compile_specs(
        minimum_deployment_target=getattr(coremltools.target, f"iOS{options.minimum_ios}"),
        compute_precision=coremltools.precision(f"float{options.precision.removeprefix('fp')}"),
    )
    # Core ML has no bytes: the cast from them stays outside, as with XNNPACK.
    casts = ["dim_order_ops._to_dim_order_copy.default", "_to_copy.default"]
    return partition.CoreMLPartitioner(compile_specs=specs, skip_ops_for_coreml_delegation=casts)


# ---- what was lowered ----------------------------------------------------------------------------------------


def _count(module: Any) -> tuple[Counter[str], Counter[str]]:
    """How often each op is inside a delegate, and outside."""
    delegated: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for node in module.graph.nodes:
        if node.op == "get_attr" and str(node.target).startswith("lowered_module"):
            inside = getattr(module, node.target).original_module.graph
            delegated.update(_kind(part) for part in inside.nodes if part.op == "call_function")
        elif node.op == "call_function" and "executorch_call_delegate" not in str(node.target):
            left.update([_kind(node)])
    return delegated, left - Counter({"getitem": left["getitem"]})


def _kind(node: Any) -> str:
    name: str = getattr(node.target, "__name__", str(node.target))
    return name.removesuffix(".default")


def _version_needed() -> str:
    """The runtime's version: a program runs on the release that made it and on later ones of its major version."""
    import importlib.metadata

    return ".".join(importlib.metadata.version("executorch").split(".")[:2])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's deprecations from the user."""
    logger = logging.getLogger("torch.utils._pytree")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
