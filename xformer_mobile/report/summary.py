"""The verdict as GitHub-flavoured Markdown, for a job's summary page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from xformer_mobile.report.checks import Check, checks_of, counts, summary_line, worst_output
from xformer_mobile.report.figures import bytes_text, count_text, decibels, number, share, tolerance_text
from xformer_mobile.report.markup import printable

__all__ = ["summary_markdown"]

SHOWN = 20
"""Misses of one artifact that are listed; GitHub cuts off a summary of more than a megabyte."""

LONGEST = 500
"""Characters of a listed miss."""

HEAD = (
    "artifact",
    "engine",
    "verdict",
    "size",
    "SNR",
    "of the range",
    "agreement",
    "since export",
    "metadata",
    "layers",
    "second reader",
)

MARKS = {"passed": "✅", "missed": "❌", "error": "❌", "skipped": "⚪"}


def summary_markdown(document: Mapping[str, Any]) -> str:
    """A table of the bundle's artifacts, every miss, and how much the forecast says; ends with an empty line."""
    bundle = document["bundle"]
    verdict = "passed" if document["passed"] else "missed"
    lines = [
        f"### {MARKS[verdict]} {_escaped(bundle['name'])}: {_headline(document)}",
        "",
        f"{_escaped(bundle['variant'])}, {bundle['task']}, {bundle['precision']}, "
        f"{bundle['image_size'][0]}x{bundle['image_size'][1]}; {summary_line(document)}.",
        "",
        _row(HEAD),
        _row(["---"] * len(HEAD)),
        *(_row(_cells(artifact)) for artifact in document["artifacts"]),
        "",
    ]
    misses = [f"- {_escaped(error[:LONGEST])}" for error in document["errors"]]
    for artifact in document["artifacts"]:
        sentences = [*([artifact["error"]] if artifact["error"] else []), *artifact["misses"]]
        misses += [f"- **{artifact['format']}**: {_escaped(sentence[:LONGEST])}" for sentence in sentences[:SHOWN]]
        if len(sentences) > SHOWN:
            misses.append(f"- **{artifact['format']}**: and {len(sentences) - SHOWN} more")
    if misses:
        lines += ["**Misses**", "", *misses, ""]
    bounds = _bounds(document)
    if bounds:
        lines += [f"Needed: {bounds}.", ""]
    severities = Counter(finding["severity"] for artifact in document["artifacts"] for finding in artifact["forecast"])
    if severities:
        counted = ", ".join(f"{count} {name}" for name, count in sorted(severities.items()))
        total = count_text(sum(severities.values()), "finding")
        lines += [f"Forecast by rules, not a measurement: {total} ({counted}).", ""]
    return "\n".join(lines) + "\n"


def _headline(document: Mapping[str, Any]) -> str:
    misses, errors = counts(document)
    parts = [count_text(misses, "miss", "misses")] if misses else []
    parts += [count_text(errors, "error")] if errors else []
    return ", ".join(parts) or "passed"


def _bounds(document: Mapping[str, Any]) -> str:
    """The tolerance, which is the bundle's and so the same for all."""
    compared = [artifact["parity"] for artifact in document["artifacts"] if artifact["parity"] is not None]
    return tolerance_text(compared[0]["tolerance"]) if compared else ""


def _cells(artifact: Mapping[str, Any]) -> list[str]:
    checks = {check.key: check for check in checks_of(artifact)}
    parity, snr, difference = artifact["parity"], "", ""
    if parity is not None:
        _, worst = worst_output(parity["outputs"])
        snr = decibels(worst["snr_db"], equal=worst["max_abs"] == 0)
        largest = [figures["relative_max"] for figures in parity["outputs"].values()]
        difference = number(None if None in largest else max(largest))
    return [
        artifact["format"],
        _escaped(artifact["engine"] or ""),
        f"{MARKS['passed']} passed" if artifact["passed"] else f"{MARKS['missed']} **MISSED**",
        bytes_text(artifact["size_bytes"]),
        snr,
        difference,
        share(parity["agreement"]["share"]) if parity is not None else "",
        *(_mark(checks[key]) for key in ("since_export", "metadata", "layers", "second_reader")),
    ]


def _mark(check: Check) -> str:
    words = {"passed": "passed", "missed": "MISSED", "error": "MISSED", "skipped": "not made"}
    return f"{MARKS[check.status]} {words[check.status]}"


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: CommonMark takes a backslash before any ASCII punctuation."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", printable(text))
