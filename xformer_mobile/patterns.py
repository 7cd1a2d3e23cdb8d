"""Golden input pictures, made by integer arithmetic: the same bytes on every machine, and no two regions alike.

They exercise a model and its artifact over the whole range of bytes; they show nothing that a person would
recognise. Every bundle carries a few as its golden inputs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xformer_mobile.spec import ImageSize

__all__ = ["golden_picture"]


def golden_picture(index: int, size: ImageSize) -> npt.NDArray[np.uint8]:
    """Picture number ``index`` as a byte image, (1, H, W, 3) uint8.

    Crossing colour waves of drawn period, noise of drawn strength, and a few drawn rectangles.
    """
    rng = np.random.Generator(np.random.PCG64(index))
    y, x = np.mgrid[: size.height, : size.width]
    channels = []
    for _ in range(3):
        a, b, phase = (int(v) for v in rng.integers(1, 12, 3))
        channels.append((x * a * 256 // size.width + y * b * 256 // size.height + 20 * phase) % 512)
    picture = np.stack(channels, axis=-1)
    picture = np.where(picture < 256, picture, 511 - picture)  # a triangle wave: 0..255..0
    for _ in range(int(rng.integers(3, 9))):
        top, left = int(rng.integers(size.height)), int(rng.integers(size.width))
        height, width = int(rng.integers(8, size.height // 2)), int(rng.integers(8, size.width // 2))
        picture[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    strength = int(rng.integers(1, 64))
    picture = picture + rng.integers(-strength, strength + 1, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)[None]
