"""PyTorch on the CPU: the reference form, and the mobile form as a module."""

from __future__ import annotations

import torch

from xformer_mobile.mobile import MobileXFormer
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.reference import XFormer, normalize
from xformer_mobile.runners.base import Outputs, Runner

__all__ = ["TorchRunner"]


class TorchRunner(Runner):
    """Runs a model of either form, in float32 and eval mode."""

    engine = "torch"

    def __init__(self, model: XFormer | MobileXFormer) -> None:
        super().__init__(model.config.image_size, model.config.output_shapes())
        self.model = model

    def open(self) -> None:
        self.model.eval()

    def _infer(self, image: ByteImage) -> Outputs:
        batch = torch.from_numpy(image.copy())
        with torch.inference_mode():
            outputs = self.model(batch if isinstance(self.model, MobileXFormer) else normalize(batch))
        return {name: values.numpy() for name, values in zip(self.output_shapes, outputs, strict=True)}
