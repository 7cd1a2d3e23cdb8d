"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from xformer_export import ExportRequest, build_bundle
from xformer_mobile.cli.common import run_command
from xformer_mobile.spec import ImageSize

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests import onnxruntime by themselves too

MakeBundle = Callable[[str], Path]
Call = Callable[..., tuple[int, str, str]]


def macs_by_torch(module: torch.nn.Module, size: ImageSize) -> int:
    """Multiply-accumulates of a form of the model for one byte image, by PyTorch's own counter."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, size.height, size.width, 3, dtype=torch.uint8))
    return int(counter.get_total_flops()) // 2


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Returns the path of a real bundle of a task: the smallest variant at 64x64, in ONNX, untrained.

    It is exported once per session, when it is first asked for. Don't change it: copy it.
    """
    made: dict[str, Path] = {}

    def make(task: str) -> Path:
        if task not in made:
            made[task] = tmp_path_factory.mktemp("bundles") / task
            build_bundle(
                ExportRequest(
                    formats=("onnx",),
                    variant="xformer_xxs",
                    task=task,
                    image_size=ImageSize(64, 64),
                    output=made[task],
                )
            )
        return made[task]

    return make


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Call a command in this process; returns exit status, stdout and stderr."""

    def run(command: str, *arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_command(command, [str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, out, err

    return run
