"""Data sets: that a scene is a function of its number and says the truth about itself, and what a user's own
pictures may look like, be they good or broken."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from xformer_mobile.data import (
    IGNORED,
    KINDS,
    LABELS,
    SPLITS,
    SYNTHETIC,
    Dataset,
    FolderData,
    Sample,
    Split,
    Subset,
    Synthetic,
    draw_scene,
    open_folder,
    synthetic_labels,
)
from xformer_mobile.data.scenes import DIFFICULTIES, SCENE_SIZE, _Painter
from xformer_mobile.errors import DataError, ImageError, UsageError, XFormerError
from xformer_mobile.spec import TASKS, ImageSize, Task

Bytes = npt.NDArray[np.uint8]

SMALL = ImageSize(64, 64)
TASK_NAMES: list[Task] = [spec.name for spec in TASKS.values()]
ORIENTATION = 0x0112


def assert_one_line(error: BaseException) -> None:
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < 1000


def form(array: npt.NDArray[Any]) -> tuple[str, tuple[int, ...]]:
    return array.dtype.name, array.shape


# -- scenes --------------------------------------------------------------------------------------------------------


def digest(sample: Sample) -> str:
    """Of everything that a sample holds."""
    total = hashlib.sha256()
    for one in fields(Sample):
        value = getattr(sample, one.name)
        total.update(f"{one.name} {getattr(value, 'shape', '')} {getattr(value, 'dtype', '')}".encode())
        total.update(np.asarray(value).tobytes())
    return total.hexdigest()


SERIES: list[tuple[int, Split, ImageSize, str]] = [
    (0, "train", SMALL, "standard"),
    (3, "validation", ImageSize(64, 192), "hard"),
    (4, "test", ImageSize(256, 128), "standard"),
    (5, "train", ImageSize(128, 128), "hard"),
]
SCENES = [(seed, split, index, size, difficulty) for seed, split, size, difficulty in SERIES for index in range(16)]


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    return [draw_scene(*one) for one in SCENES]


def test_a_scene_is_a_function_of_its_number(scenes: list[Sample]) -> None:
    backwards = [digest(draw_scene(*one)) for one in reversed(SCENES)]
    assert backwards[::-1] == [digest(sample) for sample in scenes]


def test_another_process_draws_the_same_scenes(scenes: list[Sample]) -> None:
    code = """
from tests.test_data import SCENES, digest
from xformer_mobile.data import draw_scene
print(*(digest(draw_scene(*one)) for one in SCENES[::-9]))
"""
    environment = dict(os.environ, PYTHONHASHSEED="77", OMP_NUM_THREADS="2", PYTHONWARNINGS="error")
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [digest(sample) for sample in scenes[::-9]]


def test_no_two_scenes_are_alike() -> None:
    numbers = [(seed, split, index) for seed in (0, 1) for split in SPLITS for index in (0, 1, 10**9)]
    pictures = [draw_scene(*number, SMALL).image.tobytes() for number in numbers]
    assert len(set(pictures)) == len(numbers)
    assert draw_scene(0, "train", 0, SMALL, "hard").image.tobytes() != pictures[0]


def test_difficulties() -> None:
    assert set(SYNTHETIC.values()) == set(DIFFICULTIES)
    assert draw_scene(0, "train", 0).image.shape == (SCENE_SIZE.height, SCENE_SIZE.width, 3)
    with pytest.raises(UsageError, match=r"difficulty 'no such'.*standard") as caught:
        draw_scene(0, "train", 0, SMALL, "no such")
    assert_one_line(caught.value)


def test_scenes_are_well_formed(scenes: list[Sample]) -> None:
    for (_, _, _, size, _), sample in zip(SCENES, scenes, strict=True):
        count = len(sample.boxes)
        assert sample.mask is not None
        assert form(sample.image) == ("uint8", (size.height, size.width, 3))
        assert form(sample.mask) == ("uint8", (size.height, size.width))
        assert form(sample.boxes) == ("float32", (count, 4))
        assert form(sample.kinds) == ("int64", (count,))
        assert form(sample.crowd) == ("bool", (count,))
        x1, y1, x2, y2 = sample.boxes.T
        assert ((x1 >= 0) & (y1 >= 0) & (x2 <= size.width) & (y2 <= size.height)).all()
        assert ((x2 > x1) & (y2 > y1)).all()
        assert set(sample.kinds.tolist()) <= set(range(len(KINDS)))
        assert sample.kind in sample.kinds[~sample.crowd], "the main object is hidden"
        assert sample.image.std() > 2, "there is nothing to see"


def extent(where: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The box of the true pixels."""
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def assert_agree(sample: Sample) -> int:
    """Boxes are tight, and the mask is explained by them; returns how many boxes are alone with their value."""
    assert sample.mask is not None
    values = np.where(sample.crowd, IGNORED, sample.kinds + 1)
    explained = sample.mask == 0
    alone = 0
    for box, value in zip(sample.boxes.astype(int), values, strict=True):
        x1, y1, x2, y2 = box
        inside = np.zeros_like(explained)
        inside[y1:y2, x1:x2] = sample.mask[y1:y2, x1:x2] == value
        assert extent(inside) == tuple(box), "a box is not tight around the pixels of its class"
        explained |= inside
        if (values == value).sum() == 1:
            assert extent(sample.mask == value) == tuple(box)
            alone += 1
    assert explained.all(), "the mask has a class outside the boxes of that class"
    return alone


def test_boxes_and_masks_of_scenes_agree(scenes: list[Sample]) -> None:
    assert sum(map(assert_agree, scenes)) > len(scenes)


def test_what_is_hidden_is_a_crowd_and_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few objects are hidden for the most part; so here those count as hidden that miss a little."""
    shares = []
    for least in (0.3, 0.95, 1.01):
        monkeypatch.setattr("xformer_mobile.data.scenes.LEAST_VISIBLE", least)
        drawn = [draw_scene(2, "test", index, SMALL, "hard") for index in range(30)]
        for sample in drawn:
            assert_agree(sample)
            assert sample.mask is not None
            assert (IGNORED in sample.mask) == sample.crowd.any()
        shares.append(np.concatenate([sample.crowd for sample in drawn]).mean())
    assert shares[0] < 0.1 < shares[1] < 0.9
    assert shares[2] == 1


def test_every_kind_occurs(scenes: list[Sample]) -> None:
    assert set(np.concatenate([sample.kinds for sample in scenes]).tolist()) == set(range(len(KINDS)))
    assert len({sample.kind for sample in scenes}) > len(KINDS) // 2


def test_the_main_object_is_where_the_picture_says() -> None:
    """The pixels of an object differ from what is around it: the mask is that of this picture, not turned or moved."""
    differences = []
    for index in range(24):
        sample = draw_scene(9, "test", index, ImageSize(128, 128))
        assert sample.mask is not None
        own = sample.mask == sample.kind + 1
        box = sample.boxes[np.flatnonzero((sample.kinds == sample.kind) & ~sample.crowd)[-1]].astype(int)
        near = np.zeros_like(own)
        near[max(box[1] - 4, 0) : box[3] + 4, max(box[0] - 4, 0) : box[2] + 4] = True
        pixels = sample.image.astype(float)
        apart = np.abs(pixels[own].mean(axis=0) - pixels[near & (sample.mask == 0)].mean(axis=0)).mean()
        turned = own[::-1, ::-1]
        rest = near[::-1, ::-1] & ~turned
        differences.append(apart - np.abs(pixels[turned].mean(axis=0) - pixels[rest].mean(axis=0)).mean())
    assert np.mean(differences) > 5


def blank(size: ImageSize = SMALL) -> _Painter:
    """A painter whose canvas is black, without textures and light."""
    painter = _Painter(np.random.default_rng(0), size, DIFFICULTIES["standard"])
    painter.canvas[:] = 0
    painter.textures = [np.zeros_like(texture) for texture in painter.textures]
    painter.light = 0.0, 0.0
    return painter


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 0.8])
def test_outlines_are_antialiased(shift: float) -> None:
    """A pixel on the outline is painted as far as the shape covers it, so that the sum is the shape's area."""
    painter = blank()
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    disc = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    white = {"body": (1.0, 1.0, 1.0)}
    area = painter._paint([disc], ["body"], white, 30 + shift, 31 - shift, 15, 7, shadow=False)
    covered = painter.canvas[..., 0]

    assert covered.min() == 0
    assert covered.max() == pytest.approx(1)
    assert covered.sum() == pytest.approx(np.pi * 15**2, rel=0.06)
    partly = (covered > 0.02) & (covered < 0.98)
    assert 2 * 15 * 2 < partly.sum() < 2 * np.pi * 15 * 2, "a line of about a pixel around the disc"
    assert len(np.unique(covered[partly].round(2))) > 3, "more than on and off"
    assert np.array_equal(painter.owner == 7, covered >= 0.5), "the mask is what is mostly covered"
    assert area == (painter.owner == 7).sum()
    y, x = np.indices(covered.shape) + 0.5
    middle = (x * covered).sum() / covered.sum(), (y * covered).sum() / covered.sum()
    assert middle == pytest.approx((30 + shift, 31 - shift), abs=0.35)


def test_what_is_painted_outside_the_picture_leaves_no_trace() -> None:
    painter = blank()
    square = np.array(((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)))
    for x, y in ((-30.0, 20.0), (90.0, 20.0), (20.0, -30.0), (20.0, 90.0)):
        assert painter._paint([square], ["body"], {"body": (1.0, 1.0, 1.0)}, x, y, 10, 1, shadow=True) == 0
    assert not painter.owner.any()
    assert not painter.canvas.any()


# -- kinds ---------------------------------------------------------------------------------------------------------


def test_kinds_are_a_table_of_at_least_twelve() -> None:
    assert len(KINDS) >= 12
    assert tuple(kind.name for kind in KINDS) == LABELS
    assert len(set(LABELS)) == len(LABELS)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=LABELS)
def test_drawings(number: int) -> None:
    """Each individual is finite, fills the square and is made of paints that exist; no two are the same."""
    kind = KINDS[number]
    rng = np.random.default_rng(number)
    drawings = [kind.draw(rng) for _ in range(20)]
    roles = blank()._paints(0.5)
    for drawing in drawings:
        points = np.concatenate([part.points for part in drawing])
        assert np.isfinite(points).all()
        assert np.abs(points).max() < 1.3
        assert (points.max(axis=0) - points.min(axis=0) > 0.7).all()
        assert all(part.points.shape[0] >= 3 and part.points.shape[1:] == (2,) for part in drawing)
        assert {part.role for part in drawing} <= set(roles)
    assert len({b"".join(part.points.tobytes() for part in drawing) for drawing in drawings}) > 1
    assert all(low < high for low, high in kind.hues)
    assert 0 < kind.turn <= 180


# -- the scenes as a data set --------------------------------------------------------------------------------------


def digests(data: Dataset) -> list[str]:
    return [digest(data[index]) for index in range(len(data))]


@pytest.mark.parametrize("task", TASK_NAMES)
def test_synthetic(task: Task) -> None:
    data = Synthetic(task, "validation", 5, seed=3, size=SMALL)
    assert len(data) == 5
    assert digests(data) == [digest(draw_scene(3, "validation", index, SMALL)) for index in range(5)]
    for index in (-1, 5, 10**9):
        with pytest.raises(IndexError):
            data[index]
    if task == "segment":
        assert data.labels == ("background", *LABELS)
    else:
        assert data.labels == LABELS
    assert data.labels == synthetic_labels(task)


def test_the_label_of_a_mask_value_is_that_of_its_kind() -> None:
    sample = Synthetic("segment", "train", 1, size=SMALL)[0]
    assert sample.mask is not None
    assert sample.mask.any()
    named = {synthetic_labels("segment")[value] for value in np.unique(sample.mask).tolist() if value != IGNORED}
    assert named == {"background", *(LABELS[kind] for kind in sample.kinds[~sample.crowd])}


def test_every_epoch_has_other_scenes() -> None:
    data = Synthetic("classify", "train", 4, size=SMALL, difficulty="hard")
    assert digests(data.at_epoch(0)) == digests(data)
    epochs = [data.at_epoch(epoch) for epoch in range(4)]
    assert all(len(epoch) == len(data) and epoch.labels == data.labels for epoch in epochs)
    assert len({one for epoch in epochs for one in digests(epoch)}) == 4 * 4
    assert digests(data.at_epoch(2)) == digests(data.at_epoch(2))
    assert digest(data.at_epoch(1)[0]) == digest(draw_scene(0, "train", 4, SMALL, "hard")), "none is left out"


@dataclass(frozen=True)
class Numbers:
    """A data set whose samples are numbers: the sample's kind, in the hundreds its epoch."""

    length: int
    epoch: int = 0
    labels: tuple[str, ...] = ("a", "b")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        none: Any = np.zeros(0)
        return Sample(none, self.epoch * 100 + range(self.length)[index], none, none, none, None)

    def at_epoch(self, epoch: int) -> Numbers:
        return Numbers(self.length, epoch, self.labels)


SPREADS = [
    pytest.param(10, 4, [0, 2, 5, 7], id="fewer"),
    pytest.param(10, 10, list(range(10)), id="all"),
    pytest.param(3, 10, [0, 1, 2], id="more than there are"),
    pytest.param(10, 1, [0], id="one"),
    pytest.param(10, 0, [], id="none"),
]


@pytest.mark.parametrize(("length", "most", "expected"), SPREADS)
def test_subset(length: int, most: int, expected: list[int]) -> None:
    subset = Subset(Numbers(length), most)
    assert len(subset) == len(expected)
    assert [subset[index].kind for index in range(len(subset))] == expected
    assert subset.labels == ("a", "b")
    later = subset.at_epoch(3)
    assert [later[index].kind for index in range(len(later))] == [300 + number for number in expected]
    for index in (-1, len(expected)):
        with pytest.raises(IndexError):
            subset[index]


# -- folders -------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 8, 6
BOX = [1.0, 2.0, 3.0, 2.0]
"""In COCO's way: left, top, width, height."""


def save(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)
    return path


def names(count: int, first: int = 0) -> list[str]:
    return [f"{number:03}.png" for number in range(first, first + count)]


def write_classes(root: Path, pictures: Sequence[str]) -> None:
    """The pictures in turn in two classes."""
    for number, name in enumerate(pictures):
        save(root / ("ant", "bee")[number % 2] / name)


def coco(pictures: Sequence[str]) -> dict[str, Any]:
    """A document with one box a picture, of two categories in turn, whose ids are neither dense nor in order."""
    return {
        "images": [
            {"id": 70 + n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(pictures)
        ],
        "categories": [{"id": 9, "name": "nine"}, {"id": 4, "name": "four"}],
        "annotations": [
            {"id": n, "image_id": 70 + n, "category_id": (9, 4)[n % 2], "bbox": list(BOX)} for n in range(len(pictures))
        ],
    }


def write_json(file: Path, document: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def write_coco(root: Path, pictures: Sequence[str], folder: str = "", file: str = "labels.json") -> Path:
    for name in pictures:
        save(root / folder / name)
    return write_json(root / file, coco(pictures))


def write_masks(root: Path, pictures: Sequence[str]) -> None:
    """Pictures whose upper half is class 0 and whose lower half is class 2."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[HEIGHT // 2 :] = 2
    (root / "masks").mkdir(parents=True, exist_ok=True)
    for name in pictures:
        save(root / "images" / name)
        Image.fromarray(mask).save(root / "masks" / Path(name).with_suffix(".png"))


WRITERS: dict[Task, Callable[[Path, Sequence[str]], object]] = {
    "classify": write_classes,
    "detect": write_coco,
    "segment": write_masks,
}
FOUND_LABELS: dict[Task, tuple[str, ...]] = {
    "classify": ("ant", "bee"),
    "detect": ("four", "nine"),
    "segment": ("class 0", "class 1", "class 2"),
}


def found(data: FolderData) -> list[str]:
    return sorted(item.file.name for item in data.items)


def refused(
    task: Task, path: Path, kind: type[XFormerError] = DataError, *, names: Path | str = "", **options: Any
) -> str:
    """The message of the error that opening raises, one line that names the file."""
    subset = options.pop("subset", "train")
    with pytest.raises(XFormerError) as caught:
        open_folder(task, path, subset, **options)
    assert type(caught.value) is kind, caught.value
    assert_one_line(caught.value)
    assert str(names or path) in str(caught.value)
    return str(caught.value)


def assert_right(data: FolderData, task: Task) -> None:
    """What the samples say is what was written."""
    assert data.task == task
    assert data.labels == FOUND_LABELS[task]
    for index, item in enumerate(data.items):
        number = int(item.file.stem)
        sample = data[index]
        assert form(sample.image) == ("uint8", (HEIGHT, WIDTH, 3))
        count = int(task == "detect")
        assert form(sample.boxes) == ("float32", (count, 4))
        assert form(sample.kinds) == ("int64", (count,))
        assert form(sample.crowd) == ("bool", (count,))
        if task == "detect":
            assert sample.boxes.tolist() == [[1, 2, 4, 4]]
            assert [data.labels[kind] for kind in sample.kinds] == [("nine", "four")[number % 2]]
            assert sample.crowd.tolist() == [False]
        assert sample.kind == (number % 2 if task == "classify" else -1)
        if task == "segment":
            assert sample.mask is not None
            assert sample.mask.dtype == np.uint8
            assert sample.mask.tolist() == [[0] * WIDTH] * 3 + [[2] * WIDTH] * 3
        else:
            assert sample.mask is None


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
@pytest.mark.parametrize("task", TASK_NAMES)
def test_train_and_validation(task: Task, name: str, tmp_path: Path) -> None:
    WRITERS[task](tmp_path / "train", names(4))
    WRITERS[task](tmp_path / name, names(2, 4))
    train, judged = (open_folder(task, tmp_path, subset) for subset in ("train", "validation"))
    assert (found(train), found(judged)) == (names(4), names(2, 4))
    assert len(train) == 4
    assert train.skipped == judged.skipped == ()
    assert_right(train, task)
    assert_right(judged, task)
    assert digests(train.at_epoch(5)) == digests(train)
    with pytest.raises(IndexError):
        train[4]


DIVIDED: dict[Task, list[str]] = {
    "classify": ["004.png", "010.png", "011.png", "014.png", "028.png"],
    "detect": ["021.png", "028.png", "034.png", "037.png"],
    "segment": ["003.png"],
}
"""Those of 40 that are for validation. It must never change: what was trained on would be judged on."""


@pytest.mark.parametrize("folder", ["", "train"], ids=["no subsets", "train only"])
@pytest.mark.parametrize("task", TASK_NAMES)
def test_pictures_are_divided(task: Task, folder: str, tmp_path: Path) -> None:
    WRITERS[task](tmp_path / folder, names(40))
    train, judged = (open_folder(task, tmp_path, subset, check=False) for subset in ("train", "validation"))
    assert not set(found(train)) & set(found(judged))
    assert sorted(found(train) + found(judged)) == names(40)
    assert found(judged) == DIVIDED[task]
    assert train.labels == judged.labels
    assert_right(train, task)
    assert_right(judged, task)


def test_a_picture_stays_where_it_is_when_others_come_and_go(tmp_path: Path) -> None:
    subsets: list[dict[str, str]] = []
    for root, pictures in ((tmp_path / "a", names(60)), (tmp_path / "b", names(80, 20))):
        write_masks(root, pictures)
        subsets.append(
            {name: subset for subset in ("train", "validation") for name in found(open_folder("segment", root, subset))}
        )
    both = set(subsets[0]) & set(subsets[1])
    assert {subsets[0][name] for name in both} == {"train", "validation"}
    assert all(subsets[0][name] == subsets[1][name] for name in both)


def test_pictures_in_folders_below_and_of_any_suffix(tmp_path: Path) -> None:
    pictures = ["a.jpg", "b.JPEG", "c.webp", "d.bmp", "e.tif", "f.gif", "deep/er/g.png"]
    for name in pictures:
        save(tmp_path / "train/x" / name)
    save(tmp_path / "train/y/h.png")
    save(tmp_path / "val/x/i.png")
    (tmp_path / "train/x/notes.txt").write_text("not a picture, and not called one")
    (tmp_path / "train/.hidden").mkdir()
    data = open_folder("classify", tmp_path, "train")
    assert data.labels == ("x", "y")
    assert found(data) == sorted([Path(name).name for name in pictures] + ["h.png"])
    nested = ["one/a.jpg", "two/a.b.jpg"]
    for name in nested:
        (tmp_path / "masked/masks" / name).parent.mkdir(parents=True)
    write_masks(tmp_path / "masked", nested)
    assert found(open_folder("segment", tmp_path / "masked", "train")) == ["a.b.jpg", "a.jpg"]


def test_checking_tells_each_picture(tmp_path: Path) -> None:
    write_masks(tmp_path / "train", names(5))
    write_masks(tmp_path / "val", names(1))
    told: list[str] = []
    open_folder("segment", tmp_path, "train", step=told.append)
    assert told == names(5)
    open_folder("segment", tmp_path, "train", step=told.append, check=False)
    assert told == names(5)


def test_checking_leaves_warnings_as_they_were(tmp_path: Path) -> None:
    write_masks(tmp_path / "train", names(100))
    write_masks(tmp_path / "val", names(1))
    before = list(warnings.filters)
    for _ in range(5):
        open_folder("segment", tmp_path, "train", labels=("a", "b", "c"))
        assert list(warnings.filters) == before


# -- folders: classification ---------------------------------------------------------------------------------------


def test_validation_may_lack_a_class(tmp_path: Path) -> None:
    """The classes are those of the training pictures: a class keeps its number."""
    write_classes(tmp_path / "train", names(4))
    save(tmp_path / "val/bee/1.png")
    data = open_folder("classify", tmp_path, "validation")
    assert data.labels == ("ant", "bee")
    assert data[0].kind == 1


def test_validation_alone(tmp_path: Path) -> None:
    write_classes(tmp_path / "val", names(4))
    assert_right(open_folder("classify", tmp_path, "validation"), "classify")
    assert "no train" in refused("classify", tmp_path)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_validation_without_training_pictures(task: Task, tmp_path: Path) -> None:
    """Other folders beside it are not taken for classes."""
    WRITERS[task](tmp_path / "val", names(4))
    WRITERS[task](tmp_path / "test", names(4))
    assert "no train" in refused(task, tmp_path)
    assert_right(open_folder(task, tmp_path, "validation"), task)


def test_a_class_that_is_not_trained(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", names(4))
    write_classes(tmp_path / "val", names(4))
    save(tmp_path / "val/cow/1.png")
    assert "not among those of" in refused("classify", tmp_path, names=tmp_path / "val/cow", subset="validation")
    open_folder("classify", tmp_path, "train")


def test_too_few_classes(tmp_path: Path) -> None:
    assert "has 0 class folders" in refused("classify", tmp_path)
    save(tmp_path / "ant/1.png")
    assert "has 1 class folders; classification needs at least 2" in refused("classify", tmp_path)
    (tmp_path / "bee").mkdir()
    assert "has no pictures" in refused("classify", tmp_path, names=tmp_path / "bee")


def test_a_class_folder_that_can_be_no_label(tmp_path: Path) -> None:
    write_classes(tmp_path, names(4))
    save(tmp_path / "b\nc/1.png")
    assert "printable" in refused("classify", tmp_path)


# -- folders: detection --------------------------------------------------------------------------------------------

COCO_LAYOUTS: dict[str, tuple[str, str, str]] = {
    "beside the JSON": ("", "labels.json", ""),
    "in images/": ("images", "labels.json", ""),
    "COCO's own": ("train2017", "annotations/instances_train2017.json", ""),
    "COCO's own, without a year": ("train", "annotations/instances_train.json", ""),
    "COCO's own, in images/": ("images", "annotations/instances_train2017.json", ""),
    "the JSON itself": ("", "any.json", "any.json"),
    "the JSON itself, in images/": ("images", "any.json", "any.json"),
    "train/, beside the JSON": ("train", "train/_annotations.coco.json", ""),
    "train/images/": ("train/images", "train/labels.json", ""),
}
"""Where the pictures are, the JSON, and what is opened."""


@pytest.mark.parametrize("layout", COCO_LAYOUTS)
def test_coco_layouts(layout: str, tmp_path: Path) -> None:
    folder, file, opened = COCO_LAYOUTS[layout]
    write_coco(tmp_path, names(40), folder, file)
    train, judged = (open_folder("detect", tmp_path / opened, subset) for subset in ("train", "validation"))
    assert found(judged) == DIVIDED["detect"]
    assert sorted(found(train) + found(judged)) == names(40)
    assert_right(train, "detect")
    assert_right(judged, "detect")


@pytest.mark.parametrize("validation", ["val2017", "valid", "validation"])
def test_coco_own_layout_with_both_subsets(validation: str, tmp_path: Path) -> None:
    write_coco(tmp_path, names(12), "train2017", "annotations/instances_train2017.json")
    write_coco(tmp_path, names(3, 12), validation, f"annotations/instances_{validation}.json")
    train, judged = (open_folder("detect", tmp_path, subset) for subset in ("train", "validation"))
    assert (found(train), found(judged)) == (names(12), names(3, 12))


def test_more_than_one_json(tmp_path: Path) -> None:
    for year in (2014, 2017):
        write_coco(tmp_path / "own", names(2), f"train{year}", f"annotations/instances_train{year}.json")
    assert "instances_train2014.json, instances_train2017.json" in refused("detect", tmp_path / "own")
    for name in "ab":
        write_coco(tmp_path / "two", names(2), file=f"{name}.json")
    assert "has 2 .json files" in refused("detect", tmp_path / "two")


def test_a_picture_without_boxes_and_a_crowd(tmp_path: Path) -> None:
    file = write_coco(tmp_path / "train", names(3))
    document = coco(names(3))
    document["annotations"] = [dict(document["annotations"][1], iscrowd=1), document["annotations"][1]]
    write_json(file, document)
    write_coco(tmp_path / "val", names(1))
    data = open_folder("detect", tmp_path, "train")
    assert [len(data[index].boxes) for index in range(3)] == [0, 2, 0]
    assert data[1].crowd.tolist() == [True, False]
    assert data[0].boxes.shape == (0, 4)


def twenty(root: Path, *changed: list[float]) -> FolderData:
    """Twenty pictures for training, the first of them with other boxes."""
    document = coco(names(20))
    for annotation, box in zip(document["annotations"], changed, strict=False):
        annotation["bbox"] = box
    write_json(write_coco(root / "train", names(20)), document)
    write_coco(root / "val", names(1))
    return open_folder("detect", root, "train")


CLIPPED = [
    pytest.param([-5, -4, 10, 8], [0, 0, 5, 4], id="left and above"),
    pytest.param([6, 4, 100, 1e308], [6, 4, 8, 6], id="right and below"),
    pytest.param([-1e6, -1e6, 2e6, 2e6], [0, 0, 8, 6], id="all around"),
]


@pytest.mark.parametrize(("box", "expected"), CLIPPED)
def test_boxes_over_the_edge_are_clipped(box: list[float], expected: list[float], tmp_path: Path) -> None:
    data = twenty(tmp_path, box)
    assert data[0].boxes.tolist() == [expected]
    assert data[1].boxes.tolist() == [[1, 2, 4, 4]]
    (told,) = data.skipped
    assert told.startswith("1 of 20 boxes reached over the edge")


def test_a_box_over_the_edge_by_rounding_is_not_worth_a_word(tmp_path: Path) -> None:
    data = twenty(tmp_path, [-0.5, 0, 8.9, 6.4])
    assert data[0].boxes.tolist() == [[0, 0, 8, 6]]
    assert data.skipped == ()


WITHOUT_AREA: dict[str, list[float]] = {
    "right of the picture": [8, 0, 3, 3],
    "above the picture": [0, -3, 3, 3],
    "not a number": [float("nan"), 0, 3, 3],
    "a width that is not a number": [0, 0, float("nan"), 3],
    "infinite": [0, 0, float("inf"), 3],
    "zero width": [2, 2, 0, 3],
    "negative height": [2, 2, 3, -1],
    "too thin for single precision": [7.5, 2, 1e-9, 3],
}


@pytest.mark.parametrize("case", WITHOUT_AREA)
def test_boxes_without_area_are_skipped(case: str, tmp_path: Path) -> None:
    data = twenty(tmp_path, WITHOUT_AREA[case])
    assert len(data) == 20
    assert data[0].boxes.shape == (0, 4)
    assert data[1].boxes.shape == (1, 4)
    (told,) = data.skipped
    assert told.startswith("1 of 20 boxes skipped")
    with pytest.raises(
        DataError, match=r"^2 of 20 boxes are outside.* more than 5%; the first: \[.*'000\.png'"
    ) as caught:
        twenty(tmp_path, WITHOUT_AREA[case], WITHOUT_AREA[case])
    assert_one_line(caught.value)
    assert str(tmp_path / "train/labels.json") in str(caught.value)


HOSTILE_NAMES: dict[str, str] = {
    "parent": "../secret.png",
    "parent further on": "inner/../../secret.png",
    "absolute": "{root}/secret.png",
    "zero byte": "000.png\0",
    "two lines": "000\n.png",
    "half a character": "\ud800.png",
    "empty": "",
}


@pytest.mark.parametrize("case", HOSTILE_NAMES)
@pytest.mark.parametrize("check", [True, False], ids=["checked", "unchecked"])
def test_hostile_names(case: str, check: bool, tmp_path: Path) -> None:
    save(tmp_path / "secret.png")
    file = write_coco(tmp_path / "data", names(20))
    (tmp_path / "data/inner").mkdir()
    document = coco(names(20))
    document["images"][0]["file_name"] = HOSTILE_NAMES[case].format(root=tmp_path)
    write_json(file, document)
    for subset in ("train", "validation"):
        message = refused("detect", tmp_path / "data", names=file, subset=subset, check=check)
        assert "is not the name of a picture in" in message


def test_a_picture_may_be_a_link(tmp_path: Path) -> None:
    """A data set is often a folder of links to where the pictures are kept."""
    write_coco(tmp_path / "train", names(2))
    write_coco(tmp_path / "val", names(1))
    (tmp_path / "train/000.png").unlink()
    (tmp_path / "train/000.png").symlink_to(save(tmp_path / "store/any.png"))
    assert_right(open_folder("detect", tmp_path, "train"), "detect")


def changed(key: str, value: Any, *, entry: int | None = 0, of: str = "annotations") -> Callable[[dict[str, Any]], Any]:
    def change(document: dict[str, Any]) -> Any:
        (document if entry is None else document[of][entry])[key] = value
        return document

    return change


def without(key: str, of: str | None = None) -> Callable[[dict[str, Any]], Any]:
    def change(document: dict[str, Any]) -> Any:
        del (document if of is None else document[of][0])[key]
        return document

    return change


NOT_COCO: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a list": (lambda document: [document], "not a JSON object"),
    "a number": (lambda document: 3, "not a JSON object"),
    "another object": (lambda document: {"a": 1}, "KeyError: 'images'"),
    "no annotations": (without("annotations"), "KeyError: 'annotations'"),
    "no categories": (without("categories"), "KeyError: 'categories'"),
    "no category at all": (changed("categories", [], entry=None), "has no categories"),
    "images is null": (changed("images", None, entry=None), "TypeError"),
    "images is an object": (changed("images", {"0": 1}, entry=None), "TypeError"),
    "an image without a name": (without("file_name", "images"), "KeyError: 'file_name'"),
    "an image without a width": (without("width", "images"), "KeyError: 'width'"),
    "an image without pixels": (changed("width", 0, of="images"), "is said to be 0x6"),
    "a size that is not a number": (changed("height", float("nan"), of="images"), "is said to be 8xnan"),
    "a size without an end": (changed("height", 1e300, of="images"), r"is said to be 8x1e\+300"),
    "an image id of text": (changed("id", "x", of="images"), "ValueError"),
    "an image id that is infinite": (changed("id", float("inf"), of="images"), "OverflowError"),
    "two images of an id": (changed("id", 71, of="images"), "two images have the same id"),
    "two categories of an id": (changed("id", 4, of="categories"), "two categories have the same id"),
    "a category without a name": (changed("name", " ", of="categories"), "label 1 is ' '"),
    "an unknown image": (changed("image_id", 5), "refers to image 5, category 9"),
    "an unknown category": (changed("category_id", 5), "refers to image 70, category 5"),
    "a box of three": (changed("bbox", [1, 2, 3]), r"bbox \[1.0, 2.0, 3.0\]"),
    "a box of text": (changed("bbox", ["a", 1, 2, 3]), "ValueError"),
    "a box of lists": (changed("bbox", [[1], 1, 2, 3]), "TypeError"),
    "a box that is null": (changed("bbox", None), "TypeError"),
    "a box without an end": (changed("bbox", [10**400, 0, 1, 1]), "OverflowError"),
    "an annotation without a box": (without("bbox", "annotations"), "KeyError: 'bbox'"),
    "an annotation that is a list": (lambda document: dict(document, annotations=[[]]), "TypeError"),
}


@pytest.mark.parametrize("case", NOT_COCO)
def test_json_that_is_not_coco(case: str, tmp_path: Path) -> None:
    change, expected = NOT_COCO[case]
    file = write_coco(tmp_path, names(20))
    write_json(file, change(coco(names(20))))
    for opened in (tmp_path, file):
        with pytest.raises(DataError, match=expected):
            open_folder("detect", opened, "train")
        refused("detect", opened, names=file)


NOT_JSON: dict[str, bytes] = {
    "empty": b"",
    "text": b"pictures of cats",
    "truncated": json.dumps(coco(names(20))).encode()[:-40],
    "binary": bytes(range(256)),
    "too deep": b"[" * 100_000,
    "too long a number": b'{"images": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_json_that_is_not_json(case: str, tmp_path: Path) -> None:
    file = write_coco(tmp_path, names(2))
    file.write_bytes(NOT_JSON[case])
    assert "is not JSON" in refused("detect", tmp_path, names=file)


def test_no_pictures_in_the_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", dict(coco([]), images=[], annotations=[]))
    assert "no pictures for train" in refused("detect", tmp_path)


def test_pictures_that_the_json_names_are_missing(tmp_path: Path) -> None:
    write_json(tmp_path / "annotations/x.json", coco(names(20)))
    message = refused("detect", tmp_path / "annotations/x.json", names=tmp_path / "annotations")
    assert "pictures can't be used, more than 5%" in message
    assert "No such file" in message


# -- folders: segmentation -----------------------------------------------------------------------------------------


def palette(mask: Image.Image) -> Image.Image:
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    return mask


def grey(*rows: Sequence[int]) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def write_mask(root: Path, mask: Image.Image) -> Path:
    """Two pictures of 3x2 pixels, one of which has that mask."""
    for subset, name in (("train", "a.jpg"), ("train", "b.jpg"), ("val", "c.jpg")):
        save(root / subset / "images" / name, (3, 2))
        (root / subset / "masks").mkdir(exist_ok=True)
        grey([0, 1, 2], [2, 1, 0]).save(root / subset / "masks" / f"{name[0]}.png")
    file = root / "train/masks/b.png"
    mask.save(file)
    return file


GOOD_MASKS: dict[str, tuple[Image.Image, list[list[int]]]] = {
    "grey": (grey([0, 1, 2], [1, 1, 1]), [[0, 1, 2], [1, 1, 1]]),
    "ignored": (grey([255, 255, 2], [255, 0, 0]), [[255, 255, 2], [255, 0, 0]]),
    "wholly ignored": (grey([255] * 3, [255] * 3), [[255] * 3] * 2),
    "palette": (palette(grey([0, 1, 2], [1, 0, 1])), [[0, 1, 2], [1, 0, 1]]),
    "palette, ignored": (palette(grey([0, 1, 255], [1, 0, 1])), [[0, 1, 255], [1, 0, 1]]),
    "one bit": (Image.fromarray(np.array([[False, True, False], [True, True, False]])), [[0, 1, 0], [1, 1, 0]]),
}


@pytest.mark.parametrize("case", GOOD_MASKS)
def test_masks(case: str, tmp_path: Path) -> None:
    mask, expected = GOOD_MASKS[case]
    write_mask(tmp_path, mask)
    data = open_folder("segment", tmp_path, "train")
    sample = data[1].mask
    assert sample is not None
    assert sample.dtype == np.uint8
    assert sample.tolist() == expected
    assert len(data.labels) == 3


BAD_MASKS: dict[str, tuple[Image.Image, str]] = {
    "turned": (grey([0, 1], [0, 1], [0, 1]), "is 2x3, its picture 3x2"),
    "one pixel less": (grey([0, 1]), "is 2x1, its picture 3x2"),
    "RGB": (Image.new("RGB", (3, 2)), "has mode RGB"),
    "RGBA": (Image.new("RGBA", (3, 2)), "has mode RGBA"),
    "grey and alpha": (Image.new("LA", (3, 2)), "has mode LA"),
    "16 bits": (Image.fromarray(np.zeros((2, 3), dtype=np.uint16)), "has mode I;16"),
    "unknown value": (grey([0, 1, 2], [0, 3, 254]), "values that are no class: 3, 254; valid: 0 to 2, 255 ignored"),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_bad_masks(case: str, tmp_path: Path) -> None:
    """Among good ones, too: unlike a picture, a mask that is wrong is never skipped."""
    mask, expected = BAD_MASKS[case]
    file = write_mask(tmp_path, mask)
    assert expected in refused("segment", tmp_path, names=file, labels=("a", "b", "c"))
    unchecked = open_folder("segment", tmp_path, "train", labels=("a", "b", "c"), check=False)
    with pytest.raises(DataError) as caught:
        unchecked[1]
    assert expected in str(caught.value)
    if case != "unknown value":
        assert expected in refused("segment", tmp_path, names=file)


def test_a_value_that_only_validation_has(tmp_path: Path) -> None:
    write_masks(tmp_path / "train", names(2))
    write_masks(tmp_path / "val", names(2))
    file = tmp_path / "val/masks/001.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 3, dtype=np.uint8)).save(file)
    assert "no class: 3; valid: 0 to 2" in refused("segment", tmp_path, names=file, subset="validation")


@pytest.mark.parametrize("labels", [None, ("a", "b", "c")], ids=["counted", "named"])
@pytest.mark.parametrize("kept", [0, 20, 45, 50], ids=lambda kept: f"{kept} bytes")
def test_truncated_masks(kept: int, labels: tuple[str, ...] | None, tmp_path: Path) -> None:
    file = write_mask(tmp_path, grey([0, 1, 2], [1, 1, 1]))
    assert file.stat().st_size > 60
    file.write_bytes(file.read_bytes()[:kept])
    assert "can't read mask" in refused("segment", tmp_path, names=file, labels=labels)


def test_missing_masks(tmp_path: Path) -> None:
    write_masks(tmp_path, names(3))
    missing = tmp_path / "masks/001.png"
    missing.unlink()
    assert f"picture {tmp_path / 'images/001.png'} has no mask" in refused("segment", tmp_path, names=missing)


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_missing_folders(folder: str, tmp_path: Path) -> None:
    write_masks(tmp_path, names(3))
    (tmp_path / folder).rename(tmp_path / "other")
    assert "segment expects pictures in images/ and masks" in refused("segment", tmp_path, names=tmp_path / folder)


@pytest.mark.parametrize("value", [0, IGNORED], ids=["background", "ignored"])
def test_masks_of_one_class(value: int, tmp_path: Path) -> None:
    write_masks(tmp_path, names(1))
    Image.fromarray(np.full((HEIGHT, WIDTH), value, dtype=np.uint8)).save(tmp_path / "masks/000.png")
    assert "have one class" in refused("segment", tmp_path)


# -- folders: labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASK_NAMES)
def test_labels_can_be_given(task: Task, tmp_path: Path) -> None:
    WRITERS[task](tmp_path / "train", names(4))
    WRITERS[task](tmp_path / "val", names(4))
    given = tuple(f"given {index}" for index in range(len(FOUND_LABELS[task])))
    for subset in ("train", "validation"):
        named, data = (open_folder(task, tmp_path, subset, labels=labels) for labels in (given, None))
        assert named.labels == given
        assert digests(named) == digests(data)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("task", ["classify", "detect"])
def test_the_number_of_labels_must_be_right(task: Task, count: int, tmp_path: Path) -> None:
    WRITERS[task](tmp_path, names(40))
    given = tuple(f"given {index}" for index in range(count))
    assert refused(task, tmp_path, UsageError, labels=given).startswith(f"{count} labels for the 2 ")


def test_masks_need_as_many_labels_as_values(tmp_path: Path) -> None:
    write_masks(tmp_path, names(4))
    assert "no class: 2; valid: 0 to 1" in refused("segment", tmp_path, labels=("a", "b"))
    assert len(open_folder("segment", tmp_path, "train", labels=tuple("abcde")).labels) == 5


# -- folders: pictures that can't be read --------------------------------------------------------------------------


def truncate(file: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file, "JPEG")
    file.write_bytes(file.read_bytes()[:-300])


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "truncated JPEG": truncate,
    "text": lambda file: file.write_text("not a picture"),
    "zero bytes": lambda file: file.write_bytes(b""),
}


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_pictures_are_skipped_and_counted(case: str, task: Task, tmp_path: Path) -> None:
    """One of twenty is exactly 5 %; two are more."""
    pictures = [f"{number:03}.jpg" for number in range(20)]
    WRITERS[task](tmp_path / "train", pictures)
    WRITERS[task](tmp_path / "val", pictures)
    broken = sorted((tmp_path / "train").rglob("*.jpg"))[:2]
    UNREADABLE[case](broken[0])
    data = open_folder(task, tmp_path, "train")
    assert len(data) == 19
    assert broken[0] not in {item.file for item in data.items}
    assert_right(data, task)
    (told,) = data.skipped
    assert told.startswith(f"1 of 20 pictures skipped: can't use picture {broken[0]}: ")
    assert len(told.splitlines()) == 1

    unchecked = open_folder(task, tmp_path, "train", check=False)
    assert len(unchecked) == 20
    with pytest.raises(ImageError, match=broken[0].name):
        unchecked[[item.file for item in unchecked.items].index(broken[0])]

    UNREADABLE[case](broken[1])
    assert "2 of 20 pictures can't be used, more than 5%" in refused(task, tmp_path, names=broken[0])


# -- folders: pictures that are stored turned ----------------------------------------------------------------------


def turned_picture(file: Path) -> tuple[int, int, int, int]:
    """A picture stored 16x8 and shown 8x16, black, with a white patch; returns where that is as shown."""
    stored = np.zeros((8, 16, 3), dtype=np.uint8)
    stored[1:4, 2:7] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turn clockwise: what is stored at (x, y) is shown at (7 - y, x)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stored).save(file, exif=exif)
    return 4, 2, 7, 7


def test_boxes_are_in_the_upright_picture(tmp_path: Path) -> None:
    x1, y1, x2, y2 = turned_picture(tmp_path / "train/000.png")
    write_coco(tmp_path / "val", names(1))
    document = coco(names(1))
    document["annotations"][0]["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    document["images"][0].update(width=8, height=16)
    file = write_json(tmp_path / "train/x.json", document)
    data = open_folder("detect", tmp_path, "train")
    sample = data[0]
    assert sample.image.shape == (16, 8, 3)
    assert sample.boxes.tolist() == [[x1, y1, x2, y2]]
    assert (sample.image[y1:y2, x1:x2] == 255).all()
    assert sample.image.sum() == (y2 - y1) * (x2 - x1) * 3 * 255

    # Boxes for the picture as it is stored: they would be around something else.
    document["images"][0].update(width=16, height=8)
    document["annotations"][0]["bbox"] = [2, 1, 5, 3]
    write_json(file, document)
    expected = "000.png is 8x16 (upright), its boxes are for 16x8"
    assert expected in refused("detect", tmp_path, names=tmp_path / "train/000.png")
    unchecked = open_folder("detect", tmp_path, "train", check=False)
    with pytest.raises(ImageError) as caught:
        unchecked[0]
    assert expected in str(caught.value)


def test_a_picture_of_another_size_than_its_boxes_is_skipped(tmp_path: Path) -> None:
    twenty(tmp_path)
    save(tmp_path / "train/003.png", (WIDTH * 2, HEIGHT))
    data = open_folder("detect", tmp_path, "train")
    assert found(data) == [name for name in names(20) if name != "003.png"]
    (told,) = data.skipped
    assert "003.png is 16x6 (upright), its boxes are for 8x6" in told


def test_masks_are_of_the_upright_picture(tmp_path: Path) -> None:
    x1, y1, x2, y2 = turned_picture(tmp_path / "train/images/000.png")
    write_masks(tmp_path / "val", names(1))
    mask = np.zeros((16, 8), dtype=np.uint8)
    mask[y1:y2, x1:x2] = 1
    file = tmp_path / "train/masks/000.png"
    file.parent.mkdir()
    Image.fromarray(mask).save(file)
    sample = open_folder("segment", tmp_path, "train")[0]
    assert np.array_equal(sample.mask == 1, sample.image[..., 0] == 255)

    Image.fromarray(np.ascontiguousarray(mask.T)).save(file)
    assert "is 16x8, its picture 8x16 (upright)" in refused("segment", tmp_path, names=file)


# -- folders: nothing there ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASK_NAMES)
def test_nothing_there(task: Task, tmp_path: Path) -> None:
    assert "no such file or directory" in refused(task, tmp_path / "absent")
    long = tmp_path / ("x" * 300)
    with pytest.raises(DataError, match=r"no such file|too long") as caught:
        open_folder(task, long, "train")
    assert_one_line(caught.value)
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(task, empty)
    (empty / "train").mkdir()
    refused(task, empty)
    refused(task, empty, subset="validation")
    picture = save(tmp_path / "picture.png")
    refused(task, picture)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_folder_without_pictures(task: Task, tmp_path: Path) -> None:
    WRITERS[task](tmp_path / "train", names(4))
    WRITERS[task](tmp_path / "val", [])
    for folder in ("images", "masks"):
        (tmp_path / "val" / folder).mkdir(parents=True, exist_ok=True)
    if task == "classify":
        (tmp_path / "val/images").rmdir()
        (tmp_path / "val/masks").rmdir()
    assert "no pictures for validation" in refused(task, tmp_path, subset="validation")


@pytest.fixture
def odd_name(tmp_path: Path) -> Path:
    """A picture whose name is not UTF-8, as older systems and archives leave them."""
    file = tmp_path / "ant" / os.fsdecode(b"caf\xe9.png")
    file.parent.mkdir()
    try:
        Image.new("RGB", (WIDTH, HEIGHT)).save(file)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    return file


def test_names_that_are_not_utf_8(odd_name: Path, tmp_path: Path) -> None:
    write_classes(tmp_path, names(40))
    subsets = [open_folder("classify", tmp_path, subset) for subset in ("train", "validation")]
    assert sum(item.file == odd_name for data in subsets for item in data.items) == 1
    assert sum(len(data) for data in subsets) == 41
