"""ONNX Runtime's .ort files, made repeatable.

ONNX Runtime writes one table of a .ort file, the kernels' type constraints by operator, in the order of a hash map
whose seed differs from run to run. :func:`canonical` writes the same entries in sorted order. The layout is that of
ONNX Runtime's ``ort.fbs``: InferenceSession (field 3) -> KernelTypeStrResolver (0) -> operators (id, constraints)
-> constraints (name, arguments) -> arguments (kind, index).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import flatbuffers
from flatbuffers import encode, packer, table
from flatbuffers import number_types as types

__all__ = ["canonical"]

RESOLVER_FIELD = 3
ALIGNMENT = 8


def canonical(content: bytes) -> bytes:
    """A .ort file with the same content and bytes that depend on nothing else.

    The sorted table is appended, the old one is overwritten with zeros. What this refuses is a file whose layout is
    not the one above.

    Raises:
        ValueError: the file is laid out in another way.
    """
    try:
        return _canonical(bytearray(content))
    except struct.error as error:  # an offset that leads out of the file
        raise ValueError("not a .ort file, or a truncated one") from error


def _canonical(data: bytearray) -> bytes:
    root = table.Table(data, encode.Get(packer.uoffset, data, 0))
    where = root.Offset(4 + 2 * RESOLVER_FIELD)
    if data[4:8] != b"ORTM" or not where:
        raise ValueError("not a .ort file with a table of kernel types")
    field = root.Pos + where
    old = _Region()
    operators = sorted(_read(data, root.Indirect(field), old))
    start, end = old.span
    if not (root.Pos < start and _vtable(root) < start):
        raise ValueError("the table of kernel types is not where it is expected")
    data[start:end] = bytes(end - start)
    data += bytes(-len(data) % ALIGNMENT)
    built = _build(operators)
    position = len(data) + encode.Get(packer.uoffset, built, 0)
    encode.Write(packer.uoffset, data, field, position - field)
    return bytes(data + built)


class _Region:
    """The bytes from the first to the last of a few objects."""

    def __init__(self) -> None:
        self.edges: list[int] = []

    def add(self, start: int, size: int) -> None:
        self.edges += [start, start + size]

    @property
    def span(self) -> tuple[int, int]:
        return min(self.edges), max(self.edges)


def _vtable(of: Any) -> int:
    return int(of.Pos - encode.Get(packer.soffset, of.Bytes, of.Pos))


def _read(data: bytearray, position: int, region: _Region) -> list[Any]:
    """The operators of a resolver at ``position``; adds what they occupy to ``region``."""
    resolver = table.Table(data, position)
    _add_table(resolver, region)
    operators = []
    for operator in _children(resolver, 0, region):
        constraints = []
        for constraint in _children(operator, 1, region):
            arguments = []
            for argument in _children(constraint, 1, region):
                kind, index = argument.Offset(4), argument.Offset(6)
                arguments.append(
                    (
                        argument.Get(types.Int8Flags, argument.Pos + kind) if kind else 0,
                        argument.Get(types.Uint32Flags, argument.Pos + index) if index else 0,
                    )
                )
            constraints.append((_string(constraint, 0, region), arguments))
        operators.append((_string(operator, 0, region), constraints))
    return operators


def _add_table(of: Any, region: _Region) -> None:
    vtable = _vtable(of)
    region.add(of.Pos, encode.Get(packer.voffset, of.Bytes, vtable + 2))


def _children(of: Any, field: int, region: _Region) -> Iterator[Any]:
    offset = of.Offset(4 + 2 * field)
    if not offset:
        return
    start, length = of.Vector(offset), of.VectorLen(offset)
    region.add(start - 4, 4 + 4 * length)
    for index in range(length):
        child = table.Table(of.Bytes, of.Indirect(start + 4 * index))
        _add_table(child, region)
        yield child


def _string(of: Any, field: int, region: _Region) -> bytes:
    offset = of.Offset(4 + 2 * field)
    text: bytes = of.String(of.Pos + offset)
    region.add(of.Pos + offset + encode.Get(packer.uoffset, of.Bytes, of.Pos + offset), 4 + len(text) + 1)
    return text


def _build(operators: list[Any]) -> bytes:
    """A buffer with a resolver of these operators as its root."""
    builder = flatbuffers.Builder()

    def vector(items: list[int]) -> int:
        builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            builder.PrependUOffsetTRelative(item)
        return int(builder.EndVector())

    def named(name: bytes, items: list[int]) -> int:
        text, children = builder.CreateString(name), vector(items)
        builder.StartObject(2)
        builder.PrependUOffsetTRelativeSlot(0, text, 0)
        builder.PrependUOffsetTRelativeSlot(1, children, 0)
        return int(builder.EndObject())

    def argument(kind: int, index: int) -> int:
        builder.StartObject(2)
        builder.PrependInt8Slot(0, kind, 0)
        builder.PrependUint32Slot(1, index, 0)
        return int(builder.EndObject())

    entries = [
        named(name, [named(constraint, [argument(*pair) for pair in pairs]) for constraint, pairs in constraints])
        for name, constraints in operators
    ]
    all_entries = vector(entries)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, all_entries, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())
