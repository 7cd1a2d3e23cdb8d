"""From raw outputs to typed results: classes, boxes in source pixels, a class map. numpy only.

Every step is given exactly enough to be repeated in another language; docs/preprocessing.md has them in words.
Decoding of boxes is YOLOv3's, arXiv 1804.02767, section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xformer_mobile.errors import BundleError
from xformer_mobile.preprocess import Fit
from xformer_mobile.spec import Anchors, ModelConfig, Task

__all__ = [
    "Box",
    "ClassMap",
    "Classification",
    "Detection",
    "DetectionRule",
    "Postprocess",
    "Result",
    "classify",
    "default_palette",
    "detect",
    "segment",
]

FloatArray = npt.NDArray[np.float32]

MAX_LOG_SCALE = 10.0
"""tw and th are clamped to this before exp, so that a wild logit is a large box and not an overflow."""


@dataclass(frozen=True)
class Classification:
    """Class ``index`` named ``label``, with its ``probability`` in 0..1."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Box:
    """Corners in source-image pixels, x to the right and y down, clipped to the picture."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Detection:
    """One object: class, ``score`` (objectness times class probability, 0..1) and box."""

    index: int
    label: str
    score: float
    box: Box


@dataclass(frozen=True)
class ClassMap:
    """A class index for each pixel of the source image: ``classes`` is uint8 or uint16 (height, width)."""

    classes: npt.NDArray[np.unsignedinteger[Any]]
    labels: tuple[str, ...]

    def shares(self) -> list[tuple[int, str, float]]:
        """(index, label, share of the pixels) of each class that occurs, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.labels))
        order = np.argsort(-counts, kind="stable")
        return [(int(i), self.labels[i], float(counts[i] / self.classes.size)) for i in order if counts[i]]


Result = tuple[Classification, ...] | tuple[Detection, ...] | ClassMap


@dataclass(frozen=True)
class DetectionRule:
    """What turns YOLOv3 maps into boxes. ``anchors`` are (width, height) in input pixels, per scale."""

    anchors: Anchors
    strides: tuple[int, ...]
    score_threshold: float = 0.25
    iou_threshold: float = 0.45
    max_detections: int = 100


@dataclass(frozen=True)
class Postprocess:
    """All that a task's postprocessing needs; what the manifest says under ``postprocess``."""

    task: Task
    labels: tuple[str, ...]
    top_k: int = 5
    detection: DetectionRule | None = None
    palette: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of(cls, config: ModelConfig) -> Postprocess:
        """The task's defaults for a model."""
        if config.task == "detect":
            shorter = config.image_size.shorter
            anchors = tuple(
                tuple((width * shorter, height * shorter) for width, height in scale) for scale in config.anchors
            )
            return cls("detect", config.labels, detection=DetectionRule(anchors, (8, 16, 32)))
        palette = default_palette(config.num_classes) if config.task == "segment" else ()
        return cls(config.task, config.labels, palette=palette)

    def __call__(self, outputs: Mapping[str, FloatArray], fit: Fit) -> Result:
        """Turn a runner's outputs for one picture into its typed result."""
        for name, values in outputs.items():
            if not np.isfinite(values).all():
                raise BundleError(f"the artifact returned values that are NaN or infinite in {name!r}")
        if self.task == "classify":
            return classify(outputs["logits"], self.labels, self.top_k)
        if self.task == "segment":
            return segment(outputs["logits"], self.labels, fit)
        assert self.detection is not None
        maps = [outputs[f"stride{stride}"] for stride in self.detection.strides]
        return detect(maps, self.labels, self.detection, fit)


def classify(logits: FloatArray, labels: Sequence[str], top_k: int = 5) -> tuple[Classification, ...]:
    """Softmax and the ``top_k`` most probable classes; of equal ones, the lower index first.

    ``logits`` is (1, classes).
    """
    scores = logits.reshape(-1).astype(np.float64)
    exponentials = np.exp(scores - scores.max())
    probabilities = exponentials / exponentials.sum()
    order = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(Classification(int(i), labels[i], float(probabilities[i])) for i in order)


def detect(maps: Sequence[FloatArray], labels: Sequence[str], rule: DetectionRule, fit: Fit) -> tuple[Detection, ...]:
    """Decode YOLOv3 maps, keep what passes the threshold, suppress overlaps, and map to the source picture.

    Each map is (1, anchors * (5 + classes), H, W). For the cell (x, y), anchor (w, h) and stride s::

        centre = (sigmoid(tx) + x) * s, (sigmoid(ty) + y) * s      size = w * exp(tw), h * exp(th)
        score  = sigmoid(objectness) * sigmoid(class)

    Every class whose score reaches the threshold is a candidate. Candidates are ordered by score, then by
    scale, anchor, row, column, class; one that overlaps an earlier kept one of its class by more than the IoU
    threshold is dropped (boxes in source pixels, after clipping). Boxes without area are dropped.
    """
    boxes, scores, classes = (
        np.concatenate(parts)
        for parts in zip(
            *(
                _candidates(values, anchors, stride, rule.score_threshold)
                for values, anchors, stride in zip(maps, rule.anchors, rule.strides, strict=True)
            ),
            strict=True,
        )
    )
    boxes = fit.to_source(boxes)
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, scores, classes = boxes[solid], scores[solid], classes[solid]
    order = np.argsort(-scores, kind="stable")
    kept = _suppress(boxes[order], classes[order], rule.iou_threshold, rule.max_detections)
    return tuple(
        Detection(int(classes[i]), labels[classes[i]], float(scores[i]), Box(*map(float, boxes[i])))
        for i in order[kept]
    )


def _candidates(
    values: FloatArray, anchors: Sequence[tuple[float, float]], stride: int, threshold: float
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Boxes (n, 4) in input pixels, scores (n) and classes (n) of one map that reach the threshold."""
    _, channels, height, width = values.shape
    grid = values.reshape(len(anchors), channels // len(anchors), height, width)  # (A, 5 + classes, H, W)
    scores = _sigmoid(grid[:, 4:5]) * _sigmoid(grid[:, 5:])  # (A, classes, H, W)
    scores = scores.transpose(0, 2, 3, 1)  # (A, H, W, classes): the order of candidates
    anchor, row, column, index = np.nonzero(scores >= np.float32(threshold))
    tx, ty, tw, th = grid[anchor, :4, row, column].T
    sizes = np.asarray(anchors, dtype=np.float32)[anchor]
    step = np.float32(stride)
    half_width = sizes[:, 0] * np.exp(np.minimum(tw, np.float32(MAX_LOG_SCALE))) / 2
    half_height = sizes[:, 1] * np.exp(np.minimum(th, np.float32(MAX_LOG_SCALE))) / 2
    x = (_sigmoid(tx) + column.astype(np.float32)) * step
    y = (_sigmoid(ty) + row.astype(np.float32)) * step
    boxes = np.stack((x - half_width, y - half_height, x + half_width, y + half_height), axis=1)
    return boxes.astype(np.float32), scores[anchor, row, column, index], index


def _sigmoid(x: FloatArray) -> FloatArray:
    # exp of a non-positive number only, so that no logit overflows.
    decay = np.exp(-np.abs(x))
    out: FloatArray = (np.where(x >= 0, np.float32(1), decay) / (1 + decay)).astype(np.float32)
    return out


def _suppress(boxes: FloatArray, classes: npt.NDArray[np.int64], threshold: float, most: int) -> list[int]:
    """Greedy class-wise non-maximum suppression of boxes in order of score; returns the kept indices."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = np.ones(len(boxes), dtype=bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == most:
            break
        low = np.maximum(boxes[i, :2], boxes[i + 1 :, :2])
        high = np.minimum(boxes[i, 2:], boxes[i + 1 :, 2:])
        overlap = np.prod(np.maximum(high - low, np.float32(0)), axis=1)
        union = areas[i] + areas[i + 1 :] - overlap
        alive[i + 1 :] &= ~((overlap > np.float32(threshold) * union) & (classes[i + 1 :] == classes[i]))
    return kept


def segment(logits: FloatArray, labels: Sequence[str], fit: Fit) -> ClassMap:
    """The class of the largest logit at each source pixel; of equal ones, the lowest index.

    ``logits`` (1, classes, h, w) are interpolated bilinearly (half-pixel centres, edges repeated) to the source
    size, the rows first, then the columns, in float32 as ``a + (b - a) * t``. The rule is ``resize``: the
    whole source is the whole input.
    """
    grid = logits[0].astype(np.float32)  # (classes, h, w)
    width, height = fit.source
    top, bottom, down = _taps(grid.shape[1], height)
    left, right, across = _taps(grid.shape[2], width)
    dtype = np.uint8 if len(labels) <= 256 else np.uint16
    classes = np.empty((height, width), dtype=dtype)
    for y in range(height):  # row by row: memory stays small for a large picture
        row = grid[:, top[y]] + (grid[:, bottom[y]] - grid[:, top[y]]) * down[y]  # (classes, w)
        full = row[:, left] + (row[:, right] - row[:, left]) * across  # (classes, width)
        classes[y] = full.argmax(axis=0)
    return ClassMap(classes, tuple(labels))


def _taps(size: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """For each of ``target`` positions: the two of ``size`` samples around it, and the weight of the second."""
    position = (np.arange(target, dtype=np.float64) + 0.5) * (size / target) - 0.5
    position = position.clip(0, size - 1)
    first = np.floor(position).astype(np.int64)
    return first, np.minimum(first + 1, size - 1), (position - first).astype(np.float32)


def default_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """One RGB color a class, far apart for neighbours: the bit-reversal colormap of PASCAL VOC."""

    def color(index: int) -> tuple[int, int, int]:
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        return channels[0], channels[1], channels[2]

    return tuple(color(index) for index in range(num_classes))
