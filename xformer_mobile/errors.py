"""The exceptions of the project, all in one tree.

    XFormerError                    base; a command prints its message on one line and exits 1
    ├── UsageError                  the request itself is wrong; a command exits 2
    │   └── ImageSizeError          not a positive multiple of the network's stride
    ├── MissingDependencyError      an optional package is needed; the message says what to type
    ├── UnavailableError            known to the project, not built yet
    ├── CheckpointError             weights that are missing, truncated, foreign, hostile or not finite
    ├── DataError                   a data set that is empty, foreign or contradicts itself
    ├── TrainingError               training that can't go on: the loss is not finite, or another run's state
    ├── ImageError                  a picture that can't be read or used
    ├── BundleError                 a bundle, manifest or artifact that is broken or not ours
    ├── BenchmarkError              a measurement that failed, or a file of one that is broken or not ours
    ├── ConversionError             a converter failed, or its result leaves the allowed op set
    ├── OutputError                 the result can't be written
    │   └── BusyError               another process is writing to the same place
    └── ParityError                 an artifact does not agree with the reference model

Messages say what was got, what is valid, and what to do.
"""

from __future__ import annotations

__all__ = [
    "BenchmarkError",
    "BundleError",
    "BusyError",
    "CheckpointError",
    "ConversionError",
    "DataError",
    "ImageError",
    "ImageSizeError",
    "MissingDependencyError",
    "OutputError",
    "ParityError",
    "TrainingError",
    "UnavailableError",
    "UsageError",
    "XFormerError",
]


class XFormerError(Exception):
    """Base of every error that this project raises on purpose."""

    exit_code = 1


class UsageError(XFormerError):
    """The request is wrong in itself: an unknown name, a value out of range, options that contradict."""

    exit_code = 2


class ImageSizeError(UsageError):
    """An input size that the network can't take."""


class MissingDependencyError(XFormerError):
    """An optional dependency is not installed."""


class UnavailableError(XFormerError):
    """A format, recipe or engine that the project knows and has not built yet."""


class CheckpointError(XFormerError):
    """Weights that can't be used."""


class DataError(XFormerError):
    """A data set that can't be used."""


class TrainingError(XFormerError):
    """Training that can't go on."""


class ImageError(XFormerError):
    """A picture that can't be used."""


class BundleError(XFormerError):
    """A bundle that can't be used."""


class BenchmarkError(XFormerError):
    """A measurement that failed, or a file of one that can't be used."""


class ConversionError(XFormerError):
    """A converter failed, or made something that the target would not run natively."""


class OutputError(XFormerError):
    """The result can't be put where it should go."""


class BusyError(OutputError):
    """Another process is writing to the same place."""


class ParityError(XFormerError):
    """An artifact computes something other than the reference model."""
