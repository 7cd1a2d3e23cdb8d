"""The outputs of an engine against the reference model's: a comparison is true or false, and carries its numbers.

The tolerance belongs to the precision (:data:`TOLERANCES`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xformer_mobile.errors import UsageError
from xformer_mobile.postprocess import Detection, DetectionRule, Postprocess, detect
from xformer_mobile.preprocess import ByteImage, Fit
from xformer_mobile.runners.base import Outputs, Runner
from xformer_mobile.spec import lookup

__all__ = [
    "TOLERANCES",
    "Agreement",
    "Comparison",
    "OutputComparison",
    "Tolerance",
    "compare",
    "compare_outputs",
    "finite",
    "run_all",
    "tolerance_of",
]


@dataclass(frozen=True)
class Tolerance:
    """What an artifact of one precision must keep.

    ``relative_max``: largest difference as a share of the reference output's range, on the worst picture.
    ``snr_db``: smallest signal-to-noise ratio, over all pictures together.
    ``agreement``: share of the task's own results that must agree.
    """

    relative_max: float = math.inf
    snr_db: float = -math.inf
    agreement: float = 0.0

    def as_json(self) -> dict[str, float]:
        """What is bounded, by name."""
        return {name: value for name, value in asdict(self).items() if math.isfinite(value)}

    def tightened(
        self,
        *,
        max_difference: float | None = None,
        min_snr_db: float | None = None,
        min_agreement: float | None = None,
    ) -> Tolerance:
        """This tolerance with some bounds closer: those of its fields, in their order and units.

        Raises:
            UsageError: a bound that is not a number or looser than it is here.
        """
        given = {"relative_max": max_difference, "snr_db": min_snr_db, "agreement": min_agreement}
        closer = {name: value for name, value in given.items() if value is not None}
        for name, value in closer.items():
            bound = getattr(self, name)
            if not (value <= bound if name == "relative_max" else value >= bound):  # NaN too
                what = {"relative_max": "largest difference", "snr_db": "signal-to-noise ratio in dB"}.get(name, name)
                raise UsageError(f"the {what} is bounded by {bound:g} here; {value:g} would loosen it")
        return replace(self, **closer)

    @property
    def text(self) -> str:
        """The bounds in words: "difference <= 1e-04, agreement >= 100 %"."""
        parts = {
            "relative_max": f"difference <= {self.relative_max:.0e}",
            "snr_db": f"SNR >= {self.snr_db:g} dB",
            "agreement": f"agreement >= {100 * self.agreement:g} %",
        }
        bounded = self.as_json()
        if not self.agreement:
            bounded.pop("agreement")
        return ", ".join(parts[name] for name in bounded)

    def misses(self, output: OutputComparison) -> list[str]:
        """One sentence for each bound that an output does not keep; NaN keeps none."""
        found = []
        if not output.relative_max <= self.relative_max:
            allowed = f"{self.relative_max:.0e} is allowed"
            found.append(f"{output.name} differs by {output.relative_max:.2e} of its range, {allowed}")
        if not output.snr_db >= self.snr_db:
            needed = f"{self.snr_db:.0f} dB needed"
            found.append(f"{output.name} has a signal-to-noise ratio of {output.snr_db:.1f} dB; {needed}")
        return found


TOLERANCES = {
    "fp32": Tolerance(relative_max=1e-4, agreement=1.0),
    "fp16": Tolerance(snr_db=40.0, agreement=0.995),
    "int8-weights": Tolerance(snr_db=12.0),
    "int8": Tolerance(snr_db=3.0),
}
"""By precision. In int8 the signal-to-noise ratio only shows that nothing is broken: what has nothing to do with the
reference is at 0 dB or below, weights drawn at random, which nothing has made robust, at 5 and more, trained ones at 20
to 35. How much of the task's metric is lost, a few golden pictures can't tell, and ``xformer-eval`` does."""

BOX_AGREEMENT = {"fp32": 1.0, "fp16": 0.99}
"""What the detector needs instead of ``agreement``: its boxes come and go at the score threshold, on both sides."""


@dataclass(frozen=True)
class OutputComparison:
    """One output over all pictures.

    ``max_abs`` and ``mean_abs`` in the output's own unit, ``relative_max`` as a share of the reference's range over
    all pictures (of its largest magnitude, where all its values are the same): the worst picture's.
    ``snr_db`` is 10 log10 of the reference's power over the difference's, both over all pictures (infinite where they
    are equal); ``worst_snr_db`` that of the worst picture. ``cosine`` is that of the angle between the two, each taken
    as one vector over all pictures: it does not see a factor that the others see.
    """

    name: str
    max_abs: float
    mean_abs: float
    relative_max: float
    snr_db: float
    worst_snr_db: float
    cosine: float

    def as_json(self) -> dict[str, float | None]:
        """The figures by name."""
        return {name: finite(value) for name, value in asdict(self).items() if name != "name"}


def finite(value: float) -> float | None:
    """The value, or None where it is not finite: JSON has no such numbers."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Agreement:
    """The share, 0..1, of a task's results that are the same; ``name`` says which results.

    ``figures`` are what else a user would notice, by name: the share of the five most probable classes that both have;
    of the boxes that both have, the mean and the least intersection over union and the largest difference of scores;
    of class maps, the mean intersection over union of the classes that occur.
    """

    name: str
    share: float
    figures: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "share": self.share, "figures": dict(self.figures)}


@dataclass(frozen=True)
class Comparison:
    """An engine against the reference. Truthy where every tolerance is kept."""

    engine: str
    images: int
    tolerance: Tolerance
    outputs: tuple[OutputComparison, ...]
    agreement: Agreement

    @property
    def relative_max(self) -> float:
        """The largest difference over all outputs, as a share of the reference's range."""
        return max(output.relative_max for output in self.outputs)

    def __bool__(self) -> bool:
        return not self.misses()

    def keeps(self, output: OutputComparison) -> bool:
        """Whether an output is within the tolerance; NaN is not."""
        return not self.tolerance.misses(output)

    def misses(self) -> list[str]:
        """One sentence for each tolerance that is not kept."""
        found = [miss for output in self.outputs for miss in self.tolerance.misses(output)]
        if not self.agreement.share >= self.tolerance.agreement:  # so that NaN is a miss
            found.append(f"{self.agreement.name} is {self.agreement.share:.2%}; {self.tolerance.agreement:.2%} needed")
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "images": self.images,
            "passed": bool(self),
            "tolerance": self.tolerance.as_json(),
            "outputs": {output.name: output.as_json() for output in self.outputs},
            "agreement": self.agreement.as_json(),
        }


def run_all(runner: Runner, images: Iterable[ByteImage]) -> list[Outputs]:
    """Run an opened runner over byte images."""
    return [runner.run(image) for image in images]


def tolerance_of(task: str, precision: str) -> Tolerance:
    """What an artifact of that precision must keep in that task.

    Raises:
        UsageError: an unknown precision.
    """
    tolerance = lookup("precision", precision, TOLERANCES)
    if task == "detect":
        tolerance = replace(tolerance, agreement=BOX_AGREEMENT.get(precision, 0.0))
    return tolerance


def compare(
    reference: Sequence[Mapping[str, npt.NDArray[np.float32]]],
    found: Sequence[Mapping[str, npt.NDArray[np.float32]]],
    postprocess: Postprocess,
    *,
    engine: str,
    tolerance: Tolerance,
) -> Comparison:
    """Compare an engine's outputs with the reference's, picture by picture.

    Both are sequences over the same pictures; names and shapes are those that runners have checked.
    """
    outputs = compare_outputs(reference, found)
    agreement = AGREEMENTS[postprocess.task](reference, found, postprocess)
    return Comparison(engine, len(reference), tolerance, outputs, agreement)


def compare_outputs(
    reference: Sequence[Mapping[str, npt.NDArray[np.float32]]],
    found: Sequence[Mapping[str, npt.NDArray[np.float32]]],
) -> tuple[OutputComparison, ...]:
    """The figures of each output over all pictures.

    Raises:
        ValueError: there are no pictures, or not as many on both sides.
    """
    if not reference or len(reference) != len(found):
        raise ValueError(f"{len(found)} pictures to compare with {len(reference)}; both must be the same, and some")
    outputs = []
    for name in reference[0]:
        span = _range([a[name] for a in reference])
        pairs = [
            (a[name].astype(np.float64), b[name].astype(np.float64)) for a, b in zip(reference, found, strict=True)
        ]
        outputs.append(
            OutputComparison(
                name,
                max_abs=_worst(np.abs(a - b).max() for a, b in pairs),
                mean_abs=_worst(np.abs(a - b).mean() for a, b in pairs),
                relative_max=_worst(_ratio(np.abs(a - b).max(), span) for a, b in pairs),
                snr_db=_snr_db(pairs),
                worst_snr_db=-_worst(-_snr_db([pair]) for pair in pairs),
                cosine=_cosine(pairs),
            )
        )
    return tuple(outputs)


def _worst(values: Iterable[float]) -> float:
    """The largest value; NaN where one is NaN."""
    return float(np.max(list(values)))


def _range(values: Sequence[npt.NDArray[np.float32]]) -> float:
    """Largest minus smallest value; the largest magnitude where they are the same."""
    low, high = float(min(v.min() for v in values)), float(max(v.max() for v in values))
    return high - low or abs(high)


def _ratio(difference: float, span: float) -> float:
    if difference == 0:
        return 0.0
    return float(difference / span) if span else math.inf


def _snr_db(pairs: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> float:
    noise = float(sum(np.square(reference - found).sum() for reference, found in pairs))
    signal = float(sum(np.square(reference).sum() for reference, _ in pairs))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal and math.isfinite(noise) else -math.inf


def _cosine(pairs: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> float:
    """1 where the two are the same, also where both are zero; NaN where only one is."""
    product = float(sum((reference * found).sum() for reference, found in pairs))
    powers = [float(sum(np.square(pair[side]).sum() for pair in pairs)) for side in (0, 1)]
    if not any(powers):
        return 1.0
    return product / math.sqrt(powers[0] * powers[1]) if all(powers) else math.nan


# ---- each task's own agreement ----------------------------------------------------------------------------

OutputsSequence = Sequence[Mapping[str, npt.NDArray[np.float32]]]

TIE = 1e-5
"""Classes whose reference logits are nearer than this share of the range are a tie: either is right."""

BOX_SCORE_SLACK = 1e-3
"""A box of one side may be this far below the score threshold on the other."""

BOX_CORNER_SLACK = 0.01
"""Corners of the same box may differ by this share of the input's longer side."""


def _same_class(reference: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where (along axis 1) the largest logit of ``found`` is also the largest of ``reference``, or ties with it."""
    chosen = np.take_along_axis(reference, found.argmax(1, keepdims=True), axis=1)
    same: npt.NDArray[np.bool_] = chosen >= reference.max(1, keepdims=True) - TIE * np.ptp(reference)
    return same


def _top1(reference: OutputsSequence, found: OutputsSequence, postprocess: Postprocess) -> Agreement:
    """The share of pictures whose class is the same."""
    pairs = [(a["logits"], b["logits"]) for a, b in zip(reference, found, strict=True)]
    same = float(np.mean([_same_class(a, b) for a, b in pairs]))
    count = min(5, pairs[0][0].shape[1])
    common = [len(set(_best(a, count)) & set(_best(b, count))) / count for a, b in pairs]
    return Agreement("top-1 agreement", same, {f"top-{count} in common": float(np.mean(common))})


def _best(logits: npt.NDArray[np.float32], count: int) -> list[int]:
    """The ``count`` most probable classes of (1, classes)."""
    best: list[int] = np.argsort(-logits[0], kind="stable")[:count].tolist()
    return best


def _pixels(reference: OutputsSequence, found: OutputsSequence, postprocess: Postprocess) -> Agreement:
    """The share of pixels whose class is the same."""
    pairs = [(a["logits"], b["logits"]) for a, b in zip(reference, found, strict=True)]
    same = [_same_class(a, b) for a, b in pairs]
    overlap = _mean_iou([(a.argmax(1), b.argmax(1)) for a, b in pairs], len(postprocess.labels))
    return Agreement("pixel agreement", float(np.mean(same)), {"mean IoU of the class maps": overlap})


def _mean_iou(pairs: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]], classes: int) -> float:
    """The mean intersection over union of the classes that either side has."""
    both = [a[a == b] for a, b in pairs]
    shared, first, second = (
        sum((np.bincount(values.ravel(), minlength=classes) for values in side), np.zeros(classes))
        for side in (both, [a for a, _ in pairs], [b for _, b in pairs])
    )
    union = first + second - shared
    return float((shared[union > 0] / union[union > 0]).mean())


def _boxes(reference: OutputsSequence, found: OutputsSequence, postprocess: Postprocess) -> Agreement:
    """The share of the boxes of either side that the other side has too."""
    rule = postprocess.detection
    assert rule is not None
    lenient = replace(rule, score_threshold=max(0.0, rule.score_threshold - BOX_SCORE_SLACK))
    _, _, rows, columns = reference[0][f"stride{rule.strides[0]}"].shape
    size = (columns * rule.strides[0], rows * rule.strides[0])
    whole = Fit(size, size, (0, 0), size)

    def boxes(outputs: Mapping[str, npt.NDArray[np.float32]], rule: DetectionRule) -> tuple[Detection, ...]:
        maps = [outputs[f"stride{stride}"] for stride in rule.strides]
        return detect(maps, postprocess.labels, rule, whole)

    matched: list[tuple[Detection, Detection]] = []
    total = 0
    for a, b in zip(reference, found, strict=True):
        for side, other in ((a, b), (b, a)):
            candidates = list(boxes(other, lenient))
            for item in boxes(side, rule):
                total += 1
                twin = next((one for one in candidates if _same_box(item, one, max(size))), None)
                if twin is not None:
                    candidates.remove(twin)
                    matched.append((item, twin))
    overlaps = [_overlap(item, twin) for item, twin in matched]
    figures = {}
    if matched:
        figures["mean IoU of matched boxes"] = float(np.mean(overlaps))
        figures["least IoU of matched boxes"] = min(overlaps)
        figures["largest difference of their scores"] = max(abs(one.score - two.score) for one, two in matched)
    return Agreement("box agreement", len(matched) / total if total else 1.0, figures)


def _same_box(a: Detection, b: Detection, side: int) -> bool:
    corners = zip(astuple(a.box), astuple(b.box), strict=True)
    return a.index == b.index and all(abs(x - y) <= BOX_CORNER_SLACK * side for x, y in corners)


def _overlap(a: Detection, b: Detection) -> float:
    """The intersection over union of two boxes; 1 where both are empty."""
    width = min(a.box.x2, b.box.x2) - max(a.box.x1, b.box.x1)
    height = min(a.box.y2, b.box.y2) - max(a.box.y1, b.box.y1)
    both = max(0.0, width) * max(0.0, height)
    union = sum((item.box.x2 - item.box.x1) * (item.box.y2 - item.box.y1) for item in (a, b)) - both
    return both / union if union > 0 else 1.0


AGREEMENTS: dict[str, Callable[[OutputsSequence, OutputsSequence, Postprocess], Agreement]] = {
    "classify": _top1,
    "detect": _boxes,
    "segment": _pixels,
}
