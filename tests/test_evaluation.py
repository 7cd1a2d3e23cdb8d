"""Metrics against cases counted by hand, and ``xformer-eval`` as a person types it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Call, MakeBundle
from xformer_mobile.data import IGNORED, Sample, Subset, Synthetic
from xformer_mobile.errors import DataError
from xformer_mobile.evaluation import LEAST_SCORE, METRICS, evaluate, evaluation_rule, evaluator_for
from xformer_mobile.postprocess import Box, Classification, ClassMap, Detection, Postprocess
from xformer_mobile.spec import TASKS, ImageSize, ModelConfig
from xformer_mobile.weights import save_checkpoint
from xformer_mobile.zoo import untrained_model

LABELS = ("a", "b", "c")


def sample(
    kind: int = -1,
    boxes: list[tuple[float, float, float, float]] | None = None,
    kinds: list[int] | None = None,
    crowd: list[bool] | None = None,
    mask: np.ndarray | None = None,
) -> Sample:
    found = boxes or []
    return Sample(
        np.zeros((100, 100, 3), np.uint8),
        kind,
        np.array(found, np.float32).reshape(-1, 4),
        np.array(kinds or [0] * len(found), np.int64),
        np.array(crowd or [False] * len(found), np.bool_),
        mask,
    )


def ranking(*indices: int) -> tuple[Classification, ...]:
    return tuple(Classification(index, str(index), 0.1) for index in indices)


def detection(index: int, score: float, *box: float) -> Detection:
    return Detection(index, LABELS[index], score, Box(*box))


# ---- metrics ------------------------------------------------------------------------------------------------


def test_top_1_and_top_5() -> None:
    evaluator = evaluator_for("classify", tuple("abcdefg"))
    for kind, order in ((0, (0, 1, 2, 3, 4)), (1, (0, 1, 2, 3, 4)), (4, (0, 1, 2, 3, 4)), (5, (0, 1, 2, 3, 4))):
        evaluator.update(ranking(*order), sample(kind))
    assert evaluator.metrics() == {"top1": 0.25, "top5": 0.75}


SQUARE = (10.0, 10.0, 50.0, 50.0)

AVERAGE_PRECISION = {
    "all found": ([SQUARE], [0], [False], [detection(0, 0.9, *SQUARE)], 1.0, 1.0),
    "nothing found": ([SQUARE], [0], [False], [], 0.0, 0.0),
    "the wrong class": ([SQUARE], [0], [False], [detection(1, 0.9, *SQUARE)], 0.0, 0.0),
    # 0.6 wide in one direction: IoU 0.6 counts at the thresholds 0.5, 0.55 and 0.6, three of ten.
    "loosely": ([SQUARE], [0], [False], [detection(0, 0.9, 10, 10, 34, 50)], 1.0, 0.3),
    "twice: the second is wrong, after all are found": (
        [SQUARE],
        [0],
        [False],
        [detection(0, 0.9, *SQUARE), detection(0, 0.8, *SQUARE)],
        1.0,
        1.0,
    ),
    "a wrong one first: precision 1/2": (
        [SQUARE],
        [0],
        [False],
        [detection(0, 0.9, 60, 60, 90, 90), detection(0, 0.8, *SQUARE)],
        0.5,
        0.5,
    ),
    "a crowd that is found is neither right nor wrong": (
        [SQUARE, (60.0, 60.0, 90.0, 90.0)],
        [0, 0],
        [False, True],
        [detection(0, 0.9, 60, 60, 90, 90), detection(0, 0.8, *SQUARE)],
        1.0,
        1.0,
    ),
    "two classes, one of them found": (
        [SQUARE, (60.0, 60.0, 90.0, 90.0)],
        [0, 1],
        [False, False],
        [detection(0, 0.9, *SQUARE)],
        0.5,
        0.5,
    ),
}


@pytest.mark.parametrize("case", AVERAGE_PRECISION.values(), ids=AVERAGE_PRECISION)
def test_average_precision(case: tuple[object, ...], capfd: pytest.CaptureFixture[str]) -> None:
    boxes, kinds, crowd, found, map50, mean = case
    evaluator = evaluator_for("detect", LABELS)
    evaluator.update(tuple(found), sample(boxes=boxes, kinds=kinds, crowd=crowd))  # type: ignore[arg-type]
    metrics = evaluator.metrics()
    assert metrics["map50"] == pytest.approx(map50, abs=1e-3)
    assert metrics["map"] == pytest.approx(mean, abs=1e-3)
    assert capfd.readouterr().out == ""  # stdout is the command's


def test_mean_iou() -> None:
    """Truth 0 0 0 1 and an ignored pixel, found 0 0 1 1 and anything: 2/3 and 1/2; class 2 does not occur."""
    evaluator = evaluator_for("segment", LABELS)
    truth = np.array([[0, 0, 0, 1, IGNORED]], np.uint8)
    found = np.array([[0, 0, 1, 1, 2]], np.uint8)
    evaluator.update(ClassMap(found, LABELS), sample(mask=truth))
    assert evaluator.metrics() == {"miou": pytest.approx((2 / 3 + 1 / 2) / 2), "pixel_accuracy": 0.75}


@pytest.mark.parametrize("task", TASKS)
def test_nothing_to_evaluate_is_an_error(task: str) -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluator_for(TASKS[task].name, LABELS).metrics()


def test_a_mask_of_ignored_pixels_only_is_nothing_to_evaluate() -> None:
    evaluator = evaluator_for("segment", LABELS)
    truth = np.full((2, 2), IGNORED, np.uint8)
    evaluator.update(ClassMap(np.zeros((2, 2), np.uint8), LABELS), sample(mask=truth))
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluator.metrics()


def test_detections_of_a_low_score_enter_the_metric() -> None:
    rule = Postprocess.of(ModelConfig.create("detect"))
    judged = evaluation_rule(rule)
    assert rule.detection is not None
    assert judged.detection == replace(rule.detection, score_threshold=LEAST_SCORE)


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_knows_the_truth_is_right(task: str) -> None:
    """Outputs made from the truth go through pre- and postprocessing and come out (nearly) without a fault."""
    size = ImageSize(128, 128)
    data = Synthetic(TASKS[task].name, "test", 12, size=size)
    config = ModelConfig.create(task, "xformer_xxs", image_size=size, labels=data.labels)
    oracle = iter(data[index] for index in range(len(data)))

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values.astype(np.float32) for name, values in ideal_outputs(config, next(oracle)).items()}

    evaluator = evaluator_for(config.task, config.labels)
    assert list(evaluate(run, Postprocess.of(config), data, size, evaluator)) == list(range(12))
    metrics = evaluator.metrics()
    assert tuple(metrics) == METRICS[config.task]
    # Boxes that share a cell and an anchor hide each other; masks have a quarter of the resolution.
    least = {"classify": 1.0, "detect": 0.9, "segment": 0.85}[task]
    assert min(metrics.values()) >= least


def ideal_outputs(config: ModelConfig, truth: Sample) -> dict[str, np.ndarray]:
    shapes = config.output_shapes()
    if config.task == "classify":
        return {"logits": np.eye(config.num_classes)[[truth.kind]] * 9}
    if config.task == "segment":
        assert truth.mask is not None
        known = np.where(truth.mask == IGNORED, 0, truth.mask)[2::4, 2::4]
        return {"logits": np.moveaxis(np.eye(config.num_classes)[known], -1, 0)[None] * 9}
    maps = {name: np.full(shape, -20.0) for name, shape in shapes.items()}
    shorter = config.image_size.shorter
    grid = maps["stride8"].reshape(3, -1, *maps["stride8"].shape[2:])
    width, height = (side * shorter for side in config.anchors[0][0])
    for (x1, y1, x2, y2), kind, crowd in zip(truth.boxes.tolist(), truth.kinds, truth.crowd, strict=True):
        if crowd:
            continue
        x, y = (x1 + x2) / 16, (y1 + y2) / 16
        column, row = min(int(x), 15), min(int(y), 15)
        inside = np.clip([x - column, y - row], 1e-4, 1 - 1e-4)
        cell = grid[0, :, row, column]
        cell[:2] = np.log(inside / (1 - inside))
        cell[2:4] = np.log([(x2 - x1) / width, (y2 - y1) / height])
        cell[4] = 9
        cell[5:] = -20
        cell[5 + kind] = 9
    return maps


# ---- the command --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each task an untrained checkpoint with the scenes' classes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    made = {}
    for task, spec in TASKS.items():
        labels = Synthetic(spec.name, "test", 1).labels
        config = ModelConfig.create(task, "xformer_xxs", image_size=ImageSize(64, 64), labels=labels)
        made[task] = folder / f"{task}.safetensors"
        save_checkpoint(untrained_model(config), made[task])
    return made


@pytest.mark.parametrize("task", TASKS)
def test_both_forms_and_the_bundle_are_evaluated(
    task: str, call: Call, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    status, out, _ = call(
        "eval", checkpoints[task], "--form", "reference", "--form", "mobile", "--pictures", 5, "--json"
    )
    document = json.loads(out)
    assert status == 0
    assert (document["task"], document["pictures"], document["image_size"]) == (task, 5, "64x64")
    assert [row["name"] for row in document["results"]] == ["reference", "mobile"]
    assert list(document["results"][0]["metrics"]) == list(METRICS[TASKS[task].name])

    assert call("export", "--checkpoint", checkpoints[task], "--output", tmp_path / "bundle")[0] == 0
    status, out, err = call("eval", tmp_path / "bundle", "--checkpoint", checkpoints[task], "--pictures", 5)
    assert (status, err) == (0, "")
    assert "reference" in out
    assert "onnx fp32" in out
    assert "points" in out
    status, out, _ = call("eval", tmp_path / "bundle", "--engine", "onnxruntime", "--pictures", 5, "--json")
    (row,) = json.loads(out)["results"]
    assert row["engine"] == "onnxruntime"
    assert row["metrics"] == pytest.approx(document["results"][0]["metrics"], abs=0.02)


def test_on_pictures_of_your_own(call: Call, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """The same scenes from a folder give the same figures; that the folders are in another order is noted."""
    scenes = Synthetic("classify", "test", 15)
    for label in scenes.labels:
        (tmp_path / "train" / label).mkdir(parents=True)
        Image.fromarray(scenes[0].image).save(tmp_path / "train" / label / "0.png")
    order = sorted(scenes.labels)
    for index in range(15):
        # The folder whose place in the alphabet is the class's index.
        folder = tmp_path / "val" / order[scenes[index].kind]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scenes[index].image).save(folder / f"{index:02}.png")
    status, out, _ = call("eval", checkpoints["classify"], "--data", tmp_path, "--json")
    mine = json.loads(out)
    assert status == 0
    assert mine["notes"] == ["the data's classes have other names than the model's; they are matched by their order"]
    drawn = json.loads(call("eval", checkpoints["classify"], "--pictures", 15, "--json")[1])
    assert mine["results"] == drawn["results"]


WRONG_USE = {
    "unknown task": (["--task", "classifi"], "unknown task 'classifi' (did you mean 'classify'?)"),
    "unknown form": (["{classify}", "--form", "mobil"], "unknown form 'mobil'"),
    "an engine for a checkpoint": (["{classify}", "--engine", "onnxruntime"], "go with a bundle"),
    "a size for a bundle": (["{bundle}", "--image-size", "64"], "--image-size is for checkpoints"),
    "another task's bundle": (["{bundle}", "--task", "detect"], "is for the task 'classify', not 'detect'"),
    "unknown engine": (["{bundle}", "--engine", "onnx"], "unknown engine 'onnx'"),
    "a form without weights": (["{trained}", "--form", "mobile"], "--form needs --checkpoint"),
    "other classes": (["{bundle}", "--pictures", "2"], "are not those of the drawn scenes"),
    "0 pictures": (["--pictures", "0"], "0 is not in the range"),
}


@pytest.mark.parametrize("case", WRONG_USE.values(), ids=WRONG_USE)
def test_wrong_use(
    case: tuple[list[str], str],
    call: Call,
    make_bundle: MakeBundle,
    checkpoints: dict[str, Path],
    tmp_path: Path,
) -> None:
    arguments, expected = case
    trained = tmp_path / "trained"
    if "{trained}" in arguments:
        assert call("export", "--checkpoint", checkpoints["classify"], "--output", trained, "--no-verify")[0] == 0
    paths = {"bundle": make_bundle("classify"), "trained": trained, **checkpoints}
    status, out, err = call("eval", *(argument.format(**paths) for argument in arguments))
    assert (status, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


BROKEN = {
    "nothing there": ("nowhere", "can't read checkpoint"),
    "a text file": ("text.safetensors", "is refused"),
    "a directory that is no bundle": ("folder", "manifest.json"),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_broken_input_is_one_line(case: tuple[str, str], call: Call, tmp_path: Path) -> None:
    name, expected = case
    (tmp_path / "text.safetensors").write_text("not weights")
    (tmp_path / "folder").mkdir()
    status, out, err = call("eval", tmp_path / name)
    assert (status, out) == (1, "")
    assert expected in err
    assert err.count("\n") == 1


def test_weights_of_another_origin_are_refused(call: Call, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    assert call("export", "--checkpoint", checkpoints["classify"], "--output", tmp_path / "b", "--no-verify")[0] == 0
    other = tmp_path / "other.safetensors"
    shutil.copyfile(checkpoints["classify"], other)
    model = untrained_model(
        ModelConfig.create("classify", "xformer_xxs", image_size=ImageSize(64, 64), num_classes=14), seed=9
    )
    save_checkpoint(model, other)
    status, _, err = call("eval", tmp_path / "b", "--checkpoint", other)
    assert status == 1
    assert "not the weights that" in err


def test_a_subset_is_spread_evenly() -> None:
    data = Synthetic("classify", "test", 10, size=ImageSize(64, 64))
    subset = Subset(data, 3)
    assert [subset[index].kind for index in range(3)] == [data[index].kind for index in (0, 3, 6)]
