"""What of a graph is in int8."""

from __future__ import annotations

from xformer_mobile.bench.counts.certificate import certify
from xformer_mobile.bench.counts.graph import Graph, Operator, Tensor

FLOAT = Tensor((1, 4), 32, is_float=True)
INT8 = Tensor((1, 4), 8)
WEIGHT = Tensor((4, 4), 8, is_constant=True)
FLOAT_WEIGHT = Tensor((4, 4), 32, is_constant=True, is_float=True)
BIAS = Tensor((4,), 32, is_constant=True)


def op(kind: str, inputs: dict[str, Tensor], outputs: dict[str, Tensor], macs: int = 0) -> Operator:
    return Operator(kind, macs, tuple(inputs.items()), tuple(outputs.items()), f"{kind} {'/'.join(outputs)}")


def native() -> Graph:
    """float -> QUANTIZE -> int8 convolution -> DEQUANTIZE -> GELU -> float convolution."""
    return Graph(
        (
            op("QUANTIZE", {"x": FLOAT}, {"a": INT8}),
            op("CONV_2D", {"a": INT8, "w": WEIGHT, "b": BIAS}, {"c": INT8}, 300),
            op("DEQUANTIZE", {"c": INT8}, {"d": FLOAT}),
            op("GELU", {"d": FLOAT}, {"e": FLOAT}),
            op("CONV_2D", {"e": FLOAT, "v": FLOAT_WEIGHT}, {"f": FLOAT}, 100),
        ),
        0,
    )


def test_operators_on_8_bits() -> None:
    found = certify(native(), "tflite")
    assert found.macs == (300, 400)
    assert found.share("macs") == 0.75
    assert found.ops == (1, 3)
    assert found.weights == (16, 32)
    assert found.qdq_pairs == 1
    (island,) = found.islands
    assert island.as_json() == {"ops": 2, "macs": 100, "kinds": {"CONV_2D": 1, "GELU": 1}, "first": "GELU e"}


def folded(kind: str = "Conv", reader: str = "QuantizeLinear") -> Graph:
    return Graph(
        (
            op("DequantizeLinear", {"a": INT8}, {"x": FLOAT}),
            op("DequantizeLinear", {"w8": WEIGHT}, {"w": FLOAT}),
            op(kind, {"x": FLOAT, "w": FLOAT}, {"y": FLOAT}, 10),
            op(reader, {"y": FLOAT}, {"z": INT8}),
        ),
        0,
    )


def test_operators_between_dequantize_and_quantize() -> None:
    assert certify(folded(), "onnx").macs == (10, 10)
    assert certify(folded(), "ort").macs == (10, 10)
    assert certify(folded(), "tflite").macs == (0, 10), "there such an operator computes in float"
    assert certify(folded(kind="Erf"), "onnx").ops == (0, 1), "no engine fuses it"
    assert certify(folded(reader="Relu"), "onnx").macs == (0, 10), "what it writes stays float"


def test_int8_weights_alone_are_no_int8_arithmetic() -> None:
    graph = Graph(
        (
            op("DequantizeLinear", {"w8": WEIGHT}, {"w": FLOAT}),
            op("Conv", {"x": FLOAT, "w": FLOAT}, {"y": FLOAT}, 10),
        ),
        0,
    )
    found = certify(graph, "onnx")
    assert found.macs == (0, 10)
    assert found.weights == (16, 16)
    assert found.islands == (), "with nothing in int8 there are no islands"


def test_islands_are_connected_by_values_not_by_constants() -> None:
    graph = Graph(
        (
            op("CONV_2D", {"a": INT8, "w": WEIGHT}, {"b": INT8}, 10),
            op("MUL", {"p": FLOAT, "k": FLOAT_WEIGHT}, {"q": FLOAT}),
            op("MUL", {"r": FLOAT, "k": FLOAT_WEIGHT}, {"s": FLOAT}),
            op("ADD", {"q": FLOAT, "t": FLOAT}, {"u": FLOAT}),
        ),
        0,
    )
    assert [island.ops for island in certify(graph, "tflite").islands] == [2, 1]


def test_nothing_has_no_share() -> None:
    found = certify(Graph((), 0), "onnx")
    assert found.share("macs") == 0
    assert found.as_json()["float_island_count"] == 0
