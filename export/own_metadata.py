"""What an artifact says of itself, against the manifest: its format's own metadata, and its inputs and outputs.

An app that is given the file alone reads these. Each format keeps them in its own way, and a row of :data:`FORMATS`
reads it: ONNX in ``metadata_props``; .ort in the same, as ONNX Runtime returns it; Core ML in its user-defined metadata
and in the classes of a classifier; TFLite in a buffer of our own, in TFLite's metadata and in the file of labels behind
the model. A .pte file has none.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xformer_mobile.artifact import Artifact, Bundle
from xformer_mobile.errors import BundleError, ConversionError, MissingDependencyError
from xformer_mobile.optional import import_coremltools, require
from xformer_mobile.runners.mlpackage import read_package

__all__ = ["FORMATS", "NO_METADATA", "OwnMetadata", "Statement", "check_own_metadata"]

CLASSIFIER = "the classifier"
"""Where a Core ML classifier has its labels."""


@dataclass(frozen=True)
class OwnMetadata:
    """An artifact's own words against the manifest's. Truthy where nothing that was compared differs.

    ``checked`` names what was compared, ``missed`` has a sentence for each thing that differs. Where nothing could be
    compared, ``reason`` says why; that is no miss.
    """

    checked: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing that was compared differs."""
        return not self.missed

    def __bool__(self) -> bool:
        return self.passed

    def misses(self) -> list[str]:
        """One sentence for each thing in which the artifact contradicts the manifest."""
        return list(self.missed)

    def as_json(self) -> dict[str, Any]:
        """What was compared, what differs, and why nothing was compared, as JSON values."""
        return {
            "passed": self.passed,
            "misses": list(self.missed),
            "checked": list(self.checked),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Statement:
    """What a file says of itself, or what it should say.

    ``inputs`` and ``outputs`` are the tensors in words, such as "float32 (1, 1000)", by name and in order. ``labels``
    are the lists of labels that the format has of its own, by where they are, and ``words`` other things that it says,
    by what they are.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


Entries = Mapping[str, str]
"""Our own metadata by name, as the converters write it: ``labels``, ``input`` and ``weights`` are JSON."""


def check_own_metadata(bundle: Bundle, artifact: Artifact) -> OwnMetadata:
    """Read an artifact of a bundle and compare what it says of itself with the manifest.

    Raises:
        BundleError: the file can't be read as its format.
    """
    if artifact.format in NO_METADATA:
        return OwnMetadata(reason=NO_METADATA[artifact.format])
    read, ask = FORMATS[artifact.format]
    try:
        entries, found = read(artifact.path)
        asked = ask(bundle)
    except MissingDependencyError as error:
        return OwnMetadata(reason=str(error))
    results = {
        **_compare_entries(entries, bundle.manifest),
        **{
            f"labels in {where}": _compare_labels(where, found.labels.get(where, ()), labels)
            for where, labels in asked.labels.items()
        },
        **{what: _compare_words(what, found.words.get(what), asked.words[what]) for what in asked.words},
        "inputs": _compare_tensors("input", found.inputs, asked.inputs),
        "outputs": _compare_tensors("output", found.outputs, asked.outputs),
    }
    return OwnMetadata(tuple(results), tuple(miss for misses in results.values() for miss in misses))


# ---- comparing ---------------------------------------------------------------------------------------------


def _compare_entries(entries: Entries, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """The sentences about our own metadata, by what was compared."""
    model = manifest["model"]
    comparisons: dict[str, tuple[str, Callable[[], list[str]]]] = {
        "task": ("task", lambda: _compare_words("task", entries["task"], model["task"])),
        "variant": ("variant", lambda: _compare_words("variant", entries["variant"], model["variant"])),
        "labels": ("labels", lambda: _compare_labels("the metadata", json.loads(entries["labels"]), model["labels"])),
        "input": ("input description", lambda: _compare_input(json.loads(entries["input"]), manifest["input"])),
        "weights": ("checkpoint sha256", lambda: _compare_weights(json.loads(entries["weights"]), model["weights"])),
    }
    if not comparisons.keys() & entries.keys():
        return {"metadata": ["it has no metadata of its own: no task, labels or checkpoint"]}
    results = {}
    for name, (what, compare) in comparisons.items():
        try:
            results[what] = compare() if name in entries else [f"its metadata has no {name}"]
        except (AttributeError, TypeError, ValueError):  # not JSON, or JSON of another kind
            results[what] = [f"its metadata has {name} that can't be read: {str(entries[name])[:60]!r}"]
    return results


def _compare_words(what: str, found: str | None, asked: str) -> list[str]:
    if found == asked:
        return []
    if found is None:
        return [f"its metadata has no {what}; the manifest's is {asked!r}"]
    return [f"its metadata has the {what} {found!r}, the manifest has {asked!r}"]


def _compare_labels(where: str, found: Iterable[str], asked: Iterable[str]) -> list[str]:
    found, asked = list(found), list(asked)
    if found == asked:
        return []
    if not found:
        return [f"there are no labels in {where}; the manifest has {len(asked)}"]
    if len(found) != len(asked):
        return [f"there are {len(found)} labels in {where}; the manifest has {len(asked)}"]
    places = [index for index, pair in enumerate(zip(found, asked, strict=True)) if pair[0] != pair[1]]
    how = "in another order than" if sorted(found) == sorted(asked) else "not"
    first = places[0]
    return [
        f"the labels in {where} are {how} the manifest's: {len(places)} of {len(asked)} differ, label {first} is "
        f"{found[first]!r} instead of {asked[first]!r}"
    ]


def _compare_input(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """A sentence for each part of the input's description that differs."""
    return [
        f"its metadata has the input's {name} {_json(found.get(name))}, the manifest has {_json(asked.get(name))}"
        for name in {**asked, **found}
        if found.get(name) != asked.get(name)
    ]


def _compare_weights(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    if found.get("sha256") != asked["sha256"]:
        return [
            f"its metadata names another checkpoint: sha256 {str(found.get('sha256'))[:12]}..., the manifest's weights "
            f"have {asked['sha256'][:12]}..."
        ]
    return [
        f"its metadata has the weights' {name} {_json(found.get(name))}, the manifest has {_json(asked.get(name))}"
        for name in {**asked, **found}
        if found.get(name) != asked.get(name)
    ]


def _compare_tensors(role: str, found: Mapping[str, str], asked: Mapping[str, str]) -> list[str]:
    if list(found) != list(asked):
        return [f"its {role}s are named {', '.join(found) or 'nothing'}; the manifest's are {', '.join(asked)}"]
    return [
        f"its {role} {name} is {found[name]}, the manifest's is {words}"
        for name, words in asked.items()
        if found[name] != words
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)[:200]


# ---- what the manifest asks for ----------------------------------------------------------------------------


def _words(dtype: str, shape: Iterable[Any]) -> str:
    return f"{dtype} ({', '.join(map(str, shape))})"


def _ask_tensors(bundle: Bundle) -> Statement:
    """Of a format whose tensors are the manifest's own."""
    image = bundle.manifest["input"]
    return Statement(
        {image["name"]: _words(image["dtype"], image["shape"])},
        {output["name"]: _words(output["dtype"], output["shape"]) for output in bundle.manifest["outputs"]},
    )


def _ask_core_ml(bundle: Bundle) -> Statement:
    """A Core ML model takes an image; a classifier returns the label and the probabilities too, as Vision expects."""
    to_coreml = require("xformer_export.to_coreml", extra="coreml")
    size, tensors = bundle.image_size, _ask_tensors(bundle)
    inputs = dict.fromkeys(tensors.inputs, f"RGB image {size.height} x {size.width}")
    if bundle.task != "classify":
        return Statement(inputs, tensors.outputs)
    classified = {to_coreml.LABEL_OUTPUT: "string", to_coreml.PROBABILITIES_OUTPUT: "dictionary of strings"}
    labels = to_coreml.distinct_labels(bundle.labels)
    return Statement(inputs, {**classified, **tensors.outputs}, {CLASSIFIER: labels})


def _ask_tflite(bundle: Bundle) -> Statement:
    metadata = require("xformer_export.tflite_metadata", extra="tflite")
    tensors = _ask_tensors(bundle)
    names = ", ".join([*tensors.inputs, *tensors.outputs])
    words = dict(zip(TFLITE_WORDS, (bundle.manifest["model"]["variant"], bundle.task, names), strict=True))
    return Statement(tensors.inputs, tensors.outputs, {metadata.LABELS_FILE: bundle.labels}, words)


# ---- reading -----------------------------------------------------------------------------------------------


def _read_onnx(path: Path) -> tuple[Entries, Statement]:
    onnx = require("onnx", extra="onnx")
    try:
        model = onnx.load(str(path))
        inputs, outputs = (
            {value.name: _onnx_words(onnx, value.type.tensor_type) for value in values}
            for values in (model.graph.input, model.graph.output)
        )
    except Exception as error:  # protobuf's errors have no public base, and a foreign type is a KeyError
        raise BundleError(f"{path} is not an ONNX model, or not all of one") from error
    return {entry.key: entry.value for entry in model.metadata_props}, Statement(inputs, outputs)


def _onnx_words(onnx: Any, kind: Any) -> str:
    sides = [side.dim_param or side.dim_value for side in kind.shape.dim]
    return _words(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, sides)


def _read_ort(path: Path) -> tuple[Entries, Statement]:
    ort = require("onnxruntime", extra="run")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        raise BundleError(f"ONNX Runtime refuses {path}: {str(error).splitlines()[0][:200]}") from error
    names = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
    inputs, outputs = (
        {value.name: _words(names.get(value.type, value.type), value.shape) for value in values}
        for values in (session.get_inputs(), session.get_outputs())
    )
    return dict(session.get_modelmeta().custom_metadata_map), Statement(inputs, outputs)


def _read_core_ml(path: Path) -> tuple[Entries, Statement]:
    spec, _ = read_package(path, import_coremltools())
    description = spec.description
    inputs, outputs = (
        {feature.name: _core_ml_words(feature.type) for feature in features}
        for features in (description.input, description.output)
    )
    return dict(description.metadata.userDefined), Statement(inputs, outputs, dict(_core_ml_classes(spec)))


def _core_ml_words(kind: Any) -> str:
    which = str(kind.WhichOneof("Type"))
    if which == "imageType":
        image = kind.imageType
        return f"{image.ColorSpace.Name(image.colorSpace)} image {image.height} x {image.width}"
    if which == "multiArrayType":
        array = kind.multiArrayType
        return _words(array.ArrayDataType.Name(array.dataType).lower(), array.shape)
    if which == "dictionaryType":
        return f"dictionary of {str(kind.dictionaryType.WhichOneof('KeyType')).removesuffix('KeyType')}s"
    return which.removesuffix("Type")


def _core_ml_classes(spec: Any) -> Iterable[tuple[str, tuple[str, ...]]]:
    """The labels of the program's op ``classify``, where it has one."""
    for function in spec.mlProgram.functions.values():
        for op in function.block_specializations[function.opset].operations:
            if op.type == "classify":
                values = op.inputs["classes"].arguments[0].value.immediateValue.list.values
                texts = (text for value in values for text in value.immediateValue.tensor.strings.values)
                yield CLASSIFIER, tuple(texts)


TFLITE_WORDS = ("model name in TFLite's metadata", "task in TFLite's metadata", "tensor names in TFLite's metadata")


def _read_tflite(path: Path) -> tuple[Entries, Statement]:
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    metadata = require("xformer_export.tflite_metadata", extra="tflite")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"can't read {path}: {error.strerror or error}") from error
    types = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        (graph,) = model.subgraphs
        inputs, outputs = (
            {
                tensor.name.decode(): _words(types[tensor.type], tensor.shape)
                for tensor in (graph.tensors[index] for index in indexes)
            }
            for indexes in (graph.inputs, graph.outputs)
        )
        buffers = {entry.name.decode(): model.buffers[entry.buffer].data for entry in model.metadata or ()}
        own = buffers.get(metadata.OWN_METADATA_NAME)
        entries = {} if own is None else dict(json.loads(bytes(own)))
    except Exception as error:  # flatbuffers raises whatever Python does on a wrong offset
        raise BundleError(f"{path} is not a .tflite file, or not all of one") from error
    return entries, Statement(inputs, outputs, _tflite_labels(metadata, content), _tflite_words(metadata, content))


def _tflite_labels(metadata: Any, content: bytes) -> dict[str, tuple[str, ...]]:
    """The labels in the zip behind the model, where it has them."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            text = zipped.read(metadata.LABELS_FILE).decode()
    except (KeyError, ValueError, zipfile.BadZipFile):  # no such file, not text, no zip
        return {}
    return {metadata.LABELS_FILE: tuple(text.split("\n"))}


def _tflite_words(metadata: Any, content: bytes) -> dict[str, str]:
    """What TFLite's metadata says, where it has any."""
    try:
        fields = metadata.read_metadata(content)
    except ConversionError:
        return {}
    (graph, *_) = fields.get("subgraph_metadata") or [{}]
    tensors = [*graph.get("input_tensor_metadata", ()), *graph.get("output_tensor_metadata", ())]
    names = ", ".join(str(tensor.get("name")) for tensor in tensors)
    return dict(zip(TFLITE_WORDS, (fields.get("name", ""), graph.get("name", ""), names), strict=True))


NO_METADATA = {"executorch": "a .pte file has no metadata"}
"""By format: why there is nothing to compare."""

Reader = Callable[[Path], tuple[Entries, Statement]]

FORMATS: dict[str, tuple[Reader, Callable[[Bundle], Statement]]] = {
    "onnx": (_read_onnx, _ask_tensors),
    "ort": (_read_ort, _ask_tensors),
    "coreml": (_read_core_ml, _ask_core_ml),
    "tflite": (_read_tflite, _ask_tflite),
}
"""By format: what reads a file, and what asks of the manifest what the file should say."""
