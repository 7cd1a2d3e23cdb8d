"""Deterministic gates: what can be counted in a bundle and is the same each time, held to limits or to a baseline.

The counts come from the artifacts themselves; what takes a package that is not there comes from the bundle's report,
if that has it. What can't be counted here is left out; a limit on what is left out is an error and passes nothing.
"""

from __future__ import annotations

from xformer_mobile.bench.counts.bundle import count_artifact, count_bundle, read_certificate
from xformer_mobile.bench.counts.certificate import Certificate
from xformer_mobile.bench.counts.gate import (
    COUNTS,
    INSTRUCTIONS,
    INSTRUCTIONS_SLACK,
    Baseline,
    Counts,
    Excess,
    exceeded,
    improved,
)

__all__ = [
    "COUNTS",
    "INSTRUCTIONS",
    "INSTRUCTIONS_SLACK",
    "Baseline",
    "Certificate",
    "Counts",
    "Excess",
    "count_artifact",
    "count_bundle",
    "exceeded",
    "improved",
    "read_certificate",
]
