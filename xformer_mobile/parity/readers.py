"""Two readers of one file: do they agree on what it computes?

Both read the same weights, quantization steps and operators, so that what a precision loses against the reference model
is in both. What is left is the order of float sums, roundings to fp16 that an engine leaves out, and in int8 roundings
that fall to the other side and go on from there.
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
    "fp16": Tolerance(snr_db=30.0),
    "int8-weights": Tolerance(relative_max=1e-4),
    "int8": Tolerance(snr_db=3.0),
}
"""By precision. Measured on x86-64 with ONNX Runtime 1.31 against onnx 1.23, and with LiteRT 2.3 against TensorFlow
2.21, three golden pictures each, on the sample weights of ``xformer_s`` at 256x256 and on ``xformer_xxs`` with drawn
weights at 64x64; the worst picture of both formats:

- fp32: 1.2e-5 and 8.3e-6 of the range, drawn detector included; int8-weights, which compute in float: 1.6e-6, 1.9e-6.
- fp16: 53 and 39 dB in ONNX, whose reference evaluator rounds each value to fp16 where ONNX Runtime computes whole
  chains in fp32; more than 100 dB in TFLite, which computes in fp32.
- int8: 19 and 15 dB in ONNX, where ONNX Runtime fuses: without that it returns the evaluator's very bits. 18 and 5.6 dB
  in TFLite, where XNNPACK and TensorFlow's kernels round in different ways; there the drawn weights, which nothing has
  made robust, are as far from the reference model. So, as in parity, int8's bound only shows that both read the same
  model: what has nothing to do with the other is at 0 dB or below.
"""


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
