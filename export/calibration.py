"""Calibration: the pictures whose activations decide what int8 covers, and which way of deciding serves a format best.

A format's own float artifact is run on every picture, each tensor that int8 will hold is counted in a histogram, and
the ranges that :data:`~xformer_mobile.ranges.METHODS` find are tried: the artifact that each gives is run on pictures
which were not counted, and the one nearest to the float one is taken.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from xformer_mobile.data import Synthetic
from xformer_mobile.errors import ConversionError, DataError, ImageError
from xformer_mobile.preprocess import SUFFIXES, ByteImage, load_image, preprocess
from xformer_mobile.ranges import METHODS, Histogram, Range, ranges
from xformer_mobile.spec import TASKS, ImageSize, ModelConfig, Task

__all__ = [
    "CALIBRATION_STEPS",
    "FEW_PICTURES",
    "PICTURES",
    "Calibration",
    "Choice",
    "choose_ranges",
    "collect",
    "snr_db",
]

PICTURES = 128
"""How many pictures are used, unless told."""

FEW_PICTURES = 32
"""With fewer of a user's pictures than these, ranges are a guess: a warning."""

HELD_OUT = 24
"""Pictures that are not counted but compared, to choose the method by; a quarter of them all at most."""

FIRST_SHARE = 3
"""On one in so many of those pictures it is seen whether a method is worth the others."""

BEHIND_DB = 3.0
"""It is not, where it is so far behind the best."""

CALIBRATION_STEPS = 1 + len(METHODS)
"""How many steps a format reports: the counting, and each method's trial."""

Outputs = Mapping[str, npt.NDArray[np.float32]]
Run = Callable[[ByteImage], Outputs]

Artifact = TypeVar("Artifact")


@dataclass(frozen=True)
class Calibration:
    """Pictures by number; none is kept here, each is drawn or decoded when it is asked for.

    ``source`` is "synthetic" or the folder's name; ``skipped`` counts the files that were no readable picture.
    """

    task: Task
    size: ImageSize
    count: int
    source: str = "synthetic"
    seed: int = 0
    files: tuple[Path, ...] = field(default=(), repr=False)
    skipped: int = 0

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        folder: Path | None = None,
        count: int = PICTURES,
        seed: int = 0,
        step: Callable[[str], None] = lambda name: None,
    ) -> Calibration:
        """The drawn training scenes, or ``count`` pictures of a user's folder, chosen by the seed.

        Each picture of a folder is decoded and scaled once, so that what can't be is skipped and counted. ``step`` is
        called with the name of each.

        Raises:
            DataError: the folder is missing or holds no readable picture.
        """
        if folder is None:
            return cls(config.task, config.image_size, count, seed=seed)
        if not folder.is_dir():
            raise DataError(f"no calibration pictures at {folder}: no such directory")
        files = sorted(
            file
            for file in folder.rglob("*")
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
        )
        random.Random(seed).shuffle(files)
        found: list[Path] = []
        skipped = 0
        for file in files:
            if len(found) == count:
                break
            step(file.name)
            try:
                preprocess(load_image(file), config.image_size, TASKS[config.task].resize_rule)
                found.append(file)
            except ImageError:
                skipped += 1
        if not found:
            unreadable = f"; {skipped} files could not be read" if skipped else ""
            raise DataError(f"no calibration pictures in {folder}{unreadable}")
        name = folder.resolve().name or "/"
        return cls(config.task, config.image_size, len(found), name, seed, tuple(found), skipped)

    @property
    def held_out(self) -> int:
        """How many of the last pictures only serve to compare."""
        return min(HELD_OUT, self.count // 4)

    def counted(self) -> Iterator[ByteImage]:
        """Byte images, (1, H, W, 3) uint8, whose activations are counted."""
        return self._images(0, self.count - self.held_out)

    def compared(self) -> Iterator[ByteImage]:
        """Byte images that the artifacts are compared on; all of them, where there are too few to part."""
        return self._images(self.count - self.held_out if self.held_out else 0, self.count)

    def _images(self, start: int, stop: int) -> Iterator[ByteImage]:
        rule = TASKS[self.task].resize_rule
        scenes = Synthetic(self.task, "train", self.count, seed=self.seed)
        for index in range(start, stop):
            picture = load_image(self.files[index]) if self.files else Image.fromarray(scenes[index].image)
            yield preprocess(picture, self.size, rule)[0]

    def as_json(self) -> dict[str, object]:
        """What a manifest says of it; nothing of where the pictures were."""
        return {"source": self.source, "pictures": self.count, "seed": self.seed, "skipped": self.skipped}


def collect(
    run: Callable[[ByteImage], Iterable[tuple[str, npt.NDArray[np.float32]]]],
    calibration: Calibration,
    step: Callable[[], None] = lambda: None,
) -> dict[str, Histogram]:
    """Histograms of every tensor that ``run`` names, over the pictures that are counted.

    Raises:
        ConversionError: a tensor has values that are not finite.
    """
    found: dict[str, Histogram] = {}
    for image in calibration.counted():
        for name, values in run(image):
            try:
                found.setdefault(name, Histogram()).add(values)
            except ValueError as error:
                raise ConversionError(f"calibration: the tensor {name} has {error}") from error
        step()
    return found


@dataclass(frozen=True)
class Choice(Generic[Artifact]):
    """The method that was chosen, its artifact, and every method's signal-to-noise ratio in dB on held-out pictures.

    Methods that are far behind have the ratio on the first of the pictures.
    """

    method: str
    artifact: Artifact
    snr_db: dict[str, float]

    def as_json(self) -> dict[str, object]:
        ratios = {name: round(value, 2) if math.isfinite(value) else None for name, value in self.snr_db.items()}
        return {"method": self.method, "snr_db": ratios}


def choose_ranges(
    histograms: Mapping[str, Histogram],
    reference: Run,
    quantize: Callable[[dict[str, Range]], Artifact],
    open_artifact: Callable[[Artifact], Run],
    calibration: Calibration,
    methods: Sequence[str] = tuple(METHODS),
    step: Callable[[str], None] = lambda method: None,
) -> Choice[Artifact]:
    """Try each method's ranges and take those whose artifact is nearest to the float one.

    All methods are tried on the first pictures; the others are for those that are not far behind the best there.

    ``reference`` runs the float artifact; ``quantize`` makes an int8 one, which ``open_artifact`` opens.
    """
    images = list(calibration.compared())  # few: each artifact sees them
    expected = [reference(image) for image in images]
    first = max(1, len(images) // FIRST_SHARE)
    artifacts: dict[str, Artifact] = {}
    runs: dict[str, Run] = {}
    found: dict[str, list[Outputs]] = {}
    tried: dict[str, float] = {}
    for method in methods:
        step(method)
        artifacts[method] = quantize(ranges(histograms, method))
        runs[method] = open_artifact(artifacts[method])
        found[method] = [runs[method](image) for image in images[:first]]
        tried[method] = snr_db(expected[:first], found[method])
    enough = max(map(_or_worst, tried.values())) - BEHIND_DB
    good = [method for method in methods if _or_worst(tried[method]) >= enough]
    for method in good:
        found[method] += [runs[method](image) for image in images[first:]]
        tried[method] = snr_db(expected, found[method])
    best = max(good, key=lambda method: _or_worst(tried[method]))
    return Choice(best, artifacts[best], tried)


def _or_worst(ratio: float) -> float:
    """A ratio that can be compared: NaN is worse than any."""
    return -math.inf if math.isnan(ratio) else ratio


def snr_db(expected: Sequence[Outputs], found: Sequence[Outputs]) -> float:
    """10 log10 of the expected outputs' power over the difference's, the outputs weighted alike; the mean of them."""
    ratios = []
    for name in expected[0]:
        signal = sum(float(np.square(a[name], dtype=np.float64).sum()) for a in expected)
        noise = sum(
            float(np.square(a[name] - b[name], dtype=np.float64).sum()) for a, b in zip(expected, found, strict=True)
        )
        ratios.append(10 * math.log10(signal / noise) if noise and signal else math.inf if signal else -math.inf)
    return sum(ratios) / len(ratios)
