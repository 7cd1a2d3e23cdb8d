"""A bundle of another revision of the project, exported on the spot by that revision's own code."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from xformer_mobile.errors import BenchmarkError, MissingDependencyError, UsageError

__all__ = ["checked_out", "export", "repository_of"]

BOOT = "import sys; sys.path.remove(''); from xformer_mobile.cli import export_main; export_main()"
"""Without the working directory among the places that modules are looked for in: it may be a clone of its own."""


def repository_of(directory: Path) -> Path:
    """The root of the git repository of the project that ``directory`` is in.

    Raises:
        UsageError: it is in none, or in that of another project.
    """
    try:
        root = Path(_git(directory, "rev-parse", "--show-toplevel"))
    except BenchmarkError as error:
        raise UsageError(f"--base-rev needs a clone of the project; {directory} is in none: {error}") from error
    if not (root / "export/__init__.py").is_file() or not (root / "xformer_mobile/__init__.py").is_file():
        raise UsageError(f"--base-rev needs a clone of the project; {root} is another one")
    return root


@contextlib.contextmanager
def checked_out(repository: Path, revision: str) -> Iterator[Path]:
    """A revision's files in a temporary directory, which is gone, with git's note of it, when the block ends.

    Raises:
        UsageError: git knows no such revision.
    """
    try:
        commit = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except BenchmarkError as error:
        raise UsageError(f"git knows no revision {revision!r} in {repository}") from error
    with tempfile.TemporaryDirectory(prefix="xformer-bench-") as temporary:
        tree = Path(temporary) / "tree"
        _git(repository, "worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            _git(repository, "worktree", "remove", "--force", str(tree))


def export(tree: Path, name: str, options: Sequence[str], output: Path) -> Path:
    """Export with the code of ``tree`` in a process of its own; returns the bundle's path. Errors say ``name``.

    Raises:
        BenchmarkError: the export failed; its message is repeated.
    """
    with tempfile.TemporaryDirectory(prefix="xformer-bench-path-") as temporary:
        modules = Path(temporary)
        for package, folder in (("xformer_mobile", "xformer_mobile"), ("xformer_export", "export")):
            (modules / package).symlink_to((tree / folder).resolve(), target_is_directory=True)
        environment = {**os.environ, "PYTHONPATH": str(modules)}
        done = subprocess.run(
            [sys.executable, "-c", BOOT, *options, "--output", str(output), "--quiet"],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise BenchmarkError(f"the export of {name} failed with exit status {done.returncode}: {said[:300]}")
    return output


def _git(directory: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=directory, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError as error:
        raise MissingDependencyError("git is not installed; --base-rev needs it") from error
    if done.returncode:
        raise BenchmarkError(" ".join(done.stderr.split())[:200] or f"git {arguments[0]} failed")
    return done.stdout.strip()
