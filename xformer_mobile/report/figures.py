"""A verification's numbers in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = [
    "bytes_text",
    "count_text",
    "decibels",
    "inherited",
    "is_equal",
    "large",
    "margin",
    "number",
    "share",
    "tolerance_text",
]

UNKNOWN = "not finite"
"""What the document has null for."""


def decibels(value: float | None, *, equal: bool = False) -> str:
    """A signal-to-noise ratio in dB; ``equal`` says that a null stands for no difference at all."""
    if value is None:
        return "equal" if equal else UNKNOWN
    return f"{value:.1f} dB"


def is_equal(row: Mapping[str, Any]) -> bool:
    """Whether a layer gives exactly what it should: its ratio is infinite, which the document has null for."""
    return bool(row["own_snr_db"] is None and row["passed"] and row["gain"] == 0 and row["shift"] == 0)


def inherited(row: Mapping[str, Any]) -> str:
    """A layer's ratio against the reference run, which not every layer has."""
    return "-" if row["snr_db"] is None else decibels(row["snr_db"])


def number(value: float | None) -> str:
    """A figure with three significant digits."""
    return UNKNOWN if value is None else f"{value:.3g}"


def margin(value: float | None) -> str:
    """A figure near 1 with the digits that tell it from 1."""
    return UNKNOWN if value is None else f"{value:.6f}"


def share(value: float | None) -> str:
    """A share, 0..1, in per cent. What is not all is never rounded up to all."""
    if value is None:
        return UNKNOWN
    percent = 100 * value
    if value < 1:
        percent = min(percent, 99.99)
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def bytes_text(size: int) -> str:
    """A file's size in decimal units."""
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def large(value: int) -> str:
    """A count of parameters or operations with three significant digits."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            digits = max(0, 2 - math.floor(math.log10(value / scale)))
            return f"{value / scale:.{digits}f} {unit}"
    return str(value)


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """A number of things: "1 miss", "2 misses"."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def tolerance_text(tolerance: Mapping[str, Any]) -> str:
    """What is bounded, in words; empty where nothing is."""
    parts = []
    if "snr_db" in tolerance:
        parts.append(f"SNR at least {tolerance['snr_db']:g} dB")
    if "relative_max" in tolerance:
        parts.append(f"difference at most {tolerance['relative_max']:.0e} of the range")
    if tolerance.get("agreement"):
        parts.append(f"agreement at least {share(tolerance['agreement'])}")
    return ", ".join(parts)
