"""``xformer-bench``: how fast is a bundle here, is another one slower, and what can be counted instead."""

from __future__ import annotations

import contextlib
import itertools
import math
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from xformer_mobile import __version__
from xformer_mobile.artifact import FORMATS, Bundle
from xformer_mobile.bench import (
    Comparison,
    LatencyRun,
    Plan,
    Settings,
    check_comparable,
    choose_artifacts,
    choose_cpus,
    choose_engines,
    compare,
    measure,
    noise_of,
)
from xformer_mobile.bench.counts import COUNTS, INSTRUCTIONS, Baseline, Counts, count_bundle, exceeded, improved
from xformer_mobile.bench.instructions import InstructionCount, choose, count_instructions, find_tool, origin_of
from xformer_mobile.bench.report import distribution_svg, figures, histogram, html_page, milliseconds
from xformer_mobile.bench.revision import checked_out, export, repository_of
from xformer_mobile.cli import bench_peers
from xformer_mobile.cli.common import (
    PATH,
    common_options,
    human_size,
    note,
    print_json,
    print_table,
    time_left,
)
from xformer_mobile.errors import UsageError
from xformer_mobile.files import write_file
from xformer_mobile.optional import require
from xformer_mobile.spec import lookup

__all__ = ["command"]

EPILOG = """\b
Examples:
  xformer-bench run my-bundle
  xformer-bench compare old-bundle new-bundle --max-regression 3%
  xformer-bench counts my-bundle --baseline counts.json
  xformer-bench peers --image-size 256
  xformer-bench show run.json phone.json --html latency.html
"""

RUN_EPILOG = """\b
Examples:
  xformer-bench run my-bundle
  xformer-bench run my-bundle --engine onnxruntime --engine litert --threads 2 --output run.json
"""

COMPARE_EPILOG = """\b
Examples:
  xformer-bench compare old-bundle new-bundle
  xformer-bench compare old-bundle new-bundle --max-regression 5% --budget 300 --json
  xformer-bench compare --base-rev main --export "--format onnx --variant xformer_xs"
"""

COUNTS_EPILOG = """\b
Examples:
  xformer-bench counts my-bundle --write-baseline counts.json
  xformer-bench counts my-bundle --baseline counts.json
  xformer-bench counts my-bundle --max-transposes 6 --max-partitions 1 --max-ops onnx=900
  xformer-bench counts my-bundle --instructions --engine litert
"""

SHOW_EPILOG = """\b
Examples:
  xformer-bench show run.json
  xformer-bench show host.json pixel.json iphone.json --html latency.html
  xformer-bench show run.json --plot distribution.svg
"""


class _ShareType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    name = "PERCENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%"))
        except ValueError:
            share = math.nan
        if not text.endswith("%") or not 0 <= share <= 1000:
            raise UsageError(f"got {value!r}; a regression is given in percent, such as 3%")
        return share / 100


class _LimitType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    name = "[FORMAT=]N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        format, _, number = str(value).strip().rpartition("=")
        if format:
            lookup("format", format, FORMATS)
        if not (number.isascii() and number.isdigit()) or len(number) > 18:
            raise UsageError(f"got {value!r}; a limit is a number, or FORMAT=N such as onnx=300")
        return format, int(number)


@click.group(epilog=EPILOG, no_args_is_help=False)
@click.version_option(__version__, package_name="xformer-mobile")
def command() -> None:
    """Measure, compare and count: latency that can be relied on, or a word that it can't."""


command.add_command(bench_peers.command)


# ---- run ----------------------------------------------------------------------------------------------------


@command.command("run", epilog=RUN_EPILOG)
@click.argument("path", metavar="BUNDLE", type=PATH)
@click.option("--engine", "engines", multiple=True, metavar="NAME", help="Repeat it. [default: every installed one]")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads of the engine.")
@click.option("--runs", type=click.IntRange(10, 100_000), default=300, show_default=True, help="Runs of each engine.")
@click.option("--processes", type=click.IntRange(1, 20), default=3, show_default=True, help="Processes to share them.")
@click.option("--output", type=PATH, metavar="FILE", help="Write the LatencyRun, raw samples and all.")
@common_options
def run_(
    path: Path,
    engines: tuple[str, ...],
    threads: int,
    runs: int,
    processes: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a bundle on this machine.

    Load, first run, preprocessing, inference and postprocessing are measured apart. Where the machine was too noisy,
    it says so; the exit status is 0 all the same. A computer's latency is not a phone's.
    """
    bundle = Bundle.open(path)
    names = choose_engines(bundle, engines)
    with time_left(quiet=quiet, total=runs * len(choose_artifacts(bundle, names))) as update:
        done = 0

        def report(name: str, count: int) -> None:
            nonlocal done
            done += count
            update(name, done)

        found = measure(path, names, threads=threads, runs=runs, processes=processes, report=report)
    if output is not None:
        write_file(output, found.as_bytes())
    if as_json:
        print_json(found.document)
    else:
        _print_run(str(path), found)
        if output is not None:
            click.echo(f"LatencyRun: {output}")


# ---- compare ------------------------------------------------------------------------------------------------


@command.command("compare", epilog=COMPARE_EPILOG)
@click.argument("paths", metavar="[BASE CANDIDATE]", type=PATH, nargs=-1)
@click.option("--base-rev", metavar="REV", help="Instead of BASE: export it with a git revision of the project.")
@click.option("--candidate-rev", metavar="REV", help="With --base-rev. [default: the working tree]")
@click.option("--export", "options", metavar="OPTIONS", help="With --base-rev: xformer-export's options, in quotes.")
@click.option("--max-regression", type=_ShareType(), default="3%", show_default=True, help="How much slower it may be.")
@click.option("--engine", metavar="NAME", help="The engine. [default: the first installed one that runs both]")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads of the engine.")
@click.option("--budget", type=click.FloatRange(5, 86_400), default=90.0, show_default=True, help="Seconds, at most.")
@click.option("--pairs", type=click.IntRange(1, 1_000_000), help="Pairs, at most. [default: no limit]")
@click.option(
    "--alpha",
    type=click.FloatRange(1e-9, 0.2),
    default=0.01,
    show_default=True,
    help="How often, at most, each bound of the interval may be wrong.",
)
@click.option(
    "--clock",
    type=click.Choice(["wall", "cpu"]),
    default="wall",
    show_default=True,
    help="cpu: the processor's time, which other processes disturb less; it does not see waiting.",
)
@click.option("--output", type=PATH, metavar="FILE", help="Write the comparison with every pair, as JSON.")
@common_options
def compare_(
    paths: tuple[Path, ...],
    base_rev: str | None,
    candidate_rev: str | None,
    options: str | None,
    max_regression: float,
    engine: str | None,
    threads: int,
    budget: float,
    pairs: int | None,
    alpha: float,
    clock: Any,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Is the candidate slower than the base by more than is allowed?

    Both are run here, in turns, until the answer is certain or the budget is spent. The verdict is slower, faster,
    no change or can't tell; the exit status is 1 for slower only (and, as everywhere, for an error).
    """
    plan = Plan(max_regression, alpha, budget, pairs, clock=clock)
    with _sides(paths, base_rev, candidate_rev, options, quiet=quiet) as (base, candidate):
        name = _common_engine(base, candidate, engine)
        cpus = choose_cpus(threads)
        with time_left(quiet=quiet, total=budget, suffix="at most") as update:
            found = compare(
                Settings(base, name, threads, cpus),
                Settings(candidate, name, threads, cpus),
                plan,
                lambda seconds, count: update(f"{count} pairs", seconds),
            )
        document: dict[str, Any] = {"base": str(base), "candidate": str(candidate), "engine": name, "threads": threads}
    if base_rev is not None:
        document |= {"base": base_rev, "candidate": candidate_rev or "the working tree"}
    document |= found.as_json()
    if output is not None:
        import json

        write_file(output, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    if as_json:
        print_json(document)
    else:
        _print_comparison(document["base"], document["candidate"], name, found)
    return 0 if found else 1


@contextlib.contextmanager
def _sides(
    paths: tuple[Path, ...], base_rev: str | None, candidate_rev: str | None, options: str | None, *, quiet: bool
) -> Iterator[tuple[Path, Path]]:
    """The two bundles: those that are given, or those of two revisions, for as long as the block runs."""
    if base_rev is None:
        if candidate_rev is not None or options is not None:
            raise UsageError("--candidate-rev and --export go with --base-rev")
        if len(paths) != 2:
            raise UsageError(f"got {len(paths)} of BASE and CANDIDATE; give two bundles, or --base-rev")
        files = [path for path in paths if path.is_file()]
        if len(files) == 2:
            check_comparable({str(path): LatencyRun.read(path) for path in files})
        if files:
            raise UsageError(f"{files[0]} is a file; compare takes two bundles, which it runs itself")
        yield paths[0], paths[1]
        return
    if paths:
        raise UsageError("give two bundles, or --base-rev, not both")
    repository = repository_of(Path.cwd())
    arguments = shlex.split(options or "")
    if any(argument.split("=")[0] in ("--output", "--json") for argument in arguments):
        raise UsageError("--export takes neither --output nor --json: the bundles are temporary")
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xformer-bench-")))
        trees = {"base": stack.enter_context(checked_out(repository, base_rev)), "candidate": repository}
        if candidate_rev is not None:
            trees["candidate"] = stack.enter_context(checked_out(repository, candidate_rev))
        names = {"base": base_rev, "candidate": candidate_rev or "the working tree"}
        bundles = []
        for side, tree in trees.items():
            note(f"note: exporting the {side}, {names[side]}", quiet=quiet)
            bundles.append(export(tree, names[side], arguments, place / side))
        yield bundles[0], bundles[1]


def _common_engine(base: Path, candidate: Path, engine: str | None) -> str:
    bundles = Bundle.open(base), Bundle.open(candidate)
    asked = () if engine is None else (engine,)
    first, second = (choose_engines(bundle, asked) for bundle in bundles)
    found = [name for name in first if name in second]
    if not found:
        raise UsageError(
            f"no installed engine runs both: {', '.join(first)} run {base}, {', '.join(second)} {candidate}"
        )
    sizes = {str(bundle.image_size) for bundle in bundles}
    tasks = {bundle.task for bundle in bundles}
    if len(sizes) > 1 or len(tasks) > 1:
        raise UsageError(f"{base} and {candidate} do different work: {', '.join(sorted({*sizes, *tasks}))}")
    return found[0]


def _print_comparison(base: str, candidate: str, engine: str, found: Comparison) -> None:
    interval, plan = found.interval, found.plan
    low = f"{interval.low_ratio - 1:+.1%}" if math.isfinite(interval.low) else "unknown"
    high = f"{interval.high_ratio - 1:+.1%}" if math.isfinite(interval.high) else "unknown"
    click.echo(f"{found.verdict}: {candidate} against {base} on {engine}")
    click.echo(
        f"  {'processor' if plan.clock == 'cpu' else 'inference'} time {found.median_ratio - 1:+.1%}, "
        f"between {low} and {high}; {plan.gate:+.1%} is allowed"
    )
    rounds = len(found.rounds(plan.clock))
    click.echo(
        f"  {len(found.pairs)} pairs in {rounds} rounds of processes, {found.seconds:.0f} s; "
        f"each bound is wrong with {plan.alpha:.1%} at most"
    )
    for reason in found.reasons():
        click.echo(f"  {reason}")
    if any(loaded.denormals == "not guarded against" for loaded in found.loaded):
        click.echo("  note: denormal numbers are not guarded against on this system")


# ---- counts -------------------------------------------------------------------------------------------------


def _limit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, meaning in reversed(COUNTS.items()):
        option = click.option(f"--max-{name}", type=_LimitType(), multiple=True, help=f"Limit: {meaning}.")
        function = option(function)
    return function


@command.command("counts", epilog=COUNTS_EPILOG)
@click.argument("path", metavar="BUNDLE", type=PATH)
@click.option("--baseline", type=PATH, metavar="FILE", help="Allow no count to be above this file's.")
@click.option("--write-baseline", type=PATH, metavar="FILE", help="Write the counts as a baseline.")
@click.option("--instructions", is_flag=True, help="Count instructions too, in perf or valgrind: takes minutes.")
@click.option("--engine", "engines", multiple=True, metavar="NAME", help="Count those of this engine only. Repeat it.")
@_limit_options
@common_options
def counts_(
    path: Path,
    baseline: Path | None,
    write_baseline: Path | None,
    instructions: bool,
    engines: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **limits: tuple[tuple[str, int], ...],
) -> int:
    """Count what is the same each time, and hold it to limits.

    A limit N is for every format that has the count, FORMAT=N for one. Limits on the command line replace the
    baseline's. Exits with 1 when a count is above its limit. Instructions are counted with --instructions, or where a
    limit or the baseline names them.
    """
    bundle = Bundle.open(path)
    before = None if baseline is None else Baseline.read(baseline)
    general, own = _limits({name: limits[f"max_{name.replace('-', '_')}"] for name in COUNTS}, bundle)
    asked = instructions or bool(engines) or INSTRUCTIONS in general
    named = {format for format in own if INSTRUCTIONS in own[format]}
    if before is not None:
        named |= {format for format in bundle.formats if INSTRUCTIONS in before.counts.get(format, {})}
    counts = count_bundle(bundle)
    counted: dict[str, InstructionCount] = {}
    origins: dict[str, dict[str, str]] = {}
    if asked or named:
        tool, rows = find_tool(), choose(bundle, engines)
        chosen = {format: row for format, row in rows.items() if asked or format in named}
        origins = {format: origin_of(tool, row) for format, row in chosen.items()}
        if before is not None and not asked:
            # What the baseline alone names and can't be compared is not worth the minutes.
            limited = {format for format in own if INSTRUCTIONS in own[format]}
            chosen = {
                format: row
                for format, row in chosen.items()
                if format in limited or before.origins.get(format) == origins[format]
            }
        with time_left(quiet=quiet, total=3.0 * len(chosen)) as update:
            steps = itertools.count()
            for format, row in chosen.items():
                counted[format] = count_instructions(bundle, format, row, tool, lambda step: update(step, next(steps)))
                counts[format][INSTRUCTIONS] = counted[format].instructions
    found = exceeded(counts, general, own, before, origins)
    lower = [] if before is None else list(improved(counts, before, origins))
    if write_baseline is not None:
        write_file(write_baseline, Baseline(counts, origins).as_bytes())
    for format in sorted((before.counts if before else {}).keys() - counts.keys()):
        note(f"note: the baseline has {format}, the bundle has not", quiet=quiet)
    if as_json:
        document: dict[str, Any] = {
            "bundle": str(path),
            "passed": not found,
            "counts": counts,
            "exceeded": [str(excess) for excess in found],
            "below_baseline": [
                {"format": format, "count": name, "found": now, "baseline": then} for format, name, now, then in lower
            ],
        }
        if counted:
            document[INSTRUCTIONS] = {
                format: {**one.origin, "runs": one.runs, "note": one.note} for format, one in counted.items()
            }
        print_json(document)
        return 1 if found else 0
    _print_counts(str(path), counts, before)
    for format, one in counted.items():
        said = one.origin
        click.echo(
            f"instructions of {format}: {said['engine']}, one thread, {one.runs} runs counted by {said['tool']} on "
            f"{said['architecture']} ({said['processor']}); {one.note}"
        )
    for excess in found:
        click.echo(f"MISSED: {excess}")
    if lower:
        names = ", ".join(f"{format} {name}" for format, name, _, _ in lower)
        click.echo(f"below the baseline, which --write-baseline can lower: {names}")
    return 1 if found else 0


def _limits(
    given: Mapping[str, tuple[tuple[str, int], ...]], bundle: Bundle
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """The limits for all formats by count, and those for one format by format and count; the last one given holds."""
    general: dict[str, int] = {}
    own: dict[str, dict[str, int]] = {}
    for name, values in given.items():
        for format, limit in values:
            if not format:
                general[name] = limit
            elif format in bundle.formats:
                own.setdefault(format, {})[name] = limit
            else:
                raise UsageError(f"--max-{name} is for {format}; {bundle.path} has {', '.join(bundle.formats)}")
    return general, own


def _print_counts(name: str, counts: Counts, baseline: Baseline | None) -> None:
    table = Table("count", *counts, title=name)
    for column in table.columns[1:]:
        column.justify = "right"
    known = baseline.counts if baseline else {}
    for count in COUNTS:
        if count == INSTRUCTIONS and not any(count in found for found in counts.values()):
            continue
        cells = []
        for format, found in counts.items():
            value, before = found.get(count), known.get(format, {}).get(count)
            change = f" ({value - before:+,d})" if value is not None and before is not None and value != before else ""
            cells.append("" if value is None else f"{value:,}{change}")
        table.add_row(count, *cells)
    print_table(table)


# ---- show ---------------------------------------------------------------------------------------------------


@command.command("show", epilog=SHOW_EPILOG)
@click.argument("paths", metavar="FILE...", type=PATH, nargs=-1, required=True)
@click.option("--html", type=PATH, metavar="FILE", help="Write tables and distributions as one HTML file.")
@click.option("--plot", type=PATH, metavar="FILE", help="Write the distributions as an SVG picture.")
@common_options
def show_(paths: tuple[Path, ...], html: Path | None, plot: Path | None, as_json: bool, quiet: bool) -> None:
    """Show LatencyRun files, from this machine or from phones."""
    files = {str(path): LatencyRun.read(path) for path in paths}
    if html is not None or plot is not None:
        require("matplotlib", extra="report")
    if len({found.machine["id"] for found in files.values()}) > 1:
        note("note: these are from different machines; their times are not comparable", quiet=quiet)
    if plot is not None:
        write_file(plot, ('<?xml version="1.0" encoding="utf-8"?>\n' + distribution_svg(files)).encode())
    if html is not None:
        write_file(html, html_page(files).encode())
    if as_json:
        documents = []
        for name, found in files.items():
            entries = [
                {"name": entry.name, "figures": figures(entry), "too_noisy": noise_of(entry)}
                for entry in found.measurements
            ]
            documents.append({"file": name, "latency_run": found.document, "measurements": entries})
        print_json({"files": documents})
        return
    for name, found in files.items():
        _print_run(name, found)
    for made in (html, plot):
        if made is not None:
            click.echo(f"Written: {made}")


def _print_run(name: str, found: LatencyRun) -> None:
    click.echo(f"{name}: {found.machine_name}, {found.document['created']}")
    for entry in found.measurements:
        table = Table("phase", "samples", "min", "p50", "p90", "p99", "spread", "distribution", title=entry.name)
        for column in table.columns[1:7]:
            column.justify = "right"
        for phase, measured in entry.statistics().items():
            times = (measured.min_ns, measured.p50_ns, measured.p90_ns, measured.p99_ns)
            table.add_row(
                phase,
                str(measured.count),
                *(f"{milliseconds(value)} ms" for value in times),
                f"{measured.spread:.0%}",
                histogram(entry.samples_ns(phase)),
            )
        print_table(table)
        peak, size = entry.peak_over_loaded_bytes, entry.document["artifact"]["size_bytes"]
        memory = "not measured" if peak is None else f"{human_size(peak)} over the loaded model"
        click.echo(f"size {human_size(size)}, memory {memory}")
        for reason in noise_of(entry):
            click.echo(f"too noisy to tell: {reason}")
