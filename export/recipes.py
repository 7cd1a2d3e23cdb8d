"""The recipes of ``--quantize``, as rows of data, and what each promises of the artifacts that it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xformer_mobile.bench.counts import Certificate
from xformer_mobile.spec import lookup

__all__ = ["AUTO", "RECIPES", "Promise", "Recipe", "find_recipe"]

AUTO = "auto"
"""The name that stands for the fastest recipe that is good enough."""


GRAPH_BYTES = {"ort": 1024 * 1024}
LEAST_GRAPH_BYTES = 640 * 1024
WEIGHTS_SIZE = 0.26
"""What describes the graph takes the same bytes in float32 and int8, and for small variants they are many: there the
promised share of the size is WEIGHTS_SIZE and GRAPH_BYTES (by format, or LEAST_GRAPH_BYTES) on top."""


LEAST_MACS = {"xformer_xxs": 0.90}
"""By variant, the least share of the multiply-accumulates where it is not the promise's: the narrower the convolutions,
the more of the work is attention's, which stays float."""


LEAST_WEIGHTS = {("xformer_xxs", "executorch"): 0.93}
"""The same of the weights, by variant and format: of a detector for 80 classes, the last convolutions are 4 % of them,
and what stays float, ExecuTorch stores as float."""


@dataclass(frozen=True)
class Promise:
    """What is read back from a written artifact and has to hold, or the export fails.

    ``int8_macs`` and ``int8_weights`` are the least shares of the multiply-accumulates that compute in int8 and of the
    weights' values that are stored in int8; ``size`` is the most of its own fp32 artifact's bytes, unless the graph's
    description is a large part of them.
    """

    int8_macs: float = 0.0
    int8_weights: float = 0.0
    size: float = 1.0

    def of(self, variant: str, format: str) -> Promise:
        """What is promised of that variant of the model in that format."""
        return replace(
            self,
            int8_macs=min(self.int8_macs, LEAST_MACS.get(variant, 1.0)),
            int8_weights=min(self.int8_weights, LEAST_WEIGHTS.get((variant, format), 1.0)),
        )

    def misses(self, found: Certificate, format: str, size_bytes: int, fp32_size_bytes: int) -> list[str]:
        """One sentence for each part that does not hold of an artifact with this certificate and these sizes."""
        graph_bytes = GRAPH_BYTES.get(format, LEAST_GRAPH_BYTES)
        most = min(1.0, max(self.size, WEIGHTS_SIZE + graph_bytes / fp32_size_bytes))
        size = size_bytes / fp32_size_bytes
        shares = (("multiply-accumulates", "macs", self.int8_macs), ("weights", "weights", self.int8_weights))
        missed = [
            f"{found.share(name):.1%} of the {words} are in int8, {least:.0%} are promised"
            for words, name, least in shares
            if found.share(name) < least
        ]
        if size > most:
            missed.append(f"it has {size:.3f} of the fp32 artifact's bytes, {most:.2f} are promised")
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
