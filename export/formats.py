"""The formats and recipes that this version writes, as tables: a new one is one row and one function."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from xformer_export import to_onnx
from xformer_export.prepare import Prepared
from xformer_mobile.artifact import FORMATS
from xformer_mobile.errors import UnavailableError
from xformer_mobile.spec import lookup

__all__ = ["CONVERTERS", "QUANTIZATIONS", "Converter", "check_quantization", "parse_formats"]

QUANTIZATIONS = {"none": "fp32", "fp16": None, "int8": None, "int8-weights": None, "auto": None}
"""Each recipe and the precision of its bundle; None where the recipe is not built yet."""


@dataclass(frozen=True)
class Converter:
    """How a format is written.

    ``convert`` returns the artifact's bytes; ``requires`` is what a runtime must support; ``input_layout`` is
    the input's inside the artifact; ``tools`` are the distributions whose versions the manifest records;
    ``imports`` are the modules that converting and verifying load.
    """

    format: str
    convert: Callable[[Prepared], bytes]
    requires: dict[str, Any]
    input_dtype: str
    input_layout: str
    tools: tuple[str, ...]
    imports: tuple[str, ...]

    def tool_versions(self) -> dict[str, str]:
        """The installed versions of the tools, by name."""
        return {tool: importlib.metadata.version(tool) for tool in self.tools}


CONVERTERS = {
    converter.format: converter
    for converter in (
        Converter(
            "onnx",
            to_onnx.convert,
            {"opset": to_onnx.OPSET},
            "uint8",
            "NHWC",
            ("torch", "onnx", "onnxscript", "onnxsim"),
            ("torch._dynamo", "torch.onnx", "onnx", "onnxscript", "onnxsim", "onnxruntime"),
        ),
    )
}


def parse_formats(names: Iterable[str]) -> tuple[str, ...]:
    """The formats that are asked for, once each, in the order of FORMATS; ``all`` is all that can be written.

    Raises:
        UsageError: an unknown format.
        UnavailableError: a format that is not built yet.
    """
    asked = {name.strip() for name in names}
    known = {**dict.fromkeys(FORMATS), "all": None}
    for name in sorted(asked):
        lookup("format", name, known)
    if "all" in asked:
        asked = (asked - {"all"}) | set(CONVERTERS)
    for name in FORMATS:
        if name in asked and name not in CONVERTERS:
            raise UnavailableError(f"format {name!r} is not built yet; this version writes: {', '.join(CONVERTERS)}")
    return tuple(name for name in FORMATS if name in asked)


def check_quantization(name: str) -> str:
    """The precision of a recipe's bundle.

    Raises:
        UsageError: an unknown recipe.
        UnavailableError: a recipe that is not built yet.
    """
    precision = lookup("quantization", name, QUANTIZATIONS)
    if precision is None:
        built = ", ".join(recipe for recipe, made in QUANTIZATIONS.items() if made)
        raise UnavailableError(f"quantization {name!r} is not built yet; this version has: {built}")
    return precision
