"""LatencyRun: what one session measured, as a JSON file; the same from this machine, Android and iOS.

``schemas/latency_run.schema.json`` is its schema. Nothing in a file is trusted, and what we don't know in one stays in
it: the document is kept as it was read.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xformer_mobile.documents import refuse_constant, validator
from xformer_mobile.errors import BenchmarkError, UsageError

__all__ = ["PHASES", "SCHEMA_VERSION", "LatencyRun", "Measurement", "Statistics", "check_comparable", "noise_of"]

SCHEMA_VERSION = "1.0"

MAX_FILE_BYTES = 64 * 2**20

PHASES = ("load", "first_run", "preprocess", "inference", "postprocess")

MEDIAN_WITHIN = 0.03
"""The median must be known this well, relatively, or the machine was too noisy."""

PROCESSES_WITHIN = 0.05
"""The processes' medians must be within this of their median."""

MAX_PREEMPTED = 0.25
"""So often, for each run, may the system take the processor away."""


@dataclass(frozen=True)
class Statistics:
    """Of one phase's samples. ``spread`` is (p90 - p50) / p50."""

    count: int
    min_ns: int
    p50_ns: float
    p90_ns: float
    p99_ns: float
    spread: float

    @classmethod
    def of(cls, samples_ns: Sequence[int]) -> Statistics:
        """Of one sample or more; percentiles are interpolated linearly."""
        ordered = sorted(samples_ns)
        p50, p90, p99 = (_percentile(ordered, share) for share in (0.5, 0.9, 0.99))
        return cls(len(ordered), ordered[0], p50, p90, p99, (p90 - p50) / p50 if p50 else 0.0)


@dataclass(frozen=True)
class Measurement:
    """One artifact on one engine."""

    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Model, format and engine in words."""
        model, engine = self.document["model"], self.document["engine"]
        height, width = model["image_size"]
        threads = engine["threads"]
        accelerator = f" {engine['accelerator']}" if "accelerator" in engine else ""
        return (
            f"{model['variant']} {model['task']} {height}x{width} {model['precision']}, "
            f"{self.document['artifact']['format']} on {engine['name']}{accelerator}"
            + (f", {threads} thread{'s' if threads > 1 else ''}" if threads else "")
        )

    def samples_ns(self, phase: str) -> list[int]:
        """The raw samples of a phase; empty where it was not measured."""
        return list(self.document["phases"].get(phase, {}).get("samples_ns", ()))

    def by_process_ns(self, phase: str) -> list[list[int]]:
        """The samples of a phase, process by process."""
        samples = self.samples_ns(phase)
        counts = self.document["phases"].get(phase, {}).get("processes", [len(samples)])
        if sum(counts) != len(samples):
            return [samples]
        found, begin = [], 0
        for count in counts:
            found.append(samples[begin : begin + count])
            begin += count
        return [part for part in found if part]

    @property
    def peak_over_loaded_bytes(self) -> int | None:
        """The most memory that running took beyond the loaded model; None where it was not measured."""
        memory = self.document.get("memory", {})
        loaded, peak = memory.get("rss_loaded_bytes"), memory.get("rss_peak_bytes")
        return None if loaded is None or peak is None else max(0, peak - loaded)

    def statistics(self) -> dict[str, Statistics]:
        """By phase, in the order of PHASES, then what other phases the file has."""
        phases = [*PHASES, *(name for name in self.document["phases"] if name not in PHASES)]
        found = {}
        for name in phases:
            phase = self.document["phases"].get(name)
            samples = phase.get("samples_ns") if isinstance(phase, dict) else None
            # A phase that we don't know has passed no schema.
            if isinstance(samples, list) and samples and all(type(value) is int and value >= 0 for value in samples):
                found[name] = Statistics.of(samples)
        return found


@dataclass(frozen=True)
class LatencyRun:
    """A file's content. Make one with :meth:`read` or :meth:`of`."""

    document: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> LatencyRun:
        """Read and check a file.

        Raises:
            BenchmarkError: it can't be read, or is no LatencyRun, or of a newer major version.
        """
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise BenchmarkError(f"{path} has more than {MAX_FILE_BYTES} bytes; a latency run is smaller")
            document = json.loads(path.read_bytes(), parse_constant=refuse_constant)
        except OSError as error:
            raise BenchmarkError(f"can't read {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise BenchmarkError(f"{path} is not JSON: {error}") from error
        return cls.of(document, str(path))

    @classmethod
    def of(cls, document: Any, name: str = "the document") -> LatencyRun:
        """Check a document.

        Raises:
            BenchmarkError: it is no LatencyRun, or of a newer major version.
        """
        from jsonschema.exceptions import best_match

        version = document.get("schema_version") if isinstance(document, dict) else None
        if isinstance(version, str) and version.split(".")[0].isdigit() and version.split(".")[0] != "1":
            raise BenchmarkError(f"{name} has schema version {version}; this version reads 1.x: upgrade xformer-mobile")
        try:
            problem = best_match(validator("latency_run").iter_errors(document))
        except RecursionError as error:
            raise BenchmarkError(f"{name} is not a latency run: it is nested too deeply") from error
        if problem is not None:
            where = "/".join(map(str, problem.absolute_path)) or "its top level"
            raise BenchmarkError(f"{name} is not a latency run: at {where}: {problem.message[:200]}")
        return cls(document)

    @property
    def machine(self) -> Mapping[str, Any]:
        machine: Mapping[str, Any] = self.document["machine"]
        return machine

    @property
    def machine_name(self) -> str:
        """The machine in words."""
        kind = self.machine.get("model") or self.machine.get("cpu") or self.machine.get("architecture") or "unknown"
        return f"{kind}, {self.machine['system']} {self.machine.get('release', '')}".strip()

    @property
    def measurements(self) -> list[Measurement]:
        return [Measurement(entry) for entry in self.document["measurements"]]

    def as_bytes(self) -> bytes:
        """The file: one form for one content, with whatever was in it."""
        return (json.dumps(self.document, indent=1, allow_nan=False) + "\n").encode()


def noise_of(measurement: Measurement) -> list[str]:
    """Why the inference times can't be relied on, in words; empty where they can."""
    samples, reasons = measurement.samples_ns("inference"), []
    middle = statistics.median(samples)
    half = _half_width(samples) / middle if middle else math.inf
    if half > MEDIAN_WITHIN:
        known = "is not known at all" if math.isinf(half) else f"is known to {half:.1%} only"
        reasons.append(f"the median of {len(samples)} samples {known}, {MEDIAN_WITHIN:.0%} is asked for")
    medians = [statistics.median(part) for part in measurement.by_process_ns("inference")]
    apart = max(abs(value / middle - 1) for value in medians) if middle else 0.0
    if apart > PROCESSES_WITHIN:
        reasons.append(f"a process differs from the others by {apart:.1%}, {PROCESSES_WITHIN:.0%} is allowed")
    disturbances = measurement.document.get("disturbances", {})
    preempted = (disturbances.get("preempted") or 0) / len(samples)
    if preempted > MAX_PREEMPTED:
        reasons.append(f"the system took the processor away {preempted:.1f} times a run, {MAX_PREEMPTED} are allowed")
    if disturbances.get("unstable_warm_ups"):
        reasons.append("the times were still changing when the warm-up was given up")
    if disturbances.get("thermal_state", "nominal") not in ("nominal", "none", "light", "fair"):
        reasons.append(f"the thermal state was {disturbances['thermal_state'][:40]}")
    return reasons


def check_comparable(files: Mapping[str, LatencyRun]) -> None:
    """Refuse to compare files in absolute terms; say why.

    Raises:
        UsageError: always. Of one machine and one boot too: a stored baseline raises false alarms in most runs.
    """
    names = " and ".join(files)
    ids = {run.machine["id"] for run in files.values()}
    if len(ids) > 1:
        listed = "; ".join(f"{name}: {run.machine_name}" for name, run in files.items())
        raise UsageError(
            f"{names} are from different machines ({listed}): their times are never compared; compare the two bundles "
            "on one machine"
        )
    raise UsageError(
        f"{names} are stored measurements: the machine was not in the same state for both, and a gate on that raises "
        "false alarms in most runs; compare the two bundles, which are then measured interleaved, or see both files "
        "with xformer-bench show"
    )


def _percentile(ordered: Sequence[int], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _half_width(samples: Sequence[int]) -> float:
    """Half the width of a 95 % interval of the median, from the order statistics (the binomial's normal limit)."""
    count = len(samples)
    away = math.ceil(0.98 * math.sqrt(count))  # 1.96 standard deviations of sqrt(count) / 2
    low, high = count // 2 - away, (count - 1) // 2 + away
    if low < 0 or high >= count:
        return math.inf
    ordered = sorted(samples)
    return (ordered[high] - ordered[low]) / 2
