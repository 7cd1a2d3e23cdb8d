"""``xformer-train`` as a person types it: what it makes, and that every refusal is one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from tests.conftest import Call
from xformer_mobile.cli.common import run_command
from xformer_mobile.data import LABELS, Synthetic
from xformer_mobile.spec import ImageSize
from xformer_mobile.weights import load_checkpoint

SMALL: tuple[object, ...] = ("--variant", "xformer_xxs", "--image-size", 64, "--pictures", 4, "--validation", 2)
TINY = (*SMALL, *("--batch-size", 2, "--warmup-steps", 2, "--epochs", 1, "--device", "cpu"))
SEGMENT = ("--task", "segment", *TINY)
CLASSIFY = ("--task", "classify", *TINY)


def metadata_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as stored:
        description: dict[str, Any] = json.loads(stored.metadata()["xformer_train"])
        return description


def one_line(err: str) -> str:
    (line,) = err.splitlines()
    assert line.startswith("xformer-train: error: ")
    assert "internal error" not in line
    return line


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the drawn scenes, at 64x64, as the command makes it."""
    path = tmp_path_factory.mktemp("trained") / "scenes.safetensors"
    with pytest.raises(SystemExit, match=r"^0$"):
        run_command("train", [*map(str, CLASSIFY), "--output", str(path), "--quiet"])
    return path


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class, of a train and a val folder each: five classes, three pictures each."""
    root = tmp_path_factory.mktemp("pictures") / "flowers"
    rng = np.random.default_rng(0)
    for subset in ("train", "val"):
        for kind in ("aster", "iris", "lily", "rose", "tulip"):
            (root / subset / kind).mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / subset / kind / f"{number}.png")
    return root


# ---- what it makes -------------------------------------------------------------------------------------------


def test_a_run_on_drawn_scenes(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "new" / "place" / "m.safetensors"
    status, out, err = call("train", *SEGMENT, "--output", output)
    assert status == 0
    assert out.startswith(f"Checkpoint: {output}, miou ")
    assert len(out.splitlines()) == 1
    assert "epoch 1/1 at 64x64: loss " in err
    assert [file.name for file in output.parent.iterdir()] == ["m.safetensors"]
    config = load_checkpoint(output).model.config
    assert config.labels == ("background", *LABELS)
    assert (config.variant.name, config.image_size) == ("xformer_xxs", ImageSize(64, 64))
    found = metadata_of(output)
    assert (found["data"], found["start"], found["pictures"]) == ("synthetic", "fresh", 4)
    assert (found["recipe"]["epochs"], found["recipe"]["precision"], found["recipe"]["mixup"]) == (1, "fp32", 0.0)


def test_json_is_one_document(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    options = ("--epochs", 2, "--json", "--half", "--start-size", 128, "--start-epochs", 1, "--zoom", 0.9, 1.2)
    status, out, err = call("train", *CLASSIFY, *options, "--output", output)
    document = json.loads(out)
    assert status == 0, err
    assert document["checkpoint"] == str(output)
    assert document["task"] == "classify"
    assert [entry["image_size"] for entry in document["epochs"]] == ["128x128", "64x64"]
    assert all({"loss", "top1", "top5"} <= entry.keys() for entry in document["epochs"])
    assert document["epochs"][-1] == metadata_of(output)["last"]
    assert metadata_of(output)["recipe"]["augmentation"]["zoom"] == [0.9, 1.2]
    assert load_checkpoint(output).model.config.num_classes == len(LABELS)


def test_quiet_says_the_result_only(call: Call, tmp_path: Path) -> None:
    status, out, err = call("train", *CLASSIFY, "--validation", 0, "--quiet", "--output", tmp_path / "m.safetensors")
    assert (status, err) == (0, "")
    assert out == f"Checkpoint: {tmp_path / 'm.safetensors'}\n"


def test_a_folder_of_pictures(call: Call, flowers: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    status, out, err = call("train", *CLASSIFY, "--data", flowers, "--batch-size", 8, "--output", output)
    assert status == 0, err
    assert "top1" in out
    assert load_checkpoint(output).model.config.labels == ("aster", "iris", "lily", "rose", "tulip")
    found = metadata_of(output)
    assert (found["pictures"], found["data"]) == (15, str(flowers))
    assert found["recipe"]["cutmix"] == 1.0


def test_a_folder_of_pictures_with_names_of_ones_own(call: Call, flowers: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("Aster\nSchwertlilie\nLilie\nRose\nTulpe\n", "utf-8")
    output = tmp_path / "m.safetensors"
    status, _, err = call("train", *CLASSIFY, "--data", flowers, "--labels", labels, "--output", output)
    assert status == 0, err
    assert load_checkpoint(output).model.config.labels[1] == "Schwertlilie"


def test_a_folder_too_small_to_divide_trains_without_validation(call: Call, tmp_path: Path) -> None:
    """No picture of it is for validation, by its name; where none is asked for, none is missed."""
    for kind in ("a", "b"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / "data" / kind / f"{number}.png")
    options = (*CLASSIFY, "--data", tmp_path / "data", "--output", tmp_path / "m.safetensors")
    status, _, err = call("train", *options)
    assert status == 1
    assert "no pictures for validation" in one_line(err)
    status, _, err = call("train", *options, "--validation", 0)
    assert status == 0, err


def test_fine_tuning_takes_variant_and_size_from_the_checkpoint(
    call: Call, flowers: Path, trained: Path, tmp_path: Path
) -> None:
    """Of another number of classes: all but the last layer is taken over, and the note says so."""
    output = tmp_path / "m.safetensors"
    options = ("--checkpoint", trained, "--data", flowers, "--epochs", 1, "--learning-rate", 1e-9, "--device", "cpu")
    status, _, err = call("train", "--task", "classify", *options, "--output", output)
    assert status == 0, err
    tensors = len(load_checkpoint(trained).model.state_dict())
    assert f"note: {tensors - 2} of {tensors} tensors from the checkpoint" in err
    found = load_checkpoint(output)
    assert (found.model.config.variant.name, found.trained_size) == ("xformer_xxs", ImageSize(64, 64))
    assert found.model.config.num_classes == 5
    assert metadata_of(output)["start"] == f"sha256 {load_checkpoint(trained).sha256}"
    before = load_checkpoint(trained).model.state_dict()
    name = "backbone.stem.conv.weight"
    np.testing.assert_allclose(found.model.state_dict()[name], before[name], atol=1e-5)


def test_a_detector_from_a_classifier(call: Call, trained: Path, tmp_path: Path) -> None:
    """At another size, with anchors fitted to the boxes of its own scenes."""
    output = tmp_path / "m.safetensors"
    options = ("--task", "detect", *TINY, "--pictures", 12, "--image-size", 128, "--checkpoint", trained)
    status, out, err = call("train", *options, "--output", output)
    assert status == 0, err
    assert "map50" in out
    config = load_checkpoint(output).model.config
    assert (config.task, config.image_size) == ("detect", ImageSize(128, 128))
    assert config.anchors != load_checkpoint(trained).model.config.anchors
    again = tmp_path / "again.safetensors"
    options = ("--task", "detect", *TINY, "--validation", 0, "--pictures", 2, "--checkpoint", output)
    status, _, err = call("train", *options, "--output", again)
    assert status == 0, err
    assert load_checkpoint(again).model.config.anchors == config.anchors  # the checkpoint's, not two pictures'


def test_rounding_is_learned_from_a_checkpoint_and_exported(call: Call, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "rounded.safetensors"
    status, _, err = call("train", *CLASSIFY, "--checkpoint", trained, "--qat", "--output", output)
    assert status == 0, err
    assert metadata_of(output)["recipe"]["qat"] is True
    bundle = tmp_path / "bundle"
    options = ("--quantize", "int8", "--calibration-pictures", 8, "--output", bundle)
    status, _, err = call("export", "--checkpoint", output, "--format", "onnx", *options)
    assert status == 0, err
    assert json.loads((bundle / "manifest.json").read_text())["precision"] == "int8"


# ---- what it refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "named"),
    [
        (["--task", "sing"], 2, "classify, detect, segment"),
        ([], 2, "'--task'"),
        (["--task", "classify", "--variant", "xformer_l"], 2, "xformer_xxs"),
        (["--task", "classify", "--device", "tpu"], 2, "auto, cpu, cuda, cuda:N"),
        (["--task", "classify", "--device", "cpu:1"], 2, "auto, cpu, cuda, cuda:N"),
        (["--task", "classify", "--device", "cuda:99"], 2, "no device cuda:99"),
        (["--task", "classify", "--precision", "int8"], 2, "fp32, bf16, fp16"),
        (["--task", "classify", "--image-size", "100"], 2, "image size 100x100"),
        (["--task", "classify", "--epochs", "0"], 2, "--epochs"),
        (["--task", "classify", "--batch-size", "1"], 2, "--batch-size"),
        (["--task", "classify", "--learning-rate", "nan"], 2, "learning_rate is nan"),
        (["--task", "classify", "--learning-rate", "-1"], 2, "learning_rate is -1"),
        (["--task", "classify", "--cutmix", "inf"], 2, "cutmix is inf"),
        (["--task", "classify", "--zoom", "2", "1"], 2, "zoom 2 to 1"),
        (["--task", "classify", "--seed", "99999999999999999999"], 2, "--seed"),
        (["--task", "classify", "--start-size", "100", "--start-epochs", "1"], 2, "image size 100x100"),
        (["--task", "classify", "--start-size", "128"], 2, "start_epochs"),
        (["--task", "classify", "--start-epochs", "1"], 2, "start_size"),
        (["--task", "classify", "--epochs", "1", "--start-size", "64", "--start-epochs", "2"], 2, "2 start epochs"),
        (["--task", "detect", "--label-smoothing", "0.1"], 2, "for classify, not detect"),
        (["--task", "segment", "--mixup", "0.1"], 2, "for classify, not segment"),
        (["--task", "classify", "--anchors", "fit"], 2, "--anchors is for detect, not classify"),
        (["--task", "classify", "--labels", "labels.txt"], 2, "the drawn scenes have their own"),
        (["--task", "classify", "--data", "nowhere"], 1, "no data at nowhere"),
        (["--task", "classify", "--checkpoint", "nowhere"], 1, "nowhere"),
        (["--task", "detect", "--pictures", "2"], 1, "9 anchors"),
        (["--task", "classify", "--qat"], 2, "--qat starts from trained weights"),
        (["--task", "classify", "--resume"], 2, "nothing to resume"),
        (["--task", "classify", "--resume", "--restart"], 2, "give one of them"),
    ],
    ids=lambda value: "_".join(value)[:60] if isinstance(value, list) else None,
)
def test_a_request_that_can_not_be(
    options: list[str], status: int, named: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("labels.txt").write_text("\n".join(LABELS))
    found, out, err = call("train", "--image-size", 64, *options, "--output", "m.safetensors", "--json")
    assert found == status, err
    assert named in one_line(err)
    assert json.loads(out)["error"]["exit_code"] == status
    assert [path.name for path in tmp_path.iterdir()] == ["labels.txt"]


def test_the_output_of_another_variant_s_checkpoint(call: Call, trained: Path, tmp_path: Path) -> None:
    status, _, err = call(
        "train", *CLASSIFY, "--variant", "xformer_xs", "--checkpoint", trained, "--output", tmp_path / "m.safetensors"
    )
    assert status == 2
    assert "is xformer_xxs, not xformer_xs" in one_line(err)


@pytest.mark.parametrize("name", ["m.pth", "m", ".safetensors", ".", "/", ""])
def test_an_output_of_another_kind(name: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = call("train", *CLASSIFY, "--output", name)
    assert status == 2
    assert "does not end in .safetensors" in one_line(err)


@pytest.mark.parametrize("restart", [[], ["--restart"]], ids=["plain", "restart"])
def test_an_output_that_is_a_directory(restart: list[str], call: Call, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").mkdir()
    status, _, err = call("train", *CLASSIFY, *restart, "--output", tmp_path / "m.safetensors")
    assert status == 2
    assert "is a directory" in one_line(err)


def test_an_output_that_exists(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    output.write_text("precious")
    status, _, err = call("train", *CLASSIFY, "--output", output)
    assert status == 2
    assert "--restart to replace it" in one_line(err)
    assert output.read_text() == "precious"
    status, _, err = call("train", *CLASSIFY, "--restart", "--output", output)
    assert status == 0, err
    load_checkpoint(output)


def test_an_output_that_can_not_be_written(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the first epoch, not after it. Below a file there is no directory, even for the superuser."""
    (tmp_path / "file").write_text("")
    status, _, err = call("train", *CLASSIFY, "--output", tmp_path / "file" / "m.safetensors")
    assert status == 1
    assert "can't write" in one_line(err)

    def refuse(path: object, *arguments: object, **options: object) -> int:
        raise PermissionError(13, os.strerror(13), path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)  # what a directory without permission does to others
        status, _, err = call("train", *CLASSIFY, "--output", tmp_path / "m.safetensors")
    assert status == 1
    assert one_line(err).endswith("can't write " + str(tmp_path / "m.safetensors") + ": Permission denied")


def test_a_disk_that_is_full(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = call("train", *CLASSIFY, "--output", tmp_path / "m.safetensors", "--quiet")
    assert status == 1
    assert one_line(err).endswith("m.safetensors: No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite(call: Call, tmp_path: Path) -> None:
    options = ("--learning-rate", 1e30, "--warmup-steps", 0, "--quiet", "--output", tmp_path / "m.safetensors")
    status, _, err = call("train", *CLASSIFY, *options)
    assert status == 1
    assert "the loss is nan in epoch 1, step 2; no epoch was finished" in one_line(err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["classes", "picture"])
def test_pictures_that_can_not_be_used(broken: str, call: Call, flowers: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(flowers, data)
    if broken == "classes":
        for name in ("aster", "iris", "lily", "rose"):
            shutil.rmtree(data / "train" / name)
    else:
        (data / "train" / "iris" / "1.png").write_bytes(b"no picture")
    status, _, err = call("train", *CLASSIFY, "--data", data, "--output", tmp_path / "m.safetensors")
    assert status == 1
    assert {"classes": "needs at least 2", "picture": "1 of 15"}[broken] in one_line(err)


# ---- help ----------------------------------------------------------------------------------------------------


def test_help_has_examples_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from xformer_mobile.cli.common import run_command\n"
        "try: run_command('train', ['--help'])\n"
        "finally: print([m for m in ('torch', 'safetensors', 'pycocotools', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "xformer-train --task detect" in done.stdout.split("Examples:")[1]
    assert done.stdout.endswith("[]\n")


def test_a_missing_extra_is_named(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    status, _, err = call("train", "--task", "detect", *TINY, "--output", tmp_path / "m.safetensors")
    assert status == 1
    assert "pip install 'xformer-mobile[train]'" in one_line(err)


# ---- stopped and resumed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_stopped_half_way_and_resumed(sent: signal.Signals, call: Call, tmp_path: Path) -> None:
    """Sent as a terminal does it, to the processes that prepare the pictures too. Then as if never stopped."""
    whole, output = tmp_path / "whole.safetensors", tmp_path / "m.safetensors"
    state = output.with_name("m.safetensors.state")
    options = (*SEGMENT, "--validation", 0, "--epochs", 3, "--quiet")
    code = "from xformer_mobile.cli import train_main; train_main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, options), "--workers", "1", "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not output.exists():  # written last: the state is there by then
        time.sleep(0.005)
    os.killpg(process.pid, sent)
    out, err = process.communicate(timeout=600)
    assert (process.returncode, out) == (1, ""), err
    assert err == "xformer-train: error: interrupted; what was not finished is not written\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "m.safetensors.state"]
    load_checkpoint(output)
    if sent == signal.SIGTERM:
        return  # what it left is the same; going on once is enough

    status, _, err = call("train", *options, "--output", output)
    assert status == 2
    assert "--resume goes on, --restart begins anew" in one_line(err)
    status, _, err = call("train", *options, "--output", output, "--resume", "--learning-rate", 0.5)
    assert status == 1
    assert "other options or other data" in one_line(err)
    status, out, err = call("train", *options, "--output", output, "--resume", "--json")
    assert (status, err) == (0, "")
    assert len(json.loads(out)["epochs"]) == 3
    assert not state.exists()
    status, _, err = call("train", *options, "--output", whole)
    assert (status, err) == (0, "")
    assert output.read_bytes() == whole.read_bytes()


def test_a_state_that_is_broken(call: Call, tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    (tmp_path / "m.safetensors.state").write_bytes(b"\x80\x04what is this")
    status, _, err = call("train", *CLASSIFY, "--output", output, "--resume", "--quiet")
    assert status == 1
    assert "can't resume from" in one_line(err)
    kept = sorted(tmp_path.iterdir())
    status, _, err = call("train", *CLASSIFY, "--output", output, "--restart", "--zoom", 2, 1, "--quiet")
    assert status == 2
    assert sorted(tmp_path.iterdir()) == kept  # a slip of the keyboard costs nothing
    status, _, err = call("train", *CLASSIFY, "--output", output, "--restart", "--quiet")
    assert (status, err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_drawn_scenes_are_others_in_each_epoch() -> None:
    data = Synthetic("classify", "train", 4, size=ImageSize(64, 64))
    assert not np.array_equal(data[0].image, data.at_epoch(1)[0].image)
    np.testing.assert_array_equal(data.at_epoch(0)[0].image, data[0].image)
