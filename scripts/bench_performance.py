"""What the work on speed has gained: the table of docs/performance.md.

    python scripts/bench_performance.py REVISION                 all of it, about an hour
    python scripts/bench_performance.py REVISION --parts float
    python scripts/bench_performance.py REVISION --parts none    print what has been measured

Artifacts of REVISION, exported by its own code from the same weights, and those of the code at hand are measured in
turns with what they are compared with, on one thread:

    float     ONNX Runtime in float32 at 256x256 and 1024x1024, beside the reference form, peers and a matmul
    int8      each engine's int8 and float32 at 256x256
    export    all four formats in int8, verified; importing the package; a prediction with the ONNX bundle

Weights are drawn for float and are the sample weights otherwise. What is done is kept in --directory and not done
again. It wants an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from xformer_export.formats import CONVERTERS
from xformer_export.peers import export_contender
from xformer_export.to_onnx import target_here
from xformer_mobile.artifact import Bundle
from xformer_mobile.bench import revision
from xformer_mobile.bench.counts import count_artifact
from xformer_mobile.bench.machine import describe_machine, describe_tools
from xformer_mobile.bench.peers import BASE, MATMUL, REFERENCE, Contender, PeersPlan, measure_peers
from xformer_mobile.chatter import silenced
from xformer_mobile.data import Synthetic
from xformer_mobile.files import write_file
from xformer_mobile.optional import require
from xformer_mobile.runners import LooseArtifact
from xformer_mobile.spec import ImageSize, ModelConfig
from xformer_mobile.weights import save_checkpoint
from xformer_mobile.zoo import untrained_model

ROOT = Path(__file__).parent.parent

SMALL, LARGE = ImageSize(256, 256), ImageSize(1024, 1024)

MOBILEVIT, MOBILEVITV2 = "mobilevit_s", "mobilevitv2_100"

ENGINES = {"onnx": "onnxruntime", "tflite": "litert", "executorch": "executorch"}

BEFORE = "before"
"""In the documents: this revision's artifact. What all is compared with is the one of the code at hand."""

CALLS = 20
"""So often is a command started whose time to the end is measured."""

Rows = Mapping[str, Mapping[str, Any]]
"""What was measured at one size, by name; see schemas/peers.schema.json."""


# ---- measuring ---------------------------------------------------------------------------------------------


class Bench:
    """Two codes, ``before`` and the one at hand, and where their artifacts are kept."""

    def __init__(self, before: Path, directory: Path, plan: PeersPlan) -> None:
        self.trees = {BEFORE: before, "after": ROOT}
        self.directory, self.plan = directory, plan

    def export(self, tree: str, name: str, *options: str) -> Bundle:
        """A bundle by one of the codes, unless it is there."""
        output = self.directory / f"{tree}-{name}"
        if not output.exists():
            say(f"export {output.name}")
            revision.export(self.trees[tree], tree, options, output)
        return Bundle.open(output)

    def peer(self, name: str, size: ImageSize, format: str) -> Contender:
        """One of ``xformer-bench peers``."""
        say(f"export {name} at {size}")
        for module in CONVERTERS[format].imports:
            require(module, extra=CONVERTERS[format].extra)
        path = self.directory / f"{name}-{size}.{format}"
        with silenced():
            return export_contender(name, size, format, path, engine=ENGINES[format])

    def run(self, contenders: list[Contender], format: str) -> list[dict[str, Any]]:
        """The rows of one interleaved run, without its samples."""
        matmul = self.peer(MATMUL, SMALL, format)
        document = measure_peers(contenders, matmul, engine=ENGINES[format], plan=self.plan, report=say)
        rows: list[dict[str, Any]] = document["peers"]["rows"]
        for row in rows:
            del row["ratio"]["rounds"]
        return rows

    def float32(self) -> list[dict[str, Any]]:
        """Both codes' mobile form in float32 beside the others, at both sizes."""
        contenders = []
        for size in (SMALL, LARGE):
            checkpoint = self.directory / f"drawn-{size}.safetensors"
            save_checkpoint(untrained_model(ModelConfig.create(image_size=size, num_classes=1000), 0), checkpoint)
            options = ("--checkpoint", str(checkpoint), "--image-size", str(size), "--no-verify")
            bundles = {
                BASE: self.export("after", str(size), *options, "--onnx-target", target_here()),
                BEFORE: self.export(BEFORE, str(size), *options),
            }
            contenders += [contender(name, bundle, "onnx") for name, bundle in bundles.items()]
            contenders += [self.peer(name, size, "onnx") for name in (REFERENCE, MOBILEVIT, MOBILEVITV2)]
        return self.run(contenders, "onnx")

    def int8(self) -> dict[str, list[dict[str, Any]]]:
        """Each engine's int8 and float32 by both codes."""
        found = {}
        for format in ENGINES:
            target = ("--onnx-target", target_here()) if format == "onnx" else ()
            contenders = []
            for tree, recipe in (("after", "int8"), ("after", "none"), (BEFORE, "int8"), (BEFORE, "none")):
                # The older code has one form for all targets in float32.
                options = ("--format", format, "--quantize", recipe, "--no-verify", *target)
                bundle = self.export(tree, f"{format}-{recipe}", *options)
                contenders.append(contender(f"{tree} {recipe}" if contenders else BASE, bundle, format))
            found[format] = self.run(contenders, format)
        return found

    def seconds(self) -> dict[str, dict[str, float]]:
        """Seconds of an export by each code, and of starting: the median of CALLS, in turns."""
        found: dict[str, dict[str, float]] = {"export": {}}
        options = ("--format", "all", "--quantize", "int8", "--calibration-pictures", "128")
        for tree in self.trees:
            say(f"{tree}: export all formats")
            with tempfile.TemporaryDirectory(dir=self.directory) as folder:
                start = time.monotonic()
                revision.export(self.trees[tree], tree, options, Path(folder) / "bundle")
                found["export"][tree] = time.monotonic() - start
        picture = self.directory / "picture.png"
        Image.fromarray(Synthetic("classify", "test", 1)[0].image).save(picture)
        bundle = self.export("after", "onnx", "--format", "onnx", "--no-verify")
        lines = {
            "import": "import xformer_mobile",
            "predict": "from xformer_mobile import cli; cli.predict_main()",
            "python": "pass",
        }
        taken: dict[str, dict[str, list[float]]] = {name: {tree: [] for tree in self.trees} for name in lines}
        for number in range(CALLS):
            say(f"start {number + 1} of {CALLS}")
            for name, line in lines.items():
                for tree, path in self.trees.items():
                    start = time.monotonic()
                    subprocess.run(
                        [sys.executable, "-c", line, str(bundle.path), str(picture)],
                        cwd=path,  # where the package is imported from
                        check=True,
                        capture_output=True,
                    )
                    taken[name][tree].append(time.monotonic() - start)
        return found | {
            name: {tree: statistics.median(values) for tree, values in by_tree.items()}
            for name, by_tree in taken.items()
        }


def contender(name: str, bundle: Bundle, format: str) -> Contender:
    """A bundle's artifact as something to measure."""
    path = bundle.artifact(format).path
    artifact = LooseArtifact(path, format, bundle.image_size, bundle.output_shapes)
    return Contender(name, name, artifact, 0, count_artifact(format, path)["macs"])


def say(text: str, share: float | None = None) -> None:
    """Note what is being done."""
    print(text if share is None else f"{share:4.0%} {text}", file=sys.stderr, flush=True)


# ---- the table ---------------------------------------------------------------------------------------------


def lines(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """What was asked, how much, and what was measured before and after; as far as it was measured."""
    if "float" in found:
        small, large = (
            {row["name"]: row for row in found["float"] if row["image_size"] == [size.height, size.width]}
            for size in (SMALL, LARGE)
        )
        yield "reference form's time / mobile form's", ">= 1.35x", *over(small, REFERENCE)
        yield "GFLOP/s of a MatMul's", ">= 75 %", *(f"{small[name]['matmul_share']:.0%}" for name in (BEFORE, BASE))
        yield "MobileViT-S's time / XFormer's", ">= 1.3x", *over(small, MOBILEVIT)
        yield "the same at 1024x1024", ">= 3.2x", *over(large, MOBILEVIT)
        peak = large[MOBILEVIT]["peak_bytes"]
        yield (
            "peak memory of MobileViT-S's at 1024x1024",
            "<= 0.30x",
            *(f"{large[name]['peak_bytes'] / peak:.2f}x" for name in (BEFORE, BASE)),
        )
        yield "MobileViTv2-1.0's time / XFormer's", "", *over(small, MOBILEVITV2)
        yield "the same at 1024x1024", ">= 1.0x", *over(large, MOBILEVITV2)
        yield (
            "time at 1024x1024 / at 256x256",
            "<= 17x",
            *(f"{large[name]['p50_ns'] / small[name]['p50_ns']:.1f}x" for name in (BEFORE, BASE)),
        )
    if "int8" in found:
        asked = {"onnx": ">= 1.9x", "tflite": ">= 2.7x", "executorch": ">= 2.2x"}
        for format, rows in found["int8"].items():
            by_name = {row["name"]: row for row in rows}
            before, after = (by_name[f"{tree} none"]["ratio"]["median"] for tree in (BEFORE, "after"))
            before /= by_name[f"{BEFORE} int8"]["ratio"]["median"]
            yield f"float32's time / int8's, {ENGINES[format]}", asked[format], f"{before:.2f}x", f"{after:.2f}x"
    if "export" in found:
        times = found["export"]
        yield "seconds to export four formats in int8", "<= 150", *both(times["export"], "{:.0f}")
        yield "seconds to import the package, with Python", "< 0.3", *both(times["import"], "{:.3f}")
        yield "seconds of xformer-predict with ONNX", "< 1.5", *both(times["predict"], "{:.2f}")


def over(rows: Rows, name: str) -> tuple[str, str]:
    """That model's time over XFormer's, before and after."""
    after = rows[name]["ratio"]["median"]
    return f"{after / rows[BEFORE]['ratio']['median']:.2f}x", f"{after:.2f}x"


def both(values: Mapping[str, float], form: str) -> tuple[str, str]:
    """Before and after, in that form."""
    return form.format(values[BEFORE]), form.format(values["after"])


def report(found: Mapping[str, Any]) -> None:
    """The tables, in Markdown."""
    print("| figure, at 256x256 unless said | asked | before | after |")
    print("|---|---|---|---|")
    for cells in lines(found):
        print(f"| {' | '.join(cells)} |")
    print()
    print("| measured | ms, median | GFLOP/s | of MatMul | peak, MB |")
    print("|---|---|---|---|---|")
    runs = [("onnx", found.get("float", [])), *found.get("int8", {}).items()]
    for format, rows in runs:
        for row in rows:
            height, width = row["image_size"]
            name = {BASE: "after int8" if rows is not found.get("float") else "after"}.get(row["name"], row["name"])
            print(
                f"| {name}, {height}x{width}, {ENGINES[format]} | {row['p50_ns'] / 1e6:.1f} | {row['gflops']:.0f} "
                f"| {row['matmul_share']:.0%} | {row['peak_bytes'] / 1e6:.0f} |"
            )


# ---- the command -------------------------------------------------------------------------------------------


@contextmanager
def prepared(name: str, directory: Path, plan: PeersPlan) -> Iterator[Bench]:
    """The bench, with the older code checked out for as long as the block."""
    with revision.checked_out(revision.repository_of(ROOT), name) as tree:
        yield Bench(tree, directory, plan)


def main() -> None:
    """Measure what is asked for and not there yet; print all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    parser.add_argument("--parts", nargs="+", default=["float", "int8", "export"])
    parser.add_argument("--seconds", type=float, default=PeersPlan.seconds, help="of running each model at each size")
    parser.add_argument("--rounds", type=int, default=PeersPlan.rounds, help="each has processes of its own")
    parser.add_argument("--directory", type=Path, default=Path("build/performance"))
    options = parser.parse_args()
    directory: Path = options.directory.absolute()
    plan = PeersPlan(options.rounds, options.seconds)
    directory.mkdir(parents=True, exist_ok=True)
    measures = {"float": Bench.float32, "int8": Bench.int8, "export": Bench.seconds}
    missing = [part for part in measures if part in options.parts and not (directory / f"{part}.json").exists()]
    if missing:
        with prepared(options.revision, directory, plan) as bench:
            for part in missing:
                made = measures[part](bench)
                about = {"machine": describe_machine(), "tools": describe_tools()}
                write_file(directory / f"{part}.json", (json.dumps(about | {"found": made}, indent=1) + "\n").encode())
    files = {part: directory / f"{part}.json" for part in measures}
    report({part: json.loads(file.read_text("utf-8"))["found"] for part, file in files.items() if file.exists()})


if __name__ == "__main__":
    main()
