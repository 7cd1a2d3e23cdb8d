"""LatencyRuns as pictures and as one HTML file that needs nothing else."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xformer_mobile.bench.latency_run import LatencyRun, Measurement, noise_of
from xformer_mobile.optional import require

__all__ = ["distribution_svg", "draw_svg", "figures", "histogram", "html_page", "milliseconds", "printable"]

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#ccc, #555); --noisy: light-dark(#a00, #f77); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1, h2, h3, p, li { overflow-wrap: anywhere; }
div { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
.noisy { color: var(--noisy); font-weight: bold; }
svg { background: white; height: auto; max-width: 100%; }
"""

BINS = 60

LEVELS = " .:-=+*#%@"

WIDTH = 24
"""Of a histogram in characters."""


def milliseconds(value_ns: float) -> str:
    """A time as it is shown: three significant digits or more."""
    value = value_ns / 1e6
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def figures(measurement: Measurement) -> dict[str, dict[str, Any]]:
    """Each phase's statistics as a JSON object."""
    return {
        phase: {
            "count": found.count,
            "min_ns": found.min_ns,
            "p50_ns": round(found.p50_ns),
            "p90_ns": round(found.p90_ns),
            "p99_ns": round(found.p99_ns),
            "spread": found.spread,
        }
        for phase, found in measurement.statistics().items()
    }


def histogram(samples_ns: Sequence[int]) -> str:
    """The samples from the smallest to p99 in one line of ASCII; empty where there are too few."""
    ordered = sorted(samples_ns)
    low, high = ordered[0], ordered[int(0.99 * (len(ordered) - 1))]
    if len(ordered) < WIDTH or high == low:
        return ""
    counts = [0] * WIDTH
    for value in ordered:
        counts[min(WIDTH - 1, (value - low) * WIDTH // (high - low))] += 1
    return "".join(LEVELS[math.ceil(count * (len(LEVELS) - 1) / max(counts))] for count in counts).rstrip()


def distribution_svg(files: Mapping[str, LatencyRun]) -> str:
    """Histograms of the inference times, one below the other, as an SVG element: the same bytes for the same files.

    Machines have axes of their own: their times are not comparable.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    rows = [(name, run, entry) for name, run in files.items() for entry in run.measurements]

    def draw(figure: Any) -> None:
        axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for axis, (name, run, entry) in zip(axes, rows, strict=True):
            samples = [value / 1e6 for value in entry.samples_ns("inference")]
            axis.hist(samples, bins=BINS, color="#4878a8")
            found = entry.statistics()["inference"]
            for label, value in (("p50", found.p50_ns), ("p90", found.p90_ns), ("p99", found.p99_ns)):
                axis.axvline(value / 1e6, color="#a04040", linewidth=1)
                axis.annotate(label, (value / 1e6, 1), xycoords=("data", "axes fraction"), fontsize=8, va="bottom")
            axis.set_title(printable(f"{name}: {entry.name} ({run.machine_name})")[:160], fontsize=9, pad=14)
            axis.set_ylabel("runs")
        axes[-1].set_xlabel("inference, ms")

    return draw_svg((9, 1 + 1.9 * len(rows)), draw)


def draw_svg(inches: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """What ``draw`` does to an empty matplotlib figure of that width and height, as an SVG element.

    The same bytes for the same drawing; text stays text.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    require("matplotlib", extra="report")
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "xformer-mobile", "svg.fonttype": "none", "text.parse_math": False}):
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        made = io.StringIO()
        figure.savefig(made, format="svg", metadata={"Date": None, "Creator": None})
    text = made.getvalue()
    return text[text.index("<svg") :]


def html_page(files: Mapping[str, LatencyRun]) -> str:
    """A page with every table and the distributions, in one file.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width"><title>Latency</title>',
        f"<style>{STYLE}</style></head><body>",
        "<h1>Latency</h1>",
    ]
    if len({run.machine["id"] for run in files.values()}) > 1:
        parts.append("<p class=noisy>Different machines: their times are not comparable.</p>")
    for name, run in files.items():
        tools = ", ".join(f"{tool} {version}" for tool, version in run.document["tools"].items())
        parts.append(f"<h2>{_escape(name)}</h2>")
        parts.append(f"<p>{_escape(run.machine_name)}; {_escape(run.document['created'])}; {_escape(tools)}</p>")
        parts.append(_html_overview(run.measurements))
        parts += [_html_measurement(entry) for entry in run.measurements]
    parts += ["<h2>Distributions</h2>", distribution_svg(files), "</body></html>", ""]
    return "\n".join(parts)


def _html_overview(entries: Sequence[Measurement]) -> str:
    """One line a measurement: how long inference takes, the file's size, the memory beyond the loaded model."""
    rows = []
    for entry in entries:
        found, peak = entry.statistics()["inference"], entry.peak_over_loaded_bytes
        cells = [milliseconds(value) for value in (found.min_ns, found.p50_ns, found.p90_ns, found.p99_ns)]
        cells += [f"{entry.document['artifact']['size_bytes'] / 1e6:.1f}", "" if peak is None else f"{peak / 1e6:.1f}"]
        rows.append((entry.name, *cells, "too noisy to tell" if noise_of(entry) else ""))
    names = (
        "inference",
        "min, ms",
        "p50, ms",
        "p90, ms",
        "p99, ms",
        "size, MB",
        "memory over the loaded model, MB",
        "",
    )
    return _html_table(names, rows)


def _html_measurement(entry: Measurement) -> str:
    """Every phase, and why it is noisy where it is."""
    rows = [
        (
            phase,
            found.count,
            *map(milliseconds, (found.min_ns, found.p50_ns, found.p90_ns, found.p99_ns)),
            f"{found.spread:.0%}",
        )
        for phase, found in entry.statistics().items()
    ]
    reasons = "".join(f"<li>{_escape(reason)}</li>" for reason in noise_of(entry))
    noisy = f"<p class=noisy>Too noisy to tell:</p><ul class=noisy>{reasons}</ul>" if reasons else ""
    names = ("phase", "samples", "min, ms", "p50, ms", "p90, ms", "p99, ms", "spread")
    return f"<h3>{_escape(entry.name)}</h3>{_html_table(names, rows)}{noisy}"


def _html_table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{_escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div><table><tr>{head}</tr>{body}</table></div>"


def _escape(text: object) -> str:
    return html.escape(printable(str(text)))


def printable(text: str) -> str:
    """Without control characters and halves of surrogate pairs, which neither SVG nor UTF-8 can hold."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
