"""The intermediate tensors of a Core ML package, run by the project's evaluator as the package has them.

coremltools names an op after the node of torch.export's graph that it was made from, and writes what it has done to it
behind that: ``conv2d_3_cast_fp16``. So the same form is exported again, and each op is looked up among its nodes. An op
that a pass of coremltools has made of several (layer_norm, gelu) is named after the last of them.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from xformer_export.layers.operators import FloatArray, Graph, Operator, keeps_values
from xformer_export.program import export_program, module_path
from xformer_export.to_coreml import ImageModel
from xformer_mobile.artifact import INPUT_NAME
from xformer_mobile.mobile import MobileXFormer
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.mil import MilOp, MilProgram

__all__ = ["CoreMLLayers"]

QUANTIZE, DEQUANTIZE = "quantize", "dequantize"

INSERTED = frozenset({"cast", DEQUANTIZE, QUANTIZE})
"""Ops that no module asks for: coremltools puts them where types change."""

LABELS = "classify"
"""The op that looks up a classifier's labels: what it makes are no tensors."""

SUMS = frozenset({"add", "sub"})
"""Ops whose operands coremltools may hold in another unit, see :func:`_units`."""

SAME_UNIT = 0.01
"""Units that are closer than this share are one: coremltools rounds its scales to float16."""

APPENDED = re.compile(r"_(?:to|cast)_(?:fp16|fp32)$")
"""What coremltools writes behind a node's name where it changes the type that the node's op computes in."""

IMAGE_MODEL = "model"
"""The path of the mobile form in what coremltools converts."""


class CoreMLLayers:
    """The layers of a .mlpackage of any precision.

    Runs on any system, by :class:`~xformer_mobile.runners.mil.MilProgram`: the values are what the package means, fp16
    ones rounded to fp16, not what Apple's kernels or the Neural Engine make of it.

    Args:
        path: the .mlpackage.
        form: the mobile form that it was converted from. Only its structure is used, to name the modules.

    Raises:
        BundleError: no package, or one that the evaluator does not run.
        ConversionError: PyTorch can't trace the form.
        MissingDependencyError: coremltools is not installed.
    """

    def __init__(self, path: Path, form: MobileXFormer) -> None:
        self._program = MilProgram.load(path)
        operations = [operation for operation in self._program.computed if operation.kind != LABELS]
        operators = tuple(_operators(operations, _paths_by_node(form)))
        self._held = _find_held(operations)
        grids = {name: held.grid for name, held in self._held.items() if held.grid is not None}
        self.graph = Graph(
            operators,
            inputs=tuple(source.name for source in self._program.inputs),
            outputs=tuple(output.name for output in self._program.outputs if output.shape is not None),
            steps={name: grid.step for name, grid in grids.items()},
            ranges={name: (grid.low, grid.high) for name, grid in grids.items()},
        )

    def values(self, image: ByteImage, names: Collection[str]) -> dict[str, FloatArray]:
        """See :class:`~xformer_export.layers.operators.ArtifactLayers`.

        Feature maps are (1, C, H, W); so is the picture, with its bytes as floats, 0..255. What the program holds in
        a unit of its own, such as the operands of an int8 sum, is returned in the form's.

        Raises:
            BundleError: an op fails.
            ImageError: an image of another shape or dtype.
            UsageError: a name that the program computes no value for.
        """
        found = self._program.run({INPUT_NAME: image}, intermediates=[name for name in names if name != INPUT_NAME])
        found[INPUT_NAME] = image.transpose(0, 3, 1, 2)
        return {name: self._held.get(name, AS_IT_IS).as_float(found[name]) for name in names}


@dataclass(frozen=True)
class _Grid:
    """The values that integers stand for: from ``low`` to ``high`` in steps, in the form's unit."""

    step: float
    low: float
    high: float


@dataclass(frozen=True)
class _Held:
    """How the program holds a tensor: a value in the form's unit is ``(held - zero) * unit``.

    ``grid`` is None where the values are not those of integers.
    """

    zero: float = 0.0
    unit: float = 1.0
    grid: _Grid | None = None

    def as_float(self, values: npt.NDArray[Any]) -> FloatArray:
        found: FloatArray = (values.astype(np.float32) - np.float32(self.zero)) * np.float32(self.unit)
        return found


AS_IT_IS = _Held()


# ---- where ops come from ----------------------------------------------------------------------------------


def _paths_by_node(form: MobileXFormer) -> dict[str, str]:
    """The path of the form's module that each node of the graph comes from which coremltools converts."""
    size = form.config.image_size
    program = export_program(ImageModel(form), (torch.zeros(1, 3, size.height, size.width),))
    nodes = (node for node in program.graph.nodes if node.op == "call_function")
    return {node.name: module_path(node).removeprefix(IMAGE_MODEL).removeprefix(".") for node in nodes}


def _operators(operations: Sequence[MilOp], paths: Mapping[str, str]) -> Iterator[Operator]:
    """The ops with their scopes. One that has no node's name is its producer's, or nobody's if it keeps the values."""
    owners: dict[str, str] = {}  # of tensors: the module that their values come from
    for operation in operations:
        node = None if operation.kind in INSERTED else _node_name(operation.name, paths)
        owner = owners.get(operation.inputs[0], "") if node is None and operation.inputs else paths.get(node or "", "")
        inserted = node is None and keeps_values(operation.kind)
        owners |= dict.fromkeys(operation.outputs, owner)
        yield Operator("" if inserted else owner, operation.kind, operation.inputs, operation.outputs)


def _node_name(name: str, paths: Mapping[str, str]) -> str | None:
    """The node that an op is named after."""
    while name not in paths:
        shorter = APPENDED.sub("", name)
        if shorter == name:
            return None
        name = shorter
    return name


# ---- what integers stand for ------------------------------------------------------------------------------


def _find_held(operations: Sequence[MilOp]) -> dict[str, _Held]:
    """How integers, what is dequantized of them, and int8 sums are held; any other tensor is held as it is."""
    links = _Links(operations)
    units = _units(operations, links)
    held = {name: _Held(unit=unit) for name, unit in units.items()}
    for operation in operations:
        if operation.kind != QUANTIZE or "scale" not in operation.settings:
            continue
        (integers,) = operation.outputs
        limits = np.iinfo(str(operation.settings["output_dtype"]))
        back = links.dequantized(integers)
        for one in back:
            (floats,) = one.outputs
            unit = units.get(floats, 1.0)
            held[floats] = _Held(unit=unit, grid=_grid(one, unit, limits))
        # What its readers take an integer for, it stands for; the first of them that has kept the unit says it best.
        says = min(back, key=lambda one: one.outputs[0] in units, default=operation)
        unit = units.get(says.outputs[0] if back else operation.inputs[0], 1.0)
        grid = _grid(says, unit, limits)
        held[integers] = _Held(_number(says, "zero_point"), grid.step, grid)
    return held


class _Links:
    """Which op makes a tensor, and which ones read it."""

    def __init__(self, operations: Sequence[MilOp]) -> None:
        self.makers = {name: operation for operation in operations for name in operation.outputs}
        self.readers: dict[str, list[MilOp]] = {}
        for operation in operations:
            for name in operation.inputs:
                self.readers.setdefault(name, []).append(operation)

    def dequantized(self, integers: str) -> list[MilOp]:
        """The ops that dequantize a tensor, with one scale each."""
        return [one for one in self.readers.get(integers, []) if one.kind == DEQUANTIZE and _number(one, "scale")]

    def operands(self, total: MilOp) -> list[MilOp]:
        """The two dequantize of an int8 sum whose result is quantized and nothing else; of any other op, none."""
        if total.kind not in SUMS or [one.kind for one in self.readers.get(total.outputs[0], [])] != [QUANTIZE]:
            return []
        made = [self.makers[name] for name in total.inputs if name in self.makers]
        return made if [one.kind for one in made if _number(one, "scale")] == [DEQUANTIZE, DEQUANTIZE] else []

    def feeds_sum(self, name: str) -> bool:
        """Whether such a sum reads a tensor."""
        return any(self.operands(one) for one in self.readers.get(name, []))


def _units(operations: Sequence[MilOp], links: _Links) -> dict[str, float]:
    """The units of the operands and the results of int8 sums, where they are not the form's.

    coremltools divides the scales around such a sum by that of one operand, which becomes 1 (its pass
    ``distributive_quantized_binary_op_scale_normalization``). By how much, each operand's quantize and the result's
    dequantize tell. So do other ops that dequantize the same integers. They are asked for their median, so that one
    wrong scale does not make the others look wrong; and twice, as an op next to two sums tells of one what is known
    of the other.
    """
    sums = [(total, operands) for total in operations if (operands := links.operands(total))]
    units: dict[str, float] = {}
    for again in (False, True):
        for total, operands in sums:
            told = []
            for operand in operands:
                steps = _told_steps(links, units, operand.inputs[0], operand, again)
                maker = links.makers.get(operand.inputs[0])
                if maker is not None and maker.kind == QUANTIZE:
                    steps.append(_number(maker, "scale") * units.get(maker.inputs[0], 1.0))
                told += [step / _number(operand, "scale") for step in steps]
            (result,) = links.readers[total.outputs[0]]
            if scale := _number(result, "scale"):
                told += [step / scale for step in _told_steps(links, units, result.outputs[0], None, again)]
            unit = statistics.median_low(told) if told else 1.0
            names = (*total.inputs, *total.outputs)
            units |= dict.fromkeys(names, unit if abs(unit - 1) > SAME_UNIT else 1.0)
    return {name: unit for name, unit in units.items() if unit != 1}


def _told_steps(
    links: _Links, units: Mapping[str, float], integers: str, operand: MilOp | None, again: bool
) -> list[float]:
    """The steps, in the form's unit, by the ops that dequantize a tensor: but for ``operand``, and the first time only
    by those that no other sum reads."""
    return [
        _number(one, "scale") * units.get(one.outputs[0], 1.0)
        for one in links.dequantized(integers)
        if one is not operand and (again or not links.feeds_sum(one.outputs[0]))
    ]


def _grid(operation: MilOp, unit: float, limits: np.iinfo[Any]) -> _Grid:
    """The grid of a quantize or dequantize whose floats are in that unit."""
    step, zero = _number(operation, "scale") * unit, _number(operation, "zero_point")
    return _Grid(step, (limits.min - zero) * step, (limits.max - zero) * step)


def _number(operation: MilOp, name: str) -> float:
    """A setting of an op; 0 where it has none."""
    return float(operation.settings.get(name, 0.0))
