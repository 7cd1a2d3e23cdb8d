"""Engines: each runs one format of a bundle behind the contract of :mod:`xformer_mobile.runners.base`.

Beside them, second readers: where there is one, an implementation of the same format that shares no code with the
engine, so that a file which both read alike means what it is taken to mean. They are slow, and for checks only.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xformer_mobile.artifact import Bundle
from xformer_mobile.errors import UnavailableError, UsageError
from xformer_mobile.runners.base import Outputs, Runner
from xformer_mobile.spec import ImageSize, lookup

__all__ = [
    "ENGINES",
    "NO_SECOND_READER",
    "SECOND_READERS",
    "Engine",
    "LooseArtifact",
    "NoReader",
    "Outputs",
    "Runner",
    "SecondReader",
    "open_loose",
    "open_runner",
    "open_runner_for_format",
    "open_second_reader",
]


@dataclass(frozen=True)
class Engine:
    """An engine, the formats that it runs, and where its runner is: a module here, imported when it is used.

    ``package`` is what has to be installed for it. ``systems`` are those on which it is the engine itself, empty for
    all: elsewhere its outputs can be had, by evaluating the artifact, and its speed can't.
    """

    name: str
    formats: tuple[str, ...]
    module: str
    runner: str
    package: str
    systems: tuple[str, ...] = ()

    @property
    def is_native(self) -> bool:
        """Whether the engine itself runs on this system, so that its times mean something."""
        return not self.systems or platform.system() in self.systems

    @property
    def is_installed(self) -> bool:
        """Whether its package is there. It may still lack what the engine needs, which opening it says."""
        return importlib.util.find_spec(self.package) is not None


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("onnxruntime", ("onnx", "ort"), "onnx_runtime", "OnnxRuntimeRunner", "onnxruntime"),
        Engine("onnxruntime-xnnpack", ("onnx", "ort"), "onnx_runtime", "XnnpackRunner", "onnxruntime"),
        Engine("litert", ("tflite",), "litert", "LiteRTRunner", "ai_edge_litert"),
        Engine("executorch", ("executorch",), "executorch_runtime", "ExecuTorchRunner", "executorch"),
        Engine("coreml", ("coreml",), "core_ml", "CoreMLRunner", "coremltools", systems=("Darwin",)),
    )
}
"""Of the engines for one format, the first is the default."""


@dataclass(frozen=True)
class SecondReader:
    """A second reader, the format that it reads, and where its runner is: a module here, imported when it is used.

    ``package`` is what has to be installed for it, and ``extra`` of ours brings it. ``systems`` are those on which it
    is another implementation than the format's first engine, empty for all.
    """

    name: str
    format: str
    module: str
    runner: str
    package: str
    extra: str
    systems: tuple[str, ...] = ()

    @property
    def is_second(self) -> bool:
        """Whether on this system it is another implementation than the format's first engine."""
        return not self.systems or platform.system() in self.systems

    @property
    def is_installed(self) -> bool:
        """Whether its package is there. It may still lack what the reader needs, which opening it says."""
        return importlib.util.find_spec(self.package) is not None


SECOND_READERS = {
    reader.format: reader
    for reader in (
        SecondReader("onnx-reference", "onnx", "onnx_reference", "OnnxReferenceRunner", "onnx", "onnx"),
        SecondReader(
            "tensorflow-lite", "tflite", "tensorflow_lite", "TensorFlowLiteRunner", "tensorflow", "tensorflow"
        ),
        SecondReader(
            "coreml-evaluator", "coreml", "core_ml", "CoreMLEvaluatorRunner", "coremltools", "coreml", ("Darwin",)
        ),
    )
}
"""By format."""

NO_SECOND_READER = {
    "coreml": "Core ML's framework is on macOS only; the evaluator read it",
    "ort": "only ONNX Runtime reads .ort files",
    "executorch": "only ExecuTorch's own runtime reads .pte files",
}
"""By format: why there is none, or none on a system that its :class:`SecondReader` does not name."""


@dataclass(frozen=True)
class NoReader:
    """That there is no second reader, and the reason in one sentence."""

    reason: str


@dataclass(frozen=True)
class LooseArtifact:
    """An artifact that is in no bundle, with what a runner has to be told of it.

    It takes an RGB image of bytes, uint8 (1, H, W, 3) of ``image_size``; ``output_shapes`` are those of its float32
    outputs by name, in order; ``precision`` is the manifest's.
    """

    path: Path
    format: str
    image_size: ImageSize
    output_shapes: Mapping[str, tuple[int, ...]]
    precision: str = "fp32"


def open_runner(
    bundle: Bundle, engine: str | None = None, *, format: str | None = None, threads: int | None = None
) -> Runner:
    """The runner of one of a bundle's artifacts, not opened yet: use it in a ``with`` statement.

    Without an engine's name, the first engine that is installed and runs one of the bundle's formats is taken; with
    one, and without ``format``, the first of its formats that the bundle has.

    Raises:
        UsageError: an unknown engine, or one whose format the bundle does not have.
        UnavailableError: no engine runs any of the bundle's formats.
        BundleError: the artifact is missing or not the manifest's.
    """
    if engine is not None:
        row = lookup("engine", engine, ENGINES)
        found = [name for name in row.formats if name in bundle.formats]
        return _runner(bundle, row, format or (found[0] if found else row.formats[0]), threads)
    rows = [(row, name) for row in ENGINES.values() for name in row.formats if name in bundle.formats]
    for row, name in sorted(rows, key=lambda pair: not pair[0].is_installed):
        return _runner(bundle, row, name, threads)
    raise UnavailableError(f"no engine of this version runs {', '.join(bundle.formats)}")


def open_runner_for_format(bundle: Bundle, format: str, *, threads: int | None = None) -> Runner:
    """The runner of the first engine for ``format``; see :func:`open_runner`."""
    return _runner(bundle, _engine_for(format), format, threads)


def open_second_reader(bundle: Bundle, format: str, *, threads: int | None = 1) -> Runner | NoReader:
    """The second reader of one of a bundle's artifacts, not opened yet, or why there is none.

    Raises:
        UsageError: the bundle has no such format.
        BundleError: the artifact is missing or not the manifest's.
    """
    path = bundle.artifact(format).path
    row = SECOND_READERS.get(format)
    if row is None or not row.is_second:
        return NoReader(NO_SECOND_READER[format])
    if not row.is_installed:
        return NoReader(f"{row.package} is not installed; type: pip install 'xformer-mobile[{row.extra}]'")
    factory = getattr(importlib.import_module(f"{__name__}.{row.module}"), row.runner)
    runner: Runner = factory(path, bundle.image_size, bundle.output_shapes, threads)
    return runner


def open_loose(artifact: LooseArtifact, engine: str | None = None, *, threads: int | None = None) -> Runner:
    """The runner of an artifact that is in no bundle, not opened yet; without an engine's name, of its format's first.

    Raises:
        UsageError: an unknown engine, or one that does not run the artifact's format.
        UnavailableError: no engine runs the artifact's format.
    """
    row = _engine_for(artifact.format) if engine is None else lookup("engine", engine, ENGINES)
    if artifact.format not in row.formats:
        raise UsageError(f"{row.name} runs {', '.join(row.formats)}; {artifact.path} is {artifact.format}")
    factory = getattr(importlib.import_module(f"{__name__}.{row.module}"), row.runner)
    runner: Runner = factory(artifact.path, artifact.image_size, artifact.output_shapes, threads)
    runner.unpack_weights = artifact.precision == "int8-weights"
    return runner


def _runner(bundle: Bundle, engine: Engine, format: str, threads: int | None) -> Runner:
    path = bundle.artifact(format).path
    loose = LooseArtifact(path, format, bundle.image_size, bundle.output_shapes, bundle.precision)
    return open_loose(loose, engine.name, threads=threads)


def _engine_for(format: str) -> Engine:
    """The first engine for a format."""
    for row in ENGINES.values():
        if format in row.formats:
            return row
    raise UnavailableError(f"no engine of this version runs {format}")
