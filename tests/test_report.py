"""A verification's reports: the document is held to its schema, and page, JUnit and summary say what it says."""

from __future__ import annotations

import copy
import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xformer_mobile.errors import OutputError, UsageError
from xformer_mobile.postprocess import Box, Classification, ClassMap, Detection, Result
from xformer_mobile.report import (
    SCHEMA_VERSION,
    Sample,
    checks_of,
    document_bytes,
    junit_bytes,
    page_bytes,
    passed_of,
    summary_markdown,
    validate,
    write_reports,
)
from xformer_mobile.report.figures import bytes_text, decibels, large, share, tolerance_text
from xformer_mobile.report.layer_plot import layer_plot
from xformer_mobile.report.markup import element, html_bytes, stylesheet
from xformer_mobile.report.pictures import BUDGET_BYTES, MOST_SAMPLES, agreement_text, show
from xformer_mobile.report.style import STYLE

Document = dict[str, Any]

HOSTILE = "<script>alert('x')</script>\" onload=\"x &amp; |`*[a](https://evil.example)\x00\x1b\ud800"

VOID = {"br", "img", "link", "meta"}


# ---- documents ------------------------------------------------------------------------------------------------


def output(snr_db: float | None, *, passed: bool = True) -> Document:
    equal = snr_db is None
    return {
        "max_abs": 0.0 if equal else 0.5,
        "mean_abs": 0.0 if equal else 0.1,
        "relative_max": 0.0 if equal else 0.02,
        "snr_db": snr_db,
        "worst_snr_db": snr_db,
        "cosine": 1.0,
        "passed": passed,
    }


def layer(path: str, own_snr_db: float | None = 40.0, snr_db: float | None = 35.0, *, passed: bool = True) -> Document:
    gain = 0.0 if own_snr_db is None else 0.004
    return {
        "path": path,
        "kind": "Conv2d",
        "own_snr_db": own_snr_db,
        "gain": gain,
        "shift": gain,
        "snr_db": snr_db,
        "passed": passed,
    }


def artifact(format: str = "onnx", **changes: Any) -> Document:
    """One that passed, with everything looked at."""
    rows = [layer("image", None, None), *(layer(f"body.{index // 4}.{index % 4}") for index in range(8))]
    made: Document = {
        "format": format,
        "engine": "onnxruntime",
        "file": f"model.{format}",
        "size_bytes": 5_400_000,
        "sha256": "ab" * 32,
        "passed": True,
        "error": None,
        "misses": [],
        "parity": {
            "images": 4,
            "passed": True,
            "tolerance": {"snr_db": 3.0, "agreement": 0.0},
            "outputs": {"logits": output(27.4), "features": output(None)},
            "agreement": {"name": "top-1 agreement", "share": 1.0, "figures": {"top-5 in common": 0.95}},
        },
        "since_export": {"snr_db": {"logits": [27.5, 27.4]}, "allowed_drop_db": 2.0, "passed": True},
        "metadata": {"passed": True, "misses": [], "checked": ["labels", "task"], "reason": None},
        "layers": {
            "looked": True,
            "reason": None,
            "passed": True,
            "pictures": 2,
            "limits": {"own_snr_db": 15.0, "gain": 0.03, "shift": 0.5},
            "compared": 8,
            "modules": 10,
            "first": None,
            "worst": "body.0.0",
            "rows": rows,
        },
        "second_reader": {
            "reader": "onnx-reference",
            "status": "agrees",
            "reason": None,
            "pictures": 1,
            "tolerance": {"snr_db": 20.0},
            "outputs": {"logits": {"relative_max": 0.001, "snr_db": 50.0, "max_abs": 0.01}},
        },
        "certificate": {
            "fp32_size_bytes": 20_000_000,
            "size_ratio": 0.27,
            **{name: {"int8": 99, "all": 100, "share": 0.99} for name in ("macs", "ops", "moved_bytes", "weights")},
            "qdq_pairs": 210,
            "float_islands": [],
            "float_island_count": 0,
        },
        "latency": {
            "engine": "onnxruntime",
            "threads": None,
            "device": "A test bench",
            "samples": 400,
            "median_ms": 14.2,
            "p90_ms": 15.1,
        },
        "forecast": [
            {
                "target": "NNAPI",
                "severity": "leaves",
                "op": "Erf",
                "count": 12,
                "modules": ["body.0.1"],
                "message": "NNAPI has no Erf.",
                "rewrite": "Use tanh.",
                "source": "https://developer.android.com/ndk/guides/neuralnetworks",
            }
        ],
    }
    assert set(changes) <= set(made)
    return {**made, **changes}


def of(*artifacts: Document, errors: tuple[str, ...] = ()) -> Document:
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": {"name": "xformer-mobile", "version": "0.1.0"},
        "bundle": {
            "name": "classify-int8",
            "task": "classify",
            "variant": "xformer_xxs",
            "precision": "int8",
            "image_size": [64, 96],
            "num_classes": 5,
            "parameters": 1_234_567,
            "macs": 250_000_000,
            "weights": {"source": "untrained", "sha256": "cd" * 32, "seed": 0},
        },
        "pictures": {"source": "golden", "count": 4, "names": ["000", "001", "002", "003"]},
        "passed": passed_of(artifacts, errors),
        "errors": list(errors),
        "artifacts": list(artifacts),
    }


def passed() -> Document:
    return of(artifact("onnx"), artifact("tflite"))


def missed() -> Document:
    """Everything that can be missed is, in the second artifact."""
    broken = artifact("tflite", passed=False)
    broken["parity"]["passed"] = False
    broken["parity"]["outputs"]["logits"] = output(1.5, passed=False)
    broken["parity"]["tolerance"]["agreement"] = 0.9
    broken["parity"]["agreement"]["share"] = 0.5
    broken["since_export"] = {"snr_db": {"logits": [27.5, 1.5]}, "allowed_drop_db": 2.0, "passed": False}
    broken["metadata"].update(passed=False, misses=["labels are ['b', 'a'], not ['a', 'b']"])
    broken["layers"].update(passed=False, first="body.1.1", worst="body.1.1")
    broken["layers"]["rows"][6] = layer("body.1.1", 8.31, 9.0, passed=False)
    broken["second_reader"].update(status="disagrees")
    broken["misses"] = [
        "logits has a signal-to-noise ratio of 1.5 dB; 3 dB needed",
        "top-1 agreement is 50.00%; 90.00% needed",
        "logits had 27.5 dB when it was exported, and has 1.5 dB now; 2 dB less are allowed",
        "labels are ['b', 'a'], not ['a', 'b']",
        "body.1.1 has a signal-to-noise ratio of its own of 8.3 dB; 15 dB needed",
        "the readers disagree: logits differs by 1.0e+00 of its range, 1e-02 is allowed",
    ]
    return of(artifact("onnx"), broken)


def broken_file() -> Document:
    """A truncated file, and a picture that can't be read."""
    nothing = dict.fromkeys(("engine", "parity", "since_export", "metadata", "layers", "second_reader", "latency"))
    error = "model.tflite is not the file that the manifest describes: sha256 12..., not ab..."
    truncated = artifact("tflite", **nothing, passed=False, error=error, forecast=[], certificate=None)
    return of(artifact("onnx"), truncated, errors=("can't read broken.jpg: truncated",))


def minimal() -> Document:
    """Without torch, without a second reader, in fp32, of a format without metadata."""
    parity = artifact()["parity"]
    parity["tolerance"] = {"relative_max": 1e-4, "agreement": 1.0}
    bare = artifact(
        "executorch",
        parity=parity,
        since_export=None,
        metadata={"passed": True, "misses": [], "checked": [], "reason": "a .pte file has no metadata"},
        layers={"looked": False, "reason": "torch is not installed"},
        second_reader={"reader": None, "status": "none", "reason": "there is no other reader", "pictures": 0},
        certificate=None,
        latency=None,
        forecast=[],
    )
    return of(bare, artifact("onnx", layers=None, second_reader=None, metadata=None))


DOCUMENTS = [passed, missed, broken_file, minimal]


@pytest.fixture(params=DOCUMENTS, ids=lambda make: make.__name__)
def document(request: pytest.FixtureRequest) -> Document:
    made: Document = request.param()
    return made


# ---- the schema -----------------------------------------------------------------------------------------------


def test_every_case_is_valid(document: Document) -> None:
    validate(document)
    assert json.loads(document_bytes(document)) == document


def required_fields(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every field of every object, but those whose names are the document's own and what is quoted from a manifest."""
    if isinstance(value, dict):
        named = place and place[-1] in ("outputs", "figures", "snr_db", "limits", "tolerance")
        quoted = {"seed"}
        for key, item in value.items():
            if not named and key not in quoted:
                yield (*place, key)
            yield from required_fields(item, (*place, key))
    elif isinstance(value, list) and value:
        yield from required_fields(value[0], (*place, 0))


REQUIRED = sorted(
    {place for make in (passed, minimal) for place in required_fields(make())}, key=lambda place: [*map(str, place)]
)


def at(document: Document, place: tuple[str | int, ...]) -> Any:
    found: Any = document
    for part in place:
        found = found[part]
    return found


@pytest.mark.parametrize("place", REQUIRED, ids=lambda place: "/".join(map(str, place)))
def test_a_document_without_a_required_field_is_refused(place: tuple[str | int, ...]) -> None:
    refused = 0
    for make in (passed, minimal):
        document = make()
        try:
            del at(document, place[:-1])[place[-1]]
        except (LookupError, TypeError):
            continue
        with pytest.raises(ValueError, match="not a verification report"):
            validate(document)
        refused += 1
    assert refused


def objects(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        yield place
        for key, item in value.items():
            yield from objects(item, (*place, key))
    elif isinstance(value, list) and value:
        yield from objects(value[0], (*place, 0))


OPEN = {"weights", "certificate", "macs", "ops", "moved_bytes", "outputs", "figures", "snr_db"}
"""Objects that are quoted from a manifest, or whose names are the document's own."""


@pytest.mark.parametrize(
    "place",
    [place for place in objects(passed()) if not place or place[-1] not in OPEN],
    ids=lambda place: "/".join(map(str, place)) or "document",
)
def test_a_field_that_the_schema_does_not_know_is_refused(place: tuple[str | int, ...]) -> None:
    document = passed()
    at(document, place)["another"] = {}
    with pytest.raises(ValueError, match="another"):
        validate(document)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema_version",), "2.0"),
        (("bundle", "task"), "sing"),
        (("pictures", "source"), "elsewhere"),
        (("artifacts",), []),
        (("artifacts", 0, "sha256"), "AB" * 32),
        (("artifacts", 0, "parity", "outputs", "logits", "snr_db"), math.inf),
        (("artifacts", 0, "parity", "outputs", "logits", "snr_db"), math.nan),
        (("artifacts", 0, "parity", "agreement", "share"), 1.5),
        (("artifacts", 0, "size_bytes"), 5.0),
        (("artifacts", 0, "forecast", 0, "source"), "javascript:alert(1)"),
        (("artifacts", 0, "forecast", 0, "severity"), "dire"),
        (("artifacts", 0, "passed"), False),
        (("artifacts", 0, "misses"), ["something"]),
        (("artifacts", 0, "error"), "something"),
        (("passed",), False),
        (("errors",), ["something"]),
    ],
    ids=lambda value: "/".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_document_that_is_wrong_or_contradicts_itself_is_refused(place: tuple[str | int, ...], value: Any) -> None:
    document = passed()
    at(document, place[:-1])[place[-1]] = value
    with pytest.raises(ValueError, match="not a verification report"):
        document_bytes(document)


def test_a_run_that_did_not_pass_can_not_be_called_passed() -> None:
    document = {**missed(), "passed": True}
    with pytest.raises(ValueError, match="not a verification report"):
        validate(document)


def test_the_figures_of_a_broken_artifact_may_be_beyond_all_bounds() -> None:
    document = passed()
    document["artifacts"][0]["parity"]["outputs"]["logits"]["max_abs"] = 3.4e38
    validate(document)
    assert "3.4e+38" in page_bytes(document).decode()


# ---- the checks -----------------------------------------------------------------------------------------------


def test_each_miss_goes_to_the_check_that_it_speaks_of() -> None:
    broken = missed()["artifacts"][1]
    found = {check.title: check for check in checks_of(broken)}
    assert {title: check.status for title, check in found.items()} == {
        "opens and runs": "passed",
        "metadata": "missed",
        "parity of logits": "missed",
        "parity of features": "passed",
        "top-1 agreement": "missed",
        "since export": "missed",
        "layers": "missed",
        "second reader": "missed",
    }
    told = [found[title].reasons for title in ("parity of logits", "top-1 agreement", "since export")]
    told += [found[title].reasons for title in ("metadata", "layers", "second reader")]
    assert told == [(miss,) for miss in broken["misses"]]


def test_a_miss_that_speaks_of_no_check_is_not_lost() -> None:
    odd = artifact(passed=False, misses=["the moon is full"])
    (check,) = [check for check in checks_of(odd) if check.status == "missed"]
    assert check.reasons == ("the moon is full",)
    for made in (junit_bytes(of(odd)), page_bytes(of(odd)), summary_markdown(of(odd)).encode()):
        assert b"the moon is full" in made


@pytest.mark.parametrize("key", ["since_export", "metadata", "layers", "second_reader"])
def test_a_missed_check_of_which_no_sentence_speaks_has_one(key: str) -> None:
    broken = missed()["artifacts"][1]
    broken["misses"] = ["the moon is full"]
    (check,) = [check for check in checks_of(broken) if check.key == key]
    assert len(check.reasons) == 1
    assert check.reasons[0]
    if key == "layers":
        assert check.reasons[0].startswith("body.1.1 is the first layer that fails: own SNR 8.3 dB")


def test_an_agreement_that_nothing_is_demanded_of_is_not_called_passed() -> None:
    loose = artifact()
    loose["parity"]["agreement"]["share"] = 0.3333
    (check,) = [check for check in checks_of(loose) if check.key == "agreement"]
    assert (check.status, check.figure) == ("skipped", "33.33 %")
    assert "33.33 %" in Page(page_bytes(of(loose))).words


def test_what_was_not_checked_has_its_reason() -> None:
    bare, without_torch = (checks_of(one) for one in minimal()["artifacts"])
    reasons = {check.title: check.reasons[0] for check in bare if check.status == "skipped"}
    assert reasons == {
        "metadata": "a .pte file has no metadata",
        "since export": "the figures were not compared with those of the export",
        "layers": "torch is not installed",
        "second reader": "there is no other reader",
    }
    assert sum(check.status == "skipped" for check in without_torch if check.key != "agreement") == 3
    truncated = checks_of(broken_file()["artifacts"][1])
    assert [check.status for check in truncated] == ["error", *["skipped"] * 6]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (share(1.0), "100 %"),
        (share(0.99999), "99.99 %"),
        (share(0.5), "50 %"),
        (share(0.9375), "93.75 %"),
        (share(None), "not finite"),
        (decibels(27.44), "27.4 dB"),
        (decibels(None), "not finite"),
        (decibels(None, equal=True), "equal"),
        (large(1_234_567), "1.23 M"),
        (large(250_000_000), "250 M"),
        (large(999), "999"),
        (bytes_text(5_400_000), "5.4 MB"),
        (bytes_text(999), "999 B"),
        (tolerance_text({"relative_max": 1e-4}), "difference at most 1e-04 of the range"),
        (tolerance_text({"snr_db": 40.0, "agreement": 0.995}), "SNR at least 40 dB, agreement at least 99.5 %"),
        (tolerance_text({"snr_db": 3.0, "agreement": 0.0}), "SNR at least 3 dB"),
    ],
    ids=str,
)
def test_figures_in_words(text: str, expected: str) -> None:
    assert text == expected


# ---- the page -------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would see: elements that are closed in order, text, and addresses."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words = ""
        self.feed(content.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data if self.open[-1:] != ["style"] else ""

    def values(self, *names: str) -> list[str]:
        return [value or "" for _, name, value in self.attributes if name in names]


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    values = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    return (values * 2654435761 >> 24).astype(np.uint8)


def classes(*pairs: tuple[int, float]) -> Result:
    return tuple(Classification(index, f"class {index}", probability) for index, probability in pairs)


def boxes(*corners: tuple[float, float, float, float], index: int = 0) -> Result:
    return tuple(Detection(index, f"class {index}", 0.9, Box(*one)) for one in corners)


def class_map(shift: int) -> Result:
    return ClassMap(np.roll(np.arange(2400, dtype=np.uint8).reshape(40, 60) % 60 // 20, shift, 1), ("a", "b", "c"))


SAMPLES: dict[str, tuple[Result, Result]] = {
    "classify": (classes((0, 0.9), (1, 0.1)), classes((1, 0.6), (0, 0.4))),
    "detect": (boxes((5, 5, 30, 30)), boxes((6, 5, 30, 31), (40, 2, 55, 20))),
    "detect nothing": ((), ()),
    "segment": (class_map(0), class_map(3)),
}


@pytest.fixture(params=SAMPLES, ids=str)
def samples(request: pytest.FixtureRequest) -> list[Sample]:
    reference, found = SAMPLES[request.param]
    return [Sample("photograph", picture(), reference, {"onnx": reference, "tflite": found})]


def test_the_page_is_one_file_that_needs_nothing_else(document: Document, samples: list[Sample]) -> None:
    content = page_bytes(document, samples)
    page = Page(content)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/jpeg;base64,") for value in page.values("src"))
    sources = {found["source"] for one in document["artifacts"] for found in one["forecast"]}
    anchors = {f"#{name}" for name in page.values("id")}
    assert set(page.values("href")) <= sources | anchors
    without = re.sub(rb"https://developer\.android\.com[\w./]*", b"", content)
    assert not re.search(rb"https?://|url\(|@import", without)
    assert "prefers-color-scheme: dark" in STYLE
    assert ("http-equiv", "Content-Security-Policy") in [(name, value) for _, name, value in page.attributes]


def test_the_page_says_what_the_document_says(document: Document) -> None:
    page = Page(page_bytes(document))
    for one in document["artifacts"]:
        for text in (one["format"], one["file"], *one["misses"], *([one["error"]] if one["error"] else [])):
            assert text in page.words
        if one["layers"] and one["layers"]["looked"]:
            assert all(row["path"] in page.words for row in one["layers"]["rows"])
        assert one["latency"] is None or "A test bench" in page.words
        assert (one["certificate"] is None) or "float islands" in page.words
        assert not one["forecast"] or "A forecast, not a measurement" in page.words
    assert all(error in page.words for error in document["errors"])


@pytest.mark.parametrize(
    ("make", "headline"),
    [(passed, "Passed"), (minimal, "Passed"), (missed, "6 misses"), (broken_file, "2 errors")],
    ids=["passed", "minimal", "missed", "broken file"],
)
def test_the_headline(make: Callable[[], Document], headline: str) -> None:
    document = make()
    assert f"classify-int8: {headline}" in Page(page_bytes(document)).words
    passes = sum(one["passed"] for one in document["artifacts"])
    assert f"{passes} of 2 artifacts passed on 4 golden pictures" in Page(page_bytes(document)).words


def test_sections_without_content_are_left_out() -> None:
    document = of(artifact(certificate=None, latency=None, forecast=[]))
    assert Page(page_bytes(document)).values("id") == ["artifacts", "onnx"]
    assert Page(page_bytes(of(artifact()))).values("id") == ["artifacts", "onnx", "certificate", "latency", "forecast"]


def hostile() -> Document:
    document = missed()
    broken = document["artifacts"][1]
    document["bundle"]["name"] = document["bundle"]["variant"] = HOSTILE
    document["errors"] = [HOSTILE]
    document["pictures"]["names"] = [HOSTILE]
    broken["file"] = broken["engine"] = HOSTILE
    broken["misses"].append(HOSTILE)
    broken["metadata"]["checked"].append(HOSTILE)
    broken["layers"]["rows"][3]["path"] = broken["layers"]["rows"][3]["kind"] = HOSTILE
    broken["latency"]["device"] = HOSTILE
    for name in ("target", "op", "message", "rewrite"):
        broken["forecast"][0][name] = HOSTILE
    broken["forecast"][0]["modules"] = [HOSTILE]
    broken["parity"]["outputs"][HOSTILE] = output(1.0, passed=False)
    validate(document)
    return document


def test_hostile_names_are_only_text() -> None:
    found = (Classification(0, HOSTILE, 0.5),)
    sample = Sample(HOSTILE, picture(), found, {"onnx": found})
    content = page_bytes(hostile(), [sample])
    page = Page(content)
    assert "script" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "https://evil.example" not in "".join(page.values("href", "src"))
    assert page.words.count("<script>alert('x')</script>\" onload=\"x &amp; |`*[a](https://evil.example)���") > 10
    assert not set("\x00\x1b") & set(content.decode())


def test_the_markup_refuses_what_it_would_not_escape() -> None:
    with pytest.raises(ValueError, match="not escaped"):
        element("script", "x")
    with pytest.raises(ValueError, match="not escaped"):
        element("style", "x")
    with pytest.raises(ValueError, match="</"):
        stylesheet("a {} </style><script>")


def test_the_markup_escapes_text_and_attributes() -> None:
    made = element("p", "<b> & ", element("b", "x", class_="a b"), None, ["y", None], title='"<', hidden=True, id=False)
    expected = '<p title="&quot;<" hidden="">&lt;b&gt; &amp; <b class="a b">x</b>y</p>\n'
    assert html_bytes(made) == f"<!DOCTYPE html>\n{expected}\n".encode()


def test_the_plot_shows_every_layer_and_marks_the_failed() -> None:
    layers = missed()["artifacts"][1]["layers"]
    plot = layer_plot(layers)
    groups = list(plot.iter("g"))
    titles = [one.findtext("title") or "" for one in groups]
    assert [title.split(" ")[0] for title in titles] == [row["path"] for row in layers["rows"]]
    failed = [title for title, one in zip(titles, groups, strict=True) if one.find("path") is not None]
    assert failed == ["body.1.1 (Conv2d): own SNR 8.3 dB, inherited 9.0 dB, gain 0.004, shift 0.004, FAILED"]
    assert "own SNR equal, inherited -" in titles[0]
    assert "limit 15 dB" in [text.text for text in plot.iter("text")]


@pytest.mark.parametrize(
    "rows",
    [
        [layer("only")],
        [layer("", -300.0, -300.0, passed=False), layer("b", None, None, passed=False)],
        [layer(f"{index}", 20.0 + index) for index in range(200)],
        [layer("a.b", 1e30), layer("a.b.c"), layer("a.b.c")],
    ],
    ids=["one", "broken", "many", "far"],
)
def test_the_plot_stays_inside_its_field(rows: list[Document]) -> None:
    plot = layer_plot({**artifact()["layers"], "rows": rows, "limits": {}})
    _, _, width, height = (float(part) for part in plot.get("viewBox", "").split())
    places = [float(one.get("cy", "0")) for one in plot.iter("circle")]
    places += [float(number) for one in plot.iter("path") for number in re.findall(r"\d+\.\d", one.get("d", ""))]
    assert all(0 <= place <= max(width, height) for place in places)
    assert len(list(plot.iter("g"))) == len(rows)


def contrast(one: str, two: str) -> float:
    """WCAG 2's contrast ratio of two colours."""

    def luminance(color: str) -> float:
        parts = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_can_be_read_in_both_themes(theme: int) -> None:
    block = re.findall(r":root \{(.*?)\n *\}", STYLE, re.DOTALL)[theme]
    colors = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    for ground in ("paper", "card"):
        for ink in ("ink", "soft", "good", "bad", "warn", "own"):
            assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)
    for ink, ground in (("good", "good-tint"), ("bad", "bad-tint"), ("soft", "bad-tint"), ("own", "bad-tint")):
        assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)


# ---- sample pictures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "found", "same", "text"),
    [
        (classes((0, 0.9), (1, 0.1)), classes((0, 0.8), (2, 0.1)), True, "same class first; 1 of 2 in common"),
        (classes((0, 0.9), (1, 0.1)), classes((1, 0.8), (0, 0.1)), False, "another class first; 2 of 2 in common"),
        (boxes((0, 0, 10, 10)), boxes((0, 0, 10, 9)), True, "1 of 1 boxes found again"),
        (boxes((0, 0, 10, 10)), boxes((0, 0, 10, 9), index=1), False, "0 of 1 boxes found again; 1 more"),
        (boxes((0, 0, 10, 10)), boxes((6, 0, 16, 10)), False, "0 of 1 boxes found again; 1 more"),
        (boxes((0, 0, 9, 9), (0, 0, 9, 9)), boxes((0, 0, 9, 9)), False, "1 of 2 boxes found again"),
        ((), (), True, "no boxes in the reference"),
        ((), boxes((0, 0, 9, 9)), False, "no boxes in the reference; 1 more"),
        (class_map(0), class_map(0), True, "100.0 % of the pixels agree"),
        (class_map(0), class_map(3), False, "85.0 % of the pixels agree"),
        (class_map(0), (), False, "results of two kinds"),
    ],
    ids=str,
)
def test_what_two_results_have_in_common(reference: Result, found: Result, same: bool, text: str) -> None:
    assert agreement_text(reference, found) == (same, text)


def test_pictures_stand_side_by_side(samples: list[Sample]) -> None:
    (shown,) = show(samples)
    page = Page(page_bytes(passed(), samples))
    assert (shown.size, list(shown.results)) == ((60, 40), ["reference", "onnx", "tflite"])
    assert page.values("src") == list(shown.pictures.values())
    if "" in shown.pictures:  # classes stand beside the one picture
        assert list(shown.pictures) == [""]
        assert "class 0" in page.words
    else:
        same, _ = agreement_text(samples[0].reference, samples[0].artifacts["tflite"])
        assert shown.pictures["reference"] == shown.pictures["onnx"]
        assert (shown.pictures["reference"] == shown.pictures["tflite"]) == same


def test_pictures_keep_the_page_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    one = Sample("noise", noise, boxes((5, 5, 300, 300)), dict.fromkeys("abcd", boxes((5, 5, 300, 300))))
    shown = show([one] * 20)
    assert len(shown) <= MOST_SAMPLES
    assert sum(len(uri) for sample in shown for uri in sample.pictures.values()) < BUDGET_BYTES * 1.4
    assert f"{len(shown)} of 20 pictures" in Page(page_bytes(passed(), [one] * 20)).words


# ---- JUnit ----------------------------------------------------------------------------------------------------

JUNIT = {
    "testsuites": ({"name", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "skipped"}, {"testcase"}),
    "testcase": ({"name", "classname"}, {"failure", "error", "skipped"}),
    "failure": ({"message", "type"}, set()),
    "error": ({"message", "type"}, set()),
    "skipped": ({"message"}, set()),
}
"""What we use of junit-10.xsd of Jenkins' xUnit plugin: each element's attributes and children."""


def test_junit_has_the_elements_of_its_schema(document: Document) -> None:
    root = ET.fromstring(junit_bytes(document))
    assert root.tag == "testsuites"
    for one in root.iter():
        attributes, children = JUNIT[one.tag]
        assert set(one.attrib) == attributes
        assert {child.tag for child in one} <= children
        assert len(one) <= 1 or one.tag != "testcase"


def test_junit_counts_what_the_document_has(document: Document) -> None:
    root = ET.fromstring(junit_bytes(document))
    suites = root.findall("testsuite")
    names = [f"classify-int8/{one['format']}" for one in document["artifacts"]]
    assert [suite.get("name") for suite in suites] == names + (["classify-int8/run"] if document["errors"] else [])
    for suite in suites:
        for attribute, path in (
            ("tests", "testcase"), ("failures", "*/failure"), ("errors", "*/error"), ("skipped", "*/skipped")
        ):  # fmt: skip
            assert suite.get(attribute) == str(len(suite.findall(path)))
    told = [line for failure in root.iter("failure") for line in (failure.text or "").split("\n")]
    assert sorted(told) == sorted(miss for one in document["artifacts"] for miss in one["misses"])
    errors = [one["error"] for one in document["artifacts"] if one["error"]] + document["errors"]
    assert [error.get("message") for error in root.iter("error")] == errors
    assert (root.get("failures"), root.get("errors")) == (str(len(told)), str(len(errors)))
    assert (root.get("failures") == root.get("errors") == "0") == document["passed"]


def test_junit_of_hostile_names_is_xml() -> None:
    root = ET.fromstring(junit_bytes(hostile()))
    assert any("<script>" in (failure.text or "") for failure in root.iter("failure"))


# ---- the summary ----------------------------------------------------------------------------------------------


def test_the_summary_has_a_row_for_each_artifact(document: Document) -> None:
    lines = summary_markdown(document).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(document["artifacts"])
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    for one, row in zip(document["artifacts"], rows[2:], strict=True):
        assert one["format"] in row
        assert ("passed |" in row) == bool(one["passed"] or "✅" in row)
        assert ("MISSED" in row) != one["passed"]
    misses = sum(len(one["misses"]) + (one["error"] is not None) for one in document["artifacts"])
    assert sum(line.startswith("- ") for line in lines) == misses + len(document["errors"])
    assert summary_markdown(document).endswith("\n\n")


def test_the_summary_counts_the_forecast_and_calls_it_one() -> None:
    assert "Forecast by rules, not a measurement: 2 findings (2 leaves)." in summary_markdown(passed())
    assert "orecast" not in summary_markdown(of(artifact(forecast=[])))


def test_the_summary_shows_markdown_as_text() -> None:
    text = summary_markdown(hostile())
    assert re.findall(r"(?<!\\)[<`\[]", text) == []
    assert "\\<script\\>" in text
    assert len(text.splitlines()) == len(summary_markdown(missed()).splitlines()) + 2


def test_the_summary_stays_short() -> None:
    many = artifact(passed=False, misses=[f"{index} is wrong " + "x" * 10_000 for index in range(500)])
    text = summary_markdown(of(many))
    assert "and 480 more" in text
    assert len(text) < 50_000


# ---- the files ------------------------------------------------------------------------------------------------


def test_the_same_document_gives_the_same_bytes(tmp_path: Path, document: Document, samples: list[Sample]) -> None:
    first = write_reports(document, tmp_path / "new" / "one", samples)
    second = write_reports(copy.deepcopy(document), tmp_path / "two", copy.deepcopy(samples))
    assert first == (tmp_path / "new/one/report.json", tmp_path / "new/one/report.html")
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert json.loads(first[0].read_text("utf-8")) == document
    assert sorted(path.name for path in first[0].parent.iterdir()) == ["report.html", "report.json"]
    assert junit_bytes(document) == junit_bytes(copy.deepcopy(document))


def test_a_bundle_keeps_its_own_report(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="is a bundle"):
        write_reports(passed(), tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_what_is_not_valid_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a verification report"):
        write_reports({**passed(), "passed": 1}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't write"):
        write_reports(passed(), tmp_path / "file")
