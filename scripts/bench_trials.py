"""Many comparisons, with or without neighbours that take the processor in bursts: how often each verdict comes.

    python scripts/bench_trials.py BASE CANDIDATE TRIALS [--neighbours N] [--budget SECONDS] [--max-regression 3%]
                                   [--log FILE]

For an idle machine: whatever else runs there is part of the trial. The log has one line of JSON a comparison, and
trials that it already has are not done again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

COMMAND = "from xformer_mobile.cli import bench_main; bench_main()"


def neighbour(seed: int) -> None:
    """Busy for 0.05 to 0.6 s, idle for 0.1 to 1 s, for ever; memory is read as well as the processor used."""
    draw, block = random.Random(seed), bytearray(1 << 25)
    while True:
        until = time.monotonic() + draw.uniform(0.05, 0.6)
        while time.monotonic() < until:
            block[::4096].count(1)
            sum(range(10_000))
        time.sleep(draw.uniform(0.1, 1.0))


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Run so many of them for as long as the block."""
    started = [subprocess.Popen([sys.executable, __file__, "--neighbour", str(seed)]) for seed in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> None:
    """Compare again and again; print what came out."""
    if sys.argv[1:2] == ["--neighbour"]:
        neighbour(int(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("candidate")
    parser.add_argument("trials", type=int)
    parser.add_argument("--neighbours", type=int, default=0)
    parser.add_argument("--budget", default="90")
    parser.add_argument("--max-regression", default="3%")
    parser.add_argument("--clock", default="wall")
    parser.add_argument("--log", type=Path, default=Path("bench_trials.jsonl"))
    options = parser.parse_args()
    arguments = ["--budget", options.budget, "--max-regression", options.max_regression, "--clock", options.clock]
    done = options.log.read_text("utf-8").splitlines() if options.log.exists() else []
    with neighbours(options.neighbours), options.log.open("a", encoding="utf-8") as log:
        while len(done) < options.trials:
            run = [sys.executable, "-c", COMMAND, "compare", options.base, options.candidate, "--json", *arguments]
            result = subprocess.run(run, capture_output=True, text=True, check=False)
            document = json.loads(result.stdout)
            document.pop("pairs", None)
            line = json.dumps({**document, "status": result.returncode, "neighbours": options.neighbours})
            log.write(line + "\n")
            log.flush()
            done.append(line)
            print(len(done), document.get("verdict"), document.get("ratio"), flush=True)
    found = [json.loads(line) for line in done]
    verdicts = Counter(entry.get("verdict", "error") for entry in found)
    seconds = sorted(entry.get("seconds", 0) for entry in found)
    print(", ".join(f"{name} {count / len(found):.1%}" for name, count in verdicts.most_common()))
    print(f"{len(found)} trials, {seconds[len(seconds) // 2]:.0f} s the median, {seconds[-1]:.0f} s the longest")


if __name__ == "__main__":
    main()
