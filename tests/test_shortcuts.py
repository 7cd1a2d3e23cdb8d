"""The shortcuts through converters leave what is written as it is, and are gone when they are left."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from xformer_export import shortcuts, to_coreml, to_executorch
from xformer_export.formats import CONVERTERS
from xformer_export.prepare import Options, prepare
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


@pytest.mark.parametrize("norm", [False, True])
def test_executorch_writes_the_same_without_idle_passes(norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = Block(norm).eval()
    ran: list[str] = []

    def lower() -> bytes:
        program = to_executorch._export(module, ImageSize(64, 64), {})
        return to_executorch._lower(program, to_executorch._xnnpack(Options()))[0]

    passes = importlib.import_module("executorch.backends.xnnpack._passes")
    original = passes._transform

    def transform(program: Any, one: Any) -> Any:
        ran.append(type(one).__name__)
        return original(program, one)

    monkeypatch.setattr(passes, "_transform", transform)
    short, few = lower(), [*ran]
    ran.clear()
    monkeypatch.setattr(to_executorch, "without_idle_passes", contextlib.nullcontext)
    monkeypatch.setattr(to_executorch, "compiled_when_called", contextlib.nullcontext)
    monkeypatch.setattr(to_executorch, "shared_origins", contextlib.nullcontext)
    assert lower() == short
    left_out = set(shortcuts.SOUGHT_BY) - {"ConvertToLinearPass"}
    if norm:
        left_out -= {"DecomposeBatchNorm", "FuseBatchNormPass"}
    assert set(ran) - set(few) == left_out


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
    manager = importlib.import_module("executorch.backends.xnnpack._passes").XNNPACKPassManager

    def state() -> list[Any]:
        return [program.validate, pipeline.apply_pipeline, manager.transform, fx.GraphModule.recompile]

    def fail() -> None:
        with shortcuts.checked_once(), shortcuts.compiled_when_called(), shortcuts.without_idle_passes():
            assert all(now is not then for now, then in zip(state()[1:], before[1:], strict=True))
            pipeline.apply_pipeline(None, None)

    before = state()
    with pytest.raises(ValueError, match="pipeline cannot be None"):
        fail()
    assert state() == before
