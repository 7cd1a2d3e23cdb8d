"""The kinds of object that scenes are made of: flat drawings around a unit square, each with its own freedom.

A drawing is a list of parts, painted in order; a part is a polygon in about -1..1 (x to the right, y down) and the
role of its paint. Each call draws another individual: the number of petals, the height of a roof, and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["KINDS", "LABELS", "Drawing", "Kind", "Part"]

Points = npt.NDArray[np.float64]
"""Vertices of a polygon, (n, 2), in about -1..1."""


@dataclass(frozen=True)
class Part:
    """A polygon and the role of its paint: ``body``, ``second``, ``dark`` or ``light``."""

    role: str
    points: Points


Drawing = list[Part]


@dataclass(frozen=True)
class Kind:
    """A row of the table: a name, how to draw one, the hues it is often seen in, and how far it may turn.

    ``hues`` are (lowest, highest) pairs on the circle 0..1; ``turn`` is the largest rotation in degrees.
    """

    name: str
    draw: Callable[[np.random.Generator], Drawing]
    hues: tuple[tuple[float, float], ...]
    turn: float = 35.0


def _polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=np.float64)


def _rectangle(x1: float, y1: float, x2: float, y2: float) -> Points:
    return _polygon((x1, y1), (x2, y1), (x2, y2), (x1, y2))


def _arc(x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 1.0, count: int = 28) -> Points:
    """Points on an ellipse from ``start`` to ``stop``, in turns from the right, clockwise on the screen."""
    angle = np.linspace(start, stop, count, endpoint=stop - start < 1) * 2 * np.pi
    return np.stack((x + rx * np.cos(angle), y + ry * np.sin(angle)), axis=1)


def _band(points: Points, width: float) -> Points:
    """The polygon of a line of that width along open ``points``."""
    step = np.gradient(points, axis=0)
    normal = np.stack((-step[:, 1], step[:, 0]), axis=1) / np.linalg.norm(step, axis=1, keepdims=True)
    return np.concatenate((points + normal * width / 2, (points - normal * width / 2)[::-1]))


def _ring(x: float, y: float, radius: float, width: float) -> Points:
    """A ring as one polygon, cut open where it begins."""
    return _band(_arc(x, y, radius, radius, 0.0, 0.9999), width)


def _star(rng: np.random.Generator) -> Drawing:
    inner = rng.uniform(0.38, 0.52)
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.0, inner)
    outline = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
    parts = [Part("body", outline)]
    if rng.random() < 0.5:
        parts.append(Part("second", outline * rng.uniform(0.45, 0.65)))
    return parts


def _heart(rng: np.random.Generator) -> Drawing:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 15
    outline = np.stack((x, y * rng.uniform(0.85, 1.05)), axis=1)
    parts = [Part("body", outline)]
    if rng.random() < 0.5:
        parts.append(Part("light", _arc(-0.45, -0.4, 0.2, 0.14)))
    return parts


def _moon(rng: np.random.Generator) -> Drawing:
    bite = rng.uniform(0.3, 0.5)
    outer = _arc(0, 0, 1, 1, 0.18, 0.82)
    tip = outer[-1]
    inner = np.stack((np.linspace(tip[0], outer[0][0], 16), np.linspace(tip[1], outer[0][1], 16)), axis=1)
    inner[:, 0] -= np.sin(np.linspace(0, np.pi, 16)) * (0.55 + tip[0] - 0.43 + bite * 0.4)
    return [Part("body", np.concatenate((outer, inner[1:-1])) + np.array((0.25, 0.0)))]


def _tree(rng: np.random.Generator) -> Drawing:
    tiers = int(rng.integers(2, 4))
    parts = [Part("dark", _rectangle(-0.14, 0.5, 0.14, 1.0))]
    top, height = -1.0, 1.75 / tiers
    for tier in range(tiers - 1, -1, -1):
        y = top + tier * height * 0.85
        width = 0.5 + 0.3 * tier / max(tiers - 1, 1)
        role = "body" if tier % 2 == 0 else "second"
        parts.append(Part(role, _polygon((0, y), (width, y + height * 1.1), (-width, y + height * 1.1))))
    return parts


def _house(rng: np.random.Generator) -> Drawing:
    eaves = rng.uniform(-0.35, -0.1)
    door = rng.uniform(-0.5, 0.1)
    parts = [
        Part("body", _rectangle(-0.8, eaves, 0.8, 1.0)),
        Part("second", _polygon((-1.0, eaves + 0.05), (0, -1.0), (1.0, eaves + 0.05))),
        Part("dark", _rectangle(door, 0.35, door + 0.4, 1.0)),
        Part("light", _rectangle(0.3, 0.1, 0.65, 0.45) if door < 0 else _rectangle(-0.6, 0.1, -0.2, 0.45)),
    ]
    if rng.random() < 0.4:
        parts.insert(0, Part("dark", _rectangle(0.4, -0.95, 0.62, -0.2)))
    return parts


def _fish(rng: np.random.Generator) -> Drawing:
    fat = rng.uniform(0.42, 0.6)
    return [
        Part("second", _polygon((0.4, 0), (1.0, -0.55), (0.85, 0), (1.0, 0.55))),
        Part("second", _polygon((-0.3, -fat * 0.8), (0.2, -fat - 0.3), (0.35, -fat * 0.5))),
        Part("body", _arc(-0.2, 0, 0.8, fat)),
        Part("light", _arc(-0.62, -0.12, 0.13, 0.13)),
        Part("dark", _arc(-0.64, -0.12, 0.07, 0.07)),
        Part("second", _band(_arc(-0.55, 0, 0.35, fat * 0.8, -0.16, 0.16, 10), 0.08)),
    ]


def _mushroom(rng: np.random.Generator) -> Drawing:
    stem = rng.uniform(0.2, 0.34)
    cap = _arc(0, 0.1, 1.0, rng.uniform(0.9, 1.1), 0.5, 1.0 - 1e-9)
    parts = [
        Part("light", _polygon((-stem, 0), (stem, 0), (stem * 1.3, 1.0), (-stem * 1.3, 1.0))),
        Part("body", cap),
    ]
    spots = [(-0.45, -0.25), (0.15, -0.6), (0.55, -0.15), (-0.05, -0.15)]
    parts += [Part("light", _arc(x, y, 0.15, 0.13, count=14)) for x, y in spots[: int(rng.integers(2, 5))]]
    return parts


def _key(rng: np.random.Generator) -> Drawing:
    teeth = int(rng.integers(2, 4))
    parts = [Part("body", _ring(-0.55, 0, 0.33, 0.24)), Part("body", _rectangle(-0.2, -0.12, 1.0, 0.12))]
    for tooth in range(teeth):
        x = 0.95 - 0.28 * tooth
        parts.append(Part("body", _rectangle(x - 0.16, 0.0, x, rng.uniform(0.32, 0.48))))
    return parts


def _umbrella(rng: np.random.Generator) -> Drawing:
    side = rng.choice((-1.0, 1.0))
    hook = np.concatenate((_polygon((0, -0.1), (0, 0.7)), _arc(0.2 * side, 0.72, 0.2 * side, 0.2, 0.5, 0.05, 8)))
    parts = [Part("dark", _band(hook, 0.13))]
    panels = 4
    dome = _arc(0, 0.05, 1.0, 1.0, 0.5, 1.0 - 1e-9)
    scallops = [_arc(1 - (2 * panel + 1) / panels, 0.05, 1 / panels, 0.14, 0.0, -0.4999, 8) for panel in range(panels)]
    parts.append(Part("body", np.concatenate((dome, *scallops))))
    rib = _polygon((0, -0.95), (0.5, 0.0), (0, -0.08)), _polygon((0, -0.95), (-1.0, 0.02), (-0.5, 0.0))
    parts += [Part("second", points) for points in rib]
    return parts


def _mug(rng: np.random.Generator) -> Drawing:
    taper = rng.uniform(0.0, 0.15)
    parts = [
        Part("body", _band(_arc(0.5, 0.1, 0.42, 0.42, -0.25, 0.25, 14), 0.2)),
        Part("body", _polygon((-0.9, -0.75), (0.55, -0.75), (0.55 - taper, 0.9), (-0.9 + taper, 0.9))),
        Part("dark", _arc(-0.175, -0.75, 0.725, 0.2)),
    ]
    if rng.random() < 0.6:
        parts.append(Part("second", _polygon((-0.86, -0.05), (0.5, -0.05), (0.48, 0.35), (-0.84, 0.35))))
    return parts


def _car(rng: np.random.Generator) -> Drawing:
    roof = rng.uniform(-0.65, -0.5)
    parts = [
        Part("body", _polygon((-0.6, -0.05), (-0.35, roof), (0.35, roof), (0.65, -0.05))),
        Part("body", _polygon((-1.0, 0.0), (-0.9, -0.1), (0.9, -0.05), (1.0, 0.1), (1.0, 0.42), (-1.0, 0.42))),
        Part("light", _polygon((-0.45, -0.06), (-0.28, roof + 0.12), (-0.04, roof + 0.12), (-0.04, -0.06))),
        Part("light", _polygon((0.06, -0.06), (0.06, roof + 0.12), (0.29, roof + 0.12), (0.48, -0.06))),
    ]
    for x in (-0.55, 0.55):
        parts += [Part("dark", _arc(x, 0.42, 0.25, 0.25)), Part("light", _arc(x, 0.42, 0.1, 0.1, count=12))]
    return parts


def _boat(rng: np.random.Generator) -> Drawing:
    jib = rng.uniform(-0.75, -0.55)
    return [
        Part("dark", _rectangle(-0.08, -1.0, 0.04, 0.5)),
        Part("light", _polygon((0.08, -0.95), (0.85, 0.3), (0.08, 0.3))),
        Part("second", _polygon((-0.12, -0.7), (-0.12, 0.3), (jib, 0.3))),
        Part("body", _polygon((-1.0, 0.42), (1.0, 0.42), (0.65, 0.95), (-0.7, 0.95))),
    ]


def _flower(rng: np.random.Generator) -> Drawing:
    petals = int(rng.integers(5, 9))
    long = rng.uniform(0.36, 0.44)
    parts = []
    for petal in range(petals):
        angle = 2 * np.pi * petal / petals
        cos, sin = np.cos(angle), np.sin(angle)
        shape = _arc(0.56, 0, long, min(0.95 / petals * 1.6, 0.3), count=16)
        parts.append(Part("body", shape @ np.array(((cos, sin), (-sin, cos)))))
    parts.append(Part("second", _arc(0, 0, 0.3, 0.3, count=18)))
    return parts


def _butterfly(rng: np.random.Generator) -> Drawing:
    wide = rng.uniform(0.42, 0.5)
    parts = []
    for side in (-1.0, 1.0):
        turn = 0.5 * side
        for x, y, rx, ry, role in ((0.52, -0.4, wide, 0.5, "body"), (0.42, 0.5, wide * 0.8, 0.38, "second")):
            cos, sin = np.cos(turn), np.sin(turn)
            wing = _arc(0, 0, rx, ry, count=20) @ np.array(((cos, sin), (-sin, cos)))
            parts.append(Part(role, wing + np.array((x * side, y))))
        parts.append(Part("light", _arc(0.55 * side, -0.42, 0.16, 0.16, count=14)))
    parts.append(Part("dark", _arc(0, 0.05, 0.11, 0.75)))
    return parts


KINDS: tuple[Kind, ...] = (
    Kind("star", _star, ((0.10, 0.17),), 180),
    Kind("heart", _heart, ((0.92, 1.02),)),
    Kind("moon", _moon, ((0.12, 0.18), (0.55, 0.65)), 180),
    Kind("tree", _tree, ((0.25, 0.42),)),
    Kind("house", _house, ((0.02, 0.12), (0.5, 0.62))),
    Kind("fish", _fish, ((0.02, 0.10), (0.5, 0.68)), 60),
    Kind("mushroom", _mushroom, ((0.95, 1.06),)),
    Kind("key", _key, ((0.09, 0.15),), 180),
    Kind("umbrella", _umbrella, ((0.55, 0.9),), 60),
    Kind("mug", _mug, ((0.45, 0.75),)),
    Kind("car", _car, ((0.0, 1.0),)),
    Kind("boat", _boat, ((0.0, 0.1), (0.52, 0.66))),
    Kind("flower", _flower, ((0.75, 0.95),), 180),
    Kind("butterfly", _butterfly, ((0.04, 0.12), (0.55, 0.8)), 90),
)
"""In order of class index; the segmenter's masks have background before them."""

LABELS: tuple[str, ...] = tuple(kind.name for kind in KINDS)
