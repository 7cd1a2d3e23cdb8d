"""What libraries print: kept from the user's terminal, and kept for the one who needs it.

Converters and engines write to the descriptors of stdout and stderr, from Python and from C++; so it is the
descriptors that are redirected, for the whole process. Progress goes on: it has a descriptor of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from xformer_mobile.files import output_errors

__all__ = ["chatter_to", "silenced"]


@contextlib.contextmanager
def chatter_to(log: Path) -> Iterator[None]:
    """Write what is printed in the block, on stdout and stderr, to the file ``log``.

    Raises:
        OutputError: the log can't be written.
    """
    with output_errors(log):
        file = log.open("wb")
    with file, _redirected(file.fileno()):
        yield


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Drop what is printed in the block."""
    with Path(os.devnull).open("wb") as nothing, _redirected(nothing.fileno()):
        yield


@contextlib.contextmanager
def _redirected(descriptor: int) -> Iterator[None]:
    _flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    try:
        for number, _ in kept:
            os.dup2(descriptor, number)
        yield
    finally:
        _flush()
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)  # what C has printed waits in buffers of its own
