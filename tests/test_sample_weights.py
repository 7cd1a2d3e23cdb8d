"""The sample weights: that they are there, that they know the scenes, and that training kept both forms equal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.conftest import Call
from xformer_mobile.data import Synthetic
from xformer_mobile.evaluation import METRICS, evaluate, evaluator_for
from xformer_mobile.mobile import to_mobile
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.preprocess import preprocess
from xformer_mobile.reference import XFormer, normalize
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import TASKS, ImageSize
from xformer_mobile.zoo import load_reference, one_thread, sample_weights

SIZE = ImageSize(256, 256)

PICTURES = 200
"""On so many pictures the two forms are compared."""

TOLERANCE = 1e-4
"""Of the range of the reference form's output."""


@pytest.fixture(scope="module", params=TASKS)
def model(request: pytest.FixtureRequest) -> XFormer:
    """The reference form with the sample weights of a task."""
    return load_reference(None, task=request.param)[0]


def file_of(task: str) -> Path:
    path = sample_weights(task)
    assert path is not None
    return path


@pytest.mark.parametrize("task", TASKS)
def test_files_are_small_and_say_what_they_are(task: str) -> None:
    path = file_of(task)
    assert path.stat().st_size < 13e6
    with safe_open(path, framework="pt") as stored:
        floating = {stored.get_tensor(name).dtype for name in stored.keys()} - {torch.int64}  # noqa: SIM118
        training = json.loads(stored.metadata()["xformer_train"])
    assert floating == {torch.float16}
    assert training["data"] == "synthetic"
    assert training["recipe"]["epochs"] == training["epochs_done"]


@pytest.mark.parametrize("task", TASKS)
def test_they_are_the_default(task: str) -> None:
    found, weights = load_reference(None, task=task)
    assert weights["source"] == "sample"
    assert found.config.image_size == SIZE
    assert found.config.labels == Synthetic(TASKS[task].name, "test", 1).labels
    assert load_reference(None, task=task, variant="xformer_xxs")[1]["source"] == "untrained"


def test_both_forms_agree(model: XFormer) -> None:
    mobile = to_mobile(model)
    data = Synthetic(model.config.task, "test", PICTURES)
    worst = 0.0
    for index in range(PICTURES):
        image = Image.fromarray(data[index].image)
        pixels = torch.from_numpy(preprocess(image, SIZE, TASKS[model.config.task].resize_rule)[0].copy())
        with torch.inference_mode(), one_thread():
            pairs = zip(model(normalize(pixels)), mobile(pixels), strict=True)
            worst = max(worst, *(float((a - b).abs().max() / (a.max() - a.min())) for a, b in pairs))
    assert worst <= TOLERANCE


def test_they_know_the_scenes(model: XFormer) -> None:
    """A few pictures only: docs/sample-weights.md has the figures of 2,000 and the command."""
    task = model.config.task
    evaluator = evaluator_for(task, model.config.labels)
    with TorchRunner(model) as runner:
        for _ in evaluate(runner.run, Postprocess.of(model.config), Synthetic(task, "test", 60), SIZE, evaluator):
            pass
    assert evaluator.metrics()[METRICS[task][0]] >= 0.75


def test_export_and_predict_say_what_the_weights_are(call: Call, tmp_path: Path) -> None:
    status, out, err = call("export", "--output", tmp_path / "bundle")
    assert status == 0
    assert "xformer_s for classify: 14 classes" in out
    assert "sample weights, which know drawn scenes only" in err
    scene = Synthetic("classify", "test", 1)[0]
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    status, out, err = call("predict", tmp_path / "bundle", tmp_path / "scene.png", "--json")
    document = json.loads(out)
    assert (status, document["weights"]) == (0, "sample")
    assert "they know drawn scenes, not photographs" in err
    assert document["results"][0]["classes"][0]["index"] == scene.kind
    status, out, _ = call("verify", tmp_path / "bundle", "--images", tmp_path / "scene.png")
    assert status == 0
    status, out, _ = call("eval", tmp_path / "bundle", "--pictures", 5, "--json")
    assert [row["name"] for row in json.loads(out)["results"]] == ["reference", "onnx fp32"]
