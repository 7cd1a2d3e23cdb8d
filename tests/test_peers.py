"""Peers: their networks are their articles', their artifacts compute the same, and the run adds up."""

from __future__ import annotations

import copy
import json
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Call
from xformer_export import peers
from xformer_export.formats import CONVERTERS
from xformer_export.prepare import Network
from xformer_mobile import optional
from xformer_mobile.artifact import FORMATS
from xformer_mobile.bench import LatencyRun
from xformer_mobile.bench.counts import count_artifact
from xformer_mobile.bench.peers import BASE, MATMUL, MIN_TURNS, Contender, PeersPlan, check_document, measure_peers
from xformer_mobile.bench.peers_report import cells, claim, peers_svg
from xformer_mobile.bench.worker import Loaded, Sample, Settings, WarmUp
from xformer_mobile.cli import bench_peers
from xformer_mobile.errors import BenchmarkError, MissingDependencyError, ParityError, UsageError
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners import ENGINES, LooseArtifact, open_loose
from xformer_mobile.spec import ImageSize

SMALL = ImageSize(64, 64)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> NoReturn:
        raise AssertionError("something asks for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# ---- networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", peers.PEERS)
@pytest.mark.usefixtures("no_network")
def test_a_peer_is_its_articles(name: str) -> None:
    """By its number of parameters; it answers with finite numbers that depend on the picture, the same each time."""
    size = ImageSize(256, 256)
    model, parameters = peers.build_peer(name, size)
    assert parameters == pytest.approx(peers.PEERS[name].article_parameters, rel=0.02)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    with torch.no_grad():
        answers = [model(torch.from_numpy(golden_picture(index, size)))[0] for index in (0, 2)]
    assert all(answer.shape == (1, 1000) and bool(answer.isfinite().all()) for answer in answers)
    assert not torch.allclose(*answers)


def test_a_peer_is_the_same_each_time() -> None:
    before = torch.random.get_rng_state()
    first, second = (peers.build_peer("mobilenetv2_100", SMALL)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), before)


AS_PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "mobilevit_s": ("MobileViT", {}),
    "mobilevitv2_100": ("MobileViTV2", {}),
    "deit_ti": (
        "ViT",
        {
            "hidden_size": 192,
            "num_hidden_layers": 12,
            "num_attention_heads": 3,
            "intermediate_size": 768,
            "image_size": 64,
            "patch_size": 16,
        },
    ),
}


@pytest.mark.parametrize("format", ["onnx", "tflite"])
@pytest.mark.parametrize("name", AS_PUBLISHED)
def test_the_faster_form_is_the_same_function(name: str, format: str) -> None:
    size = ImageSize(64, 64) if name == "deit_ti" else ImageSize(64, 128)
    x = torch.randn(1, 3, size.height, size.width, generator=torch.Generator().manual_seed(0))
    ours = peers.PEERS[name].build(size, format).eval()
    plain = peers._build(*AS_PUBLISHED[name]).eval()
    peers._draw(ours)
    weights = ours.state_dict()
    if name == "deit_ti":  # the scale of attention is in the query
        for key in weights:
            if "q_proj" in key:
                weights[key] = weights[key] * 8  # sqrt(64)
    plain.load_state_dict(weights)
    with torch.no_grad():
        expected, found = plain(x).logits, ours(x).logits
    assert float((found - expected).abs().max() / (expected.max() - expected.min())) < 1e-5


def test_batch_norms_are_fitted_and_folded() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)]
    model = nn.Sequential(*layers).eval()
    peers._draw(model)
    seen: list[Tensor] = []
    handle = model.register_forward_hook(lambda module, inputs, output: seen.append(output))
    first = peers._fit_and_fold(model, SMALL)
    handle.remove()
    assert first is layers[0]
    assert [type(module) for module in model] == [nn.Conv2d, nn.Identity, nn.SiLU, nn.Conv2d, nn.Identity]
    (fitted,) = seen
    with torch.no_grad():
        folded = model(peers.normalize(torch.from_numpy(golden_picture(1, SMALL))))
    assert torch.allclose(folded, fitted, atol=1e-5)
    # Fitted: before BatchNorm's own drawn gain and shift, mean 0 and variance 1.
    norm = layers[1]
    plain = (fitted - layers[4].bias[:, None, None]) / layers[4].weight[:, None, None]  # type: ignore[index,union-attr]
    assert norm is not model[1]
    assert torch.allclose(plain.mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(plain.var((0, 2, 3)), torch.ones(4), atol=0.1)


def test_a_norm_of_one_group_is_exact() -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(1, 8)
    peers._draw(norm)
    x = 3 + torch.randn(1, 8, 4, 64)
    assert torch.allclose(peers._MapNorm(norm)(x), norm(x), atol=1e-5)


def test_the_command_names_what_the_exporter_has() -> None:
    assert (BASE, *bench_peers.MODELS) == peers.CONTENDERS


# ---- artifacts ---------------------------------------------------------------------------------------------


class _Small(nn.Module):
    """A convolution, attention and a mean over three axes that are not the picture's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 16, 16)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(image.float().permute(0, 3, 1, 2) / 255)  # (1, 8, 4, 4)
        tokens = x.flatten(2).transpose(1, 2)  # (1, 16, 8)
        attended = torch.softmax(torch.matmul(tokens, tokens.transpose(1, 2)), -1)
        return torch.matmul(attended, tokens).mean(1), x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("engine", ["onnxruntime", "litert", "executorch"])
def test_any_network_goes_the_way_of_xformer(engine: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    format = ENGINES[engine].formats[0]
    shapes: dict[str, tuple[int, ...]] = {"tokens": (1, 8), "pooled": (1, 8, 1, 1)}
    module, path = _Small().eval(), tmp_path / FORMATS[format]
    convert = CONVERTERS[format].convert_network
    assert convert is not None
    convert(Network("small", module, SMALL, shapes), path)
    image = golden_picture(0, SMALL)
    with torch.no_grad():
        expected = dict(zip(shapes, module(torch.from_numpy(image)), strict=True))
    with open_loose(LooseArtifact(path, format, SMALL, shapes), engine, threads=1) as runner:
        found = runner.run(image)
    for name in shapes:
        np.testing.assert_allclose(found[name], expected[name].numpy(), atol=1e-5)
    with pytest.raises(UsageError, match=f"is {format}"):
        open_loose(LooseArtifact(path, format, SMALL, shapes), "coreml")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Contender]:
    folder = tmp_path_factory.mktemp("peers")
    names = (BASE, "mobilenetv2_100", MATMUL)
    return {
        name: peers.export_contender(
            name, SMALL, "onnx", folder / f"{name}.onnx", engine="onnxruntime", variant="xformer_xxs"
        )
        for name in names
    }


def test_what_is_exported(exported: dict[str, Contender]) -> None:
    """The counts are those of the artifact's own graph; 2 % are for what only one of the counters counts."""
    for contender in exported.values():
        counted = count_artifact("onnx", contender.artifact.path)["macs"]
        assert contender.macs == pytest.approx(counted, rel=0.02), contender.name
    assert exported[BASE].title == "xformer_xxs"
    assert exported["mobilenetv2_100"].parameters == pytest.approx(3.5e6, rel=0.02)
    assert exported[MATMUL].macs == 4 * 768 * 1024 * 1024
    assert exported[MATMUL].artifact.image_size == peers.MATMUL_SIZE


class _Broken(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (torch.arange(768 * 1024.0).reshape(768, 1024) * self.value,)


@pytest.mark.parametrize(("value", "message"), [(1.0, "of the range"), (float("nan"), "not finite")])
def test_an_artifact_that_computes_something_else_is_refused(
    exported: dict[str, Contender], value: float, message: str
) -> None:
    broken = _Broken(value)
    with pytest.raises(ParityError, match=message):
        peers._count_and_check("MatMul", broken, broken, exported[MATMUL].artifact, "onnxruntime")


# ---- the run -----------------------------------------------------------------------------------------------


class _Fake:
    """A process whose runs take a given time, of a machine that is slower in some moments."""

    def __init__(
        self, milliseconds: float, megabytes: int, log: list[str], name: str, pace: Callable[[], float]
    ) -> None:
        self.run_ns, self.peak, self.log, self.name, self.pace = milliseconds * 1e6, megabytes, log, name, pace

    def __enter__(self) -> _Fake:
        self.log.append(f"start {self.name}")
        return self

    def __exit__(self, *error: object) -> None:
        self.log.append(f"stop {self.name}")

    def prepare(self) -> None:
        pass

    def load(self) -> Loaded:
        return Loaded(1000, 2000, "onnx", False, "flushed by the engine", 40_000_000, 50_000_000)

    def warm_up(self, limit_ns: int = 0) -> WarmUp:
        return WarmUp((round(self.run_ns),) * 10, True)

    def run(self, count: int) -> Sample:
        self.log.append(f"run {self.name}")
        took = round(self.run_ns * self.pace())
        return Sample((took,) * count, (round(self.run_ns),) * count, 0)

    def peak_bytes(self) -> int:
        return (50 + self.peak) * 1_000_000


TIMES = {"one": (10.0, 100), "fast": (2.0, 50), "slow": (4000.0, 400), "matmul": (20.0, 10)}


def _contender(name: str, size: ImageSize, folder: Path) -> Contender:
    path = folder / f"{name}.onnx"
    path.write_bytes(name.encode())
    title = "one" if name == BASE else name
    return Contender(name, title, LooseArtifact(path, "onnx", size, {"y": (1,)}), 5_000_000, 1_000_000_000)


def _measure(folder: Path, log: list[str], plan: PeersPlan, names: tuple[str, ...] = (BASE, "fast", "slow")) -> Any:
    rng = random.Random(0)

    def start(settings: Settings) -> _Fake:
        assert isinstance(settings.model, LooseArtifact)
        name = settings.model.path.stem
        return _Fake(*TIMES["one" if name == BASE else name], log, name, lambda: rng.uniform(0.99, 1.01))

    shares: list[float] = []
    document = measure_peers(
        [_contender(name, SMALL, folder) for name in names],
        _contender("matmul", ImageSize(512, 512), folder),
        engine="onnxruntime",
        plan=plan,
        report=lambda text, share: shares.append(share),
        start=start,
        coin=random.Random(1),
    )
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    return document


def test_ratios_are_of_one_interleaved_run(tmp_path: Path) -> None:
    log: list[str] = []
    document = _measure(tmp_path, log, PeersPlan(rounds=5, seconds=1))
    rows = {row["name"]: row for row in document["peers"]["rows"]}
    for name, ratio, peak, running in (("fast", 0.2, 100 / 150, 0.5), ("slow", 400, 3, 4), (BASE, 1, 1, 1)):
        row = rows[name]
        assert row["ratio"]["median"] == pytest.approx(ratio, rel=0.02)
        assert row["ratio"]["low"] <= ratio * 1.02
        assert row["ratio"]["high"] >= ratio * 0.98
        assert (row["peak_ratio"], row["over_loaded_ratio"]) == pytest.approx((peak, running))
    assert (rows["fast"]["peak_bytes"], rows["fast"]["over_loaded_bytes"]) == (100_000_000, 50_000_000)
    # 1 GMAC in 10 ms, and in the matmul's 20 ms.
    assert rows[BASE]["gflops"] == pytest.approx(200, rel=0.02)
    assert rows[BASE]["matmul_share"] == pytest.approx(2, rel=0.02)
    # A round has processes of its own, and all of them at a time.
    assert [entry.split()[0] for entry in log[:4]] == ["start"] * 4
    assert sum(entry.startswith("start") for entry in log) == sum(entry.startswith("stop") for entry in log) == 5 * 4
    # A turn is one measurement of each; which goes first is drawn. A slow one takes part in few.
    assert rows[BASE]["runs"] == 5 * 20
    assert rows["fast"]["runs"] == 5 * 20 * 5
    assert rows["slow"]["runs"] == 5 * MIN_TURNS
    firsts = {
        log[index + 1] for index, entry in enumerate(log) if entry.startswith("start") and "run" in log[index + 1]
    }
    assert len(firsts) > 1
    assert len(rows["slow"]["ratio"]["rounds"]) == 5


def test_a_slow_process_does_not_decide_how_often_all_are_measured(tmp_path: Path) -> None:
    """The first of XFormer's processes is ten times slower than the others."""
    started: list[str] = []

    def start(settings: Settings) -> _Fake:
        assert isinstance(settings.model, LooseArtifact)
        name = settings.model.path.stem
        started.append(name)
        slow = name == BASE and started.count(BASE) == 1
        return _Fake(2000.0 if slow else 200.0, 1, [], name, lambda: 1.0)

    document = measure_peers(
        [_contender(BASE, SMALL, tmp_path), _contender("fast", SMALL, tmp_path)],
        _contender("matmul", SMALL, tmp_path),
        engine="onnxruntime",
        plan=PeersPlan(rounds=5, seconds=10),
        start=start,
    )
    row = document["peers"]["rows"][1]
    assert [len(values) for values in row["ratio"]["rounds"]] == [2, 10, 10, 10, 10]
    assert row["ratio"]["median"] == 1.0


def test_few_rounds_have_no_interval_and_cpu_time_does_not_vary(tmp_path: Path) -> None:
    document = _measure(tmp_path, [], PeersPlan(rounds=1, seconds=1, clock="cpu"), (BASE, "fast"))
    fast = document["peers"]["rows"][1]
    assert (fast["ratio"]["low"], fast["ratio"]["high"]) == (None, None)
    assert fast["ratio"]["median"] == pytest.approx(0.2, rel=1e-9)
    assert fast["p50_ns"] == 2_000_000
    assert "unknown" in cells(fast)


def test_a_size_needs_xformer(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no XFormer"):
        _measure(tmp_path, [], PeersPlan(), ("fast",))


def test_every_process_is_gone_after_a_stop(tmp_path: Path) -> None:
    log: list[str] = []

    def stop(text: str, share: float) -> None:
        if share > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_peers(
            [_contender(BASE, SMALL, tmp_path)],
            _contender("matmul", SMALL, tmp_path),
            engine="onnxruntime",
            report=stop,
            start=lambda settings: _Fake(1.0, 1, log, "x", lambda: 1.0),
        )
    assert log.count("start x") == log.count("stop x") > 0


def test_a_document_is_held_to_its_schema(tmp_path: Path) -> None:
    document = _measure(tmp_path, [], PeersPlan(rounds=1, seconds=1))
    check_document(document)
    for path, value in (
        (("peers", "rows"), []),
        (("peers", "clock"), "sun"),
        (("peers", "rows", 0, "ratio"), 1.0),
        (("measurements", 0, "phases"), {}),
    ):
        broken: Any = copy.deepcopy(document)
        place = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(BenchmarkError):
            check_document(broken)


def test_a_picture_is_the_same_each_time_and_holds_no_markup(tmp_path: Path) -> None:
    document = _measure(tmp_path, [], PeersPlan(rounds=4, seconds=1))
    document["peers"]["rows"][1]["title"] = "<script>"
    document["machine"]["cpu"] = "<b>\x00"
    document["peers"]["paper"]["image_size"] = [64, 64]
    drawn = peers_svg(document)
    assert drawn == peers_svg(copy.deepcopy(document))
    assert "<script>" not in drawn
    assert "as XFormer's authors say" in drawn


def test_the_claim_stands_beside_what_was_measured(tmp_path: Path) -> None:
    document = _measure(tmp_path, [], PeersPlan(rounds=1, seconds=1))
    assert claim(document) == [
        "The authors' claim (arXiv 2207.07268, on their machine): about 2x faster than MobileViT and 32 % less GPU "
        "memory, at 1024x1024."
    ]
    document["peers"]["rows"][1] |= {"name": "mobilevit_s", "title": "MobileViT-S", "image_size": [1024, 1024]}
    document["peers"]["rows"][1]["ratio"]["median"] = 2.5
    assert claim(document)[1] == (
        "Here, at 1024x1024: MobileViT-S takes 2.50 times as long; XFormer takes 50% more memory in all; XFormer takes "
        "100% more memory for running."
    )


# ---- the command -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_network")
def test_the_command(
    call: Call, tmp_path: Path, exported: dict[str, Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes; the artifacts are those of the fixture. One model can't be converted."""

    def export(name: str, size: ImageSize, format: str, path: Path, **options: Any) -> Contender:
        if name == "deit_ti":
            raise ParityError("deit_ti is something else")
        return exported[name]

    monkeypatch.setattr(peers, "export_contender", export)
    output, plot, kept = tmp_path / "peers.json", tmp_path / "peers.svg", tmp_path / "kept"
    arguments = ["--variant", "xformer_xxs", "--image-size", 64, "--model", "mobilenetv2_100", "--model", "deit_ti"]
    arguments += ["--rounds", 1, "--budget", 0.1, "--output", output, "--plot", plot, "--artifacts", kept]
    status, out, err = call("bench", "peers", *arguments)
    assert status == 0, err
    assert "left out: deit_ti at 64x64: deit_ti is something else" in out
    assert "deit_ti at 64x64 is left out" in err
    assert "arXiv 2207.07268" in out
    assert sorted(file.name for file in kept.iterdir()) == ["matmul.onnx", "mobilenetv2_100.onnx", "xformer.onnx"]
    document = json.loads(output.read_bytes())
    check_document(document)
    assert [row["name"] for row in document["peers"]["rows"]] == [BASE, "mobilenetv2_100", MATMUL]
    assert {entry["engine"]["denormals"] for entry in document["measurements"]} == {"flushed by the engine"}
    assert plot.read_text("utf-8").startswith("<?xml")
    assert len(LatencyRun.read(output).measurements) == 3
    assert call("bench", "show", output, "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet"], "unknown model 'resnet'"),
        (["--model", "mobilevit"], "did you mean 'mobilevit_s'"),
        (["--variant", "xformer_m"], "unknown variant"),
        (["--engine", "coreml"], "there are no peers for coreml; there are for onnxruntime"),
        (["--engine", "tensorrt"], "unknown engine"),
        (["--image-size", "100"], "multiples of 64"),
        (["--artifacts", "tests"], "not empty"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_wrong_usage(call: Call, arguments: list[str], message: str) -> None:
    status, out, err = call("bench", "peers", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_what_can_not_be_written_is_told_first(call: Call, tmp_path: Path) -> None:
    status, _, err = call("bench", "peers", "--output", tmp_path / "none/peers.json")
    assert status == 1
    assert "there is no directory" in err


def test_a_missing_transformers_says_what_to_type(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, *, extra: str) -> Any:
        if module == "transformers":
            raise MissingDependencyError(f"transformers is not installed; type: pip install 'xformer-mobile[{extra}]'")
        return optional.require(module, extra=extra)

    monkeypatch.setattr(bench_peers, "require", missing)
    status, out, err = call("bench", "peers")
    assert (status, out) == (1, "")
    assert err == "xformer-bench: error: transformers is not installed; type: pip install 'xformer-mobile[peers]'\n"
