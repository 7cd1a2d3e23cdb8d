"""``xformer-doctor``: what can be exported and run on this machine, and what to type for what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from dataclasses import dataclass
from typing import Any

import click
from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

from xformer_mobile.artifact import FORMATS
from xformer_mobile.chatter import silenced
from xformer_mobile.cli import deferred_interrupt
from xformer_mobile.cli.common import common_options, print_json, print_table, progress
from xformer_mobile.errors import MissingDependencyError
from xformer_mobile.optional import import_coremltools, require
from xformer_mobile.runners import ENGINES

__all__ = ["command"]

EPILOG = """\b
Examples:
  xformer-doctor
  xformer-doctor --json
"""

DISTRIBUTION = "xformer-mobile"


@dataclass(frozen=True)
class Capability:
    """Something that the project can do where an extra is installed.

    ``loads`` are the modules that doing it imports.
    """

    name: str
    extra: str
    loads: tuple[str, ...]


EXPORTS = (
    Capability("onnx", "onnx", ("torch.onnx", "onnx", "onnxscript", "onnxsim", "onnxruntime")),
    Capability("ort", "onnx", ("torch.onnx", "onnx", "onnxscript", "onnxsim", "onnxruntime")),
    Capability("coreml", "coreml", ("torch", "coremltools")),
    Capability("tflite", "tflite", ("torch", "litert_torch", "ai_edge_litert.interpreter")),
    Capability("executorch", "executorch", ("torch", "executorch.exir", "executorch.runtime")),
)
RUNS = (
    Capability("onnxruntime", "run", ("onnxruntime",)),
    Capability("onnxruntime-xnnpack", "run", ("onnxruntime",)),
    Capability("litert", "tflite", ("ai_edge_litert.interpreter",)),
    Capability("executorch", "executorch", ("executorch.runtime",)),
    Capability("coreml", "coreml", ("torch", "coremltools")),
)
OTHERS = (
    Capability("training", "train", ("torch", "safetensors", "pycocotools")),
    Capability("peers to compare with", "peers", ("torch", "transformers")),
    Capability("second reader of .tflite", "tensorflow", ("tensorflow",)),
)


@click.command(epilog=EPILOG)
@common_options
def command(as_json: bool, quiet: bool) -> None:
    """Say which formats can be exported and run here.

    Each package is imported, so that one that is installed and broken shows; its version is held against the range
    that the project is tested with. Exits with 0 whatever is missing: what you don't need may be.
    """
    kinds = {"export": EXPORTS, "run": RUNS, "other": OTHERS}
    rows: dict[str, list[dict[str, Any]]] = {}
    with progress(sum(map(len, kinds.values())), quiet=quiet) as step:
        for kind, capabilities in kinds.items():
            rows[kind] = []
            for capability in capabilities:
                step(f"{kind}: {capability.name}")
                rows[kind].append(_examine(kind, capability))
    packages = _packages()
    machine = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    if as_json:
        print_json({"machine": machine, **rows, "packages": packages})
        return
    _print(machine, rows, packages)


def _examine(kind: str, capability: Capability) -> dict[str, Any]:
    """Whether a capability works here, and what to type or know where it does not."""
    problem = _problem(capability)
    if (
        problem is None
        and capability.name == "onnxruntime-xnnpack"
        and "XnnpackExecutionProvider" not in require("onnxruntime", extra="run").get_available_providers()
    ):
        problem = "this build of ONNX Runtime has no XNNPACK provider; those of Android and iOS have"
    row: dict[str, Any] = {"name": capability.name, "works": problem is None, "problem": problem}
    if problem is not None and "not installed" in problem:
        row["install"] = f"pip install '{DISTRIBUTION}[{capability.extra}]'"
    if kind == "export":
        row["file"] = FORMATS[capability.name]
    elif kind == "run":
        row["formats"] = list(ENGINES[capability.name].formats)
        if capability.name == "coreml" and platform.system() != "Darwin":
            row["note"] = "not Apple's framework: the program's ops are evaluated on PyTorch"
    return row


def _problem(capability: Capability) -> str | None:
    """Why the modules of a capability can't be imported, in a few words; ``None`` where they can."""
    for module in capability.loads:
        try:
            with deferred_interrupt(), silenced():
                _import(module)
        except ModuleNotFoundError as error:
            return f"{error.name or module} is not installed"
        except MissingDependencyError as error:
            return str(error).partition(";")[0]
        except Exception as error:  # a broken installation raises anything
            return f"{module} is installed and can't be imported: {type(error).__name__}: {str(error)[:100]}"
    return None


def _import(module: str) -> None:
    if module == "coremltools":
        import_coremltools()
    else:
        importlib.import_module(module)


def _packages() -> list[dict[str, Any]]:
    """Every package that an extra brings: the version here and the range that is tested."""
    tested: dict[str, Requirement] = {}
    for text in importlib.metadata.requires(DISTRIBUTION) or ():
        requirement = Requirement(text)
        here = any(
            requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            for extra in importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ()
            if extra != "dev"
        )
        if here and requirement.name != DISTRIBUTION:
            tested.setdefault(requirement.name, requirement)
    found = []
    for name, requirement in sorted(tested.items()):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        found.append(
            {
                "name": name,
                "installed": version,
                "tested": str(requirement.specifier),
                "in_range": None if version is None else requirement.specifier.contains(version, prereleases=True),
            }
        )
    return found


def _print(machine: dict[str, str], rows: dict[str, list[dict[str, Any]]], packages: list[dict[str, Any]]) -> None:
    click.echo(f"Python {machine['python']} on {machine['system']} ({machine['machine']})")
    table = Table("", "what", "works here", "remark", title="Capabilities")
    for kind, entries in rows.items():
        for row in entries:
            what = f"{row['name']} ({', '.join(row['formats'])})" if "formats" in row else row["name"]
            remark = row.get("note") or row["problem"] or ""
            if "install" in row:
                remark = f"{remark}: {row['install']}"
            table.add_row(kind, what, _mark(row["works"]), remark)
    print_table(table)
    table = Table("package", "installed", "tested with", "", title="Packages")
    for package in packages:
        verdict = {True: "ok", False: "not tested", None: "not installed"}[package["in_range"]]
        table.add_row(package["name"], package["installed"] or "", package["tested"], verdict)
    print_table(table)


def _mark(works: bool) -> Text:
    return Text("yes", style="green") if works else Text("no", style="yellow")
