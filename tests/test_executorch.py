"""The ExecuTorch converter and its runner: what is delegated, the interface, parity, and files that are none of ours.

A conversion takes most of a minute, so there are few: each task or precision stands for the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import macs_by_torch
from xformer_export import to_executorch
from xformer_export.prepare import Converted, Options, Prepared, prepare
from xformer_export.program import export_program
from xformer_mobile.bench.counts import count_artifact
from xformer_mobile.errors import BundleError, ImageError, MissingDependencyError, UnavailableError, UsageError
from xformer_mobile.mobile import ChannelNorm, to_mobile
from xformer_mobile.parity import Comparison, compare, run_all, tolerance_of
from xformer_mobile.patterns import golden_picture
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.runners.executorch_runtime import ExecuTorchRunner
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import ImageSize, ModelConfig

SIZE = ImageSize(64, 64)

CAST = "dim_order_ops._to_dim_order_copy"


@dataclass(frozen=True)
class Made:
    """A program, and what the converter says of it."""

    prepared: Prepared
    path: Path
    converted: Converted

    def runner(self, path: Path | None = None) -> ExecuTorchRunner:
        config = self.prepared.config
        return ExecuTorchRunner(path or self.path, config.image_size, config.output_shapes(), threads=1)

    def comparison(self, precision: str) -> Comparison:
        """The program against the mobile form, the same function in float32."""
        images = [golden_picture(index, SIZE) for index in range(3)]
        with TorchRunner(to_mobile(self.prepared.reference)) as runner:
            expected = run_all(runner, images)
        with self.runner() as runner:
            found = run_all(runner, images)
        rule = Postprocess.of(self.prepared.config)
        return compare(expected, found, rule, engine="executorch", tolerance=tolerance_of(rule.task, precision))


def _prepared(task: str) -> Prepared:
    return prepare(None, task=task, variant="xformer_xxs", image_size=SIZE)


def _made(folder: Path, task: str, options: Options) -> Made:
    prepared, path = _prepared(task), folder / "model.pte"
    return Made(prepared, path, to_executorch.convert(prepared, options, path))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """In fp32; it has the upsampling that the other tasks have not."""
    return _made(tmp_path_factory.mktemp("detect"), "detect", Options())


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """In fp16."""
    return _made(tmp_path_factory.mktemp("classify"), "classify", Options("fp16"))


class _Small(nn.Module):
    """The mobile form's kinds of op between bytes and logits, so few that a conversion takes seconds."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.mix = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = ChannelNorm(nn.LayerNorm(8))
        self.head = nn.Conv2d(8, config.num_classes, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        x = self.mix(image.permute(0, 3, 1, 2))  # (1, 8, H/4, W/4)
        x = nn.functional.silu(self.norm(x)).mean((2, 3), keepdim=True)
        return (self.head(nn.functional.gelu(x)).flatten(1),)


@pytest.fixture(scope="module")
def small() -> Prepared:
    prepared = _prepared("classify")
    return Prepared(prepared.reference, _Small(prepared.config).eval(), prepared.weights)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def apple(request: pytest.FixtureRequest, small: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A small program for Core ML. Here nothing can run it."""
    path = tmp_path_factory.mktemp("apple") / "model.pte"
    return Made(small, path, to_executorch.convert(small, Options(request.param, backend="coreml"), path))


# ---- the program -------------------------------------------------------------------------------------------


def test_everything_that_computes_is_delegated(detector: Made) -> None:
    """In one partition; outside is the cast from bytes."""
    graph = detector.converted.graph
    assert graph["partitions"] == 1
    assert graph["not_delegated"] == {CAST: 1}
    assert graph["delegated"]["aten.bmm"] == 9 * 7
    assert graph["delegated"]["aten.convolution"] > 100
    assert not {"aten.upsample_nearest2d.vec", "aten.mm", "aten.var_mean.correction"} & graph["delegated"].keys()


def test_counts_are_those_of_the_program_as_it_is_stored(detector: Made, classifier: Made) -> None:
    """Its MACs are the mobile form's and those of LayerNorm's means, which are convolutions here."""
    for made, dtype in ((detector, torch.float32), (classifier, torch.float16)):
        counts = count_artifact("executorch", made.path)
        typed = to_executorch._Typed(made.prepared.mobile, dtype)
        assert counts["macs"] == macs_by_torch(typed, SIZE)
        graph = made.converted.graph
        assert counts["partitions"] == graph["partitions"]
        assert counts["undelegated-ops"] == sum(graph["not_delegated"].values())
        assert counts["ops"] >= sum(graph["delegated"].values()) + sum(graph["not_delegated"].values())
        # XNNPACK's convolutions are channels-last: there are more transposes than the model's own.
        assert counts["transposes"] > graph["delegated"]["aten.permute_copy"]
        # Of the file: XNNPACK's convolutions keep their weights in fp32, in a program of fp16 too.
        assert 0.85 < counts["weights-bytes"] / made.path.stat().st_size < 1
        assert counts["bytes-moved"] > counts["weights-bytes"]


def test_a_broken_program_is_counted_or_refused(detector: Made, tmp_path: Path) -> None:
    content, file = detector.path.read_bytes(), tmp_path / "model.pte"
    for share in (0.0, 0.001, 0.02, 0.1, 0.5):
        file.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(BundleError, match=r"model\.pte can't be counted"):
            count_artifact("executorch", file)
    generator = random.Random(0)
    for _ in range(100):
        place = generator.randrange(200_000)
        file.write_bytes(content[:place] + b"\xff\xff" + content[place + 2 :])
        with contextlib.suppress(BundleError):
            count_artifact("executorch", file)


def test_what_a_foreign_delegate_holds_is_not_counted(apple: Made) -> None:
    counts = count_artifact("executorch", apple.path)
    graph = apple.converted.graph
    assert counts == {"partitions": graph["partitions"], "undelegated-ops": sum(graph["not_delegated"].values())}


def test_in_fp16_the_outputs_are_cast_too(classifier: Made) -> None:
    graph = classifier.converted.graph
    assert graph["partitions"] == 1
    assert graph["not_delegated"] == {CAST: 1 + len(classifier.prepared.config.output_shapes())}


def test_what_is_needed_to_run_it(detector: Made) -> None:
    converted = detector.converted
    assert converted.requires["backend"] == "xnnpack"
    assert converted.requires["executorch"].count(".") == 1
    assert (converted.input_dtype, converted.input_layout) == ("uint8", "NHWC")


def test_nothing_of_the_machine_is_in_the_file(detector: Made) -> None:
    content = detector.path.read_bytes()
    for place in (str(Path.home()), "site-packages", str(Path(__file__).parent.parent), str(detector.path.parent)):
        assert place.encode() not in content, place


def test_another_process_makes_the_same_bytes(classifier: Made, tmp_path: Path) -> None:
    """With another seed of Python's hashes, on which the order of sets depends."""
    code = """
import sys
from pathlib import Path
from xformer_export import to_executorch
from xformer_export.prepare import Options, prepare
from xformer_mobile.spec import ImageSize
prepared = prepare(None, task="classify", variant="xformer_xxs", image_size=ImageSize(64, 64))
to_executorch.convert(prepared, Options("fp16"), Path(sys.argv[1]))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "11"}
    done = [sys.executable, "-c", code, str(tmp_path / "again.pte")]
    subprocess.run(done, env=environment, check=True, capture_output=True)
    assert _sha256(tmp_path / "again.pte") == _sha256(classifier.path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- what it computes --------------------------------------------------------------------------------------


def test_bytes_in_and_named_float32_out(detector: Made) -> None:
    with detector.runner() as runner:
        outputs = runner.run(golden_picture(0, SIZE))
        with pytest.raises(ImageError, match="executorch takes uint8"):
            runner.run(golden_picture(0, SIZE).astype(np.float32))  # type: ignore[arg-type]
    assert {name: values.shape for name, values in outputs.items()} == detector.prepared.config.output_shapes()
    assert {values.dtype for values in outputs.values()} == {np.dtype(np.float32)}


def test_outputs_of_one_picture_outlive_the_next(detector: Made) -> None:
    """Whatever the runtime does with their memory."""
    with detector.runner() as runner:
        first = runner.run(golden_picture(0, SIZE))
        kept = {name: values.copy() for name, values in first.items()}
        runner.run(golden_picture(1, SIZE))
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


def test_fp32_agrees_with_the_mobile_form(detector: Made) -> None:
    comparison = detector.comparison("fp32")
    assert comparison, comparison.misses()
    assert len(comparison.outputs) == 3
    assert comparison.relative_max <= 1e-4


def test_fp16_agrees_with_the_mobile_form(classifier: Made) -> None:
    """With untrained weights the logits are what remains of sums that nearly cancel: less than the 40 dB of a bundle.

    The bound above says that halves are computed with, not only stored.
    """
    (output,) = classifier.comparison("fp16").outputs
    assert 30 <= output.snr_db < 100


@pytest.mark.parametrize("shape", [(1, 3, 4, 6), (1, 5, 1, 1)], ids=str)
def test_upsampling_is_nearest(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    expected = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    assert torch.equal(to_executorch._upsample_nearest(x, None, [2.0, 2.0]), expected)


def test_the_rewritten_form_is_the_same_function() -> None:
    """Of the task that is not converted above. And the mobile form is as it was."""
    mobile = _prepared("segment").mobile
    before = {name: values.clone() for name, values in mobile.state_dict().items()}
    module = to_executorch._Typed(mobile, torch.float32)
    image = torch.from_numpy(golden_picture(0, SIZE).copy())
    program = export_program(module, (image,), to_executorch.DECOMPOSITIONS).module()
    with torch.inference_mode():
        for expected, found in zip(mobile(image), program(image), strict=True):
            span = float(expected.max() - expected.min())
            assert float((found - expected).abs().max()) <= 2e-5 * span
    to_executorch._Typed(mobile, torch.float16)
    assert all(torch.equal(values, before[name]) for name, values in mobile.state_dict().items())
    assert {values.dtype for values in mobile.state_dict().values()} == {torch.float32}


# ---- Core ML as ExecuTorch's backend -----------------------------------------------------------------------


def test_core_ml_takes_all_but_the_cast(apple: Made) -> None:
    graph = apple.converted.graph
    assert (graph["backend"], graph["partitions"], graph["not_delegated"]) == ("coreml", 1, {CAST: 1})
    assert apple.converted.requires["backend"] == "coreml"
    content = apple.path.read_bytes()
    assert b"CoreMLBackend" in content
    assert b"XnnpackBackend" not in content


def test_a_runtime_without_core_ml_says_so(apple: Made) -> None:
    with pytest.raises(UnavailableError, match=r"has no CoreMLBackend, which model\.pte needs; it has .*Xnnpack"):
        apple.runner().open()


def test_core_ml_needs_coremltools(small: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingDependencyError("coremltools is not installed; type: pip install 'xformer-mobile[coreml]'")

    monkeypatch.setattr(to_executorch, "import_coremltools", missing)
    with pytest.raises(MissingDependencyError, match=r"\[coreml\]"):
        to_executorch.convert(small, Options(backend="coreml"), tmp_path / "model.pte")


def test_a_build_without_the_core_ml_backend(small: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch.backends.apple.coreml.partition", None)
    with pytest.raises(UnavailableError, match=r"this build of ExecuTorch can't lower to Core ML .*--backend xnnpack"):
        to_executorch.convert(small, Options(backend="coreml"), tmp_path / "model.pte")


def test_unknown_backend(small: Prepared, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown ExecuTorch backend 'vulkan'; valid: xnnpack, coreml"):
        to_executorch.convert(small, Options(backend="vulkan"), tmp_path / "model.pte")


# ---- files that are none of ours ---------------------------------------------------------------------------


def _damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that begin as a program does; the start is the program, the rest are XNNPACK's graph and the weights."""
    for size in (8, 24, 64, 1000, 20_000, len(content) // 2, len(content) - 1):
        yield f"truncated to {size}", content[:size]
    yield "zeros", content[:8] + bytes(len(content) - 8)
    yield "noise", content[:8] + random.Random(0).randbytes(len(content) - 8)
    for seed in range(6):
        changed, place = bytearray(content), random.Random(seed)
        for _ in range(20):
            changed[place.randrange(8, 30_000)] = place.randrange(256)
        yield f"changed {seed}", bytes(changed)


def test_damaged_files_are_refused_and_crash_nothing(classifier: Made, tmp_path: Path) -> None:
    """In another process, as it is the runtime's own code that could crash; the loader may not, on any of them."""
    names = []
    for name, content in _damaged(classifier.path.read_bytes()):
        (tmp_path / name).write_bytes(content)
        names.append(name)
    code = """
import sys
from pathlib import Path
from xformer_mobile.errors import BundleError
from xformer_mobile.runners.executorch_runtime import ExecuTorchRunner
from xformer_mobile.spec import ImageSize
for name in sys.argv[1:]:
    try:
        ExecuTorchRunner(Path(name), ImageSize(64, 64), {"logits": (1, 1000)}).open()
    except BundleError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"ExecuTorch refuses {name}" for name in names]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't read .*model.pte: No such file"),
        (b"", "it is not a .pte file"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(100), "it is not a .pte file"),
    ],
    ids=["missing", "empty", "foreign"],
)
def test_no_program(content: bytes | None, message: str, classifier: Made, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "model.pte").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        classifier.runner(tmp_path / "model.pte").open()


def test_a_program_of_another_task(classifier: Made, detector: Made) -> None:
    with detector.runner(classifier.path) as runner, pytest.raises(BundleError, match="has 1 outputs, the manifest"):
        runner.run(golden_picture(0, SIZE))


def test_a_program_of_another_size(classifier: Made) -> None:
    other = ImageSize(128, 64)
    with (
        ExecuTorchRunner(classifier.path, other, {"logits": (1, 1000)}) as runner,
        pytest.raises(BundleError, match=r"ExecuTorch can't run .*model\.pte"),
    ):
        runner.run(golden_picture(0, other))
