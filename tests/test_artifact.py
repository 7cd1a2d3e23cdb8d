"""Bundles: what an export writes is read back whole; whatever else is found there is refused in one line."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import xformer_mobile
from xformer_mobile import artifact
from xformer_mobile.artifact import FORMATS, MANIFEST, SCHEMA_VERSION, Bundle, manifest_bytes
from xformer_mobile.errors import BundleError, UsageError
from xformer_mobile.patterns import golden_picture
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.preprocess import Fit
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import IMAGENET_MEAN, IMAGENET_STD, TASKS, ImageSize, ModelConfig
from xformer_mobile.weights import checkpoint_bytes
from xformer_mobile.zoo import count_macs, count_parameters, untrained_model

SIZE = ImageSize(64, 64)
SCHEMA = Path(xformer_mobile.__file__).parent / "schemas" / "manifest.schema.json"

Manifest = dict[str, Any]
MakeBundle = Callable[[str], Path]


def read_manifest(bundle: Path) -> Manifest:
    manifest: Manifest = json.loads((bundle / MANIFEST).read_text("utf-8"))
    return manifest


def write_manifest(bundle: Path, manifest: Any) -> None:
    (bundle / MANIFEST).write_text(json.dumps(manifest), "utf-8")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def use(path: Path) -> Bundle:
    """Open a bundle and ask for all that it holds."""
    bundle = Bundle.open(path)
    for format in bundle.formats:
        assert bundle.artifact(format).path.is_file()
    postprocess = bundle.postprocess()
    side = (bundle.image_size.width, bundle.image_size.height)
    for case in bundle.golden():
        postprocess(case.outputs, Fit(side, side, (0, 0), side))
    return bundle


def refusal(path: Path) -> str:
    """The bundle is refused; returns the message, which is one line and says where."""
    with pytest.raises(BundleError) as caught:
        use(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 1000
    return message


@pytest.fixture
def copy_bundle(make_bundle: MakeBundle, tmp_path: Path) -> MakeBundle:
    """Like make_bundle, a copy to change."""

    def make(task: str) -> Path:
        return shutil.copytree(make_bundle(task), tmp_path / task)

    return make


# ---- what an export writes -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_manifest_follows_the_schema(make_bundle: MakeBundle, task: str) -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(read_manifest(make_bundle(task)), schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("task", TASKS)
def test_manifest_that_kotlin_and_swift_start_from_is_one(tmp_path: Path, task: str) -> None:
    shutil.copy(Path(__file__).parent / "golden/manifests" / f"{task}.json", tmp_path / MANIFEST)
    assert read_manifest(tmp_path)["model"]["task"] == task


@pytest.mark.parametrize("task", TASKS)
def test_manifest_describes_the_model(make_bundle: MakeBundle, task: str) -> None:
    config = ModelConfig.create(task, "xformer_xxs", image_size=SIZE)
    model = untrained_model(config)
    manifest = read_manifest(make_bundle(task))
    assert manifest["schema_version"] == SCHEMA_VERSION
    assert manifest["generator"] == {"name": "xformer-mobile", "version": xformer_mobile.__version__}
    assert manifest["model"] == {
        "task": task,
        "variant": "xformer_xxs",
        "num_classes": TASKS[task].num_classes,
        "labels": list(config.labels),
        "parameters": count_parameters(model),
        "macs": count_macs(model),
        "weights": {
            "source": "untrained",
            "sha256": hashlib.sha256(checkpoint_bytes(model)).hexdigest(),
            "seed": 0,
        },
    }
    assert manifest["input"]["shape"] == [1, 64, 64, 3]
    assert manifest["input"]["resize"]["rule"] == TASKS[task].resize_rule
    assert manifest["input"]["normalization"] == {
        "in_graph": True,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
    }
    assert [entry["format"] for entry in manifest["artifacts"]] == ["onnx"]
    assert manifest["parity"]["onnx"]["passed"] is True


@pytest.mark.parametrize("task", TASKS)
def test_manifest_gives_back_what_was_written(make_bundle: MakeBundle, task: str) -> None:
    bundle = Bundle.open(make_bundle(task))
    config = ModelConfig.create(task, "xformer_xxs", image_size=SIZE)
    assert (bundle.task, bundle.labels, bundle.image_size) == (config.task, config.labels, SIZE)
    assert bundle.output_shapes == config.output_shapes()
    assert list(bundle.output_shapes) == list(TASKS[task].outputs)
    assert bundle.resize_rule == TASKS[task].resize_rule
    assert bundle.postprocess() == Postprocess.of(config)
    assert bundle.formats == ("onnx",)
    assert bundle.precision == "fp32"
    assert bundle.is_untrained


@pytest.mark.parametrize("task", TASKS)
def test_every_file_is_in_the_manifest_with_its_sha256(make_bundle: MakeBundle, task: str) -> None:
    bundle = make_bundle(task)
    manifest = read_manifest(bundle)
    stated = {entry["file"]: entry["sha256"] for entry in (*manifest["artifacts"], manifest["report"])}
    for case in manifest["golden"]:
        for entry in (case["input"], *case["outputs"].values()):
            stated[entry["file"]] = entry["sha256"]
    found = {
        path.relative_to(bundle).as_posix(): sha256(path)
        for path in bundle.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    assert stated == found
    assert manifest["artifacts"][0]["size_bytes"] == (bundle / "model.onnx").stat().st_size
    assert len(stated) == 2 + len(manifest["golden"]) * (1 + len(TASKS[task].outputs))


@pytest.mark.parametrize("task", TASKS)
def test_artifact(make_bundle: MakeBundle, task: str) -> None:
    path = make_bundle(task)
    found = Bundle.open(path).artifact("onnx")
    assert found.path == path / FORMATS["onnx"]
    assert (found.sha256, found.size_bytes) == (sha256(found.path), found.path.stat().st_size)
    assert found.requires == {"opset": 20}
    assert found.tools["onnx"] == onnx.__version__


def test_format_that_the_bundle_lacks(make_bundle: MakeBundle) -> None:
    with pytest.raises(UsageError, match="has no tflite artifact; it has onnx"):
        Bundle.open(make_bundle("classify")).artifact("tflite")


@pytest.mark.parametrize("task", TASKS)
def test_golden_cases_are_the_reference_models(make_bundle: MakeBundle, task: str) -> None:
    cases = Bundle.open(make_bundle(task)).golden()
    assert [case.name for case in cases] == ["000", "001", "002"]
    with TorchRunner(untrained_model(ModelConfig.create(task, "xformer_xxs", image_size=SIZE))) as runner:
        for index, case in enumerate(cases):
            np.testing.assert_array_equal(case.image, golden_picture(index, SIZE))
            expected = runner.run(case.image)
            assert case.outputs.keys() == expected.keys()
            for name, values in case.outputs.items():
                assert values.dtype == np.float32
                np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_artifacts_own_metadata_agrees(make_bundle: MakeBundle, task: str) -> None:
    manifest = read_manifest(make_bundle(task))
    model = onnx.load(make_bundle(task) / "model.onnx")
    stated = {entry.key: entry.value for entry in model.metadata_props}
    assert stated["task"] == task
    assert stated["variant"] == "xformer_xxs"
    assert json.loads(stated["labels"]) == manifest["model"]["labels"]
    assert json.loads(stated["input"]) == manifest["input"]
    assert json.loads(stated["weights"]) == manifest["model"]["weights"]
    assert stated["generator"] == f"xformer-mobile {xformer_mobile.__version__}"
    assert [value.name for value in model.graph.input] == [manifest["input"]["name"]]
    assert [value.name for value in model.graph.output] == [output["name"] for output in manifest["outputs"]]


@pytest.mark.parametrize("task", TASKS)
def test_writing_the_manifest_again_gives_the_same_bytes(make_bundle: MakeBundle, task: str) -> None:
    content = (make_bundle(task) / MANIFEST).read_bytes()
    assert manifest_bytes(json.loads(content)) == content


def test_writing_a_manifest_that_is_none_is_refused(make_bundle: MakeBundle) -> None:
    manifest = read_manifest(make_bundle("classify"))
    manifest["precision"] = "fp8"
    with pytest.raises(BundleError, match="at precision: 'fp8' is not one of"):
        manifest_bytes(manifest)


# ---- manifests that are refused --------------------------------------------------------------------------


def put(*path: str | int, to: Any) -> Callable[[Manifest], None]:
    """A change of a manifest: the node at that path becomes ``to``."""

    def change(manifest: Manifest) -> None:
        *parents, last = path
        node: Any = manifest
        for key in parents:
            node = node[key]
        node[last] = to

    return change


def drop(*path: str | int) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        *parents, last = path
        node: Any = manifest
        for key in parents:
            node = node[key]
        del node[last]

    return change


def twice(manifest: Manifest) -> None:
    manifest["artifacts"] *= 2


def same_outputs(manifest: Manifest) -> None:
    manifest["outputs"] *= 2


ARTIFACT_FILE = ("artifacts", 0, "file")
GOLDEN_FILE = ("golden", 0, "input", "file")
BATCH = put("outputs", 0, "shape", 0, to=2)

BAD_MANIFESTS: dict[str, tuple[str, Callable[[Manifest], None], str]] = {
    # paths
    "path upwards": ("classify", put(*ARTIFACT_FILE, to="../model.onnx"), "artifacts/0/file"),
    "path upwards inside": ("classify", put(*ARTIFACT_FILE, to="golden/../../model.onnx"), "artifacts/0/file"),
    "golden path upwards": ("classify", put(*GOLDEN_FILE, to="../classify/golden/000.png"), "golden/0/input/file"),
    "absolute path": ("classify", put(*ARTIFACT_FILE, to="/etc/passwd"), "artifacts/0/file"),
    "path with backslashes": ("classify", put(*ARTIFACT_FILE, to="golden\\000.png"), "artifacts/0/file"),
    "path of a drive": ("classify", put(*ARTIFACT_FILE, to="C:model.onnx"), "artifacts/0/file"),
    "hidden file": ("classify", put(*ARTIFACT_FILE, to=".model.onnx"), "artifacts/0/file"),
    "hidden directory": ("classify", put(*ARTIFACT_FILE, to="golden/.hidden/model.onnx"), "artifacts/0/file"),
    "empty path": ("classify", put(*ARTIFACT_FILE, to=""), "artifacts/0/file"),
    "empty part": ("classify", put(*ARTIFACT_FILE, to="golden//000.png"), "artifacts/0/file"),
    "path with NUL": ("classify", put(*ARTIFACT_FILE, to="model\0.onnx"), "artifacts/0/file"),
    "path and a newline": ("classify", put(*ARTIFACT_FILE, to="model.onnx\n"), "artifacts/0/file"),
    "long path": ("classify", put(*ARTIFACT_FILE, to="m" * 300), "artifacts/0/file"),
    "path to a directory": ("classify", put(*ARTIFACT_FILE, to="golden"), "golden is not a file"),
    "path to nothing": ("classify", put(*ARTIFACT_FILE, to="other.onnx"), "No such file"),
    "path to another file": ("classify", put(*ARTIFACT_FILE, to="golden/000.png"), "is not the file that"),
    # sums
    "another sha256": ("classify", put("artifacts", 0, "sha256", to="0" * 64), "not 000000000000...; it was changed"),
    "another golden sha256": ("classify", put("golden", 0, "input", "sha256", to="0" * 64), "is not the file that"),
    "short sha256": ("classify", put("artifacts", 0, "sha256", to="00"), "artifacts/0/sha256"),
    "sha256 in capitals": ("classify", put("artifacts", 0, "sha256", to="A" * 64), "artifacts/0/sha256"),
    # versions
    "newer major version": ("classify", put("schema_version", to="2.0"), "this version reads 1.x: upgrade"),
    "older major version": ("classify", put("schema_version", to="0.9"), "has schema version 0.9"),
    "version no number": ("classify", put("schema_version", to="one"), "at schema_version"),
    "version no text": ("classify", put("schema_version", to=1.0), "at schema_version"),
    "no version": ("classify", drop("schema_version"), "'schema_version' is a required property"),
    # the model
    "no model": ("classify", drop("model"), "'model' is a required property"),
    "unknown task": ("classify", put("model", "task", to="caption"), "at model/task: 'caption' is not one of"),
    "another task": ("classify", put("model", "task", to="segment"), "contradicts itself"),
    "too few labels": ("classify", drop("model", "labels", 0), "999 labels for 1000 classes"),
    "another number of classes": ("detect", put("model", "num_classes", to=81), "80 labels for 81 classes"),
    "no labels": ("classify", put("model", "labels", to=[]), "at model/labels"),
    "label no text": ("classify", put("model", "labels", 7, to=7), "at model/labels/7"),
    "label of two lines": ("classify", put("model", "labels", 7, to="a\nb"), "label 7 is 'a\\nb'"),
    "label that moves the cursor": ("classify", put("model", "labels", 7, to="\x1b[2J"), "label 7"),
    "label that can't be encoded": ("classify", put("model", "labels", 7, to="\ud800"), "label 7"),
    "unknown weights": ("classify", put("model", "weights", "source", to="found"), "at model/weights/source"),
    # input and outputs
    "input size off the grid": ("classify", put("input", "shape", 1, to=100), "at input/shape/1"),
    "input size of zero": ("classify", put("input", "shape", 1, to=0), "at input/shape/1"),
    "input size no integer": ("classify", put("input", "shape", 1, to=64.0), "at input/shape/1"),
    "input of two images": ("classify", put("input", "shape", 0, to=2), "at input/shape/0"),
    "input in BGR": ("classify", put("input", "color", to="BGR"), "at input/color"),
    "input of floats": ("classify", put("input", "dtype", to="float32"), "at input/dtype"),
    "unknown rule": ("classify", put("input", "resize", "rule", to="stretch"), "at input/resize/rule"),
    "class map of a letterbox": (
        "segment",
        put("input", "resize", "rule", to="letterbox"),
        "class maps are for the rule 'resize', not 'letterbox'",
    ),
    "no outputs": ("classify", put("outputs", to=[]), "at outputs"),
    "outputs of one name": ("classify", same_outputs, "two outputs have one name"),
    "output of another name": ("classify", put("outputs", 0, "name", to="scores"), "no output logits of rank 2"),
    "output of another rank": ("segment", put("outputs", 0, "shape", to=[1, 19]), "no output logits of rank 4"),
    "output of other classes": ("segment", put("outputs", 0, "shape", 1, to=20), "no output logits of rank 4"),
    "output for two images": ("classify", BATCH, "an output is for more than one image"),
    "detector's output missing": ("detect", drop("outputs", 1), "no output stride16"),
    "detector's output of other channels": ("detect", put("outputs", 1, "shape", 1, to=254), "no output stride16"),
    # postprocessing
    "no postprocess": ("classify", drop("postprocess"), "'postprocess' is a required property"),
    "no top_k": ("classify", drop("postprocess", "top_k"), "its postprocess lacks top_k"),
    "top_k of zero": ("classify", put("postprocess", "top_k", to=0), "at postprocess/top_k"),
    "top_k no integer": ("classify", put("postprocess", "top_k", to=5.0), "at postprocess/top_k"),
    "no palette": ("segment", drop("postprocess", "palette"), "its postprocess lacks palette"),
    "too few colors": ("segment", drop("postprocess", "palette", 0), "18 colors for 19 classes"),
    "color out of range": ("segment", put("postprocess", "palette", 0, 0, to=256), "at postprocess/palette/0/0"),
    "no anchors": ("detect", drop("postprocess", "anchors"), "lacks anchors"),
    "no strides": ("detect", drop("postprocess", "strides"), "lacks"),
    "no score threshold": ("detect", drop("postprocess", "score_threshold"), "lacks"),
    "no IoU threshold": ("detect", drop("postprocess", "iou_threshold"), "lacks"),
    "no limit": ("detect", drop("postprocess", "max_detections"), "lacks"),
    "two scales of anchors": ("detect", drop("postprocess", "anchors", 0), "3 strides for 2 scales of anchors"),
    "two anchors at a scale": ("detect", drop("postprocess", "anchors", 0, 0), "no output stride8 of 2 anchors"),
    "anchor of three": ("detect", put("postprocess", "anchors", 0, 0, to=[1, 2, 3]), "at postprocess/anchors/0/0"),
    "anchor of zero": ("detect", put("postprocess", "anchors", 0, 0, 0, to=0), "at postprocess/anchors/0/0/0"),
    "huge anchor": ("detect", put("postprocess", "anchors", 0, 0, 0, to=10**400), "at postprocess/anchors/0/0/0"),
    "strides of one name": ("detect", put("postprocess", "strides", to=[8, 16, 64]), "no output stride64"),
    "stride no integer": ("detect", put("postprocess", "strides", to=[8.0, 16, 32]), "at postprocess/strides/0"),
    "nothing to decode": (
        "detect",
        lambda manifest: manifest["postprocess"].update(anchors=[], strides=[]),
        "0 strides for 0 scales",
    ),
    "threshold above one": ("detect", put("postprocess", "score_threshold", to=1.5), "postprocess/score_threshold"),
    # the rest
    "unknown precision": ("classify", put("precision", to="fp8"), "at precision"),
    "unknown format": ("classify", put("artifacts", 0, "format", to="keras"), "at artifacts/0/format"),
    "a format twice": ("classify", twice, "two artifacts have one format"),
    "no artifacts": ("classify", put("artifacts", to=[]), "at artifacts"),
    "golden output missing": ("detect", drop("golden", 0, "outputs", "stride16"), "lack 'stride16'"),
    "meaning no text": ("classify", put("outputs", 0, "meaning", to=3), "at outputs/0/meaning"),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_bad_manifest_is_refused(copy_bundle: MakeBundle, name: str) -> None:
    task, change, problem = BAD_MANIFESTS[name]
    bundle = copy_bundle(task)
    manifest = read_manifest(bundle)
    change(manifest)
    write_manifest(bundle, manifest)
    assert problem in refusal(bundle)


BAD_TEXTS = {
    "empty": (b"", "is not JSON"),
    "no JSON": (b"{", "is not JSON"),
    "no text": (b"\xff\xfe\xfd", "is not JSON"),
    "list": (b"[]", "at its top level: [] is not of type 'object'"),
    "number": (b"1", "is not of type 'object'"),
    "null": (b"null", "is not of type 'object'"),
    "too deep to read": (b"[" * 100_000, "is not JSON"),
    "NaN": (b'{"schema_version": NaN}', "it has NaN"),
    "infinite": (b'{"schema_version": -Infinity}', "it has -Infinity"),
    "number of too many digits": (b'{"schema_version": 1' + b"0" * 10_000 + b"}", "is not JSON"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_bad_text_for_a_manifest_is_refused(tmp_path: Path, name: str) -> None:
    content, problem = BAD_TEXTS[name]
    (tmp_path / MANIFEST).write_bytes(content)
    assert problem in refusal(tmp_path)


def test_manifest_too_deep_to_show_is_refused(tmp_path: Path) -> None:
    """Somewhere below Python's limit a manifest can still be read, but not be printed in a message."""
    for depth in range(600, 1001):
        (tmp_path / MANIFEST).write_bytes(b'{"schema_version": ' + b"[" * depth + b"]" * depth + b"}")
        assert "manifest.json is not" in refusal(tmp_path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("field", ["score_threshold", "iou_threshold"])
def test_numbers_that_are_none_are_refused(copy_bundle: MakeBundle, number: str, field: str) -> None:
    bundle = copy_bundle("detect")
    text = (bundle / MANIFEST).read_text("utf-8")
    start = text.index(f'"{field}": ') + len(f'"{field}": ')
    (bundle / MANIFEST).write_text(text[:start] + number + text[text.index(",", start) :], "utf-8")
    refusal(bundle)


def test_huge_manifest_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / MANIFEST).open("wb") as file:
        file.truncate(16 * 2**20 + 1)  # a hole: it takes no space
    monkeypatch.setattr(Path, "read_bytes", lambda _self: pytest.fail("read"))
    assert "a manifest is smaller" in refusal(tmp_path)


def test_unknown_fields_are_ignored(copy_bundle: MakeBundle) -> None:
    """A later minor version of the schema may add fields anywhere."""
    bundle = copy_bundle("detect")
    manifest = read_manifest(bundle)
    manifest["schema_version"] = "1.7"
    for node in (manifest, manifest["model"], manifest["input"], manifest["outputs"][0], manifest["artifacts"][0]):
        node["later"] = {"lines": "two\nlines", "list": [1, None]}
    write_manifest(bundle, manifest)
    assert use(bundle).task == "detect"


# ---- files that are refused ------------------------------------------------------------------------------


def edit_golden(bundle: Path, content: bytes, *, output: str | None = None) -> None:
    """Change a golden file, and the manifest with it."""
    manifest = read_manifest(bundle)
    case = manifest["golden"][0]
    entry = case["outputs"][output] if output else case["input"]
    (bundle / entry["file"]).write_bytes(content)
    entry["sha256"] = sha256(bundle / entry["file"])
    write_manifest(bundle, manifest)


def grey_png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def truncate(bundle: Path) -> None:
    content = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(content[:-1])


def flip(bundle: Path) -> None:
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)


def move_out(bundle: Path) -> None:
    """The right content, but it lies beside the bundle."""
    (bundle / "model.onnx").rename(bundle.parent / "outside.onnx")
    (bundle / "model.onnx").symlink_to(bundle.parent / "outside.onnx")


def move_golden_out(bundle: Path) -> None:
    (bundle / "golden").rename(bundle.parent / "outside")
    (bundle / "golden").symlink_to("../outside")


def link_to_itself(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").symlink_to("model.onnx")


def manifest_to_directory(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).mkdir()


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (shutil.rmtree, "no such directory; xformer-export makes one"),
    "no manifest": (lambda bundle: (bundle / MANIFEST).unlink(), "has no manifest.json"),
    "manifest a directory": (manifest_to_directory, "has no manifest.json"),
    "artifact missing": (lambda bundle: (bundle / "model.onnx").unlink(), "No such file"),
    "artifact truncated": (truncate, "it was changed, truncated or exchanged"),
    "artifact changed": (flip, "it was changed, truncated or exchanged"),
    "artifact outside": (move_out, "leads out of the bundle"),
    "artifact a link to itself": (link_to_itself, "model.onnx"),
    "golden outside": (move_golden_out, "leads out of the bundle"),
    "golden missing": (lambda bundle: shutil.rmtree(bundle / "golden"), "No such file"),
    "golden changed": (lambda bundle: (bundle / "golden/000.png").write_bytes(grey_png(64, 64)), "was changed"),
    "golden input of another size": (lambda bundle: edit_golden(bundle, grey_png(64, 32)), "is not 64x64"),
    "golden input no picture": (lambda bundle: edit_golden(bundle, b"no picture"), "golden input: can't use picture"),
    "golden output short": (
        lambda bundle: edit_golden(bundle, bytes(4 * 999), output="logits"),
        "does not have the shape (1, 1000)",
    ),
    "golden output long": (
        lambda bundle: edit_golden(bundle, bytes(4 * 1001), output="logits"),
        "does not have the shape (1, 1000)",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused(copy_bundle: MakeBundle, name: str) -> None:
    change, problem = BAD_FILES[name]
    bundle = copy_bundle("classify")
    change(bundle)
    assert problem in refusal(bundle)


def test_pipe_is_refused_before_it_is_read(copy_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = copy_bundle("classify")
    (bundle / "model.onnx").unlink()
    os.mkfifo(bundle / "model.onnx")
    monkeypatch.setattr(artifact, "tree_sha256", lambda _path: pytest.fail("read"))  # which would wait for ever
    assert "is not a file" in refusal(bundle)


def test_output_whose_size_overflows_is_refused(copy_bundle: MakeBundle) -> None:
    """19 * 2**62 * 16 values are zero in 64 bits: as many as an empty golden file has."""
    bundle = copy_bundle("segment")
    manifest = read_manifest(bundle)
    manifest["outputs"][0]["shape"] = [1, 19, 2**62, 16]
    write_manifest(bundle, manifest)
    edit_golden(bundle, b"", output="logits")
    assert "does not have the shape" in refusal(bundle)


def test_links_that_stay_inside_are_fine(copy_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = copy_bundle("classify")
    (bundle / "model.onnx").rename(bundle / "real.onnx")
    (bundle / "model.onnx").symlink_to("real.onnx")
    (tmp_path / "link").symlink_to(bundle)
    use(bundle)
    use(tmp_path / "link")


@pytest.mark.parametrize("call", ["read_bytes", "stat", "open"])
def test_files_that_may_not_be_read_are_refused(
    copy_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    # Emulated: the superuser may read everything.
    bundle = copy_bundle("classify")
    real = getattr(Path, call)

    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        if bundle in (self, *self.parents):
            raise PermissionError(13, "Permission denied", os.fspath(self))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, call, refuse)
    assert "Permission denied" in refusal(bundle)


# ---- drawn changes ---------------------------------------------------------------------------------------


def nodes(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every node of a manifest; of long lists, the first two items' and the last one's."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, child in value.items():
            found += nodes(child, (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            found += nodes(value[index], (*path, index))
    return found


DELETE = object()

NUMBERS = (0, 1, -1, 2, 3, 5, 64, 255, 2**31, 2**63, 10**400, 0.5, -0.5, 1.0, 64.0, 1e30, 1e300, np.nan, np.inf)
TEXTS = ("", "x", "1", "1.0", "0" * 64, "../x", "a\nb", "\0", "\ud800", "golden", "model.onnx", MANIFEST)
NAMES = ("logits", "stride8", "classify", "detect", "segment", "letterbox", "coreml", "int8")
LISTS: tuple[Any, ...] = ([], [1], [None], [[]], [[[]]], [1, 64, 64, 3], [[1, 2], [3, 4]])
OBJECTS: tuple[Any, ...] = ({}, {"a": 1}, {"file": "golden", "sha256": "0" * 64})
REPLACEMENTS = st.sampled_from((DELETE, None, True, False, *NUMBERS, *TEXTS, *NAMES, *LISTS, *OBJECTS))


@pytest.mark.parametrize("task", TASKS)
def test_any_changed_node_is_refused_or_harmless(
    make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory, task: str
) -> None:
    bundle = shutil.copytree(make_bundle(task), tmp_path_factory.mktemp("changed") / task)
    whole = read_manifest(bundle)

    @settings(deadline=None, derandomize=True, max_examples=150)
    @given(path=st.sampled_from(nodes(whole)), value=REPLACEMENTS)
    def check(path: tuple[str | int, ...], value: Any) -> None:
        manifest = copy.deepcopy(whole)
        (drop(*path) if value is DELETE else put(*path, to=value))(manifest)
        write_manifest(bundle, manifest)
        try:
            use(bundle)
        except BundleError:
            refusal(bundle)

    check()
