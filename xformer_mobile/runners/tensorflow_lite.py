"""TensorFlow's interpreter of .tflite files, with its plain kernels."""

from __future__ import annotations

import warnings
from typing import Any

from xformer_mobile.chatter import silenced
from xformer_mobile.errors import BundleError
from xformer_mobile.optional import import_tensorflow
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.base import FileRunner, Outputs

__all__ = ["TensorFlowLiteRunner"]

FILE_IDENTIFIER = b"TFL3"
"""At byte 4 of a model of the format's only version."""


class TensorFlowLiteRunner(FileRunner):
    """Runs a .tflite file by TensorFlow's interpreter without XNNPACK.

    Its kernels are TensorFlow Lite's built-in ones, where LiteRT's runner has XNNPACK's: in int8 those round in another
    way.
    """

    engine = "tensorflow-lite"

    _interpreter: Any = None

    def open(self) -> None:
        tensorflow = import_tensorflow()
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise BundleError(f"can't read {self.path}: {error.strerror or error}") from error
        if content[4:8] != FILE_IDENTIFIER:
            raise BundleError(f"TensorFlow refuses {self.path}: it is not a .tflite file")
        resolvers = tensorflow.lite.experimental.OpResolverType
        try:
            with silenced(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that LiteRT is the future
                self._interpreter = tensorflow.lite.Interpreter(
                    model_content=content,  # whose structure it verifies; a path's it does not, and crashes the process
                    num_threads=self.threads,
                    experimental_op_resolver_type=resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                )
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            self._interpreter = None
            raise BundleError(f"TensorFlow refuses {self.path}: {' '.join(str(error).split())[:200]}") from error

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
