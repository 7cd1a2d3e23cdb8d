"""The outputs of an engine against the reference model's: a comparison is true or false, and carries its numbers.

The tolerance belongs to the precision (:data:`TOLERANCES`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

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
    "run_all",
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
    are equal); ``worst_snr_db`` that of the worst picture.
    """

    name: str
    max_abs: float
    mean_abs: float
    relative_max: float
    snr_db: float
    worst_snr_db: float

    def as_json(self) -> dict[str, float | None]:
        """The figures by name; one that is not finite is None, as JSON has no such numbers."""
        figures = {
            "max_abs": self.max_abs,
            "mean_abs": self.mean_abs,
            "relative_max": self.relative_max,
            "snr_db": self.snr_db,
            "worst_snr_db": self.worst_snr_db,
        }
        return {name: value if math.isfinite(value) else None for name, value in figures.items()}


@dataclass(frozen=True)
class Agreement:
    """The share, 0..1, of a task's results that are the same; ``name`` says which results."""

    name: str
    share: float


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
        return output.relative_max <= self.tolerance.relative_max and output.snr_db >= self.tolerance.snr_db

    def misses(self) -> list[str]:
        """One sentence for each tolerance that is not kept."""
        found = []
        for output in self.outputs:
            if not output.relative_max <= self.tolerance.relative_max:  # so that NaN is a miss
                allowed = f"{self.tolerance.relative_max:.0e} is allowed"
                found.append(f"{output.name} differs by {output.relative_max:.2e} of its range, {allowed}")
            if not output.snr_db >= self.tolerance.snr_db:
                needed = f"{self.tolerance.snr_db:.0f} dB needed"
                found.append(f"{output.name} has a signal-to-noise ratio of {output.snr_db:.1f} dB; {needed}")
        if not self.agreement.share >= self.tolerance.agreement:  # NaN again
            found.append(f"{self.agreement.name} is {self.agreement.share:.2%}; {self.tolerance.agreement:.2%} needed")
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "images": self.images,
            "passed": bool(self),
            "tolerance": self.tolerance.as_json(),
            "outputs": {output.name: output.as_json() for output in self.outputs},
            "agreement": {"name": self.agreement.name, "share": self.agreement.share},
        }


def run_all(runner: Runner, images: Iterable[ByteImage]) -> list[Outputs]:
    """Run an opened runner over byte images."""
    return [runner.run(image) for image in images]


def compare(
    reference: Sequence[Mapping[str, npt.NDArray[np.float32]]],
    found: Sequence[Mapping[str, npt.NDArray[np.float32]]],
    postprocess: Postprocess,
    *,
    engine: str,
    precision: str,
) -> Comparison:
    """Compare an engine's outputs with the reference's, picture by picture.

    Both are sequences over the same pictures; names and shapes are those that runners have checked.
    """
    tolerance = lookup("precision", precision, TOLERANCES)
    if postprocess.task == "detect":
        tolerance = replace(tolerance, agreement=BOX_AGREEMENT.get(precision, 0.0))
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
            )
        )
    agreement = AGREEMENTS[postprocess.task](reference, found, postprocess)
    return Comparison(engine, len(reference), tolerance, tuple(outputs), agreement)


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


def _classes(reference: OutputsSequence, found: OutputsSequence, postprocess: Postprocess) -> Agreement:
    """The share of pictures (classify) or pixels (segment) whose class is the same."""
    same = [_same_class(a["logits"], b["logits"]) for a, b in zip(reference, found, strict=True)]
    name = {"classify": "top-1 agreement", "segment": "pixel agreement"}[postprocess.task]
    return Agreement(name, float(np.mean(same)))


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

    matched = total = 0
    for a, b in zip(reference, found, strict=True):
        for side, other in ((a, b), (b, a)):
            candidates = list(boxes(other, lenient))
            for item in boxes(side, rule):
                total += 1
                twin = next((one for one in candidates if _same_box(item, one, max(size))), None)
                if twin is not None:
                    candidates.remove(twin)
                    matched += 1
    return Agreement("box agreement", matched / total if total else 1.0)


def _same_box(a: Detection, b: Detection, side: int) -> bool:
    corners = zip(astuple(a.box), astuple(b.box), strict=True)
    return a.index == b.index and all(abs(x - y) <= BOX_CORNER_SLACK * side for x, y in corners)


AGREEMENTS: dict[str, Callable[[OutputsSequence, OutputsSequence, Postprocess], Agreement]] = {
    "classify": _classes,
    "detect": _boxes,
    "segment": _classes,
}
