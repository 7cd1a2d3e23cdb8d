"""A bundle whose ONNX model does extra work, honestly, for trials of ``xformer-bench compare``.

    python scripts/bench_slower.py BUNDLE OUTPUT CONVOLUTIONS

A chain of 1x1 convolutions on the first convolution's output joins the graph, and ends in the outputs with the weight
of a rounding error; an optimizer can't leave it out. How much slower that is, a long comparison says:

    xformer-bench compare BUNDLE OUTPUT --max-regression 0% --alpha 0.000001 --budget 600
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx

from xformer_mobile.artifact import FORMATS, MANIFEST, Bundle, manifest_bytes
from xformer_mobile.files import exclusive_directory, tree_sha256


def slow_down(model: onnx.ModelProto, convolutions: int) -> None:
    """Add the chain to the graph, in place."""
    graph, helper = model.graph, onnx.helper
    first = next(node for node in graph.node if node.op_type == "Conv")
    weights = {tensor.name: tensor for tensor in graph.initializer}
    channels = weights[first.input[1]].dims[0]
    rng, tail = np.random.default_rng(0), first.output[0]
    nodes = []
    for index in range(convolutions):
        kernel = rng.normal(0, 1 / np.sqrt(channels), (channels, channels, 1, 1)).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(kernel, f"extra_w{index}"))
        nodes.append(helper.make_node("Conv", [tail, f"extra_w{index}"], [f"extra{index}"], kernel_shape=[1, 1]))
        tail = f"extra{index}"
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1e-12), "extra_scale"))
    axes = onnx.numpy_helper.from_array(np.int64([0, 1, 2, 3]), "extra_axes")
    graph.initializer.append(axes)
    nodes.append(helper.make_node("ReduceMean", [tail, "extra_axes"], ["extra_mean"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["extra_mean", "extra_scale"], ["extra_end"]))
    place = list(graph.node).index(first) + 1
    for offset, node in enumerate(nodes):
        graph.node.insert(place + offset, node)
    for output in graph.output:
        made = next(node for node in graph.node if output.name in node.output)
        made.output[list(made.output).index(output.name)] = f"{output.name}_before"
        graph.node.append(helper.make_node("Add", [f"{output.name}_before", "extra_end"], [output.name]))


def main() -> None:
    """Write the slower bundle."""
    source, target, convolutions = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    bundle = Bundle.open(source)
    model = onnx.load(bundle.artifact("onnx").path)
    slow_down(model, convolutions)
    onnx.checker.check_model(model)
    manifest = json.loads((source / MANIFEST).read_bytes())
    with exclusive_directory(target) as staging:
        file = staging / FORMATS["onnx"]
        onnx.save(model, file)
        entry = next(entry for entry in manifest["artifacts"] if entry["format"] == "onnx")
        entry |= {"sha256": tree_sha256(file), "size_bytes": file.stat().st_size}
        manifest |= {"artifacts": [entry], "golden": [], "parity": {}}
        manifest.pop("report", None)
        (staging / MANIFEST).write_bytes(manifest_bytes(manifest))


if __name__ == "__main__":
    main()
