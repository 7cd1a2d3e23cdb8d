"""How large the tensors of a form of the model become on real pictures: what fp16 has to hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from xformer_export.program import export_program, module_path
from xformer_mobile.preprocess import ByteImage

__all__ = ["TensorRanges", "measure_ranges"]


@dataclass(frozen=True)
class TensorRanges:
    """By a tensor's name in torch.export's graph: its largest magnitude, and the path of the module that makes it."""

    largest: dict[str, float]
    paths: dict[str, str]


def measure_ranges(form: nn.Module, pictures: Iterable[ByteImage]) -> TensorRanges:
    """Run ``form`` in float32, op by op, on byte images, uint8 (1, H, W, 3), and keep every tensor's largest magnitude.

    Raises:
        ConversionError: PyTorch can't trace the form.
    """
    images = [torch.from_numpy(picture.copy()) for picture in pictures]
    module = export_program(form, (images[0],), {}).module()
    assert isinstance(module, fx.GraphModule)
    recorder = _Recorder(module)
    with torch.no_grad():
        for image in images:
            recorder.run(image)
    nodes = [node for node in module.graph.nodes if node.name in recorder.largest]
    return TensorRanges(recorder.largest, {node.name: module_path(node) for node in nodes})


class _Recorder(fx.Interpreter):  # type: ignore[misc,unused-ignore]  # untyped in some versions
    """Runs a graph and keeps what its ops return."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.largest: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if n.op == "call_function" and isinstance(found, Tensor) and found.is_floating_point() and found.numel():
            largest = float(found.abs().max())
            self.largest[n.name] = max(largest, self.largest.get(n.name, 0.0))
        return found
