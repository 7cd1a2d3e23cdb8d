"""Work side by side, each piece in a process of its own.

A process is handed what to call, and answers with the steps that it begins and with what was returned or raised. It
finds its modules where this one does. Where this process stops for whatever reason, the others are stopped too.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from xformer_mobile.chatter import silenced
from xformer_mobile.errors import ConversionError, XFormerError

__all__ = ["Job", "beside", "cores", "main", "run_jobs"]

BOOT = """
import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started this
import sys; sys.path[:] = sys.argv[2:]
from xformer_export.side_by_side import main; main(int(sys.argv[1]))
"""

END_SECONDS = 10

Job = Callable[[Callable[[str], None]], Any]
"""What can be pickled and is called with a function that takes the name of each step as it begins."""


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs: Mapping[str, Job], processes: int, report: Callable[[str, str], None]) -> dict[str, Any]:
    """Run the jobs, by name, ``processes`` at a time, in their order; returns what each has returned.

    ``report`` is called with each step and the name of the job that begins it, and with no step where a job ends.

    Raises:
        Exception: what the first job to fail has raised; then the others are stopped.
        ConversionError: a process ended without an answer.
    """
    waiting = dict(jobs)
    running: dict[Any, tuple[str, subprocess.Popen[bytes]]] = {}
    made: dict[str, Any] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                name = next(iter(waiting))
                _start(running, name, waiting.pop(name))
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                name, process = running[connection]
                kind, content = _receive(connection, name, process)
                if kind == "step":
                    report(content, name)
                    continue
                made[name] = content
                report("", name)
                connection.close()
                process.wait()
                del running[connection]
    finally:
        _stop(running)
    return {name: made[name] for name in jobs}


@contextlib.contextmanager
def beside(name: str, job: Job) -> Iterator[Callable[[], Any]]:
    """Run a job while this process goes on; what is yielded waits for the job's end and returns what it has returned.

    Where there is one processor only, the job runs in this process, when its result is asked for.

    Raises:
        Exception: what the job has raised, where its result is asked for.
        ConversionError: its process ended without an answer.
    """
    if cores() == 1:
        yield lambda: job(lambda step: None)
        return
    running: dict[Any, tuple[str, subprocess.Popen[bytes]]] = {}

    def result() -> Any:
        ((connection, (_, process)),) = running.items()
        while True:
            kind, content = _receive(connection, name, process)
            if kind == "returned":
                return content

    try:
        _start(running, name, job)
        yield result
    finally:
        _stop(running)


def _start(running: dict[Any, tuple[str, subprocess.Popen[bytes]]], name: str, job: Job) -> None:
    """Start a process that does the job, and add it to those that are running, by our end of its pipe."""
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        number = theirs.fileno()
        command = [sys.executable, "-c", BOOT, str(number), *sys.path]
        running[ours] = name, subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[number])
    ours.send_bytes(pickle.dumps(job))


def _receive(connection: Connection, name: str, process: subprocess.Popen[bytes]) -> tuple[str, Any]:
    """What a process says next: the kind of what it is, and that. What it has raised is raised."""
    try:
        kind, content = connection.recv()
    except EOFError:
        raise ConversionError(f"{name}: the process ended with status {process.wait()}") from None
    if kind == "raised":
        error, trace = content
        raise error from RuntimeError(trace)  # shown with --debug
    return kind, content


def _stop(running: Mapping[Any, tuple[str, subprocess.Popen[bytes]]]) -> None:
    for _, process in running.values():
        process.terminate()
    for connection, (_, process) in running.items():
        connection.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ---- the process ------------------------------------------------------------------------------------------


def main(descriptor: int) -> None:
    """The process: do the one job that comes through the pipe."""
    signal.signal(signal.SIGTERM, _end)
    with Connection(descriptor) as parent:
        try:
            with silenced():
                job: Job = pickle.loads(parent.recv_bytes())
            answer = "returned", job(lambda step: parent.send(("step", step)))
        except Exception as error:
            told = error if isinstance(error, XFormerError) else RuntimeError(f"{type(error).__name__}: {error}")
            answer = "raised", (told, traceback.format_exc())
        parent.send(answer)


def _end(number: int, frame: object) -> NoReturn:
    """Unwind, which removes temporary files."""
    sys.exit(1)
