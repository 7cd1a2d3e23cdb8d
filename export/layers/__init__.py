"""An artifact's intermediate tensors, held layer by layer against the module that each layer was made from.

:func:`look_inside` says which layer of an artifact computes something else than its module does. The tensors are read
by :class:`~xformer_export.layers.onnx_file.OnnxLayers`, :class:`~xformer_export.layers.tflite_file.TFLiteLayers` and
:class:`~xformer_export.layers.mlpackage_dir.CoreMLLayers`, and compared by :mod:`xformer_export.layers.compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from xformer_export.channels_last import to_channels_last
from xformer_export.layers.compare import LIMITS, LayerReport, LayerRow, Limits, compare_layers
from xformer_export.layers.mlpackage_dir import CoreMLLayers
from xformer_export.layers.onnx_file import OnnxLayers
from xformer_export.layers.operators import ArtifactLayers
from xformer_export.layers.tflite_file import TFLiteLayers
from xformer_export.prepare import Prepared
from xformer_export.token_rows import to_token_rows
from xformer_mobile.errors import UnavailableError
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.spec import lookup

__all__ = ["LIMITS", "LayerReport", "LayerRow", "Limits", "look_inside"]

Opened = tuple[nn.Module, ArtifactLayers]


def _open_onnx(prepared: Prepared, path: Path) -> Opened:
    return to_token_rows(prepared.mobile), OnnxLayers(path)


def _open_coreml(prepared: Prepared, path: Path) -> Opened:
    return prepared.mobile, CoreMLLayers(path, prepared.mobile)


def _open_tflite(prepared: Prepared, path: Path) -> Opened:
    form = to_channels_last(prepared.mobile)
    return form, TFLiteLayers(path, form)


def _no_ort(prepared: Prepared, path: Path) -> Opened:
    raise UnavailableError("a .ort file is model.onnx fused for ONNX Runtime, which gives no tensor but its outputs")


def _no_executorch(prepared: Prepared, path: Path) -> Opened:
    raise UnavailableError(
        "XNNPACK's part of a .pte file is one call, whose inner tensors ExecuTorch's event tracer does not record"
    )


OPENERS: dict[str, Callable[[Prepared, Path], Opened]] = {
    "onnx": _open_onnx,
    "ort": _no_ort,
    "coreml": _open_coreml,
    "tflite": _open_tflite,
    "executorch": _no_executorch,
}
"""By format: returns the form that its converter starts from, and the file's layers."""


def look_inside(
    prepared: Prepared,
    format: str,
    path: Path,
    *,
    precision: str,
    pictures: Sequence[ByteImage],
) -> LayerReport:
    """Compare every layer of a written artifact with the module that it was made from.

    Args:
        prepared: the model that was exported, with its weights.
        format: the artifact's, a key of :data:`~xformer_mobile.artifact.FORMATS`.
        path: the artifact.
        precision: the artifact's; its limits are :data:`~xformer_export.layers.compare.LIMITS`.
        pictures: RGB bytes, uint8 (1, H, W, 3) of the model's size.

    Raises:
        UsageError: an unknown format or precision.
        UnavailableError: the format's layers can't be read; the message says why.
        BundleError: the file can't be read or run.
        MissingDependencyError: what reads the file is not installed.
    """
    form, layers = lookup("format", format, OPENERS)(prepared, path)
    return compare_layers(form, layers, precision, pictures)
