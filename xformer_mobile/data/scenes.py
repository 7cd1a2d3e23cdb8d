"""Procedural scenes: pictures with their class, boxes and mask, drawn on demand. numpy and Pillow only.

A scene is a function of (seed, split, index) and its size, and nothing is stored. It has one main object,
large and near the middle, up to four smaller ones, and distractors that belong to no class, on a textured
background; then light, blur, sensor noise and JPEG, as a camera adds them. The same arguments give the same
bytes with the same versions of numpy and Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from xformer_mobile.data.kinds import KINDS, Drawing, Part
from xformer_mobile.data.sample import IGNORED, Sample
from xformer_mobile.spec import ImageSize, lookup

__all__ = ["DIFFICULTIES", "SCENE_SIZE", "SPLITS", "Difficulty", "Split", "draw_scene"]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

SCENE_SIZE = ImageSize(256, 256)
"""Of a scene where nothing else is asked for."""

LEAST_VISIBLE = 0.3
"""An object with a smaller visible share of its silhouette is left out: its box is a crowd, its mask ignored."""


@dataclass(frozen=True)
class Difficulty:
    """How hard a scene is. Pairs are (lowest, highest); counts include neither more nor less than both.

    ``behind`` and ``in_front`` count distractors; ``smoothness`` is the least radius of a blob's corners as a share
    of the largest; ``small`` the radius of the lesser objects as a share of the shorter side; ``usual`` the
    probability of a kind's usual colors; ``texture`` and ``backdrop`` the strongest texture on objects and behind;
    ``blur`` in pixels at 256; ``noise`` the largest standard deviation of the sensor's noise in 0..255.
    """

    behind: tuple[int, int]
    in_front: tuple[int, int]
    smoothness: float
    small: tuple[float, float]
    usual: float
    texture: float
    backdrop: float
    blur: float
    noise: float


DIFFICULTIES: dict[str, Difficulty] = {
    "standard": Difficulty((1, 4), (0, 2), 0.8, (0.12, 0.2), 0.8, 0.35, 0.7, 0.8, 10.0),
    "hard": Difficulty((2, 5), (0, 3), 0.5, (0.09, 0.17), 0.65, 0.45, 0.9, 1.0, 14.0),
}
"""The rows to choose from by name."""

OVERSAMPLING = 3
"""Outlines are painted this much larger each way, then averaged: that antialiases them."""

FloatImage = npt.NDArray[np.float32]
Rng = np.random.Generator
Color = tuple[float, float, float]
"""Red, green, blue in 0..1."""


def draw_scene(
    seed: int, split: Split, index: int, size: ImageSize = SCENE_SIZE, difficulty: str = "standard"
) -> Sample:
    """The scene of that number. ``index`` is 0 or more; there is no last one. ``difficulty`` names a row."""
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence((seed, SPLITS.index(split), index))))
    return _Painter(rng, size, lookup("difficulty", difficulty, DIFFICULTIES)).scene()


@dataclass(frozen=True)
class _Placed:
    kind: int
    x: float
    y: float
    radius: float


class _Painter:
    """Paints one scene, back to front, on a float canvas of 0..1."""

    def __init__(self, rng: Rng, size: ImageSize, difficulty: Difficulty) -> None:
        self.rng = rng
        self.difficulty = difficulty
        self.height, self.width = size.height, size.width
        self.side = size.shorter
        self.textures = [self._texture() for _ in range(2)]
        self.canvas = self._background()
        self.owner = np.zeros((self.height, self.width), dtype=np.uint8)  # 0 nobody's, else number of the object + 1
        angle = rng.uniform(0, 2 * np.pi)
        self.light = np.cos(angle), np.sin(angle)

    def scene(self) -> Sample:
        rng = self.rng
        placed = self._place()
        for _ in range(int(rng.integers(*self.difficulty.behind, endpoint=True))):
            self._distractor(rng.uniform(0.06, 0.22), over=False)
        areas = [self._object(number, one) for number, one in enumerate(placed)]
        for _ in range(int(rng.integers(*self.difficulty.in_front, endpoint=True))):
            self._distractor(rng.uniform(0.03, 0.09), over=True)
        boxes, kinds, crowd = [], [], []
        mask = np.zeros_like(self.owner)
        for number, (one, area) in enumerate(zip(placed, areas, strict=True)):
            seen = self.owner == number + 1
            count = int(seen.sum())
            if count == 0:
                continue
            hidden = count < LEAST_VISIBLE * area
            mask[seen] = IGNORED if hidden else one.kind + 1
            rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            kinds.append(one.kind)
            crowd.append(hidden)
        return Sample(
            self._photograph(),
            placed[-1].kind,
            np.array(boxes, dtype=np.float32).reshape(-1, 4),
            np.array(kinds, dtype=np.int64),
            np.array(crowd, dtype=np.bool_),
            mask,
        )

    # ---- what is where -----------------------------------------------------------------------------------

    def _place(self) -> list[_Placed]:
        """The main object, which comes last and so in front, and others around it."""
        rng = self.rng
        main = _Placed(
            int(rng.integers(len(KINDS))),
            self.width / 2 + self.side * rng.uniform(-0.13, 0.13),
            self.height / 2 + self.side * rng.uniform(-0.13, 0.13),
            self.side * rng.uniform(0.22, 0.36),
        )
        others: list[_Placed] = []
        for _ in range(int(rng.integers(0, 5))):
            for _attempt in range(4):
                one = _Placed(
                    int(rng.integers(len(KINDS))),
                    rng.uniform(0.06, 0.94) * self.width,
                    rng.uniform(0.06, 0.94) * self.height,
                    self.side * rng.uniform(*self.difficulty.small),
                )
                if all(
                    np.hypot(one.x - two.x, one.y - two.y) > share * (one.radius + two.radius)
                    for two, share in ((main, 0.75), *((other, 0.85) for other in others))
                ):
                    others.append(one)
                    break
        return [*others, main]

    # ---- painting ----------------------------------------------------------------------------------------

    def _object(self, number: int, one: _Placed) -> int:
        """Paint an object; returns the area in pixels of its silhouette within the picture."""
        rng = self.rng
        kind = KINDS[one.kind]
        drawing = kind.draw(rng)
        turn = np.radians(rng.uniform(-kind.turn, kind.turn))
        stretch = rng.uniform(0.85, 1.18)
        points = self._pose(drawing, turn, stretch, bool(rng.random() < 0.5))
        if rng.random() < self.difficulty.usual:
            low, high = kind.hues[int(rng.integers(len(kind.hues)))]
            hue = rng.uniform(low, high)
        else:
            hue = rng.random()
        paints = self._paints(hue)
        roles = [part.role for part in drawing]
        return self._paint(points, roles, paints, one.x, one.y, one.radius, number + 1, shadow=True)

    def _distractor(self, size: float, *, over: bool) -> None:
        """A blob, bar, ring or triangle of no class; over the objects it hides what is behind it."""
        rng = self.rng
        form = int(rng.integers(4))
        corners = (int(rng.integers(3, 9)), 4, 24, 3)[form]
        angle = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, 2 * np.pi)
        radius = rng.uniform(self.difficulty.smoothness, 1.0, corners) if form == 0 else np.ones(corners)
        shape = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
        shape[:, 1] *= rng.uniform(0.15, 0.4) if form == 1 else rng.uniform(0.6, 1.0)
        points = self._pose([Part("body", shape)], rng.uniform(0, 2 * np.pi), 1.0, False)
        x, y = rng.uniform(0, self.width), rng.uniform(0, self.height)
        owner = 0 if over else None
        self._paint(points, ["body"], self._paints(rng.random()), x, y, self.side * size, owner, shadow=over)

    def _pose(self, drawing: Drawing, turn: float, stretch: float, mirrored: bool) -> list[npt.NDArray[np.float64]]:
        """Turn, stretch and tilt: a rotation, then a homography that keeps the middle in place."""
        rng = self.rng
        cos, sin = np.cos(turn), np.sin(turn)
        matrix = np.array(((cos, sin), (-sin, cos))) * (stretch, 1 / stretch)
        shear = rng.uniform(-0.15, 0.15)
        matrix = matrix @ np.array(((1.0, 0.0), (shear, 1.0)))
        if mirrored:
            matrix = np.array(((-1.0, 0.0), (0.0, 1.0))) @ matrix
        tilt = rng.uniform(-0.22, 0.22, 2)
        posed = []
        for part in drawing:
            points = part.points @ matrix
            posed.append(points / (1 + points @ tilt)[:, None])
        return posed

    def _paint(
        self,
        shapes: Sequence[npt.NDArray[np.float64]],
        roles: Sequence[str],
        paints: dict[str, Color],
        x: float,
        y: float,
        radius: float,
        owner: int | None,
        *,
        shadow: bool,
    ) -> int:
        """Paint polygons around (x, y) with texture and shading; returns the silhouette's pixels."""
        rng = self.rng
        placed = [points * radius + (x, y) for points in shapes]
        every = np.concatenate(placed)
        left, top = np.maximum(np.floor(every.min(axis=0)).astype(int) - 1, 0)
        right = min(int(np.ceil(every[:, 0].max())) + 1, self.width)
        bottom = min(int(np.ceil(every[:, 1].max())) + 1, self.height)
        width, height = int(right - left), int(bottom - top)
        if width <= 0 or height <= 0:
            return 0
        large = (width * OVERSAMPLING, height * OVERSAMPLING)
        color = Image.new("RGB", large, _bytes(paints["body"]))
        cover = Image.new("L", large)
        draw_color, draw_cover = ImageDraw.Draw(color), ImageDraw.Draw(cover)
        for points, role in zip(placed, roles, strict=True):
            outline = ((points - (left, top)) * OVERSAMPLING - 0.5).ravel().tolist()
            draw_color.polygon(outline, fill=_bytes(paints[role]))
            draw_cover.polygon(outline, fill=255)
        cover = cover.reduce(OVERSAMPLING)
        pixels = np.asarray(color.reduce(OVERSAMPLING), dtype=np.float32)
        alpha = np.asarray(cover, dtype=np.float32)
        across = (np.arange(width, dtype=np.float32) - width / 2) / radius
        down = (np.arange(height, dtype=np.float32) - height / 2) / radius
        shade = (across * np.float32(self.light[0]))[None, :] + (down * np.float32(self.light[1]))[:, None]
        shade *= np.float32(rng.uniform(0.0, 0.22))
        texture = self.textures[int(rng.integers(len(self.textures)))]
        strength = rng.uniform(0.0, self.difficulty.texture)
        shade += texture[top:bottom, left:right][::-1, ::-1] * np.float32(strength)
        shade += np.float32(1.0)
        window = self.canvas[top:bottom, left:right]
        if shadow and rng.random() < 0.6:
            self._shadow(cover, left, top, radius)
        alpha /= np.float32(255)
        pixels *= (shade * np.float32(1 / 255))[..., None]
        pixels -= window
        pixels *= alpha[..., None]
        window += pixels
        inside = alpha >= 0.5
        if owner is not None:
            self.owner[top:bottom, left:right][inside] = owner
        return int(inside.sum())

    def _shadow(self, cover: Image.Image, left: int, top: int, radius: float) -> None:
        """Darken what lies on the side away from the light."""
        distance = radius * self.rng.uniform(0.08, 0.2)
        dx, dy = round(-self.light[0] * distance), round(-self.light[1] * distance)
        soft = np.asarray(cover.filter(ImageFilter.BoxBlur(max(1.0, radius * 0.06))), dtype=np.float32)
        y1, x1 = max(top + dy, 0), max(left + dx, 0)
        y2, x2 = min(top + dy + soft.shape[0], self.height), min(left + dx + soft.shape[1], self.width)
        part = soft[y1 - top - dy : y2 - top - dy, x1 - left - dx : x2 - left - dx]
        self.canvas[y1:y2, x1:x2] *= (1 - part * np.float32(self.rng.uniform(0.2, 0.5) / 255))[..., None]

    def _paints(self, hue: float) -> dict[str, Color]:
        rng = self.rng
        saturation, value = rng.uniform(0.35, 1.0), rng.uniform(0.45, 1.0)
        return {
            "body": hsv_to_rgb(hue % 1, saturation, value),
            "second": hsv_to_rgb(
                (hue + rng.uniform(-0.18, 0.18)) % 1,
                saturation * rng.uniform(0.5, 1.0),
                value * rng.uniform(0.55, 0.85),
            ),
            "dark": hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.5), rng.uniform(0.08, 0.3)),
            "light": hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.25), rng.uniform(0.8, 1.0)),
        }

    # ---- background and camera ---------------------------------------------------------------------------

    def _texture(self) -> FloatImage:
        """A pattern of mean 0 within -0.5..0.5, (H, W): clouds, stripes, checks, rings or grain."""
        rng = self.rng
        form = int(rng.integers(5))
        if form in (0, 4):
            cells = int(rng.integers(4, 24)) if form == 0 else int(rng.integers(40, 96))
            small = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
            clouds = np.asarray(small.resize((self.width, self.height), Image.Resampling.BICUBIC))
            return _centered(clouds, np.float32(0.5))
        angle = rng.uniform(0, np.pi)
        frequency = 2 * np.pi * rng.uniform(4, 22) / self.side
        x = np.arange(self.width, dtype=np.float32)
        y = np.arange(self.height, dtype=np.float32)[:, None]
        along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
        if form == 1:
            return _waves(along, frequency)
        if form == 2:
            over = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
            checks = (
                (along * np.float32(frequency / np.pi)).astype(np.int32)
                + (over * np.float32(frequency / np.pi)).astype(np.int32)
            ) & 1
            return _centered(checks.astype(np.float32), np.float32(0.5))
        center = rng.uniform(0, 1, 2) * (self.width, self.height)
        distance = np.hypot(x - np.float32(center[0]), y - np.float32(center[1]))
        return _waves(distance, frequency)

    def _background(self) -> FloatImage:
        """Two colors in a gradient, under a texture."""
        rng = self.rng
        one, two = (hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.7), rng.uniform(0.15, 0.95)) for _ in range(2))
        angle = rng.uniform(0, 2 * np.pi)
        x = np.linspace(-0.5, 0.5, self.width, dtype=np.float32)
        y = np.linspace(-0.5, 0.5, self.height, dtype=np.float32)[:, None]
        blend = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) + np.float32(0.5)
        blend = blend + self.textures[0] * np.float32(rng.uniform(0.1, self.difficulty.backdrop))
        grain = self.textures[1] * np.float32(rng.uniform(0.0, 0.35)) + np.float32(1)
        blend *= grain
        canvas = np.empty((self.height, self.width, 3), dtype=np.float32)
        for channel in range(3):
            canvas[..., channel] = grain * np.float32(one[channel])
            canvas[..., channel] += blend * np.float32(two[channel] - one[channel])
        return canvas

    def _photograph(self) -> npt.NDArray[np.uint8]:
        """What a camera does: light across the picture, color of the light, exposure, blur, noise, JPEG."""
        rng = self.rng
        canvas = self.canvas
        slope = rng.uniform(-0.35, 0.35, 2)
        x = np.linspace(-1, 1, self.width, dtype=np.float32) * np.float32(slope[0])
        y = np.linspace(-1, 1, self.height, dtype=np.float32)[:, None] * np.float32(slope[1])
        tint = (rng.uniform(0.85, 1.1, 3) * rng.uniform(0.65, 1.15) * 255).astype(np.float32)
        light = x + y + np.float32(1)
        for channel in range(3):
            canvas[..., channel] *= light * tint[channel]
        if rng.random() < 0.5:
            image = Image.fromarray(_to_bytes(canvas)).filter(
                ImageFilter.BoxBlur(rng.uniform(0.2, self.difficulty.blur) * self.side / 256)
            )
            canvas = np.asarray(image, dtype=np.float32)
        sigma = rng.uniform(0.0, self.difficulty.noise)
        noise = rng.standard_normal((self.height, self.width, 3), dtype=np.float32)
        noise *= np.float32(sigma)
        noise += canvas
        pixels = _to_bytes(noise)
        if rng.random() < 0.5:
            stored = io.BytesIO()
            Image.fromarray(pixels).save(stored, "JPEG", quality=int(rng.integers(30, 95)))
            pixels = np.asarray(Image.open(stored))
        return pixels


def _centered(values: FloatImage, middle: np.float32) -> FloatImage:
    centered: FloatImage = values - middle
    return centered


def _waves(distance: FloatImage, frequency: float) -> FloatImage:
    waves: FloatImage = np.sin(distance * np.float32(frequency)) * np.float32(0.5)
    return waves


def _to_bytes(values: FloatImage) -> npt.NDArray[np.uint8]:
    """Clip in place and truncate."""
    np.maximum(values, np.float32(0), out=values)
    np.minimum(values, np.float32(255), out=values)
    return values.astype(np.uint8)


def _bytes(color: Color) -> tuple[int, int, int]:
    red, green, blue = (int(channel * 255) for channel in color)
    return red, green, blue
