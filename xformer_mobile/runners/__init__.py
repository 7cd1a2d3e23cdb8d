"""Engines: each runs one format of a bundle behind the contract of :mod:`xformer_mobile.runners.base`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from xformer_mobile.artifact import Bundle
from xformer_mobile.errors import UnavailableError
from xformer_mobile.runners.base import Outputs, Runner
from xformer_mobile.spec import lookup

__all__ = ["ENGINES", "Engine", "Outputs", "Runner", "open_runner", "open_runner_for_format"]


@dataclass(frozen=True)
class Engine:
    """An engine, the format that it runs, and where its runner is: a module here, imported when it is used."""

    name: str
    format: str
    module: str
    runner: str


ENGINES = {engine.name: engine for engine in (Engine("onnxruntime", "onnx", "onnx_runtime", "OnnxRuntimeRunner"),)}


def open_runner(bundle: Bundle, engine: str | None = None, *, threads: int | None = None) -> Runner:
    """The runner of one of a bundle's artifacts, not opened yet: use it in a ``with`` statement.

    Without an engine's name, the first engine that runs one of the bundle's formats is taken.

    Raises:
        UsageError: an unknown engine, or one whose format the bundle does not have.
        UnavailableError: no engine runs any of the bundle's formats.
        BundleError: the artifact is missing or not the manifest's.
    """
    if engine is not None:
        return _runner(bundle, lookup("engine", engine, ENGINES), threads)
    for row in ENGINES.values():
        if row.format in bundle.formats:
            return _runner(bundle, row, threads)
    raise UnavailableError(f"no engine of this version runs {', '.join(bundle.formats)}")


def open_runner_for_format(bundle: Bundle, format: str, *, threads: int | None = None) -> Runner:
    """The runner of the first engine for ``format``; see :func:`open_runner`."""
    for row in ENGINES.values():
        if row.format == format:
            return _runner(bundle, row, threads)
    raise UnavailableError(f"no engine of this version runs {format}")


def _runner(bundle: Bundle, engine: Engine, threads: int | None) -> Runner:
    artifact = bundle.artifact(engine.format)
    factory = getattr(importlib.import_module(f"{__name__}.{engine.module}"), engine.runner)
    runner: Runner = factory(artifact.path, bundle.image_size, bundle.output_shapes, threads)
    return runner
