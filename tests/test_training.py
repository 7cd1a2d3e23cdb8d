"""Training: what a picture becomes, what a loss says, and that a run is a function of its recipe and data."""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from xformer_mobile.data import Subset, Synthetic
from xformer_mobile.data.sample import IGNORED, Sample
from xformer_mobile.errors import DataError, OutputError, TrainingError, UsageError, XFormerError
from xformer_mobile.files import state_path
from xformer_mobile.postprocess import ClassMap, Detection, DetectionRule, Postprocess, detect
from xformer_mobile.preprocess import PAD_COLOR, fit, preprocess
from xformer_mobile.reference import XFormer, normalize
from xformer_mobile.spec import TASKS, YOLOV3_ANCHORS, ImageSize, ModelConfig, Task
from xformer_mobile.training import (
    RECIPES,
    Augmentation,
    EpochReport,
    Recipe,
    StepReport,
    Trainer,
    augment,
    fit_anchors,
)
from xformer_mobile.training.loop import METADATA_KEY, _mix
from xformer_mobile.training.losses import (
    ClassificationLoss,
    DetectionLoss,
    SegmentationLoss,
    assign_anchors,
    pair_iou,
    shape_iou,
)
from xformer_mobile.training.recipe import PRECISIONS
from xformer_mobile.training.start import fresh_model, transfer
from xformer_mobile.weights import load_checkpoint, resample_context

SMALL = ImageSize(64, 64)
TASK_NAMES: list[Task] = [spec.name for spec in TASKS.values()]
PLAIN = Augmentation(zoom=(1.0, 1.0), aspect=1.0, flip=0.0, color=0.0)

Pixels = npt.NDArray[np.uint8]


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample_of(image: Pixels, *boxes: tuple[float, float, float, float], mask: Pixels | None = None) -> Sample:
    corners = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Sample(image, 0, corners, np.arange(len(boxes)), np.zeros(len(boxes), dtype=np.bool_), mask)


class Middle:
    """A generator that always draws the middle: the window that preprocessing takes."""

    def uniform(self, low: float, high: float, count: int | None = None) -> Any:
        return (low + high) / 2 if count is None else np.full(count, (low + high) / 2)

    def random(self) -> float:
        return 0.5


middle = cast(np.random.Generator, Middle())


# ---- augmentation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_rule_that_allows_nothing_changes_nothing(task: Task) -> None:
    source = Synthetic(task, "train", 1, size=ImageSize(64, 128))[0]
    for seed in range(3):
        same = augment(source, task, ImageSize(64, 128), PLAIN, np.random.default_rng(seed))
        assert same.mask is not None
        assert source.mask is not None
        for one, other in zip(
            (same.image, same.mask, same.boxes, same.kinds, same.crowd),
            (source.image, source.mask, source.boxes, source.kinds, source.crowd),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        assert same.kind == source.kind


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize(
    "size", [(144, 144), (288, 144), (144, 576), (36, 36)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_the_middle_window_is_what_preprocessing_shows(task: Task, size: tuple[int, int]) -> None:
    """Sizes whose scale is a whole ratio: there, a window resampled is the resampled picture's window, bit for bit."""
    image = picture(*size)
    shown, place = preprocess(image, SMALL, TASKS[task].resize_rule)
    box = (10.0, 8.0, 30.0, 28.0)
    found = augment(sample_of(image, box), task, SMALL, PLAIN, middle)
    np.testing.assert_array_equal(found.image, shown[0])
    if task != "classify":
        np.testing.assert_allclose(place.to_source(found.boxes), [box], atol=1e-3)


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("size", [(150, 101), (67, 210)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_middle_window_of_an_odd_picture_is_close(task: Task, size: tuple[int, int]) -> None:
    """Elsewhere preprocessing rounds sizes to pixels and the window does not: half a pixel of a smooth picture."""
    row, column = np.mgrid[: size[0], : size[1]]
    image = np.stack((row % 256, column % 256, (row + column) // 2 % 256), axis=2).astype(np.uint8)
    shown, _ = preprocess(image, SMALL, TASKS[task].resize_rule)
    found = augment(sample_of(image), task, SMALL, PLAIN, middle)
    assert np.abs(found.image.astype(int) - shown[0].astype(int)).mean() < 4


def extent(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_boxes_stay_tight_to_the_mask_of_a_rectangle(task: Task) -> None:
    """Also where the window cuts it; what shows says in color that picture and mask moved together."""
    box = (40, 20, 90, 70)
    image = np.full((120, 160, 3), 20, dtype=np.uint8)
    mask = np.zeros((120, 160), dtype=np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 240
    mask[box[1] : box[3], box[0] : box[2]] = 3
    rule = Augmentation(zoom=(0.4, 1.5), aspect=1.5, flip=0.5, color=0.0)
    seen = cut = mirrored = 0
    for seed in range(60):
        found = augment(sample_of(image, box, mask=mask), task, SMALL, rule, np.random.default_rng(seed))
        assert found.mask is not None
        assert found.image.shape == (64, 64, 3)
        if not (found.mask == 3).any():
            assert len(found.boxes) == 0 or (found.boxes[0, 2:] - found.boxes[0, :2]).min() < 2
            continue
        seen += 1
        assert found.boxes.shape == (1, 4)
        np.testing.assert_allclose(found.boxes[0], extent(found.mask == 3), atol=1.6)
        np.testing.assert_allclose(found.boxes[0], extent((found.image > 180).min(axis=2)), atol=1.6)
        cut += bool((found.boxes == 0).any() or (found.boxes == 64).any())
        mirrored += found.boxes[0].sum() > 0
    assert seen > 40
    assert 5 < cut < seen


def test_boxes_stay_tight_to_the_masks_of_scenes() -> None:
    rule = RECIPES["detect"].augmentation
    compared = 0
    for index in range(12):
        scene = Synthetic("detect", "train", 12, seed=5)[index]
        for seed in range(3):
            found = augment(scene, "detect", ImageSize(128, 128), rule, np.random.default_rng((index, seed)))
            assert found.mask is not None
            for box, kind, crowd in zip(found.boxes, found.kinds, found.crowd, strict=True):
                whole = box[:2].min() > 1 and box[2:].max() < 127
                if whole and not crowd and (scene.kinds == kind).sum() == 1:
                    np.testing.assert_allclose(box, extent(found.mask == kind + 1), atol=2)
                    compared += 1
    assert compared > 25


def test_outside_the_picture_is_grey_and_ignored() -> None:
    source = sample_of(np.full((64, 64, 3), 200, dtype=np.uint8), mask=np.full((64, 64), 1, dtype=np.uint8))
    found = augment(source, "segment", SMALL, replace(PLAIN, zoom=(2.0, 2.0)), np.random.default_rng(0))
    assert found.mask is not None
    grey = (found.image == PAD_COLOR).all(axis=2)
    np.testing.assert_array_equal(grey, found.mask == IGNORED)
    np.testing.assert_array_equal(~grey, found.mask == 1)
    assert (~grey).sum() == 32 * 32
    assert extent(~grey)[2] - extent(~grey)[0] == 32


@pytest.mark.parametrize(
    ("right", "share", "crowd"), [(64, 0.5, False), (52, 0.35, False), (48, 0.25, True), (40, 0.0, None)]
)
def test_a_box_of_which_little_is_left_is_a_crowd(right: int, share: float, crowd: bool | None) -> None:
    """The middle half of the picture shows; it begins at 32 and the box ends at ``right``."""
    width = (right - 32) / share if share else 6
    source = sample_of(picture(128, 128), (right - width, 60, right, 70), (40, 40, 50, 50))
    rule = replace(PLAIN, zoom=(0.5, 0.5))
    if crowd is None:
        source = replace(source, boxes=source.boxes - np.float32(30))
    found = augment(source, "detect", SMALL, rule, middle)
    if crowd is None:
        np.testing.assert_array_equal(found.kinds, [])
        return
    np.testing.assert_array_equal(found.kinds, [0, 1])
    np.testing.assert_array_equal(found.crowd, [crowd, False])
    np.testing.assert_allclose(found.boxes[0], [0, 28, right - 32, 38])
    already = augment(replace(source, crowd=np.array([True, True])), "detect", SMALL, rule, middle)
    assert already.crowd.all()


def test_mirroring_is_of_the_whole_sample() -> None:
    scene = Synthetic("segment", "train", 1, size=SMALL)[0]
    plain, mirrored = (
        augment(scene, "segment", SMALL, replace(RECIPES["segment"].augmentation, flip=flip), np.random.default_rng(3))
        for flip in (0.0, 1.0)
    )
    assert plain.mask is not None
    assert mirrored.mask is not None
    np.testing.assert_array_equal(mirrored.mask, plain.mask[:, ::-1])
    np.testing.assert_array_equal(mirrored.image, plain.image[:, ::-1])
    np.testing.assert_allclose(
        mirrored.boxes,
        np.stack([64 - plain.boxes[:, 2], plain.boxes[:, 1], 64 - plain.boxes[:, 0], plain.boxes[:, 3]], axis=1),
    )


@pytest.mark.parametrize("task", TASK_NAMES)
def test_augmentation_depends_on_the_generator_alone(task: Task) -> None:
    scene = Synthetic(task, "train", 1, size=SMALL)[0]
    kept = scene.image.copy()
    one, same, other = (
        augment(scene, task, SMALL, RECIPES[task].augmentation, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.boxes, same.boxes)
    assert not np.array_equal(one.image, other.image)
    np.testing.assert_array_equal(scene.image, kept)


def test_color_alone_moves_nothing() -> None:
    scene = Synthetic("segment", "train", 1, size=SMALL)[0]
    found = augment(scene, "segment", SMALL, replace(PLAIN, color=0.3), np.random.default_rng(0))
    np.testing.assert_array_equal(found.mask, scene.mask)
    assert not np.array_equal(found.image, scene.image)
    assert np.corrcoef(found.image.ravel(), scene.image.ravel())[0, 1] > 0.9
    # A factor of 1 for all three is the picture itself.
    same = augment(scene, "segment", SMALL, replace(PLAIN, color=0.3), middle)
    np.testing.assert_array_equal(same.image, scene.image)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("task", TASK_NAMES)
def test_any_shape_of_picture(task: Task, size: tuple[int, int]) -> None:
    source = sample_of(picture(*size), (0, 0, size[1], size[0]), mask=np.zeros(size, dtype=np.uint8))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = augment(source, task, SMALL, Augmentation(zoom=(0.05, 10), aspect=2.0), rng)
        assert found.image.shape == (64, 64, 3)
        assert np.isfinite(found.boxes).all()


# ---- losses ----------------------------------------------------------------------------------------------


def test_label_smoothing_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    logs = torch.log_softmax(logits, dim=1)[0].tolist()
    plain = ClassificationLoss(0.0)((logits,), torch.tensor([[1.0, 0.0, 0.0]]))
    assert float(plain) == pytest.approx(-logs[0])
    smooth = ClassificationLoss(0.3)((logits,), torch.tensor([[1.0, 0.0, 0.0]]))
    assert float(smooth) == pytest.approx(-(0.8 * logs[0] + 0.1 * logs[1] + 0.1 * logs[2]))
    mixed = ClassificationLoss(0.0)((logits.half(),), torch.tensor([[0.25, 0.75, 0.0]]))
    assert mixed.dtype == torch.float32
    assert float(mixed) == pytest.approx(-(0.25 * logs[0] + 0.75 * logs[1]), abs=1e-3)


def test_segmentation_leaves_out_what_is_ignored() -> None:
    """Constant logits stay constant when enlarged, so each pixel's loss is known."""
    logits = torch.tensor([1.0, -1.0, 0.5])[None, :, None, None].repeat(1, 1, 2, 2)
    logs = torch.log_softmax(torch.tensor([1.0, -1.0, 0.5]), dim=0)
    mask = torch.full((1, 8, 8), IGNORED)
    mask[0, 0, :3] = torch.tensor([0, 1, 1])
    assert float(SegmentationLoss()((logits,), mask)) == pytest.approx(float(-(logs[0] + 2 * logs[1]) / 3))


def test_a_batch_in_which_all_is_ignored() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = SegmentationLoss()((logits,), torch.full((2, 16, 16), IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_overlaps_by_hand() -> None:
    np.testing.assert_allclose(
        shape_iou(np.array([[2.0, 4.0]]), np.array([[2.0, 4.0], [4.0, 2.0], [1.0, 1.0]])), [[1, 4 / 12, 1 / 8]]
    )
    one = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    two = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 6.0, 6.0], [4.0, 0.0, 8.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(pair_iou(one, two), [[1, 4 / 28, 0, 0]])


def test_which_anchors_answer() -> None:
    """The best one always; others above one half only."""
    anchors = np.array([[10, 10], [12, 10], [20, 20], [100, 100]], dtype=np.float32)
    boxes = np.array([[0, 0, 10, 10], [5, 5, 405, 405], [0, 0, 1, 1], [0, 0, 20, 10]], dtype=np.float32)
    # 20x10: 0.5 with the first, which is not above; 0.6 with the second, the best; 0.5 with the third.
    np.testing.assert_array_equal(
        assign_anchors(boxes, anchors), [[1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
    )
    assert assign_anchors(np.zeros((0, 4), dtype=np.float32), anchors).shape == (0, 4)


DETECTOR = ModelConfig.create("detect", "xformer_xxs", image_size=ImageSize(64, 128), num_classes=3)
SURE = 30.0


def blank_maps(config: ModelConfig = DETECTOR) -> list[Tensor]:
    """Maps that are sure that there is nothing."""
    maps = []
    for name, shape in config.output_shapes().items():
        assert name.startswith("stride")
        grid = torch.zeros(1, 3, 5 + config.num_classes, *shape[2:])
        grid[:, :, 4:] = -SURE
        maps.append(grid.reshape(shape))
    return maps


def targets_of(
    boxes: list[tuple[float, float, float, float]], classes: list[int] | None = None, crowd: list[bool] | None = None
) -> list[tuple[Tensor, Tensor, Tensor]]:
    kinds = [0] * len(boxes) if classes is None else classes
    return [
        (
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(kinds, dtype=torch.int64),
            torch.tensor([False] * len(boxes) if crowd is None else crowd, dtype=torch.bool),
        )
    ]


def perfect_maps(
    boxes: list[tuple[float, float, float, float]], classes: list[int], config: ModelConfig = DETECTOR
) -> tuple[list[Tensor], float]:
    """Maps that answer right in every place that is asked, and the least loss that there is.

    Written apart from the loss. Where the centre lies within its cell is a cross-entropy with a target between 0
    and 1, whose least value is the target's entropy.
    """
    maps = blank_maps(config)
    least = 0.0
    anchors = [[(w * config.image_size.shorter, h * config.image_size.shorter) for w, h in s] for s in config.anchors]
    for (x1, y1, x2, y2), kind in zip(boxes, classes, strict=True):
        width, height = x2 - x1, y2 - y1
        weight = 2 - width * height / (config.image_size.width * config.image_size.height)
        overlaps = {
            (scale, number): min(w, width) * min(h, height) / (w * h + width * height - min(w, width) * min(h, height))
            for scale, row in enumerate(anchors)
            for number, (w, h) in enumerate(row)
        }
        best = max(overlaps, key=lambda key: overlaps[key])
        for (scale, number), overlap in overlaps.items():
            if overlap <= 0.5 and (scale, number) != best:
                continue
            stride = (8, 16, 32)[scale]
            grid = maps[scale].reshape(3, 5 + config.num_classes, *maps[scale].shape[2:])
            within = []
            cell = []
            for middle_of, count in (((x1 + x2) / 2 / stride, grid.shape[3]), ((y1 + y2) / 2 / stride, grid.shape[2])):
                cell.append(min(int(middle_of), count - 1))
                within.append(middle_of - cell[-1])
            place = (number, slice(None), cell[1], cell[0])
            w, h = anchors[scale][number]
            share = torch.tensor(within, dtype=torch.float64)
            least += weight * float(torch.nn.functional.binary_cross_entropy(share, share, reduction="sum"))
            grid[place] = torch.tensor(
                [
                    *torch.logit(share, eps=1e-12).tolist(),
                    math.log(width / w),
                    math.log(height / h),
                    SURE,
                    *(SURE if index == kind else -SURE for index in range(config.num_classes)),
                ]
            )
    return maps, least


def decoded(maps: list[Tensor], config: ModelConfig = DETECTOR) -> list[Detection]:
    size = config.image_size
    rule = Postprocess.of(config).detection
    assert isinstance(rule, DetectionRule)
    place = fit((size.width, size.height), size, "letterbox")
    return list(detect([values.detach().numpy() for values in maps], config.labels, rule, place))


ROUND_TRIPS: dict[str, tuple[list[tuple[float, float, float, float]], list[int]]] = {
    "one": ([(10, 12, 45, 40)], [1]),
    "tiny": ([(100.25, 30.5, 102, 33)], [0]),
    "whole": ([(0, 0, 128, 64)], [2]),
    "several": ([(5, 5, 20, 25), (60, 10, 120, 60), (30, 40, 38, 50)], [0, 1, 2]),
    "on-cell-edges": ([(24, 8, 40, 24), (88, 40, 104, 56)], [0, 1]),
    "two-shapes-in-one-cell": ([(30, 24, 36, 30), (4, 6, 62, 50)], [1, 1]),
    "none": ([], []),
}


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_a_perfect_prediction_is_the_least_loss_and_decodes_to_the_boxes(case: str) -> None:
    """What the loss asks for is what postprocessing reads: cells, anchors, logarithms and classes agree."""
    boxes, classes = ROUND_TRIPS[case]
    maps, least = perfect_maps(boxes, classes)
    maps = [values.requires_grad_() for values in maps]
    loss = DetectionLoss(DETECTOR)(tuple(maps), targets_of(boxes, classes))
    assert loss.item() == pytest.approx(least / max(len(boxes), 1), abs=1e-3)
    loss.backward()
    for values in maps:
        assert values.grad is not None
        assert values.grad.abs().max() < 1e-3  # nowhere to go
    found = sorted((item.index, item.box.x1, item.box.y1, item.box.x2, item.box.y2) for item in decoded(maps))
    wanted = sorted((kind, *box) for kind, box in zip(classes, boxes, strict=True))
    assert len(found) == len(wanted)
    np.testing.assert_allclose(np.array(found).reshape(-1, 5), np.array(wanted).reshape(-1, 5), atol=0.01)


@pytest.mark.parametrize("place", [(0, 4, 0, 0), (0, 0, 0, 0), (0, 2, 0, 0)], ids=["objectness", "centre", "size"])
def test_a_prediction_that_is_a_little_wrong_costs(place: tuple[int, int, int, int]) -> None:
    boxes, classes = ROUND_TRIPS["one"]
    maps, least = perfect_maps(boxes, classes)
    scale = int(np.argmax([float(values.reshape(3, 8, *values.shape[2:])[:, 4].max()) for values in maps]))
    grid = maps[scale].reshape(3, 8, *maps[scale].shape[2:])
    anchor, row, column = np.argwhere(grid[:, 4].numpy() > 0)[0]
    grid[anchor, place[1], row, column] += -2 * SURE if place[1] == 4 else 2.0
    assert float(DetectionLoss(DETECTOR)(tuple(maps), targets_of(boxes, classes))) > least + 0.05


def test_no_boxes_ask_for_nothing_everywhere() -> None:
    """Zero logits cost log 2 in every anchor of every cell."""
    maps = [torch.zeros(shape, requires_grad=True) for shape in DETECTOR.output_shapes().values()]
    loss = DetectionLoss(DETECTOR)(tuple(maps), targets_of([]))
    cells = sum(3 * values.shape[2] * values.shape[3] for values in maps)
    assert loss.item() == pytest.approx(cells * math.log(2), rel=1e-5)
    loss.backward()
    assert all(values.grad is not None and torch.isfinite(values.grad).all() for values in maps)


def test_a_crowd_is_neither_right_nor_wrong() -> None:
    """Finding it costs nothing, not finding it neither; it takes part in no average."""
    boxes, classes = ROUND_TRIPS["one"]
    crowd = targets_of(boxes, classes, [True])
    found, _ = perfect_maps(boxes, classes)
    loss = DetectionLoss(DETECTOR)
    assert float(loss(tuple(blank_maps()), crowd)) == pytest.approx(0, abs=1e-4)
    assert float(loss(tuple(found), crowd)) == pytest.approx(0, abs=1e-4)
    assert float(loss(tuple(found), targets_of([]))) > SURE / 2  # where nothing is, the same answer is wrong
    both = targets_of([*boxes, (80, 10, 120, 50)], [1, 2], [False, True])
    _, least = perfect_maps(boxes, classes)
    assert float(loss(tuple(found), both)) == pytest.approx(least, abs=1e-3)


def test_the_mean_is_over_the_boxes_of_the_batch() -> None:
    boxes, classes = ROUND_TRIPS["several"]
    torch.manual_seed(0)
    maps = [torch.randn(2, *shape[1:]) for shape in DETECTOR.output_shapes().values()]
    loss = DetectionLoss(DETECTOR)
    targets = targets_of(boxes, classes) + targets_of([(10, 10, 30, 30)], [1])
    alone = [float(loss(tuple(values[k : k + 1] for values in maps), targets[k : k + 1])) for k in range(2)]
    assert float(loss(tuple(maps), targets)) == pytest.approx((3 * alone[0] + alone[1]) / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("boxes", "crowd"),
    [
        ([], []),
        ([(0, 0, 20, 20)], [True]),
        ([(124, 20, 132, 40)], [False]),
        ([(20, 60, 40, 68)], [False]),
        ([(127.9, 63.9, 128, 64)], [False]),
        ([(128, 64, 128, 64)], [False]),
        ([(8, 8, 24, 24), (8, 8, 24, 24), (9, 9, 23, 23)], [False, False, False]),
        ([(-500, -500, 900, 900)], [False]),
    ],
    ids=["none", "crowd", "right-edge", "bottom-edge", "corner", "no-area", "one-cell", "huge"],
)
@pytest.mark.parametrize("scale", [0.0, 1.0, 60.0], ids=["zero", "drawn", "wild"])
def test_gradients_are_finite(boxes: list[tuple[float, float, float, float]], crowd: list[bool], scale: float) -> None:
    torch.manual_seed(0)
    maps = [(torch.randn(shape) * scale).requires_grad_() for shape in DETECTOR.output_shapes().values()]
    loss = DetectionLoss(DETECTOR)(tuple(maps), targets_of(boxes, crowd=crowd))
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(values.grad is not None and torch.isfinite(values.grad).all() for values in maps)


def test_two_boxes_that_one_anchor_would_answer_share_it() -> None:
    """The descent ends between the two, and each class is as likely as the other."""
    boxes = [(8.0, 8.0, 24.0, 24.0), (9.0, 9.0, 25.0, 25.0)]
    maps = [values.requires_grad_() for values in blank_maps()]
    optimizer = torch.optim.Adam(maps, lr=0.5)
    loss = DetectionLoss(DETECTOR)
    for _ in range(200):
        optimizer.zero_grad()
        loss(tuple(maps), targets_of(boxes, [0, 1])).backward()
        optimizer.step()
    found = decoded(maps)
    assert {item.index for item in found} == {0, 1}
    for item in found:
        np.testing.assert_allclose([item.box.x1, item.box.y1, item.box.x2, item.box.y2], [8.5, 8.5, 24.5, 24.5], atol=1)


# ---- recipe ----------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_end() -> None:
    recipe = Recipe(learning_rate=2.0, final_rate=0.1, warmup_steps=10)
    rates = [recipe.rate_at(step, 100) for step in range(101)]
    np.testing.assert_allclose(rates[:10], 0.2 * np.arange(1, 11))
    assert rates[10] == 2.0
    assert max(rates) == 2.0
    assert all(one > other for one, other in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx((2.0 + 0.2) / 2)
    assert rates[100] == pytest.approx(0.2)
    assert recipe.rate_at(400, 100) == pytest.approx(0.2)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 1), (0, 10), (50, 10), (10, 10)])
def test_the_learning_rate_of_short_runs(warmup: int, steps: int) -> None:
    rates = [Recipe(warmup_steps=warmup).rate_at(step, steps) for step in range(steps)]
    assert all(0 < rate <= 1e-3 for rate in rates)
    assert warmup or rates[0] == 1e-3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"ema_decay": 1.5}, "ema_decay"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"label_smoothing": math.nan}, "label_smoothing"),
        ({"final_rate": 2}, "final_rate"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"weight_decay": math.inf}, "weight_decay"),
        ({"mixup": -1}, "mixup"),
        ({"cutmix": math.inf}, "cutmix"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"precision": "int8"}, "fp32, bf16, fp16"),
        ({"start_epochs": 1}, "start_size"),
        ({"start_size": 64}, "start_epochs"),
        ({"start_epochs": -1, "start_size": 64}, "-1 start epochs"),
        ({"epochs": 2, "start_epochs": 3, "start_size": 64}, "3 start epochs"),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)
def test_a_recipe_that_can_not_be(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        Recipe(**options)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        Recipe().with_options(**options)


@pytest.mark.parametrize("zoom", [(0.9, 0.8), (0.01, 1), (1, 11), (math.nan, 1), (1, math.nan)])
def test_a_zoom_that_can_not_be(zoom: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="zoom"):
        Recipe().with_zoom(zoom)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_recipe_can_be_read_back(task: Task) -> None:
    recipe = RECIPES[task].with_options(seed=3, precision="bf16", mixup=None).with_zoom((0.7, 1.3))
    read = json.loads(recipe.as_json())
    augmentation = read.pop("augmentation")
    assert Recipe(augmentation=Augmentation(**{**augmentation, "zoom": tuple(augmentation["zoom"])}), **read) == recipe


def test_options_that_are_not_given_change_nothing() -> None:
    assert Recipe().with_options(epochs=None, mixup=0.0, seed=0) == Recipe()
    drawn = RECIPES["classify"].for_drawn_scenes()
    assert (drawn.mixup, drawn.cutmix, drawn.label_smoothing) == (0.0, 0.0, 0.1)


# ---- mixup and CutMix ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "both", "none"])
@pytest.mark.parametrize("shape", [(32, 32), (16, 48)], ids=["square", "wide"])
def test_targets_are_the_shares_that_show(kind: str, shape: tuple[int, int]) -> None:
    """Picture k is k everywhere and class k, in five classes: what shows of each must be what the target says."""
    recipe = Recipe(mixup=0.8 * (kind in ("mixup", "both")), cutmix=1.0 * (kind in ("cutmix", "both")))
    values = torch.arange(5.0)
    images = values[:, None, None, None].expand(5, 3, *shape).clone()
    wanted = torch.eye(5)
    pasted = blended = 0
    for seed in range(20):
        mixed, targets = _mix(images, wanted, recipe, np.random.default_rng(seed))
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(5))
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), targets @ values)  # of the value, hence of the area
        whole = torch.isclose(mixed, mixed.round(), atol=1e-6).all()
        pasted += bool(whole and not torch.equal(mixed, images))
        blended += not whole
        if whole:
            for own, target in zip(mixed, targets, strict=True):
                shares = torch.stack([(own == k).float().mean() for k in range(5)])
                torch.testing.assert_close(shares, target)
    torch.testing.assert_close(images[:, 0, 0, 0], values)  # the batch itself is not written to
    assert (blended > 0) == (kind in ("mixup", "both"))
    assert (pasted > 0) == (kind in ("cutmix", "both"))
    if kind == "none":
        assert torch.equal(mixed, images)


# ---- the loop --------------------------------------------------------------------------------------------


def trainer_for(
    task: Task,
    output: Path,
    *,
    recipe: dict[str, Any] | None = None,
    count: int = 4,
    size: ImageSize = SMALL,
    validation: int = 0,
    seed: int = 0,
    **options: Any,
) -> Trainer:
    """A tiny run: two steps an epoch."""
    data = Synthetic(task, "train", count, seed, size)
    config = ModelConfig.create(task, "xformer_xxs", image_size=size, labels=data.labels)
    how = RECIPES[task].with_options(
        **{"epochs": 3, "batch_size": 2, "warmup_steps": 2, "seed": seed, **(recipe or {})}
    )
    judged = Synthetic(task, "validation", validation, seed, size)
    options.setdefault("origin", {"data": "synthetic"})
    return Trainer(fresh_model(config, seed), how, data, judged, output, **options)


def stop_at(epoch: int, step: int) -> Callable[[StepReport], None]:
    """To be called with each step; raises as Ctrl-C does."""

    def on_step(report: StepReport) -> None:
        if (report.epoch, report.step) == (epoch, step):
            raise KeyboardInterrupt

    return on_step


def metadata_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as stored:
        description: dict[str, Any] = json.loads(stored.metadata()[METADATA_KEY])
        return description


@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_batch_can_be_learnt_by_heart(task: Task, tmp_path: Path) -> None:
    """The loss falls far within a few steps on one batch, and what was learnt is what postprocessing shows."""
    trainer = trainer_for(
        task,
        tmp_path / "m.safetensors",
        count=2,
        recipe={"learning_rate": 3e-3, "mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0},
    )
    scenes = [Synthetic(task, "train", 2, size=SMALL)[index] for index in range(2)]
    images = normalize(torch.from_numpy(np.stack([scene.image for scene in scenes])))
    targets: Any
    if task == "classify":
        targets = torch.nn.functional.one_hot(torch.tensor([s.kind for s in scenes]), trainer.config.num_classes)
        targets = targets.float()
    elif task == "segment":
        targets = torch.from_numpy(np.stack([scene.mask for scene in scenes if scene.mask is not None])).long()
    else:
        targets = [tuple(map(torch.from_numpy, (s.boxes, s.kinds, s.crowd))) for s in scenes]
    torch.manual_seed(0)
    losses = []
    for _ in range(60):
        trainer.optimizer.zero_grad()
        for group in trainer.optimizer.param_groups:
            group["lr"] = 3e-3
        outputs = trainer.model(images)
        loss = trainer.loss(outputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 5.0)
        trainer.optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5, losses
    rule = Postprocess.of(trainer.config)
    place = fit((64, 64), SMALL, "resize")
    for number, scene in enumerate(scenes):
        parts = (values[number : number + 1].detach().numpy() for values in outputs)
        result = rule(dict(zip(TASKS[task].outputs, parts, strict=True)), place)
        if isinstance(result, ClassMap):
            assert (result.classes == scene.mask).mean() > 0.9
            continue
        assert result[0].index in (scene.kinds if task == "detect" else [scene.kind])
        for box, kind in zip(scene.boxes[~scene.crowd], scene.kinds[~scene.crowd], strict=True):
            near = [d.box for d in result if isinstance(d, Detection) and d.index == kind]
            overlaps = pair_iou(
                torch.tensor([[b.x1, b.y1, b.x2, b.y2] for b in near]).reshape(-1, 4), torch.from_numpy(box)[None]
            )
            assert task == "classify" or overlaps.max() > 0.5


@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_run_is_a_function_of_its_recipe(task: Task, tmp_path: Path) -> None:
    outputs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        path = tmp_path / f"{name}.safetensors"
        trainer = trainer_for(task, path, seed=seed, validation=2, recipe={"epochs": 1})
        figures = trainer.run()
        outputs.append(path.read_bytes())
        assert len(figures) == 1
        assert not state_path(path).exists()
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.model.config.task == task
    assert loaded.model.config.labels == Synthetic(task, "train", 1).labels


def test_the_result_says_what_made_it(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    trainer = trainer_for("classify", path, origin={"data": "there", "start": "fresh"}, validation=2)
    reports: list[EpochReport] = []
    figures = trainer.run(on_epoch=reports.append)
    found = metadata_of(path)
    assert found["recipe"] == json.loads(trainer.recipe.as_json())
    assert (found["data"], found["start"], found["pictures"], found["epochs_done"]) == ("there", "fresh", 4, 3)
    assert found["last"] == figures[-1]
    assert {"loss", "image_size", "top1", "top5"} == found["last"].keys()
    assert [report.epoch for report in reports] == [0, 1, 2]
    assert [report.loss for report in reports] == [figure["loss"] for figure in figures]


def test_the_result_is_the_average_of_the_weights(tmp_path: Path) -> None:
    """Of every step's weights and BatchNorm statistics, by the definition, computed beside it."""
    path = tmp_path / "m.safetensors"
    trainer = trainer_for("classify", path, recipe={"ema_decay": 0.3, "epochs": 2})
    expected = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    decays = []

    def on_step(report: StepReport) -> None:
        number = report.epoch * report.steps + report.step
        decay = min(0.3, (1 + number) / (10 + number))
        decays.append(decay)
        for name, value in trainer.model.state_dict().items():
            old = expected[name]
            expected[name] = decay * old + (1 - decay) * value if value.is_floating_point() else value.clone()

    trainer.run(on_step)
    assert decays == pytest.approx([0.1, 2 / 11, 0.25, 0.3])
    stored = load_checkpoint(path).model.state_dict()
    current = trainer.model.state_dict()
    assert any(not torch.allclose(stored[name], current[name], atol=1e-5) for name in stored)
    for name, value in stored.items():
        torch.testing.assert_close(value, expected[name], msg=name, rtol=1e-5, atol=1e-6)


def test_steps_report_the_learning_rate(tmp_path: Path) -> None:
    trainer = trainer_for("classify", tmp_path / "m.safetensors", recipe={"warmup_steps": 3}, count=5)
    reports: list[StepReport] = []
    trainer.run(reports.append)
    assert [(report.epoch, report.step, report.steps) for report in reports] == [
        (epoch, step, 2) for epoch in range(3) for step in range(2)
    ]
    assert [report.learning_rate for report in reports] == [trainer.recipe.rate_at(step, 6) for step in range(6)]
    assert all(group["lr"] == reports[-1].learning_rate for group in trainer.optimizer.param_groups)


@pytest.mark.parametrize(
    ("task", "recipe", "epoch"),
    [
        ("classify", {}, 1),
        ("detect", {}, 1),
        ("segment", {"start_size": 64, "start_epochs": 1}, 1),
        ("segment", {"start_size": 64, "start_epochs": 1}, 2),
        ("classify", {"start_size": 128, "start_epochs": 2}, 1),
        ("classify", {"precision": "fp16"}, 1),
        ("classify", {"qat": True}, 1),
        ("segment", {"qat": True, "start_size": 64, "start_epochs": 1}, 2),
    ],
    ids=["classify", "detect", "grows-next", "has-grown", "shrinks-later", "fp16", "qat", "qat-has-grown"],
)
def test_resumed_is_as_if_never_stopped(task: Task, recipe: dict[str, Any], epoch: int, tmp_path: Path) -> None:
    """Stopped after the first step of an epoch; segmentation has dropout, whose state matters too."""
    size = ImageSize(64, 128) if recipe.get("start_size") == 64 else SMALL
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    wanted = trainer_for(task, whole, recipe=recipe, size=size, validation=1).run()
    stopped = trainer_for(task, broken, recipe=recipe, size=size, validation=1)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(stop_at(epoch, 0))
    assert state_path(broken).is_file()
    assert metadata_of(broken)["epochs_done"] == epoch
    assert load_checkpoint(broken).trained_size == size
    np.random.default_rng().random()
    torch.manual_seed(99)
    resumed = trainer_for(task, broken, recipe=recipe, size=size, validation=1)
    resumed.resume()
    assert resumed.epoch == epoch
    assert resumed.run() == wanted
    assert broken.read_bytes() == whole.read_bytes()
    assert not state_path(broken).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.safetensors", "whole.safetensors"]


def test_qat_trains_what_rounds(tmp_path: Path) -> None:
    """From the same weights and pictures, other weights come out; both load, and neither file says how it rounds."""
    plain, rounded = tmp_path / "plain.safetensors", tmp_path / "rounded.safetensors"
    trainer_for("classify", plain).run()
    trainer = trainer_for("classify", rounded, recipe={"qat": True})
    assert trainer.rounding is not None
    assert not trainer.rounding.ranges()
    losses = []
    trainer.run(lambda report: losses.append(report.loss))
    assert trainer.rounding.ranges().keys() == trainer.rounding.layers.keys()
    assert all(layer.rounding for layer in trainer.rounding.layers.values())
    assert all(math.isfinite(loss) for loss in losses)
    one, other = (load_checkpoint(path).model.state_dict() for path in (plain, rounded))
    assert one.keys() == other.keys()
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert metadata_of(rounded)["recipe"]["qat"] is True


def test_qat_is_judged_rounded(tmp_path: Path) -> None:
    """The averaged model, which the figures are of, rounds as the trained one does."""
    trainer = trainer_for("classify", tmp_path / "m.safetensors", recipe={"qat": True})
    assert trainer.rounding is not None
    trainer.run()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rounded = trainer.averaged(image)[0]
        trainer.rounding.round_only(())
        plain = trainer.averaged(image)[0]
    assert not torch.equal(rounded, plain)


def test_qat_takes_smaller_and_fewer_steps() -> None:
    for recipe in RECIPES.values():
        qat = recipe.for_int8()
        assert qat.qat
        assert qat.epochs <= recipe.epochs / 5
        assert qat.learning_rate == recipe.learning_rate / 50


def test_stopped_twice(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    trainer_for("classify", whole).run()
    with pytest.raises(KeyboardInterrupt):
        trainer_for("classify", broken).run(stop_at(1, 1))
    for epoch in (1, 2):
        resumed = trainer_for("classify", broken)
        resumed.resume()
        if epoch == 1:
            with pytest.raises(KeyboardInterrupt):
                resumed.run(stop_at(2, 0))
    resumed.run()
    assert broken.read_bytes() == whole.read_bytes()


def test_stopped_before_the_first_epoch_is_over(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer_for("classify", tmp_path / "m.safetensors").run(stop_at(0, 1))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The output of a run that was stopped in its second epoch."""
    path = tmp_path / "m.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trainer_for("classify", path).run(stop_at(1, 0))
    return path


def resume_refusal(trainer: Trainer) -> str:
    with pytest.raises(XFormerError) as caught:
        trainer.resume()
    message = str(caught.value)
    assert "\n" not in message
    assert "m.safetensors.state" in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": {"learning_rate": 0.5}},
        {"recipe": {"epochs": 4}},
        {"recipe": {"seed": 4}},
        {"count": 6},
        {"size": ImageSize(128, 64)},
        {"origin": {"data": "elsewhere"}},
        {"task": "detect"},
    ],
    ids=["learning-rate", "epochs", "seed", "pictures", "size", "data", "task"],
)
def test_another_run_is_not_resumed(other: dict[str, Any], stopped: Path) -> None:
    before = {path.name: path.read_bytes() for path in stopped.parent.iterdir()}
    trainer = trainer_for(other.get("task", "classify"), stopped, **{k: v for k, v in other.items() if k != "task"})
    assert "other options or other data" in resume_refusal(trainer)
    assert before == {path.name: path.read_bytes() for path in stopped.parent.iterdir()}


class Hostile:
    """Unpickled, it would make a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _without(key: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        del state[key]
        torch.save(state, path)

    return write


def _with(key: str, value: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        torch.save({**torch.load(path, weights_only=True), key: value}, path)

    return write


BROKEN_STATES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a state\n" * 20),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "missing": lambda path: path.unlink(),
    "checkpoint": lambda path: path.write_bytes(path.with_suffix("").read_bytes()),
    "list": lambda path: torch.save([1, 2], path),
    "tensor": lambda path: torch.save(torch.ones(3), path),
    "hostile": lambda path: path.write_bytes(pickle.dumps(Hostile(path.with_name("made")))),
    "hostile-zip": lambda path: torch.save({"identity": Hostile(path.with_name("made"))}, path),
    "no-optimizer": _without("optimizer"),
    "no-epoch": _without("epoch"),
    "other-weights": _with("model", {"a": torch.ones(2)}),
    "weights-of-other-shapes": _with("averaged", {"head.fc.weight": torch.ones(2, 2)}),
    "odd-epoch": _with("epoch", "one"),
    "odd-optimizer": _with("optimizer", {"state": {}, "param_groups": []}),
}


@pytest.mark.parametrize("case", BROKEN_STATES)
def test_a_broken_state_is_refused(case: str, stopped: Path) -> None:
    BROKEN_STATES[case](state_path(stopped))
    message = resume_refusal(trainer_for("classify", stopped))
    assert "can't resume from" in message
    assert not (stopped.parent / "made").exists()
    load_checkpoint(stopped)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    trainer = trainer_for("classify", path)
    forward = trainer.loss.forward

    def broken(outputs: Any, targets: Any) -> Any:
        return forward(outputs, targets) * (math.nan if trainer.epoch == 1 else 1)

    monkeypatch.setattr(trainer.loss, "forward", broken)
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch 2, step 1; .* holds epoch 1\. ") as caught:
        trainer.run()
    assert "\n" not in str(caught.value)
    assert metadata_of(path)["epochs_done"] == 1
    load_checkpoint(path)
    again = trainer_for("classify", path)
    again.resume()
    assert len(again.run()) == 3


@pytest.mark.parametrize("validation", [0, 1])
def test_weights_that_are_not_finite_are_never_written(
    validation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient can overflow behind a finite loss in the last step of an epoch, where no other loss would tell."""
    path = tmp_path / "m.safetensors"
    trainer = trainer_for("classify", path, validation=validation)

    def on_step(report: StepReport) -> None:
        if (report.epoch, report.step) == (1, 0):
            parameter: Any = next(trainer.model.parameters())
            parameter.register_hook(lambda gradient: gradient * math.inf)

    with pytest.raises(TrainingError, match="epoch 2") as caught:
        trainer.run(on_step)
    assert "\n" not in str(caught.value)
    assert metadata_of(path)["epochs_done"] == 1
    load_checkpoint(path)


def test_a_rate_that_is_too_high_ends_in_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    trainer = trainer_for("classify", path, recipe={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(TrainingError, match="Try a lower --learning-rate"):
        trainer.run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("task", TASK_NAMES)
def test_worker_processes_change_nothing(task: Task, tmp_path: Path) -> None:
    """Each task, as each puts other things through the pipe."""
    for workers in (0, 1):
        trainer_for(task, tmp_path / f"{workers}.safetensors", recipe={"epochs": 1}, workers=workers).run()
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "fp32"])
def test_half_passes_train_whole_weights(task: Task, precision: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    trainer = trainer_for(task, path, recipe={"precision": precision, "epochs": 1})
    (figure,) = trainer.run()
    assert math.isfinite(figure["loss"])
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert load_checkpoint(path).model.config.task == task


def test_a_result_of_half_the_size_loads(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in ("full", "half")]
    for path in paths:
        trainer_for("segment", path, recipe={"epochs": 1}, half=path.stem == "half").run()
    full, half = (load_checkpoint(path).model.state_dict() for path in paths)
    assert paths[1].stat().st_size < 0.6 * paths[0].stat().st_size
    for name, value in full.items():
        if value.is_floating_point():
            torch.testing.assert_close(half[name], value.half().float(), rtol=0, atol=0)


def test_the_result_has_the_final_size_from_the_first_epoch_on(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    trainer = trainer_for("classify", path, size=ImageSize(128, 128), recipe={"start_size": 64, "start_epochs": 2})
    sizes = []
    figures = trainer.run(on_epoch=lambda _: sizes.append(load_checkpoint(path).trained_size))
    assert sizes == [ImageSize(128, 128)] * 3
    assert [figure["image_size"] for figure in figures] == ["64x64", "64x64", "128x128"]


def test_what_can_not_be_trained(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="1 training pictures"):
        trainer_for("classify", tmp_path / "m.safetensors", count=1)
    with pytest.raises(UsageError, match="image size 100x100"):
        trainer_for("classify", tmp_path / "m.safetensors", recipe={"start_size": 100, "start_epochs": 1})


def test_a_batch_is_at_most_all_there_is(tmp_path: Path) -> None:
    trainer = trainer_for("classify", tmp_path / "m.safetensors", count=3, recipe={"batch_size": 64, "epochs": 1})
    assert (trainer.batch_size, trainer.steps) == (3, 1)
    assert len(trainer.run()) == 1


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    trainer = trainer_for("classify", path)

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    def on_step(report: StepReport) -> None:
        if report.epoch == 1:
            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OutputError, match="No space left"):
        trainer.run(on_step)
    monkeypatch.undo()
    assert metadata_of(path)["epochs_done"] == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.safetensors", "m.safetensors.state"]
    again = trainer_for("classify", path)
    again.resume()
    assert len(again.run()) == 3


RUN_OF_TWO = """
import sys
from pathlib import Path
import torch.distributed as dist
from xformer_mobile.data import Synthetic
from xformer_mobile.spec import ImageSize, ModelConfig
from xformer_mobile.training import RECIPES, Trainer, fresh_model

size = ImageSize(64, 64)
output = Path(sys.argv[1])
dist.init_process_group("gloo")
data = Synthetic("segment", "train", 8, 0, size)
config = ModelConfig.create("segment", "xformer_xxs", image_size=size, labels=data.labels)
recipe = RECIPES["segment"].with_options(epochs=2, batch_size=4, warmup_steps=2)
judged = Synthetic("segment", "validation", 1, 0, size)
trainer = Trainer(fresh_model(config, 0), recipe, data, judged, output, origin={})
trainer.run()
total = sum(float(p.double().abs().sum()) for p in trainer.model.parameters())
output.with_name(f"rank{trainer.rank}").write_text(f"{total!r} {[f['loss'] for f in trainer.figures]}")
dist.destroy_process_group()
"""


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    """Starts three interpreters, 10 to 20 s of CPU: both end with the same weights, and one of them writes."""
    script = tmp_path / "run.py"
    script.write_text(RUN_OF_TWO)
    place = tmp_path / "out"
    place.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            str(script),
            str(place / "m.safetensors"),
        ],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in place.iterdir()) == ["m.safetensors", "rank0", "rank1"]
    assert (place / "rank0").read_text() == (place / "rank1").read_text()
    assert metadata_of(place / "m.safetensors")["epochs_done"] == 2
    load_checkpoint(place / "m.safetensors")


# ---- where a run starts ----------------------------------------------------------------------------------


def model_of(task: str, classes: int, size: ImageSize = SMALL, seed: int = 0, **options: Any) -> XFormer:
    config = ModelConfig.create(task, "xformer_xxs", image_size=size, num_classes=classes, **options)
    return fresh_model(config, seed)


def test_a_fresh_model_is_drawn_by_its_seed() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (model_of("detect", 3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    for scale in range(3):
        bias = one[f"head.predictors.{scale}.bias"].view(3, 8)
        torch.testing.assert_close(bias[:, 4].sigmoid(), torch.full((3,), 0.01))


@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_checkpoint_that_fits_is_taken_whole(task: Task) -> None:
    target, source = model_of(task, 3), model_of(task, 3, seed=1)
    assert transfer(target, source) == []
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("task", "last"),
    [
        ("classify", {"head.fc.weight", "head.fc.bias"}),
        ("detect", {f"head.predictors.{scale}.{kind}" for scale in range(3) for kind in ("weight", "bias")}),
        ("segment", {"head.classifier.weight", "head.classifier.bias"}),
    ],
)
def test_other_classes_leave_all_but_the_last_layer(task: Task, last: set[str]) -> None:
    target, source, before = model_of(task, 5), model_of(task, 3, seed=1), model_of(task, 5).state_dict()
    assert set(transfer(target, source)) == last
    for name, value in target.state_dict().items():
        if name not in last:
            assert torch.equal(value, source.state_dict()[name]), name
        elif task != "detect":
            assert torch.equal(value, before[name])
        else:  # boxes and objectness are the source's, the classes are fresh
            rows = value.view(3, 10, *value.shape[1:])
            theirs = source.state_dict()[name]
            assert torch.equal(rows[:, :5], theirs.view(3, 8, *theirs.shape[1:])[:, :5])
            assert torch.equal(rows[:, 5:], before[name].view(rows.shape)[:, 5:])


def test_other_anchors_leave_the_whole_last_layer() -> None:
    """The same output means another box."""
    anchors = tuple(tuple((w / 2, h) for w, h in scale) for scale in YOLOV3_ANCHORS)
    before = model_of("detect", 3, anchors=anchors).state_dict()
    target, source = model_of("detect", 3, anchors=anchors), model_of("detect", 3, seed=1)
    fresh = transfer(target, source)
    assert len(fresh) == 6
    assert all("predictors" in name and torch.equal(target.state_dict()[name], before[name]) for name in fresh)


@pytest.mark.parametrize(("task", "source"), [("segment", "classify"), ("classify", "detect"), ("detect", "segment")])
def test_another_task_gives_its_backbone(task: Task, source: Task) -> None:
    target, theirs = model_of(task, 3), model_of(source, 3, seed=1)
    fresh = transfer(target, theirs)
    backbone = [name for name in target.state_dict() if name.startswith("backbone.")]
    assert len(backbone) > 100
    assert not set(backbone) & set(fresh)
    assert all(torch.equal(target.state_dict()[name], theirs.state_dict()[name]) for name in backbone)


def test_another_size_resamples_the_context() -> None:
    size = ImageSize(128, 192)
    target, source = model_of("classify", 3, size), model_of("classify", 3, seed=1)
    assert transfer(target, source) == []
    expected = resample_context(source.state_dict(), size)
    changed = [name for name, value in expected.items() if value.shape != source.state_dict()[name].shape]
    assert changed
    assert all(name.endswith("w_context") for name in changed)
    for name, value in target.state_dict().items():
        assert torch.equal(value, expected[name]), name


class Boxes:
    """Grey pictures with the boxes that are given, each picture the same number of them."""

    labels = ("thing",)

    def __init__(
        self, sizes: Sequence[tuple[float, float]], shape: tuple[int, int] = (200, 200), *, crowd: bool = False
    ):
        self.sizes, self.shape, self.crowd = sizes, shape, crowd

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        corners = [(1.0, 2.0, 1.0 + width, 2.0 + height) for width, height in self.sizes[index::2]]
        source = sample_of(np.full((*self.shape, 3), 128, dtype=np.uint8), *corners)
        return replace(source, crowd=np.full(len(corners), self.crowd))

    def at_epoch(self, epoch: int) -> Boxes:
        return self


CLUSTERS: list[tuple[float, float]] = [
    (10, 10),
    (10, 30),
    (30, 10),
    (40, 40),
    (80, 30),
    (30, 90),
    (100, 100),
    (160, 80),
    (150, 180),
]


@pytest.mark.parametrize("order", [1, -1], ids=["small-first", "large-first"])
def test_anchors_are_the_middles_of_clusters(order: int) -> None:
    shifts = [(0.0, 0.0), (0.4, 0.1), (-0.4, -0.1), (0.2, -0.3), (-0.2, 0.3)]
    sizes = [(w + dw, h + dh) for w, h in CLUSTERS for dw, dh in shifts][::order]
    anchors = fit_anchors(Boxes(sizes), SMALL)
    found = [anchor for scale in anchors for anchor in scale]
    assert [len(scale) for scale in anchors] == [3, 3, 3]
    areas = [w * h for w, h in found]
    assert areas == sorted(areas)
    np.testing.assert_allclose(sorted(found), sorted((w / 200, h / 200) for w, h in CLUSTERS), atol=0.002)


def test_anchors_are_in_the_unit_of_the_input() -> None:
    """A wide picture in a square input is scaled by its width; shares are of the input's shorter side."""
    square = fit_anchors(Boxes(CLUSTERS * 2, (200, 400)), ImageSize(128, 128))
    wide = fit_anchors(Boxes(CLUSTERS * 2, (200, 400)), ImageSize(128, 256))
    np.testing.assert_allclose(
        sorted(a for s in square for a in s), sorted((w / 400, h / 400) for w, h in CLUSTERS), atol=1e-4
    )
    np.testing.assert_allclose(np.array(wide), 2 * np.array(square), atol=2e-4)
    ModelConfig.create("detect", "xformer_xxs", anchors=wide)


@pytest.mark.parametrize(
    "data",
    [Boxes(CLUSTERS[:8] * 5), Boxes([]), Boxes(CLUSTERS, crowd=True)],
    ids=["eight", "none", "only-crowds"],
)
def test_too_few_boxes_for_anchors(data: Boxes) -> None:
    with pytest.raises(DataError, match="9 anchors need at least as many"):
        fit_anchors(data, SMALL)


def test_anchors_look_at_so_many_pictures() -> None:
    data = Boxes(CLUSTERS * 2)
    with pytest.raises(DataError):
        fit_anchors(data, SMALL, pictures=1, per_scale=7)
    with pytest.raises(DataError):
        fit_anchors(Subset(data, 0), SMALL)
