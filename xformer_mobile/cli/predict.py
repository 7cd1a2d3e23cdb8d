"""``xformer-predict``: run a bundle on pictures."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from PIL import Image
from rich.table import Table

from xformer_mobile.artifact import Bundle
from xformer_mobile.cli.common import PATH, common_options, note, print_json, print_table, progress
from xformer_mobile.drawing import draw_result, mask_image
from xformer_mobile.errors import ImageError
from xformer_mobile.files import output_errors, write_file
from xformer_mobile.postprocess import Classification, ClassMap, Detection, Postprocess, Result
from xformer_mobile.preprocess import find_images, load_image, preprocess
from xformer_mobile.runners import open_runner

__all__ = ["command"]

EPILOG = """\b
Examples:
  xformer-predict my-bundle photo.jpg
  xformer-predict my-bundle photographs --save results
  xformer-predict my-bundle a.png b.png --engine onnxruntime --json
"""

NOTES = {
    "sample": "the bundle's weights are the sample weights: they know drawn scenes, not photographs",
    "untrained": "the bundle's weights are untrained (drawn at random): the predictions mean nothing",
}
"""By the source of the weights, what there is to note."""


@click.command(epilog=EPILOG)
@click.argument("path", metavar="BUNDLE", type=PATH)
@click.argument("images", metavar="IMAGE...", type=PATH, nargs=-1, required=True)
@click.option("--engine", metavar="NAME", help="The engine to run. [default: the first that fits the bundle]")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads of the engine. [default: its own choice]")
@click.option("--save", type=PATH, metavar="DIR", help="Write each picture with its result drawn on it.")
@common_options
def command(
    path: Path,
    images: tuple[Path, ...],
    engine: str | None,
    threads: int | None,
    save: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a bundle on pictures: files, or directories of files.

    A picture that can't be read is named, the others are still done; then the exit status is 1.
    """
    bundle = Bundle.open(path)
    files = find_images(images)
    weights = bundle.manifest["model"]["weights"]["source"]
    if weights in NOTES:
        note(f"note: {NOTES[weights]}", quiet=quiet)
    if save is not None:
        with output_errors(save):
            save.mkdir(parents=True, exist_ok=True)
    rule = bundle.postprocess()
    documents: list[dict[str, Any]] = []
    failures: list[str] = []
    with progress(len(files), quiet=quiet) as step, open_runner(bundle, engine, threads=threads) as runner:
        for number, file in enumerate(files):
            step(file.name)
            try:
                image = load_image(file)
                pixels, fit = preprocess(image, bundle.image_size, bundle.resize_rule)
            except ImageError as error:
                failures.append(str(error))
                continue
            result = rule(runner.run(pixels), fit)
            document = {"image": str(file), "width": image.width, "height": image.height, **_as_json(result)}
            if save is not None:
                document["saved"] = _save(save, f"{number:03d}-{file.stem}", image, result, rule)
            documents.append(document)
    for failure in failures:
        note(f"xformer-predict: error: {failure}", quiet=False)
    if as_json:
        print_json(
            {
                "bundle": str(path),
                "task": bundle.task,
                "engine": runner.engine,
                "weights": weights,
                "results": documents,
                "errors": failures,
            }
        )
    else:
        _print(bundle, documents)
        if save is not None:
            click.echo(f"Pictures: {save}")
    return 1 if failures else 0


def _as_json(result: Result) -> dict[str, Any]:
    if isinstance(result, ClassMap):
        return {"shares": [{"index": index, "label": label, "share": share} for index, label, share in result.shares()]}
    kinds = {Classification: "classes", Detection: "detections"}
    name = next((kinds[type(item)] for item in result), "detections")
    return {name: [asdict(item) for item in result]}


def _save(directory: Path, name: str, image: Image.Image, result: Result, rule: Postprocess) -> list[str]:
    """Write the drawn picture, and of a class map also the mask; returns the files' paths."""
    pictures = {f"{name}.png": draw_result(image, result, rule.palette)}
    if isinstance(result, ClassMap):
        pictures[f"{name}.mask.png"] = mask_image(result, rule.palette)
    for file, picture in pictures.items():
        content = io.BytesIO()
        picture.save(content, "PNG")
        write_file(directory / file, content.getvalue())
    return [str(directory / file) for file in pictures]


def _print(bundle: Bundle, documents: list[dict[str, Any]]) -> None:
    value = {"classify": "probability", "detect": "score", "segment": "share of pixels"}[bundle.task]
    columns = ["picture", "class", value] + (["box (x1, y1, x2, y2)"] if bundle.task == "detect" else [])
    table = Table(*columns, title=f"{bundle.path}: {bundle.task}")
    for document in documents:
        rows = document.get("classes") or document.get("detections") or document.get("shares") or []
        name = Path(document["image"]).name
        if not rows:
            table.add_row(name, "nothing found", "")
        for row in rows:
            share = row.get("probability", row.get("score", row.get("share")))
            cells = [name, row["label"], f"{share:.1%}"]
            if "box" in row:
                cells.append(", ".join(f"{row['box'][side]:.0f}" for side in ("x1", "y1", "x2", "y2")))
            table.add_row(*cells)
            name = ""
        table.add_section()
    print_table(table)
