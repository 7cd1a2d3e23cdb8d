"""The commands. Each entry point imports its command when it is called, so that ``--help`` is quick."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["export_main", "predict_main", "verify_main"]


def export_main() -> NoReturn:
    """``xformer-export``."""
    _main("export")


def predict_main() -> NoReturn:
    """``xformer-predict``."""
    _main("predict")


def verify_main() -> NoReturn:
    """``xformer-verify``."""
    _main("verify")


def _main(name: str) -> NoReturn:
    from xformer_mobile.cli.common import run_command

    run_command(name)
