"""What artifacts say of themselves against the manifest: what agrees, and the sentence for each thing that does not.

The ONNX files are the exporter's. The others are made here by hand, of the words that the converters write and without
a network, which nothing reads; the converters' own tests read their metadata back.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.conftest import MakeBundle
from xformer_export import tflite_metadata
from xformer_export.own_metadata import FORMATS, NO_METADATA, OwnMetadata, check_own_metadata
from xformer_export.prepare import Prepared, metadata_of, prepare
from xformer_export.to_coreml import LABEL_OUTPUT, PROBABILITIES_OUTPUT, distinct_labels
from xformer_mobile.artifact import FORMATS as FILES
from xformer_mobile.artifact import INPUT_NAME, Artifact, Bundle
from xformer_mobile.errors import BundleError
from xformer_mobile.optional import import_coremltools
from xformer_mobile.spec import ImageSize

SIZE = ImageSize(64, 64)

TASKS = ("classify", "segment")

Change = Callable[[Any], Any]
Entries = dict[str, str]

OURS = ["task", "variant", "labels", "input description", "checkpoint sha256"]
TENSORS = ["inputs", "outputs"]
TFLITE_WORDS = [f"{what} in TFLite's metadata" for what in ("model name", "task", "tensor names")]


def same(value: Any) -> Any:
    """No change."""
    return value


def turned(labels: list[str]) -> list[str]:
    """The first two labels exchanged."""
    return [labels[1], labels[0], *labels[2:]]


@dataclasses.dataclass(frozen=True)
class Words:
    """What a file is made to say: changes of the converters' words."""

    entries: Change = same
    labels: Change = same
    platform: Change = same


def write_onnx(source: Path, prepared: Prepared, words: Words, path: Path) -> None:
    model = onnx.load(source)
    model.ClearField("metadata_props")
    onnx.helper.set_model_props(model, words.entries(metadata_of(prepared)))
    onnx.save(model, path)


def write_ort(source: Path, prepared: Prepared, words: Words, path: Path) -> None:
    plain = path.with_suffix(".source.onnx")
    write_onnx(source, prepared, words, plain)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])


def write_core_ml(source: Path, prepared: Prepared, words: Words, path: Path) -> None:
    proto = import_coremltools().proto
    config, spec = prepared.config, proto.Model_pb2.Model()
    image = spec.description.input.add(name=INPUT_NAME).type.imageType
    image.height, image.width = config.image_size.height, config.image_size.width
    image.colorSpace = image.RGB
    block = spec.mlProgram.functions["main"].block_specializations["CoreML6"]
    spec.mlProgram.functions["main"].opset = "CoreML6"
    if config.task == "classify":
        spec.description.output.add(name=LABEL_OUTPUT).type.stringType.SetInParent()
        dictionary = spec.description.output.add(name=PROBABILITIES_OUTPUT).type.dictionaryType
        dictionary.stringKeyType.SetInParent()
        classes = block.operations.add(type="classify").inputs["classes"].arguments.add().value.immediateValue.list
        for label in words.labels(list(distinct_labels(config.labels))):
            classes.values.add().immediateValue.tensor.strings.values.append(label)
    for name, shape in config.output_shapes().items():
        array = spec.description.output.add(name=name).type.multiArrayType
        array.shape.extend(shape)
        array.dataType = array.FLOAT32
    spec.description.metadata.userDefined.update(words.entries(metadata_of(prepared)))
    folder = path / "Data/com.apple.CoreML"
    folder.mkdir(parents=True)
    (folder / "model.mlmodel").write_bytes(spec.SerializeToString())
    item = {"path": "com.apple.CoreML/model.mlmodel"}
    manifest = {"rootModelIdentifier": "model", "itemInfoEntries": {"model": item}}
    (path / "Manifest.json").write_text(json.dumps(manifest))


def write_tflite(source: Path, prepared: Prepared, words: Words, path: Path) -> None:
    config = prepared.config
    description = tflite_metadata.describe(prepared)
    types = schema.TensorType
    tensors = [(INPUT_NAME, types.UINT8, (1, config.image_size.height, config.image_size.width, 3))]
    tensors += [(name, types.FLOAT32, shape) for name, shape in config.output_shapes().items()]
    graph = schema.SubGraphT(
        tensors=[
            schema.TensorT(name=name, type=kind, shape=np.array(shape, np.int32), buffer=0)
            for name, kind, shape in tensors
        ],
        inputs=[0],
        outputs=list(range(1, len(tensors))),
        operators=[],
    )
    entries = words.entries(metadata_of(prepared))
    buffers = {
        tflite_metadata.METADATA_NAME: words.platform(description.packed),
        tflite_metadata.OWN_METADATA_NAME: json.dumps(entries).encode() if entries else None,
    }
    present = {name: data for name, data in buffers.items() if data is not None}
    model = schema.ModelT(
        version=3,
        subgraphs=[graph],
        operatorCodes=[],
        buffers=[schema.BufferT(), *(schema.BufferT(data=list(data)) for data in present.values())],
        metadata=[schema.MetadataT(name=name, buffer=place) for place, name in enumerate(present, 1)],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    labels = words.labels(list(config.labels))
    files = {tflite_metadata.LABELS_FILE: "\n".join(labels).encode()} if labels else {}
    path.write_bytes(
        tflite_metadata.attach_files(bytes(builder.Output()), dataclasses.replace(description, files=files))
    )


WRITERS = {"onnx": write_onnx, "ort": write_ort, "coreml": write_core_ml, "tflite": write_tflite}

MakeArtifact = Callable[..., Artifact]


@pytest.fixture(scope="module")
def prepared() -> dict[str, Prepared]:
    return {task: prepare(None, task=task, variant="xformer_xxs", image_size=SIZE) for task in TASKS}


@pytest.fixture
def make_artifact(make_bundle: MakeBundle, prepared: dict[str, Prepared], tmp_path: Path) -> MakeArtifact:
    """Returns an artifact of a format and task that says what it is told to."""

    def make(format: str, task: str = "classify", words: Words | None = None) -> Artifact:
        path = tmp_path / FILES[format]
        WRITERS[format](make_bundle(task) / FILES["onnx"], prepared[task], words or Words(), path)
        return Artifact(format, path, "0" * 64, 1, {}, {})

    return make


def check(bundle: Path, artifact: Artifact, change: Callable[[dict[str, Any]], None] | None = None) -> OwnMetadata:
    """Hold an artifact to a bundle's manifest after a change of it."""
    opened = Bundle.open(bundle)
    manifest = copy.deepcopy(dict(opened.manifest))
    if change is not None:
        change(manifest)
    return check_own_metadata(Bundle(bundle, manifest), artifact)


# ---- what agrees -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("format", "more"),
    [
        ("onnx", []),
        ("ort", []),
        ("coreml", ["labels in the classifier"]),
        ("tflite", ["labels in labels.txt", *TFLITE_WORDS]),
    ],
)
def test_the_converters_words_agree(
    format: str, more: list[str], task: str, make_artifact: MakeArtifact, make_bundle: MakeBundle
) -> None:
    found = check(make_bundle(task), make_artifact(format, task))
    if (format, task) == ("coreml", "segment"):
        more = []
    assert found.as_json() == {"passed": True, "misses": [], "checked": [*OURS, *more, *TENSORS], "reason": None}
    assert found


@pytest.mark.parametrize("task", TASKS)
def test_an_exported_file_agrees(task: str, make_bundle: MakeBundle) -> None:
    bundle = Bundle.open(make_bundle(task))
    found = check_own_metadata(bundle, bundle.artifact("onnx"))
    assert found.misses() == []
    assert found.checked == (*OURS, *TENSORS)


def test_every_format_is_read_or_has_a_reason() -> None:
    assert FORMATS.keys() | NO_METADATA.keys() == FILES.keys()


# ---- a manifest that says something else --------------------------------------------------------------------


def _set(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to(place[keys[-1]]) if callable(to) else to

    return change


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "labels turned": (
        _set("model", "labels", to=turned),
        "the labels in the metadata are in another order than the manifest's: 2 of 1000 differ, label 0 is 'class 0' "
        "instead of 'class 1'",
    ),
    "another label": (
        _set("model", "labels", to=lambda labels: [*labels[:-1], "heron"]),
        "the labels in the metadata are not the manifest's: 1 of 1000 differ, label 999 is 'class 999' instead of "
        "'heron'",
    ),
    "fewer labels": (
        _set("model", "labels", to=lambda labels: labels[:-1]),
        "there are 1000 labels in the metadata; the manifest has 999",
    ),
    "another task": (
        _set("model", "task", to="detect"),
        "its metadata has the task 'classify', the manifest has 'detect'",
    ),
    "another variant": (
        _set("model", "variant", to="xformer_s"),
        "its metadata has the variant 'xformer_xxs', the manifest has 'xformer_s'",
    ),
    "another checkpoint": (
        _set("model", "weights", "sha256", to="f" * 64),
        "its metadata names another checkpoint: sha256 ebb4751acc42..., the manifest's weights have ffffffffffff...",
    ),
    "other weights of it": (
        _set("model", "weights", "part", to="averaged"),
        'its metadata has the weights\' part null, the manifest has "averaged"',
    ),
    "another mean": (
        _set("input", "normalization", "mean", to=[0.5, 0.5, 0.5]),
        "its metadata has the input's normalization ",
    ),
    "another resize rule": (
        _set("input", "resize", "rule", to="letterbox"),
        "its metadata has the input's resize ",
    ),
    "another output": (
        _set("outputs", 0, "name", to="scores"),
        r"its outputs are named [\w, ]*logits; the manifest's are [\w, ]*scores",
    ),
    "another shape": (
        _set("outputs", 0, "shape", to=[1, 10]),
        r"its output logits is float32 \(1, 1000\), the manifest's is float32 \(1, 10\)",
    ),
    "another size": (
        _set("input", "shape", to=[1, 128, 64, 3]),
        r"its input image is (uint8 \(1, 64, 64, 3\)|RGB image 64 x 64), the manifest's is .*128",
    ),
}


@pytest.mark.parametrize("change", MANIFESTS)
@pytest.mark.parametrize("format", WRITERS)
def test_a_manifest_of_another_model(
    format: str, change: str, make_artifact: MakeArtifact, make_bundle: MakeBundle
) -> None:
    edit, sentence = MANIFESTS[change]
    found = check(make_bundle("classify"), make_artifact(format), edit)
    assert not found
    assert not found.passed
    assert [miss for miss in found.misses() if re.match(sentence, miss)], found.misses()


# ---- a file that says something else ------------------------------------------------------------------------


def _entry(name: str, to: Any) -> Change:
    return lambda entries: {**entries, name: to(entries[name]) if callable(to) else to}


def _turned_json(text: str) -> str:
    return json.dumps(turned(json.loads(text)))


TURNED = "are in another order than the manifest's: 2 of 1000 differ, label 0 is 'class 1' instead of 'class 0'"

FILES_OF_ALL: dict[str, tuple[Words, list[str]]] = {
    "labels turned": (Words(_entry("labels", _turned_json)), [f"the labels in the metadata {TURNED}"]),
    "another task": (
        Words(_entry("task", "detect")),
        ["its metadata has the task 'detect', the manifest has 'classify'"],
    ),
    "no labels": (
        Words(lambda entries: {name: text for name, text in entries.items() if name != "labels"}),
        ["its metadata has no labels"],
    ),
    "labels that are no JSON": (
        Words(_entry("labels", "crane, dog")),
        ["its metadata has labels that can't be read: 'crane, dog'"],
    ),
    "weights that are no object": (
        Words(_entry("weights", "[]")),
        ["its metadata has weights that can't be read: '[]'"],
    ),
    "nothing": (Words(lambda entries: {}), ["it has no metadata of its own: no task, labels or checkpoint"]),
}

FILES_OF_ONE: dict[str, tuple[str, Words, list[str]]] = {
    "classes turned": ("coreml", Words(labels=turned), [f"the labels in the classifier {TURNED}"]),
    "no classes": (
        "coreml",
        Words(labels=lambda labels: []),
        ["there are no labels in the classifier; the manifest has 1000"],
    ),
    "lines turned": ("tflite", Words(labels=turned), [f"the labels in labels.txt {TURNED}"]),
    "no labels.txt": (
        "tflite",
        Words(labels=lambda labels: []),
        ["there are no labels in labels.txt; the manifest has 1000"],
    ),
    "another model name": (
        "tflite",
        Words(platform=lambda packed: packed.replace(b"xformer_xxs", b"xformer_xss")),
        [f"its metadata has the {TFLITE_WORDS[0]} 'xformer_xss', the manifest has 'xformer_xxs'"],
    ),
    "no TFLite metadata": (
        "tflite",
        Words(platform=lambda packed: None),
        [
            f"its metadata has no {what}; the manifest's is {words!r}"
            for what, words in zip(TFLITE_WORDS, ("xformer_xxs", "classify", "image, logits"), strict=True)
        ],
    ),
}


@pytest.mark.parametrize(
    ("format", "words", "misses"),
    [
        *(
            pytest.param(format, *case, id=f"{format}-{name}")
            for name, case in FILES_OF_ALL.items()
            for format in WRITERS
        ),
        *(pytest.param(*case, id=name) for name, case in FILES_OF_ONE.items()),
    ],
)
def test_a_file_of_another_model(
    format: str, words: Words, misses: list[str], make_artifact: MakeArtifact, make_bundle: MakeBundle
) -> None:
    assert check(make_bundle("classify"), make_artifact(format, words=words)).misses() == misses


# ---- what can't be read ------------------------------------------------------------------------------------


def test_a_pte_file_has_a_reason(make_bundle: MakeBundle, tmp_path: Path) -> None:
    found = check(make_bundle("classify"), Artifact("executorch", tmp_path / "model.pte", "0" * 64, 1, {}, {}))
    assert found
    assert found.as_json() == {"passed": True, "misses": [], "checked": [], "reason": "a .pte file has no metadata"}


@pytest.mark.parametrize(
    ("format", "package", "extra"),
    [("onnx", "onnx", "onnx"), ("ort", "onnxruntime", "run"), ("tflite", "ai_edge_litert", "tflite")],
)
def test_a_missing_package_is_a_reason(
    format: str,
    package: str,
    extra: str,
    make_artifact: MakeArtifact,
    make_bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact = make_artifact(format)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    found = check(make_bundle("classify"), artifact)
    assert found.passed
    assert found.checked == ()
    assert re.fullmatch(rf"{package}\S* is not installed; type: pip install '.*\[{extra}\]'", found.reason or "")


def _text(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.write_bytes(b"This is not a model.\n" * 9)


def _zip_only(path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr("labels.txt", "crane")
    path.write_bytes(content.getvalue())


@pytest.mark.parametrize(
    ("format", "spoil"),
    [*((format, _text) for format in WRITERS), ("tflite", _zip_only), ("tflite", Path.unlink), ("onnx", Path.unlink)],
    ids=[*(f"{format}-text" for format in WRITERS), "tflite-zip", "tflite-missing", "onnx-missing"],
)
def test_a_broken_file_is_refused(
    format: str, spoil: Callable[[Path], None], make_artifact: MakeArtifact, make_bundle: MakeBundle
) -> None:
    artifact = make_artifact(format)
    spoil(artifact.path)
    with pytest.raises(BundleError, match="model"):
        check(make_bundle("classify"), artifact)


def test_torch_is_not_needed(make_bundle: MakeBundle) -> None:
    code = """
import sys
from pathlib import Path
sys.modules["torch"] = None
from xformer_export.own_metadata import check_own_metadata
from xformer_mobile.artifact import Bundle
bundle = Bundle.open(Path(sys.argv[1]))
print(check_own_metadata(bundle, bundle.artifact("onnx")).as_json()["reason"], end="")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(make_bundle("classify"))], capture_output=True, text=True, check=True
    )
    assert done.stdout == "None"
