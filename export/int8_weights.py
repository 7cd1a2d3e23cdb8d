"""A convolution's weights in int8, and what they make of the bytes of a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xformer_mobile.ranges import Range

__all__ = ["BYTES", "LEAST_WEIGHTS", "round_weights", "take_bytes"]

BYTES: Range = (0.0, 255.0)
"""The range of a picture's values, whose step is 1."""

LEAST_WEIGHTS = 1024
"""A constant with fewer values, of what computes in float, stays as it is."""


def round_weights(values: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """The values in int8, -127..127, and one scale for each index along the axis."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    largest = np.abs(values).max(others, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.clip(np.rint(values / scale), -127, 127).astype(np.int8), scale.reshape(-1)


def take_bytes(
    weights: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], mean: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """What makes ``conv(picture - mean)``, with zeros around it, a convolution of the picture itself.

    Args:
        weights: (out, in, height, width).
        bias: (out,).
        mean: (in,).

    Returns:
        The bias to use, which fits the weights that int8 holds; and the pixel to put around the picture, (in,): the
        mean, rounded.
    """
    stored, scale = round_weights(weights, 0)
    sums = stored.astype(np.float64).sum((2, 3)) * scale[:, None]
    return (bias - sums @ mean.astype(np.float64)).astype(np.float32), np.rint(mean).astype(np.uint8)
