"""Parity: does an artifact compute what the reference model computes?

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
    run_all,
)

__all__ = ["TOLERANCES", "Agreement", "Comparison", "OutputComparison", "Tolerance", "compare", "run_all"]
