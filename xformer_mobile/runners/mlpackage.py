"""A Core ML package on disk: its Manifest.json and the specification of its model."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from xformer_mobile.errors import BundleError

__all__ = ["read_package"]

ROOT, ITEMS = "rootModelIdentifier", "itemInfoEntries"
"""Keys of a package's Manifest.json."""


def read_package(path: Path, coremltools: ModuleType) -> tuple[Any, Path]:
    """The model's specification, a protocol buffer of coremltools', and the folder of its weights.

    Raises:
        BundleError: no package, or one that is broken or foreign.
    """
    file = _find_model(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BundleError(f"can't read {file}: {error.strerror or error}") from error
    spec = coremltools.proto.Model_pb2.Model()
    try:
        spec.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError: its module is coremltools' business
        raise BundleError(f"{file} is not a Core ML model, or not all of one") from error
    return spec, file.parent / "weights"


def _find_model(path: Path) -> Path:
    """The file of the package's root model, as its Manifest.json says."""
    if not path.exists():
        raise BundleError(f"no Core ML package at {path}")
    if not path.is_dir():
        raise BundleError(f"{path} is a file; a Core ML package is a folder, .mlpackage")
    manifest = path / "Manifest.json"
    try:
        stated = json.loads(manifest.read_bytes())
        entry = stated[ITEMS][stated[ROOT]]["path"]
        relative = PurePosixPath(entry)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is not a Core ML package: it has no {manifest.name}") from error
    except OSError as error:
        raise BundleError(f"can't read {manifest}: {error.strerror or error}") from error
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise BundleError(f"{manifest} does not name the package's model") from error
    file = path / "Data" / relative
    if relative.is_absolute() or ".." in relative.parts:
        raise BundleError(f"{manifest} names a model outside of the package: {entry}")
    if not file.is_file():
        raise BundleError(f"{path} is not complete: it has no {file.relative_to(path)}")
    return file
