"""Models by name, and weights drawn at random for tests and for trying the tools without a checkpoint."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from xformer_mobile.reference import XFA, XFormer
from xformer_mobile.spec import ModelConfig

__all__ = ["count_macs", "count_parameters", "draw_weights", "untrained_model"]

OBJECTNESS_PRIOR = -4.0
"""Bias of the drawn detector's objectness logits: few anchors fire, as in a trained one."""


def untrained_model(config: ModelConfig, seed: int = 0) -> XFormer:
    """A model whose weights are drawn by :func:`draw_weights`, in eval mode. It has learned nothing."""
    model = XFormer(config)
    draw_weights(model, seed)
    return model.eval()


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
            module.w_context.copy_(normal(module.w_context, 0.5, mean=1.0))
            module.w_feature.copy_(normal(module.w_feature, 1.0))
            module.temperature.copy_(normal(module.temperature, 0.3).exp())

    def fit_batch_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        assert module.running_mean is not None and module.running_var is not None
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
    for module in model.modules():
        draw(module)
        if isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(fit_batch_norm))
        elif isinstance(module, XFA):
            handles.append(module.register_forward_hook(fit_temperature))

    height, width = model.config.image_size.height, model.config.image_size.width
    coarse = normal(torch.empty(2, 3, height // 16, width // 16), 1.0)
    pictures = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    pictures = pictures + normal(pictures, 0.3)
    training = model.training
    try:
        model.eval()(pictures)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    if model.config.task == "detect":
        for predictor, anchors in zip(model.head.predictors, model.config.anchors, strict=True):
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
