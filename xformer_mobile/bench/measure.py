"""``xformer-bench run``: each engine and artifact in processes of their own, each phase apart, raw samples kept."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xformer_mobile import __version__
from xformer_mobile.artifact import Bundle
from xformer_mobile.bench import machine
from xformer_mobile.bench.latency_run import SCHEMA_VERSION, LatencyRun, Measurement, noise_of
from xformer_mobile.bench.worker import Loaded, Settings, WarmUp, Worker
from xformer_mobile.errors import UnavailableError, UsageError
from xformer_mobile.runners import ENGINES
from xformer_mobile.spec import lookup

__all__ = ["RUNS_AN_ORDER", "choose_artifacts", "choose_cpus", "choose_engines", "measure"]

RUNS_AN_ORDER = 10
"""So many runs before progress is told."""

PHASE_RUNS = 10
"""Preprocessing and postprocessing are timed so often in each process."""


def choose_engines(bundle: Bundle, names: Sequence[str]) -> tuple[str, ...]:
    """The engines that are asked for; without names, every installed one that runs an artifact of the bundle.

    Raises:
        UsageError: an unknown engine, or one whose formats the bundle does not have.
        UnavailableError: no engine is installed for any of the bundle's formats, or the one that is asked for has no
            speed on this system.
    """
    for name in names:
        row = lookup("engine", name, ENGINES)
        if not set(row.formats) & set(bundle.formats):
            raise UsageError(f"{name} runs {', '.join(row.formats)}; {bundle.path} has {', '.join(bundle.formats)}")
        if not row.is_native:
            raise UnavailableError(
                f"{name} runs on {' and '.join(row.systems)} only; here its artifact is evaluated, and how long that "
                "takes says nothing"
            )
    if names:
        return tuple(dict.fromkeys(names))
    rows = [row for row in ENGINES.values() if set(row.formats) & set(bundle.formats)]
    # XNNPACK's provider is in few builds of ONNX Runtime: where it is wanted, it is named.
    found = tuple(row.name for row in rows if row.is_installed and row.is_native and row.name != "onnxruntime-xnnpack")
    if not found:
        raise UnavailableError(
            f"no engine for {', '.join(bundle.formats)} is installed that can be timed here; xformer-doctor says what "
            "to type"
        )
    return found


def choose_artifacts(bundle: Bundle, engines: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Each engine with each of the bundle's formats that it runs."""
    return tuple((name, format) for name in engines for format in ENGINES[name].formats if format in bundle.formats)


def choose_cpus(threads: int) -> tuple[int, ...]:
    """The processors to bind to: the last ones, for interrupts come to the first. None if there are too few."""
    usable = machine.usable_cpus()
    return usable[-threads:] if threads <= len(usable) else ()


@dataclass
class _Gathered:
    """What the processes of one engine said."""

    loaded: list[Loaded] = field(default_factory=list)
    warm_ups: list[WarmUp] = field(default_factory=list)
    samples: dict[str, list[list[int]]] = field(default_factory=dict)
    peaks: list[int | None] = field(default_factory=list)
    preempted: int = 0


def measure(
    path: Path,
    engines: Sequence[str],
    *,
    threads: int = 1,
    runs: int = 300,
    processes: int = 3,
    report: Callable[[str, int], None] = lambda name, runs: None,
) -> LatencyRun:
    """Measure each artifact of a bundle that ``engines`` run: ``runs`` runs, shared out among ``processes`` processes.

    ``report`` is called with what is measured and the number of runs that were just done.

    Raises:
        XFormerError: a model can't be loaded, or a process died.
    """
    bundle = Bundle.open(path)
    created = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = machine.describe_machine()
    pairs = choose_artifacts(bundle, engines)
    gathered = [_Gathered() for _ in pairs]
    settings = [Settings(path, engine, threads, choose_cpus(threads), format) for engine, format in pairs]
    # In turns, so that a change of the machine does not happen to one engine alone.
    for number in range(processes):
        share = runs // processes + (number < runs % processes)
        for chosen, found in zip(settings, gathered, strict=True):
            _one_process(chosen, share, found, report)
    measurements = [_measurement(bundle, chosen, found) for chosen, found in zip(settings, gathered, strict=True)]
    for entry in measurements:
        entry["disturbances"]["too_noisy"] = noise_of(Measurement(entry))
    return LatencyRun.of(
        {
            "schema_version": SCHEMA_VERSION,
            "generator": {"name": "xformer-mobile", "version": __version__},
            "created": created,
            "machine": about,
            "tools": machine.describe_tools(),
            "measurements": measurements,
        }
    )


def _one_process(settings: Settings, runs: int, gathered: _Gathered, report: Callable[[str, int], None]) -> None:
    with Worker(settings) as worker:
        worker.prepare()
        loaded = worker.load()
        gathered.loaded.append(loaded)
        gathered.warm_ups.append(worker.warm_up())
        inference: list[int] = []
        while len(inference) < runs:
            sample = worker.run(min(RUNS_AN_ORDER, runs - len(inference)))
            inference += sample.wall_ns
            gathered.preempted += sample.preempted
            report(f"{settings.format} on {settings.engine}", len(sample.wall_ns))
        gathered.peaks.append(worker.peak_bytes())
        found = {"load": [loaded.load_ns], "first_run": [loaded.first_run_ns], "inference": inference}
        for phase, samples in {**found, **worker.phases(PHASE_RUNS)}.items():
            gathered.samples.setdefault(phase, []).append(samples)


def _measurement(bundle: Bundle, settings: Settings, gathered: _Gathered) -> dict[str, Any]:
    last = gathered.loaded[-1]
    artifact = bundle.artifact(last.format)
    size = bundle.image_size
    phases: dict[str, dict[str, Any]] = {
        phase: {"samples_ns": [value for part in parts for value in part], "processes": [len(part) for part in parts]}
        for phase, parts in gathered.samples.items()
    }
    phases["inference"]["warm_ups_ns"] = [value for warm_up in gathered.warm_ups for value in warm_up.samples_ns]
    # The process that took the most beyond its loaded model.
    peaks = [
        (peak - loaded.rss_loaded_bytes, peak, loaded)
        for peak, loaded in zip(gathered.peaks, gathered.loaded, strict=True)
        if peak is not None and loaded.rss_loaded_bytes is not None
    ]
    memory: dict[str, int | None] = {}
    if peaks:
        _, peak, loaded = max(peaks, key=lambda entry: entry[0])
        memory = {
            "rss_start_bytes": loaded.rss_start_bytes,
            "rss_loaded_bytes": loaded.rss_loaded_bytes,
            "rss_peak_bytes": peak,
        }
    return {
        "model": {
            "task": bundle.task,
            "variant": bundle.manifest["model"]["variant"],
            "precision": bundle.precision,
            "image_size": [size.height, size.width],
        },
        "artifact": {"format": artifact.format, "sha256": artifact.sha256, "size_bytes": artifact.size_bytes},
        "engine": {
            "name": settings.engine,
            "threads": settings.threads,
            "cpus": list(settings.cpus) if last.pinned else [],
            "denormals": last.denormals,
        },
        "phases": phases,
        "memory": memory,
        "disturbances": {
            "preempted": gathered.preempted,
            "unstable_warm_ups": sum(not warm_up.stable for warm_up in gathered.warm_ups),
        },
    }
