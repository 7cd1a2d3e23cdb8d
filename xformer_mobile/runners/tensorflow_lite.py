"""TensorFlow's interpreter of .tflite files, with its plain kernels."""

from __future__ import annotations

import warnings

from xformer_mobile.chatter import silenced
from xformer_mobile.errors import BundleError
from xformer_mobile.optional import import_tensorflow
from xformer_mobile.runners.litert import FILE_IDENTIFIER, LiteRTRunner

__all__ = ["TensorFlowLiteRunner"]


class TensorFlowLiteRunner(LiteRTRunner):
    """Runs a .tflite file by TensorFlow's interpreter without XNNPACK.

    Its kernels are TensorFlow Lite's built-in ones, where LiteRT's runner has XNNPACK's: in int8 those round in another
    way.
    """

    engine = "tensorflow-lite"

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
