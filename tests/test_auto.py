"""``--quantize auto``: what rounding costs by part, the order of what is tried, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xformer_export import ExportRequest, auto, build_bundle, bundle
from xformer_export.auto import Judge, Plan, Search
from xformer_export.calibration import Calibration, snr_db
from xformer_export.prepare import Options, Prepared, prepare
from xformer_export.recipes import RECIPES, Promise
from xformer_export.sensitivity import RoundedModel, Sensitivity, measure_sensitivity
from xformer_mobile.data import Synthetic, synthetic_labels
from xformer_mobile.data.sample import Dataset
from xformer_mobile.errors import ConversionError, ParityError
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import ImageSize

SIZE = ImageSize(64, 64)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(
        None, task="classify", variant="xformer_xxs", image_size=SIZE, labels=tuple(synthetic_labels("classify"))
    )


@pytest.fixture(scope="module")
def calibration(prepared: Prepared) -> Calibration:
    return Calibration.of(prepared.config, count=8)


@pytest.fixture(scope="module")
def rounded(prepared: Prepared, calibration: Calibration) -> RoundedModel:
    return RoundedModel(prepared.mobile, calibration)


@pytest.fixture(scope="module")
def sensitivity(rounded: RoundedModel, calibration: Calibration) -> Sensitivity:
    return measure_sensitivity(rounded, calibration)


def judged(count: int = 12) -> Dataset:
    return Synthetic("classify", "test", count)


# ---- sensitivity ---------------------------------------------------------------------------------------------


def test_every_layer_is_in_one_part(sensitivity: Sensitivity, rounded: RoundedModel) -> None:
    layers = [layer for part in sensitivity.parts for layer in part.layers]
    assert sorted(layers) == sorted(rounded.rounding.layers)
    assert len(sensitivity.parts) < len(layers) / 2
    for part in sensitivity.parts:
        assert all(layer == part.path or layer.startswith(f"{part.path}.") for layer in part.layers)
        assert part.noise > 0
        assert part.macs > 0


def test_the_worst_for_its_work_comes_first(sensitivity: Sensitivity) -> None:
    total = sum(part.macs for part in sensitivity.parts)
    costs = [part.noise / (part.macs + total / 1000) for part in sensitivity.parts]
    assert costs == sorted(costs, reverse=True)
    assert sensitivity.kept(2) == (sensitivity.parts[0].path, sensitivity.parts[1].path)
    assert sensitivity.kept(0) == ()


def test_more_in_float_is_nearer(rounded: RoundedModel, sensitivity: Sensitivity, calibration: Calibration) -> None:
    def reached(count: int) -> float:
        rounded.keep_float(sensitivity.kept(count))
        return snr_db(expected, [rounded.run(image) for image in calibration.compared()])

    rounded.rounding.round_only(())
    expected = [rounded.run(image) for image in calibration.compared()]
    found = [reached(count) for count in (0, 8, len(sensitivity.parts) - 2)]
    assert found == sorted(found)
    assert found[0] + 3 < found[2]
    assert reached(len(sensitivity.parts)) == np.inf


def test_the_model_that_is_rounded_is_a_copy(prepared: Prepared, rounded: RoundedModel) -> None:
    rounded.keep_float(())
    image = np.zeros((1, 64, 64, 3), np.uint8)
    with TorchRunner(prepared.reference) as runner:
        expected = runner.run(image)
    with TorchRunner(prepared.mobile) as runner:
        found = runner.run(image)
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4)
    assert np.abs(rounded.run(image)["logits"] - expected["logits"]).max() > 1e-3


# ---- the search ----------------------------------------------------------------------------------------------


@pytest.fixture
def search(prepared: Prepared, calibration: Calibration) -> Search:
    return Search(prepared, calibration, Judge(Postprocess.of(prepared.config), judged(), SIZE), max_drop=1.0)


def with_metrics(search: Search, monkeypatch: pytest.MonkeyPatch, reference: float, simulated: Iterator[float]) -> None:
    """Let the judge say what the reference and each simulation reach."""
    found = iter([reference, *simulated])
    monkeypatch.setattr(Judge, "__call__", lambda self, run: next(found))


def test_int8_comes_first_then_parts_in_float_then_other_recipes(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_metrics(search, monkeypatch, 90.0, iter([88.0, 88.5, 89.5, 89.8, 90.0, 90.0, 90.0]))
    plans = list(search.plans())
    names = [(plan.recipe.name, len(plan.keep_float)) for plan in plans]
    # 0 and 1 parts in float lose more than a point in the simulation, and are not written.
    assert names[:2] == [("int8", 2), ("int8", 4)]
    assert names[-3:] == [("int8-weights", 0), ("fp16", 0), ("none", 0)]
    assert [entry["simulated_drop"] for entry in search.tried] == [2.0, 1.5]
    assert plans[0].keep_float == search.sensitivity.kept(2)
    assert plans[0].expected == pytest.approx(0.5)


def test_int8_keeps_its_promise_unless_parts_stay_float(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    with_metrics(search, monkeypatch, 90.0, iter([90.0] * 7))
    plans = list(search.plans())
    assert plans[0].recipe == RECIPES["int8"]
    assert plans[1].recipe == replace(RECIPES["int8"], promise=Promise())


def test_one_format_that_falls_too_far_is_enough(search: Search) -> None:
    search.reference = 90.0
    assert search.accepts(Plan(RECIPES["int8"]), {"onnx": 89.5, "tflite": 89.0})
    assert not search.accepts(Plan(RECIPES["int8"]), {"onnx": 89.5, "tflite": 88.9})
    assert [entry["drop"]["tflite"] for entry in search.tried] == [1.0, 1.1]


# ---- bundles -------------------------------------------------------------------------------------------------


def request_for(target: Path, max_drop: float) -> ExportRequest:
    return ExportRequest(
        formats=("onnx",),
        task="classify",
        variant="xformer_xxs",
        image_size=SIZE,
        labels=tuple(synthetic_labels("classify")),
        quantize="auto",
        output=target,
        pictures=8,
        judged=lambda rule: judged(),
        max_drop=max_drop,
    )


def test_a_bundle_by_auto(tmp_path: Path) -> None:
    made = build_bundle(request_for(tmp_path / "bundle", max_drop=100))
    found = made.manifest["auto"]
    assert (made.precision, found["recipe"], found["float_parts"]) == ("int8", "int8", [])
    assert (found["metric"], found["pictures"], found["max_drop"]) == ("top1", 12, 100)
    assert found["tried"][-1]["drop"].keys() == {"onnx"}
    assert made.manifest["calibration"]["pictures"] == 8
    assert made.manifest["parity"]["onnx"]["passed"]
    (entry,) = made.manifest["artifacts"]
    assert entry["quantization"]["macs"]["share"] > 0.94


def test_what_stays_float_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metrics are the simulation's: too low with fewer than two parts in float."""
    found = iter([90.0, 80.0, 80.0, 90.0, 90.0])
    monkeypatch.setattr(Judge, "__call__", lambda self, run: next(found))
    made = build_bundle(request_for(tmp_path / "bundle", max_drop=1))
    said: dict[str, Any] = made.manifest["auto"]
    assert said["recipe"] == "int8"
    assert len(said["float_parts"]) == 2
    assert all(part["noise"] > 0 and part["macs"] > 0 for part in said["float_parts"])
    assert [entry["parts_in_float"] for entry in said["tried"]] == [0, 1, 2]
    (entry,) = made.manifest["artifacts"]
    assert entry["quantization"]["macs"]["share"] < 0.92


def test_where_int8_is_not_good_enough_another_recipe_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([90.0, *[80.0] * (len(auto.STEPS) - 1), 90.0])
    monkeypatch.setattr(Judge, "__call__", lambda self, run: next(found))
    made = build_bundle(request_for(tmp_path / "bundle", max_drop=1))
    assert (made.precision, made.manifest["auto"]["recipe"]) == ("int8-weights", "int8-weights")
    assert "calibration" not in made.manifest


def test_a_recipe_that_can_not_be_made_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = bundle._write_artifact

    def write(converter: Any, prepared: Prepared, options: Options, *others: Any) -> Any:
        if options.precision == "int8":
            raise ConversionError("the quantizer gave up")
        return original(converter, prepared, options, *others)

    monkeypatch.setattr(bundle, "_write_artifact", write)
    monkeypatch.setattr(auto, "STEPS", (0,))
    made = build_bundle(request_for(tmp_path / "bundle", max_drop=100))
    assert made.precision == "int8-weights"
    assert [entry.get("failed") for entry in made.manifest["auto"]["tried"]] == ["the quantizer gave up", None]


def test_where_nothing_is_good_enough_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([90.0, *[80.0] * 100])
    monkeypatch.setattr(Judge, "__call__", lambda self, run: next(found))
    monkeypatch.setattr(auto, "STEPS", (0,))
    monkeypatch.setattr(auto, "FALLBACKS", ("none",))
    with pytest.raises(ParityError, match=r"no recipe keeps top1 within 1 points .* not even float32"):
        build_bundle(request_for(tmp_path / "bundle", max_drop=1))
    assert not (tmp_path / "bundle").exists()
