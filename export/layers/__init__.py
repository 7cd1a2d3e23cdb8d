"""An artifact's intermediate tensors, held layer by layer against the module that each layer was made from.

:func:`look_inside` says which layer of an artifact computes something else than its module does. The tensors are read
by :class:`~xformer_export.layers.onnx_file.OnnxLayers`, :class:`~xformer_export.layers.tflite_file.TFLiteLayers` and
:class:`~xformer_export.layers.mlpackage_dir.CoreMLLayers`, and compared by :mod:`xformer_export.layers.compare`.
Of a .pte file only the constants can be read: :mod:`xformer_export.layers.pte_file` compares them, and runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from xformer_export.channels_last import to_channels_last, to_patch_form
from xformer_export.layers.compare import LIMITS, LayerReport, LayerRow, Limits, compare_layers
from xformer_export.layers.mlpackage_dir import CoreMLLayers
from xformer_export.layers.onnx_file import OnnxLayers
from xformer_export.layers.operators import ArtifactLayers
from xformer_export.layers.pte_file import compare_weights
from xformer_export.layers.tflite_file import TFLiteLayers
from xformer_export.prepare import Prepared
from xformer_export.to_onnx import form_for
from xformer_mobile.errors import UnavailableError
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.spec import lookup

__all__ = ["LIMITS", "LayerReport", "LayerRow", "Limits", "look_inside"]

Opened = tuple[nn.Module, ArtifactLayers]

Compare = Callable[[Prepared, Path, str, Sequence[ByteImage]], LayerReport]


def _open_onnx(prepared: Prepared, path: Path, precision: str) -> Opened:
    return form_for(prepared.mobile, precision), OnnxLayers(path)


def _open_coreml(prepared: Prepared, path: Path, precision: str) -> Opened:
    return prepared.mobile, CoreMLLayers(path, prepared.mobile)


def _open_tflite(prepared: Prepared, path: Path, precision: str) -> Opened:
    form = to_channels_last(prepared.mobile)
    return form, TFLiteLayers(path, form)


def _no_ort(prepared: Prepared, path: Path, precision: str) -> Opened:
    raise UnavailableError("a .ort file is model.onnx fused for ONNX Runtime, which gives no tensor but its outputs")


def _compares_tensors(open: Callable[[Prepared, Path, str], Opened]) -> Compare:
    """Compares what a file computes; ``open`` returns the form that its converter starts from, and its layers."""

    def compare(prepared: Prepared, path: Path, precision: str, pictures: Sequence[ByteImage]) -> LayerReport:
        form, layers = open(prepared, path, precision)
        return compare_layers(form, layers, precision, pictures)

    return compare


def _compare_executorch(prepared: Prepared, path: Path, precision: str, pictures: Sequence[ByteImage]) -> LayerReport:
    """Compares constants, and runs nothing on the pictures."""
    is_quantized = precision in ("int8", "int8-weights")
    return compare_weights(to_patch_form(prepared.mobile) if is_quantized else prepared.mobile, path, precision)


COMPARISONS: dict[str, Compare] = {
    "onnx": _compares_tensors(_open_onnx),
    "ort": _compares_tensors(_no_ort),
    "coreml": _compares_tensors(_open_coreml),
    "tflite": _compares_tensors(_open_tflite),
    "executorch": _compare_executorch,
}
"""By format."""


def look_inside(
    prepared: Prepared,
    format: str,
    path: Path,
    *,
    precision: str,
    pictures: Sequence[ByteImage],
) -> LayerReport:
    """Compare every layer of a written artifact with the module that it was made from.

    Of ExecuTorch's only the constants of convolutions are compared, and nothing is run: wrong ops, paddings and zero
    points inside the delegate are not seen. Such a report is of no pictures, and its limits are
    :data:`~xformer_export.layers.pte_file.WEIGHT_LIMITS`.

    Args:
        prepared: the model that was exported, with its weights.
        format: the artifact's, a key of :data:`~xformer_mobile.artifact.FORMATS`.
        path: the artifact.
        precision: the artifact's; but for ExecuTorch its limits are :data:`~xformer_export.layers.compare.LIMITS`.
        pictures: RGB bytes, uint8 (1, H, W, 3) of the model's size.

    Raises:
        UsageError: an unknown format or precision.
        UnavailableError: the format's layers can't be read; the message says why.
        BundleError: the file can't be read or run.
        MissingDependencyError: what reads the file is not installed.
    """
    return lookup("format", format, COMPARISONS)(prepared, path, precision, pictures)
