"""``xformer-eval``: how right a checkpoint or a bundle is, on every engine, and what conversion has cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from xformer_mobile.artifact import Bundle
from xformer_mobile.cli import deferred_interrupt
from xformer_mobile.cli.common import IMAGE_SIZE, PATH, common_options, note, print_json, print_table, progress
from xformer_mobile.data import SYNTHETIC, Dataset, Subset, Synthetic, open_folder
from xformer_mobile.errors import CheckpointError, UsageError
from xformer_mobile.evaluation import METRICS, evaluate, evaluator_for
from xformer_mobile.optional import require
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.runners import Runner, open_runner, open_runner_for_format
from xformer_mobile.spec import TASKS, ImageSize, Task, lookup

if TYPE_CHECKING:
    from xformer_mobile.reference import XFormer

__all__ = ["command", "judged_pictures"]

EPILOG = """\b
Examples:
  xformer-eval my-bundle
  xformer-eval my.safetensors --form reference --form mobile
  xformer-eval --task detect --pictures 500
  xformer-eval my-bundle --checkpoint my.safetensors --data flowers --json
"""

FORMS = ("reference", "mobile")


@dataclass(frozen=True)
class Candidate:
    """What is evaluated: a name for the table, and the runner."""

    name: str
    engine: str
    open: Callable[[], Runner]


@click.command(epilog=EPILOG)
@click.argument("path", metavar="[BUNDLE|CHECKPOINT]", type=PATH, required=False)
@click.option(
    "--task",
    metavar="NAME",
    help=f"{', '.join(TASKS)}: which sample weights, where nothing is given. [default: classify]",
)
@click.option(
    "--data",
    default="synthetic",
    show_default=True,
    metavar="NAME|DIR",
    help=f"Drawn scenes ({', '.join(SYNTHETIC)}), or your pictures as for xformer-train.",
)
@click.option("--pictures", type=click.IntRange(1), help="At most so many. [default: 2000 scenes, or all of yours]")
@click.option(
    "--checkpoint", type=PATH, help="With a bundle: what it was made from, so that the reference is evaluated too."
)
@click.option(
    "--form",
    "forms",
    multiple=True,
    metavar="NAME",
    help="reference or mobile, in PyTorch; repeat it. [default: reference]",
)
@click.option("--engine", "engines", multiple=True, metavar="NAME", help="Of a bundle: only this engine; repeat it.")
@click.option("--image-size", type=IMAGE_SIZE, help="Of a checkpoint. [default: its own]")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads of the engines. [default: their own choice]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the drawn scenes.")
@click.option(
    "--check/--no-check", default=True, help="Decode all your pictures once before the start. [default: check]"
)
@common_options
def command(
    path: Path | None,
    task: str | None,
    data: str,
    pictures: int | None,
    checkpoint: Path | None,
    forms: tuple[str, ...],
    engines: tuple[str, ...],
    image_size: ImageSize | None,
    threads: int | None,
    seed: int,
    check: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Evaluate a checkpoint, or a bundle on each of its engines; without one, the sample weights.

    classify: top-1 and top-5. detect: COCO's mAP at IoU 0.5 and over 0.5:0.95. segment: mean IoU and pixel
    accuracy. Drawn scenes are those of the test split, which training never sees. A bundle's reference model is
    evaluated first, where its weights are at hand (the sample weights are), and the others show what they lose.
    """
    if path is not None and path.is_dir():
        bundle = Bundle.open(path)
        if task is not None and task != bundle.task:
            raise UsageError(f"bundle {path} is for the task {bundle.task!r}, not {task!r}")
        if image_size is not None:
            raise UsageError("a bundle has its input size; --image-size is for checkpoints")
        rule, size = bundle.postprocess(), bundle.image_size
        candidates = _of_bundle(bundle, checkpoint, forms, engines, threads)
    else:
        if engines or checkpoint is not None:
            raise UsageError("--engine and --checkpoint go with a bundle")
        model, _ = _load(path, lookup("task", task, TASKS).name if task else None, image_size)
        rule, size = Postprocess.of(model.config), model.config.image_size
        candidates = _of_model(model, forms or ("reference",), threads)
    if rule.task == "detect":
        require("pycocotools", extra="train")
    samples, notes = judged_pictures(rule, data, pictures, seed, check=check, quiet=quiet)
    for line in notes:
        note(f"note: {line}", quiet=quiet)
    rows: list[dict[str, Any]] = []
    with progress(len(samples) * len(candidates), quiet=quiet) as step:
        for candidate in candidates:
            with candidate.open() as runner:
                evaluator = evaluator_for(rule.task, rule.labels)
                for _ in evaluate(runner.run, rule, samples, size, evaluator):
                    step(f"{candidate.name} ({candidate.engine})")
                rows.append({"name": candidate.name, "engine": candidate.engine, "metrics": evaluator.metrics()})
    if as_json:
        document = {"task": rule.task, "data": data, "pictures": len(samples), "image_size": str(size)}
        print_json({"path": None if path is None else str(path), **document, "results": rows, "notes": notes})
    else:
        _print(rule.task, rows, f"{path or 'sample weights'}: {rule.task}, {len(samples)} pictures of {data}, {size}")


def _load(
    path: Path | None, task: Task | None, image_size: ImageSize | None, **options: Any
) -> tuple[XFormer, dict[str, Any]]:
    with deferred_interrupt():
        for module in ("torch", "safetensors"):
            require(module, extra="train")
        from xformer_mobile.zoo import load_reference
    return load_reference(path, task=task, image_size=image_size, **options)


def _of_model(model: XFormer, forms: tuple[str, ...], threads: int | None) -> list[Candidate]:
    import torch

    from xformer_mobile.mobile import to_mobile
    from xformer_mobile.runners.pytorch import TorchRunner

    if threads:
        torch.set_num_threads(threads)
    makers: dict[str, Callable[[], Runner]] = {
        "reference": lambda: TorchRunner(model),
        "mobile": lambda: TorchRunner(to_mobile(model)),
    }
    return [Candidate(name, "torch", lookup("form", name, makers)) for name in dict.fromkeys(forms)]


def _of_bundle(
    bundle: Bundle, checkpoint: Path | None, forms: tuple[str, ...], engines: tuple[str, ...], threads: int | None
) -> list[Candidate]:
    """The reference where its weights are at hand, then each format on its engine, or the engines asked for."""
    weights = bundle.manifest["model"]["weights"]
    candidates = []
    if checkpoint is not None or forms or (weights["source"] == "sample" and not engines and _has_torch()):
        if checkpoint is None and weights["source"] == "checkpoint":
            raise UsageError("--form needs --checkpoint, the file that the bundle was made from")
        model, found = _load(
            checkpoint,
            bundle.task,
            bundle.image_size,
            variant=bundle.manifest["model"]["variant"],
            labels=bundle.labels,
        )
        if found["sha256"] != weights["sha256"]:
            raise CheckpointError(
                f"{checkpoint or 'the sample weights'}: not the weights that {bundle.path} was made from"
            )
        candidates = _of_model(model, forms or ("reference",), threads)
    if engines:
        for name in engines:
            runner = open_runner(bundle, name, threads=threads)
            candidates.append(Candidate(bundle.precision, name, lambda runner=runner: runner))  # type: ignore[misc]
    else:
        for format in bundle.formats:
            runner = open_runner_for_format(bundle, format, threads=threads)
            candidates.append(Candidate(f"{format} {bundle.precision}", runner.engine, lambda runner=runner: runner))  # type: ignore[misc]
    return candidates


def _has_torch() -> bool:
    import importlib.util

    return all(importlib.util.find_spec(module) is not None for module in ("torch", "safetensors"))


def judged_pictures(
    rule: Postprocess, data: str, pictures: int | None, seed: int = 0, *, check: bool = True, quiet: bool = False
) -> tuple[Dataset, list[str]]:
    """Labelled pictures for a model, drawn or a user's own, and what there is to note about them.

    Raises:
        UsageError: the model's classes are not the data's.
        DataError: the data can't be read.
    """
    if data in SYNTHETIC:
        scenes = Synthetic(rule.task, "test", pictures or 2000, seed, difficulty=SYNTHETIC[data])
        if scenes.labels != rule.labels:
            raise UsageError(
                f"the model's classes ({', '.join(rule.labels[:3])}, ...) are not those of the drawn scenes; "
                "give --data with pictures of its own"
            )
        return scenes, []
    with progress(None, quiet=quiet) as step:
        folder = open_folder(rule.task, Path(data), "validation", check=check, step=step)
    if rule.task == "segment" and len(folder.labels) <= len(rule.labels):
        folder = replace(folder, labels=rule.labels)  # masks have values, not names
    if len(folder.labels) != len(rule.labels):
        raise UsageError(f"{data} has {len(folder.labels)} classes, the model {len(rule.labels)}")
    notes = list(folder.skipped)
    if folder.labels != rule.labels:
        notes.append("the data's classes have other names than the model's; they are matched by their order")
    return (folder if pictures is None else Subset(folder, pictures)), notes


def _print(task: Task, rows: list[dict[str, Any]], title: str) -> None:
    names = METRICS[task]
    table = Table("model", "engine", *(part for name in names for part in (name, "")), title=title)
    first = rows[0]["metrics"]
    for row in rows:
        cells = []
        for name in names:
            change = 100 * (row["metrics"][name] - first[name])
            cells += [f"{row['metrics'][name]:.2%}", "" if row is rows[0] else f"{change:+.2f} points"]
        table.add_row(row["name"], row["engine"], *cells)
    print_table(table)
