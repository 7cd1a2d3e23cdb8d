"""The shortcuts through converters leave what is written as it is, and are gone when they are left."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from xformer_export import shortcuts, to_coreml, to_executorch
from xformer_export.formats import CONVERTERS
from xformer_export.prepare import Options, prepare
from xformer_export.program import export_program
from xformer_mobile.files import tree_sha256
from xformer_mobile.spec import ImageSize


@pytest.fixture(scope="module", autouse=True)
def converters() -> None:
    """Their modules are there, and were quiet when they were imported."""
    with to_executorch._quiet():
        for name in ("coreml", "executorch"):
            CONVERTERS[name].load()


class Block(nn.Module):
    """What the mobile form has, and a batch norm that no convolution can take."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()

    def forward(self, image: Tensor) -> tuple[Tensor]:
        x = nn.functional.silu(self.conv(image.permute(0, 3, 1, 2).float()))
        x = torch.cat([self.norm(x), x], 1)
        return (x.flatten(2) @ x.flatten(2).transpose(1, 2),)


class Rows(nn.Module):
    """What the mobile form has not: a convolution of rows, ReLU, a wide concatenation, a maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=1)
        self.scales = nn.Parameter(torch.arange(1.0, 7.0).reshape(6, 1, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor]:
        x = torch.relu(self.conv(image.float().flatten(1, 2).permute(0, 2, 1)))
        wide = torch.cat([x * scale for scale in self.scales], 1)
        return (wide.reshape(1, 48, 64, 64).max(2, keepdim=True).values,)


NORMS = {"DecomposeBatchNorm", "FuseBatchNormPass"}
ROWS = {"Conv1dUnsqueezePass", "DecomposeConcatenate", "FuseActivationPass", "RemoveGetItemPass"}


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: Block(norm=False), {"ConvertToLinearPass"}),
        (lambda: Block(norm=True), {"ConvertToLinearPass"} | NORMS),
        (Rows, ROWS),
    ],
    ids=["block", "with batch norm", "rows"],
)
def test_executorch_writes_the_same_without_idle_passes(
    make: Callable[[], nn.Module], found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = make().eval()
    ran: list[str] = []

    def lower() -> bytes:
        program = to_executorch._export(module, ImageSize(64, 64), {})
        return to_executorch._lower(program, to_executorch._xnnpack(Options()))[0]

    run = PassBase.__call__

    def count(self: PassBase, graph_module: fx.GraphModule) -> PassResult | None:
        ran.append(type(self).__name__)
        return run(self, graph_module)

    monkeypatch.setattr(PassBase, "__call__", count)
    short, few = lower(), [*ran]
    ran.clear()
    for name in ("compiled_when_called", "decomposed_once", "shared_origins", "without_idle_passes"):
        monkeypatch.setattr(to_executorch, name, contextlib.nullcontext)
    for name in ("compiled_when_called", "shared_origins"):
        monkeypatch.setattr(f"xformer_export.program.{name}", contextlib.nullcontext)
    assert lower() == short
    assert set(ran) - set(few) == set(shortcuts.SOUGHT_BY) - found


def test_a_program_is_decomposed_where_there_is_something_to_decompose() -> None:
    program = export_program(Block(norm=False).eval(), (torch.zeros(1, 64, 64, 3),))
    table = {torch.ops.aten.silu.default: lambda x: x * torch.sigmoid(x)}
    with shortcuts.decomposed_once(program):
        assert program.run_decompositions({}) is program
        made = program.run_decompositions(table)
        assert made is not program
        assert made.run_decompositions(table) is made
        assert made.run_decompositions() is not made  # by PyTorch's own table
    assert program.run_decompositions({}) is not program
    kinds = [{node.target for node in one.graph.nodes} for one in (program, made)]
    assert [torch.ops.aten.silu.default in one for one in kinds] == [True, False]


def test_core_ml_is_the_same_with_fewer_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(None, task="classify", variant="xformer_xxs", image_size=ImageSize(64, 64))
    program = importlib.import_module("coremltools.converters.mil.mil.program").Program
    validate, checks = program.validate, 0

    def count(self: Any, check_essential_scope: bool = False) -> None:
        nonlocal checks
        checks += 1
        validate(self, check_essential_scope=check_essential_scope)

    monkeypatch.setattr(program, "validate", count)
    to_coreml.convert(prepared, Options(), tmp_path / "few.mlpackage")
    few = checks
    monkeypatch.setattr(to_coreml, "checked_once", contextlib.nullcontext)
    to_coreml.convert(prepared, Options(), tmp_path / "all.mlpackage")
    assert 0 < few < 20 < checks - few
    assert tree_sha256(tmp_path / "few.mlpackage") == tree_sha256(tmp_path / "all.mlpackage")


def test_a_graph_is_compiled_when_it_is_called() -> None:
    with shortcuts.compiled_when_called():
        graph = fx.symbolic_trace(nn.SiLU())
        assert "not written yet" in str(graph)
        called = fx.symbolic_trace(nn.ReLU())
        assert called(torch.tensor([-1.0])).item() == 0
        (node,) = (node for node in graph.graph.nodes if node.op == "call_function" or node.op == "call_module")
        node.target, node.op, node.kwargs = torch.neg, "call_function", {}
        graph.recompile()
    assert graph(torch.tensor([3.0])).item() == -3
    assert "torch.neg" in graph.code
    assert "not written yet" not in fx.symbolic_trace(nn.SiLU()).code


def test_shortcuts_end_where_something_fails() -> None:
    program = importlib.import_module("coremltools.converters.mil.mil.program").Program
    pipeline = importlib.import_module("coremltools.converters.mil.mil.passes.pass_pipeline").PassPipelineManager
    traced = export_program(nn.SiLU(), (torch.zeros(1),))

    def state() -> list[Any]:
        return [
            program.validate,
            pipeline.apply_pipeline,
            PassBase.__call__,
            fx.GraphModule.recompile,
            ExportedProgram.run_decompositions,
        ]

    def fail() -> None:
        with (
            shortcuts.checked_once(),
            shortcuts.compiled_when_called(),
            shortcuts.decomposed_once(traced),
            shortcuts.without_idle_passes(),
        ):
            assert all(now is not then for now, then in zip(state()[1:], before[1:], strict=True))
            pipeline.apply_pipeline(None, None)

    before = state()
    with pytest.raises(ValueError, match="pipeline cannot be None"):
        fail()
    assert state() == before
