"""One line on the tests that `swift test` has run, for people and for CI; exit status 1 unless all of them passed.

python ios_demo/tools/summary.py build/apps/swift-test.log
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TOTAL = re.compile(r"Executed (\d+) tests?, with (?:(\d+) tests? skipped and )?(\d+) failures?")


def main(log: Path) -> None:
    if not log.is_file():
        sys.exit("no Swift tests were run")
    totals = TOTAL.findall(log.read_text(errors="replace"))
    if not totals:
        sys.exit(f"{log}: no test suite came to its end")
    tests, skipped, failures = (int(number or 0) for number in totals[-1])  # the last one is that of all of them
    # One test may have several failures: at least those tests have not passed.
    failed = min(failures, tests)
    print(f"Swift: {tests - failed - skipped} passed, {failed} failed, {skipped} skipped")
    sys.exit(bool(failed or skipped or not tests))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
