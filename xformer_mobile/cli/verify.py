"""``xformer-verify``: is every artifact of a bundle the same model, where does it differ, would a user notice?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from xformer_mobile.cli import deferred_interrupt
from xformer_mobile.cli.common import PATH, common_options, note, print_json, print_table, progress
from xformer_mobile.files import output_errors, write_file
from xformer_mobile.parity import Tolerance

__all__ = ["command"]

EPILOG = """\b
Examples:
  xformer-verify my-bundle
  xformer-verify my-bundle --report my-report
  xformer-verify my-bundle --images photographs --checkpoint my.safetensors
  xformer-verify my-bundle --scenes 50 --min-snr 25 --min-agreement 0.98
  xformer-verify my-bundle --format onnx --json
  xformer-verify my-bundle --junit parity.xml --summary "$GITHUB_STEP_SUMMARY"
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
@click.option("--scenes", type=click.IntRange(1), metavar="N", help="So many drawn scenes instead.")
@click.option(
    "--checkpoint",
    type=PATH,
    help="The checkpoint that the bundle was made from: --images, --scenes and the layers need it.",
)
@click.option("--format", "formats", multiple=True, metavar="NAME", help="Only this format; repeat it. [default: all]")
@click.option(
    "--layers/--no-layers",
    default=None,
    help="Compare layer by layer. [default: where torch is installed and the checkpoint known]",
)
@click.option(
    "--second-readers/--no-second-readers",
    default=True,
    help="Let an independent reader run each file too, where there is one. [default: second-readers]",
)
@click.option("--max-difference", type=float, metavar="SHARE", help="Tighten: largest difference, share of the range.")
@click.option("--min-snr", type=float, metavar="DB", help="Tighten: least signal-to-noise ratio of an output.")
@click.option("--min-agreement", type=float, metavar="SHARE", help="Tighten: least agreement of the task's results.")
@click.option("--latency", type=PATH, metavar="FILE", help="Quote these artifacts' times from xformer-bench's file.")
@click.option("--report", type=PATH, metavar="DIR", help="Write report.html and report.json there.")
@click.option("--junit", type=PATH, metavar="FILE", help="Write the checks as JUnit XML, for CI.")
@click.option("--summary", type=PATH, metavar="FILE", help="Append a Markdown table, as a GitHub job summary.")
@common_options
def command(
    path: Path,
    images: tuple[Path, ...],
    scenes: int | None,
    checkpoint: Path | None,
    formats: tuple[str, ...],
    layers: bool | None,
    second_readers: bool,
    max_difference: float | None,
    min_snr: float | None,
    min_agreement: float | None,
    latency: Path | None,
    report: Path | None,
    junit: Path | None,
    summary: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Hold every artifact of a bundle to the reference model.

    Each artifact is run by its engine, which has to be installed; --format leaves out the others.
    On the golden inputs, the expected outputs are part of the bundle. On your own pictures or drawn scenes the
    reference model runs here: give its checkpoint (a bundle of the sample weights or of untrained ones needs none).
    Then each layer is run on the artifact's own input of it, a second reader runs the same file, what the artifact
    says of itself is held to the manifest, and rules forecast what will bite on a phone.
    Exits with 1 on any miss, or when a picture can't be read: it is named, the others are compared.
    """
    with deferred_interrupt():
        from xformer_export.verification import Request, verify
        from xformer_mobile.report import junit_bytes, summary_markdown, write_reports

    request = Request(
        path,
        images,
        scenes,
        checkpoint,
        formats,
        layers,
        second_readers,
        max_difference,
        min_snr,
        min_agreement,
        latency,
    )
    with progress(None, quiet=quiet) as step:
        verification = verify(request, step)
    document = verification.document
    for failure in document["errors"]:
        note(f"xformer-verify: error: {failure}", quiet=False)
    if report is not None:
        write_reports(document, report, verification.samples)
    if junit is not None:
        write_file(junit, junit_bytes(document))
    if summary is not None:
        with output_errors(summary), summary.open("a", encoding="utf-8") as file:
            file.write(summary_markdown(document))
    if as_json:
        print_json(document)
    else:
        _print(path, document)
        if report is not None:
            click.echo(f"Report: {report / 'report.html'}")
    return 0 if verification.passed else 1


def _print(path: Path, document: dict[str, Any]) -> None:
    pictures = document["pictures"]
    table = Table(
        "format", "engine", "output", "max difference", "of the range", "SNR", "cosine", "allowed", "", title=str(path)
    )
    for artifact in document["artifacts"]:
        if artifact["parity"] is None:
            table.add_row(artifact["format"], artifact["engine"] or "", *[""] * 6, _verdict(False))
            continue
        allowed = Tolerance(**artifact["parity"]["tolerance"]).text
        for name, figures in artifact["parity"]["outputs"].items():
            table.add_row(
                artifact["format"],
                artifact["engine"],
                name,
                _number(figures["max_abs"], ".2e"),
                _number(figures["relative_max"], ".1e"),
                _number(figures["snr_db"], ".1f") + " dB",
                _number(figures["cosine"], ".6f"),
                allowed,
                _verdict(figures["passed"]),
            )
    print_table(table)
    click.echo(f"{pictures['count']} pictures: {pictures['source']}")
    for artifact in document["artifacts"]:
        for line in _lines(artifact):
            click.echo(f"{artifact['format']}: {line}")


def _verdict(passed: bool) -> Text | str:
    return "passed" if passed else Text("MISSED", style="bold red")


def _number(value: float | None, form: str) -> str:
    """A figure; what is not finite is None in the document."""
    return "-" if value is None else f"{value:{form}}"


def _lines(artifact: dict[str, Any]) -> list[str]:
    """What is said of an artifact below the table, a line each."""
    if artifact["error"] is not None:
        return [f"MISSED: {artifact['error']}"]
    agreement = artifact["parity"]["agreement"]
    figures = "".join(f", {name} {value:.4g}" for name, value in agreement["figures"].items())
    lines = [f"{agreement['name']} {agreement['share']:.2%}{figures}"]
    lines.append(_layers_line(artifact["layers"]))
    reader = artifact["second_reader"]
    if reader is not None:
        lines.append(
            f"second reader: none; {reader['reason']}"
            if reader["status"] == "none"
            else f"second reader: {reader['reader']} {reader['status']}"
        )
    if artifact["metadata"]["reason"] is not None:
        lines.append(f"metadata: {artifact['metadata']['reason']}")
    kinds = Counter(finding["severity"] for finding in artifact["forecast"])
    if kinds:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        lines.append(f"forecast by rules, not a measurement: {counted} (--report or --json names them)")
    return lines + [f"MISSED: {miss}" for miss in artifact["misses"]]


def _layers_line(layers: dict[str, Any]) -> str:
    if not layers["looked"]:
        return f"layers: not looked into; {layers['reason']}"
    worst = next((row for row in layers["rows"] if row["path"] == layers["worst"]), None)
    where = f"; worst {worst['path']} at {_number(worst['own_snr_db'], '.1f')} dB" if worst else ""
    first = f"; first to differ {layers['first']}" if layers["first"] is not None else ""
    how = "compared on their own inputs" if layers["pictures"] else "compared by their weights alone"
    return f"layers: {layers['compared']} of {layers['modules']} modules {how}{where}{first}"
