"""A user's own pictures as data sets: a folder a class, COCO's JSON, pictures with masks.

Each layout may have the subsets ``train`` and ``val`` (or ``valid``, ``validation``); without them one picture
in ten, chosen by the name alone, is for validation.

    classify     DIR/[train/]CLASS/*.jpg
    detect       DIR/[train/]*.json with the pictures beside it, in images/, or COCO's own layout:
                 DIR/annotations/instances_train*.json and DIR/train*/
    segment      DIR/[train/]images/*.jpg and masks/*.png of the same names; a pixel's value is its class
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xformer_mobile.data.sample import IGNORED, Sample
from xformer_mobile.errors import DataError, ImageError, UsageError
from xformer_mobile.preprocess import SUFFIXES, load_image
from xformer_mobile.spec import Task, check_labels, default_labels

__all__ = ["LARGEST_SHARE_SKIPPED", "FolderData", "open_folder"]

LARGEST_SHARE_SKIPPED = 0.05
"""More unreadable pictures, or more boxes outside their pictures, than this is an error."""

VALIDATION_SHARE = 10
"""One picture in so many is for validation where the folder does not say."""

SUBSETS = {"train": ("train",), "validation": ("val", "valid", "validation")}

MAX_JSON_BYTES = 2**31
MAX_SIDE = 2**24
"""Up to here single precision knows every pixel."""

Step = Callable[[str], None]


@dataclass(frozen=True)
class Item:
    """A picture's file and what its data set says of it. ``size`` is the (width, height) that its boxes are in."""

    file: Path
    kind: int = -1
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    kinds: tuple[int, ...] = ()
    crowd: tuple[bool, ...] = ()
    mask: Path | None = None
    size: tuple[float, float] | None = None


@dataclass(frozen=True)
class FolderData:
    """Pictures in files; ``skipped`` says in words what was left out."""

    task: Task
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    skipped: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        item = self.items[index]
        image = np.asarray(_load(item))
        mask = None if item.mask is None else _read_mask(item.mask, image.shape[:2], len(self.labels))
        return Sample(
            image,
            item.kind,
            np.array(item.boxes, dtype=np.float32).reshape(-1, 4),
            np.array(item.kinds, dtype=np.int64),
            np.array(item.crowd, dtype=np.bool_),
            mask,
        )

    def at_epoch(self, epoch: int) -> FolderData:
        return self


def open_folder(
    task: Task,
    path: Path,
    subset: str,
    *,
    labels: tuple[str, ...] | None = None,
    check: bool = True,
    step: Step = lambda name: None,
) -> FolderData:
    """The ``train`` or ``validation`` subset of a user's pictures.

    With ``check`` every picture is decoded once: one that can't be read is skipped and counted. ``labels``
    names the classes; without it they come from the folders' names, the JSON, or the masks' values. ``step``
    is called with the name of each picture as it is checked.

    Raises:
        DataError: no pictures, one class only, more than 5 % of the pictures unreadable or of the boxes outside
            their picture, a mask with values that are no class, a broken JSON.
    """
    layouts: dict[Task, Callable[..., tuple[list[Item], tuple[str, ...], list[str]]]] = {
        "classify": _class_folders,
        "detect": _coco,
        "segment": _masks,
    }
    try:
        if not path.exists():
            raise DataError(f"no data at {path}: no such file or directory")
        items, found, notes = layouts[task](path, subset, labels)
    except OSError as error:
        raise DataError(f"can't read {error.filename or path}: {error.strerror or error}") from error
    if not items:
        raise DataError(f"no pictures for {subset} in {path}; {task} expects {LAYOUTS[task]}")
    if check:
        items, unreadable = _readable(items, len(found) if task == "segment" else 0, step)
        if unreadable:
            notes.append(f"{len(unreadable)} of {len(items) + len(unreadable)} pictures skipped: {unreadable[0]}")
            _within(len(unreadable), len(items) + len(unreadable), "pictures can't be used", unreadable[0])
    return FolderData(task, found, tuple(items), tuple(notes))


LAYOUTS: dict[Task, str] = {
    "classify": "a folder of pictures for each class",
    "detect": "a COCO .json with its pictures beside it or in images/",
    "segment": "pictures in images/ and masks of the same names in masks/",
}


def _within(count: int, total: int, what: str, example: str) -> None:
    if count > LARGEST_SHARE_SKIPPED * total:
        raise DataError(f"{count} of {total} {what}, more than {LARGEST_SHARE_SKIPPED:.0%}; the first: {example}")


def _load(item: Item) -> Image.Image:
    """The picture, upright. Boxes that were drawn on it as it is stored are on another one."""
    image = load_image(item.file)
    if item.size is not None and image.size != item.size:
        stated = "x".join(f"{side:g}" for side in item.size)
        raise ImageError(f"picture {item.file} is {image.width}x{image.height} (upright), its boxes are for {stated}")
    return image


def _readable(items: Sequence[Item], classes: int, step: Step) -> tuple[list[Item], list[str]]:
    """Those whose pictures can be decoded, and why not the others. Masks must be right, or it is an error."""

    def problem(item: Item) -> str | None:
        try:
            image = _load(item)
        except ImageError as error:
            return str(error)
        if item.mask is not None:
            _read_mask(item.mask, (image.height, image.width), classes)
        return None

    kept, problems = [], []
    # Decoding silences warnings for a while, which threads do not undo in order.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for item, wrong in zip(items, pool.map(problem, items), strict=True):
            step(item.file.name)
            if wrong is None:
                kept.append(item)
            else:
                problems.append(wrong)
    return kept, problems


def _pictures(path: Path) -> list[Path]:
    files = (file for file in path.rglob("*") if not file.name.startswith("."))  # macOS leaves ._picture.jpg
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES and file.is_file())


def _subset(path: Path, subset: str) -> tuple[Path, bool]:
    """The folder of a subset, and whether the pictures in it still have to be divided."""
    if not path.is_dir():
        raise DataError(f"{path} is not a directory")
    present = {name: path / name for names in SUBSETS.values() for name in names if (path / name).is_dir()}
    for name in SUBSETS[subset]:
        if name in present:
            return present[name], False
    if "train" in present:
        return present["train"], True
    if present:
        raise DataError(f"{path} has {', '.join(present)} and no train")
    return path, True


def _defining(path: Path, root: Path) -> Path:
    """The folder that says which classes there are: ``train``, where there is one."""
    return path / "train" if (path / "train").is_dir() else root


def _names(names: Iterable[str], place: Path) -> tuple[str, ...]:
    try:
        return check_labels(names)
    except UsageError as error:
        raise DataError(f"{place}: {error}") from error


def _divide(items: list[Item], root: Path, subset: str, divided: bool) -> list[Item]:
    """Where a folder has no subsets of its own: the same picture is always in the same one."""
    if not divided:
        return items

    def for_validation(item: Item) -> bool:
        name = item.file.relative_to(root).as_posix() if item.file.is_relative_to(root) else item.file.name
        return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[0] % VALIDATION_SHARE == 0

    return [item for item in items if for_validation(item) == (subset == "validation")]


# ---- classification --------------------------------------------------------------------------------------


def _class_folders(
    path: Path, subset: str, labels: tuple[str, ...] | None
) -> tuple[list[Item], tuple[str, ...], list[str]]:
    root, whole = _subset(path, subset)
    first = _defining(path, root)
    folders = _folders(first)
    if len(folders) < 2:
        raise DataError(f"{first} has {len(folders)} class folders; classification needs at least 2")
    unknown = sorted(set(_folders(root)) - set(folders))
    if unknown:
        raise DataError(f"class folder {root / unknown[0]} is not among those of {first}")
    names = _names(folders, first) if labels is None else labels
    if len(names) != len(folders):
        raise UsageError(f"{len(names)} labels for the {len(folders)} class folders of {first}")
    items = [Item(file, kind) for kind, folder in enumerate(folders) for file in _pictures(root / folder)]
    empty = [folder for folder in folders if not _pictures(first / folder)]
    if empty:
        raise DataError(f"class folder {first / empty[0]} has no pictures")
    # Where only train/ exists, its pictures are divided for both.
    return _divide(items, root, subset, _divided(path, subset, whole)), names, []


def _folders(path: Path) -> list[str]:
    return sorted(folder.name for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _divided(path: Path, subset: str, whole: bool) -> bool:
    has_validation = any((path / name).is_dir() for name in SUBSETS["validation"])
    return whole or (subset == "train" and not has_validation)


# ---- detection -------------------------------------------------------------------------------------------


def _coco(path: Path, subset: str, labels: tuple[str, ...] | None) -> tuple[list[Item], tuple[str, ...], list[str]]:
    file, pictures, divided = _coco_file(path, subset)
    document = _json(file)
    try:
        images = {int(entry["id"]): entry for entry in document["images"]}
        categories = sorted((int(entry["id"]), str(entry["name"])) for entry in document["categories"])
        annotations = [
            (
                int(entry["image_id"]),
                int(entry["category_id"]),
                [float(v) for v in entry["bbox"]],
                bool(entry.get("iscrowd", 0)),
            )
            for entry in document["annotations"]
        ]
        sizes = {key: (float(entry["width"]), float(entry["height"])) for key, entry in images.items()}
        names = {key: str(entry["file_name"]) for key, entry in images.items()}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{file} is not COCO's format: {type(error).__name__}: {error}") from error
    if not categories:
        raise DataError(f"{file} has no categories")
    for key, size in sizes.items():
        if not all(0 < side <= MAX_SIDE for side in size):
            raise DataError(f"{file}: image {key} is said to be {size[0]:g}x{size[1]:g}")
    index = {category: number for number, (category, _) in enumerate(categories)}
    if len(images) != len(document["images"]) or len(index) != len(categories):
        raise DataError(f"{file}: two {'categories' if len(index) != len(categories) else 'images'} have the same id")
    found = _names((name for _, name in categories), file) if labels is None else labels
    if len(found) != len(categories):
        raise UsageError(f"{len(found)} labels for the {len(categories)} categories of {file}")
    boxes: dict[int, list[tuple[tuple[float, float, float, float], int, bool]]] = {key: [] for key in images}
    outside, clipped, first = 0, 0, ""
    for image_id, category, box, crowd in annotations:
        if image_id not in images or category not in index or len(box) != 4:
            raise DataError(f"{file}: an annotation refers to image {image_id}, category {category}, bbox {box}")
        width, height = sizes[image_id]
        x, y, w, h = box
        x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
        # In single precision, as the samples have it.
        if not (all(map(math.isfinite, box)) and np.float32(x1) < np.float32(x2) and np.float32(y1) < np.float32(y2)):
            outside += 1
            first = first or f"{box} in {names[image_id]!r} ({width:.0f}x{height:.0f}) of {file}"
            continue
        clipped += max(x1 - x, y1 - y, x + w - x2, y + h - y2) > 1
        boxes[image_id].append(((x1, y1, x2, y2), index[category], crowd))
    notes = []
    if clipped:
        notes.append(f"{clipped} of {len(annotations)} boxes reached over the edge of their picture and were clipped")
    if outside:
        notes.append(f"{outside} of {len(annotations)} boxes skipped: outside the picture or without area")
        _within(outside, len(annotations), "boxes are outside their picture or without area", first)
    items = []
    for key in sorted(images):
        if not _is_inside(names[key]):
            raise DataError(f"{file}: file_name {names[key]!r} is not the name of a picture in {pictures}")
        parts = boxes[key]
        items.append(
            Item(
                pictures / names[key],
                boxes=tuple(box for box, _, _ in parts),
                kinds=tuple(kind for _, kind, _ in parts),
                crowd=tuple(crowd for _, _, crowd in parts),
                size=sizes[key],
            )
        )
    return _divide(items, pictures, subset, divided), found, notes


def _is_inside(name: str) -> bool:
    """Whether a name from a JSON is one line of text and leads nowhere else. Where links lead is the user's matter."""
    text = "\0" not in name and name.splitlines() == [name] and name.encode("utf-8", "ignore").decode() == name
    return text and not Path(name).is_absolute() and ".." not in Path(name).parts


def _coco_file(path: Path, subset: str) -> tuple[Path, Path, bool]:
    """The JSON of a subset, the folder of its pictures, and whether the pictures still have to be divided."""
    if path.is_file():
        return path, _beside(path.parent), True
    for name in (subset, "train"):
        files = _instances(path, name)
        if len(files) > 1:
            listed = ", ".join(file.name for file in files)
            raise DataError(f"{path / 'annotations'} has {len(files)} files for {name}: {listed}; leave one")
        if files:
            pictures = path / files[0].stem.removeprefix("instances_")
            beside = pictures if pictures.is_dir() else _beside(path)
            return files[0], beside, not _instances(path, "validation")
    root, whole = _subset(path, subset)
    files = sorted(root.glob("*.json"))
    if len(files) != 1:
        raise DataError(f"{root} has {len(files)} .json files; detect expects {LAYOUTS['detect']}")
    return files[0], _beside(root), _divided(path, subset, whole)


def _instances(path: Path, subset: str) -> list[Path]:
    return sorted({file for name in SUBSETS[subset] for file in (path / "annotations").glob(f"instances_{name}*.json")})


def _beside(folder: Path) -> Path:
    return folder / "images" if (folder / "images").is_dir() else folder


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{file} has more than {MAX_JSON_BYTES} bytes")
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"can't read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{file} is not COCO's format: not a JSON object")
    return document


# ---- segmentation ----------------------------------------------------------------------------------------


def _masks(path: Path, subset: str, labels: tuple[str, ...] | None) -> tuple[list[Item], tuple[str, ...], list[str]]:
    root, whole = _subset(path, subset)
    images, masks = root / "images", root / "masks"
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(f"no folder {folder}; segment expects {LAYOUTS['segment']}")
    items = []
    for file in _pictures(images):
        mask = (masks / file.relative_to(images)).with_suffix(".png")
        if not mask.is_file():
            raise DataError(f"picture {file} has no mask {mask}")
        items.append(Item(file, mask=mask))
    if labels is None:
        train = _defining(path, root) / "masks"
        values: Counter[int] = Counter()
        for mask in sorted(train.rglob("*.png")):
            values.update(np.unique(_mask_values(mask)).tolist())
        highest = max((value for value in values if value != IGNORED), default=0)
        if highest == 0:
            raise DataError(f"the masks in {train} have one class; segmentation needs at least 2")
        labels = default_labels(highest + 1)
    return _divide(items, root, subset, _divided(path, subset, whole)), labels, []


def _mask_values(file: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        with Image.open(file) as mask:
            if mask.mode not in ("L", "P", "1"):
                raise DataError(f"mask {file} has mode {mask.mode}; a mask has one value of 8 bits a pixel")
            return np.asarray(mask if mask.mode != "1" else mask.convert("L")) // (255 if mask.mode == "1" else 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"can't read mask {file}: {error}") from error


def _read_mask(file: Path, shape: tuple[int, ...], classes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = _mask_values(file)
    if mask.shape != tuple(shape):
        raise DataError(f"mask {file} is {mask.shape[1]}x{mask.shape[0]}, its picture {shape[1]}x{shape[0]} (upright)")
    unknown = sorted(set(np.unique(mask).tolist()) - set(range(classes)) - {IGNORED})
    if unknown:
        listed = ", ".join(map(str, unknown[:5]))
        raise DataError(
            f"mask {file} has values that are no class: {listed}; valid: 0 to {classes - 1}, {IGNORED} ignored"
        )
    return mask
