"""ONNX's reference evaluator: each operator in numpy, as the standard's own project reads the standard."""

from __future__ import annotations

from typing import Any

import numpy as np

from xformer_mobile.errors import BundleError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.base import FileRunner, Outputs

__all__ = ["OnnxReferenceRunner"]


class OnnxReferenceRunner(FileRunner):
    """Runs a .onnx file by ``onnx.reference.ReferenceEvaluator``, which shares no code with ONNX Runtime.

    Nothing is fused: in int8 every operator computes in float32 between DequantizeLinear and QuantizeLinear, as the
    graph says. ``xformer_s`` at 256x256 takes 1 to 2.5 s of a processor for a picture; in fp16, for which numpy has no
    fast matrix product, 11 s. ``threads`` is not heeded: numpy's products have their own, which OMP_NUM_THREADS sets.
    """

    engine = "onnx-reference"

    _evaluator: Any = None

    def open(self) -> None:
        onnx = require("onnx", extra="onnx")
        reference = require("onnx.reference", extra="onnx")
        try:
            model = onnx.load(str(self.path))
            onnx.checker.check_model(model)  # an operator that the standard lacks, else found in the middle of a run
            self._evaluator = reference.ReferenceEvaluator(model)
        except Exception as error:  # protobuf's, the checker's and the evaluator's have no common base
            raise BundleError(f"ONNX's reference evaluator refuses {self.path}: {_first_line(error)}") from error

    def close(self) -> None:
        self._evaluator = None

    def _infer(self, image: ByteImage) -> Outputs:
        (name,) = self._evaluator.input_names
        # Its sigmoid computes both of two forms everywhere; the one that overflows is not used.
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                values = self._evaluator.run(None, {name: image})
            except Exception as error:  # whatever numpy raises for an operator whose inputs do not fit
                raise BundleError(f"ONNX's reference evaluator can't run {self.path}: {_first_line(error)}") from error
        return dict(zip(self._evaluator.output_names, values, strict=True))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
