"""Data sets for training and evaluation: procedural scenes, and a user's own pictures. numpy and Pillow only."""

from xformer_mobile.data.folders import FolderData, open_folder
from xformer_mobile.data.kinds import KINDS, LABELS
from xformer_mobile.data.sample import IGNORED, Dataset, Sample, Subset
from xformer_mobile.data.scenes import SPLITS, Split, draw_scene
from xformer_mobile.data.synthetic import SYNTHETIC, Synthetic, synthetic_labels

__all__ = [
    "IGNORED",
    "KINDS",
    "LABELS",
    "SPLITS",
    "SYNTHETIC",
    "Dataset",
    "FolderData",
    "Sample",
    "Split",
    "Subset",
    "Synthetic",
    "draw_scene",
    "open_folder",
    "synthetic_labels",
]
