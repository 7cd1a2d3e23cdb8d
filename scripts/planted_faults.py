"""What ``xformer-verify`` catches: faults planted in written artifacts, and clean exports in which there is nothing.

    python scripts/planted_faults.py                             every fault, format and precision; a table
    python scripts/planted_faults.py --format onnx --precision int8
    python scripts/planted_faults.py --clean 50                  as many exports of drawn weights

Bundles of the smallest variant, of drawn weights, are exported once and kept in --directory. Each fault is planted in
a copy, whose manifest is then repaired, so that nothing but the fault itself is there to be found; the copy is verified
by the command that users have, in a process of its own, without second readers: they read what is there, and agree on
it. A fault counts as caught where that exits with 1, and as rightly blamed where the first layer that differs is the
one it was planted in, or, of a fault that is not in a layer, where a sentence names what is wrong. Exits with 1 unless
every fault is caught and rightly blamed, or if a clean export has a finding.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from xformer_mobile.artifact import FORMATS, MANIFEST, Bundle, manifest_bytes
from xformer_mobile.files import tree_sha256
from xformer_mobile.optional import import_coremltools, require
from xformer_mobile.runners.mlpackage import read_package
from xformer_mobile.spec import IMAGENET_MEAN, IMAGENET_STD, TASKS, ImageSize, ModelConfig

__all__ = ["FAULTS", "Case", "Fault", "Verdict", "command", "judge", "plant"]

COMMAND = "from xformer_mobile import cli; cli.{}_main()"

FACTOR = 1.05
"""By which a weight tensor is scaled."""

WEIGHT = "backbone.stages.1.0.body.3"
"""The convolution whose weights are scaled, and whose result's zero point is off: the last of an inverted residual."""

STRIDED = "backbone.stages.1.0.body.1.0"
"""The depthwise convolution of stride 2 whose padding moves to the other side, as in TensorFlow's ``SAME``."""

LAST = "head.classifier"
"""The segmenter's last layer."""

STEM = "backbone.stem.0"
"""The first convolution. In int8 it takes the picture's bytes: the mean is in its bias."""

IMAGE = "image"
"""What is blamed for what happens to the picture before the first layer."""

MEAN = (255 * np.array(IMAGENET_MEAN)).astype(np.float32)
STD = (255 * np.array(IMAGENET_STD)).astype(np.float32)

Planter = Callable[[Path, "Case"], None]


@dataclass(frozen=True)
class Case:
    """A bundle in which something is planted, and which of its artifacts.

    ``other`` is a bundle of the same architecture, formats and precision, of other weights.
    """

    bundle: Path
    format: str
    precision: str
    other: Path


@dataclass(frozen=True)
class Fault:
    """A row of FAULTS.

    ``planters`` are by format; each changes the artifact in place. ``layers`` are the paths that may be blamed for it
    in float, ``int8_layers`` in int8 (empty: the same). Without any, a miss or an error has to have one of ``says`` in
    it. ``precisions`` None: all. Where ``in_manifest``, the planter changes the manifest, which is left as it makes it.
    """

    name: str
    planters: Mapping[str, Planter]
    layers: tuple[str, ...] = ()
    int8_layers: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    precisions: tuple[str, ...] | None = None
    in_manifest: bool = False

    def expected_layers(self, format: str, precision: str) -> tuple[str, ...]:
        """The layers that may be blamed; none where the fault is not in a layer."""
        return self.int8_layers or self.layers if precision == "int8" else self.layers

    def applies(self, format: str, precision: str) -> bool:
        """Whether it can be planted there."""
        return format in self.planters and (self.precisions is None or precision in self.precisions)


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: whether it was caught, by what, and whether the blame is right."""

    status: int
    caught: bool
    right: bool
    layer: str
    by: str


def plant(fault: Fault, case: Case, target: Path) -> Path:
    """Copy the case's bundle to ``target``, which must not exist, and plant the fault in its artifact.

    The manifest's sha256 and size are made those of the changed artifact, but for a fault of the manifest.
    """
    shutil.copytree(case.bundle, target)
    artifact = target / FORMATS[case.format]
    before = tree_sha256(target)
    fault.planters[case.format](artifact, case)
    if not fault.in_manifest:
        _change_manifest(target, lambda manifest: _repair(manifest, case.format, artifact))
    if tree_sha256(target) == before:
        raise AssertionError(f"{fault.name} changes nothing in {case.format}, {case.precision}")
    return target


def judge(fault: Fault, case: Case, status: int, document: Mapping[str, Any] | None) -> Verdict:
    """Whether what ``xformer-verify --json`` says of a bundle catches the fault that is in it.

    ``document`` is None where it printed none.
    """
    if document is None:
        return Verdict(status, False, False, "", "no document")
    entry = next(entry for entry in document["artifacts"] if entry["format"] == case.format)
    said = [entry["error"]] if entry["error"] else list(entry["misses"])
    layers = entry["layers"]
    looked = layers is not None and layers["looked"]
    layer = (layers["first"] or "none") if looked else "not looked"
    caught = status == 1 and not document["passed"] and bool(said)
    expected = fault.expected_layers(case.format, case.precision)
    fitting = [sentence for sentence in said if any(words in sentence for words in fault.says)]
    right = caught and (layer in expected if expected else bool(fitting))
    return Verdict(status, caught, right, layer, (fitting or said or [""])[0])


# ---- the manifest ----------------------------------------------------------------------------------------------


def _change_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = bundle / MANIFEST
    manifest = json.loads(file.read_bytes())
    change(manifest)
    file.write_bytes(manifest_bytes(manifest))


def _entry(manifest: dict[str, Any], format: str) -> dict[str, Any]:
    entry: dict[str, Any] = next(entry for entry in manifest["artifacts"] if entry["format"] == format)
    return entry


def _repair(manifest: dict[str, Any], format: str, artifact: Path) -> None:
    size = sum(file.stat().st_size for file in _files(artifact))
    _entry(manifest, format).update(sha256=tree_sha256(artifact), size_bytes=size)


def _permuted(labels: Sequence[str]) -> list[str]:
    """Each label one place further."""
    return [*labels[-1:], *labels[:-1]]


def _permute_manifest_labels(artifact: Path, case: Case) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["model"]["labels"] = _permuted(manifest["model"]["labels"])

    _change_manifest(artifact.parent, change)


def _exchange_sha256(artifact: Path, case: Case) -> None:
    def change(manifest: dict[str, Any]) -> None:
        entry = _entry(manifest, case.format)
        entry["sha256"] = entry["sha256"][::-1]

    _change_manifest(artifact.parent, change)


# ---- whole files -------------------------------------------------------------------------------------------------


def _files(artifact: Path) -> list[Path]:
    """The artifact; of a directory, its files."""
    return [file for file in (artifact, *artifact.rglob("*")) if file.is_file()]


def _largest_file(artifact: Path) -> Path:
    """The artifact; of a directory, its largest file."""
    return max(_files(artifact), key=lambda file: file.stat().st_size)


def _cut(artifact: Path, case: Case) -> None:
    file = _largest_file(artifact)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _exchange(artifact: Path, case: Case) -> None:
    """Put the artifact of another checkpoint here."""
    source = case.other / artifact.name
    if source.is_dir():
        shutil.rmtree(artifact)
        shutil.copytree(source, artifact)
    else:
        shutil.copyfile(source, artifact)


# ---- ONNX --------------------------------------------------------------------------------------------------------


class _Onnx:
    """An .onnx file to change: the graph, and constants that one reader has for itself."""

    def __init__(self, model: Any) -> None:
        self.onnx = require("onnx", extra="onnx")
        self.model, self.graph = model, model.graph
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path) -> Iterator[_Onnx]:
        """Read the file; write it when the block ends."""
        onnx = require("onnx", extra="onnx")
        model = onnx.load(str(path))
        yield cls(model)
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))

    def convolution(self, path: str) -> Any:
        return next(node for node in self.graph.node if node.op_type == "Conv" and node.name.startswith(f"{path}/"))

    def readers(self, name: str) -> list[Any]:
        return [node for node in self.graph.node if name in node.input]

    def constant(self, name: str, values: npt.NDArray[Any]) -> str:
        self.graph.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def change_constant(self, node: Any, place: int, change: Callable[[npt.NDArray[Any]], Any]) -> None:
        """Give the node a changed copy of a constant, which no other node reads."""
        values = self.onnx.numpy_helper.to_array(self.constants[node.input[place]])
        changed = np.asarray(change(values)).astype(values.dtype).reshape(values.shape)
        node.input[place] = self.constant(f"{node.input[place]}_planted", changed)

    def insert_behind(self, name: str, made: Sequence[tuple[str, list[str], dict[str, Any]]], scope: str = "") -> None:
        """Put a chain of nodes, (kind, constants, attributes), between a tensor and all that read it."""
        readers = self.readers(name)
        places = [index for index, node in enumerate(self.graph.node) if name in node.output]
        place, last = (places[0] + 1 if places else 0), name
        for number, (kind, constants, attributes) in enumerate(made):
            output = f"{name}_planted{number}"
            node = self.onnx.helper.make_node(kind, [last, *constants], [output], name=f"{scope}{output}", **attributes)
            self.graph.node.insert(place + number, node)
            last = output
        for reader in readers:
            reader.input[:] = [last if source == name else source for source in reader.input]


def _onnx_scale_weight(path: Path, case: Case) -> None:
    with _Onnx.opened(path) as file:
        node = file.convolution(WEIGHT)
        if node.input[1] not in file.constants:  # int8: the scales of its DequantizeLinear
            node = next(maker for maker in file.graph.node if node.input[1] in maker.output)
        file.change_constant(node, 1, lambda values: values * np.float32(FACTOR))


def _onnx_swap_colors(path: Path, case: Case) -> None:
    with _Onnx.opened(path) as file:
        (image,) = file.graph.input
        order = file.constant("planted_order", np.array([2, 1, 0], np.int64))
        file.insert_behind(image.name, [("Gather", [order], {"axis": 3})])


def _onnx_normalize_twice(path: Path, case: Case) -> None:
    with _Onnx.opened(path) as file:
        (image,) = file.graph.input
        first = file.readers(image.name)[0]
        subtract = [node for node in file.graph.node if node.op_type == "Sub" and node.name.startswith("backbone/")]
        if case.precision == "int8":  # there are bytes up to the first convolution
            assert not subtract
            shape = (1, 1, 1, 3)
            mean = file.constant("planted_mean", MEAN.reshape(shape))
            std = file.constant("planted_std", STD.reshape(shape))
            low = file.constant("planted_low", np.float32(0))
            high = file.constant("planted_high", np.float32(255))
            chain: list[tuple[str, list[str], dict[str, Any]]] = [
                ("Cast", [], {"to": file.onnx.TensorProto.FLOAT}),
                ("Sub", [mean], {}),
                ("Div", [std], {}),
                ("Round", [], {}),
                ("Clip", [low, high], {}),
                ("Cast", [], {"to": file.onnx.TensorProto.UINT8}),
            ]
            file.insert_behind(image.name, chain)
        else:
            assert first.op_type == "Transpose"
            shape = (1, 3, 1, 1)
            std = file.constant("planted_std", STD.reshape(shape).astype(_dtype_of(file, subtract[0].input[1])))
            chain = [("Div", [std], {}), ("Sub", [subtract[0].input[1]], {})]
            file.insert_behind(subtract[0].output[0], chain, "backbone/")


def _dtype_of(file: _Onnx, name: str) -> Any:
    return file.onnx.numpy_helper.to_array(file.constants[name]).dtype


def _onnx_move_padding(path: Path, case: Case) -> None:
    with _Onnx.opened(path) as file:
        (pads,) = (entry for entry in file.convolution(STRIDED).attribute if entry.name == "pads")
        assert list(pads.ints) == [1, 1, 1, 1]
        pads.ints[:] = [0, 0, 2, 2]


def _onnx_shift_zero_point(path: Path, case: Case) -> None:
    with _Onnx.opened(path) as file:
        (result,) = file.convolution(WEIGHT).output
        (quantize,) = file.readers(result)
        assert quantize.op_type == "QuantizeLinear"
        file.change_constant(quantize, 2, _next_integer)


def _next_integer(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One more; one less of the largest of the type."""
    return np.where(values < np.iinfo(values.dtype).max, values.astype(np.int64) + 1, values.astype(np.int64) - 1)


def _onnx_transpose_output(path: Path, case: Case) -> None:
    with _Onnx.opened(path) as file:
        (output,) = file.graph.output
        node = next(node for node in file.graph.node if output.name in node.output)
        node.output[:] = [f"{output.name}_planted"]
        file.graph.node.append(
            file.onnx.helper.make_node("Transpose", list(node.output), [output.name], name="planted", perm=[0, 1, 3, 2])
        )


def _onnx_permute_labels(path: Path, case: Case) -> None:
    with _Onnx.opened(path) as file:
        (labels,) = (entry for entry in file.model.metadata_props if entry.key == "labels")
        labels.value = json.dumps(_permuted(json.loads(labels.value)), ensure_ascii=False)


# ---- TFLite ------------------------------------------------------------------------------------------------------


class _TFLite:
    """A .tflite file to change, as the objects of TFLite's schema."""

    def __init__(self, model: Any) -> None:
        self.schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
        self.model = model
        (self.graph,) = model.subgraphs
        self.names = {code: name for name, code in vars(self.schema.BuiltinOperator).items() if isinstance(code, int)}

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path) -> Iterator[_TFLite]:
        """Read the file; write it when the block ends, with the files behind it."""
        from xformer_export.tflite_metadata import Description, attach_files
        from xformer_export.to_tflite import pack

        flatbuffer_utils = require("ai_edge_litert.tools.flatbuffer_utils", extra="tflite")
        file = cls(flatbuffer_utils.read_model_from_bytearray(bytearray(path.read_bytes())))
        with zipfile.ZipFile(path) as archive:
            file.behind = {name: archive.read(name) for name in archive.namelist()}
        yield file
        path.write_bytes(attach_files(pack(file.model), Description("", {}, b"", b"", file.behind)))

    behind: dict[str, bytes]
    """The files in the zip behind the model."""

    def kind(self, operator: Any) -> str:
        return str(self.names[self.model.operatorCodes[operator.opcodeIndex].builtinCode])

    def convolution(self, path: str) -> Any:
        """The convolution of a module, whose result bears the module's path, without the list ``stages``."""
        key = path.replace("stages.", "").replace(".", "/")
        return next(
            operator
            for operator in self.graph.operators
            if self.kind(operator) in ("CONV_2D", "DEPTHWISE_CONV_2D")
            and self.graph.tensors[operator.outputs[0]].name.decode().partition(";")[0] == key
        )

    def maker(self, tensor: int) -> Any:
        return next(operator for operator in self.graph.operators if tensor in operator.outputs)

    def values(self, tensor: int) -> npt.NDArray[Any]:
        """The values of a constant, flat."""
        found = self.graph.tensors[tensor]
        types = {code: name.lower() for name, code in vars(self.schema.TensorType).items() if isinstance(code, int)}
        return np.frombuffer(bytes(self.model.buffers[found.buffer].data), types[found.type])

    def tensor(self, like: Any, name: str, values: npt.NDArray[Any] | None = None, **changes: Any) -> int:
        """Add a tensor that is like another but for its name, its values and ``changes``; returns its index."""
        data = None if values is None else np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(self.schema.BufferT(data=data))
        made = copy.copy(like)
        made.name, made.buffer = name.encode(), len(self.model.buffers) - 1
        for key, value in changes.items():
            setattr(made, key, value)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, values: npt.NDArray[Any]) -> int:
        """Add a float32 or int32 constant; returns its index."""
        type_ = {"float32": self.schema.TensorType.FLOAT32, "int32": self.schema.TensorType.INT32}[str(values.dtype)]
        made = self.schema.TensorT(shape=[*values.shape], type=type_)
        return self.tensor(made, name, values)

    def change_constant(self, operator: Any, place: int, values: npt.NDArray[Any]) -> None:
        """Give the operator other values in place of a constant, of the same type and shape."""
        old = self.graph.tensors[operator.inputs[place]]
        values = values.astype(self.values(operator.inputs[place]).dtype)
        operator.inputs[place] = self.tensor(old, f"{old.name.decode()}_planted", values)

    def operator(self, kind: str, inputs: list[int], output: int, **options: Any) -> Any:
        """An operator that is not in the graph yet; its options are the table of the schema that its name says."""
        from xformer_export.quantize_tflite import operator_code

        table = "".join(part.capitalize() for part in kind.split("_")) + "Options"
        code = operator_code(self.model, getattr(self.schema.BuiltinOperator, kind), version=1)
        return self.schema.OperatorT(
            opcodeIndex=code,
            inputs=inputs,
            outputs=[output],
            builtinOptionsType=getattr(self.schema.BuiltinOptions, table),
            builtinOptions=getattr(self.schema, f"{table}T")(**options),
        )

    def insert_behind(self, tensor: int, made: Sequence[Any]) -> None:
        """Put a chain of operators, whose first reads the tensor, between it and all that read it."""
        (last,) = made[-1].outputs
        for operator in self.graph.operators:
            operator.inputs = [last if index == tensor else index for index in operator.inputs]
        makers = [index for index, operator in enumerate(self.graph.operators) if tensor in operator.outputs]
        place = makers[0] + 1 if makers else 0
        self.graph.operators[place:place] = made


def _tflite_scale_weight(path: Path, case: Case) -> None:
    with _TFLite.opened(path) as file:
        convolution = file.convolution(WEIGHT)
        index = convolution.inputs[1]
        weights = file.graph.tensors[index]
        if weights.type == file.schema.TensorType.FLOAT32:
            file.change_constant(convolution, 1, file.values(index) * np.float32(FACTOR))
        else:
            weights.quantization.scale = np.asarray(weights.quantization.scale, np.float32) * np.float32(FACTOR)


def _tflite_swap_colors(path: Path, case: Case) -> None:
    with _TFLite.opened(path) as file:
        (image,) = file.graph.inputs
        swapped = file.tensor(file.graph.tensors[image], "planted")
        order = file.constant("planted_order", np.array([2, 1, 0], np.int32))
        file.insert_behind(image, [file.operator("GATHER", [image, order], swapped, axis=3)])


def _tflite_normalize_twice(path: Path, case: Case) -> None:
    with _TFLite.opened(path) as file:
        (image,) = file.graph.inputs
        picture = file.graph.tensors[image]
        mean = file.constant("planted_mean", MEAN.reshape(1, 1, 1, 3))
        inverse = file.constant("planted_inverse_std", (1 / STD).reshape(1, 1, 1, 3))
        float32 = {"type": file.schema.TensorType.FLOAT32, "quantization": None}
        made = [file.tensor(picture, f"backbone;planted_{number}", None, **float32) for number in range(3)]
        if case.precision == "int8":  # there are bytes up to the first convolution
            again = file.tensor(picture, "backbone;planted_bytes")
            chain = [
                file.operator("DEQUANTIZE", [image], made[0]),
                file.operator("SUB", [made[0], mean], made[1]),
                file.operator("MUL", [made[1], inverse], made[2]),
                file.operator("QUANTIZE", [made[2]], again),
            ]
            file.insert_behind(image, chain)
        else:
            subtract = next(operator for operator in file.graph.operators if file.kind(operator) == "SUB")
            (centred,) = subtract.outputs
            chain = [
                file.operator("MUL", [centred, inverse], made[0]),
                file.operator("SUB", [made[0], mean], made[1]),
            ]
            file.insert_behind(centred, chain)


def _tflite_move_padding(path: Path, case: Case) -> None:
    with _TFLite.opened(path) as file:
        pad = file.maker(file.convolution(STRIDED).inputs[0])
        widths = file.values(pad.inputs[1]).reshape(4, 2)
        assert widths[1:3].tolist() == [[1, 1], [1, 1]]
        file.change_constant(pad, 1, np.array([[0, 0], [0, 2], [0, 2], [0, 0]]))


def _tflite_shift_zero_point(path: Path, case: Case) -> None:
    """What writes a tensor and what reads it share its zero point: the integers are handed over to another tensor."""
    with _TFLite.opened(path) as file:
        (result,) = file.convolution(WEIGHT).outputs
        old = file.graph.tensors[result]
        quantization = copy.copy(old.quantization)
        zero = np.asarray(quantization.zeroPoint, np.int64)
        quantization.zeroPoint = _next_integer(zero.astype(np.int8)).astype(np.int64)
        shifted = file.tensor(old, f"{old.name.decode()}_planted", quantization=quantization)
        shape = [int(size) for size in old.shape]
        sizes = file.constant("planted_shape", np.array(shape, np.int32))
        file.insert_behind(result, [file.operator("RESHAPE", [result, sizes], shifted, newShape=shape)])


def _tflite_transpose_output(path: Path, case: Case) -> None:
    with _TFLite.opened(path) as file:
        last = [operator for operator in file.graph.operators if file.kind(operator) == "TRANSPOSE"][-1]
        assert file.values(last.inputs[1]).tolist() == [0, 3, 1, 2]
        file.change_constant(last, 1, np.array([0, 3, 2, 1]))


def _tflite_permute_labels(path: Path, case: Case) -> None:
    from xformer_export.tflite_metadata import LABELS_FILE, OWN_METADATA_NAME

    with _TFLite.opened(path) as file:
        (entry,) = (entry for entry in file.model.metadata if entry.name == OWN_METADATA_NAME.encode())
        own = json.loads(bytes(file.model.buffers[entry.buffer].data))
        labels = _permuted(json.loads(own["labels"]))
        own["labels"] = json.dumps(labels, ensure_ascii=False)
        content = json.dumps(own, ensure_ascii=False, sort_keys=True).encode()
        file.model.buffers[entry.buffer].data = np.frombuffer(content, np.uint8)
        file.behind[LABELS_FILE] = "\n".join(labels).encode()


# ---- Core ML -----------------------------------------------------------------------------------------------------

BLOB_HEADER = struct.Struct("<IIQQ")
"""In front of a constant in a package's weight.bin: a sentinel, the type, the size in bytes, and where the data is."""

BLOB_SENTINEL = 0xDEADBEEF

MIL_TYPES = {10: "float16", 11: "float32", 21: "int8", 23: "int32", 31: "uint8"}
"""numpy's name of each of MIL's data types that is met here (MIL.proto)."""


class _CoreML:
    """An .mlpackage to change: its program's block and its weights."""

    def __init__(self, spec: Any, weights: bytearray) -> None:
        self.spec, self.weights = spec, weights
        (function,) = spec.mlProgram.functions.values()
        self.block = function.block_specializations[function.opset]

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path) -> Iterator[_CoreML]:
        """Read the package; write it when the block ends."""
        spec, folder = read_package(path, import_coremltools())
        blobs = folder / "weight.bin"
        file = cls(spec, bytearray(blobs.read_bytes()))
        yield file
        blobs.write_bytes(file.weights)
        (folder.parent / "model.mlmodel").write_bytes(file.spec.SerializeToString(deterministic=True))

    def maker(self, name: str) -> Any:
        return next(operation for operation in self.block.operations if operation.outputs[0].name == name)

    def readers(self, name: str) -> list[Any]:
        return [operation for operation in self.block.operations if name in self.inputs(operation)]

    @staticmethod
    def inputs(operation: Any) -> list[str]:
        return [argument.name for value in operation.inputs.values() for argument in value.arguments]

    def convolution(self, path: str) -> Any:
        """The convolution of a module, whose weights bear the module's path."""
        name = f"p_model_{path.replace('.', '_')}_weight"
        return next(
            operation
            for operation in self.block.operations
            if operation.type == "conv" and operation.inputs["weight"].arguments[0].name.startswith(name)
        )

    def values(self, value: Any) -> npt.NDArray[Any]:
        """The numbers of a constant's ValueType, flat. Of one in weight.bin, they are the file's own bytes."""
        dtype = np.dtype(MIL_TYPES[value.type.tensorType.dataType])
        if value.WhichOneof("value") == "blobFileValue":
            sentinel, _, size, place = BLOB_HEADER.unpack_from(self.weights, value.blobFileValue.offset)
            assert sentinel == BLOB_SENTINEL
            return np.frombuffer(self.weights, dtype, size // dtype.itemsize, place)
        tensor = value.immediateValue.tensor
        held = getattr(tensor, tensor.WhichOneof("value")).values
        return np.frombuffer(held, dtype) if isinstance(held, bytes) else np.array(held, dtype)

    def set_values(self, value: Any, numbers: npt.NDArray[Any]) -> None:
        """Change the numbers of a constant's ValueType."""
        old = self.values(value)
        numbers = numbers.astype(old.dtype).reshape(old.shape)
        if value.WhichOneof("value") == "blobFileValue":
            old[:] = numbers
            return
        tensor = value.immediateValue.tensor
        held = getattr(tensor, tensor.WhichOneof("value"))
        if isinstance(held.values, bytes):
            held.values = numbers.tobytes()
        else:
            held.values[:] = numbers.tolist()

    def insert(self, place: int, operation: Any) -> None:
        self.block.operations.append(operation)
        moved = [*self.block.operations]
        moved.insert(place, moved.pop())
        kept = [copy.deepcopy(one) for one in moved]
        del self.block.operations[:]
        self.block.operations.extend(kept)

    def place_of(self, name: str) -> int:
        """Where the operation is that makes a value."""
        return next(place for place, one in enumerate(self.block.operations) if one.outputs[0].name == name)

    def constant_like(self, name: str, like: str, numbers: npt.NDArray[Any]) -> str:
        """Add a constant of another's type and shape in front of it; returns its name."""
        made = copy.deepcopy(self.maker(like))
        made.outputs[0].name = name
        value = made.attributes["val"]
        if value.WhichOneof("value") == "blobFileValue":
            raise AssertionError(f"{like} is in weight.bin")
        self.set_values(value, numbers)
        _name(made, name)
        self.insert(self.place_of(like), made)
        return name

    def number(self, operation: Any, key: str) -> npt.NDArray[Any]:
        """An argument's value, whether it is a constant of its own or stands in the operation."""
        return self.values(self._value(operation, key))

    def change(self, operation_name: str, key: str, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
        """Change an argument of the operation that makes a value, for this operation alone."""
        operation = self.maker(operation_name)
        (argument,) = operation.inputs[key].arguments
        changed = change(self.number(operation, key).copy())
        if argument.WhichOneof("binding") == "value":
            self.set_values(argument.value, changed)
        elif len(self.readers(argument.name)) == 1:
            self.set_values(self._value(operation, key), changed)
        else:
            name = self.constant_like(f"{operation_name}_{key}_planted", argument.name, changed)
            self.maker(operation_name).inputs[key].arguments[0].name = name

    def _value(self, operation: Any, key: str) -> Any:
        (argument,) = operation.inputs[key].arguments
        return (
            argument.value if argument.WhichOneof("binding") == "value" else self.maker(argument.name).attributes["val"]
        )


def _name(operation: Any, name: str) -> None:
    """What an operation is called, which is an attribute of it."""
    operation.attributes["name"].immediateValue.tensor.strings.values[:] = [name]


def _coreml_scale_weight(path: Path, case: Case) -> None:
    with _CoreML.opened(path) as file:
        convolution = file.convolution(WEIGHT)
        (weight,) = convolution.inputs["weight"].arguments
        maker = file.maker(weight.name)
        value = maker.attributes["val"] if maker.type == "const" else None
        if value is None and maker.inputs:
            value = file._value(maker, "scale")
        elif value is None:
            value = maker.attributes["scale"]
        file.set_values(value, file.values(value) * np.float32(FACTOR))


def _coreml_swap_colors(path: Path, case: Case) -> None:
    """An app then hands over the pixels in the other order, as the package asks for."""
    with _CoreML.opened(path) as file:
        (image,) = file.spec.description.input
        kind = image.type.imageType
        kind.colorSpace = kind.ColorSpace.Value("BGR")


def _coreml_normalize_twice(path: Path, case: Case) -> None:
    with _CoreML.opened(path) as file:
        subtract = next(one for one in file.block.operations if one.type == "sub")
        (centred,), (mean,) = (
            [one.name for one in subtract.outputs],
            [one.name for one in subtract.inputs["y"].arguments],
        )
        readers = [reader.outputs[0].name for reader in file.readers(centred)]
        divide, again = copy.deepcopy(subtract), copy.deepcopy(subtract)
        std = file.constant_like("planted_std", mean, STD)
        for one, kind, name, source in (
            (divide, "real_div", "planted_div", centred),
            (again, "sub", "planted_sub", "planted_div"),
        ):
            one.type, one.outputs[0].name = kind, name
            one.inputs["x"].arguments[0].name = source
            _name(one, name)
        divide.inputs["y"].arguments[0].name = std
        place = file.place_of(centred) + 1
        file.insert(place, divide)
        file.insert(place + 1, again)
        for name in readers:
            for value in file.maker(name).inputs.values():
                for argument in value.arguments:
                    if argument.name == centred:
                        argument.name = "planted_sub"


def _coreml_move_padding(path: Path, case: Case) -> None:
    with _CoreML.opened(path) as file:
        (result,) = file.convolution(STRIDED).outputs

        def move(pads: npt.NDArray[Any]) -> npt.NDArray[Any]:
            assert pads.tolist() == [1, 1, 1, 1]
            return np.array([0, 2, 0, 2])

        file.change(result.name, "pad", move)


def _coreml_shift_zero_point(path: Path, case: Case) -> None:
    with _CoreML.opened(path) as file:
        (result,) = file.convolution(WEIGHT).outputs
        reader = file.readers(result.name)[0]
        while reader.type != "quantize":
            reader = file.readers(reader.outputs[0].name)[0]
        for name in [one.outputs[0].name for one in file.readers(reader.outputs[0].name) if one.type == "dequantize"]:
            file.change(name, "zero_point", _next_integer)


def _coreml_transpose_output(path: Path, case: Case) -> None:
    with _CoreML.opened(path) as file:
        (output,) = file.block.outputs
        maker = file.maker(output)
        transpose = copy.deepcopy(maker)
        before = maker.outputs[0].name = f"{output}_planted"
        for key in [*transpose.inputs]:
            del transpose.inputs[key]
        transpose.type = "transpose"
        _name(transpose, "planted")
        transpose.inputs["x"].arguments.add().name = before
        value = transpose.inputs["perm"].arguments.add().value
        value.type.tensorType.dataType = next(code for code, name in MIL_TYPES.items() if name == "int32")
        value.type.tensorType.rank = 1
        value.type.tensorType.dimensions.add().constant.size = 4
        value.immediateValue.tensor.ints.values[:] = [0, 1, 3, 2]
        file.block.operations.append(transpose)


def _coreml_permute_labels(path: Path, case: Case) -> None:
    with _CoreML.opened(path) as file:
        own = file.spec.description.metadata.userDefined
        own["labels"] = json.dumps(_permuted(json.loads(own["labels"])), ensure_ascii=False)


# ---- ExecuTorch --------------------------------------------------------------------------------------------------


def _pte_scale_weight(path: Path, case: Case) -> None:
    """Scale the weights, or in int8 their scales, where their bytes are in the file."""
    from xformer_export.prepare import prepare

    bundle = Bundle.open(case.bundle)
    model = bundle.manifest["model"]
    prepared = prepare(None, task=bundle.task, variant=model["variant"], image_size=bundle.image_size)
    weights = prepared.mobile.get_submodule(WEIGHT).get_parameter("weight").numpy()
    wanted = np.abs(weights).max((1, 2, 3)) / 127 if case.precision == "int8" else weights.reshape(-1)
    content = bytearray(path.read_bytes())
    place = _find_floats(content, wanted.astype(np.float32))
    found = np.frombuffer(content, "<f4", wanted.size, place)
    found *= np.float32(FACTOR)
    path.write_bytes(content)


def _find_floats(content: bytes | bytearray, wanted: npt.NDArray[np.float32]) -> int:
    """Where float32 values are in a file, to a hundredth of each: quantizers differ in what a scale is."""
    held = np.frombuffer(content, "<f4", len(content) // 4)
    with np.errstate(all="ignore"):
        starts = np.flatnonzero(np.abs(held[: held.size - wanted.size + 1] / wanted[0] - 1) < 0.01)
        places = [
            4 * int(start)
            for start in starts
            if np.allclose(held[start : start + wanted.size], wanted, rtol=0.01, atol=0)
        ]
    if len(places) != 1:
        raise AssertionError(f"the values are {len(places)} times in the file")
    return places[0]


# ---- the table ---------------------------------------------------------------------------------------------------

NUMERIC = ("differs by", "signal-to-noise", "agreement", " dB ")
"""Words of the sentences that say that the outputs are too far from the reference's."""

EXCHANGED = "an artifact of another checkpoint"

FAULTS = (
    Fault(
        "one weight tensor scaled by 1.05",
        {
            "onnx": _onnx_scale_weight,
            "coreml": _coreml_scale_weight,
            "tflite": _tflite_scale_weight,
            "executorch": _pte_scale_weight,
        },
        layers=(WEIGHT,),
        says=NUMERIC,
    ),
    Fault(
        "RGB and BGR swapped",
        {"onnx": _onnx_swap_colors, "coreml": _coreml_swap_colors, "tflite": _tflite_swap_colors},
        layers=(IMAGE,),
        int8_layers=(IMAGE, STEM),
    ),
    Fault(
        "normalization applied twice",
        {"onnx": _onnx_normalize_twice, "coreml": _coreml_normalize_twice, "tflite": _tflite_normalize_twice},
        layers=(IMAGE,),
        int8_layers=(IMAGE, STEM),
    ),
    Fault(
        "padding on the wrong side",
        {"onnx": _onnx_move_padding, "coreml": _coreml_move_padding, "tflite": _tflite_move_padding},
        layers=(STRIDED,),
    ),
    Fault(
        "a zero point off by one",
        {"onnx": _onnx_shift_zero_point, "coreml": _coreml_shift_zero_point, "tflite": _tflite_shift_zero_point},
        layers=(WEIGHT,),
        precisions=("int8",),
    ),
    Fault(
        "labels permuted in the manifest",
        dict.fromkeys(("onnx", "coreml", "tflite"), _permute_manifest_labels),
        says=("labels",),
        in_manifest=True,
    ),
    Fault(
        "labels permuted in the artifact",
        {"onnx": _onnx_permute_labels, "coreml": _coreml_permute_labels, "tflite": _tflite_permute_labels},
        says=("labels",),
    ),
    Fault(
        "an output transposed",
        {"onnx": _onnx_transpose_output, "coreml": _coreml_transpose_output, "tflite": _tflite_transpose_output},
        layers=(LAST,),
    ),
    Fault(
        "a truncated file",
        dict.fromkeys(("onnx", "coreml", "tflite", "executorch"), _cut),
        says=tuple(FORMATS.values()),
    ),
    Fault(
        "a sha256 that no longer fits",
        dict.fromkeys(("onnx", "coreml", "tflite", "executorch"), _exchange_sha256),
        says=("is not the file that the manifest describes",),
        in_manifest=True,
    ),
    Fault(
        EXCHANGED,
        dict.fromkeys(("onnx", "coreml", "tflite", "executorch"), _exchange),
        layers=(STEM,),
        says=("weights", "checkpoint", *NUMERIC),
    ),
)
"""Every fault that is planted."""

PRECISIONS = {
    "onnx": ("fp32", "int8"),
    "coreml": ("fp32", "int8"),
    "tflite": ("fp32", "int8"),
    "executorch": ("fp32", "int8"),
}
"""In which precisions of each format."""

RECIPES = {"fp32": "none", "fp16": "fp16", "int8": "int8"}
"""What ``xformer-export`` calls a precision."""

TASK, VARIANT, SIZE = "segment", "xformer_xxs", ImageSize(64, 64)

LARGER = ("xformer_xs", 128)
"""A variant and the side of its picture, of some clean exports."""

CALIBRATION_PICTURES = 32

OTHER_SEED = 1
"""Of the weights of the other checkpoint; those that are drawn without a checkpoint have another one."""


@dataclass(frozen=True)
class Export:
    """A clean export: of what, and the seed of its weights."""

    seed: int
    task: str
    variant: str
    size: int
    format: str
    precision: str

    @property
    def name(self) -> str:
        return f"{self.seed:03d}-{self.task}-{self.variant}-{self.size}-{self.format}-{self.precision}"


def clean_exports() -> Iterator[Export]:
    """Exports without end, in turn over formats, precisions and tasks; one in seven is of the next larger variant."""
    kinds = [(format, precision) for format, precisions in PRECISIONS.items() for precision in precisions]
    kinds.append(("coreml", "fp16"))
    for seed in itertools.count(1):
        format, precision = kinds[seed % len(kinds)]
        task = list(TASKS)[seed // len(kinds) % len(TASKS)]
        variant, size = LARGER if seed % 7 == 0 else (VARIANT, SIZE.height)
        yield Export(seed, task, variant, size, format, precision)


def make_checkpoint(path: Path, *, task: str, variant: str, size: ImageSize, seed: int) -> Path:
    """A checkpoint of drawn weights, unless it is there."""
    from xformer_mobile.weights import save_checkpoint
    from xformer_mobile.zoo import untrained_model

    if not path.exists():
        save_checkpoint(untrained_model(ModelConfig.create(task, variant, image_size=size), seed), path)
    return path


def _run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND.format(name), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def export(bundle: Path, *arguments: object) -> Path:
    """Export a bundle, unless it is there."""
    if not bundle.exists():
        done = _run("export", "--quiet", "--output", bundle, *arguments)
        if done.returncode:
            raise SystemExit(f"{bundle.name} can't be exported: {done.stderr.strip()}")
    return bundle


def verify(bundle: Path, *arguments: object) -> tuple[int, dict[str, Any] | None, str]:
    """Verify a bundle; returns the exit status, the document, if there is one, and the last line on stderr."""
    done = _run("verify", bundle, "--json", "--quiet", "--no-second-readers", *arguments)
    try:
        document = json.loads(done.stdout)
    except ValueError:
        document = None
    return done.returncode, document, (done.stderr.strip().splitlines() or [""])[-1]


def base_cases(directory: Path, formats: Sequence[str], precisions: Sequence[str]) -> Iterator[Case]:
    """The bundles to plant in, a bundle for each format and precision, and beside each one of other weights."""
    checkpoint = directory / f"other-{TASK}.safetensors"
    make_checkpoint(checkpoint, task=TASK, variant=VARIANT, size=SIZE, seed=OTHER_SEED)
    for format in formats:
        for precision in PRECISIONS[format]:
            if precision not in precisions:
                continue
            common = ("--format", format, "--quantize", RECIPES[precision])
            common += ("--calibration-pictures", str(CALIBRATION_PICTURES)) if precision == "int8" else ()
            own = ("--task", TASK, "--variant", VARIANT, "--image-size", SIZE)
            name = f"{format}-{precision}"
            yield Case(
                export(directory / name, *own, *common),
                format,
                precision,
                export(directory / f"other-{name}", "--checkpoint", checkpoint, *common),
            )


def plant_all(cases: Iterator[Case]) -> Iterator[tuple[Fault | None, Case, Verdict]]:
    """Verify each bundle as it is (without a fault), then with each fault."""
    for case in cases:
        status, document, complaint = verify(case.bundle)
        said = [] if document is None else [miss for entry in document["artifacts"] for miss in entry["misses"]]
        clean = status == 0 and document is not None and document["passed"]
        yield None, case, Verdict(status, not clean, clean, "", (said or [complaint])[0])
        for fault in FAULTS:
            if fault.applies(case.format, case.precision):
                with tempfile.TemporaryDirectory() as folder:
                    status, document, complaint = verify(plant(fault, case, Path(folder) / case.bundle.name))
                verdict = judge(fault, case, status, document)
                if document is None:
                    verdict = Verdict(status, False, False, "", complaint)
                yield fault, case, replace(verdict, by=verdict.by.replace(f"{folder}/", ""))


def _shortened(text: str, most: int = 110) -> str:
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _row(fault: Fault | None, case: Case, verdict: Verdict) -> str:
    what = "none" if fault is None else fault.name
    right = "yes" if verdict.right else "NO: a failure"
    return (
        f"| {what} | {case.format} | {case.precision} | {verdict.status} | {verdict.layer or '-'} "
        f"| {_shortened(verdict.by) or '-'} | {right} |"
    )


COLUMNS = ("fault", "format", "precision", "exit status", "first layer", "caught by", "as expected")


def look_at_clean(directory: Path, count: int) -> Iterator[tuple[Export, list[str] | None]]:
    """Export and verify so many clean bundles, all in this process; yields what was found in each.

    Nobody has trained drawn weights: the exporter refuses some of them. Those yield None, and others take their place.
    """
    from xformer_export import ExportRequest, build_bundle
    from xformer_export.verification import Request
    from xformer_export.verification import verify as verify_here
    from xformer_mobile.errors import ConversionError, ParityError

    exports = clean_exports()
    while count:
        one = next(exports)
        size = ImageSize(one.size, one.size)
        checkpoint = directory / f"{one.name}.safetensors"
        make_checkpoint(checkpoint, task=one.task, variant=one.variant, size=size, seed=one.seed)
        request = ExportRequest(
            formats=(one.format,),
            checkpoint=checkpoint,
            quantize=RECIPES[one.precision],
            pictures=CALIBRATION_PICTURES,
            output=directory / one.name,
        )
        try:
            if not (directory / one.name).exists():
                build_bundle(request)
        except (ConversionError, ParityError):
            yield one, None
            continue
        document = verify_here(Request(directory / one.name, checkpoint=checkpoint)).document
        artifacts = document["artifacts"]
        yield one, [found for entry in artifacts for found in (entry["error"], *entry["misses"]) if found is not None]
        count -= 1


def _names(known: Mapping[str, Any] | Sequence[str]) -> Callable[[Any, Any, tuple[str, ...]], list[str]]:
    """Splits an option's values at commas and refuses unknown ones; none are all."""

    def read(context: Any, option: Any, given: tuple[str, ...]) -> list[str]:
        names = [name.strip() for text in given for name in text.split(",")] or list(known)
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is not one of {', '.join(known)}")
        return names

    return read


@click.command(
    help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    ", 1),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--format", "formats", multiple=True, metavar="NAME", callback=_names(PRECISIONS), help="[default: all]")
@click.option(
    "--precision", "precisions", multiple=True, metavar="NAME", callback=_names(RECIPES), help="[default: all]"
)
@click.option("--clean", type=click.IntRange(1), metavar="N", help="Instead, look at N clean exports of drawn weights.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each row.")
@click.option("--directory", type=click.Path(path_type=Path), default=Path("build/faults"), show_default=True)
def command(formats: list[str], precisions: list[str], clean: int | None, as_json: bool, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if clean is not None:
        sys.exit(_print_clean(directory, clean, as_json))
    if not as_json:
        click.echo(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    planted = caught = wrong = 0
    for fault, case, verdict in plant_all(base_cases(directory, formats, precisions)):
        planted += fault is not None
        caught += fault is not None and verdict.right
        wrong += not verdict.right
        if as_json:
            row = {"fault": fault and fault.name, "format": case.format, "precision": case.precision}
            click.echo(json.dumps({**row, **vars(verdict)}))
        else:
            click.echo(_row(fault, case, verdict))
    if not as_json:
        click.echo(f"\n{planted} faults planted, {caught} caught and rightly blamed; {wrong} failures")
    sys.exit(1 if wrong else 0)


def _print_clean(directory: Path, count: int, as_json: bool) -> int:
    findings = refused = 0
    for one, found in look_at_clean(directory, count):
        refused += found is None
        findings += len(found or ())
        if as_json:
            click.echo(json.dumps({**vars(one), "refused": found is None, "findings": found or []}))
        elif found:
            click.echo(f"{one.name}: {'; '.join(map(_shortened, found))}")
    if not as_json:
        click.echo(f"{count} clean exports, {findings} findings; {refused} more were refused by the exporter")
    return 1 if findings else 0


if __name__ == "__main__":
    command()
