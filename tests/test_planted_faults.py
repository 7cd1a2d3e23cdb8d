"""Faults planted in written artifacts: ``xformer-verify`` exits with 1 and blames the layer that each is in."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from xformer_export import ExportRequest, build_bundle
from xformer_mobile.spec import TASKS, ImageSize

Call = Callable[..., tuple[int, str, str]]

SIZE = ImageSize(64, 64)

FORMATS = {"fp32": ("onnx", "coreml"), "int8": ("onnx", "tflite")}
"""The artifacts that faults are planted in, by precision."""


def _script() -> ModuleType:
    file = Path(__file__).parent.parent / "scripts/planted_faults.py"
    spec = importlib.util.spec_from_file_location("planted_faults", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted_faults"] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


planted_faults = _script()
FAULTS = {fault.name: fault for fault in planted_faults.FAULTS}

IN_FILES = ("a truncated file", "a sha256 that no longer fits", "labels permuted in the manifest")
"""Faults for which the artifact's precision means nothing, beside another checkpoint's: they are planted in float."""

PLANTED = [
    (name, format, precision)
    for precision, formats in FORMATS.items()
    for format in formats
    for name, fault in FAULTS.items()
    if fault.applies(format, precision) and (precision == "fp32" or not {name} & {*IN_FILES, planted_faults.EXCHANGED})
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Returns, by precision, a bundle to copy and a bundle of other weights; int8 has the first only, twice."""
    folder = tmp_path_factory.mktemp("planted")
    made: dict[str, tuple[Path, Path]] = {}

    def export(precision: str, checkpoint: Path | None = None) -> Path:
        target = folder / f"{precision}-{'own' if checkpoint is None else 'other'}"
        request = ExportRequest(
            formats=FORMATS[precision],
            checkpoint=checkpoint,
            task=planted_faults.TASK,
            variant=planted_faults.VARIANT,
            image_size=SIZE,
            quantize=planted_faults.RECIPES[precision],
            output=target,
            pictures=8,
        )
        return build_bundle(request).path

    def get(precision: str) -> tuple[Path, Path]:
        if precision not in made:
            own = other = export(precision)
            if precision == "fp32":
                checkpoint = planted_faults.make_checkpoint(
                    folder / "other.safetensors",
                    task=planted_faults.TASK,
                    variant=planted_faults.VARIANT,
                    size=SIZE,
                    seed=planted_faults.OTHER_SEED,
                )
                other = export(precision, checkpoint)
            made[precision] = own, other
        return made[precision]

    return get


@pytest.mark.parametrize("precision", FORMATS)
def test_nothing_is_found_in_a_clean_bundle(
    call: Call, bundles: Callable[[str], tuple[Path, Path]], precision: str
) -> None:
    own, _ = bundles(precision)
    status, out, _ = call("verify", own, "--json", "--quiet")
    document = json.loads(out)
    assert [artifact["misses"] for artifact in document["artifacts"]] == [[], []]
    assert [artifact["layers"]["first"] for artifact in document["artifacts"]] == [None, None]
    assert status == 0


@pytest.mark.parametrize(("name", "format", "precision"), PLANTED, ids=[" ".join(row) for row in PLANTED])
def test_fault_is_caught_and_blamed(
    call: Call, bundles: Callable[[str], tuple[Path, Path]], tmp_path: Path, name: str, format: str, precision: str
) -> None:
    own, other = bundles(precision)
    fault = FAULTS[name]
    case = planted_faults.Case(own, format, precision, other)
    planted = planted_faults.plant(fault, case, tmp_path / "planted")
    status, out, err = call("verify", planted, "--format", format, "--json", "--quiet", "--no-second-readers")
    assert "Traceback" not in err
    verdict = planted_faults.judge(fault, case, status, json.loads(out))
    assert status == 1
    assert verdict.caught, verdict
    assert verdict.right, verdict


def test_every_fault_is_planted_in_onnx_and_in_another_format() -> None:
    for name in FAULTS:
        formats = {format for planted, format, _ in PLANTED if planted == name}
        assert "onnx" in formats, name
        assert len(formats) > 1, name


def test_a_fault_that_nothing_is_said_of_is_not_caught(bundles: Callable[[str], tuple[Path, Path]]) -> None:
    own, other = bundles("fp32")
    case = planted_faults.Case(own, "onnx", "fp32", other)
    artifact = {"format": "onnx", "error": None, "misses": [], "layers": {"looked": True, "first": None}}
    document = {"passed": True, "artifacts": [artifact]}
    for fault in FAULTS.values():
        verdict = planted_faults.judge(fault, case, 0, document)
        assert not verdict.caught
        assert not verdict.right


def test_a_fault_in_another_layer_is_blamed_wrongly(bundles: Callable[[str], tuple[Path, Path]]) -> None:
    own, other = bundles("fp32")
    case = planted_faults.Case(own, "onnx", "fp32", other)
    artifact = {"format": "onnx", "error": None, "misses": ["far off"], "layers": {"looked": True, "first": "head.act"}}
    document = {"passed": False, "artifacts": [artifact]}
    for fault in FAULTS.values():
        verdict = planted_faults.judge(fault, case, 1, document)
        assert verdict.caught
        assert not verdict.right


def test_clean_exports_are_of_every_kind_and_of_other_weights_each() -> None:
    exports = list(itertools.islice(planted_faults.clean_exports(), 50))
    assert len({export.seed for export in exports}) == 50
    assert {export.task for export in exports} == {*TASKS}
    kinds = {(export.format, export.precision) for export in exports}
    assert {kind for kind in kinds if kind[1] != "fp16"} == {
        (format, precision) for format, precisions in planted_faults.PRECISIONS.items() for precision in precisions
    }
    assert len({export.variant for export in exports}) == 2
