"""Histograms and the ranges found from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xformer_mobile.ranges import CHUNK, METHODS, MOST, Histogram, ranges


def counted(*tensors: np.ndarray) -> Histogram:
    histogram = Histogram()
    for tensor in tensors:
        histogram.add(tensor.astype(np.float32))
    return histogram


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), st.integers(1, 5))
def test_nothing_is_lost_when_the_limit_grows(values: list[float], parts: int) -> None:
    tensor = np.array(values, np.float32)
    histogram = counted(*(part for part in np.array_split(tensor, parts) if part.size))
    assert histogram.total == tensor.size
    assert (histogram.low, histogram.high) == (tensor.min(), tensor.max())
    assert histogram.limit >= np.abs(tensor).max() or not histogram.limit


def test_counts_are_of_the_right_bins() -> None:
    """Against NumPy's own, after the limit has grown from 1 to 8."""
    rng = np.random.default_rng(0)
    parts = [rng.uniform(-1, 1, 5000), rng.uniform(-7, 7, 5000)]
    histogram = counted(np.array([1.0]), *parts)
    edges = np.linspace(-histogram.limit, histogram.limit, len(histogram.counts) + 1)
    expected, _ = np.histogram(np.concatenate([[1.0], *parts]), edges)
    assert histogram.limit == 8
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 8  # values at an edge, in float32


def test_a_large_tensor_is_counted_as_its_parts_are() -> None:
    """By chunks; the last of them is not whole."""
    values = np.random.default_rng(0).normal(size=3 * CHUNK + 7)
    largest = np.array([np.abs(values).max()])
    whole, parts = counted(largest, values), counted(largest, *np.array_split(values, 11))
    assert whole.total == values.size + 1
    assert np.array_equal(whole.counts, parts.counts)


def test_values_that_are_not_finite_are_refused() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="not finite"):
            counted(np.array([0.0, bad]))


@pytest.mark.parametrize("largest", [3e-30, 1.0, 0.4 * MOST])
def test_the_limit_itself_is_in_the_last_bin(largest: float) -> None:
    histogram = counted(np.array([largest, -largest, 0.0]), np.array([1.1 * largest, -2 * largest]))
    quarter = len(histogram.counts) // 4
    assert histogram.total == 5
    assert histogram.counts[[0, quarter, -quarter - 1, -1]].tolist() == [1, 1, 1, 0]
    assert counted(np.array([largest])).counts[-1] == 1


def test_values_that_are_too_large_are_refused() -> None:
    for bad in (1.1 * MOST, -1.1 * MOST):
        with pytest.raises(ValueError, match="values beyond 1e\\+37"):
            counted(np.array([0.0, bad]))


@pytest.mark.parametrize("method", METHODS)
def test_a_range_has_zero_and_stays_within_the_values(method: str) -> None:
    rng = np.random.default_rng(1)
    for values in (rng.normal(0, 1, 9999), rng.uniform(2, 3, 999), rng.uniform(-3, -2, 999), rng.normal(size=999) ** 5):
        values = values.astype(np.float32)
        low, high = METHODS[method](counted(values))
        assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)
        assert low < high


@pytest.mark.parametrize("method", METHODS)
def test_all_zero_has_an_empty_range(method: str) -> None:
    assert METHODS[method](counted(np.zeros(100))) == (0, 0)


def test_minmax_covers_an_outlier_and_the_others_do_not() -> None:
    values = np.concatenate([np.random.default_rng(2).normal(0, 1, 1_000_000), [100.0]])
    found = {method: METHODS[method](counted(values))[1] for method in METHODS}
    assert found["minmax"] == 100
    assert all(found[method] < 50 for method in METHODS if method != "minmax"), found


def test_mse_is_better_than_minmax_by_its_own_measure() -> None:
    values = np.random.default_rng(3).laplace(0, 1, 200_000).astype(np.float32)

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        zero = round(-low / scale)
        return float(((np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale - values).astype("f8").var())

    found = {method: error(*METHODS[method](counted(values))) for method in METHODS}
    assert found["mse"] < 0.9 * found["minmax"]
    assert found["mse"] == min(found.values())


def test_ranges_are_by_name() -> None:
    found = ranges({"a": counted(np.array([1.0])), "b": counted(np.array([-2.0, 1.0]))}, "minmax")
    assert found == {"a": (0, 1), "b": (-2, 1)}
