"""``xformer-bench peers``: XFormer beside MobileViT, MobileNetV2, EfficientNet and DeiT, in one interleaved run."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from xformer_mobile.artifact import FORMATS
from xformer_mobile.bench.peers import BASE, MATMUL, Contender, PeersPlan, measure_peers
from xformer_mobile.bench.peers_report import HEAD, cells, claim, peers_svg, rows_by_size
from xformer_mobile.chatter import silenced
from xformer_mobile.cli import deferred_interrupt
from xformer_mobile.cli.common import (
    IMAGE_SIZE,
    PATH,
    common_options,
    note,
    print_json,
    print_table,
    time_left,
    wants_debug,
)
from xformer_mobile.errors import BundleError, ConversionError, OutputError, ParityError, UsageError
from xformer_mobile.files import exclusive_directory, output_errors, write_file
from xformer_mobile.optional import require
from xformer_mobile.runners import ENGINES
from xformer_mobile.spec import DEFAULT_VARIANT, VARIANTS, ImageSize, lookup

__all__ = ["MODELS", "SIZES", "command"]

EPILOG = """\b
Examples:
  xformer-bench peers
  xformer-bench peers --image-size 1024 --model mobilevit_s --output peers.json --plot peers.svg
  xformer-bench peers --engine litert --image-size 256 --rounds 4 --budget 10
"""

MODELS = ("xformer-reference", "mobilevit_s", "mobilevitv2_100", "mobilenetv2_100", "efficientnet_b0", "deit_ti")
"""What can be named, in order; the exporter has a row for each."""

SIZES = ("256", "512", "1024")


@click.command("peers", epilog=EPILOG)
@click.option(
    "--image-size",
    "sizes",
    type=IMAGE_SIZE,
    multiple=True,
    default=SIZES,
    show_default=True,
    help="Multiples of 64. Repeat it.",
)
@click.option("--model", "models", multiple=True, metavar="NAME", help=f"{', '.join(MODELS)}. [default: all]")
@click.option("--engine", default="onnxruntime", show_default=True, metavar="NAME", help="What runs them.")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads of the engine.")
@click.option("--variant", default=DEFAULT_VARIANT, show_default=True, metavar="NAME", help="XFormer's.")
@click.option(
    "--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Each has processes of its own."
)
@click.option(
    "--budget",
    type=click.FloatRange(0.01, 86_400),
    default=20.0,
    show_default=True,
    help="Seconds of running each model at each size; a slow one is run twice a round all the same.",
)
@click.option(
    "--clock",
    type=click.Choice(["wall", "cpu"]),
    default="wall",
    show_default=True,
    help="cpu: the processor's time, which other processes disturb less; it does not see waiting.",
)
@click.option("--artifacts", type=PATH, metavar="DIR", help="Keep the exported models here, a new or empty directory.")
@click.option("--output", type=PATH, metavar="FILE", help="Write the document, raw samples and all.")
@click.option("--plot", type=PATH, metavar="FILE", help="Write ratios by image size as an SVG picture.")
@common_options
def command(
    sizes: tuple[ImageSize, ...],
    models: tuple[str, ...],
    engine: str,
    threads: int,
    variant: str,
    rounds: int,
    budget: float,
    clock: Any,
    artifacts: Path | None,
    output: Path | None,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure XFormer beside other networks, exported by the same steps, with drawn weights.

    Time and memory are ratios to XFormer's from one interleaved run; what each model computes in a second is held
    against a large matmul of the same run. A computer's ratios are not a phone's.
    """
    lookup("variant", variant, VARIANTS)
    names = (BASE, *dict.fromkeys(models or MODELS))
    for name in names[1:]:
        lookup("model", name, dict.fromkeys(MODELS))
    format = lookup("engine", engine, ENGINES).formats[0]
    _check_places(artifacts, output, plot)
    if plot is not None:
        require("matplotlib", extra="report")
    with tempfile.TemporaryDirectory(prefix="xformer-bench-") as folder:
        contenders, matmul, left_out = _export(
            tuple(dict.fromkeys(sizes)), names, format, engine, variant, Path(folder), quiet=quiet
        )
        if artifacts is not None:
            _keep([*contenders, matmul], artifacts)
        with time_left(quiet=quiet, total=1.0) as update:
            document = measure_peers(
                contenders,
                matmul,
                engine=engine,
                threads=threads,
                plan=PeersPlan(rounds, budget, clock=clock),
                report=update,
                left_out=left_out,
            )
    if output is not None:
        write_file(output, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    if plot is not None:
        write_file(plot, ('<?xml version="1.0" encoding="utf-8"?>\n' + peers_svg(document)).encode())
    if as_json:
        print_json(document)
    else:
        _print(document)
        for made in (output, plot, artifacts):
            if made is not None:
                click.echo(f"Written: {made}")


def _check_places(artifacts: Path | None, *files: Path | None) -> None:
    """Refuse what can't be written before the long work, not after it."""
    for path in (artifacts, *files):
        if path is not None and not path.absolute().parent.is_dir():
            raise OutputError(f"can't write {path}: there is no directory {path.parent}")
    if artifacts is not None and artifacts.exists() and not (artifacts.is_dir() and not any(artifacts.iterdir())):
        raise UsageError(f"--artifacts {artifacts} is there and not empty; give a new or an empty directory")


def _export(
    sizes: tuple[ImageSize, ...],
    names: tuple[str, ...],
    format: str,
    engine: str,
    variant: str,
    folder: Path,
    *,
    quiet: bool,
) -> tuple[list[Contender], Contender, list[dict[str, Any]]]:
    """Every model at every size, the matmul, and what could not be exported, with the reason."""
    with deferred_interrupt():
        require("torch", extra="peers")
        require("transformers", extra="peers")
        from xformer_export.formats import CONVERTERS
        from xformer_export.peers import export_contender
    if CONVERTERS[format].convert_network is None:
        built = [row.name for row in ENGINES.values() if CONVERTERS[row.formats[0]].convert_network is not None]
        raise UsageError(f"there are no peers for {engine}; there are for {', '.join(built)}")
    contenders: list[Contender] = []
    left_out: list[dict[str, Any]] = []
    suffix = Path(FORMATS[format]).suffix
    hidden = contextlib.nullcontext if wants_debug() else silenced
    with time_left(quiet=quiet, total=len(sizes) * len(names) + 1) as update:
        update("load the converters", 0)
        with deferred_interrupt(), hidden():
            for module in CONVERTERS[format].imports:
                require(module, extra=CONVERTERS[format].extra)
        update(f"export {MATMUL}", 0)
        with hidden():
            matmul = export_contender(MATMUL, sizes[0], format, folder / f"{MATMUL}{suffix}", engine=engine)
        done = 1
        for size in sizes:
            for name in names:
                update(f"export {name} at {size}", done)
                path = folder / f"{name}-{size}{suffix}"
                try:
                    with hidden():
                        made = export_contender(name, size, format, path, engine=engine, variant=variant)
                    contenders.append(made)
                except (BundleError, ConversionError, ParityError) as error:
                    if name == BASE:
                        raise
                    reason = " ".join(str(error).split())[:500]
                    left_out.append({"name": name, "image_size": [size.height, size.width], "reason": reason})
                    note(f"note: {name} at {size} is left out: {reason}", quiet=quiet)
                done += 1
    return contenders, matmul, left_out


def _keep(contenders: list[Contender], target: Path) -> None:
    """Copy the artifacts to a directory, which appears whole."""
    with exclusive_directory(target) as staging, output_errors(target):
        for contender in contenders:
            shutil.copy(contender.artifact.path, staging)


def _print(document: Mapping[str, Any]) -> None:
    peers, machine = document["peers"], document["machine"]
    threads = f"{peers['threads']} thread{'s' if peers['threads'] > 1 else ''}"
    clock = ", processor time" if peers["clock"] == "cpu" else ""
    click.echo(
        f"{machine['cpu']}, {machine['system']}; {peers['engine']}, {threads}, fp32, {peers['rounds']} rounds{clock}"
    )
    for (height, width), rows in rows_by_size(document).items():
        table = Table(*HEAD, title=f"{height}x{width}")
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            shown = cells(row)
            if row["name"] in (peers["base"], MATMUL):
                empty = (5, 6, 8, 10) if row["name"] == peers["base"] else (5, 6, 7, 8, 9, 10)
                shown = ["" if index in empty else text for index, text in enumerate(shown)]
            table.add_row(*shown)
        print_table(table)
    for left in peers["left_out"]:
        click.echo(f"left out: {left['name']} at {'x'.join(map(str, left['image_size']))}: {left['reason']}")
    for line in _legend(document):
        click.echo(line)


def _legend(document: Mapping[str, Any]) -> Iterator[str]:
    yield "x: times XFormer's, from one interleaved run; above 1.00x, XFormer is faster or takes less."
    yield "peak: the process with all that is in it. running: the peak beyond what the loaded model takes."
    noisy = [entry for entry in document["measurements"] if entry["disturbances"]["too_noisy"]]
    if noisy:
        yield f"p50: {len(noisy)} of {len(document['measurements'])} are noisy; the ratios' intervals account for it."
    yield from claim(document)
