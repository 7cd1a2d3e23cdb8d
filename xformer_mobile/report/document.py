"""The document of a verification: held to its JSON Schema, and as the bytes of a file."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from typing import Any

from xformer_mobile.documents import validator

__all__ = ["SCHEMA_VERSION", "document_bytes", "validate"]

SCHEMA_VERSION = "1.0"


def validate(document: Any) -> None:
    """Hold a document to ``schemas/verify_report.schema.json``: its verdicts must agree with their reasons too.

    Raises:
        ValueError: it is none; the message says where.
    """
    from jsonschema.exceptions import best_match

    worst = best_match(_validator().iter_errors(document))
    if worst is not None:
        place = "/".join(map(str, worst.absolute_path)) or "the document"
        raise ValueError(f"not a verification report: {place}: {worst.message[:500]}")


@functools.cache
def _validator() -> Any:
    """The schema's validator, which takes every finite number: a broken artifact's figures may be beyond all others."""
    from jsonschema.validators import extend

    made = validator("verify_report")
    numbers = type(made).TYPE_CHECKER.redefine("number", _is_finite)
    return extend(type(made), type_checker=numbers)(made.schema)  # type: ignore[no-untyped-call]


def _is_finite(_: Any, value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """The document as it is written: checked, in ASCII, one form for one content.

    Raises:
        ValueError: it is no valid document.
    """
    validate(document)
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
