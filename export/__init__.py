"""XFormer Mobile's converters: from a reference model to a bundle.

The steps, in :mod:`xformer_export.bundle`: prepare, convert, write, read back, verify, put in place.
"""

from __future__ import annotations

from xformer_export.bundle import ExportRequest, build_bundle

__all__ = ["ExportRequest", "build_bundle"]
