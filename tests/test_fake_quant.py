"""The simulation of int8 on PyTorch models."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from xformer_mobile.errors import TrainingError
from xformer_mobile.fake_quant import FakeQuant
from xformer_mobile.layers import ConvNormAct
from xformer_mobile.spec import ImageSize, ModelConfig
from xformer_mobile.training import fresh_model


def small() -> nn.Module:
    config = ModelConfig.create("classify", "xformer_xxs", image_size=ImageSize(64, 64), labels=("a", "b"))
    return fresh_model(config, 0).eval()


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def calibrated(model: nn.Module) -> FakeQuant:
    rounding = FakeQuant(model)
    with torch.no_grad(), rounding.counting():
        model(images())
    rounding.set_ranges("minmax")
    return rounding


def test_nothing_changes_until_layers_are_rounded() -> None:
    model = small()
    names = list(model.state_dict())
    with torch.no_grad():
        before = model(images())[0]
        rounding = calibrated(model)
        assert torch.equal(model(images())[0], before)
        rounding.round_only(rounding.layers)
        assert not torch.equal(model(images())[0], before)
        rounding.round_only(())
        assert torch.equal(model(images())[0], before)
    assert list(model.state_dict()) == names


def test_a_layer_computes_with_values_on_their_grids() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    rounding = FakeQuant(model)
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        with rounding.counting():
            model(x)
        rounding.set_ranges("minmax")
        rounding.round_only(["0"])
        found = model(x)
        low, high = rounding.layers["0"].made.range or (0.0, 0.0)
    steps = found / ((high - low) / 255)
    assert (steps - steps.round()).abs().max() < 1e-3
    assert steps.unique().numel() <= 256


def test_batch_norm_makes_no_difference_to_the_weights_grid() -> None:
    """Rounding before the BatchNorm is folded, as here, and after it, as engines do, is the same."""
    torch.manual_seed(0)
    block = ConvNormAct(3, 8, act=False).eval()
    block.norm.weight.data.uniform_(-2, 2)
    scale = block.norm.weight / (block.norm.running_var + block.norm.eps).sqrt()  # type: ignore[operator]
    rounding = FakeQuant(block)
    rounding.layers["conv"].rounding = True
    x = torch.rand(1, 3, 4, 4)
    with torch.no_grad():
        found = block(x)
        folded = block.conv.weight * scale[:, None, None, None]
        step = folded.abs().flatten(1).amax(1)[:, None, None, None] / 127
        expected = nn.functional.conv2d(x, (folded / step).round() * step) + (block.norm.bias)[None, :, None, None]
    assert torch.allclose(found, expected, atol=1e-5)


def test_copies_round_alike_and_gradients_pass() -> None:
    model = small()
    rounding = calibrated(model)
    rounding.round_only(rounding.layers)
    twin = copy.deepcopy(model)
    assert torch.equal(model(images())[0], twin(images())[0])
    model(images())[0].square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) > 50
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert sum(bool(gradient.any()) for gradient in gradients) > 50


def test_ranges_travel() -> None:
    model = small()
    rounding = calibrated(model)
    rounding.round_only(rounding.layers)
    other = small()
    received = FakeQuant(other)
    assert received.ranges() == {}
    received.load_ranges(rounding.ranges())
    with torch.no_grad():
        assert torch.equal(model(images())[0], other(images())[0])


def test_layers_that_are_skipped() -> None:
    model = small()
    assert not any(path.endswith(".q") for path in FakeQuant(model, skip=("q",)).layers)
    assert any(path.endswith(".q") for path in FakeQuant(small()).layers)


def test_values_that_are_not_finite() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    with pytest.raises(TrainingError, match="not finite"), FakeQuant(model).counting(), torch.no_grad():
        model(torch.full((1, 1, 2, 2), np.nan))
