"""The losses of the three tasks, and the assignment of boxes to anchors.

Sources: label smoothing, arXiv 1512.00567, section 7; YOLOv3, arXiv 1804.02767, section 2; mixup and CutMix,
arXiv 1710.09412 and 1905.04899 (their targets are probabilities, which the classifier's loss takes).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xformer_mobile.data.sample import IGNORED
from xformer_mobile.spec import ModelConfig

__all__ = ["ClassificationLoss", "DetectionLoss", "SegmentationLoss", "assign_anchors", "pair_iou", "shape_iou"]

Boxes = Sequence[tuple[Tensor, Tensor, Tensor]]
"""For each picture of a batch: boxes (n, 4) as x1, y1, x2, y2 in input pixels, classes (n), crowd (n)."""


class ClassificationLoss(nn.Module):
    """Cross-entropy with label smoothing. Logits (B, classes); targets class probabilities (B, classes)."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs[0].float(), targets, label_smoothing=self.smoothing)


class SegmentationLoss(nn.Module):
    """Cross-entropy at the mask's size. Logits (B, classes, H/4, W/4), masks int64 (B, H, W); IGNORED is left out."""

    def forward(self, outputs: tuple[Tensor, ...], masks: Tensor) -> Tensor:
        logits = F.interpolate(outputs[0].float(), size=masks.shape[1:], mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="sum")
        return loss / (masks != IGNORED).sum().clamp(min=1)


def shape_iou(sizes: npt.NDArray[np.floating], anchors: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Intersection over union of (n, 2) and (m, 2) widths and heights laid on one corner: (n, m)."""
    overlap = np.minimum(sizes[:, None], anchors[None]).prod(axis=2)
    union = sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - overlap
    ratio: npt.NDArray[np.floating] = overlap / np.maximum(union, 1e-12)
    return ratio


def pair_iou(one: Tensor, two: Tensor) -> Tensor:
    """Intersection over union of boxes (n, 4) and (m, 4), as x1, y1, x2, y2: (n, m)."""
    low = torch.maximum(one[:, None, :2], two[None, :, :2])
    high = torch.minimum(one[:, None, 2:], two[None, :, 2:])
    overlap = (high - low).clamp(min=0).prod(dim=2)

    def area(boxes: Tensor) -> Tensor:
        return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    return overlap / (area(one)[:, None] + area(two)[None] - overlap).clamp(min=1e-9)


def assign_anchors(
    boxes: npt.NDArray[np.floating], anchors: npt.NDArray[np.floating], threshold: float = 0.5
) -> npt.NDArray[np.bool_]:
    """Which anchors answer for which boxes: (n, anchors), bool.

    ``anchors`` (m, 2) are widths and heights in the boxes' unit, over all scales. A box goes to the anchor
    whose shape fits best (YOLOv3), and to every other whose shape overlaps it by more than ``threshold``,
    which YOLOv3 leaves without an answer either way.
    """
    fits = shape_iou(boxes[:, 2:] - boxes[:, :2], anchors)
    assigned = fits > threshold
    assigned[np.arange(len(boxes)), fits.argmax(axis=1)] = True
    return assigned


class DetectionLoss(nn.Module):
    """YOLOv3's loss over its three maps.

    For each anchor that answers for a box: binary cross-entropy of the centre within its cell, squared error of
    the logarithms of its size (both weighted by 2 - area, so that small boxes count), binary cross-entropy
    of each class. Objectness is binary cross-entropy everywhere but where a prediction overlaps a box (a crowd
    too) by more than ``ignore_threshold`` without answering for it. Sums over a picture, divided by its boxes.
    """

    def __init__(self, config: ModelConfig, ignore_threshold: float = 0.5) -> None:
        super().__init__()
        shorter = config.image_size.shorter
        self.anchors = np.array(config.anchors, dtype=np.float32) * shorter  # (scales, anchors, 2) in pixels
        self.strides = (8, 16, 32)
        self.size = config.image_size
        self.num_classes = config.num_classes
        self.ignore_threshold = ignore_threshold

    def forward(self, outputs: tuple[Tensor, ...], targets: Boxes) -> Tensor:
        per_scale = self.anchors.shape[1]
        maps = [
            values.float()
            .reshape(len(values), per_scale, 5 + self.num_classes, *values.shape[2:])
            .permute(0, 1, 3, 4, 2)
            for values in outputs
        ]  # each (B, anchors, H, W, 5 + classes)
        total = maps[0].new_zeros(())
        count = 0
        for picture, (boxes, classes, crowd) in enumerate(targets):
            solid = ~crowd
            total = total + self._picture([values[picture] for values in maps], boxes, classes, solid)
            count += int(solid.sum())
        return total / max(count, 1)

    def _picture(self, maps: list[Tensor], boxes: Tensor, classes: Tensor, solid: Tensor) -> Tensor:
        scales, per_scale = self.anchors.shape[:2]
        mine = boxes[solid]
        assigned = assign_anchors(mine.cpu().numpy(), self.anchors.reshape(-1, 2)).reshape(-1, scales, per_scale)
        loss = maps[0].new_zeros(())
        for scale, values in enumerate(maps):
            stride = self.strides[scale]
            objectness = torch.zeros_like(values[..., 4])
            counted = torch.ones_like(objectness, dtype=torch.bool)
            if len(boxes):
                with torch.no_grad():
                    overlap = pair_iou(self._decode(values.detach(), scale).reshape(-1, 4), boxes)
                    counted = (overlap.amax(dim=1) <= self.ignore_threshold).reshape(objectness.shape)
            which, anchor = (torch.from_numpy(part).to(boxes.device) for part in np.nonzero(assigned[:, scale]))
            if len(which):
                box = mine[which]
                center = (box[:, :2] + box[:, 2:]) / 2 / stride
                limit = torch.tensor([values.shape[2] - 1, values.shape[1] - 1], device=box.device)
                cell = torch.minimum(center.floor().long(), limit)  # (n, 2): column, row
                predicted = values[anchor, cell[:, 1], cell[:, 0]]  # (n, 5 + classes)
                sizes = torch.from_numpy(self.anchors[scale]).to(box.device)[anchor]
                extent = (box[:, 2:] - box[:, :2]).clamp(min=1e-3)
                weight = 2 - extent.prod(dim=1) / (self.size.width * self.size.height)
                within = F.binary_cross_entropy_with_logits(predicted[:, :2], center - cell, reduction="none")
                scaled = (predicted[:, 2:4] - (extent / sizes).log()).square()
                loss = loss + (weight * (within + scaled).sum(dim=1)).sum()
                wanted = F.one_hot(classes[solid][which], self.num_classes).float()
                loss = loss + F.binary_cross_entropy_with_logits(predicted[:, 5:], wanted, reduction="sum")
                objectness[anchor, cell[:, 1], cell[:, 0]] = 1.0
                counted[anchor, cell[:, 1], cell[:, 0]] = True
            every = F.binary_cross_entropy_with_logits(values[..., 4], objectness, reduction="none")
            loss = loss + every[counted].sum()
        return loss

    def _decode(self, values: Tensor, scale: int) -> Tensor:
        """Boxes (anchors, H, W, 4) in input pixels of one picture's map."""
        _, height, width, _ = values.shape
        stride = self.strides[scale]
        row = torch.arange(height, device=values.device)[:, None]
        column = torch.arange(width, device=values.device)[None]
        x = (values[..., 0].sigmoid() + column) * stride
        y = (values[..., 1].sigmoid() + row) * stride
        sizes = torch.from_numpy(self.anchors[scale]).to(values.device)[:, None, None]
        half = sizes * values[..., 2:4].clamp(max=10).exp() / 2
        return torch.stack((x - half[..., 0], y - half[..., 1], x + half[..., 0], y + half[..., 1]), dim=-1)
