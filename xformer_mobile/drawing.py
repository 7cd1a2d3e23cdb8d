"""Pictures of results: the source picture with bars, boxes or a coloured mask drawn on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xformer_mobile.postprocess import Classification, ClassMap, Detection, Result, default_palette

__all__ = ["draw_result", "mask_image"]

Color = tuple[int, int, int]

INK: Color = (32, 32, 32)
PAPER: Color = (250, 250, 250)
BAR: Color = (46, 110, 190)

MASK_OPACITY = 0.55
MIN_WIDTH = 360
"""Narrower pictures get a wider canvas, so that the words below them can be read."""

LEGEND_ENTRIES = 8


def draw_result(image: Image.Image, result: Result, palette: Sequence[Color] = ()) -> Image.Image:
    """Return a new RGB picture: ``image`` (upright RGB) with its result.

    Classification adds bars of the probabilities below the picture, detection boxes with class and score,
    segmentation the mask in the ``palette``'s colours with a legend below.
    """
    if isinstance(result, ClassMap):
        return _with_mask(image, result, palette)
    if any(isinstance(item, Classification) for item in result):
        return _with_bars(image, [item for item in result if isinstance(item, Classification)])
    return _with_boxes(image, [item for item in result if isinstance(item, Detection)])


def mask_image(class_map: ClassMap, palette: Sequence[Color]) -> Image.Image:
    """The class map as a palette picture (mode P): pixel values are the class indices.

    More than 256 classes do not fit a palette: then 16-bit grey (mode I;16).
    """
    if class_map.classes.dtype != np.uint8:
        return Image.fromarray(class_map.classes)
    mask = Image.fromarray(class_map.classes)
    mask.putpalette([channel for color in palette for channel in color])
    return mask


def _font(image: Image.Image) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(13, round(max(image.size) / 40)))


def _line_height(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return round(font.getbbox("Ag")[3] * 1.5)


def _with_panel(image: Image.Image, lines: int, line_height: int) -> tuple[Image.Image, int]:
    """The picture on a canvas with room for lines of text below; and where they begin."""
    width = max(image.width, MIN_WIDTH)
    canvas = Image.new("RGB", (width, image.height + (lines + 1) * line_height), PAPER)
    canvas.paste(image, ((width - image.width) // 2, 0))
    return canvas, image.height + line_height // 2


def _with_bars(image: Image.Image, classes: Sequence[Classification]) -> Image.Image:
    font = _font(image)
    height = _line_height(font)
    canvas, top = _with_panel(image, len(classes), height)
    draw = ImageDraw.Draw(canvas)
    margin = height // 2
    middle = canvas.width * 11 // 20
    longest = canvas.width - middle - margin - round(font.getlength(" 100.0 %"))
    for row, item in enumerate(classes):
        y = top + row * height
        draw.text((margin, y), _shortened(item.label, font, middle - 2 * margin), INK, font)
        right = middle + max(1, round(longest * item.probability))
        draw.rectangle((middle, y + height // 8, right, y + height * 5 // 8), BAR)
        draw.text((right + margin // 2, y), f"{item.probability:.1%}", INK, font)
    return canvas


def _with_boxes(image: Image.Image, detections: Sequence[Detection]) -> Image.Image:
    canvas = image.copy()
    draw = ImageDraw.Draw(canvas)
    font = _font(image)
    line = max(2, round(max(image.size) / 300))
    colors = default_palette(257)
    # The best box last, on top of the others.
    for item in reversed(detections):
        color = colors[item.index % 256 + 1]
        box = item.box
        draw.rectangle((box.x1, box.y1, box.x2, box.y2), outline=color, width=line)
        text = f"{item.label} {item.score:.0%}"
        _, _, width, height = font.getbbox(text)
        top = max(0.0, box.y1 - height - 4)
        draw.rectangle((box.x1, top, box.x1 + width + 6, top + height + 4), fill=color)
        draw.text((box.x1 + 3, top + 1), text, _readable_on(color), font)
    return canvas


def _with_mask(image: Image.Image, class_map: ClassMap, palette: Sequence[Color]) -> Image.Image:
    colors = np.asarray(palette, dtype=np.uint8)[class_map.classes]
    blended = Image.blend(image, Image.fromarray(colors), MASK_OPACITY)
    font = _font(image)
    height = _line_height(font)
    entries = class_map.shares()[:LEGEND_ENTRIES]
    canvas, top = _with_panel(blended, len(entries), height)
    draw = ImageDraw.Draw(canvas)
    for row, (index, label, share) in enumerate(entries):
        y = top + row * height
        swatch = (height // 2, y, height * 5 // 4, y + height * 3 // 4)
        draw.rectangle(swatch, fill=tuple(palette[index]), outline=INK)
        text = _shortened(f"{share:6.1%}  {label}", font, canvas.width - height * 2)
        draw.text((height * 3 // 2, y), text, INK, font)
    return canvas


def _readable_on(color: Color) -> Color:
    """Black or white, whichever stands out (by the luma weights of Rec. 601)."""
    red, green, blue = color
    return INK if 299 * red + 587 * green + 114 * blue > 128_000 else PAPER


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
