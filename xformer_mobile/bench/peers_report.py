"""A comparison with peers in words, as table cells, and as a picture. All of it comes from the document alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xformer_mobile.bench.report import draw_svg, milliseconds, printable

__all__ = ["HEAD", "cells", "claim", "peers_svg", "rows_by_size"]

HEAD = (
    "model",
    "parameters",
    "MACs",
    "runs",
    "p50",
    "time",
    "interval",
    "peak",
    "peak",
    "running",
    "running",
    "GFLOP/s",
    "of MatMul",
)
"""The columns of :func:`cells`. A name stands twice: first the amount, then the ratio to XFormer's."""

STYLES = (
    ("#1f4e8c", "o", "-"),
    ("#b03a2e", "s", "--"),
    ("#1e7d46", "^", "-."),
    ("#7d3c98", "D", ":"),
    ("#a86400", "v", (0, (5, 1, 1, 1, 1, 1))),
    ("#444444", "P", (0, (1, 1))),
    ("#007c89", "X", (0, (8, 2))),
)
"""Color, marker and dashes of each line: told apart without color too."""

BESIDE = 0.05
"""So far beside each other are the lines' points of one size; sizes are 1 apart."""

PANELS = (("ratio", "time, model / XFormer"), ("peak_ratio", "peak memory of the process, model / XFormer"))


def rows_by_size(document: Mapping[str, Any]) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    """The document's rows, by (height, width)."""
    found: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in document["peers"]["rows"]:
        found.setdefault((row["image_size"][0], row["image_size"][1]), []).append(row)
    return found


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row as text, in the order of HEAD."""
    low, high = row["ratio"]["low"], row["ratio"]["high"]
    return [
        row["title"],
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['macs'] / 1e9:.2f} G",
        str(row["runs"]),
        f"{milliseconds(row['p50_ns'])} ms",
        f"{row['ratio']['median']:.2f}x",
        "unknown" if low is None or high is None else f"{low:.2f}-{high:.2f}",
        _megabytes(row["peak_bytes"]),
        _times(row["peak_ratio"]),
        _megabytes(row["over_loaded_bytes"]),
        _times(row["over_loaded_ratio"]),
        f"{row['gflops']:.0f}",
        f"{row['matmul_share']:.0%}",
    ]


def claim(document: Mapping[str, Any]) -> list[str]:
    """The authors' claim, and beside it what was measured; lines of text."""
    paper = document["peers"]["paper"]
    lines = [f"The authors' claim ({paper['source']}, on their machine): {paper['claim']}."]
    for row in document["peers"]["rows"]:
        if row["name"] == paper["peer"] and row["image_size"] == paper["image_size"]:
            height, width = row["image_size"]
            text = f"Here, at {height}x{width}: {row['title']} takes {row['ratio']['median']:.2f} times as long"
            for key, what in (("peak_ratio", "in all"), ("over_loaded_ratio", "for running")):
                if row[key] is not None:
                    text += f"; XFormer takes {_less(row[key])} memory {what}"
            lines.append(f"{text}.")
    return lines


def _less(ratio: float) -> str:
    """What a ratio peer / XFormer says of XFormer."""
    share = 1 - 1 / ratio if ratio else 0.0
    return f"{share:.0%} less" if share >= 0 else f"{-share:.0%} more"


def _megabytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value / 1e6:,.0f} MB"


def _times(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}x"


def peers_svg(document: Mapping[str, Any]) -> str:
    """Ratios of time and of peak memory by image size, as an SVG element: the same bytes for the same document.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    peers, machine = document["peers"], document["machine"]
    sizes = list(rows_by_size(document))
    lines: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in peers["rows"]:
        if row["name"] not in (peers["base"], "matmul"):
            lines.setdefault(row["name"], {})[sizes.index(tuple(row["image_size"]))] = row

    def draw(figure: Any) -> None:
        threads = f"{peers['threads']} thread{'s' if peers['threads'] > 1 else ''}"
        kind = machine.get("cpu") or machine.get("architecture") or "unknown"
        title = f"XFormer and peers on {peers['engine']}, {threads}: {kind}, {machine['system']}"
        figure.suptitle(printable(title)[:120], fontsize=11)
        for axis, (key, label) in zip(figure.subplots(1, 2), PANELS, strict=True):
            axis.axhline(1, color="black", linewidth=1)
            shown = [0.7, 1.4]
            for index, rows in enumerate(lines.values()):
                color, marker, dashes = STYLES[index % len(STYLES)]
                aside = BESIDE * (index - (len(lines) - 1) / 2)  # or their intervals would hide each other
                known = {place + aside: _ratio(row, key) for place, row in rows.items() if _ratio(row, key)}
                title = printable(next(iter(rows.values()))["title"])
                axis.plot(list(known), list(known.values()), color=color, marker=marker, linestyle=dashes, label=title)
                shown += known.values()
                for place, row in rows.items() if key == "ratio" else ():
                    interval = [row["ratio"]["low"], row["ratio"]["high"]]
                    if None not in interval:
                        axis.plot([place + aside] * 2, interval, color=color, linewidth=1.5)
                        shown += interval
            _claimed(axis, peers["paper"], key, sizes, shown)
            axis.set_yscale("log", base=2)
            ticks = [2.0**power for power in range(-10, 11)]
            axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_ylim(min(shown) / 1.3, max(shown) * 1.3)
            axis.set_xticks(range(len(sizes)), [f"{height}x{width}" for height, width in sizes])
            axis.set_xlim(-0.3, len(sizes) - 0.7)
            axis.set_xlabel("image size")
            axis.set_ylabel(label)
            axis.grid(axis="y", linewidth=0.4, color="#bbbbbb")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)

    return draw_svg((10, 5.5), draw)


def _ratio(row: Mapping[str, Any], key: str) -> float:
    """A row's ratio; 0 where it is not known."""
    value = row[key]["median"] if key == "ratio" else row[key]
    return value or 0.0


def _claimed(axis: Any, paper: Mapping[str, Any], key: str, sizes: list[tuple[int, int]], shown: list[float]) -> None:
    """A star where the authors' claim would be."""
    claimed = paper["latency_ratio"] if key == "ratio" else paper["memory_ratio"]
    if claimed and tuple(paper["image_size"]) in sizes:
        place = sizes.index(tuple(paper["image_size"]))
        style = {"marker": "*", "markersize": 14, "linestyle": "", "markerfacecolor": "white", "color": "black"}
        axis.plot([place], [claimed], label="MobileViT, as XFormer's authors say", **style)
        shown.append(claimed)
