"""An evaluator of saved Core ML packages, on any system.

It reads an .mlpackage back into MIL, Core ML's Model Intermediate Language, with coremltools, and runs each op on
torch, as the op's definition in coremltools says (coremltools 9, ``converters/mil/mil/ops/defs``). So it checks what
the saved program means: its ops, constants, layouts, precisions, names. It is no check of Apple's kernels nor of the
Neural Engine, whose results differ in their last bits, and its speed says nothing about a device.

fp16: each value that the program types fp16 is computed in fp32 from its inputs and then rounded to fp16; what
overflows becomes infinite. Inside an op (the sums of a convolution or a mean) everything is fp32, where hardware may
accumulate in fp16. ``precision="fp32"`` leaves the rounding out; constants stay as they are stored.

What runs: programs of one function with fixed shapes and no state, whose inputs are images or arrays. ``OPS`` lists the
ops; what a program needs beyond them is named when it is loaded, all at once.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from xformer_mobile.errors import BundleError, ImageError, UsageError
from xformer_mobile.optional import import_coremltools, require
from xformer_mobile.runners.mlpackage import read_package

if importlib.util.find_spec("torch") is None:
    require("torch", extra="coreml")

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["OPS", "MilInput", "MilOp", "MilOutput", "MilProgram", "Precision", "evaluate"]

Precision = Literal["stored", "fp32"]

Inputs = Mapping[str, npt.NDArray[Any]]
Function = TypeVar("Function", bound=Callable[..., Any])

CONSTANT = "const"

TYPES: dict[str, tuple[torch.dtype, type[np.generic]]] = {
    "fp16": (torch.float32, np.float16),
    "fp32": (torch.float32, np.float32),
    "int8": (torch.int32, np.int8),
    "uint8": (torch.int32, np.uint8),
    "int16": (torch.int32, np.int16),
    "uint16": (torch.int32, np.uint16),
    "int32": (torch.int32, np.int32),
    "uint32": (torch.int64, np.uint32),
    "bool": (torch.bool, np.bool_),
    "int4": (torch.int32, np.int8),
    **{f"uint{bits}": (torch.int32, np.uint8) for bits in (1, 2, 3, 4, 6)},
}
"""MIL's types: as what a value is held while the program runs, and as what it is returned."""


def evaluate(
    path: Path, inputs: Inputs, *, intermediates: bool | Sequence[str] = False, precision: Precision = "stored"
) -> dict[str, Any]:
    """Run a saved Core ML package once; for more than one run, keep a :class:`MilProgram`.

    Args:
        path: the .mlpackage.
        inputs: an array for each input, see :meth:`MilProgram.run`.
        intermediates: also return every value that the program computes, or those of these names.
        precision: "stored" rounds to fp16 what the program types fp16, "fp32" does not.

    Returns:
        The outputs by name, in the model's order: arrays, or a label and a dictionary from label to probability for
        a classifier. Then the intermediate values that were asked for.

    Raises:
        BundleError, UsageError, ImageError, MissingDependencyError: as :meth:`MilProgram.load` and
            :meth:`MilProgram.run` raise them.
    """
    return MilProgram.load(path, precision=precision).run(inputs, intermediates=intermediates)


@dataclass(frozen=True)
class MilInput:
    """An input. ``shape`` is the array's in the program, (1, C, H, W) for an image; ``dtype`` is numpy's name.

    ``color_layout`` is RGB, BGR or GRAYSCALE for an image and None for an array.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    color_layout: str | None


@dataclass(frozen=True)
class MilOutput:
    """An output: an array of ``shape`` and numpy's ``dtype``, or, with shape None, a ``label`` or ``probabilities``."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str


@dataclass(frozen=True)
class MilOp:
    """An op that is computed in each run. What is known beforehand is not among its inputs.

    ``name`` is the program's own name of the op and ``kind`` MIL's name of what it does. ``inputs`` and ``outputs``
    are names of values; ``settings`` are the op's parameters that are one constant number or one constant word, by
    MIL's names.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, float | str]


class MilProgram:
    """A Core ML program, ready to run many times. Make one with :meth:`load`.

    Attributes:
        inputs: the inputs, in the model's order.
        outputs: the outputs, in the model's order.
        ops: how often each op occurs, constants left out.
        computed: the ops that are computed in each run, in order.
        opset: the program's opset, such as "CoreML6".
        deployment_target: the oldest system that runs it, such as "iOS16".
        precision: "stored" or "fp32".
    """

    def __init__(self, path: Path, precision: Precision) -> None:
        """Use :meth:`load`."""
        if precision not in ("stored", "fp32"):
            raise UsageError(f"unknown precision {precision!r}; valid: stored, fp32")
        coremltools = import_coremltools()
        spec, weights = read_package(path, coremltools)
        name = _check_model(path, spec, coremltools)
        block = spec.mlProgram.functions[name].block_specializations[spec.mlProgram.functions[name].opset]
        self.path = path
        self.precision: Precision = precision
        self.opset: str = spec.mlProgram.functions[name].opset
        self.ops = dict(sorted(Counter(_op_types(block)).items()))
        self._refuse_missing_ops()
        program = _load_mil(path, spec, weights)
        self.deployment_target: str = coremltools.target(spec.specificationVersion).name
        self._build(program.functions[name], spec)

    @classmethod
    def load(cls, path: Path, *, precision: Precision = "stored") -> MilProgram:
        """Read a package, check it, and prepare its ops; the constants are converted here, once.

        Args:
            path: the .mlpackage.
            precision: "stored" rounds to fp16 what the program types fp16, "fp32" does not.

        Raises:
            BundleError: no package, one that is broken or foreign, a model that is not an ML program, flexible
                shapes, or ops that the evaluator lacks.
            UsageError: an unknown precision.
            MissingDependencyError: coremltools is not installed.
        """
        return cls(Path(path), precision)

    def run(self, inputs: Inputs, *, intermediates: bool | Sequence[str] = False) -> dict[str, Any]:
        """Run the program on the CPU.

        Args:
            inputs: an array for each input. For an image: uint8 (H, W, 3) or (1, H, W, 3), RGB whatever the model's
                own color layout is; (H, W) or (1, H, W) for a gray one. Else: the input's shape, of any float or
                integer dtype as the input is of floats or integers.
            intermediates: also return every value that the program computes, or those of these names.

        Returns:
            As :func:`evaluate`. fp16 values are float16 arrays, or float32 with ``precision="fp32"``.

        Raises:
            ImageError: an image of another shape or dtype.
            UsageError: missing or unknown inputs, an array of another shape or dtype, an unknown intermediate value.
            BundleError: an op fails, or makes a value of another shape than the program declares.
        """
        names = self._names(intermediates)
        self._check_names(inputs)
        keep = {self._slots[name] for name in names}
        values = list(self._constants)
        with torch.inference_mode():
            for source in self.inputs:
                value = _read_input(source, inputs[source.name])
                slot = self._slots[source.name]
                values[slot] = _to_fp16(value) if slot in self._rounded else value
            for step in self._steps:
                step.run(values)
                for slot in step.dead:
                    if slot not in keep:
                        values[slot] = None
        wanted = [(output.name, self._results[output.name]) for output in self.outputs]
        wanted += [(name, self._slots[name]) for name in names]
        return {name: self._to_numpy(slot, values[slot]) for name, slot in wanted}

    # ---- loading ---------------------------------------------------------------------------------------------

    def _refuse_missing_ops(self) -> None:
        missing = [f"{name} ({count})" for name, count in self.ops.items() if name not in OPS]
        if missing:
            raise BundleError(f"{self.path} has ops that the evaluator lacks: {', '.join(missing)}")

    def _build(self, function: Any, spec: Any) -> None:
        """Give each value a slot, bind each op to its slots, run what is constant, and find each value's last use."""
        slots: dict[Any, int] = {}  # MIL's variables are compared by identity
        self._kinds: list[str] = []
        self._rounded: set[int] = set()
        self._constants: list[Any] = []

        def add(variable: Any, value: Any = None) -> int:
            slots[variable] = len(self._kinds)
            self._kinds.append(_kind(variable))
            self._constants.append(value)
            if self.precision == "stored" and self._kinds[-1] == "fp16":
                self._rounded.add(slots[variable])
            return slots[variable]

        self._slots = {name: add(variable) for name, variable in function.inputs.items()}
        self._steps: list[_Step] = []
        computed: list[MilOp] = []
        for operation in function.operations:
            if operation.op_type == CONSTANT:
                add(operation.outputs[0], _constant(operation.outputs[0]))
                continue
            step = _Step(self.path, operation, slots, [add(output) for output in operation.outputs], self._rounded)
            fixed = [self._constants[slot] is not None for slot in step.inputs]
            step.fix({slot: self._constants[slot] for slot, known in zip(step.inputs, fixed, strict=True) if known})
            if all(fixed):
                with torch.inference_mode():
                    step.run(self._constants)
            else:
                self._steps.append(step)
                computed.append(self._describe_op(operation, slots))
                for output, slot in zip(operation.outputs, step.outputs, strict=True):
                    self._slots[output.name] = slot
        self.computed = tuple(computed)
        self._results = {variable.name: slots[variable] for variable in function.outputs}
        self._free_early()
        made = {variable.name: variable for variable in function.outputs}
        for role, features, known in (
            ("input", spec.description.input, function.inputs),
            ("output", spec.description.output, made),
        ):
            for feature in features:
                if feature.name not in known:
                    raise BundleError(
                        f"{self.path} declares the {role} {feature.name!r}, which its program does not have"
                    )
        self.inputs = tuple(
            _describe_input(self.path, feature, function.inputs[feature.name]) for feature in spec.description.input
        )
        self.outputs = tuple(self._describe_output(feature, made[feature.name]) for feature in spec.description.output)

    def _free_early(self) -> None:
        """Note with each step the values that no later one reads, and drop the constants that none reads."""
        needed = set(self._results.values())
        for step in reversed(self._steps):
            used = {*step.inputs, *step.outputs}
            step.dead = tuple(slot for slot in used - needed if self._constants[slot] is None)
            needed |= used
        self._constants = [value if slot in needed else None for slot, value in enumerate(self._constants)]

    def _describe_op(self, operation: Any, slots: Mapping[Any, int]) -> MilOp:
        """An op as its user sees it, before the constants that none reads are dropped."""
        inputs: dict[str, None] = {}
        settings: dict[str, float | str] = {}
        for parameter, given in operation.inputs.items():
            for variable in given if isinstance(given, (list, tuple)) else (given,):
                value = None if variable is None else self._constants[slots[variable]]
                if variable is not None and value is None:
                    inputs[variable.name] = None
                elif isinstance(value, str):
                    settings[parameter] = value
                elif isinstance(value, Tensor) and value.dim() == 0:
                    settings[parameter] = float(value)
        outputs = tuple(output.name for output in operation.outputs)
        return MilOp(operation.name, operation.op_type, tuple(inputs), outputs, settings)

    def _describe_output(self, feature: Any, variable: Any) -> MilOutput:
        kind = _kind(variable)
        if kind in TYPES:
            return MilOutput(feature.name, _shape(variable), np.dtype(self._numpy_type(kind)).name)
        return MilOutput(feature.name, None, "probabilities" if kind == "dict" else "label")

    # ---- running ---------------------------------------------------------------------------------------------

    def _names(self, intermediates: bool | Sequence[str]) -> list[str]:
        """The intermediate values that are asked for, as names."""
        computed = [name for name in self._slots if name not in {source.name for source in self.inputs}]
        if isinstance(intermediates, bool):
            return [name for name in computed if name not in self._results] if intermediates else []
        names = [intermediates] if isinstance(intermediates, str) else list(intermediates)
        unknown = sorted(set(names) - set(computed))
        if unknown:
            raise UsageError(f"{self.path} computes no value {', '.join(map(repr, unknown))}")
        return [name for name in names if name not in self._results]

    def _check_names(self, inputs: Inputs) -> None:
        expected = [source.name for source in self.inputs]
        if sorted(inputs) != sorted(expected):
            raise UsageError(f"got inputs {', '.join(inputs) or 'none'}; {self.path} takes {', '.join(expected)}")

    def _numpy_type(self, kind: str) -> type[np.generic]:
        return TYPES["fp32" if kind == "fp16" and self.precision == "fp32" else kind][1]

    def _to_numpy(self, slot: int, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.numpy().astype(self._numpy_type(self._kinds[slot]))  # a copy: constants stay ours


class _Step:
    """One op, bound to the slots of its inputs and outputs."""

    def __init__(
        self, path: Path, operation: Any, slots: Mapping[Any, int], outputs: list[int], rounded: set[int]
    ) -> None:
        row = OPS[operation.op_type]
        self.label = f"{path}: {operation.op_type} {operation.outputs[0].name!r}"
        self.function = row.function
        self.outputs = outputs
        self.shapes = [_shape(output) if _is_fixed(output) else None for output in operation.outputs]
        self.types = [TYPES[kind][0] if kind in TYPES else None for kind in map(_kind, operation.outputs)]
        self.rounds = [slot in rounded and not row.exact for slot in outputs]
        self.dead: tuple[int, ...] = ()
        given = {name: value for name, value in operation.inputs.items() if value is not None}
        unknown = sorted(given.keys() - row.parameters.keys())
        if unknown:
            raise BundleError(f"{self.label} has the parameters {', '.join(unknown)}, which the evaluator lacks")
        self.lists = {
            name: [slots[item] for item in value] for name, value in given.items() if isinstance(value, (list, tuple))
        }
        self.single = {name: slots[value] for name, value in given.items() if name not in self.lists}
        self.plain = {name for name in self.single if not row.parameters[name]}
        self.fixed: dict[str, Any] = {}

    @property
    def inputs(self) -> list[int]:
        """The slots that the op reads."""
        return [*self.single.values(), *(slot for slots in self.lists.values() for slot in slots)]

    def fix(self, constants: Mapping[int, Any]) -> None:
        """Make plain values of the constant attributes, once."""
        for name in sorted(self.plain):
            if self.single[name] in constants:
                self.fixed[name] = _plain(constants[self.single[name]])
        self.plain -= self.fixed.keys()

    def run(self, values: list[Any]) -> None:
        """Read the inputs from ``values`` and write the outputs there."""
        arguments = {name: values[slot] for name, slot in self.single.items() if name not in self.fixed}
        for name, slots in self.lists.items():
            arguments[name] = [values[slot] for slot in slots]
        for name in self.plain:
            arguments[name] = _plain(arguments[name])
        try:
            results = self.function(**self.fixed, **arguments)
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise BundleError(f"{self.label} fails: {_first_line(error)}") from error
        if not isinstance(results, (tuple, list)):
            results = (results,)
        rows = zip(self.outputs, results, self.shapes, self.types, self.rounds, strict=True)
        for slot, result, shape, dtype, rounds in rows:
            if dtype is not None:
                result = result.to(dtype)
                if shape is not None and result.shape != shape:
                    raise BundleError(f"{self.label} made {tuple(result.shape)}; the program declares {shape}")
            values[slot] = _to_fp16(result) if rounds else result


def _to_fp16(value: Tensor) -> Tensor:
    return value.to(torch.float16).to(torch.float32)


def _plain(value: Any) -> Any:
    """A number, a string, or a list of them."""
    return value.tolist() if isinstance(value, Tensor) else value


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


# ---- reading a package -----------------------------------------------------------------------------------


def _check_model(path: Path, spec: Any, coremltools: ModuleType) -> str:
    """Refuse models that the evaluator does not run; returns the name of the program's function."""
    kind = spec.WhichOneof("Type")
    if kind != "mlProgram":
        raise BundleError(f"{path} is no ML program ({kind or 'empty'}); convert it with convert_to='mlprogram'")
    functions = sorted(spec.mlProgram.functions)
    if len(functions) != 1:
        raise BundleError(f"{path} has the functions {', '.join(functions) or 'none'}; the evaluator runs one alone")
    if spec.description.state:
        raise BundleError(f"{path} keeps state between runs, which the evaluator does not")
    for feature in (*spec.description.input, *spec.description.output):
        kind = feature.type.WhichOneof("Type")
        flexible = {"imageType": "SizeFlexibility", "multiArrayType": "ShapeFlexibility"}.get(kind)
        if flexible and getattr(feature.type, kind).WhichOneof(flexible):
            raise BundleError(f"{path}: {feature.name!r} has a flexible shape; the evaluator takes fixed ones")
    for feature in spec.description.output:
        if feature.type.WhichOneof("Type") == "imageType":
            raise BundleError(f"{path}: the output {feature.name!r} is an image; the evaluator returns arrays")
    if not 6 <= spec.specificationVersion <= max(target.value for target in coremltools.target):
        raise BundleError(f"{path} has the specification version {spec.specificationVersion}, unknown to coremltools")
    function = spec.mlProgram.functions[functions[0]]
    if function.opset not in function.block_specializations:
        raise BundleError(f"{path} has no program for its opset {function.opset}")
    return str(functions[0])


def _op_types(block: Any) -> Iterator[str]:
    """The type of each op but the constants, those in nested blocks too."""
    for operation in block.operations:
        if operation.type != CONSTANT:
            yield operation.type
        for nested in operation.blocks:
            yield from _op_types(nested)


def _load_mil(path: Path, spec: Any, weights: Path) -> Any:
    from coremltools.converters.mil.frontend.milproto.load import load

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, where coremltools folds constants
            return load(spec, specification_version=spec.specificationVersion, file_weights_dir=str(weights))
    except Exception as error:  # the reader's errors have no common base of their own
        raise BundleError(f"coremltools refuses {path}: {_first_line(error)}") from error


def _kind(variable: Any) -> str:
    """A key of :data:`TYPES`, or "str", "int64", "list" or "dict"."""
    from coremltools.converters.mil.mil import types

    for name, test in (("list", types.is_list), ("dict", types.is_dict)):
        if test(variable.sym_type):
            return name
    return str(types.builtin_to_string(variable.dtype))


def _is_fixed(variable: Any) -> bool:
    return _kind(variable) in TYPES and all(isinstance(side, (int, np.integer)) for side in variable.shape)


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(int(side) for side in variable.shape)


def _constant(variable: Any) -> Any:
    """The value of a constant: a tensor, a string, or a list."""
    kind, value = _kind(variable), variable.val
    if kind in TYPES:
        held, stored = TYPES[kind]
        return torch.from_numpy(np.array(value).astype(stored)).to(held)
    if kind == "list":  # a classifier's labels: strings or numbers
        return [np.asarray(getattr(item, "val", item)).item() for item in value]
    return str(value)


def _describe_input(path: Path, feature: Any, variable: Any) -> MilInput:
    kind = feature.type.WhichOneof("Type")
    shape = _shape(variable)
    if kind == "multiArrayType":
        return MilInput(feature.name, shape, np.dtype(TYPES[_kind(variable)][1]).name, None)
    if kind == "imageType":
        image = feature.type.imageType
        layout = image.ColorSpace.Name(image.colorSpace)
        channels = {"RGB": 3, "BGR": 3, "GRAYSCALE": 1}.get(layout)
        if shape == (1, channels, image.height, image.width):
            return MilInput(feature.name, shape, "uint8", layout)
        raise BundleError(f"{path}: the image {feature.name!r} ({layout}) is {shape} in the program")
    raise BundleError(f"{path}: the input {feature.name!r} is a {kind}; the evaluator takes images and arrays")


def _read_input(source: MilInput, array: npt.NDArray[Any]) -> Tensor:
    """A checked input as the program's value: float32 or int32, of the program's shape."""
    array = np.asarray(array)
    if source.color_layout is None:
        kind, name = (np.floating, "float") if source.dtype.startswith("float") else (np.integer, "integer")
        if array.shape != source.shape or not np.issubdtype(array.dtype, kind):
            raise UsageError(f"input {source.name!r}: got {array.dtype} {array.shape}; it takes {name} {source.shape}")
        return torch.tensor(array.astype(np.float32 if kind is np.floating else np.int32))
    _, channels, height, width = source.shape
    shape = (height, width, 3) if channels == 3 else (height, width)
    if array.shape not in (shape, (1, *shape)) or array.dtype != np.uint8:
        raise ImageError(f"input {source.name!r}: got {array.dtype} {array.shape}; it takes uint8 {shape}")
    pixels = torch.tensor(array).reshape(height, width, channels)  # RGB
    if source.color_layout == "BGR":
        pixels = pixels.flip(2)
    return pixels.permute(2, 0, 1)[None].to(torch.float32)  # (1, C, H, W), 0..255


# ---- ops -------------------------------------------------------------------------------------------------
# A function's parameters are the op's inputs, by MIL's names. One annotated Tensor gets a tensor (float32 for floats,
# int32 for integers); any other gets a plain value: a number, a string or a list of them. Defaults are filled in by
# coremltools; those below are for inputs that only some opsets have, or that have none.


@dataclass(frozen=True)
class _Row:
    """An op. ``exact`` says that it only copies values, so that fp16 needs no rounding.

    ``parameters`` says of each parameter whether it takes tensors.
    """

    function: Callable[..., Any]
    exact: bool
    parameters: Mapping[str, bool]


OPS: dict[str, _Row] = {}
"""Every op that the evaluator runs, by MIL's name."""


def _op(*names: str, exact: bool = False) -> Callable[[Function], Function]:
    """Register a function as one op, or as several."""

    def register(function: Function) -> Function:
        parameters = inspect.signature(function).parameters
        takes_tensors = {name: "Tensor" in str(parameter.annotation) for name, parameter in parameters.items()}
        for name in names:
            OPS[name] = _Row(function, exact, takes_tensors)
        return function

    return register


def _elementwise(functions: Mapping[str, Callable[[Tensor], Tensor]], *, exact: bool = False) -> None:
    """Register functions of one tensor."""
    for name, function in functions.items():

        def apply(x: Tensor, function: Callable[[Tensor], Tensor] = function) -> Tensor:
            return function(x)

        _op(name, exact=exact)(apply)


def _binary(functions: Mapping[str, Callable[[Tensor, Tensor], Tensor]], *, exact: bool = False) -> None:
    """Register functions of two tensors, which broadcast."""
    for name, function in functions.items():

        def apply(x: Tensor, y: Tensor, function: Callable[[Tensor, Tensor], Tensor] = function) -> Tensor:
            return function(x, y)

        _op(name, exact=exact)(apply)


_elementwise(
    {
        "acos": torch.acos,
        "asin": torch.asin,
        "atan": torch.atan,
        "atanh": torch.atanh,
        "cos": torch.cos,
        "cosh": torch.cosh,
        "erf": torch.erf,
        "exp": torch.exp,
        "exp2": torch.exp2,
        "sigmoid": torch.sigmoid,
        "silu": F.silu,
        "sin": torch.sin,
        "sinh": torch.sinh,
        "softplus": lambda x: torch.logaddexp(x, torch.zeros(())),
        "softsign": F.softsign,
        "sqrt": torch.sqrt,
        "square": torch.square,
        "tan": torch.tan,
        "tanh": torch.tanh,
    }
)
_elementwise(
    {
        "abs": torch.abs,
        "ceil": torch.ceil,
        "floor": torch.floor,
        "identity": lambda x: x,
        "logical_not": torch.logical_not,
        "relu": torch.relu,
        "relu6": F.relu6,
        "round": torch.round,  # halves to even
        "sign": torch.sign,
    },
    exact=True,
)
_binary(
    {
        "add": torch.add,
        "floor_div": lambda x, y: torch.div(x, y, rounding_mode="floor"),
        "mod": torch.remainder,
        "mul": torch.mul,
        "pow": torch.pow,
        "real_div": torch.div,
        "sub": torch.sub,
    }
)
_binary(
    {
        "equal": torch.eq,
        "greater": torch.gt,
        "greater_equal": torch.ge,
        "less": torch.lt,
        "less_equal": torch.le,
        "logical_and": torch.logical_and,
        "logical_or": torch.logical_or,
        "logical_xor": torch.logical_xor,
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "not_equal": torch.ne,
    },
    exact=True,
)


@_op("cast")
def _cast(x: Tensor, dtype: str) -> Tensor:
    return x.to(TYPES[dtype][0])  # floats to integers toward zero


@_op("clip")
def _clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    return x.clamp(alpha, beta)


@_op("inverse")
def _inverse(x: Tensor, epsilon: float) -> Tensor:
    return torch.reciprocal(x + epsilon)


@_op("log")
def _log(x: Tensor, epsilon: float) -> Tensor:
    return torch.log(x + epsilon)


@_op("rsqrt")
def _rsqrt(x: Tensor, epsilon: float) -> Tensor:
    return torch.rsqrt(x + epsilon)


@_op("threshold")
def _threshold(x: Tensor, alpha: float) -> Tensor:
    return x.clamp_min(alpha)


@_op("elu")
def _elu(x: Tensor, alpha: float) -> Tensor:
    return F.elu(x, alpha)


@_op("gelu")
def _gelu(x: Tensor, mode: str) -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@_op("leaky_relu")
def _leaky_relu(x: Tensor, alpha: float) -> Tensor:
    return F.leaky_relu(x, alpha)


@_op("prelu")
def _prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return F.prelu(x, alpha)


@_op("clamped_relu")
def _clamped_relu(x: Tensor, alpha: float, beta: float) -> Tensor:
    return F.leaky_relu(x, alpha).clamp_max(beta)


@_op("linear_activation")
def _linear_activation(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * x + beta


@_op("scaled_tanh")
def _scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(beta * x)


@_op("sigmoid_hard")
def _sigmoid_hard(x: Tensor, alpha: float, beta: float) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


@_op("thresholded_relu", exact=True)
def _thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros(()))


@_op("softmax")
def _softmax(x: Tensor, axis: int) -> Tensor:
    return torch.softmax(x, axis)


@_op("select", exact=True)
def _select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


# Convolutions, linear layers, pools.

Pads = list[tuple[int, int]]
"""Before and after, for each spatial dimension."""


def _pads(pad_type: str, pad: list[int], sides: Sequence[int], kernel: Sequence[int], strides: list[int]) -> Pads:
    """The padding of a convolution or a pool; ``kernel`` is the size of its window, dilation included."""
    if pad_type == "valid":
        return [(0, 0)] * len(kernel)
    if pad_type == "custom":
        return list(zip(pad[::2], pad[1::2], strict=True))
    total = [
        max(0, (math.ceil(side / stride) - 1) * stride + window - side)
        for side, window, stride in zip(sides, kernel, strides, strict=True)
    ]
    if pad_type == "same":
        return [(pad // 2, pad - pad // 2) for pad in total]
    return [(pad - pad // 2, pad // 2) for pad in total]  # same_lower


def _pad_sides(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Pad the last dimensions; negative pads cut."""
    return F.pad(x, [side for pair in reversed(pads) for side in pair], value=value)


def _windows(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [(side - 1) * dilation + 1 for side, dilation in zip(kernel, dilations, strict=True)]


@_op("conv")
def _conv(
    x: Tensor,
    weight: Tensor,
    strides: list[int],
    pad_type: str,
    pad: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
) -> Tensor:
    pads = _pads(pad_type, pad, x.shape[2:], _windows(weight.shape[2:], dilations), strides)
    padding = [before for before, _ in pads]
    if any(before != after for before, after in pads):
        x, padding = _pad_sides(x, pads), [0] * len(pads)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(pads) - 1]
    return convolve(x, weight, bias, strides, padding, dilations, groups)


@_op("conv_transpose")
def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    strides: list[int],
    pad_type: str,
    pad: list[int],
    dilations: list[int],
    groups: int,
    bias: Tensor | None = None,
    output_shape: list[int] | None = None,
) -> Tensor:
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[weight.dim() - 3]
    full = convolve(x, weight, None, strides, 0, 0, groups, dilations)
    before = pad[::2] if pad_type == "custom" else [0] * len(strides)
    after = pad[1::2] if pad_type == "custom" else [0] * len(strides)
    sides = [side - b - a for side, b, a in zip(full.shape[2:], before, after, strict=True)]
    if output_shape is not None:
        sides = output_shape[2:]
    elif pad_type == "same":
        sides = [side * stride for side, stride in zip(x.shape[2:], strides, strict=True)]
    if pad_type == "same":
        before = [max(0, have - side) // 2 for have, side in zip(full.shape[2:], sides, strict=True)]
    cut = [(-b, side + b - have) for b, side, have in zip(before, sides, full.shape[2:], strict=True)]
    out = _pad_sides(full, cut)
    return out if bias is None else out + bias.reshape(-1, *[1] * len(strides))


@_op("linear")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


@_op("matmul")
def _matmul(x: Tensor, y: Tensor, transpose_x: bool, transpose_y: bool) -> Tensor:
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


@_op("einsum")
def _einsum(values: list[Tensor], equation: str) -> Tensor:
    return torch.einsum(equation, *values)


@_op("scaled_dot_product_attention")
def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask)


@_op("avg_pool")
def _avg_pool(
    x: Tensor,
    kernel_sizes: list[int],
    strides: list[int],
    pad_type: str,
    pad: list[int],
    ceil_mode: bool,
    exclude_padding_from_average: bool,
) -> Tensor:
    pool: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel_sizes) - 1]
    pads = _pads(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    if ceil_mode:  # the pads are symmetric
        padding = [before for before, _ in pads]
        return pool(x, kernel_sizes, strides, padding, True, not exclude_padding_from_average)
    out = pool(_pad_sides(x, pads), kernel_sizes, strides)
    if exclude_padding_from_average and any(map(any, pads)):
        out = out / pool(_pad_sides(torch.ones_like(x), pads), kernel_sizes, strides)
    return out


@_op("max_pool", exact=True)
def _max_pool(
    x: Tensor, kernel_sizes: list[int], strides: list[int], pad_type: str, pad: list[int], ceil_mode: bool
) -> Tensor:
    pool: Callable[..., Tensor] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel_sizes) - 1]
    pads = _pads(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    if ceil_mode:  # the pads are symmetric
        return pool(x, kernel_sizes, strides, [before for before, _ in pads], 1, True)
    return pool(_pad_sides(x, pads, -math.inf), kernel_sizes, strides)


# Normalizations and reductions.


def _per_channel(vector: Tensor, rank: int) -> Tensor:
    return vector.reshape(-1, *[1] * (rank - 2))  # (C, 1, ...)


@_op("batch_norm")
def _batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


@_op("instance_norm")
def _instance_norm(x: Tensor, epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
    axes = list(range(2, x.dim()))
    centered = x - x.mean(axes, keepdim=True)
    out = centered * torch.rsqrt(centered.square().mean(axes, keepdim=True) + epsilon)
    if gamma is not None:
        out = out * _per_channel(gamma, x.dim())
    return out if beta is None else out + _per_channel(beta, x.dim())


@_op("layer_norm")
def _layer_norm(
    x: Tensor, axes: list[int], epsilon: float, gamma: Tensor | None = None, beta: Tensor | None = None
) -> Tensor:
    inside = {axis % x.dim() for axis in axes}
    shape = [side if axis in inside else 1 for axis, side in enumerate(x.shape)]
    centered = x - x.mean(axes, keepdim=True)
    out = centered * torch.rsqrt(centered.square().mean(axes, keepdim=True) + epsilon)
    if gamma is not None:
        out = out * gamma.reshape(shape)
    return out if beta is None else out + beta.reshape(shape)


@_op("l2_norm")
def _l2_norm(x: Tensor, epsilon: float) -> Tensor:
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


def _reduction(names: Mapping[str, Callable[[Tensor, list[int], bool], Tensor]], *, exact: bool = False) -> None:
    """Register functions of a tensor, the axes that go, and whether these stay as 1."""
    for name, function in names.items():

        def apply(
            x: Tensor,
            keep_dims: bool,
            axes: list[int] | None = None,
            function: Callable[[Tensor, list[int], bool], Tensor] = function,
        ) -> Tensor:
            return function(x, list(range(x.dim())) if axes is None else axes, keep_dims)

        _op(name, exact=exact)(apply)


_reduction(
    {
        "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keep),
        "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keep).to(torch.float32).sqrt(),
        "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keep).log(),
        "reduce_log_sum_exp": lambda x, axes, keep: x.logsumexp(axes, keep),
        "reduce_mean": lambda x, axes, keep: x.to(torch.float32).mean(axes, keep),
        "reduce_sum": lambda x, axes, keep: x.sum(axes, keep),
        "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keep),
    }
)
_reduction(
    {
        "reduce_max": lambda x, axes, keep: x.amax(axes, keep),
        "reduce_min": lambda x, axes, keep: x.amin(axes, keep),
    },
    exact=True,
)


@_op("reduce_argmax", exact=True)
def _argmax(x: Tensor, axis: int, keep_dims: bool, output_dtype: str | None = None) -> Tensor:
    return x.argmax(axis, keep_dims)


@_op("reduce_argmin", exact=True)
def _argmin(x: Tensor, axis: int, keep_dims: bool, output_dtype: str | None = None) -> Tensor:
    return x.argmin(axis, keep_dims)


# Shapes and selections: values are copied.


@_op("reshape", exact=True)
def _reshape(x: Tensor, shape: list[int]) -> Tensor:
    return x.reshape([side or x.shape[axis] for axis, side in enumerate(shape)])  # 0 keeps the side


@_op("transpose", exact=True)
def _transpose(x: Tensor, perm: list[int]) -> Tensor:
    return x.permute(perm)


@_op("expand_dims", exact=True)
def _expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@_op("squeeze", exact=True)
def _squeeze(x: Tensor, axes: list[int] | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(axes)


@_op("flatten2d", exact=True)
def _flatten2d(x: Tensor, axis: int) -> Tensor:
    return x.reshape(math.prod(x.shape[:axis]), -1)


@_op("shape", exact=True)
def _shape_of(x: Tensor) -> Tensor:
    return torch.tensor(x.shape)


@_op("concat", exact=True)
def _concat(values: list[Tensor], axis: int, interleave: bool) -> Tensor:
    if values[0].dim() == 0:
        return torch.stack(values)
    if not interleave:
        return torch.cat(values, axis)
    axis %= values[0].dim()
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


@_op("stack", exact=True)
def _stack(values: list[Tensor], axis: int) -> Tensor:
    return torch.stack(values, axis)


@_op("split", exact=True)
def _split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is None:
        assert num_splits is not None  # MIL asks for one of the two
        split_sizes = [x.shape[axis] // num_splits] * num_splits
    return torch.split(x, split_sizes, axis)


def _slice(x: Tensor, axis: int, part: slice) -> Tensor:
    """As numpy slices, with negative steps too."""
    start, stop, step = part.indices(x.shape[axis])
    if step > 0:
        return x[(slice(None),) * axis + (slice(start, max(start, stop), step),)]
    return x.index_select(axis, torch.arange(start, stop, step))


@_op("slice_by_index", exact=True)
def _slice_by_index(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    squeezed = squeeze_mask or [False] * x.dim()
    for axis in range(x.dim()):
        if squeezed[axis]:
            x = x.narrow(axis, begin[axis] % x.shape[axis], 1)
            continue
        start = None if begin_mask and begin_mask[axis] else begin[axis]
        stop = None if end_mask and end_mask[axis] else end[axis]
        x = _slice(x, axis, slice(start, stop, stride[axis] if stride else 1))
    return x.squeeze([axis for axis, gone in enumerate(squeezed) if gone])


@_op("slice_by_size", exact=True)
def _slice_by_size(x: Tensor, begin: list[int], size: list[int]) -> Tensor:
    for axis, (start, length) in enumerate(zip(begin, size, strict=True)):
        start %= x.shape[axis]
        x = x.narrow(axis, start, x.shape[axis] - start if length == -1 else length)
    return x


@_op("reverse", exact=True)
def _reverse(x: Tensor, axes: list[int] | None = None) -> Tensor:
    return x.flip(list(range(x.dim())) if axes is None else axes)


@_op("tile", exact=True)
def _tile(x: Tensor, reps: list[int]) -> Tensor:
    return x.tile(reps)


@_op("pad", exact=True)
def _pad(x: Tensor, pad: list[int], mode: str, constant_val: float) -> Tensor:
    pads = list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        return _pad_sides(x, pads, constant_val)
    for axis, (before, after) in enumerate(pads, x.dim() - len(pads)):
        index = torch.arange(-before, x.shape[axis] + after)
        last = x.shape[axis] - 1
        index = last - (last - index.abs()).abs() if mode == "reflect" else index.clamp(0, last)
        x = x.index_select(axis, index)
    return x


@_op("fill", exact=True)
def _fill(shape: list[int], value: Tensor) -> Tensor:
    return value.expand(shape)


@_op("fill_like", exact=True)
def _fill_like(ref_tensor: Tensor, value: Tensor) -> Tensor:
    return value.expand(ref_tensor.shape)


@_op("range_1d")
def _range_1d(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), end.item(), step.item())


@_op("cumsum")
def _cumsum(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    x = x.flip(axis) if reverse else x
    out = x.cumsum(axis) - (x if exclusive else 0)
    return out.flip(axis) if reverse else out


@_op("band_part", exact=True)
def _band_part(x: Tensor, lower: int, upper: int) -> Tensor:
    x = x if upper < 0 else x.tril(upper)
    return x if lower < 0 else x.triu(-lower)


@_op("one_hot", exact=True)
def _one_hot(indices: Tensor, one_hot_vector_size: int, axis: int, on_value: Tensor, off_value: Tensor) -> Tensor:
    hot = indices.unsqueeze(-1) == torch.arange(one_hot_vector_size)
    return torch.where(hot, on_value, off_value).movedim(-1, axis)


def _from_end(indices: Tensor, side: int) -> Tensor:
    """int64 indices; negative ones count from the end."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + side, indices)


@_op("gather", exact=True)
def _gather(x: Tensor, indices: Tensor, axis: int, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    axis %= x.dim()
    index = _from_end(indices, x.shape[axis])
    if batch_dims == 0:
        taken = x.index_select(axis, index.reshape(-1))
        return taken.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    pairs = zip(x.flatten(0, batch_dims - 1), index.flatten(0, batch_dims - 1), strict=True)
    out = torch.stack([_gather(part, which, axis - batch_dims) for part, which in pairs])
    return out.reshape(*x.shape[:batch_dims], *out.shape[1:])


@_op("gather_along_axis", exact=True)
def _gather_along_axis(x: Tensor, indices: Tensor, axis: int, validate_indices: bool = False) -> Tensor:
    return x.take_along_dim(_from_end(indices, x.shape[axis]), axis)


@_op("gather_nd", exact=True)
def _gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    if batch_dims:
        pairs = zip(x.flatten(0, batch_dims - 1), indices.flatten(0, batch_dims - 1), strict=True)
        out = torch.stack([_gather_nd(part, which) for part, which in pairs])
        return out.reshape(*x.shape[:batch_dims], *out.shape[1:])
    return x[tuple(_from_end(index, x.shape[axis]) for axis, index in enumerate(indices.unbind(-1)))]


@_op("argsort", exact=True)
def _argsort(x: Tensor, axis: int, ascending: bool) -> Tensor:
    return x.argsort(dim=axis, descending=not ascending, stable=True)


@_op("topk", exact=True)
def _topk(
    x: Tensor,
    k: int,
    axis: int,
    ascending: bool,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str | None = None,
) -> tuple[Tensor, ...]:
    values, indices = x.sort(dim=axis, descending=not ascending, stable=True)
    found = (values.narrow(axis, 0, k), indices.narrow(axis, 0, k))
    return found if return_indices else found[:1]


@_op("pixel_shuffle", exact=True)
def _pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return F.pixel_shuffle(x, upscale_factor)


@_op("pixel_unshuffle", exact=True)
def _pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    return F.pixel_unshuffle(x, downscale_factor)


@_op("depth_to_space", exact=True)
def _depth_to_space(x: Tensor, block_size: int) -> Tensor:
    n, channels, height, width = x.shape
    x = x.reshape(n, block_size, block_size, channels // block_size**2, height, width)  # blocks before channels
    return x.permute(0, 3, 4, 1, 5, 2).reshape(n, -1, height * block_size, width * block_size)


@_op("space_to_depth", exact=True)
def _space_to_depth(x: Tensor, block_size: int) -> Tensor:
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // block_size, block_size, width // block_size, block_size)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, height // block_size, width // block_size)


# Resizing: the last two dimensions, one after the other.


@functools.cache
def _grid(mode: str, source: int, target: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where each target sample lies among the source's: the index before it, the one after, the weight of that."""
    steps = torch.arange(target, dtype=torch.float64)
    if mode == "UNALIGN_CORNERS":
        points = (steps + 0.5) * (source / target) - 0.5
    elif mode == "OFFSET_CORNERS":
        points = (steps + 0.5) * (max(1, source - 1) / target)
    elif mode == "DEFAULT":
        points = steps * (source / target)
    elif mode in ("ALIGN_CORNERS", "STRICT_ALIGN_CORNERS"):
        points = steps * ((source - 1) / max(1, target - 1))
        if mode == "ALIGN_CORNERS" and target == 1:
            points = points + (source - 1) / 2
    else:
        raise ValueError(f"unknown sampling mode {mode}")
    points = points.clamp(0, source - 1)
    before = points.floor().to(torch.int64)
    return before, (before + 1).clamp_max(source - 1), (points - before).to(torch.float32)


def _resize(x: Tensor, height: int, width: int, mode: str) -> Tensor:
    before, after, weight = _grid(mode, x.shape[-2], height)
    x = torch.lerp(x.index_select(-2, before), x.index_select(-2, after), weight[:, None])
    before, after, weight = _grid(mode, x.shape[-1], width)
    return torch.lerp(x.index_select(-1, before), x.index_select(-1, after), weight)


def _scaled(x: Tensor, height: float, width: float) -> tuple[int, int]:
    return math.floor(x.shape[-2] * height), math.floor(x.shape[-1] * width)


@_op("resize_bilinear")
def _resize_bilinear(x: Tensor, target_size_height: int, target_size_width: int, sampling_mode: str) -> Tensor:
    return _resize(x, target_size_height, target_size_width, sampling_mode)


@_op("upsample_bilinear")
def _upsample_bilinear(
    x: Tensor,
    scale_factor_height: float,
    scale_factor_width: float,
    align_corners: bool,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    half = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and half:
        raise ValueError("align_corners with half_pixel_centers is not defined")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half else "DEFAULT"
    return _resize(x, *_scaled(x, scale_factor_height, scale_factor_width), mode)


@_op("resize_nearest_neighbor", exact=True)
def _resize_nearest(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    rows = torch.arange(target_size_height) * x.shape[-2] // target_size_height
    columns = torch.arange(target_size_width) * x.shape[-1] // target_size_width
    return x.index_select(-2, rows).index_select(-1, columns)


@_op("upsample_nearest_neighbor", exact=True)
def _upsample_nearest(x: Tensor, scale_factor_height: float, scale_factor_width: float) -> Tensor:
    return _resize_nearest(x, *_scaled(x, scale_factor_height, scale_factor_width))


# Quantization.


def _along(vector: Tensor, rank: int, axis: int | None) -> Tensor:
    """A scalar, or a vector that lies along ``axis``."""
    if vector.dim() == 0 or axis is None:
        return vector
    return vector.reshape([-1 if index == axis % rank else 1 for index in range(rank)])


@_op("quantize")
def _quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    steps = torch.round(input / _along(scale, input.dim(), axis))  # halves to even
    if zero_point is not None:
        steps = steps + _along(zero_point, input.dim(), axis)
    limits = np.iinfo(output_dtype)
    return steps.clamp(limits.min, limits.max)


@_op("dequantize")
def _dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None) -> Tensor:
    steps = input if zero_point is None else input - _along(zero_point, input.dim(), axis)
    return steps * _along(scale, input.dim(), axis)


@_op("constexpr_affine_dequantize")
def _constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int) -> Tensor:
    return _dequantize(quantized_data, scale, zero_point, axis)


def _blocks(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat each value over its block, to ``shape``."""
    for axis, side in enumerate(shape):
        values = values.repeat_interleave(side // values.shape[axis], axis)
    return values


@_op("constexpr_blockwise_shift_scale")
def _constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    steps = data if offset is None else data - _blocks(offset, data.shape)
    return steps * _blocks(scale, data.shape)


@_op("constexpr_cast")
def _constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    return source_val


def _unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """``count`` numbers of so many bits from bytes, lowest bit first."""
    single = np.unpackbits(packed.numpy().astype(np.uint8), bitorder="little")[: count * bits]
    weights = 2 ** np.arange(bits)
    return torch.from_numpy(single.reshape(count, bits).astype(np.int64) @ weights)


@_op("constexpr_lut_to_dense", exact=True)
def _constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: list[int] | None = None, vector_axis: int | None = None
) -> Tensor:
    if shape is not None:  # iOS 16: one table, packed indices
        bits = (lut.numel() - 1).bit_length()
        return lut[_unpack(indices, bits, math.prod(shape))].reshape(shape)
    size = lut.shape[-1]  # iOS 18: a table for each block, whose entries are vectors
    tables = lut
    for axis, side in enumerate(indices.shape):
        tables = tables.repeat_interleave(side // lut.shape[axis], axis)
    index = indices.to(torch.int64)[..., None, None].expand(*indices.shape, 1, size)
    vectors = tables.gather(-2, index).squeeze(-2)  # (*indices.shape, size)
    axis = (vector_axis or 0) % indices.dim()
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1)


@_op("constexpr_sparse_to_dense", exact=True)
def _constexpr_sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: list[int] | None = None) -> Tensor:
    if shape is not None:  # iOS 16: a packed mask
        mask = _unpack(mask, 1, math.prod(shape)).reshape(shape)
    out = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    out[mask != 0] = nonzero_data
    return out


# Classifiers.


@_op("classify", exact=True)
def _classify(probabilities: Tensor, classes: list[str]) -> tuple[Any, dict[Any, float]]:
    flat = probabilities.flatten()
    return classes[int(flat.argmax())], dict(zip(classes, flat.tolist(), strict=True))
