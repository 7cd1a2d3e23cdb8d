"""From a sample to a training picture of fixed size: a window of the picture, mirrored, in other light.

One operation serves the three tasks: a window is chosen, inside the picture or reaching over its edges, and
resampled to the input's size as preprocessing does it; boxes and mask follow. What lies outside is grey and
ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from xformer_mobile.data.sample import IGNORED, Sample
from xformer_mobile.preprocess import CROP_RATIO, PAD_COLOR
from xformer_mobile.spec import ImageSize, Task

__all__ = ["Augmentation", "augment"]

Window = tuple[float, float, float, float]
"""left, top, width, height in pixels of the source."""

LEAST_LEFT = 0.3
"""A box of which a smaller share is left inside the window counts as a crowd: neither right nor wrong to find."""


@dataclass(frozen=True)
class Augmentation:
    """How far a training picture may differ from its source.

    ``zoom`` is (lowest, highest) side of the window as a share of the one that preprocessing takes; ``aspect``
    the largest change of its shape; ``flip`` the probability of mirroring; ``color`` the largest relative
    change of brightness, contrast and saturation.
    """

    zoom: tuple[float, float] = (0.7, 1.1)
    aspect: float = 1.2
    flip: float = 0.5
    color: float = 0.2


def augment(sample: Sample, task: Task, size: ImageSize, rule: Augmentation, rng: np.random.Generator) -> Sample:
    """A sample of ``size`` pixels, drawn by ``rng`` from the ways in which ``rule`` lets it differ."""
    window = _window(sample.image.shape[1], sample.image.shape[0], task, size, rule, rng)
    cut = _cut(sample, window, size)
    if rng.random() < rule.flip:
        cut = _mirror(cut)
    return cut if rule.color == 0 else _recolor(cut, rule.color, rng)


def _window(
    width: int, height: int, task: Task, size: ImageSize, rule: Augmentation, rng: np.random.Generator
) -> Window:
    """The task's own window (what preprocessing shows), zoomed, reshaped and moved."""
    if task == "segment":
        across, down = float(width), float(height)
    else:
        ratios = width / size.width, height / size.height
        scale = max(ratios) if task == "detect" else min(ratios) * CROP_RATIO[1] / CROP_RATIO[0]
        across, down = scale * size.width, scale * size.height
    zoom = rng.uniform(*rule.zoom)
    shape = rule.aspect ** (rng.uniform(-0.5, 0.5))
    across, down = across * zoom * shape, down * zoom / shape

    def start(whole: float, part: float) -> float:
        room = abs(whole - part) / 2
        return (whole - part) / 2 + rng.uniform(-room, room)

    return start(width, across), start(height, down), across, down


def _cut(sample: Sample, window: Window, size: ImageSize) -> Sample:
    left, top, across, down = window
    height, width = sample.image.shape[:2]
    # The part of the window that the picture covers, in source pixels and in target pixels.
    x1, y1 = max(left, 0.0), max(top, 0.0)
    x2, y2 = min(left + across, float(width)), min(top + down, float(height))
    scale_x, scale_y = size.width / across, size.height / down
    u1, v1 = round((x1 - left) * scale_x), round((y1 - top) * scale_y)
    u2, v2 = max(round((x2 - left) * scale_x), u1 + 1), max(round((y2 - top) * scale_y), v1 + 1)
    u2, v2 = min(u2, size.width), min(v2, size.height)
    u1, v1 = min(u1, u2 - 1), min(v1, v2 - 1)

    source = Image.fromarray(sample.image)
    # Two calls, width first: what Pillow does in one call depends on its release.
    narrow = source.resize((u2 - u1, height), Image.Resampling.BILINEAR, box=(x1, 0, x2, height))
    piece = narrow.resize((u2 - u1, v2 - v1), Image.Resampling.BILINEAR, box=(0, y1, u2 - u1, y2))
    canvas = np.empty((size.height, size.width, 3), dtype=np.uint8)
    canvas[:] = PAD_COLOR
    canvas[v1:v2, u1:u2] = np.asarray(piece)

    mask = None
    if sample.mask is not None:
        mask = np.full((size.height, size.width), IGNORED, dtype=np.uint8)
        nearest = Image.fromarray(sample.mask).resize(
            (u2 - u1, v2 - v1), Image.Resampling.NEAREST, box=(x1, y1, x2, y2)
        )
        mask[v1:v2, u1:u2] = np.asarray(nearest)

    moved = (sample.boxes - np.array((left, top, left, top))) * np.array((scale_x, scale_y, scale_x, scale_y))
    clipped = np.clip(moved, 0, (size.width, size.height, size.width, size.height))
    area = np.prod(moved[:, 2:] - moved[:, :2], axis=1)
    rest = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1)
    kept = rest > 0
    crowd = sample.crowd | (rest < LEAST_LEFT * area)
    return Sample(canvas, sample.kind, clipped[kept].astype(np.float32), sample.kinds[kept], crowd[kept], mask)


def _mirror(sample: Sample) -> Sample:
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, (0, 2)] = width - boxes[:, (2, 0)]
    mask = None if sample.mask is None else np.ascontiguousarray(sample.mask[:, ::-1])
    image = np.ascontiguousarray(sample.image[:, ::-1])
    return Sample(image, sample.kind, boxes, sample.kinds, sample.crowd, mask)


def _recolor(sample: Sample, strength: float, rng: np.random.Generator) -> Sample:
    """Brightness, contrast and saturation, each by a factor, as one affine map of the colors."""
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    mean = float(sample.image.mean())
    luma = np.array((0.299, 0.587, 0.114))
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * np.tile(luma, (3, 1)))
    offset = brightness * mean * (1 - contrast)
    pixels = sample.image.reshape(-1, 3).astype(np.float32) @ matrix.T.astype(np.float32) + np.float32(offset)
    image = np.clip(pixels + 0.5, 0, 255).astype(np.uint8).reshape(sample.image.shape)
    return Sample(image, sample.kind, sample.boxes, sample.kinds, sample.crowd, sample.mask)
