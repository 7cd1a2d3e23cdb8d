"""The program that converters start from: where an op comes from, and what an error of a converter says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xformer_export import to_coreml, to_onnx
from xformer_export.prepare import Options, Prepared, prepare
from xformer_export.program import conversion_errors, export_program, locate, replace_modules
from xformer_mobile.errors import ConversionError, UnavailableError
from xformer_mobile.spec import ImageSize


class _Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.digamma(x)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = _Gate()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x.mean(1) + 1) + 2


class _Model(nn.Module):
    """Bytes to a few values, by way of an op that phones do not have."""

    def __init__(self, config: object = None) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList([nn.Identity(), _Block()])

    def forward(self, image: Tensor) -> tuple[Tensor]:
        x = image.float()
        for block in self.blocks:
            x = block(x)
        return (x.reshape(1, -1),)


def _line(of: type[nn.Module], text: str) -> str:
    """``FILE:LINE: CODE`` of the line of a class that contains ``text``."""
    lines, start = inspect.getsourcelines(of)
    (found,) = [(start + index, line.strip()) for index, line in enumerate(lines) if text in line]
    return f"test_program.py:{found[0]}: {found[1]}"


GATE = f" at aten.digamma.default, module blocks.1.gate ({_line(_Gate, 'digamma')})"
MEAN = f" at aten.mean.dim, module blocks.1 ({_line(_Block, 'mean')})"
SECOND_ADD = f" at aten.add.Tensor, module blocks.1 ({_line(_Block, 'mean')})"


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    return export_program(_Model(), (torch.zeros(1, 8, 8, 3, dtype=torch.uint8),))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Unsupported fx node digamma, kind digamma", GATE),
        ("While executing %digamma : [num_users=1] = call_function[target=x](args = (%mean,), kwargs = {})", GATE),
        ("node 'mean' has no shape", MEAN),
        ("op `mean` has no shape", MEAN),
        ("node add_1 has no shape", SECOND_ADD),
        ("Lowering not found: aten.digamma.default", GATE),
        ("no kernel for aten::digamma.out", ""),
        ("no kernel for aten::digamma", GATE),
        ("<OpOverload(op='aten.digamma', overload='default')>", GATE),
        ("call_function[target=torch.ops.aten.digamma.default](args = ((%mean, %mean),), kwargs = {})", GATE),
        ("prims.digamma is not known, its argument is (args = (%mean,), kwargs = {})", ""),
        ("the named input `mean` must have the same type as the others: add one", ""),
        ("x.mean(1) went wrong", ""),
        ("", ""),
    ],
)
def test_locate(text: str, place: str, program: torch.export.ExportedProgram) -> None:
    """By the node's name, then by the op's kind; neither by an op's arguments nor by a word of English."""
    assert locate(program, text) == place


def test_of_several_nodes_the_first_that_is_named(program: torch.export.ExportedProgram) -> None:
    assert locate(program, "after node digamma and node mean") == GATE
    assert locate(program, "aten.mean.dim in front of %digamma") == GATE
    names = [node.name for node in program.graph.nodes if "add" in node.name]
    assert locate(program, "aten.add.Tensor") == locate(program, f"%{names[0]}")


def test_the_innermost_cause_that_names_an_op_counts(program: torch.export.ExportedProgram) -> None:
    def fail() -> None:
        try:
            try:
                raise LookupError("no rule\n   for this")
            except LookupError as error:
                raise ValueError("node digamma") from error
        except ValueError as error:
            raise RuntimeError("pages of advice about %mean") from error

    with pytest.raises(ConversionError) as caught, conversion_errors("the tool", program):
        fail()
    assert str(caught.value) == f"the tool failed{GATE}: LookupError: no rule for this"


def test_messages_are_one_line_of_some_length(program: torch.export.ExportedProgram) -> None:
    with pytest.raises(ConversionError) as caught, conversion_errors("the tool", program):
        raise RuntimeError("word \n" * 1000)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("error", [ConversionError("ours"), UnavailableError("not here")], ids=repr)
def test_errors_of_our_own_pass(error: Exception, program: torch.export.ExportedProgram) -> None:
    with pytest.raises(type(error)) as caught, conversion_errors("the tool", program):
        raise error
    assert caught.value is error


def test_a_stop_is_no_error_of_a_converter(program: torch.export.ExportedProgram) -> None:
    with pytest.raises(KeyboardInterrupt), conversion_errors("the tool", program):
        raise KeyboardInterrupt


class _Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_can_not_be_traced() -> None:
    with pytest.raises(ConversionError, match=r"^torch\.export failed: \w+: .*data-dependent") as caught:
        export_program(_Branching(), (torch.zeros(3),))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("convert", "name", "path"),
    [
        (to_onnx.convert, "the ONNX exporter", "blocks.1.gate"),
        (to_coreml.convert, "coremltools", "model.blocks.1.gate"),
    ],
    ids=["onnx", "coreml"],
)
def test_an_op_that_a_target_lacks_is_named_with_module_and_line(
    convert: Callable[..., Any], name: str, path: str, tmp_path: Path
) -> None:
    prepared = prepare(None, task="classify", variant="xformer_xxs", image_size=ImageSize(64, 64))
    broken = Prepared(prepared.reference, _Model(prepared.config), prepared.weights)  # type: ignore[arg-type]
    with pytest.raises(ConversionError) as caught:
        convert(broken, Options(), tmp_path / "model.mlpackage")
    expected = f"{name} failed at aten.digamma.default, module {path} ({_line(_Gate, 'digamma')}): "
    assert str(caught.value).startswith(expected)
    assert list(tmp_path.iterdir()) == []


# ---- replacing modules -------------------------------------------------------------------------------------


class _Doubled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def test_replace_modules_leaves_the_original() -> None:
    original = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.SiLU(), nn.Linear(2, 2)))
    before = {name: values.clone() for name, values in original.state_dict().items()}
    changed = replace_modules(original, {nn.SiLU: lambda _: nn.GELU(), nn.Linear: _Doubled})
    assert [type(part) for part in changed.modules()] == [
        nn.Sequential,
        _Doubled,
        nn.Linear,
        nn.Sequential,
        nn.GELU,
        _Doubled,
        nn.Linear,
    ]
    assert [type(part) for part in original.modules()] == [nn.Sequential, nn.Linear, nn.Sequential, nn.SiLU, nn.Linear]
    for values in changed.state_dict().values():
        values.zero_()
    assert all(torch.equal(values, before[name]) for name, values in original.state_dict().items())


def test_the_whole_may_be_replaced_after_its_parts() -> None:
    inner = nn.Sequential(nn.SiLU())
    changed = replace_modules(inner, {nn.Sequential: _Doubled, nn.SiLU: lambda _: nn.GELU()})
    assert isinstance(changed, _Doubled)
    assert [type(part) for part in changed.modules()] == [_Doubled, nn.Sequential, nn.GELU]


def test_a_class_is_not_its_subclasses() -> None:
    class Special(nn.Linear):
        pass

    changed = replace_modules(nn.Sequential(Special(2, 2)), {nn.Linear: _Doubled})
    assert type(next(iter(changed.children()))) is Special
