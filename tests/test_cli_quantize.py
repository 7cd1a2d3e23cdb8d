"""``xformer-export --quantize`` as a person types it: int8 from one's own pictures, and every refusal in one line."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Call
from xformer_export import bundle
from xformer_export.calibration import CALIBRATION_STEPS
from xformer_export.recipes import Promise, Recipe
from xformer_export.to_onnx import target_here
from xformer_mobile.artifact import Bundle
from xformer_mobile.bench.counts import read_certificate
from xformer_mobile.data import Synthetic
from xformer_mobile.spec import ImageSize, ModelConfig
from xformer_mobile.weights import save_checkpoint
from xformer_mobile.zoo import untrained_model

SMALL = ("--variant", "xformer_xxs", "--image-size", 64)

INT8 = (*SMALL, "--quantize", "int8")

EXPORT = "from xformer_mobile import cli; cli.export_main()"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures in a folder and one below it, and three files that are none."""
    folder = tmp_path_factory.mktemp("calibration") / "pictures"
    (folder / "more").mkdir(parents=True)
    scenes = Synthetic("classify", "train", 10)
    for index in range(10):
        Image.fromarray(scenes[index].image).save(folder / ("more" if index % 2 else ".") / f"{index}.jpg", quality=90)
    (folder / "broken.jpg").write_bytes((folder / "0.jpg").read_bytes()[:500])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def manifest_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    return found


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


# ---- what it makes -------------------------------------------------------------------------------------------


def test_pictures_of_ones_own(call: Call, pictures: Path, tmp_path: Path) -> None:
    status, out, err = call("export", *INT8, "--calibration", pictures, "--output", tmp_path / "bundle")
    assert status == 0, err
    assert "note: 3 calibration files could not be read and were skipped" in err
    assert "warning: 10 calibration pictures are few" in err
    assert "In int8" in out
    manifest = manifest_of(tmp_path / "bundle")
    assert manifest["calibration"] == {"source": "pictures", "pictures": 10, "seed": 0, "skipped": 3}
    assert manifest["precision"] == "int8"
    (entry,) = manifest["artifacts"]
    found = entry["quantization"]
    assert found["target"] == "arm"
    assert found["size_ratio"] == pytest.approx(entry["size_bytes"] / found["fp32_size_bytes"], abs=1e-4)
    assert found["ranges"]["method"] in found["ranges"]["snr_db"]
    assert str(pictures.parent) not in (tmp_path / "bundle" / "manifest.json").read_text()


def test_drawn_scenes_for_weights_of_ones_own_are_a_warning(call: Call, tmp_path: Path) -> None:
    checkpoint = tmp_path / "mine.safetensors"
    config = ModelConfig.create(variant="xformer_xxs", image_size=ImageSize(64, 64), labels=["cat", "dog"])
    save_checkpoint(untrained_model(config), checkpoint)
    options = ("--quantize", "int8", "--calibration-pictures", 8, "--no-verify", "--output", tmp_path / "bundle")
    status, _, err = call("export", "--checkpoint", checkpoint, *options)
    assert status == 0, err
    assert "warning: the activations' ranges are from drawn scenes" in err


def test_the_certificate_is_the_artifact_s(call: Call, pictures: Path, tmp_path: Path) -> None:
    made = tmp_path / "bundle"
    status, out, err = call("export", *INT8, "--calibration", pictures, "--output", made, "--json")
    assert status == 0, err
    document = json.loads(out)
    found = document["manifest"]["artifacts"][0]["quantization"]
    read = read_certificate("onnx", made / "model.onnx").as_json()
    assert {name: found[name] for name in read} == read
    assert json.loads((made / "report.json").read_text())["quantization"]["onnx"] == found
    assert found["macs"]["share"] > 0.9
    assert found["float_islands"]
    assert found["qdq_pairs"] > 50
    steps = [name for name in document["seconds"] if name.startswith("onnx: ")]
    assert len(steps) == CALIBRATION_STEPS


def test_other_pictures_give_other_ranges(call: Call, pictures: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for index in range(6):
        Image.fromarray(np.full((80, 80, 3), 30 * index, np.uint8)).save(flat / f"{index}.png")
    for name, folder in (("scenes", pictures), ("flat", flat)):
        options = ("--calibration", folder, "--no-verify", "--output", tmp_path / f"{name}-bundle")
        assert call("export", *INT8, *options)[0] == 0
    models = [(tmp_path / f"{name}-bundle" / "model.onnx").read_bytes() for name in ("scenes", "flat")]
    assert models[0] != models[1]


@pytest.mark.parametrize("format", ["onnx", "coreml"])
def test_bytes_do_not_depend_on_hashes_or_threads(format: str, pictures: Path, tmp_path: Path) -> None:
    for seed, threads in (("1", "1"), ("2", "2")):
        arguments = [*INT8, "--format", format, "--calibration", pictures, "--output", tmp_path / seed, "--quiet"]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        line = [sys.executable, "-c", EXPORT, *map(str, arguments)]
        subprocess.run(line, env=environment, check=True, capture_output=True)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_int8_weights_need_no_pictures(call: Call, tmp_path: Path) -> None:
    made = tmp_path / "bundle"
    status, _, err = call("export", *SMALL, "--quantize", "int8-weights", "--output", made)
    assert status == 0, err
    manifest = manifest_of(made)
    assert manifest["precision"] == "int8-weights"
    assert "calibration" not in manifest
    assert manifest["artifacts"][0]["quantization"]["weights"]["share"] > 0.9


def test_ort_is_fused_where_it_is_written(call: Call, pictures: Path, tmp_path: Path) -> None:
    target = target_here()
    made = tmp_path / "bundle"
    options = ("--ort-format", "--onnx-target", target, "--calibration", pictures, "--output", made)
    status, _, err = call("export", *INT8, *options)
    assert status == 0, err
    assert Bundle.open(made).formats == ("onnx", "ort")
    found = {entry["format"]: entry["quantization"] for entry in manifest_of(made)["artifacts"]}
    assert found["ort"]["macs"]["share"] > 0.9
    assert found["ort"]["qdq_pairs"] < found["onnx"]["qdq_pairs"] / 2
    assert b"QLinearConv" in (made / "model.ort").read_bytes()


def test_auto_says_what_it_lost(call: Call, tmp_path: Path) -> None:
    made = tmp_path / "bundle"
    options = ("--quantize", "auto", "--max-drop", 100, "--calibration-pictures", 8, "--data", "synthetic")
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(Synthetic("classify", "test", 1).labels))
    status, out, err = call("export", *SMALL, *options, "--labels", labels, "--output", made)
    assert status == 0, err
    assert "auto: int8; top1 of the reference " in out
    assert "of 100 allowed" in out
    assert manifest_of(made)["auto"]["max_drop"] == 100


# ---- what it refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--quantize", "int8", "--calibration", "nowhere"], 1, "no calibration pictures at nowhere"),
        (["--quantize", "int8", "--calibration", "."], 1, "no calibration pictures in"),
        (["--quantize", "fp16", "--calibration", "."], 2, "--calibration goes with --quantize int8"),
        (["--quantize", "int8", "--calibration-pictures", "3"], 2, "--calibration-pictures"),
        (["--quantize", "int8", "--onnx-target", "riscv"], 2, "unknown ONNX target 'riscv'; valid: arm, x86"),
        (["--quantize", "int8", "--max-drop", "1"], 2, "--max-drop and --data go with --quantize auto"),
        (["--quantize", "auto", "--max-drop", "-1"], 2, "--max-drop"),
        (["--quantize", "auto", "--max-drop", "nan"], 2, "--max-drop"),
        (["--quantize", "auto", "--data", "nowhere"], 1, "no data at nowhere"),
        (["--quantize", "int8", "--format", "coreml", "--minimum-ios", "16"], 2, "iOS 17"),
        (["--quantize", "int8-weights", "--format", "coreml", "--minimum-ios", "15"], 2, "iOS 16"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_request_that_can_not_be(
    arguments: list[str], status: int, message: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = call("export", "--quiet", *SMALL, *arguments)
    assert (found, out) == (status, ""), err
    assert err.startswith("xformer-export: error: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_broken_pictures(call: Call, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "pictures" / name).write_text("no picture")
    options = ("--calibration", tmp_path / "pictures", "--output", tmp_path / "bundle")
    status, _, err = call("export", *INT8, *options, "--quiet")
    assert status == 1
    assert "no calibration pictures in" in err
    assert "2 files could not be read" in err
    assert not (tmp_path / "bundle").exists()


def test_ort_for_arm_is_refused_elsewhere(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    status, _, err = call("export", *INT8, "--ort-format", "--output", tmp_path / "bundle", "--quiet")
    assert status == 2
    assert "on an Arm machine" in err
    assert not (tmp_path / "bundle").exists()


def test_an_artifact_below_the_promise_is_not_put_in_place(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe promises int8 activations, the converter makes none: as if the quantizer had done nothing."""
    lies = Recipe("int8-weights", "int8-weights", "", promise=Promise(int8_macs=0.5))
    monkeypatch.setattr(bundle, "find_recipe", lambda name: lies)
    made = tmp_path / "bundle"
    status, _, err = call("export", *SMALL, "--quantize", "int8-weights", "--output", made, "--quiet")
    assert status == 1
    assert "onnx is not what int8-weights promises: 0.0% of the multiply-accumulates are in int8, 50% are" in err
    assert not made.exists()
