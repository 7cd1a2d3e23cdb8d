"""When is a comparison certain? A sequential test of the median log-ratio, valid at whatever moment one looks.

A pair is one measurement of the base and one of the candidate, side by side in time, in an order drawn by a fair coin;
``d = log(candidate / base)``. For a bound ``t``, under the hypothesis that the candidate is no more than ``exp(t)``
times as slow, each ``d > t`` has a probability of at most 1/2, whatever came before. Then for each ``p`` >= 1/2

    E_n(p) = (2 p)^k (2 (1 - p))^(n - k)         k of n pairs have d > t

is a nonnegative supermartingale that begins at 1, and so is a mixture of them over ``p``. By Ville's inequality it ever
reaches 1/alpha with a probability of at most alpha: one may look after every pair and stop when one likes. The ``t``
that are not refuted so, from either side, are a confidence sequence of the median; it is read off the ordered values.

What the 1/2 rests on is the coin, not the noise: if a disturbance belongs to a moment and not to a program, then with
the slots' disturbances given, bursty and dependent as they may be, the coin alone decides which of the two they slow.
What it does not cover is what belongs to a *process*: its layout in memory. Therefore the pairs come in rounds, each of
which has two processes of its own, and a second interval, Student's of the rounds' medians, has to agree.

Sources: Ville, Etude critique de la notion de collectif (1939); Robbins, Ann. Math. Statist. 41 (1970), for the
mixtures; Howard and Ramdas, Sequential estimation of quantiles with applications to A/B testing and best-arm
identification, Bernoulli 28 (2022); Ramdas et al., Game-theoretic statistics and safe anytime-valid inference,
Statist. Sci. 38 (2023).
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = [
    "ALPHA",
    "MIN_ROUNDS",
    "Interval",
    "Verdict",
    "combined_interval",
    "critical_count",
    "judge",
    "log_e_value",
    "median_interval",
    "round_interval",
]

Verdict = Literal["faster", "slower", "no change", "can't tell"]

ALPHA = 0.01
"""The probability that a bound of the confidence sequence is ever wrong, for each of the two bounds."""

MIN_ROUNDS = 4
"""With fewer rounds nothing is said of what varies from process to process."""

GRID = 64
"""So many values of p in the mixture. It is a mixture of exactly these, no approximation of another."""

# fmt: off
STUDENT_99 = (
    31.821, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764,
    2.718, 2.681, 2.650, 2.624, 2.602, 2.583, 2.567, 2.552, 2.539, 2.528,
    2.518, 2.508, 2.500, 2.492, 2.485, 2.479, 2.473, 2.467, 2.462, 2.457,
)
# fmt: on
"""Student's t: the 99 % quantile for 1, 2, ... 30 degrees of freedom; beyond them, the last. The interval is looked at
after each round, and nothing but this level pays for it: simulated, a bound is then wrong in some 3 %."""


@dataclass(frozen=True)
class Interval:
    """Bounds of the median log-ratio; infinite where nothing is known yet."""

    low: float
    high: float

    @property
    def low_ratio(self) -> float:
        """The lower bound of candidate / base."""
        return math.exp(self.low)

    @property
    def high_ratio(self) -> float:
        """The upper bound of candidate / base."""
        return math.exp(self.high) if math.isfinite(self.high) else math.inf

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


UNKNOWN = Interval(-math.inf, math.inf)


def log_e_value(exceeding: int, pairs: int) -> float:
    """The logarithm of the evidence against "at most half of the pairs exceed t", of which ``exceeding`` do."""
    up, down = _log_bets()
    terms = exceeding * up + (pairs - exceeding) * down
    peak = float(terms.max())
    return peak + math.log(float(np.exp(terms - peak).mean()))


@functools.cache
def _log_bets() -> tuple[np.ndarray, np.ndarray]:
    """log 2p and log 2(1 - p) for each p of the mixture: denser towards 1/2, where the hard cases are."""
    p = 0.5 + 0.49 * (np.arange(1, GRID + 1) / GRID) ** 1.5
    return np.log(2 * p), np.log(2 * (1 - p))


@functools.lru_cache(maxsize=1 << 16)
def critical_count(pairs: int, alpha: float) -> int | None:
    """The smallest number of ``pairs`` that, exceeding a bound, refutes it at ``alpha``; None where not all would."""
    if log_e_value(pairs, pairs) < -math.log(alpha):
        return None
    low, high = pairs // 2, pairs  # not enough, enough
    while high - low > 1:
        middle = (low + high) // 2
        if log_e_value(middle, pairs) >= -math.log(alpha):
            high = middle
        else:
            low = middle
    return high


def median_interval(values: Sequence[float], alpha: float = ALPHA) -> Interval:
    """The confidence sequence's interval of the median after these values, each bound wrong with ``alpha`` at most."""
    count = critical_count(len(values), alpha) if values else None
    if count is None:
        return UNKNOWN
    ordered = sorted(values)
    # `count` values exceed every t below the count-th largest: those t are refuted. And so from the other side.
    return Interval(ordered[-count], ordered[count - 1])


def round_interval(rounds: Sequence[Sequence[float]]) -> Interval:
    """Student's interval of the mean of the rounds' medians, 99 % for each bound: the spread between processes.

    Unknown with fewer than MIN_ROUNDS rounds.
    """
    medians = [statistics.median(values) for values in rounds if values]
    if len(medians) < MIN_ROUNDS:
        return UNKNOWN
    quantile = STUDENT_99[min(len(medians) - 1, len(STUDENT_99)) - 1]
    half = quantile * statistics.stdev(medians) / math.sqrt(len(medians))
    middle = statistics.fmean(medians)
    return Interval(middle - half, middle + half)


def combined_interval(rounds: Sequence[Sequence[float]], alpha: float = ALPHA) -> Interval:
    """What both say: the confidence sequence of all pairs, and the spread between the rounds."""
    pooled = [value for values in rounds for value in values]
    return median_interval(pooled, alpha).hull(round_interval(rounds))


def judge(interval: Interval, gate: float) -> Verdict:
    """The verdict that an interval allows. ``gate`` is log(1 + the regression that is allowed)."""
    if interval.low > gate:
        return "slower"
    if interval.high < 0:
        return "faster"
    if interval.high < gate:
        return "no change"
    return "can't tell"
