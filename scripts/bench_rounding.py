"""Which techniques of post-training quantization pay for XFormer: the table of docs/quantization.md.

    python scripts/bench_rounding.py --task classify

The mobile form is rounded as int8 rounds, in PyTorch, once for each technique; printed is the signal-to-noise ratio of
its outputs against those of the same model without rounding, on scenes that were not used to calibrate.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from xformer_export.calibration import Calibration, snr_db
from xformer_export.prepare import prepare
from xformer_export.sensitivity import RoundedModel
from xformer_mobile.mobile import ChannelNorm, MobileXFBlock
from xformer_mobile.ranges import METHODS
from xformer_mobile.spec import TASKS


def run_all(rounded: RoundedModel, calibration: Calibration) -> list[dict[str, object]]:
    """The outputs on the pictures that are compared."""
    return [dict(rounded.run(image)) for image in calibration.compared()]


def round_parts(
    rounded: RoundedModel, *, weights: bool = True, values: Callable[[str], bool] = lambda path: True
) -> None:
    """Round all weights or none, and what goes into and comes out of the layers that ``values`` takes."""
    for path, layer in rounded.rounding.layers.items():
        layer.rounding = weights
        layer.given.rounding = layer.made.rounding = values(path)


def smooth(model: nn.Module, calibration: Calibration, run: Callable[[object], object]) -> None:
    """SmoothQuant (arXiv 2211.10438, alpha 0.5) on each LayerNorm of a block and the layers that read it, in place."""
    norms = {path: part for path, part in model.named_modules() if isinstance(part, ChannelNorm)}
    largest: dict[str, Tensor] = {}
    hooks = []
    for path, part in norms.items():

        def hook(module: nn.Module, given: object, made: Tensor, path: str = path) -> None:
            found = made.abs().amax((0, 2, 3))
            largest[path] = torch.maximum(largest.get(path, found), found)

        hooks.append(part.register_forward_hook(hook))
    for image in calibration.counted():
        run(image)
    for handle in hooks:
        handle.remove()
    blocks = {path: part for path, part in model.named_modules() if isinstance(part, MobileXFBlock)}
    for path, block in blocks.items():
        attention, mlp = block.attention, block.mlp[0]
        readers = {"norm1": [attention.q, attention.k, attention.score], "norm2": [mlp]}
        for name, layers in readers.items():
            norm = getattr(block, name)
            weights = torch.cat([layer.weight for layer in layers]).abs().amax((0, 2, 3))
            scale = (largest[f"{path}.{name}"].clamp_min(1e-5) / weights.clamp_min(1e-5)).sqrt()
            norm.weight.data /= scale[None, :, None, None]
            norm.bias.data /= scale[None, :, None, None]
            for layer in layers:
                layer.weight.data *= scale[None, :, None, None]
            if name == "norm1":
                attention.w_v *= scale[:, None]  # V is a weighted sum of the same values


def correct_biases(rounded: RoundedModel, calibration: Calibration) -> None:
    """Bias correction (arXiv 1906.04721, section 4.2): each layer's mean output made what it is without rounding."""
    modules = dict(rounded.model.named_modules())
    layers = [
        path
        for path in rounded.rounding.layers
        if isinstance(modules[path], nn.Conv2d) and modules[path].bias is not None
    ]
    images = [image for image, _ in zip(calibration.counted(), range(16), strict=False)]

    def means(paths: list[str]) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {path: [] for path in paths}
        handles = [
            modules[path].register_forward_hook(
                lambda module, given, made, path=path: found[path].append(made.mean((0, 2, 3)))
            )
            for path in paths
        ]
        for image in images:
            rounded.run(image)
        for handle in handles:
            handle.remove()
        return {path: torch.stack(values).mean(0) for path, values in found.items()}

    round_parts(rounded, weights=False, values=lambda path: False)
    wanted = means(layers)
    round_parts(rounded)
    for path in layers:  # in the order of the network
        modules[path].bias.data += wanted[path] - means([path])[path]  # type: ignore[union-attr, operator]


def techniques(task: str, pictures: int) -> Iterator[tuple[str, float]]:
    """Each technique with what it reaches, in dB."""
    prepared = prepare(None, task=task)
    calibration = Calibration.of(prepared.config, count=pictures)
    rounded = RoundedModel(prepared.mobile, calibration)
    round_parts(rounded, weights=False, values=lambda path: False)
    expected = run_all(rounded, calibration)

    def reached() -> float:
        return snr_db(expected, run_all(rounded, calibration))  # type: ignore[arg-type]

    for method in METHODS:
        rounded.rounding.set_ranges(method)
        round_parts(rounded)
        yield f"ranges by {method}", reached()
    rounded.rounding.set_ranges("percentile")
    round_parts(rounded, values=lambda path: False)
    yield "weights alone rounded", reached()
    round_parts(rounded, weights=False)
    yield "activations alone rounded (the most that AdaRound can reach)", reached()
    round_parts(rounded, values=lambda path: ".blocks." not in path)
    yield "activations of the XF blocks not rounded", reached()
    round_parts(rounded)
    correct_biases(rounded, calibration)
    yield "bias correction", reached()

    smoothed = prepare(None, task=task)
    plain = RoundedModel(smoothed.mobile, calibration)
    round_parts(plain, weights=False, values=lambda path: False)
    smooth(plain.model, calibration, plain.run)  # type: ignore[arg-type]
    changed = snr_db(expected, run_all(plain, calibration))  # type: ignore[arg-type]
    assert changed > 90, changed  # exact algebra
    smoothed.mobile.load_state_dict(plain.model.state_dict())
    rounded = RoundedModel(smoothed.mobile, calibration)
    round_parts(rounded)
    yield "SmoothQuant on the blocks' LayerNorms", reached()


def main() -> None:
    """Print each technique as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="classify", choices=list(TASKS))
    parser.add_argument("--pictures", type=int, default=96)
    options = parser.parse_args()
    for name, found in techniques(options.task, options.pictures):
        print(f"| {name} | {found:.1f} dB |", flush=True)


if __name__ == "__main__":
    main()
