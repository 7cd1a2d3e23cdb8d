"""Postprocessing: the fixtures, and slow plain second implementations on drawn outputs."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from xformer_mobile.errors import BundleError
from xformer_mobile.postprocess import (
    Box,
    Detection,
    DetectionRule,
    Postprocess,
    classify,
    default_palette,
    detect,
    segment,
)
from xformer_mobile.preprocess import Fit, fit
from xformer_mobile.spec import ImageSize, ModelConfig, ResizeRule

Floats = npt.NDArray[np.float32]

GOLDEN = Path(__file__).parent / "golden" / "postprocess"
f32 = np.float32

relaxed = settings(deadline=None, derandomize=True, max_examples=80)
seeds = st.integers(0, 2**32 - 1)


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    return document


def cases(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", read(name)["cases"], ids=lambda case: case["name"])


def floats(name: str, shapes: Sequence[Sequence[int]]) -> list[Floats]:
    """The arrays of a fixture's file, in order."""
    flat = np.frombuffer((GOLDEN / name).read_bytes(), dtype="<f4").astype(f32)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    assert ends[-1] == flat.size
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]


def place_of(stated: dict[str, Any]) -> Fit:
    height, width = stated["target"]
    return Fit(tuple(stated["source"]), tuple(stated["resized"]), tuple(stated["offset"]), (width, height))


def rule_of(stated: dict[str, Any]) -> DetectionRule:
    anchors = tuple(tuple((width, height) for width, height in scale) for scale in stated["anchors"])
    return DetectionRule(**{**stated, "anchors": anchors, "strides": tuple(stated["strides"])})


# -- the fixtures --------------------------------------------------------------------------------------------------


@cases("classify.json")
def test_golden_classify(case: dict[str, Any]) -> None:
    tolerance = read("classify.json")["tolerance"]["probability"]
    found = classify(np.array([case["logits"]], dtype=f32), case["labels"], case["top_k"])
    assert [[each.index, each.label] for each in found] == [[e["index"], e["label"]] for e in case["expected"]]
    for each, expected in zip(found, case["expected"], strict=True):
        assert abs(each.probability - expected["probability"]) <= tolerance


@cases("detect.json")
def test_golden_detect(case: dict[str, Any]) -> None:
    tolerance = read("detect.json")["tolerance"]
    maps = floats(case["maps"]["file"], case["maps"]["shapes"])
    found = detect(maps, case["labels"], rule_of(case["rule"]), place_of(case["fit"]))
    assert [[each.index, each.label] for each in found] == [[e["index"], e["label"]] for e in case["expected"]]
    for each, expected in zip(found, case["expected"], strict=True):
        assert abs(each.score - expected["score"]) <= tolerance["score"]
        assert np.abs(np.subtract(corners(each), expected["box"])).max() <= tolerance["box"]


@cases("segment.json")
def test_golden_segment(case: dict[str, Any]) -> None:
    [logits] = floats(case["logits"]["file"], [case["logits"]["shape"]])
    expected = case["expected"]
    raw = (GOLDEN / expected["file"]).read_bytes()
    labels = [f"label {index}" for index in range(case["classes"])]
    found = segment(logits, labels, place_of(case["fit"]))
    assert hashlib.sha256(raw).hexdigest() == expected["sha256"]
    assert found.classes.dtype == {"u8": np.uint8, "u16": np.uint16}[expected["type"]]
    kept = np.frombuffer(raw, dtype="<" + expected["type"].replace("u8", "u1").replace("u16", "u2"))
    assert np.array_equal(found.classes, kept.reshape(expected["shape"]))
    shares = found.shares()
    assert [[index, label] for index, label, _ in shares] == [[i, f"label {i}"] for i, _ in expected["shares"]]
    assert np.abs([a[2] - b[1] for a, b in zip(shares, expected["shares"], strict=True)]).max() <= 1e-6


def test_golden_palette() -> None:
    palette = read("segment.json")["palette"]
    assert [list(color) for color in default_palette(len(palette))] == palette


# -- classification ------------------------------------------------------------------------------------------------


@relaxed
@given(st.lists(st.integers(-80, 80), min_size=1, max_size=12), st.integers(1, 15))
@example([0, 0, 0], 2)
@example([-3, 5, 5, -3, 5], 4)
def test_classify_is_softmax_with_the_lower_index_first(tenths: list[int], top_k: int) -> None:
    logits = (np.array([tenths]) / 10).astype(f32)
    labels = [f"class {index}" for index in range(len(tenths))]
    found = classify(logits, labels, top_k)
    total = math.fsum(math.exp(value) for value in logits[0].tolist())
    order = sorted(range(len(tenths)), key=lambda index: (-tenths[index], index))[:top_k]
    assert [each.index for each in found] == order
    assert [each.label for each in found] == [f"class {index}" for index in order]
    for each in found:
        assert each.probability == pytest.approx(math.exp(float(logits[0, each.index])) / total, rel=1e-12)


def test_close_logits_are_not_ties() -> None:
    logits = np.array([[1, np.nextafter(f32(1), f32(2)), 1]], dtype=f32)
    assert [each.index for each in classify(logits, "abc", 3)] == [1, 0, 2]


# -- detection -----------------------------------------------------------------------------------------------------

STRIDES = (8, 16, 32)
ANCHORS = (((10.0, 13.0), (16.0, 30.0)), ((30.0, 61.0), (62.0, 45.0)), ((40.0, 40.0), (90.0, 50.0)))
RULE = DetectionRule(ANCHORS, STRIDES)
LABELS = ("cat", "dog", "cup")


def corners(found: Detection) -> tuple[float, float, float, float]:
    return found.box.x1, found.box.y1, found.box.x2, found.box.y2


def plain_sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def plain_detect(
    maps: Sequence[Floats], rule: DetectionRule, place: Fit
) -> list[tuple[int, float, tuple[float, float, float, float]]]:
    """(class, score, corners) of what is found, one candidate at a time, as docs/preprocessing.md says."""
    candidates = []
    for values, anchors, stride in zip(maps, rule.anchors, rule.strides, strict=True):
        _, channels, height, width = values.shape
        depth = channels // len(anchors)
        for number, (anchor_width, anchor_height) in enumerate(anchors):
            for row in range(height):
                for column in range(width):
                    cell = [float(v) for v in values[0, number * depth : (number + 1) * depth, row, column]]
                    tx, ty, tw, th, objectness, *logits = cell
                    x, y = (plain_sigmoid(tx) + column) * stride, (plain_sigmoid(ty) + row) * stride
                    w, h = anchor_width * math.exp(min(tw, 10)), anchor_height * math.exp(min(th, 10))
                    box = tuple(
                        min(max((side - offset) * source / resized, 0), source)
                        for side, offset, source, resized in zip(
                            (x - w / 2, y - h / 2, x + w / 2, y + h / 2),
                            place.offset * 2,
                            place.source * 2,
                            place.resized * 2,
                            strict=True,
                        )
                    )
                    for index, logit in enumerate(logits):
                        score = plain_sigmoid(objectness) * plain_sigmoid(logit)
                        if score >= rule.score_threshold and box[2] > box[0] and box[3] > box[1]:
                            candidates.append((index, score, (box[0], box[1], box[2], box[3])))
    candidates.sort(key=lambda candidate: -candidate[1])  # stable
    kept: list[tuple[int, float, tuple[float, float, float, float]]] = []
    for candidate in candidates:
        if len(kept) == rule.max_detections:
            break
        if all(k[0] != candidate[0] or plain_iou(k[2], candidate[2]) <= rule.iou_threshold for k in kept):
            kept.append(candidate)
    return kept


def plain_iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def drawn_maps(seed: int, size: ImageSize, share: float, classes: int = 3, parts: int = 1024) -> list[Floats]:
    """Outputs in which about ``share`` of the anchors hold an object. No two logits of a score are likely equal."""
    rng = np.random.default_rng(seed)
    maps = []
    for stride in STRIDES:
        grid = rng.integers(-4 * parts, 4 * parts, (2, 5 + classes, *size.at_stride(stride))) / parts
        grid[:, 2:4] /= 4
        grid[:, 4][rng.random(grid[:, 4].shape) > share] = -30
        maps.append(grid.reshape(1, -1, *grid.shape[2:]).astype(f32))
    return maps


@settings(relaxed, max_examples=60)
@given(
    seeds,
    st.sampled_from([ImageSize(64, 64), ImageSize(64, 128)]),
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.sampled_from(get_args(ResizeRule)),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.sampled_from([0.05, 0.25, 0.5]),
    st.sampled_from([0.0, 0.2, 0.45, 0.9]),
    st.sampled_from([1, 3, 20, 1000]),
)
@example(1, ImageSize(64, 64), (1, 1), "letterbox", 1.0, 0.25, 0.45, 1000)
@example(2, ImageSize(64, 128), (700, 31), "letterbox", 1.0, 0.05, 0.45, 1000)
def test_detect_is_the_plain_algorithm(
    seed: int,
    size: ImageSize,
    source: tuple[int, int],
    resize_rule: ResizeRule,
    share: float,
    score: float,
    iou: float,
    most: int,
) -> None:
    maps, place = drawn_maps(seed, size, share), fit(source, size, resize_rule)
    rule = replace(RULE, score_threshold=score, iou_threshold=iou, max_detections=most)
    found, expected = detect(maps, LABELS, rule, place), plain_detect(maps, rule, place)
    assert [each.index for each in found] == [each[0] for each in expected]
    assert [each.label for each in found] == [LABELS[each[0]] for each in expected]
    assert [each.score for each in found] == pytest.approx([each[1] for each in expected], abs=1e-6)
    for each, (_, _, box) in zip(found, expected, strict=True):
        assert corners(each) == pytest.approx(box, abs=1e-3)

    for number, a in enumerate(found):  # what the result promises, whatever the algorithm
        assert score - 1e-6 <= a.score <= 1
        assert 0 <= a.box.x1 < a.box.x2 <= source[0]
        assert 0 <= a.box.y1 < a.box.y2 <= source[1]
        for b in found[:number]:
            assert b.score >= a.score
            assert a.index != b.index or plain_iou(corners(a), corners(b)) <= iou + 1e-4


NEVER = -30.0
SAME = Fit((64, 64), (64, 64), (0, 0), (64, 64))


def blank() -> list[Floats]:
    maps = [np.zeros((2, 8, 64 // stride, 64 // stride), dtype=f32) for stride in STRIDES]
    for grid in maps:
        grid[:, 4:] = NEVER
    return maps


def run(grids: Sequence[Floats], rule: DetectionRule = RULE, place: Fit = SAME) -> tuple[Detection, ...]:
    return detect([grid.reshape(1, -1, *grid.shape[2:]) for grid in grids], LABELS, rule, place)


def test_nothing_found() -> None:
    assert run(blank()) == ()


def test_one_box_by_hand() -> None:
    grids = blank()
    grids[1][1, :, 2, 1] = (0, 0, -math.log(2), -math.log(3), 40, NEVER, 40, NEVER)  # anchor 62x45
    [found] = run(grids)
    assert (found.index, found.label, found.score) == (1, "dog", 1.0)
    assert corners(found) == pytest.approx((24 - 15.5, 40 - 7.5, 24 + 15.5, 40 + 7.5), abs=1e-5)


def test_a_box_goes_back_through_the_letterbox() -> None:
    grids = blank()
    grids[0][0, :, 3, 5] = (0, 0, 0, 0, 40, 40, NEVER, NEVER)  # anchor 10x13, centre (44, 28)
    place = fit((256, 128), ImageSize(64, 64), "letterbox")  # a quarter the size, 16 below the top
    [found] = run(grids, place=place)
    assert found.box == Box(156.0, 22.0, 196.0, 74.0)


def test_the_threshold_itself_passes() -> None:
    grids = blank()
    grids[0][0, :, 0, 0] = (0, 0, 0, 0, 0, 0, -0.01, NEVER)  # 1/2 * 1/2, and a little less
    assert [(found.index, found.score) for found in run(grids)] == [(0, 0.25)]


@pytest.mark.parametrize(("threshold", "kept"), [(0.51, 2), (0.5, 2), (0.49, 1)], ids=["below", "equal", "above"])
def test_overlap_at_the_threshold(threshold: float, kept: int) -> None:
    grids = blank()
    for column in (3, 4):  # 24 wide, 8 apart: 16 of 32 columns are shared
        grids[0][0, :, 3, column] = (0, 0, 0, 0, 3, 3 - column, NEVER, NEVER)
    rule = replace(RULE, anchors=(((24, 16), (16, 30)), *ANCHORS[1:]), iou_threshold=threshold, score_threshold=0.1)
    assert len(run(grids, rule)) == kept


def test_suppression_is_by_class() -> None:
    grids = blank()
    grids[0][0, :, 3, 3] = (0, 0, 0, 0, 4, 4, 3, NEVER)
    grids[0][0, :, 3, 4] = (-6, 0, 0, 0, 4, NEVER, 2, 2)
    rule = replace(RULE, anchors=(((24, 16), (16, 30)), *ANCHORS[1:]))
    assert [found.label for found in run(grids, rule)] == ["cat", "dog", "cup"]


def test_equal_scores_come_by_scale_anchor_row_column_class() -> None:
    grids = blank()
    wanted = []
    for scale, anchor, row, column, index in (
        (0, 0, 0, 7, 2),
        (0, 0, 1, 0, 0),
        (0, 0, 1, 0, 1),
        (0, 0, 1, 4, 0),
        (0, 1, 0, 0, 0),
        (1, 0, 3, 3, 1),
        (1, 1, 0, 0, 0),
        (2, 0, 0, 0, 2),
    ):
        grids[scale][anchor, 4, row, column] = 1
        grids[scale][anchor, 5 + index, row, column] = 1
        wanted.append((index, (column + 0.5) * STRIDES[scale], (row + 0.5) * STRIDES[scale]))
    wide = Fit((464, 464), (464, 464), (-200, -200), (64, 64))  # nothing is clipped, so that centres can be told
    found = run(grids, replace(RULE, iou_threshold=1.0), wide)
    centres = [(f.index, (f.box.x1 + f.box.x2) / 2 - 200, (f.box.y1 + f.box.y2) / 2 - 200) for f in found]
    assert len(centres) == len(wanted)
    for got, expected in zip(centres, wanted, strict=True):
        assert got == pytest.approx(expected, abs=1e-3)
    assert run(grids, replace(RULE, iou_threshold=1.0, max_detections=3), wide) == found[:3]


def test_boxes_outside_the_picture_are_dropped() -> None:
    grids = blank()
    grids[0][0, :, 0, 4] = (0, 0, 0, 0, 9, 9, NEVER, NEVER)  # 13 high, centre at 4: above the picture
    grids[0][0, :, 1, 4] = (0, 0, 0, 0, 8, 9, NEVER, NEVER)  # centre at 12: reaches 2.5 pixels into it
    [found] = run(grids, place=fit((640, 320), ImageSize(64, 64), "letterbox"))
    assert found.box == Box(310.0, 0.0, 410.0, 25.0)


# -- wild outputs --------------------------------------------------------------------------------------------------

WILD = [1e30, -1e30, 0.0, 88.8, -88.8, 104.0, -104.0, 3e38]


@relaxed
@given(seeds)
def test_wild_logits_neither_overflow_nor_warn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = classify(rng.choice(WILD, (1, 6)).astype(f32), "abcdef")
        assert all(0 <= each.probability <= 1 for each in found)
        every = classify(rng.choice(WILD, (1, 4)).astype(f32), "abcd")
        assert sum(each.probability for each in every) == pytest.approx(1)

        maps = [rng.choice(WILD, (1, 16, 64 // stride, 64 // stride)).astype(f32) for stride in STRIDES]
        place = fit((333, 77), ImageSize(64, 64), "letterbox")
        for each in detect(maps, LABELS, RULE, place):
            assert 0 <= each.box.x1 < each.box.x2 <= 333
            assert 0 <= each.box.y1 < each.box.y2 <= 77
            assert 0.25 <= each.score <= 1

        logits = rng.choice(WILD[:-1], (1, 3, 4, 4)).astype(f32)
        assert segment(logits, "abc", fit((9, 7), ImageSize(64, 64), "resize")).classes.max() <= 2


@pytest.mark.parametrize("task", ["classify", "detect", "segment"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_values_that_are_not_finite_are_refused(task: str, value: float) -> None:
    config = ModelConfig.create(task, "xformer_xxs", image_size=ImageSize(64, 64), num_classes=3)
    outputs = {name: np.zeros(shape, dtype=f32) for name, shape in config.output_shapes().items()}
    place = fit((80, 60), config.image_size, "resize")
    after = Postprocess.of(config)
    after(outputs, place)
    name = list(outputs)[-1]
    outputs[name].flat[-1] = value
    with pytest.raises(BundleError, match=re.escape(f"NaN or infinite in {name!r}")) as caught:
        after(outputs, place)
    assert "\n" not in str(caught.value)


# -- segmentation --------------------------------------------------------------------------------------------------


def plain_segment(logits: Floats, source: tuple[int, int]) -> npt.NDArray[np.int64]:
    """One pixel at a time, in float32, as docs/preprocessing.md says."""
    _, classes, rows, columns = logits.shape
    width, height = source

    def taps(i: int, n: int, m: int) -> tuple[int, int, np.float32]:
        position = min(max((i + 0.5) * (n / m) - 0.5, 0.0), n - 1.0)
        a = math.floor(position)
        return a, min(a + 1, n - 1), f32(position - a)

    out = np.empty((height, width), dtype=np.int64)
    for y in range(height):
        top, bottom, down = taps(y, rows, height)
        for x in range(width):
            left, right, across = taps(x, columns, width)
            best, largest = 0, f32(-np.inf)
            for c in range(classes):
                grid = logits[0, c]
                a = grid[top, left] + (grid[bottom, left] - grid[top, left]) * down
                b = grid[top, right] + (grid[bottom, right] - grid[top, right]) * down
                value = a + (b - a) * across
                assert value.dtype == f32
                if value > largest:
                    best, largest = c, value
            out[y, x] = best
    return out


KINDS = ("ties", "apart", "close")
map_sides = st.integers(1, 9)
picture_sides = st.integers(1, 24)


@settings(relaxed, max_examples=50)
@given(seeds, map_sides, map_sides, picture_sides, picture_sides, st.sampled_from([1, 2, 5]), st.sampled_from(KINDS))
@example(1, 4, 4, 1, 1, 3, "ties")
@example(2, 1, 1, 24, 24, 3, "ties")
@example(3, 4, 8, 24, 1, 3, "ties")
@example(4, 8, 8, 23, 21, 2, "close")
def test_segment_is_the_plain_algorithm(
    seed: int, rows: int, columns: int, width: int, height: int, classes: int, kind: str
) -> None:
    rng, shape = np.random.default_rng(seed), (1, classes, rows, columns)
    logits = (rng.integers(-3, 4, shape) if kind == "ties" else rng.normal(size=shape)).astype(f32)
    if kind == "close":  # classes are one step of float32 apart: only the stated rounding decides
        logits = np.nextafter(logits[:, :1], rng.choice([-9, 9], shape).astype(f32))
    place = fit((width, height), ImageSize(64, 64), "resize")
    found = segment(logits, [str(index) for index in range(classes)], place)
    assert found.classes.shape == (height, width)
    assert found.classes.dtype == np.uint8
    assert np.array_equal(found.classes, plain_segment(logits, (width, height)))


@pytest.mark.parametrize("size", [(64, 64), (101, 67), (16, 16), (37, 200)], ids=str)
def test_segment_is_bilinear_interpolation_as_others_do_it(size: tuple[int, int]) -> None:
    """Where the largest logit leads clearly, torch finds the same class; Pillow too, where nothing shrinks."""
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(5).normal(0, 1, (1, 4, 16, 16)).astype(f32)
    found = segment(logits, "abcd", fit(size, ImageSize(64, 64), "resize")).classes
    others = [
        torch.nn.functional.interpolate(
            torch.from_numpy(logits), size=size[::-1], mode="bilinear", align_corners=False
        ).numpy()[0],
        np.stack([np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BILINEAR)) for grid in logits[0]]),
    ]
    for full in others:
        ordered = np.sort(full, axis=0)
        clear = ordered[-1] - ordered[-2] > 1e-4
        assert clear.mean() > 0.99
        assert (found == full.argmax(axis=0))[clear].all()


def test_ties_take_the_lowest_class() -> None:
    place = fit((21, 5), ImageSize(64, 64), "resize")
    assert (segment(np.zeros((1, 4, 16, 16), f32), "abcd", place).classes == 0).all()
    twin = np.random.default_rng(0).normal(9, 1, (16, 16)).astype(f32)
    logits = np.stack([np.full_like(twin, -1), twin, twin])[None]
    assert (segment(logits, "abc", place).classes == 1).all()


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (257, np.uint16)], ids=["256", "257"])
def test_many_classes(classes: int, dtype: Any) -> None:
    logits = np.zeros((1, classes, 2, 2), f32)
    logits[0, -1] = 1
    labels = [str(index) for index in range(classes)]
    found = segment(logits, labels, fit((5, 3), ImageSize(64, 64), "resize"))
    assert found.classes.dtype == dtype
    assert (found.classes == classes - 1).all()
    assert found.shares() == [(classes - 1, str(classes - 1), 1.0)]


def test_shares_are_ordered_by_size_then_class() -> None:
    logits = np.full((1, 4, 4, 4), -1, f32)
    logits[0, 3, :, :2] = logits[0, 1, :2, 2:] = logits[0, 0, 2:, 2:] = 1
    found = segment(logits, "abcd", fit((4, 4), ImageSize(64, 64), "resize"))
    assert found.shares() == [(3, "d", 0.5), (0, "a", 0.25), (1, "b", 0.25)]


# The colours that PASCAL VOC's development kit gives its first classes.
VOC = ["000000", "800000", "008000", "808000", "000080", "800080", "008080", "808080", "400000", "c00000", "408000"]


def test_the_palette_is_pascal_vocs() -> None:
    assert ["{:02x}{:02x}{:02x}".format(*color) for color in default_palette(len(VOC))] == VOC
    assert len(set(default_palette(256))) == 256


# -- the whole -----------------------------------------------------------------------------------------------------


def test_postprocess_of_a_classifier() -> None:
    after = Postprocess.of(ModelConfig.create("classify", num_classes=7))
    place = fit((10, 10), ImageSize(64, 64), "resize")
    found = after({"logits": np.arange(7, dtype=f32)[None]}, place)
    assert found == classify(np.arange(7, dtype=f32)[None], [f"class {i}" for i in range(7)], 5)


def test_postprocess_of_a_detector() -> None:
    config = ModelConfig.create("detect", num_classes=3, image_size=ImageSize(64, 128))
    after = Postprocess.of(config)
    assert after.detection is not None
    assert after.detection.anchors[0][0] == pytest.approx((10 / 416 * 64, 13 / 416 * 64))
    assert after.detection.strides == (8, 16, 32)
    outputs = {name: np.full(shape, -9, dtype=f32) for name, shape in reversed(config.output_shapes().items())}
    outputs["stride16"][0, 4:6, 2, 3] = 9
    outputs["stride16"][0, :4, 2, 3] = 0
    found = after(outputs, Fit((128, 64), (128, 64), (0, 0), (128, 64)))
    assert isinstance(found, tuple)
    [each] = found
    assert isinstance(each, Detection)
    w, h = 30 / 416 * 64, 61 / 416 * 64
    assert corners(each) == pytest.approx((56 - w / 2, 40 - h / 2, 56 + w / 2, 40 + h / 2), abs=1e-3)


def test_postprocess_of_a_segmenter() -> None:
    after = Postprocess.of(ModelConfig.create("segment", num_classes=3, image_size=ImageSize(64, 64)))
    assert after.palette == default_palette(3)
    place = fit((30, 20), ImageSize(64, 64), "resize")
    logits = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(f32)
    found = after({"logits": logits}, place)
    assert not isinstance(found, tuple)
    assert np.array_equal(found.classes, segment(logits, after.labels, place).classes)
