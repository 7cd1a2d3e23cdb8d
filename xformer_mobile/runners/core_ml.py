"""Core ML: Apple's framework on macOS, the evaluator of :mod:`xformer_mobile.runners.mil` elsewhere."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from xformer_mobile.artifact import INPUT_NAME
from xformer_mobile.errors import BundleError
from xformer_mobile.optional import import_coremltools
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.base import FileRunner, Outputs
from xformer_mobile.runners.mil import MilProgram

__all__ = ["CoreMLEvaluatorRunner", "CoreMLRunner"]


class CoreMLRunner(FileRunner):
    """Runs a .mlpackage whose input is an image named "image".

    On macOS, Apple's framework runs it, on whatever compute units it chooses. That branch has not been run where this
    project is tested, which is Linux: there it is tested against a stand-in for the framework. Elsewhere the evaluator
    runs it, which shows what the program means, not what Apple's kernels or the Neural Engine make of it.

    ``threads`` is for the evaluator. Apple's framework has no such setting: it always chooses by itself.
    """

    engine = "coreml"

    _model: _Model | None = None

    def open(self) -> None:
        if platform.system() == "Darwin":
            self._model = _AppleModel(self.path)
        else:
            self._model = _EvaluatedModel(self.path, self.threads)

    def close(self) -> None:
        self._model = None

    def _infer(self, image: ByteImage) -> Outputs:
        assert self._model is not None  # opened
        found = self._model.predict(image)
        return {name: np.asarray(found[name], dtype=np.float32) for name in self.output_shapes if name in found}


class CoreMLEvaluatorRunner(CoreMLRunner):
    """Runs a .mlpackage by the evaluator on any system: on macOS, beside Apple's framework, a second reader of it."""

    engine = "coreml-evaluator"

    def open(self) -> None:
        self._model = _EvaluatedModel(self.path, self.threads)


class _Model(Protocol):
    def predict(self, image: ByteImage) -> Mapping[str, Any]:
        """Every output of the model for (1, H, W, 3) uint8, by name."""


class _EvaluatedModel:
    """The program on torch."""

    def __init__(self, path: Path, threads: int | None) -> None:
        self.program = MilProgram.load(path)
        self.threads = threads

    def predict(self, image: ByteImage) -> Mapping[str, Any]:
        with _torch_threads(self.threads):
            return self.program.run({INPUT_NAME: image})


class _AppleModel:
    """Apple's framework, through coremltools; macOS only."""

    def __init__(self, path: Path) -> None:
        coremltools = import_coremltools()
        try:
            self.model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.ALL)
        except Exception as error:  # coremltools' and the framework's errors have no common base
            raise BundleError(f"Core ML refuses {path}: {(str(error).splitlines() or [''])[0][:200]}") from error

    def predict(self, image: ByteImage) -> Mapping[str, Any]:
        outputs: Mapping[str, Any] = self.model.predict({INPUT_NAME: Image.fromarray(image[0])})
        return outputs


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """Set torch's number of threads, which belongs to the whole process, for a while."""
    import torch

    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        if threads is not None:
            torch.set_num_threads(before)
