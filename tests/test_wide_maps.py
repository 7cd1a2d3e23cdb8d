"""ONNX in float: blocks by groups where maps are wide, and gates as large as their maps on x86."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from xformer_export import to_onnx, wide_maps
from xformer_export.prepare import Options, Prepared, prepare
from xformer_export.wide_maps import FlatSqueezeExcite, GroupedMV3, SpreadSqueezeExcite, with_wide_maps
from xformer_mobile.mobile import MobileMV3, MobileSqueezeExcite, to_mobile
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import ImageSize, ModelConfig
from xformer_mobile.zoo import untrained_model

SMALL = ImageSize(64, 64)

NARROW = 8 * 32 * 32
"""In ``xformer_xxs`` at 64x64 five of the seven blocks have wider maps."""


def _prepared() -> Prepared:
    return prepare(None, task="classify", variant="xformer_xxs", image_size=SMALL)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_maps, "WIDEST_MAP", NARROW)
    monkeypatch.setattr(wide_maps, "FEWEST_CHANNELS", 8)


@pytest.mark.parametrize("blocked", [False, True])
def test_wide_maps_are_the_same_function(blocked: bool, narrow: None) -> None:
    mobile = _prepared().mobile
    before = {name: values.clone() for name, values in mobile.state_dict().items()}
    form = with_wide_maps(mobile, SMALL, blocked=blocked)
    parts = Counter(type(part) for part in form.modules())
    assert parts[GroupedMV3] == 5
    assert parts[SpreadSqueezeExcite if blocked else FlatSqueezeExcite] == 7
    assert not parts[MobileSqueezeExcite]
    image = torch.from_numpy(golden_picture(0, SMALL).copy())
    with torch.inference_mode():
        (expected,), (found,) = mobile(image), form(image)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.max() - expected.min())
    for values in form.state_dict().values():
        values.zero_()
    assert all(torch.equal(values, before[name]) for name, values in mobile.state_dict().items())


@pytest.mark.parametrize(("side", "grouped"), [(256, {}), (512, {}), (1024, {"backbone.stage2.0": 2})])
def test_blocks_go_by_groups_where_maps_are_wide(side: int, grouped: dict[str, int]) -> None:
    size = ImageSize(side, side)
    mobile = to_mobile(untrained_model(ModelConfig.create(image_size=size), 0))
    form = with_wide_maps(mobile, size, blocked=False)
    found = {path: len(part.groups) for path, part in form.named_modules() if isinstance(part, GroupedMV3)}
    assert found == grouped
    blocks = sum(isinstance(part, MobileMV3) for part in form.modules())
    assert blocks + len(found) == 7


@pytest.mark.parametrize("target", ["arm", "x86"])
def test_each_target_has_its_graph_and_the_models_outputs(target: str, narrow: None, tmp_path: Path) -> None:
    prepared = _prepared()
    path = tmp_path / "model.onnx"
    to_onnx.convert(prepared, Options(onnx_target=target), path)
    ops = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert ops["Resize"] == (7 if target == "x86" else 0)
    assert bool(ops["AveragePool"]) is (target == "x86")
    image = golden_picture(0, SMALL)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image})
    with TorchRunner(prepared.reference) as runner:
        expected = runner.run(image)["logits"]
    assert float(np.abs(found - expected).max()) <= 1e-4 * float(np.ptp(expected))


def test_int8_has_no_groups(narrow: None) -> None:
    mobile = _prepared().mobile
    for target in ("arm", "x86"):
        parts = Counter(type(part) for part in to_onnx.form_for(mobile, "int8", target).modules())
        assert (parts[MobileMV3], parts[MobileSqueezeExcite]) == (7, 7)
