"""Pictures of results show the result: where, in which colour, and on pictures of any size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xformer_mobile.drawing import BAR, draw_result, mask_image
from xformer_mobile.postprocess import Box, Classification, ClassMap, Detection, Result, default_palette

GREY = (128, 128, 128)
PALETTE = default_palette(4)


def _pixels(result: Result, size: tuple[int, int] = (400, 300)) -> np.ndarray:
    picture = draw_result(Image.new("RGB", size, GREY), result, PALETTE)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def test_bars_are_as_long_as_the_probabilities() -> None:
    pixels = _pixels((Classification(3, "cat", 0.8), Classification(1, "dog", 0.2)))
    assert (pixels[:300] == GREY).all()  # the picture itself is left alone
    lengths = [count for count in (pixels == BAR).all(-1).sum(1) if count]
    assert max(lengths) / min(lengths) == pytest.approx(4, rel=0.1)
    assert lengths[0] > lengths[-1]


def test_boxes_are_drawn_where_they_are() -> None:
    pixels = _pixels((Detection(2, "cat", 0.9, Box(100, 80, 200, 220)),))
    color = default_palette(4)[3]
    drawn = (pixels == color).all(-1)
    assert drawn[150, 100]
    assert drawn[150, 200]
    assert drawn[220, 150]
    assert not drawn[150, 110:190].any()  # only the outline
    assert not drawn[230:].any()
    assert pixels.shape == (300, 400, 3)


def test_nothing_found_leaves_the_picture_as_it_is() -> None:
    assert (_pixels(()) == GREY).all()


def test_a_mask_tints_its_pixels_and_the_legend_names_the_classes() -> None:
    classes = np.zeros((300, 400), np.uint8)
    classes[:, 200:] = 1
    pixels = _pixels(ClassMap(classes, ("road", "tree", "sky", "car")))
    left, right = pixels[150, 100], pixels[150, 300]
    assert np.ptp(left) == 0  # grey with black
    assert right[0] > left[0]  # grey with the palette's dark red
    assert PALETTE[1] == (128, 0, 0)
    assert right[1] == left[1]
    legend = pixels[300:]
    assert (legend == PALETTE[1]).all(-1).any()
    assert not (legend == PALETTE[2]).all(-1).any()  # a class that does not occur


@pytest.mark.parametrize("classes", [4, 256, 300])
def test_a_mask_file_holds_the_class_indices(classes: int) -> None:
    dtype = np.uint8 if classes <= 256 else np.uint16
    values = np.arange(12, dtype=dtype).reshape(3, 4) * (classes // 12)
    mask = mask_image(ClassMap(values, tuple(map(str, range(classes)))), default_palette(classes))
    assert mask.mode == ("P" if classes <= 256 else "I;16")
    assert np.array_equal(np.asarray(mask), values)


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (63, 64)], ids=str)
@pytest.mark.parametrize("kind", ["bars", "boxes", "mask"])
def test_any_size_of_picture_and_any_label(kind: str, size: tuple[int, int]) -> None:
    label = "Kräne 鹤 " + "very long " * 30
    width, height = size
    result: Result = {
        "bars": (Classification(0, label, 1.0), Classification(1, label, 0.0)),
        "boxes": (Detection(999, label, 1.0, Box(0, 0, width, height)),),
        "mask": ClassMap(np.zeros((height, width), np.uint8), (label, "b", "c", "d")),
    }[kind]  # type: ignore[assignment]
    pixels = _pixels(result, size)
    assert pixels.shape[0] >= height
    assert pixels.shape[1] >= width
