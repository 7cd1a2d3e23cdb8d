"""Ranges of activations: streamed histograms, and the four ways from a histogram to the range that int8 covers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["METHODS", "Histogram", "Range", "ranges"]

Range = tuple[float, float]
"""The smallest and the largest value that int8 covers; 0 is always among them."""

BINS = 2048
"""Of a histogram, half of them below 0."""

CHUNK = 2**16
"""So many values are counted at a time: what is computed on the way to their bins stays in a processor's cache."""

LEVELS = 256

LEAST = 1e-30
"""Smaller magnitudes are zero."""

MOST = 1e37
"""Larger magnitudes are not counted: twice a limit that has been doubled is still a float32."""

PERCENTILE = 99.999
"""Per cent of the values that the method ``percentile`` covers."""

ENTROPY_STEPS = 64
"""So many clippings are tried by ``entropy``, and as many at each end by ``mse``."""


class Histogram:
    """How often a tensor has which values, over any number of pictures, in a fixed amount of memory.

    The bins cover ``-limit`` to ``limit``. A value beyond doubles the limit: each two bins become one, so that nothing
    is counted twice or lost.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.limit = 0.0
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count a tensor's values.

        Raises:
            ValueError: one of them is not finite, or too large.
        """
        flat = values.ravel("K")  # in the order of memory, which takes no copy
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("values that are not finite")
        largest = max(abs(low), abs(high))
        if largest > MOST:
            raise ValueError(f"values beyond {MOST:g}")
        self.low, self.high = min(self.low, low), max(self.high, high)
        if not self.limit:
            if largest < LEAST:  # zero, for any purpose here
                self.counts[BINS // 2] += flat.size
                return
            self.limit = largest
        while largest > self.limit:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(merged, BINS // 4)
            self.limit *= 2
        limit, bins_each = np.float32(self.limit), np.float32(BINS / (2 * self.limit))
        for start in range(0, flat.size, CHUNK):
            place = flat[start : start + CHUNK] + limit
            place *= bins_each
            counts = np.bincount(place.astype(np.int32), minlength=BINS + 1)
            counts[BINS - 1] += counts[BINS]  # the limit itself
            self.counts += counts[:BINS]

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """The middle of each bin."""
        middles = np.arange(BINS, dtype=np.float64) + 0.5
        return middles * (2 * self.limit / BINS) - self.limit


def ranges(histograms: Mapping[str, Histogram], method: str) -> dict[str, Range]:
    """The range of each tensor by one of :data:`METHODS`."""
    return {name: METHODS[method](histogram) for name, histogram in histograms.items()}


def _minmax(histogram: Histogram) -> Range:
    """All values."""
    return min(histogram.low, 0.0), max(histogram.high, 0.0)


def _percentile(histogram: Histogram) -> Range:
    """:data:`PERCENTILE` of the values, as many left out at either end."""
    low, high = _minmax(histogram)
    share = np.cumsum(histogram.counts) / histogram.total
    outside = (1 - PERCENTILE / 100) / 2
    width = 2 * histogram.limit / BINS
    first = np.searchsorted(share, outside) * width - histogram.limit
    last = (min(BINS - 1, int(np.searchsorted(share, 1 - outside))) + 1) * width - histogram.limit
    return min(0.0, max(low, float(first))), max(0.0, min(high, float(last)))


def _entropy(histogram: Histogram) -> Range:
    """The clipping after which the quantized values' distribution is nearest to the original (Kullback-Leibler).

    The method of TensorRT's calibration (Migacz, "8-bit inference with TensorRT", GTC 2017), both ends clipped alike.
    """
    low, high = _minmax(histogram)
    half, counts = BINS // 2, histogram.counts.astype(np.float64)
    best, found = math.inf, (low, high)
    for bins in np.unique(np.linspace(LEVELS // 2, half, ENTROPY_STEPS).astype(int)):
        kept = counts[half - bins : half + bins]
        if not kept.any():
            continue
        clipped = kept.copy()
        clipped[0] += counts[: half - bins].sum()
        clipped[-1] += counts[half + bins :].sum()
        groups = np.arange(2 * bins) * LEVELS // (2 * bins)
        occupied = kept > 0
        totals = np.bincount(groups, kept, LEVELS)
        members = np.bincount(groups, occupied, LEVELS)
        spread = np.where(occupied, (totals / np.maximum(members, 1))[groups], 0.0)
        p, q = clipped / clipped.sum(), spread / spread.sum()
        # What a clipped end gained where nothing was before is infinitely far; a tiny share stands for it.
        divergence = float(np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-12) / np.maximum(q, 1e-12)), 0.0)))
        if divergence < best:
            edge = bins / half * histogram.limit
            best, found = divergence, (max(low, -edge), min(high, edge))
    return found


def _mse(histogram: Histogram) -> Range:
    """The range with the smallest mean square of the error of rounding and clipping; both ends by turns."""
    low, high = whole = _minmax(histogram)
    used = histogram.counts > 0
    values, weights = histogram.centers[used], histogram.counts[used].astype(np.float64)

    def error(low: float, high: float) -> float:
        scale = (high - low) / (LEVELS - 1)
        if scale <= 0:
            return math.inf
        zero = round(-low / scale)
        rounded = (np.clip(np.round(values / scale) + zero, 0, LEVELS - 1) - zero) * scale
        return float(np.dot(weights, (rounded - values) ** 2))

    shares = np.linspace(1.0, 1 / ENTROPY_STEPS, ENTROPY_STEPS)
    for _ in range(2):
        high = min((whole[1] * share for share in shares), key=lambda end: error(low, end))
        low = min((whole[0] * share for share in shares), key=lambda end: error(end, high))
    return low, high


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
