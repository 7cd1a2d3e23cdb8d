"""Reference models by name or checkpoint: the sample weights, and weights drawn at random for tests."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xformer_mobile.patterns import golden_picture
from xformer_mobile.reference import XFA, XFormer, YOLOv3Head, normalize
from xformer_mobile.spec import DEFAULT_VARIANT, TASKS, ImageSize, ModelConfig, lookup
from xformer_mobile.weights import checkpoint_bytes, load_checkpoint

__all__ = [
    "count_macs",
    "count_parameters",
    "draw_weights",
    "load_reference",
    "one_thread",
    "sample_weights",
    "untrained_model",
]

OBJECTNESS_PRIOR = -4.0
"""Bias of the drawn detector's objectness logits: few anchors fire, as in a trained one."""


SEED = 0
"""Of the weights that are drawn where there is no checkpoint and no sample weights."""


def load_reference(
    checkpoint: Path | None,
    *,
    task: str | None = None,
    variant: str | None = None,
    image_size: ImageSize | None = None,
    labels: tuple[str, ...] | None = None,
) -> tuple[XFormer, dict[str, Any]]:
    """The reference model of a checkpoint, else with the sample weights, and where its weights come from.

    What is not given comes from the checkpoint. A variant that has no sample weights gets drawn ones, which have
    learned nothing.
    """
    sample = sample_weights(task or "classify", variant or DEFAULT_VARIANT) if checkpoint is None else None
    path = checkpoint or sample
    if path is not None:
        loaded = load_checkpoint(path, task=task, variant=variant, image_size=image_size, labels=labels)
        source = "checkpoint" if sample is None else "sample"
        return loaded.model, {"source": source, "sha256": loaded.sha256, "part": loaded.source}
    config = ModelConfig.create(task or "classify", variant or DEFAULT_VARIANT, image_size=image_size, labels=labels)
    model = untrained_model(config, SEED)
    digest = hashlib.sha256(checkpoint_bytes(model)).hexdigest()
    return model, {"source": "untrained", "sha256": digest, "seed": SEED}


def sample_weights(task: str, variant: str = DEFAULT_VARIANT) -> Path | None:
    """The bundled checkpoint of a task, trained on drawn scenes (docs/sample-weights.md); ``None``: there is none."""
    path = Path(__file__).parent / "sample_weights" / f"{variant}-{lookup('task', task, TASKS).name}.safetensors"
    return path if path.is_file() else None


def untrained_model(config: ModelConfig, seed: int = SEED) -> XFormer:
    """A model whose weights are drawn by :func:`draw_weights`, in eval mode. It has learned nothing."""
    model = XFormer(config)
    draw_weights(model, seed)
    return model.eval()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread: the last bits of a sum depend on how it is split."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def draw_weights(model: XFormer, seed: int) -> None:
    """Draw every weight and every BatchNorm statistic at random, scaled so that activations keep their size.

    Weights come from a normal distribution of variance 1/fan_in. One pass over two random pictures then sets
    each BatchNorm's statistics near those of its input, and each XFA's temperature so that what it adds is of
    the order of its input; so no part of the network is too faint for a test to notice. The same seed gives
    the same weights on the same machine and versions.
    """
    rng = np.random.default_rng(seed)

    def normal(like: Tensor, scale: float, mean: float = 0.0) -> Tensor:
        return torch.from_numpy(rng.normal(mean, scale, tuple(like.shape)).astype(np.float32))

    def draw(module: nn.Module) -> None:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.weight.copy_(normal(module.weight, module.weight[0].numel() ** -0.5))
            if module.bias is not None:
                module.bias.copy_(normal(module.bias, 0.1))
        elif isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            sign = torch.from_numpy(rng.choice([-1.0, 1.0], tuple(module.weight.shape), p=[0.1, 0.9]))
            module.weight.copy_(sign * normal(module.weight, 0.2).exp())
            module.bias.copy_(normal(module.bias, 0.2))
        elif isinstance(module, XFA):
            for projection in (module.q, module.k, module.v):
                # The tokens' features have a mean, as after training: sums over tokens do not cancel to noise.
                projection.bias.copy_(normal(projection.bias, 1.0))
            module.w_context.copy_(normal(module.w_context, 0.5, mean=1.0))
            module.w_feature.copy_(normal(module.w_feature, 1.0))
            module.temperature.copy_(normal(module.temperature, 0.3).exp())

    def fit_batch_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        assert module.running_mean is not None
        assert module.running_var is not None
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        variance = variance + 1e-3 * variance.mean()
        module.running_mean.copy_(mean + normal(mean, 0.2) * variance.sqrt())
        module.running_var.copy_(variance * normal(variance, 0.3).exp())

    def fit_temperature(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(module, XFA)
        added = output - module.out.bias
        factor = rng.uniform(0.3, 1.0) * inputs[0].std() / added.std()
        module.temperature.mul_(factor)
        return added * factor + module.out.bias

    handles = []
    for module in reversed(list(model.modules())):  # parts before the whole: XFA draws anew what it has its own way
        draw(module)
        if isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(fit_batch_norm))
        elif isinstance(module, XFA):
            handles.append(module.register_forward_hook(fit_temperature))

    size = model.config.image_size
    drawn = [golden_picture(int(index), size)[0] for index in rng.integers(1 << 32, size=4)]
    pictures = normalize(torch.from_numpy(np.stack(drawn)))  # (4, 3, H, W)
    training = model.training
    try:
        with one_thread():
            model.eval()(pictures)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    if isinstance(model.head, YOLOv3Head):
        for predictor, anchors in zip(model.head.predictors, model.config.anchors, strict=True):
            assert isinstance(predictor, nn.Conv2d)
            assert predictor.bias is not None
            predictor.bias.view(len(anchors), -1)[:, 4] += OBJECTNESS_PRIOR


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def count_macs(model: XFormer) -> int:
    """Multiply-accumulates of convolutions, linear layers and matmuls for one image, by PyTorch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    size = model.config.image_size
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, size.height, size.width))
    return int(counter.get_total_flops()) // 2
