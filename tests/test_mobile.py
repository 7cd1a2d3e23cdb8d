"""The mobile form computes what the reference form computes, in fp32 and safely in fp16."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from xformer_mobile.mobile import SQUARES_BOUND, MobileXFA, to_mobile
from xformer_mobile.patterns import golden_picture
from xformer_mobile.reference import XFormer, XFStage, normalize
from xformer_mobile.spec import TASKS, VARIANTS, ImageSize, ModelConfig, Stage, Variant
from xformer_mobile.weights import resample_context
from xformer_mobile.zoo import untrained_model

TOLERANCE = 1e-4
"""Of each output's range."""


@torch.inference_mode()
def relative_differences(model: XFormer, image: Tensor) -> list[float]:
    """Each output's largest difference between the two forms, as a share of the reference's range."""
    expected, found = model(normalize(image)), to_mobile(model)(image)
    assert [tuple(a.shape) for a in found] == [tuple(a.shape) for a in expected]
    return [float((a - b).abs().max() / (a.max() - a.min())) for a, b in zip(expected, found, strict=True)]


@functools.cache
def drawn_at_256(task: str, variant: str) -> XFormer:
    return untrained_model(ModelConfig.create(task, variant, image_size=ImageSize(256, 256)))


@pytest.mark.parametrize("size", ["256", "320", "512x1024"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", TASKS)
def test_both_forms_agree(task: str, variant: str, size: str) -> None:
    """Also where W_C was resampled: one checkpoint, drawn at 256, serves every size."""
    source = drawn_at_256(task, variant)
    config = replace(source.config, image_size=ImageSize.parse(size))
    model = XFormer(config).eval()
    model.load_state_dict(resample_context(source.state_dict(), config.image_size))
    image = torch.from_numpy(golden_picture(5, config.image_size))
    assert max(relative_differences(model, image)) <= TOLERANCE


@st.composite
def drawn_configs(draw: st.DrawFn) -> ModelConfig:
    """Any task, widths that no table has, any valid size."""
    even = st.integers(2, 12).map(lambda n: 4 * n)
    heads = draw(st.integers(1, 4))
    stages = tuple(Stage(draw(even), draw(even), draw(st.integers(1, 2)), draw(st.integers(1, 3))) for _ in range(3))
    variant = Variant(
        "drawn",
        stem=draw(even),
        stage1=draw(even),
        stage2=draw(even),
        stages=stages,  # type: ignore[arg-type]
        head=draw(even),
        neck=draw(even),
        decoder=draw(even),
        attention_dim=heads * draw(st.integers(8, 24)),
        heads=heads,
        expand_ratio=draw(st.integers(1, 4)),
    )
    size = ImageSize(64 * draw(st.integers(1, 3)), 64 * draw(st.integers(1, 3)))
    labels = tuple(map(str, range(draw(st.integers(2, 20)))))
    return ModelConfig(draw(st.sampled_from(sorted(TASKS))), variant, size, labels)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(config=drawn_configs(), seed=st.integers(0, 2**32 - 1))
def test_both_forms_agree_for_drawn_widths_sizes_and_weights(config: ModelConfig, seed: int) -> None:
    image = torch.from_numpy(golden_picture(seed % 1000, config.image_size))
    assert max(relative_differences(untrained_model(config, seed), image)) <= TOLERANCE


@pytest.mark.parametrize("value", [0, 255])
def test_both_forms_agree_on_a_flat_picture(value: int) -> None:
    config = ModelConfig.create("segment", "xformer_xxs", image_size=ImageSize(128, 128))
    image = torch.full((1, 128, 128, 3), value, dtype=torch.uint8)
    assert max(relative_differences(untrained_model(config), image)) <= TOLERANCE


def test_the_reference_model_is_left_as_it_was() -> None:
    model = untrained_model(ModelConfig.create(variant="xformer_xxs", image_size=ImageSize(64, 64)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mobile = to_mobile(model)
    with torch.no_grad():
        for tensor in (*mobile.parameters(), *mobile.buffers()):
            tensor.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("part", ["attention.w_context", "attention.temperature", "attention.v.bias", "norm2.bias"])
def test_every_part_of_a_block_reaches_the_outputs(part: str) -> None:
    """The agreement above would notice a fault in these: changing one moves the outputs well beyond it."""
    model = untrained_model(ModelConfig.create(variant="xformer_xxs", image_size=ImageSize(128, 128)))
    image = normalize(torch.from_numpy(golden_picture(0, ImageSize(128, 128))))
    with torch.inference_mode():
        before = model(image)[0]
    for name, parameter in model.named_parameters():
        if name.endswith(f"blocks.0.{part}"):
            with torch.no_grad():
                parameter.mul_(1.05)
    with torch.inference_mode():
        moved = (model(image)[0] - before).abs().max() / (before.max() - before.min())
    assert moved > 10 * TOLERANCE


def test_no_module_of_the_reference_form_is_left() -> None:
    for task in TASKS:
        mobile = to_mobile(untrained_model(ModelConfig.create(task, "xformer_xxs", image_size=ImageSize(64, 64))))
        kinds = {type(module) for module in mobile.modules()}
        assert not kinds & {nn.BatchNorm2d, nn.LayerNorm, nn.Linear, nn.Dropout2d}


# ---- fp16 --------------------------------------------------------------------------------------------------


def _attention(weight_scale: float, norm_gain: float) -> MobileXFA:
    """The mobile attention of a block whose Q and K weights and LayerNorm are scaled; exact powers of two."""
    torch.manual_seed(0)
    config = ModelConfig.create(variant="xformer_s", image_size=ImageSize(128, 128))
    stage = XFStage(config.variant.stages[1], config.variant, (4, 4))
    block = stage.blocks[0]
    with torch.no_grad():
        block.attention.q.weight.mul_(weight_scale)
        block.attention.k.weight.mul_(weight_scale)
        block.norm1.weight.mul_(norm_gain)
        return MobileXFA(block.attention, block.norm1).eval()


@pytest.mark.parametrize("norm_gain", [2**-4, 1.0, 2**6])
@pytest.mark.parametrize("weight_scale", [2**-10, 1.0, 2**10])
@torch.no_grad()
def test_sums_of_squares_stay_within_fp16(weight_scale: float, norm_gain: float) -> None:
    """For the worst inputs that LayerNorm can return, not only for typical ones."""
    attention = _attention(weight_scale, norm_gain)
    dim = attention.dim
    one_hot = torch.eye(dim) * dim**0.5  # all of LayerNorm's power in one channel
    typical = torch.randn(64, dim)
    aligned = attention.k.weight[:, :, 0, 0]  # along each row of the weights: the largest response
    inputs = torch.cat((one_hot, -one_hot, typical, aligned))
    inputs = norm_gain * inputs / inputs.norm(dim=1, keepdim=True) * dim**0.5  # |LN(x)| <= gain * sqrt(C)
    for projection in (attention.q, attention.k):
        squares = attention.sum_heads(projection(inputs[:, :, None, None]) ** 2)
        assert squares.max() <= SQUARES_BOUND
        # And not so small that fp16 loses them: typical inputs stay far above the floor.
        assert squares[2 * dim : 2 * dim + 64].median() > 1e-2


@pytest.mark.parametrize("weight_scale", [2**-10, 1.0, 2**10])
@torch.no_grad()
def test_attention_in_fp16_is_finite_and_close(weight_scale: float) -> None:
    attention = _attention(weight_scale, 1.0)
    x = torch.randn(1, attention.dim, *attention.grid)
    expected = attention(x)
    found = attention.half()(x.half()).float()
    assert torch.isfinite(found).all()
    signal, noise = expected.square().sum(), (expected - found).square().sum()
    assert 10 * torch.log10(signal / noise) > 40


@torch.no_grad()
def test_attention_of_a_zero_key_is_finite_in_fp16() -> None:
    attention = _attention(1.0, 1.0)
    attention.k.bias.zero_()
    attention.q.bias.zero_()
    found = attention.half()(torch.zeros(1, attention.dim, *attention.grid, dtype=torch.float16))
    assert torch.isfinite(found).all()


def test_golden_pictures_are_the_same_bytes_everywhere() -> None:
    digests = [hashlib.sha256(golden_picture(index, ImageSize(64, 128)).tobytes()).hexdigest()[:16] for index in (0, 1)]
    assert digests == GOLDEN_DIGESTS
    assert golden_picture(0, ImageSize(64, 128)).shape == (1, 64, 128, 3)
    assert np.ptp(golden_picture(0, ImageSize(64, 64))) > 200


GOLDEN_DIGESTS = ["a3625112e5f2198a", "bcd8561c475f4e93"]
