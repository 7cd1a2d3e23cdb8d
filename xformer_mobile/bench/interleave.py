"""Base against candidate: interleaved pairs in an order drawn by a coin, until the answer is certain.

Both run on the same processors, one at a time, so that whatever the machine does happens to both. A round is one
process of each; what belongs to a process and not to its program (its layout in memory) is drawn anew with the next.
No pair is thrown away: a disturbed one says little, whichever it speaks for, and the test of
:mod:`xformer_mobile.bench.sequential` takes that into account.
"""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from xformer_mobile.bench.sequential import (
    ALPHA,
    MIN_ROUNDS,
    Interval,
    Verdict,
    combined_interval,
    judge,
    median_interval,
    round_interval,
)
from xformer_mobile.bench.worker import Loaded, Sample, Settings, WarmUp, Worker

__all__ = ["MAX_RUNS", "SLOT_NS", "Clock", "Comparison", "Pair", "Plan", "Process", "compare"]

Clock = Literal["wall", "cpu"]

SLOT_NS = 10_000_000
"""A measurement lasts about so long: of a small model, several runs and their median."""

MAX_RUNS = 100
"""Most runs of one measurement."""

MEASURING_SHARE = 2.0
"""A round measures for so many times as long as its start took."""

FIRST_SHARE = 0.5
"""And so the first MIN_ROUNDS: most answers are easy, and no verdict comes before them."""


@dataclass(frozen=True)
class Plan:
    """When to stop. ``gate`` is the regression that is allowed, 0.03 for 3 %.

    The budget is for all: starting, warming up, measuring. A round has at least ``round_pairs`` pairs.
    """

    gate: float = 0.03
    alpha: float = ALPHA
    budget_seconds: float = 90.0
    max_pairs: int | None = None
    round_pairs: int = 20
    clock: Clock = "wall"


@dataclass(frozen=True)
class Pair:
    """One measurement of each: medians of the same number of consecutive runs."""

    round: int
    base_first: bool
    base_wall_ns: float
    candidate_wall_ns: float
    base_cpu_ns: float
    candidate_cpu_ns: float
    preempted: int

    def log_ratio(self, clock: Clock) -> float:
        """log(candidate / base)."""
        if clock == "wall":
            return math.log(self.candidate_wall_ns / self.base_wall_ns)
        return math.log(max(self.candidate_cpu_ns, 1.0) / max(self.base_cpu_ns, 1.0))


@dataclass(frozen=True)
class Comparison:
    """What was found, with all that it was found from. True unless the candidate is slower beyond the gate."""

    plan: Plan
    pairs: tuple[Pair, ...]
    runs: int
    seconds: float
    loaded: tuple[Loaded, Loaded]
    unstable: int
    interval: Interval = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", combined_interval(self.rounds(self.plan.clock), self.plan.alpha))

    def __bool__(self) -> bool:
        return self.verdict != "slower"

    @property
    def verdict(self) -> Verdict:
        return judge(self.interval, math.log1p(self.plan.gate))

    @property
    def is_certain(self) -> bool:
        """Whether more pairs would add nothing that is asked for. "No change" asks that it is not much faster too."""
        if self.verdict == "no change":
            return self.interval.low > -math.log1p(self.plan.gate)
        return self.verdict != "can't tell"

    @property
    def median_ratio(self) -> float:
        """The median of candidate / base."""
        return math.exp(statistics.median(pair.log_ratio(self.plan.clock) for pair in self.pairs))

    @property
    def preempted_share(self) -> float:
        """The share of pairs in which the system took the processor away from either."""
        return sum(pair.preempted > 0 for pair in self.pairs) / len(self.pairs)

    def rounds(self, clock: Clock) -> list[list[float]]:
        """The log-ratios of each round."""
        found: dict[int, list[float]] = {}
        for pair in self.pairs:
            found.setdefault(pair.round, []).append(pair.log_ratio(clock))
        return list(found.values())

    def reasons(self) -> list[str]:
        """Why it can't be told, in words; empty where it can."""
        if self.verdict != "can't tell":
            return []
        rounds = self.rounds(self.plan.clock)
        pooled = median_interval([value for values in rounds for value in values], self.plan.alpha)
        between, gate = round_interval(rounds), math.log1p(self.plan.gate)
        reasons = []
        if len(rounds) < MIN_ROUNDS:
            reasons.append(f"only {len(rounds)} rounds of processes fitted into the budget, {MIN_ROUNDS} are needed")
        elif judge(between, gate) == "can't tell" != judge(pooled, gate):
            reasons.append("one process and the next differ by more than the answer can bear")
        else:
            reasons.append(f"{len(self.pairs)} pairs were too few for this much noise")
        if self.preempted_share > 0.5:
            reasons.append(
                f"others took the processor in {self.preempted_share:.0%} of the pairs; --clock cpu bears more"
            )
        return reasons

    def as_json(self) -> dict[str, Any]:
        """The comparison as a JSON document; a bound that is not known is null."""

        def ratio(value: float) -> float | None:
            return math.exp(value) if math.isfinite(value) else None

        return {
            "verdict": self.verdict,
            "ratio": {
                "median": self.median_ratio,
                "low": ratio(self.interval.low),
                "high": ratio(self.interval.high),
            },
            "max_regression": self.plan.gate,
            "alpha": self.plan.alpha,
            "clock": self.plan.clock,
            "reasons": self.reasons(),
            "rounds": len(self.rounds(self.plan.clock)),
            "runs_per_measurement": self.runs,
            "seconds": self.seconds,
            "preempted_share": self.preempted_share,
            "unstable_warm_ups": self.unstable,
            "denormals": [loaded.denormals for loaded in self.loaded],
            "pinned": [loaded.pinned for loaded in self.loaded],
            "pairs": [
                {
                    "round": pair.round,
                    "base_first": pair.base_first,
                    "base_ns": round(pair.base_wall_ns),
                    "candidate_ns": round(pair.candidate_wall_ns),
                    "base_cpu_ns": round(pair.base_cpu_ns),
                    "candidate_cpu_ns": round(pair.candidate_cpu_ns),
                }
                for pair in self.pairs
            ],
        }


class Process(Protocol):
    """What is needed of a :class:`Worker`."""

    def prepare(self) -> None: ...
    def load(self) -> Loaded: ...
    def warm_up(self) -> WarmUp: ...
    def run(self, count: int) -> Sample: ...


Start = Callable[[Settings], contextlib.AbstractContextManager[Process]]


def compare(
    base: Settings,
    candidate: Settings,
    plan: Plan,
    report: Callable[[float, int], None] = lambda seconds, pairs: None,
    *,
    start: Start = Worker,
    now: Callable[[], float] = time.monotonic,
    coin: random.Random | None = None,
) -> Comparison:
    """Measure pairs until the answer is certain, the budget is spent or ``plan.max_pairs`` are there.

    ``report`` is called after each pair with the seconds that have passed and the number of pairs. ``start``, ``now``
    and ``coin`` stand for the processes, the clock and the randomness.

    Raises:
        XFormerError: a model can't be loaded, or a process died.
    """
    coin = coin or random.Random()
    begin = now()
    pairs: list[Pair] = []
    runs: int | None = None
    unstable = 0
    for number in range(1 << 30):
        started = now()
        with _processes(base, candidate, start, swapped=coin.random() < 0.5) as (first, second, loaded, warm_ups):
            unstable += sum(not warm_up.stable for warm_up in warm_ups)
            if runs is None:
                runs = _runs_of_a_measurement(warm_ups)
            ready = now()
            until = ready + _round_seconds(plan, ready - started, ready - begin, number)
            count = 0
            while True:
                pairs.append(_pair(number, first, second, runs, coin))
                count += 1
                report(now() - begin, len(pairs))
                if plan.max_pairs is not None and len(pairs) >= plan.max_pairs:
                    break
                if count >= plan.round_pairs and now() >= until:
                    break
                if now() - begin >= plan.budget_seconds:
                    break
        comparison = Comparison(plan, tuple(pairs), runs, now() - begin, loaded, unstable)
        spent = now() - begin + 1.2 * (ready - started) >= plan.budget_seconds  # another round would get nowhere
        if spent or comparison.is_certain or len(pairs) == plan.max_pairs:
            return comparison
    raise AssertionError("the budget is finite")


@contextlib.contextmanager
def _processes(
    base: Settings, candidate: Settings, start: Start, *, swapped: bool
) -> Iterator[tuple[Process, Process, tuple[Loaded, Loaded], tuple[WarmUp, WarmUp]]]:
    """A process of each, loaded and warm. Imports run side by side, the rest one after the other."""
    with start(base) as first, start(candidate) as second:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda process: process.prepare(), (first, second)))
        loaded: dict[int, Loaded] = {}
        warm_ups: dict[int, WarmUp] = {}
        order = (1, 0) if swapped else (0, 1)
        for index in order:
            loaded[index] = (first, second)[index].load()
        for index in order:
            warm_ups[index] = (first, second)[index].warm_up()
        yield first, second, (loaded[0], loaded[1]), (warm_ups[0], warm_ups[1])


def _runs_of_a_measurement(warm_ups: Sequence[WarmUp]) -> int:
    """So many consecutive runs that a measurement lasts about SLOT_NS, the same for both sides."""
    fastest = min(statistics.median(warm_up.samples_ns) for warm_up in warm_ups)
    return min(MAX_RUNS, max(1, math.ceil(SLOT_NS / max(fastest, 1))))


def _round_seconds(plan: Plan, start_seconds: float, passed: float, number: int) -> float:
    """How long a round measures: long beside its start, yet so that MIN_ROUNDS fit into the budget."""
    missing = MIN_ROUNDS - number  # with this one
    if missing <= 0:
        return MEASURING_SHARE * start_seconds
    left = plan.budget_seconds - passed - (missing - 1) * start_seconds
    return min(FIRST_SHARE * start_seconds, 0.9 * left / missing)


def _pair(number: int, base: Process, candidate: Process, runs: int, coin: random.Random) -> Pair:
    base_first = coin.random() < 0.5
    if base_first:
        one = base.run(runs)
        other = candidate.run(runs)
    else:
        other = candidate.run(runs)
        one = base.run(runs)
    return Pair(
        number,
        base_first,
        statistics.median(one.wall_ns),
        statistics.median(other.wall_ns),
        statistics.median(one.cpu_ns),
        statistics.median(other.cpu_ns),
        one.preempted + other.preempted,
    )
