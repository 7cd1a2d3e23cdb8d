"""What was checked of an artifact, check by check, from the document alone: for the page, JUnit and the summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from xformer_mobile.report.figures import count_text, decibels, number, share

__all__ = ["Check", "Status", "checks_of", "counts", "layer_of", "passed_of", "summary_line", "worst_output"]

Status = Literal["passed", "missed", "error", "skipped"]

NOT_MADE = {
    "parity": "the outputs were not compared",
    "agreement": "the results were not compared",
    "since_export": "the figures were not compared with those of the export",
    "metadata": "the metadata was not read",
    "layers": "the layers were not looked into",
    "second_reader": "no second reader was asked",
}
"""Why a check was not made, where the document does not say."""


UNBOUNDED = "no share is demanded at this precision"
"""Why an agreement is no check: its figure is there, and nothing to hold it to."""

SOURCES = {"golden": "golden picture", "images": "picture of yours", "scenes": "drawn scene"}
"""What the pictures are called, by where they are from."""


@dataclass(frozen=True)
class Check:
    """One check of one artifact.

    ``key`` is the document's name of it, ``title`` the reader's; ``figure`` what was found in a few words, empty where
    nothing was. ``reasons`` are sentences: why it is missed, or why it was not made.
    """

    key: str
    title: str
    status: Status
    figure: str = ""
    reasons: tuple[str, ...] = ()


def checks_of(artifact: Mapping[str, Any]) -> tuple[Check, ...]:
    """Every check of an artifact of the document, in a fixed order.

    The document has the misses as one list of sentences. Each goes to the failed check that it speaks of; one that
    speaks of none is a check of its own, so that none is lost.
    """
    error, parity = artifact["error"], artifact["parity"]
    found = [
        Check("opens", "opens and runs", "error", "", (error,))
        if error
        else Check("opens", "opens and runs", "passed", artifact["engine"] or "")
    ]
    found.append(_metadata(artifact["metadata"]))
    if parity is None:
        found.append(_skipped("parity", "parity"))
        found.append(_skipped("agreement", "agreement"))
    else:
        found += [_output(name, figures) for name, figures in parity["outputs"].items()]
        found.append(_agreement(parity))
    found.append(_since_export(artifact["since_export"]))
    found.append(_layers(artifact["layers"]))
    found.append(_second_reader(artifact["second_reader"]))
    if error:
        found = [
            replace(check, reasons=("the artifact could not be checked",)) if check.status == "skipped" else check
            for check in found
        ]
    return _with_sentences(found, artifact)


def summary_line(document: Mapping[str, Any]) -> str:
    """The verdict in one sentence."""
    artifacts = document["artifacts"]
    passed = sum(artifact["passed"] for artifact in artifacts)
    pictures = document["pictures"]
    return (
        f"{passed} of {count_text(len(artifacts), 'artifact')} passed "
        f"on {count_text(pictures['count'], SOURCES[pictures['source']])}"
    )


def passed_of(artifacts: Iterable[Mapping[str, Any]], errors: Iterable[str]) -> bool:
    """Whether a whole run passed: every artifact did, and the run has no errors."""
    return all(artifact["passed"] for artifact in artifacts) and not list(errors)


def counts(document: Mapping[str, Any]) -> tuple[int, int]:
    """How many misses the document has, and how many errors, those of artifacts and of the run."""
    misses = sum(len(artifact["misses"]) for artifact in document["artifacts"])
    broken = sum(artifact["error"] is not None for artifact in document["artifacts"])
    return misses, broken + len(document["errors"])


def worst_output(outputs: Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]]:
    """The output of the lowest signal-to-noise ratio; one without a finite one that differs is worse than all."""

    def rank(item: tuple[str, Mapping[str, Any]]) -> float:
        figures = item[1]
        if figures["snr_db"] is not None:
            return float(figures["snr_db"])
        return float("inf") if figures["max_abs"] == 0 else float("-inf")

    return min(outputs.items(), key=rank)


def layer_of(layers: Mapping[str, Any], path: str | None) -> Mapping[str, Any] | None:
    """The row of a layer, if there is one."""
    return next((row for row in layers["rows"] if row["path"] == path), None)


def _skipped(key: str, title: str, reason: str | None = None) -> Check:
    return Check(key, title, "skipped", "", (reason or NOT_MADE[key],))


def _made(key: str, title: str, passed: bool, figure: str) -> Check:
    return Check(key, title, "passed" if passed else "missed", figure)


def _metadata(metadata: Mapping[str, Any] | None) -> Check:
    if metadata is None or (metadata["passed"] and not metadata["checked"]):
        return _skipped("metadata", "metadata", metadata["reason"] if metadata else None)
    return _made("metadata", "metadata", metadata["passed"], ", ".join(metadata["checked"]))


def _output(name: str, figures: Mapping[str, Any]) -> Check:
    text = decibels(figures["snr_db"], equal=figures["max_abs"] == 0)
    return _made("parity", f"parity of {name}", figures["passed"], text)


def _agreement(parity: Mapping[str, Any]) -> Check:
    found, needed = parity["agreement"]["share"], parity["tolerance"].get("agreement", 0.0)
    if not needed:
        return Check("agreement", parity["agreement"]["name"], "skipped", share(found), (UNBOUNDED,))
    return _made("agreement", parity["agreement"]["name"], found is not None and found >= needed, share(found))


def _since_export(since: Mapping[str, Any] | None) -> Check:
    if since is None:
        return _skipped("since_export", "since export")
    drops = [then - now for then, now in since["snr_db"].values() if then is not None and now is not None]
    text = f"{round(-max(drops), 1) + 0.0:+.1f} dB" if drops else ""
    return _made("since_export", "since export", since["passed"], text)


def _layers(layers: Mapping[str, Any] | None) -> Check:
    if layers is None or not layers["looked"]:
        return _skipped("layers", "layers", layers["reason"] if layers else None)
    failed = sum(not row["passed"] for row in layers["rows"])
    text = f"{failed} of {len(layers['rows'])} fail" if failed else f"{layers['compared']} of {layers['modules']}"
    return _made("layers", "layers", layers["passed"], text)


def _second_reader(second: Mapping[str, Any] | None) -> Check:
    if second is None or second["status"] == "none":
        return _skipped("second_reader", "second reader", second["reason"] if second else None)
    return _made("second_reader", "second reader", second["status"] == "agrees", second["reader"] or "")


def _with_sentences(found: Iterable[Check], artifact: Mapping[str, Any]) -> tuple[Check, ...]:
    """The checks with the artifact's misses; a missed one of which no sentence speaks gets one of its own."""
    checks = list(found)
    left: list[str] = []
    for sentence in artifact["misses"]:
        fits = [index for index, check in enumerate(checks) if check.status == "missed"]
        place = max(fits, key=lambda index: _relation(checks[index], sentence, artifact), default=None)
        if place is None or not _relation(checks[place], sentence, artifact):
            left.append(sentence)
        else:
            checks[place] = replace(checks[place], reasons=(*checks[place].reasons, sentence))
    for index, check in enumerate(checks):
        if check.status == "missed" and not check.reasons:
            own = _own_sentence(check, artifact)
            checks[index] = replace(check, reasons=(own,))
    if left:
        checks.append(Check("other", "other checks", "missed", "", tuple(left)))
    return tuple(checks)


def _relation(check: Check, sentence: str, artifact: Mapping[str, Any]) -> int:
    """How surely a sentence speaks of a check: 0 not at all."""
    lower = sentence.lower()
    if check.key == "metadata":
        return 4 * any(miss in sentence for miss in artifact["metadata"]["misses"]) or "metadata" in lower
    if check.key == "layers":
        named = any(sentence.startswith(f"{row['path']} ") for row in artifact["layers"]["rows"])
        return 3 * named or 2 * ("layer" in lower)
    if check.key == "second_reader":
        reader = artifact["second_reader"]["reader"]
        return 3 * bool((reader and reader in sentence) or "reader" in lower)
    if check.key == "since_export":
        return 3 * ("export" in lower)
    if check.key == "parity":
        return 2 * sentence.startswith(check.title.removeprefix("parity of ") + " ")
    return 2 * sentence.startswith(check.title)


def _own_sentence(check: Check, artifact: Mapping[str, Any]) -> str:
    if check.key == "layers":
        row = layer_of(artifact["layers"], artifact["layers"]["first"])
        if row is not None:
            figures = f"own SNR {decibels(row['own_snr_db'])}, gain {number(row['gain'])}, shift {number(row['shift'])}"
            return f"{row['path']} is the first layer that fails: {figures}"
    if check.key == "second_reader" and artifact["second_reader"]["reason"]:
        return str(artifact["second_reader"]["reason"])
    if check.key == "metadata" and artifact["metadata"]["misses"]:
        return "; ".join(artifact["metadata"]["misses"])
    return f"{check.title}: missed{f' ({check.figure})' if check.figure else ''}"
