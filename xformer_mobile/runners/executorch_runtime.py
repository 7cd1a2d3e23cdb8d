"""ExecuTorch's runtime, with what the .pte file delegates to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xformer_mobile.chatter import silenced
from xformer_mobile.errors import BundleError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.base import Outputs, Runner
from xformer_mobile.spec import ImageSize

__all__ = ["ExecuTorchRunner"]

FILE_IDENTIFIER = b"ET12"
"""At byte 4 of a program of the format's current version."""

METHOD = "forward"


class ExecuTorchRunner(Runner):
    """Runs a .pte file.

    Args:
        path: the program.
        threads: of ExecuTorch's thread pool, which the whole process shares; None leaves the choice to the engine.
    """

    engine = "executorch"

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
        self._method: Any = None
        self._program: Any = None

    def open(self) -> None:
        with silenced():
            runtime = require("executorch.runtime", extra="executorch")
            bindings = require("executorch.extension.pybindings.portable_lib", extra="executorch")
        # The runtime crashes on some foreign files; this much it leaves to its caller.
        with self.path.open("rb") as file:
            if file.read(8)[4:] != FILE_IDENTIFIER:
                raise BundleError(f"ExecuTorch refuses {self.path}: it is not a .pte file")
        if self.threads is not None:
            bindings._unsafe_reset_threadpool(self.threads)
        try:
            with silenced():
                self._program = runtime.Runtime.get().load_program(self.path)
                self._method = self._program.load_method(METHOD)
        except Exception as error:  # the bindings raise plain RuntimeErrors
            raise BundleError(f"ExecuTorch refuses {self.path}: {' '.join(str(error).split())[:200]}") from error

    def close(self) -> None:
        self._method = self._program = None

    def _infer(self, image: ByteImage) -> Outputs:
        torch = require("torch", extra="executorch")
        outputs = self._method.execute([torch.from_numpy(image.copy())])
        # Copied: the runtime reuses the memory of its outputs.
        return {name: values.numpy().copy() for name, values in zip(self.output_shapes, outputs, strict=True)}
