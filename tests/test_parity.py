"""Parity's figures are right, and each kind of disagreement is a miss."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xformer_mobile.parity import compare
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.spec import TASKS, ImageSize, ModelConfig

Outputs = dict[str, np.ndarray]


def _outputs(config: ModelConfig, pictures: int = 3) -> list[Outputs]:
    rng = np.random.default_rng(0)
    return [
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in config.output_shapes().items()}
        for _ in range(pictures)
    ]


def _config(task: str) -> ModelConfig:
    return ModelConfig.create(task, "xformer_xxs", num_classes=5, image_size=ImageSize(64, 128))


def _compare(config: ModelConfig, reference: list[Outputs], found: list[Outputs], precision: str = "fp32"):
    return compare(reference, found, Postprocess.of(config), engine="test", precision=precision)


@pytest.mark.parametrize("task", TASKS)
def test_equal_outputs_agree(task: str) -> None:
    outputs = _outputs(_config(task))
    comparison = _compare(_config(task), outputs, outputs)
    assert comparison
    assert comparison.misses() == []
    assert comparison.images == 3
    assert comparison.relative_max == 0
    assert comparison.agreement.share == 1
    assert all(math.isinf(output.snr_db) for output in comparison.outputs)
    assert comparison.as_json()["outputs"][comparison.outputs[0].name]["snr_db"] is None


def test_figures_are_those_of_the_worst_picture() -> None:
    reference = [{"logits": np.float32([[0, 1, 2, 3, 4]])} for _ in range(2)]
    found = [{"logits": np.float32([[0, 1, 2, 3, 4]])}, {"logits": np.float32([[0, 1, 2, 3, 4.5]])}]
    comparison = _compare(_config("classify"), reference, found)
    (output,) = comparison.outputs
    assert output.max_abs == 0.5
    assert output.mean_abs == pytest.approx(0.1)
    assert output.relative_max == 0.125  # 0.5 of a range of 4
    assert output.snr_db == pytest.approx(10 * math.log10(60 / 0.25))  # over both pictures
    assert output.worst_snr_db == pytest.approx(10 * math.log10(30 / 0.25))
    assert not comparison
    assert comparison.misses() == ["logits differs by 1.25e-01 of its range, 1e-04 is allowed"]


def test_the_range_is_that_of_all_pictures_and_never_zero() -> None:
    """With one class each picture has a single value."""
    reference = [{"logits": np.float32([[value]])} for value in (2.0, 4.0)]
    found = [{"logits": np.float32([[2.0]])}, {"logits": np.float32([[4.5]])}]
    assert _compare(_config("classify"), reference, found).relative_max == 0.25
    assert _compare(_config("classify"), reference[1:], found[1:]).relative_max == 0.125


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("task", ["classify", "segment"])
def test_an_output_that_is_not_finite_is_a_miss(task: str, value: float) -> None:
    reference, found = _outputs(_config(task)), _outputs(_config(task))
    found[1]["logits"].flat[7 % found[1]["logits"].size - 1] = value
    with np.errstate(invalid="ignore"):
        assert not _compare(_config(task), reference, found)


def test_a_difference_within_the_tolerance_is_none_beyond_it_is() -> None:
    reference = _outputs(_config("segment"))
    span = np.ptp([outputs["logits"] for outputs in reference])
    for share, kept in ((0.9e-4, True), (1.1e-4, False)):
        found = [{"logits": outputs["logits"].copy()} for outputs in reference]
        lowest = found[2]["logits"].argmin()  # no pixel's class changes
        found[2]["logits"].flat[lowest] -= share * span
        assert bool(_compare(_config("segment"), reference, found)) is kept


def test_fp16_is_held_to_the_noise_over_all_pictures() -> None:
    """Two of them may be noisier than allowed; fp32's bound on single values does not apply."""
    reference = _outputs(_config("segment"), pictures=4)
    signal = sum(np.square(outputs["logits"], dtype=np.float64).sum() for outputs in reference)
    for snr_db, kept in ((40.5, True), (39.5, False)):
        found = [{"logits": outputs["logits"].copy()} for outputs in reference]
        for picture in (1, 2):
            lowest = found[picture]["logits"].argmin()  # no pixel's class changes
            found[picture]["logits"].flat[lowest] -= math.sqrt(signal / 10 ** (snr_db / 10) / 2)
        comparison = _compare(_config("segment"), reference, found, "fp16")
        (output,) = comparison.outputs
        assert output.snr_db == pytest.approx(snr_db, abs=1e-3)
        assert output.worst_snr_db < 40
        assert output.relative_max > 1e-2
        assert bool(comparison) is kept
        expected = [] if kept else ["logits has a signal-to-noise ratio of 39.5 dB; 40 dB needed"]
        assert comparison.misses() == expected
        assert comparison.as_json()["tolerance"] == {"snr_db": 40.0, "agreement": 0.995}


def test_in_fp16_too_an_output_that_is_not_finite_is_a_miss() -> None:
    for value in (math.nan, math.inf):
        reference, found = _outputs(_config("segment")), _outputs(_config("segment"))
        found[1]["logits"].flat[3] = value
        with np.errstate(invalid="ignore"):
            comparison = _compare(_config("segment"), reference, found, "fp16")
        assert not comparison
        assert comparison.as_json()["outputs"]["logits"]["snr_db"] is None


def test_another_class_is_a_miss_and_a_tie_is_none() -> None:
    config = _config("classify")
    reference = [{"logits": np.float32([[0, 1, 5, 3, 4]])}]
    other = [{"logits": np.float32([[0, 9, 5, 3, 4]])}]
    assert _compare(config, reference, other).agreement.share == 0
    tied = [{"logits": np.float32([[0, 1, 5, 3, 5 - 1e-6]])}]
    swapped = [{"logits": np.float32([[0, 1, 5 - 1e-6, 3, 5]])}]
    assert _compare(config, tied, swapped).agreement.share == 1


def test_pixel_agreement_is_the_share_of_pixels() -> None:
    config = _config("segment")
    reference = [{"logits": np.zeros((1, 5, 16, 32), np.float32)}]
    reference[0]["logits"][:, 1] = 1
    found = [{"logits": reference[0]["logits"].copy()}]
    found[0]["logits"][0, 2, :4] = 2  # a quarter of the rows
    comparison = _compare(config, reference, found)
    assert comparison.agreement.name == "pixel agreement"
    assert comparison.agreement.share == 0.75


def test_box_agreement_counts_boxes_that_moved_vanished_or_changed_class() -> None:
    config = _config("detect")
    reference = [{name: np.full(shape, -9.0, np.float32) for name, shape in config.output_shapes().items()}]
    for row, column in ((0, 2), (3, 5), (6, 12)):
        reference[0]["stride8"][0, [4, 5], row, column] = 9.0
        reference[0]["stride8"][0, :4, row, column] = 0.0

    def share(change) -> float:
        found = [{name: values.copy() for name, values in reference[0].items()}]
        change(found[0]["stride8"][0])
        return _compare(config, reference, found).agreement.share

    def vanish(values: np.ndarray) -> None:
        values[4, 0, 2] = -9

    def move(values: np.ndarray) -> None:
        values[2, 0, 2] = 1

    def rename(values: np.ndarray) -> None:
        values[[5, 6], 0, 2] = -9, 9

    def tremble(values: np.ndarray) -> None:
        values[:4, 0, 2] += 1e-3

    assert share(lambda values: None) == 1
    assert share(vanish) == pytest.approx(4 / 5)
    assert share(move) == pytest.approx(4 / 6)
    assert share(rename) == pytest.approx(4 / 6)
    assert share(tremble) == 1


def test_pictures_must_be_the_same() -> None:
    outputs = _outputs(_config("classify"))
    with pytest.raises(ValueError, match="2 pictures to compare with 3"):
        _compare(_config("classify"), outputs, outputs[:2])
