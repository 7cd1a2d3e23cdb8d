"""How often ``xformer-bench compare`` is right, on simulated machines: false alarms, power, seconds.

    python scripts/bench_simulation.py [TRIALS]

The comparison's own code runs; the processes, the clock and the coin are simulated. What is simulated is written below
and is no measurement: noise of a run, neighbours that take the processor in bursts, a slow drift, and a bias of each
process. A session on a real, idle machine must show the same.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

from xformer_mobile.bench.interleave import Plan, compare
from xformer_mobile.bench.worker import Loaded, Sample, Settings, WarmUp

START_SECONDS = 1.1
"""Of one process: imports, loading, warming up."""

ROUND_TRIP_SECONDS = 0.0002


@dataclass(frozen=True)
class Machine:
    """``sigma`` is a run's noise (normal of the logarithm, or one-sided exponential), ``process`` that of a process.

    Each of ``neighbours`` is busy for ``busy`` seconds and idle for ``idle``, on average, exponentially; two
    processors are shared with them in quanta of random length. ``drift`` is the noise of a slow random walk, per
    square root of a second, that returns to 0 in about a minute.
    """

    name: str
    sigma: float
    one_sided: bool = False
    process: float = 0.003
    neighbours: int = 0
    busy: float = 0.3
    idle: float = 0.6
    drift: float = 0.0


MACHINES = (
    Machine("idle, 1 % noise", 0.01),
    Machine("idle, 2 % noise", 0.02),
    Machine("idle, 5 % noise", 0.05),
    Machine("idle, 10 % noise", 0.10),
    Machine("idle, 5 % one-sided", 0.05, one_sided=True),
    Machine("idle, 2 % noise, drift", 0.02, drift=0.02),
    Machine("idle, 2 % noise, 1 % process bias", 0.02, process=0.01),
    Machine("3 bursty neighbours, 2 %", 0.02, neighbours=3),
    Machine("3 bursty neighbours, 5 % one-sided", 0.05, one_sided=True, neighbours=3),
    Machine("3 long bursts, 2 %", 0.02, neighbours=3, busy=3, idle=3),
    Machine("3 always busy, 2 %", 0.02, neighbours=3, busy=1e9, idle=1e-6),
)


class World:
    """A simulated machine: its time, and how long work takes on it."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine, self.random, self.time = machine, random.Random(seed), 0.0
        self.is_busy = [False] * machine.neighbours
        self.until = [self.random.expovariate(1 / machine.idle) for _ in self.is_busy]
        self.walk, self.walked = 0.0, 0.0

    def work(self, seconds: float) -> tuple[float, float, int]:
        """Do so much work; returns wall time, processor time and how often we were preempted."""
        machine, draw = self.machine, self.random
        noise = 1 + machine.sigma * draw.expovariate(1) if machine.one_sided else math.exp(draw.gauss(0, machine.sigma))
        if machine.drift:
            passed = self.time - self.walked
            self.walk = self.walk * math.exp(-passed / 60) + draw.gauss(0, machine.drift * math.sqrt(passed))
            self.walked = self.time
            noise *= math.exp(self.walk)
        left, begin, preempted = seconds * noise, self.time, 0
        cpu = left
        while left > 1e-9:
            for index in range(machine.neighbours):
                while self.until[index] <= self.time:
                    self.is_busy[index] = not self.is_busy[index]
                    mean = machine.busy if self.is_busy[index] else machine.idle
                    self.until[index] += draw.expovariate(1 / mean)
            busy = sum(self.is_busy)
            rate = 1.0 if busy < 2 else max(0.1, draw.random() * 4 / (1 + busy))
            rate = min(rate, 1.0) / (1 + 0.05 * (busy > 0) * draw.random())  # they take memory's time too
            quantum = min(left / rate, draw.uniform(0.002, 0.008) if busy > 1 else 0.05)
            if machine.neighbours:
                quantum = min(quantum, max(1e-6, min(self.until) - self.time))
            self.time += quantum
            left -= quantum * rate
            preempted += busy > 1
        return self.time - begin, cpu, preempted


class FakeWorker:
    """A process whose work takes ``seconds``, with a bias of its own."""

    def __init__(self, world: World, seconds: float) -> None:
        self.world, self.seconds = world, seconds

    def __enter__(self) -> FakeWorker:
        self.biased = self.seconds * math.exp(self.world.random.gauss(0, self.world.machine.process))
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def prepare(self) -> None:
        """Nothing to import."""

    def load(self) -> Loaded:
        self.world.work(START_SECONDS)
        return Loaded(1, 1, "onnx", True, "simulated", None, None)

    def warm_up(self) -> WarmUp:
        return WarmUp((round(self.biased * 1e9),) * 10, True)

    def run(self, count: int) -> Sample:
        self.world.time += ROUND_TRIP_SECONDS
        runs = [self.world.work(self.biased) for _ in range(count)]
        return Sample(
            tuple(round(wall * 1e9) for wall, _, _ in runs),
            tuple(round(cpu * 1e9) for _, cpu, _ in runs),
            sum(preempted for _, _, preempted in runs),
        )


def simulate(machine: Machine, ratio: float, seconds: float, seed: int, plan: Plan) -> tuple[str, float]:
    """One comparison; returns its verdict and how long it took."""
    world = World(machine, seed)
    times = {"base": seconds, "candidate": seconds * ratio}
    found = compare(
        Settings("base", "simulated"),  # type: ignore[arg-type]
        Settings("candidate", "simulated"),  # type: ignore[arg-type]
        plan,
        start=lambda settings: FakeWorker(world, times[str(settings.model)]),
        now=lambda: world.time,
        coin=random.Random(seed + 1),
    )
    return found.verdict, found.seconds


def main() -> None:
    """Print a table: by machine and true ratio, the share of each verdict and the mean time."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.03
    print(f"{trials} trials each, {1000 * seconds:g} ms a run, gate 3 %, 90 s")
    print(f"{'machine':36}{'ratio':>6}{'slower':>9}{'can' + chr(39) + 't tell':>12}{'faster':>9}{'seconds':>9}")
    for machine in MACHINES:
        for ratio in (1.0, 1.03, 1.05):
            results = [simulate(machine, ratio, seconds, 1000 * seed, Plan()) for seed in range(trials)]
            verdicts = Counter(verdict for verdict, _ in results)
            mean = sum(took for _, took in results) / trials
            shares = [verdicts[name] / trials for name in ("slower", "can't tell", "faster")]
            print(
                f"{machine.name:36}{ratio:6.2f}{shares[0]:9.1%}{shares[1]:12.1%}{shares[2]:9.1%}{mean:9.1f}", flush=True
            )


if __name__ == "__main__":
    main()
