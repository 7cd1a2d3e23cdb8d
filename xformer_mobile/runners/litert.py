"""LiteRT's interpreter on the CPU, with XNNPACK."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from xformer_mobile.chatter import silenced
from xformer_mobile.errors import BundleError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.base import FileRunner, Outputs

__all__ = ["LiteRTRunner", "check_file"]

FILE_IDENTIFIER = b"TFL3"
"""At byte 4 of a model of the format's only version."""


class LiteRTRunner(FileRunner):
    """Runs a .tflite file. Its tensors bear the manifest's names."""

    engine = "litert"

    _interpreter: Any = None

    def open(self) -> None:
        litert = require("ai_edge_litert.interpreter", extra="tflite")
        check_file(self.path)
        try:
            with silenced():  # it names its delegate
                self._interpreter = litert.Interpreter(model_path=str(self.path), num_threads=self.threads)
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            self._interpreter = None
            raise BundleError(f"LiteRT refuses {self.path}: {' '.join(str(error).split())[:200]}") from error

    def close(self) -> None:
        self._interpreter = None

    def _infer(self, image: ByteImage) -> Outputs:
        interpreter = self._interpreter
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        found = {tensor["name"]: tensor["index"] for tensor in interpreter.get_output_details()}
        # In the manifest's order, then what else there is, for the contract to refuse. Each is a copy.
        names = [*(name for name in self.output_shapes if name in found), *(found.keys() - self.output_shapes.keys())]
        return {name: interpreter.get_tensor(found[name]) for name in names}


def check_file(path: Path) -> None:
    """Say plainly what is no model; of what looks like one, LiteRT verifies the structure itself."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise BundleError(f"can't read {path}: {error.strerror or error}") from error
    if start[4:] != FILE_IDENTIFIER:
        raise BundleError(f"LiteRT refuses {path}: it is not a .tflite file")
    if not 8 <= int.from_bytes(start[:4], "little") < size:
        raise BundleError(f"LiteRT refuses {path}: it is truncated")
