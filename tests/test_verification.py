"""Verifying a bundle: what is looked at, what is named where it can't be, and what each option does."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import Call, MakeBundle
from xformer_export import ExportRequest, build_bundle
from xformer_export.verification import ALLOWED_DROP_DB, Request, verify
from xformer_mobile.errors import CheckpointError, MissingDependencyError, UsageError
from xformer_mobile.report import validate
from xformer_mobile.spec import ImageSize, ModelConfig
from xformer_mobile.weights import save_checkpoint
from xformer_mobile.zoo import untrained_model

SMALL = ImageSize(64, 64)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier in int8, as .onnx and .ort, untrained."""
    target = tmp_path_factory.mktemp("int8") / "bundle"
    request = ExportRequest(
        formats=("onnx", "ort"),
        variant="xformer_xxs",
        image_size=SMALL,
        quantize="int8",
        onnx_target="x86",
        pictures=8,
        output=target,
        keep_log=False,
    )
    build_bundle(request)
    return target


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle, tmp_path / "copy")
    return tmp_path / "copy"


def _change_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def _artifacts(request: Request) -> dict[str, dict[str, Any]]:
    document = verify(request).document
    validate(document)
    return {artifact["format"]: artifact for artifact in document["artifacts"]}


def test_a_clean_bundle(bundle: Path) -> None:
    steps: list[str] = []
    verification = verify(Request(bundle), steps.append)
    document = verification.document
    validate(document)
    assert verification.passed
    assert document["pictures"] == {"source": "golden", "count": 3, "names": ["000", "001", "002"]}
    assert document["bundle"]["precision"] == "int8"
    assert [sample.name for sample in verification.samples] == ["000", "001", "002"]
    assert all(set(sample.artifacts) == {"onnx", "ort"} for sample in verification.samples)

    onnx, ort = document["artifacts"]
    assert onnx["layers"]["looked"]
    assert onnx["layers"]["compared"] > 50
    assert onnx["second_reader"]["status"] == "agrees"
    assert onnx["metadata"]["passed"]
    assert onnx["since_export"]["passed"]
    assert onnx["certificate"]["macs"]["share"] > 0.9
    assert ort["layers"]["looked"] is False
    assert "gives no tensor but its outputs" in ort["layers"]["reason"]
    assert ort["second_reader"]["status"] == "none"

    everything_runs = [index for index, step in enumerate(steps) if step.endswith(": run")]
    compared = [index for index, step in enumerate(steps) if step.endswith(": layers")]
    read_again = [index for index, step in enumerate(steps) if step.endswith(": second reader")]
    assert everything_runs
    assert max(everything_runs) < min(compared)
    assert max(compared) < min(read_again)


def test_what_is_not_wanted_is_not_done(bundle: Path) -> None:
    found = _artifacts(Request(bundle, formats=("onnx",), layers=False, second_readers=False))
    assert list(found) == ["onnx"]
    assert found["onnx"]["layers"] == {"looked": False, "reason": "--no-layers"}
    assert found["onnx"]["second_reader"] is None


def test_drawn_scenes(make_bundle: MakeBundle) -> None:
    verification = verify(Request(make_bundle("segment"), scenes=2, layers=False, second_readers=False))
    assert verification.passed
    assert verification.document["pictures"] == {"source": "scenes", "count": 2, "names": ["scene-000", "scene-001"]}
    assert verification.document["artifacts"][0]["since_export"] is None


@pytest.mark.parametrize(
    ("bound", "miss"),
    [
        ({"max_difference": 1e-12}, "1e-12 is allowed"),
        ({"min_snr_db": 300.0}, "300 dB needed"),
    ],
    ids=["difference", "SNR"],
)
def test_a_tighter_bound_is_missed(make_bundle: MakeBundle, bound: dict[str, float], miss: str) -> None:
    request = Request(make_bundle("classify"), layers=False, second_readers=False, **bound)  # type: ignore[arg-type]
    artifact = _artifacts(request)["onnx"]
    assert not artifact["passed"]
    assert any(miss in sentence for sentence in artifact["misses"])
    assert artifact["parity"]["outputs"]["logits"]["passed"] is False


def test_what_has_moved_since_the_export_is_a_miss(copied: Path) -> None:
    """As if it had been nearer when it was exported: nothing else can tell in a .ort file."""

    def change(manifest: dict[str, Any]) -> None:
        for parity in manifest["parity"].values():
            parity["outputs"]["logits"]["snr_db"] += ALLOWED_DROP_DB + 0.5

    _change_manifest(copied, change)
    artifact = _artifacts(Request(copied, formats=("ort",), layers=False))["ort"]
    assert artifact["since_export"]["passed"] is False
    (miss,) = artifact["misses"]
    assert miss.startswith("logits had ")


def test_an_artifact_that_was_exchanged_does_not_hide_the_others(copied: Path) -> None:
    (copied / "model.onnx").write_bytes((copied / "model.onnx").read_bytes()[:1000])
    found = _artifacts(Request(copied, layers=False, second_readers=False))
    assert "is not the file that the manifest describes" in found["onnx"]["error"]
    assert (found["onnx"]["passed"], found["onnx"]["parity"]) == (False, None)
    assert found["ort"]["passed"]


# ---- the reference's weights ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle of a checkpoint, and the checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    config = ModelConfig.create(variant="xformer_xxs", image_size=SMALL, num_classes=5)
    save_checkpoint(untrained_model(config, seed=4), folder / "weights.safetensors")
    request = ExportRequest(formats=("onnx",), checkpoint=folder / "weights.safetensors", output=folder / "bundle")
    build_bundle(request)
    return folder / "bundle", folder / "weights.safetensors"


def test_layers_with_the_checkpoint(trained: tuple[Path, Path]) -> None:
    bundle, checkpoint = trained
    layers = _artifacts(Request(bundle, checkpoint=checkpoint, second_readers=False))["onnx"]["layers"]
    assert (layers["looked"], layers["passed"]) == (True, True)


def test_without_the_checkpoint_the_reason_is_named(trained: tuple[Path, Path]) -> None:
    bundle, _ = trained
    artifact = _artifacts(Request(bundle, second_readers=False))["onnx"]
    assert artifact["passed"]
    assert artifact["layers"]["reason"] == "give --checkpoint, the file that the bundle was made from"


@pytest.mark.parametrize(
    "options",
    [{"layers": True}, {"scenes": 1}, {"images": (Path("picture.png"),)}],
    ids=lambda options: next(iter(options)),
)
def test_what_needs_the_checkpoint_says_so(
    options: dict[str, Any], trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("picture.png")
    with pytest.raises(UsageError, match="--checkpoint is needed"):
        verify(Request(trained[0], second_readers=False, **options))


def test_another_checkpoint_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    config = ModelConfig.create(variant="xformer_xxs", image_size=SMALL, num_classes=5)
    save_checkpoint(untrained_model(config, seed=5), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="are not those that the bundle was made from"):
        verify(Request(trained[0], checkpoint=tmp_path / "other.safetensors", second_readers=False))


def test_other_sample_weights_are_a_reason_and_no_error(copied: Path) -> None:
    """The bundle of another version: all but the layers can be looked at."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["model"]["weights"]["sha256"] = hashlib.sha256(b"another").hexdigest()

    _change_manifest(copied, change)
    layers = _artifacts(Request(copied, formats=("ort",), second_readers=False))["ort"]["layers"]
    assert layers["looked"] is False
    assert "are not those that the bundle was made from" in layers["reason"]


# ---- the command --------------------------------------------------------------------------------------------------


def test_everything_is_written(call: Call, make_bundle: MakeBundle, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("report", "parity.xml", "summary.md")]
    places[2].write_text("before\n")
    options = [part for pair in zip(("--report", "--junit", "--summary"), places, strict=True) for part in pair]
    status, out, err = call("verify", make_bundle("detect"), "--no-second-readers", "--json", *options)
    assert (status, err) == (0, "")
    assert json.loads((places[0] / "report.json").read_text()) == json.loads(out)
    assert (places[0] / "report.html").read_text().count("<!DOCTYPE html>") == 1
    assert b"<testsuite" in places[1].read_bytes()
    assert places[2].read_text().startswith("before\n")
    assert "onnx" in places[2].read_text()


def test_a_miss_is_written_too(call: Call, copied: Path, tmp_path: Path) -> None:
    (copied / "model.ort").write_bytes(b"")
    status, out, _ = call("verify", copied, "--no-layers", "--no-second-readers", "--junit", tmp_path / "parity.xml")
    assert status == 1
    assert "ort: MISSED: " in out
    assert b"<error" in (tmp_path / "parity.xml").read_bytes()


def test_the_table_names_what_was_looked_at(call: Call, bundle: Path) -> None:
    status, out, err = call("verify", bundle)
    assert (status, err) == (0, "")
    for part in (
        "SNR >= 3 dB",
        "3 pictures: golden",
        "modules compared on their own inputs; worst ",
        "ort: layers: not looked into; ",
        "onnx: second reader: onnx-reference agrees",
        "ort: second reader: none; ",
        "forecast by rules, not a measurement",
    ):
        assert part in out


@pytest.mark.parametrize("option", ["--report", "--junit", "--summary"])
def test_a_place_that_can_not_be_written(option: str, call: Call, make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, out, err = call(
        "verify", make_bundle("classify"), "--no-layers", "--no-second-readers", option, tmp_path / "file" / "below"
    )
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("xformer-verify: error: ")


def test_latency_is_quoted_for_the_artifact_it_was_measured_of(
    call: Call, make_bundle: MakeBundle, bundle: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run.json"
    measured = call("bench", "run", make_bundle("classify"), "--runs", 10, "--processes", 1, "--output", run)
    assert measured[0] == 0, measured
    quiet = ("--no-layers", "--no-second-readers", "--latency", run, "--json")
    latency = json.loads(call("verify", make_bundle("classify"), *quiet)[1])["artifacts"][0]["latency"]
    assert latency["engine"] == "onnxruntime"
    assert 0 < latency["median_ms"] <= latency["p90_ms"]
    others = json.loads(call("verify", bundle, *quiet)[1])["artifacts"]
    assert [artifact["latency"] for artifact in others] == [None, None]


def test_a_missing_engine_is_an_error(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError):
        verify(Request(make_bundle("classify")))


def test_it_works_where_torch_is_not_installed(make_bundle: MakeBundle) -> None:
    """In a process in which no converter and no torch can be imported."""
    hidden = ["torch", "safetensors", "coremltools", "litert_torch", "executorch", "tensorflow"]
    code = f"""
import importlib.abc, json, sys
HIDDEN = set({hidden!r})
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Hide())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.partition(".")[0] in HIDDEN else real(name, *rest)
from xformer_mobile.cli.common import run_command
run_command("verify", [{str(make_bundle("classify"))!r}, "--json"])
"""
    code = code.replace("import importlib.abc", "import importlib.util, importlib.abc")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (artifact,) = json.loads(done.stdout)["artifacts"]
    assert artifact["passed"]
    assert artifact["layers"]["reason"] == "torch is not installed; type: pip install 'xformer-mobile[onnx]'"
