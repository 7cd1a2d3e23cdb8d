"""Counts held to limits and to a baseline, a small JSON file that lives in a repository."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xformer_mobile.documents import refuse_constant, validator
from xformer_mobile.errors import BenchmarkError

__all__ = ["COUNTS", "INSTRUCTIONS", "INSTRUCTIONS_SLACK", "Baseline", "Counts", "Excess", "exceeded", "improved"]

INSTRUCTIONS = "instructions"

COUNTS = {
    "macs": "multiply-accumulates of convolutions, matmuls and fully connected layers",
    "ops": "operators in the graph",
    "transposes": "operators that only move data into another order",
    "partitions": "parts that a delegate takes; one is best",
    "undelegated-ops": "operators that no delegate takes",
    "qdq-pairs": "pairs of quantize and dequantize",
    "weights-bytes": "constants",
    "bytes-moved": "what all operators read and write, without fusion",
    "artifact-bytes": "the file, or the files of the package",
    INSTRUCTIONS: "executed in user space for one inference, by one thread",
}
"""Each count and what it counts."""

Counts = dict[str, dict[str, int]]
"""By format, by count."""

INSTRUCTIONS_SLACK = 0.001
"""By so much, relative to the baseline's, instructions may differ; docs/latency.md has how exactly they repeat."""

KIND = "xformer-mobile counts"
SCHEMA_VERSION = "1.0"

MAX_BASELINE_BYTES = 2**20


@dataclass(frozen=True)
class Excess:
    """A count that is above its limit, or that can't be held to it: missing (``found`` None), or for a ``reason``."""

    format: str
    count: str
    found: int | None
    limit: int
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.format}: {self.count} can't be compared, count anew with --write-baseline: {self.reason}"
        if self.found is None:
            return f"{self.format}: {self.count} can't be counted here, and {self.limit} is its limit"
        if self.found < self.limit:
            return f"{self.format}: {self.count} is {self.found}: nothing is delegated, where {self.limit} is allowed"
        return f"{self.format}: {self.count} is {self.found}, {self.limit} is allowed"


@dataclass(frozen=True)
class Baseline:
    """The counts that a bundle had.

    ``origins`` says by format how instructions were counted, by names such as ``tool``: only what was counted in the
    same way is comparable.
    """

    counts: Counts
    origins: dict[str, dict[str, str]] = field(default_factory=dict)

    def as_bytes(self) -> bytes:
        """The file: small, sorted, one form for one content."""
        document: dict[str, Any] = {"kind": KIND, "schema_version": SCHEMA_VERSION, "formats": self.counts}
        if self.origins:
            document[INSTRUCTIONS] = self.origins
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """Read a file; what this version does not know in it is left out.

        Raises:
            BenchmarkError: it can't be read, is no baseline, or is of a newer major version.
        """
        from jsonschema.exceptions import best_match

        try:
            with path.open("rb") as file:
                content = file.read(MAX_BASELINE_BYTES + 1)
            if len(content) > MAX_BASELINE_BYTES:
                raise BenchmarkError(f"{path} has more than {MAX_BASELINE_BYTES} bytes; a baseline is smaller")
            document = json.loads(content, parse_constant=refuse_constant)
        except OSError as error:
            raise BenchmarkError(f"can't read {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise BenchmarkError(f"{path} is not JSON: {str(error)[:200]}") from error
        if not isinstance(document, dict) or document.get("kind") != KIND:
            raise BenchmarkError(f"{path} is not a baseline: xformer-bench counts BUNDLE --write-baseline makes one")
        version = document.get("schema_version")
        if isinstance(version, str) and version.split(".")[0].isdigit() and version.split(".")[0] != "1":
            raise BenchmarkError(
                f"{path} has schema version {version[:40]}; this version reads 1.x: upgrade xformer-mobile"
            )
        problem = best_match(validator("counts_baseline").iter_errors(document))
        if problem is not None:
            where = "/".join(map(str, problem.absolute_path))[:80] or "its top level"
            raise BenchmarkError(f"{path} is not a baseline: at {where}: {' '.join(problem.message.split())[:200]}")
        counts = {
            format: {name: found[name] for name in COUNTS if name in found}
            for format, found in document["formats"].items()
        }
        return cls(counts, document.get(INSTRUCTIONS, {}))


def exceeded(
    counts: Counts,
    limits: Mapping[str, int],
    by_format: Mapping[str, Mapping[str, int]] | None = None,
    baseline: Baseline | None = None,
    origins: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Excess]:
    """Which counts are above their limit, or can't be held to it.

    A limit of a format (``by_format``) replaces one of all formats (``limits``), and both replace the baseline's. A
    limit of all formats is for those that have the count; where none has, every format misses it. A count that the
    baseline has and the bundle lacks is exceeded too, unless the whole format is missing. ``origins`` says how
    instructions were counted now.

    No partition at all is more than one: then nothing is delegated, and a limit that is not 0 is missed.
    """
    own = by_format or {}
    found = []
    for format, having in counts.items():
        limited = {**limits, **own.get(format, {})}
        for name, limit in limited.items():
            everywhere = name in limits and name not in own.get(format, {})
            if name not in having and everywhere and any(name in others for others in counts.values()):
                continue
            if _is_above(name, having.get(name), limit):
                found.append(Excess(format, name, having.get(name), limit))
        if baseline is None:
            continue
        for name, before in baseline.counts.get(format, {}).items():
            if name in limited:
                continue
            reason = "" if name != INSTRUCTIONS else _why_not(baseline.origins.get(format), (origins or {}).get(format))
            slack = INSTRUCTIONS_SLACK if name == INSTRUCTIONS else 0
            limit = before + math.floor(before * slack)
            if reason or _is_above(name, having.get(name), limit):
                found.append(Excess(format, name, having.get(name), limit, reason))
    return found


def improved(
    counts: Counts, baseline: Baseline, origins: Mapping[str, Mapping[str, str]] | None = None
) -> Iterator[tuple[str, str, int, int]]:
    """Format, count, now and before, where the bundle is below the baseline, which could be lowered."""
    for format, having in counts.items():
        for name, before in baseline.counts.get(format, {}).items():
            if name not in having or _is_above(name, having[name], before):
                continue
            if name == INSTRUCTIONS:
                comparable = not _why_not(baseline.origins.get(format), (origins or {}).get(format))
                if not comparable or having[name] >= before * (1 - INSTRUCTIONS_SLACK):
                    continue
            if having[name] < before:
                yield format, name, having[name], before


def _is_above(name: str, found: int | None, limit: int) -> bool:
    return found is None or found > limit or (name == "partitions" and found == 0 < limit)


def _why_not(before: Mapping[str, str] | None, now: Mapping[str, str] | None) -> str:
    """Why instructions that were counted so are not comparable; empty where they are."""
    if now is None:
        return ""  # it was not counted, which is another miss
    if before is None:
        return "the baseline does not say how it was counted"
    return "; ".join(_differences(before, now))


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterable[str]:
    for name, value in now.items():
        if before.get(name) != value:
            yield f"the baseline's {name} is {str(before.get(name, 'unknown'))[:60]}, this one's is {value[:60]}"
