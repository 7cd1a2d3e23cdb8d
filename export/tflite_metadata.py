"""TFLite metadata: what a model says of itself to the platform's own tools, and the labels in a zip behind it.

The format: https://www.tensorflow.org/lite/models/metadata and metadata_schema.fbs of tflite-support. A flatbuffer in
the model's buffer ``TFLITE_METADATA`` describes the model, its input and its outputs; files that it names, here the
labels, are in a zip archive appended to the model, so that a .tflite file is a zip file too.

The input's normalization is mean 0 and standard deviation 1: bytes go in as they are, and the model normalizes them.

Beside it, the buffer ``xformer-mobile`` has the manifest's words as JSON.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

from xformer_export.prepare import Prepared, metadata_of
from xformer_mobile import __version__
from xformer_mobile.artifact import INPUT_NAME
from xformer_mobile.errors import ConversionError
from xformer_mobile.optional import require
from xformer_mobile.spec import TASKS

__all__ = [
    "LABELS_FILE",
    "METADATA_NAME",
    "OWN_METADATA_NAME",
    "Description",
    "attach_files",
    "check",
    "describe",
    "read_metadata",
]

METADATA_NAME = "TFLITE_METADATA"
OWN_METADATA_NAME = "xformer-mobile"
LABELS_FILE = "labels.txt"

IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"
"""The first version of the metadata's format: nothing that came later is used."""

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every file in the zip: the same bytes each time."""

Fields = dict[str, Any]

TENSOR_AXIS_LABELS, RGB = 2, 1

SCHEMA: dict[str, tuple[tuple[str, str], ...]] = {
    "ModelMetadata": (
        ("name", "string"),
        ("description", "string"),
        ("version", "string"),
        ("subgraph_metadata", "[SubGraphMetadata]"),
        ("author", "string"),
        ("license", "string"),
        ("associated_files", "[AssociatedFile]"),
        ("min_parser_version", "string"),
    ),
    "SubGraphMetadata": (
        ("name", "string"),
        ("description", "string"),
        ("input_tensor_metadata", "[TensorMetadata]"),
        ("output_tensor_metadata", "[TensorMetadata]"),
        ("associated_files", "[AssociatedFile]"),
    ),
    "TensorMetadata": (
        ("name", "string"),
        ("description", "string"),
        ("dimension_names", "[string]"),
        ("content", "Content"),
        ("process_units", "[ProcessUnit]"),
        ("stats", "Stats"),
        ("associated_files", "[AssociatedFile]"),
    ),
    "AssociatedFile": (("name", "string"), ("description", "string"), ("type", "byte")),
    "Content": (("content_properties_type", "byte"), ("content_properties", "|content_properties_type")),
    "FeatureProperties": (),
    "ImageProperties": (("color_space", "byte"), ("default_size", "ImageSize")),
    "ImageSize": (("width", "uint"), ("height", "uint")),
    "ProcessUnit": (("options_type", "byte"), ("options", "|options_type")),
    "NormalizationOptions": (("mean", "[float]"), ("std", "[float]")),
    "Stats": (("max", "[float]"), ("min", "[float]")),
}
"""The part of metadata_schema.fbs that is written: each table's fields in their order, which is their place.

A type is a scalar, a table, a vector in brackets, or a union: ``|`` and the field that says which table it is.
"""

UNIONS = {
    "content_properties_type": {1: "FeatureProperties", 2: "ImageProperties"},
    "options_type": {1: "NormalizationOptions"},
}

SCALARS = {"byte": ("<B", 1), "uint": ("<I", 4), "float": ("<f", 4)}
"""Each scalar's struct format and size in bytes; the default of all is 0."""


@dataclass(frozen=True)
class Description:
    """What is written into one model.

    ``fields`` is ModelMetadata, ``packed`` its flatbuffer, ``own_json`` our own buffer, ``files`` what the zip holds.
    """

    name: str
    fields: Fields
    packed: bytes
    own_json: bytes
    files: dict[str, bytes]


def describe(prepared: Prepared) -> Description:
    """The metadata of a model.

    Raises:
        MissingDependencyError: flatbuffers is not installed.
    """
    config = prepared.config
    fields = _fields(prepared)
    own = json.dumps(metadata_of(prepared), ensure_ascii=False, sort_keys=True)
    return Description(
        name=f"{config.variant.name} {config.task}",
        fields=fields,
        packed=_pack(fields),
        own_json=own.encode(),
        files={LABELS_FILE: "\n".join(config.labels).encode()},
    )


def attach_files(content: bytes, description: Description) -> bytes:
    """A model's bytes with the description's files in a zip behind them."""
    archive = io.BytesIO(content)
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as zipped:
        for name, data in description.files.items():
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # of Unix, wherever this runs
            zipped.writestr(entry, data)
    return archive.getvalue()


def check(content: bytes, description: Description) -> None:
    """Read what a model says of itself and compare.

    Raises:
        ConversionError: something is missing or different.
    """
    buffers = _buffers(content)
    if OWN_METADATA_NAME not in buffers or buffers[OWN_METADATA_NAME] != description.own_json:
        raise ConversionError(f"the tflite file's metadata {OWN_METADATA_NAME!r} does not read back as it was written")
    if read_metadata(content) != description.fields:
        raise ConversionError("the tflite file's TFLite metadata does not read back as it was written")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            files = {name: zipped.read(name) for name in zipped.namelist()}
    except zipfile.BadZipFile as error:
        raise ConversionError(f"the tflite file's associated files can't be read: {error}") from error
    if files != description.files:
        raise ConversionError(f"the tflite file carries the files {sorted(files)}, not {sorted(description.files)}")


def read_metadata(content: bytes) -> Fields:
    """The fields of a model's TFLite metadata, by name, as far as SCHEMA goes.

    Raises:
        ConversionError: there is none, or it is broken.
    """
    packed = _buffers(content).get(METADATA_NAME, b"")
    if packed[4:8] != IDENTIFIER:
        raise ConversionError("the tflite file has no TFLite metadata")
    try:
        return _unpack_table("ModelMetadata", packed, _number("<I", packed, 0))
    except (KeyError, UnicodeDecodeError, struct.error) as error:
        raise ConversionError(f"the tflite file's TFLite metadata is broken: {error}") from error


def _buffers(content: bytes) -> dict[str, bytes]:
    """The model's metadata buffers, by name."""
    model = require("ai_edge_litert.schema_py_generated", extra="tflite").Model.GetRootAs(content, 0)
    buffers = {}
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        buffer = model.Buffers(entry.Buffer())
        buffers[entry.Name().decode()] = b"" if buffer.DataIsNone() else buffer.DataAsNumpy().tobytes()
    return buffers


def _fields(prepared: Prepared) -> Fields:
    """ModelMetadata as a dict. What is not said has no key."""
    config, weights = prepared.config, prepared.weights
    size, spec = config.image_size, TASKS[config.task]
    labels = {"name": LABELS_FILE, "description": "the names of the classes, a line each, in order of their index"}
    axis_labels = {**labels, "type": TENSOR_AXIS_LABELS}
    axes = {2: ["batch", "class"], 4: ["batch", "class" if config.task == "segment" else "channel", "height", "width"]}
    image = {
        "name": INPUT_NAME,
        "description": f"RGB picture of {size.height}x{size.width} bytes, as they are: the model normalizes them",
        "dimension_names": ["batch", "height", "width", "channel"],
        "content": {
            "content_properties_type": 2,
            "content_properties": {
                "color_space": RGB,
                "default_size": {"width": size.width, "height": size.height},
            },
        },
        "process_units": [{"options_type": 1, "options": {"mean": [0.0], "std": [1.0]}}],
        "stats": {"max": [255.0], "min": [0.0]},
    }
    outputs = [
        {
            "name": name,
            "description": spec.meaning,
            "dimension_names": axes[len(shape)],
            "content": {"content_properties_type": 1, "content_properties": {}},
            # A detector's channels are anchors times (box, objectness, classes): no axis is the labels'.
            **({} if config.task == "detect" else {"associated_files": [axis_labels]}),
        }
        for name, shape in config.output_shapes().items()
    ]
    subgraph = {
        "name": config.task,
        "input_tensor_metadata": [image],
        "output_tensor_metadata": outputs,
        **({"associated_files": [labels]} if config.task == "detect" else {}),
    }
    # Another's weights are not ours to sign or to license.
    ours = {"author": "The XFormer Mobile authors", "license": "Apache-2.0"}
    return {
        "name": config.variant.name,
        "description": f"XFormer, {config.task}: {config.num_classes} classes, {weights['source']} weights",
        "version": __version__,
        "subgraph_metadata": [subgraph],
        **({} if weights["source"] == "checkpoint" else ours),
        "min_parser_version": PARSER_VERSION,
    }


# ---- flatbuffers by SCHEMA ---------------------------------------------------------------------------------


def _pack(fields: Fields) -> bytes:
    builder = require("flatbuffers", extra="tflite").Builder(1024)
    builder.Finish(_pack_table(builder, "ModelMetadata", fields), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _pack_table(builder: Any, table: str, fields: Fields) -> int:
    """Write a table, what it refers to first; returns its offset."""
    types = SCHEMA[table]
    assert fields.keys() <= {name for name, _ in types}, f"{table} has other fields than {', '.join(fields)}"
    offsets = {
        name: _pack_value(builder, _resolve(kind, fields), fields[name])
        for name, kind in types
        if name in fields and kind not in SCALARS
    }
    builder.StartObject(len(types))
    for place, (name, kind) in enumerate(types):
        if kind == "byte" and name in fields:
            builder.PrependUint8Slot(place, fields[name], 0)
        elif kind == "uint" and name in fields:
            builder.PrependUint32Slot(place, fields[name], 0)
        elif name in offsets:
            builder.PrependUOffsetTRelativeSlot(place, offsets[name], 0)
    return int(builder.EndObject())


def _pack_value(builder: Any, kind: str, value: Any) -> int:
    if kind == "string":
        return int(builder.CreateString(value))
    if not kind.startswith("["):
        return _pack_table(builder, kind, value)
    element = kind[1:-1]
    if element == "float":
        builder.StartVector(4, len(value), 4)
        for number in reversed(value):
            builder.PrependFloat32(number)
    else:
        offsets = [_pack_value(builder, element, entry) for entry in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _resolve(kind: str, fields: Fields) -> str:
    """A union's table, from the field that says which; any other type as it is."""
    return UNIONS[kind[1:]][fields[kind[1:]]] if kind.startswith("|") else kind


def _number(form: str, data: bytes, place: int) -> Any:
    (value,) = struct.unpack_from(form, data, place)
    return value


def _unpack_table(table: str, data: bytes, place: int) -> Fields:
    """Read a table: its fields' places are in a list, whose distance stands at the table's start."""
    places = place - _number("<i", data, place)
    count = (_number("<H", data, places) - 4) // 2
    fields: Fields = {}
    for index, (name, kind) in enumerate(SCHEMA[table]):
        distance = _number("<H", data, places + 4 + 2 * index) if index < count else 0
        if distance:
            fields[name] = _unpack_value(_resolve(kind, fields), data, place + distance)
    return fields


def _unpack_value(kind: str, data: bytes, place: int) -> Any:
    if kind in SCALARS:
        return _number(SCALARS[kind][0], data, place)
    target = place + _number("<I", data, place)
    if kind == "string":
        return data[target + 4 : target + 4 + _number("<I", data, target)].decode()
    if kind.startswith("["):
        element = kind[1:-1]
        size = SCALARS.get(element, ("", 4))[1]
        length = _number("<I", data, target)
        return [_unpack_value(element, data, target + 4 + size * index) for index in range(length)]
    return _unpack_table(kind, data, target)
