"""What quantization costs and gains: the tables of docs/quantization.md, measured on the sample weights.

    python scripts/bench_quantization.py                    all of it, some hours
    python scripts/bench_quantization.py --tasks classify --parts accuracy
    python scripts/bench_quantization.py --parts none       print what has been measured

Bundles of every format are exported by each recipe, evaluated on held-out scenes, and compared in latency with their
own float32, both in turns on one thread; all by the commands that users have. Core ML is evaluated by the MIL
evaluator, which has no latency worth measuring. What is done is kept in --directory and not done again, so that it may
be stopped, and accuracy may be measured by a process for each task. Latency wants an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xformer_mobile.artifact import MANIFEST
from xformer_mobile.evaluation import METRICS
from xformer_mobile.files import write_file
from xformer_mobile.spec import TASKS

COMMAND = "from xformer_mobile import cli; cli.{}_main()"

FLOAT = "fp32"

PARTS = ("accuracy", "latency")

SIDES = ("base_ns", "candidate_ns")


@dataclass(frozen=True)
class Row:
    """A bundle: its name in the tables, and what ``xformer-export`` is given."""

    name: str
    options: tuple[str, ...]

    def place(self, directory: Path, task: str) -> Path:
        """Where the bundle of a task is."""
        return directory / f"{task}-{self.name.replace(', ', '-')}"


ROWS = (
    Row(FLOAT, ("--format", "all", "--quantize", "none")),
    Row("int8-weights", ("--format", "all", "--quantize", "int8-weights")),
    Row("int8", ("--format", "all", "--quantize", "int8")),
    Row("int8, x86", ("--format", "onnx", "--quantize", "int8", "--onnx-target", "x86")),
)

ENGINES = {"onnx": "onnxruntime", "coreml": "coreml", "tflite": "litert", "executorch": "executorch"}

TIMED = {"onnx": "int8, x86", "tflite": "int8", "executorch": "int8"}
"""Formats that run natively on a desktop, and which bundle of theirs is for it."""


def command(name: str, *arguments: str) -> dict[str, Any]:
    """The JSON document of one of the project's commands."""
    line = [sys.executable, "-c", COMMAND.format(name), *arguments, "--json", "--quiet"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    document: dict[str, Any] = json.loads(done.stdout or "{}")
    if not document or "error" in document:
        raise SystemExit(f"xformer-{name} {' '.join(arguments)}: {done.stderr.strip()}")
    return document


def kept(file: Path, name: str, *arguments: str) -> dict[str, Any]:
    """A command's document, from the file if it is there."""
    if not file.exists():
        print(f"{file.name}: xformer-{name} {' '.join(arguments)}", file=sys.stderr, flush=True)
        document = command(name, *arguments)
        write_file(file, (json.dumps(document, indent=1) + "\n").encode())
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def bundle(directory: Path, task: str, row: Row) -> Path:
    """Export it, unless it is there."""
    path = row.place(directory, task)
    if not path.exists():
        print(f"{path.name}: export", file=sys.stderr, flush=True)
        command("export", "--task", task, "--output", str(path), *row.options)
    return path


def evaluation(path: Path) -> Path:
    """The file of what a bundle's evaluation said."""
    return path.with_name(f"{path.name}.eval.json")


def measure(directory: Path, task: str, parts: tuple[str, ...], pictures: int, pairs: int) -> None:
    """Measure what is not there yet of one task."""
    bundles = {row.name: bundle(directory, task, row) for row in ROWS}
    if "accuracy" in parts:
        # With the float32 bundle the reference model is evaluated too.
        for row in ROWS:
            formats = [entry["format"] for entry in read_manifest(bundles[row.name])["artifacts"]]
            engines = [part for format in formats for part in ("--engine", ENGINES[format])]
            arguments = [str(bundles[row.name]), "--pictures", str(pictures), "--threads", "1"]
            kept(
                evaluation(bundles[row.name]),
                "eval",
                *arguments,
                *(() if row.name == FLOAT else engines),
            )
    if "latency" in parts:
        for format, name in TIMED.items():
            # Nothing is certain at this alpha, so that every pair is run.
            limits = ("--pairs", str(pairs), "--alpha", "0.000000001", "--budget", "600", "--max-regression", "0%")
            kept(
                directory / f"{task}-{format}.latency.json",
                "bench",
                *("compare", str(bundles[FLOAT]), str(bundles[name]), "--engine", ENGINES[format], *limits),
            )


def read_manifest(path: Path) -> dict[str, Any]:
    """A bundle's manifest."""
    found: dict[str, Any] = json.loads((path / MANIFEST).read_text("utf-8"))
    return found


def drops(directory: Path, task: str) -> dict[tuple[str, str], float]:
    """Points of the task's first metric that each format of each bundle has lost against the reference model."""
    metric = METRICS[TASKS[task].name][0]
    found, reference = {}, None
    for row in ROWS:
        file = evaluation(row.place(directory, task))
        if file.exists():
            results = json.loads(file.read_text("utf-8"))["results"]
            if row.name == FLOAT:
                reference = next(result for result in results if result["name"] == "reference")["metrics"][metric]
                found["reference", ""] = 100 * reference
            for result in results:
                for format, engine in ENGINES.items():
                    if result["engine"] == engine and reference is not None:
                        found[row.name, format] = 100 * (reference - result["metrics"][metric])
    return found


def report(directory: Path, tasks: list[str]) -> None:
    """The tables, in Markdown."""
    print("| task | metric | recipe | " + " | ".join(ENGINES) + " |")
    print("|---|---|---|" + "---|" * len(ENGINES))
    for task in tasks:
        lost = drops(directory, task)
        if lost:
            metric = f"{METRICS[TASKS[task].name][0]} {lost.pop(('reference', '')):.2f}"
            for row in ROWS:
                cells = (f"{lost[row.name, name]:+.2f}" if (row.name, name) in lost else "" for name in ENGINES)
                print(f"| {task} | {metric} | {row.name} | " + " | ".join(cells) + " |")
    print()
    print("| task | recipe | format | MB | of fp32 | MACs in int8 | weights in int8 | Q/DQ pairs | islands | ranges |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for task in tasks:
        for row in ROWS[1:]:
            path = row.place(directory, task)
            for entry in read_manifest(path)["artifacts"] if path.exists() else ():
                found = entry["quantization"]
                print(
                    f"| {task} | {row.name} | {entry['format']} | {entry['size_bytes'] / 1e6:.2f} "
                    f"| {found['size_ratio']:.3f} | {found['macs']['share']:.1%} | {found['weights']['share']:.1%} "
                    f"| {found['qdq_pairs']} | {found['float_island_count']} "
                    f"| {found.get('ranges', {}).get('method', '')} |"
                )
    print()
    print("| task | engine | fp32, ms | int8, ms | speed-up | the middle half of the pairs |")
    print("|---|---|---|---|---|---|")
    for task in tasks:
        for format in TIMED:
            file = directory / f"{task}-{format}.latency.json"
            if file.exists():
                found = json.loads(file.read_text("utf-8"))
                pairs = found["pairs"]
                before, after = (statistics.median(pair[name] / 1e6 for pair in pairs) for name in SIDES)
                low, middle, high = statistics.quantiles((pair[SIDES[0]] / pair[SIDES[1]] for pair in pairs), n=4)
                print(
                    f"| {task} | {ENGINES[format]} | {before:.1f} | {after:.1f} | {middle:.2f}x "
                    f"| {low:.2f}x to {high:.2f}x |"
                )


def main() -> None:
    """Measure what is asked for and not there yet; print all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=[*PARTS, "none"])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--directory", type=Path, default=Path("build/quantization"))
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    if options.parts != ["none"]:
        for task in options.tasks:
            measure(options.directory, task, tuple(options.parts), options.pictures, options.pairs)
    report(options.directory, options.tasks)


if __name__ == "__main__":
    main()
