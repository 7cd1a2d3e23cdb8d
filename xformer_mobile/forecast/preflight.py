"""Apply the rules to an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xformer_mobile.forecast.findings import SEVERITIES, Finding
from xformer_mobile.forecast.rules import RULES
from xformer_mobile.forecast.subject import Subject, read_subject

__all__ = ["apply_rules", "forecast"]


def forecast(
    path: Path,
    format: str,
    ranges: Mapping[str, float] | None = None,
    paths: Mapping[str, str] | None = None,
) -> list[Finding]:
    """What rules with sources say of an artifact's graph. A forecast: nothing is run, and nothing measured.

    ``ranges``: the largest magnitude of tensors, measured by the caller, by the tensor's name in the artifact (in
    .tflite files, its name or its number). Without it nothing is said of fp16's range.
    ``paths``: the module path by tensor or op name, where the caller knows it better than the artifact's own names.

    The heaviest findings come first, then in the order of the rules.

    Raises:
        UsageError: no such format.
        BundleError: the file is not of that format, broken, or of a form that is not known.
        MissingDependencyError: the format's package is not installed.
    """
    return apply_rules(read_subject(path, format, ranges, paths))


def apply_rules(subject: Subject) -> list[Finding]:
    """The findings of all rules for its format."""
    found = [
        Finding(
            rule.target,
            rule.severity,
            match.op,
            match.count,
            subject.modules(match.operators),
            rule.message + match.detail,
            match.rewrite or rule.rewrite,
            rule.source,
        )
        for rule in RULES
        if subject.format in rule.formats
        for match in rule.find(subject)
    ]
    return sorted(found, key=lambda finding: list(SEVERITIES).index(finding.severity))
