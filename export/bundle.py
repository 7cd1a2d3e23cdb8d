"""From a request to a bundle on disk: prepare, convert, verify what was written, put in place.

Everything happens in a staging directory beside the target. Until the last step the target is untouched.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from xformer_export.auto import DEFAULT_DROP, Judge, Plan, Search
from xformer_export.calibration import PICTURES, Calibration
from xformer_export.formats import CONVERTERS, Converter, default_quantization
from xformer_export.prepare import Options, Prepared, golden_cases, prepare
from xformer_export.recipes import AUTO, Recipe, find_recipe
from xformer_export.side_by_side import run_jobs
from xformer_mobile import __version__
from xformer_mobile.artifact import (
    FORMATS,
    MANIFEST,
    REPORT,
    SCHEMA_VERSION,
    Bundle,
    GoldenCase,
    describe_input,
    describe_outputs,
    describe_postprocess,
    manifest_bytes,
)
from xformer_mobile.bench.counts import read_certificate
from xformer_mobile.chatter import chatter_to, silenced
from xformer_mobile.data import Dataset
from xformer_mobile.errors import ConversionError, OutputError, ParityError
from xformer_mobile.files import exclusive_directory, output_errors, tree_sha256
from xformer_mobile.optional import require
from xformer_mobile.parity import Comparison, compare, run_all, tolerance_of
from xformer_mobile.postprocess import Postprocess
from xformer_mobile.runners import LooseArtifact, open_loose, open_runner_for_format
from xformer_mobile.spec import ImageSize
from xformer_mobile.zoo import count_macs, count_parameters, one_thread

__all__ = ["ExportRequest", "build_bundle", "bundle_name", "work_directory"]

Report = Callable[..., None]
"""Called with the name of a step, and where formats are converted side by side, with the name of the lane that it is
in; a lane ends with a step that has no name."""

SLOWEST_FIRST = ("executorch", "coreml", "tflite", "onnx", "ort")
"""The order in which formats are begun that are converted side by side, so that the longest is not alone at the end."""


@dataclass(frozen=True)
class ExportRequest:
    """What to export. What is None comes from the checkpoint, or from the task's defaults without one.

    ``output`` None names the bundle after its content, in the current directory. ``minimum_ios`` (None: the oldest
    that runs the recipe), ``backend`` and ``onnx_target`` are :class:`Options`. ``calibration`` is a folder of
    pictures, None the drawn scenes; ``pictures`` of them are used. For ``auto``, ``judged`` opens the labelled pictures
    that the metric is measured on, of which ``max_drop`` points may be lost. What the converters print goes to
    ``OUTPUT.work/FORMAT.log``, or to the terminal without ``keep_log``. ``processes`` formats are converted side by
    side, each in a process of its own if there are more than one; ``auto`` converts one after another.
    """

    formats: tuple[str, ...]
    checkpoint: Path | None = None
    task: str | None = None
    variant: str | None = None
    image_size: ImageSize | None = None
    labels: tuple[str, ...] | None = None
    quantize: str | None = None
    output: Path | None = None
    verify: bool = True
    minimum_ios: int | None = None
    backend: str = Options.backend
    onnx_target: str = Options.onnx_target
    calibration: Path | None = None
    pictures: int = PICTURES
    judged: Callable[[Postprocess], Dataset] | None = None
    max_drop: float = DEFAULT_DROP
    keep_log: bool = True
    processes: int = 1


@dataclass(frozen=True)
class Made:
    """What has been made of one format: its entry in the manifest, what was counted in its graph, and its parity."""

    entry: dict[str, Any]
    graph: dict[str, Any]
    parity: dict[str, Any] | None = None


def build_bundle(request: ExportRequest, report: Report = lambda step: None) -> Bundle:
    """Make a bundle and put it in place; returns it opened.

    ``report`` is called with the name of each step as it begins.

    Raises:
        XFormerError: whatever went wrong; then nothing was written, and an older bundle is as it was.
    """
    name = request.quantize or default_quantization(request.formats)
    recipe = find_recipe(name)
    if request.output is not None:
        _check_target(request.output)

    report("prepare the model")
    prepared = prepare(
        request.checkpoint,
        task=request.task,
        variant=request.variant,
        image_size=request.image_size,
        labels=request.labels,
    )
    target = request.output or Path(bundle_name(prepared, name if name == AUTO else recipe.precision))
    _check_target(target)
    calibration = None
    if recipe.calibrated:
        report("look through the calibration pictures")
        calibration = Calibration.of(prepared.config, request.calibration, request.pictures)

    # One thread: the same activations, and ranges, each time.
    with exclusive_directory(target) as staging, _work_directory(target), one_thread():
        report("run the reference model")
        golden = golden_cases(prepared.reference)
        if name == AUTO:
            assert calibration is not None
            _search(request, prepared, golden, calibration, target, staging, report)
        else:
            _write_bundle(request, prepared, golden, Plan(recipe), calibration, target, staging, report)
        report("put the bundle in place")
    return Bundle.open(target)


def _convert(
    report: Report,
    formats: Sequence[str],
    prepared: Prepared,
    options: Options,
    recipe: Recipe,
    target: Path,
    staging: Path,
    keep_log: bool,
    golden: list[GoldenCase] | None,
) -> dict[str, Made]:
    """Convert to these formats, one after another, and verify each by the golden cases, unless there are None."""
    made = {}
    for name in formats:
        report(f"convert to {name}")
        with _logged(target, name, keep_log), one_thread():
            found = _write_artifact(CONVERTERS[name], prepared, replace(options, step=report), recipe, staging)
        if golden is not None:
            report(f"verify {name}")
            with _logged(target, f"{name}-verify", keep_log), one_thread():
                parity = _verify(prepared, options.precision, name, staging / FORMATS[name], golden).as_json()
            found = replace(found, parity=parity)
        made[name] = found
    return made


def _convert_by_itself(convert: Callable[..., Any], formats: Sequence[str], report: Report) -> Any:
    """What a process does that only converts: load what it needs, without a word, and convert."""
    with silenced():
        for name in formats:
            CONVERTERS[name].load()
    return convert(report, formats)


def _write_bundle(
    request: ExportRequest,
    prepared: Prepared,
    golden: list[GoldenCase],
    plan: Plan,
    calibration: Calibration | None,
    target: Path,
    staging: Path,
    report: Report,
) -> dict[str, Any]:
    """Convert to every format, write the manifest and what it names, and verify; returns the manifest."""
    recipe = plan.recipe
    options = Options(
        recipe.precision,
        request.minimum_ios or recipe.minimum_ios,
        request.backend,
        request.onnx_target,
        calibration,
        plan.keep_float,
    )
    convert = functools.partial(
        _convert,
        prepared=prepared,
        options=options,
        recipe=recipe,
        target=target,
        staging=staging,
        keep_log=request.keep_log,
        golden=golden if request.verify else None,
    )
    groups = _groups(request.formats)
    if request.processes > 1 and len(groups) > 1 and request.quantize != AUTO:
        report("")  # what was begun before is over
        jobs = {group[0]: functools.partial(_convert_by_itself, convert, group) for group in groups}
        parts = run_jobs(jobs, request.processes, report).values()
        made = {name: one for part in parts for name, one in part.items()}
    else:
        made = convert(report, request.formats)
    artifacts = [made[name].entry for name in request.formats]
    graphs = {name: made[name].graph for name in request.formats}
    manifest = _manifest(prepared, recipe.precision, artifacts, _write_golden(golden, staging))
    if calibration is not None and recipe.calibrated:
        manifest["calibration"] = calibration.as_json()
    certificates = {entry["format"]: entry["quantization"] for entry in artifacts if "quantization" in entry}
    manifest["report"] = {"file": REPORT, "sha256": _write(staging / REPORT, _report(graphs, certificates))}
    manifest["parity"] = {name: one.parity for name in request.formats if (one := made[name]).parity is not None}
    _write(staging / MANIFEST, manifest_bytes(manifest))
    _check_digests(Bundle.open(staging))
    return manifest


def _check_digests(bundle: Bundle) -> None:
    """Read the artifacts and the golden cases back, and hold them to their sha256 in the manifest."""
    for name in bundle.formats:
        bundle.artifact(name)
    bundle.golden()


def _groups(formats: Sequence[str]) -> list[tuple[str, ...]]:
    """The formats that can be converted by themselves, and the .ort file with the .onnx that it is made from."""
    order = [name for name in SLOWEST_FIRST if name in formats]
    together = ("onnx", "ort")
    if not set(together) <= set(order):
        return [(name,) for name in order]
    return [*((name,) for name in order if name not in together), together]


def _search(
    request: ExportRequest,
    prepared: Prepared,
    golden: list[GoldenCase],
    calibration: Calibration,
    target: Path,
    staging: Path,
    report: Report,
) -> None:
    """Write bundles until one loses no more of the metric than is allowed."""
    assert request.judged is not None
    rule = Postprocess.of(prepared.config)
    if rule.task == "detect":
        require("pycocotools", extra="train")
    judge = Judge(rule, request.judged(rule), prepared.config.image_size)
    search = Search(prepared, calibration, judge, request.max_drop, report)
    for plan in search.plans():
        for entry in staging.iterdir():  # of the plan before
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        try:
            manifest = _write_bundle(request, prepared, golden, plan, calibration, target, staging, report)
        except (ConversionError, ParityError) as error:
            search.rejects(plan, error)
            continue
        written = Bundle.open(staging)
        metrics = {}
        for name in request.formats:
            report(f"measure {name}")
            with open_runner_for_format(written, name, threads=1) as runner:
                metrics[name] = judge(runner.run)
        if search.accepts(plan, metrics):
            manifest["auto"] = search.as_json(plan)
            _write(staging / MANIFEST, manifest_bytes(manifest))
            return
    raise ParityError(
        f"no recipe keeps {judge.metric} within {request.max_drop:g} points of the reference model's "
        f"{search.reference:.2f}, not even float32: {search.last()}"
    )


def bundle_name(prepared: Prepared, precision: str) -> str:
    """The default name of a bundle: variant, task, size, precision."""
    config = prepared.config
    return f"{config.variant.name}-{config.task}-{config.image_size}-{precision}"


def _check_target(target: Path) -> None:
    """Refuse to replace anything but a bundle or an empty directory that can be moved away."""
    with output_errors(target):
        if not target.exists():
            return
        if Path.cwd().is_relative_to(target.resolve()):
            raise OutputError(f"{target} holds the current directory, which can't be replaced; give another one")
        if target.is_mount():
            raise OutputError(f"{target} is a mount point, which can't be replaced; give a directory inside it")
        if not target.is_dir():
            raise OutputError(f"{target} is a file; give a directory for the bundle")
        if any(target.iterdir()) and not (target / MANIFEST).is_file():
            raise OutputError(f"{target} has other files and no {MANIFEST}; it is not a bundle and is left alone")


def _write(path: Path, content: bytes) -> str:
    """Write a file of the staging directory; returns its sha256."""
    with output_errors(path.name):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def _work_directory(target: Path) -> Iterator[None]:
    """Remove the directory of the logs in the end, if there are none."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            work_directory(target).rmdir()


@contextlib.contextmanager
def _logged(target: Path, name: str, keep_log: bool) -> Iterator[None]:
    """What is printed in the block goes to a log of its own; an error says where that is."""
    if not keep_log:
        yield
        return
    log = work_directory(target) / f"{name}.log"
    with output_errors(log):
        log.parent.mkdir(exist_ok=True)
    try:
        with chatter_to(log):
            yield
    except ConversionError as error:
        if not _has_content(log):
            raise
        raise ConversionError(f"{error}; what the converter printed is in {log}") from error
    finally:
        if not _has_content(log):
            log.unlink(missing_ok=True)


def _has_content(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def work_directory(target: Path) -> Path:
    """Where the logs of making the bundle ``target`` are."""
    return target.with_name(f"{target.name}.work")


def _write_artifact(converter: Converter, prepared: Prepared, options: Options, recipe: Recipe, staging: Path) -> Made:
    """Convert to one format.

    Raises:
        ConversionError: the artifact is not what the recipe promises.
    """
    name = FORMATS[converter.format]
    converted = converter.convert(prepared, options, staging / name)
    files = [file for file in (staging / name, *(staging / name).rglob("*")) if file.is_file()]
    size_bytes = sum(file.stat().st_size for file in files)
    entry = {
        "format": converter.format,
        "file": name,
        "sha256": tree_sha256(staging / name),
        "size_bytes": size_bytes,
        "input_dtype": converted.input_dtype,
        "input_layout": converted.input_layout,
        "requires": converted.requires,
        "tools": converter.tool_versions(),
    }
    if recipe.promise is not None:
        found = read_certificate(converter.format, staging / name)
        whole = converted.quantization["fp32_size_bytes"]
        promise = recipe.promise.of(prepared.config.variant.name, converter.format)
        misses = promise.misses(found, converter.format, size_bytes, whole)
        if misses:
            raise ConversionError(f"{converter.format} is not what {recipe.name} promises: {'; '.join(misses)}")
        ratio = round(size_bytes / whole, 4)
        entry["quantization"] = {**converted.quantization, "size_ratio": ratio, **found.as_json()}
    return Made(entry, converted.graph)


def _report(graphs: dict[str, dict[str, Any]], certificates: dict[str, dict[str, Any]]) -> bytes:
    document = {"graphs": graphs, **({"quantization": certificates} if certificates else {})}
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write_golden(cases: list[GoldenCase], staging: Path) -> list[dict[str, Any]]:
    """Write the golden cases; returns the manifest's ``golden``."""
    entries = []
    for case in cases:
        picture = io.BytesIO()
        Image.fromarray(case.image[0]).save(picture, "PNG")
        files = {"input": (f"golden/{case.name}.png", picture.getvalue())}
        for name, values in case.outputs.items():
            files[name] = (f"golden/{case.name}.{name}.f32", values.astype("<f4").tobytes())
        written = {key: {"file": name, "sha256": _write(staging / name, data)} for key, (name, data) in files.items()}
        entries.append({"input": written.pop("input"), "outputs": written})
    return entries


def _manifest(
    prepared: Prepared, precision: str, artifacts: list[dict[str, Any]], golden: list[dict[str, Any]]
) -> dict[str, Any]:
    config = prepared.config
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": {"name": "xformer-mobile", "version": __version__},
        "model": {
            "task": config.task,
            "variant": config.variant.name,
            "num_classes": config.num_classes,
            "labels": list(config.labels),
            "parameters": count_parameters(prepared.reference),
            "macs": count_macs(prepared.reference),
            "weights": prepared.weights,
        },
        "input": describe_input(config),
        "outputs": describe_outputs(config),
        "postprocess": describe_postprocess(Postprocess.of(config)),
        "precision": precision,
        "artifacts": artifacts,
        "golden": golden,
        "parity": {},
    }


def _verify(prepared: Prepared, precision: str, format: str, path: Path, cases: list[GoldenCase]) -> Comparison:
    """Read an artifact back and hold it to the reference model's golden outputs.

    Raises:
        ParityError: a tolerance is missed.
    """
    config = prepared.config
    artifact = LooseArtifact(path, format, config.image_size, config.output_shapes(), precision)
    with open_loose(artifact, threads=1) as runner:  # the same figures each time
        found = run_all(runner, [case.image for case in cases])
        engine = runner.engine
    comparison = compare(
        [case.outputs for case in cases],
        found,
        Postprocess.of(config),
        engine=engine,
        tolerance=tolerance_of(config.task, precision),
    )
    if not comparison:
        raise ParityError(f"{format} does not agree with the reference model: {'; '.join(comparison.misses())}")
    return comparison
