"""Copy bundles to where an app's assets are, with only the formats that the app runs, and check what is copied.

    python scripts/app_bundle.py --format onnx,ort,tflite --output android_demo/app/src/main/assets/bundles BUNDLE...

Every file is held to its sha256, the golden inputs and outputs are read, and each artifact that is kept must have kept
its tolerance when the bundle was made. The copy's manifest names what is kept, and is otherwise the bundle's own. An
older copy of the same name is replaced in one step. Anything wrong is one line and exit status 1; then the old copy
stays.

The copy is named like the bundle's directory: letters, digits, ``.``, ``_`` and ``-``, which is what the app lists.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from xformer_mobile.artifact import DIRECTORY_FORMATS, FORMATS, MANIFEST, Bundle, manifest_bytes
from xformer_mobile.errors import BundleError, UsageError, XFormerError
from xformer_mobile.files import exclusive_directory, output_errors
from xformer_mobile.spec import lookup

__all__ = ["command", "copy_bundle"]

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What the apps take for a bundle's name; android_demo's BundleName."""


def copy_bundle(source: Path, target: Path, formats: tuple[str, ...]) -> int:
    """Copy one bundle with those of its formats; returns the copy's size in bytes.

    Raises:
        BundleError: the bundle is broken, or an artifact has not kept its tolerance.
        UsageError: it has none of the formats.
        OutputError: the place can't be written.
    """
    bundle = Bundle.open(source)
    kept = tuple(format for format in bundle.formats if format in formats)
    if not kept:
        raise UsageError(f"{source} has {', '.join(bundle.formats)}; the app runs {', '.join(formats)}")
    for format in kept:
        if not bundle.manifest["parity"].get(format, {}).get("passed"):
            raise BundleError(
                f"{source}: its {format} artifact was not held to the reference model when it was made; "
                "export it without --no-verify"
            )
    bundle.golden()
    manifest = {
        **bundle.manifest,
        "artifacts": [entry for entry in bundle.manifest["artifacts"] if entry["format"] in kept],
        "parity": {format: entry for format, entry in bundle.manifest["parity"].items() if format in kept},
    }
    with exclusive_directory(target) as staging, output_errors(target):
        for name, sha256, directory in _files(manifest):
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if directory else shutil.copyfile
            copy(bundle.file(name, sha256, directory=directory), staging / name)
        (staging / MANIFEST).write_bytes(manifest_bytes(manifest))
        return sum(file.stat().st_size for file in staging.rglob("*") if file.is_file())


def names_of(bundles: Sequence[Path]) -> list[str]:
    """What the copies are called.

    Raises:
        UsageError: the app would not list a name, or two bundles have the same.
    """
    names = [source.resolve().name for source in bundles]
    for source, name in zip(bundles, names, strict=True):
        if not NAME.fullmatch(name):
            raise UsageError(
                f"the app does not list a bundle named {name!r}; rename {source}: letters, digits, '.', '_' and '-', "
                "at most 64, a letter or digit first"
            )
        if names.count(name) > 1:
            raise UsageError(f"two bundles are named {name}; one would replace the other: rename {source}")
    return names


def _files(manifest: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Every file that a manifest names: name, sha256, whether it is a directory."""
    for entry in manifest["artifacts"]:
        yield entry["file"], entry["sha256"], entry["format"] in DIRECTORY_FORMATS
    for case in manifest["golden"]:
        for file in (case["input"], *case["outputs"].values()):
            yield file["file"], file["sha256"], False
    if "report" in manifest:
        yield manifest["report"]["file"], manifest["report"]["sha256"], False


@click.command(
    help=(__doc__ or "").replace("\n\n    ", "\n\n\b\n    ", 1),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BUNDLE...")
@click.option("--format", "listed", required=True, metavar="NAMES", help="What the app runs, such as onnx,tflite.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The directory of the app's bundles.")
def command(bundles: tuple[Path, ...], listed: str, output: Path) -> None:
    try:
        formats = tuple(name.strip() for name in listed.split(","))
        for name in formats:
            lookup("format", name, FORMATS)
        for source, name in zip(bundles, names_of(bundles), strict=True):
            target = output / name
            size = copy_bundle(source, target, formats)
            click.echo(f"{target}: {size / 1e6:.1f} MB")
    except XFormerError as error:
        click.echo(f"app_bundle: error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    command()
