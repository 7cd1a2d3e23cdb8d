"""The recipes of ``--quantize``, as rows of data, and what each promises of the artifacts that it makes."""

from __future__ import annotations

from dataclasses import dataclass

from xformer_mobile.bench.counts import Certificate
from xformer_mobile.spec import lookup

__all__ = ["AUTO", "RECIPES", "Promise", "Recipe", "find_recipe"]

AUTO = "auto"
"""The name that stands for the fastest recipe that is good enough."""


@dataclass(frozen=True)
class Promise:
    """What is read back from a written artifact and has to hold, or the export fails.

    ``int8_macs`` and ``int8_weights`` are the least shares of the multiply-accumulates that compute in int8 and of the
    weights' values that are stored in int8; ``size`` is the most of its own fp32 artifact's bytes.
    """

    int8_macs: float = 0.0
    int8_weights: float = 0.0
    size: float = 1.0

    def misses(self, found: Certificate, size: float) -> list[str]:
        """One sentence for each part that does not hold of an artifact with this certificate and share of the size."""
        shares = (("multiply-accumulates", "macs", self.int8_macs), ("weights", "weights", self.int8_weights))
        missed = [
            f"{found.share(name):.1%} of the {words} are in int8, {least:.0%} are promised"
            for words, name, least in shares
            if found.share(name) < least
        ]
        if size > self.size:
            missed.append(f"it has {size:.3f} of the fp32 artifact's bytes, {self.size:.2f} are promised")
        return missed


@dataclass(frozen=True)
class Recipe:
    """How a bundle is quantized.

    ``precision`` is the manifest's; ``minimum_ios`` the oldest that runs it, unless another is asked for;
    ``calibrated`` whether pictures are needed.
    """

    name: str
    precision: str
    description: str
    minimum_ios: int = 16
    calibrated: bool = False
    promise: Promise | None = None


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("none", "fp32", "as trained"),
        Recipe("fp16", "fp16", "half precision"),
        Recipe(
            "int8-weights",
            "int8-weights",
            "weights stored in int8, one scale a channel; computed in float",
            promise=Promise(int8_weights=0.95, size=0.30),
        ),
        Recipe(
            "int8",
            "int8",
            "weights and activations in int8, calibrated; what is sensitive stays float",
            minimum_ios=17,
            calibrated=True,
            promise=Promise(int8_macs=0.95, int8_weights=0.95, size=0.30),
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; ``auto`` starts from int8.

    Raises:
        UsageError: an unknown recipe.
    """
    return lookup("quantization", name, {**RECIPES, AUTO: RECIPES["int8"]})
