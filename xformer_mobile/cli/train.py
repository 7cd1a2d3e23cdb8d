"""``xformer-train``: train or fine-tune an XFormer on drawn scenes or on your own pictures."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from xformer_mobile.cli import check_interrupt, deferred_interrupt
from xformer_mobile.cli.common import IMAGE_SIZE, PATH, common_options, note, print_json, progress, stderr_console
from xformer_mobile.cli.export import read_labels
from xformer_mobile.data import SYNTHETIC
from xformer_mobile.errors import UsageError
from xformer_mobile.files import output_errors, state_path
from xformer_mobile.optional import require
from xformer_mobile.spec import DEFAULT_VARIANT, TASKS, VARIANTS, ImageSize, ModelConfig, lookup

if TYPE_CHECKING:
    from xformer_mobile.data import Dataset
    from xformer_mobile.training import EpochReport, Recipe, StepReport, Trainer

__all__ = ["command"]

EPILOG = """\b
Examples:
  xformer-train --task classify --variant xformer_xxs --image-size 64 --epochs 3 --output small.safetensors
  xformer-train --task classify --data flowers --checkpoint my.safetensors --output flowers.safetensors
  xformer-train --task detect --data coco --device cuda --precision bf16 --output detector.safetensors
  xformer-train --task classify --data flowers --checkpoint flowers.safetensors --qat --output rounded.safetensors
  torchrun --nproc-per-node 2 --no-python xformer-train --task segment --data streets --output s.safetensors
"""

RECIPE_OPTIONS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "warmup_steps",
    "weight_decay",
    "ema_decay",
    "label_smoothing",
    "mixup",
    "cutmix",
    "start_size",
    "start_epochs",
    "seed",
)
"""The options that go into the recipe under their own names."""


@click.command(epilog=EPILOG)
@click.option("--task", required=True, metavar="NAME", help=f"{', '.join(TASKS)}.")
@click.option(
    "--data",
    default="synthetic",
    show_default=True,
    metavar="NAME|DIR",
    help=f"Scenes drawn on demand ({', '.join(SYNTHETIC)}), or your pictures.",
)
@click.option("--output", type=PATH, required=True, metavar="FILE", help="The checkpoint to write (.safetensors).")
@click.option("--checkpoint", type=PATH, help="Weights to start from; of another task, its backbone.")
@click.option(
    "--variant", metavar="NAME", help=f"{', '.join(VARIANTS)}. [default: the checkpoint's, or {DEFAULT_VARIANT}]"
)
@click.option("--image-size", type=IMAGE_SIZE, help="Multiples of 64. [default: 256]")
@click.option("--labels", type=PATH, help="The classes' names: one a line, or a JSON list. [default: the data's]")
@click.option(
    "--pictures",
    type=click.IntRange(2),
    default=2000,
    show_default=True,
    help="Drawn scenes an epoch; each epoch has others.",
)
@click.option(
    "--validation", type=click.IntRange(0), default=200, show_default=True, help="Pictures judged after each epoch."
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the training pictures.")
@click.option("--batch-size", type=click.IntRange(2), help="Pictures a step, over all processes.")
@click.option("--learning-rate", type=float, help="At its highest, after the warm-up.")
@click.option("--warmup-steps", type=click.IntRange(0), help="Steps until then.")
@click.option("--weight-decay", type=float, help="AdamW's, on kernels only.")
@click.option("--ema-decay", type=float, help="Of the averaged weights, which are the result.")
@click.option("--label-smoothing", type=float, help="classify only.")
@click.option("--mixup", type=float, help="classify only: mixup's alpha; 0 is off.")
@click.option("--cutmix", type=float, help="classify only: CutMix's alpha; 0 is off.")
@click.option(
    "--zoom",
    type=(float, float),
    metavar="LOW HIGH",
    help="Side of the random window, as a share of what preprocessing takes.",
)
@click.option("--start-size", type=click.IntRange(64), help="Side in pixels of the first epochs' input.")
@click.option("--start-epochs", type=click.IntRange(0), help="How many epochs run at --start-size.")
@click.option(
    "--anchors",
    type=click.Choice(("fit", "yolov3")),
    help="detect only: fitted to the boxes, or YOLOv3's. [default: the checkpoint's, or fit]",
)
@click.option(
    "--precision",
    metavar="NAME",
    help="fp32, bf16 or fp16: of the passes; weights stay fp32. [default: bf16 on cuda, else fp32]",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="cpu, cuda, cuda:N; auto takes cuda where there is one.",
)
@click.option(
    "--workers", type=click.IntRange(0, 256), default=0, show_default=True, help="Processes that prepare pictures."
)
@click.option("--threads", type=click.IntRange(1, 256), help="PyTorch's threads. [default: its own choice]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Of weights, order and augmentation.")
@click.option(
    "--qat", is_flag=True, help="Learn to be rounded to int8, from a trained --checkpoint; then --quantize int8 it."
)
@click.option("--half", is_flag=True, help="Store the weights as fp16: half the size.")
@click.option(
    "--check/--no-check", default=True, help="Decode all your pictures once before the start. [default: check]"
)
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped: give its options again.")
@click.option("--restart", is_flag=True, help="Begin anew where an output or a stopped run is in the way.")
@common_options
def command(**options: Any) -> None:
    """Train the reference model, or fine-tune a checkpoint; the result goes to xformer-export.

    After each epoch the averaged weights are in the output file, and beside it, until the run is done, what
    --resume needs. With --json, the figures of all epochs come at the end.
    """
    lookup("task", options["task"], TASKS)
    output: Path = options["output"]
    quiet: bool = options["quiet"]
    _check_output(output, options)
    with deferred_interrupt():
        for module in ("torch", "safetensors", *(("pycocotools",) if options["task"] == "detect" else ())):
            require(module, extra="train")
        import torch

        from xformer_mobile.training import Recipe

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    device = _device(options["device"])
    recipe = _recipe(options, device)
    assert isinstance(recipe, Recipe)
    with _processes(device) as rank:
        trainer, notes = _trainer(options, recipe, device)
        if rank == 0:
            for line in notes:
                note(f"note: {line}", quiet=quiet)
        if options["restart"]:
            with output_errors(output):
                state_path(output).unlink(missing_ok=True)
        if options["resume"]:
            trainer.resume()
            note(f"note: resumed after epoch {trainer.epoch} of {recipe.epochs}", quiet=quiet or rank > 0)
        with _shown(trainer, quiet=quiet or rank > 0) as (on_step, on_epoch):
            figures = trainer.run(on_step, on_epoch)
    if rank:
        return
    if options["as_json"]:
        print_json({"checkpoint": str(output), "task": options["task"], "epochs": figures, "notes": notes})
    else:
        last = {name: value for name, value in figures[-1].items() if isinstance(value, float) and name != "loss"}
        click.echo(f"Checkpoint: {output}" + "".join(f", {name} {value:.1%}" for name, value in last.items()))


def _check_output(output: Path, options: dict[str, Any]) -> None:
    if output.suffix != ".safetensors":
        raise UsageError(f"--output {output} does not end in .safetensors")
    if output.is_dir():
        raise UsageError(f"--output {output} is a directory")
    state = state_path(output)
    if options["resume"] and options["restart"]:
        raise UsageError("--resume goes on and --restart begins anew; give one of them")
    if options["resume"]:
        if not state.is_file():
            raise UsageError(f"nothing to resume: there is no {state}")
    elif not options["restart"]:
        if state.exists():
            raise UsageError(f"{state} is from a run that was stopped; --resume goes on, --restart begins anew")
        if output.exists():
            raise UsageError(f"{output} exists; choose another --output, or --restart to replace it")
    with output_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output.parent).close()  # better now than after the first epoch


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or (kind == "cpu" and number):
        raise UsageError(f"unknown device {name!r}; valid: auto, cpu, cuda, cuda:N")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UsageError(f"no device {name}: PyTorch sees {torch.cuda.device_count()} CUDA devices")
    return name


def _recipe(options: dict[str, Any], device: str) -> Recipe:
    """The task's recipe, with what the options change."""
    from xformer_mobile.training import RECIPES

    recipe = RECIPES[options["task"]]
    if options["data"] in SYNTHETIC:
        recipe = recipe.for_drawn_scenes()
    if options["qat"]:
        if options["checkpoint"] is None:
            raise UsageError("--qat starts from trained weights; give them as --checkpoint")
        recipe = recipe.for_int8()
    if options["task"] != "classify" and any(options[name] for name in ("label_smoothing", "mixup", "cutmix")):
        raise UsageError(f"--label-smoothing, --mixup and --cutmix are for classify, not {options['task']}")
    if options["task"] != "detect" and options["anchors"]:
        raise UsageError(f"--anchors is for detect, not {options['task']}")
    precision = options["precision"] or ("bf16" if device.startswith("cuda") else "fp32")
    changed = recipe.with_options(precision=precision, **{name: options[name] for name in RECIPE_OPTIONS})
    return changed.with_zoom(options["zoom"]) if options["zoom"] else changed


@contextlib.contextmanager
def _processes(device: str) -> Iterator[int]:
    """Join the other processes where torchrun has started several; yields this one's rank."""
    import torch.distributed as dist

    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield 0
        return
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def _trainer(options: dict[str, Any], recipe: Recipe, device: str) -> tuple[Trainer, list[str]]:
    """The run, and what there is to note about its data and its start."""
    from xformer_mobile.training import Trainer, fit_anchors, fresh_model, transfer
    from xformer_mobile.weights import load_checkpoint

    task = options["task"]
    start = None if options["checkpoint"] is None else load_checkpoint(options["checkpoint"])
    same_task = start is not None and start.model.config.task == task
    variant = options["variant"] or (start.model.config.variant.name if start else DEFAULT_VARIANT)
    if start and start.model.config.variant.name != variant:
        raise UsageError(f"{options['checkpoint']} is {start.model.config.variant.name}, not {variant}")
    size = options["image_size"] or (start.trained_size if start else ImageSize(256, 256))
    data, validation, notes = _data(options, recipe, size)
    anchors: dict[str, Any] = {}
    if task == "detect":
        if start is not None and same_task and options["anchors"] is None:
            anchors = {"anchors": start.model.config.anchors}
        elif options["anchors"] != "yolov3":
            anchors = {"anchors": fit_anchors(data, size)}
    config = ModelConfig.create(task, variant, image_size=size, labels=data.labels, **anchors)
    model = fresh_model(config, recipe.seed)
    origin: dict[str, Any] = {"data": options["data"], "start": "fresh"}
    if start is not None:
        fresh = transfer(model, start.model)
        origin["start"] = f"sha256 {start.sha256}"
        notes.append(f"{len(model.state_dict()) - len(fresh)} of {len(model.state_dict())} tensors from the checkpoint")
    trainer = Trainer(
        model,
        recipe,
        data,
        validation,
        options["output"],
        origin=origin,
        device=device,
        workers=options["workers"],
        half=options["half"],
    )
    return trainer, notes


def _data(options: dict[str, Any], recipe: Recipe, size: ImageSize) -> tuple[Dataset, Dataset, list[str]]:
    from xformer_mobile.data import Subset, Synthetic, open_folder

    task, count = options["task"], options["validation"]
    labels = None if options["labels"] is None else read_labels(options["labels"])
    if options["data"] in SYNTHETIC:
        if labels is not None:
            raise UsageError("--labels names the classes of your own data; the drawn scenes have their own")
        difficulty = SYNTHETIC[options["data"]]
        train = Synthetic(task, "train", options["pictures"], recipe.seed, size, difficulty=difficulty)
        return train, replace(train, split="validation", length=count), []
    path = Path(options["data"])
    with progress(None, quiet=options["quiet"]) as step:
        opened = [
            open_folder(task, path, subset, labels=labels, check=options["check"], step=step)
            for subset in (("train", "validation") if count else ("train",))
        ]
    folder, judged = opened[0], opened[-1]
    if judged.labels != folder.labels:
        raise UsageError(f"the training and validation pictures of {path} have different classes")
    return folder, Subset(judged, count), [line for one in opened for line in one.skipped]


@contextlib.contextmanager
def _shown(
    trainer: Trainer, *, quiet: bool
) -> Iterator[tuple[Callable[[StepReport], None], Callable[[EpochReport], None]]]:
    """What to call with each step and each epoch: a bar with loss, metric and time left; a line an epoch."""
    console = stderr_console()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        total = trainer.recipe.epochs * trainer.steps
        task = bar.add_task("training", total=total, completed=trainer.epoch * trainer.steps)
        metric = ""

        def on_step(report: StepReport) -> None:
            check_interrupt()
            text = f"epoch {report.epoch + 1}/{trainer.recipe.epochs} loss {report.loss:.3f}{metric}"
            bar.update(task, description=text, advance=1)

        def on_epoch(report: EpochReport) -> None:
            nonlocal metric
            found = "".join(f" {name} {value:.1%}" for name, value in report.metrics.items())
            metric = found
            number = f"epoch {report.epoch + 1}/{trainer.recipe.epochs} at {report.image_size}"
            note(f"{number}: loss {report.loss:.4f}{found}", quiet=quiet)

        yield on_step, on_epoch
