"""Training of the reference model: recipes, augmentation, losses, the loop."""

from xformer_mobile.training.augment import Augmentation, augment
from xformer_mobile.training.loop import EpochReport, StepReport, Trainer
from xformer_mobile.training.recipe import RECIPES, Recipe
from xformer_mobile.training.start import fit_anchors, fresh_model, transfer

__all__ = [
    "RECIPES",
    "Augmentation",
    "EpochReport",
    "Recipe",
    "StepReport",
    "Trainer",
    "augment",
    "fit_anchors",
    "fresh_model",
    "transfer",
]
