"""The verification's document, and what is made from it: a page, JUnit XML and a summary in Markdown.

All of it comes from the document alone; only the page's sample pictures are given beside it.
"""

from __future__ import annotations

from xformer_mobile.report.checks import Check, checks_of, passed_of
from xformer_mobile.report.document import SCHEMA_VERSION, document_bytes, validate
from xformer_mobile.report.junit import junit_bytes
from xformer_mobile.report.page import page_bytes
from xformer_mobile.report.pictures import Sample
from xformer_mobile.report.summary import summary_markdown
from xformer_mobile.report.write import write_reports

__all__ = [
    "SCHEMA_VERSION",
    "Check",
    "Sample",
    "checks_of",
    "document_bytes",
    "junit_bytes",
    "page_bytes",
    "passed_of",
    "summary_markdown",
    "validate",
    "write_reports",
]
