"""What each target runs natively: the allow-lists that converted graphs are held to."""

from __future__ import annotations

from collections import Counter

from xformer_mobile.errors import ConversionError

__all__ = ["ALLOWED_OPS", "MAX_RANK", "check_graph"]

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
            "Div",
            "Sigmoid",
            "AveragePool",
            "GlobalAveragePool",
            # LayerNorm over channels and L2 normalisation
            "ReduceMean",
            "Max",
            "Sqrt",
            "Reciprocal",
            # GELU, exactly
            "Erf",
            # layout
            "Cast",
            "Reshape",
            "Transpose",
            "Concat",
            "Resize",
        }
    )
}


def check_graph(target: str, ops: Counter[str], ranks: dict[str, int]) -> None:
    """Hold a converted graph to its target's allow-list and to MAX_RANK.

    Args:
        target: a key of ALLOWED_OPS.
        ops: how often each op occurs.
        ranks: the rank of every tensor, by name.

    Raises:
        ConversionError: an op or a rank that is not allowed, with the list of them.
    """
    foreign = {op: count for op, count in ops.items() if op not in ALLOWED_OPS[target]}
    if foreign:
        listed = ", ".join(f"{count} {op}" for op, count in sorted(foreign.items()))
        raise ConversionError(f"the {target} graph has ops outside its allow-list: {listed}")
    deep = {name: rank for name, rank in ranks.items() if rank > MAX_RANK}
    if deep:
        listed = ", ".join(f"{name} (rank {rank})" for name, rank in sorted(deep.items())[:5])
        raise ConversionError(f"the {target} graph has tensors above rank {MAX_RANK}: {listed}")
