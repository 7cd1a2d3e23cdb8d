"""``--quantize auto``: the first of the recipes whose measured metric falls by no more than is allowed.

The parts of the model that int8 hurts most for what they cost stay float, as few as will do: found once, on the torch
form rounded as int8 rounds, for all formats. Then every written artifact is measured; where one falls too far, more
stays float. Where even that is not enough, int8 weights, half precision and float32 follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from xformer_export.calibration import Calibration
from xformer_export.prepare import Prepared
from xformer_export.recipes import RECIPES, Promise, Recipe
from xformer_export.sensitivity import RoundedModel, Sensitivity, measure_sensitivity
from xformer_mobile.data import Dataset
from xformer_mobile.errors import XFormerError
from xformer_mobile.evaluation import METRICS, evaluate, evaluator_for
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.runners.base import Outputs
from xformer_mobile.runners.pytorch import TorchRunner
from xformer_mobile.spec import ImageSize

__all__ = ["DEFAULT_DROP", "Judge", "Plan", "Search"]

DEFAULT_DROP = 1.0
"""Points of the metric that may be lost, unless told."""

STEPS = (0, 1, 2, 4, 8, 16, 32)
"""How many parts stay float, tried in this order."""

FALLBACKS = ("int8-weights", "fp16", "none")


@dataclass(frozen=True)
class Judge:
    """The task's first metric, in points (0..100), on labelled pictures."""

    rule: Postprocess
    data: Dataset
    size: ImageSize

    @property
    def metric(self) -> str:
        return METRICS[self.rule.task][0]

    def __call__(self, run: Callable[[ByteImage], Outputs]) -> float:
        """The metric of what ``run`` returns for byte images."""
        evaluator = evaluator_for(self.rule.task, self.rule.labels)
        for _ in evaluate(run, self.rule, self.data, self.size, evaluator):
            pass
        return 100 * evaluator.metrics()[self.metric]


@dataclass(frozen=True)
class Plan:
    """A recipe to try, with the parts that stay float; ``expected`` is the simulated drop in points."""

    recipe: Recipe
    keep_float: tuple[str, ...] = ()
    expected: float | None = None


@dataclass
class Search:
    """Tries plans in their order and keeps what became of each."""

    prepared: Prepared
    calibration: Calibration
    judge: Judge
    max_drop: float
    report: Callable[[str], None] = lambda name: None
    reference: float = field(init=False, default=0.0)
    sensitivity: Sensitivity = field(init=False, default_factory=lambda: Sensitivity(()))
    tried: list[dict[str, Any]] = field(init=False, default_factory=list)

    def plans(self) -> Iterator[Plan]:
        """What to try; the last one is the model as trained."""
        self.report("measure the reference model")
        with TorchRunner(self.prepared.reference) as runner:
            self.reference = self.judge(runner.run)
        self.report("count activations for the simulation")
        rounded = RoundedModel(self.prepared.mobile, self.calibration)
        self.sensitivity = measure_sensitivity(
            rounded, self.calibration, lambda path: self.report(f"round {path} by itself")
        )
        for count in (step for step in STEPS if step < len(self.sensitivity.parts)):
            kept = self.sensitivity.kept(count)
            self.report(f"simulate int8 with {count} parts in float")
            rounded.keep_float(kept)
            drop = self.reference - self.judge(rounded.run)
            if drop <= self.max_drop:
                yield Plan(_relaxed(RECIPES["int8"], count), kept, drop)
            else:
                self.tried.append({"recipe": "int8", "parts_in_float": count, "simulated_drop": round(drop, 3)})
        for name in FALLBACKS:
            yield Plan(RECIPES[name])

    def accepts(self, plan: Plan, metrics: dict[str, float]) -> bool:
        """Whether a plan's artifacts, with their metrics by format, lose no more than is allowed; noted either way."""
        drops = {format: round(self.reference - value, 3) for format, value in metrics.items()}
        self._note(plan, {"drop": drops})
        return all(drop <= self.max_drop for drop in drops.values())

    def rejects(self, plan: Plan, error: XFormerError) -> None:
        """Note that a plan's artifacts could not be made, or are not what its recipe promises."""
        self._note(plan, {"failed": str(error)})

    def last(self) -> str:
        """What became of the last plan, in words."""
        found = self.tried[-1]
        lost = ", ".join(f"{format} loses {drop:.2f}" for format, drop in found.get("drop", {}).items())
        return lost or str(found["failed"])

    def _note(self, plan: Plan, found: dict[str, Any]) -> None:
        simulated = {} if plan.expected is None else {"simulated_drop": round(plan.expected, 3)}
        noted = {"recipe": plan.recipe.name, "parts_in_float": len(plan.keep_float)}
        self.tried.append({**noted, **simulated, **found})

    def as_json(self, plan: Plan) -> dict[str, Any]:
        """What a manifest says of the search that ended with ``plan``."""
        kept = {part.path: part for part in self.sensitivity.parts if part.path in plan.keep_float}
        return {
            "max_drop": self.max_drop,
            "metric": self.judge.metric,
            "pictures": len(self.judge.data),
            "reference": round(self.reference, 3),
            "recipe": plan.recipe.name,
            "float_parts": [kept[path].as_json() for path in plan.keep_float],
            "tried": self.tried,
        }


def _relaxed(recipe: Recipe, count: int) -> Recipe:
    """The recipe with the promise that it can keep where parts stay float."""
    return replace(recipe, promise=Promise()) if count else recipe
