"""The intermediate tensors of a .tflite file, run by LiteRT with XNNPACK, as the runner does it."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from xformer_export.layers.operators import FloatArray, Graph, Operator, keeps_values
from xformer_mobile.chatter import silenced
from xformer_mobile.errors import BundleError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.litert import check_file

__all__ = ["TFLiteLayers"]

CHANGES_OF_TYPE = ("QUANTIZE", "DEQUANTIZE")
"""What ai-edge-quantizer puts between two ops; it names what they make after what they read."""

INTEGERS = {"INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-32768, 32767)}
"""The least and the largest of the integers that stand for a tensor's values, by TFLite's name of their type."""

NEVER_CALLED = (nn.ModuleList, nn.ModuleDict)
"""Modules that hold others and compute nothing: the converter's names lack them."""


class TFLiteLayers:
    """The layers of a .tflite file of any precision, and of the form of the model that it was made from.

    A tensor that is asked for is made an output of the graph, so that XNNPACK, which keeps no other, returns it.
    LiteRT's plain kernels, which can keep all tensors, are not what a phone runs, and not as exact: in int8 their MEAN
    is off by up to a step. What is computed from constants alone, as float16 weights are, is a constant here. It runs
    on one thread.

    Args:
        path: a .tflite file whose tensors bear the names that :mod:`xformer_export.to_tflite` gives them.
        form: the channels-last form; only its modules' names are read.

    Raises:
        BundleError: LiteRT refuses the file, or it has another form than a model of ours.
        MissingDependencyError: ai-edge-litert is not installed.
    """

    def __init__(self, path: Path, form: nn.Module) -> None:
        self._path = path
        self._interpreter: Any = None
        self._opened: frozenset[str] = frozenset()
        check_file(path)
        _open(path, model_path=str(path))  # which verifies the file, as Python's classes do not
        schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
        try:
            self._model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
            self.graph, self._indices, self._zeros = _read(self._model, schema, _paths_by_key(form))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error) as error:
            raise BundleError(f"{path} has an unknown form: {type(error).__name__}: {error}") from error

    def values(self, image: ByteImage, names: Collection[str]) -> dict[str, FloatArray]:
        """See :class:`~xformer_export.layers.operators.ArtifactLayers`. The layout is NHWC but for the outputs.

        The model is opened for each choice of names.

        Raises:
            BundleError: LiteRT refuses the file, or fails in it.
        """
        (picture,) = self.graph.inputs
        asked = frozenset(names) - {picture}
        if self._interpreter is None or asked != self._opened:
            self._interpreter, self._opened = self._open_for(asked), asked
        try:
            self._interpreter.set_tensor(self._indices[picture], image)
            self._interpreter.invoke()
            found = {name: self._interpreter.get_tensor(self._indices[name]) for name in names}
        except (RuntimeError, ValueError) as error:
            raise BundleError(f"LiteRT fails in {self._path}: {' '.join(str(error).split())[:200]}") from error
        return {name: self._as_float(name, values) for name, values in found.items()}

    def _open_for(self, names: Collection[str]) -> Any:
        """An interpreter of the model with those tensors as its outputs; its own stay."""
        flatbuffer_utils = require("ai_edge_litert.tools.flatbuffer_utils", extra="tflite")
        (graph,) = self._model.subgraphs
        outputs, signatures = graph.outputs, self._model.signatureDefs
        try:
            graph.outputs = list(dict.fromkeys([*map(int, outputs), *sorted(self._indices[name] for name in names)]))
            self._model.signatureDefs = []
            content = bytes(flatbuffer_utils.convert_object_to_bytearray(self._model))
        finally:
            graph.outputs, self._model.signatureDefs = outputs, signatures
        return _open(self._path, model_content=content)

    def _as_float(self, name: str, values: npt.NDArray[Any]) -> FloatArray:
        found = values.astype(np.float32)
        if name in self._zeros:
            found = (found - np.float32(self._zeros[name])) * np.float32(self.graph.steps[name])
        return found


def _open(path: Path, **source: Any) -> Any:
    """LiteRT's interpreter of what ``source`` names, which is the file at ``path`` or made of it."""
    litert = require("ai_edge_litert.interpreter", extra="tflite")
    try:
        with silenced():  # it names its delegate
            interpreter = litert.Interpreter(num_threads=1, **source)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise BundleError(f"LiteRT refuses {path}: {' '.join(str(error).split())[:200]}") from error
    return interpreter


def _read(model: Any, schema: Any, paths: Mapping[str, str]) -> tuple[Graph, dict[str, int], dict[str, int]]:
    """The graph of what is computed at run time, each tensor's index, and the zero point of those held in integers.

    Args:
        model: the flatbuffer as objects.
        schema: the module of its classes.
        paths: of the form's modules, by what the converter calls them.
    """
    (graph,) = model.subgraphs
    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    types = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    running = {int(index) for index in graph.inputs}
    kept = []
    for operator in graph.operators:
        read = [int(index) for index in dict.fromkeys(operator.inputs) if index in running]
        if read:
            made = [int(index) for index in operator.outputs]
            running.update(made)
            kept.append((kinds[model.operatorCodes[operator.opcodeIndex].builtinCode], read, made))

    names = _unique({index: graph.tensors[index].name.decode() for index in sorted(running)})
    steps: dict[str, float] = {}
    ranges: dict[str, tuple[float, float]] = {}
    zeros: dict[str, int] = {}
    for index, name in names.items():
        grid, type_name = graph.tensors[index].quantization, types[graph.tensors[index].type]
        if type_name in INTEGERS and grid is not None and grid.scale is not None and len(grid.scale) == 1:
            step, zero, (lowest, highest) = float(grid.scale[0]), int(grid.zeroPoint[0]), INTEGERS[type_name]
            steps[name], zeros[name] = step, zero
            ranges[name] = (lowest - zero) * step, (highest - zero) * step

    operators: list[Operator] = []
    for kind, read, made in kept:
        inputs, outputs = (tuple(names[index] for index in indices) for indices in (read, made))
        scope = "" if kind in CHANGES_OF_TYPE else _resolve(outputs[0], paths)
        operators.append(Operator(scope, kind, inputs, outputs))
        if kind == "DEQUANTIZE" and inputs[0] in zeros:
            steps[outputs[0]], ranges[outputs[0]] = steps[inputs[0]], ranges[inputs[0]]
        if kind == "QUANTIZE" and inputs[0] in zeros:  # from a grid to another: neither may cut values off
            ranges[outputs[0]] = _common_range(ranges[inputs[0]], ranges[outputs[0]], steps[outputs[0]])
    starts, ends = (tuple(names[int(index)] for index in indices) for indices in (graph.inputs, graph.outputs))
    found = Graph(_adopt(operators), starts, ends, steps, ranges)
    return found, {name: index for index, name in names.items()}, zeros


def _common_range(first: tuple[float, float], second: tuple[float, float], step: float) -> tuple[float, float]:
    """The range of what a tensor can hold that is written from another one: ends are values of the second's grid."""
    low, high = (second[0] + round((end - second[0]) / step) * step for end in first)
    return max(low, second[0]), min(high, second[1])


def _unique(names: Mapping[int, str]) -> dict[int, str]:
    """The names of tensors by index, each followed by ``#`` and the index where several tensors have it."""
    known = list(names.values())
    return {index: name if known.count(name) == 1 else f"{name}#{index}" for index, name in names.items()}


def _paths_by_key(form: nn.Module) -> dict[str, str]:
    """The path of each module that is called, by what the converter calls it: ``backbone/0`` for backbone.stages.0.

    What may be any of several modules is left out.
    """
    found: dict[str, list[str]] = {}
    for path, module in form.named_modules(remove_duplicate=False):
        if not isinstance(module, NEVER_CALLED):
            parts = path.split(".")
            owners = (form.get_submodule(".".join(parts[:length])) for length in range(1, len(parts) + 1))
            called = (part for part, owner in zip(parts, owners, strict=True) if not isinstance(owner, NEVER_CALLED))
            found.setdefault("/".join(called), []).append(path)
    return {key: paths[0] for key, paths in found.items() if len(paths) == 1}


def _resolve(name: str, paths: Mapping[str, str]) -> str:
    """The path of the innermost known module that a tensor's name speaks of; "" if it is none.

    A name lists the places that the converter has fused, the tensor's own first: ``backbone/0/1;;backbone/stem/0;3``.
    """
    key = name.partition(";")[0]
    while key and key not in paths:
        key = key.rpartition("/")[0]
    return paths.get(key, "")


def _adopt(operators: list[Operator]) -> tuple[Operator, ...]:
    """The operators, with those of no module that compute something given to the one module that reads them.

    In int8 the border around the picture is concatenated by ops that the exporter has added to the first convolution.
    """
    found: list[Operator] = []
    for operator in reversed(operators):
        scope = operator.scope
        if scope == "" and not keeps_values(operator.kind):
            readers = {reader.scope for reader in found if set(operator.outputs) & set(reader.inputs)}
            scope = readers.pop() if len(readers) == 1 else ""
        found.append(Operator(scope, operator.kind, operator.inputs, operator.outputs))
    return tuple(reversed(found))
