"""ONNX Runtime's .ort files: as it writes them they differ from run to run; the canonical form does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.conftest import MakeBundle
from xformer_export.ort_format import canonical
from xformer_mobile.bench.counts import count_artifact
from xformer_mobile.errors import BundleError
from xformer_mobile.patterns import golden_picture
from xformer_mobile.runners.onnx_runtime import OnnxRuntimeRunner
from xformer_mobile.spec import ImageSize

SIZE = ImageSize(64, 64)
SHAPES = {"logits": (1, 1000)}

SAVE = """
import sys
import onnxruntime
options = onnxruntime.SessionOptions()
options.optimized_model_filepath = sys.argv[2]
options.add_session_config_entry("session.save_model_format", "ORT")
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""

RUNS = 4


@pytest.fixture(scope="module")
def saved(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The same model as several processes of ONNX Runtime save it."""
    folder = tmp_path_factory.mktemp("ort")
    model = make_bundle("classify") / "model.onnx"
    for index in range(RUNS):
        subprocess.run([sys.executable, "-c", SAVE, str(model), str(folder / f"{index}.ort")], check=True)
    return [(folder / f"{index}.ort").read_bytes() for index in range(RUNS)]


def test_onnx_runtime_writes_what_differs(saved: list[bytes]) -> None:
    """Were this to fail, the canonical form would not be needed any more."""
    assert len(set(saved)) > 1


def test_canonical_form_does_not_differ(saved: list[bytes]) -> None:
    assert len({canonical(content) for content in saved}) == 1


def test_it_is_the_same_model(saved: list[bytes], make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "saved.ort").write_bytes(saved[0])
    (tmp_path / "canonical.ort").write_bytes(canonical(saved[0]))
    files = [make_bundle("classify") / "model.onnx", tmp_path / "saved.ort", tmp_path / "canonical.ort"]
    outputs = []
    for file in files:
        with OnnxRuntimeRunner(file, SIZE, SHAPES, threads=1) as runner:
            outputs.append(runner.run(golden_picture(0, SIZE))["logits"])
    assert np.array_equal(outputs[1], outputs[2])
    assert np.abs(outputs[0] - outputs[2]).max() <= 1e-5 * np.ptp(outputs[0])


def test_its_graph_counts_as_the_onnx_files(saved: list[bytes], make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "model.ort").write_bytes(canonical(saved[0]))
    assert count_artifact("ort", tmp_path / "model.ort") == count_artifact(
        "onnx", make_bundle("classify") / "model.onnx"
    )


def test_metadata_is_kept(saved: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "model.ort").write_bytes(canonical(saved[0]))
    session = onnxruntime.InferenceSession(tmp_path / "model.ort", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["task"] == "classify"


def test_only_the_table_is_moved(saved: list[bytes]) -> None:
    """What was before stays, but for the table's place, which is overwritten, and the offset to it."""
    before, after = np.frombuffer(saved[0], np.uint8), np.frombuffer(canonical(saved[0]), np.uint8)
    changed = np.flatnonzero(before != after[: len(before)])
    assert 0 < len(changed) < 20_000 < len(before)
    assert not after[changed[4:]].any()
    assert 0 < len(after) - len(before) < 20_000


FOREIGN = {
    "empty": b"",
    "short": b"ORTM",
    "text": b"not a model at all, but long enough to be read as one",
    "another flatbuffer": b"\x10\x00\x00\x00TFL3" + bytes(64),
    "zeros after the identifier": b"\x08\x00\x00\x00ORTM" + bytes(64),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="ort file"):
        canonical(content)


def test_a_truncated_file_is_refused(saved: list[bytes]) -> None:
    for share in (0.001, 0.1, 0.9):
        with pytest.raises(ValueError, match="ort file"):
            canonical(saved[0][: int(share * len(saved[0]))])


def test_the_engine_refuses_a_truncated_file(saved: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "model.ort").write_bytes(canonical(saved[0])[:-1000])
    with pytest.raises(BundleError, match="ONNX Runtime refuses"):
        OnnxRuntimeRunner(tmp_path / "model.ort", SIZE, SHAPES).open()
