"""An artifact as the rules see it: the graph that the counts read, and what only the format's package tells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xformer_mobile.bench.counts.bundle import READERS
from xformer_mobile.bench.counts.graph import Graph, Operator
from xformer_mobile.bench.counts.read_executorch import ForeignDelegateError
from xformer_mobile.bench.counts.read_tflite import count_partitions
from xformer_mobile.chatter import silenced
from xformer_mobile.errors import BundleError, UsageError
from xformer_mobile.optional import import_coremltools, require
from xformer_mobile.runners.mlpackage import read_package

__all__ = ["Subject", "read_subject"]

NO_GRAPH = Graph((), 0)

FLEXIBILITY = {"multiArrayType": "ShapeFlexibility", "imageType": "SizeFlexibility"}
"""Where a Core ML model's description says that an input has more than one shape, by the input's type."""


@dataclass(frozen=True)
class Subject:
    """An artifact.

    ``flexible``: inputs, or values, whose shape is not fixed, by name.
    ``types``: element types of the tensors by identifier, by numpy's names; empty where the format's reader is enough.
    ``left``: ops that XNNPACK leaves when the engine is asked to prepare the graph here, by kind.
    ``foreign``: whether a delegate of an unknown form holds some of the ops.
    ``ranges``: the largest magnitude of tensors, by identifier or by the name of the op that makes them.
    ``paths``: module paths by the same names, where the caller knows them.
    """

    format: str
    graph: Graph
    flexible: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    foreign: bool = False
    ranges: Mapping[str, float] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)

    def modules(self, operators: Iterable[Operator]) -> tuple[str, ...]:
        """The dotted paths of the modules that ops come from, each once; those that are not known are left out."""
        return tuple(dict.fromkeys(path for path in map(self._module, operators) if path))

    def _module(self, operator: Operator) -> str:
        for name in (operator.name, *(identifier for identifier, _ in operator.outputs)):
            if name in self.paths:
                return self.paths[name]
        if self.format in ("onnx", "ort"):  # backbone.stem.0/node_conv2d
            return operator.name.rpartition("/")[0].strip("/").replace("/", ".")
        if self.format == "tflite":  # backbone/stem/0;2
            return operator.name.partition(";")[0].strip("/").replace("/", ".")
        return ""

    def reach(self, operator: Operator) -> tuple[float, bool] | None:
        """The largest magnitude of what an op makes, and whether that is held in 16 bits; None where it is not given.

        The largest of its floating-point outputs, infinity for what is no number.
        """
        found = []
        for place, (identifier, tensor) in enumerate(operator.outputs):
            names = (identifier, operator.name) if place == 0 else (identifier,)
            given = [self.ranges[name] for name in names if name in self.ranges]
            if given and tensor.is_float:
                found.append((math.inf if math.isnan(given[0]) else given[0], tensor.bits == 16))
        return max(found, default=None)


def read_subject(
    path: Path,
    format: str,
    ranges: Mapping[str, float] | None = None,
    paths: Mapping[str, str] | None = None,
) -> Subject:
    """Read an artifact of one of the counts' formats. Nothing is run.

    Raises:
        UsageError: no such format.
        BundleError: the file is not of that format, broken, or of a form that is not known.
        MissingDependencyError: the format's package is not installed.
    """
    if format not in READERS:
        raise UsageError(f"there is no forecast for the format {format!r}; there is for {', '.join(READERS)}")
    given: dict[str, Any] = {"ranges": ranges or {}, "paths": paths or {}}
    try:
        if format == "coreml" and (flexible := _flexible_inputs(path)):
            return Subject(format, NO_GRAPH, flexible, **given)
        graph = READERS[format](path)
        if format == "tflite":
            return Subject(format, graph, **_ask_litert(path), **given)
        return Subject(format, graph, _unknown_sides(graph), **given)
    except ForeignDelegateError as error:
        return Subject(format, error.graph, foreign=True, **given)
    except OSError as error:
        raise BundleError(f"can't read {path}: {error.strerror or error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{path} can't be read for a forecast: {' '.join(str(error).split())[:200]}") from error


def _flexible_inputs(path: Path) -> tuple[str, ...]:
    """The inputs of a Core ML package that take more than one shape."""
    spec, _ = read_package(path, import_coremltools())
    found = []
    for value in spec.description.input:
        kind = value.type.WhichOneof("Type")
        if kind in FLEXIBILITY and getattr(value.type, kind).WhichOneof(FLEXIBILITY[kind]) is not None:
            found.append(value.name)
    return tuple(found)


def _unknown_sides(graph: Graph) -> tuple[str, ...]:
    """The values with a side that is not in the file, which ONNX's reader gives as 0."""
    return tuple(
        dict.fromkeys(
            name
            for operator in graph.operators
            for name, tensor in (*operator.inputs, *operator.outputs)
            if not tensor.is_constant and 0 in tensor.shape
        )
    )


def _ask_litert(path: Path) -> dict[str, Any]:
    """What LiteRT's interpreter says of a model that it has prepared, and not run."""
    litert = require("ai_edge_litert.interpreter", extra="tflite")
    try:
        with silenced():  # it names its delegate
            interpreter = litert.Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
    except RuntimeError as error:
        raise ValueError(f"LiteRT refuses it: {error}") from error
    details = interpreter.get_tensor_details()
    inputs = {detail["index"] for detail in interpreter.get_input_details()}
    return {
        "types": {str(detail["index"]): detail["dtype"].__name__ for detail in details},
        "flexible": tuple(
            detail["name"] for detail in details if detail["index"] in inputs and -1 in detail["shape_signature"]
        ),
        "left": dict(count_partitions(interpreter)[1]),
    }
