"""The checks as JUnit XML, as CI systems read it: a suite for each artifact, a case for each check.

The elements and attributes are those of the schema of Jenkins' xUnit plugin (junit-10.xsd), the strictest in use.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

from xformer_mobile.report.checks import Check, checks_of
from xformer_mobile.report.markup import printable

__all__ = ["junit_bytes"]

ELEMENTS = {"missed": "failure", "error": "error", "skipped": "skipped"}
"""What stands in a case that did not pass, by the check's status."""


def junit_bytes(document: Mapping[str, Any]) -> bytes:
    """The document's checks as JUnit XML in UTF-8. It has no times: the same document gives the same bytes.

    What is wrong with the whole run is a suite of its own, named "run", with one case for each error.
    """
    bundle = document["bundle"]["name"]
    suites = [
        _suite(f"{bundle}/{artifact['format']}", f"{bundle}.{artifact['format']}", checks_of(artifact))
        for artifact in document["artifacts"]
    ]
    if document["errors"]:
        broken = [
            Check("run", f"error {index}", "error", "", (error,)) for index, error in enumerate(document["errors"], 1)
        ]
        suites.append(_suite(f"{bundle}/run", f"{bundle}.run", broken))
    root = ET.Element("testsuites", name=printable(f"xformer-verify {bundle}"))
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in suites)))
    root.extend(suites)
    ET.indent(root)
    made: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return made + b"\n"


def _suite(name: str, class_name: str, checks: Sequence[Check]) -> ET.Element:
    statuses = [check.status for check in checks]
    suite = ET.Element(
        "testsuite",
        name=printable(name),
        tests=str(len(checks)),
        failures=str(statuses.count("missed")),
        errors=str(statuses.count("error")),
        skipped=str(statuses.count("skipped")),
    )
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname=printable(class_name), name=printable(check.title))
        if check.status != "passed":
            sentences = [printable(reason) for reason in check.reasons]
            found = ET.SubElement(case, ELEMENTS[check.status], message="; ".join(sentences))
            if check.status != "skipped":
                found.set("type", check.key)
                found.text = "\n".join(sentences)
    return suite
