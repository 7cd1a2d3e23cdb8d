"""Shortcuts through converters: work that they do over and over, and that changes nothing of what they write.

Each is a context manager that replaces something in a converter, and puts it back.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from torch import fx
from torch.fx.graph import _PyTreeCodeGen

__all__ = ["checked_once", "compiled_when_called", "shared_origins", "without_idle_passes"]

SOUGHT_BY = {
    "ConvertToLinearPass": {"mm", "addmm", "bmm"},
    "ConvertToSDPAPass": {"_softmax", "_safe_softmax", "softmax"},
    "ConvertToUpsampleBilinear2d": {"index", "_unsafe_index", "upsample_bilinear2d"},
    "DecomposeBatchNorm": {"native_batch_norm", "_native_batch_norm_legit_no_training"},
    "FuseBatchNormPass": {"native_batch_norm", "_native_batch_norm_legit_no_training"},
    "PReLUReshapePass": {"_prelu_kernel"},
}
"""Passes of ExecuTorch's XNNPACK backend, by name, and the ATen ops that each begins with; none without them."""


@contextlib.contextmanager
def shared_origins() -> Iterator[None]:
    """Let the nodes of graphs share the records of which nodes they were made from.

    PyTorch copies a node's whole history for each node that is made from it, and each of some forty passes makes all
    nodes anew; that is a fifth of ExecuTorch's lowering. The records are never changed.
    """
    record = getattr(fx.traceback, "NodeSource", None)
    if record is None or hasattr(record, "__deepcopy__"):  # another PyTorch, which may have other ways
        yield
        return
    record.__deepcopy__ = lambda self, memo: self
    try:
        yield
    finally:
        del record.__deepcopy__


@contextlib.contextmanager
def compiled_when_called() -> Iterator[None]:
    """Let graphs be written out as Python and compiled when they are first called, not after each change.

    Hundreds of times a conversion changes a graph; it calls few of them.
    """
    recompile = fx.GraphModule.recompile

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        recompile(self)
        return self(*args, **kwargs)

    def postpone(self: Any) -> None:
        if isinstance(self._graph._codegen, _PyTreeCodeGen):
            self._in_spec = self._graph._codegen.pytree_info.in_spec
            self._out_spec = self._graph._codegen.pytree_info.out_spec
        self._code = "# not written yet"  # read by str() for messages that nobody sees
        type(self).forward = call  # each graph module has a class of its own

    fx.GraphModule.recompile = postpone  # type: ignore[assignment]
    try:
        yield
    finally:
        fx.GraphModule.recompile = recompile  # type: ignore[method-assign]


@contextlib.contextmanager
def without_idle_passes() -> Iterator[None]:
    """Leave out passes of ExecuTorch's XNNPACK backend that look for ops that the graph has not.

    They would find nothing and yet trace the whole graph anew.
    """
    manager = importlib.import_module("executorch.backends.xnnpack._passes").XNNPACKPassManager
    transform = manager.transform

    def transform_what_is_there(self: Any) -> Any:
        nodes = self.exported_program.graph.nodes
        ops = {str(getattr(node.target, "__name__", node.target)) for node in nodes if node.op == "call_function"}
        kinds = {part for op in ops for part in op.split(".")}
        self.passes = [one for one in self.passes if kinds & SOUGHT_BY.get(one.__name__, kinds)]
        return transform(self)

    manager.transform = transform_what_is_there
    try:
        yield
    finally:
        manager.transform = transform


@contextlib.contextmanager
def checked_once() -> Iterator[None]:
    """Let coremltools check a program behind each pipeline of passes, not behind every one of some ninety passes.

    The checks take nearly half of a conversion.
    """
    manager = importlib.import_module("coremltools.converters.mil.mil.passes.pass_pipeline").PassPipelineManager
    program_class: Any = importlib.import_module("coremltools.converters.mil.mil.program").Program
    apply_pipeline, validate = manager.apply_pipeline, program_class.validate

    def apply(program: Any, pipeline: Any) -> None:
        program_class.validate = lambda self, check_essential_scope=False: None
        try:
            apply_pipeline(program, pipeline)
        finally:
            program_class.validate = validate
        program.validate()

    manager.apply_pipeline = staticmethod(apply)
    try:
        yield
    finally:
        manager.apply_pipeline = staticmethod(apply_pipeline)
