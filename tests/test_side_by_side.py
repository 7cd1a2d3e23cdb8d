"""Work in processes of its own: what comes back, what is told on the way, and that nothing is left running."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from xformer_export import side_by_side
from xformer_export.side_by_side import beside, cores, run_jobs
from xformer_mobile.errors import ConversionError, ParityError

Step = Callable[[str], None]

MODULE = '''
"""Jobs; the processes find this module on the path."""
import os, time
from pathlib import Path
from xformer_mobile.errors import ParityError

def power(base, exponent, step):
    step(f"raise {base}")
    step(f"to {exponent}")
    return base**exponent, os.getpid()

def refuse(step):
    raise ParityError("it does not agree")

def fail(step):
    {}["missing"]

def die(step):
    os._exit(3)

def wait(file, step):
    try:
        step("wait")
        time.sleep(60)
    finally:
        Path(file).write_text("unwound")
'''


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module ``side_jobs``, here and in the processes."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "side_jobs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.delitem(sys.modules, "side_jobs", raising=False)


def job(name: str, *arguments: object) -> Callable[[Step], object]:
    module = __import__("side_jobs")
    return functools.partial(getattr(module, name), *arguments)


@pytest.mark.parametrize("processes", [1, 2])
def test_results_and_steps_come_back_by_name(processes: int) -> None:
    told: list[tuple[str, str]] = []
    made = run_jobs(
        {"b": job("power", 2, 5), "a": job("power", 3, 2), "c": job("power", 1, 1)},
        processes,
        lambda step, name: told.append((name, step)),
    )
    assert {name: value for name, (value, _) in made.items()} == {"b": 32, "a": 9, "c": 1}
    assert list(made) == ["b", "a", "c"]  # as they were given, whichever was first
    assert len({os.getpid(), *(process for _, process in made.values())}) == 4
    assert [step for name, step in told if name == "b"] == ["raise 2", "to 5", ""]
    if processes == 1:
        assert [name for name, _ in told] == ["b"] * 3 + ["a"] * 3 + ["c"] * 3


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("refuse", ParityError, "it does not agree"),
        ("fail", RuntimeError, "KeyError: 'missing'"),
        ("die", ConversionError, "onnx: the process ended with status 3"),
    ],
)
def test_the_first_failure_stops_the_others(name: str, kind: type[Exception], message: str, tmp_path: Path) -> None:
    steps: list[str] = []
    with pytest.raises(kind, match=message):
        run_jobs(
            {"coreml": job("wait", str(tmp_path / "end")), "onnx": job(name)},
            2,
            lambda step, lane: steps.append(step),
        )
    if steps:  # it had begun
        assert (tmp_path / "end").read_text() == "unwound"


def test_an_interrupt_stops_them_all(tmp_path: Path) -> None:
    ends = [tmp_path / "0", tmp_path / "1"]
    begun: list[str] = []

    def report(step: str, name: str) -> None:
        begun.append(name)
        if len(begun) == len(ends):
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    since = time.monotonic()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs({end.name: job("wait", str(end)) for end in ends}, 2, report)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - since < 60, "they were waited for"
    assert [end.read_text() for end in ends] == ["unwound"] * 2


@pytest.mark.parametrize("processors", [1, 2])
def test_a_job_runs_beside(processors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "cores", lambda: processors)
    with beside("size", job("power", 2, 5)) as result:
        made, process = result()
    assert made == 32
    assert (process == os.getpid()) == (processors == 1)


def test_a_job_beside_fails_where_its_result_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "cores", lambda: 2)
    with beside("size", job("refuse")) as result, pytest.raises(ParityError, match="it does not agree"):
        result()
    with beside("size", job("die")) as result, pytest.raises(ConversionError, match="size: the process ended with"):
        result()


def test_nobody_waits_for_a_job_beside_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "cores", lambda: 2)
    since = time.monotonic()
    with pytest.raises(ZeroDivisionError), beside("size", job("wait", str(tmp_path / "end"))):
        raise ZeroDivisionError
    assert time.monotonic() - since < 60, "it was waited for"


def test_there_is_a_processor() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
