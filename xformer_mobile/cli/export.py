"""``xformer-export``: from a checkpoint to a verified bundle."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from xformer_mobile.artifact import Bundle
from xformer_mobile.chatter import silenced
from xformer_mobile.cli import deferred_interrupt
from xformer_mobile.cli.common import (
    IMAGE_SIZE,
    PATH,
    Stages,
    common_options,
    human_size,
    note,
    print_json,
    print_table,
    wants_debug,
)
from xformer_mobile.cli.eval import judged_pictures
from xformer_mobile.data import Dataset
from xformer_mobile.errors import UsageError
from xformer_mobile.optional import require
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.spec import TASKS, VARIANTS, ImageSize, check_labels, lookup

__all__ = ["command"]

EPILOG = """\b
Examples:
  xformer-export --format onnx --checkpoint my.safetensors
  xformer-export --format onnx --task detect --image-size 320 --output detector
  xformer-export --format all --checkpoint my.pth --labels names.txt --json
  xformer-export --format coreml --minimum-ios 17
  xformer-export --format tflite,onnx --quantize fp16
  xformer-export --format coreml --quantize int8 --calibration pictures
  xformer-export --format onnx --quantize int8 --onnx-target x86
"""

NO_CHECKPOINT = {
    "sample": "no --checkpoint: these are the sample weights, which know drawn scenes only",
    "untrained": "no --checkpoint, and no sample weights for {variant}: the weights are drawn at random (seed 0), "
    "the predictions will mean nothing",
}
"""By the source of the weights, what there is to note."""

JUDGED_PICTURES = 500
"""Labelled pictures that ``auto`` measures on, at most."""

MAX_LABEL_BYTES = 16 * 2**20


@click.command(epilog=EPILOG)
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=("onnx",),
    show_default=True,
    metavar="NAME",
    help="onnx, coreml, tflite, executorch, ort or all; repeat it, or separate names with commas.",
)
@click.option(
    "--checkpoint", type=PATH, help="Trained weights: .safetensors, .pt or .pth. [default: the sample weights]"
)
@click.option("--task", metavar="NAME", help=f"{', '.join(TASKS)}. [default: the checkpoint's, or classify]")
@click.option("--variant", metavar="NAME", help=f"{', '.join(VARIANTS)}. [default: the checkpoint's, or xformer_s]")
@click.option("--image-size", type=IMAGE_SIZE, help="Multiples of 64. [default: the checkpoint's, or the task's]")
@click.option("--labels", type=PATH, help="The classes' names: one a line, or a JSON list.")
@click.option(
    "--quantize",
    metavar="NAME",
    help="none (fp32), fp16, int8-weights, int8, or auto: the first of int8, int8 with parts in float, int8-weights, "
    "fp16 and none that is within --max-drop. "
    "[default: none; fp16 where Core ML is the only format]",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    metavar="POINTS",
    help="auto: so much of top-1, mAP@0.5 or mean IoU may be lost. [default: 1.0]",
)
@click.option(
    "--data",
    metavar="NAME|DIR",
    help="auto: labelled pictures that the metric is measured on, as for xformer-eval. [default: drawn scenes]",
)
@click.option(
    "--calibration", type=PATH, help="int8: a folder of pictures such as the model will see. [default: drawn scenes]"
)
@click.option(
    "--calibration-pictures",
    type=click.IntRange(4, 10_000),
    default=128,
    show_default=True,
    help="int8: how many of them are used; 100 to 500 are usual.",
)
@click.option(
    "--onnx-target",
    default="arm",
    show_default=True,
    metavar="NAME",
    help="ONNX: arm (phones; int8 is S8S8) or x86 (int8 is U8S8). The other runs it too, int8 slowly.",
)
@click.option(
    "--minimum-ios",
    type=click.Choice(["15", "16", "17", "18"]),
    help="Core ML: the oldest iOS that has to run the model. [default: 16; 17 for int8]",
)
@click.option("--backend", default="xnnpack", show_default=True, metavar="NAME", help="ExecuTorch: xnnpack or coreml.")
@click.option(
    "--ort-format", is_flag=True, help="Beside ONNX, the same model as .ort, for ONNX Runtime's small builds."
)
@click.option("--output", type=PATH, help="The bundle's directory. [default: named after its content]")
@click.option("--verify/--no-verify", default=True, help="Compare with the reference model first. [default: verify]")
@common_options
def command(
    formats: tuple[str, ...],
    checkpoint: Path | None,
    task: str | None,
    variant: str | None,
    image_size: ImageSize | None,
    labels: Path | None,
    quantize: str | None,
    max_drop: float | None,
    data: str | None,
    calibration: Path | None,
    calibration_pictures: int,
    onnx_target: str,
    minimum_ios: str | None,
    backend: str,
    ort_format: bool,
    output: Path | None,
    verify: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Export a trained XFormer as a bundle for phones.

    The bundle holds the converted models, a manifest and golden cases. Each model is compared with the
    reference model before the bundle is put in place; an older bundle stays until then.
    """
    with deferred_interrupt():
        for module in ("torch", "safetensors"):
            require(module, extra="onnx")
        from xformer_export.auto import DEFAULT_DROP
        from xformer_export.bundle import ExportRequest, build_bundle
        from xformer_export.calibration import CALIBRATION_STEPS, FEW_PICTURES
        from xformer_export.formats import CONVERTERS, default_quantization, parse_formats
        from xformer_export.quantize_onnx import TARGETS
        from xformer_export.recipes import AUTO, find_recipe
        from xformer_export.side_by_side import cores
        from xformer_export.to_coreml import find_system
        from xformer_export.to_executorch import BACKENDS
        from xformer_export.to_onnx import check_ort_target

    names = [name for group in formats for name in group.split(",")]
    if ort_format and not {"onnx", "all"} & {name.strip() for name in names}:
        raise UsageError("--ort-format goes with --format onnx")
    lookup("ExecuTorch backend", backend, dict.fromkeys(BACKENDS))
    lookup("ONNX target", onnx_target, TARGETS)
    parsed = parse_formats([*names, "ort"] if ort_format else names)
    recipe = find_recipe(quantize or default_quantization(parsed))
    if recipe.calibrated and "ort" in parsed:
        check_ort_target(onnx_target)
    if "coreml" in parsed and minimum_ios is not None:
        find_system(recipe.precision, int(minimum_ios))
    if calibration is not None and not recipe.calibrated:
        raise UsageError(f"--calibration goes with --quantize int8; {recipe.name} needs no pictures")
    if quantize != AUTO and (max_drop is not None or data is not None):
        raise UsageError("--max-drop and --data go with --quantize auto")
    if max_drop is not None and math.isnan(max_drop):
        raise UsageError("--max-drop is nan; it is a number of points, 0 to 100")
    if recipe.calibrated and "executorch" in parsed and backend != "xnnpack":
        raise UsageError(
            f"{recipe.name} for ExecuTorch is for XNNPACK only; give --backend xnnpack, or --format coreml"
        )

    def judged(rule: Postprocess) -> Dataset:
        found, notes = judged_pictures(rule, data or "synthetic", JUDGED_PICTURES, quiet=True)
        for line in notes:
            note(f"note: {line}", quiet=quiet)
        return found

    # Calibrating takes so long that it does not matter that each process loads its own converter.
    side_by_side = recipe.calibrated and quantize != AUTO and len(set(parsed) - {"ort"}) > 1 and cores() > 1
    request = ExportRequest(
        formats=parsed,
        checkpoint=checkpoint,
        task=task,
        variant=variant,
        image_size=image_size,
        labels=None if labels is None else read_labels(labels),
        quantize=quantize,
        output=output,
        verify=verify,
        minimum_ios=None if minimum_ios is None else int(minimum_ios),
        backend=backend,
        onnx_target=onnx_target,
        calibration=calibration,
        pictures=calibration_pictures,
        judged=judged,
        max_drop=DEFAULT_DROP if max_drop is None else max_drop,
        keep_log=not wants_debug(),
        processes=cores() if side_by_side else 1,
    )
    steps = 4 + len(parsed) * (2 if verify else 1)
    if recipe.calibrated:
        steps += 1 + CALIBRATION_STEPS * (len(set(parsed) - {"ort"}) or 1)  # a .ort file is made from a .onnx
    with Stages(None if quantize == AUTO else steps, quiet=quiet) as stages:
        stages.begin("load the converters")
        with deferred_interrupt(), silenced():
            for name in parsed:
                CONVERTERS[name].check() if side_by_side else CONVERTERS[name].load()
        bundle = build_bundle(request, stages.begin)
    model = bundle.manifest["model"]
    if model["weights"]["source"] in NO_CHECKPOINT:
        note(f"note: {NO_CHECKPOINT[model['weights']['source']].format(variant=model['variant'])}", quiet=quiet)
    if "coreml" in bundle.formats and bundle.precision == "fp32":
        note("note: Core ML runs fp32 on the CPU and GPU; --quantize fp16 lets it use the Neural Engine", quiet=quiet)
    used = bundle.manifest.get("calibration")
    if used and used["skipped"]:
        note(f"note: {used['skipped']} calibration files could not be read and were skipped", quiet=quiet)
    if used and calibration is None and model["weights"]["source"] == "checkpoint":
        note(
            "warning: the activations' ranges are from drawn scenes; if your model was trained on other pictures, give "
            "some of them with --calibration DIR",
            quiet=quiet,
        )
    if used and used["pictures"] < FEW_PICTURES:
        note(
            f"warning: {used['pictures']} calibration pictures are few; the ranges may not hold for others. "
            f"Use {FEW_PICTURES} at least, 100 to 500 are usual",
            quiet=quiet,
        )
    if as_json:
        print_json({"bundle": str(bundle.path), "manifest": bundle.manifest, "seconds": stages.seconds})
    else:
        _print(bundle)
        note("Stages: " + ", ".join(f"{name} {taken:.1f} s" for name, taken in stages.seconds.items()), quiet=quiet)


def read_labels(path: Path) -> tuple[str, ...]:
    """The classes' names from a file: a JSON list, or one a line."""
    try:
        if path.stat().st_size > MAX_LABEL_BYTES:
            raise UsageError(f"labels {path}: more than {MAX_LABEL_BYTES} bytes; a list of names is smaller")
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"can't read labels {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"labels {path} are not UTF-8 text") from error
    if text.lstrip().startswith("["):
        try:
            labels: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"labels {path} are not a JSON list: {error}") from error
    else:
        labels = [line.strip() for line in text.splitlines() if line.strip()]
    try:
        return check_labels(labels)
    except UsageError as error:
        raise UsageError(f"labels {path}: {error}") from error


def _difference(outputs: Iterable[Mapping[str, float | None]]) -> str:
    """The worst output's largest difference and signal-to-noise ratio."""
    found = list(outputs)
    worst = max(output["relative_max"] or 0.0 for output in found)
    ratios = [output["snr_db"] for output in found if output["snr_db"] is not None]
    return f"{worst:.1e} of the range" + (f", {min(ratios):.0f} dB" if ratios else "")


def _print(bundle: Bundle) -> None:
    model = bundle.manifest["model"]
    weights = model["weights"]
    origin = {"sample": "sample weights", "untrained": "untrained weights"}.get(weights["source"])
    origin = origin or f"weights from {weights['part']}"
    click.echo(
        f"{model['variant']} for {bundle.task}: {model['num_classes']} classes, "
        f"{model['parameters'] / 1e6:.3f} M parameters, {model['macs'] / 1e9:.2f} GMACs at {bundle.image_size}, "
        f"{bundle.precision}, {origin}"
    )
    table = Table("format", "file", "size", "sha256", "max difference", "agreement", title="Artifacts")
    for entry in bundle.manifest["artifacts"]:
        parity = bundle.manifest["parity"].get(entry["format"])
        measured = ("not verified", "not verified")
        if parity:
            agreement = parity["agreement"]
            measured = (_difference(parity["outputs"].values()), f"{agreement['name']} {agreement['share']:.2%}")
        table.add_row(entry["format"], entry["file"], human_size(entry["size_bytes"]), entry["sha256"][:12], *measured)
    print_table(table)
    _print_certificates(bundle)
    _print_search(bundle)
    click.echo(f"Bundle: {bundle.path}")


def _print_search(bundle: Bundle) -> None:
    """What ``auto`` found, and why."""
    found = bundle.manifest.get("auto")
    if not found:
        return
    drops = found["tried"][-1]["drop"]
    lost = ", ".join(f"{format} {drop:+.2f}" for format, drop in drops.items())
    click.echo(
        f"auto: {found['recipe']}; {found['metric']} of the reference {found['reference']:.2f} on {found['pictures']} "
        f"pictures, lost: {lost} points of {found['max_drop']:g} allowed"
    )
    for part in found["float_parts"]:
        click.echo(
            f"  float: {part['path']}, for by itself it makes noise of {part['noise']:.1e} of the output's power "
            f"with {part['macs'] / 1e6:.1f} M MACs"
        )


def _print_certificates(bundle: Bundle) -> None:
    """What of each artifact is in int8, as it was read from the artifacts."""
    table = Table(
        "format", "of fp32's size", "MACs", "operators", "weights", "Q/DQ pairs", "float islands", title="In int8"
    )
    for entry in bundle.manifest["artifacts"]:
        found = entry.get("quantization")
        if found:
            shares = (f"{found[name]['share']:.1%}" for name in ("macs", "ops", "weights"))
            table.add_row(
                entry["format"],
                f"{found['size_ratio']:.3f}",
                *shares,
                str(found["qdq_pairs"]),
                str(found["float_island_count"]),
            )
    if table.row_count:
        print_table(table)
