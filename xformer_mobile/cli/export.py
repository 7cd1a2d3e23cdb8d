"""``xformer-export``: from a checkpoint to a verified bundle."""

from __future__ import annotations

import json
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
from xformer_mobile.errors import UsageError
from xformer_mobile.optional import require
from xformer_mobile.spec import TASKS, VARIANTS, ImageSize, check_labels, lookup

__all__ = ["command"]

EPILOG = """\b
Examples:
  xformer-export --format onnx --checkpoint my.safetensors
  xformer-export --format onnx --task detect --image-size 320 --output detector
  xformer-export --format all --checkpoint my.pth --labels names.txt --json
  xformer-export --format coreml --minimum-ios 17
  xformer-export --format tflite,onnx --quantize fp16
"""

NO_CHECKPOINT = {
    "sample": "no --checkpoint: these are the sample weights, which know drawn scenes only",
    "untrained": "no --checkpoint, and no sample weights for {variant}: the weights are drawn at random (seed 0), "
    "the predictions will mean nothing",
}
"""By the source of the weights, what there is to note."""

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
    "--quantize", metavar="NAME", help="none (fp32) or fp16. [default: none; fp16 where Core ML is the only format]"
)
@click.option(
    "--minimum-ios",
    type=click.Choice(["15", "16", "17", "18"]),
    default="16",
    show_default=True,
    help="Core ML: the oldest iOS that has to run the model.",
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
    minimum_ios: str,
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
        from xformer_export.bundle import ExportRequest, build_bundle
        from xformer_export.formats import CONVERTERS, check_quantization, parse_formats
        from xformer_export.to_executorch import BACKENDS

    names = [name for group in formats for name in group.split(",")]
    if ort_format and not {"onnx", "all"} & {name.strip() for name in names}:
        raise UsageError("--ort-format goes with --format onnx")
    lookup("ExecuTorch backend", backend, dict.fromkeys(BACKENDS))
    if quantize is not None:
        check_quantization(quantize)
    request = ExportRequest(
        formats=parse_formats([*names, "ort"] if ort_format else names),
        checkpoint=checkpoint,
        task=task,
        variant=variant,
        image_size=image_size,
        labels=None if labels is None else read_labels(labels),
        quantize=quantize,
        output=output,
        verify=verify,
        minimum_ios=int(minimum_ios),
        backend=backend,
        keep_log=not wants_debug(),
    )
    steps = 4 + len(request.formats) * (2 if verify else 1)
    with Stages(steps, quiet=quiet) as stages:
        stages.begin("load the converters")
        with deferred_interrupt(), silenced():
            for name in request.formats:
                for module in CONVERTERS[name].imports:
                    require(module, extra=CONVERTERS[name].extra)
        bundle = build_bundle(request, stages.begin)
    model = bundle.manifest["model"]
    if model["weights"]["source"] in NO_CHECKPOINT:
        note(f"note: {NO_CHECKPOINT[model['weights']['source']].format(variant=model['variant'])}", quiet=quiet)
    if "coreml" in bundle.formats and bundle.precision == "fp32":
        note("note: Core ML runs fp32 on the CPU and GPU; --quantize fp16 lets it use the Neural Engine", quiet=quiet)
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
    click.echo(f"Bundle: {bundle.path}")
