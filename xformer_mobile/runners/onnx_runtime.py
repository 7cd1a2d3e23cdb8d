"""ONNX Runtime on the CPU: its own kernels, or XNNPACK's where the build has them."""

from __future__ import annotations

from typing import Any

from xformer_mobile.errors import BundleError, UnavailableError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.base import FileRunner, Outputs

__all__ = ["OnnxRuntimeRunner", "XnnpackRunner"]


class OnnxRuntimeRunner(FileRunner):
    """Runs a .onnx or .ort file."""

    engine = "onnxruntime"
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """Execution providers, first choice first."""

    _session: Any = None

    def open(self) -> None:
        ort = require("onnxruntime", extra="run")
        available = ort.get_available_providers()
        missing = [name for name in self.providers if name not in available]
        if missing:
            raise UnavailableError(
                f"this build of ONNX Runtime has no {missing[0]}; it has {', '.join(available)}. "
                "--engine onnxruntime runs the same file"
            )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        if self.flush_denormals:  # for its threads and the one that opens it; of a process's sessions the first decides
            options.add_session_config_entry("session.set_denormal_as_zero", "1")
        if self.unpack_weights:  # without int8 to fuse, DequantizeLinear of constants is folded
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = ort.InferenceSession(str(self.path), options, providers=list(self.providers))
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise BundleError(f"ONNX Runtime refuses {self.path}: {str(error).splitlines()[0][:200]}") from error

    def close(self) -> None:
        self._session = None

    def _infer(self, image: ByteImage) -> Outputs:
        names = [output.name for output in self._session.get_outputs()]
        inputs = {self._session.get_inputs()[0].name: image}
        return dict(zip(names, self._session.run(names, inputs), strict=True))


class XnnpackRunner(OnnxRuntimeRunner):
    """Runs a .onnx or .ort file on XNNPACK's kernels. The packages of Android and iOS have them, PyPI's have not."""

    engine = "onnxruntime-xnnpack"
    providers = ("XnnpackExecutionProvider", "CPUExecutionProvider")
