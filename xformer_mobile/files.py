"""Writing results so that what is there is whole: files and directories appear complete or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from xformer_mobile.errors import BusyError, OutputError

__all__ = ["exclusive_directory", "file_sha256", "output_errors", "write_file"]


@contextlib.contextmanager
def output_errors(path: Path | str) -> Iterator[None]:
    """Turn the operating system's refusals (full disk, no permission, ...) into an :class:`OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"can't write {path}: {error.strerror or error}") from error


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole: to a temporary name beside it, then renamed. The old file stays until then."""
    with output_errors(path):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def exclusive_directory(target: Path) -> Iterator[Path]:
    """Yield an empty staging directory beside ``target``; put it in the target's place when the block ends well.

    ``target`` may be absent or a directory, which is replaced in one step (where the system can swap two
    names; elsewhere by two renames). When the block raises, the old target stays and the staging directory is
    removed. While the block runs, another process that enters for the same target gets :class:`BusyError`.
    What a killed process has left is cleared by the next one.

    Raises:
        BusyError: another process is in here for the same target.
        OutputError: the place can't be written.
    """
    target = target.resolve()
    staging = target.with_name(f".{target.name}.partial")
    with output_errors(target):
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        locks = [_claim(staging, target)]
    try:
        with output_errors(target):
            _empty(staging)
        yield staging
        with output_errors(target):
            for file in staging.rglob("*"):
                _sync(file)
            if target.exists():
                locks.append(_lock(target))  # it becomes the staging directory until it is removed
            _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for lock in locks:
            os.close(lock)


def _claim(staging: Path, target: Path) -> int:
    """Create the staging directory and lock it; the lock goes with the descriptor, or with the process."""
    while True:
        staging.mkdir(exist_ok=True)
        try:
            descriptor = _lock(staging)
        except FileNotFoundError:
            continue  # removed between the two calls by the process that had it
        except BlockingIOError:
            raise BusyError(f"another process is writing {target}; wait for it, or choose another place") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(staging)):
                return descriptor
        os.close(descriptor)  # locked a directory that its owner has renamed or removed since: try again


def _lock(directory: Path) -> int:
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(staging: Path, target: Path) -> None:
    """Put ``staging`` in the place of ``target``; afterwards ``staging`` is the old target, or gone."""
    if not target.exists():
        os.rename(staging, target)
        return
    if _exchange(staging, target):
        return
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(target, old)
    try:
        os.rename(staging, target)
    except BaseException:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, by the system's own call; false where it has none."""
    at_fdcwd, linux_rename_exchange, darwin_rename_swap = -100, 2, 2
    libc = ctypes.CDLL(None, use_errno=True)
    one, two = os.fsencode(first), os.fsencode(second)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        result = libc.renameat2(at_fdcwd, one, at_fdcwd, two, linux_rename_exchange)
    elif sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        result = libc.renamex_np(one, two, darwin_rename_swap)
    else:
        return False
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), os.fspath(second))
