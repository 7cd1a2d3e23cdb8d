"""Parity: does an artifact compute what the reference model computes, and do two readers of it agree?

Everything is run first and compared afterwards.
"""

from __future__ import annotations

from xformer_mobile.parity.compare import (
    TOLERANCES,
    Agreement,
    Comparison,
    OutputComparison,
    Tolerance,
    compare,
    compare_outputs,
    finite,
    run_all,
    tolerance_of,
)
from xformer_mobile.parity.readers import READER_TOLERANCES, ReaderComparison, compare_readers

__all__ = [
    "READER_TOLERANCES",
    "TOLERANCES",
    "Agreement",
    "Comparison",
    "OutputComparison",
    "ReaderComparison",
    "Tolerance",
    "compare",
    "compare_outputs",
    "compare_readers",
    "finite",
    "run_all",
    "tolerance_of",
]
