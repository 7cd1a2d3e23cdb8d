"""Sample pictures with the reference's result and each artifact's, small enough to be part of a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from xformer_mobile.drawing import draw_result
from xformer_mobile.postprocess import Box, Classification, ClassMap, Detection, Result, default_palette

__all__ = ["BUDGET_BYTES", "MOST_SAMPLES", "Sample", "Shown", "agreement_text", "show"]

Color = tuple[int, int, int]

MOST_SAMPLES = 8
"""More pictures than that are not shown."""

SIDES = (320, 256, 192, 128, 96)
"""Longest sides, in pixels, that are tried until all pictures fit into the budget."""

BUDGET_BYTES = 1_000_000
"""Of all pictures of a page, before base64 makes 4 bytes of 3."""

JPEG_QUALITY = 85

SAME_BOX_IOU = 0.5
"""Boxes of one class that overlap by this much are the same to a person's eye; the parity's own rule is stricter."""


@dataclass(frozen=True)
class Sample:
    """A picture, uint8 (H, W, 3) RGB, with the reference's result on it and each artifact's, by format.

    Boxes are in this picture's pixels, and class maps of its size. ``palette`` are a class map's colours; empty: the
    default ones.
    """

    name: str
    image: npt.NDArray[np.uint8]
    reference: Result
    artifacts: Mapping[str, Result]
    palette: tuple[Color, ...] = ()


@dataclass(frozen=True)
class Shown:
    """A sample as the page shows it: one side is named "reference", the others by format.

    ``pictures`` are data URIs; classes need only the picture itself, under "".
    """

    sample: Sample
    size: tuple[int, int]  # width, height
    pictures: Mapping[str, str]

    @property
    def results(self) -> dict[str, Result]:
        """Every side's result, the reference's first."""
        return {"reference": self.sample.reference, **self.sample.artifacts}


def show(samples: Sequence[Sample]) -> list[Shown]:
    """The first samples as small pictures that fit into the budget together: fewer, where even small ones don't."""
    chosen = list(samples[:MOST_SAMPLES])
    for side in SIDES:
        encoded = [_encode(sample, side) for sample in chosen]
        if sum(len(data) for _, pictures in encoded for data in pictures.values()) <= BUDGET_BYTES:
            break
    found, room = [], BUDGET_BYTES
    for sample, (size, pictures) in zip(chosen, encoded, strict=True):
        room -= sum(map(len, pictures.values()))
        if room < 0:
            break
        found.append(Shown(sample, size, {name: _data_uri(data) for name, data in pictures.items()}))
    return found


def agreement_text(reference: Result, found: Result) -> tuple[bool, str]:
    """Whether two results of a picture are the same to a user, and what they have in common, in words."""
    if isinstance(reference, ClassMap) or isinstance(found, ClassMap):
        if not isinstance(reference, ClassMap) or not isinstance(found, ClassMap):
            return False, "results of two kinds"
        same = reference.classes == found.classes
        equal = float(np.mean(same))
        return equal >= 0.99, f"{100 * equal if equal == 1 else min(100 * equal, 99.9):.1f} % of the pixels agree"
    classes = [[item for item in side if isinstance(item, Classification)] for side in (reference, found)]
    if all(classes):
        first, second = ([item.index for item in side] for side in classes)
        common = len(set(first) & set(second))
        top = "same class first" if first[0] == second[0] else "another class first"
        return first[0] == second[0], f"{top}; {common} of {len(first)} in common"
    boxes = [[item for item in side if isinstance(item, Detection)] for side in (reference, found)]
    common = _common(*boxes)
    extra = len(boxes[1]) - common
    text = f"{common} of {len(boxes[0])} boxes found again" if boxes[0] else "no boxes in the reference"
    return common == len(boxes[0]) and not extra, text + (f"; {extra} more" if extra else "")


def _common(reference: Sequence[Detection], found: Sequence[Detection]) -> int:
    """How many boxes of the reference are found again; each found box counts once."""
    left, common = list(found), 0
    for item in reference:
        twin = max(
            (one for one in left if one.index == item.index), key=lambda one: _iou(item.box, one.box), default=None
        )
        if twin is not None and _iou(item.box, twin.box) >= SAME_BOX_IOU:
            left.remove(twin)
            common += 1
    return common


def _iou(a: Box, b: Box) -> float:
    """Intersection over union; 0 where both are empty."""
    both = max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1)) * max(0.0, min(a.y2, b.y2) - max(a.y1, b.y1))
    union = sum((box.x2 - box.x1) * (box.y2 - box.y1) for box in (a, b)) - both
    return both / union if union > 0 else 0.0


def _encode(sample: Sample, side: int) -> tuple[tuple[int, int], dict[str, bytes]]:
    """The sample's size on the page, and its pictures as JPEG files."""
    image = Image.fromarray(sample.image)
    factor = min(1.0, side / max(image.size))
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    small = image.resize(size, Image.Resampling.LANCZOS) if size != image.size else image
    results = {"reference": sample.reference, **sample.artifacts}
    if not any(_is_drawn(result) for result in results.values()):
        return size, {"": _jpeg(small)}
    drawn = {}
    for name, result in results.items():
        fitted = _fitted(result, size, image.size)
        palette = sample.palette or default_palette(len(fitted.labels)) if isinstance(fitted, ClassMap) else ()
        # Without the panel of words below it: the page has them as text.
        canvas = draw_result(small, fitted, palette)
        left = (canvas.width - size[0]) // 2
        drawn[name] = _jpeg(canvas.crop((left, 0, left + size[0], size[1])))
    return size, drawn


def _is_drawn(result: Result) -> bool:
    """Whether a result is shown on the picture; classes stand beside it."""
    return isinstance(result, ClassMap) or not any(isinstance(item, Classification) for item in result)


def _fitted(result: Result, size: tuple[int, int], source: tuple[int, int]) -> Result:
    """A result on the smaller picture: (width, height) of both."""
    if isinstance(result, ClassMap):
        rows = np.arange(size[1]) * result.classes.shape[0] // size[1]
        columns = np.arange(size[0]) * result.classes.shape[1] // size[0]
        return replace(result, classes=result.classes[rows][:, columns])
    across, down = size[0] / source[0], size[1] / source[1]
    boxes = [item for item in result if isinstance(item, Detection)]
    return tuple(
        replace(item, box=Box(item.box.x1 * across, item.box.y1 * down, item.box.x2 * across, item.box.y2 * down))
        for item in boxes
    )


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def _data_uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
