"""Peers: other authors' networks, exported by the same steps as XFormer, for ``xformer-bench peers``.

The networks are the code of ``transformers``, built from a configuration: nothing is fetched. Each classifies 1000
classes and takes what XFormer's artifacts take, an RGB image of bytes, with the normalization in the graph. Weights are
drawn, so their speed means something and their answers nothing. What a peer gets beyond its authors' code is what
XFormer's mobile form has too, where it is exact: BatchNorm folded, the scale of the pixels in the first convolution,
that of attention in the query; and of two equal forms the one that is faster (docs/latency.md says which).

Sources: MobileViT, arXiv 2110.02178; MobileViTv2, arXiv 2206.02680; MobileNetV2, arXiv 1801.04381; EfficientNet,
arXiv 1905.11946; DeiT, arXiv 2012.12877.
"""

from __future__ import annotations

import contextlib
import os
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.flop_counter import FlopCounterMode

from xformer_export.channels_last import to_channels_last
from xformer_export.formats import CONVERTERS
from xformer_export.prepare import Network, Options, Prepared
from xformer_export.to_onnx import form_for, target_here
from xformer_mobile.bench.peers import BASE, MATMUL, REFERENCE, Contender
from xformer_mobile.errors import ParityError, UnavailableError
from xformer_mobile.mobile import to_mobile
from xformer_mobile.optional import require
from xformer_mobile.patterns import golden_picture
from xformer_mobile.reference import PATCH, XFormer, normalize
from xformer_mobile.runners import LooseArtifact, open_loose
from xformer_mobile.spec import DEFAULT_VARIANT, IMAGENET_MEAN, IMAGENET_STD, ImageSize, ModelConfig, lookup
from xformer_mobile.zoo import count_parameters, one_thread, untrained_model

__all__ = ["CONTENDERS", "MATMUL_SIZE", "PEERS", "TOLERANCE", "Peer", "build_peer", "export_contender"]

CLASSES = 1000

SEED = 0

TOLERANCE = 1e-4
"""How far an artifact's outputs may be from its module's, as a share of their range."""

MATMUL_SIZE = ImageSize(512, 512)
"""The image whose bytes the matmul takes as a matrix."""

MATMUL_WIDTH = 1024

MATMULS = 4
"""So many, one after the other: then the cast of the bytes is nothing beside them."""


@dataclass(frozen=True)
class Peer:
    """Another network. ``article_parameters`` is what its article says; ``build`` makes it for a size and a format."""

    name: str
    title: str
    article_parameters: int
    build: Callable[[ImageSize, str], nn.Module]


# ---- the networks ------------------------------------------------------------------------------------------


def _mobilevit(size: ImageSize, format: str) -> nn.Module:
    model = _build("MobileViT", {})
    attention = _code("mobilevit").MobileViTSelfAttention
    for module in model.modules():
        if isinstance(module, attention):
            module.forward = types.MethodType(_scaled_query_attention, module)
    return model


def _scaled_query_attention(self: Any, x: Tensor) -> Tensor:
    """MobileViT's attention with the query scaled, and not the N x N scores: (B, N, C) -> (B, N, C)."""
    heads = (*x.shape[:-1], -1, self.attention_head_size)
    q, k, v = (project(x).view(heads).transpose(1, 2) for project in (self.query, self.key, self.value))
    scores = torch.matmul(q * self.attention_head_size**-0.5, k.transpose(-1, -2))  # (B, heads, N, N)
    attended = torch.matmul(torch.softmax(scores, dim=-1), v)  # (B, heads, N, D)
    return attended.transpose(1, 2).reshape(*x.shape[:-1], self.all_head_size)


def _mobilevitv2(size: ImageSize, format: str) -> nn.Module:
    model = _build("MobileViTV2", {"width_multiplier": 1.0})
    if format != "onnx":  # ONNX Runtime is faster with the authors' own unfold and fold; other formats have neither
        code = _code("mobilevitv2")
        for module in model.modules():
            if isinstance(module, code.MobileViTV2Layer):
                module.unfolding = _to_patches
                module.folding = _from_patches
            elif isinstance(module, code.MobileViTV2LinearSelfAttention):
                module.forward = types.MethodType(_separable_attention, module)
    return model


def _separable_attention(self: Any, x: Tensor) -> Tensor:
    """MobileViTv2's attention without an expand, which litert-torch can't convert: (1, C, P, N) -> (1, C, P, N)."""
    query, key, value = torch.split(self.qkv_proj(x), [1, self.embed_dim, self.embed_dim], dim=1)
    context = (key * torch.softmax(query, dim=-1)).sum(dim=-1, keepdim=True)  # (1, C, P, 1)
    out: Tensor = self.out_proj(torch.relu(value) * context)
    return out


def _to_patches(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """(1, C, H, W) -> (1, C, P, N), P positions in each of N patches, by reshapes of rank 4 at most."""
    _, channels, height, width = x.shape
    rows, columns = height // PATCH, width // PATCH
    x = x.reshape(channels * rows, PATCH, columns, PATCH).permute(0, 1, 3, 2)  # (C*h, py, px, w)
    x = x.reshape(channels, rows, PATCH * PATCH, columns).transpose(1, 2)  # (C, P, h, w)
    return x.reshape(1, channels, PATCH * PATCH, rows * columns), (height, width)


def _from_patches(x: Tensor, output_size: tuple[int, int]) -> Tensor:
    """(1, C, P, N) -> (1, C, H, W), the inverse of :func:`_to_patches`."""
    channels, (height, width) = x.shape[1], output_size
    rows, columns = height // PATCH, width // PATCH
    x = x.reshape(channels, PATCH * PATCH, rows, columns).transpose(1, 2)  # (C, h, P, w)
    x = x.reshape(channels * rows, PATCH, PATCH, columns).permute(0, 1, 3, 2)  # (C*h, py, w, px)
    return x.reshape(1, channels, height, width)


def _mobilenetv2(size: ImageSize, format: str) -> nn.Module:
    # Padding inside the convolutions; TensorFlow's needs an operator of its own.
    return _build("MobileNetV2", {"depth_multiplier": 1.0, "tf_padding": False})


def _efficientnet(size: ImageSize, format: str) -> nn.Module:
    return _build("EfficientNet", {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280})


def _deit(size: ImageSize, format: str) -> nn.Module:
    """DeiT without distillation is a ViT. Its position embeddings are those of the size that it is built for."""
    settings = {
        "hidden_size": 192,
        "num_hidden_layers": 12,
        "num_attention_heads": 3,
        "intermediate_size": 768,
        "image_size": (size.height, size.width),
        "patch_size": 16,
        "attn_implementation": "eager",  # faster than what sdpa is decomposed to, which guards against NaN
    }
    model = _build("ViT", settings)
    attention = _code("vit").ViTAttention
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, attention):
                for parameter in module.q_proj.parameters():
                    parameter.mul_(module.scaling)
                module.scaling = 1.0
    return model


PEERS = {
    peer.name: peer
    for peer in (
        Peer("mobilevit_s", "MobileViT-S", 5_600_000, _mobilevit),
        Peer("mobilevitv2_100", "MobileViTv2-1.0", 4_900_000, _mobilevitv2),
        Peer("mobilenetv2_100", "MobileNetV2", 3_500_000, _mobilenetv2),
        Peer("efficientnet_b0", "EfficientNet-B0", 5_300_000, _efficientnet),
        Peer("deit_ti", "DeiT-Ti", 5_700_000, _deit),
    )
}
"""The peers, with the parameters that their articles give; adding one is one row and one function."""

CONTENDERS = (BASE, REFERENCE, *PEERS)
"""What ``xformer-bench peers`` measures: XFormer's mobile form, its reference form as it is, and the peers."""


def build_peer(name: str, size: ImageSize, format: str = "onnx") -> tuple[nn.Module, int]:
    """A peer that takes an RGB image of bytes, (1, H, W, 3) uint8, and returns a tuple of logits (1, 1000).

    In eval mode, with drawn weights and BatchNorm folded; the same each time on one machine and versions. The second
    value is the number of its parameters, BatchNorm's included.

    Raises:
        MissingDependencyError: transformers is not installed.
        UsageError: an unknown name.
    """
    peer = lookup("peer", name, PEERS)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = peer.build(size, format).eval()
        parameters = count_parameters(model)
        _draw(model)
        first = _fit_and_fold(model, size)
        for path, module in list(model.named_modules()):
            if isinstance(module, nn.GroupNorm):
                model.set_submodule(path, _MapNorm(module))
    return _Classifier(model, first, cast_first=format != "onnx").eval(), parameters


def _build(kind: str, settings: dict[str, Any]) -> nn.Module:
    """A classifier of ``transformers`` from its configuration."""
    with _careful_import():
        transformers: Any = require("transformers", extra="peers")
        config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **settings)
        model: nn.Module = getattr(transformers, f"{kind}ForImageClassification")(config)
    return model


def _code(name: str) -> Any:
    """The module of ``transformers`` that has a model's code."""
    with _careful_import():
        return require(f"transformers.models.{name}.modeling_{name}", extra="peers")


@contextlib.contextmanager
def _careful_import() -> Iterator[None]:
    """Offline, though nothing here asks for the network; and without what the packages that it imports warn of."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
def _draw(model: nn.Module) -> None:
    """Draw every weight so that activations keep their size; see :func:`xformer_mobile.zoo.draw_weights`."""
    layers = (nn.Conv2d, nn.Linear)
    norms = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
    for module in model.modules():
        if isinstance(module, layers):
            module.weight.normal_(0, module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                module.bias.normal_(0, 0.1)
        elif isinstance(module, norms):
            module.weight.normal_(0, 0.2).exp_()
            module.bias.normal_(0, 0.2)
        else:  # tokens and position embeddings
            for parameter in module.parameters(recurse=False):
                parameter.normal_(0, 0.5)


@torch.no_grad()
def _fit_and_fold(model: nn.Module, size: ImageSize) -> nn.Conv2d:
    """Set each BatchNorm's statistics to those of its input and fold it into the convolution that makes the input.

    One pass over a picture. Returns the first convolution that ran.
    """
    convolutions: list[nn.Conv2d] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def remember(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        assert isinstance(module, nn.Conv2d)
        convolutions.append(module)
        output.made_by = module

    def fit(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        assert module.running_mean is not None
        assert module.running_var is not None
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance + 1e-2 * variance.mean())
        pairs.append((inputs[0].made_by, module))  # type: ignore[attr-defined]

    handles: list[Any] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(remember))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(fit))
    try:
        model(normalize(torch.from_numpy(golden_picture(1, size))))
    finally:
        for handle in handles:
            handle.remove()

    paths = {module: path for path, module in model.named_modules()}
    for conv, norm in pairs:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        model.set_submodule(paths[norm], nn.Identity())
    return convolutions[0]


class _MapNorm(nn.Module):
    """GroupNorm of one group, over all of (1, C, H, W), by means of means.

    PyTorch's becomes InstanceNormalization, which ONNX Runtime 1.31 sums in float32 one value after the other: on a map
    of a 1024x1024 image the sums are wrong in the fourth digit. This takes as long, within 1 %, and as much memory.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        assert norm.num_groups == 1
        self.eps = norm.eps
        self.weight = nn.Parameter(norm.weight.detach()[None, :, None, None].clone())
        self.bias = nn.Parameter(norm.bias.detach()[None, :, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True).mean(1, keepdim=True)  # (1, 1, 1, 1)
        square = (x * x).mean((2, 3), keepdim=True).mean(1, keepdim=True)
        gain = torch.rsqrt(square - mean * mean + self.eps) * self.weight  # (1, C, 1, 1)
        return x * gain + (self.bias - mean * gain)


class _Classifier(nn.Module):
    """A classifier with XFormer's interface: bytes (1, H, W, 3) -> a tuple of logits (1, classes).

    As in XFormer's mobile form, the mean is subtracted and the scale folded into the first convolution. With
    ``cast_first`` floats are transposed, as XNNPACK does it; else bytes are, which is less work.
    """

    def __init__(self, model: nn.Module, first: nn.Conv2d, *, cast_first: bool) -> None:
        super().__init__()
        self.cast_first = cast_first
        std = torch.tensor(IMAGENET_STD)[None, :, None, None]
        with torch.no_grad():
            first.weight.div_(255 * std)
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN)[None, :, None, None])
        self.model = model

    mean: Tensor

    def forward(self, image: Tensor) -> tuple[Tensor]:
        if self.cast_first:
            image = image.to(self.mean.dtype)
        x = image.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean  # (1, 3, H, W)
        return (self.model(x).logits,)


class _Reference(nn.Module):
    """XFormer's reference form with the artifacts' input, as anybody would export it."""

    def __init__(self, model: XFormer) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = self.model(normalize(image))
        return out


class _MatMuls(nn.Module):
    """Large matmuls and nothing else: the bytes as a matrix, by drawn matrices that keep the size of its values."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(SEED)
        self.layers = nn.Sequential(*(nn.Linear(MATMUL_WIDTH, MATMUL_WIDTH, bias=False) for _ in range(MATMULS)))
        with torch.no_grad():
            for parameter in self.layers.parameters():
                values = rng.normal(0, MATMUL_WIDTH**-0.5, tuple(parameter.shape))
                parameter.copy_(torch.from_numpy(values.astype(np.float32)))

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.layers(image.float().reshape(-1, MATMUL_WIDTH)),)


# ---- the artifacts -----------------------------------------------------------------------------------------


def export_contender(
    name: str, size: ImageSize, format: str, path: Path, *, engine: str, variant: str = DEFAULT_VARIANT
) -> Contender:
    """Build a network, convert it, write ``path``, and hold what was written to the module on ``engine``.

    ``name`` is one of :data:`CONTENDERS`, or :data:`~xformer_mobile.bench.peers.MATMUL`, whose size is
    :data:`MATMUL_SIZE` whatever is asked for; ``variant`` is XFormer's.

    Raises:
        ConversionError: the converter can't convert the network.
        MissingDependencyError: a converter, or transformers, is not installed.
        ParityError: the artifact computes something else, or what is not finite.
        UnavailableError: the format is written for XFormer only.
    """
    converter = lookup("format", format, CONVERTERS)
    if converter.convert_network is None:
        raise UnavailableError(f"{format} is written for XFormer only; there are no peers to compare it with")
    counted: nn.Module
    truth: nn.Module
    shapes: dict[str, tuple[int, ...]] = {"logits": (1, CLASSES)}
    if name == BASE:
        reference = _drawn(variant, size)
        prepared = Prepared(reference, to_mobile(reference), {"source": "untrained", "seed": SEED})
        converter.convert(prepared, Options(onnx_target=target_here()), path)
        title, parameters, truth = variant, count_parameters(reference), _Reference(reference)
        counted = prepared.mobile
        if format == "tflite":
            counted = to_channels_last(prepared.mobile)
        elif format == "onnx":
            counted = form_for(prepared.mobile, "fp32", target_here())
    else:
        if name == REFERENCE:
            reference = _drawn(variant, size)
            title, parameters, counted = (
                f"{variant}, reference form",
                count_parameters(reference),
                _Reference(reference),
            )
        elif name == MATMUL:
            size, counted = MATMUL_SIZE, _MatMuls().eval()
            title, parameters = "MatMul", count_parameters(counted)
            shapes = {"product": (3 * size.height * size.width // MATMUL_WIDTH, MATMUL_WIDTH)}
        else:
            title = lookup("peer", name, PEERS).title
            counted, parameters = build_peer(name, size, format)
        truth = counted
        for tensor in (*counted.parameters(), *counted.buffers()):
            tensor.data = tensor.data.contiguous()
        converter.convert_network(Network(name, counted, size, shapes), path)
    artifact = LooseArtifact(path, format, size, shapes)
    macs = _count_and_check(title, counted, truth, artifact, engine)
    return Contender(name, title, artifact, parameters, macs)


def _drawn(variant: str, size: ImageSize) -> XFormer:
    return untrained_model(ModelConfig.create("classify", variant, image_size=size, num_classes=CLASSES), SEED)


@torch.no_grad()
def _count_and_check(title: str, counted: nn.Module, truth: nn.Module, artifact: LooseArtifact, engine: str) -> int:
    """The multiply-accumulates of ``counted`` for one image, once the artifact has agreed with ``truth``.

    Counted by PyTorch's own counter: convolutions, linear layers and matmuls, by one rule for all.
    """
    image = golden_picture(0, artifact.image_size)
    with one_thread():
        with FlopCounterMode(display=False) as counter:
            outputs = counted(torch.from_numpy(image))
        if truth is not counted:
            outputs = truth(torch.from_numpy(image))
    expected = dict(zip(artifact.output_shapes, outputs, strict=True))
    with open_loose(artifact, engine, threads=1) as runner:
        found = runner.run(image)
    for name, values in expected.items():
        wanted = values.numpy()
        if not (np.isfinite(wanted).all() and np.isfinite(found[name]).all()):
            raise ParityError(f"{title} at {artifact.image_size} returns values that are not finite")
        difference = float(np.abs(found[name] - wanted).max() / np.ptp(wanted))
        if difference > TOLERANCE:
            raise ParityError(
                f"{title} at {artifact.image_size} on {engine} differs from its module by {difference:.1e} of the "
                f"range; {TOLERANCE:.0e} is allowed"
            )
    return int(counter.get_total_flops()) // 2
