"""The commands as a person types them: output, exit status, and what happens when things go wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Call, MakeBundle
from xformer_export.formats import CONVERTERS
from xformer_export.prepare import Converted, Options, Prepared
from xformer_mobile import cli
from xformer_mobile.artifact import Bundle
from xformer_mobile.cli.common import progress
from xformer_mobile.patterns import golden_picture
from xformer_mobile.spec import TASKS, ImageSize, ModelConfig
from xformer_mobile.weights import save_checkpoint
from xformer_mobile.zoo import untrained_model

SMALL = ["--variant", "xformer_xxs", "--image-size", "64"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "picture.png"
    Image.fromarray(golden_picture(1, ImageSize(128, 192))[0]).save(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "trained.safetensors"
    config = ModelConfig.create(variant="xformer_xxs", image_size=ImageSize(64, 64), labels=["cat", "dog", "crane"])
    save_checkpoint(untrained_model(config, seed=7), path)
    return path


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


# ---- the main job -------------------------------------------------------------------------------------------


def test_export_predict_verify_a_trained_checkpoint(call: Call, checkpoint: Path, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    status, out, err = call("export", "--checkpoint", checkpoint, "--output", target)
    assert status == 0
    assert re.fullmatch(
        r"Stages: load the converters [\d.]+ s, prepare the model .*, put the bundle in place .* s\n", err
    )
    assert "xformer_xxs for classify: 3 classes" in out
    assert "top-1 agreement 100.00%" in out

    status, out, err = call("predict", target, photo)
    assert (status, err) == (0, "")
    assert "picture.png" in out
    assert {"cat", "dog", "crane"} <= set(out.split())

    status, out, err = call("verify", target, "--images", photo, "--checkpoint", checkpoint)
    assert (status, err) == (0, "")
    assert "passed" in out
    assert "1 pictures: images" in out
    assert "onnx: top-1 agreement 100.00%" in out


def test_export_in_json(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\ufeffcrane (bird)\n\ncrane (machine)\nKräne\n", "utf-8")
    target = tmp_path / "bundle"
    status, out, err = call("export", "--checkpoint", checkpoint, "--labels", labels, "--output", target, "--json")
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert document["bundle"] == str(target)
    assert document["manifest"] == json.loads((target / "manifest.json").read_text("utf-8"))
    assert document["manifest"]["model"]["labels"] == ["crane (bird)", "crane (machine)", "Kräne"]
    assert document["manifest"]["parity"]["onnx"]["passed"] is True


def test_ort_format_is_beside_onnx(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    status, out, err = call("export", "--checkpoint", checkpoint, "--ort-format", "--output", target, "--json")
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert [entry["file"] for entry in document["manifest"]["artifacts"]] == ["model.onnx", "model.ort"]
    assert document["manifest"]["parity"].keys() == {"onnx", "ort"}
    status, out, err = call("verify", target)
    assert (status, err) == (0, "")
    assert "ort: top-1 agreement 100.00%" in out


@pytest.fixture
def quick_converters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converters of every format that write a few bytes, so that only what is around them is tested."""

    def convert(prepared: Prepared, options: Options, path: Path) -> Converted:
        if path.suffix == ".mlpackage":
            path.mkdir()
            path /= "Manifest.json"
        path.write_text(f"{options.precision}, iOS {options.minimum_ios}, {options.backend}")
        return Converted({}, "uint8", "NHWC", {"ops": {"Conv": 1}})

    for name, row in CONVERTERS.items():
        monkeypatch.setitem(CONVERTERS, name, replace(row, convert=convert, imports=()))


@pytest.mark.usefixtures("quick_converters")
def test_all_formats_and_how_long_each_took(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", checkpoint, "--format", "all", "--no-verify", "--output", tmp_path / "bundle"]
    status, out, err = call("export", *arguments, "--minimum-ios", "17", "--backend", "coreml", "--json")
    document = json.loads(out)
    assert status == 0
    assert err == "note: Core ML runs fp32 on the CPU and GPU; --quantize fp16 lets it use the Neural Engine\n"
    assert list(document["seconds"]) == [
        "load the converters",
        "prepare the model",
        "run the reference model",
        "convert to onnx",
        "convert to coreml",
        "convert to tflite",
        "convert to executorch",
        "put the bundle in place",
    ]
    assert all(taken >= 0 for taken in document["seconds"].values())
    assert document["manifest"]["parity"] == {}
    assert (tmp_path / "bundle" / "model.pte").read_text() == "fp32, iOS 17, coreml"
    status, out, _ = call("export", *arguments, "--quiet")
    assert (status, out.count("not verified")) == (0, 8)


@pytest.mark.usefixtures("quick_converters")
def test_core_ml_by_itself_is_in_half_precision(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", checkpoint, "--no-verify", "--output", tmp_path / "bundle", "--json"]
    for formats, asked, precision in (
        ("coreml", [], "fp16"),
        ("coreml,onnx", [], "fp32"),
        ("tflite", ["fp16"], "fp16"),
    ):
        quantize = ["--quantize", *asked] if asked else []
        status, out, _ = call("export", *arguments, "--format", formats, *quantize)
        assert (status, json.loads(out)["manifest"]["precision"]) == (0, precision)


def test_without_checkpoint_verification_and_output(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle is named after its content, and says that it is untrained and was not verified."""
    monkeypatch.chdir(tmp_path)
    status, out, err = call("export", *SMALL, "--no-verify")
    assert status == 0
    assert "not verified" in out
    assert "drawn at random" in err
    (made,) = tmp_path.iterdir()
    assert made.name == "xformer_xxs-classify-64x64-fp32"
    assert Bundle.open(made).manifest["parity"] == {}


@pytest.mark.parametrize("task", TASKS)
def test_predict_saves_pictures_and_prints_one_json_document(
    task: str, call: Call, make_bundle: MakeBundle, photo: Path, tmp_path: Path
) -> None:
    status, out, err = call("predict", make_bundle(task), photo, photo, "--save", tmp_path / "out", "--json")
    document = json.loads(out)
    assert status == 0
    assert "untrained" in err
    assert document["weights"] == "untrained"
    assert document["engine"] == "onnxruntime"
    first, second = document["results"]
    assert (first["width"], first["height"]) == (192, 128)
    key = {"classify": "classes", "detect": "detections", "segment": "shares"}[task]
    assert first[key] == second[key]
    assert len(first["saved"]) == (2 if task == "segment" else 1)
    source = np.asarray(Image.open(photo).convert("RGB"))
    for file in (*first["saved"], *second["saved"]):
        with Image.open(file) as picture:
            assert picture.size[0] >= 192
            assert picture.size[1] >= 128
            if not file.endswith(".mask.png"):
                assert picture.mode == "RGB"
                if first[key]:
                    assert picture.size != (192, 128) or not np.array_equal(np.asarray(picture), source)
            else:
                assert picture.size == (192, 128)
                assert set(np.unique(np.asarray(picture))) == {entry["index"] for entry in first["shares"]}
    if task == "segment":
        assert sum(entry["share"] for entry in first["shares"]) == pytest.approx(1)


def test_predict_does_the_other_pictures_and_fails_in_the_end(
    call: Call, make_bundle: MakeBundle, photo: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:100])
    status, out, err = call("predict", make_bundle("classify"), broken, photo, "--json", "--quiet")
    document = json.loads(out)
    assert status == 1
    assert [Path(result["image"]).name for result in document["results"]] == ["picture.png"]
    assert len(document["errors"]) == 1
    assert err.startswith("xformer-predict: error: can't use picture")
    assert len(err.splitlines()) == 1


def test_verify_golden_in_json(call: Call, make_bundle: MakeBundle) -> None:
    status, out, _ = call("verify", make_bundle("segment"), "--json")
    document = json.loads(out)
    assert (status, document["passed"]) == (0, True)
    (artifact,) = document["artifacts"]
    assert artifact["parity"]["outputs"]["logits"]["relative_max"] <= 1e-4


def test_verify_of_one_format(call: Call, make_bundle: MakeBundle) -> None:
    status, out, _ = call("verify", make_bundle("classify"), "--format", "onnx", "--json")
    assert (status, [artifact["format"] for artifact in json.loads(out)["artifacts"]]) == (0, ["onnx"])
    status, _, err = call("verify", make_bundle("classify"), "--format", "tflite")
    assert (status, err) == (2, "xformer-verify: error: unknown format 'tflite'; valid: onnx\n")


def test_verify_untrained_bundle_on_own_pictures(call: Call, make_bundle: MakeBundle, photo: Path) -> None:
    status, out, _ = call("verify", make_bundle("detect"), "--images", photo.parent)
    assert status == 0
    assert "box agreement 100.00%" in out


def test_verify_fails_where_the_outputs_differ(call: Call, tmp_path: Path, make_bundle: MakeBundle) -> None:
    """The expected outputs are scaled by 1.05 and the manifest is made to fit: only the comparison can tell."""
    target = tmp_path / "bundle"
    shutil.copytree(make_bundle("classify"), target)
    manifest = json.loads((target / "manifest.json").read_text())
    stored = manifest["golden"][0]["outputs"]["logits"]
    values = np.frombuffer((target / stored["file"]).read_bytes(), "<f4") * np.float32(1.05)
    (target / stored["file"]).write_bytes(values.tobytes())
    stored["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()
    (target / "manifest.json").write_text(json.dumps(manifest))

    status, out, _ = call("verify", target)
    assert status == 1
    assert "MISSED: logits differs by" in out
    status, out, _ = call("verify", target, "--json")
    assert (status, json.loads(out)["passed"]) == (1, False)


# ---- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--image-size", "250"], 2, "nearest valid: 192x192 or 256x256"),
        (["--image-size", "huge"], 2, "write N or HEIGHTxWIDTH"),
        (["--format", "tfilte"], 2, "unknown format 'tfilte' (did you mean 'tflite'?)"),
        (["--format", "onnx,caffe"], 2, "unknown format 'caffe'"),
        (["--format", "coreml", "--minimum-ios", "14"], 2, "'14' is not one of '15', '16', '17', '18'"),
        (
            ["--format", "executorch", "--backend", "xnpack"],
            2,
            "unknown ExecuTorch backend 'xnpack' (did you mean 'xnn",
        ),
        (["--format", "tflite", "--ort-format"], 2, "--ort-format goes with --format onnx"),
        (["--quantize", "int3"], 2, "unknown quantization 'int3'"),
        (["--task", "pose"], 2, "unknown task 'pose'; valid: classify, detect, segment"),
        (["--variant", "xformer_xl"], 2, "unknown variant 'xformer_xl'"),
        (["--fromat", "onnx"], 2, "No such option '--fromat'"),
        (["surplus"], 2, "unexpected extra argument"),
        (["--checkpoint", "no-such-file.pth"], 1, "can't read checkpoint no-such-file.pth: No such file"),
        (["--labels", "no-such-file.txt"], 2, "can't read labels no-such-file.txt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_export_refuses_in_one_line(
    arguments: list[str], status: int, message: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = call("export", "--quiet", *arguments)
    assert (found, out) == (status, "")
    assert err.startswith("xformer-export: error: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo\n", "2 labels for trained.safetensors, which has 3 classes"),
        (b"[1, 2, 3]", "label 0 is 1; a label is one line of printable text"),
        (b'["a", "b", "c"', "are not a JSON list"),
        (b"\xff\xfe\x00", "are not UTF-8 text"),
        (b"", "0 labels are not valid"),
        (b"[" * 100_000, "are not a JSON list"),
    ],
    ids=["too few", "numbers", "cut JSON", "binary", "empty", "deep"],
)
def test_bad_labels(content: bytes, message: str, call: Call, checkpoint: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.write_bytes(content)
    status, _, err = call("export", "--checkpoint", checkpoint, "--labels", labels, "--output", tmp_path / "bundle")
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("predict", ["no-bundle", "x.png"], "no bundle at no-bundle: no such directory"),
        ("predict", [".", "x.png"], ". is not a bundle: it has no manifest.json"),
        ("predict", ["{bundle}", "no-such.png"], "no picture no-such.png: no such file or directory"),
        ("predict", ["{bundle}", "."], "no pictures in ."),
        ("verify", ["no-bundle"], "no bundle at no-bundle"),
        ("verify", ["{bundle}", "--images", "{photo}", "--checkpoint", "{checkpoint}"], "has 3 classes"),
    ],
    ids=["missing", "not a bundle", "no picture", "empty folder", "verify missing", "another checkpoint"],
)
def test_other_commands_refuse_in_one_line(
    command: str,
    arguments: list[str],
    message: str,
    call: Call,
    make_bundle: MakeBundle,
    photo: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"bundle": make_bundle("classify"), "photo": photo, "checkpoint": checkpoint}
    status, out, err = call(command, "--quiet", *(argument.format(**places) for argument in arguments))
    assert (status in (1, 2), out) == (True, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("predict", ["{bundle}", "{photo}", "--engine", "tensorrt"], "unknown engine 'tensorrt'; valid: onnxruntime"),
        ("predict", ["{bundle}", "{photo}", "--threads", "0"], "0 is not in the range"),
        ("predict", ["{bundle}"], "Missing argument 'IMAGE...'"),
        ("verify", [], "Missing argument 'BUNDLE'"),
        ("verify", ["{bundle}", "--images", "{photo}", "--scenes", "2"], "two sets of pictures; give one of them"),
        ("verify", ["{bundle}", "--max-difference", "0.1"], "bounded by 0.0001 here; 0.1 would loosen it"),
        ("verify", ["{bundle}", "--min-agreement", "0.9"], "bounded by 1 here; 0.9 would loosen it"),
    ],
    ids=["engine", "threads", "no image", "no bundle", "two sets", "a looser difference", "a looser agreement"],
)
def test_wrong_usage_exits_with_2(
    command: str, arguments: list[str], message: str, call: Call, make_bundle: MakeBundle, photo: Path
) -> None:
    places = {"bundle": make_bundle("classify"), "photo": photo}
    status, _, err = call(command, "--quiet", *(argument.format(**places) for argument in arguments))
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_an_error_with_json_is_one_document(call: Call) -> None:
    status, out, err = call("export", "--image-size", "250", "--json")
    assert status == 2
    assert json.loads(out)["error"]["exit_code"] == 2
    assert json.loads(out)["error"]["message"] in err


def test_debug_shows_the_traceback_and_nothing_else_does(call: Call, tmp_path: Path) -> None:
    missing = tmp_path / "no-such.pth"
    assert "Traceback" not in call("export", "--checkpoint", missing)[2]
    assert "Traceback" in call("export", "--checkpoint", missing, "--debug")[2]


def test_names_are_shown_as_they_are(call: Call, photo: Path, tmp_path: Path) -> None:
    """Neither labels nor file names nor paths are markup."""
    labels = tmp_path / "labels.txt"
    names = ["a [/b]", "[red]c", ":smile:"]
    labels.write_text("\n".join(names))
    config = ModelConfig.create(variant="xformer_xxs", image_size=ImageSize(64, 64), num_classes=3)
    save_checkpoint(untrained_model(config), tmp_path / "weights.safetensors")
    target = tmp_path / "bundle [x]"
    picture = tmp_path / "p[b]:cat:.png"
    shutil.copyfile(photo, picture)
    arguments = ["--checkpoint", tmp_path / "weights.safetensors", "--labels", labels, "--output", target]
    assert call("export", *arguments, "--no-verify", "--quiet")[0] == 0
    status, out, _ = call("predict", target, picture, "--quiet")
    assert status == 0
    for name in (*names, picture.name, target.name):
        assert name in out
    status, out, _ = call("verify", target, "--quiet")
    assert status == 0
    assert target.name in out


def test_verify_compares_the_other_pictures_and_fails_in_the_end(
    call: Call, make_bundle: MakeBundle, photo: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    status, out, err = call("verify", make_bundle("classify"), "--images", broken, "--images", photo, "--json")
    document = json.loads(out)
    assert (status, document["passed"]) == (1, False)
    (artifact,) = document["artifacts"]
    assert (artifact["parity"]["images"], artifact["passed"]) == (1, True)
    assert document["pictures"]["names"] == [photo.name]
    assert len(err.splitlines()) == len(document["errors"]) == 1


def test_averaged_weights_are_named(call: Call, tmp_path: Path) -> None:
    model = untrained_model(ModelConfig.create(variant="xformer_xxs", image_size=ImageSize(64, 64), labels=["a", "b"]))
    path = tmp_path / "training.pth"
    averaged = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "model": {}, "model_ema": {"n_averaged": torch.tensor(5), **averaged}}, path)
    status, out, _ = call("export", "--checkpoint", path, "--output", tmp_path / "bundle", "--no-verify")
    assert status == 0
    assert "weights from state dict under 'model_ema'" in out


def test_a_pipe_is_no_picture(call: Call, make_bundle: MakeBundle, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    status, _, err = call("predict", make_bundle("classify"), tmp_path / "pipe.png", "--quiet")
    assert status == 1
    assert "it is a directory, a device or a pipe" in err


def test_a_folder_that_can_not_be_read(
    call: Call, make_bundle: MakeBundle, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by the system's own call, as tests may run as the superuser."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(path))

    bundle = make_bundle("classify")
    monkeypatch.setattr(Path, "iterdir", refuse)
    status, _, err = call("predict", bundle, photo.parent, "--quiet")
    assert status == 1
    assert "Permission denied" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("command", ["doctor", "eval", "export", "predict", "verify"])
def test_help_has_examples_and_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from xformer_mobile.cli.common import run_command\n"
        f"try: run_command({command!r}, ['--help'])\n"
        "finally: print([m for m in ('torch', 'onnx', 'onnxruntime', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"xformer-{command}" in done.stdout.split("Examples:")[1]
    assert done.stdout.endswith("[]\n")


def test_predict_answers_without_torch_and_converters(make_bundle: MakeBundle, photo: Path) -> None:
    code = (
        "import sys; from xformer_mobile.cli.common import run_command\n"
        f"try: run_command('predict', [{str(make_bundle('classify'))!r}, {str(photo)!r}])\n"
        "finally: print([m for m in ('torch', 'onnx', 'safetensors', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_a_missing_extra_is_named(call: Call, monkeypatch: pytest.MonkeyPatch, make_bundle: MakeBundle) -> None:
    bundle = make_bundle("classify")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = call("verify", bundle)
    assert status == 1
    assert err == "xformer-verify: error: onnxruntime is not installed; type: pip install 'xformer-mobile[run]'\n"


# ---- interrupted, refused, out of room: the old bundle stays -------------------------------------------------


def _export_process(target: Path, *, limit_bytes: int | None = None, announce: bool = False) -> subprocess.Popen[str]:
    """``xformer-export`` as a process of its own.

    ``limit_bytes`` is the largest file that the system lets it write; with ``announce`` it prints a line when its
    signal handlers are in place.
    """
    code = "from xformer_mobile import cli\n"
    if limit_bytes is not None:
        code += f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
    if announce:
        code += "import signal\nhook = signal.signal\n"
        code += "def tell(number, handler):\n hook(number, handler)\n"
        code += " if number == signal.SIGTERM: print('started', flush=True)\n"
        code += "signal.signal = tell\n"
    return subprocess.Popen(
        [sys.executable, "-c", code + "cli.export_main()", *SMALL, "--output", str(target), "--quiet"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE if announce else subprocess.DEVNULL,
        text=True,
    )


@pytest.fixture
def old_bundle(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    """A bundle of another task at the place where the export wants to go."""
    target = tmp_path / "place" / "bundle"
    shutil.copytree(make_bundle("segment"), target)
    return target


def _check_untouched(target: Path, before: dict[str, bytes]) -> None:
    assert files_of(target) == before
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]
    assert Bundle.open(target).task == "segment"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_interrupted_half_way(sent: signal.Signals, old_bundle: Path) -> None:
    before = files_of(old_bundle)
    process = _export_process(old_bundle)
    staging = old_bundle.parent / f".{old_bundle.name}.partial"
    while process.poll() is None and not staging.exists():
        time.sleep(0.01)
    process.send_signal(sent)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err == "xformer-export: error: interrupted; what was not finished is not written\n"
    _check_untouched(old_bundle, before)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.3, 0.8, 1.5, 2.2, 2.6, 3.0, 3.4, 4.0])
def test_interrupted_at_any_moment(delay: float, old_bundle: Path) -> None:
    """Also while libraries are imported, which may swallow the interrupt or fail in ways of their own."""
    before = files_of(old_bundle)
    process = _export_process(old_bundle, announce=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert err.splitlines()[-1] == "xformer-export: error: interrupted; what was not finished is not written"
    assert "Traceback" not in err
    _check_untouched(old_bundle, before)


def test_an_interrupt_that_a_library_swallows_still_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    with progress(2, quiet=True) as step:
        step("one")
        monkeypatch.setattr(cli, "_received", [signal.SIGINT])
        with pytest.raises(KeyboardInterrupt):
            step("two")


def test_no_room_for_the_artifact(old_bundle: Path) -> None:
    """The system refuses to let the file grow, as a full disk or a quota does."""
    before = files_of(old_bundle)
    process = _export_process(old_bundle, limit_bytes=1_000_000)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err == "xformer-export: error: can't write model.onnx: File too large\n"
    _check_untouched(old_bundle, before)


def test_two_exports_to_one_place(old_bundle: Path) -> None:
    """The first is held inside the block; the second is told so and changes nothing; then the first goes on."""
    first = _export_process(old_bundle)
    staging = old_bundle.parent / f".{old_bundle.name}.partial"
    while first.poll() is None and not staging.exists():
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    try:
        second = _export_process(old_bundle)
        _, err = second.communicate(timeout=120)
        assert second.returncode == 1
        assert err.startswith("xformer-export: error: another process is writing ")
        assert len(err.splitlines()) == 1
        assert Bundle.open(old_bundle).task == "segment"
    finally:
        first.send_signal(signal.SIGCONT)
    _, err = first.communicate(timeout=120)
    assert (first.returncode, err) == (0, "")
    assert Bundle.open(old_bundle).task == "classify"
    assert [entry.name for entry in old_bundle.parent.iterdir()] == [old_bundle.name]


def test_a_place_that_can_not_be_written(call: Call, tmp_path: Path) -> None:
    """Below a file there is no directory: refused even to the superuser."""
    (tmp_path / "file").write_text("")
    status, _, err = call("export", *SMALL, "--quiet", "--output", tmp_path / "file" / "bundle")
    assert status == 1
    assert err.startswith("xformer-export: error: can't write ")
    assert len(err.splitlines()) == 1


def test_predict_with_no_room_leaves_no_half_picture(
    call: Call, make_bundle: MakeBundle, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = call("predict", make_bundle("classify"), photo, "--save", tmp_path / "out", "--quiet")
    assert status == 1
    assert "No space left on device" in err
    assert list((tmp_path / "out").iterdir()) == []


def _verify_process(bundle: Path, **options: object) -> subprocess.Popen[str]:
    code = "from xformer_mobile.cli import verify_main; verify_main()"
    # Buffered, as in a shell, whatever the environment of the tests says.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(bundle)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,  # type: ignore[call-overload]
    )


def test_a_reader_that_goes_away_is_no_error_of_ours(make_bundle: MakeBundle) -> None:
    reader, writer = os.pipe()
    process = _verify_process(make_bundle("classify"), stdout=writer)
    os.close(writer)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_result_that_can_not_be_printed_is_an_error(make_bundle: MakeBundle) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 (a device)
        process = _verify_process(make_bundle("classify"), stdout=full)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "xformer-verify: error: the system refused: No space left on device\n"


def test_a_stop_that_python_drops_is_tried_again() -> None:
    """An exception in a destructor, or in a callback of the garbage collector as jax has one, is dropped."""
    code = """
import os, signal, sys, time
from xformer_mobile import cli
signal.signal(signal.SIGINT, cli._stop)
sys.unraisablehook = cli._unraisable

class Dropping:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

try:
    Dropping()
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("stopped\n", "")
