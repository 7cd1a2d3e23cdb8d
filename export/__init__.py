"""XFormer Mobile's converters: from a reference model to a bundle, and back to what a written artifact computes.

The steps of an export, in :mod:`xformer_export.bundle`: prepare, convert, write, read back, verify, put in place.
:mod:`xformer_export.verification` holds a bundle to the reference model again, layer by layer where it can.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xformer_export.bundle import ExportRequest, build_bundle

__all__ = ["ExportRequest", "build_bundle"]


def __getattr__(name: str) -> Any:
    # On demand: verifying a bundle needs no converter, and works where torch is not installed.
    if name in __all__:
        return getattr(importlib.import_module("xformer_export.bundle"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
