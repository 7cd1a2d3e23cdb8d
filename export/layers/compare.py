"""Each layer of an artifact against the module that it was made from, on the artifact's own values.

The exported form is run once more for each picture, but what goes into a module and what comes out of it is replaced by
the artifact's own tensors at the same place. So every module computes what it should have made of what the artifact
gave it: the difference is its own alone, in int8 too, where the errors of all layers before it would hide it. Of a
module with parts only what it does itself is compared, such as a residual sum or a mean: its parts' outputs are the
artifact's. Three figures tell the kinds of fault apart: the signal-to-noise ratio, the gain (a scale is wrong) and the
shift (an offset or a zero point is).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xformer_export.layers.operators import ArtifactLayers, FloatArray, boundaries, holds_picture, is_within
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.spec import lookup
from xformer_mobile.zoo import one_thread

__all__ = ["IMAGE", "LIMITS", "LayerReport", "LayerRow", "Limits", "compare_layers"]

IMAGE = "image"
"""The path of the row that stands for what is made of the picture in front of the first module."""


@dataclass(frozen=True)
class Limits:
    """What every layer of an artifact of one precision must keep.

    ``own_snr_db``: the smallest signal-to-noise ratio of its own. ``gain``: how far its scale may be from 1.
    ``shift``: how far its mean may be off, in quantization steps (of a tensor without: in standard deviations).
    """

    own_snr_db: float
    gain: float
    shift: float

    def as_json(self) -> dict[str, float]:
        """The limits by name."""
        return asdict(self)


LIMITS = {
    "fp32": Limits(own_snr_db=90.0, gain=1e-4, shift=1e-4),
    "fp16": Limits(own_snr_db=40.0, gain=0.01, shift=0.02),
    "int8-weights": Limits(own_snr_db=30.0, gain=0.015, shift=0.02),
    "int8": Limits(own_snr_db=15.0, gain=0.025, shift=0.5),
}
"""By precision."""

SURE = 3.0
"""So many standard errors of a gain or a shift are taken from it: that much can be the rounding's."""

LEAST_SPREAD = 2.0
"""A gain is looked for where the values' standard deviation is at least so many quantization steps."""

CONSTANT = 1e-9
"""Values whose variance is below this share of their mean square are all the same."""

WITHIN_ROUNDING = 1.0
"""A layer whose root mean square error is below so many quantization steps has no noise but that of rounding."""


@dataclass(frozen=True)
class LayerRow:
    """One module's figures over all pictures; where several tensors are its work, the worst of each.

    ``path`` is the module's in the exported form, ``kind`` its class. ``own_snr_db`` (10 log10 of the power of what it
    should have given over that of the difference), ``gain`` and ``shift`` are of what the artifact has against what the
    module makes of the artifact's own input; the unit of ``shift`` is that of :class:`Limits`. ``snr_db`` is of the
    artifact's output against the form's own, with all that was lost before; None where there is no such output.
    ``misses`` has one sentence for each limit that is not kept.
    """

    path: str
    kind: str
    own_snr_db: float
    gain: float
    shift: float
    snr_db: float | None
    misses: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all limits are kept."""
        return not self.misses

    def as_json(self) -> dict[str, Any]:
        """The row; a figure that is not finite is None, as JSON has no such numbers."""
        figures = {name: getattr(self, name) for name in ("own_snr_db", "gain", "shift", "snr_db")}
        finite = {
            name: value if value is not None and math.isfinite(value) else None for name, value in figures.items()
        }
        return {"path": self.path, "kind": self.kind, **finite, "passed": self.passed}


@dataclass(frozen=True)
class LayerReport:
    """All layers of an artifact, in the order in which they run. Truthy where each keeps its limits.

    ``modules`` is how many modules compute something that is not a part's output, ``compared`` how many of them have a
    row; the row of the picture is none of them. ``paths`` are the modules' paths by the artifact's tensors, where they
    were looked up.
    """

    pictures: int
    limits: Limits
    modules: int
    rows: tuple[LayerRow, ...]
    paths: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return all(row.passed for row in self.rows)

    @property
    def compared(self) -> int:
        """How many modules have a row."""
        return sum(row.path != IMAGE for row in self.rows)

    @property
    def first(self) -> LayerRow | None:
        """The layer to blame: the first, as they run, that misses a limit while none of its own parts does."""
        failed = [row for row in self.rows if not row.passed]
        for row in failed:
            if not any(other is not row and is_within(other.path, row.path) for other in failed):
                return row
        return None

    @property
    def worst(self) -> LayerRow | None:
        """The layer with the lowest signal-to-noise ratio of its own."""
        return min(self.rows, key=lambda row: (not math.isnan(row.own_snr_db), row.own_snr_db), default=None)

    def misses(self) -> list[str]:
        """One sentence for each limit that is not kept, those of the layer to blame first."""
        first = self.first
        rows = [*([first] if first else []), *(row for row in self.rows if row is not first)]
        return [miss for row in rows for miss in row.misses]

    def as_json(self) -> dict[str, Any]:
        """The report document's entry."""
        return {
            "looked": True,
            "reason": None,
            "passed": bool(self),
            "pictures": self.pictures,
            "limits": self.limits.as_json(),
            "compared": self.compared,
            "modules": self.modules,
            "first": self.first.path if self.first else None,
            "worst": self.worst.path if self.worst else None,
            "rows": [row.as_json() for row in self.rows],
        }


def compare_layers(
    form: nn.Module, layers: ArtifactLayers, precision: str, pictures: Sequence[ByteImage]
) -> LayerReport:
    """Compare every layer of an artifact that can be told apart with the module that it was made from.

    Left out are modules that run more than once for a picture, that return several tensors, or whose output is no
    tensor of the artifact's (see :func:`~xformer_export.layers.operators.boundaries`).

    Args:
        form: what was converted: takes uint8 (1, H, W, 3), returns a tuple of outputs.
        layers: the artifact.
        precision: the artifact's; its limits are :data:`LIMITS`.
        pictures: RGB bytes, uint8 (1, H, W, 3); figures are over all of them.
    """
    limits = lookup("precision", precision, LIMITS)
    comparison = _Comparison(form, layers)
    for picture in pictures:
        comparison.add(picture)
    rows = tuple(comparison.rows(limits))
    paths = {name: operator.scope for operator in layers.graph.operators for name in operator.outputs if operator.scope}
    return LayerReport(len(pictures), limits, len(comparison.computing()), rows, paths)


# ---- figures --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Figures:
    """Of one tensor, or the worst of several. ``noise_steps`` is the root mean square error in quantization steps."""

    own_snr_db: float
    gain: float
    shift: float
    noise_steps: float

    @classmethod
    def worst(cls, several: Sequence[_Figures]) -> _Figures:
        """The worst of each figure; NaN where one is."""
        return cls(
            float(np.min([one.own_snr_db for one in several])),
            *(float(np.max([getattr(one, name) for one in several])) for name in ("gain", "shift", "noise_steps")),
        )

    def misses(self, name: str, limits: Limits) -> Iterator[str]:
        """One sentence for each limit that is not kept; a figure that is NaN keeps none."""
        if not (self.own_snr_db >= limits.own_snr_db or self.noise_steps <= WITHIN_ROUNDING):
            needed = f"{limits.own_snr_db:.0f} dB needed"
            yield f"{name} has a signal-to-noise ratio of its own of {self.own_snr_db:.1f} dB; {needed}"
        if not self.gain <= limits.gain:
            yield f"{name} is scaled wrongly by {self.gain:.2%}; {limits.gain:.2%} is allowed"
        if not self.shift <= limits.shift:
            yield f"{name} is shifted by {self.shift:.2g} steps; {limits.shift:.2g} is allowed"


class _Sums:
    """Sums over one tensor of all pictures, from which its figures are.

    ``step`` is the tensor's quantization step, 0 for none; ``span`` the values that it can hold. What is beyond them is
    cut off there, on pictures unlike those of the calibration in clean artifacts too. So the noise is against what the
    tensor can hold of what was expected. Gain and shift are over what is within and was not cut off, against the grid's
    nearest values: rounding to a coarse grid brings many small values to 0, which is a gain below 1.
    """

    def __init__(self, step: float = 0.0, span: tuple[float, float] = (-math.inf, math.inf)) -> None:
        self.step, self.span = step, span
        self.signal = self.noise = 0.0
        self.total = 0
        self.moments: Any = 0.0  # then (6, C): by channel the count, and the sums of e, f, ee, ef and ff

    def add(self, expected: FloatArray, found: FloatArray) -> None:
        """Add one picture's; both of one shape, channels along axis 1."""
        e, f = expected.astype(np.float64), found.astype(np.float64)
        if e.ndim < 2:
            e, f = e.reshape(1, -1), f.reshape(1, -1)
        with np.errstate(invalid="ignore", over="ignore"):
            held = e.clip(*self.span)
            self.signal += float(np.square(held).sum())
            self.noise += float(np.square(f - held).sum())
            self.total += e.size
            beyond = self._cut_off(held) | self._cut_off(f)
            count = (~beyond).astype(np.float64)
            e, f = np.where(beyond, 0.0, self._rounded(e)), np.where(beyond, 0.0, f)
            axes = tuple(axis for axis in range(e.ndim) if axis != 1)
            self.moments = self.moments + np.stack([x.sum(axes) for x in (count, e, f, e * e, e * f, f * f)])

    def _cut_off(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which values are at an end of the span, to half a step: how far beyond it they would be is not known.

        Of what was expected and of what was found alike: rounding errors that go to one side only would be a gain.
        """
        low, high = self.span[0] + self.step / 2, self.span[1] - self.step / 2
        return (values < low) | (values > high)

    def _rounded(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The nearest values that the tensor's integers stand for; as they are where they are not known."""
        lowest = self.span[0]
        if not (self.step and math.isfinite(lowest)):
            return values
        return lowest + np.round((values - lowest) / self.step) * self.step

    def figures(self) -> _Figures:
        """The tensor's figures so far."""
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            noise_steps = math.sqrt(self.noise / self.total) / self.step if self.step else math.inf
            return _Figures(self.snr_db(), self._gain(), self._shift(), noise_steps)

    def snr_db(self) -> float:
        """The signal-to-noise ratio; infinite where there is no noise."""
        if self.noise == 0:
            return math.inf
        if not (self.signal and math.isfinite(self.noise) and math.isfinite(self.signal)):
            return -math.inf
        return 10 * math.log10(self.signal / self.noise)

    def _gain(self) -> float:
        """How far from 1 the slope of what was found is over what was expected, beyond what rounding explains.

        Once about the mean of all, and once about each channel's own: a bias that is right would hide a weight that is
        not. The larger of the two counts. Its standard error is that of least squares.
        """
        gains = [0.0]
        for moments in (self.moments, self.moments.sum(1, keepdims=True)):
            count, e, f, ee, ef, ff = moments
            values = count.sum()
            centre = np.maximum(count, 1)
            spread, slope, power = ((xy - x * y / centre).sum() for x, y, xy in ((e, e, ee), (e, f, ef), (f, f, ff)))
            least = values * (LEAST_SPREAD * self.step) ** 2 + CONSTANT * ee.sum()
            if spread <= least:
                continue
            slope = slope / spread
            rest = max(power - slope * slope * spread, values * self.step**2 / 12)  # of rounding alone
            gains.append(_beyond(slope - 1, math.sqrt(rest / values / spread)))
        return float(np.max(gains))

    def _shift(self) -> float:
        """How far the mean is off beyond what rounding explains, in steps, or in standard deviations."""
        values, e, f, ee, ef, ff = self.moments.sum(1)
        if not values:
            return 0.0
        mean = (f - e) / values
        variance = max((ff - 2 * ef + ee) / values - mean * mean, 0.0)
        unit = self.step or math.sqrt(max(ee / values - (e / values) ** 2, CONSTANT * ee / values))
        return _beyond(mean, math.sqrt(variance / values)) / unit if unit else 0.0


def _beyond(value: float, error: float) -> float:
    """What of a magnitude is left without SURE standard errors; NaN stays."""
    left = abs(value) - SURE * error
    return 0.0 if left <= 0 else left


# ---- layouts --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """From an artifact's layout of a tensor to the form's: a permutation, a shape, and another permutation."""

    first: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    last: tuple[int, ...] | None = None

    def apply(self, values: FloatArray) -> FloatArray:
        """The values in the form's layout, in a copy of their own."""
        made = values if self.first is None else values.transpose(self.first)
        made = made if self.shape is None else made.reshape(self.shape)
        made = made if self.last is None else made.transpose(self.last)
        return np.array(made, dtype=np.float32, order="C")


TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def _layouts(shape: tuple[int, ...], wanted: tuple[int, ...]) -> list[_Layout]:
    """All ways from a shape to another: as it is or channels moved; else the same and then reshaped."""
    moves: list[tuple[int, ...] | None] = [None]
    if len(shape) == 4:
        moves += [TO_CHANNELS_FIRST, TO_CHANNELS_LAST]
    moved = {move: shape if move is None else tuple(shape[axis] for axis in move) for move in moves}
    exact = [_Layout(move) for move, made in moved.items() if made == wanted]
    if exact or math.prod(shape) != math.prod(wanted):
        return exact
    found = [_Layout(move, wanted) for move in moves]
    if len(wanted) == 4:
        a, b, c, d = wanted
        found += [_Layout(None, (a, c, d, b), TO_CHANNELS_FIRST), _Layout(None, (a, d, b, c), TO_CHANNELS_LAST)]
    return found


def _choose_layout(values: FloatArray, wanted: FloatArray) -> _Layout | None:
    """Of all layouts that fit the one in which an artifact's values are nearest to the form's; None where none fits."""
    found = _layouts(values.shape, wanted.shape)
    if len(found) < 2:
        return found[0] if found else None
    with np.errstate(invalid="ignore", over="ignore"):
        distances = [float(np.square(layout.apply(values) - wanted, dtype=np.float64).sum()) for layout in found]
    return found[int(np.argmin(np.nan_to_num(distances, nan=math.inf)))]


# ---- runs -----------------------------------------------------------------------------------------------------


class _Comparison:
    """What is known of the layers after some pictures."""

    def __init__(self, form: nn.Module, layers: ArtifactLayers) -> None:
        graph = layers.graph
        found = boundaries(graph)
        bytes_of_picture = holds_picture(graph)
        self.form, self.layers, self.graph = form, layers, graph
        self.kinds = {path: type(module).__name__ for path, module in form.named_modules()}
        self.input_of = {one.path: one.input for one in found if one.input and one.input not in bytes_of_picture}
        self.output_of = {one.path: one.output for one in found}
        self.ran: set[str] = set()
        self.passed_on: set[str] = set()
        self.inherited: dict[str, _Sums] = {}
        self.own: dict[str, dict[str, _Sums]] = {}  # by path and the artifact's tensor, in the order of the last run
        self.layouts: dict[tuple[str, str], _Layout | None] = {}

    def add(self, picture: ByteImage) -> None:
        """Compare one picture."""
        values = self.layers.values(picture, {*self.input_of.values(), *self.output_of.values()})
        image = torch.from_numpy(picture.copy())
        with one_thread(), torch.no_grad():
            reference = _ReferenceRun(self, values)
            reference.run(image)
            once = {path for path, calls in reference.calls.items() if calls == 1}
            _OwnRun(self, values, once).run(image)

    def computing(self) -> set[str]:
        """The modules that ran and do something themselves: that do more than to hand on what a part gave."""
        return self.ran - self.passed_on | self.own.keys() - {IMAGE}

    def rows(self, limits: Limits) -> Iterator[LayerRow]:
        """The rows in the order in which the layers run."""
        for path, several in self.own.items():
            figures = _Figures.worst([sums.figures() for sums in several.values()])
            kind = "Picture" if path == IMAGE else self.kinds[path]
            inherited = self.inherited.get(path)
            snr_db = figures.own_snr_db if path == IMAGE else None if inherited is None else inherited.snr_db()
            misses = tuple(figures.misses(f"{path} ({kind})" if path else kind, limits))
            yield LayerRow(path, kind, figures.own_snr_db, figures.gain, figures.shift, snr_db, misses)

    def aligned(self, path: str, name: str, values: dict[str, FloatArray], wanted: FloatArray) -> FloatArray | None:
        """The artifact's tensor in the layout that the form has it in at a module; None where none fits."""
        if (path, name) not in self.layouts:
            self.layouts[path, name] = _choose_layout(values[name], wanted)
        layout = self.layouts[path, name]
        return None if layout is None else layout.apply(values[name])


class _Run:
    """A run of the form that is told of each module before and after it runs."""

    def __init__(self, comparison: _Comparison, values: dict[str, FloatArray]) -> None:
        self.comparison, self.values = comparison, values

    def run(self, image: Tensor) -> None:
        with self._hooks():
            self.comparison.form(image)

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        handles = []
        for path, module in self.comparison.form.named_modules():
            if path:
                # The default arguments keep each path; a hook is given the module and its arguments.
                handles.append(module.register_forward_pre_hook(lambda _, args, path=path: self.before(path, args)))
                handles.append(module.register_forward_hook(lambda _, args, made, path=path: self.after(path, made)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def before(self, path: str, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Called with what goes into a module; what is returned goes in instead."""
        raise NotImplementedError

    def after(self, path: str, result: Any) -> Any:
        """Called with what comes out of a module; what is returned comes out instead."""
        raise NotImplementedError


class _ReferenceRun(_Run):
    """The form as it is: counts calls, chooses layouts, and has the artifact's outputs compared with its own."""

    def __init__(self, comparison: _Comparison, values: dict[str, FloatArray]) -> None:
        super().__init__(comparison, values)
        self.calls: Counter[str] = Counter()

    def before(self, path: str, arguments: tuple[Any, ...]) -> None:
        self.calls[path] += 1
        tensor, name = _only_tensor(arguments), self.comparison.input_of.get(path)
        if tensor is not None and name is not None:
            self.comparison.aligned(path, name, self.values, tensor.numpy())

    def after(self, path: str, result: Any) -> None:
        self.comparison.ran.add(path)
        tensor, name = _only_tensor(result), self.comparison.output_of.get(path)
        if tensor is None or name is None:
            return
        found = self.comparison.aligned(path, name, self.values, tensor.numpy())
        if found is not None:
            self.comparison.inherited.setdefault(path, _Sums()).add(tensor.numpy(), found)


class _OwnRun(_Run):
    """The form on the artifact's own values, wherever a module begins or ends."""

    def __init__(self, comparison: _Comparison, values: dict[str, FloatArray], once: set[str]) -> None:
        super().__init__(comparison, values)
        self.once = once
        self.callers = [""]
        self.given: dict[int, tuple[str, Tensor]] = {}  # by id; with the tensor, so that no other gets its id
        self.in_front = True  # of the first module's end

    def before(self, path: str, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        caller = IMAGE if self.in_front else self.callers[-1]
        self.callers.append(path)
        tensor, name = _only_tensor(arguments), self.comparison.input_of.get(path)
        made = self._replace(path, caller, name, tensor)
        return None if made is None else tuple(made if one is tensor else one for one in arguments)

    def after(self, path: str, result: Any) -> Any:
        self.callers.pop()
        tensor, name = _only_tensor(result), self.comparison.output_of.get(path)
        if tensor is not None and name is not None and self._is_given(tensor, name):
            self.comparison.passed_on.add(path)
        made = self._replace(path, path, name, tensor)
        if made is None:
            return None
        self.in_front = False
        return (made,) if isinstance(result, tuple) else made

    def _replace(self, path: str, blamed: str, name: str | None, tensor: Tensor | None) -> Tensor | None:
        """The artifact's tensor in place of the form's, which it is compared with; None where that one stays."""
        if path not in self.once or name is None or tensor is None or self._is_given(tensor, name):
            return None
        comparison, graph = self.comparison, self.comparison.graph
        expected = tensor.numpy()
        found = comparison.aligned(path, name, self.values, expected)
        if found is None:
            return None
        several = comparison.own.pop(blamed, {})
        comparison.own[blamed] = several  # last again: a module with parts ends after them
        if name not in several:
            several[name] = _Sums(graph.steps.get(name, 0.0), graph.ranges.get(name, (-math.inf, math.inf)))
        several[name].add(expected, found)
        made = torch.from_numpy(found)
        self.given[id(made)] = name, made
        return made

    def _is_given(self, tensor: Tensor, name: str) -> bool:
        """Whether a tensor already is the artifact's of that name."""
        return self.given.get(id(tensor), ("", tensor))[0] == name


def _only_tensor(value: Any) -> Tensor | None:
    """The one float tensor in what goes into a module or comes out of it; None where there are none or several."""
    several = value if isinstance(value, tuple) else (value,)
    tensors = [one for one in several if one is not None]
    if len(tensors) == 1 and isinstance(tensors[0], Tensor) and tensors[0].is_floating_point():
        return tensors[0]
    return None
