"""Where a run starts: fresh weights, or those of a checkpoint as far as they fit; anchors fitted to the boxes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xformer_mobile.data.sample import Dataset
from xformer_mobile.errors import DataError
from xformer_mobile.reference import XFormer
from xformer_mobile.spec import TASKS, Anchors, ImageSize, ModelConfig
from xformer_mobile.training.losses import shape_iou
from xformer_mobile.weights import resample_context

__all__ = ["fit_anchors", "fresh_model", "transfer"]

OBJECTNESS_PRIOR = 0.01
"""What a fresh detector takes for the share of anchors with an object (RetinaNet's prior, arXiv 1708.02002)."""

BOX_VALUES = 5
"""tx, ty, tw, th and objectness: what of an anchor's outputs does not depend on the classes."""


def fresh_model(config: ModelConfig, seed: int) -> XFormer:
    """A model to train from the beginning: PyTorch's initialisation by ``seed``, a low prior for objectness."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = XFormer(config)
    if config.task == "detect":
        prior = float(np.log(OBJECTNESS_PRIOR / (1 - OBJECTNESS_PRIOR)))
        for name, bias in model.named_parameters():
            if name.startswith("head.predictors.") and name.endswith("bias"):
                with torch.no_grad():
                    bias.view(len(config.anchors[0]), -1)[:, BOX_VALUES - 1] = prior
    return model


def transfer(model: XFormer, source: XFormer) -> list[str]:
    """Take over every weight of ``source`` that fits; returns the names of those that did not.

    Another task's checkpoint gives its backbone. One of the same task with other classes gives all but the last
    layer; a detector's last layer gives its boxes and objectness. W_C is resampled to the input size.
    """
    theirs = resample_context(source.state_dict(), model.config.image_size)
    mine = model.state_dict()
    fresh = []
    taken: dict[str, Tensor] = {}
    same_anchors = model.config.anchors == source.config.anchors
    for name, tensor in mine.items():
        found = theirs.get(name)
        if found is not None and found.shape == tensor.shape and (same_anchors or "predictors" not in name):
            taken[name] = found
            continue
        fresh.append(name)
        if found is not None and "predictors" in name and same_anchors:
            anchors = len(model.config.anchors[0])
            part = tensor.clone().view(anchors, -1, *tensor.shape[1:])
            part[:, :BOX_VALUES] = found.view(anchors, -1, *found.shape[1:])[:, :BOX_VALUES]
            taken[name] = part.view(tensor.shape)
    model.load_state_dict({**mine, **taken})
    return fresh


def fit_anchors(data: Dataset, size: ImageSize, *, pictures: int = 500, per_scale: int = 3) -> Anchors:
    """Anchors for the boxes of the first ``pictures`` samples, as fractions of the input's shorter side.

    k-means of widths and heights with 1 - IoU as the distance (YOLO9000, arXiv 1612.08242, section 2), sorted by
    area and dealt to the three scales, finest first.

    Raises:
        DataError: fewer different boxes than anchors.
    """
    shapes = [np.zeros((0, 2))]
    for index in range(min(pictures, len(data))):
        sample = data[index]
        height, width = sample.image.shape[:2]
        scale = min(size.width / width, size.height / height) / size.shorter
        boxes = sample.boxes[~sample.crowd]
        shapes.append((boxes[:, 2:] - boxes[:, :2]) * scale)
    sizes: npt.NDArray[np.float64] = np.concatenate(shapes).astype(np.float64)
    scales = len(TASKS["detect"].outputs)
    count = scales * per_scale
    if len(np.unique(sizes, axis=0)) < count:
        raise DataError(f"{len(np.unique(sizes, axis=0))} different boxes; {count} anchors need at least as many")
    sizes = sizes[np.argsort(sizes.prod(axis=1), kind="stable")]
    centers = sizes[np.linspace(0, len(sizes) - 1, count).round().astype(int)]
    for _ in range(100):
        nearest = shape_iou(sizes, centers).argmax(axis=1)
        moved = np.array(
            [np.median(sizes[nearest == k], axis=0) if (nearest == k).any() else centers[k] for k in range(count)]
        )
        if np.array_equal(moved, centers):
            break
        centers = moved
    rows = centers[np.argsort(centers.prod(axis=1), kind="stable")].round(4).clip(1e-4).tolist()
    return tuple(
        tuple((width, height) for width, height in rows[scale * per_scale : (scale + 1) * per_scale])
        for scale in range(scales)
    )
