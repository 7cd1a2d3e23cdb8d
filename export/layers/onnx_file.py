"""The intermediate tensors of a .onnx file, run by ONNX Runtime as the file has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xformer_export.layers.operators import FloatArray, Graph, Operator
from xformer_mobile.errors import BundleError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage

__all__ = ["OnnxLayers"]

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"

Constants = Mapping[str, npt.NDArray[Any]]


class OnnxLayers:
    """The layers of a .onnx file of any precision.

    ONNX Runtime fuses and folds nothing here, so that every tensor of the file is one that is computed: in int8 what
    stands between DequantizeLinear and QuantizeLinear is computed in float32, as the file says. It runs on one thread.

    Raises:
        BundleError: ONNX refuses the file, or it is no model of ours.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """

    def __init__(self, path: Path) -> None:
        onnx = require("onnx", extra="onnx")
        self._path = path
        try:
            self._model = onnx.load(str(path))
        except Exception as error:  # protobuf's own, and what the file system raises
            raise BundleError(f"ONNX refuses {path}: {str(error).splitlines()[0][:200]}") from error
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self._model.graph.initializer}
        self.graph = _read(self._model.graph, constants)
        if len(self.graph.inputs) != 1:
            raise BundleError(f"{path} takes {len(self.graph.inputs)} inputs; a model of ours takes the picture")
        self._zeros = _zeros(self._model.graph, constants)
        self._session: Any = None
        self._opened: tuple[str, ...] = ()

    def values(self, image: ByteImage, names: Collection[str]) -> dict[str, FloatArray]:
        """See :class:`~xformer_export.layers.operators.ArtifactLayers`. A session is opened for each choice of names.

        Raises:
            BundleError: ONNX Runtime refuses the file, or fails in it.
        """
        (picture,) = self.graph.inputs
        asked = tuple(sorted({*names} - {picture}))
        if self._session is None or asked != self._opened:
            self._session, self._opened = self._open(asked), asked
        try:
            results = self._session.run(list(asked), {picture: image}) if asked else []
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise BundleError(f"ONNX Runtime fails in {self._path}: {str(error).splitlines()[0][:200]}") from error
        found = dict(zip(asked, results, strict=True)) | ({picture: image} if picture in names else {})
        return {name: self._as_float(name, values) for name, values in found.items()}

    def _open(self, names: Collection[str]) -> Any:
        """A session that returns those tensors."""
        onnx = require("onnx", extra="onnx")
        ort = require("onnxruntime", extra="onnx")
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = 1
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # see values()
            raise BundleError(f"ONNX Runtime refuses {self._path}: {str(error).splitlines()[0][:200]}") from error

    def _as_float(self, name: str, values: npt.NDArray[Any]) -> FloatArray:
        found = values.astype(np.float32)
        if name in self._zeros:
            found = (found - np.float32(self._zeros[name])) * np.float32(self.graph.steps[name])
        return found


def _read(graph: Any, constants: Constants) -> Graph:
    """The graph of what is computed at run time."""
    running = {value.name for value in graph.input if value.name not in constants}
    inputs = tuple(value.name for value in graph.input if value.name in running)
    operators = []
    steps: dict[str, float] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for node in graph.node:
        read = tuple(dict.fromkeys(name for name in node.input if name in running))
        if not read:
            continue
        made = tuple(name for name in node.output if name)
        running.update(made)
        # The fp16 converter names its casts after what reads them; they belong to what is cast.
        scope = "" if node.op_type == "Cast" else node.name.rpartition("/")[0]
        operators.append(Operator(scope, node.op_type, read, made))
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            step, zero, (lowest, highest) = _grid(node, constants)
            steps[made[0]] = step
            ranges[made[0]] = (lowest - zero) * step, (highest - zero) * step
    outputs = tuple(value.name for value in graph.output)
    return Graph(tuple(operators), inputs, outputs, steps, ranges)


def _zeros(graph: Any, constants: Constants) -> dict[str, int]:
    """The zero point of each tensor that is held in integers."""
    return {
        node.output[0]: _grid(node, constants)[1]
        for node in graph.node
        if node.op_type == QUANTIZE and node.input[0] not in constants
    }


def _grid(node: Any, constants: Constants) -> tuple[float, int, tuple[int, int]]:
    """The step, the zero point, and the lowest and the highest integer of what a node quantizes or dequantizes."""
    zero = constants[node.input[2]] if len(node.input) > 2 else np.zeros((), np.uint8)  # ONNX's default
    limits = np.iinfo(zero.dtype)
    return float(constants[node.input[1]]), int(zero), (limits.min, limits.max)
