"""What each target runs natively: the allow-lists that converted graphs are held to."""

from __future__ import annotations

from collections import Counter

from xformer_mobile.errors import ConversionError

__all__ = ["ALLOWED_OPS", "MAX_RANK", "QUANTIZED_OPS", "TRANSPOSES", "check_graph", "check_ops", "check_transposes"]

MAX_RANK = 4
"""The largest tensor rank in any artifact: GPU delegates take no more."""

ALLOWED_OPS: dict[str, frozenset[str]] = {
    "onnx": frozenset(
        {
            # compute
            "Conv",
            "MatMul",
            "Add",
            "Sub",
            "Mul",
            "Sigmoid",
            "AveragePool",
            "GlobalAveragePool",
            "Gelu",
            # LayerNorm over the last axis, and L2 normalization
            "LayerNormalization",
            "Max",
            "Sqrt",
            "Reciprocal",
            # layout
            "Cast",
            "Reshape",
            "Transpose",
            "Concat",
            "Resize",
            # int8
            "QuantizeLinear",
            "DequantizeLinear",
        }
    ),
    # No transpose: XFA's are arguments of its matmuls.
    "coreml": frozenset(
        {
            # compute
            "conv",
            "linear",
            "matmul",
            "add",
            "sub",
            "mul",
            "sigmoid",
            "silu",
            "gelu",
            "softmax",
            "avg_pool",
            "reduce_mean",
            # LayerNorm over channels and L2 normalisation
            "layer_norm",
            "maximum",
            "rsqrt",
            # layout
            "cast",
            "reshape",
            "concat",
            "upsample_bilinear",
            "upsample_nearest_neighbor",
            # a classifier's labels
            "classify",
        }
    ),
    "tflite": frozenset(
        {
            # compute
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "ADD",
            "SUB",
            "MUL",
            "LOGISTIC",
            "GELU",
            "AVERAGE_POOL_2D",
            # LayerNorm over channels, global pooling and L2 normalization
            "MEAN",
            "MAXIMUM",
            "RSQRT",
            # bytes, stored float16 and int8 to float32, and into int8
            "DEQUANTIZE",
            "QUANTIZE",
            # layout
            "PAD",
            "RESHAPE",
            "TRANSPOSE",
            "CONCATENATION",
            "RESIZE_BILINEAR",
        }
    ),
    # Outside the delegate: the cast from bytes and the copies at its border. Whatever computes is inside.
    "executorch": frozenset({"dim_order_ops._to_dim_order_copy"}),
}

_STORED = frozenset({"constexpr_affine_dequantize", "constexpr_blockwise_shift_scale"})

QUANTIZED_OPS: dict[str, dict[str, frozenset[str]]] = {
    "coreml": {"int8-weights": _STORED, "int8": _STORED | {"quantize", "dequantize"}},
}
"""What a quantized precision adds to its target's list."""

TRANSPOSES = {"tflite": {"classify": 6, "detect": 9, "segment": 7}}
"""The most transposes in a target's graph, by task: into and out of three XF stages, and each map's own layout."""


def check_ops(target: str, ops: Counter[str], precision: str = "fp32") -> None:
    """Hold a graph's ops to its target's allow-list, and to what the precision adds to it.

    Raises:
        ConversionError: an op that is not allowed, with the list of them.
    """
    allowed = ALLOWED_OPS[target] | QUANTIZED_OPS.get(target, {}).get(precision, frozenset())
    foreign = {op: count for op, count in ops.items() if op not in allowed}
    if foreign:
        listed = ", ".join(f"{count} {op}" for op, count in sorted(foreign.items()))
        raise ConversionError(f"the {target} graph has ops outside its allow-list: {listed}")


def check_graph(target: str, ops: Counter[str], ranks: dict[str, int], precision: str = "fp32") -> None:
    """Hold a converted graph to its target's allow-list and to MAX_RANK.

    Args:
        target: a key of ALLOWED_OPS.
        ops: how often each op occurs.
        ranks: the rank of every tensor, by name.
        precision: of a quantized graph, the precision that it is in.

    Raises:
        ConversionError: an op or a rank that is not allowed, with the list of them.
    """
    check_ops(target, ops, precision)
    deep = {name: rank for name, rank in ranks.items() if rank > MAX_RANK}
    if deep:
        listed = ", ".join(f"{name} (rank {rank})" for name, rank in sorted(deep.items())[:5])
        raise ConversionError(f"the {target} graph has tensors above rank {MAX_RANK}: {listed}")


def check_transposes(target: str, task: str, count: int) -> int:
    """Hold a graph to its budget of transposes; returns their number.

    Raises:
        ConversionError: there are more of them.
    """
    most = TRANSPOSES[target][task]
    if count > most:
        raise ConversionError(f"the {target} graph has {count} transposes; {task} takes at most {most}")
    return count
