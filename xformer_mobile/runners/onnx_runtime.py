"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xformer_mobile.errors import BundleError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.base import Outputs, Runner
from xformer_mobile.spec import ImageSize

__all__ = ["OnnxRuntimeRunner"]


class OnnxRuntimeRunner(Runner):
    """Runs a .onnx file.

    Args:
        path: the model.
        threads: threads within an operator; None leaves the choice to the engine.
    """

    engine = "onnxruntime"

    def __init__(
        self,
        path: Path,
        image_size: ImageSize,
        output_shapes: Mapping[str, tuple[int, ...]],
        threads: int | None = None,
    ) -> None:
        super().__init__(image_size, output_shapes)
        self.path = path
        self.threads = threads
        self._session: Any = None

    def open(self) -> None:
        ort = require("onnxruntime", extra="run")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        # Not session.set_denormal_as_zero: it changes the arithmetic of the whole thread that opens the session,
        # numpy's and ours too. A benchmark may set it, in a process of its own.
        try:
            self._session = ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise BundleError(f"ONNX Runtime refuses {self.path}: {str(error).splitlines()[0][:200]}") from error

    def close(self) -> None:
        self._session = None

    def _infer(self, image: ByteImage) -> Outputs:
        names = [output.name for output in self._session.get_outputs()]
        inputs = {self._session.get_inputs()[0].name: image}
        return dict(zip(names, self._session.run(names, inputs), strict=True))
