"""What the project knows as data: tasks, variants, sizes, input rules. No torch, no back end.

Variants, tasks and constants are rows of tables; adding one touches one row.

Sources: XFormer, arXiv 2207.07268 (the network); YOLOv3, arXiv 1804.02767 (anchors, strides);
SegFormer, arXiv 2105.15203 (the all-MLP decoder).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from xformer_mobile.errors import ImageSizeError, UsageError

__all__ = [
    "DEFAULT_VARIANT",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "IMAGE_STRIDE",
    "TASKS",
    "VARIANTS",
    "YOLOV3_ANCHORS",
    "Anchors",
    "ImageSize",
    "ModelConfig",
    "ResizeRule",
    "Stage",
    "Task",
    "TaskSpec",
    "Variant",
    "check_labels",
    "default_labels",
    "lookup",
]

Task = Literal["classify", "detect", "segment"]
ResizeRule = Literal["resize_shorter_center_crop", "letterbox", "resize"]
Anchors = tuple[tuple[tuple[float, float], ...], ...]
"""Per detection scale (finest first), the anchors' (width, height) as fractions of the input's shorter side."""

T = TypeVar("T")

IMAGE_STRIDE = 64
"""Input sides are multiples of this: stride 32, and 2x2 patches on the coarsest map."""

MAX_SIDE = 4096
"""The largest input side in pixels; beyond it one image's activations do not fit a phone."""

MAX_CLASSES = 65_536
"""What the 16 bits of a class map can tell apart."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Per-channel mean and standard deviation of RGB in 0..1, as usual for models of this family."""

_YOLOV3_PIXELS_AT_416 = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)

YOLOV3_ANCHORS: Anchors = tuple(
    tuple((width / 416, height / 416) for width, height in scale) for scale in _YOLOV3_PIXELS_AT_416
)
"""YOLOv3's COCO anchors (arXiv 1804.02767, section 2.3, pixels at 416x416), for strides 8, 16 and 32."""


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return ``table[name]``; an unknown name is a :class:`UsageError` that lists the valid ones."""
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, table, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UsageError(f"unknown {kind} {name!r}{hint}; valid: {', '.join(table)}")


@dataclass(frozen=True, order=True)
class ImageSize:
    """Height and width in pixels of a network input, both multiples of :data:`IMAGE_STRIDE`."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if all(0 < side <= MAX_SIDE and side % IMAGE_STRIDE == 0 for side in (self.height, self.width)):
            return
        nearest = " or ".join(dict.fromkeys(f"{h}x{w}" for h, w in self._nearest()))
        raise ImageSizeError(
            f"image size {self.height}x{self.width} is not valid: both sides must be multiples of "
            f"{IMAGE_STRIDE}, from {IMAGE_STRIDE} to {MAX_SIDE}; nearest valid: {nearest}"
        )

    def _nearest(self) -> list[tuple[int, int]]:
        def clamp(side: int) -> int:
            return min(max(side, IMAGE_STRIDE), MAX_SIDE)

        def below(side: int) -> int:
            return clamp(side // IMAGE_STRIDE * IMAGE_STRIDE)

        def above(side: int) -> int:
            return clamp(-(-side // IMAGE_STRIDE) * IMAGE_STRIDE)

        return [(below(self.height), below(self.width)), (above(self.height), above(self.width))]

    @classmethod
    def parse(cls, text: str) -> ImageSize:
        """Read ``"256"`` or ``"512x1024"`` (height x width)."""
        match = re.fullmatch(r"(\d{1,9})(?:[xX](\d{1,9}))?", text.strip(), re.ASCII)
        if match is None:
            raise ImageSizeError(f"image size {text!r} is not valid; write N or HEIGHTxWIDTH, such as 256 or 512x1024")
        height = int(match[1])
        return cls(height, int(match[2]) if match[2] else height)

    def at_stride(self, stride: int) -> tuple[int, int]:
        """The (height, width) of a feature map of that stride."""
        return self.height // stride, self.width // stride

    @property
    def shorter(self) -> int:
        """The shorter side in pixels."""
        return min(self.height, self.width)

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Stage:
    """One XF stage: an MV3 block of stride 2 to ``channels``, then ``blocks`` XF blocks of width ``dim``."""

    channels: int
    dim: int
    blocks: int
    mlp_ratio: int


@dataclass(frozen=True)
class Variant:
    """A row of widths: one size of the network.

    ``stem``, ``stage1`` and ``stage2`` are channels at strides 2, 2 and 4; ``stages`` the XF stages at
    strides 8, 16 and 32; ``attention_dim`` is the width D of Q, K and V over all ``heads``.
    """

    name: str
    stem: int
    stage1: int
    stage2: int
    stages: tuple[Stage, Stage, Stage]
    head: int
    neck: int
    decoder: int
    attention_dim: int = 96
    heads: int = 4
    expand_ratio: int = 4

    @property
    def feature_channels(self) -> tuple[int, int, int, int]:
        """Channels of the features at strides 4, 8, 16 and 32."""
        first, second, third = (stage.channels for stage in self.stages)
        return self.stage2, first, second, third


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            "xformer_s",
            stem=16,
            stage1=32,
            stage2=64,
            stages=(Stage(96, 144, 2, 2), Stage(128, 192, 4, 2), Stage(160, 240, 3, 3)),
            head=640,
            neck=96,
            decoder=256,
        ),
        Variant(
            "xformer_xs",
            stem=16,
            stage1=24,
            stage2=48,
            stages=(Stage(64, 96, 2, 2), Stage(80, 120, 4, 2), Stage(96, 144, 3, 3)),
            head=384,
            neck=64,
            decoder=128,
            attention_dim=64,
        ),
        Variant(
            "xformer_xxs",
            stem=8,
            stage1=16,
            stage2=24,
            stages=(Stage(32, 48, 2, 2), Stage(48, 64, 4, 2), Stage(64, 80, 3, 3)),
            head=256,
            neck=32,
            decoder=64,
            attention_dim=32,
        ),
    )
}
"""``xformer_s`` is the network of the article; the smaller ones are this project's, for tests and tiny phones."""

DEFAULT_VARIANT = "xformer_s"


@dataclass(frozen=True)
class TaskSpec:
    """What a task fixes: its defaults, the rule that fits a picture to the input, its outputs.

    ``outputs`` maps each output's name to its stride (``None`` for one without a spatial grid).
    """

    name: Task
    num_classes: int
    image_size: ImageSize
    resize_rule: ResizeRule
    outputs: Mapping[str, int | None]
    meaning: str


TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(
            "classify",
            1000,
            ImageSize(256, 256),
            "resize_shorter_center_crop",
            {"logits": None},
            "class logits, before softmax: (1, classes)",
        ),
        TaskSpec(
            "detect",
            80,
            ImageSize(320, 320),
            "letterbox",
            {"stride8": 8, "stride16": 16, "stride32": 32},
            "YOLOv3 logits (tx, ty, tw, th, objectness, classes) for each anchor: (1, anchors*(5+classes), H, W)",
        ),
        TaskSpec(
            "segment",
            19,
            ImageSize(512, 512),
            "resize",
            {"logits": 4},
            "class logits at stride 4, before argmax: (1, classes, H/4, W/4)",
        ),
    )
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a model's parameters and shapes.

    ``anchors`` matter to the detector only. Labels name the classes, in order of their index.
    """

    task: Task
    variant: Variant
    image_size: ImageSize
    labels: tuple[str, ...]
    anchors: Anchors = YOLOV3_ANCHORS

    @property
    def num_classes(self) -> int:
        return len(self.labels)

    @classmethod
    def create(
        cls,
        task: str = "classify",
        variant: str = DEFAULT_VARIANT,
        *,
        image_size: ImageSize | None = None,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        anchors: Anchors = YOLOV3_ANCHORS,
    ) -> ModelConfig:
        """Look the names up and fill the task's defaults in; a wrong name or number is a :class:`UsageError`."""
        spec = lookup("task", task, TASKS)
        if labels is None:
            labels = default_labels(spec.num_classes if num_classes is None else num_classes)
        elif num_classes is not None and len(labels) != num_classes:
            raise UsageError(f"{len(labels)} labels for a model of {num_classes} classes; give one label a class")
        return cls(
            task=spec.name,
            variant=lookup("variant", variant, VARIANTS),
            image_size=image_size or spec.image_size,
            labels=check_labels(labels),
            anchors=anchors,
        )

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Each output's shape for a batch of one, in the order in which the model returns them."""
        shapes: dict[str, tuple[int, ...]] = {}
        for scale, (name, stride) in enumerate(TASKS[self.task].outputs.items()):
            channels = len(self.anchors[scale]) * (5 + self.num_classes) if self.task == "detect" else self.num_classes
            grid = self.image_size.at_stride(stride) if stride else ()
            shapes[name] = (1, channels, *grid)
        return shapes


def default_labels(num_classes: int) -> tuple[str, ...]:
    """``class 0``, ``class 1``, ... where nobody has named the classes."""
    if not 1 <= num_classes <= MAX_CLASSES:
        raise UsageError(f"number of classes {num_classes} is not valid; valid: 1 to {MAX_CLASSES}")
    return tuple(f"class {index}" for index in range(num_classes))


def check_labels(labels: Iterable[Any]) -> tuple[str, ...]:
    """Return the labels as a tuple; :class:`UsageError` where one is empty or not a line of text.

    The same label may stand twice: ImageNet's own list has two "crane".
    """
    checked = tuple(labels)
    for index, label in enumerate(checked):
        if not isinstance(label, str) or not label.strip() or not label.isprintable():
            raise UsageError(f"label {index} is {label!r}; a label is one line of printable text")
    if not 1 <= len(checked) <= MAX_CLASSES:
        raise UsageError(f"{len(checked)} labels are not valid; valid: 1 to {MAX_CLASSES}")
    return checked
