"""JSON documents from outside, held to the JSON Schemas of the project; stricter than jsonschema's own checks where
Python would stumble later."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

__all__ = ["LARGEST_NUMBER", "refuse_constant", "validator"]

LARGEST_NUMBER = 1e30
"""No number in a document is larger; it fits a float32."""


@functools.cache
def validator(name: str) -> Any:
    """The validator of ``schemas/<name>.schema.json``, made once."""
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.validators import extend

    def is_integer(_: Any, value: Any) -> bool:  # to a schema, 5.0 is one as well
        return isinstance(value, int) and not isinstance(value, bool)

    def is_number(_: Any, value: Any) -> bool:  # 1e999 is infinite to Python
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER

    def pattern(_: Any, expression: str, value: Any, __: Any) -> Iterator[ValidationError]:
        # To Python's $, a newline at the end is none.
        if isinstance(value, str) and (value.endswith("\n") or not re.search(expression, value)):
            yield ValidationError(f"{value!r} does not match {expression!r}")

    checker = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": is_integer, "number": is_number})
    made = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": pattern}, type_checker=checker
    )
    text = resources.files("xformer_mobile").joinpath(f"schemas/{name}.schema.json").read_text("utf-8")
    return made(json.loads(text))


def refuse_constant(name: str) -> Any:
    """For ``json.loads(parse_constant=...)``: NaN and Infinity are not JSON."""
    raise ValueError(f"it has {name}")
