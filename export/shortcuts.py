"""Shortcuts through converters: work that they do over and over, and that changes nothing of what they write.

Each is a context manager that replaces something in a converter, and puts it back.
"""

from __future__ import annotations

import contextlib
import importlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from torch import fx
from torch.export import ExportedProgram
from torch.fx.graph import _PyTreeCodeGen
from torch.fx.passes.infra.pass_base import PassBase, PassResult

__all__ = ["checked_once", "compiled_when_called", "decomposed_once", "shared_origins", "without_idle_passes"]

Seeks = Callable[[fx.Node, set[str]], bool]
"""Takes a node that calls an op, and the parts of the op's name: ``{aten, cat, default}``."""


def _any_of(*kinds: str) -> Seeks:
    return lambda node, names: not names.isdisjoint(kinds)


SOUGHT_BY: dict[str, Seeks] = {
    "Conv1dUnsqueezePass": lambda node, names: "convolution" in names and node.meta["val"].dim() < 4,
    "ConvertToLinearPass": _any_of("mm", "addmm", "bmm"),
    "ConvertToSDPAPass": _any_of("_softmax", "_safe_softmax", "softmax"),
    "ConvertToUpsampleBilinear2d": _any_of("index", "_unsafe_index", "upsample_bilinear2d"),
    "DecomposeBatchNorm": _any_of("native_batch_norm", "_native_batch_norm_legit_no_training"),
    "DecomposeConcatenate": lambda node, names: "cat" in names and len(cast(Sequence[Any], node.args[0])) > 5,
    "FuseActivationPass": _any_of("relu", "hardtanh"),
    "FuseBatchNormPass": _any_of("native_batch_norm", "_native_batch_norm_legit_no_training"),
    "NormalizeTransposePass": _any_of("t"),
    "PReLUReshapePass": _any_of("_prelu_kernel"),
    "RemoveGetItemPass": _any_of("max_pool2d_with_indices", "max"),
    "SymToTensorPass": _any_of("sym_size", "sym_stride", "sym_numel", "item", "_local_scalar_dense"),
}
"""Passes of ExecuTorch and its XNNPACK backend, by name, and what each looks for; they do nothing without it."""


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
def decomposed_once(program: ExportedProgram) -> Iterator[None]:
    """Let ``program``, which has been decomposed, and what is made of it stay as they are if told to decompose nothing.

    Decomposing traces the whole graph, also to arrive at the same.
    """
    run = ExportedProgram.run_decompositions
    made = weakref.WeakSet([program])

    def run_if_needed(self: ExportedProgram, decomp_table: Any = None, **options: Any) -> ExportedProgram:
        ops = {node.target for node in self.graph.nodes if node.op == "call_function"}
        if self in made and decomp_table is not None and ops.isdisjoint(decomp_table) and not options:
            return self
        done: ExportedProgram = run(self, decomp_table, **options)
        made.add(done)
        return done

    ExportedProgram.run_decompositions = run_if_needed  # type: ignore[method-assign]
    try:
        yield
    finally:
        ExportedProgram.run_decompositions = run  # type: ignore[method-assign]


@contextlib.contextmanager
def without_idle_passes() -> Iterator[None]:
    """Leave out passes of ExecuTorch and its XNNPACK backend that look for what the graph has not.

    They would find nothing and yet trace the whole graph anew.
    """
    run = PassBase.__call__

    def run_if_sought(self: PassBase, graph_module: fx.GraphModule) -> PassResult | None:
        seeks = SOUGHT_BY.get(type(self).__name__)
        nodes = (node for node in graph_module.graph.nodes if node.op == "call_function")
        if seeks is not None and not any(seeks(node, _kinds(node)) for node in nodes):
            return PassResult(graph_module, False)
        return run(self, graph_module)

    PassBase.__call__ = run_if_sought  # type: ignore[method-assign]
    try:
        yield
    finally:
        PassBase.__call__ = run  # type: ignore[method-assign]


def _kinds(node: fx.Node) -> set[str]:
    """The parts of an op's name: ``{aten, cat, default}``."""
    return {*str(getattr(node.target, "__name__", node.target)).split(".")}


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
