"""The counts of a bundle: of each artifact's own graph, or of the report where a package is missing."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xformer_mobile.artifact import REPORT, Bundle
from xformer_mobile.bench.counts import read_coreml, read_executorch, read_onnx, read_ort, read_tflite
from xformer_mobile.bench.counts.certificate import Certificate, certify
from xformer_mobile.bench.counts.gate import COUNTS, Counts
from xformer_mobile.bench.counts.graph import Graph, count_kinds
from xformer_mobile.errors import BundleError, MissingDependencyError

__all__ = ["READERS", "count_artifact", "count_bundle", "read_certificate"]

READERS: dict[str, Callable[[Path], Graph]] = {
    "onnx": read_onnx.read,
    "ort": read_ort.read,
    "coreml": read_coreml.read,
    "tflite": read_tflite.read,
    "executorch": read_executorch.read,
}
"""What reads an artifact's graph, by format."""


def count_bundle(bundle: Bundle) -> Counts:
    """Everything that can be counted without running a model, for each of the bundle's artifacts.

    Raises:
        BundleError: the report or an artifact is missing, not the manifest's, or of another form.
    """
    reported = _report(bundle)
    found: Counts = {}
    for format in bundle.formats:
        artifact = bundle.artifact(format)
        counts = {"artifact-bytes": artifact.size_bytes, **_from_report(reported.get(format, {}))}
        with contextlib.suppress(MissingDependencyError):  # a limit on what is left out will say so
            counts |= count_artifact(format, artifact.path)
        found[format] = {name: counts[name] for name in COUNTS if name in counts}
    return found


def count_artifact(format: str, path: Path) -> dict[str, int]:
    """The counts of an artifact's graph.

    Of operators that a delegate of an unknown form holds, only how many parts they are is known.

    Raises:
        BundleError: it is not of that format, broken, or of a form that is not known.
        MissingDependencyError: the format's package is not installed.
    """
    try:
        return _read(format, path).counts()
    except read_executorch.ForeignDelegateError as error:
        counts = error.graph.counts()
        return {name: counts[name] for name in ("partitions", "undelegated-ops")}


def read_certificate(format: str, path: Path) -> Certificate:
    """What of an artifact is in int8, read from it.

    Raises:
        BundleError: it is not of that format, broken, or of a form that is not known.
        MissingDependencyError: the format's package is not installed.
    """
    return certify(_read(format, path), format)


def _read(format: str, path: Path) -> Graph:
    try:
        graph = READERS[format](path)
        if not graph.operators:
            raise ValueError("it has no operators")
        return graph
    except read_executorch.ForeignDelegateError:
        raise
    except OSError as error:
        raise BundleError(f"can't read {path}: {error.strerror or error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{path} can't be counted: {' '.join(str(error).split())[:200]}") from error


def _report(bundle: Bundle) -> Mapping[str, Any]:
    entry = bundle.manifest.get("report")
    if entry is None:
        return {}
    path = bundle.path / REPORT if entry["file"] == REPORT else bundle.path / entry["file"]
    try:
        graphs = json.loads(bundle.file(entry["file"], entry["sha256"]).read_bytes())["graphs"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path} is not a report: {error}") from error
    if not isinstance(graphs, dict) or not all(isinstance(graph, dict) for graph in graphs.values()):
        raise BundleError(f"{path} is not a report: it has no graphs")
    return graphs


def _from_report(graph: Mapping[str, Any]) -> dict[str, int]:
    """The counts that the exporter has made."""
    kinds: Counter[str] = Counter()
    for key in ("ops", "delegated", "not_delegated"):
        kinds.update(graph.get(key, {}))
    found = count_kinds(kinds)
    for key in ("xnnpack_partitions", "partitions"):
        if isinstance(graph.get(key), int):
            found["partitions"] = graph[key]
    for key in ("outside_xnnpack", "not_delegated"):
        if isinstance(graph.get(key), dict):
            found["undelegated-ops"] = sum(graph[key].values())
    if isinstance(graph.get("weights_bytes"), int):
        found["weights-bytes"] = graph["weights_bytes"]
    return found
