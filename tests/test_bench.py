"""Measuring processes, LatencyRun files, and the command's exit statuses. Nothing asserts on wall time."""

from __future__ import annotations

import copy
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from tests.conftest import Call, MakeBundle
from xformer_mobile.artifact import Bundle
from xformer_mobile.bench import LatencyRun, Settings, Worker, machine, measure, noise_of
from xformer_mobile.bench.latency_run import Statistics
from xformer_mobile.bench.measure import choose_artifacts, choose_cpus, choose_engines
from xformer_mobile.bench.report import distribution_svg, histogram, html_page
from xformer_mobile.bench.worker import is_stable
from xformer_mobile.cli import bench as command
from xformer_mobile.errors import BenchmarkError, BundleError, UnavailableError, UsageError
from xformer_mobile.runners import Engine

SCHEMA = Path(command.__file__).parent.parent / "schemas/latency_run.schema.json"


@pytest.fixture(scope="module")
def bundle(make_bundle: MakeBundle) -> Path:
    return make_bundle("classify")


# ---- the process --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker(bundle: Path) -> Iterator[Worker]:
    with Worker(Settings(bundle, "onnxruntime", 1, choose_cpus(1))) as opened:
        opened.prepare()
        yield opened


def test_a_process_measures(worker: Worker) -> None:
    loaded = worker.load()
    assert loaded.load_ns > 0
    assert loaded.first_run_ns > 0
    assert loaded.format == "onnx"
    assert loaded.denormals == "flushed by the engine"
    assert loaded.pinned == hasattr(os, "sched_setaffinity")
    sample = worker.run(3)
    assert len(sample.wall_ns) == len(sample.cpu_ns) == 3
    assert min(sample.wall_ns) > 0
    assert {name: len(samples) for name, samples in worker.phases(2).items()} == {"preprocess": 2, "postprocess": 2}
    peak = worker.peak_bytes()
    assert peak is None or loaded.rss_loaded_bytes is None or peak >= loaded.rss_loaded_bytes


def test_a_process_of_its_own_leaves_this_one_as_it_is(worker: Worker) -> None:
    """Neither its arithmetic nor its processors are ours."""
    worker.run(1)
    assert not machine.flushes_denormals()
    if hasattr(os, "sched_setaffinity"):
        assert machine.usable_cpus() == tuple(sorted(os.sched_getaffinity(0)))


def test_denormals_are_flushed_where_it_is_said() -> None:
    code = "from xformer_mobile.bench import machine as m; print(m.flush_denormals(), m.flushes_denormals())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, found = done.stdout.split()
    assert said == found


@pytest.mark.parametrize("told", [True, False])
def test_onnx_runtime_flushes_denormals_where_it_is_told(told: bool, bundle: Path) -> None:
    """In processes of their own: of all sessions of a process, the first decides."""
    code = """if True:
        import sys
        from pathlib import Path
        from xformer_mobile.artifact import Bundle
        from xformer_mobile.bench.machine import flushes_denormals
        from xformer_mobile.runners import open_runner
        runner = open_runner(Bundle.open(Path(sys.argv[1])))
        runner.flush_denormals = sys.argv[2] == "True"
        with runner:
            print(flushes_denormals())
    """
    done = subprocess.run([sys.executable, "-c", code, bundle, str(told)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(told)]


def test_an_error_in_the_process_is_our_own(tmp_path: Path, bundle: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / "model.onnx").write_bytes(b"no model")
    with Worker(Settings(broken, "onnxruntime")) as opened, pytest.raises(BundleError, match="sha256"):
        opened.load()


def test_a_process_that_dies_is_named(bundle: Path) -> None:
    with Worker(Settings(bundle, "onnxruntime")) as opened:
        opened.load()
        os.kill(opened._process.pid, signal.SIGKILL)
        with pytest.raises(BenchmarkError, match="died of signal 9"):
            opened.run(1)


def test_a_process_does_not_outlive_its_block(bundle: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Worker(Settings(bundle, "onnxruntime")) as opened:
        raise KeyboardInterrupt
    assert opened._process.returncode is not None


def test_a_module_in_the_current_directory_is_not_imported(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    with Worker(Settings(bundle, "onnxruntime")) as opened:
        assert opened.load().format == "onnx"


@pytest.mark.parametrize(
    ("samples", "stable"),
    [([100] * 9, False), ([100] * 10, True), ([200] * 5 + [100] * 5, False), ([900] * 9 + [101] * 5 + [100] * 5, True)],
)
def test_warm_up_ends_when_times_no_longer_change(samples: list[int], stable: bool) -> None:
    assert is_stable(samples) is stable


# ---- run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(bundle: Path) -> LatencyRun:
    return measure(bundle, ["onnxruntime"], runs=25, processes=2)


def test_a_run_is_a_latency_run(measured: LatencyRun, bundle: Path) -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(measured.as_bytes()), schema)
    (entry,) = measured.measurements
    assert {phase: len(entry.samples_ns(phase)) for phase in entry.document["phases"]} == {
        "load": 2,
        "first_run": 2,
        "preprocess": 20,
        "inference": 25,
        "postprocess": 20,
    }
    assert [len(part) for part in entry.by_process_ns("inference")] == [13, 12]
    artifact = Bundle.open(bundle).artifact("onnx")
    assert entry.document["artifact"] == {
        "format": "onnx",
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
    }
    assert entry.document["phases"]["inference"]["warm_ups_ns"]
    assert measured.document["tools"].keys() >= {"python", "onnxruntime", "xformer-mobile"}


def test_statistics() -> None:
    found = Statistics.of(range(1, 102))
    assert (found.count, found.min_ns, found.p50_ns, found.p90_ns, found.p99_ns) == (101, 1, 51, 91, 100)
    assert found.spread == pytest.approx(40 / 51)
    assert Statistics.of([7]) == Statistics(1, 7, 7, 7, 7, 0.0)


def test_engines_are_those_that_fit(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert choose_engines(opened, ()) == ("onnxruntime",)
    assert choose_engines(opened, ["onnxruntime", "onnxruntime"]) == ("onnxruntime",)
    with pytest.raises(UsageError, match="litert runs tflite"):
        choose_engines(opened, ["litert"])
    with pytest.raises(UsageError, match="unknown engine"):
        choose_engines(opened, ["tflite"])


def test_every_artifact_that_an_engine_runs_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    several: Any = SimpleNamespace(formats=("onnx", "ort", "tflite"))
    assert choose_artifacts(several, ["litert", "onnxruntime"]) == (
        ("litert", "tflite"),
        ("onnxruntime", "onnx"),
        ("onnxruntime", "ort"),
    )


def test_what_is_only_evaluated_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    both: Any = SimpleNamespace(formats=("onnx", "coreml"), path=Path("bundle"))
    monkeypatch.setattr(Engine, "is_installed", True)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert choose_engines(both, ()) == ("onnxruntime",)
    with pytest.raises(UnavailableError, match="coreml runs on Darwin only"):
        choose_engines(both, ["coreml"])
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert choose_engines(both, ()) == ("onnxruntime", "coreml")


# ---- files --------------------------------------------------------------------------------------------------


def document(**inference: Any) -> dict[str, Any]:
    """A small LatencyRun, as a phone would write it."""
    return {
        "schema_version": "1.0",
        "generator": {"name": "xformer-android", "version": "1.0"},
        "created": "2025-01-01T00:00:00Z",
        "machine": {"id": "phone", "system": "Android", "model": "Pixel <8>"},
        "tools": {"litert": "1.0"},
        "measurements": [
            {
                "model": {"task": "classify", "variant": "xformer_s", "precision": "fp16", "image_size": [256, 256]},
                "artifact": {"format": "tflite", "sha256": "0" * 64, "size_bytes": 1000},
                "engine": {"name": "litert", "threads": None, "accelerator": "gpu"},
                "phases": {"inference": {"samples_ns": [10_000_000 + 1000 * i for i in range(100)], **inference}},
            }
        ],
    }


def test_unknown_fields_survive(call: Call, tmp_path: Path) -> None:
    written = document(battery=[1, {"level": 0.5}])
    written["schema_version"] = "1.7"
    written["thermal"] = {"zones": [41.5, "warm"]}
    written["measurements"][0]["phases"]["camera"] = {"samples_ns": [5, 6, 7]}
    written["measurements"][0]["phases"]["strange"] = {"samples_ns": "none"}
    file = tmp_path / "phone.json"
    file.write_text(json.dumps(written))
    assert json.loads(LatencyRun.read(file).as_bytes()) == written
    status, out, err = call("bench", "show", file, "--json")
    assert (status, err) == (0, "")
    (shown,) = json.loads(out)["files"]
    assert shown["latency_run"] == written
    assert shown["measurements"][0]["figures"].keys() == {"inference", "camera"}


HOSTILE: dict[str, Any] = {
    "a list": [],
    "a number": 5,
    "no measurements": {**document(), "measurements": []},
    "no samples": document(samples_ns=[]),
    "a float": document(samples_ns=[1.5]),
    "a truth": document(samples_ns=[True]),
    "negative": document(samples_ns=[-1]),
    "beyond reason": document(samples_ns=[10**30]),
    "text for a number": document(samples_ns=["1"]),
    "processes of text": document(processes=["1"]),
    "a name of a number": {**document(), "machine": {"id": 5, "system": "x"}},
    "no machine": {key: value for key, value in document().items() if key != "machine"},
    "a date of another kind": {**document(), "created": "yesterday"},
    "a date and a newline": {**document(), "created": "2025-01-01T00:00:00Z\n"},
    "a newer major version": {**document(), "schema_version": "2.0"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_on_one_line(name: str, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "hostile.json"
    file.write_text(json.dumps(HOSTILE[name]))
    status, out, err = call("bench", "show", file)
    assert (status, out) == (1, "")
    assert err.startswith("xformer-bench: error: ")
    assert "internal error" not in err
    assert str(file) in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b'{"a": NaN}',
        b'{"schema_version": "1.0", "created": 1e999}',
        b"9" * 5000,
    ],
    ids=["empty", "not UTF-8", "cut off", "nested", "NaN", "infinite", "a long number"],
)
def test_a_hostile_file_is_refused_on_one_line(content: bytes, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "hostile.json"
    file.write_bytes(content)
    status, _, err = call("bench", "show", file)
    assert status == 1
    assert "internal error" not in err
    assert str(file) in err


def test_processes_that_do_not_add_up_are_one() -> None:
    (entry,) = LatencyRun.of(document(processes=[99, 99])).measurements
    assert [len(part) for part in entry.by_process_ns("inference")] == [100]


def test_a_page_and_a_picture_hold_no_markup_of_the_file(tmp_path: Path) -> None:
    written = document()
    written["machine"]["model"] = "<script>alert(1)</script>"
    written["tools"]["<b>"] = "\x00\ud800"
    files = {"<i>.json": LatencyRun.of(written), "b.json": LatencyRun.of(document())}
    page = html_page(files)
    page.encode()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<i>" not in page
    assert "<b>" not in page
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://creativecommons.org", "").replace(
        "http://purl.org", ""
    )
    assert distribution_svg(files) == distribution_svg(copy.deepcopy(files))


def test_show_writes_a_page_and_a_picture(call: Call, tmp_path: Path) -> None:
    file, other = tmp_path / "phone.json", tmp_path / "other.json"
    file.write_text(json.dumps(document()))
    other.write_text(json.dumps({**document(), "machine": {"id": "other", "system": "iOS"}}))
    status, out, err = call("bench", "show", file, other, "--html", tmp_path / "a.html", "--plot", tmp_path / "a.svg")
    assert status == 0
    assert "Pixel <8>, Android" in out
    assert "10.05 ms" in out  # p50
    assert "different machines" in err
    assert "not comparable" in (tmp_path / "a.html").read_text("utf-8")
    assert (tmp_path / "a.svg").read_text("utf-8").startswith("<?xml")


def test_a_histogram_in_ascii() -> None:
    assert histogram([5] * 100) == ""
    assert histogram([1, 2, 3]) == ""
    drawn = histogram([*range(100), *([50] * 300)])
    assert drawn.isascii()
    assert drawn.count("@") == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"samples_ns": [10, 20, 30] * 10}, "is known to"),
        ({"samples_ns": [10, 11, 10]}, "is not known at all"),
        ({"samples_ns": [100] * 60 + [120] * 40, "processes": [60, 40]}, "a process differs from the others by 20.0%"),
    ],
)
def test_noise_is_admitted(change: dict[str, Any], reason: str | None) -> None:
    (entry,) = LatencyRun.of(document(**change)).measurements
    assert (noise_of(entry) == []) if reason is None else (reason in " ".join(noise_of(entry)))


def test_noise_that_the_system_tells(tmp_path: Path) -> None:
    written = document()
    for found, reason in (
        ({"preempted": 50}, "took the processor away"),
        ({"unstable_warm_ups": 1}, "still changing"),
        ({"thermal_state": "severe"}, "thermal state was severe"),
    ):
        written["measurements"][0]["disturbances"] = found
        (entry,) = LatencyRun.of(written).measurements
        (said,) = noise_of(entry)
        assert reason in said


# ---- the command --------------------------------------------------------------------------------------------


def test_run_compare_and_show(call: Call, bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    status, out, err = call("bench", "run", bundle, "--runs", 20, "--processes", 1, "--output", file)
    assert (status, err) == (0, "")
    assert "inference" in out
    assert "over the loaded model" in out
    assert LatencyRun.read(file).measurements[0].name.startswith("xformer_xxs classify 64x64 fp32, onnx on onnxruntime")
    status, out, err = call("bench", "run", bundle, "--runs", 10, "--processes", 1, "--json")
    LatencyRun.of(json.loads(out))
    written = tmp_path / "pairs.json"
    status, out, err = call("bench", "compare", bundle, bundle, "--pairs", 5, "--budget", 20, "--output", written)
    assert (status, err) == (0, "")
    assert out.startswith("can't tell: ")
    assert len(json.loads(written.read_text())["pairs"]) == 5


def test_only_a_regression_fails(call: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.test_bench_compare import _compare

    for ratio, verdict, status in (
        (1.1, "slower", 1),
        (0.9, "faster", 0),
        (1.0, "no change", 0),
        (1.03, "can't tell", 0),
    ):
        found, _, _ = _compare(ratio)
        monkeypatch.setattr(command, "compare", lambda *arguments, found=found: found)
        code, out, _ = call("bench", "compare", bundle, bundle, "--json")
        assert json.loads(out)["verdict"] == verdict
        assert code == status
        code, out, _ = call("bench", "compare", bundle, bundle)
        assert out.startswith(f"{verdict}: ")
        assert code == status


def test_files_are_never_compared(call: Call, bundle: Path, tmp_path: Path) -> None:
    names = []
    for name, machine_id in (("a", "one"), ("b", "two"), ("c", "one")):
        written = document()
        written["machine"]["id"] = machine_id
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(written))
        names.append(file)
    status, _, err = call("bench", "compare", names[0], names[1])
    assert status == 2
    assert "different machines" in err
    assert "Pixel <8>" in err
    status, _, err = call("bench", "compare", names[0], names[2])
    assert status == 2
    assert "stored measurements" in err
    status, _, err = call("bench", "compare", names[0], bundle)
    assert status == 2
    assert "takes two bundles" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command"),
        (["run"], "Missing argument"),
        (["fly"], "No such command"),
        (["compare", "a"], "got 1 of BASE and CANDIDATE"),
        (["compare", "a", "b", "--max-regression", "3"], "in percent"),
        (["compare", "a", "b", "--max-regression", "nan%"], "in percent"),
        (["compare", "a", "b", "--max-regression", "-1%"], "in percent"),
        (["compare", "a", "b", "--candidate-rev", "x"], "go with --base-rev"),
        (["compare", "a", "b", "--base-rev", "x"], "not both"),
        (["counts", "a", "--max-speed", "3"], "No such option"),
        (["show"], "Missing argument"),
    ],
)
def test_wrong_usage(call: Call, arguments: list[str], message: str) -> None:
    status, out, err = call("bench", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_different_work_is_not_compared(call: Call, make_bundle: MakeBundle) -> None:
    status, _, err = call("bench", "compare", make_bundle("classify"), make_bundle("segment"))
    assert status == 2
    assert "do different work" in err


# ---- revisions ----------------------------------------------------------------------------------------------

EXPORTER = """
import shutil, sys
def export_main():
    if "--fail" in sys.argv:
        sys.exit("xformer-export: error: it can't be")
    import xformer_export
    output = sys.argv[sys.argv.index("--output") + 1]
    shutil.copytree({bundle!r}, output)
    with open({log!r}, "a") as log:
        print({revision!r}, xformer_export.REVISION, *sys.argv[1:2], file=log)
"""


@pytest.fixture
def repository(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two revisions, whose exporter copies a bundle and writes down which it is."""
    root = tmp_path / "project"
    (root / "xformer_mobile/cli").mkdir(parents=True)
    (root / "export").mkdir()
    (root / "xformer_mobile/__init__.py").touch()

    def write(revision: str) -> None:
        exporter = EXPORTER.format(bundle=str(bundle), log=str(tmp_path / "log"), revision=revision)
        (root / "xformer_mobile/cli/__init__.py").write_text(exporter)
        (root / "export/__init__.py").write_text(f"REVISION = {revision!r}\n")

    monkeypatch.chdir(root)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    for revision in ("one", "two"):
        write(revision)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", revision], check=True)
        subprocess.run([*git, "tag", revision], check=True)
    write("working tree")
    return root


def _log(repository: Path) -> list[str]:
    return (repository.parent / "log").read_text().splitlines()


def test_revisions_are_exported_with_their_own_code(call: Call, repository: Path) -> None:
    arguments = ["--pairs", 3, "--json", "--export", "--format=onnx"]
    status, out, err = call("bench", "compare", "--base-rev", "one", "--candidate-rev", "two", *arguments)
    assert status == 0, err
    document = json.loads(out)
    assert (document["base"], document["candidate"], len(document["pairs"])) == ("one", "two", 3)
    status, out, _ = call("bench", "compare", "--base-rev", "one", *arguments)
    assert json.loads(out)["candidate"] == "the working tree"
    assert _log(repository) == [f"{name} {name} --format=onnx" for name in ("one", "two", "one", "working tree")]
    listed = subprocess.run(["git", "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert listed.count("\n") == 1  # nothing is left behind


def test_revisions_that_do_not_work_are_one_line(
    call: Call, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = call("bench", "compare", "--base-rev", "three", "--quiet")
    assert status == 2
    assert "no revision 'three'" in err
    status, _, err = call("bench", "compare", "--base-rev=--all", "--quiet")
    assert status == 2
    status, _, err = call("bench", "compare", "--base-rev", "one", "--export", "--fail", "--quiet")
    assert status == 1
    assert "the export of one failed with exit status 1: xformer-export: error: it can't be" in err
    listed = subprocess.run(["git", "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert listed.count("\n") == 1
    status, _, err = call("bench", "compare", "--base-rev", "one", "--export", "--output x")
    assert status == 2
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    status, _, err = call("bench", "compare", "--base-rev", "one")
    assert status == 2
    assert "needs a clone of the project" in err
