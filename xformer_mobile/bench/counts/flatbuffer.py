"""A reader of FlatBuffers tables by field number, for schemas of which a few fields are needed.

FlatBuffers' binary format (https://flatbuffers.dev/internals/): a table starts with the distance back to its vtable,
which has, for each field of the schema in its order, where in the table the field is, or 0. Fields are only ever added
at the end, so that their numbers are the schema's promise.

Everything is checked against the file's end; what leads out of it is a ValueError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

__all__ = ["Table", "read_root"]


@dataclass(frozen=True)
class Table:
    """A table at ``position`` of ``data``. ``layout`` below is a type of the module struct: "I", "b", "q"."""

    data: bytes
    position: int

    def scalar(self, field: int, layout: str, default: int = 0) -> int:
        """A number; the schema's default where it is not stored."""
        place = self._find(field)
        return default if place is None else _read(self.data, layout, place)

    def table(self, field: int) -> Table | None:
        """A table, or a union's; None where there is none."""
        place = self._find(field)
        return None if place is None else Table(self.data, _follow(self.data, place))

    def text(self, field: int) -> str:
        """A string; empty where there is none."""
        return self.content(field).decode("utf-8")

    def content(self, field: int) -> bytes:
        """The bytes of a string or of a vector of bytes."""
        start, length = self._vector(field, 1)
        return self.data[start : start + length]

    def length(self, field: int, element_bytes: int = 1) -> int:
        """How many elements a vector has."""
        return self._vector(field, element_bytes)[1]

    def numbers(self, field: int, layout: str) -> tuple[int, ...]:
        """A vector of numbers."""
        size = struct.calcsize(f"<{layout}")
        start, length = self._vector(field, size)
        return struct.unpack_from(f"<{length}{layout}", self.data, start)

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        start, length = self._vector(field, 4)
        return [Table(self.data, _follow(self.data, start + 4 * index)) for index in range(length)]

    def texts(self, field: int) -> list[str]:
        """A vector of strings."""
        start, length = self._vector(field, 4)
        found = []
        for index in range(length):
            place = _follow(self.data, start + 4 * index)
            size = _read(self.data, "I", place)
            _check(self.data, place + 4, size)
            found.append(self.data[place + 4 : place + 4 + size].decode("utf-8"))
        return found

    def _find(self, field: int) -> int | None:
        vtable = self.position - _read(self.data, "i", self.position)
        entry = 4 + 2 * field
        if entry + 2 > _read(self.data, "H", vtable):
            return None
        offset = _read(self.data, "H", vtable + entry)
        return self.position + offset if offset else None

    def _vector(self, field: int, element_bytes: int) -> tuple[int, int]:
        """Where a vector's elements start, and how many there are."""
        place = self._find(field)
        if place is None:
            return 0, 0
        start = _follow(self.data, place)
        length = _read(self.data, "I", start)
        _check(self.data, start + 4, length * element_bytes)
        return start + 4, length


def read_root(data: bytes, identifier: bytes) -> Table:
    """The root table of a file.

    Raises:
        ValueError: the file does not bear the ``identifier``, or has less than a table.
    """
    if data[4:8] != identifier:
        raise ValueError(f"it does not bear the identifier {identifier.decode()}")
    return Table(data, _follow(data, 0))


def _follow(data: bytes, place: int) -> int:
    return place + _read(data, "I", place)


def _read(data: bytes, layout: str, place: int) -> int:
    _check(data, place, struct.calcsize(f"<{layout}"))
    value: Any = struct.unpack_from(f"<{layout}", data, place)[0]
    return int(value)


def _check(data: bytes, place: int, size: int) -> None:
    if place < 0 or place + size > len(data):
        raise ValueError("it leads out of the file, which is truncated or foreign")
