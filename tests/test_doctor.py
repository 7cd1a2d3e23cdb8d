"""``xformer-doctor``: what works is said to work, what is missing or broken is named, with what to type."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from tests.conftest import Call
from xformer_export.formats import CONVERTERS
from xformer_mobile.artifact import FORMATS
from xformer_mobile.cli import doctor
from xformer_mobile.runners import ENGINES

CAPABILITY = {
    "type": "object",
    "required": ["name", "works", "problem"],
    "properties": {
        "name": {"type": "string"},
        "works": {"type": "boolean"},
        "problem": {"type": ["string", "null"]},
        "install": {"type": "string", "pattern": r"^pip install 'xformer-mobile\[\w+\]'$"},
        "file": {"enum": list(FORMATS.values())},
        "formats": {"type": "array", "items": {"enum": list(FORMATS)}},
        "note": {"type": "string"},
    },
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "required": ["machine", "export", "run", "other", "packages"],
    "properties": {
        "machine": {
            "type": "object",
            "required": ["python", "system", "machine"],
            "additionalProperties": {"type": "string"},
        },
        "export": {"type": "array", "items": CAPABILITY},
        "run": {"type": "array", "items": CAPABILITY},
        "other": {"type": "array", "items": CAPABILITY},
        "packages": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "installed", "tested", "in_range"],
                "properties": {
                    "name": {"type": "string"},
                    "installed": {"type": ["string", "null"]},
                    "tested": {"type": "string"},
                    "in_range": {"type": ["boolean", "null"]},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
"""What ``--json`` prints."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """What the command says of this machine: in a process of its own, as it imports everything there is."""
    code = "from xformer_mobile.cli import doctor_main; doctor_main()"
    done = subprocess.run([sys.executable, "-c", code, "--json"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is quick to import."""
    monkeypatch.setattr(doctor, "EXPORTS", (doctor.Capability("onnx", "onnx", ("onnx", "onnxsim")),))
    monkeypatch.setattr(doctor, "RUNS", (doctor.Capability("onnxruntime", "run", ("onnxruntime",)),))
    monkeypatch.setattr(doctor, "OTHERS", ())


def test_everything_that_can_work_works_here(document: dict[str, Any]) -> None:
    """The tests need all extras; ONNX Runtime's XNNPACK provider is in no package of PyPI."""
    jsonschema.validate(document, SCHEMA)
    rows = [row for kind in ("export", "run", "other") for row in document[kind]]
    failing = {row["name"]: row["problem"] for row in rows if not row["works"]}
    assert failing == {
        "onnxruntime-xnnpack": "this build of ONNX Runtime has no XNNPACK provider; those of Android and iOS have"
    }
    assert not any("install" in row for row in rows)


def test_every_format_and_engine_is_examined(document: dict[str, Any]) -> None:
    assert {row["name"]: row["file"] for row in document["export"]} == FORMATS
    assert {row["name"]: row["formats"] for row in document["run"]} == {
        name: list(engine.formats) for name, engine in ENGINES.items()
    }
    assert {row.name: row.extra for row in doctor.EXPORTS} == {name: row.extra for name, row in CONVERTERS.items()}


def test_every_package_of_an_extra_is_listed(document: dict[str, Any]) -> None:
    packages = {row["name"]: row for row in document["packages"]}
    assert {"torch", "onnx", "coremltools", "litert-torch", "executorch", "numpy", "pycocotools"} <= packages.keys()
    assert not {"pytest", "mypy", "xformer-mobile"} & packages.keys()
    assert all(row["in_range"] for row in packages.values())
    assert packages["numpy"]["installed"] == importlib.metadata.version("numpy")


@pytest.mark.usefixtures("few")
def test_what_is_missing_is_named_with_what_to_type(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    status, out, _ = call("doctor", "--json")
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    assert status == 0
    (row,) = document["export"]
    assert (row["works"], row["problem"]) == (False, "onnxsim is not installed")
    assert row["install"] == "pip install 'xformer-mobile[onnx]'"
    assert document["run"][0]["works"]
    status, out, err = call("doctor")
    assert (status, err) == (0, "")
    assert "onnxsim is not installed: pip install 'xformer-mobile[onnx]'" in out


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (
            "raise OSError('libsim.so: cannot open shared object file')",
            "onnxsim is installed and can't be imported: OSError: libsim.so: cannot open shared object file",
        ),
        (
            "import os\nos.write(1, b'loud')\n1 / 0",
            "onnxsim is installed and can't be imported: ZeroDivisionError: division by zero",
        ),
        ("import no_such_module", "no_such_module is not installed"),
        ("raise ModuleNotFoundError('reinstall it')", "onnxsim is not installed"),
    ],
    ids=["library", "code", "its dependency", "without a name"],
)
def test_what_is_broken_is_named(
    code: str, problem: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxsim.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxsim", raising=False)
    status, out, err = call("doctor", "--json")
    (row,) = json.loads(out)["export"]
    assert (status, err, row["problem"]) == (0, "", problem)
    assert ("install" in row) is problem.endswith("is not installed")


@pytest.mark.usefixtures("few")
def test_versions_outside_of_the_tested_range(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def other(name: str) -> str:
        if name == "onnxsim":
            raise importlib.metadata.PackageNotFoundError(name)
        return "99.1" if name == "onnxruntime" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", other)
    status, out, _ = call("doctor")
    assert status == 0
    lines = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    assert "99.1" in lines["onnxruntime"]
    assert "not tested" in lines["onnxruntime"]
    assert "not installed" in lines["onnxsim"]
    assert "ok" in lines["numpy"]
    packages = {row["name"]: row for row in json.loads(call("doctor", "--json")[1])["packages"]}
    assert [packages[name]["in_range"] for name in ("onnxruntime", "onnxsim", "numpy")] == [False, None, True]


@pytest.mark.usefixtures("few")
def test_a_provider_that_the_build_has_is_no_problem(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    ort = ModuleType("onnxruntime")
    ort.get_available_providers = lambda: ["XnnpackExecutionProvider"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime", ort)
    monkeypatch.setattr(doctor, "RUNS", (doctor.Capability("onnxruntime-xnnpack", "run", ("onnxruntime",)),))
    assert json.loads(call("doctor", "--json")[1])["run"][0]["works"]
