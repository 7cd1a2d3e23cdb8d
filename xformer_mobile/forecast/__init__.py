"""Preflight: what of an artifact is likely to bite on a phone, by rules with sources. A forecast, no measurement."""

from __future__ import annotations

from xformer_mobile.forecast.findings import SEVERITIES, Finding
from xformer_mobile.forecast.preflight import forecast

__all__ = ["SEVERITIES", "Finding", "forecast"]
