"""The mobile form as a program: torch.export's graph, which converters start from, and where its ops come from."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from xformer_export.shortcuts import compiled_when_called, shared_origins
from xformer_mobile.errors import ConversionError, XFormerError

__all__ = [
    "Decompositions",
    "conversion_errors",
    "export_program",
    "locate",
    "module_path",
    "replace_modules",
    "trace_program",
]

PYTORCH = str(Path(torch.__file__).parent)

MAX_MESSAGE = 300
"""So many characters of a converter's message are repeated; some print pages."""

NODE = r"(?:%|\b(?:node|op) )['\"`]?(\w+)"
"""How messages name a node of the graph: ``%add_3``, ``node add_3``, ``op 'add_3'``. Many nodes have names that are
words of English too ("mean", "add"), so a bare word is none."""

ROOT = "(the model itself)"

KIND = r"\w+(?:\.\w+)+"

Decompositions = Mapping[Any, Callable[..., Any]]
"""What replaces an op, by op."""


def trace_program(module: nn.Module, example: tuple[Tensor, ...]) -> ExportedProgram:
    """``module`` as a graph of PyTorch's ops with static shapes, for a converter that decomposes them by itself.

    Raises:
        ConversionError: PyTorch can't trace the module.
    """
    with _tracing():
        return torch.export.export(module, example, strict=False)


def export_program(
    module: nn.Module, example: tuple[Tensor, ...], decompositions: Decompositions | None = None
) -> ExportedProgram:
    """``module`` as a graph of core ATen ops with static shapes.

    ``decompositions`` says how a target's own choice of ops replaces some of them, by op.

    Raises:
        ConversionError: PyTorch can't trace the module.
    """
    program = trace_program(module, example)
    with _tracing():
        decomposed: ExportedProgram = program.run_decompositions(dict(decompositions or {}))
        return decomposed


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    """Trace without gradients and without detours; whatever is raised is a ConversionError."""
    try:
        with torch.no_grad(), shared_origins(), compiled_when_called():
            yield
    except Exception as error:  # the tracer raises whatever a module's code or its own passes raise
        raise ConversionError(f"torch.export failed: {_root_cause(error)}") from error


def replace_modules(module: nn.Module, rules: Mapping[type[nn.Module], Callable[[Any], nn.Module]]) -> nn.Module:
    """A copy of ``module`` with each submodule of a class in ``rules`` replaced by what its rule makes of it.

    Parts are replaced before the whole. ``module`` itself is left as it was.
    """
    copied = copy.deepcopy(module)
    for path, part in reversed(list(copied.named_modules())):
        rule = rules.get(type(part))
        if rule is not None:
            if not path:
                return rule(part)
            copied.set_submodule(path, rule(part))
    return copied


@contextlib.contextmanager
def conversion_errors(tool: str, program: ExportedProgram | Callable[[], ExportedProgram]) -> Iterator[None]:
    """Turn whatever a converter raises into a :class:`ConversionError` that says which op of which module it is.

    ``program`` is where ops are looked up, or makes that if it comes to it.
    """
    try:
        yield
    except XFormerError:
        raise
    except Exception as error:  # converters raise whatever their passes raise
        message = _root_cause(error)
        known = program if isinstance(program, ExportedProgram) else program()
        places = [place for cause in _causes(error) if (place := locate(known, str(cause)))]
        raise ConversionError(f"{tool} failed{places[-1] if places else ''}: {message}") from error


def locate(program: ExportedProgram, text: str) -> str:
    """Where the first op that ``text`` names comes from: `` at OP, module PATH (FILE:LINE)``; empty if none is named.

    Converters name an op by its node in the graph, or by its kind; the node is looked for first. What an op is
    applied to, which FX prints beside it, is not what the text is about.
    """
    text = re.sub(r"\(args = .*?, kwargs = \{.*?\}\)", "", text.replace("::", "."), flags=re.DOTALL)
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    by_name = {node.name: node for node in nodes}
    by_kind = {name: node for node in reversed(nodes) for name in _names_of_kind(node)}
    for pattern, known in ((NODE, by_name), (KIND, by_kind)):
        for name in re.findall(pattern, text):
            if name in known:
                node = known[name]
                return f" at {node.target}, module {module_path(node) or ROOT}{_source(node)}"
    return ""


def _names_of_kind(node: Any) -> set[str]:
    """How a converter may write an op's kind: ``aten.add.Tensor``, ``aten.add``, ``torch.ops.aten.add.Tensor``."""
    full = str(node.target)  # aten.add.Tensor
    return {full, full.rpartition(".")[0], f"torch.ops.{full}"}


def module_path(node: Any) -> str:
    """The innermost module that a node comes from: ``backbone.stages.1.1.blocks.0.attention``; empty for the root."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return paths[-1] if paths else ""


def _source(node: Any) -> str:
    """`` (FILE:LINE: CODE)`` of the line of a module's ``forward`` that made a node."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in \w+\n\s*(.*)', node.meta.get("stack_trace") or "")
    frames = [frame for frame in frames if not frame[0].startswith(PYTORCH)]
    if not frames:
        return ""
    file, line, code = frames[-1]
    return f" ({Path(file).name}:{line}: {code.strip()})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _root_cause(error: BaseException) -> str:
    """The innermost error on one line: exporters wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:MAX_MESSAGE]}"
