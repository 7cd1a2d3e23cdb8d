"""``xformer-bench peers``: XFormer beside other networks, each in a process of its own, all in one interleaved run.

At one image size there is a process of each model, on the same processors. In a *turn* every model is measured once, in
an order that is drawn; a slow one only in some of the turns. A *round* is some turns of the same processes. So a ratio
is of two measurements that are close in time, and what belongs to a process is drawn anew with the next round. A large
matmul takes part like a model: what it reaches is what the engine can do on the machine in that run.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from xformer_mobile import __version__
from xformer_mobile.bench import machine
from xformer_mobile.bench.interleave import MAX_RUNS, SLOT_NS, Clock
from xformer_mobile.bench.latency_run import SCHEMA_VERSION, LatencyRun, Measurement, noise_of
from xformer_mobile.bench.measure import choose_cpus
from xformer_mobile.bench.sequential import ALPHA, combined_interval
from xformer_mobile.bench.worker import Loaded, Sample, Settings, WarmUp, Worker
from xformer_mobile.documents import validator
from xformer_mobile.errors import BenchmarkError
from xformer_mobile.files import tree_sha256
from xformer_mobile.runners import LooseArtifact
from xformer_mobile.spec import ImageSize

__all__ = ["BASE", "MATMUL", "PAPER", "REFERENCE", "Contender", "PeersPlan", "check_document", "measure_peers"]

BASE = "xformer"
"""The name of what all others are compared with: XFormer's mobile form."""

REFERENCE = "xformer-reference"
"""XFormer's reference form, exported as it is."""

MATMUL = "matmul"

PAPER = {
    "claim": "about 2x faster than MobileViT and 32 % less GPU memory, at 1024x1024",
    "source": "arXiv 2207.07268",
    "peer": "mobilevit_s",
    "image_size": [1024, 1024],
    "latency_ratio": 2.0,
    "memory_ratio": 1 / (1 - 0.32),
}
"""What XFormer's authors say, on their machine; ratios are MobileViT / XFormer."""

MAX_TURNS = 20
"""Most turns of one round."""

MIN_TURNS = 2
"""So often at least is each model measured in a round: with five rounds, the fewest of which an interval is known."""

WARM_UP_NS = 5_000_000_000
"""After so long a warm-up is given up: the first runs of a large model take several times as long as the others."""


@dataclass(frozen=True)
class Contender:
    """A model to measure. ``macs`` are the multiply-accumulates of what was exported, for one image."""

    name: str
    title: str
    artifact: LooseArtifact
    parameters: int
    macs: int


@dataclass(frozen=True)
class PeersPlan:
    """How long to measure: ``seconds`` of running each model at each size, shared out among ``rounds`` rounds.

    Slow models are run MIN_TURNS times a round all the same.
    """

    rounds: int = 5
    seconds: float = 20.0
    alpha: float = ALPHA
    clock: Clock = "wall"


class Process(Protocol):
    """What is needed of a :class:`Worker`."""

    def prepare(self) -> None: ...
    def load(self) -> Loaded: ...
    def warm_up(self, limit_ns: int = ...) -> WarmUp: ...
    def run(self, count: int) -> Sample: ...
    def peak_bytes(self) -> int | None: ...


Start = Callable[[Settings], contextlib.AbstractContextManager[Process]]

Report = Callable[[str, float], None]


@dataclass
class _Gathered:
    """What the processes of one model at one size said, round by round. ``turns`` has medians by turn."""

    loaded: list[Loaded] = field(default_factory=list)
    warm_ups: list[WarmUp] = field(default_factory=list)
    peaks: list[int | None] = field(default_factory=list)
    wall_ns: list[list[int]] = field(default_factory=list)
    turns: list[dict[int, tuple[float, float]]] = field(default_factory=list)
    cpu_ns: list[int] = field(default_factory=list)
    preempted: int = 0
    runs: int = 0
    turns_a_round: int = 0


def measure_peers(
    contenders: Sequence[Contender],
    matmul: Contender,
    *,
    engine: str,
    threads: int = 1,
    plan: PeersPlan = PeersPlan(),
    report: Report = lambda text, share: None,
    left_out: Sequence[Mapping[str, Any]] = (),
    start: Start = Worker,
    coin: random.Random | None = None,
) -> dict[str, Any]:
    """Measure every contender at its size, with the matmul, and return the document of it.

    The document is a LatencyRun with a member ``peers`` more, ``schemas/peers.schema.json``. ``report`` is called with
    what is done and the share of all that is behind. ``left_out`` is what could not be exported, for the document.
    ``start`` and ``coin`` stand for the processes and the randomness.

    Raises:
        BenchmarkError: a size without XFormer itself, or a process that died.
        XFormerError: a model can't be loaded.
    """
    coin = coin or random.Random()
    created = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = machine.describe_machine()
    sizes: dict[ImageSize, list[Contender]] = {}
    for contender in contenders:
        sizes.setdefault(contender.artifact.image_size, []).append(contender)
    for size, group in sizes.items():
        if group[0].name != BASE:
            raise BenchmarkError(f"at {size} there is no XFormer to compare with")
        group.append(matmul)
    cpus = choose_cpus(threads)
    gathered = {(size, one.name): _Gathered() for size, group in sizes.items() for one in group}
    pixels = sum(size.height * size.width for size in sizes)
    behind = 0.0
    for number in range(plan.rounds):
        order = list(sizes)
        coin.shuffle(order)
        for size in order:
            weight = size.height * size.width / pixels / plan.rounds
            text = f"round {number + 1} of {plan.rounds}, {size}"
            settings = {one.name: Settings(one.artifact, engine, threads, cpus) for one in sizes[size]}
            mine = {name: gathered[size, name] for name in settings}
            _round(settings, mine, plan, coin, start, _part(report, text, behind, weight))
            behind += weight
    measurements, rows = [], []
    for size, group in sizes.items():
        for one in group:
            found = gathered[size, one.name]
            measurements.append(_measurement(one, engine, threads, cpus, found))
            rows.append(_row(size, one, found, gathered[size, BASE], gathered[size, MATMUL], matmul.macs, plan))
    document = {
        "schema_version": SCHEMA_VERSION,
        "generator": {"name": "xformer-mobile", "version": __version__},
        "created": created,
        "machine": about,
        "tools": machine.describe_tools((*machine.TOOLS, "transformers")),
        "measurements": measurements,
        "peers": {
            "base": BASE,
            "engine": engine,
            "threads": threads,
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "alpha": plan.alpha,
            "clock": plan.clock,
            "paper": dict(PAPER),
            "rows": rows,
            "left_out": list(left_out),
        },
    }
    check_document(document)
    return document


def check_document(document: Mapping[str, Any], name: str = "the document") -> None:
    """Hold a document to the schemas of LatencyRun and of its member ``peers``.

    Raises:
        BenchmarkError: it is something else.
    """
    from jsonschema.exceptions import best_match

    LatencyRun.of(document, name)
    problem = best_match(validator("peers").iter_errors(document))
    if problem is not None:
        where = "/".join(map(str, problem.absolute_path)) or "its top level"
        raise BenchmarkError(f"{name} is no comparison of peers: at {where}: {problem.message[:200]}")


# ---- a round -----------------------------------------------------------------------------------------------


def _part(report: Report, text: str, behind: float, weight: float) -> Report:
    """The report of a part of the work, which begins at ``behind`` and weighs ``weight``."""
    return lambda what, share: report(f"{text}: {what}", behind + weight * share)


def _round(
    settings: Mapping[str, Settings],
    gathered: Mapping[str, _Gathered],
    plan: PeersPlan,
    coin: random.Random,
    start: Start,
    report: Report,
) -> None:
    """A process of each model: load, warm up, and all turns."""
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(start(one)) for name, one in settings.items()}
        report("start", 0.0)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda process: process.prepare(), processes.values()))
        names = list(processes)
        coin.shuffle(names)
        for index, name in enumerate(names):
            report(f"load {name}", 0.1 + 0.4 * index / len(names))
            found, process = gathered[name], processes[name]
            found.loaded.append(process.load())
            found.warm_ups.append(process.warm_up(WARM_UP_NS))
            found.wall_ns.append([])
            found.turns.append({})
        _plan_turns(gathered, plan)
        turns = gathered[BASE].turns_a_round
        for turn in range(turns):
            coin.shuffle(names)
            for name in names:
                if _takes_part(turn, turns, gathered[name].turns_a_round):
                    report(f"run {name}", 0.5 + 0.5 * turn / turns)
                    _measure(processes[name], gathered[name], turn)
        for name, process in processes.items():
            gathered[name].peaks.append(process.peak_bytes())


def _plan_turns(gathered: Mapping[str, _Gathered], plan: PeersPlan) -> None:
    """From the fastest warm-up yet: how many runs a measurement of each model has, and how many turns it takes part in.

    No more than XFormer itself takes part in, for only they make a ratio. One slow process says little of how long the
    model takes.
    """
    most = MAX_TURNS
    for name in sorted(gathered, key=lambda name: name != BASE):
        found = gathered[name]
        run_ns = max(1, min(value for warm_up in found.warm_ups for value in warm_up.samples_ns))
        found.runs = min(MAX_RUNS, math.ceil(SLOT_NS / run_ns))
        turns = plan.seconds * 1e9 / plan.rounds / (found.runs * run_ns)
        found.turns_a_round = max(MIN_TURNS, min(most, math.floor(turns)))
        if name == BASE:
            most = found.turns_a_round


def _takes_part(turn: int, turns: int, wanted: int) -> bool:
    """Whether a model that takes part in ``wanted`` of ``turns`` turns does so in this one; evenly spread."""
    return (turn + 1) * wanted // turns > turn * wanted // turns


def _measure(process: Process, found: _Gathered, turn: int) -> None:
    sample = process.run(found.runs)
    found.wall_ns[-1] += sample.wall_ns
    found.cpu_ns += sample.cpu_ns
    found.preempted += sample.preempted
    found.turns[-1][turn] = statistics.median(sample.wall_ns), max(statistics.median(sample.cpu_ns), 1.0)


# ---- what was found ----------------------------------------------------------------------------------------


def _log_ratios(found: _Gathered, base: _Gathered, clock: Clock) -> list[list[float]]:
    """log(model / XFormer) of each turn that both took part in, round by round."""
    column = 0 if clock == "wall" else 1
    return [
        [math.log(times[turn][column] / base_times[turn][column]) for turn in sorted(times)]
        for times, base_times in zip(found.turns, base.turns, strict=True)
    ]


def _row(
    size: ImageSize,
    one: Contender,
    found: _Gathered,
    base: _Gathered,
    matmul: _Gathered,
    matmul_macs: int,
    plan: PeersPlan,
) -> dict[str, Any]:
    """One model at one size, as JSON. Ratios are model / XFormer."""

    def bound(value: float) -> float | None:
        return math.exp(value) if math.isfinite(value) else None

    logs = _log_ratios(found, base, plan.clock)
    pooled = [value for values in logs for value in values]
    interval = combined_interval(logs, plan.alpha)
    p50_ns = _middle_ns(found, plan.clock)
    gflops = 2 * one.macs / p50_ns  # 1e9 operations a second are one a nanosecond
    memory = {"peak": _memory(found, over_loaded=False), "over_loaded": _memory(found, over_loaded=True)}
    base_memory = {"peak": _memory(base, over_loaded=False), "over_loaded": _memory(base, over_loaded=True)}
    return {
        "name": one.name,
        "title": one.title,
        "image_size": [size.height, size.width],
        "parameters": one.parameters,
        "macs": one.macs,
        "runs": sum(len(samples) for samples in found.wall_ns),
        "p50_ns": round(p50_ns),
        "ratio": {
            "median": math.exp(statistics.median(pooled)),
            "low": bound(interval.low),
            "high": bound(interval.high),
            "rounds": [[math.exp(value) for value in values] for values in logs],
        },
        "peak_bytes": _median_bytes(memory["peak"]),
        "peak_ratio": _ratio(memory["peak"], base_memory["peak"]),
        "over_loaded_bytes": _median_bytes(memory["over_loaded"]),
        "over_loaded_ratio": _ratio(memory["over_loaded"], base_memory["over_loaded"]),
        "gflops": gflops,
        "matmul_share": gflops / (2 * matmul_macs / _middle_ns(matmul, plan.clock)),
    }


def _middle_ns(found: _Gathered, clock: Clock) -> float:
    """The median of all runs."""
    if clock == "cpu":
        return max(statistics.median(found.cpu_ns), 1.0)
    return max(statistics.median([value for samples in found.wall_ns for value in samples]), 1.0)


def _memory(found: _Gathered, *, over_loaded: bool) -> list[int]:
    """Each round's peak, in all or beyond what was resident once the model was loaded; empty where it is not known."""
    known = [
        peak - (loaded.rss_loaded_bytes if over_loaded else 0)
        for peak, loaded in zip(found.peaks, found.loaded, strict=True)
        if peak is not None and loaded.rss_loaded_bytes is not None
    ]
    return [max(0, value) for value in known]


def _median_bytes(values: Sequence[int]) -> int | None:
    return round(statistics.median(values)) if values else None


def _ratio(values: Sequence[int], base: Sequence[int]) -> float | None:
    """The median of the rounds' ratios; None where it is not known."""
    if len(values) != len(base) or not values or min(base) == 0:
        return None
    return statistics.median(value / of for value, of in zip(values, base, strict=True))


def _measurement(one: Contender, engine: str, threads: int, cpus: Sequence[int], found: _Gathered) -> dict[str, Any]:
    """One model as a LatencyRun's measurement, with every run."""
    artifact, size = one.artifact, one.artifact.image_size
    files = [file for file in (artifact.path, *artifact.path.rglob("*")) if file.is_file()]
    inference = [value for samples in found.wall_ns for value in samples]
    last = found.loaded[-1]
    worst = max(range(len(found.peaks)), key=lambda index: found.peaks[index] or 0)
    entry: dict[str, Any] = {
        "model": {
            "task": MATMUL if one.name == MATMUL else "classify",
            "variant": one.title,
            "precision": "fp32",
            "image_size": [size.height, size.width],
        },
        "artifact": {
            "format": artifact.format,
            "sha256": tree_sha256(artifact.path),
            "size_bytes": sum(file.stat().st_size for file in files),
        },
        "engine": {
            "name": engine,
            "threads": threads,
            "cpus": list(cpus) if last.pinned else [],
            "denormals": last.denormals,
        },
        "phases": {
            **{
                phase: {"samples_ns": samples, "processes": [1] * len(samples)}
                for phase, samples in (
                    ("load", [loaded.load_ns for loaded in found.loaded]),
                    ("first_run", [loaded.first_run_ns for loaded in found.loaded]),
                )
            },
            "inference": {
                "samples_ns": inference,
                "processes": [len(samples) for samples in found.wall_ns],
                "warm_ups_ns": [value for warm_up in found.warm_ups for value in warm_up.samples_ns],
            },
        },
        "memory": {
            "rss_start_bytes": found.loaded[worst].rss_start_bytes,
            "rss_loaded_bytes": found.loaded[worst].rss_loaded_bytes,
            "rss_peak_bytes": found.peaks[worst],
        },
        "disturbances": {
            "preempted": found.preempted,
            "unstable_warm_ups": sum(not warm_up.stable for warm_up in found.warm_ups),
        },
    }
    entry["disturbances"]["too_noisy"] = noise_of(Measurement(entry))
    return entry
