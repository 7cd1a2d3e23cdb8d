"""The constants of a .pte file, held against those of the modules that they were made from.

XNNPACK's part of a .pte file is one call, and ExecuTorch's event tracer records intermediate outputs outside of
delegates only: the file's inner tensors can't be had. What XNNPACK is given can: the weights, with their scales, and
the bias of each of its convolutions. :func:`compare_weights` compares these, and nothing else. Nothing is run. So what
is not seen here, but in the outputs alone, is a wrong op, stride or padding, a wrong order of ops, a wrong scale or
zero point of an activation, and a wrong constant of anything but a convolution, such as LayerNorm's gain or the
matrices of XFA's matmuls in the mobile form.

The file has no names: which convolution is which module's is told by the weights themselves, see :func:`_assign`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from xformer_export.layers.compare import LayerReport, LayerRow, Limits
from xformer_mobile.bench.counts import read_executorch as pte
from xformer_mobile.bench.counts.flatbuffer import Table, read_root
from xformer_mobile.errors import BundleError, UnavailableError
from xformer_mobile.spec import lookup

__all__ = ["WEIGHT_LIMITS", "compare_weights"]

Array = npt.NDArray[np.float64]

WEIGHT_LIMITS = {
    "fp32": Limits(own_snr_db=120.0, gain=1e-4, shift=1e-5),
    "fp16": Limits(own_snr_db=60.0, gain=0.002, shift=0.005),
    "int8-weights": Limits(own_snr_db=30.0, gain=0.015, shift=0.001),
    "int8": Limits(own_snr_db=30.0, gain=0.015, shift=0.01),
}
"""By precision: for the weights' signal-to-noise ratio, the largest gain of an output channel, and the bias' shift.

The unit of ``shift`` is the root mean square over the channels of what the module makes, with its bias, of inputs of
mean 0 and variance 1.
"""

RESEMBLES = 0.5
"""Weights whose cosine with a module's is below this are not that module's."""

SAME = 0.99
"""Weights that no module is left for are a further use of a module's where their cosine is at least this."""

LEAST_CHANNEL = 1e-3
"""A gain is looked for in output channels whose weights have at least this share of the largest channel's norm."""

DTYPES = {1: "<f4", 2: "<f2", 6: "i1", 7: "<i4"}
"""What constants are held in, by XNNDatatype: floats, and integers with a scale for each output channel."""

PER_CHANNEL = 1
"""Number of XNNPACK's kind of quantization with such scales, in XNNQuantParams."""

FILTER_LAYOUTS: dict[str, tuple[int, ...]] = {"XNNConv2d": (0, 3, 1, 2), "XNNDepthwiseConv2d": (3, 0, 1, 2)}
"""By kind of node: the filter's axes in the order (out, in / groups, height, width)."""

NAMED_DATA = 7
"""The field of a program's table that says in which segment the data of a name is."""


@dataclass(frozen=True)
class _Constants:
    """A convolution's: weights (out, in / groups, height, width) and bias (out,), dequantized."""

    weight: Array
    bias: Array

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean over the channels, which the converter writes as a convolution: no module's."""
        return self.weight.shape[0] == 1 and np.allclose(self.weight * self.weight[0].size, 1, rtol=0.01, atol=0)


def compare_weights(form: nn.Module, path: Path, precision: str) -> LayerReport:
    """Compare the weights and the bias of each convolution in a .pte file with its module's.

    Only constants are compared and nothing is run: see this module's docstring for what is not seen. The rows are in
    the order of the form's modules; a module that runs several times has the worst figures of its uses. Means over the
    channels, and whatever else the converter writes as a convolution, resemble no module's weights and are left out.
    Modules of equal weights (XFA's sums over a head's features) can't be told apart: any of them may be blamed.

    Args:
        form: what was exported: the mobile form, in int8 and int8-weights the patch form.
        path: a .pte file of XNNPACK's.
        precision: the artifact's; its limits are :data:`WEIGHT_LIMITS`.

    Returns:
        A report of no pictures. In a row ``own_snr_db`` is the weights' own, ``gain`` the largest of all output
        channels', ``shift`` the bias', in the unit of :data:`WEIGHT_LIMITS`, and ``snr_db`` None. The figures of a
        module that no weights in the file resemble are NaN.

    Raises:
        BundleError: no .pte file, a truncated one, or one of an unknown form.
        UnavailableError: a delegate that is not XNNPACK has the weights.
    """
    limits = lookup("precision", precision, WEIGHT_LIMITS)
    stored = [one for one in _read(path) if not one.is_mean]
    modules = {name: module for name, module in form.named_modules() if isinstance(module, nn.Conv2d)}
    wanted = {name: _of_module(module) for name, module in modules.items()}
    uses = _assign(list(wanted.values()), stored)
    rows = []
    for (name, expected), found in zip(wanted.items(), uses, strict=True):
        kind = f"{type(modules[name]).__name__} weights"
        rows.append(_row(name, kind, expected, [stored[index] for index in found], limits))
    return LayerReport(0, limits, len(modules), tuple(rows))


def _of_module(module: nn.Conv2d) -> _Constants:
    weight = module.weight.detach().double().numpy()
    bias = np.zeros(len(weight)) if module.bias is None else module.bias.detach().double().numpy()
    return _Constants(weight, bias)


# ---- which is whose ----------------------------------------------------------------------------------------------


def _assign(wanted: Sequence[_Constants], stored: Sequence[_Constants]) -> list[list[int]]:
    """For each of ``wanted`` the numbers of those ``stored`` that are its own; none where none resembles it.

    Weights are one's own if they have its shape and its direction. The nearest pairs are chosen first, one to one; then
    what is left goes to what it is nearest to, for a module can run several times.
    """
    pairs = []
    for place, one in enumerate(wanted):
        for index, other in enumerate(stored):
            if one.weight.shape == other.weight.shape:
                cosine, distance = _cosine_and_distance(one.weight, other.weight)
                if cosine >= RESEMBLES:
                    pairs.append((distance, place, index, cosine))
    pairs.sort()
    uses: list[list[int]] = [[] for _ in wanted]
    taken: set[int] = set()
    for _, place, index, _ in pairs:
        if not uses[place] and index not in taken:
            uses[place].append(index)
            taken.add(index)
    for _, place, index, cosine in pairs:
        if index not in taken and cosine >= SAME:
            uses[place].append(index)
            taken.add(index)
    return uses


def _cosine_and_distance(expected: Array, found: Array) -> tuple[float, float]:
    """How near two tensors' directions are, whatever their signs, and their difference in shares of ``expected``."""
    with np.errstate(all="ignore"):
        own, other = float(np.linalg.norm(expected)), float(np.linalg.norm(found))
        distance = float(np.linalg.norm(found - expected))
        if distance == 0:
            return 1.0, 0.0
        if not (own and other and math.isfinite(other)):
            return 0.0, math.inf
        return abs(float(np.vdot(expected, found))) / own / other, distance / own


# ---- figures -----------------------------------------------------------------------------------------------------


def _row(path: str, kind: str, expected: _Constants, found: Sequence[_Constants], limits: Limits) -> LayerRow:
    name = f"{path} ({kind})"
    if not found:
        miss = f"{name}: no convolution in the file has weights that resemble the module's"
        return LayerRow(path, kind, math.nan, math.nan, math.nan, None, (miss,))
    snr_db = float(np.min([_snr_db(expected.weight, one.weight) for one in found]))
    gain = float(np.max([_gain(expected.weight, one.weight) for one in found]))
    shift = float(np.max([_shift(expected, one) for one in found]))
    return LayerRow(path, kind, snr_db, gain, shift, None, tuple(_misses(name, snr_db, gain, shift, limits)))


def _misses(name: str, snr_db: float, gain: float, shift: float, limits: Limits) -> Iterator[str]:
    """One sentence for each limit that is not kept; a figure that is NaN keeps none."""
    if not gain <= limits.gain:
        yield f"{name} are scaled wrongly by {gain:.2%}; {limits.gain:.2%} is allowed"
    if not snr_db >= limits.own_snr_db:
        yield f"{name} have a signal-to-noise ratio of {snr_db:.1f} dB; {limits.own_snr_db:.0f} dB needed"
    if not shift <= limits.shift:
        yield f"{name}: the bias is off by {shift:.2g} of what the module makes; {limits.shift:.2g} is allowed"


def _snr_db(expected: Array, found: Array) -> float:
    """10 log10 of the power of the weights over that of the difference; infinite where there is none."""
    noise = float(np.square(found - expected).sum())
    if noise == 0:
        return math.inf
    signal = float(np.square(expected).sum())
    return 10 * math.log10(signal / noise) if signal and math.isfinite(noise) else -math.inf


def _gain(expected: Array, found: Array) -> float:
    """How far from 1 the slope of an output channel's weights is over the module's; the largest of all channels."""
    e, f = expected.reshape(len(expected), -1), found.reshape(len(found), -1)
    power = np.square(e).sum(1)
    heard = power > LEAST_CHANNEL**2 * power.max()
    return float(np.max(np.abs((e * f).sum(1)[heard] / power[heard] - 1), initial=0.0))


def _shift(expected: _Constants, found: _Constants) -> float:
    """The largest difference of a bias, in the unit of WEIGHT_LIMITS."""
    difference = float(np.max(np.abs(found.bias - expected.bias)))
    power = float(np.square(expected.weight).sum() + np.square(expected.bias).sum()) / len(expected.bias)
    return difference / math.sqrt(power) if difference else 0.0


# ---- the file ----------------------------------------------------------------------------------------------------


def _read(path: Path) -> list[_Constants]:
    """The constants of all convolutions in a file, in the order of its nodes.

    What computes is inside XNNPACK's parts: the converter refuses to write anything else.
    """
    try:
        pte.read(path)  # which checks the whole of the program's form, and what it delegates to
        content = path.read_bytes()
        program = read_root(content, pte.IDENTIFIER)
        found: list[_Constants] = []
        for plan in program.tables(pte.PLANS):
            if plan.text(pte.PLAN_NAME) == pte.METHOD:
                for delegate in plan.tables(pte.DELEGATES):
                    found += _Part(content, program, delegate).convolutions()
    except pte.ForeignDelegateError as error:
        raise UnavailableError(f"the weights of {path.name} can't be read: {error}") from error
    except OSError as error:
        raise BundleError(f"can't read {path}: {error.strerror or error}") from error
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} has an unknown form: {type(error).__name__}: {error}") from error
    return found


class _Part:
    """A part of a program that is XNNPACK's: its values and their data."""

    def __init__(self, content: bytes, program: Table, delegate: Table) -> None:
        self.content, self.program = content, program
        self.payload = pte.delegate_payload(content, program, delegate)
        start, size, self.data_start = 0, len(self.payload), 0
        if self.payload[4:8] == pte.XNNPACK_HEADER_MAGIC:
            start, size, self.data_start = (
                int.from_bytes(self.payload[place : place + 4], "little") for place in (10, 14, 18)
            )
        self.graph = read_root(self.payload[start : start + size], pte.XNNPACK_IDENTIFIER)
        self.data = self.graph.tables(8)
        self.segments = program.tables(pte.SEGMENTS)
        self.segment_of = {one.text(0): one.scalar(1, "I") for one in program.tables(NAMED_DATA)}
        self.values: Mapping[int, tuple[Table, Table | None, int]] = dict(map(_value, self.graph.tables(2)))

    def convolutions(self) -> Iterator[_Constants]:
        """The constants of each node that is a convolution or a matmul with constant weights."""
        for node in self.graph.tables(1):
            kind, fields = pte.KINDS[node.scalar(0, "B") - 1], node.table(1)
            if fields is None or kind.name not in (*FILTER_LAYOUTS, "XNNFullyConnected"):
                continue
            _, filter_id, bias_id = (fields.scalar(field, "I") for field in kind.inputs)
            weight = self._constant(filter_id)
            if weight is None:  # computed when it runs
                continue
            if kind.name in FILTER_LAYOUTS:
                weight = weight.transpose(FILTER_LAYOUTS[kind.name])
            else:
                weight = weight[:, :, None, None]
            bias = None if bias_id == pte.NO_VALUE else self._constant(bias_id)
            yield _Constants(weight, np.zeros(len(weight)) if bias is None else bias)

    def _constant(self, number: int) -> Array | None:
        """A value, dequantized; None where it is no constant."""
        tensor, quantization, kind = self.values[number]
        place = tensor.scalar(3, "I")
        if not place:
            return None
        stored = np.frombuffer(self._bytes(place), DTYPES[tensor.scalar(0, "h")]).reshape(tensor.numbers(2, "I"))
        values: Array = stored.astype(np.float64)
        if quantization is None:
            return values
        if kind != PER_CHANNEL:
            raise ValueError("a constant is quantized in a way that is not known")
        scales = quantization.numbers(0, "f") or np.frombuffer(self._bytes(quantization.scalar(2, "I")), "<f4")
        along = [1] * values.ndim
        along[quantization.scalar(1, "i")] = -1
        return values * np.asarray(scales, np.float64).reshape(along)

    def _bytes(self, place: int) -> bytes:
        """The constant data of a number: in a segment of the program's by its name, or behind the part's graph."""
        entry = self.data[place]
        size, name = entry.scalar(1, "Q"), entry.text(2)
        if name:
            start = pte.segment_start(self.content, self.segments[self.segment_of[name]])
            return self.content[start : start + size]
        start = self.data_start + entry.scalar(0, "Q")
        return self.payload[start : start + size]


def _value(value: Table) -> tuple[int, tuple[Table, Table | None, int]]:
    """The id of a value of XNNPACK's, its tensor, and how it is quantized: the table and its kind."""
    tensor, quantization, kind = value.table(1), None, 0
    if tensor is not None and value.scalar(0, "B") == pte.XNNPACK_QUANTIZED_VALUE:
        kind, quantization, tensor = tensor.scalar(1, "B"), tensor.table(2), tensor.table(0)
    if tensor is None:
        raise ValueError("a value of XNNPACK's is empty")
    return tensor.scalar(6, "I"), (tensor, quantization, kind)
