"""Which engine runs a bundle: the one that is asked for, or the first that is installed."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Call, MakeBundle
from xformer_mobile.artifact import FORMATS, Bundle
from xformer_mobile.errors import MissingDependencyError, UnavailableError, UsageError
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners import ENGINES, open_runner, open_runner_for_format
from xformer_mobile.spec import ImageSize

WithFormats = Callable[..., Bundle]


@pytest.fixture
def with_formats(make_bundle: MakeBundle, tmp_path: Path) -> WithFormats:
    """Returns a bundle that declares formats; but for ONNX, its artifacts are a few bytes which nothing runs."""

    def make(*formats: str) -> Bundle:
        path = tmp_path / "bundle"
        shutil.copytree(make_bundle("classify"), path, dirs_exist_ok=True)
        manifest = json.loads((path / "manifest.json").read_text())
        (entry,) = manifest["artifacts"]
        manifest["artifacts"], manifest["parity"] = [], {}
        for name in formats:
            artifact = path / FORMATS[name]
            if name != "onnx":
                artifact.write_bytes(b"not a model")
            sha256 = hashlib.sha256(artifact.read_bytes()).hexdigest()
            size = artifact.stat().st_size
            row = {**entry, "format": name, "file": FORMATS[name], "sha256": sha256, "size_bytes": size}
            manifest["artifacts"].append(row)
        (path / "manifest.json").write_text(json.dumps(manifest))
        return Bundle.open(path)

    return make


def test_every_format_has_an_engine() -> None:
    assert {name for engine in ENGINES.values() for name in engine.formats} == set(FORMATS)


@pytest.mark.parametrize(
    ("formats", "engine"),
    [
        (("onnx",), "onnxruntime"),
        (("ort",), "onnxruntime"),
        (("tflite",), "litert"),
        (("executorch",), "executorch"),
        (("executorch", "tflite"), "litert"),
        (("executorch", "tflite", "onnx"), "onnxruntime"),
    ],
    ids=str,
)
def test_default_engine(formats: tuple[str, ...], engine: str, with_formats: WithFormats) -> None:
    bundle = with_formats(*formats)
    assert open_runner(bundle).engine == engine
    for name in formats:
        assert name in ENGINES[open_runner_for_format(bundle, name).engine].formats


def test_default_engine_is_one_that_is_installed(with_formats: WithFormats, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = with_formats("onnx", "tflite", "executorch")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not ENGINES["onnxruntime"].is_installed
    assert open_runner(bundle).engine == "litert"
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert open_runner(bundle).engine == "executorch"


def test_with_none_installed_the_first_says_what_to_type(
    with_formats: WithFormats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with (
        pytest.raises(MissingDependencyError, match=r"pip install 'xformer-mobile\[run\]'"),
        open_runner(with_formats("onnx")),
    ):
        pass


def test_an_engine_that_is_asked_for_takes_the_format_that_is_there(with_formats: WithFormats) -> None:
    bundle = with_formats("onnx", "tflite")
    assert open_runner(bundle, "litert").path.name == "model.tflite"  # type: ignore[attr-defined]
    assert open_runner(bundle, "onnxruntime").path.name == "model.onnx"  # type: ignore[attr-defined]
    assert open_runner(with_formats("ort"), "onnxruntime").path.name == "model.ort"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("litert", "has no tflite artifact; it has onnx"),
        ("coreml", "has no coreml artifact; it has onnx"),
        ("lite-rt", r"unknown engine 'lite-rt' \(did you mean 'litert'\?\); valid: onnxruntime, onnxrun"),
    ],
    ids=["litert", "coreml", "unknown"],
)
def test_an_engine_that_has_nothing_to_run(engine: str, message: str, with_formats: WithFormats) -> None:
    with pytest.raises(UsageError, match=message):
        open_runner(with_formats("onnx"), engine)


def test_xnnpack_of_onnx_runtime_is_not_in_this_build(call: Call, make_bundle: MakeBundle, tmp_path: Path) -> None:
    """It says so, and does not fall back silently."""
    from PIL import Image

    Image.fromarray(golden_picture(0, ImageSize(64, 64))[0]).save(tmp_path / "picture.png")
    arguments = [make_bundle("classify"), tmp_path / "picture.png", "--engine", "onnxruntime-xnnpack", "--quiet"]
    status, out, err = call("predict", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("xformer-predict: error: this build of ONNX Runtime has no XnnpackExecutionProvider; it has")
    assert err.endswith("--engine onnxruntime runs the same file\n")
    with pytest.raises(UnavailableError), open_runner(Bundle.open(make_bundle("classify")), "onnxruntime-xnnpack"):
        pass
