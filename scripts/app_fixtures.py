"""Bundles of the sample weights, and what Python makes of pictures with them: for the tests of Kotlin and Swift code.

    python scripts/app_fixtures.py                  all bundles, one after the other: some minutes each
    python scripts/app_fixtures.py --only classify-fp32 --only detect-int8
    python scripts/app_fixtures.py --force          export also what is there already
    python scripts/app_fixtures.py --no-export      only the expected results, with this Python's ONNX Runtime

In --directory: bundles/NAME, exported by the command that users have; pictures/, photographs of the golden fixtures and
drawn scenes, as PNG; and expected/NAME, whose expected.json says, picture by picture, what preprocessing makes of it,
and by format what Python's engine returns for that, and the typed result. A bundle is exported again when the
exporter's sources have changed; expected results are always made anew. The conventions for files are those of
tests/golden/README.md.

ONNX Runtime is the release that the apps have (android_demo/gradle/libs.versions.toml); where this Python has
another one, it is installed into --directory. From release to release it rounds differently somewhere, and in int8 what
falls to the other side is a whole step.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from PIL import Image

from xformer_mobile.artifact import MANIFEST, Bundle
from xformer_mobile.data.scenes import draw_scene
from xformer_mobile.files import exclusive_directory, file_sha256, write_file
from xformer_mobile.postprocess import ClassMap, Postprocess, Result
from xformer_mobile.preprocess import Fit, load_image, preprocess
from xformer_mobile.runners import Outputs, open_runner_for_format
from xformer_mobile.spec import TASKS, ImageSize

COMMAND = "from xformer_mobile import cli; cli.{}_main()"

ROOT = Path(__file__).parent.parent

GOLDEN_IMAGES = ROOT / "tests/golden/preprocess/images"

VERSIONS = ROOT / "android_demo/gradle/libs.versions.toml"

SOURCES = ("export/**/*.py", "xformer_mobile/*.py", "xformer_mobile/sample_weights/*")
"""What an exported bundle depends on, in the repository."""

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "grace_hopper", "rocket", "pixel")
"""Of the golden fixtures; the last is a single pixel."""

SCENES = ((256, 256), (320, 240), (360, 640), (201, 301))
"""Width and height of the drawn scenes."""

IMAGE_SIZE = "256"
"""That of the sample weights' training."""

THREADS = 1
"""Of Python's engines: more may add up in another order."""


@dataclass(frozen=True)
class Row:
    """A bundle: its name, and what ``xformer-export`` is given beside the place."""

    name: str
    options: tuple[str, ...]


ROWS = (
    *(Row(f"{task}-fp32", ("--task", task, "--format", "onnx,ort,tflite", "--quantize", "none")) for task in TASKS),
    *(
        Row(
            f"{task}-int8",
            ("--task", task, "--format", "onnx,tflite", "--quantize", "int8", "--calibration-pictures", "32"),
        )
        for task in TASKS
    ),
    Row("classify-int8-weights", ("--task", "classify", "--format", "onnx,tflite", "--quantize", "int8-weights")),
)

NAMES = tuple(row.name for row in ROWS)


# ---- the bundles -------------------------------------------------------------------------------------------------


def export(row: Row, directory: Path, force: bool) -> Path:
    """The bundle's place; exported unless it is there, whole, and of these sources."""
    bundle, stamp = directory / "bundles" / row.name, directory / "stamps" / row.name
    state = sources_sha256(row)
    if not force and (bundle / MANIFEST).is_file() and stamp.is_file() and stamp.read_text() == state:
        click.echo(f"{row.name}: there already", err=True)
        return bundle
    click.echo(f"{row.name}: exporting", err=True)
    options = (*row.options, "--image-size", IMAGE_SIZE, "--output", str(bundle), "--quiet")
    stamp.unlink(missing_ok=True)
    if subprocess.run([sys.executable, "-c", COMMAND.format("export"), *options], stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"{row.name} could not be exported")
    stamp.parent.mkdir(parents=True, exist_ok=True)
    write_file(stamp, state.encode())
    return bundle


def sources_sha256(row: Row) -> str:
    """One hash of the row's options and of all files that an export depends on."""
    digest = hashlib.sha256(" ".join((*row.options, IMAGE_SIZE)).encode())
    for file in sorted(file for pattern in SOURCES for file in ROOT.glob(pattern)):
        digest.update(f"{file.relative_to(ROOT).as_posix()} {file_sha256(file)}\n".encode())
    return digest.hexdigest()


# ---- the pictures ------------------------------------------------------------------------------------------------


def write_pictures(directory: Path) -> list[Path]:
    """Write the pictures, 8-bit RGB without a profile."""
    with exclusive_directory(directory) as staging:
        names = []
        for name, pixels in pictures():
            Image.fromarray(pixels).save(staging / f"{name}.png")
            names.append(f"{name}.png")
    return [directory / name for name in names]


def pictures() -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Name and pixels, (height, width, 3)."""
    for name in PHOTOGRAPHS:
        yield name, np.asarray(load_image(GOLDEN_IMAGES / f"{name}.png"))
    for index, (width, height) in enumerate(SCENES):
        drawn = ImageSize(-height // 64 * -64, -width // 64 * -64)  # scenes have sides of 64; the rest is cut off
        yield f"scene-{width}x{height}", draw_scene(0, "test", index, drawn).image[:height, :width]


# ---- what Python makes of them -----------------------------------------------------------------------------------


def write_expected(path: Path, files: Sequence[Path], directory: Path) -> None:
    """Run every format of the bundle at ``path`` on the pictures and write what comes out into ``directory``."""
    bundle = Bundle.open(path)
    rule = bundle.postprocess()
    with exclusive_directory(directory) as staging:
        inputs = [preprocess(load_image(file), bundle.image_size, bundle.resize_rule) for file in files]
        cases = []
        for file, (pixels, fit) in zip(files, inputs, strict=True):
            cases.append(
                {
                    "picture": {"name": file.stem, **stored(file, f"../../pictures/{file.name}")},
                    "fit": asdict(fit),
                    "input": write(staging, f"{file.stem}.rgb", pixels.tobytes()),
                    "formats": {},
                }
            )
        engines = {}
        for name in bundle.formats:
            with open_runner_for_format(bundle, name, threads=THREADS) as runner:
                engines[name] = runner.engine
                for file, (pixels, fit), case in zip(files, inputs, cases, strict=True):
                    made = runner.run(pixels)
                    case["formats"][name] = describe(staging, f"{file.stem}-{name}", made, rule, fit)
        document = {
            "bundle": path.name,
            "task": bundle.task,
            "threads": THREADS,
            "architecture": platform.machine(),
            "engines": engines,
            "tools": {name: importlib.metadata.version(name) for name in ("onnxruntime", "ai-edge-litert")},
            "cases": cases,
        }
        (staging / "expected.json").write_text(json.dumps(document, indent=1) + "\n")


def describe(staging: Path, stem: str, outputs: Outputs, rule: Postprocess, fit: Fit) -> dict[str, Any]:
    """One engine's outputs and the typed result for one picture; larger parts in files."""
    raw = {
        name: {"shape": list(values.shape), **write(staging, f"{stem}-{name}.f32", values.astype("<f4").tobytes())}
        for name, values in outputs.items()
    }
    return {"outputs": raw, **typed(staging, stem, rule(outputs, fit))}


def typed(staging: Path, stem: str, result: Result) -> dict[str, Any]:
    """The typed result, as ``xformer-predict --json`` has it; of a class map also the map itself."""
    if not isinstance(result, ClassMap):
        return {"result": [asdict(item) for item in result]}
    kind = "u8" if result.classes.itemsize == 1 else "u16"
    content = result.classes.astype(f"<{kind[0]}{result.classes.itemsize}").tobytes()
    shares = [{"index": index, "label": label, "share": share} for index, label, share in result.shares()]
    shape = list(result.classes.shape)
    return {"class_map": {"shape": shape, "type": kind, **write(staging, f"{stem}.{kind}", content)}, "shares": shares}


def write(staging: Path, name: str, content: bytes) -> dict[str, str]:
    """Write a file and describe it."""
    (staging / name).write_bytes(content)
    return stored(staging / name, name)


def stored(file: Path, name: str) -> dict[str, str]:
    return {"file": name, "sha256": file_sha256(file)}


# ---- the ONNX Runtime of the apps --------------------------------------------------------------------------------


def onnxruntime_path(directory: Path) -> dict[str, str]:
    """The environment that Python finds the apps' release with; nothing where it is this Python's."""
    found = re.search(r'^onnxruntime = "(.+)"$', VERSIONS.read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"{VERSIONS} has no line onnxruntime")
    version = found[1]
    if importlib.metadata.version("onnxruntime") == version:
        return {}
    place = directory / f"onnxruntime-{version}"
    if not place.is_dir():
        click.echo(f"onnxruntime {version}: installing into {place}", err=True)
        with exclusive_directory(place) as staging:
            options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(staging))
            if subprocess.run([sys.executable, "-m", "pip", "install", *options, f"onnxruntime=={version}"]).returncode:
                sys.exit(f"onnxruntime {version} could not be installed")
    return {"PYTHONPATH": str(place.resolve())}


# ---- the command -------------------------------------------------------------------------------------------------


@click.command(
    help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    ", 1),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--only", multiple=True, type=click.Choice(NAMES), metavar="NAME", help="[default: all]")
@click.option("--force", is_flag=True, help="Export also what is there already.")
@click.option("--no-export", is_flag=True, help="Only make the expected results, with this Python's ONNX Runtime.")
@click.option("--directory", type=click.Path(path_type=Path), default=Path("build/apps"), show_default=True)
def command(only: tuple[str, ...], force: bool, no_export: bool, directory: Path) -> None:
    rows = [row for row in ROWS if not only or row.name in only]
    if no_export:
        files = write_pictures(directory / "pictures")
        for row in rows:
            write_expected(directory / "bundles" / row.name, files, directory / "expected" / row.name)
            click.echo(f"{row.name}: {directory / 'expected' / row.name}")
        return
    for row in rows:
        click.echo(f"{row.name}: {export(row, directory, force)}")
    again = [argument for row in rows for argument in ("--only", row.name)]
    arguments = [sys.executable, __file__, "--no-export", *again, "--directory", str(directory)]
    sys.exit(subprocess.run(arguments, env={**os.environ, **onnxruntime_path(directory)}).returncode)


if __name__ == "__main__":
    command()
