"""The comparison: its test of when to stop keeps its promises, on simulated machines, and the rounds do their work."""

from __future__ import annotations

import importlib.util
import math
import random
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from xformer_mobile.bench.interleave import Plan, compare
from xformer_mobile.bench.sequential import (
    ALPHA,
    MIN_ROUNDS,
    Interval,
    combined_interval,
    critical_count,
    judge,
    log_e_value,
    median_interval,
    round_interval,
)
from xformer_mobile.bench.worker import Settings, WarmUp

GATE = math.log1p(0.03)


def _simulation() -> ModuleType:
    file = Path(__file__).parent.parent / "scripts/bench_simulation.py"
    spec = importlib.util.spec_from_file_location("bench_simulation", file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_simulation"] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


simulation = _simulation()
MACHINES = {machine.name: machine for machine in simulation.MACHINES}


# ---- the test ----------------------------------------------------------------------------------------------


def test_the_evidence_is_a_fair_game() -> None:
    """Under a fair coin its expectation is 1, whatever the number of pairs: so Ville's inequality holds."""
    for pairs in (1, 2, 7, 40, 300):
        logs = [
            log_e_value(k, pairs)
            + math.lgamma(pairs + 1)
            - math.lgamma(k + 1)
            - math.lgamma(pairs - k + 1)
            - pairs * math.log(2)
            for k in range(pairs + 1)
        ]
        assert math.fsum(map(math.exp, logs)) == pytest.approx(1, abs=1e-9)


def test_the_evidence_falls_where_fewer_exceed_than_half() -> None:
    """The other side of the hypothesis, exceeding with less than 1/2, makes it no likelier: it grows with the count."""
    values = [log_e_value(k, 50) for k in range(51)]
    assert values == sorted(values)
    assert values[25] < 0 < values[50]


def test_the_critical_count_is_the_smallest() -> None:
    assert critical_count(5, ALPHA) is None  # 2^5 is less than 1/alpha
    for pairs in (20, 100, 1000):
        count = critical_count(pairs, ALPHA)
        assert count is not None
        assert log_e_value(count, pairs) >= -math.log(ALPHA) > log_e_value(count - 1, pairs)


@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_a_fair_coin_is_seldom_refuted_however_often_one_looks(alpha: float) -> None:
    rng = random.Random(0)
    trials, refuted = 1000, 0
    limits = [critical_count(pairs, alpha) for pairs in range(1, 401)]
    for _ in range(trials):
        heads = 0
        for limit in limits:
            heads += rng.random() < 0.5
            if limit is not None and heads >= limit:
                refuted += 1
                break
    assert refuted / trials <= alpha + 3 * math.sqrt(alpha / trials)


def test_the_interval_is_that_of_the_refuted_bounds() -> None:
    """Its lower end is where the count of values above begins to refute, and so from the other side."""
    rng = random.Random(1)
    values = [rng.gauss(0.02, 0.05) for _ in range(200)]
    interval, limit = median_interval(values), critical_count(200, ALPHA)
    assert limit is not None
    assert sum(value > interval.low for value in values) < limit <= sum(value >= interval.low for value in values)
    assert sum(value < interval.high for value in values) < limit <= sum(value <= interval.high for value in values)
    assert interval.low < 0.02 < interval.high
    mirrored = median_interval([-value for value in values])
    assert (mirrored.low, mirrored.high) == (-interval.high, -interval.low)


def test_nothing_is_known_of_few_values_or_rounds() -> None:
    assert median_interval([0.5] * 5) == Interval(-math.inf, math.inf)
    assert round_interval([[0.5]] * (MIN_ROUNDS - 1)) == Interval(-math.inf, math.inf)
    assert judge(combined_interval([[0.5] * 200]), GATE) == "can't tell"  # one process of each is luck


def test_rounds_that_disagree_widen_the_interval() -> None:
    """A thousand pairs do not outvote four processes that differ."""
    rounds = [[bias + 0.001 * math.sin(index) for index in range(250)] for bias in (0.0, 0.04, 0.08, 0.12)]
    pooled = median_interval([value for values in rounds for value in values])
    assert combined_interval(rounds).low < 0 < pooled.low
    # mean 0.06, standard deviation 0.0516, Student's 99 % quantile of 3 degrees of freedom 4.541
    assert round_interval(rounds).low == pytest.approx(0.06 - 4.541 * 0.05164 / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.031, 0.06, "slower"),
        (0.02, 0.04, "can't tell"),
        (0.001, 0.02, "no change"),
        (-0.02, 0.02, "no change"),
        (-0.05, -0.01, "faster"),
        (-0.05, 0.05, "can't tell"),
        (-math.inf, math.inf, "can't tell"),
    ],
)
def test_verdicts(low: float, high: float, verdict: str) -> None:
    assert judge(Interval(low, high), GATE) == verdict


# ---- the comparison, simulated ------------------------------------------------------------------------------


def _verdicts(machine: str, ratio: float, trials: int, **plan: object) -> Counter[str]:
    settings = replace(Plan(), **plan)
    return Counter(
        simulation.simulate(MACHINES[machine], ratio, 0.03, 7000 + seed, settings)[0] for seed in range(trials)
    )


@pytest.mark.parametrize(
    "machine", ["idle, 2 % noise", "3 bursty neighbours, 2 %", "3 bursty neighbours, 5 % one-sided"]
)
def test_the_same_raises_no_alarm(machine: str) -> None:
    assert _verdicts(machine, 1.0, 40)["slower"] == 0


@pytest.mark.parametrize(
    ("machine", "least"), [("idle, 2 % noise", 0.95), ("idle, 5 % one-sided", 0.95), ("3 bursty neighbours, 2 %", 0.8)]
)
def test_five_percent_are_found(machine: str, least: float) -> None:
    assert _verdicts(machine, 1.05, 20)["slower"] >= least * 20


@pytest.mark.parametrize("machine", ["idle, 2 % noise", "3 bursty neighbours, 2 %"])
def test_what_is_allowed_is_not_flagged(machine: str) -> None:
    assert _verdicts(machine, 1.03, 30)["slower"] <= 2


def test_faster_is_said_and_too_much_noise_is_admitted() -> None:
    assert _verdicts("idle, 2 % noise", 0.95, 10)["faster"] == 10
    assert _verdicts("3 always busy, 2 %", 1.05, 5)["can't tell"] == 5


def test_what_is_surely_no_regression_may_still_be_faster() -> None:
    """With "no change" it goes on while the candidate may be faster by as much as it may be slower."""
    verdicts = _verdicts("idle, 10 % noise", 0.96, 10)
    assert verdicts["faster"] >= 9


def test_processor_time_bears_neighbours_that_never_rest() -> None:
    assert _verdicts("3 always busy, 2 %", 1.05, 5, clock="cpu")["slower"] == 5


def _compare(ratio: float = 1.0, machine: str = "idle, 2 % noise", seconds: float = 0.03, **plan: object):
    world = simulation.World(MACHINES[machine], 3)
    times = {"base": seconds, "candidate": seconds * ratio}
    started: list[str] = []

    def start(settings: Settings):
        started.append(str(settings.model))
        return simulation.FakeWorker(world, times[str(settings.model)])

    reports: list[tuple[float, int]] = []
    found = compare(
        Settings(Path("base"), "fake"),
        Settings(Path("candidate"), "fake"),
        replace(Plan(), **plan),
        lambda passed, pairs: reports.append((passed, pairs)),
        start=start,
        now=lambda: world.time,
        coin=random.Random(5),
    )
    return found, started, reports


def test_a_round_has_processes_of_its_own_and_a_fair_order() -> None:
    found, started, reports = _compare()
    rounds = len(found.rounds("wall"))
    assert rounds >= MIN_ROUNDS
    assert started == ["base", "candidate"] * rounds
    assert 0.35 < sum(pair.base_first for pair in found.pairs) / len(found.pairs) < 0.65
    assert [count for _, count in reports] == list(range(1, len(found.pairs) + 1))
    assert reports[-1][0] <= found.seconds < 60
    assert found
    assert found.median_ratio == pytest.approx(1, abs=0.02)
    assert all(found.interval.low <= math.log(ratio) <= found.interval.high for ratio in (1.0, found.median_ratio))


def test_the_budget_is_kept_and_the_reason_said() -> None:
    found, _, _ = _compare(1.03, budget_seconds=30.0)
    assert found.verdict == "can't tell"
    assert found
    assert 20 < found.seconds < 31
    assert found.reasons()[0].startswith(f"{len(found.pairs)} pairs were too few")
    short, _, _ = _compare(1.2, budget_seconds=5.0)
    assert short.verdict == "can't tell"
    assert "rounds of processes fitted into the budget" in short.reasons()[0]


def test_no_more_pairs_than_are_asked_for() -> None:
    found, _, _ = _compare(1.03, max_pairs=33)
    assert len(found.pairs) == 33
    assert found.verdict == "can't tell"


def test_the_document_holds_every_pair_and_no_infinity() -> None:
    found, _, _ = _compare(1.2, max_pairs=3)
    document = found.as_json()
    assert document["ratio"]["low"] is None
    assert document["ratio"]["high"] is None
    assert len(document["pairs"]) == 3
    assert document["verdict"] == "can't tell"


def test_a_small_model_is_run_several_times() -> None:
    found, _, _ = _compare(seconds=0.001)
    assert found.runs == 10
    assert found.verdict == "no change"
    slow, _, _ = _compare(seconds=0.05)
    assert slow.runs == 1


def test_a_slower_candidate_is_false() -> None:
    found, _, _ = _compare(1.1)
    assert found.verdict == "slower"
    assert not found
    assert found.interval.low > GATE
    assert found.reasons() == []


def test_unstable_warm_ups_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation.FakeWorker, "warm_up", lambda self: WarmUp((30_000_000,) * 10, False))
    found, started, _ = _compare()
    assert found.unstable == len(started)
