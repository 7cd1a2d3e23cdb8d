"""The report's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xformer_mobile.artifact import MANIFEST
from xformer_mobile.errors import UsageError
from xformer_mobile.files import output_errors, write_file
from xformer_mobile.report.document import document_bytes
from xformer_mobile.report.page import page_bytes
from xformer_mobile.report.pictures import Sample

__all__ = ["write_reports"]


def write_reports(document: Mapping[str, Any], directory: Path, samples: Sequence[Sample] = ()) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` into a directory, which is made; returns their paths.

    Each file is written whole, and holds no date: the same document and samples give the same bytes.

    Raises:
        OutputError: the directory can't be written.
        UsageError: the directory is a bundle, which has a ``report.json`` of its own.
        ValueError: the document is not valid.
    """
    if (directory / MANIFEST).exists():
        raise UsageError(f"{directory} is a bundle, which has a report.json of its own; give another directory")
    contents = {"report.json": document_bytes(document), "report.html": page_bytes(document, samples)}
    with output_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_file(directory / name, content)
    return directory / "report.json", directory / "report.html"
