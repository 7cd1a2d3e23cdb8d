"""Bundles: one directory for one model at one precision, described by its manifest.json.

A bundle is read without torch and without a converter. Nothing in it is trusted: the manifest is checked
against its JSON Schema, every path must stay inside the bundle, and every file must have its sha256.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xformer_mobile.documents import refuse_constant, validator
from xformer_mobile.errors import BundleError, ImageError, UsageError
from xformer_mobile.files import tree_sha256
from xformer_mobile.postprocess import DetectionRule, Postprocess
from xformer_mobile.preprocess import ByteImage, describe_rule, load_image
from xformer_mobile.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TASKS,
    ImageSize,
    ModelConfig,
    ResizeRule,
    Task,
    check_labels,
)

__all__ = [
    "FORMATS",
    "INPUT_NAME",
    "MANIFEST",
    "REPORT",
    "SCHEMA_VERSION",
    "Artifact",
    "Bundle",
    "GoldenCase",
    "describe_input",
    "describe_outputs",
    "describe_postprocess",
    "manifest_bytes",
]

SCHEMA_VERSION = "1.2"
MANIFEST = "manifest.json"
REPORT = "report.json"
MAX_MANIFEST_BYTES = 16 * 2**20

INPUT_NAME = "image"

FORMATS = {
    "onnx": "model.onnx",
    "ort": "model.ort",
    "coreml": "model.mlpackage",
    "tflite": "model.tflite",
    "executorch": "model.pte",
}
"""Every format that a bundle may hold, and the artifact's name in it."""

DIRECTORY_FORMATS = frozenset({"coreml"})
"""The formats whose artifact is a directory."""


@dataclass(frozen=True)
class Artifact:
    """One converted model. ``path`` exists, is inside the bundle and has the manifest's sha256."""

    format: str
    path: Path
    sha256: str
    size_bytes: int
    requires: Mapping[str, Any]
    tools: Mapping[str, str]


@dataclass(frozen=True)
class GoldenCase:
    """An input, (1, H, W, 3) uint8, and what the reference model returns for it, by output name."""

    name: str
    image: ByteImage
    outputs: Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Make one with :meth:`open`."""

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read and check the manifest. Artifacts are checked when they are asked for.

        Raises:
            BundleError: no bundle, or a manifest that is broken, foreign, or of a newer major version.
        """
        file = path / MANIFEST
        try:
            if not path.is_dir():
                raise BundleError(f"no bundle at {path}: no such directory; xformer-export makes one")
            if not file.is_file():
                raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}")
            if file.stat().st_size > MAX_MANIFEST_BYTES:
                raise BundleError(f"{file} has more than {MAX_MANIFEST_BYTES} bytes; a manifest is smaller")
            manifest = json.loads(file.read_bytes(), parse_constant=refuse_constant)
        except OSError as error:
            raise BundleError(f"can't read {file}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{file} is not JSON: {error}") from error
        _validate(file, manifest)
        return cls(path, manifest)

    @property
    def task(self) -> Task:
        task: Task = self.manifest["model"]["task"]
        return task

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.manifest["model"]["labels"])

    @property
    def precision(self) -> str:
        return str(self.manifest["precision"])

    @property
    def image_size(self) -> ImageSize:
        _, height, width, _ = self.manifest["input"]["shape"]
        return ImageSize(height, width)

    @property
    def resize_rule(self) -> ResizeRule:
        rule: ResizeRule = self.manifest["input"]["resize"]["rule"]
        return rule

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """The outputs' shapes by name, in order."""
        return {output["name"]: tuple(output["shape"]) for output in self.manifest["outputs"]}

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that the bundle holds."""
        return tuple(entry["format"] for entry in self.manifest["artifacts"])

    @property
    def is_untrained(self) -> bool:
        """Whether the weights were drawn at random: the predictions mean nothing."""
        return bool(self.manifest["model"]["weights"]["source"] == "untrained")

    def postprocess(self) -> Postprocess:
        """The task's postprocessing, with the manifest's constants."""
        stated = self.manifest["postprocess"]
        if self.task == "classify":
            return Postprocess("classify", self.labels, top_k=stated["top_k"])
        if self.task == "segment":
            return Postprocess("segment", self.labels, palette=tuple(tuple(color) for color in stated["palette"]))
        rule = DetectionRule(
            anchors=tuple(tuple((w, h) for w, h in scale) for scale in stated["anchors"]),
            strides=tuple(stated["strides"]),
            score_threshold=stated["score_threshold"],
            iou_threshold=stated["iou_threshold"],
            max_detections=stated["max_detections"],
        )
        return Postprocess("detect", self.labels, detection=rule)

    def artifact(self, format: str) -> Artifact:
        """The artifact of that format, its file checked against the manifest.

        Raises:
            UsageError: the bundle has no such format.
            BundleError: the file is missing, leaves the bundle, or has another sha256.
        """
        for entry in self.manifest["artifacts"]:
            if entry["format"] == format:
                path = self.file(entry["file"], entry["sha256"], directory=format in DIRECTORY_FORMATS)
                return Artifact(format, path, entry["sha256"], entry["size_bytes"], entry["requires"], entry["tools"])
        raise UsageError(f"{self.path} has no {format} artifact; it has {', '.join(self.formats)}")

    def golden(self) -> list[GoldenCase]:
        """The golden inputs and the reference model's outputs for them."""
        size = self.image_size
        cases = []
        for case in self.manifest["golden"]:
            path = self.file(case["input"]["file"], case["input"]["sha256"])
            try:
                image = np.asarray(load_image(path))
            except ImageError as error:
                raise BundleError(f"golden input: {error}") from error
            if image.shape != (size.height, size.width, 3):
                raise BundleError(f"golden input {path} is not {size}")
            outputs = {}
            for name, shape in self.output_shapes.items():
                if name not in case["outputs"]:
                    raise BundleError(f"the golden outputs of {path} lack {name!r}")
                stored = case["outputs"][name]
                file = self.file(stored["file"], stored["sha256"])
                content = file.read_bytes()
                if len(content) != 4 * math.prod(shape):
                    raise BundleError(f"golden output {file} does not have the shape {shape}")
                outputs[name] = np.frombuffer(content, dtype="<f4").reshape(shape)
            cases.append(GoldenCase(path.stem, image[None], outputs))
        return cases

    def file(self, name: str, sha256: str, *, directory: bool = False) -> Path:
        """The path of a file that the manifest names, checked against its sha256.

        Raises:
            BundleError: the file is missing, leaves the bundle, or has another sha256.
        """
        path = self.path / name
        try:
            # The schema's pattern lets no path leave the bundle; a symbolic link could.
            if not path.resolve().is_relative_to(self.path.resolve()):
                raise BundleError(f"{path} leads out of the bundle")
            if path.exists() and not (path.is_dir() if directory else path.is_file()):
                raise BundleError(f"{path} is not a {'directory' if directory else 'file'}")
            found = tree_sha256(path)
        except (OSError, RuntimeError) as error:  # RuntimeError: a symbolic link to itself, before Python 3.13
            raise BundleError(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from error
        if found != sha256:
            raise BundleError(
                f"{path} is not the file that the manifest describes: its sha256 is {found[:12]}..., not "
                f"{sha256[:12]}...; it was changed, truncated or exchanged"
            )
        return path


# ---- what an exporter writes ------------------------------------------------------------------------------


def describe_input(config: ModelConfig) -> dict[str, Any]:
    """The manifest's ``input``."""
    size = config.image_size
    return {
        "name": INPUT_NAME,
        "shape": [1, size.height, size.width, 3],
        "dtype": "uint8",
        "layout": "NHWC",
        "color": "RGB",
        "resize": describe_rule(TASKS[config.task].resize_rule),
        "normalization": {"in_graph": True, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
    }


def describe_outputs(config: ModelConfig) -> list[dict[str, Any]]:
    """The manifest's ``outputs``."""
    meaning = TASKS[config.task].meaning
    return [
        {"name": name, "shape": list(shape), "dtype": "float32", "meaning": meaning}
        for name, shape in config.output_shapes().items()
    ]


def describe_postprocess(rule: Postprocess) -> dict[str, Any]:
    """The manifest's ``postprocess``."""
    if rule.task == "classify":
        return {"top_k": rule.top_k}
    if rule.task == "segment":
        return {"palette": [list(color) for color in rule.palette]}
    assert rule.detection is not None
    detection = rule.detection
    return {
        "anchors": [[list(anchor) for anchor in scale] for scale in detection.anchors],
        "strides": list(detection.strides),
        "score_threshold": detection.score_threshold,
        "iou_threshold": detection.iou_threshold,
        "max_detections": detection.max_detections,
    }


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as it is written: checked, in a fixed order, one form for one content."""
    _validate(Path(MANIFEST), manifest)
    return (json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _validate(file: Path, manifest: Any) -> None:
    from jsonschema.exceptions import best_match

    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if isinstance(version, str) and version.split(".")[0].isdigit() and version.split(".")[0] != "1":
        raise BundleError(f"{file} has schema version {version}; this version reads 1.x: upgrade xformer-mobile")
    try:
        problem = best_match(validator("manifest").iter_errors(manifest))
    except RecursionError as error:
        raise BundleError(f"{file} is not a manifest: it is nested too deeply") from error
    if problem is not None:
        where = "/".join(map(str, problem.absolute_path)) or "its top level"
        raise BundleError(f"{file} is not a manifest: at {where}: {problem.message[:200]}")
    _validate_consistency(file, manifest)


def _validate_consistency(file: Path, manifest: Mapping[str, Any]) -> None:
    """What a schema can't say: the parts agree with each other."""
    model, outputs = manifest["model"], {output["name"]: output["shape"] for output in manifest["outputs"]}
    postprocess = manifest["postprocess"]
    task, classes = model["task"], model["num_classes"]

    def check(condition: bool, problem: str) -> None:
        if not condition:
            raise BundleError(f"{file} contradicts itself: {problem}")

    try:
        check_labels(model["labels"])
    except UsageError as error:
        raise BundleError(f"{file} is not a manifest: {error}") from error
    check(len(model["labels"]) == classes, f"{len(model['labels'])} labels for {classes} classes")
    check(len(outputs) == len(manifest["outputs"]), "two outputs have one name")
    check(all(shape[0] == 1 for shape in outputs.values()), "an output is for more than one image")
    formats = [entry["format"] for entry in manifest["artifacts"]]
    check(len(set(formats)) == len(formats), "two artifacts have one format")
    rule = manifest["input"]["resize"]["rule"]
    check(task != "segment" or rule == "resize", f"class maps are for the rule 'resize', not {rule!r}")
    if task == "detect":
        needed = {"anchors", "strides", "score_threshold", "iou_threshold", "max_detections"}
        check(needed <= postprocess.keys(), "a detector's postprocess lacks " + ", ".join(sorted(needed)))
        strides, anchors = postprocess["strides"], postprocess["anchors"]
        check(len(strides) == len(anchors) > 0, f"{len(strides)} strides for {len(anchors)} scales of anchors")
        for stride, scale in zip(strides, anchors, strict=True):
            shape = outputs.get(f"stride{stride}")
            check(
                shape is not None and len(shape) == 4 and shape[1] == len(scale) * (5 + classes),
                f"no output stride{stride} of {len(scale)} anchors times 5 + {classes} channels",
            )
    else:
        logits = outputs.get("logits", [])
        rank = 2 if task == "classify" else 4
        check(len(logits) == rank and logits[1] == classes, f"no output logits of rank {rank} and {classes} classes")
        needed = {"top_k"} if task == "classify" else {"palette"}
        check(needed <= postprocess.keys(), f"its postprocess lacks {', '.join(needed)}")
        if task == "segment":
            check(len(postprocess["palette"]) == classes, f"{len(postprocess['palette'])} colors for {classes} classes")
