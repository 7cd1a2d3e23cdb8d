"""From a picture to the byte image that every artifact takes: (1, H, W, 3), uint8, RGB.

Decode, turn upright (EXIF), convert to RGB, then fit by the rule of the manifest. Resampling is Pillow's
bilinear (antialiased, 8-bit fixed point): what models of this family are trained with. All sizes and offsets
are integer arithmetic, given in :func:`fit`, so that other languages can repeat them exactly;
docs/preprocessing.md describes the whole for who does so. numpy and Pillow only.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from xformer_mobile.errors import ImageError, UsageError
from xformer_mobile.spec import ImageSize, ResizeRule

__all__ = ["CROP_RATIO", "PAD_COLOR", "Fit", "find_images", "fit", "load_image", "preprocess", "to_rgb"]

ByteImage = npt.NDArray[np.uint8]

CROP_RATIO = (9, 8)
"""``resize_shorter_center_crop`` scales the picture to cover this many input sizes before it crops: 288 for 256."""

PAD_COLOR = (114, 114, 114)
"""The grey that ``letterbox`` pads with, usual for detectors of the YOLO family."""

MAX_PIXELS = 178_956_970
"""The largest picture that is decoded: where Pillow itself suspects a decompression bomb."""

MAX_RESIZED_PIXELS = 2**26
"""The largest intermediate picture; only one of an extreme shape (1 x 30,000) needs more."""

MAX_PICTURE_SIDE = 2**20
"""The longest side that is resampled: the filter's weights take 16 bytes for each of its pixels."""

MAX_FILE_BYTES = 2**30
"""The largest picture file that is read."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Fit:
    """How a picture was fitted to the input; what postprocessing needs to go back. All in pixels.

    The source is resized to ``resized``, and its top left corner comes to ``offset`` in the input: negative
    where it was cropped, positive where it was padded. Pairs are (width, height), or (x, y).
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    target: tuple[int, int]

    def to_source(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map boxes (n, 4) as x1, y1, x2, y2 from input pixels to source pixels, clipped to the source."""
        offset = np.array(self.offset * 2, dtype=np.float32)
        scale = np.array(self.source * 2, dtype=np.float32) / np.array(self.resized * 2, dtype=np.float32)
        limit = np.array(self.source * 2, dtype=np.float32)
        mapped: npt.NDArray[np.float32] = np.clip((boxes - offset) * scale, np.float32(0), limit)
        return mapped


def fit(source: tuple[int, int], target: ImageSize, rule: ResizeRule) -> Fit:
    """Where a picture of ``source`` (width, height) goes in the input, by integer arithmetic.

    A side is scaled by a/b as ``max(1, (2 * side * a + b) // (2 * b))``: rounded, halves up.

    - ``resize``: to the input's size; the shape is not kept.
    - ``resize_shorter_center_crop``: the smallest size of the same shape that covers 9/8 of the input, then
      the middle; the offset is ``-((resized - target) // 2)``.
    - ``letterbox``: the largest size of the same shape inside the input, padded evenly (one pixel more
      on the right and below where the rest is odd).
    """
    width, height = source
    goal = (target.width, target.height)
    if rule == "resize":
        return Fit(source, goal, (0, 0), goal)
    if rule == "letterbox":
        across = goal[0] * height <= goal[1] * width  # the width is what limits
        resized = _resized(source, goal, across)
        resized = min(resized[0], goal[0]), min(resized[1], goal[1])
        return Fit(source, resized, ((goal[0] - resized[0]) // 2, (goal[1] - resized[1]) // 2), goal)
    if rule == "resize_shorter_center_crop":
        up, down = CROP_RATIO
        cover = (goal[0] * up // down, goal[1] * up // down)
        across = cover[0] * height >= cover[1] * width  # the width is what is short
        resized = _resized(source, cover, across)
        resized = max(resized[0], goal[0]), max(resized[1], goal[1])
        return Fit(source, resized, (-((resized[0] - goal[0]) // 2), -((resized[1] - goal[1]) // 2)), goal)
    raise UsageError(f"unknown resize rule {rule!r}; valid: resize_shorter_center_crop, letterbox, resize")


def _resized(source: tuple[int, int], goal: tuple[int, int], across: bool) -> tuple[int, int]:
    """``source`` scaled so that its width (``across``) or its height becomes the goal's."""
    width, height = source
    up, down = (goal[0], width) if across else (goal[1], height)
    scaled = (max(1, (2 * side * up + down) // (2 * down)) for side in (width, height))
    return next(scaled), next(scaled)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded picture of any mode to upright 8-bit RGB.

    Alpha is dropped, as usual in training. 16-bit grey is scaled to 8 bits, ``(v * 255 + 32767) // 65535``;
    Pillow's own conversion would clip it to white. Colour profiles are ignored.

    Raises:
        ImageError: a mode without a defined range (32-bit float), or one that Pillow can't convert.
    """
    try:
        image = ImageOps.exif_transpose(image)
    except (ValueError, TypeError, KeyError, OSError, SyntaxError, ZeroDivisionError) as error:
        raise ImageError(f"its EXIF data is broken: {error}") from error
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ImageError("its pixels are 32-bit floats without a range; save it with 8 or 16 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"its mode {image.mode!r} can't be used: {error}") from error


def load_image(path: Path) -> Image.Image:
    """Read a picture as upright 8-bit RGB; of an animation, the first frame.

    Raises:
        ImageError: it is missing, not a picture, broken, truncated, or larger than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of MAX_PIXELS on, where whole panoramas are fine, and of odd metadata; what it
            # can't read it raises, and the limit below still holds.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(_content(path))) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(f"it has {image.width}x{image.height} pixels, more than {MAX_PIXELS}")
                image.load()
                return to_rgb(image)
    except ImageError as error:
        raise ImageError(f"can't use picture {path}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"can't use picture {path}: it is in no known picture format") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"can't use picture {path}: it has more than {MAX_PIXELS} pixels") from error
    except OSError as error:
        raise ImageError(f"can't use picture {path}: {error.strerror or error}") from error
    except Exception as error:  # a decoder's own error on a broken file: struct.error, ValueError, MemoryError, ...
        raise ImageError(f"can't use picture {path}: it is broken ({error})") from error


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ImageError("it is a directory, a device or a pipe")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ImageError(f"it has {size} bytes, more than {MAX_FILE_BYTES}")
    return path.read_bytes()


def preprocess(image: Image.Image | ByteImage, target: ImageSize, rule: ResizeRule) -> tuple[ByteImage, Fit]:
    """Fit a picture to the input: returns the byte image (1, H, W, 3) uint8, and how it was fitted.

    ``image`` is a Pillow image of any mode, or RGB bytes (h, w, 3) uint8, upright.

    Raises:
        ImageError: an array of another shape or dtype, or a picture too elongated to scale.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ImageError(f"got an array of {image.dtype} {image.shape}; a picture is uint8 (height, width, 3)")
        image = Image.fromarray(image)
    rgb = to_rgb(image)
    place = fit(rgb.size, target, rule)
    width, height = place.resized
    too_large = width * height > MAX_RESIZED_PIXELS or width * rgb.height > MAX_PIXELS
    if too_large or max(rgb.size) > MAX_PICTURE_SIDE:
        raise ImageError(f"a picture of {rgb.width}x{rgb.height} is too elongated to be scaled to {target}")
    # One axis a call, the width first: in a single call, newer releases of Pillow (12.3, and more often 13) take
    # the height first where that is faster, and the bytes would depend on the release.
    resized = rgb.resize((width, rgb.height), Image.Resampling.BILINEAR).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    canvas = Image.new("RGB", place.target, PAD_COLOR)
    canvas.paste(resized, place.offset)
    return np.asarray(canvas)[None], place


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The picture files among ``paths``: files as they are, directories searched (one level), in order of name.

    Raises:
        ImageError: a path that does not exist, or no picture at all.
    """
    try:
        found = [file for path in paths for file in _files(path)]
    except OSError as error:
        raise ImageError(f"can't look for pictures at {error.filename}: {error.strerror}") from error
    if not found:
        named = ", ".join(map(str, paths))
        raise ImageError(f"no pictures in {named}; looked for {' '.join(SUFFIXES)}")
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not path.exists():
        raise ImageError(f"no picture {path}: no such file or directory")
    return [path]


def describe_rule(rule: ResizeRule) -> dict[str, Any]:
    """The rule with its constants, as the manifest states it."""
    description: dict[str, Any] = {"rule": rule, "resampling": "pillow_bilinear_antialiased"}
    if rule == "letterbox":
        description["pad_color"] = list(PAD_COLOR)
    elif rule == "resize_shorter_center_crop":
        description["cover_ratio"] = list(CROP_RATIO)
    return description
