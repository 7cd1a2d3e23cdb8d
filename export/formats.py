"""The formats that this version writes, as a table: a new one is one row and one function."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from xformer_export import to_coreml, to_executorch, to_onnx, to_tflite
from xformer_export.prepare import Converted, Network, Options, Prepared
from xformer_mobile.artifact import FORMATS
from xformer_mobile.optional import require
from xformer_mobile.spec import lookup

__all__ = [
    "CONVERTERS",
    "Converter",
    "default_quantization",
    "parse_formats",
]


@dataclass(frozen=True)
class Converter:
    """How a format is written.

    ``convert`` writes the artifact and returns what there is to say of it; ``tools`` are the distributions whose
    versions the manifest records; ``imports`` are the modules that converting and verifying load, which the extra
    ``extra`` brings; ``in_all`` is whether ``--format all`` means it too; ``convert_network`` writes any other network
    by the same steps, where that is built.
    """

    format: str
    convert: Callable[[Prepared, Options, Path], Converted]
    extra: str
    tools: tuple[str, ...]
    imports: tuple[str, ...]
    in_all: bool = True
    convert_network: Callable[[Network, Path], None] | None = None

    def load(self) -> None:
        """Import what converting and verifying will.

        Raises:
            MissingDependencyError: something is not installed.
        """
        for module in self.imports:
            require(module, extra=self.extra)

    def check(self) -> None:
        """Look whether the packages are there that :meth:`load` imports.

        Raises:
            MissingDependencyError: one is not installed.
        """
        for module in self.imports:
            package = module.partition(".")[0]
            if importlib.util.find_spec(package) is None:
                require(package, extra=self.extra)

    def tool_versions(self) -> dict[str, str]:
        """The installed versions of the tools, by name."""
        return {tool: importlib.metadata.version(tool) for tool in self.tools}


CONVERTERS = {
    converter.format: converter
    for converter in (
        Converter(
            "onnx",
            to_onnx.convert,
            "onnx",
            ("torch", "onnx", "onnxscript", "onnxsim"),
            ("torch._dynamo", "torch.onnx", "onnx", "onnxscript", "onnxsim", "onnxruntime"),
            convert_network=to_onnx.convert_network,
        ),
        Converter(
            "ort",
            to_onnx.convert_to_ort,
            "onnx",
            ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime"),
            ("torch._dynamo", "torch.onnx", "onnx", "onnxscript", "onnxsim", "onnxruntime"),
            in_all=False,
        ),
        Converter(
            "coreml",
            to_coreml.convert,
            "coreml",
            ("torch", "coremltools"),
            ("torch._dynamo", "xformer_mobile.runners.mil"),
        ),
        Converter(
            "tflite",
            to_tflite.convert,
            "tflite",
            ("torch", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer"),
            ("torch._dynamo", "litert_torch", "ai_edge_litert.interpreter"),
            convert_network=to_tflite.convert_network,
        ),
        Converter(
            "executorch",
            to_executorch.convert,
            "executorch",
            ("torch", "executorch"),
            ("torch._dynamo", "executorch.exir", "executorch.runtime"),
            convert_network=to_executorch.convert_network,
        ),
    )
}


def parse_formats(names: Iterable[str]) -> tuple[str, ...]:
    """The formats that are asked for, once each, in the order of FORMATS; ``all`` is one a platform.

    Raises:
        UsageError: an unknown format.
    """
    asked = {name.strip() for name in names}
    known = {**dict.fromkeys(FORMATS), "all": None}
    for name in sorted(asked):
        lookup("format", name, known)
    if "all" in asked:
        asked = (asked - {"all"}) | {name for name, converter in CONVERTERS.items() if converter.in_all}
    return tuple(name for name in FORMATS if name in asked)


def default_quantization(formats: Iterable[str]) -> str:
    """The recipe where none is asked for: fp16 for Core ML by itself, whose fp32 the Neural Engine does not run."""
    return "fp16" if set(formats) == {"coreml"} else "none"
