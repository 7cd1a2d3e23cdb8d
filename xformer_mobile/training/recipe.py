"""Recipes: everything that decides what a training run does, as data. A recipe travels in the checkpoint."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from xformer_mobile.errors import UsageError
from xformer_mobile.spec import Task
from xformer_mobile.training.augment import Augmentation

__all__ = ["PRECISIONS", "RECIPES", "Recipe"]

PRECISIONS = ("fp32", "bf16", "fp16")
"""The arithmetic of the forward and backward pass; weights, optimizer and losses stay in fp32."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    AdamW (arXiv 1711.05101) with ``learning_rate`` after ``warmup_steps`` of linear warm-up, then a cosine
    down to ``final_rate`` of it (arXiv 1608.03983). ``weight_decay`` on the kernels of convolutions and linear
    layers only. ``ema_decay`` of the averaged weights, which are the result. The gradient's norm is clipped to
    ``clip_norm``. ``mixup`` and ``cutmix`` are the alphas of their beta distributions, 0 is off; classification
    only. The first ``start_epochs`` epochs run at ``start_size`` pixels a side, where that is not 0. With ``qat`` the
    model rounds as int8 does (:class:`~xformer_mobile.fake_quant.FakeQuant`), in training and when it is judged.
    """

    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 1e-3
    final_rate: float = 0.01
    warmup_steps: int = 200
    weight_decay: float = 0.05
    ema_decay: float = 0.999
    clip_norm: float = 5.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    start_size: int = 0
    start_epochs: int = 0
    precision: str = "fp32"
    qat: bool = False
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "learning_rate", "clip_norm")
        for name in positive:
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be above 0, and finite")
        for name, most in (
            ("ema_decay", 1.0),
            ("label_smoothing", 1.0),
            ("final_rate", 1.0),
            ("weight_decay", math.inf),
            ("mixup", math.inf),
            ("cutmix", math.inf),
            ("warmup_steps", math.inf),
        ):
            if not 0 <= getattr(self, name) <= most or getattr(self, name) == math.inf:
                valid = f"0 to {most}" if most < math.inf else "0 or more, and finite"
                raise UsageError(f"{name} is {getattr(self, name)}; valid: {valid}")
        if self.precision not in PRECISIONS:
            raise UsageError(f"unknown precision {self.precision!r}; valid: {', '.join(PRECISIONS)}")
        if bool(self.start_epochs) != bool(self.start_size):
            raise UsageError("start_epochs and start_size are used together; give both or neither")
        if not 0 <= self.start_epochs <= self.epochs:
            raise UsageError(f"{self.start_epochs} start epochs of {self.epochs} epochs; valid: 0 to {self.epochs}")

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of step ``step`` (from 0) of ``steps``."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        share = (step - self.warmup_steps) / max(steps - self.warmup_steps, 1)
        return self.learning_rate * (
            self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
        )

    def as_json(self) -> str:
        """The recipe as a JSON object, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    def for_drawn_scenes(self) -> Recipe:
        """The same for scenes that are new in every epoch: little augmentation, no mixup or CutMix."""
        return replace(self, mixup=0.0, cutmix=0.0, augmentation=Augmentation((0.8, 1.1), 1.1, 0.5, 0.1))

    def for_int8(self) -> Recipe:
        """The same for a trained model that learns to be rounded: few epochs, small steps, no mixup or CutMix.

        A tenth of the epochs and a fiftieth of the learning rate are the usual orders (arXiv 2004.09602, section 5).
        """
        return replace(
            self, epochs=6, learning_rate=self.learning_rate / 50, warmup_steps=50, qat=True, mixup=0, cutmix=0
        )

    def with_zoom(self, zoom: tuple[float, float]) -> Recipe:
        """The same with another range of windows."""
        if not 0.05 <= zoom[0] <= zoom[1] <= 10:
            raise UsageError(f"zoom {zoom[0]:g} to {zoom[1]:g} is not valid; valid: 0.05 to 10, the lower first")
        return replace(self, augmentation=replace(self.augmentation, zoom=zoom))

    def with_options(self, **options: Any) -> Recipe:
        """A copy with every option that is not ``None`` in place."""
        return replace(self, **{name: value for name, value in options.items() if value is not None})


RECIPES: dict[Task, Recipe] = {
    "classify": Recipe(
        label_smoothing=0.1, mixup=0.2, cutmix=1.0, augmentation=Augmentation(zoom=(0.5, 1.0), aspect=1.5, color=0.3)
    ),
    "detect": Recipe(augmentation=Augmentation(zoom=(0.6, 1.4), aspect=1.3, color=0.3)),
    "segment": Recipe(augmentation=Augmentation(zoom=(0.5, 1.2), aspect=1.3, color=0.3)),
}
"""The defaults of each task for a user's own pictures. Drawn scenes vary enough without mixup and CutMix."""
