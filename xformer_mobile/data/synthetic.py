"""The procedural scenes as a data set for each of the three tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xformer_mobile.data.kinds import LABELS
from xformer_mobile.data.sample import Sample
from xformer_mobile.data.scenes import SCENE_SIZE, Split, draw_scene
from xformer_mobile.spec import ImageSize, Task

__all__ = ["BACKGROUND", "SYNTHETIC", "Synthetic", "synthetic_labels"]

BACKGROUND = "background"

SYNTHETIC = {"synthetic": "standard", "synthetic-hard": "hard"}
"""What the commands call the drawn scenes, and their difficulty."""


def synthetic_labels(task: Task) -> tuple[str, ...]:
    """The kinds' names; for masks with ``background`` before them."""
    return (BACKGROUND, *LABELS) if task == "segment" else LABELS


@dataclass(frozen=True)
class Synthetic:
    """``length`` scenes of a split from ``start`` on, others in each epoch. Every access draws; nothing is stored."""

    task: Task
    split: Split
    length: int
    seed: int = 0
    size: ImageSize = SCENE_SIZE
    start: int = 0
    difficulty: str = "standard"

    @property
    def labels(self) -> tuple[str, ...]:
        return synthetic_labels(self.task)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return draw_scene(self.seed, self.split, self.start + index, self.size, self.difficulty)

    def at_epoch(self, epoch: int) -> Synthetic:
        return replace(self, start=self.start + epoch * self.length)
