"""One line on the tests that Maven has run, for people and for CI; exit status 1 unless all of them passed."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parent.parent

MODULES = ("core", "runtime", "app", "robolectric")
"""Each of them has tests."""


def main() -> None:
    reports = {module: sorted(ROOT.glob(f"{module}/target/surefire-reports/TEST-*.xml")) for module in MODULES}
    untested = [module for module, files in reports.items() if not files]
    if untested:
        sys.exit(f"no tests were run in {', '.join(untested)}")
    suites = [ElementTree.parse(file).getroot() for files in reports.values() for file in files]
    tests, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    print(f"Kotlin: {tests - failed - skipped} passed, {failed} failed, {skipped} skipped")
    sys.exit(bool(failed or skipped))


if __name__ == "__main__":
    main()
