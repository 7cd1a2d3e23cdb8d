"""Many comparisons on this machine, whose right answers are known: how often ``xformer-bench compare`` gives which.

    python scripts/bench_trials.py 300 --variant xformer_xs                 a bundle against itself
    python scripts/bench_trials.py 100 --variant xformer_xs --neighbours 3
    python scripts/bench_trials.py 40 --slower 5%                           against one that does 5 % more work
    python scripts/bench_trials.py 40 --slower 5% --neighbours 3
    python scripts/bench_trials.py 40 --slower 3%

For an idle machine: whatever else runs there is part of the trial. The bundles and the log are kept in --directory,
and trials that the log already has are not done again, so that it may be stopped. The slower bundle is made by
bench_slower.py; how much slower it is, a long comparison of its own says, which is kept too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent

COMMAND = "from xformer_mobile import cli; cli.{}_main()"

CALIBRATION_SECONDS = 240

FIRST_CONVOLUTIONS = 16


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


def compare(base: Path, candidate: Path, gate: str, budget: float) -> dict[str, Any]:
    """One comparison, in a process as a user starts it."""
    arguments = ["compare", str(base), str(candidate), "--json", "--max-regression", gate, "--budget", str(budget)]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format("bench"), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(f"compare failed: {done.stderr.strip()}")
    document: dict[str, Any] = {**json.loads(done.stdout), "status": done.returncode}
    return document


def make_bundle(directory: Path, variant: str) -> Path:
    """Export the variant's classifier, unless it is there."""
    bundle = directory / variant
    if not bundle.exists():
        arguments = ["--variant", variant, "--format", "onnx", "--no-verify", "--quiet", "--output", str(bundle)]
        subprocess.run(
            [sys.executable, "-c", COMMAND.format("export"), *arguments], check=True, stdout=subprocess.DEVNULL
        )
    return bundle


def make_slower(directory: Path, base: Path, share: float) -> tuple[Path, dict[str, Any]]:
    """A bundle that is slower by ``share``, and the long comparison that says by how much; both are kept.

    For +5 % and more it has to be at least so much slower, for less at most so much, each by half a point at most.
    """
    name = f"{base.name}-slower-{100 * share:g}"
    kept = directory / f"{name}.json"
    if kept.exists():
        return directory / name, json.loads(kept.read_text("utf-8"))
    convolutions = FIRST_CONVOLUTIONS
    low, high = (share, share + 0.005) if share >= 0.05 else (share - 0.005, share)
    for attempt in range(8):
        candidate = directory / f"{name}-try-{attempt}"
        if not candidate.exists():
            script = [sys.executable, str(SCRIPTS / "bench_slower.py"), str(base), str(candidate), str(convolutions)]
            subprocess.run(script, check=True)
        # A gate at about the true ratio keeps the comparison from being certain: it takes its whole budget.
        expected = (low + high) / 2
        found = compare(base, candidate, f"{100 * expected:.3f}%", CALIBRATION_SECONDS)
        ratios = [math.log(pair["candidate_ns"] / pair["base_ns"]) for pair in found.pop("pairs")]
        true = math.exp(statistics.median(ratios)) - 1
        bounds = found["ratio"]
        print(
            f"{convolutions} more convolutions: {true:+.2%} ({bounds['low'] - 1:+.2%} to {bounds['high'] - 1:+.2%}), "
            f"{len(ratios)} pairs, {found['seconds']:.0f} s",
            flush=True,
        )
        if low <= true <= high:
            candidate.rename(directory / name)
            kept.write_text(json.dumps({**found, "convolutions": convolutions, "true": true}, indent=1) + "\n", "utf-8")
            return directory / name, json.loads(kept.read_text("utf-8"))
        convolutions = max(1, round(convolutions * expected / max(true, 0.001)))
    raise SystemExit(f"found no number of convolutions for {share:+.1%}")


def main() -> None:
    """Compare again and again; print what came out."""
    if sys.argv[1:2] == ["--neighbour"]:
        neighbour(int(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=int)
    parser.add_argument("--slower", metavar="PERCENT", help="the candidate's slowdown; without it, the base itself")
    parser.add_argument("--variant", default="xformer_s")
    parser.add_argument("--neighbours", type=int, default=0)
    parser.add_argument("--budget", type=float, default=90.0, help="seconds of a comparison")
    parser.add_argument("--max-regression", default="3%")
    parser.add_argument("--directory", type=Path, default=Path("build/trials"))
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    base = make_bundle(options.directory, options.variant)
    candidate, truth = base, "the same bundle"
    if options.slower:
        candidate, calibration = make_slower(options.directory, base, float(options.slower.removesuffix("%")) / 100)
        ratio = calibration["ratio"]
        truth = f"{calibration['true']:+.2%} in a long run ({ratio['low'] - 1:+.2%} to {ratio['high'] - 1:+.2%})"
    log = options.directory / f"{candidate.name}-{options.neighbours}.jsonl"
    done = [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []
    with neighbours(options.neighbours), log.open("a", encoding="utf-8") as lines:
        while len(done) < options.trials:
            document = compare(base, candidate, options.max_regression, options.budget)
            document.pop("pairs")
            lines.write(json.dumps(document) + "\n")
            lines.flush()
            done.append(document)
            ratio, seconds = document["ratio"]["median"] - 1, document["seconds"]
            print(f"{len(done)}: {document['verdict']}, {ratio:+.2%}, {seconds:.0f} s", flush=True)
    report(done, f"{candidate.name} against {base.name}: {truth}; {options.neighbours} neighbours")


def report(done: list[dict[str, Any]], title: str) -> None:
    """The shares of the verdicts, how far the medians spread, and how long it took."""
    verdicts = Counter(document["verdict"] for document in done)
    seconds = sorted(document["seconds"] for document in done)
    ratios = sorted(document["ratio"]["median"] - 1 for document in done)
    print(title)
    print(f"{len(done)} comparisons: " + ", ".join(f"{name} {count}" for name, count in verdicts.most_common()))
    print(f"slower: {verdicts['slower'] / len(done):.1%}")
    print(f"median ratios from {ratios[0]:+.2%} to {ratios[-1]:+.2%}")
    print(f"{statistics.median(seconds):.0f} s the median, {seconds[-1]:.0f} s the longest")


if __name__ == "__main__":
    main()
