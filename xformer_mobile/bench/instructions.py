"""Executed instructions per inference: counted in processes of their own, by perf or by valgrind.

A process opens the model in its engine, with one thread, and runs it so many times. Two processes that differ in
nothing but that number are counted, and the difference is divided by it: starting, loading and the first runs, which
cost more, drop out. Nothing that draws at random is in such a process where we can help it: a fixed hash seed, no
randomized addresses, a fixed environment, no garbage collection, no JSON Schema (its library's tables are randomized).

:func:`count_instructions` gives the orders; :func:`main` is the process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xformer_mobile import errors
from xformer_mobile.artifact import Bundle
from xformer_mobile.bench import machine
from xformer_mobile.bench.worker import THREAD_VARIABLES
from xformer_mobile.errors import BenchmarkError, UnavailableError, UsageError, XFormerError
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners import ENGINES, Engine
from xformer_mobile.spec import ImageSize, lookup

__all__ = ["InstructionCount", "Tool", "choose", "count_instructions", "find_tool", "main", "origin_of"]

BOOT = (
    "import sys; job, runs, sys.path[:] = sys.argv[1], int(sys.argv[2]), sys.argv[3:]; "
    "from xformer_mobile.bench.instructions import main; main(job, runs)"
)
"""The process finds its modules where this one does, and never in the directory that it is started from."""

KEPT_VARIABLES = ("HOME", "LD_LIBRARY_PATH", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "TMPDIR")
"""The rest of the environment would move the stack."""

FIXED_VARIABLES = {
    **dict.fromkeys(THREAD_VARIABLES, "1"),
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
}

FIRST_RUNS = 1
"""The runs of the process whose count is taken away."""

COUNTED_MACS = 500_000_000
"""The model is run until it has made so many: what a start varies by is spread over all runs that are counted.
valgrind takes about a minute for a thousand million, for it computes each fused multiply-add in software."""

MIN_RUNS, MAX_RUNS = 2, 100

SECONDS = 3600
"""A process that has not ended by then is given up."""

NOT_COUNTED = "coreml"
"""Core ML runs on macOS only, where there is neither perf nor valgrind."""


@dataclass(frozen=True)
class InstructionCount:
    """Instructions of one inference, and how they were counted: see :func:`origin_of`."""

    instructions: int
    runs: int
    origin: dict[str, str]
    note: str


@dataclass(frozen=True)
class Tool:
    """What counts the instructions of a process.

    ``command(log)`` goes before the process's own command line; ``read(text)`` finds the count in the log, or None.
    ``processor`` is the one whose instructions they are, and ``note`` what to know of that.
    """

    name: str
    command: Callable[[Path], list[str]]
    read: Callable[[str], int | None]
    processor: str
    note: str


# ---- what counts --------------------------------------------------------------------------------------------


def find_tool() -> Tool:
    """perf, where the processor's counters can be read; else valgrind.

    Raises:
        UnavailableError: neither can count here; the message says what to install.
    """
    perf, valgrind = shutil.which("perf"), shutil.which("valgrind")
    if perf is not None and _perf_counts(perf):
        return Tool(
            _version(perf, r"perf version (\S+)", "perf"),
            lambda log: [perf, "stat", "-x", ",", "-e", "instructions:u", "-o", str(log), "--"],
            _read_perf,
            machine.describe_machine()["cpu"],
            "the processor's own count",
        )
    if valgrind is not None:
        return Tool(
            _version(valgrind, r"valgrind-(\S+)", "valgrind"),
            lambda log: [
                valgrind,
                "--tool=cachegrind",
                "--cache-sim=no",
                "--cachegrind-out-file=/dev/null",
                f"--log-file={log}",
            ],
            _read_valgrind,
            _emulated(),
            "valgrind emulates a processor without AVX-512 and AMX: where an engine would use them, this is the count "
            "of another code path",
        )
    without = "perf has no counters here and valgrind is not" if perf is not None else "neither perf nor valgrind is"
    raise UnavailableError(
        f"instructions can't be counted: {without} installed; type: apt install valgrind (Debian, Ubuntu) or "
        "dnf install valgrind (Fedora)"
    )


def _perf_counts(perf: str) -> bool:
    """Whether perf can count here: in virtual machines there are often no counters, and a kernel may forbid them."""
    command = [perf, "stat", "-x", ",", "-e", "instructions:u", "--", sys.executable, "-I", "-S", "-c", "pass"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and bool(_read_perf(done.stderr))


def _read_perf(text: str) -> int | None:
    found = re.search(r"^(\d+),[^\n]*instructions", text, re.MULTILINE)
    return int(found[1]) if found else None


def _read_valgrind(text: str) -> int | None:
    found = re.findall(r"^==\d+== I +refs: +([\d,]+)$", text, re.MULTILINE)
    return int(found[-1].replace(",", "")) if found else None


def _version(path: str, pattern: str, name: str) -> str:
    try:
        done = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchmarkError(f"can't run {path}: {error}") from error
    found = re.search(pattern, done.stdout)
    return f"{name} {found[1]}" if found else name


def _emulated() -> str:
    """The processor that valgrind shows to a process: on x86-64 it has AVX2 where the real one has it."""
    if platform.machine() != "x86_64":
        return "emulated"
    with contextlib.suppress(OSError):
        if " avx2 " in Path("/proc/cpuinfo").read_text("utf-8", errors="replace"):
            return "emulated, with AVX2"
    return "emulated, without AVX2"


def _fixed_addresses() -> tuple[str, ...]:
    """What to start a process with so that its addresses are the same each time; nothing where that is forbidden."""
    setarch = shutil.which("setarch")
    command = (setarch or "", platform.machine(), "-R")
    if setarch is None:
        return ()
    done = subprocess.run(
        [*command, sys.executable, "-I", "-S", "-c", "pass"], stdin=subprocess.DEVNULL, capture_output=True
    )
    return command if done.returncode == 0 else ()


# ---- what is counted ----------------------------------------------------------------------------------------


def choose(bundle: Bundle, names: Sequence[str]) -> dict[str, Engine]:
    """The engine to count each format with: of those that are asked for, or of all that are installed.

    Raises:
        UsageError: an unknown engine, one whose formats the bundle does not have, or two for one format.
        UnavailableError: Core ML is asked for, or no engine is installed for any of the formats.
    """
    found: dict[str, Engine] = {}
    if names:
        for row in (lookup("engine", name, ENGINES) for name in dict.fromkeys(names)):
            if row.name == NOT_COUNTED:
                raise UnavailableError("Core ML's instructions can't be counted: macOS has neither perf nor valgrind")
            formats = [format for format in row.formats if format in bundle.formats]
            if not formats:
                raise UsageError(
                    f"{row.name} runs {', '.join(row.formats)}; {bundle.path} has {', '.join(bundle.formats)}"
                )
            for format in formats:
                if format in found:
                    raise UsageError(f"{found[format].name} and {row.name} both run {format}; give one of them")
                found[format] = row
        return found
    for row in ENGINES.values():
        for format in row.formats:
            if format in bundle.formats and row.is_installed and row.name != NOT_COUNTED:
                found.setdefault(format, row)
    if not found:
        raise UnavailableError(
            f"no engine whose instructions can be counted is installed for {', '.join(bundle.formats)}; "
            "xformer-doctor says what to type"
        )
    return found


def origin_of(tool: Tool, engine: Engine) -> dict[str, str]:
    """What a count depends on besides the model: counts are comparable where all of this is the same."""
    try:
        version = importlib.metadata.version(engine.package)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return {
        "tool": tool.name,
        "engine": f"{engine.name} {version}",
        "architecture": platform.machine(),
        "processor": tool.processor,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def count_instructions(
    bundle: Bundle, format: str, engine: Engine, tool: Tool, report: Callable[[str], None] = lambda step: None
) -> InstructionCount:
    """Count the instructions of one inference. This takes as long as some tens of inferences in the tool.

    ``report`` is called with each step as it begins.

    Raises:
        XFormerError: the model can't be run, as the engine says it.
        BenchmarkError: the engine can't be run in the tool, or the tool counts nothing.
    """
    job = {
        "path": os.path.abspath(bundle.artifact(format).path),  # noqa: PTH100 (as is)
        "engine": engine.name,
        "image_size": [bundle.image_size.height, bundle.image_size.width],
        "outputs": {name: list(shape) for name, shape in bundle.output_shapes.items()},
    }
    runs = min(max(math.ceil(COUNTED_MACS / max(1, bundle.manifest["model"]["macs"])), MIN_RUNS), MAX_RUNS)
    report(f"try {format} on {engine.name}")
    _run([], job, 1, f"{engine.name} on {bundle.path}")  # says what is wrong, and compiles Python's modules
    counted: list[int] = []
    fixed = _fixed_addresses()
    with tempfile.TemporaryDirectory(prefix="xformer-bench-") as folder:
        for number in (FIRST_RUNS, FIRST_RUNS + runs):
            report(f"count {format} on {engine.name}, {number} runs")
            log = Path(folder) / "log"
            _run([*fixed, *tool.command(log)], job, number, f"{engine.name} in {tool.name}", log)
            found = tool.read(log.read_text("utf-8", errors="replace")) if log.is_file() else None
            if found is None:
                raise BenchmarkError(f"{tool.name} has counted nothing of {engine.name}")
            counted.append(found)
    first, last = counted
    if last <= first:
        raise BenchmarkError(f"{tool.name} counts no more instructions for {runs} more runs of {engine.name}")
    return InstructionCount(round((last - first) / runs), runs, origin_of(tool, engine), tool.note)


def _run(prefix: list[str], job: dict[str, Any], runs: int, who: str, log: Path | None = None) -> None:
    """Run the process to its end, in a tool.

    Raises:
        XFormerError: the process's own error.
        BenchmarkError: it died.
    """
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    environment |= FIXED_VARIABLES
    paths = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 (as is)
    # The number takes the same place each time: the stack begins where the arguments end.
    command = [*prefix, sys.executable, "-c", BOOT, json.dumps(job), f"{runs:06}", *paths]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as chatter:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=chatter,
            text=True,
            env=environment,
            start_new_session=True,  # so that all of it can be stopped at once
        )
        try:
            answer, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"{who} has not ended after {SECONDS} s") from error
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode == 0:
            return
        said = _last_line(answer)
        if said is not None:
            raise getattr(errors, said["kind"], BenchmarkError)(said["error"])
        chatter.seek(0)
        printed = " ".join(chatter.read()[-2000:].split())[-200:]
    noted = log.read_text("utf-8", errors="replace") if log is not None and log.is_file() else ""
    if process.returncode == -signal.SIGILL or "unhandled instruction" in noted or "Illegal opcode" in noted:
        raise BenchmarkError(f"{who} executes an instruction that the tool does not know: it can't be counted there")
    how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit status {process.returncode}"
    raise BenchmarkError(f"{who} died of {how}" + (f"; the last it said: {printed}" if printed else ""))


def _last_line(answer: str) -> dict[str, str] | None:
    try:
        said = json.loads(answer.splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return said if isinstance(said, dict) and {"kind", "error"} <= said.keys() else None


# ---- the process ------------------------------------------------------------------------------------------


def main(text: str, runs: int) -> None:
    """The process: open the model that ``text``, a job as JSON, describes, and run it ``runs`` times."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    job = json.loads(text)
    machine.flush_denormals()
    row = ENGINES[job["engine"]]
    factory = getattr(importlib.import_module(f"xformer_mobile.runners.{row.module}"), row.runner)
    size = ImageSize(*job["image_size"])
    shapes = {name: tuple(shape) for name, shape in job["outputs"].items()}
    image = golden_picture(0, size)
    runner = factory(Path(job["path"]), size, shapes, 1)
    runner.flush_denormals = True
    gc.collect()
    gc.disable()
    try:
        with runner:
            for _ in range(runs):
                runner.run(image)
    except XFormerError as error:
        answers.write(json.dumps({"kind": type(error).__name__, "error": str(error)}) + "\n")
        answers.flush()
        sys.exit(1)
