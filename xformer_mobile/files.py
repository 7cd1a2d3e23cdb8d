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

__all__ = ["exclusive_directory", "file_sha256", "output_errors", "state_path", "tree_sha256", "write_file"]


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


def tree_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes; of a directory, that of the lines ``SHA256  PATH`` of its files.

    The lines are those of ``sha256sum``, in the order of the relative paths' bytes, with forward slashes.
    """
    if not path.is_dir():
        return file_sha256(path)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    lines = [f"{file_sha256(files[name])}  {name}\n" for name in sorted(files, key=os.fsencode)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def state_path(output: Path) -> Path:
    """Where long work that makes ``output`` keeps what it needs to be resumed."""
    return output.with_name(f"{output.name}.state")


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
            _sync(path.parent)
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
    with output_errors(target):
        target = _resolve(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f".{target.name}.lock")
        descriptor = _claim(lock, target)
    staging, old = target.with_name(f".{target.name}.partial"), _old(target)
    try:
        with output_errors(target):
            # What a killed process has left.
            _remove(staging)
            if old.exists() and not target.exists():
                os.rename(old, target)
            if target.exists() and not target.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(target))
            staging.mkdir()
        yield staging
        with output_errors(target):
            for entry in (staging, *staging.rglob("*")):
                _sync(entry)
            _swap(staging, target)
            _sync(target.parent)
    finally:
        with contextlib.suppress(OSError):
            _remove(staging)  # what is unfinished, or after a swap the old target
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _claim(lock: Path, target: Path) -> int:
    """Create the lock file and lock it; the lock goes with the descriptor, or with the process."""
    import fcntl

    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise BusyError(f"another process is writing {target}; wait for it, or choose another place") from None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # locked a file that its owner has removed since: try again


def _remove(path: Path) -> None:
    """Remove a file, a link or a directory with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _resolve(path: Path) -> Path:
    """The path behind symbolic links; one that leads back to itself is an OSError in every Python."""
    with contextlib.suppress(RuntimeError):  # what Python before 3.13 raises for it; later ones return the link
        resolved = path.resolve()
        if not resolved.is_symlink():
            return resolved
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))


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
    old = _old(target)
    _remove(old)
    os.rename(target, old)
    try:
        os.rename(staging, target)
    except BaseException:
        os.rename(old, target)
        raise
    _remove(old)


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
