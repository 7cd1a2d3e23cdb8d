"""What a forecast says of an artifact: one finding for each rule that applies, and each kind of op that it hits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["MODEL", "SEVERITIES", "Finding"]

SEVERITIES = {
    "leaves": "the op would run outside of the delegate or accelerator",
    "slow": "it moves or converts data and computes nothing",
    "risk": "results may be wrong, or the model refused",
    "note": "good to know; costs little, or nobody says how much",
}
"""What a finding may mean, the heaviest first."""

MODEL = "model"
"""The ``op`` of a finding that is about the whole graph."""


@dataclass(frozen=True)
class Finding:
    """A forecast by a rule, from the file alone: nothing was run, and nothing measured.

    ``target`` is the delegate, provider or accelerator that it is about, ``severity`` one of :data:`SEVERITIES`,
    ``op`` a kind of op by the format's own name, ``count`` how many there are of it, and ``modules`` the dotted paths
    they come from, as far as they are known. ``source`` is where the rule was looked up, an https address.
    """

    target: str
    severity: str
    op: str
    count: int
    modules: tuple[str, ...]
    message: str
    rewrite: str
    source: str

    def as_json(self) -> dict[str, Any]:
        """An entry of a report's list "forecast"."""
        return {
            "target": self.target,
            "severity": self.severity,
            "op": self.op,
            "count": self.count,
            "modules": list(self.modules),
            "message": self.message,
            "rewrite": self.rewrite,
            "source": self.source,
        }
