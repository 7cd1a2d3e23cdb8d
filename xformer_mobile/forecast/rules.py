"""The rules: what of a graph is likely to bite on a phone, each with the rewrite that would help and its source.

A rule that can't be decided from the file says nothing. Left out for that reason: attributes other than shapes (axes,
strides, dilations), op versions, and what an engine fuses or folds when it loads the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from xformer_mobile.bench.counts.graph import DEQUANTIZE, QUANTIZE, TRANSPOSES, Operator, Tensor
from xformer_mobile.forecast.findings import MODEL
from xformer_mobile.forecast.operators import GPU, LISTS, NNAPI_RANK, ORT_XNNPACK, OpList
from xformer_mobile.forecast.subject import Subject

__all__ = ["FP16_MAX", "FP16_NEAR", "REPLACEMENTS", "RULES", "Match", "Replacement", "Rule"]

ONNX = ("onnx", "ort")

FP16_MAX = 65504.0
"""The largest finite number of IEEE 754's binary16."""

FP16_NEAR = FP16_MAX / 4
"""Values from here on are near: measured ranges are those of a few pictures."""

ANE_ROW_BYTES = 64
"""The last axis of a buffer of the Neural Engine takes a multiple of so many bytes."""

ANE_PADDING_BYTES = 1 << 16
"""A tensor whose padding takes less than this is not worth a word."""

COMMUNITY = "https://github.com/hollance/neural-engine/blob/master/docs/unsupported-layers.md"
APPLE_TRANSFORMERS = "https://machinelearning.apple.com/research/neural-engine-transformers"
APPLE_PRECISION = "https://apple.github.io/coremltools/docs-guides/source/typed-execution.html"
APPLE_SHAPES = "https://apple.github.io/coremltools/docs-guides/source/flexible-inputs.html"
ORT_PROVIDERS = "https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/providers"
NNAPI_BUILDERS = f"{ORT_PROVIDERS}/nnapi/nnapi_builtin/builders/impl"
ORT_LAYOUT = (
    "https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/layout_transformation/"
    "layout_transformation.h"
)
ORT_FP16 = "https://onnxruntime.ai/docs/performance/model-optimizations/float16.html"
ORT_QNN_PAGE = "https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html"
NNAPI_MIGRATION = "https://developer.android.com/ndk/guides/neuralnetworks/migration-guide"
LITERT = "https://github.com/google-ai-edge/LiteRT/blob/main/tflite"
EXECUTORCH_XNNPACK = "https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-partitioner.html"
EXECUTORCH_LAYOUT = (
    "https://github.com/pytorch/executorch/blob/main/backends/xnnpack/_passes/channels_last_tagged_reshape_pass.py"
)
EXECUTORCH_DELEGATES = "https://docs.pytorch.org/executorch/stable/compiler-delegate-and-partitioner.html"


@dataclass(frozen=True)
class Match:
    """Where a rule applies: ops of one kind, or the whole model.

    ``detail`` is put behind the rule's message; ``rewrite``, if there is one, is said instead of the rule's.
    """

    op: str
    count: int
    operators: tuple[Operator, ...] = ()
    detail: str = ""
    rewrite: str = ""


@dataclass(frozen=True)
class Rule:
    """A row: for which formats, about which target, how heavy, where it applies, and what is said then."""

    name: str
    formats: tuple[str, ...]
    target: str
    severity: str
    find: Callable[[Subject], Iterable[Match]]
    message: str
    rewrite: str
    source: str


@dataclass(frozen=True)
class Replacement:
    """Another form of an op, and the ops that it takes."""

    op: str
    needs: frozenset[str]
    text: str


def _replacement(op: str, needs: str, text: str) -> Replacement:
    return Replacement(op, frozenset(needs.split()), text)


REPLACEMENTS = (
    _replacement("Einsum", "MatMul Reshape Transpose", "write it as MatMul, with Reshape and Transpose around it"),
    _replacement("Erf", "Gelu", "export GELU as one op (Gelu, from opset 20 on)"),
    _replacement("Erf", "Tanh", "use GELU's tanh approximation, and compare with that"),
    _replacement("Gelu", "Tanh Pow", "use GELU's tanh approximation, and compare with that"),
    _replacement(
        "LayerNormalization", "ReduceMean Sub Mul Sqrt Div Add", "write it by ReduceMean, Sub, Mul, Sqrt and Div"
    ),
    _replacement("Reciprocal", "Div", "divide instead: Div, with 1 as its first operand"),
    _replacement("Gather", "Slice", "use Slice where the indices are constant and contiguous"),
    _replacement("GatherND", "Slice", "use Slice where the indices are constant and contiguous"),
    _replacement("Expand", "Add Mul", "let the op behind it broadcast"),
    _replacement("EXPAND_DIMS", "RESHAPE", "write RESHAPE"),
    _replacement("SQUEEZE", "RESHAPE", "write RESHAPE"),
    _replacement("BROADCAST_TO", "ADD MUL", "let the op behind it broadcast"),
    _replacement("GATHER_ND", "SLICE", "use SLICE where the indices are constant and contiguous"),
)
"""What helps against an op that a list does not have, if the list has what it takes; the first that does."""


# ---- where a rule applies -----------------------------------------------------------------------------------

Test = Callable[[Operator], bool]

MOST_NAMED = 3
"""So many kinds, or values, are named in a message."""


def _some(names: Iterable[str]) -> str:
    """The first few names, each once."""
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:MOST_NAMED]) + (", ..." if len(distinct) > MOST_NAMED else "")


def _by_kind(operators: Iterable[Operator], detail: str = "") -> Iterator[Match]:
    kinds: dict[str, list[Operator]] = {}
    for operator in operators:
        kinds.setdefault(operator.kind, []).append(operator)
    for kind, found in kinds.items():
        yield Match(kind, len(found), tuple(found), detail)


def _where(test: Test) -> Callable[[Subject], Iterator[Match]]:
    """Each kind of op that a test holds for."""
    return lambda subject: _by_kind(filter(test, subject.graph.operators))


def _together(test: Test, *, named: bool = False) -> Callable[[Subject], Iterator[Match]]:
    """All ops that a test holds for in one finding about the model, with their modules if they are ``named``."""

    def find(subject: Subject) -> Iterator[Match]:
        found = tuple(filter(test, subject.graph.operators))
        if found:
            yield Match(MODEL, len(found), found if named else (), f": {_some(operator.kind for operator in found)}")

    return find


def _outside(listed: OpList) -> Callable[[Subject], Iterator[Match]]:
    """Each kind of op that a list does not have.

    Of XNNPACK's provider: QuantizeLinear and DequantizeLinear go with the op between them, and Relu and Clip with the
    convolution or pooling before them.
    """

    def find(subject: Subject) -> Iterator[Match]:
        made_by = _producers(subject)
        for_xnnpack = listed is ORT_XNNPACK

        def leaves(operator: Operator) -> bool:
            if operator.kind in listed.ops:
                return False
            if for_xnnpack and operator.kind in QUANTIZE | DEQUANTIZE:
                return False
            before = made_by.get(operator.inputs[0][0]) if operator.inputs else None
            fused = for_xnnpack and operator.kind in ("Clip", "Relu") and before in ("AveragePool", "Conv", "MaxPool")
            return not fused

        for match in _by_kind(filter(leaves, subject.graph.operators)):
            texts = (row.text for row in REPLACEMENTS if row.op == match.op and row.needs <= listed.ops)
            yield replace(match, rewrite=next(texts, ""))

    return find


def _producers(subject: Subject) -> Mapping[str, str]:
    """The kind of op that makes each value."""
    return {name: operator.kind for operator in subject.graph.operators for name, _ in operator.outputs}


def _constants(subject: Subject) -> frozenset[str]:
    """The values that are constant, or made from constants alone: engines fold those, or may."""
    found: set[str] = set()
    for operator in subject.graph.operators:
        found |= {name for name, tensor in operator.inputs if tensor.is_constant}
        if operator.inputs and all(name in found for name, _ in operator.inputs):
            found |= {name for name, _ in operator.outputs}
    return frozenset(found)


def _xnnpack_operands(subject: Subject) -> Iterator[Match]:
    """Ops of XNNPACK's provider with weights that are not constant, or of other shapes than it takes."""
    constants = _constants(subject)

    def leaves(operator: Operator) -> bool:
        if operator.kind not in XNNPACK_WEIGHTS or len(operator.inputs) < 2:
            return False
        name, weights = operator.inputs[1]
        return name not in constants or not XNNPACK_WEIGHTS[operator.kind](len(weights.shape))

    return _by_kind(filter(leaves, subject.graph.operators))


XNNPACK_WEIGHTS: dict[str, Callable[[int], bool]] = {
    "Conv": lambda rank: rank == 4,
    "ConvTranspose": lambda rank: rank == 4,
    "Gemm": lambda rank: rank <= 2,
    "MatMul": lambda rank: rank <= 2,
}
"""The ranks of the constant weights that XNNPACK's provider takes."""


def _ranks(operator: Operator) -> Iterator[int]:
    return (len(tensor.shape) for _, tensor in (*operator.inputs, *operator.outputs))


def _rank_above(limit: int, kinds: frozenset[str] | None = None) -> Test:
    return lambda operator: (kinds is None or operator.kind in kinds) and max(_ranks(operator), default=0) > limit


def _nnapi_products(subject: Subject) -> Iterator[Match]:
    """Matrix products whose operands the NNAPI provider refuses."""
    constants = _constants(subject)

    def leaves(operator: Operator) -> bool:
        if operator.kind != "MatMul" or len(operator.inputs) != 2:
            return False
        (_, first), (name, second) = operator.inputs
        if 0 in first.shape + second.shape:  # not known
            return False
        if len(first.shape) == len(second.shape) == 2:
            return name not in constants
        return len(first.shape) < 3 or len(second.shape) < 3 or first.shape[:-2] != second.shape[:-2]

    return _by_kind(filter(leaves, subject.graph.operators))


def _flexible(subject: Subject) -> Iterator[Match]:
    """The model, if a shape of it is not fixed."""
    if subject.flexible:
        unknown = set(subject.flexible)
        hit = tuple(
            operator
            for operator in subject.graph.operators
            if any(name in unknown for name, _ in (*operator.inputs, *operator.outputs))
        )
        yield Match(MODEL, len(subject.flexible), hit, f": {_some(subject.flexible)}")


def _half(tensor: Tensor) -> bool:
    return tensor.is_float and tensor.bits == 16


def _single(tensor: Tensor) -> bool:
    return tensor.is_float and tensor.bits == 32


def _makes_single(operator: Operator) -> bool:
    return operator.kind != "cast" and any(_single(tensor) for _, tensor in operator.outputs)


def _reads_half(operator: Operator) -> bool:
    return bool(operator.inputs) and _half(operator.inputs[0][1])


def _casts_floats(operator: Operator) -> bool:
    if operator.kind not in ("Cast", "cast") or not (operator.inputs and operator.outputs):
        return False
    before, after = operator.inputs[0][1], operator.outputs[0][1]
    return before.is_float and after.is_float and before.bits != after.bits


def _overflows(above: float, up_to: float, *, any_float: bool) -> Callable[[Subject], Iterator[Match]]:
    """Each kind of op whose result reaches ``above``, and not ``up_to``: where it is in 16 bits, or ``any_float``."""

    def find(subject: Subject) -> Iterator[Match]:
        reached: dict[str, list[tuple[float, Operator]]] = {}
        for operator in subject.graph.operators:
            reach = subject.reach(operator)
            if reach is not None and (reach[1] or any_float) and above < reach[0] <= up_to:
                reached.setdefault(operator.kind, []).append((reach[0], operator))
        for kind, found in reached.items():
            largest = max(value for value, _ in found)
            yield Match(kind, len(found), tuple(operator for _, operator in found), f": up to {largest:.6g}")

    return find


def _left_by_xnnpack(subject: Subject) -> Iterator[Match]:
    """The ops that LiteRT's XNNPACK leaves when it prepares the graph here. Which of a kind, only if it is all."""
    for match in _by_kind(subject.graph.operators):
        left = subject.left.get(match.op, 0)
        if left:
            yield Match(match.op, left, match.operators if left == match.count else ())


def _kernels(*, foreign: bool) -> Callable[[Subject], Iterator[Match]]:
    """The kernels of an ExecuTorch program that stand outside of its delegates."""
    return lambda subject: _by_kind(
        operator for operator in subject.graph.operators if "::" in operator.kind and subject.foreign == foreign
    )


GPU_TYPES = frozenset({"float16", "float32", "int8", "uint8"})
GPU_MORE_INPUTS = {
    "CAST": frozenset({"bool", "int32"}),
    "GATHER": frozenset({"int32"}),
    "LOGICAL_AND": frozenset({"bool"}),
    "ONE_HOT": frozenset({"int32"}),
    "SELECT": frozenset({"bool"}),
    "SELECT_V2": frozenset({"bool"}),
}
GPU_MORE_OUTPUTS = {
    "CAST": frozenset({"bool", "int32"}),
    **dict.fromkeys(
        ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND", "NOT_EQUAL"), frozenset({"bool"})
    ),
}
"""The element types of run-time tensors that the GPU delegate takes, and those that it takes of some ops only."""

GPU_CASTS = frozenset(
    {("bool", "float16"), ("bool", "float32"), ("float16", "bool"), ("float32", "bool")}
    | {(before, after) for before in ("float32", "int32") for after in ("float32", "int32")}
)
"""The casts that the GPU delegate has."""


def _gpu_types(subject: Subject) -> Iterator[Match]:
    def leaves(operator: Operator) -> bool:
        sides = (operator.inputs, GPU_MORE_INPUTS), (operator.outputs, GPU_MORE_OUTPUTS)
        return operator.kind in GPU.ops and any(
            not tensor.is_constant
            and subject.types.get(name, "float32") not in GPU_TYPES | more.get(operator.kind, frozenset())
            for side, more in sides
            for name, tensor in side
        )

    return _by_kind(filter(leaves, subject.graph.operators))


def _gpu_casts(subject: Subject) -> Iterator[Match]:
    def leaves(operator: Operator) -> bool:
        if operator.kind != "CAST" or not (operator.inputs and operator.outputs):
            return False
        before, after = (subject.types.get(side[0][0]) for side in (operator.inputs, operator.outputs))
        return before is not None and after is not None and (before, after) not in GPU_CASTS

    return _by_kind(filter(leaves, subject.graph.operators))


def _gpu_slices(operator: Operator) -> bool:
    return (
        operator.kind in ("SLICE", "STRIDED_SLICE")
        and bool(operator.inputs)
        and len(operator.inputs[0][1].shape) not in (3, 4)
    )


def _gpu_constant_matmul(operator: Operator) -> bool:
    if operator.kind != "BATCH_MATMUL" or len(operator.inputs) < 2:
        return False
    second = operator.inputs[1][1]
    return second.is_constant and len(second.shape) != 2


def _padded(operator: Operator) -> bool:
    """Whether the Neural Engine's padding of the last axis takes several times the tensor, in fp16."""
    for _, tensor in operator.outputs:
        if tensor.is_float and tensor.shape:
            row = 2 * tensor.shape[-1]
            padded = -(-row // ANE_ROW_BYTES) * ANE_ROW_BYTES
            waste = (padded - row) * math.prod(tensor.shape[:-1])
            if padded >= 2 * row and waste >= ANE_PADDING_BYTES:
                return True
    return False


def _of(*kinds: str) -> Test:
    return lambda operator: operator.kind in kinds


def _always(subject: Subject) -> Iterator[Match]:
    yield Match(MODEL, 1)


# ---- the rules ----------------------------------------------------------------------------------------------

RULES: tuple[Rule, ...] = (
    *(
        Rule(
            f"{listed.target}-list",
            ("tflite",) if listed is GPU else ONNX,
            listed.target,
            "leaves",
            _outside(listed),
            f"{listed.owner} does not list it ({listed.version}): it would run on the CPU's kernels instead",
            "replace it by listed ops, or leave this part to the CPU",
            listed.source,
        )
        for listed in LISTS
    ),
    Rule(
        "xnnpack-weights",
        ONNX,
        "xnnpack",
        "leaves",
        _xnnpack_operands,
        "the second operand is computed, or has a rank that XNNPACK's provider does not take: convolutions are to be "
        "in 2-D, and matrix products with a constant of at most two axes",
        "write products with a weight so that it is the second operand; products of two activations stay on the CPU",
        f"{ORT_PROVIDERS}/xnnpack/detail/node_support_checker.cc",
    ),
    Rule(
        "nnapi-rank",
        ONNX,
        "nnapi",
        "leaves",
        _where(_rank_above(4, NNAPI_RANK)),
        "an operand has more than four axes, which ONNX Runtime's NNAPI provider refuses for this op",
        "merge axes: four are enough where batch and heads share one",
        NNAPI_BUILDERS.replace("/blob/", "/tree/"),
    ),
    Rule(
        "nnapi-matmul",
        ONNX,
        "nnapi",
        "leaves",
        _nnapi_products,
        "ONNX Runtime's NNAPI provider multiplies two matrices of two axes, the second a constant, or two stacks of "
        "the same leading axes",
        "reshape to two axes before a product with a weight, or write that as a convolution of 1x1",
        f"{NNAPI_BUILDERS}/gemm_op_builder.cc",
    ),
    Rule(
        "nnapi-fp16",
        ONNX,
        "nnapi",
        "leaves",
        _together(_reads_half),
        "the model is in fp16, and ONNX Runtime's NNAPI provider takes fp32 operands only",
        "give it the fp32 model, with the provider's flag NNAPI_FLAG_USE_FP16",
        f"{NNAPI_BUILDERS}/base_op_builder.cc",
    ),
    Rule(
        "nnapi-dynamic",
        ONNX,
        "nnapi",
        "risk",
        _flexible,
        "shapes are not fixed, and ONNX Runtime's NNAPI provider leaves every op that reads such a value to the CPU",
        "fix the input's shape before or after the export (onnxruntime.tools.make_dynamic_shape_fixed)",
        f"{NNAPI_BUILDERS}/base_op_builder.cc",
    ),
    Rule(
        "nnapi-deprecated",
        ONNX,
        "nnapi",
        "note",
        _always,
        "NNAPI is deprecated from Android 15 on",
        "plan with another provider on new phones",
        NNAPI_MIGRATION,
    ),
    Rule(
        "coreml-rank",
        ONNX,
        "coreml",
        "leaves",
        _where(_rank_above(5)),
        "an operand has more than five axes, which ONNX Runtime's Core ML provider refuses",
        "merge axes, or split the permutation in two of fewer axes",
        f"{ORT_PROVIDERS}/coreml/builders/helper.cc",
    ),
    Rule(
        "coreml-dynamic",
        ONNX,
        "coreml",
        "risk",
        _flexible,
        "shapes are not fixed; Core ML's provider may take such ops, slower, or refuse them where it is set to static "
        "shapes",
        "fix the input's shape before or after the export (onnxruntime.tools.make_dynamic_shape_fixed)",
        "https://onnxruntime.ai/docs/tutorials/mobile/helpers/make-dynamic-shape-fixed.html",
    ),
    Rule(
        "qnn-dynamic",
        ONNX,
        "qnn",
        "risk",
        _flexible,
        "shapes are not fixed, and ONNX Runtime's QNN provider does not take such models",
        "fix the input's shape before or after the export (onnxruntime.tools.make_dynamic_shape_fixed)",
        ORT_QNN_PAGE,
    ),
    Rule(
        "qnn-precision",
        ONNX,
        "qnn",
        "note",
        _together(lambda operator: bool(operator.inputs) and _single(operator.inputs[0][1])),
        "ops in fp32: on the Hexagon NPU, ONNX Runtime's QNN provider computes them in fp16 unless "
        "enable_htp_fp16_precision is 0",
        "compare in fp16, or quantize to int8",
        ORT_QNN_PAGE,
    ),
    Rule(
        "onnx-transposes",
        ONNX,
        "onnxruntime",
        "slow",
        _where(lambda operator: operator.kind in TRANSPOSES),
        "it moves data and computes nothing. Providers that want channels last (XNNPACK, NNAPI, QNN) get further ones "
        "around the ops they take, and not all of them cancel out",
        "keep one layout from end to end; put heads and tokens in an order that the matrix products can read",
        ORT_LAYOUT,
    ),
    Rule(
        "onnx-casts",
        ONNX,
        "onnxruntime",
        "slow",
        _where(_casts_floats),
        "it converts between precisions",
        "keep neighbouring ops in one precision",
        ORT_FP16,
    ),
    # ---- .tflite --------------------------------------------------------------------------------------------
    Rule(
        "tflite-xnnpack",
        ("tflite",),
        "xnnpack",
        "leaves",
        _left_by_xnnpack,
        "XNNPACK left it when LiteRT prepared the graph on this machine: it would run on LiteRT's own kernels",
        "replace it by ops and types of the delegate's list",
        f"{LITERT}/delegates/xnnpack/README.md",
    ),
    Rule(
        "tflite-dynamic",
        ("tflite",),
        "gpu",
        "risk",
        _flexible,
        "an input's shape is not fixed, and LiteRT refuses delegates for static shapes on graphs with dynamic tensors",
        "convert with fixed shapes",
        f"{LITERT}/core/subgraph.cc",
    ),
    Rule(
        "gpu-rank",
        ("tflite",),
        "gpu",
        "leaves",
        _where(lambda operator: operator.kind in GPU.ops and _rank_above(4)(operator)),
        "an operand has more than four axes, which the GPU delegate refuses. By default it takes one part of the graph "
        "only, the largest",
        "merge axes: four are enough where batch and heads share one",
        GPU.source,
    ),
    Rule(
        "gpu-types",
        ("tflite",),
        "gpu",
        "leaves",
        _gpu_types,
        "a tensor has an element type that the GPU delegate does not take for this op",
        "compute it in float, or ahead of time",
        GPU.source,
    ),
    Rule(
        "gpu-casts",
        ("tflite",),
        "gpu",
        "leaves",
        _gpu_casts,
        "the GPU delegate has no cast between these types",
        "write DEQUANTIZE with scale 1 for bytes to float, or cast outside of the model",
        f"{LITERT}/tools/versioning/gpu_compatibility.cc",
    ),
    Rule(
        "gpu-slices",
        ("tflite",),
        "gpu",
        "leaves",
        _where(_gpu_slices),
        "the GPU delegate slices tensors of three or four axes only",
        "slice in a shape of three or four axes, or use SPLIT",
        f"{LITERT}/tools/versioning/gpu_compatibility.cc",
    ),
    Rule(
        "gpu-matmul",
        ("tflite",),
        "gpu",
        "leaves",
        _where(_gpu_constant_matmul),
        "the GPU delegate takes a constant second factor with two axes only",
        "write FULLY_CONNECTED or CONV_2D with a 1x1 kernel",
        GPU.source,
    ),
    Rule(
        "gpu-reshapes",
        ("tflite",),
        "gpu",
        "slow",
        _where(
            _of("BATCH_TO_SPACE_ND", "DEPTH_TO_SPACE", "RESHAPE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "TRANSPOSE")
        ),
        "it moves data and computes nothing, which is dear on a phone's GPU",
        "keep one layout from end to end",
        "https://www.tensorflow.org/lite/performance/gpu",
    ),
    # ---- Core ML --------------------------------------------------------------------------------------------
    Rule(
        "ane-fp32",
        ("coreml",),
        "neural-engine",
        "leaves",
        _together(_makes_single),
        "ops typed fp32: Core ML runs them on the CPU and the GPU, not on the Neural Engine",
        "export in fp16 (--quantize fp16)",
        APPLE_PRECISION,
    ),
    Rule(
        "ane-dynamic",
        ("coreml",),
        "neural-engine",
        "risk",
        _flexible,
        "an input has more than one shape: those that are not the default one may run elsewhere",
        "fix the shape; where several are needed, enumerate them rather than give a range",
        APPLE_SHAPES,
    ),
    Rule(
        "ane-rank",
        ("coreml",),
        "neural-engine",
        "note",
        _where(_rank_above(4)),
        "an operand has more than four axes; Apple's guide names four, channels first, as what suits the Neural Engine",
        "merge axes: four are enough where batch and heads share one",
        APPLE_TRANSFORMERS,
    ),
    Rule(
        "ane-gather",
        ("coreml",),
        "neural-engine",
        "note",
        _where(_of("gather", "gather_along_axis", "gather_nd", "gru", "lstm", "rnn")),
        "users report that it does not run on the Neural Engine; Apple has published no list",
        "use slices where the indices are constant and contiguous",
        COMMUNITY,
    ),
    Rule(
        "ane-transposes",
        ("coreml",),
        "neural-engine",
        "slow",
        _where(_of("transpose")),
        "it copies and computes nothing; Apple's guide keeps one transpose for each attention, that of the keys",
        "keep channels first, and split heads along the channels",
        APPLE_TRANSFORMERS,
    ),
    Rule(
        "ane-reshapes",
        ("coreml",),
        "neural-engine",
        "note",
        _where(_of("reshape")),
        "it may copy: buffers of the Neural Engine are padded along the last axis",
        "keep the last two axes as they are; split and merge channels only",
        APPLE_TRANSFORMERS,
    ),
    Rule(
        "ane-padding",
        ("coreml",),
        "neural-engine",
        "note",
        _together(_padded, named=True),
        f"the last axis of what they make is short: padded to {ANE_ROW_BYTES} bytes, in fp16, it takes twice the "
        f"memory or more, and at least {ANE_PADDING_BYTES >> 10} KiB of padding",
        "put the longest axis last, tokens rather than heads",
        APPLE_TRANSFORMERS,
    ),
    Rule(
        "ane-linear",
        ("coreml",),
        "neural-engine",
        "note",
        _where(_of("linear")),
        "Apple's guide writes it as a convolution of 1x1 on (batch, channels, 1, tokens)",
        "write it as a convolution of 1x1",
        APPLE_TRANSFORMERS,
    ),
    Rule(
        "ane-casts",
        ("coreml",),
        "neural-engine",
        "slow",
        _where(_casts_floats),
        "it converts between precisions, and splits what runs on the Neural Engine from what does not",
        "keep neighbouring ops in fp16",
        APPLE_PRECISION,
    ),
    # ---- ExecuTorch -----------------------------------------------------------------------------------------
    Rule(
        "executorch-xnnpack",
        ("executorch",),
        "xnnpack",
        "leaves",
        _kernels(foreign=False),
        "the program has it outside of what XNNPACK takes: it runs on ExecuTorch's own kernels",
        "replace it by ops and types of the partitioner's list",
        EXECUTORCH_XNNPACK,
    ),
    Rule(
        "executorch-delegate",
        ("executorch",),
        "delegate",
        "leaves",
        _kernels(foreign=True),
        "the program has it outside of its delegates: it runs on ExecuTorch's own kernels",
        "replace it by ops that the delegate's partitioner takes",
        EXECUTORCH_DELEGATES,
    ),
    Rule(
        "executorch-transposes",
        ("executorch",),
        "xnnpack",
        "slow",
        _where(lambda operator: operator.kind in TRANSPOSES),
        "it moves data and computes nothing; the partitioner puts one wherever channels last meets another layout",
        "export in channels last, and keep it from end to end",
        EXECUTORCH_LAYOUT,
    ),
    # ---- fp16, where ranges are given -----------------------------------------------------------------------
    *(
        Rule(
            f"{target}-{name}",
            formats,
            target,
            "risk",
            _overflows(above, up_to, any_float=any_float),
            f"{message}{where}",
            "scale the weights before it, clamp, or keep it in fp32",
            source,
        )
        for formats, target, any_float, where, source in (
            (ONNX, "onnxruntime", False, "", ORT_FP16),
            (ONNX, "qnn", True, ", which QNN uses for fp32 models by default", ORT_QNN_PAGE),
            (
                ("tflite",),
                "gpu",
                True,
                ", which the GPU delegate may use",
                f"{LITERT}/delegates/gpu/delegate_options.h",
            ),
            (("coreml",), "neural-engine", False, ", the op's type", APPLE_PRECISION),
            (("executorch",), "xnnpack", False, "", EXECUTORCH_XNNPACK),
        )
        for name, above, up_to, message in (
            ("fp16-overflow", FP16_MAX, math.inf, f"overflows: the measured range passes {FP16_MAX:g}, fp16's end"),
            ("fp16-near", FP16_NEAR, FP16_MAX, f"the measured range is near {FP16_MAX:g}, fp16's end"),
        )
    ),
)
"""All of them, by format and target."""
