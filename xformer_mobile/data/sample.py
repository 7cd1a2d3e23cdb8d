"""One picture with what is known about it, and what a collection of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["IGNORED", "Dataset", "Sample", "Subset"]

IGNORED = 255
"""A mask's value where neither training nor evaluation looks."""


@dataclass(frozen=True)
class Sample:
    """A picture and what is on it; what a data set does not know is empty.

    ``image`` is uint8 (H, W, 3), RGB; ``kind`` the class index of the picture (-1: not known); ``boxes``
    float32 (n, 4) as x1, y1, x2, y2 in pixels; ``kinds`` int64 (n) their class indices; ``crowd`` bool (n),
    true for a box that is neither right nor wrong to find; ``mask`` uint8 (H, W) of class indices and
    :data:`IGNORED`, or ``None``.
    """

    image: npt.NDArray[np.uint8]
    kind: int
    boxes: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    mask: npt.NDArray[np.uint8] | None


class Dataset(Protocol):
    """Numbered samples of a task, and the labels of its classes."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def at_epoch(self, epoch: int) -> Dataset:
        """The samples of that epoch (from 0): the same ones, or for drawn data as many others."""


@dataclass(frozen=True)
class Subset:
    """At most ``most`` samples of a data set, evenly spread."""

    data: Dataset
    most: int

    @property
    def labels(self) -> tuple[str, ...]:
        return self.data.labels

    def __len__(self) -> int:
        return min(self.most, len(self.data))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.data[index * len(self.data) // len(self)]

    def at_epoch(self, epoch: int) -> Dataset:
        return Subset(self.data.at_epoch(epoch), self.most)
