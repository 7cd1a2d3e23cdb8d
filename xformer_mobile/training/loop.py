"""The training loop: AdamW, warm-up and cosine, averaged weights, mixed precision, resume.

A run is a function of its recipe, its data and its starting weights: the order of the samples and every random
choice depend on (seed, epoch, index) alone, so a run that is resumed goes on as if it had never stopped.
After each epoch the averaged weights are written to the output, and all that a resumed run needs beside it.
Several processes (``torchrun``) share each batch and average their gradients; the first one judges and writes.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from xformer_mobile.data.sample import Dataset, Subset
from xformer_mobile.errors import CheckpointError, DataError, TrainingError, XFormerError
from xformer_mobile.evaluation import evaluate, evaluator_for
from xformer_mobile.fake_quant import FakeQuant
from xformer_mobile.files import state_path, write_file
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.preprocess import preprocess
from xformer_mobile.reference import XFormer, normalize
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import TASKS, ImageSize, ModelConfig
from xformer_mobile.training.augment import Augmentation, augment
from xformer_mobile.training.losses import ClassificationLoss, DetectionLoss, SegmentationLoss
from xformer_mobile.training.recipe import Recipe
from xformer_mobile.weights import checkpoint_bytes, resample_context

__all__ = ["EpochReport", "StepReport", "Trainer"]

METADATA_KEY = "xformer_train"
"""The safetensors metadata entry that holds the recipe, the data and the figures as JSON."""

CALIBRATION_PICTURES = 64
"""Training pictures that the ranges of ``--qat`` are from."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepReport:
    """One optimizer step: its number within ``steps`` of the epoch, its loss, the learning rate."""

    epoch: int
    step: int
    steps: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class EpochReport:
    """One epoch (from 0): the mean loss, the metrics of the averaged weights on the validation data, the size."""

    epoch: int
    loss: float
    metrics: dict[str, float]
    image_size: str


class _Batches(torch.utils.data.Dataset[dict[str, Any]]):
    """The samples of one epoch, augmented, as tensors."""

    def __init__(self, data: Dataset, config: ModelConfig, rule: Augmentation, seed: int, epoch: int) -> None:
        self.data, self.config, self.rule = data, config, rule
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        config = self.config
        sample = augment(self.data[index], config.task, config.image_size, self.rule, rng)
        item: dict[str, Any] = {"image": torch.from_numpy(sample.image)}
        if config.task == "classify":
            item["kind"] = sample.kind
        elif config.task == "segment":
            assert sample.mask is not None
            item["mask"] = torch.from_numpy(sample.mask).long()
        else:
            item["boxes"] = tuple(map(torch.from_numpy, (sample.boxes, sample.kinds, sample.crowd)))
        return item


def _collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    batch = {key: default_collate([item[key] for item in items]) for key in items[0] if key != "boxes"}
    if "boxes" in items[0]:
        batch["boxes"] = [item["boxes"] for item in items]
    return batch


class Trainer:
    """One training run.

    Args:
        model: the reference model to train, built for the final input size; its weights are where it starts.
        recipe: how.
        data: the training samples; their labels are the model's.
        validation: samples that are judged after each epoch.
        output: the checkpoint to write; beside it, ``OUTPUT.state`` is there until the run is done.
        origin: what the data and the starting weights are, in words, for the checkpoint's metadata.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        workers: processes that prepare pictures; 0 prepares them here.
        half: store the checkpoint's weights as fp16.
    """

    def __init__(
        self,
        model: XFormer,
        recipe: Recipe,
        data: Dataset,
        validation: Dataset,
        output: Path,
        *,
        origin: dict[str, Any],
        device: str = "cpu",
        workers: int = 0,
        half: bool = False,
    ) -> None:
        if len(data) < 2:
            raise TrainingError(f"{len(data)} training pictures; BatchNorm needs at least 2")
        self.config = model.config
        self.recipe, self.data, self.validation = recipe, data, validation
        self.output, self.origin = output, origin
        self.device, self.workers, self.half = torch.device(device), workers, half
        self.rank, self.processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.batch_size = min(recipe.batch_size, len(data))
        if self.batch_size % self.processes:
            raise TrainingError(f"batches of {self.batch_size} do not divide among {self.processes} processes")
        self.steps = len(data) // self.batch_size  # the last batch, if it is not whole, waits for another epoch
        self.identity = hashlib.sha256(
            json.dumps([recipe.as_json(), origin, len(data), repr(self.config)], sort_keys=True).encode()
        ).hexdigest()
        self.epoch = 0
        self.figures: list[dict[str, Any]] = []
        self._build(model.state_dict(), model.state_dict())

    # ---- phases ------------------------------------------------------------------------------------------

    def _size(self, epoch: int) -> ImageSize:
        if epoch < self.recipe.start_epochs:
            return ImageSize(self.recipe.start_size, self.recipe.start_size)
        return self.config.image_size

    def _build(self, weights: dict[str, Tensor], averaged: dict[str, Tensor]) -> None:
        """The model, its average, the optimizer and the loss for the size of the epoch at hand."""
        size = self._size(self.epoch)
        torch.manual_seed(self.recipe.seed)
        config = replace(self.config, image_size=size)
        self.model = XFormer(config)
        self.model.load_state_dict(resample_context(weights, size))
        self.rounding = FakeQuant(self.model) if self.recipe.qat else None
        self.averaged = copy.deepcopy(self.model).eval()  # rounds alike
        self.averaged.load_state_dict(resample_context(averaged, size))
        self.model.to(self.device).train()
        self.averaged.to(self.device)
        losses: dict[str, Callable[[], nn.Module]] = {
            "classify": lambda: ClassificationLoss(self.recipe.label_smoothing),
            "detect": lambda: DetectionLoss(config),
            "segment": SegmentationLoss,
        }
        self.loss = losses[config.task]()
        decayed = [p for p in self.model.parameters() if p.dim() >= 2]
        free = [p for p in self.model.parameters() if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": self.recipe.weight_decay}, {"params": free, "weight_decay": 0.0}],
            lr=self.recipe.learning_rate,
            fused=True,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe.precision == "fp16")
        self.phase_start = self.epoch

    # ---- running -----------------------------------------------------------------------------------------

    def run(
        self, on_step: Callable[[StepReport], None] | None = None, on_epoch: Callable[[EpochReport], None] | None = None
    ) -> list[dict[str, Any]]:
        """Train to the end; returns the figures of every epoch.

        Raises:
            TrainingError: the loss is not finite; the output holds the last good epoch.
            OutputError: the output can't be written.
        """
        while self.epoch < self.recipe.epochs:
            if self._size(self.epoch) != self.model.config.image_size:
                self._build(self.model.state_dict(), self.averaged.state_dict())
            if self.rounding is not None and not self.rounding.ranges():
                self._calibrate(self.rounding)
            loss = self._epoch(on_step or (lambda report: None))
            if not all(bool(values.isfinite().all()) for values in self.averaged.state_dict().values()):
                raise self._diverged("weights are not finite at the end of", "")
            metrics = self._validate() if self.rank == 0 else {}
            report = EpochReport(self.epoch, loss, metrics, str(self.model.config.image_size))
            self.figures.append({"loss": loss, "image_size": report.image_size, **report.metrics})
            self.epoch += 1
            if self.rank == 0:
                self._save()
            if self.processes > 1:
                dist.barrier()
            if on_epoch is not None:
                on_epoch(report)
        if self.rank == 0:
            state_path(self.output).unlink(missing_ok=True)
        return self.figures

    def _calibrate(self, rounding: FakeQuant) -> None:
        """Find the ranges that int8 covers, on some training pictures; from then on the model rounds."""
        config = self.model.config
        rule = TASKS[config.task].resize_rule
        model = copy.deepcopy(self.averaged).cpu()
        with TorchRunner(model) as runner, rounding.counting():
            pictures = Subset(self.data, CALIBRATION_PICTURES)  # from all of the data: a folder's come class by class
            for index in range(len(pictures)):
                picture = Image.fromarray(pictures[index].image)
                runner.run(preprocess(picture, config.image_size, rule)[0])
        rounding.set_ranges("percentile")
        rounding.round_only(rounding.layers)

    def _epoch(self, on_step: Callable[[StepReport], None]) -> float:
        recipe, total = self.recipe, 0.0
        torch.manual_seed(int(np.random.SeedSequence((recipe.seed, self.epoch)).generate_state(1)[0]))  # dropout
        for step, batch in enumerate(self._batches()):
            number = self.epoch * self.steps + step
            rate = recipe.rate_at(number, recipe.epochs * self.steps)
            since = (self.epoch - self.phase_start) * self.steps + step
            if self.phase_start:  # a fresh optimizer: a short warm-up of its own
                rate *= min(1.0, (since + 1) / 50)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._step(batch, np.random.default_rng((recipe.seed, self.epoch, step, 1)))
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss} in", f", step {step + 1}")
            self._average(number)
            total += loss
            on_step(StepReport(self.epoch, step, self.steps, loss, rate))
        return total / self.steps

    def _diverged(self, what: str, where: str) -> TrainingError:
        kept = f"{self.output} holds epoch {self.epoch}" if self.epoch else "no epoch was finished"
        return TrainingError(
            f"{what} epoch {self.epoch + 1}{where}; {kept}. Try a lower --learning-rate, or --precision fp32"
        )

    def _batches(self) -> Iterator[dict[str, Any]]:
        order = np.random.default_rng((self.recipe.seed, self.epoch)).permutation(len(self.data))
        order = order[: self.steps * self.batch_size]
        config = self.model.config
        loader = DataLoader(
            _Batches(self.data.at_epoch(self.epoch), config, self.recipe.augmentation, self.recipe.seed, self.epoch),
            batch_size=self.batch_size // self.processes,
            sampler=order[self.rank :: self.processes].tolist(),
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_quiet_worker,
        )
        with _signals_held():
            return iter(loader)

    def _step(self, batch: dict[str, Any], rng: np.random.Generator) -> float:
        """Forward, backward, update; returns the loss. The weights are left alone where it is not finite."""
        images = normalize(batch["image"]).to(self.device, non_blocking=True)
        images, targets = self._targets(images, batch, rng)
        dtype = DTYPES.get(self.recipe.precision)
        with torch.autocast(self.device.type, dtype) if dtype else nullcontext():
            outputs = self.model(images)
        loss = self.loss(outputs, targets)
        value = float(self._mean(loss.detach().clone()))
        if not math.isfinite(value):
            return value
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self._share_gradients()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value

    def _mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.processes > 1:
            dist.all_reduce(values)
            values /= self.processes
        return values

    def _share_gradients(self) -> None:
        if self.processes == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        together = self._mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(together, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, parts, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _targets(self, images: Tensor, batch: dict[str, Any], rng: np.random.Generator) -> tuple[Tensor, Any]:
        if self.config.task == "segment":
            return images, batch["mask"].to(self.device, non_blocking=True)
        if self.config.task == "detect":
            return images, [tuple(part.to(self.device) for part in item) for item in batch["boxes"]]
        wanted = nn.functional.one_hot(batch["kind"], self.config.num_classes).float().to(self.device)
        return _mix(images, wanted, self.recipe, rng)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Exponential moving average of weights and BatchNorm statistics, quicker in the first steps."""
        decay = min(self.recipe.ema_decay, (1 + step) / (10 + step))
        pairs = list(zip(self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True))
        mine, theirs = zip(*(pair for pair in pairs if pair[0].dtype.is_floating_point), strict=True)
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for count, current in (pair for pair in pairs if not pair[0].dtype.is_floating_point):
            count.copy_(current)

    def _validate(self) -> dict[str, float]:
        if len(self.validation) == 0:
            return {}
        model = copy.deepcopy(self.averaged).cpu()
        evaluator = evaluator_for(self.config.task, self.config.labels)
        with TorchRunner(model) as runner:
            for _ in evaluate(
                runner.run, Postprocess.of(model.config), self.validation, model.config.image_size, evaluator
            ):
                pass
        with suppress(DataError):  # pictures with nothing on them to judge: no figures, and no reason to stop
            return evaluator.metrics()
        return {}

    # ---- keeping -----------------------------------------------------------------------------------------

    def _save(self) -> None:
        """The state, then the checkpoint: a kill between the two leaves a state that goes on."""
        if self.epoch < self.recipe.epochs:
            self._save_state()
        model = copy.deepcopy(self.averaged).cpu()
        if model.config.image_size != self.config.image_size:
            full = XFormer(self.config)
            full.load_state_dict(resample_context(model.state_dict(), self.config.image_size))
            model = full
        if self.half:
            model = model.half()
        description = {
            "recipe": json.loads(self.recipe.as_json()),
            "pictures": len(self.data),
            "epochs_done": self.epoch,
            "last": self.figures[-1],
            **self.origin,
        }
        write_file(
            self.output, checkpoint_bytes(model, metadata={METADATA_KEY: json.dumps(description, sort_keys=True)})
        )

    def _save_state(self) -> None:
        content = io.BytesIO()
        torch.save(
            {
                "identity": self.identity,
                "epoch": self.epoch,
                "phase_start": self.phase_start,
                "figures": self.figures,
                "model": self.model.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "ranges": {} if self.rounding is None else self.rounding.ranges(),
            },
            content,
        )
        write_file(state_path(self.output), content.getvalue())

    def resume(self) -> None:
        """Go on from ``OUTPUT.state``.

        Raises:
            TrainingError: it belongs to another run.
            CheckpointError: it can't be read.
        """
        path = state_path(self.output)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["identity"] != self.identity:
                raise TrainingError(
                    f"{path} belongs to a run with other options or other data; "
                    "give the same, or --restart to begin anew"
                )
            # The size of the epoch that ended; the next one may begin a phase.
            self.epoch = state["epoch"] - 1
            self._build(state["model"], state["averaged"])
            self.epoch, self.phase_start, self.figures = state["epoch"], state["phase_start"], state["figures"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.rounding is not None and state["ranges"]:
                self.rounding.load_ranges(state["ranges"])
        except XFormerError:
            raise
        except pickle.UnpicklingError as error:
            raise CheckpointError(f"can't resume from {path}: it is not a whole file of a run's state") from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise CheckpointError(f"can't resume from {path}: {reason}") from error


STOPS = (signal.SIGINT, signal.SIGTERM)


def _quiet_worker(number: int) -> None:
    """What stops the run is sent to the workers too, by a terminal. The run ends them, and says so; they are silent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))


@contextmanager
def _signals_held() -> Iterator[None]:
    """A stop waits for the end of the block: workers that are started by halves complain, and inherit the handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for late in received:
            signal.raise_signal(late)


def _mix(images: Tensor, wanted: Tensor, recipe: Recipe, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix of a batch (B, 3, H, W) with itself in another order; where both are on, either by chance."""
    kinds = [name for name in ("mixup", "cutmix") if getattr(recipe, name) > 0]
    if not kinds:
        return images, wanted
    kind = kinds[int(rng.integers(len(kinds)))]
    share = float(rng.beta(getattr(recipe, kind), getattr(recipe, kind)))
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    if kind == "mixup":
        images = images.lerp(images[order], 1 - share)
    else:
        height, width = images.shape[2:]
        tall, wide = (int(side * math.sqrt(1 - share)) for side in (height, width))
        top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        images = images.clone()
        images[:, :, top : top + tall, left : left + wide] = images[order, :, top : top + tall, left : left + wide]
        share = 1 - tall * wide / (height * width)
    return images, wanted.lerp(wanted[order], 1 - share)
