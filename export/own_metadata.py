"""What an artifact says of itself, against the manifest: its format's own metadata, and its inputs and outputs.

An app that is given the file alone reads these. Each format keeps them in its own way, and a row of :data:`READERS`
reads it: ONNX in ``metadata_props``, .ort in the same as ONNX Runtime returns it, Core ML in its user-defined metadata
and the classes of a classifier, TFLite in our own buffer, in TFLite's metadata and in the file of labels behind the
model. A .pte file has none.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xformer_mobile.artifact import INPUT_NAME, Artifact, Bundle
from xformer_mobile.errors import BundleError, ConversionError, MissingDependencyError
from xformer_mobile.optional import import_coremltools, require
from xformer_mobile.runners.mlpackage import read_package

__all__ = ["READERS", "OwnMetadata", "Statement", "check_own_metadata"]

NO_METADATA = {"executorch": "a .pte file has no metadata"}
"""By format: why there is nothing to compare."""

TASK, VARIANT, LABELS, INPUT, WEIGHTS = "task", "variant", "labels", "input", "weights"
"""The entries of our own metadata, as the converters write them; labels, input and weights are JSON."""


@dataclass(frozen=True)
class OwnMetadata:
    """An artifact's own words against the manifest's.

    ``checked`` names what was compared, ``missed`` has a sentence for each that differs. Where nothing could be
    compared, ``reason`` says why, and that is no miss.
    """

    checked: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing that was compared differs."""
        return not self.missed

    def __bool__(self) -> bool:
        return self.passed

    def misses(self) -> list[str]:
        """One sentence for each thing in which the artifact contradicts the manifest."""
        return list(self.missed)

    def as_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "misses": list(self.missed),
            "checked": list(self.checked),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Statement:
    """What a file says of itself.

    ``entries`` are our own metadata by name; ``labels`` the other lists of labels that the file carries, by where;
    ``texts`` other words of it, by where: what is said, and what the manifest's words make of it. ``inputs`` and
    ``outputs`` are the tensors in words, by name, in order.
    """

    entries: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)


def check_own_metadata(bundle: Bundle, artifact: Artifact) -> OwnMetadata:
    """Read an artifact of a bundle and compare what it says of itself with the manifest.

    Raises:
        BundleError: the file can't be read as its format.
    """
    if artifact.format not in READERS:
        return OwnMetadata(reason=NO_METADATA[artifact.format])
    reader = READERS[artifact.format]
    try:
        found = reader.read(artifact.path)
        asked = reader.asked(bundle)
    except MissingDependencyError as error:
        return OwnMetadata(reason=str(error))
    checks = [
        *_entry_checks(bundle, found.entries),
        *(_Check(where, _labels_differ(where, labels, asked.labels[where])) for where, labels in found.labels.items()),
        *(
            _Check(f"{kind}s", _tensors_differ(kind, stated, wanted))
            for kind, stated, wanted in (
                ("input", found.inputs, asked.inputs),
                ("output", found.outputs, asked.outputs),
            )
        ),
    ]
