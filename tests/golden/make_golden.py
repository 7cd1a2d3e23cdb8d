"""Make the golden fixtures that the Python, Kotlin and Swift code all read: ``python make_golden.py [DIRECTORY]``.

Writes ``preprocess/`` and ``postprocess/`` into DIRECTORY (default: beside this file) and nothing else there.
README.md describes the formats. The result depends on nothing but this file, the package's code, and the
photographs that scikit-image and matplotlib carry; a test runs it and compares.

Fixtures must not depend on the last bit of an ``exp``: logits are short binary fractions, and a drawn case in
which a score, an overlap or an edge lies too close to where a result changes is refused. Exact ties are wanted, and
are made of values that every implementation computes exactly.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from xformer_mobile.files import tree_sha256
from xformer_mobile.postprocess import Detection, DetectionRule, classify, default_palette, detect, segment
from xformer_mobile.preprocess import Fit, fit, preprocess
from xformer_mobile.spec import ImageSize, ResizeRule

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

CROP: ResizeRule = "resize_shorter_center_crop"
LETTERBOX: ResizeRule = "letterbox"
RESIZE: ResizeRule = "resize"

PHOTOGRAPHS = {
    # name: (package, file, left, top, width, height)
    "astronaut": ("skimage", "data/astronaut.png", 176, 64, 96, 96),
    "chelsea": ("skimage", "data/chelsea.png", 196, 92, 71, 96),
    "coffee": ("skimage", "data/coffee.png", 250, 140, 96, 71),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 225, 130, 48, 64),
    "rocket": ("skimage", "data/rocket.jpg", 250, 150, 150, 30),
}


# -- preprocessing -------------------------------------------------------------------------------------------------


def photograph(package: str, file: str, left: int, top: int, width: int, height: int) -> Bytes:
    """A crop, pixel for pixel, of a photograph that an installed package carries."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed; type: pip install 'xformer-mobile[dev]'")
    with Image.open(Path(found.origin).parent / file) as image:
        return np.asarray(image.convert("RGB").crop((left, top, left + width, top + height)))


def waves(width: int, height: int) -> Bytes:
    """Crossing colour waves, by integer arithmetic."""
    y, x = np.mgrid[:height, :width]
    channels = [(x * 11 + y * 3) % 512, (x * 5 + y * 17 + 100) % 512, (x * y // 2 + 300) % 512]
    picture = np.stack(channels, axis=-1)
    return np.where(picture < 256, picture, 511 - picture).astype(np.uint8)


def checker(width: int, height: int) -> Bytes:
    """Black and white pixels in turn: the steepest edges there are."""
    y, x = np.mgrid[:height, :width]
    return np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)


def noise(width: int, height: int) -> Bytes:
    """Unrelated bytes."""
    return np.random.Generator(np.random.PCG64(width * 1000 + height)).integers(0, 256, (height, width, 3), np.uint8)


DRAWN: dict[str, tuple[Callable[[int, int], Bytes], int, int]] = {
    "waves": (waves, 101, 67),
    "checker": (checker, 64, 64),
    "noise": (noise, 13, 17),
    "pixel": (noise, 1, 1),
    "column": (noise, 1, 37),
    "row": (noise, 160, 1),
    "strip": (waves, 160, 3),
    "tower": (noise, 5, 150),
}

CASES: list[tuple[str, tuple[int, int], ResizeRule]] = [
    # picture, target (height, width), rule
    ("astronaut", (64, 64), CROP),
    ("astronaut", (64, 128), LETTERBOX),
    ("chelsea", (64, 64), CROP),
    ("chelsea", (64, 64), LETTERBOX),
    ("chelsea", (64, 128), RESIZE),  # the height shrinks, the width grows: the order of the passes shows
    ("coffee", (64, 64), CROP),
    ("coffee", (64, 64), LETTERBOX),
    ("coffee", (64, 64), RESIZE),
    ("coffee", (128, 64), CROP),
    ("grace_hopper", (64, 64), CROP),
    ("grace_hopper", (64, 64), RESIZE),  # only the width changes
    ("grace_hopper", (128, 64), RESIZE),
    ("rocket", (64, 64), LETTERBOX),
    ("rocket", (64, 128), RESIZE),
    ("waves", (64, 64), CROP),
    ("waves", (64, 64), LETTERBOX),
    ("waves", (64, 64), RESIZE),
    ("checker", (64, 64), RESIZE),  # nothing changes
    ("checker", (64, 64), LETTERBOX),
    ("checker", (64, 64), CROP),
    ("noise", (64, 64), CROP),
    ("noise", (64, 64), LETTERBOX),
    ("noise", (64, 64), RESIZE),
    ("pixel", (64, 64), CROP),
    ("pixel", (64, 64), LETTERBOX),
    ("pixel", (64, 64), RESIZE),
    ("column", (64, 64), LETTERBOX),
    ("column", (64, 64), CROP),
    ("column", (64, 64), RESIZE),
    ("row", (64, 64), LETTERBOX),
    ("row", (64, 64), CROP),
    ("row", (64, 64), RESIZE),
    ("strip", (64, 64), LETTERBOX),
    ("strip", (64, 64), RESIZE),
    ("tower", (64, 64), LETTERBOX),
    ("tower", (64, 64), CROP),
    ("tower", (64, 64), RESIZE),
]

FIT_SOURCES = [(1, 1), (1, 2), (2, 1), (3, 1000), (1000, 3), (255, 257), (320, 320), (333, 500), (640, 427)]
FIT_SOURCES += [(641, 479), (1080, 1920), (4032, 3024), (3024, 4032), (12000, 9000), (1, 30000), (65535, 7)]
FIT_SOURCES += [(3, 128), (5, 128), (128, 3), (128, 5), (3, 1024), (1024, 5)]  # halves: they go up
FIT_TARGETS = [(64, 64), (256, 256), (320, 320), (512, 1024), (128, 64)]


def make_preprocess(root: Path) -> None:
    """Pictures and what they become, sizes and offsets alone, and EXIF orientations."""
    for folder in ("images", "expected"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    pictures = {name: photograph(*where) for name, where in PHOTOGRAPHS.items()}
    pictures |= {name: draw(width, height) for name, (draw, width, height) in DRAWN.items()}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(root / f"images/{name}.png", optimize=True)
        (root / f"images/{name}.rgb").write_bytes(pixels.tobytes())

    cases: list[dict[str, Any]] = []
    for picture, (height, width), rule in CASES:
        name = f"{picture}-{height}x{width}-{rule}"
        made, place = preprocess(pictures[picture], ImageSize(height, width), rule)
        raw = made.tobytes()
        (root / f"expected/{name}.rgb").write_bytes(raw)
        cases.append(
            {
                "name": name,
                "image": f"images/{picture}.png",
                "pixels": f"images/{picture}.rgb",
                "source": place.source,
                "target": [height, width],
                "rule": rule,
                "resized": place.resized,
                "offset": place.offset,
                "expected": f"expected/{name}.rgb",
                "sha256": hashlib.sha256(raw).hexdigest(),
            }
        )
    write_json(root / "cases.json", {}, cases)

    fits = [
        {"source": source, "target": target, "rule": rule, "resized": place.resized, "offset": place.offset}
        for rule in (CROP, LETTERBOX, RESIZE)
        for target in FIT_TARGETS
        for source in FIT_SOURCES
        for place in [fit(source, ImageSize(*target), rule)]
    ]
    write_json(root / "fit.json", {}, fits)

    stored = noise(5, 3)
    turns = []
    for orientation in range(10):  # 0 and 9 are not valid, and mean what 1 means
        image = Image.fromarray(stored)
        image.getexif()[0x0112] = orientation
        upright = np.asarray(ImageOps.exif_transpose(image))
        turns.append({"orientation": orientation, "size": size_of(upright), "rgb": upright.ravel().tolist()})
    write_json(root / "orientation.json", {"stored": {"size": size_of(stored), "rgb": stored.ravel().tolist()}}, turns)


def size_of(pixels: Bytes) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


# -- classification ------------------------------------------------------------------------------------------------


def make_classify(root: Path) -> None:
    """Logits written out, and the classes that they mean."""
    rng = np.random.Generator(np.random.PCG64(1))
    logits: dict[str, tuple[Sequence[float], int]] = {
        "plain": ([0.5, -1.25, 3.0, 2.0, -0.75, 1.0], 3),
        "drawn": (fractions(rng, (40,), 64).tolist(), 5),
        "ties take the lower index first": ([1.0, 2.0, 0.0, 2.0, 1.0, 2.0], 5),
        "all equal": ([0.25] * 8, 5),
        "one class": ([-3.5], 5),
        "fewer classes than asked for": ([0.0, 1.0, -1.0], 5),
        "far apart": ([-200.0, 200.0, 0.0, -1.0], 4),
        "wild": ([1e30, -1e30, 0.0, 1e30], 4),
        "all very small": ([-1e30, -1e30, -2e30], 3),
    }
    cases = []
    for name, (values, top_k) in logits.items():
        labels = [f"label {index}" for index in range(len(values))]
        expected = classify(np.array([values], dtype=np.float32), labels, top_k)
        cases.append(
            {
                "name": name,
                "logits": values,
                "labels": labels,
                "top_k": top_k,
                "expected": [
                    {"index": found.index, "label": found.label, "probability": round(found.probability, 9)}
                    for found in expected
                ],
            }
        )
    write_json(root / "classify.json", {"tolerance": {"probability": 1e-6}}, cases)


# -- detection -----------------------------------------------------------------------------------------------------

STRIDES = (8, 16, 32)
ANCHORS = (((10.0, 13.0), (16.0, 8.0)), ((30.0, 24.0), (20.0, 40.0)), ((56.0, 40.0), (33.0, 60.0)))
NAMES = ("cat", "dog", "cup")
RULE = DetectionRule(ANCHORS, STRIDES)
NEVER = -20.0
"""A logit whose sigmoid passes no threshold."""


def blank(size: ImageSize) -> list[Floats]:
    """One map a stride, (anchors, 5 + classes, H, W), in which nothing is found."""
    maps = [np.zeros((2, 5 + len(NAMES), *size.at_stride(stride)), dtype=np.float32) for stride in STRIDES]
    for grid in maps:
        grid[:, 4:] = NEVER
    return maps


def put(maps: list[Floats], scale: int, anchor: int, row: int, column: int, *values: float) -> None:
    """Set one cell: tx, ty, tw, th, objectness and the classes' logits."""
    maps[scale][anchor, :, row, column] = values


def drawn(seed: int, size: ImageSize, share: float) -> list[Floats]:
    """Maps in which about ``share`` of the anchors have an object."""
    rng = np.random.Generator(np.random.PCG64(seed))
    maps = []
    for grid in blank(size):
        grid[:] = fractions(rng, grid.shape, 64) / 2
        grid[:, 2:4] /= 8  # sides from 0.6 to 1.6 of the anchor's
        grid[:, 4][rng.random(grid[:, 4].shape) >= share] = NEVER
        maps.append(grid)
    return maps


def detect_cases() -> list[tuple[str, list[Floats], DetectionRule, Fit]]:
    """Every case with its name, maps, rule and fit."""
    square, wide = ImageSize(64, 64), ImageSize(64, 128)
    same = fit((64, 64), square, LETTERBOX)
    landscape = fit((1237, 803), square, LETTERBOX)
    cases = [("nothing found", blank(square), RULE, same)]

    one = blank(square)
    put(one, 1, 1, 2, 1, 0, 0, 0, 0, 3, -1, 2, NEVER)  # its centre is (24, 40), its size the anchor's
    cases.append(("one object of two classes", one, RULE, same))

    # Two boxes 8 apart, 24 wide, equally tall: 16 of 32 columns are shared, an IoU of exactly one half.
    half = blank(square)
    put(half, 0, 0, 3, 3, 0, 0, 0, 0, 2, 2, NEVER, NEVER)
    put(half, 0, 0, 3, 4, 0, 0, 0, 0, 2, 1, NEVER, NEVER)
    halves = replace(RULE, anchors=(((24.0, 16.0), (16.0, 8.0)), *ANCHORS[1:]))
    cases.append(("overlap of the threshold is kept", half, replace(halves, iou_threshold=0.5), same))
    cases.append(("overlap above the threshold is dropped", half, replace(halves, iou_threshold=0.49), same))

    classes = blank(square)
    put(classes, 0, 0, 3, 3, 0, 0, 0, 0, 4, 3, NEVER, NEVER)
    put(classes, 0, 0, 2, 3, 0, 6, 0, 0, 4, NEVER, 2, NEVER)  # 4 above, a dog: stays
    put(classes, 0, 0, 4, 3, 0, -6, 0, 0, 4, 1, NEVER, NEVER)  # 4 below, a cat again: goes
    cases.append(("suppression is by class", classes, RULE, same))

    # Every score is sigmoid(0) * sigmoid(0), exactly 1/4, the threshold itself.
    ties = [np.zeros_like(grid) for grid in blank(square)]
    every = replace(RULE, iou_threshold=1.0, max_detections=1000)
    cases.append(("equal scores of the threshold, in order", ties, every, same))
    cases.append(("equal scores, suppressed", ties, RULE, same))
    cases.append(("no more than the most", ties, replace(every, max_detections=7), same))

    edges = blank(square)
    put(edges, 2, 0, 0, 0, 0, 0, 0.5, 0.5, 4, 4, NEVER, NEVER)  # leaves the picture at the left and the top
    put(edges, 2, 0, 1, 1, 2, 2, 0.5, 0.5, 3, NEVER, 4, NEVER)  # and at the right and the bottom
    put(edges, 0, 1, 0, 4, 0, 0, 0, 0, 5, 5, 5, 5)  # lies in the grey above the picture
    put(edges, 0, 0, 7, 2, 0, 0, 0, -2, 5, 5, 5, 5)  # and in the grey below
    cases.append(("clipped, and outside the picture", edges, RULE, landscape))

    wild = blank(square)
    put(wild, 0, 0, 1, 1, 1e30, -1e30, 1e30, 1e30, 1e30, 1e30, -1e30, NEVER)  # as large as the picture
    put(wild, 1, 0, 1, 1, -1e30, 1e30, -1e30, 0, 1e30, 0, 1e30, NEVER)  # no width: dropped
    put(wild, 2, 1, 1, 0, 0, 0, 11, 0, 1, NEVER, NEVER, 1e30)  # tw is taken for 10
    narrow = replace(RULE, anchors=(*ANCHORS[:2], (ANCHORS[2][0], (0.001, 60.0))))
    cases.append(("wild logits", wild, narrow, landscape))

    cases.append(("drawn, landscape", drawn(3, square, 0.1), RULE, landscape))
    cases.append(("drawn, portrait", drawn(4, square, 0.2), RULE, fit((211, 377), square, LETTERBOX)))
    cases.append(("drawn, wide input", drawn(5, wide, 0.15), RULE, fit((333, 500), wide, LETTERBOX)))
    cases.append(("drawn, one pixel", drawn(6, square, 0.2), RULE, fit((1, 1), square, LETTERBOX)))
    cases.append(("drawn, stretched", drawn(7, square, 0.1), RULE, fit((97, 401), square, RESIZE)))
    strict = replace(RULE, score_threshold=0.6, iou_threshold=0.2, max_detections=10)
    cases.append(("drawn, strict", drawn(8, square, 1.0), strict, fit((640, 427), square, LETTERBOX)))
    lenient = replace(RULE, score_threshold=0.05, iou_threshold=0.7)
    cases.append(("drawn, crowded", drawn(9, square, 1.0), lenient, fit((640, 427), square, LETTERBOX)))
    return cases


def make_detect(root: Path) -> None:
    """Maps in one file a case, and the boxes that they mean."""
    (root / "detect").mkdir(parents=True, exist_ok=True)
    cases: list[dict[str, Any]] = []
    for name, grids, rule, place in detect_cases():
        maps = [grid.reshape(1, -1, *grid.shape[2:]) for grid in grids]
        check_margins(name, maps, rule, place)
        file = f"detect/{slug(name)}.f32"
        write_floats(root / file, maps)
        cases.append(
            {
                "name": name,
                "labels": NAMES,
                "rule": {
                    "anchors": rule.anchors,
                    "strides": rule.strides,
                    "score_threshold": rule.score_threshold,
                    "iou_threshold": rule.iou_threshold,
                    "max_detections": rule.max_detections,
                },
                "fit": describe_fit(place),
                "maps": {"file": file, "shapes": [values.shape for values in maps]},
                "expected": [describe_detection(found) for found in detect(maps, NAMES, rule, place)],
            }
        )
    write_json(root / "detect.json", {"tolerance": {"score": 1e-6, "box": 1e-3}}, cases)


def check_margins(name: str, maps: Sequence[Floats], rule: DetectionRule, place: Fit) -> None:
    """Refuse a case whose result could change with the last bits of a float."""
    open_rule = replace(rule, score_threshold=0.01, iou_threshold=2.0, max_detections=10**6)
    found = detect(maps, NAMES, open_rule, place)
    scores = np.array([each.score for each in found])
    if any(0 < abs(score - rule.score_threshold) < 1e-5 for score in scores):
        raise SystemExit(f"{name}: a score lies too close to the threshold; draw another")
    passing = [each for each in found if each.score >= rule.score_threshold]
    if any(0 < a.score - b.score < 1e-6 for a, b in pairwise(passing)):
        raise SystemExit(f"{name}: two scores lie too close together; draw another")
    boxes = np.array([(b.box.x1, b.box.y1, b.box.x2, b.box.y2) for b in passing]).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    if (sides < 1e-3).any():
        raise SystemExit(f"{name}: a box is too thin; draw another")
    for i, box in enumerate(boxes):
        inner = np.minimum(box[2:], boxes[i + 1 :, 2:]) - np.maximum(box[:2], boxes[i + 1 :, :2])
        overlap = inner.clip(0).prod(axis=1)
        iou = overlap / (sides[i].prod() + sides[i + 1 :].prod(axis=1) - overlap)
        off = np.abs(iou - rule.iou_threshold)
        if ((off > 0) & (off < 1e-5)).any():
            raise SystemExit(f"{name}: an overlap lies too close to the threshold; draw another")


def describe_detection(found: Detection) -> dict[str, Any]:
    box = [round(side, 5) for side in (found.box.x1, found.box.y1, found.box.x2, found.box.y2)]
    return {"index": found.index, "label": found.label, "score": round(found.score, 8), "box": box}


# -- segmentation --------------------------------------------------------------------------------------------------


def segment_cases() -> list[tuple[str, Floats, tuple[int, int]]]:
    """Every case with its name, logits (1, classes, h, w), and the source's (width, height)."""
    rng = np.random.Generator(np.random.PCG64(2))
    square = fractions(rng, (1, 5, 16, 16), 16)
    wide = fractions(rng, (1, 3, 16, 32), 16)
    ramp = np.tile(np.arange(16, dtype=np.float32), (16, 1))
    crossing = np.stack([ramp, ramp[:, ::-1]])[None]  # equal in the middle column of an odd width
    twins = np.stack([square[0, 0] - 100, square[0, 1], square[0, 1]])[None]
    wild = np.where(square > 0, np.float32(1e30), np.float32(-1e30))
    base = square[0, 0] / np.float32(7)
    # The second class is one step of float32 above or below the first: only the stated rounding decides.
    close = np.stack([base, np.nextafter(base, rng.choice([-9, 9], base.shape).astype(np.float32))])[None]
    return [
        ("larger", square, (101, 67)),
        ("smaller", square, (7, 11)),
        ("the same size", square, (16, 16)),
        ("the input's size", square, (64, 64)),
        ("one pixel", square, (1, 1)),
        ("a column", square, (1, 50)),
        ("a row", square, (50, 1)),
        ("wide input", wide, (201, 40)),
        ("wide input, tall source", wide, (31, 97)),
        ("all equal: class 0", np.zeros((1, 4, 16, 16), np.float32), (19, 13)),
        ("equal in the middle: the lower index", crossing, (33, 9)),
        ("twins: the lower index", twins, (40, 40)),
        ("wild", wild, (45, 35)),
        ("close: decided by float32", close, (41, 59)),
        ("one class", square[:, :1], (9, 9)),
        ("more than 256 classes: 16 bits", fractions(rng, (1, 300, 4, 4), 16), (21, 17)),
    ]


def make_segment(root: Path) -> None:
    """Logits and class maps in files of their own, and the palette."""
    (root / "segment").mkdir(parents=True, exist_ok=True)
    cases: list[dict[str, Any]] = []
    for name, logits, source in segment_cases():
        labels = [f"label {index}" for index in range(logits.shape[1])]
        target = ImageSize(max(logits.shape[2] * 4, 64), max(logits.shape[3] * 4, 64))
        place = fit(source, target, RESIZE)
        found = segment(logits, labels, place)
        stem = f"segment/{slug(name)}"
        write_floats(root / f"{stem}.f32", [logits])
        kind = f"u{8 * found.classes.itemsize}"
        raw = found.classes.astype(found.classes.dtype.newbyteorder("<")).tobytes()
        (root / f"{stem}.{kind}").write_bytes(raw)
        cases.append(
            {
                "name": name,
                "classes": len(labels),
                "fit": describe_fit(place),
                "logits": {"file": f"{stem}.f32", "shape": logits.shape},
                "expected": {
                    "file": f"{stem}.{kind}",
                    "type": kind,
                    "shape": found.classes.shape,
                    "sha256": hashlib.sha256(raw).hexdigest(),
                    "shares": [[index, round(share, 9)] for index, _, share in found.shares()],
                },
            }
        )
    write_json(root / "segment.json", {"tolerance": {"share": 1e-6}, "palette": default_palette(24)}, cases)


# -- writing -------------------------------------------------------------------------------------------------------


def fractions(rng: np.random.Generator, shape: tuple[int, ...], parts: int) -> Floats:
    """Numbers in -8..8 that are multiples of 1 / ``parts``: exact in float32."""
    return (rng.integers(-8 * parts, 8 * parts + 1, shape) / parts).astype(np.float32)


def slug(name: str) -> str:
    """A case's name as the name of a file."""
    return re.sub(r"\W+", "_", name)


def describe_fit(place: Fit) -> dict[str, Any]:
    return {
        "source": place.source,
        "resized": place.resized,
        "offset": place.offset,
        "target": [place.target[1], place.target[0]],  # (height, width), as everywhere in these files
    }


def write_floats(path: Path, arrays: Sequence[Floats]) -> None:
    """The arrays one after the other, row-major, little-endian float32."""
    path.write_bytes(b"".join(values.astype("<f4").tobytes() for values in arrays))


def write_json(path: Path, head: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    """One line a case, so that a change shows as one line."""
    lines = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
    lines.append('"cases": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main(directory: Path) -> None:
    make_preprocess(directory / "preprocess")
    (directory / "postprocess").mkdir(exist_ok=True)
    make_classify(directory / "postprocess")
    make_detect(directory / "postprocess")
    make_segment(directory / "postprocess")
    sums = {part: tree_sha256(directory / part) for part in ("preprocess", "postprocess")}
    (directory / "sums.json").write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
