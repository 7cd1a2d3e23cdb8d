"""The layers' signal-to-noise ratios in run order, as an SVG element that takes the page's colours."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

from xformer_mobile.report.figures import decibels, inherited, is_equal, number
from xformer_mobile.report.markup import append, element

__all__ = ["layer_plot"]

WIDTH, HEIGHT = 960, 310
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 26, 44
"""Of the picture and its margins, in its own units: about a pixel."""

LOWEST_DB, HIGHEST_DB = -20.0, 200.0
"""What is beyond is drawn there. In float32 even equal arithmetic in another order stays below 200 dB."""

MOST_GROUPS = 9
"""Names below the plot: more would not fit."""

LETTER = 6.4
"""About the width of a letter below the plot."""


def layer_plot(layers: Mapping[str, Any]) -> ET.Element:
    """Each row's own and inherited ratio, in dB, with the limit of the own one. Failed rows have a cross.

    A layer without a finite own ratio is at the top where it gives exactly what it should, and at the bottom where not.
    """
    rows, limit = layers["rows"], layers["limits"].get("own_snr_db")
    known = [row[name] for row in rows for name in ("own_snr_db", "snr_db") if row[name] is not None]
    if limit is not None:
        known.append(limit)
    low = max(LOWEST_DB, math.floor(min([0.0, *known]) / 10) * 10)
    high = math.ceil((min(HIGHEST_DB, max([20.0, *known])) + 1) / 10) * 10
    failed = sum(not row["passed"] for row in rows)
    plot = element(
        "svg",
        class_="plot",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"Signal-to-noise ratio of {len(rows)} layers in run order; {failed} fail",
    )

    def x(index: int) -> float:
        return LEFT + (index + 0.5) * (WIDTH - LEFT - RIGHT) / max(1, len(rows))

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return float(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM))

    _axis(plot, low, high, y)
    _groups(plot, [row["path"] for row in rows], x)
    for points in _runs(rows, x, y):
        append(plot, element("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in points), class_="inherited"))
    if limit is not None:
        append(plot, element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(limit), y2=y(limit), class_="limit"))
        text = f"limit {limit:g} dB"
        append(plot, element("text", text, x=WIDTH - RIGHT, y=y(limit) - 5, text_anchor="end", class_="limit-name"))
    for index, row in enumerate(rows):
        own = row["own_snr_db"]
        height = y(own) if own is not None else y(high if is_equal(row) else low)
        append(plot, _point(row, x(index), height, y(low), is_finite=own is not None))
    return plot


def _axis(plot: ET.Element, low: float, high: float, y: Any) -> None:
    step = 10 if high - low <= 60 else 20 if high - low <= 140 else 40
    for value in range(math.ceil(low / step) * step, int(high) + 1, step):
        append(plot, element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        append(plot, element("text", str(value), x=LEFT - 8, y=y(value) + 4, text_anchor="end"))
    append(plot, element("text", "dB", x=LEFT - 8, y=TOP - 12, text_anchor="end"))


def _groups(plot: ET.Element, paths: Sequence[str], x: Any) -> None:
    """The parts of the network below the plot, where there is room for the name, with lines between them."""
    bottom = HEIGHT - BOTTOM
    for start, end, name in _groups_of(paths):
        if start:
            edge = (x(start - 1) + x(start)) / 2
            append(plot, element("line", x1=edge, x2=edge, y1=TOP, y2=bottom + 6, class_="edge"))
        parts = name.split(".")
        shown = ".".join(parts[max((i for i, part in enumerate(parts) if not part.isdigit()), default=0) :])
        if len(shown) * LETTER <= x(end) - x(start):
            middle = (x(start) + x(end - 1)) / 2
            append(plot, element("text", shown, x=middle, y=bottom + 20, text_anchor="middle"))
    append(plot, element("text", "layers in run order", x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end"))


def _groups_of(paths: Sequence[str]) -> list[tuple[int, int, str]]:
    """Start, end and common path of each part: the widest is divided for as long as there are not too many."""
    groups = _runs_of(paths, 0, len(paths), 1)
    while groups:
        widest = max(groups, key=lambda group: group[1] - group[0])
        place, (start, end, name) = groups.index(widest), widest
        finer = _runs_of(paths, start, end, name.count(".") + 2)
        if len(groups) + len(finer) - 1 > MOST_GROUPS or end - start <= 1 or [one[2] for one in finer] == [name]:
            break
        groups[place : place + 1] = finer
    return groups


def _runs_of(paths: Sequence[str], start: int, end: int, depth: int) -> list[tuple[int, int, str]]:
    """Start, end and name of each run of paths that are equal in that many parts."""
    names = [".".join(path.split(".")[:depth]) for path in paths[start:end]]
    starts = [index for index, name in enumerate(names) if not index or name != names[index - 1]]
    ends = [*starts[1:], len(names)]
    return [(start + first, start + last, names[first]) for first, last in zip(starts, ends, strict=True)]


def _runs(rows: Sequence[Mapping[str, Any]], x: Any, y: Any) -> list[list[tuple[float, float]]]:
    """The inherited ratios' points; one that is not finite interrupts the line."""
    found: list[list[tuple[float, float]]] = [[]]
    for index, row in enumerate(rows):
        if row["snr_db"] is None:
            found.append([])
        else:
            found[-1].append((x(index), y(row["snr_db"])))
    return [points for points in found if points]


def _point(row: Mapping[str, Any], x: float, y: float, ground: float, *, is_finite: bool) -> ET.Element:
    """A layer's own ratio: a dot on a stem, a cross where it failed, a ring where the ratio is not finite."""
    own = decibels(row["own_snr_db"], equal=is_equal(row))
    title = (
        f"{row['path']} ({row['kind']}): own SNR {own}, inherited {inherited(row)}, "
        f"gain {number(row['gain'])}, shift {number(row['shift'])}, {'passed' if row['passed'] else 'FAILED'}"
    )
    group = element("g", element("title", title), class_="layer" if row["passed"] else "layer failed")
    append(group, element("line", x1=x, x2=x, y1=ground, y2=y, class_="stem"))
    if row["passed"]:
        append(group, element("circle", cx=x, cy=y, r=3.2, class_="dot" if is_finite else "dot ring"))
    else:
        r = 5
        path = f"M{x - r:.1f} {y - r:.1f}L{x + r:.1f} {y + r:.1f}M{x - r:.1f} {y + r:.1f}L{x + r:.1f} {y - r:.1f}"
        append(group, element("path", d=path, class_="cross"))
    return group
