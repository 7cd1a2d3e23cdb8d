"""Files and directories appear whole or not at all: whatever fails, and whoever else writes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from xformer_mobile import files
from xformer_mobile.errors import BusyError, OutputError
from xformer_mobile.files import exclusive_directory, file_sha256, output_errors, write_file

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones too, with its content."""
    return {
        os.fspath(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def raiser(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def one_line(error: BaseException, path: Path) -> str:
    message = str(error)
    assert "\n" not in message
    assert path.name in message
    return message


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "empty") == EMPTY_SHA256
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "blocks").write_bytes(bytes(3 * 2**20 + 1))
    (tmp_path / "changed").write_bytes(bytes(3 * 2**20) + b"\x01")
    assert file_sha256(tmp_path / "blocks") != file_sha256(tmp_path / "changed")


def test_output_errors_turns_only_the_systems_refusals() -> None:
    with pytest.raises(OutputError, match=r"^can't write place: No space left on device$"), output_errors("place"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputError, match=r"^can't write place: odd$"), output_errors("place"):
        raise OSError("odd")
    with pytest.raises(ValueError, match="mine"), output_errors("place"):
        raise ValueError("mine")


# ---- one file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [None, b"old and longer"], ids=["new", "replaced"])
def test_write_file(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    write_file(path, b"new")
    assert tree(tmp_path) == {"file.bin": b"new"}


def test_write_file_respects_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_file(tmp_path / "file", b"")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_write_file_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, raiser(error))
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_file(path, b"new")
    assert tree(tmp_path) == {"file.bin": b"old"}
    if expected is OutputError:
        assert "No space left on device" in one_line(caught.value, path)


def test_write_file_on_a_full_disk(tmp_path: Path) -> None:
    """A real refusal in the middle of the write: the process may write files of 4 KiB at most."""
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    code = """
import resource, sys
from pathlib import Path
from xformer_mobile.errors import OutputError
from xformer_mobile.files import write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_file(Path(sys.argv[1]), bytes(100_000))
except OutputError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"can't write {path}: ")
    assert len(result.stdout.splitlines()) == 1
    assert tree(tmp_path) == {"file.bin": b"old"}


@pytest.mark.parametrize("place", ["missing/file", "directory", "plain/file", "n" * 300])
def test_write_file_where_it_cannot_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "plain").write_bytes(b"plain")
    with pytest.raises(OutputError) as caught:
        write_file(tmp_path / place, b"new")
    one_line(caught.value, tmp_path / place)
    assert names(tmp_path) == ["directory", "plain"]
    assert tree(tmp_path) == {"plain": b"plain"}


# ---- one directory ---------------------------------------------------------------------------------------


@pytest.fixture(params=["exchange", "two renames"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of replacing a directory."""
    if request.param == "two renames":
        monkeypatch.setattr(files, "_exchange", lambda _first, _second: False)
    return str(request.param)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A directory to be replaced."""
    target = tmp_path / "target"
    (target / "deep").mkdir(parents=True)
    (target / "a").write_bytes(b"old a")
    (target / "deep" / "b").write_bytes(b"old b")
    return target


OLD = {"a": b"old a", "deep/b": b"old b"}


def fill(staging: Path, content: bytes = b"new") -> None:
    (staging / "folder").mkdir()
    (staging / "folder" / "file").write_bytes(content)


def write_directory(target: Path, last: Callable[[], object] = lambda: None) -> None:
    """Write a new directory; ``last`` is called at the end of the block."""
    with exclusive_directory(target) as staging:
        fill(staging)
        last()


def test_new_directory(tmp_path: Path, swap: str) -> None:
    target = tmp_path / "target"
    with exclusive_directory(target) as staging:
        assert staging.parent == tmp_path
        assert names(staging) == []
        fill(staging)
        assert not target.exists()
    assert tree(tmp_path) == {"target/folder/file": b"new"}
    assert names(tmp_path) == ["target"]


def test_replaced_directory(tmp_path: Path, old: Path, swap: str) -> None:
    with exclusive_directory(old) as staging:
        fill(staging)
        assert tree(old) == OLD
    assert tree(tmp_path) == {"target/folder/file": b"new"}
    assert names(tmp_path) == ["target"]


def test_the_system_swaps_two_names_in_one_step(tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the systems that this runs on, no moment without a target: os.rename is not used."""
    monkeypatch.setattr(os, "rename", raiser(AssertionError("two steps")))
    write_directory(old)
    assert tree(tmp_path) == {"target/folder/file": b"new"}


def test_parents_are_created(tmp_path: Path) -> None:
    write_directory(tmp_path / "a" / "b" / "target")
    assert tree(tmp_path) == {"a/b/target/folder/file": b"new"}


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), OSError("mine")], ids=repr)
@pytest.mark.parametrize("before", ["nothing", "a directory"])
def test_block_that_raises_changes_nothing(
    tmp_path: Path, request: pytest.FixtureRequest, error: BaseException, before: str
) -> None:
    if before == "a directory":
        request.getfixturevalue("old")
    content, entries = tree(tmp_path), names(tmp_path)
    with pytest.raises(type(error)) as caught:
        write_directory(tmp_path / "target", raiser(error))
    assert caught.value is error  # not dressed up as an OutputError: it is the block's own
    assert tree(tmp_path) == content
    assert names(tmp_path) == entries


@pytest.mark.parametrize("step", ["fsync", "rename", "_exchange"])
def test_step_that_fails_leaves_the_old_directory(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    refuse = raiser(OSError(errno.EIO, "Input/output error"))
    monkeypatch.setattr(files, "_exchange", refuse if step == "_exchange" else lambda _first, _second: False)
    if step != "_exchange":
        monkeypatch.setattr(os, step, refuse)
    with pytest.raises(OutputError) as caught:
        write_directory(old)
    assert "Input/output error" in one_line(caught.value, old)
    assert tree(old) == OLD
    assert names(tmp_path) == ["target"]


def test_second_rename_that_fails_brings_the_old_directory_back(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def refuse_second(source: Path, target: Path) -> None:
        if source.name.endswith(".partial"):
            assert not old.exists()  # it is the second one
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(files, "_exchange", lambda _first, _second: False)
    monkeypatch.setattr(os, "rename", refuse_second)
    with pytest.raises(OutputError):
        write_directory(old)
    assert tree(old) == OLD
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("kind", ["to a directory", "to nothing"])
def test_target_that_is_a_symbolic_link_stays_one(tmp_path: Path, old: Path, kind: str) -> None:
    real = old if kind == "to a directory" else tmp_path / "later"
    link = tmp_path / "link"
    link.symlink_to(real)
    write_directory(link)
    assert link.is_symlink()
    assert tree(real) == {"folder/file": b"new"}
    assert not [name for name in names(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize("kind", ["file", "below a file", "link to itself", "lock is a directory", "lock is a link"])
def test_target_that_cannot_be_a_directory(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"mine")
    if kind == "file":
        target.write_bytes(b"mine")
    elif kind == "below a file":
        (tmp_path / "plain").write_bytes(b"mine")
        target = tmp_path / "plain" / "target"
    elif kind == "link to itself":
        target.symlink_to(target)
    elif kind == "lock is a directory":
        (tmp_path / ".target.lock").mkdir()
    else:
        (tmp_path / ".target.lock").symlink_to(elsewhere / "precious")
    entries = names(tmp_path)
    with pytest.raises(OutputError) as caught, exclusive_directory(target):
        pytest.fail("the block runs")
    assert not isinstance(caught.value, BusyError)
    one_line(caught.value, target)
    assert names(tmp_path) == entries
    assert tree(elsewhere) == {"precious": b"mine"}


def test_parent_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Emulated: the superuser may write everywhere.
    mkdir = Path.mkdir

    def refuse(self: Path, *args: object, **options: object) -> None:
        if self.parent == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(self))
        mkdir(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="Permission denied") as caught, exclusive_directory(tmp_path / "target"):
        pytest.fail("the block runs")
    one_line(caught.value, tmp_path / "target")
    assert names(tmp_path) == []


# ---- several processes -----------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from xformer_mobile.files import exclusive_directory
with exclusive_directory(Path(sys.argv[1])) as staging:
    (staging / "folder").mkdir()
    (staging / "folder" / "file").write_bytes(b"theirs")
    (staging / "leftover").symlink_to("folder")
    print("inside", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is inside ``exclusive_directory`` for ``target`` until it is sent a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "target"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert pipe(process.stdout).readline() == "inside\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def test_busy_while_another_process_is_inside(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    target = tmp_path / "target"
    for _ in range(2):
        with pytest.raises(BusyError) as caught, exclusive_directory(target):
            pytest.fail("the block runs")
        assert "another process" in one_line(caught.value, target)
    write_directory(tmp_path / "other")  # another target is free
    holder.communicate("leave\n")
    assert holder.returncode == 0
    assert (target / "folder" / "file").read_bytes() == b"theirs"  # our tries did not touch its staging directory
    write_directory(target)
    assert tree(target) == {"folder/file": b"new"}
    assert names(tmp_path) == ["other", "target"]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert names(tmp_path) == [".target.lock", ".target.partial"]
    with exclusive_directory(tmp_path / "target") as staging:
        assert names(staging) == []
        fill(staging)
    assert tree(tmp_path) == {"target/folder/file": b"new"}
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_has_the_staging_directorys_name_is_cleared(tmp_path: Path, kind: str) -> None:
    staging, elsewhere = tmp_path / ".target.partial", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"mine")
    if kind == "file":
        staging.write_bytes(b"junk")
    elif kind == "link":
        staging.symlink_to(elsewhere)
    else:
        staging.mkdir()
        (staging / "link").symlink_to(elsewhere)
    write_directory(tmp_path / "target")
    assert tree(tmp_path) == {"elsewhere/precious": b"mine", "target/folder/file": b"new"}
    assert names(tmp_path) == ["elsewhere", "target"]


@pytest.mark.parametrize("ends", ["well", "with an error"])
def test_target_is_brought_back_after_a_kill_between_the_two_renames(tmp_path: Path, old: Path, ends: str) -> None:
    old.rename(tmp_path / ".target.old")
    if ends == "well":
        write_directory(old)
        assert tree(old) == {"folder/file": b"new"}
    else:
        with pytest.raises(ValueError, match="mine"):
            write_directory(old, raiser(ValueError("mine")))
        assert tree(old) == OLD
    assert names(tmp_path) == ["target"]


def test_lock_that_its_owner_removes_meanwhile_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our opening and our locking of it, the owner, who is done, removes the lock file."""
    lock, flock, calls = tmp_path / ".target.lock", fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            lock.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    write_directory(tmp_path / "target", lambda: calls.append(lock.stat().st_ino))
    assert len(calls) == 3  # locked twice, and there was a lock while the block ran
    assert tree(tmp_path) == {"target/folder/file": b"new"}


def test_lock_that_a_third_process_makes_again_meanwhile_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, and somebody else enters before us: we may not be inside together."""
    lock, flock = tmp_path / ".target.lock", fcntl.flock
    theirs: list[int] = []

    def late(descriptor: int, operation: int) -> None:
        if not theirs:
            lock.unlink()
            theirs.append(os.open(lock, os.O_RDWR | os.O_CREAT))
            flock(theirs[0], fcntl.LOCK_EX)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    try:
        with pytest.raises(BusyError):
            write_directory(tmp_path / "target")
        assert names(tmp_path) == [".target.lock"]
    finally:
        for descriptor in theirs:
            os.close(descriptor)


HANG_S = 120
"""When processes that wait for each other are given up; far more than they need."""

HAMMER = """
import sys
from pathlib import Path
from xformer_mobile import files
from xformer_mobile.errors import BusyError
target, name, way = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
if way == "two renames":
    files._exchange = lambda first, second: False
print("ready", flush=True)
sys.stdin.readline()
done = 0
while done < 15:
    try:
        with files.exclusive_directory(target) as staging:
            assert not list(staging.iterdir()), "not alone"
            for part in range(5):
                (staging / str(part)).write_text(f"{name} {done}")
            assert len(list(staging.iterdir())) == 5, "not alone"
        done += 1
    except BusyError:
        pass
"""


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_many_processes_leave_one_whole_result(tmp_path: Path, way: str) -> None:
    target = tmp_path / "target"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, target, f"process{index}", way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(4)
    ]
    try:
        for process in processes:
            assert pipe(process.stdout).readline() == "ready\n"
        for process in processes:
            pipe(process.stdin).write("go\n")
            pipe(process.stdin).flush()
        results = [process.communicate(timeout=HANG_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [error for _, error in results] == [""] * len(processes)
    assert [process.returncode for process in processes] == [0] * len(processes)
    content = tree(tmp_path)
    assert sorted(content) == [f"target/{part}" for part in range(5)]
    assert len(set(content.values())) == 1
    assert names(tmp_path) == ["target"]


def test_digest_of_a_directory_is_that_of_sha256sums_lines(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z.bin").write_bytes(b"\0\1")
    (tmp_path / "a.txt").write_bytes(b"text")
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in (("a.txt", b"text"), ("b/z.bin", b"\0\1"))
    ]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert files.tree_sha256(tmp_path) == expected
    assert files.tree_sha256(tmp_path / "a.txt") == hashlib.sha256(b"text").hexdigest()
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    assert files.tree_sha256(tmp_path) != expected
