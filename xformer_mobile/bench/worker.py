"""One engine in a process of its own, told over a pipe what to do: load, warm up, run, stop.

:class:`Worker` is the side that gives orders; :func:`main` is the process. The process pins itself and sets its
arithmetic before anything of the engine is imported, so that the engine's threads inherit both. Orders and answers are
lines of JSON; what libraries print goes to a file, whose end an error repeats.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from PIL import Image

from xformer_mobile import errors
from xformer_mobile.artifact import Bundle
from xformer_mobile.bench import machine
from xformer_mobile.errors import BenchmarkError, XFormerError
from xformer_mobile.optional import import_coremltools, require
from xformer_mobile.patterns import golden_picture
from xformer_mobile.preprocess import preprocess
from xformer_mobile.runners import ENGINES, LooseArtifact, Runner, open_loose, open_runner
from xformer_mobile.spec import ImageSize

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Loaded", "Sample", "Settings", "WarmUp", "Worker", "is_stable", "main"]

BOOT = "import sys; sys.path[:] = sys.argv[1:]; from xformer_mobile.bench.worker import main; main()"
"""The process finds its modules where this one does, and never in the directory that it is started from."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

IMPORTS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "onnxruntime-xnnpack": ("onnxruntime",),
    "litert": ("ai_edge_litert.interpreter",),
    "executorch": ("torch", "executorch.runtime", "executorch.extension.pybindings.portable_lib"),
    "coreml": (),
}
"""What each engine imports; coremltools needs care, see :mod:`xformer_mobile.optional`."""

SOURCE_SIZE = ImageSize(448, 640)
"""The picture that preprocessing is timed on, about that of a phone's preview."""

WINDOW = 5
"""Warm-up compares the median of so many runs with that of those before them."""

STABLE_WITHIN = 0.02

MAX_WARM_UPS = 100

MAX_WARM_UP_NS = 10_000_000_000

END_SECONDS = 10


@dataclass(frozen=True)
class Settings:
    """What a process measures, and how: ``model`` is a bundle's directory, or an artifact that is in none.

    ``cpus`` empty leaves the choice to the system. ``format`` is which of a bundle's artifacts; None is the first that
    the engine runs.
    """

    model: Path | LooseArtifact
    engine: str
    threads: int = 1
    cpus: tuple[int, ...] = ()
    format: str | None = None


@dataclass(frozen=True)
class Loaded:
    """What loading took and found. Nothing of it contains the import of the engine's package.

    ``rss_start_bytes`` is before the model is loaded, ``rss_loaded_bytes`` after; None where the system does not say.
    ``denormals`` says in words how the engine is guarded against them.
    """

    load_ns: int
    first_run_ns: int
    format: str
    pinned: bool
    denormals: str
    rss_start_bytes: int | None
    rss_loaded_bytes: int | None


@dataclass(frozen=True)
class WarmUp:
    """Runs that do not count. ``stable`` is false where they were still changing when we stopped."""

    samples_ns: tuple[int, ...]
    stable: bool


@dataclass(frozen=True)
class Sample:
    """Consecutive runs of one order.

    ``wall_ns`` and ``cpu_ns`` are of each run, the latter of all threads of the process. ``preempted`` is how often
    meanwhile the system took the processor away.
    """

    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    preempted: int


class Worker:
    """A process that holds one loaded model. Use as a context manager: it is started on entry and gone on exit."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(self.settings.threads))}
        self._chatter = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, *(os.path.abspath(entry) for entry in sys.path)],  # noqa: PTH100 (as is)
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._chatter,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the one who gives the orders
            )
        except OSError:
            self._chatter.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            if error is not None:
                process.kill()  # it may be in the middle of a run
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # the end of the orders
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        finally:
            self._chatter.close()

    def prepare(self) -> None:
        """Import the engine's package: that is no part of loading a model. Not pinned yet, it disturbs others."""
        self._order("prepare", engine=self.settings.engine)

    def load(self) -> Loaded:
        """Load the model and run it once."""
        settings = {**asdict(self.settings), "model": _told(self.settings.model)}
        return Loaded(**self._order("load", settings=settings))

    def warm_up(self, limit_ns: int = MAX_WARM_UP_NS) -> WarmUp:
        """Run until the time of a run no longer changes, or until ``limit_ns`` have been spent on it."""
        answer = self._order("warm_up", limit_ns=limit_ns)
        return WarmUp(tuple(answer["samples_ns"]), answer["stable"])

    def run(self, count: int) -> Sample:
        """Run ``count`` times, one after the other."""
        answer = self._order("run", count=count)
        return Sample(tuple(answer["wall_ns"]), tuple(answer["cpu_ns"]), answer["preempted"])

    def phases(self, count: int) -> dict[str, list[int]]:
        """Preprocess and postprocess ``count`` times; nanoseconds by phase. A bundle has rules for both."""
        answer: dict[str, list[int]] = self._order("phases", count=count)
        return answer

    def peak_bytes(self) -> int | None:
        """The most memory that was resident since the model was loaded; None where the system does not say."""
        peak: int | None = self._order("peak")["rss_peak_bytes"]
        return peak

    def _order(self, name: str, **arguments: Any) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"order": name, **arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchmarkError(f"{self._who()} died {self._how()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            # Of our own tree, so that the exit status is the same as without a process between.
            kind = getattr(errors, answer["kind"], BenchmarkError)
            raise kind(answer["error"])
        return answer

    def _who(self) -> str:
        model = self.settings.model
        return f"the process that measures {self.settings.engine} on {model if isinstance(model, Path) else model.path}"

    def _how(self) -> str:
        assert self._process is not None
        status = self._process.wait()
        self._chatter.seek(0)
        said = " ".join(self._chatter.read()[-2000:].split())[-200:]
        how = f"of signal {-status}" if status < 0 else f"with exit status {status}"
        return f"{how}; the last it said: {said}" if said else how


def _told(model: Path | LooseArtifact) -> dict[str, Any]:
    """A model as JSON; :func:`_opened` is the other end. Paths are absolute, but links are not followed."""
    if isinstance(model, Path):
        return {"bundle": os.path.abspath(model)}  # noqa: PTH100
    size = model.image_size
    return {
        "path": os.path.abspath(model.path),  # noqa: PTH100
        "format": model.format,
        "image_size": [size.height, size.width],
        "output_shapes": {name: list(shape) for name, shape in model.output_shapes.items()},
    }


# ---- the process ------------------------------------------------------------------------------------------


def main() -> None:
    """The process: answer orders from stdin until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    engine = _Engine()
    orders: dict[str, Callable[..., dict[str, Any]]] = {
        "prepare": engine.prepare,
        "load": engine.load,
        "warm_up": engine.warm_up,
        "run": engine.run,
        "phases": engine.phases,
        "peak": engine.peak,
    }
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = orders[order.pop("order")](**order)
        except XFormerError as error:
            answer = {"error": str(error), "kind": type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    engine.close()


class _Engine:
    """What the process holds."""

    def __init__(self) -> None:
        self.runner: Any = None
        self.bundle: Bundle | None = None

    def prepare(self, engine: str) -> dict[str, Any]:
        for module in IMPORTS[engine]:
            with contextlib.suppress(XFormerError):  # opening the engine says what to type
                require(module, extra="run")
        if engine == "coreml":
            with contextlib.suppress(XFormerError):
                import_coremltools()
        return {}

    def load(self, settings: dict[str, Any]) -> dict[str, Any]:
        pinned = bool(settings["cpus"]) and machine.pin(settings["cpus"])
        guarded = machine.flush_denormals()
        row = ENGINES[settings["engine"]]
        model = _opened(settings["model"])
        if isinstance(model, Bundle):
            self.bundle = model
            format = settings["format"] or next((name for name in row.formats if name in model.formats), None)
            runner = open_runner(model, row.name, format=format, threads=settings["threads"])
        else:
            format = model.format
            runner = open_loose(model, row.name, threads=settings["threads"])
        runner.flush_denormals = True
        self.source = Image.fromarray(golden_picture(1, SOURCE_SIZE)[0])
        self.image = golden_picture(0, model.image_size)
        gc.collect()
        gc.disable()
        before = machine.resident_bytes()
        since = time.perf_counter_ns()
        runner.open()
        load_ns = time.perf_counter_ns() - since
        machine.restart_peak()
        loaded = machine.resident_bytes()
        self.runner = runner
        first_run_ns = self._timed()[0]
        return {
            "load_ns": load_ns,
            "first_run_ns": first_run_ns,
            "format": format,
            "pinned": pinned,
            "denormals": _guard(runner, guarded),
            "rss_start_bytes": before,
            "rss_loaded_bytes": loaded,
        }

    def warm_up(self, limit_ns: int) -> dict[str, Any]:
        samples: list[int] = []
        while not is_stable(samples) and len(samples) < MAX_WARM_UPS and sum(samples) < limit_ns:
            samples.append(self._timed()[0])
        return {"samples_ns": samples, "stable": is_stable(samples)}

    def run(self, count: int) -> dict[str, Any]:
        before = _preemptions()
        samples = [self._timed() for _ in range(count)]
        return {
            "wall_ns": [wall for wall, _ in samples],
            "cpu_ns": [cpu for _, cpu in samples],
            "preempted": _preemptions() - before,
        }

    def phases(self, count: int) -> dict[str, Any]:
        assert self.bundle is not None
        rule, size = self.bundle.postprocess(), self.bundle.image_size
        samples: dict[str, list[int]] = {"preprocess": [], "postprocess": []}
        outputs = self.runner.run(self.image)
        for _ in range(count):
            since = time.perf_counter_ns()
            _, fit = preprocess(self.source, size, self.bundle.resize_rule)
            middle = time.perf_counter_ns()
            rule(outputs, fit)
            end = time.perf_counter_ns()
            samples["preprocess"].append(middle - since)
            samples["postprocess"].append(end - middle)
        return samples

    def peak(self) -> dict[str, Any]:
        return {"rss_peak_bytes": machine.resident_bytes("VmHWM")}

    def close(self) -> None:
        if self.runner is not None:
            self.runner.close()

    def _timed(self) -> tuple[int, int]:
        cpu, since = time.process_time_ns(), time.perf_counter_ns()
        self.runner.run(self.image)
        return time.perf_counter_ns() - since, time.process_time_ns() - cpu


def _opened(told: dict[str, Any]) -> Bundle | LooseArtifact:
    if "bundle" in told:
        return Bundle.open(Path(told["bundle"]))
    shapes = {name: tuple(shape) for name, shape in told["output_shapes"].items()}
    return LooseArtifact(Path(told["path"]), told["format"], ImageSize(*told["image_size"]), shapes)


def is_stable(samples_ns: Sequence[int]) -> bool:
    """Whether the last runs took as long as those before them, by their medians."""
    if len(samples_ns) < 2 * WINDOW:
        return False
    before, last = samples_ns[-2 * WINDOW : -WINDOW], samples_ns[-WINDOW:]
    return abs(statistics.median(last) / statistics.median(before) - 1) <= STABLE_WITHIN


def _guard(runner: Runner, guarded: bool) -> str:
    """How denormals are kept out, in words."""
    if runner.flush_denormals and runner.engine.startswith("onnxruntime"):
        return "flushed by the engine"
    if guarded and machine.flushes_denormals():
        return "flushed in the thread that opens the engine and in those it starts"
    return "not guarded against"


def _preemptions() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
