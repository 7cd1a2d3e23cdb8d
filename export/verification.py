"""A bundle against the reference model: is every artifact the same model, where does it differ, would a user notice?

:func:`verify` looks at each artifact in these ways, and everything is run first and compared afterwards:

- its file is the manifest's, and what it says of itself is what the manifest says;
- its outputs against the reference form's, on the golden inputs, on drawn scenes or on a user's pictures;
- quantized, its distance from the reference against what it was when it was exported;
- its layers, one by one, on its own inputs (:mod:`xformer_export.layers`);
- an independent reader of the same file against the engine;
- a forecast, by rules, of what will bite on a phone (:mod:`xformer_mobile.forecast`).

What can't be looked at is named, with the reason. Layers need torch and the reference model's weights; all else runs
where only the engines are installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from xformer_export.own_metadata import check_own_metadata
from xformer_mobile import __version__
from xformer_mobile.artifact import Artifact, Bundle
from xformer_mobile.bench import LatencyRun
from xformer_mobile.data import Synthetic
from xformer_mobile.errors import (
    BundleError,
    CheckpointError,
    ConversionError,
    ImageError,
    MissingDependencyError,
    UnavailableError,
    UsageError,
)
from xformer_mobile.forecast import forecast
from xformer_mobile.optional import require
from xformer_mobile.parity import Tolerance, compare, compare_readers, run_all, tolerance_of
from xformer_mobile.preprocess import ByteImage, Fit, find_images, load_image, preprocess
from xformer_mobile.report import SCHEMA_VERSION, Sample, passed_of
from xformer_mobile.runners import NoReader, Outputs, open_runner_for_format, open_second_reader
from xformer_mobile.spec import lookup

if TYPE_CHECKING:
    from xformer_export.prepare import Prepared

__all__ = ["ALLOWED_DROP_DB", "Request", "Verification", "verify"]

LAYER_PICTURES = 2
"""Pictures on which layers are compared."""

READER_PICTURES = 1
"""Pictures that the second readers run: ONNX's takes seconds for each."""

SAMPLES = 4
"""Pictures that a report shows."""

ALLOWED_DROP_DB = 2.0
"""A quantized artifact may have this much less signal-to-noise ratio on its golden inputs than when it was exported:
another machine's kernels round some values the other way; anything else that moves it so far is another file."""

RUNTIME_ERRORS = (BundleError, ConversionError)
"""What is wrong with an artifact, not with the request."""


@dataclass(frozen=True)
class Request:
    """What to verify. The bounds only tighten the tolerances of the bundle's precision.

    Without ``images`` and ``scenes`` (a number of drawn scenes) the golden inputs are used. ``layers`` None: where it
    can be done; True: a missing torch or checkpoint is an error. ``latency`` is a LatencyRun file, whose measurements
    of these artifacts are quoted.
    """

    bundle: Path
    images: tuple[Path, ...] = ()
    scenes: int | None = None
    checkpoint: Path | None = None
    formats: tuple[str, ...] = ()
    layers: bool | None = None
    second_readers: bool = True
    max_difference: float | None = None
    min_snr_db: float | None = None
    min_agreement: float | None = None
    latency: Path | None = None


@dataclass(frozen=True)
class Verification:
    """``document`` fulfils schemas/verify_report.schema.json; ``samples`` are pictures with what was found on them."""

    document: dict[str, Any]
    samples: list[Sample]

    @property
    def passed(self) -> bool:
        return bool(self.document["passed"])


@dataclass(frozen=True)
class _Pictures:
    """Byte images, uint8 (1, H, W, 3), with names; ``expected`` is what the reference returns, where it is stored."""

    source: str
    names: list[str]
    images: list[ByteImage]
    expected: list[Outputs] | None = None
    errors: list[str] = field(default_factory=list)


@dataclass
class _Found:
    """What running an artifact gave."""

    artifact: Artifact | None = None
    error: str | None = None
    engine: str | None = None
    outputs: list[Outputs] = field(default_factory=list)
    metadata: dict[str, Any] | None = None
    layers: dict[str, Any] | None = None
    second_reader: dict[str, Any] | None = None
    paths: Mapping[str, str] = field(default_factory=dict)
    forecast: list[dict[str, Any]] = field(default_factory=list)
    misses: list[str] = field(default_factory=list)


def verify(request: Request, step: Callable[[str], None] = lambda name: None) -> Verification:
    """Run everything, then compare; ``step`` is called with the name of each piece of work as it begins.

    Raises:
        XFormerError: the request can't be carried out. What is wrong with an artifact is in the document instead.
    """
    bundle = Bundle.open(request.bundle)
    tolerance = tolerance_of(bundle.task, bundle.precision).tightened(
        max_difference=request.max_difference, min_snr_db=request.min_snr_db, min_agreement=request.min_agreement
    )
    formats = [lookup("format", name, dict.fromkeys(bundle.formats, name)) for name in dict.fromkeys(request.formats)]
    formats = formats or list(bundle.formats)
    latency = LatencyRun.read(request.latency) if request.latency is not None else None
    pictures = _pictures(bundle, request)

    found = {format: _open_artifact(bundle, format) for format in formats}
    for format, one in found.items():
        if one.artifact is not None:
            step(f"{format}: run")
            _run(bundle, format, one, pictures)
    prepared, reason = None, "--no-layers"
    if request.layers is not False or pictures.expected is None:
        step("run the reference model")
        prepared, reason = _reference(bundle, request, needed=pictures.expected is None or request.layers is True)
    if pictures.expected is None:
        assert prepared is not None
        pictures = replace(pictures, expected=_run_reference(prepared, pictures.images))
    if request.layers is False:
        prepared, reason = None, "--no-layers"
    ranges = _Ranges(prepared, pictures.images)
    for format, one in found.items():
        if one.artifact is not None and one.error is None:
            step(f"{format}: layers")
            _look_inside(bundle, one, prepared, reason, pictures)
            step(f"{format}: forecast")
            _forecast(one, ranges)
    for format, one in found.items():  # last: TensorFlow is best imported after everything else
        if one.artifact is not None and one.error is None and request.second_readers:
            step(f"{format}: second reader")
            _read_again(bundle, one, pictures)

    artifacts = [_describe(bundle, format, one, pictures, tolerance, latency) for format, one in found.items()]
    document = {
        "schema_version": SCHEMA_VERSION,
        "generator": {"name": "xformer-mobile", "version": __version__},
        "bundle": _describe_bundle(bundle),
        "pictures": {"source": pictures.source, "count": len(pictures.images), "names": pictures.names},
        "passed": passed_of(artifacts, pictures.errors),
        "errors": pictures.errors,
        "artifacts": artifacts,
    }
    return Verification(document, _samples(bundle, pictures, found))


# ---- pictures and the reference ------------------------------------------------------------------------------


def _pictures(bundle: Bundle, request: Request) -> _Pictures:
    if request.images and request.scenes is not None:
        raise UsageError("--images and --scenes are two sets of pictures; give one of them")
    if request.images:
        return _load(bundle, find_images(request.images))
    if request.scenes is not None:
        drawn = Synthetic(bundle.task, "test", request.scenes)
        images = [
            preprocess(Image.fromarray(drawn[index].image), bundle.image_size, bundle.resize_rule)[0]
            for index in range(request.scenes)
        ]
        return _Pictures("scenes", [f"scene-{index:03d}" for index in range(request.scenes)], images)
    cases = bundle.golden()
    if not cases:
        raise BundleError(f"{bundle.path} has no golden cases; give --images or --scenes")
    expected = [dict(case.outputs) for case in cases]
    return _Pictures("golden", [case.name for case in cases], [case.image for case in cases], expected)


def _load(bundle: Bundle, files: Iterable[Path]) -> _Pictures:
    """The pictures that can be read, and what is wrong with the others."""
    loaded = _Pictures("images", [], [])
    for file in files:
        try:
            loaded.images.append(preprocess(load_image(file), bundle.image_size, bundle.resize_rule)[0])
            loaded.names.append(file.name)
        except ImageError as error:
            loaded.errors.append(str(error))
    if not loaded.images:
        raise ImageError(f"none of {len(loaded.errors)} pictures can be used; the first: {loaded.errors[0]}")
    return loaded


def _reference(bundle: Bundle, request: Request, *, needed: bool) -> tuple[Prepared | None, str]:
    """The model that the bundle was made from, in both forms; None and the reason, where it can't be had.

    Raises:
        XFormerError: it can't be had and is ``needed``, or the checkpoint that is given is another one.
    """
    model, weights = bundle.manifest["model"], bundle.manifest["model"]["weights"]
    if request.checkpoint is None and weights["source"] == "checkpoint":
        if needed:
            raise UsageError("--checkpoint is needed, the file that the bundle was made from, to run the reference")
        return None, "give --checkpoint, the file that the bundle was made from"
    if not needed and request.checkpoint is None and importlib.util.find_spec("torch") is None:
        return None, "torch is not installed; type: pip install 'xformer-mobile[onnx]'"
    for package in ("torch", "safetensors"):
        require(package, extra="onnx")
    from xformer_export.prepare import prepare

    try:
        prepared = prepare(
            request.checkpoint,
            task=bundle.task,
            variant=model["variant"],
            image_size=bundle.image_size,
            labels=bundle.labels,
        )
        _check_same_weights(bundle, request.checkpoint, prepared.weights["sha256"])
    except (CheckpointError, UsageError) as error:
        if needed or request.checkpoint is not None:
            raise
        return None, str(error)
    return prepared, ""


def _check_same_weights(bundle: Bundle, checkpoint: Path | None, found: str) -> None:
    stated = bundle.manifest["model"]["weights"]["sha256"]
    if found != stated:
        what = f"checkpoint {checkpoint}"
        if checkpoint is None:
            what = "weights drawn on this machine" if bundle.is_untrained else "the sample weights of this version"
        raise CheckpointError(
            f"{what} are not those that the bundle was made from: sha256 {found[:12]}..., not {stated[:12]}..."
        )


def _run_reference(prepared: Prepared, images: Sequence[ByteImage]) -> list[Outputs]:
    from xformer_mobile.runners.pytorch import TorchRunner

    with TorchRunner(prepared.reference) as runner:
        return run_all(runner, images)


# ---- one artifact --------------------------------------------------------------------------------------------


def _open_artifact(bundle: Bundle, format: str) -> _Found:
    try:
        return _Found(bundle.artifact(format))
    except BundleError as error:
        return _Found(error=str(error))


def _run(bundle: Bundle, format: str, one: _Found, pictures: _Pictures) -> None:
    """Run an artifact on all pictures, and read what it says of itself."""
    assert one.artifact is not None
    try:
        metadata = check_own_metadata(bundle, one.artifact)
        with open_runner_for_format(bundle, format) as runner:
            one.engine = runner.engine
            one.outputs = run_all(runner, pictures.images)
    except RUNTIME_ERRORS as error:
        one.error = str(error)
        return
    one.metadata = metadata.as_json()
    one.misses += metadata.misses()


def _look_inside(bundle: Bundle, one: _Found, prepared: Prepared | None, reason: str, pictures: _Pictures) -> None:
    assert one.artifact is not None
    if prepared is None:
        one.layers = _not_looked(reason)
        return
    from xformer_export.layers import look_inside

    try:
        report = look_inside(
            prepared,
            one.artifact.format,
            one.artifact.path,
            precision=bundle.precision,
            pictures=pictures.images[:LAYER_PICTURES],
        )
    except (UnavailableError, MissingDependencyError) as error:
        one.layers = _not_looked(str(error))
        return
    one.layers, one.paths = report.as_json(), report.paths
    one.misses += report.misses()


def _not_looked(reason: str) -> dict[str, Any]:
    return {"looked": False, "reason": reason}


class _Ranges:
    """The tensors' ranges, measured once, when they are first asked for."""

    def __init__(self, prepared: Prepared | None, images: Sequence[ByteImage]) -> None:
        self.prepared, self.images = prepared, images
        self._measured: tuple[Mapping[str, float], Mapping[str, str]] | None = None

    def measured(self) -> tuple[Mapping[str, float], Mapping[str, str]]:
        if self._measured is None:
            self._measured = ({}, {})
            if self.prepared is not None:
                from xformer_export.tensor_ranges import measure_ranges

                found = measure_ranges(self.prepared.mobile, self.images[:LAYER_PICTURES])
                self._measured = found.largest, found.paths
        return self._measured


def _forecast(one: _Found, ranges: _Ranges) -> None:
    assert one.artifact is not None
    largest, paths = ranges.measured()
    try:
        found = forecast(one.artifact.path, one.artifact.format, largest, {**paths, **one.paths})
    except MissingDependencyError:
        return
    one.forecast = [finding.as_json() for finding in found]


def _read_again(bundle: Bundle, one: _Found, pictures: _Pictures) -> None:
    """Run the second reader, and hold it to what the engine returned."""
    assert one.artifact is not None
    reader = open_second_reader(bundle, one.artifact.format)
    if isinstance(reader, NoReader):
        one.second_reader = {"reader": None, "status": "none", "reason": reader.reason, "pictures": 0}
        return
    count = min(READER_PICTURES, len(pictures.images))
    try:
        with reader:
            outputs = run_all(reader, pictures.images[:count])
    except RUNTIME_ERRORS as error:
        one.misses.append(f"the second reader, {reader.engine}, refuses the file: {error}")
        one.second_reader = {
            "reader": reader.engine,
            "status": "disagrees",
            "reason": str(error),
            "pictures": 0,
        }
        return
    agreement = compare_readers(one.outputs[:count], outputs, bundle.precision)
    one.misses += agreement.misses()
    one.second_reader = {
        "reader": reader.engine,
        "status": "agrees" if agreement else "disagrees",
        "reason": None,
        "pictures": count,
        **agreement.as_json(),
    }


# ---- the document --------------------------------------------------------------------------------------------


def _describe_bundle(bundle: Bundle) -> dict[str, Any]:
    model, size = bundle.manifest["model"], bundle.image_size
    return {
        "name": bundle.path.resolve().name,
        "task": bundle.task,
        "variant": model["variant"],
        "precision": bundle.precision,
        "image_size": [size.height, size.width],
        "num_classes": model["num_classes"],
        "parameters": model["parameters"],
        "macs": model["macs"],
        "weights": dict(model["weights"]),
    }


def _describe(
    bundle: Bundle, format: str, one: _Found, pictures: _Pictures, tolerance: Tolerance, latency: LatencyRun | None
) -> dict[str, Any]:
    entry = next(entry for entry in bundle.manifest["artifacts"] if entry["format"] == format)
    parity = since = None
    if one.error is None:
        assert one.engine is not None
        assert pictures.expected is not None
        comparison = compare(
            pictures.expected, one.outputs, bundle.postprocess(), engine=one.engine, tolerance=tolerance
        )
        parity = {name: value for name, value in comparison.as_json().items() if name != "engine"}
        for output in comparison.outputs:
            parity["outputs"][output.name]["passed"] = comparison.keeps(output)
        one.misses[:0] = comparison.misses()
        since = _since_export(bundle, format, parity) if pictures.source == "golden" else None
        if since is not None and not since["passed"]:
            one.misses += [
                f"{name} had {before:.1f} dB when it was exported, and has {now:.1f} dB now; "
                f"{ALLOWED_DROP_DB:g} dB less are allowed"
                for name, (before, now) in since["snr_db"].items()
                if before - now > ALLOWED_DROP_DB
            ]
    return {
        "format": format,
        "engine": one.engine,
        "file": entry["file"],
        "size_bytes": entry["size_bytes"],
        "sha256": entry["sha256"],
        "passed": one.error is None and not one.misses,
        "error": one.error,
        "misses": one.misses,
        "parity": parity,
        "since_export": since,
        "metadata": one.metadata,
        "layers": one.layers,
        "second_reader": one.second_reader,
        "certificate": entry.get("quantization"),
        "latency": _latency(latency, entry["sha256"]),
        "forecast": one.forecast,
    }


def _since_export(bundle: Bundle, format: str, parity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The signal-to-noise ratios when a quantized artifact was exported, and now; None where there are none."""
    stated = bundle.manifest["parity"].get(format)
    if stated is None or not bundle.precision.startswith("int8"):
        return None
    ratios = {}
    for name, figures in parity["outputs"].items():
        before, now = stated["outputs"].get(name, {}).get("snr_db"), figures["snr_db"]
        if before is not None and now is not None:
            ratios[name] = [before, now]
    if not ratios:
        return None
    kept = all(before - now <= ALLOWED_DROP_DB for before, now in ratios.values())
    return {"snr_db": ratios, "allowed_drop_db": ALLOWED_DROP_DB, "passed": kept}


def _latency(run: LatencyRun | None, sha256: str) -> dict[str, Any] | None:
    """What a LatencyRun says of the artifact with that sha256."""
    for measurement in [] if run is None else run.measurements:
        statistics = measurement.statistics().get("inference")
        if measurement.document["artifact"]["sha256"] == sha256 and statistics is not None:
            assert run is not None
            return {
                "engine": measurement.document["engine"]["name"],
                "threads": measurement.document["engine"]["threads"],
                "device": run.machine_name,
                "samples": statistics.count,
                "median_ms": statistics.p50_ns / 1e6,
                "p90_ms": statistics.p90_ns / 1e6,
            }
    return None


def _samples(bundle: Bundle, pictures: _Pictures, found: Mapping[str, _Found]) -> list[Sample]:
    rule, size = bundle.postprocess(), bundle.image_size
    whole = Fit((size.width, size.height), (size.width, size.height), (0, 0), (size.width, size.height))
    assert pictures.expected is not None
    samples = []
    for index, name in enumerate(pictures.names[:SAMPLES]):
        results = {}
        for format, one in found.items():
            if one.outputs:
                try:
                    results[format] = rule(one.outputs[index], whole)
                except BundleError:  # NaN: the comparison has said so
                    continue
        expected = rule(pictures.expected[index], whole)
        samples.append(Sample(name, pictures.images[index][0], expected, results, rule.palette))
    return samples
