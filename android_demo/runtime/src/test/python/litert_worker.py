"""Runs a .tflite file for the tests on the JVM, where LiteRT has no natives, in the interpreter of its Python package.

    python litert_worker.py MODEL THREADS XNNPACK

THREADS is a number, or -1 for LiteRT's own choice; XNNPACK is true or false. What goes over stdin and stdout are
blocks: a length in 4 bytes, big-endian, and so many bytes. The first one goes out: JSON that describes the tensors, or
says under "error" why the model is refused. Then, for each picture that comes in, the outputs go out, one block each.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any, BinaryIO

import numpy as np
from ai_edge_litert import interpreter as litert


def main() -> None:
    model, threads, xnnpack = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "true"
    source = sys.stdin.buffer
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print goes elsewhere
    kinds = litert.OpResolverType
    try:
        interpreter = litert.Interpreter(
            model_path=model,
            num_threads=threads if threads > 0 else None,
            experimental_op_resolver_type=kinds.AUTO if xnnpack else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        send(target, json.dumps({"error": str(error)}).encode())
        return
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    found = {"inputs": [describe(tensor) for tensor in inputs], "outputs": [describe(tensor) for tensor in outputs]}
    send(target, json.dumps(found).encode())
    while (content := receive(source)) is not None:
        shape, kind = inputs[0]["shape"], inputs[0]["dtype"]
        interpreter.set_tensor(inputs[0]["index"], np.frombuffer(content, kind).reshape(shape))
        interpreter.invoke()
        for tensor in outputs:
            send(target, interpreter.get_tensor(tensor["index"]).tobytes())


def describe(tensor: dict[str, Any]) -> dict[str, Any]:
    scale, zero_point = tensor["quantization"]
    return {
        "name": tensor["name"],
        "shape": tensor["shape"].tolist(),
        "type": np.dtype(tensor["dtype"]).name,
        "scale": float(scale),
        "zero_point": int(zero_point),
    }


def send(target: BinaryIO, content: bytes) -> None:
    target.write(struct.pack(">I", len(content)) + content)
    target.flush()


def receive(source: BinaryIO) -> bytes | None:
    head = source.read(4)
    return source.read(struct.unpack(">I", head)[0]) if len(head) == 4 else None


if __name__ == "__main__":
    main()
