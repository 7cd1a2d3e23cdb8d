"""How right results are: top-1 and top-5, COCO's mAP, mean IoU. One evaluator a task, fed picture by picture.

It takes the typed results that apps get, after postprocessing, in pixels of the source picture; so whatever
engine made them, the same code judges. COCO's own implementation (pycocotools) computes mAP.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from xformer_mobile.data.sample import IGNORED, Dataset, Sample
from xformer_mobile.errors import DataError
from xformer_mobile.optional import require
from xformer_mobile.postprocess import Classification, ClassMap, Detection, Postprocess, Result
from xformer_mobile.preprocess import preprocess
from xformer_mobile.spec import TASKS, ImageSize, Task

__all__ = ["METRICS", "Evaluator", "evaluate", "evaluation_rule", "evaluator_for"]

Outputs = dict[str, npt.NDArray[np.float32]]

METRICS: dict[Task, tuple[str, ...]] = {
    "classify": ("top1", "top5"),
    "detect": ("map50", "map"),
    "segment": ("miou", "pixel_accuracy"),
}
"""The metrics of each task, 0..1, the one that counts first."""

LEAST_SCORE = 0.01
"""Detections down to this score enter mAP, which weighs precision against recall; apps show far fewer."""


class Evaluator(Protocol):
    """Collects results and says how right they were."""

    def update(self, result: Result, sample: Sample) -> None:
        """Take one picture's result."""

    def metrics(self) -> dict[str, float]:
        """The task's :data:`METRICS` over all pictures so far, each 0..1."""


def evaluator_for(task: Task, labels: tuple[str, ...]) -> Evaluator:
    """A fresh evaluator."""
    evaluators: dict[Task, Callable[[tuple[str, ...]], Evaluator]] = {
        "classify": _Accuracy,
        "detect": _AveragePrecision,
        "segment": _MeanIoU,
    }
    return evaluators[task](labels)


def evaluation_rule(rule: Postprocess) -> Postprocess:
    """The manifest's postprocessing as metrics need it: all detections, not only those that an app shows."""
    if rule.detection is None:
        return replace(rule, top_k=min(5, len(rule.labels)))
    return replace(rule, detection=replace(rule.detection, score_threshold=LEAST_SCORE))


def evaluate(
    run: Callable[[npt.NDArray[np.uint8]], Outputs],
    rule: Postprocess,
    data: Dataset,
    size: ImageSize,
    evaluator: Evaluator,
) -> Iterator[int]:
    """Judge ``run`` (byte image (1, H, W, 3) -> named outputs) on every sample; yields the number of each."""
    judged = evaluation_rule(rule)
    for index in range(len(data)):
        sample = data[index]
        pixels, fit = preprocess(Image.fromarray(sample.image), size, TASKS[rule.task].resize_rule)
        evaluator.update(judged(run(pixels), fit), sample)
        yield index


class _Accuracy:
    def __init__(self, labels: tuple[str, ...]) -> None:
        self.first = self.among = self.count = 0

    def update(self, result: Result, sample: Sample) -> None:
        assert isinstance(result, tuple)
        indices = [item.index for item in result if isinstance(item, Classification)]
        self.first += indices[0] == sample.kind
        self.among += sample.kind in indices[:5]
        self.count += 1

    def metrics(self) -> dict[str, float]:
        _some(self.count, "pictures")
        return {"top1": self.first / self.count, "top5": self.among / self.count}


class _AveragePrecision:
    """COCO's mAP at IoU 0.5 and over 0.5:0.95, all areas, at most 100 detections a picture."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.images: list[dict[str, Any]] = []
        self.truth: list[dict[str, Any]] = []
        self.found: list[dict[str, Any]] = []

    def update(self, result: Result, sample: Sample) -> None:
        image_id = len(self.images) + 1
        height, width = sample.image.shape[:2]
        self.images.append({"id": image_id, "width": width, "height": height})
        for box, kind, crowd in zip(sample.boxes.tolist(), sample.kinds.tolist(), sample.crowd.tolist(), strict=True):
            x1, y1, x2, y2 = box
            self.truth.append(
                {
                    "id": len(self.truth) + 1,
                    "image_id": image_id,
                    "category_id": kind + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(crowd),
                }
            )
        assert isinstance(result, tuple)
        for item in result:
            assert isinstance(item, Detection)
            self.found.append(
                {
                    "image_id": image_id,
                    "category_id": item.index + 1,
                    "bbox": [item.box.x1, item.box.y1, item.box.x2 - item.box.x1, item.box.y2 - item.box.y1],
                    "score": item.score,
                }
            )

    def metrics(self) -> dict[str, float]:
        _some(sum(not item["iscrowd"] for item in self.truth), "boxes")
        if not self.found:
            return {"map50": 0.0, "map": 0.0}
        coco = require("pycocotools.coco", extra="train")
        cocoeval = require("pycocotools.cocoeval", extra="train")
        with contextlib.redirect_stdout(io.StringIO()):  # it reports on stdout, which is the command's
            truth = coco.COCO()
            truth.dataset = {
                "info": {},
                "images": self.images,
                "annotations": self.truth,
                "categories": [{"id": index + 1, "name": label} for index, label in enumerate(self.labels)],
            }
            truth.createIndex()
            judge = cocoeval.COCOeval(truth, truth.loadRes([dict(item) for item in self.found]), "bbox")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        return {"map50": float(judge.stats[1]), "map": float(judge.stats[0])}


class _MeanIoU:
    """Intersection over union of each class over all pixels of all pictures, averaged over the classes that occur."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.classes = len(labels)
        self.confusion = np.zeros((self.classes, self.classes), dtype=np.int64)  # truth, prediction

    def update(self, result: Result, sample: Sample) -> None:
        assert isinstance(result, ClassMap)
        assert sample.mask is not None
        known = sample.mask != IGNORED
        pairs = sample.mask[known].astype(np.int64) * self.classes + result.classes[known]
        self.confusion += np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)

    def metrics(self) -> dict[str, float]:
        right = np.diag(self.confusion).astype(np.float64)
        _some(int(self.confusion.sum()), "pixels that count")
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - right
        return {
            "miou": float((right[union > 0] / union[union > 0]).mean()),
            "pixel_accuracy": float(right.sum() / self.confusion.sum()),
        }


def _some(count: int, what: str) -> None:
    if count == 0:
        raise DataError(f"nothing to evaluate: there are no {what}")
