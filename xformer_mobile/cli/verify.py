"""``xformer-verify``: does a bundle compute what the reference model computes?"""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from xformer_mobile.artifact import Bundle
from xformer_mobile.cli.common import PATH, common_options, note, print_json, print_table, progress
from xformer_mobile.errors import BundleError, CheckpointError, ImageError, UsageError
from xformer_mobile.optional import require
from xformer_mobile.parity import Comparison, compare, run_all
from xformer_mobile.preprocess import ByteImage, find_images, load_image, preprocess
from xformer_mobile.runners import Outputs, open_runner_for_format
from xformer_mobile.spec import lookup

__all__ = ["command"]

EPILOG = """\b
Examples:
  xformer-verify my-bundle
  xformer-verify my-bundle --images photographs --checkpoint my.safetensors
  xformer-verify my-bundle --format onnx --json
"""


@click.command(epilog=EPILOG)
@click.argument("path", metavar="BUNDLE", type=PATH)
@click.option(
    "--images",
    multiple=True,
    type=PATH,
    metavar="PATH",
    help="Your own pictures: a file or a directory; repeat it. [default: the bundle's golden inputs]",
)
@click.option("--checkpoint", type=PATH, help="The checkpoint that the bundle was made from; --images needs it.")
@click.option("--format", "formats", multiple=True, metavar="NAME", help="Only this format; repeat it. [default: all]")
@common_options
def command(
    path: Path,
    images: tuple[Path, ...],
    checkpoint: Path | None,
    formats: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> int:
    """Compare every artifact of a bundle with the reference model.

    Each artifact is run by its engine, which has to be installed; --format leaves out the others.
    On the golden inputs, the expected outputs are part of the bundle. On your own pictures the reference model
    runs here: give its checkpoint (a bundle of the sample weights or of untrained ones needs none).
    Exits with 1 when a tolerance is missed, or when a picture can't be read: it is named, the others are compared.
    """
    bundle = Bundle.open(path)
    failures: list[str] = []
    if checkpoint is not None and not images:
        raise UsageError("--checkpoint is used with --images; the golden outputs are part of the bundle")
    chosen = [lookup("format", name, dict.fromkeys(bundle.formats, name)) for name in dict.fromkeys(formats)]
    chosen = chosen or list(bundle.formats)
    with progress(1 + len(chosen), quiet=quiet) as step:
        step("run the reference model")
        if images:
            pictures, failures = _load(bundle, find_images(images))
            expected = _run_reference(bundle, checkpoint, pictures)
        else:
            cases = bundle.golden()
            if not cases:
                raise BundleError(f"{path} has no golden cases; give --images")
            pictures, expected = [case.image for case in cases], [dict(case.outputs) for case in cases]
        found: dict[str, tuple[str, list[Outputs]]] = {}
        for format in chosen:
            step(f"run {format}")
            with open_runner_for_format(bundle, format) as runner:
                found[format] = (runner.engine, run_all(runner, pictures))
    comparisons = {
        format: compare(expected, outputs, bundle.postprocess(), engine=engine, precision=bundle.precision)
        for format, (engine, outputs) in found.items()
    }
    for failure in failures:
        note(f"xformer-verify: error: {failure}", quiet=False)
    passed = all(comparisons.values()) and not failures
    if as_json:
        document = {name: comparison.as_json() for name, comparison in comparisons.items()}
        print_json({"bundle": str(path), "passed": passed, "parity": document, "errors": failures})
    else:
        _print(path, comparisons)
    return 0 if passed else 1


def _load(bundle: Bundle, files: list[Path]) -> tuple[list[ByteImage], list[str]]:
    """The byte images of the pictures that can be read, and what is wrong with the others."""
    pictures, failures = [], []
    for file in files:
        try:
            pictures.append(preprocess(load_image(file), bundle.image_size, bundle.resize_rule)[0])
        except ImageError as error:
            failures.append(str(error))
    if not pictures:
        raise ImageError(f"none of {len(files)} pictures can be used; the first: {failures[0]}")
    return pictures, failures


def _run_reference(bundle: Bundle, checkpoint: Path | None, pictures: list[ByteImage]) -> list[Outputs]:
    require("torch", extra="onnx")
    require("safetensors", extra="onnx")
    from xformer_mobile.runners.pytorch import TorchRunner
    from xformer_mobile.zoo import load_reference

    model, weights = bundle.manifest["model"], bundle.manifest["model"]["weights"]
    if checkpoint is None and weights["source"] == "checkpoint":
        raise UsageError("--images needs --checkpoint, the file that the bundle was made from, to run the reference")
    reference, found = load_reference(
        checkpoint, task=bundle.task, variant=model["variant"], image_size=bundle.image_size, labels=bundle.labels
    )
    if found["sha256"] != weights["sha256"]:
        what = f"checkpoint {checkpoint}"
        if checkpoint is None:
            what = "weights drawn on this machine" if bundle.is_untrained else "the sample weights of this version"
        raise CheckpointError(
            f"{what} are not those that the bundle was made from: sha256 {found['sha256'][:12]}..., "
            f"not {weights['sha256'][:12]}..."
        )
    with TorchRunner(reference) as runner:
        return run_all(runner, pictures)


def _print(path: Path, comparisons: dict[str, Comparison]) -> None:
    table = Table("format", "engine", "output", "max difference", "of the range", "allowed", "SNR", "", title=str(path))
    for format, comparison in comparisons.items():
        for output in comparison.outputs:
            table.add_row(
                format,
                comparison.engine,
                output.name,
                f"{output.max_abs:.2e}",
                f"{output.relative_max:.1e}",
                f"{comparison.tolerance.relative_max:.0e}",
                f"{output.snr_db:.1f} dB",
                "passed" if comparison.keeps(output) else Text("MISSED", style="bold red"),
            )
    print_table(table)
    for format, comparison in comparisons.items():
        agreement = comparison.agreement
        click.echo(f"{format}: {agreement.name} {agreement.share:.2%} on {comparison.images} pictures")
        for miss in comparison.misses():
            click.echo(f"{format}: MISSED: {miss}")
