"""A verification as one HTML file that a person reads: it fetches nothing, and it needs no scripts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xformer_mobile.forecast.findings import MODEL, SEVERITIES
from xformer_mobile.postprocess import Classification, ClassMap, Detection, Result, default_palette
from xformer_mobile.report.checks import (
    Check,
    Status,
    checks_of,
    counts,
    layer_of,
    summary_line,
    worst_output,
)
from xformer_mobile.report.figures import (
    bytes_text,
    count_text,
    decibels,
    inherited,
    is_equal,
    large,
    margin,
    number,
    share,
    tolerance_text,
)
from xformer_mobile.report.layer_plot import layer_plot
from xformer_mobile.report.markup import Node, append, element, html_bytes, stylesheet
from xformer_mobile.report.pictures import Sample, Shown, agreement_text, show
from xformer_mobile.report.style import STYLE

__all__ = ["page_bytes"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The browser is told too that the page fetches nothing and runs nothing."""

ICONS = {
    "passed": "M3 8.5l3.2 3.2L13 4.8",
    "missed": "M4 4l8 8M12 4l-8 8",
    "error": "M4 4l8 8M12 4l-8 8",
    "skipped": "M3.5 8h9",
}
"""Beside the words, on a field of 16 by 16."""

WORDS = {"passed": "passed", "missed": "missed", "error": "error", "skipped": "not made"}

COLUMNS = ("parity", "agreement", "since_export", "metadata", "layers", "second_reader")
"""The checks that are columns of the table of artifacts."""

LISTED = 5
"""Classes, boxes or shares that are listed below a sample picture."""


def page_bytes(document: Mapping[str, Any], samples: Sequence[Sample] = ()) -> bytes:
    """The page of a valid document, in UTF-8. The same document and samples give the same bytes."""
    bundle, artifacts = document["bundle"], document["artifacts"]
    shown = show(samples)
    sections = [_overview(artifacts)]
    if shown:
        sections.append(_samples(shown, len(samples)))
    sections += [_artifact(artifact) for artifact in artifacts]
    sections += [
        section
        for section in (_certificates(artifacts), _latency(artifacts), _forecast(artifacts))
        if section is not None
    ]
    links = [(section.get("id", ""), section.get("aria-label", "")) for section in sections]
    generator = document["generator"]
    root = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", f"{bundle['name']}: {_headline(document)}"),
            stylesheet(STYLE),
        ),
        element(
            "body",
            element(
                "header",
                element("p", "XFormer Mobile · verification", class_="eyebrow"),
                element("h1", bundle["name"]),
                _verdict(document),
                _facts(document),
                element("nav", *[element("a", name, href=f"#{key}") for key, name in links], aria_label="Contents"),
            ),
            element(
                "main",
                sections,
                element(
                    "footer",
                    f"Made by {generator['name']} {generator['version']} from report.json beside this file. "
                    "Nothing here was run on a phone unless a device is named.",
                ),
            ),
        ),
        lang="en",
    )
    return html_bytes(root)


# ---- the verdict ----------------------------------------------------------------------------------------------


def _headline(document: Mapping[str, Any]) -> str:
    misses, errors = counts(document)
    parts = [count_text(misses, "miss", "misses")] if misses else []
    parts += [count_text(errors, "error")] if errors else []
    return " and ".join(parts) or "Passed"


def _verdict(document: Mapping[str, Any]) -> ET.Element:
    status: Status = "passed" if document["passed"] else "missed"
    reasons: list[ET.Element] = [element("li", element("b", "The run"), f": {error}") for error in document["errors"]]
    for artifact in document["artifacts"]:
        sentences = [*([artifact["error"]] if artifact["error"] else []), *artifact["misses"]]
        name = artifact["format"]
        reasons += [element("li", element("b", element("a", name, href=f"#{name}")), f": {s}") for s in sentences]
    return element(
        "section",
        element("p", _icon(status), _headline(document), class_=f"word {status}"),
        element("p", f"{summary_line(document)}.", class_="soft"),
        element("ul", reasons) if reasons else None,
        class_=f"verdict {'good' if document['passed'] else 'bad'}",
        aria_label="Verdict",
    )


def _facts(document: Mapping[str, Any]) -> ET.Element:
    bundle, pictures = document["bundle"], document["pictures"]
    weights = bundle["weights"]
    source = {"sample": "sample weights", "untrained": "untrained: its predictions mean nothing"}
    facts: list[tuple[str, Node]] = [
        ("Task", f"{bundle['task']}, {count_text(bundle['num_classes'], 'class', 'classes')}"),
        ("Model", bundle["variant"]),
        ("Precision", bundle["precision"]),
        ("Input", f"{bundle['image_size'][0]}x{bundle['image_size'][1]}"),
        ("Parameters", large(bundle["parameters"])),
        ("Multiply-accumulates", large(bundle["macs"])),
        ("Weights", source.get(weights["source"], weights["source"])),
        ("Their SHA-256", element("span", weights["sha256"][:12] + "…", class_="mono", title=weights["sha256"])),
        ("Pictures", f"{pictures['count']}, {SOURCES[pictures['source']]}"),
    ]
    return element(
        "dl", [element("div", element("dt", name), element("dd", fact)) for name, fact in facts], class_="facts"
    )


SOURCES = {"golden": "the bundle's golden ones", "images": "yours", "scenes": "drawn scenes"}


def _icon(status: str) -> ET.Element:
    return element(
        "svg", element("path", d=ICONS[status]), class_=f"icon {status}", viewBox="0 0 16 16", aria_hidden="true"
    )


def _status(status: Status, text: str = "", sub: str = "") -> list[Node]:
    """A status by icon, word and colour, with the figure that it is from."""
    words = element("span", _icon(status), text or WORDS[status], class_=f"{status} short")
    return [words, element("span", sub, class_="sub")] if sub else [words]


def _section(key: str, name: str, *children: Node | Iterable[Node]) -> ET.Element:
    return element("section", *children, id=key, aria_label=name)


def _table(head: Sequence[str], rows: Iterable[ET.Element], name: str, *, cards: bool = False) -> ET.Element:
    """A table that scrolls inside its box, or whose rows are cards on a narrow screen.

    A column whose name begins with "#" is of numbers.
    """
    titles = [
        element("th", title.lstrip("#"), scope="col", class_="number" if title[:1] == "#" else None) for title in head
    ]
    table = element(
        "table", element("thead", element("tr", titles)), element("tbody", rows), class_="cards" if cards else None
    )
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=name)


def _row(
    head: Sequence[str],
    cells: Sequence[Node | Sequence[Node]],
    *,
    class_: str | None = None,
    first: str = "th",
) -> ET.Element:
    """A table's row; each cell knows its column's name, which it shows where the row is a card."""
    made = []
    for index, (title, cell) in enumerate(zip(head, cells, strict=True)):
        tag = first if index == 0 else "td"
        made.append(
            element(
                tag,
                element("span", cell) if isinstance(cell, Sequence) and not isinstance(cell, str) else cell,
                class_="number" if title[:1] == "#" else "words" if title == "found" else None,
                scope="row" if tag == "th" else None,
                data_name=title.lstrip("#") if index else None,
            )
        )
    return element("tr", made, class_=class_)


# ---- all artifacts --------------------------------------------------------------------------------------------


def _overview(artifacts: Sequence[Mapping[str, Any]]) -> ET.Element:
    head = (
        "artifact",
        "verdict",
        "#size",
        "parity",
        "agreement",
        "since export",
        "metadata",
        "layers",
        "second reader",
    )
    rows = []
    for artifact in artifacts:
        checks = checks_of(artifact)
        link = element("a", artifact["format"], href=f"#{artifact['format']}")
        engine = element("span", artifact["engine"] or "not run", class_="sub")
        verdict: Status = "passed" if artifact["passed"] else "error" if artifact["error"] else "missed"
        cells = [_cell([check for check in checks if check.key == key], artifact) for key in COLUMNS]
        rows.append(_row(head, [[link, engine], _status(verdict), bytes_text(artifact["size_bytes"]), *cells]))
    bounds = {tolerance_text(artifact["parity"]["tolerance"]) for artifact in artifacts if artifact["parity"]}
    return _section(
        "artifacts",
        "Artifacts",
        element("h2", "Artifacts"),
        element("p", f"Each against the reference model. Needed: {'; '.join(sorted(bounds))}.", class_="soft")
        if any(bounds)
        else None,
        element("div", _table(head, rows, "Artifacts", cards=True), class_="card"),
    )


def _cell(checks: Sequence[Check], artifact: Mapping[str, Any]) -> list[Node]:
    """One check, or that of all outputs: the figure where it passed, the verdict where not."""
    shown = next((check for check in checks if check.status == "missed"), checks[0])
    figure = shown.figure
    if shown.key == "parity" and artifact["parity"] is not None:
        _, figures = worst_output(artifact["parity"]["outputs"])
        figure = decibels(figures["snr_db"], equal=figures["max_abs"] == 0)
    if shown.key == "metadata" and shown.status != "skipped":
        figure = count_text(len(artifact["metadata"]["checked"]), "field")
    if shown.status == "passed":
        return _status("passed", figure)
    if shown.key == "agreement" and shown.status == "skipped" and figure:
        return _status("skipped", figure)
    return _status(shown.status, sub=figure)


# ---- one artifact ---------------------------------------------------------------------------------------------


def _artifact(artifact: Mapping[str, Any]) -> ET.Element:
    name = artifact["format"]
    verdict: Status = "passed" if artifact["passed"] else "error" if artifact["error"] else "missed"
    sentences = [*([artifact["error"]] if artifact["error"] else []), *artifact["misses"]]
    facts = [bytes_text(artifact["size_bytes"]), artifact["engine"] or "not run"]
    return _section(
        name,
        name,
        element("div", element("h2", name), element("span", _status(verdict)), class_="title"),
        element(
            "p",
            element("code", artifact["file"]),
            f" · {' · '.join(facts)} · sha256 ",
            element("code", artifact["sha256"][:12] + "…", title=artifact["sha256"]),
            class_="soft small",
        ),
        element(
            "div",
            element("ul", [element("li", sentence) for sentence in sentences], class_="misses") if sentences else None,
            _parity(artifact["parity"]),
            _other_checks(artifact),
            _layers(artifact["layers"]),
            class_="card",
        ),
    )


def _parity(parity: Mapping[str, Any] | None) -> list[Node]:
    if parity is None:
        return []
    head = (
        "output",
        "",
        "#SNR",
        "#worst picture",
        "#largest difference",
        "#of the range",
        "#mean difference",
        "#cosine",
    )
    rows = []
    for name, figures in parity["outputs"].items():
        equal = figures["max_abs"] == 0
        passed = figures["passed"]
        cells: list[Node | Sequence[Node]] = [
            name,
            _status("passed" if passed else "missed"),
            decibels(figures["snr_db"], equal=equal),
            decibels(figures["worst_snr_db"], equal=equal),
            number(figures["max_abs"]),
            number(figures["relative_max"]),
            number(figures["mean_abs"]),
            margin(figures["cosine"]),
        ]
        rows.append(_row(head, cells, class_=None if passed else "failed", first="td"))
    bounds = tolerance_text(parity["tolerance"])
    agreement = parity["agreement"]
    beside = "".join(f"; {name} {number(value)}" for name, value in agreement["figures"].items())
    return [
        element("h3", "Outputs"),
        element(
            "p", f"On {count_text(parity['images'], 'picture')}. Needed: {bounds or 'nothing'}.", class_="soft small"
        ),
        _table(head, rows, "Outputs"),
        element(
            "p",
            f"{agreement['name']}: ",
            element("b", share(agreement["share"])),
            element("span", beside, class_="soft"),
        ),
    ]


def _other_checks(artifact: Mapping[str, Any]) -> list[Node]:
    """What is not in a table of its own, a line each."""
    head = ("check", "result", "found")
    rows = [
        _row(head, [check.title, _status(check.status), _found(check, artifact)])
        for check in checks_of(artifact)
        if check.key not in ("parity", "agreement", "layers", "opens")
        or (check.key == "layers" and check.status == "skipped")
    ]
    return [element("h3", "Checks"), _table(head, rows, "Checks", cards=True)]


def _found(check: Check, artifact: Mapping[str, Any]) -> list[Node]:
    """What a check has found, in words."""
    if check.status in ("skipped", "error"):
        return [element("span", "; ".join(check.reasons), class_="soft")]
    if check.key == "metadata":
        return [element("span", f"as in the manifest: {check.figure}" if check.status == "passed" else check.figure)]
    if check.key == "since_export":
        since = artifact["since_export"]
        parts = [f"{name} {decibels(then)}, now {decibels(now)}" for name, (then, now) in since["snr_db"].items()]
        return [
            "; ".join(parts),
            element("span", f"a drop of {since['allowed_drop_db']:g} dB is allowed", class_="sub"),
        ]
    if check.key == "second_reader":
        return _second_reader(artifact["second_reader"])
    return ["; ".join(check.reasons)]


def _second_reader(second: Mapping[str, Any]) -> list[Node]:
    parts = [f"{second['reader']} against the engine on {count_text(second['pictures'], 'picture')}"]
    for name, figures in second.get("outputs", {}).items():
        equal = figures["max_abs"] == 0
        parts.append(
            f"{name} SNR {decibels(figures['snr_db'], equal=equal)}, {number(figures['relative_max'])} of the range"
        )
    if second["reason"]:
        parts.append(second["reason"])
    bounds = tolerance_text(second.get("tolerance", {}))
    return ["; ".join(parts), element("span", f"needed: {bounds}", class_="sub") if bounds else None]


def _layers(layers: Mapping[str, Any] | None) -> list[Node]:
    if layers is None or not layers["looked"]:
        return []
    limits = layers["limits"]
    how = (
        f"compared on {count_text(layers['pictures'], 'picture')}. Each is run by PyTorch on the artifact's own input "
        "of it: an error shows in the layer that makes it (own SNR). The inherited SNR has what earlier layers did too."
        if layers["pictures"]
        else "compared by their weights alone: what runs them shows no inner tensors."
    )
    failed = sum(not row["passed"] for row in layers["rows"])
    status: Status = "passed" if layers["passed"] else "missed"
    verdict = f"{failed} of {len(layers['rows'])} fail" if failed else f"all {len(layers['rows'])} passed"
    found: list[Node] = [
        element("h3", "Layers ", element("span", _status(status, verdict))),
        element(
            "p",
            f"{layers['compared']} of {count_text(layers['modules'], 'module')} {how}",
            class_="soft small",
        ),
    ]
    first = layer_of(layers, layers["first"])
    if layers["first"] is not None:
        figures = f" {first['kind']}: {_layer_figures(first, limits)}." if first is not None else ""
        found.append(
            element("p", element("b", "First to fail: "), element("code", layers["first"]), figures, class_="blame")
        )
    worst = layer_of(layers, layers["worst"])
    if worst is not None and layers["worst"] != layers["first"]:
        own = decibels(worst["own_snr_db"], equal=is_equal(worst))
        found.append(
            element(
                "p", "Lowest own SNR: ", element("code", layers["worst"]), f" {worst['kind']}, {own}.", class_="small"
            )
        )
    least = limits.get("own_snr_db")
    rounded = [row for row in layers["rows"] if row["passed"] and least and (row["own_snr_db"] or least) < least]
    if rounded:
        text = f"{count_text(len(rounded), 'layer')} below the limit passed: no noise but that of a quantization step."
        found.append(element("p", text, class_="small"))
    if layers["rows"]:
        found += [
            _key(),
            element(
                "div", layer_plot(layers), class_="scroll", tabindex="0", role="region", aria_label="Plot of the layers"
            ),
            _layer_table(layers),
        ]
    return found


def _layer_figures(row: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    """A layer's figures with their limits."""
    parts = [f"own SNR {decibels(row['own_snr_db'])}{_limit(limits, 'own_snr_db', 'at least', ' dB')}"]
    parts += [f"{name} {number(row[name])}{_limit(limits, name, 'at most')}" for name in ("gain", "shift")]
    return ", ".join(parts)


def _limit(limits: Mapping[str, float], name: str, word: str, unit: str = "") -> str:
    return f" ({word} {limits[name]:g}{unit})" if name in limits else ""


def _key() -> ET.Element:
    """What the plot's marks mean."""

    def mark(shape: ET.Element, text: str) -> ET.Element:
        return element("span", element("svg", shape, class_="plot", viewBox="0 0 24 12", aria_hidden="true"), text)

    return element(
        "div",
        mark(element("circle", cx=12, cy=6, r=3.2, class_="dot"), "own SNR"),
        mark(element("path", d="M7 1l10 10M17 1l-10 10", class_="cross"), "own SNR, failed"),
        mark(element("circle", cx=12, cy=6, r=3.2, class_="dot ring"), "not finite (at the top: equal)"),
        mark(element("line", x1=1, x2=23, y1=6, y2=6, class_="inherited"), "inherited SNR"),
        mark(element("line", x1=1, x2=23, y1=6, y2=6, class_="limit"), "limit of the own SNR"),
        class_="key",
    )


def _layer_table(layers: Mapping[str, Any]) -> ET.Element:
    limits = layers["limits"]
    head = (
        "layer",
        "kind",
        "",
        f"#own SNR{_limit(limits, 'own_snr_db', 'at least', ' dB')}",
        f"#gain{_limit(limits, 'gain', 'at most')}",
        f"#shift{_limit(limits, 'shift', 'at most')}",
        "#inherited SNR",
    )
    rows = []
    for row in layers["rows"]:
        cells: list[Node | Sequence[Node]] = [
            element("code", row["path"]),
            row["kind"],
            _status("passed" if row["passed"] else "missed"),
            decibels(row["own_snr_db"], equal=is_equal(row)),
            number(row["gain"]),
            number(row["shift"]),
            inherited(row),
        ]
        rows.append(_row(head, cells, class_=None if row["passed"] else "failed", first="td"))
    return element(
        "details",
        element("summary", f"All {count_text(len(rows), 'layer')}, in run order"),
        _table(head, rows, "Layers"),
    )


# ---- certificate, latency, forecast -----------------------------------------------------------------------------


def _certificates(artifacts: Sequence[Mapping[str, Any]]) -> ET.Element | None:
    certified = [artifact for artifact in artifacts if artifact["certificate"] is not None]
    if not certified:
        return None
    head = (
        "artifact",
        "#MACs",
        "#operators",
        "#bytes moved",
        "#weights",
        "#of the fp32 size",
        "#QDQ pairs",
        "#float islands",
    )
    rows = []
    for artifact in certified:
        found = artifact["certificate"]
        shares = [share(found[name]["share"]) for name in ("macs", "ops", "moved_bytes", "weights")]
        counted = (share(found["size_ratio"]), str(found["qdq_pairs"]), str(found["float_island_count"]))
        rows.append(_row(head, [artifact["format"], *shares, *counted]))
    return _section(
        "certificate",
        "Certificate",
        element("h2", "Certificate"),
        element(
            "p", "What of each artifact is in int8, read from the artifact when the bundle was made.", class_="soft"
        ),
        element("div", _table(head, rows, "Certificate", cards=True), class_="card"),
    )


def _latency(artifacts: Sequence[Mapping[str, Any]]) -> ET.Element | None:
    measured = [artifact for artifact in artifacts if artifact["latency"] is not None]
    if not measured:
        return None
    head = ("artifact", "#median", "#p90", "engine", "threads", "#runs", "measured on")
    rows = []
    for artifact in measured:
        found = artifact["latency"]
        threads = "its own choice" if found["threads"] is None else str(found["threads"])
        times = [f"{found[name]:.3g} ms" for name in ("median_ms", "p90_ms")]
        rows.append(
            _row(head, [artifact["format"], *times, found["engine"], threads, str(found["samples"]), found["device"]])
        )
    return _section(
        "latency",
        "Latency",
        element("h2", "Latency"),
        element(
            "p",
            "Of one inference, quoted from a file of measurements, on the device that the file names and on no other. "
            "Times of different devices are not comparable.",
            class_="soft",
        ),
        element("div", _table(head, rows, "Latency", cards=True), class_="card"),
    )


def _forecast(artifacts: Sequence[Mapping[str, Any]]) -> ET.Element | None:
    targets: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for artifact in artifacts:
        for finding in artifact["forecast"]:
            targets.setdefault(finding["target"], []).append((artifact["format"], finding))
    if not targets:
        return None
    order = list(SEVERITIES)
    groups: list[Node] = []
    for target, findings in targets.items():
        findings.sort(key=lambda pair: order.index(pair[1]["severity"]))
        title = element("h3", target, element("span", f" · {count_text(len(findings), 'finding')}", class_="soft"))
        groups.append(element("div", title, [_finding(*pair) for pair in findings], class_="card"))
    return _section(
        "forecast",
        "Forecast",
        element("h2", "Forecast"),
        element(
            "p",
            "A forecast, not a measurement: rules on each file's operators, with their sources. No target was run.",
            class_="soft",
        ),
        element(
            "p",
            [
                element("span", element("span", name, class_=f"tag {name}"), meaning, class_="meaning")
                for name, meaning in SEVERITIES.items()
            ],
            class_="soft small",
        ),
        groups,
    )


def _finding(format: str, finding: Mapping[str, Any]) -> ET.Element:
    severity = finding["severity"]
    what = "the whole model" if finding["op"] == MODEL else f"{finding['count']} {finding['op']}"
    link = finding["source"]
    modules = finding["modules"]
    return element(
        "div",
        element(
            "div",
            element("span", severity, class_=f"tag {severity}"),
            " ",
            element("b", what),
            element("span", f" · {format}", class_="soft"),
        ),
        element("p", finding["message"]),
        element("p", element("b", "Instead: "), finding["rewrite"]) if finding["rewrite"] else None,
        element(
            "p",
            "Source: ",
            element("a", link, href=link, rel="noreferrer") if link.startswith("https://") else link,
            class_="soft small",
        ),
        element(
            "details",
            element("summary", f"In {count_text(len(modules), 'module')}"),
            element("ul", [element("li", element("code", module)) for module in modules], class_="small"),
        )
        if modules
        else None,
        class_="finding",
    )


# ---- sample pictures --------------------------------------------------------------------------------------------


def _samples(shown: Sequence[Shown], count: int) -> ET.Element:
    note = "What a user would see: the reference's result and each artifact's."
    if len(shown) < count:
        note += f" {len(shown)} of {count} pictures."
    return _section(
        "pictures",
        "Pictures",
        element("h2", "Pictures"),
        element("p", note, class_="soft"),
        [_sample(one) for one in shown],
    )


def _sample(shown: Shown) -> ET.Element:
    sides: list[Node] = []
    width, height = shown.size
    if "" in shown.pictures:
        picture = element("img", src=shown.pictures[""], alt=shown.sample.name, width=width, height=height)
        sides.append(element("div", element("h3", shown.sample.name), picture))
    for name, result in shown.results.items():
        side = element("div", element("h3", name))
        if name in shown.pictures:
            alt = f"{shown.sample.name}: {name}"
            append(side, element("img", src=shown.pictures[name], alt=alt, width=width, height=height))
        if name == "reference":
            append(side, element("p", "what is expected", class_="soft small"))
        else:
            same, text = agreement_text(shown.sample.reference, result)
            status = _status("passed", text) if same else [element("span", text, class_="soft")]
            append(side, element("p", status, class_="small"))
        append(side, _listed(result, shown.sample))
        sides.append(side)
    title = None if "" in shown.pictures else element("p", element("b", shown.sample.name))
    return element("div", title, element("div", sides, class_="sides"), class_="card")


def _listed(result: Result, sample: Sample) -> ET.Element:
    """A result in words: the most probable classes, the best boxes, or the largest classes of a map."""
    items: list[Node] = []
    if isinstance(result, ClassMap):
        palette = sample.palette or default_palette(len(result.labels))
        for index, label, part in result.shares()[:LISTED]:
            color = f"background: rgb({', '.join(map(str, palette[index]))})"
            name = element("span", element("span", class_="swatch", style=color), label)
            items.append(element("li", name, element("span", f"{100 * part:.1f} %", class_="number soft")))
        return element("ul", items)
    for item in result[:LISTED]:
        value = item.probability if isinstance(item, Classification) else item.score
        score = element("span", f"{100 * value:.1f} %", class_="number soft")
        items.append(element("li", element("span", item.label), score))
        if isinstance(item, Classification):
            width = f"width: {100 * min(1.0, max(0.0, value)):.1f}%"
            items.append(element("li", element("span", element("span", style=width), class_="bar"), class_="bars"))
    hidden = len(result) - LISTED
    if hidden > 0 and any(isinstance(item, Detection) for item in result):
        items.append(element("li", element("span", f"and {hidden} more", class_="soft")))
    if not result:
        items.append(element("li", element("span", "nothing found", class_="soft")))
    return element("ul", items)
