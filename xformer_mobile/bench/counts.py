"""Deterministic gates: what can be counted in a bundle and is the same each time, held to limits or to a baseline.

The counts come from the manifest, from the bundle's report, and, where the packages are there, from the models
themselves. What can't be counted here is left out; a limit on what is left out is an error and passes nothing.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xformer_mobile.artifact import REPORT, Bundle
from xformer_mobile.documents import refuse_constant
from xformer_mobile.errors import BenchmarkError, BundleError, MissingDependencyError
from xformer_mobile.optional import require

__all__ = ["COUNTS", "Counts", "Excess", "baseline_bytes", "count_bundle", "exceeded", "read_baseline"]

COUNTS = {
    "macs": "multiply-accumulates of the artifact's graph",
    "ops": "operators in the graph",
    "transposes": "operators that only move data into another order",
    "partitions": "parts that a delegate takes; one is best",
    "qdq-pairs": "pairs of quantize and dequantize",
    "weights-bytes": "constants",
    "bytes-moved": "what all operators read and write, without fusion",
    "artifact-bytes": "the file, or the files of the package",
}
"""Each count and what it counts."""

Counts = dict[str, dict[str, int]]
"""By format, by count."""

BASELINE_KIND = "xformer-mobile counts"

MAX_BASELINE_BYTES = 2**20

TRANSPOSES = frozenset({"Transpose", "TRANSPOSE", "transpose", "aten.permute_copy"})

QUANTIZE = frozenset({"QuantizeLinear", "QUANTIZE", "quantize"})
DEQUANTIZE = frozenset({"DequantizeLinear", "DEQUANTIZE", "dequantize"})


@dataclass(frozen=True)
class Excess:
    """A count that is above its limit, or that is missing (``found`` None)."""

    format: str
    count: str
    found: int | None
    limit: int

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.format}: {self.count} can't be counted here, and {self.limit} is its limit"
        return f"{self.format}: {self.count} is {self.found}, {self.limit} is allowed"


def count_bundle(bundle: Bundle) -> Counts:
    """Everything that can be counted, for each of the bundle's artifacts.

    Raises:
        BundleError: the report or an artifact is missing or not the manifest's.
    """
    graphs = _report(bundle)
    found: Counts = {}
    for format in bundle.formats:
        artifact = bundle.artifact(format)
        counts = {"artifact-bytes": artifact.size_bytes, **_from_report(graphs.get(format, {}))}
        if format in READERS:
            with contextlib.suppress(MissingDependencyError):  # a limit on these will say so
                counts |= READERS[format](artifact.path)
        found[format] = {name: counts[name] for name in COUNTS if name in counts}
    return found


def exceeded(counts: Counts, limits: Mapping[str, int], baseline: Counts | None = None) -> list[Excess]:
    """Which counts are above a limit of all formats, or above the baseline's for their format.

    A count that the baseline has and the bundle lacks is exceeded too, unless the whole format is missing.
    """
    found = [
        Excess(format, name, having.get(name), limit)
        for format, having in counts.items()
        for name, limit in limits.items()
        if having.get(name, math.inf) > limit and (name in having or not _applies_elsewhere(name, counts))
    ]
    for format, allowed in (baseline or {}).items():
        having = counts.get(format)
        if having is None:
            continue
        found += [
            Excess(format, name, having.get(name), limit)
            for name, limit in allowed.items()
            if having.get(name, math.inf) > limit and name not in limits
        ]
    return found


def _applies_elsewhere(name: str, counts: Counts) -> bool:
    """Whether some format of the bundle has this count; then the others need not (ONNX has no delegate)."""
    return any(name in having for having in counts.values())


def baseline_bytes(counts: Counts) -> bytes:
    """The baseline file: small, sorted, one form for one content."""
    document = {"kind": BASELINE_KIND, "schema_version": "1.0", "formats": counts}
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def read_baseline(path: Path) -> Counts:
    """Read a baseline file; counts that this version does not know are left out.

    Raises:
        BenchmarkError: it can't be read, or is no baseline.
    """
    try:
        if path.stat().st_size > MAX_BASELINE_BYTES:
            raise BenchmarkError(f"{path} has more than {MAX_BASELINE_BYTES} bytes; a baseline is smaller")
        document = json.loads(path.read_bytes(), parse_constant=refuse_constant)
    except OSError as error:
        raise BenchmarkError(f"can't read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != BASELINE_KIND:
        raise BenchmarkError(f"{path} is not a baseline: xformer-bench counts BUNDLE --write-baseline makes one")
    version, formats = document.get("schema_version"), document.get("formats")
    if not isinstance(version, str) or version.split(".")[0] != "1":
        raise BenchmarkError(f"{path} has schema version {version!r}; this version reads 1.x: upgrade xformer-mobile")
    if not isinstance(formats, dict) or not all(isinstance(counts, dict) for counts in formats.values()):
        raise BenchmarkError(f"{path} is not a baseline: it has no counts by format")
    for counts in formats.values():
        for name, value in counts.items():
            if type(value) is not int or value < 0:
                raise BenchmarkError(f"{path} is not a baseline: {name[:40]} is no count")
    return {format: {name: counts[name] for name in COUNTS if name in counts} for format, counts in formats.items()}


# ---- where the counts come from -----------------------------------------------------------------------------


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
    ops: Counter[str] = Counter()
    for key in ("ops", "delegated", "not_delegated"):
        ops.update(graph.get(key, {}))
    found = _from_ops(ops)
    for name, keys in {
        "transposes": ("transposes",),
        "partitions": ("xnnpack_partitions", "partitions"),
        "weights-bytes": ("weights_bytes",),
    }.items():
        for key in keys:
            if isinstance(graph.get(key), int):
                found[name] = graph[key]
    return found


def _from_ops(ops: Mapping[str, int]) -> dict[str, int]:
    if not ops:
        return {}
    quantize, dequantize = (sum(ops.get(name, 0) for name in names) for names in (QUANTIZE, DEQUANTIZE))
    return {
        "ops": sum(ops.values()),
        "transposes": sum(ops.get(name, 0) for name in TRANSPOSES),
        "qdq-pairs": min(quantize, dequantize),
    }


def _count_onnx(path: Path) -> dict[str, int]:
    """The counts of a .onnx file's own graph, whose shapes are static."""
    onnx = require("onnx", extra="onnx")
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    shapes: dict[str, tuple[int, ...]] = {name: tuple(tensor.dims) for name, tensor in constants.items()}
    sizes = {name: _tensor_bytes(onnx, tensor.data_type, tensor.dims) for name, tensor in constants.items()}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        shapes[value.name] = tuple(side.dim_value for side in kind.shape.dim)
        sizes[value.name] = _tensor_bytes(onnx, kind.elem_type, shapes[value.name])
    ops: dict[str, int] = {}
    macs = moved = 0
    for node in graph.node:
        ops[node.op_type] = ops.get(node.op_type, 0) + 1
        moved += sum(sizes.get(name, 0) for name in (*node.input, *node.output) if name)
        made = math.prod(shapes.get(node.output[0], ()))
        if node.op_type in ("Conv", "QLinearConv"):
            kernel = shapes[node.input[1 if node.op_type == "Conv" else 3]]
            macs += made * math.prod(kernel[1:])
        elif node.op_type in ("MatMul", "QLinearMatMul"):
            macs += made * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            macs += made * shapes[node.input[0]][0 if transposed else 1]
    weights = sum(sizes[name] for name in constants)
    return {**_from_ops(ops), "macs": macs, "weights-bytes": weights, "bytes-moved": moved}


def _tensor_bytes(onnx: Any, kind: int, shape: Iterable[int]) -> int:
    width: int = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize
    return width * math.prod(shape)


READERS: dict[str, Callable[[Path], dict[str, int]]] = {"onnx": _count_onnx}
"""What reads an artifact itself, by format. The other formats' counts are those of the report."""
