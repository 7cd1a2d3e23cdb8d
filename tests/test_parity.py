"""Parity's figures are right, and each kind of disagreement is a miss."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xformer_mobile.errors import UsageError
from xformer_mobile.parity import TOLERANCES, Tolerance, compare, compare_outputs, tolerance_of
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
    return compare(
        reference, found, Postprocess.of(config), engine="test", tolerance=tolerance_of(config.task, precision)
    )


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
    assert output.cosine == pytest.approx(62 / math.sqrt(60 * 64.25))
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


@pytest.mark.parametrize(
    ("first", "second", "cosine"),
    [([1, 2], [2, 4], 1.0), ([1, 0], [0, 1], 0.0), ([1, 2], [-1, -2], -1.0), ([0, 0], [0, 0], 1.0)],
    ids=["a factor", "orthogonal", "the other sign", "both zero"],
)
def test_cosine(first: list[float], second: list[float], cosine: float) -> None:
    outputs = compare_outputs([{"logits": np.float32([first])}], [{"logits": np.float32([second])}])
    assert outputs[0].cosine == pytest.approx(cosine)


def test_cosine_of_nothing_and_something_is_no_number() -> None:
    (output,) = compare_outputs([{"logits": np.float32([[0, 0]])}], [{"logits": np.float32([[0, 1]])}])
    assert output.as_json()["cosine"] is None


def test_what_else_a_user_would_notice() -> None:
    logits = {"logits": np.float32([[9, 8, 7, 6, 5, 4, 3]])}
    other = {"logits": np.float32([[9, 8, 7, 6, 1, 4, 5]])}
    classify = ModelConfig.create("classify", "xformer_xxs", num_classes=7, image_size=ImageSize(64, 64))
    assert _compare(classify, [logits], [other], "int8").agreement.figures == {"top-5 in common": 0.8}

    segment = _config("segment")
    reference = np.zeros((1, 5, 16, 32), np.float32)
    reference[:, 1] = 1
    found = reference.copy()
    found[0, 2, :4] = 2  # a quarter of the rows
    figures = _compare(segment, [{"logits": reference}], [{"logits": found}], "int8").agreement.figures
    assert figures == {"mean IoU of the class maps": (0.75 + 0) / 2}

    detect = _config("detect")
    maps = {name: np.full(shape, -9.0, np.float32) for name, shape in detect.output_shapes().items()}
    maps["stride8"][0, [4, 5], 3, 5] = 9.0
    maps["stride8"][0, :4, 3, 5] = 0.0
    moved = {name: values.copy() for name, values in maps.items()}
    moved["stride8"][0, 2, 3, 5] = math.log(0.95)  # narrower by 5 %
    moved["stride8"][0, 4, 3, 5] = 2.0
    figures = _compare(detect, [maps], [moved], "int8").agreement.figures
    assert figures["mean IoU of matched boxes"] == pytest.approx(0.95, abs=1e-3)
    assert figures["least IoU of matched boxes"] == pytest.approx(0.95, abs=1e-3)
    expected = _sigmoid(9) * (_sigmoid(9) - _sigmoid(2))
    assert figures["largest difference of their scores"] == pytest.approx(expected, abs=1e-4)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("precision", "bounds", "expected"),
    [
        ("fp32", {"max_difference": 1e-6}, Tolerance(relative_max=1e-6, agreement=1.0)),
        ("int8", {"min_snr_db": 25.0}, Tolerance(snr_db=25.0)),
        ("int8", {"max_difference": 0.2, "min_agreement": 0.9}, Tolerance(0.2, 3.0, 0.9)),
        ("fp16", {}, TOLERANCES["fp16"]),
    ],
    ids=["difference", "SNR", "what was not bounded", "nothing"],
)
def test_a_tolerance_can_be_tightened(precision: str, bounds: dict[str, float], expected: Tolerance) -> None:
    assert TOLERANCES[precision].tightened(**bounds) == expected


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"max_difference": 1e-3}, "the largest difference is bounded by 0.0001 here; 0.001 would loosen it"),
        ({"min_agreement": 0.9}, "the agreement is bounded by 1 here; 0.9 would loosen it"),
        ({"max_difference": math.nan}, "nan would loosen it"),
    ],
    ids=["difference", "agreement", "no number"],
)
def test_a_tolerance_is_never_loosened(bounds: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TOLERANCES["fp32"].tightened(**bounds)


@pytest.mark.parametrize(
    ("tolerance", "text"),
    [
        (TOLERANCES["fp32"], "difference <= 1e-04, agreement >= 100 %"),
        (TOLERANCES["fp16"], "SNR >= 40 dB, agreement >= 99.5 %"),
        (TOLERANCES["int8"], "SNR >= 3 dB"),
    ],
    ids=["fp32", "fp16", "int8"],
)
def test_a_tolerance_in_words(tolerance: Tolerance, text: str) -> None:
    assert tolerance.text == text


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(UsageError, match=r"unknown precision 'int4'.*valid: fp32, fp16"):
        tolerance_of("classify", "int4")
