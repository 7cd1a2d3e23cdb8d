"""ExecuTorch's runtime, with what the .pte file delegates to."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from xformer_mobile.chatter import silenced
from xformer_mobile.errors import BundleError, UnavailableError
from xformer_mobile.optional import require
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.base import FileRunner, Outputs

__all__ = ["ExecuTorchRunner"]

FILE_IDENTIFIER = b"ET12"
"""At byte 4 of a program of the format's current version."""

METHOD = "forward"

DELEGATES = ("XnnpackBackend", "CoreMLBackend")
"""What our programs hand their graph to, by the names that they and the runtime use."""


class ExecuTorchRunner(FileRunner):
    """Runs a .pte file. Its threads are those of ExecuTorch's pool, which the whole process shares."""

    engine = "executorch"

    _method: Any = None
    _program: Any = None

    def open(self) -> None:
        with silenced(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is experimental
            runtime = require("executorch.runtime", extra="executorch")
            bindings = require("executorch.extension.pybindings.portable_lib", extra="executorch")
        # The runtime crashes on some foreign files; this much it leaves to its caller.
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise BundleError(f"can't read {self.path}: {error.strerror or error}") from error
        if content[4:8] != FILE_IDENTIFIER:
            raise BundleError(f"ExecuTorch refuses {self.path}: it is not a .pte file")
        if self.threads is not None:
            bindings._unsafe_reset_threadpool(self.threads)
        try:
            with silenced():
                engine = runtime.Runtime.get()
                self._program = engine.load_program(content)
                _check_delegates(content, self.path, engine.backend_registry.registered_backend_names)
                self._method = self._program.load_method(METHOD)
        except UnavailableError:
            raise
        except Exception as error:  # the bindings raise plain RuntimeErrors
            raise BundleError(f"ExecuTorch refuses {self.path}: {' '.join(str(error).split())[:200]}") from error

    def close(self) -> None:
        self._method = self._program = None

    def _infer(self, image: ByteImage) -> Outputs:
        torch = require("torch", extra="executorch")
        try:
            outputs = self._method.execute([torch.from_numpy(image.copy())])
        except RuntimeError as error:
            raise BundleError(f"ExecuTorch can't run {self.path}: {' '.join(str(error).split())[:200]}") from error
        if len(outputs) != len(self.output_shapes):
            declared = len(self.output_shapes)
            raise BundleError(f"{self.path} has {len(outputs)} outputs, the manifest declares {declared}")
        # Copied: the runtime reuses the memory of its outputs.
        return {name: values.numpy().copy() for name, values in zip(self.output_shapes, outputs, strict=True)}


def _check_delegates(content: bytes, path: Path, registered: list[str]) -> None:
    """Hold what a program names to what the runtime has."""
    for name in DELEGATES:
        if name.encode() in content and name not in registered:
            raise UnavailableError(
                f"this build of ExecuTorch has no {name}, which {path.name} needs; it has {', '.join(registered)}. "
                "xformer-export --no-verify makes a bundle that is run elsewhere"
            )
