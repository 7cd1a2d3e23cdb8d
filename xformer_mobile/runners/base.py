"""The one contract for every engine: open, run a byte image, close."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xformer_mobile.errors import BundleError, ImageError
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.spec import ImageSize

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FileRunner", "Outputs", "Runner"]

Outputs = dict[str, npt.NDArray[np.float32]]


class Runner(abc.ABC):
    """Runs one model. Layout, dtype, scale and zero point of the engine stay inside.

    Use as a context manager: the model is loaded on entry and released on exit.

    Args:
        image_size: the input's size.
        output_shapes: each output's shape by name, in order.
    """

    engine: str
    """The engine's name, as in :data:`xformer_mobile.runners.ENGINES`."""

    flush_denormals = False
    """Whether the engine is told to take denormals for zero, where it can be told. It may change the arithmetic of the
    thread that opens it: for processes that do nothing else, such as a benchmark's. Set before opening."""

    unpack_weights = False
    """Whether the engine is told to unpack int8 weights when it loads the model, where it would else do so in each run:
    for models that compute in float. Set before opening."""

    def __init__(self, image_size: ImageSize, output_shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.image_size = image_size
        self.output_shapes = dict(output_shapes)

    @abc.abstractmethod
    def open(self) -> None:
        """Load the model. Raises BundleError where the engine refuses it."""

    @abc.abstractmethod
    def _infer(self, image: ByteImage) -> Outputs:
        """Run the model on a checked image."""

    def close(self) -> None:  # noqa: B027 (most engines have nothing to release)
        """Release the model; safe to call twice."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, image: ByteImage) -> Outputs:
        """Run the model on one byte image, (1, H, W, 3) uint8 RGB; returns float32 outputs by name.

        Raises:
            ImageError: an image of another shape or dtype.
            BundleError: the model's outputs are not those that it declares.
        """
        expected = (1, self.image_size.height, self.image_size.width, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ImageError(f"got {image.dtype} {image.shape}; {self.engine} takes uint8 {expected}")
        outputs = self._infer(image)
        found = {name: (values.shape, str(values.dtype)) for name, values in outputs.items()}
        declared = {name: (shape, "float32") for name, shape in self.output_shapes.items()}
        if found != declared:
            raise BundleError(f"{self.engine} returned {found}, the manifest declares {declared}")
        return outputs


class FileRunner(Runner):
    """Runs an artifact of a bundle.

    Args:
        path: the artifact, a file or a directory.
        image_size: the input's size.
        output_shapes: each output's shape by name, in order.
        threads: threads within an operator; None leaves the choice to the engine.
    """

    def __init__(
        self,
        path: Path,
        image_size: ImageSize,
        output_shapes: Mapping[str, tuple[int, ...]],
        threads: int | None = None,
    ) -> None:
        super().__init__(image_size, output_shapes)
        self.path = path
        self.threads = threads
