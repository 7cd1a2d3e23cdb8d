"""The graph of a .pte file: its kernels, and the operators of what it hands to XNNPACK. Reading it needs no package.

The numbers are those of the fields in ExecuTorch's ``program.fbs`` and in the ``schema.fbs`` of its XNNPACK backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from xformer_mobile.bench.counts.flatbuffer import Table, read_root
from xformer_mobile.bench.counts.graph import (
    Graph,
    Operator,
    Tensor,
    attention_macs,
    convolution_macs,
    matmul_macs,
    transposed_convolution_macs,
)

__all__ = ["ForeignDelegateError", "delegate_payload", "read", "segment_start"]

Item = TypeVar("Item")

IDENTIFIER = b"ET12"
HEADER_MAGIC = b"eh00"
METHOD = "forward"

XNNPACK = "XnnpackBackend"
XNNPACK_IDENTIFIER = b"XN01"
XNNPACK_HEADER_MAGIC = b"XH00"

BITS = {0: 8, 1: 8, 2: 16, 3: 32, 4: 64, 5: 16, 6: 32, 7: 64, 11: 8, 12: 8, 13: 8, 14: 32, 15: 16, 27: 16, 28: 32}
"""Bits of an element by PyTorch's ScalarType."""

XNNPACK_BITS = {1: 32, 2: 16, 3: 8, 4: 8, 5: 32, 6: 8, 7: 32, 8: 4, 9: 8, 10: 4, 11: 8, 12: 32, 13: 32, 14: 16}
"""Bits of an element by XNNDatatype."""

FLOATS = frozenset({5, 6, 7, 15})
XNNPACK_FLOATS = frozenset({1, 2})

XNNPACK_QUANTIZED = frozenset({3, 4, 5, 6, 7, 8, 9, 10, 11})

NO_VALUE = 2**32 - 1
"""XNN_INVALID_VALUE_ID: an operand that is left out."""

# Fields of the program's tables.
PLANS, INLINE_DATA, SEGMENTS = 1, 3, 4
PLAN_NAME, VALUES, CHAINS, OPERATORS, DELEGATES = 0, 2, 5, 6, 7
INSTRUCTIONS = 2
KERNEL_CALL, DELEGATE_CALL = 1, 2
VALUE_IS_TENSOR, VALUE_IS_TENSORS = 5, 10
IN_SEGMENT = 1
XNNPACK_QUANTIZED_VALUE = 2


@dataclass(frozen=True)
class _Kind:
    """A kind of XNNPACK node: the fields that have the ids of its operands, inputs first, and of how many."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def _one(name: str) -> _Kind:
    return _Kind(name, (0,), (1,))


def _two(name: str) -> _Kind:
    return _Kind(name, (0, 1), (2,))


def _convolution(name: str) -> _Kind:
    return _Kind(name, (15, 16, 17), (18,))


def _pooling(name: str) -> _Kind:
    return _Kind(name, (10,), (11,))


def _concatenation(count: int) -> _Kind:
    return _Kind(f"XNNConcatenate{count}", (1, 2, 3, 4, 7)[:count], (5,))


KINDS = (
    _two("XNNAdd"),
    _Kind("XNNFullyConnected", (0, 1, 2), (3,)),
    _one("XNNSoftmax"),
    _one("XNNSigmoid"),
    _Kind("XNNStaticTranspose", (2,), (3,)),
    _one("XNNClamp"),
    _convolution("XNNConv2d"),
    _two("XNNDiv"),
    _Kind("XNNStaticResizeBilinear2D", (2,), (3,)),
    _Kind("XNNStaticConstantPad", (3,), (4,)),
    _pooling("XNNAvgPooling2d"),
    _two("XNNMinimum"),
    _convolution("XNNDepthwiseConv2d"),
    _pooling("XNNMaxPooling2d"),
    _two("XNNMultiply"),
    _two("XNNSubtract"),
    _one("XNNFloor"),
    _one("XNNConvert"),
    _one("XNNGlobalAvgPooling2d"),
    _Kind("XNNStaticReshape", (2,), (3,)),
    _Kind("XNNArgMaxPooling2d", (6,), (7, 8)),
    _one("XNNSquareRoot"),
    _one("XNNCeiling"),
    _one("XNNHardswish"),
    _Kind("XNNLeakyReLU", (1,), (2,)),
    _two("XNNMaximum"),
    _one("XNNNegate"),
    _one("XNNSquare"),
    _Kind("XNNELU", (1,), (2,)),
    _one("XNNAbs"),
    _two("XNNPReLU"),
    _concatenation(2),
    _concatenation(3),
    _concatenation(4),
    _Kind("XNNStaticSlice", (3,), (4,)),
    _Kind("XNNScaledDotProductAttention", (0, 1, 2, 3, 4), (5,)),
    _two("XNNBatchMatrixMultiply"),
    _concatenation(5),
    _convolution("XNNConvTranspose2d"),
    _one("XNNReciprocalSquareRoot"),
    _one("XNNLog"),
    _one("XNNGelu"),
    _one("XNNTanh"),
    _one("XNNExp"),
    _one("XNNSin"),
    _one("XNNCopy"),
    _one("XNNCos"),
)
"""XNodeUnion, whose numbers start at 1."""

KERNEL_HEIGHT, KERNEL_WIDTH, GROUP_INPUTS, GROUP_OUTPUTS = 4, 5, 10, 11


class ForeignDelegateError(ValueError):
    """The program hands operators to a delegate whose form is not known here. ``graph`` is what is outside of it."""

    def __init__(self, name: str, graph: Graph) -> None:
        super().__init__(f"it delegates to {name[:40]}, whose form is not known")
        self.graph = graph


def read(path: Path) -> Graph:
    """Read a .pte file, whose shapes are static.

    Raises:
        ForeignDelegateError: operators are inside a delegate that is not XNNPACK.
        ValueError: no .pte file, a truncated one, or one of an unknown form.
    """
    content = path.read_bytes()
    program = read_root(content, IDENTIFIER)
    for segment in program.tables(SEGMENTS):
        if segment_start(content, segment) + segment.scalar(1, "Q") > len(content):
            raise ValueError("it is truncated")
    plans = [plan for plan in program.tables(PLANS) if plan.text(PLAN_NAME) == METHOD]
    if len(plans) != 1:
        raise ValueError(f"it has {len(plans)} methods of the name {METHOD!r}")
    (plan,) = plans
    values, delegates = plan.tables(VALUES), plan.tables(DELEGATES)
    names = [operator.text(0) for operator in plan.tables(OPERATORS)]
    operators: list[Operator] = []
    constants: dict[str, int] = {}
    outside = partitions = 0
    foreign = ""
    for chain in plan.tables(CHAINS):
        for instruction in chain.tables(INSTRUCTIONS):
            kind, call = instruction.scalar(0, "B"), instruction.table(1)
            if call is None or kind not in (KERNEL_CALL, DELEGATE_CALL):  # frees, moves and jumps compute nothing
                continue
            if kind == KERNEL_CALL:
                outside += 1
                operators.append(_kernel(_at(names, call.scalar(0, "i")), values, call.numbers(1, "i")))
                continue
            partitions += 1
            delegate = _at(delegates, call.scalar(0, "i"))
            if delegate.text(0) != XNNPACK:
                foreign = delegate.text(0)
                continue
            inside, stored = _read_xnnpack(delegate_payload(content, program, delegate), partitions)
            operators += inside
            constants |= {key or f"{partitions} {index}": size for index, (key, size) in enumerate(stored)}
    for index, value in enumerate(values):
        found = _tensor(value)
        if found is not None and found.is_constant:
            constants[f"value {index}"] = found.size_bytes
    graph = Graph(tuple(operators), sum(constants.values()), partitions, outside)
    if foreign:
        raise ForeignDelegateError(foreign, graph)
    return graph


# ---- the program --------------------------------------------------------------------------------------------


def _at(items: Sequence[Item], index: int) -> Item:
    if not 0 <= index < len(items):
        raise ValueError(f"it refers to number {index} of {len(items)}")
    return items[index]


def _tensor(value: Table) -> Tensor | None:
    """The tensor of an EValue; None where it is something else."""
    tensor = value.table(1)
    if tensor is None or value.scalar(0, "B") != VALUE_IS_TENSOR:
        return None
    is_constant = tensor.scalar(5, "I") > 0 and tensor.table(6) is None
    kind = tensor.scalar(0, "b")
    return Tensor(tensor.numbers(2, "i"), BITS.get(kind, 0), is_constant, kind in FLOATS)


def _kernel(name: str, values: Sequence[Table], places: Sequence[int]) -> Operator:
    """A kernel that runs outside of the delegates; its last argument is its output."""
    if len(places) > 1 and places[-1] == places[-2]:  # what it returns is its output
        places = places[:-1]
    found = [_at(values, place) for place in places]
    operands = [(f"value {place}", _tensor(value)) for place, value in zip(places, found, strict=True)]
    for value in found:
        if value.scalar(0, "B") == VALUE_IS_TENSORS and (listed := value.table(1)) is not None:
            inner = [(f"value {place}", _tensor(_at(values, place))) for place in listed.numbers(0, "i")]
            operands = [*inner, *operands]
    known = tuple((place, tensor) for place, tensor in operands if tensor is not None)
    return Operator(
        name, _kernel_macs(name, found), known[:-1], known[-1:], f"{name} {places[-1] if places else ''}".strip()
    )


def _kernel_macs(name: str, arguments: Sequence[Table]) -> int:
    """Of PyTorch's operators, whose arguments stand in the order of their schemas."""

    def shape(index: int) -> tuple[int, ...]:
        tensor = _tensor(_at(arguments, index % len(arguments)))
        if tensor is None:
            raise ValueError(f"an argument of {name[:80]} is no tensor")
        return tensor.shape

    if name in ("aten::mm", "aten::bmm", "aten::linear"):
        return matmul_macs(shape(-1), shape(0)[-1])
    if name == "aten::addmm":
        return matmul_macs(shape(-1), shape(1)[-1])
    if name == "aten::convolution":
        transposed = arguments[6].table(1)
        if transposed is not None and transposed.scalar(0, "B"):
            return transposed_convolution_macs(shape(0), shape(1)[1:])
        return convolution_macs(shape(-1), shape(1)[1:])
    return 0


def delegate_payload(content: bytes, program: Table, delegate: Table) -> bytes:
    """The bytes of a delegate of a program, in the file's ``content``.

    Raises:
        ValueError: it has none.
    """
    place = delegate.table(1)
    if place is None:
        raise ValueError("a delegate has no content")
    index = place.scalar(1, "I")
    if place.scalar(0, "b") != IN_SEGMENT:
        return _at(program.tables(INLINE_DATA), index).content(0)
    segment = _at(program.tables(SEGMENTS), index)
    start = segment_start(content, segment)
    return content[start : start + segment.scalar(1, "Q")]


def segment_start(content: bytes, segment: Table) -> int:
    """Where in the file's ``content`` one of its segments begins, in bytes.

    Raises:
        ValueError: the file does not say where its segments are.
    """
    if content[8:12] != HEADER_MAGIC:
        raise ValueError("it has no header that says where its segments are")
    return int.from_bytes(content[24:32], "little") + segment.scalar(0, "Q")


# ---- XNNPACK's part -----------------------------------------------------------------------------------------


def _read_xnnpack(payload: bytes, partition: int) -> tuple[list[Operator], list[tuple[str, int]]]:
    """The nodes of the delegate of that number; the key, if there is one, and the bytes of each constant."""
    if payload[4:8] == XNNPACK_HEADER_MAGIC:
        start, size = int.from_bytes(payload[10:14], "little"), int.from_bytes(payload[14:18], "little")
        payload = payload[start : start + size]
    graph = read_root(payload, XNNPACK_IDENTIFIER)
    values = {}
    for value in graph.tables(2):
        inner = value.table(1)
        if inner is not None and value.scalar(0, "B") == XNNPACK_QUANTIZED_VALUE:
            inner = inner.table(0)
        if inner is None:
            raise ValueError("a value of XNNPACK's is empty")
        values[inner.scalar(6, "I")] = _XnnpackValue(inner.numbers(2, "I"), inner.scalar(0, "h"), inner.scalar(3, "I"))
    operators = []
    for node in graph.tables(1):
        number, fields = node.scalar(0, "B"), node.table(1)
        if fields is None or not 1 <= number <= len(KINDS):
            raise ValueError(f"XNNPACK's node {number} is not known")
        operators.append(_node(KINDS[number - 1], fields, values, partition))
    used = {value.constant for value in values.values() if value.constant}
    stored = [(data.text(2), data.scalar(1, "Q")) for data in graph.tables(8)]
    return operators, [entry for index, entry in enumerate(stored) if index in used or (index and not entry[0])]


@dataclass(frozen=True)
class _XnnpackValue:
    """``constant`` is the number of its constant data, 0 where it has none."""

    shape: tuple[int, ...]
    kind: int
    constant: int

    @property
    def tensor(self) -> Tensor:
        return Tensor(self.shape, XNNPACK_BITS.get(self.kind, 0), self.constant > 0, self.kind in XNNPACK_FLOATS)


def _node(kind: _Kind, fields: Table, values: Mapping[int, _XnnpackValue], partition: int) -> Operator:
    ids = [fields.scalar(field, "I") for field in (*kind.inputs, *kind.outputs)]
    if any(number != NO_VALUE and number not in values for number in ids):
        raise ValueError(f"an operand of {kind.name} does not exist")
    operands = [values.get(number) for number in ids]
    name = kind.name
    if name == "XNNConvert":
        before, after = (value is not None and value.kind in XNNPACK_QUANTIZED for value in operands)
        name = name if before == after else "dequantize" if before else "quantize"
    shapes = [() if value is None else value.shape for value in operands]
    named = [(f"{partition} {number}", value) for number, value in zip(ids, operands, strict=True)]
    inputs, outputs = (
        tuple((number, value.tensor) for number, value in side if value is not None)
        for side in (named[: len(kind.inputs)], named[len(kind.inputs) :])
    )
    return Operator(name, _node_macs(kind.name, fields, shapes), inputs, outputs, f"{name} {partition} {ids[-1]}")


def _node_macs(kind: str, fields: Table, shapes: Sequence[tuple[int, ...]]) -> int:
    sides = fields.scalar(KERNEL_HEIGHT, "I"), fields.scalar(KERNEL_WIDTH, "I")
    if kind == "XNNConv2d":
        return convolution_macs(shapes[-1], (fields.scalar(GROUP_INPUTS, "I"), *sides))
    if kind == "XNNDepthwiseConv2d":
        return convolution_macs(shapes[-1], sides)
    if kind == "XNNConvTranspose2d":
        return transposed_convolution_macs(shapes[0], (fields.scalar(GROUP_OUTPUTS, "I"), *sides))
    if kind in ("XNNFullyConnected", "XNNBatchMatrixMultiply"):
        return matmul_macs(shapes[-1], shapes[0][-1])
    if kind == "XNNScaledDotProductAttention":
        return attention_macs(*shapes[:3])
    return 0
