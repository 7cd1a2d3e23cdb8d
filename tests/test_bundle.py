"""What is around the converters: their logs beside the bundle, the report in it, and errors that say where to look."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from tests.conftest import Call, MakeBundle
from xformer_export import ExportRequest, build_bundle
from xformer_export.bundle import work_directory
from xformer_export.formats import CONVERTERS
from xformer_export.prepare import Converted, Options, Prepared
from xformer_mobile.artifact import Bundle
from xformer_mobile.errors import BundleError, ConversionError, OutputError
from xformer_mobile.files import tree_sha256
from xformer_mobile.spec import ImageSize

Prints = Callable[..., None]


@pytest.fixture
def prints(monkeypatch: pytest.MonkeyPatch) -> Prints:
    """Returns a function that puts a converter in a format's place: it prints something, and may raise."""

    def put(name: str, text: str, error: Exception | None = None) -> None:
        def convert(prepared: Prepared, options: Options, path: Path) -> Converted:
            os.write(1, text.encode())
            os.write(2, text.encode())
            if error is not None:
                raise error
            path.write_bytes(b"a model")
            return Converted({}, "uint8", "NHWC", {"ops": {"Conv": 3}})

        monkeypatch.setitem(CONVERTERS, name, replace(CONVERTERS[name], convert=convert, imports=()))

    return put


def _request(output: Path, *formats: str, **changes: object) -> ExportRequest:
    fields: dict[str, object] = {"variant": "xformer_xxs", "image_size": ImageSize(64, 64), "verify": False}
    return ExportRequest(formats, output=output, **{**fields, **changes})  # type: ignore[arg-type]


def test_what_converters_print_is_kept_beside_the_bundle(
    prints: Prints, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prints("onnx", "one.")
    prints("tflite", "two.")
    build_bundle(_request(tmp_path / "bundle", "onnx", "tflite"))
    assert capfd.readouterr() == ("", "")
    logs = {file.name: file.read_text() for file in work_directory(tmp_path / "bundle").iterdir()}
    assert logs == {"onnx.log": "one.one.", "tflite.log": "two.two."}
    assert {entry.name for entry in tmp_path.iterdir()} == {"bundle", "bundle.work"}


def test_nothing_is_left_where_nothing_was_printed(prints: Prints, tmp_path: Path) -> None:
    prints("onnx", "")
    build_bundle(_request(tmp_path / "bundle", "onnx"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_only_the_logs_of_those_that_print_are_left(prints: Prints, tmp_path: Path) -> None:
    prints("onnx", "one.")
    prints("tflite", "")
    build_bundle(_request(tmp_path / "bundle", "onnx", "tflite"))
    assert [file.name for file in work_directory(tmp_path / "bundle").iterdir()] == ["onnx.log"]


def test_an_error_says_where_the_log_is(prints: Prints, tmp_path: Path) -> None:
    prints("onnx", "a long story", ConversionError("the tool failed"))
    with pytest.raises(ConversionError) as caught:
        build_bundle(_request(tmp_path / "bundle", "onnx"))
    log = tmp_path / "bundle.work" / "onnx.log"
    assert str(caught.value) == f"the tool failed; what the converter printed is in {log}"
    assert log.read_text() == "a long story" * 2
    assert not (tmp_path / "bundle").exists()


def test_an_error_without_a_log_names_none(prints: Prints, tmp_path: Path) -> None:
    prints("onnx", "", ConversionError("the tool failed"))
    with pytest.raises(ConversionError, match=r"^the tool failed$"):
        build_bundle(_request(tmp_path / "bundle", "onnx"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_log_that_can_not_be_written(kind: str, prints: Prints, tmp_path: Path) -> None:
    """What is in its place stays."""
    work = work_directory(tmp_path / "bundle")
    if kind == "file":
        work.write_text("notes")
    else:
        (work / "onnx.log").mkdir(parents=True)
    prints("onnx", "one.")
    with pytest.raises(OutputError, match=r"can't write .*bundle\.work/onnx\.log"):
        build_bundle(_request(tmp_path / "bundle", "onnx"))
    assert not (tmp_path / "bundle").exists()
    assert work.read_text() == "notes" if kind == "file" else (work / "onnx.log").is_dir()


def test_debug_shows_what_converters_print(prints: Prints, call: Call, tmp_path: Path) -> None:
    prints("onnx", "a long story")
    arguments = ["--variant", "xformer_xxs", "--image-size", "64", "--no-verify", "--quiet"]
    status, out, err = call("export", *arguments, "--output", tmp_path / "shown", "--debug")
    assert (status, err) == (0, "a long story")
    assert out.startswith("a long story")
    assert [entry.name for entry in tmp_path.iterdir()] == ["shown"]
    status, out, err = call("export", *arguments, "--output", tmp_path / "kept")
    assert (status, err) == (0, "")
    assert "story" not in out
    assert (tmp_path / "kept.work" / "onnx.log").exists()


def test_the_error_of_a_command_is_one_line_with_the_log(prints: Prints, call: Call, tmp_path: Path) -> None:
    prints("onnx", "a long story", ConversionError("the tool failed"))
    arguments = ["--variant", "xformer_xxs", "--image-size", "64", "--output", tmp_path / "bundle"]
    status, out, err = call("export", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("xformer-export: error: the tool failed; what the converter printed is in ")
    assert err.endswith("bundle.work/onnx.log\n")


def test_formats_side_by_side_are_the_same(tmp_path: Path) -> None:
    """Bytes and manifest, and the steps of each format in their order."""
    told: list[tuple[str, str]] = []
    one = build_bundle(_request(tmp_path / "one" / "bundle", "onnx", "coreml"))

    def report(step: str, lane: str = "") -> None:
        told.append((lane, step))

    two = build_bundle(_request(tmp_path / "two" / "bundle", "onnx", "coreml", processes=2), report)
    assert tree_sha256(one.path) == tree_sha256(two.path)
    assert {(lane, step) for lane, step in told if lane} >= {
        ("coreml", "convert to coreml"),
        ("onnx", "convert to onnx"),
    }


# ---- the report --------------------------------------------------------------------------------------------


def test_the_report_is_described_in_the_manifest(make_bundle: MakeBundle) -> None:
    path = make_bundle("classify")
    stated = Bundle.open(path).manifest["report"]
    content = (path / stated["file"]).read_bytes()
    assert stated == {"file": "report.json", "sha256": hashlib.sha256(content).hexdigest()}
    graph = json.loads(content)["graphs"]["onnx"]
    assert graph["ops"]["MatMul"] == 9 * 10
    assert list(graph["ops"]) == sorted(graph["ops"])
    assert any("NNAPI" in line for line in graph["mobile_usability"])
    assert str(path.parent) not in content.decode()


def test_the_report_has_every_format(prints: Prints, tmp_path: Path) -> None:
    prints("onnx", "")
    prints("executorch", "")
    made = build_bundle(_request(tmp_path / "bundle", "onnx", "executorch"))
    document = json.loads((made.path / "report.json").read_text())
    jsonschema.validate(
        document, {"type": "object", "required": ["graphs"], "additionalProperties": {"type": "object"}}
    )
    assert document == {"graphs": {"onnx": {"ops": {"Conv": 3}}, "executorch": {"ops": {"Conv": 3}}}}


def test_what_a_converter_wrote_is_read_back(prints: Prints, tmp_path: Path) -> None:
    prints("tflite", "")
    with pytest.raises(BundleError, match=r"it is not a \.tflite file"):
        build_bundle(_request(tmp_path / "bundle", "tflite", verify=True))
    assert list(tmp_path.iterdir()) == []
