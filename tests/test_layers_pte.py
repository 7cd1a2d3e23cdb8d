"""The constants of a .pte file: whose they are, and which module a planted fault is blamed on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from xformer_export import to_executorch
from xformer_export.calibration import Calibration
from xformer_export.channels_last import to_patch_form
from xformer_export.layers import look_inside
from xformer_export.layers.pte_file import WEIGHT_LIMITS, _assign, _Constants, _read, compare_weights
from xformer_export.prepare import Options, Prepared, prepare
from xformer_mobile.errors import BundleError, UnavailableError, UsageError
from xformer_mobile.spec import ImageSize

SIZE = ImageSize(64, 64)

PRECISIONS = ("fp32", "int8")

STEM, DEPTHWISE = "backbone.stem.0", "backbone.stages.1.0.body.1.0"

TWICE = "backbone.stages.0.1.blocks.0.attention.sum_heads"
"""In the patch form it runs three times; the blocks of a stage have equal ones."""

CONVOLUTIONS = (STEM, DEPTHWISE, "backbone.stages.1.0.body.3", "backbone.stages.1.1.blocks.1.mlp.2", "head.fc")


@dataclass(frozen=True)
class Made:
    """A converted model in each precision, and the form that each was made from."""

    prepared: Prepared
    forms: Mapping[str, nn.Module]
    files: Mapping[str, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    prepared = prepare(None, task="classify", variant="xformer_xxs", image_size=SIZE)
    folder, calibration = tmp_path_factory.mktemp("constants"), Calibration.of(prepared.config, count=4)
    files = {precision: folder / f"{precision}.pte" for precision in PRECISIONS}
    for precision, path in files.items():
        to_executorch.convert(prepared, Options(precision, calibration=calibration), path)
    return Made(prepared, {"fp32": prepared.mobile, "int8": to_patch_form(prepared.mobile)}, files)


every_precision = pytest.mark.parametrize("precision", PRECISIONS)


# ---- clean files ---------------------------------------------------------------------------------------------


@every_precision
def test_a_clean_file_has_every_convolution_of_the_form(precision: str, made: Made) -> None:
    report = look_inside(made.prepared, "executorch", made.files[precision], precision=precision, pictures=[])
    convolutions = [path for path, one in made.forms[precision].named_modules() if isinstance(one, nn.Conv2d)]
    assert [row.path for row in report.rows] == convolutions
    assert report.misses() == []
    assert report
    assert report.first is None
    assert (report.pictures, report.modules, report.compared) == (0, len(convolutions), len(convolutions))
    assert report.limits == WEIGHT_LIMITS[precision]
    assert {row.kind for row in report.rows} == {"Conv2d weights"}
    assert {row.snr_db for row in report.rows} == {None}


def test_what_was_not_rounded_is_exact(made: Made) -> None:
    report = compare_weights(made.forms["fp32"], made.files["fp32"], "fp32")
    assert {(row.own_snr_db, row.gain, row.shift) for row in report.rows} == {(math.inf, 0.0, 0.0)}


def test_int8_is_dequantized(made: Made) -> None:
    """By uniform noise of a 127th of the largest weight, 42 dB or more where weights are spread evenly."""
    rows = {row.path: row for row in compare_weights(made.forms["int8"], made.files["int8"], "int8").rows}
    assert all(38 < rows[path].own_snr_db < 60 for path in CONVOLUTIONS)
    assert all(0 < rows[path].gain < 0.01 for path in CONVOLUTIONS)
    assert all(0 < rows[path].shift < 0.005 for path in CONVOLUTIONS)


def test_another_form_does_not_fit(made: Made) -> None:
    """In int8 LayerNorm's gain is in the weights behind it."""
    report = compare_weights(made.forms["fp32"], made.files["int8"], "int8")
    assert not report


# ---- faults in the file --------------------------------------------------------------------------------------


def _scale(content: bytes, values: npt.NDArray[np.float32], factor: float) -> bytes:
    """Scale values that are once in a file."""
    stored = values.astype("<f4").tobytes()
    assert content.count(stored) == 1
    return content.replace(stored, (values * np.float32(factor)).astype("<f4").tobytes())


@pytest.mark.parametrize("path", CONVOLUTIONS)
@every_precision
def test_scaled_weights_are_blamed_on_their_module(precision: str, path: str, made: Made, tmp_path: Path) -> None:
    """In int8 it is the scales of the output channels that are scaled."""
    weight = made.forms[precision].get_submodule(path).get_parameter("weight").numpy()
    held = np.abs(weight).max((1, 2, 3)) / np.float32(127)
    if precision == "fp32":  # out, height, width, in; of a depthwise convolution height, width, out
        held = weight.transpose(1, 2, 3, 0) if path == DEPTHWISE else weight.transpose(0, 2, 3, 1)
    changed = tmp_path / "model.pte"
    changed.write_bytes(_scale(made.files[precision].read_bytes(), held, 1.05))

    report = compare_weights(made.forms[precision], changed, precision)
    assert report.first is not None
    assert report.first.path == path
    assert [row.path for row in report.rows if not row.passed] == [path]
    assert report.first.gain == pytest.approx(0.05, abs=0.005)
    assert report.first.own_snr_db == pytest.approx(26.0, abs=0.5)
    assert f"{path} (Conv2d weights) are scaled wrongly by" in report.misses()[0]


def test_a_shifted_bias_is_blamed_on_its_module(made: Made, tmp_path: Path) -> None:
    bias = made.forms["fp32"].get_submodule(DEPTHWISE).get_parameter("bias").numpy().copy()
    stored = bias.tobytes()
    bias[5] += 0.01
    content = made.files["fp32"].read_bytes()
    assert content.count(stored) == 1
    changed = tmp_path / "model.pte"
    changed.write_bytes(content.replace(stored, bias.tobytes()))

    report = compare_weights(made.forms["fp32"], changed, "fp32")
    assert [row.path for row in report.rows if not row.passed] == [DEPTHWISE]
    assert report.misses()[0].startswith(f"{DEPTHWISE} (Conv2d weights): the bias is off by")


# ---- faults by a form that is another ------------------------------------------------------------------------

Change = Callable[[torch.Tensor, torch.Tensor], None]


def _scale_channel(weight: torch.Tensor, bias: torch.Tensor) -> None:
    weight[3] /= 1.05


def _negate(weight: torch.Tensor, bias: torch.Tensor) -> None:
    weight.neg_()


def _drop_channel(weight: torch.Tensor, bias: torch.Tensor) -> None:
    weight[2] = 0


def _roll_channels(weight: torch.Tensor, bias: torch.Tensor) -> None:
    weight[:2] = weight[:2].roll(1, 0)


def _shift_bias(weight: torch.Tensor, bias: torch.Tensor) -> None:
    bias[3] += 0.1 * ((weight.square().sum() + bias.square().sum()) / len(bias)).sqrt()


def _draw_anew(weight: torch.Tensor, bias: torch.Tensor) -> None:
    weight.normal_(generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_scale_channel, "are scaled wrongly by"),
        (_negate, "are scaled wrongly by"),
        (_drop_channel, "have a signal-to-noise ratio of"),
        (_roll_channels, "are scaled wrongly by"),
        (_shift_bias, "the bias is off by"),
        (_draw_anew, "no convolution in the file has weights that resemble the module's"),
    ],
)
@pytest.mark.parametrize("path", [STEM, "backbone.stages.1.0.body.3"])
@every_precision
def test_what_differs_is_named(precision: str, path: str, change: Change, words: str, made: Made) -> None:
    form = copy.deepcopy(made.forms[precision])
    module = form.get_submodule(path)
    with torch.no_grad():
        change(module.get_parameter("weight"), module.get_parameter("bias"))
    report = compare_weights(form, made.files[precision], precision)
    assert [row.path for row in report.rows if not row.passed] == [path]
    assert words in report.misses()[0]
    assert report.as_json()["first"] == path


def test_other_weights_blame_the_first_module(made: Made) -> None:
    form = copy.deepcopy(made.forms["fp32"])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in form.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.normal_(generator=generator)
    report = compare_weights(form, made.files["fp32"], "fp32")
    assert report.first is not None
    assert report.first.path == STEM
    assert report.as_json()["rows"][0]["own_snr_db"] is None


# ---- which is whose ------------------------------------------------------------------------------------------


def _constants(*values: float) -> _Constants:
    return _Constants(np.array(values).reshape(1, -1, 1, 1), np.zeros(1))


A, B = _constants(1, 2, 3, 4), _constants(4, -3, 2, 1)
SCALED = _constants(1.1, 2.2, 3.3, 4.4)


@pytest.mark.parametrize(
    ("wanted", "stored", "uses"),
    [
        ([A, B], [B, A], [[1], [0]]),
        ([A], [SCALED, A], [[1, 0]]),
        ([A, A], [A, A], [[0], [1]]),
        ([A, SCALED], [SCALED, A], [[1], [0]]),
        ([A], [B], [[]]),
        ([A], [_constants(math.nan, 2, 3, 4)], [[]]),
        ([A], [_constants(1, 2, 3)], [[]]),
        ([_constants(0, 0)], [_constants(0, 0)], [[0]]),
    ],
    ids=["any order", "every use", "equal modules", "the nearest", "another direction", "NaN", "shape", "zeros"],
)
def test_whose_constants_they_are(wanted: list[_Constants], stored: list[_Constants], uses: list[list[int]]) -> None:
    assert _assign(wanted, stored) == uses


def test_every_use_of_a_module_counts(made: Made) -> None:
    """Of a module that runs three times, and of its likes, each use is in the file."""
    stored = [one for one in _read(made.files["int8"]) if not one.is_mean]
    modules = [one for one in made.forms["int8"].modules() if isinstance(one, nn.Conv2d)]
    weights = [_Constants(one.weight.double().numpy(), np.zeros(one.out_channels)) for one in modules]
    uses = _assign(weights, stored)
    assert sum(map(len, uses)) == len(stored) > len(modules)
    twice = made.forms["int8"].get_submodule(TWICE)
    assert any(one is twice and len(found) > 1 for one, found in zip(modules, uses, strict=True))


# ---- other files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"no model at all, but long enough to have an identifier", b"\x10\x00\x00\x00ET12" + 64 * b"\x00"],
    ids=["empty", "foreign", "a header alone"],
)
def test_a_foreign_file_is_refused(content: bytes, made: Made, tmp_path: Path) -> None:
    file = tmp_path / "model.pte"
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.pte"):
        compare_weights(made.forms["fp32"], file, "fp32")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(share: float, made: Made, tmp_path: Path) -> None:
    content = made.files["fp32"].read_bytes()
    file = tmp_path / "model.pte"
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BundleError, match=r"model\.pte"):
        compare_weights(made.forms["fp32"], file, "fp32")


def test_a_missing_file_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="can't read"):
        compare_weights(made.forms["fp32"], tmp_path / "model.pte", "fp32")


def test_constants_that_are_not_in_the_file_are_refused(made: Made, tmp_path: Path) -> None:
    """The data of each has a name, by which the program has it."""
    content = made.files["int8"].read_bytes()
    file = tmp_path / "model.pte"
    file.write_bytes(content.replace(b"scale_", b"scole_", 1))
    with pytest.raises(BundleError, match="unknown form"):
        compare_weights(made.forms["int8"], file, "int8")


def test_another_delegate_can_not_be_looked_into(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "model.pte"
    file.write_bytes(made.files["fp32"].read_bytes().replace(b"XnnpackBackend", b"AnotherBackend"))
    with pytest.raises(UnavailableError, match=r"model\.pte can't be read: it delegates to AnotherBackend"):
        compare_weights(made.forms["fp32"], file, "fp32")


def test_an_unknown_precision_is_refused(made: Made) -> None:
    with pytest.raises(UsageError, match="precision"):
        compare_weights(made.forms["fp32"], made.files["fp32"], "int3")
