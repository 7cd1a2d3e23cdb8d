"""The reference form: sizes, costs and shapes of the article, and the properties of XFA."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xformer_mobile.errors import ImageSizeError, UsageError
from xformer_mobile.reference import XFA, XFormer, fold_patches, unfold_patches
from xformer_mobile.spec import TASKS, VARIANTS, ImageSize, ModelConfig, default_labels, lookup
from xformer_mobile.zoo import count_macs, count_parameters, draw_weights, untrained_model


def test_classifier_has_the_parameters_and_macs_of_the_article() -> None:
    model = XFormer(ModelConfig.create("classify", "xformer_s", image_size=ImageSize(256, 256)))
    assert round(count_parameters(model) / 1e6, 3) == 5.477
    assert round(count_macs(model) / 1e9, 2) == 1.69


def test_detector_has_the_parameters_of_the_article() -> None:
    model = XFormer(ModelConfig.create("detect", "xformer_s", num_classes=80, image_size=ImageSize(320, 320)))
    assert 6.2e6 <= count_parameters(model) <= 6.4e6


def test_variants_are_ordered_by_size() -> None:
    sizes = [count_parameters(XFormer(ModelConfig.create(variant=name))) for name in VARIANTS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < sizes[0] / 2
    assert sizes[2] < sizes[1] / 2


@pytest.mark.parametrize("size", ["64", "192x64", "128x256"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", TASKS)
def test_outputs_have_the_declared_shapes(task: str, variant: str, size: str) -> None:
    config = ModelConfig.create(task, variant, num_classes=7, image_size=ImageSize.parse(size))
    outputs = XFormer(config).eval()(torch.zeros(1, 3, config.image_size.height, config.image_size.width))
    assert [tuple(output.shape) for output in outputs] == list(config.output_shapes().values())


@pytest.mark.parametrize("classes", [1, 2, 1000])
@pytest.mark.parametrize("task", TASKS)
def test_any_number_of_classes(task: str, classes: int) -> None:
    config = ModelConfig.create(task, "xformer_xxs", num_classes=classes, image_size=ImageSize(64, 64))
    channels = {output.shape[1] for output in XFormer(config).eval()(torch.zeros(1, 3, 64, 64))}
    assert channels == ({3 * (5 + classes)} if task == "detect" else {classes})


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("250", "192x192 or 256x256"),
        ("256x300", "256x256 or 256x320"),
        ("0", "64x64"),
        ("1", "64x64"),
        ("100000", "4096x4096"),
    ],
)
def test_other_sizes_name_the_nearest_valid_ones(text: str, nearest: str) -> None:
    with pytest.raises(ImageSizeError) as caught:
        ImageSize.parse(text)
    assert str(caught.value).endswith(f"nearest valid: {nearest}")


@pytest.mark.parametrize("text", ["", "x", "256x", "-64", "256x256x3", "256.0", "9" * 50, "\u0662\u0665\u0666"])
def test_a_size_that_is_no_size(text: str) -> None:
    with pytest.raises(ImageSizeError, match="such as 256 or 512x1024"):
        ImageSize.parse(text)


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(UsageError, match=r"'xformer_m'.*valid: xformer_s, xformer_xs, xformer_xxs"):
        lookup("variant", "xformer_m", VARIANTS)


@pytest.mark.parametrize("classes", [0, -1, 10**9])
def test_an_absurd_number_of_classes(classes: int) -> None:
    with pytest.raises(UsageError, match="number of classes"):
        default_labels(classes)


def test_fold_is_the_inverse_of_unfold_and_tokens_are_patch_positions() -> None:
    x = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    tokens = unfold_patches(x)
    assert tokens.shape == (2, 4, 6, 3)
    assert torch.equal(fold_patches(tokens, 4, 6), x)
    # Position 1 of patch 0 is the pixel to the right of the corner.
    assert torch.equal(tokens[:, 1, 0], x[:, :, 0, 1])
    # Position 2 of patch 4 (second row of patches, second column) is one pixel below the patch's corner.
    assert torch.equal(tokens[:, 2, 4], x[:, :, 3, 2])


def _attention(grid: tuple[int, int], *, seed: int = 0) -> XFA:
    torch.manual_seed(seed)
    attention = XFA(dim=12, attention_dim=8, heads=2, grid=grid)
    with torch.no_grad():
        attention.w_context.normal_(1.0, 0.5)
        attention.temperature.uniform_(0.5, 2.0)
    return attention.eval()


@torch.no_grad()
def test_xfa_is_the_stated_formula() -> None:
    """Literally, token by token: lambda * Qn (S_C S_F^T) V / N, with the D x D map formed."""
    attention = _attention((2, 3))
    x = torch.randn(1, 4, 6, 12)
    heads = []
    for head in range(2):
        rows = slice(head * 4, head * 4 + 4)
        positions = []
        for position in range(4):
            tokens = x[0, position]  # (N, dim)
            q, k, v = (
                tokens @ linear.weight[rows].T + linear.bias[rows] for linear in (attention.q, attention.k, attention.v)
            )
            q, k = q / q.norm(dim=1, keepdim=True), k / k.norm(dim=1, keepdim=True)
            context_score = k.T @ attention.w_context[head].flatten() / 6  # (D)
            feature_score = k @ attention.w_feature[head]  # (N)
            attention_map = torch.outer(context_score, feature_score)  # (D, N)
            positions.append(attention.temperature[head] * q @ attention_map @ v / 6)  # (N, D)
        heads.append(torch.stack(positions))  # (P, N, D)
    expected = attention.out(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x)[0], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_xfa_keeps_the_positions_of_a_patch_apart() -> None:
    attention = _attention((2, 2))
    x = torch.randn(1, 4, 4, 12)
    changed = x.clone()
    changed[:, 2] += 1
    difference = (attention(changed) - attention(x)).abs().amax(dim=(0, 2, 3))
    assert (difference > 0).tolist() == [False, False, True, False]


@torch.no_grad()
def test_xfa_costs_grow_linearly_in_tokens() -> None:
    def cost(side: int) -> int:
        attention = _attention((side, side))
        with FlopCounterMode(display=False) as counter:
            attention(torch.zeros(1, 4, side * side, 12))
        return int(counter.get_total_flops())

    once = cost(4)
    assert once > 0
    assert [cost(side) / once for side in (8, 16, 32)] == [4, 16, 64]


@torch.no_grad()
def test_xfa_keeps_its_scale_at_another_number_of_tokens() -> None:
    """The sums over tokens are means: a constant picture gives the same output on any grid."""
    small, large = _attention((2, 2)), _attention((8, 8))
    large.load_state_dict({**small.state_dict(), "w_context": torch.full((2, 8, 8), 0.7)})
    small.w_context.fill_(0.7)
    token = torch.randn(1, 1, 1, 12)
    torch.testing.assert_close(small(token.expand(1, 4, 4, 12))[0, 0, 0], large(token.expand(1, 4, 64, 12))[0, 0, 0])


@pytest.mark.parametrize("task", TASKS)
def test_drawn_weights_keep_activations_and_every_xfa_in_scale(task: str) -> None:
    model = untrained_model(ModelConfig.create(task, "xformer_xs", image_size=ImageSize(128, 128)), seed=3)
    ratios: list[float] = []
    for module in model.modules():
        if isinstance(module, XFA):
            module.register_forward_hook(lambda _, inputs, output: ratios.append(float(output.std() / inputs[0].std())))
    with torch.no_grad():
        outputs = model(torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    assert len(ratios) == 9
    assert all(0.05 < ratio < 20 for ratio in ratios), ratios
    assert all(0.02 < float(output.std()) < 50 for output in outputs)


def test_drawn_weights_are_the_same_for_a_seed_and_differ_between_seeds() -> None:
    config = ModelConfig.create(variant="xformer_xxs", image_size=ImageSize(64, 64))
    first, again, other = untrained_model(config, 1), untrained_model(config, 1), untrained_model(config, 2)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.head.fc.weight, other.head.fc.weight)  # type: ignore[union-attr]


def test_drawing_keeps_training_mode_and_removes_its_hooks() -> None:
    model = XFormer(ModelConfig.create(variant="xformer_xxs", image_size=ImageSize(64, 64))).train()
    draw_weights(model, 0)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
