"""The commands. Each entry point imports its command when it is called, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

__all__ = [
    "bench_main",
    "check_interrupt",
    "deferred_interrupt",
    "doctor_main",
    "eval_main",
    "export_main",
    "predict_main",
    "train_main",
    "verify_main",
]

INTERRUPTED = "interrupted; what was not finished is not written"

AGAIN_SECONDS = 0.1

_received: list[int] = []
"""The signals that asked us to stop."""

_deferring: list[bool] = []
"""Not empty while a stop has to wait."""


def bench_main() -> NoReturn:
    """``xformer-bench``."""
    _main("bench")


def doctor_main() -> NoReturn:
    """``xformer-doctor``."""
    _main("doctor")


def eval_main() -> NoReturn:
    """``xformer-eval``."""
    _main("eval")


def export_main() -> NoReturn:
    """``xformer-export``."""
    _main("export")


def predict_main() -> NoReturn:
    """``xformer-predict``."""
    _main("predict")


def train_main() -> NoReturn:
    """``xformer-train``."""
    _main("train")


def verify_main() -> NoReturn:
    """``xformer-verify``."""
    _main("verify")


def check_interrupt() -> None:
    """Stop here if we were asked to stop and a library has swallowed it, as imports of compiled modules do."""
    if _received:
        raise KeyboardInterrupt


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Around imports of compiled modules, which can crash when they are cut off: stop at the end of the block."""
    _deferring.append(True)
    try:
        yield
    finally:
        _deferring.pop()
        check_interrupt()


def _main(name: str) -> NoReturn:
    try:
        # Before anything else is imported. A polite kill is handled like Ctrl-C: by unwinding, which removes what is
        # unfinished.
        signal.signal(signal.SIGINT, _stop)
        signal.signal(signal.SIGTERM, _stop)
        sys.unraisablehook = _unraisable
        from xformer_mobile.cli.common import run_command

        run_command(name)
    except Exception:
        # An import that was cut off fails in its own ways; any other failure run_command has answered.
        if not _received:
            raise
    except KeyboardInterrupt:
        pass
    print(f"xformer-{name}: error: {INTERRUPTED}", file=sys.stderr)
    sys.exit(1)


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    """Where Python drops an exception, as in callbacks of its garbage collector: a stop is tried again later."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(lost)


def _stop(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if not _deferring:
        raise KeyboardInterrupt
