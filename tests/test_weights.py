"""Checkpoints: what is accepted comes back exactly; what is not is refused in one line, and never run."""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from xformer_mobile import weights
from xformer_mobile.errors import CheckpointError, OutputError, UsageError
from xformer_mobile.reference import XFormer
from xformer_mobile.spec import TASKS, YOLOV3_ANCHORS, ImageSize, ModelConfig
from xformer_mobile.weights import (
    METADATA_KEY,
    NESTED_KEYS,
    Checkpoint,
    checkpoint_bytes,
    load_checkpoint,
    resample_context,
    save_checkpoint,
)
from xformer_mobile.zoo import untrained_model

SMALL = ImageSize(64, 64)

CONTEXT = "backbone.stages.0.1.blocks.0.attention.w_context"
LAST_CONTEXT = "backbone.stages.2.1.blocks.2.attention.w_context"
HEADS = {"classify": "head.fc", "detect": "head.predictors.0", "segment": "head.classifier"}
FC = "head.fc.weight"
BIAS = "head.fc.bias"
VARIANCE = "backbone.stem.norm.running_var"

State = dict[str, Any]


@functools.cache
def drawn(task: str, classes: int, size: ImageSize = SMALL) -> XFormer:
    config = ModelConfig.create(task, "xformer_xxs", image_size=size, labels=[f"thing {i}" for i in range(classes)])
    return untrained_model(config)


def state_of(task: str = "classify", classes: int = 3, size: ImageSize = SMALL) -> State:
    """A state dict to change: the tensors are copies."""
    return {name: tensor.clone() for name, tensor in drawn(task, classes, size).state_dict().items()}


def run(model: XFormer) -> tuple[Tensor, ...]:
    size = model.config.image_size
    picture = torch.randn(1, 3, size.height, size.width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        outputs: tuple[Tensor, ...] = model(picture)
    return outputs


def assert_same_outputs(first: XFormer, second: XFormer) -> None:
    for one, other in zip(run(first), run(second), strict=True):
        assert torch.equal(one, other)


def write_pth(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def write_safetensors(path: Path, state: State | None = None, description: Any = None) -> Path:
    """A safetensors file; a ``description`` that is no text is put into the metadata as JSON."""
    text = description if isinstance(description, str) else json.dumps(description)
    save_file(state_of() if state is None else state, path, None if description is None else {METADATA_KEY: text})
    return path


def refusal(path: Path, **options: Any) -> str:
    """Loading is refused; returns the message, which is one line and names the file."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    assert len(message) < 1500
    return message


# ---- round trips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_round_trip(tmp_path: Path, task: str) -> None:
    anchors = tuple(tuple((w * 1.5, h / 3) for w, h in scale) for scale in YOLOV3_ANCHORS)
    config = ModelConfig.create(
        task, "xformer_xxs", image_size=ImageSize(64, 128), labels=["crane", "crane", "Öl ✓"], anchors=anchors
    )
    model = untrained_model(config, seed=3)
    path = tmp_path / "model.safetensors"
    save_checkpoint(model, path)
    loaded = load_checkpoint(path)
    assert loaded.model.config == config
    assert loaded.trained_size == config.image_size
    assert not loaded.model.training
    assert loaded.model.state_dict().keys() == model.state_dict().keys()
    assert_same_outputs(loaded.model, model)
    assert checkpoint_bytes(loaded.model) == path.read_bytes()


def test_round_trip_with_another_number_of_anchors(tmp_path: Path) -> None:
    anchors = tuple(scale[:2] for scale in YOLOV3_ANCHORS)
    model = untrained_model(ModelConfig.create("detect", "xformer_xxs", image_size=SMALL, anchors=anchors))
    save_checkpoint(model, tmp_path / "model.safetensors")
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.model.config == model.config
    assert_same_outputs(loaded.model, model)


@pytest.mark.parametrize("variant", ["xformer_xs", "xformer_s"])
def test_the_variant_is_read_from_the_tensors(tmp_path: Path, variant: str) -> None:
    model = XFormer(ModelConfig.create("classify", variant, image_size=SMALL, num_classes=2))
    assert load_checkpoint(write_pth(tmp_path / "model.pth", model.state_dict())).model.config.variant.name == variant


@pytest.mark.parametrize("metadata", [None, {str(index): "x" for index in range(8)}], ids=["own", "extra"])
def test_saving_twice_gives_the_same_bytes(tmp_path: Path, metadata: Mapping[str, str] | None) -> None:
    """safetensors itself writes several entries of metadata in an arbitrary order."""
    model = drawn("classify", 3)
    for name in "ab":
        save_checkpoint(model, tmp_path / name, metadata=metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    stored = load_file(tmp_path / "a")
    assert stored.keys() == model.state_dict().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in model.state_dict().items())
    load_checkpoint(tmp_path / "a")


def test_saving_where_it_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't write"):
        save_checkpoint(drawn("classify", 3), tmp_path / "missing" / "model.safetensors")


def test_digest_is_the_files(tmp_path: Path) -> None:
    import hashlib

    path = write_safetensors(tmp_path / "model.safetensors")
    assert load_checkpoint(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# ---- PyTorch's files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_plain_state_dict(tmp_path: Path, zipped: bool) -> None:
    torch.save(state_of(), tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(tmp_path / "model.pth")
    assert loaded.source == "state dict"
    assert loaded.model.config.labels == ("class 0", "class 1", "class 2")
    assert_same_outputs(loaded.model, drawn("classify", 3))


@pytest.mark.parametrize("index", range(len(NESTED_KEYS)), ids=NESTED_KEYS)
def test_nested_state_dict(tmp_path: Path, index: int) -> None:
    """Of several, the first in the order of NESTED_KEYS is taken, whatever their order in the file."""
    content: State = {"epoch": 3, "optimizer": {"lr": 0.1}, "args": None}
    for number, key in reversed(list(enumerate(NESTED_KEYS))[index:]):
        content[key] = {**state_of(), BIAS: torch.full((3,), float(number))}
    loaded = load_checkpoint(write_pth(tmp_path / "model.pth", content))
    assert loaded.source == f"state dict under {NESTED_KEYS[index]!r}"
    assert loaded.model.state_dict()[BIAS].tolist() == [index] * 3


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema", "ema_state_dict"])
@pytest.mark.parametrize("raw", ["state_dict", "model_state_dict", "model"])
def test_averaged_weights_are_preferred(tmp_path: Path, averaged: str, raw: str) -> None:
    content = {raw: {**state_of(), BIAS: torch.zeros(3)}, averaged: {**state_of(), BIAS: torch.ones(3)}}
    loaded = load_checkpoint(write_pth(tmp_path / "model.pth", content))
    assert loaded.model.state_dict()[BIAS].tolist() == [1, 1, 1]


def test_averaged_weights_that_were_never_made_are_passed_over(tmp_path: Path) -> None:
    loaded = load_checkpoint(write_pth(tmp_path / "model.pth", {"model": state_of(), "model_ema": None}))
    assert loaded.source == "state dict under 'model'"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("key", [None, "state_dict_ema"], ids=["plain", "nested"])
def test_wrappers_prefixes_are_dropped(tmp_path: Path, prefix: str, key: str | None) -> None:
    state = {prefix + name: tensor for name, tensor in state_of().items()}
    loaded = load_checkpoint(write_pth(tmp_path / "model.pth", {key: state} if key else state))
    assert_same_outputs(loaded.model, drawn("classify", 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_other_precisions_are_read_as_float32(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state_of().items()}
    path = tmp_path / f"model.{suffix}"
    (write_pth if suffix == "pth" else write_safetensors)(path, state)
    loaded = load_checkpoint(path).model.state_dict()
    for name, value in state.items():
        assert loaded[name].dtype == (torch.float32 if value.is_floating_point() else torch.int64)
        assert torch.equal(loaded[name], value.to(loaded[name].dtype)), name


@pytest.mark.parametrize("count", [None, torch.tensor(7), torch.tensor(float("nan")), torch.tensor(1j)], ids=repr)
def test_counts_of_batches_do_not_matter(tmp_path: Path, count: Tensor | None) -> None:
    """A BatchNorm's num_batches_tracked takes no part in inference: absent, or of any kind, it is fine."""
    state = state_of()
    for name in [name for name in state if name.endswith("num_batches_tracked")]:
        state.pop(name)
        if count is not None:
            state[name] = count
    loaded = load_checkpoint(write_pth(tmp_path / "model.pth", state))
    assert_same_outputs(loaded.model, drawn("classify", 3))
    assert loaded.model.backbone.stem.norm.num_batches_tracked == (7 if count is not None and count == 7 else 0)


def test_parameters_and_views_are_tensors_too(tmp_path: Path) -> None:
    state = state_of()
    state[FC] = torch.nn.Parameter(state[FC].T.contiguous()).T
    state[BIAS] = torch.nn.Parameter(state[BIAS])
    loaded = load_checkpoint(write_pth(tmp_path / "model.pth", state))
    assert_same_outputs(loaded.model, drawn("classify", 3))


# ---- classes and labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "classes"),
    [
        *(("classify", classes) for classes in (1, 7, 1000)),
        *(("detect", classes) for classes in (1, 3, 80)),
        *(("segment", classes) for classes in (2, 19)),
    ],
)
def test_the_number_of_classes_is_the_files(tmp_path: Path, task: str, classes: int) -> None:
    loaded = load_checkpoint(write_pth(tmp_path / "model.pth", state_of(task, classes)))
    config = loaded.model.config
    assert (config.task, config.num_classes, config.image_size) == (task, classes, SMALL)
    assert config.labels[0] == "class 0"
    assert_same_outputs(loaded.model, drawn(task, classes))


def test_a_fine_tuned_head(tmp_path: Path) -> None:
    """A thousand classes' backbone under a head of seven."""
    state = state_of("classify", 1000)
    state[FC], state[BIAS] = state[FC][100:107], state[BIAS][100:107]
    loaded = load_checkpoint(write_pth(tmp_path / "model.pth", state))
    assert loaded.model.config.num_classes == 7
    torch.testing.assert_close(run(loaded.model)[0], run(drawn("classify", 1000))[0][:, 100:107])


def test_labels_come_from_the_file_and_can_be_replaced(tmp_path: Path) -> None:
    save_checkpoint(drawn("classify", 3), tmp_path / "model.safetensors")
    assert load_checkpoint(tmp_path / "model.safetensors").model.config.labels == ("thing 0", "thing 1", "thing 2")
    replaced = load_checkpoint(tmp_path / "model.safetensors", labels=("cat", "dog", "owl"))
    assert replaced.model.config.labels == ("cat", "dog", "owl")
    assert_same_outputs(replaced.model, drawn("classify", 3))


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (("cat",), "1 labels for model.pth, which has 3 classes"),
        (tuple("abcd"), "4 labels"),
        ((), "0 labels"),
        (("cat", "dog", "o\nwl"), "label 2 is 'o\\\\nwl'"),
    ],
    ids=["too few", "too many", "none", "not one line"],
)
def test_wrong_labels_are_wrong_usage(tmp_path: Path, labels: tuple[str, ...], problem: str) -> None:
    path = write_pth(tmp_path / "model.pth", state_of())
    with pytest.raises(UsageError, match=problem):
        load_checkpoint(path, labels=labels)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("asked", TASKS)
def test_the_task_must_be_the_files(tmp_path: Path, task: str, asked: str) -> None:
    path = write_pth(tmp_path / "model.pth", state_of(task))
    if task == asked:
        assert load_checkpoint(path, task=asked).model.config.task == task
    else:
        assert f"is for the task {task!r}, not {asked!r}" in refusal(path, task=asked)


def test_the_variant_must_be_the_files(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "model.pth", state_of())
    assert load_checkpoint(path, variant="xformer_xxs").model.config.variant.name == "xformer_xxs"
    assert "does not fit xformer_s: its widths are those of xformer_xxs" in refusal(path, variant="xformer_s")


# ---- W_C at another input size ---------------------------------------------------------------------------


def context_names(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name in state if name.endswith("w_context")]


def test_resampling_by_hand() -> None:
    """Half-pixel centres, edges repeated: two columns become four."""
    name = "backbone.stages.0.1.blocks.0.attention.w_context"
    state = {name: torch.tensor([[[0.0, 8.0]]]), "other": torch.ones(2)}
    found = resample_context(state, ImageSize(64, 64))
    assert found[name].tolist() == [[[0, 2, 6, 8]] * 4]
    assert found["other"] is state["other"]
    assert state[name].shape == (1, 1, 2)  # what was given is not changed


def test_every_stage_is_resampled_to_its_own_grid() -> None:
    state = state_of()
    found = resample_context(state, ImageSize(128, 320))
    grids = {0: (8, 20), 1: (4, 10), 2: (2, 5)}
    assert len(context_names(state)) == 9
    for name, tensor in state.items():
        if name in context_names(state):
            grid = grids[int(name.split(".")[2])]
            expected = F.interpolate(tensor[None], size=grid, mode="bilinear", align_corners=False)[0]
            assert torch.equal(found[name], expected)
            assert found[name].shape == (4, *grid)
        else:
            assert found[name] is tensor


@pytest.mark.parametrize("size", [ImageSize(64, 64), ImageSize(320, 320), ImageSize(512, 1024)], ids=str)
def test_a_constant_stays_constant(size: ImageSize) -> None:
    state = {name: torch.full_like(value, 0.3) for name, value in state_of(size=ImageSize(128, 128)).items()}
    for name in context_names(state):
        assert torch.allclose(resample_context(state, size)[name], torch.tensor(0.3))


@pytest.mark.parametrize("size", [ImageSize(320, 320), ImageSize(512, 1024), ImageSize(1024, 1024)], ids=str)
@pytest.mark.parametrize("task", ["classify", "segment"])
def test_loaded_at_another_size(tmp_path: Path, task: str, size: ImageSize) -> None:
    trained = ImageSize(256, 256)
    original = drawn(task, 3, trained)
    save_checkpoint(original, tmp_path / "model.safetensors")
    loaded = load_checkpoint(tmp_path / "model.safetensors", image_size=size)
    assert loaded.trained_size == trained
    assert loaded.model.config == ModelConfig.create(
        task, "xformer_xxs", image_size=size, labels=original.config.labels
    )
    before, after = original.state_dict(), loaded.model.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == context_names(before)
    assert [tuple(output.shape) for output in run(loaded.model)] == list(loaded.model.config.output_shapes().values())


def test_loaded_at_its_own_size_nothing_is_resampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pth(tmp_path / "model.pth", state_of())
    monkeypatch.setattr(F, "interpolate", lambda *_args, **_options: pytest.fail("resampled"))
    assert load_checkpoint(path, image_size=SMALL).model.config.image_size == SMALL


# ---- what is refused -------------------------------------------------------------------------------------


def changed(**tensors: Any) -> State:
    """A state dict with some entries exchanged; ``__`` in a keyword is a dot."""
    return {**state_of(), **{name.replace("__", "."): value for name, value in tensors.items()}}


def without(*names: str) -> State:
    return {name: value for name, value in state_of().items() if name not in names}


def bias_of(values: Any, dtype: torch.dtype = torch.float32) -> State:
    return {**state_of(), BIAS: torch.tensor(values, dtype=dtype)}


BAD_STATES: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: bias_of([0, float("nan"), 0]), "head.fc.bias has 1 values that are NaN or infinite"),
    "infinite": (lambda: bias_of([float("inf"), 0, float("-inf")]), "head.fc.bias has 2 values that are NaN"),
    "NaN in a statistic": (lambda: {**state_of(), VARIANCE: torch.full((8,), torch.nan)}, "running_var has 8 values"),
    "float64 beyond float32": (lambda: bias_of([1e39, 0, 0], torch.float64), "head.fc.bias has 1 values"),
    "bfloat16 NaN": (lambda: bias_of([float("nan"), 0, 0], torch.bfloat16), "head.fc.bias has 1 values"),
    "negative variance": (lambda: {**state_of(), VARIANCE: torch.full((8,), -1.0)}, "running_var has negative"),
    "missing": (lambda: without(BIAS), "1 missing (head.fc.bias)"),
    "many missing": (
        lambda: {name: value for name, value in state_of().items() if ".mlp." not in name},
        "and 31 more)",
    ),
    "missing head": (lambda: without(FC), "is not an XFormer"),
    "missing W_C": (lambda: without(CONTEXT), "is not an XFormer"),
    "missing what gives the variant": (
        lambda: without("backbone.stage2.0.project.conv.weight"),
        "it lacks backbone.stage2.0.project.conv.weight",
    ),
    "unexpected": (lambda: {**state_of(), "head.extra": torch.ones(1)}, "1 unexpected (head.extra)"),
    "unexpected, not one line": (lambda: {**state_of(), "a\nb": torch.ones(1)}, r"1 unexpected ('a\nb')"),
    "unexpected, long": (lambda: {**state_of(), "a" * 10_000: torch.ones(1)}, "aaa...)"),
    "another shape": (lambda: bias_of([0.0] * 4), "1 of another shape (head.fc.bias (4,) for (3,))"),
    "scalar for a vector": (lambda: bias_of(0.0), "1 of another shape (head.fc.bias () for (3,))"),
    "scalar head": (lambda: {**state_of(), FC: torch.tensor(1.0)}, "head.fc.weight has rank 0, not 2"),
    "empty head": (lambda: {**state_of(), FC: torch.zeros(0, 256), BIAS: torch.zeros(0)}, "number of classes 0"),
    "W_C of rank 2": (lambda: {**state_of(), CONTEXT: torch.ones(4, 16)}, "w_context has rank 2, not 3"),
    "W_C of rank 0": (lambda: {**state_of(), CONTEXT: torch.tensor(1.0)}, "w_context has rank 0, not 3"),
    "W_C on an odd grid": (lambda: {**state_of(), CONTEXT: torch.ones(4, 5, 5)}, "image size 80x80 is not valid"),
    "W_C on no grid": (lambda: {**state_of(), CONTEXT: torch.ones(4, 0, 0)}, "image size 0x0 is not valid"),
    "W_C of another stage on another grid": (
        lambda: {**state_of(), LAST_CONTEXT: torch.ones(4, 2, 2)},
        f"1 of another shape ({LAST_CONTEXT} (4, 2, 2) for (4, 1, 1))",
    ),
    "W_C of one block on another grid": (lambda: {**state_of(), CONTEXT: torch.ones(4, 8, 8)}, "of another shape"),
    "integers": (lambda: bias_of([1, 2, 3], torch.int32), "head.fc.bias is int32; weights are float16,"),
    "booleans": (lambda: bias_of([1, 0, 1], torch.bool), "head.fc.bias is bool"),
    "complex numbers": (lambda: bias_of([1, 2, 3], torch.complex64), "head.fc.bias is complex64"),
    "8-bit floats": (lambda: bias_of([1, 2, 3], torch.float8_e4m3fn), "head.fc.bias is float8_e4m3fn"),
    "two tasks": (lambda: {**state_of(), "head.classifier.weight": torch.ones(3, 64, 1, 1)}, "is not an XFormer"),
    "another network": (lambda: torch.nn.Conv2d(3, 8, 3).state_dict(), "it holds 2 tensors (bias, weight, ...)"),
    "another network, not one line": (lambda: {"a\nb": torch.ones(1)}, r"it holds 1 tensors ('a\nb', ...)"),
    "empty": (dict, "it holds 0 tensors (nothing, ...)"),
    "no variant's widths": (
        lambda: {**state_of(), "backbone.stages.0.1.project_in.weight": torch.ones(9, 32, 1, 1)},
        "fits no variant; known: xformer_s, xformer_xs, xformer_xxs",
    ),
}


@pytest.mark.parametrize("name", BAD_STATES)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_bad_tensors_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    make, problem = BAD_STATES[name]
    path = tmp_path / f"model.{suffix}"
    (write_pth if suffix == "pth" else write_safetensors)(path, make())
    assert problem in refusal(path)


def expanded(*shape: int) -> Tensor:
    """A tensor of that shape that is stored as one number: made whole it would not fit any memory."""
    return torch.zeros(1).expand(*shape)


BAD_PTH: dict[str, tuple[Callable[[], Any], str]] = {
    "list": (lambda: [1, 2], "holds a list, not a state dict"),
    "tensor": (lambda: torch.ones(3), "holds a Tensor, not a state dict"),
    "number": (lambda: 3, "holds a int, not a state dict"),
    "list for a tensor": (lambda: {**state_of(), BIAS: [0.0, 0.0, 0.0]}, "head.fc.bias of its state dict is a list"),
    "number for a tensor": (lambda: {**state_of(), BIAS: 0.5}, "head.fc.bias of its state dict is a float"),
    "number for a name": (lambda: {**state_of(), 3: torch.ones(1)}, "entry 3 of its state dict is a Tensor"),
    "nested elsewhere": (lambda: {"network": state_of()}, "nested state dicts are looked for under state_dict_ema"),
    "nested, with a list": (lambda: {"ema": {BIAS: [1]}}, "head.fc.bias of its state dict under 'ema' is a list"),
    "the same name twice": (lambda: {**state_of(), f"module.{BIAS}": torch.ones(3)}, "some names are the same"),
    "no data": (lambda: {**state_of(), BIAS: torch.ones(3, device="meta")}, "bias is not a plain dense tensor"),
    "sparse": (lambda: {**state_of(), BIAS: torch.ones(3).to_sparse()}, "bias is not a plain dense tensor"),
    "sparse count": (
        lambda: {**state_of(), "backbone.stem.norm.num_batches_tracked": torch.ones((), device="meta")},
        "num_batches_tracked is not a plain dense tensor",
    ),
    "huge head": (lambda: {**state_of(), FC: expanded(10**6, 10**6)}, "number of classes 1000000 is not valid"),
    "huge tensor": (lambda: {**state_of(), BIAS: expanded(10**6, 10**6)}, "of another shape (head.fc.bias (1000000,"),
    "huge W_C": (lambda: {**state_of(), CONTEXT: expanded(4, 10**6, 10**6)}, "image size 16000000x16000000"),
    "huge unexpected": (lambda: {**state_of(), "extra": expanded(10**6, 10**6, 10**6)}, "1 unexpected (extra)"),
    "huge and nested": (lambda: {"model": {FC: expanded(10**6, 10**6), CONTEXT: expanded(4, 4, 4)}}, "lacks backbone"),
}


@pytest.mark.parametrize("name", BAD_PTH)
def test_bad_pth_is_refused(tmp_path: Path, name: str) -> None:
    make, problem = BAD_PTH[name]
    assert problem in refusal(write_pth(tmp_path / "model.pth", make()))


BAD_METADATA: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "metadata is not JSON"),
    "deep": ("[" * 100_000, "metadata is not JSON"),
    "list": ("[]", "metadata is not a JSON object"),
    "labels no list": ({"labels": "abc"}, "its labels are a str, not a list"),
    "labels an object": ({"labels": {"a": 1, "b": 2, "c": 3}}, "its labels are a dict, not a list"),
    "labels no strings": ({"labels": ["a", 2, "c"]}, "label 1 is 2; a label is one line of printable text"),
    "label not one line": ({"labels": ["a", "b", "c\nd"]}, r"label 2 is 'c\nd'"),
    "too few labels": ({"labels": ["a"]}, "1 labels for a model of 3 classes"),
    "no labels": ({"labels": []}, "0 labels for a model of 3 classes"),
    "anchors a number": ({"anchors": 5}, "its anchors are not three scales"),
    "anchors flat": ({"anchors": [1, 2, 3]}, "its anchors are not three scales"),
    "two scales": ({"anchors": [[[1, 1]]] * 2}, "its anchors are not three scales"),
    "empty scales": ({"anchors": [[], [], []]}, "its anchors are not three scales"),
    "uneven scales": ({"anchors": [[[1, 1]], [[1, 1]], [[1, 1], [1, 1]]]}, "its anchors are not three scales"),
    "anchors of three": ({"anchors": [[[1, 1, 1]]] * 3}, "its anchors are not three scales"),
    "anchors of text": ({"anchors": [[["a", "b"]]] * 3}, "its anchors are not three scales"),
    "zero anchor": ({"anchors": [[[0, 1]]] * 3}, "its anchors are not fractions"),
    "negative anchor": ({"anchors": [[[1, -1]]] * 3}, "its anchors are not fractions"),
    "anchors in pixels": ({"anchors": [[[116, 90]]] * 3}, "its anchors are not fractions"),
    "NaN anchor": ('{"anchors": [[[NaN, 1]], [[1, 1]], [[1, 1]]]}', "its anchors are not fractions"),
    "huge anchor": ({"anchors": [[[10**400, 1]]] * 3}, "its anchors are not three scales"),
    "another variant": ({"variant": "xformer_s"}, "does not fit xformer_s: its widths are those of xformer_xxs"),
    "variant not one line": ({"variant": "a\nb"}, r"does not fit 'a\nb'"),
    "another task": ({"task": "segment"}, "is for the task 'classify', not 'segment'"),
    "variant no text": ({"variant": ["xformer_xxs"]}, "does not fit ['xformer_xxs']"),
}


@pytest.mark.parametrize("name", BAD_METADATA)
def test_bad_metadata_is_refused(tmp_path: Path, name: str) -> None:
    description, problem = BAD_METADATA[name]
    assert problem in refusal(write_safetensors(tmp_path / "model.safetensors", description=description))


def header(text: bytes, tail: bytes = b"", length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text + tail


BAD_BYTES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "one byte": (b"\0", "is refused: it is not a whole file of tensors"),
    "random": (bytes((i * 197 + 31) % 256 for i in range(5000)), ""),
    "zeros": (bytes(5000), ""),
    "text": (b"accuracy: 78.5\nloss: 0.1\n" * 20, ""),
    "web page": (b"<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n", ""),
    "pointer to large file storage": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 22\n", ""),
    "zip of something else": (b"PK\x03\x04" + bytes(100), "is neither"),
    "header beyond the file": (header(b"{}", length=10_000), "is not a whole safetensors file"),
    "header of absurd length": (header(b"{}", length=2**63), "is not a whole safetensors file"),
    "header of every length": (header(b"{}", length=2**64 - 1), "is not a whole safetensors file"),
    "header no JSON": (header(b"{not json"), "is not a whole safetensors file"),
    "header no text": (header(b"{\xff\xfe"), "is not a whole safetensors file"),
    "header without tensors": (header(b"{}"), "it holds 0 tensors"),
    "tensor beyond the file": (
        header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', bytes(8)),
        "is not a whole safetensors file",
    ),
    "tensor of lying size": (
        header(b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,8]}}', bytes(8)),
        "is not a whole safetensors file",
    ),
    "tensor of overflowing size": (
        header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
        "is not a whole safetensors file",
    ),
    "tensor of unknown type": (
        header(b'{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "is not a whole safetensors file",
    ),
}


@pytest.mark.parametrize("name", BAD_BYTES)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_bad_bytes_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    content, problem = BAD_BYTES[name]
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(content)
    assert problem in refusal(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "model.pth")


def test_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory; give a .safetensors or .pth file" in refusal(tmp_path)


def test_pipe_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "model.pth")
    monkeypatch.setattr(weights, "file_sha256", lambda _path: pytest.fail("read"))  # which would wait for ever
    assert "is a device or a pipe" in refusal(tmp_path / "model.pth")


def test_huge_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)  # a hole: it takes no space
    monkeypatch.setattr(weights, "file_sha256", lambda _path: pytest.fail("read"))
    assert "has 1073741825 bytes, more than any XFormer" in refusal(path)


def test_zip_that_unpacks_to_more_than_a_file_may_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = io.BytesIO()
    torch.save({name: torch.zeros_like(value) for name, value in state_of().items()}, plain)
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
    load_checkpoint(path)  # PyTorch does unpack
    monkeypatch.setattr(weights, "MAX_FILE_BYTES", path.stat().st_size)
    assert "it unpacks to" in refusal(path)


@pytest.mark.parametrize("call", ["stat", "open"])
def test_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    # Emulated: the superuser may read everything.
    path = write_pth(tmp_path / "model.pth", {})
    real = getattr(Path, call)

    def refuse(self: Path, *args: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(self))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, call, refuse)
    assert "Permission denied" in refusal(path)


# ---- what would run code ---------------------------------------------------------------------------------


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.fspath(self.marker),)


def evil_pickle(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Evil(marker)}))


def evil_zip(path: Path, marker: Path) -> None:
    torch.save({"state_dict": state_of(), "args": Evil(marker)}, path)


def evil_legacy(path: Path, marker: Path) -> None:
    torch.save({"state_dict": state_of(), "args": Evil(marker)}, path, _use_new_zipfile_serialization=False)


def evil_data(path: Path, marker: Path) -> None:
    """A valid checkpoint whose data.pkl has been exchanged."""
    plain = io.BytesIO()
    torch.save(state_of(), plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as exchanged:
        for entry in source.infolist():
            evil = entry.filename.endswith("data.pkl")
            exchanged.writestr(entry.filename, pickle.dumps(Evil(marker), 2) if evil else source.read(entry))


@pytest.mark.parametrize("write", [evil_pickle, evil_zip, evil_legacy, evil_data], ids=lambda write: write.__name__)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_pickle_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, write: Callable[[Path, Path], None], suffix: str
) -> None:
    marker, path = tmp_path / "it ran", tmp_path / f"model.{suffix}"
    write(path, marker)
    message = refusal(path)
    assert "is refused: it is not a whole file of tensors and nothing else" in message
    assert "save the model's state_dict() as safetensors" in message
    assert not marker.exists()


def test_the_evil_pickle_would_run(tmp_path: Path) -> None:
    """The test above proves something: unpickled without care, it does run."""
    evil_pickle(tmp_path / "model.pth", tmp_path / "it ran")
    pickle.loads((tmp_path / "model.pth").read_bytes())
    assert (tmp_path / "it ran").exists()


# ---- drawn damage ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Whole files by suffix."""
    folder = tmp_path_factory.mktemp("whole")
    torch.save(state_of("segment", 2), folder / "model.pth")
    return {
        "safetensors": checkpoint_bytes(drawn("segment", 2)),
        "pth": (folder / "model.pth").read_bytes(),
    }


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


POSITIONS = st.one_of(st.integers(0, 16), st.integers(0, 60_000), st.integers(0, 10**7), st.integers(-3000, -1))
"""Near a file's start, in its header, anywhere, and near its end; taken modulo its length."""


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@settings(deadline=None, derandomize=True, max_examples=40)
@given(cut=POSITIONS)
def test_truncated_file_is_refused(whole: dict[str, bytes], scratch: Path, suffix: str, cut: int) -> None:
    path = scratch / f"truncated.{suffix}"
    path.write_bytes(whole[suffix][: cut % len(whole[suffix])])
    refusal(path)


def load_or_refuse(path: Path) -> Checkpoint | str:
    try:
        return load_checkpoint(path)
    except CheckpointError:
        return refusal(path)


@pytest.mark.parametrize(("suffix", "examples"), [("safetensors", 60), ("pth", 40)])
def test_flipped_bytes_never_surprise(whole: dict[str, bytes], scratch: Path, suffix: str, examples: int) -> None:
    """A file with some bytes changed is refused, or is whole by luck."""

    @settings(deadline=None, derandomize=True, max_examples=examples)
    @given(flips=st.lists(st.tuples(POSITIONS, st.integers(1, 255)), min_size=1, max_size=4))
    def check(flips: list[tuple[int, int]]) -> None:
        content = bytearray(whole[suffix])
        for position, mask in flips:
            content[position % len(content)] ^= mask
        path = scratch / f"flipped.{suffix}"
        path.write_bytes(content)
        loaded = load_or_refuse(path)
        if isinstance(loaded, Checkpoint):
            assert all(torch.isfinite(value).all() for value in loaded.model.state_dict().values())

    check()
