"""What the commands share: options, progress, printing, and how an error becomes one line and an exit status.

Exit status: 0 success; 1 a gate failed or a clear error; 2 wrong usage.
With ``--json`` stdout is one JSON document, also on an error; everything else is on stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from xformer_mobile import __version__
from xformer_mobile.cli import INTERRUPTED, check_interrupt, deferred_interrupt
from xformer_mobile.errors import XFormerError
from xformer_mobile.spec import ImageSize

__all__ = [
    "IMAGE_SIZE",
    "PATH",
    "Stages",
    "common_options",
    "human_size",
    "note",
    "print_json",
    "print_table",
    "progress",
    "run_command",
    "stderr_console",
    "time_left",
    "wants_debug",
]

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

DEBUG = f"{__name__}.debug"

UNLIMITED = 10_000
"""A width in characters that no table reaches."""


class _ImageSizeType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    name = "N|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ImageSize:
        return value if isinstance(value, ImageSize) else ImageSize.parse(str(value))


IMAGE_SIZE = _ImageSizeType()


def common_options(command: F) -> F:
    """``--json``, ``--quiet``, ``--debug`` and ``--version``, the same for every command."""
    for option in (
        click.version_option(__version__, package_name="xformer-mobile"),
        # Read by run_command, before and whether or not the command line can be parsed.
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_remember_debug,
            help="Show the traceback of an error, and what libraries print.",
        ),
        click.option("--quiet", is_flag=True, help="No progress and no notes."),
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, all else on stderr."),
    ):
        command = option(command)
    return command


def _remember_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = value


def wants_debug() -> bool:
    """Whether the running command was given ``--debug``."""
    return bool(click.get_current_context().meta.get(DEBUG))


def run_command(name: str, arguments: list[str] | None = None) -> NoReturn:
    """Run the command of the module ``xformer_mobile.cli.<name>`` and exit with its status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    program = f"xformer-{name}"
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that can't show a name gets its code
        with deferred_interrupt():
            command: click.Command = importlib.import_module(f"xformer_mobile.cli.{name}").command
        status = _invoke(command, program, arguments)
        sys.stdout.flush()  # here, where a failure can still be told
        check_interrupt()
    except BaseException as error:
        if isinstance(error, BrokenPipeError):
            _abandon_stdout()  # its reader went away (| head): nobody is left to tell
            sys.exit(1)
        try:
            check_interrupt()
            message, status = _explain(error, program)
        except KeyboardInterrupt:
            message, status = INTERRUPTED, 1
        _fail(program, arguments, message, status)
    sys.exit(status)


def _explain(error: BaseException, program: str) -> tuple[str, int]:
    """An error's one line and the exit status."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED, 1
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else program
        return f"{_one_line(error.format_message())} (see {where} --help)", 2
    if isinstance(error, click.ClickException):
        return _one_line(error.format_message()), error.exit_code
    if isinstance(error, XFormerError):
        return _one_line(str(error)), error.exit_code
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"the system refused{where}: {error.strerror or error}", 1
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --image-size or smaller pictures", 1
    if isinstance(error, Exception):
        detail = f"{type(error).__name__}: {_one_line(str(error))}"
        return f"internal error, please report it with the output of --debug: {detail}", 1
    raise error


def _invoke(command: click.Command, program: str, arguments: list[str]) -> int:
    """Parse and run; returns the exit status. Not command.main(), which answers Ctrl-C with lines of its own."""
    try:
        with command.make_context(program, list(arguments)) as context:
            return int(command.invoke(context) or 0)
    except click.exceptions.Exit as done:  # --help, --version
        return done.exit_code


def _abandon_stdout() -> None:
    """Let what is left in stdout's buffer go nowhere, so that the interpreter does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(program: str, arguments: list[str], message: str, status: int) -> NoReturn:
    if "--debug" in arguments:
        import traceback

        traceback.print_exc()
    print(f"{program}: error: {message}", file=sys.stderr)
    try:
        if "--json" in arguments:
            print_json({"error": {"message": message, "exit_code": status}})
        sys.stdout.flush()
    except OSError:
        _abandon_stdout()  # stdout itself is what failed; the line above has said so
    sys.exit(status)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def note(message: str, *, quiet: bool) -> None:
    """A line on stderr that is not part of the result."""
    if not quiet:
        print(message, file=sys.stderr)


def print_json(document: Any) -> None:
    """The command's one JSON document, in ASCII, which every terminal and pipe can carry."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_table(table: Table) -> None:
    """A table on stdout; as wide as it needs to be where stdout is not a terminal.

    Text is shown as it is: labels and file names are not markup.
    """
    console = _console()
    if not console.is_terminal:
        if isinstance(table.title, str):
            table.min_width = cell_len(table.title)  # a title is as wide as its table
        console.width = max(console.width, _console(width=UNLIMITED).measure(table).maximum)
    console.print(table)


def _console(**options: Any) -> Console:
    return Console(markup=False, emoji=False, highlight=False, **options)


def stderr_console() -> Console:
    """Where progress is shown: on a descriptor of its own, which stays where libraries' output is redirected."""
    if not sys.stderr.isatty():
        return _console(stderr=True)
    return _console(file=os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding))


@contextlib.contextmanager
def progress(total: int | None, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with the name of each step as it begins.

    Shows a bar with the elapsed time on stderr; nothing where stderr is not a terminal, or with ``quiet``.
    """
    console = stderr_console()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    shown = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
    with shown:
        task = shown.add_task("", total=total, completed=-1)

        def step(name: str) -> None:
            check_interrupt()
            shown.update(task, description=name, advance=1)

        yield step


@contextlib.contextmanager
def time_left(*, quiet: bool, total: float, suffix: str = "") -> Iterator[Callable[[str, float], None]]:
    """Yield a function to call with a text and with how much of the total is done; shows the time left."""
    console = stderr_console()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn(f"left {suffix}".strip(), markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as shown:
        task = shown.add_task("start", total=total)

        def update(text: str, done: float) -> None:
            check_interrupt()
            shown.update(task, description=text, completed=min(done, total))

        yield update


class Stages:
    """Stages of long work, shown as :func:`progress` and timed.

    ``total`` is None where nobody knows how many there will be. ``seconds`` is how long each has taken, by name, in
    order; it is whole once the block ends. Work that is done side by side is in lanes, each with a stage of its own.
    """

    def __init__(self, total: int | None, *, quiet: bool) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress(total, quiet=quiet)
        self._running: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> Stages:
        self._step = self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        for lane in list(self._running):
            self._end(lane)
        return self._progress.__exit__(*error)

    def begin(self, name: str, lane: str = "") -> None:
        """End the stage that runs in the lane and begin another; without a name, begin none."""
        self._end(lane)
        if name:
            self._step(name)
            self._running[lane] = name, time.monotonic()

    def _end(self, lane: str) -> None:
        if lane in self._running:
            name, since = self._running.pop(lane)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - since


def human_size(size_bytes: int) -> str:
    """A file's size in words: 21.3 MB (decimal, as stores and file managers show it)."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"
