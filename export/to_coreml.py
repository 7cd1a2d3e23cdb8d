"""Core ML: torch.export, coremltools' conversion to an ML program, metadata, one form for one content, read back.

The input is an image, so that an app hands over a pixel buffer and Vision can scale it. ``ImageType`` has one scale
for all channels; the mean and the standard deviation of each are in the graph instead. Every array output is float32,
in every precision: from iOS 16 on, coremltools would otherwise choose float16, which an app that reads ``Float`` gets
wrong.

fp16 computes everything in float16 but the classifier's softmax, which follows the cast of the logits to float32.
LayerNorm is one native op along the channel axis; XFA's transposes become arguments of its matmuls.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import shutil
import tempfile
import traceback
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from xformer_export.op_rules import check_graph
from xformer_export.placement import Placement
from xformer_export.prepare import Converted, Options, Prepared, metadata_of
from xformer_export.program import conversion_errors, export_program
from xformer_export.quantize_coreml import MINIMUM_IOS, quantize, quantize_weights
from xformer_export.shortcuts import checked_once
from xformer_mobile import __version__
from xformer_mobile.artifact import INPUT_NAME
from xformer_mobile.errors import ConversionError, UsageError
from xformer_mobile.files import output_errors, tree_sha256
from xformer_mobile.mobile import MobileXFormer
from xformer_mobile.optional import import_coremltools
from xformer_mobile.spec import TASKS, ModelConfig, lookup

__all__ = ["SYSTEMS", "ImageModel", "System", "convert", "distinct_labels", "find_system"]


@dataclass(frozen=True)
class System:
    """A row of SYSTEMS: an iOS release, the macOS of the same year, and what Core ML calls their programs."""

    ios: str
    macos: str
    specification_version: int
    opset: str


SYSTEMS: dict[str, System] = {
    system.ios: system
    for system in (
        System("15", "12", 6, "CoreML5"),
        System("16", "13", 7, "CoreML6"),
        System("17", "14", 8, "CoreML7"),
        System("18", "15", 9, "CoreML8"),
    )
}
"""The deployment targets that can be asked for. iOS 15 is the first with ML programs."""

PRECISIONS = {"fp32": "FLOAT32", "fp16": "FLOAT16", "int8-weights": "FLOAT16", "int8": "FLOAT16"}
"""coremltools' names of what is computed in; with int8, of what is not quantized."""

LABEL_OUTPUT = "classLabel"
PROBABILITIES_OUTPUT = f"{LABEL_OUTPUT}_probs"
"""The names that Xcode and Vision know a classifier's outputs by."""

DATE = "com.github.apple.coremltools.conversion_date"
"""The one entry of coremltools' own metadata that differs from day to day."""

PREVIEW = "com.apple.coreml.model.preview.type"

_OURS = ("The XFormer Mobile authors", "Apache-2.0")
CREDITS = {
    "sample": _OURS,
    "untrained": _OURS,
    "checkpoint": (
        "The owner of the weights; converted by XFormer Mobile",
        "The weights are under the license of their owner; the toolkit that converted them is under Apache-2.0.",
    ),
}
"""Author and license, by where the weights come from."""


def find_system(precision: str, minimum_ios: int) -> System:
    """The row of SYSTEMS for an iOS release that runs the precision.

    Raises:
        UsageError: an unknown release, or one that is too old for the precision.
    """
    system = lookup("minimum iOS", str(minimum_ios), SYSTEMS)
    least = MINIMUM_IOS.get(precision, 0)
    if minimum_ios < least:
        raise UsageError(f"{precision} in Core ML needs iOS {least}; type: --minimum-ios {least}")
    return system


def convert(prepared: Prepared, options: Options, path: Path) -> Converted:
    """Convert the mobile form and write the package ``path``. Same weights, same versions, same bytes.

    Raises:
        UsageError: an unknown precision or minimum iOS, or a system that is too old for the precision.
        ConversionError: coremltools failed, the program leaves the allowed ops or what the minimum iOS runs, or the
            package does not say on reading back what was asked for.
        OutputError: the package can't be written.
        MissingDependencyError: coremltools is not installed.
    """
    precision = lookup("precision", options.precision, PRECISIONS)
    system = find_system(options.precision, options.minimum_ios)
    ct = import_coremltools()
    size = prepared.config.image_size
    program = export_program(ImageModel(prepared.mobile), (torch.zeros(1, 3, size.height, size.width),))
    with tempfile.TemporaryDirectory() as folder:
        model = _translate(ct, program, prepared.config, system, precision, Path(folder) / path.name)
        model, quantization = _quantize(model, prepared, options)
        if options.precision in MINIMUM_IOS:
            quantization["fp32_size_bytes"] = _float_size(ct, program, prepared, system)
        _finish(model, prepared, path)
    return replace(_read_back(ct, prepared, system, options.precision, path), quantization=quantization)


def distinct_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels with the class's index behind each one that stands more than once: ``crane (134)``.

    A Core ML classifier returns a dictionary of its labels; of two equal ones it would lose a class. ImageNet's list
    has two "crane". The order is kept; the manifest's labels stay as they are.
    """
    made = list(labels)
    while twins := {label for label, count in Counter(made).items() if count > 1}:
        made = [f"{label} ({index})" if label in twins else label for index, label in enumerate(made)]
    return tuple(made)


class ImageModel(nn.Module):
    """The mobile form on what Core ML makes of an image: float32 (1, 3, H, W) in 0..255.

    The permutation to the mobile form's layout meets the one back in its first line; coremltools drops both. A
    classifier returns its probabilities too, (1, classes).
    """

    def __init__(self, mobile: MobileXFormer) -> None:
        super().__init__()
        self.model = mobile
        self.is_classifier = mobile.config.task == "classify"

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.model(image.permute(0, 2, 3, 1))
        if not self.is_classifier:
            return outputs
        (logits,) = outputs
        return logits.softmax(1), logits


# ---- converting -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what coremltools' own code is warned of from the user's terminal.

    It leaves its temporary folder to the garbage collector, who is loud about that. Where it fails, the folder hangs
    on the traceback; it is let go of here, where nobody hears.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            raise


def _translate(
    ct: Any, program: ExportedProgram, config: ModelConfig, system: System, precision: str, draft: Path
) -> Any:
    """coremltools' own result, an MLModel; its package is ``draft``."""
    outputs = list(config.output_shapes())
    classifier = None
    if config.task == "classify":
        probabilities = "probabilities"
        outputs = [probabilities, *outputs]
        classifier = ct.ClassifierConfig(list(distinct_labels(config.labels)), LABEL_OUTPUT, probabilities)
    # coremltools numbers what has no name on from its last conversion, if that failed or a package was loaded since.
    ct.converters.mil.Builder.name_count.clear()
    fold_affine, forget_types = _passes()
    pipeline = ct.PassPipeline.DEFAULT
    pipeline.insert_pass(pipeline.passes.index("common::fuse_layernorm_or_instancenorm") + 1, fold_affine)
    if classifier is not None:
        pipeline.append_pass(forget_types)
    size = config.image_size
    float16 = ct.transform.FP16ComputePrecision(op_selector=lambda op: op.op_type != "softmax")
    with conversion_errors("coremltools", program), _quiet(), checked_once():
        return ct.convert(
            program,
            inputs=[ct.ImageType(INPUT_NAME, (1, 3, size.height, size.width), color_layout=ct.colorlayout.RGB)],
            outputs=[ct.TensorType(name, dtype=ct.converters.mil.mil.types.fp32) for name in outputs],
            classifier_config=classifier,
            minimum_deployment_target=ct.target[f"iOS{system.ios}"],
            convert_to="mlprogram",
            compute_precision=float16 if precision == "FLOAT16" else ct.precision[precision],
            pass_pipeline=pipeline,
            skip_model_load=True,
            package_dir=str(draft),
        )


@functools.cache
def _passes() -> tuple[str, str]:
    """Register our two graph passes with coremltools, once; returns their names there.

    FoldNormAffine: coremltools finds a LayerNorm in mean, subtract, square, rsqrt, but leaves its gain and shift to a
    batch_norm, whose own epsilon of 1e-5 is off by 5e-6. Here they become the layer_norm's gamma and beta.

    ForgetOutputTypes: of a classifier with a further output, coremltools 9.0 counts the types that were asked for
    against its own outputs, of which there is one more. By the end of the passes the types have been applied.
    """
    mil = importlib.import_module("coremltools.converters.mil.mil")
    graph_pass = importlib.import_module("coremltools.converters.mil.mil.passes.graph_pass")
    registry = importlib.import_module("coremltools.converters.mil.mil.passes.pass_registry")

    def only_user(op: Any, kind: str) -> tuple[Any, Any]:
        """The one op that takes ``op``'s result, and its other operand, a constant for each channel; else Nones."""
        (result,) = op.outputs
        users = result.child_ops
        if len(users) != 1 or users[0].op_type != kind:
            return None, None
        other = users[0].y if users[0].x is result else users[0].x
        channels = (1, op.outputs[0].shape[1], 1, 1)
        return (users[0], other.val.reshape(-1)) if other.val is not None and other.shape == channels else (None, None)

    class FoldNormAffine(graph_pass.AbstractGraphPass):  # type: ignore[name-defined,misc]
        def apply(self, program: Any) -> None:
            for function in program.functions.values():
                with function:
                    for op in list(function.operations):
                        self.fold(function, op)

        def fold(self, function: Any, norm: Any) -> None:
            if norm.op_type != "layer_norm" or norm.gamma is not None or list(norm.axes.val) != [1]:
                return
            product, gamma = only_user(norm, "mul")
            total, beta = only_user(product, "add") if product is not None else (None, None)
            if total is None:
                return
            made = mil.Builder.layer_norm(
                x=norm.x,
                axes=[1],
                gamma=gamma,
                beta=beta,
                epsilon=norm.epsilon.val,
                name=total.name,
                before_op=total,
            )
            function.replace_uses_of_var_after_op(anchor_op=total, old_var=total.outputs[0], new_var=made)
            function.remove_ops([total, product, norm])

    class ForgetOutputTypes(graph_pass.AbstractGraphPass):  # type: ignore[name-defined,misc]
        def apply(self, program: Any) -> None:
            for function in program.functions.values():
                function.output_types = None

    for one in (FoldNormAffine, ForgetOutputTypes):
        registry.register_pass("xformer", override=True)(one)
    return "xformer::FoldNormAffine", "xformer::ForgetOutputTypes"


def _quantize(model: Any, prepared: Prepared, options: Options) -> tuple[Any, dict[str, Any]]:
    """The model in a quantized precision, and how the ranges of its activations were chosen; any other as it is."""
    if options.precision == "int8-weights":
        return quantize_weights(model), {}
    if options.precision != "int8":
        return model, {}
    assert options.calibration is not None
    placement = Placement.of(prepared.mobile, options.keep_float)
    choice = quantize(model, prepared.mobile, placement, options.calibration, options.step)
    return choice.artifact, {"ranges": choice.as_json()}


def _float_size(ct: Any, program: ExportedProgram, prepared: Prepared, system: System) -> int:
    """The bytes of the package in fp32."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.mlpackage"
        model = _translate(ct, program, prepared.config, system, PRECISIONS["fp32"], path.with_stem("draft"))
        _finish(model, prepared, path)
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


# ---- writing ----------------------------------------------------------------------------------------------


def _finish(model: Any, prepared: Prepared, path: Path) -> None:
    """Write the package ``path`` of a model."""
    spec = model.get_spec()
    _annotate(spec, prepared)
    with output_errors(path):
        _write(spec, Path(model.package_path), path)


def _annotate(spec: Any, prepared: Prepared) -> None:
    """Say in the package what the model is, and drop what differs from day to day."""
    texts, entries = _description(prepared), _metadata(prepared)
    description = spec.description
    for feature in (*description.input, *description.output):
        feature.shortDescription = texts[feature.name]
    metadata = description.metadata
    metadata.shortDescription = entries["short description"]
    metadata.versionString = entries["version"]
    metadata.author = entries["author"]
    metadata.license = entries["license"]
    metadata.userDefined.pop(DATE, None)
    for key, value in entries["user defined"].items():
        metadata.userDefined[key] = value


def _description(prepared: Prepared) -> dict[str, str]:
    """What each input and output means, by name."""
    config = prepared.config
    task = TASKS[config.task]
    texts = {
        INPUT_NAME: f"RGB picture, height x width {config.image_size}, fitted by the rule {task.resize_rule}; "
        "normalization is in the graph"
    }
    for name, shape in config.output_shapes().items():
        texts[name] = f"{task.meaning}; float32, {shape}"
    if config.task == "classify":
        texts[LABEL_OUTPUT] = "label of the most probable class"
        texts[PROBABILITIES_OUTPUT] = "probability of each class by its label: softmax of the logits"
        if distinct_labels(config.labels) != config.labels:
            texts[LABEL_OUTPUT] += "; a label of more than one class has the class's index behind it"
    return texts


def _metadata(prepared: Prepared) -> dict[str, Any]:
    """What the package says of itself: Core ML's own fields, and ``user defined`` ones."""
    config = prepared.config
    author, license_ = CREDITS[prepared.weights["source"]]
    own = metadata_of(prepared)
    if config.task == "classify":
        # No preview of segmentation: Xcode's is documented for maps of the image's size, ours have a quarter of it.
        own[PREVIEW] = "imageClassifier"
    return {
        "short description": f"{config.variant.name} (XFormer, arXiv 2207.07268) for the task {config.task}, "
        f"{config.num_classes} classes; weights: {prepared.weights['source']}",
        "version": __version__,
        "author": author,
        "license": license_,
        "user defined": own,
    }


def _write(spec: Any, draft: Path, path: Path) -> None:
    """Write the package anew: only what its manifest lists, without random identifiers."""
    if path.exists():
        shutil.rmtree(path)
    (draft / "Data/com.apple.CoreML/model.mlmodel").write_bytes(spec.SerializeToString(deterministic=True))
    manifest = json.loads((draft / "Manifest.json").read_bytes())
    identifiers = {}
    for identifier, item in manifest["itemInfoEntries"].items():
        source, target = draft / "Data" / item["path"], path / "Data" / item["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
        identifiers[identifier] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{item['path']} {tree_sha256(target)}"))
    manifest["itemInfoEntries"] = {identifiers[key]: item for key, item in manifest["itemInfoEntries"].items()}
    manifest["rootModelIdentifier"] = identifiers[manifest["rootModelIdentifier"]]
    (path / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", "utf-8")


# ---- reading back -----------------------------------------------------------------------------------------


def _read_back(ct: Any, prepared: Prepared, system: System, precision: str, path: Path) -> Converted:
    """Load the package as coremltools does, hold it to what was asked for and to the rules, and count its ops.

    Raises:
        ConversionError: it can't be loaded, contradicts what was asked for, or leaves the allowed ops.
    """
    weights = path / "Data/com.apple.CoreML/weights"
    milproto = importlib.import_module("coremltools.converters.mil.frontend.milproto.load")
    try:
        with _quiet():
            spec = ct.models.utils.load_spec(str(path))
            # Refuses truncated weights, and ops and types that the opset of this version does not have.
            program = milproto.load(spec, spec.specificationVersion, str(weights))
    except Exception as error:  # coremltools raises whatever its parts raise
        raise ConversionError(f"{path.name} can't be read back: {' '.join(str(error).split())[:300]}") from error
    main = program.functions["main"]
    asked, found = _asked(prepared, system), _found(spec, main)
    for key in {**asked, **found}:
        if asked.get(key) != found.get(key):
            raise ConversionError(
                f"{path.name} reads back with {key} {str(found.get(key))[:200]}; asked was {str(asked.get(key))[:200]}"
            )
    types = ct.converters.mil.mil.types
    ops = [op for op in main.operations if op.op_type != "const"]
    counts = Counter(op.op_type for op in ops)
    results = [var for op in main.operations for var in op.outputs if types.is_tensor(var.sym_type)]
    ranks = {var.name: len(var.shape) for var in (*main.inputs.values(), *results)}
    check_graph("coreml", counts, ranks, precision)
    graph: dict[str, Any] = {
        "ops": dict(sorted(counts.items())),
        "transposes": counts["transpose"],
        "casts": counts["cast"],
        "largest_rank": max(ranks.values()),
        "weights_bytes": sum(file.stat().st_size for file in weights.iterdir()),
    }
    if PRECISIONS[precision] == "FLOAT16":
        # What coremltools leaves in float32: the softmax, and ops with a constant that float16 can't hold.
        graph["float32_ops"] = dict(sorted(Counter(op.op_type for op in ops if _is_float32(types, op)).items()))
    requires = {
        "minimum_ios": system.ios,
        "minimum_macos": system.macos,
        "specification_version": system.specification_version,
    }
    return Converted(requires, "uint8", "image RGB", graph)


def _is_float32(types: Any, op: Any) -> bool:
    """Whether an op computes in float32. A cast does not compute; classify only looks labels up."""
    return op.op_type not in ("cast", "classify") and any(var.dtype == types.fp32 for var in op.outputs)


def _asked(prepared: Prepared, system: System) -> dict[str, Any]:
    """What the package must say on reading back, by a name for each thing."""
    config, texts, entries = prepared.config, _description(prepared), _metadata(prepared)
    size = config.image_size
    asked = {
        "specification version": system.specification_version,
        "opset": system.opset,
        f"input {INPUT_NAME}": f"RGB image {size.height} x {size.width}",
        **{f"output {name}": f"float32 {shape}" for name, shape in config.output_shapes().items()},
        **{f"description of {name}": text for name, text in texts.items()},
        **{key: value for key, value in entries.items() if key != "user defined"},
        **{f"metadata {key}": value for key, value in entries["user defined"].items()},
    }
    if config.task == "classify":
        asked[f"output {LABEL_OUTPUT}"] = "string"
        asked[f"output {PROBABILITIES_OUTPUT}"] = "dictionary of strings"
        asked["predicted feature"] = LABEL_OUTPUT
        asked["predicted probabilities"] = PROBABILITIES_OUTPUT
        asked["labels"] = distinct_labels(config.labels)
    return asked


def _found(spec: Any, main: Any) -> dict[str, Any]:
    """The same of a package that was read."""
    description, metadata = spec.description, spec.description.metadata
    features = {"input": description.input, "output": description.output}
    found = {
        "specification version": spec.specificationVersion,
        "opset": spec.mlProgram.functions["main"].opset,
        **{f"{kind} {item.name}": _type_name(item.type) for kind, items in features.items() for item in items},
        **{f"description of {item.name}": item.shortDescription for items in features.values() for item in items},
        "short description": metadata.shortDescription,
        "version": metadata.versionString,
        "author": metadata.author,
        "license": metadata.license,
    }
    for key, value in metadata.userDefined.items():
        if not key.startswith("com.github.apple.coremltools."):
            found[f"metadata {key}"] = value
    if description.predictedFeatureName or description.predictedProbabilitiesName:
        found["predicted feature"] = description.predictedFeatureName
        found["predicted probabilities"] = description.predictedProbabilitiesName
    for op in main.operations:
        if op.op_type == "classify":
            found["labels"] = tuple(op.classes.val)
    return found


def _type_name(type_: Any) -> str:
    """A feature's type as text."""
    kind = type_.WhichOneof("Type")
    if kind == "imageType":
        image = type_.imageType
        return f"{image.ColorSpace.Name(image.colorSpace)} image {image.height} x {image.width}"
    if kind == "multiArrayType":
        array = type_.multiArrayType
        return f"{array.ArrayDataType.Name(array.dataType).lower()} {tuple(array.shape)}"
    if kind == "dictionaryType":
        return f"dictionary of {type_.dictionaryType.WhichOneof('KeyType').removesuffix('KeyType')}s"
    return str(kind).removesuffix("Type")
