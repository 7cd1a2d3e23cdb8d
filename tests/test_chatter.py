"""What libraries print goes where it is sent: from Python, from C and from other processes; and nothing else does.

Each case is a process of its own, as its descriptors are what is redirected.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xformer_mobile.chatter import chatter_to
from xformer_mobile.errors import OutputError

START = """
import ctypes, os, subprocess, sys
from pathlib import Path
from xformer_mobile.chatter import chatter_to, silenced
log = Path("log")
"""

PRINTERS = {
    "print": "print('noise')",
    "stderr": "print('noise', file=sys.stderr)",
    "without a newline": "sys.stdout.write('noise')",
    "descriptor 1": "os.write(1, b'noise')",
    "descriptor 2": "os.write(2, b'noise')",
    "C": "ctypes.CDLL(None).puts(b'noise')",
    "another process": "subprocess.run(['sh', '-c', 'echo noise'], check=True)",
    "another process, stderr": "subprocess.run(['sh', '-c', 'echo noise >&2'], check=True)",
    "a warning": "import warnings; warnings.warn('noise')",
    "logging": "import logging; logging.basicConfig(); logging.error('noise')",
}
"""What prints "noise" once."""


def _run(code: str, folder: Path) -> tuple[str, str]:
    """What a script prints on stdout and stderr; its working directory is ``folder``."""
    script = folder / "script.py"
    script.write_text(START + code)
    # As in a shell's pipe: both Python and C buffer what they print, whatever the tests' own environment says.
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("printer", PRINTERS.values(), ids=PRINTERS)
def test_it_goes_to_the_log_and_nowhere_else(printer: str, tmp_path: Path) -> None:
    code = f"print('before')\nwith chatter_to(log):\n    {printer}\nprint('after')\nprint('error', file=sys.stderr)"
    assert _run(code, tmp_path) == ("before\nafter\n", "error\n")
    assert (tmp_path / "log").read_text().count("noise") >= 1
    assert not {"before", "after", "error"} & set((tmp_path / "log").read_text().split())


@pytest.mark.parametrize("printer", PRINTERS.values(), ids=PRINTERS)
def test_it_is_dropped(printer: str, tmp_path: Path) -> None:
    assert _run(f"with silenced():\n    {printer}\nprint('after')", tmp_path) == ("after\n", "")


def test_all_is_as_before_after_an_exception(tmp_path: Path) -> None:
    code = """
descriptors = sorted(os.listdir("/dev/fd"))
try:
    with chatter_to(log):
        print("noise")
        raise KeyError("lost")
except KeyError as error:
    print("caught", error)
os.write(2, b"error")
assert sorted(os.listdir("/dev/fd")) == descriptors, "a descriptor is left open"
"""
    assert _run(code, tmp_path) == ("caught 'lost'\n", "error")
    assert (tmp_path / "log").read_text() == "noise\n"


def test_one_within_another(tmp_path: Path) -> None:
    code = """
with chatter_to(Path("outer")):
    print("one")
    with chatter_to(Path("inner")):
        print("two")
        with silenced():
            print("three")
    print("four")
print("five")
"""
    assert _run(code, tmp_path) == ("five\n", "")
    assert (tmp_path / "outer").read_text() == "one\nfour\n"
    assert (tmp_path / "inner").read_text() == "two\n"


def test_a_log_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of another time")
    _run("with chatter_to(log):\n    print('noise')", tmp_path)
    assert (tmp_path / "log").read_text() == "noise\n"


@pytest.mark.parametrize("place", ["missing/log", "folder", "file/log"])
def test_a_log_that_can_not_be_written(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=f"can't write .*{place}"), chatter_to(tmp_path / place):
        raise AssertionError("the block is not entered")
