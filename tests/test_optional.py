"""Optional dependencies: what is set before they are imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("before", "after"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")], ids=["unset", "set"])
def test_onnxruntime_is_told_to_send_nothing(before: dict[str, str], after: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | before
    code = """
import os
from xformer_mobile.optional import require
require("onnxruntime.capi", extra="run")
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == after
