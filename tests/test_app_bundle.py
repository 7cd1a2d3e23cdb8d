"""scripts/app_bundle.py: what of a bundle goes into an app."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from tests.conftest import MakeBundle
from xformer_mobile.artifact import Bundle


@pytest.fixture(scope="module")
def script() -> ModuleType:
    file = Path(__file__).parent.parent / "scripts/app_bundle.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bundle(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    """A bundle to be changed, with a second format and a file that the manifest does not name."""
    path = Path(shutil.copytree(make_bundle("classify"), tmp_path / "my-bundle"))
    manifest = json.loads((path / "manifest.json").read_text())
    (onnx,) = manifest["artifacts"]
    shutil.copyfile(path / onnx["file"], path / "model.pte")
    manifest["artifacts"].append({**onnx, "format": "executorch", "file": "model.pte"})
    manifest["parity"]["executorch"] = manifest["parity"]["onnx"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "notes.txt").write_text("mine")
    return path


def run(script: ModuleType, output: Path, *bundles: Path, formats: str = "onnx,tflite") -> Result:
    arguments = ["--format", formats, "--output", str(output), *map(str, bundles)]
    return CliRunner().invoke(script.command, arguments)


def refusal(result: Result) -> str:
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith("app_bundle: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_copies_what_the_app_runs(script: ModuleType, bundle: Path, tmp_path: Path) -> None:
    result = run(script, tmp_path / "assets", bundle)
    assert result.exit_code == 0, result.output
    copy = Bundle.open(tmp_path / "assets/my-bundle")
    assert copy.formats == ("onnx",)
    assert set(copy.manifest["parity"]) == {"onnx"}
    copy.artifact("onnx")
    assert len(copy.golden()) == len(Bundle.open(bundle).golden()) > 0
    names = {file.name for file in copy.path.iterdir()}
    assert "model.onnx" in names
    assert not names & {"model.pte", "notes.txt"}


def test_a_copy_is_replaced_and_kept_when_the_new_one_is_bad(script: ModuleType, bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "assets/my-bundle"
    copy.mkdir(parents=True)
    (copy / "old.txt").write_text("old")
    assert run(script, tmp_path / "assets", bundle).exit_code == 0
    assert not (copy / "old.txt").exists()
    (bundle / "model.onnx").write_bytes(b"other")
    assert "it was changed, truncated or exchanged" in refusal(run(script, tmp_path / "assets", bundle))
    Bundle.open(copy).artifact("onnx")


def test_an_artifact_that_was_not_verified_is_refused(script: ModuleType, bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    for parity in ({}, {"onnx": {**manifest["parity"]["onnx"], "passed": False}}):
        (bundle / "manifest.json").write_text(json.dumps({**manifest, "parity": parity}))
        assert "was not held to the reference model" in refusal(run(script, tmp_path / "assets", bundle))
    assert not (tmp_path / "assets/my-bundle").exists()


def test_a_bundle_without_a_format_of_the_app_is_refused(script: ModuleType, bundle: Path, tmp_path: Path) -> None:
    assert "the app runs tflite" in refusal(run(script, tmp_path / "assets", bundle, formats="tflite"))
    assert "tfilte" in refusal(run(script, tmp_path / "assets", bundle, formats="tfilte"))


@pytest.mark.parametrize("name", ["my bundle", "_mine", ".hidden", "b" * 65, "bündel"])
def test_a_name_that_the_app_does_not_list_is_refused(
    script: ModuleType, bundle: Path, tmp_path: Path, name: str
) -> None:
    other = bundle.rename(tmp_path / name)
    assert "the app does not list a bundle named" in refusal(run(script, tmp_path / "assets", other))
    assert not (tmp_path / "assets").exists()


def test_two_bundles_of_one_name_are_refused(script: ModuleType, bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "more/my-bundle"))
    assert "two bundles are named my-bundle" in refusal(run(script, tmp_path / "assets", bundle, other))
    assert not (tmp_path / "assets").exists()
