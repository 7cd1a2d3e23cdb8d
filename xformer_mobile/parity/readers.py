"""Two readers of one file: do they agree on what it computes?

The file's own precision has no part in it, as it has in parity: both read the same weights, steps and operators. What
is left is the order of float sums, and in int8 roundings that fall to the other side and go on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xformer_mobile.parity.compare import OutputComparison, Tolerance, compare_outputs, finite
from xformer_mobile.runners.base import Outputs
from xformer_mobile.spec import lookup

__all__ = ["READER_TOLERANCES", "ReaderComparison", "compare_readers"]

READER_TOLERANCES = {
    "fp32": Tolerance(relative_max=1e-4),
    "fp16": Tolerance(snr_db=40.0),
    "int8-weights": Tolerance(relative_max=1e-4),
    "int8": Tolerance(snr_db=3.0),
}


@dataclass(frozen=True)
class ReaderComparison:
    """A second reader's outputs against the engine's. Truthy where they agree."""

    tolerance: Tolerance
    outputs: tuple[OutputComparison, ...]

    def __bool__(self) -> bool:
        return not self.misses()

    def misses(self) -> list[str]:
        """One sentence for each bound that is not kept; NaN keeps none."""
        return [f"the readers disagree: {miss}" for one in self.outputs for miss in self.tolerance.misses(one)]

    def as_json(self) -> dict[str, Any]:
        """The bounds and, by output, the figures; None where one is not finite."""
        return {
            "tolerance": self.tolerance.as_json(),
            "outputs": {
                one.name: {
                    "relative_max": finite(one.relative_max),
                    "snr_db": finite(one.snr_db),
                    "max_abs": finite(one.max_abs),
                }
                for one in self.outputs
            },
        }


def compare_readers(first: Sequence[Outputs], second: Sequence[Outputs], precision: str) -> ReaderComparison:
    """Compare what the engine (``first``) and a second reader returned for the same pictures, at least one.

    Raises:
        UsageError: an unknown precision.
        ValueError: there are no pictures, or not as many on both sides.
    """
    return ReaderComparison(lookup("precision", precision, READER_TOLERANCES), compare_outputs(first, second))
