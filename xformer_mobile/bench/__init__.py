"""Latency: measured in processes of its own, compared in interleaved pairs, and counted where counting is enough."""

from __future__ import annotations

from xformer_mobile.bench.interleave import Comparison, Plan, compare
from xformer_mobile.bench.latency_run import LatencyRun, Measurement, Statistics, check_comparable, noise_of
from xformer_mobile.bench.measure import choose_artifacts, choose_cpus, choose_engines, measure
from xformer_mobile.bench.worker import Settings, Worker

__all__ = [
    "Comparison",
    "LatencyRun",
    "Measurement",
    "Plan",
    "Settings",
    "Statistics",
    "Worker",
    "check_comparable",
    "choose_artifacts",
    "choose_cpus",
    "choose_engines",
    "compare",
    "measure",
    "noise_of",
]
