"""The shape of the code base: import arrows, light imports, public names, docstrings, packaging."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PACKAGES = {"xformer_mobile": ROOT / "xformer_mobile", "xformer_export": ROOT / "export"}

LAYERS = (
    ("errors", "spec"),
    (
        "chatter",
        "documents",
        "fake_quant",
        "files",
        "layers",
        "mobile",
        "optional",
        "patterns",
        "postprocess",
        "preprocess",
        "ranges",
        "reference",
        "weights",
        "zoo",
    ),
    ("artifact", "runners"),
    ("bench", "data", "drawing", "forecast", "parity", "report"),
    ("evaluation",),
    ("training",),
    ("xformer_export",),
    ("cli",),
)
"""What may import what: a module imports from its own layer and from those before it."""

LIGHT = (
    "",
    ".artifact",
    ".bench",
    ".bench.counts",
    ".bench.peers",
    ".chatter",
    ".data",
    ".evaluation",
    ".forecast",
    ".parity",
    ".report",
    ".runners",
    ".preprocess",
    ".postprocess",
    ".files",
    ".spec",
    ".errors",
)
"""Modules that run where only the core dependencies are installed."""

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "onnxsim",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "coremltools",
    "executorch",
    "jax",
    "litert_torch",
    "tensorflow",
    "transformers",
    "safetensors",
    "matplotlib",
    "pycocotools",
    "xformer_export",
)


def find_modules() -> dict[str, Path]:
    """Every module's name and file."""
    modules = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            modules[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return modules


MODULES = find_modules()


def layer_of(module: str) -> int:
    """The index of a module's layer."""
    package, *rest = module.split(".")
    name = rest[0] if package == "xformer_mobile" else package
    found = [index for index, layer in enumerate(LAYERS) if name in layer]
    assert found, f"{module} has no place in LAYERS: give it one"
    return found[0]


def imports_of(module: str) -> Iterator[str]:
    """The project's modules that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import, which this test does not follow"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in MODULES:  # from package.module import object
                name = name.rpartition(".")[0]
            if name and name != "xformer_mobile":  # the package itself holds the version only
                yield name


@pytest.mark.parametrize("module", [name for name in MODULES if name != "xformer_mobile"])
def test_imports_point_one_way(module: str) -> None:
    wrong = [name for name in imports_of(module) if layer_of(name) > layer_of(module)]
    assert not wrong, f"{module} imports what is above it: {', '.join(wrong)}"


def test_the_package_itself_imports_nothing_of_the_project() -> None:
    assert list(imports_of("xformer_mobile")) == []


def test_the_arrows_are_seen() -> None:
    """The two tests above look at something: arrows that are known to exist are found."""
    assert "xformer_mobile.errors" in set(imports_of("xformer_mobile.spec"))
    assert "xformer_mobile.artifact" in set(imports_of("xformer_export.bundle"))
    assert layer_of("xformer_export.bundle") > layer_of("xformer_mobile.runners.base")


@pytest.mark.parametrize("name", LIGHT)
def test_import_is_light(name: str) -> None:
    module = f"xformer_mobile{name}"
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [], f"import {module} brings {result.stdout.strip()}"


def test_the_package_itself_brings_the_standard_library_alone() -> None:
    """So that ``import xformer_mobile`` is quick: not even NumPy comes with it."""
    code = "import sys; before = {*sys.modules}; import xformer_mobile; print(*{*sys.modules} - before)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {name.partition(".")[0] for name in result.stdout.split()}
    assert packages - sys.stdlib_module_names == {"xformer_mobile"}


def isort_style(name: str) -> tuple[int, list[tuple[bool, int, str]]]:
    """The order of ruff's RUF022: CONSTANTS, then Classes, then the rest; numbers by value."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    parts = re.findall(r"\d+|\D+", name)
    return kind, [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_sorted_and_exist(module: str) -> None:
    loaded = importlib.import_module(module)
    names = loaded.__all__
    assert [name for name in names if not hasattr(loaded, name)] == []
    assert list(names) == sorted(set(names), key=isort_style)


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_has_a_docstring(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    assert ast.get_docstring(tree), f"{module} has no docstring"
    bare = [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert bare == []


def test_pyproject_lists_every_package() -> None:
    match = re.search(r"^packages = (\[.*?\])", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert match is not None
    listed = ast.literal_eval(match[1])
    assert sorted(listed) == sorted(name for name, path in MODULES.items() if path.name == "__init__.py")
