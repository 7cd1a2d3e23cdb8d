"""Preprocessing: bit for bit what Pillow makes, for any size, mode and orientation; and what broken files do.

Expectations come from Pillow, from fractions, or from :func:`documented_resample`, a second implementation that
follows docs/preprocessing.md to the letter; never from the code under test.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from xformer_mobile.errors import ImageError, UsageError
from xformer_mobile.files import tree_sha256
from xformer_mobile.preprocess import Fit, describe_rule, find_images, fit, load_image, preprocess, to_rgb
from xformer_mobile.spec import ImageSize, ResizeRule

Bytes = npt.NDArray[np.uint8]

GOLDEN = Path(__file__).parent / "golden"
RULES: tuple[ResizeRule, ...] = get_args(ResizeRule)
TARGETS = [ImageSize(64, 64), ImageSize(64, 128), ImageSize(128, 64)]
ORIENTATION = 0x0112

relaxed = settings(deadline=None, derandomize=True, max_examples=100)
sides = st.one_of(st.integers(1, 9), st.integers(1, 200), st.sampled_from([63, 64, 65, 71, 72, 73, 127, 128, 144]))
seeds = st.integers(0, 2**32 - 1)


def noise(seed: int, *shape: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def golden_cases(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))["cases"]
    return cases


def png_bytes(width: int, height: int, header_size: int = 13) -> bytes:
    """A PNG without pixels, whose header may claim anything."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)[:header_size]
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# -- second implementations ----------------------------------------------------------------------------------------


def documented_resample(pixels: Bytes, size: tuple[int, int]) -> Bytes:
    """(h, w, 3) resampled to ``size`` (width, height), as docs/preprocessing.md, section 3, says."""
    width, height = size
    across = one_axis(pixels.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return one_axis(across, height)


def one_axis(samples: Bytes, target: int) -> Bytes:
    """The first axis of (n, ...) resampled to ``target``."""
    n = len(samples)
    if n == target:
        return samples
    scale = n / target
    reach = max(scale, 1.0)
    inverse = 1.0 / reach
    out = np.empty((target, *samples.shape[1:]), dtype=np.uint8)
    for i in range(target):
        centre = (i + 0.5) * scale
        first = max(math.trunc(centre - reach + 0.5), 0)
        last = min(math.trunc(centre + reach + 0.5), n)
        weights = [max(1.0 - abs((j - centre + 0.5) * inverse), 0.0) for j in range(first, last)]
        total = 0.0
        for weight in weights:
            total += weight
        summed = np.full(samples.shape[1:], 1 << 21, dtype=np.int32)
        for j, weight in enumerate(weights, first):
            summed += samples[j].astype(np.int32) * math.trunc(0.5 + (weight / total) * (1 << 22))
        out[i] = (summed >> 22).clip(0, 255)
    return out


def round_half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def expected_size(source: tuple[int, int], target: ImageSize, rule: str) -> tuple[int, int]:
    """The resized (width, height), by exact fractions."""
    if rule == "resize":
        return target.width, target.height
    share = Fraction(1) if rule == "letterbox" else Fraction(9, 8)
    scales = [share * target.width / source[0], share * target.height / source[1]]
    scale = min(scales) if rule == "letterbox" else max(scales)
    width, height = (max(1, round_half_up(side * scale)) for side in source)
    return width, height


def expected_bytes(picture: Image.Image, target: ImageSize, rule: str) -> Bytes:
    """What Pillow makes of an RGB picture, one axis at a time, the width first."""
    width, height = expected_size(picture.size, target, rule)
    bilinear = Image.Resampling.BILINEAR
    resized = picture.resize((width, picture.height), bilinear).resize((width, height), bilinear)
    left, top = abs(target.width - width) // 2, abs(target.height - height) // 2
    if rule == "resize_shorter_center_crop":
        return np.asarray(resized.crop((left, top, left + target.width, top + target.height)))
    canvas = np.full((target.height, target.width, 3), 114, dtype=np.uint8)
    canvas[top : top + height, left : left + width] = np.asarray(resized)
    return canvas


# -- the fixtures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", golden_cases("preprocess/cases.json"), ids=lambda case: case["name"])
def test_golden_picture(case: dict[str, Any]) -> None:
    folder = GOLDEN / "preprocess"
    width, height = case["source"]
    pixels = np.frombuffer((folder / case["pixels"]).read_bytes(), dtype=np.uint8).reshape(height, width, 3)
    expected = (folder / case["expected"]).read_bytes()

    picture = load_image(folder / case["image"])
    made, place = preprocess(picture, ImageSize(*case["target"]), case["rule"])

    assert np.array_equal(np.asarray(picture), pixels)
    assert made.shape == (1, *case["target"], 3)
    assert made.tobytes() == expected
    assert hashlib.sha256(expected).hexdigest() == case["sha256"]
    assert place.resized == tuple(case["resized"])
    assert place.offset == tuple(case["offset"])
    assert np.array_equal(expected_bytes(picture, ImageSize(*case["target"]), case["rule"]), made[0])


@pytest.mark.parametrize("rule", RULES)
def test_golden_fits(rule: str) -> None:
    cases = [case for case in golden_cases("preprocess/fit.json") if case["rule"] == rule]
    assert len(cases) > 50
    for case in cases:
        source, target = tuple(case["source"]), ImageSize(*case["target"])
        place = fit(source, target, case["rule"])
        assert [list(place.resized), list(place.offset)] == [case["resized"], case["offset"]], case
        assert place.resized == expected_size(source, target, rule), case


@pytest.mark.parametrize("case", golden_cases("preprocess/orientation.json"), ids=lambda case: case["orientation"])
def test_golden_orientation(case: dict[str, Any]) -> None:
    stored = json.loads((GOLDEN / "preprocess/orientation.json").read_text(encoding="utf-8"))["stored"]
    width, height = stored["size"]
    image = Image.fromarray(np.array(stored["rgb"], dtype=np.uint8).reshape(height, width, 3))
    image.getexif()[ORIENTATION] = case["orientation"]
    upright = to_rgb(image)
    assert list(upright.size) == case["size"]
    assert np.asarray(upright).ravel().tolist() == case["rgb"]


def test_golden_files_are_those_that_kotlin_and_swift_read() -> None:
    """Their tests hold the same sums to what they find."""
    sums = json.loads((GOLDEN / "sums.json").read_text(encoding="utf-8"))
    assert sums == {part: tree_sha256(GOLDEN / part) for part in ("preprocess", "postprocess")}


@pytest.mark.skipif(not (find_spec("skimage") and find_spec("matplotlib")), reason="they carry the photographs")
def test_golden_files_are_what_the_generator_makes(tmp_path: Path) -> None:
    command = [sys.executable, str(GOLDEN / "make_golden.py"), str(tmp_path)]
    subprocess.run(command, check=True, env=dict(os.environ, PYTHONWARNINGS="error"))
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} - {Path("sums.json")}
    kept = {path.relative_to(GOLDEN) for part in ("preprocess", "postprocess") for path in (GOLDEN / part).rglob("*.*")}
    assert made == kept
    for name in sorted(made):
        new, old = tmp_path / name, GOLDEN / name
        if name.suffix == ".json":
            assert same(json.loads(new.read_text(encoding="utf-8")), json.loads(old.read_text(encoding="utf-8"))), name
        elif name.suffix == ".png":  # compressed bytes may differ between releases of zlib
            with Image.open(new) as a, Image.open(old) as b:
                assert np.array_equal(np.asarray(a), np.asarray(b)), name
        else:
            assert new.read_bytes() == old.read_bytes(), name


def same(a: Any, b: Any) -> bool:
    """Equal, floats to the last digits that an ``exp`` may change."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6)
    return type(a) is type(b) and bool(a == b)


def test_golden_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 1_500_000


# -- resampling ----------------------------------------------------------------------------------------------------


@relaxed
@given(seeds, sides, sides, st.sampled_from(TARGETS), st.sampled_from(RULES))
@example(1, 71, 96, TARGETS[1], "resize")  # the height shrinks, the width grows
@example(2, 1, 1, TARGETS[0], "letterbox")
@example(3, 199, 1, TARGETS[2], "letterbox")
@example(4, 1, 199, TARGETS[1], "resize_shorter_center_crop")
@example(5, 64, 64, TARGETS[0], "resize")
def test_bytes_are_pillows(seed: int, width: int, height: int, target: ImageSize, rule: ResizeRule) -> None:
    pixels = noise(seed, height, width, 3)
    made, place = preprocess(pixels, target, rule)
    assert made.dtype == np.uint8
    assert made.shape == (1, target.height, target.width, 3)
    assert place.source == (width, height)
    assert np.array_equal(made[0], expected_bytes(Image.fromarray(pixels), target, rule))
    again, _ = preprocess(Image.fromarray(pixels), target, rule)
    assert np.array_equal(made, again)


@relaxed
@given(seeds, sides, sides, sides, sides)
@example(1, 200, 200, 1, 1)
@example(2, 1, 1, 200, 200)
@example(3, 3, 199, 199, 3)
def test_the_documented_resampling_is_pillows(
    seed: int, width: int, height: int, to_width: int, to_height: int
) -> None:
    pixels = noise(seed, height, width, 3)
    bilinear = Image.Resampling.BILINEAR
    across = Image.fromarray(pixels).resize((to_width, height), bilinear)
    assert np.array_equal(documented_resample(pixels, (to_width, height)), np.asarray(across))
    both = across.resize((to_width, to_height), bilinear)
    assert np.array_equal(documented_resample(pixels, (to_width, to_height)), np.asarray(both))
    # Whatever order Pillow itself takes, it differs by the rounding in between and no more.
    at_once = np.asarray(Image.fromarray(pixels).resize((to_width, to_height), bilinear))
    assert np.abs(at_once.astype(int) - np.asarray(both)).max() <= 2


@pytest.mark.parametrize(
    "pixels", [np.zeros((50, 70, 3), np.uint8), np.full((50, 70, 3), 255, np.uint8)], ids=["black", "white"]
)
@pytest.mark.parametrize("rule", RULES)
def test_plain_pictures_stay_plain(pixels: Bytes, rule: ResizeRule) -> None:
    made, place = preprocess(pixels, ImageSize(64, 64), rule)
    left, top = (max(0, offset) for offset in place.offset)
    inside = made[0, top : top + place.resized[1], left : left + place.resized[0]]
    assert (inside == pixels[0, 0]).all()


def test_letterbox_pads_with_grey_and_one_more_pixel_at_the_end() -> None:
    made, place = preprocess(np.zeros((31, 64, 3), np.uint8), ImageSize(64, 64), "letterbox")
    assert place == Fit((64, 31), (64, 31), (0, 16), (64, 64))
    assert (made[0, :16] == 114).all()
    assert (made[0, 16:47] == 0).all()
    assert (made[0, 47:] == 114).all()


# -- the fit -------------------------------------------------------------------------------------------------------

any_sources = st.tuples(st.integers(1, 70_000), st.integers(1, 70_000))
any_targets = st.builds(ImageSize, st.integers(1, 16).map(lambda n: 64 * n), st.integers(1, 16).map(lambda n: 64 * n))


@settings(relaxed, max_examples=400)
@given(any_sources, any_targets, st.sampled_from(RULES))
@example((1, 70_000), ImageSize(64, 64), "letterbox")
@example((70_000, 1), ImageSize(64, 64), "letterbox")
@example((3, 128), ImageSize(64, 64), "letterbox")  # 1.5 pixels: halves go up
@example((5, 128), ImageSize(64, 64), "letterbox")  # 2.5 pixels: and not to even
def test_fit(source: tuple[int, int], target: ImageSize, rule: ResizeRule) -> None:
    place = fit(source, target, rule)
    goal = (target.width, target.height)
    assert (place.source, place.target) == (source, goal)
    assert place.resized == expected_size(source, target, rule)
    for resized, offset, side in zip(place.resized, place.offset, goal, strict=True):
        before, after = offset, side - resized - offset  # padding, or less than none where it is cropped
        if rule == "resize":
            assert (before, after) == (0, 0)
        elif rule == "letterbox":
            assert 1 <= resized <= side
            assert 0 <= before <= after <= before + 1
        else:
            assert resized >= side * 9 // 8
            assert before - 1 <= after <= before <= 0
    if rule == "letterbox":
        assert place.resized[0] == goal[0] or place.resized[1] == goal[1]
    if rule == "resize_shorter_center_crop":
        assert any(resized == side * 9 // 8 for resized, side in zip(place.resized, goal, strict=True))


@relaxed
@given(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), any_targets, st.sampled_from(RULES), st.data())
def test_boxes_go_back_to_the_source(
    source: tuple[int, int], target: ImageSize, rule: ResizeRule, data: st.DataObject
) -> None:
    place = fit(source, target, rule)
    shares = data.draw(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
    original = np.array(shares) * (source * 2)
    scale, shift = np.array(place.resized * 2) / (source * 2), np.array(place.offset * 2)
    back = place.to_source((original * scale + shift).astype(np.float32)[None])
    assert back.dtype == np.float32
    # What float32 resolves at the input's coordinates, in pixels of the source.
    step = np.abs(shift) + np.array(place.resized * 2)
    assert np.abs(back[0] - original).max() <= (4e-7 * step / scale).max() + 1e-3


def test_boxes_are_clipped_to_the_source() -> None:
    place = fit((200, 100), ImageSize(64, 64), "letterbox")  # 64x32, 16 pixels of grey above and below
    boxes = np.array([[-9, 0, 99, 64], [0, 16, 64, 48], [32, 24, 48, 32], [10, 0, 20, 9]], dtype=np.float32)
    assert place.to_source(boxes).tolist() == [
        [0, 0, 200, 100],
        [0, 0, 200, 100],
        [100, 25, 150, 50],
        [31.25, 0, 62.5, 0],
    ]
    assert place.to_source(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown resize rule 'stretch'; valid: .*letterbox"):
        fit((4, 4), ImageSize(64, 64), "stretch")  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES)
def test_the_manifest_states_the_rule(rule: ResizeRule) -> None:
    stated = describe_rule(rule)
    assert stated["rule"] == rule
    assert stated.get("pad_color") == ([114, 114, 114] if rule == "letterbox" else None)
    assert stated.get("cover_ratio") == ([9, 8] if rule == "resize_shorter_center_crop" else None)


# -- modes and orientations ----------------------------------------------------------------------------------------


def palette_of(seed: int) -> Bytes:
    return noise(seed + 1, 256, 3)


def with_palette(indices: Bytes, seed: int, transparency: bytes | int | None = None) -> Image.Image:
    image = Image.fromarray(indices)
    image.putpalette(palette_of(seed).tobytes())  # turns L into P
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def sixteen_bits(seed: int, height: int, width: int) -> npt.NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 65536, (height, width), dtype=np.uint16)


def grey(values: npt.NDArray[Any]) -> Bytes:
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


def make_mode(mode: str, seed: int, height: int, width: int) -> tuple[Image.Image, Bytes]:
    """A picture of the mode, and the RGB bytes that it shows."""
    plane = noise(seed, height, width)
    match mode:
        case "L":
            return Image.fromarray(plane), grey(plane)
        case "LA":
            return Image.fromarray(noise(seed, height, width, 2)), grey(noise(seed, height, width, 2)[..., 0])
        case "RGBA":
            return Image.fromarray(noise(seed, height, width, 4)), noise(seed, height, width, 4)[..., :3]
        case "1":
            return Image.fromarray(plane > 127), grey((plane > 127) * 255)
        case "P":
            return with_palette(plane, seed), palette_of(seed)[plane]
        case "P, one transparent colour":
            return with_palette(plane, seed, transparency=int(plane[0, 0])), palette_of(seed)[plane]
        case "P, transparency by colour":
            return with_palette(plane, seed, transparency=noise(seed + 2, 256).tobytes()), palette_of(seed)[plane]
        case "I;16" | "I;16B" | "I":
            wide = sixteen_bits(seed, height, width)
            raw = wide.astype({"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode])
            expected = grey(np.rint(wide / 257))  # never a tie: 257 is odd
            return Image.frombytes(mode, (width, height), raw.tobytes()), expected
        case _:
            bands = 4 if mode == "CMYK" else 3
            image = Image.frombytes(mode, (width, height), noise(seed, height, width, bands).tobytes())
            return image, np.asarray(image.convert("RGB"))


MODES = ["L", "LA", "RGB", "RGBA", "1", "P", "P, one transparent colour", "P, transparency by colour"]
MODES += ["CMYK", "YCbCr", "HSV", "I;16", "I;16B", "I"]

TURNS: dict[int, Callable[[Bytes], Bytes]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("mode", MODES)
@settings(relaxed, max_examples=20)
@given(seeds, st.integers(1, 60), st.integers(1, 60), st.integers(1, 8), st.sampled_from(RULES))
def test_modes_and_orientations(
    mode: str, seed: int, width: int, height: int, orientation: int, rule: ResizeRule
) -> None:
    image, shown = make_mode(mode, seed, height, width)
    image.getexif()[ORIENTATION] = orientation
    upright = TURNS[orientation](shown)
    rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    assert np.array_equal(np.asarray(rgb), upright)

    target = ImageSize(64, 64)
    made, place = preprocess(image, target, rule)
    assert place.source == (upright.shape[1], upright.shape[0])
    assert np.array_equal(made[0], expected_bytes(Image.fromarray(np.ascontiguousarray(upright)), target, rule))
    again, _ = preprocess(rgb, target, rule)
    assert np.array_equal(again, made), "a picture that is upright already was turned again"


def test_every_16_bit_grey() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(ramp))), grey(np.rint(ramp / 257)))


def test_32_bit_grey_is_clipped_to_16() -> None:
    image = Image.fromarray(np.array([[-5, 0, 257, 65535, 70000]], dtype=np.int32))
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [0, 0, 1, 255, 255]


@pytest.mark.parametrize("mode", ["F", "La"])
def test_modes_without_a_meaning_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match=r"^its (pixels|mode) .*"):
        to_rgb(Image.new(mode, (3, 2)))


# Lossy formats are compared with what the decoder gives when no orientation is set.
CARRIERS: dict[str, dict[str, Any]] = {"png": {}, "jpg": {"quality": 95}, "webp": {"lossless": True}, "tiff": {}}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", CARRIERS)
def test_orientation_in_files(suffix: str, orientation: int, tmp_path: Path) -> None:
    image = Image.fromarray(noise(7, 24, 40, 3))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    plain, turned = tmp_path / f"plain.{suffix}", tmp_path / f"turned.{suffix}"
    image.save(plain, **CARRIERS[suffix])
    image.save(turned, exif=exif, **CARRIERS[suffix])
    with Image.open(plain) as image:
        expected = TURNS[orientation](np.asarray(image))
    picture = load_image(turned)
    assert np.array_equal(np.asarray(picture), expected)
    made, _ = preprocess(picture, ImageSize(64, 64), "letterbox")
    assert np.array_equal(made[0], expected_bytes(picture, ImageSize(64, 64), "letterbox"))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "lime", "blue")]
    path = tmp_path / f"moving.{suffix}"
    lossless: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **lossless)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert (np.asarray(load_image(path)) == (255, 0, 0)).all()


# -- what can't be used --------------------------------------------------------------------------------------------


def assert_one_line(error: BaseException) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 500


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "zero bytes": (b"", "no known picture format"),
    "text": (b"hello, world\n" * 100, "no known picture format"),
    "zip": (b"PK\x03\x04" + b"\0" * 60, "no known picture format"),
    "png signature only": (b"\x89PNG\r\n\x1a\n", "no known picture format"),
    "png without pixels": (png_bytes(5, 5), "truncated"),
    "png of no size": (png_bytes(0, 0), "no known picture format"),
    "png with half a header": (png_bytes(5, 5, header_size=6), "it is broken"),  # Pillow raises a ValueError
    "bomb": (png_bytes(100_000, 100_000), "more than 178956970 pixels"),
    "bomb, as large as can be": (png_bytes(2**31 - 1, 2**31 - 1), "more than 178956970 pixels"),
    "just above the limit": (png_bytes(178_956_971, 1), "more than 178956970 pixels"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        load_image(path)
    assert str(caught.value).startswith(f"can't use picture {path}: ")
    assert_one_line(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file or directory") as caught:
        load_image(tmp_path / "absent.png")
    assert_one_line(caught.value)
    with pytest.raises(ImageError, match="it is a directory"):
        load_image(tmp_path)


def test_panoramas_below_the_limit_are_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns above it, refuses above twice as much
    path = tmp_path / "wide.png"
    Image.new("RGB", (150, 10)).save(path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert load_image(path).size == (150, 10)
    assert not told


def encoded(suffix: str, mode: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = Image.fromarray(noise(3, 20, 30, 3)).convert(mode)
    buffer = io.BytesIO()
    extra: dict[str, Any] = {} if suffix in ("bmp", "gif") else {"exif": exif}
    image.save(buffer, {"jpg": "jpeg"}.get(suffix, suffix), **extra)
    return buffer.getvalue()


FILES = [("png", "RGB"), ("png", "P"), ("jpg", "RGB"), ("jpg", "CMYK"), ("gif", "P")]
FILES += [("webp", "RGBA"), ("tiff", "RGB"), ("tiff", "L"), ("bmp", "RGB")]


@pytest.mark.parametrize(("suffix", "mode"), FILES, ids=lambda value: value)
@settings(relaxed, max_examples=60)
@given(st.data())
def test_damaged_files_give_a_picture_or_one_line(
    suffix: str, mode: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(encoded(suffix, mode))
    if data.draw(st.booleans(), "cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1), "length")]
    else:
        # Headers stand at the start: most changes go there.
        places = st.one_of(st.integers(0, min(150, len(content) - 1)), st.integers(0, len(content) - 1))
        for place in data.draw(st.lists(places, min_size=1, max_size=4), "places"):
            content[place] = data.draw(st.integers(0, 255), "byte")
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            picture = load_image(path)
        except ImageError as error:
            assert_one_line(error)
        else:
            assert picture.mode == "RGB"
    assert not told, "Pillow's warnings must not reach the user's terminal"


@pytest.mark.parametrize(("suffix", "mode"), FILES, ids=lambda value: value)
def test_half_a_file(suffix: str, mode: str, tmp_path: Path) -> None:
    content = encoded(suffix, mode)
    path = tmp_path / f"half.{suffix}"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert_one_line(caught.value)


ELONGATED: dict[str, tuple[tuple[int, int], ResizeRule]] = {
    "a column, to cover": ((1, 30_000), "resize_shorter_center_crop"),
    "a row, to cover": ((30_000, 1), "resize_shorter_center_crop"),
    "a column whose width grows first": ((1, 1_000_000), "resize"),
    "a side beyond the limit": ((1_100_000, 1), "letterbox"),
}


@pytest.mark.parametrize(("size", "rule"), ELONGATED.values(), ids=ELONGATED)
def test_elongated_pictures_are_refused(size: tuple[int, int], rule: ResizeRule) -> None:
    target = ImageSize(256, 256)
    with pytest.raises(ImageError, match=f"a picture of {size[0]}x{size[1]} is too elongated to be scaled to 256x256"):
        preprocess(Image.new("RGB", size), target, rule)


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (65_535, 2)], ids=str)
@pytest.mark.parametrize("rule", ["letterbox", "resize"])
def test_elongated_pictures_that_fit_are_scaled(size: tuple[int, int], rule: ResizeRule) -> None:
    made, _ = preprocess(Image.new("RGB", size, "white"), ImageSize(64, 64), rule)
    assert (made == 255).any()


BAD_ARRAYS: dict[str, npt.NDArray[Any]] = {
    "grey": np.zeros((4, 4), np.uint8),
    "four channels": np.zeros((4, 4, 4), np.uint8),
    "a batch": np.zeros((1, 4, 4, 3), np.uint8),
    "floats": np.zeros((4, 4, 3), np.float32),
    "empty": np.zeros((0, 4, 3), np.uint8),
}


@pytest.mark.parametrize("pixels", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_other_arrays_are_refused(pixels: npt.NDArray[Any]) -> None:
    with pytest.raises(ImageError, match="a picture is uint8") as caught:
        preprocess(pixels, ImageSize(64, 64), "resize")
    assert_one_line(caught.value)


# -- finding pictures ----------------------------------------------------------------------------------------------


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.webp", "notes.txt", "inner/deep.png", "named.png/x.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    alone = tmp_path / "notes.txt"
    found = find_images([alone, tmp_path])
    assert [path.name for path in found] == ["notes.txt", "a.jpg", "b.PNG", "c.webp"]


def test_find_images_complains(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no pictures in .*; looked for \.jpg .*\.png"):
        find_images([tmp_path])
    with pytest.raises(ImageError, match=r"no picture .*absent: no such file or directory"):
        find_images([tmp_path / "absent"])
